/*
 * An open-loop HTTP client: it sends the requests of a plan at their times, whatever becomes of those before.
 *
 *   client ADDRESS PORT UNTIL < PLAN > RECORDS
 *
 * PLAN has a line for each connection, in order of arrival; times are seconds, works too:
 *
 *   ARRIVAL MARK REQUEST_BYTES RESPONSE_BYTES IDLE COUNT  WORK IO PAUSE  WORK IO PAUSE ...
 *
 * A connection has COUNT requests, PAUSE seconds from a response to the next request, and is closed IDLE seconds after
 * its last response. MARK is the socket's mark, by which routes choose a balancer.
 *
 * RECORDS begin with `zero T`: the moment of time 0 on CLOCK_MONOTONIC, which is a little later. After the last
 * connection, or at UNTIL, follows a line for each request that was sent:
 *
 *   CONNECTION REQUEST INTENDED SENT DONE SEEN SERVER
 *
 * INTENDED is when the request was due, SENT just before its SYN or its first byte, DONE when the kernel received the
 * response's last byte, SEEN when this program read it: SENT - INTENDED and SEEN - DONE are its own lateness.
 * SERVER is what the response's header `Server` has; -1: failed, -2: without a response at UNTIL; then DONE is nan.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS = 64,
    HEAD = 256,       /* bytes in which a response's head must end */
    PATH = 128,       /* bytes of a request without its filler */
    FILLER_FRAME = 7, /* bytes around a request's filler: a header's name and the end of the head */
    BUFFER = 64 * 1024, /* bytes read in one call */
    TIMER = UINT32_MAX, /* the timer among the connections in epoll's data */
};

#define START_SECONDS 0.2 /* from the line `zero` to time 0 */

enum { FAILED = -1, UNFINISHED = -2 };

typedef enum stage { NEW, CONNECTING, WAITING, THINKING, IDLE, CLOSED } stage_t;

typedef struct request {
    double work, io, pause;            /* of the plan */
    double intended, sent, done, seen; /* measured */
    int server;
} request_t;

typedef struct connection {
    double arrival, idle;
    uint32_t mark, request_bytes, response_bytes;
    uint32_t first, count; /* in the array of requests */
    uint32_t current;      /* 0 .. count - 1 */
    int socket;
    stage_t stage;
    uint64_t received, expected; /* bytes of the response; expected 0: its head has not ended */
    char head[HEAD];
} connection_t;

typedef struct timer {
    double time;
    uint32_t connection;
} due_t;

static struct {
    struct sockaddr_in target;
    double zero, until;
    int epoll, clock;
    connection_t *connections;
    uint32_t count, open;
    request_t *requests;
    uint32_t request_count;
    due_t *timers; /* a heap, at most one entry for each connection */
    uint32_t timer_count;
} client;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *grown(void *array, size_t size, uint32_t count)
{
    if ((count & (count - 1)) != 0) { /* doubles when the count is a power of two */
        return array;
    }
    void *larger = realloc(array, size * (count ? 2 * (size_t)count : 1));
    if (larger == NULL) {
        die("realloc");
    }
    return larger;
}

/* ---- Time ---- */

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Seconds since time 0. */
static double now(void)
{
    return seconds_of(CLOCK_MONOTONIC) - client.zero;
}

static void arm(void)
{
    double first = client.timer_count > 0 ? client.timers[0].time : client.until;
    double at = client.zero + (first < client.until ? first : client.until);
    struct itimerspec when = {0};
    when.it_value.tv_sec = (time_t)at;
    when.it_value.tv_nsec = (long)((at - floor(at)) * 1e9);
    if (timerfd_settime(client.clock, TFD_TIMER_ABSTIME, &when, NULL) != 0) {
        die("timerfd_settime");
    }
}

static void swap(uint32_t a, uint32_t b)
{
    due_t kept = client.timers[a];
    client.timers[a] = client.timers[b];
    client.timers[b] = kept;
}

static void set_timer(double time, uint32_t connection)
{
    uint32_t i = client.timer_count++;
    client.timers[i] = (due_t){time, connection};
    while (i > 0 && client.timers[(i - 1) / 2].time > client.timers[i].time) {
        swap(i, (i - 1) / 2);
        i = (i - 1) / 2;
    }
}

static uint32_t take_timer(void)
{
    uint32_t connection = client.timers[0].connection;
    client.timers[0] = client.timers[--client.timer_count];
    for (uint32_t i = 0, child = 1; child < client.timer_count; child = 2 * i + 1) {
        if (child + 1 < client.timer_count &&
            client.timers[child + 1].time < client.timers[child].time) {
            child++;
        }
        if (client.timers[i].time <= client.timers[child].time) {
            break;
        }
        swap(i, child);
        i = child;
    }
    return connection;
}

