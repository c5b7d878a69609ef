/* Backends and VIPs as configured: drained, failed, deleted, replaced, weighted; refused where they cannot be. */
#include <math.h>

#include "objects.h"
#include "rig.h"

static const char *const CLIENT = "198.51.100.7";
static const char *const VIP = "203.0.113.10";

static int set(rig_t *rig, lbrl_backend_config_t *backends, uint32_t count, uint32_t drain_timeout)
{
    lbrl_backend_config_t unused[64];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, unused, 0);
    config.backends = backends;
    config.backend_count = count;
    config.drain_timeout = drain_timeout;
    return lbrl_vip_set(rig->lb, &config, rig->now_us);
}

static void standard(lbrl_backend_config_t *backends, uint32_t count)
{
    rig_vip(1, VIP, 80, 6, backends, count);
}

static uint32_t in_use(const rig_t *rig, uint64_t vip)
{
    lbrl_vip_status_t status;
    CHECK_EQUAL(lbrl_vip_status(rig->lb, vip, &status, NULL, 0), 0);
    return status.backend_count;
}

static void draining_backend_keeps_its_flows_and_gets_no_more(void)
{
    rig_t rig = rig_make(1, 2);
    connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&c);
    lbrl_backend_config_t backends[2];
    standard(backends, 2);
    uint8_t which = (uint8_t)(c.backend.bytes[15] - 1);
    backends[which].state = LBRL_BACKEND_DRAINING;
    CHECK_EQUAL(set(&rig, backends, 2, 5000), 0);
    for (uint16_t i = 0; i < 20; i++) {
        connection_t other = connection_make(&rig, CLIENT, (uint16_t)(41000 + i), VIP);
        connection_open(&other);
        CHECK(memcmp(&other.backend, &c.backend, 16) != 0);
    }
    rig_pass(&rig, 4000);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(rig_backend(&rig, 1, 1001u + which).state, LBRL_BACKEND_DRAINING);
    rig_pass(&rig, 2000); /* drain timeout: as if it had failed */
    CHECK_EQUAL(rig_backend(&rig, 1, 1001u + which).state, LBRL_BACKEND_FAILED);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(set(&rig, backends, 2, 5000), 0); /* the same again revives nothing */
    CHECK_EQUAL(rig_backend(&rig, 1, 1001u + which).state, LBRL_BACKEND_FAILED);
    backends[which].state = LBRL_BACKEND_ACTIVE;
    CHECK_EQUAL(set(&rig, backends, 2, 5000), 0);
    CHECK_EQUAL(rig_backend(&rig, 1, 1001u + which).state, LBRL_BACKEND_ACTIVE);
    rig_free(&rig);
}

static void configuration_in_force_is_told_after_a_restart_too(void)
{
    rig_t rig = rig_make(1, 2);
    lbrl_backend_config_t backends[4];
    standard(backends, 2);
    backends[0].weight = 3;
    backends[1].state = LBRL_BACKEND_DRAINING;
    CHECK_EQUAL(set(&rig, backends, 2, 5000), 0);
    for (int restarted = 0; restarted < 2; restarted++) {
        lbrl_vip_config_t config;
        lbrl_backend_config_t found[4];
        lbrl_address_t vip = address_of(VIP);
        CHECK_EQUAL(lbrl_vip_config(rig.lb, 1, &config, found, 4), 0);
        CHECK_EQUAL(config.port, 80);
        CHECK_EQUAL(config.protocol, 6);
        CHECK_EQUAL(config.drain_timeout, 5000);
        CHECK_EQUAL(config.timeouts.tcp_established, rig_timeouts().tcp_established);
        CHECK_EQUAL(config.address_count, 1);
        CHECK(memcmp(&config.addresses[0], &vip, sizeof(vip)) == 0);
        CHECK_EQUAL(config.backend_count, 2);
        CHECK(config.backends == found);
        CHECK_EQUAL(found[0].id, backends[0].id);
        CHECK(found[0].weight == 3);
        CHECK_EQUAL(found[0].port, 8080);
        CHECK_EQUAL(found[1].state, LBRL_BACKEND_DRAINING);
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0); /* the same again */
        CHECK_EQUAL(lbrl_vip_config(rig.lb, 1, &config, found, 1), 0);
        CHECK_EQUAL(config.backend_count, 2); /* told how many, not overrun */
        rig_restart(&rig);
    }
    lbrl_backend_config_t other[1];
    lbrl_vip_config_t dsr = rig_vip(20, "203.0.113.44", 80, 6, other, 1);
    dsr.forwarding = LBRL_FORWARD_L3DSR;
    dsr.dscp = 9;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &dsr, rig.now_us), 0);
    lbrl_vip_config_t config;
    CHECK_EQUAL(lbrl_vip_config(rig.lb, 20, &config, NULL, 0), 0);
    CHECK_EQUAL(config.forwarding, LBRL_FORWARD_L3DSR);
    CHECK_EQUAL(config.dscp, 9);
    CHECK_EQUAL(set(&rig, backends, 1, 5000), 0);
    CHECK_EQUAL(lbrl_vip_config(rig.lb, 1, &config, NULL, 0), 0);
    CHECK_EQUAL(config.backend_count, 1); /* a removed one is no longer configured */
    CHECK_EQUAL(lbrl_vip_remove(rig.lb, 1, rig.now_us), 0);
    CHECK_EQUAL(lbrl_vip_config(rig.lb, 1, &config, NULL, 0), 0);
    CHECK_EQUAL(config.address_count, 1); /* its packets are ours until it is gone */
    CHECK_EQUAL(config.backend_count, 0);
    CHECK_EQUAL(lbrl_vip_config(rig.lb, 99, &config, NULL, 0), LBRL_ERR_NOT_FOUND);
    rig_free(&rig);
}

