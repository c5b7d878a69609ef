/*
 * Workers touch memory and nothing else. The linker puts hooks before whatever the core could call: allocation, locks,
 * output, clocks; and the kernel reports every system call (syscall user dispatch, Linux 5.11). While a worker is at
 * work none of them may be reached, whatever the packets are.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "objects.h"
#include "rig.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON           1
#endif

enum { CALL_ALLOWED = 0, CALL_REPORTED = 1, CAUGHT = 42 };

static volatile char calls = CALL_ALLOWED; /* the kernel reads it at each system call */
static uint64_t vectors;                   /* that were watched */

/* ------------------------------------------------------------------------------- hooks */

/* Ends the test: a worker has called something. */
static void reached(const char *what)
{
    if (calls == CALL_REPORTED) {
        calls = CALL_ALLOWED;
        (void)!write(STDERR_FILENO, what, strlen(what));
        (void)!write(STDERR_FILENO, ": called on the packet path\n", 28);
        _exit(CAUGHT);
    }
}

/* HOOK(result, name, parameters, arguments) for everything named in CMakeLists.txt. */
#define HOOK(result, name, parameters, arguments)                                                  \
    result __real_##name parameters;                                                               \
    result __wrap_##name parameters;                                                               \
    result __wrap_##name parameters                                                                \
    {                                                                                              \
        reached(#name);                                                                            \
        return __real_##name arguments;                                                            \
    }

HOOK(void *, malloc, (size_t size), (size))
HOOK(void *, calloc, (size_t count, size_t size), (count, size))
HOOK(void *, realloc, (void *memory, size_t size), (memory, size))
HOOK(void *, aligned_alloc, (size_t alignment, size_t size), (alignment, size))
HOOK(void, free, (void *memory), (memory))
HOOK(int, pthread_mutex_lock, (pthread_mutex_t * mutex), (mutex))
HOOK(int, pthread_mutex_trylock, (pthread_mutex_t * mutex), (mutex))
HOOK(int, pthread_rwlock_rdlock, (pthread_rwlock_t * lock), (lock))
HOOK(int, pthread_rwlock_wrlock, (pthread_rwlock_t * lock), (lock))
HOOK(int, pthread_spin_lock, (pthread_spinlock_t * lock), (lock))
HOOK(int, sem_wait, (sem_t * semaphore), (semaphore))
HOOK(ssize_t, write, (int file, const void *bytes, size_t size), (file, bytes, size))
HOOK(size_t, fwrite, (const void *bytes, size_t size, size_t n, FILE *file), (bytes, size, n, file))
HOOK(int, puts, (const char *text), (text))
HOOK(int, vfprintf, (FILE * file, const char *format, va_list arguments), (file, format, arguments))
HOOK(int, clock_gettime, (clockid_t clock, struct timespec *now), (clock, now))
HOOK(time_t, time, (time_t *now), (now))
HOOK(int, rand, (void), ())

/* ------------------------------------------------------------------------------- the packet path, watched */

#define WATCHED(result, name, parameters, arguments)                                               \
    result __real_##name parameters;                                                               \
    result __wrap_##name parameters;                                                               \
    result __wrap_##name parameters                                                                \
    {                                                                                              \
        vectors++;                                                                                 \
        calls = CALL_REPORTED;                                                                     \
        result found = __real_##name arguments;                                                    \
        calls = CALL_ALLOWED;                                                                      \
        return found;                                                                              \
    }

void __real_lbrl_process(lbrl_worker_t *worker, lbrl_packet_t *packets, uint32_t n,
                         uint64_t now_us);
void __wrap_lbrl_process(lbrl_worker_t *worker, lbrl_packet_t *packets, uint32_t n,
                         uint64_t now_us);
void __wrap_lbrl_process(lbrl_worker_t *worker, lbrl_packet_t *packets, uint32_t n, uint64_t now_us)
{
    vectors++;
    calls = CALL_REPORTED;
    __real_lbrl_process(worker, packets, n, now_us);
    calls = CALL_ALLOWED;
}

void __real_lbrl_worker_tick(lbrl_worker_t *worker, uint64_t now_us);
void __wrap_lbrl_worker_tick(lbrl_worker_t *worker, uint64_t now_us);
void __wrap_lbrl_worker_tick(lbrl_worker_t *worker, uint64_t now_us)
{
    calls = CALL_REPORTED;
    __real_lbrl_worker_tick(worker, now_us);
    calls = CALL_ALLOWED;
}

WATCHED(int, lbrl_handover, (lbrl_worker_t * from, const lbrl_packet_t *packet), (from, packet))
WATCHED(uint32_t, lbrl_handover_take, (lbrl_worker_t * to, lbrl_packet_t *packets, uint32_t max),
        (to, packets, max))
WATCHED(uint32_t, lbrl_segment,
        (const lbrl_packet_t *packet, uint32_t index, uint8_t *out, uint32_t room),
        (packet, index, out, room))
WATCHED(int, lbrl_decapsulate, (lbrl_packet_t * packet), (packet))

static void on_system_call(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    calls = CALL_ALLOWED;
    char text[] = "system call 000";
    for (int i = 0, number = info->si_syscall; i < 3; i++, number /= 10) {
        text[sizeof(text) - 2 - (size_t)i] = (char)('0' + number % 10);
    }
    calls = CALL_REPORTED;
    reached(text);
}

/* False where the kernel cannot tell. */
static bool watch_system_calls(void)
{
    struct sigaction action = {.sa_sigaction = on_system_call, .sa_flags = SA_SIGINFO};
    CHECK_EQUAL(sigaction(SIGSYS, &action, NULL), 0);
    return prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &calls) == 0;
}

