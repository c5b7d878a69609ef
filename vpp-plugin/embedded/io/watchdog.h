/*
 * A watchdog over threads that must go on: packet threads, the control thread, VPP's threads.
 *
 * A thread is stalled when it makes no progress although it runs, or although nothing keeps it from running. Time in
 * which it is ready to run but has no processor does not count: it is starved then, and a new process would be, too.
 */
#ifndef LBIO_WATCHDOG_H
#define LBIO_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

#define LBIO_WATCH_TICK_MS 500u  /* between two looks at the threads */
#define LBIO_STALLED_MS    2000u /* no progress for so long is reported */
#define LBIO_WATCHED_MAX   32u
#define LBIO_PACKETS_LIMIT_MS                                                                      \
    5000u /* no progress of a packet thread for so long ends the process */
#define LBIO_CONTROL_LIMIT_MS 15000u /* of a control thread, which waits for locks of others */

/* One look at a thread. */
typedef struct lbio_watched {
    int tid;           /* 0: there is no such thread now */
    uint64_t progress; /* changes with each round of its loop */
    bool excused;      /* it waits for another thread that has made no progress either */
    uint32_t limit_ms;
} lbio_watched_t;

typedef lbio_watched_t lbio_look_t(void *context, uint32_t index);

/* What is known of a thread from one look to the next. */
typedef struct lbio_patience {
    int tid;
    uint64_t progress;
    uint64_t ran_us;     /* processor time of the thread by then */
    uint64_t stalled_us; /* since its last progress, without times of starvation */
} lbio_patience_t;

/* Takes a look into account: `state` and `ran_us` are the kernel's of the thread, `tick_us` has passed since the last
 * look. Computation only. */
void lbio_patience_look(lbio_patience_t *patience, const lbio_watched_t *seen, char state,
                        uint64_t ran_us, uint64_t tick_us);

typedef struct lbio_watchdog lbio_watchdog_t;

/* Watches `count` threads that `look` shows until lbio_watchdog_stop(), and aborts the process once one of them has
 * been stalled for its limit. `stalled` is set, atomically, to the index of one that has been for LBIO_STALLED_MS, or to
 * -1. Returns NULL with errno set if there can be no further thread. */
lbio_watchdog_t *lbio_watchdog_start(lbio_look_t *look, void *context, uint32_t count,
                                     int *stalled);
void lbio_watchdog_stop(lbio_watchdog_t *watchdog);

#endif
