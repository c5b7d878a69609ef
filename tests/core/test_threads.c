/*
 * Four packet threads and a control thread at once, for ThreadSanitizer to watch, and for sums to be right afterwards:
 * SYNs enter at any worker and are handed to their owner, who plays client and server from there on, while weights,
 * schedulers, levels and backends change, frames are published, and a reader reads them.
 */
#include <pthread.h>

#include "lbrl/reduce.h"
#include "objects.h"
#include "rig.h"

enum {
    WORKERS = 4,
    BACKENDS = 8,
    LIVES = 300, /* that each thread has to see through */
    BUFFER =
        4096 /* bytes and alignment: what a packet's data lie in is found from where they lie */
};

static const char *const VIP = "203.0.113.10";

typedef struct thread {
    rig_t *rig;
    uint32_t index;
    uint32_t born;  /* SYNs made */
    uint32_t lives; /* atomic */
    uint32_t handed;
    uint64_t now_us;
    int stop; /* atomic */
} thread_t;

static_assert(sizeof(test_packet_t) <= BUFFER, "a packet fits its buffer");

static test_packet_t *buffer_take(void)
{
    test_packet_t *packet = aligned_alloc(BUFFER, BUFFER);
    CHECK(packet != NULL);
    return packet;
}

static void buffer_free(const lbrl_packet_t *packet)
{
    free(packet->data - ((uintptr_t)packet->data & (BUFFER - 1)));
}

static void write_address(char text[24], const lbrl_address_t *address)
{
    const uint8_t *b = address->bytes + 12;
    snprintf(text, 24, "%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
}

/* One packet of a flow that this worker owns. */
static lbrl_verdict_t send(thread_t *t, test_packet_t *packet)
{
    t->now_us += 20;
    lbrl_process(lbrl_worker(t->rig->lb, t->index), &packet->p, 1, t->now_us);
    CHECK(packet->p.verdict != LBRL_VERDICT_HANDOVER);
    return packet->p.verdict;
}

/* From the forwarded SYN to the end. Backends fail meanwhile, so that any packet may be the last. */
static void live(thread_t *t, const lbrl_packet_t *syn)
{
    static __thread test_packet_t packet;
    const seen_t seen = look(syn);
    char backend[24], source[24], client[24];
    write_address(backend, &seen.dst);
    write_address(source, &seen.src);
    tcp_fields_t server = {.sequence = 1, .ack = seen.sequence + 1, .flags = SYN | ACK};
    make_tcp(&packet, backend, seen.dport, source, seen.sport, &server, 0);
    if (send(t, &packet) != LBRL_VERDICT_FORWARD) {
        return;
    }
    const seen_t back = look(&packet.p);
    write_address(client, &back.dst);
    static const struct {
        uint8_t flags;
        bool from_client;
        uint16_t payload;
    } steps[] = {{ACK, true, 0}, {ACK | PSH, true, 100}, {ACK | PSH, false, 900},
                 {ACK, true, 0}, {ACK | FIN, true, 0},   {ACK | FIN, false, 0},
                 {ACK, true, 0}};
    tcp_fields_t mine = {.sequence = seen.sequence + 1, .ack = 2};
    server.sequence = 2;
    /* every seventh flow stays open */
    const size_t n = sizeof(steps) / sizeof(steps[0]) - (t->born % 7 == 0 ? 3 : 0);
    for (size_t i = 0; i < n; i++) {
        tcp_fields_t *tcp = steps[i].from_client ? &mine : &server;
        tcp->flags = steps[i].flags;
        tcp->ack = steps[i].from_client ? server.sequence : mine.sequence;
        if (steps[i].from_client) {
            make_tcp(&packet, client, back.dport, VIP, 80, tcp, steps[i].payload);
        } else {
            make_tcp(&packet, backend, seen.dport, source, seen.sport, tcp, steps[i].payload);
        }
        tcp->sequence += steps[i].payload + (tcp->flags & FIN ? 1u : 0u);
        if (send(t, &packet) != LBRL_VERDICT_FORWARD) {
            return;
        }
    }
    __atomic_fetch_add(&t->lives, 1, __ATOMIC_RELAXED);
}

/* What came out of a worker: handed on, lived through, or over. */
static void settle(thread_t *t, lbrl_packet_t *packets, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (packets[i].verdict == LBRL_VERDICT_HANDOVER) {
            if (lbrl_handover(lbrl_worker(t->rig->lb, t->index), &packets[i]) == 0) {
                t->handed++;
                continue;
            }
        } else if (packets[i].verdict == LBRL_VERDICT_FORWARD) {
            live(t, &packets[i]);
        }
        buffer_free(&packets[i]);
    }
}

