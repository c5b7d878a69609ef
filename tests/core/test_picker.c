/* sed and lsq: the least expected delay, fair ties, and never a slot that must not be picked. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "lbrl/scheduler.h"

#define MOST 300

typedef struct fixture {
    float weight[MOST], base[MOST];
    int32_t load[MOST];
    uint64_t eligible[MOST / 64 + 1];
    void *memory;
    uint64_t random;
} fixture_t;

static uint64_t next(fixture_t *f)
{
    f->random += 0x9e3779b97f4a7c15u;
    uint64_t z = f->random;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void fixture_init(fixture_t *f)
{
    memset(f, 0, sizeof(*f));
    f->memory = aligned_alloc(LBRL_PICKER_ALIGNMENT, lbrl_picker_size(MOST));
    for (uint32_t i = 0; i < MOST; i++) {
        f->weight[i] = 1;
        f->eligible[i / 64] |= UINT64_C(1) << i % 64;
    }
}

static const lbrl_picker_t *build(fixture_t *f, lbrl_picker_kind_t kind, uint32_t slots)
{
    return lbrl_picker_build(f->memory, kind, f->weight, f->base, f->eligible, slots, 1.0f);
}

static void sed_takes_the_least_expected_delay(void)
{
    fixture_t f;
    fixture_init(&f);
    /* (l + 1) / w: 4/1, 6/2, 7/4, 10/8 */
    memcpy(f.weight, (float[]){1, 2, 4, 8}, 4 * sizeof(float));
    memcpy(f.load, (int32_t[]){3, 5, 6, 9}, 4 * sizeof(int32_t));
    const lbrl_picker_t *sed = build(&f, LBRL_PICKER_SED, 4);
    CHECK_EQUAL(lbrl_pick(sed, f.load, 1), 3);
    f.load[3] = 20;
    CHECK_EQUAL(lbrl_pick(sed, f.load, 1), 2);
    CHECK_EQUAL(lbrl_pick(build(&f, LBRL_PICKER_LSQ, 4), f.load, 1), 0);
    f.load[1] = -7; /* deltas of other workers may overshoot: as 0 */
    CHECK_EQUAL(lbrl_pick(build(&f, LBRL_PICKER_LSQ, 4), f.load, 1), 1);
    free(f.memory);
}

static void bases_count_as_flows(void)
{
    fixture_t f;
    fixture_init(&f);
    /* (l + base) / w: 5/1, 7/2, 9/4, 1/8 */
    memcpy(f.weight, (float[]){1, 2, 4, 8}, 4 * sizeof(float));
    memcpy(f.base, (float[]){5, 4, 7, 1}, 4 * sizeof(float));
    memcpy(f.load, (int32_t[]){0, 3, 2, 0}, 4 * sizeof(int32_t));
    CHECK_EQUAL(lbrl_pick(build(&f, LBRL_PICKER_SED, 4), f.load, 1), 3);
    f.base[3] = 20;
    CHECK_EQUAL(lbrl_pick(build(&f, LBRL_PICKER_SED, 4), f.load, 1), 2);
    CHECK_EQUAL(lbrl_pick(build(&f, LBRL_PICKER_LSQ, 4), f.load, (uint64_t)1 << 63), 3);
    CHECK_EQUAL(lbrl_pick(build(&f, LBRL_PICKER_LSQ, 4), f.load, 0), 0);
    /* no base of its own: 1, which all of them have here */
    const float none[] = {0, -1, NAN, -INFINITY};
    for (uint32_t i = 0; i < 4; i++) {
        f.base[2] = none[i]; /* (2 + 1) / 4 */
        CHECK_EQUAL(lbrl_pick(build(&f, LBRL_PICKER_SED, 4), f.load, 1), 2);
    }
    free(f.memory);
}

/* In double precision. */
static double delay_of(const fixture_t *f, uint32_t slot)
{
    const double load = f->load[slot] > 0 ? f->load[slot] : 0;
    return (load + (double)f->base[slot]) / (double)f->weight[slot];
}

