/* Connections without packets: the core records of them, bit by bit, what it records of the same packets. */
#include "lbrl/connection.h"

#include "rig.h"

static const char *const VIP = "203.0.113.10";

enum { CONNECTIONS = 200, BACKENDS = 8, MOST_SEGMENTS = 12 };

/* One load balancer whose VIP has frames. */
typedef struct balancer {
    rig_t rig;
    rig_frames_t frames;
} balancer_t;

/* Random numbers that both sides draw alike. */
static uint32_t draw(uint64_t *state, uint32_t below)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % below);
}

static void make(balancer_t *t, lbrl_level_t level, uint8_t forwarding, uint8_t load)
{
    lbrl_backend_config_t backends[BACKENDS];
    t->rig = rig_sized(4096, 1);
    rig_set_sources(&t->rig);
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, BACKENDS);
    config.feature_level = (uint8_t)level;
    config.forwarding = forwarding;
    config.scheduler = LBRL_SCHEDULER_SED;
    config.load = load;
    CHECK_EQUAL(lbrl_vip_set(t->rig.lb, &config, t->rig.now_us), 0);
    rig_bind_frames(&t->rig, &t->frames, 1);
}

static void release(balancer_t *t)
{
    rig_free(&t->rig);
    free(t->frames.memory);
}

/* ------------------------------------------------------------------------------- the same by packets */

typedef struct wire {
    connection_t tuple; /* of a two-way flow */
    uint32_t client_next, server_next;
    uint16_t port;
} wire_t;

static const uint8_t SYN_OPTIONS[8] = {2, 4, 5, 180, 3, 3, 7, 1};

static void client_text(char *text, size_t size, uint32_t number)
{
    snprintf(text, size, "198.51.%u.%u", 100 + number / 200, 1 + number % 200);
}

/* Unlike rig_send() at the time that it is. */
static lbrl_verdict_t process(const balancer_t *t, test_packet_t *packet)
{
    lbrl_process(lbrl_worker(t->rig.lb, 0), &packet->p, 1, t->rig.now_us);
    return (lbrl_verdict_t)packet->p.verdict;
}

static bool send_by_wire(balancer_t *t, wire_t *w, uint32_t number, const lbrl_segment_t *segment,
                         bool one_way)
{
    char client[24];
    client_text(client, sizeof(client), number);
    const bool syn = (segment->flags & SYN) != 0;
    const bool up = segment->from_client != 0;
    tcp_fields_t tcp = {.sequence = up ? w->client_next : w->server_next,
                        .ack = up ? w->server_next : w->client_next,
                        .window = syn ? 64240 : 502,
                        .flags = segment->flags,
                        .options = SYN_OPTIONS,
                        .options_size = syn ? sizeof(SYN_OPTIONS) : 0};
    lbrl_verdict_t verdict = LBRL_VERDICT_FORWARD;
    test_packet_t packet;
    if (up) {
        make_tcp(&packet, client, w->port, VIP, 80, &tcp, segment->payload);
        verdict = process(t, &packet);
        if (!one_way && syn && verdict == LBRL_VERDICT_FORWARD) {
            seen_t seen = look(&packet.p);
            w->tuple.backend = seen.dst;
            w->tuple.backend_port = seen.dport;
            w->tuple.source = seen.src;
            w->tuple.nat_port = seen.sport;
        }
        w->client_next += segment->payload + ((segment->flags & (SYN | FIN)) != 0);
    } else {
        if (!one_way) { /* else it does not pass here */
            make_tcp(&packet, text_of(&w->tuple.backend), w->tuple.backend_port,
                     text_of(&w->tuple.source), w->tuple.nat_port, &tcp, segment->payload);
            verdict = process(t, &packet);
        }
        w->server_next += segment->payload + ((segment->flags & (SYN | FIN)) != 0);
    }
    return verdict == LBRL_VERDICT_FORWARD;
}

/* ------------------------------------------------------------------------------- scripts */

static const lbrl_segment_t HANDSHAKE[] = {{0, 0, SYN | ACK}, {0, 1, ACK}};
static const lbrl_segment_t END[] = {{0, 1, FIN | ACK}, {0, 0, FIN | ACK}, {0, 1, ACK}};
static const lbrl_segment_t RESET[] = {{0, 0, RST | ACK}};

typedef struct live {
    wire_t wire;
    lbrl_connection_t connection;
    uint32_t number;
    bool open;
} live_t;

