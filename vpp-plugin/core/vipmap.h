/* From a destination to its VIP: an open-addressed table, at most half full, built by the control thread. */
#ifndef LBRL_VIPMAP_H
#define LBRL_VIPMAP_H

#include "internal.h"

static inline uint32_t vip_map_home(const vip_map_t *map, const ip_t *address, uint16_t port,
                                    uint8_t protocol)
{
    uint64_t mixed =
        (address->word[0] ^ lbrl_rotl(address->word[1], 29)) + ((uint64_t)port << 8 | protocol);
    mixed = (mixed ^ mixed >> 32) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(mixed >> 32) & map->mask;
}

/* The place of an address and port, or NULL. Port and protocol 0: any place of that address. */
static inline const vip_place_t *vip_map_find(const vip_map_t *map, const ip_t *address,
                                              uint16_t port, uint8_t protocol)
{
    uint32_t at = vip_map_home(map, address, port, protocol);
    for (; map->places[at].used; at = (at + 1) & map->mask) {
        const vip_place_t *place = &map->places[at];
        if (place->port == port && place->protocol == protocol &&
            ip_equal(&place->address, address)) {
            return place;
        }
    }
    return NULL;
}

static inline bool is_vip_address(const table_t *table, const ip_t *address)
{
    return vip_map_find(table->map, address, 0, 0) != NULL;
}

#endif
