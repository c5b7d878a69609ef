/* What attackers send in numbers, in simulated time: SYNs of strangers, and tuples chosen to collide. `test_floods MS`
 * floods with a million SYNs a second for that long. */
#include "crowd.h"
#include "flowtable.h"

/* ------------------------------------------------------------------------------- SYNs */

enum {
    ESTABLISHED = 50000,
    CAPACITY = 131072,
    HALF_OPEN_MAX = CAPACITY / 4,
    FLOOD_VECTOR_US = VECTOR, /* a million a second */
    RTT_VECTORS = 80,         /* 20 ms; the pool holds 32 ms of the flood */
    NEWCOMERS = 4,            /* that begin with every vector: 16,000 a second */
    MILLISECONDS = 120,
};

/* A share of the established flows speaks; a packet that reaches another backend, or none, ends the test. */
static void established_speak(crowd_t *c, uint32_t *next)
{
    enum { SPEAKERS = 64 };
    for (uint32_t i = 0; i < SPEAKERS; i++) {
        crowd_client(c, i, (*next + i) % ESTABLISHED, ACK | PSH, PAYLOAD);
    }
    crowd_forward(c, SPEAKERS);
    *next = (*next + SPEAKERS) % ESTABLISHED;
}

/* Newcomers first .. first + NEWCOMERS - 1 answer the SYN-ACK of their server a round trip after their SYN. Returns how
 * many of them are established then. */
static uint32_t complete(crowd_t *c, uint32_t first)
{
    uint32_t done = 0;
    for (uint32_t i = 0; i < NEWCOMERS; i++) {
        crowd_server(c, i, first + i, SYN | ACK);
    }
    lbrl_process(c->worker, c->packets, NEWCOMERS, c->now_us);
    bool answered[NEWCOMERS];
    for (uint32_t i = 0; i < NEWCOMERS; i++) {
        answered[i] = c->packets[i].verdict == LBRL_VERDICT_FORWARD;
        crowd_client(c, i, first + i, ACK, 0);
    }
    lbrl_process(c->worker, c->packets, NEWCOMERS, c->now_us);
    for (uint32_t i = 0; i < NEWCOMERS; i++) {
        done += answered[i] && c->packets[i].verdict == LBRL_VERDICT_FORWARD;
    }
    return done;
}

static void syns_of_strangers_cost_nobody_anything(uint32_t milliseconds)
{
    const uint32_t vectors = milliseconds * 1000 / FLOOD_VECTOR_US;
    const crowd_plan_t plan = {CAPACITY, ESTABLISHED + vectors * NEWCOMERS, 1, 16,
                               LBRL_LEVEL_BASIC};
    crowd_t *c = crowd_make(&plan);
    crowd_open(c, ESTABLISHED);
    uint32_t speaker = 0, completed = 0, tried = 0;
    for (uint32_t i = 0; i < vectors; i++) {
        const uint64_t begin = c->now_us;
        crowd_strangers(c, VECTOR);
        for (uint32_t k = 0; k < VECTOR; k++) {
            CHECK_EQUAL(c->packets[k].verdict, LBRL_VERDICT_FORWARD);
        }
        established_speak(c, &speaker);
        crowd_syn(c, ESTABLISHED + i * NEWCOMERS, NEWCOMERS);
        if (i >= RTT_VECTORS) {
            completed += complete(c, ESTABLISHED + (i - RTT_VECTORS) * NEWCOMERS);
            tried += NEWCOMERS;
        }
        c->now_us = begin; /* the steps above have let time pass */
        crowd_tick(c, FLOOD_VECTOR_US);
        lbrl_stats_t stats;
        lbrl_stats(c->lb, &stats);
        CHECK(stats.half_open <= HALF_OPEN_MAX);
        CHECK(stats.flows <= ESTABLISHED + completed + HALF_OPEN_MAX);
    }
    CHECK(completed >= tried - tried / 100);
    for (uint32_t first = 0; first < ESTABLISHED; first += VECTOR) {
        const uint32_t left = ESTABLISHED - first;
        crowd_step(c, first, left < VECTOR ? left : VECTOR, true, ACK);
    }
    printf("%u SYNs in %u ms: %u of %u new connections\n", vectors * VECTOR, milliseconds,
           completed, tried);
    crowd_free(c);
}

