/* NAT ports: shared between backends, returned in order, resting after the server closed, and safe from floods. `test_ports
 * PARTS` has connections closed by their servers at PARTS eighths of 5,000 a second: 8 unless it says otherwise. */
#include "crowd.h"

static const char *const CLIENT = "198.51.100.7";
static const char *const VIP = "203.0.113.10";

/* A rig whose NAT source has `per_partition` ports in each partition, and one VIP of `backends` backends. */
static rig_t rig_of_ports(uint16_t per_partition, uint32_t backends)
{
    rig_t rig = rig_sized(16384, 1);
    lbrl_nat_source_t source = {address_of("192.0.2.1"), 16384,
                                (uint16_t)(16384 + 64 * per_partition - 1)};
    CHECK_EQUAL(lbrl_sources_set(rig.lb, &source, 1), 0);
    rig_set_standard_vips(&rig, backends);
    return rig;
}

/* Opens connections from one client address until one finds no port in its partition; returns those that are open. */
static uint32_t open_until_no_port(rig_t *rig, uint16_t first, connection_t *connections,
                                   uint32_t max)
{
    for (uint32_t i = 0; i < max; i++) {
        connections[i] = connection_make(rig, CLIENT, (uint16_t)(first + i), VIP);
        lbrl_verdict_t verdict = connection_syn(&connections[i]);
        if (verdict != LBRL_VERDICT_FORWARD) {
            CHECK_EQUAL(connections[i].packet.p.reason, LBRL_DROP_NO_NAT_PORT);
            return i;
        }
        connection_server(&connections[i], SYN, 0);
        connection_client(&connections[i], 0, 0);
    }
    return max;
}

static void ports_are_used_again_towards_other_backends(void)
{
    enum { MAX = 4000 };
    static connection_t connections[MAX];
    rig_t rig = rig_of_ports(4, 8); /* 256 ports */
    uint32_t held = open_until_no_port(&rig, 20000, connections, MAX);
    CHECK(held > 256); /* more than there are ports: 8 backends share each */
    for (uint32_t i = 0; i < held; i++) {
        for (uint32_t j = 0; j < i; j++) {
            CHECK(connections[i].nat_port != connections[j].nat_port ||
                  memcmp(&connections[i].backend, &connections[j].backend, 16) != 0);
        }
        CHECK_EQUAL(connection_server(&connections[i], PSH, 10), LBRL_VERDICT_FORWARD);
    }
    CHECK_EQUAL(rig_dropped(&rig, LBRL_DROP_NO_NAT_PORT), 1);
    rig_free(&rig);
}

/* Addresses x ports x backends. Clients whose partition has no port left towards the backend that is their turn come
 * back, as clients do. */
static void capacity_is_addresses_times_ports_times_backends(uint8_t scheduler)
{
    enum { PORTS = 256, BACKENDS = 8, CAPACITY = 2 * PORTS * BACKENDS };
    rig_t rig = rig_sized(16384, 1);
    const lbrl_nat_source_t sources[2] = {{address_of("192.0.2.1"), 16384, 16384 + PORTS - 1},
                                          {address_of("192.0.2.2"), 30016, 30016 + PORTS - 1}};
    CHECK_EQUAL(lbrl_sources_set(rig.lb, sources, 2), 0);
    lbrl_backend_config_t backends[BACKENDS];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, BACKENDS);
    config.scheduler = scheduler;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    uint32_t held = 0, of_second = 0, tries = 0;
    for (; held < CAPACITY && tries < 16 * CAPACITY; tries++) {
        char client[24];
        snprintf(client, sizeof(client), "100.64.%u.%u", tries / 250, 1 + tries % 250);
        connection_t c = connection_make(&rig, client, 40000, VIP);
        if (connection_syn(&c) == LBRL_VERDICT_FORWARD) {
            connection_server(&c, SYN, 0);
            connection_client(&c, 0, 0);
            of_second += is_address(&c.source, "192.0.2.2");
            held++;
        }
    }
    CHECK_EQUAL(held, CAPACITY);
    CHECK_EQUAL(of_second, CAPACITY / 2);
    CHECK_EQUAL(rig_dropped(&rig, LBRL_DROP_NO_NAT_PORT), tries - held);
    /* and not one more */
    for (uint16_t i = 0; i < 500; i++) {
        connection_t c = connection_make(&rig, CLIENT, (uint16_t)(20000 + i), VIP);
        CHECK(connection_syn(&c) != LBRL_VERDICT_FORWARD);
    }
    rig_free(&rig);
}

