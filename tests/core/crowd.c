#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "crowd.h"

#include <sys/mman.h>

#include "wire.h"

enum {
    HEADROOM_BYTES = 64,
    HEADERS = 52,         /* IPv4, TCP with timestamps */
    CLIENT_PORTS = 16384, /* per client address */
};

enum { VIP_ADDRESS = 0xcb00710au, BACKEND_FIRST = 0x0a000001u, SOURCE_FIRST = 0xc0000201u };
enum { CLIENT_FIRST = 0x0b000000 };
enum { STRANGERS = 0x2d000000 }; /* client addresses that nobody else has */

uint64_t crowd_random(crowd_t *c)
{
    c->random ^= c->random >> 12;
    c->random ^= c->random << 25;
    c->random ^= c->random >> 27;
    return c->random * 0x2545f4914f6cdd1du;
}

/* ------------------------------------------------------------------------------- packets */

/* Writes one segment into buffer `i`; addresses and ports in host order. */
static void write_segment(crowd_t *c, uint32_t i, uint32_t src, uint16_t sport, uint32_t dst,
                          uint16_t dport, uint32_t sequence, uint32_t ack, uint8_t flags,
                          uint32_t payload)
{
    uint8_t *ip = c->rooms[i] + HEADROOM_BYTES;
    memset(ip, 0, HEADERS);
    ip[0] = 0x45;
    ip[6] = 0x40; /* as TCP does: the path's MTU is to be found out */
    put16(ip + 2, (uint16_t)(HEADERS + payload));
    ip[8] = 64;
    ip[9] = PROTO_TCP;
    put32(ip + 12, src);
    put32(ip + 16, dst);
    store16(ip + 10, sum_finish(sum_bytes(ip, 20)));
    put16(ip + 20, sport);
    put16(ip + 22, dport);
    put32(ip + 24, sequence);
    put32(ip + 28, ack);
    ip[32] = 0x80;
    ip[33] = flags;
    put16(ip + 34, 8000);
    put16(ip + 36, 0x1234);
    put32(ip + 40, 0x0101080a);
    put32(ip + 44, (uint32_t)(c->now_us / 1000));
    c->packets[i] = (lbrl_packet_t){
        .data = ip, .length = HEADERS + payload, .headroom = HEADROOM_BYTES, .tailroom = 64};
}

static uint32_t client_address(const crowd_t *c, uint32_t flow)
{
    return c->first_address + flow / CLIENT_PORTS;
}

static uint16_t client_port(uint32_t flow)
{
    return (uint16_t)(20000 + flow % CLIENT_PORTS);
}

void crowd_client(crowd_t *c, uint32_t i, uint32_t flow, uint8_t flags, uint32_t payload)
{
    client_flow_t *f = &c->flows[flow];
    write_segment(c, i, client_address(c, flow), client_port(flow), VIP_ADDRESS, 80, f->client_next,
                  f->server_next, flags, payload);
    f->client_next += payload + ((flags & (SYN | FIN)) != 0);
}

void crowd_server(crowd_t *c, uint32_t i, uint32_t flow, uint8_t flags)
{
    client_flow_t *f = &c->flows[flow];
    write_segment(c, i, BACKEND_FIRST + f->backend, 8080, SOURCE_FIRST + f->source, f->nat_port,
                  f->server_next, f->client_next, flags, 0);
    f->server_next += (flags & (SYN | FIN)) != 0;
}

void crowd_fill(crowd_t *c, uint32_t among)
{
    for (uint32_t i = 0; i < VECTOR; i++) {
        uint32_t flow = (uint32_t)((crowd_random(c) >> 32) * among >> 32);
        crowd_client(c, i, flow, ACK | PSH, PAYLOAD);
    }
}

static void process(crowd_t *c, uint32_t n)
{
    c->now_us += 100;
    uint64_t begin = c->clock ? c->clock() : 0;
    lbrl_process(c->worker, c->packets, n, c->now_us);
    c->spent += c->clock ? c->clock() - begin : 0;
}

void crowd_forward(crowd_t *c, uint32_t n)
{
    process(c, n);
    for (uint32_t i = 0; i < n; i++) {
        CHECK_EQUAL(c->packets[i].verdict, LBRL_VERDICT_FORWARD);
    }
}

void crowd_syn(crowd_t *c, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        crowd_client(c, i, first + i, SYN, 0);
    }
    crowd_forward(c, n);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *ip = c->packets[i].data;
        client_flow_t *f = &c->flows[first + i];
        f->source = (uint8_t)(get32(ip + 12) - SOURCE_FIRST);
        f->backend = (uint16_t)(get32(ip + 16) - BACKEND_FIRST);
        f->nat_port = get16(ip + 20);
    }
}

void crowd_step(crowd_t *c, uint32_t first, uint32_t n, bool client, uint8_t flags)
{
    for (uint32_t i = 0; i < n; i++) {
        if (client) {
            crowd_client(c, i, first + i, flags, 0);
        } else {
            crowd_server(c, i, first + i, flags);
        }
    }
    crowd_forward(c, n);
    for (uint32_t i = 0; client && i < n; i++) {
        CHECK_EQUAL(get32(c->packets[i].data + 16), BACKEND_FIRST + c->flows[first + i].backend);
        CHECK_EQUAL(get16(c->packets[i].data + 20), c->flows[first + i].nat_port);
    }
}

