/*
 * Speed of the packet path alone, as ratios to a reference loop in the same run: per packet the core's own parsing, its
 * keyed hash and one random 64-byte load. The bar is against the loop that prefetches its loads in rounds of 32, as the
 * core does; the ratio to the loop that waits for each load is printed beside it. Prints a JSON object per line: {name,
 * value, unit}. Both sides of each ratio take turns, vector by vector, and medians are compared. Packets are IPv4 TCP
 * segments with timestamps and data, in vectors of 256.
 */

#define _GNU_SOURCE /* clock_gettime */
#include <time.h>

#include "flowtable.h"
#include "parse.h"
#include "rig.h"
#include "side.h"

enum {
    VECTOR = 256,
    ROOM = 256,
    HEADROOM_BYTES = 64,
    PAYLOAD = 64,
    HEADERS = 52, /* IPv4, TCP with timestamps */
    ROUNDS = 1501,
    SETUPS = 7,
    BACKENDS = 64,
    CLIENT_PORTS = 16384, /* per client address */
};

/* What the generator needs to know of each flow. */
typedef struct client_flow {
    uint32_t client_next, server_next;
    uint16_t nat_port;
    uint8_t backend, source;
} client_flow_t;

typedef struct bench {
    lbrl_t *lb;
    void *arena;
    lbrl_worker_t *worker;
    client_flow_t *flows;
    uint32_t count;
    uint64_t now_us, random;
    lbrl_packet_t packets[VECTOR];
    uint8_t rooms[VECTOR][ROOM] __attribute__((aligned(64)));
} bench_t;

static uint64_t nanoseconds(void)
{
    struct timespec now; /* of this thread: other work on the machine is not ours to count */
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof(*values), compare);
    return values[n / 2];
}

static void print(const char *name, double value, const char *unit)
{
    printf("{\"name\": \"%s\", \"value\": %.4g, \"unit\": \"%s\"}\n", name, value, unit);
}

/* ------------------------------------------------------------------------------- packets */

/* Writes one segment into buffer `i`; addresses and ports in host order. */
static void write_segment(bench_t *b, uint32_t i, uint32_t src, uint16_t sport, uint32_t dst,
                          uint16_t dport, uint32_t sequence, uint32_t ack, uint8_t flags,
                          uint32_t payload)
{
    uint8_t *ip = b->rooms[i] + HEADROOM_BYTES;
    memset(ip, 0, HEADERS);
    ip[0] = 0x45;
    put16(ip + 2, (uint16_t)(HEADERS + payload));
    ip[8] = 64;
    ip[9] = PROTO_TCP;
    put32(ip + 12, src);
    put32(ip + 16, dst);
    store16(ip + 10, sum_finish(sum_bytes(ip, 20)));
    put16(ip + 20, sport);
    put16(ip + 22, dport);
    put32(ip + 24, sequence);
    put32(ip + 28, ack);
    ip[32] = 0x80;
    ip[33] = flags;
    put16(ip + 34, 8000);
    put16(ip + 36, 0x1234);
    put32(ip + 40, 0x0101080a);
    put32(ip + 44, (uint32_t)(b->now_us / 1000));
    b->packets[i] = (lbrl_packet_t){
        .data = ip, .length = HEADERS + payload, .headroom = HEADROOM_BYTES, .tailroom = 64};
}

static uint32_t client_address(uint32_t flow)
{
    return 0x0b000000 + flow / CLIENT_PORTS;
}

static uint16_t client_port(uint32_t flow)
{
    return (uint16_t)(20000 + flow % CLIENT_PORTS);
}

enum { VIP_ADDRESS = 0xcb00710au, BACKEND_FIRST = 0x0a000001u, SOURCE_FIRST = 0xc0000201u };

static void from_client(bench_t *b, uint32_t i, uint32_t flow, uint8_t flags, uint32_t payload)
{
    client_flow_t *f = &b->flows[flow];
    write_segment(b, i, client_address(flow), client_port(flow), VIP_ADDRESS, 80, f->client_next,
                  f->server_next, flags, payload);
    f->client_next += payload + ((flags & (SYN | FIN)) != 0);
}

static void from_server(bench_t *b, uint32_t i, uint32_t flow, uint8_t flags)
{
    client_flow_t *f = &b->flows[flow];
    write_segment(b, i, BACKEND_FIRST + f->backend, 8080, SOURCE_FIRST + f->source, f->nat_port,
                  f->server_next, f->client_next, flags, 0);
    f->server_next += (flags & (SYN | FIN)) != 0;
}

