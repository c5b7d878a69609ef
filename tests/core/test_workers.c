/* Several workers: each owns its partitions, packets find their owner, counts are shared, nothing waits. */
#include <pthread.h>

#include "internal.h"
#include "rig.h"
#include "ring.h"

static const char *const CLIENT = "198.51.100.7";
static const char *const VIP = "203.0.113.10";

static void every_packet_finds_its_owner(void)
{
    rig_t rig = rig_make(4, 4);
    uint32_t handed = 0;
    for (uint16_t i = 0; i < 200; i++) {
        connection_t c = connection_make(&rig, CLIENT, (uint16_t)(40000 + i), VIP);
        connection_open(&c); /* every packet enters at worker 0, and is handed over where needed */
        CHECK_EQUAL(connection_server(&c, PSH, 100), LBRL_VERDICT_FORWARD);
        handed += connection_flow(&c).partition >= LBRL_PARTITIONS / 4;
        /* an ICMP error about it finds the same owner */
        test_packet_t sent = c.packet, p;
        sent.p.data = sent.room + (c.packet.p.data - c.packet.room);
        make_icmp_error(&p, "10.9.9.9", VIP, 3, 4, 1400, &sent.p, 60);
        CHECK_EQUAL(rig_send(&rig, &p), LBRL_VERDICT_FORWARD);
    }
    CHECK(handed > 100 && handed < 200);
    lbrl_stats_t stats;
    lbrl_stats(rig.lb, &stats);
    CHECK_EQUAL(stats.handed_over, handed * 5);
    CHECK_EQUAL(stats.packets, 200 * 5);
    CHECK_EQUAL(stats.forwarded, 200 * 5);
    CHECK_EQUAL(stats.flows, 200);
    rig_pass(&rig, 1000000); /* each worker ages its own */
    lbrl_stats(rig.lb, &stats);
    CHECK_EQUAL(stats.flows, 0);
    rig_free(&rig);
}

static void workers_see_each_others_flows(void)
{
    rig_t rig = rig_make(4, 4);
    for (uint16_t i = 0; i < 400; i++) {
        connection_t c = connection_make(&rig, CLIENT, (uint16_t)(40000 + i), VIP);
        connection_open(&c);
    }
    for (uint64_t id = 1001; id <= 1004; id++) {
        CHECK_NEAR(rig_backend(&rig, 1, id).open_flows, 100,
                   4); /* not 4 x 25 by luck: lsq over all workers */
    }
    rig_free(&rig);
}

static void full_ring_refuses_and_counts(void)
{
    rig_t rig = rig_make(2, 1);
    lbrl_packet_t packet = {.worker = 1};
    for (int i = 0; i < RING_PLACES; i++) {
        packet.length = (uint32_t)i;
        CHECK_EQUAL(lbrl_handover(lbrl_worker(rig.lb, 0), &packet), 0);
    }
    CHECK_EQUAL(lbrl_handover(lbrl_worker(rig.lb, 0), &packet), -1);
    CHECK_EQUAL(rig_dropped(&rig, LBRL_DROP_HANDOVER_FULL), 1);
    packet.worker = 0; /* to itself, to nobody */
    CHECK_EQUAL(lbrl_handover(lbrl_worker(rig.lb, 0), &packet), -1);
    packet.worker = 2;
    CHECK_EQUAL(lbrl_handover(lbrl_worker(rig.lb, 0), &packet), -1);
    lbrl_packet_t taken[300];
    CHECK_EQUAL(lbrl_handover_take(lbrl_worker(rig.lb, 1), taken, 300), 300);
    for (uint32_t i = 0; i < 300; i++) {
        CHECK_EQUAL(taken[i].length, i);
    }
    CHECK_EQUAL(lbrl_handover_take(lbrl_worker(rig.lb, 1), taken, 300), RING_PLACES - 300);
    CHECK_EQUAL(lbrl_handover_take(lbrl_worker(rig.lb, 1), taken, 300), 0);
    rig_free(&rig);
}

enum { HANDED = 200000 };

static void *produce(void *argument)
{
    ring_t *ring = argument;
    lbrl_packet_t packet = {0};
    for (uint32_t i = 0; i < HANDED;) {
        packet.length = i;
        packet.gso_size = (uint16_t)(i * 31);
        if (ring_push(ring, &packet)) {
            i++;
        } else {
            sched_yield();
        }
    }
    return NULL;
}

