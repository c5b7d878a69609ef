/* Integrals of gauges over time: exact, of all workers together, and none falls from frame to frame. */
#include <pthread.h>

#include "objects.h"
#include "rig.h"

static const char *const VIP = "203.0.113.10";

enum { EVENTS = 200000, SLOT = 1 };

static int64_t in_frame(const void *memory, size_t size, uint32_t slot, const char *name)
{
    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_shm_open(&view, memory, size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    void *copy = malloc(view.header.frame_stride);
    CHECK(copy != NULL);
    CHECK_EQUAL(lbrl_read(&view, copy, view.header.frame_stride), 0);
    const lbrl_shm_field_t *field = lbrl_shm_find(&view, LBRL_SHM_IN_FRAME, name);
    CHECK(field != NULL);
    int64_t value;
    memcpy(&value, (uint8_t *)copy + field->offset + slot * sizeof(value), sizeof(value));
    free(copy);
    return value;
}

static int64_t published(test_frames_t *t, uint64_t now_us, const char *name)
{
    test_frames_publish(t, now_us);
    return in_frame(t->memory, t->size, SLOT, name);
}

static void an_integral_is_that_of_its_gauge(void)
{
    test_frames_t t;
    test_frames_make(&t, 4, 2, LBRL_LEVEL_FULL);
    lbrl_frames_slot_open(&t.frames, SLOT, 1);
    uint64_t random = 1, now_us = UINT64_C(9000000000000), open[2] = {0}, busy[2] = {0};
    uint64_t open_us = 0, active_us = 0;
    for (uint32_t i = 0; i < EVENTS; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        const uint32_t worker = random >> 40 & 1, kind = random >> 41 & 3;
        const uint64_t gap = random >> 43 & 1023;
        open_us += (open[0] + open[1]) * gap;
        active_us += (busy[0] + busy[1]) * gap;
        now_us += gap;
        if (kind == 0 || (kind == 1 && open[worker] == 0)) {
            lbrl_sink_flow_open(&t.sinks[worker], SLOT, 0, now_us);
            open[worker]++;
        } else if (kind == 1) {
            lbrl_sink_flow_close(&t.sinks[worker], SLOT, now_us);
            open[worker]--;
        } else if (kind == 2 || busy[worker] == 0) {
            lbrl_sink_active(&t.sinks[worker], SLOT, 1, now_us);
            busy[worker]++;
        } else {
            lbrl_sink_active(&t.sinks[worker], SLOT, -1, now_us);
            busy[worker]--;
        }
        if (i % 1000 == 999) {
            CHECK_EQUAL(published(&t, now_us, "open_us"), open_us);
            CHECK_EQUAL(in_frame(t.memory, t.size, SLOT, "active_us"), active_us);
            CHECK_EQUAL(in_frame(t.memory, t.size, SLOT, "n_active"), busy[0] + busy[1]);
        }
    }
    CHECK(open[0] + open[1] > 100);
    test_frames_free(&t);
}

static void clocks_that_differ_make_none_fall(void)
{
    test_frames_t t;
    test_frames_make(&t, 4, 2, LBRL_LEVEL_FULL);
    lbrl_frames_slot_open(&t.frames, SLOT, 1);
    lbrl_sink_flow_open(&t.sinks[0], SLOT, 0, 5300); /* a worker's clock is ahead of the frame's */
    CHECK_EQUAL(published(&t, 5000, "open_us"), 0);
    CHECK_EQUAL(published(&t, 5200, "open_us"), 0);
    CHECK_EQUAL(published(&t, 6300, "open_us"), 1000);
    lbrl_sink_flow_open(&t.sinks[1], SLOT, 0, 6000); /* and behind it */
    CHECK_EQUAL(published(&t, 7300, "open_us"), 2000 + 1300);
    lbrl_sink_flow_close(&t.sinks[0], SLOT, 6900);
    lbrl_sink_flow_close(&t.sinks[1], SLOT, 6900);
    CHECK_EQUAL(published(&t, 7400, "open_us"), 3300); /* 1600 + 900 */
    lbrl_sink_flow_open(&t.sinks[1], SLOT, 0, 7400);
    CHECK_EQUAL(published(&t, 8000, "open_us"), 3300);
    CHECK_EQUAL(published(&t, 9400, "open_us"), 2500 + 2000);
    test_frames_free(&t);
}

/* 600 flows for a year are more than 2^54. */
static void an_integral_may_be_of_any_size(void)
{
    enum { FLOWS = 600 };
    const uint64_t day = UINT64_C(86400) * 1000000;
    test_frames_t t;
    test_frames_make(&t, 4, 1, LBRL_LEVEL_FULL);
    lbrl_frames_slot_open(&t.frames, SLOT, 1);
    for (uint32_t i = 0; i < FLOWS; i++) {
        lbrl_sink_flow_open(&t.sinks[0], SLOT, 0, day);
    }
    for (uint64_t days = 1; days <= 366; days++) {
        CHECK_EQUAL(published(&t, (days + 1) * day, "open_us"), FLOWS * days * day);
    }
    for (uint32_t i = 0; i < FLOWS; i++) {
        lbrl_sink_flow_close(&t.sinks[0], SLOT, 367 * day);
    }
    CHECK_EQUAL(published(&t, 368 * day, "open_us"), FLOWS * 366 * day);
    test_frames_free(&t);
}

static void an_integral_begins_anew_with_backend_and_level(void)
{
    test_frames_t t;
    test_frames_make(&t, 4, 1, LBRL_LEVEL_FULL);
    lbrl_frames_slot_open(&t.frames, SLOT, 1);
    lbrl_sink_flow_open(&t.sinks[0], SLOT, 0, 1000);
    lbrl_sink_active(&t.sinks[0], SLOT, 1, 1000);
    CHECK_EQUAL(published(&t, 4000, "active_us"), 3000);
    lbrl_sink_t next = t.sinks[0];
    next.era++;
    t.sinks[0] = next;
    CHECK_EQUAL(published(&t, 5000, "active_us"), 0);
    CHECK_EQUAL(in_frame(t.memory, t.size, SLOT, "open_us"), 4000);
    lbrl_sink_active(&t.sinks[0], SLOT, 1, 5500);
    CHECK_EQUAL(published(&t, 6000, "active_us"), 500);
    CHECK_EQUAL(in_frame(t.memory, t.size, SLOT, "n_active"), 1);

    lbrl_sink_slot_reset(&t.sinks[0], SLOT);
    lbrl_frames_slot_open(&t.frames, SLOT, 2);
    CHECK_EQUAL(published(&t, 7000, "active_us"), 0);
    CHECK_EQUAL(in_frame(t.memory, t.size, SLOT, "open_us"), 0);
    test_frames_free(&t);
}

/* ------------------------------------------------------------------------------- while a worker runs */

typedef struct running {
    test_frames_t frames;
    uint64_t now_us;
    uint32_t done;
} running_t;

/* Bursts of up to 300 flows at one time, as a vector brings them. */
static void *work(void *argument)
{
    running_t *r = argument;
    for (uint32_t i = 0; i < EVENTS / 100; i++) {
        const uint64_t now_us = __atomic_load_n(&r->now_us, __ATOMIC_RELAXED);
        for (uint32_t flows = i % 300; flows > 0; flows--) {
            lbrl_sink_flow_open(&r->frames.sinks[0], SLOT, 0, now_us);
        }
        for (uint32_t flows = i % 300; flows > 0; flows--) {
            lbrl_sink_flow_close(&r->frames.sinks[0], SLOT, now_us);
        }
    }
    __atomic_store_n(&r->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* No flow lasts, so that the clock's steps are all that may ever be counted, whenever the frame is made. */
static void a_frame_never_mixes_gauge_and_integral(void)
{
    static running_t r;
    const uint64_t step = 1000, start = UINT64_C(5000000000000);
    test_frames_make(&r.frames, 4, 1, LBRL_LEVEL_OFF);
    lbrl_frames_slot_open(&r.frames.frames, SLOT, 1);
    r.now_us = start;
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, work, &r), 0);
    int64_t before = 0;
    while (!__atomic_load_n(&r.done, __ATOMIC_ACQUIRE)) {
        const uint64_t now_us = __atomic_add_fetch(&r.now_us, step, __ATOMIC_RELAXED);
        const int64_t open_us = published(&r.frames, now_us, "open_us");
        CHECK(open_us >= before);
        before = open_us;
    }
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK((uint64_t)before <= 300 * (r.now_us - start));
    test_frames_free(&r.frames);
}

/* ------------------------------------------------------------------------------- of a load balancer */

static int64_t of_backend(rig_t *rig, const rig_frames_t *frames, const char *name)
{
    lbrl_publish(rig->lb, rig->now_us);
    return in_frame(frames->memory, frames->size, 0, name);
}

static void bind_full(rig_t *rig, rig_frames_t *frames)
{
    lbrl_backend_config_t backends[1];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, 1);
    config.feature_level = LBRL_LEVEL_FULL;
    CHECK_EQUAL(lbrl_vip_set(rig->lb, &config, rig->now_us), 0);
    rig_bind_frames(rig, frames, 1);
}

