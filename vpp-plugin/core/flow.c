#include "flow.h"

#include "allocate.h"
#include "pick.h"
#include "side.h"

uint64_t flow_client_hash(const lbrl_key_t *key, const vip_t *vip, const flow_t *flow)
{
    return tuple_hash(key, &flow->client, &vip->addresses[address_of_vip(flow)], flow->client_port,
                      vip->port, vip->protocol);
}

uint64_t flow_server_hash(const lbrl_key_t *key, const vip_t *vip, const ip_t *source,
                          const flow_t *flow)
{
    const slot_t *slot = &vip->slots[slot_of(flow)];
    /* nameless ones lie where no packet looks */
    const uint8_t protocol = flow_is_nameless(flow) ? 0 : vip->protocol;
    return tuple_hash(key, &slot->address, source, slot->port, flow->nat_port, protocol);
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

/* ------------------------------------------------------------------------------- counts and lists */

static void count_open(lbrl_worker_t *worker, const flow_ref_t *ref, bool open)
{
    uint16_t slot = ref->keep->slot;
    int32_t change = open ? 1 : -1;
    ref->counts->load[slot] += change;
    if (worker->lb->worker_count > 1) {
        ref->counts->delta[slot] += change;
        ref->counts->dirty = 1;
    }
    ref->flow->flags =
        (uint8_t)(open ? ref->flow->flags | FLOW_OPEN : ref->flow->flags & ~FLOW_OPEN);
    if (open) {
        keep_set(ref->keep, KEEP_OPEN);
    } else {
        keep_clear(ref->keep, KEEP_OPEN);
    }
}

static void leave_counts(const lbrl_worker_t *worker, const flow_ref_t *ref)
{
    lbrl_sink_t *sink = sink_of(ref->counts);
    lbrl_sink_flow_close(sink, ref->keep->slot, worker->now_us);
    if (side_is(sink)) {
        side_close(worker, sink, ref->flow);
    }
}

/* The list that flows of a state are in, as the bit that says so; 0: none. */
static uint8_t list_bit(uint8_t state)
{
    return flow_is_half_open(state) ? KEEP_HALF_OPEN : flow_is_closed(state) ? KEEP_CLOSED : 0;
}

static flow_list_t *list_of(partition_t *partition, uint8_t bits)
{
    return bits & KEEP_HALF_OPEN ? &partition->half_open
           : bits & KEEP_CLOSED  ? &partition->closed
                                 : NULL;
}

/* Puts an entry that is in no list into that of a state. */
static void join_list(partition_t *partition, uint32_t entry, uint8_t state)
{
    flow_keep_t *keep = &partition->keeps[entry];
    keep_set(keep, list_bit(state));
    flow_list_t *list = list_of(partition, keep->bits);
    if (list) {
        list_append(partition, list, entry);
    }
}

static void count_half_open(lbrl_worker_t *worker, const flow_ref_t *ref, int32_t change)
{
    ref->counts->held_half_open += change;
    worker->half_open += change;
}

static void leave_list(lbrl_worker_t *worker, const flow_ref_t *ref)
{
    flow_list_t *list = list_of(ref->partition, ref->keep->bits);
    if (list) {
        list_unlink(ref->partition, list, ref->entry);
    }
    if (ref->keep->bits & KEEP_HALF_OPEN) {
        count_half_open(worker, ref, -1);
        if (!vip_is_one_way(ref->vip)) {
            flow_port_map(ref)->shares[partition_number(worker, ref->partition)].half_open--;
        }
    }
    keep_clear(ref->keep, KEEP_HALF_OPEN | KEEP_CLOSED);
}

void flow_fetch_move(const lbrl_worker_t *worker, const partition_t *partition, const flow_t *flow)
{
    const vip_t *vip = vip_of(worker->table, flow);
    if (UNLIKELY(!vip)) {
        return;
    }
    const lbrl_sink_t *sink = sink_of(&vip->workers[worker->index]);
    lbrl_sink_prefetch_flow(sink, slot_in(sink, flow));
    __builtin_prefetch(&partition->keeps[flow - partition->flows], 1);
    const endpoint_t *endpoint = vip->slots[slot_of(flow)].endpoint;
    const port_map_t *map = endpoint ? endpoint->maps[source_of(flow)] : NULL;
    if (map) { /* else one-way */
        __builtin_prefetch(&map->shares[partition_number(worker, partition)], 1);
    }
}

void flow_set_open(lbrl_worker_t *worker, const flow_ref_t *ref, bool open)
{
    if (open == ((ref->keep->bits & KEEP_OPEN) != 0)) {
        return;
    }
    count_open(worker, ref, open);
    if (open) {
        lbrl_sink_flow_reopen(sink_of(ref->counts), ref->keep->slot, worker->now_us);
    } else {
        leave_counts(worker, ref);
    }
}

void flow_move(lbrl_worker_t *worker, const flow_ref_t *ref, uint8_t state)
{
    if ((ref->keep->bits & (KEEP_HALF_OPEN | KEEP_CLOSED)) != list_bit(state)) {
        leave_list(worker, ref);
        join_list(ref->partition, ref->entry, state);
    }
    __atomic_store_n(&ref->flow->state, state, __ATOMIC_RELEASE);
    flow_set_open(worker, ref, !flow_is_closed(state));
}

static uint16_t port_of(const lbrl_worker_t *worker, const flow_keep_t *keep)
{
    return port_index(&worker->table->sources[keep->source].is, swap16(keep->nat_port));
}

void flow_rest_port(lbrl_worker_t *worker, const flow_ref_t *ref)
{
    if (!(ref->keep->bits & KEEP_PORT_RETURNED)) {
        keep_set(ref->keep, KEEP_PORT_RETURNED);
        ref->flow->flags |= FLOW_PORT_RETURNED;
        port_return(flow_port_map(ref), partition_number(worker, ref->partition),
                    (uint16_t)(port_of(worker, ref->keep) | PORT_RESTS));
    }
}

/* One writer; the control thread frees slot, address and source when the sums are 0. */
void flow_count_entry(lbrl_worker_t *worker, const flow_ref_t *ref, int32_t change)
{
    int32_t *cells[] = {&ref->counts->entries[ref->keep->slot],
                        &ref->counts->address_entries[ref->keep->address],
                        &worker->source_entries[ref->keep->source]};
    unsigned n = vip_is_one_way(ref->vip) ? 2 : 3;
    for (unsigned i = 0; i < n; i++) {
        __atomic_store_n(cells[i], *cells[i] + change, __ATOMIC_RELEASE);
    }
    ref->counts->held += change;
}

void flow_prepare_removal(const lbrl_worker_t *worker, const flow_ref_t *ref)
{
    __builtin_prefetch(index_home(&ref->partition->index[BY_CLIENT], ref->keep->client_hash), 1);
    if (!vip_is_one_way(ref->vip)) {
        __builtin_prefetch(index_home(&ref->partition->index[BY_SERVER], ref->keep->server_hash),
                           1);
    }
    flow_fetch_move(worker, ref->partition, ref->flow);
}

void flow_remove(lbrl_worker_t *worker, const flow_ref_t *ref)
{
    flow_keep_t *keep = ref->keep;
    index_remove(&ref->partition->index[BY_CLIENT], keep->client_hash, ref->entry);
    leave_list(worker, ref);
    if (!vip_is_one_way(ref->vip)) {
        index_remove(&ref->partition->index[BY_SERVER], keep->server_hash, ref->entry);
        if (!(keep->bits & KEEP_PORT_RETURNED)) {
            port_return(flow_port_map(ref), partition_number(worker, ref->partition),
                        port_of(worker, keep));
        }
    }
    if (keep->bits & KEEP_OPEN) {
        count_open(worker, ref, false);
        leave_counts(worker, ref);
    }
    __atomic_store_n(&ref->flow->state, LBRL_FLOW_FREE, __ATOMIC_RELEASE);
    keep->bits = 0;
    entry_release(ref->partition, ref->entry);
    worker->removals++;
    flow_count_entry(worker, ref, -1);
}

void flow_keep(partition_t *partition, uint32_t entry, const flow_keep_t *keep, uint8_t state)
{
    partition->keeps[entry] = *keep;
    keep_set(&partition->keeps[entry], KEEP_USED);
    join_list(partition, entry, state);
}

/* Replaces the client of an entry that is in neither index by one that has no packets: the address that is none, and a port by
 * which the entry stays in its partition. */
static void forget_client(const lbrl_worker_t *worker, const flow_ref_t *ref)
{
    flow_t *flow = ref->flow;
    flow_keep_t *keep = ref->keep;
    const uint32_t partition = partition_number(worker, ref->partition);
    const ip_t nobody = {{0}};
    uint16_t port = keep->nat_port;
    do {
        keep->client_hash =
            tuple_hash(&worker->lb->key, &nobody, &ref->vip->addresses[keep->address], ++port,
                       ref->vip->port, ref->vip->protocol);
    } while ((keep->client_hash & (LBRL_PARTITIONS - 1)) != partition);
    const ip_t *source = &worker->table->sources[keep->source].is.address;
    keep->server_hash = tuple_hash(&worker->lb->key, &ref->slot->address, source, ref->slot->port,
                                   keep->nat_port, 0);
    /* killed meanwhile, the entry is free */
    __atomic_store_n(&flow->state, LBRL_FLOW_FREE, __ATOMIC_RELEASE);
    flow->client = nobody;
    flow->client_port = port;
    flow->check = arena_flow_check(&worker->lb->key, flow);
    flow->flags &= (uint8_t)~(FLOW_CLIENT_FIN | FLOW_SERVER_FIN); /* nameless from here on */
    __atomic_store_n(&flow->state, LBRL_FLOW_CLOSING, __ATOMIC_RELEASE);
}

void flow_make_way(lbrl_worker_t *worker, const flow_ref_t *ref)
{
    if (vip_is_one_way(ref->vip) || !flow_server_closed_first(ref->vip, ref->flow)) {
        flow_remove(worker, ref);
        return;
    }
    if (!(ref->keep->bits & KEEP_PORT_RETURNED)) { /* the client never answered the server's FIN */
        ref->flow->flags |= FLOW_QUARANTINE;
        ref->flow->last_ms = worker->now_ms;
        flow_rest_port(worker, ref);
    }
    index_remove(&ref->partition->index[BY_CLIENT], ref->keep->client_hash, ref->entry);
    index_remove(&ref->partition->index[BY_SERVER], ref->keep->server_hash, ref->entry);
    forget_client(worker, ref);
    index_add(&ref->partition->index[BY_CLIENT], ref->keep->client_hash, ref->entry);
    index_add(&ref->partition->index[BY_SERVER], ref->keep->server_hash, ref->entry);
    worker->removals++;
}

/* ------------------------------------------------------------------------------- making */

/* What a new flow has got. */
typedef struct birthright {
    uint16_t slot;
    uint16_t nat_port; /* network order */
    uint8_t source;
    uint64_t server_hash;
} birthright_t;

static void write_entry(lbrl_worker_t *worker, flow_t *flow, const flow_birth_t *birth,
                        const birthright_t *right)
{
    const vip_t *vip = birth->vip;
    const meta_t *meta = birth->meta;
    const uint8_t slot_generation = vip->slots[right->slot].generation;
    const uint64_t ports = arena_word(meta->sport, right->nat_port, vip->index, right->slot);
    const uint32_t rest = (uint32_t)vip->generation | (uint32_t)slot_generation << 8 |
                          (uint32_t)right->source << 16 | (uint32_t)birth->address << 24;
    bool one_way = vip_is_one_way(vip);
    flow->client = meta->src;
    flow->client_port = meta->sport;
    flow->nat_port = right->nat_port;
    flow->vip = vip->index;
    flow->slot = right->slot;
    flow->vip_generation = vip->generation;
    flow->slot_generation = slot_generation;
    flow->source = right->source;
    flow->address = birth->address;
    flow->check = arena_identity_check(&worker->lb->key, &meta->src, ports, rest);
    flow->flags =
        (uint8_t)(FLOW_OPEN | (one_way && birth->joined ? FLOW_JOINED | FLOW_COMPLETED : 0));
    flow->start_us = (uint32_t)worker->now_us;
    flow->start_high = (uint8_t)(worker->now_us >> 32);
    flow->last_ms = worker->now_ms;
    flow->client_end = birth->sequence + 1 + meta->payload;
    flow->server_end = 0;
    flow->client_ack = 0;
    flow->server_ack = birth->sequence;
    flow->client_window = 0;
    /* one-way: what the server says is never seen, it may take all that a window can hold */
    flow->server_window = one_way ? UINT16_MAX : 0;
    flow->scales = (uint8_t)(birth->options.scale | (one_way ? 14 << 4 : 0));
    /* killed before this store, the entry is free; after it, complete */
    __atomic_store_n(&flow->state, meta->protocol == PROTO_TCP ? LBRL_FLOW_SYN : LBRL_FLOW_UDP_NEW,
                     __ATOMIC_RELEASE);
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
    join_list(partition, ref->entry, LBRL_FLOW_SYN);
    if (!vip_is_one_way(ref->vip)) {
        index_add(&partition->index[BY_SERVER], ref->keep->server_hash, ref->entry);
        flow_port_map(ref)->shares[partition_number(worker, partition)].half_open++;
    }
    flow_count_entry(worker, ref, 1);
    count_half_open(worker, ref, 1);
    lbrl_sink_t *sink = sink_of(ref->counts);
    const uint16_t slot = ref->keep->slot;
    lbrl_sink_flow_open(sink, slot, ref->counts->load[slot], worker->now_us);
    if (side_is(sink) && !birth->joined) {
        side_open(worker, sink, flow, birth);
    }
    count_open(worker, ref, true);
    count(&worker->stats.created, 1);
}

/* Takes a NAT port and fetches the place in the index that goes with it; false if there is none. */
static bool take_port(lbrl_worker_t *worker, partition_t *partition, const flow_birth_t *birth,
                      birthright_t *right)
{
    const slot_t *slot = &birth->vip->slots[right->slot];
    uint16_t port = allocate_port(worker, partition, slot, birth, &right->source);
    if (port == PORT_NONE) {
        return false;
    }
    const arena_source_t *source = &worker->table->sources[right->source].is;
    right->nat_port = swap16(port_number(source, partition_number(worker, partition), port));
    right->server_hash = tuple_hash(&worker->lb->key, &slot->address, &source->address, slot->port,
                                    right->nat_port, birth->vip->protocol);
    __builtin_prefetch(index_home(&partition->index[BY_SERVER], right->server_hash), 1);
    return true;
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
    lbrl_sink_prefetch_flow(sink_of(counts), slot);
    uint32_t entry = allocate_entry(worker, partition, vip);
    if (entry == FLOW_NONE) {
        return untracked(counts, slot, LBRL_DROP_TABLE_FULL);
    }
    birthright_t right = {.slot = (uint16_t)slot};
    worker->ports_rest = worker->ports_spent = 0;
    if (!vip_is_one_way(vip) && !take_port(worker, partition, birth, &right)) {
        entry_release(partition, entry);
        return untracked(counts, slot, LBRL_DROP_NO_NAT_PORT);
    }
    write_entry(worker, &partition->flows[entry], birth, &right);
    partition->keeps[entry] = (flow_keep_t){.client_hash = birth->meta->hash,
                                            .server_hash = right.server_hash,
                                            .vip = vip->index,
                                            .slot = right.slot,
                                            .nat_port = right.nat_port,
                                            .source = right.source,
                                            .address = birth->address & (LBRL_ADDRESSES_MAX - 1u),
                                            .bits = KEEP_USED};
    *ref = flow_ref(worker, partition, entry);
    enter(worker, ref, birth);
    return LBRL_DROP_NONE;
}
