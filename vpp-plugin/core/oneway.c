#include "oneway.h"

#include "allocate.h"
#include "fragment.h"
#include "pick.h"
#include "reply.h"
#include "track.h"
#include "tunnel.h"

/* Bytes of the largest IP packet that this one becomes on the wire. */
static uint32_t wire_size(const lbrl_packet_t *packet, const meta_t *meta)
{
    return packet->gso_type != LBRL_GSO_NONE && meta->payload > packet->gso_size
               ? packet->length - meta->payload + packet->gso_size
               : packet->length;
}

/* Whether a packet must not be put into the tunnel whole. Where both headers are IPv4 and fragments are allowed, the kernel
 * makes them of the outer packet, if there can be one: its length has 16 bits. */
static bool too_big(const vip_t *vip, const slot_t *slot, const lbrl_packet_t *packet,
                    const meta_t *meta)
{
    bool outer_v6 = !ip_is_v4(&slot->address);
    uint32_t size = wire_size(packet, meta) + tunnel_overhead(outer_v6);
    return vip->forwarding == LBRL_FORWARD_GRE && size > vip->mtu &&
           (outer_v6 || tunnel_keeps_whole(packet->data) || size > UINT16_MAX);
}

static lbrl_verdict_t answer_too_big(lbrl_worker_t *worker, const vip_t *vip, const slot_t *slot,
                                     lbrl_packet_t *packet, const meta_t *meta)
{
    if (meta->kind != META_FLOW) {
        return drop(packet,
                    LBRL_DROP_TOO_BIG); /* RFC 1122, 3.2.2: none about errors and later fragments */
    }
    return reply_too_big(worker, packet, meta,
                         vip->mtu - tunnel_overhead(!ip_is_v4(&slot->address)));
}

/* In a tunnel nobody behind us finishes what offload metadata promises, so that it must be true. */
static bool offload_sound(const lbrl_packet_t *packet, const meta_t *meta)
{
    bool partial = (packet->flags & LBRL_PACKET_NEEDS_CSUM) != 0;
    if (packet->gso_type == LBRL_GSO_NONE) {
        return !partial || meta->kind == META_FLOW;
    }
    return partial && meta->kind == META_FLOW &&
           (packet->gso_type == LBRL_GSO_UDP_L4) == (meta->protocol == PROTO_UDP);
}

/* Of an outer packet; a super-packet's segments take the numbers that follow. */
static uint16_t outer_id(lbrl_worker_t *worker, const lbrl_packet_t *packet)
{
    if (LIKELY(tunnel_keeps_whole(packet->data))) {
        return 0;
    }
    uint16_t id = (uint16_t)fragment_id_next(worker);
    if (packet->gso_type != LBRL_GSO_NONE) {
        worker->fragment_ids += packet->length / packet->gso_size;
    }
    return id;
}

static lbrl_verdict_t deliver(lbrl_worker_t *worker, const vip_t *vip, const slot_t *slot,
                              lbrl_packet_t *packet, const meta_t *meta)
{
    if (vip->forwarding == LBRL_FORWARD_L3DSR) {
        bool has_transport = meta->kind != META_FRAGMENT;
        tunnel_mark(packet, &slot->address, vip->dscp, has_transport ? meta->transport : 0);
        return LBRL_VERDICT_FORWARD;
    }
    if (UNLIKELY(!offload_sound(packet, meta))) {
        return drop(packet, LBRL_DROP_BAD_HEADER);
    }
    const ip_t *source = &worker->table->tunnel_sources[!ip_is_v4(&slot->address)];
    if (UNLIKELY(ip_is_zero(source))) {
        return drop(packet, LBRL_DROP_NO_TUNNEL_SOURCE);
    }
    if (UNLIKELY(!tunnel_wrap(packet, source, &slot->address, outer_id(worker, packet)))) {
        return drop(packet, LBRL_DROP_NO_HEADROOM);
    }
    return LBRL_VERDICT_FORWARD;
}

lbrl_verdict_t one_way_pass_on(lbrl_worker_t *worker, const vip_t *vip, uint32_t slot,
                               lbrl_packet_t *packet, const meta_t *meta)
{
    if (UNLIKELY(too_big(vip, &vip->slots[slot], packet, meta))) {
        return answer_too_big(worker, vip, &vip->slots[slot], packet, meta);
    }
    return deliver(worker, vip, &vip->slots[slot], packet, meta);
}

/* ------------------------------------------------------------------------------- flows */

