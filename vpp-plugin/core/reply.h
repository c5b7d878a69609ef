/* Answers: packets turned round in place. All but echo replies are bounded in rate, per worker and kind. */
#ifndef LBRL_REPLY_H
#define LBRL_REPLY_H

#include "internal.h"

static inline lbrl_verdict_t drop(lbrl_packet_t *packet, uint8_t reason)
{
    packet->reason = reason;
    return LBRL_VERDICT_DROP;
}

/* Fills the token buckets of a worker that begins. */
void reply_begin(lbrl_worker_t *worker, uint64_t now_us);

/* RST for a TCP packet, as its receiver would send it (RFC 9293, 3.10.7.1). `reason`: why it is not forwarded. DROP if it is a
 * RST itself, or there is no token. */
lbrl_verdict_t reply_reset(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                           answer_t kind, uint8_t reason);

typedef enum reply_icmp_kind {
    REPLY_PORT_UNREACHABLE,
    REPLY_TIME_EXCEEDED,
    REPLY_PROHIBITED, /* administratively: no resources for a new flow */
    REPLY_TOO_BIG,
} reply_icmp_kind_t;

/* ICMP error that quotes the packet, from the address it was sent to. */
lbrl_verdict_t reply_icmp(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                          reply_icmp_kind_t kind, uint8_t reason);

/* The same, saying that only `mtu` bytes fit. */
lbrl_verdict_t reply_too_big(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                             uint32_t mtu);

lbrl_verdict_t reply_echo(lbrl_packet_t *packet, const meta_t *meta);

/* The same for a fragment of the request: it becomes that fragment of the reply. */
lbrl_verdict_t reply_echo_fragment(lbrl_packet_t *packet, const meta_t *meta);

#endif
