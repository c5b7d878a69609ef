/*
 * lbrl: the load balancer itself. Packets, time, memory and randomness are handed in. Workers make
 * no system call; the control side makes those of its allocator, and asks for huge pages.
 *
 * Threading. One control thread calls everything that takes an lbrl_t, except where noted. Each
 * worker thread calls everything that takes its own lbrl_worker_t. Neither ever waits for the
 * other: the control side builds tables privately, publishes a pointer, and frees what it replaced
 * once every worker has left the vectors that might see it (lbrl_control_tick()). Workers share
 * nothing writable but handover rings, fragment hints and backend totals.
 *
 * Units. now_us is CLOCK_BOOTTIME in microseconds and never runs backwards; durations are
 * milliseconds. Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d. Ports are in host
 * order in this header.
 *
 * Errors. Functions that can fail return 0 or a negative lbrl_error_t and then have changed
 * nothing; but where memory ends (LBRL_ERR_MEMORY) when a change has been made and workers are to be told of it,
 * they are told by the next lbrl_control_tick() for which there is memory, or by the same call again.
 */
#ifndef LBRL_LBRL_H
#define LBRL_LBRL_H

#include <stddef.h>
#include <stdint.h>

#include "lbrl/packet.h"
#include "lbrl/shm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LBRL_PARTITIONS    64 /* fixed: the low 6 bits of a NAT port name the owner */
#define LBRL_WORKERS_MAX   64
#define LBRL_FLOWS_MIN     64u      /* entries of a flow table: one per partition */
#define LBRL_FLOWS_MAX     4194304u /* entry numbers have 16 bits in a partition */
#define LBRL_FLOW_BYTES    512u     /* of memory for an entry; two tables fit, as an import needs */
#define LBRL_VIPS_MAX      65535u   /* core VIPs of a directory */
#define LBRL_SLOTS_MIN     8u       /* that all VIPs share */
#define LBRL_SLOTS_MAX     (1u << 24)
#define LBRL_ADDRESSES_MAX 8    /* of one VIP */
#define LBRL_SOURCES_MAX   8    /* NAT sources in force at one time */
#define LBRL_BACKENDS_MAX  1024 /* of one VIP, draining ones included */

typedef struct lbrl lbrl_t;
typedef struct lbrl_worker lbrl_worker_t;

typedef enum lbrl_error {
    LBRL_OK = 0,
    LBRL_ERR_INVALID = -101,   /* an argument is out of its range */
    LBRL_ERR_MEMORY = -102,    /* the allocator gave nothing */
    LBRL_ERR_EXHAUSTED = -103, /* the directory has no VIP or slots left */
    LBRL_ERR_CONFLICT =
        -104, /* address and port are held by another VIP, or lie in a NAT source's range */
    LBRL_ERR_NOT_FOUND = -105, /* no such VIP */
    LBRL_ERR_GEOMETRY =
        -106, /* sound arena of another size or version: make a new one and import */
    LBRL_ERR_TOO_SMALL = -107, /* memory handed over is smaller than lbrl_arena_size() */
    LBRL_ERR_IMMUTABLE = -108, /* protocol, port, family and forwarding of a VIP cannot change */
    LBRL_ERR_FRAMES = -109,    /* frames memory does not fit the VIP */
    LBRL_ERR_VERSION = -110,   /* arena of a version that cannot be read: VIPs must be told again */
} lbrl_error_t;

const char *lbrl_error_text(int error);

typedef struct lbrl_address {
    uint8_t bytes[16];
} lbrl_address_t;

/* ------------------------------------------------------------------------------------------ life
 */

