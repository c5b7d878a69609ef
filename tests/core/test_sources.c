/* NAT sources: shared, checked, replaced while flows of the old ones go. */
#include "rig.h"

static const char *const CLIENT = "198.51.100.7";
static const char *const VIP = "203.0.113.10";

static lbrl_nat_source_t source(const char *address, uint16_t first, uint16_t last)
{
    return (lbrl_nat_source_t){address_of(address), first, last};
}

static void bad_sources_are_refused(void)
{
    rig_t rig = rig_make(1, 1);
    const struct {
        lbrl_nat_source_t source;
        int error;
    } cases[] = {{source("192.0.2.9", 960, 28671), LBRL_ERR_INVALID},
                 {source("192.0.2.9", 16385, 28671), LBRL_ERR_INVALID},
                 {source("192.0.2.9", 16384, 28670), LBRL_ERR_INVALID},
                 {source("192.0.2.9", 16384, 16384), LBRL_ERR_INVALID},
                 {source("203.0.113.10", 1024, 28671), LBRL_OK},
                 {source("0.0.0.0", 16384, 28671), LBRL_OK}};
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQUAL(lbrl_sources_set(rig.lb, &cases[i].source, 1), cases[i].error);
    }
    lbrl_nat_source_t zero = {.port_first = 16384, .port_last = 28671};
    CHECK_EQUAL(lbrl_sources_set(rig.lb, &zero, 1), LBRL_ERR_INVALID);
    lbrl_nat_source_t many[LBRL_SOURCES_MAX + 1];
    CHECK_EQUAL(lbrl_sources_set(rig.lb, many, LBRL_SOURCES_MAX + 1), LBRL_ERR_INVALID);
    lbrl_nat_source_t twice[2] = {source("192.0.2.9", 16384, 28671),
                                  source("192.0.2.9", 20480, 32767)};
    CHECK_EQUAL(lbrl_sources_set(rig.lb, twice, 2), LBRL_ERR_CONFLICT);
    lbrl_backend_config_t backends[1];
    lbrl_vip_config_t config = rig_vip(20, "203.0.113.44", 20000, 6, backends, 1);
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    lbrl_nat_source_t covers = source("203.0.113.44", 16384, 28671);
    CHECK_EQUAL(lbrl_sources_set(rig.lb, &covers, 1), LBRL_ERR_CONFLICT);
    connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&c); /* the old ones are still in force */
    rig_free(&rig);
}

static void vip_and_source_may_share_an_address(void)
{
    rig_t rig = rig_make(1, 1);
    lbrl_nat_source_t node = source(VIP, 16384, 28671);
    CHECK_EQUAL(lbrl_sources_set(rig.lb, &node, 1), 0);
    connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&c);
    CHECK(is_address(&c.source, VIP));
    CHECK_EQUAL(connection_server(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    rig_free(&rig);
}

static void flows_of_a_source_that_goes_are_dropped_and_its_ports_reused(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&c);
    lbrl_nat_source_t wider = source("192.0.2.1", 16384, 32767); /* overlaps the old range: waits */
    CHECK_EQUAL(lbrl_sources_set(rig.lb, &wider, 1), 0);
    connection_t early = connection_make(&rig, CLIENT, 40001, VIP);
    CHECK_EQUAL(connection_syn(&early), LBRL_VERDICT_DROP);
    CHECK_EQUAL(early.packet.p.reason, LBRL_DROP_NO_NAT_PORT);
    rig_pass(&rig, 2500);
    CHECK_EQUAL(connection_flow(&c).state, LBRL_FLOW_FREE);
    connection_open(&early);
    rig_restart(&rig);
    CHECK_EQUAL(rig.report.flows, 1);
    CHECK_EQUAL(connection_client(&early, PSH, 10), LBRL_VERDICT_FORWARD);
    rig_free(&rig);
}

