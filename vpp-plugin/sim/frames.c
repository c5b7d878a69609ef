/* Frames of a batch: one array per column for all environments. */
#include <math.h>
#include <stdlib.h>

#include "balancers.h"
#include "batch.h"
#include "lbrl/lbrl.h"
#include "validate.h"

static uint32_t count_slots(const sim_t *sim)
{
    uint32_t slots = 0;
    if (sim->options.rule != SIM_RULE_CORE) {
        return sim->results.servers;
    }
    for (uint32_t i = 0; i < sim->results.environments; i++) {
        for (uint32_t k = 0; k < sim->engines[i].balancer_count; k++) {
            uint32_t own = sim_balancer_slots(sim->engines[i].balancers[k]);
            slots = own > slots ? own : slots;
        }
    }
    return slots;
}

static bool allocate(sim_observation_t *frames, uint32_t counters, size_t count)
{
    bool all = true;
    if (count == 0) {
        return false; /* never: there is a server, and a slot for it */
    }
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        if (counters >> i & 1) {
            frames->counters[i] = calloc(count, sizeof(*frames->counters[i]));
            all = all && frames->counters[i] != NULL;
        }
    }
    frames->peers = calloc(count, sizeof(*frames->peers));
    frames->generation = calloc(count, sizeof(*frames->generation));
    frames->active = calloc(count, sizeof(*frames->active));
    frames->eligible = calloc(count, sizeof(*frames->eligible));
    frames->server = calloc(count, sizeof(*frames->server));
    frames->configured = calloc(count, sizeof(*frames->configured));
    frames->weight = calloc(count, sizeof(*frames->weight));
    frames->base = calloc(count, sizeof(*frames->base));
    return all && frames->peers && frames->generation && frames->active && frames->eligible &&
           frames->server && frames->configured && frames->weight && frames->base;
}

static void show(sim_results_t *results, const sim_observation_t *frames)
{
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        results->counters[i] = frames->counters[i];
    }
    results->peers = frames->peers;
    results->generation = frames->generation;
    results->active = frames->active;
    results->eligible = frames->eligible;
    results->server = frames->server;
    results->configured = frames->configured;
    results->weight = frames->weight;
    results->base = frames->base;
}

static void bind(sim_t *sim, uint32_t number)
{
    sim_frames_t *frames = &sim->engines[number].frames;
    frames->stride = sim->results.slots;
    frames->first = sim_observation_at(&sim->frames, sim_first_slot(sim, number));
}

bool sim_frames_open(sim_t *sim)
{
    sim->results.slots = count_slots(sim);
    size_t count = sim_first_slot(sim, sim->results.environments);
    uint32_t counters = lbrl_level_counters((lbrl_level_t)sim->options.level);
    if (!allocate(&sim->frames, counters, count)) {
        return false;
    }
    show(&sim->results, &sim->frames);
    for (size_t i = 0; i < count; i++) {
        sim->frames.server[i] = -1;
        sim->frames.peers[i] = -1;
    }
    for (uint32_t i = 0; i < sim->results.environments; i++) {
        bind(sim, i);
        if (sim->options.rule == SIM_RULE_CORE) {
            sim_balancers_observe(&sim->engines[i]);
        }
    }
    return true;
}

void sim_frames_close(sim_t *sim)
{
    sim_observation_t *frames = &sim->frames;
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        free(frames->counters[i]);
    }
    free(frames->peers);
    free(frames->generation);
    free(frames->active);
    free(frames->eligible);
    free(frames->server);
    free(frames->configured);
    free(frames->weight);
    free(frames->base);
}

static int check_agent(const sim_t *sim, sim_problem_t *problem)
{
    if (sim->options.rule != SIM_RULE_CORE) {
        return sim_problem_set(problem, SIM_ERR_INVALID,
                               "rule: is %u; must be 0 for an agent, oracles have no core",
                               sim->options.rule);
    }
    return SIM_OK;
}

/* Codes of both kinds of errors of the core. */
static const char *core_text(int error)
{
    return error <= LBRL_ERR_INVALID ? lbrl_error_text(error) : lbrl_shm_error_text(error);
}

typedef struct reduction {
    const lbrl_channel_t *channels;
    uint32_t count;
    double *const *out;
} reduction_t;

static void reduce_one(sim_t *sim, uint32_t number, void *argument)
{
    const reduction_t *reduction = argument;
    sim_balancers_reduce(&sim->engines[number], reduction->channels, reduction->count,
                         reduction->out, sim_first_slot(sim, number));
}

static int check_channels(const sim_t *sim, const lbrl_channel_t *channels, uint32_t count,
                          sim_problem_t *problem)
{
    uint32_t known = lbrl_level_channels((lbrl_level_t)sim->options.level);
    if (count > LBRL_CHANNEL_COUNT) {
        return sim_problem_set(problem, SIM_ERR_INVALID, "channels: are %u; must be at most %u",
                               count, (unsigned)LBRL_CHANNEL_COUNT);
    }
    for (uint32_t i = 0; i < count; i++) {
        if ((uint32_t)channels[i] >= known) {
            return sim_problem_set(problem, SIM_ERR_CORE,
                                   "channels[%u]: is not recorded at level %s", i,
                                   lbrl_level_name((lbrl_level_t)sim->options.level));
        }
    }
    return SIM_OK;
}

int sim_reduce(sim_t *sim, const lbrl_channel_t *channels, uint32_t count, double *const *out,
               sim_problem_t *problem)
{
    int error = check_agent(sim, problem);
    if (error == SIM_OK) {
        error = check_channels(sim, channels, count, problem);
    }
    if (error != SIM_OK) {
        return error;
    }
    size_t cells = 5 * sim_first_slot(sim, sim->results.environments);
    for (uint32_t i = 0; i < count; i++) {
        for (size_t k = 0; k < cells; k++) {
            out[i][k] = NAN;
        }
    }
    reduction_t reduction = {channels, count, out};
    sim_for_each(sim, reduce_one, &reduction);
    return SIM_OK;
}

int sim_act(sim_t *sim, const float *weights, const float *bases, bool shared,
            sim_problem_t *problem)
{
    int result = check_agent(sim, problem);
    for (uint32_t i = 0; result != SIM_ERR_INVALID && i < sim->results.environments; i++) {
        size_t by = sim_first_slot(sim, i);
        uint32_t refused = 0;
        int error = sim_balancers_act(&sim->engines[i], weights + by, bases ? bases + by : NULL,
                                      shared, &refused);
        if (error != 0 && result == SIM_OK) {
            result = sim_problem_set(problem, SIM_ERR_CORE, "weights[%u, %u]: %s", i, refused,
                                     core_text(error));
        }
    }
    return result;
}
