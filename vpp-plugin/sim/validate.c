#include "validate.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "clients.h"
#include "lbrl/lbrl.h"

enum { REAL = 0, WHOLE = 1 };

typedef struct range {
    const char *name;
    double low, high;
    int whole;
} range_t;

#define RANGE(symbol, name, low, high, kind, unit, meaning) {name, low, high, kind},
static const range_t server_ranges[] = {SIM_SERVER_FIELDS(RANGE)};
static const range_t class_ranges[] = {SIM_CLASS_FIELDS(RANGE)};
static const range_t rate_ranges[] = {SIM_RATE_FIELDS(RANGE)};
static const range_t trace_ranges[] = {SIM_TRACE_FIELDS(RANGE)};
static const range_t event_ranges[] = {SIM_EVENT_FIELDS(RANGE)};
#undef RANGE
#define RANGE(symbol, name, low, high, kind, meaning) {"value", low, high, kind},
static const range_t value_ranges[] = {SIM_EVENT_KINDS(RANGE)};
#undef RANGE
#define NAME(symbol, name, low, high, kind, meaning) name,
static const char *const event_names[] = {SIM_EVENT_KINDS(NAME)};
#undef NAME

/* A place in the input, for messages: environments[number].table[row]. */
typedef struct place {
    sim_problem_t *problem;
    uint32_t number;
    const char *table;
    uint64_t row;
} place_t;

int sim_problem_set(sim_problem_t *problem, int error, const char *format, ...)
{
    if (problem != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(problem->text, sizeof(problem->text), format, arguments);
        va_end(arguments);
    }
    return error;
}

static int bad_value(const place_t *place, const char *field, double value, const char *allowed)
{
    return sim_problem_set(place->problem, SIM_ERR_INVALID,
                           "environments[%u].%s[%llu].%s: is %.10g; must be %s", place->number,
                           place->table, (unsigned long long)place->row, field, value, allowed);
}

static int check_range(const place_t *place, const range_t *range, double value)
{
    char allowed[80];
    if (value >= range->low && value <= range->high && (!range->whole || value == floor(value))) {
        return SIM_OK; /* not-a-number compares false */
    }
    snprintf(allowed, sizeof(allowed), "a %snumber from %.10g to %.10g",
             range->whole ? "whole " : "", range->low, range->high);
    return bad_value(place, range->name, value, allowed);
}

static int check_row(const place_t *place, const range_t *ranges, uint32_t columns,
                     const double *row)
{
    for (uint32_t i = 0; i < columns; i++) {
        int error = check_range(place, &ranges[i], row[i]);
        if (error != SIM_OK) {
            return error;
        }
    }
    return SIM_OK;
}

static int check_count(const place_t *place, uint64_t count, uint64_t low, uint64_t high)
{
    if (count >= low && count <= high) {
        return SIM_OK;
    }
    return sim_problem_set(place->problem, SIM_ERR_INVALID,
                           "environments[%u].%s: has %llu rows; must have %llu to %llu",
                           place->number, place->table, (unsigned long long)count,
                           (unsigned long long)low, (unsigned long long)high);
}

static int check_sum(const place_t *place, const char *what, double sum)
{
    if (fabs(sum - 1) <= 1e-6) {
        return SIM_OK;
    }
    return sim_problem_set(place->problem, SIM_ERR_INVALID,
                           "environments[%u].%s: %s add up to %.10g; must add up to 1",
                           place->number, place->table, what, sum);
}

/* Checks a row beyond the ranges of its columns. */
typedef int (*row_check_t)(const place_t *, const sim_environment_t *, const double *row);

static int check_table(place_t *place, const sim_environment_t *environment,
                       const sim_table_t *table, const range_t *ranges, uint32_t columns,
                       row_check_t more)
{
    for (place->row = 0; place->row < table->count; place->row++) {
        const double *row = table->rows + place->row * columns;
        int error = check_row(place, ranges, columns, row);
        if (error == SIM_OK) {
            error = more(place, environment, row);
        }
        if (error != SIM_OK) {
            return error;
        }
    }
    return SIM_OK;
}

static int check_server(const place_t *place, const sim_environment_t *environment,
                        const double *row)
{
    (void)environment;
    if (row[SIM_SERVER_QUOTA] > 0 && row[SIM_SERVER_QUOTA_PERIOD] < 0.001) {
        return bad_value(place, "quota_period", row[SIM_SERVER_QUOTA_PERIOD],
                         "at least 0.001 where quota is above 0");
    }
    return SIM_OK;
}