/* ------------------------------------------------------------------------------- the hooks bite */

static void allocate(void)
{
    void *volatile memory = malloc(1); /* or the compiler would leave both out */
    free(memory);
}

static void lock(void)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
}

static void tell_the_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
}

static void call_the_kernel(void)
{
    (void)syscall(SYS_getppid);
}

/* Each is done by a child, as if by a worker. */
static void hooks_catch_what_they_are_for(bool kernel)
{
    void (*const deeds[])(void) = {allocate, lock, tell_the_time, call_the_kernel};
    const unsigned n = kernel ? 4 : 3;
    for (unsigned i = 0; i < n; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            CHECK(freopen("/dev/null", "w", stderr) != NULL);
            (void)watch_system_calls(); /* a child does not inherit it */
            calls = CALL_REPORTED;
            deeds[i]();
            calls = CALL_ALLOWED;
            _exit(0);
        }
        int status;
        CHECK_EQUAL(waitpid(child, &status, 0), child);
        CHECK(WIFEXITED(status));
        CHECK_EQUAL(WEXITSTATUS(status), CAUGHT);
    }
}

/* ------------------------------------------------------------------------------- traffic of every kind */

static const char *const CLIENT = "198.51.100.7";
static const char *const CLIENT6 = "5:7";
static const char *const VIP = "203.0.113.10";

/* Beside VIP: each way to forward, each scheduler, both families. */
static const struct {
    const char *address;
    uint16_t port;
    uint8_t protocol, forwarding, scheduler;
} KINDS[] = {
    {"203.0.113.10", 80, 6, LBRL_FORWARD_NAT, LBRL_SCHEDULER_SED},
    {"1:10", 80, 6, LBRL_FORWARD_NAT, LBRL_SCHEDULER_P2C},
    {"203.0.113.10", 53, 17, LBRL_FORWARD_NAT, LBRL_SCHEDULER_ALIAS},
    {"1:10", 53, 17, LBRL_FORWARD_NAT, LBRL_SCHEDULER_LSQ},
    {"203.0.113.11", 80, 6, LBRL_FORWARD_GRE, LBRL_SCHEDULER_MAGLEV},
    {"203.0.113.12", 80, 6, LBRL_FORWARD_L3DSR, LBRL_SCHEDULER_P2C},
    {"1:11", 80, 6, LBRL_FORWARD_GRE, LBRL_SCHEDULER_SED},
    {"1:12", 80, 6, LBRL_FORWARD_L3DSR, LBRL_SCHEDULER_ALIAS},
    {"203.0.113.11", 53, 17, LBRL_FORWARD_GRE, LBRL_SCHEDULER_LSQ},
    {"203.0.113.13", 80, 6, LBRL_FORWARD_NAT, LBRL_SCHEDULER_ALIAS},
    {"203.0.113.14", 80, 6, LBRL_FORWARD_NAT, LBRL_SCHEDULER_P2C},
    {"203.0.113.15", 80, 6, LBRL_FORWARD_NAT, LBRL_SCHEDULER_LSQ},
    {"203.0.113.16", 80, 6, LBRL_FORWARD_NAT, LBRL_SCHEDULER_MAGLEV},
};
enum { VIPS = sizeof(KINDS) / sizeof(KINDS[0]) };

