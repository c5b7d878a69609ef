#include "refuse.h"

#include "vipmap.h"

static bool is_link_local(const ip_t *address)
{
    const uint8_t *bytes = (const uint8_t *)address->word;
    return ip_is_v4(address) ? v4_link_local(ip_v4(address))
                             : bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
}

/* A port of ours that a NAT source's flows go out from. Programs of this host have the same address and other ports. */
static bool is_nat_port(const table_t *table, const ip_t *address, uint16_t port)
{
    for (uint32_t i = 0; i < table->source_count; i++) {
        const arena_source_t *source = &table->sources[table->held[i]].is;
        if (swap16(port) >= source->port_first && swap16(port) <= source->port_last &&
            ip_equal(&source->address, address)) {
            return true;
        }
    }
    return false;
}

bool is_forged_client(const table_t *table, const ip_t *client, uint16_t port)
{
    return is_link_local(client) || is_vip_address(table, client) ||
           (port && is_nat_port(table, client, port));
}

lbrl_verdict_t refuse(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                      uint8_t reason)
{
    if (meta->protocol == PROTO_TCP) {
        return reply_reset(worker, packet, meta, ANSWER_REFUSAL, reason);
    }
    return reply_icmp(worker, packet, meta, REPLY_PORT_UNREACHABLE, reason);
}

/* After an attach clients and servers are to wait until all that was there is there again. */
static bool is_silent(const lbrl_worker_t *worker)
{
    return worker->now_us < worker->lb->silent_until_us;
}

lbrl_verdict_t refuse_no_backend(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                                 const vip_t *vip)
{
    bool begins = meta->protocol == PROTO_UDP || is_plain_syn(meta);
    if (!begins || (vip->flags & VIP_DROPS_UNSERVED) || is_silent(worker)) {
        return drop(packet, LBRL_DROP_NO_BACKEND);
    }
    return refuse(worker, packet, meta, LBRL_DROP_NO_BACKEND);
}

lbrl_verdict_t refuse_no_flow(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                              bool drops, uint8_t reason)
{
    if (meta->protocol != PROTO_TCP || drops || worker->table->shared || is_silent(worker)) {
        return drop(packet, reason);
    }
    return reply_reset(worker, packet, meta, ANSWER_REFUSAL, reason);
}