typedef struct lbrl_config {
    uint32_t flows;   /* entries of the flow table, half-open ones included; LBRL_FLOWS_MIN ..
                       LBRL_FLOWS_MAX, rounded up to 64 */
    uint32_t vips;    /* core VIPs that the directory holds, 1 .. LBRL_VIPS_MAX */
    uint32_t slots;   /* that all VIPs share, LBRL_SLOTS_MIN .. LBRL_SLOTS_MAX; a VIP takes at least
                       twice its backends */
    uint32_t workers; /* 1 .. LBRL_WORKERS_MAX */
    uint32_t
        grace_ms; /* weights of a silent agent stay in force for so long; 0: LBRL_ORPHAN_GRACE_MS */
    uint32_t
        holds; /* 1: callers of lbrl_process() keep packets with LBRL_VERDICT_HOLD, at most LBRL_HELD_MAX
                       of each worker between calls; 0: such packets are dropped */
    uint64_t now_us;     /* time of the start */
    uint8_t boot_id[16]; /* of the kernel: flows of another boot are discarded */
    uint8_t seed[32];    /* randomness: hash seed of a new arena, generators of the workers */
} lbrl_config_t;

/* What was found in the arena. */
typedef enum lbrl_arena_status {
    LBRL_ARENA_FORMATTED, /* was empty (zeroes), is new */
    LBRL_ARENA_ATTACHED,  /* was ours */
    LBRL_ARENA_REPLACED,  /* held something foreign or damaged, was formatted anew */
    LBRL_ARENA_IMPORTED,  /* result of lbrl_import() */
} lbrl_arena_status_t;

typedef struct lbrl_attach_report {
    lbrl_arena_status_t status;
    uint32_t vips;  /* VIPs found and forwarding */
    uint32_t flows; /* flows found and kept */
    uint32_t
        flows_dropped; /* entries that were torn, foreign, expired, of another boot, or had no room */
    uint32_t flows_expired; /* of those: flows whose timeout ended, mostly while no process ran */
    uint32_t version;       /* that the memory said it was of; 0: it was no arena */
} lbrl_attach_report_t;

/* Bytes of arena that a configuration needs; 0 if the configuration is out of range. */
size_t lbrl_arena_size(const lbrl_config_t *config);

/*
 * Makes a load balancer on the caller's arena memory, which must be aligned to 64 bytes, stay
 * mapped until lbrl_close(), and be written by nobody else (hold a lock on the object). Zeroed
 * memory is formatted; an arena left by an earlier process is re-attached: its flows, VIPs,
 * backends and NAT sources are in force at once. A sound arena of another geometry or version is
 * refused with LBRL_ERR_GEOMETRY and left as it is: open on new memory and import. Of one that says it is
 * of another version nothing else is believed.
 */
int lbrl_open(lbrl_t **out, const lbrl_config_t *config, void *arena, size_t arena_size,
              lbrl_attach_report_t *report);

/*
 * Copies directory and flows from another arena (other size) into this one, which must be new and without
 * VIPs; call it before the workers start. Every entry is checked like at attach. Where this one has too little room for all
 * flows, open flows come before half-open and closed ones. `old` is only read.
 * Versions 1 and 2 are read: of any other LBRL_ERR_VERSION, and nothing is copied.
 */
int lbrl_import(lbrl_t *lb, const void *old, size_t old_size, uint64_t now_us,
                lbrl_attach_report_t *report);

/* Frees everything but the arena, whose content stays valid for the next lbrl_open(). No worker may
 * be running. */
void lbrl_close(lbrl_t *lb);

/* ------------------------------------------------------------------------------------------
 * control */

typedef struct lbrl_nat_source {
    lbrl_address_t address;
    uint16_t port_first; /* multiple of 64, >= 1024 */
    uint16_t port_last;  /* inclusive, one less than a multiple of 64 */
} lbrl_nat_source_t;

/*
 * Sets the NAT sources (the complete set, at most LBRL_SOURCES_MAX). One that stays keeps its
 * flows; flows of one that goes are dropped by ageing. A new one that overlaps a going one starts
 * when the last flow of that is gone.
 */
