/* A load balancer's beginning and end, and how it takes over an arena of another shape. */
#include "control.h"
#include "reply.h"
#include "ring.h"
#include "side.h"

enum {
    /* Of a partition's entries, one in so many may be half open. A flood thus leaves the closed flows, whose ports rest, most
     * of the table. But these entries must last while a SYN-ACK and an ACK pass queues that the flood has filled, and a
     * queue of packets before the workers holds 2,000. */
    HALF_OPEN_SHARE = 4,
};

lbrl_timeouts_t lbrl_timeouts_default(void)
{
    return (lbrl_timeouts_t){10000, 7440000, 10000, 10000, 30000, 180000, 1000};
}

size_t lbrl_arena_size(const lbrl_config_t *config)
{
    arena_header_t plan;
    return arena_plan(&plan, config->flows, config->vips, config->slots) ? plan.size : 0;
}

lbrl_worker_t *lbrl_worker(lbrl_t *lb, uint32_t index)
{
    return index < lb->worker_count ? &lb->workers[index] : NULL;
}

/* ------------------------------------------------------------------------------- parts */

/* An index has a bucket for 10 entries (index_buckets()). */
static_assert(2 * (sizeof(flow_t) + sizeof(flow_keep_t) + sizeof(side_t) + sizeof(unanswered_t) +
                   INDEXES * (sizeof(bucket_t) / 10 + 1)) <=
                  LBRL_FLOW_BYTES,
              "two flow tables fit into what is set aside for one entry each");

static bool make_partitions(lbrl_t *lb)
{
    uint32_t flows = lb->arena.flow_count / LBRL_PARTITIONS;
    uint32_t buckets = index_buckets(flows);
    size_t bucket_bytes = (size_t)buckets * INDEXES * LBRL_PARTITIONS * sizeof(bucket_t);
    size_t keep_bytes = (size_t)flows * LBRL_PARTITIONS * sizeof(flow_keep_t);
    lb->partitions = memory_take(LBRL_PARTITIONS * sizeof(partition_t));
    lb->index_memory = memory_take(bucket_bytes + keep_bytes);
    lb->sides = memory_take((size_t)lb->arena.flow_count * sizeof(side_t));
    lb->unanswered = memory_take_sparse((size_t)lb->arena.flow_count * sizeof(unanswered_t));
    if (!lb->partitions || !lb->index_memory || !lb->sides || !lb->unanswered) {
        return false;
    }
    bucket_t *bucket = lb->index_memory;
    lb->buckets = bucket;
    lb->bucket_count = buckets;
    lb->partition_flows = flows;
    flow_keep_t *keep = (flow_keep_t *)(void *)((uint8_t *)lb->index_memory + bucket_bytes);
    uint32_t half_open = flows < HALF_OPEN_SHARE ? 1 : flows / HALF_OPEN_SHARE;
    for (uint32_t i = 0; i < LBRL_PARTITIONS; i++) {
        lb->partitions[i] = (partition_t){.index = {{bucket, buckets}, {bucket + buckets, buckets}},
                                          .flows = lb->arena.flows + (size_t)i * flows,
                                          .keeps = keep + (size_t)i * flows,
                                          .flow_count = flows,
                                          .free_head = FLOW_NONE,
                                          .half_open_max = half_open,
                                          .half_open = {FLOW_NONE, FLOW_NONE, 0},
                                          .closed = {FLOW_NONE, FLOW_NONE, 0}};
        bucket += (size_t)INDEXES * buckets;
        lb->owner[i] = (uint8_t)(i * lb->worker_count / LBRL_PARTITIONS);
    }
    return true;
}

static bool make_rings(lbrl_t *lb)
{
    uint32_t workers = lb->worker_count;
    lb->rings = memory_take(workers * workers * sizeof(ring_t *));
    for (uint32_t i = 0; lb->rings && i < workers * workers; i++) {
        if (i / workers != i % workers) {
            lb->rings[i] = memory_take(sizeof(ring_t));
            if (!lb->rings[i]) {
                return false;
            }
        }
    }
    return lb->rings != NULL;
}

