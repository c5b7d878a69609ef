/* Addresses, byte order and Internet checksums: the arithmetic of headers. */
#ifndef LBRL_WIRE_H
#define LBRL_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    PROTO_ICMP = 1,
    PROTO_TCP = 6,
    PROTO_UDP = 17,
    PROTO_ICMPV6 = 58,
};

enum {
    TCP_FIN = 0x01,
    TCP_SYN = 0x02,
    TCP_RST = 0x04,
    TCP_PSH = 0x08,
    TCP_ACK = 0x10,
    TCP_URG = 0x20,
};

enum {
    IPV4_HEADER = 20,
    IPV6_HEADER = 40,
    TCP_HEADER = 20,
    UDP_HEADER = 8,
    ICMP_HEADER = 8,
    TTL_OF_ANSWERS = 64,
};

/* ------------------------------------------------------------------------------- unaligned access */

static inline uint16_t load16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static inline uint32_t load32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static inline uint64_t load64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static inline void store16(uint8_t *at, uint16_t value)
{
    memcpy(at, &value, sizeof(value));
}

static inline void store32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof(value));
}

/* Between network and host order: its own inverse. */
static inline uint16_t swap16(uint16_t value)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return __builtin_bswap16(value);
#else
    return value;
#endif
}

static inline uint32_t swap32(uint32_t value)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return __builtin_bswap32(value);
#else
    return value;
#endif
}

static inline uint16_t get16(const uint8_t *at)
{
    return swap16(load16(at));
}

static inline uint32_t get32(const uint8_t *at)
{
    return swap32(load32(at));
}

static inline void put16(uint8_t *at, uint16_t value)
{
    store16(at, swap16(value));
}

static inline void put32(uint8_t *at, uint32_t value)
{
    store32(at, swap32(value));
}

/* ------------------------------------------------------------------------------- addresses */

/* An address as it lies in memory: 16 bytes in network order, IPv4 as ::ffff:a.b.c.d. */
typedef struct ip {
    uint64_t word[2];
} ip_t;

static inline ip_t ip_load(const void *bytes)
{
    ip_t ip;
    memcpy(&ip, bytes, sizeof(ip));
    return ip;
}

/* IPv4 address in network order. */
static inline ip_t ip_from_v4(uint32_t address)
{
    ip_t ip = {{0, 0}};
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    ip.word[1] = (uint64_t)address << 32 | 0xffff0000u;
#else
    ip.word[1] = 0x0000ffff00000000u | address;
#endif
    return ip;
}

static inline uint32_t ip_v4(const ip_t *ip)
{
    return load32((const uint8_t *)ip->word + 12);
}

static inline bool ip_equal(const ip_t *a, const ip_t *b)
{
    return ((a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1])) == 0;
}

static inline bool ip_is_v4(const ip_t *ip)
{
    ip_t mapped = ip_from_v4(ip_v4(ip));
    return ip_equal(ip, &mapped);
}

static inline bool ip_is_zero(const ip_t *ip)
{
    return (ip->word[0] | ip->word[1]) == 0;
}

/* ------------------------------------------------------------------------------- checksums */

/* Sums are of 16-bit words in memory order, which makes them independent of the byte order. */

/* Each fold adds the halves with end-around carry: x + (x rotated by half its width) has that in its upper half. */

static inline uint32_t sum_fold64(uint64_t sum)
{
    return (uint32_t)((sum + (sum << 32 | sum >> 32)) >> 32);
}

static inline uint16_t sum_fold(uint32_t sum)
{
    return (uint16_t)((sum + (sum << 16 | sum >> 16)) >> 16);
}

/* Sum of an address, folded to 16 bits. */
static inline uint32_t sum_ip(const ip_t *ip)
{
    uint64_t sum = (ip->word[0] & 0xffffffffu) + (ip->word[0] >> 32) + (ip->word[1] & 0xffffffffu) +
                   (ip->word[1] >> 32);
    return sum_fold(sum_fold64(sum));
}

/* Sum of bytes; an odd last byte is padded with zero. */
static inline uint64_t sum_bytes(const uint8_t *at, size_t size)
{
    uint64_t sum = 0;
    for (; size >= 4; size -= 4, at += 4) {
        sum += load32(at);
    }
    if (size >= 2) {
        sum += load16(at);
        at += 2;
        size -= 2;
    }
    if (size) {
        uint8_t last[2] = {at[0], 0};
        sum += load16(last);
    }
    return sum;
}

/* Sum of a pseudo-header. Terms are added as 64 bits: two of them fill 32. */
static inline uint64_t sum_pseudo(const ip_t *src, const ip_t *dst, uint32_t size, uint8_t protocol)
{
    return (uint64_t)sum_ip(src) + sum_ip(dst) + swap32(size) + swap32(protocol);
}

/* The checksum field for a sum of everything it covers. */
static inline uint16_t sum_finish(uint64_t sum)
{
    return (uint16_t)~sum_fold(sum_fold64(sum));
}

/* RFC 1624, equation 3: field' = ~(~field + ~old + new). `delta` is new + ~old, any number of words. */
static inline uint16_t sum_update(uint16_t field, uint32_t delta)
{
    return (uint16_t)~sum_fold((uint16_t)~field + delta);
}

#endif
