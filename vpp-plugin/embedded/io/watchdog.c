#include "watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define US_PER_MS 1000u

/* A look that is later than this says that the whole process was stopped, or that the machine is overloaded. */
#define LATE_US (2u * LBIO_WATCH_TICK_MS * US_PER_MS)

struct lbio_watchdog {
    lbio_look_t *look;
    void *context;
    uint32_t count;
    lbio_patience_t patience[LBIO_WATCHED_MAX];
    int *stalled; /* read by others */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t stopped;
    bool stop; /* under `lock` */
};

/* ---- One thread ---- */

void lbio_patience_look(lbio_patience_t *patience, const lbio_watched_t *seen, char state,
                        uint64_t ran_us, uint64_t tick_us)
{
    uint64_t ran = ran_us > patience->ran_us ? ran_us - patience->ran_us : 0;
    bool same = patience->tid == seen->tid && patience->progress == seen->progress;
    patience->tid = seen->tid;
    patience->progress = seen->progress;
    patience->ran_us = ran_us;
    if (!same || seen->tid == 0) {
        patience->stalled_us = 0;
    } else if (seen->excused || tick_us > LATE_US) {
        /* not its fault, or not known */
    } else if (state == 'R') {
        patience->stalled_us += ran < tick_us ? ran : tick_us;
    } else {
        patience->stalled_us += tick_us;
    }
}

/* Reads state and processor time of a thread of this process. Returns false if it is gone. */
static bool read_thread(int tid, char *state, uint64_t *ran_us)
{
    char path[64];
    char text[512];
    unsigned long user;
    unsigned long system;
    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    /* NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection): /proc answers at once */
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0) {
        (void)close(fd);
    }
    if (size <= 0) {
        return false;
    }
    text[size] = '\0';
    const char *rest = strrchr(text, ')'); /* the name before it may hold anything */
    /* state, 10 fields, utime, stime */
    if (rest == NULL || sscanf(rest, ") %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lu %lu", state,
                               &user, &system) != 3) {
        return false;
    }
    *ran_us = (user + system) * (1000000u / (uint64_t)sysconf(_SC_CLK_TCK));
    return true;
}

static void read_name(int tid, char *out, size_t size)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/comm", tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    /* NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection): /proc answers at once */
    ssize_t got = fd < 0 ? -1 : read(fd, out, size - 1);
    if (fd >= 0) {
        (void)close(fd);
    }
    out[got > 0 ? got - 1 : 0] = '\0'; /* without the newline */
}

static _Noreturn void end_process(const lbio_patience_t *patience)
{
    char name[32];
    read_name(patience->tid, name, sizeof(name));
    (void)dprintf(STDERR_FILENO,
                  "watchdog: thread %s (%d) has made no progress for %u ms: aborting the process, "
                  "to be started again\n",
                  name, patience->tid, (unsigned)(patience->stalled_us / US_PER_MS));
    (void)signal(SIGABRT, SIG_DFL); /* VPP's own handler might wait for the thread that is stuck */
    abort();
}

/* ---- All of them ---- */

static void look_at_all(lbio_watchdog_t *watchdog, uint64_t tick_us)
{
    int stalled = -1;
    for (uint32_t i = 0; i < watchdog->count; i++) {
        lbio_patience_t *patience = &watchdog->patience[i];
        lbio_watched_t seen = watchdog->look(watchdog->context, i);
        char state = 'R';
        uint64_t ran_us = 0;
        if (seen.tid != 0 && !read_thread(seen.tid, &state, &ran_us)) {
            seen.tid = 0;
        }
        lbio_patience_look(patience, &seen, state, ran_us, tick_us);
        if (patience->stalled_us >= LBIO_STALLED_MS * US_PER_MS) {
            stalled = (int)i;
        }
        /* A thread in an uninterruptible wait would keep the process from ending. */
        if (patience->stalled_us >= (uint64_t)seen.limit_ms * US_PER_MS && seen.tid != 0 &&
            state != 'D') {
            end_process(patience);
        }
    }
    __atomic_store_n(watchdog->stalled, stalled, __ATOMIC_RELAXED);
}

static uint64_t monotonic_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static void sleep_for_tick(lbio_watchdog_t *watchdog)
{
    struct timespec due;
    (void)clock_gettime(CLOCK_MONOTONIC, &due);
    due.tv_nsec += LBIO_WATCH_TICK_MS * 1000000L;
    due.tv_sec += due.tv_nsec / 1000000000L;
    due.tv_nsec %= 1000000000L;
    while (!watchdog->stop &&
           pthread_cond_timedwait(&watchdog->stopped, &watchdog->lock, &due) == 0) {
    }
}

static void *watchdog_main(void *argument)
{
    lbio_watchdog_t *watchdog = argument;
    uint64_t before_us = monotonic_us();
    (void)pthread_mutex_lock(&watchdog->lock);
    while (!watchdog->stop) {
        sleep_for_tick(watchdog);
        uint64_t now_us = monotonic_us();
        look_at_all(watchdog, now_us - before_us);
        before_us = now_us;
    }
    (void)pthread_mutex_unlock(&watchdog->lock);
    return NULL;
}

static int init(lbio_watchdog_t *watchdog)
{
    pthread_condattr_t attributes;
    int error = pthread_mutex_init(&watchdog->lock, NULL);
    error = error != 0 ? error : pthread_condattr_init(&attributes);
    if (error == 0) {
        (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        error = pthread_cond_init(&watchdog->stopped, &attributes);
        (void)pthread_condattr_destroy(&attributes);
    }
    return error != 0
               ? error
               : lbio_thread_start(&watchdog->thread, watchdog_main, watchdog, "watchdog", 0);
}

lbio_watchdog_t *lbio_watchdog_start(lbio_look_t *look, void *context, uint32_t count, int *stalled)
{
    lbio_watchdog_t *watchdog = count <= LBIO_WATCHED_MAX ? calloc(1, sizeof(*watchdog)) : NULL;
    if (watchdog == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    watchdog->look = look;
    watchdog->context = context;
    watchdog->count = count;
    watchdog->stalled = stalled;
    __atomic_store_n(stalled, -1, __ATOMIC_RELAXED);
    int error = init(watchdog);
    if (error != 0) {
        free(watchdog);
        errno = error;
        return NULL;
    }
    return watchdog;
}

void lbio_watchdog_stop(lbio_watchdog_t *watchdog)
{
    if (watchdog == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&watchdog->lock);
    watchdog->stop = true;
    (void)pthread_cond_signal(&watchdog->stopped);
    (void)pthread_mutex_unlock(&watchdog->lock);
    (void)pthread_join(watchdog->thread, NULL);
    __atomic_store_n(watchdog->stalled, -1, __ATOMIC_RELAXED);
    (void)pthread_cond_destroy(&watchdog->stopped);
    (void)pthread_mutex_destroy(&watchdog->lock);
    free(watchdog);
}
