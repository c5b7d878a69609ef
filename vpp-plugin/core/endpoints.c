#include "control.h"

static endpoint_t **head_of(lbrl_t *lb, const ip_t *address, uint16_t port, uint8_t protocol)
{
    return &lb->endpoints[tuple_hash(&lb->key, address, address, port, 0, protocol) %
                          ENDPOINT_HEADS];
}

static port_map_t *map_make(const arena_source_t *source)
{
    uint16_t ports = (uint16_t)((source->port_last - source->port_first + 1) / LBRL_PARTITIONS);
    port_map_t *map = memory_take(sizeof(*map) + sizeof(map->ring[0]) * LBRL_PARTITIONS * ports);
    if (map) {
        map->ports = ports;
    }
    return map;
}

static void endpoint_free(endpoint_t *endpoint)
{
    for (uint32_t i = 0; i < SOURCES_HELD; i++) {
        memory_free(endpoint->maps[i]);
    }
    memory_free(endpoint);
}

static bool same_family(const arena_source_t *source, const ip_t *address)
{
    return ip_is_v4(&source->address) == ip_is_v4(address);
}

endpoint_t *endpoint_take(lbrl_t *lb, const ip_t *address, uint16_t port, uint8_t protocol)
{
    endpoint_t **head = head_of(lb, address, port, protocol);
    for (endpoint_t *endpoint = *head; endpoint; endpoint = endpoint->next) {
        if (endpoint->port == port && endpoint->protocol == protocol &&
            ip_equal(&endpoint->address, address)) {
            endpoint->references++;
            return endpoint;
        }
    }
    endpoint_t *made = memory_take(sizeof(*made));
    if (!made) {
        return NULL;
    }
    made->address = *address;
    made->port = port;
    made->protocol = protocol;
    made->references = 1;
    for (uint32_t i = 0; i < SOURCES_HELD; i++) {
        const arena_source_t *source = &lb->node.sources[i];
        if (source->state != SOURCE_FREE && same_family(source, address)) {
            made->maps[i] = map_make(source);
            if (!made->maps[i]) {
                endpoint_free(made);
                return NULL;
            }
        }
    }
    made->next = *head;
    *head = made;
    return made;
}

void endpoint_release(lbrl_t *lb, endpoint_t *endpoint)
{
    if (--endpoint->references) {
        return;
    }
    endpoint_t **at = head_of(lb, &endpoint->address, endpoint->port, endpoint->protocol);
    while (*at != endpoint) {
        at = &(*at)->next;
    }
    *at = endpoint->next;
    for (uint32_t i = 0; i < SOURCES_HELD; i++) {
        retire(lb, endpoint->maps[i]);
    }
    retire(lb, endpoint);
}

int endpoints_add_source(lbrl_t *lb, uint32_t source)
{
    const arena_source_t *is = &lb->node.sources[source];
    for (uint32_t i = 0; i < ENDPOINT_HEADS; i++) {
        for (endpoint_t *endpoint = lb->endpoints[i]; endpoint; endpoint = endpoint->next) {
            if (!same_family(is, &endpoint->address) || endpoint->maps[source]) {
                continue;
            }
            port_map_t *map = map_make(is);
            if (!map) {
                endpoints_drop_source(lb, source);
                return LBRL_ERR_MEMORY;
            }
            __atomic_store_n(&endpoint->maps[source], map, __ATOMIC_RELEASE);
        }
    }
    return LBRL_OK;
}

void endpoints_drop_source(lbrl_t *lb, uint32_t source)
{
    for (uint32_t i = 0; i < ENDPOINT_HEADS; i++) {
        for (endpoint_t *endpoint = lb->endpoints[i]; endpoint; endpoint = endpoint->next) {
            retire(lb, endpoint->maps[source]);
            endpoint->maps[source] = NULL;
        }
    }
}

/* While flows are attached, ring[i] of a share says whether port i is in use, and `count` how many are. Turns that into
 * the ring of free ports; resting ones are free but stand at its end. */
static void settle_share(port_map_t *map, uint32_t partition)
{
    port_share_t *share = &map->shares[partition];
    uint16_t *ring = port_ring(map, partition);
    uint16_t resting[UINT16_MAX / LBRL_PARTITIONS + 1];
    uint16_t rest = 0;
    share->count = 0;
    for (uint16_t i = 0; i < map->ports; i++) {
        uint16_t use = ring[i]; /* read before it is overwritten: count <= i */
        if (use == PORT_USE_FREE) {
            ring[share->count++] = i;
        } else if (use == PORT_USE_RESTS) {
            resting[rest++] = i | PORT_RESTS;
        }
    }
    for (uint16_t i = 0; i < rest; i++) {
        ring[share->count++] = resting[i];
    }
    share->head = 0;
    share->fresh = map->ports;
}

void endpoints_settle(lbrl_t *lb)
{
    for (uint32_t i = 0; i < ENDPOINT_HEADS; i++) {
        for (endpoint_t *endpoint = lb->endpoints[i]; endpoint; endpoint = endpoint->next) {
            for (uint32_t s = 0; s < SOURCES_HELD; s++) {
                for (uint32_t p = 0; endpoint->maps[s] && p < LBRL_PARTITIONS; p++) {
                    if (endpoint->maps[s]->shares[p].count) {
                        settle_share(endpoint->maps[s], p);
                    }
                }
            }
        }
    }
}

void endpoints_free(lbrl_t *lb)
{
    for (uint32_t i = 0; lb->endpoints && i < ENDPOINT_HEADS; i++) {
        while (lb->endpoints[i]) {
            endpoint_t *endpoint = lb->endpoints[i];
            lb->endpoints[i] = endpoint->next;
            endpoint_free(endpoint);
        }
    }
}
