/*
 * libFuzzer target of the packet path. An input is a list of packets, each behind a small header:
 *   1 byte  bits 0-2: how the bytes become a packet (use_t), bit 3: super-packet, bit 4: partial checksum,
 *           bits 5-7: how much time passes before it
 *   1 byte  bit 0: the open flow meant is the one over IPv6, bit 1: over UDP, bits 2-3: type of a super-packet,
 *           bit 4: it waits for the next one, to be in one vector with it, bit 5: four segments of a connection, one
 *           behind the other, bit 6: the other worker gets it
 *   2 bytes length (little-endian), then so many bytes
 * Packets run through a load balancer of two workers whose VIPs, one of each kind, are at level `full`, with flows open,
 * so that inputs reach translation, ICMP errors and fragments. Whatever comes in, what is forwarded must be a packet
 * again, and backends' counts must be those of the flow table.
 */
#include <stddef.h>

#include "image.h"
#include "rig.h"

typedef enum use {
    USE_AS_IS,
    USE_MENDED,
    USE_FROM_CLIENT,
    USE_FROM_SERVER,
    USE_ICMP_ERROR,
    USE_GRE,
    USE_L3DSR,
    USE_CONTROL, /* no packet: the bytes change a VIP */
} use_t;

enum { SUPER = 8, PARTIAL = 16 };                                   /* of the first byte */
enum { V6 = 1, UDP = 2, TOGETHER = 16, AGAIN = 32, WORKER_1 = 64 }; /* of the second */
enum { VIPS = 10, WORKERS = 2, SLOTS = 128, WAITING = 64, SEGMENTS = 4 };

typedef struct vip_kind {
    const char *address;
    uint16_t port;
    uint8_t protocol, forwarding, scheduler;
} vip_kind_t;

static const vip_kind_t KINDS[VIPS] = {
    {"203.0.113.10", 80, 6, LBRL_FORWARD_NAT, LBRL_SCHEDULER_SED},
    {"1:10", 80, 6, LBRL_FORWARD_NAT, LBRL_SCHEDULER_LSQ},
    {"203.0.113.10", 53, 17, LBRL_FORWARD_NAT, LBRL_SCHEDULER_P2C},
    {"1:10", 53, 17, LBRL_FORWARD_NAT, LBRL_SCHEDULER_ALIAS},
    {"203.0.113.11", 80, 6, LBRL_FORWARD_GRE, LBRL_SCHEDULER_MAGLEV},
    {"1:11", 80, 6, LBRL_FORWARD_GRE, LBRL_SCHEDULER_SED},
    {"203.0.113.11", 53, 17, LBRL_FORWARD_GRE, LBRL_SCHEDULER_LSQ},
    {"1:11", 53, 17, LBRL_FORWARD_GRE, LBRL_SCHEDULER_MAGLEV},
    {"203.0.113.12", 80, 6, LBRL_FORWARD_L3DSR, LBRL_SCHEDULER_P2C},
    {"1:12", 80, 6, LBRL_FORWARD_L3DSR, LBRL_SCHEDULER_MAGLEV},
};

/* Both sides of an open flow. */
typedef struct ends {
    lbrl_address_t client, vip, backend, source;
    uint16_t client_port, vip_port, backend_port, nat_port;
    uint32_t sequence;
} ends_t;

/* Packets that will be one vector, each in a buffer of exactly its size, head- and tailroom included. */
typedef struct vector {
    lbrl_packet_t packets[WAITING];
    uint32_t n, worker;
} vector_t;

static rig_t rig;
static rig_frames_t frames[VIPS];
static ends_t flows[4]; /* by V6 | UDP */
static vector_t waiting;

/* ------------------------------------------------------------------------------- what every input finds */

