/*
 * Connections without packets: what a simulator hands to the core in place of what a wire carries. A segment enters the
 * packet path behind parsing and lookup and leaves it before translation, so that schedulers, flow table, counters and
 * channels are those of a data plane, and no byte is copied or summed.
 *
 * Threading. Unlike lbrl_process(), these functions do not enter the worker's epoch: they, lbrl_worker_tick() and all of
 * the control side are called by one thread. The worker owns all partitions (lbrl_config_t.workers is 1).
 *
 * Only TCP over IPv4.
 */
#ifndef LBRL_CONNECTION_H
#define LBRL_CONNECTION_H

#include "lbrl/lbrl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Payload bytes of a full segment; more become a super-packet, as a data plane receives it with offloads. */
#define LBRL_SEGMENT_MSS 1448u
/* Payload bytes of a segment at most: an IPv4 packet without its headers. */
#define LBRL_SEGMENT_MAX 65495u

/* Bits of lbrl_segment_t.flags, TCP's own. */
enum {
    LBRL_SEGMENT_FIN = 0x01,
    LBRL_SEGMENT_SYN = 0x02,
    LBRL_SEGMENT_RST = 0x04,
    LBRL_SEGMENT_PSH = 0x08,
    LBRL_SEGMENT_ACK = 0x10,
};

typedef struct lbrl_segment {
    uint32_t payload;    /* bytes, at most LBRL_SEGMENT_MAX */
    uint8_t from_client; /* 0: from the server */
    uint8_t flags;       /* LBRL_SEGMENT_* */
} lbrl_segment_t;

/* A connection of a client, from lbrl_connection_open() on; the caller's memory. */
typedef struct lbrl_connection {
    uint32_t check;       /* of the flow's entry */
    uint32_t entry;       /* of the flow in its partition */
    uint32_t client_next; /* next sequence numbers */
    uint32_t server_next;
    uint16_t slot; /* of the backend */
    uint8_t partition;
} lbrl_connection_t;

/* Where clients connect to, and from where. The same client address and port must not be in use. */
typedef struct lbrl_connection_tuple {
    lbrl_address_t vip, client;
    uint16_t vip_port, client_port;
} lbrl_connection_tuple_t;

/*
 * A client's SYN. Returns LBRL_DROP_NONE and fills `connection` where the flow was made, else why not: there is no such
 * VIP (PORT_UNCONFIGURED), no backend takes flows (NO_BACKEND), no entry (TABLE_FULL) or NAT port (NO_NAT_PORT) is left.
 */
lbrl_drop_t lbrl_connection_open(lbrl_worker_t *worker, const lbrl_connection_tuple_t *tuple,
                                 uint64_t now_us, lbrl_connection_t *connection);

/*
 * Segments of a connection, in order and at one time. Returns how many were forwarded: fewer than `count` where the flow has
 * gone, or its backend has failed, which a client learns by a RST.
 */
uint32_t lbrl_connection_exchange(lbrl_worker_t *worker, lbrl_connection_t *connection,
                                  const lbrl_segment_t *segments, uint32_t count, uint64_t now_us);

#ifdef __cplusplus
}
#endif
#endif
