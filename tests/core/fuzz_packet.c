/*
 * libFuzzer target of the packet path. An input is a list of packets, each behind a small header:
 *   1 byte  bits 0-2: how the bytes become a packet (see use below), bit 3: super-packet, bit 4: partial checksum,
 *           bits 5-7: how much time passes before it
 *   2 bytes length (little-endian), then so many bytes
 * Packets run through a small load balancer with a connection and a datagram flow already open, so that inputs reach
 * translation, ICMP errors and fragments. Whatever comes in, what is forwarded must be a packet again.
 */
#include <stddef.h>

#include "image.h"
#include "rig.h"

enum {
    USE_AS_IS,
    USE_MENDED,
    USE_FROM_CLIENT,
    USE_FROM_SERVER,
    USE_ICMP_ERROR,
    USE_GRE,
    USE_L3DSR
};

static rig_t rig;
static connection_t open_connection;

/* Made once; every input finds it so. Building it anew takes many times as long as an input. */
static void prepare(void)
{
    image_begin();
    rig = rig_tiny();
    lbrl_nat_source_t sources[2] = {{address_of("192.0.2.1"), 16384, 16511},
                                    {address_of("9:1"), 16384, 16511}};
    CHECK_EQUAL(lbrl_sources_set(rig.lb, sources, 2), 0);
    rig_set_standard_vips(&rig, 2);
    lbrl_backend_config_t backends[2];
    lbrl_vip_config_t vip = rig_vip(4, "203.0.113.11", 80, 6, backends, 2);
    vip.forwarding = LBRL_FORWARD_GRE;
    backends[1].address = address_of("2:1");
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &vip, rig.now_us), 0);
    vip = rig_vip(5, "203.0.113.12", 80, 6, backends, 2);
    vip.forwarding = LBRL_FORWARD_L3DSR;
    vip.dscp = 9;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &vip, rig.now_us), 0);
    open_connection = connection_make(&rig, "198.51.100.7", 40000, "203.0.113.10");
    connection_open(&open_connection);
    image_keep();
}

/* Overwrites the addresses and ports by those of the open connection, so that the rest is a packet of it. */
static void steer(lbrl_packet_t *packet, bool from_server)
{
    if (packet->length < 24 || packet->data[0] >> 4 != 4) {
        return;
    }
    lbrl_address_t client = address_of(open_connection.client);
    lbrl_address_t vip = address_of(open_connection.vip);
    const lbrl_address_t *src = from_server ? &open_connection.backend : &client;
    const lbrl_address_t *dst = from_server ? &open_connection.source : &vip;
    uint16_t sport = from_server ? open_connection.backend_port : open_connection.client_port;
    uint16_t dport = from_server ? open_connection.nat_port : open_connection.vip_port;
    memcpy(packet->data + 12, src->bytes + 12, 4);
    memcpy(packet->data + 16, dst->bytes + 12, 4);
    const uint8_t ports[4] = {(uint8_t)(sport >> 8), (uint8_t)sport, (uint8_t)(dport >> 8),
                              (uint8_t)dport};
    size_t at = (packet->data[0] & 15u) * 4u;
    if (at >= 20 && at + 4 <= packet->length) {
        memcpy(packet->data + at, ports, 4);
    }
}

/* Makes lengths and IP checksum right, for inputs rarely get past them by luck. */
static void mend(lbrl_packet_t *packet)
{
    uint8_t *ip = packet->data;
    if (packet->length >= 20 && ip[0] >> 4 == 4) {
        size_t header = (ip[0] & 15u) * 4u;
        ip[2] = (uint8_t)(packet->length >> 8);
        ip[3] = (uint8_t)packet->length;
        if (header >= 20 && header <= packet->length) {
            uint32_t sum = 0;
            ip[10] = ip[11] = 0;
            for (size_t i = 0; i < header; i += 2) {
                sum += packet_u16(packet, i);
            }
            sum = (sum & 0xffff) + (sum >> 16);
            sum = ~((sum & 0xffff) + (sum >> 16));
            ip[10] = (uint8_t)(sum >> 8);
            ip[11] = (uint8_t)sum;
        }
    } else if (packet->length >= 40 && ip[0] >> 4 == 6) {
        ip[4] = (uint8_t)((packet->length - 40) >> 8);
        ip[5] = (uint8_t)(packet->length - 40);
    }
}

/* Addresses a packet to a one-way VIP. */
static void address_one_way(lbrl_packet_t *packet, bool gre)
{
    static const uint8_t vip[4] = {203, 0, 113, 11};
    if (packet->length >= 24 && packet->data[0] >> 4 == 4) {
        memcpy(packet->data + 16, vip, 4);
        packet->data[19] = (uint8_t)(gre ? 11 : 12);
        size_t at = (packet->data[0] & 15u) * 4u;
        if (at >= 20 && at + 4 <= packet->length) {
            packet->data[at + 2] = 0;
            packet->data[at + 3] = 80;
        }
    }
}

