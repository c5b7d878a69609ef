/* The balancers of an environment. None of it is for oracles. */
#ifndef SIM_BALANCERS_H
#define SIM_BALANCERS_H

#include "engine.h"

/* Makes them; SIM_ERR_MEMORY where one cannot be made. */
int sim_balancers_open(sim_engine_t *engine, const sim_options_t *options);
void sim_balancers_close(sim_engine_t *engine);

/* The arrays from their element `by` on. */
sim_observation_t sim_observation_at(const sim_observation_t *first, size_t by);

/* Publishes a frame of each into `engine->frames`. */
void sim_balancers_observe(sim_engine_t *engine);

/* Row `number` of a batch of arrays is that of this environment; codes of lbrl_shm_error_t. */
int sim_balancers_reduce(sim_engine_t *engine, const lbrl_channel_t *channels, uint32_t count,
                         double *const *out, size_t first);

/* Rows of weights, and of bases or NULL. Returns the first error and, in `refused`, by which balancer;
 * the others act. */
int sim_balancers_act(sim_engine_t *engine, const float *weights, const float *bases, bool shared,
                      uint32_t *refused);

#endif
