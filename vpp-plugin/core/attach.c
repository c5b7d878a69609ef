/* What an arena holds is made to work again: directory first, then every flow entry that proves itself. */
#include "control.h"
#include "flow.h"

/* ------------------------------------------------------------------------------- directory */

/* Whether an earlier slot is that of a configured backend with the id: a VIP has each once, and tables are built on that.
 * A slot that still drains does not count: another server may have the id by now. */
static bool id_taken(const vip_store_t *store, uint32_t before, uint64_t id)
{
    for (uint32_t i = 0; i < before; i++) {
        const slot_t *slot = &store->slots[i];
        if (slot->state != SLOT_FREE && !slot->removed && slot->id == id) {
            return true;
        }
    }
    return false;
}

/* What is configured of a slot; what is in force may only be what weights or time have made of it. */
static uint8_t wanted_of(const arena_slot_t *record)
{
    return record->wanted == SLOT_FREE || record->wanted > SLOT_UNREADY ? record->state
                                                                        : record->wanted;
}

/* Since when a slot drains: one that failed by that has done so for long enough. Never 0, which says that it does not. */
static uint64_t drains_since(const arena_slot_t *record, uint32_t drain_timeout, uint64_t now_ms)
{
    if (record->state != SLOT_FAILED || wanted_of(record) == SLOT_FAILED) {
        return 0;
    }
    uint64_t since = now_ms - drain_timeout; /* before the boot, perhaps: only differences count */
    return since ? since : UINT64_MAX;
}

/* Slots of one VIP. A record that fails its check is free; its flows then fail theirs. */
static int attach_slots(lbrl_t *lb, uint32_t index, uint64_t now_ms)
{
    const arena_vip_t *vip = &lb->records[index];
    vip_store_t *store = lb->stores[index];
    for (uint32_t i = 0; i < vip->slots; i++) {
        arena_slot_t *record = &lb->arena.slots[vip->slot_base + i];
        if (record->state == SLOT_FREE) {
            continue;
        }
        if (record->state > SLOT_FAILED || record->generation == 0 ||
            record->check != arena_slot_check(&lb->arena, vip->slot_base + i, record, vip->id) ||
            (!record->removed && id_taken(store, i, record->id))) {
            record->state = SLOT_FREE;
            continue;
        }
        endpoint_t *endpoint = endpoint_take(lb, &record->address, record->port, vip->protocol);
        if (!endpoint) {
            return LBRL_ERR_MEMORY;
        }
        float weight =
            record->weight >= 0 && record->weight <= LBRL_WEIGHT_MAX ? record->weight : 1;
        store->slots[i] = (slot_t){.address = record->address,
                                   .endpoint = endpoint,
                                   .id = record->id,
                                   .sum = sum_ip(&record->address),
                                   .port = record->port,
                                   .state = record->state,
                                   .generation = record->generation,
                                   .wanted = wanted_of(record),
                                   .removed = record->removed != 0,
                                   .weight = weight,
                                   .configured = weight,
                                   .drains_ms = drains_since(record, vip->drain_timeout, now_ms)};
    }
    return LBRL_OK;
}

/* Whether a record says that it is another VIP than those before it, with addresses of its own. */
static bool vip_is_distinct(const lbrl_t *lb, uint32_t index, const arena_vip_t *vip)
{
    bool distinct = vip_index(lb, vip->id) == UINT32_MAX;
    for (uint32_t i = 0; distinct && vip->state == VIP_LIVE && i < LBRL_ADDRESSES_MAX; i++) {
        distinct = ip_is_zero(&vip->addresses[i]) || (vip->retired_addresses >> i & 1) ||
                   !vip_address_taken(lb, index, vip, &vip->addresses[i]);
    }
    return distinct;
}

