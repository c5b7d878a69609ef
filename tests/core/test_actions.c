/* Weights reach the data plane only when they are valid and meant for the backend that holds the slot. */
#include <math.h>

#include "objects.h"
#include "shm_layout.h"

#define SLOTS 4

typedef struct data_plane {
    lbrl_shm_view_t view;
    uint64_t active[1];
    uint8_t generation[SLOTS];
    float weight[SLOTS];
    uint64_t sequence, time_us;
    uint64_t scratch[64];
} data_plane_t;

static int apply(data_plane_t *plane)
{
    const lbrl_actions_target_t target = {SLOTS, plane->active, plane->generation, plane->weight};
    return lbrl_actions_apply(&plane->view, &target, plane->scratch, sizeof(plane->scratch),
                              &plane->sequence, &plane->time_us);
}

static void *make(lbrl_actions_t *actions, data_plane_t *plane, uint32_t slots)
{
    void *memory = zeroed(lbrl_actions_size(slots));
    CHECK_EQUAL(lbrl_actions_format(actions, memory, lbrl_actions_size(slots), slots, 5), 0);
    *plane = (data_plane_t){
        .active = {0x7}, .generation = {1, 1, 2, 0}, .weight = {1, 1, 1, 1}, .sequence = 0};
    CHECK_EQUAL(
        lbrl_shm_open(&plane->view, memory, lbrl_actions_size(slots), LBRL_SHM_ACTIONS_MAGIC, NULL),
        0);
    return memory;
}

static void valid_weights_are_taken_once(void)
{
    lbrl_actions_t actions;
    data_plane_t plane;
    void *memory = make(&actions, &plane, SLOTS);
    CHECK_EQUAL(apply(&plane), 0); /* nothing written yet */
    const float weight[SLOTS] = {0.5f, 0.0f, 1e6f, 9.0f};
    const uint8_t generation[SLOTS] = {1, 1, 2, 0};
    CHECK_EQUAL(lbrl_actions_write(&actions, weight, generation, 99), 1);
    CHECK_EQUAL(apply(&plane), 1);
    CHECK_EQUAL(plane.sequence, 1);
    CHECK_EQUAL(plane.time_us, 99);
    CHECK_NEAR(plane.weight[0], 0.5, 0);
    CHECK_NEAR(plane.weight[1], 0, 0);
    CHECK_NEAR(plane.weight[2], 1e6, 0);
    CHECK_NEAR(plane.weight[3], 1, 0); /* not active: nothing to weigh */
    CHECK_EQUAL(apply(&plane), 0);
    free(memory);
}

static void another_generation_keeps_its_weight(void)
{
    lbrl_actions_t actions;
    data_plane_t plane;
    void *memory = make(&actions, &plane, SLOTS);
    const float weight[SLOTS] = {2, 3, 4, 5};
    const uint8_t generation[SLOTS] = {1, 1, 1, 1}; /* slot 2 has a new backend since */
    lbrl_actions_write(&actions, weight, generation, 1);
    CHECK_EQUAL(apply(&plane), 1);
    CHECK_NEAR(plane.weight[1], 3, 0);
    CHECK_NEAR(plane.weight[2], 1, 0);
    free(memory);
}

static void a_shorter_object_leaves_the_rest(void)
{
    lbrl_actions_t actions;
    data_plane_t plane;
    void *memory = make(&actions, &plane, 2);
    const float weight[2] = {2, 3};
    const uint8_t generation[2] = {1, 1};
    lbrl_actions_write(&actions, weight, generation, 1);
    CHECK_EQUAL(apply(&plane), 1);
    CHECK_NEAR(plane.weight[1], 3, 0);
    CHECK_NEAR(plane.weight[2], 1, 0);
    free(memory);
}

static void invalid_weights_change_nothing(void)
{
    const float bad[] = {NAN, INFINITY, -INFINITY, -1.0f, -1e-30f, 1.0001e6f};
    for (uint32_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            lbrl_actions_t actions;
            data_plane_t plane;
            void *memory = make(&actions, &plane, SLOTS);
            float weight[SLOTS] = {7, 7, 7, 7};
            const uint8_t generation[SLOTS] = {1, 1, 2, 0};
            weight[slot] = bad[i];
            lbrl_actions_write(&actions, weight, generation, 1);
            CHECK_EQUAL(apply(&plane), LBRL_SHM_BAD_WEIGHT);
            for (uint32_t j = 0; j < SLOTS; j++) {
                CHECK_NEAR(plane.weight[j], 1, 0);
            }
            CHECK_EQUAL(apply(&plane), 0); /* reported once */
            free(memory);
        }
    }
}

static void all_zero_weights_are_refused(void)
{
    lbrl_actions_t actions;
    data_plane_t plane;
    void *memory = make(&actions, &plane, SLOTS);
    const float weight[SLOTS] = {0, 0, 0, 5}; /* slot 3 is not active */
    uint8_t generation[SLOTS] = {1, 1, 2, 0};
    lbrl_actions_write(&actions, weight, generation, 1);
    CHECK_EQUAL(apply(&plane), LBRL_SHM_NO_WEIGHT);
    CHECK_NEAR(plane.weight[0], 1, 0);
    generation[0] = 9; /* not meant for slot 0, which keeps its weight of 1 */
    lbrl_actions_write(&actions, weight, generation, 2);
    CHECK_EQUAL(apply(&plane), 1);
    CHECK_NEAR(plane.weight[0], 1, 0);
    CHECK_NEAR(plane.weight[1], 0, 0);
    plane.active[0] = 0; /* no backend at all */
    lbrl_actions_write(&actions, weight, generation, 3);
    CHECK_EQUAL(apply(&plane), 1);
    free(memory);
}