static void failed_backend_is_answered_for_by_reset(void)
{
    rig_t rig = rig_make(1, 2);
    connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&c);
    lbrl_backend_config_t backends[2];
    standard(backends, 2);
    uint8_t which = (uint8_t)(c.backend.bytes[15] - 1);
    backends[which].state = LBRL_BACKEND_FAILED;
    CHECK_EQUAL(set(&rig, backends, 2, 5000), 0);
    uint32_t next = c.server_next;
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_REPLY);
    seen_t seen = look(&c.packet.p);
    CHECK_EQUAL(seen.flags, RST);
    CHECK_EQUAL(seen.sequence, next);
    CHECK(is_address(&seen.dst, CLIENT));
    CHECK_EQUAL(c.packet.p.reason, LBRL_DROP_BACKEND_FAILED);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_FREE);
    CHECK_EQUAL(rig_backend(&rig, 1, 1001u + which).open_flows, 0);
    connection_open(&c);
    CHECK(c.backend.bytes[15] != which + 1);
    rig_free(&rig);
}

static void syn_in_flight_moves_to_another_backend(void)
{
    for (int state = LBRL_BACKEND_DRAINING; state <= LBRL_BACKEND_FAILED; state++) {
        rig_t rig = rig_make(1, 2);
        connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
        CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
        lbrl_address_t first = c.backend;
        lbrl_backend_config_t backends[2];
        standard(backends, 2);
        backends[c.backend.bytes[15] - 1].state = (uint8_t)state;
        CHECK_EQUAL(set(&rig, backends, 2, 5000), 0);
        c.client_next--;
        connection_open(&c); /* the client tries again */
        CHECK(memcmp(&first, &c.backend, 16) != 0);
        rig_free(&rig);
    }
}

static void deleted_backend_drains_fails_and_frees_its_slot(void)
{
    rig_t rig = rig_make(1, 2);
    connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&c);
    uint16_t slot = connection_flow(&c).slot;
    lbrl_backend_config_t backends[2];
    standard(backends, 2);
    lbrl_backend_config_t rest = backends[slot == 0];
    CHECK_EQUAL(set(&rig, &rest, 1, 5000), 0);
    CHECK_EQUAL(in_use(&rig, 1), 2);
    rig_pass(&rig, 4000);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    rig_pass(&rig, 2000);
    CHECK_EQUAL(in_use(&rig, 1), 2); /* its flow is still there */
    rig_pass(&rig, 62000);           /* nobody spoke: reaped */
    CHECK_EQUAL(in_use(&rig, 1), 1);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_FREE);
    lbrl_stats_t stats;
    lbrl_stats(rig.lb, &stats);
    CHECK_EQUAL(stats.flows, 0);

    /* the slot's next backend has another generation and counters of its own */
    CHECK_EQUAL(set(&rig, backends, 2, 5000), 0);
    lbrl_backend_status_t status = rig_backend(&rig, 1, backends[slot].id);
    CHECK_EQUAL(status.slot, slot);
    CHECK_EQUAL(status.generation, 2);
    CHECK_EQUAL(status.flows, 0);
    CHECK_EQUAL(status.open_flows, 0);
    rig_free(&rig);
}

