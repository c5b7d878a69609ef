/*
 * What control side and workers share. Read with lbrl.h (threading) and arena.h (truth).
 *
 * Workers reach everything through the published table. table_t, vip_t and schedule_t never change once published: the
 * control thread replaces them and retires the old ones (retire.c). What changes in place lies in a VIP's store, which
 * stays while the VIP lives: its slots, sinks and counts. Their members say who writes them, and which are atomic.
 */
#ifndef LBRL_INTERNAL_H
#define LBRL_INTERNAL_H

#include "flowtable.h"
#include "lbrl/features.h"
#include "lbrl/lbrl.h"
#include "lbrl/scheduler.h"
#include "lbrl/shm.h"
#include "parse.h"
#include "ports.h"
#include "tuplehash.h"

#define VIP_SLOTS_MAX (2u * LBRL_BACKENDS_MAX)

enum {
    QUARANTINE_MS = 60000,
    /* NAT flows that one end has closed, at least: the other may think long about its answer, or leave a kept connection
     * in its pool. Linux remembers what its program has closed for a minute (tcp_fin_timeout); where that was the server,
     * the port has then rested for another. */
    HALF_CLOSED_MS = 2 * QUARANTINE_MS,
    FRAGMENT_MS = 30000,
    CLOCKS_APART_MS = 60000, /* a flow that was last seen so far in the future has been edited */
    IDLE_YIELDS_MS =
        30000, /* open flows that have been silent for so long make room for new ones */
    FAILED_GRACE_MS = 60000, /* removed backends: time in which clients still learn by RST */
    GONE_SILENCE_MS =
        5000, /* removed backends: after which one that does not answer a connection has failed for it */
    SILENT_AFTER_ATTACH_MS = 5000, /* in which flows are taken up again and nobody is refused */
    TUNNEL_MTU = 1500,
    ONE_WAY_SILENCE_MS =
        30000, /* after which a flow that nobody sees the end of leaves the counts */
};

/* ------------------------------------------------------------------------------- published by control */

/* A backend as workers see it; identity is written while no flow and no worker knows the slot. */
typedef struct slot {
    ip_t address;
    endpoint_t *endpoint;
    uint64_t id;
    uint32_t sum;  /* of the address */
    uint16_t port; /* network order */
    uint8_t state; /* slot_state_t in force; atomic */
    uint8_t reap;  /* atomic: ageing drops its flows */
    uint8_t generation;
    uint8_t fallback;   /* atomic: takes packets without a flow, whatever weight is in force */
    uint8_t times_gone; /* atomic: written before `state` becomes SLOT_GONE */
    /* control thread only, from here on */
    uint8_t wanted;       /* slot_state_t configured */
    uint8_t removed;      /* no longer configured */
    uint8_t free_pending; /* is free when workers have passed `epoch` */
    float weight;         /* in force */
    float base;           /* likewise; 0: common_base() */
    float configured;
    uint64_t epoch;     /* after which workers know its last change */
    uint64_t drains_ms; /* since when it drains, 0: it does not */
    uint64_t failed_ms; /* since when it has failed, 0: it has not */
} slot_t;

/* What a worker writes for one VIP. Arrays are over slots, VIP_SLOTS_MAX long. */
typedef struct vip_worker {
    lbrl_sink_t *sink; /* atomic: replaced by control, see lbrl_frames_bind() */
    int32_t *load;     /* view of open flows: shared totals plus own changes */
    int32_t *delta;    /* own changes not yet in the totals */
    int32_t *entries;  /* flow entries held */
    int32_t *busy;     /* own flows that LBRL_LOAD_ACTIVE counts; atomic: others sum them up */
    int32_t *busy_all; /* view of all workers' busy flows; of one worker: busy itself */
    int32_t address_entries[LBRL_ADDRESSES_MAX];
    int32_t held;           /* sum of `entries` */
    int32_t held_half_open; /* of them, flows that are half open */
    uint64_t vector;        /* that last refreshed `load` */
    uint8_t dirty;          /* delta is not zero */
    uint8_t busy_era;       /* of the sink when busy flows were last counted; atomic */
} __attribute__((aligned(64))) vip_worker_t;

/* A built scheduler; immutable. */
typedef struct schedule {
    lbrl_key_t key;
    uint32_t table_size; /* 0: no Maglev table */
    uint32_t *table;
    const lbrl_picker_t *picker; /* NULL: use the table */
} schedule_t;

