/* TCP connections: translated both ways, counted while they live, and let go as their ends say. */
#include "rig.h"

static const char *const CLIENTS[] = {"198.51.100.7", "5:7"};
static const char *const VIPS[] = {"203.0.113.10", "1:10"};

static int64_t open_flows(const rig_t *rig, uint64_t vip)
{
    int64_t sum = 0;
    lbrl_vip_status_t status;
    lbrl_backend_status_t backends[64];
    CHECK_EQUAL(lbrl_vip_status(rig->lb, vip, &status, backends, 64), 0);
    for (uint32_t i = 0; i < status.backend_count; i++) {
        sum += backends[i].open_flows;
    }
    return sum;
}

static void connection_lives_through_both_families(void)
{
    rig_t rig = rig_make(1, 4);
    for (int family = 0; family < 2; family++) {
        connection_t c = connection_make(&rig, CLIENTS[family], 40000, VIPS[family]);
        connection_open(&c);
        CHECK_EQUAL(c.backend_port, 8080);
        CHECK(is_address(&c.source, family ? "9:1" : "192.0.2.1"));
        CHECK(c.nat_port >= 16384 && c.nat_port <= 28671);
        CHECK_EQUAL(connection_client(&c, PSH, 301), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_server(&c, PSH, 1200), LBRL_VERDICT_FORWARD);
        lbrl_flow_info_t flow = connection_flow(&c);
        CHECK_EQUAL(flow.state, LBRL_FLOW_ESTABLISHED);
        CHECK_EQUAL(flow.nat_port & 63, flow.partition);
        CHECK(flow.open);
        lbrl_backend_status_t backend =
            rig_backend(&rig, family ? 2 : 1, (family ? 2001u : 1001u) + flow.slot);
        CHECK_EQUAL(backend.open_flows, 1);
        CHECK_EQUAL(backend.flows, 1);
        CHECK_EQUAL(backend.packets, 5);
    }
    rig_free(&rig);
}

