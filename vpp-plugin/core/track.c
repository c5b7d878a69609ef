#include "track.h"

/* One TCP segment. */
typedef struct segment {
    const uint8_t *tcp;
    uint32_t sequence, ack, payload;
    uint16_t window;
    uint8_t flags;
    bool from_client;
} segment_t;

static void complete(lbrl_worker_t *worker, const flow_ref_t *ref)
{
    if (!(ref->flow->flags & FLOW_COMPLETED)) {
        ref->flow->flags |= FLOW_COMPLETED;
        lbrl_sink_flow_completed(sink_of(ref->counts), slot_in(sink_of(ref->counts), ref->flow),
                                 flow_age(ref->flow, worker->now_us), worker->now_us);
        if (side_is(sink_of(ref->counts))) {
            side_completed(worker, sink_of(ref->counts), ref->flow);
        }
    }
}

/* ------------------------------------------------------------------------------- TCP handshake */

/* A SYN on a half-open flow: the same again, or a new attempt from the same port. Once the server has answered, another one may
 * also be an old duplicate or forged: the server's next SYN-ACK says which it took. */
static void client_syn(const flow_ref_t *ref, const segment_t *segment)
{
    flow_t *flow = ref->flow;
    uint32_t end = segment->sequence + 1 + segment->payload;
    if (end == flow->client_end) {
        lbrl_sink_count(sink_of(ref->counts), slot_in(sink_of(ref->counts), flow),
                        LBRL_COUNTER_N_RTR, 1);
        return;
    }
    if (flow->state == LBRL_FLOW_SYN_ACK) {
        return;
    }
    flow->client_end = end;
    flow->server_ack = segment->sequence;
    /* one-way, the server's half was made up when the flow began */
    uint8_t server = vip_is_one_way(ref->vip) ? flow->scales & 0xf0u : 0;
    flow->scales = (uint8_t)(server | lbrl_tcp_options(segment->tcp).scale);
}

/* Takes over the numbers of a SYN-ACK. */
static void adopt(flow_t *flow, const segment_t *segment, const tcp_options_t *options)
{
    flow->scales =
        options->has_scale ? (uint8_t)((flow->scales & 15u) | (uint32_t)options->scale << 4) : 0;
    flow->server_end = segment->sequence + 1 + segment->payload;
    flow->client_ack = segment->sequence;
    flow->server_ack = segment->ack;
    flow->server_window = segment->window;
}

static void server_syn_ack(const flow_ref_t *ref, const segment_t *segment)
{
    flow_t *flow = ref->flow;
    if (!(segment->flags & TCP_ACK) ||
        (flow->state == LBRL_FLOW_SYN && !track_acknowledges_syn(flow, segment->ack))) {
        return; /* acknowledges nothing that the client sent */
    }
    if (segment->ack - flow->server_ack > flow->client_end - flow->server_ack) {
        flow->client_end = segment->ack; /* it took another SYN */
    }
    tcp_options_t options = lbrl_tcp_options(segment->tcp);
    adopt(flow, segment, &options);
    __atomic_store_n(&flow->state, LBRL_FLOW_SYN_ACK, __ATOMIC_RELEASE);
}

static void restart_clock(const lbrl_worker_t *worker, flow_t *flow)
{
    flow->flags &= (uint8_t)~FLOW_COMPLETED;
    flow->start_us = (uint32_t)worker->now_us;
    flow->start_high = (uint8_t)(worker->now_us >> 32);
}

/* A SYN-ACK of a server on an established flow. If its numbers are not the flow's, both ends have forgotten that connection
 * and begin another between the same ports. It comes from the server itself, so nobody else can have made it up; the
 * client's SYN alone proves nothing and moves nothing (RFC 5961, section 4). */
static void server_begins_anew(lbrl_worker_t *worker, const flow_ref_t *ref,
                               const segment_t *segment)
{
    flow_t *flow = ref->flow;
    bool repeats = flow->client_end - segment->ack <= UINT16_MAX &&
                   track_acceptable(flow, false, segment->sequence, segment->payload);
    if (!(segment->flags & TCP_ACK) || repeats) {
        return;
    }
    lbrl_sink_t *sink = sink_of(ref->counts);
    tcp_options_t options = lbrl_tcp_options(segment->tcp);
    if (side_is(sink)) {
        side_close(worker, sink, flow);
    }
    flow->flags &= (uint8_t)~(FLOW_CLIENT_FIN | FLOW_SERVER_FIN);
    restart_clock(worker, flow);
    adopt(flow, segment, &options);
    flow->client_end = segment->ack;
    flow->last_ms = worker->now_ms;
    if (side_is(sink)) {
        side_begin(worker, sink, flow)->mss = options.mss;
    }
}