static bool make_workers(lbrl_t *lb, const lbrl_config_t *config)
{
    lb->workers = memory_take(lb->worker_count * sizeof(lbrl_worker_t));
    lb->fragment_hints = memory_take((size_t)HINT_SETS * HINT_WAYS * sizeof(uint64_t));
    if (!lb->workers || !lb->fragment_hints) {
        return false;
    }
    for (uint32_t i = 0; i < lb->worker_count; i++) {
        lbrl_worker_t *worker = &lb->workers[i];
        lbrl_key_t key = lbrl_key_load(config->seed + 16);
        worker->lb = lb;
        worker->index = i;
        worker->random = lbrl_hash_bytes(&key, &i, sizeof(i)) | 1;
        reply_begin(worker, config->now_us);
        worker->fragment_ids = (uint32_t)random_next(&worker->random);
        while (worker->sweep < LBRL_PARTITIONS - 1 && lb->owner[worker->sweep] != i) {
            worker->sweep++;
        }
    }
    lb->random = lb->workers[0].random ^ 0x5851f42d4c957f2du;
    lb->random += lb->random == 0;
    return true;
}

static bool make_control(lbrl_t *lb)
{
    uint32_t vips = lb->arena.vip_count;
    lb->records = memory_take(vips * sizeof(*lb->records));
    lb->stores = memory_take(vips * sizeof(*lb->stores));
    lb->vips = memory_take(vips * sizeof(*lb->vips));
    lb->slot_used = memory_take(lb->arena.slot_count);
    lb->endpoints = memory_take(ENDPOINT_HEADS * sizeof(*lb->endpoints));
    return lb->records && lb->stores && lb->vips && lb->slot_used && lb->endpoints;
}

/* ------------------------------------------------------------------------------- arena */

/* Finds out what the memory holds and makes lb->arena usable; flows of another boot are gone. */
static int take_arena(lbrl_t *lb, const lbrl_config_t *config, void *memory, size_t size,
                      lbrl_attach_report_t *report)
{
    arena_header_t plan;
    if (!arena_plan(&plan, config->flows, config->vips, config->slots)) {
        return LBRL_ERR_INVALID;
    }
    arena_kind_t kind = arena_inspect(&lb->arena, memory, size);
    report->version = arena_version(memory, size);
    if (kind == ARENA_SOUND) {
        const arena_header_t *found = lb->arena.header;
        if (lb->arena.version != ARENA_VERSION || found->size != plan.size ||
            found->flows != plan.flows || found->vips != plan.vips || found->slots != plan.slots) {
            return LBRL_ERR_GEOMETRY;
        }
        report->status = LBRL_ARENA_ATTACHED;
        if (memcmp(found->boot_id, config->boot_id, sizeof(found->boot_id)) != 0) {
            for (uint32_t i = 0; i < lb->arena.flow_count; i++) {
                report->flows_dropped += lb->arena.flows[i].state != LBRL_FLOW_FREE;
                lb->arena.flows[i].state = LBRL_FLOW_FREE;
            }
            memcpy(lb->arena.header->boot_id, config->boot_id, sizeof(config->boot_id));
        }
        return LBRL_OK;
    }
    if (kind == ARENA_OTHER) {
        return LBRL_ERR_GEOMETRY;
    }
    if (size < plan.size) {
        return LBRL_ERR_TOO_SMALL;
    }
    report->status = kind == ARENA_EMPTY ? LBRL_ARENA_FORMATTED : LBRL_ARENA_REPLACED;
    arena_format(&lb->arena, memory, &plan, config->seed, config->boot_id);
    return LBRL_OK;
}

int lbrl_open(lbrl_t **out, const lbrl_config_t *config, void *arena, size_t arena_size,
              lbrl_attach_report_t *report)
{
    *report = (lbrl_attach_report_t){0};
    if (config->workers < 1 || config->workers > LBRL_WORKERS_MAX || ((uintptr_t)arena & 63) != 0) {
        return LBRL_ERR_INVALID;
    }
    lbrl_t *lb = memory_take(sizeof(*lb));
    if (!lb) {
        return LBRL_ERR_MEMORY;
    }
    lb->epoch = 1;
    lb->hash_tuples = tuples_hash_best();
    lb->worker_count = config->workers;
    lb->grace_ms = config->grace_ms ? config->grace_ms : LBRL_ORPHAN_GRACE_MS;
    lb->holds = config->holds != 0;
    int error = take_arena(lb, config, arena, arena_size, report);
    if (!error) {
        lb->key = lb->arena.key;
        bool made =
            make_partitions(lb) && make_rings(lb) && make_workers(lb, config) && make_control(lb);
        error = made ? attach_directory(lb, config->now_us, report) : LBRL_ERR_MEMORY;
    }
    if (error) {
        lbrl_close(lb);
        return error;
    }
    attach_flows(lb, config->now_us, report);
    if (report->status == LBRL_ARENA_ATTACHED) {
        lb->silent_until_us = config->now_us + SILENT_AFTER_ATTACH_MS * UINT64_C(1000);
    }
    *out = lb;
    return LBRL_OK;
}

