/*
 * The packet path: parse and hash all, prefetch all, look up all, act on all. Every packet ends in exactly one verdict
 * and is counted once.
 */
#include "fragment.h"
#include "icmp.h"
#include "oneway.h"
#include "pick.h"
#include "plain.h"
#include "recognise.h"
#include "refuse.h"
#include "reply.h"
#include "rewrite.h"
#include "track.h"
#include "unanswered.h"
#include "vipmap.h"
#include "worker.h"

static lbrl_verdict_t pass(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta)
{
    if (meta->flags & META_FIRST_FRAGMENT) {
        fragment_note(worker, meta, FRAGMENT_PASS);
    }
    packet->length += meta->trailer;
    packet->reason = LBRL_DROP_NOT_OURS;
    return LBRL_VERDICT_PASS;
}

/* ------------------------------------------------------------------------------- packets of flows */

/* Records and translates a packet of a flow; what it says about the flow's state is another matter. */
static void translate(lbrl_worker_t *worker, const flow_ref_t *ref, lbrl_packet_t *packet,
                      const meta_t *meta, bool from_client)
{
    track_packet(worker, ref->flow, sink_of(ref->counts), packet, meta, from_client);
    if (UNLIKELY(meta->flags & META_FIRST_FRAGMENT)) {
        fragment_first(worker, packet, meta, ref);
    } else if (UNLIKELY(fragment_may_be_cut(packet, meta))) {
        fragment_identify(worker, packet, meta);
    }
    translation_t to = translation_of(worker->table, ref, from_client);
    rewrite_packet(packet, meta, &to);
}

static lbrl_verdict_t forward(lbrl_worker_t *worker, const flow_ref_t *ref, lbrl_packet_t *packet,
                              const meta_t *meta)
{
    bool from_client = !(meta->flags & META_RETURN);
    if (vip_is_one_way(ref->vip)) {
        return one_way_flow(worker, ref, packet, meta);
    }
    if (meta->protocol == PROTO_TCP) {
        translate(worker, ref, packet, meta, from_client);
        track_tcp(worker, ref, packet, meta, from_client);
    } else {
        /* a datagram may begin its flow anew, and then belongs to that */
        track_udp(worker, ref, track_segments(packet, meta), from_client);
        translate(worker, ref, packet, meta, from_client);
    }
    return LBRL_VERDICT_FORWARD;
}

/* RFC 5508, REQ-8. Not where ports rest: a SYN may find one when it is sent again, and a client that hears of an error sends
 * none. */
static bool is_exhausted(const lbrl_worker_t *worker, uint8_t reason)
{
    return reason == LBRL_DROP_TABLE_FULL ||
           (reason == LBRL_DROP_NO_NAT_PORT && worker->ports_spent && !worker->ports_rest);
}

/* `slot`: of the backend, or LBRL_NO_SLOT: the scheduler picks. */
static lbrl_verdict_t on_new_flow_to(lbrl_worker_t *worker, lbrl_packet_t *packet,
                                     const meta_t *meta, uint32_t slot)
{
    const table_t *table = worker->table;
    const vip_place_t *place = vip_map_find(table->map, &meta->dst, meta->dport, meta->protocol);
    if (!place && !is_vip_address(table, &meta->dst)) {
        return pass(worker, packet, meta);
    }
    if (is_forged_client(table, &meta->src, meta->sport)) {
        return drop(packet, LBRL_DROP_FORGED_CLIENT);
    }
    if (!place || table->vips[place->vip]->refuses) {
        return refuse(worker, packet, meta, LBRL_DROP_PORT_UNCONFIGURED);
    }
    flow_birth_t birth = {
        .meta = meta, .vip = table->vips[place->vip], .address = place->index, .slot = slot};
    bool one_way = vip_is_one_way(birth.vip);
    if (meta->protocol == PROTO_TCP) {
        if (!one_way && !is_plain_syn(meta)) {
            bool drops = (birth.vip->flags & VIP_DROPS_STRANGERS) != 0;
            return refuse_no_flow(worker, packet, meta, drops, LBRL_DROP_NO_FLOW);
        }
        const uint8_t *tcp = packet->data + meta->transport;
        birth.sequence = get32(tcp + 4) - !is_plain_syn(meta);
        birth.options = lbrl_tcp_options(tcp);
    }
    flow_ref_t ref;
    uint8_t reason;
    if (one_way) {
        lbrl_verdict_t verdict = one_way_stranger(worker, packet, &birth);
        return verdict == LBRL_VERDICT_DROP && packet->reason == LBRL_DROP_NO_BACKEND
                   ? refuse_no_backend(worker, packet, meta, birth.vip)
                   : verdict;
    }
    reason = flow_make(worker, &worker->lb->partitions[meta->partition], &birth, &ref);
    if (is_exhausted(worker, reason)) {
        return reply_icmp(worker, packet, meta, REPLY_PROHIBITED, reason);
    }
    if (reason) {
        return reason == LBRL_DROP_NO_BACKEND ? refuse_no_backend(worker, packet, meta, birth.vip)
                                              : drop(packet, reason);
    }
    if (birth.vip->dns) {
        ref.flow->unanswered = track_segments(packet, meta) - 1;
    }
    translate(worker, &ref, packet, meta, true);
    return LBRL_VERDICT_FORWARD;
}