static int check_shape(const place_t *place, const double *row)
{
    double shape = row[SIM_CLASS_WORK_SHAPE], most = row[SIM_CLASS_WORK_MAX];
    sim_class_t class;
    if (row[SIM_CLASS_WORK_KIND] == SIM_WORK_IS_LOGNORMAL && shape > 5) {
        return bad_value(place, "work_shape", shape, "at most 5 for lognormal work");
    }
    if (row[SIM_CLASS_WORK_KIND] != SIM_WORK_IS_PARETO) {
        return SIM_OK;
    }
    if (shape < 0.05) {
        return bad_value(place, "work_shape", shape, "at least 0.05 for pareto work");
    }
    if (most <= row[SIM_CLASS_WORK_MEAN]) {
        return bad_value(place, "work_max", most, "above work_mean for pareto work");
    }
    if (!sim_class_prepare(&class, row)) {
        return bad_value(place, "work_max", most,
                         "nearer to work_mean: no pareto work has this mean");
    }
    return SIM_OK;
}

static int check_class(const place_t *place, const sim_environment_t *environment,
                       const double *row)
{
    (void)environment;
    double requests = row[SIM_CLASS_REQUESTS];
    if (row[SIM_CLASS_REQUESTS_RANDOM] == 0 && requests != floor(requests)) {
        return bad_value(place, "requests", requests, "a whole number unless requests_random is 1");
    }
    return check_shape(place, row);
}

/* Of tables whose first column is a time. */
static int check_ascending(const place_t *place, const char *field, const double *row,
                           uint32_t columns, bool ties)
{
    if (place->row == 0) {
        return SIM_OK;
    }
    double before = row[-(int)columns];
    if (row[0] > before || (ties && row[0] == before)) {
        return SIM_OK;
    }
    return bad_value(place, field, row[0],
                     ties ? "at least that of the row before" : "above that of the row before");
}

static int check_rate(const place_t *place, const sim_environment_t *environment, const double *row)
{
    (void)environment;
    return check_ascending(place, "from", row, SIM_RATE_COLUMNS, false);
}

static int check_trace(const place_t *place, const sim_environment_t *environment,
                       const double *row)
{
    if (row[SIM_TRACE_CLASS] >= (double)environment->classes.count) {
        return bad_value(place, "class", row[SIM_TRACE_CLASS], "the number of a row of classes");
    }
    return check_ascending(place, "second", row, SIM_TRACE_COLUMNS, true);
}

static int check_event(const place_t *place, const sim_environment_t *environment,
                       const double *row)
{
    uint32_t kind = (uint32_t)row[SIM_EVENT_KIND];
    if (row[SIM_EVENT_SERVER] >= (double)environment->servers.count) {
        return bad_value(place, "server", row[SIM_EVENT_SERVER], "the number of a row of servers");
    }
    int error = check_range(place, &value_ranges[kind], row[SIM_EVENT_VALUE]);
    if (error != SIM_OK) {
        char field[40], allowed[80];
        snprintf(field, sizeof(field), "value of kind %s", event_names[kind]);
        snprintf(allowed, sizeof(allowed), "a %snumber from %.10g to %.10g",
                 value_ranges[kind].whole ? "whole " : "", value_ranges[kind].low,
                 value_ranges[kind].high);
        return bad_value(place, field, row[SIM_EVENT_VALUE], allowed);
    }
    return check_ascending(place, "second", row, SIM_EVENT_COLUMNS, true);
}

static int check_split(place_t *place, const sim_environment_t *environment)
{
    double sum = 0;
    place->table = "split";
    int error = check_count(place, environment->split_count, 1, SIM_BALANCERS_MAX);
    if (error != SIM_OK) {
        return error;
    }
    for (uint64_t i = 0; i < environment->split_count; i++) {
        double share = environment->split[i];
        if (!(share >= 0 && share <= 1)) {
            return sim_problem_set(place->problem, SIM_ERR_INVALID,
                                   "environments[%u].split[%llu]: is %.10g; must be a number "
                                   "from 0 to 1",
                                   place->number, (unsigned long long)i, share);
        }
        sum += share;
    }
    return check_sum(place, "shares", sum);
}

static int check_servers(place_t *place, const sim_environment_t *environment)
{
    place->table = "servers";
    int error = check_count(place, environment->servers.count, 1, SIM_SERVERS_MAX);
    return error != SIM_OK ? error
                           : check_table(place, environment, &environment->servers, server_ranges,
                                         SIM_SERVER_COLUMNS, check_server);
}

static int check_classes(place_t *place, const sim_environment_t *environment)
{
    const sim_table_t *classes = &environment->classes;
    double sum = 0;
    place->table = "classes";
    int error = check_count(place, classes->count, 1, SIM_CLASSES_MAX);
    if (error == SIM_OK) {
        error =
            check_table(place, environment, classes, class_ranges, SIM_CLASS_COLUMNS, check_class);
    }
    for (uint64_t i = 0; error == SIM_OK && i < classes->count; i++) {
        sum += classes->rows[i * SIM_CLASS_COLUMNS + SIM_CLASS_SHARE];
    }
    return error != SIM_OK ? error : check_sum(place, "shares", sum);
}

