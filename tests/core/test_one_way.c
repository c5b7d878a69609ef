/* GRE and L3DSR: what leaves, where it goes without a flow, and when flows count. */
#include "rig.h"

enum { GRE = 47, OUTER4 = 24, OUTER6 = 44 };

static void set_vip(rig_t *rig, const char *address, uint8_t protocol, uint8_t forwarding,
                    const char *first_backend, uint32_t count)
{
    lbrl_backend_config_t backends[8];
    lbrl_vip_config_t config = rig_vip(7, address, 80, protocol, backends, count);
    bool v4 = first_backend[1] != ':';
    for (uint32_t i = 0; i < count; i++) {
        char text[24];
        snprintf(text, sizeof(text), v4 ? "10.0.0.%u" : "2:%x", i + 1);
        backends[i].address = address_of(text);
    }
    config.forwarding = forwarding;
    config.dscp = forwarding == LBRL_FORWARD_L3DSR ? 10 : 0;
    CHECK_EQUAL(lbrl_vip_set(rig->lb, &config, rig->now_us), 0);
}

static rig_t one_way(const char *address, uint8_t protocol, uint8_t forwarding,
                     const char *first_backend, uint32_t count)
{
    rig_t rig = rig_sized(4096, 1);
    rig_set_sources(&rig);
    set_vip(&rig, address, protocol, forwarding, first_backend, count);
    return rig;
}

static void segment(test_packet_t *p, const char *vip, uint16_t port, uint32_t sequence,
                    uint8_t flags, size_t payload)
{
    tcp_fields_t tcp = {.sequence = sequence, .ack = 1, .window = 1000, .flags = flags};
    bool v4 = vip[1] != ':';
    make_tcp(p, v4 ? "198.51.100.7" : "5:7", port, vip, 80, &tcp, payload);
}

static lbrl_verdict_t send_segment(rig_t *rig, test_packet_t *p, const char *vip, uint16_t port,
                                   uint32_t sequence, uint8_t flags, size_t payload)
{
    segment(p, vip, port, sequence, flags, payload);
    return rig_send(rig, p);
}

/* Last byte of the address that the packet goes to. */
static uint8_t backend_of(const test_packet_t *p)
{
    const uint8_t *ip = p->p.data;
    return ip[0] >> 4 == 6 ? ip[39] : ip[19];
}

static void a_packet_in_gre_is_the_clients_less_one_hop(void)
{
    static const struct {
        const char *vip, *backend;
        size_t outer;
    } ways[] = {{"203.0.113.10", "10.0.0.1", OUTER4},
                {"203.0.113.10", "2:1", OUTER6},
                {"1:10", "10.0.0.1", OUTER4},
                {"1:10", "2:1", OUTER6}};
    for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        rig_t rig = one_way(ways[i].vip, 6, LBRL_FORWARD_GRE, ways[i].backend, 2);
        test_packet_t p;
        segment(&p, ways[i].vip, 40000, 100, SYN, 0);
        bool v6 = ways[i].vip[1] == ':';
        bool outer_v6 = ways[i].outer == OUTER6;
        uint8_t *ip = p.p.data;
        if (v6) { /* DSCP 46, ECT(0) */
            ip[0] = 0x6b;
            ip[1] = (uint8_t)(0xa0 | (ip[1] & 15));
        } else {
            ip[1] = 0xba;
        }
        fix_checksums(&p.p);
        uint8_t before[256];
        uint32_t length = p.p.length;
        memcpy(before, p.p.data, length);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
        const uint8_t *out = p.p.data;
        CHECK_EQUAL(p.p.length, length + ways[i].outer);
        CHECK_EQUAL(out[0] >> 4, outer_v6 ? 6 : 4);
        CHECK_EQUAL(outer_v6 ? (out[0] & 15) << 4 | out[1] >> 4 : out[1], 0xba);
        CHECK_EQUAL(outer_v6 ? out[6] : out[9], GRE);
        CHECK_EQUAL(packet_u16(&p.p, outer_v6 ? 4 : 2), p.p.length - (outer_v6 ? 40 : 0));
        CHECK_EQUAL(packet_u16(&p.p, ways[i].outer - 4), 0);
        CHECK_EQUAL(packet_u16(&p.p, ways[i].outer - 2), v6 ? 0x86dd : 0x0800);
        /* the other end gets what the client sent, but for TTL and IP checksum */
        CHECK_EQUAL(lbrl_decapsulate(&p.p), 0);
        CHECK_EQUAL(p.p.length, length);
        seen_t seen = look(&p.p);
        CHECK_EQUAL(seen.ttl, before[v6 ? 7 : 8] - 1);
        CHECK(memcmp(p.p.data + (v6 ? 8 : 12), before + (v6 ? 8 : 12), length - (v6 ? 8 : 12)) ==
              0);
        rig_free(&rig);
    }
}

