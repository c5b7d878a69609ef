/* ICMP: echo to a VIP, errors that follow their flow in both directions, errors of our own. */
#include "rig.h"

static const char *const CLIENT[] = {"198.51.100.7", "5:7"};
static const char *const VIP[] = {"203.0.113.10", "1:10"};
static const char *const ROUTER[] = {"10.9.9.9", "9:99"};

static void vip_answers_echo(void)
{
    rig_t rig = rig_make(1, 1);
    for (int v6 = 0; v6 < 2; v6++) {
        test_packet_t p;
        make_echo(&p, CLIENT[v6], VIP[v6], 57);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_REPLY);
        seen_t seen = look(&p.p);
        CHECK(is_address(&seen.src, VIP[v6]));
        CHECK(is_address(&seen.dst, CLIENT[v6]));
        CHECK_EQUAL(p.p.data[seen.transport], v6 ? 129 : 0);
        CHECK_EQUAL(packet_u16(&p.p, seen.transport + 4), 7);
        CHECK_EQUAL(seen.ttl, 64);
        make_echo(&p, CLIENT[v6], v6 ? "1:11" : "203.0.113.11", 8);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_PASS);
    }
    rig_free(&rig);
}

/* Error from behind us, about what we sent to the backend: the client must recognise its own packet. */
static void error_about_a_forwarded_packet_reaches_the_client(void)
{
    rig_t rig = rig_make(1, 1);
    for (int v6 = 0; v6 < 2; v6++) {
        connection_t c = connection_make(&rig, CLIENT[v6], 40000, VIP[v6]);
        connection_open(&c);
        CHECK_EQUAL(connection_client(&c, PSH, 1000), LBRL_VERDICT_FORWARD);
        test_packet_t sent = c.packet;
        sent.p.data = sent.room + (c.packet.p.data - c.packet.room);
        const size_t quotes[] = {v6 ? 48 : 28, v6 ? 64 : 60, 500};
        for (int q = 0; q < 3; q++) {
            test_packet_t p;
            make_icmp_error(&p, ROUTER[v6], text_of(&c.source), v6 ? 2 : 3, v6 ? 0 : 4, 1400,
                            &sent.p, quotes[q]);
            CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
            seen_t seen = look(&p.p);
            CHECK(is_address(&seen.src, VIP[v6])); /* the router stays hidden */
            CHECK(is_address(&seen.dst, CLIENT[v6]));
            CHECK_EQUAL(packet_u16(&p.p, seen.transport + 6), 1400);
            lbrl_packet_t inner = p.p;
            inner.data += seen.transport + 8;
            inner.length -= (uint32_t)seen.transport + 8;
            size_t addresses = v6 ? 8 : 12;
            size_t transport = v6 ? 40 : 20;
            lbrl_address_t from = address_of(CLIENT[v6]);
            lbrl_address_t to = address_of(VIP[v6]);
            CHECK(memcmp(inner.data + addresses, from.bytes + (v6 ? 0 : 12), v6 ? 16 : 4) == 0);
            CHECK(memcmp(inner.data + addresses + (v6 ? 16 : 4), to.bytes + (v6 ? 0 : 12),
                         v6 ? 16 : 4) == 0);
            CHECK_EQUAL(packet_u16(&inner, transport), 40000);
            CHECK_EQUAL(packet_u16(&inner, transport + 2), 80);
        }
        /* the whole quoted packet must have right checksums again */
        test_packet_t p;
        make_icmp_error(&p, ROUTER[v6], text_of(&c.source), v6 ? 1 : 3, 1, 0, &sent.p, 1800);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
        lbrl_packet_t inner = p.p;
        inner.data += v6 ? 48 : 28;
        inner.length -= v6 ? 48 : 28;
        seen_t quoted = look(&inner);
        CHECK(is_address(&quoted.src, CLIENT[v6]));
        CHECK(is_address(&quoted.dst, VIP[v6]));
    }
    rig_free(&rig);
}

/* The node routes what we write, and its kernel takes the packet's own source, an address of the node, as that of its
 * error. */
static void error_of_the_node_itself_reaches_the_client(void)
{
    rig_t rig = rig_make(1, 1);
    for (int v6 = 0; v6 < 2; v6++) {
        connection_t c = connection_make(&rig, CLIENT[v6], 40000, VIP[v6]);
        connection_open(&c);
        CHECK_EQUAL(connection_client(&c, PSH, 900), LBRL_VERDICT_FORWARD);
        test_packet_t p, sent = c.packet;
        sent.p.data = sent.room + (c.packet.p.data - c.packet.room);
        const char *node = text_of(&c.source);
        make_icmp_error(&p, node, node, v6 ? 2 : 3, v6 ? 0 : 4, 1280, &sent.p, 556);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
        seen_t seen = look(&p.p);
        CHECK(is_address(&seen.src, VIP[v6]));
        CHECK(is_address(&seen.dst, CLIENT[v6]));
        make_echo(&p, VIP[v6], VIP[v6], 8); /* but a VIP does not ask itself */
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_DROP);
        CHECK_EQUAL(p.p.reason, LBRL_DROP_FORGED_CLIENT);
    }
    rig_free(&rig);
}

