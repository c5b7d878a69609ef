/* What cannot be served is refused at once, for each kind of answer within a bound of its own; flows are told of their end. */
#include "rig.h"

static const char *const CLIENT[] = {"198.51.100.7", "5:7"};
static const char *const VIP[] = {"203.0.113.10", "1:10"};

enum { MANY = 2000 };

static lbrl_vip_config_t config_of(bool v6, uint8_t protocol, lbrl_backend_config_t *backends,
                                   uint32_t count)
{
    return rig_vip((v6 ? 20u : 10u) + protocol, VIP[v6], protocol == 6 ? 8000 : 5000, protocol,
                   backends, count);
}

static void configure(rig_t *rig, lbrl_vip_config_t *config)
{
    CHECK_EQUAL(lbrl_vip_set(rig->lb, config, rig->now_us), 0);
}

static void make_first(test_packet_t *packet, bool v6, uint8_t protocol, uint16_t port)
{
    if (protocol == 6) {
        tcp_fields_t syn = {.sequence = 99, .flags = SYN};
        make_tcp(packet, CLIENT[v6], port, VIP[v6], 8000, &syn, 0);
    } else {
        make_udp(packet, CLIENT[v6], port, VIP[v6], 5000, 30);
    }
}

/* A new flow gets the answer of a host whose port is closed. */
static void is_refused(rig_t *rig, bool v6, uint8_t protocol)
{
    test_packet_t packet;
    make_first(&packet, v6, protocol, 40000);
    CHECK_EQUAL(rig_send(rig, &packet), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(packet.p.reason, LBRL_DROP_NO_BACKEND);
    seen_t seen = look(&packet.p);
    CHECK(is_address(&seen.src, VIP[v6]));
    CHECK(is_address(&seen.dst, CLIENT[v6]));
    if (protocol == 6) {
        CHECK_EQUAL(seen.flags, RST | ACK);
        CHECK_EQUAL(seen.ack, 100);
    } else {
        CHECK_EQUAL(packet.p.data[seen.transport], v6 ? 1 : 3);
        CHECK_EQUAL(packet.p.data[seen.transport + 1], v6 ? 4 : 3);
    }
}

static void is_dropped(rig_t *rig, bool v6, uint8_t protocol)
{
    test_packet_t packet;
    make_first(&packet, v6, protocol, 40001);
    CHECK_EQUAL(rig_send(rig, &packet), LBRL_VERDICT_DROP);
    CHECK_EQUAL(packet.p.reason, LBRL_DROP_NO_BACKEND);
}

/* Each way of having nobody who takes new flows; how 0 has somebody. */
static void empty(lbrl_vip_config_t *config, lbrl_backend_config_t *backends, int how)
{
    static const uint8_t states[] = {LBRL_BACKEND_ACTIVE, LBRL_BACKEND_ACTIVE,
                                     LBRL_BACKEND_ACTIVE, LBRL_BACKEND_DRAINING,
                                     LBRL_BACKEND_FAILED, LBRL_BACKEND_UNREADY};
    for (uint32_t i = 0; i < 2; i++) {
        backends[i].state = states[how];
        backends[i].weight = how == 2 ? 0 : 1;
    }
    config->backend_count = how == 1 ? 0 : 2;
}

static void new_flows_that_no_backend_takes_are_refused_at_once(void)
{
    for (int variant = 0; variant < 4; variant++) {
        bool v6 = variant & 1;
        uint8_t protocol = variant & 2 ? 17 : 6;
        rig_t rig = rig_make(1, 1);
        for (int how = 5; how >= 0; how--) {
            lbrl_backend_config_t backends[2];
            lbrl_vip_config_t config = config_of(v6, protocol, backends, 2);
            config.scheduler = how % 2 ? LBRL_SCHEDULER_MAGLEV : LBRL_SCHEDULER_LSQ;
            empty(&config, backends, how);
            configure(&rig, &config);
            if (how == 0) {
                break;
            }
            is_refused(&rig, v6, protocol);
            config.when_no_backends = LBRL_REFUSE_DROP;
            configure(&rig, &config);
            is_dropped(&rig, v6, protocol);
            lbrl_vip_config_t found;
            CHECK_EQUAL(lbrl_vip_config(rig.lb, config.id, &found, NULL, 0), 0);
            CHECK_EQUAL(found.when_no_backends, LBRL_REFUSE_DROP);
            CHECK_EQUAL(found.client_affinity, 0);
            rig_restart(&rig);
            rig_pass(&rig, 6000);
            is_dropped(&rig, v6, protocol);
        }
        test_packet_t packet;
        make_first(&packet, v6, protocol, 40002);
        CHECK_EQUAL(rig_send(&rig, &packet), LBRL_VERDICT_FORWARD);
        rig_free(&rig);
    }
}

static void weights_of_zero_refuse_new_flows_too(void)
{
    rig_t rig = rig_make(1, 2);
    connection_t c = connection_make(&rig, CLIENT[0], 40000, VIP[0]);
    connection_open(&c);
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, (float[]){0, 0}, NULL, NULL, 2), 0);
    connection_t other = connection_make(&rig, CLIENT[0], 40001, VIP[0]);
    CHECK_EQUAL(connection_syn(&other), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    rig_free(&rig);
}