static void backend_without_flows_goes_at_once(void)
{
    rig_t rig = rig_make(1, 2);
    lbrl_backend_config_t backends[2];
    standard(backends, 2);
    CHECK_EQUAL(set(&rig, backends, 1, 300000), 0);
    rig_pass(&rig, 300);
    CHECK_EQUAL(in_use(&rig, 1), 1);
    rig_free(&rig);
}

static void weight_of_zero_drains(void)
{
    rig_t rig = rig_make(1, 2);
    connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&c);
    uint16_t slot = connection_flow(&c).slot;
    float weights[2] = {1, 1};
    uint8_t generations[2] = {1, 1};
    weights[slot] = 0;
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, weights, NULL, generations, 2), 0);
    for (uint16_t i = 0; i < 20; i++) {
        connection_t other = connection_make(&rig, CLIENT, (uint16_t)(41000 + i), VIP);
        connection_open(&other);
        CHECK(memcmp(&other.backend, &c.backend, 16) != 0);
    }
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    weights[slot] = 2;
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, weights, NULL, generations, 2), 0);
    rig_pass(&rig, 400000);
    CHECK_EQUAL(rig_backend(&rig, 1, 1001u + slot).state, LBRL_BACKEND_ACTIVE);
    CHECK_NEAR(rig_backend(&rig, 1, 1001u + slot).weight, 2, 0);
    rig_free(&rig);
}

/* All of a VIP's flows move from one backend to the other: none is refused in between. */
static void weights_are_in_force_at_once(void)
{
    rig_t rig = rig_make(1, 2);
    lbrl_backend_config_t backends[2];
    standard(backends, 2);
    for (uint16_t i = 0; i < 6; i++) {
        uint16_t only = i & 1;
        CHECK_EQUAL(
            lbrl_weights_set(rig.lb, 1, (const float[2]){(float)only, (float)!only}, NULL, NULL, 2),
            0);
        connection_t c = connection_make(&rig, CLIENT, (uint16_t)(40000 + i), VIP);
        connection_open(&c);
        CHECK_EQUAL(c.backend.bytes[15], 2 - only);
        backends[only].weight = 1;
        backends[!only].weight = 0;
        CHECK_EQUAL(set(&rig, backends, 2, 5000), 0); /* weights that were set stay in force */
        CHECK_EQUAL(lbrl_weights_reset(rig.lb, 1), 0);
        c = connection_make(&rig, CLIENT, (uint16_t)(41000 + i), VIP);
        connection_open(&c);
        CHECK_EQUAL(c.backend.bytes[15], 1 + only);
    }
    rig_free(&rig);
}

/* Agents have weight 0 for a backend that is removed, draining, unready or failed. */
static void a_backend_that_returns_takes_flows_at_once(void)
{
    static const int32_t ways_out[] = {-1, LBRL_BACKEND_DRAINING, LBRL_BACKEND_UNREADY,
                                       LBRL_BACKEND_FAILED};
    for (size_t i = 0; i < sizeof(ways_out) / sizeof(ways_out[0]); i++) {
        rig_t rig = rig_make(1, 2);
        lbrl_backend_config_t backends[2];
        standard(backends, 2);
        CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, (const float[2]){40, 60}, NULL, NULL, 2), 0);
        backends[1].state = (uint8_t)(ways_out[i] < 0 ? LBRL_BACKEND_ACTIVE : ways_out[i]);
        CHECK_EQUAL(set(&rig, backends, ways_out[i] < 0 ? 1 : 2, 300000), 0);
        CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, (const float[2]){40, 0}, NULL, NULL, 2), 0);
        rig_pass(&rig, 1000);
        standard(backends, 2);
        CHECK_EQUAL(set(&rig, backends, 2, 300000), 0);
        CHECK_NEAR(rig_backend(&rig, 1, 1002).weight, 40, 0.001);
        CHECK_EQUAL(set(&rig, &backends[1], 1, 300000), 0);
        connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
        connection_open(&c);
        CHECK_EQUAL(c.backend.bytes[15], 2);
        rig_free(&rig);
    }
}

/* The weights were decided before the first backend returned, and came after. */
static void late_weights_leave_nobody_without_a_backend(void)
{
    rig_t rig = rig_make(1, 2);
    lbrl_backend_config_t backends[2];
    standard(backends, 2);
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, (const float[2]){0, 60}, NULL, NULL, 2), 0);
    CHECK_EQUAL(set(&rig, backends, 1, 300000), 0);
    connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&c);
    CHECK_EQUAL(c.backend.bytes[15], 1);
    rig_free(&rig);
}