/* RFC 5508, REQ-8: where no port is left a client is told so, where ports rest it may find one with its next SYN. */
static void client_without_a_port_is_told_so(void)
{
    for (int udp = 0; udp < 2; udp++) {
        rig_t rig = rig_make(1, 1);
        const lbrl_nat_source_t source = {address_of("192.0.2.1"), 16384, 16384 + 63};
        lbrl_backend_config_t backend;
        lbrl_vip_config_t config = rig_vip(9, VIP, 90, udp ? 17 : 6, &backend, 1);
        test_packet_t p;
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
        lbrl_verdict_t verdict = LBRL_VERDICT_FORWARD;
        CHECK_EQUAL(lbrl_sources_set(rig.lb, &source, 1), 0);
        rig_pass(&rig, 200);
        for (uint16_t port = 1; port < 1000 && verdict == LBRL_VERDICT_FORWARD; port++) {
            if (udp) {
                make_udp(&p, CLIENT, port, VIP, 90, 20);
                verdict = rig_send(&rig, &p);
                seen_t seen = look(&p.p);
                if (verdict == LBRL_VERDICT_FORWARD) {
                    make_udp(&p, text_of(&seen.dst), 8080, text_of(&seen.src), seen.sport, 9);
                    CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
                }
            } else {
                connection_t c = connection_make(&rig, CLIENT, port, VIP);
                c.vip_port = 90;
                verdict = connection_syn(&c);
                if (verdict == LBRL_VERDICT_FORWARD) {
                    connection_server(&c, SYN, 0);
                    connection_client(&c, 0, 0);
                }
                p = c.packet;
                p.p.data = p.room + (c.packet.p.data - c.packet.room);
            }
        }
        CHECK_EQUAL(verdict, LBRL_VERDICT_REPLY);
        CHECK_EQUAL(p.p.reason, LBRL_DROP_NO_NAT_PORT);
        seen_t seen = look(&p.p);
        CHECK(is_address(&seen.dst, CLIENT));
        CHECK_EQUAL(p.p.data[seen.transport], 3);
        CHECK_EQUAL(p.p.data[seen.transport + 1], 13);
        rig_free(&rig);
    }
}

static void vips_with_the_same_backend_share_its_ports(void)
{
    rig_t rig = rig_of_ports(32, 1);
    lbrl_backend_config_t backends[1];
    lbrl_vip_config_t config = rig_vip(9, "203.0.113.11", 80, 6, backends, 1);
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    connection_t c[200];
    for (uint16_t i = 0; i < 200; i++) {
        c[i] = connection_make(&rig, CLIENT, (uint16_t)(30000 + i), i % 2 ? VIP : "203.0.113.11");
        connection_open(&c[i]);
        for (uint16_t j = 0; j < i; j++) {
            CHECK(c[i].nat_port != c[j].nat_port);
        }
    }
    for (uint16_t i = 0; i < 200; i++) {
        CHECK_EQUAL(connection_server(&c[i], PSH, 10),
                    LBRL_VERDICT_FORWARD); /* from the right VIP: it is checked */
    }
    rig_free(&rig);
}

