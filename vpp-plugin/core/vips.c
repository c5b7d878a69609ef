/* VIPs as configured: checked whole, then applied by difference. */
#include "control.h"

/* What a configuration asks for, worked out before anything is changed. */
typedef struct vip_change {
    const lbrl_vip_config_t *config;
    arena_vip_t record; /* as it will be */
    uint32_t index;
    bool created;
    uint16_t slot_of[LBRL_BACKENDS_MAX];        /* of each backend; new ones too */
    endpoint_t *endpoint_of[LBRL_BACKENDS_MAX]; /* of new ones */
} vip_change_t;

/* ------------------------------------------------------------------------------- planning */

static int find_address(const arena_vip_t *record, const ip_t *address)
{
    for (int i = 0; i < LBRL_ADDRESSES_MAX; i++) {
        if (ip_equal(&record->addresses[i], address)) {
            return i;
        }
    }
    return -1;
}

/* Addresses that stay keep their place, for flows name it; those that go are retired. */
static int plan_addresses(const lbrl_t *lb, vip_change_t *change)
{
    arena_vip_t *record = &change->record;
    const ip_t none = {{0, 0}};
    uint8_t keep = 0;
    for (uint32_t i = 0; i < change->config->address_count; i++) {
        ip_t address = ip_load(change->config->addresses[i].bytes);
        if (vip_address_taken(lb, change->index, record, &address)) {
            return LBRL_ERR_CONFLICT;
        }
        int place = find_address(record, &address);
        place = place < 0 ? find_address(record, &none) : place;
        if (place < 0) {
            return LBRL_ERR_EXHAUSTED; /* until flows to retired ones are gone */
        }
        record->addresses[place] = address;
        keep |= (uint8_t)(1u << place);
    }
    record->retired_addresses = 0;
    for (uint32_t i = 0; i < LBRL_ADDRESSES_MAX; i++) {
        if (!ip_is_zero(&record->addresses[i]) && !(keep >> i & 1)) {
            record->retired_addresses |= (uint8_t)(1u << i);
        }
    }
    return LBRL_OK;
}

static uint8_t flags_of(const lbrl_vip_config_t *config)
{
    return (uint8_t)((config->client_affinity ? VIP_CLIENT_AFFINITY : 0) |
                     (config->when_no_backends == LBRL_REFUSE_DROP ? VIP_DROPS_UNSERVED : 0) |
                     (config->when_no_flow == LBRL_REFUSE_DROP ? VIP_DROPS_STRANGERS : 0));
}

static void plan_record(vip_change_t *change)
{
    const lbrl_vip_config_t *config = change->config;
    arena_vip_t *record = &change->record;
    record->id = config->id;
    record->state = VIP_LIVE;
    record->port = swap16(config->port);
    record->protocol = config->protocol;
    record->scheduler = config->scheduler;
    record->load = config->load;
    record->flags = flags_of(config);
    record->feature_level = config->feature_level;
    record->forwarding = config->forwarding;
    record->dscp = config->dscp;
    record->mtu = config->mtu;
    record->table_size = config->table_size ? config->table_size : LBRL_MAGLEV_SIZE_DEFAULT;
    record->timeouts = config->timeouts;
    record->drain_timeout = config->drain_timeout;
}

static bool slot_is(const slot_t *slot, const lbrl_backend_config_t *backend)
{
    ip_t address = ip_load(backend->address.bytes);
    return slot->state != SLOT_FREE && !slot->reap && !slot->free_pending &&
           slot->id == backend->id && slot->port == swap16(backend->port) &&
           ip_equal(&slot->address, &address);
}

/* Slots of backends: those they have, else free ones, else those beyond the present end. Returns the slots needed. */
static uint32_t plan_slots(const lbrl_t *lb, vip_change_t *change)
{
    const slot_t *slots = change->created ? NULL : lb->stores[change->index]->slots;
    uint32_t present = change->created ? 0 : change->record.slots;
    uint32_t next = 0;
    for (uint32_t i = 0; i < change->config->backend_count; i++) {
        change->slot_of[i] = UINT16_MAX;
        for (uint32_t s = 0; s < present; s++) {
            if (slot_is(&slots[s], &change->config->backends[i])) {
                change->slot_of[i] = (uint16_t)s;
            }
        }
    }
    for (uint32_t i = 0; i < change->config->backend_count; i++) {
        if (change->slot_of[i] == UINT16_MAX) {
            while (next < present && slots[next].state != SLOT_FREE) {
                next++;
            }
            change->slot_of[i] = (uint16_t)next++;
        }
    }
    return next;
}

