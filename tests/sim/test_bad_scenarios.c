/* Scenarios come from anybody: every bad one is refused, by a message that names the place. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "lab.h"
#include "lbrl/lbrl.h"

static lab_t lab;

static void good(void)
{
    lab_open(&lab);
    lab_server(&lab, 1, 1);
    lab_server(&lab, 2, 1);
    lab_rate(&lab, 0, 5);
    lab_rate(&lab, 10, 5);
    lab_event(&lab, 1, SIM_EVENT_IS_SPEED, 0, 0.5);
    lab_event(&lab, 2, SIM_EVENT_IS_CORES, 1, 2);
}

static void refused(const char *expected)
{
    sim_problem_t problem = {"none"};
    sim_t *sim = (sim_t *)&lab;
    CHECK_EQUAL(sim_create(&sim, &lab.options, &lab.environment, 1, &problem), SIM_ERR_INVALID);
    CHECK(sim == NULL);
    if (strstr(problem.text, expected) == NULL) {
        fprintf(stderr, "message is \"%s\", expected \"%s\"\n", problem.text, expected);
    }
    CHECK(strstr(problem.text, expected) != NULL);
    CHECK_EQUAL(sim_create(&sim, &lab.options, &lab.environment, 1, NULL), SIM_ERR_INVALID);
}

/* Every number of every table: not-a-number, infinite, below and above its range. */
static void no_column_takes_what_is_no_number(void)
{
    static const double bad[] = {NAN, INFINITY, -INFINITY, -1, 1e300};
    double *const rows[] = {lab.servers[1], lab.classes[0], lab.rates[1], lab.events[1]};
    static const char *const tables[] = {"servers[1].", "classes[0].", "rates[1].", "events[1]."};
    static const size_t columns[] = {SIM_SERVER_COLUMNS, SIM_CLASS_COLUMNS, SIM_RATE_COLUMNS,
                                     SIM_EVENT_COLUMNS};
    for (size_t table = 0; table < 4; table++) {
        for (size_t column = 0; column < columns[table]; column++) {
            for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                good();
                rows[table][column] = bad[i];
                refused(tables[table]);
            }
        }
    }
    good();
    lab.environment.rates.count = 0;
    for (int column = 0; column < SIM_TRACE_COLUMNS; column++) {
        lab.environment.trace.count = 0;
        lab_arrival(&lab, 1, 1, 0);
        lab.trace[0][column] = NAN;
        refused("trace[0].");
    }
}

static void messages_name_place_value_and_range(void)
{
    good();
    lab.servers[1][SIM_SERVER_CORES] = -1;
    refused("environments[0].servers[1].cores: is -1; must be a number from 0.001 to 4096");
    good();
    lab.servers[0][SIM_SERVER_LIMIT] = 1.5;
    refused("environments[0].servers[0].limit: is 1.5; must be a whole number from 0 to 1048576");
    good();
    lab.servers[0][SIM_SERVER_QUOTA] = 1;
    refused("servers[0].quota_period: is 0; must be at least 0.001 where quota is above 0");
    good();
    lab.events[1][SIM_EVENT_SECOND] = 0.5;
    refused("events[1].second: is 0.5; must be at least that of the row before");
    good();
    lab.events[1][SIM_EVENT_SERVER] = 2;
    refused("events[1].server: is 2; must be the number of a row of servers");
    good();
    lab.events[1][SIM_EVENT_VALUE] = 0;
    refused("events[1].value of kind cores: is 0; must be a number from 0.001 to 4096");
    good();
    lab.rates[1][SIM_RATE_FROM] = 0;
    refused("rates[1].from: is 0; must be above that of the row before");
}

static void classes_must_fit_together(void)
{
    good();
    lab.classes[0][SIM_CLASS_SHARE] = 0.5;
    refused("classes: shares add up to 0.5; must add up to 1");
    good();
    lab.classes[0][SIM_CLASS_REQUESTS] = 1.5;
    refused("classes[0].requests: is 1.5; must be a whole number unless requests_random is 1");
    good();
    lab.classes[0][SIM_CLASS_WORK_KIND] = SIM_WORK_IS_LOGNORMAL;
    lab.classes[0][SIM_CLASS_WORK_SHAPE] = 6;
    refused("classes[0].work_shape: is 6; must be at most 5 for lognormal work");
    good();
    lab.classes[0][SIM_CLASS_WORK_KIND] = SIM_WORK_IS_PARETO;
    refused("classes[0].work_shape: is 0; must be at least 0.05 for pareto work");
    lab.classes[0][SIM_CLASS_WORK_SHAPE] = 1;
    lab.classes[0][SIM_CLASS_WORK_MAX] = 0.1;
    refused("classes[0].work_max: is 0.1; must be above work_mean for pareto work");
    lab.classes[0][SIM_CLASS_WORK_MEAN] = 1e-9;
    lab.classes[0][SIM_CLASS_WORK_SHAPE] = 0.05;
    lab.classes[0][SIM_CLASS_WORK_MAX] = 1e9;
    refused("classes[0].work_max: is 1000000000; must be nearer to work_mean");
}

static void tables_have_a_size(void)
{
    good();
    lab.environment.servers.count = 0;
    refused("environments[0].servers: has 0 rows; must have 1 to 1024");
    lab.environment.servers.count = 1000000000;
    refused("environments[0].servers: has 1000000000 rows");
    good();
    lab.environment.classes.count = UINT64_MAX;
    refused("classes: has 18446744073709551615 rows");
    good();
    lab.environment.events.count = UINT64_MAX;
    refused("events: has");
    good();
    lab.environment.split_count = 65;
    refused("split: has 65 rows; must have 1 to 64");
    good();
    lab.environment.rates.count = 0;
    refused("must have rows of either rates or trace");
    good();
    lab_arrival(&lab, 1, 1, 0);
    refused("must have rows of either rates or trace");
    lab.environment.rates.count = 0;
    lab.trace[0][SIM_TRACE_CLASS] = 1;
    refused("trace[0].class: is 1; must be the number of a row of classes");
}

