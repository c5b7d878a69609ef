/* What the control side tells: frames, status, statistics, flows. */
#include "control.h"
#include "flow.h"

#define LBRL_TEXT(name, text) text,

/* ------------------------------------------------------------------------------- names */

const char *lbrl_drop_text(unsigned reason)
{
    static const char *const texts[] = {LBRL_DROP_REASONS(LBRL_TEXT)};
    return reason < LBRL_DROP_COUNT ? texts[reason] : "unknown";
}

const char *lbrl_drop_name(unsigned reason)
{
    static const char *const names[] = {"none",
                                        "not_ours",
                                        "truncated",
                                        "bad_version",
                                        "bad_header",
                                        "bad_checksum",
                                        "bad_address",
                                        "bad_option",
                                        "bad_fragment",
                                        "fragment_unknown",
                                        "bad_flags",
                                        "unknown_protocol",
                                        "icmp_unsupported",
                                        "icmp_no_flow",
                                        "port_unconfigured",
                                        "no_flow",
                                        "no_flow_return",
                                        "no_backend",
                                        "no_nat_port",
                                        "table_full",
                                        "backend_failed",
                                        "ttl_expired",
                                        "no_headroom",
                                        "rate_bounded",
                                        "handover_full",
                                        "too_big",
                                        "no_tunnel_source",
                                        "forged_client"};
    static_assert(sizeof(names) / sizeof(names[0]) == LBRL_DROP_COUNT, "a name per reason");
    return reason < LBRL_DROP_COUNT ? names[reason] : "unknown";
}

const char *lbrl_error_text(int error)
{
    switch (error) {
    case LBRL_OK:
        return "no error";
    case LBRL_ERR_INVALID:
        return "an argument is out of its range";
    case LBRL_ERR_MEMORY:
        return "out of memory: apply the same again when there is more";
    case LBRL_ERR_EXHAUSTED:
        return "the directory has no VIP, slot or address place left: start with a larger one";
    case LBRL_ERR_CONFLICT:
        return "address and port are held by another VIP or by a NAT source's port range";
    case LBRL_ERR_NOT_FOUND:
        return "there is no such VIP";
    case LBRL_ERR_GEOMETRY:
        return "the arena has another size or version: make a new one and import the old";
    case LBRL_ERR_TOO_SMALL:
        return "the arena's memory is smaller than its configuration needs";
    case LBRL_ERR_IMMUTABLE:
        return "protocol, port, address family and forwarding of a VIP cannot change: remove it "
               "and "
               "make another";
    case LBRL_ERR_FRAMES:
        return "the frames object has other slots than the VIP, or fewer workers";
    case LBRL_ERR_VERSION:
        return "the arena is of a version that this one cannot read: go on with a new one";
    default:
        return "unknown error";
    }
}

/* ------------------------------------------------------------------------------- frames */

int lbrl_frames_bind(lbrl_t *lb, uint64_t vip_id, lbrl_frames_t *frames)
{
    uint32_t index = vip_index(lb, vip_id);
    if (index == UINT32_MAX) {
        return LBRL_ERR_NOT_FOUND;
    }
    vip_store_t *store = lb->stores[index];
    if (frames &&
        (frames->slots != lb->records[index].slots || frames->workers < lb->worker_count)) {
        return LBRL_ERR_FRAMES;
    }
    lbrl_frames_t *old = store->frames;
    for (uint32_t i = 0; frames && i < lb->records[index].slots; i++) {
        const slot_t *slot = &store->slots[i];
        bool active = frames->active[i / 64] >> i % 64 & 1;
        if (slot->state != SLOT_FREE && (!active || frames->generation[i] != slot->generation)) {
            lbrl_frames_slot_open(frames, i, slot->generation);
        } else if (slot->state == SLOT_FREE && active) {
            lbrl_frames_slot_close(frames, i);
        }
    }
    store->frames = frames;
    int error = sinks_publish(lb, index);
    if (error) {
        store->frames = old;
    }
    return error;
}

/* Sinks that point into old frames are retired with everything else, so an empty list of those says all. */
int lbrl_frames_released(const lbrl_t *lb, const lbrl_frames_t *frames)
{
    for (uint32_t i = 0; i < lb->arena.vip_count; i++) {
        if (lb->stores[i] && lb->stores[i]->frames == frames) {
            return 0;
        }
    }
    return lb->retired == NULL;
}

void lbrl_publish(lbrl_t *lb, uint64_t now_us)
{
    const lbrl_sink_t *sinks[LBRL_WORKERS_MAX];
    int64_t peers[VIP_SLOTS_MAX];
    for (uint32_t i = 0; i < lb->arena.vip_count; i++) {
        const vip_store_t *store = lb->stores[i];
        if (!store || !store->frames) {
            continue;
        }
        for (uint32_t w = 0; w < lb->worker_count; w++) {
            sinks[w] = store->workers[w].sink;
        }
        const bool shared = shared_view_fresh(store);
        for (uint32_t s = 0; shared && s < lb->records[i].slots; s++) {
            peers[s] = (int64_t)shared_view_flows(store, s);
        }
        lbrl_frames_publish(store->frames, sinks, lb->worker_count, shared ? peers : NULL,
                            store->actions_sequence, now_us);
    }
}

