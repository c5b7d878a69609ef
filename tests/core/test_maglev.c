/* The Maglev table: quotas that can be worked out by hand, and how much of it moves at real sizes. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "check.h"
#include "lbrl/scheduler.h"

#define SIZE LBRL_MAGLEV_SIZE_DEFAULT
#define MANY 64

static const uint8_t key[16] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3};

static uint64_t scramble(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void make(lbrl_maglev_backend_t *backends, uint32_t n, uint64_t seed, bool equal)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t random = scramble(seed * 1000 + i + 1);
        backends[i] =
            (lbrl_maglev_backend_t){random, equal ? 100 : 20.0 + (double)(random % 200), i};
    }
}

static void count(uint32_t *counts, uint32_t n, const uint32_t *table, uint32_t size)
{
    memset(counts, 0, n * sizeof(*counts));
    for (uint32_t i = 0; i < size; i++) {
        CHECK(table[i] < n);
        counts[table[i]]++;
    }
}

static void seven_positions_by_hand(void)
{
    /* shares 3.5, 2.1, 1.4: floors 3, 2, 1; the last position goes to the largest remainder, the first's */
    const lbrl_maglev_backend_t backends[] = {{10, 5, 0}, {20, 3, 1}, {30, 2, 2}};
    uint32_t table[7], counts[3], quotas[3];
    CHECK_EQUAL(lbrl_maglev_build(table, 7, backends, 3, key), 0);
    count(counts, 3, table, 7);
    CHECK_EQUAL(counts[0], 4);
    CHECK_EQUAL(counts[1], 2);
    CHECK_EQUAL(counts[2], 1);
    CHECK_EQUAL(lbrl_maglev_quotas(quotas, 7, backends, 3), 0);
    CHECK(memcmp(quotas, counts, sizeof(quotas)) == 0);
}

static void weights_that_do_not_fit_are_counted(void)
{
    const lbrl_maglev_backend_t backends[] = {{1, 1000, 0}, {2, 1, 1}, {3, 0, 2}, {4, 1, 3}};
    uint32_t table[7], quotas[4];
    CHECK_EQUAL(lbrl_maglev_build(table, 7, backends, 4, key), 2);
    CHECK_EQUAL(lbrl_maglev_quotas(quotas, 7, backends, 4), 2);
    CHECK_EQUAL(quotas[0], 7);
    CHECK_EQUAL(quotas[1] + quotas[2] + quotas[3], 0);
}

static void nothing_to_pick(void)
{
    const lbrl_maglev_backend_t drained[] = {{1, 0, 0}, {2, 0, 1}};
    uint32_t table[11];
    CHECK_EQUAL(lbrl_maglev_build(table, 11, drained, 2, key), 0);
    CHECK_EQUAL(table[5], LBRL_NO_SLOT);
    CHECK_EQUAL(lbrl_maglev_build(table, 11, NULL, 0, key), 0);
    CHECK_EQUAL(table[10], LBRL_NO_SLOT);
    CHECK_EQUAL(lbrl_maglev_pick(table, 11, UINT64_MAX), LBRL_NO_SLOT);
}

static void wrong_arguments_change_nothing(void)
{
    const lbrl_maglev_backend_t good[] = {{1, 1, 0}, {2, 1, 1}};
    uint32_t table[11], quotas[2];
    memset(table, 0x55, sizeof(table));
    const uint32_t sizes[] = {0, 1, 2, 9, 10, 1u << 24, 1048589 /* a prime */, UINT32_MAX};
    for (uint32_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        CHECK_EQUAL(lbrl_maglev_build(table, sizes[i], good, 2, key), LBRL_MAGLEV_INVALID_SIZE);
        CHECK_EQUAL(lbrl_maglev_quotas(quotas, sizes[i], good, 2), LBRL_MAGLEV_INVALID_SIZE);
    }
    const double weights[] = {-1, -1e-300, NAN, INFINITY, 1e31};
    for (uint32_t i = 0; i < sizeof(weights) / sizeof(*weights); i++) {
        const lbrl_maglev_backend_t bad[] = {{1, 1, 0}, {2, weights[i], 1}};
        CHECK_EQUAL(lbrl_maglev_build(table, 11, bad, 2, key), LBRL_MAGLEV_INVALID_WEIGHT);
    }
    const lbrl_maglev_backend_t twins[] = {{7, 1, 0}, {2, 1, 1}, {7, 1, 2}};
    CHECK_EQUAL(lbrl_maglev_build(table, 11, twins, 3, key), LBRL_MAGLEV_DUPLICATE_ID);
    CHECK_EQUAL(table[0], 0x55555555);
}

static void extreme_weights_keep_their_shares(void)
{
    const lbrl_maglev_backend_t backends[] = {{1, 1e30, 5}, {2, 1e30, 6}, {3, 5e-324, 7}};
    uint32_t quotas[3], table[101];
    CHECK_EQUAL(lbrl_maglev_quotas(quotas, 101, backends, 3), 1);
    CHECK_EQUAL(quotas[0] + quotas[1], 101);
    CHECK_EQUAL(lbrl_maglev_build(table, 101, backends, 3, key), 1);
    const lbrl_maglev_backend_t tiny[] = {{1, 5e-324, 5}, {2, 5e-324, 6}};
    CHECK_EQUAL(lbrl_maglev_build(table, 101, tiny, 2, key), 0);
}