static void l3dsr_changes_destination_and_dscp_only(void)
{
    for (int v6 = 0; v6 < 2; v6++) {
        const char *vip = v6 ? "1:10" : "203.0.113.10";
        rig_t rig = one_way(vip, 6, LBRL_FORWARD_L3DSR, v6 ? "2:1" : "10.0.0.1", 1);
        test_packet_t p;
        segment(&p, vip, 40000, 100, SYN, 0);
        p.p.data[1] = v6 ? 0x30 : 0x03; /* CE */
        fix_checksums(&p.p);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
        seen_t seen = look(&p.p);
        CHECK(is_address(&seen.src, v6 ? "5:7" : "198.51.100.7"));
        CHECK(is_address(&seen.dst, v6 ? "2:1" : "10.0.0.1"));
        CHECK_EQUAL(seen.sport, 40000);
        CHECK_EQUAL(seen.dport, 80);
        uint32_t class = v6 ? (packet_u16(&p.p, 0) >> 4 & 0xffu) : p.p.data[1];
        CHECK_EQUAL(class, 10u << 2 | 3u);
        CHECK_EQUAL(seen.ttl, 59);
        rig_free(&rig);
    }
}

static void a_flow_keeps_its_backend_whatever_weights_say(void)
{
    rig_t rig = one_way("203.0.113.10", 6, LBRL_FORWARD_GRE, "10.0.0.1", 4);
    test_packet_t p;
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 100, SYN, 0), LBRL_VERDICT_FORWARD);
    uint8_t backend = backend_of(&p);
    float weights[8] = {1, 1, 1, 1};
    uint8_t generations[8] = {1, 1, 1, 1};
    weights[backend - 1] = 0;
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 7, weights, NULL, generations, 4), 0);
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 101, ACK, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(backend_of(&p), backend);
    CHECK_EQUAL(rig_backend(&rig, 7, 7000 + backend).open_flows, 1);
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 101, ACK, 500), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 601, FIN | ACK, 0),
                LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(rig_backend(&rig, 7, 7000 + backend).open_flows, 0);
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 602, ACK, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(backend_of(&p), backend);
    rig_free(&rig);
}

