/* Flows: found, made, moved between states, removed. Called by the worker that owns the partition. */
#ifndef LBRL_FLOW_H
#define LBRL_FLOW_H

#include "internal.h"

/* A flow at hand, with what its packets need. */
typedef struct flow_ref {
    partition_t *partition;
    flow_t *flow;
    flow_keep_t *keep;
    const vip_t *vip;
    slot_t *slot;
    vip_worker_t *counts;
    uint32_t entry; /* in the partition */
} flow_ref_t;

static inline flow_ref_t flow_ref(const lbrl_worker_t *worker, partition_t *partition,
                                  uint32_t entry)
{
    flow_ref_t ref;
    ref.partition = partition;
    ref.entry = entry;
    ref.flow = &partition->flows[entry];
    ref.keep = &partition->keeps[entry];
    ref.vip = worker->table->vips[ref.keep->vip];
    ref.slot = &ref.vip->slots[ref.keep->slot];
    ref.counts = &ref.vip->workers[worker->index];
    return ref;
}

static inline uint32_t partition_number(const lbrl_worker_t *worker, const partition_t *partition)
{
    return (uint32_t)(partition - worker->lb->partitions);
}

/* NULL where the flow has no NAT port. */
static inline port_map_t *flow_port_map(const flow_ref_t *ref)
{
    return vip_is_one_way(ref->vip) ? NULL : ref->slot->endpoint->maps[ref->keep->source];
}

/* Whether a tuple is what the flow's client sends. */
static inline bool flow_from_client(const table_t *table, const flow_t *flow, const meta_t *meta)
{
    const vip_t *vip = vip_of(table, flow);
    const uint32_t address = address_of_vip(flow);
    return vip && ip_equal(&flow->client, &meta->src) && flow->client_port == meta->sport &&
           vip->port == meta->dport && vip->protocol == meta->protocol &&
           ip_equal(&vip->addresses[address], &meta->dst) &&
           !(vip->retired_addresses >> address & 1);
}

/* Whether a tuple is what the flow's backend sends. */
static inline bool flow_from_server(const table_t *table, const flow_t *flow, const meta_t *meta)
{
    const vip_t *vip = vip_of(table, flow);
    if (UNLIKELY(!vip)) {
        return false;
    }
    const slot_t *slot = &vip->slots[slot_of(flow)];
    return flow->nat_port == meta->dport && flow->source == meta->source &&
           slot->port == meta->sport && vip->protocol == meta->protocol &&
           ip_equal(&slot->address, &meta->src);
}

/* Whether the entry of a resting port has lost its client to a new flow. */
static inline bool flow_is_nameless(const flow_t *flow)
{
    return flow->state == LBRL_FLOW_CLOSING &&
           (flow->flags & (FLOW_QUARANTINE | FLOW_SERVER_FIN)) == FLOW_QUARANTINE;
}

static inline bool flow_matches(const table_t *table, const flow_t *flow, const meta_t *meta)
{
    return meta->flags & META_RETURN
               ? flow_from_server(table, flow, meta) && !flow_is_nameless(flow)
               : flow_from_client(table, flow, meta);
}

/* The index that knows a tuple. */
static inline const flow_index_t *flow_index(const partition_t *partition, const meta_t *meta)
{
    return &partition->index[meta->flags & META_RETURN ? BY_SERVER : BY_CLIENT];
}

/* Entry of a tuple whose hash and partition are set, or FLOW_NONE. */
uint32_t flow_find(const lbrl_worker_t *worker, const partition_t *partition, const meta_t *meta);

/* What a new flow is made from. */
typedef struct flow_birth {
    const meta_t *meta;
    const vip_t *vip;
    uint8_t address;   /* index of the VIP's address */
    uint32_t slot;     /* LBRL_NO_SLOT: the scheduler picks */
    bool joined;       /* one-way: this is not the flow's first packet */
    uint32_t sequence; /* TCP: of the SYN; where joined, one less than the packet's */
    tcp_options_t options;
} flow_birth_t;

/* Picks backend and NAT port and makes the flow, half open. Returns LBRL_DROP_NONE and fills `ref`, or the reason. */
uint8_t flow_make(lbrl_worker_t *worker, partition_t *partition, const flow_birth_t *birth,
                  flow_ref_t *ref);

