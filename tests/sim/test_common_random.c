/* Common random numbers: what clients do depends on the seed alone, not on who picks servers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "lab.h"
#include "lbrl/lbrl.h"

#define BALANCERS 3u

static lab_t lab;

static void scenario(void)
{
    static const double cores[] = {1, 1, 2, 2, 4, 4, 8, 8};
    lab_open(&lab);
    lab_balancers(&lab, BALANCERS);
    for (size_t i = 0; i < sizeof(cores) / sizeof(*cores); i++) {
        lab_server(&lab, cores[i], i % 2 ? 1 : 0.5);
    }
    lab.classes[0][SIM_CLASS_SHARE] = 0.6;
    double *other = lab_class(&lab, SIM_WORK_IS_LOGNORMAL, 0.05);
    other[SIM_CLASS_SHARE] = 0.4;
    other[SIM_CLASS_WORK_SHAPE] = 1;
    other[SIM_CLASS_IO_MEAN] = 0.03;
    lab_rate(&lab, 0, 120);
    lab_rate(&lab, 20, 60);
    lab_rate(&lab, 40, 0); /* so that everything ends */
}

static int by_arrival(const void *a, const void *b)
{
    double x = ((const sim_record_t *)a)->arrival, y = ((const sim_record_t *)b)->arrival;
    return (x > y) - (x < y);
}

static int by_connection(const void *a, const void *b)
{
    uint32_t x = ((const sim_record_t *)a)->connection, y = ((const sim_record_t *)b)->connection;
    return x == y ? by_arrival(a, b) : (x > y) - (x < y);
}

typedef struct policy {
    sim_rule_t rule;
    lbrl_scheduler_type_t scheduler;
    bool acts;
} policy_t;

/* Weights of no meaning that change all the time. */
static void act(sim_t *sim, uint32_t step)
{
    sim_problem_t problem;
    const sim_results_t *results = sim_results(sim);
    size_t count = (size_t)results->environments * results->balancers * results->slots;
    float *weights = calloc(count, sizeof(*weights));
    CHECK(weights != NULL);
    for (size_t i = 0; i < count; i++) {
        weights[i] = (float)(1 + (i * 7 + step) % 5);
    }
    CHECK_EQUAL(sim_act(sim, weights, NULL, false, &problem), SIM_OK);
    free(weights);
}

static sim_t *run(policy_t policy)
{
    lab.options.rule = (uint8_t)policy.rule;
    lab.options.scheduler = (uint8_t)policy.scheduler;
    lab.options.level = LBRL_LEVEL_FULL;
    lab.options.load = LBRL_LOAD_ACTIVE;
    sim_t *sim = lab_start(&lab, 77, 1);
    for (uint32_t step = 1; step <= 500; step++) {
        lab_advance(sim, step * 0.2);
        if (policy.acts) {
            act(sim, step);
        }
    }
    return sim;
}

static sim_record_t *sorted(const sim_t *sim, int (*order)(const void *, const void *),
                            uint64_t *count)
{
    const sim_record_t *records = sim_records(sim, 0, count);
    sim_record_t *copy = malloc(*count * sizeof(*copy));
    CHECK(copy != NULL);
    memcpy(copy, records, *count * sizeof(*copy));
    qsort(copy, *count, sizeof(*copy), order);
    return copy;
}

static const policy_t policies[] = {
    {SIM_RULE_SED, 0, false},
    {SIM_RULE_MARGINAL, 0, false},
    {SIM_RULE_CORE, LBRL_SCHEDULER_LSQ, false},
    {SIM_RULE_CORE, LBRL_SCHEDULER_P2C, false},
    {SIM_RULE_CORE, LBRL_SCHEDULER_SED, true},
    {SIM_RULE_CORE, LBRL_SCHEDULER_MAGLEV, false},
};

