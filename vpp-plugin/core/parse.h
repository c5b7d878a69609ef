/* From bytes to what the packet path decides on. Every length is checked here, so that nothing behind it has to. */
#ifndef LBRL_PARSE_H
#define LBRL_PARSE_H

#include "lbrl/packet.h"
#include "wire.h"

/* What a packet is, before it is known whose. */
typedef enum meta_kind {
    META_DROP,       /* reason is set */
    META_FLOW,       /* TCP or UDP with its ports */
    META_FRAGMENT,   /* later fragment: no ports */
    META_ICMP_ERROR, /* quotes a packet; the tuple is that of the flow's opposite direction */
    META_ECHO,       /* echo request */
    META_PASS,       /* not ours, decided while classifying */
    META_HANDOVER,   /* another worker's, decided while classifying */
} meta_kind_t;

enum {
    META_V6 = 1,
    META_FIRST_FRAGMENT = 2, /* fragment_id is set; payload is of this fragment only */
    META_RETURN = 4,         /* towards a NAT source: from a backend */
    META_PLAIN = 8,          /* whole TCP segment without SYN, FIN, RST, with hops left */
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
    uint16_t sport, dport; /* network order */
    uint16_t transport;    /* offset of the transport header */
    uint16_t inner;        /* ICMP error: offset of the quoted IP header */
    uint16_t inner_transport;
    uint8_t kind;
    uint8_t reason;   /* META_DROP */
    uint8_t protocol; /* of the tuple */
    uint8_t flags;    /* META_* */
    uint8_t tcp_flags;
    uint8_t partition;
    uint8_t source; /* META_RETURN: index of the NAT source */
} meta_t;

/* Fills `meta` but for hash, candidate, partition and source. Cuts link-layer padding off `packet`. */
void lbrl_parse(lbrl_packet_t *packet, meta_t *meta);

/* Options of a SYN that later packets depend on. */
typedef struct tcp_options {
    uint32_t timestamp; /* TSval */
    uint8_t scale;      /* of the window, at most 14 */
    uint8_t has_scale, has_timestamp;
} tcp_options_t;

/* Reads the options of a TCP header that lbrl_parse() accepted; malformed ones end the list. */
tcp_options_t lbrl_tcp_options(const uint8_t *tcp);

#endif