static void ring_loses_and_reorders_nothing(void)
{
    ring_t *ring = aligned_alloc(64, sizeof(*ring));
    CHECK(ring != NULL);
    memset(ring, 0, sizeof(*ring));
    ring->head = ring->tail = UINT32_MAX - 1000; /* counters wrap on the way */
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, produce, ring), 0);
    lbrl_packet_t taken[100];
    for (uint32_t next = 0; next < HANDED;) {
        uint32_t n = ring_pop(ring, taken, 1 + next % 100);
        for (uint32_t i = 0; i < n; i++, next++) {
            CHECK_EQUAL(taken[i].length, next);
            CHECK_EQUAL(taken[i].gso_size, (uint16_t)(next * 31));
        }
        if (!n) {
            sched_yield();
        }
    }
    pthread_join(thread, NULL);
    free(ring);
}

/* Workers forward while the control thread changes everything under them. */
typedef struct runner {
    rig_t *rig;
    uint32_t index;
    int stop;
    uint64_t forwarded;
} runner_t;

static void *run(void *argument)
{
    runner_t *r = argument;
    lbrl_worker_t *worker = lbrl_worker(r->rig->lb, r->index);
    static __thread test_packet_t packets[16];
    lbrl_packet_t vector[16];
    uint64_t now = r->rig->now_us;
    for (uint32_t round = 0; !__atomic_load_n(&r->stop, __ATOMIC_RELAXED); round++) {
        for (uint32_t i = 0; i < 16; i++) {
            tcp_fields_t tcp = {.sequence = round, .flags = SYN};
            char client[24];
            snprintf(client, sizeof(client), "100.64.%u.%u", r->index, i + 1);
            make_tcp(&packets[i], client, (uint16_t)(1024 + round % 5000), VIP, 80, &tcp, 0);
            vector[i] = packets[i].p;
        }
        now += 50;
        lbrl_process(worker, vector, 16, now);
        for (uint32_t i = 0; i < 16; i++) {
            uint64_t more = vector[i].verdict == LBRL_VERDICT_FORWARD;
            __atomic_fetch_add(&r->forwarded, more, __ATOMIC_RELAXED);
        }
        if (round % 64 == 0) {
            lbrl_worker_tick(worker, now);
        }
    }
    return NULL;
}

static bool have_worked(const runner_t *runners)
{
    return __atomic_load_n(&runners[0].forwarded, __ATOMIC_RELAXED) > 100 &&
           __atomic_load_n(&runners[1].forwarded, __ATOMIC_RELAXED) > 100;
}

static void control_changes_everything_under_running_workers(void)
{
    rig_t rig = rig_make(2, 4);
    runner_t runners[2] = {{.rig = &rig, .index = 0}, {.rig = &rig, .index = 1}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(pthread_create(&threads[i], NULL, run, &runners[i]), 0);
    }
    uint64_t now = rig.now_us;
    for (uint32_t round = 0; round < 400 || !have_worked(runners); round++) {
        CHECK(round < 1000000);
        lbrl_backend_config_t backends[8];
        lbrl_vip_config_t config = rig_vip(1, VIP, 80, 6, backends, 1 + round % 8);
        for (uint32_t i = 0; i < config.backend_count; i++) {
            backends[i].id += round / 16 * 100;
            backends[i].weight = (float)(1 + round % 3);
        }
        config.scheduler = (uint8_t)(round % 3);
        config.drain_timeout = 0;
        int error = lbrl_vip_set(rig.lb, &config, now);
        CHECK(error == 0 || error == LBRL_ERR_EXHAUSTED); /* slow workers give slots back slowly */
        lbrl_vip_config_t extra = rig_vip(50, "203.0.113.50", 80, 6, backends, 1);
        if (round % 2) {
            CHECK_EQUAL(lbrl_vip_set(rig.lb, &extra, now), 0);
        } else {
            lbrl_vip_remove(rig.lb, 50, now);
        }
        lbrl_control_tick(rig.lb, now);
        lbrl_stats_t stats;
        lbrl_stats(rig.lb, &stats);
        now += 200000;
        sched_yield();
    }
    for (int i = 0; i < 2; i++) {
        __atomic_store_n(&runners[i].stop, 1, __ATOMIC_RELAXED);
        pthread_join(threads[i], NULL);
    }
    rig_free(&rig);
}

int main(void)
{
    every_packet_finds_its_owner();
    workers_see_each_others_flows();
    full_ring_refuses_and_counts();
    ring_loses_and_reorders_nothing();
    control_changes_everything_under_running_workers();
    return 0;
}
