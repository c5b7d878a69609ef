/* The headers of one-way forwarding: GRE (RFC 2784) over IPv4 and IPv6, and DSCP marks. */
#ifndef LBRL_TUNNEL_H
#define LBRL_TUNNEL_H

#include "lbrl/packet.h"
#include "wire.h"

enum { GRE_HEADER = 4 };

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
 * False if there is no headroom; the packet is unchanged then.
 */
bool tunnel_wrap(lbrl_packet_t *packet, const ip_t *source, const ip_t *backend);

/* Sets destination and DSCP, takes one hop off, keeps ECN. `transport`: offset of the header whose checksum covers the
 * destination, 0 where the packet has none. */
void tunnel_mark(lbrl_packet_t *packet, const ip_t *backend, uint8_t dscp, uint32_t transport);

#endif