void crowd_open(crowd_t *c, uint32_t n)
{
    for (uint32_t first = 0; first < n; first += VECTOR) {
        uint32_t size = n - first < VECTOR ? n - first : VECTOR;
        crowd_syn(c, first, size);
        crowd_step(c, first, size, false, SYN | ACK);
        crowd_step(c, first, size, true, ACK);
    }
}

void crowd_strangers(crowd_t *c, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t random = crowd_random(c);
        uint16_t port = (uint16_t)(1024 + (random >> 48) % 60000);
        write_segment(c, i, STRANGERS | (uint32_t)(random >> 12 & 0xffffff), port, VIP_ADDRESS, 80,
                      (uint32_t)random, 0, SYN, 0);
    }
    process(c, n);
}

void crowd_move(crowd_t *c, uint32_t number)
{
    c->first_address = CLIENT_FIRST + number * (c->flow_count / CLIENT_PORTS + 1);
    memset(c->flows, 0, c->flow_count * sizeof(*c->flows));
    for (uint32_t i = 0; i < c->flow_count; i++) {
        c->flows[i].client_next = (uint32_t)(crowd_random(c) >> 32);
    }
}

void crowd_tick(crowd_t *c, uint64_t microseconds)
{
    c->now_us += microseconds;
    uint64_t begin = c->clock ? c->clock() : 0;
    lbrl_worker_tick(c->worker, c->now_us);
    c->spent += c->clock ? c->clock() - begin : 0;
}

/* ------------------------------------------------------------------------------- set-up */

static void *shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

static void open_core(crowd_t *c, const crowd_plan_t *plan)
{
    lbrl_config_t config = {
        .flows = plan->capacity, .vips = 1024, .slots = 16384, .workers = 1, .now_us = c->now_us};
    memset(config.seed, 0x5c, sizeof(config.seed));
    lbrl_attach_report_t report;
    c->arena_size = lbrl_arena_size(&config);
    c->arena = shared(c->arena_size);
    CHECK_EQUAL(lbrl_open(&c->lb, &config, c->arena, c->arena_size, &report), 0);
    c->worker = lbrl_worker(c->lb, 0);
    lbrl_nat_source_t source[LBRL_SOURCES_MAX];
    for (uint32_t i = 0; i < plan->sources; i++) {
        source[i] = (lbrl_nat_source_t){address_of("192.0.2.1"), 16384, 28671};
        source[i].address.bytes[15] = (uint8_t)(1 + i);
    }
    CHECK_EQUAL(lbrl_sources_set(c->lb, source, plan->sources), 0);
}

static void set_vip(crowd_t *c, const crowd_plan_t *plan)
{
    static lbrl_backend_config_t backends[LBRL_BACKENDS_MAX];
    lbrl_vip_config_t vip = rig_vip(1, "203.0.113.10", 80, 6, backends, 1);
    for (uint32_t i = 0; i < plan->backends; i++) {
        backends[i] = backends[0];
        backends[i].id = 1001 + i;
        put32(backends[i].address.bytes + 12, BACKEND_FIRST + i);
    }
    vip.backend_count = plan->backends;
    vip.feature_level = (uint8_t)plan->level;
    CHECK_EQUAL(lbrl_vip_set(c->lb, &vip, c->now_us), 0);
    if (plan->level == LBRL_LEVEL_OFF) {
        return;
    }
    lbrl_vip_status_t status;
    CHECK_EQUAL(lbrl_vip_status(c->lb, 1, &status, NULL, 0), 0);
    lbrl_frames_config_t layout = {
        .slots = status.slots, .workers = 1, .level = plan->level, .instance_id = "bench"};
    c->frames_size = lbrl_frames_size(&layout);
    CHECK_EQUAL(
        lbrl_frames_format(&c->frames, shared(c->frames_size), c->frames_size, &layout, c->now_us),
        0);
    CHECK_EQUAL(lbrl_frames_bind(c->lb, 1, &c->frames), 0);
}

crowd_t *crowd_make(const crowd_plan_t *plan)
{
    crowd_t *c = aligned_alloc(64, (sizeof(*c) + 63) / 64 * 64);
    CHECK(c != NULL);
    memset(c, 0, sizeof(*c));
    c->now_us = 1000000000;
    c->random = 88172645463325252u;
    c->first_address = CLIENT_FIRST;
    c->flow_count = plan->flows;
    c->flows = calloc(plan->flows, sizeof(*c->flows));
    CHECK(c->flows != NULL);
    open_core(c, plan);
    set_vip(c, plan);
    return c;
}

void crowd_free(crowd_t *c)
{
    lbrl_close(c->lb);
    CHECK_EQUAL(munmap(c->arena, c->arena_size), 0);
    if (c->frames_size) {
        CHECK_EQUAL(munmap(c->frames.base, c->frames_size), 0);
    }
    free(c->flows);
    free(c);
}
