/*
 * libFuzzer target of re-attachment: an arena with VIPs and flows, damaged, is opened or imported. An input is
 *   1 byte  bit 0: checks are made right again after the damage, so that it is believed; bit 1: import instead of open;
 *           bits 2-3: workers less one; bit 4: frames are bound, so that level `full` is in effect
 * and then pieces of damage: 2 bytes offset, 1 byte length (both little-endian), so many bytes.
 * Whatever is found, packets and ageing go on, and every flow that was kept leads to a backend of its VIP.
 */
#include "arena.h"
#include "objects.h"
#include "rig.h"

enum { CHECKS_MENDED = 1, IMPORT = 2, FRAMES = 16, TABLE_SIZE_MAX = 1021 };

enum { VIPS = 4, SLOTS_BOUND = 16 /* frames of more slots than ever were would take long */ };

/* Even places IPv4, odd ones IPv6. */
static const struct {
    const char *address;
    uint16_t port;
    uint8_t protocol, forwarding;
} KINDS[VIPS] = {
    {"203.0.113.10", 80, 6, LBRL_FORWARD_NAT},
    {"1:10", 80, 6, LBRL_FORWARD_NAT},
    {"203.0.113.11", 80, 6, LBRL_FORWARD_GRE},
    {"1:10", 53, 17, LBRL_FORWARD_NAT},
};
static const char *const CLIENTS[2] = {"198.51.100.7", "5:7"};

static rig_t golden; /* its arena is what every input begins with */
static connection_t open_connections[2];

static void set_vip(uint32_t i)
{
    lbrl_backend_config_t backends[2];
    lbrl_vip_config_t vip =
        rig_vip(i + 1, KINDS[i].address, KINDS[i].port, KINDS[i].protocol, backends, 2);
    vip.forwarding = KINDS[i].forwarding;
    vip.dscp = KINDS[i].forwarding == LBRL_FORWARD_L3DSR ? 9 : 0;
    vip.feature_level = LBRL_LEVEL_FULL;
    vip.load = LBRL_LOAD_ACTIVE;
    CHECK_EQUAL(lbrl_vip_set(golden.lb, &vip, golden.now_us), 0);
}

static void open_flow(uint32_t vip, uint16_t port)
{
    static test_packet_t packet;
    const char *client = CLIENTS[vip % 2];
    if (KINDS[vip].protocol == 17) {
        make_udp(&packet, client, port, KINDS[vip].address, 53, 10);
        (void)rig_send(&golden, &packet);
    } else if (KINDS[vip].forwarding == LBRL_FORWARD_NAT) {
        open_connections[vip] = connection_make(&golden, client, port, KINDS[vip].address);
        connection_open(&open_connections[vip]);
    } else {
        tcp_fields_t syn = {.sequence = 1, .flags = SYN};
        make_tcp(&packet, client, port, KINDS[vip].address, 80, &syn, 0);
        (void)rig_send(&golden, &packet);
    }
}

static void prepare(void)
{
    golden = rig_tiny();
    lbrl_nat_source_t sources[2] = {{address_of("192.0.2.1"), 16384, 16511},
                                    {address_of("9:1"), 16384, 16511}};
    CHECK_EQUAL(lbrl_sources_set(golden.lb, sources, 2), 0);
    for (uint32_t i = 0; i < VIPS; i++) {
        set_vip(i);
    }
    for (uint16_t i = 0; i < 4; i++) {
        for (uint32_t v = 0; v < VIPS; v++) {
            open_flow(v, (uint16_t)(40000 + i + 10 * v));
        }
    }
    lbrl_close(golden.lb);
    golden.lb = NULL;
}

/* Applies the pieces of damage; nothing beyond the arena. */
static void damage(uint8_t *memory, const uint8_t *data, size_t size)
{
    while (size >= 3) {
        size_t offset = (size_t)data[0] | (size_t)data[1] << 8;
        size_t length = data[2];
        data += 3;
        size -= 3;
        length = length < size ? length : size;
        if (offset < golden.arena_size) {
            size_t room = golden.arena_size - offset;
            memcpy(memory + offset, data, length < room ? length : room);
        }
        data += length;
        size -= length;
    }
}

/* The body that stands where the golden arena has one. */
static const void *same_place(const uint8_t *memory, const void *in_golden)
{
    return memory + ((const uint8_t *)in_golden - (const uint8_t *)golden.arena);
}

/* Signs everything anew, as who knows the seed could. Table sizes stay small: large ones take long, and no more. */
static void mend_checks(uint8_t *memory)
{
    arena_header_t *header = (arena_header_t *)(void *)memory;
    lbrl_key_t key = lbrl_key_load(header->seed);
    header->check = lbrl_hash_bytes(&key, header, offsetof(arena_header_t, check));
    arena_t before, arena;
    if (arena_inspect(&before, golden.arena, golden.arena_size) != ARENA_SOUND ||
        arena_inspect(&arena, memory, golden.arena_size) != ARENA_SOUND) {
        return;
    }
    arena_node_t node;
    memcpy(&node, same_place(memory, arena_node(&before)), sizeof(node));
    arena_node_write(&arena, &node);
    for (uint32_t i = 0; i < VIPS && i < arena.vip_count; i++) {
        arena_vip_t vip;
        memcpy(&vip, same_place(memory, arena_vip(&before, i)), sizeof(vip));
        vip.table_size = vip.table_size > TABLE_SIZE_MAX ? TABLE_SIZE_MAX : vip.table_size;
        arena_vip_write(&arena, i, &vip);
        for (uint64_t s = 0; s < vip.slots && vip.slot_base + s < arena.slot_count; s++) {
            arena_slot_t *slot = &arena.slots[vip.slot_base + s];
            slot->check = arena_slot_check(&arena, (uint32_t)(vip.slot_base + s), slot, vip.id);
        }
    }
    for (uint32_t i = 0; i < arena.flow_count; i++) {
        arena.flows[i].check = arena_flow_check(&arena.key, &arena.flows[i]);
    }
}