static lbrl_verdict_t on_new_flow(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta)
{
    return on_new_flow_to(worker, packet, meta, LBRL_NO_SLOT);
}

/* The client's packet to a backend that has failed: UDP starts anew, TCP learns that its connection is gone. The flow stays
 * until its client has been told. */
static lbrl_verdict_t on_failed_backend(lbrl_worker_t *worker, const flow_ref_t *ref,
                                        lbrl_packet_t *packet, const meta_t *meta)
{
    bool anew = meta->protocol == PROTO_UDP || is_plain_syn(meta);
    if (anew || vip_is_one_way(ref->vip)) {
        flow_remove(worker, ref);
        return anew ? on_new_flow(worker, packet, meta)
                    : drop(packet,
                           LBRL_DROP_BACKEND_FAILED); /* a RST would come from the wrong side */
    }
    lbrl_verdict_t verdict =
        reply_reset(worker, packet, meta, ANSWER_FLOW, LBRL_DROP_BACKEND_FAILED);
    if (verdict == LBRL_VERDICT_REPLY || (meta->tcp_flags & TCP_RST)) {
        flow_remove(worker, ref);
    }
    return verdict;
}

/* A SYN that a server has answered, once more: the client may have the answer by now, and would be reset by another server. */
static bool repeats_answered_syn(const flow_t *flow, const lbrl_packet_t *packet,
                                 const meta_t *meta)
{
    const uint32_t end = get32(packet->data + meta->transport + 4) + 1 + meta->payload;
    return (flow->state == LBRL_FLOW_SYN_ACK || flow->state == LBRL_FLOW_ESTABLISHED) &&
           flow->client_end - end <= UINT16_MAX;
}

/* A SYN that does not belong to the flow of its 5-tuple: that has ended, or its backend takes no new flows. */
static bool starts_anew(const flow_ref_t *ref, const lbrl_packet_t *packet, const meta_t *meta)
{
    const flow_t *flow = ref->flow;
    if (!is_plain_syn(meta)) {
        return false;
    }
    return flow_is_closed(flow->state) ||
           (flow_is_half_open(flow->state) && ref->slot->state != SLOT_ACTIVE &&
            !repeats_answered_syn(flow, packet, meta));
}

/* The client's packet to a backend that is gone from the VIP. What begins a flow goes to another backend, and so does
 * UDP, if there is one; a connection goes on for as long as its server answers. */
static lbrl_verdict_t on_gone_backend(lbrl_worker_t *worker, const flow_ref_t *ref,
                                      lbrl_packet_t *packet, const meta_t *meta)
{
    bool anew = is_plain_syn(meta) && !repeats_answered_syn(ref->flow, packet, meta);
    if (meta->protocol == PROTO_UDP || anew) {
        uint32_t slot = pick_slot(worker, ref->vip, ref->counts, meta);
        if (slot != LBRL_NO_SLOT) {
            flow_make_way(worker, ref);
            return on_new_flow_to(worker, packet, meta, slot);
        }
    } else if (unanswered_note(worker, ref, packet, meta)) {
        return on_failed_backend(worker, ref, packet, meta);
    }
    return forward(worker, ref, packet, meta);
}

