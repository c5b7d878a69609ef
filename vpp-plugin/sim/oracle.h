/* The oracles' choices, see sim_rule_t. */
#ifndef SIM_ORACLE_H
#define SIM_ORACLE_H

#include "lbsim/sim.h"
#include "random.h"
#include "servers.h"

/* Returns the index of a server, or SIM_NOBODY where no server may be taken. `eligible`, per server:
 * 1 if its state is ACTIVE and its configured weight above 0. */
uint32_t sim_oracle_pick(sim_rule_t rule, const sim_server_t *servers, const uint8_t *eligible,
                         uint32_t count, sim_random_t *ties);

#endif
