/* The frames object: layout, publication, slots, expiry, growth. */
#include "objects.h"
#include "shm_layout.h"

static const void *column(const lbrl_shm_view_t *view, const void *copy, const char *name)
{
    const lbrl_shm_field_t *field = lbrl_shm_find(view, LBRL_SHM_IN_FRAME, name);
    CHECK(field != NULL);
    return (const uint8_t *)copy + field->offset;
}

static void *read_frame(const lbrl_shm_view_t *view)
{
    void *copy = zeroed(view->header.frame_stride);
    CHECK_EQUAL(lbrl_read(view, copy, view->header.frame_stride), LBRL_SHM_OK);
    return copy;
}

static uint64_t end_of(const lbrl_shm_field_t *field)
{
    const uint32_t size = lbrl_shm_type_size(field->type);
    return field->offset + (field->count - 1) * (uint64_t)(field->stride ? field->stride : size) +
           size;
}

/* Fields with a stride lie between each other's elements. */
static bool apart(const lbrl_shm_field_t *a, const lbrl_shm_field_t *b)
{
    return a->place != b->place || end_of(a) <= b->offset || end_of(b) <= a->offset ||
           (a->stride && a->stride == b->stride && a->offset % a->stride != b->offset % a->stride);
}

/* Fields of a place never overlap, frames and worker blocks follow each other: for several shapes. */
static void fields_are_aligned_and_do_not_overlap(void)
{
    const uint32_t shapes[][2] = {{1, 1}, {2, 3}, {63, 1}, {64, 2}, {65, 1}, {512, 4}};
    for (uint32_t s = 0; s < sizeof(shapes) / sizeof(*shapes); s++) {
        for (uint32_t level = 0; level < LBRL_LEVEL_COUNT; level++) {
            test_frames_t t;
            test_frames_make(&t, shapes[s][0], shapes[s][1], (lbrl_level_t)level);
            lbrl_shm_view_t view;
            CHECK_EQUAL(lbrl_shm_open(&view, t.memory, t.size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
            const lbrl_shm_header_t *header = &view.header;
            CHECK(header->fields_offset + header->fields * sizeof(lbrl_shm_field_t) <=
                  lbrl_shm_find(&view, LBRL_SHM_IN_HEADER, "active")->offset);
            for (uint32_t i = 0; i < header->fields; i++) {
                const lbrl_shm_field_t *a = &view.fields[i];
                CHECK_EQUAL(a->offset % lbrl_shm_type_size(a->type), 0);
                CHECK(a->place != LBRL_SHM_IN_HEADER || end_of(a) <= header->frames_offset);
                for (uint32_t j = 0; j < i; j++) {
                    const lbrl_shm_field_t *b = &view.fields[j];
                    CHECK(apart(a, b));
                    CHECK(a->place != b->place || strcmp(a->name, b->name) != 0);
                }
            }
            CHECK(header->frames_offset + 3 * header->frame_stride <= header->workers_offset);
            CHECK_EQUAL(header->size,
                        header->workers_offset + header->workers * header->worker_stride);
            CHECK_EQUAL(header->level, level);
            CHECK_EQUAL(header->frames_offset % 64 + header->frame_stride % 64, 0);
            CHECK_EQUAL(header->workers_offset % 4096 + header->worker_stride % 4096, 0);
            test_frames_free(&t);
        }
    }
}

static void frames_sum_workers(void)
{
    test_frames_t t;
    test_frames_make(&t, 70, 2, LBRL_LEVEL_BASIC);
    lbrl_frames_slot_open(&t.frames, 0, 1);
    lbrl_frames_slot_open(&t.frames, 69, 3);
    lbrl_sink_flow_open(&t.sinks[0], 69, 4, 1000);
    lbrl_sink_flow_open(&t.sinks[1], 69, 5, 1500);
    lbrl_sink_flow_close(&t.sinks[1], 69, 3500);

    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_shm_open(&view, t.memory, t.size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    uint64_t too_small;
    CHECK_EQUAL(lbrl_read(&view, &too_small, sizeof(too_small)), LBRL_SHM_ARGUMENT);
    void *empty = zeroed(view.header.frame_stride);
    CHECK_EQUAL(lbrl_read(&view, empty, view.header.frame_stride), LBRL_SHM_EMPTY);
    free(empty);

    lbrl_frames_publish(&t.frames, t.sink_pointers, 2, NULL, 17, 5000);
    void *copy = read_frame(&view);
    CHECK_EQUAL(((lbrl_frame_t *)copy)->sequence, 1);
    CHECK_EQUAL(((lbrl_frame_t *)copy)->time_us, 5000);
    CHECK_EQUAL(((lbrl_frame_t *)copy)->actions_sequence, 17);
    CHECK_EQUAL(((const int64_t *)column(&view, copy, "n_flow"))[69], 2);
    CHECK_EQUAL(((const int64_t *)column(&view, copy, "n_flow_on"))[69], 1);
    CHECK_EQUAL(((const int64_t *)column(&view, copy, "open_us"))[69], 4000 + 2000);
    CHECK_EQUAL(((const int64_t *)column(&view, copy, "l_assign"))[69], 9);
    CHECK_EQUAL(((const int64_t *)column(&view, copy, "n_flow"))[0], 0);
    CHECK_EQUAL(((const uint64_t *)column(&view, copy, "active"))[0], 1);
    CHECK_EQUAL(((const uint64_t *)column(&view, copy, "active"))[1], 1 << 5);
    CHECK_EQUAL(((const uint8_t *)column(&view, copy, "generation"))[69], 3);
    CHECK_EQUAL(lbrl_shm_heartbeat(&view), 5000);
    free(copy);

    /* the newest of the three is read, whichever place it has */
    for (uint64_t i = 2; i < 9; i++) {
        lbrl_sink_flow_open(&t.sinks[0], 0, 0, 5000 + i);
        test_frames_publish(&t, 5000 + i);
        copy = read_frame(&view);
        CHECK_EQUAL(((lbrl_frame_t *)copy)->sequence, i);
        CHECK_EQUAL(((const int64_t *)column(&view, copy, "n_flow"))[0], i - 1);
        free(copy);
    }
    test_frames_free(&t);
}

static void a_writer_that_died_leaves_the_frame_before(void)
{
    test_frames_t t;
    test_frames_make(&t, 4, 1, LBRL_LEVEL_OFF);
    test_frames_publish(&t, 1);
    test_frames_publish(&t, 2);
    lbrl_frame_begin(lbrl_shm_frame(t.frames.base, t.frames.header, 2)); /* of sequence 2 */
    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_shm_open(&view, t.memory, t.size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    void *copy = read_frame(&view);
    CHECK_EQUAL(((lbrl_frame_t *)copy)->sequence, 1);
    free(copy);
    test_frames_free(&t);
}

static uint64_t words_left(const test_frames_t *t, uint32_t worker, lbrl_channel_t channel,
                           uint32_t slot)
{
    uint64_t left = 0;
    const bool full = t->frames.full;
    const uint64_t *words =
        t->sinks[worker].words + lbrl_channel_first(channel, full, t->frames.slots);
    for (size_t i = 0; i < LBRL_RESERVOIR_WORDS; i++) {
        left += words[(slot * LBRL_RESERVOIR_WORDS + i) * lbrl_channel_step(channel, full)] != 0;
    }
    return left;
}

static void opening_a_slot_clears_it(void)
{
    test_frames_t t;
    test_frames_make(&t, 3, 2, LBRL_LEVEL_BASIC);
    lbrl_frames_slot_open(&t.frames, 1, 1);
    for (int i = 0; i < 50; i++) {
        lbrl_sink_sample(&t.sinks[1], 1, LBRL_CHANNEL_FCT, 1.0f, 0);
        lbrl_sink_sample(&t.sinks[1], 2, LBRL_CHANNEL_FCT, 1.0f, 0);
    }
    lbrl_frames_slot_close(&t.frames, 1);
    CHECK_EQUAL(t.frames.active[0], 0);
    CHECK_EQUAL(t.frames.generation[1], 1);
    CHECK(words_left(&t, 1, LBRL_CHANNEL_FCT, 1) > 0);
    lbrl_frames_slot_open(&t.frames, 1, 2);
    CHECK_EQUAL(words_left(&t, 1, LBRL_CHANNEL_FCT, 1), 0);
    CHECK_EQUAL(t.sinks[1].seen[LBRL_CHANNEL_FCT * 3 + 1], 0);
    CHECK(words_left(&t, 1, LBRL_CHANNEL_FCT, 2) > 0);
    CHECK_EQUAL(t.frames.active[0], 2);
    test_frames_free(&t);
}

static void old_samples_expire(void)
{
    const uint64_t second = 1000000, start = 7 * second;
    test_frames_t t;
    test_frames_make(&t, 200, 2, LBRL_LEVEL_BASIC);
    lbrl_frames_slot_open(&t.frames, 150, 1);
    for (int i = 0; i < 20; i++) {
        lbrl_sink_sample(&t.sinks[1], 150, LBRL_CHANNEL_FCT, 1.0f, start);
    }
    lbrl_sink_sample(&t.sinks[1], 150, LBRL_CHANNEL_FLOW_DURATION, 1.0f, start + 100 * second);
    test_frames_publish(&t, start);
    for (int i = 0; i < 256; i++) {
        test_frames_publish(&t, start + 3600 * second);
    }
    CHECK(words_left(&t, 1, LBRL_CHANNEL_FCT, 150) > 0);
    for (int i = 0; i < 256; i++) {
        test_frames_publish(&t, start + 3601 * second);
    }
    CHECK_EQUAL(words_left(&t, 1, LBRL_CHANNEL_FCT, 150), 0);
    CHECK_EQUAL(words_left(&t, 1, LBRL_CHANNEL_FLOW_DURATION, 150), 1);
    test_frames_free(&t);
}

/* Times repeat after 18.2 hours, so that by itself no sample shows how long the machine slept. */
static void a_sleep_leaves_no_samples(void)
{
    const uint64_t second = 1000000, start = 7 * second;
    for (uint32_t full = 0; full < 2; full++) {
        test_frames_t t;
        test_frames_make(&t, 5, 2, full ? LBRL_LEVEL_FULL : LBRL_LEVEL_BASIC);
        lbrl_frames_slot_open(&t.frames, 4, 1);
        uint64_t now = start;
        for (uint64_t slept = 1800; slept < 70000; slept += 900) {
            test_frames_publish(&t, now);
            for (int i = 0; i < 20; i++) {
                lbrl_sink_sample(&t.sinks[1], 4, LBRL_CHANNEL_FCT, 1.0f, now);
            }
            now += slept * second;
            test_frames_publish(&t, now);
            CHECK_EQUAL(words_left(&t, 1, LBRL_CHANNEL_FCT, 4) > 0, slept <= 3600);
        }
        test_frames_free(&t);
    }
}

static void growth_carries_samples_over(void)
{
    test_frames_t small, large;
    test_frames_make(&small, 5, 1, LBRL_LEVEL_BASIC);
    test_frames_make(&large, 130, 2, LBRL_LEVEL_FULL);
    lbrl_frames_slot_open(&small.frames, 4, 200);
    for (int i = 0; i < 30; i++) {
        lbrl_sink_sample(&small.sinks[0], 4, LBRL_CHANNEL_FCT, 3.0f, 1000);
    }
    CHECK_EQUAL(lbrl_frames_carry(&large.frames, &small.frames), LBRL_SHM_OK);
    CHECK_EQUAL(large.frames.generation[4], 200);
    CHECK_EQUAL(large.frames.active[0], 1 << 4);
    CHECK_EQUAL(words_left(&large, 0, LBRL_CHANNEL_FCT, 4),
                words_left(&small, 0, LBRL_CHANNEL_FCT, 4));
    CHECK_EQUAL(large.sinks[0].seen[4 * lbrl_seen_step(true) + LBRL_ROW_CHANNELS], 30);
    CHECK_EQUAL(lbrl_frames_carry(&small.frames, &large.frames), LBRL_SHM_ARGUMENT);

    lbrl_shm_view_t view;
    lbrl_shm_problem_t problem;
    CHECK_EQUAL(lbrl_shm_open(&view, small.memory, small.size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    CHECK(!lbrl_shm_retired(&view));
    lbrl_frames_retire(&small.frames);
    CHECK(lbrl_shm_retired(&view));
    CHECK_EQUAL(lbrl_shm_open(&view, small.memory, small.size, LBRL_SHM_FRAMES_MAGIC, &problem),
                LBRL_SHM_GONE);
    CHECK(strcmp(problem.field, "retired") == 0);
    test_frames_free(&small);
    test_frames_free(&large);
}

static void configurations_are_checked(void)
{
    const char *long_id = "0123456789012345678901234567890123456789";
    const lbrl_frames_config_t bad[] = {
        {0, 1, LBRL_LEVEL_OFF, ""},           {LBRL_SHM_MAX_SLOTS + 1, 1, LBRL_LEVEL_OFF, ""},
        {1, 0, LBRL_LEVEL_OFF, ""},           {1, LBRL_SHM_MAX_WORKERS + 1, LBRL_LEVEL_OFF, ""},
        {1, 1, LBRL_LEVEL_COUNT, ""},         {1, 1, LBRL_LEVEL_OFF, long_id},
        {1, 1, LBRL_LEVEL_OFF, "with space"}, {1, 1, LBRL_LEVEL_OFF, "\xff"},
    };
    uint64_t memory[8];
    lbrl_frames_t frames;
    for (uint32_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        CHECK_EQUAL(lbrl_frames_size(&bad[i]), 0);
        CHECK_EQUAL(lbrl_frames_format(&frames, memory, sizeof(memory), &bad[i], 0),
                    LBRL_SHM_ARGUMENT);
    }
    const lbrl_frames_config_t good = {1, 1, LBRL_LEVEL_OFF, long_id + 1};
    CHECK(lbrl_frames_size(&good) > sizeof(memory));
    CHECK_EQUAL(lbrl_frames_format(&frames, memory, sizeof(memory), &good, 0), LBRL_SHM_ARGUMENT);
}

static void live_fields_are_read_within_bounds(void)
{
    test_frames_t t;
    test_frames_make(&t, 10, 2, LBRL_LEVEL_BASIC);
    lbrl_frames_slot_open(&t.frames, 3, 77);
    lbrl_sink_sample(&t.sinks[1], 3, LBRL_CHANNEL_FCT, 1.0f, 0);
    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_shm_open(&view, t.memory, t.size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    const lbrl_shm_field_t *generation = lbrl_shm_find(&view, LBRL_SHM_IN_HEADER, "generation");
    const lbrl_shm_field_t *seen = lbrl_shm_find(&view, LBRL_SHM_IN_WORKER, "fct.seen");
    const lbrl_shm_field_t *column = lbrl_shm_find(&view, LBRL_SHM_IN_FRAME, "n_flow");
    uint8_t generations[10];
    uint64_t counts[10];
    CHECK_EQUAL(lbrl_read_live(&view, generation, 0, 2, 8, generations), 0);
    CHECK_EQUAL(generations[1], 77);
    CHECK_EQUAL(lbrl_read_live(&view, seen, 1, 0, 10, counts), 0);
    CHECK_EQUAL(counts[3], 1);
    CHECK_EQUAL(lbrl_read_live(&view, generation, 0, 2, 9, generations), LBRL_SHM_ARGUMENT);
    CHECK_EQUAL(lbrl_read_live(&view, generation, 0, 11, 0, generations), LBRL_SHM_ARGUMENT);
    CHECK_EQUAL(lbrl_read_live(&view, seen, 2, 0, 1, counts), LBRL_SHM_ARGUMENT);
    CHECK_EQUAL(lbrl_read_live(&view, column, 0, 0, 1, counts), LBRL_SHM_ARGUMENT);
    lbrl_shm_field_t foreign = *seen;
    CHECK_EQUAL(lbrl_read_live(&view, &foreign, 0, 0, 1, counts), LBRL_SHM_ARGUMENT);
    test_frames_free(&t);
}

int main(void)
{
    fields_are_aligned_and_do_not_overlap();
    frames_sum_workers();
    a_writer_that_died_leaves_the_frame_before();
    opening_a_slot_clears_it();
    old_samples_expire();
    a_sleep_leaves_no_samples();
    growth_carries_samples_over();
    configurations_are_checked();
    live_fields_are_read_within_bounds();
    return 0;
}
