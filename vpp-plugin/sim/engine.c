#include "engine.h"

#include <math.h>
#include <stdlib.h>

#include "oracle.h"

#define FIRST_CONNECTIONS 256u
#define FIRST_RECORDS     1024u

void sim_engine_fail(sim_engine_t *engine, int error, const char *cause)
{
    if (engine->error == SIM_OK) {
        engine->error = error;
        engine->cause = cause;
    }
}

static sim_balancer_t *balancer_of(const sim_engine_t *engine, const sim_connection_t *connection)
{
    return engine->balancers[connection->balancer];
}

/* ---- Connections ---- */

static bool grow_connections(sim_engine_t *engine)
{
    if (engine->capacity >= SIM_CONNECTIONS_MAX) {
        sim_engine_fail(engine, SIM_ERR_LIMIT,
                        "more than 1048576 connections are open; lower the load or set a limit");
        return false;
    }
    uint32_t capacity = engine->capacity ? engine->capacity * 2 : FIRST_CONNECTIONS;
    sim_connection_t *connections =
        realloc(engine->connections, capacity * sizeof(*engine->connections));
    if (connections == NULL) {
        sim_engine_fail(engine, SIM_ERR_MEMORY, "no memory for connections");
        return false;
    }
    engine->connections = connections;
    engine->capacity = capacity;
    return true;
}

/* Returns SIM_NOBODY after an error. */
static uint32_t take_connection(sim_engine_t *engine)
{
    uint32_t index = engine->first_free;
    if (index != SIM_NOBODY) {
        engine->first_free = engine->connections[index].next;
        return index;
    }
    if (engine->used == engine->capacity && !grow_connections(engine)) {
        return SIM_NOBODY;
    }
    return engine->used++;
}

static void release(sim_engine_t *engine, uint32_t index)
{
    engine->connections[index].stage = SIM_FREE;
    engine->connections[index].next = engine->first_free;
    engine->first_free = index;
}

static void delay(sim_engine_t *engine, uint32_t index, sim_stage_t stage, double seconds)
{
    engine->connections[index].stage = (uint8_t)stage;
    if (!sim_heap_push(&engine->delays, engine->now + seconds, index)) {
        sim_engine_fail(engine, SIM_ERR_MEMORY, "no memory for delays");
    }
}

/* ---- Results ---- */

static bool grow_records(sim_engine_t *engine)
{
    if (engine->record_capacity >= SIM_RECORDS_MAX) {
        sim_engine_fail(engine, SIM_ERR_LIMIT,
                        "more than 33554432 requests are recorded; simulate without records");
        return false;
    }
    uint64_t capacity = engine->record_capacity ? engine->record_capacity * 2 : FIRST_RECORDS;
    sim_record_t *records = realloc(engine->records, capacity * sizeof(*records));
    if (records == NULL) {
        sim_engine_fail(engine, SIM_ERR_MEMORY, "no memory for records");
        return false;
    }
    engine->records = records;
    engine->record_capacity = capacity;
    return true;
}

static void record(sim_engine_t *engine, const sim_connection_t *connection, double duration,
                   double pause, int16_t server)
{
    if (!engine->record ||
        (engine->record_count == engine->record_capacity && !grow_records(engine))) {
        return;
    }
    engine->records[engine->record_count++] = (sim_record_t){
        .arrival = connection->started,
        .duration = duration,
        .pause = pause,
        .work = (float)connection->work,
        .io = connection->io,
        .connection = connection->number,
        .server = server,
        .balancer = connection->balancer,
        .class_number = connection->class_number,
    };
}

static size_t cell(const sim_engine_t *engine, const sim_connection_t *connection)
{
    return (size_t)connection->balancer * engine->stride + connection->server;
}

/* ---- The life of a request ---- */

void sim_engine_reschedule(sim_engine_t *engine, uint32_t server)
{
    sim_tree_set(&engine->completions, server, sim_server_next(&engine->servers[server]));
}

static bool in_progress(const sim_connection_t *connection)
{
    return connection->stage < SIM_THINKING;
}

