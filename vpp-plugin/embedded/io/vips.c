/* VIPs with their frames objects, kept in step with the core. */
#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "penstock."

#define STRAYS_US  10000000u /* between two looks for objects of no VIP */
#define STRAYS_MAX 16384u    /* most files that one of them reads */
#define REMAKE_US  1000000u  /* between two attempts to make frames for which there was no memory */
#define REMAKE_MAX 16u       /* in one step, which holds the lock */

void lbio_vip_name(char out[LBIO_NAME_MAX], uint64_t id, const char *kind)
{
    (void)snprintf(out, LBIO_NAME_MAX, PREFIX "%016" PRIx64 ".%s", id, kind);
}

static int place_of(const lbio_t *io, uint64_t id)
{
    for (uint32_t i = 0; i < io->vip_count; i++) {
        if (io->vips[i]->id == id) {
            return (int)i;
        }
    }
    return -1;
}

lbio_vip_t *lbio_vip_find(const lbio_t *io, uint64_t id)
{
    int place = place_of(io, id);
    return place < 0 ? NULL : io->vips[place];
}

static int no_memory(lbio_problem_t *problem)
{
    return lbio_core_problem(problem, LBRL_ERR_MEMORY, "VIP");
}

/* ---- Frames ---- */

static void free_frames(lbio_frames_t *frames)
{
    if (frames != NULL) {
        lbio_object_release(&frames->object);
        free(frames);
    }
}

/* The same of frames that were not published. */
static void abandon_frames(const lbio_t *io, const char *name, lbio_frames_t *frames)
{
    if (frames != NULL) {
        lbio_object_abandon(&frames->object, &io->directory, name);
        free(frames);
    }
}

/* Keeps frames mapped until the workers have left them. */
static void retire(lbio_t *io, lbio_frames_t *frames)
{
    if (frames != NULL) {
        lbrl_frames_retire(&frames->writer);
        frames->next = io->retired;
        io->retired = frames;
    }
}

/* Makes an earlier process's object of that name tell its readers that it is dead. */
static void retire_file(const lbio_t *io, const char *name)
{
    struct stat status;
    int fd = openat(io->directory.fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return;
    }
    if (fstat(fd, &status) == 0 && status.st_uid == geteuid() && status.st_size > 0) {
        size_t size = (size_t)status.st_size;
        void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory != MAP_FAILED) {
            (void)lbrl_shm_retire(memory, size, LBRL_SHM_FRAMES_MAGIC);
            (void)munmap(memory, size);
        }
    }
    (void)close(fd);
}

/* What frames have to fit. */
typedef struct shape {
    uint32_t slots;
    lbrl_level_t level;
} shape_t;

/* Makes frames under their temporary name. NULL with `problem` when that fails. */
static lbio_frames_t *make_frames(lbio_t *io, const char *name, shape_t shape,
                                  lbio_problem_t *problem)
{
    lbrl_frames_config_t config = {.slots = shape.slots,
                                   .workers = io->workers,
                                   .level = shape.level,
                                   .instance_id = io->instance_id};
    size_t size = lbrl_frames_size(&config);
    lbio_frames_t *frames = calloc(1, sizeof(*frames));
    if (frames == NULL) {
        (void)no_memory(problem);
        return NULL;
    }
    frames->object = LBIO_OBJECT_NONE;
    frames->level = config.level;
    if (size == 0) {
        (void)lbio_core_problem(problem, LBRL_ERR_EXHAUSTED, "slots of the VIP's frames");
    } else if (lbio_object_create(&frames->object, &io->directory, name, size, true, false,
                                  problem) == 0) {
        if (lbrl_frames_format(&frames->writer, frames->object.memory, size, &config,
                               lbio_now_us()) == LBRL_SHM_OK) {
            return frames;
        }
        (void)lbio_core_problem(problem, LBRL_ERR_FRAMES, "frames");
    }
    abandon_frames(io, name, frames);
    return NULL;
}

/* Whether the core records into a VIP's frames: those of a VIP that it has removed meanwhile are nobody's. */
static bool is_bound(const lbio_t *io, const lbio_vip_t *vip)
{
    lbrl_vip_status_t status;
    return vip->frames != NULL && lbrl_vip_status(io->core, vip->id, &status, NULL, 0) == LBRL_OK &&
           status.frames == &vip->frames->writer;
}

