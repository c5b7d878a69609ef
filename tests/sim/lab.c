#include "lab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

void lab_open(lab_t *lab)
{
    memset(lab, 0, sizeof(*lab));
    lab->options = (sim_options_t){.rule = SIM_RULE_SED, .record = true, .threads = 1};
    lab->environment.split = lab->split;
    lab->environment.servers.rows = &lab->servers[0][0];
    lab->environment.classes.rows = &lab->classes[0][0];
    lab->environment.rates.rows = &lab->rates[0][0];
    lab->environment.trace.rows = &lab->trace[0][0];
    lab->environment.events.rows = &lab->events[0][0];
    lab_balancers(lab, 1);
    lab_class(lab, SIM_WORK_IS_EXPONENTIAL, 0.1)[SIM_CLASS_SHARE] = 1;
}

double *lab_server(lab_t *lab, double cores, double speed)
{
    double *row = lab->servers[lab->environment.servers.count++];
    row[SIM_SERVER_CORES] = cores;
    row[SIM_SERVER_SPEED] = speed;
    row[SIM_SERVER_WEIGHT] = 1;
    row[SIM_SERVER_PRESENT] = 1;
    return row;
}

double *lab_class(lab_t *lab, sim_work_kind_t kind, double mean)
{
    double *row = lab->classes[lab->environment.classes.count++];
    row[SIM_CLASS_WORK_KIND] = kind;
    row[SIM_CLASS_WORK_MEAN] = mean;
    row[SIM_CLASS_REQUESTS] = 1;
    row[SIM_CLASS_REQUEST_BYTES] = 100;
    row[SIM_CLASS_RESPONSE_BYTES] = 1000;
    return row;
}

void lab_balancers(lab_t *lab, uint32_t count)
{
    lab->environment.split_count = count;
    for (uint32_t i = 0; i < count; i++) {
        lab->split[i] = 1.0 / count;
    }
}

void lab_rate(lab_t *lab, double from, double rate)
{
    double *row = lab->rates[lab->environment.rates.count++];
    row[SIM_RATE_FROM] = from;
    row[SIM_RATE_RATE] = rate;
}

void lab_arrival(lab_t *lab, double second, double work, uint32_t class_number)
{
    double *row = lab->trace[lab->environment.trace.count++];
    row[SIM_TRACE_ARRIVAL] = second;
    row[SIM_TRACE_WORK] = work;
    row[SIM_TRACE_CLASS] = class_number;
}

void lab_event(lab_t *lab, double second, sim_event_kind_t kind, uint32_t server, double value)
{
    double *row = lab->events[lab->environment.events.count++];
    row[SIM_EVENT_SECOND] = second;
    row[SIM_EVENT_KIND] = kind;
    row[SIM_EVENT_SERVER] = server;
    row[SIM_EVENT_VALUE] = value;
}

static void ended(int error, const sim_problem_t *problem)
{
    if (error != SIM_OK) {
        fprintf(stderr, "error %d: %s\n", error, problem->text);
        exit(1);
    }
}

sim_t *lab_start(const lab_t *lab, uint64_t seed, uint32_t count)
{
    sim_environment_t *environments = malloc(count * sizeof(*environments));
    sim_problem_t problem;
    sim_t *sim;
    CHECK(environments != NULL);
    for (uint32_t i = 0; i < count; i++) {
        environments[i] = lab->environment;
        environments[i].seed = seed + i;
    }
    ended(sim_create(&sim, &lab->options, environments, count, &problem), &problem);
    free(environments);
    return sim;
}

void lab_advance(sim_t *sim, double until)
{
    sim_problem_t problem;
    ended(sim_advance(sim, until, &problem), &problem);
}

lab_interval_t lab_interval(const double *values, uint32_t count)
{
    /* 3.9 is the 99.9 % point of Student's distribution from 20 degrees of freedom on. */
    double sum = 0, squares = 0;
    CHECK(count > 20);
    for (uint32_t i = 0; i < count; i++) {
        sum += values[i];
    }
    double mean = sum / count;
    for (uint32_t i = 0; i < count; i++) {
        squares += (values[i] - mean) * (values[i] - mean);
    }
    return (lab_interval_t){mean, 3.9 * sqrt(squares / (count - 1) / count)};
}

double lab_mean_duration(const sim_t *sim, uint32_t environment, double since)
{
    uint64_t count, counted = 0;
    double sum = 0;
    const sim_record_t *records = sim_records(sim, environment, &count);
    for (uint64_t i = 0; i < count; i++) {
        if (records[i].arrival >= since) {
            sum += records[i].duration;
            counted++;
        }
    }
    CHECK(counted > 0);
    return sum / (double)counted;
}
