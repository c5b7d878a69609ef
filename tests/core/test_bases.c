/* Bases of backends: which are in force, and where new flows go by them. */
#include <math.h>

#include "objects.h"
#include "rig.h"

enum { WIDTH = 8 };

static const char *const VIP = "203.0.113.10";

static rig_t rig_with(uint32_t workers, uint32_t backends, uint8_t scheduler)
{
    rig_t rig = rig_make(workers, 0);
    lbrl_backend_config_t list[WIDTH];
    lbrl_vip_config_t vip = rig_vip(1, VIP, 80, 6, list, backends);
    vip.scheduler = scheduler;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &vip, rig.now_us), 0);
    return rig;
}

static double base_of(const rig_t *rig, uint64_t backend)
{
    return (double)rig_backend(rig, 1, backend).base;
}

/* Opens so many flows; returns how many of them the first backend got. */
static uint32_t open_flows(rig_t *rig, uint16_t first_port, uint16_t flows)
{
    uint32_t found = 0;
    for (uint16_t i = 0; i < flows; i++) {
        connection_t c = connection_make(rig, "198.51.100.7", (uint16_t)(first_port + i), VIP);
        connection_open(&c);
        found += c.backend.bytes[15] == 1;
    }
    return found;
}

static void without_a_base_of_its_own_a_backend_has_the_common_one(void)
{
    rig_t rig = rig_with(2, 2, LBRL_SCHEDULER_SED);
    CHECK_NEAR(base_of(&rig, 1001), 0.5, 0);
    const uint8_t key[16] = {1};
    CHECK_EQUAL(lbrl_node_set(rig.lb, key, 4), 0);
    CHECK_NEAR(base_of(&rig, 1001), 0.125, 0);
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, (float[]){1, 1}, (float[]){0, 3}, (uint8_t[]){1, 1}, 2),
                0);
    CHECK_NEAR(base_of(&rig, 1001), 0.125, 0);
    CHECK_NEAR(base_of(&rig, 1002), 3, 0);
    rig_free(&rig);
}

static void new_flows_go_by_the_base(void)
{
    rig_t rig = rig_with(1, 2, LBRL_SCHEDULER_SED);
    CHECK_EQUAL(
        lbrl_weights_set(rig.lb, 1, (float[]){1, 1}, (float[]){0.5f, 10}, (uint8_t[]){1, 1}, 2), 0);
    CHECK_EQUAL(open_flows(&rig, 20000, 10), 10);
    CHECK_NEAR(open_flows(&rig, 21000, 40), 20, 1);
    /* without bases the second gets what it has fewer */
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, (float[]){1, 1}, NULL, (uint8_t[]){1, 1}, 2), 0);
    CHECK_NEAR(open_flows(&rig, 22000, 10), 0, 1);
    rig_free(&rig);
}

/* The second backend is taken only where both draws are it. */
static void of_two_draws_the_base_decides_too(void)
{
    rig_t rig = rig_with(1, 2, LBRL_SCHEDULER_P2C);
    CHECK_EQUAL(
        lbrl_weights_set(rig.lb, 1, (float[]){1, 1}, (float[]){0, 1000}, (uint8_t[]){1, 1}, 2), 0);
    CHECK_NEAR(open_flows(&rig, 20000, 200), 150, 25);
    rig_free(&rig);
}

static void schedulers_that_ignore_weights_ignore_bases(void)
{
    rig_t rig = rig_with(1, 2, LBRL_SCHEDULER_LSQ);
    CHECK_EQUAL(
        lbrl_weights_set(rig.lb, 1, (float[]){1, 1}, (float[]){1, 100}, (uint8_t[]){1, 1}, 2), 0);
    CHECK_NEAR(open_flows(&rig, 20000, 40), 20, 1);
    rig_free(&rig);
}

static void another_generation_keeps_its_base_and_a_reset_ends_all(void)
{
    rig_t rig = rig_with(1, 2, LBRL_SCHEDULER_SED);
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, (float[]){2, 2}, (float[]){5, 5}, (uint8_t[]){1, 9}, 2),
                0);
    CHECK_NEAR(base_of(&rig, 1001), 5, 0);
    CHECK_NEAR(base_of(&rig, 1002), 1, 0);
    CHECK_EQUAL(lbrl_weights_reset(rig.lb, 1), 0);
    CHECK_NEAR(base_of(&rig, 1001), 1, 0);
    CHECK_NEAR(rig_backend(&rig, 1, 1001).weight, 1, 0);
    rig_free(&rig);
}

