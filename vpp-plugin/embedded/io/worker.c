/* Packet threads: read a vector, process, write, and sleep when the queue is empty. */
#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Ageing wants a call at least every 100 ms; while packets flow, the clock is read anyway. */
#define TICK_BUSY_US 5000u
#define TICK_IDLE_MS 50

/* Buffers of a worker. With others it may have this many of its own at them, waiting in their rings. */
#define BUFFERS_ALONE  LBRL_VECTOR_MAX
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
        default: /* PASS too: written back, a packet that is not ours would return to us for ever */
            break;
        }
        lbio_buffer_return(worker->io->pools, worker->index, packet->buffer);
    }
    if (errors > 0) {
        __atomic_fetch_add(&worker->write_errors, errors, __ATOMIC_RELAXED);
    }
}

static void process(lbio_worker_t *worker, uint32_t count, uint64_t now_us)
{
    lbrl_process(worker->core, worker->packets, count, now_us);
    dispatch(worker, count);
    __atomic_store_n(&worker->vectors, worker->vectors + 1, __ATOMIC_RELAXED);
}

static void take_handed_over(lbio_worker_t *worker)
{
    uint32_t count;
    while ((count = lbrl_handover_take(worker->core, worker->packets, LBRL_VECTOR_MAX)) > 0) {
        process(worker, count, lbio_now_us());
    }
}

static void tick_if_due(lbio_worker_t *worker, uint64_t now_us, uint64_t due_us)
{
    if (now_us - worker->ticked_us >= due_us) {
        worker->ticked_us = now_us;
        lbrl_worker_tick(worker->core, now_us);
    }
}

static void wait_for_packets(lbio_worker_t *worker)
{
    struct pollfd waits[2] = {{.fd = worker->wake, .events = POLLIN},
                              {.fd = worker->queue, .events = POLLIN}};
    /* A device that is gone stays readable with an error: then only the event counts. */
    nfds_t count = worker->lost ? 1 : 2;
    int ready = poll(waits, count, TICK_IDLE_MS);
    if (ready > 0 && (waits[0].revents & POLLIN)) {
        uint64_t value;
        (void)!read(worker->wake, &value, sizeof(value));
        take_handed_over(worker);
    }
    if (ready <= 0) {
        tick_if_due(worker, lbio_now_us(), 0);
    }
}

static void *worker_main(void *argument)
{
    lbio_worker_t *worker = argument;
    lbio_pool_t *pool = &worker->io->pools[worker->index];
    while (!__atomic_load_n(&worker->stop, __ATOMIC_ACQUIRE)) {
        int drained = 1;
        int count = worker->lost ? 0
                                 : lbio_tun_read(worker->queue, pool, worker->packets,
                                                 LBRL_VECTOR_MAX, &drained);
        if (count > 0) {
            uint64_t now_us = lbio_now_us();
            process(worker, (uint32_t)count, now_us);
            tick_if_due(worker, now_us, TICK_BUSY_US);
        } else if (count < 0) {
            __atomic_store_n(&worker->lost, true, __ATOMIC_RELEASE);
        }
        if (count <= 0 || drained) {
            wait_for_packets(worker);
        }
    }
    return NULL;
}

static int worker_start(lbio_t *io, uint32_t index, int queue)
{
    lbio_worker_t *worker = &io->threads[index];
    uint32_t buffers = io->workers > 1 ? BUFFERS_SHARED : BUFFERS_ALONE;
    char name[16];
    memset(worker, 0, sizeof(*worker));
    worker->io = io;
    worker->core = lbrl_worker(io->core, index);
    worker->index = index;
    worker->queue = queue;
    worker->ticked_us = lbio_now_us();
    worker->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (worker->wake < 0 || lbio_pool_init(&io->pools[index], (uint16_t)index, buffers) != 0) {
        return -1;
    }
    (void)snprintf(name, sizeof(name), "packets-%u", index % LBIO_QUEUES_MAX);
    errno = lbio_thread_start(&worker->thread, worker_main, worker, name);
    worker->started = errno == 0;
    return worker->started ? 0 : -1;
}

int lbio_workers_start(lbio_t *io, const int *queues, lbio_problem_t *problem)
{
    for (uint32_t i = 0; i < io->workers; i++) {
        io->threads[i].wake = -1;
    }
    for (uint32_t i = 0; i < io->workers; i++) {
        if (worker_start(io, i, queues[i]) != 0) {
            (void)lbio_object_problem(problem, &io->directory, "", "no packet thread",
                                      "raise the limits of memory, files and threads");
            lbio_workers_stop(io);
            return -1;
        }
    }
    return 0;
}

void lbio_workers_stop(lbio_t *io)
{
    for (uint32_t i = 0; i < io->workers; i++) {
        lbio_worker_t *worker = &io->threads[i];
        __atomic_store_n(&worker->stop, true, __ATOMIC_RELEASE);
        if (worker->wake >= 0) {
            signal_event(worker->wake);
        }
    }
    for (uint32_t i = 0; i < io->workers; i++) {
        if (io->threads[i].started) {
            (void)pthread_join(io->threads[i].thread, NULL);
            io->threads[i].started = false;
        }
    }
    /* What is still in the rings belongs to pools that end now: nobody may take it later. */
    for (uint32_t i = 0; i < io->workers; i++) {
        lbio_worker_t *worker = &io->threads[i];
        while (worker->core != NULL &&
               lbrl_handover_take(worker->core, worker->packets, LBRL_VECTOR_MAX) > 0) {
        }
        if (worker->wake >= 0) {
            (void)close(worker->wake);
            worker->wake = -1;
        }
        lbio_pool_free(&io->pools[i]);
    }
}