static void fail_request(sim_engine_t *engine, const sim_connection_t *connection)
{
    engine->servers[connection->server].assigned--;
    engine->failed[cell(engine, connection)]++;
    record(engine, connection, NAN, 0, (int16_t)connection->server);
}

/* The server resets the connection; a request in progress fails. */
void sim_engine_reset(sim_engine_t *engine, uint32_t index)
{
    sim_connection_t *connection = &engine->connections[index];
    if (in_progress(connection)) {
        fail_request(engine, connection);
    }
    if (engine->rule == SIM_RULE_CORE) {
        sim_balancer_reset(balancer_of(engine, connection), &connection->flow, engine->now_us);
    }
    if (connection->stage == SIM_WAITING || connection->stage == SIM_SERVICE) {
        release(engine, index);
    } else {
        connection->stage = SIM_DEAD;
    }
}

/* The balancer forwards no packet of the flow any more: its client gets a RST, the request fails. */
static void lose(sim_engine_t *engine, uint32_t index)
{
    fail_request(engine, &engine->connections[index]);
    release(engine, index);
}

/* As sim_engine_reset(), for a connection without an entry in `delays`. */
static void refuse(sim_engine_t *engine, uint32_t index)
{
    engine->connections[index].stage = SIM_WAITING;
    sim_engine_reset(engine, index);
}

static void begin_service(sim_engine_t *engine, uint32_t index)
{
    sim_connection_t *connection = &engine->connections[index];
    sim_server_t *server = &engine->servers[connection->server];
    server->active++;
    connection->stage = SIM_SERVICE;
    if (!sim_server_start(server, engine->now, connection->work, index)) {
        sim_engine_fail(engine, SIM_ERR_MEMORY, "no memory for requests");
    }
    sim_engine_reschedule(engine, connection->server);
}

static void enqueue(sim_engine_t *engine, sim_server_t *server, uint32_t index)
{
    engine->connections[index].stage = SIM_WAITING;
    engine->connections[index].next = SIM_NOBODY;
    if (server->waiting++ == 0) {
        server->first = index;
    } else {
        engine->connections[server->last].next = index;
    }
    server->last = index;
}

static uint32_t dequeue(sim_engine_t *engine, sim_server_t *server)
{
    uint32_t index = server->first;
    server->first = engine->connections[index].next;
    server->waiting--;
    return index;
}

static void reach_server(sim_engine_t *engine, uint32_t index)
{
    sim_server_t *server = &engine->servers[engine->connections[index].server];
    if (server->up && (server->limit == 0 || server->active < server->limit)) {
        begin_service(engine, index);
    } else if (server->up && server->waiting < server->backlog) {
        enqueue(engine, server, index);
    } else {
        refuse(engine, index);
    }
}

static void send_request(sim_engine_t *engine, uint32_t index)
{
    sim_connection_t *connection = &engine->connections[index];
    double latency = engine->servers[connection->server].latency;
    uint32_t bytes = engine->classes[connection->class_number].request_bytes;
    if (engine->rule == SIM_RULE_CORE &&
        !sim_balancer_request(balancer_of(engine, connection), &connection->flow, engine->now_us,
                              bytes)) {
        lose(engine, index);
    } else if (latency > 0) {
        delay(engine, index, SIM_SENDING, latency);
    } else {
        reach_server(engine, index);
    }
}

/* The SYN-ACK, or the RST of a server without a process, passes the balancer. */
static void opened(sim_engine_t *engine, uint32_t index)
{
    sim_connection_t *connection = &engine->connections[index];
    if (!engine->servers[connection->server].up) {
        refuse(engine, index);
        return;
    }
    if (engine->rule == SIM_RULE_CORE &&
        !sim_balancer_establish(balancer_of(engine, connection), &connection->flow,
                                engine->now_us)) {
        lose(engine, index);
        return;
    }
    send_request(engine, index);
}

static void next_request(sim_engine_t *engine, uint32_t index)
{
    sim_connection_t *connection = &engine->connections[index];
    connection->started = engine->now;
    connection->work =
        sim_class_work(&engine->classes[connection->class_number], &connection->stream);
    connection->io = 0;
    engine->servers[connection->server].assigned++;
    send_request(engine, index);
}