/* Width of the VIP's tables: a power of two, at least twice its backends; it never shrinks. */
static int plan_width(const lbrl_t *lb, vip_change_t *change, uint32_t needed)
{
    uint32_t wanted =
        change->config->backend_count * 2 > needed ? change->config->backend_count * 2 : needed;
    uint32_t width = SLOTS_MIN;
    while (width < wanted) {
        width *= 2;
    }
    if (!change->created && width <= change->record.slots) {
        return LBRL_OK;
    }
    const uint32_t held = change->created ? 0 : change->record.slots;
    const uint32_t base =
        width > VIP_SLOTS_MAX ? UINT32_MAX : slots_find(lb, change->index, held, width);
    if (base == UINT32_MAX) {
        return LBRL_ERR_EXHAUSTED;
    }
    change->record.slot_base = base;
    change->record.slots = (uint16_t)width;
    return LBRL_OK;
}

static bool is_new(const lbrl_t *lb, const vip_change_t *change, uint32_t i)
{
    return change->created || change->slot_of[i] >= lb->records[change->index].slots ||
           !slot_is(&lb->stores[change->index]->slots[change->slot_of[i]],
                    &change->config->backends[i]);
}

static void drop_endpoints(lbrl_t *lb, const vip_change_t *change, uint32_t count_)
{
    for (uint32_t i = 0; i < count_; i++) {
        if (change->endpoint_of[i]) {
            endpoint_release(lb, change->endpoint_of[i]);
        }
    }
}

static int plan_endpoints(lbrl_t *lb, vip_change_t *change)
{
    for (uint32_t i = 0; i < change->config->backend_count; i++) {
        const lbrl_backend_config_t *backend = &change->config->backends[i];
        change->endpoint_of[i] = NULL;
        if (is_new(lb, change, i)) {
            ip_t address = ip_load(backend->address.bytes);
            change->endpoint_of[i] =
                endpoint_take(lb, &address, swap16(backend->port), change->config->protocol);
            if (!change->endpoint_of[i]) {
                drop_endpoints(lb, change, i);
                return LBRL_ERR_MEMORY;
            }
        }
    }
    return LBRL_OK;
}

/* Finds the VIP or a place for it. */
static int plan_index(const lbrl_t *lb, vip_change_t *change)
{
    const lbrl_vip_config_t *config = change->config;
    change->index = vip_index(lb, config->id);
    change->created = change->index == UINT32_MAX;
    if (change->created) {
        for (change->index = 0; lb->records[change->index].state != VIP_FREE;) {
            if (++change->index == lb->arena.vip_count) {
                return LBRL_ERR_EXHAUSTED;
            }
        }
        change->record =
            (arena_vip_t){.generation = (uint8_t)(lb->records[change->index].generation + 1)};
        return LBRL_OK;
    }
    change->record = lb->records[change->index];
    ip_t address = ip_load(config->addresses[0].bytes);
    bool v4 = false;
    for (uint32_t i = 0; i < LBRL_ADDRESSES_MAX; i++) {
        v4 |= ip_is_v4(&change->record.addresses[i]);
    }
    if (change->record.protocol != config->protocol ||
        change->record.port != swap16(config->port) ||
        change->record.forwarding != config->forwarding || v4 != ip_is_v4(&address)) {
        return LBRL_ERR_IMMUTABLE;
    }
    return LBRL_OK;
}

/* All that can be refused, but for want of memory. */
static int plan_record_and_slots(const lbrl_t *lb, vip_change_t *change)
{
    int error = lbrl_vip_check(change->config, NULL);
    if (!error) {
        error = plan_index(lb, change);
    }
    if (error) {
        return error;
    }
    plan_record(change);
    error = plan_addresses(lb, change);
    return error ? error : plan_width(lb, change, plan_slots(lb, change));
}

/* ------------------------------------------------------------------------------- applying */

/* Moves the VIP's slot records to a wider range, which may begin with the present one; the VIP's own record, written next,
 * makes that the truth. */