/* ------------------------------------------------------------------------------- TCP close */

/* RFC 5961, 3.2: a receiver believes a RST with exactly the number that it wants, and challenges the sender of another one
 * in its window. Between the two, that number is what the receiver has acknowledged last, or what the sender has sent up to;
 * netfilter takes these two as well. Any other RST is forwarded and moves nothing: the challenge's answer is exact. */
static bool reset_credible(const flow_ref_t *ref, const segment_t *segment)
{
    const flow_t *flow = ref->flow;
    if (flow->state == LBRL_FLOW_SYN && !segment->from_client) {
        return (segment->flags & TCP_ACK) && segment->ack == flow->client_end;
    }
    uint32_t next = segment->from_client ? flow->server_ack : flow->client_ack;
    if (flow_is_half_open(flow->state)) {
        uint32_t end = segment->from_client ? flow->client_end : flow->server_end;
        return segment->sequence - next <= end - next;
    }
    uint32_t end = segment->from_client ? flow->client_end : flow->server_end;
    return segment->sequence == next || segment->sequence == end;
}

static void on_reset(lbrl_worker_t *worker, const flow_ref_t *ref, const segment_t *segment)
{
    flow_t *flow = ref->flow;
    if (!reset_credible(ref, segment)) {
        return;
    }
    if (flow_is_half_open(flow->state)) {
        if (segment->from_client && !vip_is_one_way(ref->vip)) {
            /* Who forges a SYN can forge its RST: the flow stays among the half-open ones, which are bounded, and so are
             * the NAT ports that they hold. */
            flow_set_open(worker, ref, false);
            return;
        }
        flow->flags |= FLOW_CLIENT_FIN | FLOW_SERVER_FIN; /* never was open: no data revives it */
    }
    flow->flags |= FLOW_RESET;
    flow->last_ms = worker->now_ms;
    flow_move(worker, ref, LBRL_FLOW_CLOSING);
}

/* The server closed first, or before it heard that the client had, and will sit in TIME-WAIT: its end of the 4-tuple must
 * rest. */
static void quarantine(lbrl_worker_t *worker, const flow_ref_t *ref, const segment_t *segment)
{
    tcp_options_t options = lbrl_tcp_options(segment->tcp);
    ref->flow->flags |= FLOW_QUARANTINE;
    if (options.has_timestamp) {
        ref->flow->flags |= FLOW_TIMESTAMPS;
        ref->flow->last_timestamp = segment->from_client ? options.timestamp : options.echo;
    }
    flow_rest_port(worker, ref);
}

static void on_fin(lbrl_worker_t *worker, const flow_ref_t *ref, const segment_t *segment)
{
    flow_t *flow = ref->flow;
    uint8_t own = segment->from_client ? FLOW_CLIENT_FIN : FLOW_SERVER_FIN;
    uint8_t other = segment->from_client ? FLOW_SERVER_FIN : FLOW_CLIENT_FIN;
    if (flow->flags & own) {
        return; /* a retransmission */
    }
    flow->flags |= own;
    if (vip_is_one_way(ref->vip)) {
        complete(worker, ref); /* the server's FIN is never seen */
    } else if (flow->flags & other) {
        complete(worker, ref);
        if (segment->from_client || (int32_t)(segment->ack - flow->client_end) < 0) {
            quarantine(worker, ref, segment);
        }
    }
    flow_move(worker, ref, LBRL_FLOW_CLOSING);
}

/* ------------------------------------------------------------------------------- TCP */

/* A segment that opens nothing and may move its flow on. */
static void on_segment(lbrl_worker_t *worker, const flow_ref_t *ref, const segment_t *segment)
{
    flow_t *flow = ref->flow;
    if (segment->from_client && flow->state == LBRL_FLOW_SYN_ACK) {
        if (!track_confirms(flow, segment->flags, segment->ack)) {
            return; /* or guesses would move the numbers by which the next guess is judged */
        }
        flow->client_ack = segment->ack;
        flow_move(worker, ref, LBRL_FLOW_ESTABLISHED);
    }
    if (flow->state == LBRL_FLOW_SYN ||
        !track_acceptable(flow, segment->from_client, segment->sequence, segment->payload)) {
        return;
    }
    if (track_revives(flow, segment->from_client, segment->sequence, segment->payload)) {
        flow->flags &= (uint8_t)~FLOW_RESET;
        flow_move(worker, ref, LBRL_FLOW_ESTABLISHED);
    }
    uint32_t end = segment->sequence + segment->payload + ((segment->flags & TCP_FIN) != 0);
    if (segment->from_client && segment->payload && flow->state == LBRL_FLOW_ESTABLISHED) {
        track_features(sink_of(ref->counts), flow, segment->sequence, segment->payload,
                       segment->ack, segment->window);
    }
    if (!(flow->flags & FLOW_QUARANTINE)) {
        track_advance(flow, segment->from_client, end, segment->ack, segment->window);
    }
    flow->last_ms = worker->now_ms;
    if (segment->flags & TCP_FIN && flow->state != LBRL_FLOW_SYN_ACK) {
        on_fin(worker, ref, segment);
    }
}