/* Whether a record that passed its check also fits this arena. */
static bool vip_fits(const lbrl_t *lb, uint32_t index, const arena_vip_t *vip)
{
    uint64_t end = (uint64_t)vip->slot_base + vip->slots;
    if (!vip_record_valid(vip) || end > lb->arena.slot_count || !vip_is_distinct(lb, index, vip)) {
        return false;
    }
    for (uint32_t i = vip->slot_base; i < end; i++) {
        if (lb->slot_used[i]) {
            return false;
        }
    }
    return true;
}

static int attach_vip(lbrl_t *lb, uint32_t index, uint64_t now_us)
{
    const arena_vip_t *found = arena_vip(&lb->arena, index);
    if (!found) {
        return LBRL_OK;
    }
    bool fits = vip_fits(lb, index, found);
    lb->records[index] = *found;
    if (!fits) {
        lb->records[index].state = VIP_FREE; /* keeps the generation */
        return LBRL_OK;
    }
    lb->stores[index] = store_make(lb);
    if (!lb->stores[index]) {
        return LBRL_ERR_MEMORY;
    }
    memset(lb->slot_used + found->slot_base, 1, found->slots);
    int error = attach_slots(lb, index, now_us / 1000);
    (void)slots_settle(lb, index, now_us / 1000);
    error = error ? error : sinks_publish(lb, index);
    error = error ? error : schedule_publish(lb, index);
    if (!error) {
        lb->vips[index] = vip_make(lb, index);
    }
    return error ? error : lb->vips[index] ? LBRL_OK : LBRL_ERR_MEMORY;
}

/* Sources of the node's record; those that are none are forgotten. */
static void attach_sources(lbrl_t *lb)
{
    lb->wanted_count = 0;
    for (uint32_t i = 0; i < SOURCES_HELD; i++) {
        arena_source_t *held = &lb->node.sources[i];
        lbrl_nat_source_t source = {.port_first = held->port_first, .port_last = held->port_last};
        memcpy(source.address.bytes, &held->address, sizeof(source.address.bytes));
        if (held->state > SOURCE_RETIRED ||
            (held->state != SOURCE_FREE && !source_valid(&source))) {
            *held = (arena_source_t){0};
        }
        if (held->state == SOURCE_ACTIVE && lb->wanted_count < LBRL_SOURCES_MAX) {
            lb->wanted[lb->wanted_count++] = source;
        }
    }
}

int attach_directory(lbrl_t *lb, uint64_t now_us, lbrl_attach_report_t *report)
{
    const arena_node_t *node = arena_node(&lb->arena);
    if (node) {
        lb->node = *node;
    }
    attach_sources(lb);
    for (uint32_t i = 0; i < lb->arena.vip_count; i++) {
        int error = attach_vip(lb, i, now_us);
        if (error) {
            return error;
        }
        report->vips += lb->vips[i] != NULL;
    }
    return table_publish(lb, true);
}

/* ------------------------------------------------------------------------------- flows */

static bool translation_sound(const lbrl_t *lb, const flow_t *flow)
{
    const arena_source_t *source = &lb->node.sources[flow->source];
    uint16_t port = swap16(flow->nat_port);
    return (source->state == SOURCE_ACTIVE || source->state == SOURCE_RETIRED) &&
           port >= source->port_first && port <= source->port_last &&
           lb->vips[flow->vip]->slots[flow->slot].endpoint->maps[flow->source] != NULL;
}

static bool identity_sound(const lbrl_t *lb, const flow_t *flow)
{
    if (flow->state >= LBRL_FLOW_STATES || flow->vip >= lb->arena.vip_count ||
        !lb->vips[flow->vip] || flow->source >= SOURCES_HELD ||
        flow->address >= LBRL_ADDRESSES_MAX || flow->check != arena_flow_check(&lb->key, flow)) {
        return false;
    }
    const vip_t *vip = lb->vips[flow->vip];
    bool tcp_state = flow->state <= LBRL_FLOW_CLOSING;
    return flow->vip_generation == vip->generation && flow->slot < vip->slot_count &&
           vip->slots[flow->slot].state != SLOT_FREE &&
           vip->slots[flow->slot].generation == flow->slot_generation &&
           !ip_is_zero(&vip->addresses[flow->address]) &&
           tcp_state == (vip->protocol == PROTO_TCP) &&
           (vip_is_one_way(vip) || translation_sound(lb, flow));
}

