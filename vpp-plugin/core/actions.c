/* The actions object: written by the agent, checked and taken over by the data plane's control thread. */
#include "lbrl/shm.h"
#include "shm_layout.h"

/* No writer counts this far in the life of a machine: a higher sequence is not one of ours. */
#define SEQUENCE_LIMIT (UINT64_C(1) << 62)

enum {
    FRAME_WEIGHT = sizeof(lbrl_frame_t),
    FIELDS = 6,
};

static uint32_t base_offset(uint32_t slots)
{
    return (uint32_t)(FRAME_WEIGHT + slots * sizeof(float));
}

static uint32_t generation_offset(uint32_t slots)
{
    return (uint32_t)(base_offset(slots) + slots * sizeof(float));
}

static lbrl_shm_header_t plan_header(uint32_t slots)
{
    lbrl_shm_header_t header = {
        .byte_order = LBRL_SHM_BYTE_ORDER,
        .abi = LBRL_SHM_ABI_MIN, /* who does not know of bases finds all else as before */
        .slots = slots,
        .fields_offset = sizeof(lbrl_shm_header_t),
        .frames_offset = (uint32_t)lbrl_align(
            sizeof(lbrl_shm_header_t) + FIELDS * sizeof(lbrl_shm_field_t), LBRL_SHM_LINE),
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
        .frame_base = base_offset(slots),
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
    lbrl_shm_add_field(header, fields, "base", LBRL_SHM_IN_FRAME, LBRL_SHM_F32, slots,
                       actions->frame_base);
    lbrl_shm_add_field(header, fields, "base_sequence", LBRL_SHM_IN_FRAME, LBRL_SHM_U64, 1,
                       offsetof(lbrl_frame_t, base_sequence));
    __atomic_store_n(&header->magic, LBRL_SHM_ACTIONS_MAGIC, __ATOMIC_RELEASE);
    return LBRL_SHM_OK;
}

typedef struct columns {
    const lbrl_shm_field_t *weight, *generation;
    const lbrl_shm_field_t *base; /* NULL: the writer does not have bases */
} columns_t;

static bool is_column(const lbrl_shm_view_t *view, const lbrl_shm_field_t *field,
                      lbrl_shm_type_t type)
{
    return field && field->type == (uint32_t)type && field->count == view->header.slots;
}

/* Columns of an object that somebody else may have laid out. */
static bool find_columns(const lbrl_shm_view_t *view, columns_t *found)
{
    *found = (columns_t){lbrl_shm_find(view, LBRL_SHM_IN_FRAME, "weight"),
                         lbrl_shm_find(view, LBRL_SHM_IN_FRAME, "generation"),
                         lbrl_shm_find(view, LBRL_SHM_IN_FRAME, "base")};
    return is_column(view, found->weight, LBRL_SHM_F32) &&
           is_column(view, found->generation, LBRL_SHM_U8) &&
           (!found->base || is_column(view, found->base, LBRL_SHM_F32));
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
    columns_t columns;
    int code = lbrl_shm_open(&view, memory, size, LBRL_SHM_ACTIONS_MAGIC, problem);
    if (code) {
        return code;
    }
    if (view.header.slots != slots) {
        return refuse(problem, LBRL_SHM_ARGUMENT, "slots", view.header.slots, slots);
    }
    if (!find_columns(&view, &columns)) {
        return refuse(problem, LBRL_SHM_CORRUPT, "field table", view.header.fields, FIELDS);
    }
    if (!columns.base) {
        return refuse(problem, LBRL_SHM_OLDER, "base", view.header.fields, FIELDS);
    }
    bind_handle(actions, memory, slots);
    actions->frame_weight = columns.weight->offset;
    actions->frame_generation = columns.generation->offset;
    actions->frame_base = columns.base->offset;
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

/* Readers may copy meanwhile. */
static void write_floats(lbrl_frame_t *frame, uint32_t offset, const float *values, uint32_t count)
{
    uint32_t *to = (uint32_t *)(void *)((uint8_t *)frame + offset);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof(bits));
        __atomic_store_n(&to[i], bits, __ATOMIC_RELAXED);
    }
}

/* `base_sequence` of a frame with bases: its own number, or the complement of it where they are on the flows of all. */
static uint64_t mark_bases(uint64_t sequence, bool shared)
{
    return shared ? ~sequence : sequence;
}

