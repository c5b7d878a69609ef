/* Backends that leave: terminating, not ready, removed, replaced under another id, without weight. */
#include "rig.h"

static const char *const CLIENT = "198.51.100.7";
static const char *const VIP = "203.0.113.10";

enum { DRAIN_MS = 60000, UDP_PORT = 5000 };

static lbrl_backend_config_t backends[8];

static int set(rig_t *rig, uint8_t protocol, const lbrl_backend_config_t *list, uint32_t count)
{
    lbrl_backend_config_t unused[1];
    lbrl_vip_config_t config = protocol == 6 ? rig_vip(1, VIP, 80, 6, unused, 0)
                                             : rig_vip(4, VIP, UDP_PORT, 17, unused, 0);
    config.backends = list;
    config.backend_count = count;
    config.drain_timeout = DRAIN_MS;
    return lbrl_vip_set(rig->lb, &config, rig->now_us);
}

static rig_t rig_with(uint32_t count)
{
    rig_t rig = rig_make(1, count);
    rig_vip(1, VIP, 80, 6, backends, count);
    CHECK_EQUAL(set(&rig, 6, backends, count), 0);
    CHECK_EQUAL(set(&rig, 17, backends, count), 0);
    return rig;
}

static uint32_t place_of(const lbrl_address_t *backend)
{
    return backend->bytes[15] - 1u;
}

/* The list without the backend at a place, for both protocols. */
static void remove_backend(rig_t *rig, uint32_t count, uint32_t place)
{
    lbrl_backend_config_t rest[8];
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (i != place) {
            rest[n++] = backends[i];
        }
    }
    CHECK_EQUAL(set(rig, 6, rest, n), 0);
    CHECK_EQUAL(set(rig, 17, rest, n), 0);
}

static connection_t open_from(rig_t *rig, uint16_t port)
{
    connection_t c = connection_make(rig, CLIENT, port, VIP);
    connection_open(&c);
    return c;
}

static lbrl_verdict_t datagram(rig_t *rig, seen_t *seen)
{
    test_packet_t packet;
    make_udp(&packet, CLIENT, 30000, VIP, UDP_PORT, 40);
    lbrl_verdict_t verdict = rig_send(rig, &packet);
    *seen = look(&packet.p);
    return verdict;
}

static void nobody_else_goes_to(rig_t *rig, const lbrl_address_t *backend)
{
    for (uint16_t i = 0; i < 20; i++) {
        connection_t other = open_from(rig, (uint16_t)(41000 + i));
        CHECK(memcmp(&other.backend, backend, 16) != 0);
        CHECK_EQUAL(connection_client(&other, RST, 0), LBRL_VERDICT_FORWARD);
    }
}

/* How a backend leaves the VIP of two. */
typedef enum leave {
    LEAVE_REMOVED,
    LEAVE_DRAINING,
    LEAVE_UNREADY,
    LEAVE_UNWEIGHTED,
    LEAVES
} leave_t;

static void leave(rig_t *rig, uint32_t place, leave_t how)
{
    static const uint8_t states[LEAVES] = {[LEAVE_DRAINING] = LBRL_BACKEND_DRAINING,
                                           [LEAVE_UNREADY] = LBRL_BACKEND_UNREADY,
                                           [LEAVE_UNWEIGHTED] = LBRL_BACKEND_ACTIVE};
    if (how == LEAVE_REMOVED) {
        remove_backend(rig, 2, place);
        return;
    }
    lbrl_backend_config_t changed[2] = {backends[0], backends[1]};
    changed[place].state = states[how];
    changed[place].weight = how == LEAVE_UNWEIGHTED ? 0 : changed[place].weight;
    CHECK_EQUAL(set(rig, 6, changed, 2), 0);
}

/* The client's SYN and its repetition reach a load balancer that is late, and the answer of the server goes out in between:
 * another server would reset the connection that the client has by then. */
