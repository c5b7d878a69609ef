/* Weights reach the data plane only when they are valid and meant for the backend that holds the slot. */
#include <math.h>

#include "objects.h"
#include "shm_layout.h"

#define SLOTS 4

typedef struct data_plane {
    lbrl_shm_view_t view;
    uint64_t active[1];
    uint8_t generation[SLOTS];
    float weight[SLOTS], base[SLOTS];
    uint64_t sequence, time_us;
    uint64_t scratch[64];
} data_plane_t;

static int apply(data_plane_t *plane)
{
    const lbrl_actions_target_t target = {SLOTS,         plane->active, plane->generation,
                                          plane->weight, plane->base,   NULL};
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
    CHECK_EQUAL(lbrl_actions_write(&actions, weight, NULL, generation, 99), 1);
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
    lbrl_actions_write(&actions, weight, NULL, generation, 1);
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
    lbrl_actions_write(&actions, weight, NULL, generation, 1);
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
            lbrl_actions_write(&actions, weight, NULL, generation, 1);
            CHECK_EQUAL(apply(&plane), LBRL_SHM_BAD_WEIGHT);
            for (uint32_t j = 0; j < SLOTS; j++) {
                CHECK_NEAR(plane.weight[j], 1, 0);
            }
            CHECK_EQUAL(apply(&plane), 0); /* reported once */
            free(memory);
        }
    }
}

static void bases_are_taken_with_the_weights(void)
{
    lbrl_actions_t actions;
    data_plane_t plane;
    void *memory = make(&actions, &plane, SLOTS);
    plane.base[2] = 7;
    const float weight[SLOTS] = {1, 1, 1, 1}, base[SLOTS] = {0.25f, LBRL_BASE_MAX, 3, 4};
    const uint8_t generation[SLOTS] = {1, 1, 1, 0}; /* slot 2 has a new backend since */
    lbrl_actions_write(&actions, weight, base, generation, 1);
    CHECK_EQUAL(apply(&plane), 1);
    CHECK_NEAR(plane.base[0], 0.25, 0);
    CHECK_NEAR(plane.base[1], LBRL_BASE_MAX, 0);
    CHECK_NEAR(plane.base[2], 7, 0);
    CHECK_NEAR(plane.base[3], 0, 0); /* not active */
    lbrl_actions_write(&actions, weight, NULL, generation, 2);
    CHECK_EQUAL(apply(&plane), 1);
    CHECK_NEAR(plane.base[0], 0, 0);
    CHECK_NEAR(plane.base[1], 0, 0);
    free(memory);
}

static void invalid_bases_change_nothing(void)
{
    const float bad[] = {NAN, INFINITY, -INFINITY, -1.0f, -1e-30f, 1.0001e6f};
    for (uint32_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            lbrl_actions_t actions;
            data_plane_t plane;
            void *memory = make(&actions, &plane, SLOTS);
            const float weight[SLOTS] = {7, 7, 7, 7};
            float base[SLOTS] = {7, 7, 7, 7};
            const uint8_t generation[SLOTS] = {1, 1, 2, 0};
            base[slot] = bad[i];
            lbrl_actions_write(&actions, weight, base, generation, 1);
            CHECK_EQUAL(apply(&plane), LBRL_SHM_BAD_BASE);
            for (uint32_t j = 0; j < SLOTS; j++) {
                CHECK_NEAR(plane.weight[j], 1, 0);
                CHECK_NEAR(plane.base[j], 0, 0);
            }
            CHECK_EQUAL(apply(&plane), 0); /* reported once */
            free(memory);
        }
    }
}

enum {
    FIELDS_WITHOUT_BASE = 4
}; /* of releases before bases, which come after all others in the field table */

static void a_data_plane_of_before_reads_the_weights(void)
{
    lbrl_actions_t actions;
    data_plane_t plane;
    void *memory = make(&actions, &plane, SLOTS);
    CHECK_EQUAL(plane.view.header.abi, 1);
    plane.view.header.fields = FIELDS_WITHOUT_BASE;
    const float weight[SLOTS] = {2, 3, 4, 5}, base[SLOTS] = {9, 9, 9, 9};
    const uint8_t generation[SLOTS] = {1, 1, 2, 0};
    lbrl_actions_write(&actions, weight, base, generation, 1);
    CHECK_EQUAL(apply(&plane), 1);
    CHECK_NEAR(plane.weight[0], 2, 0);
    CHECK_NEAR(plane.weight[2], 4, 0);
    CHECK_NEAR(plane.base[0], 0, 0);
    /* it copies objects of at most this size: 4096 slots without bases */
    CHECK(lbrl_actions_size(2048) <= 384 + 3 * 20544);
    free(memory);
}

static void an_object_of_before_has_weights_and_no_bases(void)
{
    lbrl_actions_t actions, again;
    data_plane_t plane;
    lbrl_shm_problem_t problem;
    void *memory = make(&actions, &plane, SLOTS);
    const size_t size = lbrl_actions_size(SLOTS);
    actions.header->fields = FIELDS_WITHOUT_BASE;
    CHECK_EQUAL(lbrl_shm_open(&plane.view, memory, size, LBRL_SHM_ACTIONS_MAGIC, NULL), 0);
    plane.base[0] = 3;
    const float weight[SLOTS] = {2, 3, 4, 5};
    const uint8_t generation[SLOTS] = {1, 1, 2, 0};
    lbrl_actions_write(&actions, weight, NULL, generation, 1);
    CHECK_EQUAL(apply(&plane), 1);
    CHECK_NEAR(plane.weight[0], 2, 0);
    CHECK_NEAR(plane.base[0], 0, 0);
    CHECK_EQUAL(lbrl_actions_attach(&again, memory, size, SLOTS, &problem), LBRL_SHM_OLDER);
    CHECK(strcmp(problem.field, "base") == 0);
    free(memory);
}

