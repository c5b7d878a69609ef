/* The actions object: written by the agent, checked and taken over by the data plane's control thread. */
#include "lbrl/shm.h"
#include "shm_layout.h"

/* No writer counts this far in the life of a machine: a higher sequence is not one of ours. */
#define SEQUENCE_LIMIT (UINT64_C(1) << 62)

enum {
    FRAME_WEIGHT = sizeof(lbrl_frame_t),
};

static uint32_t generation_offset(uint32_t slots)
{
    return (uint32_t)(FRAME_WEIGHT + slots * sizeof(float));
}

static lbrl_shm_header_t plan_header(uint32_t slots)
{
    lbrl_shm_header_t header = {
        .byte_order = LBRL_SHM_BYTE_ORDER,
        .abi = LBRL_SHM_ABI_MIN,
        .slots = slots,
        .fields_offset = sizeof(lbrl_shm_header_t),
        .frames_offset = (uint32_t)lbrl_align(
            sizeof(lbrl_shm_header_t) + 4 * sizeof(lbrl_shm_field_t), LBRL_SHM_LINE),
        .frame_stride = (uint32_t)lbrl_align(generation_offset(slots) + slots, LBRL_SHM_LINE),
    };
    header.size = header.frames_offset + (uint64_t)LBRL_SHM_FRAMES * header.frame_stride;
    return header;
}

static bool slots_valid(uint32_t slots)
{
    return slots >= 1 && slots <= LBRL_SHM_MAX_SLOTS;
}

size_t lbrl_actions_size(uint32_t slots)
{
    return slots_valid(slots) ? (size_t)plan_header(slots).size : 0;
}

static void bind_handle(lbrl_actions_t *actions, void *memory, uint32_t slots)
{
    *actions = (lbrl_actions_t){
        .base = memory,
        .header = memory,
        .slots = slots,
        .frame_weight = FRAME_WEIGHT,
        .frame_generation = generation_offset(slots),
    };
}

int lbrl_actions_format(lbrl_actions_t *actions, void *memory, size_t size, uint32_t slots,
                        uint64_t now_us)
{
    if (!slots_valid(slots) || size < lbrl_actions_size(slots)) {
        return LBRL_SHM_ARGUMENT;
    }
    bind_handle(actions, memory, slots);
    lbrl_shm_header_t *header = actions->header;
    *header = plan_header(slots);
    header->heartbeat_us = now_us;
    lbrl_shm_field_t *fields = (lbrl_shm_field_t *)(void *)(actions->base + header->fields_offset);
    lbrl_shm_add_field(header, fields, "sequence", LBRL_SHM_IN_FRAME, LBRL_SHM_U64, 1,
                       offsetof(lbrl_frame_t, sequence));
    lbrl_shm_add_field(header, fields, "time_us", LBRL_SHM_IN_FRAME, LBRL_SHM_U64, 1,
                       offsetof(lbrl_frame_t, time_us));
    lbrl_shm_add_field(header, fields, "weight", LBRL_SHM_IN_FRAME, LBRL_SHM_F32, slots,
                       actions->frame_weight);
    lbrl_shm_add_field(header, fields, "generation", LBRL_SHM_IN_FRAME, LBRL_SHM_U8, slots,
                       actions->frame_generation);
    __atomic_store_n(&header->magic, LBRL_SHM_ACTIONS_MAGIC, __ATOMIC_RELEASE);
    return LBRL_SHM_OK;
}

/* Weight and generation columns of an object that somebody else may have laid out. */
static bool find_columns(const lbrl_shm_view_t *view, const lbrl_shm_field_t **weight,
                         const lbrl_shm_field_t **generation)
{
    *weight = lbrl_shm_find(view, LBRL_SHM_IN_FRAME, "weight");
    *generation = lbrl_shm_find(view, LBRL_SHM_IN_FRAME, "generation");
    return *weight && (*weight)->type == LBRL_SHM_F32 && (*weight)->count == view->header.slots &&
           *generation && (*generation)->type == LBRL_SHM_U8 &&
           (*generation)->count == view->header.slots;
}

static int refuse(lbrl_shm_problem_t *problem, int code, const char *field, uint64_t found,
                  uint64_t expected)
{
    if (problem) {
        *problem = (lbrl_shm_problem_t){code, field, found, expected};
    }
    return code;
}

int lbrl_actions_attach(lbrl_actions_t *actions, void *memory, size_t size, uint32_t slots,
                        lbrl_shm_problem_t *problem)
{
    lbrl_shm_view_t view;
    const lbrl_shm_field_t *weight, *generation;
    int code = lbrl_shm_open(&view, memory, size, LBRL_SHM_ACTIONS_MAGIC, problem);
    if (code) {
        return code;
    }
    if (view.header.slots != slots) {
        return refuse(problem, LBRL_SHM_ARGUMENT, "slots", view.header.slots, slots);
    }
    if (!find_columns(&view, &weight, &generation)) {
        return refuse(problem, LBRL_SHM_CORRUPT, "field table", view.header.fields, 4);
    }
    bind_handle(actions, memory, slots);
    actions->frame_weight = weight->offset;
    actions->frame_generation = generation->offset;
    for (uint32_t i = 0; i < LBRL_SHM_FRAMES; i++) {
        uint64_t sequence = lbrl_shm_frame(actions->base, &view.header, i)->sequence;
        if (sequence >= SEQUENCE_LIMIT) {
            return refuse(problem, LBRL_SHM_CORRUPT, "sequence", sequence, SEQUENCE_LIMIT);
        }
        actions->sequence = sequence > actions->sequence ? sequence : actions->sequence;
    }
    return LBRL_SHM_OK;
}

