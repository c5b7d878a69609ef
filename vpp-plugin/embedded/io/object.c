#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPORARY_SUFFIX ".new"
#define MODE_PRIVATE     0600
#define MODE_SHARED      0640
#define MODE_DIRECTORY   0755

/* Where a lock is contended the holder may be about to replace the file: look again, but not forever. */
#define LOCK_ATTEMPTS 8

int lbio_object_problem(lbio_problem_t *problem, const lbio_directory_t *directory,
                        const char *name, const char *what, const char *fix)
{
    int error = errno;
    problem->core = 0;
    problem->system = error;
    (void)snprintf(problem->text, sizeof(problem->text), "%s%s%s: %s: %s; %s", directory->path,
                   name[0] == '\0' ? "" : "/", name, what, strerror(error), fix);
    return -1;
}

bool lbio_is_shortage(const lbio_problem_t *problem)
{
    return problem->system == ENOSPC || problem->system == EDQUOT || problem->system == EROFS ||
           problem->system == ENOMEM;
}

/* As `mkdir -p`. Sets errno. */
static int make_directories(const char *path)
{
    char part[sizeof(((lbio_directory_t *)NULL)->path)];
    for (const char *end = path; *end != '\0';) {
        end = strchrnul(end + 1, '/');
        (void)snprintf(part, sizeof(part), "%.*s", (int)(end - path), path);
        if (mkdir(part, MODE_DIRECTORY) != 0 && errno != EEXIST) {
            return -1;
        }
    }
    return 0;
}

int lbio_directory_open(lbio_directory_t *directory, const char *path, int64_t group,
                        lbio_problem_t *problem)
{
    directory->group = group;
    (void)snprintf(directory->path, sizeof(directory->path), "%s", path);
    directory->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory->fd < 0 && errno == ENOENT && make_directories(directory->path) == 0) {
        directory->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    directory->error = directory->fd < 0 ? errno : 0;
    if (directory->fd < 0) {
        return lbio_object_problem(problem, directory, "", "cannot be opened",
                                   "name a directory on tmpfs, usually one of /dev/shm");
    }
    return 0;
}

void lbio_directory_again(lbio_directory_t *directory)
{
    lbio_problem_t ignored;
    char path[sizeof(directory->path)];
    memcpy(path, directory->path, sizeof(path));
    (void)lbio_directory_open(directory, path, directory->group, &ignored);
}

void lbio_directory_close(lbio_directory_t *directory)
{
    if (directory->fd >= 0) {
        (void)close(directory->fd);
        directory->fd = -1;
    }
}

static void temporary_name(char out[LBIO_NAME_MAX + sizeof(TEMPORARY_SUFFIX)], const char *name)
{
    (void)snprintf(out, LBIO_NAME_MAX + sizeof(TEMPORARY_SUFFIX), "%s" TEMPORARY_SUFFIX, name);
}

static int map(lbio_object_t *object, int fd, size_t size, int sharing)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, sharing, fd, 0);
    if (memory == MAP_FAILED) {
        return -1;
    }
    *object = (lbio_object_t){.memory = memory, .size = size, .fd = fd};
    return 0;
}

/* Gives a new file its size, readers and lock. Sets errno. */
static int prepare(int fd, size_t size, int64_t group, bool locked)
{
    /* Committed now: a page that cannot be had later would be a SIGBUS in a packet thread. */
    int error = posix_fallocate(fd, 0, (off_t)size);
    if (error != 0) {
        errno = error;
        return -1;
    }
    if (group >= 0 && fchown(fd, (uid_t)-1, (gid_t)group) != 0) {
        return -1;
    }
    return locked ? flock(fd, LOCK_EX | LOCK_NB) : 0;
}

int lbio_object_create(lbio_object_t *object, const lbio_directory_t *directory, const char *name,
                       size_t size, bool shared, bool locked, lbio_problem_t *problem)
{
    char temporary[LBIO_NAME_MAX + sizeof(TEMPORARY_SUFFIX)];
    temporary_name(temporary, name);
    if (directory->fd < 0) {
        errno = directory->error;
        return lbio_object_problem(problem, directory, temporary, "cannot be created",
                                   "make the directory, on a tmpfs that can be written");
    }
    /* Left by a process that was killed here; O_EXCL below keeps others' files out. */
    (void)unlinkat(directory->fd, temporary, 0);
    mode_t mode = shared ? MODE_SHARED : MODE_PRIVATE;
    int fd =
        openat(directory->fd, temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) {
        return lbio_object_problem(problem, directory, temporary, "cannot be created",
                                   "give this process write access to the directory");
    }
    if (prepare(fd, size, shared ? directory->group : -1, locked) != 0 || fchmod(fd, mode) != 0 ||
        map(object, fd, size, MAP_SHARED) != 0) {
        (void)lbio_object_problem(problem, directory, temporary, "cannot be prepared",
                                  "free shared memory, raise the pod's memory limit, or lower the "
                                  "flow table's size");
        (void)close(fd);
        (void)unlinkat(directory->fd, temporary, 0);
        return -1;
    }
    if (!locked) {
        (void)close(fd);
        object->fd = -1;
    }
    return 0;
}

