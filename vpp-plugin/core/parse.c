#include "parse.h"

enum {
    V4_MORE_FRAGMENTS = 0x2000,
    V4_OFFSET = 0x1fff,
    V4_OPTION_LSRR = 0x83,
    V4_OPTION_SSRR = 0x89,
    V6_HOP_BY_HOP = 0,
    V6_ROUTING = 43,
    V6_FRAGMENT = 44,
    V6_DESTINATION = 60,
    V6_EXTENSIONS_MAX = 8,
};

/* Where the transport header of an IP packet lies. Offsets are from the IP header on. */
typedef struct span {
    uint32_t transport;
    uint32_t end; /* of the IP packet */
    uint32_t fragment_id;
    uint16_t fragment_offset; /* bytes */
    uint8_t protocol;
    uint8_t fragmented;
    uint8_t more; /* fragments follow */
} span_t;

/* RFC 791 and RFC 8200, 4.5: parts but the last are multiples of 8 bytes, and the whole has a length of 16 bits. The part has
 * `size` bytes; `before` is what that length counts in front of the fragmented part. */
static uint8_t check_fragment(const span_t *span, uint32_t before, uint32_t size)
{
    bool odd = size == 0 || (span->more && size % 8 != 0);
    bool beyond = before + span->fragment_offset + size > UINT16_MAX;
    return span->fragmented && (odd || beyond) ? LBRL_DROP_BAD_FRAGMENT : LBRL_DROP_NONE;
}

/* ------------------------------------------------------------------------------- IPv4 */

static uint8_t v4_options(const uint8_t *at, uint32_t size)
{
    for (uint32_t i = 0; i < size;) {
        uint8_t type = at[i];
        if (type == 0) {
            return LBRL_DROP_NONE;
        }
        if (type == 1) {
            i++;
            continue;
        }
        if (type == V4_OPTION_LSRR || type == V4_OPTION_SSRR || i + 1 >= size || at[i + 1] < 2 ||
            at[i + 1] > size - i) {
            return LBRL_DROP_BAD_OPTION;
        }
        i += at[i + 1];
    }
    return LBRL_DROP_NONE;
}

static uint16_t v4_header_sum(const uint8_t *ip, uint32_t size)
{
    uint64_t sum =
        (uint64_t)load32(ip) + load32(ip + 4) + load32(ip + 8) + load32(ip + 12) + load32(ip + 16);
    if (__builtin_expect(size > IPV4_HEADER, 0)) {
        sum += sum_bytes(ip + IPV4_HEADER, size - IPV4_HEADER);
    }
    return sum_finish(sum);
}

/* `quoted`: the header stands inside an ICMP error, where its packet may be cut short. */
static uint8_t parse_v4(const uint8_t *ip, uint32_t length, bool quoted, meta_t *meta, span_t *span)
{
    if (length < IPV4_HEADER) {
        return LBRL_DROP_TRUNCATED;
    }
    uint32_t size = (ip[0] & 15u) * 4u;
    uint32_t total = get16(ip + 2);
    if (size < IPV4_HEADER || total < size) {
        return LBRL_DROP_BAD_HEADER;
    }
    if (length < size || (!quoted && length < total)) {
        return LBRL_DROP_TRUNCATED;
    }
    if (v4_header_sum(ip, size) != 0) {
        return LBRL_DROP_BAD_CHECKSUM; /* a quoted one too: RFC 5508, REQ-3a */
    }
    if (size > IPV4_HEADER) {
        uint8_t reason = v4_options(ip + IPV4_HEADER, size - IPV4_HEADER);
        if (reason) {
            return reason;
        }
    }
    uint32_t src = load32(ip + 12);
    uint32_t dst = load32(ip + 16);
    if (v4_unanswerable(quoted ? dst : src)) {
        return LBRL_DROP_BAD_ADDRESS;
    }
    meta->src = ip_from_v4(src);
    meta->dst = ip_from_v4(dst);
    uint16_t fragment = get16(ip + 6);
    span->transport = size;
    span->end = total < length ? total : length;
    span->protocol = ip[9];
    span->fragmented = (fragment & (V4_MORE_FRAGMENTS | V4_OFFSET)) != 0;
    span->more = (fragment & V4_MORE_FRAGMENTS) != 0;
    span->fragment_offset = (uint16_t)((fragment & V4_OFFSET) * 8u);
    span->fragment_id = load16(ip + 4);
    return quoted ? LBRL_DROP_NONE : check_fragment(span, size, span->end - size);
}

/* ------------------------------------------------------------------------------- IPv6 */

