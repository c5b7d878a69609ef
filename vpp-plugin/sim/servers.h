/* Servers: egalitarian processor sharing under an optional CPU quota.
 *
 * Every request in service of a server has received the same service since it came, so one clock per
 * server suffices: it advances by the service that each request receives, and a request that comes
 * at clock C with work w ends when the clock shows C + w. Speed, cores and the number of requests
 * change the rate of the clock, never the order of the ends. The clock returns to 0 when the server
 * empties, and is rebased regularly, so that it stays of the magnitude of the works. */
#ifndef SIM_SERVERS_H
#define SIM_SERVERS_H

#include <math.h>

#include "heap.h"

#define SIM_NOBODY UINT32_MAX /* no connection */

/* Rebased after so many starts and at least one per request, which is constant work per start. */
#define SIM_REBASE_STARTS 1024u

typedef struct sim_server {
    /* Hot. */
    double now;         /* seconds; clock, busy, offered and budget are those of this time */
    double clock;       /* work seconds that a request has received since the last rebase */
    double rate;        /* of the clock, work seconds per second */
    double stretch;     /* 1 / rate; infinite where service stands still */
    double use;         /* CPU seconds per second */
    double busy;        /* CPU seconds */
    sim_heap_t service; /* key: clock at the request's end; reference: its connection */
    uint32_t starts;    /* since the last rebase */
    uint32_t active;    /* requests that hold one of `limit` places: in service or io */
    uint32_t limit, backlog;
    uint32_t waiting, first, last; /* connections that wait for a place, linked by their `next` */
    uint32_t assigned;             /* requests in progress, those on the network included */
    /* Configuration in force. */
    double cores, core_share; /* core_share = 1 / cores */
    double speed, factor;     /* work seconds per second and core; nominal, and what events set */
    double pace;              /* 1 / (speed x factor) */
    double capacity; /* cores that it can use in the long run: min(cores, quota / period) */
    double thrash, thrash_from;
    double latency;
    bool up, present;
    /* Quota: CPU seconds per period; 0: none. */
    bool stopped;   /* the period's CPU seconds are used */
    bool quota_due; /* the next event is one of the quota, not a completion */
    double quota, period, phase, budget, period_end;
    uint64_t periods; /* that have ended or run */
    /* Accounting. */
    double offer, offered;
} sim_server_t;

/* Takes a row of SIM_SERVER_FIELDS; `phase` in [0, 1) is that of its quota periods. False: no memory. */
bool sim_server_open(sim_server_t *server, const double *row, double phase);
void sim_server_close(sim_server_t *server);

/* Changes at time `now`; to be followed by sim_server_next(). */
void sim_server_set_speed(sim_server_t *server, double now, double factor);
void sim_server_set_cores(sim_server_t *server, double now, double cores);
void sim_server_set_up(sim_server_t *server, double now, bool up); /* false drops all requests */
void sim_server_set_present(sim_server_t *server, double now, bool present);
void sim_server_begin_account(sim_server_t *server, double now);

/* What sim_server_sync() does to the quota. */
void sim_server_spend(sim_server_t *server, double now);

/* Brings clock and accounts to `now`. */
static inline void sim_server_sync(sim_server_t *server, double now)
{
    double elapsed = now - server->now;
    server->clock += server->rate * elapsed;
    server->busy += server->use * elapsed;
    server->offered += server->offer * elapsed;
    if (server->quota > 0) {
        sim_server_spend(server, now);
    }
    server->now = now;
}

/* Recomputes the rates, after anything that they depend on has changed. */
static inline void sim_server_pace(sim_server_t *server)
{
    double n = server->service.count;
    if (server->service.count == 0 || server->stopped) {
        server->rate = server->use = 0;
        server->stretch = INFINITY;
        return;
    }
    double load = n * server->core_share;
    double loss = n > server->thrash_from ? 1 + server->thrash * (n - server->thrash_from) : 1;
    server->stretch = server->pace * loss * (load > 1 ? load : 1);
    server->rate = 1 / server->stretch;
    server->use = n < server->cores ? n : server->cores;
}

/* Time of the next quota event; infinite: none. */
double sim_server_quota_next(const sim_server_t *server);

/* Time of the server's next event, after sim_server_pace(). */
static inline double sim_server_next(sim_server_t *server)
{
    double next = INFINITY;
    if (server->rate > 0) {
        double left = server->service.entries[0].key - server->clock;
        next = left > 0 ? server->now + left * server->stretch : server->now;
    }
    server->quota_due = false;
    if (server->quota > 0) {
        double quota = sim_server_quota_next(server);
        server->quota_due = quota < next;
        next = server->quota_due ? quota : next;
    }
    return next;
}

/* A quota event: the period's CPU seconds are used, or a period begins. */
void sim_server_quota_event(sim_server_t *server, double now);

void sim_server_rebase(sim_server_t *server);

/* Takes a request into service. False: no memory. */
static inline bool sim_server_start(sim_server_t *server, double now, double work,
                                    uint32_t connection)
{
    sim_server_sync(server, now);
    server->starts++;
    if (server->service.count == 0) {
        server->clock = 0;
        server->starts = 0;
    } else if (server->starts >= SIM_REBASE_STARTS && server->starts >= server->service.count) {
        sim_server_rebase(server);
    }
    bool pushed = sim_heap_push(&server->service, server->clock + work, connection);
    sim_server_pace(server);
    return pushed;
}

/* Ends the request whose end is due; returns its connection. The clock is set to the exact value of
 * the end, so no error of rounding is carried on. */
static inline uint32_t sim_server_finish(sim_server_t *server, double now)
{
    sim_server_sync(server, now);
    sim_entry_t entry = sim_heap_pop(&server->service);
    server->clock = entry.key;
    sim_server_pace(server);
    return entry.reference;
}

#endif
