/*
 * lb_rl: the load balancer in VPP. Nodes, FIB entries, CLI, binary API and statistics around lbrl; what decides
 * about packets is the core, what keeps arena, frames and weights in shared memory is lbio.
 *
 * Threading. Everything but the packet nodes (node.c) runs on VPP's main thread. Packet nodes read `lb_rl_main`,
 * whose members marked "workers" change only under the worker barrier.
 */
#ifndef LB_RL_H
#define LB_RL_H

#include <stdbool.h>

#include <vlib/vlib.h>
#include <vnet/dpo/dpo.h>
#include <vnet/fib/fib_source.h>
#include <vnet/fib/fib_types.h>
#include <vnet/ip/ip46_address.h>

#include "lbio.h"
#include "lbrl/lbrl.h"

/* What startup.conf's `lb-rl` section, `lb rl enable` or the API say; fixed while the plugin is enabled. */
typedef struct lb_rl_settings {
    char directory[256]; /* of the shared-memory objects */
    u32 flows, vips, slots;
    u32 interval_ms, grace_ms;
    u32 client_table,
        server_table;    /* FIB tables towards clients and towards backends, of both families */
    i64 group;           /* that may read frames, -1: the process's */
    bool follows_agents; /* weights that agents write come into force; may change while enabled */
} lb_rl_settings_t;

#define LB_RL_INTERVAL_MAX_MS 60000u
#define LB_RL_GRACE_MAX_MS    3600000u

/* Length of a policy's name, its end included: a label as in DNS. */
#define LB_RL_POLICY_SIZE 64u

#define LB_RL_KEY_SIZE 16u /* of the Maglev tables' key */

/* Most NAT sources that can hold flows at a time: those in force and those going. */
#define LB_RL_SOURCES_MAX 16

/* Which way a packet goes; also the index of our DPO and of `fib`. */
typedef enum lb_rl_side { LB_RL_TO_SERVER, LB_RL_TO_CLIENT, LB_RL_SIDES } lb_rl_side_t;

/* A host route that sends packets to us. */
typedef struct lb_rl_route {
    fib_prefix_t prefix;
    u32 fib_index;
    lb_rl_side_t side;
} lb_rl_route_t;

/* Whose a row is: a backend of a VIP, as long as it has its slot. Compared as bytes. */
typedef struct lb_rl_row_key {
    u64 vip, backend;
    u32 slot, generation;
} lb_rl_row_key_t;

/* Rows of the statistics segment. */
typedef struct lb_rl_row {
    lb_rl_row_key_t key;
    u32 links
        [3]; /* of the segment's directory: traffic, flows, open flows; ~0 where another row has the name */
    bool seen; /* in the pass at hand */
} lb_rl_row_t;

/* A binary API client that wants events. */
typedef struct lb_rl_subscriber {
    u32 client_index, client_pid;
} lb_rl_subscriber_t;

typedef struct lb_rl_main {
    /* workers */
    lbrl_worker_t **workers; /* by thread; NULL where the thread has no partitions of its own */
    u16 *threads;            /* VPP's thread by the core's worker */
    ip46_address_t sources[LB_RL_SOURCES_MAX];
    u32 source_count;
    u32 fib[LB_RL_SIDES]
           [2]; /* where rewritten packets are looked up: [side that they go to][IPv6] */
    u32 handoff[LB_RL_SIDES][2]; /* frame queues: [side][IPv6] */
    u8 **scratch;                /* by thread: room for one super-packet */
    bool enabled;

    /* main thread */
    lbio_t *io; /* NULL while disabled */
    lbrl_t *core;
    lb_rl_settings_t settings;
    bool at_start; /* startup.conf has an `lb-rl` section */
    char policy
        [LB_RL_POLICY_SIZE]; /* that agents are to use; empty: those that they are told elsewhere */
    char instance_id[40];
    lbrl_attach_report_t attached;
    lbrl_stats_t cleared; /* counters when they were last cleared */
    lb_rl_route_t *routes;
    u8 *features;      /* by sw_if_index: the return feature is on */
    u32 tables[2];     /* FIB indexes held, towards clients: [IPv6] */
    u64 step_us;       /* of the last frame */
    u64 rows_us;       /* of the last look at the statistics' rows */
    u64 *known_vips;   /* that events were sent for */
    lb_rl_row_t *rows; /* pool */
    lb_rl_subscriber_t *subscribers;
    dpo_type_t dpo;
    fib_source_t source;
    u16 message_base;
    vlib_log_class_t log;
} lb_rl_main_t;

