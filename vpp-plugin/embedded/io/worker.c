/*
 * Packet threads: read a vector, process, write, and sleep when the queue is empty.
 *
 * One thread alone sleeps in read() itself: of all ways to wait for a packet the one with the fewest system
 * calls and timers. Threads of several queues sleep in poll(), because packets are handed over to them too.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Ageing wants a call at least every 100 ms; while packets flow, the clock is read anyway. */
#define TICK_BUSY_US 5000u

/* Most vectors of one packet between two looks for a second one. */
#define PATIENCE_MAX 7u

/* Buffers of a worker: of a vector, and of fragments that wait for their first. With others it may have this many of its own
 * at them, waiting in their rings. */
#define BUFFERS_ALONE  (LBRL_VECTOR_MAX + LBRL_HELD_MAX)
#define BUFFERS_SHARED (8u * LBRL_VECTOR_MAX)

static void signal_event(int event)
{
    uint64_t one = 1;
    /* Fails only when the counter is full, and then the other side wakes up anyway. */
    (void)!write(event, &one, sizeof(one));
}

static void hand_over(lbio_worker_t *worker, lbrl_packet_t *packet, uint64_t *woken)
{
    lbio_t *io = worker->io;
    uint32_t owner = packet->worker;
    if (lbrl_handover(worker->core, packet) != 0) {
        lbio_buffer_return(io->pools, worker->index, packet->buffer);
        return;
    }
    if ((*woken >> owner & 1u) == 0) {
        *woken |= (uint64_t)1 << owner;
        signal_event(io->threads[owner].wake);
    }
}

/* Acts on the verdicts of a processed vector. */
static void dispatch(lbio_worker_t *worker, uint32_t count)
{
    uint64_t errors = 0;
    uint64_t woken = 0;
    for (uint32_t i = 0; i < count; i++) {
        lbrl_packet_t *packet = &worker->packets[i];
        switch (packet->verdict) {
        case LBRL_VERDICT_FORWARD:
        case LBRL_VERDICT_REPLY:
            errors += lbio_tun_write(worker->queue, packet) != 0;
            break;
        case LBRL_VERDICT_HANDOVER:
            hand_over(worker, packet, &woken);
            continue; /* the buffer travels */
        case LBRL_VERDICT_HOLD:
            continue; /* the buffer waits */
        default: /* PASS too: written back, a packet that is not ours would return to us for ever */
            break;
        }
        lbio_buffer_return(worker->io->pools, worker->index, packet->buffer);
    }
    if (errors > 0) {
        __atomic_fetch_add(&worker->write_errors, errors, __ATOMIC_RELAXED);
    }
}

static void process_vector(lbio_worker_t *worker, uint32_t count, uint64_t now_us)
{
    lbrl_process(worker->core, worker->packets, count, now_us);
    dispatch(worker, count);
    __atomic_store_n(&worker->vectors, worker->vectors + 1, __ATOMIC_RELAXED);
}

/* Fragments that need not wait any longer. */
static void take_held(lbio_worker_t *worker, uint64_t now_us)
{
    uint32_t count;
    while ((count = lbrl_held_take(worker->core, worker->packets, LBRL_VECTOR_MAX, now_us)) > 0) {
        process_vector(worker, count, now_us);
    }
}

static void process(lbio_worker_t *worker, uint32_t count, uint64_t now_us)
{
    process_vector(worker, count, now_us);
    take_held(worker, now_us);
}

static void take_handed_over(lbio_worker_t *worker)
{
    uint32_t count;
    while ((count = lbrl_handover_take(worker->core, worker->packets, LBRL_VECTOR_MAX)) > 0) {
        __atomic_store_n(&worker->rounds, worker->rounds + 1, __ATOMIC_RELAXED);
        process(worker, count, lbio_now_us());
    }
}

static void tick_if_due(lbio_worker_t *worker, uint64_t now_us, uint64_t due_us)
{
    if (now_us - worker->ticked_us >= due_us) {
        __atomic_store_n(&worker->ticked_us, now_us, __ATOMIC_RELAXED);
        lbrl_worker_tick(worker->core, now_us);
        take_held(worker, now_us);
    }
}

