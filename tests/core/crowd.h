/* A load balancer and a crowd of clients and servers: IPv4 TCP segments with timestamps, in vectors of 256. For what
 * takes too many packets for rig.h: floods and benchmarks. */
#ifndef CROWD_H
#define CROWD_H

#include "rig.h"

enum {
    VECTOR = 256,
    ROOM = 256,
    PAYLOAD = 64,
};

/* What the crowd needs to know of each flow. */
typedef struct client_flow {
    uint32_t client_next, server_next;
    uint16_t nat_port;
    uint16_t backend;
    uint8_t source;
} client_flow_t;

typedef struct crowd {
    lbrl_t *lb;
    lbrl_worker_t *worker;
    uint64_t now_us, random;
    uint64_t (*clock)(void); /* measures time in the load balancer, where somebody sets it */
    uint64_t spent;          /* its sum */
    client_flow_t *flows;
    uint32_t first_address; /* of the clients, in host order */
    uint32_t flow_count;
    void *arena;
    size_t arena_size;
    lbrl_frames_t frames;
    size_t frames_size; /* 0: none */
    lbrl_packet_t packets[VECTOR];
    uint8_t rooms[VECTOR][ROOM] __attribute__((aligned(64)));
} crowd_t;

typedef struct crowd_plan {
    uint32_t capacity; /* of the flow table */
    uint32_t flows;    /* that the crowd can have */
    uint32_t sources;  /* of 12288 ports each */
    uint32_t backends;
    lbrl_level_t level; /* above off frames are bound */
} crowd_plan_t;

/* One VIP and nothing open. Arena and frames are shared memory, as in a data plane. */
crowd_t *crowd_make(const crowd_plan_t *plan);
void crowd_free(crowd_t *c);

/* Writes a client's, or its server's, segment into place `i` of the vector; their sequence numbers move on. */
void crowd_client(crowd_t *c, uint32_t i, uint32_t flow, uint8_t flags, uint32_t payload);
void crowd_server(crowd_t *c, uint32_t i, uint32_t flow, uint8_t flags);

/* Fills the vector with data segments of random flows. */
void crowd_fill(crowd_t *c, uint32_t among);

/* Processes the vector, all of which must be forwarded. */
void crowd_forward(crowd_t *c, uint32_t n);

/* One step in the lives of flows first .. first + n - 1, at most a vector; clients' packets must reach their backend. */
void crowd_syn(crowd_t *c, uint32_t first, uint32_t n);
void crowd_step(crowd_t *c, uint32_t first, uint32_t n, bool client, uint8_t flags);

/* Handshakes of the first `n` flows. */
void crowd_open(crowd_t *c, uint32_t n);

/* A vector of SYNs of clients that nobody knows; their verdicts stand in it. */
void crowd_strangers(crowd_t *c, uint32_t n);

/* The crowd leaves, and another one of the same size, with addresses of its own, takes its place: number 1 and so on. */
void crowd_move(crowd_t *c, uint32_t number);

/* Lets time pass and then the worker age. */
void crowd_tick(crowd_t *c, uint64_t microseconds);

uint64_t crowd_random(crowd_t *c);

#endif
