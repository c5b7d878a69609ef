/*
 * A data plane is killed at random points while its workers forward, each in a thread of its own, and while backends,
 * slots and VIPs change under them. Whoever attaches to what it left may drop a flow, but never send it to another
 * backend than before. Every VIP is at level `full`.
 *
 * test_killed [KILLS [WORKERS [SEED]]]
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"
#include "killed.h"

enum {
    KILLS = 100,
    IMPORT_EVERY = 8, /* kills: what is left is imported into arenas of other sizes, too */
    PASSING = 3,      /* VIPs that come and go */
};
static const char *const PASSING_VIP = "203.0.113.77"; /* theirs */

static rig_t rig;

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
    CHECK_EQUAL(rig.report.status, LBRL_ARENA_ATTACHED);
}

/* ------------------------------------------------------------------------------- workers */

/* One worker with its share of the clients. */
static void *work(void *argument)
{
    rig_t here = rig;
    here.entry = *(const uint32_t *)argument;
    for (;;) {
        const uint64_t now_us = __atomic_load_n(&journal->now_us, __ATOMIC_RELAXED);
        here.now_us = now_us > here.now_us ? now_us : here.now_us;
        const uint32_t i = any(here.entry, CLIENTS);
        if (i / VIPS % here.config.workers == here.entry) {
            talk(&here, i);
        }
        if (any(here.entry, 8) == 0) {
            lbrl_worker_tick(lbrl_worker(here.lb, here.entry), here.now_us);
        }
        __atomic_fetch_add(&journal->steps, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* ------------------------------------------------------------------------------- what changes under them */

static uint32_t chance(uint32_t below)
{
    return any(WORKERS_MOST, below);
}

/* Backends of this round: some stay from the round before, addresses are never used for another one. */
static void change_backends(uint64_t id, const char *address, uint16_t port, uint8_t protocol,
                            uint8_t forwarding)
{
    lbrl_backend_config_t backends[8];
    uint32_t count = 1 + chance(8);
    lbrl_vip_config_t config = rig_vip(id, address, port, protocol, backends, count);
    journal->round++;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = journal->round + i; /* sliding window */
        backends[i].id = id * 1000000 + number;
        backends[i].address.bytes[13] = (uint8_t)id;
        backends[i].address.bytes[14] = (uint8_t)(number >> 8);
        backends[i].address.bytes[15] = (uint8_t)number;
        backends[i].state = chance(8) ? LBRL_BACKEND_ACTIVE : LBRL_BACKEND_FAILED;
    }
    config.forwarding = forwarding;
    config.scheduler = (uint8_t)chance(LBRL_SCHEDULER_COUNT);
    config.load = (uint8_t)chance(LBRL_LOAD_COUNT);
    config.feature_level = LBRL_LEVEL_FULL;
    config.drain_timeout = chance(2) ? 0 : 1000;
    (void)lbrl_vip_set(rig.lb, &config, rig.now_us);
}

static void change_one(uint32_t kind)
{
    change_backends(kind + 1, KILLED_VIPS[kind].address, KILLED_VIPS[kind].port,
                    KILLED_VIPS[kind].protocol, KILLED_VIPS[kind].forwarding);
}

static void bind_frames(rig_frames_t *frames)
{
    for (uint32_t kind = 0; kind < VIPS; kind++) {
        lbrl_vip_status_t status;
        CHECK_EQUAL(lbrl_vip_status(rig.lb, kind + 1, &status, NULL, 0), 0);
        if (!status.frames) {
            rig_bind_frames(&rig, &frames[kind], kind + 1); /* the process will not get old */
        }
    }
}

/* The whole life of a data plane that will be killed. */
static void live(void)
{
    static rig_frames_t frames[VIPS];
    static uint32_t numbers[WORKERS_MOST];
    open_rig();
    bind_frames(frames);
    for (uint32_t i = 0; i < rig.config.workers; i++) {
        pthread_t id;
        numbers[i] = i;
        CHECK_EQUAL(pthread_create(&id, NULL, work, &numbers[i]), 0);
    }
    for (;;) {
        switch (chance(8)) {
        case 0:
        case 1:
            change_one(chance(VIPS));
            break;
        case 2:
            change_backends(VIPS + 1 + chance(PASSING), PASSING_VIP, 80, 6, LBRL_FORWARD_NAT);
            break;
        case 3:
            (void)lbrl_vip_remove(rig.lb, VIPS + 1 + chance(PASSING), rig.now_us);
            break;
        default:
            rig.now_us += chance(4) ? 50000 : 3000000;
            __atomic_store_n(&journal->now_us, rig.now_us, __ATOMIC_RELAXED);
            lbrl_control_tick(rig.lb, rig.now_us);
            bind_frames(frames);
            lbrl_publish(rig.lb, rig.now_us);
        }
        sched_yield();
    }
}

/* ------------------------------------------------------------------------------- what is left */

/* The flows of the journal's connections that are still in the table. */
static void find_flows(rig_t *from, lbrl_flow_info_t *found)
{
    lbrl_flow_info_t flow;
    uint64_t cursor = 0;
    memset(found, 0, CLIENTS * sizeof(*found));
    while (lbrl_flow_next(from->lb, &cursor, from->now_us, &flow)) {
        for (uint32_t i = 0; i < CLIENTS; i++) {
            const connection_t *c = &journal->connections[i];
            if (journal->open[i] && c->client_port == flow.client_port &&
                flow.vip_id == kind_of(i) + 1 && is_address(&flow.client, journal->clients[i])) {
                found[i] = flow;
            }
        }
    }
}

/* Which connections go on, and which partitions have no room for more. */
typedef struct outcome {
    uint32_t count;
    bool goes_on[CLIENTS];
    uint8_t partition[CLIENTS]; /* of those found */
    bool closed[CLIENTS];
    bool full[2][LBRL_PARTITIONS]; /* of flows that are not closed; of any */
} outcome_t;

static void find_full(const rig_t *from, outcome_t *outcome)
{
    for (uint32_t i = 0; i < LBRL_PARTITIONS; i++) {
        const partition_t *partition = &from->lb->partitions[i];
        outcome->full[0][i] = partition->used - partition->closed.count == partition->flow_count;
        outcome->full[1][i] = partition->used == partition->flow_count;
    }
}

/* Whether the flow's next packet goes where it went: not to a failed backend, nor is UDP kept by a removed one. */
static bool stays(const rig_t *from, const lbrl_flow_info_t *flow)
{
    enum { MOST = 512 };
    lbrl_backend_status_t backends[MOST];
    lbrl_vip_status_t status;
    CHECK_EQUAL(lbrl_vip_status(from->lb, flow->vip_id, &status, backends, MOST), 0);
    uint32_t i = 0;
    while (i < status.backend_count && i < MOST && backends[i].slot != flow->slot) {
        i++;
    }
    CHECK(i < status.backend_count && i < MOST);
    return backends[i].state != LBRL_BACKEND_FAILED &&
           !(flow->protocol == 17 && backends[i].removed);
}

/* A flow goes on as the very same one: connection_client() and connection_server() check translated segments. */
static void go_on(rig_t *from, uint32_t i)
{
    connection_t copy = journal->connections[i];
    copy.rig = from;
    if (KILLED_VIPS[kind_of(i)].protocol == 17) {
        make_udp(&copy.packet, copy.client, copy.client_port, copy.vip, copy.vip_port, 20);
        CHECK_EQUAL(rig_send(from, &copy.packet), LBRL_VERDICT_FORWARD);
        CHECK_EQUAL(look(&copy.packet.p).sport, copy.nat_port);
    } else if (KILLED_VIPS[kind_of(i)].forwarding == LBRL_FORWARD_GRE) {
        CHECK_EQUAL(segment(from, &copy, ACK | PSH, 10), LBRL_VERDICT_FORWARD);
    } else {
        CHECK_EQUAL(connection_client(&copy, PSH, 10), LBRL_VERDICT_FORWARD);
        lbrl_address_t backend = destination(&copy.packet.p);
        CHECK(memcmp(&backend, &copy.backend, sizeof(backend)) == 0);
        CHECK_EQUAL(connection_server(&copy, PSH, 10), LBRL_VERDICT_FORWARD);
        return;
    }
    lbrl_address_t backend = destination(&copy.packet.p);
    CHECK(memcmp(&backend, &copy.backend, sizeof(backend)) == 0);
}

/* Counts are those of a recount, flows are where they were. */
static void verify(rig_t *from, outcome_t *outcome)
{
    static lbrl_flow_info_t found[CLIENTS];
    *outcome = (outcome_t){0};
    for (uint32_t id = 1; id <= VIPS + PASSING; id++) {
        rig_recount(from, id);
    }
    find_flows(from, found);
    find_full(from, outcome);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        if (!found[i].state) {
            continue;
        }
        CHECK(memcmp(&found[i].backend, &journal->connections[i].backend,
                     sizeof(found[i].backend)) == 0);
        outcome->partition[i] = found[i].partition;
        outcome->closed[i] = flow_is_closed(found[i].state);
        if (stays(from, &found[i])) {
            go_on(from, i);
            outcome->goes_on[i] = true;
            outcome->count++;
        }
    }
}

/* An arena of another size takes over what the one that was left holds. */
static void verify_import(uint32_t flows, outcome_t *outcome)
{
    lbrl_config_t config = rig.config;
    config.flows = flows;
    config.workers = 1 + flows % 3;
    config.now_us = journal->now_us;
    rig_t other = rig_configured(config);
    CHECK_EQUAL(lbrl_import(other.lb, rig.arena, rig.arena_size, config.now_us, &other.report), 0);
    verify(&other, outcome);
    rig_free(&other);
}

/* The import has every flow that the arena has, but for those that its partitions have no room for. */
static void compare(const outcome_t *imported, const outcome_t *here)
{
    for (uint32_t i = 0; i < CLIENTS; i++) {
        const bool full = imported->full[here->closed[i]][here->partition[i]];
        CHECK(imported->goes_on[i] == here->goes_on[i] || (here->goes_on[i] && full));
    }
}

static void verify_all(uint32_t kill_number, uint64_t *alive)
{
    static outcome_t imported, here;
    const bool imports = kill_number % IMPORT_EVERY == 0, larger = kill_number / IMPORT_EVERY % 2;
    if (imports) {
        verify_import(larger ? 8192 : 2048, &imported);
    }
    open_rig();
    verify(&rig, &here);
    if (imports) {
        compare(&imported, &here);
    }
    *alive += here.count;
    journal->now_us = rig.now_us;
    /* what is not there any more is not expected again */
    static lbrl_flow_info_t found[CLIENTS];
    find_flows(&rig, found);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        journal->open[i] = found[i].state && stays(&rig, &found[i]);
    }
    lbrl_close(rig.lb);
}

