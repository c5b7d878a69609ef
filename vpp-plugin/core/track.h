/* What packets say about their flow: TCP and UDP state, and the features that follow from it. */
#ifndef LBRL_TRACK_H
#define LBRL_TRACK_H

#include "side.h"

/* Everything but plain segments of established flows. */
void track_tcp_slow(lbrl_worker_t *worker, const flow_ref_t *ref, const lbrl_packet_t *packet,
                    const meta_t *meta, bool from_client);

/* `datagrams`: as the wire carries the packet. */
void track_udp(lbrl_worker_t *worker, const flow_ref_t *ref, uint32_t datagrams, bool from_client);

/* Packets that the wire carries of one that the kernel hands over. */
static inline uint32_t track_segments(const lbrl_packet_t *packet, const meta_t *meta)
{
    if (LIKELY(packet->gso_type == LBRL_GSO_NONE || meta->payload == 0)) {
        return 1;
    }
    return (meta->payload + packet->gso_size - 1) / packet->gso_size;
}

static inline uint32_t track_window(const flow_t *flow, bool of_client)
{
    uint32_t scale = of_client ? flow->scales & 15u : flow->scales >> 4;
    if (flow->flags & FLOW_QUARANTINE) {
        return 0xffffu << scale; /* the windows have made room for a timestamp */
    }
    return (uint32_t)(of_client ? flow->client_window : flow->server_window) << scale;
}

/* Whether a segment overlaps what its receiver may take, or repeats what that has just taken. */
static inline bool track_acceptable(const flow_t *flow, bool from_client, uint32_t sequence,
                                    uint32_t size)
{
    uint32_t next = from_client ? flow->server_ack : flow->client_ack; /* that the receiver wants */
    if (LIKELY(sequence - next <= 0xffffu && size <= 0xffffu)) {
        return true; /* within every window, as windows are read here */
    }
    uint32_t window = track_window(flow, !from_client) | 0xffffu;
    return (int32_t)(sequence - next) <= (int32_t)window &&
           (int32_t)(sequence + size - next) >= -(int32_t)window;
}

/* One-way, what the server sends is never seen: it will have acknowledged all that the client sent, and sent all that the client
 * acknowledges. */
static inline void track_suppose_server(flow_t *flow)
{
    flow->server_ack = flow->client_end;
    flow->server_end = flow->client_ack + INT32_MAX;
}

/* Whether an acknowledgement is one of the client's SYN, or of data that came with it. */
static inline bool track_acknowledges_syn(const flow_t *flow, uint32_t ack)
{
    return ack - flow->server_ack - 1 <= flow->client_end - flow->server_ack - 1;
}

/* Whether a client's segment on a flow in SYN_ACK proves that it has seen the server's SYN-ACK. */
static inline bool track_confirms(const flow_t *flow, uint8_t flags, uint32_t ack)
{
    return (flags & TCP_ACK) && ack - flow->client_ack - 1 < flow->server_end - flow->client_ack;
}

/* One byte that was acknowledged long ago: it asks whether the other end is still there (RFC 9293, 3.8.4). */
static inline bool track_keep_alive(const flow_t *flow, uint32_t sequence, uint32_t payload)
{
    return payload == 1 && sequence + 1 == flow->client_end;
}

/* New data from a side that has not closed: a closing flow was not at its end after all. */
static inline bool track_revives(const flow_t *flow, bool from_client, uint32_t sequence,
                                 uint32_t payload)
{
    uint8_t own = from_client ? FLOW_CLIENT_FIN : FLOW_SERVER_FIN;
    uint32_t known = from_client ? flow->client_end : flow->server_end;
    return flow->state == LBRL_FLOW_CLOSING && payload &&
           !(flow->flags & (own | FLOW_QUARANTINE)) && (int32_t)(sequence + payload - known) > 0;
}