/* A removed backend has a weight still, which no new flow goes by. */
static void an_agent_cannot_take_all_weight_from_those_in_service(void)
{
    rig_t rig = rig_make(1, 2);
    lbrl_backend_config_t backends[2];
    standard(backends, 2);
    enum { WIDTH = 8 };
    lbrl_actions_t actions;
    lbrl_shm_view_t view;
    void *memory = zeroed(lbrl_actions_size(WIDTH));
    CHECK_EQUAL(lbrl_actions_format(&actions, memory, lbrl_actions_size(WIDTH), WIDTH, 1), 0);
    CHECK_EQUAL(
        lbrl_shm_open(&view, memory, lbrl_actions_size(WIDTH), LBRL_SHM_ACTIONS_MAGIC, NULL), 0);
    CHECK_EQUAL(set(&rig, backends, 1, 300000), 0);
    const float none[WIDTH] = {0};
    const uint8_t generations[WIDTH] = {1, 1};
    lbrl_actions_write(&actions, none, NULL, generations, rig.now_us);
    CHECK_EQUAL(lbrl_weights_follow(rig.lb, 1, &view, rig.now_us), LBRL_SHM_NO_WEIGHT);
    connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&c);
    CHECK_EQUAL(c.backend.bytes[15], 1);
    rig_free(&rig);
    free(memory);
}

static void weights_for_another_generation_are_ignored_and_bad_ones_refused(void)
{
    rig_t rig = rig_make(1, 2);
    uint8_t generations[2] = {1, 9};
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, (float[]){3, 4}, NULL, generations, 2), 0);
    CHECK_NEAR(rig_backend(&rig, 1, 1001).weight, 3, 0);
    CHECK_NEAR(rig_backend(&rig, 1, 1002).weight, 1, 0);
    const float bad[] = {-1, INFINITY, NAN, 2e6f};
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, &bad[i], NULL, generations, 1), LBRL_ERR_INVALID);
    }
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, (float[]){9}, &bad[i], generations, 1),
                    LBRL_ERR_INVALID);
    }
    CHECK_NEAR(rig_backend(&rig, 1, 1001).weight, 3, 0);
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 99, bad, NULL, generations, 0), LBRL_ERR_NOT_FOUND);
    CHECK_EQUAL(lbrl_weights_reset(rig.lb, 99), LBRL_ERR_NOT_FOUND);
    CHECK_EQUAL(lbrl_weights_reset(rig.lb, 1), 0);
    CHECK_NEAR(rig_backend(&rig, 1, 1001).weight, 1, 0);
    lbrl_backend_config_t backends[2];
    standard(backends, 2);
    backends[0].weight = 7;
    CHECK_EQUAL(set(&rig, backends, 2, 5000), 0);
    CHECK_NEAR(rig_backend(&rig, 1, 1001).weight, 7, 0);
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, (float[]){3, 4}, NULL, generations, 2), 0);
    CHECK_EQUAL(set(&rig, backends, 2, 5000),
                0); /* configuration does not undo what a policy set */
    CHECK_NEAR(rig_backend(&rig, 1, 1001).weight, 3, 0);
    rig_free(&rig);
}

static float weight_of(const rig_t *rig, uint64_t backend)
{
    return rig_backend(rig, 1, backend).weight;
}

/* The agent's weights have another scale than the configured ones: theirs is a mean of 1. */
static void new_backend_starts_among_the_weights_in_force(void)
{
    rig_t rig = rig_make(1, 4);
    lbrl_backend_config_t backends[8];
    lbrl_vip_config_t config = rig_vip(1, "203.0.113.10", 80, 6, backends, 8);
    config.scheduler = LBRL_SCHEDULER_SED;
    config.backend_count = 4;
    for (unsigned i = 0; i < 8; i++) {
        backends[i].weight = 100;
    }
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    const float weights[8] = {0.5f, 1, 1.5f, 0}; /* the last one is drained: no scale to learn of */
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, weights, NULL, NULL, 4), 0);
    config.backend_count = 8;
    backends[5].weight = 200;
    backends[6].weight = 50;
    backends[7].weight = 0;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    CHECK_NEAR(weight_of(&rig, 1005), 1, 1e-6);
    CHECK_NEAR(weight_of(&rig, 1006), 2, 1e-6);
    CHECK_NEAR(weight_of(&rig, 1007), 0.5, 1e-6);
    CHECK_EQUAL(weight_of(&rig, 1008), 0);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_NEAR(weight_of(&rig, 1001 + i), weights[i], 0);
    }
    for (uint16_t i = 0; i < 650; i++) {
        connection_t c =
            connection_make(&rig, "198.51.100.7", (uint16_t)(20000 + i), "203.0.113.10");
        connection_open(&c);
    }
    CHECK_NEAR(rig_backend(&rig, 1, 1005).open_flows, 100, 2);
    CHECK_NEAR(rig_backend(&rig, 1, 1006).open_flows, 200, 2);

    /* configured weights that change with the set count as they will be, those of backends that go do not */
    config.backends = backends + 1;
    config.backend_count = 4;
    for (unsigned i = 1; i < 5; i++) {
        backends[i].weight = i == 4 ? 3 : 1; /* 1005 stays; a new id in its place */
    }
    backends[4].id = 1999;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    CHECK_NEAR(weight_of(&rig, 1999), 1.25 * 3, 1e-5);
    CHECK_EQUAL(lbrl_weights_reset(rig.lb, 1), 0);
    CHECK_EQUAL(weight_of(&rig, 1999), 3);

    /* where none takes flows there is no scale */
    const float none[16] = {0};
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, none, NULL, NULL, 16), 0);
    config.backends = backends;
    backends[0].id = 1998;
    backends[0].weight = 7;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    CHECK_EQUAL(weight_of(&rig, 1998), 7);
    rig_free(&rig);
}

