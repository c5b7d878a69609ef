/*
 * The arena: all state that outlives the process. Its only truth is a small directory (VIPs, slots, NAT sources, hash
 * seed) and the flow entries; everything else is rebuilt from them.
 *
 * A process may be killed between any two stores. Therefore: an entry's identity carries a keyed check and its state
 * byte is stored last; a slot record likewise; records that change while flows depend on them (VIP, node) exist twice
 * and the older copy is overwritten. Whoever attaches trusts nothing that fails its check.
 */
#ifndef LBRL_ARENA_H
#define LBRL_ARENA_H

#include <assert.h>
#include <stdbool.h>

#include "hash.h"
#include "lbrl/lbrl.h"
#include "wire.h"

#define ARENA_MAGIC 0x414e4552414c504eu

/*
 * Of the layout: what lies where, what its numbers mean, and how checks and hashes are computed. test_arena_layout holds
 * them to this number. Bytes that are reserved and 0 may get a meaning without another version, if 0 says what was so
 * before. The first 16 bytes of the header are those of every version. Whoever makes another version has lbrl_import() read
 * the ones before.
 */
#define ARENA_VERSION 2u

/* Checks of records said nothing of where they lie. lbrl_import() reads it. */
#define ARENA_VERSION_UNPLACED 1u

/* NAT sources in force and those whose flows are still going. */
#define SOURCES_HELD 16

typedef struct arena_header {
    uint64_t magic;
    uint32_t version;
    uint32_t byte_order; /* 0x01020304 */
    uint64_t size;       /* of the whole arena */
    uint32_t flows, vips, slots, entry_size;
    uint64_t node_offset, vip_offset, slot_offset, flow_offset; /* from the arena's start */
    uint8_t seed[16];                                           /* keys hashes and checks */
    uint64_t check;                                             /* of everything above */
    uint8_t boot_id[16];
} arena_header_t;

/* One copy of a record that exists twice; the body follows. Sequence 0: not valid. */
typedef struct arena_copy {
    uint32_t sequence;
    uint32_t check; /* of place, sequence and body */
} arena_copy_t;

typedef enum source_state {
    SOURCE_FREE,
    SOURCE_WANTED, /* waits for an overlapping one that goes */
    SOURCE_ACTIVE,
    SOURCE_RETIRED, /* its flows are being dropped */
} source_state_t;

typedef struct arena_source {
    ip_t address;
    uint16_t port_first, port_last;
    uint8_t state; /* source_state_t */
    uint8_t reserved[3];
} arena_source_t;

typedef struct arena_node {
    uint8_t scheduler_key[16];
    uint32_t nodes;
    uint32_t reserved;
    arena_source_t sources[SOURCES_HELD];
} arena_node_t;

typedef enum vip_state {
    VIP_FREE,
    VIP_LIVE,
    VIP_REMOVING, /* no new flows; goes with its last flow */
} vip_state_t;

/* Releases without the other two read any number but 0 as affinity. */
typedef enum vip_flag {
    VIP_CLIENT_AFFINITY = 1,
    VIP_DROPS_UNSERVED = 2,  /* new flows that no backend takes are dropped, not refused */
    VIP_DROPS_STRANGERS = 4, /* TCP without a flow is dropped, not reset */
    VIP_FLAGS = 7,
} vip_flag_t;

typedef struct arena_vip {
    ip_t addresses[LBRL_ADDRESSES_MAX]; /* zero: place not used */
    uint64_t id;
    lbrl_timeouts_t timeouts;
    uint32_t drain_timeout;
    uint32_t table_size;
    uint32_t slot_base; /* first of its slots in the directory */
    uint16_t slots;
    uint16_t port; /* network order */
    uint8_t state; /* vip_state_t */
    uint8_t generation;
    uint8_t protocol;
    uint8_t scheduler;
    uint8_t flags; /* vip_flag_t */
    uint8_t feature_level;
    uint8_t
        retired_addresses; /* bit per place: flows are being dropped, the place is not free yet */
    uint8_t forwarding;    /* lbrl_forwarding_t */
    uint16_t mtu;          /* GRE; 0: the default */
    uint8_t dscp;
    uint8_t load; /* lbrl_load_t; no padding: copies are compared and checked as bytes */
} arena_vip_t;

typedef enum slot_state {
    SLOT_FREE = 0,
    SLOT_ACTIVE = LBRL_BACKEND_ACTIVE,
    SLOT_DRAINING = LBRL_BACKEND_DRAINING,
    SLOT_FAILED = LBRL_BACKEND_FAILED,
    SLOT_UNREADY = LBRL_BACKEND_UNREADY, /* configured only: in force it is DRAINING, without end */
    SLOT_GONE, /* in memory only: removed, so that only TCP flows go on; the arena has DRAINING */
} slot_state_t;

/* Identity and check are written while state is SLOT_FREE; the rest changes at any time. */
typedef struct arena_slot {
    ip_t address;
    uint64_t id;
    uint16_t port;      /* network order */
    uint8_t generation; /* 1 .. 255 */
    uint8_t state;      /* slot_state_t in force */
    uint32_t check; /* of the above but state, of the VIP's id, and of the place in the directory */
    float weight;   /* configured */
    uint8_t removed; /* no longer configured */
    uint8_t wanted;  /* slot_state_t configured; a number that is none counts as `state` */
    uint8_t reserved[2];
} arena_slot_t;

/* Flags of a flow entry. */
enum {
    FLOW_CLIENT_FIN = 1,
    FLOW_SERVER_FIN = 2,
    FLOW_OPEN = 4,           /* counted as open */
    FLOW_QUARANTINE = 8,     /* the server closed first: its NAT port rests */
    FLOW_TIMESTAMPS = 16,    /* last_timestamp is valid */
    FLOW_COMPLETED = 32,     /* fct has been sampled */
    FLOW_PORT_RETURNED = 64, /* a quarantined port that stands in the ring of free ports already */
    FLOW_RESET = 128,
    FLOW_JOINED = FLOW_PORT_RETURNED, /* one-way: met in its middle, so that its start is unknown */
};

