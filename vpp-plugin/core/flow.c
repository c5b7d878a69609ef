#include "flow.h"

#include "pick.h"
#include "side.h"

enum {
    RESTING_TRIES = 16, /* ports in quarantine that a new flow looks at */
    HALF_OPEN_SEARCH =
        64, /* oldest half-open flows among which one of the same port map is looked for */
};

uint64_t flow_client_hash(const lbrl_key_t *key, const vip_t *vip, const flow_t *flow)
{
    return tuple_hash(key, &flow->client, &vip->addresses[flow->address], flow->client_port,
                      vip->port, vip->protocol);
}

uint64_t flow_server_hash(const lbrl_key_t *key, const vip_t *vip, const ip_t *source,
                          const flow_t *flow)
{
    const slot_t *slot = &vip->slots[flow->slot];
    return tuple_hash(key, &slot->address, source, slot->port, flow->nat_port, vip->protocol);
}

uint32_t flow_find(const lbrl_worker_t *worker, const partition_t *partition, const meta_t *meta)
{
    index_cursor_t cursor = index_find(flow_index(partition, meta), meta->hash);
    for (;;) {
        uint32_t entry = index_next(&cursor);
        if (entry == FLOW_NONE || flow_matches(worker->table, &partition->flows[entry], meta)) {
            return entry;
        }
    }
}

uint32_t flow_timeout(const vip_t *vip, const flow_t *flow)
{
    switch (flow->state) {
    case LBRL_FLOW_SYN:
    case LBRL_FLOW_SYN_ACK:
        return vip->timeouts.tcp_handshake;
    case LBRL_FLOW_ESTABLISHED:
        return vip->timeouts.tcp_established;
    case LBRL_FLOW_CLOSING:
        return flow->flags & FLOW_QUARANTINE ? QUARANTINE_MS : vip->timeouts.tcp_closing;
    case LBRL_FLOW_UDP_NEW:
        return vip->timeouts.udp_unreplied;
    case LBRL_FLOW_UDP_EXCHANGE:
        return vip->timeouts.udp_exchange;
    case LBRL_FLOW_UDP_STREAM:
        return vip->timeouts.udp_stream;
    default:
        return vip->timeouts.udp_dns_answered;
    }
}

/* ------------------------------------------------------------------------------- counts and lists */

static void count_open(lbrl_worker_t *worker, const flow_ref_t *ref, bool open)
{
    uint16_t slot = ref->flow->slot;
    int32_t change = open ? 1 : -1;
    ref->counts->load[slot] += change;
    if (worker->lb->worker_count > 1) {
        ref->counts->delta[slot] += change;
        ref->counts->dirty = 1;
    }
    ref->flow->flags =
        (uint8_t)(open ? ref->flow->flags | FLOW_OPEN : ref->flow->flags & ~FLOW_OPEN);
}

static void leave_counts(const lbrl_worker_t *worker, const flow_ref_t *ref)
{
    lbrl_sink_t *sink = sink_of(ref->counts);
    lbrl_sink_flow_close(sink, ref->flow->slot);
    if (side_is(sink)) {
        side_close(worker, sink, ref->flow);
    }
}

static flow_list_t *list_of(partition_t *partition, uint8_t state)
{
    return flow_is_half_open(state) ? &partition->half_open
           : flow_is_closed(state)  ? &partition->closed
                                    : NULL;
}

/* NULL where the flow has no NAT port. */
static port_map_t *map_of(const flow_ref_t *ref)
{
    return vip_is_one_way(ref->vip) ? NULL : ref->slot->endpoint->maps[ref->flow->source];
}

static uint32_t partition_number(const lbrl_worker_t *worker, const partition_t *partition)
{
    return (uint32_t)(partition - worker->lb->partitions);
}

static void leave_list(lbrl_worker_t *worker, const flow_ref_t *ref)
{
    flow_list_t *list = list_of(ref->partition, ref->flow->state);
    if (list) {
        list_unlink(ref->partition, list, ref->entry);
    }
    if (flow_is_half_open(ref->flow->state) && !vip_is_one_way(ref->vip)) {
        map_of(ref)->shares[partition_number(worker, ref->partition)].half_open--;
    }
}