/* Lives as long as the VIP. */
typedef struct vip_store {
    slot_t *slots;
    int32_t *total; /* open flows over all workers; atomic */
    vip_worker_t *workers;
    const schedule_t *fallback; /* one-way: Maglev table of configured weights; atomic, likewise */
    uint64_t fallback_state;    /* what it was built from */
    const schedule_t *schedule; /* atomic: replaced by control */
    struct shared_view *shared_view;            /* NULL: none (shared.c) */
    lbrl_slot_counters_t *counters;             /* [worker][VIP_SLOTS_MAX] */
    lbrl_frames_t *frames;                      /* control thread, from here on */
    uint64_t address_epoch;                     /* after which no flow gets a retired address */
    uint64_t actions_sequence, actions_time_us; /* of the weights in force */
    uint64_t actions_seen;    /* sequence of the object's newest frame, taken or refused */
    uint64_t unfollowed_us;   /* since when there is no object, 0: there is */
    uint64_t leaves_for;      /* id of the VIP that a removed one ended its drain for */
    uint32_t unrepresentable; /* weights too small for the Maglev table */
    uint8_t following;        /* weights come from an agent */
    uint8_t orphan_steps;     /* of the decay after the agent fell silent */
    uint8_t weights_set;      /* weights in force are not the configured ones */
    uint8_t bases_shared;     /* bases in force are on the flows of all balancers */
    uint8_t era;              /* counts changes of the level, 1 .. 255; 0: none yet */
    uint8_t reaping;          /* atomic: there are slots whose flows ageing drops */
    uint8_t any_active;       /* atomic: there are slots in state SLOT_ACTIVE */
    uint8_t due;              /* DUE_*: what workers have not been told, for want of memory */
    void *memory;             /* what all arrays above lie in */
} vip_store_t;

/* A VIP as workers see it; immutable, replaced on change. */
typedef struct vip {
    uint8_t generation, protocol;
    uint8_t flags;   /* vip_flag_t */
    uint8_t refuses; /* is being removed: no new flows */
    uint16_t port;   /* network order */
    uint16_t index;
    slot_t *slots;
    vip_worker_t *workers;
    vip_store_t *store;
    ip_t addresses[LBRL_ADDRESSES_MAX];
    uint32_t sums[LBRL_ADDRESSES_MAX];
    uint32_t timeout_of[LBRL_FLOW_STATES]; /* ms; of closing flows see flow_timeout() */
    uint32_t slot_count;
    uint32_t address_count; /* places in use, with holes */
    uint8_t forwarding;     /* lbrl_forwarding_t */
    uint8_t dscp;
    uint16_t mtu;
    uint8_t dns;               /* port 53 */
    uint8_t counts_busy;       /* schedulers run on busy flows */
    uint8_t retired_addresses; /* bit per place */
} vip_t;

/* Where an address and port lead to; port 0: that the address is a VIP's at all. */
typedef struct vip_place {
    ip_t address;
    uint16_t port; /* network order */
    uint16_t vip;
    uint8_t protocol;
    uint8_t index; /* of the address in the VIP */
    uint8_t used;
} vip_place_t;

typedef struct vip_map {
    uint32_t mask;
    vip_place_t places[];
} vip_map_t;

typedef struct source {
    arena_source_t is;
    uint32_t sum;           /* of the address */
    uint16_t half_open_max; /* ports of a partition and an endpoint that half-open flows may hold */
} source_t;

typedef struct table {
    const vip_map_t *map;
    uint32_t vip_count;         /* entries of vips[] */
    uint16_t return_first;      /* lowest port of all held sources */
    uint16_t return_span;       /* from it to the highest */
    uint32_t source_count;      /* entries of held[] */
    uint8_t held[SOURCES_HELD]; /* indexes of sources that are active or retired */
    uint8_t retiring;           /* some of them are retired */
    uint8_t shared;             /* other nodes may have flows of our VIPs */
    int32_t share;           /* entries of a worker that each VIP may hold whatever others need */
    int32_t half_open_share; /* the same of half-open flows */
    source_t sources[SOURCES_HELD];
    ip_t tunnel_sources[2]; /* outer source of IPv4 and of IPv6; zero: none */
    const vip_t *vips[];    /* by index in the directory */
} table_t;

/* ------------------------------------------------------------------------------- workers */

