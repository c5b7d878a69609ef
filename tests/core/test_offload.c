/* Super-packets and partial checksums stay what they are: whole, with a pseudo-header's sum in the field. */
#include "rig.h"

enum { GSO_ROOM = 66000 };

static uint16_t pseudo(const lbrl_packet_t *p, bool v6, uint8_t protocol, size_t transport)
{
    uint32_t sum = protocol + (uint32_t)(p->length - transport);
    size_t from = v6 ? 8 : 12;
    size_t to = v6 ? 40 : 20;
    for (size_t i = from; i < to; i += 2) {
        sum += packet_u16(p, i);
    }
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

static void set_partial(lbrl_packet_t *p, bool v6, uint8_t protocol)
{
    size_t transport = v6 ? 40 : 20;
    size_t offset = protocol == 6 ? 16 : 6;
    uint16_t sum = pseudo(p, v6, protocol, transport);
    p->data[transport + offset] = (uint8_t)(sum >> 8);
    p->data[transport + offset + 1] = (uint8_t)sum;
    p->flags = LBRL_PACKET_NEEDS_CSUM;
    p->csum_start = (uint16_t)transport;
    p->csum_offset = (uint16_t)offset;
}

static void check_partial(const lbrl_packet_t *p, bool v6, uint8_t protocol)
{
    size_t transport = v6 ? 40 : 20;
    uint16_t found = packet_u16(p, transport + (protocol == 6 ? 16 : 6));
    uint16_t expected = pseudo(p, v6, protocol, transport);
    CHECK_EQUAL(found % 0xffff, expected % 0xffff);
    CHECK_EQUAL(p->flags & LBRL_PACKET_NEEDS_CSUM, LBRL_PACKET_NEEDS_CSUM);
}

static void partial_checksums_cover_the_new_addresses(void)
{
    rig_t rig = rig_make(1, 2);
    for (int v6 = 0; v6 < 2; v6++) {
        connection_t c =
            connection_make(&rig, v6 ? "5:7" : "198.51.100.7", 40000, v6 ? "1:10" : "203.0.113.10");
        connection_open(&c);
        for (int from_server = 0; from_server < 2; from_server++) {
            test_packet_t p;
            tcp_fields_t tcp = {.sequence = from_server ? c.server_next : c.client_next,
                                .ack = from_server ? c.client_next : c.server_next,
                                .flags = ACK | PSH};
            if (from_server) {
                make_tcp(&p, text_of(&c.backend), 8080, text_of(&c.source), c.nat_port, &tcp, 200);
            } else {
                make_tcp(&p, c.client, 40000, c.vip, 80, &tcp, 200);
            }
            set_partial(&p.p, v6, 6);
            CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
            check_partial(&p.p, v6, 6);
            look(&p.p);
        }
    }
    test_packet_t u;
    make_udp(&u, "198.51.100.7", 30000, "203.0.113.10", 53, 99);
    set_partial(&u.p, false, 17);
    CHECK_EQUAL(rig_send(&rig, &u), LBRL_VERDICT_FORWARD);
    check_partial(&u.p, false, 17);
    rig_free(&rig);
}

static void super_packet_is_forwarded_whole_and_counted_by_segments(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, "198.51.100.7", 40000, "203.0.113.10");
    connection_open(&c);
    uint8_t *room = malloc(GSO_ROOM);
    CHECK(room != NULL);
    test_packet_t small;
    tcp_fields_t tcp = {.sequence = c.client_next, .ack = c.server_next, .flags = ACK};
    make_tcp(&small, c.client, 40000, c.vip, 80, &tcp, 0);
    memset(room, 0x5a, GSO_ROOM);
    memcpy(room + 128, small.p.data, 40);
    lbrl_packet_t p = {.data = room + 128,
                       .length = 40 + 60000,
                       .headroom = 128,
                       .tailroom = 100,
                       .gso_type = LBRL_GSO_TCPV4,
                       .gso_size = 1448,
                       .hdr_len = 40};
    p.data[2] = (uint8_t)(p.length >> 8);
    p.data[3] = (uint8_t)p.length;
    fix_checksums(&p);
    set_partial(&p, false, 6);
    int64_t before = (int64_t)rig_backend(&rig, 1, 1001).packets;
    rig.now_us += 10;
    lbrl_process(lbrl_worker(rig.lb, 0), &p, 1, rig.now_us);
    CHECK_EQUAL(p.verdict, LBRL_VERDICT_FORWARD);
    check_partial(&p, false, 6);
    CHECK_EQUAL(p.length, 60040);
    CHECK_EQUAL(p.gso_size, 1448);
    CHECK_EQUAL(p.gso_type, LBRL_GSO_TCPV4);
    CHECK_EQUAL((int64_t)rig_backend(&rig, 1, 1001).packets - before, (60000 + 1447) / 1448);
    free(room);
    rig_free(&rig);
}

