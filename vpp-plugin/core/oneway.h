/*
 * One-way forwarding: GRE and L3DSR. Only what clients send is seen, so flows give affinity and features; without one, and
 * whenever half-open flows press, packets follow the Maglev table of configured weights, which is the same on all nodes.
 */
#ifndef LBRL_ONEWAY_H
#define LBRL_ONEWAY_H

#include "flow.h"

/* A packet of a flow. */
lbrl_verdict_t one_way_flow(lbrl_worker_t *worker, const flow_ref_t *ref, lbrl_packet_t *packet,
                            const meta_t *meta);

/* State and counts of a flow after a packet of its client, which track_packet() has recorded. */
void one_way_track(lbrl_worker_t *worker, const flow_ref_t *ref, const lbrl_packet_t *packet,
                   const meta_t *meta);

/* A packet without a flow; `birth` is filled but for slot and joined. */
lbrl_verdict_t one_way_stranger(lbrl_worker_t *worker, lbrl_packet_t *packet, flow_birth_t *birth);

/* A later fragment of a flow, or an ICMP error: handed on without a look at its transport header. */
lbrl_verdict_t one_way_pass_on(lbrl_worker_t *worker, const vip_t *vip, uint32_t slot,
                               lbrl_packet_t *packet, const meta_t *meta);

#endif
