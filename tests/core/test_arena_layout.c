/*
 * What lies where in an arena, what its numbers mean, and how its checks and hashes come about, held to the version
 * number: an arena outlives the release that wrote it, and a later one would misread what has moved.
 */
#include <string.h>

#include "arena.h"
#include "flowtable.h"

#include "check.h"

/* Of everything below, by version. */
static const uint64_t LAYOUTS[] = {
    [1] = 0xe5a4fd5b1ef518d5u, /* records whose checks do not depend on their places */
    [2] = 0xa479729ff91d233fu,
};

typedef struct fact {
    const char *what;
    uint64_t is;
} fact_t;

#define SIZE(type) {"size of " #type, sizeof(type)}
#define FIELD(type, field)                                                                         \
    {#type "." #field, offsetof(type, field) << 16 | sizeof(((type *)0)->field)}
#define NUMBER(name) {#name, (uint64_t)(name)}

static const fact_t FACTS[] = {
    SIZE(arena_header_t),
    FIELD(arena_header_t, magic),
    FIELD(arena_header_t, version),
    FIELD(arena_header_t, byte_order),
    FIELD(arena_header_t, size),
    FIELD(arena_header_t, flows),
    FIELD(arena_header_t, vips),
    FIELD(arena_header_t, slots),
    FIELD(arena_header_t, entry_size),
    FIELD(arena_header_t, node_offset),
    FIELD(arena_header_t, vip_offset),
    FIELD(arena_header_t, slot_offset),
    FIELD(arena_header_t, flow_offset),
    FIELD(arena_header_t, seed),
    FIELD(arena_header_t, check),
    FIELD(arena_header_t, boot_id),
    SIZE(arena_copy_t),
    FIELD(arena_copy_t, sequence),
    FIELD(arena_copy_t, check),
    SIZE(arena_source_t),
    FIELD(arena_source_t, address),
    FIELD(arena_source_t, port_first),
    FIELD(arena_source_t, port_last),
    FIELD(arena_source_t, state),
    SIZE(arena_node_t),
    FIELD(arena_node_t, scheduler_key),
    FIELD(arena_node_t, nodes),
    FIELD(arena_node_t, sources),
    SIZE(arena_vip_t),
    FIELD(arena_vip_t, addresses),
    FIELD(arena_vip_t, id),
    FIELD(arena_vip_t, timeouts),
    FIELD(arena_vip_t, drain_timeout),
    FIELD(arena_vip_t, table_size),
    FIELD(arena_vip_t, slot_base),
    FIELD(arena_vip_t, slots),
    FIELD(arena_vip_t, port),
    FIELD(arena_vip_t, state),
    FIELD(arena_vip_t, generation),
    FIELD(arena_vip_t, protocol),
    FIELD(arena_vip_t, scheduler),
    FIELD(arena_vip_t, flags),
    FIELD(arena_vip_t, feature_level),
    FIELD(arena_vip_t, retired_addresses),
    FIELD(arena_vip_t, forwarding),
    FIELD(arena_vip_t, mtu),
    FIELD(arena_vip_t, dscp),
    FIELD(arena_vip_t, load),
    FIELD(lbrl_timeouts_t, tcp_handshake),
    FIELD(lbrl_timeouts_t, tcp_established),
    FIELD(lbrl_timeouts_t, tcp_closing),
    FIELD(lbrl_timeouts_t, udp_unreplied),
    FIELD(lbrl_timeouts_t, udp_exchange),
    FIELD(lbrl_timeouts_t, udp_stream),
    FIELD(lbrl_timeouts_t, udp_dns_answered),
    SIZE(arena_slot_t),
    FIELD(arena_slot_t, address),
    FIELD(arena_slot_t, id),
    FIELD(arena_slot_t, port),
    FIELD(arena_slot_t, generation),
    FIELD(arena_slot_t, state),
    FIELD(arena_slot_t, check),
    FIELD(arena_slot_t, weight),
    FIELD(arena_slot_t, removed),
    SIZE(flow_t),
    FIELD(flow_t, client),
    FIELD(flow_t, client_port),
    FIELD(flow_t, nat_port),
    FIELD(flow_t, vip),
    FIELD(flow_t, slot),
    FIELD(flow_t, vip_generation),
    FIELD(flow_t, slot_generation),
    FIELD(flow_t, source),
    FIELD(flow_t, address),
    FIELD(flow_t, check),
    FIELD(flow_t, state),
    FIELD(flow_t, flags),
    FIELD(flow_t, scales),
    FIELD(flow_t, start_high),
    FIELD(flow_t, last_ms),
    FIELD(flow_t, start_us),
    FIELD(flow_t, client_end),
    FIELD(flow_t, server_end),
    FIELD(flow_t, client_ack),
    FIELD(flow_t, server_ack),
    FIELD(flow_t, client_window),
    FIELD(flow_t, server_window),
    FIELD(flow_t, last_timestamp),
    NUMBER(LBRL_PARTITIONS),
    NUMBER(LBRL_ADDRESSES_MAX),
    NUMBER(SOURCES_HELD),
    NUMBER(SOURCE_WANTED),
    NUMBER(SOURCE_ACTIVE),
    NUMBER(SOURCE_RETIRED),
    NUMBER(VIP_LIVE),
    NUMBER(VIP_REMOVING),
    NUMBER(SLOT_ACTIVE),
    NUMBER(SLOT_DRAINING),
    NUMBER(SLOT_FAILED),
    NUMBER(LBRL_SCHEDULER_MAGLEV),
    NUMBER(LBRL_SCHEDULER_SED),
    NUMBER(LBRL_SCHEDULER_LSQ),
    NUMBER(LBRL_SCHEDULER_ALIAS),
    NUMBER(LBRL_SCHEDULER_P2C),
    NUMBER(LBRL_LOAD_OPEN),
    NUMBER(LBRL_LOAD_ACTIVE),
    NUMBER(LBRL_FORWARD_NAT),
    NUMBER(LBRL_FORWARD_GRE),
    NUMBER(LBRL_FORWARD_L3DSR),
    NUMBER(LBRL_FLOW_SYN),
    NUMBER(LBRL_FLOW_SYN_ACK),
    NUMBER(LBRL_FLOW_ESTABLISHED),
    NUMBER(LBRL_FLOW_CLOSING),
    NUMBER(LBRL_FLOW_UDP_NEW),
    NUMBER(LBRL_FLOW_UDP_EXCHANGE),
    NUMBER(LBRL_FLOW_UDP_STREAM),
    NUMBER(LBRL_FLOW_UDP_ANSWERED),
    NUMBER(FLOW_CLIENT_FIN),
    NUMBER(FLOW_SERVER_FIN),
    NUMBER(FLOW_OPEN),
    NUMBER(FLOW_QUARANTINE),
    NUMBER(FLOW_TIMESTAMPS),
    NUMBER(FLOW_COMPLETED),
    NUMBER(FLOW_PORT_RETURNED),
    NUMBER(FLOW_RESET),
    NUMBER(FLOW_JOINED),
};

static uint64_t mixed(uint64_t hash, uint64_t number)
{
    for (unsigned i = 0; i < 8; i++) {
        hash = (hash ^ (number >> 8 * i & 0xff)) * 0x100000001b3u; /* FNV-1a */
    }
    return hash;
}

/* An arena in memory, with one of everything in it whose check is stored beside it. */
static uint64_t of_contents(void)
{
    arena_header_t plan;
    CHECK(arena_plan(&plan, 128, 3, 16));
    static uint8_t memory[1 << 16] __attribute__((aligned(64)));
    CHECK(plan.size <= sizeof(memory));
    uint8_t seed[16], boot_id[16] = {7};
    for (unsigned i = 0; i < 16; i++) {
        seed[i] = (uint8_t)(i * 17 + 1);
    }
    arena_t arena;
    arena_format(&arena, memory, &plan, seed, boot_id);
    const arena_node_t node = {.nodes = 3};
    const arena_vip_t vip = {.id = 5, .slots = 8, .state = VIP_LIVE};
    const arena_slot_t slot = {.id = 9, .port = 80, .generation = 1, .state = SLOT_ACTIVE};
    arena_node_write(&arena, &node);
    arena_node_write(&arena, &node); /* the second copy too */
    arena_vip_write(&arena, 1, &vip);
    arena_slot_write(&arena, 2, &slot, vip.id);
    flow_t *flow = &arena.flows[3];
    *flow = (flow_t){.client_port = 1, .nat_port = 2, .vip = 1, .slot = 2, .vip_generation = 4};
    flow->check = arena_flow_check(&arena.key, flow);
    /* the flow table's hash says which partition a flow is in, and so where it lies */
    const ip_t client = {{1, 2}}, address = {{3, 4}};
    uint64_t hash = tuple_hash(&arena.key, &client, &address, 5, 6, 17);
    for (size_t i = 0; i < plan.size; i++) {
        hash = (hash ^ memory[i]) * 0x100000001b3u;
    }
    return hash;
}

int main(void)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < sizeof(FACTS) / sizeof(FACTS[0]); i++) {
        hash = mixed(hash, FACTS[i].is);
    }
    hash = mixed(hash, of_contents());
    CHECK(ARENA_VERSION < sizeof(LAYOUTS) / sizeof(LAYOUTS[0]));
    if (hash != LAYOUTS[ARENA_VERSION]) {
        for (size_t i = 0; i < sizeof(FACTS) / sizeof(FACTS[0]); i++) {
            fprintf(stderr, "%-32s 0x%" PRIx64 "\n", FACTS[i].what, FACTS[i].is);
        }
        fprintf(stderr,
                "the layout of arenas is 0x%" PRIx64
                ", not that of version %u: raise ARENA_VERSION, "
                "add this number, and have lbrl_import() read the version before\n",
                hash, ARENA_VERSION);
        return 1;
    }
    return 0;
}
