/* Weighted consistent hashing with exact shares.
 *
 * The lookup table and the permutations of positions, one per backend from a keyed hash of its id, are those
 * of Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4.
 * What differs is who gets a position. There, backends take turns, so that a change of one turn shifts all
 * later ones. Here every pair of backend and position has a score of its own, and the table is the stable
 * matching under it:
 *
 *   - The score of backend b for the position at rank r of its permutation is H(r) / w(b), where H(r) =
 *     1/M + 1/(M-1) + ... + 1/(M-r) is the expected r-th smallest of M exponential variates. The lowest score
 *     wins. Without quotas that is weighted rendezvous hashing, whose churn is ideal, but with variates that
 *     are spread evenly instead of drawn, which takes a third of the noise out of the shares.
 *   - A quota per backend (largest remainder) makes shares exact. As scores rank all pairs, there is exactly
 *     one matching within the quotas in which no backend and position prefer each other to what they have. It
 *     does not depend on how it is computed, hence neither on history nor on the order of backends.
 *
 * It is found by deferred acceptance (Gale and Shapley, 1962): a backend below its quota proposes to the next
 * position of its permutation; a position keeps the best proposal; a backend that is displaced proposes on.
 * That goes in rounds, each with all scores up to a limit. What a position has kept at the end of a round it keeps
 * for good, since all later proposals are worse: a bit tells who need not ask there, and most proposals, those for
 * the last free positions, never look at more than that. When few positions are left, a backend does not follow its
 * permutation any more, but computes where in it they stand.
 * Only IEEE additions, multiplications and divisions are used, no library function, so that all nodes build the
 * same table.
 *
 * What exact shares cost is churn beyond the ideal: what rendezvous hashing moves meets the new quotas only
 * up to the noise of a random choice, and displacements correct that. It shrinks against the ideal as changes
 * and tables grow: for 64 backends and M = 65537, 1.2 x ideal when one comes or goes, 1.5 when a weight changes
 * by a fifth, and some 25 positions more than the ideal 10 when it changes by a hundredth. Choosing pairs by
 * optimal transport instead of stably gave 1.1, 1.35 and no fewer than those 25, at many times the cost. */
#include "lbrl/scheduler.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"

#define WEIGHT_MAXIMUM 1e30 /* sums of weights stay finite */

/* A backend in canonical order, that of ids. */
typedef struct entry {
    uint64_t id;
    double weight;
    double remainder; /* what rounding its quota down left, times the sum of weights */
    double cost;      /* 1 / weight, that of the heaviest being 1 */
    uint32_t index;   /* in the caller's array */
    uint32_t quota;
    uint32_t held;
    uint32_t first, step;    /* its permutation: first + rank x step, modulo the size */
    uint32_t inverse;        /* of the step: times it, 1 */
    uint32_t rank, position; /* of the next proposal */
} entry_t;

static bool is_prime(uint32_t number)
{
    for (uint32_t divisor = 2; divisor * divisor <= number; divisor++) {
        if (number % divisor == 0) {
            return false;
        }
    }
    return number >= 2;
}

static int by_id(const void *left, const void *right)
{
    const entry_t *a = left, *b = right;
    return (a->id > b->id) - (a->id < b->id);
}

static int by_remainder(const void *left, const void *right)
{
    const entry_t *a = left, *b = right;
    int order = (a->remainder < b->remainder) - (a->remainder > b->remainder);
    return order ? order : by_id(left, right);
}

static uint64_t load_little_endian(const uint8_t *bytes)
{
    uint64_t word = 0;
    for (int i = 7; i >= 0; i--) {
        word = word << 8 | bytes[i];
    }
    return word;
}

/* SipHash-2-4 of two words (Aumasson and Bernstein, 2012): whoever does not know the key can't choose ids that
 * crowd each other. The same on all machines. */
static uint64_t keyed_hash(const uint8_t key[16], uint64_t first, uint64_t second)
{
    const lbrl_key_t loaded = {load_little_endian(key), load_little_endian(key + 8)};
    const uint64_t words[3] = {first, second,
                               UINT64_C(16) << 56}; /* the last: length of the message */
    lbrl_sip_t s;
    lbrl_sip_begin(&s, &loaded);
    for (int i = 0; i < 3; i++) {
        s.v3 ^= words[i];
        lbrl_sip_round(&s);
        lbrl_sip_round(&s);
        s.v0 ^= words[i];
    }
    s.v2 ^= 0xff;
    for (int i = 0; i < 4; i++) {
        lbrl_sip_round(&s);
    }
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

/* Backends in canonical order, or a negative code. */
static int canonicalise(entry_t *entries, const lbrl_maglev_backend_t *backends, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        /* written so that not-a-number fails */
        if (!(backends[i].weight >= 0.0 && backends[i].weight <= WEIGHT_MAXIMUM)) {
            return LBRL_MAGLEV_INVALID_WEIGHT;
        }
        entries[i] = (entry_t){.id = backends[i].id, .weight = backends[i].weight, .index = i};
    }
    qsort(entries, n, sizeof(*entries), by_id);
    for (uint32_t i = 1; i < n; i++) {
        if (entries[i].id == entries[i - 1].id) {
            return LBRL_MAGLEV_DUPLICATE_ID;
        }
    }
    return 0;
}

