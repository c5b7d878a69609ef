/* Level full: what is remembered of flows ends when it should, and never outlives what it was recorded for. The
 * definitions themselves are compared with a reference in Python (test_features_match_reference.py). */
#include "objects.h"
#include "rig.h"

static const char *const CLIENT = "198.51.100.7";
static const char *const VIP = "203.0.113.10";

typedef struct bound {
    rig_t rig;
    lbrl_frames_t frames;
    void *memory;
} bound_t;

static void set_level(bound_t *b, lbrl_level_t level)
{
    lbrl_backend_config_t backend;
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, &backend, 1);
    config.feature_level = (uint8_t)level;
    CHECK_EQUAL(lbrl_vip_set(b->rig.lb, &config, b->rig.now_us), 0);
}

static void bind(bound_t *b)
{
    lbrl_frames_config_t layout = {
        .slots = 8, .workers = 1, .level = LBRL_LEVEL_FULL, .instance_id = "test"};
    size_t size = lbrl_frames_size(&layout);
    b->memory = zeroed(size);
    CHECK_EQUAL(lbrl_frames_format(&b->frames, b->memory, size, &layout, 1), 0);
    CHECK_EQUAL(lbrl_frames_bind(b->rig.lb, 1, &b->frames), 0);
}

/* `b` must stay where it is: the core keeps pointers to its frames. */
static void make(bound_t *b)
{
    b->rig = rig_make(1, 0);
    set_level(b, LBRL_LEVEL_FULL);
    bind(b);
}

static void drop(bound_t *b)
{
    rig_free(&b->rig);
    free(b->memory);
}