/* As releases before bases did it. */
static void write_without_bases(lbrl_actions_t *actions, const float *weight,
                                const uint8_t *generation)
{
    lbrl_frame_t *frame = lbrl_shm_frame(actions->base, actions->header, 0);
    for (uint32_t i = 1; i < LBRL_SHM_FRAMES; i++) {
        lbrl_frame_t *other = lbrl_shm_frame(actions->base, actions->header, i);
        frame = other->sequence < frame->sequence ? other : frame;
    }
    lbrl_frame_begin(frame);
    memcpy((uint8_t *)frame + actions->frame_weight, weight, SLOTS * sizeof(*weight));
    memcpy((uint8_t *)frame + actions->frame_generation, generation, SLOTS);
    lbrl_frame_end(frame, ++actions->sequence);
}

static void an_agent_of_before_leaves_no_bases_in_force(void)
{
    lbrl_actions_t actions;
    data_plane_t plane;
    void *memory = make(&actions, &plane, SLOTS);
    const float weight[SLOTS] = {2, 3, 4, 5}, base[SLOTS] = {9, 9, 9, 9};
    const uint8_t generation[SLOTS] = {1, 1, 2, 0};
    for (int i = 0; i < 4; i++) {
        lbrl_actions_write(&actions, weight, base, generation, 1);
    }
    CHECK_EQUAL(apply(&plane), 1);
    CHECK_NEAR(plane.base[1], 9, 0);
    for (int i = 0; i < 4; i++) {
        write_without_bases(&actions, weight, generation);
        CHECK_EQUAL(apply(&plane), 1);
        CHECK_NEAR(plane.weight[1], 3, 0);
        CHECK_NEAR(plane.base[1], 0, 0);
        plane.base[1] = 1;
    }
    free(memory);
}

static void all_zero_weights_are_refused(void)
{
    lbrl_actions_t actions;
    data_plane_t plane;
    void *memory = make(&actions, &plane, SLOTS);
    const float weight[SLOTS] = {0, 0, 0, 5}; /* slot 3 is not active */
    uint8_t generation[SLOTS] = {1, 1, 2, 0};
    lbrl_actions_write(&actions, weight, NULL, generation, 1);
    CHECK_EQUAL(apply(&plane), LBRL_SHM_NO_WEIGHT);
    CHECK_NEAR(plane.weight[0], 1, 0);
    generation[0] = 9; /* not meant for slot 0, which keeps its weight of 1 */
    lbrl_actions_write(&actions, weight, NULL, generation, 2);
    CHECK_EQUAL(apply(&plane), 1);
    CHECK_NEAR(plane.weight[0], 1, 0);
    CHECK_NEAR(plane.weight[1], 0, 0);
    plane.active[0] = 0; /* no backend at all */
    lbrl_actions_write(&actions, weight, NULL, generation, 3);
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
        lbrl_actions_write(&actions, weight, NULL, generation, 1);
    }
    /* it dies while it writes: the frame of sequence 3, the oldest, is left unfinished */
    for (uint32_t i = 0; i < LBRL_SHM_FRAMES; i++) {
        lbrl_frame_t *frame = lbrl_shm_frame(actions.base, actions.header, i);
        if (frame->sequence == 3) {
            lbrl_frame_begin(frame);
        }
    }
    CHECK_EQUAL(lbrl_actions_attach(&again, memory, size, SLOTS, &problem), 0);
    CHECK_EQUAL(lbrl_actions_write(&again, weight, NULL, generation, 2), 6);
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

static void foreign_columns_are_refused(uint32_t column)
{
    lbrl_actions_t actions, again;
    data_plane_t plane;
    lbrl_shm_problem_t problem;
    void *memory = make(&actions, &plane, SLOTS);
    const float weight[SLOTS] = {2, 2, 2, 2};
    const uint8_t generation[SLOTS] = {1, 1, 2, 0};
    lbrl_actions_write(&actions, weight, NULL, generation, 1);
    lbrl_shm_field_t *fields =
        (lbrl_shm_field_t *)(void *)((uint8_t *)memory + sizeof(lbrl_shm_header_t));
    fields[column].type = LBRL_SHM_U32;
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
    const lbrl_actions_target_t target = {SLOTS,        plane.active, plane.generation,
                                          plane.weight, plane.base,   NULL};
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
    bases_are_taken_with_the_weights();
    invalid_bases_change_nothing();
    a_data_plane_of_before_reads_the_weights();
    an_object_of_before_has_weights_and_no_bases();
    an_agent_of_before_leaves_no_bases_in_force();
    all_zero_weights_are_refused();
    a_restarted_agent_goes_on();
    foreign_columns_are_refused(2);
    foreign_columns_are_refused(FIELDS_WITHOUT_BASE);
    retired_objects_are_left();
    sizes_are_checked();
    return 0;
}