/* Sources that cannot be answered: unspecified, loopback, multicast, IPv4-mapped. */
static bool v6_unanswerable(const ip_t *address)
{
    const uint8_t *bytes = (const uint8_t *)address->word;
    if (bytes[0] == 0xff) {
        return true;
    }
    return address->word[0] == 0 &&
           (ip_is_v4(address) || (load32(bytes + 8) == 0 && get32(bytes + 12) <= 1));
}

static bool v6_is_extension(uint8_t next)
{
    return next == V6_HOP_BY_HOP || next == V6_ROUTING || next == V6_FRAGMENT ||
           next == V6_DESTINATION;
}

/* The fragment header at `at`. An atomic fragment is none (RFC 6946). */
static uint8_t v6_fragment(const uint8_t *ip, uint32_t at, bool quoted, span_t *span)
{
    uint16_t field = get16(ip + at + 2);
    span->fragmented = (field & ~6u) != 0;
    span->more = field & 1;
    span->fragment_offset = field & 0xfff8u;
    span->fragment_id = load32(ip + at + 4);
    if (quoted) {
        return LBRL_DROP_NONE;
    }
    /* one in the fragmented part, which nobody sends, would hide what the packet is */
    return ip[at] == V6_FRAGMENT ? LBRL_DROP_BAD_FRAGMENT
                                 : check_fragment(span, at - IPV6_HEADER, span->end - at - 8);
}

/* Steps over extension headers up to the transport header or a fragment header that hides it. */
static uint8_t v6_extensions(const uint8_t *ip, bool quoted, span_t *span)
{
    uint32_t at = IPV6_HEADER;
    uint8_t next = ip[6];
    unsigned fragment_headers = 0;
    for (unsigned i = 0; i <= V6_EXTENSIONS_MAX; i++) {
        if (!v6_is_extension(next)) {
            span->transport = at;
            span->protocol = next;
            return LBRL_DROP_NONE;
        }
        if ((next == V6_HOP_BY_HOP && i > 0) ||
            (next == V6_ROUTING && span->end >= at + 4 && ip[at + 3] > 0)) {
            return LBRL_DROP_BAD_OPTION;
        }
        if (span->end < at + 8) {
            return LBRL_DROP_TRUNCATED;
        }
        uint32_t size = 8;
        if (next == V6_FRAGMENT) {
            uint8_t reason =
                fragment_headers++ ? LBRL_DROP_BAD_FRAGMENT : v6_fragment(ip, at, quoted, span);
            if (reason) {
                return reason;
            }
        } else {
            size = (ip[at + 1] + 1u) * 8u;
        }
        next = ip[at];
        at += size;
        if (at > span->end) {
            return LBRL_DROP_TRUNCATED;
        }
        if (span->fragment_offset) {
            span->transport = at;
            span->protocol = next;
            return LBRL_DROP_NONE;
        }
    }
    return LBRL_DROP_BAD_OPTION;
}

static uint8_t parse_v6(const uint8_t *ip, uint32_t length, bool quoted, meta_t *meta, span_t *span)
{
    if (length < IPV6_HEADER) {
        return LBRL_DROP_TRUNCATED;
    }
    uint32_t total = IPV6_HEADER + (uint32_t)get16(ip + 4);
    if (!quoted && length < total) {
        return LBRL_DROP_TRUNCATED;
    }
    meta->src = ip_load(ip + 8);
    meta->dst = ip_load(ip + 24);
    if (v6_unanswerable(quoted ? &meta->dst : &meta->src) || ip_is_v4(&meta->src) ||
        ip_is_v4(&meta->dst)) {
        return LBRL_DROP_BAD_ADDRESS;
    }
    span->end = total < length ? total : length;
    return v6_extensions(ip, quoted, span);
}

/* ------------------------------------------------------------------------------- transport */

static uint8_t parse_tcp(const uint8_t *tcp, const span_t *span, meta_t *meta)
{
    uint32_t room = span->end - span->transport;
    if (room < TCP_HEADER) {
        return span->fragmented ? LBRL_DROP_BAD_FRAGMENT : LBRL_DROP_TRUNCATED;
    }
    uint32_t size = (tcp[12] >> 4) * 4u;
    if (size < TCP_HEADER) {
        return LBRL_DROP_BAD_HEADER;
    }
    if (room < size) {
        return span->fragmented ? LBRL_DROP_BAD_FRAGMENT : LBRL_DROP_TRUNCATED;
    }
    meta->tcp_flags = tcp[13] & 0x3f;
    if (tcp_flags_absurd(meta->tcp_flags)) {
        return LBRL_DROP_BAD_FLAGS;
    }
    meta->payload = room - size;
    return LBRL_DROP_NONE;
}