static void reply_to_a_super_packet_is_a_plain_packet(void)
{
    rig_t rig = rig_make(1, 1);
    test_packet_t p;
    tcp_fields_t tcp = {.sequence = 5, .ack = 6, .flags = ACK};
    make_tcp(&p, "198.51.100.7", 40000, "203.0.113.10", 81, &tcp, 1500);
    set_partial(&p.p, false, 6);
    p.p.gso_type = LBRL_GSO_TCPV4;
    p.p.gso_size = 500;
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(p.p.gso_type, LBRL_GSO_NONE);
    CHECK_EQUAL(p.p.flags, 0);
    CHECK_EQUAL(look(&p.p).flags, RST);
    CHECK_EQUAL(p.p.length, 40);
    rig_free(&rig);
}

static void metadata_that_contradicts_the_packet_is_refused(void)
{
    rig_t rig = rig_make(1, 1);
    const struct {
        uint16_t start, offset;
        uint8_t gso_type;
        uint16_t gso_size;
        uint8_t flags;
    } cases[] = {{22, 16, 0, 0, LBRL_PACKET_NEEDS_CSUM},
                 {20, 6, 0, 0, LBRL_PACKET_NEEDS_CSUM},
                 {20, 16, LBRL_GSO_TCPV4, 0, LBRL_PACKET_NEEDS_CSUM}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_packet_t p;
        tcp_fields_t tcp = {.sequence = 5, .flags = SYN};
        make_tcp(&p, "198.51.100.7", 40000, "203.0.113.10", 80, &tcp, 100);
        p.p.csum_start = cases[i].start;
        p.p.csum_offset = cases[i].offset;
        p.p.gso_type = cases[i].gso_type;
        p.p.gso_size = cases[i].gso_size;
        p.p.flags = cases[i].flags;
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_DROP);
        CHECK_EQUAL(p.p.reason, LBRL_DROP_BAD_HEADER);
    }
    rig_free(&rig);
}

static void vector_of_many_is_processed_in_order(void)
{
    rig_t rig = rig_make(1, 4);
    static test_packet_t packets[LBRL_VECTOR_MAX];
    lbrl_packet_t vector[LBRL_VECTOR_MAX];
    /* pairs of a SYN and its repetition: the second finds the flow that the first made in this very vector */
    for (uint32_t i = 0; i < LBRL_VECTOR_MAX; i++) {
        tcp_fields_t tcp = {.sequence = 5, .flags = SYN};
        make_tcp(&packets[i], "198.51.100.7", (uint16_t)(40000 + i / 2), "203.0.113.10", 80, &tcp,
                 0);
        vector[i] = packets[i].p;
    }
    lbrl_process(lbrl_worker(rig.lb, 0), vector, LBRL_VECTOR_MAX, rig.now_us);
    for (uint32_t i = 0; i < LBRL_VECTOR_MAX; i += 2) {
        CHECK_EQUAL(vector[i].verdict, LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(look(&vector[i]).sport, look(&vector[i + 1]).sport);
    }
    lbrl_stats_t stats;
    lbrl_stats(rig.lb, &stats);
    CHECK_EQUAL(stats.flows_created, LBRL_VECTOR_MAX / 2);
    CHECK_EQUAL(stats.packets, LBRL_VECTOR_MAX);
    CHECK_EQUAL(stats.forwarded, LBRL_VECTOR_MAX);
    CHECK_EQUAL(stats.bytes, LBRL_VECTOR_MAX * 40);
    rig_free(&rig);
}

static uint32_t any(uint64_t *state, uint32_t below)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)((*state * 0x2545f4914f6cdd1du >> 32) * below >> 32);
}

/* Ends of a connection, as one side's packets name them. */
typedef struct ends {
    char src[48], dst[48];
    uint16_t sport, dport;
    bool from_server;
} ends_t;

/* Ends of one of a few connections by NAT or GRE; ports of the return direction are guessed among those that flows have. */
static ends_t any_ends(const rig_t *rig, uint64_t *random)
{
    static const struct {
        const char *client, *vip;
    } ways[] = {
        {"198.51.100.7", "203.0.113.10"}, {"5:7", "1:10"}, {"198.51.100.7", "203.0.113.11"}};
    ends_t ends = {.sport = (uint16_t)(40000 + any(random, 6)), .dport = 80};
    lbrl_flow_info_t flow;
    uint64_t cursor = any(random, 4096);
    if (any(random, 2) && lbrl_flow_next(rig->lb, &cursor, rig->now_us, &flow) && flow.nat_port) {
        ends = (ends_t){.sport = 8080, .dport = flow.nat_port, .from_server = true};
        snprintf(ends.src, sizeof(ends.src), "%s", text_of(&flow.backend));
        snprintf(ends.dst, sizeof(ends.dst), "%s", text_of(&flow.source));
        return ends;
    }
    uint32_t way = any(random, 3);
    snprintf(ends.src, sizeof(ends.src), "%s", ways[way].client);
    snprintf(ends.dst, sizeof(ends.dst), "%s", ways[way].vip);
    return ends;
}