/* Features of one client segment of an established flow. */
static inline void track_features(lbrl_sink_t *sink, const flow_t *flow, uint32_t sequence,
                                  uint32_t payload, uint32_t ack, uint16_t window)
{
    if (payload) {
        if (UNLIKELY(sequence != flow->client_end)) {
            if ((int32_t)(sequence - flow->client_end) > 0) {
                lbrl_sink_count(sink, slot_in(sink, flow), LBRL_COUNTER_N_OOO, 1);
            } else if ((int32_t)(sequence + payload - flow->client_end) <= 0 &&
                       !track_keep_alive(flow, sequence, payload)) {
                lbrl_sink_count(sink, slot_in(sink, flow), LBRL_COUNTER_N_RTR, 1);
            }
        }
    } else if (ack == flow->client_ack && window == flow->client_window &&
               sequence == flow->client_end) {
        lbrl_sink_count(sink, slot_in(sink, flow), LBRL_COUNTER_N_DPK, 1);
    }
}

/* Moves the sender's side on: highest sequence, acknowledgement, window. An acknowledgement of what the other side has not
 * sent is a guess (RFC 5961, section 5), and would put what that side sends next outside its window. */
static inline void track_advance(flow_t *flow, bool from_client, uint32_t end, uint32_t ack,
                                 uint16_t window)
{
    uint32_t *own_end = from_client ? &flow->client_end : &flow->server_end;
    uint32_t *own_ack = from_client ? &flow->client_ack : &flow->server_ack;
    uint32_t sent = from_client ? flow->server_end : flow->client_end;
    if ((int32_t)(end - *own_end) > 0) {
        *own_end = end;
    }
    if (ack - *own_ack - 1 < sent - *own_ack) {
        *own_ack = ack;
    }
    if (from_client) {
        flow->client_window = window;
    } else {
        flow->server_window = window;
    }
}

/* A segment without SYN, FIN and RST on an established flow. One outside the window moves nothing. */
static inline void track_plain(const lbrl_worker_t *worker, flow_t *flow, lbrl_sink_t *sink,
                               const uint8_t *tcp, uint32_t payload, bool from_client)
{
    uint32_t sequence = get32(tcp + 4);
    uint32_t ack = get32(tcp + 8);
    uint16_t window = get16(tcp + 14);
    if (UNLIKELY(!track_acceptable(flow, from_client, sequence, payload))) {
        return;
    }
    if (from_client && lbrl_sink_level(sink) != LBRL_LEVEL_OFF) {
        track_features(sink, flow, sequence, payload, ack, window);
    }
    track_advance(flow, from_client, sequence + payload, ack, window);
    flow->last_ms = worker->now_ms;
}

static inline void track_tcp(lbrl_worker_t *worker, const flow_ref_t *ref,
                             const lbrl_packet_t *packet, const meta_t *meta, bool from_client)
{
    if (ref->flow->state == LBRL_FLOW_ESTABLISHED &&
        !(meta->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST))) {
        track_plain(worker, ref->flow, sink_of(ref->counts), packet->data + meta->transport,
                    meta->payload, from_client);
    } else {
        track_tcp_slow(worker, ref, packet, meta, from_client);
    }
}

/* What the wire carries of a packet, and how long its flow has lived if it brings data. */
static inline void track_packet(const lbrl_worker_t *worker, const flow_t *flow, lbrl_sink_t *sink,
                                const lbrl_packet_t *packet, const meta_t *meta, bool from_client)
{
    uint32_t segments = track_segments(packet, meta);
    lbrl_sink_packet(sink, slot_in(sink, flow), segments, packet->length, meta->payload != 0,
                     from_client);
    if (side_is(sink)) {
        side_packet(worker, sink, flow, packet, meta, segments, from_client);
    } else if (meta->payload && lbrl_sink_level(sink) != LBRL_LEVEL_OFF &&
               !(sink->one_way && (flow->flags & FLOW_JOINED))) {
        lbrl_sink_sample(sink, slot_in(sink, flow), LBRL_CHANNEL_FLOW_DURATION,
                         flow_age(flow, worker->now_us), worker->now_us);
    }
}

#endif
