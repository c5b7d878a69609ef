/* Making and freeing the engine of an environment. */
#ifndef SIM_SETUP_H
#define SIM_SETUP_H

#include "engine.h"

/* `engine` is zeroed; `environment` has been checked and is copied. After an error,
 * sim_engine_close() frees what there is. */
int sim_engine_open(sim_engine_t *engine, const sim_options_t *options,
                    const sim_environment_t *environment);
void sim_engine_close(sim_engine_t *engine);

#endif