static void a_restarted_agent_goes_on(void)
{
    lbrl_actions_t actions, again;
    data_plane_t plane;
    lbrl_shm_problem_t problem;
    void *memory = make(&actions, &plane, SLOTS);
    const size_t size = lbrl_actions_size(SLOTS);
    const float weight[SLOTS] = {2, 2, 2, 2};
    const uint8_t generation[SLOTS] = {1, 1, 2, 0};
    for (int i = 0; i < 5; i++) {
        lbrl_actions_write(&actions, weight, generation, 1);
    }
    /* it dies while it writes: the frame of sequence 3, the oldest, is left unfinished */
    for (uint32_t i = 0; i < LBRL_SHM_FRAMES; i++) {
        lbrl_frame_t *frame = lbrl_shm_frame(actions.base, actions.header, i);
        if (frame->sequence == 3) {
            lbrl_frame_begin(frame);
        }
    }
    CHECK_EQUAL(lbrl_actions_attach(&again, memory, size, SLOTS, &problem), 0);
    CHECK_EQUAL(lbrl_actions_write(&again, weight, generation, 2), 6);
    CHECK_EQUAL(apply(&plane), 1);
    CHECK_EQUAL(plane.sequence, 6);

    CHECK_EQUAL(lbrl_actions_attach(&again, memory, size, SLOTS + 1, &problem), LBRL_SHM_ARGUMENT);
    CHECK(strcmp(problem.field, "slots") == 0);
    CHECK_EQUAL(lbrl_actions_attach(&again, memory, 100, SLOTS, NULL), LBRL_SHM_TRUNCATED);
    lbrl_shm_frame(actions.base, actions.header, 0)->sequence = UINT64_MAX;
    CHECK_EQUAL(lbrl_actions_attach(&again, memory, size, SLOTS, &problem), LBRL_SHM_CORRUPT);
    CHECK(strcmp(problem.field, "sequence") == 0);
    free(memory);
}

static void foreign_columns_are_refused(void)
{
    lbrl_actions_t actions, again;
    data_plane_t plane;
    lbrl_shm_problem_t problem;
    void *memory = make(&actions, &plane, SLOTS);
    const float weight[SLOTS] = {2, 2, 2, 2};
    const uint8_t generation[SLOTS] = {1, 1, 2, 0};
    lbrl_actions_write(&actions, weight, generation, 1);
    lbrl_shm_field_t *fields =
        (lbrl_shm_field_t *)(void *)((uint8_t *)memory + sizeof(lbrl_shm_header_t));
    fields[2].type = LBRL_SHM_U32;
    const size_t size = lbrl_actions_size(SLOTS);
    CHECK_EQUAL(lbrl_actions_attach(&again, memory, size, SLOTS, &problem), LBRL_SHM_CORRUPT);
    CHECK(strcmp(problem.field, "field table") == 0);
    CHECK_EQUAL(lbrl_shm_open(&plane.view, memory, size, LBRL_SHM_ACTIONS_MAGIC, NULL), 0);
    CHECK_EQUAL(apply(&plane), LBRL_SHM_CORRUPT);
    CHECK_NEAR(plane.weight[0], 1, 0);
    free(memory);
}

static void retired_objects_are_left(void)
{
    lbrl_actions_t actions;
    data_plane_t plane;
    void *memory = make(&actions, &plane, SLOTS);
    lbrl_actions_retire(&actions);
    CHECK_EQUAL(apply(&plane), LBRL_SHM_GONE);
    free(memory);
}

static void sizes_are_checked(void)
{
    lbrl_actions_t actions;
    uint64_t memory[4];
    CHECK_EQUAL(lbrl_actions_size(0), 0);
    CHECK_EQUAL(lbrl_actions_size(LBRL_SHM_MAX_SLOTS + 1), 0);
    CHECK_EQUAL(lbrl_actions_format(&actions, memory, sizeof(memory), 0, 0), LBRL_SHM_ARGUMENT);
    CHECK_EQUAL(lbrl_actions_format(&actions, memory, sizeof(memory), 1, 0), LBRL_SHM_ARGUMENT);
    data_plane_t plane;
    void *object = make(&actions, &plane, SLOTS);
    const lbrl_actions_target_t target = {SLOTS, plane.active, plane.generation, plane.weight};
    CHECK_EQUAL(
        lbrl_actions_apply(&plane.view, &target, plane.scratch, 8, &plane.sequence, &plane.time_us),
        LBRL_SHM_ARGUMENT);
    free(object);
}

int main(void)
{
    valid_weights_are_taken_once();
    another_generation_keeps_its_weight();
    a_shorter_object_leaves_the_rest();
    invalid_weights_change_nothing();
    all_zero_weights_are_refused();
    a_restarted_agent_goes_on();
    foreign_columns_are_refused();
    retired_objects_are_left();
    sizes_are_checked();
    return 0;
}
