/* The headers of one-way forwarding: GRE (RFC 2784) over IPv4 and IPv6, and DSCP marks. */
#ifndef LBRL_TUNNEL_H
#define LBRL_TUNNEL_H

#include "lbrl/packet.h"
#include "wire.h"

enum {
    GRE_HEADER = 4,
    PROTO_GRE = 47,
    GRE_IPV4 = 0x0800,
    GRE_IPV6 = 0x86dd,
};

static inline uint32_t tunnel_overhead(bool outer_v6)
{
    return (outer_v6 ? IPV6_HEADER : IPV4_HEADER) + (uint32_t)GRE_HEADER;
}

/* Whether an IP packet must not be fragmented on its way. */
static inline bool tunnel_keeps_whole(const uint8_t *ip)
{
    return ip[0] >> 4 == 6 || (ip[6] & 0x40);
}

/*
 * Puts the packet into GRE: one hop off its TTL, DSCP and ECN copied to the outer header (RFC 2983, 6040). A partial
 * checksum is completed, but for super-packets: they keep their metadata, moved behind the outer headers, and `tunnel` is set.
 * `id` tells the outer packet's fragments from others of its source and backend (RFC 6864): the inner packet's would not, for
 * two clients may use the same. Where the packet is kept whole it is not used. False if there is no headroom; the
 * packet is unchanged then.
 */
bool tunnel_wrap(lbrl_packet_t *packet, const ip_t *source, const ip_t *backend, uint16_t id);

/* tunnel_wrap() in a straight line, for IPv4 in IPv4 with headroom and without offload metadata. */
static inline void tunnel_wrap_v4(lbrl_packet_t *packet, const ip_t *source, const ip_t *backend,
                                  uint16_t id)
{
    uint8_t *inner = packet->data;
    uint8_t *outer = inner - tunnel_overhead(false);
    uint32_t length = packet->length + tunnel_overhead(false);
    inner[8]--;
    store16(inner + 10, sum_update(load16(inner + 10), (uint16_t)~swap16(0x0100)));
    /* an identification only where the packet may be fragmented */
    bool whole = tunnel_keeps_whole(inner);
    uint32_t first = swap32(0x45000000u | (uint32_t)inner[1] << 16 | length);
    uint32_t second = whole ? swap32(0x4000) : swap32((uint32_t)id << 16);
    uint32_t third = swap32((uint32_t)TTL_OF_ANSWERS << 24 | (uint32_t)PROTO_GRE << 16);
    uint32_t from = ip_v4(source);
    uint32_t to = ip_v4(backend);
    store32(outer, first);
    store32(outer + 4, second);
    store32(outer + 8, third);
    store32(outer + 12, from);
    store32(outer + 16, to);
    store16(outer + 10, sum_finish((uint64_t)first + second + third + from + to));
    store32(outer + 20, swap32(GRE_IPV4));
    packet->data = outer;
    packet->length = length;
    packet->headroom = (uint16_t)(packet->headroom - tunnel_overhead(false));
}

/* Sets destination and DSCP, takes one hop off, keeps ECN. `transport`: offset of the header whose checksum covers the
 * destination, 0 where the packet has none. */
void tunnel_mark(lbrl_packet_t *packet, const ip_t *backend, uint8_t dscp, uint32_t transport);

#endif
