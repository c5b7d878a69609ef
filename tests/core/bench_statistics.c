/* Speed of statistics: medians of processor time. */
#include "bench_report.h"

#include "lbrl/reduce.h"
#include "objects.h"
#include "rig.h"

enum {
    BACKENDS = 64,
    SLOTS = 128,
};

/* ---- Sinks, frames, reductions ---- */

static void bench_sinks(test_frames_t *t)
{
    lbrl_sink_t *sink = &t->sinks[0];
    uint64_t random = 3;
    double packet, sample;
    MEASURE(packet, 50000, lbrl_sink_packet(sink, (i * 7) % BACKENDS, 1, 1500, true, i & 1));
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
    static lbrl_reduction_t out[LBRL_CHANNEL_COUNT][SLOTS];
    lbrl_channel_reduction_t wanted[LBRL_CHANNEL_COUNT];
    for (uint32_t i = 0; i < LBRL_CHANNEL_COUNT; i++) {
        wanted[i] =
            (lbrl_channel_reduction_t){lbrl_channel_info((lbrl_channel_t)i)->name, NULL, out[i]};
    }
    double all;
    MEASURE(all, 5, lbrl_reduce_channels(&view, wanted, LBRL_CHANNEL_COUNT, 60000000, scratch));
    report_bar("reduce_64_backends_13_channels", all / 1e3, "us", 3333);
    free(scratch);
    test_frames_free(&t);
}

/* ---- Weights ---- */

/* From the agent's writing a vector of weights to their being in force for the next packet, where the data plane looks at
 * once (it otherwise does with every frame). */
static double weights_used(lbrl_scheduler_type_t scheduler)
{
    rig_t rig = rig_sized(4096, 1);
    lbrl_backend_config_t backends[BACKENDS];
    lbrl_vip_config_t vip = rig_vip(1, "203.0.113.10", 80, 6, backends, BACKENDS);
    vip.scheduler = (uint8_t)scheduler;
    vip.table_size = 0; /* the default */
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &vip, rig.now_us), 0);
    const size_t size = lbrl_actions_size(SLOTS);
    void *memory = zeroed(size);
    lbrl_actions_t actions;
    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_actions_format(&actions, memory, size, SLOTS, rig.now_us), 0);
    CHECK_EQUAL(lbrl_shm_open(&view, memory, size, LBRL_SHM_ACTIONS_MAGIC, NULL), 0);
    float weight[SLOTS] = {0};
    uint8_t generation[SLOTS];
    memset(generation, 1, sizeof(generation));
    uint64_t random = 7;
    double used;
    MEASURE(used, 1, {
        for (uint32_t slot = 0; slot < BACKENDS; slot++) {
            weight[slot] = (float)(100 + next_random(&random) % 100);
        }
        lbrl_actions_write(&actions, weight, NULL, generation, rig.now_us);
        CHECK_EQUAL(lbrl_weights_follow(rig.lb, 1, &view, rig.now_us), 1);
        lbrl_control_tick(rig.lb, rig.now_us);
    });
    free(memory);
    rig_free(&rig);
    return used;
}

static void bench_weights(void)
{
    report_bar("weights_used_sed", weights_used(LBRL_SCHEDULER_SED) / 1e6, "ms", 1);
    report_bar("weights_used_maglev", weights_used(LBRL_SCHEDULER_MAGLEV) / 1e6, "ms", 1);
}

int main(void)
{
    bench_full();
    bench_weights();
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
