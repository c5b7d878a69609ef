/*
 * What level `full` remembers of each flow, in an array parallel to the flow entries: reserved at start, committed by
 * the first flow that begins at level full. It does not outlive the process: flows that were there before, or that
 * began at a lower level, feed counters (and flow_duration, fct) only.
 *
 * Every hook is called before the flow itself takes note of the packet, by the worker that owns the flow.
 */
#ifndef LBRL_SIDE_H
#define LBRL_SIDE_H

#include "flow.h"

/* Flags of a side. */
enum {
    SIDE_SHAKEN = 1,      /* lat_synack has had its chance */
    SIDE_PAID = 2,        /* the client has sent payload */
    SIDE_ASKED = 4,       /* and waits for an answer to it */
    SIDE_ASKED_AGAIN = 8, /* which was sent again meanwhile */
    SIDE_ANSWERED = 16,   /* the flow has had its first answer */
    SIDE_ACTIVE = 32,     /* counts in n_active */
    SIDE_ENDED = 64,  /* what the server sent last ended an answer to what the client sent last */
    SIDE_HEARD = 128, /* one-way: `heard` is known */
};

/* In one cache line, so that a packet at level full costs one more than at level off. */
typedef struct side {
    uint64_t tag;       /* whose this is; 0: nobody's */
    uint64_t bytes;     /* IP bytes of the client */
    uint64_t last_us;   /* of the client's last packet; 0: none yet */
    uint64_t paid_us;   /* of its first payload */
    uint64_t asked_us;  /* of its last new payload */
    uint32_t asked_end; /* sequence number behind that */
    uint32_t heard;     /* one-way: what the client has acknowledged */
    uint32_t window;    /* that the client's last packet offered, scaled */
    uint16_t mss;       /* largest segment that the server may send, options included */
    uint8_t flags;
    bool busy; /* counts as load where schedulers run on active flows */
} __attribute__((aligned(64))) side_t;

static_assert(sizeof(side_t) == 64, "a side fills one cache line");

enum { SIDE_ACTIVE_MS = 30000 }; /* after which silence ends a flow's activity */

static inline side_t *side_of(const lbrl_t *lb, const flow_t *flow)
{
    return &lb->sides[flow - lb->arena.flows];
}

/* Entry, start, client port and era; never 0, for eras are not. */
static inline uint64_t side_tag(const lbrl_sink_t *sink, const flow_t *flow)
{
    return flow_start_us(flow) | (uint64_t)flow->client_port << 40 | (uint64_t)sink->era << 56;
}

static inline bool side_is(const lbrl_sink_t *sink)
{
    return __builtin_expect(lbrl_sink_level(sink) == LBRL_LEVEL_FULL, 0);
}

/* Only the side: to fetch the reservoirs' line too, whose index would have to be drawn here, made things slower. */
static inline void side_prefetch(const lbrl_t *lb, const lbrl_sink_t *sink, const flow_t *flow)
{
    if (side_is(sink)) {
        __builtin_prefetch(side_of(lb, flow), 1);
    }
}

/* A flow begins, or begins anew. */
side_t *side_begin(const lbrl_worker_t *worker, const lbrl_sink_t *sink, const flow_t *flow);

/* A new flow, with a packet that side_packet() gets too. */
void side_open(const lbrl_worker_t *worker, lbrl_sink_t *sink, const flow_t *flow,
               const flow_birth_t *birth);

/* A packet of a flow is forwarded. `segments`: as the wire carries it. */
void side_packet(const lbrl_worker_t *worker, lbrl_sink_t *sink, const flow_t *flow,
                 const lbrl_packet_t *packet, const meta_t *meta, uint32_t segments,
                 bool from_client);

/* A flow is completed. */
void side_completed(const lbrl_worker_t *worker, lbrl_sink_t *sink, const flow_t *flow);

/* A flow leaves the counts: it is not active any more. */
void side_close(const lbrl_worker_t *worker, const lbrl_sink_t *sink, const flow_t *flow);

/* A flow that ageing looks at and keeps. */
void side_age(const lbrl_worker_t *worker, const lbrl_sink_t *sink, const flow_t *flow);

#endif