void track_tcp_slow(lbrl_worker_t *worker, const flow_ref_t *ref, const lbrl_packet_t *packet,
                    const meta_t *meta, bool from_client)
{
    const uint8_t *tcp = packet->data + meta->transport;
    segment_t segment = {tcp,           get32(tcp + 4),  get32(tcp + 8),
                         meta->payload, get16(tcp + 14), meta->tcp_flags,
                         from_client};
    bool half_open = flow_is_half_open(ref->flow->state);
    if (segment.flags & TCP_RST) {
        on_reset(worker, ref, &segment);
    } else if (segment.flags & TCP_SYN) {
        if (half_open && from_client && !(segment.flags & TCP_ACK)) {
            client_syn(ref, &segment);
            flow_set_open(worker, ref, true);
            ref->flow->last_ms = worker->now_ms;
        } else if (half_open && !from_client) {
            server_syn_ack(ref, &segment);
            ref->flow->last_ms = worker->now_ms;
        } else if (ref->flow->state == LBRL_FLOW_ESTABLISHED && !from_client) {
            server_begins_anew(worker, ref, &segment);
        }
    } else {
        on_segment(worker, ref, &segment);
    }
}

/* ------------------------------------------------------------------------------- UDP */

static void await_answer(const flow_ref_t *ref)
{
    if (ref->flow->state == LBRL_FLOW_UDP_NEW && (ref->keep->bits & KEEP_HALF_OPEN)) {
        /* still unanswered: the longest silent is recycled first */
        list_unlink(ref->partition, &ref->partition->half_open, ref->entry);
        list_append(ref->partition, &ref->partition->half_open, ref->entry);
    }
}

/* Port 53: questions share a socket (A and AAAA), so that a flow is over with as many answers as it has had questions. */
static void dns_question(lbrl_worker_t *worker, const flow_ref_t *ref, uint32_t datagrams)
{
    flow_t *flow = ref->flow;
    if (flow->state != LBRL_FLOW_UDP_ANSWERED) {
        flow->unanswered += datagrams;
        await_answer(ref);
        return;
    }
    flow->unanswered = datagrams - 1;
    restart_clock(worker, flow);
    if (side_is(sink_of(ref->counts))) {
        side_begin(worker, sink_of(ref->counts), flow);
    }
    flow_move(worker, ref, LBRL_FLOW_UDP_EXCHANGE);
}

static void dns_answer(lbrl_worker_t *worker, const flow_ref_t *ref, uint32_t datagrams)
{
    flow_t *flow = ref->flow;
    if (flow->unanswered >= datagrams) {
        flow->unanswered -= datagrams;
        if (flow->state == LBRL_FLOW_UDP_NEW) {
            flow_move(worker, ref, LBRL_FLOW_UDP_EXCHANGE);
        }
        return;
    }
    flow->unanswered = 0;
    if (flow->state != LBRL_FLOW_UDP_ANSWERED) {
        complete(worker, ref);
        flow_move(worker, ref, LBRL_FLOW_UDP_ANSWERED);
    }
}

void track_udp(lbrl_worker_t *worker, const flow_ref_t *ref, uint32_t datagrams, bool from_client)
{
    flow_t *flow = ref->flow;
    flow->last_ms = worker->now_ms;
    if (ref->vip->dns) {
        if (from_client) {
            dns_question(worker, ref, datagrams);
        } else {
            dns_answer(worker, ref, datagrams);
        }
    } else if (!from_client) {
        if (flow->state == LBRL_FLOW_UDP_NEW) {
            flow_move(worker, ref, LBRL_FLOW_UDP_EXCHANGE);
        }
    } else if (flow->state == LBRL_FLOW_UDP_EXCHANGE) {
        flow_move(worker, ref, LBRL_FLOW_UDP_STREAM);
    } else {
        await_answer(ref);
    }
}