static void sed_follows_weights(void)
{
    rig_t rig = rig_make(1, 2);
    lbrl_backend_config_t backends[2];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, 2);
    config.scheduler = LBRL_SCHEDULER_SED;
    backends[1].weight = 3;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    for (uint16_t i = 0; i < 40; i++) {
        connection_t c = connection_make(&rig, CLIENT, (uint16_t)(41000 + i), VIP);
        connection_open(&c);
    }
    CHECK_NEAR(rig_backend(&rig, 1, 1002).open_flows, 30, 1);
    rig_free(&rig);
}

static void affinity_sends_a_client_to_one_backend(void)
{
    rig_t rig = rig_make(1, 4);
    lbrl_backend_config_t backends[4];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, 4);
    config.client_affinity = 1;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    uint32_t seen = 0;
    for (uint16_t client = 0; client < 30; client++) {
        char text[24];
        snprintf(text, sizeof(text), "198.51.100.%u", client + 1u);
        lbrl_address_t first = {{0}};
        for (uint16_t port = 0; port < 10; port++) {
            connection_t c = connection_make(&rig, text, (uint16_t)(41000 + port), VIP);
            connection_open(&c);
            CHECK(port == 0 || memcmp(&c.backend, &first, 16) == 0);
            first = c.backend;
        }
        seen |= 1u << first.bytes[15];
    }
    CHECK_EQUAL(__builtin_popcount(seen), 4);
    rig_free(&rig);
}

static void maglev_picks_alike_on_every_node(void)
{
    uint8_t key[16] = {1, 2, 3};
    lbrl_address_t picked[50];
    for (int node = 0; node < 2; node++) {
        rig_t rig = rig_make(1, 0);
        rig.config.seed[3] ^= (uint8_t)node;
        uint8_t told[16];
        CHECK_EQUAL(lbrl_node_set(rig.lb, key, 2), 0);
        CHECK_EQUAL(lbrl_node_set(rig.lb, key, 2), 0);
        CHECK(lbrl_node(rig.lb, told) == 2 && memcmp(told, key, sizeof(key)) == 0);
        lbrl_backend_config_t backends[5], shuffled[5];
        lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, 5);
        config.scheduler = LBRL_SCHEDULER_MAGLEV;
        for (int i = 0; i < 5; i++) {
            shuffled[i] = backends[(i + 2 * node) % 5];
        }
        config.backends = shuffled;
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
        for (uint16_t i = 0; i < 50; i++) {
            connection_t c = connection_make(&rig, CLIENT, (uint16_t)(41000 + i), VIP);
            connection_open(&c);
            CHECK(node == 0 || memcmp(&picked[i], &c.backend, 16) == 0);
            picked[i] = c.backend;
        }
        rig_free(&rig);
    }
    rig_t rig = rig_make(1, 1);
    CHECK_EQUAL(lbrl_node_set(rig.lb, key, 0), LBRL_ERR_INVALID);
    rig_free(&rig);
}

static void weight_too_small_for_the_table_is_reported(void)
{
    rig_t rig = rig_make(1, 2);
    lbrl_backend_config_t backends[2];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, 2);
    config.scheduler = LBRL_SCHEDULER_MAGLEV;
    backends[0].weight = 1e6f;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    lbrl_vip_status_t status;
    CHECK_EQUAL(lbrl_vip_status(rig.lb, 1, &status, NULL, 0), 0);
    CHECK_EQUAL(status.unrepresentable, 1);
    rig_free(&rig);
}

