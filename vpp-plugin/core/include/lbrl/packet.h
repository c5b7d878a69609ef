/*
 * One packet as the core sees it: an IP packet in a caller's buffer with the offload metadata of
 * virtio-net.
 *
 * Ownership: the buffer is always the caller's. During lbrl_process() the core may rewrite bytes of
 * [data - headroom, data + length + tailroom) and move `data` and `length` within that range;
 * afterwards it keeps no pointer into it.
 */
#ifndef LBRL_PACKET_H
#define LBRL_PACKET_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Most packets that one call of lbrl_process() takes. */
#define LBRL_VECTOR_MAX 256

/* Headroom that lets every answer be built in place (an IPv6 and an ICMPv6 header in front of a
 * quoted packet). With less, packets that would be answered by ICMP are dropped and counted as
 * `no_headroom`. */
#define LBRL_HEADROOM 64

/* Values of gso_type, the same numbers as virtio_net_hdr's without its ECN bit. */
enum {
    LBRL_GSO_NONE = 0,
    LBRL_GSO_TCPV4 = 1,
    LBRL_GSO_TCPV6 = 4,
    LBRL_GSO_UDP_L4 = 5,
};

/* Most packets that a worker has its caller hold at one time: a datagram of 64 KiB in reverse order, twice. */
#define LBRL_HELD_MAX 128

/* Values of flags. */
enum {
    LBRL_PACKET_NEEDS_CSUM =
        1, /* the checksum at csum_start + csum_offset covers the pseudo-header only */
    LBRL_PACKET_CSUM_VALID =
        2, /* somebody below has verified the transport checksum; information only */
    LBRL_PACKET_EXPIRED = 4, /* set by lbrl_held_take(): is not held again */
};

/* What the caller does with a packet after lbrl_process(). */
typedef enum lbrl_verdict {
    LBRL_VERDICT_FORWARD, /* rewritten in place; route it by its new destination */
    LBRL_VERDICT_REPLY, /* turned round in place into an answer to its sender; route it likewise */
    LBRL_VERDICT_DROP,  /* discard; `reason` says why and has been counted */
    LBRL_VERDICT_PASS,  /* addressed to none of our VIPs and sources: unchanged, counted as
                           `not_ours` */
    LBRL_VERDICT_HANDOVER, /* belongs to worker `worker`: unchanged, give it to lbrl_handover() */
    LBRL_VERDICT_HOLD,     /* fragment that came before its first: unchanged, keep the buffer until
                              lbrl_held_take() gives the packet back. Only with lbrl_config_t.holds */
} lbrl_verdict_t;

/*
 * Why a packet was not forwarded. X(name, text): enumerator LBRL_DROP_<name>, the metric label is
 * the name in lower case. Append only: the numbers are counters' places in tools that outlive one
 * version.
 */
#define LBRL_DROP_REASONS(X)                                                                       \
    X(NONE, "not dropped")                                                                         \
    X(NOT_OURS, "addressed to no VIP and no NAT source")                                           \
    X(TRUNCATED, "shorter than its headers say")                                                   \
    X(BAD_VERSION, "neither IPv4 nor IPv6")                                                        \
    X(BAD_HEADER, "header length or field out of its range")                                       \
    X(BAD_CHECKSUM, "IP header, ICMP or mandatory UDP checksum wrong")                             \
    X(BAD_ADDRESS, "source address cannot be answered")                                            \
    X(BAD_OPTION, "source route or malformed options")                                             \
    X(BAD_FRAGMENT, "fragment without its transport header, or overlapping it")                    \
    X(FRAGMENT_UNKNOWN, "later fragment whose first has not been seen")                            \
    X(BAD_FLAGS, "TCP flags that no TCP sends")                                                    \
    X(UNKNOWN_PROTOCOL, "neither TCP, UDP nor ICMP")                                               \
    X(ICMP_UNSUPPORTED, "ICMP type that is neither echo nor a forwarded error")                    \
    X(ICMP_NO_FLOW, "ICMP error about no flow of ours")                                            \
    X(PORT_UNCONFIGURED, "VIP has no such port; answered unless rate-bounded")                     \
    X(NO_FLOW, "TCP packet without SYN that belongs to no flow")                                   \
    X(NO_FLOW_RETURN, "packet to a NAT source that belongs to no flow")                            \
    X(NO_BACKEND, "no backend takes new flows")                                                    \
    X(NO_NAT_PORT, "every NAT port towards the backend is in use; answered unless rate-bounded")   \
    X(TABLE_FULL, "no entry left in the flow's partition; answered unless rate-bounded")           \
    X(BACKEND_FAILED, "backend of the flow has failed; answered unless rate-bounded")              \
    X(TTL_EXPIRED, "TTL or hop limit used up; answered unless rate-bounded")                       \
    X(NO_HEADROOM, "answer does not fit into the buffer")                                          \
    X(RATE_BOUNDED, "answer withheld by the rate bound")                                           \
    X(HANDOVER_FULL, "ring to the owning worker is full")                                          \
    X(TOO_BIG, "does not fit into the tunnel; answered unless rate-bounded")                       \
    X(NO_TUNNEL_SOURCE, "no source address of the backend's family for the tunnel")                \
    X(FORGED_CLIENT, "new flow from a VIP, a NAT source's port or a link-local address")

