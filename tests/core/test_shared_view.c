/* Shared view: what schedulers compare where the peers' flows are known, and what is left of it when they are not any more. */
#include "rig.h"

static const char *const VIP = "203.0.113.10";

enum { BACKENDS = 3 };

static rig_t make(uint32_t balancers)
{
    static const uint8_t key[16] = {1};
    lbrl_backend_config_t backends[BACKENDS];
    rig_t rig = rig_sized(4096, 1);
    rig_set_sources(&rig);
    CHECK_EQUAL(lbrl_node_set(rig.lb, key, balancers), 0);
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, BACKENDS);
    config.scheduler = LBRL_SCHEDULER_SED;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    return rig;
}

/* Backend that a new flow goes to, by its place in the configuration. */
static unsigned new_flow(rig_t *rig)
{
    static uint16_t port = 1024;
    connection_t c = connection_make(rig, "198.51.100.7", port++, VIP);
    connection_open(&c);
    return c.backend.bytes[15] - 1u;
}

static void set_peers(rig_t *rig, uint32_t a, uint32_t b, uint32_t c)
{
    const lbrl_backend_flows_t flows[] = {{1003, c}, {1001, a}, {1002, b}};
    CHECK_EQUAL(lbrl_peers_set(rig->lb, 1, flows, 3, rig->now_us), 0);
}

static void set_sharing(rig_t *rig, float anticipate, float doubt, float mirror)
{
    lbrl_sharing_t how = lbrl_sharing_default();
    how.anticipate = anticipate;
    how.doubt = doubt;
    how.mirror = mirror;
    CHECK_EQUAL(lbrl_sharing_set(rig->lb, 1, &how), 0);
}

static void flows_of_peers_count_as_own_ones(void)
{
    rig_t rig = make(2);
    set_sharing(&rig, 0, 0, 0);
    set_peers(&rig, 0, 4, 2);
    unsigned count[BACKENDS] = {0};
    for (unsigned i = 0; i < 6; i++) {
        count[new_flow(&rig)]++;
    }
    CHECK_EQUAL(count[0], 4); /* 4, 4 and 4 then */
    CHECK_EQUAL(count[1], 0);
    CHECK_EQUAL(count[2], 2);
    rig_free(&rig);
}

static void backends_that_are_not_listed_have_none(void)
{
    rig_t rig = make(2);
    set_sharing(&rig, 0, 0, 0);
    const lbrl_backend_flows_t flows[] = {{1001, 5}, {77, 100}, {1003, 5}};
    CHECK_EQUAL(lbrl_peers_set(rig.lb, 1, flows, 3, rig.now_us), 0);
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQUAL(new_flow(&rig), 1);
    }
    rig_free(&rig);
}

/* With z = 1 each own flow since the exchange stands for one of each peer too. */
static void own_changes_stand_for_those_of_peers(void)
{
    rig_t rig = make(4);
    set_sharing(&rig, 1, 0, 0);
    set_peers(&rig, 0, 0, 7);
    unsigned count[BACKENDS] = {0};
    for (unsigned i = 0; i < 4; i++) {
        count[new_flow(&rig)]++;
    }
    CHECK_EQUAL(count[0], 2); /* 8 in all, one more than 7 */
    CHECK_EQUAL(count[1], 2);
    rig_free(&rig);
}

/* With w = 1 and k = 1 all balancers are alike: SED with a base of 1/L. */
static void without_trust_peers_have_what_this_balancer_has(void)
{
    rig_t rig = make(4);
    set_sharing(&rig, 0, 1, 1);
    set_peers(&rig, 50, 0, 0);
    unsigned count[BACKENDS] = {0};
    for (unsigned i = 0; i < 9; i++) {
        count[new_flow(&rig)]++;
    }
    for (unsigned i = 0; i < BACKENDS; i++) {
        CHECK_EQUAL(count[i], 3);
    }
    rig_free(&rig);
}

static void a_stale_view_is_not_used(void)
{
    rig_t rig = make(2);
    set_sharing(&rig, 0, 0, 0);
    set_peers(&rig, 0, 9, 9);
    CHECK_EQUAL(new_flow(&rig), 0);
    CHECK_EQUAL(new_flow(&rig), 0);
    rig_pass(&rig, 1200);
    CHECK(new_flow(&rig) != 0);
    set_peers(&rig, 9, 9, 0);
    CHECK_EQUAL(new_flow(&rig), 2);
    CHECK_EQUAL(lbrl_sharing_set(rig.lb, 1, NULL), 0);
    CHECK(new_flow(&rig) != 2); /* it has most own flows but one */
    rig_free(&rig);
}

static void own_flows_are_listed(void)
{
    rig_t rig = make(2);
    lbrl_backend_flows_t flows[2];
    uint32_t count;
    for (unsigned i = 0; i < 9; i++) {
        new_flow(&rig);
    }
    CHECK_EQUAL(lbrl_flows(rig.lb, 1, flows, 2, &count), 0);
    CHECK_EQUAL(count, BACKENDS);
    CHECK_EQUAL(flows[0].backend, 1001);
    CHECK_EQUAL(flows[0].flows, 3);
    CHECK_EQUAL(flows[1].flows, 3);
    CHECK_EQUAL(lbrl_flows(rig.lb, 2, flows, 2, &count), LBRL_ERR_NOT_FOUND);
    rig_free(&rig);
}

