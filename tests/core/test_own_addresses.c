/* Addresses of ours as others see them: no client is a VIP or a NAT port, and a backend may have the NAT source's address. */
#include "rig.h"

static const char *const CLIENT[] = {"198.51.100.7", "5:7"};
static const char *const VIP[] = {"203.0.113.10", "1:10"};
static const char *const OTHER_VIP[] = {"203.0.113.11", "1:11"};
static const char *const SOURCE[] = {"192.0.2.1", "9:1"};

enum { PORT = 5000 };

/* Two VIPs of UDP in each family, beside the standard ones. */
static rig_t rig_with_udp(void)
{
    rig_t rig = rig_make(1, 2);
    for (uint32_t i = 0; i < 4; i++) {
        lbrl_backend_config_t backends[2];
        const char *address = i % 2 ? OTHER_VIP[i / 2] : VIP[i / 2];
        lbrl_vip_config_t config = rig_vip(4 + i, address, PORT, 17, backends, 2);
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    }
    return rig;
}

static void expect_forged(rig_t *rig, test_packet_t *p)
{
    uint64_t before = rig_dropped(rig, LBRL_DROP_FORGED_CLIENT);
    CHECK_EQUAL(rig_send(rig, p), LBRL_VERDICT_DROP);
    CHECK_EQUAL(p->p.reason, LBRL_DROP_FORGED_CLIENT);
    CHECK_EQUAL(rig_dropped(rig, LBRL_DROP_FORGED_CLIENT), before + 1);
}

/* Its answer would be a question to that VIP, and the answer to that one to this one. */
static void vip_is_no_client_of_a_vip(void)
{
    rig_t rig = rig_with_udp();
    for (int v6 = 0; v6 < 2; v6++) {
        const char *const forged[] = {VIP[v6], OTHER_VIP[v6]};
        const uint16_t ports[] = {PORT, 40000, 20000};
        for (unsigned i = 0; i < 6; i++) {
            test_packet_t p;
            tcp_fields_t syn = {.flags = SYN};
            make_udp(&p, forged[i % 2], ports[i / 2], VIP[v6], PORT, 30);
            expect_forged(&rig, &p);
            make_udp(&p, forged[i % 2], ports[i / 2], VIP[v6], 9, 30); /* no such port: no error */
            expect_forged(&rig, &p);
            make_tcp(&p, forged[i % 2], ports[i / 2], VIP[v6], 80, &syn, 0);
            expect_forged(&rig, &p);
            make_echo(&p, forged[i % 2], VIP[v6], 30);
            expect_forged(&rig, &p);
        }
    }
    rig_free(&rig);
}

static void nat_port_is_no_client_but_other_ports_of_its_host_are(void)
{
    rig_t rig = rig_with_udp();
    for (int v6 = 0; v6 < 2; v6++) {
        const struct {
            uint16_t port;
            bool ours;
        } cases[] = {{16383, false}, {16384, true}, {20000, true}, {28671, true}, {28672, false}};
        for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            test_packet_t p;
            make_udp(&p, SOURCE[v6], cases[i].port, VIP[v6], PORT, 30);
            if (cases[i].ours) {
                expect_forged(&rig, &p);
            } else {
                CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
            }
        }
        test_packet_t p;
        make_echo(&p, SOURCE[v6], VIP[v6], 30);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_REPLY);
    }
    rig_free(&rig);
}

static void link_local_address_is_no_client(void)
{
    rig_t rig = rig_with_udp();
    test_packet_t p;
    make_udp(&p, "169.254.0.1", 40000, VIP[0], PORT, 30);
    expect_forged(&rig, &p);
    make_udp(&p, "169.254.255.254", 40000, VIP[0], PORT, 30);
    expect_forged(&rig, &p);
    make_udp(&p, "169.253.255.255", 40000, VIP[0], PORT, 30);
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
    make_udp(&p, CLIENT[1], 40000, VIP[1], PORT, 30);
    p.p.data[8] = 0xfe;
    p.p.data[9] = 0xbf;
    fix_checksums(&p.p);
    expect_forged(&rig, &p);
    rig_free(&rig);
}

/* A server on the host whose address the NAT source is: what it sends has that address as source and destination. */
static rig_t rig_with_host_backends(void)
{
    rig_t rig = rig_make(1, 1);
    for (uint32_t i = 0; i < 4; i++) {
        lbrl_backend_config_t backend;
        lbrl_vip_config_t config =
            rig_vip(4 + i, OTHER_VIP[i % 2], 90, i < 2 ? 6 : 17, &backend, 1);
        backend.address = address_of(SOURCE[i % 2]);
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    }
    return rig;
}

static void backend_may_have_the_address_of_the_nat_source(void)
{
    rig_t rig = rig_with_host_backends();
    for (int v6 = 0; v6 < 2; v6++) {
        connection_t c = connection_make(&rig, CLIENT[v6], 40000, OTHER_VIP[v6]);
        c.vip_port = 90;
        connection_open(&c);
        CHECK(is_address(&c.backend, SOURCE[v6]));
        CHECK(is_address(&c.source, SOURCE[v6]));
        CHECK_EQUAL(connection_client(&c, PSH, 700), LBRL_VERDICT_FORWARD);
        test_packet_t p, sent = c.packet;
        sent.p.data = sent.room + (c.packet.p.data - c.packet.room);
        CHECK_EQUAL(connection_server(&c, PSH, 700), LBRL_VERDICT_FORWARD);
        make_icmp_error(&p, SOURCE[v6], SOURCE[v6], v6 ? 2 : 3, v6 ? 0 : 4, 1280, &sent.p, 500);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
        seen_t seen = look(&p.p);
        CHECK(is_address(&seen.dst, CLIENT[v6]));
        CHECK_EQUAL(connection_server(&c, FIN, 0), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_client(&c, FIN, 0), LBRL_VERDICT_FORWARD);

        make_udp(&p, CLIENT[v6], 40000, OTHER_VIP[v6], 90, 30);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
        seen = look(&p.p);
        make_udp(&p, SOURCE[v6], 8080, SOURCE[v6], seen.sport, 30);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
        seen = look(&p.p);
        CHECK(is_address(&seen.src, OTHER_VIP[v6]));
        CHECK(is_address(&seen.dst, CLIENT[v6]));
        CHECK_EQUAL(seen.sport, 90);
    }
    rig_free(&rig);
}

int main(void)
{
    vip_is_no_client_of_a_vip();
    nat_port_is_no_client_but_other_ports_of_its_host_are();
    link_local_address_is_no_client();
    backend_may_have_the_address_of_the_nat_source();
    return 0;
}
