/* Shared objects in plain memory, for tests. */
#ifndef OBJECTS_H
#define OBJECTS_H

#include "check.h"
#include "lbrl/shm.h"

/* Zeroed, aligned as a mapping is; freed by the caller. */
static inline void *zeroed(size_t size)
{
    size_t whole = (size + 63) / 64 * 64;
    void *memory = aligned_alloc(64, whole);
    CHECK(memory != NULL);
    memset(memory, 0, whole);
    return memory;
}

typedef struct test_frames {
    lbrl_frames_t frames;
    lbrl_sink_t sinks[LBRL_SHM_MAX_WORKERS];
    const lbrl_sink_t *sink_pointers[LBRL_SHM_MAX_WORKERS];
    lbrl_slot_counters_t *counters;
    void *memory;
    size_t size;
} test_frames_t;

/* A frames object with a sink per worker. */
static inline void test_frames_make(test_frames_t *t, uint32_t slots, uint32_t workers,
                                    lbrl_level_t level)
{
    const lbrl_frames_config_t config = {slots, workers, level, "0123456789abcdef"};
    t->size = lbrl_frames_size(&config);
    CHECK(t->size > 0);
    t->memory = zeroed(t->size);
    t->counters = (lbrl_slot_counters_t *)zeroed(sizeof(lbrl_slot_counters_t) * slots * workers);
    CHECK_EQUAL(lbrl_frames_format(&t->frames, t->memory, t->size, &config, 1000), 0);
    for (uint32_t i = 0; i < workers; i++) {
        CHECK_EQUAL(lbrl_sink_init(&t->sinks[i], t->counters + (size_t)slots * i, slots, level,
                                   &t->frames, i, i + 1),
                    0);
        t->sink_pointers[i] = &t->sinks[i];
    }
}

static inline void test_frames_publish(test_frames_t *t, uint64_t now_us)
{
    lbrl_frames_publish(&t->frames, t->sink_pointers, t->frames.workers, NULL, 0, now_us);
}

static inline void test_frames_free(test_frames_t *t)
{
    free(t->memory);
    free(t->counters);
}

#endif
