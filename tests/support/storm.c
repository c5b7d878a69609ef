/*
 * Connections and floods in numbers that no interpreter makes. IPv4.
 *
 *   storm serve <name> <port> <ports>              servers on <ports> from <port>: each byte is answered with <name>,
 *                                                  a character; after an 'l' the server closes the connection
 *   storm hold <address> <port> <count> <first>    opens so many from ports of its own, says {"held": n}; for each
 *                                                  line on standard input asks on all of them once more, and says who
 *                                                  did not answer as before
 *   storm new <address> <port> <count> <rate> <ms> so many one after the other, each closed by its server, at most
 *                                                  <rate> a second; says how they went. <ms>: see `prompt` below
 *   storm delay <device> <mac> <ms>                what is routed to this TUN device goes out by way of this neighbour,
 *                                                  so much later
 *   storm flood <address> <port> <mac> <seconds>   SYNs from 198.18.0.0/15 by way of this neighbour, so long or until
 *                                                  SIGTERM
 *
 * The flood has no pace: what limits it is the data plane. So many SYNs are on their way at a time as fit into its
 * queue, and the next is sent when one was answered by a server.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/tcp.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS = 256,
    IN_FLIGHT = 256, /* connections that are being made */
    BACKLOG = 4096,
    PATIENCE_MS = 20000, /* then a connection has failed */
    STALL_MS = 200,
    BATCH = 32, /* SYNs per system call */
    ON_THEIR_WAY = 16 /* batches: a quarter of the data plane's queue */,
    HELD = 4096,    /* packets that are delayed */
    LOST_MS = 1000, /* an answer that takes longer never comes */
};

enum { KEEP = 'k', LAST = 'l' };

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct sockaddr_in ipv4(const char *address, int port)
{
    struct sockaddr_in out = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, address, &out.sin_addr) != 1) {
        die(address);
    }
    return out;
}

static void watch(int epoll, int operation, int fd, uint32_t events, uint64_t what)
{
    struct epoll_event event = {.events = events, .data.u64 = what};
    if (epoll_ctl(epoll, operation, fd, &event) != 0) {
        die("epoll");
    }
}

/* ---- Servers ---- */

static int listening(int port)
{
    int on = 1;
    const struct sockaddr_in at = ipv4("0.0.0.0", port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, (const struct sockaddr *)&at, sizeof(at)) != 0 ||
        listen(fd, BACKLOG) != 0) {
        die("listen");
    }
    return fd;
}

static void answer(int fd, char name)
{
    char asked;
    ssize_t got = recv(fd, &asked, 1, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got != 1 || send(fd, &name, 1, MSG_NOSIGNAL) != 1 || asked == LAST) {
        close(fd);
    }
}

static _Noreturn void serve_one(char name, int listener)
{
    struct epoll_event events[EVENTS];
    int epoll = epoll_create1(0);
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, (uint32_t)listener);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = (int)events[i].data.u64;
            int accepted;
            if (fd != listener) {
                answer(fd, name);
                continue;
            }
            while ((accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                watch(epoll, EPOLL_CTL_ADD, accepted, EPOLLIN, (uint32_t)accepted);
            }
        }
    }
}

/* A process for each port: one may have only so many files. */
static _Noreturn void serve(char name, int port, int ports)
{
    for (int i = 0; i < ports; i++) {
        int listener = listening(port + i);
        pid_t child = fork();
        if (child < 0) {
            die("fork");
        }
        if (child == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            serve_one(name, listener);
        }
        close(listener);
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        (void)pause();
    }
}

/* ---- Clients ---- */

typedef struct connection {
    int fd;      /* -1: none */
    char server; /* that answered; 0: none has */
    bool asked;
    double began, connected; /* seconds */
} connection_t;

typedef struct crowd {
    struct sockaddr_in to;
    char what; /* is asked for */
    uint32_t count, begun, ended;
    int from; /* first of their ports, which the kernel is slow to find when most are taken; 0: it may */
    double rate;      /* new ones a second; 0: as they come */
    double prompt_ms; /* see below */
    int epoll;
    connection_t *connections;
    /* Of those that have ended. */
    uint32_t failed;  /* refused, reset, or silent */
    uint32_t again;   /* with something sent again */
    uint32_t slow;    /* whose handshake took longer than `prompt_ms` with nothing sent again */
    uint32_t good;    /* neither, and answered */
    uint32_t stalled; /* for more than STALL_MS */
    double longest_ms, handshake_ms;
} crowd_t;

