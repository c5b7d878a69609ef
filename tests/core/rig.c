#include "rig.h"

#include "objects.h"

enum { NAT_FIRST = 16384, NAT_LAST = 28671 };

rig_t rig_configured(lbrl_config_t config)
{
    memset(config.boot_id, 0xb0, sizeof(config.boot_id));
    rig_t rig = {.config = config, .now_us = config.now_us};
    rig.arena_size = lbrl_arena_size(&config);
    CHECK(rig.arena_size > 0);
    rig.arena = aligned_alloc(64, (rig.arena_size + 63) / 64 * 64);
    CHECK(rig.arena != NULL);
    memset(rig.arena, 0, rig.arena_size);
    CHECK_EQUAL(lbrl_open(&rig.lb, &config, rig.arena, rig.arena_size, &rig.report), 0);
    CHECK_EQUAL(rig.report.status, LBRL_ARENA_FORMATTED);
    return rig;
}

rig_t rig_sized(uint32_t flows, uint32_t workers)
{
    return rig_seeded(flows, workers, 11);
}

rig_t rig_seeded(uint32_t flows, uint32_t workers, uint8_t seed)
{
    lbrl_config_t config = {
        .flows = flows, .vips = 16, .slots = 512, .workers = workers, .now_us = 1000000000};
    for (unsigned i = 0; i < sizeof(config.seed); i++) {
        config.seed[i] = (uint8_t)(i * 37 + seed);
    }
    return rig_configured(config);
}

rig_t rig_tiny(void)
{
    lbrl_config_t config = {
        .flows = 64, .vips = 8, .slots = 64, .workers = 1, .now_us = 1000000000};
    return rig_configured(config);
}

void rig_set_sources(rig_t *rig)
{
    lbrl_nat_source_t sources[2] = {{address_of("192.0.2.1"), NAT_FIRST, NAT_LAST},
                                    {address_of("9:1"), NAT_FIRST, NAT_LAST}};
    CHECK_EQUAL(lbrl_sources_set(rig->lb, sources, 2), 0);
}

lbrl_timeouts_t rig_timeouts(void)
{
    lbrl_timeouts_t timeouts = lbrl_timeouts_default();
    timeouts.tcp_established = 900000;
    return timeouts;
}

lbrl_vip_config_t rig_vip(uint64_t id, const char *address, uint16_t port, uint8_t protocol,
                          lbrl_backend_config_t *backends, uint32_t count)
{
    lbrl_vip_config_t config = {.id = id,
                                .addresses = {address_of(address)},
                                .address_count = 1,
                                .port = port,
                                .protocol = protocol,
                                .scheduler = LBRL_SCHEDULER_LSQ,
                                .table_size = 251,
                                .timeouts = rig_timeouts(),
                                .drain_timeout = 300000,
                                .backends = backends,
                                .backend_count = count};
    bool v4 = config.addresses[0].bytes[0] == 0;
    for (uint32_t i = 0; i < count; i++) {
        char text[24];
        snprintf(text, sizeof(text), v4 ? "10.0.0.%u" : "2:%x", i + 1);
        backends[i] = (lbrl_backend_config_t){.id = id * 1000 + 1 + i,
                                              .address = address_of(text),
                                              .port = 8080,
                                              .state = LBRL_BACKEND_ACTIVE,
                                              .weight = 1};
    }
    return config;
}

void rig_set_standard_vips(rig_t *rig, uint32_t count)
{
    lbrl_backend_config_t backends[64];
    CHECK(count <= 64);
    lbrl_vip_config_t config = rig_vip(1, "203.0.113.10", 80, 6, backends, count);
    CHECK_EQUAL(lbrl_vip_set(rig->lb, &config, rig->now_us), 0);
    config = rig_vip(2, "1:10", 80, 6, backends, count);
    CHECK_EQUAL(lbrl_vip_set(rig->lb, &config, rig->now_us), 0);
    config = rig_vip(3, "203.0.113.10", 53, 17, backends, count);
    CHECK_EQUAL(lbrl_vip_set(rig->lb, &config, rig->now_us), 0);
}

rig_t rig_make(uint32_t workers, uint32_t backends)
{
    rig_t rig = rig_sized(4096, workers);
    rig_set_sources(&rig);
    rig_set_standard_vips(&rig, backends);
    return rig;
}

void rig_free(rig_t *rig)
{
    lbrl_close(rig->lb);
    free(rig->arena);
}

void rig_restart(rig_t *rig)
{
    lbrl_close(rig->lb);
    rig->config.now_us = rig->now_us;
    rig->config.seed[0] ^= 0x55; /* another process has other randomness */
    CHECK_EQUAL(lbrl_open(&rig->lb, &rig->config, rig->arena, rig->arena_size, &rig->report), 0);
}

