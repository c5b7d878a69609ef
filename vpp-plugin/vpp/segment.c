/* Super-packets that were put into a tunnel, for which no device has an offload: copied out of their chains, and into
 * a buffer per segment. */
#include "lb_rl.h"

#include <vlib/trace_funcs.h>
#include <vnet/buffer.h>

/* The largest IP packet with the largest outer header in front. */
#define SCRATCH_SIZE (65535u + 64u)

void lb_rl_scratch_reserve(void)
{
    lb_rl_main_t *lm = &lb_rl_main;
    u32 threads = vlib_get_n_threads();
    vec_validate(lm->scratch, threads - 1);
    for (u32 i = 0; i < threads; i++) {
        vec_validate_aligned(lm->scratch[i], SCRATCH_SIZE - 1, CLIB_CACHE_LINE_BYTES);
    }
}

int lb_rl_super_gather(vlib_main_t *vm, const lbrl_packet_t *packet, lbrl_packet_t *whole)
{
    u8 *to = lb_rl_main.scratch[vm->thread_index];
    const vlib_buffer_t *b = packet->buffer;
    const u8 *from = packet->data; /* before the buffer's data: outer headers are in front */
    u32 size = (u32)(b->data + b->current_data + b->current_length - from);
    u32 left = packet->length;
    if (left > SCRATCH_SIZE) {
        return -1;
    }
    while (1) {
        u32 part = clib_min(size, left);
        clib_memcpy_fast(to, from, part);
        to += part;
        left -= part;
        if (left == 0 || (b->flags & VLIB_BUFFER_NEXT_PRESENT) == 0) {
            break;
        }
        b = vlib_get_buffer(vm, b->next_buffer);
        from = b->data + b->current_data;
        size = b->current_length;
    }
    *whole = *packet;
    whole->data = lb_rl_main.scratch[vm->thread_index];
    return left == 0 ? 0 : -1;
}

u32 lb_rl_super_segment(vlib_main_t *vm, const lbrl_packet_t *whole, u32 index, bool *failed)
{
    vlib_buffer_t *super = whole->buffer;
    u32 skip = index * whole->gso_size;
    u32 bi;
    if (skip + whole->hdr_len >= whole->length) {
        return LB_RL_NO_BUFFER; /* there are no more */
    }
    *failed = vlib_buffer_alloc(vm, &bi, 1) != 1;
    if (*failed) {
        return LB_RL_NO_BUFFER;
    }
    vlib_buffer_t *b = vlib_get_buffer(vm, bi);
    u32 size = lbrl_segment(whole, index, b->data, vlib_buffer_get_default_data_size(vm));
    if (size == 0) {
        *failed = true;
        vlib_buffer_free_one(vm, bi);
        return LB_RL_NO_BUFFER;
    }
    b->current_data = 0;
    b->current_length = (u16)size;
    vnet_buffer(b)->sw_if_index[VLIB_RX] = vnet_buffer(super)->sw_if_index[VLIB_RX];
    if (super->flags & VLIB_BUFFER_IS_TRACED) {
        vlib_buffer_copy_trace_flag(vm, super, bi);
    }
    return bi;
}