static uint8_t parse_udp(const uint8_t *udp, const span_t *span, meta_t *meta,
                         const lbrl_packet_t *packet)
{
    uint32_t room = span->end - span->transport;
    if (room < UDP_HEADER) {
        return span->fragmented ? LBRL_DROP_BAD_FRAGMENT : LBRL_DROP_TRUNCATED;
    }
    uint32_t length = get16(udp + 4);
    if (length < UDP_HEADER || (!span->fragmented && length > room)) {
        return LBRL_DROP_BAD_HEADER;
    }
    if ((meta->flags & META_V6) && load16(udp + 6) == 0 &&
        !(packet->flags & LBRL_PACKET_NEEDS_CSUM)) {
        return LBRL_DROP_BAD_CHECKSUM; /* RFC 8200, 8.1: no zero checksum with IPv6 */
    }
    meta->payload = (span->fragmented ? room : length) - UDP_HEADER;
    return LBRL_DROP_NONE;
}

/* Whether an ICMP type quotes a packet and is forwarded to the quoted packet's sender. */
static bool icmp_is_error(uint8_t type, bool v6)
{
    return v6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;
}

/* The quoted packet: was it one that we forwarded? Its tuple, turned round, is the flow's. */
static uint8_t parse_quoted(const uint8_t *base, const span_t *outer, meta_t *meta)
{
    span_t span = {0};
    uint32_t at = outer->transport + ICMP_HEADER;
    bool v6 = (meta->flags & META_V6) != 0;
    if (outer->end < at + 1 || base[at] >> 4 != (v6 ? 6 : 4)) {
        return LBRL_DROP_TRUNCATED;
    }
    meta_t quoted = {.flags = meta->flags};
    uint8_t reason = v6 ? parse_v6(base + at, outer->end - at, true, &quoted, &span)
                        : parse_v4(base + at, outer->end - at, true, &quoted, &span);
    if (reason) {
        return reason;
    }
    if (span.end < span.transport + 8 || span.fragment_offset ||
        (span.protocol != PROTO_TCP && span.protocol != PROTO_UDP)) {
        return LBRL_DROP_ICMP_NO_FLOW;
    }
    const uint8_t *ports = base + at + span.transport;
    meta->src = quoted.dst;
    meta->dst = quoted.src;
    meta->sport = load16(ports + 2);
    meta->dport = load16(ports);
    meta->protocol = span.protocol;
    meta->inner = (uint16_t)at;
    meta->inner_transport = (uint16_t)(at + span.transport);
    meta->kind = META_ICMP_ERROR;
    return LBRL_DROP_NONE;
}

static uint16_t icmp_sum(const uint8_t *icmp, uint32_t size, const meta_t *meta)
{
    uint64_t sum = sum_bytes(icmp, size);
    if (meta->flags & META_V6) {
        sum += sum_pseudo(&meta->src, &meta->dst, size, PROTO_ICMPV6);
    }
    return sum_finish(sum);
}

/* Something that a VIP cannot do anything with, but another address of this host may. */
static uint8_t meta_other(meta_t *meta, uint8_t reason)
{
    meta->kind = META_OTHER;
    return reason;
}

static uint8_t parse_icmp(const lbrl_packet_t *packet, const span_t *span, meta_t *meta)
{
    const uint8_t *icmp = packet->data + span->transport;
    uint32_t size = span->end - span->transport;
    bool v6 = (meta->flags & META_V6) != 0;
    if (size < ICMP_HEADER) {
        return span->fragmented ? LBRL_DROP_BAD_FRAGMENT : LBRL_DROP_TRUNCATED;
    }
    if (!span->fragmented && !(packet->flags & LBRL_PACKET_NEEDS_CSUM) &&
        icmp_sum(icmp, size, meta) != 0) {
        return LBRL_DROP_BAD_CHECKSUM;
    }
    if (icmp_is_error(icmp[0], v6)) {
        uint8_t reason =
            span->fragmented ? LBRL_DROP_BAD_FRAGMENT : parse_quoted(packet->data, span, meta);
        return reason ? meta_other(meta, reason) : LBRL_DROP_NONE;
    }
    if (icmp[0] != (v6 ? 128 : 8) || icmp[1] != 0) {
        return meta_other(meta, LBRL_DROP_ICMP_UNSUPPORTED);
    }
    meta->kind = META_ECHO;
    return LBRL_DROP_NONE;
}

/* Offload metadata that contradicts the packet would make us write or promise wrong checksums. */
static bool offload_absurd(const lbrl_packet_t *packet, const meta_t *meta)
{
    uint16_t field = meta->protocol == PROTO_TCP ? 16 : 6;
    if ((packet->flags & LBRL_PACKET_NEEDS_CSUM) &&
        (packet->csum_start != meta->transport || packet->csum_offset != field)) {
        return true;
    }
    return packet->gso_type != LBRL_GSO_NONE &&
           (packet->gso_size == 0 || (meta->flags & META_FIRST_FRAGMENT));
}

