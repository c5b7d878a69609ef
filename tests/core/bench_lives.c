/* What new flows cost: time from first packet to last trace, and memory until the first one finds no room. */
#include "bench_report.h"

#include "bench_lives.h"
#include "crowd.h"
#include "side.h"

/* ------------------------------------------------------------------------------- lives */

enum { LIVES = 16384, LIFE_ROUNDS = 15 };

/* Handshake, close by both sides, and ageing out, of flows that reuse ports and entries of those before. */
static double lives_round(crowd_t *c)
{
    c->spent = 0;
    for (uint32_t first = 0; first < LIVES; first += VECTOR) {
        crowd_syn(c, first, VECTOR);
        crowd_step(c, first, VECTOR, false, SYN | ACK);
        crowd_step(c, first, VECTOR, true, ACK);
        crowd_step(c, first, VECTOR, true, FIN | ACK);
        crowd_step(c, first, VECTOR, false, FIN | ACK);
        crowd_step(c, first, VECTOR, true, ACK);
    }
    for (unsigned i = 0; i < 26; i++) { /* 13 s, beyond tcp_closing */
        crowd_tick(c, 500000);
    }
    lbrl_stats_t stats;
    lbrl_stats(c->lb, &stats);
    CHECK_EQUAL(stats.flows, 0);
    return LIVES * 1e9 / (double)c->spent;
}

void bench_lives(void)
{
    static const uint32_t backends[] = {16, 64, 1024};
    for (unsigned i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
        const crowd_plan_t plan = {65536, LIVES, 1, backends[i], LBRL_LEVEL_BASIC};
        crowd_t *c = crowd_make(&plan);
        c->clock = thread_nanoseconds;
        double rate[LIFE_ROUNDS];
        (void)lives_round(c); /* first touch of pages */
        for (uint32_t round = 0; round < LIFE_ROUNDS; round++) {
            rate[round] = lives_round(c);
        }
        char name[32];
        snprintf(name, sizeof(name), "flow_lives_%u", backends[i]);
        report_runs(name, median(rate, LIFE_ROUNDS), "flows/s", rate, LIFE_ROUNDS);
        crowd_free(c);
    }
}

/* ------------------------------------------------------------------------------- memory */

enum { FILL_FLOWS = 65536 };

/* IPv6 flows, each through its handshake, until the first one finds no entry. */
static uint32_t fill_arena(uint8_t seed, size_t *arena_size)
{
    rig_t rig = {
        .config = {
            .flows = FILL_FLOWS, .vips = 1024, .slots = 16384, .workers = 1, .now_us = 1000000000}};
    for (unsigned i = 0; i < sizeof(rig.config.seed); i++) {
        rig.config.seed[i] = (uint8_t)(i * 37 + seed);
    }
    rig.now_us = rig.config.now_us;
    rig.arena_size = *arena_size = lbrl_arena_size(&rig.config);
    rig.arena = aligned_alloc(64, rig.arena_size);
    CHECK(rig.arena != NULL);
    memset(rig.arena, 0, rig.arena_size);
    CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
    rig_set_sources(&rig);
    rig_set_standard_vips(&rig, 64);
    uint32_t held = 0;
    for (;; held++) {
        char client[24];
        snprintf(client, sizeof(client), "5:%x", 1 + held / 50000);
        connection_t c = connection_make(&rig, client, (uint16_t)(1024 + held % 50000), "1:10");
        if (connection_syn(&c) != LBRL_VERDICT_FORWARD) {
            CHECK_EQUAL(c.packet.p.reason, LBRL_DROP_TABLE_FULL);
            break;
        }
        connection_server(&c, SYN, 0);
        connection_client(&c, 0, 0);
    }
    rig_free(&rig);
    return held;
}

void bench_arena(void)
{
    enum { SEEDS = 5 };
    double held[SEEDS];
    size_t size = 0;
    for (uint32_t i = 0; i < SEEDS; i++) {
        held[i] = fill_arena((uint8_t)(i * 11 + 1), &size);
    }
    double flows = median(held, SEEDS);
    report_runs("flows_held_at_first_failure", flows, "flows", held, SEEDS);
    report("arena_bytes_per_flow", (double)size / flows, "bytes");
    report("arena_bytes_per_flow_full", (double)(size + FILL_FLOWS * sizeof(side_t)) / flows,
           "bytes");
}
