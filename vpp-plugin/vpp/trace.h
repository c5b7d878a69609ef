/* Packet traces of the nodes: what came in, what became of it. Included by node.c, which is compiled per processor. */
#ifndef LB_RL_TRACE_H
#define LB_RL_TRACE_H

#include <vlib/vlib.h>

#include "lbrl/packet.h"

#define LB_RL_TRACE_BYTES 64 /* IP and TCP or UDP header */

typedef struct lb_rl_trace {
    u8 before[LB_RL_TRACE_BYTES], after[LB_RL_TRACE_BYTES];
    u8 verdict, reason;
    u16 worker;
} lb_rl_trace_t;

typedef struct lb_rl_handoff_trace {
    u16 thread;
} lb_rl_handoff_trace_t;

format_function_t format_lb_rl_trace;
format_function_t format_lb_rl_handoff_trace;

static inline void lb_rl_trace_headers(u8 out[LB_RL_TRACE_BYTES], const lbrl_packet_t *packet)
{
    u32 size = clib_min(packet->length, LB_RL_TRACE_BYTES);
    clib_memcpy_fast(out, packet->data, size);
    clib_memset(out + size, 0, LB_RL_TRACE_BYTES - size);
}

static inline void lb_rl_trace_before(vlib_main_t *vm, vlib_node_runtime_t *node,
                                      const lbrl_packet_t *packets, lb_rl_trace_t **traces,
                                      u32 count)
{
    for (u32 i = 0; i < count; i++) {
        vlib_buffer_t *b = packets[i].buffer;
        traces[i] = b->flags & VLIB_BUFFER_IS_TRACED
                        ? vlib_add_trace(vm, node, b, sizeof(lb_rl_trace_t))
                        : NULL;
        if (traces[i] != NULL) {
            lb_rl_trace_headers(traces[i]->before, &packets[i]);
        }
    }
}

static inline void lb_rl_trace_after(const lbrl_packet_t *packets, lb_rl_trace_t **traces,
                                     u32 count)
{
    for (u32 i = 0; i < count; i++) {
        if (traces[i] != NULL) {
            lb_rl_trace_headers(traces[i]->after, &packets[i]);
            traces[i]->verdict = packets[i].verdict;
            traces[i]->reason = packets[i].reason;
            traces[i]->worker = packets[i].worker;
        }
    }
}

#endif