static int64_t active(bound_t *b)
{
    lbrl_shm_view_t view;
    lbrl_publish(b->rig.lb, b->rig.now_us);
    CHECK_EQUAL(
        lbrl_shm_open(&view, b->memory, b->frames.header->size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    uint64_t *copy = zeroed(view.header.frame_stride);
    CHECK_EQUAL(lbrl_read(&view, copy, view.header.frame_stride), 0);
    const lbrl_shm_field_t *field = lbrl_shm_find(&view, LBRL_SHM_IN_FRAME, "n_active");
    CHECK(field != NULL);
    int64_t value;
    memcpy(&value, (uint8_t *)copy + field->offset, sizeof(value));
    free(copy);
    return value;
}

static uint64_t samples(const bound_t *b, lbrl_channel_t channel)
{
    lbrl_shm_view_t view;
    char name[32];
    snprintf(name, sizeof(name), "%s.seen", lbrl_channel_info(channel)->name);
    CHECK_EQUAL(
        lbrl_shm_open(&view, b->memory, b->frames.header->size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    uint64_t seen;
    CHECK_EQUAL(
        lbrl_read_live(&view, lbrl_shm_find(&view, LBRL_SHM_IN_WORKER, name), 0, 0, 1, &seen), 0);
    return seen;
}

static connection_t asking(bound_t *b, uint16_t port)
{
    connection_t c = connection_make(&b->rig, CLIENT, port, VIP);
    connection_open(&c);
    connection_client(&c, PSH, 100);
    return c;
}

static void flow_is_active_from_question_to_acknowledged_answer(void)
{
    bound_t b;
    make(&b);
    connection_t c = asking(&b, 40000);
    connection_t other = asking(&b, 40001);
    CHECK_EQUAL(active(&b), 2);
    connection_client(&c, PSH, 100); /* more of the same question */
    CHECK_EQUAL(active(&b), 2);
    connection_server(&c, 0, 536); /* goes on */
    connection_client(&c, 0, 0);
    CHECK_EQUAL(active(&b), 2);
    connection_server(&c, 0, 535);
    CHECK_EQUAL(active(&b), 2);
    connection_client(&c, 0, 0);
    CHECK_EQUAL(active(&b), 1);
    connection_server(&other, PSH, 100);
    connection_client(&other, PSH, 100); /* acknowledges and asks again */
    CHECK_EQUAL(active(&b), 1);
    connection_client(&other, RST, 0);
    CHECK_EQUAL(active(&b), 0);
    drop(&b);
}

static void silence_ends_activity(void)
{
    bound_t b;
    make(&b);
    connection_t c = asking(&b, 40000);
    rig_pass(&b.rig, 29000);
    CHECK_EQUAL(active(&b), 1);
    rig_pass(&b.rig, 2500);
    CHECK_EQUAL(active(&b), 0);
    connection_server(&c, PSH, 100); /* too late, and no matter */
    connection_client(&c, 0, 0);
    CHECK_EQUAL(active(&b), 0);
    connection_client(&c, PSH, 100);
    CHECK_EQUAL(active(&b), 1);
    rig_pass(&b.rig, 1000000); /* the flow expires */
    CHECK_EQUAL(active(&b), 0);
    drop(&b);
}

static void flows_from_before_the_level_feed_counters_only(void)
{
    bound_t b;
    make(&b);
    set_level(&b, LBRL_LEVEL_BASIC);
    connection_t c = asking(&b, 40000);
    set_level(&b, LBRL_LEVEL_FULL);
    connection_client(&c, PSH, 100);
    connection_server(&c, PSH, 100);
    CHECK_EQUAL(active(&b), 0);
    CHECK_EQUAL(samples(&b, LBRL_CHANNEL_FLOW_DURATION), 3);
    CHECK_EQUAL(samples(&b, LBRL_CHANNEL_BYTE_P), 0);
    CHECK_EQUAL(samples(&b, LBRL_CHANNEL_PT_GEN), 0);
    drop(&b);
}

static void activity_of_an_earlier_spell_at_full_is_forgotten(void)
{
    bound_t b;
    make(&b);
    connection_t old = asking(&b, 40000);
    CHECK_EQUAL(active(&b), 1);
    set_level(&b, LBRL_LEVEL_BASIC);
    connection_client(&old, PSH, 100);
    set_level(&b, LBRL_LEVEL_FULL);
    CHECK_EQUAL(active(&b), 0);
    (void)asking(&b, 40001);
    CHECK_EQUAL(active(&b), 1);
    connection_client(&old, RST, 0); /* was active in another spell */
    CHECK_EQUAL(active(&b), 1);
    drop(&b);
}

static void restart_keeps_flows_but_not_what_was_remembered(void)
{
    bound_t b;
    make(&b);
    connection_t c = asking(&b, 40000);
    rig_restart(&b.rig);
    free(b.memory);
    bind(&b);
    connection_client(&c, PSH, 100);
    connection_server(&c, PSH, 100);
    CHECK_EQUAL(active(&b), 0);
    CHECK_EQUAL(samples(&b, LBRL_CHANNEL_BYTE_P), 0);
    CHECK_EQUAL(samples(&b, LBRL_CHANNEL_FLOW_DURATION), 2);
    drop(&b);
}

static void full_without_frames_counts(void)
{
    bound_t b = {.rig = rig_make(1, 0)};
    set_level(&b, LBRL_LEVEL_FULL);
    connection_t c = asking(&b, 40000);
    bind(&b);
    CHECK_EQUAL(active(&b), 1);
    connection_server(&c, PSH, 100);
    CHECK_EQUAL(samples(&b, LBRL_CHANNEL_PT_1ST), 1);
    drop(&b);
}

/* ------------------------------------------------------------------------------- as load */

static void set_two(bound_t *b, lbrl_level_t level, lbrl_load_t load)
{
    lbrl_backend_config_t backends[2];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, 2);
    config.feature_level = (uint8_t)level;
    config.load = (uint8_t)load;
    CHECK_EQUAL(lbrl_vip_set(b->rig.lb, &config, b->rig.now_us), 0);
}

static bool at_first(const connection_t *c)
{
    return is_address(&c->backend, "10.0.0.1");
}

/* Opens `n` connections that ask; those at the first backend are answered and idle then. Returns how many they are. */
static uint32_t idle_at_first(bound_t *b, uint16_t port, uint16_t n)
{
    uint32_t idle = 0;
    for (uint16_t i = 0; i < n; i++) {
        connection_t c = asking(b, (uint16_t)(port + i));
        if (at_first(&c)) {
            connection_server(&c, PSH, 100);
            connection_client(&c, 0, 0);
            idle++;
        }
    }
    return idle;
}

static uint32_t sent_to_first(bound_t *b, uint16_t port, uint16_t n)
{
    uint32_t first = 0;
    for (uint16_t i = 0; i < n; i++) {
        connection_t c = asking(b, (uint16_t)(port + i));
        first += at_first(&c);
    }
    return first;
}

static void idle_connections_are_no_load_where_active_flows_count(void)
{
    bound_t b;
    make(&b);
    set_two(&b, LBRL_LEVEL_FULL, LBRL_LOAD_OPEN);
    CHECK_EQUAL(idle_at_first(&b, 40000, 20), 10);
    CHECK_EQUAL(sent_to_first(&b, 41000, 10), 5); /* open flows are in balance */
    drop(&b);
    make(&b);
    set_two(&b, LBRL_LEVEL_FULL, LBRL_LOAD_ACTIVE);
    const uint32_t idle = idle_at_first(&b, 40000, 20);
    CHECK(idle >= 18); /* as soon as they are idle the first backend is free again */
    CHECK_EQUAL(sent_to_first(&b, 41000, 20 - (uint16_t)idle), 20 - idle); /* until it is as busy */
    drop(&b);
}

static void new_flows_are_load_before_they_ask_but_not_for_ever(void)
{
    bound_t b;
    make(&b);
    set_two(&b, LBRL_LEVEL_FULL, LBRL_LOAD_ACTIVE);
    uint32_t first = 0;
    for (uint16_t i = 0; i < 20; i++) {
        connection_t c = connection_make(&b.rig, CLIENT, (uint16_t)(40000 + i), VIP);
        connection_open(&c);
        first += at_first(&c);
    }
    CHECK_EQUAL(first, 10); /* not all of them to the same one */
    rig_pass(&b.rig, 32000);
    uint32_t more = sent_to_first(&b, 41000, 20);
    CHECK_EQUAL(more, 10);
    rig_pass(&b.rig, 1000000); /* everything expires */
    CHECK_EQUAL(sent_to_first(&b, 42000, 20), 10);
    drop(&b);
}

static void open_flows_count_below_level_full(void)
{
    bound_t b;
    make(&b);
    set_two(&b, LBRL_LEVEL_BASIC, LBRL_LOAD_ACTIVE);
    CHECK_EQUAL(idle_at_first(&b, 40000, 20), 10);
    set_two(&b, LBRL_LEVEL_FULL, LBRL_LOAD_ACTIVE);
    CHECK_EQUAL(sent_to_first(&b, 41000, 4), 2); /* those from before the level count as idle */
    set_two(&b, LBRL_LEVEL_BASIC, LBRL_LOAD_ACTIVE);
    set_two(&b, LBRL_LEVEL_FULL, LBRL_LOAD_ACTIVE);
    CHECK_EQUAL(sent_to_first(&b, 42000, 4), 2); /* nothing is left of the spell before */
    drop(&b);
}

int main(void)
{
    idle_connections_are_no_load_where_active_flows_count();
    new_flows_are_load_before_they_ask_but_not_for_ever();
    open_flows_count_below_level_full();
    flow_is_active_from_question_to_acknowledged_answer();
    silence_ends_activity();
    flows_from_before_the_level_feed_counters_only();
    activity_of_an_earlier_spell_at_full_is_forgotten();
    restart_keeps_flows_but_not_what_was_remembered();
    full_without_frames_counts();
    return 0;
}