/* Runs the vector; returns its nanoseconds. */
static uint64_t run(bench_t *b, uint32_t n, bool must_forward)
{
    b->now_us += 100;
    uint64_t begin = nanoseconds();
    lbrl_process(b->worker, b->packets, n, b->now_us);
    uint64_t end = nanoseconds();
    for (uint32_t i = 0; must_forward && i < n; i++) {
        CHECK_EQUAL(b->packets[i].verdict, LBRL_VERDICT_FORWARD);
    }
    return end - begin;
}

/* One handshake step for flows first .. first + n - 1. */
static uint64_t step_syn(bench_t *b, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        from_client(b, i, first + i, SYN, 0);
    }
    uint64_t spent = run(b, n, true);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *ip = b->packets[i].data;
        client_flow_t *f = &b->flows[first + i];
        f->source = (uint8_t)(get32(ip + 12) - SOURCE_FIRST);
        f->backend = (uint8_t)(get32(ip + 16) - BACKEND_FIRST);
        f->nat_port = get16(ip + 20);
    }
    return spent;
}

static uint64_t step(bench_t *b, uint32_t first, uint32_t n, bool client, uint8_t flags)
{
    for (uint32_t i = 0; i < n; i++) {
        if (client) {
            from_client(b, i, first + i, flags, 0);
        } else {
            from_server(b, i, first + i, flags);
        }
    }
    return run(b, n, true);
}

static void open_flows(bench_t *b, uint32_t n)
{
    for (uint32_t first = 0; first < n; first += VECTOR) {
        uint32_t size = n - first < VECTOR ? n - first : VECTOR;
        step_syn(b, first, size);
        step(b, first, size, false, SYN | ACK);
        step(b, first, size, true, ACK);
    }
}

/* ------------------------------------------------------------------------------- set-up */

static bench_t *bench_make(uint32_t capacity, uint32_t flows, uint32_t sources, lbrl_level_t level,
                           lbrl_frames_t *frames)
{
    bench_t *b = aligned_alloc(64, (sizeof(*b) + 63) / 64 * 64);
    CHECK(b != NULL);
    memset(b, 0, sizeof(*b));
    lbrl_config_t config = {
        .flows = capacity, .vips = 1024, .slots = 16384, .workers = 1, .now_us = 1000000000};
    memset(config.seed, 0x5c, sizeof(config.seed));
    size_t size = lbrl_arena_size(&config);
    b->arena = aligned_alloc(64, (size + 63) / 64 * 64);
    b->flows = calloc(flows, sizeof(*b->flows));
    CHECK(b->arena != NULL && b->flows != NULL);
    memset(b->arena, 0, size);
    b->count = flows;
    b->now_us = config.now_us;
    b->random = 88172645463325252u;
    lbrl_attach_report_t report;
    CHECK_EQUAL(lbrl_open(&b->lb, &config, b->arena, size, &report), 0);
    b->worker = lbrl_worker(b->lb, 0);
    lbrl_nat_source_t source[LBRL_SOURCES_MAX];
    for (uint32_t i = 0; i < sources; i++) {
        source[i] = (lbrl_nat_source_t){address_of("192.0.2.1"), 16384, 28671};
        source[i].address.bytes[15] = (uint8_t)(1 + i);
    }
    CHECK_EQUAL(lbrl_sources_set(b->lb, source, sources), 0);
    lbrl_backend_config_t backends[BACKENDS];
    lbrl_vip_config_t vip = rig_vip(1, "203.0.113.10", 80, 6, backends, BACKENDS);
    vip.feature_level = (uint8_t)level;
    CHECK_EQUAL(lbrl_vip_set(b->lb, &vip, b->now_us), 0);
    if (frames) {
        lbrl_frames_config_t layout = {
            .slots = 2 * BACKENDS, .workers = 1, .level = level, .instance_id = "bench"};
        size_t bytes = lbrl_frames_size(&layout);
        void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
        CHECK(memory != NULL);
        memset(memory, 0, bytes);
        CHECK_EQUAL(lbrl_frames_format(frames, memory, bytes, &layout, b->now_us), 0);
        CHECK_EQUAL(lbrl_frames_bind(b->lb, 1, frames), 0);
    }
    return b;
}

static void bench_free(bench_t *b)
{
    lbrl_close(b->lb);
    free(b->arena);
    free(b->flows);
    free(b);
}

/* ------------------------------------------------------------------------------- measurements */