/* Largest remainder (exact for weights that are whole numbers). Leaves the entries in canonical order; returns how many positive weights have quota 0. */
static int assign_quotas(entry_t *entries, uint32_t n, uint32_t size)
{
    double total = 0.0;
    uint32_t given = 0;
    for (uint32_t i = 0; i < n; i++) {
        total += entries[i].weight;
    }
    if (!(total > 0.0)) {
        return 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        /* Not weight / total: with a rounded quotient, remainders that are equal would differ. */
        const double exact = entries[i].weight * size;
        entries[i].quota = (uint32_t)(exact / total);
        entries[i].remainder = exact - (double)entries[i].quota * total;
        given += entries[i].quota;
    }
    qsort(entries, n, sizeof(*entries), by_remainder);
    for (uint32_t i = 0; given < size; i++, given++) {
        entries[i].quota++;
    }
    qsort(entries, n, sizeof(*entries), by_id);

    int without = 0;
    for (uint32_t i = 0; i < n; i++) {
        without += entries[i].quota == 0 && entries[i].weight > 0.0;
    }
    return without;
}

/* Inverse of `number` modulo the prime `size`, by Euclid's algorithm. */
static uint32_t inverse_of(uint32_t number, uint32_t size)
{
    int64_t inverse = 0, next = 1, left = size, divisor = number;
    while (divisor) {
        const int64_t quotient = left / divisor;
        const int64_t factor = inverse - quotient * next, rest = left - quotient * divisor;
        inverse = next;
        next = factor;
        left = divisor;
        divisor = rest;
    }
    return (uint32_t)(inverse < 0 ? inverse + size : inverse);
}

static void seed_permutations(entry_t *entries, uint32_t n, uint32_t size, const uint8_t key[16])
{
    double heaviest = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        heaviest = entries[i].weight > heaviest ? entries[i].weight : heaviest;
    }
    for (uint32_t i = 0; i < n; i++) {
        entry_t *entry = &entries[i];
        /* finite where the quota is not 0 */
        entry->cost = 1.0 / (entry->weight / heaviest);
        entry->first = entry->position = (uint32_t)(keyed_hash(key, entry->id, 0) % size);
        entry->step = (uint32_t)(keyed_hash(key, entry->id, 1) % (size - 1)) + 1;
        entry->inverse = inverse_of(entry->step, size);
    }
}

/* ------------------------------------------------------------------------------- matching */

enum {
    FEW = 1024, /* positions that are left at last are asked for their ranks */
    WALK = 512, /* ranks that are looked at together */
};

static_assert(WALK <= FEW, "proposals of either kind fit");

/* Scores up to the first limit claim a quarter of the table; each round's limit is that of the round before times the
 * growth. Few proposals then compete within a round, and there are some 30 of them. */
static const double FIRST_LIMIT = 0.25, LIMIT_GROWTH = 1.25;

#define FREE UINT64_MAX

/* A proposal as one number: the score, as the bits of a positive double, which are ordered like it, and in place of
 * the last of them who made it. The smaller is the better. */
typedef struct proposal {
    uint64_t key;
    uint32_t rank, position;
} proposal_t;

/* Working memory of a matching. */
typedef struct matching {
    uint64_t *key;    /* per position: the proposal that it keeps; FREE for none */
    uint64_t *open;   /* per position a bit: not taken in an earlier round */
    double *harmonic; /* per rank: H */
    uint32_t *taken;  /* positions in the order in which they were taken first */
    uint32_t *stack;  /* backends that may propose in this round */
    uint64_t whose;   /* bits of a key that say who made the proposal */
    uint32_t size, taken_count, stacked;
    uint32_t few_count; /* 0: more than FEW are left */
    uint32_t few[FEW];  /* those left before this round */
} matching_t;

/* The key of a proposal, in which the bits `whose` say who makes it. */
static inline uint64_t key_of(double score, uint32_t who, uint64_t whose)
{
    uint64_t bits;
    memcpy(&bits, &score, sizeof(bits));
    return (bits & ~whose) | who;
}

