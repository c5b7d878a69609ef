/* Packets that nobody should send: each is dropped for its reason, and nothing is read beyond its end. */
#include "rig.h"

static const char *const CLIENT = "198.51.100.7";
static const char *const VIP = "203.0.113.10";

static void expect(rig_t *rig, test_packet_t *p, lbrl_drop_t reason)
{
    uint64_t before = rig_dropped(rig, reason);
    CHECK_EQUAL(rig_send(rig, p), LBRL_VERDICT_DROP);
    CHECK_EQUAL(p->p.reason, reason);
    CHECK_EQUAL(rig_dropped(rig, reason), before + 1);
}

static void syn(test_packet_t *p)
{
    tcp_fields_t tcp = {.sequence = 1, .flags = SYN};
    make_tcp(p, CLIENT, 40000, VIP, 80, &tcp, 0);
}

static void syn6(test_packet_t *p)
{
    tcp_fields_t tcp = {.sequence = 1, .flags = SYN};
    make_tcp(p, "5:7", 40000, "1:10", 80, &tcp, 0);
}

/* Edits one byte of a SYN, mends the checksums. */
static void edited(rig_t *rig, bool v6, size_t at, uint8_t value, lbrl_drop_t reason)
{
    test_packet_t p;
    if (v6) {
        syn6(&p);
    } else {
        syn(&p);
    }
    p.p.data[at] = value;
    if (!v6 && at != 0) {
        /* only the IP header's checksum, so that odd values stay odd */
        uint32_t sum = 0;
        p.p.data[10] = p.p.data[11] = 0;
        for (size_t i = 0; i < 20; i += 2) {
            sum += packet_u16(&p.p, i);
        }
        sum = (sum & 0xffff) + (sum >> 16);
        sum = ~((sum & 0xffff) + (sum >> 16));
        p.p.data[10] = (uint8_t)(sum >> 8);
        p.p.data[11] = (uint8_t)sum;
    }
    expect(rig, &p, reason);
}

static void ipv4_headers(rig_t *rig)
{
    test_packet_t p;
    edited(rig, false, 0, 0x55, LBRL_DROP_BAD_VERSION);
    edited(rig, false, 0, 0x44, LBRL_DROP_BAD_HEADER);
    edited(rig, false, 3, 19, LBRL_DROP_BAD_HEADER);
    edited(rig, false, 3, 41, LBRL_DROP_TRUNCATED);
    edited(rig, false, 0, 0x4f, LBRL_DROP_BAD_HEADER);
    edited(rig, false, 9, 132, LBRL_DROP_UNKNOWN_PROTOCOL);
    edited(rig, false, 9, 58, LBRL_DROP_UNKNOWN_PROTOCOL);
    edited(rig, false, 12, 0, LBRL_DROP_BAD_ADDRESS);
    edited(rig, false, 12, 127, LBRL_DROP_BAD_ADDRESS);
    edited(rig, false, 12, 224, LBRL_DROP_BAD_ADDRESS);
    edited(rig, false, 12, 255, LBRL_DROP_BAD_ADDRESS);
    syn(&p);
    memcpy(p.p.data + 12, p.p.data + 16, 4); /* from itself to itself */
    fix_checksums(&p.p);
    expect(rig, &p, LBRL_DROP_FORGED_CLIENT);
    syn(&p);
    p.p.data[10] ^= 1;
    expect(rig, &p, LBRL_DROP_BAD_CHECKSUM);
}

static void ipv6_headers(rig_t *rig)
{
    edited(rig, true, 5, 21, LBRL_DROP_TRUNCATED);
    edited(rig, true, 6, 132, LBRL_DROP_UNKNOWN_PROTOCOL);
    edited(rig, true, 6, 59, LBRL_DROP_UNKNOWN_PROTOCOL);
    edited(rig, true, 8, 0xff, LBRL_DROP_BAD_ADDRESS);
    test_packet_t p;
    syn6(&p);
    p.p.data[8] = 0xfe;
    p.p.data[9] = 0x80;
    expect(rig, &p, LBRL_DROP_FORGED_CLIENT);
    syn6(&p);
    memset(p.p.data + 8, 0, 16);
    expect(rig, &p, LBRL_DROP_BAD_ADDRESS);
    p.p.data[23] = 1;
    expect(rig, &p, LBRL_DROP_BAD_ADDRESS);
    p.p.data[18] = p.p.data[19] = 0xff; /* ::ffff:0.0.0.1 must not pass for IPv4 */
    expect(rig, &p, LBRL_DROP_BAD_ADDRESS);
    syn6(&p);
    memset(p.p.data + 24, 0, 16);
    p.p.data[34] = p.p.data[35] = 0xff;
    expect(rig, &p, LBRL_DROP_BAD_ADDRESS);
}

