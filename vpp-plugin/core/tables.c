/* What workers see, built privately and published by pointer. */
#include "control.h"
#include "vipmap.h"

/* ------------------------------------------------------------------------------- VIPs and the map of destinations */

vip_t *vip_make(const lbrl_t *lb, uint32_t index)
{
    const arena_vip_t *record = &lb->records[index];
    vip_store_t *store = lb->stores[index];
    vip_t *vip = memory_take(sizeof(*vip));
    if (!vip) {
        return NULL;
    }
    vip->generation = record->generation;
    vip->protocol = record->protocol;
    vip->flags = record->flags;
    vip->refuses = record->state != VIP_LIVE;
    vip->port = record->port;
    vip->index = (uint16_t)index;
    vip->slots = store->slots;
    vip->workers = store->workers;
    vip->store = store;
    const lbrl_timeouts_t *t = &record->timeouts;
    const uint32_t timeouts[LBRL_FLOW_STATES] = {[LBRL_FLOW_SYN] = t->tcp_handshake,
                                                 [LBRL_FLOW_SYN_ACK] = t->tcp_handshake,
                                                 [LBRL_FLOW_ESTABLISHED] = t->tcp_established,
                                                 [LBRL_FLOW_CLOSING] = t->tcp_closing,
                                                 [LBRL_FLOW_UDP_NEW] = t->udp_unreplied,
                                                 [LBRL_FLOW_UDP_EXCHANGE] = t->udp_exchange,
                                                 [LBRL_FLOW_UDP_STREAM] = t->udp_stream,
                                                 [LBRL_FLOW_UDP_ANSWERED] = t->udp_dns_answered};
    memcpy(vip->timeout_of, timeouts, sizeof(timeouts));
    vip->forwarding = record->forwarding;
    vip->dscp = record->dscp;
    vip->mtu = record->mtu ? record->mtu : TUNNEL_MTU;
    vip->slot_count = record->slots;
    vip->dns = record->protocol == PROTO_UDP && record->port == swap16(53);
    vip->counts_busy = record->load == LBRL_LOAD_ACTIVE && record->protocol == PROTO_TCP &&
                       record->feature_level == LBRL_LEVEL_FULL;
    vip->retired_addresses = record->retired_addresses;
    for (uint32_t i = 0; i < LBRL_ADDRESSES_MAX; i++) {
        vip->addresses[i] = record->addresses[i];
        vip->sums[i] = sum_ip(&record->addresses[i]);
    }
    return vip;
}

static bool has_address(const vip_t *vip, uint32_t i)
{
    return !ip_is_zero(&vip->addresses[i]) && !(vip->retired_addresses >> i & 1);
}

static void map_add(vip_map_t *map, const vip_place_t *place)
{
    if (vip_map_find(map, &place->address, place->port, place->protocol)) {
        return;
    }
    uint32_t at = vip_map_home(map, &place->address, place->port, place->protocol);
    while (map->places[at].used) {
        at = (at + 1) & map->mask;
    }
    map->places[at] = *place;
    map->places[at].used = 1;
}

/* Adds VIPs that take flows, or those that refuse them: where both have an address and port, the first come wins. */
static void map_add_vips(const lbrl_t *lb, vip_map_t *map, bool refusing)
{
    for (uint32_t v = 0; v < lb->arena.vip_count; v++) {
        const vip_t *vip = lb->vips[v];
        for (uint32_t i = 0; vip && vip->refuses == refusing && i < LBRL_ADDRESSES_MAX; i++) {
            if (has_address(vip, i)) {
                vip_place_t place = {vip->addresses[i], vip->port,  vip->index,
                                     vip->protocol,     (uint8_t)i, 1};
                map_add(map, &place);
                vip_place_t address = {.address = vip->addresses[i]};
                map_add(map, &address);
            }
        }
    }
}

static vip_map_t *map_make(const lbrl_t *lb)
{
    uint32_t places = 16;
    for (uint32_t v = 0; v < lb->arena.vip_count; v++) {
        for (uint32_t i = 0; lb->vips[v] && i < LBRL_ADDRESSES_MAX; i++) {
            places += has_address(lb->vips[v], i) ? 4 : 0; /* two each, at most half full */
        }
    }
    uint32_t size = 16;
    while (size < places) {
        size *= 2;
    }
    vip_map_t *map = memory_take(sizeof(*map) + size * sizeof(map->places[0]));
    if (map) {
        map->mask = size - 1;
        map_add_vips(lb, map, false);
        map_add_vips(lb, map, true);
    }
    return map;
}

