/* Speed and quality of statistics and schedulers: a JSON object per line, {name, value, unit}. Times are
 * medians of processor time of this thread, so that other work on the machine is not counted. */
#define _GNU_SOURCE /* clock_gettime */
#include <time.h>

#include "lbrl/reduce.h"
#include "lbrl/scheduler.h"
#include "objects.h"

enum {
    BACKENDS = 64,
    SLOTS = 128,
    SIZE = LBRL_MAGLEV_SIZE_DEFAULT,
    ROUNDS = 31,
    MAX_SLOTS = 1024,
};

static const uint8_t key[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static uint64_t next_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int ascending(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof(*values), ascending);
    return values[n / 2];
}

static void report(const char *name, double value, const char *unit)
{
    printf("{\"name\": \"core_%s\", \"value\": %.4g, \"unit\": \"%s\"}\n", name, value, unit);
}

/* A figure that must not exceed its bar. */
static void report_bar(const char *name, double value, const char *unit, double bar)
{
    printf("{\"name\": \"core_%s\", \"value\": %.4g, \"unit\": \"%s\", \"bar\": %g, \"met\": %s}\n",
           name, value, unit, bar, value <= bar ? "true" : "false");
}

/* Runs `work` `inner` times, often; `result` becomes the median nanoseconds of one. */
#define MEASURE(result, inner, work)                                                               \
    do {                                                                                           \
        double times_[ROUNDS];                                                                     \
        for (int round_ = 0; round_ < ROUNDS; round_++) {                                          \
            const double start_ = nanoseconds();                                                   \
            for (uint32_t i = 0; i < (inner); i++) {                                               \
                work;                                                                              \
            }                                                                                      \
            times_[round_] = (nanoseconds() - start_) / (inner);                                   \
        }                                                                                          \
        (result) = median(times_, ROUNDS);                                                         \
    } while (0)

/* ---- Maglev ---- */

typedef struct maglev_state {
    lbrl_maglev_backend_t backends[BACKENDS];
    uint32_t table[SIZE], changed_table[SIZE];
    uint32_t quotas[BACKENDS], changed_quotas[BACKENDS];
} maglev_state_t;

/* Moved positions as a multiple of those that the quotas say must move, over changes of each backend in turn. */
static void report_churn(maglev_state_t *m, const char *name, double factor)
{
    uint64_t moved = 0, needed = 0;
    for (uint32_t changed = 0; changed < BACKENDS; changed++) {
        const double weight = m->backends[changed].weight;
        m->backends[changed].weight = weight * factor;
        lbrl_maglev_build(m->changed_table, SIZE, m->backends, BACKENDS, key);
        lbrl_maglev_quotas(m->changed_quotas, SIZE, m->backends, BACKENDS);
        m->backends[changed].weight = weight;
        for (uint32_t i = 0; i < SIZE; i++) {
            moved += m->table[i] != m->changed_table[i];
        }
        for (uint32_t i = 0; i < BACKENDS; i++) {
            needed += m->quotas[i] > m->changed_quotas[i] ? m->quotas[i] - m->changed_quotas[i] : 0;
        }
    }
    report_bar(name, (double)moved / (double)needed, "x ideal", 1.5);
}

static void bench_maglev(void)
{
    static maglev_state_t m;
    uint64_t random = 1;
    double total = 0, worst = 0;
    for (uint32_t i = 0; i < BACKENDS; i++) {
        m.backends[i] = (lbrl_maglev_backend_t){next_random(&random),
                                                20.0 + (double)(next_random(&random) % 200), i};
        total += m.backends[i].weight;
    }
    double build;
    MEASURE(build, 1, lbrl_maglev_build(m.table, SIZE, m.backends, BACKENDS, key));
    lbrl_maglev_quotas(m.quotas, SIZE, m.backends, BACKENDS);
    uint32_t counts[BACKENDS] = {0};
    for (uint32_t i = 0; i < SIZE; i++) {
        counts[m.table[i]]++;
    }
    for (uint32_t i = 0; i < BACKENDS; i++) {
        const double error = counts[i] / (m.backends[i].weight / total * SIZE) - 1;
        worst = error > worst ? error : -error > worst ? -error : worst;
    }
    report_bar("maglev_rebuild", build / 1e6, "ms", 15);
    report_bar("maglev_share_error", worst * 100, "%", 1);
    report_churn(&m, "maglev_churn_remove_or_add", 0);
    report_churn(&m, "maglev_churn_weight_x0.5", 0.5);
    report_churn(&m, "maglev_churn_weight_x0.8", 0.8);
    report_churn(&m, "maglev_churn_weight_x1.25", 1.25);
    report_churn(&m, "maglev_churn_weight_x2", 2);
}

/* ---- Pickers ---- */

