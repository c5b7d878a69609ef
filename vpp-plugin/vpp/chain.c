/* Chains of buffers: the core takes a packet for contiguous, so what it reads has to be in the first buffer. */
#include <vnet/buffer.h>
#include <vnet/ip/ip.h>
#include <vnet/tcp/tcp_packet.h>
#include <vnet/udp/udp_packet.h>

#include <vnet/interface_output.h> /* needs all of the above */

#include "lb_rl.h"

/* What the first buffer of a chain has to hold for the core to see every byte that it looks at: what an ICMP error quotes,
 * and all headers, of which the transport's has at most so many bytes. */
#define CHAIN_FIRST_MIN 1280u
#define TRANSPORT_MAX   60u

/* Offset of the transport header, and its protocol. A header that is not in this buffer ends the search behind it. */
static u32 find_transport(vlib_buffer_t *b, u8 *protocol)
{
    const u8 *ip = vlib_buffer_get_current(b);
    if (ip[0] >> 4 == 4) {
        *protocol = ip[9];
        return (ip[0] & 15u) * 4u;
    }
    u32 at = sizeof(ip6_header_t);
    *protocol = ip[6];
    while (*protocol == IP_PROTOCOL_IP6_HOP_BY_HOP_OPTIONS || *protocol == IP_PROTOCOL_IPV6_ROUTE ||
           *protocol == IP_PROTOCOL_IPV6_FRAGMENTATION ||
           *protocol == IP_PROTOCOL_IP6_DESTINATION_OPTIONS) {
        if (at + 8 > b->current_length) {
            return b->current_length;
        }
        bool fragment = *protocol == IP_PROTOCOL_IPV6_FRAGMENTATION;
        const u8 *header = ip + at;
        *protocol = header[0];
        at += fragment ? 8 : (header[1] + 1u) * 8u;
        if (fragment && (header[2] != 0 || header[3] >> 3 != 0)) {
            break; /* a later one: what follows is no header */
        }
    }
    return at;
}

/* The core takes a packet for contiguous: whether what it reads of this chain is in the first buffer. */
static bool is_readable(vlib_buffer_t *b)
{
    u8 protocol;
    return b->current_length >= CHAIN_FIRST_MIN &&
           find_transport(b, &protocol) + TRANSPORT_MAX <= b->current_length &&
           protocol != IP_PROTOCOL_ICMP && protocol != IP_PROTOCOL_ICMP6;
}

int lb_rl_chain_import(vlib_main_t *vm, vlib_buffer_t *b, lbrl_packet_t *packet)
{
    if (!is_readable(b) && (vlib_buffer_chain_linearize(vm, b) == 0 ||
                            ((b->flags & VLIB_BUFFER_NEXT_PRESENT) && !is_readable(b)))) {
        return -1;
    }
    packet->length = vlib_buffer_length_in_chain(vm, b);
    packet->tailroom = 0;
    if ((b->flags & VLIB_BUFFER_NEXT_PRESENT) && (b->flags & VNET_BUFFER_F_OFFLOAD) &&
        (b->flags & VNET_BUFFER_F_GSO) == 0) {
        const u8 *ip = vlib_buffer_get_current(b);
        vnet_buffer(b)->l3_hdr_offset = b->current_data;
        vnet_calc_checksums_inline(vm, b, ip[0] >> 4 == 4, ip[0] >> 4 == 6);
    }
    return 0;
}