/* In a large table what bounds half-open flows are the ports of each backend. With many backends few of the oldest
 * flows are the one's whose ports are scarce: a SYN is not lost for that. */
static void a_flood_over_many_backends_finds_ports(void)
{
    enum { SYNS = 1 << 18 };
    const crowd_plan_t plan = {1 << 20, 1, 1, 32, LBRL_LEVEL_OFF};
    crowd_t *c = crowd_make(&plan);
    for (uint32_t i = 0; i < SYNS; i += VECTOR) {
        crowd_strangers(c, VECTOR);
        for (uint32_t k = 0; k < VECTOR; k++) {
            CHECK_EQUAL(c->packets[k].verdict, LBRL_VERDICT_FORWARD);
        }
    }
    lbrl_stats_t stats;
    lbrl_stats(c->lb, &stats);
    CHECK(stats.flows_recycled > 0);
    crowd_free(c);
}

/* ------------------------------------------------------------------------------- tuples that collide */

enum { TABLE = 4096, AIMED = 3900, BUCKETS_AIMED = 512 };

/* A tuple that falls into bucket 0 of a table whose hash has no secret, or any tuple. */
static void choose_tuple(bool aimed, uint64_t *random, char client[24], uint16_t *port)
{
    static const lbrl_key_t no_secret = {0, 0};
    const lbrl_address_t vip_bytes = address_of("203.0.113.10");
    ip_t vip, src;
    memcpy(&vip, vip_bytes.bytes, sizeof(vip));
    uint64_t hash;
    do {
        *random = *random * 6364136223846793005u + 1442695040888963407u;
        *port = (uint16_t)(1024 + (*random >> 33) % 60000);
        snprintf(client, 24, "100.%u.%u.%u", 64 + (unsigned)(*random >> 50 & 63),
                 (unsigned)(*random >> 56), 1 + (unsigned)(*random >> 40 & 127));
        const lbrl_address_t bytes = address_of(client);
        memcpy(&src, bytes.bytes, sizeof(src));
        hash = tuple_hash(&no_secret, &src, &vip, swap16(*port), swap16(80), PROTO_TCP);
    } while (aimed && hash % BUCKETS_AIMED != 0);
}

/* Connections out of AIMED that find no place in the table. */
static uint32_t refused(uint8_t seed, bool aimed)
{
    rig_t rig = rig_seeded(TABLE, 1, seed);
    rig_set_sources(&rig);
    rig_set_standard_vips(&rig, 4);
    uint64_t random = seed;
    uint32_t failures = 0;
    for (uint32_t i = 0; i < AIMED; i++) {
        char client[24];
        uint16_t port;
        choose_tuple(aimed, &random, client, &port);
        connection_t c = connection_make(&rig, client, port, "203.0.113.10");
        if (connection_syn(&c) == LBRL_VERDICT_FORWARD) {
            connection_server(&c, SYN, 0);
            connection_client(&c, 0, 0);
        } else {
            failures++;
        }
    }
    rig_free(&rig);
    return failures;
}

static void tuples_that_collide_elsewhere_are_like_any_others(void)
{
    uint32_t random = 0, aimed = 0;
    for (uint8_t seed = 1; seed <= 4; seed++) {
        random += refused(seed, false);
        aimed += refused(seed, true);
    }
    CHECK(random > 0); /* nearly full: partitions fill up one by one */
    CHECK(aimed <= 2 * random);
    printf("refused: %u aimed, %u random\n", aimed, random);
}

static void the_smallest_table_takes_a_connection(void)
{
    rig_t rig = rig_tiny(); /* an entry or two to a partition: a share of that is none */
    rig_set_sources(&rig);
    rig_set_standard_vips(&rig, 2);
    connection_t connection = connection_make(&rig, "198.51.100.7", 40000, "203.0.113.10");
    connection_open(&connection);
    rig_free(&rig);
}

int main(int argc, char **argv)
{
    the_smallest_table_takes_a_connection();
    syns_of_strangers_cost_nobody_anything(argc > 1 ? (uint32_t)atoi(argv[1]) : MILLISECONDS);
    a_flood_over_many_backends_finds_ports();
    tuples_that_collide_elsewhere_are_like_any_others();
    return 0;
}
