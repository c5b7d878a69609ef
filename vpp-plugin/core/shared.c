/*
 * Shared view: the balancers of a VIP exchange the counts of flows that their schedulers compare. From those of its peers a
 * balancer estimates the flows that each backend has from all balancers. With l own flows now:
 *
 *     x = l + (1 - doubt) max(0, peers + anticipate (L - 1) (l - l_then)) + doubt (L - 1) (mirror l + (1 - mirror) l_mean)
 *
 * L: balancers. peers: flows of the peers at the last exchange, when this balancer had l_then. l_mean: mean of own flows over the
 * recent past. The second term assumes that each peer's count has changed since as the own one has, times `anticipate`; the third
 * that each peer has as many flows as this balancer. Without the bound at 0, x is linear in l, and argmin (x + base) / weight is
 * argmin (l + b) / weight with one b per backend: the picker stays as it is. b is bounded instead of the second term.
 */
#include <math.h>

#include "control.h"

/* Scores stay above 0 where the peers have fewer flows than they were expected to. */
#define SHARED_BASE_MIN 1e-3f

typedef struct seen_flows {
    float peers; /* flows of the peers at the last exchange */
    float then;  /* own flows at that time */
    float mean;  /* of own flows */
} seen_flows_t;

typedef struct shared_view {
    lbrl_sharing_t how;
    uint64_t time_us; /* of the last exchange; 0: none yet, or too old */
    uint64_t mean_us; /* of the last change of means; 0: none yet */
    seen_flows_t slots[VIP_SLOTS_MAX];
} shared_view_t;

lbrl_sharing_t lbrl_sharing_default(void)
{
    return (lbrl_sharing_t){
        .anticipate = 0.5f, .doubt = 0.2f, .mirror = 0.5f, .mean_ms = 700, .stale_ms = 1000};
}

static bool is_share(float value)
{
    return value >= 0.0f && value <= 1.0f; /* written so that not-a-number fails */
}

/* Own flows of a slot that the VIP's scheduler compares, over all workers. */
static int32_t own_flows(const lbrl_t *lb, uint32_t index, uint32_t slot)
{
    const vip_store_t *store = lb->stores[index];
    const bool busy = lb->vips[index] && lb->vips[index]->counts_busy;
    int64_t sum = 0;
    for (uint32_t w = 0; w < lb->worker_count; w++) {
        if (!busy) {
            sum += __atomic_load_n(
                &store->counters[w * VIP_SLOTS_MAX + slot].value[LBRL_COUNTER_N_FLOW_ON],
                __ATOMIC_RELAXED);
        } else if (__atomic_load_n(&store->workers[w].busy_era, __ATOMIC_ACQUIRE) == store->era) {
            sum += __atomic_load_n(&store->workers[w].busy[slot], __ATOMIC_RELAXED);
        }
    }
    return sum > 0 ? (int32_t)(sum < INT32_MAX ? sum : INT32_MAX) : 0;
}

int lbrl_sharing_set(lbrl_t *lb, uint64_t vip_id, const lbrl_sharing_t *how)
{
    const uint32_t index = vip_index(lb, vip_id);
    if (index == UINT32_MAX) {
        return LBRL_ERR_NOT_FOUND;
    }
    vip_store_t *store = lb->stores[index];
    if (!how) {
        memory_free(store->shared_view); /* no worker reads it */
        store->shared_view = NULL;
        return vip_publish(lb, index, DUE_SCHEDULE);
    }
    if (!is_share(how->anticipate) || !is_share(how->doubt) || !is_share(how->mirror) ||
        how->mean_ms == 0 || how->stale_ms == 0) {
        return LBRL_ERR_INVALID;
    }
    shared_view_t *view =
        store->shared_view ? store->shared_view : memory_take_sparse(sizeof(*view));
    if (!view) {
        return LBRL_ERR_MEMORY;
    }
    view->how = *how;
    store->shared_view = view;
    return LBRL_OK;
}