static void a_repeated_syn_stays_with_the_server_that_answered(void)
{
    for (leave_t how = 0; how < LEAVES; how++) {
        for (int established = 0; established < 2; established++) {
            rig_t rig = rig_with(2);
            connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
            CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
            CHECK_EQUAL(connection_server(&c, SYN, 0), LBRL_VERDICT_FORWARD);
            if (established) {
                CHECK_EQUAL(connection_client(&c, 0, 0), LBRL_VERDICT_FORWARD);
            }
            leave(&rig, place_of(&c.backend), how);
            lbrl_address_t server = c.backend;
            connection_t again = c;
            again.client_next--;
            CHECK_EQUAL(connection_syn(&again), LBRL_VERDICT_FORWARD);
            CHECK(memcmp(&again.backend, &server, sizeof(server)) == 0);
            CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
            CHECK_EQUAL(connection_server(&c, PSH, 10), LBRL_VERDICT_FORWARD);
            rig_free(&rig);
        }
    }
}

/* Until a server has answered, a repeated SYN goes to one that takes new flows. */
static void a_repeated_syn_leaves_a_server_that_has_not_answered(void)
{
    for (leave_t how = 0; how < LEAVES; how++) {
        rig_t rig = rig_with(2);
        connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
        CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
        lbrl_address_t server = c.backend;
        leave(&rig, place_of(&server), how);
        c.client_next--;
        CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
        CHECK(memcmp(&c.backend, &server, sizeof(server)) != 0);
        rig_free(&rig);
    }
}

/* What keeps its flows without end: not ready, or of weight 0, by configuration or by a policy. */
static void unready_and_unweighted_backends_keep_their_flows_without_end(void)
{
    for (int how = 0; how < 3; how++) {
        rig_t rig = rig_with(2);
        connection_t c = open_from(&rig, 40000);
        uint32_t place = place_of(&c.backend);
        float weights[2] = {1, 1};
        weights[place] = 0;
        if (how == 0) {
            backends[place].state = LBRL_BACKEND_UNREADY;
        } else if (how == 1) {
            backends[place].weight = 0;
        } else {
            CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, weights, NULL, NULL, 2), 0);
        }
        CHECK_EQUAL(set(&rig, 6, backends, 2), 0);
        nobody_else_goes_to(&rig, &c.backend);
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < 4; i++) {
                rig_pass(&rig, DRAIN_MS);
                CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
                CHECK_EQUAL(connection_server(&c, PSH, 10), LBRL_VERDICT_FORWARD);
            }
            uint8_t state = rig_backend(&rig, 1, 1001u + place).state;
            CHECK_EQUAL(state, how == 0 ? LBRL_BACKEND_UNREADY : LBRL_BACKEND_ACTIVE);
            rig_restart(&rig);
            CHECK_EQUAL(rig.report.flows_dropped, 0);
        }
        rig_free(&rig);
    }
}

/* An arena says of an unready backend what releases without that state read as draining. */
static void unready_is_stored_as_a_state_that_keeps_flows(void)
{
    rig_t rig = rig_with(2);
    backends[0].state = LBRL_BACKEND_UNREADY;
    CHECK_EQUAL(set(&rig, 6, backends, 2), 0);
    lbrl_backend_config_t found[2];
    lbrl_vip_config_t config;
    rig_restart(&rig);
    CHECK_EQUAL(lbrl_vip_config(rig.lb, 1, &config, found, 2), 0);
    CHECK_EQUAL(found[0].state, LBRL_BACKEND_UNREADY);
    rig_free(&rig);
}

static void connection_of_a_removed_backend_goes_on_while_its_server_answers(void)
{
    rig_t rig = rig_with(2);
    connection_t c = open_from(&rig, 40000);
    remove_backend(&rig, 2, place_of(&c.backend));
    nobody_else_goes_to(&rig, &c.backend);
    for (int i = 0; i < 7; i++) { /* 7 s apart: longer than a silent server has */
        CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_server(&c, 0, 0), LBRL_VERDICT_FORWARD);
        rig_pass(&rig, 7000);
    }
    rig_pass(&rig, DRAIN_MS - 7 * 7000);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_REPLY); /* drain time is over */
    CHECK_EQUAL(look(&c.packet.p).flags, RST);
    rig_free(&rig);
}

