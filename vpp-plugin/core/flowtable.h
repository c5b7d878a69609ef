/*
 * The flow table of one partition: entries in the arena, and beside them what is rebuilt at attach: two indexes that find
 * each entry by what its client and by what its backend sends, free list, and the lists of half-open and of closed flows.
 *
 * An index is bucketed by cache line: 15 places, each a 16-bit tag and the entry's number. A full bucket overflows into
 * the next one and counts that, so that a search ends at the first bucket that never overflowed. A tag only nominates:
 * callers compare whole tuples.
 */
#ifndef LBRL_FLOWTABLE_H
#define LBRL_FLOWTABLE_H

#include "arena.h"

/* Every x86-64 has it; elsewhere, or with LBRL_NO_SIMD, a loop does the same. */
#if defined(__SSE2__) && !defined(LBRL_NO_SIMD)
#define LBRL_SSE2
#include <emmintrin.h>
#endif

#define FLOW_NONE UINT32_MAX

enum {
    BUCKET_PLACES = 15,
    BUCKET_OVERFLOW = 15, /* tag[] that counts those that went on to the next bucket */
};

typedef struct bucket {
    uint16_t tag[16]; /* 0: empty */
    uint16_t entry[16];
} bucket_t;

static_assert(sizeof(bucket_t) == 64, "a bucket fills one cache line");

typedef struct flow_index {
    bucket_t *buckets;
    uint32_t count;
} flow_index_t;

/* Which of a partition's indexes. */
enum { BY_CLIENT, BY_SERVER, INDEXES };

typedef struct flow_link {
    uint32_t previous, next;
} flow_link_t;

typedef struct flow_list {
    uint32_t head, tail, count;
} flow_list_t;

/* Bits of flow_keep_t. */
enum {
    KEEP_USED = 1,
    KEEP_OPEN = 2,          /* counted as open */
    KEEP_PORT_RETURNED = 4, /* the NAT port stands in the ring of free ports */
    KEEP_HALF_OPEN = 8,     /* in partition_t.half_open */
    KEEP_CLOSED = 16,       /* in partition_t.closed */
    KEEP_ALL = 31,
};

/*
 * What the process relies on of an entry: where it stands in indexes, lists and counts. The arena is memory that others may
 * have a way to; what an edit there makes of a flow is a wrong flow, but never a wrong place in memory.
 */
typedef struct flow_keep {
    uint64_t client_hash, server_hash; /* server: where the flow has a NAT port */
    flow_link_t link; /* an entry is in at most one list: free, half_open, closed */
    uint16_t vip, slot;
    uint16_t nat_port; /* network order */
    uint8_t source;
    uint8_t address : 3;
    uint8_t bits : 5; /* KEEP_* */
} flow_keep_t;

static_assert(sizeof(flow_keep_t) == 32, "two in a cache line, none in two");
static_assert(LBRL_ADDRESSES_MAX <= 1 << 3, "3 bits number an address");

static inline void keep_set(flow_keep_t *keep, unsigned bits)
{
    keep->bits = (keep->bits | bits) & KEEP_ALL;
}

static inline void keep_clear(flow_keep_t *keep, unsigned bits)
{
    keep->bits = keep->bits & ~bits & KEEP_ALL;
}

/* Written by the worker that owns the partition only; counts are read by others. */
typedef struct partition {
    flow_index_t index[INDEXES];
    flow_t *flows;
    flow_keep_t *keeps;
    uint32_t flow_count;
    uint32_t free_head;
    uint32_t fresh; /* entries from here on were never used */
    uint32_t used;
    uint32_t half_open_max;
    flow_list_t half_open; /* oldest first */
    flow_list_t closed;    /* oldest first: the first to make room */
    uint32_t sweep;        /* next entry that ageing looks at */
    uint32_t hand;         /* next one that is asked to make room for being idle */
} __attribute__((aligned(64))) partition_t;

/* Steps through the entries that a hash nominates. */
typedef struct index_cursor {
    const flow_index_t *index;
    const bucket_t *bucket;
    uint32_t matches; /* bit per place of the bucket still to be looked at */
    uint16_t tag;
} index_cursor_t;

static inline uint16_t index_tag(uint64_t hash)
{
    return (uint16_t)(hash >> 48) | 1u;
}