static void bases_of_an_agent_are_used_with_the_view_that_they_are_for(void)
{
    rig_t rig = make(2);
    lbrl_actions_t actions;
    lbrl_shm_view_t view;
    lbrl_vip_status_t status;
    CHECK_EQUAL(lbrl_vip_status(rig.lb, 1, &status, NULL, 0), 0);
    const size_t size = lbrl_actions_size(status.slots);
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    memset(memory, 0, size);
    CHECK_EQUAL(lbrl_actions_format(&actions, memory, size, status.slots, 1), 0);
    CHECK_EQUAL(lbrl_shm_open(&view, memory, size, LBRL_SHM_ACTIONS_MAGIC, NULL), 0);
    float weight[16], base[16];
    uint8_t generation[16];
    for (unsigned i = 0; i < 16; i++) {
        weight[i] = 1;
        generation[i] = 1;
        base[i] = i == 2 ? 1 : 5;
    }
    CHECK(status.slots <= 16);
    lbrl_actions_write_shared(&actions, weight, base, generation, rig.now_us);
    CHECK_EQUAL(lbrl_weights_follow(rig.lb, 1, &view, rig.now_us), 1);
    unsigned count[BACKENDS] = {0};
    for (unsigned i = 0; i < 3; i++) { /* no shared view: by the common base */
        count[new_flow(&rig)]++;
    }
    CHECK(count[0] == 1 && count[1] == 1);
    set_sharing(&rig, 0, 0, 0);
    set_peers(&rig, 0, 0, 0);
    CHECK_EQUAL(new_flow(&rig), 2);
    lbrl_actions_write(&actions, weight, base, generation, rig.now_us);
    CHECK_EQUAL(lbrl_weights_follow(rig.lb, 1, &view, rig.now_us), 1);
    set_peers(&rig, 0, 0, 50); /* an agent that does not use the view has its bases on own flows */
    CHECK_EQUAL(new_flow(&rig), 2);
    base[0] = -1;
    lbrl_actions_write_shared(&actions, weight, base, generation, rig.now_us);
    CHECK_EQUAL(lbrl_weights_follow(rig.lb, 1, &view, rig.now_us), LBRL_SHM_BAD_BASE);
    free(memory);
    rig_free(&rig);
}

static int64_t peers_in_frame(const rig_t *rig, const rig_frames_t *made, uint32_t slot)
{
    lbrl_shm_view_t view;
    lbrl_publish(rig->lb, rig->now_us);
    CHECK_EQUAL(lbrl_shm_open(&view, made->memory, made->size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    uint8_t *copy = calloc(1, view.header.frame_stride);
    CHECK_EQUAL(lbrl_read(&view, copy, view.header.frame_stride), 0);
    int64_t value;
    const lbrl_shm_field_t *field = lbrl_shm_find(&view, LBRL_SHM_IN_FRAME, LBRL_SHM_PEERS);
    CHECK(field != NULL);
    memcpy(&value, copy + field->offset + slot * sizeof(value), sizeof(value));
    free(copy);
    return value;
}

static void frames_show_flows_of_peers(void)
{
    rig_t rig = make(2);
    rig_frames_t made;
    rig_bind_frames(&rig, &made, 1);
    CHECK_EQUAL(peers_in_frame(&rig, &made, 1), -1);
    set_sharing(&rig, 0, 0, 0);
    CHECK_EQUAL(peers_in_frame(&rig, &made, 1), -1);
    set_peers(&rig, 3, 4, 5);
    CHECK_EQUAL(peers_in_frame(&rig, &made, 1), 4);
    rig_pass(&rig, 1200);
    CHECK_EQUAL(peers_in_frame(&rig, &made, 1), -1);
    rig_free(&rig);
    free(made.memory);
}

static void what_is_no_share_is_refused(void)
{
    rig_t rig = make(2);
    const lbrl_backend_flows_t flows[] = {{1001, 1}};
    CHECK_EQUAL(lbrl_peers_set(rig.lb, 1, flows, 1, rig.now_us), LBRL_ERR_INVALID);
    lbrl_sharing_t how = lbrl_sharing_default();
    how.doubt = 1.5f;
    CHECK_EQUAL(lbrl_sharing_set(rig.lb, 1, &how), LBRL_ERR_INVALID);
    how.doubt = (float)(0.0 / (double)(how.doubt - 1.5f));
    CHECK_EQUAL(lbrl_sharing_set(rig.lb, 1, &how), LBRL_ERR_INVALID);
    how = lbrl_sharing_default();
    how.stale_ms = 0;
    CHECK_EQUAL(lbrl_sharing_set(rig.lb, 1, &how), LBRL_ERR_INVALID);
    CHECK_EQUAL(lbrl_sharing_set(rig.lb, 9, &how), LBRL_ERR_NOT_FOUND);
    rig_free(&rig);
}

int main(void)
{
    flows_of_peers_count_as_own_ones();
    backends_that_are_not_listed_have_none();
    own_changes_stand_for_those_of_peers();
    without_trust_peers_have_what_this_balancer_has();
    a_stale_view_is_not_used();
    own_flows_are_listed();
    bases_of_an_agent_are_used_with_the_view_that_they_are_for();
    frames_show_flows_of_peers();
    what_is_no_share_is_refused();
    return 0;
}