int lbio_object_create_private(lbio_object_t *object, size_t size)
{
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) {
        return -1;
    }
    *object = (lbio_object_t){.memory = memory, .size = size, .fd = -1, .is_private = true};
    return 0;
}

int lbio_object_publish(const lbio_directory_t *directory, const char *name,
                        lbio_problem_t *problem)
{
    char temporary[LBIO_NAME_MAX + sizeof(TEMPORARY_SUFFIX)];
    temporary_name(temporary, name);
    if (renameat(directory->fd, temporary, directory->fd, name) != 0) {
        (void)lbio_object_problem(problem, directory, name, "cannot be replaced",
                                  "remove the object of another owner that has its name");
        (void)unlinkat(directory->fd, temporary, 0);
        return -1;
    }
    return 0;
}

void lbio_object_abandon(lbio_object_t *object, const lbio_directory_t *directory, const char *name)
{
    char temporary[LBIO_NAME_MAX + sizeof(TEMPORARY_SUFFIX)];
    temporary_name(temporary, name);
    lbio_object_release(object);
    (void)unlinkat(directory->fd, temporary, 0);
}

/* Checks that an opened file is what we would have made ourselves. */
static bool is_ours(const struct stat *status)
{
    return S_ISREG(status->st_mode) && status->st_uid == geteuid() && status->st_size > 0;
}

/* Takes away what another user has put at a name of ours: in a directory of ours that others may write, that is for us
 * to do. Returns whether the name is free. */
static bool set_aside(const lbio_directory_t *directory, const char *name)
{
    struct stat status;
    char aside[LBIO_NAME_MAX + 32];
    if (fstat(directory->fd, &status) != 0 || status.st_uid != geteuid()) {
        return false;
    }
    if (fstatat(directory->fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT;
    }
    if (status.st_uid == geteuid()) {
        return false;
    }
    if (unlinkat(directory->fd, name, 0) == 0) {
        return true;
    }
    /* A directory, with something in it perhaps. */
    (void)snprintf(aside, sizeof(aside), "%s.foreign-%" PRIx64, name, lbio_now_us());
    return renameat(directory->fd, name, directory->fd, aside) == 0;
}

/* One attempt: 1 done (or nothing there), 0 try again, -1 failed. */
static int try_lock(lbio_object_t *object, const lbio_directory_t *directory, const char *name,
                    lbio_problem_t *problem)
{
    struct stat status;
    int sharing = MAP_SHARED;
    int fd = openat(directory->fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == EROFS) { /* what is there is used, and changed in our own memory alone */
        sharing = MAP_PRIVATE | MAP_POPULATE;
        fd = openat(directory->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    }
    if (fd < 0) {
        int error = errno;
        if (error == ENOENT || set_aside(directory, name)) {
            return 1;
        }
        errno = error;
        return lbio_object_problem(problem, directory, name, "cannot be opened",
                                   "remove it if it belongs to no data plane");
    }
    if (fstat(fd, &status) != 0 || !is_ours(&status)) {
        (void)close(fd);
        if (set_aside(directory, name)) {
            return 1;
        }
        errno = EPERM;
        return lbio_object_problem(problem, directory, name, "is not ours", "remove it");
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        (void)lbio_object_problem(problem, directory, name, "is in use by another data plane",
                                  "stop that one, or give this one a directory of its own");
        (void)close(fd);
        return -1;
    }
    if (fstat(fd, &status) != 0 || status.st_nlink == 0) { /* replaced before we had the lock */
        (void)close(fd);
        return 0;
    }
    if (map(object, fd, (size_t)status.st_size, sharing) != 0) {
        (void)lbio_object_problem(problem, directory, name, "cannot be mapped",
                                  "raise the memory limit");
        (void)close(fd);
        return -1;
    }
    object->is_private = sharing != MAP_SHARED;
    return 1;
}

int lbio_object_lock(lbio_object_t *object, const lbio_directory_t *directory, const char *name,
                     lbio_problem_t *problem)
{
    *object = LBIO_OBJECT_NONE;
    if (directory->fd < 0) {
        return 0;
    }
    for (int attempt = 0; attempt < LOCK_ATTEMPTS; attempt++) {
        int done = try_lock(object, directory, name, problem);
        if (done != 0) {
            return done > 0 ? 0 : -1;
        }
    }
    errno = EAGAIN;
    return lbio_object_problem(problem, directory, name, "is being replaced",
                               "stop the other data plane");
}

void lbio_object_release(lbio_object_t *object)
{
    if (object->memory != NULL) {
        (void)munmap(object->memory, object->size);
    }
    if (object->fd >= 0) {
        (void)close(object->fd);
    }
    *object = LBIO_OBJECT_NONE;
}

void lbio_object_unlink(const lbio_directory_t *directory, const char *name)
{
    (void)unlinkat(directory->fd, name, 0);
}