/* Both sides get the same segments at the same time. */
static void exchange(balancer_t *packets, balancer_t *direct, live_t *live,
                     const lbrl_segment_t *segments, uint32_t count, bool one_way)
{
    uint32_t by_wire = 0;
    while (by_wire < count &&
           send_by_wire(packets, &live->wire, live->number, &segments[by_wire], one_way)) {
        by_wire++;
    }
    const uint32_t without = lbrl_connection_exchange(
        lbrl_worker(direct->rig.lb, 0), &live->connection, segments, count, direct->rig.now_us);
    CHECK_EQUAL(without, by_wire);
}

static void begin(balancer_t *packets, balancer_t *direct, live_t *live, uint32_t number,
                  bool one_way)
{
    char client[24];
    static const lbrl_segment_t syn = {0, 1, SYN};
    client_text(client, sizeof(client), number);
    *live = (live_t){.number = number, .open = true};
    live->wire.port = (uint16_t)(1024 + number);
    live->wire.client_next = 7 * number;
    live->wire.server_next = 11 * number;
    lbrl_connection_tuple_t tuple = {address_of(VIP), address_of(client), 80, live->wire.port};
    CHECK(send_by_wire(packets, &live->wire, number, &syn, one_way));
    CHECK_EQUAL(lbrl_connection_open(lbrl_worker(direct->rig.lb, 0), &tuple, direct->rig.now_us,
                                     &live->connection),
                LBRL_DROP_NONE);
}

static void talk(balancer_t *packets, balancer_t *direct, live_t *live, uint64_t *random,
                 bool one_way)
{
    lbrl_segment_t segments[MOST_SEGMENTS];
    uint32_t n = 0;
    segments[n++] = (lbrl_segment_t){1 + draw(random, 1000), 1, PSH | ACK};
    for (uint32_t left = 1 + draw(random, 3); left > 0; left--) {
        const uint8_t flags = left == 1 ? PSH | ACK : ACK;
        segments[n++] = (lbrl_segment_t){left == 1 ? 1 + draw(random, 1400) : 1448, 0, flags};
    }
    segments[n++] = (lbrl_segment_t){0, 1, ACK};
    exchange(packets, direct, live, segments, n, one_way);
}

static void pass(balancer_t *t, uint64_t microseconds)
{
    t->rig.now_us += microseconds;
    lbrl_worker_tick(lbrl_worker(t->rig.lb, 0), t->rig.now_us);
}

static void compare(balancer_t *a, balancer_t *b)
{
    lbrl_publish(a->rig.lb, a->rig.now_us);
    lbrl_publish(b->rig.lb, b->rig.now_us);
    CHECK_EQUAL(a->frames.size, b->frames.size);
    CHECK(memcmp(a->frames.memory, b->frames.memory, a->frames.size) == 0);
    lbrl_flow_info_t of_a, of_b;
    uint64_t at_a = 0, at_b = 0;
    while (lbrl_flow_next(a->rig.lb, &at_a, a->rig.now_us, &of_a)) {
        CHECK(lbrl_flow_next(b->rig.lb, &at_b, b->rig.now_us, &of_b));
        CHECK(memcmp(&of_a.client, &of_b.client, sizeof(of_a.client)) == 0);
        CHECK_EQUAL(of_a.slot, of_b.slot);
        CHECK_EQUAL(of_a.state, of_b.state);
        CHECK_EQUAL(of_a.nat_port, of_b.nat_port);
        CHECK_EQUAL(of_a.idle_ms, of_b.idle_ms);
        CHECK_EQUAL(of_a.open, of_b.open);
    }
    CHECK(!lbrl_flow_next(b->rig.lb, &at_b, b->rig.now_us, &of_b));
    rig_recount(&b->rig, 1);
}

static void segments_are_recorded_as_packets_are(lbrl_level_t level, uint8_t forwarding,
                                                 uint8_t load)
{
    static live_t live[CONNECTIONS];
    static balancer_t packets, direct; /* the core keeps pointers to their frames */
    const bool one_way = forwarding != LBRL_FORWARD_NAT;
    uint64_t random = 1 + level * 16u + forwarding * 4u + load;
    make(&packets, level, forwarding, load);
    make(&direct, level, forwarding, load);
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        begin(&packets, &direct, &live[i], i, one_way);
        exchange(&packets, &direct, &live[i], HANDSHAKE, 2, one_way);
        for (uint32_t turns = 4; turns > 0; turns--) {
            live_t *other = &live[draw(&random, i + 1)];
            const uint64_t gap = draw(&random, 50000);
            pass(&packets, gap);
            pass(&direct, gap);
            if (!other->open) {
                continue;
            }
            talk(&packets, &direct, other, &random, one_way);
            other->open = turns != 1;
            if (!other->open && (one_way || draw(&random, 10))) {
                exchange(&packets, &direct, other, END, 3, one_way);
            } else if (!other->open) {
                exchange(&packets, &direct, other, RESET, 1, one_way);
            }
        }
        compare(&packets, &direct);
    }
    release(&packets);
    release(&direct);
}

