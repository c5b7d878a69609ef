/* What the packet path tells the statistics: events at the right moment, frames that carry them, weights followed. */
#include "objects.h"
#include "rig.h"

static const char *const CLIENT = "198.51.100.7";
static const char *const VIP = "203.0.113.10";

typedef struct bound {
    rig_t rig;
    lbrl_frames_t frames;
    void *memory;
} bound_t;

static void *frames_make(lbrl_frames_t *frames, uint32_t slots, uint32_t workers,
                         lbrl_level_t level)
{
    lbrl_frames_config_t layout = {
        .slots = slots, .workers = workers, .level = level, .instance_id = "test"};
    size_t size = lbrl_frames_size(&layout);
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    CHECK(memory != NULL);
    memset(memory, 0, size);
    CHECK_EQUAL(lbrl_frames_format(frames, memory, size, &layout, 1), 0);
    return memory;
}

static void bind(bound_t *b, uint32_t backends)
{
    b->rig = rig_make(1, 0);
    lbrl_backend_config_t list[64];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, list, backends);
    config.feature_level = LBRL_LEVEL_BASIC;
    CHECK_EQUAL(lbrl_vip_set(b->rig.lb, &config, b->rig.now_us), 0);
    b->memory = frames_make(&b->frames, 8, 1, LBRL_LEVEL_BASIC);
    CHECK_EQUAL(lbrl_frames_bind(b->rig.lb, 1, &b->frames), 0);
}

static void unbind(bound_t *b)
{
    rig_free(&b->rig);
    free(b->memory);
}