void rig_hold(rig_t *rig)
{
    rig->config.holds = 1;
    rig_restart(rig);
}

/* One packet through a worker, or the one that it is handed to. */
static void process(const rig_t *rig, lbrl_worker_t *worker, test_packet_t *packet)
{
    packet->p.buffer = packet;
    lbrl_process(worker, &packet->p, 1, rig->now_us);
    if (packet->p.verdict == LBRL_VERDICT_HANDOVER) {
        lbrl_worker_t *owner = lbrl_worker(rig->lb, packet->p.worker);
        CHECK_EQUAL(lbrl_handover(worker, &packet->p), 0);
        CHECK_EQUAL(lbrl_handover_take(owner, &packet->p, 1), 1);
        lbrl_process(owner, &packet->p, 1, rig->now_us);
    }
    CHECK(packet->p.verdict != LBRL_VERDICT_HANDOVER);
    CHECK(packet->p.data >= packet->room &&
          packet->p.data + packet->p.length <= packet->room + PACKET_ROOM);
}

lbrl_verdict_t rig_send(rig_t *rig, test_packet_t *packet)
{
    rig->now_us += 10;
    process(rig, lbrl_worker(rig->lb, rig->entry), packet);
    return packet->p.verdict;
}

void rig_release(const rig_t *rig)
{
    lbrl_packet_t packet;
    for (uint32_t i = 0; i < rig->config.workers; i++) {
        lbrl_worker_t *worker = lbrl_worker(rig->lb, i);
        while (lbrl_held_take(worker, &packet, 1, rig->now_us)) {
            test_packet_t *holder = packet.buffer;
            holder->p = packet;
            process(rig, worker, holder);
        }
    }
}

void rig_pass(rig_t *rig, uint64_t milliseconds)
{
    uint64_t end = rig->now_us + milliseconds * 1000;
    for (;;) {
        for (uint32_t i = 0; i < rig->config.workers; i++) {
            lbrl_worker_tick(lbrl_worker(rig->lb, i), rig->now_us);
        }
        lbrl_control_tick(rig->lb, rig->now_us);
        if (rig->now_us >= end) {
            return;
        }
        rig->now_us += end - rig->now_us < 100000 ? end - rig->now_us : 100000;
    }
}

const char *text_of(const lbrl_address_t *address)
{
    static __thread char texts[4][24];
    static __thread unsigned next;
    char *text = texts[next++ % 4];
    const uint8_t *b = address->bytes;
    if (b[0] == 0) {
        snprintf(text, sizeof(texts[0]), "%u.%u.%u.%u", b[12], b[13], b[14], b[15]);
    } else {
        snprintf(text, sizeof(texts[0]), "%x:%x", (unsigned)(b[12] << 8 | b[13]),
                 (unsigned)(b[14] << 8 | b[15]));
    }
    return text;
}

connection_t connection_make(rig_t *rig, const char *client, uint16_t port, const char *vip)
{
    return (connection_t){.rig = rig,
                          .client = client,
                          .client_port = port,
                          .vip = vip,
                          .vip_port = 80,
                          .client_next = 1000u + port * 7919u,
                          .server_next = 0xfffffff0u};
}

static lbrl_verdict_t send_client(connection_t *c, uint8_t flags, size_t payload,
                                  const uint8_t *options, size_t size)
{
    tcp_fields_t tcp = {.sequence = c->client_next,
                        .ack = flags & ACK ? c->server_next : 0,
                        .flags = flags,
                        .options = options,
                        .options_size = size};
    make_tcp(&c->packet, c->client, c->client_port, c->vip, c->vip_port, &tcp, payload);
    lbrl_verdict_t verdict = rig_send(c->rig, &c->packet);
    c->client_next += (uint32_t)payload + ((flags & (SYN | FIN)) != 0);
    return verdict;
}

lbrl_verdict_t connection_syn(connection_t *c)
{
    static const uint8_t scale[4] = {1, 3, 3, 7};
    lbrl_verdict_t verdict = send_client(c, SYN, 0, scale, sizeof(scale));
    if (verdict == LBRL_VERDICT_FORWARD) {
        seen_t seen = look(&c->packet.p);
        c->backend = seen.dst;
        c->backend_port = seen.dport;
        c->source = seen.src;
        c->nat_port = seen.sport;
        CHECK_EQUAL(seen.ttl, 59);
    }
    return verdict;
}

lbrl_verdict_t connection_client(connection_t *c, uint8_t flags, size_t payload)
{
    lbrl_verdict_t verdict = send_client(c, flags | ACK, payload, NULL, 0);
    if (verdict == LBRL_VERDICT_FORWARD) {
        seen_t seen = look(&c->packet.p);
        CHECK(memcmp(&seen.dst, &c->backend, sizeof(seen.dst)) == 0);
        CHECK(memcmp(&seen.src, &c->source, sizeof(seen.src)) == 0);
        CHECK_EQUAL(seen.dport, c->backend_port);
        CHECK_EQUAL(seen.sport, c->nat_port);
    }
    return verdict;
}