static void connection_of_a_removed_backend_ends_when_its_server_is_silent(void)
{
    rig_t rig = rig_with(2);
    connection_t c = open_from(&rig, 40000);
    remove_backend(&rig, 2, place_of(&c.backend));
    CHECK_EQUAL(connection_client(&c, 0, 0), LBRL_VERDICT_FORWARD); /* wants no answer */
    rig_pass(&rig, 6000);
    const uint32_t sent = c.client_next;
    const uint32_t waits[] = {0, 200, 600, 1400, 2000};
    for (unsigned i = 0; i < 5; i++) { /* a client's retransmissions */
        rig_pass(&rig, waits[i]);
        c.client_next = sent;
        CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    }
    rig_pass(&rig, 1000);
    c.client_next = sent;
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(look(&c.packet.p).flags, RST);
    CHECK_EQUAL(c.packet.p.reason, LBRL_DROP_BACKEND_FAILED);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_FREE);
    rig_free(&rig);
}

/* What was noted while a backend was removed does not count when it is removed again. */
static void backend_that_came_back_is_not_silent_when_it_is_removed_again(void)
{
    rig_t rig = rig_with(2);
    connection_t c = open_from(&rig, 40000);
    for (int i = 0; i < 3; i++) {
        remove_backend(&rig, 2, place_of(&c.backend));
        CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(set(&rig, 6, backends, 2), 0);
        CHECK_EQUAL(connection_server(&c, 0, 0), LBRL_VERDICT_FORWARD);
        rig_pass(&rig, 20000);
    }
    rig_free(&rig);
}

static void udp_and_new_connections_leave_a_removed_backend_at_once(void)
{
    rig_t rig = rig_with(2);
    connection_t c = open_from(&rig, 40000);
    seen_t before, after;
    CHECK_EQUAL(datagram(&rig, &before), LBRL_VERDICT_FORWARD);
    remove_backend(&rig, 2, place_of(&before.dst));
    CHECK_EQUAL(datagram(&rig, &after), LBRL_VERDICT_FORWARD);
    CHECK(memcmp(&before.dst, &after.dst, 16) != 0);
    remove_backend(&rig, 2, place_of(&c.backend));
    connection_t again = connection_make(&rig, CLIENT, 40000, VIP);
    again.client_next = c.client_next + 100000;
    connection_open(&again); /* from the same port, over an established flow */
    CHECK(memcmp(&again.backend, &c.backend, 16) != 0);
    rig_free(&rig);
}

/* With nobody to move to, an old server is better than none. */
static void udp_stays_with_a_removed_backend_while_there_is_no_other(void)
{
    rig_t rig = rig_with(1);
    seen_t before, after;
    CHECK_EQUAL(datagram(&rig, &before), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(set(&rig, 17, backends, 0), 0);
    CHECK_EQUAL(datagram(&rig, &after), LBRL_VERDICT_FORWARD);
    CHECK(memcmp(&before.dst, &after.dst, 16) == 0);
    CHECK_EQUAL(before.sport, after.sport);
    rig_free(&rig);
}

/* Terminating: nothing moves, until the drain time has passed. */
static void terminating_backend_keeps_udp_and_tcp_until_its_time_is_over(void)
{
    rig_t rig = rig_with(1);
    rig_vip(1, VIP, 80, 6, backends, 2);
    connection_t c = open_from(&rig, 40000);
    seen_t before, after;
    CHECK_EQUAL(datagram(&rig, &before), LBRL_VERDICT_FORWARD);
    backends[0].state = LBRL_BACKEND_DRAINING;
    CHECK_EQUAL(set(&rig, 6, backends, 2), 0);
    CHECK_EQUAL(set(&rig, 17, backends, 2), 0);
    for (int i = 0; i < 6; i++) {
        rig_pass(&rig, DRAIN_MS / 7);
        CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD); /* never answered */
        CHECK_EQUAL(datagram(&rig, &after), LBRL_VERDICT_FORWARD);
        CHECK(memcmp(&before.dst, &after.dst, 16) == 0);
    }
    rig_pass(&rig, DRAIN_MS / 7 + 1000);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(datagram(&rig, &after), LBRL_VERDICT_FORWARD);
    CHECK(memcmp(&before.dst, &after.dst, 16) != 0);
    rig_free(&rig);
}