int lbrl_sources_set(lbrl_t *lb, const lbrl_nat_source_t *sources, uint32_t count);

/* Writes up to `max` NAT sources whose packets are ours: those in force and those whose flows are still
 * going. Returns how many there are. After an attach these are the arena's. */
uint32_t lbrl_sources(const lbrl_t *lb, lbrl_nat_source_t *sources, uint32_t max);

/* Key of the Maglev tables, shared by all nodes of a DataPlane, and their number L (for sed's base
 * load). */
int lbrl_node_set(lbrl_t *lb, const uint8_t scheduler_key[16], uint32_t nodes);

/* Copies the key in force and returns the number of nodes; 0 before anybody has set them. */
uint32_t lbrl_node(const lbrl_t *lb, uint8_t scheduler_key[16]);

/* Milliseconds of silence after which a flow is dropped; the order and names of the control
 * protocol. */
typedef struct lbrl_timeouts {
    uint32_t tcp_handshake;
    uint32_t
        tcp_established; /* 2 h 4 min and more, RFC 5382, REQ-5; where room is short, the longest silent make it */
    uint32_t tcp_closing; /* NAT: of flows that one end alone has closed, 120 s at least */
    uint32_t udp_unreplied;
    uint32_t udp_exchange;
    uint32_t udp_stream;
    uint32_t udp_dns_answered;
} lbrl_timeouts_t;

/* The control protocol's defaults: 10 s, 7440 s, 10 s, 10 s, 30 s, 180 s, 1 s. */
lbrl_timeouts_t lbrl_timeouts_default(void);

typedef enum lbrl_backend_state {
    LBRL_BACKEND_ACTIVE = 1,   /* takes new flows if its weight is above 0 */
    LBRL_BACKEND_DRAINING = 2, /* keeps its flows until drain_timeout has passed, then as FAILED */
    LBRL_BACKEND_FAILED = 3,   /* UDP flows re-pick, TCP clients get RST with their next packet */
    LBRL_BACKEND_UNREADY = 4,  /* keeps its flows for as long as it is configured so */
} lbrl_backend_state_t;

typedef enum lbrl_scheduler_type {
    LBRL_SCHEDULER_MAGLEV = 0,
    LBRL_SCHEDULER_SED = 1,
    LBRL_SCHEDULER_LSQ = 2,
    LBRL_SCHEDULER_ALIAS = 3, /* weighted random */
    LBRL_SCHEDULER_P2C = 4,   /* power of two choices */
    LBRL_SCHEDULER_COUNT
} lbrl_scheduler_type_t;

/* Which flows schedulers that compare loads (sed, lsq, p2c) count. */
typedef enum lbrl_load {
    LBRL_LOAD_OPEN = 0, /* those that are open: n_flow_on */
    LBRL_LOAD_ACTIVE =
        1, /* n_active, and new ones until they have asked, 30 s at most. TCP at level full, else as OPEN */
    LBRL_LOAD_COUNT
} lbrl_load_t;

/* How packets reach a backend. GRE and L3DSR are one-way: the backend answers the client itself, from the VIP's address, and
 * ports stay what they are. */
typedef enum lbrl_forwarding {
    LBRL_FORWARD_NAT = 0, /* both addresses and both ports are translated, both ways */
    LBRL_FORWARD_GRE =
        1, /* whole packets in GRE over IPv4 or IPv6, from a NAT source's address of that family */
    LBRL_FORWARD_L3DSR =
        2, /* the backend's address as destination; the VIP's DSCP tells it which VIP it was */
} lbrl_forwarding_t;

/* What becomes of packets that cannot be served. */
typedef enum lbrl_refusal {
    LBRL_REFUSE_REJECT = 0, /* TCP gets a RST, UDP an ICMP port unreachable; bounded in rate */
    LBRL_REFUSE_DROP = 1,
    LBRL_REFUSE_COUNT
} lbrl_refusal_t;

