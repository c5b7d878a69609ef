/*
 * Fragments. Only the first one has ports; it goes its flow's way and is remembered, later ones follow it. What comes
 * before its first fragment is dropped: nothing is ever queued. Identifications are replaced, for the packets of many
 * clients leave from one NAT source (RFC 6864).
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

/* Later fragment: translates it like its first, returns LBRL_DROP_NONE or the reason; `ref` is its flow. */
uint8_t fragment_later(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                       flow_ref_t *ref, bool *from_client);

#endif
