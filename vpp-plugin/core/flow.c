#include "flow.h"

#include "allocate.h"
#include "pick.h"
#include "side.h"

enum {
    RESTING_TRIES = 64,    /* resting ports that a new flow looks at: a quarter of them fit */
    HOLDERS_SEARCHED = 64, /* oldest flows of a list searched for one of the same port map */
    IDLE_SEARCHED = 128,   /* entries searched for the open flow that has been silent for longest */
};

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
    lbrl_sink_flow_close(sink, ref->keep->slot);
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
    lbrl_sink_prefetch(sink, slot_in(sink, flow));
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
        lbrl_sink_flow_reopen(sink_of(ref->counts), ref->keep->slot);
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

/* ------------------------------------------------------------------------------- making room */

static void recycle(lbrl_worker_t *worker, partition_t *partition, uint32_t entry)
{
    flow_ref_t ref = flow_ref(worker, partition, entry);
    if (ref.keep->bits & KEEP_HALF_OPEN) {
        count(&worker->stats.recycled, 1);
    }
    flow_remove(worker, &ref);
}

/* Which flows have to make room for a new one. */
typedef struct need {
    const vip_t *vip;      /* that gets the new flow */
    const port_map_t *map; /* only flows with a port of it; NULL: all */
} need_t;

/* Whether a VIP holds more than its share, and more than the VIP that needs room: its flows go first, so that each VIP gets its
 * share whatever others hold (max-min fairness). */
static bool is_above_share(const lbrl_worker_t *worker, const vip_t *vip, const vip_t *needs)
{
    const int32_t held = vip->workers[worker->index].held;
    return vip != needs && held > worker->table->share && held > needs->workers[worker->index].held;
}

static bool is_above_half_open_share(const lbrl_worker_t *worker, const vip_t *vip,
                                     const vip_t *needs)
{
    const int32_t held = vip->workers[worker->index].held_half_open;
    return vip != needs && held > worker->table->half_open_share &&
           held > needs->workers[worker->index].held_half_open;
}

/* How readily an open flow makes room: the longer it has been silent the sooner; before all others those of VIPs that hold more
 * than their share; 0: not at all. Flows that are half open or closed make room in the order of their lists. */
static uint64_t readiness(const lbrl_worker_t *worker, partition_t *partition, uint32_t entry,
                          const need_t *need)
{
    const uint8_t bits = partition->keeps[entry].bits;
    if (!(bits & KEEP_USED) || (bits & (KEEP_HALF_OPEN | KEEP_CLOSED))) {
        return 0;
    }
    const flow_ref_t ref = flow_ref(worker, partition, entry);
    if (need->map && flow_port_map(&ref) != need->map) {
        return 0;
    }
    const int32_t silence = (int32_t)(worker->now_ms - ref.flow->last_ms);
    const uint64_t ms = silence > 0 ? (uint64_t)silence : 0;
    if (is_above_share(worker, ref.vip, need->vip)) {
        return (1ull << 32) + ms;
    }
    return ms >= IDLE_YIELDS_MS ? ms : 0;
}

/* Among the entries that are next in turn, the open flow that makes room first, or FLOW_NONE. In a small partition these are
 * all, in a large one a sample: nothing is kept in order of silence. */
static uint32_t find_idle(const lbrl_worker_t *worker, partition_t *partition, const need_t *need)
{
    uint32_t found = FLOW_NONE;
    uint64_t most = 0;
    uint32_t n = partition->fresh < IDLE_SEARCHED ? partition->fresh : IDLE_SEARCHED;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t entry = partition->hand < partition->fresh ? partition->hand : 0;
        partition->hand = entry + 1;
        uint64_t ready = readiness(worker, partition, entry, need);
        if (ready > most) {
            most = ready;
            found = entry;
        }
    }
    return found;
}

static bool evict_idle(lbrl_worker_t *worker, partition_t *partition, const need_t *need)
{
    uint32_t entry = find_idle(worker, partition, need);
    if (entry == FLOW_NONE) {
        return false;
    }
    flow_ref_t ref = flow_ref(worker, partition, entry);
    flow_remove(worker, &ref);
    count(&worker->stats.evicted, 1);
    return true;
}

/* The half-open flow that makes room first: the oldest of a VIP that holds more than its share of them, else the oldest. A flood
 * of one VIP then costs its own handshakes. FLOW_NONE if there is none. */
