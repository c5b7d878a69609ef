/*
 * Speed of the packet path alone, as ratios to a reference loop in the same run: per packet the core's own parsing, its
 * keyed hash and one random 64-byte load. The bar is against the loop that prefetches its loads in rounds of 32, as the
 * core does; the ratio to the loop that waits for each load is printed beside it. Prints a JSON object per line: {name,
 * value, unit}. Both sides of each ratio take turns, vector by vector, and medians are compared.
 */
#include "bench_report.h"

#include <unistd.h>

#include "bench_lives.h"
#include "crowd.h"
#include "flowtable.h"
#include "parse.h"

enum {
    ROUNDS = 1501,
    SETUPS = 7,
    BACKENDS = 64,
};

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
static double reference_run(reference_t *r, crowd_t *c)
{
    enum { REFERENCE_ROUND = 32 };
    double begin = nanoseconds();
    for (uint32_t first = 0; first < VECTOR; first += REFERENCE_ROUND) {
        const uint8_t *lines[REFERENCE_ROUND];
        for (uint32_t i = 0; i < REFERENCE_ROUND; i++) {
            meta_t m;
            parse(&c->packets[first + i], &m);
            uint64_t hash = tuple_hash(&r->key, &m.src, &m.dst, m.sport, m.dport, m.protocol);
            lines[i] = &r->lines[(hash & r->mask) * 64];
            __builtin_prefetch(lines[i]);
        }
        for (uint32_t i = 0; i < REFERENCE_ROUND; i++) {
            r->sum += *lines[i];
        }
    }
    return (nanoseconds() - begin) / VECTOR;
}

/* Nanoseconds per packet of the vector. */
static double packet_run(crowd_t *c)
{
    c->clock = thread_nanoseconds;
    c->spent = 0;
    crowd_forward(c, VECTOR);
    return (double)c->spent / VECTOR;
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
static double plain_loop_run(reference_t *r, crowd_t *c)
{
    double begin = nanoseconds();
    for (uint32_t i = 0; i < VECTOR; i++) {
        meta_t m;
        parse(&c->packets[i], &m);
        uint64_t hash = tuple_hash(&r->key, &m.src, &m.dst, m.sport, m.dport, m.protocol);
        r->sum += r->lines[(hash & r->mask) * 64];
    }
    return (nanoseconds() - begin) / VECTOR;
}

static pair_t off_against(double (*reference_loop)(reference_t *, crowd_t *))
{
    enum { FLOWS = 65536 };
    static double off[ROUNDS], reference[ROUNDS];
    const crowd_plan_t plan = {FLOWS + FLOWS / 4, FLOWS, 1, BACKENDS, LBRL_LEVEL_OFF};
    crowd_t *c = crowd_make(&plan);
    reference_t r = reference_make(FLOWS);
    crowd_open(c, FLOWS);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        crowd_fill(c, FLOWS);
        reference[i] = reference_loop(&r, c);
        crowd_fill(c, FLOWS);
        off[i] = packet_run(c);
    }
    CHECK(r.sum != 0);
    free(r.lines);
    crowd_free(c);
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

static pair_t many_and(uint32_t few_flows)
{
    enum { FLOWS = 1 << 20 };
    static double many[ROUNDS], few[ROUNDS];
    const crowd_plan_t plan = {FLOWS + FLOWS / 4, FLOWS, 8, BACKENDS, LBRL_LEVEL_OFF};
    crowd_t *c = crowd_make(&plan);
    crowd_open(c, FLOWS);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        crowd_fill(c, few_flows);
        few[i] = packet_run(c);
        crowd_fill(c, FLOWS);
        many[i] = packet_run(c);
    }
    crowd_free(c);
    return (pair_t){median(many, ROUNDS), median(few, ROUNDS)};
}

static pair_t many_and_one(void)
{
    return many_and(1);
}

/* One flow's packets find each other's results; those of 64 do not, and all they need is in the first cache. */
static pair_t many_and_64(void)
{
    return many_and(64);
}

static pair_t level_and_off(lbrl_level_t level)
{
    enum { FLOWS = 65536 };
    static double measured[ROUNDS], off[ROUNDS];
    crowd_plan_t plan = {FLOWS + FLOWS / 4, FLOWS, 1, BACKENDS, level};
    crowd_t *with = crowd_make(&plan);
    plan.level = LBRL_LEVEL_OFF;
    crowd_t *without = crowd_make(&plan);
    crowd_open(with, FLOWS);
    crowd_open(without, FLOWS);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        crowd_fill(with, FLOWS);
        measured[i] = packet_run(with);
        crowd_fill(without, FLOWS);
        off[i] = packet_run(without);
    }
    crowd_free(with);
    crowd_free(without);
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
    double values[SETUPS], bases[SETUPS], ratios[SETUPS];
    for (uint32_t i = 0; i < SETUPS; i++) {
        pairs[i] = measure();
        values[i] = pairs[i].value;
        bases[i] = pairs[i].base;
        ratios[i] = pairs[i].value / pairs[i].base;
    }
    pair_t found = typical(pairs);
    report_runs(value, found.value, "ns/packet", values, SETUPS);
    report_runs(base, found.base, "ns/packet", bases, SETUPS);
    report_runs(ratio, found.value / found.base, "ratio", ratios, SETUPS);
}

/* Which pages the core's memory and a data plane's objects lie in says much about figures of many flows. */
static void print_pages(void)
{
    report("page_bytes", (double)sysconf(_SC_PAGESIZE), "bytes");
    const crowd_plan_t plan = {1 << 20, 1 << 16, 1, BACKENDS, LBRL_LEVEL_OFF};
    crowd_t *c = crowd_make(&plan);
    crowd_open(c, plan.flows); /* spread enough to touch all of its memory */
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    double huge = 0, value;
    char line[128];
    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "AnonHugePages: %lf", &value) == 1 ||
            sscanf(line, "ShmemPmdMapped: %lf", &value) == 1) {
            huge += value;
        }
    }
    if (file) {
        fclose(file);
        report("1m_huge_pages", huge / 1024, "MiB");
    }
    crowd_free(c);
}

static void bench_ratios(void)
{
    print_ratio("off_64k_ratio", "off_64k_ns", "reference_ns", off_and_reference);
    print_ratio("off_64k_plain_loop_ratio", "off_64k_again_ns", "plain_loop_ns",
                off_and_plain_loop);
    print_ratio("1m_uniform_ratio", "1m_uniform_ns", "1_flow_ns", many_and_one);
    print_ratio("1m_and_64_flows_ratio", "1m_uniform_again_ns", "64_flows_ns", many_and_64);
    print_ratio("basic_ratio", "basic_64k_ns", "basic_off_64k_ns", basic_and_off);
}

static void bench_full(void)
{
    print_ratio("full_ratio", "full_64k_ns", "full_off_64k_ns", full_and_off);
}

/* Everything, or the parts that are named, to look into them with a profiler. */
int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } parts[] = {{"pages", print_pages},
                 {"ratios", bench_ratios},
                 {"full", bench_full},
                 {"lives", bench_lives},
                 {"arena", bench_arena}};
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        bool wanted = argc == 1;
        for (int k = 1; k < argc; k++) {
            wanted |= strcmp(argv[k], parts[i].name) == 0;
        }
        if (wanted) {
            parts[i].run();
            (void)fflush(stdout);
        }
    }
    return 0;
}