/* ---- Connections ---- */

static request_t *request_of(const connection_t *connection)
{
    return &client.requests[connection->first + connection->current];
}

static void end(connection_t *connection)
{
    close(connection->socket);
    connection->stage = CLOSED;
    client.open--;
}

/* The request in progress fails, and its connection ends. */
static void fail(connection_t *connection)
{
    if (connection->stage == CONNECTING || connection->stage == WAITING) {
        request_of(connection)->server = FAILED;
    }
    end(connection);
}

static void open_connection(connection_t *connection)
{
    uint32_t index = (uint32_t)(connection - client.connections);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = index};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_MARK, &connection->mark, sizeof(connection->mark)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        epoll_ctl(client.epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        die("socket");
    }
    connection->socket = fd;
    connection->stage = CONNECTING;
    request_t *request = request_of(connection);
    request->intended = connection->arrival;
    request->sent = now();
    if (connect(fd, (struct sockaddr *)&client.target, sizeof(client.target)) != 0 &&
        errno != EINPROGRESS) {
        fail(connection);
    }
}

/* A request is far smaller than a socket's buffer. */
static void send_request(connection_t *connection)
{
    const request_t *request = request_of(connection);
    char text[PATH];
    int size = snprintf(text, PATH, "GET /%.0f/%.0f/%u HTTP/1.1\r\nHost: lab\r\n",
                        request->work * 1e9, request->io * 1e9, connection->response_bytes);
    uint32_t rest = (uint32_t)size + FILLER_FRAME;
    uint32_t padding = connection->request_bytes > rest ? connection->request_bytes - rest : 1;
    char *filler = malloc(padding);
    if (filler == NULL) {
        die("malloc");
    }
    memset(filler, '.', padding);
    struct iovec parts[] = {{text, (size_t)size}, {"X: ", 3}, {filler, padding}, {"\r\n\r\n", 4}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 4};
    ssize_t sent = sendmsg(connection->socket, &message, MSG_NOSIGNAL);
    free(filler);
    if (sent < 0) {
        fail(connection);
        return;
    }
    connection->stage = WAITING;
    connection->received = connection->expected = 0;
}

static void finish_request(connection_t *connection, double done)
{
    request_t *request = request_of(connection);
    uint32_t index = (uint32_t)(connection - client.connections);
    request->done = done;
    request->seen = now();
    if (connection->current + 1 < connection->count) {
        connection->current++;
        connection->stage = THINKING;
        request_of(connection)->intended = done + request->pause;
        set_timer(done + request->pause, index);
    } else if (connection->idle > 0) {
        connection->stage = IDLE;
        set_timer(done + connection->idle, index);
    } else {
        end(connection);
    }
}

/* ---- Responses ---- */

/* Looks for the end of the head, and for what it says. */
static void parse_head(connection_t *connection, size_t used)
{
    char text[HEAD + 1];
    memcpy(text, connection->head, used);
    text[used] = '\0';
    const char *last = strstr(text, "\r\n\r\n");
    const char *length = strstr(text, "Content-Length: ");
    const char *server = strstr(text, "Server: ");
    if (last == NULL) {
        return;
    }
    if (length == NULL || server == NULL || strncmp(text, "HTTP/1.1 200 ", 13) != 0) {
        fprintf(stderr, "client: bad response: %.60s\n", text);
        exit(1);
    }
    connection->expected =
        (uint64_t)(last + 4 - text) + strtoull(length + strlen("Content-Length: "), NULL, 10);
    request_of(connection)->server = atoi(server + strlen("Server: "));
}

static void take_bytes(connection_t *connection, const char *data, size_t size)
{
    if (connection->expected == 0) {
        size_t room = HEAD - (size_t)connection->received;
        size_t part = size < room ? size : room;
        memcpy(connection->head + connection->received, data, part);
        parse_head(connection, (size_t)connection->received + part);
    }
    connection->received += size;
}

/* When the kernel received the newest byte that was read; now where it did not say. */
static double stamp_of(struct msghdr *message)
{
    double real = seconds_of(CLOCK_REALTIME), here = now();
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(part), sizeof(t));
            double ago = real - ((double)t.tv_sec + (double)t.tv_nsec / 1e9);
            return ago > 0 ? here - ago : here;
        }
    }
    return here;
}

static void read_response(connection_t *connection)
{
    static char data[BUFFER];
    char control[CMSG_SPACE(sizeof(struct timespec))];
    while (connection->stage != CLOSED) {
        struct iovec part = {data, sizeof(data)};
        struct msghdr message = {.msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = control,
                                 .msg_controllen = sizeof(control)};
        ssize_t got = recvmsg(connection->socket, &message, 0);
        if (got < 0 && errno == EAGAIN) {
            return;
        }
        if (got <= 0 ||
            connection->stage != WAITING) { /* an end, a reset or what nobody asked for */
            fail(connection);
            return;
        }
        take_bytes(connection, data, (size_t)got);
        if (connection->expected > 0 && connection->received >= connection->expected) {
            finish_request(connection, stamp_of(&message));
        } else if (connection->expected == 0 && connection->received >= HEAD) {
            fail(connection);
        }
    }
}