static void free_stores(lbrl_t *lb)
{
    for (uint32_t i = 0; lb->stores && i < lb->arena.vip_count; i++) {
        if (lb->stores[i]) {
            for (uint32_t w = 0; w < lb->worker_count; w++) {
                memory_free(lb->stores[i]->workers[w].sink);
            }
            memory_free((void *)(uintptr_t)lb->stores[i]->schedule);
            memory_free((void *)(uintptr_t)lb->stores[i]->fallback);
            memory_free(lb->stores[i]->shared_view);
            memory_free(lb->stores[i]);
            lb->stores[i] = NULL;
        }
        if (lb->vips) {
            memory_free((void *)(uintptr_t)lb->vips[i]);
            lb->vips[i] = NULL;
        }
    }
}

void lbrl_close(lbrl_t *lb)
{
    if (!lb) {
        return;
    }
    retire_collect(lb, true);
    free_stores(lb);
    endpoints_free(lb);
    if (lb->table) {
        memory_free((void *)(uintptr_t)lb->table->map);
        memory_free((void *)(uintptr_t)lb->table);
    }
    for (uint32_t i = 0; lb->rings && i < lb->worker_count * lb->worker_count; i++) {
        memory_free(lb->rings[i]);
    }
    void *parts[] = {lb->partitions,     lb->index_memory, lb->rings,  lb->workers,
                     lb->fragment_hints, lb->records,      lb->stores, (void *)lb->vips,
                     lb->slot_used,      lb->endpoints,    lb->sides,  lb->unanswered};
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        memory_free(parts[i]);
    }
    memory_free(lb);
}

/* ------------------------------------------------------------------------------- import */

/* The VIP that an older arena has at an index, or NULL. */
static const arena_vip_t *import_vip(const arena_t *old, uint32_t index)
{
    const arena_vip_t *found = arena_vip(old, index);
    bool usable = found && found->state != VIP_FREE &&
                  (uint64_t)found->slot_base + found->slots <= old->slot_count;
    return usable ? found : NULL;
}

/* Where slots of VIPs that are wider than a share begin. Where they do not fit behind the shares, all VIPs are packed. */
static uint32_t import_shares(const lbrl_t *lb, const arena_t *old, uint32_t *share)
{
    *share = slots_share(lb);
    const uint32_t behind = *share * lb->arena.vip_count;
    uint64_t wide = 0;
    for (uint32_t i = 0; i < old->vip_count; i++) {
        const arena_vip_t *found = import_vip(old, i);
        wide += found && found->slots > *share ? found->slots : 0;
    }
    if (behind + wide > lb->arena.slot_count) {
        *share = 0;
        return 0;
    }
    return behind;
}

/* Copies VIPs with their slots to the same indexes, so that flows keep their references. */
static int import_directory(lbrl_t *lb, const arena_t *old)
{
    const arena_node_t *node = arena_node(old);
    if (node) {
        arena_node_write(&lb->arena, node);
    }
    uint32_t share;
    uint32_t next = import_shares(lb, old, &share);
    for (uint32_t i = 0; i < old->vip_count; i++) {
        const arena_vip_t *found = import_vip(old, i);
        if (!found) {
            continue;
        }
        const bool fits = found->slots <= share;
        if (i >= lb->arena.vip_count || (!fits && next + found->slots > lb->arena.slot_count)) {
            return LBRL_ERR_EXHAUSTED;
        }
        arena_vip_t record = *found;
        record.slot_base = fits ? i * share : next;
        for (uint32_t s = 0; s < found->slots; s++) {
            uint32_t place = found->slot_base + s;
            const arena_slot_t *slot = &old->slots[place];
            if (slot->check == arena_slot_check(old, place, slot, found->id)) {
                arena_slot_write(&lb->arena, record.slot_base + s, slot, found->id);
            }
        }
        next += fits ? 0 : found->slots;
        arena_vip_write(&lb->arena, i, &record);
    }
    return LBRL_OK;
}

/* Smaller partitions may not have room for all: open flows take it first, closed ones last. New flows evict in the reverse
 * order (flow_make()). */
enum { IMPORT_TURNS = 3 };

static unsigned import_turn(uint8_t state)
{
    return flow_is_closed(state) ? 2 : flow_is_half_open(state);
}

