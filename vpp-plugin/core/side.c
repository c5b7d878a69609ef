#include "side.h"

#include "pick.h"
#include "track.h"

/* All that a usual packet passes is one function, so that a passage need not be in memory. */
#define HOT static inline __attribute__((always_inline))

/* One TCP segment, or datagram, on its way past the side of its flow. */
typedef struct passage {
    const lbrl_worker_t *worker;
    lbrl_sink_t *sink;
    const flow_t *flow;
    side_t *side;
    const uint8_t *tcp;
    uint32_t slot; /* in the sink */
    uint32_t payload, sequence, ack;
    uint32_t tail; /* payload of the last segment of a super-packet */
    uint16_t gso_size;
    uint8_t flags;
    bool sampled; /* reservoirs are there */
    lbrl_sampling_t sampling;
} passage_t;

HOT void put(const passage_t *p, lbrl_channel_t channel, float value)
{
    if (p->sampled) {
        lbrl_sink_put(p->sink, &p->sampling, true, channel, value);
    }
}

HOT float seconds_since(const lbrl_worker_t *worker, uint64_t then_us)
{
    return (float)(int64_t)(worker->now_us - then_us) * 1e-6f;
}

/* Counts as its backend's load, or no longer. What was counted is taken back whatever the VIP has become. */
static void set_busy(const lbrl_worker_t *worker, const lbrl_sink_t *sink, const flow_t *flow,
                     side_t *side, bool busy)
{
    const vip_t *vip = vip_of(worker->table, flow);
    if (busy != side->busy && vip && (!busy || vip->counts_busy)) {
        side->busy = busy;
        pick_busy(worker, vip, slot_in(sink, flow), sink->era, busy ? 1 : -1);
    }
}

/* Out of line: few packets do this, and it would take registers from those that do not. */
static __attribute__((noinline)) void
turn_active(const lbrl_worker_t *worker, const lbrl_sink_t *sink, const flow_t *flow, side_t *side)
{
    const bool active = !(side->flags & SIDE_ACTIVE);
    side->flags ^= SIDE_ACTIVE;
    lbrl_sink_active(sink, slot_in(sink, flow), active ? 1 : -1, worker->now_us);
    set_busy(worker, sink, flow, side, active);
}

HOT void set_active(const lbrl_worker_t *worker, const lbrl_sink_t *sink, const flow_t *flow,
                    side_t *side, bool active)
{
    if (UNLIKELY(active != ((side->flags & SIDE_ACTIVE) != 0))) {
        turn_active(worker, sink, flow, side);
    }
}

/* Whether there are reservoirs of all channels. */
HOT bool is_sampled(const lbrl_sink_t *sink)
{
    return sink->channels == LBRL_CHANNEL_COUNT;
}

/* The side of a flow that has one. */
HOT side_t *find_side(const lbrl_worker_t *worker, const lbrl_sink_t *sink, const flow_t *flow)
{
    side_t *side = side_of(worker->lb, flow);
    return side->tag == side_tag(sink, flow) ? side : NULL;
}

/* ------------------------------------------------------------------------------- questions and answers */

/* The client has sent something new that an answer may follow. */
HOT void ask(const passage_t *p, uint32_t end)
{
    side_t *side = p->side;
    if (!(side->flags & SIDE_PAID)) {
        side->paid_us = p->worker->now_us;
    }
    side->flags = (uint8_t)((side->flags | SIDE_PAID | SIDE_ASKED) & ~SIDE_ENDED);
    side->asked_us = p->worker->now_us;
    side->asked_end = end;
}

HOT void answer(const passage_t *p)
{
    side_t *side = p->side;
    if (!(side->flags & SIDE_ASKED_AGAIN)) {
        put(p, LBRL_CHANNEL_PT_GEN, seconds_since(p->worker, side->asked_us));
        if (!(side->flags & SIDE_ANSWERED)) {
            put(p, LBRL_CHANNEL_PT_1ST, seconds_since(p->worker, side->paid_us));
        }
    }
    side->flags = (uint8_t)((side->flags | SIDE_ANSWERED) & ~(SIDE_ASKED | SIDE_ASKED_AGAIN));
    lbrl_sink_answered(p->sink, p->slot); /* last: what is kept in registers is needed no more */
}

