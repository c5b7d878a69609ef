#include "tunnel.h"

#include "parse.h"

enum {
    ECN_MASK = 3,
    ECN_CE = 3,
    ECN_ECT1 = 1,
};

static uint8_t traffic_class(const uint8_t *ip)
{
    return ip[0] >> 4 == 6 ? (uint8_t)((ip[0] & 15) << 4 | ip[1] >> 4) : ip[1];
}

static void set_traffic_class(uint8_t *ip, uint8_t class)
{
    if (ip[0] >> 4 == 6) {
        ip[0] = (uint8_t)(0x60 | class >> 4);
        ip[1] = (uint8_t)((ip[1] & 15) | class << 4);
        return;
    }
    uint16_t old = load16(ip);
    ip[1] = class;
    store16(ip + 10, sum_update(load16(ip + 10), (uint32_t)load16(ip) + (uint16_t)~old));
}

static void take_hop(uint8_t *ip)
{
    if (ip[0] >> 4 == 6) {
        ip[7]--;
        return;
    }
    ip[8]--;
    store16(ip + 10, sum_update(load16(ip + 10), (uint16_t)~swap16(0x0100)));
}

/* Nobody behind us can: the sum over transport header and payload, which begins with that of the pseudo-header. */
static void complete_checksum(lbrl_packet_t *packet)
{
    uint8_t *from = packet->data + packet->csum_start;
    uint16_t sum = sum_finish(sum_bytes(from, packet->length - packet->csum_start));
    store16(from + packet->csum_offset, packet->csum_offset == 6 && sum == 0 ? 0xffff : sum);
    packet->flags &= (uint8_t)~LBRL_PACKET_NEEDS_CSUM;
    packet->csum_start = packet->csum_offset = 0;
}

static void write_outer(uint8_t *outer, const uint8_t *inner, uint32_t size, const ip_t *source,
                        const ip_t *backend, uint16_t id)
{
    bool v6 = !ip_is_v4(backend);
    uint8_t class = traffic_class(inner);
    memset(outer, 0, tunnel_overhead(v6));
    if (v6) {
        outer[0] = (uint8_t)(0x60 | class >> 4);
        outer[1] = (uint8_t)(class << 4);
        put16(outer + 4, (uint16_t)(size + GRE_HEADER));
        outer[6] = PROTO_GRE;
        outer[7] = TTL_OF_ANSWERS;
        memcpy(outer + 8, source, sizeof(*source));
        memcpy(outer + 24, backend, sizeof(*backend));
    } else {
        outer[0] = 0x45;
        outer[1] = class;
        put16(outer + 2, (uint16_t)(size + tunnel_overhead(false)));
        put16(outer + 4, tunnel_keeps_whole(inner) ? 0 : id);
        put16(outer + 6, tunnel_keeps_whole(inner) ? 0x4000 : 0);
        outer[8] = TTL_OF_ANSWERS;
        outer[9] = PROTO_GRE;
        store32(outer + 12, ip_v4(source));
        store32(outer + 16, ip_v4(backend));
        store16(outer + 10, sum_finish(sum_bytes(outer, IPV4_HEADER)));
    }
    put16(outer + tunnel_overhead(v6) - 2, inner[0] >> 4 == 6 ? GRE_IPV6 : GRE_IPV4);
}

bool tunnel_wrap(lbrl_packet_t *packet, const ip_t *source, const ip_t *backend, uint16_t id)
{
    uint32_t overhead = tunnel_overhead(!ip_is_v4(backend));
    if (packet->headroom < overhead) {
        return false;
    }
    bool super = packet->gso_type != LBRL_GSO_NONE;
    take_hop(packet->data);
    if ((packet->flags & LBRL_PACKET_NEEDS_CSUM) && !super) {
        complete_checksum(packet);
    }
    write_outer(packet->data - overhead, packet->data, packet->length, source, backend, id);
    packet->data -= overhead;
    packet->length += overhead;
    packet->headroom = (uint16_t)(packet->headroom - overhead);
    if (super) {
        packet->tunnel = (uint16_t)overhead;
        packet->csum_start = (uint16_t)(packet->csum_start + overhead);
        packet->hdr_len = (uint16_t)(packet->hdr_len + overhead);
    }
    return true;
}