static void transport_headers(rig_t *rig)
{
    edited(rig, false, 32, 0x40, LBRL_DROP_BAD_HEADER); /* TCP header of 16 bytes */
    edited(rig, false, 32, 0xf0, LBRL_DROP_TRUNCATED);  /* of 60 */
    edited(rig, false, 33, SYN | FIN, LBRL_DROP_BAD_FLAGS);
    edited(rig, false, 33, SYN | RST, LBRL_DROP_BAD_FLAGS);
    edited(rig, false, 33, FIN | RST, LBRL_DROP_BAD_FLAGS);
    edited(rig, false, 33, 0, LBRL_DROP_BAD_FLAGS);
    edited(rig, false, 33, FIN, LBRL_DROP_BAD_FLAGS);
    edited(rig, false, 33, 0x28, LBRL_DROP_BAD_FLAGS);
    test_packet_t p;
    syn(&p);
    p.p.data[20] = p.p.data[21] = 0; /* source port 0 */
    fix_checksums(&p.p);
    expect(rig, &p, LBRL_DROP_BAD_HEADER);
    make_udp(&p, CLIENT, 40000, VIP, 53, 10);
    p.p.data[25] = 7;
    expect(rig, &p, LBRL_DROP_BAD_HEADER);
    make_udp(&p, CLIENT, 40000, VIP, 53, 10);
    p.p.data[25] = 19;
    expect(rig, &p, LBRL_DROP_BAD_HEADER);
    make_echo(&p, CLIENT, VIP, 0);
    p.p.data[20] = 13; /* timestamp request */
    fix_checksums(&p.p);
    expect(rig, &p, LBRL_DROP_ICMP_UNSUPPORTED);
}

/* Every packet cut short at every length, in a buffer of exactly that length: a sanitizer sees what reads beyond. */
static void every_length(rig_t *rig)
{
    test_packet_t kinds[6], about;
    tcp_fields_t tcp = {.sequence = 1, .flags = SYN};
    syn(&kinds[0]);
    make_tcp(&kinds[1], "5:7", 1, "1:10", 80, &tcp, 9);
    make_udp(&kinds[2], CLIENT, 9, VIP, 53, 20);
    make_echo(&kinds[3], CLIENT, VIP, 20);
    syn(&about);
    make_icmp_error(&kinds[4], "10.9.9.9", VIP, 3, 3, 0, &about.p, 40);
    make_udp(&about, "5:7", 9, "1:10", 53, 20);
    make_fragment(&kinds[5], &about.p, 5, 0, 24, true);
    for (int k = 0; k < 6; k++) {
        for (uint32_t length = 0; length < kinds[k].p.length; length++) {
            for (int lie = 0; lie < 2; lie++) {
                uint8_t *bytes =
                    malloc(length + 1); /* one more, for malloc(0) need not give a pointer */
                CHECK(bytes != NULL);
                memcpy(bytes + 1, kinds[k].p.data, length);
                if (lie && length >= 40 && bytes[1] >> 4 == 6) {
                    bytes[5] = (uint8_t)((length - 40) >> 8);
                    bytes[6] = (uint8_t)(length - 40);
                } else if (lie && length >= 20) {
                    bytes[3] = (uint8_t)(length >> 8);
                    bytes[4] = (uint8_t)length;
                    lbrl_packet_t fixed = {.data = bytes + 1, .length = length};
                    if (bytes[10] != 1 || length >= 24) {
                        bytes[11] = bytes[12] = 0;
                        uint32_t sum = 0;
                        for (size_t i = 0; i < 20; i += 2) {
                            sum += packet_u16(&fixed, i);
                        }
                        sum = (sum & 0xffff) + (sum >> 16);
                        sum = ~((sum & 0xffff) + (sum >> 16));
                        bytes[11] = (uint8_t)(sum >> 8);
                        bytes[12] = (uint8_t)sum;
                    }
                }
                lbrl_packet_t packet = {.data = bytes + 1, .length = length};
                rig->now_us += 10;
                lbrl_process(lbrl_worker(rig->lb, 0), &packet, 1, rig->now_us);
                CHECK(packet.verdict == LBRL_VERDICT_DROP || packet.verdict == LBRL_VERDICT_REPLY ||
                      (lie && packet.verdict != LBRL_VERDICT_HANDOVER));
                free(bytes);
            }
        }
    }
}

