/* Writers at full speed, killed at random points; a reader that never accepts half of a frame.
 *
 * torture_frames [SECONDS]. A frames writer and an actions writer run as processes of their own on shared memory, each until
 * SIGKILL after a few milliseconds, again and again. In what they publish every value follows from one number, so that a
 * frame mixed from two is found; in each sample word the value follows from its time. The actions object is taken over by
 * each next agent where the last one died in it. */
#define _GNU_SOURCE /* MAP_ANONYMOUS, clock_gettime */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "objects.h"

#define SLOTS 48

typedef struct totals {
    uint64_t kills, frames, actions, samples, busy;
} totals_t;

static uint64_t monotonic_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t random_below(uint64_t limit)
{
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % limit;
}

static void *shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

static float value_at(uint32_t ticks)
{
    return (float)(ticks * 7 + 1);
}

static _Noreturn void write_frames(lbrl_frames_t *frames)
{
    static lbrl_slot_counters_t counters[SLOTS];
    lbrl_sink_t sink;
    CHECK_EQUAL(lbrl_sink_init(&sink, counters, SLOTS, LBRL_LEVEL_FULL, frames, 0, 1), 0);
    const lbrl_sink_t *sinks[] = {&sink};
    for (uint64_t tick = 1;; tick++) {
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
                counters[slot].value[i] = (int64_t)(tick * (i + 1) + slot);
            }
            counters[slot].era = sink.era;
            const uint64_t now_us = tick * 3906; /* 1/256 s: a word's time is the tick */
            lbrl_sink_sample(&sink, slot, LBRL_CHANNEL_FCT, value_at(lbrl_sample_ticks(now_us)),
                             now_us);
        }
        lbrl_frames_publish(frames, sinks, 1, NULL, tick * 5, tick);
    }
}

static _Noreturn void write_actions(void *memory, size_t size)
{
    lbrl_actions_t actions;
    float weight[SLOTS], base[SLOTS];
    uint8_t generation[SLOTS];
    CHECK_EQUAL(lbrl_actions_attach(&actions, memory, size, SLOTS, NULL), LBRL_SHM_OK);
    for (uint64_t tick = 1;; tick++) {
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            weight[slot] = base[slot] = (float)(1 + tick % 1000);
            generation[slot] = (uint8_t)tick;
        }
        lbrl_actions_write(&actions, weight, tick % 3 ? base : NULL, generation, tick);
    }
}

static void check_frame(const lbrl_shm_view_t *view, totals_t *totals)
{
    static uint64_t copy[SLOTS * 64];
    int code = lbrl_read(view, copy, sizeof(copy));
    if (code == LBRL_SHM_EMPTY || code == LBRL_SHM_BUSY) {
        totals->busy += code == LBRL_SHM_BUSY;
        return;
    }
    CHECK_EQUAL(code, LBRL_SHM_OK);
    const lbrl_frame_t *frame = (const lbrl_frame_t *)copy;
    const uint64_t tick = frame->time_us;
    CHECK_EQUAL(frame->sequence, tick);
    CHECK_EQUAL(frame->actions_sequence, tick * 5);
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        if (!(lbrl_level_counters(LBRL_LEVEL_FULL) >> i & 1) ||
            lbrl_counter_is_integral((lbrl_counter_t)i)) {
            continue;
        }
        const lbrl_shm_field_t *field =
            lbrl_shm_find(view, LBRL_SHM_IN_FRAME, lbrl_counter_info((lbrl_counter_t)i)->name);
        const int64_t *column = (const int64_t *)(const void *)((uint8_t *)copy + field->offset);
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            CHECK_EQUAL(column[slot], tick * (i + 1) + slot);
        }
    }
    totals->frames++;
}

static void check_samples(const lbrl_shm_view_t *view, totals_t *totals)
{
    uint64_t words[LBRL_RESERVOIR_WORDS];
    const lbrl_shm_field_t *field = lbrl_shm_find(view, LBRL_SHM_IN_WORKER, "fct");
    uint32_t slot = (uint32_t)random_below(SLOTS);
    CHECK_EQUAL(
        lbrl_read_live(view, field, 0, slot * LBRL_RESERVOIR_WORDS, LBRL_RESERVOIR_WORDS, words),
        LBRL_SHM_OK);
    for (uint32_t i = 0; i < LBRL_RESERVOIR_WORDS; i++) {
        if (words[i] != 0) {
            CHECK_EQUAL(lbrl_sample_generation(words[i]), 1);
            CHECK_NEAR(lbrl_sample_value(words[i]), value_at((uint32_t)(words[i] >> 32) & 0xffffff),
                       0);
            totals->samples++;
        }
    }
}

