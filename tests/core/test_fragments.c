/* Fragments follow their first one, which alone has ports. */
#include "rig.h"

static const char *const CLIENT[] = {"198.51.100.7", "5:7"};
static const char *const VIP[] = {"203.0.113.10", "1:10"};

static rig_t rig_with_udp(uint32_t workers)
{
    rig_t rig = rig_make(workers, 2);
    lbrl_backend_config_t backends[2];
    lbrl_vip_config_t config = rig_vip(4, VIP[0], 5000, 17, backends, 2);
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    config = rig_vip(5, VIP[1], 5000, 17, backends, 2);
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    return rig;
}

/* A load balancer whose caller keeps fragments that come before their first. */
static rig_t rig_holding(uint32_t workers)
{
    rig_t rig = rig_with_udp(workers);
    rig_hold(&rig);
    return rig;
}

/* Reassembles two fragments into a packet and checks its transport checksum. */
static seen_t reassemble(const lbrl_packet_t *first, const lbrl_packet_t *second, bool v6,
                         size_t split)
{
    test_packet_t whole;
    size_t header = v6 ? 48 : 20;
    size_t bare = v6 ? 40 : 20;
    uint8_t bytes[PACKET_ROOM];
    memcpy(bytes, first->data, bare);
    memcpy(bytes + bare, first->data + header, split);
    memcpy(bytes + bare + split, second->data + header, second->length - header);
    size_t size = bare + split + second->length - header;
    if (v6) {
        bytes[6] = first->data[40];
        bytes[4] = (uint8_t)((size - 40) >> 8);
        bytes[5] = (uint8_t)(size - 40);
    } else {
        bytes[2] = (uint8_t)(size >> 8);
        bytes[3] = (uint8_t)size;
        bytes[6] = bytes[7] = 0;
    }
    make_raw(&whole, bytes, size);
    if (!v6) { /* the header's checksum, not the transport's, is ours to mend */
        uint32_t sum = 0;
        whole.p.data[10] = whole.p.data[11] = 0;
        for (int i = 0; i < 20; i += 2) {
            sum += packet_u16(&whole.p, (size_t)i);
        }
        sum = (sum & 0xffff) + (sum >> 16);
        sum = ~((sum & 0xffff) + (sum >> 16));
        whole.p.data[10] = (uint8_t)(sum >> 8);
        whole.p.data[11] = (uint8_t)sum;
    }
    return look(&whole.p);
}

static uint32_t id_of(const lbrl_packet_t *p, bool v6)
{
    return v6 ? (uint32_t)packet_u16(p, 44) << 16 | packet_u16(p, 46) : packet_u16(p, 4);
}

static void datagram_in_two_pieces_arrives_whole(void)
{
    for (uint32_t workers = 1; workers <= 3; workers += 2) {
        rig_t rig = rig_with_udp(workers);
        for (int v6 = 0; v6 < 2; v6++) {
            for (uint16_t port = 30000; port < 30020; port++) {
                test_packet_t whole, first, second;
                make_udp(&whole, CLIENT[v6], port, VIP[v6], 5000, 1000);
                make_fragment(&first, &whole.p, port, 0, 512, true);
                make_fragment(&second, &whole.p, port, 512, 1008 - 512, false);
                CHECK_EQUAL(rig_send(&rig, &first), LBRL_VERDICT_FORWARD);
                CHECK_EQUAL(rig_send(&rig, &second), LBRL_VERDICT_FORWARD);
                seen_t seen = reassemble(&first.p, &second.p, v6, 512);
                CHECK_EQUAL(seen.dport, 8080);
                CHECK_EQUAL(id_of(&first.p, v6), id_of(&second.p, v6));

                /* and the answer, in pieces too */
                make_udp(&whole, text_of(&seen.dst), 8080, text_of(&seen.src), seen.sport, 1200);
                make_fragment(&first, &whole.p, 7, 0, 800, true);
                make_fragment(&second, &whole.p, 7, 800, 1208 - 800, false);
                CHECK_EQUAL(rig_send(&rig, &first), LBRL_VERDICT_FORWARD);
                CHECK_EQUAL(rig_send(&rig, &second), LBRL_VERDICT_FORWARD);
                seen = reassemble(&first.p, &second.p, v6, 800);
                CHECK(is_address(&seen.dst, CLIENT[v6]));
                CHECK_EQUAL(seen.sport, 5000);
                CHECK_EQUAL(seen.dport, port);
            }
        }
        rig_free(&rig);
    }
}