static void connections_are_the_same_under_every_policy(void)
{
    uint64_t count, same;
    uint32_t moved = 0;
    scenario();
    sim_t *first = run(policies[0]);
    sim_record_t *expected = sorted(first, by_arrival, &count);
    CHECK(count > 2000);
    for (size_t k = 1; k < sizeof(policies) / sizeof(*policies); k++) {
        sim_t *sim = run(policies[k]);
        sim_record_t *found = sorted(sim, by_arrival, &same);
        CHECK_EQUAL(same, count);
        for (uint64_t i = 0; i < count; i++) {
            CHECK(found[i].arrival == expected[i].arrival && found[i].work == expected[i].work);
            CHECK_EQUAL(found[i].balancer, expected[i].balancer);
            CHECK_EQUAL(found[i].class_number, expected[i].class_number);
            CHECK(!isnan(found[i].duration));
            moved += found[i].server != expected[i].server;
        }
        free(found);
        sim_destroy(sim);
    }
    CHECK(moved > count);
    free(expected);
    sim_destroy(first);
}

/* A later request of a connection begins when the one before has been answered, and its pause is over. */
static void check_pauses(const sim_record_t *records, uint64_t count)
{
    for (uint64_t i = 1; i < count; i++) {
        const sim_record_t *before = &records[i - 1];
        if (records[i].connection == before->connection) {
            double due = before->arrival + before->duration + before->pause;
            CHECK(fabs(records[i].arrival - due) < 1e-6 * due);
        }
    }
}

/* Later requests of a connection begin when policies let them, but all that is drawn for them is the same. */
static void later_requests_have_the_same_draws(void)
{
    uint64_t count, same;
    scenario();
    lab.rates[0][SIM_RATE_RATE] = 20;
    lab.rates[1][SIM_RATE_RATE] = 10;
    for (int i = 0; i < 2; i++) {
        lab.classes[i][SIM_CLASS_REQUESTS] = 5;
        lab.classes[i][SIM_CLASS_REQUESTS_RANDOM] = 1;
        lab.classes[i][SIM_CLASS_THINK_MEAN] = 0.2;
        lab.classes[i][SIM_CLASS_IDLE_SHARE] = 0.5;
        lab.classes[i][SIM_CLASS_IDLE_MEAN] = 0.3;
    }
    sim_t *first = run(policies[0]);
    sim_record_t *expected = sorted(first, by_connection, &count);
    check_pauses(expected, count);
    for (size_t k = 1; k < sizeof(policies) / sizeof(*policies); k++) {
        sim_t *sim = run(policies[k]);
        sim_record_t *found = sorted(sim, by_connection, &same);
        CHECK_EQUAL(same, count);
        for (uint64_t i = 0; i < count; i++) {
            CHECK_EQUAL(found[i].connection, expected[i].connection);
            CHECK(found[i].work == expected[i].work && found[i].io == expected[i].io);
            CHECK(found[i].pause == expected[i].pause);
        }
        check_pauses(found, same);
        free(found);
        sim_destroy(sim);
    }
    free(expected);
    sim_destroy(first);
}

/* Streams are apart: other balancers change neither arrivals nor works. */
static void number_of_balancers_changes_no_arrival(void)
{
    uint64_t count, same;
    scenario();
    sim_t *first = run(policies[0]);
    lab_balancers(&lab, 1);
    sim_t *second = run(policies[0]);
    sim_record_t *a = sorted(first, by_arrival, &count), *b = sorted(second, by_arrival, &same);
    CHECK_EQUAL(count, same);
    for (uint64_t i = 0; i < count; i++) {
        CHECK(a[i].arrival == b[i].arrival && a[i].work == b[i].work);
    }
    free(a);
    free(b);
    sim_destroy(first);
    sim_destroy(second);
}

int main(void)
{
    connections_are_the_same_under_every_policy();
    later_requests_have_the_same_draws();
    number_of_balancers_changes_no_arrival();
    return 0;
}