static inline bucket_t *index_home(const flow_index_t *index, uint64_t hash)
{
    return &index->buckets[(hash >> 8 & 0xffffffffu) * index->count >> 32];
}

static inline bucket_t *index_after(const flow_index_t *index, const bucket_t *bucket)
{
    size_t next = (size_t)(bucket - index->buckets) + 1;
    return &index->buckets[next == index->count ? 0 : next];
}

/* Bit per place that holds the tag. */
static inline uint32_t bucket_matches(const bucket_t *bucket, uint16_t tag)
{
#ifdef LBRL_SSE2
    __m128i wanted = _mm_set1_epi16((short)tag);
    __m128i low =
        _mm_cmpeq_epi16(_mm_load_si128((const __m128i *)(const void *)&bucket->tag[0]), wanted);
    __m128i high =
        _mm_cmpeq_epi16(_mm_load_si128((const __m128i *)(const void *)&bucket->tag[8]), wanted);
    uint32_t matches = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(low, high));
#else
    uint32_t matches = 0;
    for (unsigned i = 0; i < BUCKET_PLACES; i++) {
        matches |= (uint32_t)(bucket->tag[i] == tag) << i;
    }
#endif
    return matches & ((1u << BUCKET_PLACES) - 1);
}

static inline index_cursor_t index_find(const flow_index_t *index, uint64_t hash)
{
    const bucket_t *bucket = index_home(index, hash);
    uint16_t tag = index_tag(hash);
    return (index_cursor_t){index, bucket, bucket_matches(bucket, tag), tag};
}

/* Next nominated entry, or FLOW_NONE. */
static inline uint32_t index_next(index_cursor_t *cursor)
{
    while (!cursor->matches) {
        if (!cursor->bucket->tag[BUCKET_OVERFLOW]) {
            return FLOW_NONE;
        }
        cursor->bucket = index_after(cursor->index, cursor->bucket);
        cursor->matches = bucket_matches(cursor->bucket, cursor->tag);
    }
    uint32_t place = (uint32_t)__builtin_ctz(cursor->matches);
    cursor->matches &= cursor->matches - 1;
    return cursor->bucket->entry[place];
}

/* Buckets of an index for so many flows. */
uint32_t index_buckets(uint32_t flows);

void index_add(const flow_index_t *index, uint64_t hash, uint32_t entry);
/* The entry must be there. */
void index_remove(const flow_index_t *index, uint64_t hash, uint32_t entry);

void list_append(partition_t *partition, flow_list_t *list, uint32_t entry);
void list_unlink(partition_t *partition, flow_list_t *list, uint32_t entry);

/* An entry that no flow uses, or FLOW_NONE. */
uint32_t entry_take(partition_t *partition);
void entry_release(partition_t *partition, uint32_t entry);

/* The two words that stand for an IPv4 tuple in its hash; ports in network order. */
static inline uint64_t tuple_addresses_v4(const ip_t *src, const ip_t *dst)
{
    return (uint64_t)ip_v4(src) << 32 | ip_v4(dst);
}

static inline uint64_t tuple_rest(uint16_t sport, uint16_t dport, uint8_t protocol)
{
    return (uint64_t)sport << 32 | (uint64_t)dport << 16 | protocol;
}

static inline uint64_t tuple_rest_v4(uint16_t sport, uint16_t dport, uint8_t protocol)
{
    return tuple_rest(sport, dport, protocol) | 1ull << 63;
}

/* Hash of a tuple as a packet carries it; ports in network order. */
static inline uint64_t tuple_hash(const lbrl_key_t *key, const ip_t *src, const ip_t *dst,
                                  uint16_t sport, uint16_t dport, uint8_t protocol)
{
    lbrl_sip_t s;
    lbrl_sip_begin(&s, key);
    if (ip_is_v4(src)) {
        lbrl_sip_word(&s, tuple_addresses_v4(src, dst));
        lbrl_sip_word(&s, tuple_rest_v4(sport, dport, protocol));
    } else {
        lbrl_sip_word(&s, src->word[0]);
        lbrl_sip_word(&s, src->word[1]);
        lbrl_sip_word(&s, dst->word[0]);
        lbrl_sip_word(&s, dst->word[1]);
        lbrl_sip_word(&s, tuple_rest(sport, dport, protocol));
    }
    return lbrl_sip_end(&s);
}

#endif