/* Value of a counter of slot 0 in the newest frame. */
static int64_t published(bound_t *b, const char *name)
{
    lbrl_publish(b->rig.lb, b->rig.now_us);
    lbrl_shm_view_t view;
    CHECK_EQUAL(
        lbrl_shm_open(&view, b->memory, b->frames.header->size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    uint64_t *copy = malloc(view.header.frame_stride);
    CHECK(copy != NULL);
    CHECK_EQUAL(lbrl_read(&view, copy, view.header.frame_stride), 0);
    const lbrl_shm_field_t *field = lbrl_shm_find(&view, LBRL_SHM_IN_FRAME, name);
    CHECK(field != NULL);
    int64_t value;
    memcpy(&value, (uint8_t *)copy + field->offset, sizeof(value));
    free(copy);
    return value;
}

static uint64_t samples(bound_t *b, const char *channel)
{
    lbrl_shm_view_t view;
    CHECK_EQUAL(
        lbrl_shm_open(&view, b->memory, b->frames.header->size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    char name[32];
    snprintf(name, sizeof(name), "%s.seen", channel);
    const lbrl_shm_field_t *field = lbrl_shm_find(&view, LBRL_SHM_IN_WORKER, name);
    CHECK(field != NULL);
    uint64_t seen;
    CHECK_EQUAL(lbrl_read_live(&view, field, 0, 0, 1, &seen), 0);
    return seen;
}

static void events_are_counted_when_they_happen(void)
{
    bound_t b;
    bind(&b, 1);
    connection_t c = connection_make(&b.rig, CLIENT, 40000, VIP);
    connection_open(&c);
    CHECK_EQUAL(published(&b, "n_flow"), 1);
    CHECK_EQUAL(published(&b, "n_flow_on"), 1);
    CHECK_EQUAL(published(&b, "packets"), 3);
    CHECK_EQUAL(published(&b, "n_packet"), 2);
    CHECK_EQUAL(samples(&b, "flow_duration"), 0); /* no payload yet */

    connection_client(&c, PSH, 100);
    connection_server(&c, PSH, 100);
    CHECK_EQUAL(samples(&b, "flow_duration"), 2);
    c.client_next -= 100; /* again */
    connection_client(&c, PSH, 100);
    CHECK_EQUAL(published(&b, "n_rtr"), 1);
    c.client_next += 500; /* a gap */
    connection_client(&c, PSH, 100);
    CHECK_EQUAL(published(&b, "n_ooo"), 1);
    connection_client(&c, 0, 0);
    connection_client(&c, 0, 0);
    CHECK_EQUAL(published(&b, "n_dpk"), 2);
    CHECK_EQUAL(published(&b, "n_fct"), 0);
    connection_server(&c, FIN, 0);
    CHECK_EQUAL(published(&b, "n_flow_on"), 0);
    connection_client(&c, FIN, 0);
    CHECK_EQUAL(published(&b, "n_fct"), 1);
    CHECK_EQUAL(samples(&b, "fct"), 1);
    connection_client(&c, FIN, 0);
    CHECK_EQUAL(samples(&b, "fct"), 1);
    CHECK_EQUAL(published(&b, "n_flow_on"), 0);

    connection_t repeated = connection_make(&b.rig, CLIENT, 40001, VIP);
    connection_syn(&repeated);
    repeated.client_next--;
    connection_syn(&repeated);
    CHECK_EQUAL(published(&b, "n_rtr"), 2);
    CHECK_EQUAL(published(&b, "n_flow"), 2);
    CHECK_EQUAL(published(&b, "l_assign"), 0);
    connection_t third = connection_make(&b.rig, CLIENT, 40002, VIP);
    connection_open(&third);
    CHECK_EQUAL(published(&b, "l_assign"), 1); /* it found one open flow */
    unbind(&b);
}

static void flow_that_finds_no_port_is_untracked(void)
{
    bound_t b;
    bind(&b, 1);
    CHECK_EQUAL(lbrl_sources_set(b.rig.lb, NULL, 0), 0);
    connection_t c = connection_make(&b.rig, CLIENT, 40000, VIP);
    CHECK_EQUAL(connection_syn(&c), LBRL_VERDICT_DROP);
    CHECK_EQUAL(published(&b, "n_cls"), 1);
    CHECK_EQUAL(published(&b, "n_flow"), 0);
    unbind(&b);
}

static void frames_must_fit_and_are_released(void)
{
    bound_t b;
    bind(&b, 1);
    lbrl_frames_t narrow, next;
    void *narrow_memory = frames_make(&narrow, 4, 1, LBRL_LEVEL_BASIC);
    void *next_memory = frames_make(&next, 8, 1, LBRL_LEVEL_BASIC);
    CHECK_EQUAL(lbrl_frames_bind(b.rig.lb, 1, &narrow), LBRL_ERR_FRAMES);
    CHECK_EQUAL(lbrl_frames_bind(b.rig.lb, 99, &next), LBRL_ERR_NOT_FOUND);
    connection_t c = connection_make(&b.rig, CLIENT, 40000, VIP);
    connection_open(&c);
    connection_client(&c, PSH, 100);
    CHECK_EQUAL(samples(&b, "flow_duration"), 1);
    CHECK(!lbrl_frames_released(b.rig.lb, &b.frames));
    CHECK_EQUAL(lbrl_frames_carry(&next, &b.frames), 0);
    CHECK_EQUAL(lbrl_frames_bind(b.rig.lb, 1, &next), 0);
    CHECK(!lbrl_frames_released(b.rig.lb,
                                &b.frames)); /* until a tick has seen the workers elsewhere */
    lbrl_control_tick(b.rig.lb, b.rig.now_us);
    CHECK(lbrl_frames_released(b.rig.lb, &b.frames));
    free(b.memory);
    b.memory = next_memory;
    b.frames = next;
    CHECK_EQUAL(samples(&b, "flow_duration"), 1);
    connection_client(&c, PSH, 100);
    CHECK_EQUAL(samples(&b, "flow_duration"), 2);
    CHECK_EQUAL(lbrl_frames_bind(b.rig.lb, 1, NULL), 0);
    connection_client(&c, PSH, 100);
    CHECK_EQUAL(samples(&b, "flow_duration"), 2);
    lbrl_publish(b.rig.lb, b.rig.now_us); /* of nothing */
    unbind(&b);
    free(narrow_memory);
}

static void slots_follow_backends_in_the_frames(void)
{
    bound_t b;
    bind(&b, 2);
    CHECK_EQUAL(b.frames.active[0], 3);
    lbrl_backend_config_t list[2];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, list, 1);
    config.feature_level = LBRL_LEVEL_BASIC;
    CHECK_EQUAL(lbrl_vip_set(b.rig.lb, &config, b.rig.now_us), 0);
    rig_pass(&b.rig, 500);
    CHECK_EQUAL(b.frames.active[0], 1);
    config = rig_vip(1, VIP, 80, 6, list, 2);
    config.feature_level = LBRL_LEVEL_OFF;
    list[1].id = 77;
    CHECK_EQUAL(lbrl_vip_set(b.rig.lb, &config, b.rig.now_us), 0);
    CHECK_EQUAL(b.frames.active[0], 3);
    CHECK_EQUAL(b.frames.generation[1], 2);
    connection_t c = connection_make(&b.rig, CLIENT, 40000, VIP);
    connection_open(&c);
    connection_client(&c, PSH, 100);
    CHECK_EQUAL(samples(&b, "flow_duration"), 0); /* the level is off now */
    unbind(&b);
}

static void weights_follow_the_agent_until_it_falls_silent(void)
{
    bound_t b;
    bind(&b, 2);
    size_t size = lbrl_actions_size(8);
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    CHECK(memory != NULL);
    memset(memory, 0, size);
    lbrl_actions_t actions;
    CHECK_EQUAL(lbrl_actions_format(&actions, memory, size, 8, b.rig.now_us), 0);
    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_shm_open(&view, memory, size, LBRL_SHM_ACTIONS_MAGIC, NULL), 0);
    CHECK_EQUAL(lbrl_weights_follow(b.rig.lb, 1, &view, b.rig.now_us), 0);
    CHECK_EQUAL(lbrl_weights_follow(b.rig.lb, 99, &view, b.rig.now_us), LBRL_ERR_NOT_FOUND);
    float weights[8] = {3, 1};
    uint8_t generations[8] = {1, 1};
    lbrl_actions_write(&actions, weights, NULL, generations, b.rig.now_us);
    CHECK_EQUAL(lbrl_weights_follow(b.rig.lb, 1, &view, b.rig.now_us), 1);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1001).weight, 3, 0);
    lbrl_vip_status_t status;
    CHECK_EQUAL(lbrl_vip_status(b.rig.lb, 1, &status, NULL, 0), 0);
    CHECK_EQUAL(status.actions_sequence, 1);
    weights[0] = -1;
    lbrl_actions_write(&actions, weights, NULL, generations, b.rig.now_us);
    CHECK_EQUAL(lbrl_weights_follow(b.rig.lb, 1, &view, b.rig.now_us), LBRL_SHM_BAD_WEIGHT);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1001).weight, 3, 0);
    rig_pass(&b.rig, 29000);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1001).weight, 3, 0);
    rig_pass(&b.rig, 15000);
    float half = rig_backend(&b.rig, 1, 1001).weight;
    CHECK(half > 2.1f && half < 2.9f);
    rig_pass(&b.rig, 20000);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1001).weight, 2, 1e-3);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1002).weight, 2, 1e-3);
    /* a new backend is one of equals then, whatever is configured */
    lbrl_backend_config_t backends[3];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, 3);
    config.feature_level = LBRL_LEVEL_BASIC;
    backends[2].weight = 50;
    CHECK_EQUAL(lbrl_vip_set(b.rig.lb, &config, b.rig.now_us), 0);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1003).weight, 2, 1e-3);
    weights[0] = 5; /* it is back */
    lbrl_actions_write(&actions, weights, NULL, generations, b.rig.now_us);
    CHECK_EQUAL(lbrl_weights_follow(b.rig.lb, 1, &view, b.rig.now_us), 1);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1001).weight, 5, 0);
    CHECK_EQUAL(lbrl_weights_reset(b.rig.lb, 1), 0);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1001).weight, 1, 0);
    unbind(&b);
    free(memory);
}