HOT void answer_handshake(const passage_t *p)
{
    if (!(p->side->flags & SIDE_SHAKEN)) {
        put(p, LBRL_CHANNEL_LAT_SYNACK, flow_age(p->flow, p->worker->now_us));
    }
    p->side->flags |= SIDE_SHAKEN;
}

/* ------------------------------------------------------------------------------- TCP */

/* Where only the client is heard, it tells that the server has answered by acknowledging more. (The echo of a later
 * timestamp would not do: it also comes with whatever follows a bare acknowledgement, as in every upload.) */
HOT void client_acknowledges(const passage_t *p)
{
    side_t *side = p->side;
    bool known = (side->flags & SIDE_HEARD) != 0;
    if (!(p->flags & TCP_ACK) || (known && (int32_t)(p->ack - side->heard) <= 0)) {
        return;
    }
    if (known && (side->flags & SIDE_ASKED)) {
        answer(p);
    }
    side->flags |= SIDE_HEARD;
    side->heard = p->ack;
}

/* A segment of the client that its flow takes note of, neither SYN nor RST. */
HOT void client_segment(const passage_t *p)
{
    side_t *side = p->side;
    const flow_t *flow = p->flow;
    if (p->sink->one_way) {
        answer_handshake(p);
        client_acknowledges(p);
    } else if ((side->flags & (SIDE_ACTIVE | SIDE_ENDED)) == (SIDE_ACTIVE | SIDE_ENDED) &&
               (int32_t)(p->ack - flow->server_end) >= 0) {
        set_active(p->worker, p->sink, flow, side, false);
    }
    if (p->payload) {
        uint32_t end = p->sequence + p->payload;
        if ((int32_t)(end - flow->client_end) > 0) {
            ask(p, end);
            if (flow->state != LBRL_FLOW_CLOSING ||
                track_revives(flow, true, p->sequence, p->payload)) {
                set_active(p->worker, p->sink, flow, side, true);
            }
        } else if ((side->flags & SIDE_ASKED) && !track_keep_alive(flow, p->sequence, p->payload)) {
            side->flags |= SIDE_ASKED_AGAIN;
        }
    }
}

/* Whether the last segment of what the server sent ends an answer. */
HOT bool ends_answer(const passage_t *p)
{
    if (p->flags & (TCP_PSH | TCP_FIN)) {
        return true;
    }
    uint32_t options = (uint32_t)(p->tcp[12] >> 4) * 4u - TCP_HEADER;
    return p->tail + options < (p->gso_size ? p->gso_size + options : p->side->mss);
}

/* The same of the server. */
HOT void server_segment(const passage_t *p)
{
    side_t *side = p->side;
    uint32_t end = p->sequence + p->payload + ((p->flags & TCP_FIN) != 0);
    if ((int32_t)(end - p->flow->server_end) <= 0) {
        return;
    }
    bool heard = (int32_t)(p->ack - side->asked_end) >= 0;
    if (p->payload && heard && (side->flags & SIDE_ASKED)) {
        answer(p);
    }
    if (!(side->flags & SIDE_ASKED) && ends_answer(p)) {
        side->flags |= SIDE_ENDED;
    } else {
        side->flags &= (uint8_t)~SIDE_ENDED;
    }
}

HOT void sample_window(const passage_t *p, bool first)
{
    side_t *side = p->side;
    uint32_t scale = p->flags & TCP_SYN ? 0 : p->flow->scales & 15u;
    uint32_t window = (uint32_t)get16(p->tcp + 14) << scale;
    put(p, LBRL_CHANNEL_WIN, (float)(int32_t)window);
    if (!first) {
        put(p, LBRL_CHANNEL_D_WIN, (float)((int32_t)window - (int32_t)side->window));
    }
    side->window = window;
}

static void syn(const passage_t *p, bool from_client)
{
    side_t *side = p->side;
    bool has_ack = (p->flags & TCP_ACK) != 0;
    uint32_t end = p->sequence + 1 + p->payload;
    bool taken = p->flow->state == LBRL_FLOW_SYN ||
                 (p->flow->state == LBRL_FLOW_SYN_ACK && end == p->flow->client_end);
    if (from_client && side->last_us && !has_ack && taken) {
        side->flags |= side->flags & SIDE_ASKED ? SIDE_SHAKEN | SIDE_ASKED_AGAIN : SIDE_SHAKEN;
        side->asked_end = end;
    } else if (!from_client && has_ack && p->flow->state == LBRL_FLOW_SYN &&
               track_acknowledges_syn(p->flow, p->ack)) {
        answer_handshake(p);
        uint16_t mss = lbrl_tcp_options(p->tcp).mss;
        side->mss = mss < side->mss ? mss : side->mss;
    }
}

