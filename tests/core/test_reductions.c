/* Reductions at sizes that a reader can check; larger ones are compared with numpy in Python. */
#include <math.h>

#include "lbrl/reduce.h"
#include "objects.h"

typedef struct sample {
    float value, weight;
    uint32_t age_ticks;
} sample_t;

static lbrl_reduction_t reduce(const sample_t *samples, uint32_t n)
{
    float value[64], weight[64];
    uint32_t age_ticks[64];
    lbrl_decay_t decay;
    lbrl_decay_init(&decay);
    lbrl_weighted_t scratch[LBRL_REDUCE_SCRATCH * 64];
    lbrl_reduction_t out;
    for (uint32_t i = 0; i < n; i++) {
        value[i] = samples[i].value;
        weight[i] = samples[i].weight;
        age_ticks[i] = samples[i].age_ticks;
    }
    const lbrl_samples_t columns = {value, weight, age_ticks};
    lbrl_reduce_samples(&decay, &columns, n, scratch, NULL, &out);
    return out;
}

static void equal_samples(void)
{
    sample_t samples[10];
    for (int i = 0; i < 10; i++) {
        samples[i] = (sample_t){(float)(10 - i), 1, 512};
    }
    lbrl_reduction_t r = reduce(samples, 10); /* 1 .. 10 */
    CHECK_NEAR(r.avg, 5.5, 1e-12);
    CHECK_NEAR(r.std, sqrt(8.25), 1e-12);
    CHECK_NEAR(r.p90, 9, 0);
    CHECK_NEAR(r.avg_decay, 5.5, 1e-6);
    CHECK_NEAR(r.p90_decay, 9, 0);
}

static void weights_count_as_repetition(void)
{
    const sample_t weighted[] = {{1, 8, 0}, {2, 1, 0}, {3, 1, 0}};
    lbrl_reduction_t r = reduce(weighted, 3);
    CHECK_NEAR(r.avg, 1.3, 1e-12);
    CHECK_NEAR(r.p90, 2, 0); /* 9 of 10 are reached with the 2 */
}

static void decay_is_a_tenth_per_second(void)
{
    const sample_t aged[] = {{1, 1, 0}, {2, 1, 256}, {3, 1, 2560}};
    const double w1 = 0.9, w10 = 0.34867844; /* 0.9^10 */
    lbrl_reduction_t r = reduce(aged, 3);
    CHECK_NEAR(r.avg, 2, 1e-12);
    CHECK_NEAR(r.avg_decay, (1 + 2 * w1 + 3 * w10) / (1 + w1 + w10), 1e-6);
    CHECK_NEAR(r.p90, 3, 0);
    CHECK_NEAR(r.p90_decay, 3, 0); /* (1 + 0.9) / 2.249 = 0.845 < 0.9 */
    const sample_t older[] = {{1, 1, 0}, {2, 1, 256}, {3, 1, 25600}};
    CHECK_NEAR(reduce(older, 3).p90_decay, 2, 0);
}

static void an_idle_hour_does_not_underflow(void)
{
    const sample_t old[] = {{4, 1, 3600 * 256}, {6, 1, 3600 * 256 - 256}};
    lbrl_reduction_t r = reduce(old, 2);
    CHECK_NEAR(r.avg_decay, (4 * 0.9 + 6) / 1.9, 1e-6);
    CHECK_NEAR(r.p90_decay, 6, 0);
}

static void no_sample_is_not_a_number(void)
{
    lbrl_reduction_t r = reduce(NULL, 0);
    CHECK(isnan(r.avg) && isnan(r.std) && isnan(r.p90) && isnan(r.avg_decay) && isnan(r.p90_decay));
}

static void workers_count_by_samples_seen(void)
{
    test_frames_t t;
    test_frames_make(&t, 3, 2, LBRL_LEVEL_BASIC);
    lbrl_frames_slot_open(&t.frames, 1, 1);
    lbrl_frames_slot_open(&t.frames, 2, 1);
    for (int i = 0; i < 9000; i++) {
        lbrl_sink_sample(&t.sinks[0], 1, LBRL_CHANNEL_FCT, 1.0f, 1000000);
    }
    for (int i = 0; i < 1000; i++) {
        lbrl_sink_sample(&t.sinks[1], 1, LBRL_CHANNEL_FCT, 2.0f, 1000000);
    }
    lbrl_sink_sample(&t.sinks[1], 2, LBRL_CHANNEL_FCT, INFINITY, 1000000);

    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_shm_open(&view, t.memory, t.size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    void *scratch = zeroed(lbrl_reduce_scratch(&view));
    lbrl_reduction_t out[3];
    CHECK_EQUAL(lbrl_reduce(&view, "fct", 2000000, scratch, NULL, out), LBRL_SHM_OK);
    CHECK_NEAR(out[1].avg, 1.1, 1e-6);
    CHECK_NEAR(out[1].p90, 1, 0);
    CHECK(isnan(out[0].avg));
    CHECK(isnan(out[2].avg));

    t.frames.generation[1] = 2; /* samples of another backend do not count */
    CHECK_EQUAL(lbrl_reduce(&view, "fct", 2000000, scratch, NULL, out), LBRL_SHM_OK);
    CHECK(isnan(out[1].avg));
    CHECK_EQUAL(lbrl_reduce(&view, "win", 2000000, scratch, NULL, out), LBRL_SHM_ARGUMENT);
    CHECK_EQUAL(lbrl_reduce(&view, "a name longer than any field's", 0, scratch, NULL, out),
                LBRL_SHM_ARGUMENT);
    free(scratch);
    test_frames_free(&t);
}

static void check_alike(const lbrl_reduction_t *some, const lbrl_reduction_t *others, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const double *a = &some[i].avg, *b = &others[i].avg;
        for (uint32_t j = 0; j < 5; j++) {
            CHECK((isnan(a[j]) && isnan(b[j])) || fabs(a[j] - b[j]) <= 1e-12 * fabs(b[j]));
        }
    }
}