static void bytes_but_the_tuple_stay_as_they_were(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    connection_open(&c);
    CHECK_EQUAL(connection_client(&c, PSH, 64), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(c.packet.p.data[1], 0x2e); /* DSCP and ECN */
    for (unsigned i = 0; i < 64; i++) {
        CHECK_EQUAL(c.packet.p.data[40 + i], (uint8_t)(i * 7 + 3));
    }
    rig_free(&rig);
}

static void half_open_flow_is_promoted_by_the_clients_ack_alone(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_SYN);
    c.server_next = 77;
    CHECK_EQUAL(connection_client(&c, 0, 0),
                LBRL_VERDICT_FORWARD); /* acknowledges what nobody sent */
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_SYN);
    CHECK_EQUAL(connection_server(&c, SYN, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_SYN_ACK);
    c.server_next += 5000; /* a guess */
    CHECK_EQUAL(connection_client(&c, 0, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_SYN_ACK);
    c.server_next -= 5000;
    CHECK_EQUAL(connection_client(&c, 0, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
    rig_free(&rig);
}

static void server_that_refuses_ends_a_half_open_flow(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
    c.client_next += 9; /* a RST that answers no SYN of ours */
    CHECK_EQUAL(connection_server(&c, RST, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_SYN);
    c.client_next -= 9;
    CHECK_EQUAL(connection_server(&c, RST, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
    CHECK_EQUAL(open_flows(&rig, 1), 0);
    rig_free(&rig);
}

/* A segment from the client's address with numbers of its own, as anybody can send it. */
static void forge(rig_t *rig, const char *client, uint16_t port, const tcp_fields_t *tcp,
                  size_t payload)
{
    test_packet_t p;
    make_tcp(&p, client, port, VIPS[0], 80, tcp, payload);
    (void)rig_send(rig, &p);
}

static void a_handshake_that_was_reset_opens_by_nothing_else(void)
{
    rig_t rig = rig_make(1, 1);
    for (int by_server = 0; by_server < 2; by_server++) {
        connection_t c = connection_make(&rig, CLIENTS[0], (uint16_t)(40000 + by_server), VIPS[0]);
        CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
        if (by_server) {
            connection_server(&c, RST, 0);
        } else {
            connection_client(&c, RST, 0);
        }
        CHECK_EQUAL(open_flows(&rig, 1), 0);
        c.server_next += 0x70000000; /* what forgers guess */
        connection_client(&c, PSH, 1);
        connection_server(&c, PSH, 1);
        connection_client(&c, PSH, 1);
        CHECK(connection_flow(&c).state != LBRL_FLOW_ESTABLISHED);
        CHECK_EQUAL(open_flows(&rig, 1), 0);
        rig_pass(&rig, 12000);
        CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_FREE);
    }
    rig_free(&rig);
}

static void client_that_gives_up_may_try_again_from_its_port(void)
{
    rig_t rig = rig_make(1, 1);
    for (int answered = 0; answered < 2; answered++) {
        connection_t c = connection_make(&rig, CLIENTS[0], (uint16_t)(40000 + answered), VIPS[0]);
        CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
        if (answered) {
            connection_server(&c, SYN, 0);
        }
        connection_client(&c, RST, 0);
        CHECK_EQUAL(open_flows(&rig, 1), answered);
        c.client_next += 100000;
        connection_open(&c);
        CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
        CHECK_EQUAL(open_flows(&rig, 1), answered + 1);
        rig_pass(&rig, 5000);
        connection_client(&c, PSH, 100);
        CHECK_EQUAL(connection_flow(&c).idle_ms, 0); /* by the numbers of the second attempt */
    }
    rig_free(&rig);
}

static void another_syn_does_not_disturb_a_handshake_that_was_answered(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
    connection_server(&c, SYN, 0);
    forge(&rig, CLIENTS[0], 40000, &(tcp_fields_t){.sequence = 777777777, .flags = SYN}, 0);
    connection_server(&c, 0, 0); /* "I know no such SYN" (RFC 5961, section 4) */
    connection_client(&c, 0, 0);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
    for (unsigned i = 0; i < 30; i++) {
        rig_pass(&rig, 1000);
        CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_server(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    }
    rig_free(&rig);
}

static void reset_of_a_handshake_has_its_numbers(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
    connection_server(&c, SYN, 0);
    c.client_next += 100; /* in the server's window, but the client has sent nothing there */
    connection_client(&c, RST, 0);
    CHECK_EQUAL(open_flows(&rig, 1), 1);
    c.server_next += 100;
    connection_server(&c, RST, 0);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_SYN_ACK);
    c.server_next -= 100;
    connection_server(&c, RST, 0);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
    rig_free(&rig);
}

static void guessed_acknowledgements_open_nothing(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
    connection_server(&c, SYN, 0);
    const uint32_t answered = c.server_next;
    for (uint32_t guess = 1; guess < 64; guess++) { /* each would make room for the next */
        for (uint32_t payload = 0; payload < 2; payload++) {
            forge(&rig, CLIENTS[0], 40000,
                  &(tcp_fields_t){.sequence = c.client_next,
                                  .ack = answered + (guess << 26),
                                  .window = 1000,
                                  .flags = ACK},
                  payload);
            CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_SYN_ACK);
        }
    }
    connection_client(&c, 0, 0);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
    rig_free(&rig);
}

/* In the window, but of what the server has not sent: the flow still follows what the two ends say. */
static void guessed_acknowledgements_blind_nobody(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    connection_open(&c);
    forge(
        &rig, CLIENTS[0], 40000,
        &(tcp_fields_t){.sequence = c.client_next, .ack = c.server_next + 0x7fffff00, .flags = ACK},
        0);
    for (unsigned i = 0; i < 20; i++) {
        rig_pass(&rig, 100000);
        CHECK_EQUAL(connection_server(&c, PSH, 100), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_flow(&c).idle_ms, 0);
    }
    connection_server(&c, RST, 0);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
    rig_free(&rig);
}

/* SYN, RST and data of 12,000 clients that nobody has: neither table nor NAT ports are theirs. */
static void forged_resets_leave_room_for_clients(void)
{
    rig_t rig = rig_make(1, 8);
    for (uint32_t i = 0; i < 12000; i++) {
        char client[24];
        snprintf(client, sizeof(client), "100.64.%u.%u", i / 250, i % 250 + 1);
        const uint16_t port = (uint16_t)(4000 + i);
        forge(&rig, client, port, &(tcp_fields_t){.sequence = 5000, .flags = SYN}, 0);
        forge(&rig, client, port, &(tcp_fields_t){.sequence = 5001, .flags = RST}, 0);
        forge(&rig, client, port,
              &(tcp_fields_t){.sequence = 5001, .ack = 0x80000001u, .flags = ACK}, 1);
    }
    lbrl_stats_t stats;
    lbrl_stats(rig.lb, &stats);
    CHECK(stats.flows <= stats.flow_capacity / 4);
    CHECK_EQUAL(stats.half_open, stats.flows);
    CHECK_EQUAL(open_flows(&rig, 1), 0);
    for (uint16_t i = 0; i < 200; i++) {
        connection_t c = connection_make(&rig, CLIENTS[0], (uint16_t)(50000 + i), VIPS[0]);
        connection_open(&c);
        CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
    }
    rig_free(&rig);
}

/* RFC 5961, 3.2: any other one is forwarded, for the receiver to challenge it. */
static void reset_counts_only_with_the_exact_number(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    connection_open(&c);
    const uint32_t wrong[] = {0x40000000, 65535, 1000, 1, UINT32_MAX, UINT32_MAX - 65535};
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        for (int from_server = 0; from_server < 2; from_server++) {
            uint32_t *next = from_server ? &c.server_next : &c.client_next;
            uint32_t right = *next;
            *next = right + wrong[i];
            CHECK_EQUAL(from_server ? connection_server(&c, RST, 0) : connection_client(&c, RST, 0),
                        LBRL_VERDICT_FORWARD);
            *next = right;
            CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
        }
    }
    /* the server has acknowledged less than the client has sent: both numbers are possible */
    uint32_t acknowledged = c.client_next;
    CHECK_EQUAL(connection_client(&c, PSH, 100), LBRL_VERDICT_FORWARD);
    uint32_t next = c.client_next;
    c.client_next = acknowledged + 50;
    CHECK_EQUAL(connection_client(&c, RST, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
    connection_t answered = c;
    c.client_next = acknowledged;
    CHECK_EQUAL(connection_client(&c, RST, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
    c = answered;
    c.client_next = next;
    CHECK_EQUAL(connection_client(&c, PSH, 1), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
    CHECK_EQUAL(connection_client(&c, RST, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
    CHECK_EQUAL(open_flows(&rig, 1), 0);
    rig_pass(&rig, 12000);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_FREE);
    rig_free(&rig);
}

static void data_after_a_reset_revives_the_flow(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    connection_open(&c);
    CHECK_EQUAL(connection_client(&c, RST, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(open_flows(&rig, 1), 0);
    CHECK_EQUAL(connection_server(&c, 0, 0), LBRL_VERDICT_FORWARD); /* no data: proves nothing */
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
    CHECK_EQUAL(connection_server(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
    CHECK_EQUAL(open_flows(&rig, 1), 1);
    rig_pass(&rig, 60000);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
    rig_free(&rig);
}

static void half_closed_connection_goes_on_in_the_other_direction(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    connection_open(&c);
    CHECK_EQUAL(connection_client(&c, FIN, 20), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
    CHECK_EQUAL(connection_server(&c, 0, 1000), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
    CHECK_EQUAL(connection_server(&c, FIN, 500), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
    CHECK_EQUAL(connection_client(&c, 0, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
    rig_pass(&rig, 9000);
    CHECK_EQUAL(connection_flow(&c).state,
                LBRL_FLOW_CLOSING); /* retransmissions still find their way */
    rig_pass(&rig, 3000);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_FREE);
    CHECK_EQUAL(connection_client(&c, 0, 10), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(c.packet.p.reason, LBRL_DROP_NO_FLOW);
    CHECK_EQUAL(connection_server(&c, 0, 10), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(c.packet.p.reason, LBRL_DROP_NO_FLOW_RETURN);
    rig_free(&rig);
}

static void half_closed_connection_may_fall_silent_for_a_while(void)
{
    rig_t rig = rig_make(1, 1);
    for (int by_server = 0; by_server < 2; by_server++) {
        connection_t c = connection_make(&rig, CLIENTS[0], (uint16_t)(40000 + by_server), VIPS[0]);
        connection_open(&c);
        if (by_server) { /* of an idle connection, which the client's pool has not noticed */
            connection_server(&c, FIN, 0);
            connection_client(&c, 0, 0);
        } else { /* the request was all that it had to say; the server thinks */
            connection_client(&c, FIN, 100);
            connection_server(&c, 0, 0);
        }
        CHECK_EQUAL(open_flows(&rig, 1), 0);
        rig_pass(&rig, 115000);
        if (by_server) {
            CHECK_EQUAL(connection_client(&c, PSH, 100), LBRL_VERDICT_FORWARD);
            CHECK_EQUAL(connection_server(&c, RST, 0), LBRL_VERDICT_FORWARD);
            CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
            rig_pass(&rig, 12000);
        } else {
            CHECK_EQUAL(connection_server(&c, PSH, 100), LBRL_VERDICT_FORWARD);
            CHECK_EQUAL(connection_server(&c, FIN, 0), LBRL_VERDICT_FORWARD);
            rig_pass(&rig, 12000);
        }
        CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_FREE);
    }
    rig_free(&rig);
}

static void syn_on_a_closing_flow_starts_a_new_one(void)
{
    rig_t rig = rig_make(1, 4);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    connection_open(&c);
    connection_client(&c, FIN, 0);
    connection_server(&c, FIN, 0);
    uint16_t port = c.nat_port;
    lbrl_address_t backend = c.backend;
    connection_open(&c);
    CHECK(port != c.nat_port || memcmp(&backend, &c.backend, sizeof(backend)) != 0);
    CHECK_EQUAL(open_flows(&rig, 1), 1);
    lbrl_stats_t stats;
    lbrl_stats(rig.lb, &stats);
    CHECK_EQUAL(stats.flows, 1);
    CHECK_EQUAL(stats.flows_created, 2);
    rig_free(&rig);
}

static void syn_on_an_established_flow_goes_to_its_backend(void)
{
    rig_t rig = rig_make(1, 4);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    connection_open(&c);
    connection_t other = c;
    CHECK_EQUAL(connection_syn(&other), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(other.nat_port, c.nat_port);
    CHECK(memcmp(&other.backend, &c.backend, sizeof(c.backend)) == 0);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
    rig_free(&rig);
}

static void connection_begun_anew_over_a_forgotten_one_is_followed(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    connection_open(&c);
    connection_client(&c, PSH, 10);
    rig_pass(&rig, 300000); /* both ends restart */
    c.client_next += 0x60000000;
    c.server_next += 0x70000000;
    connection_open(&c);
    for (unsigned i = 0; i < 20; i++) {
        rig_pass(&rig, 100000);
        CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_flow(&c).idle_ms, 0);
        rig_pass(&rig, 100);
        CHECK_EQUAL(connection_server(&c, PSH, 10), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_flow(&c).idle_ms, 0);
    }
    connection_client(&c, FIN, 0);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
    CHECK_EQUAL(open_flows(&rig, 1), 0);
    rig_free(&rig);
}

/* Neither a forged SYN nor the server's SYN-ACK sent again is a new connection. */
static void established_connection_outlives_what_looks_like_another(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    connection_open(&c);
    connection_t repeated = c;
    repeated.server_next--;
    connection_client(&c, PSH, 1000);
    connection_server(&repeated, SYN, 0);
    forge(&rig, CLIENTS[0], 40000, &(tcp_fields_t){.sequence = 777777777, .flags = SYN}, 0);
    connection_server(&c, 0, 0); /* "I know no such SYN" */
    forge(&rig, CLIENTS[0], 40000, &(tcp_fields_t){.sequence = 777777778, .flags = RST}, 0);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
    for (unsigned i = 0; i < 20; i++) {
        rig_pass(&rig, 100000);
        connection_client(&c, PSH, 10);
        CHECK_EQUAL(connection_flow(&c).idle_ms, 0);
        rig_pass(&rig, 100);
        connection_server(&c, PSH, 10);
        CHECK_EQUAL(connection_flow(&c).idle_ms, 0);
    }
    rig_free(&rig);
}

static void repeated_syn_keeps_its_flow_and_a_new_one_restarts_it(void)
{
    rig_t rig = rig_make(1, 4);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
    uint16_t port = c.nat_port;
    c.client_next--;
    CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(c.nat_port, port);
    c.client_next += 100000;
    CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(c.nat_port, port);
    CHECK_EQUAL(connection_server(&c, SYN, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_client(&c, 0, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_ESTABLISHED);
    rig_free(&rig);
}

static void silence_ends_each_state_in_its_time(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t half = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    CHECK_EQUAL(connection_syn(&half), LBRL_VERDICT_FORWARD);
    connection_t whole = connection_make(&rig, CLIENTS[1], 40001, VIPS[1]);
    connection_open(&whole);
    rig_pass(&rig, 9000);
    CHECK_EQUAL(connection_flow(&half).state, LBRL_FLOW_SYN);
    rig_pass(&rig, 3000);
    CHECK_EQUAL(connection_flow(&half).state, LBRL_FLOW_FREE);
    rig_pass(&rig, 880000);
    CHECK_EQUAL(connection_flow(&whole).state, LBRL_FLOW_ESTABLISHED);
    rig_pass(&rig, 12000);
    CHECK_EQUAL(connection_flow(&whole).state, LBRL_FLOW_FREE);
    CHECK_EQUAL(open_flows(&rig, 1), 0);
    CHECK_EQUAL(open_flows(&rig, 2), 0);
    rig_free(&rig);
}

static void segment_outside_the_window_moves_nothing(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    connection_open(&c);
    uint32_t next = c.client_next;
    c.client_next += 0x50000000;
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    c.client_next = next;
    CHECK_EQUAL(connection_client(&c, FIN, 0),
                LBRL_VERDICT_FORWARD); /* still in window: the first moved nothing */
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
    rig_free(&rig);
}

static void sequence_numbers_may_wrap(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENTS[0], 40000, VIPS[0]);
    c.client_next = 0xffffffffu;
    c.server_next = 0xfffffffeu;
    connection_open(&c);
    for (unsigned i = 0; i < 10; i++) {
        CHECK_EQUAL(connection_client(&c, PSH, 700), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_server(&c, PSH, 900), LBRL_VERDICT_FORWARD);
    }
    CHECK_EQUAL(connection_server(&c, RST, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
    rig_free(&rig);
}

static void backends_of_equal_weight_share_open_flows(void)
{
    rig_t rig = rig_make(1, 4);
    for (uint16_t i = 0; i < 40; i++) {
        connection_t c = connection_make(&rig, CLIENTS[0], (uint16_t)(41000 + i), VIPS[0]);
        connection_open(&c);
    }
    for (uint64_t id = 1001; id <= 1004; id++) {
        CHECK_EQUAL(rig_backend(&rig, 1, id).open_flows, 10);
    }
    rig_free(&rig);
}

int main(void)
{
    connection_lives_through_both_families();
    bytes_but_the_tuple_stay_as_they_were();
    half_open_flow_is_promoted_by_the_clients_ack_alone();
    server_that_refuses_ends_a_half_open_flow();
    a_handshake_that_was_reset_opens_by_nothing_else();
    client_that_gives_up_may_try_again_from_its_port();
    another_syn_does_not_disturb_a_handshake_that_was_answered();
    reset_of_a_handshake_has_its_numbers();
    forged_resets_leave_room_for_clients();
    guessed_acknowledgements_open_nothing();
    guessed_acknowledgements_blind_nobody();
    reset_counts_only_with_the_exact_number();
    data_after_a_reset_revives_the_flow();
    half_closed_connection_goes_on_in_the_other_direction();
    half_closed_connection_may_fall_silent_for_a_while();
    syn_on_a_closing_flow_starts_a_new_one();
    syn_on_an_established_flow_goes_to_its_backend();
    connection_begun_anew_over_a_forgotten_one_is_followed();
    established_connection_outlives_what_looks_like_another();
    repeated_syn_keeps_its_flow_and_a_new_one_restarts_it();
    silence_ends_each_state_in_its_time();
    segment_outside_the_window_moves_nothing();
    sequence_numbers_may_wrap();
    backends_of_equal_weight_share_open_flows();
    return 0;
}
