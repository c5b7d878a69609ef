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
    make_echo(&whole, CLIENT[0], VIP[0], 100);
    make_fragment(&piece, &whole.p, 1, 0, 64, true);
    expect_drop(&rig, &piece, LBRL_DROP_BAD_FRAGMENT);
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
    for (uint32_t id = 1; id <= 3000; id++) {
        make_fragment(&piece, &whole.p, id, 0, 512, true);
        CHECK_EQUAL(rig_send(&rig, &piece), LBRL_VERDICT_FORWARD);
    }
    unsigned known = 0;
    for (uint32_t id = 1; id <= 3000; id++) {
        make_fragment(&piece, &whole.p, id, 512, 496, false);
        known += rig_send(&rig, &piece) == LBRL_VERDICT_FORWARD;
    }
    CHECK(known > 150 && known <= 256); /* the newest */
    make_fragment(&piece, &whole.p, 3000, 512, 496, false);
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
    atomic_fragment_is_no_fragment();
    table_of_fragments_is_bounded();
    return 0;
}
