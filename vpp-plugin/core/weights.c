/* Weights and bases in force: configured, set, or followed from an agent, and what becomes of them when the agent falls
 * silent. */
#include <math.h>

#include "control.h"

/* Weights that have changed go into force with the states that follow from them: a slot of weight 0 takes no flows. */
static int weights_publish(lbrl_t *lb, uint32_t index)
{
    (void)slots_settle(lb, index, lb->settled_ms);
    return vip_publish(lb, index, DUE_SCHEDULE);
}

float common_base(const lbrl_t *lb)
{
    const uint32_t nodes = lb->node.nodes ? lb->node.nodes : 1;
    return 1.0f / ((float)nodes * (float)lb->worker_count);
}

/* `bases` may be NULL: the common one. `shared`: they are on the flows of all balancers. */
static int take_weights(lbrl_t *lb, uint32_t index, const float *weights, const float *bases,
                        bool shared, const uint8_t *generations, uint32_t n)
{
    vip_store_t *store = lb->stores[index];
    bool changed = store->bases_shared != shared;
    store->bases_shared = shared;
    for (uint32_t i = 0; i < n && i < lb->records[index].slots; i++) {
        slot_t *slot = &store->slots[i];
        const float base = bases ? bases[i] : 0;
        if (slot->state != SLOT_FREE && (!generations || generations[i] == slot->generation) &&
            (slot->weight != weights[i] || slot->base != base)) {
            slot->weight = weights[i];
            slot->base = base;
            changed = true;
        }
    }
    return changed ? weights_publish(lb, index) : vip_publish(lb, index, 0);
}

/* An agent's weights may be on any scale: where the others' configured weights are 100 and the agent's mean is 1, 100 would
 * draw nearly every new flow to the backend that nobody has measured yet. So it stands to the mean of those that take
 * flows as its configured weight does to theirs; where an agent fell silent that much nearer to it as the others
 * have moved to theirs. */
float weights_of_newcomer(const lbrl_t *lb, uint32_t index, float configured)
{
    const vip_store_t *store = lb->stores[index];
    double in_force = 0, configured_sum = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; store->weights_set && i < lb->records[index].slots; i++) {
        const slot_t *slot = &store->slots[i];
        if (slot_in_service(slot) && slot->weight > 0 && slot->configured > 0) {
            in_force += (double)slot->weight;
            configured_sum += (double)slot->configured;
            n++;
        }
    }
    if (n == 0 || !(configured > 0)) {
        return configured;
    }
    double mean = in_force / n;
    double own = mean * (double)configured / (configured_sum / n);
    double weight = own + (mean - own) * store->orphan_steps / ORPHAN_STEPS;
    return weight < (double)LBRL_WEIGHT_MAX ? (float)weight : LBRL_WEIGHT_MAX;
}

static bool all_between(const float *values, uint32_t n, float highest)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!isfinite(values[i]) || values[i] < 0 || values[i] > highest) {
            return false;
        }
    }
    return true;
}

int lbrl_weights_set(lbrl_t *lb, uint64_t vip_id, const float *weights, const float *bases,
                     const uint8_t *generations, uint32_t n)
{
    uint32_t index = vip_index(lb, vip_id);
    if (index == UINT32_MAX) {
        return LBRL_ERR_NOT_FOUND;
    }
    if (!all_between(weights, n, LBRL_WEIGHT_MAX) ||
        (bases && !all_between(bases, n, LBRL_BASE_MAX))) {
        return LBRL_ERR_INVALID;
    }
    lb->stores[index]->weights_set = 1;
    return take_weights(lb, index, weights, bases, false, generations, n);
}

int lbrl_weights_reset(lbrl_t *lb, uint64_t vip_id)
{
    uint32_t index = vip_index(lb, vip_id);
    if (index == UINT32_MAX) {
        return LBRL_ERR_NOT_FOUND;
    }
    vip_store_t *store = lb->stores[index];
    store->weights_set = store->following = store->orphan_steps = store->bases_shared = 0;
    store->actions_sequence = 0;
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        store->slots[i].weight = store->slots[i].configured;
        store->slots[i].base = 0;
    }
    return weights_publish(lb, index);
}