typedef struct lbrl_backend_config {
    uint64_t id; /* stable; not 0. The same id with another address or port is another backend */
    lbrl_address_t address;
    uint16_t port;
    uint8_t state; /* lbrl_backend_state_t */
    float weight;  /* configured; in force until lbrl_weights_set(). 0 stops new flows only */
} lbrl_backend_config_t;

typedef struct lbrl_vip_config {
    uint64_t id; /* not 0 */
    lbrl_address_t addresses[LBRL_ADDRESSES_MAX];
    uint32_t address_count; /* >= 1, of one family */
    uint16_t port;
    uint8_t protocol;         /* 6 or 17 */
    uint8_t client_affinity;  /* all flows of a client address to one backend, by Maglev */
    uint8_t when_no_backends; /* lbrl_refusal_t: of new flows that no backend takes */
    uint8_t
        when_no_flow; /* lbrl_refusal_t: of TCP packets that belong to no flow. Always dropped where several nodes
                                 share the load, and with GRE and L3DSR */
    uint8_t scheduler;     /* lbrl_scheduler_type_t */
    uint8_t load;          /* lbrl_load_t */
    uint8_t feature_level; /* lbrl/features.h; takes effect while frames are bound */
    uint8_t
        forwarding; /* lbrl_forwarding_t; immutable. Backends are of the VIP's family, but with GRE of any */
    uint8_t dscp; /* L3DSR: 1 .. 63; else 0 */
    uint16_t
        mtu; /* GRE: of the way to the backends, outer header included; 0: 1500. At least 1280, and for a VIP
                     of IPv6 1304, or 1324 if a backend is of IPv6 too */
    uint32_t table_size; /* Maglev's M, a prime; 0: 65537 */
    lbrl_timeouts_t timeouts;
    uint32_t drain_timeout;                /* ms */
    const lbrl_backend_config_t *backends; /* the complete set, at most LBRL_BACKENDS_MAX */
    uint32_t backend_count;
} lbrl_vip_config_t;

/* Why a configuration is refused, for people: "<field>: <what is wrong>; <what to do>". */
typedef struct lbrl_reason {
    char text[160];
} lbrl_reason_t;

/* Whether a configuration is one, whatever else there is: LBRL_OK, or LBRL_ERR_INVALID with a reason, which may be NULL. */
int lbrl_vip_check(const lbrl_vip_config_t *config, lbrl_reason_t *reason);

/*
 * Makes a VIP be as configured: added if its id is new, else changed by difference; the same
 * configuration twice changes nothing. The VIP changes whole or not at all. New backends get a free
 * slot (with a new generation). The TCP flows of a missing one go on until its server stops answering, drain_timeout at
 * most; its UDP flows, and a SYN from the port of one of its flows, go to another backend that takes new flows, if there
 * is one. If a backend of another id has the address and port of a missing one, that is the same server: the flows of the
 * missing one go on as those of this backend. A slot is reused when its flows are gone. Where slots run short the VIP
 * moves to twice as many: slot numbers stay, frames must be bound anew (lbrl_vip_status().slots).
 */
int lbrl_vip_set(lbrl_t *lb, const lbrl_vip_config_t *config, uint64_t now_us);

/*
 * How many slots lbrl_vip_set() would leave the VIP with, for frames that are made before it; refuses what that refuses, but
 * for want of memory. Changes nothing.
 */
int lbrl_vip_slots(const lbrl_t *lb, const lbrl_vip_config_t *config, uint32_t *slots);

/*
 * Makes room for a VIP that was refused with LBRL_ERR_EXHAUSTED: the removed VIP that has drained longest, if there is one,
 * ends its drain. Clients are told so for a minute; then its place and slots are free. Further calls for the same VIP do
 * nothing until then.
 */
void lbrl_drain_end_for(lbrl_t *lb, uint64_t vip_id, uint64_t now_us);