static void bench_picker(uint32_t slots, const char *name)
{
    float weight[MAX_SLOTS];
    int32_t load[MAX_SLOTS];
    uint64_t eligible[MAX_SLOTS / 64], random = 2;
    for (uint32_t i = 0; i < slots; i++) {
        weight[i] = (float)(1 + i % 5);
        load[i] = (int32_t)(next_random(&random) % 100);
        eligible[i / 64] = UINT64_MAX;
    }
    void *memory = zeroed(lbrl_picker_size(slots));
    const lbrl_picker_t *picker =
        lbrl_picker_build(memory, LBRL_PICKER_SED, weight, eligible, slots, 0.5f);
    double pick;
    /* each pick depends on the last, as in a data plane */
    MEASURE(pick, 20000, load[lbrl_pick(picker, load, i)] += (int32_t)(i & 1));
    report(name, pick, "ns");
    free(memory);
}

/* ---- Sinks, frames, reductions ---- */

static void bench_sinks(test_frames_t *t)
{
    lbrl_sink_t *sink = &t->sinks[0];
    uint64_t random = 3;
    double packet, sample;
    MEASURE(packet, 50000, lbrl_sink_packet(sink, (i * 7) % BACKENDS, 1, 1500, i & 1));
    MEASURE(sample, 50000,
            lbrl_sink_sample(sink, (uint32_t)(next_random(&random) % BACKENDS),
                             LBRL_CHANNEL_FLOW_DURATION, (float)i, 60000000 - (i % 256) * 3906));
    for (uint32_t i = 0; i < BACKENDS * 1000; i++) {
        lbrl_sink_sample(sink, i % BACKENDS, LBRL_CHANNEL_FCT, (float)(next_random(&random) % 1000),
                         60000000 - (i % 256) * 3906);
    }
    report("sink_packet", packet, "ns");
    report("sink_sample", sample, "ns");
}

static void bench_reading(test_frames_t *t)
{
    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_shm_open(&view, t->memory, t->size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    void *copy = zeroed(view.header.frame_stride), *scratch = zeroed(lbrl_reduce_scratch(&view));
    lbrl_reduction_t out[SLOTS];
    double publish, read, reduce_duration, reduce_fct;
    MEASURE(publish, 200, test_frames_publish(t, 60000000));
    MEASURE(read, 200, lbrl_read(&view, copy, view.header.frame_stride));
    MEASURE(reduce_duration, 5, lbrl_reduce(&view, "flow_duration", 60000000, scratch, NULL, out));
    MEASURE(reduce_fct, 5, lbrl_reduce(&view, "fct", 60000000, scratch, NULL, out));
    report("frames_publish", publish / 1e3, "us");
    report("frames_read", read / 1e3, "us");
    report_bar("reduce_64_backends_2_channels", (reduce_duration + reduce_fct) / 1e3, "us", 1000);
    lbrl_reduced_t *cache = zeroed(SLOTS * sizeof(*cache));
    double idle;
    MEASURE(idle, 200, lbrl_reduce(&view, "fct", 3600000000, scratch, cache, out));
    report("reduce_64_idle_backends_1_channel", idle / 1e3, "us");
    free(cache);
    free(copy);
    free(scratch);
}

/* Every channel of 64 backends, all of them changed. */
static void bench_full(void)
{
    test_frames_t t;
    test_frames_make(&t, SLOTS, 1, LBRL_LEVEL_FULL);
    uint64_t random = 5;
    for (uint32_t i = 0; i < BACKENDS; i++) {
        lbrl_frames_slot_open(&t.frames, i, 1);
    }
    for (uint32_t i = 0; i < BACKENDS * 1000; i++) {
        for (uint32_t channel = 0; channel < LBRL_CHANNEL_COUNT; channel++) {
            lbrl_sink_sample(&t.sinks[0], i % BACKENDS, (lbrl_channel_t)channel,
                             (float)(next_random(&random) % 1000), 60000000 - (i % 256) * 3906);
        }
    }
    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_shm_open(&view, t.memory, t.size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    void *scratch = zeroed(lbrl_reduce_scratch(&view));
    lbrl_reduction_t out[SLOTS];
    double all = 0;
    for (uint32_t channel = 0; channel < LBRL_CHANNEL_COUNT; channel++) {
        double one;
        MEASURE(one, 5,
                lbrl_reduce(&view, lbrl_channel_info((lbrl_channel_t)channel)->name, 60000000,
                            scratch, NULL, out));
        all += one;
    }
    report_bar("reduce_64_backends_13_channels", all / 1e3, "us", 3333);
    free(scratch);
    test_frames_free(&t);
}

int main(void)
{
    bench_full();
    bench_maglev();
    bench_picker(8, "pick_sed_8");
    bench_picker(64, "pick_sed_64");
    bench_picker(1024, "pick_sed_1024");
    test_frames_t t;
    test_frames_make(&t, SLOTS, 1, LBRL_LEVEL_BASIC);
    for (uint32_t i = 0; i < BACKENDS; i++) {
        lbrl_frames_slot_open(&t.frames, i, 1);
    }
    bench_sinks(&t);
    bench_reading(&t);
    test_frames_free(&t);
    return 0;
}
