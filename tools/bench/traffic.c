/*
 * Load for benchmarks of a data path, steady enough to compare two of them on one processor.
 *
 *   traffic serve <address> <port> <ports>  servers: UDP echo and count on <port>, TCP on <ports> from there
 *   traffic udp <address> <port> <seconds>  datagrams of 18 bytes (64-byte frames), a bounded number in
 *                                           flight; prints packets received per second
 *   traffic ping <address> <port> <seconds> one datagram at a time; prints the median round trip in us
 *   traffic bulk <address> <port> <seconds> one TCP stream to the server; prints Gb/s
 *   traffic connect <address> <port> <seconds>  connect, ask 64 bytes, get 64, close; prints connections/s
 *
 * Closed loops throughout: a sender that never waited would be scheduled against the path it measures.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    DATAGRAM = 18, /* a 64-byte Ethernet frame with its checksum */
    BURST = 32,    /* datagrams per system call, and per acknowledgement */
    BURSTS_IN_FLIGHT = 4,
    LOST_MS = 20, /* an acknowledgement that takes longer never comes */
    EXCHANGE = 64,
    CHUNK = 1 << 17,
    SAMPLES = 1 << 20,
    EVENTS = 64,
};

/* First byte of a datagram: what the server does with it. */
enum { ECHO = 'e', COUNT = 'c' };

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct sockaddr_in ipv4(const char *address, const char *port)
{
    struct sockaddr_in out = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, address, &out.sin_addr) != 1) {
        die(address);
    }
    return out;
}

static int connected(int type, const struct sockaddr_in *to)
{
    int fd = socket(AF_INET, type, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)to, sizeof(*to)) != 0) {
        die("connect");
    }
    return fd;
}

static bool readable(int fd, int ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, ms) > 0;
}

/* ---- Server ---- */

/* Echoes; of counted datagrams every BURSTth is answered with their number. */
static void serve_datagrams(int fd)
{
    static char data[BURST][2048];
    static struct sockaddr_in from[BURST];
    static struct iovec parts[BURST];
    static struct mmsghdr messages[BURST];
    static uint64_t counted;
    for (int i = 0; i < BURST; i++) {
        parts[i] = (struct iovec){data[i], sizeof(data[i])};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &from[i],
                                              .msg_namelen = sizeof(from[i]),
                                              .msg_iov = &parts[i],
                                              .msg_iovlen = 1};
    }
    int got = recvmmsg(fd, messages, BURST, MSG_DONTWAIT, NULL);
    for (int i = 0; i < got; i++) {
        if (data[i][0] == ECHO) {
            sendto(fd, data[i], messages[i].msg_len, 0, (struct sockaddr *)&from[i],
                   sizeof(from[i]));
        } else if (++counted % BURST == 0) {
            sendto(fd, &counted, sizeof(counted), 0, (struct sockaddr *)&from[i], sizeof(from[i]));
        }
    }
}

/* A stream: the first byte says whether it is an exchange, which is answered, or bulk, which is counted. */
static void serve_stream(int fd)
{
    static char data[CHUNK];
    ssize_t got = recv(fd, data, sizeof(data), MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got <= 0) {
        close(fd);
    } else if (data[0] == ECHO) {
        send(fd, data, (size_t)got, MSG_NOSIGNAL);
    }
}

static int listening(int type, struct sockaddr_in at, int port)
{
    int on = 1;
    at.sin_port = htons((uint16_t)port);
    int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 ||
        (type == SOCK_STREAM && listen(fd, 4096) != 0)) {
        die("listen");
    }
    return fd;
}

static void watch(int epoll, int fd, bool listener)
{
    struct epoll_event event = {.events = EPOLLIN,
                                .data.u64 = (uint64_t)listener << 32 | (uint32_t)fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        die("epoll");
    }
}

static void accept_all(int epoll, int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        watch(epoll, fd, false);
    }
}

static void serve(const struct sockaddr_in *at, int ports)
{
    struct epoll_event events[EVENTS];
    int epoll = epoll_create1(0);
    int port = ntohs(at->sin_port);
    int datagrams = listening(SOCK_DGRAM, *at, port);
    watch(epoll, datagrams, false);
    for (int i = 0; i < ports; i++) {
        watch(epoll, listening(SOCK_STREAM, *at, port + i), true);
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = (int)(uint32_t)events[i].data.u64;
            if (events[i].data.u64 >> 32) {
                accept_all(epoll, fd);
            } else if (fd == datagrams) {
                serve_datagrams(fd);
            } else {
                serve_stream(fd);
            }
        }
    }
}

