/*
 * A data plane is killed at random points while it forwards and while backends, slots and VIPs change under it. Whoever
 * attaches to what it left may drop a flow, but never send it to another backend than before.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rig.h"

enum { CLIENTS = 96, KILLS = 200 /* by default; an argument says otherwise */ };

/* What the killed process last knew; in memory that survives it. */
typedef struct journal {
    uint64_t now_us;
    uint64_t steps;
    uint64_t random;
    uint32_t round; /* of backends: each has addresses of its own */
    connection_t connections[CLIENTS];
    char clients[CLIENTS][24];
    uint8_t open[CLIENTS]; /* 1: connections[i] is what the flow must be if it is still there */
} journal_t;

static journal_t *journal;
static rig_t rig;

static uint32_t any(uint32_t below)
{
    journal->random ^= journal->random >> 12;
    journal->random ^= journal->random << 25;
    journal->random ^= journal->random >> 27;
    return (uint32_t)((journal->random * 0x2545f4914f6cdd1du >> 32) * below >> 32);
}

static void *shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

static void open_rig(void)
{
    rig.now_us = journal->now_us;
    rig.config.now_us = journal->now_us;
    CHECK_EQUAL(lbrl_open(&rig.lb, &rig.config, rig.arena, rig.arena_size, &rig.report), 0);
}

/* Backends of this round: some stay from the round before, addresses are never used for another one. */
static void change_backends(uint64_t vip, const char *address)
{
    lbrl_backend_config_t backends[24];
    uint32_t count = 1 + any(24);
    lbrl_vip_config_t config = rig_vip(vip, address, 80, 6, backends, count);
    journal->round++;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = journal->round + i; /* sliding window */
        backends[i].id = vip * 1000000 + number;
        backends[i].address.bytes[13] = (uint8_t)vip;
        backends[i].address.bytes[14] = (uint8_t)(number >> 8);
        backends[i].address.bytes[15] = (uint8_t)number;
        backends[i].state = any(8) ? LBRL_BACKEND_ACTIVE : LBRL_BACKEND_FAILED;
    }
    config.drain_timeout = any(2) ? 0 : 1000;
    (void)lbrl_vip_set(rig.lb, &config, rig.now_us);
}

static void talk(uint32_t i)
{
    connection_t *c = &journal->connections[i];
    if (!journal->open[i]) {
        *c = connection_make(&rig, journal->clients[i], (uint16_t)(20000 + any(2000)),
                             "203.0.113.10");
        if (connection_syn(c) != LBRL_VERDICT_FORWARD) {
            return;
        }
        journal->open[i] = 1;
        connection_server(c, SYN, 0);
        connection_client(c, 0, 0);
    } else if (any(4) == 0) {
        journal->open[i] = 0; /* before the fact: what is said of it afterwards proves nothing */
        connection_client(c, FIN, 0);
        connection_server(c, FIN, 0);
    } else {
        connection_t copy =
            *c; /* sequence numbers in the journal move only when the packet is through */
        if (connection_client(&copy, PSH, 10) != LBRL_VERDICT_FORWARD) {
            journal->open[i] = 0;
            return;
        }
        connection_server(&copy, PSH, 10);
        c->client_next = copy.client_next;
        c->server_next = copy.server_next;
    }
}

static void live(void)
{
    open_rig();
    for (;;) {
        talk(any(CLIENTS));
        if (any(16) == 0) {
            change_backends(1, "203.0.113.10");
        }
        if (any(32) == 0) {
            change_backends(4 + any(3), "203.0.113.77");
        }
        if (any(32) == 0) {
            lbrl_vip_remove(rig.lb, 4 + any(3), rig.now_us);
        }
        if (any(8) == 0) {
            rig.now_us += any(4) ? 50000 : 3000000;
            lbrl_worker_tick(lbrl_worker(rig.lb, 0), rig.now_us);
            lbrl_control_tick(rig.lb, rig.now_us);
        }
        journal->now_us = rig.now_us;
        journal->steps++;
    }
}

/* Flows of a backend are what an attach has counted, entry by entry. */
static void recount(void)
{
    static const uint64_t vips[] = {1, 4, 5, 6};
    enum { MOST = 512 };
    static lbrl_backend_status_t backends[MOST];
    for (unsigned v = 0; v < sizeof(vips) / sizeof(vips[0]); v++) {
        lbrl_vip_status_t status;
        if (lbrl_vip_status(rig.lb, vips[v], &status, backends, MOST) != 0) {
            continue;
        }
        int64_t open[MOST] = {0}, entries[MOST] = {0};
        lbrl_flow_info_t flow;
        uint64_t cursor = 0;
        while (lbrl_flow_next(rig.lb, &cursor, rig.now_us, &flow)) {
            if (flow.vip_id == vips[v]) {
                entries[flow.slot]++;
                open[flow.slot] += flow.open;
            }
        }
        for (uint32_t i = 0; i < status.backend_count; i++) {
            CHECK_EQUAL(backends[i].entries, entries[backends[i].slot]);
            CHECK_EQUAL(backends[i].open_flows, open[backends[i].slot]);
        }
    }
}

/* connection_client() and connection_server() check that translated packets are of the very same flow. */
static uint32_t verify(void)
{
    uint32_t alive = 0;
    open_rig();
    recount();
    for (uint32_t i = 0; i < CLIENTS; i++) {
        connection_t copy = journal->connections[i];
        if (!journal->open[i]) {
            continue;
        }
        lbrl_verdict_t verdict = connection_client(&copy, PSH, 10);
        if (verdict == LBRL_VERDICT_FORWARD) {
            CHECK_EQUAL(connection_server(&copy, PSH, 10), LBRL_VERDICT_FORWARD);
            journal->connections[i] = copy;
            alive++;
        } else {
            journal->open[i] = 0;
        }
    }
    journal->now_us = rig.now_us;
    lbrl_close(rig.lb);
    return alive;
}

int main(int argc, char **argv)
{
    const uint32_t kills = argc > 1 ? (uint32_t)atoi(argv[1]) : KILLS;
    journal = shared(sizeof(*journal));
    journal->random = 0x9e3779b97f4a7c15u;
    journal->round = 1;
    rig = rig_make(1, 4);
    lbrl_close(rig.lb);
    void *arena = shared(rig.arena_size);
    memcpy(arena, rig.arena, rig.arena_size);
    free(rig.arena);
    rig.arena = arena;
    journal->now_us = rig.now_us;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        snprintf(journal->clients[i], sizeof(journal->clients[i]), "100.64.0.%u", i + 1);
    }
    uint64_t seed = 88172645463325252u;
    uint64_t alive = 0;
    for (uint32_t kill_number = 0; kill_number < kills; kill_number++) {
        uint64_t before = journal->steps;
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            live();
        }
        /* let it do something, then kill it anywhere within the next two milliseconds */
        for (unsigned waited = 0; __atomic_load_n(&journal->steps, __ATOMIC_RELAXED) == before;
             waited++) {
            CHECK(waited < 100000);
            usleep(100);
        }
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        struct timespec pause = {.tv_nsec = (long)(seed % 2000000)};
        nanosleep(&pause, NULL);
        CHECK_EQUAL(kill(child, SIGKILL), 0);
        int status;
        CHECK_EQUAL(waitpid(child, &status, 0), child);
        CHECK(WIFSIGNALED(status)); /* it did not end by a failed check of its own */
        alive += verify();
    }
    CHECK(alive > kills * 5); /* the test is about flows that go on */
    printf("%u kills, %" PRIu64 " steps, %" PRIu64 " flows went on\n", kills, journal->steps,
           alive);
    return 0;
}