static void error_about_an_answer_reaches_the_backend(void)
{
    rig_t rig = rig_make(1, 1);
    for (int v6 = 0; v6 < 2; v6++) {
        connection_t c = connection_make(&rig, CLIENT[v6], 40000, VIP[v6]);
        connection_open(&c);
        CHECK_EQUAL(connection_server(&c, PSH, 900), LBRL_VERDICT_FORWARD);
        test_packet_t sent = c.packet;
        sent.p.data = sent.room + (c.packet.p.data - c.packet.room);
        test_packet_t p;
        make_icmp_error(&p, ROUTER[v6], VIP[v6], v6 ? 2 : 3, v6 ? 0 : 4, 1280, &sent.p, 1000);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
        seen_t seen = look(&p.p);
        CHECK(memcmp(&seen.src, &c.source, sizeof(seen.src)) == 0);
        CHECK(memcmp(&seen.dst, &c.backend, sizeof(seen.dst)) == 0);
        lbrl_packet_t inner = p.p;
        inner.data += v6 ? 48 : 28;
        inner.length -= v6 ? 48 : 28;
        seen_t quoted = look(&inner);
        CHECK(memcmp(&quoted.src, &c.backend, sizeof(seen.dst)) == 0);
        CHECK(memcmp(&quoted.dst, &c.source, sizeof(seen.dst)) == 0);
        CHECK_EQUAL(quoted.sport, 8080);
        CHECK_EQUAL(quoted.dport, c.nat_port);
    }
    rig_free(&rig);
}

static void error_about_a_datagram_is_translated_and_zero_checksum_kept(void)
{
    rig_t rig = rig_make(1, 1);
    test_packet_t u;
    make_udp(&u, CLIENT[0], 30000, VIP[0], 53, 30);
    u.p.data[26] = u.p.data[27] = 0;
    CHECK_EQUAL(rig_send(&rig, &u), LBRL_VERDICT_FORWARD);
    seen_t out = look(&u.p);
    test_packet_t p;
    make_icmp_error(&p, text_of(&out.dst), text_of(&out.src), 3, 3, 0, &u.p, 28);
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
    look(&p.p);
    CHECK_EQUAL(packet_u16(&p.p, 48), 30000);
    CHECK_EQUAL(packet_u16(&p.p, 54), 0);
    rig_free(&rig);
}

/* RFC 5508, REQ-3a. */
static void error_that_quotes_a_damaged_header_is_dropped(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENT[0], 40000, VIP[0]);
    connection_open(&c);
    CHECK_EQUAL(connection_client(&c, PSH, 100), LBRL_VERDICT_FORWARD);
    for (size_t at = 1; at < 12; at++) {
        test_packet_t p, sent = c.packet;
        sent.p.data = sent.room + (c.packet.p.data - c.packet.room);
        sent.p.data[at] ^= 4;
        make_icmp_error(&p, ROUTER[0], text_of(&c.source), 3, 4, 1280, &sent.p, 60);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_PASS); /* a NAT source may be a host, too */
    }
    rig_free(&rig);
}