static bool is_icmp(const span_t *span, const meta_t *meta)
{
    return span->protocol == ((meta->flags & META_V6) ? PROTO_ICMPV6 : PROTO_ICMP);
}

/* One that reaches into the transport header of its first fragment is an attack (RFC 3128). */
static uint8_t parse_later_fragment(const span_t *span, meta_t *meta)
{
    bool short_header = span->protocol == PROTO_UDP || is_icmp(span, meta);
    bool options = (meta->flags & META_V6) && v6_is_extension(span->protocol);
    if (!short_header && span->protocol != PROTO_TCP && !options) {
        return meta_other(meta, LBRL_DROP_UNKNOWN_PROTOCOL);
    }
    if (span->fragment_offset < TCP_HEADER && !short_header) {
        return LBRL_DROP_BAD_FRAGMENT;
    }
    meta->kind = META_FRAGMENT;
    return LBRL_DROP_NONE;
}

static uint8_t parse_transport(lbrl_packet_t *packet, const span_t *span, meta_t *meta)
{
    const uint8_t *at = packet->data + span->transport;
    meta->transport = (uint16_t)span->transport;
    meta->protocol = span->protocol;
    meta->fragment_id = span->fragment_id;
    if (__builtin_expect(span->fragment_offset != 0, 0)) {
        return parse_later_fragment(span, meta);
    }
    if (span->fragmented) {
        meta->flags |= META_FIRST_FRAGMENT;
    }
    uint8_t reason;
    if (span->protocol == PROTO_TCP) {
        reason = parse_tcp(at, span, meta);
        if (!span->fragmented && !tcp_flags_open(meta->tcp_flags) &&
            packet->data[meta->flags & META_V6 ? 7 : 8] > 1) {
            meta->flags |= META_PLAIN;
        }
    } else if (span->protocol == PROTO_UDP) {
        reason = parse_udp(at, span, meta, packet);
    } else if (is_icmp(span, meta)) {
        return parse_icmp(packet, span, meta);
    } else {
        return meta_other(meta, LBRL_DROP_UNKNOWN_PROTOCOL);
    }
    if (reason) {
        return reason;
    }
    meta->sport = load16(at);
    meta->dport = load16(at + 2);
    if (meta->sport == 0 || offload_absurd(packet, meta)) {
        return LBRL_DROP_BAD_HEADER;
    }
    meta->kind = META_FLOW;
    return LBRL_DROP_NONE;
}

void lbrl_parse(lbrl_packet_t *packet, meta_t *meta)
{
    span_t span = {0};
    uint8_t reason;
    meta->flags = 0;
    meta->trailer = 0;
    meta->kind = META_DROP;
    if (packet->length == 0) {
        meta->reason = LBRL_DROP_TRUNCATED;
        return;
    }
    if (packet->data[0] >> 4 == 4) {
        reason = parse_v4(packet->data, packet->length, false, meta, &span);
    } else if (packet->data[0] >> 4 == 6) {
        meta->flags = META_V6;
        reason = parse_v6(packet->data, packet->length, false, meta, &span);
    } else {
        reason = LBRL_DROP_BAD_VERSION;
    }
    if (!reason) {
        uint32_t trailer = packet->length - span.end;
        meta->trailer = (uint16_t)(trailer < UINT16_MAX ? trailer : UINT16_MAX);
        packet->length = span.end;
        reason = parse_transport(packet, &span, meta);
    }
    meta->reason = reason;
}

tcp_options_t lbrl_tcp_options(const uint8_t *tcp)
{
    tcp_options_t options = {.mss = 536};
    uint32_t size = (tcp[12] >> 4) * 4u;
    for (uint32_t i = TCP_HEADER; i < size;) {
        uint8_t kind = tcp[i];
        if (kind == 0) {
            break;
        }
        if (kind == 1) {
            i++;
            continue;
        }
        if (i + 1 >= size || tcp[i + 1] < 2 || tcp[i + 1] > size - i) {
            break;
        }
        if (kind == 2 && tcp[i + 1] == 4) {
            options.mss = get16(tcp + i + 2);
        } else if (kind == 3 && tcp[i + 1] == 3) {
            options.scale = tcp[i + 2] > 14 ? 14 : tcp[i + 2];
            options.has_scale = 1;
        } else if (kind == 8 && tcp[i + 1] == 10) {
            options.timestamp = get32(tcp + i + 2);
            options.echo = get32(tcp + i + 6);
            options.has_timestamp = 1;
        }
        i += tcp[i + 1];
    }
    return options;
}
