#include "reply.h"

enum {
    V4_QUOTE_MAX = 576 - IPV4_HEADER - ICMP_HEADER,  /* RFC 1812, 4.3.2.3 */
    V6_QUOTE_MAX = 1280 - IPV6_HEADER - ICMP_HEADER, /* RFC 4443, 2.4 */
};

/* Per worker and bucket. An established flow is reset once, and its client is known: that needs hardly a bound. */
static const struct {
    uint32_t per_second, burst;
    bool by_sender;
} rates[ANSWER_KINDS] = {[ANSWER_FLOW] = {10000, 2048, false},
                         [ANSWER_REFUSAL] = {1000, 256, false},
                         [ANSWER_EXPIRED] = {1000, 256, false},
                         [ANSWER_TOO_BIG] = {250, 64, true}};

void reply_begin(lbrl_worker_t *worker, uint64_t now_us)
{
    for (unsigned kind = 0; kind < ANSWER_KINDS; kind++) {
        for (unsigned i = 0; i < ANSWER_SENDERS; i++) {
            worker->tokens[kind][i] = (tokens_t){now_us, rates[kind].burst};
        }
    }
}

static tokens_t *tokens_of(lbrl_worker_t *worker, const meta_t *meta, answer_t kind)
{
    uint64_t sender = 0;
    if (rates[kind].by_sender) {
        sender = tuple_hash(&worker->lb->key, &meta->src, &meta->src, 0, 0, 0);
    }
    return &worker->tokens[kind][sender % ANSWER_SENDERS];
}

/* Token bucket, refilled by the time of vectors. */
static bool take_token(lbrl_worker_t *worker, const meta_t *meta, answer_t kind)
{
    tokens_t *tokens = tokens_of(worker, meta, kind);
    uint64_t earned = (worker->now_us - tokens->since_us) * rates[kind].per_second / 1000000;
    if (earned) {
        uint64_t left = tokens->left + earned;
        tokens->left = left > rates[kind].burst ? rates[kind].burst : (uint32_t)left;
        tokens->since_us = worker->now_us;
    }
    if (!tokens->left) {
        count(&worker->stats.dropped[LBRL_DROP_RATE_BOUNDED], 1);
        return false;
    }
    tokens->left--;
    return true;
}

static void clear_offload(lbrl_packet_t *packet)
{
    packet->gso_type = LBRL_GSO_NONE;
    packet->gso_size = packet->hdr_len = packet->csum_start = packet->csum_offset = 0;
    packet->flags = 0;
}

/* Cuts the packet to `length` bytes that begin at `data`; the room around it follows. */
static void reframe(lbrl_packet_t *packet, uint8_t *data, uint32_t length)
{
    uint32_t end = packet->length + packet->tailroom;
    uint32_t tailroom = end + (uint32_t)(packet->data - data) - length;
    packet->headroom = (uint16_t)(packet->headroom - (packet->data - data));
    packet->tailroom = (uint16_t)(tailroom > UINT16_MAX ? UINT16_MAX : tailroom);
    packet->data = data;
    packet->length = length;
}

/* Writes an IP header without options in front of `size` bytes; returns the sum of the pseudo-header. */
static uint64_t write_ip(uint8_t *ip, const ip_t *src, const ip_t *dst, bool v6, uint8_t protocol,
                         uint32_t size)
{
    if (v6) {
        memset(ip, 0, 8);
        ip[0] = 0x60;
        put16(ip + 4, (uint16_t)size);
        ip[6] = protocol;
        ip[7] = TTL_OF_ANSWERS;
        memcpy(ip + 8, src, sizeof(*src));
        memcpy(ip + 24, dst, sizeof(*dst));
    } else {
        memset(ip, 0, IPV4_HEADER);
        ip[0] = 0x45;
        put16(ip + 2, (uint16_t)(IPV4_HEADER + size));
        put16(ip + 6,
              0x4000); /* never fragmented, so that an identification of 0 is right (RFC 6864) */
        ip[8] = TTL_OF_ANSWERS;
        ip[9] = protocol;
        store32(ip + 12, ip_v4(src));
        store32(ip + 16, ip_v4(dst));
        store16(ip + 10, sum_finish(sum_bytes(ip, IPV4_HEADER)));
    }
    return sum_pseudo(src, dst, size, protocol);
}

lbrl_verdict_t reply_reset(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                           answer_t kind, uint8_t reason)
{
    packet->reason = reason;
    if ((meta->tcp_flags & TCP_RST) || !take_token(worker, meta, kind)) {
        return LBRL_VERDICT_DROP;
    }
    const uint8_t *tcp = packet->data + meta->transport;
    uint32_t sequence = get32(tcp + 4);
    uint32_t ack = get32(tcp + 8);
    uint32_t length =
        meta->payload + ((meta->tcp_flags & TCP_SYN) != 0) + ((meta->tcp_flags & TCP_FIN) != 0);
    bool v6 = (meta->flags & META_V6) != 0;
    uint32_t header = v6 ? IPV6_HEADER : IPV4_HEADER;
    reframe(packet, packet->data, header + TCP_HEADER);
    clear_offload(packet);
    uint64_t sum = write_ip(packet->data, &meta->dst, &meta->src, v6, PROTO_TCP, TCP_HEADER);
    uint8_t *reset = packet->data + header;
    memset(reset, 0, TCP_HEADER);
    store16(reset, meta->dport);
    store16(reset + 2, meta->sport);
    reset[12] = (TCP_HEADER / 4) << 4;
    if (meta->tcp_flags & TCP_ACK) {
        reset[13] = TCP_RST;
        put32(reset + 4, ack);
    } else {
        reset[13] = TCP_RST | TCP_ACK;
        put32(reset + 8, sequence + length);
    }
    store16(reset + 16, sum_finish(sum + sum_bytes(reset, TCP_HEADER)));
    return LBRL_VERDICT_REPLY;
}