static void a_port_returns_last_in_the_queue(void)
{
    rig_t rig = rig_of_ports(8, 1);
    uint16_t order[400];
    uint8_t partition = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; n < 40; i++) {
        connection_t c = connection_make(&rig, CLIENT, (uint16_t)(20000 + i), VIP);
        connection_open(&c);
        if (n == 0) {
            partition = c.nat_port & 63;
        }
        if ((c.nat_port & 63) == partition) {
            order[n++] = c.nat_port;
        }
        connection_client(&c, FIN, 0); /* the client closes first: no quarantine */
        connection_server(&c, FIN, 0);
        connection_client(&c, 0, 0);
        rig_pass(&rig, 12000);
        CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_FREE);
    }
    for (uint32_t i = 8; i < n; i++) {
        CHECK_EQUAL(order[i], order[i - 8]); /* all 8 in turn */
    }
    rig_free(&rig);
}

/* A SYN with timestamps; on success fills the connection. */
static lbrl_verdict_t syn_with_timestamp(connection_t *c, uint32_t timestamp, uint32_t sequence)
{
    uint8_t options[12] = {1,
                           1,
                           8,
                           10,
                           (uint8_t)(timestamp >> 24),
                           (uint8_t)(timestamp >> 16),
                           (uint8_t)(timestamp >> 8),
                           (uint8_t)timestamp};
    tcp_fields_t tcp = {.sequence = sequence, .flags = SYN, .options = options, .options_size = 12};
    make_tcp(&c->packet, c->client, c->client_port, c->vip, 80, &tcp, 0);
    lbrl_verdict_t verdict = rig_send(c->rig, &c->packet);
    if (verdict == LBRL_VERDICT_FORWARD) {
        seen_t seen = look(&c->packet.p);
        c->nat_port = seen.sport;
        c->source = seen.src;
        c->backend = seen.dst;
        c->backend_port = seen.dport;
        c->client_next = sequence + 1;
    }
    return verdict;
}

/* A client's FIN that carries a timestamp. */
static void fin_with_timestamp(connection_t *c, uint32_t timestamp)
{
    uint8_t options[12] = {1,
                           1,
                           8,
                           10,
                           (uint8_t)(timestamp >> 24),
                           (uint8_t)(timestamp >> 16),
                           (uint8_t)(timestamp >> 8),
                           (uint8_t)timestamp};
    tcp_fields_t tcp = {.sequence = c->client_next,
                        .ack = c->server_next,
                        .flags = FIN | ACK,
                        .options = options,
                        .options_size = 12};
    make_tcp(&c->packet, c->client, c->client_port, c->vip, 80, &tcp, 0);
    CHECK_EQUAL(rig_send(c->rig, &c->packet), LBRL_VERDICT_FORWARD);
    c->client_next++;
}

/* One partition alone: client ports whose flows fall into it. */
static uint32_t ports_of_partition(rig_t *rig, uint8_t partition, uint16_t *ports, uint32_t max)
{
    uint32_t n = 0;
    for (uint32_t port = 1024; port < 65000 && n < max; port++) {
        connection_t c = connection_make(rig, CLIENT, (uint16_t)port, "203.0.113.20");
        if (connection_syn(&c) == LBRL_VERDICT_FORWARD && (c.nat_port & 63) == partition) {
            ports[n++] = (uint16_t)port;
        }
        connection_server(&c, RST, 0);
        if (port % 64 == 0) {
            rig_pass(rig, 11000);
        }
    }
    rig_pass(rig, 12000);
    return n;
}

static void port_rests_where_both_closed_at_once(void)
{
    rig_t rig = rig_of_ports(8, 1);
    for (int at_once = 0; at_once < 2; at_once++) {
        connection_t c = connection_make(&rig, CLIENT, (uint16_t)(30000 + at_once), VIP);
        connection_open(&c);
        connection_client(&c, FIN, 0);
        c.client_next -= (uint32_t)at_once; /* the server has not heard of it */
        connection_server(&c, FIN, 0);
        c.client_next += (uint32_t)at_once;
        connection_client(&c, 0, 0);
        rig_pass(&rig, 20000); /* beyond tcp_closing */
        CHECK_EQUAL(connection_flow(&c).state, at_once ? LBRL_FLOW_CLOSING : LBRL_FLOW_FREE);
        rig_pass(&rig, 43000); /* 60 s after the close */
        CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_FREE);
    }
    rig_free(&rig);
}

