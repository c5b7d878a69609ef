/* A backend's life in its slot: opened, drained, failed, freed. */
#include "control.h"

uint32_t vip_index(const lbrl_t *lb, uint64_t id)
{
    for (uint32_t i = 0; i < lb->arena.vip_count; i++) {
        if (lb->records[i].state != VIP_FREE && lb->records[i].id == id) {
            return i;
        }
    }
    return UINT32_MAX;
}

uint32_t slots_share(const lbrl_t *lb)
{
    const uint32_t most = lb->arena.slot_count / 2 / lb->arena.vip_count;
    uint32_t share = SLOTS_MIN;
    while (share * 2 <= most && share < VIP_SLOTS_MAX) {
        share *= 2;
    }
    return share <= most ? share : 0;
}

/* First of `wanted` free slots in a row, of those from `first` to before `end`. */
static uint32_t find_run(const lbrl_t *lb, uint32_t first, uint32_t end, uint32_t wanted)
{
    uint32_t run = 0;
    for (uint32_t i = first; i < end; i++) {
        run = lb->slot_used[i] ? 0 : run + 1;
        if (run == wanted) {
            return i + 1 - wanted;
        }
    }
    return UINT32_MAX;
}

uint32_t slots_find(const lbrl_t *lb, uint32_t index, uint32_t held, uint32_t count)
{
    const uint32_t share = slots_share(lb);
    const uint32_t own = index * share;
    if (count <= share) {
        const uint32_t kept = lb->records[index].slot_base == own ? held : 0;
        const uint32_t free = count - kept;
        if (free == 0 || find_run(lb, own + kept, own + count, free) != UINT32_MAX) {
            return own;
        }
    }
    return find_run(lb, share * lb->arena.vip_count, lb->arena.slot_count, count);
}

int64_t slot_entries(const lbrl_t *lb, uint32_t index, uint32_t slot)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < lb->worker_count; i++) {
        sum += __atomic_load_n(&lb->stores[index]->workers[i].entries[slot], __ATOMIC_ACQUIRE);
    }
    return sum;
}

static arena_slot_t *record_of(lbrl_t *lb, uint32_t index, uint32_t slot)
{
    return &lb->arena.slots[lb->records[index].slot_base + slot];
}

/* What the arena has for a state in force: of SLOT_GONE, that which an attach makes it from. */
static uint8_t stored_state(uint8_t state)
{
    return state == SLOT_GONE ? SLOT_DRAINING : state;
}

void slot_store(lbrl_t *lb, uint32_t index, uint32_t slot)
{
    const slot_t *from = &lb->stores[index]->slots[slot];
    arena_slot_t *record = record_of(lb, index, slot);
    record->weight = from->configured;
    record->removed = from->removed;
    record->wanted = from->wanted;
    __atomic_store_n(&record->state, stored_state(from->state), __ATOMIC_RELEASE);
}

/* The configured slot with the address and port of a removed one, or NULL. Both have the one endpoint. */
static const slot_t *successor(const lbrl_t *lb, uint32_t index, const slot_t *removed)
{
    const slot_t *slots = lb->stores[index]->slots;
    for (uint32_t i = 0; removed->endpoint->references > 1 && i < lb->records[index].slots; i++) {
        if (slots[i].state != SLOT_FREE && !slots[i].removed &&
            slots[i].endpoint == removed->endpoint) {
            return &slots[i];
        }
    }
    return NULL;
}

/* What becomes of a slot's flows, whatever the time and weights. */
static uint8_t wanted_of_flows(const lbrl_t *lb, uint32_t index, const slot_t *slot)
{
    if (!slot->removed) {
        return slot->wanted;
    }
    const slot_t *same = successor(lb, index, slot);
    if (same) {
        return same->wanted == SLOT_ACTIVE ? SLOT_UNREADY : same->wanted;
    }
    return slot->wanted == SLOT_FAILED ? SLOT_FAILED : SLOT_GONE;
}

/* The state in force: DRAINING stands for all that keep their flows and get no new ones. */
static uint8_t state_now(const lbrl_t *lb, uint32_t index, slot_t *slot, uint64_t now)
{
    uint8_t wanted = wanted_of_flows(lb, index, slot);
    bool drains = wanted == SLOT_DRAINING || wanted == SLOT_GONE;
    slot->drains_ms = !drains ? 0 : slot->drains_ms ? slot->drains_ms : now;
    if (drains && now - slot->drains_ms >= lb->records[index].drain_timeout) {
        return SLOT_FAILED;
    }
    bool unweighted = wanted == SLOT_ACTIVE && !(slot->weight > 0);
    return wanted == SLOT_UNREADY || unweighted ? SLOT_DRAINING : wanted;
}

