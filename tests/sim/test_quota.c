/* CPU quotas against a model of their own: service stops when the CPU seconds of a period are used. */
#include <math.h>

#include "check.h"
#include "lab.h"

#define SEEDS 200u

static lab_t lab;

/* Time of one request alone that begins `left` seconds before the end of a period. */
static double alone(double work, double left, double quota, double period)
{
    double time = 0;
    for (;;) {
        double run = fmin(quota, left);
        if (work <= run) {
            return time + work;
        }
        work -= run;
        time += left;
        left = period;
    }
}

static double mean_alone(double work, double quota, double period)
{
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        sum += alone(work, period * (i + 0.5) / 100000, quota, period);
    }
    return sum / 100000;
}

static void server_with_quota(double cores, double quota, double period)
{
    lab_open(&lab);
    double *row = lab_server(&lab, cores, 1);
    row[SIM_SERVER_QUOTA] = quota;
    row[SIM_SERVER_QUOTA_PERIOD] = period;
    lab.classes[0][SIM_CLASS_WORK_KIND] = SIM_WORK_IS_CONSTANT;
}

/* Requests far apart, at any phase of the periods. */
static void single_requests_take_what_the_model_says(double work, double quota, double period)
{
    double means[SEEDS];
    server_with_quota(1, quota, period);
    for (uint32_t i = 0; i < 20; i++) {
        lab_arrival(&lab, 10 * i + 0.37 * period * i, work, 0);
    }
    sim_t *sim = lab_start(&lab, 1, SEEDS);
    lab_advance(sim, 250);
    for (uint32_t i = 0; i < SEEDS; i++) {
        means[i] = lab_mean_duration(sim, i, 0);
    }
    lab_interval_t found = lab_interval(means, SEEDS);
    CHECK_NEAR(found.mean, mean_alone(work, quota, period), found.half + 1e-9);
    CHECK(found.half < 0.05 * found.mean);
    sim_destroy(sim);
}

/* Four cores, two requests: two CPU seconds per second while service runs. */
static void quota_is_of_all_requests_together(void)
{
    server_with_quota(4, 0.1, 0.1);
    for (uint32_t i = 0; i < 2; i++) {
        lab_arrival(&lab, 5, 1, 0);
    }
    sim_t *sim = lab_start(&lab, 1, 32);
    lab_advance(sim, 20);
    for (uint32_t i = 0; i < 32; i++) {
        CHECK_NEAR(lab_mean_duration(sim, i, 0), 2, 0.1);
        CHECK_NEAR(sim_results(sim)->busy[i], 2, 1e-9);
        CHECK_NEAR(sim_results(sim)->offered[i], 20, 1e-9);
    }
    sim_destroy(sim);
}

/* More load than the quota gives: throughput is that of the quota, in every window. */
static void overload_gets_the_quota(void)
{
    server_with_quota(8, 0.02, 0.01);
    lab.classes[0][SIM_CLASS_WORK_MEAN] = 0.013;
    lab_rate(&lab, 0, 400);
    sim_t *sim = lab_start(&lab, 1, 1);
    lab_advance(sim, 5);
    double before = sim_results(sim)->busy[0];
    for (int i = 1; i <= 50; i++) {
        lab_advance(sim, 5 + i * 0.1);
        double now = sim_results(sim)->busy[0];
        CHECK_NEAR(now - before, 0.2, 0.02 + 1e-9);
        before = now;
    }
    CHECK_NEAR(before, 2 * 10, 0.1);
    sim_destroy(sim);
}

/* A quota that all cores together cannot use changes nothing. */
static void quota_above_the_cores_changes_nothing(void)
{
    uint64_t count, same;
    server_with_quota(2, 0.2, 0.1);
    lab_rate(&lab, 0, 15);
    sim_t *with = lab_start(&lab, 1, 1);
    lab.servers[0][SIM_SERVER_QUOTA] = 0;
    sim_t *without = lab_start(&lab, 1, 1);
    lab_advance(with, 100);
    lab_advance(without, 100);
    const sim_record_t *a = sim_records(with, 0, &count), *b = sim_records(without, 0, &same);
    CHECK_EQUAL(count, same);
    for (uint64_t i = 0; i < count; i++) {
        CHECK_NEAR(a[i].duration, b[i].duration, 1e-9);
    }
    sim_destroy(with);
    sim_destroy(without);
}

/* An oracle compares what servers can do in the long run. */
static void oracle_knows_the_quota(void)
{
    server_with_quota(8, 0.1, 0.1); /* one core */
    lab_server(&lab, 2, 1);
    for (uint32_t i = 0; i < 3; i++) {
        lab_arrival(&lab, 1, 0.1, 0);
    }
    sim_t *sim = lab_start(&lab, 1, 1);
    lab_advance(sim, 20);
    CHECK_EQUAL(sim_results(sim)->completed[0], 1);
    CHECK_EQUAL(sim_results(sim)->completed[1], 2);
    sim_destroy(sim);
}

int main(void)
{
    single_requests_take_what_the_model_says(0.005, 0.02, 0.1);
    single_requests_take_what_the_model_says(0.025, 0.02, 0.1);
    single_requests_take_what_the_model_says(0.11, 0.02, 0.1);
    single_requests_take_what_the_model_says(0.103, 0.005, 0.01);
    quota_is_of_all_requests_together();
    overload_gets_the_quota();
    quota_above_the_cores_changes_nothing();
    oracle_knows_the_quota();
    return 0;
}