int lbrl_flows(const lbrl_t *lb, uint64_t vip_id, lbrl_backend_flows_t *flows, uint32_t max,
               uint32_t *count)
{
    const uint32_t index = vip_index(lb, vip_id);
    *count = 0;
    if (index == UINT32_MAX) {
        return LBRL_ERR_NOT_FOUND;
    }
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        const slot_t *slot = &lb->stores[index]->slots[i];
        if (slot->state == SLOT_FREE || slot->removed) {
            continue;
        }
        if (*count < max) {
            flows[*count] = (lbrl_backend_flows_t){slot->id, (uint32_t)own_flows(lb, index, i)};
        }
        ++*count;
    }
    return LBRL_OK;
}

/* Flows of the peers at a backend; lists are mostly in the order of the slots. */
static float find_flows(const lbrl_backend_flows_t *flows, uint32_t count, uint64_t backend,
                        uint32_t *cursor)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t at = (*cursor + i) % count;
        if (flows[at].backend == backend) {
            *cursor = (at + 1) % count;
            return (float)flows[at].flows;
        }
    }
    return 0.0f;
}

static void update_mean(shared_view_t *view, seen_flows_t *seen, float own, uint64_t now_us)
{
    if (view->mean_us == 0 || now_us < view->mean_us) {
        seen->mean = own;
        return;
    }
    const double elapsed_ms = (double)(now_us - view->mean_us) * 1e-3;
    const float keep = (float)exp(-elapsed_ms / (double)view->how.mean_ms);
    seen->mean = own + (seen->mean - own) * keep;
}

int lbrl_peers_set(lbrl_t *lb, uint64_t vip_id, const lbrl_backend_flows_t *flows, uint32_t count,
                   uint64_t now_us)
{
    const uint32_t index = vip_index(lb, vip_id);
    if (index == UINT32_MAX) {
        return LBRL_ERR_NOT_FOUND;
    }
    vip_store_t *store = lb->stores[index];
    shared_view_t *view = store->shared_view;
    if (!view) {
        return LBRL_ERR_INVALID;
    }
    uint32_t cursor = 0;
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        seen_flows_t *seen = &view->slots[i];
        if (store->slots[i].state == SLOT_FREE) {
            *seen = (seen_flows_t){0};
            continue;
        }
        const float own = (float)own_flows(lb, index, i);
        update_mean(view, seen, own, now_us);
        seen->then = own;
        seen->peers = find_flows(flows, count, store->slots[i].id, &cursor);
    }
    view->mean_us = now_us;
    view->time_us = now_us ? now_us : 1;
    return vip_publish(lb, index, DUE_SCHEDULE);
}

void shared_view_tick(lbrl_t *lb, uint32_t index, uint64_t now_us)
{
    shared_view_t *view = lb->stores[index]->shared_view;
    if (view && view->time_us && now_us > view->time_us &&
        now_us - view->time_us > view->how.stale_ms * UINT64_C(1000)) {
        view->time_us = view->mean_us = 0;
        (void)vip_publish(lb, index, DUE_SCHEDULE);
    }
}

bool shared_view_fresh(const vip_store_t *store)
{
    return store->shared_view && store->shared_view->time_us != 0;
}

float shared_view_flows(const vip_store_t *store, uint32_t slot)
{
    return shared_view_fresh(store) ? store->shared_view->slots[slot].peers : -1.0f;
}

/* The base that makes a slot's own flows compare as those of all balancers do. */
static float base_of_all(const lbrl_t *lb, const vip_store_t *store, uint32_t slot)
{
    const lbrl_sharing_t *how = &store->shared_view->how;
    const seen_flows_t *seen = &store->shared_view->slots[slot];
    const float peers = lb->node.nodes > 1 ? (float)(lb->node.nodes - 1) : 0.0f;
    const float trust = 1.0f - how->doubt;
    const float per_flow =
        1.0f + trust * how->anticipate * peers + how->doubt * peers * how->mirror;
    const float constant = trust * (seen->peers - how->anticipate * peers * seen->then) +
                           how->doubt * peers * (1.0f - how->mirror) * seen->mean;
    const float base = store->slots[slot].base;
    return fmaxf((constant + (base > 0.0f ? base : 1.0f)) / per_flow, SHARED_BASE_MIN);
}

float base_in_force(const lbrl_t *lb, const vip_store_t *store, uint32_t slot)
{
    const float base = store->slots[slot].base;
    if (shared_view_fresh(store) && (store->bases_shared || !(base > 0.0f))) {
        return base_of_all(lb, store, slot);
    }
    return base > 0.0f && !store->bases_shared ? base : common_base(lb);
}
