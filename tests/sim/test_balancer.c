/* A balancer of the simulator: connections go where the core's scheduler sends them, frames and weights pass through shared
 * memory. */
#include "balancer.h"

#include <string.h>

#include "check.h"

enum { SERVERS = 4, SLOTS_MAX = 64, START_US = 1000000 };

typedef struct seen {
    int64_t counters[LBRL_COUNTER_COUNT][SLOTS_MAX], peers[SLOTS_MAX];
    uint8_t generation[SLOTS_MAX], active[SLOTS_MAX], eligible[SLOTS_MAX];
    int16_t server[SLOTS_MAX];
    double configured[SLOTS_MAX];
    float weight[SLOTS_MAX], base[SLOTS_MAX];
} seen_t;

static sim_balancer_t *make(uint8_t level, uint8_t scheduler, uint8_t forwarding)
{
    static const uint8_t states[SERVERS] = {LBRL_BACKEND_ACTIVE, LBRL_BACKEND_ACTIVE,
                                            LBRL_BACKEND_ACTIVE, 0};
    static const float weights[SERVERS] = {1, 2, 3, 4};
    const sim_balancer_config_t config = {.servers = SERVERS,
                                          .balancers = 1,
                                          .flows = 4096,
                                          .level = level,
                                          .scheduler = scheduler,
                                          .load = LBRL_LOAD_ACTIVE,
                                          .forwarding = forwarding,
                                          .seed = 7,
                                          .now_us = START_US,
                                          .states = states,
                                          .weights = weights};
    sim_balancer_t *b = sim_balancer_make(&config);
    CHECK(b != NULL);
    CHECK(sim_balancer_slots(b) <= SLOTS_MAX);
    return b;
}

static void observe(sim_balancer_t *b, uint64_t now_us, seen_t *seen)
{
    memset(seen, 0, sizeof(*seen));
    sim_observation_t o = {.peers = seen->peers,
                           .generation = seen->generation,
                           .active = seen->active,
                           .eligible = seen->eligible,
                           .server = seen->server,
                           .configured = seen->configured,
                           .weight = seen->weight,
                           .base = seen->base};
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        o.counters[i] = seen->counters[i];
    }
    CHECK_EQUAL(sim_balancer_observe(b, now_us, &o), 0);
}

static uint32_t slot_of(const seen_t *seen, int server)
{
    for (uint32_t i = 0; i < SLOTS_MAX; i++) {
        if (seen->active[i] && seen->server[i] == server) {
            return i;
        }
    }
    CHECK(false); /* the server has a slot */
    return 0;
}

/* A whole connection of one request; the server that it went to. */
static uint32_t serve(sim_balancer_t *b, uint64_t now_us)
{
    lbrl_connection_t c;
    const uint32_t server = sim_balancer_open(b, now_us, &c);
    CHECK(server < SERVERS);
    CHECK(sim_balancer_establish(b, &c, now_us + 100));
    CHECK(sim_balancer_request(b, &c, now_us + 200, 300));
    CHECK(sim_balancer_response(b, &c, now_us + 50200, 200000)); /* three super-packets and more */
    CHECK(sim_balancer_close(b, &c, now_us + 50300));
    return server;
}