static int check_arrivals(place_t *place, const sim_environment_t *environment)
{
    if ((environment->rates.count > 0) == (environment->trace.count > 0)) {
        return sim_problem_set(place->problem, SIM_ERR_INVALID,
                               "environments[%u]: must have rows of either rates or trace",
                               place->number);
    }
    place->table = "rates";
    int error = check_count(place, environment->rates.count, 0, SIM_ROWS_MAX);
    if (error == SIM_OK) {
        error = check_table(place, environment, &environment->rates, rate_ranges, SIM_RATE_COLUMNS,
                            check_rate);
    }
    place->table = "trace";
    if (error == SIM_OK) {
        error = check_count(place, environment->trace.count, 0, SIM_ROWS_MAX);
    }
    return error != SIM_OK ? error
                           : check_table(place, environment, &environment->trace, trace_ranges,
                                         SIM_TRACE_COLUMNS, check_trace);
}

static int check_events(place_t *place, const sim_environment_t *environment)
{
    place->table = "events";
    int error = check_count(place, environment->events.count, 0, SIM_ROWS_MAX);
    return error != SIM_OK ? error
                           : check_table(place, environment, &environment->events, event_ranges,
                                         SIM_EVENT_COLUMNS, check_event);
}

int sim_check_environment(const sim_environment_t *environment, uint32_t number,
                          sim_problem_t *problem)
{
    static int (*const checks[])(place_t *, const sim_environment_t *) = {
        check_split, check_servers, check_classes, check_arrivals, check_events};
    place_t place = {.problem = problem, .number = number};
    if (!(environment->warmup >= 0 && environment->warmup <= SIM_TIME_MAX)) {
        return sim_problem_set(problem, SIM_ERR_INVALID,
                               "environments[%u].warmup: is %.10g; must be a number from 0 to "
                               "%.10g",
                               number, environment->warmup, SIM_TIME_MAX);
    }
    for (size_t i = 0; i < sizeof(checks) / sizeof(*checks); i++) {
        int error = checks[i](&place, environment);
        if (error != SIM_OK) {
            return error;
        }
    }
    return SIM_OK;
}

static int check_option(sim_problem_t *problem, const char *name, uint32_t value, uint32_t low,
                        uint32_t high)
{
    if (value >= low && value <= high) {
        return SIM_OK;
    }
    return sim_problem_set(problem, SIM_ERR_INVALID, "%s: is %u; must be a number from %u to %u",
                           name, value, low, high);
}

static int check_sharing(const sim_sharing_t *sharing, sim_problem_t *problem)
{
    if (sharing->interval == 0) {
        return SIM_OK;
    }
    const struct {
        const char *name;
        double value, low, high;
    } checks[] = {
        {"interval", sharing->interval, 0.001, 60},
        {"delay[0]", sharing->delay_low, 0, sharing->interval},
        {"delay[1]", sharing->delay_high, sharing->delay_low, sharing->interval},
        {"loss", sharing->loss, 0, 1},
        {"anticipate", sharing->anticipate, 0, 1},
        {"doubt", sharing->doubt, 0, 1},
        {"mirror", sharing->mirror, 0, 1},
        {"mean", sharing->mean, 0.001, 3600},
    };
    for (size_t i = 0; i < sizeof(checks) / sizeof(*checks); i++) {
        /* written so that not-a-number fails */
        if (!(checks[i].value >= checks[i].low && checks[i].value <= checks[i].high)) {
            return sim_problem_set(problem, SIM_ERR_INVALID,
                                   "sharing.%s: is %g; must be a number from %g to %g",
                                   checks[i].name, checks[i].value, checks[i].low, checks[i].high);
        }
    }
    return SIM_OK;
}

int sim_check_options(const sim_options_t *options, sim_problem_t *problem)
{
    const struct {
        const char *name;
        uint32_t value, low, high;
    } checks[] = {
        {"level", options->level, 0, LBRL_LEVEL_COUNT - 1},
        {"scheduler", options->scheduler, 0, LBRL_SCHEDULER_COUNT - 1},
        {"load", options->load, 0, LBRL_LOAD_COUNT - 1},
        {"forwarding", options->forwarding, LBRL_FORWARD_NAT, LBRL_FORWARD_GRE},
        {"rule", options->rule, 0, SIM_RULE_COUNT - 1},
        {"threads", options->threads, 1, SIM_THREADS_MAX},
    };
    for (size_t i = 0; i < sizeof(checks) / sizeof(*checks); i++) {
        int error =
            check_option(problem, checks[i].name, checks[i].value, checks[i].low, checks[i].high);
        if (error != SIM_OK) {
            return error;
        }
    }
    return check_sharing(&options->sharing, problem);
}