static void fill_random(bench_t *b, uint32_t among)
{
    for (uint32_t i = 0; i < VECTOR; i++) {
        uint32_t flow = (uint32_t)((next_random(&b->random) >> 32) * among >> 32);
        from_client(b, i, flow, ACK | PSH, PAYLOAD);
    }
}

typedef struct reference {
    uint8_t *lines;
    uint32_t mask;
    lbrl_key_t key;
    uint64_t sum;
} reference_t;

static reference_t reference_make(uint32_t lines)
{
    reference_t r = {aligned_alloc(64, (size_t)lines * 64), lines - 1, {1, 2}, 0};
    CHECK(r.lines != NULL);
    memset(r.lines, 1, (size_t)lines * 64);
    return r;
}

/* As lbrl_process() does. */
static inline void parse(lbrl_packet_t *packet, meta_t *meta)
{
    if (!parse_plain(packet, meta)) {
        lbrl_parse(packet, meta);
    }
}

/* Parses, hashes and loads, in rounds that hide the way to memory best: what no flow table can do without. */
static double reference_run(reference_t *r, bench_t *b)
{
    enum { REFERENCE_ROUND = 32 };
    uint64_t begin = nanoseconds();
    for (uint32_t first = 0; first < VECTOR; first += REFERENCE_ROUND) {
        const uint8_t *lines[REFERENCE_ROUND];
        for (uint32_t i = 0; i < REFERENCE_ROUND; i++) {
            meta_t m;
            parse(&b->packets[first + i], &m);
            uint64_t hash = tuple_hash(&r->key, &m.src, &m.dst, m.sport, m.dport, m.protocol);
            lines[i] = &r->lines[(hash & r->mask) * 64];
            __builtin_prefetch(lines[i]);
        }
        for (uint32_t i = 0; i < REFERENCE_ROUND; i++) {
            r->sum += *lines[i];
        }
    }
    return (double)(nanoseconds() - begin) / VECTOR;
}

/* Medians of one ratio's two sides. */
typedef struct pair {
    double value, base;
} pair_t;

/* Where pages land decides about caches; so each ratio is the median over several set-ups. */
static pair_t typical(pair_t *pairs)
{
    double ratios[SETUPS];
    for (uint32_t i = 0; i < SETUPS; i++) {
        ratios[i] = pairs[i].value / pairs[i].base;
    }
    double middle = median(ratios, SETUPS);
    for (uint32_t i = 0; i < SETUPS; i++) {
        if (pairs[i].value / pairs[i].base == middle) {
            return pairs[i];
        }
    }
    return pairs[0];
}

/* The same as it reads, packet by packet: each load is waited for. */
static double plain_loop_run(reference_t *r, bench_t *b)
{
    uint64_t begin = nanoseconds();
    for (uint32_t i = 0; i < VECTOR; i++) {
        meta_t m;
        parse(&b->packets[i], &m);
        uint64_t hash = tuple_hash(&r->key, &m.src, &m.dst, m.sport, m.dport, m.protocol);
        r->sum += r->lines[(hash & r->mask) * 64];
    }
    return (double)(nanoseconds() - begin) / VECTOR;
}

static pair_t off_against(double (*reference_loop)(reference_t *, bench_t *))
{
    enum { FLOWS = 65536 };
    static double off[ROUNDS], reference[ROUNDS];
    bench_t *b = bench_make(FLOWS + FLOWS / 4, FLOWS, 1, LBRL_LEVEL_OFF, NULL);
    reference_t r = reference_make(FLOWS);
    open_flows(b, FLOWS);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        fill_random(b, FLOWS);
        reference[i] = reference_loop(&r, b);
        fill_random(b, FLOWS);
        off[i] = (double)run(b, VECTOR, true) / VECTOR;
    }
    CHECK(r.sum != 0);
    free(r.lines);
    bench_free(b);
    return (pair_t){median(off, ROUNDS), median(reference, ROUNDS)};
}

static pair_t off_and_reference(void)
{
    return off_against(reference_run);
}

static pair_t off_and_plain_loop(void)
{
    return off_against(plain_loop_run);
}

static pair_t many_and_one(void)
{
    enum { FLOWS = 1 << 20 };
    static double many[ROUNDS], one[ROUNDS];
    bench_t *b = bench_make(FLOWS + FLOWS / 4, FLOWS, 8, LBRL_LEVEL_OFF, NULL);
    open_flows(b, FLOWS);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        fill_random(b, 1);
        one[i] = (double)run(b, VECTOR, true) / VECTOR;
        fill_random(b, FLOWS);
        many[i] = (double)run(b, VECTOR, true) / VECTOR;
    }
    bench_free(b);
    return (pair_t){median(many, ROUNDS), median(one, ROUNDS)};
}

