/*
 * Connections whose tuples the index cannot tell apart: of equal partition, bucket and tag. A flow is found by its whole
 * tuple, so that each keeps its backend, its NAT port and its place in the counts.
 */
#include "internal.h"
#include "rig.h"

enum {
    CANDIDATES = 60000,
    PAIRS = 8,
};

typedef struct candidate {
    uint64_t place; /* partition, bucket and tag */
    uint32_t number;
} candidate_t;

static const char *const VIPS[2] = {"203.0.113.10", "1:10"};

/* Each number is a client of its own. */
static void name_client(char text[24], uint32_t number, bool v6)
{
    if (v6) {
        snprintf(text, 24, "64:%x", number % 65521);
    } else {
        snprintf(text, 24, "100.64.%u.%u", number / 250, 1 + number % 250);
    }
}

static uint16_t port_of(uint32_t number)
{
    return (uint16_t)(1024 + number);
}

static uint64_t place_of(const rig_t *rig, uint32_t number, bool v6)
{
    char text[24];
    name_client(text, number, v6);
    lbrl_address_t client = address_of(text), vip = address_of(VIPS[v6]);
    ip_t src, dst;
    memcpy(&src, &client, sizeof(src));
    memcpy(&dst, &vip, sizeof(dst));
    const uint64_t hash =
        tuple_hash(&rig->lb->key, &src, &dst, swap16(port_of(number)), swap16(80), 6);
    const uint32_t partition = hash & (LBRL_PARTITIONS - 1);
    const flow_index_t *index = &rig->lb->partitions[partition].index[BY_CLIENT];
    const uint64_t bucket = (uint64_t)(index_home(index, hash) - index->buckets);
    return (uint64_t)partition << 48 | bucket << 16 | index_tag(hash);
}

static int by_place(const void *a, const void *b)
{
    const uint64_t x = ((const candidate_t *)a)->place, y = ((const candidate_t *)b)->place;
    return (x > y) - (x < y);
}

/* Numbers of clients that collide, two by two. */
static void find_pairs(const rig_t *rig, bool v6, uint32_t pairs[PAIRS][2])
{
    static candidate_t candidates[CANDIDATES];
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        candidates[i] = (candidate_t){place_of(rig, i, v6), i};
    }
    qsort(candidates, CANDIDATES, sizeof(candidates[0]), by_place);
    uint32_t n = 0;
    for (uint32_t i = 1; i < CANDIDATES && n < PAIRS; i++) {
        if (candidates[i].place == candidates[i - 1].place) {
            pairs[n][0] = candidates[i - 1].number;
            pairs[n++][1] = candidates[i++].number;
        }
    }
    CHECK_EQUAL(n, PAIRS);
}

/* Segments of both by turns, in one vector: what was found for one is not taken for the other. */
static void send_together(rig_t *rig, connection_t *c)
{
    enum { TURNS = 16 };
    static test_packet_t made[TURNS];
    lbrl_packet_t packets[TURNS];
    for (uint32_t i = 0; i < TURNS; i++) {
        connection_t *from = &c[i % 3 == 0];
        tcp_fields_t tcp = {
            .sequence = from->client_next, .ack = from->server_next, .flags = ACK | PSH};
        make_tcp(&made[i], from->client, from->client_port, from->vip, 80, &tcp, 10);
        from->client_next += 10;
        packets[i] = made[i].p;
    }
    rig->now_us += 10;
    lbrl_process(lbrl_worker(rig->lb, 0), packets, TURNS, rig->now_us);
    for (uint32_t i = 0; i < TURNS; i++) {
        const connection_t *from = &c[i % 3 == 0];
        CHECK_EQUAL(packets[i].verdict, LBRL_VERDICT_FORWARD);
        const seen_t seen = look(&packets[i]);
        CHECK(memcmp(&seen.dst, &from->backend, sizeof(seen.dst)) == 0);
        CHECK_EQUAL(seen.sport, from->nat_port);
    }
}

static void tuples_that_collide_keep_their_backends(bool v6)
{
    rig_t rig = rig_make(1, 8);
    uint32_t pairs[PAIRS][2];
    char names[PAIRS][2][24];
    static connection_t c[PAIRS][2];
    find_pairs(&rig, v6, pairs);
    for (uint32_t p = 0; p < PAIRS; p++) {
        for (uint32_t i = 0; i < 2; i++) {
            name_client(names[p][i], pairs[p][i], v6);
            c[p][i] = connection_make(&rig, names[p][i], port_of(pairs[p][i]), VIPS[v6]);
            connection_open(&c[p][i]);
        }
        /* the least loaded of eight: never the same twice in a row */
        CHECK(memcmp(&c[p][0].backend, &c[p][1].backend, sizeof(c[p][0].backend)) != 0);
        send_together(&rig, c[p]);
    }
    rig_restart(&rig);
    CHECK_EQUAL(rig.report.flows, 2 * PAIRS);
    for (uint32_t p = 0; p < PAIRS; p++) {
        send_together(&rig, c[p]);
        connection_server(&c[p][0], FIN, 0); /* one of them goes */
        connection_client(&c[p][0], FIN, 0);
    }
    rig_pass(&rig, 70000);
    lbrl_stats_t stats;
    lbrl_stats(rig.lb, &stats);
    CHECK_EQUAL(stats.flows, PAIRS);
    for (uint32_t p = 0; p < PAIRS; p++) {
        CHECK_EQUAL(connection_client(&c[p][1], PSH, 10), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_server(&c[p][1], PSH, 10), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(connection_client(&c[p][0], PSH, 10), LBRL_VERDICT_REPLY);
        CHECK_EQUAL(c[p][0].packet.p.reason, LBRL_DROP_NO_FLOW);
    }
    rig_free(&rig);
}

int main(void)
{
    tuples_that_collide_keep_their_backends(false);
    tuples_that_collide_keep_their_backends(true);
    return 0;
}