/* Makes the flow count as open, or no longer, whatever its state: one-way flows leave the counts when they fall silent,
 * half-open ones when the client gives up. */
void flow_set_open(lbrl_worker_t *worker, const flow_ref_t *ref, bool open);

/* Changes the state, the list that goes with it, and whether the flow counts as open. */
void flow_move(lbrl_worker_t *worker, const flow_ref_t *ref, uint8_t state);

/* Takes the flow out of everything and frees its entry. */
void flow_remove(lbrl_worker_t *worker, const flow_ref_t *ref);

/* Makes way for a new flow of the same client tuple: removes the flow, but where the server closed first its entry stays as
 * long as its port has to rest, without a client. No packet finds it. */
void flow_make_way(lbrl_worker_t *worker, const flow_ref_t *ref);

/* Fetches what flow_remove() will touch: to remove many, prepare all and then remove all. */
void flow_prepare_removal(const lbrl_worker_t *worker, const flow_ref_t *ref);

/* Fetches what a packet will touch that moves a flow to another state. */
void flow_fetch_move(const lbrl_worker_t *worker, const partition_t *partition, const flow_t *flow);

/* Takes an entry that was found in the arena into use, and into the list of its state; into no index and no count. */
void flow_keep(partition_t *partition, uint32_t entry, const flow_keep_t *keep, uint8_t state);

/* Fetches what the partition's next new flow will touch. */
static inline void flow_fetch_birth(const partition_t *partition)
{
    uint32_t entry = partition->free_head != FLOW_NONE ? partition->free_head : partition->fresh;
    __builtin_prefetch(&partition->flows[entry], 1);
    __builtin_prefetch(&partition->keeps[entry], 1);
    if (partition->half_open.tail != FLOW_NONE) {
        __builtin_prefetch(&partition->keeps[partition->half_open.tail], 1);
    }
}

/* Counts an entry towards its slot, address and source. */
void flow_count_entry(lbrl_worker_t *worker, const flow_ref_t *ref, int32_t change);

/* Marks the NAT port of a flow that the server closed first as free but resting. */
void flow_rest_port(lbrl_worker_t *worker, const flow_ref_t *ref);

/* Whether one end of a closing flow has closed and the other may go on. One-way the server's FIN is never seen. */
static inline bool flow_is_half_closed(const vip_t *vip, const flow_t *flow)
{
    const uint8_t ends = flow->flags & (FLOW_CLIENT_FIN | FLOW_SERVER_FIN | FLOW_RESET);
    return (ends == FLOW_CLIENT_FIN || ends == FLOW_SERVER_FIN) && !vip_is_one_way(vip);
}

/* Whether the server's end of a flow has to rest, or will have once the client has closed too. */
static inline bool flow_server_closed_first(const vip_t *vip, const flow_t *flow)
{
    return flow->state == LBRL_FLOW_CLOSING &&
           ((flow->flags & FLOW_QUARANTINE) ||
            ((flow->flags & FLOW_SERVER_FIN) && flow_is_half_closed(vip, flow)));
}

/* Milliseconds of silence after which the flow goes. */
static inline uint32_t flow_timeout(const vip_t *vip, const flow_t *flow)
{
    const uint8_t state = flow->state;
    const uint32_t timeout = state < LBRL_FLOW_STATES ? vip->timeout_of[state] : 0;
    if (state != LBRL_FLOW_CLOSING) {
        return timeout;
    }
    if (flow->flags & FLOW_QUARANTINE) {
        return QUARANTINE_MS;
    }
    return timeout < HALF_CLOSED_MS && flow_is_half_closed(vip, flow) ? HALF_CLOSED_MS : timeout;
}

/* Both hashes of a flow. */
uint64_t flow_client_hash(const lbrl_key_t *key, const vip_t *vip, const flow_t *flow);
uint64_t flow_server_hash(const lbrl_key_t *key, const vip_t *vip, const ip_t *source,
                          const flow_t *flow);

static inline uint64_t flow_start_us(const flow_t *flow)
{
    return (uint64_t)flow->start_high << 32 | flow->start_us;
}

/* Seconds since the flow's first packet; begins again at 0 after 2^40 us, 12.7 days. */
static inline float flow_age(const flow_t *flow, uint64_t now_us)
{
    return (float)(int64_t)((now_us - flow_start_us(flow)) & 0xffffffffffu) * 1e-6f;
}

#endif
