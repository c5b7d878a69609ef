#include "worker.h"

#include "pick.h"
#include "ring.h"
#include "side.h"

enum {
    SWEEP_PERIOD_US = 1000000, /* in which ageing sees every entry */
    SWEEP_AHEAD = 8,
    SWEEP_BATCH = 32,
};

/* ------------------------------------------------------------------------------- ageing */

/* Whether the flow has lost its VIP's address, its NAT source or its slot. */
static bool is_orphan(const table_t *table, const flow_ref_t *ref)
{
    const flow_keep_t *keep = ref->keep;
    return (ref->vip->retired_addresses >> keep->address & 1) ||
           (!vip_is_one_way(ref->vip) && table->sources[keep->source].is.state == SOURCE_RETIRED) ||
           __atomic_load_n(&ref->slot->reap, __ATOMIC_RELAXED);
}

/* Whether nothing but silence could end any flow of a VIP, nor does ageing do anything else with them. */
static bool only_silence_counts(const lbrl_worker_t *worker, const vip_t *vip)
{
    return !vip_is_one_way(vip) && !vip->retired_addresses && !worker->table->retiring &&
           !__atomic_load_n(&vip->store->reaping, __ATOMIC_RELAXED) &&
           !side_is(sink_of(&vip->workers[worker->index]));
}

/* What holds for all flows of the VIP that was last looked at. */
typedef struct judge {
    uint32_t vip;
    bool only_silence;
} judge_t;

/* Looks at one entry; true if its flow must go. */
static bool is_over(lbrl_worker_t *worker, partition_t *partition, uint32_t entry, judge_t *judge)
{
    const flow_t *flow = &partition->flows[entry];
    const flow_keep_t *keep = &partition->keeps[entry];
    if (!(keep->bits & KEEP_USED)) {
        return false;
    }
    const vip_t *vip = worker->table->vips[keep->vip];
    if (keep->vip != judge->vip) {
        *judge = (judge_t){keep->vip, only_silence_counts(worker, vip)};
    }
    if (UNLIKELY(flow->state == LBRL_FLOW_FREE)) {
        return true; /* not by us */
    }
    /* another thread's clock may be ahead of ours: a negative silence is none */
    int32_t silence = (int32_t)(worker->now_ms - flow->last_ms);
    bool silent = silence > (int64_t)flow_timeout(vip, flow) || silence < -CLOCKS_APART_MS;
    if (silent || LIKELY(judge->only_silence)) {
        return silent;
    }
    flow_ref_t ref = flow_ref(worker, partition, entry);
    if (is_orphan(worker->table, &ref)) {
        return true;
    }
    if (vip_is_one_way(vip) && silence > ONE_WAY_SILENCE_MS && (keep->bits & KEEP_OPEN)) {
        flow_set_open(worker, &ref, false);
    } else if (side_is(sink_of(ref.counts))) {
        side_age(worker, sink_of(ref.counts), flow);
    }
    return false;
}

/* Ages `n` entries from `first` on, at most SWEEP_BATCH. What goes, goes together: the way to memory is long. */
static void age_entries(lbrl_worker_t *worker, partition_t *partition, uint32_t first, uint32_t n)
{
    flow_ref_t over[SWEEP_BATCH];
    uint32_t count_ = 0;
    judge_t judge = {UINT32_MAX, false};
    for (uint32_t i = 0; i < n; i++) {
        __builtin_prefetch(&partition->flows[first + i] + SWEEP_AHEAD); /* or beyond: no matter */
        if (is_over(worker, partition, first + i, &judge)) {
            over[count_] = flow_ref(worker, partition, first + i);
            flow_prepare_removal(worker, &over[count_]);
            count_++;
        }
    }
    for (uint32_t i = 0; i < count_; i++) {
        flow_remove(worker, &over[i]);
    }
}

static uint32_t next_partition(const lbrl_worker_t *worker, uint32_t partition)
{
    do {
        partition = (partition + 1) % LBRL_PARTITIONS;
    } while (worker->lb->owner[partition] != worker->index);
    return partition;
}

/* Looks at up to `budget` entries, from where the last call stopped. */
static void sweep(lbrl_worker_t *worker, uint64_t budget)
{
    while (budget) {
        partition_t *partition = &worker->lb->partitions[worker->sweep];
        uint32_t left = partition->fresh - partition->sweep;
        uint32_t todo = left < budget ? left : (uint32_t)budget;
        for (uint32_t i = 0; i < todo; i += SWEEP_BATCH) {
            uint32_t n = todo - i < SWEEP_BATCH ? todo - i : SWEEP_BATCH;
            age_entries(worker, partition, partition->sweep + i, n);
        }
        partition->sweep += todo;
        if (partition->sweep >= partition->fresh) {
            /* entries never used cost nothing but pass as looked at */
            uint32_t unused = partition->flow_count - partition->fresh;
            budget -= budget < unused + todo ? budget : unused + todo;
            partition->sweep = 0;
            worker->sweep = next_partition(worker, worker->sweep);
        } else {
            budget -= todo;
        }
    }
}

static uint64_t owned_entries(const lbrl_worker_t *worker)
{
    uint64_t entries = 0;
    for (uint32_t i = 0; i < LBRL_PARTITIONS; i++) {
        if (worker->lb->owner[i] == worker->index) {
            entries += worker->lb->partitions[i].flow_count;
        }
    }
    return entries;
}

static void share_totals(const lbrl_worker_t *worker)
{
    const table_t *table = worker->table;
    for (uint32_t i = 0; i < worker->lb->arena.vip_count; i++) {
        const vip_t *vip = table->vips[i];
        if (vip && vip->workers[worker->index].dirty) {
            pick_refresh(vip, &vip->workers[worker->index]);
        }
    }
}

void lbrl_worker_tick(lbrl_worker_t *worker, uint64_t now_us)
{
    worker_enter(worker, now_us);
    uint64_t elapsed = worker->tick_us && now_us > worker->tick_us ? now_us - worker->tick_us : 0;
    worker->tick_us = now_us;
    uint64_t entries = owned_entries(worker);
    if (entries) {
        /* after a long pause one whole round is enough */
        elapsed = elapsed < SWEEP_PERIOD_US ? elapsed : SWEEP_PERIOD_US;
        worker->sweep_debt += entries * elapsed;
        sweep(worker, worker->sweep_debt / SWEEP_PERIOD_US);
        worker->sweep_debt %= SWEEP_PERIOD_US;
    }
    if (worker->lb->worker_count > 1) {
        share_totals(worker);
    }
    worker_leave(worker);
}

/* ------------------------------------------------------------------------------- handover */

static ring_t *ring_between(const lbrl_t *lb, uint32_t from, uint32_t to)
{
    return lb->rings[from * lb->worker_count + to];
}

int lbrl_handover(lbrl_worker_t *from, const lbrl_packet_t *packet)
{
    if (packet->worker < from->lb->worker_count && packet->worker != from->index &&
        ring_push(ring_between(from->lb, from->index, packet->worker), packet)) {
        return 0;
    }
    count(&from->stats.dropped[LBRL_DROP_HANDOVER_FULL], 1);
    return -1;
}

uint32_t lbrl_handover_take(lbrl_worker_t *to, lbrl_packet_t *packets, uint32_t max)
{
    uint32_t taken = 0;
    for (uint32_t from = 0; from < to->lb->worker_count && taken < max; from++) {
        if (from != to->index) {
            taken += ring_pop(ring_between(to->lb, from, to->index), packets + taken, max - taken);
        }
    }
    return taken;
}