/* ------------------------------------------------------------------------------- life and death */

static void prepare(uint32_t workers)
{
    lbrl_config_t config = {
        .flows = 4096, .vips = 16, .slots = 1024, .workers = workers, .now_us = 1000000000};
    rig = rig_configured(config);
    rig_set_sources(&rig);
    journal->now_us = rig.now_us;
    for (uint32_t kind = 0; kind < VIPS; kind++) {
        change_one(kind);
    }
    lbrl_close(rig.lb);
    void *arena = shared(rig.arena_size);
    memcpy(arena, rig.arena, rig.arena_size);
    free(rig.arena);
    rig.arena = arena;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        const bool v6 = KILLED_VIPS[kind_of(i)].address[1] == ':';
        snprintf(journal->clients[i], sizeof(journal->clients[i]), v6 ? "64:%x" : "100.64.0.%u",
                 i + 1);
    }
}

/* Lets it do something, then kills it anywhere within the next two milliseconds. */
static void kill_one(uint64_t *random)
{
    const uint64_t before = __atomic_load_n(&journal->steps, __ATOMIC_RELAXED);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK_EQUAL(prctl(PR_SET_PDEATHSIG, SIGKILL), 0); /* where a check of the parent fails */
        live();
    }
    int status;
    while (__atomic_load_n(&journal->steps, __ATOMIC_RELAXED) == before) {
        CHECK_EQUAL(waitpid(child, &status, WNOHANG), 0); /* else it has ended by itself */
        usleep(100);
    }
    struct timespec pause = {.tv_nsec = (long)(random_next(random) % 2000000)};
    nanosleep(&pause, NULL);
    CHECK_EQUAL(kill(child, SIGKILL), 0);
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status)); /* it did not end by a failed check of its own */
}

int main(int argc, char **argv)
{
    const uint32_t kills = argc > 1 ? (uint32_t)atoi(argv[1]) : KILLS;
    const uint32_t workers = argc > 2 ? (uint32_t)atoi(argv[2]) : WORKERS_MOST;
    uint64_t random = 0x9e3779b97f4a7c15u + (argc > 3 ? (uint64_t)atoi(argv[3]) : 0);
    CHECK(workers >= 1 && workers <= WORKERS_MOST);
    journal = shared(sizeof(*journal));
    for (uint32_t i = 0; i <= WORKERS_MOST; i++) {
        journal->random[i] = random_next(&random);
    }
    journal->round = 1;
    prepare(workers);
    uint64_t alive = 0;
    for (uint32_t kill_number = 0; kill_number < kills; kill_number++) {
        kill_one(&random);
        verify_all(kill_number, &alive);
    }
    CHECK(alive > kills * 5); /* the test is about flows that go on */
    printf("%u kills of %u workers, %" PRIu64 " steps, %" PRIu64 " flows went on\n", kills, workers,
           journal->steps, alive);
    return 0;
}
