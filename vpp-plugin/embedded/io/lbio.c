/* Life and control of an embedded data plane: what callers see, around the other files. */
#include "lbio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>

#include "internal.h"

#define DESCRIPTORS_LEFT 64 /* to all that is not an actions object */

static int init_lock(lbio_t *io)
{
    pthread_condattr_t attributes;
    if (pthread_mutex_init(&io->lock, NULL) != 0 || pthread_condattr_init(&attributes) != 0) {
        return -1;
    }
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    int error = pthread_cond_init(&io->stopped, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    return error == 0 ? 0 : -1;
}

static uint64_t descriptors_for_actions(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return UINT64_MAX;
    }
    return limit.rlim_cur > DESCRIPTORS_LEFT ? limit.rlim_cur - DESCRIPTORS_LEFT : 0;
}

static lbio_t *allocate(const lbio_config_t *config, lbio_problem_t *problem)
{
    lbio_t *io = NULL;
    if (config->workers >= 1 && config->workers <= LBIO_QUEUES_MAX && config->interval_ms > 0 &&
        strlen(config->instance_id) < LBIO_INSTANCE_MAX) {
        io = calloc(1, sizeof(*io));
    } else {
        (void)lbio_core_problem(problem, LBRL_ERR_INVALID, "configuration");
        return NULL;
    }
    lbio_worker_t *threads = io == NULL ? NULL : calloc(config->workers, sizeof(*threads));
    lbio_pool_t *pools = io == NULL ? NULL : calloc(config->workers, sizeof(*pools));
    if (threads == NULL || pools == NULL || init_lock(io) != 0) {
        free(threads);
        free(pools);
        free(io);
        (void)lbio_core_problem(problem, LBRL_ERR_MEMORY, "data plane");
        return NULL;
    }
    io->threads = threads;
    io->pools = pools;
    io->workers = config->workers;
    io->interval_ms = config->interval_ms;
    io->descriptors = descriptors_for_actions();
    io->arena = LBIO_OBJECT_NONE;
    io->directory.fd = -1;
    io->stalled = -1;
    (void)snprintf(io->instance_id, sizeof(io->instance_id), "%s", config->instance_id);
    return io;
}

static int open_parts(lbio_t *io, const lbio_config_t *config, lbrl_attach_report_t *report,
                      lbio_problem_t *problem)
{
    lbrl_config_t core = {.flows = config->flows,
                          .vips = config->vips,
                          .slots = config->slots,
                          .workers = config->workers,
                          .grace_ms = config->grace_ms,
                          .holds = 1, /* the threads of this folder and VPP's nodes do */
                          .now_us = lbio_now_us()};
    memcpy(core.boot_id, config->boot_id, sizeof(core.boot_id));
    if (getrandom(core.seed, sizeof(core.seed), 0) != (ssize_t)sizeof(core.seed)) {
        return lbio_object_problem(problem, &io->directory, "", "no randomness", "try again");
    }
    if (lbio_directory_open(&io->directory, config->directory, config->group, problem) != 0 &&
        !lbio_is_shortage(problem)) {
        return -1;
    }
    if (lbio_arena_open(io, &core, report, problem) != 0) {
        return -1;
    }
    return lbio_vips_adopt(io, problem);
}

int lbio_open(lbio_t **out, const lbio_config_t *config, lbrl_attach_report_t *report,
              lbio_problem_t *problem)
{
    lbrl_attach_report_t unasked;
    lbio_t *io = allocate(config, problem);
    if (io == NULL) {
        return -1;
    }
    if (open_parts(io, config, report != NULL ? report : &unasked, problem) != 0) {
        lbio_close(io);
        return -1;
    }
    *out = io;
    return 0;
}

int lbio_start(lbio_t *io, const int *queues, uint32_t count, lbio_problem_t *problem)
{
    if (io->running || count != io->workers) {
        return lbio_core_problem(problem, LBRL_ERR_INVALID, "queues");
    }
    if (lbio_workers_start(io, queues, problem) != 0) {
        return -1;
    }
    if (lbio_control_start(io, problem) != 0) {
        lbio_workers_stop(io);
        return -1;
    }
    io->running = true;
    if (lbio_watch(io, problem) != 0) {
        lbio_stop(io);
        return -1;
    }
    return 0;
}

lbrl_t *lbio_core(lbio_t *io)
{
    return io->core;
}