/* What was a flow on another node, or before a restart without arena. */
static void strangers_go_where_configured_weights_say_on_every_node(void)
{
    rig_t a = one_way("203.0.113.10", 6, LBRL_FORWARD_GRE, "10.0.0.1", 4);
    rig_t b = one_way("203.0.113.10", 6, LBRL_FORWARD_GRE, "10.0.0.1", 4);
    float weights[8] = {9, 1, 0, 0};
    uint8_t generations[8] = {1, 1, 1, 1};
    CHECK_EQUAL(lbrl_weights_set(b.lb, 7, weights, NULL, generations, 4), 0);
    uint32_t used = 0;
    for (uint16_t port = 0; port < 200; port++) {
        test_packet_t p;
        CHECK_EQUAL(send_segment(&a, &p, "203.0.113.10", (uint16_t)(30000 + port), 100, ACK, 10),
                    LBRL_VERDICT_FORWARD);
        uint8_t backend = backend_of(&p);
        CHECK_EQUAL(send_segment(&b, &p, "203.0.113.10", (uint16_t)(30000 + port), 100, ACK, 10),
                    LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(backend_of(&p), backend);
        used |= 1u << backend;
    }
    CHECK_EQUAL(used, 0x1e); /* backends 1 to 4 */
    rig_free(&a);
    rig_free(&b);
}

/* Where the packets of 400 clients' connections go that began elsewhere; RST, so that no flow comes of them. */
static void strangers_go_to(rig_t *rig, uint8_t *backends)
{
    for (uint16_t i = 0; i < 400; i++) {
        test_packet_t p;
        lbrl_verdict_t verdict =
            send_segment(rig, &p, "203.0.113.10", (uint16_t)(20000 + i), 500, RST | ACK, 0);
        backends[i] = verdict == LBRL_VERDICT_FORWARD ? backend_of(&p) : 0;
    }
}

/* What a policy says must not move connections that other nodes know: those have another policy's weights. */
static void strangers_do_not_move_when_a_policy_gives_a_backend_no_weight(void)
{
    rig_t rig = one_way("203.0.113.10", 6, LBRL_FORWARD_L3DSR, "10.0.0.1", 4);
    uint8_t before[400], after[400];
    strangers_go_to(&rig, before);
    float weights[8] = {0, 1, 1, 1};
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 7, weights, NULL, NULL, 4), 0);
    const uint64_t later[] = {0, 1000, 301000, 1000};
    for (unsigned i = 0; i < sizeof(later) / sizeof(later[0]); i++) {
        rig_pass(&rig, later[i]);
        strangers_go_to(&rig, after);
        CHECK(memcmp(before, after, sizeof(before)) == 0);
    }
    CHECK_EQUAL(rig_backend(&rig, 7, 7001).state, LBRL_BACKEND_ACTIVE);
    /* nor does every other packet of one get lost there */
    unsigned here = 0;
    while (before[here] != 1) {
        here++;
    }
    for (uint32_t i = 0; i < 4; i++) {
        test_packet_t p;
        CHECK_EQUAL(
            send_segment(&rig, &p, "203.0.113.10", (uint16_t)(20000 + here), 500 + i * 10, ACK, 10),
            LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(backend_of(&p), 1);
    }
    /* but when it is configured to drain, has no weight, or is no backend any more, nobody goes there */
    for (unsigned way = 0; way < 3; way++) {
        lbrl_backend_config_t backends[8];
        lbrl_vip_config_t config;
        CHECK_EQUAL(lbrl_vip_config(rig.lb, 7, &config, backends, 8), 0);
        config.backends = backends + (way == 2);
        config.backend_count = way == 2 ? 3 : 4;
        backends[0].state = way == 0 ? LBRL_BACKEND_DRAINING : LBRL_BACKEND_ACTIVE;
        backends[0].weight = way == 1 ? 0 : 1;
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
        strangers_go_to(&rig, after);
        for (unsigned i = 0; i < 400; i++) {
            CHECK(i == here || (after[i] >= 2 && after[i] <= 4)); /* that one has a flow */
        }
    }
    rig_free(&rig);
}

static void silence_leaves_the_counts_and_keeps_the_backend(void)
{
    rig_t rig = one_way("203.0.113.10", 6, LBRL_FORWARD_L3DSR, "10.0.0.1", 4);
    test_packet_t p;
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 100, SYN, 0), LBRL_VERDICT_FORWARD);
    uint8_t backend = backend_of(&p);
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 101, ACK, 0), LBRL_VERDICT_FORWARD);
    rig_pass(&rig, 29000);
    CHECK_EQUAL(rig_backend(&rig, 7, 7000 + backend).open_flows, 1);
    rig_pass(&rig, 3000);
    CHECK_EQUAL(rig_backend(&rig, 7, 7000 + backend).open_flows, 0);
    CHECK_EQUAL(rig_backend(&rig, 7, 7000 + backend).entries, 1);
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 101, ACK, 10), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(backend_of(&p), backend);
    CHECK_EQUAL(rig_backend(&rig, 7, 7000 + backend).open_flows, 1);
    rig_free(&rig);
}

