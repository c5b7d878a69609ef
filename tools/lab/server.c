/*
 * An HTTP server whose requests cost exactly the processor time that their path names.
 *
 *   server ADDRESS PORT NUMBER THREADS LIMIT BACKLOG
 *
 * GET /WORK/IO/BYTES: the thread uses WORK ns of processor time, sleeps IO ns and sends a response of
 * BYTES bytes, headers included (more where the headers need more). The header `Server` has NUMBER.
 *
 * Each of THREADS threads accepts a connection and serves its requests, one after another, until the
 * client closes it. At most LIMIT requests are served at once (0: no limit); BACKLOG more wait, first in
 * first out; a further one ends its connection by a reset. Work includes what accepting, reading and
 * parsing cost the thread, so that a request costs no more than it is meant to, except for sending.
 *
 * Prints a line when it listens. Writes to standard error, and ends, where threads are not enough: more
 * connections were open than it was started for.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    STACK = 64 * 1024,
    HEAD = 16 * 1024,  /* bytes of a request */
    CHUNK = 16 * 1024, /* bytes sent in one call */
    LONGEST_SPIN =
        50000, /* ns between two looks at the thread's clock: a look costs a system call */
    CALIBRATION = 2000000,
};

/* A request that waits for its turn. */
typedef struct waiter {
    struct waiter *next;
    pthread_cond_t turn;
    bool called;
} waiter_t;

static struct {
    int listener;
    int number;
    uint32_t threads, limit, backlog;
    double spins_per_ns;
    pthread_mutex_t lock; /* of all below */
    uint32_t connections, serving, waiting;
    waiter_t *first, *last;
} server = {.lock = PTHREAD_MUTEX_INITIALIZER};

typedef struct request {
    uint64_t work, io, bytes;
} request_t;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- Work ---- */

static uint64_t thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void spin(uint64_t rounds)
{
    for (volatile uint64_t i = 0; i < rounds; i++) {
    }
}

static void calibrate(void)
{
    uint64_t begin = thread_ns();
    spin(CALIBRATION);
    server.spins_per_ns = CALIBRATION / (double)(thread_ns() - begin);
}

/* Uses processor time until the thread's clock shows `until`. */
static void work(uint64_t until)
{
    for (uint64_t now = thread_ns(); now < until; now = thread_ns()) {
        uint64_t left = until - now;
        spin((uint64_t)((double)(left < LONGEST_SPIN ? left : LONGEST_SPIN) * server.spins_per_ns));
    }
}

