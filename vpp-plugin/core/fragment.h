/*
 * Fragments. Only the first one has ports; it goes its flow's way and is remembered, later ones follow it. Those that come
 * before it (RFC 4787, REQ-14) stay with the caller, a bounded number for a bounded time. Identifications are replaced, for
 * the packets of many clients leave from one NAT source (RFC 6864).
 */
#ifndef LBRL_FRAGMENT_H
#define LBRL_FRAGMENT_H

#include "rewrite.h"

/* Hash of what all fragments of a packet share; also names their place in the hints. */
uint64_t fragment_hash(const lbrl_worker_t *worker, const meta_t *meta);

/* Notes, for all workers, which partition the fragments belong to. */
void fragment_hint(lbrl_worker_t *worker, uint64_t hash, uint8_t partition);

/* The partition that was noted, or LBRL_PARTITIONS. */
uint8_t fragment_partition(const lbrl_worker_t *worker, uint64_t hash);

/* First fragment, after its flow is known: remembers the flow and replaces the identification. Call before translation. */
void fragment_first(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                    const flow_ref_t *ref);

/* First fragment of a packet without a flow: remembers what later ones do. */
void fragment_note(lbrl_worker_t *worker, const meta_t *meta, fragment_way_t way);

/* What is remembered of a later fragment's first, or NULL. `meta->hash` is that of classify(). */
const fragment_t *fragment_find(lbrl_worker_t *worker, const meta_t *meta);

/* Later fragment of a flow: translates it like its first, returns LBRL_DROP_NONE or the reason; `ref` is its flow. */
uint8_t fragment_later(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                       const fragment_t *fragment, flow_ref_t *ref);

/* Later fragment before its first: true if the caller is to keep it. */
bool fragment_hold(lbrl_worker_t *worker, const lbrl_packet_t *packet, const meta_t *meta);

/* Another identification for a whole IPv4 packet that routers may fragment (RFC 6864, 5.2). */
void fragment_identify(lbrl_worker_t *worker, const lbrl_packet_t *packet, const meta_t *meta);

static inline bool fragment_may_be_cut(const lbrl_packet_t *packet, const meta_t *meta)
{
    return !(meta->flags & META_V6) && !(packet->data[6] & 0x40);
}

#endif
