/* Reductions of reservoirs. Selection instead of sorting, powers of 0.9 by table: the agent does this for
 * every backend of every VIP five times a second. */
#include "lbrl/reduce.h"

#include <math.h>

#define QUANTILE 0.9
/* Sums of equal weights must not miss the exact boundary by a rounding error. */
#define QUANTILE_SLACK (1.0 - 1e-9)

#define MAX_AGE_TICKS (LBRL_SAMPLE_MAX_AGE_SECONDS * LBRL_SAMPLE_TICKS_PER_SECOND)
static_assert(MAX_AGE_TICKS < 1u << 20, "three tables cover 20 bits of age");

void lbrl_decay_init(lbrl_decay_t *decay)
{
    const double per_tick = 0.99958852016676869;         /* 0.9^(1/256) */
    const double per_64_seconds = 0.0011790184577738583; /* 0.9^64 */
    decay->low[0] = decay->middle[0] = decay->high[0] = 1.0;
    for (uint32_t i = 1; i < 256; i++) {
        decay->low[i] = decay->low[i - 1] * per_tick;
    }
    for (uint32_t i = 1; i < 64; i++) {
        decay->middle[i] = decay->middle[i - 1] * 0.9;
        decay->high[i] = decay->high[i - 1] * per_64_seconds;
    }
}

static double decay_after(const lbrl_decay_t *decay, uint32_t age_ticks)
{
    return decay->low[age_ticks & 255] * decay->middle[age_ticks >> 8 & 63] *
           decay->high[age_ticks >> 14 & 63];
}

static float middle_of_three(float a, float b, float c)
{
    float low = a < b ? a : b;
    float high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

/* Smallest value at which the cumulative weight reaches `target`. Each round keeps the side of a pivot that
 * holds it; both sides are written without branches, since on random samples half of them would be mispredicted.
 * A side that is kept is partitioned in place: it is never written beyond where it was read. */
static float weighted_quantile(const lbrl_weighted_t *items, lbrl_weighted_t *below,
                               lbrl_weighted_t *above, uint32_t n, double target)
{
    for (;;) {
        float pivot = middle_of_three(items[0].value, items[n / 2].value, items[n - 1].value);
        double weight_below = 0, weight_above = 0, weight = 0;
        uint32_t n_below = 0, n_above = 0;
        for (uint32_t i = 0; i < n; i++) {
            const lbrl_weighted_t item = items[i];
            const uint32_t is_below = item.value<pivot, is_above = item.value> pivot;
            below[n_below] = item;
            above[n_above] = item;
            n_below += is_below;
            n_above += is_above;
            weight += (double)item.weight;
            weight_below += (double)item.weight * is_below;
            weight_above += (double)item.weight * is_above;
        }
        if (n_below > 0 && weight_below >= target) {
            n = n_below;
            items = below;
        } else if (n_above == 0 || weight - weight_above >= target) {
            return pivot;
        } else {
            target -= weight - weight_above;
            n = n_above;
            items = above;
        }
    }
}

typedef struct moments {
    double weight, mean, variance;
} moments_t;

static moments_t moments(const lbrl_weighted_t *items, uint32_t n)
{
    moments_t m = {0, 0, 0};
    for (uint32_t i = 0; i < n; i++) {
        m.weight += (double)items[i].weight;
        m.mean += (double)items[i].weight * (double)items[i].value;
    }
    m.mean /= m.weight;
    for (uint32_t i = 0; i < n; i++) {
        double off = (double)items[i].value - m.mean;
        m.variance += (double)items[i].weight * off * off;
    }
    m.variance /= m.weight;
    return m;
}

void lbrl_reduce_samples(const lbrl_decay_t *decay, const lbrl_sample_t *samples, uint32_t n,
                         lbrl_weighted_t *scratch, lbrl_reduction_t *out)
{
    if (n == 0) {
        *out = (lbrl_reduction_t){NAN, NAN, NAN, NAN, NAN};
        return;
    }
    lbrl_weighted_t *items = scratch, *below = scratch + n, *above = scratch + 2 * (size_t)n;
    uint32_t youngest = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++) {
        items[i] = (lbrl_weighted_t){samples[i].value, samples[i].weight};
        youngest = samples[i].age_ticks < youngest ? samples[i].age_ticks : youngest;
    }
    const double rank = QUANTILE * QUANTILE_SLACK;
    moments_t m = moments(items, n);
    out->avg = m.mean;
    out->std = sqrt(m.variance);
    out->p90 = (double)weighted_quantile(items, below, above, n, rank * m.weight);

    /* ages relative to the youngest: the same after normalisation, and an idle backend's do not all vanish */
    for (uint32_t i = 0; i < n; i++) {
        items[i].weight =
            (float)(samples[i].weight * decay_after(decay, samples[i].age_ticks - youngest));
    }
    m = moments(items, n);
    out->avg_decay = m.mean;
    out->p90_decay = (double)weighted_quantile(items, below, above, n, rank * m.weight);
}

