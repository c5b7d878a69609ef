/* NAT sources: those held are brought in line with those wanted, as the flows of old ones go. */
#include "control.h"

bool source_valid(const lbrl_nat_source_t *source)
{
    ip_t address = ip_load(source->address.bytes);
    return !ip_is_zero(&address) && source->port_first >= 1024 &&
           source->port_first % LBRL_PARTITIONS == 0 && source->port_last > source->port_first &&
           (source->port_last + 1u) % LBRL_PARTITIONS == 0;
}

static bool overlap(const lbrl_nat_source_t *wanted, const arena_source_t *held)
{
    ip_t address = ip_load(wanted->address.bytes);
    return ip_equal(&address, &held->address) && wanted->port_first <= held->port_last &&
           held->port_first <= wanted->port_last;
}

static bool same(const lbrl_nat_source_t *wanted, const arena_source_t *held)
{
    ip_t address = ip_load(wanted->address.bytes);
    return ip_equal(&address, &held->address) && wanted->port_first == held->port_first &&
           wanted->port_last == held->port_last;
}

/* Whether a VIP listens on a port of the range. */
static bool covers_vip(const lbrl_t *lb, const lbrl_nat_source_t *source)
{
    ip_t address = ip_load(source->address.bytes);
    for (uint32_t v = 0; v < lb->arena.vip_count; v++) {
        const arena_vip_t *vip = &lb->records[v];
        for (uint32_t i = 0; vip->state != VIP_FREE && i < LBRL_ADDRESSES_MAX; i++) {
            uint16_t port = swap16(vip->port);
            if (ip_equal(&vip->addresses[i], &address) && port >= source->port_first &&
                port <= source->port_last) {
                return true;
            }
        }
    }
    return false;
}

static bool is_wanted(const lbrl_t *lb, const arena_source_t *held)
{
    for (uint32_t i = 0; i < lb->wanted_count; i++) {
        if (same(&lb->wanted[i], held)) {
            return true;
        }
    }
    return false;
}

static int64_t entries_of(const lbrl_t *lb, uint32_t source)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < lb->worker_count; i++) {
        sum += __atomic_load_n(&lb->workers[i].source_entries[source], __ATOMIC_ACQUIRE);
    }
    return sum;
}

/* Moves one held source on; true if it changed. */
static bool settle_held(lbrl_t *lb, uint32_t i)
{
    arena_source_t *held = &lb->node.sources[i];
    if (held->state == SOURCE_ACTIVE && !is_wanted(lb, held)) {
        held->state = SOURCE_RETIRED;
        lb->source_epochs[i] = 0;
        return true;
    }
    if (held->state == SOURCE_RETIRED && is_wanted(lb, held)) {
        held->state = SOURCE_ACTIVE;
        return true;
    }
    if (held->state == SOURCE_RETIRED && lb->source_epochs[i] &&
        epoch_passed(lb, lb->source_epochs[i]) && entries_of(lb, i) == 0) {
        endpoints_drop_source(lb, i);
        *held = (arena_source_t){0};
        return true;
    }
    return false;
}

/* Makes a wanted source active if nothing stands in its way. */
static int settle_wanted(lbrl_t *lb, const lbrl_nat_source_t *wanted, bool *changed)
{
    uint32_t place = SOURCES_HELD;
    for (uint32_t i = 0; i < SOURCES_HELD; i++) {
        arena_source_t *held = &lb->node.sources[i];
        if (held->state != SOURCE_FREE && overlap(wanted, held)) {
            return LBRL_OK; /* is there already, or waits for the flows of another one */
        }
        if (held->state == SOURCE_FREE && place == SOURCES_HELD) {
            place = i;
        }
    }
    if (place == SOURCES_HELD) {
        return LBRL_OK; /* waits likewise */
    }
    lb->node.sources[place] = (arena_source_t){.address = ip_load(wanted->address.bytes),
                                               .port_first = wanted->port_first,
                                               .port_last = wanted->port_last,
                                               .state = SOURCE_ACTIVE};
    int error = endpoints_add_source(lb, place);
    if (error) {
        lb->node.sources[place] = (arena_source_t){0};
        return error;
    }
    *changed = true;
    return LBRL_OK;
}

