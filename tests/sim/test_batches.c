/* Batches: results depend on scenarios and seeds alone, whatever the number of threads and whatever
 * else is in the batch. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "lab.h"
#include "lbrl/lbrl.h"
#include "lbrl/reduce.h"

#define ENVIRONMENTS 12u
#define STEPS        100u

static lab_t lab;

static void scenario(void)
{
    lab_open(&lab);
    lab_balancers(&lab, 2);
    for (uint32_t i = 0; i < 6; i++) {
        double *server = lab_server(&lab, 1 + i % 3, 1);
        server[SIM_SERVER_LIMIT] = i == 5 ? 4 : 0;
        server[SIM_SERVER_BACKLOG] = 8;
        server[SIM_SERVER_LATENCY] = i % 2 ? 0.001 : 0;
        server[SIM_SERVER_QUOTA] = i == 2 ? 0.1 : 0;
        server[SIM_SERVER_QUOTA_PERIOD] = 0.1;
    }
    lab.classes[0][SIM_CLASS_REQUESTS] = 2;
    lab.classes[0][SIM_CLASS_THINK_MEAN] = 0.1;
    lab.classes[0][SIM_CLASS_IDLE_SHARE] = 0.5;
    lab.classes[0][SIM_CLASS_IDLE_MEAN] = 1;
    lab_rate(&lab, 0, 35);
    lab_event(&lab, 5, SIM_EVENT_IS_SPEED, 1, 0.3);
    lab_event(&lab, 6, SIM_EVENT_IS_STOP, 0, 0);
    lab_event(&lab, 6, SIM_EVENT_IS_STATE, 0, LBRL_BACKEND_FAILED);
    lab_event(&lab, 8, SIM_EVENT_IS_START, 0, 0);
    lab_event(&lab, 9, SIM_EVENT_IS_STATE, 0, LBRL_BACKEND_ACTIVE);
    lab_event(&lab, 10, SIM_EVENT_IS_STATE, 3, LBRL_BACKEND_DRAINING);
    lab_event(&lab, 12, SIM_EVENT_IS_STATE, 3, 0);
    lab_event(&lab, 14, SIM_EVENT_IS_STATE, 3, LBRL_BACKEND_ACTIVE);
    lab.options.rule = SIM_RULE_CORE;
    lab.options.level = LBRL_LEVEL_FULL;
    lab.options.load = LBRL_LOAD_ACTIVE;
    lab.options.scheduler = LBRL_SCHEDULER_SED;
}

/* Weights that follow what is seen, so that a difference anywhere would spread. */
static void act(sim_t *sim)
{
    static const lbrl_channel_t channels[] = {LBRL_CHANNEL_FCT};
    const sim_results_t *results = sim_results(sim);
    size_t count = (size_t)results->environments * results->balancers * results->slots;
    double *durations = calloc(5 * count, sizeof(*durations));
    float *weights = calloc(count, sizeof(*weights));
    sim_problem_t problem;
    CHECK(durations != NULL && weights != NULL);
    double *const out[] = {durations};
    CHECK_EQUAL(sim_reduce(sim, channels, 1, out, &problem), SIM_OK);
    for (size_t i = 0; i < count; i++) {
        double mean = durations[5 * i];
        weights[i] = results->active[i] ? (float)(isnan(mean) ? 1 : 1 / (0.01 + mean)) : 0;
    }
    CHECK_EQUAL(sim_act(sim, weights, NULL, false, &problem), SIM_OK);
    free(durations);
    free(weights);
}

static sim_t *run(uint64_t seed, uint32_t count, uint32_t threads)
{
    lab.options.threads = threads;
    sim_t *sim = lab_start(&lab, seed, count);
    for (uint32_t step = 1; step <= STEPS; step++) {
        lab_advance(sim, step * 0.2);
        act(sim);
    }
    return sim;
}

static void same_records(const sim_t *a, uint32_t of_a, const sim_t *b, uint32_t of_b)
{
    uint64_t count, same;
    const sim_record_t *x = sim_records(a, of_a, &count), *y = sim_records(b, of_b, &same);
    CHECK_EQUAL(count, same);
    CHECK(count > 500);
    CHECK_EQUAL(memcmp(x, y, count * sizeof(*x)), 0);
}

static void threads_change_nothing(void)
{
    scenario();
    sim_t *one = run(5, ENVIRONMENTS, 1), *four = run(5, ENVIRONMENTS, 4);
    const sim_results_t *a = sim_results(one), *b = sim_results(four);
    size_t cells = (size_t)a->environments * a->balancers * a->slots;
    for (uint32_t i = 0; i < ENVIRONMENTS; i++) {
        same_records(one, i, four, i);
    }
    for (uint32_t i = 0; i < LBRL_COUNTER_COUNT; i++) {
        CHECK(a->counters[i] != NULL);
        CHECK_EQUAL(memcmp(a->counters[i], b->counters[i], cells * sizeof(int64_t)), 0);
    }
    CHECK_EQUAL(memcmp(a->weight, b->weight, cells * sizeof(float)), 0);
    CHECK_EQUAL(memcmp(a->busy, b->busy, (size_t)a->environments * a->servers * sizeof(double)), 0);
    sim_destroy(one);
    sim_destroy(four);
}

