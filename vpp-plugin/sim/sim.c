#include "lbsim/sim.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "balancers.h"
#include "batch.h"
#include "setup.h"
#include "validate.h"

/* Bounds of a batch as a whole: arrays of 16 MiB for a column of results. */
#define CELLS_MAX     (1u << 21) /* environments x balancers x servers */
#define BALANCERS_MAX (1u << 13) /* environments x balancers */

/* ---- Life ---- */

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static int check_size(const sim_results_t *size, sim_problem_t *problem)
{
    uint64_t balancers = (uint64_t)size->environments * size->balancers;
    if (balancers > BALANCERS_MAX || balancers * size->servers > CELLS_MAX) {
        return sim_problem_set(problem, SIM_ERR_INVALID,
                               "environments: %u of up to %u balancers and %u servers; must be at "
                               "most %u balancers and %u pairs of balancer and server in all",
                               size->environments, size->balancers, size->servers, BALANCERS_MAX,
                               CELLS_MAX);
    }
    return SIM_OK;
}

static int check(sim_results_t *size, const sim_options_t *options,
                 const sim_environment_t *environments, uint32_t count, sim_problem_t *problem)
{
    int error = sim_check_options(options, problem);
    if (error != SIM_OK) {
        return error;
    }
    if (count == 0 || count > SIM_ENVIRONMENTS_MAX) {
        return sim_problem_set(problem, SIM_ERR_INVALID, "environments: are %u; must be 1 to %u",
                               count, SIM_ENVIRONMENTS_MAX);
    }
    *size = (sim_results_t){.environments = count};
    for (uint32_t i = 0; i < count; i++) {
        error = sim_check_environment(&environments[i], i, problem);
        if (error != SIM_OK) {
            return error;
        }
        size->balancers = larger(size->balancers, (uint32_t)environments[i].split_count);
        size->servers = larger(size->servers, (uint32_t)environments[i].servers.count);
    }
    return check_size(size, problem);
}

static size_t cells(const sim_t *sim)
{
    return (size_t)sim->results.environments * sim->results.balancers * sim->results.servers;
}

static bool allocate(sim_t *sim)
{
    uint32_t count = sim->results.environments;
    sim->engines = calloc(count, sizeof(*sim->engines));
    sim->completed = calloc(cells(sim), sizeof(*sim->completed));
    sim->failures = calloc(cells(sim), sizeof(*sim->failures));
    sim->duration = calloc(cells(sim), sizeof(*sim->duration));
    sim->refused = calloc((size_t)count * sim->results.balancers, sizeof(*sim->refused));
    sim->busy = calloc((size_t)count * sim->results.servers, sizeof(*sim->busy));
    sim->offered = calloc((size_t)count * sim->results.servers, sizeof(*sim->offered));
    sim->results.completed = sim->completed;
    sim->results.failed = sim->failures;
    sim->results.duration = sim->duration;
    sim->results.refused = sim->refused;
    sim->results.busy = sim->busy;
    sim->results.offered = sim->offered;
    return sim->engines && sim->completed && sim->failures && sim->duration && sim->refused &&
           sim->busy && sim->offered;
}

/* The engine writes its results into its rows of the batch. */
static void bind_engine(sim_t *sim, uint32_t number)
{
    sim_engine_t *engine = &sim->engines[number];
    size_t row = (size_t)number * sim->results.balancers;
    engine->stride = sim->results.servers;
    engine->completed = sim->completed + row * engine->stride;
    engine->failed = sim->failures + row * engine->stride;
    engine->duration = sim->duration + row * engine->stride;
    engine->refused = sim->refused + row;
}

static int open_engines(sim_t *sim, const sim_environment_t *environments, sim_problem_t *problem)
{
    for (uint32_t i = 0; i < sim->results.environments; i++) {
        int error = sim_engine_open(&sim->engines[i], &sim->options, &environments[i]);
        if (error != SIM_OK) {
            return sim_problem_set(problem, error, "environments[%u]: %s", i,
                                   error == SIM_ERR_MEMORY ? "no memory" : "the core refused it");
        }
        bind_engine(sim, i);
    }
    return SIM_OK;
}

int sim_create(sim_t **out, const sim_options_t *options, const sim_environment_t *environments,
               uint32_t count, sim_problem_t *problem)
{
    sim_results_t size;
    *out = NULL;
    int error = check(&size, options, environments, count, problem);
    if (error != SIM_OK) {
        return error;
    }
    sim_t *sim = calloc(1, sizeof(*sim));
    if (sim == NULL) {
        return sim_problem_set(problem, SIM_ERR_MEMORY, "no memory");
    }
    sim->results = size;
    sim->options = *options;
    error = allocate(sim) ? open_engines(sim, environments, problem)
                          : sim_problem_set(problem, SIM_ERR_MEMORY, "no memory");
    if (error == SIM_OK && !sim_frames_open(sim)) {
        error = sim_problem_set(problem, SIM_ERR_MEMORY, "no memory");
    }
    if (error != SIM_OK) {
        sim_destroy(sim);
        return error;
    }
    *out = sim;
    return SIM_OK;
}

