#include "fragment.h"

enum {
    HINT_VALID = 1 << 6,
    V6_FRAGMENT_ID = 4, /* offset in the fragment header */
    V6_FRAGMENT_SIZE = 8,
};

/* IPv6 identifies a packet by addresses and identification alone (RFC 8200, 4.5). */
static uint8_t key_protocol(const meta_t *meta)
{
    return meta->flags & META_V6 ? 0 : meta->protocol;
}

uint64_t fragment_hash(const lbrl_worker_t *worker, const meta_t *meta)
{
    lbrl_key_t key = {~worker->lb->key.k0, worker->lb->key.k1};
    return tuple_hash(&key, &meta->src, &meta->dst, (uint16_t)(meta->fragment_id >> 16),
                      (uint16_t)meta->fragment_id, key_protocol(meta));
}

void fragment_hint(lbrl_worker_t *worker, uint64_t hash, uint8_t partition)
{
    uint64_t word = (hash & ~0xffull) | HINT_VALID | partition;
    __atomic_store_n(&worker->lb->fragment_hints[hash >> 32 & (FRAGMENT_HINTS - 1)], word,
                     __ATOMIC_RELAXED);
}

uint8_t fragment_partition(const lbrl_worker_t *worker, uint64_t hash)
{
    uint64_t word = __atomic_load_n(&worker->lb->fragment_hints[hash >> 32 & (FRAGMENT_HINTS - 1)],
                                    __ATOMIC_RELAXED);
    if ((word ^ hash) >> 8 || !(word & HINT_VALID)) {
        return LBRL_PARTITIONS;
    }
    return word & (LBRL_PARTITIONS - 1);
}

static bool is_of(const fragment_t *fragment, const meta_t *meta)
{
    return fragment->used && fragment->id == meta->fragment_id &&
           fragment->protocol == key_protocol(meta) && ip_equal(&fragment->src, &meta->src) &&
           ip_equal(&fragment->dst, &meta->dst);
}

/* The packet's place, or the one that is free or oldest. */
static fragment_t *place_for(lbrl_worker_t *worker, const meta_t *meta, uint64_t hash)
{
    fragment_t *set = worker->fragments[hash >> 16 & (FRAGMENT_SETS - 1)];
    fragment_t *best = &set[0];
    for (unsigned i = 0; i < FRAGMENT_WAYS; i++) {
        if (is_of(&set[i], meta)) {
            return &set[i];
        }
        if (best->used &&
            (!set[i].used || worker->now_ms - set[i].time_ms > worker->now_ms - best->time_ms)) {
            best = &set[i];
        }
    }
    return best;
}

static void write_id(lbrl_packet_t *packet, const meta_t *meta, uint32_t id)
{
    if (meta->flags & META_V6) {
        /* the fragment header stands right before the transport header, or before options that first
         * fragments alone carry */
        uint8_t *ip = packet->data;
        uint8_t next = ip[6];
        uint32_t at = IPV6_HEADER;
        while (next != 44) {
            next = ip[at];
            at += (ip[at + 1] + 1u) * 8u;
        }
        store32(ip + at + V6_FRAGMENT_ID, id);
        return;
    }
    /* 16 bits in IPv4: the low ones in network order */
    uint16_t old = load16(packet->data + 4);
    uint16_t new_id = swap16((uint16_t)swap32(id));
    store16(packet->data + 4, new_id);
    store16(packet->data + 10,
            sum_update(load16(packet->data + 10), (uint32_t)new_id + (uint16_t)~old));
}

void fragment_first(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                    const flow_ref_t *ref)
{
    fragment_t *fragment = place_for(worker, meta, fragment_hash(worker, meta));
    *fragment = (fragment_t){.src = meta->src,
                             .dst = meta->dst,
                             .id = meta->fragment_id,
                             .new_id = swap32(fragment_id_next(worker)),
                             .time_ms = worker->now_ms,
                             .entry = ref->entry,
                             .flow_check = ref->flow->check,
                             .partition = (uint8_t)(ref->partition - worker->lb->partitions),
                             .protocol = key_protocol(meta),
                             .from_client = !(meta->flags & META_RETURN),
                             .used = 1};
    if (!vip_is_one_way(ref->vip)) {
        write_id(packet, meta, fragment->new_id); /* several clients share our address */
    }
}

uint8_t fragment_later(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                       flow_ref_t *ref, bool *from_client)
{
    const fragment_t *fragment = place_for(worker, meta, meta->hash);
    if (!is_of(fragment, meta) || worker->now_ms - fragment->time_ms > FRAGMENT_MS) {
        return LBRL_DROP_FRAGMENT_UNKNOWN;
    }
    partition_t *partition = &worker->lb->partitions[fragment->partition];
    const flow_t *flow = &partition->flows[fragment->entry];
    if (flow->state == LBRL_FLOW_FREE || flow->check != fragment->flow_check) {
        return LBRL_DROP_FRAGMENT_UNKNOWN; /* the flow has gone meanwhile */
    }
    *ref = flow_ref(worker, partition, fragment->entry);
    *from_client = fragment->from_client;
    if (vip_is_one_way(ref->vip)) {
        return LBRL_DROP_NONE;
    }
    write_id(packet, meta, fragment->new_id);
    translation_t to = translation_of(worker->table, ref, fragment->from_client);
    bool v6 = (meta->flags & META_V6) != 0;
    rewrite_ip(packet->data, v6, &to, address_delta(&to, &meta->src, &meta->dst), true);
    return LBRL_DROP_NONE;
}
