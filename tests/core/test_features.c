/* The definition table holds together, and sinks record what their level says. */
#include "check.h"
#include "lbrl/features.h"
#include "lbrl/shm.h"

#define SLOTS 4

static void table_has_the_aquarius_features(void)
{
    uint32_t observed[LBRL_LEVEL_COUNT] = {0};
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        const lbrl_counter_row_t *row = lbrl_counter_info((lbrl_counter_t)i);
        CHECK(row->recorded <= row->observed);
        for (uint32_t level = 0; level < LBRL_LEVEL_COUNT; level++) {
            observed[level] += row->observed <= level;
        }
    }
    CHECK_EQUAL(observed[LBRL_LEVEL_OFF], 0);
    CHECK_EQUAL(observed[LBRL_LEVEL_BASIC] + 5 * lbrl_level_channels(LBRL_LEVEL_BASIC), 11);
    CHECK_EQUAL(observed[LBRL_LEVEL_FULL] + 5 * lbrl_level_channels(LBRL_LEVEL_FULL), 73);
    CHECK_EQUAL(lbrl_level_channels(LBRL_LEVEL_OFF), 0);
}

static void table_ends(void)
{
    CHECK(lbrl_counter_info(LBRL_COUNTER_COUNT) == NULL);
    CHECK(lbrl_channel_info(LBRL_CHANNEL_COUNT) == NULL);
    CHECK(lbrl_level_name(LBRL_LEVEL_NEVER) == NULL);
    CHECK(strcmp(lbrl_level_name(LBRL_LEVEL_BASIC), "basic") == 0);
}

static void names_are_unique(void)
{
    const char *names[LBRL_COUNTER_COUNT + LBRL_CHANNEL_COUNT];
    uint32_t n = 0;
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        names[n++] = lbrl_counter_info((lbrl_counter_t)i)->name;
    }
    for (uint32_t i = 0; i < LBRL_CHANNEL_COUNT; i++) {
        names[n++] = lbrl_channel_info((lbrl_channel_t)i)->name;
    }
    for (uint32_t i = 0; i < n; i++) {
        /* ".seen" is appended for the field table */
        CHECK(strlen(names[i]) + sizeof(".seen") <= sizeof(((lbrl_shm_field_t *)0)->name));
        for (uint32_t j = 0; j < i; j++) {
            CHECK(strcmp(names[i], names[j]) != 0);
        }
    }
}

static void words_hold_value_time_and_generation(void)
{
    const uint64_t now = UINT64_C(90000) * 1000000 + 500000; /* 25 hours: time has wrapped */
    uint64_t word = lbrl_sample_word(0.125f, lbrl_sample_ticks(now), 255);
    CHECK_NEAR(lbrl_sample_value(word), 0.125, 0);
    CHECK_EQUAL(lbrl_sample_generation(word), 255);
    CHECK_EQUAL(lbrl_sample_age_ticks(word, lbrl_sample_ticks(now)), 0);
    CHECK_EQUAL(lbrl_sample_age_ticks(word, lbrl_sample_ticks(now + 3000000)), 3 * 256);
    CHECK_EQUAL(lbrl_sample_age_ticks(word, lbrl_sample_ticks(now - 3000000)), 0);
    CHECK(lbrl_sample_valid(word, 255, lbrl_sample_ticks(now + UINT64_C(3600) * 1000000)));
    CHECK(!lbrl_sample_valid(word, 255, lbrl_sample_ticks(now + UINT64_C(3601) * 1000000)));
    /* a clock that is behind is so by little; else the sample is from before a time that the machine slept through */
    const uint64_t second = 1000000;
    CHECK(lbrl_sample_valid(word, 255, lbrl_sample_ticks(now - 60 * second)));
    CHECK(!lbrl_sample_valid(word, 255, lbrl_sample_ticks(now - 61 * second)));
    for (uint64_t hours = 2; hours <= 18; hours++) {
        CHECK(!lbrl_sample_valid(word, 255, lbrl_sample_ticks(now + hours * 3600 * second)));
    }
    CHECK(!lbrl_sample_valid(word, 1, lbrl_sample_ticks(now)));
    CHECK(!lbrl_sample_valid(0, 0, 0));
    CHECK(!lbrl_sample_valid(lbrl_sample_word(1.0f / 0.0f, 1, 1), 1, 1));
}