HOT void tcp_segment(const passage_t *p, bool from_client, bool quiet)
{
    const flow_t *flow = p->flow;
    if (!quiet && (p->flags & TCP_SYN)) {
        const passage_t copy = *p;
        syn(&copy, from_client);
        return;
    }
    if (!quiet && ((p->flags & TCP_RST) || (flow->state == LBRL_FLOW_SYN && !p->sink->one_way) ||
                   (from_client && flow->state == LBRL_FLOW_SYN_ACK &&
                    !track_confirms(flow, p->flags, p->ack)))) {
        return;
    }
    if (!track_acceptable(flow, from_client, p->sequence, p->payload)) {
        return;
    }
    if (from_client) {
        client_segment(p);
    } else {
        server_segment(p);
    }
}

/* ------------------------------------------------------------------------------- packets */

/* What every packet of a client says, whatever it is. */
HOT void client_packet(const passage_t *p, const lbrl_packet_t *packet, uint32_t segments)
{
    side_t *side = p->side;
    lbrl_slot_counters_t *row = &p->sink->counters[p->slot];
    const float share = segments == 1 ? 1e-6f : 1e-6f / (float)segments;
    uint64_t now_us = p->worker->now_us;
    side->bytes += packet->length;
    put(p, LBRL_CHANNEL_BYTE_P,
        (float)(segments > 1 ? packet->length - p->payload + p->gso_size : packet->length));
    if (p->payload) {
        put(p, LBRL_CHANNEL_BYTE_F_ON, (float)(int64_t)side->bytes);
    }
    if (row->packet_us) {
        put(p, LBRL_CHANNEL_IAT_P, (float)(int64_t)(now_us - row->packet_us) * share);
    }
    if (side->last_us) {
        put(p, LBRL_CHANNEL_IAT_PPF, (float)(int64_t)(now_us - side->last_us) * share);
    }
    row->packet_us = now_us;
}

/* Field by field: what is cleared as a whole stays in memory. */
HOT passage_t passage_of(const lbrl_worker_t *worker, lbrl_sink_t *sink, const flow_t *flow,
                         side_t *side, bool sampled)
{
    passage_t p;
    p.worker = worker;
    p.sink = sink;
    p.flow = flow;
    p.side = side;
    p.slot = slot_in(sink, flow);
    p.tcp = NULL;
    p.payload = p.sequence = p.ack = p.tail = 0;
    p.gso_size = 0;
    p.flags = 0;
    p.sampled = sampled;
    if (sampled) {
        p.sampling = lbrl_sink_begin(sink, p.slot, lbrl_sink_random_index(sink), worker->now_us);
    }
    return p;
}

/* A packet of a flow that has a side. `quiet`: one TCP segment that only moves an established flow on. As constants,
 * `sampled`, `from_client` and `quiet` leave short ways. */
HOT void pass(const lbrl_worker_t *worker, lbrl_sink_t *sink, const flow_t *flow, side_t *side,
              const lbrl_packet_t *packet, const meta_t *meta, uint32_t segments, bool sampled,
              bool from_client, bool quiet)
{
    passage_t p = passage_of(worker, sink, flow, side, sampled);
    const bool first = side->last_us == 0;
    p.payload = meta->payload;
    p.gso_size = segments > 1 ? packet->gso_size : 0;
    if (sampled && meta->payload) {
        put(&p, LBRL_CHANNEL_FLOW_DURATION, flow_age(flow, worker->now_us));
    }
    if (from_client) {
        client_packet(&p, packet, segments);
    }
    if (quiet || meta->protocol == PROTO_TCP) {
        p.tcp = packet->data + meta->transport;
        p.sequence = get32(p.tcp + 4);
        p.ack = get32(p.tcp + 8);
        p.flags = meta->tcp_flags;
        p.tail = segments > 1 ? meta->payload - (segments - 1) * packet->gso_size : meta->payload;
        tcp_segment(&p, from_client, quiet);
        if (from_client && (quiet || !(p.flags & TCP_RST))) {
            sample_window(&p, first);
        }
    } else if (from_client) {
        ask(&p, 0);
    } else if (side->flags & SIDE_ASKED) {
        answer(&p);
    }
    if (from_client) {
        side->last_us = worker->now_us;
    }
}