/* ------------------------------------------------------------------------------- L3DSR */

/* Where the transport checksum lies that covers the pseudo-header, NULL for none. */
static uint8_t *covering_field(const lbrl_packet_t *packet, uint32_t transport)
{
    const uint8_t *ip = packet->data;
    bool v6 = ip[0] >> 4 == 6;
    if (transport == 0) {
        return NULL;
    }
    /* behind extension headers the protocol is not in the IP header: ports tell nothing, so it is looked for */
    uint8_t protocol = v6 ? ip[6] : ip[9];
    for (uint32_t at = IPV6_HEADER; v6 && at < transport;) {
        uint32_t size = protocol == 44 ? 8 : (ip[at + 1] + 1u) * 8u;
        protocol = ip[at];
        at += size;
    }
    uint8_t *header = packet->data + transport;
    switch (protocol) {
    case PROTO_TCP:
        return header + 16;
    case PROTO_UDP:
        return load16(header + 6) || (packet->flags & LBRL_PACKET_NEEDS_CSUM) ? header + 6 : NULL;
    case PROTO_ICMPV6:
        return header + 2;
    default:
        return NULL;
    }
}

void tunnel_mark(lbrl_packet_t *packet, const ip_t *backend, uint8_t dscp, uint32_t transport)
{
    uint8_t *ip = packet->data;
    bool v6 = ip[0] >> 4 == 6;
    ip_t old = v6 ? ip_load(ip + 24) : ip_from_v4(load32(ip + 16));
    uint32_t delta = sum_ip(backend) + (uint16_t)~sum_ip(&old);
    uint8_t *field = covering_field(packet, transport);
    if (field && (packet->flags & LBRL_PACKET_NEEDS_CSUM)) {
        store16(field, sum_fold(load16(field) + delta));
    } else if (field) {
        uint16_t sum = sum_update(load16(field), delta);
        bool udp = field == ip + transport + 6;
        store16(field, udp && sum == 0 ? 0xffff : sum);
    }
    if (v6) {
        memcpy(ip + 24, backend, sizeof(*backend));
    } else {
        store32(ip + 16, ip_v4(backend));
        store16(ip + 10, sum_update(load16(ip + 10), delta));
    }
    set_traffic_class(ip, (uint8_t)(dscp << 2 | (traffic_class(ip) & ECN_MASK)));
    take_hop(ip);
}

/* ------------------------------------------------------------------------------- the other end */

/* RFC 6040, figure 4: the inner ECN field after decapsulation; -1: the packet must be dropped. */
static int combined_ecn(uint8_t inner, uint8_t outer)
{
    if (outer == ECN_CE) {
        return inner ? ECN_CE : -1;
    }
    return outer == ECN_ECT1 && inner == 2 ? ECN_ECT1 : inner;
}

/* Whether the inner packet is one that a load balancer sends through a tunnel; cuts off what follows it. It gets the checks
 * that clients' packets get: beyond the tunnel nobody else makes them. */
static bool is_carried(uint8_t *inner, uint32_t *size)
{
    lbrl_packet_t packet = {.data = inner, .length = *size};
    meta_t meta;
    lbrl_parse(&packet, &meta);
    *size = packet.length;
    return meta.kind == META_FLOW || meta.kind == META_FRAGMENT || meta.kind == META_ICMP_ERROR;
}

int lbrl_decapsulate(lbrl_packet_t *packet)
{
    const uint8_t *outer = packet->data;
    bool v6 = packet->length >= IPV6_HEADER && outer[0] >> 4 == 6;
    bool v4 = packet->length >= IPV4_HEADER && outer[0] == 0x45 && !(get16(outer + 6) & 0x3fff);
    uint32_t overhead = tunnel_overhead(v6);
    if ((!v4 && !v6) || outer[v6 ? 6 : 9] != PROTO_GRE || packet->length < overhead + IPV4_HEADER ||
        load16(outer + overhead - GRE_HEADER) != 0) {
        return -1;
    }
    uint8_t *inner = packet->data + overhead;
    uint16_t type = get16(outer + overhead - 2);
    uint32_t size = packet->length - overhead;
    if (inner[0] >> 4 != (type == GRE_IPV4   ? 4
                          : type == GRE_IPV6 ? 6
                                             : 0) ||
        !is_carried(inner, &size)) {
        return -1;
    }
    uint8_t class = traffic_class(inner);
    int ecn = combined_ecn(class & ECN_MASK, traffic_class(outer) & ECN_MASK);
    if (ecn < 0) {
        return -1;
    }
    set_traffic_class(inner, (uint8_t)((class & ~ECN_MASK) | ecn));
    packet->data = inner;
    packet->length = size;
    packet->headroom = (uint16_t)(packet->headroom + overhead);
    packet->flags = 0;
    packet->csum_start = packet->csum_offset = 0;
    return 0;
}

