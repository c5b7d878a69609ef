/*
 * Four packet threads and a control thread at once, for ThreadSanitizer to watch, and for sums to be right afterwards:
 * first packets, TCP, UDP, fragments and into tunnels, enter at any worker and are handed to their owner, who plays client
 * and server from there on, while schedulers, levels, backends and VIPs change and frames are published; an agent reads
 * those and writes weights in a thread of its own.
 */
#include <pthread.h>

#include "lbrl/reduce.h"
#include "objects.h"
#include "rig.h"

enum {
    WORKERS = 4,
    BACKENDS = 8,
    LIVES = 300, /* of each kind, to be seen through */
    BUFFER =
        4096 /* bytes and alignment: what a packet's data lie in is found from where they lie */
};

typedef struct thread {
    rig_t *rig;
    uint64_t now_us;
    uint32_t index;
    uint32_t born;     /* SYNs made */
    uint32_t lives[8]; /* by kind; atomic */
    uint32_t handed;
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

/* What clients send. The kind travels with a packet, through handover too. */
typedef enum kind { TCP4, TCP6, UDP4, UDP6, GRE4, GRE6, FRAGMENT, PASSING, KINDS } kind_t;

static const struct {
    const char *address;
    uint16_t port;
    uint8_t protocol, forwarding;
} VIPS[KINDS] = {
    [TCP4] = {"203.0.113.10", 80, 6, LBRL_FORWARD_NAT},
    [TCP6] = {"1:10", 80, 6, LBRL_FORWARD_NAT},
    [UDP4] = {"203.0.113.10", 5000, 17, LBRL_FORWARD_NAT},
    [UDP6] = {"1:10", 5000, 17, LBRL_FORWARD_NAT},
    [GRE4] = {"203.0.113.11", 80, 6, LBRL_FORWARD_GRE},
    [GRE6] = {"1:11", 80, 6, LBRL_FORWARD_GRE},
    [FRAGMENT] = {"203.0.113.12", 53, 17, LBRL_FORWARD_NAT},
    [PASSING] = {"203.0.113.77", 80, 6, LBRL_FORWARD_NAT}, /* comes and goes */
};

static kind_t kind_of(const lbrl_packet_t *packet)
{
    return (kind_t)(uintptr_t)packet->buffer;
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
static void live_tcp(thread_t *t, const lbrl_packet_t *syn)
{
    static __thread test_packet_t packet;
    const kind_t kind = kind_of(syn);
    const seen_t seen = look(syn);
    char backend[24], source[24], client[24];
    snprintf(backend, sizeof(backend), "%s", text_of(&seen.dst));
    snprintf(source, sizeof(source), "%s", text_of(&seen.src));
    tcp_fields_t server = {.sequence = 1, .ack = seen.sequence + 1, .flags = SYN | ACK};
    make_tcp(&packet, backend, seen.dport, source, seen.sport, &server, 0);
    if (send(t, &packet) != LBRL_VERDICT_FORWARD) {
        return;
    }
    const seen_t back = look(&packet.p);
    snprintf(client, sizeof(client), "%s", text_of(&back.dst));
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
            make_tcp(&packet, client, back.dport, VIPS[kind].address, 80, tcp, steps[i].payload);
        } else {
            make_tcp(&packet, backend, seen.dport, source, seen.sport, tcp, steps[i].payload);
        }
        tcp->sequence += steps[i].payload + (tcp->flags & FIN ? 1u : 0u);
        if (send(t, &packet) != LBRL_VERDICT_FORWARD) {
            return;
        }
    }
    __atomic_fetch_add(&t->lives[kind], 1, __ATOMIC_RELAXED);
}