/* The server ended the first connection unseen; the second, between the same ports, is as long as it likes. */
static void connection_begun_anew_keeps_its_backend(void)
{
    for (int gre = 0; gre < 2; gre++) {
        rig_t rig =
            one_way("203.0.113.10", 6, gre ? LBRL_FORWARD_GRE : LBRL_FORWARD_L3DSR, "10.0.0.1", 4);
        uint8_t backends[20];
        test_packet_t p;
        for (uint32_t i = 0; i < 130; i++) {
            for (uint16_t k = 0; k < 20; k++) {
                const uint16_t port = (uint16_t)(20000 + k);
                if (i == 0) {
                    send_segment(&rig, &p, "203.0.113.10", port, 100, SYN, 0);
                    send_segment(&rig, &p, "203.0.113.10", port, 101, ACK, 10);
                    backends[k] = backend_of(&p);
                    send_segment(&rig, &p, "203.0.113.10", port, 0x60000000, SYN, 0);
                    CHECK_EQUAL(backend_of(&p), backends[k]);
                }
                send_segment(&rig, &p, "203.0.113.10", port, 0x60000001 + 10 * i, ACK, 10);
                CHECK_EQUAL(backend_of(&p), backends[k]);
            }
            rig_pass(&rig, 10000);
        }
        rig_free(&rig);
    }
}

static void forged_syn_and_reset_do_not_end_an_idle_connection(void)
{
    rig_t rig = one_way("203.0.113.10", 6, LBRL_FORWARD_L3DSR, "10.0.0.1", 4);
    test_packet_t p;
    send_segment(&rig, &p, "203.0.113.10", 40000, 100, SYN, 0);
    send_segment(&rig, &p, "203.0.113.10", 40000, 101, ACK, 10);
    uint8_t backend = backend_of(&p);
    send_segment(&rig, &p, "203.0.113.10", 40000, 0x60000000, SYN, 0);
    send_segment(&rig, &p, "203.0.113.10", 40000, 0x60000001, ACK, 0);
    send_segment(&rig, &p, "203.0.113.10", 40000, 0x60000001, RST, 0);
    rig_pass(&rig, 800000);
    CHECK_EQUAL(rig_backend(&rig, 7, 7000 + backend).entries, 1);
    send_segment(&rig, &p, "203.0.113.10", 40000, 111, ACK, 10);
    CHECK_EQUAL(backend_of(&p), backend);
    rig_free(&rig);
}

/* A flood fills the pool of half-open flows; then SYN and what follows go the same way without an entry. */
static void under_pressure_new_flows_need_no_entry(void)
{
    rig_t rig = one_way("203.0.113.10", 6, LBRL_FORWARD_GRE, "10.0.0.1", 4);
    test_packet_t p;
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 1024, 100, SYN, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 1024, 101, ACK, 0), LBRL_VERDICT_FORWARD);
    uint8_t established = backend_of(&p);
    for (uint32_t i = 0; i < 20000; i++) {
        CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", (uint16_t)(2000 + i), 100, SYN, 0),
                    LBRL_VERDICT_FORWARD);
    }
    lbrl_stats_t stats;
    lbrl_stats(rig.lb, &stats);
    CHECK(stats.flows <= stats.flow_capacity / 2);
    CHECK_EQUAL(stats.flows_recycled, 0);
    for (uint16_t port = 50000; port < 50100; port++) {
        CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", port, 100, SYN, 0),
                    LBRL_VERDICT_FORWARD);
        uint8_t backend = backend_of(&p);
        CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", port, 101, ACK, 20),
                    LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(backend_of(&p), backend);
    }
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 1024, 101, ACK, 7), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(backend_of(&p), established);
    rig_free(&rig);
}