static void turn(connection_t *c, uint64_t milliseconds)
{
    connection_client(c, PSH, 100);
    rig_pass(c->rig, milliseconds);
    connection_server(c, PSH, 100);
    connection_client(c, 0, 0);
}

static void requests_of_a_kept_connection_count_each(void)
{
    rig_t rig = rig_make(1, 0);
    rig_frames_t frames;
    bind_full(&rig, &frames);
    connection_t c = connection_make(&rig, "198.51.100.7", 40000, VIP);
    connection_open(&c);
    const uint64_t opened = rig.now_us;
    const int64_t active = of_backend(&rig, &frames, "active_us");
    for (uint32_t i = 0; i < 3; i++) {
        turn(&c, 200);
        rig_pass(&rig, 1000);
    }
    CHECK_EQUAL(of_backend(&rig, &frames, "n_turn"), 3);
    CHECK_NEAR(of_backend(&rig, &frames, "active_us") - active, 600000, 100);
    connection_client(&c, PSH,
                      100); /* sent again: it has no sample, and is a request all the same */
    c.client_next -= 100;
    connection_client(&c, PSH, 100);
    connection_server(&c, 0, 1000);
    connection_server(&c, PSH, 1000);
    CHECK_EQUAL(of_backend(&rig, &frames, "n_turn"), 4);
    connection_client(&c, PSH, 100); /* two at once are answered once */
    connection_client(&c, PSH, 100);
    connection_server(&c, PSH, 1000);
    connection_server(&c, PSH, 1000);
    CHECK_EQUAL(of_backend(&rig, &frames, "n_turn"), 5);
    connection_client(&c, PSH, 100); /* never answered */
    connection_client(&c, FIN, 0);
    connection_server(&c, FIN, 0);
    CHECK_EQUAL(of_backend(&rig, &frames, "n_turn"), 5);
    CHECK_NEAR(of_backend(&rig, &frames, "open_us"), (double)(rig.now_us - opened), 100);
    rig_free(&rig);
    free(frames.memory);
}