static void live_udp(thread_t *t, const lbrl_packet_t *asked)
{
    static __thread test_packet_t packet;
    const seen_t seen = look(asked);
    for (uint32_t i = 0; i < 2; i++) {
        make_udp(&packet, text_of(&seen.dst), seen.dport, text_of(&seen.src), seen.sport, 200);
        if (send(t, &packet) != LBRL_VERDICT_FORWARD) {
            return;
        }
        const seen_t back = look(&packet.p);
        make_udp(&packet, text_of(&back.dst), back.dport, VIPS[kind_of(asked)].address, 5000, 40);
        (void)send(t, &packet);
    }
    __atomic_fetch_add(&t->lives[kind_of(asked)], 1, __ATOMIC_RELAXED);
}

/* The client goes on; what it hears comes from the server itself. */
static void live_one_way(thread_t *t, lbrl_packet_t *syn)
{
    static __thread test_packet_t packet;
    CHECK_EQUAL(lbrl_decapsulate(syn), 0);
    const seen_t seen = look(syn);
    tcp_fields_t tcp = {.sequence = seen.sequence + 1, .ack = 2};
    for (uint32_t i = 0; i < 3; i++) {
        tcp.flags = i < 2 ? ACK | PSH : ACK | FIN;
        make_tcp(&packet, text_of(&seen.src), seen.sport, VIPS[kind_of(syn)].address, 80, &tcp, 50);
        tcp.sequence += 50;
        if (send(t, &packet) != LBRL_VERDICT_FORWARD) {
            return;
        }
    }
    __atomic_fetch_add(&t->lives[kind_of(syn)], 1, __ATOMIC_RELAXED);
}