static bool fits(const lbio_frames_t *frames, shape_t shape)
{
    return frames->writer.slots == shape.slots && frames->level == shape.level;
}

/* What a VIP's frames have to fit now. */
static int shape_of(const lbio_t *io, uint64_t id, shape_t *shape, bool *removing)
{
    lbrl_vip_status_t status;
    int error = lbrl_vip_status(io->core, id, &status, NULL, 0);
    if (error == LBRL_OK) {
        *shape = (shape_t){status.slots, (lbrl_level_t)status.feature_level};
        *removing = status.removing != 0;
    }
    return error;
}

/* Has the core record into new frames, which go on from the old ones if those are `carried`, and publishes them. */
static int put_frames(lbio_t *io, lbio_vip_t *vip, lbio_frames_t *frames, bool carried,
                      lbio_problem_t *problem)
{
    char name[LBIO_NAME_MAX];
    lbio_frames_t *old = vip->frames;
    lbio_vip_name(name, vip->id, "frames");
    if (old == NULL) {
        retire_file(io, name);
    } else if (carried) {
        (void)lbrl_frames_carry(&frames->writer, &old->writer);
    }
    int error = lbrl_frames_bind(io->core, vip->id, &frames->writer);
    if (error != LBRL_OK) {
        abandon_frames(io, name, frames);
        return lbio_core_problem(problem, error, "frames");
    }
    vip->frames = frames;
    retire(io, old);
    return lbio_object_publish(&io->directory, name, problem);
}

/* ---- Entries ---- */

static lbio_vip_t *add(lbio_t *io, uint64_t id)
{
    if (io->vip_count == io->vip_capacity) {
        uint32_t capacity = io->vip_capacity == 0 ? 16 : 2 * io->vip_capacity;
        lbio_vip_t **vips = (lbio_vip_t **)realloc((void *)io->vips, capacity * sizeof(*vips));
        if (vips == NULL) {
            return NULL;
        }
        io->vips = vips;
        io->vip_capacity = capacity;
    }
    lbio_vip_t *vip = calloc(1, sizeof(*vip));
    if (vip != NULL) {
        vip->id = id;
        vip->actions = -1;
        io->vips[io->vip_count++] = vip;
    }
    return vip;
}

/* Ends an entry and its objects. The core has unbound the frames, or never had them. */
static void forget(lbio_t *io, uint32_t place)
{
    char name[LBIO_NAME_MAX];
    lbio_vip_t *vip = io->vips[place];
    io->vips[place] = io->vips[--io->vip_count];
    lbio_vip_name(name, vip->id, "frames");
    lbio_object_unlink(&io->directory, name);
    lbio_vip_name(name, vip->id, "actions");
    lbio_object_unlink(&io->directory, name);
    lbio_actions_close(vip);
    retire(io, vip->frames);
    free(vip);
}

/* Which field of a VIP that is there is another one, of those that cannot change. */
static const char *immutable_field(const lbio_t *io, const lbrl_vip_config_t *config)
{
    lbrl_vip_config_t present;
    if (lbrl_vip_config(io->core, config->id, &present, NULL, 0) != LBRL_OK) {
        return "VIP";
    }
    return present.protocol != config->protocol       ? "protocol"
           : present.port != config->port             ? "port"
           : present.forwarding != config->forwarding ? "forwarding"
                                                      : "addresses";
}

static int check(const lbio_t *io, const lbrl_vip_config_t *config, uint32_t *slots,
                 lbio_problem_t *problem)
{
    lbrl_reason_t reason;
    int error = lbrl_vip_slots(io->core, config, slots);
    if (error == LBRL_ERR_INVALID && lbrl_vip_check(config, &reason) == error) {
        *problem = (lbio_problem_t){.core = error};
        (void)snprintf(problem->text, sizeof(problem->text), "%s", reason.text);
        return -1;
    }
    const char *field = error == LBRL_ERR_IMMUTABLE ? immutable_field(io, config) : "VIP";
    return error == LBRL_OK ? 0 : lbio_core_problem(problem, error, field);
}