static bool is_alone(const lbio_worker_t *worker)
{
    return worker->wake < 0;
}

/* A look at an empty queue is a system call for nothing: where packets come one by one, look ever less. */
static lbio_read_t how_to_read(lbio_worker_t *worker)
{
    if (!is_alone(worker)) {
        return LBIO_READ_READY;
    }
    if (worker->unlooked > 0) {
        worker->unlooked--;
        return LBIO_READ_WAIT_ONE;
    }
    return LBIO_READ_WAIT_MANY;
}

static void learn(lbio_worker_t *worker, lbio_read_t how, int count)
{
    if (how == LBIO_READ_WAIT_MANY) {
        uint32_t more = 2 * worker->patience + 1;
        worker->patience = count > 1 ? 0 : (more < PATIENCE_MAX ? more : PATIENCE_MAX);
        worker->unlooked = worker->patience;
    }
}

/* Where the queue is empty, or gone: then only being stopped matters. */
static void wait_for_packets(lbio_worker_t *worker)
{
    if (is_alone(worker)) {
        if (worker->lost) {
            (void)poll(NULL, 0, LBIO_NUDGE_MS);
        }
        tick_if_due(worker, lbio_now_us(), TICK_BUSY_US);
        return;
    }
    struct pollfd waits[2] = {{.fd = worker->wake, .events = POLLIN},
                              {.fd = worker->queue, .events = POLLIN}};
    int ready = poll(waits, worker->lost ? 1 : 2, LBIO_NUDGE_MS);
    if (ready > 0 && (waits[0].revents & POLLIN)) {
        uint64_t value;
        (void)!read(worker->wake, &value, sizeof(value));
        take_handed_over(worker);
    }
    tick_if_due(worker, lbio_now_us(), TICK_BUSY_US); /* also where all packets come from others */
}

static void *worker_main(void *argument)
{
    lbio_worker_t *worker = argument;
    lbio_pool_t *pool = &worker->io->pools[worker->index];
    __atomic_store_n(&worker->tid, gettid(), __ATOMIC_RELAXED);
    while (!__atomic_load_n(&worker->stop, __ATOMIC_ACQUIRE)) {
        __atomic_store_n(&worker->rounds, worker->rounds + 1, __ATOMIC_RELAXED);
        bool drained = true;
        int count = 0;
        if (!worker->lost) {
            lbio_read_t how = how_to_read(worker);
            count =
                lbio_tun_read(worker->queue, how, pool, worker->packets, LBRL_VECTOR_MAX, &drained);
            learn(worker, how, count);
        }
        if (count > 0) {
            uint64_t now_us = lbio_now_us();
            process(worker, (uint32_t)count, now_us);
            tick_if_due(worker, now_us, TICK_BUSY_US);
        } else if (count < 0) {
            __atomic_store_n(&worker->lost, true, __ATOMIC_RELEASE);
        }
        if (count <= 0 || (drained && !is_alone(worker))) {
            wait_for_packets(worker);
        }
    }
    __atomic_store_n(&worker->tid, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&worker->ended, true, __ATOMIC_RELEASE);
    return NULL;
}

/* ---- Starting and stopping ---- */

static void woken(int signal)
{
    (void)signal; /* it has ended a read(): that is all */
}

static int prepare_queue(lbio_worker_t *worker, bool alone)
{
    int flags = fcntl(worker->queue, F_GETFL);
    if (flags < 0) {
        return -1;
    }
    if (alone) {
        struct sigaction action = {.sa_handler = woken}; /* no SA_RESTART */
        worker->wake = -1;
        return sigaction(LBIO_SIGNAL, &action, NULL) == 0
                   ? fcntl(worker->queue, F_SETFL, flags & ~O_NONBLOCK)
                   : -1;
    }
    worker->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return worker->wake < 0 ? -1 : fcntl(worker->queue, F_SETFL, flags | O_NONBLOCK);
}