/* The frame that was written longest ago, or left unfinished by a writer that died. */
static lbrl_frame_t *oldest_frame(const lbrl_actions_t *actions)
{
    lbrl_frame_t *oldest = lbrl_shm_frame(actions->base, actions->header, 0);
    for (uint32_t i = 1; i < LBRL_SHM_FRAMES; i++) {
        lbrl_frame_t *frame = lbrl_shm_frame(actions->base, actions->header, i);
        oldest = frame->sequence < oldest->sequence ? frame : oldest;
    }
    return oldest;
}

uint64_t lbrl_actions_write(lbrl_actions_t *actions, const float *weight, const uint8_t *generation,
                            uint64_t now_us)
{
    lbrl_frame_t *frame = oldest_frame(actions);
    lbrl_frame_begin(frame);
    __atomic_store_n(&frame->time_us, now_us, __ATOMIC_RELAXED);
    uint32_t *weights = (uint32_t *)(void *)((uint8_t *)frame + actions->frame_weight);
    uint8_t *generations = (uint8_t *)frame + actions->frame_generation;
    for (uint32_t i = 0; i < actions->slots; i++) { /* readers may copy meanwhile */
        uint32_t bits;
        memcpy(&bits, &weight[i], sizeof(bits));
        __atomic_store_n(&weights[i], bits, __ATOMIC_RELAXED);
        __atomic_store_n(&generations[i], generation[i], __ATOMIC_RELAXED);
    }
    lbrl_frame_end(frame, ++actions->sequence);
    __atomic_store_n(&actions->header->heartbeat_us, now_us, __ATOMIC_RELAXED);
    return actions->sequence;
}

void lbrl_actions_retire(lbrl_actions_t *actions)
{
    __atomic_store_n(&actions->header->retired, 1, __ATOMIC_RELEASE);
}

static bool bit_set(const uint64_t *bits, uint32_t index)
{
    return bits[index / 64] >> index % 64 & 1;
}

/* The weight that a slot would have: the new one where the agent meant this backend, else the present one. */
static float merged_weight(const lbrl_actions_target_t *target, const float *weight,
                           const uint8_t *generation, uint32_t slots, uint32_t slot)
{
    bool meant = slot < slots && generation[slot] == target->generation[slot];
    return meant ? weight[slot] : target->weight[slot];
}

static int take_weights(const lbrl_actions_target_t *target, const float *weight,
                        const uint8_t *generation, uint32_t slots)
{
    for (uint32_t slot = 0; slot < slots; slot++) {
        /* written so that not-a-number fails */
        if (!(weight[slot] >= 0.0f && weight[slot] <= LBRL_WEIGHT_MAX)) {
            return LBRL_SHM_BAD_WEIGHT;
        }
    }
    bool any_active = false, any_positive = false;
    for (uint32_t slot = 0; slot < target->slots; slot++) {
        if (bit_set(target->active, slot)) {
            any_active = true;
            any_positive |= merged_weight(target, weight, generation, slots, slot) > 0.0f;
        }
    }
    if (any_active && !any_positive) {
        return LBRL_SHM_NO_WEIGHT;
    }
    for (uint32_t slot = 0; slot < target->slots; slot++) {
        if (bit_set(target->active, slot)) {
            target->weight[slot] = merged_weight(target, weight, generation, slots, slot);
        }
    }
    return 1;
}

int lbrl_actions_apply(const lbrl_shm_view_t *view, const lbrl_actions_target_t *target,
                       void *scratch, size_t scratch_size, uint64_t *sequence, uint64_t *time_us)
{
    if (lbrl_shm_retired(view)) {
        return LBRL_SHM_GONE;
    }
    int code = lbrl_read(view, scratch, scratch_size);
    if (code) {
        return code == LBRL_SHM_EMPTY ? 0 : code;
    }
    const lbrl_frame_t *frame = scratch;
    *time_us = frame->time_us;
    if (frame->sequence == *sequence) {
        return 0;
    }
    *sequence = frame->sequence;
    const lbrl_shm_field_t *weight, *generation;
    if (!find_columns(view, &weight, &generation)) {
        return LBRL_SHM_CORRUPT;
    }
    const uint8_t *bytes = scratch;
    return take_weights(target, (const float *)(const void *)(bytes + weight->offset),
                        bytes + generation->offset, view->header.slots);
}