/* ------------------------------------------------------------------------------- ends */

static lbrl_connection_tuple_t tuple_of(uint16_t port)
{
    return (lbrl_connection_tuple_t){address_of(VIP), address_of("198.51.100.7"), 80, port};
}

static void set_states(balancer_t *t, uint8_t state)
{
    lbrl_backend_config_t backends[BACKENDS];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, BACKENDS);
    config.feature_level = LBRL_LEVEL_BASIC;
    config.scheduler = LBRL_SCHEDULER_SED;
    for (unsigned i = 0; i < BACKENDS; i++) {
        backends[i].state = state;
    }
    CHECK_EQUAL(lbrl_vip_set(t->rig.lb, &config, t->rig.now_us), 0);
}

static void a_failed_backend_ends_its_connections(void)
{
    static balancer_t t;
    static const lbrl_segment_t request = {100, 1, PSH | ACK};
    lbrl_connection_t connection;
    make(&t, LBRL_LEVEL_BASIC, LBRL_FORWARD_NAT, LBRL_LOAD_OPEN);
    lbrl_worker_t *worker = lbrl_worker(t.rig.lb, 0);
    lbrl_connection_tuple_t tuple = tuple_of(4000);
    CHECK_EQUAL(lbrl_connection_open(worker, &tuple, t.rig.now_us, &connection), LBRL_DROP_NONE);
    CHECK_EQUAL(lbrl_connection_exchange(worker, &connection, HANDSHAKE, 2, t.rig.now_us), 2);
    set_states(&t, LBRL_BACKEND_FAILED);
    CHECK_EQUAL(lbrl_connection_exchange(worker, &connection, &request, 1, t.rig.now_us), 0);
    CHECK_EQUAL(lbrl_connection_exchange(worker, &connection, &request, 1, t.rig.now_us), 0);
    rig_recount(&t.rig, 1);
    tuple = tuple_of(4001);
    CHECK_EQUAL(lbrl_connection_open(worker, &tuple, t.rig.now_us, &connection),
                LBRL_DROP_NO_BACKEND);
    release(&t);
}

static void a_connection_whose_entry_has_another_flow_is_not_forwarded(void)
{
    static balancer_t t;
    lbrl_connection_t first;
    make(&t, LBRL_LEVEL_BASIC, LBRL_FORWARD_NAT, LBRL_LOAD_OPEN);
    lbrl_worker_t *worker = lbrl_worker(t.rig.lb, 0);
    lbrl_connection_tuple_t tuple = tuple_of(4000);
    CHECK_EQUAL(lbrl_connection_open(worker, &tuple, t.rig.now_us, &first), LBRL_DROP_NONE);
    rig_pass(&t.rig, 12000); /* half-open flows last 10 s */
    CHECK_EQUAL(lbrl_connection_exchange(worker, &first, HANDSHAKE, 2, t.rig.now_us), 0);
    for (uint16_t port = 5000; port < 9000; port++) {
        lbrl_connection_t other;
        tuple = tuple_of(port);
        lbrl_connection_open(worker, &tuple, t.rig.now_us, &other);
    }
    CHECK_EQUAL(lbrl_connection_exchange(worker, &first, HANDSHAKE, 2, t.rig.now_us), 0);
    tuple.vip_port = 81;
    CHECK_EQUAL(lbrl_connection_open(worker, &tuple, t.rig.now_us, &first),
                LBRL_DROP_PORT_UNCONFIGURED);
    release(&t);
}

int main(void)
{
    for (int level = LBRL_LEVEL_OFF; level < LBRL_LEVEL_COUNT; level++) {
        for (int load = 0; load < LBRL_LOAD_COUNT; load++) {
            segments_are_recorded_as_packets_are((lbrl_level_t)level, LBRL_FORWARD_NAT,
                                                 (uint8_t)load);
            segments_are_recorded_as_packets_are((lbrl_level_t)level, LBRL_FORWARD_GRE,
                                                 (uint8_t)load);
        }
    }
    a_failed_backend_ends_its_connections();
    a_connection_whose_entry_has_another_flow_is_not_forwarded();
    return 0;
}
