#include "oracle.h"

static double delay_factor(double requests, double cores)
{
    return requests > cores ? requests / cores : 1;
}

/* What a request more costs. Infinite where service stands still. */
static double cost(sim_rule_t rule, const sim_server_t *server)
{
    double n = server->assigned, cores = server->capacity;
    if (rule == SIM_RULE_SED) {
        return server->pace * (n + 1) / cores;
    }
    double now = delay_factor(n, cores), then = delay_factor(n + 1, cores);
    return server->pace * (then + n * (then - now));
}

uint32_t sim_oracle_pick(sim_rule_t rule, const sim_server_t *servers, const uint8_t *eligible,
                         uint32_t count, sim_random_t *ties)
{
    uint32_t best = SIM_NOBODY, equal = 0;
    double least = INFINITY;
    for (uint32_t i = 0; i < count; i++) {
        if (!eligible[i] || !servers[i].up) {
            continue;
        }
        double found = cost(rule, &servers[i]);
        if (best == SIM_NOBODY || found < least) {
            best = i;
            least = found;
            equal = 1;
        } else if (found == least && sim_random_next(ties) % ++equal == 0) {
            best = i; /* each of k equal ones is kept with probability 1 / k */
        }
    }
    return best;
}