/* Low bits that number so many backends. */
static uint64_t bits_for(uint32_t n)
{
    uint64_t bits = 1;
    while (n > bits + 1) {
        bits = bits << 1 | 1;
    }
    return bits;
}

static inline bool is_open(const uint64_t *open, uint32_t position)
{
    return open[position / 64] >> position % 64 & 1;
}

/* Moves a backend on to a rank. */
static void go_to(const matching_t *matching, entry_t *entry, uint32_t rank)
{
    entry->rank = rank;
    entry->position = (uint32_t)((entry->first + (uint64_t)rank * entry->step) % matching->size);
}

/* First rank whose score is above the limit, at or behind the backend's. */
static uint32_t rank_behind(const matching_t *matching, const entry_t *entry, double limit)
{
    uint32_t low = entry->rank, high = matching->size;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (matching->harmonic[middle] * entry->cost <= limit) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static int by_key(const void *left, const void *right)
{
    const proposal_t *a = left, *b = right;
    return (a->key > b->key) - (a->key < b->key);
}

/* The next proposals of a backend up to the limit, found by following its permutation: at most WALK ranks of it.
 * Without branches on what is open, which nothing could predict. */
static uint32_t walk(const matching_t *matching, entry_t *entry, uint32_t who, double limit,
                     proposal_t *restrict proposals)
{
    const uint64_t *open = matching->open, whose = matching->whose;
    const uint32_t size = matching->size, step = entry->step;
    const uint32_t last = size - entry->rank < WALK ? size : entry->rank + WALK;
    uint32_t rank = entry->rank, position = entry->position, n = 0;
    for (; rank < last; rank++) {
        const double score = matching->harmonic[rank] * entry->cost;
        if (score > limit) {
            break;
        }
        proposals[n] = (proposal_t){key_of(score, who, whose), rank, position};
        n += is_open(open, position);
        const uint32_t next = position + step - size; /* below 0, or there */
        position = next + (size & -(next >> 31));
    }
    entry->rank = rank;
    entry->position = position;
    return n;
}

/* The same, found by asking the few positions that are left for their ranks. */
static uint32_t ask_few(const matching_t *matching, entry_t *entry, uint32_t who, uint32_t behind,
                        proposal_t *proposals)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < matching->few_count; i++) {
        const uint32_t position = matching->few[i];
        const uint64_t distance = position + (uint64_t)matching->size - entry->first;
        const uint32_t rank = (uint32_t)(distance * entry->inverse % matching->size);
        if (rank - entry->rank < behind - entry->rank) {
            const double score = matching->harmonic[rank] * entry->cost;
            proposals[n++] = (proposal_t){key_of(score, who, matching->whose), rank, position};
        }
    }
    qsort(proposals, n, sizeof(*proposals), by_key);
    go_to(matching, entry, behind);
    return n;
}

/* Makes proposals in their order until the backend holds its quota; returns how many. Those that it displaces from
 * their quota may propose again. */
static uint32_t offer(matching_t *matching, entry_t *entries, uint32_t who,
                      const proposal_t *proposals, uint32_t n)
{
    enum { AHEAD = 12 };
    entry_t *proposer = &entries[who];
    uint32_t i = 0;
    for (; i < n && proposer->held < proposer->quota; i++) {
        if (i + AHEAD < n) {
            __builtin_prefetch(&matching->key[proposals[i + AHEAD].position], 1);
        }
        uint64_t *kept = &matching->key[proposals[i].position];
        if (proposals[i].key > *kept) {
            continue;
        }
        if (*kept == FREE) {
            matching->taken[matching->taken_count++] = proposals[i].position;
        } else {
            const uint32_t loser = (uint32_t)(*kept & matching->whose);
            if (entries[loser].held-- == entries[loser].quota) {
                matching->stack[matching->stacked++] = loser;
            }
        }
        *kept = proposals[i].key;
        proposer->held++;
    }
    return i;
}

/* All that a backend proposes with scores up to the limit, until it holds its quota. */
static void propose(matching_t *matching, entry_t *entries, uint32_t who, double limit)
{
    proposal_t proposals[FEW];
    entry_t *entry = &entries[who];
    uint32_t n, made;
    const uint32_t behind = matching->few_count ? rank_behind(matching, entry, limit) : 0;
    do {
        const bool asks = behind > entry->rank && behind - entry->rank > 2 * matching->few_count;
        const uint32_t before = entry->rank;
        n = asks ? ask_few(matching, entry, who, behind, proposals)
                 : walk(matching, entry, who, limit, proposals);
        made = offer(matching, entries, who, proposals, n);
        if (entry->rank - before < WALK || asks) {
            break;
        }
    } while (made == n);
    if (made < n) {
        go_to(matching, entry, proposals[made].rank);
    }
}