static uint32_t take_in(thread_t *t)
{
    lbrl_packet_t packets[64];
    lbrl_worker_t *worker = lbrl_worker(t->rig->lb, t->index);
    const uint32_t n = lbrl_handover_take(worker, packets, 64);
    lbrl_process(worker, packets, n, t->now_us);
    settle(t, packets, n);
    return n;
}

static void *work(void *argument)
{
    thread_t *t = argument;
    t->now_us = t->rig->now_us;
    for (uint32_t round = 0; !__atomic_load_n(&t->stop, __ATOMIC_RELAXED); round++) {
        lbrl_packet_t packets[8];
        for (uint32_t i = 0; i < 8; i++) {
            test_packet_t *made = buffer_take();
            const tcp_fields_t syn = {.sequence = t->born, .flags = SYN};
            char client[24];
            snprintf(client, sizeof(client), "100.%u.%u.%u", 64 + t->index, t->born / 200 % 256,
                     1 + t->born % 200);
            make_tcp(made, client, (uint16_t)(1024 + t->born % 60000), VIP, 80, &syn, 0);
            packets[i] = made->p;
            t->born++;
        }
        t->now_us += 50;
        lbrl_process(lbrl_worker(t->rig->lb, t->index), packets, 8, t->now_us);
        settle(t, packets, 8);
        (void)take_in(t);
        if (round % 16 == 0) {
            lbrl_worker_tick(lbrl_worker(t->rig->lb, t->index), t->now_us);
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------------------- control */

typedef struct control {
    rig_t rig;
    lbrl_frames_t frames;
    void *memory;
    size_t size;
    uint64_t now_us;
} control_t;

static void set_vip(control_t *c, uint32_t round)
{
    lbrl_backend_config_t backends[BACKENDS];
    lbrl_vip_config_t vip = rig_vip(1, VIP, 80, 6, backends, BACKENDS - round % 2);
    vip.scheduler = (uint8_t)(round % LBRL_SCHEDULER_COUNT);
    vip.load = round / 8 % 2 ? LBRL_LOAD_ACTIVE : LBRL_LOAD_OPEN;
    vip.feature_level = round / 16 % 3 == 2 ? LBRL_LEVEL_BASIC : LBRL_LEVEL_FULL;
    vip.drain_timeout = 0;
    backends[0].state = round % 5 == 4 ? LBRL_BACKEND_FAILED : LBRL_BACKEND_ACTIVE;
    CHECK_EQUAL(lbrl_vip_set(c->rig.lb, &vip, c->now_us), 0);
}

static void read_frames(const control_t *c)
{
    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_shm_open(&view, c->memory, c->size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    uint64_t *copy = zeroed(view.header.frame_stride);
    void *scratch = zeroed(lbrl_reduce_scratch(&view));
    lbrl_reduction_t *out = zeroed(view.header.slots * sizeof(*out));
    CHECK_EQUAL(lbrl_read(&view, copy, view.header.frame_stride), 0);
    CHECK(lbrl_reduce(&view, "iat_p", c->now_us, scratch, NULL, out) >= 0);
    free(out);
    free(scratch);
    free(copy);
}

static void *make_frames(control_t *c)
{
    lbrl_vip_status_t status;
    CHECK_EQUAL(lbrl_vip_status(c->rig.lb, 1, &status, NULL, 0), 0);
    lbrl_frames_config_t layout = {
        .slots = status.slots, .workers = WORKERS, .level = LBRL_LEVEL_FULL, .instance_id = "t"};
    c->size = lbrl_frames_size(&layout);
    c->memory = zeroed(c->size);
    CHECK_EQUAL(lbrl_frames_format(&c->frames, c->memory, c->size, &layout, c->now_us), 0);
    CHECK_EQUAL(lbrl_frames_bind(c->rig.lb, 1, &c->frames), 0);
    return c->memory;
}

static void control(control_t *c, uint32_t round)
{
    float weights[2 * BACKENDS];
    for (uint32_t i = 0; i < 2 * BACKENDS; i++) {
        weights[i] = (float)(1 + (round + i) % 5);
    }
    set_vip(c, round);
    CHECK_EQUAL(lbrl_weights_set(c->rig.lb, 1, weights, NULL, 2 * BACKENDS), 0);
    lbrl_publish(c->rig.lb, c->now_us);
    lbrl_control_tick(c->rig.lb, c->now_us);
    lbrl_stats_t stats;
    lbrl_stats(c->rig.lb, &stats);
    lbrl_vip_status_t status;
    lbrl_backend_status_t backends[2 * BACKENDS];
    CHECK_EQUAL(lbrl_vip_status(c->rig.lb, 1, &status, backends, 2 * BACKENDS), 0);
    read_frames(c);
    c->now_us += 100;
}

/* With everybody standing still: what is counted is what there is. */
static void check_sums(control_t *c, thread_t *threads)
{
    for (uint32_t i = 0; i < WORKERS; i++) {
        while (take_in(&threads[i])) {
        }
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        lbrl_worker_tick(lbrl_worker(c->rig.lb, i), threads[i].now_us);
    }
    lbrl_vip_status_t status;
    lbrl_backend_status_t backends[2 * BACKENDS];
    CHECK_EQUAL(lbrl_vip_status(c->rig.lb, 1, &status, backends, 2 * BACKENDS), 0);
    int64_t open[2 * BACKENDS] = {0}, entries[2 * BACKENDS] = {0};
    lbrl_flow_info_t flow;
    uint64_t cursor = 0, flows = 0;
    while (lbrl_flow_next(c->rig.lb, &cursor, c->now_us, &flow)) {
        entries[flow.slot]++;
        open[flow.slot] += flow.open;
        flows++;
    }
    for (uint32_t i = 0; i < status.backend_count; i++) {
        CHECK_EQUAL(backends[i].entries, entries[backends[i].slot]);
        CHECK_EQUAL(backends[i].open_flows, open[backends[i].slot]);
    }
    lbrl_stats_t stats;
    lbrl_stats(c->rig.lb, &stats);
    CHECK_EQUAL(stats.flows, flows);
    CHECK(flows > 0 && stats.handed_over > 0);
}

static bool all_have_lived(const thread_t *threads)
{
    for (uint32_t i = 0; i < WORKERS; i++) {
        if (__atomic_load_n(&threads[i].lives, __ATOMIC_RELAXED) < LIVES) {
            return false;
        }
    }
    return true;
}

int main(void)
{
    static control_t c;
    static thread_t threads[WORKERS];
    pthread_t ids[WORKERS];
    c.rig = rig_make(WORKERS, 0);
    c.now_us = c.rig.now_us;
    set_vip(&c, 0);
    void *memory = make_frames(&c);
    for (uint32_t i = 0; i < WORKERS; i++) {
        threads[i] = (thread_t){.rig = &c.rig, .index = i};
        CHECK_EQUAL(pthread_create(&ids[i], NULL, work, &threads[i]), 0);
    }
    uint32_t round = 0;
    for (; round < 100 || !all_have_lived(threads); round++) {
        CHECK(round < 1000000);
        control(&c, round);
        sched_yield();
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        __atomic_store_n(&threads[i].stop, 1, __ATOMIC_RELAXED);
    }
    uint64_t lives = 0;
    for (uint32_t i = 0; i < WORKERS; i++) {
        CHECK_EQUAL(pthread_join(ids[i], NULL), 0);
        lives += threads[i].lives;
        c.now_us = threads[i].now_us > c.now_us ? threads[i].now_us : c.now_us;
    }
    check_sums(&c, threads);
    printf("%" PRIu64 " lives, %u changes\n", lives, round);
    rig_free(&c.rig);
    free(memory);
    return 0;
}
