/* Clients: when connections arrive, and what each of them does. Nothing here depends on balancers or
 * servers: that is what makes random numbers common to all policies. */
#ifndef SIM_CLIENTS_H
#define SIM_CLIENTS_H

#include "lbsim/sim.h"
#include "random.h"

/* A class, prepared for draws. */
typedef struct sim_class {
    double share_end; /* sum of the shares up to this class */
    sim_work_kind_t work_kind;
    double a, b, c; /* parameters of the work, see prepare_work() */
    double io_mean, think_mean, idle_share, idle_mean;
    double requests;     /* mean */
    double requests_log; /* 1 / log(1 - 1 / mean) of geometric numbers; 0: constant */
    uint32_t request_bytes, response_bytes;
} sim_class_t;

/* False: no bounded Pareto has that mean. */
bool sim_class_prepare(sim_class_t *class, const double *row);

/* Work of a request, work seconds; draws from the connection's stream. */
double sim_class_work(const sim_class_t *class, uint64_t *stream);

/* Requests of a connection, at least 1; draws if they are random. */
uint32_t sim_class_requests(const sim_class_t *class, uint64_t *stream);

/* The class of a connection. */
uint32_t sim_class_draw(const sim_class_t *classes, uint32_t count, uint64_t *stream);

/* Arrival times: Poisson with a piecewise constant rate, or those of a trace. */
typedef struct sim_arrivals {
    sim_random_t random;
    const double *rates, *trace; /* rows; one of them NULL */
    uint64_t count, row;         /* rates: the row in force; trace: the next row */
    double next;                 /* infinite: none */
    uint64_t number;             /* of the connection that arrives next */
} sim_arrivals_t;

void sim_arrivals_open(sim_arrivals_t *arrivals, const sim_environment_t *environment);

/* Moves on to the connection after the next one. */
void sim_arrivals_step(sim_arrivals_t *arrivals);

#endif