/* A packet between two ends, with little regard for the state of their connection. */
static void make_any(test_packet_t *p, const ends_t *ends, uint64_t *random)
{
    static const uint8_t flags[] = {SYN,       ACK, ACK | PSH, ACK | PSH, ACK | PSH,
                                    ACK | FIN, RST, ACK | RST, SYN | ACK};
    tcp_fields_t tcp = {
        .sequence = 1000 + any(random, 4) * 50, .ack = 5001, .flags = flags[any(random, 9)]};
    if (ends->from_server) {
        tcp.sequence = 5000 + (tcp.flags & SYN ? 0 : 1 + any(random, 3) * 50);
        tcp.ack = 1000 + any(random, 4) * 50 + 1;
    }
    make_tcp(p, ends->src, ends->sport, ends->dst, ends->dport, &tcp, any(random, 3) * 50);
}

static rig_t rig_with_tunnel(void)
{
    rig_t rig = rig_make(1, 3);
    lbrl_backend_config_t backends[3];
    lbrl_vip_config_t vip = rig_vip(5, "203.0.113.11", 80, 6, backends, 3);
    vip.forwarding = LBRL_FORWARD_GRE;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &vip, rig.now_us), 0);
    return rig;
}

/* What a vector leaves is what its packets leave one by one: no packet acts on what was looked up too early, nor on what
 * was found for another packet between the same ends. `repeated` of 8 packets have the ends of the one before them. */
static void vector_equals_its_packets_one_by_one(uint32_t repeated)
{
    rig_t together = rig_with_tunnel();
    rig_t alone = rig_with_tunnel();
    ends_t ends = {.sport = 0};
    static test_packet_t packets[LBRL_VECTOR_MAX], copies[LBRL_VECTOR_MAX];
    static lbrl_packet_t vector[LBRL_VECTOR_MAX];
    uint64_t random = 88172645463325252u;
    uint64_t forwarded = 0;
    for (unsigned round = 0; round < 300; round++) {
        uint32_t n = 1 + any(&random, LBRL_VECTOR_MAX);
        for (uint32_t i = 0; i < n; i++) {
            if (i == 0 || any(&random, 8) >= repeated) {
                ends = any_ends(&together, &random);
            }
            make_any(&packets[i], &ends, &random);
            copies[i] = packets[i];
            copies[i].p.data = copies[i].room + (packets[i].p.data - packets[i].room);
            vector[i] = packets[i].p;
        }
        together.now_us = alone.now_us += 100000;
        lbrl_process(lbrl_worker(together.lb, 0), vector, n, together.now_us);
        for (uint32_t i = 0; i < n; i++) {
            lbrl_process(lbrl_worker(alone.lb, 0), &copies[i].p, 1, alone.now_us);
            CHECK_EQUAL(vector[i].verdict, copies[i].p.verdict);
            CHECK_EQUAL(vector[i].reason, copies[i].p.reason);
            CHECK_EQUAL(vector[i].length, copies[i].p.length);
            CHECK(memcmp(vector[i].data, copies[i].p.data, vector[i].length) == 0);
            forwarded += vector[i].verdict == LBRL_VERDICT_FORWARD;
        }
        lbrl_flow_info_t a = {0}, b = {0};
        for (uint64_t at = 0, other = 0; lbrl_flow_next(together.lb, &at, together.now_us, &a);) {
            CHECK(lbrl_flow_next(alone.lb, &other, alone.now_us, &b));
            CHECK_EQUAL(at, other);
            CHECK_EQUAL(a.state, b.state);
            CHECK_EQUAL(a.idle_ms, b.idle_ms);
        }
        if (round % 16 == 0) {
            rig_pass(&together, 500);
            rig_pass(&alone, 500);
        }
    }
    CHECK(forwarded > 10000);
    for (uint64_t id = 1001; id <= 1003; id++) {
        lbrl_backend_status_t a = rig_backend(&together, 1, id);
        lbrl_backend_status_t b = rig_backend(&alone, 1, id);
        CHECK_EQUAL(a.packets, b.packets);
        CHECK_EQUAL(a.bytes, b.bytes);
        CHECK_EQUAL(a.open_flows, b.open_flows);
    }
    rig_free(&together);
    rig_free(&alone);
}

int main(void)
{
    vector_equals_its_packets_one_by_one(0);
    vector_equals_its_packets_one_by_one(6);
    partial_checksums_cover_the_new_addresses();
    super_packet_is_forwarded_whole_and_counted_by_segments();
    reply_to_a_super_packet_is_a_plain_packet();
    metadata_that_contradicts_the_packet_is_refused();
    vector_of_many_is_processed_in_order();
    return 0;
}