/* ------------------------------------------------------------------------------- super-packets */

/* Where the parts of a tunnelled super-packet begin. */
typedef struct super {
    uint32_t inner, transport, payload;
    bool outer_v6, v6, udp;
} super_t;

static super_t super_of(const lbrl_packet_t *packet)
{
    super_t s = {.inner = packet->tunnel};
    s.outer_v6 = packet->data[0] >> 4 == 6;
    s.v6 = packet->data[s.inner] >> 4 == 6;
    s.udp = packet->gso_type == LBRL_GSO_UDP_L4;
    s.transport = packet->csum_start;
    s.payload =
        s.transport + (s.udp ? (uint32_t)UDP_HEADER : (packet->data[s.transport + 12] >> 4) * 4u);
    return s;
}

/* Lengths, identification and header checksum of an IP header for `size` bytes from it on. */
static void resize_ip(uint8_t *ip, uint32_t size, uint32_t index)
{
    if (ip[0] >> 4 == 6) {
        put16(ip + 4, (uint16_t)(size - IPV6_HEADER));
        return;
    }
    uint32_t header = (ip[0] & 15u) * 4u;
    put16(ip + 2, (uint16_t)size);
    put16(ip + 4, (uint16_t)(get16(ip + 4) + index));
    store16(ip + 10, 0);
    store16(ip + 10, sum_finish(sum_bytes(ip, header)));
}

static void finish_transport(uint8_t *at, const super_t *s, uint32_t size, const uint8_t *ip)
{
    ip_t src = s->v6 ? ip_load(ip + 8) : ip_from_v4(load32(ip + 12));
    ip_t dst = s->v6 ? ip_load(ip + 24) : ip_from_v4(load32(ip + 16));
    uint8_t *field = at + (s->udp ? 6 : 16);
    if (!s->v6) { /* the prefix of mapped addresses is no part of the pseudo-header */
        src.word[0] = dst.word[0] = 0;
        src.word[1] &= ~0xffff0000ull;
        dst.word[1] &= ~0xffff0000ull;
    }
    store16(field, 0);
    uint64_t sum = sum_pseudo(&src, &dst, size, s->udp ? PROTO_UDP : PROTO_TCP);
    uint16_t check = sum_finish(sum + sum_bytes(at, size));
    store16(field, s->udp && check == 0 ? 0xffff : check);
}

uint32_t lbrl_segment(const lbrl_packet_t *packet, uint32_t index, uint8_t *out, uint32_t room)
{
    super_t s = super_of(packet);
    uint64_t skip = (uint64_t)index * packet->gso_size;
    if (packet->length < s.payload || skip >= packet->length - s.payload) {
        return 0;
    }
    uint32_t left = packet->length - s.payload - (uint32_t)skip;
    uint32_t bytes = left < packet->gso_size ? left : packet->gso_size;
    uint32_t size = s.payload + bytes;
    if (size > room) {
        return 0;
    }
    memcpy(out, packet->data, s.payload);
    memcpy(out + s.payload, packet->data + s.payload + skip, bytes);
    resize_ip(out, size, index);
    resize_ip(out + s.inner, size - s.inner, index);
    uint8_t *transport = out + s.transport;
    if (s.udp) {
        put16(transport + 4, (uint16_t)(size - s.transport));
    } else {
        put32(transport + 4, get32(transport + 4) + (uint32_t)skip);
        if (left > bytes) {
            transport[13] &= (uint8_t)~(TCP_FIN | TCP_PSH);
        }
        if (index > 0) {
            transport[13] &= 0x7f; /* CWR: once per window */
        }
    }
    finish_transport(transport, &s, size - s.transport, out + s.inner);
    return size;
}