static void what_the_tunnel_cannot_take_is_answered(void)
{
    for (int v6 = 0; v6 < 2; v6++) {
        const char *vip = v6 ? "1:10" : "203.0.113.10";
        rig_t rig = one_way(vip, 6, LBRL_FORWARD_GRE, "10.0.0.1", 1);
        test_packet_t p;
        CHECK_EQUAL(send_segment(&rig, &p, vip, 40000, 100, SYN, 0), LBRL_VERDICT_FORWARD);
        size_t fits = 1476 - (v6 ? 60 : 40);
        for (size_t payload = fits; payload <= fits + 1; payload++) {
            segment(&p, vip, 40000, 101, ACK, payload);
            if (!v6) {
                p.p.data[6] = 0x40;
                fix_checksums(&p.p);
            }
            lbrl_verdict_t verdict = rig_send(&rig, &p);
            CHECK_EQUAL(verdict, payload == fits ? LBRL_VERDICT_FORWARD : LBRL_VERDICT_REPLY);
        }
        seen_t seen = look(&p.p);
        CHECK(is_address(&seen.dst, v6 ? "5:7" : "198.51.100.7"));
        size_t icmp = v6 ? 40 : 20;
        CHECK_EQUAL(p.p.data[icmp], v6 ? 2 : 3);
        CHECK_EQUAL(p.p.data[icmp + 1], v6 ? 0 : 4);
        CHECK_EQUAL(packet_u16(&p.p, icmp + 6), 1476);
        CHECK_EQUAL(rig_dropped(&rig, LBRL_DROP_TOO_BIG), 1);
        rig_free(&rig);
    }
}

/* Of a connection's packets in one vector each has to fit. */
/* IPv4 that may be fragmented goes into the tunnel whole, but for what no outer packet's 16 bits of length can say. */
static void the_largest_packets_fit_no_tunnel(void)
{
    enum { ROOM = 256 };
    static const char *const backends[] = {"10.0.0.1", "10.0.0.1", "2:1"};
    static const uint32_t lengths[] = {65511, 65512, 1457};
    static uint8_t memory[ROOM + UINT16_MAX];
    for (unsigned i = 0; i < 3; i++) {
        rig_t rig = one_way("203.0.113.10", 17, LBRL_FORWARD_GRE, backends[i], 1);
        test_packet_t small;
        make_udp(&small, "198.51.100.7", 4000, "203.0.113.10", 80, 100);
        memset(memory, 0, sizeof(memory));
        lbrl_packet_t packet = {.data = memory + ROOM, .length = lengths[i], .headroom = ROOM};
        memcpy(packet.data, small.p.data, small.p.length);
        packet.data[2] = (uint8_t)(lengths[i] >> 8);
        packet.data[3] = (uint8_t)lengths[i];
        packet.data[6] = packet.data[7] = 0; /* may be fragmented */
        packet.data[24] = (uint8_t)((lengths[i] - 20) >> 8);
        packet.data[25] = (uint8_t)(lengths[i] - 20);
        fix_checksums(&packet);
        lbrl_process(lbrl_worker(rig.lb, 0), &packet, 1, rig.now_us);
        CHECK_EQUAL(packet.verdict, i == 0 ? LBRL_VERDICT_FORWARD : LBRL_VERDICT_REPLY);
        if (i == 0) {
            CHECK_EQUAL(packet_u16(&packet, 2), 65535);
            CHECK_EQUAL(packet.length, 65535);
        } else {
            CHECK_EQUAL(packet_u16(&packet, 20 + 6), 1500 - (i == 1 ? OUTER4 : OUTER6));
        }
        rig_free(&rig);
    }
}