/* ---- Events ---- */

static void on_event(connection_t *connection, uint32_t events)
{
    if (connection->stage == CLOSED) {
        return;
    }
    if (connection->stage == CONNECTING && (events & (EPOLLERR | EPOLLHUP))) {
        fail(connection);
        return;
    }
    if (connection->stage == CONNECTING && (events & EPOLLOUT)) {
        send_request(connection);
    }
    if (connection->stage != CLOSED && (events & (EPOLLIN | EPOLLERR | EPOLLHUP))) {
        read_response(connection);
    }
}

static void on_timer(connection_t *connection)
{
    switch (connection->stage) {
    case NEW:
        open_connection(connection);
        break;
    case THINKING:
        request_of(connection)->sent = now();
        send_request(connection);
        break;
    case IDLE:
        end(connection);
        break;
    default: /* it failed meanwhile */
        break;
    }
}

static void run_timers(void)
{
    uint64_t expirations;
    ssize_t got = read(client.clock, &expirations, sizeof(expirations));
    (void)got; /* nothing to read where another event came first */
    while (client.timer_count > 0 && client.timers[0].time <= now()) {
        on_timer(&client.connections[take_timer()]);
    }
    arm();
}

static void run(void)
{
    struct epoll_event events[EVENTS];
    arm();
    while (client.open > 0 && now() < client.until) {
        int count = epoll_wait(client.epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.u32 != TIMER) {
                on_event(&client.connections[events[i].data.u32], events[i].events);
            }
        }
        run_timers();
    }
}

/* ---- Plan and records ---- */

static void read_request(void)
{
    client.requests = grown(client.requests, sizeof(*client.requests), client.request_count);
    request_t *request = &client.requests[client.request_count++];
    *request = (request_t){.sent = NAN, .done = NAN, .seen = NAN, .server = UNFINISHED};
    if (scanf("%lf %lf %lf", &request->work, &request->io, &request->pause) != 3) {
        fprintf(stderr, "client: connection %u of the plan is not whole\n", client.count);
        exit(1);
    }
}

static bool read_connection(void)
{
    client.connections = grown(client.connections, sizeof(*client.connections), client.count);
    connection_t *connection = &client.connections[client.count];
    *connection = (connection_t){.first = client.request_count, .socket = -1};
    if (scanf("%lf %u %u %u %lf %u", &connection->arrival, &connection->mark,
              &connection->request_bytes, &connection->response_bytes, &connection->idle,
              &connection->count) != 6) {
        return false;
    }
    for (uint32_t i = 0; i < connection->count; i++) {
        read_request();
    }
    client.count++;
    return true;
}

static void read_plan(void)
{
    while (read_connection()) {
    }
    client.open = client.count;
    client.timers = calloc(client.count + 1, sizeof(*client.timers));
    if (client.timers == NULL) {
        die("calloc");
    }
    for (uint32_t i = 0; i < client.count; i++) {
        set_timer(client.connections[i].arrival, i);
    }
}

static void write_records(void)
{
    for (uint32_t i = 0; i < client.count; i++) {
        const connection_t *connection = &client.connections[i];
        for (uint32_t j = 0; j < connection->count; j++) {
            const request_t *r = &client.requests[connection->first + j];
            if (!isnan(r->sent)) {
                printf("%u %u %.9f %.9f %.9f %.9f %d\n", i, j, r->intended, r->sent, r->done,
                       r->seen, isnan(r->done) && r->server >= 0 ? UNFINISHED : r->server);
            }
        }
    }
}

static void prepare(const char *address, const char *port)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    client.target =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, address, &client.target.sin_addr) != 1) {
        errno = EINVAL;
        die(address);
    }
    client.epoll = epoll_create1(EPOLL_CLOEXEC);
    client.clock = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = TIMER};
    if (client.epoll < 0 || client.clock < 0 ||
        epoll_ctl(client.epoll, EPOLL_CTL_ADD, client.clock, &event) != 0) {
        die("epoll");
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: client ADDRESS PORT UNTIL < PLAN > RECORDS\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    client.until = atof(argv[3]);
    prepare(argv[1], argv[2]);
    read_plan();
    client.zero = seconds_of(CLOCK_MONOTONIC) + START_SECONDS;
    printf("zero %.9f\n", client.zero);
    fflush(stdout);
    run();
    write_records();
    return 0;
}
