#include "arena.h"

enum { CACHE_LINE = 64 };

static_assert(LBRL_FLOWS_MIN == LBRL_PARTITIONS, "an entry per partition");
static_assert(LBRL_FLOWS_MAX == LBRL_PARTITIONS << 16, "16 bits number an entry");

typedef struct node_pair {
    struct {
        arena_copy_t head;
        arena_node_t body;
    } copy[2];
} node_pair_t;

typedef struct vip_pair {
    struct {
        arena_copy_t head;
        arena_vip_t body;
    } copy[2];
} vip_pair_t;

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

bool arena_plan(arena_header_t *header, uint32_t flows, uint32_t vips, uint32_t slots)
{
    if (flows < LBRL_FLOWS_MIN || flows > LBRL_FLOWS_MAX || vips < 1 || vips > LBRL_VIPS_MAX ||
        slots < LBRL_SLOTS_MIN || slots > LBRL_SLOTS_MAX) {
        return false;
    }
    memset(header, 0, sizeof(*header));
    header->magic = ARENA_MAGIC;
    header->version = ARENA_VERSION;
    header->byte_order = 0x01020304u;
    header->flows = (uint32_t)round_up(flows, LBRL_PARTITIONS);
    header->vips = vips;
    header->slots = slots;
    header->entry_size = sizeof(flow_t);
    header->node_offset = round_up(sizeof(*header), CACHE_LINE);
    header->vip_offset = round_up(header->node_offset + sizeof(node_pair_t), CACHE_LINE);
    header->slot_offset = round_up(header->vip_offset + vips * sizeof(vip_pair_t), CACHE_LINE);
    header->flow_offset = round_up(header->slot_offset + slots * sizeof(arena_slot_t), CACHE_LINE);
    header->size = header->flow_offset + (uint64_t)header->flows * sizeof(flow_t);
    return true;
}

static uint64_t header_check(const arena_header_t *header)
{
    lbrl_key_t key = lbrl_key_load(header->seed);
    return lbrl_hash_bytes(&key, header, offsetof(arena_header_t, check));
}

static void arena_point(arena_t *arena, uint8_t *memory)
{
    arena->base = memory;
    arena->header = (arena_header_t *)(void *)memory;
    arena->slots = (arena_slot_t *)(void *)(memory + arena->header->slot_offset);
    arena->flows = (flow_t *)(void *)(memory + arena->header->flow_offset);
    arena->key = lbrl_key_load(arena->header->seed);
    arena->flow_count = arena->header->flows;
    arena->vip_count = arena->header->vips;
    arena->slot_count = arena->header->slots;
    arena->version = arena->header->version;
}

void arena_format(arena_t *arena, void *memory, const arena_header_t *plan, const uint8_t seed[16],
                  const uint8_t boot_id[16])
{
    arena_header_t *header = (arena_header_t *)memory;
    /* killed half way, the next process must find an arena without magic, not half of the old one */
    __atomic_store_n(&header->magic, 0, __ATOMIC_SEQ_CST);
    memset((uint8_t *)memory + sizeof(header->magic), 0, plan->size - sizeof(header->magic));
    arena_header_t made = *plan;
    memcpy(made.seed, seed, sizeof(made.seed));
    made.check = header_check(&made);
    memcpy(made.boot_id, boot_id, sizeof(made.boot_id));
    memcpy((uint8_t *)memory + sizeof(header->magic), (uint8_t *)&made + sizeof(header->magic),
           sizeof(made) - sizeof(header->magic));
    __atomic_store_n(&header->magic, made.magic, __ATOMIC_SEQ_CST);
    arena_point(arena, (uint8_t *)memory);
}

void arena_rekey(arena_t *arena, const uint8_t seed[16])
{
    memcpy(arena->header->seed, seed, sizeof(arena->header->seed));
    arena->header->check = header_check(arena->header);
    arena->key = lbrl_key_load(seed);
}

static bool all_zero(const uint8_t *at, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (at[i]) {
            return false;
        }
    }
    return true;
}

uint32_t arena_version(const void *memory, size_t size)
{
    arena_header_t header = {0};
    memcpy(&header, memory, size < sizeof(header) ? size : sizeof(header));
    return header.magic == ARENA_MAGIC && header.byte_order == 0x01020304u ? header.version : 0;
}

arena_kind_t arena_inspect(arena_t *arena, const void *memory, size_t size)
{
    arena_header_t header;
    if (size < sizeof(header)) {
        return ARENA_FOREIGN;
    }
    memcpy(&header, memory, sizeof(header));
    if (all_zero((const uint8_t *)&header, sizeof(header))) {
        return ARENA_EMPTY;
    }
    const uint32_t version = arena_version(memory, size);
    if (version != ARENA_VERSION && version != ARENA_VERSION_UNPLACED) {
        return version ? ARENA_OTHER : ARENA_FOREIGN;
    }
    arena_header_t plan;
    if (header.check != header_check(&header) ||
        !arena_plan(&plan, header.flows, header.vips, header.slots) || header.size > size) {
        return ARENA_FOREIGN;
    }
    memcpy(plan.seed, header.seed, sizeof(plan.seed));
    plan.version = version;
    if (memcmp(&plan, &header, offsetof(arena_header_t, check)) != 0) {
        return ARENA_FOREIGN;
    }
    arena_point(arena, (uint8_t *)(uintptr_t)memory);
    return ARENA_SOUND;
}