static bool slot_settle(lbrl_t *lb, uint32_t index, uint32_t number, uint64_t now_ms)
{
    slot_t *slot = &lb->stores[index]->slots[number];
    if (slot->state == SLOT_FREE) {
        return false;
    }
    uint64_t now = now_ms ? now_ms : 1;
    uint8_t state = state_now(lb, index, slot, now);
    slot->failed_ms = state != SLOT_FAILED ? 0 : slot->failed_ms ? slot->failed_ms : now;
    uint8_t fallback = slot->wanted == SLOT_ACTIVE && !slot->removed && slot->configured > 0;
    __atomic_store_n(&slot->fallback, fallback, __ATOMIC_RELEASE);
    uint8_t reap =
        slot->removed && state == SLOT_FAILED && now - slot->failed_ms >= FAILED_GRACE_MS;
    __atomic_store_n(&slot->reap, reap, __ATOMIC_RELAXED);
    if (state == slot->state) {
        return false;
    }
    __atomic_store_n(&slot->times_gone, (uint8_t)(slot->times_gone + (state == SLOT_GONE)),
                     __ATOMIC_RELAXED);
    __atomic_store_n(&slot->state, state, __ATOMIC_RELEASE);
    slot_store(lb, index, number);
    return true;
}

static void note_active(vip_store_t *store, uint32_t slots)
{
    uint8_t any = 0;
    for (uint32_t i = 0; i < slots; i++) {
        any |= store->slots[i].state == SLOT_ACTIVE;
    }
    __atomic_store_n(&store->any_active, any, __ATOMIC_RELEASE);
}

/* Slots that begin to take flows come before those that end to, so that workers find one at all times. */
bool slots_settle(lbrl_t *lb, uint32_t index, uint64_t now_ms)
{
    const slot_t *slots = lb->stores[index]->slots;
    bool changed = false;
    lb->settled_ms = now_ms;
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        changed |= slots[i].state != SLOT_ACTIVE && slot_settle(lb, index, i, now_ms);
    }
    note_active(lb->stores[index], lb->records[index].slots);
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        changed |= slots[i].state == SLOT_ACTIVE && slot_settle(lb, index, i, now_ms);
    }
    note_active(lb->stores[index], lb->records[index].slots);
    return changed;
}

uint8_t slot_reported(const slot_t *slot)
{
    if (slot->state == SLOT_FAILED || slot->removed) {
        return slot->state == SLOT_FAILED ? SLOT_FAILED : SLOT_DRAINING;
    }
    return slot->wanted;
}

/* All but the state, which workers look at in free slots too. */
static void slot_fill(slot_t *slot, const slot_t *from)
{
    const size_t state = offsetof(slot_t, state), after = state + sizeof(slot->state);
    memcpy(slot, from, state);
    memcpy((uint8_t *)slot + after, (const uint8_t *)from + after, sizeof(*slot) - after);
}

void slot_open(lbrl_t *lb, uint32_t index, uint32_t number, const lbrl_backend_config_t *backend,
               endpoint_t *endpoint)
{
    vip_store_t *store = lb->stores[index];
    slot_t *slot = &store->slots[number];
    uint8_t last = record_of(lb, index, number)->generation;
    uint8_t generation = (uint8_t)(last == UINT8_MAX ? 1 : last + 1);
    const slot_t opened = {.address = endpoint->address,
                           .endpoint = endpoint,
                           .id = backend->id,
                           .sum = sum_ip(&endpoint->address),
                           .port = endpoint->port,
                           .generation = generation,
                           .wanted = backend->state,
                           .weight = weights_of_newcomer(lb, index, backend->weight),
                           .configured = backend->weight};
    slot_fill(slot, &opened);
    arena_slot_t record = {.address = slot->address,
                           .id = slot->id,
                           .port = slot->port,
                           .generation = generation,
                           .state = SLOT_DRAINING, /* until slot_settle() */
                           .weight = slot->configured,
                           .wanted = slot->wanted};
    arena_slot_write(&lb->arena, lb->records[index].slot_base + number, &record,
                     lb->records[index].id);
    /* counts of open flows need no reset: with the last flow their sum came to 0, in parts that workers hold */
    for (uint32_t i = 0; i < lb->worker_count && store->workers[i].sink; i++) {
        lbrl_sink_slot_reset(store->workers[i].sink, number);
    }
    if (store->frames) {
        lbrl_frames_slot_open(store->frames, number, generation);
    }
    __atomic_store_n(&slot->state, SLOT_DRAINING, __ATOMIC_RELEASE);
}