/* The backend puts fragments together by source, destination, protocol and identification: all clients' look alike. */
static void outer_packets_of_all_clients_are_told_apart(void)
{
    enum { CLIENTS = 40, EACH = 3 };
    rig_t rig = rig_sized(4096, 2);
    rig_set_sources(&rig);
    set_vip(&rig, "203.0.113.10", 6, LBRL_FORWARD_GRE, "10.0.0.1", 1);
    static bool used[65536];
    memset(used, 0, sizeof(used));
    for (unsigned i = 0; i < CLIENTS * EACH; i++) {
        test_packet_t p;
        segment(&p, "203.0.113.10", (uint16_t)(20000 + i % CLIENTS), 100 + i / CLIENTS,
                i < CLIENTS ? SYN : ACK, 0);
        p.p.data[4] = 0x12; /* and all clients count alike */
        p.p.data[5] = (uint8_t)(i / CLIENTS);
        p.p.data[6] = p.p.data[7] = 0;
        fix_checksums(&p.p);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
        uint16_t id = packet_u16(&p.p, 4);
        CHECK_EQUAL(packet_u16(&p.p, 6), 0);
        CHECK_EQUAL(packet_u16(&p.p, OUTER4 + 4), 0x1200 + i / CLIENTS);
        CHECK(!used[id]);
        used[id] = true;
        uint32_t sum = 0; /* of the header */
        for (unsigned at = 0; at < 20; at += 2) {
            sum += packet_u16(&p.p, at);
        }
        CHECK_EQUAL((sum & 0xffff) + (sum >> 16), 0xffff);
    }
    test_packet_t whole;
    segment(&whole, "203.0.113.10", 20000, 103, ACK, 0);
    whole.p.data[6] = 0x40;
    fix_checksums(&whole.p);
    CHECK_EQUAL(rig_send(&rig, &whole), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(packet_u16(&whole.p, 4), 0); /* RFC 6864: one that stays whole needs none */
    CHECK_EQUAL(packet_u16(&whole.p, 6), 0x4000);
    rig_free(&rig);
}

static void a_burst_fits_segment_by_segment(void)
{
    enum { FITS = 1476 - 40 };
    rig_t rig = one_way("203.0.113.10", 6, LBRL_FORWARD_GRE, "10.0.0.1", 1);
    test_packet_t p;
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 100, SYN, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 101, ACK, 0), LBRL_VERDICT_FORWARD);
    static const size_t payloads[] = {FITS, FITS + 1, FITS, 10};
    static test_packet_t packets[4];
    lbrl_packet_t burst[4];
    uint32_t sequence = 101;
    for (unsigned i = 0; i < 4; i++) {
        segment(&packets[i], "203.0.113.10", 40000, sequence, ACK, payloads[i]);
        packets[i].p.data[6] = 0x40;
        fix_checksums(&packets[i].p);
        sequence += (uint32_t)payloads[i];
        burst[i] = packets[i].p;
    }
    burst[3].headroom = 4; /* no room for the tunnel's headers */
    lbrl_process(lbrl_worker(rig.lb, 0), burst, 4, rig.now_us);
    CHECK_EQUAL(burst[0].verdict, LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(burst[1].verdict, LBRL_VERDICT_REPLY);
    CHECK_EQUAL(burst[2].verdict, LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(burst[3].reason, LBRL_DROP_NO_HEADROOM);
    CHECK_EQUAL(burst[0].length, FITS + 40 + OUTER4);
    CHECK_EQUAL(burst[2].length, FITS + 40 + OUTER4);
    rig_free(&rig);
}

static void a_super_packet_leaves_the_tunnel_as_its_segments(void)
{
    enum { SIZE = 1000, MSS = 300 };
    rig_t rig = one_way("203.0.113.10", 6, LBRL_FORWARD_GRE, "10.0.0.1", 1);
    test_packet_t p;
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 100, SYN, 0), LBRL_VERDICT_FORWARD);
    segment(&p, "203.0.113.10", 40000, 101, ACK | PSH | FIN, SIZE);
    p.p.gso_type = LBRL_GSO_TCPV4;
    p.p.gso_size = MSS;
    p.p.hdr_len = 40;
    p.p.flags = LBRL_PACKET_NEEDS_CSUM;
    p.p.csum_start = 20;
    p.p.csum_offset = 16;
    uint8_t payload[SIZE];
    memcpy(payload, p.p.data + 40, SIZE);
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(p.p.tunnel, OUTER4);
    size_t at = 0;
    uint32_t index = 0;
    for (;; index++) {
        test_packet_t out;
        uint8_t bytes[PACKET_ROOM];
        uint32_t length = lbrl_segment(&p.p, index, bytes, sizeof(bytes));
        if (!length) {
            break;
        }
        make_raw(&out, bytes, length);
        CHECK_EQUAL(packet_u16(&out.p, 2), length);
        CHECK_EQUAL(lbrl_decapsulate(&out.p), 0);
        seen_t seen = look(&out.p);
        CHECK_EQUAL(seen.sequence, 101 + at);
        size_t size = out.p.length - seen.payload;
        CHECK(memcmp(out.p.data + seen.payload, payload + at, size) == 0);
        at += size;
        CHECK_EQUAL(seen.flags, at == SIZE ? (ACK | PSH | FIN) : ACK);
    }
    CHECK_EQUAL(at, SIZE);
    CHECK_EQUAL(index, 4);
    rig_free(&rig);
}