void sim_destroy(sim_t *sim)
{
    if (sim == NULL) {
        return;
    }
    for (uint32_t i = 0; sim->engines != NULL && i < sim->results.environments; i++) {
        sim_engine_close(&sim->engines[i]);
    }
    sim_frames_close(sim);
    free(sim->engines);
    free(sim->completed);
    free(sim->failures);
    free(sim->duration);
    free(sim->refused);
    free(sim->busy);
    free(sim->offered);
    free(sim);
}

/* ---- Time ---- */

/* Accounts at `time`, without any change to the servers: results do not depend on how often they are
 * read. */
static void publish_accounts(sim_t *sim, uint32_t number, double time)
{
    const sim_engine_t *engine = &sim->engines[number];
    size_t row = (size_t)number * sim->results.servers;
    for (uint32_t i = 0; engine->warm && i < engine->server_count; i++) {
        const sim_server_t *server = &engine->servers[i];
        sim->busy[row + i] = server->busy + server->use * (time - server->now);
        sim->offered[row + i] = server->offered + server->offer * (time - server->now);
    }
}

typedef struct job {
    sim_t *sim;
    sim_work_t work;
    void *argument;
} job_t;

static void *run_job(void *argument)
{
    const job_t *job = argument;
    sim_t *sim = job->sim;
    for (;;) {
        uint32_t number = __atomic_fetch_add(&sim->next, 1, __ATOMIC_RELAXED);
        if (number >= sim->results.environments) {
            return NULL;
        }
        job->work(sim, number, job->argument);
    }
}

/* The calling thread works too. Where no further thread can be started, those that there are do all. */
void sim_for_each(sim_t *sim, sim_work_t work, void *argument)
{
    pthread_t threads[SIM_THREADS_MAX];
    job_t job = {sim, work, argument};
    uint32_t wanted = sim->options.threads, started = 0;
    if (wanted > sim->results.environments) {
        wanted = sim->results.environments;
    }
    sim->next = 0;
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, run_job, &job) == 0) {
        started++;
    }
    run_job(&job);
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void advance_one(sim_t *sim, uint32_t number, void *argument)
{
    double until = *(const double *)argument;
    sim_engine_t *engine = &sim->engines[number];
    sim_engine_advance(engine, until);
    publish_accounts(sim, number, until);
    if (engine->rule == SIM_RULE_CORE && engine->error == SIM_OK) {
        sim_balancers_observe(engine);
    }
}

static void clear_step(sim_t *sim)
{
    size_t count = cells(sim);
    memset(sim->completed, 0, count * sizeof(*sim->completed));
    memset(sim->failures, 0, count * sizeof(*sim->failures));
    memset(sim->duration, 0, count * sizeof(*sim->duration));
    memset(sim->refused, 0,
           (size_t)sim->results.environments * sim->results.balancers * sizeof(*sim->refused));
}

/* Of several errors that of the first environment: it does not depend on threads. */
static int first_error(sim_t *sim, sim_problem_t *problem)
{
    for (uint32_t i = 0; i < sim->results.environments; i++) {
        const sim_engine_t *engine = &sim->engines[i];
        if (engine->error != SIM_OK) {
            sim->failed = true;
            return sim_problem_set(problem, engine->error, "environments[%u]: at %.6f s: %s", i,
                                   engine->now, engine->cause);
        }
    }
    return SIM_OK;
}

int sim_advance(sim_t *sim, double until, sim_problem_t *problem)
{
    if (sim->failed) {
        return sim_problem_set(problem, SIM_ERR_INVALID,
                               "the simulation has ended with an error; make a new one");
    }
    if (!(until >= sim->time && until <= SIM_TIME_MAX)) {
        return sim_problem_set(problem, SIM_ERR_INVALID,
                               "until: is %.10g; must be a number from %.10g to %.10g", until,
                               sim->time, SIM_TIME_MAX);
    }
    clear_step(sim);
    sim_for_each(sim, advance_one, &until);
    sim->time = until;
    return first_error(sim, problem);
}

/* ---- Results ---- */

double sim_time(const sim_t *sim)
{
    return sim->time;
}

const sim_results_t *sim_results(const sim_t *sim)
{
    return &sim->results;
}

const sim_record_t *sim_records(const sim_t *sim, uint32_t environment, uint64_t *count)
{
    *count = sim->engines[environment].record_count;
    return sim->engines[environment].records;
}

sim_totals_t sim_totals(const sim_t *sim)
{
    sim_totals_t sum = {0};
    for (uint32_t i = 0; i < sim->results.environments; i++) {
        const sim_totals_t *totals = &sim->engines[i].totals;
        sum.arrivals += totals->arrivals;
        sum.completions += totals->completions;
        sum.delays += totals->delays;
        sum.others += totals->others;
    }
    return sum;
}
