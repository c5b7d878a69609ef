/* The engine of one environment: its state and what sim.c does with it. */
#ifndef SIM_ENGINE_H
#define SIM_ENGINE_H

#include "balancer.h"
#include "clients.h"
#include "exchange.h"
#include "lbsim/sim.h"
#include "servers.h"
#include "tree.h"

/* Where balancers write what an agent sees: arrays of all balancers of an environment. */
typedef struct sim_frames {
    sim_observation_t first; /* of the first balancer */
    uint32_t stride;         /* elements from a balancer to the next */
} sim_frames_t;

/* What a connection waits for. OPENING, SENDING, IO, RETURNING, THINKING, IDLE and DEAD have an entry
 * in `delays`, exactly one; WAITING and SERVICE have none. */
typedef enum sim_stage {
    SIM_FREE,
    SIM_OPENING,   /* SYN and SYN-ACK are on the network */
    SIM_SENDING,   /* a request is on the network */
    SIM_WAITING,   /* for a place at the server */
    SIM_SERVICE,   /* CPU work */
    SIM_IO,        /* input and output after it */
    SIM_RETURNING, /* the response is on the network */
    SIM_THINKING,  /* pause before the next request */
    SIM_IDLE,      /* open after the last response */
    SIM_DEAD,      /* reset; its place is free when the delay has ended */
} sim_stage_t;

typedef struct sim_connection {
    lbrl_connection_t flow; /* at its balancer */
    double started;         /* seconds: its request */
    double work;            /* work seconds of the request */
    uint64_t stream;        /* random numbers of this connection */
    uint32_t number;        /* in order of arrival */
    float io;               /* seconds, of the request; 0 until they are drawn */
    uint32_t requests_left;
    uint32_t next; /* free or waiting connection after it */
    uint16_t server;
    uint8_t class_number, balancer, stage;
} sim_connection_t;

typedef struct sim_engine {
    double now;
    uint64_t now_us;
    int error;         /* sim_error_t; the first one ends the environment */
    const char *cause; /* of the error, a static text */
    /* Sources of events. */
    double scenario_next, tick_next;
    sim_tree_t completions; /* and ends of quotas, per server */
    sim_heap_t delays;      /* of connections */
    sim_exchange_t exchange;
    sim_arrivals_t arrivals;
    /* Configuration, owned. */
    sim_environment_t environment;
    sim_class_t *classes;
    double *split_end; /* sums of the shares up to each balancer */
    uint32_t balancer_count, server_count, class_count;
    sim_rule_t rule;
    bool record;
    /* Parts. */
    sim_server_t *servers;
    sim_balancer_t **balancers; /* all NULL under an oracle */
    sim_random_t choice, ties;
    uint64_t connection_seed;
    /* What balancers are configured with, per server. */
    uint8_t *states, *eligible;
    float *weights;
    uint64_t event; /* the next row of events */
    uint64_t ticks;
    bool warm; /* the warm-up has ended */
    /* Connections. */
    sim_connection_t *connections;
    uint32_t used, capacity, first_free;
    /* Results. */
    sim_record_t *records;
    uint64_t record_count, record_capacity;
    int64_t *completed, *failed; /* rows of `stride` servers; of the batch */
    double *duration;
    int64_t *refused;
    uint32_t stride;
    sim_frames_t frames; /* of the balancers; rows of `frames.stride` slots, of the batch */
    sim_totals_t totals;
} sim_engine_t;

/* Simulates events up to and including `until`; stops at the first error. */
void sim_engine_advance(sim_engine_t *engine, double until);

/* scenario.c: sets `scenario_next`. */
void sim_scenario_schedule(sim_engine_t *engine);

/* scenario.c: everything that is due at `engine->now`. */
void sim_scenario_event(sim_engine_t *engine);

/* scenario.c: configures the balancers with `states` and `weights`. */
void sim_scenario_configure(sim_engine_t *engine);

/* Clock of the core: it does not begin at 0, which would mean "never" to some of its fields. */
static inline uint64_t sim_microseconds(double time)
{
    return 1000000 + (uint64_t)(time * 1e6);
}

/* For scenario.c. */
void sim_engine_fail(sim_engine_t *engine, int error, const char *cause);
void sim_engine_reset(sim_engine_t *engine, uint32_t index);
void sim_engine_reschedule(sim_engine_t *engine, uint32_t server);

#endif