static void order_does_not_matter(void)
{
    lbrl_maglev_backend_t backends[MANY], turned[MANY];
    static uint32_t table[SIZE], again[SIZE];
    make(backends, MANY, 1, false);
    for (uint32_t i = 0; i < MANY; i++) {
        turned[i] = backends[(i * 27 + 5) % MANY];
    }
    CHECK_EQUAL(lbrl_maglev_build(table, SIZE, backends, MANY, key), 0);
    CHECK_EQUAL(lbrl_maglev_build(again, SIZE, turned, MANY, key), 0);
    CHECK(memcmp(table, again, sizeof(table)) == 0);
    uint8_t other[16] = {0};
    CHECK_EQUAL(lbrl_maglev_build(again, SIZE, backends, MANY, other), 0);
    CHECK(memcmp(table, again, sizeof(table)) != 0);
}

/* A table is the same on every machine and in every release: nodes of both run side by side. */
static void the_table_is_pinned(void)
{
    lbrl_maglev_backend_t backends[5];
    make(backends, 5, 9, false);
    uint32_t table[251];
    CHECK_EQUAL(lbrl_maglev_build(table, 251, backends, 5, key), 0);
    uint64_t digest = 0;
    for (uint32_t i = 0; i < 251; i++) {
        digest = scramble(digest ^ table[i]) + i;
    }
    CHECK_EQUAL(digest, 2909292885972288587);
}

static uint32_t moved(const uint32_t *before, const uint32_t *after)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < SIZE; i++) {
        count += before[i] != after[i];
    }
    return count;
}

/* Positions that must move: what the quotas of those that lose add up to. */
static uint32_t ideal(const uint32_t *before, const uint32_t *after, uint32_t n)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += before[i] > after[i] ? before[i] - after[i] : 0;
    }
    return sum;
}

/* Churn as a multiple of the ideal, over every fourth backend, which in turn have their weight multiplied. */
static double churn_of(double factor, bool equal)
{
    static uint32_t before[SIZE], after[SIZE];
    lbrl_maglev_backend_t backends[MANY];
    uint32_t quotas[MANY], changed[MANY];
    double total = 0, needed = 0;
    make(backends, MANY, 2, equal);
    CHECK_EQUAL(lbrl_maglev_build(before, SIZE, backends, MANY, key), 0);
    CHECK_EQUAL(lbrl_maglev_quotas(quotas, SIZE, backends, MANY), 0);
    for (uint32_t i = 0; i < MANY; i += 4) {
        const double weight = backends[i].weight;
        backends[i].weight = weight * factor;
        CHECK_EQUAL(lbrl_maglev_build(after, SIZE, backends, MANY, key), 0);
        CHECK_EQUAL(lbrl_maglev_quotas(changed, SIZE, backends, MANY), 0);
        backends[i].weight = weight;
        total += moved(before, after);
        needed += ideal(quotas, changed, MANY);
    }
    return total / needed;
}

static void few_positions_move(void)
{
    const double factors[] = {0, 0.5, 0.8, 1.25, 2}; /* 0: removed, or, read backwards, added */
    for (uint32_t i = 0; i < sizeof(factors) / sizeof(*factors); i++) {
        for (int equal = 0; equal < 2; equal++) {
            const double churn = churn_of(factors[i], equal);
            printf("weight x %.2f, %s weights: churn %.3f x ideal\n", factors[i],
                   equal ? "equal" : "unequal", churn);
            CHECK(churn <= 1.5);
        }
    }
}

static void shares_are_exact(void)
{
    lbrl_maglev_backend_t backends[MANY];
    static uint32_t table[SIZE];
    uint32_t counts[MANY];
    for (uint64_t seed = 1; seed <= 5; seed++) {
        make(backends, MANY, seed, false);
        double total = 0, worst = 0;
        for (uint32_t i = 0; i < MANY; i++) {
            total += backends[i].weight;
        }
        CHECK_EQUAL(lbrl_maglev_build(table, SIZE, backends, MANY, key), 0);
        count(counts, MANY, table, SIZE);
        for (uint32_t i = 0; i < MANY; i++) {
            const double exact = backends[i].weight / total * SIZE;
            CHECK_NEAR(counts[i], exact, 1);
            worst = fmax(worst, fabs(counts[i] / exact - 1));
        }
        CHECK(worst <= 0.01);
    }
}

/* Every backend finds its positions spread over the whole table: hashes of a range meet all backends. */
static void positions_are_spread(void)
{
    lbrl_maglev_backend_t backends[8];
    static uint32_t table[SIZE];
    make(backends, 8, 3, true);
    CHECK_EQUAL(lbrl_maglev_build(table, SIZE, backends, 8, key), 0);
    for (uint32_t part = 0; part < 16; part++) {
        uint32_t counts[8];
        count(counts, 8, table + part * 4096, 4096);
        for (uint32_t i = 0; i < 8; i++) {
            CHECK_NEAR(counts[i], 512, 128);
        }
    }
}

int main(void)
{
    seven_positions_by_hand();
    weights_that_do_not_fit_are_counted();
    nothing_to_pick();
    wrong_arguments_change_nothing();
    extreme_weights_keep_their_shares();
    order_does_not_matter();
    the_table_is_pinned();
    shares_are_exact();
    positions_are_spread();
    few_positions_move();
    return 0;
}
