/*
 * Whose packet it is: parses and hashes a round of packets, finds partition and owner of each, and the entry that the
 * index nominates for it. What is nominated is verified where it is used.
 */
#ifndef LBRL_RECOGNISE_H
#define LBRL_RECOGNISE_H

#include "flow.h"
#include "fragment.h"

enum { PREFETCH_AHEAD = 4 }; /* packet headers */

static_assert((int)ROUND <= (int)TUPLES_MAX, "the tuples of a round are hashed together");

static inline bool is_return(const table_t *table, meta_t *meta)
{
    uint16_t port = swap16(meta->dport);
    if (LIKELY((uint16_t)(port - table->return_first) > table->return_span)) {
        return false;
    }
    for (uint32_t i = 0; i < table->source_count; i++) {
        const arena_source_t *source = &table->sources[table->held[i]].is;
        if (port >= source->port_first && port <= source->port_last &&
            ip_equal(&source->address, &meta->dst)) {
            meta->source = table->held[i];
            meta->flags |= META_RETURN;
            meta->partition = port & (LBRL_PARTITIONS - 1);
            return true;
        }
    }
    return false;
}

static inline void classify_fragment(lbrl_worker_t *worker, meta_t *meta)
{
    meta->hash = fragment_hash(worker, meta);
    meta->partition = fragment_partition(worker, meta->hash);
    if (meta->partition != LBRL_PARTITIONS && worker->lb->owner[meta->partition] != worker->index) {
        meta->kind = META_HANDOVER;
    }
}

/* First fragment of a packet without ports: its own hash says who keeps its record. */
static inline void classify_first_fragment(lbrl_worker_t *worker, meta_t *meta)
{
    meta->hash = fragment_hash(worker, meta);
    meta->partition = meta->hash & (LBRL_PARTITIONS - 1);
    fragment_hint(worker, meta->hash, meta->partition);
    if (worker->lb->owner[meta->partition] != worker->index) {
        meta->kind = META_HANDOVER;
    }
}

/* Partition and owner of a packet with a tuple, whose hash is known; fetches the index bucket. */
static inline void classify_flow(lbrl_worker_t *worker, meta_t *meta)
{
    const lbrl_t *lb = worker->lb;
    if (!is_return(worker->table, meta)) {
        meta->partition = meta->hash & (LBRL_PARTITIONS - 1);
    }
    if (UNLIKELY(lb->owner[meta->partition] != worker->index)) {
        meta->kind = META_HANDOVER;
        return;
    }
    uint32_t index =
        (uint32_t)(meta->partition * INDEXES + (meta->flags & META_RETURN ? BY_SERVER : BY_CLIENT));
    flow_index_t home = {lb->buckets + (size_t)index * lb->bucket_count, lb->bucket_count};
    meta->bucket = index_home(&home, meta->hash);
    __builtin_prefetch(meta->bucket);
}

/* What is known of a packet whose tuple is that of the one before it. */
static inline void classify_again(meta_t *meta, const meta_t *before)
{
    meta->hash = before->hash;
    meta->bucket = before->bucket;
    meta->candidate = before->candidate;
    meta->kind = before->kind;
    meta->partition = before->partition;
    meta->source = before->source;
    meta->flags |= before->flags & META_RETURN;
}

static inline void classify(lbrl_worker_t *worker, meta_t *meta)
{
    if (LIKELY(meta->kind == META_FLOW || meta->kind == META_ICMP_ERROR)) {
        meta->hash = tuple_hash(&worker->lb->key, &meta->src, &meta->dst, meta->sport, meta->dport,
                                meta->protocol);
        classify_flow(worker, meta);
        if (UNLIKELY(meta->flags & META_FIRST_FRAGMENT)) {
            fragment_hint(worker, fragment_hash(worker, meta), meta->partition);
        }
    } else if (meta->kind == META_FRAGMENT) {
        classify_fragment(worker, meta);
    } else if ((meta->flags & META_FIRST_FRAGMENT) && meta->kind != META_DROP) {
        classify_first_fragment(worker, meta);
    }
}

/* Entry that the index nominates first, or NULL; fetches it. */
static inline flow_t *nominate(const lbrl_worker_t *worker, meta_t *meta)
{
    const lbrl_t *lb = worker->lb;
    meta->candidate = FLOW_NONE;
    if (UNLIKELY(meta->kind != META_FLOW && meta->kind != META_ICMP_ERROR)) {
        return NULL;
    }
    const bucket_t *bucket = meta->bucket;
    uint32_t matches = bucket_matches(bucket, index_tag(meta->hash));
    if (LIKELY(matches)) {
        meta->candidate = bucket->entry[__builtin_ctz(matches)];
    } else {
        index_cursor_t cursor =
            index_find(flow_index(&lb->partitions[meta->partition], meta), meta->hash);
        meta->candidate = index_next(&cursor);
        if (meta->candidate == FLOW_NONE) {
            return NULL;
        }
    }
    flow_t *flow = &lb->arena.flows[meta->partition * lb->partition_flows + meta->candidate];
    __builtin_prefetch(flow, 1);
    return flow;
}

/* Whether a packet has the tuple of the one before it, as in the bursts that one connection sends. Ports tell most of
 * those apart that have not. */
static inline bool comes_again(const meta_t *meta, const meta_t *before)
{
    return UNLIKELY(meta_ports(meta) == meta_ports(before)) && meta->kind == META_FLOW &&
           before->kind == META_FLOW && meta->protocol == before->protocol &&
           !((meta->flags | before->flags) & META_FIRST_FRAGMENT) &&
           ip_equal(&meta->src, &before->src) && ip_equal(&meta->dst, &before->dst);
}

/* Parses and hashes all packets of a round, and fetches the index buckets. */
static inline void recognise(lbrl_worker_t *worker, lbrl_packet_t *packets, uint32_t n)
{
    static const meta_t nobody = {.kind = META_DROP};
    const meta_t *before = &nobody;
    tuples_t tuples;
    meta_t *of[ROUND];
    tuples.count = 0;
    for (uint32_t i = 0; i < n; i++) {
        meta_t *meta = &worker->metas[i];
        if (i + PREFETCH_AHEAD < n) {
            __builtin_prefetch(packets[i + PREFETCH_AHEAD].data, 1);
        }
        packets[i].reason = LBRL_DROP_NONE;
        packets[i].tunnel = 0;
        bool plain = parse_plain(&packets[i], meta);
        if (UNLIKELY(!plain)) {
            lbrl_parse(&packets[i], meta);
        }
        if (UNLIKELY(comes_again(meta, before))) {
            meta->flags |= META_AGAIN;
        } else if (LIKELY(plain)) {
            of[tuples.count] = meta;
            tuples_add(&tuples, &meta->src, &meta->dst, meta->sport, meta->dport, PROTO_TCP);
        } else {
            classify(worker, meta);
        }
        before = meta;
    }
    worker->lb->hash_tuples(&worker->lb->key, &tuples);
    for (uint32_t i = 0; i < tuples.count; i++) {
        of[i]->hash = tuples.hash[i];
        classify_flow(worker, of[i]);
    }
}

#endif