static bool ttl_expired(const lbrl_packet_t *packet, const meta_t *meta)
{
    return packet->data[meta->flags & META_V6 ? 7 : 8] <= 1;
}

static lbrl_verdict_t answer_expired(lbrl_worker_t *worker, lbrl_packet_t *packet,
                                     const meta_t *meta)
{
    return reply_icmp(worker, packet, meta, REPLY_TIME_EXCEEDED, LBRL_DROP_TTL_EXPIRED);
}

/* The entry of a packet, verified; the nominee of before may have gone in this very vector. */
static inline uint32_t settle(const lbrl_worker_t *worker, const partition_t *partition,
                              const meta_t *meta)
{
    if (LIKELY(meta->candidate != FLOW_NONE)) {
        const flow_t *flow = &partition->flows[meta->candidate];
        if (LIKELY((partition->keeps[meta->candidate].bits & KEEP_USED) &&
                   flow_matches(worker->table, flow, meta))) {
            return meta->candidate;
        }
    } else if (LIKELY(worker->stats.created == worker->known)) {
        return FLOW_NONE; /* as it was when looked up */
    }
    return flow_find(worker, partition, meta);
}

static lbrl_verdict_t on_flow(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta)
{
    partition_t *partition = &worker->lb->partitions[meta->partition];
    uint32_t entry = settle(worker, partition, meta);
    bool from_client = !(meta->flags & META_RETURN);
    if (UNLIKELY(entry == FLOW_NONE)) {
        if (!from_client) {
            return refuse_no_flow(worker, packet, meta, false, LBRL_DROP_NO_FLOW_RETURN);
        }
        if (ttl_expired(packet, meta) && is_vip_address(worker->table, &meta->dst)) {
            return answer_expired(worker, packet, meta);
        }
        return on_new_flow(worker, packet, meta);
    }
    if (UNLIKELY(ttl_expired(packet, meta))) {
        return answer_expired(worker, packet, meta);
    }
    flow_ref_t ref = flow_ref(worker, partition, entry);
    uint8_t state = __atomic_load_n(&ref.slot->state, __ATOMIC_ACQUIRE);
    if (from_client) {
        if (UNLIKELY(state >= SLOT_FAILED)) {
            return state == SLOT_FAILED ? on_failed_backend(worker, &ref, packet, meta)
                                        : on_gone_backend(worker, &ref, packet, meta);
        }
        if (UNLIKELY(starts_anew(&ref, packet, meta))) {
            flow_make_way(worker, &ref);
            return on_new_flow(worker, packet, meta);
        }
    } else if (UNLIKELY(state == SLOT_GONE)) {
        unanswered_clear(worker, &ref);
    }
    return forward(worker, &ref, packet, meta);
}

/* ------------------------------------------------------------------------------- other packets */

/* By the address in the IP header: the tuple of an error is that of the packet that it quotes. */
static bool is_to_vip(const table_t *table, const lbrl_packet_t *packet, const meta_t *meta)
{
    const uint8_t *ip = packet->data;
    ip_t dst = meta->flags & META_V6 ? ip_load(ip + 24) : ip_from_v4(load32(ip + 16));
    return is_vip_address(table, &dst);
}

static lbrl_verdict_t on_flow_fragment(lbrl_worker_t *worker, lbrl_packet_t *packet,
                                       const meta_t *meta, const fragment_t *first)
{
    if (ttl_expired(packet, meta)) {
        return drop(packet,
                    LBRL_DROP_TTL_EXPIRED); /* RFC 1122, 3.2.2: no error about a later fragment */
    }
    flow_ref_t ref;
    uint8_t reason = fragment_later(worker, packet, meta, first, &ref);
    if (reason) {
        return drop(packet, reason);
    }
    lbrl_sink_packet(sink_of(ref.counts), ref.keep->slot, 1, packet->length, false,
                     first->from_client);
    if (vip_is_one_way(ref.vip)) {
        return one_way_pass_on(worker, ref.vip, ref.keep->slot, packet, meta);
    }
    return LBRL_VERDICT_FORWARD;
}

