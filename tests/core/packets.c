#include "packets.h"

#include <stdio.h>

static void write16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void write32(uint8_t *at, uint32_t value)
{
    write16(at, value >> 16);
    write16(at + 2, value);
}

static uint16_t read16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t read32(const uint8_t *at)
{
    return (uint32_t)read16(at) << 16 | read16(at + 2);
}

static uint32_t add_bytes(uint32_t sum, const uint8_t *at, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        sum += i % 2 ? at[i] : (uint32_t)at[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

lbrl_address_t address_of(const char *text)
{
    lbrl_address_t address = {{0}};
    unsigned part[4];
    if (sscanf(text, "%u.%u.%u.%u", &part[0], &part[1], &part[2], &part[3]) == 4) {
        address.bytes[10] = address.bytes[11] = 0xff;
        for (int i = 0; i < 4; i++) {
            address.bytes[12 + i] = (uint8_t)part[i];
        }
        return address;
    }
    CHECK(sscanf(text, "%x:%x", &part[0], &part[1]) == 2);
    address.bytes[0] = 0xfd;
    write16(address.bytes + 12, part[0]);
    write16(address.bytes + 14, part[1]);
    return address;
}

static bool is_v6(const lbrl_address_t *address)
{
    return address->bytes[10] != 0xff || address->bytes[0] != 0;
}

bool is_address(const lbrl_address_t *address, const char *text)
{
    lbrl_address_t expected = address_of(text);
    return memcmp(address, &expected, sizeof(expected)) == 0;
}

uint16_t packet_u16(const lbrl_packet_t *packet, size_t offset)
{
    return read16(packet->data + offset);
}

/* Writes the IP header, returns where the payload of `size` bytes begins. */
static uint8_t *start(test_packet_t *packet, const char *src, const char *dst, uint8_t protocol,
                      size_t size)
{
    lbrl_address_t from = address_of(src);
    lbrl_address_t to = address_of(dst);
    bool v6 = is_v6(&from);
    size_t header = v6 ? 40 : 20;
    CHECK(PACKET_HEADROOM + header + size <= PACKET_ROOM);
    memset(packet, 0, sizeof(*packet));
    packet->p.data = packet->room + PACKET_HEADROOM;
    packet->p.headroom = PACKET_HEADROOM;
    packet->p.length = (uint32_t)(header + size);
    packet->p.tailroom = (uint16_t)(PACKET_ROOM - PACKET_HEADROOM - packet->p.length);
    uint8_t *ip = packet->p.data;
    if (v6) {
        write32(ip, 0x60000000);
        write16(ip + 4, (uint32_t)size);
        ip[6] = protocol;
        ip[7] = 60;
        memcpy(ip + 8, from.bytes, 16);
        memcpy(ip + 24, to.bytes, 16);
    } else {
        ip[0] = 0x45;
        ip[1] = 0x2e; /* DSCP and ECN that must survive */
        write16(ip + 2, packet->p.length);
        write16(ip + 4, 0x1234);
        ip[8] = 60;
        ip[9] = protocol;
        memcpy(ip + 12, from.bytes + 12, 4);
        memcpy(ip + 16, to.bytes + 12, 4);
    }
    return ip + header;
}

static void fill(uint8_t *at, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        at[i] = (uint8_t)(i * 7 + 3);
    }
}

/* Where the transport header lies and which it is; steps over extension headers. */
static size_t find_transport(const lbrl_packet_t *packet, uint8_t *protocol, bool *later_fragment)
{
    const uint8_t *ip = packet->data;
    *later_fragment = false;
    if (ip[0] >> 4 == 4) {
        *protocol = ip[9];
        *later_fragment = (read16(ip + 6) & 0x1fff) != 0;
        return (ip[0] & 15u) * 4u;
    }
    size_t at = 40;
    *protocol = ip[6];
    while (*protocol == 0 || *protocol == 43 || *protocol == 44 || *protocol == 60) {
        uint8_t next = ip[at];
        if (*protocol == 44) {
            *later_fragment = (read16(ip + at + 2) & 0xfff8) != 0;
            at += 8;
        } else {
            at += (ip[at + 1] + 1u) * 8u;
        }
        *protocol = next;
    }
    return at;
}

static size_t sum_field(uint8_t protocol)
{
    return protocol == 6 ? 16 : protocol == 17 ? 6 : 2;
}

static uint32_t pseudo_sum(const uint8_t *ip, uint8_t protocol, size_t size)
{
    uint32_t sum = protocol + (uint32_t)size;
    return ip[0] >> 4 == 4 ? add_bytes(sum, ip + 12, 8) : add_bytes(sum, ip + 8, 32);
}

/* The sum over transport and pseudo-header; 0xffff when the checksum in it is right. */
static uint32_t transport_sum(const lbrl_packet_t *packet, size_t at, uint8_t protocol)
{
    size_t size = packet->length - at;
    uint32_t sum = protocol == 1 ? 0 : pseudo_sum(packet->data, protocol, size);
    return add_bytes(sum, packet->data + at, size);
}

void fix_checksums(lbrl_packet_t *packet)
{
    uint8_t *ip = packet->data;
    uint8_t protocol;
    bool later;
    size_t at = find_transport(packet, &protocol, &later);
    if (!later && (protocol == 1 || protocol == 6 || protocol == 17 || protocol == 58)) {
        uint8_t *field = ip + at + sum_field(protocol);
        write16(field, 0);
        uint32_t sum = ~transport_sum(packet, at, protocol) & 0xffff;
        write16(field, protocol == 17 && sum == 0 ? 0xffff : sum);
    }
    if (ip[0] >> 4 == 4) {
        write16(ip + 10, 0);
        write16(ip + 10, ~add_bytes(0, ip, (ip[0] & 15u) * 4u) & 0xffff);
    }
}

void make_tcp(test_packet_t *packet, const char *src, uint16_t sport, const char *dst,
              uint16_t dport, const tcp_fields_t *tcp, size_t payload)
{
    size_t header = 20 + tcp->options_size;
    uint8_t *at = start(packet, src, dst, 6, header + payload);
    write16(at, sport);
    write16(at + 2, dport);
    write32(at + 4, tcp->sequence);
    write32(at + 8, tcp->ack);
    at[12] = (uint8_t)(header / 4 << 4);
    at[13] = tcp->flags;
    write16(at + 14, tcp->window ? tcp->window : 5000);
    if (tcp->options_size) {
        memcpy(at + 20, tcp->options, tcp->options_size);
    }
    fill(at + header, payload);
    fix_checksums(&packet->p);
}

void make_udp(test_packet_t *packet, const char *src, uint16_t sport, const char *dst,
              uint16_t dport, size_t payload)
{
    uint8_t *at = start(packet, src, dst, 17, 8 + payload);
    write16(at, sport);
    write16(at + 2, dport);
    write16(at + 4, (uint32_t)(8 + payload));
    fill(at + 8, payload);
    fix_checksums(&packet->p);
}

void make_echo(test_packet_t *packet, const char *src, const char *dst, size_t payload)
{
    lbrl_address_t from = address_of(src);
    uint8_t *at = start(packet, src, dst, is_v6(&from) ? 58 : 1, 8 + payload);
    at[0] = is_v6(&from) ? 128 : 8;
    write32(at + 4, 0x00070001);
    fill(at + 8, payload);
    fix_checksums(&packet->p);
}

void make_icmp_error(test_packet_t *packet, const char *src, const char *dst, uint8_t type,
                     uint8_t code, uint32_t rest, const lbrl_packet_t *about, size_t quote)
{
    lbrl_address_t from = address_of(src);
    size_t size = quote < about->length ? quote : about->length;
    uint8_t *at = start(packet, src, dst, is_v6(&from) ? 58 : 1, 8 + size);
    at[0] = type;
    at[1] = code;
    write32(at + 4, rest);
    memcpy(at + 8, about->data, size);
    fix_checksums(&packet->p);
}

static void fragment_v4(test_packet_t *packet, const lbrl_packet_t *whole, uint32_t id,
                        size_t offset, size_t size, bool more)
{
    memcpy(packet->p.data, whole->data, 20);
    memcpy(packet->p.data + 20, whole->data + 20 + offset, size);
    packet->p.length = (uint32_t)(20 + size);
    write16(packet->p.data + 2, packet->p.length);
    write16(packet->p.data + 4, id);
    write16(packet->p.data + 6, (uint32_t)(offset / 8) | (more ? 0x2000 : 0));
    write16(packet->p.data + 10, 0);
    write16(packet->p.data + 10, ~add_bytes(0, packet->p.data, 20) & 0xffff);
}

static void fragment_v6(test_packet_t *packet, const lbrl_packet_t *whole, uint32_t id,
                        size_t offset, size_t size, bool more)
{
    uint8_t *ip = packet->p.data;
    memcpy(ip, whole->data, 40);
    ip[40] = ip[6];
    ip[6] = 44;
    ip[41] = 0;
    write16(ip + 42, (uint32_t)offset | (more ? 1 : 0));
    write32(ip + 44, id);
    memcpy(ip + 48, whole->data + 40 + offset, size);
    packet->p.length = (uint32_t)(48 + size);
    write16(ip + 4, (uint32_t)(8 + size));
}

void make_fragment(test_packet_t *packet, const lbrl_packet_t *whole, uint32_t id, size_t offset,
                   size_t size, bool more)
{
    memset(packet, 0, sizeof(*packet));
    packet->p.data = packet->room + PACKET_HEADROOM;
    packet->p.headroom = PACKET_HEADROOM;
    if (whole->data[0] >> 4 == 4) {
        fragment_v4(packet, whole, id, offset, size, more);
    } else {
        fragment_v6(packet, whole, id, offset, size, more);
    }
    packet->p.tailroom = (uint16_t)(PACKET_ROOM - PACKET_HEADROOM - packet->p.length);
}

void make_raw(test_packet_t *packet, const uint8_t *bytes, size_t size)
{
    memset(packet, 0, sizeof(*packet));
    packet->p.data = packet->room + PACKET_HEADROOM;
    packet->p.headroom = PACKET_HEADROOM;
    packet->p.length = (uint32_t)size;
    packet->p.tailroom = (uint16_t)(PACKET_ROOM - PACKET_HEADROOM - size);
    memcpy(packet->p.data, bytes, size);
}

static void look_ip(const lbrl_packet_t *packet, seen_t *seen)
{
    const uint8_t *ip = packet->data;
    if (ip[0] >> 4 == 4) {
        CHECK_EQUAL(read16(ip + 2), packet->length);
        CHECK_EQUAL(add_bytes(0, ip, (ip[0] & 15u) * 4u), 0xffff);
        seen->src.bytes[10] = seen->src.bytes[11] = seen->dst.bytes[10] = seen->dst.bytes[11] =
            0xff;
        memcpy(seen->src.bytes + 12, ip + 12, 4);
        memcpy(seen->dst.bytes + 12, ip + 16, 4);
        seen->ttl = ip[8];
    } else {
        CHECK_EQUAL(ip[0] >> 4, 6);
        CHECK_EQUAL(read16(ip + 4) + 40, packet->length);
        memcpy(seen->src.bytes, ip + 8, 16);
        memcpy(seen->dst.bytes, ip + 24, 16);
        seen->ttl = ip[7];
    }
}

static bool is_first_of_many(const lbrl_packet_t *packet)
{
    const uint8_t *ip = packet->data;
    return ip[0] >> 4 == 4 ? (read16(ip + 6) & 0x2000) != 0 : ip[6] == 44 && (ip[43] & 1);
}

seen_t look(const lbrl_packet_t *packet)
{
    seen_t seen = {0};
    bool later;
    look_ip(packet, &seen);
    seen.transport = find_transport(packet, &seen.protocol, &later);
    if (later) {
        return seen;
    }
    const uint8_t *at = packet->data + seen.transport;
    bool no_sum = seen.protocol == 17 && read16(at + 6) == 0;
    if (!(packet->flags & LBRL_PACKET_NEEDS_CSUM) && !no_sum && !is_first_of_many(packet)) {
        CHECK_EQUAL(transport_sum(packet, seen.transport, seen.protocol), 0xffff);
    }
    seen.payload = seen.transport + 8;
    if (seen.protocol == 6 || seen.protocol == 17) {
        seen.sport = read16(at);
        seen.dport = read16(at + 2);
    }
    if (seen.protocol == 6) {
        seen.flags = at[13];
        seen.sequence = read32(at + 4);
        seen.ack = read32(at + 8);
        seen.payload = seen.transport + (at[12] >> 4) * 4u;
    }
    return seen;
}
