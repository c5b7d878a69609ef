/*
 * The common case in straight lines: a plain segment (META_PLAIN) of a connection whose backend is configured and has not failed. It does
 * what forward() in process.c does, in two short passes: plain_settle() follows the chain from nominee to translation,
 * plain_forward() rewrites and records. Processors overlap many short steps, but not long ones.
 */
#ifndef LBRL_PLAIN_H
#define LBRL_PLAIN_H

#include "fragment.h"
#include "rewrite.h"
#include "track.h"
#include "tunnel.h"

typedef struct plain {
    flow_t *flow; /* the nominee; NULL: not such a segment */
    /* what plain_settle() found out */
    lbrl_sink_t *sink;
    const ip_t *src, *dst; /* that addresses become, or of the tunnel */
    uint16_t sport, dport;
    uint16_t mtu; /* of the tunnel, which is GRE over IPv4; 0: translated, not wrapped */
} plain_t;

/* Whether all that a segment does is to move sequence numbers on. */
static inline bool plain_is_quiet(const flow_t *flow, const meta_t *meta)
{
    return flow->state == LBRL_FLOW_ESTABLISHED &&
           !(meta->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST));
}

/* Whether a packet of a one-way flow goes the straight way: a quiet segment over IPv4 that fits whole into the tunnel. */
static inline bool plain_fits(const lbrl_packet_t *packet, const meta_t *meta, const plain_t *plain)
{
    return plain_is_quiet(plain->flow, meta) && (plain->flow->flags & FLOW_OPEN) &&
           packet->length + tunnel_overhead(false) <= plain->mtu &&
           packet->headroom >= tunnel_overhead(false) && packet->gso_type == LBRL_GSO_NONE &&
           !(packet->flags & LBRL_PACKET_NEEDS_CSUM);
}

/* One-way flows into GRE over IPv4. The rest goes the long way. */
static inline bool plain_settle_tunnel(const lbrl_worker_t *worker, const lbrl_packet_t *packet,
                                       const meta_t *meta, const vip_t *vip, const slot_t *slot,
                                       plain_t *plain)
{
    plain->src = &worker->table->tunnel_sources[0];
    plain->dst = &slot->address;
    plain->mtu = vip->mtu;
    return vip->forwarding == LBRL_FORWARD_GRE && !(meta->flags & META_V6) &&
           ip_is_v4(&slot->address) && !ip_is_zero(plain->src) && plain_fits(packet, meta, plain);
}

/* Verifies the nominee and looks up what its translation needs; false leaves the packet to the long way. */
static inline bool plain_settle(const lbrl_worker_t *worker, const lbrl_packet_t *packet,
                                const meta_t *meta, plain_t *plain)
{
    const table_t *table = worker->table;
    const flow_t *flow = plain->flow;
    const vip_t *vip = vip_of(table, flow);
    if (UNLIKELY(!vip)) {
        return false;
    }
    const slot_t *slot = &vip->slots[slot_of(flow)];
    plain->mtu = 0;
    if (meta->flags & META_RETURN) {
        if (UNLIKELY(!flow_from_server(table, flow, meta) ||
                     __atomic_load_n(&slot->state, __ATOMIC_RELAXED) == SLOT_GONE)) {
            return false;
        }
        plain->src = &vip->addresses[address_of_vip(flow)];
        plain->dst = &flow->client;
        plain->sport = vip->port;
        plain->dport = flow->client_port;
    } else {
        if (UNLIKELY(!flow_from_client(table, flow, meta) ||
                     __atomic_load_n(&slot->state, __ATOMIC_RELAXED) >= SLOT_FAILED)) {
            return false;
        }
        if (vip_is_one_way(vip)) {
            if (!plain_settle_tunnel(worker, packet, meta, vip, slot, plain)) {
                return false;
            }
        } else {
            plain->src = &table->sources[source_of(flow)].is.address;
            plain->dst = &slot->address;
            plain->sport = flow->nat_port;
            plain->dport = slot->port;
        }
    }
    plain->sink = sink_of(&vip->workers[worker->index]);
    lbrl_sink_prefetch(plain->sink, slot_in(plain->sink, flow));
    side_prefetch(worker->lb, plain->sink, flow);
    return true;
}

/* The same for a packet of the flow of the one before it, which was settled. */
static inline bool plain_follow(const lbrl_packet_t *packet, const meta_t *meta,
                                const plain_t *before, plain_t *plain)
{
    *plain = *before;
    return LIKELY(!plain->mtu || plain_fits(packet, meta, plain));
}

static inline void plain_forward(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                                 const plain_t *plain)
{
    bool from_client = !(meta->flags & META_RETURN);
    uint8_t *tcp = packet->data + meta->transport;
    track_packet(worker, plain->flow, plain->sink, packet, meta, from_client);
    if (LIKELY(plain_is_quiet(plain->flow, meta))) {
        track_plain(worker, plain->flow, plain->sink, tcp, meta->payload, from_client);
    } else {
        flow_ref_t ref =
            flow_ref(worker, &worker->lb->partitions[meta->partition], meta->candidate);
        track_tcp_slow(worker, &ref, packet, meta, from_client);
    }
    if (plain->mtu) {
        track_suppose_server(plain->flow);
        plain->flow->last_ms = worker->now_ms; /* see one_way_track() */
        uint16_t id =
            LIKELY(tunnel_keeps_whole(packet->data)) ? 0 : (uint16_t)fragment_id_next(worker);
        tunnel_wrap_v4(packet, plain->src, plain->dst, id);
        return;
    }
    if (LIKELY(!(meta->flags & META_V6) && !(packet->flags & LBRL_PACKET_NEEDS_CSUM))) {
        rewrite_tcp_v4(packet->data, tcp, plain->src, plain->dst, plain->sport, plain->dport);
    } else {
        translation_t to = {plain->src, plain->dst, sum_ip(plain->src) + sum_ip(plain->dst),
                            plain->sport, plain->dport};
        rewrite_packet(packet, meta, &to);
    }
    if (UNLIKELY(fragment_may_be_cut(packet, meta))) { /* last: few values are still needed */
        fragment_identify(worker, packet, meta);
    }
}

#endif