/* What was taken in this round stays with who has it: later proposals are worse. */
static void end_round(matching_t *matching, uint32_t since)
{
    for (uint32_t i = since; i < matching->taken_count; i++) {
        const uint32_t position = matching->taken[i];
        matching->open[position / 64] &= ~(UINT64_C(1) << position % 64);
    }
    if (matching->size - matching->taken_count > FEW) {
        return;
    }
    matching->few_count = 0;
    for (uint32_t i = 0; i < (matching->size + 63) / 64; i++) {
        for (uint64_t left = matching->open[i]; left; left &= left - 1) {
            matching->few[matching->few_count++] = i * 64 + (uint32_t)__builtin_ctzll(left);
        }
    }
}

static void match(matching_t *matching, entry_t *entries, uint32_t n)
{
    double harmonic = 0.0, limit = 0.0;
    for (uint32_t i = 0; i < matching->size; i++) {
        harmonic += 1.0 / (double)(matching->size - i);
        matching->harmonic[i] = harmonic;
        matching->key[i] = FREE;
    }
    for (uint32_t i = 0; i < (matching->size + 63) / 64; i++) {
        const uint32_t left = matching->size - i * 64;
        matching->open[i] = left < 64 ? (UINT64_C(1) << left) - 1 : UINT64_MAX;
    }
    for (uint32_t i = 0; i < n; i++) {
        limit += entries[i].quota ? 1.0 / entries[i].cost : 0.0;
    }
    limit = FIRST_LIMIT / limit;
    for (;; limit *= LIMIT_GROWTH) {
        for (uint32_t i = 0; i < n; i++) {
            if (entries[i].held < entries[i].quota) {
                matching->stack[matching->stacked++] = i;
            }
        }
        if (!matching->stacked) {
            return;
        }
        const uint32_t since = matching->taken_count;
        while (matching->stacked > 0) {
            propose(matching, entries, matching->stack[--matching->stacked], limit);
        }
        end_round(matching, since);
    }
}

static int prepare(entry_t *entries, uint32_t size, const lbrl_maglev_backend_t *backends,
                   uint32_t n)
{
    int code = canonicalise(entries, backends, n);
    return code ? code : assign_quotas(entries, n, size);
}

bool lbrl_maglev_size_valid(uint32_t size)
{
    return size >= 3 && size <= LBRL_MAGLEV_SIZE_MAX && is_prime(size);
}

int lbrl_maglev_quotas(uint32_t *quotas, uint32_t size, const lbrl_maglev_backend_t *backends,
                       uint32_t n)
{
    if (!lbrl_maglev_size_valid(size)) {
        return LBRL_MAGLEV_INVALID_SIZE;
    }
    entry_t *entries = calloc(n ? n : 1, sizeof(*entries));
    if (!entries) {
        return LBRL_MAGLEV_NO_MEMORY;
    }
    int result = prepare(entries, size, backends, n);
    for (uint32_t i = 0; result >= 0 && i < n; i++) {
        quotas[entries[i].index] = entries[i].quota;
    }
    free(entries);
    return result;
}

int lbrl_maglev_build(uint32_t *table, uint32_t size, const lbrl_maglev_backend_t *backends,
                      uint32_t n, const uint8_t key[16])
{
    if (!lbrl_maglev_size_valid(size)) {
        return LBRL_MAGLEV_INVALID_SIZE;
    }
    const size_t words = (size + 63) / 64;
    entry_t *entries = calloc(n ? n : 1, sizeof(*entries));
    uint32_t *stack = calloc(n ? n : 1, sizeof(*stack));
    uint64_t *memory = malloc((2 * (size_t)size + words) * sizeof(*memory));
    int result = LBRL_MAGLEV_NO_MEMORY;
    if (entries && stack && memory) {
        result = prepare(entries, size, backends, n);
    }
    if (result >= 0) {
        matching_t matching = {.key = memory,
                               .open = memory + size,
                               .harmonic = (double *)(void *)(memory + size + words),
                               .taken = table,
                               .stack = stack,
                               .size = size,
                               .whose = bits_for(n)};
        seed_permutations(entries, n, size, key);
        match(&matching, entries, n);
        for (uint32_t i = 0; i < size; i++) {
            const uint64_t kept = matching.key[i];
            table[i] =
                kept == FREE ? LBRL_NO_SLOT : backends[entries[kept & matching.whose].index].slot;
        }
    }
    free(memory);
    free(stack);
    free(entries);
    return result;
}
