/*
 * Workers never touch memory that an agent can write: while they forward, the object with its weights cannot even be
 * read, and yet the weights in it are followed.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "rig.h"

enum { FLOWS = 400, SLOTS = 8 };

static const char *const CLIENT = "198.51.100.7";
static const char *const VIP = "203.0.113.10";

static void forward(rig_t *rig, uint16_t first)
{
    for (uint16_t i = 0; i < (uint16_t)FLOWS; i++) {
        connection_t c = connection_make(rig, CLIENT, first + i, VIP);
        connection_open(&c);
        connection_client(&c, PSH, 100);
        connection_server(&c, PSH, 900);
        connection_client(&c, i % 2 ? FIN : 0, 0);
    }
    for (uint32_t i = 0; i < 20; i++) {
        rig->now_us += 50000;
        lbrl_worker_tick(lbrl_worker(rig->lb, 0), rig->now_us);
    }
}

static void workers_forward_by_weights_that_they_cannot_read(uint8_t scheduler)
{
    rig_t rig = rig_make(1, 0);
    lbrl_backend_config_t backends[4];
    lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, 4);
    config.scheduler = scheduler;
    config.feature_level = LBRL_LEVEL_FULL;
    CHECK_EQUAL(lbrl_vip_set(rig.lb, &config, rig.now_us), 0);
    rig_frames_t frames;
    rig_bind_frames(&rig, &frames, 1);

    const size_t size = lbrl_actions_size(SLOTS);
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    lbrl_actions_t actions;
    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_actions_format(&actions, memory, size, SLOTS, rig.now_us), 0);
    CHECK_EQUAL(lbrl_shm_open(&view, memory, size, LBRL_SHM_ACTIONS_MAGIC, NULL), 0);
    const float weights[2][SLOTS] = {{0, 1, 1, 0}, {1, 0, 0, 1}};
    const uint8_t generations[SLOTS] = {1, 1, 1, 1};
    uint64_t before[4] = {0};
    for (uint16_t round = 0; round < 2; round++) {
        CHECK_EQUAL(lbrl_actions_write(&actions, weights[round], NULL, generations, rig.now_us),
                    round + 1);
        CHECK_EQUAL(lbrl_weights_follow(rig.lb, 1, &view, rig.now_us), 1);
        CHECK_EQUAL(mprotect(memory, size, PROT_NONE), 0);
        forward(&rig, (uint16_t)(20000 + 1000 * round));
        CHECK_EQUAL(mprotect(memory, size, PROT_READ | PROT_WRITE), 0);
        for (uint64_t i = 0; i < 4; i++) {
            const uint64_t flows = rig_backend(&rig, 1, 1001 + i).flows;
            CHECK((flows > before[i]) == (weights[round][i] > 0));
            before[i] = flows;
        }
    }
    rig_free(&rig);
    free(frames.memory);
    CHECK_EQUAL(munmap(memory, size), 0);
}

int main(void)
{
    for (uint8_t scheduler = 0; scheduler < (uint8_t)LBRL_SCHEDULER_COUNT; scheduler++) {
        workers_forward_by_weights_that_they_cannot_read(scheduler);
    }
    return 0;
}