/*
 * The configuration in force, as the arena has it: what lbrl_vip_set() takes to change nothing. Fills up to
 * `max` of `backends` in slot order, `config->backend_count` says how many there are. A VIP that is being
 * removed has its addresses still, and no backends. LBRL_ERR_NOT_FOUND if there is no such VIP.
 */
int lbrl_vip_config(const lbrl_t *lb, uint64_t id, lbrl_vip_config_t *config,
                    lbrl_backend_config_t *backends, uint32_t max);

/* Refuses new flows, drains and then removes a VIP. Setting it again before that revives it. */
int lbrl_vip_remove(lbrl_t *lb, uint64_t id, uint64_t now_us);

/*
 * Weights and bases in force, one per slot; a slot whose generation differs from generations[slot] keeps its
 * own, as do slots beyond count. A base of 0 stands for the common one, 1 / (nodes x workers); `bases` may be
 * NULL: 0 for all. Refuses weights that are not finite, negative or above LBRL_WEIGHT_MAX, and bases above
 * LBRL_BASE_MAX likewise. lbrl_vip_set() keeps these weights, on whatever scale they are: a backend that it
 * adds starts at the mean of those that take flows, times its configured weight over the mean of
 * theirs, with the common base. lbrl_weights_reset() returns to the configured weights and the common base.
 */
int lbrl_weights_set(lbrl_t *lb, uint64_t vip_id, const float *weights, const float *bases,
                     const uint8_t *generations, uint32_t count);
int lbrl_weights_reset(lbrl_t *lb, uint64_t vip_id);

/*
 * Takes weights and bases from an agent's actions object (a view that lbrl_shm_open() has checked): 1 when new
 * ones came into force, 0 when there were none, a negative lbrl_shm_error_t or LBRL_ERR_NOT_FOUND
 * (below every lbrl_shm_error_t). Call it every interval. From the first weights on the VIP follows its agent:
 * its grace (lbrl_config_t) after the newest frame the common base comes back, the weights decay within
 * LBRL_ORPHAN_DECAY_MS to equal ones and the scheduler to `lsq`, until weights come again.
 */
int lbrl_weights_follow(lbrl_t *lb, uint64_t vip_id, const lbrl_shm_view_t *view, uint64_t now_us);

/*
 * The object that was followed is gone, or another has its name: what the next one says is new, whatever its
 * sequence. Without weights from a next one the configured weights come back, its grace after the first of such
 * calls in a row.
 */
int lbrl_weights_unfollow(lbrl_t *lb, uint64_t vip_id, uint64_t now_us);

/* ---- shared view ----
 *
 * The balancers of a VIP may exchange their counts of flows; schedulers that compare flows then compare those of all
 * balancers. Transport is the caller's. */

/* Flows at a backend that schedulers compare (lbrl_load_t). */
typedef struct lbrl_backend_flows {
    uint64_t backend; /* id */
    uint32_t flows;
} lbrl_backend_flows_t;

/* How the flows of the peers are estimated between two exchanges; see shared.c. */
typedef struct lbrl_sharing {
    float anticipate; /* 0 .. 1: each peer's change since the exchange, in own changes */
    float doubt; /* 0 .. 1: weight of an estimate from own flows alone; more for longer intervals */
    float mirror;      /* 0 .. 1: weight of own flows now, against their mean, in that estimate */
    uint32_t mean_ms;  /* time constant of that mean, > 0 */
    uint32_t stale_ms; /* after which the view is not used, > 0 */
} lbrl_sharing_t;

/* For an exchange every 20 ms: 0.5, 0.2, 0.5, 700, 1000. */
lbrl_sharing_t lbrl_sharing_default(void);

/* Lets a VIP have a shared view; NULL: no longer. */
int lbrl_sharing_set(lbrl_t *lb, uint64_t vip_id, const lbrl_sharing_t *how);