/* An actions object of 8 slots with one frame in it. */
typedef struct object {
    void *memory;
    lbrl_actions_t writer;
    lbrl_shm_view_t view;
} object_t;

static object_t object_with(float first, float second, uint64_t now_us)
{
    object_t object;
    size_t size = lbrl_actions_size(8);
    object.memory = aligned_alloc(64, (size + 63) / 64 * 64);
    CHECK(object.memory != NULL);
    memset(object.memory, 0, size);
    CHECK_EQUAL(lbrl_actions_format(&object.writer, object.memory, size, 8, now_us), 0);
    lbrl_actions_write(&object.writer, (float[8]){first, second}, NULL, (uint8_t[8]){1, 1}, now_us);
    CHECK_EQUAL(lbrl_shm_open(&object.view, object.memory, size, LBRL_SHM_ACTIONS_MAGIC, NULL), 0);
    return object;
}

static void another_object_is_new_whatever_its_sequence(void)
{
    bound_t b;
    bind(&b, 2);
    object_t first = object_with(3, 1, b.rig.now_us);
    object_t second = object_with(7, 1, b.rig.now_us);
    CHECK_EQUAL(lbrl_weights_unfollow(b.rig.lb, 99, b.rig.now_us), LBRL_ERR_NOT_FOUND);
    CHECK_EQUAL(lbrl_weights_follow(b.rig.lb, 1, &first.view, b.rig.now_us), 1);
    CHECK_EQUAL(lbrl_weights_follow(b.rig.lb, 1, &second.view, b.rig.now_us), 0);
    CHECK_EQUAL(lbrl_weights_unfollow(b.rig.lb, 1, b.rig.now_us), 0);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1001).weight, 3, 0);
    CHECK_EQUAL(lbrl_weights_follow(b.rig.lb, 1, &second.view, b.rig.now_us), 1);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1001).weight, 7, 0);
    /* it is followed, as if there had been no other */
    rig_pass(&b.rig, 20000);
    lbrl_actions_write(&second.writer, (float[8]){6, 1}, NULL, (uint8_t[8]){1, 1}, b.rig.now_us);
    CHECK_EQUAL(lbrl_weights_follow(b.rig.lb, 1, &second.view, b.rig.now_us), 1);
    rig_pass(&b.rig, 20000);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1001).weight, 6, 0);
    unbind(&b);
    free(first.memory);
    free(second.memory);
}