static void ipv4_options(rig_t *rig)
{
    const struct {
        uint8_t options[8];
        lbrl_verdict_t verdict;
    } cases[] = {{{1, 1, 1, 0}, LBRL_VERDICT_FORWARD},             /* padding */
                 {{7, 7, 4, 0, 0, 0, 0, 0}, LBRL_VERDICT_FORWARD}, /* record route */
                 {{0x83, 7, 4, 0, 0, 0, 0, 0}, LBRL_VERDICT_DROP}, /* loose source route */
                 {{0x89, 7, 4, 0, 0, 0, 0, 0}, LBRL_VERDICT_DROP}, /* strict */
                 {{7, 1, 0, 0}, LBRL_VERDICT_DROP},                /* shorter than itself */
                 {{7, 200, 0, 0}, LBRL_VERDICT_DROP},              /* beyond the header */
                 {{1, 1, 1, 1, 1, 1, 1, 7}, LBRL_VERDICT_DROP}};   /* its length is missing */
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_packet_t plain, p;
        tcp_fields_t tcp = {.sequence = 1, .flags = SYN};
        make_tcp(&plain, CLIENT, (uint16_t)(41000 + i), VIP, 80, &tcp, 0);
        uint8_t bytes[68];
        memcpy(bytes, plain.p.data, 20);
        memcpy(bytes + 20, cases[i].options, 8);
        memcpy(bytes + 28, plain.p.data + 20, 20);
        bytes[0] = 0x47;
        bytes[3] = 48;
        make_raw(&p, bytes, 48);
        fix_checksums(&p.p);
        CHECK_EQUAL(rig_send(rig, &p), cases[i].verdict);
        CHECK_EQUAL(p.p.reason,
                    cases[i].verdict == LBRL_VERDICT_DROP ? LBRL_DROP_BAD_OPTION : LBRL_DROP_NONE);
        if (cases[i].verdict == LBRL_VERDICT_FORWARD) {
            CHECK_EQUAL(look(&p.p).dport, 8080);
            CHECK(memcmp(p.p.data + 20, cases[i].options, 8) == 0);
        }
    }
}

/* A SYN over IPv6 with extension headers in front; returns the verdict. */
static lbrl_verdict_t with_extensions(rig_t *rig, test_packet_t *p, uint16_t port,
                                      const uint8_t *chain, size_t size, uint8_t first)
{
    test_packet_t plain;
    tcp_fields_t tcp = {.sequence = 1, .flags = SYN};
    make_tcp(&plain, "5:7", port, "1:10", 80, &tcp, 0);
    uint8_t bytes[400];
    memcpy(bytes, plain.p.data, 40);
    memcpy(bytes + 40, chain, size);
    memcpy(bytes + 40 + size, plain.p.data + 40, 20);
    bytes[6] = first;
    bytes[4] = (uint8_t)((size + 20) >> 8);
    bytes[5] = (uint8_t)(size + 20);
    make_raw(p, bytes, 60 + size);
    return rig_send(rig, p);
}