/* Puts a sound entry into its partition, unless that is full; attach_flows() then checks it like any other. */
static void import_flow(lbrl_t *lb, const flow_t *found, uint32_t now_ms,
                        lbrl_attach_report_t *report)
{
    const uint32_t number = attach_partition_of(lb, found);
    const bool sound = number != LBRL_PARTITIONS;
    const bool expired = sound && attach_is_expired(lb, found, now_ms);
    partition_t *partition = &lb->partitions[sound ? number : 0];
    if (!sound || expired || partition->fresh == partition->flow_count) {
        report->flows_dropped++;
        report->flows_expired += expired;
        return;
    }
    partition->flows[partition->fresh++] = *found;
}

static void import_flows(lbrl_t *lb, const arena_t *old, uint32_t now_ms,
                         lbrl_attach_report_t *report)
{
    for (unsigned turn = 0; turn < IMPORT_TURNS; turn++) {
        for (uint32_t i = 0; i < old->flow_count; i++) {
            const flow_t found = old->flows[i];
            if (found.state != LBRL_FLOW_FREE && import_turn(found.state) == turn) {
                import_flow(lb, &found, now_ms, report);
            }
        }
    }
}

static void drop_flows(const arena_t *old, lbrl_attach_report_t *report)
{
    for (uint32_t i = 0; i < old->flow_count; i++) {
        report->flows_dropped += old->flows[i].state != LBRL_FLOW_FREE;
    }
}

/* What an import changes before it may fail: nothing of this shows afterwards. */
typedef struct import_before {
    uint8_t seed[16];
    arena_node_t node;
    uint32_t wanted_count;
    lbrl_nat_source_t wanted[LBRL_SOURCES_MAX];
} import_before_t;

static void import_begin(const lbrl_t *lb, import_before_t *before)
{
    memcpy(before->seed, lb->arena.header->seed, sizeof(before->seed));
    memcpy(before->wanted, lb->wanted, sizeof(before->wanted));
    before->node = lb->node;
    before->wanted_count = lb->wanted_count;
}

/* Makes the directory as empty as it was. The published table, which is made last, is still that of before. */
static void import_undo(lbrl_t *lb, const import_before_t *before)
{
    const arena_header_t *header = lb->arena.header;
    endpoints_free(lb);
    free_stores(lb);
    memset(lb->records, 0, lb->arena.vip_count * sizeof(*lb->records));
    memset(lb->slot_used, 0, lb->arena.slot_count);
    memset(lb->arena.base + header->node_offset, 0, header->flow_offset - header->node_offset);
    arena_rekey(&lb->arena, before->seed);
    lb->key = lb->arena.key;
    memcpy(lb->wanted, before->wanted, sizeof(lb->wanted));
    lb->wanted_count = before->wanted_count;
    lb->node = before->node;
    arena_node_write(&lb->arena, &lb->node);
}

int lbrl_import(lbrl_t *lb, const void *old, size_t old_size, uint64_t now_us,
                lbrl_attach_report_t *report)
{
    arena_t from;
    import_before_t before;
    *report = (lbrl_attach_report_t){.status = LBRL_ARENA_IMPORTED,
                                     .version = arena_version(old, old_size)};
    if (lbrl_vip_ids(lb, NULL, 0) != 0) {
        return LBRL_ERR_INVALID;
    }
    arena_kind_t kind = arena_inspect(&from, old, old_size);
    if (kind != ARENA_SOUND) {
        return kind == ARENA_OTHER ? LBRL_ERR_VERSION : LBRL_ERR_GEOMETRY;
    }
    import_begin(lb, &before);
    /* which partition a flow belongs to follows from the seed, so that comes along */
    arena_rekey(&lb->arena, from.header->seed);
    lb->key = lb->arena.key;
    int error = import_directory(lb, &from);
    error = error ? error : attach_directory(lb, now_us, report);
    if (error) {
        import_undo(lb, &before);
        *report = (lbrl_attach_report_t){.version = report->version};
        return error;
    }
    if (memcmp(from.header->boot_id, lb->arena.header->boot_id, sizeof(from.header->boot_id)) ==
        0) {
        import_flows(lb, &from, (uint32_t)(now_us / 1000), report);
    } else {
        drop_flows(&from, report);
    }
    attach_flows(lb, now_us, report);
    lb->silent_until_us = now_us + SILENT_AFTER_ATTACH_MS * UINT64_C(1000);
    return LBRL_OK;
}