static void move_slots(lbrl_t *lb, const vip_change_t *change)
{
    const arena_vip_t *old = &lb->records[change->index];
    const bool stays = !change->created && old->slot_base == change->record.slot_base;
    for (uint32_t i = stays ? old->slots : 0; i < change->record.slots; i++) {
        uint32_t to = change->record.slot_base + i;
        __atomic_store_n(&lb->arena.slots[to].state, SLOT_FREE, __ATOMIC_SEQ_CST);
        if (!change->created && i < old->slots) {
            const arena_slot_t slot = lb->arena.slots[old->slot_base + i];
            if (slot.check == arena_slot_check(&lb->arena, old->slot_base + i, &slot, old->id)) {
                arena_slot_write(&lb->arena, to, &slot, old->id);
            }
        }
    }
    memset(lb->slot_used + change->record.slot_base, 1, change->record.slots);
}

/* A backend that was out of service has no weight where agents give theirs to those in service alone: it starts anew. */
static void begin_again(lbrl_t *lb, uint32_t index, slot_t *slot)
{
    if (slot->wanted == SLOT_ACTIVE && !(slot->weight > 0)) {
        slot->weight = weights_of_newcomer(lb, index, slot->configured);
        slot->base = 0;
    }
}

/* Weights of an agent that are older than the backends may leave none to those that are in service now. */
static bool has_weight(const lbrl_t *lb, uint32_t index)
{
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        const slot_t *slot = &lb->stores[index]->slots[i];
        if (slot_in_service(slot) && slot->weight > 0) {
            return true;
        }
    }
    return false;
}

/* New ones last, after those that return: what they start with follows from those that stay. */
static void apply_backends(lbrl_t *lb, const vip_change_t *change)
{
    vip_store_t *store = lb->stores[change->index];
    uint8_t configured[VIP_SLOTS_MAX] = {0};
    uint8_t returns[VIP_SLOTS_MAX] = {0};
    for (uint32_t i = 0; i < change->config->backend_count; i++) {
        const lbrl_backend_config_t *backend = &change->config->backends[i];
        slot_t *slot = &store->slots[change->slot_of[i]];
        configured[change->slot_of[i]] = 1;
        if (change->endpoint_of[i]) {
            continue;
        }
        returns[change->slot_of[i]] = slot->removed || slot->wanted != SLOT_ACTIVE;
        slot->wanted = backend->state;
        slot->removed = 0;
        slot->configured = backend->weight;
        if (!store->weights_set) {
            slot->weight = backend->weight;
        }
        slot_store(lb, change->index, change->slot_of[i]);
    }
    for (uint32_t i = 0; i < change->record.slots; i++) {
        if (store->slots[i].state != SLOT_FREE && !configured[i] && !store->slots[i].removed) {
            store->slots[i].removed = 1;
            slot_store(lb, change->index, i);
        }
    }
    bool none = !has_weight(lb, change->index);
    for (uint32_t i = 0; i < change->record.slots; i++) {
        bool stays = configured[i] && store->slots[i].state != SLOT_FREE;
        if (returns[i] || (none && stays)) {
            begin_again(lb, change->index, &store->slots[i]);
        }
    }
    for (uint32_t i = 0; i < change->config->backend_count; i++) {
        if (change->endpoint_of[i]) {
            slot_open(lb, change->index, change->slot_of[i], &change->config->backends[i],
                      change->endpoint_of[i]);
        }
    }
}

/* What of a slot decides about picking, folded into one number to see changes. */
static uint64_t picking_state(const lbrl_t *lb, uint32_t index)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        const slot_t *slot = &lb->stores[index]->slots[i];
        uint32_t weight;
        memcpy(&weight, &slot->weight, sizeof(weight));
        uint64_t word = slot->state == SLOT_ACTIVE ? (uint64_t)weight << 8 | slot->generation : 0;
        sum = (sum ^ word) * 0x9e3779b97f4a7c15u + i;
        memcpy(&weight, &slot->configured, sizeof(weight)); /* one-way VIPs pick by it too */
        sum = (sum ^ ((uint64_t)weight << 1 | slot->fallback)) * 0x9e3779b97f4a7c15u;
    }
    return sum;
}

static bool schedule_differs(const arena_vip_t *a, const arena_vip_t *b)
{
    return a->scheduler != b->scheduler || a->table_size != b->table_size ||
           ((a->flags ^ b->flags) & VIP_CLIENT_AFFINITY);
}