static bool is_v6(const char *address)
{
    return address[1] == ':';
}

static void set_vip(rig_t *rig, uint32_t index)
{
    lbrl_backend_config_t backends[8];
    lbrl_vip_config_t vip = rig_vip(index + 1, KINDS[index].address, KINDS[index].port,
                                    KINDS[index].protocol, backends, 8);
    vip.forwarding = KINDS[index].forwarding;
    vip.dscp = vip.forwarding == LBRL_FORWARD_L3DSR ? 9 : 0;
    vip.scheduler = KINDS[index].scheduler;
    vip.load = index % 2 ? LBRL_LOAD_ACTIVE : LBRL_LOAD_OPEN;
    vip.feature_level = LBRL_LEVEL_FULL;
    CHECK_EQUAL(lbrl_vip_set(rig->lb, &vip, rig->now_us), 0);
}

static void connections(rig_t *rig, const char *client, const char *vip, uint16_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        connection_t c = connection_make(rig, client, (uint16_t)(first + i), vip);
        connection_open(&c);
        connection_client(&c, PSH, 100);
        connection_server(&c, PSH, 900);
        connection_client(&c, 0, 0);
        connection_client(&c, i % 3 ? FIN : RST, 0);
        connection_server(&c, FIN, 0);
        connection_client(&c, 0, 0);
    }
}

/* Whole vectors of one connection, in which each packet takes over what was found for the one before. */
static void bursts(rig_t *rig, const char *client, const char *vip)
{
    enum { BURST = 64 };
    static test_packet_t made[BURST];
    lbrl_packet_t packets[BURST];
    connection_t c = connection_make(rig, client, 19000, vip);
    connection_open(&c);
    for (uint32_t i = 0; i < BURST; i++) {
        tcp_fields_t tcp = {
            .sequence = c.client_next + i * 10, .ack = c.server_next, .flags = ACK | PSH};
        make_tcp(&made[i], client, 19000, vip, 80, &tcp, 10);
        packets[i] = made[i].p;
    }
    lbrl_process(lbrl_worker(rig->lb, 0), packets, BURST, rig->now_us);
    for (uint32_t i = 0; i < BURST; i++) {
        CHECK(packets[i].verdict == LBRL_VERDICT_FORWARD ||
              packets[i].verdict == LBRL_VERDICT_HANDOVER);
    }
}

static void make_super(test_packet_t *p, bool v6)
{
    p->p.gso_type = v6 ? LBRL_GSO_TCPV6 : LBRL_GSO_TCPV4;
    p->p.gso_size = 300;
    p->p.hdr_len = v6 ? 60 : 40;
    p->p.flags = LBRL_PACKET_NEEDS_CSUM;
    p->p.csum_start = v6 ? 40 : 20;
    p->p.csum_offset = 16;
}

/* What a data plane does with a packet in a tunnel, and then the other end of that. */
static void leave_tunnel(const lbrl_packet_t *packet)
{
    static uint8_t bytes[PACKET_ROOM];
    if (!packet->tunnel) {
        return;
    }
    uint32_t length;
    for (uint32_t i = 0; (length = lbrl_segment(packet, i, bytes, sizeof(bytes))) > 0; i++) {
        lbrl_packet_t segment = {.data = bytes, .length = length};
        CHECK_EQUAL(lbrl_decapsulate(&segment), 0);
    }
}

