/* The straight-line parser agrees with the general one: what it takes, that takes too, with the same result. */
#include <string.h>

#include "check.h"
#include "parse.h"

enum { HEADERS = 52, PACKET = 80, MUTATIONS = 400000 };

static void write_segment(uint8_t *ip)
{
    memset(ip, 0, PACKET);
    ip[0] = 0x45;
    put16(ip + 2, PACKET - 4); /* four bytes of link-layer padding */
    put16(ip + 6, 0x4000);
    ip[8] = 64;
    ip[9] = PROTO_TCP;
    put32(ip + 12, 0xc6336401);
    put32(ip + 16, 0xcb00710a);
    put16(ip + 20, 40000);
    put16(ip + 22, 80);
    ip[32] = 0x80;
    ip[33] = TCP_ACK | TCP_PSH;
}

static uint64_t random_next64(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Changes up to three header bytes or a field of the metadata; mends the header's sum half of the time. */
static void mutate(lbrl_packet_t *packet, uint64_t *random)
{
    uint8_t *ip = packet->data;
    for (uint64_t n = random_next64(random) % 4; n > 0; n--) {
        uint64_t draw = random_next64(random);
        ip[draw % HEADERS] =
            (uint8_t)(draw & 0x100 ? draw >> 9 : ip[draw % HEADERS] ^ 1u << (draw >> 9 & 7));
    }
    uint64_t draw = random_next64(random);
    packet->length = draw & 7 ? PACKET : (uint32_t)(draw >> 8) % (PACKET + 1);
    packet->flags = draw >> 16 & 7 ? 0 : LBRL_PACKET_NEEDS_CSUM;
    packet->csum_start = draw >> 20 & 3 ? 20 : 24;
    packet->csum_offset = draw >> 22 & 3 ? 16 : 6;
    packet->gso_type = draw >> 24 & 7 ? LBRL_GSO_NONE : LBRL_GSO_TCPV4;
    packet->gso_size = draw >> 28 & 3 ? 536 : 0;
    if (draw >> 32 & 3) {
        store16(ip + 10, 0);
        store16(ip + 10, sum_finish(sum_bytes(ip, IPV4_HEADER)));
    }
}

static void check_same(const meta_t *a, const meta_t *b)
{
    CHECK(ip_equal(&a->src, &b->src) && ip_equal(&a->dst, &b->dst));
    CHECK_EQUAL(a->sport, b->sport);
    CHECK_EQUAL(a->dport, b->dport);
    CHECK_EQUAL(a->payload, b->payload);
    CHECK_EQUAL(a->transport, b->transport);
    CHECK_EQUAL(a->kind, b->kind);
    CHECK_EQUAL(a->protocol, b->protocol);
    CHECK_EQUAL(a->flags, b->flags);
    CHECK_EQUAL(a->tcp_flags, b->tcp_flags);
}

int main(void)
{
    uint64_t random = 0x9e3779b97f4a7c15u;
    uint32_t taken = 0;
    uint32_t left = 0;
    for (uint32_t i = 0; i < MUTATIONS; i++) {
        uint8_t bytes[PACKET];
        write_segment(bytes);
        lbrl_packet_t packet = {.data = bytes};
        mutate(&packet, &random);
        lbrl_packet_t again = packet;
        meta_t general = {0};
        meta_t plain = {0};
        lbrl_parse(&packet, &general);
        bool took = parse_plain(&again, &plain);
        bool is_plain = general.kind == META_FLOW && general.protocol == PROTO_TCP &&
                        !(general.flags & META_FIRST_FRAGMENT) && bytes[0] == 0x45 && bytes[8] > 1;
        CHECK_EQUAL(took, is_plain);
        if (took) {
            CHECK_EQUAL(again.length, packet.length);
            check_same(&plain, &general);
        }
        taken += took;
        left += !took;
    }
    CHECK(taken > MUTATIONS / 20 && left > MUTATIONS / 20); /* both sides were tried */
    return 0;
}