static void vip_grows_and_keeps_its_flows(void)
{
    rig_t rig = rig_make(1, 2);
    connection_t c[10];
    for (uint16_t i = 0; i < 10; i++) {
        c[i] = connection_make(&rig, CLIENT, (uint16_t)(41000 + i), VIP);
        connection_open(&c[i]);
    }
    lbrl_backend_config_t backends[40];
    standard(backends, 40);
    CHECK_EQUAL(set(&rig, backends, 40, 5000), 0);
    lbrl_vip_status_t status;
    CHECK_EQUAL(lbrl_vip_status(rig.lb, 1, &status, NULL, 0), 0);
    CHECK_EQUAL(status.slots, 128);
    CHECK_EQUAL(status.backend_count, 40);
    for (uint16_t i = 0; i < 10; i++) {
        CHECK_EQUAL(connection_client(&c[i], PSH, 10), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_server(&c[i], PSH, 10), LBRL_VERDICT_FORWARD);
    }
    rig_restart(&rig);
    CHECK_EQUAL(rig.report.flows, 10);
    for (uint16_t i = 0; i < 10; i++) {
        CHECK_EQUAL(connection_client(&c[i], PSH, 10), LBRL_VERDICT_FORWARD);
    }
    rig_free(&rig);
}

static void replaced_backends_go_through_every_slot(void)
{
    rig_t rig = rig_make(1, 4);
    lbrl_backend_config_t backends[4];
    for (uint64_t round = 0; round < 300; round++) { /* generations wrap */
        standard(backends, 4);
        for (int i = 0; i < 4; i++) {
            backends[i].id = 5000 + round * 4 + (uint64_t)i;
            backends[i].address.bytes[14] = (uint8_t)(round % 200);
        }
        CHECK_EQUAL(set(&rig, backends, 4, 5000), 0);
        connection_t c = connection_make(&rig, CLIENT, (uint16_t)(41000 + round), VIP);
        connection_open(&c);
        CHECK_EQUAL(c.backend.bytes[14], round % 200);
        connection_client(&c, RST, 0);
        rig_pass(&rig, 12000);
        CHECK_EQUAL(in_use(&rig, 1), 4);
    }
    rig_free(&rig);
}

static void removed_vip_refuses_new_flows_and_goes_with_its_last(void)
{
    rig_t rig = rig_make(1, 2);
    connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&c);
    CHECK_EQUAL(lbrl_vip_remove(rig.lb, 1, rig.now_us), 0);
    CHECK_EQUAL(lbrl_vip_remove(rig.lb, 1, rig.now_us), 0);
    connection_t other = connection_make(&rig, CLIENT, 40001, VIP);
    CHECK_EQUAL(connection_syn(&other), LBRL_VERDICT_REPLY);
    CHECK_EQUAL(look(&other.packet.p).flags, RST | ACK);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(lbrl_vip_ids(rig.lb, NULL, 0), 3);
    connection_client(&c, FIN, 0);
    connection_server(&c, FIN, 0);
    rig_pass(&rig, 13000);
    uint64_t ids[8];
    CHECK_EQUAL(lbrl_vip_ids(rig.lb, ids, 8), 2);
    CHECK_EQUAL(ids[0] + ids[1], 5);
    CHECK_EQUAL(lbrl_vip_remove(rig.lb, 1, rig.now_us), LBRL_ERR_NOT_FOUND);
    /* its address still has VIP 3: refused, not passed */
    CHECK_EQUAL(connection_syn(&other), LBRL_VERDICT_REPLY);
    rig_set_standard_vips(&rig, 2);
    connection_open(&c);
    rig_free(&rig);
}

static void vip_may_come_back_while_it_goes(void)
{
    rig_t rig = rig_make(1, 2);
    connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&c);
    CHECK_EQUAL(lbrl_vip_remove(rig.lb, 1, rig.now_us), 0);
    rig_pass(&rig, 1000);
    rig_set_standard_vips(&rig, 2);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    connection_t other = connection_make(&rig, CLIENT, 40001, VIP);
    connection_open(&other);
    rig_free(&rig);
}

