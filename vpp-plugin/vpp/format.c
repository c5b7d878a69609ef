/* What people read: addresses and packet traces. */
#include <vnet/ip/ip.h>

#include "lb_rl.h"
#include "trace.h"

u8 *format_lb_rl_address(u8 *s, va_list *arguments)
{
    const u8 *bytes = va_arg(*arguments, const u8 *);
    return lb_rl_is_ip4(bytes) ? format(s, "%U", format_ip4_address, bytes + 12)
                               : format(s, "%U", format_ip6_address, bytes);
}

u8 *format_lb_rl_endpoint(u8 *s, va_list *arguments)
{
    const u8 *bytes = va_arg(*arguments, const u8 *);
    int port = va_arg(*arguments, int);
    return format(s, lb_rl_is_ip4(bytes) ? "%U:%d" : "[%U]:%d", format_lb_rl_address, bytes, port);
}

/* ---- Traces ---- */

/* One side of a packet: "TCP 198.51.100.7:40000 -> 203.0.113.10:80". Fragments and other protocols without ports. */
static u8 *format_headers(u8 *s, va_list *arguments)
{
    const u8 *bytes = va_arg(*arguments, const u8 *);
    const ip4_header_t *four = (const ip4_header_t *)bytes;
    const ip6_header_t *six = (const ip6_header_t *)bytes;
    bool is_four = bytes[0] >> 4 == 4;
    u8 protocol = is_four ? four->protocol : six->protocol;
    u32 size = is_four ? (u32)ip4_header_bytes(four) : (u32)sizeof(*six);
    bool first = !is_four || (four->flags_and_fragment_offset & clib_host_to_net_u16(0x1fff)) == 0;
    bool ports = first && (protocol == IP_PROTOCOL_TCP || protocol == IP_PROTOCOL_UDP) &&
                 size + 4 <= LB_RL_TRACE_BYTES;
    u16 source = 0;
    u16 destination = 0;
    if (bytes[0] >> 4 != 4 && bytes[0] >> 4 != 6) {
        return format(s, "no IP packet");
    }
    if (ports) {
        clib_memcpy(&source, bytes + size, 2);
        clib_memcpy(&destination, bytes + size + 2, 2);
    }
    s = format(s, "%U ", format_ip_protocol, protocol);
    for (u32 side = 0; side < 2; side++) {
        u16 port = clib_net_to_host_u16(side == 0 ? source : destination);
        if (side == 1) {
            s = format(s, " -> ");
        }
        if (is_four) {
            s = format(s, "%U", format_ip4_address,
                       side == 0 ? &four->src_address : &four->dst_address);
        } else {
            s = format(s, ports ? "[%U]" : "%U", format_ip6_address,
                       side == 0 ? &six->src_address : &six->dst_address);
        }
        if (ports) {
            s = format(s, ":%u", port);
        }
    }
    return s;
}

u8 *format_lb_rl_trace(u8 *s, va_list *arguments)
{
    CLIB_UNUSED(vlib_main_t * vm) = va_arg(*arguments, vlib_main_t *);
    vlib_node_t *node = va_arg(*arguments, vlib_node_t *);
    const lb_rl_trace_t *trace = va_arg(*arguments, lb_rl_trace_t *);
    s = format(s, "%v: %U\n    ", node->name, format_headers, trace->before);
    switch (trace->verdict) {
    case LBRL_VERDICT_FORWARD:
        return format(s, "forwarded as %U", format_headers, trace->after);
    case LBRL_VERDICT_REPLY:
        return format(s, "answered (%s) by %U", lbrl_drop_text(trace->reason), format_headers,
                      trace->after);
    case LBRL_VERDICT_HANDOVER:
        return format(s, "belongs to worker %u", trace->worker);
    case LBRL_VERDICT_HOLD:
        return format(s, "waits for the first fragment");
    case LBRL_VERDICT_PASS:
        return format(s, "not ours");
    default:
        return format(s, "dropped: %s", lbrl_drop_text(trace->reason));
    }
}

u8 *format_lb_rl_handoff_trace(u8 *s, va_list *arguments)
{
    CLIB_UNUSED(vlib_main_t * vm) = va_arg(*arguments, vlib_main_t *);
    vlib_node_t *node = va_arg(*arguments, vlib_node_t *);
    const lb_rl_handoff_trace_t *trace = va_arg(*arguments, lb_rl_handoff_trace_t *);
    return format(s, "%v: to thread %u", node->name, trace->thread);
}
