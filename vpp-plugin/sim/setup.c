#include "setup.h"

#include <stdlib.h>
#include <string.h>

#include "balancers.h"

static bool copy_table(sim_table_t *to, const sim_table_t *from, uint32_t columns)
{
    *to = (sim_table_t){NULL, from->count};
    if (from->count == 0) {
        return true;
    }
    size_t size = (size_t)from->count * columns * sizeof(double);
    double *rows = malloc(size);
    if (rows != NULL) {
        memcpy(rows, from->rows, size);
    }
    to->rows = rows;
    return rows != NULL;
}

/* Servers, classes and split are kept in a form of their own. */
static bool copy_environment(sim_engine_t *engine, const sim_environment_t *from)
{
    engine->environment = (sim_environment_t){.seed = from->seed, .warmup = from->warmup};
    sim_environment_t *to = &engine->environment;
    return copy_table(&to->rates, &from->rates, SIM_RATE_COLUMNS) &&
           copy_table(&to->trace, &from->trace, SIM_TRACE_COLUMNS) &&
           copy_table(&to->events, &from->events, SIM_EVENT_COLUMNS);
}

static bool allocate(sim_engine_t *engine)
{
    uint32_t servers = engine->server_count;
    engine->servers = calloc(servers, sizeof(*engine->servers));
    engine->classes = calloc(engine->class_count, sizeof(*engine->classes));
    engine->split_end = calloc(engine->balancer_count, sizeof(*engine->split_end));
    engine->balancers = (sim_balancer_t **)calloc(engine->balancer_count, sizeof(sim_balancer_t *));
    engine->states = calloc(servers, sizeof(*engine->states));
    engine->eligible = calloc(servers, sizeof(*engine->eligible));
    engine->weights = calloc(servers, sizeof(*engine->weights));
    return engine->servers && engine->classes && engine->split_end && engine->balancers &&
           engine->states && engine->eligible && engine->weights &&
           sim_tree_open(&engine->completions, servers);
}

/* Sums of shares; the last is 1 whatever the rounding, so every draw finds its place. */
static void prepare_shares(sim_engine_t *engine, const sim_environment_t *environment)
{
    double sum = 0;
    for (uint32_t i = 0; i < engine->balancer_count; i++) {
        engine->split_end[i] = sum += environment->split[i];
    }
    engine->split_end[engine->balancer_count - 1] = 1;
    sum = 0;
    for (uint32_t i = 0; i < engine->class_count; i++) {
        const double *row = environment->classes.rows + (size_t)i * SIM_CLASS_COLUMNS;
        sim_class_prepare(&engine->classes[i], row);
        engine->classes[i].share_end = sum += row[SIM_CLASS_SHARE];
    }
}

static bool prepare_servers(sim_engine_t *engine, const sim_environment_t *environment)
{
    sim_random_t phases;
    sim_random_seed(&phases, environment->seed, SIM_STREAM_PHASES);
    for (uint32_t i = 0; i < engine->server_count; i++) {
        const double *row = environment->servers.rows + (size_t)i * SIM_SERVER_COLUMNS;
        double phase = sim_unit(sim_random_next(&phases));
        if (!sim_server_open(&engine->servers[i], row, phase)) {
            return false;
        }
        engine->states[i] = row[SIM_SERVER_PRESENT] != 0 ? LBRL_BACKEND_ACTIVE : 0;
        engine->weights[i] = (float)row[SIM_SERVER_WEIGHT];
        engine->eligible[i] = engine->states[i] != 0 && engine->weights[i] > 0;
    }
    return true;
}

int sim_engine_open(sim_engine_t *engine, const sim_options_t *options,
                    const sim_environment_t *environment)
{
    engine->balancer_count = (uint32_t)environment->split_count;
    engine->server_count = (uint32_t)environment->servers.count;
    engine->class_count = (uint32_t)environment->classes.count;
    engine->rule = (sim_rule_t)options->rule;
    engine->record = options->record;
    engine->first_free = SIM_NOBODY;
    engine->now_us = sim_microseconds(0);
    engine->connection_seed = sim_stream(environment->seed, SIM_STREAM_CONNECTIONS);
    sim_random_seed(&engine->choice, environment->seed, SIM_STREAM_BALANCERS);
    sim_random_seed(&engine->ties, environment->seed, SIM_STREAM_TIES);
    if (!copy_environment(engine, environment) || !allocate(engine) ||
        !prepare_servers(engine, environment)) {
        return SIM_ERR_MEMORY;
    }
    prepare_shares(engine, environment);
    sim_arrivals_open(&engine->arrivals, &engine->environment);
    sim_scenario_schedule(engine);
    if (engine->rule != SIM_RULE_CORE) {
        engine->tick_next = INFINITY;
        return SIM_OK;
    }
    engine->tick_next = SIM_TICK_US * 1e-6;
    int error = sim_balancers_open(engine, options);
    return error == SIM_OK ? sim_exchange_open(engine, &options->sharing) : error;
}

static void close_environment(sim_environment_t *environment)
{
    free((void *)environment->rates.rows);
    free((void *)environment->trace.rows);
    free((void *)environment->events.rows);
}

void sim_engine_close(sim_engine_t *engine)
{
    sim_balancers_close(engine);
    for (uint32_t i = 0; engine->servers != NULL && i < engine->server_count; i++) {
        sim_server_close(&engine->servers[i]);
    }
    sim_tree_close(&engine->completions);
    sim_heap_free(&engine->delays);
    sim_exchange_close(&engine->exchange);
    close_environment(&engine->environment);
    free(engine->servers);
    free(engine->classes);
    free(engine->split_end);
    free((void *)engine->balancers);
    free(engine->states);
    free(engine->eligible);
    free(engine->weights);
    free(engine->connections);
    free(engine->records);
}