/* A whole datagram, and right behind it one in two pieces, of the same ports in one vector. */
static void pieces_follow_a_whole_datagram(void)
{
    rig_t rig = rig_with_udp(1);
    static test_packet_t whole, large, pieces[2];
    make_udp(&whole, CLIENT[0], 30000, VIP[0], 5000, 100);
    make_udp(&large, CLIENT[0], 30000, VIP[0], 5000, 1000);
    make_fragment(&pieces[0], &large.p, 42, 0, 512, true);
    make_fragment(&pieces[1], &large.p, 42, 512, 1008 - 512, false);
    lbrl_packet_t burst[3] = {whole.p, pieces[0].p, pieces[1].p};
    lbrl_process(lbrl_worker(rig.lb, 0), burst, 3, rig.now_us);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQUAL(burst[i].verdict, LBRL_VERDICT_FORWARD);
    }
    seen_t seen = reassemble(&burst[1], &burst[2], false, 512);
    CHECK_EQUAL(seen.sport, look(&burst[0]).sport);
    rig_free(&rig);
}

static void clients_with_the_same_identification_are_told_apart(void)
{
    rig_t rig = rig_with_udp(1);
    uint32_t ids[2];
    for (int i = 0; i < 2; i++) {
        test_packet_t whole, first;
        make_udp(&whole, i ? "198.51.100.8" : "198.51.100.9", 30000, VIP[0], 5000, 1000);
        make_fragment(&first, &whole.p, 42, 0, 512, true);
        CHECK_EQUAL(rig_send(&rig, &first), LBRL_VERDICT_FORWARD);
        ids[i] = id_of(&first.p, false);
    }
    CHECK(ids[0] != ids[1]);
    rig_free(&rig);
}

/* RFC 6864, 5.2: what may be fragmented behind us must not be taken for parts of another client's packet. */
static void whole_packets_that_may_be_cut_leave_with_other_identifications(void)
{
    rig_t rig = rig_with_udp(1);
    for (int tcp = 0; tcp < 2; tcp++) {
        uint32_t ids[2], answers[2];
        for (int i = 0; i < 2; i++) {
            const char *client = i ? "198.51.100.8" : "198.51.100.9";
            test_packet_t p;
            if (tcp) {
                connection_t c = connection_make(&rig, client, 30000, VIP[0]);
                connection_open(&c);
                CHECK_EQUAL(connection_client(&c, PSH, 100), LBRL_VERDICT_FORWARD);
                ids[i] = id_of(&c.packet.p, false);
                CHECK_EQUAL(connection_server(&c, PSH, 100), LBRL_VERDICT_FORWARD);
                answers[i] = id_of(&c.packet.p, false);
            } else {
                make_udp(&p, client, 30000, VIP[0], 5000, 100);
                CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
                ids[i] = id_of(&p.p, false);
                seen_t seen = look(&p.p);
                make_udp(&p, text_of(&seen.dst), 8080, text_of(&seen.src), seen.sport, 100);
                CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
                answers[i] = id_of(&p.p, false);
                look(&p.p);
            }
        }
        CHECK(ids[0] != ids[1] && answers[0] != answers[1]);
    }
    rig_free(&rig);
}

/* Its segments count on from the identification that it leaves with. */
static void segments_of_a_super_packet_have_identifications_of_their_own(void)
{
    enum { SEGMENTS = 5, SIZE = 100 };
    rig_t rig = rig_with_udp(1);
    connection_t c = connection_make(&rig, CLIENT[0], 30000, VIP[0]);
    connection_open(&c);
    test_packet_t p;
    tcp_fields_t tcp = {.sequence = c.client_next, .ack = c.server_next, .flags = ACK | PSH};
    make_tcp(&p, CLIENT[0], 30000, VIP[0], 80, &tcp, SEGMENTS * SIZE);
    p.p.gso_type = LBRL_GSO_TCPV4;
    p.p.gso_size = SIZE;
    p.p.hdr_len = 40;
    p.p.flags = LBRL_PACKET_NEEDS_CSUM;
    p.p.csum_start = 20;
    p.p.csum_offset = 16;
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
    uint32_t first = id_of(&p.p, false);
    make_udp(&p, CLIENT[0], 30000, VIP[0], 5000, 100);
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
    CHECK((uint16_t)(id_of(&p.p, false) - first) >= SEGMENTS);
    rig_free(&rig);
}

