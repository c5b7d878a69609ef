/* Events of the scenario: what happens to servers, and what balancers are told of it. */
#include "engine.h"

#include "lbrl/lbrl.h"

static const double *next_row(const sim_engine_t *engine)
{
    const sim_table_t *events = &engine->environment.events;
    return engine->event < events->count ? events->rows + engine->event * SIM_EVENT_COLUMNS : NULL;
}

void sim_scenario_schedule(sim_engine_t *engine)
{
    const double *row = next_row(engine);
    double warmup = engine->warm ? INFINITY : engine->environment.warmup;
    double event = row ? row[SIM_EVENT_SECOND] : INFINITY;
    engine->scenario_next = event < warmup ? event : warmup;
}

static void end_warmup(sim_engine_t *engine)
{
    for (uint32_t i = 0; i < engine->server_count; i++) {
        sim_server_begin_account(&engine->servers[i], engine->now);
        sim_engine_reschedule(engine, i);
    }
    engine->warm = true;
}

/* Connections are found by a search through all of them: a stop is rare, a list per server would cost
 * every connection. */
static void stop_server(sim_engine_t *engine, uint32_t server)
{
    if (!engine->servers[server].up) {
        return;
    }
    for (uint32_t i = 0; i < engine->used; i++) {
        const sim_connection_t *connection = &engine->connections[i];
        /* A SYN on the network meets no process: it is refused when it arrives. */
        if (connection->server == server && connection->stage != SIM_FREE &&
            connection->stage != SIM_OPENING && connection->stage != SIM_DEAD) {
            sim_engine_reset(engine, i);
        }
    }
    sim_server_set_up(&engine->servers[server], engine->now, false);
}

static void start_server(sim_engine_t *engine, uint32_t server)
{
    if (!engine->servers[server].up) {
        sim_server_set_up(&engine->servers[server], engine->now, true);
    }
}

/* Returns whether balancers are to be configured anew. */
static bool apply(sim_engine_t *engine, sim_event_kind_t kind, uint32_t server, double value)
{
    switch (kind) {
    case SIM_EVENT_IS_SPEED:
        sim_server_set_speed(&engine->servers[server], engine->now, value);
        break;
    case SIM_EVENT_IS_CORES:
        sim_server_set_cores(&engine->servers[server], engine->now, value);
        break;
    case SIM_EVENT_IS_STOP:
        stop_server(engine, server);
        break;
    case SIM_EVENT_IS_START:
        start_server(engine, server);
        break;
    case SIM_EVENT_IS_STATE:
        engine->states[server] = (uint8_t)value;
        sim_server_set_present(&engine->servers[server], engine->now, value != 0);
        return true;
    case SIM_EVENT_IS_WEIGHT:
        engine->weights[server] = (float)value;
        return true;
    default:
        break;
    }
    return false;
}

void sim_scenario_configure(sim_engine_t *engine)
{
    for (uint32_t i = 0; i < engine->server_count; i++) {
        engine->eligible[i] = engine->states[i] == LBRL_BACKEND_ACTIVE && engine->weights[i] > 0;
    }
    if (engine->rule != SIM_RULE_CORE) {
        return;
    }
    for (uint32_t i = 0; i < engine->balancer_count; i++) {
        if (sim_balancer_set_servers(engine->balancers[i], engine->states, engine->weights,
                                     engine->now_us) < 0) {
            sim_engine_fail(engine, SIM_ERR_CORE, "the core refused the servers of an event");
        }
    }
}

void sim_scenario_event(sim_engine_t *engine)
{
    bool changed = false;
    engine->totals.others++;
    if (!engine->warm && engine->environment.warmup <= engine->now) {
        end_warmup(engine);
    }
    for (const double *row = next_row(engine); row != NULL && row[SIM_EVENT_SECOND] <= engine->now;
         row = next_row(engine)) {
        uint32_t server = (uint32_t)row[SIM_EVENT_SERVER];
        changed |=
            apply(engine, (sim_event_kind_t)row[SIM_EVENT_KIND], server, row[SIM_EVENT_VALUE]);
        sim_engine_reschedule(engine, server);
        engine->event++;
    }
    if (changed) {
        sim_scenario_configure(engine);
    }
    sim_scenario_schedule(engine);
}
