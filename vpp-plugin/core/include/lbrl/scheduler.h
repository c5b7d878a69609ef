/* Schedulers: which backend takes a new flow.
 *
 * Built on the control path (may allocate, never called by a worker), then read-only; the packet
 * path picks from what was built with memory access and arithmetic alone. Rebuild and publish a new
 * one, with epoch reclamation, when weights, states or slots change. A slot that is not eligible or
 * has weight 0 is never picked. */
#ifndef LBRL_SCHEDULER_H
#define LBRL_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LBRL_NO_SLOT UINT32_MAX /* picked when no backend can take the flow */

/* ---- Maglev: weighted consistent hashing ---- */

typedef struct lbrl_maglev_backend {
    uint64_t id;   /* stable 64-bit hash of the backend's identity; different in each entry */
    double weight; /* 0 .. 1e30; 0 gets no position */
    uint32_t slot; /* written into the table */
} lbrl_maglev_backend_t;

#define LBRL_MAGLEV_SIZE_DEFAULT 65537u

typedef enum lbrl_maglev_error {
    LBRL_MAGLEV_INVALID_SIZE = -1,   /* not a prime of 3 .. LBRL_MAGLEV_SIZE_MAX */
    LBRL_MAGLEV_INVALID_WEIGHT = -2, /* negative, above 1e30 or not a number */
    LBRL_MAGLEV_DUPLICATE_ID = -3,
    LBRL_MAGLEV_NO_MEMORY = -4,
} lbrl_maglev_error_t;

/* The first prime above 2^20. A larger table would take its builder, and all who wait for that, seconds. */
#define LBRL_MAGLEV_SIZE_MAX 1048583u

/* Whether a table can have this many entries: a prime from 3 to LBRL_MAGLEV_SIZE_MAX, so that every step visits them all. */
bool lbrl_maglev_size_valid(uint32_t size);

/* Fills `table` (`size` entries) with slots. The result depends on the set of (id, weight), size
 * and key alone, not on the order of `backends` nor on any earlier table, and is the same on every
 * machine. Shares are exact: each backend gets its quota by largest remainder. When no weight is
 * positive every entry is LBRL_NO_SLOT.
 *
 * Returns the number of backends with a positive weight too small for one position (see
 * lbrl_maglev_quotas to name them), or a negative lbrl_maglev_error_t, with `table` unchanged. */
int lbrl_maglev_build(uint32_t *table, uint32_t size, const lbrl_maglev_backend_t *backends,
                      uint32_t n, const uint8_t key[16]);

/* The number of positions of each backend, in the order of `backends`; result as above. A quota of 0
 * with a positive weight is a weight that a table of this size cannot represent. */
int lbrl_maglev_quotas(uint32_t *quotas, uint32_t size, const lbrl_maglev_backend_t *backends,
                       uint32_t n);

/* Packet path: the slot for a flow's keyed 64-bit hash (all of its high 32 bits are used). */
static inline uint32_t lbrl_maglev_pick(const uint32_t *table, uint32_t size, uint64_t hash)
{
    return table[(hash >> 32) * size >> 32];
}

/* ---- Weighted random, shortest expected delay, least loaded ---- */

typedef enum lbrl_picker_kind {
    LBRL_PICKER_SED,   /* argmin (l + base) / w, with a base and a weight per slot */
    LBRL_PICKER_LSQ,   /* argmin l, of eligible slots with a positive weight */
    LBRL_PICKER_ALIAS, /* at random, in proportion to w; counts and bases do not matter */
    LBRL_PICKER_P2C,   /* of two such draws the one with the smaller (l + base) / w */
} lbrl_picker_kind_t;

#define LBRL_BASE_MAX 1e6f

/* With sed and lsq up to this many slots that can be picked are all compared; of more, LBRL_PICKER_SAMPLES drawn by
 * weight are. */
#define LBRL_PICKER_FULL_SCAN 64u
#define LBRL_PICKER_SAMPLES   8u

typedef struct lbrl_alias_cell {
    uint32_t threshold; /* a 32-bit draw below it keeps the cell's own slot */
    uint32_t own, other;
} lbrl_alias_cell_t;

/* A built scheduler; arrays lie in the same allocation, behind the struct. */
typedef struct lbrl_picker {
    uint32_t slots;
    uint32_t cells;                 /* of the alias table: slots that can be picked */
    uint32_t samples;               /* draws that are compared; 0: all that can be picked are */
    const float *base;              /* added to each count */
    const float *cost;              /* 1 / weight; +infinity where the slot cannot be picked */
    const lbrl_alias_cell_t *alias; /* weighted draws in constant time */
} lbrl_picker_t;

/* Bytes that lbrl_picker_build needs, and their alignment. */
size_t lbrl_picker_size(uint32_t slots);
#define LBRL_PICKER_ALIGNMENT 64u

/* Builds a picker in `memory` and returns it. `weight` per slot (a weight that is not finite and
 * positive counts as 0); `eligible` one bit per slot, in 64-bit words: active backends, neither
 * draining nor failed. `base` per slot, or NULL: the flows that are added to its count, at most
 * LBRL_BASE_MAX; 0 and what is no positive number stand for `common_base`, 1 / (nodes x workers),
 * which is for the flows that this worker cannot see. lsq uses `common_base` alone. */
const lbrl_picker_t *lbrl_picker_build(void *memory, lbrl_picker_kind_t kind, const float *weight,
                                       const float *base, const uint64_t *eligible, uint32_t slots,
                                       float common_base);

/* Packet path: the slot that the kind's rule picks; with sed and lsq ties are broken by `random` (64 uniform
 * bits), so that workers and nodes with the same view do not herd. `load` per slot is the worker's
 * view of open flows (shared total plus own delta); negative counts as 0. LBRL_NO_SLOT when no slot
 * can be picked. */
uint32_t lbrl_pick(const lbrl_picker_t *picker, const int32_t *load, uint64_t random);

#ifdef __cplusplus
}
#endif
#endif