static void packet_that_stays_whole_keeps_its_identification(void)
{
    rig_t rig = rig_with_udp(1);
    test_packet_t p;
    make_udp(&p, CLIENT[0], 30000, VIP[0], 5000, 100);
    p.p.data[6] = 0x40;
    fix_checksums(&p.p);
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(id_of(&p.p, false), 0x1234);
    look(&p.p);
    rig_free(&rig);
}

/* RFC 4787, REQ-14: those before the first stay with the caller until it comes, whichever worker meets which. */
static void fragments_in_any_order_arrive(void)
{
    enum { PIECES = 3, ORDERS = 6 };
    static const uint8_t orders[ORDERS][PIECES] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                                   {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (uint32_t workers = 1; workers <= 3; workers += 2) {
        rig_t rig = rig_holding(workers);
        for (int round = 0; round < 2 * ORDERS * 20; round++) {
            bool v6 = round % 2;
            test_packet_t whole;
            static test_packet_t pieces[PIECES];
            make_udp(&whole, CLIENT[v6], (uint16_t)(30000 + round / 2), VIP[v6], 5000, 1300);
            for (size_t i = 0; i < PIECES; i++) {
                make_fragment(&pieces[i], &whole.p, (uint32_t)round + 1, i * 512,
                              i == 2 ? 1308 - 1024 : 512, i < 2);
            }
            rig.entry = workers > 1 ? (uint32_t)round % workers : 0;
            const uint8_t *order = orders[round / 2 % ORDERS];
            bool first = false;
            for (unsigned i = 0; i < PIECES; i++) {
                lbrl_verdict_t verdict = rig_send(&rig, &pieces[order[i]]);
                first = first || order[i] == 0;
                CHECK_EQUAL(verdict, first ? LBRL_VERDICT_FORWARD : LBRL_VERDICT_HOLD);
                rig.entry = workers > 1 ? (rig.entry + 1) % workers : 0;
                rig_release(&rig);
            }
            rig.now_us +=
                1000; /* those of another worker than the first are found once a millisecond */
            rig_release(&rig);
            for (unsigned i = 0; i < PIECES; i++) {
                CHECK_EQUAL(pieces[i].p.verdict, LBRL_VERDICT_FORWARD);
                CHECK_EQUAL(id_of(&pieces[i].p, v6), id_of(&pieces[0].p, v6));
                CHECK(look(&pieces[i].p).src.bytes[15] == 1);
            }
        }
        rig_free(&rig);
    }
}

static void held_fragment_is_given_back_when_its_first_does_not_come(void)
{
    rig_t rig = rig_holding(1);
    test_packet_t whole, second;
    make_udp(&whole, CLIENT[0], 30000, VIP[0], 5000, 1000);
    make_fragment(&second, &whole.p, 42, 512, 496, false);
    CHECK_EQUAL(rig_send(&rig, &second), LBRL_VERDICT_HOLD);
    rig_release(&rig);
    CHECK_EQUAL(second.p.verdict, LBRL_VERDICT_HOLD);
    rig.now_us += 1100000;
    rig_release(&rig);
    CHECK_EQUAL(second.p.verdict, LBRL_VERDICT_DROP);
    CHECK_EQUAL(second.p.reason, LBRL_DROP_FRAGMENT_UNKNOWN);
    rig_free(&rig);
}

/* Whatever is sent, no more than the bound wait between calls, and the newest do. */
static void held_fragments_are_bounded(void)
{
    enum { FLOOD = 1000 };
    static test_packet_t pieces[FLOOD];
    rig_t rig = rig_holding(1);
    test_packet_t whole, first;
    make_udp(&whole, CLIENT[0], 30000, VIP[0], 5000, 1000);
    for (uint32_t i = 0; i < FLOOD; i++) {
        make_fragment(&pieces[i], &whole.p, i + 1, 512, 496, false);
        CHECK_EQUAL(rig_send(&rig, &pieces[i]), LBRL_VERDICT_HOLD);
        rig_release(&rig);
    }
    unsigned held = 0;
    for (uint32_t i = 0; i < FLOOD; i++) {
        held += pieces[i].p.verdict == LBRL_VERDICT_HOLD;
    }
    CHECK_EQUAL(held, LBRL_HELD_MAX);
    make_fragment(&first, &whole.p, FLOOD - 10, 0, 512, true);
    CHECK_EQUAL(rig_send(&rig, &first), LBRL_VERDICT_FORWARD);
    rig_release(&rig);
    CHECK_EQUAL(pieces[FLOOD - 11].p.verdict, LBRL_VERDICT_FORWARD);
    lbrl_packet_t rest[LBRL_VECTOR_MAX];
    CHECK_EQUAL(lbrl_held_take(lbrl_worker(rig.lb, 0), rest, LBRL_VECTOR_MAX, UINT64_MAX),
                LBRL_HELD_MAX - 1);
    rig_free(&rig);
}

static void first_fragment_that_comes_twice_keeps_its_identification(void)
{
    rig_t rig = rig_with_udp(1);
    for (int v6 = 0; v6 < 2; v6++) {
        test_packet_t whole, first, again, second;
        make_udp(&whole, CLIENT[v6], 30000, VIP[v6], 5000, 1000);
        make_fragment(&first, &whole.p, 42, 0, 512, true);
        make_fragment(&again, &whole.p, 42, 0, 512, true);
        make_fragment(&second, &whole.p, 42, 512, 496, false);
        CHECK_EQUAL(rig_send(&rig, &first), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(rig_send(&rig, &again), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(rig_send(&rig, &second), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(id_of(&first.p, v6), id_of(&again.p, v6));
        CHECK_EQUAL(id_of(&first.p, v6), id_of(&second.p, v6));
    }
    rig_free(&rig);
}

static void many_datagrams_may_be_in_flight(void)
{
    for (uint32_t workers = 1; workers <= 4; workers += 3) {
        rig_t rig = rig_with_udp(workers);
        test_packet_t whole, piece;
        for (uint16_t i = 0; i < 512; i++) {
            make_udp(&whole, CLIENT[0], (uint16_t)(30000 + i), VIP[0], 5000, 1000);
            make_fragment(&piece, &whole.p, i, 0, 512, true);
            CHECK_EQUAL(rig_send(&rig, &piece), LBRL_VERDICT_FORWARD);
        }
        for (uint16_t i = 0; i < 512; i++) {
            make_udp(&whole, CLIENT[0], (uint16_t)(30000 + i), VIP[0], 5000, 1000);
            make_fragment(&piece, &whole.p, i, 512, 496, false);
            CHECK_EQUAL(rig_send(&rig, &piece), LBRL_VERDICT_FORWARD);
        }
        rig_free(&rig);
    }
}

static void fragmented_ping_of_a_vip_is_answered(void)
{
    for (uint32_t workers = 1; workers <= 3; workers += 2) {
        rig_t rig = rig_holding(workers);
        for (int v6 = 0; v6 < 2; v6++) {
            for (uint32_t i = 0; i < 16; i++) {
                test_packet_t whole, pieces[2];
                make_echo(&whole, CLIENT[v6], VIP[v6], 1000);
                make_fragment(&pieces[0], &whole.p, 42 + i, 0, 512, true);
                make_fragment(&pieces[1], &whole.p, 42 + i, 512, 1008 - 512, false);
                for (uint32_t j = 0; j < 2; j++) {
                    (void)rig_send(&rig, &pieces[(i + j) % 2]);
                    rig.now_us += 1000;
                    rig_release(&rig);
                }
                CHECK_EQUAL(pieces[0].p.verdict, LBRL_VERDICT_REPLY);
                CHECK_EQUAL(pieces[1].p.verdict, LBRL_VERDICT_REPLY);
                seen_t seen = reassemble(&pieces[0].p, &pieces[1].p, v6, 512);
                CHECK(is_address(&seen.src, VIP[v6]));
                CHECK(is_address(&seen.dst, CLIENT[v6]));
                CHECK_EQUAL(pieces[0].p.data[v6 ? 48 : 20], v6 ? 129 : 0);
                CHECK_EQUAL(id_of(&pieces[0].p, v6), 42 + i);
            }
        }
        rig_free(&rig);
    }
}

/* Later fragments alone say nothing of what they are: two load balancers would send them to and fro. */
static void later_fragment_of_a_ping_is_not_answered_alone(void)
{
    rig_t rig = rig_with_udp(1);
    test_packet_t whole, pieces[2];
    make_echo(&whole, CLIENT[0], VIP[0], 1000);
    whole.p.data[20] = 0; /* a reply */
    fix_checksums(&whole.p);
    make_fragment(&pieces[0], &whole.p, 42, 0, 512, true);
    make_fragment(&pieces[1], &whole.p, 42, 512, 496, false);
    CHECK_EQUAL(rig_send(&rig, &pieces[0]), LBRL_VERDICT_DROP);
    CHECK_EQUAL(rig_send(&rig, &pieces[1]), LBRL_VERDICT_DROP);
    CHECK_EQUAL(pieces[1].p.reason, LBRL_DROP_FRAGMENT_UNKNOWN);
    rig_free(&rig);
}

/* A NAT source may be the address of a host: what is not for a NAT port passes, all parts of it. */
static void fragments_for_other_programs_of_the_host_pass(void)
{
    const char *const source[] = {"192.0.2.1", "9:1"};
    for (uint32_t workers = 1; workers <= 3; workers += 2) {
        rig_t rig = rig_holding(workers);
        for (int v6 = 0; v6 < 2; v6++) {
            for (uint32_t i = 0; i < 24; i++) {
                test_packet_t whole, pieces[2];
                if (i % 4 == 0) {
                    make_udp(&whole, CLIENT[v6], 500, source[v6], 500, 1000);
                } else {
                    make_echo(&whole, CLIENT[v6], source[v6], 1000);
                    whole.p.data[v6 ? 40 : 20] = i % 4 == 1 ? (v6 ? 129 : 0) : (v6 ? 128 : 8);
                    whole.p.data[v6 ? 6 : 9] = i % 4 == 3 ? 4 : v6 ? 58 : 1; /* 4: IP in IP */
                    fix_checksums(&whole.p);
                }
                make_fragment(&pieces[0], &whole.p, 42 + i, 0, 512, true);
                make_fragment(&pieces[1], &whole.p, 42 + i, 512, 496, false);
                pieces[0].p.length += 6; /* padding of the link */
                pieces[1].p.length += 6;
                test_packet_t before[2] = {pieces[0], pieces[1]};
                for (uint32_t j = 0; j < 2; j++) {
                    rig.entry = workers > 1 ? (i + j) % workers : 0;
                    (void)rig_send(&rig, &pieces[(i + j) % 2]);
                    rig.now_us += 1000;
                    rig_release(&rig);
                }
                for (uint32_t j = 0; j < 2; j++) {
                    CHECK_EQUAL(pieces[j].p.verdict, LBRL_VERDICT_PASS);
                    CHECK_EQUAL(pieces[j].p.length, before[j].p.length);
                    CHECK(memcmp(pieces[j].room, before[j].room, PACKET_ROOM) == 0);
                }
            }
        }
        rig_free(&rig);
    }
}

static void later_fragment_for_another_program_passes_without_its_first(void)
{
    rig_t rig = rig_with_udp(1);
    test_packet_t whole, second;
    make_udp(&whole, CLIENT[0], 500, "192.0.2.1", 500, 1000);
    make_fragment(&second, &whole.p, 42, 512, 496, false);
    CHECK_EQUAL(rig_send(&rig, &second), LBRL_VERDICT_PASS);
    rig_free(&rig);
}

static void expect_drop(rig_t *rig, test_packet_t *packet, lbrl_drop_t reason)
{
    CHECK_EQUAL(rig_send(rig, packet), LBRL_VERDICT_DROP);
    CHECK_EQUAL(packet->p.reason, reason);
}

static void later_fragment_without_its_first_is_dropped(void)
{
    rig_t rig = rig_with_udp(1);
    test_packet_t whole, first, second;
    make_udp(&whole, CLIENT[0], 30000, VIP[0], 5000, 1000);
    make_fragment(&second, &whole.p, 42, 512, 496, false);
    expect_drop(&rig, &second, LBRL_DROP_FRAGMENT_UNKNOWN);
    make_fragment(&first, &whole.p, 42, 0, 512, true);
    CHECK_EQUAL(rig_send(&rig, &first), LBRL_VERDICT_FORWARD);
    rig.now_us += 31000000; /* forgotten by now */
    make_fragment(&second, &whole.p, 42, 512, 496, false);
    expect_drop(&rig, &second, LBRL_DROP_FRAGMENT_UNKNOWN);
    make_fragment(&first, &whole.p, 43, 0, 512, true);
    CHECK_EQUAL(rig_send(&rig, &first), LBRL_VERDICT_FORWARD);
    rig_pass(&rig, 12000); /* the flow has aged out */
    make_fragment(&second, &whole.p, 43, 512, 496, false);
    expect_drop(&rig, &second, LBRL_DROP_FRAGMENT_UNKNOWN);
    make_fragment(&first, &whole.p, 44, 0, 512, true);
    CHECK_EQUAL(rig_send(&rig, &first), LBRL_VERDICT_FORWARD);
    make_fragment(&second, &whole.p, 44, 512, 496, false);
    second.p.data[8] = 1;
    fix_checksums(&second.p);
    expect_drop(&rig, &second, LBRL_DROP_TTL_EXPIRED);
    rig_free(&rig);
}

static void tiny_and_overlapping_fragments_are_dropped(void)
{
    rig_t rig = rig_with_udp(1);
    test_packet_t whole, piece;
    tcp_fields_t tcp = {.flags = SYN};
    make_tcp(&whole, CLIENT[0], 30000, VIP[0], 80, &tcp, 100);
    make_fragment(&piece, &whole.p, 1, 0, 8, true); /* ports, but no flags */
    expect_drop(&rig, &piece, LBRL_DROP_BAD_FRAGMENT);
    make_fragment(&piece, &whole.p, 1, 8, 64, false); /* the flags, where they could be replaced */
    expect_drop(&rig, &piece, LBRL_DROP_BAD_FRAGMENT);
    make_udp(&whole, CLIENT[0], 30000, VIP[0], 5000, 100);
    make_fragment(&piece, &whole.p, 1, 0, 0, true);
    expect_drop(&rig, &piece, LBRL_DROP_BAD_FRAGMENT);
    make_fragment(&piece, &whole.p, 1, 0, 52, true); /* no multiple of 8 bytes */
    expect_drop(&rig, &piece, LBRL_DROP_BAD_FRAGMENT);
    rig_free(&rig);
}

static void second_fragment_may_begin_right_behind_a_udp_header(void)
{
    rig_t rig = rig_with_udp(1);
    for (int v6 = 0; v6 < 2; v6++) {
        test_packet_t whole, first, second;
        make_udp(&whole, CLIENT[v6], 30000, VIP[v6], 5000, 100);
        make_fragment(&first, &whole.p, 42, 0, 8, true);
        make_fragment(&second, &whole.p, 42, 8, 100, false);
        CHECK_EQUAL(rig_send(&rig, &first), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(rig_send(&rig, &second), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(reassemble(&first.p, &second.p, v6, 8).dport, 8080);
    }
    rig_free(&rig);
}

static void fragment_beyond_the_longest_packet_is_dropped(void)
{
    rig_t rig = rig_with_udp(1);
    for (int v6 = 0; v6 < 2; v6++) {
        test_packet_t whole, piece;
        make_udp(&whole, CLIENT[v6], 30000, VIP[v6], 5000, 1000);
        make_fragment(&piece, &whole.p, 42, 0, 512, true);
        CHECK_EQUAL(rig_send(&rig, &piece), LBRL_VERDICT_FORWARD);
        const size_t offset = 65528;
        for (size_t size = 1; size <= 64; size++) {
            make_fragment(&piece, &whole.p, 42, 8, size, false);
            size_t at = v6 ? 42 : 6;
            size_t field = v6 ? offset : offset / 8;
            piece.p.data[at] = (uint8_t)(field >> 8);
            piece.p.data[at + 1] = (uint8_t)field;
            fix_checksums(&piece.p);
            if ((v6 ? 0 : 20) + offset + size > 65535) {
                expect_drop(&rig, &piece, LBRL_DROP_BAD_FRAGMENT);
            } else {
                CHECK_EQUAL(rig_send(&rig, &piece), LBRL_VERDICT_FORWARD);
            }
        }
    }
    rig_free(&rig);
}

static void two_fragment_headers_are_dropped(void)
{
    rig_t rig = rig_with_udp(1);
    for (int kind = 0; kind < 6; kind++) {
        const int inner = kind % 3;              /* atomic, first, later */
        const size_t between = kind < 3 ? 0 : 8; /* destination options */
        test_packet_t whole, piece, twice;
        make_udp(&whole, CLIENT[1], 30000, VIP[1], 5000, 1000);
        make_fragment(&piece, &whole.p, 42, 0, 512, inner == 1);
        uint8_t bytes[PACKET_ROOM];
        memcpy(bytes, piece.p.data, 40);
        memset(bytes + 40, 0, 16);
        bytes[40] = between ? 60 : 44;
        bytes[43] = inner == 2 ? (between ? 1 : 64) : 0;
        bytes[48] = 44;
        bytes[50] = 1; /* padding */
        bytes[51] = 4;
        memcpy(bytes + 48 + between, piece.p.data + 40, piece.p.length - 40);
        size_t size = piece.p.length - 40 + 8 + between;
        bytes[4] = (uint8_t)(size >> 8);
        bytes[5] = (uint8_t)size;
        make_raw(&twice, bytes, 40 + size);
        expect_drop(&rig, &twice, LBRL_DROP_BAD_FRAGMENT);
    }
    rig_free(&rig);
}

static void atomic_fragment_is_no_fragment(void)
{
    rig_t rig = rig_with_udp(1);
    test_packet_t whole, piece;
    make_udp(&whole, CLIENT[1], 30000, VIP[1], 5000, 100);
    make_fragment(&piece, &whole.p, 1, 0, 108, false);
    CHECK_EQUAL(rig_send(&rig, &piece), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(look(&piece.p).dport, 8080);
    rig_free(&rig);
}

static void table_of_fragments_is_bounded(void)
{
    rig_t rig = rig_with_udp(1);
    test_packet_t whole, piece;
    make_udp(&whole, CLIENT[0], 30000, VIP[0], 5000, 1000);
    for (uint32_t id = 1; id <= 12000; id++) {
        make_fragment(&piece, &whole.p, id, 0, 512, true);
        CHECK_EQUAL(rig_send(&rig, &piece), LBRL_VERDICT_FORWARD);
    }
    unsigned known = 0;
    for (uint32_t id = 1; id <= 12000; id++) {
        make_fragment(&piece, &whole.p, id, 512, 496, false);
        known += rig_send(&rig, &piece) == LBRL_VERDICT_FORWARD;
    }
    CHECK(known > 3000 && known <= 4096); /* the newest */
    make_fragment(&piece, &whole.p, 12000, 512, 496, false);
    CHECK_EQUAL(rig_send(&rig, &piece), LBRL_VERDICT_FORWARD);
    rig_free(&rig);
}

int main(void)
{
    datagram_in_two_pieces_arrives_whole();
    pieces_follow_a_whole_datagram();
    clients_with_the_same_identification_are_told_apart();
    later_fragment_without_its_first_is_dropped();
    tiny_and_overlapping_fragments_are_dropped();
    second_fragment_may_begin_right_behind_a_udp_header();
    fragment_beyond_the_longest_packet_is_dropped();
    two_fragment_headers_are_dropped();
    whole_packets_that_may_be_cut_leave_with_other_identifications();
    segments_of_a_super_packet_have_identifications_of_their_own();
    packet_that_stays_whole_keeps_its_identification();
    fragments_in_any_order_arrive();
    held_fragment_is_given_back_when_its_first_does_not_come();
    held_fragments_are_bounded();
    first_fragment_that_comes_twice_keeps_its_identification();
    many_datagrams_may_be_in_flight();
    fragmented_ping_of_a_vip_is_answered();
    later_fragment_of_a_ping_is_not_answered_alone();
    fragments_for_other_programs_of_the_host_pass();
    later_fragment_for_another_program_passes_without_its_first();
    atomic_fragment_is_no_fragment();
    table_of_fragments_is_bounded();
    return 0;
}
