/* Reductions of reservoirs. Selection instead of sorting, powers of 0.9 by table: the agent does this for
 * every backend of every VIP five times a second. */
#include "lbrl/reduce.h"

#include <math.h>

#include "shm_layout.h"

/* Weights of a selection are integers, so that sums are exact and equal weights meet the boundary. */
#define WEIGHT_ONE 0x1p30f

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

static float smaller(float a, float b)
{
    return a < b ? a : b;
}
static float larger(float a, float b)
{
    return a < b ? b : a;
}

/* A value that splits the items. Quantiles lie high: of many items, the second largest of eight, which most often
 * leaves a fifth of them; of few, the middle one of three. */
static float choose_pivot(const lbrl_weighted_t *items, uint32_t n)
{
    if (n < 16) {
        float a = items[0].value, b = items[n / 2].value, c = items[n - 1].value;
        return larger(smaller(a, b), smaller(larger(a, b), c));
    }
    float first = items[0].value, second = -INFINITY;
    for (uint32_t i = 1; i < 8; i++) {
        float value = items[(size_t)i * (n - 1) / 7].value;
        second = larger(second, smaller(first, value));
        first = larger(first, value);
    }
    return second;
}

/* Smallest value at which the cumulative weight reaches `target`. Each round keeps the side of a pivot that
 * holds it; both sides are written without branches, since on random samples half of them would be
 * mispredicted. A side that is kept is partitioned in place: it is never written beyond where it was read. A guess that
 * is right, as that of the interval before mostly is, makes it one round; not-a-number is none. */
static float weighted_quantile(const lbrl_weighted_t *items, lbrl_weighted_t *below,
                               lbrl_weighted_t *above, uint32_t n, uint64_t target, double guess)
{
    for (float pivot = isfinite(guess) ? (float)guess : choose_pivot(items, n);;
         pivot = choose_pivot(items, n)) {
        uint64_t weight_below = 0, weight_reached = 0;
        uint32_t n_below = 0, n_above = 0;
        for (uint32_t i = 0; i < n; i++) {
            const lbrl_weighted_t item = items[i];
            const bool is_below = item.value<pivot, is_above = item.value> pivot;
            below[n_below] = item;
            above[n_above] = item;
            n_below += is_below;
            n_above += is_above;
            weight_below += item.weight & -(uint32_t)is_below;
            weight_reached += item.weight & -(uint32_t)!is_above;
        }
        if (n_below > 0 && weight_below >= target) {
            n = n_below;
            items = below;
        } else if (n_above == 0 || weight_reached >= target) {
            return pivot;
        } else {
            target -= weight_reached;
            n = n_above;
            items = above;
        }
    }
}

static double p90(const float *values, const float *weights, uint32_t n, lbrl_weighted_t *scratch,
                  double guess)
{
    uint32_t heaviest =
        0; /* as bits: positive floats are ordered like them, and integers are faster */
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &weights[i], sizeof(bits));
        heaviest = bits > heaviest ? bits : heaviest;
    }
    float scale;
    memcpy(&scale, &heaviest, sizeof(scale));
    scale = WEIGHT_ONE / scale;
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++) {
        scratch[i] = (lbrl_weighted_t){values[i], (uint32_t)(weights[i] * scale)};
        total += scratch[i].weight;
    }
    /* weights were rounded to floats: a boundary that they meet but for that is met */
    const uint64_t target = (9 * total + 9) / 10 - (total >> 22);
    return (double)weighted_quantile(scratch, scratch + n, scratch + 2 * (size_t)n, n, target,
                                     guess);
}

/* weight x (value - centre)^power */
static inline double term(float value, float weight, double centre, int power)
{
    const double off = (double)value - centre;
    return (double)weight * (power == 0 ? 1 : power == 1 ? off : off * off);
}

/* Sum of the terms, in four chains of additions, so that they overlap. */
static inline double moment(const float *value, const float *weight, uint32_t n, double centre,
                            int power)
{
    double a = 0, b = 0, c = 0, d = 0;
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        a += term(value[i], weight[i], centre, power);
        b += term(value[i + 1], weight[i + 1], centre, power);
        c += term(value[i + 2], weight[i + 2], centre, power);
        d += term(value[i + 3], weight[i + 3], centre, power);
    }
    for (; i < n; i++) {
        a += term(value[i], weight[i], centre, power);
    }
    return (a + b) + (c + d);
}

