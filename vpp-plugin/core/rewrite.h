/* Translation of addresses, ports and checksums, always incremental (RFC 1624). */
#ifndef LBRL_REWRITE_H
#define LBRL_REWRITE_H

#include "flow.h"

/* What a packet's source and destination become. */
typedef struct translation {
    const ip_t *src, *dst;
    uint32_t sum; /* of both addresses */
    uint16_t sport, dport;
} translation_t;

static inline translation_t translation_to_server(const table_t *table, const slot_t *slot,
                                                  const flow_keep_t *keep)
{
    const source_t *source = &table->sources[keep->source];
    return (translation_t){&source->is.address, &slot->address, source->sum + slot->sum,
                           keep->nat_port, slot->port};
}

static inline translation_t translation_to_client(const vip_t *vip, const flow_t *flow,
                                                  const flow_keep_t *keep)
{
    return (translation_t){&vip->addresses[keep->address], &flow->client,
                           vip->sums[keep->address] + sum_ip(&flow->client), vip->port,
                           flow->client_port};
}

static inline translation_t translation_of(const table_t *table, const flow_ref_t *ref,
                                           bool from_client)
{
    return from_client ? translation_to_server(table, ref->slot, ref->keep)
                       : translation_to_client(ref->vip, ref->flow, ref->keep);
}

/* Change that new addresses make to a sum that covers them. */
static inline uint32_t address_delta(const translation_t *to, const ip_t *old_src,
                                     const ip_t *old_dst)
{
    return to->sum + (uint16_t)~sum_fold(sum_ip(old_src) + sum_ip(old_dst));
}

/* Writes addresses into an IP header; `hop` takes one off TTL or hop limit. DSCP and ECN stay. */
static inline void rewrite_ip(uint8_t *ip, bool v6, const translation_t *to, uint32_t delta,
                              bool hop)
{
    if (v6) {
        memcpy(ip + 8, to->src, sizeof(ip_t));
        memcpy(ip + 24, to->dst, sizeof(ip_t));
        ip[7] = (uint8_t)(ip[7] - hop);
        return;
    }
    store32(ip + 12, ip_v4(to->src));
    store32(ip + 16, ip_v4(to->dst));
    if (hop) {
        ip[8]--;
        delta += (uint16_t)~swap16(0x0100);
    }
    store16(ip + 10, sum_update(load16(ip + 10), delta));
}

/* Writes ports and checksum of a transport header whose old ports are given. */
static inline void rewrite_transport(lbrl_packet_t *packet, uint8_t *transport, uint8_t protocol,
                                     const translation_t *to, uint32_t delta)
{
    uint8_t *field = transport + (protocol == PROTO_TCP ? 16 : 6);
    uint16_t sum = load16(field);
    if (packet->flags & LBRL_PACKET_NEEDS_CSUM) {
        /* the field is the pseudo-header's sum, not complemented, and ports are no part of it */
        store16(field, sum_fold(sum + delta));
    } else if (protocol == PROTO_TCP || sum != 0) {
        delta += (uint32_t)to->sport + to->dport + (uint16_t)~load16(transport) +
                 (uint16_t)~load16(transport + 2);
        sum = sum_update(sum, delta);
        store16(field, protocol == PROTO_UDP && sum == 0 ? 0xffff : sum);
    }
    store16(transport, to->sport);
    store16(transport + 2, to->dport);
}

/* TCP over IPv4 with a complete checksum: all words that change are summed up once. */
static inline void rewrite_tcp_v4(uint8_t *ip, uint8_t *tcp, const ip_t *to_src, const ip_t *to_dst,
                                  uint16_t sport, uint16_t dport)
{
    uint32_t src = ip_v4(to_src);
    uint32_t dst = ip_v4(to_dst);
    const uint16_t both[2] = {sport, dport};
    uint32_t ports;
    memcpy(&ports, both, sizeof(ports));
    uint64_t delta = (uint64_t)src + dst + (uint32_t)~load32(ip + 12) + (uint32_t)~load32(ip + 16);
    uint64_t header = delta + (uint16_t)~load16(ip + 10) + (uint16_t)~swap16(0x0100);
    uint64_t segment = delta + ports + (uint32_t)~load32(tcp) + (uint16_t)~load16(tcp + 16);
    store32(ip + 12, src);
    store32(ip + 16, dst);
    ip[8]--;
    store16(ip + 10, sum_finish(header));
    store32(tcp, ports);
    store16(tcp + 16, sum_finish(segment));
}

static inline bool rewrites_tcp_v4(const lbrl_packet_t *packet, const meta_t *meta)
{
    return meta->protocol == PROTO_TCP && !(meta->flags & META_V6) &&
           !(packet->flags & LBRL_PACKET_NEEDS_CSUM);
}

/* A packet with its transport header. */
static inline void rewrite_packet(lbrl_packet_t *packet, const meta_t *meta,
                                  const translation_t *to)
{
    if (rewrites_tcp_v4(packet, meta)) {
        rewrite_tcp_v4(packet->data, packet->data + meta->transport, to->src, to->dst, to->sport,
                       to->dport);
        return;
    }
    uint32_t delta = address_delta(to, &meta->src, &meta->dst);
    rewrite_transport(packet, packet->data + meta->transport, meta->protocol, to, delta);
    rewrite_ip(packet->data, (meta->flags & META_V6) != 0, to, delta, true);
}

#endif
