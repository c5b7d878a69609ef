/* Checks of everything that callers hand in: scenario files come from anybody. */
#ifndef SIM_VALIDATE_H
#define SIM_VALIDATE_H

#include "lbsim/sim.h"

/* Writes a message; returns `error`. */
__attribute__((format(printf, 3, 4))) int sim_problem_set(sim_problem_t *problem, int error,
                                                          const char *format, ...);

int sim_check_options(const sim_options_t *options, sim_problem_t *problem);

/* `number` of the environment, for messages. */
int sim_check_environment(const sim_environment_t *environment, uint32_t number,
                          sim_problem_t *problem);

#endif