static pair_t level_and_off(lbrl_level_t level)
{
    enum { FLOWS = 65536 };
    static double measured[ROUNDS], off[ROUNDS];
    lbrl_frames_t frames;
    bench_t *with = bench_make(FLOWS + FLOWS / 4, FLOWS, 1, level, &frames);
    bench_t *without = bench_make(FLOWS + FLOWS / 4, FLOWS, 1, LBRL_LEVEL_OFF, NULL);
    open_flows(with, FLOWS);
    open_flows(without, FLOWS);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        fill_random(with, FLOWS);
        measured[i] = (double)run(with, VECTOR, true) / VECTOR;
        fill_random(without, FLOWS);
        off[i] = (double)run(without, VECTOR, true) / VECTOR;
    }
    bench_free(with);
    bench_free(without);
    free(frames.base);
    return (pair_t){median(measured, ROUNDS), median(off, ROUNDS)};
}

static pair_t basic_and_off(void)
{
    return level_and_off(LBRL_LEVEL_BASIC);
}

static pair_t full_and_off(void)
{
    return level_and_off(LBRL_LEVEL_FULL);
}

static void print_ratio(const char *ratio, const char *value, const char *base,
                        pair_t (*measure)(void))
{
    pair_t pairs[SETUPS];
    for (uint32_t i = 0; i < SETUPS; i++) {
        pairs[i] = measure();
    }
    pair_t found = typical(pairs);
    print(value, found.value, "ns/packet");
    print(base, found.base, "ns/packet");
    print(ratio, found.value / found.base, "ratio");
}

/* Handshake, close by both sides, and ageing out, in rounds that reuse ports and entries. */
static void whole_lives(void)
{
    enum { FLOWS = 16384, LIFE_ROUNDS = 15 };
    double rate[LIFE_ROUNDS];
    bench_t *b = bench_make(65536, FLOWS, 1, LBRL_LEVEL_OFF, NULL);
    for (uint32_t round = 0; round < LIFE_ROUNDS; round++) {
        uint64_t spent = 0;
        for (uint32_t first = 0; first < FLOWS; first += VECTOR) {
            spent += step_syn(b, first, VECTOR);
            spent += step(b, first, VECTOR, false, SYN | ACK);
            spent += step(b, first, VECTOR, true, ACK);
            spent += step(b, first, VECTOR, true, FIN | ACK);
            spent += step(b, first, VECTOR, false, FIN | ACK);
            spent += step(b, first, VECTOR, true, ACK);
        }
        uint64_t end = b->now_us + 13000000;
        for (; b->now_us < end; b->now_us += 500000) {
            uint64_t begin = nanoseconds();
            lbrl_worker_tick(b->worker, b->now_us);
            spent += nanoseconds() - begin;
        }
        lbrl_stats_t stats;
        lbrl_stats(b->lb, &stats);
        CHECK_EQUAL(stats.flows, 0);
        rate[round] = FLOWS * 1e9 / (double)spent;
    }
    print("core_flow_lives", median(rate, LIFE_ROUNDS), "flows/s");
    bench_free(b);
}

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

static void bytes_per_flow(void)
{
    enum { SEEDS = 5 };
    double held[SEEDS];
    size_t size = 0;
    for (uint32_t i = 0; i < SEEDS; i++) {
        held[i] = fill_arena((uint8_t)(i * 11 + 1), &size);
    }
    double flows = median(held, SEEDS);
    print("core_flows_held_at_first_failure", flows, "flows");
    print("core_arena_bytes_per_flow", (double)size / flows, "bytes");
    print("core_arena_bytes_per_flow_full", (double)(size + FILL_FLOWS * sizeof(side_t)) / flows,
          "bytes");
}

int main(void)
{
    print_ratio("core_off_64k_ratio", "core_off_64k_ns", "core_reference_ns", off_and_reference);
    print_ratio("core_off_64k_plain_loop_ratio", "core_off_64k_again_ns", "core_plain_loop_ns",
                off_and_plain_loop);
    print_ratio("core_1m_uniform_ratio", "core_1m_uniform_ns", "core_1_flow_ns", many_and_one);
    print_ratio("core_basic_ratio", "core_basic_64k_ns", "core_basic_off_64k_ns", basic_and_off);
    print_ratio("core_full_ratio", "core_full_64k_ns", "core_full_off_64k_ns", full_and_off);
    whole_lives();
    bytes_per_flow();
    return 0;
}