static lbrl_verdict_t on_fragment(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta)
{
    const fragment_t *first = fragment_find(worker, meta);
    if (!first && fragment_hold(worker, packet, meta)) {
        return LBRL_VERDICT_HOLD;
    }
    if (!first && is_vip_address(worker->table, &meta->dst)) {
        return drop(packet, LBRL_DROP_FRAGMENT_UNKNOWN);
    }
    if (!first || first->way == FRAGMENT_PASS) {
        return pass(worker, packet, meta);
    }
    return first->way == FRAGMENT_ECHO ? reply_echo_fragment(packet, meta)
                                       : on_flow_fragment(worker, packet, meta, first);
}

/* About a packet of a one-way VIP's backend that has no flow here: goes where such packets go. */
static lbrl_verdict_t on_stray_error(lbrl_worker_t *worker, lbrl_packet_t *packet,
                                     const meta_t *meta)
{
    const table_t *table = worker->table;
    const vip_place_t *place = vip_map_find(table->map, &meta->dst, meta->dport, meta->protocol);
    if (!place && !(meta->flags & META_RETURN) && !is_to_vip(table, packet, meta)) {
        return pass(worker, packet, meta); /* about what another program of this host has sent */
    }
    if (!place || !vip_is_one_way(table->vips[place->vip]) || ttl_expired(packet, meta)) {
        return drop(packet, LBRL_DROP_ICMP_NO_FLOW);
    }
    uint32_t slot = pick_fallback(table->vips[place->vip], meta);
    if (slot == LBRL_NO_SLOT) {
        return drop(packet, LBRL_DROP_NO_BACKEND);
    }
    return one_way_pass_on(worker, table->vips[place->vip], slot, packet, meta);
}

static lbrl_verdict_t on_icmp_error(lbrl_worker_t *worker, lbrl_packet_t *packet,
                                    const meta_t *meta)
{
    const partition_t *partition = &worker->lb->partitions[meta->partition];
    uint32_t entry = settle(worker, partition, meta);
    if (entry == FLOW_NONE) {
        return on_stray_error(worker, packet, meta);
    }
    if (ttl_expired(packet, meta)) {
        return drop(packet, LBRL_DROP_TTL_EXPIRED); /* no error about an error */
    }
    flow_ref_t ref = flow_ref(worker, &worker->lb->partitions[meta->partition], entry);
    if (vip_is_one_way(ref.vip)) {
        return one_way_pass_on(worker, ref.vip, ref.keep->slot, packet, meta);
    }
    icmp_translate(worker, packet, meta, &ref);
    return LBRL_VERDICT_FORWARD;
}

static lbrl_verdict_t on_echo(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta)
{
    const table_t *table = worker->table;
    if (!is_vip_address(table, &meta->dst)) {
        return pass(worker, packet, meta);
    }
    if (is_forged_client(table, &meta->src, 0)) {
        return drop(packet, LBRL_DROP_FORGED_CLIENT);
    }
    if (meta->flags & META_FIRST_FRAGMENT) {
        fragment_note(worker, meta, FRAGMENT_ECHO);
        return reply_echo_fragment(packet, meta);
    }
    return reply_echo(packet, meta);
}

static lbrl_verdict_t on_other(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta)
{
    return is_to_vip(worker->table, packet, meta) ? drop(packet, meta->reason)
                                                  : pass(worker, packet, meta);
}

static inline lbrl_verdict_t act(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta)
{
    switch (meta->kind) {
    case META_FLOW:
        return on_flow(worker, packet, meta);
    case META_FRAGMENT:
        return on_fragment(worker, packet, meta);
    case META_ICMP_ERROR:
        return on_icmp_error(worker, packet, meta);
    case META_ECHO:
        return on_echo(worker, packet, meta);
    case META_OTHER:
        return on_other(worker, packet, meta);
    case META_HANDOVER:
        packet->worker = worker->lb->owner[meta->partition];
        packet->length += meta->trailer;
        return LBRL_VERDICT_HANDOVER;
    default:
        return drop(packet, meta->reason);
    }
}

/* ------------------------------------------------------------------------------- vectors */

/* Packets of a round that went the long way; the others were forwarded. */
typedef struct others {
    uint32_t count[LBRL_VERDICT_HOLD + 1];
    uint64_t bytes; /* of packets that are not ours to process now */
    uint32_t n;
} others_t;

