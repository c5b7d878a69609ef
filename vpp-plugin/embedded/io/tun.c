#include "tun.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

/* Distance of buffers: an odd number of cache lines, so that the first lines of a vector's packets do not
 * all fall into the same sets of the cache. */
#define BUFFER_STRIDE                                                                              \
    ((sizeof(lbio_buffer_t) + LBIO_BUFFER_BEFORE + LBIO_PACKET_MAX + LBIO_BUFFER_AFTER + 127u) /   \
         128u * 128u +                                                                             \
     64u)

static_assert(sizeof(struct virtio_net_hdr) == LBIO_VNET_BYTES, "header as the device has it");
static_assert(LBIO_BUFFER_BEFORE >= LBIO_VNET_BYTES + LBRL_HEADROOM, "room for answers and header");

int lbio_pool_init(lbio_pool_t *pool, uint16_t home, uint32_t count)
{
    memset(pool, 0, sizeof(*pool));
    size_t size = count * BUFFER_STRIDE;
    /* Pages become real with first use: a pool that sees small packets only stays small. */
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return -1;
    }
    pool->memory = memory;
    pool->size = size;
    for (uint32_t i = count; i-- > 0;) {
        lbio_buffer_t *buffer = (lbio_buffer_t *)((uint8_t *)memory + i * BUFFER_STRIDE);
        buffer->home = home;
        buffer->next = pool->free;
        pool->free = buffer;
    }
    return 0;
}

void lbio_pool_free(lbio_pool_t *pool)
{
    if (pool->memory != NULL) {
        (void)munmap(pool->memory, pool->size);
    }
    memset(pool, 0, sizeof(*pool));
}

static lbio_buffer_t *take(lbio_pool_t *pool)
{
    if (pool->free == NULL) {
        pool->free = __atomic_exchange_n(&pool->returned, NULL, __ATOMIC_ACQUIRE);
    }
    lbio_buffer_t *buffer = pool->free;
    if (buffer != NULL) {
        pool->free = buffer->next;
    }
    return buffer;
}

void lbio_buffer_return(lbio_pool_t *pools, uint32_t self, lbio_buffer_t *buffer)
{
    lbio_pool_t *pool = &pools[buffer->home];
    if (buffer->home == self) {
        buffer->next = pool->free;
        pool->free = buffer;
        return;
    }
    buffer->next = __atomic_load_n(&pool->returned, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&pool->returned, &buffer->next, buffer, true,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
    }
}

/* Bits of the device's header that the core knows; it hands the others through. */
static uint8_t packet_flags(uint8_t flags)
{
    return (uint8_t)(((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) ? LBRL_PACKET_NEEDS_CSUM : 0) |
                     ((flags & VIRTIO_NET_HDR_F_DATA_VALID) ? LBRL_PACKET_CSUM_VALID : 0));
}

static void describe(lbrl_packet_t *packet, lbio_buffer_t *buffer, uint32_t length)
{
    uint8_t *data = buffer->bytes + LBIO_BUFFER_BEFORE;
    struct virtio_net_hdr header;
    memcpy(&header, data - LBIO_VNET_BYTES, sizeof(header));
    buffer->gso_ecn = header.gso_type & VIRTIO_NET_HDR_GSO_ECN;
    uint32_t tailroom = LBIO_PACKET_MAX + LBIO_BUFFER_AFTER - length;
    *packet = (lbrl_packet_t){
        .data = data,
        .buffer = buffer,
        .length = length,
        .headroom = LBIO_BUFFER_BEFORE - LBIO_VNET_BYTES,
        .tailroom = (uint16_t)(tailroom < UINT16_MAX ? tailroom : UINT16_MAX),
        .gso_type = (uint8_t)(header.gso_type & ~VIRTIO_NET_HDR_GSO_ECN),
        .flags = packet_flags(header.flags),
        .gso_size = header.gso_size,
        .hdr_len = header.hdr_len,
        .csum_start = header.csum_start,
        .csum_offset = header.csum_offset,
    };
}

static ssize_t read_packet(int queue, bool ready_only, lbio_buffer_t *buffer)
{
    uint8_t *start = buffer->bytes + LBIO_BUFFER_BEFORE - LBIO_VNET_BYTES;
    size_t size = LBIO_VNET_BYTES + LBIO_PACKET_MAX;
    if (!ready_only) {
        return read(queue, start, size);
    }
    struct iovec part = {.iov_base = start, .iov_len = size};
    return preadv2(queue, &part, 1, -1, RWF_NOWAIT);
}

int lbio_tun_read(int queue, lbio_read_t how, lbio_pool_t *pool, lbrl_packet_t *packets,
                  uint32_t max, bool *drained)
{
    uint32_t limit = how == LBIO_READ_WAIT_ONE ? 1 : max;
    uint32_t count = 0;
    uint32_t bytes = 0;
    *drained = false;
    while (count < limit && bytes < LBIO_VECTOR_BYTES) {
        lbio_buffer_t *buffer = take(pool);
        if (buffer == NULL) {
            break;
        }
        ssize_t got = read_packet(queue, how == LBIO_READ_WAIT_MANY && count > 0, buffer);
        if (got <= (ssize_t)LBIO_VNET_BYTES) {
            int error = errno;
            buffer->next = pool->free;
            pool->free = buffer;
            *drained = true;
            if (got < 0 && error != EAGAIN && error != EINTR && count == 0) {
                errno = error;
                return -1;
            }
            break;
        }
        uint32_t length = (uint32_t)got - LBIO_VNET_BYTES;
        describe(&packets[count++], buffer, length);
        bytes += length;
    }
    return (int)count;
}

static int write_whole(int queue, const uint8_t *start, size_t length)
{
    for (;;) {
        ssize_t put = write(queue, start, length);
        if (put == (ssize_t)length) {
            return 0;
        }
        if (put >= 0 || errno != EINTR) {
            return -1;
        }
    }
}

/* Of a super-packet in a tunnel each segment is written by itself: the device knows no such offload. */
static int write_segments(int queue, const lbrl_packet_t *packet)
{
    uint8_t out[LBIO_VNET_BYTES + LBIO_PACKET_MAX];
    int result = 0;
    memset(out, 0, LBIO_VNET_BYTES);
    for (uint32_t index = 0;; index++) {
        uint32_t length = lbrl_segment(packet, index, out + LBIO_VNET_BYTES, LBIO_PACKET_MAX);
        if (length == 0) {
            return result;
        }
        if (write_whole(queue, out, LBIO_VNET_BYTES + (size_t)length) != 0) {
            result = -1;
        }
    }
}

int lbio_tun_write(int queue, const lbrl_packet_t *packet)
{
    if (packet->tunnel != 0) {
        return write_segments(queue, packet);
    }
    const lbio_buffer_t *buffer = packet->buffer;
    uint8_t ecn = packet->gso_type != LBRL_GSO_NONE ? buffer->gso_ecn : 0;
    struct virtio_net_hdr header = {
        .flags = (packet->flags & LBRL_PACKET_NEEDS_CSUM) ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0,
        .gso_type = packet->gso_type | ecn,
        .hdr_len = packet->hdr_len,
        .gso_size = packet->gso_size,
        .csum_start = packet->csum_start,
        .csum_offset = packet->csum_offset,
    };
    uint8_t *start = packet->data - LBIO_VNET_BYTES;
    memcpy(start, &header, sizeof(header));
    return write_whole(queue, start, LBIO_VNET_BYTES + (size_t)packet->length);
}