/* What a host's own address gets beside the ports of NAT flows is not ours, what a VIP gets is. */
static void what_is_for_another_program_of_the_host_passes_unchanged(void)
{
    rig_t rig = rig_make(1, 1);
    const char *const source[] = {"192.0.2.1", "9:1"};
    for (int v6 = 0; v6 < 2; v6++) {
        test_packet_t kinds[5], about;
        tcp_fields_t tcp = {.flags = ACK};
        make_udp(&kinds[0], ROUTER[v6], 40000, source[v6], 4789, 100); /* below NAT ports */
        make_udp(&kinds[1], ROUTER[v6], 9, source[v6], 5000, 40);
        kinds[1].p.data[v6 ? 6 : 9] = 4; /* IP in IP */
        fix_checksums(&kinds[1].p);
        make_echo(&kinds[2], ROUTER[v6], source[v6], 40);
        kinds[2].p.data[v6 ? 40 : 20] = v6 ? 129 : 0; /* an echo reply */
        fix_checksums(&kinds[2].p);
        make_echo(&kinds[3], ROUTER[v6], source[v6], 40);
        make_tcp(&about, source[v6], 179, ROUTER[v6], 40000, &tcp, 0);
        make_icmp_error(&kinds[4], ROUTER[v6], source[v6], v6 ? 1 : 3, 1, 0, &about.p, 100);
        for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
            uint8_t before[PACKET_ROOM];
            kinds[i].p.length += 6; /* padding of the link */
            uint32_t length = kinds[i].p.length;
            memcpy(before, kinds[i].p.data, length);
            test_packet_t to_vip = kinds[i];
            to_vip.p.data = to_vip.room + (kinds[i].p.data - kinds[i].room);
            CHECK_EQUAL(rig_send(&rig, &kinds[i]), LBRL_VERDICT_PASS);
            CHECK_EQUAL(kinds[i].p.reason, LBRL_DROP_NOT_OURS);
            CHECK_EQUAL(kinds[i].p.length, length);
            CHECK(memcmp(kinds[i].p.data, before, length) == 0);
            lbrl_address_t vip = address_of(VIP[v6]);
            memcpy(to_vip.p.data + (v6 ? 24 : 16), vip.bytes + (v6 ? 0 : 12), v6 ? 16 : 4);
            to_vip.p.length -= 6;
            fix_checksums(&to_vip.p);
            CHECK(rig_send(&rig, &to_vip) != LBRL_VERDICT_PASS);
        }
    }
    rig_free(&rig);
}

static void neighbour_probe_of_a_nat_source_passes(void)
{
    rig_t rig = rig_make(1, 1);
    test_packet_t p;
    make_echo(&p, CLIENT[1], "9:1", 16);
    p.p.data[8] = 0xfe; /* from a link-local address */
    p.p.data[9] = 0x80;
    p.p.data[40] = 135;
    fix_checksums(&p.p);
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_PASS);
    rig_free(&rig);
}

static void error_about_nothing_of_ours_is_dropped(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENT[0], 40000, VIP[0]);
    connection_open(&c);
    test_packet_t stray, p;
    tcp_fields_t tcp = {.flags = ACK};
    make_tcp(&stray, VIP[0], 80, CLIENT[0], 40001, &tcp, 0);
    make_icmp_error(&p, ROUTER[0], VIP[0], 3, 1, 0, &stray.p, 100);
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_DROP);
    CHECK_EQUAL(p.p.reason, LBRL_DROP_ICMP_NO_FLOW);
    make_icmp_error(&p, ROUTER[0], VIP[0], 3, 1, 0, &stray.p, 27); /* ports cut in half */
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_DROP);
    CHECK_EQUAL(p.p.reason, LBRL_DROP_ICMP_NO_FLOW);
    make_icmp_error(&p, ROUTER[0], VIP[0], 5, 1, 0, &stray.p, 100); /* a redirect */
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_DROP);
    CHECK_EQUAL(p.p.reason, LBRL_DROP_ICMP_UNSUPPORTED);
    make_icmp_error(&p, ROUTER[0], VIP[0], 3, 1, 0, &stray.p, 100);
    p.p.data[22] ^= 1;
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_DROP);
    CHECK_EQUAL(p.p.reason, LBRL_DROP_BAD_CHECKSUM);
    make_icmp_error(&p, ROUTER[0], VIP[0], 3, 1, 0, &stray.p, 100);
    p.p.data[8] = 1; /* TTL used up: no error about an error */
    fix_checksums(&p.p);
    c.packet.p.reason = 0;
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_DROP);
    test_packet_t again; /* an error about an error */
    make_icmp_error(&again, ROUTER[0], VIP[0], 3, 1, 0, &p.p, 100);
    CHECK_EQUAL(rig_send(&rig, &again), LBRL_VERDICT_DROP);
    rig_free(&rig);
}

