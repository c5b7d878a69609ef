/*
 * Vectors of packets from and to one TUN queue with virtio-net headers.
 *
 * A buffer holds the largest super-packet with room before and after it. Buffers of one worker may
 * travel to another (handover) and come back through lbio_buffer_return().
 */
#ifndef LBIO_TUN_H
#define LBIO_TUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lbrl/packet.h"

#define LBIO_VNET_BYTES    10u    /* struct virtio_net_hdr as TUNSETVNETHDRSZ was told */
#define LBIO_PACKET_MAX    65535u /* largest packet: the device's MTU */
#define LBIO_BUFFER_BEFORE 192u   /* bytes before the packet: vnet header and the core's headroom */
#define LBIO_BUFFER_AFTER  65u

/* A vector ends early when so many bytes are in it: super-packets then are written out while they are
 * still in the cache. */
#define LBIO_VECTOR_BYTES (192u * 1024u)

typedef struct lbio_buffer {
    struct lbio_buffer *next; /* in a list of free ones */
    uint16_t home;            /* worker whose pool it belongs to */
    uint8_t gso_ecn; /* the device's ECN bit of a super-packet, which the core does not see */
    uint8_t bytes[] __attribute__((aligned(64)));
} lbio_buffer_t;

/* Free buffers of one worker. `returned` is pushed to by other workers; all else is the owner's. */
typedef struct lbio_pool {
    lbio_buffer_t *returned __attribute__((aligned(64))); /* on a cache line that others may take */
    uint8_t line[64 - sizeof(lbio_buffer_t *)];
    lbio_buffer_t *free;
    void *memory;
    size_t size;
} lbio_pool_t;

int lbio_pool_init(lbio_pool_t *pool, uint16_t home, uint32_t count); /* -1: no memory */
void lbio_pool_free(lbio_pool_t *pool);

/* Gives a buffer back to its pool; `self` is the calling worker, `pools` those of all workers. */
void lbio_buffer_return(lbio_pool_t *pools, uint32_t self, lbio_buffer_t *buffer);

/* How to read. */
typedef enum lbio_read {
    LBIO_READ_READY,     /* what is there; the descriptor is non-blocking */
    LBIO_READ_WAIT_ONE,  /* sleep until there is a packet and take that one; blocking descriptor */
    LBIO_READ_WAIT_MANY, /* and what is there by then */
} lbio_read_t;

/* Reads at most `max` packets, fewer when the vector is heavy enough. Returns their number, 0 also when a
 * signal came, or -1 with errno: EOPNOTSUPP when the kernel cannot read a blocking descriptor without
 * waiting (before Linux 5.12), else the device is gone. `*drained` says whether the queue was left empty. */
int lbio_tun_read(int queue, lbio_read_t how, lbio_pool_t *pool, lbrl_packet_t *packets,
                  uint32_t max, bool *drained);

/* Writes one packet. Returns 0, or -1 when the device refused it. */
int lbio_tun_write(int queue, const lbrl_packet_t *packet);

#endif