/* Own flows, over all workers, of up to `max` configured backends; `count`: how many there are. */
int lbrl_flows(const lbrl_t *lb, uint64_t vip_id, lbrl_backend_flows_t *flows, uint32_t max,
               uint32_t *count);

/* Flows of all peers together, as of now; a backend that is not listed has none. LBRL_ERR_INVALID before
 * lbrl_sharing_set(). */
int lbrl_peers_set(lbrl_t *lb, uint64_t vip_id, const lbrl_backend_flows_t *flows, uint32_t count,
                   uint64_t now_us);

#define LBRL_ORPHAN_GRACE_MS 30000u
#define LBRL_ORPHAN_DECAY_MS 30000u

/*
 * Binds a frames object to a VIP: features are recorded into it and lbrl_publish() writes its
 * frames. The handle comes from lbrl_frames_format() with at least our workers and exactly the VIP's
 * slots (lbrl_vip_status()); where another was bound, call lbrl_frames_carry() first. Slots are opened
 * and closed in it by the core. NULL unbinds. Handle and mapping must stay until another binding
 * has replaced them AND lbrl_frames_released() says so.
 */
int lbrl_frames_bind(lbrl_t *lb, uint64_t vip_id, lbrl_frames_t *frames);

/* Whether no worker can still write into what was bound earlier; see lbrl_control_tick(). */
int lbrl_frames_released(const lbrl_t *lb, const lbrl_frames_t *frames);

/* Sums the workers and writes one frame of every bound VIP; call it every interval (200 ms). */
void lbrl_publish(lbrl_t *lb, uint64_t now_us);

/* Frees what workers have left behind, moves drains on, reuses slots; call it a few times a second.
 */
void lbrl_control_tick(lbrl_t *lb, uint64_t now_us);

/* ------------------------------------------------------------------------------------------ status
 */

typedef struct lbrl_backend_status {
    uint64_t id;
    lbrl_address_t address;
    uint16_t port;
    uint16_t slot;
    uint8_t state;      /* lbrl_backend_state_t in force; DRAINING too when removed */
    uint8_t generation; /* of the slot */
    uint8_t removed;    /* no longer configured: its flows go on until it goes */
    float weight;       /* in force */
    float base;         /* likewise: flows that sed and p2c add to the count */
    int64_t open_flows;
    int64_t entries; /* flows that hold an entry, closed ones included */
    uint64_t flows, packets,
        bytes; /* since the backend was added or the process started; both directions */
} lbrl_backend_status_t;

typedef struct lbrl_vip_status {
    uint64_t id;
    uint32_t slots;           /* width of tables and frames */
    uint32_t backend_count;   /* slots in use */
    uint32_t unrepresentable; /* backends whose weight is too small for the Maglev table */
    uint8_t removing;
    uint8_t feature_level;
    uint64_t actions_sequence;   /* of the weights in force, 0 for none */
    const lbrl_frames_t *frames; /* bound, or NULL */
} lbrl_vip_status_t;

/* Fills `status` and up to `max` backends in slot order; LBRL_ERR_NOT_FOUND if there is no such
 * VIP. */
int lbrl_vip_status(const lbrl_t *lb, uint64_t vip_id, lbrl_vip_status_t *status,
                    lbrl_backend_status_t *backends, uint32_t max);

/* Writes up to `max` ids of VIPs (those being removed included); returns how many there are. */
uint32_t lbrl_vip_ids(const lbrl_t *lb, uint64_t *ids, uint32_t max);

typedef struct lbrl_stats {
    uint64_t packets, bytes; /* taken in */
    uint64_t forwarded, replied, passed, handed_over;
    uint64_t dropped[LBRL_DROP_COUNT];
    uint64_t flows_created, flows_recycled; /* recycled: half-open ones that made room */
    uint64_t flows_evicted; /* open ones that made room, for they had been silent for longest */
    uint32_t flows, flow_capacity, half_open;
} lbrl_stats_t;

