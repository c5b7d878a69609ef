#include "fragment.h"

enum {
    HINT_VALID = 1 << 6,
    HINT_TIME_SHIFT = 8, /* 16 bits of time in units of 16 ms lie between partition and hash */
    HINT_HASH_SHIFT = 24,
    V6_FRAGMENT_ID = 4, /* offset in the fragment header */
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

/* Its set of hints. */
static uint64_t *hints_of(const lbrl_worker_t *worker, uint64_t hash)
{
    return worker->lb->fragment_hints + (hash >> 32 & (HINT_SETS - 1)) * HINT_WAYS;
}

static bool hint_is_of(uint64_t word, uint64_t hash)
{
    return (word & HINT_VALID) && (word ^ hash) >> HINT_HASH_SHIFT == 0;
}

static uint16_t hint_time(const lbrl_worker_t *worker)
{
    return (uint16_t)(worker->now_ms >> 4);
}

static uint16_t hint_age(const lbrl_worker_t *worker, uint64_t word)
{
    return (uint16_t)(hint_time(worker) - (uint16_t)(word >> HINT_TIME_SHIFT));
}

void fragment_hint(lbrl_worker_t *worker, uint64_t hash, uint8_t partition)
{
    uint64_t *hints = hints_of(worker, hash);
    unsigned place = 0;
    uint32_t oldest = 0;
    for (unsigned i = 0; i < HINT_WAYS; i++) {
        uint64_t word = __atomic_load_n(&hints[i], __ATOMIC_RELAXED);
        if (hint_is_of(word, hash)) {
            place = i;
            break;
        }
        uint32_t age = word & HINT_VALID ? hint_age(worker, word) : UINT32_MAX;
        if (age > oldest) {
            oldest = age;
            place = i;
        }
    }
    uint64_t word = hash >> HINT_HASH_SHIFT << HINT_HASH_SHIFT |
                    (uint64_t)hint_time(worker) << HINT_TIME_SHIFT | HINT_VALID | partition;
    __atomic_store_n(&hints[place], word, __ATOMIC_RELAXED);
}

uint8_t fragment_partition(const lbrl_worker_t *worker, uint64_t hash)
{
    const uint64_t *hints = hints_of(worker, hash);
    for (unsigned i = 0; i < HINT_WAYS; i++) {
        uint64_t word = __atomic_load_n(&hints[i], __ATOMIC_RELAXED);
        if (hint_is_of(word, hash)) {
            return word & (LBRL_PARTITIONS - 1);
        }
    }
    return LBRL_PARTITIONS;
}

/* ------------------------------------------------------------------------------- records */

static fragment_t *set_of(lbrl_worker_t *worker, uint64_t hash)
{
    return worker->fragments[hash >> 16 & (FRAGMENT_SETS - 1)];
}

static fragment_t *find(lbrl_worker_t *worker, const ip_t *src, const ip_t *dst, uint32_t id,
                        uint8_t protocol, uint64_t hash)
{
    fragment_t *set = set_of(worker, hash);
    for (unsigned i = 0; i < FRAGMENT_WAYS; i++) {
        if (set[i].way != FRAGMENT_NONE && set[i].id == id && set[i].protocol == protocol &&
            ip_equal(&set[i].src, src) && ip_equal(&set[i].dst, dst) &&
            worker->now_ms - set[i].time_ms <= FRAGMENT_MS) {
            return &set[i];
        }
    }
    return NULL;
}

const fragment_t *fragment_find(lbrl_worker_t *worker, const meta_t *meta)
{
    return find(worker, &meta->src, &meta->dst, meta->fragment_id, key_protocol(meta), meta->hash);
}

/* A place of the set that is free or oldest. */
static fragment_t *place_in(const lbrl_worker_t *worker, fragment_t *set)
{
    fragment_t *best = &set[0];
    for (unsigned i = 1; i < FRAGMENT_WAYS && best->way != FRAGMENT_NONE; i++) {
        if (set[i].way == FRAGMENT_NONE ||
            worker->now_ms - set[i].time_ms > worker->now_ms - best->time_ms) {
            best = &set[i];
        }
    }
    return best;
}

/* The packet's record, begun anew where there is none. */
static fragment_t *record(lbrl_worker_t *worker, const meta_t *meta)
{
    uint64_t hash = fragment_hash(worker, meta);
    fragment_t *fragment =
        find(worker, &meta->src, &meta->dst, meta->fragment_id, key_protocol(meta), hash);
    if (!fragment) {
        fragment = place_in(worker, set_of(worker, hash));
        *fragment = (fragment_t){.src = meta->src,
                                 .dst = meta->dst,
                                 .id = meta->fragment_id,
                                 .protocol = key_protocol(meta)};
    }
    fragment->time_ms = worker->now_ms;
    worker->fragment_firsts++;
    return fragment;
}

void fragment_note(lbrl_worker_t *worker, const meta_t *meta, fragment_way_t way)
{
    record(worker, meta)->way = (uint8_t)way;
}

/* ------------------------------------------------------------------------------- identifications */

static void write_id_v4(uint8_t *ip, uint16_t id)
{
    const uint16_t old = load16(ip + 4);
    const uint16_t new_id = swap16(id);
    store16(ip + 4, new_id);
    store16(ip + 10, sum_update(load16(ip + 10), (uint32_t)new_id + (uint16_t)~old));
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
    write_id_v4(packet->data, (uint16_t)swap32(id));
}

void fragment_identify(lbrl_worker_t *worker, const lbrl_packet_t *packet, const meta_t *meta)
{
    write_id_v4(packet->data, (uint16_t)fragment_id_next(worker));
    if (packet->gso_type != LBRL_GSO_NONE) {
        worker->fragment_ids += meta->payload / packet->gso_size; /* its segments count on */
    }
}

/* ------------------------------------------------------------------------------- packets */

void fragment_first(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                    const flow_ref_t *ref)
{
    fragment_t *fragment = record(worker, meta);
    /* one that comes twice keeps its identification, for later ones may have left with it */
    bool again = fragment->way == FRAGMENT_FLOW && fragment->entry == ref->entry &&
                 fragment->flow_check == ref->flow->check;
    fragment->way = FRAGMENT_FLOW;
    fragment->entry = ref->entry;
    fragment->flow_check = ref->flow->check;
    fragment->partition = (uint8_t)(ref->partition - worker->lb->partitions);
    fragment->from_client = !(meta->flags & META_RETURN);
    if (vip_is_one_way(ref->vip)) {
        return;
    }
    if (!again) {
        fragment->new_id = swap32(fragment_id_next(worker)); /* several clients share our address */
    }
    write_id(packet, meta, fragment->new_id);
}

uint8_t fragment_later(lbrl_worker_t *worker, lbrl_packet_t *packet, const meta_t *meta,
                       const fragment_t *fragment, flow_ref_t *ref)
{
    partition_t *partition = &worker->lb->partitions[fragment->partition];
    const flow_t *flow = &partition->flows[fragment->entry];
    if (!(partition->keeps[fragment->entry].bits & KEEP_USED) ||
        flow->check != fragment->flow_check) {
        return LBRL_DROP_FRAGMENT_UNKNOWN; /* the flow has gone meanwhile */
    }
    *ref = flow_ref(worker, partition, fragment->entry);
    if (vip_is_one_way(ref->vip)) {
        return LBRL_DROP_NONE;
    }
    write_id(packet, meta, fragment->new_id);
    translation_t to = translation_of(worker->table, ref, fragment->from_client);
    bool v6 = (meta->flags & META_V6) != 0;
    rewrite_ip(packet->data, v6, &to, address_delta(&to, &meta->src, &meta->dst), true);
    return LBRL_DROP_NONE;
}

/* ------------------------------------------------------------------------------- before their first */

bool fragment_hold(lbrl_worker_t *worker, const lbrl_packet_t *packet, const meta_t *meta)
{
    if (!worker->lb->holds || (packet->flags & LBRL_PACKET_EXPIRED) ||
        worker->held_count == sizeof(worker->held) / sizeof(worker->held[0])) {
        return false;
    }
    held_t *held = &worker->held[worker->held_count++];
    *held = (held_t){.packet = *packet,
                     .src = meta->src,
                     .dst = meta->dst,
                     .hash = meta->hash,
                     .id = meta->fragment_id,
                     .since_ms = worker->now_ms,
                     .protocol = key_protocol(meta)};
    held->packet.length += meta->trailer;
    return true;
}

/* Whether anything may have changed: a first fragment has come here, perhaps at another worker, or too many wait. */
static bool is_due(const lbrl_worker_t *worker, uint32_t now_ms)
{
    return worker->held_firsts != worker->fragment_firsts || worker->held_ms != now_ms ||
           worker->held_count > LBRL_HELD_MAX;
}

/* Whether the first fragment has come, here or at the worker that the hints name. */
static bool has_first(lbrl_worker_t *worker, const held_t *held)
{
    uint8_t partition = fragment_partition(worker, held->hash);
    return (partition != LBRL_PARTITIONS && worker->lb->owner[partition] != worker->index) ||
           find(worker, &held->src, &held->dst, held->id, held->protocol, held->hash);
}

uint32_t lbrl_held_take(lbrl_worker_t *worker, lbrl_packet_t *packets, uint32_t max,
                        uint64_t now_us)
{
    uint32_t now_ms = (uint32_t)(now_us / 1000);
    uint32_t count_ = worker->held_count;
    if (LIKELY(count_ == 0) || (now_us != UINT64_MAX && !is_due(worker, now_ms))) {
        return 0;
    }
    uint32_t taken = 0, kept = 0;
    for (uint32_t i = 0; i < count_; i++) {
        const held_t *held = &worker->held[i];
        bool first = taken < max && has_first(worker, held);
        bool expired =
            now_us == UINT64_MAX || now_ms - held->since_ms > HELD_MS || count_ - i > LBRL_HELD_MAX;
        if (taken < max && (first || expired)) {
            packets[taken] = held->packet;
            packets[taken++].flags |= first ? 0 : LBRL_PACKET_EXPIRED;
        } else {
            worker->held[kept++] = *held;
        }
    }
    worker->held_count = kept;
    if (taken < max) { /* else there may be more */
        worker->held_firsts = worker->fragment_firsts;
        worker->held_ms = now_ms;
    }
    return taken;
}
