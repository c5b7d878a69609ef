/* A batch of environments: what sim.c and frames.c share. */
#ifndef SIM_BATCH_H
#define SIM_BATCH_H

#include "engine.h"
#include "lbsim/sim.h"

struct sim {
    sim_engine_t *engines;
    sim_options_t options;
    sim_results_t results;
    double time;
    bool failed;
    /* Of the results, writable. */
    int64_t *completed, *failures, *refused;
    double *duration, *busy, *offered;
    sim_observation_t frames;
    uint32_t next; /* environment that no thread has taken yet, during sim_for_each() */
};

/* Calls `work` for every environment, from as many threads as the options say. */
typedef void (*sim_work_t)(sim_t *sim, uint32_t number, void *argument);
void sim_for_each(sim_t *sim, sim_work_t work, void *argument);

/* Index of the first slot of an environment. */
static inline size_t sim_first_slot(const sim_t *sim, uint32_t number)
{
    return (size_t)number * sim->results.balancers * sim->results.slots;
}

/* Allocates the arrays of frames, once the balancers are made, and observes them. False: no memory. */
bool sim_frames_open(sim_t *sim);
void sim_frames_close(sim_t *sim);

#endif
