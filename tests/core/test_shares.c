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

/* ------------------------------------------------------------------------------- slots */

enum {
    PLACES = 16,        /* VIPs of a rig's directory, and 512 slots */
    OWN = 3,            /* VIPs that a rig begins with */
    SHARE_BACKENDS = 8, /* half of 512 slots over 16 VIPs: 16 slots */
    WIDE_BACKENDS = 64, /* 128 slots */
    WIDE_ID = 100,
    NARROW_ID = 200,
};

static int set_vip(rig_t *rig, uint64_t id, uint32_t backends)
{
    lbrl_backend_config_t backend[WIDE_BACKENDS];
    lbrl_vip_config_t config = rig_vip(id, "203.0.113.99", (uint16_t)id, 6, backend, backends);
    return lbrl_vip_set(rig->lb, &config, rig->now_us);
}

/* Sets VIPs with many backends until none has room; returns how many have. */
static unsigned set_wide_vips(rig_t *rig)
{
    unsigned set = 0;
    while (set_vip(rig, WIDE_ID + set, WIDE_BACKENDS) == LBRL_OK) {
        set++;
    }
    return set;
}

static void check_that_all_other_vips_get_their_share(rig_t *rig, unsigned wide)
{
    for (unsigned i = wide + OWN; i < PLACES; i++) {
        CHECK_EQUAL(set_vip(rig, NARROW_ID + i, 1), LBRL_OK);
    }
    for (unsigned i = wide + OWN; i < PLACES; i++) {
        CHECK_EQUAL(set_vip(rig, NARROW_ID + i, SHARE_BACKENDS), LBRL_OK);
    }
}

static void wide_vips_leave_all_others_their_slots(void)
{
    rig_t rig = rig_make(1, 4);
    const unsigned wide = set_wide_vips(&rig);
    CHECK_EQUAL(wide, 2);
    check_that_all_other_vips_get_their_share(&rig, wide);
    rig_free(&rig);
}

static void wide_vips_leave_all_others_their_slots_after_a_restart(void)
{
    rig_t rig = rig_make(1, 4);
    const unsigned wide = set_wide_vips(&rig);
    rig_restart(&rig);
    check_that_all_other_vips_get_their_share(&rig, wide);
    rig_free(&rig);
}

/* Of 512 slots: shares of 16 and two wide VIPs; of 320: shares of 8, and no room for both behind them. */
static void wide_vips_leave_all_others_their_slots_after_an_import(uint32_t slots, bool shared)
{
    rig_t old = rig_make(1, 4);
    const unsigned wide = set_wide_vips(&old);
    CHECK_EQUAL(set_vip(&old, NARROW_ID, SHARE_BACKENDS), LBRL_OK);
    connection_t c = of_greedy(&old, 1);
    connection_open(&c);
    lbrl_close(old.lb);
    rig_t rig = {.config = old.config, .now_us = old.now_us};
    rig.config.slots = slots;
    rig.arena_size = lbrl_arena_size(&rig.config);
    rig.arena = aligned_alloc(64, (rig.arena_size + 63) / 64 * 64);
    CHECK(rig.arena != NULL);
    memset(rig.arena, 0, rig.arena_size);
    CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
    CHECK_EQUAL(lbrl_import(rig.lb, old.arena, old.arena_size, rig.now_us, &rig.report), 0);
    CHECK_EQUAL(rig.report.vips, wide + OWN + 1);
    CHECK_EQUAL(rig.report.flows, 1);
    c.rig = &rig;
    CHECK_EQUAL(connection_client(&c, 0, 10), LBRL_VERDICT_FORWARD);
    if (shared) {
        check_that_all_other_vips_get_their_share(&rig, wide + 1);
    }
    free(old.arena);
    rig_free(&rig);
}

/* It grows where it is: slots of its present backends keep their flows, there and after a restart. */
static void a_vip_that_grows_within_its_share_keeps_its_flows(void)
{
    rig_t rig = rig_make(1, 2);
    connection_t c = of_greedy(&rig, 1);
    connection_open(&c);
    lbrl_backend_config_t backends[SHARE_BACKENDS];
    lbrl_vip_config_t config = rig_vip(1, GREEDY, 80, 6, backends, SHARE_BACKENDS);
    (void)set_wide_vips(&rig);
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), LBRL_OK);
    CHECK_EQUAL(connection_client(&c, 0, 10), LBRL_VERDICT_FORWARD);
    rig_restart(&rig);
    CHECK_EQUAL(rig.report.flows, 1);
    CHECK_EQUAL(connection_client(&c, 0, 10), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_server(&c, 0, 10), LBRL_VERDICT_FORWARD);
    rig_free(&rig);
}

/* One open connection keeps the place of a removed VIP until its drain ends, which it does where a VIP needs the place. */
static void a_removed_vip_leaves_its_place_to_a_wanted_one(void)
{
    rig_t rig = rig_make(1, 2);
    connection_t first = of_greedy(&rig, 1), second = of_modest(&rig, 1);
    const uint64_t wanted = WIDE_ID;
    connection_open(&first);
    connection_open(&second);
    check_that_all_other_vips_get_their_share(&rig, 0);
    CHECK_EQUAL(lbrl_vip_remove(rig.lb, 1, rig.now_us), LBRL_OK);
    rig_pass(&rig, 1000);
    CHECK_EQUAL(lbrl_vip_remove(rig.lb, 2, rig.now_us), LBRL_OK);
    rig_pass(&rig, 1000);
    CHECK_EQUAL(set_vip(&rig, wanted, 1), LBRL_ERR_EXHAUSTED);
    lbrl_drain_end_for(rig.lb, wanted, rig.now_us);
    rig_pass(&rig, 5000);
    CHECK_EQUAL(set_vip(&rig, wanted, 1), LBRL_ERR_EXHAUSTED);
    lbrl_drain_end_for(rig.lb, wanted, rig.now_us); /* costs no other VIP its drain */
    CHECK_EQUAL(connection_client(&first, 0, 10), LBRL_VERDICT_REPLY); /* RST */
    rig_pass(&rig, 5000);
    CHECK_EQUAL(set_vip(&rig, wanted, 1), LBRL_OK);
    CHECK_EQUAL(connection_client(&second, 0, 10), LBRL_VERDICT_FORWARD);
    rig_free(&rig);
}

int main(void)
{
    a_removed_vip_leaves_its_place_to_a_wanted_one();
    wide_vips_leave_all_others_their_slots();
    wide_vips_leave_all_others_their_slots_after_a_restart();
    wide_vips_leave_all_others_their_slots_after_an_import(512, true);
    wide_vips_leave_all_others_their_slots_after_an_import(1024, true);
    wide_vips_leave_all_others_their_slots_after_an_import(320, false);
    a_vip_that_grows_within_its_share_keeps_its_flows();
    full_table_has_room_for_a_vip_below_its_share();
    flood_of_one_vip_costs_no_handshake_of_another();
    vip_below_its_share_gets_ports_of_a_server_that_others_have_too();
    shares_hold_after_a_restart();
    return 0;
}