/* ------------------------------------------------------------------------------- records in two copies */

/* What binds a check to a place: a valid record that is copied elsewhere is not valid there. */
static uint64_t placed(const arena_t *arena, uint64_t place)
{
    return arena->version == ARENA_VERSION_UNPLACED ? 0 : place + 1;
}

static uint32_t copy_check(const arena_t *arena, const arena_copy_t *copy, uint32_t sequence,
                           size_t size)
{
    uint64_t place = placed(arena, (uint64_t)((const uint8_t *)copy - arena->base));
    lbrl_key_t key = {arena->key.k0 ^ sequence, arena->key.k1 ^ place};
    return (uint32_t)lbrl_hash_bytes(&key, copy + 1, size);
}

static bool copy_valid(const arena_t *arena, const arena_copy_t *copy, size_t size)
{
    return copy->sequence != 0 && copy->check == copy_check(arena, copy, copy->sequence, size);
}

/* Index of the newest valid copy of a pair, or -1. */
static int pair_newest(const arena_t *arena, const uint8_t *pair, size_t size)
{
    const arena_copy_t *first = (const arena_copy_t *)(const void *)pair;
    const arena_copy_t *second =
        (const arena_copy_t *)(const void *)(pair + sizeof(arena_copy_t) + size);
    bool first_valid = copy_valid(arena, first, size);
    bool second_valid = copy_valid(arena, second, size);
    if (first_valid && second_valid) {
        return (int32_t)(second->sequence - first->sequence) > 0;
    }
    return first_valid ? 0 : second_valid ? 1 : -1;
}

static const void *pair_read(const arena_t *arena, const uint8_t *pair, size_t size)
{
    int newest = pair_newest(arena, pair, size);
    return newest < 0
               ? NULL
               : pair + (size_t)newest * (sizeof(arena_copy_t) + size) + sizeof(arena_copy_t);
}

static void pair_write(arena_t *arena, uint8_t *pair, const void *body, size_t size)
{
    int newest = pair_newest(arena, pair, size);
    size_t stride = sizeof(arena_copy_t) + size;
    const arena_copy_t *current =
        (const arena_copy_t *)(const void *)(pair + (newest > 0 ? stride : 0));
    arena_copy_t *other = (arena_copy_t *)(void *)(pair + (newest == 0 ? stride : 0));
    uint32_t sequence = newest < 0 ? 1 : current->sequence + 1;
    sequence += sequence == 0;
    __atomic_store_n(&other->sequence, 0, __ATOMIC_SEQ_CST);
    memcpy(other + 1, body, size);
    other->check = copy_check(arena, other, sequence, size);
    __atomic_store_n(&other->sequence, sequence, __ATOMIC_SEQ_CST);
}

const arena_node_t *arena_node(const arena_t *arena)
{
    return pair_read(arena, arena->base + arena->header->node_offset, sizeof(arena_node_t));
}

static uint8_t *vip_pair(const arena_t *arena, uint32_t index)
{
    return arena->base + arena->header->vip_offset + index * sizeof(vip_pair_t);
}

const arena_vip_t *arena_vip(const arena_t *arena, uint32_t index)
{
    return pair_read(arena, vip_pair(arena, index), sizeof(arena_vip_t));
}

void arena_node_write(arena_t *arena, const arena_node_t *node)
{
    pair_write(arena, arena->base + arena->header->node_offset, node, sizeof(*node));
}

void arena_vip_write(arena_t *arena, uint32_t index, const arena_vip_t *vip)
{
    pair_write(arena, vip_pair(arena, index), vip, sizeof(*vip));
}

/* ------------------------------------------------------------------------------- slots and flows */

uint32_t arena_slot_check(const arena_t *arena, uint32_t index, const arena_slot_t *slot,
                          uint64_t vip_id)
{
    lbrl_key_t key = {arena->key.k0 ^ vip_id, arena->key.k1 ^ placed(arena, index)};
    return (uint32_t)lbrl_hash_bytes(&key, slot, offsetof(arena_slot_t, state));
}

void arena_slot_write(arena_t *arena, uint32_t index, const arena_slot_t *slot, uint64_t vip_id)
{
    arena_slot_t *record = &arena->slots[index];
    __atomic_store_n(&record->state, SLOT_FREE, __ATOMIC_SEQ_CST);
    arena_slot_t made = *slot;
    made.state = SLOT_FREE;
    made.check = arena_slot_check(arena, index, slot, vip_id);
    *record = made;
    __atomic_store_n(&record->state, slot->state, __ATOMIC_SEQ_CST);
}

uint32_t arena_flow_check(const lbrl_key_t *key, const flow_t *flow)
{
    return arena_identity_check(
        key, &flow->client, arena_word(flow->client_port, flow->nat_port, flow->vip, flow->slot),
        (uint32_t)flow->vip_generation | (uint32_t)flow->slot_generation << 8 |
            (uint32_t)flow->source << 16 | (uint32_t)flow->address << 24);
}