/* More resting ports than a new flow looks at, and free ones behind them. */
static void free_port_behind_resting_ones_is_found(void)
{
    enum { PORTS = 80, RESTING = 70 };
    rig_t rig = rig_of_ports(PORTS, 1);
    lbrl_backend_config_t backends[1];
    lbrl_vip_config_t config = rig_vip(9, "203.0.113.20", 80, 6, backends, 1);
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    uint16_t ports[PORTS + 1];
    CHECK_EQUAL(ports_of_partition(&rig, 17, ports, PORTS + 1), PORTS + 1);
    connection_t c[PORTS + 1];
    for (int i = 0; i <= PORTS; i++) {
        c[i] = connection_make(&rig, CLIENT, ports[i], "203.0.113.20");
    }
    for (int i = 0; i < PORTS; i++) {
        connection_open(&c[i]);
    }
    for (int i = 0; i < PORTS; i++) {
        if (i < RESTING) {
            connection_server(&c[i], FIN, 0);
        }
        connection_client(&c[i], FIN, 0);
        connection_server(&c[i], i < RESTING ? 0 : FIN, 0);
    }
    rig_pass(&rig, 12000);
    CHECK_EQUAL(connection_syn(&c[PORTS]), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(rig_dropped(&rig, LBRL_DROP_NO_NAT_PORT), 0);
    rig_free(&rig);
}

/* The client never answers the server's FIN. */
static void port_rests_where_only_the_server_closed(void)
{
    rig_t rig = rig_of_ports(8, 1);
    connection_t c = connection_make(&rig, CLIENT, 30000, VIP);
    connection_open(&c);
    connection_server(&c, FIN, 0);
    rig_pass(&rig, 118000); /* Linux has it in FIN-WAIT-2 for 60 s of these */
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
    rig_pass(&rig, 4000);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_FREE);
    rig_free(&rig);
}

/* The client that had it opens again within the minute, and gets another one. */
static void port_rests_whatever_its_client_does(void)
{
    for (int both = 0; both < 2; both++) {
        rig_t rig = rig_of_ports(2, 1);
        connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
        connection_open(&c);
        connection_server(&c, FIN, 0);
        if (both) {
            connection_client(&c, FIN, 0);
        }
        const connection_t closed = c;
        rig_pass(&rig, 1000);
        c.client_next = 1;
        connection_open(&c);
        CHECK(c.nat_port != closed.nat_port);
        connection_t late = closed; /* the server repeats its FIN: nobody's */
        late.server_next--;
        CHECK_EQUAL(connection_server(&late, FIN, 0), LBRL_VERDICT_REPLY);
        CHECK_EQUAL(late.packet.p.reason, LBRL_DROP_NO_FLOW_RETURN);
        rig_restart(&rig);
        CHECK_EQUAL(rig.report.flows, 2);
        CHECK_EQUAL(rig.report.flows_dropped, 0);
        CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_server(&c, PSH, 10), LBRL_VERDICT_FORWARD);
        for (uint16_t round = 0; round < 2; round++) {
            for (uint16_t port = 1024; port < 3024; port++) { /* finds it once it has rested */
                connection_t other = connection_make(&rig, "198.51.100.8", port, VIP);
                if (connection_syn(&other) == LBRL_VERDICT_FORWARD &&
                    other.nat_port == closed.nat_port) {
                    CHECK_EQUAL(round, 1);
                    round = 2;
                    break;
                }
            }
            CHECK(round != 1);
            rig_pass(&rig, 62000);
        }
        rig_free(&rig);
    }
}