/* Frames are for learning: traffic does not wait for them. Those that cannot be had are made later. */
static void show(lbio_t *io, lbio_vip_t *vip, shape_t shape, bool carried)
{
    char name[LBIO_NAME_MAX];
    lbio_problem_t problem;
    lbio_vip_name(name, vip->id, "frames");
    if (!carried) { /* those of a VIP that the core has removed meanwhile */
        retire(io, vip->frames);
        vip->frames = NULL;
    }
    lbio_frames_t *frames = make_frames(io, name, shape, &problem);
    if (frames == NULL && vip->frames == NULL) {
        /* The memory of a process that is gone is ours to use. */
        retire_file(io, name);
        lbio_object_unlink(&io->directory, name);
        frames = make_frames(io, name, shape, &problem);
    }
    vip->unshown = frames == NULL || put_frames(io, vip, frames, carried, &problem) != 0;
    if (vip->unshown) {
        io->shortage = problem;
    }
}

static int change(lbio_t *io, lbio_vip_t *vip, const lbrl_vip_config_t *config, uint32_t slots,
                  lbio_problem_t *problem)
{
    const shape_t shape = {slots, (lbrl_level_t)config->feature_level};
    shape_t before;
    bool removing;
    const bool carried = shape_of(io, vip->id, &before, &removing) == LBRL_OK;
    const bool shown = !vip->unshown && is_bound(io, vip) && fits(vip->frames, shape);
    int error = lbrl_vip_set(io->core, config, lbio_now_us());
    if (error != LBRL_OK) {
        return lbio_core_problem(problem, error, "VIP");
    }
    vip->removing = false;
    if (!shown) {
        show(io, vip, shape, carried);
    }
    return 0;
}

static int set(lbio_t *io, const lbrl_vip_config_t *config, lbio_problem_t *problem)
{
    uint32_t slots;
    if (check(io, config, &slots, problem) != 0) {
        if (problem->core == LBRL_ERR_EXHAUSTED) { /* a later try finds the room of a removed VIP */
            lbrl_drain_end_for(io->core, config->id, lbio_now_us());
        }
        return -1;
    }
    lbio_vip_t *vip = lbio_vip_find(io, config->id);
    const bool is_new = vip == NULL;
    if (is_new) {
        vip = add(io, config->id);
    }
    if (vip == NULL) {
        return no_memory(problem);
    }
    int done = change(io, vip, config, slots, problem);
    if (done != 0 && is_new) { /* whole or not at all */
        if (lbrl_vip_remove(io->core, config->id, lbio_now_us()) == LBRL_OK) {
            vip->removing = true;
        } else {
            forget(io, (uint32_t)place_of(io, config->id));
        }
    }
    return done;
}

int lbio_vip_set(lbio_t *io, const lbrl_vip_config_t *config, lbio_problem_t *problem)
{
    (void)pthread_mutex_lock(&io->lock);
    int done = set(io, config, problem);
    (void)pthread_mutex_unlock(&io->lock);
    return done;
}

int lbio_vip_remove(lbio_t *io, uint64_t id, lbio_problem_t *problem)
{
    (void)pthread_mutex_lock(&io->lock);
    int error = lbrl_vip_remove(io->core, id, lbio_now_us());
    lbio_vip_t *vip = lbio_vip_find(io, id);
    if (vip != NULL) {
        vip->removing = true;
    }
    (void)pthread_mutex_unlock(&io->lock);
    return error == LBRL_OK ? 0 : lbio_core_problem(problem, error, "VIP");
}

/* ---- All of them ---- */

/* Removes an object of a VIP that the core has not. Of frames it tells their readers. */
static void remove_stray(const lbio_t *io, const char *found)
{
    char kind[8] = "";
    char expected[LBIO_NAME_MAX];
    uint64_t id = 0;
    if (sscanf(found, PREFIX "%16" SCNx64 ".%7s", &id, kind) != 2 ||
        lbio_vip_find(io, id) != NULL) {
        return;
    }
    bool frames = strcmp(kind, "frames") == 0;
    lbio_vip_name(expected, id, kind);
    if (strcmp(expected, found) != 0 || (!frames && strcmp(kind, "actions") != 0)) {
        return;
    }
    if (frames) {
        retire_file(io, expected);
    }
    lbio_object_unlink(&io->directory, expected);
}