static void close_connection(sim_engine_t *engine, uint32_t index)
{
    sim_connection_t *connection = &engine->connections[index];
    if (engine->rule == SIM_RULE_CORE) {
        sim_balancer_close(balancer_of(engine, connection), &connection->flow, engine->now_us);
    }
    release(engine, index);
}

/* Seconds until the next request of the connection, or until it is closed after the last one. */
static double draw_pause(const sim_class_t *class, sim_connection_t *connection)
{
    if (connection->requests_left > 0) {
        return class->think_mean > 0
                   ? class->think_mean * sim_exponential(sim_split_next(&connection->stream))
                   : 0;
    }
    if (class->idle_share > 0 &&
        sim_unit(sim_split_next(&connection->stream)) <= class->idle_share) {
        return class->idle_mean * sim_exponential(sim_split_next(&connection->stream));
    }
    return 0;
}

static void complete_request(sim_engine_t *engine, const sim_connection_t *connection, double pause)
{
    double duration = engine->now - connection->started;
    engine->servers[connection->server].assigned--;
    engine->completed[cell(engine, connection)]++;
    engine->duration[cell(engine, connection)] += duration;
    record(engine, connection, duration, pause, (int16_t)connection->server);
}

/* The response passes the balancer; the client acknowledges it. */
static void answered(sim_engine_t *engine, uint32_t index)
{
    sim_connection_t *connection = &engine->connections[index];
    const sim_class_t *class = &engine->classes[connection->class_number];
    if (engine->rule == SIM_RULE_CORE &&
        !sim_balancer_response(balancer_of(engine, connection), &connection->flow, engine->now_us,
                               class->response_bytes)) {
        lose(engine, index);
        return;
    }
    connection->requests_left--;
    double pause = draw_pause(class, connection);
    complete_request(engine, connection, pause);
    bool last = connection->requests_left == 0;
    if (pause > 0) {
        delay(engine, index, last ? SIM_IDLE : SIM_THINKING, pause);
    } else if (last) {
        close_connection(engine, index);
    } else {
        next_request(engine, index);
    }
}

/* The server is done with the request: its place goes to the connection that waits longest. */
static void served(sim_engine_t *engine, uint32_t index)
{
    sim_server_t *server = &engine->servers[engine->connections[index].server];
    server->active--;
    if (server->waiting > 0) {
        begin_service(engine, dequeue(engine, server));
    }
    if (server->latency > 0) {
        delay(engine, index, SIM_RETURNING, server->latency);
    } else {
        answered(engine, index);
    }
}

/* ---- Events ---- */

static void completion(sim_engine_t *engine)
{
    uint32_t number = sim_tree_first(&engine->completions);
    sim_server_t *server = &engine->servers[number];
    if (server->quota_due) {
        engine->totals.others++;
        sim_server_quota_event(server, engine->now);
        sim_engine_reschedule(engine, number);
        return;
    }
    engine->totals.completions++;
    uint32_t index = sim_server_finish(server, engine->now);
    sim_engine_reschedule(engine, number);
    sim_connection_t *connection = &engine->connections[index];
    double io_mean = engine->classes[connection->class_number].io_mean;
    if (io_mean > 0) {
        double seconds = io_mean * sim_exponential(sim_split_next(&connection->stream));
        connection->io = (float)seconds;
        delay(engine, index, SIM_IO, seconds);
    } else {
        served(engine, index);
    }
}

static void delay_end(sim_engine_t *engine)
{
    uint32_t index = sim_heap_pop(&engine->delays).reference;
    engine->totals.delays++;
    switch ((sim_stage_t)engine->connections[index].stage) {
    case SIM_OPENING:
        opened(engine, index);
        break;
    case SIM_SENDING:
        reach_server(engine, index);
        break;
    case SIM_IO:
        served(engine, index);
        break;
    case SIM_RETURNING:
        answered(engine, index);
        break;
    case SIM_THINKING:
        next_request(engine, index);
        break;
    case SIM_IDLE:
        close_connection(engine, index);
        break;
    default: /* SIM_DEAD */
        release(engine, index);
        break;
    }
}