static void refused_weights_of_another_object_are_reported_once(void)
{
    bound_t b;
    bind(&b, 2);
    object_t object = object_with(-1, 1, b.rig.now_us);
    lbrl_vip_status_t status;
    CHECK_EQUAL(lbrl_weights_unfollow(b.rig.lb, 1, b.rig.now_us), 0);
    CHECK_EQUAL(lbrl_weights_follow(b.rig.lb, 1, &object.view, b.rig.now_us), LBRL_SHM_BAD_WEIGHT);
    CHECK_EQUAL(lbrl_weights_follow(b.rig.lb, 1, &object.view, b.rig.now_us), 0);
    CHECK_EQUAL(lbrl_vip_status(b.rig.lb, 1, &status, NULL, 0), 0);
    CHECK_EQUAL(status.actions_sequence, 0); /* these weights are not in force */
    unbind(&b);
    free(object.memory);
}

static void without_an_object_the_configured_weights_come_back(void)
{
    bound_t b;
    bind(&b, 2);
    object_t object = object_with(3, 1, b.rig.now_us);
    CHECK_EQUAL(lbrl_weights_follow(b.rig.lb, 1, &object.view, b.rig.now_us), 1);
    rig_pass(&b.rig, 20000);
    CHECK_EQUAL(lbrl_weights_unfollow(b.rig.lb, 1, b.rig.now_us), 0);
    rig_pass(&b.rig, 20000);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1001).weight, 3, 0); /* the grace counts from the removal */
    CHECK_EQUAL(lbrl_weights_unfollow(b.rig.lb, 1, b.rig.now_us), 0); /* from the first of them */
    rig_pass(&b.rig, 11000);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1001).weight, 1, 0);
    lbrl_vip_status_t status;
    CHECK_EQUAL(lbrl_vip_status(b.rig.lb, 1, &status, NULL, 0), 0);
    CHECK_EQUAL(status.actions_sequence, 0);
    CHECK_EQUAL(lbrl_weights_follow(b.rig.lb, 1, &object.view, b.rig.now_us), 1); /* it is back */
    unbind(&b);
    free(object.memory);
}

static void weights_set_by_hand_stay_without_an_object(void)
{
    bound_t b;
    bind(&b, 2);
    CHECK_EQUAL(lbrl_weights_set(b.rig.lb, 1, (float[]){4, 1}, NULL, NULL, 2), 0);
    CHECK_EQUAL(lbrl_weights_unfollow(b.rig.lb, 1, b.rig.now_us), 0);
    rig_pass(&b.rig, 40000);
    CHECK_NEAR(rig_backend(&b.rig, 1, 1001).weight, 4, 0);
    unbind(&b);
}

int main(void)
{
    events_are_counted_when_they_happen();
    flow_that_finds_no_port_is_untracked();
    frames_must_fit_and_are_released();
    slots_follow_backends_in_the_frames();
    weights_follow_the_agent_until_it_falls_silent();
    another_object_is_new_whatever_its_sequence();
    refused_weights_of_another_object_are_reported_once();
    without_an_object_the_configured_weights_come_back();
    weights_set_by_hand_stay_without_an_object();
    return 0;
}