void flow_move(lbrl_worker_t *worker, const flow_ref_t *ref, uint8_t state)
{
    flow_t *flow = ref->flow;
    if (list_of(ref->partition, flow->state) != list_of(ref->partition, state)) {
        leave_list(worker, ref);
        flow_list_t *list = list_of(ref->partition, state);
        if (list) {
            list_append(ref->partition, list, ref->entry);
        }
    }
    __atomic_store_n(&flow->state, state, __ATOMIC_RELEASE);
    bool open = !flow_is_closed(state);
    if (open != ((flow->flags & FLOW_OPEN) != 0)) {
        count_open(worker, ref, open);
        if (open) {
            lbrl_sink_flow_reopen(sink_of(ref->counts), flow->slot);
        } else {
            leave_counts(worker, ref);
        }
    }
}

static uint16_t port_of(const lbrl_worker_t *worker, const flow_t *flow)
{
    return port_index(&worker->table->sources[flow->source].is, swap16(flow->nat_port));
}

void flow_rest_port(lbrl_worker_t *worker, const flow_ref_t *ref)
{
    if (!(ref->flow->flags & FLOW_PORT_RETURNED)) {
        ref->flow->flags |= FLOW_PORT_RETURNED;
        port_return(map_of(ref), partition_number(worker, ref->partition),
                    (uint16_t)(port_of(worker, ref->flow) | PORT_RESTS));
    }
}

/* One writer; the control thread frees slot, address and source when the sums are 0. */
void flow_count_entry(lbrl_worker_t *worker, const flow_ref_t *ref, int32_t change)
{
    int32_t *cells[] = {&ref->counts->entries[ref->flow->slot],
                        &ref->counts->address_entries[ref->flow->address],
                        &worker->source_entries[ref->flow->source]};
    unsigned n = vip_is_one_way(ref->vip) ? 2 : 3;
    for (unsigned i = 0; i < n; i++) {
        __atomic_store_n(cells[i], *cells[i] + change, __ATOMIC_RELEASE);
    }
}

static void leave_server_side(lbrl_worker_t *worker, const flow_ref_t *ref)
{
    const flow_t *flow = ref->flow;
    const ip_t *source = &worker->table->sources[flow->source].is.address;
    index_remove(&ref->partition->index[BY_SERVER],
                 flow_server_hash(&worker->lb->key, ref->vip, source, flow), ref->entry);
    if (!(flow->flags & FLOW_PORT_RETURNED)) {
        port_return(map_of(ref), partition_number(worker, ref->partition), port_of(worker, flow));
    }
}

void flow_remove(lbrl_worker_t *worker, const flow_ref_t *ref)
{
    flow_t *flow = ref->flow;
    index_remove(&ref->partition->index[BY_CLIENT],
                 flow_client_hash(&worker->lb->key, ref->vip, flow), ref->entry);
    leave_list(worker, ref);
    if (!vip_is_one_way(ref->vip)) {
        leave_server_side(worker, ref);
    }
    if (flow->flags & FLOW_OPEN) {
        count_open(worker, ref, false);
        leave_counts(worker, ref);
    }
    __atomic_store_n(&flow->state, LBRL_FLOW_FREE, __ATOMIC_RELEASE);
    entry_release(ref->partition, ref->entry);
    worker->removals++;
    flow_count_entry(worker, ref, -1);
}

void flow_count_silence(lbrl_worker_t *worker, const flow_ref_t *ref, bool silent)
{
    count_open(worker, ref, !silent);
    if (silent) {
        leave_counts(worker, ref);
    } else {
        lbrl_sink_flow_reopen(sink_of(ref->counts), ref->flow->slot);
    }
}

/* ------------------------------------------------------------------------------- making room */

static void recycle(lbrl_worker_t *worker, partition_t *partition, uint32_t entry)
{
    flow_ref_t ref = flow_ref(worker, partition, entry);
    if (flow_is_half_open(ref.flow->state)) {
        count(&worker->stats.recycled, 1);
    }
    flow_remove(worker, &ref);
}

/* An entry for a new half-open flow. Room is made at the cost of half-open flows when they are many, of closed ones
 * when the partition is full, never of established ones. */
static uint32_t make_entry(lbrl_worker_t *worker, partition_t *partition)
{
    if (partition->half_open.count >= partition->half_open_max) {
        recycle(worker, partition, partition->half_open.head);
    }
    uint32_t entry = entry_take(partition);
    if (entry == FLOW_NONE) {
        uint32_t victim = partition->closed.head != FLOW_NONE ? partition->closed.head
                                                              : partition->half_open.head;
        if (victim == FLOW_NONE) {
            return FLOW_NONE;
        }
        recycle(worker, partition, victim);
        entry = entry_take(partition);
    }
    return entry;
}