/* What later fragments of a packet do. */
typedef enum fragment_way {
    FRAGMENT_NONE, /* the place is free */
    FRAGMENT_FLOW, /* they go the way of a flow */
    FRAGMENT_ECHO, /* they are parts of an echo request to a VIP */
    FRAGMENT_PASS, /* they are for another program of the host */
} fragment_way_t;

/* A fragmented packet whose first fragment has come. */
typedef struct fragment {
    ip_t src, dst;
    uint32_t id; /* network order */
    uint32_t new_id;
    uint32_t time_ms;
    uint32_t entry; /* in the partition, with flow_check to know it again */
    uint32_t flow_check;
    uint8_t partition, protocol, from_client;
    uint8_t way; /* fragment_way_t */
} fragment_t;

/* A later fragment whose first has not come. */
typedef struct held {
    lbrl_packet_t packet;
    ip_t src, dst;
    uint64_t hash;
    uint32_t id; /* network order */
    uint32_t since_ms;
    uint8_t protocol;
} held_t;

/* Packets that go through the passes of lbrl_process() together: their headers, buckets and entries fit the first-level
 * cache, and are enough to hide the way to memory. */
enum { ROUND = 32 };

enum {
    FRAGMENT_SETS = 512, /* of a worker: of 512 packets in flight, one in 10^6 meets a full set */
    FRAGMENT_WAYS = 8,
    HINT_SETS = 1024,
    HINT_WAYS = 8,
    HELD_MS = 1000,
};

/* Since when a client has had no answer from a backend that is removed; per flow entry. */
typedef struct unanswered {
    uint32_t tag; /* of the flow that it is about; 0: none */
    uint32_t since_ms;
} unanswered_t;

/* What an answer is about. Each has token buckets of its own, so that none uses up another's. */
typedef enum answer {
    ANSWER_FLOW,    /* RST for a flow that its backend's failure has ended */
    ANSWER_REFUSAL, /* no such port, no backend, or no such flow */
    ANSWER_EXPIRED, /* time exceeded */
    ANSWER_TOO_BIG, /* packet too big: by sender, for without it a path of a smaller MTU is a black hole */
    ANSWER_KINDS
} answer_t;

enum { ANSWER_SENDERS = 16 }; /* buckets of one kind that senders are spread over */

typedef struct tokens {
    uint64_t since_us; /* of the last refill */
    uint32_t left;
} tokens_t;

typedef struct worker_stats {
    uint64_t packets, bytes, forwarded, replied, passed, handed_over;
    uint64_t created, recycled, evicted;
    uint64_t dropped[LBRL_DROP_COUNT];
} worker_stats_t;

struct lbrl_worker {
    lbrl_t *lb;
    uint64_t epoch; /* atomic: 0 outside a vector, else the epoch it entered in */
    uint32_t index;
    /* of the vector at hand */
    uint32_t now_ms;
    uint64_t now_us;
    const table_t *table;
    uint64_t vector;   /* counts vectors and ticks */
    uint64_t removals; /* counts flows removed */
    uint64_t known;    /* flows created when the round at hand was looked up */
    uint8_t ports_rest,
        ports_spent; /* the last new flow found ports that rest, or that are all in use */
    /* across vectors */
    uint64_t random;
    uint64_t tick_us; /* of the last tick; 0: none yet */
    tokens_t tokens[ANSWER_KINDS][ANSWER_SENDERS];
    uint64_t sweep_debt; /* of ageing: entries still to be looked at, times 1e6 */
    uint32_t sweep;      /* partition that ageing is in */
    int32_t half_open;   /* sum of vip_worker_t.held_half_open */
    uint32_t fragment_ids;
    uint32_t fragment_firsts;             /* counts records of first fragments */
    uint32_t held_count;                  /* entries of held[], oldest first */
    uint32_t held_firsts, held_ms;        /* as of the last look at them */
    int32_t source_entries[SOURCES_HELD]; /* flow entries by NAT source; atomic */
    worker_stats_t stats;
    fragment_t fragments[FRAGMENT_SETS][FRAGMENT_WAYS];
    held_t held
        [LBRL_HELD_MAX +
         LBRL_VECTOR_MAX]; /* a vector may bring so many before the caller takes those above the bound */
    meta_t metas[ROUND];
} __attribute__((aligned(64)));

struct retired;
struct ring;
struct side;

