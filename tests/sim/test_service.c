/* Servers in cases that can be worked out by hand. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "lab.h"

#define EXACT 1e-12

static lab_t lab;

static sim_t *run(double until)
{
    sim_t *sim = lab_start(&lab, 1, 1);
    lab_advance(sim, until);
    return sim;
}

static const sim_record_t *records(const sim_t *sim, uint64_t expected)
{
    uint64_t count;
    const sim_record_t *found = sim_records(sim, 0, &count);
    CHECK_EQUAL(count, expected);
    return found;
}

static void one_server(double cores)
{
    lab_open(&lab);
    lab_server(&lab, cores, 1);
}

/* Until 0.5 the first is alone; then both get half of the core: the second ends at 1.0, when the
 * first has 0.25 left. */
static void requests_share_a_core(void)
{
    one_server(1);
    lab_arrival(&lab, 0, 1, 0);
    lab_arrival(&lab, 0.5, 0.25, 0);
    sim_t *sim = run(10);
    CHECK_NEAR(records(sim, 2)[0].duration, 0.5, EXACT);
    CHECK_NEAR(records(sim, 2)[1].duration, 1.25, EXACT);
    CHECK_NEAR(sim_results(sim)->busy[0], 1.25, EXACT);
    CHECK_NEAR(sim_results(sim)->offered[0], 10, EXACT);
    sim_destroy(sim);
}

/* Three requests on two cores get 2/3 of a core each; one request never more than one core. */
static void request_uses_one_core_at_most(void)
{
    one_server(2);
    for (int i = 0; i < 3; i++) {
        lab_arrival(&lab, 0, 0.2, 0);
    }
    lab_arrival(&lab, 1, 0.2, 0);
    sim_t *sim = run(10);
    for (int i = 0; i < 3; i++) {
        CHECK_NEAR(records(sim, 4)[i].duration, 0.3, EXACT);
    }
    CHECK_NEAR(records(sim, 4)[3].duration, 0.2, EXACT);
    sim_destroy(sim);
}

/* Three requests lose 2 x 0.5 beyond the first: a sixth of the core each. */
static void crowded_server_loses_capacity(void)
{
    one_server(1);
    lab.servers[0][SIM_SERVER_THRASH_FROM] = 1;
    lab.servers[0][SIM_SERVER_THRASH] = 0.5;
    for (int i = 0; i < 3; i++) {
        lab_arrival(&lab, 0, 0.1, 0);
    }
    sim_t *sim = run(10);
    for (int i = 0; i < 3; i++) {
        CHECK_NEAR(records(sim, 3)[i].duration, 0.6, EXACT);
    }
    sim_destroy(sim);
}

/* The second waits until the first has ended, the third is refused, the fourth finds a place. */
static void requests_beyond_limit_wait_and_beyond_backlog_fail(void)
{
    one_server(4);
    lab.servers[0][SIM_SERVER_LIMIT] = 1;
    lab.servers[0][SIM_SERVER_BACKLOG] = 1;
    lab_arrival(&lab, 0, 1, 0);
    lab_arrival(&lab, 0.1, 1, 0);
    lab_arrival(&lab, 0.2, 1, 0);
    lab_arrival(&lab, 1.5, 1, 0);
    sim_t *sim = run(10);
    CHECK(isnan(records(sim, 4)[0].duration));
    CHECK_NEAR(records(sim, 4)[0].arrival, 0.2, EXACT);
    CHECK_NEAR(records(sim, 4)[1].duration, 1, EXACT);
    CHECK_NEAR(records(sim, 4)[2].duration, 1.9, EXACT);
    CHECK_NEAR(records(sim, 4)[3].duration, 1.5, EXACT);
    CHECK_EQUAL(sim_results(sim)->completed[0], 3);
    CHECK_EQUAL(sim_results(sim)->failed[0], 1);
    sim_destroy(sim);
}

/* SYN and SYN-ACK, request and response: four times the latency, on no processor. */
static void network_adds_its_latency(void)
{
    one_server(1);
    lab.servers[0][SIM_SERVER_LATENCY] = 0.01;
    lab_arrival(&lab, 0, 0.1, 0);
    lab_arrival(&lab, 0.105, 0.1, 0); /* meets the last 5 ms of the first */
    sim_t *sim = run(10);
    CHECK_NEAR(records(sim, 2)[0].duration, 0.14, EXACT);
    CHECK_NEAR(records(sim, 2)[1].duration, 0.14, EXACT);
    sim_destroy(sim);
}