/* The VIP as its bytes say: states of its two backends, level, load. */
static void set_vip(uint32_t index, uint8_t how)
{
    const vip_kind_t *kind = &KINDS[index];
    lbrl_backend_config_t backends[2];
    lbrl_vip_config_t vip =
        rig_vip(index + 1, kind->address, kind->port, kind->protocol, backends, 2);
    vip.forwarding = kind->forwarding;
    vip.scheduler = kind->scheduler;
    vip.dscp = kind->forwarding == LBRL_FORWARD_L3DSR ? 9 : 0;
    vip.load = how & 64 ? LBRL_LOAD_OPEN : LBRL_LOAD_ACTIVE;
    vip.feature_level = (uint8_t)(LBRL_LEVEL_FULL - (how >> 4 & 3) % 3);
    backends[0].state = (uint8_t)(LBRL_BACKEND_ACTIVE + (how & 3) % 3);
    backends[1].state = (uint8_t)(LBRL_BACKEND_ACTIVE + (how >> 2 & 3) % 3);
    if (kind->forwarding == LBRL_FORWARD_GRE) { /* outer headers of either family */
        backends[1].address = address_of(kind->address[1] == ':' ? "10.0.0.9" : "2:9");
    }
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &vip, rig.now_us), 0);
}

static void open_tcp(ends_t *ends, const char *client, const char *vip)
{
    connection_t c = connection_make(&rig, client, 40000, vip);
    connection_open(&c);
    *ends = (ends_t){address_of(client), address_of(vip), c.backend,    c.source, 40000, 80,
                     c.backend_port,     c.nat_port,      c.client_next};
}

static void open_udp(ends_t *ends, const char *client, const char *vip)
{
    test_packet_t packet;
    make_udp(&packet, client, 30000, vip, 53, 40);
    CHECK_EQUAL(rig_send(&rig, &packet), LBRL_VERDICT_FORWARD);
    seen_t seen = look(&packet.p);
    *ends = (ends_t){address_of(client), address_of(vip), seen.dst, seen.src, 30000, 53,
                     seen.dport,         seen.sport,      0};
}

/* Made once; every input finds it so. Building it anew takes many times as long as an input. */
static void prepare(void)
{
    image_begin();
    lbrl_config_t config = {.flows = 256,
                            .vips = 16,
                            .slots = SLOTS,
                            .workers = WORKERS,
                            .holds = 1,
                            .now_us = 1000000000};
    rig = rig_configured(config);
    lbrl_nat_source_t sources[2] = {{address_of("192.0.2.1"), 16384, 16511},
                                    {address_of("9:1"), 16384, 16511}};
    CHECK_EQUAL(lbrl_sources_set(rig.lb, sources, 2), 0);
    for (uint32_t i = 0; i < VIPS; i++) {
        set_vip(i, 0);
        rig_bind_frames(&rig, &frames[i], i + 1);
    }
    open_tcp(&flows[0], "198.51.100.7", KINDS[0].address);
    open_tcp(&flows[V6], "5:7", KINDS[1].address);
    open_udp(&flows[UDP], "198.51.100.7", KINDS[2].address);
    open_udp(&flows[V6 | UDP], "5:7", KINDS[3].address);
    image_keep();
}

/* ------------------------------------------------------------------------------- bytes become packets */