static void channels_together_are_as_one_by_one(void)
{
    test_frames_t t;
    test_frames_make(&t, 3, 2, LBRL_LEVEL_FULL);
    lbrl_frames_slot_open(&t.frames, 0, 1);
    lbrl_frames_slot_open(&t.frames, 2, 1);
    for (uint32_t i = 0; i < 500; i++) {
        const lbrl_channel_t channel = (lbrl_channel_t)(i % LBRL_CHANNEL_COUNT);
        lbrl_sink_sample(&t.sinks[i / 7 % 2], i / 3 % 2 * 2, channel, (float)(i * i % 97),
                         1000000 + i);
    }
    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_shm_open(&view, t.memory, t.size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    void *scratch = zeroed(lbrl_reduce_scratch(&view));
    lbrl_reduction_t together[LBRL_CHANNEL_COUNT + 1][3], alone[3];
    lbrl_channel_reduction_t wanted[LBRL_CHANNEL_COUNT + 1];
    for (uint32_t i = 0; i <= LBRL_CHANNEL_COUNT; i++) {
        const char *name = lbrl_channel_info((lbrl_channel_t)(i % LBRL_CHANNEL_COUNT))->name;
        wanted[i] = (lbrl_channel_reduction_t){name, NULL, together[i]};
    }
    CHECK_EQUAL(lbrl_reduce_channels(&view, wanted, LBRL_CHANNEL_COUNT, 2000000, scratch),
                LBRL_SHM_OK);
    for (uint32_t i = 0; i < LBRL_CHANNEL_COUNT; i++) {
        CHECK_EQUAL(lbrl_reduce(&view, wanted[i].channel, 2000000, scratch, NULL, alone),
                    LBRL_SHM_OK);
        check_alike(alone, together[i], 3);
        CHECK(alone[0].avg >= 0 && isnan(alone[1].avg));
    }

    CHECK_EQUAL(lbrl_reduce_channels(&view, wanted, LBRL_CHANNEL_COUNT + 1, 2000000, scratch),
                LBRL_SHM_ARGUMENT);
    wanted[1].channel = "no channel";
    together[0][0].avg = 42;
    CHECK_EQUAL(lbrl_reduce_channels(&view, wanted, 2, 2000000, scratch), LBRL_SHM_ARGUMENT);
    CHECK(together[0][0].avg == 42); /* all or nothing */
    free(scratch);
    test_frames_free(&t);
}

/* Reduces with and without the cache, which must not matter. */
static void check_cached(const lbrl_shm_view_t *view, void *scratch, lbrl_reduced_t *cache,
                         uint64_t now_us)
{
    lbrl_reduction_t cached[3], fresh[3];
    CHECK_EQUAL(lbrl_reduce(view, "win", now_us, scratch, cache, cached), LBRL_SHM_OK);
    CHECK_EQUAL(lbrl_reduce(view, "win", now_us, scratch, NULL, fresh), LBRL_SHM_OK);
    check_alike(cached, fresh, 3);
}

static void what_did_not_change_is_remembered(void)
{
    const uint64_t second = 1000000, start = 50 * second;
    test_frames_t t;
    test_frames_make(&t, 3, 2, LBRL_LEVEL_FULL);
    lbrl_frames_slot_open(&t.frames, 0, 1);
    lbrl_frames_slot_open(&t.frames, 1, 1);
    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_shm_open(&view, t.memory, t.size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    void *scratch = zeroed(lbrl_reduce_scratch(&view));
    lbrl_reduced_t *cache = zeroed(3 * sizeof(*cache));
    check_cached(&view, scratch, cache, start);
    for (uint32_t i = 0; i < 300; i++) {
        lbrl_sink_sample(&t.sinks[i % 2], 0, LBRL_CHANNEL_WIN, (float)(i * 7 % 100),
                         start + i * second / 2);
        check_cached(&view, scratch, cache, start + i * second / 2);
    }
    const uint64_t quiet = start + 200 * second;
    check_cached(&view, scratch, cache, quiet);
    CHECK(cache[0].until_us > quiet);
    const lbrl_reduced_t before = cache[0];
    check_cached(&view, scratch, cache, quiet + 30 * second);
    CHECK_EQUAL(cache[0].from_us, before.from_us);
    for (uint64_t age = 3400; age < 3800; age += 20) { /* one by one they are dropped */
        check_cached(&view, scratch, cache, start + age * second);
    }
    CHECK(isnan(cache[0].is.avg));
    lbrl_sink_sample(&t.sinks[1], 1, LBRL_CHANNEL_WIN, 5, start + 4000 * second);
    check_cached(&view, scratch, cache, start + 4001 * second);
    lbrl_frames_slot_open(&t.frames, 1, 2); /* another backend, with as many samples */
    lbrl_sink_sample(&t.sinks[1], 1, LBRL_CHANNEL_WIN, 6, start + 4002 * second);
    check_cached(&view, scratch, cache, start + 4003 * second);
    CHECK_NEAR(cache[1].is.avg, 6, 0);
    check_cached(&view, scratch, cache, start); /* a clock of before */
    free(scratch);
    free(cache);
    test_frames_free(&t);
}

int main(void)
{
    what_did_not_change_is_remembered();
    equal_samples();
    weights_count_as_repetition();
    decay_is_a_tenth_per_second();
    an_idle_hour_does_not_underflow();
    no_sample_is_not_a_number();
    workers_count_by_samples_seen();
    channels_together_are_as_one_by_one();
    return 0;
}