static void one_way(rig_t *rig, const char *vip)
{
    static test_packet_t p;
    const char *client = is_v6(vip) ? CLIENT6 : CLIENT;
    for (uint16_t i = 0; i < 200; i++) {
        tcp_fields_t syn = {.sequence = 1, .flags = SYN};
        make_tcp(&p, client, (uint16_t)(2000 + i), vip, 80, &syn, 0);
        (void)rig_send(rig, &p);
        tcp_fields_t data = {.sequence = 2, .ack = 3, .flags = ACK | PSH};
        make_tcp(&p, client, (uint16_t)(2000 + i * 2), vip, 80, &data, 100);
        (void)rig_send(rig, &p);
        make_tcp(&p, client, (uint16_t)(2000 + i), vip, 80, &data, 1000);
        make_super(&p, is_v6(vip));
        CHECK_EQUAL(rig_send(rig, &p), LBRL_VERDICT_FORWARD);
        leave_tunnel(&p.p);
    }
}

static void super_packets(rig_t *rig, const char *client, const char *vip)
{
    connection_t c = connection_make(rig, client, 18000, vip);
    connection_open(&c);
    tcp_fields_t data = {.sequence = c.client_next, .ack = c.server_next, .flags = ACK | PSH};
    static test_packet_t p;
    make_tcp(&p, client, 18000, vip, 80, &data, 1000);
    make_super(&p, is_v6(vip));
    CHECK_EQUAL(rig_send(rig, &p), LBRL_VERDICT_FORWARD);
}

static void datagrams_and_fragments(rig_t *rig, const char *vip)
{
    static test_packet_t whole, piece;
    const char *client = is_v6(vip) ? CLIENT6 : CLIENT;
    for (uint16_t i = 0; i < 64; i++) {
        for (size_t offset = 0; offset < 1200; offset += 600) {
            make_udp(&whole, client, (uint16_t)(5000 + i), vip, 53, 1200);
            make_fragment(&piece, &whole.p, i, offset, 600, offset == 0);
            CHECK_EQUAL(rig_send(rig, &piece), LBRL_VERDICT_FORWARD);
        }
        make_udp(&whole, client, (uint16_t)(6000 + i), vip, 53, 100);
        CHECK_EQUAL(rig_send(rig, &whole), LBRL_VERDICT_FORWARD);
    }
}

/* Errors about what backends sent, from behind the load balancer and before it, and about what it sent them. */
static void icmp_errors(rig_t *rig)
{
    static test_packet_t p, about;
    for (uint32_t v = 0; v < VIPS; v++) {
        const bool v6 = is_v6(KINDS[v].address);
        const char *client = v6 ? CLIENT6 : CLIENT, *router = v6 ? "9:9" : "10.9.9.9";
        const uint8_t type = v6 ? 2 : 3, code = v6 ? 0 : 4;
        tcp_fields_t tcp = {.sequence = 5, .ack = 2, .flags = ACK};
        if (KINDS[v].protocol == 17) {
            make_udp(&about, KINDS[v].address, 53, client, 6000, 900);
        } else {
            make_tcp(&about, KINDS[v].address, 80, client, 2000, &tcp, 900);
        }
        make_icmp_error(&p, router, KINDS[v].address, type, code, 1300, &about.p, 100);
        (void)rig_send(rig, &p);
        if (KINDS[v].protocol == 6 && KINDS[v].forwarding == LBRL_FORWARD_NAT) {
            connection_t c = connection_make(rig, client, 17000, KINDS[v].address);
            connection_open(&c);
            connection_client(&c, PSH, 400);
            make_icmp_error(&p, router, text_of(&c.source), type, code, 1300, &c.packet.p, 100);
            CHECK_EQUAL(rig_send(rig, &p), LBRL_VERDICT_FORWARD);
        }
    }
}