static void rest_is_checked(void)
{
    good();
    lab.split[0] = NAN;
    refused("split[0]: is nan; must be a number from 0 to 1");
    lab.split[0] = 0.5;
    refused("split: shares add up to 0.5; must add up to 1");
    good();
    lab.environment.warmup = NAN;
    refused("warmup: is nan; must be a number from 0 to 1000000000");
    good();
    lab.options.threads = 0;
    refused("threads: is 0; must be a number from 1 to 256");
    good();
    lab.options.forwarding = LBRL_FORWARD_L3DSR;
    refused("forwarding: is 2; must be a number from 0 to 1");
    good();
    lab.options.rule = SIM_RULE_COUNT;
    refused("rule: is 3; must be a number from 0 to 2");
}

/* Each environment is allowed, all together are not: nothing is allocated. */
static void batch_has_a_size(void)
{
    static sim_environment_t environments[SIM_ENVIRONMENTS_MAX];
    sim_problem_t problem;
    sim_t *sim;
    good();
    lab_balancers(&lab, 64);
    for (uint32_t i = 0; i < SIM_ENVIRONMENTS_MAX; i++) {
        environments[i] = lab.environment;
    }
    CHECK_EQUAL(sim_create(&sim, &lab.options, environments, SIM_ENVIRONMENTS_MAX, &problem),
                SIM_ERR_INVALID);
    CHECK(strstr(problem.text, "at most 8192 balancers") != NULL);
    CHECK_EQUAL(sim_create(&sim, &lab.options, environments, 0, &problem), SIM_ERR_INVALID);
    CHECK_EQUAL(sim_create(&sim, &lab.options, environments, SIM_ENVIRONMENTS_MAX + 1, &problem),
                SIM_ERR_INVALID);
    environments[1].warmup = -1;
    CHECK_EQUAL(sim_create(&sim, &lab.options, environments, 2, &problem), SIM_ERR_INVALID);
    CHECK(strstr(problem.text, "environments[1].warmup") != NULL);
}

static void time_only_advances(void)
{
    static const double bad[] = {0.5, -1, NAN, INFINITY, 2e9};
    sim_problem_t problem;
    good();
    sim_t *sim = lab_start(&lab, 1, 1);
    lab_advance(sim, 1);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        CHECK_EQUAL(sim_advance(sim, bad[i], &problem), SIM_ERR_INVALID);
        CHECK(strstr(problem.text, "until: is ") != NULL);
    }
    lab_advance(sim, 1);
    sim_destroy(sim);
}

/* A server that stands still gathers connections: an error in place of all memory. */
static void connections_are_bounded(void)
{
    sim_problem_t problem;
    good();
    lab.environment.events.count = 0;
    lab_event(&lab, 0, SIM_EVENT_IS_SPEED, 0, 0);
    lab_event(&lab, 0, SIM_EVENT_IS_SPEED, 1, 0);
    lab.environment.rates.count = 0;
    lab_rate(&lab, 0, 1e6);
    sim_t *sim = lab_start(&lab, 1, 1);
    CHECK_EQUAL(sim_advance(sim, 10, &problem), SIM_ERR_LIMIT);
    CHECK(strstr(problem.text, "environments[0]: at 1.0") != NULL);
    CHECK(strstr(problem.text, "more than 1048576 connections are open") != NULL);
    CHECK_EQUAL(sim_advance(sim, 10, &problem), SIM_ERR_INVALID);
    CHECK(strstr(problem.text, "has ended with an error") != NULL);
    sim_destroy(sim);
}

/* Oracles have no core, and levels have their channels. */
static void agents_are_checked(void)
{
    static const lbrl_channel_t channels[] = {LBRL_CHANNEL_FCT, LBRL_CHANNEL_WIN};
    static double values[2][1000];
    static float weights[64];
    double *const out[] = {values[0], values[1]};
    sim_problem_t problem;
    good();
    sim_t *sim = lab_start(&lab, 1, 1);
    CHECK_EQUAL(sim_act(sim, weights, NULL, false, &problem), SIM_ERR_INVALID);
    CHECK_EQUAL(sim_reduce(sim, channels, 1, out, &problem), SIM_ERR_INVALID);
    CHECK(strstr(problem.text, "rule: is 1; must be 0") != NULL);
    sim_destroy(sim);
    lab.options.rule = SIM_RULE_CORE;
    lab.options.level = LBRL_LEVEL_BASIC;
    sim = lab_start(&lab, 1, 1);
    CHECK_EQUAL(sim_reduce(sim, channels, 1, out, &problem), SIM_OK);
    CHECK_EQUAL(sim_reduce(sim, channels, 2, out, &problem), SIM_ERR_CORE);
    CHECK(strstr(problem.text, "channels[1]: is not recorded at level basic") != NULL);
    CHECK_EQUAL(sim_act(sim, weights, NULL, false, &problem), SIM_ERR_CORE); /* all of them 0 */
    CHECK(strstr(problem.text, "weights[0, 0]: ") != NULL);
    lab_advance(sim, 1);
    sim_destroy(sim);
}

int main(void)
{
    no_column_takes_what_is_no_number();
    messages_name_place_value_and_range();
    classes_must_fit_together();
    tables_have_a_size();
    rest_is_checked();
    batch_has_a_size();
    time_only_advances();
    connections_are_bounded();
    agents_are_checked();
    return 0;
}