/* Sums over workers since lbrl_open(); any thread. */
void lbrl_stats(const lbrl_t *lb, lbrl_stats_t *stats);

/* One flow, for tests and diagnosis. */
typedef struct lbrl_flow_info {
    lbrl_address_t client, vip, backend, source;
    uint16_t client_port, vip_port, backend_port, nat_port;
    uint64_t vip_id;
    uint16_t slot;
    uint8_t partition, protocol;
    uint8_t state; /* lbrl_flow_state_t */
    uint8_t open;  /* counted in open_flows */
    uint32_t idle_ms;
} lbrl_flow_info_t;

typedef enum lbrl_flow_state {
    LBRL_FLOW_FREE = 0,
    LBRL_FLOW_SYN = 1,     /* half open: the client's SYN was forwarded */
    LBRL_FLOW_SYN_ACK = 2, /* half open: the server has answered */
    LBRL_FLOW_ESTABLISHED = 3,
    LBRL_FLOW_CLOSING = 4,      /* FIN or RST seen; out of the counts */
    LBRL_FLOW_UDP_NEW = 5,      /* half open: no reply yet */
    LBRL_FLOW_UDP_EXCHANGE = 6, /* one question, one answer */
    LBRL_FLOW_UDP_STREAM = 7,
    LBRL_FLOW_UDP_ANSWERED = 8, /* port 53 after as many answers as questions; out of the counts */
    LBRL_FLOW_STATES
} lbrl_flow_state_t;

/* Steps through the flow table; *cursor starts at 0; returns 0 at the end. Exact only while workers
 * stand still. */
int lbrl_flow_next(const lbrl_t *lb, uint64_t *cursor, uint64_t now_us, lbrl_flow_info_t *flow);

/* The same, but looks at no entry from `end` on: for callers that must not wait for a whole table. Returns 0 with *cursor
 * at `end`, or elsewhere if the table ended. */
int lbrl_flow_next_before(const lbrl_t *lb, uint64_t *cursor, uint64_t end, uint64_t now_us,
                          lbrl_flow_info_t *flow);

/* ------------------------------------------------------------------------------------------
 * workers */

/* Worker `index`; valid until lbrl_close(). */
lbrl_worker_t *lbrl_worker(lbrl_t *lb, uint32_t index);

/*
 * Processes up to LBRL_VECTOR_MAX packets and sets each one's verdict. Enters and leaves the
 * worker's epoch itself, so a thread that waits for packets holds nothing back.
 */
void lbrl_process(lbrl_worker_t *worker, lbrl_packet_t *packets, uint32_t count, uint64_t now_us);

/*
 * Takes up to `max` held packets to be processed by this worker now: their first fragment has come, or will not come any
 * more. Call it after lbrl_process() and lbrl_worker_tick() until it returns 0. At the end, with now_us UINT64_MAX, it
 * returns all, to be freed.
 */
uint32_t lbrl_held_take(lbrl_worker_t *worker, lbrl_packet_t *packets, uint32_t max,
                        uint64_t now_us);

/*
 * Ages a share of the worker's flows in proportion to the time since the last call, so that the
 * whole table is seen about once a second, and shares its counts. Call it at least every 100 ms,
 * idle or not; at most every millisecond is useful.
 */
void lbrl_worker_tick(lbrl_worker_t *worker, uint64_t now_us);

/*
 * Handover: gives a packet (its buffer included) to the worker named in packet->worker. Returns 0,
 * or -1 if the ring is full; then the packet is still the caller's and has been counted as
 * `handover_full`. Wake the other thread yourself.
 */
int lbrl_handover(lbrl_worker_t *from, const lbrl_packet_t *packet);

/* Takes up to `max` packets that others have handed to this worker; process them like its own. */
uint32_t lbrl_handover_take(lbrl_worker_t *to, lbrl_packet_t *packets, uint32_t max);

#ifdef __cplusplus
}
#endif
#endif
