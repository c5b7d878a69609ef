/* Random numbers: generators of Blackman and Vigna (public domain), and the distributions that the
 * simulator draws from. */
#ifndef SIM_RANDOM_H
#define SIM_RANDOM_H

#include <math.h>
#include <stdint.h>

/* Streams of an environment's seed. */
enum {
    SIM_STREAM_ARRIVALS = 1,
    SIM_STREAM_BALANCERS,          /* which balancer a connection comes to */
    SIM_STREAM_TIES,               /* of the oracles */
    SIM_STREAM_PHASES,             /* of the quota periods */
    SIM_STREAM_MESSAGES,           /* between balancers */
    SIM_STREAM_CORES = 256,        /* and the following: seeds of the balancers' cores */
    SIM_STREAM_CONNECTIONS = 1024, /* seed of the streams of connections */
};

/* splitmix64: 8 bytes of state, so every connection has one. */
static inline uint64_t sim_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#define SIM_GOLDEN 0x9e3779b97f4a7c15u

static inline uint64_t sim_split_next(uint64_t *state)
{
    return sim_mix(*state += SIM_GOLDEN);
}

/* Start of an independent stream. The state is a hash: states that differ by a small multiple of
 * SIM_GOLDEN would give the same numbers, shifted. */
static inline uint64_t sim_stream(uint64_t seed, uint64_t number)
{
    return sim_mix(sim_mix(seed + SIM_GOLDEN) ^ sim_mix(~number * 0xd1342543de82ef95u));
}

/* (0, 1], so that its logarithm is finite. */
static inline double sim_unit(uint64_t bits)
{
    return (double)((bits >> 11) + 1) * 0x1p-53;
}

static inline double sim_exponential(uint64_t bits)
{
    return -log(sim_unit(bits));
}

/* xoshiro256++, for streams that an environment has one of. */
typedef struct sim_random {
    uint64_t state[4];
} sim_random_t;

static inline void sim_random_seed(sim_random_t *random, uint64_t seed, uint64_t number)
{
    uint64_t stream = sim_stream(seed, number);
    for (int i = 0; i < 4; i++) {
        random->state[i] = sim_split_next(&stream);
    }
}

static inline uint64_t sim_rotate(uint64_t x, int by)
{
    return (x << by) | (x >> (64 - by));
}

static inline uint64_t sim_random_next(sim_random_t *random)
{
    uint64_t *s = random->state;
    uint64_t result = sim_rotate(s[0] + s[3], 23) + s[0];
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = sim_rotate(s[3], 45);
    return result;
}

#endif