static void ipv6_extensions(rig_t *rig)
{
    test_packet_t p;
    const uint8_t hop[16] = {60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0};
    CHECK_EQUAL(with_extensions(rig, &p, 1, hop, 16, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(look(&p.p).dport, 8080);
    const uint8_t late_hop[16] = {0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0};
    CHECK_EQUAL(with_extensions(rig, &p, 2, late_hop, 16, 60), LBRL_VERDICT_DROP);
    CHECK_EQUAL(p.p.reason, LBRL_DROP_BAD_OPTION);
    const uint8_t route[24] = {6, 2, 0, 1};
    CHECK_EQUAL(with_extensions(rig, &p, 3, route, 24, 43), LBRL_VERDICT_DROP);
    CHECK_EQUAL(p.p.reason, LBRL_DROP_BAD_OPTION);
    const uint8_t used_route[24] = {6, 2, 0, 0};
    CHECK_EQUAL(with_extensions(rig, &p, 4, used_route, 24, 43), LBRL_VERDICT_FORWARD);
    const uint8_t far[8] = {6, 200};
    CHECK_EQUAL(with_extensions(rig, &p, 5, far, 8, 60), LBRL_VERDICT_DROP);
    CHECK_EQUAL(p.p.reason, LBRL_DROP_TRUNCATED);
    uint8_t steps[9 * 8];
    for (size_t i = 0; i < sizeof(steps); i += 8) {
        const uint8_t step[8] = {60, 0, 1, 4, 0, 0, 0, 0};
        memcpy(steps + i, step, 8);
    }
    steps[8 * 8] = steps[7 * 8] = 6;
    CHECK_EQUAL(with_extensions(rig, &p, 6, steps, 8 * 8, 60), LBRL_VERDICT_FORWARD);
    steps[7 * 8] = 60;
    CHECK_EQUAL(with_extensions(rig, &p, 6, steps, 9 * 8, 60), LBRL_VERDICT_DROP);
    CHECK_EQUAL(p.p.reason, LBRL_DROP_BAD_OPTION);
    const uint8_t esp[8] = {0};
    CHECK_EQUAL(with_extensions(rig, &p, 7, esp, 8, 50), LBRL_VERDICT_DROP);
    CHECK_EQUAL(p.p.reason, LBRL_DROP_UNKNOWN_PROTOCOL);
}

static void padding_of_the_link_is_cut_off(rig_t *rig)
{
    test_packet_t p;
    syn(&p);
    p.p.length += 6;
    p.p.tailroom -= 6;
    CHECK_EQUAL(rig_send(rig, &p), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(p.p.length, 40);
}

static void tcp_options_that_make_no_sense_are_ignored(rig_t *rig)
{
    const uint8_t cases[][8] = {
        {3, 3, 200, 0, 3}, {3, 0, 1, 1}, {8, 10, 0, 0}, {3, 9, 9, 9}, {1, 1, 1, 1, 1, 1, 1, 8}};
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_packet_t p;
        tcp_fields_t tcp = {.sequence = 1, .flags = SYN, .options = cases[i], .options_size = 8};
        make_tcp(&p, CLIENT, (uint16_t)(42000 + i), VIP, 80, &tcp, 0);
        CHECK_EQUAL(rig_send(rig, &p), LBRL_VERDICT_FORWARD);
    }
}

static void reasons_have_names(void)
{
    CHECK(strcmp(lbrl_drop_name(LBRL_DROP_TRUNCATED), "truncated") == 0);
    CHECK(strcmp(lbrl_drop_name(LBRL_DROP_HANDOVER_FULL), "handover_full") == 0);
    CHECK(strcmp(lbrl_drop_name(LBRL_DROP_COUNT), "unknown") == 0);
    CHECK(strcmp(lbrl_drop_text(LBRL_DROP_COUNT), "unknown") == 0);
    for (unsigned i = 0; i < LBRL_DROP_COUNT; i++) {
        CHECK(strlen(lbrl_drop_text(i)) > 5);
    }
    for (int e = LBRL_ERR_VERSION; e <= LBRL_ERR_INVALID; e++) {
        CHECK(strcmp(lbrl_error_text(e), "unknown error") != 0);
    }
    CHECK(strcmp(lbrl_error_text(LBRL_OK), "no error") == 0);
    CHECK(strcmp(lbrl_error_text(5), "unknown error") == 0);
}

int main(void)
{
    rig_t rig = rig_make(1, 2);
    ipv4_headers(&rig);
    ipv6_headers(&rig);
    transport_headers(&rig);
    every_length(&rig);
    ipv4_options(&rig);
    ipv6_extensions(&rig);
    padding_of_the_link_is_cut_off(&rig);
    tcp_options_that_make_no_sense_are_ignored(&rig);
    reasons_have_names();
    rig_free(&rig);
    return 0;
}