static void begin(crowd_t *crowd)
{
    connection_t *c = &crowd->connections[crowd->begun];
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    c->began = now();
    const struct sockaddr_in from = ipv4("0.0.0.0", crowd->from + (int)crowd->begun);
    if (crowd->from > 0 && bind(c->fd, (const struct sockaddr *)&from, sizeof(from)) != 0) {
        die("bind");
    }
    if (c->fd < 0 || (connect(c->fd, (struct sockaddr *)&crowd->to, sizeof(crowd->to)) != 0 &&
                      errno != EINPROGRESS)) {
        die("connect");
    }
    watch(crowd->epoll, EPOLL_CTL_ADD, c->fd, EPOLLOUT, crowd->begun++);
}

static uint32_t sent_again(int fd)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof(info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
        die("TCP_INFO");
    }
    return info.tcpi_total_retrans;
}

static void end(crowd_t *crowd, connection_t *c, bool well)
{
    double took_ms = (now() - c->began) * 1e3;
    double handshake_ms = c->connected > 0 ? (c->connected - c->began) * 1e3 : took_ms;
    bool again = sent_again(c->fd) > 0;
    bool slow = !again && handshake_ms > crowd->prompt_ms;
    crowd->ended++;
    crowd->failed += !well;
    crowd->again += again;
    crowd->slow += slow;
    crowd->good += well && !again && !slow;
    crowd->stalled += took_ms > STALL_MS;
    crowd->longest_ms = took_ms > crowd->longest_ms ? took_ms : crowd->longest_ms;
    crowd->handshake_ms += handshake_ms;
    if (crowd->what == LAST || !well) {
        close(c->fd);
        c->fd = -1;
    }
}

/* Goes on with a connection of which epoll has said that something can be done. */
static void go_on(crowd_t *crowd, connection_t *c, uint64_t which)
{
    char got;
    if (!c->asked) {
        c->connected = now();
        c->asked = true;
        if (send(c->fd, &crowd->what, 1, MSG_NOSIGNAL) != 1) {
            end(crowd, c, false);
            return;
        }
        watch(crowd->epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, which);
        return;
    }
    ssize_t n = recv(c->fd, &got, 1, 0);
    if (n == 1 && c->server == 0) {
        c->server = got;
        if (crowd->what == KEEP) {
            watch(crowd->epoll, EPOLL_CTL_DEL, c->fd, 0, 0);
            end(crowd, c, true);
        }
    } else {
        end(crowd, c, n == 0 && c->server != 0); /* the server has closed it, as it should */
    }
}

/* The oldest of those under way; they begin in order. */
static void give_up_on_the_silent(crowd_t *crowd, uint32_t *oldest)
{
    while (*oldest < crowd->begun) {
        connection_t *c = &crowd->connections[*oldest];
        bool open = c->fd >= 0 && !(crowd->what == KEEP && c->server != 0);
        if (open && (now() - c->began) * 1e3 < PATIENCE_MS) {
            return;
        }
        if (open) {
            end(crowd, c, false);
        }
        ++*oldest;
    }
}

static void run(crowd_t *crowd)
{
    struct epoll_event events[EVENTS];
    uint32_t oldest = 0;
    double began = now();
    crowd->epoll = epoll_create1(0);
    crowd->connections = calloc(crowd->count, sizeof(*crowd->connections));
    if (crowd->connections == NULL) {
        die("memory");
    }
    while (crowd->ended < crowd->count) {
        while (crowd->begun < crowd->count && crowd->begun - crowd->ended < IN_FLIGHT &&
               (crowd->rate <= 0 || (now() - began) * crowd->rate >= crowd->begun)) {
            begin(crowd);
        }
        int ready = epoll_wait(crowd->epoll, events, EVENTS, 1);
        for (int i = 0; i < ready; i++) {
            uint64_t which = events[i].data.u64;
            go_on(crowd, &crowd->connections[which], which);
        }
        give_up_on_the_silent(crowd, &oldest);
    }
    close(crowd->epoll);
}