int sources_settle(lbrl_t *lb)
{
    bool changed = false;
    int error = LBRL_OK;
    for (uint32_t i = 0; i < SOURCES_HELD; i++) {
        changed |= settle_held(lb, i);
    }
    for (uint32_t i = 0; i < lb->wanted_count && !error; i++) {
        error = settle_wanted(lb, &lb->wanted[i], &changed);
    }
    if (changed) {
        arena_node_write(&lb->arena, &lb->node);
        lb->sources_due = 1;
    }
    if (lb->sources_due) {
        int published = table_publish(lb, false);
        if (published) {
            return error ? error : published;
        }
        lb->sources_due = 0;
        uint64_t epoch = epoch_next(lb);
        for (uint32_t i = 0; i < SOURCES_HELD; i++) {
            if (!lb->source_epochs[i]) {
                lb->source_epochs[i] =
                    epoch; /* from here on no flow gets a port of a retired one */
            }
        }
    }
    return error;
}

int lbrl_sources_set(lbrl_t *lb, const lbrl_nat_source_t *sources, uint32_t count_)
{
    if (count_ > LBRL_SOURCES_MAX) {
        return LBRL_ERR_INVALID;
    }
    for (uint32_t i = 0; i < count_; i++) {
        if (!source_valid(&sources[i])) {
            return LBRL_ERR_INVALID;
        }
        if (covers_vip(lb, &sources[i])) {
            return LBRL_ERR_CONFLICT;
        }
        for (uint32_t j = 0; j < i; j++) {
            arena_source_t other = {ip_load(sources[j].address.bytes),
                                    sources[j].port_first,
                                    sources[j].port_last,
                                    0,
                                    {0}};
            if (overlap(&sources[i], &other)) {
                return LBRL_ERR_CONFLICT;
            }
        }
    }
    if (count_) {
        memcpy(lb->wanted, sources, count_ * sizeof(*sources));
    }
    lb->wanted_count = count_;
    return sources_settle(lb);
}

uint32_t lbrl_sources(const lbrl_t *lb, lbrl_nat_source_t *sources, uint32_t max)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < SOURCES_HELD; i++) {
        const arena_source_t *held = &lb->node.sources[i];
        if (held->state != SOURCE_ACTIVE && held->state != SOURCE_RETIRED) {
            continue;
        }
        if (found < max) {
            sources[found] =
                (lbrl_nat_source_t){.port_first = held->port_first, .port_last = held->port_last};
            memcpy(sources[found].address.bytes, &held->address, sizeof(held->address));
        }
        found++;
    }
    return found;
}

int lbrl_node_set(lbrl_t *lb, const uint8_t scheduler_key[16], uint32_t nodes)
{
    if (nodes < 1) {
        return LBRL_ERR_INVALID;
    }
    bool same_node =
        memcmp(lb->node.scheduler_key, scheduler_key, sizeof(lb->node.scheduler_key)) == 0 &&
        lb->node.nodes == nodes;
    if (!same_node) {
        memcpy(lb->node.scheduler_key, scheduler_key, sizeof(lb->node.scheduler_key));
        lb->node.nodes = nodes;
        arena_node_write(&lb->arena, &lb->node);
    }
    bool shared = lb->table->shared;
    int error = shared == (nodes > 1) ? LBRL_OK : table_publish(lb, false);
    for (uint32_t i = 0; i < lb->arena.vip_count; i++) {
        if (lb->records[i].state != VIP_FREE) {
            int published = vip_publish(lb, i, same_node ? 0 : DUE_SCHEDULE);
            error = error ? error : published;
        }
    }
    return error;
}

uint32_t lbrl_node(const lbrl_t *lb, uint8_t scheduler_key[16])
{
    memcpy(scheduler_key, lb->node.scheduler_key, sizeof(lb->node.scheduler_key));
    return lb->node.nodes;
}