static void addresses_come_and_go(void)
{
    rig_t rig = rig_make(1, 2);
    lbrl_backend_config_t backends[2];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, 2);
    config.addresses[1] = address_of("203.0.113.20");
    config.address_count = 2;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    connection_t c = connection_make(&rig, CLIENT, 40000, "203.0.113.20");
    connection_open(&c);
    connection_t keeps = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&keeps);
    config.address_count = 1;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_PASS);
    /* another VIP may have it at once */
    lbrl_vip_config_t second = rig_vip(7, "203.0.113.20", 80, 6, backends, 2);
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &second, rig.now_us), 0);
    connection_t again = connection_make(&rig, CLIENT, 40000, "203.0.113.20");
    connection_open(&again);
    rig_pass(&rig, 3000);
    CHECK_EQUAL(connection_client(&again, PSH, 10), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_client(&keeps, PSH, 10), LBRL_VERDICT_FORWARD);
    lbrl_stats_t stats;
    lbrl_stats(rig.lb, &stats);
    CHECK_EQUAL(stats.flows, 2);
    /* places of gone addresses are used again */
    for (int i = 0; i < 20; i++) {
        char text[24];
        snprintf(text, sizeof(text), "203.0.113.%u", 30u + (unsigned)i);
        config.addresses[1] = address_of(text);
        config.address_count = 2;
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
        rig_pass(&rig, 300);
    }
    rig_free(&rig);
}

static void one_address_place_too_many_waits(void)
{
    rig_t rig = rig_make(1, 1);
    lbrl_backend_config_t backends[1];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, 1);
    for (uint32_t i = 0; i < LBRL_ADDRESSES_MAX; i++) {
        config.addresses[i] = address_of("203.0.113.100");
        config.addresses[i].bytes[15] = (uint8_t)(100 + i);
    }
    config.address_count = LBRL_ADDRESSES_MAX;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us),
                LBRL_ERR_EXHAUSTED); /* the first one is still there */
    config.address_count = LBRL_ADDRESSES_MAX - 1;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    rig_pass(&rig, 300);
    config.address_count = LBRL_ADDRESSES_MAX;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    rig_free(&rig);
}

static void bad_configurations_change_nothing(void)
{
    rig_t rig = rig_make(1, 2);
    lbrl_backend_config_t b[4];
    lbrl_vip_config_t good = rig_vip(20, "203.0.113.40", 80, 6, b, 2);
#define BAD(edit, error)                                                                           \
    do {                                                                                           \
        lbrl_vip_config_t config = rig_vip(20, "203.0.113.40", 80, 6, b, 2);                       \
        edit;                                                                                      \
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), error);                             \
        CHECK_EQUAL(lbrl_vip_ids(rig.lb, NULL, 0), 3);                                             \
    } while (0)
    BAD(config.id = 0, LBRL_ERR_INVALID);
    BAD(config.port = 0, LBRL_ERR_INVALID);
    BAD(config.protocol = 1, LBRL_ERR_INVALID);
    BAD(config.scheduler = LBRL_SCHEDULER_COUNT, LBRL_ERR_INVALID);
    BAD(config.feature_level = 3, LBRL_ERR_INVALID);
    BAD(config.table_size = 1000, LBRL_ERR_INVALID);
    BAD(config.table_size = 1, LBRL_ERR_INVALID);
    BAD(config.timeouts.tcp_closing = 0, LBRL_ERR_INVALID);
    BAD(config.timeouts.udp_stream = 700000000, LBRL_ERR_INVALID);
    BAD(config.address_count = 0, LBRL_ERR_INVALID);
    BAD(config.address_count = 9, LBRL_ERR_INVALID);
    BAD(memset(&config.addresses[0], 0, 16), LBRL_ERR_INVALID);
    BAD((config.addresses[1] = config.addresses[0], config.address_count = 2), LBRL_ERR_INVALID);
    BAD((config.addresses[1] = address_of("1:1"), config.address_count = 2), LBRL_ERR_INVALID);
    BAD(b[1].id = b[0].id, LBRL_ERR_INVALID);
    BAD(b[1].id = 0, LBRL_ERR_INVALID);
    BAD(b[1].port = 0, LBRL_ERR_INVALID);
    BAD(b[1].state = 0, LBRL_ERR_INVALID);
    BAD(b[1].state = 5, LBRL_ERR_INVALID);
    BAD(b[1].weight = -1, LBRL_ERR_INVALID);
    BAD(b[1].weight = NAN, LBRL_ERR_INVALID);
    BAD(b[1].weight = 2e6f, LBRL_ERR_INVALID);
    BAD(b[1].address = address_of("2:1"), LBRL_ERR_INVALID);
    BAD(memset(&b[1].address, 0, 16), LBRL_ERR_INVALID);
    BAD(config.backend_count = LBRL_BACKENDS_MAX + 1, LBRL_ERR_INVALID);
    BAD(config.backends = NULL, LBRL_ERR_INVALID);
    BAD(config.addresses[0] = address_of(VIP), LBRL_ERR_CONFLICT);
    BAD((config.addresses[0] = address_of("192.0.2.1"), config.port = 20000), LBRL_ERR_CONFLICT);