static int hold(crowd_t *crowd)
{
    char line[64];
    run(crowd);
    printf("{\"held\": %u, \"failed\": %u}\n", crowd->ended - crowd->failed, crowd->failed);
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        uint32_t moved = 0, lost = 0;
        for (uint32_t first = 0; first < crowd->count; first += IN_FLIGHT) {
            uint32_t past = first + IN_FLIGHT < crowd->count ? first + IN_FLIGHT : crowd->count;
            for (uint32_t i = first; i < past; i++) {
                (void)!send(crowd->connections[i].fd, "k", 1, MSG_NOSIGNAL);
            }
            for (uint32_t i = first; i < past; i++) {
                const connection_t *c = &crowd->connections[i];
                struct pollfd wait = {.fd = c->fd, .events = POLLIN};
                char got;
                if (poll(&wait, 1, PATIENCE_MS) <= 0 || recv(c->fd, &got, 1, 0) != 1) {
                    lost++;
                } else {
                    moved += got != c->server;
                }
            }
        }
        printf("{\"moved\": %u, \"lost\": %u}\n", moved, lost);
        fflush(stdout);
    }
    return 0;
}

static int report_new(crowd_t *crowd)
{
    double began = now();
    run(crowd);
    printf("{\"ended\": %u, \"failed\": %u, \"again\": %u, \"slow\": %u, \"good\": %u, "
           "\"stalled\": %u, \"longest_ms\": %.1f, \"handshake_ms\": %.1f, \"seconds\": %.3f}\n",
           crowd->ended, crowd->failed, crowd->again, crowd->slow, crowd->good, crowd->stalled,
           crowd->longest_ms, crowd->handshake_ms / crowd->ended, now() - began);
    return 0;
}

/* ---- Flood ---- */

typedef struct syn {
    struct iphdr ip;
    struct tcphdr tcp;
} syn_t;

static uint64_t random64(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t add_up(const void *bytes, size_t size, uint32_t sum)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < size; i += 2) {
        sum += (uint32_t)at[i] << 8 | at[i + 1];
    }
    return sum;
}

static uint16_t checksum(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~(sum + (sum >> 16)));
}

static void make_syn(syn_t *syn, const struct sockaddr_in *to, uint64_t *random)
{
    uint64_t drawn = random64(random);
    *syn = (syn_t){.ip = {.ihl = 5,
                          .version = 4,
                          .tot_len = htons(sizeof(*syn)),
                          .frag_off = htons(0x4000),
                          .ttl = 64,
                          .protocol = IPPROTO_TCP,
                          .saddr = htonl(0xc6120000u | (uint32_t)(drawn & 0x1ffff)),
                          .daddr = to->sin_addr.s_addr},
                   .tcp = {.source = htons((uint16_t)(1024 + (drawn >> 17) % 64512)),
                           .dest = to->sin_port,
                           .seq = (uint32_t)(drawn >> 32),
                           .doff = 5,
                           .syn = 1,
                           .window = htons(65535)}};
    syn->ip.check = checksum(add_up(&syn->ip, sizeof(syn->ip), 0));
    uint32_t pseudo = add_up(&syn->ip.saddr, 8, IPPROTO_TCP + sizeof(syn->tcp));
    syn->tcp.check = checksum(add_up(&syn->tcp, sizeof(syn->tcp), pseudo));
}

/* Counts SYN-ACKs to the flood's addresses that have come by now. */
static uint32_t answers(int fd, const struct sockaddr_in *from)
{
    static syn_t packets[BATCH];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    uint32_t count = 0;
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){&packets[i], sizeof(packets[i])};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    int got;
    while ((got = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL)) > 0) {
        for (int i = 0; i < got; i++) {
            count += packets[i].ip.saddr == from->sin_addr.s_addr &&
                     (ntohl(packets[i].ip.daddr) & 0xfffe0000u) == 0xc6120000u &&
                     packets[i].tcp.syn && packets[i].tcp.ack;
        }
    }
    return count;
}

static int packets_of(struct sockaddr_ll *neighbour, const char *mac)
{
    int on = 1;
    int space = 1 << 23;
    int fd = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_IP));
    unsigned byte[6];
    *neighbour = (struct sockaddr_ll){.sll_family = AF_PACKET,
                                      .sll_protocol = htons(ETH_P_IP),
                                      .sll_ifindex = (int)if_nametoindex("eth0"),
                                      .sll_halen = 6};
    if (sscanf(mac, "%x:%x:%x:%x:%x:%x", &byte[0], &byte[1], &byte[2], &byte[3], &byte[4],
               &byte[5]) != 6) {
        die(mac);
    }
    for (int i = 0; i < 6; i++) {
        neighbour->sll_addr[i] = (uint8_t)byte[i];
    }
    /* Past a delay that is put on everybody else. */
    if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &space, sizeof(space)) != 0 ||
        bind(fd, (const struct sockaddr *)neighbour, sizeof(*neighbour)) != 0) {
        die("AF_PACKET");
    }
    return fd;
}