static void wait_io(uint64_t ns)
{
    struct timespec left = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

/* ---- Limit ---- */

/* Waits for a place; false: too many wait. */
static bool enter(void)
{
    waiter_t self = {.turn = PTHREAD_COND_INITIALIZER};
    bool taken = true;
    pthread_mutex_lock(&server.lock);
    if (server.limit == 0 || server.serving < server.limit) {
        server.serving++;
    } else if (server.waiting >= server.backlog) {
        taken = false;
    } else {
        server.waiting++;
        *(server.first ? &server.last->next : &server.first) = &self;
        server.last = &self;
        while (!self.called) {
            pthread_cond_wait(&self.turn, &server.lock);
        }
    }
    pthread_mutex_unlock(&server.lock);
    return taken;
}

/* Gives the place to the request that waits longest. */
static void leave(void)
{
    pthread_mutex_lock(&server.lock);
    waiter_t *next = server.first;
    if (next != NULL) {
        server.first = next->next;
        server.waiting--;
        next->called = true;
        pthread_cond_signal(&next->turn);
    } else {
        server.serving--;
    }
    pthread_mutex_unlock(&server.lock);
}

/* ---- Requests ---- */

/* Reads a request's head; its bytes, 0 at the end of the connection. */
static size_t read_head(int connection, char *head)
{
    size_t used = 0;
    while (used < HEAD - 1) {
        ssize_t got = recv(connection, head + used, HEAD - 1 - used, 0);
        if (got <= 0) {
            return 0;
        }
        used += (size_t)got;
        head[used] = '\0';
        if (used >= 4 && strcmp(head + used - 4, "\r\n\r\n") == 0) {
            return used;
        }
    }
    return 0;
}

static bool parse(const char *head, request_t *request)
{
    unsigned long long work_ns, io_ns, bytes;
    if (sscanf(head, "GET /%llu/%llu/%llu HTTP/1.1\r\n", &work_ns, &io_ns, &bytes) != 3) {
        return false;
    }
    *request = (request_t){work_ns, io_ns, bytes};
    return true;
}

static bool send_all(int connection, const char *data, size_t size, int flags)
{
    while (size > 0) {
        ssize_t sent = send(connection, data, size, flags | MSG_NOSIGNAL);
        if (sent <= 0) {
            return false;
        }
        data += sent;
        size -= (size_t)sent;
    }
    return true;
}

/* Digits of the length have a fixed width, so that the head's own length does not depend on it. */
static bool respond(int connection, uint64_t bytes)
{
    static const char filler[CHUNK];
    char head[128];
    int size = 0;
    uint64_t body = 0;
    for (int i = 0; i < 2; i++) {
        size = snprintf(head, sizeof(head),
                        "HTTP/1.1 200 OK\r\nServer: %d\r\nContent-Length: %010llu\r\n\r\n",
                        server.number, (unsigned long long)body);
        body = bytes > (uint64_t)size ? bytes - (uint64_t)size : 0;
    }
    bool good = send_all(connection, head, (size_t)size, body > 0 ? MSG_MORE : 0);
    while (good && body > 0) {
        size_t part = body < CHUNK ? (size_t)body : CHUNK;
        body -= part;
        good = send_all(connection, filler, part, body > 0 ? MSG_MORE : 0);
    }
    return good;
}

static void reset(int connection)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(connection, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

/* `begin` is the thread's clock when its last response was sent. */
static bool serve_request(int connection, const char *head, uint64_t begin)
{
    request_t request;
    if (!parse(head, &request)) {
        fprintf(stderr, "server %d: bad request: %.60s\n", server.number, head);
        exit(1);
    }
    if (!enter()) {
        reset(connection);
        return false;
    }
    work(begin + request.work);
    if (request.io > 0) {
        wait_io(request.io);
    }
    bool good = respond(connection, request.bytes);
    leave();
    return good;
}

static void serve_connection(int connection, char *head, uint64_t begin)
{
    int on = 1;
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    while (read_head(connection, head) > 0 && serve_request(connection, head, begin)) {
        begin = thread_ns();
    }
    close(connection);
}

static void count_connection(int change)
{
    pthread_mutex_lock(&server.lock);
    server.connections += (uint32_t)change;
    if (server.connections == server.threads) {
        fprintf(stderr, "server %d: all %u threads have a connection; start it with more\n",
                server.number, server.threads);
        exit(1);
    }
    pthread_mutex_unlock(&server.lock);
}

static void *serve(void *unused)
{
    char *head = malloc(HEAD);
    if (head == NULL) {
        die("malloc");
    }
    for (;;) {
        uint64_t begin = thread_ns();
        int connection = accept4(server.listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0) {
            if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }
            die("accept");
        }
        count_connection(1);
        serve_connection(connection, head, begin);
        count_connection(-1);
    }
    return unused;
}

/* ---- Start ---- */

static void start_threads(uint32_t count)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    for (uint32_t i = 0; i < count; i++) {
        pthread_t thread;
        errno = pthread_create(&thread, &attributes, serve, NULL);
        if (errno != 0) {
            die("pthread_create");
        }
    }
    pthread_attr_destroy(&attributes);
}

static void listen_on(const char *address, const char *port)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int on = 1;
    if (inet_pton(AF_INET, address, &here.sin_addr) != 1) {
        errno = EINVAL;
        die(address);
    }
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server.listener < 0 ||
        setsockopt(server.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(server.listener, (struct sockaddr *)&here, sizeof(here)) != 0 ||
        listen(server.listener, 4096) != 0) {
        die("listen");
    }
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: server ADDRESS PORT NUMBER THREADS LIMIT BACKLOG\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    server.number = atoi(argv[3]);
    server.threads = (uint32_t)strtoul(argv[4], NULL, 10);
    server.limit = (uint32_t)strtoul(argv[5], NULL, 10);
    server.backlog = (uint32_t)strtoul(argv[6], NULL, 10);
    calibrate();
    listen_on(argv[1], argv[2]);
    start_threads(server.threads);
    printf("ready\n");
    fflush(stdout);
    pause();
    return 0;
}
