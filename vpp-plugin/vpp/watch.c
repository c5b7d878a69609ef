/*
 * The watchdog over VPP's threads while the load balancer is enabled: the main thread and those that forward.
 *
 * A turn of a thread's main loop is progress. An idle worker turns because the process node wakes it.
 */
#include "lb_rl.h"
#include "watchdog.h"

/* A command may have the main thread for long: a script of them, a table of many routes. */
#define MAIN_LIMIT_MS 30000u

static lbio_watchdog_t *watchdog;
static int stalled; /* the watchdog says it; VPP ends before anybody would read it */
static u32 main_turns;
static bool main_went_on;

static u32 turns_of(u32 thread)
{
    return __atomic_load_n(&vlib_get_main_by_index(thread)->main_loop_count, __ATOMIC_RELAXED);
}

/* Workers stand still while the main thread holds them at the barrier, and sleep while it does not wake them. */
static bool waits_for_main(void)
{
    return *vlib_worker_threads->wait_at_barrier || !main_went_on;
}

static lbio_watched_t look_at(void *context, u32 thread)
{
    u32 turns = turns_of(thread);
    if (thread == 0) {
        main_went_on = turns != main_turns;
        main_turns = turns;
    }
    return (lbio_watched_t){.tid = (int)vlib_worker_threads[thread].lwp,
                            .progress = turns,
                            .excused = thread > 0 && waits_for_main(),
                            .limit_ms = thread == 0 ? MAIN_LIMIT_MS : LBIO_PACKETS_LIMIT_MS};
}

void lb_rl_watch_start(void)
{
    watchdog = lbio_watchdog_start(look_at, NULL, vlib_get_n_threads(), &stalled);
    if (watchdog == NULL) {
        clib_unix_warning("lb-rl: no watchdog over VPP's threads");
    }
}

void lb_rl_watch_stop(void)
{
    lbio_watchdog_stop(watchdog);
    watchdog = NULL;
}
