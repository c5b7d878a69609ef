/*
 * Somebody else writes into the arena while packets go through it. A flow that was edited may go wrong; the load balancer
 * may not: sanitizers see what leaves its bounds, ctest's time limit what does not end, and when the edits stop every
 * entry and port comes back.
 */
#include "internal.h"
#include "rig.h"

enum { WORKERS = 2, FLOWS = 256, CLIENTS = 48, ROUNDS = 30000, PORTS = 128 };

static const char *const VIPS[] = {"203.0.113.10", "1:10"};
static uint64_t state = 88172645463325252u;

static uint32_t any(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

static const char *client_of(uint32_t number, bool v6)
{
    static char text[24];
    snprintf(text, sizeof(text), v6 ? "5:%x" : "198.51.100.%u", number + 1);
    return text;
}

/* One of everything: TCP and UDP, both families, translated and in a tunnel. */
static void configure(rig_t *rig)
{
    lbrl_nat_source_t sources[2] = {{address_of("192.0.2.1"), 16384, 16384 + PORTS - 1},
                                    {address_of("9:1"), 16384, 16384 + PORTS - 1}};
    CHECK_EQUAL(lbrl_sources_set(rig->lb, sources, 2), 0);
    for (uint32_t i = 0; i < 6; i++) {
        lbrl_backend_config_t backends[3];
        lbrl_vip_config_t vip = rig_vip(i + 1, VIPS[i % 2], i < 4 ? (uint16_t)(80 + i / 2) : 53,
                                        i < 4 ? 6 : 17, backends, 3);
        vip.forwarding = i / 2 == 1 ? LBRL_FORWARD_GRE : LBRL_FORWARD_NAT;
        vip.feature_level = LBRL_LEVEL_FULL;
        vip.scheduler = LBRL_SCHEDULER_ALIAS;
        CHECK_EQUAL(lbrl_vip_set(rig->lb, &vip, rig->now_us), 0);
    }
}

/* A packet of one of few clients, or the answer to one, with numbers that are right often enough. */
static void send_something(rig_t *rig)
{
    static const uint8_t flags[] = {SYN, SYN | ACK, ACK, ACK, PSH | ACK, FIN | ACK, RST | ACK};
    test_packet_t packet;
    bool v6 = any(2);
    uint16_t port = (uint16_t)(4000 + any(4));
    tcp_fields_t tcp = {.sequence = 1000 + any(3), .ack = 1000 + any(3), .window = 1000};
    tcp.flags = flags[any(sizeof(flags))];
    uint32_t kind = any(6);
    if (kind == 0) {
        make_udp(&packet, client_of(any(CLIENTS), v6), port, VIPS[v6], 53, any(40));
    } else if (kind <= 3) {
        make_tcp(&packet, client_of(any(CLIENTS), v6), port, VIPS[v6], (uint16_t)(80 + any(2)),
                 &tcp, any(40));
    } else {
        char backend[24];
        snprintf(backend, sizeof(backend), v6 ? "2:%x" : "10.0.0.%u", 1 + any(3));
        uint16_t nat_port = (uint16_t)(16384 + any(PORTS));
        if (kind == 4) {
            make_udp(&packet, backend, 8080, v6 ? "9:1" : "192.0.2.1", nat_port, any(40));
        } else {
            make_tcp(&packet, backend, 8080, v6 ? "9:1" : "192.0.2.1", nat_port, &tcp, any(40));
        }
    }
    rig->entry = any(WORKERS);
    (void)rig_send(rig, &packet);
}

/* A byte of an entry, a field of it, or an entry in the place of another. */
static void edit_something(const arena_t *arena)
{
    static const uint16_t wrong[] = {0, 1, 2, 7, 8, 255, 511, 2047, 2048, 32768, 65535};
    flow_t *flow = &arena->flows[any(FLOWS)];
    uint16_t value = wrong[any(sizeof(wrong) / sizeof(wrong[0]))];
    switch (any(9)) {
    case 0:
        flow->vip = value;
        break;
    case 1:
        flow->slot = value;
        break;
    case 2:
        flow->source = (uint8_t)value;
        break;
    case 3:
        flow->address = (uint8_t)value;
        break;
    case 4:
        flow->nat_port = value;
        break;
    case 5:
        flow->state = (uint8_t)(any(2) ? any(LBRL_FLOW_STATES) : value);
        break;
    case 6:
        flow->flags = (uint8_t)any(256);
        break;
    case 7:
        *flow = arena->flows[any(FLOWS)];
        break;
    default:
        ((uint8_t *)flow)[any(sizeof(*flow))] = (uint8_t)any(256);
    }
}

static void edit_while_packets_pass(rig_t *rig, const arena_t *arena)
{
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = any(8); i > 0; i--) {
            send_something(rig);
        }
        for (uint32_t i = any(6); i > 0; i--) {
            edit_something(arena);
        }
        if (any(8) == 0) {
            rig_pass(rig, any(4) ? 100 : 20000);
        }
        if (any(64) == 0) {
            lbrl_flow_info_t info;
            uint64_t cursor = 0;
            while (lbrl_flow_next(rig->lb, &cursor, rig->now_us, &info)) {
            }
            lbrl_publish(rig->lb, rig->now_us);
        }
    }
}