static void live(thread_t *t, lbrl_packet_t *first)
{
    switch (kind_of(first)) {
    case TCP4:
    case TCP6:
        live_tcp(t, first);
        break;
    case UDP4:
    case UDP6:
        live_udp(t, first);
        break;
    case GRE4:
    case GRE6:
        live_one_way(t, first);
        break;
    default:
        __atomic_fetch_add(&t->lives[kind_of(first)], 1, __ATOMIC_RELAXED);
    }
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

/* A client's first packet, or one of two fragments of it. */
static lbrl_packet_t make_first(thread_t *t, kind_t kind, uint32_t number, bool second_half)
{
    test_packet_t *made = buffer_take();
    char client[24];
    const bool v6 = VIPS[kind].address[1] == ':';
    const uint16_t port = (uint16_t)(1024 + number % 60000);
    if (v6) {
        snprintf(client, sizeof(client), "%x:%x", 64 + t->index, 1 + number % 60000);
    } else {
        snprintf(client, sizeof(client), "100.%u.%u.%u", 64 + t->index, number / 200 % 256,
                 1 + number % 200);
    }
    if (kind == FRAGMENT) {
        static __thread test_packet_t whole;
        make_udp(&whole, client, port, VIPS[kind].address, VIPS[kind].port, 1200);
        make_fragment(made, &whole.p, number, second_half ? 600 : 0, 600, !second_half);
    } else if (VIPS[kind].protocol == 17) {
        make_udp(made, client, port, VIPS[kind].address, VIPS[kind].port, 30);
    } else {
        const tcp_fields_t syn = {.sequence = number, .flags = SYN};
        make_tcp(made, client, port, VIPS[kind].address, VIPS[kind].port, &syn, 0);
    }
    lbrl_packet_t packet = made->p;
    packet.buffer = (void *)(uintptr_t)kind;
    return packet;
}

static void *work(void *argument)
{
    enum { BATCH = KINDS + 1 };
    thread_t *t = argument;
    t->now_us = t->rig->now_us;
    for (uint32_t round = 0; !__atomic_load_n(&t->stop, __ATOMIC_RELAXED); round++) {
        lbrl_packet_t packets[BATCH];
        t->born++;
        for (uint32_t kind = 0; kind < KINDS; kind++) {
            packets[kind] = make_first(t, (kind_t)kind, t->born, false);
        }
        packets[KINDS] = make_first(t, FRAGMENT, t->born, true);
        t->now_us += 50;
        lbrl_process(lbrl_worker(t->rig->lb, t->index), packets, BATCH, t->now_us);
        settle(t, packets, BATCH);
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
    rig_frames_t frames[KINDS];
    lbrl_shm_view_t view; /* of the agent's weights of the first VIP */
    uint64_t now_us;
} control_t;

static void set_vip(control_t *c, kind_t kind, uint32_t round)
{
    lbrl_backend_config_t backends[BACKENDS];
    lbrl_vip_config_t vip = rig_vip((uint64_t)kind + 1, VIPS[kind].address, VIPS[kind].port,
                                    VIPS[kind].protocol, backends, BACKENDS - round % 2);
    vip.forwarding = VIPS[kind].forwarding;
    vip.scheduler = (uint8_t)(round % LBRL_SCHEDULER_COUNT);
    vip.load = round / 8 % 2 ? LBRL_LOAD_ACTIVE : LBRL_LOAD_OPEN;
    vip.feature_level = (uint8_t)(LBRL_LEVEL_FULL - round / 16 % 3);
    vip.drain_timeout = 0;
    backends[0].state = round % 5 == 4 ? LBRL_BACKEND_FAILED : LBRL_BACKEND_ACTIVE;
    CHECK_EQUAL(lbrl_vip_set(c->rig.lb, &vip, c->now_us), 0);
}

static void control(control_t *c, uint32_t round)
{
    const kind_t kind = (kind_t)(round % KINDS);
    float weights[2 * BACKENDS];
    for (uint32_t i = 0; i < 2 * BACKENDS; i++) {
        weights[i] = (float)(1 + (round + i) % 5);
    }
    if (kind == PASSING && round / KINDS % 2) {
        (void)lbrl_vip_remove(c->rig.lb, PASSING + 1, c->now_us);
    } else {
        set_vip(c, kind, round / KINDS);
    }
    CHECK_EQUAL(lbrl_weights_set(c->rig.lb, TCP6 + 1, weights, NULL, NULL, 2 * BACKENDS), 0);
    CHECK(lbrl_weights_follow(c->rig.lb, TCP4 + 1, &c->view, c->now_us) >= 0);
    lbrl_publish(c->rig.lb, c->now_us);
    lbrl_control_tick(c->rig.lb, c->now_us);
    lbrl_stats_t stats;
    lbrl_stats(c->rig.lb, &stats);
    lbrl_vip_status_t status;
    lbrl_backend_status_t backends[2 * BACKENDS];
    CHECK_EQUAL(lbrl_vip_status(c->rig.lb, TCP4 + 1, &status, backends, 2 * BACKENDS), 0);
    c->now_us += 100;
}

/* ------------------------------------------------------------------------------- the agent */

typedef struct agent {
    const control_t *control;
    lbrl_actions_t actions;
    void *memory;
    size_t size;
    uint64_t rounds; /* atomic */
    int stop;        /* atomic */
} agent_t;

/* Opens, copies and reduces what is being published, as another process does. */
static void read_frames(const rig_frames_t *frames)
{
    lbrl_shm_view_t view;
    CHECK_EQUAL(lbrl_shm_open(&view, frames->memory, frames->size, LBRL_SHM_FRAMES_MAGIC, NULL), 0);
    uint64_t *copy = zeroed(view.header.frame_stride);
    void *scratch = zeroed(lbrl_reduce_scratch(&view));
    lbrl_reduction_t *out = zeroed(view.header.slots * sizeof(*out));
    const int read = lbrl_read(&view, copy, view.header.frame_stride);
    CHECK(read == 0 || read == LBRL_SHM_EMPTY || read == LBRL_SHM_BUSY);
    CHECK(lbrl_reduce(&view, "iat_p", 1000000000, scratch, NULL, out) >= 0);
    free(out);
    free(scratch);
    free(copy);
}

static void *observe_and_act(void *argument)
{
    agent_t *agent = argument;
    float weights[2 * BACKENDS];
    uint8_t generations[2 * BACKENDS];
    memset(generations, 1, sizeof(generations));
    while (!__atomic_load_n(&agent->stop, __ATOMIC_RELAXED)) {
        for (uint32_t kind = 0; kind < PASSING; kind++) {
            read_frames(&agent->control->frames[kind]);
        }
        for (uint32_t i = 0; i < 2 * BACKENDS; i++) {
            weights[i] = (float)(1 + (agent->rounds + i) % 7);
        }
        CHECK(lbrl_actions_write(&agent->actions, weights, weights, generations, 1000000000) > 0);
        __atomic_fetch_add(&agent->rounds, 1, __ATOMIC_RELAXED);
        sched_yield();
    }
    return NULL;
}

static void agent_make(agent_t *agent, control_t *c)
{
    *agent = (agent_t){.control = c, .size = lbrl_actions_size(2 * BACKENDS)};
    agent->memory = zeroed(agent->size);
    CHECK_EQUAL(lbrl_actions_format(&agent->actions, agent->memory, agent->size, 2 * BACKENDS, 1),
                0);
    CHECK_EQUAL(lbrl_shm_open(&c->view, agent->memory, agent->size, LBRL_SHM_ACTIONS_MAGIC, NULL),
                0);
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
    c->rig.now_us = c->now_us;
    for (uint64_t id = 1; id <= KINDS; id++) {
        rig_recount(&c->rig, id);
    }
    lbrl_flow_info_t flow;
    uint64_t cursor = 0, flows = 0;
    while (lbrl_flow_next(c->rig.lb, &cursor, c->now_us, &flow)) {
        flows++;
    }
    lbrl_stats_t stats;
    lbrl_stats(c->rig.lb, &stats);
    CHECK_EQUAL(stats.flows, flows);
    CHECK(flows > 0 && stats.handed_over > 0);
}

/* Of each kind enough, all workers together: where one of them is slow others do more. */
static bool all_have_lived(const thread_t *threads)
{
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        uint32_t lives = 0;
        for (uint32_t i = 0; i < WORKERS; i++) {
            lives += __atomic_load_n(&threads[i].lives[kind], __ATOMIC_RELAXED);
        }
        if (lives < LIVES) {
            return false;
        }
    }
    return true;
}

int main(void)
{
    static control_t c;
    static agent_t agent;
    static thread_t threads[WORKERS];
    pthread_t ids[WORKERS], agent_id;
    c.rig = rig_sized(16384, WORKERS);
    rig_set_sources(&c.rig);
    c.now_us = c.rig.now_us;
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        set_vip(&c, (kind_t)kind, 0);
        rig_bind_frames(&c.rig, &c.frames[kind], kind + 1);
    }
    agent_make(&agent, &c);
    for (uint32_t i = 0; i < WORKERS; i++) {
        threads[i] = (thread_t){.rig = &c.rig, .index = i};
        CHECK_EQUAL(pthread_create(&ids[i], NULL, work, &threads[i]), 0);
    }
    CHECK_EQUAL(pthread_create(&agent_id, NULL, observe_and_act, &agent), 0);
    uint32_t round = 0;
    for (; round < 100 * KINDS || !all_have_lived(threads) ||
           __atomic_load_n(&agent.rounds, __ATOMIC_RELAXED) < 20;
         round++) {
        CHECK(round < 1000000);
        control(&c, round);
        sched_yield();
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        __atomic_store_n(&threads[i].stop, 1, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&agent.stop, 1, __ATOMIC_RELAXED);
    CHECK_EQUAL(pthread_join(agent_id, NULL), 0);
    for (uint32_t i = 0; i < WORKERS; i++) {
        CHECK_EQUAL(pthread_join(ids[i], NULL), 0);
        c.now_us = threads[i].now_us > c.now_us ? threads[i].now_us : c.now_us;
    }
    check_sums(&c, threads);
    lbrl_vip_status_t status;
    CHECK_EQUAL(lbrl_vip_status(c.rig.lb, TCP4 + 1, &status, NULL, 0), 0);
    CHECK(status.actions_sequence > 0);
    printf("%u changes, %" PRIu64 " rounds of the agent\n", round, agent.rounds);
    rig_free(&c.rig);
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        free(c.frames[kind].memory);
    }
    free(agent.memory);
    return 0;
}