/* Clients that have closed and servers that do not: new connections go before them. */
static void half_closed_connections_give_their_ports_up_where_there_are_no_others(void)
{
    rig_t rig = rig_of_ports(4, 1);
    for (uint32_t i = 0; i < 2000; i++) {
        connection_t c = connection_make(&rig, CLIENT, (uint16_t)(20000 + i), VIP);
        connection_open(&c);
        connection_client(&c, FIN, 0);
        connection_server(&c, 0, 0);
    }
    CHECK_EQUAL(rig_dropped(&rig, LBRL_DROP_NO_NAT_PORT), 0);
    rig_free(&rig);
}

static void resting_port_wakes_for_a_later_syn_or_after_its_time(void)
{
    rig_t rig = rig_of_ports(2, 1);
    lbrl_backend_config_t backends[1];
    lbrl_vip_config_t config = rig_vip(9, "203.0.113.20", 80, 6, backends, 1);
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    uint16_t ports[6];
    CHECK_EQUAL(ports_of_partition(&rig, 17, ports, 6), 6);
    connection_t c[6];
    for (int i = 0; i < 6; i++) {
        c[i] = connection_make(&rig, CLIENT, ports[i], "203.0.113.20");
    }
    for (int i = 0; i < 2; i++) { /* both ports of the partition come to rest */
        CHECK_EQUAL(syn_with_timestamp(&c[i], 1000, 5000000), LBRL_VERDICT_FORWARD);
        connection_server(&c[i], SYN, 0);
        connection_client(&c[i], 0, 0);
        connection_server(&c[i], FIN, 0);
        fin_with_timestamp(&c[i], 2000);
        connection_server(&c[i], 0, 0);
    }
    rig_pass(&rig, 20000); /* beyond tcp_closing: only quarantine keeps them */
    CHECK_EQUAL(connection_flow(&c[0]).state, LBRL_FLOW_CLOSING);
    CHECK_EQUAL(syn_with_timestamp(&c[2], 1500, 9000000),
                LBRL_VERDICT_DROP); /* timestamp is earlier */
    CHECK_EQUAL(c[2].packet.p.reason, LBRL_DROP_NO_NAT_PORT);
    CHECK_EQUAL(syn_with_timestamp(&c[2], 2500, 4000000),
                LBRL_VERDICT_DROP);                        /* sequence is earlier */
    CHECK_EQUAL(connection_syn(&c[2]), LBRL_VERDICT_DROP); /* says nothing of time */
    CHECK_EQUAL(syn_with_timestamp(&c[2], 2500, 9000000), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(c[2].nat_port, c[0].nat_port); /* the one that has rested longest */
    CHECK_EQUAL(connection_flow(&c[0]).state, LBRL_FLOW_FREE);
    connection_server(&c[2], SYN, 0);
    connection_client(&c[2], 0, 0);
    CHECK_EQUAL(connection_syn(&c[3]), LBRL_VERDICT_DROP);
    rig_pass(&rig, 43000); /* 60 s after the close */
    CHECK_EQUAL(connection_syn(&c[3]), LBRL_VERDICT_FORWARD);
    rig_free(&rig);
}

/* A client takes a port again whose connection its server has closed, while the NAT port of that rests: it is a new
 * connection, from another NAT port, for the server may still be in TIME-WAIT for the one before. */
static void client_may_reuse_its_port_while_the_nat_port_rests(void)
{
    static const char *const clients[2] = {"198.51.100.7", "5:7"};
    static const char *const vips[2] = {"203.0.113.10", "1:10"};
    rig_t rig = rig_make(1, 1);
    for (int v6 = 0; v6 < 2; v6++) {
        connection_t c = connection_make(&rig, clients[v6], 40000, vips[v6]);
        connection_open(&c);
        connection_server(&c, FIN, 0);
        connection_client(&c, FIN, 0);
        connection_server(&c, 0, 0);
        CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_CLOSING);
        for (int again = 0; again < 3; again++) {
            rig_pass(&rig, 15000); /* beyond tcp_closing, within the rest of all of them */
            connection_t next = connection_make(&rig, clients[v6], 40000, vips[v6]);
            next.client_next = c.client_next + 100000;
            connection_open(&next);
            CHECK(next.nat_port != c.nat_port);
            CHECK_EQUAL(connection_client(&next, PSH, 100), LBRL_VERDICT_FORWARD);
            CHECK_EQUAL(connection_server(&next, PSH, 900), LBRL_VERDICT_FORWARD);
            /* what the server of before still sends is nobody's */
            CHECK_EQUAL(connection_server(&c, 0, 0), LBRL_VERDICT_REPLY);
            CHECK_EQUAL(c.packet.p.reason, LBRL_DROP_NO_FLOW_RETURN);
            CHECK_EQUAL(connection_flow(&next).state, LBRL_FLOW_ESTABLISHED);
            connection_server(&next, FIN, 0);
            connection_client(&next, FIN, 0);
            connection_server(&next, 0, 0);
            c = next;
        }
    }
    rig_free(&rig);
}

