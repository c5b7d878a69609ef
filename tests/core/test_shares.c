/* VIPs share a worker's memory: each gets its share, whatever the others hold. */
#include "rig.h"

#include <stdio.h>

enum {
    CAPACITY = 4096,
    OTHERS = 500, /* connections of the other VIP: less than its share, a third */
    HANDSHAKES = 50,
};

static const char *const GREEDY = "203.0.113.10", *const MODEST = "1:10";

static connection_t of_greedy(rig_t *rig, unsigned number)
{
    static char names[4][32];
    static unsigned turn;
    char *name = names[turn++ % 4];
    snprintf(name, sizeof(names[0]), "198.18.%u.%u", number / 250 % 250, number % 250 + 1);
    return connection_make(rig, name, (uint16_t)(1024 + number / 62500), GREEDY);
}

static connection_t of_modest(rig_t *rig, unsigned number)
{
    return connection_make(rig, "5:1", (uint16_t)(1024 + number), MODEST);
}

/* Opens connections of the greedy VIP until it has had twice as many as the table holds. */
static unsigned fill(rig_t *rig)
{
    unsigned opened = 0;
    for (unsigned i = 0; i < 2 * CAPACITY; i++) {
        connection_t c = of_greedy(rig, i);
        if (connection_syn(&c) == LBRL_VERDICT_FORWARD) {
            connection_server(&c, SYN, 0);
            connection_client(&c, 0, 0);
            opened++;
        }
    }
    return opened;
}

static uint32_t flows_of(rig_t *rig, unsigned count)
{
    uint32_t found = 0;
    for (unsigned i = 0; i < count; i++) {
        connection_t c = of_modest(rig, i);
        found += connection_flow(&c).state != LBRL_FLOW_FREE;
    }
    return found;
}

/* All flows have just had packets: none is idle for long. */
static void full_table_has_room_for_a_vip_below_its_share(void)
{
    rig_t rig = rig_make(1, 4);
    CHECK(fill(&rig) >= CAPACITY * 9 / 10);
    rig_pass(&rig, 1000);
    for (unsigned i = 0; i < OTHERS; i++) {
        connection_t c = of_modest(&rig, i);
        connection_open(&c);
    }
    CHECK_EQUAL(flows_of(&rig, OTHERS), OTHERS);
    (void)fill(&rig);
    CHECK_EQUAL(flows_of(&rig, OTHERS), OTHERS);
    rig_recount(&rig, 1);
    rig_recount(&rig, 2);
    rig_free(&rig);
}

static void flood_of_one_vip_costs_no_handshake_of_another(void)
{
    rig_t rig = rig_make(1, 4);
    connection_t waiting[HANDSHAKES];
    for (unsigned i = 0; i < HANDSHAKES; i++) {
        waiting[i] = of_modest(&rig, i);
        CHECK_EQUAL(connection_syn(&waiting[i]), LBRL_VERDICT_FORWARD);
    }
    for (unsigned i = 0; i < 2 * CAPACITY; i++) {
        connection_t c = of_greedy(&rig, i);
        CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
    }
    for (unsigned i = 0; i < HANDSHAKES; i++) { /* nor do its own next ones */
        connection_t c = of_modest(&rig, HANDSHAKES + i);
        CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_FORWARD);
    }
    for (unsigned i = 0; i < HANDSHAKES; i++) {
        CHECK_EQUAL(connection_server(&waiting[i], SYN, 0), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_client(&waiting[i], 0, 0), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_flow(&waiting[i]).state, LBRL_FLOW_ESTABLISHED);
    }
    rig_free(&rig);
}

/* The same of NAT ports, where two VIPs have one server: the greedy one holds all of them. */
static void vip_below_its_share_gets_ports_of_a_server_that_others_have_too(void)
{
    rig_t rig = rig_make(1, 1);
    const lbrl_nat_source_t source = {address_of("192.0.2.1"), 16384, 16384 + CAPACITY / 2 - 1};
    lbrl_backend_config_t backend;
    lbrl_vip_config_t config = rig_vip(9, "203.0.113.11", 80, 6, &backend, 1);
    CHECK_EQUAL(lbrl_sources_set(rig.lb, &source, 1), 0);
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    rig_pass(&rig, 1000);
    CHECK(fill(&rig) >= CAPACITY / 2);
    for (unsigned i = 0; i < OTHERS; i++) {
        connection_t c =
            connection_make(&rig, "198.51.100.7", (uint16_t)(1024 + i), "203.0.113.11");
        connection_open(&c);
    }
    rig_free(&rig);
}

/* Counts of what each VIP holds come back with the arena. */
static void shares_hold_after_a_restart(void)
{
    rig_t rig = rig_make(1, 4);
    (void)fill(&rig);
    rig_restart(&rig);
    for (unsigned i = 0; i < OTHERS; i++) {
        connection_t c = of_modest(&rig, i);
        connection_open(&c);
    }
    CHECK_EQUAL(flows_of(&rig, OTHERS), OTHERS);
    rig_free(&rig);
}

int main(void)
{
    full_table_has_room_for_a_vip_below_its_share();
    flood_of_one_vip_costs_no_handshake_of_another();
    vip_below_its_share_gets_ports_of_a_server_that_others_have_too();
    shares_hold_after_a_restart();
    return 0;
}