/* Where the transport header lies and what it is; 0 where there is no room for ports. */
static size_t find_ports(const lbrl_packet_t *packet, uint8_t *protocol)
{
    const uint8_t *ip = packet->data;
    size_t at = 0;
    if (packet->length >= 20 && ip[0] >> 4 == 4) {
        *protocol = ip[9];
        at = (ip[0] & 15u) * 4u;
        at = at < 20 ? 0 : at;
    } else if (packet->length >= 40 && ip[0] >> 4 == 6) {
        *protocol = ip[6];
        for (at = 40; at + 8 <= packet->length &&
                      (*protocol == 0 || *protocol == 43 || *protocol == 44 || *protocol == 60);) {
            size_t size = *protocol == 44 ? 8 : (ip[at + 1] + 1u) * 8u;
            *protocol = ip[at];
            at += size;
        }
    }
    return at + 4 <= packet->length ? at : 0;
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* Overwrites the addresses of the packet's family, NULL: leaves it. */
static void put_addresses(const lbrl_packet_t *packet, const lbrl_address_t *src,
                          const lbrl_address_t *dst)
{
    bool v6 = packet->data[0] >> 4 == 6;
    size_t size = v6 ? 16 : 4;
    uint8_t *at = packet->data + (v6 ? 8 : 12);
    if (src) {
        memcpy(at, src->bytes + 16 - size, size);
    }
    memcpy(at + size, dst->bytes + 16 - size, size);
}

static bool is_ip(const lbrl_packet_t *packet)
{
    return packet->length >= 20 &&
           (packet->data[0] >> 4 == 4 || (packet->data[0] >> 4 == 6 && packet->length >= 40));
}

/* Addresses and ports become those of an open flow, so that the rest is a packet of it. */
static void steer(const lbrl_packet_t *packet, uint8_t where, bool from_server)
{
    if (!is_ip(packet)) {
        return;
    }
    const ends_t *e = &flows[(packet->data[0] >> 4 == 6 ? V6 : 0) | (where & UDP)];
    put_addresses(packet, from_server ? &e->backend : &e->client,
                  from_server ? &e->source : &e->vip);
    uint8_t protocol;
    size_t at = find_ports(packet, &protocol);
    if (at) {
        put16(packet->data + at, from_server ? e->backend_port : e->client_port);
        put16(packet->data + at + 2, from_server ? e->nat_port : e->vip_port);
    }
}

/* Addresses a packet to a one-way VIP. */
static void steer_one_way(const lbrl_packet_t *packet, bool gre)
{
    if (!is_ip(packet)) {
        return;
    }
    bool v6 = packet->data[0] >> 4 == 6;
    lbrl_address_t vip = address_of(gre  ? v6 ? "1:11" : "203.0.113.11"
                                    : v6 ? "1:12"
                                         : "203.0.113.12");
    put_addresses(packet, NULL, &vip);
    uint8_t protocol = 0;
    size_t at = find_ports(packet, &protocol);
    if (at) {
        put16(packet->data + at + 2, protocol == 17 ? 53 : 80);
    }
}

/* Makes lengths and IP checksum right, for inputs rarely get past them by luck. */
static void mend(const lbrl_packet_t *packet)
{
    uint8_t *ip = packet->data;
    if (packet->length >= 20 && ip[0] >> 4 == 4) {
        size_t header = (ip[0] & 15u) * 4u;
        put16(ip + 2, packet->length);
        if (header >= 20 && header <= packet->length) {
            uint32_t sum = 0;
            put16(ip + 10, 0);
            for (size_t i = 0; i < header; i += 2) {
                sum += packet_u16(packet, i);
            }
            sum = (sum & 0xffff) + (sum >> 16);
            put16(ip + 10, ~((sum & 0xffff) + (sum >> 16)));
        }
    } else if (packet->length >= 40 && ip[0] >> 4 == 6) {
        put16(ip + 4, packet->length - 40);
    }
}

/* What a device would say of a super-packet, or of one whose checksum it will finish. */
static void offload(lbrl_packet_t *packet, uint8_t mode, uint8_t where)
{
    uint8_t protocol = 0;
    size_t at = find_ports(packet, &protocol);
    bool v6 = packet->length && packet->data[0] >> 4 == 6;
    if (mode & SUPER) {
        const uint8_t types[4] = {protocol == 17 ? LBRL_GSO_UDP_L4
                                  : v6           ? LBRL_GSO_TCPV6
                                                 : LBRL_GSO_TCPV4,
                                  LBRL_GSO_TCPV4, LBRL_GSO_TCPV6, LBRL_GSO_UDP_L4};
        packet->gso_type = types[where >> 2 & 3];
        packet->gso_size = packet->length > 40 ? (uint16_t)(packet->length - 40) / 2u : 0;
    }
    if (mode & PARTIAL) {
        packet->flags = LBRL_PACKET_NEEDS_CSUM;
        packet->csum_start = (uint16_t)(at ? at : 40);
        packet->csum_offset = protocol == 17 ? 6 : 16;
    }
}

/* The packet's sequence number moves on as if `number` packets like it had gone before. */
static void follow(const lbrl_packet_t *packet, uint32_t number)
{
    uint8_t protocol = 0;
    size_t at = find_ports(packet, &protocol);
    if (!at || protocol != 6 || at + 20 > packet->length) {
        return;
    }
    uint8_t *tcp = packet->data + at;
    size_t header = (tcp[12] >> 4) * 4u;
    uint32_t payload = at + header < packet->length ? packet->length - (uint32_t)(at + header) : 0;
    uint32_t sequence = (uint32_t)packet_u16(packet, at + 4) << 16 | packet_u16(packet, at + 6);
    sequence += number * payload;
    put16(tcp + 4, sequence >> 16);
    put16(tcp + 6, sequence);
}

/* ------------------------------------------------------------------------------- packets go through */

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

/* Packets go through a worker; those of the other one wait in its ring. */
static void process(uint32_t index, lbrl_packet_t *packets, uint32_t n)
{
    lbrl_worker_t *worker = lbrl_worker(rig.lb, index);
    lbrl_process(worker, packets, n, rig.now_us);
    for (uint32_t i = 0; i < n; i++) {
        if (packets[i].verdict == LBRL_VERDICT_HANDOVER) {
            CHECK_EQUAL(packets[i].worker, 1 - index);
            CHECK_EQUAL(lbrl_handover(worker, &packets[i]), 0);
        } else if (packets[i].verdict != LBRL_VERDICT_HOLD) {
            check_output(&packets[i]);
            free(packets[i].buffer);
        }
    }
}

/* What waits goes through its worker, what is the other one's goes on to that, and so do fragments that were held. */
static void flush(void)
{
    uint32_t n = waiting.n;
    waiting.n = 0;
    process(waiting.worker, waiting.packets, n);
    for (uint32_t moved = 1; moved;) {
        moved = 0;
        for (uint32_t i = 0; i < WORKERS; i++) {
            lbrl_worker_t *worker = lbrl_worker(rig.lb, i);
            while ((n = lbrl_handover_take(worker, waiting.packets, WAITING)) > 0 ||
                   (n = lbrl_held_take(worker, waiting.packets, WAITING, rig.now_us)) > 0) {
                process(i, waiting.packets, n);
                moved += n;
            }
        }
    }
}

static void free_held(void)
{
    lbrl_packet_t packet;
    for (uint32_t i = 0; i < WORKERS; i++) {
        while (lbrl_held_take(lbrl_worker(rig.lb, i), &packet, 1, UINT64_MAX) > 0) {
            free(packet.buffer);
        }
    }
}

static void wait_or_go(const lbrl_packet_t *packet, uint8_t where)
{
    uint32_t worker = where & WORKER_1 ? 1 : 0;
    if (waiting.n && (waiting.worker != worker || waiting.n == WAITING)) {
        flush();
    }
    waiting.worker = worker;
    waiting.packets[waiting.n++] = *packet;
    if (!(where & (TOGETHER | AGAIN))) {
        flush();
    }
}

static lbrl_packet_t copy_of(const uint8_t *bytes, size_t size, size_t headroom)
{
    uint8_t *buffer = malloc(headroom + size ? headroom + size : 1);
    CHECK(buffer != NULL);
    memcpy(buffer + headroom, bytes, size);
    return (lbrl_packet_t){.data = buffer + headroom,
                           .buffer = buffer,
                           .length = (uint32_t)size,
                           .headroom = (uint16_t)headroom};
}

static void feed(const uint8_t *bytes, size_t size, uint8_t mode, uint8_t where)
{
    uint8_t use = mode & 7;
    lbrl_packet_t packet = copy_of(bytes, size, mode & SUPER && use < USE_GRE ? 0 : LBRL_HEADROOM);
    if (use >= USE_GRE) {
        steer_one_way(&packet, use == USE_GRE);
    }
    if (use == USE_FROM_CLIENT || use == USE_FROM_SERVER) {
        steer(&packet, where, use == USE_FROM_SERVER);
    }
    if (use != USE_AS_IS) {
        mend(&packet);
    }
    offload(&packet, mode, where);
    for (uint32_t i = 1; where & AGAIN && i < SEGMENTS; i++) {
        lbrl_packet_t more = copy_of(packet.data, size, packet.headroom);
        uint8_t *data = more.data, *buffer = more.buffer;
        more = packet;
        more.data = data;
        more.buffer = buffer;
        follow(&more, i - 1);
        wait_or_go(&more, where);
    }
    follow(&packet, where & AGAIN ? SEGMENTS - 1 : 0);
    wait_or_go(&packet, where & (uint8_t)~AGAIN);
}

/* Any bytes may arrive at the other end of a tunnel. */
static void feed_decapsulation(const uint8_t *bytes, size_t size)
{
    lbrl_packet_t packet = copy_of(bytes, size, 0);
    (void)lbrl_decapsulate(&packet);
    free(packet.buffer);
}

/* An ICMP error about what an open flow sent to its backend, with the input as its quoted packet's tail. */
static void feed_error(const uint8_t *bytes, size_t size, uint8_t mode, uint8_t where)
{
    test_packet_t about, error;
    const ends_t *e = &flows[where & (V6 | UDP)];
    const char *source = text_of(&e->source), *backend = text_of(&e->backend);
    bool v6 = where & V6;
    if (where & UDP) {
        make_udp(&about, source, e->nat_port, backend, e->backend_port, 8);
    } else {
        tcp_fields_t tcp = {.sequence = e->sequence, .flags = ACK};
        make_tcp(&about, source, e->nat_port, backend, e->backend_port, &tcp, 0);
    }
    size_t behind = (v6 ? 40 : 20) + 4; /* the ports stay */
    size_t tail = about.p.length - behind;
    memcpy(about.p.data + behind, bytes, size < tail ? size : tail);
    make_icmp_error(&error, v6 ? "9:9" : "10.9.9.9", source, v6 ? 2 : 3, v6 ? 0 : 4, 1400, &about.p,
                    behind + 4 + (mode >> 4));
    lbrl_packet_t packet = copy_of(error.p.data, error.p.length, LBRL_HEADROOM);
    wait_or_go(&packet, where);
}

static void control(const uint8_t *bytes, size_t size)
{
    uint32_t index = size ? bytes[0] % VIPS : 0;
    uint8_t how = size > 1 ? bytes[1] : 0;
    if (how & 128) {
        (void)lbrl_vip_remove(rig.lb, index + 1, rig.now_us);
    } else {
        set_vip(index, how);
    }
}

static void pass(uint8_t mode)
{
    static const uint32_t passes[8] = {0, 1, 1000, 50000, 300000, 1100000, 11000000, 61000000};
    if (mode >> 5 == 0) {
        return;
    }
    flush();
    rig.now_us += passes[mode >> 5];
    if (mode >> 5 > 2) {
        for (uint32_t i = 0; i < WORKERS; i++) {
            lbrl_worker_tick(lbrl_worker(rig.lb, i), rig.now_us);
        }
        lbrl_control_tick(rig.lb, rig.now_us);
        lbrl_publish(rig.lb, rig.now_us);
    }
}

static void check_counts(void)
{
    for (uint32_t i = 0; i < WORKERS; i++) {
        lbrl_worker_tick(lbrl_worker(rig.lb, i), rig.now_us);
    }
    for (uint32_t i = 0; i < VIPS; i++) {
        rig_recount(&rig, i + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!rig.lb) {
        prepare();
    }
    const rig_t rig_before = rig;
    while (size >= 4) {
        uint8_t mode = data[0], where = data[1];
        size_t length = (size_t)data[2] | (size_t)data[3] << 8;
        data += 4;
        size -= 4;
        length = length < size ? length : size;
        pass(mode);
        if ((mode & 7) == USE_CONTROL) {
            flush();
            control(data, length);
        } else if ((mode & 7) == USE_ICMP_ERROR) {
            feed_error(data, length, mode, where);
        } else {
            feed_decapsulation(data, length);
            feed(data, length, mode, where);
        }
        data += length;
        size -= length;
    }
    flush();
    check_counts();
    rig = rig_before;
    free_held();
    image_restore();
    return 0;
}
