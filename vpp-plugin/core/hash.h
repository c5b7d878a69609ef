/* SipHash-1-3 over 64-bit words, the keyed hash of flow table, checks and schedulers. Words are read as they lie in memory,
 * so that results differ between machines of different byte order: nodes that have to pick the same backends (pick.c) need
 * the same one. Maglev tables (maglev.c) are the same everywhere. */
#ifndef LBRL_HASH_H
#define LBRL_HASH_H

#include <stdint.h>
#include <string.h>

typedef struct lbrl_key {
    uint64_t k0, k1;
} lbrl_key_t;

typedef struct lbrl_sip {
    uint64_t v0, v1, v2, v3;
} lbrl_sip_t;

static inline uint64_t lbrl_rotl(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void lbrl_sip_round(lbrl_sip_t *s)
{
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = lbrl_rotl(s->v1, 13) ^ s->v0;
    s->v3 = lbrl_rotl(s->v3, 16) ^ s->v2;
    s->v0 = lbrl_rotl(s->v0, 32);
    s->v2 += s->v1;
    s->v0 += s->v3;
    s->v1 = lbrl_rotl(s->v1, 17) ^ s->v2;
    s->v3 = lbrl_rotl(s->v3, 21) ^ s->v0;
    s->v2 = lbrl_rotl(s->v2, 32);
}

static inline void lbrl_sip_begin(lbrl_sip_t *s, const lbrl_key_t *key)
{
    s->v0 = key->k0 ^ 0x736f6d6570736575u;
    s->v1 = key->k1 ^ 0x646f72616e646f6du;
    s->v2 = key->k0 ^ 0x6c7967656e657261u;
    s->v3 = key->k1 ^ 0x7465646279746573u;
}

static inline void lbrl_sip_word(lbrl_sip_t *s, uint64_t word)
{
    s->v3 ^= word;
    lbrl_sip_round(s);
    s->v0 ^= word;
}

static inline uint64_t lbrl_sip_end(lbrl_sip_t *s)
{
    s->v2 ^= 0xff;
    lbrl_sip_round(s);
    lbrl_sip_round(s);
    lbrl_sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* Hash of any bytes, padded as SipHash prescribes (little-endian words are assumed, see above). */
static inline uint64_t lbrl_hash_bytes(const lbrl_key_t *key, const void *bytes, size_t size)
{
    const uint8_t *at = (const uint8_t *)bytes;
    lbrl_sip_t s;
    lbrl_sip_begin(&s, key);
    size_t left = size;
    for (; left >= 8; left -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        lbrl_sip_word(&s, word);
    }
    uint64_t last = (uint64_t)size << 56;
    for (size_t i = 0; i < left; i++) {
        last |= (uint64_t)at[i] << (8 * i);
    }
    lbrl_sip_word(&s, last);
    return lbrl_sip_end(&s);
}

static inline lbrl_key_t lbrl_key_load(const uint8_t bytes[16])
{
    lbrl_key_t key;
    memcpy(&key.k0, bytes, 8);
    memcpy(&key.k1, bytes + 8, 8);
    return key;
}

#endif