static void flood_of_syns_leaves_established_flows_alone(void)
{
    rig_t rig = rig_make(1, 4);
    connection_t c[64];
    for (uint16_t i = 0; i < 64; i++) {
        c[i] = connection_make(&rig, CLIENT, (uint16_t)(40000 + i), VIP);
        connection_open(&c[i]);
    }
    for (uint32_t i = 0; i < 30000; i++) {
        char client[24];
        snprintf(client, sizeof(client), "100.64.%u.%u", i / 250 % 250, i % 250 + 1);
        connection_t flood = connection_make(&rig, client, (uint16_t)(1024 + i), VIP);
        connection_syn(&flood);
    }
    lbrl_stats_t stats;
    lbrl_stats(rig.lb, &stats);
    CHECK(stats.half_open <= 4096 / 4);
    CHECK(stats.flows_recycled > 20000);
    for (uint16_t i = 0; i < 64; i++) {
        CHECK_EQUAL(connection_client(&c[i], PSH, 10), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_server(&c[i], PSH, 10), LBRL_VERDICT_FORWARD);
    }
    connection_t newcomer = connection_make(&rig, CLIENT, 50000, VIP);
    connection_open(&newcomer);
    CHECK_EQUAL(connection_flow(&newcomer).state, LBRL_FLOW_ESTABLISHED);
    rig_pass(&rig, 12000);
    lbrl_stats(rig.lb, &stats);
    CHECK_EQUAL(stats.half_open, 0);
    CHECK_EQUAL(stats.flows, 65);
    rig_free(&rig);
}

static void half_open_flows_cannot_hold_all_ports_of_a_backend(void)
{
    rig_t rig = rig_of_ports(16, 1);
    for (uint32_t i = 0; i < 20000; i++) {
        connection_t flood = connection_make(&rig, CLIENT, (uint16_t)(1024 + i), VIP);
        CHECK_EQUAL(connection_syn(&flood),
                    LBRL_VERDICT_FORWARD); /* oldest recycled first, never refused */
    }
    lbrl_stats_t stats;
    lbrl_stats(rig.lb, &stats);
    CHECK(stats.half_open <= 64 * (16 / 2 + 1));
    rig_free(&rig);
}