/* ---- Of a frames object ---- */

typedef struct channel_fields {
    const lbrl_shm_field_t *words, *seen, *generation;
} channel_fields_t;

static bool find_channel(const lbrl_shm_view_t *view, const char *channel, channel_fields_t *fields)
{
    char seen[sizeof(view->fields->name)] = {0};
    size_t length = strlen(channel);
    if (length + sizeof(".seen") > sizeof(seen)) {
        return false;
    }
    memcpy(seen, channel, length);
    memcpy(seen + length, ".seen", sizeof(".seen"));
    fields->words = lbrl_shm_find(view, LBRL_SHM_IN_WORKER, channel);
    fields->seen = lbrl_shm_find(view, LBRL_SHM_IN_WORKER, seen);
    fields->generation = lbrl_shm_find(view, LBRL_SHM_IN_HEADER, "generation");
    const uint32_t slots = view->header.slots;
    return fields->words && fields->words->type == LBRL_SHM_SAMPLE &&
           fields->words->count == slots * LBRL_RESERVOIR_WORDS && fields->seen &&
           fields->seen->type == LBRL_SHM_U64 && fields->seen->count == slots &&
           fields->generation && fields->generation->type == LBRL_SHM_U8 &&
           fields->generation->count == slots;
}

/* Appends one worker's samples of a slot. */
static uint32_t collect(const uint64_t *words, uint64_t seen, uint8_t generation,
                        uint32_t now_ticks, lbrl_sample_t *samples)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < LBRL_RESERVOIR_WORDS; i++) {
        const uint64_t word = words[i];
        samples[n].value = lbrl_sample_value(word);
        samples[n].age_ticks = lbrl_sample_age_ticks(word, now_ticks);
        n += lbrl_sample_valid(word, generation, now_ticks);
    }
    /* `seen` is written after the word: a sample may be there that is not counted yet */
    const float weight = (float)(seen > n ? seen : n) / (float)(n ? n : 1);
    for (uint32_t i = 0; i < n; i++) {
        samples[i].weight = weight;
    }
    return n;
}

size_t lbrl_reduce_scratch(const lbrl_shm_view_t *view)
{
    /* + 1: the branchless collection writes one sample beyond those that it keeps */
    const size_t samples = (size_t)view->header.workers * LBRL_RESERVOIR_WORDS + 1;
    return samples * (sizeof(lbrl_sample_t) + LBRL_REDUCE_SCRATCH * sizeof(lbrl_weighted_t)) + 8;
}

int lbrl_reduce(const lbrl_shm_view_t *view, const char *channel, uint64_t now_us, void *scratch,
                lbrl_reduction_t *out)
{
    channel_fields_t fields;
    if (!find_channel(view, channel, &fields)) {
        return LBRL_SHM_ARGUMENT;
    }
    lbrl_decay_t decay;
    lbrl_decay_init(&decay);
    const uint32_t now_ticks = lbrl_sample_ticks(now_us);
    const size_t room = (size_t)view->header.workers * LBRL_RESERVOIR_WORDS + 1;
    lbrl_weighted_t *weighted = scratch;
    lbrl_sample_t *samples = (lbrl_sample_t *)(void *)(weighted + LBRL_REDUCE_SCRATCH * room);

    for (uint32_t slot = 0; slot < view->header.slots; slot++) {
        uint8_t generation;
        uint32_t n = 0;
        lbrl_read_live(view, fields.generation, 0, slot, 1, &generation);
        for (uint32_t worker = 0; worker < view->header.workers; worker++) {
            uint64_t words[LBRL_RESERVOIR_WORDS], seen;
            lbrl_read_live(view, fields.seen, worker, slot, 1, &seen);
            lbrl_read_live(view, fields.words, worker, slot * LBRL_RESERVOIR_WORDS,
                           LBRL_RESERVOIR_WORDS, words);
            n += collect(words, seen, generation, now_ticks, samples + n);
        }
        lbrl_reduce_samples(&decay, samples, n, weighted, &out[slot]);
    }
    return LBRL_SHM_OK;
}