/* Frees a removed slot in two steps: no flow holds it and nobody can pick it; then nobody is even looking at it. */
static void slot_free(lbrl_t *lb, uint32_t index, uint32_t number)
{
    vip_store_t *store = lb->stores[index];
    slot_t *slot = &store->slots[number];
    if (slot->state == SLOT_FREE || !slot->removed || !epoch_passed(lb, slot->epoch) ||
        slot_entries(lb, index, number) != 0) {
        return;
    }
    if (!slot->free_pending) {
        slot->free_pending = 1;
        slot->epoch = epoch_next(lb);
        return;
    }
    slot->free_pending = 0;
    __atomic_store_n(&slot->state, SLOT_FREE, __ATOMIC_RELEASE);
    slot_store(lb, index, number);
    if (store->frames) {
        lbrl_frames_slot_close(store->frames, number);
    }
    endpoint_release(lb, slot->endpoint);
    slot->endpoint = NULL;
}

/* Gives places of retired addresses back when their flows are gone. */
static bool free_addresses(lbrl_t *lb, uint32_t index)
{
    arena_vip_t *record = &lb->records[index];
    const vip_store_t *store = lb->stores[index];
    bool changed = false;
    for (uint32_t i = 0; i < LBRL_ADDRESSES_MAX; i++) {
        int64_t entries = 0;
        for (uint32_t w = 0; w < lb->worker_count; w++) {
            entries += __atomic_load_n(&store->workers[w].address_entries[i], __ATOMIC_ACQUIRE);
        }
        if ((record->retired_addresses >> i & 1) && entries == 0 &&
            epoch_passed(lb, store->address_epoch)) {
            record->addresses[i] = (ip_t){{0, 0}};
            record->retired_addresses &= (uint8_t)~(1u << i);
            changed = true;
        }
    }
    return changed;
}

static bool all_free(const lbrl_t *lb, uint32_t index)
{
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        if (lb->stores[index]->slots[i].state != SLOT_FREE) {
            return false;
        }
    }
    return true;
}

/* The last act of a VIP that is being removed. */
static void vip_free(lbrl_t *lb, uint32_t index)
{
    arena_vip_t *record = &lb->records[index];
    const vip_t *vip = lb->vips[index];
    vip_store_t *store = lb->stores[index];
    record->state = VIP_FREE;
    arena_vip_write(&lb->arena, index, record);
    memset(lb->slot_used + record->slot_base, 0, record->slots);
    lb->vips[index] = NULL;
    if (table_publish(lb, true) != LBRL_OK) {
        lb->vips[index] = vip; /* no memory: next time */
        record->state = VIP_REMOVING;
        memset(lb->slot_used + record->slot_base, 1, record->slots);
        return;
    }
    lb->stores[index] = NULL;
    for (uint32_t i = 0; i < lb->worker_count; i++) {
        retire(lb, store->workers[i].sink);
    }
    retire(lb, store->schedule);
    retire(lb, store->fallback);
    memory_free(store->shared_view);
    retire(lb, store);
    retire(lb, vip);
}

static void vip_tick(lbrl_t *lb, uint32_t index, uint64_t now_us)
{
    bool changed = slots_settle(lb, index, now_us / 1000);
    uint8_t reaping = 0;
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        slot_free(lb, index, i);
        reaping |= lb->stores[index]->slots[i].reap;
    }
    __atomic_store_n(&lb->stores[index]->reaping, reaping, __ATOMIC_RELAXED);
    /* without memory the old one goes on; workers re-check states */
    (void)vip_publish(lb, index, changed ? DUE_SCHEDULE : 0);
    weights_tick(lb, index, now_us);
    shared_view_tick(lb, index, now_us);
    if (lb->records[index].retired_addresses && free_addresses(lb, index)) {
        arena_vip_write(&lb->arena, index, &lb->records[index]);
        (void)vip_publish(lb, index, DUE_VIP);
    }
    if (lb->records[index].state == VIP_REMOVING && all_free(lb, index)) {
        vip_free(lb, index);
    }
}

void lbrl_control_tick(lbrl_t *lb, uint64_t now_us)
{
    for (uint32_t i = 0; i < lb->arena.vip_count; i++) {
        if (lb->records[i].state != VIP_FREE) {
            vip_tick(lb, i, now_us);
        }
    }
    (void)sources_settle(lb);
    retire_collect(lb, false);
}