static uint32_t half_open_victim(const lbrl_worker_t *worker, partition_t *partition,
                                 const vip_t *needs)
{
    const uint32_t oldest = partition->half_open.head;
    uint32_t entry = oldest;
    if (worker->half_open <= worker->table->half_open_share) {
        return oldest; /* no VIP holds more than its share: the search would find none */
    }
    for (unsigned i = 0; i < HOLDERS_SEARCHED && entry != FLOW_NONE; i++) {
        const flow_ref_t ref = flow_ref(worker, partition, entry);
        const bool own = ref.vip == needs && needs->workers[worker->index].held_half_open >
                                                 worker->table->half_open_share;
        if (own || is_above_half_open_share(worker, ref.vip, needs)) {
            return entry;
        }
        entry = partition->keeps[entry].link.next;
    }
    return oldest;
}

uint32_t allocate_entry(lbrl_worker_t *worker, partition_t *partition, const vip_t *vip)
{
    if (partition->half_open.count >= partition->half_open_max) {
        recycle(worker, partition, half_open_victim(worker, partition, vip));
    }
    uint32_t entry = entry_take(partition);
    if (entry == FLOW_NONE) {
        const need_t need = {.vip = vip};
        if (partition->closed.head == FLOW_NONE && evict_idle(worker, partition, &need)) {
            return entry_take(partition);
        }
        uint32_t victim = partition->closed.head != FLOW_NONE
                              ? partition->closed.head
                              : half_open_victim(worker, partition, vip);
        if (victim == FLOW_NONE) {
            return FLOW_NONE;
        }
        recycle(worker, partition, victim);
        entry = entry_take(partition);
    }
    return entry;
}

bool allocate_pressure(const partition_t *partition)
{
    return partition->half_open.count >= partition->half_open_max ||
           (partition->free_head == FLOW_NONE && partition->fresh == partition->flow_count &&
            partition->closed.head == FLOW_NONE);
}

/* Whether a flow may give up a port of this map: not if the server closed first and may still know it. */
static bool may_yield_port(const lbrl_worker_t *worker, const flow_ref_t *ref,
                           const port_map_t *map)
{
    const flow_t *flow = ref->flow;
    if (flow_port_map(ref) != map || (ref->keep->bits & KEEP_PORT_RETURNED)) {
        return false;
    }
    return !flow_server_closed_first(ref->vip, flow) ||
           (int32_t)(worker->now_ms - flow->last_ms) > (int32_t)QUARANTINE_MS;
}

/* Makes the oldest flow of a list that holds a port of this map give it back. */
static bool recycle_port(lbrl_worker_t *worker, partition_t *partition, const flow_list_t *list,
                         const port_map_t *map)
{
    uint32_t entry = list->head;
    for (unsigned i = 0; i < HOLDERS_SEARCHED && entry != FLOW_NONE; i++) {
        flow_ref_t ref = flow_ref(worker, partition, entry);
        if (may_yield_port(worker, &ref, map)) {
            recycle(worker, partition, entry);
            return true;
        }
        entry = partition->keeps[entry].link.next;
    }
    return false;
}

/* The entry of a resting port that has lost its client: it lies where no packet looks. */
static uint32_t find_nameless(const lbrl_worker_t *worker, const partition_t *partition,
                              const meta_t *meta)
{
    const uint64_t hash =
        tuple_hash(&worker->lb->key, &meta->src, &meta->dst, meta->sport, meta->dport, 0);
    index_cursor_t cursor = index_find(flow_index(partition, meta), hash);
    for (;;) {
        uint32_t entry = index_next(&cursor);
        if (entry == FLOW_NONE ||
            (flow_is_nameless(&partition->flows[entry]) &&
             flow_from_server(worker->table, &partition->flows[entry], meta))) {
            return entry;
        }
    }
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
    uint32_t entry = flow_find(worker, partition, &meta);
    return entry != FLOW_NONE ? entry : find_nameless(worker, partition, &meta);
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
    const need_t need = {.vip = birth->vip, .map = map};
    if (share->half_open >= worker->table->sources[source].half_open_max) {
        /* Where none of the map's is among the oldest, many backends share the flood: it cannot take all ports of one,
         * for half-open flows are bounded together, and give back what they hold. */
        (void)recycle_port(worker, partition, &partition->half_open, map);
    }
    for (unsigned tries = 0; tries < RESTING_TRIES; tries++) {
        uint16_t port = port_take(map, number);
        if (port == PORT_NONE && !recycle_port(worker, partition, &partition->half_open, map) &&
            !recycle_port(worker, partition, &partition->closed, map) &&
            !evict_idle(worker, partition, &need)) {
            worker->ports_spent = 1;
            return PORT_NONE;
        }
        if (port == PORT_NONE) {
            return port_take(map, number) & (uint16_t)~PORT_RESTS;
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
    worker->ports_rest = 1;
    return port_take_rested(map, number);
}

uint16_t allocate_port(lbrl_worker_t *worker, partition_t *partition, const slot_t *slot,
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
    lbrl_sink_flow_open(sink, slot, ref->counts->load[slot]);
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
    lbrl_sink_prefetch(sink_of(counts), slot);
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