uint32_t attach_partition_of(const lbrl_t *lb, const flow_t *flow)
{
    if (!identity_sound(lb, flow)) {
        return LBRL_PARTITIONS;
    }
    uint32_t partition =
        flow_client_hash(&lb->key, lb->vips[flow->vip], flow) & (LBRL_PARTITIONS - 1);
    /* both of its directions must agree */
    bool agree = vip_is_one_way(lb->vips[flow->vip]) ||
                 (swap16(flow->nat_port) & (LBRL_PARTITIONS - 1)) == partition;
    return agree ? partition : LBRL_PARTITIONS;
}

/* Whether client or server side of the flow is already in the table. */
static bool is_duplicate(lbrl_worker_t *worker, const partition_t *partition, const flow_t *flow)
{
    const vip_t *vip = worker->table->vips[flow->vip];
    const slot_t *slot = &vip->slots[flow->slot];
    const ip_t *source = &worker->table->sources[flow->source].is.address;
    meta_t client = {.src = flow->client,
                     .dst = vip->addresses[flow->address],
                     .hash = flow_client_hash(&worker->lb->key, vip, flow),
                     .sport = flow->client_port,
                     .dport = vip->port,
                     .protocol = vip->protocol};
    meta_t server = {.src = slot->address,
                     .dst = *source,
                     .hash = flow_server_hash(&worker->lb->key, vip, source, flow),
                     .sport = slot->port,
                     .dport = flow->nat_port,
                     .protocol = vip->protocol,
                     .flags = META_RETURN,
                     .source = flow->source};
    return flow_find(worker, partition, &client) != FLOW_NONE ||
           (!vip_is_one_way(vip) && flow_find(worker, partition, &server) != FLOW_NONE);
}

static void attach_port(lbrl_worker_t *worker, const flow_ref_t *ref, uint32_t partition)
{
    const flow_keep_t *keep = ref->keep;
    const source_t *source = &worker->table->sources[keep->source];
    port_map_t *map = ref->slot->endpoint->maps[keep->source];
    port_share_t *share = &map->shares[partition];
    port_ring(map, partition)[port_index(&source->is, swap16(keep->nat_port))] =
        keep->bits & KEEP_PORT_RETURNED ? PORT_USE_RESTS : PORT_USE_TAKEN;
    share->count++; /* says that the share must be settled */
    share->half_open = (uint16_t)(share->half_open + ((keep->bits & KEEP_HALF_OPEN) != 0));
    index_add(&ref->partition->index[BY_SERVER], keep->server_hash, ref->entry);
}

static void count_attached(lbrl_worker_t *worker, const flow_ref_t *ref, uint64_t now_us)
{
    const uint16_t slot = ref->keep->slot;
    flow_count_entry(worker, ref, 1);
    ref->counts->held_half_open += (ref->keep->bits & KEEP_HALF_OPEN) != 0;
    worker->half_open += (ref->keep->bits & KEEP_HALF_OPEN) != 0;
    if (ref->keep->bits & KEEP_OPEN) {
        ref->counts->load[slot]++;
        ref->vip->store->total[slot]++;
        lbrl_sink_flow_reopen(ref->counts->sink, slot, now_us);
    }
}

/* Flags follow from the state, in case the process died between the two. */
static uint8_t flags_of(const vip_t *vip, const flow_t *flow)
{
    uint8_t flags =
        (uint8_t)(flow_is_closed(flow->state) ? flow->flags & ~FLOW_OPEN : flow->flags | FLOW_OPEN);
    if (!vip_is_one_way(vip) && (!(flags & FLOW_QUARANTINE) || flow->state != LBRL_FLOW_CLOSING)) {
        flags &= (uint8_t)~(FLOW_QUARANTINE | FLOW_PORT_RETURNED);
    }
    return flags;
}

