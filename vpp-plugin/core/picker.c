/* Schedulers that draw by weight, compare local counts, or both: alias, sed, lsq, p2c. */
#include "lbrl/scheduler.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#if defined(__SSE2__) && !defined(LBRL_NO_SIMD)
#include <emmintrin.h>
#endif

/* Below, a weight counts as this much: (load + base) / weight then stays finite for every load. */
#define WEIGHT_FLOOR 1e-20f
/* A smaller base counts as this much: a product with a subnormal number would be slow. */
#define BASE_FLOOR 1e-20f

/* Memory of a picker; the last two are used while it is built. */
typedef struct layout {
    size_t base, cost, alias, share, stack, size;
} layout_t;

static size_t align_up(size_t value)
{
    return (value + LBRL_PICKER_ALIGNMENT - 1) / LBRL_PICKER_ALIGNMENT * LBRL_PICKER_ALIGNMENT;
}

static layout_t plan_layout(uint32_t slots)
{
    layout_t plan = {.base = align_up(sizeof(lbrl_picker_t))};
    plan.cost = align_up(plan.base + slots * sizeof(float));
    plan.alias = align_up(plan.cost + slots * sizeof(float));
    plan.share = align_up(plan.alias + slots * sizeof(lbrl_alias_cell_t));
    plan.stack = align_up(plan.share + slots * sizeof(double));
    plan.size = align_up(plan.stack + slots * sizeof(uint32_t));
    return plan;
}

size_t lbrl_picker_size(uint32_t slots)
{
    return plan_layout(slots).size;
}

/* Weight as the picker uses it: 0 where the slot must not be picked. */
static float usable_weight(lbrl_picker_kind_t kind, const float *weight, const uint64_t *eligible,
                           uint32_t slot)
{
    bool usable =
        (eligible[slot / 64] >> slot % 64 & 1) && isfinite(weight[slot]) && weight[slot] > 0.0f;
    if (!usable) {
        return 0.0f;
    }
    return kind == LBRL_PICKER_LSQ ? 1.0f : fmaxf(weight[slot], WEIGHT_FLOOR);
}

/* Base as the picker uses it: scores then stay finite, and above 0. */
static float usable_base(lbrl_picker_kind_t kind, const float *base, uint32_t slot, float common)
{
    const bool own = kind != LBRL_PICKER_LSQ && base && isfinite(base[slot]) && base[slot] > 0.0f;
    return fminf(fmaxf(own ? base[slot] : common, BASE_FLOOR), LBRL_BASE_MAX);
}

/* Vose's method: every cell holds a share of 1/n of its own slot and at most one other. `stack` holds cells below
 * the mean share from its start, the others from its end. */
static void fill_alias(lbrl_alias_cell_t *cells, double *share, uint32_t *stack, uint32_t n)
{
    uint32_t small = 0, large = n;
    for (uint32_t i = 0; i < n; i++) {
        if (share[i] < 1.0) {
            stack[small++] = i;
        } else {
            stack[--large] = i;
        }
    }
    while (small > 0 && large < n) {
        const uint32_t low = stack[--small], high = stack[large];
        cells[low].threshold = (uint32_t)(share[low] * 0x1p32);
        cells[low].other = cells[high].own;
        share[high] -= 1.0 - share[low];
        if (share[high] < 1.0) {
            large++;
            stack[small++] = high;
        }
    }
    /* what is left has a share of 1 but for rounding, and keeps `other` = `own` */
}

static uint32_t samples_of(lbrl_picker_kind_t kind, uint32_t usable)
{
    switch (kind) {
    case LBRL_PICKER_ALIAS:
        return 1;
    case LBRL_PICKER_P2C:
        return 2;
    default:
        return usable <= LBRL_PICKER_FULL_SCAN ? 0 : LBRL_PICKER_SAMPLES;
    }
}