static void count_verdicts(worker_stats_t *stats, const others_t *others, uint32_t n)
{
    count(&stats->packets,
          n - others->count[LBRL_VERDICT_HANDOVER] - others->count[LBRL_VERDICT_HOLD]);
    count(&stats->forwarded, n - others->n + others->count[LBRL_VERDICT_FORWARD]);
    if (UNLIKELY(others->n)) {
        count(&stats->replied, others->count[LBRL_VERDICT_REPLY]);
        count(&stats->passed, others->count[LBRL_VERDICT_PASS]);
        count(&stats->handed_over, others->count[LBRL_VERDICT_HANDOVER]);
    }
}

static void act_and_count(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                          others_t *others)
{
    uint32_t length = packet->length;
    lbrl_verdict_t verdict = act(worker, packet, meta);
    others->bytes += verdict == LBRL_VERDICT_HANDOVER || verdict == LBRL_VERDICT_HOLD ? length : 0;
    packet->verdict = (uint8_t)verdict;
    others->count[verdict]++;
    others->n++;
    if (packet->reason != LBRL_DROP_NONE) {
        count(&worker->stats.dropped[packet->reason], 1);
    }
}

/* Fetches what a packet will touch that is not a plain one, if it begins a flow or moves one on. */
static inline void fetch_others(const lbrl_worker_t *worker, const meta_t *meta,
                                const flow_t *nominee)
{
    if (meta->kind != META_FLOW) {
        return;
    }
    const partition_t *partition = &worker->lb->partitions[meta->partition];
    if (!nominee) {
        flow_fetch_birth(partition);
    } else {
        flow_fetch_move(worker, partition, nominee);
    }
}

/* Looks up all packets of a round, each pass fetching what the next one reads; settles plain ones. */
static inline void look_up(lbrl_worker_t *worker, const lbrl_packet_t *packets, plain_t *plains,
                           uint32_t n)
{
    meta_t *metas = worker->metas;
    worker->known = worker->stats.created;
    for (uint32_t i = 0; i < n; i++) {
        if (UNLIKELY(metas[i].flags & META_AGAIN)) {
            classify_again(&metas[i], &metas[i - 1]);
            plains[i].flow = plains[i - 1].flow;
        } else {
            plains[i].flow = nominate(worker, &metas[i]);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        if (UNLIKELY(metas[i].flags & META_AGAIN) && (metas[i].flags & META_PLAIN) &&
            plains[i - 1].flow &&
            plain_follow(&packets[i], &metas[i], &plains[i - 1], &plains[i])) {
            continue;
        }
        if (LIKELY(plains[i].flow && (metas[i].flags & META_PLAIN) &&
                   plain_settle(worker, &packets[i], &metas[i], &plains[i]))) {
            if (UNLIKELY(!plain_is_quiet(plains[i].flow, &metas[i]))) {
                flow_fetch_move(worker, &worker->lb->partitions[metas[i].partition],
                                plains[i].flow);
            }
            continue;
        }
        fetch_others(worker, &metas[i], plains[i].flow);
        plains[i].flow = NULL;
    }
}

static void process_round(lbrl_worker_t *worker, lbrl_packet_t *packets, uint32_t n)
{
    plain_t plains[ROUND];
    others_t others = {0};
    uint64_t bytes = 0; /* of packets that are ours to process */
    recognise(worker, packets, n);
    look_up(worker, packets, plains, n);
    uint64_t removals = worker->removals;
    for (uint32_t i = 0; i < n; i++) {
        const meta_t *meta = &worker->metas[i];
        const flow_t *flow = plains[i].flow;
        bytes += packets[i].length;
        /* those before it may have moved or removed the flow meanwhile */
        if (LIKELY(flow && worker->removals == removals &&
                   (!plains[i].mtu || plain_is_quiet(flow, meta)))) {
            plain_forward(worker, &packets[i], meta, &plains[i]);
            packets[i].verdict = LBRL_VERDICT_FORWARD;
        } else {
            act_and_count(worker, &packets[i], meta, &others);
        }
    }
    count(&worker->stats.bytes, bytes - others.bytes);
    count_verdicts(&worker->stats, &others, n);
}

void lbrl_process(lbrl_worker_t *worker, lbrl_packet_t *packets, uint32_t n, uint64_t now_us)
{
    worker_enter(worker, now_us);
    for (uint32_t i = 0; i < n; i += ROUND) {
        process_round(worker, packets + i, n - i < ROUND ? n - i : ROUND);
    }
    worker_leave(worker);
}
