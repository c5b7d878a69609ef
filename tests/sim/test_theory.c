/* Queues of which the mean is known. Every statement holds within a 99.9 % interval over independent
 * seeds, and the interval is narrow enough to tell a wrong model. */
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "lab.h"
#include "lbrl/lbrl.h"

#define SEEDS    24u
#define WARMUP   60.0  /* seconds */
#define ARRIVALS 15000 /* after it, on average */
#define WORK     0.1
#define EVERY    0.25 /* seconds between samples */

static lab_t lab;
static double end; /* seconds */

static void check_interval(const double *values, double expected, double widest)
{
    lab_interval_t found = lab_interval(values, SEEDS);
    CHECK_NEAR(found.half / expected, 0, widest);
    CHECK_NEAR(found.mean, expected, found.half);
}

static sim_t *run(void)
{
    sim_t *sim = lab_start(&lab, 1, SEEDS);
    lab_advance(sim, end);
    return sim;
}

static void check_mean(double expected, double widest)
{
    double means[SEEDS];
    sim_t *sim = run();
    for (uint32_t i = 0; i < SEEDS; i++) {
        means[i] = lab_mean_duration(sim, i, WARMUP);
    }
    check_interval(means, expected, widest);
    sim_destroy(sim);
}

/* Mean time in M/M/c: Erlang's C formula. */
static double erlang(uint32_t cores, double rho)
{
    double offered = cores * rho, term = 1, sum = 0;
    for (uint32_t k = 0; k < cores; k++) {
        sum += term;
        term *= offered / (k + 1);
    }
    double wait = term / (1 - rho) / (sum + term / (1 - rho));
    return WORK + wait * WORK / (cores * (1 - rho));
}

static void one_server(double cores, double speed, double rho)
{
    lab_open(&lab);
    lab.environment.warmup = WARMUP;
    lab_server(&lab, cores, speed);
    lab_rate(&lab, 0, rho * cores * speed / WORK);
    end = WARMUP + ARRIVALS / (rho * cores * speed / WORK);
}

static void mean_of_one_core_is_that_of_mm1(void)
{
    static const double loads[] = {0.3, 0.6, 0.75};
    for (size_t i = 0; i < 3; i++) {
        one_server(1, 1, loads[i]);
        check_mean(WORK / (1 - loads[i]), 0.08);
    }
    one_server(1, 2.5, 0.6);
    check_mean(WORK / 2.5 / (1 - 0.6), 0.08);
}

static void mean_of_several_cores_is_that_of_mmc(void)
{
    static const uint32_t cores[] = {2, 4, 8};
    for (size_t i = 0; i < 3; i++) {
        one_server(cores[i], 1, 0.75);
        check_mean(erlang(cores[i], 0.75), 0.08);
    }
}

static void work_kind(sim_work_kind_t kind, double shape, double most)
{
    lab.classes[0][SIM_CLASS_WORK_KIND] = kind;
    lab.classes[0][SIM_CLASS_WORK_SHAPE] = shape;
    lab.classes[0][SIM_CLASS_WORK_MAX] = most;
}

static void bimodal(void)
{
    lab.classes[0][SIM_CLASS_WORK_KIND] = SIM_WORK_IS_CONSTANT;
    lab.classes[0][SIM_CLASS_WORK_MEAN] = 0.02;
    lab.classes[0][SIM_CLASS_SHARE] = 0.9;
    lab_class(&lab, SIM_WORK_IS_CONSTANT, 0.82)[SIM_CLASS_SHARE] = 0.1;
}

/* The mean depends on the mean work alone, for any number of cores. */
static void mean_is_insensitive_to_the_distribution_of_work(void)
{
    for (uint32_t cores = 1; cores <= 4; cores += 3) {
        double rho = 0.7, expected = erlang(cores, rho);
        one_server(cores, 1, rho);
        work_kind(SIM_WORK_IS_CONSTANT, 0, 0);
        check_mean(expected, 0.08);
        work_kind(SIM_WORK_IS_LOGNORMAL, 1.2, 0);
        check_mean(expected, 0.08);
        work_kind(SIM_WORK_IS_PARETO, 1.5, 10);
        check_mean(expected, 0.08);
        bimodal();
        check_mean(expected, 0.08);
    }
}

