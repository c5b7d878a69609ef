/* Balancers that exchange their counts: what comes, when, and what becomes of it when nothing comes. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "lab.h"
#include "lbrl/lbrl.h"

static lab_t lab;

static void scenario(uint32_t balancers)
{
    lab_open(&lab);
    lab_balancers(&lab, balancers);
    for (uint32_t i = 0; i < 4; i++) {
        lab_server(&lab, 4, 1);
    }
    lab_rate(&lab, 0, 100);
    lab.options.rule = SIM_RULE_CORE;
    lab.options.level = LBRL_LEVEL_FULL;
    lab.options.load = LBRL_LOAD_ACTIVE;
    lab.options.scheduler = LBRL_SCHEDULER_SED;
    lab.options.sharing = (sim_sharing_t){.interval = 0.02,
                                          .delay_low = 0.001,
                                          .delay_high = 0.005,
                                          .anticipate = 0.5,
                                          .doubt = 0.2,
                                          .mirror = 0.5,
                                          .mean = 0.7};
}

static int64_t sum_of_row(const sim_results_t *results, const int64_t *values, uint32_t balancer)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < results->slots; i++) {
        const size_t at = (size_t)balancer * results->slots + i;
        sum += results->active[at] ? values[at] : 0;
    }
    return sum;
}

/* Counts are at most an interval and a delay old: their mean over time is that of the peers. */
static void each_balancer_sees_the_flows_of_all_others(void)
{
    scenario(3);
    sim_t *sim = lab_start(&lab, 1, 1);
    const sim_results_t *results = sim_results(sim);
    double seen[3] = {0}, true_[3] = {0};
    for (unsigned step = 1; step <= 2000; step++) {
        lab_advance(sim, step * 0.05);
        int64_t all = 0, own[3];
        for (uint32_t i = 0; i < 3; i++) {
            own[i] = sum_of_row(results, results->counters[LBRL_COUNTER_N_ACTIVE], i);
            all += own[i];
        }
        for (uint32_t i = 0; i < 3 && step > 20; i++) {
            const int64_t peers = sum_of_row(results, results->peers, i);
            CHECK(peers >= 0);
            seen[i] += (double)peers;
            true_[i] += (double)(all - own[i]);
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        CHECK(true_[i] > 1000);
        CHECK_NEAR(seen[i] / true_[i], 1, 0.05);
    }
    sim_destroy(sim);
}

static bool has_view(const sim_results_t *results)
{
    return results->peers[0] >= 0;
}

static void a_lone_balancer_has_no_peers(void)
{
    scenario(1);
    sim_t *sim = lab_start(&lab, 1, 1);
    CHECK(!has_view(sim_results(sim)));
    lab_advance(sim, 1);
    CHECK_EQUAL(sum_of_row(sim_results(sim), sim_results(sim)->peers, 0), 0);
    sim_destroy(sim);
}

static void without_messages_there_is_no_view(void)
{
    scenario(2);
    lab.options.sharing.loss = 1;
    sim_t *sim = lab_start(&lab, 1, 1);
    lab_advance(sim, 5);
    CHECK(!has_view(sim_results(sim)));
    sim_destroy(sim);
    scenario(2);
    lab.options.sharing.loss = 0.5;
    sim = lab_start(&lab, 1, 1);
    lab_advance(sim, 5);
    CHECK(has_view(sim_results(sim)));
    sim_destroy(sim);
    scenario(2);
    lab.options.sharing.interval = 0;
    sim = lab_start(&lab, 1, 1);
    lab_advance(sim, 5);
    CHECK(!has_view(sim_results(sim)));
    sim_destroy(sim);
}

static double mean_duration(uint32_t balancers, bool shares)
{
    double sum = 0;
    uint64_t requests = 0;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        scenario(balancers);
        lab.rates[0][SIM_RATE_RATE] = 140; /* load 0.875 of 16 cores, work of 0.1 s */
        lab.options.record = true;
        lab.options.sharing.interval = shares ? 0.02 : 0;
        sim_t *sim = lab_start(&lab, seed, 1);
        lab_advance(sim, 100);
        uint64_t count;
        const sim_record_t *records = sim_records(sim, 0, &count);
        for (uint64_t i = 0; i < count; i++) {
            sum += records[i].duration;
        }
        requests += count;
        sim_destroy(sim);
    }
    return sum / (double)requests;
}

static void shared_counts_make_up_for_more_balancers(void)
{
    const double alone = mean_duration(1, false);
    const double apart = mean_duration(6, false);
    const double together = mean_duration(6, true);
    CHECK(apart > 1.05 * alone);
    CHECK(together < alone + 0.6 * (apart - alone));
}

static void wrong_numbers_are_named(void)
{
    const struct {
        size_t at;
        double value;
        const char *name;
    } wrong[] = {
        {offsetof(sim_sharing_t, interval), 0.0001, "sharing.interval"},
        {offsetof(sim_sharing_t, interval), NAN, "sharing.interval"},
        {offsetof(sim_sharing_t, delay_low), -1, "sharing.delay[0]"},
        {offsetof(sim_sharing_t, delay_high), 0.03, "sharing.delay[1]"},
        {offsetof(sim_sharing_t, loss), 1.1, "sharing.loss"},
        {offsetof(sim_sharing_t, doubt), NAN, "sharing.doubt"},
        {offsetof(sim_sharing_t, mean), 0, "sharing.mean"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        scenario(2);
        memcpy((char *)&lab.options.sharing + wrong[i].at, &wrong[i].value, sizeof(double));
        sim_t *sim;
        sim_problem_t problem;
        CHECK_EQUAL(sim_create(&sim, &lab.options, &lab.environment, 1, &problem), SIM_ERR_INVALID);
        CHECK(strncmp(problem.text, wrong[i].name, strlen(wrong[i].name)) == 0);
    }
}

int main(void)
{
    each_balancer_sees_the_flows_of_all_others();
    a_lone_balancer_has_no_peers();
    without_messages_there_is_no_view();
    shared_counts_make_up_for_more_balancers();
    wrong_numbers_are_named();
    return 0;
}
