/*
 * Shared-memory objects: files of a directory on tmpfs, mapped. The same as shm_open() would make, but
 * below a directory that is named, so that one node can hold those of several data planes.
 */
#ifndef LBIO_OBJECT_H
#define LBIO_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lbio.h"

typedef struct lbio_object {
    void *memory; /* mapped, page-aligned; NULL for none */
    size_t size;
    int fd;          /* kept where it carries a lock; else -1 */
    bool is_private; /* no other process, a later one of ours included, sees what is written */
} lbio_object_t;

#define LBIO_OBJECT_NONE ((lbio_object_t){.memory = NULL, .size = 0, .fd = -1})

typedef struct lbio_directory {
    int fd;        /* -1: it could not be opened */
    int error;     /* errno of that */
    int64_t group; /* of objects that others may read, or -1 */
    char path[256];
} lbio_directory_t;

/* Whether something could not be made for want of memory or of a file system that is writable: a data plane goes on
 * without it. */
bool lbio_is_shortage(const lbio_problem_t *problem);

/* Opens a directory, or makes it. */
int lbio_directory_open(lbio_directory_t *directory, const char *path, int64_t group,
                        lbio_problem_t *problem);
void lbio_directory_again(lbio_directory_t *directory); /* one that could not be opened before */
void lbio_directory_close(lbio_directory_t *directory);

/* Makes an object of zeroes, all memory of it committed now, under a temporary name until
 * lbio_object_publish(). `shared`: readable by the directory's group. `locked`: see below. */
int lbio_object_create(lbio_object_t *object, const lbio_directory_t *directory, const char *name,
                       size_t size, bool shared, bool locked, lbio_problem_t *problem);

/* Makes an object of zeroes that no directory has, where none can be had there. Sets errno. */
int lbio_object_create_private(lbio_object_t *object, size_t size);

/* Puts a created object in the place of what had its name. */
int lbio_object_publish(const lbio_directory_t *directory, const char *name,
                        lbio_problem_t *problem);

/* Releases a created object that is not to be published. */
void lbio_object_abandon(lbio_object_t *object, const lbio_directory_t *directory,
                         const char *name);

/* Opens and locks an object of ours; its memory is NULL if there is none. The lock ends with the process,
 * however it ends. Fails if another process holds it. On a file system that is read-only the object is a private copy. */
int lbio_object_lock(lbio_object_t *object, const lbio_directory_t *directory, const char *name,
                     lbio_problem_t *problem);

/* Unmaps and unlocks; the object stays in the directory. */
void lbio_object_release(lbio_object_t *object);

void lbio_object_unlink(const lbio_directory_t *directory, const char *name);

/* Fills in `problem` from errno: "<directory>/<name>: <what>: <reason>; <fix>". Returns -1. */
int lbio_object_problem(lbio_problem_t *problem, const lbio_directory_t *directory,
                        const char *name, const char *what, const char *fix);

#endif