const lbrl_picker_t *lbrl_picker_build(void *memory, lbrl_picker_kind_t kind, const float *weight,
                                       const float *base, const uint64_t *eligible, uint32_t slots,
                                       float common_base)
{
    const layout_t plan = plan_layout(slots);
    uint8_t *bytes = memory;
    lbrl_picker_t *picker = memory;
    float *added = (float *)(void *)(bytes + plan.base);
    float *cost = (float *)(void *)(bytes + plan.cost);
    lbrl_alias_cell_t *cells = (lbrl_alias_cell_t *)(void *)(bytes + plan.alias);
    double *share = (double *)(void *)(bytes + plan.share);

    uint32_t n = 0;
    double total = 0;
    for (uint32_t slot = 0; slot < slots; slot++) {
        float usable = usable_weight(kind, weight, eligible, slot);
        added[slot] = usable_base(kind, base, slot, common_base);
        cost[slot] = usable > 0.0f ? 1.0f / usable : INFINITY;
        if (usable > 0.0f) {
            cells[n] = (lbrl_alias_cell_t){UINT32_MAX, slot, slot};
            share[n++] = (double)usable;
            total += (double)usable;
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        share[i] *= n / total;
    }
    fill_alias(cells, share, (uint32_t *)(void *)(bytes + plan.stack), n);
    *picker = (lbrl_picker_t){slots, n, samples_of(kind, n), added, cost, cells};
    return picker;
}

static float score_of(const lbrl_picker_t *picker, const int32_t *load, uint32_t slot)
{
    int32_t open = load[slot] > 0 ? load[slot] : 0;
    return ((float)open + picker->base[slot]) * picker->cost[slot];
}

/* A bit for each of at most 64 numbers that equals `wanted`. */
static uint64_t bits_equal(const int32_t *numbers, uint32_t n, int32_t wanted)
{
    uint64_t equal = 0;
    uint32_t i = 0;
#if defined(__SSE2__) && !defined(LBRL_NO_SIMD)
    for (const __m128i all = _mm_set1_epi32(wanted); i + 4 <= n; i += 4) {
        __m128i four = _mm_loadu_si128((const __m128i *)(const void *)&numbers[i]);
        __m128i same = _mm_cmpeq_epi32(four, all);
        equal |= (uint64_t)(uint32_t)_mm_movemask_ps(_mm_castsi128_ps(same)) << i;
    }
#endif
    for (; i < n; i++) {
        equal |= (uint64_t)(numbers[i] == wanted) << i;
    }
    return equal;
}

/* One of the places, at random, of the least of at most 64 numbers. */
static uint32_t place_of_least(const int32_t *numbers, uint32_t n, int32_t least, uint64_t random)
{
    uint64_t ties = bits_equal(numbers, n, least);
    uint32_t skip = (uint32_t)((random >> 32) * (uint64_t)__builtin_popcountll(ties) >> 32);
    while (skip-- > 0) {
        ties &= ties - 1;
    }
    return (uint32_t)__builtin_ctzll(ties);
}

/* Compares all that can be picked: side by side where all slots are few, else where the cells say that they are. */
static uint32_t scan(const lbrl_picker_t *picker, const int32_t *load, uint64_t random)
{
    /* of the scores: they order like positive floats, and signed numbers are what most vector units compare */
    int32_t bits[LBRL_PICKER_FULL_SCAN];
    int32_t least = INT32_MAX;
    if (picker->slots <= LBRL_PICKER_FULL_SCAN) {
        for (uint32_t slot = 0; slot < picker->slots; slot++) {
            const float score = score_of(picker, load, slot);
            memcpy(&bits[slot], &score, sizeof(score));
            least = bits[slot] < least ? bits[slot] : least;
        }
        return place_of_least(bits, picker->slots, least, random);
    }
    for (uint32_t cell = 0; cell < picker->cells; cell++) {
        const float score = score_of(picker, load, picker->alias[cell].own);
        memcpy(&bits[cell], &score, sizeof(score));
        least = bits[cell] < least ? bits[cell] : least;
    }
    return picker->alias[place_of_least(bits, picker->cells, least, random)].own;
}

/* 64 more random bits out of the last (splitmix64). */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t sample(const lbrl_picker_t *picker, const int32_t *load, uint64_t random)
{
    uint32_t best = LBRL_NO_SLOT;
    float least = INFINITY;
    for (uint32_t i = 0; i < picker->samples; i++) {
        const uint64_t draw = next_random(&random);
        const lbrl_alias_cell_t *cell = &picker->alias[(draw >> 32) * picker->cells >> 32];
        const uint32_t slot = (uint32_t)draw < cell->threshold ? cell->own : cell->other;
        const float score = score_of(picker, load, slot);
        /* the first of equals stays: draws are in random order already */
        if (score < least) {
            least = score;
            best = slot;
        }
    }
    return best;
}

uint32_t lbrl_pick(const lbrl_picker_t *picker, const int32_t *load, uint64_t random)
{
    if (picker->cells == 0) {
        return LBRL_NO_SLOT;
    }
    return picker->samples ? sample(picker, load, random) : scan(picker, load, random);
}