static void udp_and_its_fragments_go_one_way(void)
{
    rig_t rig = one_way("203.0.113.10", 17, LBRL_FORWARD_GRE, "10.0.0.1", 4);
    test_packet_t whole, part;
    make_udp(&whole, "198.51.100.7", 5000, "203.0.113.10", 80, 1200);
    lbrl_packet_t original = whole.p;
    make_fragment(&part, &original, 77, 0, 800, true);
    CHECK_EQUAL(rig_send(&rig, &part), LBRL_VERDICT_FORWARD);
    uint8_t backend = backend_of(&part);
    CHECK_EQUAL(packet_u16(&part.p, OUTER4 + 4), 77);
    make_fragment(&part, &original, 77, 800, 408, false);
    CHECK_EQUAL(rig_send(&rig, &part), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(backend_of(&part), backend);
    CHECK_EQUAL(packet_u16(&part.p, OUTER4 + 4), 77);
    rig_free(&rig);
}

/* A router near the client complains about what the backend sent it directly. */
static void icmp_errors_find_the_backend_with_and_without_a_flow(void)
{
    rig_t rig = one_way("203.0.113.10", 6, LBRL_FORWARD_GRE, "10.0.0.1", 4);
    test_packet_t p, answer, error;
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 100, SYN, 0), LBRL_VERDICT_FORWARD);
    uint8_t backend = backend_of(&p);
    tcp_fields_t tcp = {.sequence = 5, .ack = 101, .flags = ACK};
    for (uint16_t port = 40000; port < 40002; port++) {
        make_tcp(&answer, "203.0.113.10", 80, "198.51.100.7", port, &tcp, 1400);
        make_icmp_error(&error, "192.0.2.77", "203.0.113.10", 3, 4, 1300, &answer.p, 60);
        CHECK_EQUAL(rig_send(&rig, &error), LBRL_VERDICT_FORWARD);
        CHECK(port != 40000 || backend_of(&error) == backend);
        CHECK_EQUAL(lbrl_decapsulate(&error.p), 0);
        seen_t seen = look(&error.p);
        CHECK(is_address(&seen.src, "192.0.2.77"));
    }
    rig_free(&rig);
}

static void flows_outlive_a_restart(void)
{
    rig_t rig = one_way("203.0.113.10", 6, LBRL_FORWARD_L3DSR, "10.0.0.1", 4);
    uint8_t backends[50];
    test_packet_t p;
    for (uint16_t i = 0; i < 50; i++) {
        CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", (uint16_t)(40000 + i), 100, SYN, 0),
                    LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", (uint16_t)(40000 + i), 101, ACK, 0),
                    LBRL_VERDICT_FORWARD);
        backends[i] = backend_of(&p);
    }
    rig_restart(&rig);
    CHECK_EQUAL(rig.report.flows, 50);
    for (uint16_t i = 0; i < 50; i++) {
        CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", (uint16_t)(40000 + i), 101, ACK, 9),
                    LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(backend_of(&p), backends[i]);
    }
    rig_free(&rig);
}

