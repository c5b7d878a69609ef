/* Epochs, from a worker's side. Between enter and leave everything that was published stays where it is. */
#ifndef LBRL_WORKER_H
#define LBRL_WORKER_H

#include "internal.h"

static inline void worker_enter(lbrl_worker_t *worker, uint64_t now_us)
{
    uint64_t epoch = __atomic_load_n(&worker->lb->epoch, __ATOMIC_ACQUIRE);
    /* the store must be seen before the table is read: the control thread looks in the opposite order */
    __atomic_store_n(&worker->epoch, epoch, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    worker->table = __atomic_load_n(&worker->lb->table, __ATOMIC_ACQUIRE);
    worker->now_us = now_us;
    worker->now_ms = (uint32_t)(now_us / 1000);
    worker->vector++;
}

static inline void worker_leave(lbrl_worker_t *worker)
{
    __atomic_store_n(&worker->epoch, 0, __ATOMIC_RELEASE);
}

#endif