static void full_table_recycles_closed_flows_then_refuses(void)
{
    rig_t rig = rig_make(1, 4);
    uint32_t refused = 0;
    static connection_t c[5000];
    for (uint32_t i = 0; i < 5000; i++) {
        c[i] = connection_make(&rig, CLIENT, (uint16_t)(1024 + i), VIP);
        lbrl_verdict_t verdict = connection_syn(&c[i]);
        if (verdict == LBRL_VERDICT_FORWARD) {
            connection_server(&c[i], SYN, 0);
            connection_client(&c[i], 0, 0);
            continue;
        }
        CHECK_EQUAL(c[i].packet.p.reason, LBRL_DROP_TABLE_FULL);
        if (refused++ == 0) { /* RFC 5508, REQ-8 */
            CHECK_EQUAL(verdict, LBRL_VERDICT_REPLY);
            const uint8_t *icmp = c[i].packet.p.data + look(&c[i].packet.p).transport;
            CHECK(icmp[0] == 3 && icmp[1] == 13);
        }
    }
    CHECK(refused > 500 && refused < 1500);
    CHECK_EQUAL(rig_dropped(&rig, LBRL_DROP_TABLE_FULL), refused);
    for (uint32_t i = 0; i < 100; i++) {
        connection_client(&c[i], FIN, 0);
        connection_server(&c[i], FIN, 0);
    }
    uint32_t admitted = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        connection_t more = connection_make(&rig, CLIENT, (uint16_t)(20000 + i), VIP);
        if (connection_syn(&more) == LBRL_VERDICT_FORWARD) {
            connection_server(&more, SYN, 0);
            connection_client(&more, 0, 0);
            admitted++;
        }
    }
    CHECK(admitted >= 90); /* the places of flows that had closed, and those that were free */
    rig_free(&rig);
}

/* 5,000 connections a second, each closed by its server, through 32 backends, or a part of both: ports rest for a minute,
 * and yet none of the connections has to wait for one. */
static void servers_that_close_first_stall_nobody(uint32_t parts)
{
    enum { PARTS = 8, RATE = 5000, SECONDS = 70, STEPS = 20 };
    const uint32_t each = RATE * parts / PARTS / STEPS; /* new ones per step */
    const crowd_plan_t plan = {524288 / PARTS * parts, each, 1, 32 / PARTS * parts,
                               LBRL_LEVEL_BASIC};
    crowd_t *c = crowd_make(&plan);
    uint64_t most = 0;
    for (uint32_t i = 0; i < SECONDS * STEPS; i++) {
        crowd_move(c, i);
        for (uint32_t first = 0; first < each; first += VECTOR) {
            const uint32_t n = each - first < VECTOR ? each - first : VECTOR;
            crowd_syn(c, first, n); /* fails the test where one is not forwarded */
            crowd_step(c, first, n, false, SYN | ACK);
            crowd_step(c, first, n, true, ACK);
            crowd_step(c, first, n, false, FIN | ACK);
            crowd_step(c, first, n, true, FIN | ACK);
            crowd_step(c, first, n, false, ACK);
        }
        crowd_tick(c, 1000000 / STEPS);
        lbrl_stats_t stats;
        lbrl_stats(c->lb, &stats);
        most = stats.flows > most ? stats.flows : most;
    }
    CHECK(most > (uint64_t)RATE * parts / PARTS * 55); /* they did rest */
    crowd_free(c);
}

int main(int argc, char **argv)
{
    servers_that_close_first_stall_nobody(argc > 1 ? (uint32_t)atoi(argv[1]) : 8);
    ports_are_used_again_towards_other_backends();
    capacity_is_addresses_times_ports_times_backends(LBRL_SCHEDULER_LSQ);
    capacity_is_addresses_times_ports_times_backends(LBRL_SCHEDULER_ALIAS);
    client_without_a_port_is_told_so();
    vips_with_the_same_backend_share_its_ports();
    a_port_returns_last_in_the_queue();
    port_rests_where_both_closed_at_once();
    free_port_behind_resting_ones_is_found();
    port_rests_where_only_the_server_closed();
    port_rests_whatever_its_client_does();
    half_closed_connections_give_their_ports_up_where_there_are_no_others();
    resting_port_wakes_for_a_later_syn_or_after_its_time();
    client_may_reuse_its_port_while_the_nat_port_rests();
    flood_of_syns_leaves_established_flows_alone();
    half_open_flows_cannot_hold_all_ports_of_a_backend();
    full_table_recycles_closed_flows_then_refuses();
    return 0;
}