static void a_failed_backends_connection_ends_in_silence(void)
{
    rig_t rig = one_way("203.0.113.10", 6, LBRL_FORWARD_GRE, "10.0.0.1", 2);
    test_packet_t p;
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 100, SYN, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 101, ACK, 0), LBRL_VERDICT_FORWARD);
    uint8_t backend = backend_of(&p);
    lbrl_backend_config_t backends[2];
    lbrl_vip_config_t config = rig_vip(7, "203.0.113.10", 80, 6, backends, 2);
    config.forwarding = LBRL_FORWARD_GRE;
    backends[backend - 1].state = LBRL_BACKEND_FAILED;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 101, ACK, 9), LBRL_VERDICT_DROP);
    CHECK_EQUAL(p.p.reason, LBRL_DROP_BACKEND_FAILED);
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 101, ACK, 9), LBRL_VERDICT_FORWARD);
    CHECK(backend_of(&p) != backend);
    rig_free(&rig);
}

static void what_makes_no_sense_is_refused(void)
{
    rig_t rig = rig_sized(4096, 1);
    lbrl_backend_config_t backends[2];
    lbrl_vip_config_t config = rig_vip(7, "203.0.113.10", 80, 6, backends, 2);
    config.forwarding = LBRL_FORWARD_L3DSR;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), LBRL_ERR_INVALID); /* without a DSCP */
    config.dscp = 64;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), LBRL_ERR_INVALID);
    config.dscp = 63;
    backends[0].address = address_of("2:1");
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us),
                LBRL_ERR_INVALID); /* of another family */
    backends[0].address = address_of("10.0.0.1");
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    config.dscp = 0;
    config.forwarding = LBRL_FORWARD_NAT;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), LBRL_ERR_IMMUTABLE);
    rig_free(&rig);
    /* clients take no MTU below 1280 from us */
    for (unsigned way = 0; way < 4; way++) {
        bool v6 = way & 1, outer_v6 = way & 2;
        rig = rig_sized(4096, 1);
        config = rig_vip(7, v6 ? "1:10" : "203.0.113.10", 80, 6, backends, 2);
        config.forwarding = LBRL_FORWARD_GRE;
        backends[0].address = address_of("10.0.0.1");
        backends[1].address = address_of(outer_v6 ? "2:1" : "10.0.0.2");
        uint16_t least = (uint16_t)(1280 + (!v6 ? 0 : outer_v6 ? OUTER6 : OUTER4));
        config.mtu = least - 1;
        lbrl_reason_t reason;
        CHECK_EQUAL(lbrl_vip_check(&config, &reason), LBRL_ERR_INVALID);
        CHECK(strncmp(reason.text, "mtu: ", 5) == 0);
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), LBRL_ERR_INVALID);
        config.mtu = least;
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
        rig_free(&rig);
    }
    rig = rig_sized(4096, 1); /* no source to send from */
    set_vip(&rig, "203.0.113.10", 6, LBRL_FORWARD_GRE, "10.0.0.1", 1);
    test_packet_t p;
    CHECK_EQUAL(send_segment(&rig, &p, "203.0.113.10", 40000, 100, SYN, 0), LBRL_VERDICT_DROP);
    CHECK_EQUAL(p.p.reason, LBRL_DROP_NO_TUNNEL_SOURCE);
    rig_free(&rig);
}

int main(void)
{
    a_packet_in_gre_is_the_clients_less_one_hop();
    l3dsr_changes_destination_and_dscp_only();
    a_flow_keeps_its_backend_whatever_weights_say();
    strangers_go_where_configured_weights_say_on_every_node();
    strangers_do_not_move_when_a_policy_gives_a_backend_no_weight();
    silence_leaves_the_counts_and_keeps_the_backend();
    connection_begun_anew_keeps_its_backend();
    forged_syn_and_reset_do_not_end_an_idle_connection();
    under_pressure_new_flows_need_no_entry();
    what_the_tunnel_cannot_take_is_answered();
    the_largest_packets_fit_no_tunnel();
    outer_packets_of_all_clients_are_told_apart();
    a_burst_fits_segment_by_segment();
    a_super_packet_leaves_the_tunnel_as_its_segments();
    udp_and_its_fragments_go_one_way();
    icmp_errors_find_the_backend_with_and_without_a_flow();
    flows_outlive_a_restart();
    a_failed_backends_connection_ends_in_silence();
    what_makes_no_sense_is_refused();
    return 0;
}