static void a_source_that_waits_has_its_ports_already(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&c);
    lbrl_nat_source_t wider = source("192.0.2.1", 16384, 32767);
    CHECK_EQUAL(lbrl_sources_set(rig.lb, &wider, 1), 0);
    lbrl_backend_config_t backends[1];
    for (unsigned waits = 2; waits-- > 0;) {
        lbrl_vip_config_t config = rig_vip(20, "192.0.2.1", 30000, 6, backends, 1);
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), LBRL_ERR_CONFLICT);
        config.port = 32768;
        CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
        CHECK_EQUAL(lbrl_vip_remove(rig.lb, 20, rig.now_us), 0);
        rig_pass(&rig, 2500); /* the flow of the old one goes */
    }
    connection_t late = connection_make(&rig, CLIENT, 40001, VIP);
    connection_open(&late);
    rig_free(&rig);
}

/* What somebody else must route to us is told, after a restart too, before anybody has said it again. */
static void addresses_that_are_ours_are_told_from_the_arena(void)
{
    rig_t rig = rig_make(1, 1);
    for (int restarted = 0; restarted < 2; restarted++) {
        lbrl_nat_source_t sources[4];
        lbrl_address_t expected = address_of("192.0.2.1");
        CHECK_EQUAL(lbrl_sources(rig.lb, sources, 4), 2);
        CHECK(memcmp(&sources[0].address, &expected, sizeof(expected)) == 0);
        CHECK_EQUAL(sources[0].port_first, 16384);
        CHECK_EQUAL(sources[0].port_last, 28671);
        CHECK_EQUAL(lbrl_sources(rig.lb, sources, 1), 2); /* told how many, not overrun */
        rig_restart(&rig);
    }
    CHECK_EQUAL(lbrl_sources_set(rig.lb, NULL, 0), 0);
    rig_pass(&rig, 2500);
    CHECK_EQUAL(lbrl_sources(rig.lb, NULL, 0), 0);
    rig_free(&rig);
}

static void source_that_comes_back_in_time_keeps_its_flows(void)
{
    rig_t rig = rig_make(1, 1);
    connection_t c = connection_make(&rig, CLIENT, 40000, VIP);
    connection_open(&c);
    CHECK_EQUAL(lbrl_sources_set(rig.lb, NULL, 0), 0);
    rig_set_sources(&rig);
    rig_pass(&rig, 3000);
    CHECK_EQUAL(connection_client(&c, PSH, 10), LBRL_VERDICT_FORWARD);
    rig_free(&rig);
}

static void sources_are_used_in_parallel(void)
{
    rig_t rig = rig_make(1, 1);
    lbrl_nat_source_t four[4];
    for (unsigned i = 0; i < 4; i++) {
        four[i] = source("192.0.2.10", 16384, 16383 + 128);
        four[i].address.bytes[15] = (uint8_t)(10 + i);
    }
    CHECK_EQUAL(lbrl_sources_set(rig.lb, four, 4), 0);
    unsigned seen = 0;
    for (uint16_t i = 0; i < 200; i++) { /* more than the 128 ports of one */
        connection_t c = connection_make(&rig, CLIENT, (uint16_t)(40000 + i), VIP);
        connection_open(&c);
        seen |= 1u << (c.source.bytes[15] - 10);
    }
    CHECK_EQUAL(seen, 15);
    /* replaced again and again: places of gone sources are used again */
    for (unsigned round = 0; round < 30; round++) {
        lbrl_nat_source_t one = source("192.0.2.100", 16384, 28671);
        one.address.bytes[15] = (uint8_t)(100 + round);
        CHECK_EQUAL(lbrl_sources_set(rig.lb, &one, 1), 0);
        rig_pass(&rig, 2500);
        connection_t c = connection_make(&rig, CLIENT, (uint16_t)(50000 + round), VIP);
        connection_open(&c);
        CHECK_EQUAL(c.source.bytes[15], 100 + round);
    }
    rig_free(&rig);
}

int main(void)
{
    bad_sources_are_refused();
    vip_and_source_may_share_an_address();
    addresses_that_are_ours_are_told_from_the_arena();
    flows_of_a_source_that_goes_are_dropped_and_its_ports_reused();
    a_source_that_waits_has_its_ports_already();
    source_that_comes_back_in_time_keeps_its_flows();
    sources_are_used_in_parallel();
    return 0;
}