static void levels_decide_what_is_recorded(void)
{
    static lbrl_slot_counters_t counters[SLOTS];
    const lbrl_level_t levels[] = {LBRL_LEVEL_OFF, LBRL_LEVEL_BASIC, LBRL_LEVEL_FULL};
    for (uint32_t i = 0; i < 3; i++) {
        lbrl_sink_t sink;
        CHECK_EQUAL(lbrl_sink_init(&sink, counters, SLOTS, levels[i], NULL, 0, 1), 0);
        CHECK_EQUAL(lbrl_sink_level(&sink), levels[i]);
        lbrl_sink_slot_reset(&sink, 2);
        lbrl_sink_prefetch(&sink, 2);
        lbrl_sink_flow_open(&sink, 2, 7, 1000);
        lbrl_sink_flow_open(&sink, 2, 8, 1000);
        lbrl_sink_packet(&sink, 2, 3, 4000, true, true);
        lbrl_sink_packet(&sink, 2, 1, 60, false, false);
        lbrl_sink_packet(&sink, 2, 2, 1500, true, false);
        lbrl_sink_count(&sink, 2, LBRL_COUNTER_N_OOO, 1);
        lbrl_sink_flow_completed(&sink, 2, 0.5f, 0); /* no frames: counted, not sampled */
        lbrl_sink_flow_close(&sink, 2, 1000);
        lbrl_sink_flow_close(&sink, 2, 1000);
        lbrl_sink_flow_reopen(&sink, 2, 1000);
        lbrl_sink_untracked(&sink, 2);
        const int64_t *value = counters[2].value;
        CHECK_EQUAL(value[LBRL_COUNTER_N_FLOW], 2);
        CHECK_EQUAL(value[LBRL_COUNTER_N_FLOW_ON], 1);
        CHECK_EQUAL(value[LBRL_COUNTER_L_ASSIGN], 15);
        CHECK_EQUAL(value[LBRL_COUNTER_N_PACKET], 3);
        CHECK_EQUAL(value[LBRL_COUNTER_PACKETS], 6);
        CHECK_EQUAL(value[LBRL_COUNTER_BYTES], 5560);
        CHECK_EQUAL(value[LBRL_COUNTER_N_ANSWER], 2);
        CHECK_EQUAL(value[LBRL_COUNTER_N_FCT], 1);
        CHECK_EQUAL(value[LBRL_COUNTER_N_CLS], 1);
        CHECK_EQUAL(value[LBRL_COUNTER_N_OOO], levels[i] >= LBRL_LEVEL_BASIC ? 1 : 0);
    }
    CHECK_EQUAL(counters[1].value[LBRL_COUNTER_N_FLOW], 0);
}

/* Without rejection, after k x 128 samples a word of before is left with probability e^-k. */
static void sampling_forgets_exponentially(void)
{
    const lbrl_frames_config_t config = {SLOTS, 1, LBRL_LEVEL_BASIC, "test"};
    void *memory = aligned_alloc(64, lbrl_frames_size(&config));
    memset(memory, 0, lbrl_frames_size(&config));
    static lbrl_slot_counters_t counters[SLOTS];
    lbrl_frames_t frames;
    lbrl_sink_t sink;
    CHECK_EQUAL(lbrl_frames_format(&frames, memory, lbrl_frames_size(&config), &config, 0), 0);
    CHECK_EQUAL(lbrl_sink_init(&sink, counters, SLOTS, LBRL_LEVEL_FULL, &frames, 0, 42), 0);
    lbrl_frames_slot_open(&frames, 1, 9);
    for (uint32_t i = 0; i < 5000; i++) {
        lbrl_sink_sample(&sink, 1, LBRL_CHANNEL_FCT, i < 4872 ? 1.0f : 2.0f, 0);
    }
    lbrl_sink_sample(&sink, 1, LBRL_CHANNEL_WIN, 1.0f, 0); /* not laid out: ignored */

    const size_t cell = LBRL_CHANNEL_FCT * SLOTS + 1;
    uint32_t old = 0, young = 0;
    for (uint32_t i = 0; i < LBRL_RESERVOIR_WORDS; i++) {
        const uint64_t word = sink.words[cell * LBRL_RESERVOIR_WORDS + i];
        CHECK_EQUAL(lbrl_sample_generation(word), 9);
        old += lbrl_sample_value(word) < 1.5f;
        young += lbrl_sample_value(word) > 1.5f;
    }
    CHECK_EQUAL(old + young, LBRL_RESERVOIR_WORDS);
    CHECK_NEAR(old, 128 * 0.3679, 16); /* e^-1, some three standard deviations */
    CHECK_EQUAL(sink.seen[cell], 5000);
    free(memory);
}

static void sinks_refuse_frames_that_do_not_fit(void)
{
    const lbrl_frames_config_t config = {SLOTS, 2, LBRL_LEVEL_OFF, "test"};
    void *memory = aligned_alloc(64, lbrl_frames_size(&config));
    memset(memory, 0, lbrl_frames_size(&config));
    static lbrl_slot_counters_t counters[SLOTS];
    lbrl_frames_t frames;
    lbrl_sink_t sink;
    CHECK_EQUAL(lbrl_frames_format(&frames, memory, lbrl_frames_size(&config), &config, 0), 0);
    CHECK_EQUAL(lbrl_sink_init(&sink, counters, SLOTS - 1, LBRL_LEVEL_OFF, &frames, 0, 1), -1);
    CHECK_EQUAL(lbrl_sink_init(&sink, counters, SLOTS, LBRL_LEVEL_OFF, &frames, 2, 1), -1);
    CHECK_EQUAL(lbrl_sink_init(&sink, counters, SLOTS, LBRL_LEVEL_BASIC, &frames, 1, 1), 0);
    CHECK_EQUAL(sink.channels, 0); /* the frames have no reservoirs */
    free(memory);
}

int main(void)
{
    table_has_the_aquarius_features();
    table_ends();
    names_are_unique();
    words_hold_value_time_and_generation();
    levels_decide_what_is_recorded();
    sampling_forgets_exponentially();
    sinks_refuse_frames_that_do_not_fit();
    return 0;
}