/* Removes objects that belong to no VIP of the core: their VIP went while no process looked, or an agent did not remove
 * what was its own. A directory that somebody has filled is read in part, since others wait meanwhile. */
static void remove_strays(const lbio_t *io)
{
    int fd = openat(io->directory.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (directory == NULL) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return;
    }
    const struct dirent *entry;
    for (uint32_t i = 0; i < STRAYS_MAX && (entry = readdir(directory)) != NULL; i++) {
        remove_stray(io, entry->d_name);
    }
    (void)closedir(directory);
}

/* Takes a VIP that the arena has into service; one that drains is let go when it has. */
static int adopt(lbio_t *io, uint64_t id, lbio_problem_t *problem)
{
    shape_t shape;
    lbio_vip_t *vip = add(io, id);
    if (vip == NULL) {
        return no_memory(problem);
    }
    int error = shape_of(io, id, &shape, &vip->removing);
    if (error != LBRL_OK) {
        return lbio_core_problem(problem, error, "VIP");
    }
    show(io, vip, shape, false);
    return 0;
}

int lbio_vips_adopt(lbio_t *io, lbio_problem_t *problem)
{
    uint32_t count = lbrl_vip_ids(io->core, NULL, 0);
    uint64_t *ids = calloc(count + 1, sizeof(*ids));
    if (ids == NULL) {
        return no_memory(problem);
    }
    count = lbrl_vip_ids(io->core, ids, count);
    int done = 0;
    for (uint32_t i = 0; i < count && done == 0; i++) {
        done = adopt(io, ids[i], problem);
    }
    free(ids);
    if (done == 0) {
        remove_strays(io);
    }
    return done;
}

/* Makes frames that could not be made before, until the first that still cannot. */
static void show_unshown(lbio_t *io, uint64_t now_us)
{
    bool removing;
    shape_t shape;
    uint32_t left = REMAKE_MAX;
    for (uint32_t i = 0; i < io->vip_count && left > 0 && now_us >= io->remake_us; i++) {
        lbio_vip_t *vip = io->vips[i];
        if (vip->unshown && shape_of(io, vip->id, &shape, &removing) == LBRL_OK) {
            show(io, vip, shape, true);
            left--;
            if (vip->unshown) {
                io->remake_us = now_us + REMAKE_US;
            }
        }
    }
}

uint32_t lbio_vips_unshown(const lbio_t *io)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < io->vip_count; i++) {
        count += io->vips[i]->unshown;
    }
    return count;
}

void lbio_vips_sweep(lbio_t *io, uint64_t now_us)
{
    lbrl_vip_status_t status;
    show_unshown(io, now_us);
    if (now_us - io->strays_us >= STRAYS_US) {
        io->strays_us = now_us;
        remove_strays(io);
    }
    for (uint32_t i = io->vip_count; i-- > 0;) {
        const lbio_vip_t *vip = io->vips[i];
        if (vip->removing && lbrl_vip_status(io->core, vip->id, &status, NULL, 0) != LBRL_OK) {
            forget(io, i);
        }
    }
    for (lbio_frames_t **link = &io->retired; *link != NULL;) {
        lbio_frames_t *frames = *link;
        if (lbrl_frames_released(io->core, &frames->writer)) {
            *link = frames->next;
            free_frames(frames);
        } else {
            link = &frames->next;
        }
    }
}

void lbio_vips_unlink(lbio_t *io)
{
    while (io->vip_count > 0) {
        forget(io, io->vip_count - 1);
    }
    remove_strays(io);
}

void lbio_vips_free(lbio_t *io)
{
    for (uint32_t i = 0; i < io->vip_count; i++) {
        lbio_actions_close(io->vips[i]);
        free_frames(io->vips[i]->frames);
        free(io->vips[i]);
    }
    free((void *)io->vips);
    io->vips = NULL;
    io->vip_count = io->vip_capacity = 0;
    while (io->retired != NULL) {
        lbio_frames_t *frames = io->retired;
        io->retired = frames->next;
        free_frames(frames);
    }
}