int lbrl_weights_follow(lbrl_t *lb, uint64_t vip_id, const lbrl_shm_view_t *view, uint64_t now_us)
{
    uint32_t index = vip_index(lb, vip_id);
    if (index == UINT32_MAX) {
        return LBRL_ERR_NOT_FOUND;
    }
    vip_store_t *store = lb->stores[index];
    uint32_t slots = lb->records[index].slots;
    float weights[VIP_SLOTS_MAX], bases[VIP_SLOTS_MAX];
    uint8_t generations[VIP_SLOTS_MAX];
    uint64_t active[VIP_SLOTS_MAX / 64] = {0};
    for (uint32_t i = 0; i < slots; i++) {
        weights[i] = store->slots[i].weight;
        bases[i] = store->slots[i].base;
        generations[i] = store->slots[i].generation;
        active[i / 64] |= (uint64_t)slot_in_service(&store->slots[i]) << i % 64;
    }
    void *scratch = memory_take(view->header.frame_stride);
    if (!scratch) {
        return LBRL_ERR_MEMORY;
    }
    bool shared = false;
    lbrl_actions_target_t target = {slots, active, generations, weights, bases, &shared};
    uint64_t time_us = 0;
    int result = lbrl_actions_apply(view, &target, scratch, view->header.frame_stride,
                                    &store->actions_seen, &time_us);
    memory_free(scratch);
    if (result > 0) {
        bool was_orphan = store->orphan_steps > 0;
        store->actions_sequence = store->actions_seen;
        store->unfollowed_us = 0;
        store->actions_time_us = time_us && time_us < now_us ? time_us : now_us;
        store->following = store->weights_set = 1;
        store->orphan_steps = 0;
        int error = take_weights(lb, index, weights, bases, shared, NULL, slots);
        error = error || !was_orphan ? error : vip_publish(lb, index, DUE_SCHEDULE);
        return error ? error : result;
    }
    return result;
}

int lbrl_weights_unfollow(lbrl_t *lb, uint64_t vip_id, uint64_t now_us)
{
    uint32_t index = vip_index(lb, vip_id);
    if (index == UINT32_MAX) {
        return LBRL_ERR_NOT_FOUND;
    }
    vip_store_t *store = lb->stores[index];
    store->actions_seen = 0;
    if (store->following && !store->unfollowed_us) {
        store->unfollowed_us = now_us ? now_us : 1;
    }
    return LBRL_OK;
}

/* A base is an estimate of the moment, of other balancers' flows above all: it is out of date long before a weight is. */
static void drop_bases(lbrl_t *lb, uint32_t index)
{
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        lb->stores[index]->slots[i].base = 0;
    }
}

/* Moves weights a share of their way to the mean of those that pick, so that they are equal after the last step. */
static void decay(lbrl_t *lb, uint32_t index, uint32_t steps_left)
{
    vip_store_t *store = lb->stores[index];
    float sum = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        if (store->slots[i].state == SLOT_ACTIVE && store->slots[i].weight > 0) {
            sum += store->slots[i].weight;
            n++;
        }
    }
    for (uint32_t i = 0; n && i < lb->records[index].slots; i++) {
        slot_t *slot = &store->slots[i];
        if (slot->state == SLOT_ACTIVE && slot->weight > 0) {
            slot->weight += (sum / (float)n - slot->weight) / (float)steps_left;
        }
    }
}

void weights_tick(lbrl_t *lb, uint32_t index, uint64_t now_us)
{
    vip_store_t *store = lb->stores[index];
    if (store->unfollowed_us) {
        if (now_us >= store->unfollowed_us + lb->grace_ms * UINT64_C(1000)) {
            store->unfollowed_us = 0;
            (void)lbrl_weights_reset(lb, lb->records[index].id);
        }
        return;
    }
    if (!store->following || now_us < store->actions_time_us) {
        return;
    }
    uint64_t silent_ms = (now_us - store->actions_time_us) / 1000;
    if (silent_ms < lb->grace_ms) {
        return;
    }
    uint64_t due = 1 + (silent_ms - lb->grace_ms) * (ORPHAN_STEPS - 1) / LBRL_ORPHAN_DECAY_MS;
    due = due > ORPHAN_STEPS ? ORPHAN_STEPS : due;
    if (store->orphan_steps >= due) {
        return;
    }
    drop_bases(lb, index);
    while (store->orphan_steps < due) {
        decay(lb, index, ORPHAN_STEPS - store->orphan_steps);
        store->orphan_steps++;
    }
    (void)vip_publish(lb, index, DUE_SCHEDULE);
}