bool flow_pressure(const partition_t *partition)
{
    return partition->half_open.count >= partition->half_open_max ||
           (partition->free_head == FLOW_NONE && partition->fresh == partition->flow_count &&
            partition->closed.head == FLOW_NONE);
}

/* Makes the oldest half-open flow that holds a port of this map give it back. */
static bool recycle_port(lbrl_worker_t *worker, partition_t *partition, const port_map_t *map)
{
    uint32_t entry = partition->half_open.head;
    for (unsigned i = 0; i < HALF_OPEN_SEARCH && entry != FLOW_NONE; i++) {
        flow_ref_t ref = flow_ref(worker, partition, entry);
        if (map_of(&ref) == map) {
            recycle(worker, partition, entry);
            return true;
        }
        entry = partition->links[entry].next;
    }
    return false;
}

/* The entry that keeps a resting port, or FLOW_NONE if it has gone. */
static uint32_t find_resting(const lbrl_worker_t *worker, const partition_t *partition,
                             const endpoint_t *endpoint, uint8_t source, uint16_t nat_port)
{
    meta_t meta = {.src = endpoint->address,
                   .dst = worker->table->sources[source].is.address,
                   .sport = endpoint->port,
                   .dport = nat_port,
                   .protocol = endpoint->protocol,
                   .flags = META_RETURN,
                   .source = source};
    meta.hash =
        tuple_hash(&worker->lb->key, &meta.src, &meta.dst, meta.sport, meta.dport, meta.protocol);
    return flow_find(worker, partition, &meta);
}

/* RFC 6191: a server in TIME-WAIT takes a SYN that is later than what it remembers. */
static bool may_wake(const flow_t *flow, const flow_birth_t *birth)
{
    return (flow->flags & FLOW_TIMESTAMPS) && birth->options.has_timestamp &&
           (int32_t)(birth->options.timestamp - flow->last_timestamp) > 0 &&
           (int32_t)(birth->sequence - flow->client_end) > 0;
}

/* A port of one map, as its number within the partition, or PORT_NONE. */
static uint16_t map_port(lbrl_worker_t *worker, partition_t *partition, const endpoint_t *endpoint,
                         uint8_t source, const flow_birth_t *birth)
{
    port_map_t *map = endpoint->maps[source];
    uint32_t number = partition_number(worker, partition);
    port_share_t *share = &map->shares[number];
    if (share->half_open >= port_half_open_max(map) && !recycle_port(worker, partition, map)) {
        return PORT_NONE;
    }
    for (unsigned tries = 0; tries < RESTING_TRIES; tries++) {
        uint16_t port = port_take(map, number);
        if (port == PORT_NONE) {
            return recycle_port(worker, partition, map)
                       ? port_take(map, number) & (uint16_t)~PORT_RESTS
                       : PORT_NONE;
        }
        if (LIKELY(!(port & PORT_RESTS))) {
            return port;
        }
        port &= (uint16_t)~PORT_RESTS;
        uint16_t nat_port = swap16(port_number(&worker->table->sources[source].is, number, port));
        uint32_t resting = find_resting(worker, partition, endpoint, source, nat_port);
        if (resting == FLOW_NONE) {
            return port;
        }
        if (may_wake(&partition->flows[resting], birth)) {
            recycle(worker, partition, resting);
            return port;
        }
        port_return(map, number, port | PORT_RESTS);
    }
    return PORT_NONE;
}

/* A port of any source of the family, beginning with one that depends on the flow. */
static uint16_t any_port(lbrl_worker_t *worker, partition_t *partition, const slot_t *slot,
                         const flow_birth_t *birth, uint8_t *source)
{
    const table_t *table = worker->table;
    bool v4 = ip_is_v4(&slot->address);
    for (uint32_t i = 0; i < table->source_count; i++) {
        uint8_t candidate = table->held[(i + (birth->meta->hash >> 40)) % table->source_count];
        const arena_source_t *is = &table->sources[candidate].is;
        if (is->state != SOURCE_ACTIVE || ip_is_v4(&is->address) != v4) {
            continue;
        }
        uint16_t port = map_port(worker, partition, slot->endpoint, candidate, birth);
        if (port != PORT_NONE) {
            *source = candidate;
            return port;
        }
    }
    return PORT_NONE;
}

