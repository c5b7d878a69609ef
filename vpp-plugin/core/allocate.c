#include "allocate.h"

enum {
    RESTING_TRIES = 64,    /* resting ports that a new flow looks at: a quarter of them fit */
    HOLDERS_SEARCHED = 64, /* oldest flows of a list searched for one of the same port map */
    IDLE_SEARCHED = 128,   /* entries searched for the open flow that has been silent for longest */
};

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