/* Type, code and the word behind the checksum. */
static void write_icmp(uint8_t *icmp, reply_icmp_kind_t kind, bool v6, uint32_t rest)
{
    static const uint8_t types[][2][2] = {[REPLY_PORT_UNREACHABLE] = {{3, 3}, {1, 4}},
                                          [REPLY_TIME_EXCEEDED] = {{11, 0}, {3, 0}},
                                          [REPLY_PROHIBITED] = {{3, 13}, {1, 1}},
                                          [REPLY_TOO_BIG] = {{3, 4}, {2, 0}}};
    memset(icmp, 0, ICMP_HEADER);
    icmp[0] = types[kind][v6][0];
    icmp[1] = types[kind][v6][1];
    put32(icmp + 4, rest);
}

static lbrl_verdict_t answer(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                             reply_icmp_kind_t kind, uint8_t reason, uint32_t rest)
{
    bool v6 = (meta->flags & META_V6) != 0;
    uint32_t header = (v6 ? IPV6_HEADER : IPV4_HEADER) + (uint32_t)ICMP_HEADER;
    uint32_t quote_max = v6 ? V6_QUOTE_MAX : V4_QUOTE_MAX;
    uint32_t quote = packet->length < quote_max ? packet->length : quote_max;
    packet->reason = reason;
    if (packet->headroom < header) {
        count(&worker->stats.dropped[LBRL_DROP_NO_HEADROOM], 1);
        return LBRL_VERDICT_DROP;
    }
    static const answer_t answers[] = {[REPLY_PORT_UNREACHABLE] = ANSWER_REFUSAL,
                                       [REPLY_PROHIBITED] = ANSWER_REFUSAL,
                                       [REPLY_TIME_EXCEEDED] = ANSWER_EXPIRED,
                                       [REPLY_TOO_BIG] = ANSWER_TOO_BIG};
    if (!take_token(worker, meta, answers[kind])) {
        return LBRL_VERDICT_DROP;
    }
    reframe(packet, packet->data - header, header + quote);
    clear_offload(packet);
    uint64_t sum = write_ip(packet->data, &meta->dst, &meta->src, v6,
                            v6 ? PROTO_ICMPV6 : PROTO_ICMP, ICMP_HEADER + quote);
    uint8_t *icmp = packet->data + header - ICMP_HEADER;
    write_icmp(icmp, kind, v6, rest);
    store16(icmp + 2, sum_finish((v6 ? sum : 0) + sum_bytes(icmp, ICMP_HEADER + quote)));
    return LBRL_VERDICT_REPLY;
}

lbrl_verdict_t reply_icmp(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                          reply_icmp_kind_t kind, uint8_t reason)
{
    return answer(worker, packet, meta, kind, reason, 0);
}

lbrl_verdict_t reply_too_big(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                             uint32_t mtu)
{
    return answer(worker, packet, meta, REPLY_TOO_BIG, LBRL_DROP_TOO_BIG, mtu);
}

/* Swaps the addresses. */
static void turn_round(uint8_t *ip, const meta_t *meta)
{
    if (meta->flags & META_V6) {
        memcpy(ip + 8, &meta->dst, sizeof(ip_t));
        memcpy(ip + 24, &meta->src, sizeof(ip_t));
        ip[7] = TTL_OF_ANSWERS;
        return;
    }
    store32(ip + 12, ip_v4(&meta->dst));
    store32(ip + 16, ip_v4(&meta->src));
    ip[8] = TTL_OF_ANSWERS;
    store16(ip + 10, 0);
    store16(ip + 10, sum_finish(sum_bytes(ip, (ip[0] & 15u) * 4u)));
}

lbrl_verdict_t reply_echo(lbrl_packet_t *packet, const meta_t *meta)
{
    bool v6 = (meta->flags & META_V6) != 0;
    uint8_t *icmp = packet->data + meta->transport;
    uint32_t size = packet->length - meta->transport;
    clear_offload(packet);
    turn_round(packet->data, meta);
    icmp[0] = v6 ? 129 : 0;
    store16(icmp + 2, 0);
    uint64_t sum = sum_bytes(icmp, size);
    sum += v6 ? sum_pseudo(&meta->src, &meta->dst, size, PROTO_ICMPV6) : 0;
    store16(icmp + 2, sum_finish(sum));
    return LBRL_VERDICT_REPLY;
}

lbrl_verdict_t reply_echo_fragment(lbrl_packet_t *packet, const meta_t *meta)
{
    clear_offload(packet);
    turn_round(packet->data, meta);
    if (meta->flags & META_FIRST_FRAGMENT) { /* the sum is of the whole: only the type changes it */
        uint8_t *icmp = packet->data + meta->transport;
        uint16_t old = load16(icmp);
        icmp[0] = meta->flags & META_V6 ? 129 : 0;
        store16(icmp + 2, sum_update(load16(icmp + 2), (uint32_t)load16(icmp) + (uint16_t)~old));
    }
    return LBRL_VERDICT_REPLY;
}