/* ------------------------------------------------------------------------------- making */

static void write_entry(lbrl_worker_t *worker, flow_t *flow, const flow_birth_t *birth,
                        const flow_t *identity)
{
    bool tcp = birth->meta->protocol == PROTO_TCP;
    flow_t made = *identity;
    made.check = arena_flow_check(&worker->lb->key, &made);
    made.flags = FLOW_OPEN;
    made.scales = birth->options.scale;
    made.start_us = (uint32_t)worker->now_us;
    made.start_high = (uint8_t)(worker->now_us >> 32);
    made.last_ms = worker->now_ms;
    made.client_end = birth->sequence + 1 + birth->meta->payload;
    made.server_ack = birth->sequence;
    if (vip_is_one_way(birth->vip)) {
        /* what the server says is never seen: it may take all that a window can hold */
        made.server_window = UINT16_MAX;
        made.scales |= 14 << 4;
        made.flags |= birth->joined ? FLOW_JOINED | FLOW_COMPLETED : 0;
    }
    /* killed before the last store, the entry is free; after it, complete */
    *flow = made;
    __atomic_store_n(&flow->state, tcp ? LBRL_FLOW_SYN : LBRL_FLOW_UDP_NEW, __ATOMIC_RELEASE);
}

static uint8_t untracked(const vip_worker_t *counts, uint32_t slot, uint8_t reason)
{
    lbrl_sink_untracked(sink_of(counts), slot);
    return reason;
}

/* Makes the flow findable and counted. */
static void enter(lbrl_worker_t *worker, const flow_ref_t *ref, const flow_birth_t *birth)
{
    partition_t *partition = ref->partition;
    const flow_t *flow = ref->flow;
    index_add(&partition->index[BY_CLIENT], birth->meta->hash, ref->entry);
    list_append(partition, &partition->half_open, ref->entry);
    if (!vip_is_one_way(ref->vip)) {
        const ip_t *source = &worker->table->sources[flow->source].is.address;
        index_add(&partition->index[BY_SERVER],
                  flow_server_hash(&worker->lb->key, ref->vip, source, flow), ref->entry);
        map_of(ref)->shares[partition_number(worker, partition)].half_open++;
    }
    flow_count_entry(worker, ref, 1);
    lbrl_sink_t *sink = sink_of(ref->counts);
    lbrl_sink_flow_open(sink, flow->slot, ref->counts->load[flow->slot]);
    if (side_is(sink) && !birth->joined) {
        side_open(worker, sink, flow, birth);
    }
    count_open(worker, ref, true);
    count(&worker->stats.created, 1);
}

uint8_t flow_make(lbrl_worker_t *worker, partition_t *partition, const flow_birth_t *birth,
                  flow_ref_t *ref)
{
    const vip_t *vip = birth->vip;
    vip_worker_t *counts = &vip->workers[worker->index];
    uint32_t slot =
        birth->slot == LBRL_NO_SLOT ? pick_slot(worker, vip, counts, birth->meta) : birth->slot;
    if (slot == LBRL_NO_SLOT) {
        return LBRL_DROP_NO_BACKEND;
    }
    uint32_t entry = make_entry(worker, partition);
    if (entry == FLOW_NONE) {
        return untracked(counts, slot, LBRL_DROP_TABLE_FULL);
    }
    flow_t identity = {.client = birth->meta->src,
                       .client_port = birth->meta->sport,
                       .vip = vip->index,
                       .slot = (uint16_t)slot,
                       .vip_generation = vip->generation,
                       .slot_generation = vip->slots[slot].generation,
                       .address = birth->address};
    if (!vip_is_one_way(vip)) {
        uint16_t port = any_port(worker, partition, &vip->slots[slot], birth, &identity.source);
        if (port == PORT_NONE) {
            entry_release(partition, entry);
            return untracked(counts, slot, LBRL_DROP_NO_NAT_PORT);
        }
        identity.nat_port = swap16(port_number(&worker->table->sources[identity.source].is,
                                               partition_number(worker, partition), port));
    }
    write_entry(worker, &partition->flows[entry], birth, &identity);
    *ref = flow_ref(worker, partition, entry);
    enter(worker, ref, birth);
    return LBRL_DROP_NONE;
}