static int prepare(lbio_t *io, uint32_t index, int queue)
{
    lbio_worker_t *worker = &io->threads[index];
    uint32_t buffers = io->workers > 1 ? BUFFERS_SHARED : BUFFERS_ALONE;
    memset(worker, 0, sizeof(*worker));
    worker->io = io;
    worker->core = lbrl_worker(io->core, index);
    worker->index = index;
    worker->queue = queue;
    worker->wake = -1;
    worker->ticked_us = lbio_now_us();
    return prepare_queue(worker, io->workers == 1) == 0
               ? lbio_pool_init(&io->pools[index], (uint16_t)index, buffers)
               : -1;
}

static int start(lbio_worker_t *worker)
{
    char name[16];
    (void)snprintf(name, sizeof(name), "packets-%u", worker->index % LBIO_QUEUES_MAX);
    errno = lbio_thread_start(&worker->thread, worker_main, worker, name,
                              is_alone(worker) ? LBIO_SIGNAL : 0);
    worker->started = errno == 0;
    return worker->started ? 0 : -1;
}

int lbio_workers_start(lbio_t *io, const int *queues, lbio_problem_t *problem)
{
    int done = 0;
    for (uint32_t i = 0; i < io->workers; i++) {
        io->threads[i].wake = -1;
    }
    /* All before any starts: the first may at once hand packets to the last, and wake it. */
    for (uint32_t i = 0; done == 0 && i < io->workers; i++) {
        done = prepare(io, i, queues[i]);
    }
    for (uint32_t i = 0; done == 0 && i < io->workers; i++) {
        done = start(&io->threads[i]);
    }
    if (done != 0) {
        (void)lbio_object_problem(problem, &io->directory, "", "no packet thread",
                                  "raise the limits of memory, files and threads");
        lbio_workers_stop(io);
    }
    return done;
}

void lbio_workers_nudge(lbio_t *io, uint64_t now_us)
{
    for (uint32_t i = 0; i < io->workers; i++) {
        const lbio_worker_t *worker = &io->threads[i];
        uint64_t ticked_us = __atomic_load_n(&worker->ticked_us, __ATOMIC_RELAXED);
        if (is_alone(worker) && ticked_us + LBIO_NUDGE_MS * 1000u / 2 < now_us) {
            (void)pthread_kill(worker->thread, LBIO_SIGNAL);
        }
    }
}

static void end_thread(lbio_worker_t *worker)
{
    __atomic_store_n(&worker->stop, true, __ATOMIC_RELEASE);
    if (!is_alone(worker)) {
        signal_event(worker->wake);
    }
    /* The signal may come just before the read() that it is to end: then it takes another. */
    while (is_alone(worker) && !__atomic_load_n(&worker->ended, __ATOMIC_ACQUIRE)) {
        (void)pthread_kill(worker->thread, LBIO_SIGNAL);
        (void)poll(NULL, 0, 1);
    }
    (void)pthread_join(worker->thread, NULL);
    worker->started = false;
}

void lbio_workers_stop(lbio_t *io)
{
    for (uint32_t i = 0; i < io->workers; i++) {
        if (io->threads[i].started) {
            end_thread(&io->threads[i]);
        }
    }
    /* What is still in the rings, or held, belongs to pools that end now: nobody may take it later. */
    for (uint32_t i = 0; i < io->workers; i++) {
        lbio_worker_t *worker = &io->threads[i];
        while (worker->core != NULL &&
               (lbrl_handover_take(worker->core, worker->packets, LBRL_VECTOR_MAX) > 0 ||
                lbrl_held_take(worker->core, worker->packets, LBRL_VECTOR_MAX, UINT64_MAX) > 0)) {
        }
        if (worker->wake >= 0) {
            (void)close(worker->wake);
            __atomic_store_n(&worker->wake, -1, __ATOMIC_RELAXED); /* the watchdog still reads it */
        }
        lbio_pool_free(&io->pools[i]);
    }
}