/* Both ends of the open connections speak, strangers come, time passes. */
static void live(rig_t *rig)
{
    test_packet_t packet;
    for (uint32_t v = 0; v < 2; v++) {
        const connection_t *c = &open_connections[v];
        tcp_fields_t data = {.sequence = c->client_next, .ack = c->server_next, .flags = ACK | PSH};
        make_tcp(&packet, c->client, c->client_port, c->vip, 80, &data, 10);
        (void)rig_send(rig, &packet);
        make_tcp(&packet, text_of(&c->backend), c->backend_port, text_of(&c->source), c->nat_port,
                 &data, 10);
        (void)rig_send(rig, &packet);
    }
    for (uint16_t i = 0; i < (uint16_t)(2 * VIPS); i++) {
        const uint32_t v = i % VIPS;
        tcp_fields_t syn = {.sequence = 7, .flags = SYN};
        if (KINDS[v].protocol == 17) {
            make_udp(&packet, CLIENTS[v % 2], 50000 + i, KINDS[v].address, 53, 10);
        } else {
            make_tcp(&packet, CLIENTS[v % 2], 50000 + i, KINDS[v].address, 80, &syn, 0);
        }
        (void)rig_send(rig, &packet);
    }
    rig_pass(rig, 1500);
    lbrl_publish(rig->lb, rig->now_us);
}

/* Every flow belongs to a VIP there is and to one of its slots. */
static void check_flows(const rig_t *rig)
{
    lbrl_flow_info_t flow;
    uint64_t cursor = 0;
    while (lbrl_flow_next(rig->lb, &cursor, rig->now_us, &flow)) {
        lbrl_vip_status_t status;
        CHECK_EQUAL(lbrl_vip_status(rig->lb, flow.vip_id, &status, NULL, 0), 0);
        CHECK(flow.slot < status.slots);
        CHECK(flow.state > LBRL_FLOW_FREE && flow.state < LBRL_FLOW_STATES);
    }
}

static void use(rig_t *rig, bool with_frames)
{
    rig_frames_t frames[VIPS] = {0};
    for (uint32_t i = 0; i < VIPS; i++) {
        lbrl_vip_status_t status;
        if (with_frames && lbrl_vip_status(rig->lb, i + 1, &status, NULL, 0) == 0 &&
            status.slots <= SLOTS_BOUND) {
            rig_bind_frames(rig, &frames[i], i + 1);
        }
    }
    check_flows(rig);
    live(rig);
    check_flows(rig);
    for (uint32_t i = 0; i < VIPS; i++) {
        rig_recount(rig, i + 1);
    }
    lbrl_stats_t stats;
    lbrl_stats(rig->lb, &stats);
    CHECK(stats.flows <= stats.flow_capacity);
    lbrl_close(rig->lb);
    for (uint32_t i = 0; i < VIPS; i++) {
        free(frames[i].memory);
    }
}

static void import(const uint8_t *memory, rig_t *rig, bool with_frames)
{
    rig->config.flows = 128;
    rig->arena_size = lbrl_arena_size(&rig->config);
    rig->arena = zeroed(rig->arena_size);
    CHECK_EQUAL(lbrl_open(&rig->lb, &rig->config, rig->arena, rig->arena_size, &rig->report), 0);
    int error = lbrl_import(rig->lb, memory, golden.arena_size, rig->now_us, &rig->report);
    if (error) {
        lbrl_close(rig->lb);
    } else {
        use(rig, with_frames);
    }
    free(rig->arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!golden.arena) {
        prepare();
    }
    if (size == 0) {
        return 0;
    }
    uint8_t *memory = zeroed(golden.arena_size);
    memcpy(memory, golden.arena, golden.arena_size);
    damage(memory, data + 1, size - 1);
    if (data[0] & CHECKS_MENDED) {
        mend_checks(memory);
    }
    rig_t rig = golden;
    rig.arena = memory;
    rig.config.now_us = rig.now_us;
    rig.config.workers = 1 + (data[0] >> 2 & 3);
    if (data[0] & IMPORT) {
        import(memory, &rig, data[0] & FRAMES);
    } else {
        int error = lbrl_open(&rig.lb, &rig.config, rig.arena, golden.arena_size, &rig.report);
        if (error) {
            CHECK_EQUAL(error, LBRL_ERR_GEOMETRY); /* anything else is attached or made anew */
        } else {
            use(&rig, data[0] & FRAMES);
        }
    }
    free(memory);
    return 0;
}
