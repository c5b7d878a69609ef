/* Quality and speed of schedulers. Our Maglev table stands beside three others that have weights too: the table of the
 * Maglev paper with heavy backends entered several times, the same with turns in proportion to weight (stride), and
 * weighted rendezvous hashing. */
#include "bench_report.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "check.h"
#include "lbrl/scheduler.h"

enum {
    SIZE = LBRL_MAGLEV_SIZE_DEFAULT,
    MAX_BACKENDS = 1024,
    COMPARED = 64,  /* backends with which the others are measured */
    CHANGES = 64,   /* backends that change in turn, at most */
    REPLICAS = 16,  /* of an average backend, where heavy ones are entered several times */
    MIN_QUOTA = 50, /* below it a share says little */
    NAME = 64,
};

static const uint8_t key[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

typedef struct problem {
    uint32_t n;
    lbrl_maglev_backend_t backends[MAX_BACKENDS];
} problem_t;

/* Fills a table of SIZE slots. */
typedef void (*build_t)(const problem_t *problem, uint32_t *table);

static void make_problem(problem_t *problem, uint32_t n)
{
    uint64_t random = 1;
    problem->n = n;
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t id = next_random(&random);
        problem->backends[i] =
            (lbrl_maglev_backend_t){id, 20.0 + (double)(next_random(&random) % 200), i};
    }
}

static void build_ours(const problem_t *problem, uint32_t *table)
{
    CHECK(lbrl_maglev_build(table, SIZE, problem->backends, problem->n, key) >= 0);
}

/* ---- The paper's table: who has the turn takes the next free position of its permutation ---- */

typedef struct entry {
    uint32_t slot, position, step;
    double pass, stride; /* of the turn */
} entry_t;

static entry_t make_entry(uint64_t id, uint32_t replica, uint32_t slot)
{
    uint64_t state = id + replica * 0x632be59bd9b4e019u;
    entry_t entry = {.slot = slot};
    entry.position = (uint32_t)(next_random(&state) % SIZE);
    entry.step = (uint32_t)(next_random(&state) % (SIZE - 1)) + 1;
    return entry;
}

static void take_turn(entry_t *entry, uint32_t *table)
{
    while (table[entry->position] != LBRL_NO_SLOT) {
        entry->position = (entry->position + entry->step) % SIZE;
    }
    table[entry->position] = entry->slot;
}

static void clear(uint32_t *table)
{
    memset(table, 0xff, SIZE * sizeof(*table));
}

static void build_repeated(const problem_t *problem, uint32_t *table)
{
    static entry_t entries[COMPARED * REPLICAS * 4];
    uint32_t count = 0;
    for (uint32_t i = 0; i < problem->n; i++) {
        const lbrl_maglev_backend_t *backend = &problem->backends[i];
        const double average =
            119.5; /* of the weights before any change: replicas of others must not change */
        const uint32_t replicas = (uint32_t)(backend->weight / average * REPLICAS + 0.5);
        for (uint32_t replica = 0; replica < replicas; replica++) {
            CHECK(count < sizeof(entries) / sizeof(entries[0]));
            entries[count++] = make_entry(backend->id, replica, i);
        }
    }
    CHECK(count > 0);
    clear(table);
    for (uint32_t filled = 0; filled < SIZE; filled++) {
        take_turn(&entries[filled % count], table);
    }
}

static void build_stride(const problem_t *problem, uint32_t *table)
{
    static entry_t entries[COMPARED];
    for (uint32_t i = 0; i < problem->n; i++) {
        const double weight = problem->backends[i].weight;
        entries[i] = make_entry(problem->backends[i].id, 0, i);
        entries[i].stride = weight > 0 ? 1 / weight : INFINITY;
        entries[i].pass = entries[i].stride;
    }
    clear(table);
    for (uint32_t filled = 0; filled < SIZE; filled++) {
        uint32_t next = 0;
        for (uint32_t i = 1; i < problem->n; i++) {
            next = entries[i].pass < entries[next].pass ? i : next;
        }
        take_turn(&entries[next], table);
        entries[next].pass += entries[next].stride;
    }
}

/* ---- Weighted rendezvous hashing: each position goes to the least of exponential variates over weights ---- */

static void build_rendezvous(const problem_t *problem, uint32_t *table)
{
    static float variates[COMPARED][SIZE];
    static bool drawn;
    for (uint32_t i = 0; !drawn && i < COMPARED; i++) {
        uint64_t state = problem->backends[i].id;
        for (uint32_t position = 0; position < SIZE; position++) {
            variates[i][position] =
                (float)-log(((double)(next_random(&state) >> 11) + 0.5) * 0x1p-53);
        }
    }
    drawn = true;
    for (uint32_t position = 0; position < SIZE; position++) {
        double least = INFINITY;
        for (uint32_t i = 0; i < problem->n; i++) {
            const double score = (double)variates[i][position] / problem->backends[i].weight;
            if (score < least) {
                least = score;
                table[position] = i;
            }
        }
    }
}

/* ---- Quality ---- */