/* Where not all channels are sampled, or the flow has no side. */
static void pass_in_part(const lbrl_worker_t *worker, lbrl_sink_t *sink, const flow_t *flow,
                         side_t *side, const lbrl_packet_t *packet, const meta_t *meta,
                         uint32_t segments, bool from_client)
{
    if (meta->payload && !(sink->one_way && (flow->flags & FLOW_JOINED))) {
        lbrl_sink_sample(sink, slot_in(sink, flow), LBRL_CHANNEL_FLOW_DURATION,
                         flow_age(flow, worker->now_us), worker->now_us);
    }
    if (side) {
        pass(worker, sink, flow, side, packet, meta, segments, false, from_client, false);
    }
}

void side_packet(const lbrl_worker_t *worker, lbrl_sink_t *sink, const flow_t *flow,
                 const lbrl_packet_t *packet, const meta_t *meta, uint32_t segments,
                 bool from_client)
{
    side_t *side = find_side(worker, sink, flow);
    if (UNLIKELY(!side || !is_sampled(sink))) {
        pass_in_part(worker, sink, flow, side, packet, meta, segments, from_client);
    } else if (UNLIKELY(flow->state != LBRL_FLOW_ESTABLISHED || segments > 1 ||
                        (meta->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)))) {
        pass(worker, sink, flow, side, packet, meta, segments, true, from_client, false);
    } else if (from_client) {
        pass(worker, sink, flow, side, packet, meta, 1, true, true, true);
    } else {
        pass(worker, sink, flow, side, packet, meta, 1, true, false, true);
    }
}

/* ------------------------------------------------------------------------------- a flow's life */

side_t *side_begin(const lbrl_worker_t *worker, const lbrl_sink_t *sink, const flow_t *flow)
{
    side_t *side = side_of(worker->lb, flow);
    *side = (side_t){.tag = side_tag(sink, flow)};
    return side;
}

void side_open(const lbrl_worker_t *worker, lbrl_sink_t *sink, const flow_t *flow,
               const flow_birth_t *birth)
{
    lbrl_slot_counters_t *row = &sink->counters[slot_in(sink, flow)];
    side_t *side = side_begin(worker, sink, flow);
    const bool sampled = is_sampled(sink) && row->new_flow_us;
    passage_t p = passage_of(worker, sink, flow, side, sampled);
    side->mss = birth->options.mss;
    put(&p, LBRL_CHANNEL_IAT_F, seconds_since(worker, row->new_flow_us));
    row->new_flow_us = worker->now_us;
    if (birth->meta->protocol != PROTO_TCP) {
        return;
    }
    set_busy(worker, sink, flow, side, true); /* it was sent here to ask */
    if (birth->meta->payload) {               /* fast open */
        ask(&p, flow->client_end);
        set_active(worker, sink, flow, side, true);
    }
}

void side_completed(const lbrl_worker_t *worker, lbrl_sink_t *sink, const flow_t *flow)
{
    const side_t *side = find_side(worker, sink, flow);
    if (side) {
        lbrl_sink_sample(sink, slot_in(sink, flow), LBRL_CHANNEL_BYTE_F, (float)side->bytes,
                         worker->now_us);
    }
}

void side_close(const lbrl_worker_t *worker, const lbrl_sink_t *sink, const flow_t *flow)
{
    side_t *side = find_side(worker, sink, flow);
    if (side) {
        set_active(worker, sink, flow, side, false);
        set_busy(worker, sink, flow, side, false);
    }
}

void side_age(const lbrl_worker_t *worker, const lbrl_sink_t *sink, const flow_t *flow)
{
    side_t *side = find_side(worker, sink, flow);
    if (!side || !((side->flags & SIDE_ACTIVE) || side->busy)) {
        return;
    }
    const uint64_t limit_us = SIDE_ACTIVE_MS * UINT64_C(1000);
    const uint64_t since_us =
        side->flags & SIDE_PAID
            ? worker->now_us - side->asked_us
            : (worker->now_us - flow_start_us(flow)) & 0xffffffffffu; /* it has not asked yet */
    if (since_us > limit_us) {
        set_active(worker, sink, flow, side, false);
        set_busy(worker, sink, flow, side, false);
    }
}
