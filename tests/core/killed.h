/* Clients of the data plane that test_killed.c kills, and the journal of what they have seen. */
#ifndef KILLED_H
#define KILLED_H

#include "rig.h"

enum {
    CLIENTS = 96,
    WORKERS_MOST = 4,
    VIPS = 6,
};

/* VIPs that stay; others come and go on an address of their own. */
typedef struct killed_vip {
    const char *address;
    uint16_t port;
    uint8_t protocol, forwarding;
} killed_vip_t;

extern const killed_vip_t KILLED_VIPS[VIPS];

/* What the killed process last knew; in memory that survives it. */
typedef struct journal {
    uint64_t now_us; /* atomic: workers read what control sets */
    uint64_t steps;  /* atomic: all workers' */
    uint64_t random[WORKERS_MOST + 1];
    uint32_t round; /* of backends: each has addresses of its own */
    connection_t connections[CLIENTS];
    char clients[CLIENTS][24];
    uint8_t open[CLIENTS]; /* 1: connections[i] is what the flow must be if it is still there */
} journal_t;

extern journal_t *journal;

/* A number below `below`, of the generator of a worker, or of the control thread (WORKERS_MOST). */
uint32_t any(uint32_t whose, uint32_t below);

/* The VIP that a client talks to. */
uint32_t kind_of(uint32_t client);

lbrl_address_t destination(const lbrl_packet_t *packet);

/* Sends the next segment of a one-way connection. */
lbrl_verdict_t segment(rig_t *here, connection_t *c, uint8_t flags, size_t payload);

/* Lets a client and its server send something, and writes to the journal what they see. */
void talk(rig_t *here, uint32_t i);

#endif