lbrl_verdict_t connection_server(connection_t *c, uint8_t flags, size_t payload)
{
    static const uint8_t scale[4] = {1, 3, 3, 7};
    bool syn = (flags & SYN) != 0;
    tcp_fields_t tcp = {.sequence = c->server_next,
                        .ack = c->client_next,
                        .flags = flags | ACK,
                        .options = scale,
                        .options_size = syn ? sizeof(scale) : 0};
    make_tcp(&c->packet, text_of(&c->backend), c->backend_port, text_of(&c->source), c->nat_port,
             &tcp, payload);
    lbrl_verdict_t verdict = rig_send(c->rig, &c->packet);
    c->server_next += (uint32_t)payload + ((flags & (SYN | FIN)) != 0);
    if (verdict == LBRL_VERDICT_FORWARD) {
        seen_t seen = look(&c->packet.p);
        CHECK(is_address(&seen.src, c->vip));
        CHECK(is_address(&seen.dst, c->client));
        CHECK_EQUAL(seen.sport, c->vip_port);
        CHECK_EQUAL(seen.dport, c->client_port);
    }
    return verdict;
}

void connection_open(connection_t *c)
{
    CHECK_EQUAL(connection_syn(c), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_server(c, SYN, 0), LBRL_VERDICT_FORWARD);
    CHECK_EQUAL(connection_client(c, 0, 0), LBRL_VERDICT_FORWARD);
}

lbrl_flow_info_t connection_flow(const connection_t *c)
{
    lbrl_flow_info_t flow;
    uint64_t cursor = 0;
    while (lbrl_flow_next(c->rig->lb, &cursor, c->rig->now_us, &flow)) {
        if (is_address(&flow.client, c->client) && flow.client_port == c->client_port &&
            is_address(&flow.vip, c->vip) && flow.vip_port == c->vip_port) {
            return flow;
        }
    }
    return (lbrl_flow_info_t){.state = LBRL_FLOW_FREE};
}

void rig_bind_frames(const rig_t *rig, rig_frames_t *made, uint64_t vip)
{
    lbrl_vip_status_t status;
    CHECK_EQUAL(lbrl_vip_status(rig->lb, vip, &status, NULL, 0), 0);
    lbrl_frames_config_t layout = {.slots = status.slots,
                                   .workers = rig->config.workers,
                                   .level = LBRL_LEVEL_FULL,
                                   .instance_id = "test"};
    made->size = lbrl_frames_size(&layout);
    made->memory = zeroed(made->size);
    CHECK_EQUAL(lbrl_frames_format(&made->frames, made->memory, made->size, &layout, 1), 0);
    CHECK_EQUAL(lbrl_frames_bind(rig->lb, vip, &made->frames), 0);
}

void rig_recount(const rig_t *rig, uint64_t vip)
{
    enum { MOST = 512 };
    lbrl_backend_status_t backends[MOST];
    lbrl_vip_status_t status;
    if (lbrl_vip_status(rig->lb, vip, &status, backends, MOST) != 0 || status.slots > MOST) {
        return;
    }
    int64_t open[MOST] = {0}, entries[MOST] = {0};
    lbrl_flow_info_t flow;
    uint64_t cursor = 0;
    while (lbrl_flow_next(rig->lb, &cursor, rig->now_us, &flow)) {
        if (flow.vip_id == vip) {
            CHECK(flow.slot < status.slots);
            entries[flow.slot]++;
            open[flow.slot] += flow.open;
        }
    }
    for (uint32_t i = 0; i < status.backend_count; i++) {
        CHECK_EQUAL(backends[i].entries, entries[backends[i].slot]);
        CHECK_EQUAL(backends[i].open_flows, open[backends[i].slot]);
    }
}

uint64_t rig_dropped(const rig_t *rig, lbrl_drop_t reason)
{
    lbrl_stats_t stats;
    lbrl_stats(rig->lb, &stats);
    return stats.dropped[reason];
}

lbrl_backend_status_t rig_backend(const rig_t *rig, uint64_t vip, uint64_t backend)
{
    lbrl_vip_status_t status;
    lbrl_backend_status_t backends[256];
    CHECK_EQUAL(lbrl_vip_status(rig->lb, vip, &status, backends, 256), 0);
    for (uint32_t i = 0; i < status.backend_count; i++) {
        if (backends[i].id == backend && !backends[i].removed) {
            return backends[i];
        }
    }
    return (lbrl_backend_status_t){0};
}
