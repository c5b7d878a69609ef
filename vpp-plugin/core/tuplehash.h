/* tuple_hash() of many IPv4 tuples at once: where processors can, several in one go. */
#ifndef LBRL_TUPLEHASH_H
#define LBRL_TUPLEHASH_H

#include "flowtable.h"

enum { TUPLES_MAX = 32, TUPLES_LANES = 4 };

/* Tuples, and what tuple_hash() says of each. */
typedef struct tuples {
    uint64_t addresses[TUPLES_MAX], rest[TUPLES_MAX]; /* the two words of each that are hashed */
    uint64_t hash[TUPLES_MAX];
    uint32_t count;
} tuples_t;

/* Fills hash[] from the rest. */
typedef void tuples_hash_t(const lbrl_key_t *key, tuples_t *tuples);

static inline void tuples_add(tuples_t *tuples, const ip_t *src, const ip_t *dst, uint16_t sport,
                              uint16_t dport, uint8_t protocol)
{
    tuples->addresses[tuples->count] = tuple_addresses_v4(src, dst);
    tuples->rest[tuples->count] = tuple_rest_v4(sport, dport, protocol);
    tuples->count++;
}

/* One after the other: for every processor. */
tuples_hash_t tuples_hash_plain;

/* The fastest that this processor has; the same results. */
tuples_hash_t *tuples_hash_best(void);

#endif
