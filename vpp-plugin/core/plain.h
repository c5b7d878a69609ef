/*
 * The common case in straight lines: a plain segment (META_PLAIN) of an established connection whose backend has not
 * failed. It does what forward() in process.c does, in two short passes: plain_settle() follows the chain from nominee to
 * translation, plain_forward() rewrites and records. Processors overlap many short steps, but not long ones.
 */
#ifndef LBRL_PLAIN_H
#define LBRL_PLAIN_H

#include "rewrite.h"
#include "track.h"

/* What plain_settle() found out. */
typedef struct plain {
    flow_t *flow; /* NULL: not such a segment */
    lbrl_sink_t *sink;
    translation_t to;
} plain_t;

static inline bool plain_is(const meta_t *meta)
{
    return (meta->flags & META_PLAIN) && meta->kind == META_FLOW && meta->candidate != FLOW_NONE;
}

/* Verifies the nominee and looks up what its translation needs; false leaves the packet to the long way. */
static inline bool plain_settle(const lbrl_worker_t *worker, const meta_t *meta, plain_t *plain)
{
    const lbrl_t *lb = worker->lb;
    const table_t *table = worker->table;
    flow_t *flow = &lb->arena.flows[meta->partition * lb->partition_flows + meta->candidate];
    if (UNLIKELY(flow->state != LBRL_FLOW_ESTABLISHED)) {
        return false;
    }
    const vip_t *vip = table->vips[flow->vip];
    const slot_t *slot = &vip->slots[flow->slot];
    if (meta->flags & META_RETURN) {
        if (UNLIKELY(!flow_from_server(table, flow, meta))) {
            return false;
        }
        plain->to = translation_to_client(vip, flow);
    } else {
        if (UNLIKELY(!flow_from_client(table, flow, meta) ||
                     __atomic_load_n(&slot->state, __ATOMIC_RELAXED) == SLOT_FAILED)) {
            return false;
        }
        plain->to = translation_to_server(table, slot, flow);
    }
    plain->flow = flow;
    plain->sink = sink_of(&vip->workers[worker->index]);
    lbrl_sink_prefetch(plain->sink, flow->slot);
    return true;
}

/* As rewrite_packet(), for IPv4 and a complete checksum. */
static inline void plain_rewrite_v4(uint8_t *ip, uint8_t *tcp, const translation_t *to)
{
    uint32_t delta =
        to->sum + (uint16_t)~sum_fold(sum_fold64((uint64_t)load32(ip + 12) + load32(ip + 16)));
    store32(ip + 12, ip_v4(to->src));
    store32(ip + 16, ip_v4(to->dst));
    ip[8]--;
    store16(ip + 10, sum_update(load16(ip + 10), delta + (uint16_t)~swap16(0x0100)));
    uint64_t sum = (uint64_t)to->sport + to->dport + (uint32_t)~load32(tcp) +
                   (uint16_t)~load16(tcp + 16) + delta;
    store16(tcp, to->sport);
    store16(tcp + 2, to->dport);
    store16(tcp + 16, (uint16_t)~sum_fold(sum_fold64(sum)));
}

static inline void plain_forward(const lbrl_worker_t *worker, lbrl_packet_t *packet,
                                 const meta_t *meta, const plain_t *plain)
{
    bool from_client = !(meta->flags & META_RETURN);
    uint8_t *tcp = packet->data + meta->transport;
    track_packet(worker, plain->flow, plain->sink, packet, meta, from_client);
    track_plain(worker, plain->flow, plain->sink, tcp, meta->payload, from_client);
    if (LIKELY(!(meta->flags & META_V6) && !(packet->flags & LBRL_PACKET_NEEDS_CSUM))) {
        plain_rewrite_v4(packet->data, tcp, &plain->to);
    } else {
        rewrite_packet(packet, meta, &plain->to);
    }
}

#endif
