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

/* Hash that all nodes of a DataPlane share: of the client's address alone where the VIP wants affinity. */
static uint64_t schedule_hash(const schedule_t *schedule, const vip_t *vip, const meta_t *meta)
{
    if (vip->affinity) {
        return tuple_hash(&schedule->key, &meta->src, &meta->src, 0, 0, 0);
    }
    return tuple_hash(&schedule->key, &meta->src, &meta->dst, meta->sport, meta->dport,
                      meta->protocol);
}

/* The slot, if it takes flows. */
static uint32_t usable(const vip_t *vip, uint32_t slot)
{
    return slot < vip->slot_count &&
                   __atomic_load_n(&vip->slots[slot].state, __ATOMIC_ACQUIRE) == SLOT_ACTIVE
               ? slot
               : LBRL_NO_SLOT;
}

uint32_t pick_fallback(const vip_t *vip, const meta_t *meta)
{
    const schedule_t *fallback = __atomic_load_n(&vip->store->fallback, __ATOMIC_ACQUIRE);
    return usable(vip, lbrl_maglev_pick(fallback->table, fallback->table_size,
                                        schedule_hash(fallback, vip, meta)));
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
        if (worker->lb->worker_count > 1 && counts->vector != worker->vector) {
            counts->vector = worker->vector;
            pick_refresh(vip, counts);
        }
        slot = lbrl_pick(schedule->picker, counts->load, random_next(&worker->random));
    }
    return usable(vip, slot);
}