void lbio_stop(lbio_t *io)
{
    if (io->running) {
        io->running = false;
        lbio_control_stop(io);
        lbio_workers_stop(io);
        lbio_watchdog_stop(io->watchdog);
        io->watchdog = NULL;
    }
}

void lbio_close(lbio_t *io)
{
    lbio_stop(io);
    if (io->core != NULL) {
        lbrl_close(io->core);
    }
    lbio_vips_free(io);
    lbio_arena_leave(io);
    lbio_object_release(&io->arena);
    lbio_directory_close(&io->directory);
    (void)pthread_cond_destroy(&io->stopped);
    (void)pthread_mutex_destroy(&io->lock);
    free(io->scratch);
    free(io->threads);
    free(io->pools);
    free(io);
}

void lbio_withdraw(lbio_t *io)
{
    lbio_stop(io);
    lbio_vips_unlink(io);
    lbio_arena_forget(io);
    lbio_close(io);
}

/* ---- Control and status ---- */

int lbio_sources_set(lbio_t *io, const lbrl_nat_source_t *sources, uint32_t count,
                     lbio_problem_t *problem)
{
    (void)pthread_mutex_lock(&io->lock);
    int error = lbrl_sources_set(io->core, sources, count);
    (void)pthread_mutex_unlock(&io->lock);
    return error == LBRL_OK ? 0 : lbio_core_problem(problem, error, "NAT sources");
}

int lbio_node_set(lbio_t *io, const uint8_t scheduler_key[16], uint32_t nodes,
                  lbio_problem_t *problem)
{
    (void)pthread_mutex_lock(&io->lock);
    int error = lbrl_node_set(io->core, scheduler_key, nodes);
    (void)pthread_mutex_unlock(&io->lock);
    return error == LBRL_OK ? 0 : lbio_core_problem(problem, error, "scheduler key");
}

void lbio_publish(lbio_t *io)
{
    (void)pthread_mutex_lock(&io->lock);
    lbrl_publish(io->core, lbio_now_us());
    (void)pthread_mutex_unlock(&io->lock);
}

uint32_t lbio_vip_ids(lbio_t *io, uint64_t *ids, uint32_t max)
{
    (void)pthread_mutex_lock(&io->lock);
    uint32_t count = lbrl_vip_ids(io->core, ids, max);
    (void)pthread_mutex_unlock(&io->lock);
    return count;
}

int lbio_vip_status(lbio_t *io, uint64_t id, lbio_vip_status_t *status,
                    lbrl_backend_status_t *backends, uint32_t max, lbio_problem_t *problem)
{
    (void)pthread_mutex_lock(&io->lock);
    memset(status, 0, sizeof(*status));
    int error = lbrl_vip_status(io->core, id, &status->core, backends, max);
    const lbio_vip_t *vip = lbio_vip_find(io, id);
    if (vip != NULL) {
        status->actions_refused = vip->refused;
        status->actions_error = vip->refusal;
    }
    (void)pthread_mutex_unlock(&io->lock);
    lbio_vip_name(status->frames, id, "frames");
    lbio_vip_name(status->actions, id, "actions");
    return error == LBRL_OK ? 0 : lbio_core_problem(problem, error, "VIP");
}

int lbio_stalled(const lbio_t *io)
{
    return __atomic_load_n(&io->stalled, __ATOMIC_RELAXED);
}

void lbio_stats(lbio_t *io, lbio_stats_t *stats)
{
    memset(stats, 0, sizeof(*stats));
    (void)pthread_mutex_lock(&io->lock);
    lbrl_stats(io->core, &stats->core);
    stats->heartbeat_us = io->heartbeat_us;
    stats->arena_kept = !io->arena.is_private;
    stats->arena = io->private_problem;
    stats->unshown = lbio_vips_unshown(io);
    stats->shortage = io->shortage;
    (void)pthread_mutex_unlock(&io->lock);
    stats->running = io->running;
    for (uint32_t i = 0; i < io->workers; i++) {
        const lbio_worker_t *worker = &io->threads[i];
        stats->vectors += __atomic_load_n(&worker->vectors, __ATOMIC_RELAXED);
        stats->write_errors += __atomic_load_n(&worker->write_errors, __ATOMIC_RELAXED);
        stats->queue_lost |= __atomic_load_n(&worker->lost, __ATOMIC_ACQUIRE);
    }
}