/* ------------------------------------------------------------------------------- status */

static int64_t counter_sum(const lbrl_t *lb, const vip_store_t *store, uint32_t slot,
                           lbrl_counter_t counter)
{
    int64_t sum = 0;
    for (uint32_t w = 0; w < lb->worker_count; w++) {
        sum += __atomic_load_n(&store->counters[w * VIP_SLOTS_MAX + slot].value[counter],
                               __ATOMIC_RELAXED);
    }
    return sum;
}

static void backend_status(const lbrl_t *lb, uint32_t index, uint32_t number,
                           lbrl_backend_status_t *status)
{
    const vip_store_t *store = lb->stores[index];
    const slot_t *slot = &store->slots[number];
    *status = (lbrl_backend_status_t){
        .id = slot->id,
        .port = swap16(slot->port),
        .slot = (uint16_t)number,
        .state = slot_reported(slot),
        .generation = slot->generation,
        .removed = slot->removed,
        .weight = slot->weight,
        .base = base_in_force(lb, store, number),
        .open_flows = counter_sum(lb, store, number, LBRL_COUNTER_N_FLOW_ON),
        .entries = slot_entries(lb, index, number),
        .flows = (uint64_t)counter_sum(lb, store, number, LBRL_COUNTER_N_FLOW),
        .packets = (uint64_t)counter_sum(lb, store, number, LBRL_COUNTER_PACKETS),
        .bytes = (uint64_t)counter_sum(lb, store, number, LBRL_COUNTER_BYTES)};
    memcpy(status->address.bytes, &slot->address, sizeof(status->address.bytes));
}

int lbrl_vip_status(const lbrl_t *lb, uint64_t vip_id, lbrl_vip_status_t *status,
                    lbrl_backend_status_t *backends, uint32_t max)
{
    uint32_t index = vip_index(lb, vip_id);
    if (index == UINT32_MAX) {
        return LBRL_ERR_NOT_FOUND;
    }
    const vip_store_t *store = lb->stores[index];
    *status = (lbrl_vip_status_t){.id = vip_id,
                                  .slots = lb->records[index].slots,
                                  .unrepresentable = store->unrepresentable,
                                  .removing = lb->records[index].state == VIP_REMOVING,
                                  .feature_level = lb->records[index].feature_level,
                                  .actions_sequence = store->actions_sequence,
                                  .frames = store->frames};
    for (uint32_t i = 0; i < status->slots; i++) {
        if (store->slots[i].state != SLOT_FREE) {
            if (status->backend_count < max) {
                backend_status(lb, index, i, &backends[status->backend_count]);
            }
            status->backend_count++;
        }
    }
    return LBRL_OK;
}

static lbrl_backend_config_t backend_config(const slot_t *slot)
{
    lbrl_backend_config_t config = {.id = slot->id,
                                    .port = swap16(slot->port),
                                    .state = slot->wanted,
                                    .weight = slot->configured};
    memcpy(config.address.bytes, &slot->address, sizeof(config.address.bytes));
    return config;
}

static uint8_t refusal_of(const arena_vip_t *record, uint8_t flag)
{
    return record->flags & flag ? LBRL_REFUSE_DROP : LBRL_REFUSE_REJECT;
}

int lbrl_vip_config(const lbrl_t *lb, uint64_t id, lbrl_vip_config_t *config,
                    lbrl_backend_config_t *backends, uint32_t max)
{
    uint32_t index = vip_index(lb, id);
    if (index == UINT32_MAX) {
        return LBRL_ERR_NOT_FOUND;
    }
    const arena_vip_t *record = &lb->records[index];
    *config = (lbrl_vip_config_t){.id = id,
                                  .port = swap16(record->port),
                                  .protocol = record->protocol,
                                  .client_affinity = (record->flags & VIP_CLIENT_AFFINITY) != 0,
                                  .when_no_backends = refusal_of(record, VIP_DROPS_UNSERVED),
                                  .when_no_flow = refusal_of(record, VIP_DROPS_STRANGERS),
                                  .scheduler = record->scheduler,
                                  .load = record->load,
                                  .feature_level = record->feature_level,
                                  .forwarding = record->forwarding,
                                  .dscp = record->dscp,
                                  .mtu = record->mtu,
                                  .table_size = record->table_size,
                                  .timeouts = record->timeouts,
                                  .drain_timeout = record->drain_timeout,
                                  .backends = backends};
    for (uint32_t i = 0; i < LBRL_ADDRESSES_MAX; i++) {
        if (!ip_is_zero(&record->addresses[i]) && (record->retired_addresses >> i & 1) == 0) {
            memcpy(config->addresses[config->address_count++].bytes, &record->addresses[i],
                   sizeof(config->addresses[0].bytes));
        }
    }
    for (uint32_t i = 0; record->state == VIP_LIVE && i < record->slots; i++) {
        const slot_t *slot = &lb->stores[index]->slots[i];
        if (slot->state != SLOT_FREE && !slot->removed && slot->id != 0) {
            if (config->backend_count < max) {
                backends[config->backend_count] = backend_config(slot);
            }
            config->backend_count++;
        }
    }
    return LBRL_OK;
}