static uint64_t write_actions(lbrl_actions_t *actions, const float *weight, const float *base,
                              bool shared, const uint8_t *generation, uint64_t now_us)
{
    lbrl_frame_t *frame = oldest_frame(actions);
    uint8_t *generations = (uint8_t *)frame + actions->frame_generation;
    actions->sequence++;
    lbrl_frame_begin(frame);
    __atomic_store_n(&frame->time_us, now_us, __ATOMIC_RELAXED);
    write_floats(frame, actions->frame_weight, weight, actions->slots);
    if (base) {
        write_floats(frame, actions->frame_base, base, actions->slots);
    }
    for (uint32_t i = 0; i < actions->slots; i++) {
        __atomic_store_n(&generations[i], generation[i], __ATOMIC_RELAXED);
    }
    /* last, so that no writer that dies before leaves the number to the next */
    const uint64_t mark = base ? mark_bases(actions->sequence, shared) : 0;
    __atomic_store_n(&frame->base_sequence, mark, __ATOMIC_RELAXED);
    lbrl_frame_end(frame, actions->sequence);
    __atomic_store_n(&actions->header->heartbeat_us, now_us, __ATOMIC_RELAXED);
    return actions->sequence;
}

uint64_t lbrl_actions_write(lbrl_actions_t *actions, const float *weight, const float *base,
                            const uint8_t *generation, uint64_t now_us)
{
    return write_actions(actions, weight, base, false, generation, now_us);
}

uint64_t lbrl_actions_write_shared(lbrl_actions_t *actions, const float *weight, const float *base,
                                   const uint8_t *generation, uint64_t now_us)
{
    return write_actions(actions, weight, base, true, generation, now_us);
}

void lbrl_actions_retire(lbrl_actions_t *actions)
{
    __atomic_store_n(&actions->header->retired, 1, __ATOMIC_RELEASE);
}

static bool bit_set(const uint64_t *bits, uint32_t index)
{
    return bits[index / 64] >> index % 64 & 1;
}

/* A copied frame. */
typedef struct actions_frame {
    uint32_t slots;
    const float *weight;
    const float *base; /* NULL: it has none */
    bool shared;       /* bases are on the flows of all balancers */
    const uint8_t *generation;
} actions_frame_t;

/* Whether the agent meant the backend that holds the slot. */
static bool is_meant(const actions_frame_t *frame, const lbrl_actions_target_t *target,
                     uint32_t slot)
{
    return slot < frame->slots && frame->generation[slot] == target->generation[slot];
}

/* The weight that a slot would have. */
static float merged_weight(const actions_frame_t *frame, const lbrl_actions_target_t *target,
                           uint32_t slot)
{
    return is_meant(frame, target, slot) ? frame->weight[slot] : target->weight[slot];
}

static bool all_between(const float *values, uint32_t count, float highest)
{
    for (uint32_t i = 0; i < count; i++) {
        /* written so that not-a-number fails */
        if (!(values[i] >= 0.0f && values[i] <= highest)) {
            return false;
        }
    }
    return true;
}

static int check_actions(const actions_frame_t *frame, const lbrl_actions_target_t *target)
{
    if (!all_between(frame->weight, frame->slots, LBRL_WEIGHT_MAX)) {
        return LBRL_SHM_BAD_WEIGHT;
    }
    if (frame->base && !all_between(frame->base, frame->slots, LBRL_BASE_MAX)) {
        return LBRL_SHM_BAD_BASE;
    }
    bool any_active = false, any_positive = false;
    for (uint32_t slot = 0; slot < target->slots; slot++) {
        if (bit_set(target->active, slot)) {
            any_active = true;
            any_positive |= merged_weight(frame, target, slot) > 0.0f;
        }
    }
    return any_active && !any_positive ? LBRL_SHM_NO_WEIGHT : LBRL_SHM_OK;
}

static void take_actions(const actions_frame_t *frame, const lbrl_actions_target_t *target)
{
    for (uint32_t slot = 0; slot < target->slots; slot++) {
        if (bit_set(target->active, slot) && is_meant(frame, target, slot)) {
            target->weight[slot] = frame->weight[slot];
            target->base[slot] = frame->base ? frame->base[slot] : 0.0f;
        }
    }
}

/* The columns of a copied frame. It has bases only if its writer says so: an earlier release that goes on with this
 * object leaves those of the frame before. */
static actions_frame_t frame_of(const lbrl_shm_view_t *view, const columns_t *columns,
                                const void *copy)
{
    const lbrl_frame_t *frame = copy;
    const uint8_t *bytes = copy;
    const bool shared = frame->base_sequence == mark_bases(frame->sequence, true);
    const bool has_base =
        columns->base && (shared || frame->base_sequence == mark_bases(frame->sequence, false));
    return (actions_frame_t){
        .slots = view->header.slots,
        .weight = (const float *)(const void *)(bytes + columns->weight->offset),
        .base = has_base ? (const float *)(const void *)(bytes + columns->base->offset) : NULL,
        .shared = has_base && shared,
        .generation = bytes + columns->generation->offset,
    };
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
    columns_t columns;
    if (!find_columns(view, &columns)) {
        return LBRL_SHM_CORRUPT;
    }
    const actions_frame_t actions = frame_of(view, &columns, scratch);
    code = check_actions(&actions, target);
    if (code) {
        return code;
    }
    take_actions(&actions, target);
    if (target->shared) {
        *target->shared = actions.shared;
    }
    return 1;
}
