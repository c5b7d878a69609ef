/*
 * NAT ports. A return packet is recognised by backend address and port, NAT source, NAT port and protocol, so each
 * backend endpoint has every port of every source to itself. Port number i of partition p of a source is
 * port_first + 64 i + p: the port names its owner.
 *
 * Free ports return first in, first out. A port whose flow the server closed first rests in quarantine: it stands in
 * the ring, marked, while its entry lingers in the flow table and remembers the client's last sequence and timestamp.
 */
#ifndef LBRL_PORTS_H
#define LBRL_PORTS_H

#include "arena.h"

/* One partition's ports of one map; written by the partition's owner only. */
typedef struct port_share {
    uint16_t head;      /* of the ring of returned ports */
    uint16_t count;     /* ports in the ring */
    uint16_t fresh;     /* ports from here on were never used */
    uint16_t half_open; /* ports held by half-open flows */
} port_share_t;

/* The ports of one source towards one endpoint. */
typedef struct port_map {
    uint16_t ports; /* per partition */
    port_share_t shares[LBRL_PARTITIONS];
    uint16_t ring[]; /* [LBRL_PARTITIONS][ports], touched only as ports return */
} port_map_t;

/* A backend's address and port, shared by all slots that lead to it. */
typedef struct endpoint {
    struct endpoint *next; /* in the control thread's table */
    ip_t address;
    uint16_t port; /* network order */
    uint8_t protocol;
    uint32_t references;            /* slots; control thread */
    port_map_t *maps[SOURCES_HELD]; /* published before the source is */
} endpoint_t;

/* While flows are attached, before the rings are made, the ring says of each port: */
enum { PORT_USE_FREE, PORT_USE_TAKEN, PORT_USE_RESTS };

#define PORT_NONE  UINT16_MAX
#define PORT_RESTS 0x8000u /* in the ring: an entry may still hold the port */

static inline uint16_t *port_ring(port_map_t *map, uint32_t partition)
{
    return map->ring + (size_t)partition * map->ports;
}

/* Next free port's number, possibly marked PORT_RESTS, or PORT_NONE. */
static inline uint16_t port_take(port_map_t *map, uint32_t partition)
{
    port_share_t *share = &map->shares[partition];
    if (share->fresh < map->ports) {
        return share->fresh++;
    }
    if (!share->count) {
        return PORT_NONE;
    }
    uint16_t port = port_ring(map, partition)[share->head];
    share->head = (uint16_t)(share->head + 1 == map->ports ? 0 : share->head + 1);
    share->count--;
    return port;
}

/* Puts a port at the ring's end. Each port is in the ring at most once. */
static inline void port_return(port_map_t *map, uint32_t partition, uint16_t port)
{
    port_share_t *share = &map->shares[partition];
    uint32_t at = (uint32_t)share->head + share->count;
    at -= at >= map->ports ? map->ports : 0;
    port_ring(map, partition)[at] = port;
    share->count++;
}

/* The first free port that does not rest, or PORT_NONE; those before it go to the ring's end. */
static inline uint16_t port_take_rested(port_map_t *map, uint32_t partition)
{
    const port_share_t *share = &map->shares[partition];
    const uint16_t *ring = port_ring(map, partition);
    for (uint32_t i = 0; i < share->count; i++) {
        const uint32_t at = share->head + i;
        if (!(ring[at < map->ports ? at : at - map->ports] & PORT_RESTS)) {
            for (; i; i--) {
                port_return(map, partition, port_take(map, partition));
            }
            return port_take(map, partition);
        }
    }
    return PORT_NONE;
}

/* Ports that half-open flows may hold, so that a flood leaves room for those that complete. */
static inline uint16_t port_half_open_max(const arena_source_t *source)
{
    uint32_t ports = (uint32_t)source->port_last - source->port_first + 1;
    return (uint16_t)(ports / LBRL_PARTITIONS / 2 + 1);
}

static inline uint16_t port_number(const arena_source_t *source, uint32_t partition, uint16_t port)
{
    return (uint16_t)(source->port_first + 64u * port + partition);
}

/* Number of a port of a source within its partition. */
static inline uint16_t port_index(const arena_source_t *source, uint16_t number)
{
    return (uint16_t)((number - source->port_first) >> 6);
}

#endif