/* Only the client is heard, so that nothing proves a SYN on an established flow true: it moves no numbers, or whoever forged it
 * could close the flow by them. Instead every segment keeps the entry, and with it the backend, also of a connection begun anew
 * over one that its server has ended unseen. A forger gains an entry that stays, which a SYN of his own would get him. */
void one_way_track(lbrl_worker_t *worker, const flow_ref_t *ref, const lbrl_packet_t *packet,
                   const meta_t *meta)
{
    flow_t *flow = ref->flow;
    if (UNLIKELY(!(flow->flags & FLOW_OPEN) && !flow_is_closed(flow->state))) {
        flow_set_open(worker, ref, true);
    }
    if (meta->protocol == PROTO_UDP) {
        flow->last_ms = worker->now_ms;
        if (flow->state == LBRL_FLOW_UDP_NEW) {
            flow_move(worker, ref, LBRL_FLOW_UDP_STREAM);
        }
        return;
    }
    if (flow->state == LBRL_FLOW_SYN &&
        (meta->tcp_flags & (TCP_SYN | TCP_RST | TCP_ACK)) == TCP_ACK) {
        /* it acknowledges a SYN-ACK that we have not seen */
        flow->client_ack =
            get32(packet->data + meta->transport + 8) - 1; /* or this would repeat it */
        track_suppose_server(flow);
        flow_move(worker, ref, LBRL_FLOW_ESTABLISHED);
    }
    if (!(meta->tcp_flags & TCP_RST)) {
        flow->last_ms = worker->now_ms;
    }
    track_tcp(worker, ref, packet, meta, true);
    if (flow->state != LBRL_FLOW_SYN) {
        track_suppose_server(flow);
    }
}

lbrl_verdict_t one_way_flow(lbrl_worker_t *worker, const flow_ref_t *ref, lbrl_packet_t *packet,
                            const meta_t *meta)
{
    if (UNLIKELY(too_big(ref->vip, ref->slot, packet, meta))) {
        return answer_too_big(worker, ref->vip, ref->slot, packet, meta);
    }
    track_packet(worker, ref->flow, sink_of(ref->counts), packet, meta, true);
    one_way_track(worker, ref, packet, meta);
    if (UNLIKELY(meta->flags & META_FIRST_FRAGMENT)) {
        fragment_first(worker, packet, meta, ref);
    }
    return deliver(worker, ref->vip, ref->slot, packet, meta);
}

/* Sends a packet where configured weights say, and remembers nothing. */
static lbrl_verdict_t send_untracked(lbrl_worker_t *worker, lbrl_packet_t *packet,
                                     const flow_birth_t *birth, uint32_t slot)
{
    if (slot == LBRL_NO_SLOT) {
        return drop(packet, LBRL_DROP_NO_BACKEND);
    }
    return one_way_pass_on(worker, birth->vip, slot, packet, birth->meta);
}

lbrl_verdict_t one_way_stranger(lbrl_worker_t *worker, lbrl_packet_t *packet, flow_birth_t *birth)
{
    const meta_t *meta = birth->meta;
    const vip_t *vip = birth->vip;
    partition_t *partition = &worker->lb->partitions[meta->partition];
    bool pressed = allocate_pressure(partition);
    birth->joined =
        meta->protocol == PROTO_TCP && (meta->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN;
    birth->slot = LBRL_NO_SLOT;
    if (pressed || birth->joined) {
        birth->slot = pick_fallback(vip, meta);
        bool ends = (meta->tcp_flags & (TCP_RST | TCP_SYN)) != 0 && birth->joined;
        if (pressed && birth->slot != LBRL_NO_SLOT && !birth->joined) {
            lbrl_sink_untracked(sink_of(&vip->workers[worker->index]), birth->slot);
        }
        /* a flow of a failed backend would end with the next packet */
        if (pressed || ends || birth->slot == LBRL_NO_SLOT ||
            __atomic_load_n(&vip->slots[birth->slot].state, __ATOMIC_RELAXED) == SLOT_FAILED) {
            return send_untracked(worker, packet, birth, birth->slot);
        }
    }
    flow_ref_t ref;
    uint8_t reason = flow_make(worker, partition, birth, &ref);
    if (reason) {
        return drop(packet, reason);
    }
    if (UNLIKELY(too_big(vip, ref.slot, packet, meta))) {
        return answer_too_big(worker, vip, ref.slot, packet, meta);
    }
    track_packet(worker, ref.flow, sink_of(ref.counts), packet, meta, true);
    if (UNLIKELY(meta->flags & META_FIRST_FRAGMENT)) {
        fragment_first(worker, packet, meta, &ref);
    }
    return deliver(worker, vip, ref.slot, packet, meta);
}
