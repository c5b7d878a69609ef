/*
 * The agent's actions objects: read, and handed to the core, which decides what comes into force.
 *
 * An object is read with pread(), never mapped: its owner may truncate it, and a mapping would turn that
 * into a SIGBUS of ours.
 */
#include "internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void lbio_actions_close(lbio_vip_t *vip)
{
    if (vip->actions >= 0) {
        (void)close(vip->actions);
        vip->actions = -1;
    }
}

/* Opens the object if there is one by now. */
static bool open_actions(const lbio_t *io, lbio_vip_t *vip)
{
    char name[LBIO_NAME_MAX];
    struct stat status;
    lbio_vip_name(name, vip->id, "actions");
    /* O_NONBLOCK: what lies there under our name may be a FIFO. */
    int fd = openat(io->directory.fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return false;
    }
    /* One descriptor per VIP is kept; some are left to the control socket and to devices. */
    if ((uint64_t)fd >= io->descriptors || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        (void)close(fd);
        return false;
    }
    vip->actions = fd;
    return true;
}

static bool make_room(lbio_t *io, size_t size)
{
    if (size > io->scratch_size) {
        uint8_t *larger = realloc(io->scratch, size);
        if (larger == NULL) {
            return false;
        }
        io->scratch = larger;
        io->scratch_size = size;
    }
    return true;
}

/* Copies the object to `io->scratch`. Returns its size, 0 when it cannot be one of the agent's. */
static size_t copy_object(lbio_t *io, int fd, off_t length)
{
    if (length < (off_t)sizeof(lbrl_shm_header_t) ||
        length > (off_t)lbrl_actions_size(LBRL_SHM_MAX_SLOTS) || !make_room(io, (size_t)length)) {
        return 0;
    }
    return pread(fd, io->scratch, (size_t)length, 0) == length ? (size_t)length : 0;
}

/* Marks frames of the copy as unfinished whose sequence has moved: the copy was made front to back, so a
 * frame's sequence may be older than the weights behind it. */
static void recheck_frames(const lbio_t *io, int fd, const lbrl_shm_header_t *header)
{
    for (uint32_t i = 0; i < LBRL_SHM_FRAMES; i++) {
        size_t offset = header->frames_offset + (size_t)i * header->frame_stride;
        uint64_t now = 0;
        uint64_t then;
        memcpy(&then, io->scratch + offset, sizeof(then));
        if (pread(fd, &now, sizeof(now), (off_t)offset) != (ssize_t)sizeof(now) || now != then) {
            memset(io->scratch + offset, 0, sizeof(then));
        }
    }
}

static int follow(lbio_t *io, const lbio_vip_t *vip, off_t length, uint64_t now_us)
{
    lbrl_shm_view_t view;
    size_t size = copy_object(io, vip->actions, length);
    if (size == 0) {
        return LBRL_SHM_TRUNCATED;
    }
    int error = lbrl_shm_open(&view, io->scratch, size, LBRL_SHM_ACTIONS_MAGIC, NULL);
    if (error != LBRL_SHM_OK) {
        return error;
    }
    recheck_frames(io, vip->actions, &view.header);
    return lbrl_weights_follow(io->core, vip->id, &view, now_us);
}

/* Ends an object. Its inode was kept in use until now, so that the next object is told from it by that alone, and not
 * by a sequence, which may be the same. */
void lbio_actions_leave(const lbio_t *io, lbio_vip_t *vip, uint64_t now_us)
{
    lbio_actions_close(vip);
    (void)lbrl_weights_unfollow(io->core, vip->id, now_us);
}

void lbio_actions_follow(lbio_t *io, lbio_vip_t *vip, uint64_t now_us)
{
    struct stat status;
    if (vip->actions >= 0 && (fstat(vip->actions, &status) != 0 || status.st_nlink == 0)) {
        lbio_actions_leave(io, vip, now_us); /* removed or replaced by the agent */
    }
    if (vip->actions < 0 && (!open_actions(io, vip) || fstat(vip->actions, &status) != 0)) {
        return;
    }
    int result = follow(io, vip, status.st_size, now_us);
    vip->refusal = result < 0 ? result : 0;
    if (result < 0) {
        vip->refused++;
    }
    if (result == LBRL_SHM_GONE) {
        lbio_actions_leave(io, vip, now_us);
    }
}

void lbio_agents_follow(lbio_t *io, bool follow)
{
    (void)pthread_mutex_lock(&io->lock);
    io->deaf = !follow;
    for (uint32_t i = 0; !follow && i < io->vip_count; i++) {
        lbio_actions_leave(io, io->vips[i], lbio_now_us());
        (void)lbrl_weights_reset(io->core, io->vips[i]->id);
    }
    (void)pthread_mutex_unlock(&io->lock);
}
