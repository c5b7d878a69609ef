/* Silent connections are kept for long, and make room for new ones when there is none: the longest silent first. */
#include "rig.h"

static const char *const CLIENT = "198.51.100.7";
static const char *const VIP = "203.0.113.10";

enum { FLOWS = 4096, MOST = 6000 };

static connection_t made[MOST];

/* Opens connections until one finds no room. Returns how many there are; that one is the next. */
static uint32_t fill(rig_t *rig, lbrl_drop_t reason)
{
    for (uint32_t i = 0; i < MOST; i++) {
        made[i] = connection_make(rig, CLIENT, (uint16_t)(20000 + i), VIP);
        if (connection_syn(&made[i]) != LBRL_VERDICT_FORWARD) {
            CHECK_EQUAL(made[i].packet.p.reason, reason);
            return i;
        }
        CHECK_EQUAL(connection_server(&made[i], SYN, 0), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_client(&made[i], 0, 0), LBRL_VERDICT_FORWARD);
    }
    CHECK(false);
    return 0;
}

/* Each connection says something, in an order that is not that of their entries. */
static void all_talk(rig_t *rig, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        CHECK_EQUAL(connection_client(&made[i * 7919u % n], PSH, 10), LBRL_VERDICT_FORWARD);
        rig->now_us += 2000;
    }
}

static void longest_silent(const rig_t *rig, lbrl_flow_info_t *longest)
{
    lbrl_flow_info_t flow;
    uint64_t cursor = 0;
    memset(longest, 0, LBRL_PARTITIONS * sizeof(*longest));
    while (lbrl_flow_next(rig->lb, &cursor, rig->now_us, &flow)) {
        if (flow.idle_ms >= longest[flow.partition].idle_ms) {
            longest[flow.partition] = flow;
        }
    }
}

static bool is_there(const connection_t *c)
{
    return connection_flow(c).state != LBRL_FLOW_FREE;
}

static uint64_t evicted(const rig_t *rig)
{
    lbrl_stats_t stats;
    lbrl_stats(rig->lb, &stats);
    return stats.flows_evicted;
}

static void longest_silent_connection_makes_room_in_a_full_table(void)
{
    rig_t rig = rig_make(1, 2);
    uint32_t n = fill(&rig, LBRL_DROP_TABLE_FULL);
    CHECK_EQUAL(evicted(&rig), 0); /* nobody has been silent for long enough */
    all_talk(&rig, n);
    rig.now_us += 31000000;
    lbrl_flow_info_t longest[LBRL_PARTITIONS];
    longest_silent(&rig, longest);
    made[n].client_next = 1;
    connection_open(&made[n]);
    CHECK_EQUAL(evicted(&rig), 1);
    const lbrl_flow_info_t *victim = &longest[connection_flow(&made[n]).partition];
    for (uint32_t i = 0; i < n; i++) {
        CHECK_EQUAL(is_there(&made[i]), made[i].client_port != victim->client_port);
        if (!is_there(&made[i])) {
            CHECK_EQUAL(connection_client(&made[i], PSH, 10), LBRL_VERDICT_REPLY);
            CHECK_EQUAL(look(&made[i].packet.p).flags, RST);
        }
    }
    rig_free(&rig);
}

static void connections_that_talk_make_no_room(void)
{
    rig_t rig = rig_make(1, 2);
    uint32_t n = fill(&rig, LBRL_DROP_TABLE_FULL);
    for (int i = 0; i < 4; i++) {
        rig.now_us += 20000000;
        for (uint32_t j = 0; j < n; j++) {
            CHECK_EQUAL(connection_client(&made[j], PSH, 10), LBRL_VERDICT_FORWARD);
        }
    }
    made[n].client_next = 1;
    CHECK(connection_syn(&made[n]) != LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(evicted(&rig), 0);
    rig_free(&rig);
}

/* One that is closed goes before any that is open. */
static void closed_connections_go_first(void)
{
    rig_t rig = rig_make(1, 2);
    uint32_t n = fill(&rig, LBRL_DROP_TABLE_FULL);
    rig.now_us += 31000000;
    for (uint32_t i = 0; i < n; i++) {
        (void)connection_client(&made[i], RST, 0);
    }
    made[n].client_next = 1;
    connection_open(&made[n]);
    CHECK_EQUAL(evicted(&rig), 0);
    rig_free(&rig);
}

static void silent_connections_give_their_nat_ports_to_new_ones(void)
{
    rig_t rig = rig_make(1, 1);
    lbrl_nat_source_t few = {address_of("192.0.2.1"), 16384, 16384 + 4 * 64 - 1};
    CHECK_EQUAL(lbrl_sources_set(rig.lb, &few, 1), 0);
    rig_pass(&rig, 1000);
    uint32_t n = fill(&rig, LBRL_DROP_NO_NAT_PORT);
    rig.now_us += 31000000;
    made[n].client_next = 1;
    connection_open(&made[n]);
    CHECK_EQUAL(evicted(&rig), 1);
    uint32_t there = 0;
    for (uint32_t i = 0; i < n; i++) {
        there += is_there(&made[i]);
    }
    CHECK_EQUAL(there, n - 1);
    rig_free(&rig);
}

static void silence_of_two_hours_is_kept_by_default(void)
{
    CHECK_EQUAL(lbrl_timeouts_default().tcp_established, (2 * 60 + 4) * 60 * 1000);
}

int main(void)
{
    longest_silent_connection_makes_room_in_a_full_table();
    connections_that_talk_make_no_room();
    closed_connections_go_first();
    silent_connections_give_their_nat_ports_to_new_ones();
    silence_of_two_hours_is_kept_by_default();
    return 0;
}
