/* From bytes to what the packet path decides on. Every length is checked here, so that nothing behind it has to. */
#ifndef LBRL_PARSE_H
#define LBRL_PARSE_H

#include "lbrl/packet.h"
#include "wire.h"

/* What a packet is, before it is known whose. */
typedef enum meta_kind {
    META_DROP,       /* malformed: reason is set */
    META_FLOW,       /* TCP or UDP with its ports */
    META_FRAGMENT,   /* later fragment: no ports */
    META_ICMP_ERROR, /* quotes a packet; the tuple is that of the flow's opposite direction */
    META_ECHO,       /* echo request */
    META_OTHER,    /* for no flow, but perhaps for another address of the host: reason is a VIP's */
    META_HANDOVER, /* another worker's, decided while classifying */
} meta_kind_t;

enum {
    META_V6 = 1,
    META_FIRST_FRAGMENT = 2, /* fragment_id is set; payload is of this fragment only */
    META_RETURN = 4,         /* towards a NAT source: from a backend */
    META_PLAIN = 8,          /* whole TCP segment that opens nothing, with hops left */
    META_AGAIN = 16,         /* of the same tuple as the packet before it */
};

#define META_NO_CANDIDATE UINT32_MAX

/*
 * A parsed packet. The tuple (src, dst, sport, dport, protocol) is the packet's own, but for META_ICMP_ERROR: there
 * it is that of the quoted packet turned round, and so the tuple of packets that travel in the error's direction.
 */
typedef struct meta {
    ip_t src, dst;
    uint64_t hash;         /* of the tuple, or of the fragment key */
    const void *bucket;    /* of the index, where a search for the tuple begins */
    uint32_t payload;      /* bytes behind the transport header */
    uint32_t candidate;    /* entry that the index named, or META_NO_CANDIDATE */
    uint32_t fragment_id;  /* in network order */
    uint16_t sport, dport; /* network order; as they lie in the packet */
    uint16_t transport;    /* offset of the transport header */
    uint16_t inner;        /* ICMP error: offset of the quoted IP header */
    uint16_t inner_transport;
    uint16_t trailer; /* bytes behind the IP packet that were cut off */
    uint8_t kind;
    uint8_t reason;   /* META_DROP, META_OTHER */
    uint8_t protocol; /* of the tuple */
    uint8_t flags;    /* META_* */
    uint8_t tcp_flags;
    uint8_t partition;
    uint8_t source; /* META_RETURN: index of the NAT source */
} meta_t;

/* Both ports as one number. */
static inline uint32_t meta_ports(const meta_t *meta)
{
    uint32_t ports;
    memcpy(&ports, &meta->sport, sizeof(ports));
    return ports;
}

/* Sources that cannot be answered: "this network", loopback, multicast, reserved, broadcast. */
static inline bool v4_unanswerable(uint32_t address)
{
    uint8_t first = (uint8_t)(swap32(address) >> 24);
    return (uint8_t)(first - 1) >= 223 || first == 127;
}

/* IPv4 link-local (RFC 3927): no router forwards it. */
static inline bool v4_link_local(uint32_t address)
{
    return (swap32(address) >> 16) == 0xa9fe;
}

/* Flags that no TCP sends: several of SYN, FIN and RST, or neither SYN nor RST nor ACK. */
static inline bool tcp_flags_absurd(uint8_t flags)
{
    uint8_t kind = flags & (TCP_SYN | TCP_FIN | TCP_RST);
    return (kind & (kind - 1)) != 0 || (flags & (TCP_SYN | TCP_RST | TCP_ACK)) == 0;
}

/* Whether a segment asks to open a connection. */
static inline bool tcp_flags_open(uint8_t flags)
{
    return (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static inline bool is_plain_syn(const meta_t *meta)
{
    return meta->protocol == PROTO_TCP && tcp_flags_open(meta->tcp_flags);
}

/* Fills `meta` but for hash, candidate, partition and source. Cuts link-layer padding off `packet`; `trailer` is its size. */
void lbrl_parse(lbrl_packet_t *packet, meta_t *meta);

/*
 * lbrl_parse() in a straight line, for the packets that most packets are: whole TCP segments over IPv4 without IP options,
 * with hops left. False leaves every other packet, and every malformed one, to lbrl_parse(); `meta` is undefined then.
 */
static inline bool parse_plain(lbrl_packet_t *packet, meta_t *meta)
{
    const uint8_t *ip = packet->data;
    const uint8_t *tcp = ip + IPV4_HEADER;
    if (__builtin_expect(packet->length < IPV4_HEADER + TCP_HEADER, 0)) {
        return false;
    }
    uint32_t src = load32(ip + 12);
    uint32_t dst = load32(ip + 16);
    uint32_t ports = load32(tcp);
    uint32_t total = get16(ip + 2);
    uint32_t headers = IPV4_HEADER + (tcp[12] >> 4) * 4u;
    uint64_t sum = (uint64_t)load32(ip) + load32(ip + 4) + load32(ip + 8) + src + dst;
    uint32_t unlike = (uint32_t)(ip[0] ^ 0x45) | (load16(ip + 6) & swap16(0x3fff)) |
                      (uint32_t)(ip[9] ^ PROTO_TCP) |
                      (uint32_t)(sum_fold(sum_fold64(sum)) ^ 0xffff);
    bool short_of =
        headers < IPV4_HEADER + TCP_HEADER || total < headers ||
        packet->length - total > UINT16_MAX; /* or wraps: the packet is longer than its buffer */
    bool odd = v4_unanswerable(src) || ip[8] <= 1 || load16(tcp) == 0;
    if (__builtin_expect(unlike != 0 || short_of || odd, 0)) {
        return false;
    }
    const uint8_t kind = tcp[13] & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK);
    if (__builtin_expect(kind != TCP_ACK, 0) && tcp_flags_absurd(kind)) {
        return false;
    }
    if (packet->flags & LBRL_PACKET_NEEDS_CSUM &&
        (packet->csum_start != IPV4_HEADER || packet->csum_offset != 16)) {
        return false;
    }
    if (packet->gso_type != LBRL_GSO_NONE && packet->gso_size == 0) {
        return false;
    }
    meta->trailer = (uint16_t)(packet->length - total);
    packet->length = total;
    meta->src = ip_from_v4(src);
    meta->dst = ip_from_v4(dst);
    memcpy(&meta->sport, &ports, sizeof(ports));
    meta->payload = total - headers;
    meta->transport = IPV4_HEADER;
    meta->kind = META_FLOW;
    meta->protocol = PROTO_TCP;
    meta->flags = kind == TCP_SYN ? 0 : META_PLAIN;
    meta->tcp_flags = tcp[13] & 0x3f;
    return true;
}

/* Options of a TCP segment, most of them a SYN's. */
typedef struct tcp_options {
    uint32_t timestamp; /* TSval */
    uint32_t echo;      /* TSecr */
    uint16_t mss;       /* 536 where it is absent (RFC 9293, 3.7.1) */
    uint8_t scale;      /* of the window, at most 14 */
    uint8_t has_scale, has_timestamp;
} tcp_options_t;

/* Reads the options of a TCP header that lbrl_parse() accepted; malformed ones end the list. */
tcp_options_t lbrl_tcp_options(const uint8_t *tcp);

#endif