uint32_t lbrl_vip_ids(const lbrl_t *lb, uint64_t *ids, uint32_t max)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < lb->arena.vip_count; i++) {
        if (lb->records[i].state != VIP_FREE) {
            if (found < max) {
                ids[found] = lb->records[i].id;
            }
            found++;
        }
    }
    return found;
}

static void add_worker(const worker_stats_t *from, lbrl_stats_t *stats)
{
    const struct {
        const uint64_t *from;
        uint64_t *to;
    } sums[] = {{&from->packets, &stats->packets},       {&from->bytes, &stats->bytes},
                {&from->forwarded, &stats->forwarded},   {&from->replied, &stats->replied},
                {&from->passed, &stats->passed},         {&from->handed_over, &stats->handed_over},
                {&from->created, &stats->flows_created}, {&from->recycled, &stats->flows_recycled},
                {&from->evicted, &stats->flows_evicted}};
    for (unsigned i = 0; i < sizeof(sums) / sizeof(sums[0]); i++) {
        *sums[i].to += __atomic_load_n(sums[i].from, __ATOMIC_RELAXED);
    }
    for (unsigned i = 0; i < LBRL_DROP_COUNT; i++) {
        stats->dropped[i] += __atomic_load_n(&from->dropped[i], __ATOMIC_RELAXED);
    }
}

void lbrl_stats(const lbrl_t *lb, lbrl_stats_t *stats)
{
    *stats = (lbrl_stats_t){.flow_capacity = lb->arena.flow_count};
    for (uint32_t i = 0; i < lb->worker_count; i++) {
        add_worker(&lb->workers[i].stats, stats);
    }
    for (uint32_t i = 0; i < LBRL_PARTITIONS; i++) {
        stats->flows += __atomic_load_n(&lb->partitions[i].used, __ATOMIC_RELAXED);
        stats->half_open += __atomic_load_n(&lb->partitions[i].half_open.count, __ATOMIC_RELAXED);
    }
}

/* ------------------------------------------------------------------------------- flows */

static void address_out(lbrl_address_t *to, const ip_t *from)
{
    memcpy(to->bytes, from, sizeof(to->bytes));
}

int lbrl_flow_next_before(const lbrl_t *lb, uint64_t *cursor, uint64_t end, uint64_t now_us,
                          lbrl_flow_info_t *info)
{
    const uint64_t last = end < lb->arena.flow_count ? end : lb->arena.flow_count;
    for (; *cursor < last; (*cursor)++) {
        const flow_t *flow = &lb->arena.flows[*cursor];
        const uint32_t index = flow->vip;
        if (flow->state == LBRL_FLOW_FREE || index >= lb->arena.vip_count || !lb->vips[index]) {
            continue;
        }
        const vip_t *vip = lb->vips[index];
        const slot_t *slot = &vip->slots[slot_of(flow)];
        *info = (lbrl_flow_info_t){.client_port = swap16(flow->client_port),
                                   .vip_port = swap16(vip->port),
                                   .backend_port = swap16(slot->port),
                                   .nat_port = swap16(flow->nat_port),
                                   .vip_id = lb->records[index].id,
                                   .slot = (uint16_t)slot_of(flow),
                                   .partition = (uint8_t)(*cursor / lb->partitions[0].flow_count),
                                   .protocol = vip->protocol,
                                   .state = flow->state,
                                   .open = (flow->flags & FLOW_OPEN) != 0,
                                   .idle_ms = (uint32_t)(now_us / 1000) - flow->last_ms};
        address_out(&info->client, &flow->client);
        address_out(&info->vip, &vip->addresses[address_of_vip(flow)]);
        address_out(&info->backend, &slot->address);
        address_out(&info->source, &lb->node.sources[source_of(flow)].address);
        (*cursor)++;
        return 1;
    }
    return 0;
}

int lbrl_flow_next(const lbrl_t *lb, uint64_t *cursor, uint64_t now_us, lbrl_flow_info_t *info)
{
    return lbrl_flow_next_before(lb, cursor, UINT64_MAX, now_us, info);
}