/* One flow in one cache line. Identity (the first 28 bytes) never changes while state is not LBRL_FLOW_FREE. */
typedef struct flow {
    ip_t client;
    uint16_t client_port; /* network order */
    uint16_t nat_port;    /* network order */
    uint16_t vip;         /* index in the directory */
    uint16_t slot;
    uint8_t vip_generation;
    uint8_t slot_generation;
    uint8_t source;  /* index of the NAT source */
    uint8_t address; /* index of the VIP's address */
    uint32_t check;  /* of the above */
    uint8_t state;   /* lbrl_flow_state_t */
    uint8_t flags;   /* FLOW_* */
    uint8_t scales;  /* window scale: client's in the low half, server's in the high half */
    uint8_t start_high;
    uint32_t last_ms;                /* of the last packet */
    uint32_t start_us;               /* of the first packet, with start_high as bits 32..39 */
    uint32_t client_end, server_end; /* next sequence number expected of each side */
    union {
        uint32_t client_ack; /* what each side has acknowledged */
        uint32_t unanswered; /* UDP, port 53: questions that have had no answer, less one */
    };
    uint32_t server_ack;
    union {
        struct {
            uint16_t client_window, server_window; /* as sent, unscaled */
        };
        uint32_t last_timestamp; /* quarantine: the client's last TSval */
    };
} flow_t;

enum { FLOW_IDENTITY = 28 };

static_assert(sizeof(flow_t) == 64, "a flow fills one cache line");
static_assert(offsetof(flow_t, check) == FLOW_IDENTITY, "identity is what the check covers");
static_assert(sizeof(arena_slot_t) == 40, "slot records are packed");
static_assert(sizeof(arena_header_t) % 8 == 0, "header has no tail padding");

/* A mapped arena. Plain memory; pointers into the mapping. */
typedef struct arena {
    uint8_t *base;
    arena_header_t *header;
    arena_slot_t *slots;
    flow_t *flows;
    lbrl_key_t key;
    uint32_t flow_count, vip_count, slot_count;
    uint32_t version; /* ARENA_VERSION, or what lbrl_import() reads */
} arena_t;

/* Geometry for a configuration; false if that is out of range. */
bool arena_plan(arena_header_t *header, uint32_t flows, uint32_t vips, uint32_t slots);

/* Clears and formats memory of header->size bytes. */
void arena_format(arena_t *arena, void *memory, const arena_header_t *plan, const uint8_t seed[16],
                  const uint8_t boot_id[16]);

/* Gives a new arena the seed of the one whose flows it will hold. What it held before is lost. */
void arena_rekey(arena_t *arena, const uint8_t seed[16]);

typedef enum arena_kind {
    ARENA_EMPTY, /* zeroes */
    ARENA_SOUND, /* `arena` is filled */
    ARENA_OTHER, /* says that it is of a version that cannot be read; nothing else about it is known */
    ARENA_FOREIGN, /* damaged, or no arena */
} arena_kind_t;

/* Checks header and bounds of mapped memory. Writes nothing into it. A sound one may be of an earlier version. */
arena_kind_t arena_inspect(arena_t *arena, const void *memory, size_t size);

/* The version that memory says it is of, whether it is sound or not; 0: it is no arena of this byte order. */
uint32_t arena_version(const void *memory, size_t size);

/* Records that exist twice: newest valid copy, or NULL. */
const arena_node_t *arena_node(const arena_t *arena);
const arena_vip_t *arena_vip(const arena_t *arena, uint32_t index);
void arena_node_write(arena_t *arena, const arena_node_t *node);
void arena_vip_write(arena_t *arena, uint32_t index, const arena_vip_t *vip);

/* Of a record at place `index` of the directory. */
uint32_t arena_slot_check(const arena_t *arena, uint32_t index, const arena_slot_t *slot,
                          uint64_t vip_id);
/* Takes a record into use: identity first, state last. */
void arena_slot_write(arena_t *arena, uint32_t index, const arena_slot_t *slot, uint64_t vip_id);

uint32_t arena_flow_check(const lbrl_key_t *key, const flow_t *flow);

/* Four 16-bit fields as they lie in memory. */
static inline uint64_t arena_word(uint16_t first, uint16_t second, uint16_t third, uint16_t fourth)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return (uint64_t)first | (uint64_t)second << 16 | (uint64_t)third << 32 |
           (uint64_t)fourth << 48;
#else
    return (uint64_t)first << 48 | (uint64_t)second << 32 | (uint64_t)third << 16 |
           (uint64_t)fourth;
#endif
}

/* The same of an identity that is only about to be written: `ports` and what follows it are client_port to slot, `rest`
 * the four bytes from vip_generation on as a little-endian number. To read back what was just stored in smaller parts
 * makes a processor wait. */
static inline uint32_t arena_identity_check(const lbrl_key_t *key, const ip_t *client,
                                            uint64_t ports, uint32_t rest)
{
    const lbrl_key_t check_key = {key->k1, ~key->k0}; /* another function than the index's hash */
    lbrl_sip_t s;
    lbrl_sip_begin(&s, &check_key);
    lbrl_sip_word(&s, client->word[0]);
    lbrl_sip_word(&s, client->word[1]);
    lbrl_sip_word(&s, ports);
    lbrl_sip_word(&s, (uint64_t)FLOW_IDENTITY << 56 | rest);
    return (uint32_t)lbrl_sip_end(&s);
}

#endif