extern lb_rl_main_t lb_rl_main;
extern vlib_node_registration_t lb_rl_ip4_node, lb_rl_ip6_node, lb_rl_nat_return_ip4_node,
    lb_rl_nat_return_ip6_node, lb_rl_tick_node, lb_rl_process_node;

/* ---- node.c ---- */

/* Frees the fragments that wait for their first; while the workers stand still. */
void lb_rl_held_free(vlib_main_t *vm);

/* ---- lb_rl.c: life. Errors are in `problem`, as a sentence that names what is wrong and what to do. ---- */

lb_rl_settings_t lb_rl_settings_default(void);
int lb_rl_enable(vlib_main_t *vm, const lb_rl_settings_t *settings, lbio_problem_t *problem);

/* Lets go of everything; `withdraw`: the objects too, so that nobody goes on with the flows. */
void lb_rl_disable(vlib_main_t *vm, bool withdraw);

/* Ids of the core's VIPs, those being removed included: a new vector. */
u64 *lb_rl_vip_ids(void);

/* Fills in `problem` and returns -1 while the plugin is not enabled. */
int lb_rl_ready(lbio_problem_t *problem);
int lb_rl_refuse(lbio_problem_t *problem, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

int lb_rl_vip_set(vlib_main_t *vm, const lbrl_vip_config_t *config, lbio_problem_t *problem);
int lb_rl_vip_remove(vlib_main_t *vm, u64 id, lbio_problem_t *problem);

/* Whether agents' weights come into force, and the policy that agents are to use meanwhile instead of those configured;
 * empty: those. */
int lb_rl_agent_set(bool follow, const char *policy, lbio_problem_t *problem);

/* Key of the Maglev tables, which all nodes of a DataPlane share, and their number. */
int lb_rl_node_set(const u8 key[LB_RL_KEY_SIZE], u32 nodes, lbio_problem_t *problem);

int lb_rl_sources_set(vlib_main_t *vm, const lbrl_nat_source_t *sources, u32 count,
                      lbio_problem_t *problem);

/* ---- check.c: 0, or -1 with `problem`. ---- */

int lb_rl_sources_check(const lbrl_nat_source_t *sources, u32 count, lbio_problem_t *problem);
int lb_rl_settings_check(const lb_rl_settings_t *settings, lbio_problem_t *problem);
int lb_rl_policy_check(const char *name, lbio_problem_t *problem);

/* ---- routes.c ---- */

/* Registers DPO type and FIB source. */
void lb_rl_routes_init(void);

/* Holds the tables of the settings. */
void lb_rl_tables_lock(void);
void lb_rl_tables_unlock(void);

/* Brings FIB entries and the return path's filter in line with the core. */
void lb_rl_routes_update(vlib_main_t *vm);
void lb_rl_routes_remove(vlib_main_t *vm);

/* Whether the NAT sources of the return path are the core's. */
bool lb_rl_filter_is_right(void);

/* Turns the NAT return features of all interfaces on or off. */
void lb_rl_features_set(bool on);

/* ---- chain.c ---- */

/* Sets length and tailroom of a chain's packet, whose headers (and all of an ICMP packet, and what a partial checksum in a
 * tunnel is still to cover) are gathered in its first buffer. -1: they are larger than a buffer. */
int lb_rl_chain_import(vlib_main_t *vm, vlib_buffer_t *b, lbrl_packet_t *packet);

/* ---- segment.c ---- */

#define LB_RL_NO_BUFFER (~0u)

/* Makes room on every thread; while the workers stand still. */
void lb_rl_scratch_reserve(void);

/* Copies a super-packet in a tunnel into one piece, valid until the thread's next. -1: it is larger than a packet can be,
 * or shorter than it says. */
int lb_rl_super_gather(vlib_main_t *vm, const lbrl_packet_t *packet, lbrl_packet_t *whole);

/* A new buffer with segment `index`, or LB_RL_NO_BUFFER at the end; then `failed` says whether any are missing. */
u32 lb_rl_super_segment(vlib_main_t *vm, const lbrl_packet_t *whole, u32 index, bool *failed);

/* ---- process.c ---- */

u64 lb_rl_now_us(void);

/* ---- stats.c ---- */

void lb_rl_rows_update(void);
void lb_rl_rows_remove(void);

/* Entries of the flow table that the main thread reads before it goes on with other work: 0.1 to 0.4 ms. */
#define LB_RL_ENTRIES_AT_ONCE 32768u

/* ---- status.c ---- */

/* While enabled: since then, or since the counters were last cleared. */
lbrl_stats_t lb_rl_stats(bool since_clear);
int lb_rl_stats_clear(lbio_problem_t *problem);

/* Bytes of shared memory. */
typedef struct lb_rl_memory {
    u64 arena, frames; /* frames: of all VIPs */
    u32 vips;          /* those being removed included */
} lb_rl_memory_t;

lb_rl_memory_t lb_rl_memory(void); /* while enabled */

/* ---- watch.c ---- */

/* Ends VPP once one of its threads makes no progress: its supervisor starts it again, and it takes the flows over. */
void lb_rl_watch_start(void);
void lb_rl_watch_stop(void);

/* ---- api.c ---- */

clib_error_t *lb_rl_api_init(vlib_main_t *vm);

/* Tells subscribers of VIPs that have come or gone. */
void lb_rl_events_send(void);

/* Tells subscribers what agents are to do now. */
void lb_rl_agent_event_send(void);

/* ---- format.c ---- */

format_function_t format_lb_rl_address;  /* const u8 [16] */
format_function_t format_lb_rl_endpoint; /* const u8 [16], int port */

/* ---- words.c ---- */

/* u32: the core's number; and from the word to it, u8 *. */
format_function_t format_lb_rl_protocol, format_lb_rl_scheduler, format_lb_rl_forwarding,
    format_lb_rl_level, format_lb_rl_load, format_lb_rl_refusal, format_lb_rl_backend_state,
    format_lb_rl_flow_state;
unformat_function_t unformat_lb_rl_protocol, unformat_lb_rl_scheduler, unformat_lb_rl_forwarding,
    unformat_lb_rl_level, unformat_lb_rl_load, unformat_lb_rl_refusal, unformat_lb_rl_backend_state;
format_function_t format_lb_rl_timeouts;    /* const lbrl_timeouts_t * */
unformat_function_t unformat_lb_rl_timeout; /* lbrl_timeouts_t *: one of them and its seconds */

/* ---- unformat.c ---- */

#define LB_RL_NO_PORT (~0u)

/* What the command line calls a VIP by: any of its addresses. */
typedef struct lb_rl_vip_name {
    lbrl_address_t address;
    u32 port; /* not checked yet; LB_RL_NO_PORT: none was read */
    u8 protocol;
} lb_rl_vip_name_t;

unformat_function_t unformat_lb_rl_address;      /* lbrl_address_t * */
unformat_function_t unformat_lb_rl_agents;       /* bool *: follow, ignore */
unformat_function_t unformat_lb_rl_number;       /* u32 *: decimal, not wrapped around */
unformat_function_t unformat_lb_rl_milliseconds; /* u32 *, from seconds */
unformat_function_t unformat_lb_rl_vip_name; /* lb_rl_vip_name_t *: <address> port <n> [tcp|udp] */

/* Reads one setting. -1 with `problem` where there is none that is known and readable. */
int lb_rl_setting_read(unformat_input_t *input, lb_rl_settings_t *settings,
                       lbio_problem_t *problem);

/* A command's line of input: what begins without an error has to end. */
int lb_rl_line_begin(unformat_input_t *input, unformat_input_t *line, lbio_problem_t *problem);
clib_error_t *lb_rl_line_end(unformat_input_t *line, int failed, const lbio_problem_t *problem);

/* -1, with `problem` saying what comes next in the input, and what would be known. */
int lb_rl_unknown(unformat_input_t *input, lbio_problem_t *problem, const char *known);

static inline lbrl_address_t lb_rl_address_of(const ip46_address_t *address)
{
    lbrl_address_t out = {.bytes = {[10] = 0xff, [11] = 0xff}};
    if (ip46_address_is_ip4(address)) {
        clib_memcpy(out.bytes + 12, &address->ip4, sizeof(address->ip4));
    } else {
        clib_memcpy(out.bytes, &address->ip6, sizeof(address->ip6));
    }
    return out;
}

static inline bool lb_rl_is_ip4(const u8 bytes[16])
{
    static const u8 mapped[12] = {[10] = 0xff, [11] = 0xff};
    return clib_memcmp(bytes, mapped, sizeof(mapped)) == 0;
}

#endif