static void a_new_backend_starts_with_the_common_base(void)
{
    rig_t rig = rig_with(1, 2, LBRL_SCHEDULER_SED);
    CHECK_EQUAL(lbrl_weights_set(rig.lb, 1, (float[]){2, 0}, (float[]){5, 6}, NULL, 2), 0);
    lbrl_backend_config_t list[WIDTH];
    lbrl_vip_config_t vip = rig_vip(1, VIP, 80, 6, list, 3);
    vip.scheduler = LBRL_SCHEDULER_SED;
    list[1].state = LBRL_BACKEND_FAILED;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &vip, rig.now_us), 0);
    CHECK_NEAR(base_of(&rig, 1001), 5, 0);
    CHECK_NEAR(base_of(&rig, 1003), 1, 0);
    list[1].state = LBRL_BACKEND_ACTIVE; /* it returns, and starts anew as its weight does */
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &vip, rig.now_us), 0);
    CHECK_NEAR(base_of(&rig, 1002), 1, 0);
    rig_free(&rig);
}

typedef struct agent {
    void *memory;
    lbrl_actions_t writer;
    lbrl_shm_view_t view;
} agent_t;

static agent_t agent_make(uint64_t now_us)
{
    agent_t agent = {.memory = zeroed(lbrl_actions_size(WIDTH))};
    const size_t size = lbrl_actions_size(WIDTH);
    CHECK_EQUAL(lbrl_actions_format(&agent.writer, agent.memory, size, WIDTH, now_us), 0);
    CHECK_EQUAL(lbrl_shm_open(&agent.view, agent.memory, size, LBRL_SHM_ACTIONS_MAGIC, NULL), 0);
    return agent;
}

static int write_and_follow(agent_t *agent, rig_t *rig, float base)
{
    lbrl_actions_write(&agent->writer, (float[WIDTH]){3, 1}, (float[WIDTH]){base, 4},
                       (uint8_t[WIDTH]){1, 1}, rig->now_us);
    return lbrl_weights_follow(rig->lb, 1, &agent->view, rig->now_us);
}

static void an_agent_sets_bases_and_a_bad_one_changes_nothing(void)
{
    rig_t rig = rig_with(1, 2, LBRL_SCHEDULER_SED);
    agent_t agent = agent_make(rig.now_us);
    CHECK_EQUAL(write_and_follow(&agent, &rig, 2), 1);
    CHECK_NEAR(base_of(&rig, 1001), 2, 0);
    CHECK_EQUAL(write_and_follow(&agent, &rig, NAN), LBRL_SHM_BAD_BASE);
    CHECK_NEAR(base_of(&rig, 1001), 2, 0);
    CHECK_NEAR(base_of(&rig, 1002), 4, 0);
    CHECK_NEAR(rig_backend(&rig, 1, 1001).weight, 3, 0);
    CHECK_EQUAL(write_and_follow(&agent, &rig, 0), 1);
    CHECK_NEAR(base_of(&rig, 1001), 1, 0);
    rig_free(&rig);
    free(agent.memory);
}

static void a_silent_agent_leaves_its_bases_for_the_grace_alone(void)
{
    rig_t rig = rig_with(1, 2, LBRL_SCHEDULER_SED);
    agent_t agent = agent_make(rig.now_us);
    CHECK_EQUAL(write_and_follow(&agent, &rig, 2), 1);
    rig_pass(&rig, 29000);
    CHECK_NEAR(base_of(&rig, 1001), 2, 0);
    rig_pass(&rig, 2000);
    CHECK_NEAR(base_of(&rig, 1001), 1, 0);
    CHECK_NEAR(base_of(&rig, 1002), 1, 0);
    CHECK(rig_backend(&rig, 1, 1001).weight > 2.5f); /* weights are on their way */
    CHECK_EQUAL(write_and_follow(&agent, &rig, 5), 1);
    CHECK_NEAR(base_of(&rig, 1001), 5, 0);
    rig_free(&rig);
    free(agent.memory);
}

static void without_its_object_the_common_base_comes_back(void)
{
    rig_t rig = rig_with(1, 2, LBRL_SCHEDULER_SED);
    agent_t agent = agent_make(rig.now_us);
    CHECK_EQUAL(write_and_follow(&agent, &rig, 2), 1);
    CHECK_EQUAL(lbrl_weights_unfollow(rig.lb, 1, rig.now_us), 0);
    rig_pass(&rig, 31000);
    CHECK_NEAR(base_of(&rig, 1001), 1, 0);
    rig_free(&rig);
    free(agent.memory);
}

int main(void)
{
    without_a_base_of_its_own_a_backend_has_the_common_one();
    new_flows_go_by_the_base();
    of_two_draws_the_base_decides_too();
    schedulers_that_ignore_weights_ignore_bases();
    another_generation_keeps_its_base_and_a_reset_ends_all();
    a_new_backend_starts_with_the_common_base();
    an_agent_sets_bases_and_a_bad_one_changes_nothing();
    a_silent_agent_leaves_its_bases_for_the_grace_alone();
    without_its_object_the_common_base_comes_back();
    return 0;
}
