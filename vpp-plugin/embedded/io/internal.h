/* What the files of lbio share. Not for others. */
#ifndef LBIO_INTERNAL_H
#define LBIO_INTERNAL_H

#include <pthread.h>

#include "lbio.h"
#include "lbrl/shm.h"
#include "object.h"
#include "tun.h"
#include "watchdog.h"

/* One packet thread. Everything is its own while it runs, but for what is marked. */
typedef struct lbio_worker {
    lbio_t *io;
    lbrl_worker_t *core;
    uint32_t index;
    int queue; /* the caller's */
    int wake;  /* eventfd, of several workers: stop, or packets handed over; else -1 */
    pthread_t thread;
    bool started;     /* of who starts and stops */
    bool stop;        /* set by others */
    bool ended, lost; /* read by others, as are the counters and `ticked_us` */
    uint64_t vectors, write_errors;
    uint64_t rounds; /* of its loop, idle ones too: read by the watchdog */
    int tid;         /* 0 before it begins and after its end */
    uint64_t ticked_us;
    uint32_t patience, unlooked; /* see how_to_read() */
    lbrl_packet_t packets[LBRL_VECTOR_MAX];
} lbio_worker_t;

/* A frames object with its writer, bound to the core; in a list when it was replaced. */
typedef struct lbio_frames {
    struct lbio_frames *next;
    lbio_object_t object;
    lbrl_frames_t writer;
    lbrl_level_t level;
} lbio_frames_t;

/* One core VIP with its objects. */
typedef struct lbio_vip {
    uint64_t id;
    bool removing;
    bool unshown;          /* has no frames that fit: they are made later, see lbio_vips_sweep() */
    lbio_frames_t *frames; /* NULL or too narrow where `unshown` */
    int actions;           /* descriptor of the agent's object, -1 while there is none */
    uint64_t refused;      /* looks at the object that ended with an error */
    int refusal;           /* the last of them, 0 when the last look was good */
} lbio_vip_t;

struct lbio {
    lbio_directory_t directory;
    lbio_object_t arena;
    lbio_problem_t private_problem; /* why the arena is in our own memory alone, where it is */
    lbrl_t *core;
    uint32_t workers;
    uint32_t interval_ms;
    uint64_t descriptors; /* numbers below this one are for actions objects */
    char instance_id[LBIO_INSTANCE_MAX];

    pthread_mutex_t lock; /* all below, and the control side of `core` */
    lbio_vip_t **vips;
    uint32_t vip_count, vip_capacity;
    lbio_frames_t *retired;  /* until no worker writes into them */
    lbio_problem_t shortage; /* why the last frames could not be made */
    uint64_t remake_us;      /* when those of unshown VIPs are due */
    uint64_t heartbeat_us;
    uint64_t strays_us; /* of the last look for objects of no VIP */
    bool deaf;          /* agents are not followed */
    uint8_t *scratch;   /* of the control thread: a copy of an actions object */
    size_t scratch_size;

    bool running;
    bool stop; /* of the control thread, under `lock` */
    pthread_cond_t stopped;
    pthread_t control;
    uint64_t control_rounds; /* read by the watchdog, as is the next */
    int control_tid;
    lbio_watchdog_t *watchdog;
    int stalled;             /* set by the watchdog */
    uint64_t watched_rounds; /* of the watchdog: `control_rounds` at its last look */
    lbio_worker_t *threads;  /* [workers] */
    lbio_pool_t *pools;      /* [workers] */
};

uint64_t lbio_now_us(void); /* CLOCK_BOOTTIME */

/* Fills in `problem` from a code of the core. Returns -1. */
int lbio_core_problem(lbio_problem_t *problem, int error, const char *what);

/* ---- arena.c ---- */

int lbio_arena_open(lbio_t *io, const lbrl_config_t *config, lbrl_attach_report_t *report,
                    lbio_problem_t *problem);
void lbio_arena_unlink(const lbio_t *io);
void lbio_arena_forget(lbio_t *io); /* nor leaves it to the next process */

/* Removes an arena from the directory that is not the one in use. */
void lbio_arena_sweep(const lbio_t *io);

/* Leaves the arena to the next process, as far as it is not in the directory anyhow. Nobody uses it any more. */
void lbio_arena_leave(const lbio_t *io);

/* ---- vips.c; all under the lock ---- */

void lbio_vip_name(char out[LBIO_NAME_MAX], uint64_t id, const char *kind);
lbio_vip_t *lbio_vip_find(const lbio_t *io, uint64_t id);

/* Makes entries, with frames, for the VIPs of the arena, and removes objects of VIPs that it has not. */
int lbio_vips_adopt(lbio_t *io, lbio_problem_t *problem);

/* Unmaps frames that are released, forgets VIPs that the core has finished removing, and makes frames that could not be
 * made before. */
void lbio_vips_sweep(lbio_t *io, uint64_t now_us);

/* VIPs that forward but have no frames. */
uint32_t lbio_vips_unshown(const lbio_t *io);
void lbio_vips_unlink(lbio_t *io);
void lbio_vips_free(lbio_t *io);

/* ---- actions.c; under the lock ---- */

/* Takes new weights of the agent into force, if there are any. */
void lbio_actions_follow(lbio_t *io, lbio_vip_t *vip, uint64_t now_us);
void lbio_actions_close(lbio_vip_t *vip);

/* As if the VIP's object were gone. */
void lbio_actions_leave(const lbio_t *io, lbio_vip_t *vip, uint64_t now_us);

/* ---- worker.c, control.c ---- */

int lbio_workers_start(lbio_t *io, const int *queues, lbio_problem_t *problem);
void lbio_workers_stop(lbio_t *io);

/* Has workers that sleep see to their ageing; every LBIO_NUDGE_MS. */
void lbio_workers_nudge(lbio_t *io, uint64_t now_us);
#define LBIO_NUDGE_MS 50u

int lbio_control_start(lbio_t *io, lbio_problem_t *problem);
void lbio_control_stop(lbio_t *io);

/* Watches the threads from now on: started after them, stopped after them, for they may not end either. */
int lbio_watch(lbio_t *io, lbio_problem_t *problem);

/* Starts a thread in which every signal but `taken` (0: none) is blocked: they are for the main thread. */
int lbio_thread_start(pthread_t *thread, void *(*entry)(void *), void *argument, const char *name,
                      int taken);

#endif