/* The other end of a tunnel takes what comes out, segment by segment where that is needed. */
static void check_tunnel(const lbrl_packet_t *packet)
{
    uint8_t *out = malloc(packet->length);
    CHECK(out != NULL);
    uint32_t length;
    for (uint32_t i = 0; (length = lbrl_segment(packet, i, out, packet->length)) > 0; i++) {
        lbrl_packet_t segment = {.data = out, .length = length};
        CHECK_EQUAL(lbrl_decapsulate(&segment), 0);
    }
    free(out);
}

static void check_output(const lbrl_packet_t *packet)
{
    if (packet->verdict == LBRL_VERDICT_FORWARD && packet->tunnel) {
        check_tunnel(packet);
    }
    CHECK(packet->verdict <= LBRL_VERDICT_PASS);
    CHECK(packet->reason < LBRL_DROP_COUNT);
    CHECK((packet->verdict == LBRL_VERDICT_DROP || packet->verdict == LBRL_VERDICT_PASS) ==
              (packet->reason != LBRL_DROP_NONE) ||
          packet->verdict == LBRL_VERDICT_REPLY);
    if (packet->verdict == LBRL_VERDICT_FORWARD || packet->verdict == LBRL_VERDICT_REPLY) {
        size_t total =
            packet->data[0] >> 4 == 4 ? packet_u16(packet, 2) : packet_u16(packet, 4) + 40u;
        CHECK_EQUAL(total, packet->length);
    }
}

/* Runs one packet in a buffer of exactly its size, head- and tailroom included. */
static void feed(const uint8_t *bytes, size_t size, uint8_t mode)
{
    uint8_t use = mode & 7;
    size_t room = (mode & 8 && use < USE_GRE ? 0 : LBRL_HEADROOM) + size;
    uint8_t *buffer = malloc(room ? room : 1);
    CHECK(buffer != NULL);
    lbrl_packet_t packet = {.data = buffer + (room - size),
                            .length = (uint32_t)size,
                            .headroom = (uint16_t)(room - size)};
    memcpy(packet.data, bytes, size);
    lbrl_packet_t arrived = packet; /* any bytes may arrive at the other end of a tunnel */
    (void)lbrl_decapsulate(&arrived);
    memcpy(packet.data, bytes, size);
    if (use >= USE_GRE) {
        address_one_way(&packet, use == USE_GRE);
    }
    if (use == USE_FROM_CLIENT || use == USE_FROM_SERVER) {
        steer(&packet, use == USE_FROM_SERVER);
    }
    if (use != USE_AS_IS) {
        mend(&packet);
    }
    if (mode & 8) {
        packet.gso_type = LBRL_GSO_TCPV4;
        packet.gso_size = size > 40 ? (uint16_t)(size - 40) / 2u : 0;
    }
    if (mode & 16) {
        packet.flags = LBRL_PACKET_NEEDS_CSUM;
        packet.csum_start = size && bytes[0] >> 4 == 4 ? (bytes[0] & 15u) * 4u : 40;
        packet.csum_offset = size > 9 && bytes[9] == 17 ? 6 : 16;
    }
    static const uint32_t passes[8] = {0, 1, 1000, 50000, 300000, 1100000, 11000000, 61000000};
    rig.now_us += passes[mode >> 5];
    if (mode >> 5 > 2) {
        lbrl_worker_tick(lbrl_worker(rig.lb, 0), rig.now_us);
        lbrl_control_tick(rig.lb, rig.now_us);
    }
    lbrl_process(lbrl_worker(rig.lb, 0), &packet, 1, rig.now_us);
    check_output(&packet);
    free(buffer);
}

/* An ICMP error about what the open connection sent, with the input as its quoted packet's tail. */
static void feed_error(const uint8_t *bytes, size_t size, uint8_t mode)
{
    test_packet_t about, error;
    tcp_fields_t tcp = {.sequence = open_connection.client_next, .flags = ACK};
    make_tcp(&about, text_of(&open_connection.source), open_connection.nat_port,
             text_of(&open_connection.backend), open_connection.backend_port, &tcp, 0);
    size_t tail = size < 20 ? size : 20;
    memcpy(about.p.data + 24, bytes, tail < 16 ? tail : 16);
    make_icmp_error(&error, "10.9.9.9", text_of(&open_connection.source), 3, 4, 1400, &about.p,
                    28 + (mode >> 4));
    CHECK(rig_send(&rig, &error) <= LBRL_VERDICT_PASS);
    check_output(&error.p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!rig.lb) {
        prepare();
    }
    const rig_t rig_before = rig;
    const connection_t connection_before = open_connection;
    while (size >= 3) {
        uint8_t mode = data[0];
        size_t length = (size_t)data[1] | (size_t)data[2] << 8;
        data += 3;
        size -= 3;
        length = length < size ? length : size;
        if ((mode & 7) == USE_ICMP_ERROR) {
            feed_error(data, length, mode);
        } else {
            feed(data, length, mode);
        }
        data += length;
        size -= length;
    }
    rig = rig_before;
    open_connection = connection_before;
    image_restore();
    return 0;
}