static flow_keep_t keep_of(const lbrl_t *lb, const flow_t *flow)
{
    const vip_t *vip = lb->vips[flow->vip];
    const ip_t *source = &lb->node.sources[flow->source].address;
    const bool returned = !vip_is_one_way(vip) && (flow->flags & FLOW_PORT_RETURNED);
    return (flow_keep_t){
        .client_hash = flow_client_hash(&lb->key, vip, flow),
        .server_hash = vip_is_one_way(vip) ? 0 : flow_server_hash(&lb->key, vip, source, flow),
        .vip = flow->vip,
        .slot = flow->slot,
        .nat_port = flow->nat_port,
        .source = flow->source,
        .address = flow->address & (LBRL_ADDRESSES_MAX - 1u),
        .bits = ((flow->flags & FLOW_OPEN ? KEEP_OPEN : 0) | (returned ? KEEP_PORT_RETURNED : 0))};
}

/* Makes a sound entry findable and counted. */
static bool adopt(lbrl_t *lb, uint32_t number, uint32_t entry, flow_t *sound, uint64_t now_us)
{
    partition_t *partition = &lb->partitions[number];
    lbrl_worker_t *worker = &lb->workers[lb->owner[number]];
    if (is_duplicate(worker, partition, sound)) {
        return false;
    }
    sound->flags = flags_of(lb->vips[sound->vip], sound);
    const flow_keep_t keep = keep_of(lb, sound);
    partition->flows[entry] = *sound; /* as it was checked, whatever has been written there since */
    flow_keep(partition, entry, &keep, sound->state);
    flow_ref_t ref = flow_ref(worker, partition, entry);
    index_add(&partition->index[BY_CLIENT], keep.client_hash, entry);
    partition->used++;
    if (!vip_is_one_way(ref.vip)) {
        attach_port(worker, &ref, number);
    }
    count_attached(worker, &ref, now_us);
    return true;
}

bool attach_is_expired(const lbrl_t *lb, const flow_t *flow, uint32_t now_ms)
{
    int32_t silence = (int32_t)(now_ms - flow->last_ms);
    return silence > (int64_t)flow_timeout(lb->vips[flow->vip], flow) || silence < -CLOCKS_APART_MS;
}

static void attach_partition(lbrl_t *lb, uint32_t number, uint64_t now_us,
                             lbrl_attach_report_t *report)
{
    partition_t *partition = &lb->partitions[number];
    partition->fresh = 0;
    partition->free_head = FLOW_NONE;
    for (uint32_t entry = 0; entry < partition->flow_count; entry++) {
        flow_t found = partition->flows[entry];
        if (found.state == LBRL_FLOW_FREE) {
            continue;
        }
        const bool sound = attach_partition_of(lb, &found) == number;
        const bool expired = sound && attach_is_expired(lb, &found, (uint32_t)(now_us / 1000));
        if (sound && !expired && adopt(lb, number, entry, &found, now_us)) {
            report->flows++;
            partition->fresh = entry + 1;
        } else {
            partition->flows[entry].state = LBRL_FLOW_FREE;
            report->flows_dropped++;
            report->flows_expired += expired;
        }
    }
    for (uint32_t entry = partition->fresh; entry-- > 0;) {
        if (!(partition->keeps[entry].bits & KEEP_USED)) {
            partition->keeps[entry].link.next = partition->free_head;
            partition->free_head = entry;
        }
    }
}

void attach_flows(lbrl_t *lb, uint64_t now_us, lbrl_attach_report_t *report)
{
    for (uint32_t i = 0; i < lb->worker_count; i++) {
        lb->workers[i].table = lb->table;
    }
    for (uint32_t i = 0; i < LBRL_PARTITIONS; i++) {
        attach_partition(lb, i, now_us, report);
    }
    endpoints_settle(lb);
}