static void speed_and_cores_change_while_requests_run(void)
{
    one_server(1);
    lab_arrival(&lab, 0, 1, 0);
    lab_event(&lab, 0.5, SIM_EVENT_IS_SPEED, 0, 0.5); /* the other half takes 1 s */
    lab_arrival(&lab, 2, 1, 0);
    lab_arrival(&lab, 2, 1, 0);
    lab_event(&lab, 2, SIM_EVENT_IS_SPEED, 0, 1);
    lab_event(&lab, 3, SIM_EVENT_IS_CORES, 0, 2); /* half of each is left, at full speed now */
    lab_arrival(&lab, 5, 1, 0);
    lab_event(&lab, 5.25, SIM_EVENT_IS_SPEED, 0, 0); /* stands still for 2 s */
    lab_event(&lab, 7.25, SIM_EVENT_IS_SPEED, 0, 1);
    sim_t *sim = run(10);
    CHECK_NEAR(records(sim, 4)[0].duration, 1.5, EXACT);
    CHECK_NEAR(records(sim, 4)[1].duration, 1.5, EXACT);
    CHECK_NEAR(records(sim, 4)[2].duration, 1.5, EXACT);
    CHECK_NEAR(records(sim, 4)[3].duration, 3, EXACT);
    sim_destroy(sim);
}

/* What runs fails at once, what comes later is refused, until the process is started again. */
static void stopped_server_fails_its_requests(void)
{
    one_server(1);
    lab_arrival(&lab, 0, 1, 0);
    lab_event(&lab, 0.5, SIM_EVENT_IS_STOP, 0, 0);
    lab_arrival(&lab, 0.75, 1, 0);
    lab_event(&lab, 1, SIM_EVENT_IS_START, 0, 0);
    lab_arrival(&lab, 2, 1, 0);
    sim_t *sim = run(10);
    CHECK(isnan(records(sim, 3)[0].duration));
    CHECK(isnan(records(sim, 3)[1].duration)); /* an oracle picks no server that does not run */
    CHECK_EQUAL(records(sim, 3)[0].server, 0);
    CHECK_EQUAL(records(sim, 3)[1].server, -1);
    CHECK_NEAR(records(sim, 3)[2].duration, 1, EXACT);
    CHECK_EQUAL(sim_results(sim)->failed[0], 1);
    CHECK_EQUAL(sim_results(sim)->refused[0], 1);
    CHECK_NEAR(sim_results(sim)->busy[0], 1.5, EXACT);
    CHECK_NEAR(sim_results(sim)->offered[0], 9.5, EXACT);
    sim_destroy(sim);
}

/* All connections of a stopped server go, those that wait, think or have a request on the network. */
static void stopped_server_resets_connections_of_every_stage(void)
{
    one_server(1);
    lab.servers[0][SIM_SERVER_LIMIT] = 2;
    lab.servers[0][SIM_SERVER_BACKLOG] = 100;
    lab.servers[0][SIM_SERVER_LATENCY] = 0.01;
    lab.classes[0][SIM_CLASS_WORK_KIND] = SIM_WORK_IS_CONSTANT;
    lab.classes[0][SIM_CLASS_REQUESTS] = 5;
    lab.classes[0][SIM_CLASS_THINK_MEAN] = 0.5;
    lab.classes[0][SIM_CLASS_IO_MEAN] = 0.1;
    lab.classes[0][SIM_CLASS_IDLE_SHARE] = 1;
    lab.classes[0][SIM_CLASS_IDLE_MEAN] = 3;
    lab_rate(&lab, 0, 20);
    for (int k = 0; k < 20; k++) {
        lab_event(&lab, 1 + k, SIM_EVENT_IS_STOP, 0, 0);
        lab_event(&lab, 1.5 + k, SIM_EVENT_IS_START, 0, 0);
    }
    sim_t *sim = run(20.5);
    uint64_t count, failed = 0;
    const sim_record_t *found = sim_records(sim, 0, &count);
    for (uint64_t i = 0; i < count; i++) {
        failed += isnan(found[i].duration) ? 1 : 0;
    }
    CHECK_EQUAL(failed, sim_results(sim)->failed[0] + sim_results(sim)->refused[0]);
    CHECK(failed > 20 && failed < count);
    sim_destroy(sim);
}

/* An absent server is not picked, an added one is, a removed or drained one is not any more. */
static void servers_come_and_go(void)
{
    static const int expected[] = {0, 1, 0, 0, 1};
    one_server(1);
    lab_server(&lab, 8, 1)[SIM_SERVER_PRESENT] = 0;
    for (int i = 0; i < 5; i++) {
        lab_arrival(&lab, i + 0.5, 0.1, 0);
    }
    lab_event(&lab, 1, SIM_EVENT_IS_STATE, 1, 1); /* active */
    lab_event(&lab, 2, SIM_EVENT_IS_STATE, 1, 2); /* draining */
    lab_event(&lab, 3, SIM_EVENT_IS_STATE, 1, 0); /* removed */
    lab_event(&lab, 4, SIM_EVENT_IS_STATE, 1, 1);
    lab_event(&lab, 4, SIM_EVENT_IS_WEIGHT, 0, 0);
    sim_t *sim = run(10);
    for (int i = 0; i < 5; i++) {
        CHECK_EQUAL(records(sim, 5)[i].server, expected[i]);
    }
    CHECK_NEAR(sim_results(sim)->offered[1], 8 * (2 + 6), EXACT);
    sim_destroy(sim);
}

