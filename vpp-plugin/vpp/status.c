/* What the command line and the binary API tell alike: counters, and how much memory the shared objects take. */
#include "lb_rl.h"

/* ---- Counters ---- */

lbrl_stats_t lb_rl_stats(bool since_clear)
{
    const lbrl_stats_t *since = &lb_rl_main.cleared;
    lbrl_stats_t stats;
    lbrl_stats(lb_rl_main.core, &stats);
    if (!since_clear) {
        return stats;
    }
    stats.packets -= since->packets;
    stats.bytes -= since->bytes;
    stats.forwarded -= since->forwarded;
    stats.replied -= since->replied;
    stats.passed -= since->passed;
    stats.handed_over -= since->handed_over;
    stats.flows_created -= since->flows_created;
    stats.flows_recycled -= since->flows_recycled;
    stats.flows_evicted -= since->flows_evicted;
    for (u32 i = 0; i < LBRL_DROP_COUNT; i++) {
        stats.dropped[i] -= since->dropped[i];
    }
    return stats;
}

int lb_rl_stats_clear(lbio_problem_t *problem)
{
    if (lb_rl_ready(problem) != 0) {
        return -1;
    }
    lbrl_stats(lb_rl_main.core, &lb_rl_main.cleared);
    return 0;
}

/* ---- Memory ---- */

static u64 frames_of(u64 id)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    lbrl_vip_status_t status;
    if (lbrl_vip_status(lm->core, id, &status, NULL, 0) != LBRL_OK) {
        return 0;
    }
    lbrl_frames_config_t config = {.slots = status.slots,
                                   .workers = vec_len(lm->threads),
                                   .level = status.feature_level,
                                   .instance_id = lm->instance_id};
    return lbrl_frames_size(&config);
}

lb_rl_memory_t lb_rl_memory(void)
{
    const lb_rl_main_t *lm = &lb_rl_main;
    lbrl_config_t config = {.flows = lm->settings.flows,
                            .vips = lm->settings.vips,
                            .slots = lm->settings.slots,
                            .workers = vec_len(lm->threads)};
    u64 *ids = lb_rl_vip_ids();
    lb_rl_memory_t memory = {.arena = lbrl_arena_size(&config), .vips = vec_len(ids)};
    for (u32 i = 0; i < vec_len(ids); i++) {
        memory.frames += frames_of(ids[i]);
    }
    vec_free(ids);
    return memory;
}