static void after_an_attach_nobody_is_refused_for_a_while(void)
{
    rig_t rig = rig_make(1, 0);
    connection_t c = connection_make(&rig, CLIENT[0], 40000, VIP[0]);
    rig_restart(&rig);
    CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_DROP);
    CHECK_EQUAL(connection_client(&c, 0, 10), LBRL_VERDICT_DROP);
    rig_pass(&rig, 5000);
    CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(connection_client(&c, 0, 10), LBRL_VERDICT_REPLY);
    rig_free(&rig);
}

/* ------------------------------------------------------------------------------- flows that are not there */

static connection_t aged_out(rig_t *rig, uint16_t port)
{
    connection_t c = connection_make(rig, CLIENT[0], port, VIP[0]);
    connection_open(&c);
    rig_pass(rig, rig_timeouts().tcp_established + 2000);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_FREE);
    return c;
}

static void both_ends_of_an_aged_connection_get_a_reset(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = aged_out(&rig, 40000);
    uint32_t next = c.server_next;
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(c.packet.p.reason, LBRL_DROP_NO_FLOW);
    seen_t seen = look(&c.packet.p);
    CHECK_EQUAL(seen.flags, RST);
    CHECK_EQUAL(seen.sequence, next);
    CHECK(is_address(&seen.dst, CLIENT[0]));
    CHECK_EQUAL(connection_server(&c, PSH, 10), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(c.packet.p.reason, LBRL_DROP_NO_FLOW_RETURN);
    seen = look(&c.packet.p);
    CHECK_EQUAL(seen.flags, RST);
    CHECK_EQUAL(seen.dport, c.backend_port);
    CHECK_EQUAL(connection_client(&c, RST, 0), LBRL_VERDICT_DROP); /* never about a RST */
    CHECK_EQUAL(connection_server(&c, RST, 0), LBRL_VERDICT_DROP);
    rig_free(&rig);
}

static void strangers_are_dropped_where_it_is_wanted_or_nodes_share_flows(void)
{
    rig_t rig = rig_make(1, 1);
    uint8_t key[16] = {0};
    connection_t c = connection_make(&rig, CLIENT[0], 40000, VIP[0]);
    CHECK_EQUAL(connection_client(&c, 0, 10), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(lbrl_node_set(rig.lb, key, 2), 0);
    CHECK_EQUAL(connection_client(&c, 0, 10), LBRL_VERDICT_DROP);
    rig_restart(&rig);
    rig_pass(&rig, 6000);
    CHECK_EQUAL(connection_client(&c, 0, 10), LBRL_VERDICT_DROP);
    CHECK_EQUAL(lbrl_node_set(rig.lb, key, 1), 0);
    CHECK_EQUAL(connection_client(&c, 0, 10), LBRL_VERDICT_REPLY);
    lbrl_backend_config_t backends[1];
    lbrl_vip_config_t config = rig_vip(1, VIP[0], 80, 6, backends, 1);
    config.when_no_flow = LBRL_REFUSE_DROP;
    configure(&rig, &config);
    CHECK_EQUAL(connection_client(&c, 0, 10), LBRL_VERDICT_DROP);
    CHECK_EQUAL(c.packet.p.reason, LBRL_DROP_NO_FLOW);
    rig_free(&rig);
}

static void one_way_only_what_begins_a_flow_is_refused(void)
{
    rig_t rig = rig_make(1, 1);
    lbrl_vip_config_t config = rig_vip(30, VIP[0], 90, 6, NULL, 0);
    config.forwarding = LBRL_FORWARD_L3DSR;
    config.dscp = 9;
    configure(&rig, &config);
    for (int ack = 0; ack < 2; ack++) {
        test_packet_t p;
        tcp_fields_t tcp = {.sequence = 99, .ack = 5, .flags = ack ? ACK : SYN};
        make_tcp(&p, CLIENT[0], 40000, VIP[0], 90, &tcp, 0);
        CHECK_EQUAL(rig_send(&rig, &p), ack ? LBRL_VERDICT_DROP : LBRL_VERDICT_REPLY);
        CHECK_EQUAL(p.p.reason, LBRL_DROP_NO_BACKEND);
    }
    rig_free(&rig);
}

/* ------------------------------------------------------------------------------- bounds */

/* More datagrams to a closed port than anybody may be answered. */
static void flood_closed_port(rig_t *rig, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        test_packet_t p;
        make_udp(&p, "198.51.100.66", 40000, VIP[0], 81, 30);
        (void)rig_send(rig, &p);
    }
}

static void fail_all(rig_t *rig)
{
    lbrl_backend_config_t backends[2];
    lbrl_vip_config_t config = rig_vip(1, VIP[0], 80, 6, backends, 2);
    backends[0].state = backends[1].state = LBRL_BACKEND_FAILED;
    configure(rig, &config);
}

/* All send at once, and again as clients do; each gets one RST, and its flow stays until then. */
static void every_client_of_a_failed_backend_is_told(void)
{
    rig_t rig = rig_make(1, 2);
    static connection_t c[MANY];
    for (unsigned i = 0; i < MANY; i++) {
        c[i] = connection_make(&rig, CLIENT[0], (uint16_t)(20000 + i), VIP[0]);
        connection_open(&c[i]);
    }
    fail_all(&rig);
    flood_closed_port(&rig, 3000);
    unsigned told = 0;
    for (unsigned i = 0; i < MANY; i++) {
        told += connection_client(&c[i], PSH, 10) == LBRL_VERDICT_REPLY;
    }
    CHECK_EQUAL(told, MANY);
    rig_free(&rig);
}

static void flow_stays_until_its_client_was_told(void)
{
    rig_t rig = rig_sized(65536, 1);
    rig_set_sources(&rig);
    rig_set_standard_vips(&rig, 2);
    enum { MORE = 5000 };
    static connection_t c[MORE];
    for (unsigned i = 0; i < MORE; i++) {
        c[i] = connection_make(&rig, CLIENT[0], (uint16_t)(20000 + i), VIP[0]);
        connection_open(&c[i]);
    }
    fail_all(&rig);
    unsigned told = 0;
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < MORE; i++) {
            if (connection_flow(&c[i]).state != LBRL_FLOW_FREE) {
                told += connection_client(&c[i], PSH, 10) == LBRL_VERDICT_REPLY;
            }
        }
        rig.now_us += 400000;
    }
    CHECK_EQUAL(told, MORE);
    CHECK(rig_dropped(&rig, LBRL_DROP_RATE_BOUNDED) > 0);
    rig_free(&rig);
}