/* Of equal ends the request that came first ends first. */
static void simultaneous_events_have_an_order(void)
{
    one_server(1);
    lab_class(&lab, SIM_WORK_IS_CONSTANT, 0.1);
    for (uint32_t i = 0; i < 10; i++) {
        lab_arrival(&lab, 1, 0.1, i % 2);
    }
    sim_t *sim = run(10);
    for (uint32_t i = 0; i < 10; i++) {
        CHECK_EQUAL(records(sim, 10)[i].class_number, i % 2);
        CHECK_NEAR(records(sim, 10)[i].duration, 1, EXACT);
    }
    sim_destroy(sim);
}

/* Accounts begin at the warm-up; the request that runs then counts from there. */
static void accounts_begin_after_the_warmup(void)
{
    one_server(1);
    lab.environment.warmup = 0.75;
    lab_arrival(&lab, 0, 1, 0);
    sim_t *sim = run(0.5);
    CHECK_NEAR(sim_results(sim)->offered[0], 0, 0);
    lab_advance(sim, 10);
    CHECK_NEAR(sim_results(sim)->busy[0], 0.25, EXACT);
    CHECK_NEAR(sim_results(sim)->offered[0], 9.25, EXACT);
    sim_destroy(sim);
}

/* Connections of several requests: as many as asked for, paused as asked for. */
static void connections_send_their_requests_one_after_another(void)
{
    const uint32_t connections = 4000;
    one_server(4000);
    lab.classes[0][SIM_CLASS_WORK_KIND] = SIM_WORK_IS_CONSTANT;
    lab.classes[0][SIM_CLASS_WORK_MEAN] = 0.001;
    lab.classes[0][SIM_CLASS_REQUESTS] = 4;
    lab.classes[0][SIM_CLASS_REQUESTS_RANDOM] = 1;
    lab.classes[0][SIM_CLASS_THINK_MEAN] = 0.5;
    for (uint32_t i = 0; i < connections; i++) {
        lab_arrival(&lab, 0, 0.001, 0);
    }
    sim_t *sim = run(400);
    uint64_t count;
    double begins = 0;
    const sim_record_t *found = sim_records(sim, 0, &count);
    for (uint64_t i = 0; i < count; i++) {
        begins += found[i].arrival;
    }
    /* Geometric numbers k of mean 4 have the variance 12, and E[k (k - 1) / 2] = 12 with a standard
     * deviation of 31; request k begins (k - 1) x 0.501 s after its connection. Four standard errors. */
    CHECK_NEAR((double)count / connections, 4, 0.22);
    CHECK_NEAR(begins / connections, 0.501 * 12, 1.1);
    sim_destroy(sim);
}

/* Many small steps give what one large step gives, to the bit. */
static void results_do_not_depend_on_the_steps(void)
{
    one_server(2);
    lab.servers[0][SIM_SERVER_QUOTA] = 0.15;
    lab.servers[0][SIM_SERVER_QUOTA_PERIOD] = 0.1;
    lab.classes[0][SIM_CLASS_IO_MEAN] = 0.02;
    lab_rate(&lab, 0, 12);
    sim_t *once = run(50), *often = lab_start(&lab, 1, 1);
    for (int i = 1; i <= 5000; i++) {
        lab_advance(often, i * 0.01);
    }
    uint64_t count, same;
    const sim_record_t *a = sim_records(once, 0, &count), *b = sim_records(often, 0, &same);
    CHECK_EQUAL(count, same);
    CHECK(count > 500);
    for (uint64_t i = 0; i < count; i++) {
        CHECK(a[i].arrival == b[i].arrival && a[i].duration == b[i].duration);
    }
    sim_destroy(once);
    sim_destroy(often);
}

int main(void)
{
    requests_share_a_core();
    request_uses_one_core_at_most();
    crowded_server_loses_capacity();
    requests_beyond_limit_wait_and_beyond_backlog_fail();
    network_adds_its_latency();
    speed_and_cores_change_while_requests_run();
    stopped_server_fails_its_requests();
    stopped_server_resets_connections_of_every_stage();
    servers_come_and_go();
    simultaneous_events_have_an_order();
    accounts_begin_after_the_warmup();
    connections_send_their_requests_one_after_another();
    results_do_not_depend_on_the_steps();
    return 0;
}
