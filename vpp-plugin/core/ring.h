/* Handover: a bounded ring of packets with one producer and one consumer. */
#ifndef LBRL_RING_H
#define LBRL_RING_H

#include <stdbool.h>

#include "lbrl/packet.h"

enum { RING_PLACES = 512 }; /* a power of 2: two full vectors */

typedef struct ring {
    uint32_t head __attribute__((aligned(64))); /* consumer's; atomic */
    uint32_t tail __attribute__((aligned(64))); /* producer's; atomic */
    lbrl_packet_t places[RING_PLACES] __attribute__((aligned(64)));
} ring_t;

static inline bool ring_push(ring_t *ring, const lbrl_packet_t *packet)
{
    uint32_t tail = ring->tail;
    if (tail - __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE) == RING_PLACES) {
        return false;
    }
    ring->places[tail % RING_PLACES] = *packet;
    __atomic_store_n(&ring->tail, tail + 1, __ATOMIC_RELEASE);
    return true;
}

static inline uint32_t ring_pop(ring_t *ring, lbrl_packet_t *packets, uint32_t max)
{
    uint32_t head = ring->head;
    uint32_t ready = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) - head;
    uint32_t taken = ready < max ? ready : max;
    for (uint32_t i = 0; i < taken; i++) {
        packets[i] = ring->places[(head + i) % RING_PLACES];
    }
    __atomic_store_n(&ring->head, head + taken, __ATOMIC_RELEASE);
    return taken;
}

#endif
