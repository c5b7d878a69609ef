#include "balancers.h"

#include <math.h>

/* ---- Flow tables ----
 *
 * A table that is too small refuses connections, one that is too large costs cache misses and memory:
 * 100 to 200 bytes per flow, each of which ageing looks at once a second. */
#define FLOWS_MIN 1024u
#define FLOWS_MAX (1u << 18)

/* Seconds for which a flow is open beyond pauses of its client, in service and in queues, under heavy
 * overload too. Closed flows need no room of their own: their entries are taken where it is short. */
#define HELD_SECONDS 3.0

static double mean_life(const sim_engine_t *engine)
{
    double sum = 0, before = 0;
    for (uint32_t i = 0; i < engine->class_count; i++) {
        const sim_class_t *class = &engine->classes[i];
        double life = class->requests * (class->think_mean + class->io_mean) +
                      class->idle_share * class->idle_mean;
        sum += (class->share_end - before) * life;
        before = class->share_end;
    }
    return sum + HELD_SECONDS;
}

/* The highest rate, or the mean of a trace; connections per second. */
static double arrival_rate(const sim_engine_t *engine)
{
    const sim_table_t *rates = &engine->environment.rates, *trace = &engine->environment.trace;
    double highest = 0;
    for (uint64_t i = 0; i < rates->count; i++) {
        highest = fmax(highest, rates->rows[i * SIM_RATE_COLUMNS + SIM_RATE_RATE]);
    }
    if (trace->count > 0) {
        double last = trace->rows[(trace->count - 1) * SIM_TRACE_COLUMNS + SIM_TRACE_ARRIVAL];
        highest = (double)trace->count / fmax(last - trace->rows[SIM_TRACE_ARRIVAL], 1);
    }
    return highest;
}

/* Each partition has an equal part of the table, and gets a Poisson number of the flows: six standard
 * deviations and a few more are enough for billions of arrivals. */
static double flows_for(double open)
{
    double mean = open / LBRL_PARTITIONS;
    return LBRL_PARTITIONS * (mean + 6 * sqrt(mean) + 8);
}

static uint32_t flows_of(const sim_engine_t *engine, uint32_t balancer)
{
    double share = engine->split_end[balancer] - (balancer ? engine->split_end[balancer - 1] : 0);
    double wanted = flows_for(share * arrival_rate(engine) * mean_life(engine));
    return (uint32_t)fmin(fmax(wanted, FLOWS_MIN), FLOWS_MAX);
}

/* ---- Life ---- */

int sim_balancers_open(sim_engine_t *engine, const sim_options_t *options)
{
    sim_balancer_config_t config = {
        .servers = engine->server_count,
        .balancers = engine->balancer_count,
        .level = options->level,
        .scheduler = options->scheduler,
        .load = options->load,
        .forwarding = options->forwarding,
        .now_us = engine->now_us,
        .states = engine->states,
        .weights = engine->weights,
    };
    for (uint32_t i = 0; i < engine->balancer_count; i++) {
        config.flows = flows_of(engine, i);
        config.seed = sim_stream(engine->environment.seed, SIM_STREAM_CORES + i);
        engine->balancers[i] = sim_balancer_make(&config);
        if (engine->balancers[i] == NULL) {
            return SIM_ERR_MEMORY; /* the configuration has been checked */
        }
    }
    return SIM_OK;
}

void sim_balancers_close(sim_engine_t *engine)
{
    for (uint32_t i = 0; engine->balancers != NULL && i < engine->balancer_count; i++) {
        sim_balancer_free(engine->balancers[i]);
    }
}

/* ---- The agent's side ---- */

sim_observation_t sim_observation_at(const sim_observation_t *first, size_t by)
{
    sim_observation_t row = {
        .generation = first->generation + by,
        .active = first->active + by,
        .eligible = first->eligible + by,
        .server = first->server + by,
        .configured = first->configured + by,
        .weight = first->weight + by,
        .base = first->base + by,
        .peers = first->peers ? first->peers + by : NULL,
    };
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        row.counters[i] = first->counters[i] ? first->counters[i] + by : NULL;
    }
    return row;
}

void sim_balancers_observe(sim_engine_t *engine)
{
    for (uint32_t i = 0; i < engine->balancer_count; i++) {
        sim_observation_t row =
            sim_observation_at(&engine->frames.first, (size_t)i * engine->frames.stride);
        if (sim_balancer_observe(engine->balancers[i], engine->now_us, &row) != 0) {
            sim_engine_fail(engine, SIM_ERR_CORE, "a frame cannot be read");
        }
    }
}

int sim_balancers_reduce(sim_engine_t *engine, const lbrl_channel_t *channels, uint32_t count,
                         double *const *out, size_t first)
{
    static_assert(sizeof(lbrl_reduction_t) == 5 * sizeof(double), "five columns");
    for (uint32_t i = 0; i < engine->balancer_count; i++) {
        lbrl_reduction_t *rows[LBRL_CHANNEL_COUNT];
        for (uint32_t c = 0; c < count; c++) {
            rows[c] = (lbrl_reduction_t *)out[c] + first + (size_t)i * engine->frames.stride;
        }
        int error =
            sim_balancer_reduce(engine->balancers[i], channels, count, engine->now_us, rows);
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

int sim_balancers_act(sim_engine_t *engine, const float *weights, const float *bases, bool shared,
                      uint32_t *refused)
{
    int first = 0;
    for (uint32_t i = 0; i < engine->balancer_count; i++) {
        size_t by = (size_t)i * engine->frames.stride;
        int error = sim_balancer_act(engine->balancers[i], weights + by, bases ? bases + by : NULL,
                                     shared, engine->now_us);
        if (error != 0 && first == 0) {
            first = error;
            *refused = i;
        }
    }
    return first;
}