/* Directory and slots first, then what workers see of them. */
static int apply(lbrl_t *lb, const vip_change_t *change, uint64_t now_us)
{
    uint32_t index = change->index;
    vip_store_t *store = lb->stores[index];
    arena_vip_t before = lb->records[index];
    bool record_changed = memcmp(&before, &change->record, sizeof(before)) != 0;
    bool wider = change->created || before.slots != change->record.slots;
    uint64_t picking = wider ? 0 : picking_state(lb, index);
    if (wider) {
        move_slots(lb, change);
    }
    lb->records[index] = change->record;
    if (record_changed) {
        arena_vip_write(&lb->arena, index, &change->record);
    }
    if (wider && !change->created) {
        if (before.slot_base != change->record.slot_base) {
            memset(lb->slot_used + before.slot_base, 0, before.slots);
        }
        store->frames = NULL; /* too narrow: the caller binds wider ones */
    }
    apply_backends(lb, change);
    (void)slots_settle(lb, index, now_us / 1000);
    unsigned parts = wider ? DUE_ALL : record_changed ? DUE_VIP : 0;
    if (before.feature_level != change->record.feature_level) {
        parts |= DUE_SINKS;
    }
    if (schedule_differs(&before, &change->record) || picking != picking_state(lb, index)) {
        parts |= DUE_SCHEDULE;
    }
    return vip_publish(lb, index, parts);
}

int lbrl_vip_slots(const lbrl_t *lb, const lbrl_vip_config_t *config, uint32_t *slots)
{
    vip_change_t *change = memory_take(sizeof(*change));
    if (!change) {
        return LBRL_ERR_MEMORY;
    }
    change->config = config;
    int error = plan_record_and_slots(lb, change);
    *slots = change->record.slots;
    memory_free(change);
    return error;
}

int lbrl_vip_set(lbrl_t *lb, const lbrl_vip_config_t *config, uint64_t now_us)
{
    vip_change_t *change = memory_take(sizeof(*change));
    if (!change) {
        return LBRL_ERR_MEMORY;
    }
    change->config = config;
    int error = plan_record_and_slots(lb, change);
    if (!error) {
        error = plan_endpoints(lb, change);
    }
    if (!error && change->created) {
        lb->stores[change->index] = store_make(lb);
        if (!lb->stores[change->index]) {
            drop_endpoints(lb, change, config->backend_count);
            error = LBRL_ERR_MEMORY;
        }
    }
    if (!error) {
        error = apply(lb, change, now_us);
    }
    memory_free(change);
    return error;
}

int lbrl_vip_remove(lbrl_t *lb, uint64_t id, uint64_t now_us)
{
    uint32_t index = vip_index(lb, id);
    if (index == UINT32_MAX) {
        return LBRL_ERR_NOT_FOUND;
    }
    if (lb->records[index].state == VIP_REMOVING) {
        return vip_publish(lb, index, 0);
    }
    lb->records[index].state = VIP_REMOVING;
    lb->stores[index]->leaves_for = 0;
    arena_vip_write(&lb->arena, index, &lb->records[index]);
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        if (lb->stores[index]->slots[i].state != SLOT_FREE) {
            lb->stores[index]->slots[i].removed = 1;
            slot_store(lb, index, i);
        }
    }
    (void)slots_settle(lb, index, now_us / 1000);
    return vip_publish(lb, index, DUE_SCHEDULE | DUE_VIP);
}

/* When a removed VIP began to drain, UINT64_MAX if it does not. */
static uint64_t drains_since(const lbrl_t *lb, uint32_t index)
{
    uint64_t since = UINT64_MAX;
    if (lb->records[index].state != VIP_REMOVING || lb->records[index].drain_timeout == 0) {
        return since;
    }
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        const slot_t *slot = &lb->stores[index]->slots[i];
        if (slot->state != SLOT_FREE && slot->drains_ms != 0 && slot->drains_ms < since) {
            since = slot->drains_ms;
        }
    }
    return since;
}

void lbrl_drain_end_for(lbrl_t *lb, uint64_t vip_id, uint64_t now_us)
{
    uint32_t longest = 0;
    uint64_t earliest = UINT64_MAX;
    for (uint32_t i = 0; i < lb->arena.vip_count; i++) {
        if (lb->records[i].state == VIP_REMOVING && lb->stores[i]->leaves_for == vip_id) {
            return;
        }
        uint64_t since = drains_since(lb, i);
        if (since < earliest) {
            earliest = since;
            longest = i;
        }
    }
    if (earliest == UINT64_MAX) {
        return;
    }
    lb->stores[longest]->leaves_for = vip_id;
    lb->records[longest].drain_timeout = 0;
    arena_vip_write(&lb->arena, longest, &lb->records[longest]);
    (void)slots_settle(lb, longest, now_us / 1000);
    (void)vip_publish(lb, longest, DUE_SCHEDULE);
}