/* ---- A longer way ---- */

typedef struct held {
    double due;
    size_t length;
    uint8_t bytes[2048];
} held_t;

static int tun_open(const char *device)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0) {
        die(device);
    }
    return fd;
}

/* Takes an IPv4 packet that has come; false when there is none. */
static bool hold_back(int tun, held_t *packet, double due)
{
    ssize_t got = read(tun, packet->bytes, sizeof(packet->bytes));
    if (got > 0 && packet->bytes[0] >> 4 != 4) {
        got = 0; /* what the kernel says on every new device */
    }
    packet->due = due;
    packet->length = got > 0 ? (size_t)got : 0;
    return got > 0;
}

static _Noreturn void delay(const char *device, const char *mac, double ms)
{
    static held_t held[HELD];
    struct sockaddr_ll neighbour;
    int out = packets_of(&neighbour, mac);
    int tun = tun_open(device);
    uint32_t first = 0, past = 0;
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd wait = {.fd = tun, .events = POLLIN};
        poll(&wait, 1, first == past ? -1 : 1);
        while (past - first < HELD && hold_back(tun, &held[past % HELD], now() + ms / 1e3)) {
            past++;
        }
        for (; first != past && held[first % HELD].due <= now(); first++) {
            const held_t *packet = &held[first % HELD];
            sendto(out, packet->bytes, packet->length, 0, (const struct sockaddr *)&neighbour,
                   sizeof(neighbour));
        }
    }
}

static volatile sig_atomic_t enough;

static void on_enough(int signal)
{
    enough = signal;
}

static int flood(const struct sockaddr_in *to, const char *mac, double seconds)
{
    static syn_t syns[BATCH];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    struct sockaddr_ll neighbour;
    int fd = packets_of(&neighbour, mac);
    uint64_t random = 1, sent = 0, answered = 0;
    int64_t under_way = 0;
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){&syns[i], sizeof(syns[i])};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &neighbour,
                                              .msg_namelen = sizeof(neighbour),
                                              .msg_iov = &parts[i],
                                              .msg_iovlen = 1};
    }
    double began = now();
    (void)signal(SIGTERM, on_enough);
    while (enough == 0 && now() - began < seconds) {
        while (under_way <= BATCH * (ON_THEIR_WAY - 1)) {
            for (int i = 0; i < BATCH; i++) {
                make_syn(&syns[i], to, &random);
            }
            int put = sendmmsg(fd, messages, BATCH, 0);
            sent += put > 0 ? (uint64_t)put : 0;
            under_way += BATCH;
        }
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        uint32_t more = poll(&wait, 1, LOST_MS) > 0 ? answers(fd, to) : (uint32_t)under_way;
        answered += wait.revents ? more : 0;
        under_way = under_way > more ? under_way - more : 0;
    }
    printf("{\"sent\": %lu, \"answered\": %lu, \"seconds\": %.3f}\n", (unsigned long)sent,
           (unsigned long)answered, now() - began);
    return 0;
}

int main(int argc, char **argv)
{
    struct rlimit files;
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    if (argc == 5 && strcmp(argv[1], "serve") == 0) {
        serve(argv[2][0], atoi(argv[3]), atoi(argv[4]));
    }
    if (argc == 5 && strcmp(argv[1], "delay") == 0) {
        delay(argv[2], argv[3], atof(argv[4]));
    }
    if (argc < 5) {
        fputs("usage: storm serve|hold|new|delay|flood ...\n", stderr);
        return 2;
    }
    crowd_t crowd = {.to = ipv4(argv[2], atoi(argv[3])),
                     .what = KEEP,
                     .count = (uint32_t)atoi(argv[4]),
                     .prompt_ms = PATIENCE_MS};
    if (argc == 6 && strcmp(argv[1], "hold") == 0) {
        crowd.from = atoi(argv[5]);
        return hold(&crowd);
    }
    if (argc == 7 && strcmp(argv[1], "new") == 0) {
        crowd.what = LAST;
        crowd.rate = atof(argv[5]);
        crowd.prompt_ms = atof(argv[6]);
        return report_new(&crowd);
    }
    if (argc == 6 && strcmp(argv[1], "flood") == 0) {
        return flood(&crowd.to, argv[4], atof(argv[5]));
    }
    fprintf(stderr, "storm: no %s\n", argv[1]);
    return 2;
}