/* ------------------------------------------------------------------------------- the table */

static void table_sources(const lbrl_t *lb, table_t *table)
{
    uint16_t first = UINT16_MAX;
    uint16_t last = 0;
    for (uint32_t i = 0; i < SOURCES_HELD; i++) {
        const arena_source_t *source = &lb->node.sources[i];
        table->sources[i].is = *source;
        table->sources[i].sum = sum_ip(&source->address);
        table->sources[i].half_open_max = port_half_open_max(source);
        if (source->state == SOURCE_ACTIVE || source->state == SOURCE_RETIRED) {
            table->held[table->source_count++] = (uint8_t)i;
            table->retiring |= source->state == SOURCE_RETIRED;
            ip_t *outer = &table->tunnel_sources[!ip_is_v4(&source->address)];
            if (source->state == SOURCE_ACTIVE && ip_is_zero(outer)) {
                *outer = source->address;
            }
            first = source->port_first < first ? source->port_first : first;
            last = source->port_last > last ? source->port_last : last;
        }
    }
    table->return_first = first;
    table->return_span = table->source_count ? (uint16_t)(last - first) : 0;
}

/* What a worker can hold, divided by the VIPs that there are. */
static void table_shares(const lbrl_t *lb, table_t *table)
{
    uint32_t live = 0;
    for (uint32_t i = 0; i < table->vip_count; i++) {
        live += table->vips[i] != NULL;
    }
    const uint32_t partitions = LBRL_PARTITIONS / lb->worker_count; /* at least, of a worker */
    const uint32_t parts = live ? live : 1;
    table->share = (int32_t)(lb->partition_flows * partitions / parts);
    table->half_open_share = (int32_t)(lb->partitions[0].half_open_max * partitions / parts);
}

int table_publish(lbrl_t *lb, bool remap)
{
    uint32_t vips = lb->arena.vip_count;
    table_t *table = memory_take(sizeof(*table) + vips * sizeof(table->vips[0]));
    const vip_map_t *map = remap || !lb->table ? map_make(lb) : lb->table->map;
    if (!table || !map) {
        memory_free(table);
        if (map && (!lb->table || map != lb->table->map)) {
            memory_free((void *)(uintptr_t)map);
        }
        return LBRL_ERR_MEMORY;
    }
    table->map = map;
    memcpy(table->vips, lb->vips, vips * sizeof(table->vips[0]));
    table->vip_count = vips;
    table->shared = lb->node.nodes > 1;
    table_shares(lb, table);
    table_sources(lb, table);
    const table_t *old = lb->table;
    __atomic_store_n(&lb->table, table, __ATOMIC_SEQ_CST);
    if (old) {
        if (old->map != map) {
            retire(lb, old->map);
        }
        retire(lb, old);
    }
    return LBRL_OK;
}

/* ------------------------------------------------------------------------------- schedulers */

enum { SCHEDULE_TAIL = 64 }; /* where table or picker begins */

static_assert(SCHEDULE_TAIL % LBRL_PICKER_ALIGNMENT == 0 && sizeof(schedule_t) <= SCHEDULE_TAIL,
              "the tail of a schedule is aligned");

static void *schedule_tail(schedule_t *schedule)
{
    return (uint8_t *)schedule + SCHEDULE_TAIL;
}

static bool picks(const slot_t *slot)
{
    return slot->state == SLOT_ACTIVE && slot->weight > 0;
}

/* `configured`: from configured weights instead of those in force. */
static int build_maglev(const lbrl_t *lb, uint32_t index, schedule_t *schedule, bool configured)
{
    const vip_store_t *store = lb->stores[index];
    uint32_t slots = lb->records[index].slots;
    lbrl_maglev_backend_t *backends = memory_take(slots * sizeof(*backends));
    if (!backends) {
        return LBRL_ERR_MEMORY;
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < slots; i++) {
        const slot_t *slot = &store->slots[i];
        float weight = configured ? slot->configured : slot->weight;
        if (configured ? slot->fallback : picks(slot)) {
            backends[n++] = (lbrl_maglev_backend_t){slot->id, (double)weight, i};
        }
    }
    int result = lbrl_maglev_build(schedule->table, schedule->table_size, backends, n,
                                   lb->node.scheduler_key);
    memory_free(backends);
    return result < 0 ? LBRL_ERR_MEMORY : result;
}

