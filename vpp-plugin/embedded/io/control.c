/* The control thread: frames, weights, drains, at a steady interval. */
#include "internal.h"

#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS 1000000000L

uint64_t lbio_now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

int lbio_thread_start(pthread_t *thread, void *(*entry)(void *), void *argument, const char *name,
                      int taken)
{
    sigset_t blocked;
    sigset_t before;
    (void)sigfillset(&blocked);
    if (taken != 0) {
        (void)sigdelset(&blocked, taken);
    }
    (void)pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int error = pthread_create(thread, NULL, entry, argument);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) {
        (void)pthread_setname_np(*thread, name);
    }
    return error;
}

static void step(lbio_t *io, uint64_t now_us)
{
    for (uint32_t i = 0; !io->deaf && i < io->vip_count; i++) {
        lbio_actions_follow(io, io->vips[i], now_us);
    }
    lbrl_control_tick(io->core, now_us);
    if (io->directory.fd < 0) {
        lbio_directory_again(&io->directory);
    }
    lbio_arena_sweep(io);
    lbio_vips_sweep(io, now_us);
    lbrl_publish(io->core, now_us);
    io->heartbeat_us = now_us;
}

void lbio_step(lbio_t *io, uint64_t now_us)
{
    (void)pthread_mutex_lock(&io->lock);
    step(io, now_us);
    (void)pthread_mutex_unlock(&io->lock);
}

/* Sleeps for a nudge's time, or until it is told to stop. */
static void sleep_until_nudge(lbio_t *io)
{
    struct timespec due;
    (void)clock_gettime(CLOCK_MONOTONIC, &due);
    due.tv_nsec += LBIO_NUDGE_MS * 1000000L;
    due.tv_sec += due.tv_nsec / NANOSECONDS;
    due.tv_nsec %= NANOSECONDS;
    while (!io->stop && pthread_cond_timedwait(&io->stopped, &io->lock, &due) == 0) {
    }
}

static void *control_main(void *argument)
{
    lbio_t *io = argument;
    uint64_t interval_us = io->interval_ms * (uint64_t)1000;
    uint64_t due_us = 0;
    __atomic_store_n(&io->control_tid, gettid(), __ATOMIC_RELAXED);
    (void)pthread_mutex_lock(&io->lock);
    while (!io->stop) {
        __atomic_store_n(&io->control_rounds, io->control_rounds + 1, __ATOMIC_RELAXED);
        uint64_t now_us = lbio_now_us();
        if (now_us >= due_us) {
            step(io, now_us);
            /* At a steady pace; after a pause (a suspended machine) no interval is made up for. */
            due_us = now_us < due_us + interval_us ? due_us + interval_us : now_us + interval_us;
        }
        lbio_workers_nudge(io, now_us);
        sleep_until_nudge(io);
    }
    (void)pthread_mutex_unlock(&io->lock);
    __atomic_store_n(&io->control_tid, 0, __ATOMIC_RELAXED);
    return NULL;
}

int lbio_control_start(lbio_t *io, lbio_problem_t *problem)
{
    io->stop = false;
    errno = lbio_thread_start(&io->control, control_main, io, "control", 0);
    if (errno != 0) {
        return lbio_object_problem(problem, &io->directory, "", "no control thread",
                                   "raise the limits of memory and threads");
    }
    return 0;
}

void lbio_control_stop(lbio_t *io)
{
    (void)pthread_mutex_lock(&io->lock);
    io->stop = true;
    (void)pthread_cond_signal(&io->stopped);
    (void)pthread_mutex_unlock(&io->lock);
    (void)pthread_join(io->control, NULL);
}

/* ---- What the watchdog sees ---- */

static lbio_watched_t look_at_worker(lbio_t *io, uint32_t index)
{
    lbio_worker_t *worker = &io->threads[index];
    /* One that sleeps in read() is woken by the control thread: without that it can do nothing. */
    bool sleeps_alone = __atomic_load_n(&worker->wake, __ATOMIC_RELAXED) < 0 &&
                        !__atomic_load_n(&worker->stop, __ATOMIC_ACQUIRE);
    return (lbio_watched_t){.tid = __atomic_load_n(&worker->tid, __ATOMIC_RELAXED),
                            .progress = __atomic_load_n(&worker->rounds, __ATOMIC_RELAXED),
                            .excused = sleeps_alone &&
                                       io->watched_rounds ==
                                           __atomic_load_n(&io->control_rounds, __ATOMIC_RELAXED),
                            .limit_ms = LBIO_PACKETS_LIMIT_MS};
}

/* Workers come first, then the control thread, whose rounds are kept for the next look at them. */
static lbio_watched_t look_at(void *context, uint32_t index)
{
    lbio_t *io = context;
    if (index < io->workers) {
        return look_at_worker(io, index);
    }
    io->watched_rounds = __atomic_load_n(&io->control_rounds, __ATOMIC_RELAXED);
    return (lbio_watched_t){.tid = __atomic_load_n(&io->control_tid, __ATOMIC_RELAXED),
                            .progress = io->watched_rounds,
                            .limit_ms = LBIO_CONTROL_LIMIT_MS};
}

int lbio_watch(lbio_t *io, lbio_problem_t *problem)
{
    io->watchdog = lbio_watchdog_start(look_at, io, io->workers + 1, &io->stalled);
    return io->watchdog != NULL ? 0
                                : lbio_object_problem(problem, &io->directory, "", "no watchdog",
                                                      "raise the limits of memory and threads");
}
