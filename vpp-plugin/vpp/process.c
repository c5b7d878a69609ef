/* The process node: the control side's clock. Ageing on every worker, frames and weights every interval. */
#include <time.h>

#include "lb_rl.h"

#define TICK_SECONDS 0.05
#define ROWS_US      1000000u /* between two updates of the statistics segment */

/* As VPP's own for its commands. Following an agent's weights builds Maglev tables, which takes more than the 32 KiB
 * that a process has unless it says so. */
#define STACK_LOG2_BYTES 18

u64 lb_rl_now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return (u64)now.tv_sec * 1000000 + (u64)now.tv_nsec / 1000;
}

static void wake_workers(void)
{
    const u16 *thread;
    vec_foreach(thread, lb_rl_main.threads)
    {
        vlib_node_set_interrupt_pending(vlib_get_main_by_index(*thread), lb_rl_tick_node.index);
    }
}

static void step(vlib_main_t *vm)
{
    lb_rl_main_t *lm = &lb_rl_main;
    u64 now_us = lb_rl_now_us();
    wake_workers();
    if (now_us - lm->step_us >= lm->settings.interval_ms * 1000ull) {
        u32 before = lbrl_vip_ids(lm->core, NULL, 0);
        /* At a steady pace, but an interval that was missed is not made up for. */
        bool late = now_us - lm->step_us >= 2000ull * lm->settings.interval_ms;
        lm->step_us = late ? now_us : lm->step_us + lm->settings.interval_ms * 1000ull;
        lbio_step(lm->io, now_us);
        if (lbrl_vip_ids(lm->core, NULL, 0) != before || !lb_rl_filter_is_right()) {
            lb_rl_routes_update(vm);
            lb_rl_events_send();
        }
    }
    if (now_us - lm->rows_us >= ROWS_US) {
        lm->rows_us = now_us;
        lb_rl_rows_update();
    }
}

static uword lb_rl_process(vlib_main_t *vm, vlib_node_runtime_t *node, vlib_frame_t *frame)
{
    while (1) {
        if (lb_rl_main.io == NULL) {
            vlib_process_wait_for_event(vm);
        } else {
            (void)vlib_process_wait_for_event_or_clock(vm, TICK_SECONDS);
        }
        (void)vlib_process_get_events(vm, NULL);
        if (lb_rl_main.io != NULL) {
            step(vm);
        }
    }
    return 0;
}

VLIB_REGISTER_NODE(lb_rl_process_node) = {
    .function = lb_rl_process,
    .type = VLIB_NODE_TYPE_PROCESS,
    .name = "lb-rl-process",
    .process_log2_n_stack_bytes = STACK_LOG2_BYTES,
};
