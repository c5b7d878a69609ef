/*
 * Connections of backends that are removed: they go on for as long as their servers answer. Notes since when a client
 * waits, per flow entry, and only while its backend is removed.
 */
#ifndef LBRL_UNANSWERED_H
#define LBRL_UNANSWERED_H

#include "flow.h"

static inline unanswered_t *unanswered_of(const lbrl_worker_t *worker, const flow_ref_t *ref)
{
    return &worker->lb->unanswered[ref->flow - worker->lb->arena.flows];
}

/* Another one for each flow of an entry, and for each time that its backend is removed; hardly ever 0. */
static inline uint32_t unanswered_tag(const flow_ref_t *ref)
{
    return ref->flow->check + __atomic_load_n(&ref->slot->times_gone, __ATOMIC_RELAXED);
}

/* Whether a server that is there answers this segment at once: data, FIN, or a probe of what it has acknowledged. */
static inline bool unanswered_demands(const flow_t *flow, const lbrl_packet_t *packet,
                                      const meta_t *meta)
{
    const uint32_t sequence = get32(packet->data + meta->transport + 4);
    return !(meta->tcp_flags & TCP_RST) &&
           (meta->payload != 0 || (meta->tcp_flags & (TCP_SYN | TCP_FIN)) != 0 ||
            (int32_t)(sequence - flow->client_end) < 0);
}

/* Notes a client's segment; true if its server has answered none for too long. One-way, no answer is seen. */
static inline bool unanswered_note(const lbrl_worker_t *worker, const flow_ref_t *ref,
                                   const lbrl_packet_t *packet, const meta_t *meta)
{
    unanswered_t *noted = unanswered_of(worker, ref);
    if (vip_is_one_way(ref->vip) || !unanswered_demands(ref->flow, packet, meta)) {
        return false;
    }
    if (noted->tag != unanswered_tag(ref)) {
        *noted = (unanswered_t){unanswered_tag(ref), worker->now_ms};
    }
    return worker->now_ms - noted->since_ms >= GONE_SILENCE_MS;
}

/* The server has sent something. */
static inline void unanswered_clear(const lbrl_worker_t *worker, const flow_ref_t *ref)
{
    unanswered_of(worker, ref)->tag = 0;
}

#endif
