/*
 * The common case in straight lines: a plain segment (META_PLAIN) of an established connection whose backend has not
 * failed. It does what forward() in process.c does, in two short passes: plain_settle() follows the chain from nominee to
 * translation, plain_forward() rewrites and records. Processors overlap many short steps, but not long ones.
 */
#ifndef LBRL_PLAIN_H
#define LBRL_PLAIN_H

#include "rewrite.h"
#include "track.h"
#include "tunnel.h"

typedef struct plain {
    flow_t *flow; /* the nominee; NULL: not such a segment */
    /* what plain_settle() found out */
    lbrl_sink_t *sink;
    const ip_t *src, *dst; /* that addresses become, or of the tunnel */
    uint16_t sport, dport;
    bool tunnel; /* into GRE over IPv4 */
} plain_t;

/* One-way flows: segments over IPv4 that fit whole into GRE over IPv4. The rest goes the long way. */
static inline bool plain_settle_tunnel(const lbrl_worker_t *worker, const lbrl_packet_t *packet,
                                       const meta_t *meta, const vip_t *vip, const slot_t *slot,
                                       plain_t *plain)
{
    uint32_t size = packet->length + tunnel_overhead(false);
    plain->src = &worker->table->tunnel_sources[0];
    plain->dst = &slot->address;
    plain->tunnel = true;
    return vip->forwarding == LBRL_FORWARD_GRE && (plain->flow->flags & FLOW_OPEN) &&
           !(meta->flags & META_V6) && ip_is_v4(&slot->address) && !ip_is_zero(plain->src) &&
           size <= vip->mtu && packet->headroom >= tunnel_overhead(false) &&
           packet->gso_type == LBRL_GSO_NONE && !(packet->flags & LBRL_PACKET_NEEDS_CSUM);
}

/* Verifies the nominee and looks up what its translation needs; false leaves the packet to the long way. */
static inline bool plain_settle(const lbrl_worker_t *worker, const lbrl_packet_t *packet,
                                const meta_t *meta, plain_t *plain)
{
    const table_t *table = worker->table;
    const flow_t *flow = plain->flow;
    if (UNLIKELY(flow->state != LBRL_FLOW_ESTABLISHED)) {
        return false;
    }
    const vip_t *vip = table->vips[flow->vip];
    const slot_t *slot = &vip->slots[flow->slot];
    plain->tunnel = false;
    if (meta->flags & META_RETURN) {
        if (UNLIKELY(!flow_from_server(table, flow, meta))) {
            return false;
        }
        plain->src = &vip->addresses[flow->address];
        plain->dst = &flow->client;
        plain->sport = vip->port;
        plain->dport = flow->client_port;
    } else {
        if (UNLIKELY(!flow_from_client(table, flow, meta) ||
                     __atomic_load_n(&slot->state, __ATOMIC_RELAXED) == SLOT_FAILED)) {
            return false;
        }
        if (vip_is_one_way(vip)) {
            if (!plain_settle_tunnel(worker, packet, meta, vip, slot, plain)) {
                return false;
            }
        } else {
            plain->src = &table->sources[flow->source].is.address;
            plain->dst = &slot->address;
            plain->sport = flow->nat_port;
            plain->dport = slot->port;
        }
    }
    plain->sink = sink_of(&vip->workers[worker->index]);
    lbrl_sink_prefetch(plain->sink, flow->slot);
    side_prefetch(worker->lb, plain->sink, flow);
    return true;
}

/* As rewrite_packet(), for IPv4 and a complete checksum: all words that change are summed up once. */
static inline void plain_rewrite_v4(uint8_t *ip, uint8_t *tcp, const plain_t *plain)
{
    uint32_t src = ip_v4(plain->src);
    uint32_t dst = ip_v4(plain->dst);
    uint32_t ports;
    memcpy(&ports, &plain->sport, sizeof(ports));
    uint64_t delta = (uint64_t)src + dst + (uint32_t)~load32(ip + 12) + (uint32_t)~load32(ip + 16);
    uint64_t header = delta + (uint16_t)~load16(ip + 10) + (uint16_t)~swap16(0x0100);
    uint64_t segment = delta + ports + (uint32_t)~load32(tcp) + (uint16_t)~load16(tcp + 16);
    store32(ip + 12, src);
    store32(ip + 16, dst);
    ip[8]--;
    store16(ip + 10, sum_finish(header));
    store32(tcp, ports);
    store16(tcp + 16, sum_finish(segment));
}

static inline void plain_forward(const lbrl_worker_t *worker, lbrl_packet_t *packet,
                                 const meta_t *meta, const plain_t *plain)
{
    bool from_client = !(meta->flags & META_RETURN);
    uint8_t *tcp = packet->data + meta->transport;
    track_packet(worker, plain->flow, plain->sink, packet, meta, from_client);
    track_plain(worker, plain->flow, plain->sink, tcp, meta->payload, from_client);
    if (plain->tunnel) {
        plain->flow->server_ack = plain->flow->client_end; /* what it will have acknowledged */
        tunnel_wrap_v4(packet, plain->src, plain->dst);
    } else if (LIKELY(!(meta->flags & META_V6) && !(packet->flags & LBRL_PACKET_NEEDS_CSUM))) {
        plain_rewrite_v4(packet->data, tcp, plain);
    } else {
        translation_t to = {plain->src, plain->dst, sum_ip(plain->src) + sum_ip(plain->dst),
                            plain->sport, plain->dport};
        rewrite_packet(packet, meta, &to);
    }
}

#endif