static const float *column_of(const lbrl_shm_view_t *view, const void *copy, const char *name)
{
    const lbrl_shm_field_t *field = lbrl_shm_find(view, LBRL_SHM_IN_FRAME, name);
    return (const float *)(const void *)((const uint8_t *)copy + field->offset);
}

static void check_actions(const lbrl_shm_view_t *view, totals_t *totals)
{
    static uint64_t copy[SLOTS * 8];
    int code = lbrl_read(view, copy, sizeof(copy));
    if (code == LBRL_SHM_EMPTY || code == LBRL_SHM_BUSY) {
        totals->busy += code == LBRL_SHM_BUSY;
        return;
    }
    CHECK_EQUAL(code, LBRL_SHM_OK);
    const lbrl_frame_t *frame = (const lbrl_frame_t *)copy;
    const uint64_t tick = frame->time_us;
    const bool has_bases = frame->base_sequence == frame->sequence;
    const uint8_t *bytes = (const uint8_t *)copy;
    const float *weight = column_of(view, copy, "weight"), *base = column_of(view, copy, "base");
    CHECK_EQUAL(has_bases, tick % 3 != 0);
    const uint8_t *generation =
        bytes + lbrl_shm_find(view, LBRL_SHM_IN_FRAME, "generation")->offset;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        CHECK_NEAR(weight[slot], (double)(1 + tick % 1000), 0);
        CHECK(!has_bases || base[slot] == weight[slot]);
        CHECK_EQUAL(generation[slot], (uint8_t)tick);
    }
    totals->actions++;
}

static void kill_and_wait(pid_t child)
{
    int status;
    CHECK_EQUAL(kill(child, SIGKILL), 0);
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* not of a failed check */
}

/* One life of both writers. */
static void round_of(void *frames_memory, size_t frames_size, void *actions_memory,
                     size_t actions_size, totals_t *totals)
{
    const lbrl_frames_config_t config = {SLOTS, 1, LBRL_LEVEL_FULL, "torture"};
    lbrl_frames_t frames;
    lbrl_shm_view_t frames_view, actions_view;
    memset(frames_memory, 0, frames_size);
    CHECK_EQUAL(lbrl_frames_format(&frames, frames_memory, frames_size, &config, 0), 0);
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        lbrl_frames_slot_open(&frames, slot, 1);
    }
    CHECK_EQUAL(
        lbrl_shm_open(&frames_view, frames_memory, frames_size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    CHECK_EQUAL(
        lbrl_shm_open(&actions_view, actions_memory, actions_size, LBRL_SHM_ACTIONS_MAGIC, NULL),
        0);

    pid_t frames_writer = fork();
    if (frames_writer == 0) {
        write_frames(&frames);
    }
    pid_t actions_writer = fork();
    if (actions_writer == 0) {
        write_actions(actions_memory, actions_size);
    }
    const uint64_t end = monotonic_us() + random_below(8000);
    do {
        check_frame(&frames_view, totals);
        check_samples(&frames_view, totals);
        check_actions(&actions_view, totals);
    } while (monotonic_us() < end);
    kill_and_wait(frames_writer);
    kill_and_wait(actions_writer);
    totals->kills += 2;
    check_frame(&frames_view, totals); /* what the dead have left */
    check_samples(&frames_view, totals);
    check_actions(&actions_view, totals);
}

int main(int argc, char **argv)
{
    const uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 10) : 20;
    const lbrl_frames_config_t config = {SLOTS, 1, LBRL_LEVEL_FULL, "torture"};
    const size_t frames_size = lbrl_frames_size(&config), actions_size = lbrl_actions_size(SLOTS);
    void *frames_memory = shared(frames_size), *actions_memory = shared(actions_size);
    lbrl_actions_t actions;
    CHECK_EQUAL(lbrl_actions_format(&actions, actions_memory, actions_size, SLOTS, 0), 0);

    totals_t totals = {0};
    const uint64_t end = monotonic_us() + seconds * 1000000;
    while (monotonic_us() < end) {
        round_of(frames_memory, frames_size, actions_memory, actions_size, &totals);
    }
    CHECK(totals.frames > 0 && totals.actions > 0 && totals.samples > 0);
    printf("torn: 0; writers killed: %" PRIu64 "; frames read: %" PRIu64 "; actions read: %" PRIu64
           "; samples read: %" PRIu64 "; overtaken: %" PRIu64 "\n",
           totals.kills, totals.frames, totals.actions, totals.samples, totals.busy);
    return 0;
}