/* What is answered, passed on or dropped. */
static void oddities(rig_t *rig)
{
    static test_packet_t p, about;
    tcp_fields_t syn = {.sequence = 1, .flags = SYN}, stray = {.sequence = 1, .flags = ACK};
    make_echo(&p, CLIENT, VIP, 56);
    (void)rig_send(rig, &p);
    make_tcp(&p, CLIENT, 1, VIP, 81, &syn, 0); /* no such port */
    (void)rig_send(rig, &p);
    make_udp(&p, CLIENT, 1, VIP, 81, 10);
    (void)rig_send(rig, &p);
    make_tcp(&p, CLIENT, 1, "198.51.100.99", 80, &syn, 0); /* not ours */
    (void)rig_send(rig, &p);
    make_tcp(&p, CLIENT, 1, VIP, 80, &stray, 0); /* no flow */
    (void)rig_send(rig, &p);
    connection_t c = connection_make(rig, CLIENT, 61000, VIP);
    connection_open(&c);
    about = c.packet;
    about.p.data = about.room + (c.packet.p.data - c.packet.room);
    make_icmp_error(&p, "10.9.9.9", text_of(&c.source), 3, 4, 1400, &about.p, 60);
    (void)rig_send(rig, &p);
    static const uint8_t nonsense[40] = {0x45, 0, 0, 40};
    make_raw(&p, nonsense, sizeof(nonsense));
    (void)rig_send(rig, &p);
}

static void flood(rig_t *rig)
{
    for (uint32_t i = 0; i < 9000; i++) {
        char client[24];
        snprintf(client, sizeof(client), "100.64.%u.%u", i / 250, i % 250 + 1);
        connection_t c = connection_make(rig, client, (uint16_t)(1024 + i), VIP);
        connection_syn(&c);
    }
}

static void fail_backends(rig_t *rig)
{
    connection_t c = connection_make(rig, CLIENT, 62000, VIP);
    connection_open(&c);
    lbrl_backend_config_t backends[8];
    lbrl_vip_config_t vip = rig_vip(1, VIP, 80, 6, backends, 8);
    vip.feature_level = LBRL_LEVEL_FULL;
    for (unsigned i = 0; i < 8; i++) {
        backends[i].state = LBRL_BACKEND_FAILED;
    }
    CHECK_EQUAL(lbrl_vip_set(rig->lb, &vip, rig->now_us), 0);
    connection_client(&c, PSH, 10); /* answered with RST */
}

static void talk_to_all(rig_t *rig)
{
    for (uint32_t v = 0; v < VIPS; v++) {
        const char *client = is_v6(KINDS[v].address) ? CLIENT6 : CLIENT;
        if (KINDS[v].protocol == 17) {
            datagrams_and_fragments(rig, KINDS[v].address);
        } else if (KINDS[v].forwarding == LBRL_FORWARD_NAT) {
            connections(rig, client, KINDS[v].address, 20000, 100);
            bursts(rig, client, KINDS[v].address);
            super_packets(rig, client, KINDS[v].address);
        } else {
            one_way(rig, KINDS[v].address);
        }
        rig_pass(rig, 100);
    }
}

static void workers_call_nothing(uint32_t workers)
{
    rig_t rig = rig_sized(16384, workers);
    rig_frames_t frames[VIPS];
    rig_set_sources(&rig);
    for (uint32_t v = 0; v < VIPS; v++) {
        set_vip(&rig, v);
        rig_bind_frames(&rig, &frames[v], v + 1);
    }
    talk_to_all(&rig);
    icmp_errors(&rig);
    oddities(&rig);
    flood(&rig);
    fail_backends(&rig);
    rig_pass(&rig, 1000000); /* everything ages out */
    lbrl_stats_t stats;
    lbrl_stats(rig.lb, &stats);
    CHECK_EQUAL(stats.flows, 0);
    CHECK(stats.replied > 3 && stats.passed > 0 && stats.flows_recycled > 100);
    CHECK(workers == 1 || stats.handed_over > 1000);
    rig_free(&rig);
    for (uint32_t v = 0; v < VIPS; v++) {
        free(frames[v].memory);
    }
}

int main(void)
{
    const bool kernel = watch_system_calls();
    hooks_catch_what_they_are_for(kernel);
    workers_call_nothing(1);
    workers_call_nothing(4);
    CHECK(vectors > 10000);
    printf("%" PRIu64 " vectors, system calls %s\n", vectors,
           kernel ? "watched" : "NOT watched: this kernel cannot");
    return 0;
}