/* What schedulers compare: the workers' sum of open flows, and what they have not added to it yet. */
static int32_t load_of(const rig_t *rig, uint32_t vip, uint32_t slot)
{
    const vip_store_t *store = rig->lb->stores[vip];
    int32_t sum = store->total[slot];
    for (uint32_t i = 0; i < WORKERS; i++) {
        sum += store->workers[i].delta[slot];
    }
    return sum;
}

/* As many connections at a time as there are ports and entries, twice over. */
static void everything_is_there_again(rig_t *rig)
{
    lbrl_stats_t stats;
    rig_pass(rig, 1000000);
    lbrl_stats(rig->lb, &stats);
    CHECK_EQUAL(stats.flows, 0);
    CHECK_EQUAL(stats.half_open, 0);
    for (uint64_t vip = 1; vip <= 6; vip++) {
        for (uint64_t backend = 1; backend <= 3; backend++) {
            CHECK_EQUAL(rig_backend(rig, vip, vip * 1000 + backend).entries, 0);
            CHECK_EQUAL(rig_backend(rig, vip, vip * 1000 + backend).open_flows, 0);
            CHECK_EQUAL(load_of(rig, (uint32_t)vip - 1, (uint32_t)backend - 1), 0);
        }
    }
    for (int again = 0; again < 2; again++) {
        uint32_t open = 0;
        for (uint32_t i = 0; i < 16 * FLOWS; i++) {
            connection_t c =
                connection_make(rig, client_of(i % 200, false),
                                (uint16_t)(20000u + (uint32_t)again * 20000u + i), VIPS[0]);
            if (connection_syn(&c) == LBRL_VERDICT_FORWARD) {
                CHECK_EQUAL(connection_server(&c, SYN, 0), LBRL_VERDICT_FORWARD);
                CHECK_EQUAL(connection_client(&c, 0, 0), LBRL_VERDICT_FORWARD);
                open++;
            }
        }
        CHECK_EQUAL(open, FLOWS);
        rig_pass(rig, 1000000);
        lbrl_stats(rig->lb, &stats);
        CHECK_EQUAL(stats.flows, 0);
    }
}

int main(void)
{
    lbrl_config_t config = {
        .flows = FLOWS, .vips = 8, .slots = 128, .workers = WORKERS, .now_us = 1000000000};
    rig_t rig = rig_configured(config);
    rig_frames_t frames[6];
    configure(&rig);
    for (uint32_t i = 0; i < 6; i++) {
        rig_bind_frames(&rig, &frames[i], i + 1);
    }
    arena_t arena;
    CHECK_EQUAL(arena_inspect(&arena, rig.arena, rig.arena_size), ARENA_SOUND);
    edit_while_packets_pass(&rig, &arena);
    everything_is_there_again(&rig);
    rig_free(&rig);
    for (uint32_t i = 0; i < 6; i++) {
        free(frames[i].memory);
    }
    return 0;
}