static schedule_t *maglev_take(const lbrl_t *lb, uint32_t table_size)
{
    schedule_t *schedule = memory_take(SCHEDULE_TAIL + table_size * sizeof(uint32_t));
    if (schedule) {
        schedule->key = lbrl_key_load(lb->node.scheduler_key);
        schedule->table_size = table_size;
        schedule->table = schedule_tail(schedule);
    }
    return schedule;
}

/* All that a fallback table is made from, in one number. */
static uint64_t fallback_state(const lbrl_t *lb, uint32_t index)
{
    lbrl_key_t key = lbrl_key_load(lb->node.scheduler_key);
    lbrl_sip_t state;
    lbrl_sip_begin(&state, &key);
    lbrl_sip_word(&state, lb->records[index].table_size);
    for (uint32_t i = 0; i < lb->records[index].slots; i++) {
        const slot_t *slot = &lb->stores[index]->slots[i];
        if (slot->fallback) {
            uint32_t weight;
            memcpy(&weight, &slot->configured, sizeof(weight));
            lbrl_sip_word(&state, slot->id);
            lbrl_sip_word(&state, (uint64_t)i << 32 | weight);
        }
    }
    return lbrl_sip_end(&state) | 1; /* 0: none yet */
}

/* One-way VIPs: where packets without a flow go, whatever policies say. Rebuilt only when its grounds have changed. */
static int fallback_publish(lbrl_t *lb, uint32_t index)
{
    vip_store_t *store = lb->stores[index];
    uint64_t state = fallback_state(lb, index);
    if (lb->records[index].forwarding == LBRL_FORWARD_NAT || state == store->fallback_state) {
        return LBRL_OK;
    }
    schedule_t *fallback = maglev_take(lb, lb->records[index].table_size);
    int result = fallback ? build_maglev(lb, index, fallback, true) : LBRL_ERR_MEMORY;
    if (result < 0) {
        memory_free(fallback);
        return result;
    }
    const schedule_t *old = store->fallback;
    store->fallback_state = state;
    __atomic_store_n(&store->fallback, fallback, __ATOMIC_SEQ_CST);
    retire(lb, old);
    return LBRL_OK;
}

static lbrl_picker_kind_t picker_kind(uint8_t scheduler, bool orphaned)
{
    static const lbrl_picker_kind_t kinds[LBRL_SCHEDULER_COUNT] = {
        [LBRL_SCHEDULER_SED] = LBRL_PICKER_SED,
        [LBRL_SCHEDULER_LSQ] = LBRL_PICKER_LSQ,
        [LBRL_SCHEDULER_ALIAS] = LBRL_PICKER_ALIAS,
        [LBRL_SCHEDULER_P2C] = LBRL_PICKER_P2C};
    return orphaned ? LBRL_PICKER_LSQ : kinds[scheduler];
}

static void build_picker(const lbrl_t *lb, uint32_t index, schedule_t *schedule,
                         lbrl_picker_kind_t kind)
{
    const vip_store_t *store = lb->stores[index];
    uint32_t slots = lb->records[index].slots;
    float weights[VIP_SLOTS_MAX], bases[VIP_SLOTS_MAX];
    uint64_t eligible[VIP_SLOTS_MAX / 64] = {0};
    for (uint32_t i = 0; i < slots; i++) {
        weights[i] = store->slots[i].weight;
        bases[i] = base_in_force(lb, store, i);
        eligible[i / 64] |= (uint64_t)picks(&store->slots[i]) << i % 64;
    }
    schedule->picker = lbrl_picker_build(schedule_tail(schedule), kind, weights, bases, eligible,
                                         slots, common_base(lb));
}