void lbrl_reduce_samples(const lbrl_decay_t *decay, const lbrl_samples_t *samples, uint32_t n,
                         lbrl_weighted_t *scratch, const lbrl_reduction_t *before,
                         lbrl_reduction_t *out)
{
    static const lbrl_reduction_t nothing = {NAN, NAN, NAN, NAN, NAN};
    const lbrl_reduction_t guess = before ? *before : nothing;
    if (n == 0) {
        *out = nothing;
        return;
    }
    const float *value = samples->value;
    float *weight = samples->weight;
    double total = moment(value, weight, n, 0, 0);
    out->avg = moment(value, weight, n, 0, 1) / total;
    out->std = sqrt(moment(value, weight, n, out->avg, 2) / total);
    out->p90 = p90(value, weight, n, scratch, guess.p90);

    /* ages relative to the youngest: the same after normalisation, and an idle backend's do not all vanish */
    uint32_t youngest = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++) {
        youngest = samples->age_ticks[i] < youngest ? samples->age_ticks[i] : youngest;
    }
    for (uint32_t i = 0; i < n; i++) {
        weight[i] = (float)(weight[i] * decay_after(decay, samples->age_ticks[i] - youngest));
    }
    total = moment(value, weight, n, 0, 0);
    out->avg_decay = moment(value, weight, n, 0, 1) / total;
    out->p90_decay = p90(value, weight, n, scratch, guess.p90_decay);
}

/* ---- Of a frames object ---- */

typedef struct channel_fields {
    const lbrl_shm_field_t *words, *seen, *generation;
} channel_fields_t;