typedef enum lbrl_drop {
#define LBRL_DROP_ENUM(name, text) LBRL_DROP_##name,
    LBRL_DROP_REASONS(LBRL_DROP_ENUM)
#undef LBRL_DROP_ENUM
        LBRL_DROP_COUNT
} lbrl_drop_t;

/* Name in lower case and explanation of a reason; "unknown" out of range. Static storage. */
const char *lbrl_drop_name(unsigned reason);
const char *lbrl_drop_text(unsigned reason);

/*
 * One packet. Input: data to csum_offset. Output: data, length, headroom, tailroom, the offload
 * fields (cleared for REPLY), verdict, reason, worker. `buffer` is the caller's and travels
 * untouched, over handover rings too.
 */
typedef struct lbrl_packet {
    uint8_t *data;        /* first byte of the IP header */
    void *buffer;         /* the caller's */
    uint32_t length;      /* bytes from data on */
    uint16_t headroom;    /* writable bytes before data */
    uint16_t tailroom;    /* writable bytes after data + length, saturated */
    uint8_t gso_type;     /* LBRL_GSO_*: a super-packet of several segments */
    uint8_t flags;        /* LBRL_PACKET_* */
    uint16_t gso_size;    /* payload bytes per segment */
    uint16_t hdr_len;     /* bytes of all headers of a super-packet */
    uint16_t csum_start;  /* from data on; valid with NEEDS_CSUM */
    uint16_t csum_offset; /* from csum_start on */
    uint16_t worker;      /* owner, with HANDOVER */
    uint8_t verdict;      /* lbrl_verdict_t */
    uint8_t reason;       /* lbrl_drop_t; also set with REPLY: what the answer is about */
    uint16_t
        tunnel; /* output: bytes of outer headers in front of a super-packet (lbrl_segment()), else 0 */
} lbrl_packet_t;

/*
 * Segments of a super-packet that was put into a tunnel (`tunnel` is not 0), for which virtio-net has no offload. Writes
 * segment `index`, complete with all checksums, into `out`; returns its length, or 0 when there is no such segment
 * or it does not fit into `room` bytes. Reads the packet only.
 */
uint32_t lbrl_segment(const lbrl_packet_t *packet, uint32_t index, uint8_t *out, uint32_t room);

/*
 * Takes a GRE packet out of its tunnel, in place, as a backend does: `data` and `length` become those of the inner packet, its
 * ECN field what RFC 6040 makes of both. Only GRE without options (version 0), and in it a well-formed packet of TCP or UDP over
 * IPv4 or IPv6, a fragment of one, or an ICMP error about one. Whom it is from and for is the caller's to check. Returns 0, or -1
 * and leaves the packet as it is.
 */
int lbrl_decapsulate(lbrl_packet_t *packet);

#ifdef __cplusplus
}
#endif
#endif