/* Affinity needs a consistent hash whatever the scheduler; an agent that is gone for good leaves least-loaded. */
int schedule_publish(lbrl_t *lb, uint32_t index)
{
    const arena_vip_t *record = &lb->records[index];
    vip_store_t *store = lb->stores[index];
    bool orphaned = store->orphan_steps == ORPHAN_STEPS;
    bool maglev = (record->flags & VIP_CLIENT_AFFINITY) ||
                  (record->scheduler == LBRL_SCHEDULER_MAGLEV && !orphaned);
    int error = fallback_publish(lb, index);
    if (error) {
        return error;
    }
    schedule_t *schedule = maglev ? maglev_take(lb, record->table_size)
                                  : memory_take(SCHEDULE_TAIL + lbrl_picker_size(record->slots));
    if (!schedule) {
        return LBRL_ERR_MEMORY;
    }
    store->unrepresentable = 0;
    if (maglev) {
        int result = build_maglev(lb, index, schedule, false);
        if (result < 0) {
            memory_free(schedule);
            return result;
        }
        store->unrepresentable = (uint32_t)result;
    } else {
        build_picker(lb, index, schedule, picker_kind(record->scheduler, orphaned));
    }
    const schedule_t *old = store->schedule;
    __atomic_store_n(&store->schedule, schedule, __ATOMIC_SEQ_CST);
    retire(lb, old);
    uint64_t epoch = epoch_next(lb);
    for (uint32_t i = 0; i < record->slots; i++) {
        if (store->slots[i].state != SLOT_ACTIVE && !store->slots[i].free_pending) {
            store->slots[i].epoch = epoch; /* from here on nobody picks it */
        }
    }
    return LBRL_OK;
}

/* ------------------------------------------------------------------------------- stores and sinks */

static void *carve(uint8_t **at, size_t size)
{
    void *memory = *at;
    *at += (size + 63) / 64 * 64;
    return memory;
}

vip_store_t *store_make(const lbrl_t *lb)
{
    uint32_t workers = lb->worker_count;
    size_t columns = VIP_SLOTS_MAX * sizeof(int32_t);
    size_t size = sizeof(vip_store_t) + VIP_SLOTS_MAX * sizeof(slot_t) + columns +
                  workers * (sizeof(vip_worker_t) + VIP_SLOTS_MAX * sizeof(lbrl_slot_counters_t) +
                             5 * columns) +
                  (size_t)64 * (4 + 6 * workers);
    uint8_t *memory = memory_take_sparse(size);
    if (!memory) {
        return NULL;
    }
    uint8_t *at = memory;
    vip_store_t *store = carve(&at, sizeof(*store));
    store->slots = carve(&at, VIP_SLOTS_MAX * sizeof(slot_t));
    store->total = carve(&at, columns);
    store->workers = carve(&at, workers * sizeof(vip_worker_t));
    store->counters = carve(&at, workers * VIP_SLOTS_MAX * sizeof(lbrl_slot_counters_t));
    for (uint32_t i = 0; i < workers; i++) {
        store->workers[i].load = carve(&at, columns);
        store->workers[i].delta = carve(&at, columns);
        store->workers[i].entries = carve(&at, columns);
        store->workers[i].busy = carve(&at, columns);
        store->workers[i].busy_all = workers > 1 ? carve(&at, columns) : store->workers[i].busy;
    }
    return store;
}

static lbrl_sink_t *sink_make(lbrl_t *lb, uint32_t index, uint32_t worker)
{
    const arena_vip_t *record = &lb->records[index];
    vip_store_t *store = lb->stores[index];
    lbrl_sink_t *sink = memory_take(sizeof(*sink));
    if (!sink) {
        return NULL;
    }
    if (lbrl_sink_init(sink, &store->counters[worker * VIP_SLOTS_MAX], record->slots,
                       (lbrl_level_t)record->feature_level, store->frames, worker,
                       random_next(&lb->random)) != 0) {
        memory_free(sink);
        return NULL;
    }
    sink->one_way = record->forwarding != LBRL_FORWARD_NAT;
    sink->era = store->era;
    return sink;
}

int sinks_publish(lbrl_t *lb, uint32_t index)
{
    vip_store_t *store = lb->stores[index];
    lbrl_sink_t *made[LBRL_WORKERS_MAX];
    const lbrl_sink_t *before = store->workers[0].sink;
    if (!before || before->level != lb->records[index].feature_level) {
        store->era = (uint8_t)(store->era % 255 + 1);
    }
    for (uint32_t i = 0; i < lb->worker_count; i++) {
        made[i] = sink_make(lb, index, i);
        if (!made[i]) {
            while (i > 0) {
                memory_free(made[--i]);
            }
            return LBRL_ERR_MEMORY;
        }
    }
    for (uint32_t i = 0; i < lb->worker_count; i++) {
        lbrl_sink_t *old = store->workers[i].sink;
        __atomic_store_n(&store->workers[i].sink, made[i], __ATOMIC_SEQ_CST);
        retire(lb, old);
    }
    return LBRL_OK;
}