static void shares_follow_weights(void)
{
    sim_balancer_t *b = make(LBRL_LEVEL_FULL, LBRL_SCHEDULER_ALIAS, LBRL_FORWARD_NAT);
    seen_t seen;
    uint32_t count[SERVERS] = {0};
    uint64_t now_us = START_US;
    for (unsigned i = 0; i < 6000; i++, now_us += 1000) {
        count[serve(b, now_us)]++;
    }
    CHECK_EQUAL(count[3], 0); /* absent */
    CHECK_NEAR(count[0], 1000, 150);
    CHECK_NEAR(count[2], 3000, 200);
    observe(b, now_us, &seen);
    for (int i = 0; i < 3; i++) {
        const uint32_t slot = slot_of(&seen, i);
        CHECK_EQUAL(seen.counters[LBRL_COUNTER_N_FLOW][slot], count[i]);
        CHECK_EQUAL(seen.counters[LBRL_COUNTER_N_FCT][slot], count[i]);
        CHECK_EQUAL(seen.counters[LBRL_COUNTER_N_ACTIVE][slot], 0);
        CHECK_EQUAL(seen.counters[LBRL_COUNTER_N_FLOW_ON][slot], 0);
        CHECK(seen.eligible[slot]);
        CHECK_NEAR(seen.configured[slot], i + 1, 0);
    }
    float weights[SLOTS_MAX] = {0};
    weights[slot_of(&seen, 0)] = 1; /* all to server 0 */
    CHECK_EQUAL(sim_balancer_act(b, weights, NULL, false, now_us), 0);
    for (unsigned i = 0; i < 100; i++, now_us += 1000) {
        CHECK_EQUAL(serve(b, now_us), 0);
    }
    observe(b, now_us, &seen);
    CHECK_NEAR(seen.weight[slot_of(&seen, 0)], 1, 0);
    CHECK_NEAR(seen.weight[slot_of(&seen, 1)], 0, 0);
    sim_balancer_free(b);
}

static void flows_go_by_bases(void)
{
    sim_balancer_t *b = make(LBRL_LEVEL_FULL, LBRL_SCHEDULER_SED, LBRL_FORWARD_NAT);
    seen_t seen;
    uint64_t now_us = START_US;
    observe(b, now_us, &seen);
    float weights[SLOTS_MAX], bases[SLOTS_MAX];
    for (uint32_t i = 0; i < SLOTS_MAX; i++) {
        weights[i] = 1;
        bases[i] = 9;
    }
    bases[slot_of(&seen, 1)] = 0.5f;
    CHECK_EQUAL(sim_balancer_act(b, weights, bases, false, now_us), 0);
    for (unsigned i = 0; i < 100; i++, now_us += 1000) {
        CHECK_EQUAL(serve(b, now_us), 1);
    }
    observe(b, now_us, &seen);
    CHECK_NEAR(seen.base[slot_of(&seen, 1)], 0.5, 0);
    CHECK_NEAR(seen.base[slot_of(&seen, 0)], 9, 0);
    bases[0] = -1;
    CHECK_EQUAL(sim_balancer_act(b, weights, bases, NULL, now_us), LBRL_SHM_BAD_BASE);
    sim_balancer_free(b);
}

static void response_times_are_reduced(uint8_t forwarding)
{
    sim_balancer_t *b = make(LBRL_LEVEL_FULL, LBRL_SCHEDULER_SED, forwarding);
    seen_t seen;
    lbrl_reduction_t durations[SLOTS_MAX], answers[SLOTS_MAX];
    lbrl_reduction_t *const out[] = {durations, answers};
    static const lbrl_channel_t channels[] = {LBRL_CHANNEL_FCT, LBRL_CHANNEL_PT_GEN};
    uint64_t now_us = START_US;
    for (unsigned i = 0; i < 300; i++, now_us += 60000) {
        serve(b, now_us);
        sim_balancer_tick(b, now_us);
    }
    observe(b, now_us, &seen);
    CHECK_EQUAL(sim_balancer_reduce(b, channels, 2, now_us, out), 0);
    const uint32_t slot = slot_of(&seen, 2);
    CHECK_NEAR(durations[slot].avg, 0.0503, 1e-4);
    CHECK_NEAR(answers[slot].avg, 0.05, 1e-4);
    sim_balancer_free(b);
}