struct lbrl {
    arena_t arena;
    lbrl_key_t key;
    tuples_hash_t *hash_tuples;
    uint32_t worker_count;
    uint8_t owner[LBRL_PARTITIONS]; /* worker of each partition */
    partition_t *partitions;
    bucket_t
        *buckets; /* of all partitions' indexes: [partition][BY_CLIENT, BY_SERVER][bucket_count] */
    uint32_t bucket_count;
    uint32_t partition_flows;
    uint8_t holds;            /* callers keep fragments that come before their first */
    struct side *sides;       /* per flow entry, see side.h */
    unanswered_t *unanswered; /* per flow entry, written by the owner of its partition */
    void *index_memory;
    lbrl_worker_t *workers;
    struct ring **rings; /* [from][to] */
    uint64_t *
        fragment_hints; /* [HINT_SETS][HINT_WAYS]; atomic: which partition a fragmented packet belongs to */
    const table_t *table;     /* atomic */
    uint64_t epoch;           /* atomic */
    uint64_t silent_until_us; /* set before workers start */
    /* control thread only, from here on */
    arena_node_t node;       /* as in the arena */
    arena_vip_t *records;    /* [vips]: as in the arena */
    vip_store_t **stores;    /* [vips] */
    const vip_t **vips;      /* [vips]: as published */
    uint8_t *slot_used;      /* [slots] of the directory */
    endpoint_t **endpoints;  /* hash table */
    struct retired *retired; /* waiting for workers */
    lbrl_nat_source_t wanted[LBRL_SOURCES_MAX];
    uint32_t wanted_count;
    uint8_t sources_due; /* workers have not been told of a change, for want of memory */
    uint64_t source_epochs[SOURCES_HELD]; /* after which workers know a source's last change */
    uint64_t random;                      /* seeds of sinks */
    uint32_t grace_ms;                    /* of silent agents */
    uint64_t settled_ms; /* time that states of slots were last brought in line with */
};

/* ------------------------------------------------------------------------------- small helpers */

#define LIKELY(x)   __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

static inline void count(uint64_t *counter, uint64_t amount)
{
    /* one writer; atomic only so that the control thread never reads half a value */
    __atomic_store_n(counter, *counter + amount, __ATOMIC_RELAXED);
}

static inline uint64_t random_next(uint64_t *state)
{
    /* xorshift64*; never 0 */
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1du;
}

/* Tells the fragments of one packet of ours from those of others: those of one worker differ from all others' modulo the
 * number of workers. */
static inline uint32_t fragment_id_next(lbrl_worker_t *worker)
{
    return worker->fragment_ids++ * worker->lb->worker_count + worker->index;
}

/* A worker's sink, valid until it leaves the vector. */
static inline lbrl_sink_t *sink_of(const vip_worker_t *counts)
{
    return __atomic_load_n(&counts->sink, __ATOMIC_ACQUIRE);
}

static inline bool vip_is_one_way(const vip_t *vip)
{
    return UNLIKELY(vip->forwarding != LBRL_FORWARD_NAT);
}

/* The VIP that an entry names, or NULL: see flow_keep_t. */
static inline const vip_t *vip_of(const table_t *table, const flow_t *flow)
{
    const uint32_t index = flow->vip;
    return LIKELY(index < table->vip_count) ? table->vips[index] : NULL;
}

/* What an entry names, if only within bounds. */
static inline uint32_t source_of(const flow_t *flow)
{
    return flow->source % SOURCES_HELD;
}

static inline uint32_t address_of_vip(const flow_t *flow)
{
    return flow->address % LBRL_ADDRESSES_MAX;
}

static inline uint32_t slot_of(const flow_t *flow)
{
    return flow->slot % VIP_SLOTS_MAX;
}

/* For what is recorded of an entry's slot. */
static inline uint32_t slot_in(const lbrl_sink_t *sink, const flow_t *flow)
{
    const uint32_t slot = flow->slot;
    return LIKELY(slot < sink->slots) ? slot : 0;
}

static inline bool flow_is_half_open(uint8_t state)
{
    return state == LBRL_FLOW_SYN || state == LBRL_FLOW_SYN_ACK || state == LBRL_FLOW_UDP_NEW;
}

static inline bool flow_is_closed(uint8_t state)
{
    return state == LBRL_FLOW_CLOSING || state == LBRL_FLOW_UDP_ANSWERED;
}

#endif
