/*
 * lbio: the embedded data plane's threads around lbrl: one per TUN queue for packets, one for control.
 *
 * A data plane that brings its own threads (VPP) uses all of it but lbio_start(): its packet threads call
 * lbrl_process() on lbio_core()'s workers, and one of its threads calls lbio_step() at the interval of frames.
 *
 * Ownership. An lbio_t owns the arena's object (locked against other processes), the frames objects and
 * the lbrl_t on them; queue descriptors stay the caller's. Objects lie in a directory of shared memory and
 * stay there after lbio_close(), so that the next process goes on with the flows; lbio_withdraw() removes
 * them.
 *
 * Threading. All functions here may be called from any thread; they serialise with the control thread by
 * a lock that packet threads never take. lbio_start(), lbio_stop() and lbio_close() are for one thread.
 *
 * Signals. A packet thread that sleeps in read() is woken by LBIO_SIGNAL, whose handler lbio_start() sets.
 *
 * Errors. Functions that can fail return 0, or -1 with `problem` filled in and nothing changed.
 */
#ifndef LBIO_H
#define LBIO_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "lbrl/lbrl.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LBIO_SIGNAL       (SIGRTMAX - 1)
#define LBIO_QUEUES_MAX   16
#define LBIO_NAME_MAX     64 /* of an object in the directory */
#define LBIO_INSTANCE_MAX 40 /* instance id, NUL included */

typedef struct lbio lbio_t;

/* Why something failed: the core's code or errno, and a sentence that says what to do. */
typedef struct lbio_problem {
    int core;       /* lbrl_error_t, or 0 */
    int system;     /* errno, or 0 */
    char text[448]; /* the longest lists all settings of a VIP */
} lbio_problem_t;

typedef struct lbio_config {
    const char *directory;   /* of the shared-memory objects */
    const char *instance_id; /* of this process */
    uint8_t boot_id[16];     /* of the kernel */
    uint32_t flows, vips, slots;
    uint32_t workers;     /* 1 .. LBIO_QUEUES_MAX: queues that lbio_start() will be given */
    uint32_t interval_ms; /* between frames */
    uint32_t grace_ms;    /* weights of a silent agent stay in force for so long */
    int64_t group;        /* that may read frames; -1: that of the process */
} lbio_config_t;

/* Takes the arena of the directory, or makes one, and the VIPs in it into service. `report` may be NULL. */
int lbio_open(lbio_t **out, const lbio_config_t *config, lbrl_attach_report_t *report,
              lbio_problem_t *problem);

/* Starts the packet threads on `workers` non-blocking TUN descriptors with 10-byte vnet headers, and the
 * control thread. May follow lbio_stop(), with other descriptors. */
int lbio_start(lbio_t *io, const int *queues, uint32_t count, lbio_problem_t *problem);

/* What the control thread does every interval, for a caller that has not called lbio_start(): takes new
 * weights, moves drains on, frees what nobody uses any more, publishes frames. */
void lbio_step(lbio_t *io, uint64_t now_us);

/* The load balancer, valid until lbio_close(), for lbrl_worker() and what only looks at it. */
lbrl_t *lbio_core(lbio_t *io);

/* Ends the threads; packets then wait in the device. */
void lbio_stop(lbio_t *io);

/* Frees everything but the objects in the directory. */
void lbio_close(lbio_t *io);

/* Stops, removes the objects from the directory, and frees. */
void lbio_withdraw(lbio_t *io);

/* ---- Control: as lbrl_* of the same names, with shared-memory objects kept in step ---- */

int lbio_sources_set(lbio_t *io, const lbrl_nat_source_t *sources, uint32_t count,
                     lbio_problem_t *problem);
int lbio_node_set(lbio_t *io, const uint8_t scheduler_key[16], uint32_t nodes,
                  lbio_problem_t *problem);
int lbio_vip_set(lbio_t *io, const lbrl_vip_config_t *config, lbio_problem_t *problem);
int lbio_vip_remove(lbio_t *io, uint64_t id, lbio_problem_t *problem);

/* Whether agents' weights come into force, as they do unless this is said. While not, the configured ones are: from this
 * call on. */
void lbio_agents_follow(lbio_t *io, bool follow);

/* Publishes frames now, so that those of new VIPs can be read before the next interval. */
void lbio_publish(lbio_t *io);

/* ---- Status ---- */

typedef struct lbio_vip_status {
    lbrl_vip_status_t core;
    uint64_t actions_refused; /* looks at the agent's object that ended with an error */
    int actions_error;        /* lbrl_shm_error_t of the last look, 0 when it was good */
    char frames[LBIO_NAME_MAX], actions[LBIO_NAME_MAX]; /* names in the directory */
} lbio_vip_status_t;

uint32_t lbio_vip_ids(lbio_t *io, uint64_t *ids, uint32_t max);
int lbio_vip_status(lbio_t *io, uint64_t id, lbio_vip_status_t *status,
                    lbrl_backend_status_t *backends, uint32_t max, lbio_problem_t *problem);

typedef struct lbio_stats {
    lbrl_stats_t core;
    uint64_t vectors;      /* packets.. taken from the queues at a time */
    uint64_t write_errors; /* packets that the device refused */
    uint64_t heartbeat_us; /* of the control thread */
    bool running;
    bool queue_lost; /* a device is gone: open it again, lbio_stop(), lbio_start() */
    bool
        arena_kept; /* false: flows are in this process's memory alone, for want of shared memory */
    uint32_t unshown; /* VIPs that forward without frames, for want of shared memory */
    lbio_problem_t arena, shortage; /* what was wanting, where one of these says so */
} lbio_stats_t;

void lbio_stats(lbio_t *io, lbio_stats_t *stats);

/* Returns -1, or which thread has made no progress for LBIO_STALLED_MS: a packet thread by its number, or `workers` for
 * the control thread. Takes no lock, which a stalled thread may hold. */
int lbio_stalled(const lbio_t *io);

#ifdef __cplusplus
}
#endif
#endif