/* Whatever the numbers, the least delay is found, but for rounding. */
static void scores_of_all_numbers_are_ordered(void)
{
    const float weights[] = {1e-19f, 0.3f, 1, 7, 1e6f};
    const float bases[] = {1e-19f, 1.0f / 3, 1, 1e3f, LBRL_BASE_MAX};
    const int32_t loads[] = {INT32_MIN, -1, 0, 1, 1000, INT32_MAX};
    const uint32_t sizes[] = {1, 3, 17, 64, 200};
    fixture_t f;
    fixture_init(&f);
    for (int round = 0; round < 2000; round++) {
        const uint32_t n = sizes[next(&f) % 5];
        uint32_t first = n;
        memset(f.eligible, 0, sizeof(f.eligible));
        for (uint32_t i = 0; i < n; i++) {
            f.weight[i] = weights[next(&f) % 5];
            f.base[i] = bases[next(&f) % 5];
            f.load[i] = loads[next(&f) % 6];
            const bool eligible = i < 64 && next(&f) % 4; /* no more than are compared */
            f.eligible[i / 64] |= (uint64_t)eligible << i % 64;
            first = eligible && (first == n || delay_of(&f, i) < delay_of(&f, first)) ? i : first;
        }
        const uint32_t found = lbrl_pick(build(&f, LBRL_PICKER_SED, n), f.load, next(&f));
        if (first == n) {
            CHECK_EQUAL(found, LBRL_NO_SLOT);
        } else {
            CHECK(found < n && f.eligible[found / 64] >> found % 64 & 1);
            CHECK(delay_of(&f, found) <= delay_of(&f, first) * (1 + 1e-6));
        }
    }
    free(f.memory);
}

static void slots_out_of_service_are_never_picked(void)
{
    const uint32_t sizes[] = {1, 5, 64, 65, MOST};
    const lbrl_picker_kind_t kinds[] = {LBRL_PICKER_SED, LBRL_PICKER_LSQ};
    for (uint32_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
        for (uint32_t k = 0; k < 2; k++) {
            fixture_t f;
            fixture_init(&f);
            const uint32_t n = sizes[s];
            for (uint32_t i = 0; i < n; i++) { /* only the last can be picked, and it is busy */
                f.weight[i] = i % 3 == 0 ? 0 : i % 3 == 1 ? NAN : 1;
                if (i % 3 == 2) {
                    f.eligible[i / 64] &= ~(UINT64_C(1) << i % 64);
                }
            }
            f.weight[n - 1] = 1e-30f;
            f.eligible[(n - 1) / 64] |= UINT64_C(1) << (n - 1) % 64;
            f.load[n - 1] = INT32_MAX;
            const lbrl_picker_t *picker = build(&f, kinds[k], n);
            for (int i = 0; i < 100; i++) {
                CHECK_EQUAL(lbrl_pick(picker, f.load, next(&f)), n - 1);
            }
            memset(f.eligible, 0, sizeof(f.eligible));
            CHECK_EQUAL(lbrl_pick(build(&f, kinds[k], n), f.load, 1), LBRL_NO_SLOT);
            free(f.memory);
        }
    }
    fixture_t f;
    fixture_init(&f);
    CHECK_EQUAL(lbrl_pick(build(&f, LBRL_PICKER_SED, 0), f.load, 1), LBRL_NO_SLOT);
    free(f.memory);
}

static void ties_are_broken_evenly(void)
{
    fixture_t f;
    fixture_init(&f);
    uint32_t picked[MOST] = {0};
    for (uint32_t i = 0; i < 64; i++) {
        f.load[i] = i % 4 == 1 ? 2 : 3;
    }
    const lbrl_picker_t *picker = build(&f, LBRL_PICKER_SED, 64);
    for (int i = 0; i < 16000; i++) {
        picked[lbrl_pick(picker, f.load, next(&f))]++;
    }
    for (uint32_t i = 0; i < 64; i++) {
        CHECK_NEAR(picked[i], i % 4 == 1 ? 1000 : 0, i % 4 == 1 ? 150 : 0);
    }
    free(f.memory);
}