#undef BAD
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &good, rig.now_us), 0);
    good.protocol = 17;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &good, rig.now_us), LBRL_ERR_IMMUTABLE);
    good.protocol = 6;
    good.port = 81;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &good, rig.now_us), LBRL_ERR_IMMUTABLE);
    lbrl_vip_config_t v6 = rig_vip(20, "1:40", 80, 6, b, 2);
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &v6, rig.now_us), LBRL_ERR_IMMUTABLE);
    rig_free(&rig);
}

static void directory_has_an_end(void)
{
    rig_t rig = rig_make(1, 2);
    lbrl_backend_config_t b[64];
    int error = 0;
    uint64_t id = 100;
    for (; !error; id++) {
        lbrl_vip_config_t config = rig_vip(id, VIP, (uint16_t)id, 6, b, 1);
        error = lbrl_vip_set(rig.lb, &config, rig.now_us);
    }
    CHECK_EQUAL(error, LBRL_ERR_EXHAUSTED);
    CHECK_EQUAL(id - 1 - 100, 13); /* 16 VIPs */
    lbrl_vip_config_t wide = rig_vip(100, VIP, 100, 6, b, 64);
    for (uint64_t i = 0; i < 13 && !error; i++) {
        wide = rig_vip(100 + i, VIP, (uint16_t)(100 + i), 6, b, 64);
        error = lbrl_vip_set(rig.lb, &wide, rig.now_us);
    }
    wide = rig_vip(100, VIP, 100, 6, b, 64); /* 128 slots of 512, four times */
    int errors = 0;
    for (uint64_t i = 0; i < 6; i++) {
        wide = rig_vip(100 + i, VIP, (uint16_t)(100 + i), 6, b, 64);
        errors += lbrl_vip_set(rig.lb, &wide, rig.now_us) == LBRL_ERR_EXHAUSTED;
    }
    CHECK(errors >= 3);
    rig_free(&rig);
}

/* Bytes that the process holds. */
static size_t resident(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%*u %lu", &pages) == 1);
    fclose(file);
    return pages * 4096;
}

/* Tables have room for the most backends that a VIP may get; that room takes no memory before they come. */
static void a_vip_takes_the_memory_of_the_backends_it_has(void)
{
    enum { VIPS = 48 };
    lbrl_config_t sizes = {
        .flows = 4096, .vips = VIPS, .slots = 8 * VIPS, .workers = 8, .now_us = 1000000000};
    rig_t rig = rig_configured(sizes);
    lbrl_backend_config_t backends[2];
    const size_t before = resident();
    for (uint16_t i = 0; i < (uint16_t)VIPS; i++) {
        lbrl_vip_config_t config = rig_vip(i + 1u, "203.0.113.10", 80 + i, 6, backends, 2);
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    }
    CHECK(resident() - before < VIPS * (size_t)(512 << 10));
    rig_free(&rig);
}

int main(void)
{
    draining_backend_keeps_its_flows_and_gets_no_more();
    configuration_in_force_is_told_after_a_restart_too();
    failed_backend_is_answered_for_by_reset();
    syn_in_flight_moves_to_another_backend();
    deleted_backend_drains_fails_and_frees_its_slot();
    backend_without_flows_goes_at_once();
    weight_of_zero_drains();
    weights_are_in_force_at_once();
    a_backend_that_returns_takes_flows_at_once();
    an_agent_cannot_take_all_weight_from_those_in_service();
    late_weights_leave_nobody_without_a_backend();
    weights_for_another_generation_are_ignored_and_bad_ones_refused();
    new_backend_starts_among_the_weights_in_force();
    sed_follows_weights();
    affinity_sends_a_client_to_one_backend();
    maglev_picks_alike_on_every_node();
    weight_too_small_for_the_table_is_reported();
    vip_grows_and_keeps_its_flows();
    replaced_backends_go_through_every_slot();
    removed_vip_refuses_new_flows_and_goes_with_its_last();
    vip_may_come_back_while_it_goes();
    addresses_come_and_go();
    one_address_place_too_many_waits();
    bad_configurations_change_nothing();
    directory_has_an_end();
    a_vip_takes_the_memory_of_the_backends_it_has();
    return 0;
}