/* The drain time of a backend begins when it terminates, not again when it is removed. */
static void removal_does_not_begin_a_drain_anew(void)
{
    rig_t rig = rig_with(2);
    connection_t c = open_from(&rig, 40000);
    uint32_t place = place_of(&c.backend);
    backends[place].state = LBRL_BACKEND_DRAINING;
    CHECK_EQUAL(set(&rig, 6, backends, 2), 0);
    rig_pass(&rig, DRAIN_MS / 2);
    remove_backend(&rig, 2, place);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_server(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    rig_pass(&rig, DRAIN_MS / 2 + 1000);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_REPLY);
    rig_free(&rig);
}

/* A pod's new UID at the same address and port: its flows are with the server that they were with. */
static void another_id_at_the_same_address_is_the_same_server(void)
{
    rig_t rig = rig_with(2);
    connection_t c = open_from(&rig, 40000);
    seen_t before, after;
    CHECK_EQUAL(datagram(&rig, &before), LBRL_VERDICT_FORWARD);
    uint64_t next_id = 9000;
    for (int round = 0; round < 4; round++) {
        backends[0].id = next_id++;
        backends[1].id = next_id++;
        CHECK_EQUAL(set(&rig, 6, backends, 2), 0);
        CHECK_EQUAL(set(&rig, 17, backends, 2), 0);
        for (int i = 0; i < 9;
             i++) { /* each longer than a silent server has, together than a drain */
            rig_pass(&rig, 9000);
            CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
            CHECK_EQUAL(datagram(&rig, &after), LBRL_VERDICT_FORWARD);
            CHECK(memcmp(&before.dst, &after.dst, 16) == 0);
            CHECK_EQUAL(before.sport, after.sport);
        }
        rig_restart(&rig);
        CHECK_EQUAL(rig.report.flows_dropped, 0);
    }
    uint32_t place = place_of(&c.backend);
    backends[place].state =
        LBRL_BACKEND_FAILED; /* what is true of the server is true of its old flows */
    CHECK_EQUAL(set(&rig, 6, backends, 2), 0);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_REPLY);
    rig_free(&rig);
}

static void another_id_at_another_port_is_another_server(void)
{
    rig_t rig = rig_with(1);
    connection_t c = open_from(&rig, 40000);
    backends[0].id = 9000;
    backends[0].port = 8081;
    CHECK_EQUAL(set(&rig, 6, backends, 1), 0);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    rig_pass(&rig, 6000);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_REPLY); /* gone, and silent */
    rig_free(&rig);
}

int main(void)
{
    a_repeated_syn_stays_with_the_server_that_answered();
    a_repeated_syn_leaves_a_server_that_has_not_answered();
    unready_and_unweighted_backends_keep_their_flows_without_end();
    unready_is_stored_as_a_state_that_keeps_flows();
    connection_of_a_removed_backend_goes_on_while_its_server_answers();
    connection_of_a_removed_backend_ends_when_its_server_is_silent();
    backend_that_came_back_is_not_silent_when_it_is_removed_again();
    udp_and_new_connections_leave_a_removed_backend_at_once();
    udp_stays_with_a_removed_backend_while_there_is_no_other();
    terminating_backend_keeps_udp_and_tcp_until_its_time_is_over();
    removal_does_not_begin_a_drain_anew();
    another_id_at_the_same_address_is_the_same_server();
    another_id_at_another_port_is_another_server();
    return 0;
}