/* Sum of durations over sum of works, of requests with work in (low, high]. */
static double stretch(const sim_t *sim, uint32_t environment, double low, double high)
{
    uint64_t count;
    double durations = 0, works = 0;
    const sim_record_t *records = sim_records(sim, environment, &count);
    for (uint64_t i = 0; i < count; i++) {
        double work = (double)records[i].work;
        if (records[i].arrival >= WARMUP && work > low && work <= high) {
            durations += records[i].duration;
            works += work;
        }
    }
    CHECK(works > 0);
    return durations / works;
}

/* A request of work x takes x / (1 - rho) on average, whatever x: Kleinrock's law of fairness. */
static void time_is_proportional_to_the_work(void)
{
    static const double bounds[] = {0, 0.02, 0.05, 0.1, 0.2, 10};
    double rho = 0.7, found[SEEDS];
    one_server(1, 1, rho);
    sim_t *sim = run();
    for (size_t k = 0; k + 1 < sizeof(bounds) / sizeof(*bounds); k++) {
        for (uint32_t i = 0; i < SEEDS; i++) {
            found[i] = stretch(sim, i, bounds[k], bounds[k + 1]);
        }
        check_interval(found, 1 / (1 - rho), 0.08);
    }
    sim_destroy(sim);
}

/* Mean number of requests in the system, sampled, is rate times mean duration; utilization is rho. */
static void number_is_rate_times_duration(void)
{
    double rho = 0.6, rate = rho * 2 / WORK, number[SEEDS] = {0}, busy[SEEDS];
    uint64_t count;
    one_server(2, 1, rho);
    sim_t *sim = run();
    double samples = floor((end - WARMUP) / EVERY) + 1;
    for (uint32_t i = 0; i < SEEDS; i++) {
        const sim_record_t *records = sim_records(sim, i, &count);
        for (uint64_t k = 0; k < count; k++) {
            double first = ceil((records[k].arrival - WARMUP) / EVERY);
            double last = floor((records[k].arrival + records[k].duration - WARMUP) / EVERY);
            number[i] += last >= first && first >= 0 ? last - first + 1 : 0;
        }
        number[i] /= samples * rate * erlang(2, rho);
        busy[i] = sim_results(sim)->busy[i] / sim_results(sim)->offered[i];
        CHECK_NEAR(sim_results(sim)->offered[i], 2 * (end - WARMUP), 1e-6);
    }
    check_interval(number, 1, 0.08);
    check_interval(busy, rho, 0.08);
    sim_destroy(sim);
}

/* ---- With the core ---- */

static void servers_behind_the_core(uint32_t servers, double rho, lbrl_scheduler_type_t scheduler)
{
    one_server(1, 1, rho * servers); /* the rate is of all of them */
    while (lab.environment.servers.count < servers) {
        lab_server(&lab, 1, 1);
    }
    lab.options.rule = SIM_RULE_CORE;
    lab.options.level = LBRL_LEVEL_OFF;
    lab.options.scheduler = (uint8_t)scheduler;
}

/* Random choice splits the arrivals into independent Poisson streams, whatever the balancers. */
static void random_choice_makes_independent_queues(void)
{
    servers_behind_the_core(4, 0.6, LBRL_SCHEDULER_ALIAS);
    lab_balancers(&lab, 3);
    check_mean(WORK / (1 - 0.6), 0.08);
}

/* The shorter of two random queues of many: Vvedenskaya, Dobrushin, Karpelevich, Problems of Information
 * Transmission 32 (1996); Mitzenmacher, IEEE TPDS 12 (2001). Exact for infinitely many: 64 are within 2 %. */
static void two_choices_give_their_limit(void)
{
    double means[SEEDS], rho = 0.7, expected = 0;
    for (int i = 1; i < 8; i++) {
        expected += WORK * pow(rho, pow(2, i) - 2);
    }
    servers_behind_the_core(64, rho, LBRL_SCHEDULER_P2C);
    sim_t *sim = run();
    for (uint32_t i = 0; i < SEEDS; i++) {
        means[i] = lab_mean_duration(sim, i, WARMUP);
    }
    lab_interval_t found = lab_interval(means, SEEDS);
    CHECK_NEAR(found.mean, expected, found.half + 0.02 * expected);
    CHECK_NEAR(found.half / expected, 0, 0.02);
    sim_destroy(sim);
}

int main(void)
{
    random_choice_makes_independent_queues();
    two_choices_give_their_limit();
    mean_of_one_core_is_that_of_mm1();
    mean_of_several_cores_is_that_of_mmc();
    mean_is_insensitive_to_the_distribution_of_work();
    time_is_proportional_to_the_work();
    number_is_rate_times_duration();
    return 0;
}
