/* libFuzzer: whatever bytes an object consists of, readers neither crash nor read beyond it. The first byte chooses
 * the kind of object; AddressSanitizer sees the copy's exact end. */
#include "lbrl/reduce.h"
#include "objects.h"

static void use_frames(const lbrl_shm_view_t *view)
{
    uint64_t *copy = malloc(view->header.frame_stride);
    lbrl_reduction_t *out = malloc(view->header.slots * sizeof(*out));
    void *scratch = malloc(lbrl_reduce_scratch(view));
    lbrl_read(view, copy, view->header.frame_stride);
    lbrl_reduce(view, "fct", 1000000, scratch, NULL, out);
    for (uint32_t i = 0; i < view->header.fields; i++) {
        const lbrl_shm_field_t *field = &view->fields[i];
        void *live = malloc(field->count * (size_t)8 + 1);
        for (uint32_t worker = 0; worker < 2; worker++) {
            lbrl_read_live(view, field, worker, 0, field->count, live);
        }
        free(live);
    }
    free(scratch);
    free(out);
    free(copy);
}

static void use_actions(const lbrl_shm_view_t *view)
{
    uint64_t active[2] = {UINT64_MAX, 1};
    uint8_t generation[65] = {1};
    float weight[65] = {1}, base[65] = {1};
    const lbrl_actions_target_t target = {65, active, generation, weight, base, NULL};
    uint64_t *scratch = malloc(view->header.frame_stride);
    uint64_t sequence = 0, time_us = 0;
    int code =
        lbrl_actions_apply(view, &target, scratch, view->header.frame_stride, &sequence, &time_us);
    for (uint32_t i = 0; i < 65; i++) {
        CHECK(weight[i] >= 0 && weight[i] <= LBRL_WEIGHT_MAX);
        CHECK(base[i] >= 0 && base[i] <= LBRL_BASE_MAX);
    }
    CHECK(code <= 1);
    free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const bool frames = data[0] & 1;
    void *object = malloc(size);
    memcpy(object, data + 1, size - 1);
    lbrl_shm_view_t view;
    lbrl_shm_problem_t problem;
    int code = lbrl_shm_open(&view, object, size - 1,
                             frames ? LBRL_SHM_FRAMES_MAGIC : LBRL_SHM_ACTIONS_MAGIC, &problem);
    if (code == LBRL_SHM_OK) {
        (frames ? use_frames : use_actions)(&view);
    } else {
        CHECK(problem.code == code && problem.field != NULL);
    }
    free(object);
    return 0;
}
