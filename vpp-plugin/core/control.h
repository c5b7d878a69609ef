/* The control side's parts. All of it belongs to the control thread; see internal.h for what workers see. */
#ifndef LBRL_CONTROL_H
#define LBRL_CONTROL_H

#include "internal.h"

/* ------------------------------------------------------------------------------- memory (retire.c) */

/* Zeroed memory aligned to 64 bytes, or NULL. Large blocks take no real memory until touched. */
void *memory_take(size_t size);
/* For arrays of which little is used: with huge pages all of it would take memory. */
void *memory_take_sparse(size_t size);
void memory_free(void *memory);

/* Frees memory of memory_take() when every worker has left the vectors that may still see it. NULL is ignored. */
void retire(lbrl_t *lb, const void *memory);

/* Notes that something has been published or withdrawn; returns the epoch for epoch_passed(). */
uint64_t epoch_next(lbrl_t *lb);
bool epoch_passed(const lbrl_t *lb, uint64_t epoch);

/* Frees what can be freed; `all`: everything, at the end. */
void retire_collect(lbrl_t *lb, bool all);

/* ------------------------------------------------------------------------------- endpoints (endpoints.c) */

enum { ENDPOINT_HEADS = 4096 }; /* of the table of endpoints */

/* The endpoint of an address and port, with port maps for all sources of its family; NULL without memory. */
endpoint_t *endpoint_take(lbrl_t *lb, const ip_t *address, uint16_t port, uint8_t protocol);
void endpoint_release(lbrl_t *lb, endpoint_t *endpoint);

/* Gives every endpoint of the source's family a map for it; 0 or LBRL_ERR_MEMORY. */
int endpoints_add_source(lbrl_t *lb, uint32_t source);
void endpoints_drop_source(lbrl_t *lb, uint32_t source);

/* After an attach: fills the rings of maps that hold flows. */
void endpoints_settle(lbrl_t *lb);
void endpoints_free(lbrl_t *lb);

/* ------------------------------------------------------------------------------- tables (tables.c) */

/* Builds and publishes a table from lb->vips and lb->node. `remap`: addresses, ports or removals changed. */
int table_publish(lbrl_t *lb, bool remap);

/* Makes the published form of VIP `index` from its record; the caller publishes. */
vip_t *vip_make(const lbrl_t *lb, uint32_t index);

/* Builds and publishes the scheduler of a VIP from its slots; see vip_publish(). */
int schedule_publish(lbrl_t *lb, uint32_t index);

/* Memory for the arrays of a VIP. */
vip_store_t *store_make(const lbrl_t *lb);

/* Makes and publishes every worker's sink from record and bound frames; see vip_publish(). */
int sinks_publish(lbrl_t *lb, uint32_t index);

/* ------------------------------------------------------------------------------- VIPs (vips.c, vipcheck.c) */

/* Whether a record of the arena, which passed its check, could have come from one. Addresses and slots excepted. */
bool vip_record_valid(const arena_vip_t *record);

/* Whether an address, with the port of the record at a directory index, is that of another VIP or of a NAT source. */
bool vip_address_taken(const lbrl_t *lb, uint32_t index, const arena_vip_t *record,
                       const ip_t *address);

/* Directory index of a VIP, or UINT32_MAX. */
uint32_t vip_index(const lbrl_t *lb, uint64_t id);

/* Parts of what workers know of a VIP, in the order in which they are told: a VIP that has become wider needs sinks as wide,
 * and a scheduler that its slots are in. */
enum {
    DUE_SINKS = 1,
    DUE_SCHEDULE = 2,
    DUE_VIP = 4,
    DUE_ALL = DUE_SINKS | DUE_SCHEDULE | DUE_VIP,
};

/* Tells workers of parts of a VIP that have changed, and of those that are due from earlier calls. What there is no memory
 * for stays due. 0 or LBRL_ERR_MEMORY. */
int vip_publish(lbrl_t *lb, uint32_t index, unsigned parts);

/* Width of a VIP's tables, at least. */
enum { SLOTS_MIN = 8 };

/* Slots of each directory place that no VIP of another place takes while they fit: a power of two. Together they are at
 * most half of all, in order of the places, at the start; wider VIPs share the rest. 0: the directory has too few. */
uint32_t slots_share(const lbrl_t *lb);

/* First of `count` free slots for the VIP at a directory place, or UINT32_MAX. It holds `held` slots, none if it is new. */
uint32_t slots_find(const lbrl_t *lb, uint32_t index, uint32_t held, uint32_t count);

/* Sums over workers. */
int64_t slot_entries(const lbrl_t *lb, uint32_t index, uint32_t slot);

/* Whether a weight above 0 is all that a backend needs to take flows. Agents have weight 0 for all others. */
static inline bool slot_in_service(const slot_t *slot)
{
    return slot->state != SLOT_FREE && slot->wanted == SLOT_ACTIVE && !slot->removed;
}

/* Brings the states in force of a VIP's slots in line with what is wanted of them and the time; true if workers must be told. */
bool slots_settle(lbrl_t *lb, uint32_t index, uint64_t now_ms);

/* The lbrl_backend_state_t of a slot in use that status reports: one of weight 0 is active, and takes no new flows. */
uint8_t slot_reported(const slot_t *slot);

/* Writes a slot's changeable part to the arena. */
void slot_store(lbrl_t *lb, uint32_t index, uint32_t slot);

/* Takes a free slot into use for a backend; `endpoint` is given away. */
void slot_open(lbrl_t *lb, uint32_t index, uint32_t slot, const lbrl_backend_config_t *backend,
               endpoint_t *endpoint);

/* ------------------------------------------------------------------------------- the rest */

/* Sources: brings those held in line with those wanted (sources.c). */
int sources_settle(lbrl_t *lb);

/* Whether a source's address and ports are such as a source may have. */
bool source_valid(const lbrl_nat_source_t *source);

/* Weights of VIPs whose agent fell silent decay in steps; after the last one the scheduler is lsq (weights.c). */
enum { ORPHAN_STEPS = 10 };
void weights_tick(lbrl_t *lb, uint32_t index, uint64_t now_us);

/* Shared view of a VIP (shared.c): whether there is one that is not stale; flows of the peers at a slot, -1 without one. */
bool shared_view_fresh(const vip_store_t *store);
float shared_view_flows(const vip_store_t *store, uint32_t slot);

/* What the picker adds to the count of a slot. */
float base_in_force(const lbrl_t *lb, const vip_store_t *store, uint32_t slot);
void shared_view_tick(lbrl_t *lb, uint32_t index, uint64_t now_us);

/* What is added to the count of a slot that has no base of its own. */
float common_base(const lbrl_t *lb);

/* The weight that a backend starts with: its configured one, as it compares with those in force. */
float weights_of_newcomer(const lbrl_t *lb, uint32_t index, float configured);

/* Flow entries and directory records found in the arena are checked before they are used (attach.c). */
void attach_flows(lbrl_t *lb, uint64_t now_us, lbrl_attach_report_t *report);
int attach_directory(lbrl_t *lb, uint64_t now_us, lbrl_attach_report_t *report);

/* Which partition an entry that somebody else wrote belongs to; LBRL_PARTITIONS if it does not prove itself. */
uint32_t attach_partition_of(const lbrl_t *lb, const flow_t *flow);

/* Whether the timeout of an entry with a partition has ended. */
bool attach_is_expired(const lbrl_t *lb, const flow_t *flow, uint32_t now_ms);

#endif
