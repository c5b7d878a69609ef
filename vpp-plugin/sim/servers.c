#include "servers.h"

#include <string.h>

#include "lbsim/sim.h"

/* The rates and the offer follow from the configuration in force. */
static void refresh(sim_server_t *server)
{
    server->core_share = 1 / server->cores;
    server->pace = 1 / (server->speed * server->factor);
    server->capacity =
        server->quota > 0 ? fmin(server->quota / server->period, server->cores) : server->cores;
    server->offer = server->up && server->present ? server->capacity : 0;
    sim_server_pace(server);
}

static uint32_t whole(double value)
{
    return (uint32_t)value;
}

bool sim_server_open(sim_server_t *server, const double *row, double phase)
{
    memset(server, 0, sizeof(*server));
    server->cores = row[SIM_SERVER_CORES];
    server->speed = row[SIM_SERVER_SPEED];
    server->factor = 1;
    server->limit = whole(row[SIM_SERVER_LIMIT]);
    server->backlog = whole(row[SIM_SERVER_BACKLOG]);
    server->thrash_from = row[SIM_SERVER_THRASH_FROM];
    server->thrash = row[SIM_SERVER_THRASH];
    server->latency = row[SIM_SERVER_LATENCY];
    server->quota = row[SIM_SERVER_QUOTA];
    server->period = row[SIM_SERVER_QUOTA_PERIOD];
    server->phase = (phase - 1) * server->period; /* the first period began before time 0 */
    server->periods = 1;
    server->period_end = server->phase + server->period;
    server->budget = server->quota;
    server->first = server->last = SIM_NOBODY;
    server->up = true;
    server->present = row[SIM_SERVER_PRESENT] != 0;
    refresh(server);
    return sim_heap_grow(&server->service);
}

void sim_server_close(sim_server_t *server)
{
    sim_heap_free(&server->service);
}

void sim_server_set_speed(sim_server_t *server, double now, double factor)
{
    sim_server_sync(server, now);
    server->factor = factor;
    refresh(server);
}

void sim_server_set_cores(sim_server_t *server, double now, double cores)
{
    sim_server_sync(server, now);
    server->cores = cores;
    refresh(server);
}

void sim_server_set_up(sim_server_t *server, double now, bool up)
{
    sim_server_sync(server, now);
    server->up = up;
    if (!up) {
        sim_heap_clear(&server->service);
        server->active = server->waiting = 0;
        server->first = server->last = SIM_NOBODY;
    }
    refresh(server);
}

void sim_server_set_present(sim_server_t *server, double now, bool present)
{
    sim_server_sync(server, now);
    server->present = present;
    refresh(server);
}

void sim_server_begin_account(sim_server_t *server, double now)
{
    sim_server_sync(server, now);
    server->busy = server->offered = 0;
}

void sim_server_rebase(sim_server_t *server)
{
    /* Subtraction of one number keeps the order of the keys, so the heap stays one. */
    for (uint32_t i = 0; i < server->service.count; i++) {
        server->service.entries[i].key -= server->clock;
    }
    server->clock = 0;
    server->starts = 0;
}

/* Moves on to the period that contains `now`, which is not before the end of the current one. Ends
 * are multiples of the period, so that they do not drift. */
static void begin_period(sim_server_t *server, double now)
{
    server->periods += (uint64_t)((now - server->period_end) / server->period) + 1;
    server->period_end = server->phase + (double)server->periods * server->period;
    if (server->period_end <= now) {
        server->periods++;
        server->period_end += server->period;
    }
    double start = server->period_end - server->period;
    server->stopped = false;
    server->budget = server->quota - server->use * (now > start ? now - start : 0);
}

void sim_server_spend(sim_server_t *server, double now)
{
    if (now >= server->period_end) {
        begin_period(server, now);
    } else {
        server->budget -= server->use * (now - server->now);
    }
    if (server->budget < 0) {
        server->budget = 0; /* rounding: an event would have come at 0 */
    }
}

double sim_server_quota_next(const sim_server_t *server)
{
    if (server->stopped) {
        return server->period_end;
    }
    if (server->use * (server->period_end - server->now) > server->budget) {
        return server->now + server->budget / server->use;
    }
    /* Enough for this period. If it may not be enough for the next one, look again then. */
    return server->use * server->period > server->quota ? server->period_end : INFINITY;
}

void sim_server_quota_event(sim_server_t *server, double now)
{
    /* Three kinds: a period begins for a stopped server or for a running one, or the budget ends. */
    bool begins = server->stopped || now >= server->period_end;
    sim_server_sync(server, now);
    if (!begins) {
        server->budget = 0;
        server->stopped = true;
    }
    sim_server_pace(server);
}
