/* Packets for tests, built and verified by code that shares nothing with the core: addresses as text, checksums summed
 * 16 bits at a time over everything they cover. */
#ifndef PACKETS_H
#define PACKETS_H

#include <stdbool.h>
#include <string.h>

#include "check.h"
#include "lbrl/lbrl.h"

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

enum { PACKET_ROOM = 2048, PACKET_HEADROOM = 128 };

/* A packet in a buffer of its own. Text addresses: dotted quads, or IPv6 as "x:y" short for fd00::x:y. */
typedef struct test_packet {
    lbrl_packet_t p;
    uint8_t room[PACKET_ROOM];
} test_packet_t;

typedef struct tcp_fields {
    uint32_t sequence, ack;
    uint16_t window;
    uint8_t flags;
    const uint8_t *options; /* a multiple of 4 bytes */
    size_t options_size;
} tcp_fields_t;

lbrl_address_t address_of(const char *text);

/* Builders: complete packets with right checksums; ports as numbers, `payload` bytes of a pattern. */
void make_tcp(test_packet_t *packet, const char *src, uint16_t sport, const char *dst,
              uint16_t dport, const tcp_fields_t *tcp, size_t payload);
void make_udp(test_packet_t *packet, const char *src, uint16_t sport, const char *dst,
              uint16_t dport, size_t payload);
void make_echo(test_packet_t *packet, const char *src, const char *dst, size_t payload);
/* ICMP error about the first `quote` bytes of a packet. */
void make_icmp_error(test_packet_t *packet, const char *src, const char *dst, uint8_t type,
                     uint8_t code, uint32_t rest, const lbrl_packet_t *about, size_t quote);
/* Replaces the IP payload by one fragment of it. */
void make_fragment(test_packet_t *packet, const lbrl_packet_t *whole, uint32_t id, size_t offset,
                   size_t size, bool more);
/* Recomputes every checksum of a packet that was edited. */
void fix_checksums(lbrl_packet_t *packet);
/* Takes any bytes as a packet. */
void make_raw(test_packet_t *packet, const uint8_t *bytes, size_t size);

/* What a packet says. Transport fields are 0 where there is no transport header. */
typedef struct seen {
    lbrl_address_t src, dst;
    uint16_t sport, dport;
    uint8_t protocol, ttl, flags;
    uint32_t sequence, ack;
    size_t transport, payload; /* offsets */
} seen_t;

/* Reads a packet and checks lengths and all checksums it has (partial ones not). */
seen_t look(const lbrl_packet_t *packet);
bool is_address(const lbrl_address_t *address, const char *text);
uint16_t packet_u16(const lbrl_packet_t *packet, size_t offset);

#endif
