/* Reductions: what a policy sees of a channel, five numbers per backend.
 *
 * Samples of several workers are merged: the samples of a worker share a weight proportional to the
 * number that it has seen. With w that weight of a sample and d = w 0.9^(age in seconds):
 *
 *     avg, std    mean and (population) standard deviation under w
 *     p90         smallest sample at which the cumulative w reaches 0.9 of the total
 *     avg_decay   mean under d
 *     p90_decay   p90 under d */
#ifndef LBRL_REDUCE_H
#define LBRL_REDUCE_H

#include "lbrl/shm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lbrl_reduction {
    double avg, std, p90, avg_decay, p90_decay; /* all not-a-number without samples */
} lbrl_reduction_t;

/* Samples as columns. */
typedef struct lbrl_samples {
    float *value;
    float *weight;       /* > 0; overwritten */
    uint32_t *age_ticks; /* 1/256 s, at most LBRL_SAMPLE_MAX_AGE_SECONDS */
} lbrl_samples_t;

/* A sample on its way through the selection of a quantile; weights are relative to the largest, 2^30. */
typedef struct lbrl_weighted {
    float value;
    uint32_t weight;
} lbrl_weighted_t;

#define LBRL_REDUCE_SCRATCH 3u /* lbrl_weighted_t of scratch memory per sample */

/* Powers of 0.9 for every age in ticks below 2^20, as products of three entries. */
typedef struct lbrl_decay {
    double low[256], middle[64], high[64];
} lbrl_decay_t;

void lbrl_decay_init(lbrl_decay_t *decay);

/* Reduces `n` samples; `scratch` has room for LBRL_REDUCE_SCRATCH x n. `before`, or NULL, is what most of these samples
 * were reduced to before: it saves time where it is near, and changes nothing. */
void lbrl_reduce_samples(const lbrl_decay_t *decay, const lbrl_samples_t *samples, uint32_t n,
                         lbrl_weighted_t *scratch, const lbrl_reduction_t *before,
                         lbrl_reduction_t *out);

/* Bytes of scratch memory (8-byte aligned) that lbrl_reduce needs for a view. */
size_t lbrl_reduce_scratch(const lbrl_shm_view_t *view);

/* What a slot's channel was reduced to, and how to tell that it is still the same. The caller's memory,
 * zeroed at first and handed to each call for the same channel of the same object. */
typedef struct lbrl_reduced {
    lbrl_reduction_t is;
    uint64_t seen;              /* samples, by all workers */
    uint64_t from_us, until_us; /* when it holds unless more are seen; until_us 0: never */
    uint64_t generation;        /* of the slot */
} lbrl_reduced_t;

/* A channel that is to be reduced. */
typedef struct lbrl_channel_reduction {
    const char *channel;   /* its name */
    lbrl_reduced_t *cache; /* header.slots entries, or NULL for none */
    lbrl_reduction_t *out; /* header.slots entries */
} lbrl_channel_reduction_t;

/* Reduces channels of a frames object for each of its slots, LBRL_CHANNEL_COUNT of them at most; together,
 * because at level full a slot's samples of most channels share cache lines. Samples of other generations
 * than the slot's, older than an hour, or not finite are left out. Slots that have seen no sample since the
 * call before are taken from the cache. LBRL_SHM_OK, or LBRL_SHM_ARGUMENT when the object lacks one of the
 * channels; nothing is written then. */
int lbrl_reduce_channels(const lbrl_shm_view_t *view, const lbrl_channel_reduction_t *wanted,
                         uint32_t count, uint64_t now_us, void *scratch);

/* The same for one channel. */
int lbrl_reduce(const lbrl_shm_view_t *view, const char *channel, uint64_t now_us, void *scratch,
                lbrl_reduced_t *cache, lbrl_reduction_t *out);

#ifdef __cplusplus
}
#endif
#endif