static void servers_come_go_and_fail(void)
{
    static const float weights[SERVERS] = {1, 1, 1, 1};
    uint8_t states[SERVERS] = {LBRL_BACKEND_FAILED, LBRL_BACKEND_DRAINING, 0, LBRL_BACKEND_ACTIVE};
    sim_balancer_t *b = make(LBRL_LEVEL_BASIC, LBRL_SCHEDULER_LSQ, LBRL_FORWARD_NAT);
    lbrl_connection_t c[3];
    bool known[3] = {false};
    uint64_t now_us = START_US;
    seen_t seen;
    for (unsigned i = 0; i < 3; i++) { /* LSQ: one each */
        const uint32_t server = sim_balancer_open(b, now_us, &c[i]);
        CHECK(server < 3 && !known[server]);
        known[server] = true;
        CHECK(sim_balancer_establish(b, &c[i], now_us));
    }
    CHECK_EQUAL(sim_balancer_set_servers(b, states, weights, now_us), 0);
    for (unsigned i = 0; i < 10; i++) {
        CHECK_EQUAL(serve(b, now_us += 1000), 3);
    }
    unsigned alive = 0;
    for (unsigned i = 0; i < 3; i++) {
        alive += sim_balancer_request(b, &c[i], now_us, 100);
    }
    CHECK_EQUAL(alive, 2); /* that of the draining server and that of the removed one go on */
    observe(b, now_us, &seen);
    CHECK(!seen.eligible[slot_of(&seen, 0)]);
    CHECK(!seen.eligible[slot_of(&seen, 1)]);
    CHECK(!seen.eligible[slot_of(&seen, 2)]);
    CHECK(seen.eligible[slot_of(&seen, 3)]);
    memset(states, 0, sizeof(states));
    CHECK_EQUAL(sim_balancer_set_servers(b, states, weights, now_us), 0);
    CHECK_EQUAL(sim_balancer_open(b, now_us, &c[0]), SIM_NO_SERVER);
    sim_balancer_free(b);
}

static void a_shared_view_moves_flows(void)
{
    sim_balancer_t *b = make(LBRL_LEVEL_FULL, LBRL_SCHEDULER_SED, LBRL_FORWARD_NAT);
    const uint32_t peers[SERVERS] = {0, 50, 50, 50};
    uint32_t flows[SERVERS];
    lbrl_connection_t c[3];
    seen_t seen;
    const lbrl_sharing_t how = lbrl_sharing_default();
    CHECK_EQUAL(sim_balancer_share(b, &how), 0);
    observe(b, START_US, &seen);
    CHECK_EQUAL(seen.peers[slot_of(&seen, 1)], -1);
    CHECK_EQUAL(sim_balancer_set_peers(b, peers, START_US), 0);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQUAL(sim_balancer_open(b, START_US, &c[i]), 0);
        CHECK(sim_balancer_establish(b, &c[i], START_US));
        CHECK(sim_balancer_request(b, &c[i], START_US, 100));
    }
    sim_balancer_flows(b, flows);
    CHECK_EQUAL(flows[0], 3);
    CHECK_EQUAL(flows[1], 0);
    observe(b, START_US, &seen);
    CHECK_EQUAL(seen.peers[slot_of(&seen, 1)], 50);
    sim_balancer_free(b);
}

static void any_number_of_servers_fits(void)
{
    uint8_t states[300];
    float weights[300];
    memset(states, LBRL_BACKEND_ACTIVE, sizeof(states));
    for (uint32_t i = 0; i < 300; i++) {
        weights[i] = 1;
    }
    for (uint32_t servers = 1; servers <= 300; servers++) {
        const sim_balancer_config_t config = {.servers = servers,
                                              .balancers = 1,
                                              .flows = 4096,
                                              .level = LBRL_LEVEL_OFF,
                                              .scheduler = LBRL_SCHEDULER_SED,
                                              .forwarding = LBRL_FORWARD_NAT,
                                              .seed = servers,
                                              .now_us = START_US,
                                              .states = states,
                                              .weights = weights};
        sim_balancer_t *b = sim_balancer_make(&config);
        CHECK(b != NULL);
        CHECK(sim_balancer_slots(b) >= servers);
        sim_balancer_free(b);
    }
}

int main(void)
{
    a_shared_view_moves_flows();
    any_number_of_servers_fits();
    shares_follow_weights();
    flows_go_by_bases();
    response_times_are_reduced(LBRL_FORWARD_NAT);
    response_times_are_reduced(LBRL_FORWARD_GRE);
    servers_come_go_and_fail();
    return 0;
}
