/* Inside of the shared objects, for their writers: not part of the public interface. */
#ifndef LBRL_SHM_LAYOUT_H
#define LBRL_SHM_LAYOUT_H

#include "lbrl/shm.h"

#define LBRL_SHM_LINE 64u /* frames start on a cache line of their own */
#define LBRL_SHM_PAGE                                                                              \
    4096u /* so does each worker's block on a page: no false sharing, NUMA-friendly */

/* A worker's block: samples seen (lbrl_seen_first), then the reservoirs (lbrl_channel_first). */
static inline uint64_t *lbrl_frames_seen(const lbrl_frames_t *frames, uint32_t worker)
{
    return (uint64_t *)(void *)(frames->base + frames->header->workers_offset +
                                worker * frames->header->worker_stride);
}

static inline uint64_t *lbrl_frames_words(const lbrl_frames_t *frames, uint32_t worker)
{
    const size_t row = frames->full ? lbrl_seen_step(true) : frames->channels;
    return lbrl_frames_seen(frames, worker) + frames->slots * row;
}

/* Appends to a field table under construction. */
void lbrl_shm_add_field(lbrl_shm_header_t *header, lbrl_shm_field_t *fields, const char *name,
                        lbrl_shm_place_t place, lbrl_shm_type_t type, uint32_t count,
                        uint64_t offset);
/* The same, with `stride` bytes from an element to the next. */
void lbrl_shm_add_strided(lbrl_shm_header_t *header, lbrl_shm_field_t *fields, const char *name,
                          lbrl_shm_place_t place, lbrl_shm_type_t type, uint32_t count,
                          uint64_t offset, uint32_t stride);

/* Name of the field that counts a channel's samples. False when the channel's name is too long for a field. */
static inline bool lbrl_shm_seen_name(char name[sizeof(((lbrl_shm_field_t *)0)->name)],
                                      const char *channel)
{
    static const char suffix[] = ".seen";
    const size_t room = sizeof(((lbrl_shm_field_t *)0)->name), length = strlen(channel);
    if (length + sizeof(suffix) > room) {
        return false;
    }
    memset(name, 0, room);
    for (size_t i = 0; i < length; i++) {
        name[i] = channel[i];
    }
    for (size_t i = 0; i < sizeof(suffix); i++) {
        name[length + i] = suffix[i];
    }
    return true;
}

/* Printable ASCII without spaces that ends with NUL within `size`: safe to show and to decode. */
bool lbrl_shm_text_valid(const char *text, size_t size);

uint32_t lbrl_shm_type_size(uint32_t type); /* bytes of an element; 0 for an unknown type */

/* Frame `index` (0 .. 2) of an object that is laid out as `header` says. */
static inline lbrl_frame_t *lbrl_shm_frame(uint8_t *base, const lbrl_shm_header_t *header,
                                           uint64_t index)
{
    return (lbrl_frame_t *)(void *)(base + header->frames_offset + index * header->frame_stride);
}

/* Guard of a frame: between begin and end its contents are undefined, and its sequence says so. */
static inline void lbrl_frame_begin(lbrl_frame_t *frame)
{
    __atomic_store_n(&frame->sequence, 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static inline void lbrl_frame_end(lbrl_frame_t *frame, uint64_t sequence)
{
    __atomic_store_n(&frame->sequence, sequence, __ATOMIC_RELEASE);
}

static inline uint64_t lbrl_align(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) / alignment * alignment;
}

static inline uint32_t lbrl_bit_words(uint32_t bits)
{
    return (bits + 63) / 64;
}

#endif
