/* The definition table as data, and sinks. */
#include "lbrl/features.h"
#include "lbrl/shm.h"
#include "shm_layout.h"

static const lbrl_counter_row_t counter_rows[] = {
#define LBRL_ROW(symbol, ...) {__VA_ARGS__},
    LBRL_COUNTERS(LBRL_ROW)
#undef LBRL_ROW
};

static const lbrl_channel_row_t channel_rows[] = {
#define LBRL_ROW(symbol, ...) {__VA_ARGS__},
    LBRL_CHANNELS(LBRL_ROW)
#undef LBRL_ROW
};

static_assert(sizeof(counter_rows) / sizeof(*counter_rows) == LBRL_COUNTER_COUNT, "a row each");
static_assert(sizeof(channel_rows) / sizeof(*channel_rows) == LBRL_CHANNEL_COUNT, "a row each");

const lbrl_counter_row_t *lbrl_counter_info(lbrl_counter_t counter)
{
    return (uint32_t)counter < LBRL_COUNTER_COUNT ? &counter_rows[counter] : NULL;
}

const lbrl_channel_row_t *lbrl_channel_info(lbrl_channel_t channel)
{
    return (uint32_t)channel < LBRL_CHANNEL_COUNT ? &channel_rows[channel] : NULL;
}

const char *lbrl_level_name(lbrl_level_t level)
{
    static const char *const names[LBRL_LEVEL_COUNT] = {"off", "basic", "full"};
    return (uint32_t)level < LBRL_LEVEL_COUNT ? names[level] : NULL;
}

uint32_t lbrl_level_channels(lbrl_level_t level)
{
    uint32_t channels = 0;
    while (channels < LBRL_CHANNEL_COUNT && channel_rows[channels].level <= level) {
        channels++;
    }
    return channels;
}

uint32_t lbrl_level_counters(lbrl_level_t level)
{
    uint32_t recorded = 0;
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        recorded |= (uint32_t)(counter_rows[i].recorded <= level) << i;
    }
    return recorded;
}

int lbrl_sink_init(lbrl_sink_t *sink, lbrl_slot_counters_t *counters, uint32_t slots,
                   lbrl_level_t level, const lbrl_frames_t *frames, uint32_t worker, uint64_t seed)
{
    if (frames && (frames->slots != slots || worker >= frames->workers)) {
        return -1;
    }
    *sink = (lbrl_sink_t){
        .counters = counters,
        .slots = slots,
        .recorded = lbrl_level_counters(level),
        .level = (uint8_t)level,
        .random = seed,
        .era = 1,
    };
    if (frames) {
        lbrl_level_t laid_out = (lbrl_level_t)frames->header->level;
        sink->full = laid_out == LBRL_LEVEL_FULL;
        sink->channels = lbrl_level_channels(level < laid_out ? level : laid_out);
        sink->seen = lbrl_frames_seen(frames, worker);
        sink->words = lbrl_frames_words(frames, worker);
        sink->generation = frames->generation;
    }
    return 0;
}

void lbrl_sink_slot_reset(lbrl_sink_t *sink, uint32_t slot)
{
    lbrl_slot_counters_t *row = &sink->counters[slot];
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        __atomic_store_n(&row->value[i], 0, __ATOMIC_RELAXED);
    }
    row->packet_us = row->new_flow_us = row->era = 0;
}

/* The worker changes gauge and word one after the other. Where both are read within one value of the word they are at most
 * the changes of a vector apart, and the word's low bits say by how many. */
uint64_t lbrl_sink_integral(const lbrl_sink_t *sink, uint32_t slot, lbrl_counter_t integral,
                            uint64_t now_us)
{
    const int64_t *cell = &sink->counters[slot].value[integral];
    const int64_t *gauge = &sink->counters[slot].value[lbrl_gauge_of(integral)];
    const uint64_t mask = (UINT64_C(1) << LBRL_INTEGRAL_BITS) - 1;
    if (integral == LBRL_COUNTER_ACTIVE_US && !lbrl_sink_counts_active(sink, slot)) {
        return 0;
    }
    uint64_t word, value;
    do {
        word = (uint64_t)__atomic_load_n(cell, __ATOMIC_ACQUIRE);
        value = (uint64_t)__atomic_load_n(gauge, __ATOMIC_ACQUIRE);
    } while (word != (uint64_t)__atomic_load_n(cell, __ATOMIC_RELAXED));
    value += (uint64_t)((int64_t)((word - value) << LBRL_INTEGRAL_BITS) >> LBRL_INTEGRAL_BITS);
    return (((word - value) >> LBRL_INTEGRAL_SHIFT) + value * now_us) & mask;
}