static bool find_channel(const lbrl_shm_view_t *view, const char *channel, channel_fields_t *fields)
{
    char seen[sizeof(view->fields->name)];
    if (!lbrl_shm_seen_name(seen, channel)) {
        return false;
    }
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

/* Samples of a slot on their way into columns. */
typedef struct collection {
    lbrl_samples_t samples;
    uint32_t n;
    uint32_t oldest; /* age in ticks */
    bool ahead;      /* some are younger than now, and count as of now */
    uint64_t seen;   /* by all workers */
    uint8_t generation;
} collection_t;

/* Appends one worker's samples of a slot. */
static void collect(collection_t *c, const uint64_t *words, uint64_t seen, uint32_t now_ticks)
{
    const uint32_t first = c->n;
    uint32_t n = first, oldest = c->oldest, ahead = 0;
    for (uint32_t i = 0; i < LBRL_RESERVOIR_WORDS; i++) {
        const uint64_t word = words[i];
        const uint32_t age = lbrl_sample_age_ticks(word, now_ticks);
        const uint32_t valid = lbrl_sample_valid(word, c->generation, now_ticks);
        c->samples.value[n] = lbrl_sample_value(word);
        c->samples.age_ticks[n] = age;
        oldest = valid && age > oldest ? age : oldest;
        ahead |= valid & (age == 0);
        n += valid;
    }
    c->n = n;
    c->oldest = oldest;
    c->ahead |= ahead != 0;
    c->seen += seen;
    /* the count was read first: a sample may be there that is not in it */
    const uint32_t found = n - first;
    const float weight = found ? (float)(seen > found ? seen : found) / (float)found : 0;
    for (uint32_t i = first; i < n; i++) {
        c->samples.weight[i] = weight;
    }
}

/* Arrays for all samples of a slot, in the caller's scratch memory. One more than there are: the branchless
 * collection writes one beyond those that it keeps. */
typedef struct room {
    lbrl_weighted_t *weighted;
    lbrl_samples_t samples;
} room_t;

static size_t room_of(const lbrl_shm_view_t *view)
{
    return (size_t)view->header.workers * LBRL_RESERVOIR_WORDS + 1;
}

static room_t divide(void *scratch, size_t room)
{
    lbrl_weighted_t *weighted = scratch;
    float *value = (float *)(void *)(weighted + LBRL_REDUCE_SCRATCH * room);
    float *weight = value + room;
    return (room_t){weighted, {value, weight, (uint32_t *)(void *)(weight + room)}};
}

size_t lbrl_reduce_scratch(const lbrl_shm_view_t *view)
{
    return room_of(view) *
           (LBRL_REDUCE_SCRATCH * sizeof(lbrl_weighted_t) + 2 * sizeof(float) + sizeof(uint32_t));
}

/* A channel of an object whose field table is checked: its columns need no further checks. */
typedef struct columns {
    const uint64_t *words, *seen; /* of worker 0 */
    const uint8_t *generation;
    size_t word_step, seen_step, worker_step; /* in words */
    uint32_t workers;
} columns_t;

static size_t step_of(const lbrl_shm_field_t *field)
{
    return field->stride ? field->stride / sizeof(uint64_t) : 1;
}

static columns_t columns_of(const lbrl_shm_view_t *view, const channel_fields_t *fields)
{
    const uint8_t *block = view->base + view->header.workers_offset;
    return (columns_t){
        .words = (const uint64_t *)(const void *)(block + fields->words->offset),
        .seen = (const uint64_t *)(const void *)(block + fields->seen->offset),
        .generation = view->base + fields->generation->offset,
        .word_step = step_of(fields->words),
        .seen_step = step_of(fields->seen),
        .worker_step = view->header.worker_stride / sizeof(uint64_t),
        .workers = view->header.workers,
    };
}

static uint64_t seen_by(const columns_t *columns, uint32_t worker, uint32_t slot)
{
    /* before the words: pairs with the release of lbrl_sink_put() */
    return __atomic_load_n(
        &columns->seen[worker * columns->worker_step + slot * columns->seen_step],
        __ATOMIC_ACQUIRE);
}

/* Samples of a slot from all workers; those that have seen none are not looked at. */
static void collect_slot(const columns_t *columns, uint32_t slot, uint32_t now_ticks,
                         collection_t *c)
{
    for (uint32_t worker = 0; worker < columns->workers; worker++) {
        const uint64_t seen = seen_by(columns, worker, slot);
        if (seen > 0) {
            uint64_t words[LBRL_RESERVOIR_WORDS];
            const uint64_t *from =
                &columns->words[worker * columns->worker_step +
                                (size_t)slot * LBRL_RESERVOIR_WORDS * columns->word_step];
            for (uint32_t i = 0; i < LBRL_RESERVOIR_WORDS; i++) {
                words[i] = __atomic_load_n(&from[i * columns->word_step], __ATOMIC_RELAXED);
            }
            collect(c, words, seen, now_ticks);
        }
    }
}

/* Whether a slot is as it was: same backend, no sample more, and none too old since. */
static bool is_current(const columns_t *columns, uint32_t slot, uint64_t now_us,
                       const lbrl_reduced_t *cached)
{
    if (now_us < cached->from_us || now_us >= cached->until_us ||
        cached->generation != __atomic_load_n(&columns->generation[slot], __ATOMIC_ACQUIRE)) {
        return false;
    }
    uint64_t seen = 0;
    for (uint32_t worker = 0; worker < columns->workers; worker++) {
        seen += seen_by(columns, worker, slot);
    }
    return seen == cached->seen;
}

/* Ages count from the youngest sample, so a reduction holds until its oldest sample is dropped. */
static void remember(lbrl_reduced_t *cached, const collection_t *c, const lbrl_reduction_t *is,
                     uint64_t now_us)
{
    const uint64_t left = MAX_AGE_TICKS - c->oldest;
    *cached = (lbrl_reduced_t){
        .is = *is,
        .seen = c->seen,
        .from_us = now_us,
        .until_us = c->ahead ? 0 : now_us + left * 1000000u / LBRL_SAMPLE_TICKS_PER_SECOND,
        .generation = c->generation,
    };
}

/* A reduction under way. */
typedef struct reducer {
    room_t room;
    uint64_t now_us;
    lbrl_decay_t decay;
    bool decay_known; /* not before it is needed: most often all is cached */
} reducer_t;

static void reduce_slot(reducer_t *reducer, const columns_t *columns, uint32_t slot,
                        lbrl_reduced_t *cached, lbrl_reduction_t *out)
{
    if (cached && is_current(columns, slot, reducer->now_us, cached)) {
        *out = cached->is;
        return;
    }
    if (!reducer->decay_known) {
        lbrl_decay_init(&reducer->decay);
        reducer->decay_known = true;
    }
    collection_t c = {.samples = reducer->room.samples,
                      .generation = __atomic_load_n(&columns->generation[slot], __ATOMIC_ACQUIRE)};
    collect_slot(columns, slot, lbrl_sample_ticks(reducer->now_us), &c);
    lbrl_reduce_samples(&reducer->decay, &c.samples, c.n, reducer->room.weighted,
                        cached ? &cached->is : NULL, out);
    if (cached) {
        remember(cached, &c, out, reducer->now_us);
    }
}

int lbrl_reduce_channels(const lbrl_shm_view_t *view, const lbrl_channel_reduction_t *wanted,
                         uint32_t count, uint64_t now_us, void *scratch)
{
    columns_t columns[LBRL_CHANNEL_COUNT];
    if (count > LBRL_CHANNEL_COUNT) {
        return LBRL_SHM_ARGUMENT;
    }
    for (uint32_t i = 0; i < count; i++) {
        channel_fields_t fields;
        if (!find_channel(view, wanted[i].channel, &fields)) {
            return LBRL_SHM_ARGUMENT;
        }
        columns[i] = columns_of(view, &fields);
    }
    reducer_t reducer = {.room = divide(scratch, room_of(view)), .now_us = now_us};
    for (uint32_t slot = 0; slot < view->header.slots; slot++) {
        for (uint32_t i = 0; i < count; i++) {
            lbrl_reduced_t *cache = wanted[i].cache;
            reduce_slot(&reducer, &columns[i], slot, cache ? &cache[slot] : NULL,
                        &wanted[i].out[slot]);
        }
    }
    return LBRL_SHM_OK;
}

int lbrl_reduce(const lbrl_shm_view_t *view, const char *channel, uint64_t now_us, void *scratch,
                lbrl_reduced_t *cache, lbrl_reduction_t *out)
{
    const lbrl_channel_reduction_t wanted = {channel, cache, out};
    return lbrl_reduce_channels(view, &wanted, 1, now_us, scratch);
}
