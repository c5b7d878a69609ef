#include "pick.h"

void pick_refresh(const vip_t *vip, vip_worker_t *counts)
{
    int32_t *total = vip->store->total;
    for (uint32_t i = 0; i < vip->slot_count; i++) {
        if (counts->delta[i]) {
            counts->load[i] = __atomic_add_fetch(&total[i], counts->delta[i], __ATOMIC_RELAXED);
            counts->delta[i] = 0;
        } else {
            counts->load[i] = __atomic_load_n(&total[i], __ATOMIC_RELAXED);
        }
    }
    counts->dirty = 0;
}

/* What flows of an earlier era have left is nobody's any more. */
static void busy_begin(const vip_t *vip, vip_worker_t *counts, uint8_t era)
{
    if (counts->busy_era == era) {
        return;
    }
    for (uint32_t i = 0; i < vip->slot_count; i++) {
        __atomic_store_n(&counts->busy[i], 0, __ATOMIC_RELAXED);
        counts->busy_all[i] = 0;
    }
    __atomic_store_n(&counts->busy_era, era, __ATOMIC_RELEASE);
}

/* Takes a fresh view of all workers' busy flows. */
static void busy_refresh(const lbrl_worker_t *worker, const vip_t *vip, vip_worker_t *counts)
{
    memcpy(counts->busy_all, counts->busy, vip->slot_count * sizeof(*counts->busy));
    for (uint32_t w = 0; w < worker->lb->worker_count; w++) {
        const vip_worker_t *other = &vip->workers[w];
        if (w == worker->index ||
            __atomic_load_n(&other->busy_era, __ATOMIC_ACQUIRE) != counts->busy_era) {
            continue;
        }
        for (uint32_t i = 0; i < vip->slot_count; i++) {
            counts->busy_all[i] += __atomic_load_n(&other->busy[i], __ATOMIC_RELAXED);
        }
    }
}

void pick_busy(const lbrl_worker_t *worker, const vip_t *vip, uint32_t slot, uint8_t era,
               int32_t change)
{
    vip_worker_t *counts = &vip->workers[worker->index];
    busy_begin(vip, counts, era);
    __atomic_store_n(&counts->busy[slot], counts->busy[slot] + change, __ATOMIC_RELAXED);
    if (counts->busy_all != counts->busy) {
        counts->busy_all[slot] += change;
    }
}

/* Loads that the VIP's scheduler compares, as fresh as this vector. */
static const int32_t *loads(const lbrl_worker_t *worker, const vip_t *vip, vip_worker_t *counts)
{
    const bool stale = worker->lb->worker_count > 1 && counts->vector != worker->vector;
    counts->vector = worker->vector;
    if (UNLIKELY(vip->counts_busy)) {
        busy_begin(vip, counts, sink_of(counts)->era);
        if (stale) {
            busy_refresh(worker, vip, counts);
        }
        return counts->busy_all;
    }
    if (stale) {
        pick_refresh(vip, counts);
    }
    return counts->load;
}

/* Hash that all nodes of a DataPlane share: of the client's address alone where the VIP wants affinity. */
static uint64_t schedule_hash(const schedule_t *schedule, const vip_t *vip, const meta_t *meta)
{
    if (vip->flags & VIP_CLIENT_AFFINITY) {
        return tuple_hash(&schedule->key, &meta->src, &meta->src, 0, 0, 0);
    }
    return tuple_hash(&schedule->key, &meta->src, &meta->dst, meta->sport, meta->dport,
                      meta->protocol);
}

uint32_t pick_fallback(const vip_t *vip, const meta_t *meta)
{
    const schedule_t *fallback = __atomic_load_n(&vip->store->fallback, __ATOMIC_ACQUIRE);
    uint32_t slot =
        lbrl_maglev_pick(fallback->table, fallback->table_size, schedule_hash(fallback, vip, meta));
    return slot < vip->slot_count && __atomic_load_n(&vip->slots[slot].fallback, __ATOMIC_ACQUIRE)
               ? slot
               : LBRL_NO_SLOT;
}

static bool takes_flows(const vip_t *vip, uint32_t slot)
{
    return __atomic_load_n(&vip->slots[slot].state, __ATOMIC_ACQUIRE) == SLOT_ACTIVE;
}

/* For a schedule that the states of slots have overtaken: it is published after them, or not at all for want of memory. Where
 * no backend takes flows, a flood of SYNs costs no search. */
static uint32_t next_active(const vip_t *vip, uint32_t slot)
{
    if (!__atomic_load_n(&vip->store->any_active, __ATOMIC_ACQUIRE)) {
        return LBRL_NO_SLOT;
    }
    for (uint32_t i = 0; i < vip->slot_count; i++) {
        uint32_t next = (uint32_t)(((uint64_t)slot + 1 + i) % vip->slot_count);
        if (takes_flows(vip, next)) {
            return next;
        }
    }
    return LBRL_NO_SLOT;
}

uint32_t pick_slot(lbrl_worker_t *worker, const vip_t *vip, vip_worker_t *counts,
                   const meta_t *meta)
{
    const schedule_t *schedule = __atomic_load_n(&vip->store->schedule, __ATOMIC_ACQUIRE);
    uint32_t slot;
    if (!schedule->picker) {
        slot = lbrl_maglev_pick(schedule->table, schedule->table_size,
                                schedule_hash(schedule, vip, meta));
    } else {
        slot =
            lbrl_pick(schedule->picker, loads(worker, vip, counts), random_next(&worker->random));
    }
    return LIKELY(slot < vip->slot_count && takes_flows(vip, slot)) ? slot : next_active(vip, slot);
}
