/*
 * One data plane of a simulation: a load balancer of the core in virtual time, with the shared-memory objects that an agent
 * reads and writes. One thread at a time uses it. Servers are numbered from 0 in the order of the configuration.
 */
#ifndef LBSIM_BALANCER_H
#define LBSIM_BALANCER_H

#include <stdbool.h>

#include "lbrl/connection.h"
#include "lbrl/reduce.h"

#define SIM_NO_SERVER UINT32_MAX

typedef struct sim_balancer sim_balancer_t;

typedef struct sim_balancer_config {
    uint32_t servers;   /* 1 .. LBRL_BACKENDS_MAX, those that come later included */
    uint32_t balancers; /* that share the VIP */
    uint32_t
        flows; /* entries of the flow table; closed flows hold theirs for 10 s where there is room */
    uint8_t level;         /* lbrl_level_t */
    uint8_t scheduler;     /* lbrl_scheduler_type_t */
    uint8_t load;          /* lbrl_load_t */
    uint8_t forwarding;    /* LBRL_FORWARD_NAT or LBRL_FORWARD_GRE */
    uint64_t seed;         /* of scheduler and reservoirs */
    uint64_t now_us;       /* > 0 */
    const uint8_t *states; /* per server: 0 for absent, else lbrl_backend_state_t */
    const float *weights;  /* per server, configured */
} sim_balancer_config_t;

/* NULL: no memory, or the configuration is refused. */
sim_balancer_t *sim_balancer_make(const sim_balancer_config_t *config);
void sim_balancer_free(sim_balancer_t *balancer);

uint32_t sim_balancer_slots(const sim_balancer_t *balancer);

/* ---- connections: what a wire would carry; `connection` is the caller's memory ---- */

/* SYN. The server that the flow goes to, or SIM_NO_SERVER where it is refused. */
uint32_t sim_balancer_open(sim_balancer_t *balancer, uint64_t now_us,
                           lbrl_connection_t *connection);
/* SYN-ACK and ACK. This and those below: false where the flow has gone or its server has failed. */
bool sim_balancer_establish(sim_balancer_t *balancer, lbrl_connection_t *connection,
                            uint64_t now_us);
/* Payload of the client. */
bool sim_balancer_request(sim_balancer_t *balancer, lbrl_connection_t *connection, uint64_t now_us,
                          uint32_t bytes);
/* Payload of the server, acknowledged by the client at once. */
bool sim_balancer_response(sim_balancer_t *balancer, lbrl_connection_t *connection, uint64_t now_us,
                           uint32_t bytes);
/* FIN of the client, then of the server. */
bool sim_balancer_close(sim_balancer_t *balancer, lbrl_connection_t *connection, uint64_t now_us);
/* RST of the server. */
bool sim_balancer_reset(sim_balancer_t *balancer, lbrl_connection_t *connection, uint64_t now_us);

/* ---- control ---- */

/* Ages flows, frees what was replaced; every SIM_TICK_US of virtual time. */
#define SIM_TICK_US 100000u
void sim_balancer_tick(sim_balancer_t *balancer, uint64_t now_us);

/* States and configured weights of all servers, as of sim_balancer_config_t. 0 or a negative lbrl_error_t. */
int sim_balancer_set_servers(sim_balancer_t *balancer, const uint8_t *states, const float *weights,
                             uint64_t now_us);

/* ---- shared view: see lbrl_sharing_t ---- */

/* Lets the scheduler use the flows of the peers. 0 or a negative lbrl_error_t. */
int sim_balancer_share(sim_balancer_t *balancer, const lbrl_sharing_t *how);
/* Own flows by server, as the scheduler counts them. */
void sim_balancer_flows(sim_balancer_t *balancer, uint32_t *flows);
/* Flows of all peers by server, as of now. 0 or a negative lbrl_error_t. */
int sim_balancer_set_peers(sim_balancer_t *balancer, const uint32_t *flows, uint64_t now_us);

/* ---- the agent's side ---- */

/* What an agent sees of each slot; arrays of sim_balancer_slots() elements, the caller's. */
typedef struct sim_observation {
    int64_t *counters[LBRL_COUNTER_COUNT]; /* NULL: not wanted */
    int64_t *peers; /* flows of the peers, -1 without a shared view; NULL: not wanted */
    uint8_t *generation;
    uint8_t *active;   /* 1: the slot holds a backend */
    uint8_t *eligible; /* 1: it takes new flows: ACTIVE and a configured weight above 0 */
    int16_t *server;   /* -1: free */
    double *configured;
    float *weight, *base; /* in force */
} sim_observation_t;

/* Publishes a frame and reads it back through shared memory. 0 or a negative lbrl_shm_error_t. */
int sim_balancer_observe(sim_balancer_t *balancer, uint64_t now_us, const sim_observation_t *seen);

/* Reduces `count` channels; out[i] has sim_balancer_slots() elements. 0 or LBRL_SHM_ARGUMENT where one is not recorded. */
int sim_balancer_reduce(sim_balancer_t *balancer, const lbrl_channel_t *channels, uint32_t count,
                        uint64_t now_us, lbrl_reduction_t *const *out);

/* Writes weights, and bases or NULL, as an agent does, and takes them into force as a data plane does. 0 or a negative
 * lbrl_shm_error_t or lbrl_error_t. */
int sim_balancer_act(sim_balancer_t *balancer, const float *weights, const float *bases,
                     bool shared, uint64_t now_us);

#endif