static void environments_do_not_touch_each_other(void)
{
    scenario();
    sim_t *all = run(5, ENVIRONMENTS, 2);
    for (uint32_t i = 0; i < ENVIRONMENTS; i += 5) {
        sim_t *alone = run(5 + i, 1, 1);
        same_records(all, i, alone, 0);
        sim_destroy(alone);
    }
    sim_destroy(all);
}

/* What the frames count is what the engine knows. */
static void frames_count_what_happens(void)
{
    int64_t open = 0, total = 0;
    uint64_t count;
    scenario();
    lab.environment.events.count = 0;
    sim_t *sim = lab_start(&lab, 3, 1);
    lab_advance(sim, 20);
    const sim_results_t *results = sim_results(sim);
    for (uint32_t i = 0; i < 2 * results->slots; i++) {
        open += results->counters[LBRL_COUNTER_N_FLOW_ON][i];
        total += results->counters[LBRL_COUNTER_N_FLOW][i];
    }
    sim_records(sim, 0, &count);
    CHECK_EQUAL(total, sim_totals(sim).arrivals);
    CHECK(open > 0 && open < total);
    CHECK_EQUAL(results->refused[0] + results->refused[1], 0);
    sim_destroy(sim);
}

/* With one server there is nothing to choose: the core takes no part in what happens. */
static void core_of_one_server_changes_nothing(void)
{
    scenario();
    lab.environment.servers.count = 1;
    lab.environment.events.count = 0;
    lab.servers[0][SIM_SERVER_CORES] = 8;
    sim_t *with = lab_start(&lab, 9, 1);
    lab.options.rule = SIM_RULE_SED;
    sim_t *without = lab_start(&lab, 9, 1);
    lab_advance(with, 60);
    lab_advance(without, 60);
    same_records(with, 0, without, 0);
    sim_destroy(with);
    sim_destroy(without);
}

/* What callers hand in is copied: they may free it. */
static void scenario_is_copied(void)
{
    static const double garbage[] = {1e300, 1e300, 1e300, 1e300};
    for (int trace = 0; trace < 2; trace++) {
        scenario();
        for (uint32_t i = 0; trace && i < 1000; i++) {
            lab_arrival(&lab, 0.03 * i, 0.1, 0);
        }
        lab.environment.rates.count = trace ? 0 : 1;
        sim_t *kept = run(4, 1, 1), *changed = lab_start(&lab, 4, 1);
        lab.servers[0][SIM_SERVER_CORES] = lab.classes[0][SIM_CLASS_WORK_MEAN] = 1e300;
        for (uint32_t i = 0; i < 1000; i++) {
            memcpy(lab.rates[i], garbage, sizeof(lab.rates[i]));
            memcpy(lab.trace[i], garbage, sizeof(lab.trace[i]));
            memcpy(lab.events[i], garbage, sizeof(lab.events[i]));
        }
        lab.split[0] = 1e300;
        for (uint32_t step = 1; step <= STEPS; step++) {
            lab_advance(changed, step * 0.2);
            act(changed);
        }
        same_records(kept, 0, changed, 0);
        sim_destroy(kept);
        sim_destroy(changed);
    }
}

/* Idle connections that count as load mislead the scheduler until queues are long: no flow table is
 * full then. */
static void overload_refuses_no_connection(void)
{
    static const double cores[] = {1, 1, 2, 2, 4, 4, 8, 8};
    int64_t refused = 0, failed = 0;
    lab_open(&lab);
    lab_balancers(&lab, 2);
    for (uint32_t i = 0; i < 8; i++) {
        lab_server(&lab, cores[i], 1);
    }
    lab.classes[0][SIM_CLASS_IDLE_SHARE] = 0.8;
    lab.classes[0][SIM_CLASS_IDLE_MEAN] = 5;
    lab_rate(&lab, 0, 255);
    lab.options.rule = SIM_RULE_CORE;
    lab.options.scheduler = LBRL_SCHEDULER_LSQ;
    sim_t *sim = lab_start(&lab, 1000, 4);
    const sim_results_t *results = sim_results(sim);
    for (uint32_t step = 1; step <= 200; step++) {
        lab_advance(sim, step);
        for (uint32_t i = 0; i < 4 * 2; i++) {
            refused += results->refused[i];
        }
        for (uint32_t i = 0; i < 4 * 2 * 8; i++) {
            failed += results->failed[i];
        }
    }
    CHECK_EQUAL(refused, 0);
    CHECK_EQUAL(failed, 0);
    CHECK(lab_mean_duration(sim, 0, 30) > 1);
    sim_destroy(sim);
}

int main(void)
{
    overload_refuses_no_connection();
    scenario_is_copied();
    core_of_one_server_changes_nothing();
    threads_change_nothing();
    environments_do_not_touch_each_other();
    frames_count_what_happens();
    return 0;
}