/* ---- Clients ---- */

static void blast(const struct sockaddr_in *to, double seconds)
{
    char data[DATAGRAM] = {COUNT};
    struct iovec part = {data, sizeof(data)};
    struct mmsghdr messages[BURST];
    uint64_t first = 0, last = 0;
    int fd = connected(SOCK_DGRAM, to);
    for (int i = 0; i < BURST; i++) {
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
    }
    double start = now_seconds();
    double end = start + seconds;
    int in_flight = 0;
    while (now_seconds() < end) {
        while (in_flight < BURSTS_IN_FLIGHT) {
            sendmmsg(fd, messages, BURST, 0);
            in_flight++;
        }
        if (!readable(fd, LOST_MS)) {
            in_flight = 0;
            continue;
        }
        uint64_t counted;
        while (recv(fd, &counted, sizeof(counted), MSG_DONTWAIT) == sizeof(counted)) {
            if (first == 0) {
                first = counted;
                start = now_seconds();
            }
            last = counted;
            in_flight -= in_flight > 0;
        }
    }
    printf("%.1f\n", (double)(last - first) / (now_seconds() - start));
}

static int ascending(const void *left, const void *right)
{
    float l = *(const float *)left;
    float r = *(const float *)right;
    return (l > r) - (l < r);
}

static void ping(const struct sockaddr_in *to, double seconds)
{
    static float samples[SAMPLES];
    char data[DATAGRAM] = {ECHO};
    int fd = connected(SOCK_DGRAM, to);
    size_t count = 0;
    double end = now_seconds() + seconds;
    while (count < SAMPLES) {
        double sent = now_seconds();
        if (sent >= end) {
            break;
        }
        send(fd, data, sizeof(data), 0);
        if (readable(fd, LOST_MS) && recv(fd, data, sizeof(data), 0) > 0) {
            samples[count++] = (float)(now_seconds() - sent);
        }
    }
    qsort(samples, count, sizeof(samples[0]), ascending);
    printf("%.3f\n", count == 0 ? 0.0 : (double)samples[count / 2] * 1e6);
}

static void bulk(const struct sockaddr_in *to, double seconds)
{
    static char data[CHUNK] = {COUNT};
    int fd = connected(SOCK_STREAM, to);
    memset(data, COUNT, sizeof(data));
    uint64_t bytes = 0;
    double start = now_seconds();
    double now;
    while ((now = now_seconds()) < start + seconds) {
        ssize_t sent = send(fd, data, sizeof(data), MSG_NOSIGNAL);
        if (sent < 0) {
            die("send");
        }
        bytes += (uint64_t)sent;
    }
    printf("%.3f\n", (double)bytes * 8 / (now - start) / 1e9);
}

static void connections(const struct sockaddr_in *to, double seconds)
{
    char data[EXCHANGE] = {ECHO};
    uint64_t count = 0;
    double start = now_seconds();
    double now;
    while ((now = now_seconds()) < start + seconds) {
        int fd = connected(SOCK_STREAM, to);
        if (send(fd, data, sizeof(data), MSG_NOSIGNAL) != sizeof(data) ||
            recv(fd, data, sizeof(data), MSG_WAITALL) != sizeof(data)) {
            die("exchange");
        }
        close(fd);
        count++;
    }
    printf("%.1f\n", (double)count / (now - start));
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fputs("usage: traffic serve ADDRESS PORT PORTS | udp|ping|bulk|connect ADDRESS PORT "
              "SECONDS\n",
              stderr);
        return 2;
    }
    struct sockaddr_in to = ipv4(argv[2], argv[3]);
    if (strcmp(argv[1], "serve") == 0) {
        serve(&to, atoi(argv[4]));
    }
    double seconds = atof(argv[4]);
    static const struct {
        const char *name;
        void (*run)(const struct sockaddr_in *to, double seconds);
    } clients[] = {{"udp", blast}, {"ping", ping}, {"bulk", bulk}, {"connect", connections}};
    for (size_t i = 0; i < sizeof(clients) / sizeof(clients[0]); i++) {
        if (strcmp(argv[1], clients[i].name) == 0) {
            clients[i].run(&to, seconds);
            return 0;
        }
    }
    fprintf(stderr, "traffic: no mode %s\n", argv[1]);
    return 2;
}