static void used_up_ttl_is_reported_to_the_sender(void)
{
    rig_t rig = rig_make(1, 1);
    for (int v6 = 0; v6 < 2; v6++) {
        connection_t c = connection_make(&rig, CLIENT[v6], 40000, VIP[v6]);
        connection_open(&c);
        for (int from_server = 0; from_server < 2; from_server++) {
            test_packet_t p;
            tcp_fields_t tcp = {.sequence = 5, .flags = ACK};
            if (from_server) {
                make_tcp(&p, text_of(&c.backend), 8080, text_of(&c.source), c.nat_port, &tcp,
                         1500 - 100);
            } else {
                make_tcp(&p, CLIENT[v6], 40000, VIP[v6], 80, &tcp, 1500 - 100);
            }
            p.p.data[v6 ? 7 : 8] = 1;
            fix_checksums(&p.p);
            uint8_t quoted[64];
            memcpy(quoted, p.p.data, sizeof(quoted));
            CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_REPLY);
            CHECK_EQUAL(p.p.reason, LBRL_DROP_TTL_EXPIRED);
            seen_t seen = look(&p.p);
            CHECK_EQUAL(p.p.data[seen.transport], v6 ? 3 : 11);
            CHECK(is_address(&seen.dst, from_server ? text_of(&c.backend) : CLIENT[v6]));
            CHECK(memcmp(p.p.data + seen.transport + 8, quoted, sizeof(quoted)) == 0);
            CHECK_EQUAL(p.p.length, v6 ? 1280 : 576);
        }
    }
    CHECK_EQUAL(rig_dropped(&rig, LBRL_DROP_TTL_EXPIRED), 4);
    rig_free(&rig);
}

static void port_that_is_not_configured_is_refused(void)
{
    rig_t rig = rig_make(1, 1);
    for (int v6 = 0; v6 < 2; v6++) {
        test_packet_t p;
        tcp_fields_t syn = {.sequence = 99, .flags = SYN};
        make_tcp(&p, CLIENT[v6], 40000, VIP[v6], 81, &syn, 0);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_REPLY);
        seen_t seen = look(&p.p);
        CHECK_EQUAL(seen.flags, RST | ACK);
        CHECK_EQUAL(seen.ack, 100);
        CHECK_EQUAL(seen.sport, 81);
        CHECK(is_address(&seen.dst, CLIENT[v6]));
        tcp_fields_t data = {.sequence = 99, .ack = 1234, .flags = ACK};
        make_tcp(&p, CLIENT[v6], 40000, VIP[v6], 81, &data, 30);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_REPLY);
        seen = look(&p.p);
        CHECK_EQUAL(seen.flags, RST);
        CHECK_EQUAL(seen.sequence, 1234);
        tcp_fields_t rst = {.sequence = 99, .flags = RST};
        make_tcp(&p, CLIENT[v6], 40000, VIP[v6], 81, &rst, 0);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_DROP); /* never a RST about a RST */
        make_udp(&p, CLIENT[v6], 40000, VIP[v6], 81, 30);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_REPLY);
        seen = look(&p.p);
        CHECK_EQUAL(p.p.data[seen.transport], v6 ? 1 : 3);
        CHECK_EQUAL(p.p.data[seen.transport + 1], v6 ? 4 : 3);
    }
    CHECK_EQUAL(rig_dropped(&rig, LBRL_DROP_PORT_UNCONFIGURED), 8);
    rig_free(&rig);
}

static void answers_are_bounded_in_rate(void)
{
    rig_t rig = rig_make(1, 1);
    unsigned answered = 0;
    for (unsigned i = 0; i < 2000; i++) {
        test_packet_t p;
        make_udp(&p, CLIENT[0], 40000, VIP[0], 81, 30);
        answered += rig_send(&rig, &p) == LBRL_VERDICT_REPLY;
    }
    CHECK(answered >= 256 && answered <= 300); /* a burst, and 20 ms worth of 1000 per second */
    CHECK_EQUAL(rig_dropped(&rig, LBRL_DROP_RATE_BOUNDED), 2000 - answered);
    rig.now_us += 1000000;
    test_packet_t p;
    make_udp(&p, CLIENT[0], 40000, VIP[0], 81, 30);
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_REPLY);
    rig_free(&rig);
}

static void answer_without_room_is_withheld(void)
{
    rig_t rig = rig_make(1, 1);
    test_packet_t p;
    make_udp(&p, CLIENT[0], 40000, VIP[0], 81, 30);
    p.p.headroom = 27;
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_DROP);
    CHECK_EQUAL(rig_dropped(&rig, LBRL_DROP_NO_HEADROOM), 1);
    rig_free(&rig);
}

int main(void)
{
    vip_answers_echo();
    error_about_a_forwarded_packet_reaches_the_client();
    error_of_the_node_itself_reaches_the_client();
    error_about_an_answer_reaches_the_backend();
    error_about_a_datagram_is_translated_and_zero_checksum_kept();
    error_that_quotes_a_damaged_header_is_dropped();
    what_is_for_another_program_of_the_host_passes_unchanged();
    neighbour_probe_of_a_nat_source_passes();
    error_about_nothing_of_ours_is_dropped();
    used_up_ttl_is_reported_to_the_sender();
    port_that_is_not_configured_is_refused();
    answers_are_bounded_in_rate();
    answer_without_room_is_withheld();
    return 0;
}