/* A directory has room for twice its backends: what counts is how many can be picked, wherever they are. */
static void free_slots_do_not_make_it_sample(void)
{
    fixture_t f;
    fixture_init(&f);
    uint32_t picked[MOST] = {0};
    memset(f.eligible, 0, sizeof(f.eligible));
    for (uint32_t i = 0; i < 64; i++) {
        const uint32_t slot = 4 * i + 3;
        f.eligible[slot / 64] |= UINT64_C(1) << slot % 64;
        f.load[slot] = 3;
    }
    f.load[0] = f.load[1] = 0; /* idle, but out of service */
    f.load[103] = 2;
    const lbrl_picker_t *picker = build(&f, LBRL_PICKER_SED, MOST);
    for (int i = 0; i < 100; i++) { /* 8 samples would miss it 9 times in 10 */
        CHECK_EQUAL(lbrl_pick(picker, f.load, next(&f)), 103);
    }
    f.load[255] = 2;
    for (int i = 0; i < 2000; i++) {
        picked[lbrl_pick(picker, f.load, next(&f))]++;
    }
    CHECK_EQUAL(picked[103] + picked[255], 2000);
    CHECK_NEAR(picked[103], 1000, 150);
    f.eligible[0] |= 1; /* the 65th */
    picker = build(&f, LBRL_PICKER_SED, MOST);
    uint32_t missed = 0;
    for (int i = 0; i < 100; i++) {
        missed += lbrl_pick(picker, f.load, next(&f)) != 0;
    }
    CHECK(missed > 0);
    free(f.memory);
}

/* With equal delays everywhere, samples follow the weights: what alias cells are for. */
static void samples_follow_weights(void)
{
    fixture_t f;
    fixture_init(&f);
    uint32_t picked[MOST] = {0};
    for (uint32_t i = 0; i < MOST; i++) {
        f.weight[i] = (float)(1 + i % 5);
        f.load[i] = (int32_t)(i % 5); /* (l + 1) / w = 1 */
    }
    const lbrl_picker_t *picker = build(&f, LBRL_PICKER_SED, MOST);
    for (int i = 0; i < 90000; i++) {
        picked[lbrl_pick(picker, f.load, next(&f))]++;
    }
    for (uint32_t i = 0; i < MOST; i++) {
        double expected = 90000.0 * (1 + i % 5) / (60 * 15);
        CHECK_NEAR(picked[i], expected, 6 * sqrt(expected));
    }
    free(f.memory);
}

/* Filled flow by flow, loads end up proportional to weights, exactly below 65 slots and closely above. */
static void loads_become_proportional(void)
{
    const uint32_t sizes[] = {8, 64, 256};
    for (uint32_t s = 0; s < 3; s++) {
        fixture_t f;
        fixture_init(&f);
        double total = 0;
        for (uint32_t i = 0; i < sizes[s]; i++) {
            f.weight[i] = (float)(1 + i % 7);
            total += (double)f.weight[i];
        }
        const lbrl_picker_t *picker = build(&f, LBRL_PICKER_SED, sizes[s]);
        for (int i = 0; i < 100000; i++) {
            f.load[lbrl_pick(picker, f.load, next(&f))]++;
        }
        for (uint32_t i = 0; i < sizes[s]; i++) {
            CHECK_NEAR(f.load[i], 100000 / total * (double)f.weight[i], sizes[s] > 64 ? 12 : 8);
        }
        free(f.memory);
    }
}

int main(void)
{
    sed_takes_the_least_expected_delay();
    bases_count_as_flows();
    scores_of_all_numbers_are_ordered();
    slots_out_of_service_are_never_picked();
    ties_are_broken_evenly();
    free_slots_do_not_make_it_sample();
    samples_follow_weights();
    loads_become_proportional();
    return 0;
}