/* A route is traced by what says that hops are used up. */
static void used_up_hops_are_answered_beside_a_flood(void)
{
    rig_t rig = rig_make(1, 1);
    test_packet_t p;
    tcp_fields_t syn = {.flags = SYN};
    flood_closed_port(&rig, 3000);
    make_tcp(&p, CLIENT[0], 40000, VIP[0], 80, &syn, 0);
    p.p.data[8] = 1;
    fix_checksums(&p.p);
    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(p.p.reason, LBRL_DROP_TTL_EXPIRED);
    rig_free(&rig);
}

static lbrl_verdict_t oversized(rig_t *rig, const char *client)
{
    test_packet_t p;
    make_udp(&p, client, 40000, VIP[0], 5001, 1480);
    p.p.data[6] = 0x40; /* DF */
    fix_checksums(&p.p);
    return rig_send(rig, &p);
}

/* What says that a path is narrower is starved by no other answer, nor by another sender's. */
static void packet_too_big_is_answered_beside_any_flood(void)
{
    rig_t rig = rig_make(1, 1);
    lbrl_backend_config_t backends[1];
    lbrl_vip_config_t config = rig_vip(31, VIP[0], 5001, 17, backends, 1);
    config.forwarding = LBRL_FORWARD_GRE;
    configure(&rig, &config);
    flood_closed_port(&rig, 3000);
    for (unsigned i = 0; i < 3000; i++) {
        test_packet_t p;
        make_udp(&p, "198.51.100.66", 40000, VIP[0], 5001, 30);
        p.p.data[8] = 1; /* TTL */
        fix_checksums(&p.p);
        (void)rig_send(&rig, &p);
        (void)oversized(&rig, "198.51.100.66");
    }
    unsigned answered = 0;
    for (unsigned i = 0; i < 32; i++) {
        char client[20];
        snprintf(client, sizeof(client), "198.51.100.%u", 100 + i);
        answered += oversized(&rig, client) == LBRL_VERDICT_REPLY;
    }
    CHECK(answered >= 24); /* those who share a bucket with the flood wait */
    CHECK_EQUAL(oversized(&rig, "198.51.100.66"), LBRL_VERDICT_DROP);
    rig_free(&rig);
}

int main(void)
{
    new_flows_that_no_backend_takes_are_refused_at_once();
    weights_of_zero_refuse_new_flows_too();
    after_an_attach_nobody_is_refused_for_a_while();
    both_ends_of_an_aged_connection_get_a_reset();
    strangers_are_dropped_where_it_is_wanted_or_nodes_share_flows();
    one_way_only_what_begins_a_flow_is_refused();
    every_client_of_a_failed_backend_is_told();
    flow_stays_until_its_client_was_told();
    used_up_hops_are_answered_beside_a_flood();
    packet_too_big_is_answered_beside_any_flood();
    return 0;
}