/* Largest error of a share, in parts of it. */
static double share_error(const problem_t *problem, const uint32_t *table)
{
    static uint32_t counts[MAX_BACKENDS];
    double total = 0, worst = 0;
    memset(counts, 0, sizeof(counts));
    for (uint32_t i = 0; i < SIZE; i++) {
        counts[table[i]]++;
    }
    for (uint32_t i = 0; i < problem->n; i++) {
        total += problem->backends[i].weight;
    }
    for (uint32_t i = 0; i < problem->n; i++) {
        const double quota = problem->backends[i].weight / total * SIZE;
        if (quota >= MIN_QUOTA) {
            worst = fmax(worst, fabs(counts[i] / quota - 1));
        }
    }
    return worst;
}

/* Moved positions as a multiple of those that exact quotas say must move, when a backend's weight changes. */
static double churn(problem_t *problem, build_t build, const uint32_t *table, double factor)
{
    static uint32_t changed_table[SIZE], quotas[MAX_BACKENDS], changed_quotas[MAX_BACKENDS];
    const uint32_t n = problem->n, stride = n > CHANGES ? n / CHANGES : 1;
    uint64_t moved = 0, needed = 0;
    CHECK(lbrl_maglev_quotas(quotas, SIZE, problem->backends, n) >= 0);
    for (uint32_t changed = 0; changed < n; changed += stride) {
        const double weight = problem->backends[changed].weight;
        problem->backends[changed].weight = weight * factor;
        build(problem, changed_table);
        CHECK(lbrl_maglev_quotas(changed_quotas, SIZE, problem->backends, n) >= 0);
        problem->backends[changed].weight = weight;
        for (uint32_t i = 0; i < SIZE; i++) {
            moved += table[i] != changed_table[i];
        }
        for (uint32_t i = 0; i < n; i++) {
            needed += quotas[i] > changed_quotas[i] ? quotas[i] - changed_quotas[i] : 0;
        }
    }
    return (double)moved / (double)needed;
}

/* The bars that a table must hold; 0: none. */
typedef struct bars {
    double rebuild_ms, share_percent, churn;
} bars_t;

static void figure(const char *name, const char *what, double value, const char *unit, double bar)
{
    char text[NAME];
    snprintf(text, sizeof(text), "%s_%s", name, what);
    if (bar > 0) {
        report_bar(text, value, unit, bar);
    } else {
        report(text, value, unit);
    }
}

static void measure_table(const char *name, build_t build, uint32_t n, bars_t bars)
{
    static problem_t problem;
    static uint32_t table[SIZE];
    static const struct {
        const char *name;
        double factor;
    } changes[] = {{"churn_remove_or_add", 0},
                   {"churn_weight_x0.5", 0.5},
                   {"churn_weight_x0.8", 0.8},
                   {"churn_weight_x1.25", 1.25},
                   {"churn_weight_x2", 2}};
    double rebuild;
    make_problem(&problem, n);
    MEASURE(rebuild, 1, build(&problem, table));
    figure(name, "rebuild", rebuild / 1e6, "ms", bars.rebuild_ms);
    figure(name, "share_error", share_error(&problem, table) * 100, "%", bars.share_percent);
    for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        figure(name, changes[i].name, churn(&problem, build, table, changes[i].factor), "x ideal",
               bars.churn);
    }
}

/* ---- Pickers ---- */

static void measure_picker(lbrl_picker_kind_t kind, uint32_t slots, const char *name)
{
    float weight[MAX_BACKENDS], base[MAX_BACKENDS];
    int32_t load[MAX_BACKENDS];
    uint64_t eligible[MAX_BACKENDS / 64], random = 2;
    for (uint32_t i = 0; i < slots; i++) {
        weight[i] = (float)(1 + i % 5);
        base[i] = 0.5f + (float)(i % 3);
        load[i] = (int32_t)(next_random(&random) % 100);
        eligible[i / 64] = UINT64_MAX;
    }
    void *memory = aligned_alloc(LBRL_PICKER_ALIGNMENT, (lbrl_picker_size(slots) + 63) / 64 * 64);
    CHECK(memory != NULL);
    const lbrl_picker_t *picker =
        lbrl_picker_build(memory, kind, weight, base, eligible, slots, 0.5f);
    double pick;
    /* each pick depends on the last, as in a data plane */
    MEASURE(pick, 20000, load[lbrl_pick(picker, load, i)] += (int32_t)(i & 1));
    report(name, pick, "ns");
    free(memory);
}

int main(void)
{
    measure_table("maglev", build_ours, 64, (bars_t){15, 1, 1.5});
    measure_table("maglev_256", build_ours, 256, (bars_t){0, 1, 2.5});
    measure_table("maglev_1024", build_ours, 1024, (bars_t){0});
    measure_table("repeated_maglev", build_repeated, COMPARED, (bars_t){0});
    measure_table("stride_maglev", build_stride, COMPARED, (bars_t){0});
    measure_table("rendezvous", build_rendezvous, COMPARED, (bars_t){0});
    measure_picker(LBRL_PICKER_SED, 8, "pick_sed_8");
    measure_picker(LBRL_PICKER_SED, 16, "pick_sed_16");
    measure_picker(LBRL_PICKER_SED, 64, "pick_sed_64");
    measure_picker(LBRL_PICKER_SED, 1024, "pick_sed_1024");
    measure_picker(LBRL_PICKER_P2C, 64, "pick_p2c_64");
    measure_picker(LBRL_PICKER_ALIAS, 64, "pick_alias_64");
    return 0;
}
