#include "icmp.h"

#include "fragment.h"

/* The quoted packet went the other way, so what the error's source and destination become are its destination and
 * source. Its transport checksum may be cut off. */
static void translate_quote(lbrl_packet_t *packet, const meta_t *meta, const translation_t *to)
{
    uint8_t *inner = packet->data + meta->inner;
    uint8_t *transport = packet->data + meta->inner_transport;
    uint32_t room = packet->length - meta->inner_transport;
    bool v6 = (meta->flags & META_V6) != 0;
    translation_t quoted = {to->dst, to->src, to->sum, to->dport, to->sport};
    uint32_t delta = address_delta(&quoted, &meta->dst, &meta->src);
    rewrite_ip(inner, v6, &quoted, delta, false);
    if (room >= (meta->protocol == PROTO_TCP ? 18u : 8u)) {
        lbrl_packet_t complete = {.flags = 0};
        rewrite_transport(&complete, transport, meta->protocol, &quoted, delta);
    } else {
        store16(transport, quoted.sport);
        store16(transport + 2, quoted.dport);
    }
}

void icmp_translate(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                    const flow_ref_t *ref)
{
    bool v6 = (meta->flags & META_V6) != 0;
    translation_t to = translation_of(worker->table, ref, !(meta->flags & META_RETURN));
    translate_quote(packet, meta, &to);

    /* routers behind us stay hidden: the error comes from the address that its receiver talks to */
    uint8_t *ip = packet->data;
    ip_t src = v6 ? ip_load(ip + 8) : ip_from_v4(load32(ip + 12));
    ip_t dst = v6 ? ip_load(ip + 24) : ip_from_v4(load32(ip + 16));
    if (fragment_may_be_cut(packet, meta)) {
        fragment_identify(worker, packet, meta);
    }
    rewrite_ip(ip, v6, &to, address_delta(&to, &src, &dst), true);

    uint8_t *icmp = ip + meta->transport;
    uint32_t size = packet->length - meta->transport;
    store16(icmp + 2, 0);
    uint64_t sum = sum_bytes(icmp, size);
    if (v6) {
        sum += sum_pseudo(to.src, to.dst, size, PROTO_ICMPV6);
    }
    store16(icmp + 2, sum_finish(sum));
    packet->flags = 0;
    packet->csum_start = packet->csum_offset = 0;
}
