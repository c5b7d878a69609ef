#include "lbrl/connection.h"

#include "allocate.h"
#include "oneway.h"
#include "track.h"
#include "vipmap.h"

enum {
    SYN_OPTIONS = 8, /* MSS, window scale and a no-operation */
    WINDOW_SCALE = 7,
    WINDOW = 502, /* 64 KiB, scaled; what Linux begins with */
    WINDOW_OF_SYN = 64240,
};

static_assert(LBRL_SEGMENT_MAX == UINT16_MAX - IPV4_HEADER - TCP_HEADER, "an IPv4 packet");

/* A segment as the packet path sees it. Of the bytes only those behind the IP header are read. */
typedef struct synthetic {
    lbrl_packet_t packet;
    meta_t meta;
    uint8_t bytes[IPV4_HEADER + TCP_HEADER + SYN_OPTIONS];
} synthetic_t;

static void put_syn_options(uint8_t *options)
{
    options[0] = 2; /* maximum segment size */
    options[1] = 4;
    put16(options + 2, LBRL_SEGMENT_MSS + 12);
    options[4] = 3; /* window scale */
    options[5] = 3;
    options[6] = WINDOW_SCALE;
    options[7] = 1; /* no-operation */
}

static void make_segment(synthetic_t *s, const lbrl_connection_t *connection,
                         const lbrl_segment_t *segment)
{
    const bool syn = (segment->flags & TCP_SYN) != 0;
    const uint32_t header = TCP_HEADER + (syn ? SYN_OPTIONS : 0);
    uint8_t *tcp = s->bytes + IPV4_HEADER;
    const bool super = segment->payload > LBRL_SEGMENT_MSS;
    s->packet = (lbrl_packet_t){
        .data = s->bytes,
        .length = IPV4_HEADER + header + segment->payload,
        .gso_type = super ? LBRL_GSO_TCPV4 : LBRL_GSO_NONE,
        .gso_size = super ? LBRL_SEGMENT_MSS : 0,
    };
    s->meta.payload = segment->payload;
    s->meta.tcp_flags = segment->flags;
    put32(tcp + 4, segment->from_client ? connection->client_next : connection->server_next);
    put32(tcp + 8, segment->from_client ? connection->server_next : connection->client_next);
    tcp[12] = (uint8_t)(header / 4 << 4);
    tcp[13] = segment->flags;
    put16(tcp + 14, syn ? WINDOW_OF_SYN : WINDOW);
    if (syn) {
        put_syn_options(tcp + TCP_HEADER);
    }
}

static void advance(lbrl_connection_t *connection, const lbrl_segment_t *segment)
{
    uint32_t *next = segment->from_client ? &connection->client_next : &connection->server_next;
    *next += segment->payload + ((segment->flags & (TCP_SYN | TCP_FIN)) != 0);
}

/* No epoch: what was published stays while this call runs, for the same thread publishes. */
static void begin(lbrl_worker_t *worker, uint64_t now_us)
{
    worker->table = worker->lb->table;
    worker->now_us = now_us;
    worker->now_ms = (uint32_t)(now_us / 1000);
    worker->vector++;
}

static ip_t ip_of(const lbrl_address_t *address)
{
    ip_t ip;
    memcpy(&ip, address->bytes, sizeof(ip));
    return ip;
}

lbrl_drop_t lbrl_connection_open(lbrl_worker_t *worker, const lbrl_connection_tuple_t *tuple,
                                 uint64_t now_us, lbrl_connection_t *connection)
{
    static const lbrl_segment_t syn = {.from_client = 1, .flags = TCP_SYN};
    synthetic_t s = {.meta = {.src = ip_of(&tuple->client),
                              .dst = ip_of(&tuple->vip),
                              .sport = swap16(tuple->client_port),
                              .dport = swap16(tuple->vip_port),
                              .transport = IPV4_HEADER,
                              .kind = META_FLOW,
                              .protocol = PROTO_TCP}};
    begin(worker, now_us);
    s.meta.hash = tuple_hash(&worker->lb->key, &s.meta.src, &s.meta.dst, s.meta.sport, s.meta.dport,
                             PROTO_TCP);
    s.meta.partition = s.meta.hash & (LBRL_PARTITIONS - 1);
    const table_t *table = worker->table;
    const vip_place_t *place = vip_map_find(table->map, &s.meta.dst, s.meta.dport, PROTO_TCP);
    if (!place || table->vips[place->vip]->refuses) {
        return LBRL_DROP_PORT_UNCONFIGURED;
    }
    *connection = (lbrl_connection_t){.client_next = (uint32_t)s.meta.hash,
                                      .server_next = (uint32_t)(s.meta.hash >> 32)};
    make_segment(&s, connection, &syn);
    flow_birth_t birth = {.meta = &s.meta,
                          .vip = table->vips[place->vip],
                          .address = place->index,
                          .slot = LBRL_NO_SLOT,
                          .sequence = connection->client_next,
                          .options = lbrl_tcp_options(s.bytes + IPV4_HEADER)};
    flow_ref_t ref;
    uint8_t reason = flow_make(worker, &worker->lb->partitions[s.meta.partition], &birth, &ref);
    if (reason) {
        return (lbrl_drop_t)reason;
    }
    track_packet(worker, ref.flow, sink_of(ref.counts), &s.packet, &s.meta, true);
    advance(connection, &syn);
    connection->check = ref.flow->check;
    connection->entry = ref.entry;
    connection->slot = ref.keep->slot;
    connection->partition = s.meta.partition;
    return LBRL_DROP_NONE;
}

/* Whether the entry still is the connection's. */
static bool is_entry_of(const partition_t *partition, const lbrl_connection_t *connection)
{
    return (partition->keeps[connection->entry].bits & KEEP_USED) &&
           partition->flows[connection->entry].check == connection->check;
}

/* False where the segment goes no further. */
static bool take_segment(lbrl_worker_t *worker, const flow_ref_t *ref, const synthetic_t *s,
                         bool from_client)
{
    if (from_client && __atomic_load_n(&ref->slot->state, __ATOMIC_RELAXED) == SLOT_FAILED) {
        flow_remove(worker, ref);
        return false;
    }
    if (vip_is_one_way(ref->vip)) {
        if (from_client) {
            track_packet(worker, ref->flow, sink_of(ref->counts), &s->packet, &s->meta, true);
            one_way_track(worker, ref, &s->packet, &s->meta);
        }
        return true;
    }
    track_packet(worker, ref->flow, sink_of(ref->counts), &s->packet, &s->meta, from_client);
    track_tcp(worker, ref, &s->packet, &s->meta, from_client);
    return true;
}

uint32_t lbrl_connection_exchange(lbrl_worker_t *worker, lbrl_connection_t *connection,
                                  const lbrl_segment_t *segments, uint32_t count, uint64_t now_us)
{
    synthetic_t s;
    s.meta = (meta_t){.transport = IPV4_HEADER,
                      .kind = META_FLOW,
                      .protocol = PROTO_TCP,
                      .partition = connection->partition};
    begin(worker, now_us);
    partition_t *partition = &worker->lb->partitions[connection->partition];
    for (uint32_t i = 0; i < count; i++) {
        if (!is_entry_of(partition, connection)) {
            return i;
        }
        const flow_ref_t ref = flow_ref(worker, partition, connection->entry);
        make_segment(&s, connection, &segments[i]);
        if (!take_segment(worker, &ref, &s, segments[i].from_client)) {
            return i;
        }
        advance(connection, &segments[i]);
    }
    return count;
}
