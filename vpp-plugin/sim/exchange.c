#include "exchange.h"

#include <math.h>
#include <string.h>

#include "engine.h"

static bool allocate(sim_exchange_t *exchange, size_t balancers, size_t servers)
{
    const size_t pairs = balancers * balancers * servers;
    exchange->phase = calloc(balancers, sizeof(*exchange->phase));
    exchange->sent = calloc(balancers, sizeof(*exchange->sent));
    exchange->received = calloc(pairs, sizeof(*exchange->received));
    exchange->on_way = calloc(pairs, sizeof(*exchange->on_way));
    exchange->received_at = calloc(balancers * balancers, sizeof(*exchange->received_at));
    exchange->counts = calloc(2 * servers, sizeof(*exchange->counts));
    return exchange->received_at && exchange->phase && exchange->sent && exchange->received &&
           exchange->on_way && exchange->counts;
}

/* Without a message for so long, counts of a peer are not used. */
#define TIMEOUT_SECONDS   1.0
#define TIMEOUT_INTERVALS 5

static lbrl_sharing_t sharing_of(const sim_exchange_t *exchange)
{
    const sim_sharing_t *how = &exchange->how;
    return (lbrl_sharing_t){
        .anticipate = (float)how->anticipate,
        .doubt = (float)how->doubt,
        .mirror = (float)how->mirror,
        .mean_ms = (uint32_t)(how->mean * 1000),
        .stale_ms = (uint32_t)(exchange->timeout * 1000),
    };
}

int sim_exchange_open(sim_engine_t *engine, const sim_sharing_t *how)
{
    sim_exchange_t *exchange = &engine->exchange;
    if (how->interval == 0) {
        return SIM_OK;
    }
    exchange->how = *how;
    sim_random_seed(&exchange->random, engine->environment.seed, SIM_STREAM_MESSAGES);
    if (!allocate(exchange, engine->balancer_count, engine->server_count)) {
        return SIM_ERR_MEMORY;
    }
    exchange->timeout = fmax(TIMEOUT_SECONDS, TIMEOUT_INTERVALS * how->interval);
    for (size_t i = 0; i < (size_t)engine->balancer_count * engine->balancer_count; i++) {
        exchange->received_at[i] = -INFINITY;
    }
    const lbrl_sharing_t sharing = sharing_of(exchange);
    for (uint32_t i = 0; i < engine->balancer_count; i++) {
        exchange->phase[i] = how->interval * sim_unit(sim_random_next(&exchange->random));
        if (!sim_heap_push(&exchange->due, exchange->phase[i], i)) {
            return SIM_ERR_MEMORY;
        }
        if (sim_balancer_share(engine->balancers[i], &sharing) != 0) {
            return SIM_ERR_CORE;
        }
    }
    return SIM_OK;
}

void sim_exchange_close(sim_exchange_t *exchange)
{
    sim_heap_free(&exchange->due);
    free(exchange->phase);
    free(exchange->sent);
    free(exchange->received);
    free(exchange->on_way);
    free(exchange->received_at);
    free(exchange->counts);
}

/* Counts of a message, or of the last one that came. */
static uint32_t *row(const sim_engine_t *engine, uint32_t *rows, uint32_t receiver, uint32_t sender)
{
    return rows + ((size_t)receiver * engine->balancer_count + sender) * engine->server_count;
}

static void push(sim_engine_t *engine, double time, uint32_t reference)
{
    if (!sim_heap_push(&engine->exchange.due, time, reference)) {
        sim_engine_fail(engine, SIM_ERR_MEMORY, "no memory for messages");
    }
}

/* Random numbers are drawn for lost messages too: what is drawn does not depend on what was. */
static void send(sim_engine_t *engine, uint32_t sender, uint32_t receiver, const uint32_t *own)
{
    sim_exchange_t *exchange = &engine->exchange;
    const sim_sharing_t *how = &exchange->how;
    const bool lost = sim_unit(sim_random_next(&exchange->random)) <= how->loss;
    const double delay = how->delay_low + (how->delay_high - how->delay_low) *
                                              sim_unit(sim_random_next(&exchange->random));
    if (!lost) {
        memcpy(row(engine, exchange->on_way, receiver, sender), own,
               engine->server_count * sizeof(*own));
        push(engine, engine->now + delay, engine->balancer_count * (1 + receiver) + sender);
    }
}

static bool is_complete(const sim_engine_t *engine, uint32_t balancer)
{
    const double *received_at =
        engine->exchange.received_at + (size_t)balancer * engine->balancer_count;
    for (uint32_t i = 0; i < engine->balancer_count; i++) {
        if (i != balancer && engine->now - received_at[i] > engine->exchange.timeout) {
            return false;
        }
    }
    return true;
}

static void take_peers(sim_engine_t *engine, uint32_t balancer, uint32_t *sum)
{
    memset(sum, 0, engine->server_count * sizeof(*sum));
    for (uint32_t i = 0; i < engine->balancer_count; i++) {
        const uint32_t *counts = row(engine, engine->exchange.received, balancer, i);
        for (uint32_t server = 0; server < engine->server_count; server++) {
            sum[server] += counts[server];
        }
    }
    if (sim_balancer_set_peers(engine->balancers[balancer], sum, engine->now_us) != 0) {
        sim_engine_fail(engine, SIM_ERR_CORE, "the core refused counts of peers");
    }
}

/* A balancer takes the counts that it received, and sends its own. */
static void turn(sim_engine_t *engine, uint32_t balancer)
{
    sim_exchange_t *exchange = &engine->exchange;
    uint32_t *own = exchange->counts, *sum = exchange->counts + engine->server_count;
    if (is_complete(engine, balancer)) {
        take_peers(engine, balancer, sum);
    }
    sim_balancer_flows(engine->balancers[balancer], own);
    for (uint32_t i = 0; i < engine->balancer_count; i++) {
        if (i != balancer) {
            send(engine, balancer, i, own);
        }
    }
    /* A multiple, so that it does not drift. */
    const double times = (double)++exchange->sent[balancer];
    push(engine, exchange->phase[balancer] + times * exchange->how.interval, balancer);
}

void sim_exchange_event(sim_engine_t *engine)
{
    const uint32_t reference = sim_heap_pop(&engine->exchange.due).reference;
    engine->totals.others++;
    if (reference < engine->balancer_count) {
        turn(engine, reference);
        return;
    }
    const uint32_t receiver = reference / engine->balancer_count - 1;
    const uint32_t sender = reference % engine->balancer_count;
    memcpy(row(engine, engine->exchange.received, receiver, sender),
           row(engine, engine->exchange.on_way, receiver, sender),
           engine->server_count * sizeof(uint32_t));
    engine->exchange.received_at[(size_t)receiver * engine->balancer_count + sender] = engine->now;
}
