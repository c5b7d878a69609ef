#include "tuplehash.h"

static uint64_t hash_words(const lbrl_key_t *key, uint64_t addresses, uint64_t rest)
{
    lbrl_sip_t s;
    lbrl_sip_begin(&s, key);
    lbrl_sip_word(&s, addresses);
    lbrl_sip_word(&s, rest);
    return lbrl_sip_end(&s);
}

void tuples_hash_plain(const lbrl_key_t *key, tuples_t *tuples)
{
    for (uint32_t i = 0; i < tuples->count; i++) {
        tuples->hash[i] = hash_words(key, tuples->addresses[i], tuples->rest[i]);
    }
}

#if defined(__x86_64__) && !defined(LBRL_NO_SIMD)

#include <immintrin.h>

/* AVX2 is not of every x86-64, so that only these functions are compiled for it. */
#define AVX2 __attribute__((target("avx2")))

/* The states of four hashes. */
typedef struct lanes {
    __m256i v0, v1, v2, v3;
} lanes_t;

AVX2 static inline __m256i rotate(__m256i x, int bits)
{
    return _mm256_or_si256(_mm256_slli_epi64(x, bits), _mm256_srli_epi64(x, 64 - bits));
}

AVX2 static inline __m256i rotate_16(__m256i x)
{
    const __m256i from = _mm256_setr_epi8(6, 7, 0, 1, 2, 3, 4, 5, 14, 15, 8, 9, 10, 11, 12, 13, 6,
                                          7, 0, 1, 2, 3, 4, 5, 14, 15, 8, 9, 10, 11, 12, 13);
    return _mm256_shuffle_epi8(x, from);
}

AVX2 static inline __m256i rotate_32(__m256i x)
{
    return _mm256_shuffle_epi32(x, _MM_SHUFFLE(2, 3, 0, 1));
}

/* lbrl_sip_round() */
AVX2 static inline void lanes_round(lanes_t *s)
{
    s->v0 = _mm256_add_epi64(s->v0, s->v1);
    s->v2 = _mm256_add_epi64(s->v2, s->v3);
    s->v1 = _mm256_xor_si256(rotate(s->v1, 13), s->v0);
    s->v3 = _mm256_xor_si256(rotate_16(s->v3), s->v2);
    s->v0 = rotate_32(s->v0);
    s->v2 = _mm256_add_epi64(s->v2, s->v1);
    s->v0 = _mm256_add_epi64(s->v0, s->v3);
    s->v1 = _mm256_xor_si256(rotate(s->v1, 17), s->v2);
    s->v3 = _mm256_xor_si256(rotate(s->v3, 21), s->v0);
    s->v2 = rotate_32(s->v2);
}

AVX2 static inline void lanes_word(lanes_t *s, __m256i word)
{
    s->v3 = _mm256_xor_si256(s->v3, word);
    lanes_round(s);
    s->v0 = _mm256_xor_si256(s->v0, word);
}

AVX2 static inline __m256i lanes_end(lanes_t *s)
{
    s->v2 = _mm256_xor_si256(s->v2, _mm256_set1_epi64x(0xff));
    lanes_round(s);
    lanes_round(s);
    lanes_round(s);
    return _mm256_xor_si256(_mm256_xor_si256(s->v0, s->v1), _mm256_xor_si256(s->v2, s->v3));
}

AVX2 static void tuples_hash_avx2(const lbrl_key_t *key, tuples_t *tuples)
{
    lbrl_sip_t sip;
    lbrl_sip_begin(&sip, key);
    const lanes_t begin = {_mm256_set1_epi64x((int64_t)sip.v0), _mm256_set1_epi64x((int64_t)sip.v1),
                           _mm256_set1_epi64x((int64_t)sip.v2),
                           _mm256_set1_epi64x((int64_t)sip.v3)};
    for (uint32_t i = tuples->count; i % TUPLES_LANES != 0; i++) {
        tuples->addresses[i] = tuples->rest[i] = 0; /* lanes that nobody asked for */
    }
    for (uint32_t i = 0; i < tuples->count; i += TUPLES_LANES) {
        lanes_t s = begin;
        lanes_word(&s, _mm256_loadu_si256((const __m256i *)(const void *)&tuples->addresses[i]));
        lanes_word(&s, _mm256_loadu_si256((const __m256i *)(const void *)&tuples->rest[i]));
        _mm256_storeu_si256((__m256i *)(void *)&tuples->hash[i], lanes_end(&s));
    }
}

#endif

tuples_hash_t *tuples_hash_best(void)
{
#ifdef AVX2
    if (__builtin_cpu_supports("avx2")) {
        return tuples_hash_avx2;
    }
#endif
    return tuples_hash_plain;
}
