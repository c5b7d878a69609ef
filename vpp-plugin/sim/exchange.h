/* Exchange of counts between the balancers of an environment: messages with delay and loss, in virtual time. */
#ifndef SIM_EXCHANGE_H
#define SIM_EXCHANGE_H

#include "heap.h"
#include "lbsim/sim.h"
#include "random.h"

struct sim_engine;

typedef struct sim_exchange {
    sim_sharing_t how;
    sim_heap_t due; /* times at which a balancer sends (reference: its number) or a message comes
                           (balancers x (1 + receiver) + sender) */
    sim_random_t random;
    double *phase;      /* seconds, by balancer: of its first sending */
    uint64_t *sent;     /* by balancer: times that it has sent */
    uint32_t *received; /* [receiver][sender][server], of the last message that came */
    uint32_t *on_way; /* likewise, of the message that is to come: at most one, see sim_sharing_t */
    double *received_at; /* [receiver][sender]: seconds, when that was; -infinity: none yet */
    double timeout;      /* seconds without a message, after which counts are not used */
    uint32_t *counts;    /* [2][server]: own, and those of all peers */
} sim_exchange_t;

/* Lets the balancers exchange their counts; does nothing where the interval is 0. SIM_OK, SIM_ERR_MEMORY or
 * SIM_ERR_CORE. */
int sim_exchange_open(struct sim_engine *engine, const sim_sharing_t *how);
void sim_exchange_close(sim_exchange_t *exchange);

/* Time of the next event; infinite without an exchange. */
static inline double sim_exchange_next(const sim_exchange_t *exchange)
{
    return exchange->due.count > 0 ? exchange->due.entries[0].key : INFINITY;
}

/* The next event. */
void sim_exchange_event(struct sim_engine *engine);

#endif