static void tick(sim_engine_t *engine)
{
    engine->totals.others++;
    for (uint32_t i = 0; i < engine->balancer_count; i++) {
        sim_balancer_tick(engine->balancers[i], engine->now_us);
    }
    /* A multiple, so that it does not drift. */
    engine->tick_next = (double)(++engine->ticks + 1) * SIM_TICK_US * 1e-6;
}

/* Draws class, number of requests and first work, and the balancer. */
static void draw_connection(sim_engine_t *engine, sim_connection_t *connection)
{
    const sim_arrivals_t *arrivals = &engine->arrivals;
    uint64_t *stream = &connection->stream;
    *stream = sim_stream(engine->connection_seed, arrivals->number);
    const double *row =
        arrivals->trace ? arrivals->trace + arrivals->row * SIM_TRACE_COLUMNS : NULL;
    uint32_t number = row ? (uint32_t)row[SIM_TRACE_CLASS]
                          : sim_class_draw(engine->classes, engine->class_count, stream);
    const sim_class_t *class = &engine->classes[number];
    connection->number = (uint32_t)arrivals->number;
    connection->class_number = (uint8_t)number;
    connection->io = 0;
    connection->requests_left = sim_class_requests(class, stream);
    connection->work = row ? row[SIM_TRACE_WORK] : sim_class_work(class, stream);
    connection->started = engine->now;
    connection->balancer = 0;
    if (engine->balancer_count > 1) {
        double at = sim_unit(sim_random_next(&engine->choice));
        while (at > engine->split_end[connection->balancer]) {
            connection->balancer++;
        }
    }
}

static uint32_t pick(sim_engine_t *engine, sim_connection_t *connection)
{
    if (engine->rule == SIM_RULE_CORE) {
        return sim_balancer_open(balancer_of(engine, connection), engine->now_us,
                                 &connection->flow);
    }
    return sim_oracle_pick(engine->rule, engine->servers, engine->eligible, engine->server_count,
                           &engine->ties);
}

static void arrival(sim_engine_t *engine)
{
    uint32_t index = take_connection(engine);
    if (index == SIM_NOBODY) {
        return;
    }
    engine->totals.arrivals++;
    sim_connection_t *connection = &engine->connections[index];
    draw_connection(engine, connection);
    sim_arrivals_step(&engine->arrivals);
    uint32_t server = pick(engine, connection);
    if (server >= engine->server_count) {
        engine->refused[connection->balancer]++;
        record(engine, connection, NAN, 0, -1);
        release(engine, index);
        return;
    }
    connection->server = (uint16_t)server;
    engine->servers[server].assigned++;
    double latency = engine->servers[server].latency;
    if (latency > 0) {
        delay(engine, index, SIM_OPENING, 2 * latency);
    } else {
        opened(engine, index);
    }
}

/* The sources of events, in their order at one time. */
typedef void (*sim_handler_t)(sim_engine_t *);

static sim_handler_t next_event(const sim_engine_t *engine, double *time)
{
    sim_handler_t handler = sim_scenario_event;
    double earliest = engine->scenario_next;
    double at = sim_tree_time(&engine->completions);
    if (at < earliest) {
        earliest = at;
        handler = completion;
    }
    if (engine->delays.count > 0 && engine->delays.entries[0].key < earliest) {
        earliest = engine->delays.entries[0].key;
        handler = delay_end;
    }
    at = sim_exchange_next(&engine->exchange);
    if (at < earliest) {
        earliest = at;
        handler = sim_exchange_event;
    }
    if (engine->tick_next < earliest) {
        earliest = engine->tick_next;
        handler = tick;
    }
    if (engine->arrivals.next < earliest) {
        earliest = engine->arrivals.next;
        handler = arrival;
    }
    *time = earliest;
    return handler;
}

void sim_engine_advance(sim_engine_t *engine, double until)
{
    while (engine->error == SIM_OK) {
        double time;
        sim_handler_t handler = next_event(engine, &time);
        if (time > until) {
            break;
        }
        engine->now = time;
        engine->now_us = sim_microseconds(time);
        handler(engine);
    }
    if (engine->error == SIM_OK) {
        engine->now = until;
        engine->now_us = sim_microseconds(until);
    }
}