static void flows_that_outlive_a_restart_are_open_from_then_on(void)
{
    rig_t rig = rig_make(2, 0);
    rig_frames_t frames;
    bind_full(&rig, &frames);
    connection_t c = connection_make(&rig, "198.51.100.7", 40000, VIP);
    connection_open(&c);
    connection_client(&c, PSH, 100);
    rig_pass(&rig, 1000);
    CHECK_NEAR(of_backend(&rig, &frames, "open_us"), 1e6, 100);
    free(frames.memory);
    rig_restart(&rig);
    const uint64_t attached = rig.now_us;
    rig_bind_frames(&rig, &frames, 1);
    CHECK_EQUAL(of_backend(&rig, &frames, "n_flow_on"), 1);
    rig_pass(&rig, 2000);
    const int64_t since = (int64_t)(rig.now_us - attached);
    CHECK_NEAR(of_backend(&rig, &frames, "open_us"), (double)since, 1000);
    connection_client(&c, PSH, 100); /* what it waits for is not known */
    connection_server(&c, PSH, 100);
    CHECK_EQUAL(of_backend(&rig, &frames, "n_turn"), 0);
    CHECK_EQUAL(of_backend(&rig, &frames, "active_us"), 0);
    rig_free(&rig);
    free(frames.memory);
}

int main(void)
{
    an_integral_is_that_of_its_gauge();
    clocks_that_differ_make_none_fall();
    an_integral_may_be_of_any_size();
    an_integral_begins_anew_with_backend_and_level();
    a_frame_never_mixes_gauge_and_integral();
    requests_of_a_kept_connection_count_each();
    flows_that_outlive_a_restart_are_open_from_then_on();
    return 0;
}
