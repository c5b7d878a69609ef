/* Flow events per second of one core: a flow event is the arrival or the completion of a connection. Frames are
 * published every 200 ms of virtual time, as agents read them. */
#include "../core/bench_report.h"

#include "lab.h"
#include "lbrl/lbrl.h"
#include "lbrl/reduce.h"

enum {
    RUNS = 7,
    STEPS_PER_SECOND = 5,
    WARMUP_STEPS = 50,
};

static lab_t lab;

/* Servers of 1, 1, 2, 2, 4, 4, 8, 8 cores in turn at a load of 0.85, work of 0.1 s, exponential. */
static void scenario(uint32_t servers, uint32_t balancers)
{
    static const double cores[] = {1, 1, 2, 2, 4, 4, 8, 8};
    double capacity = 0;
    lab_open(&lab);
    lab.options.record = false;
    lab_balancers(&lab, balancers);
    for (uint32_t i = 0; i < servers; i++) {
        capacity += cores[i % 8];
        lab_server(&lab, cores[i % 8], 1)[SIM_SERVER_WEIGHT] = cores[i % 8];
    }
    lab_rate(&lab, 0, 0.85 * capacity / 0.1);
}

static void with_core(uint8_t level, uint8_t load)
{
    lab.options.rule = SIM_RULE_CORE;
    lab.options.level = level;
    lab.options.scheduler = LBRL_SCHEDULER_SED;
    lab.options.load = load;
}

/* What an agent does every step beside its policy. */
typedef void (*agent_t)(sim_t *sim);

static void nobody(sim_t *sim)
{
    (void)sim;
}

static void check(int error, const sim_problem_t *problem)
{
    if (error != SIM_OK) {
        fprintf(stderr, "%s\n", problem->text);
        exit(1);
    }
}

/* Weights that follow the counts of active flows. */
static void learned(sim_t *sim)
{
    static float weights[6 * 256];
    const sim_results_t *results = sim_results(sim);
    const int64_t *active = results->counters[LBRL_COUNTER_N_ACTIVE];
    sim_problem_t problem;
    for (uint32_t i = 0; i < results->balancers * results->slots; i++) {
        weights[i] = (float)(results->configured[i] * (1 + 0.01 * (double)(active[i] % 8)));
    }
    check(sim_act(sim, weights, NULL, false, &problem), &problem);
}

/* The same, after a reduction of every channel, as of policies that look at all features. */
static void learned_of_all(sim_t *sim)
{
    static double reduced[LBRL_CHANNEL_COUNT][5 * 6 * 256];
    lbrl_channel_t channels[LBRL_CHANNEL_COUNT];
    double *out[LBRL_CHANNEL_COUNT];
    sim_problem_t problem;
    for (uint32_t i = 0; i < LBRL_CHANNEL_COUNT; i++) {
        channels[i] = (lbrl_channel_t)i;
        out[i] = reduced[i];
    }
    check(sim_reduce(sim, channels, LBRL_CHANNEL_COUNT, out, &problem), &problem);
    learned(sim);
}

static uint64_t flow_events(const sim_t *sim)
{
    sim_totals_t totals = sim_totals(sim);
    return totals.arrivals + totals.completions;
}

static double events_per_second(double seconds, agent_t agent)
{
    sim_t *sim = lab_start(&lab, 1, 1);
    uint32_t step = 0;
    while (++step <= WARMUP_STEPS) {
        lab_advance(sim, (double)step / STEPS_PER_SECOND);
        agent(sim);
    }
    uint64_t before = flow_events(sim);
    double started = nanoseconds();
    for (; step <= WARMUP_STEPS + seconds * STEPS_PER_SECOND; step++) {
        lab_advance(sim, (double)step / STEPS_PER_SECOND);
        agent(sim);
    }
    double spent = (nanoseconds() - started) * 1e-9;
    double rate = (double)(flow_events(sim) - before) / spent;
    sim_destroy(sim);
    return rate;
}

static void measure(const char *name, double seconds, agent_t agent)
{
    double runs[RUNS], sorted[RUNS];
    for (int i = 0; i < RUNS; i++) {
        sorted[i] = runs[i] = events_per_second(seconds, agent);
    }
    printf("{\"name\": \"sim_%s\", \"value\": %.4g, \"unit\": \"flow events per core and second\", "
           "\"runs\": [",
           name, median(sorted, RUNS));
    for (int i = 0; i < RUNS; i++) {
        printf("%s%.5g", i ? ", " : "", runs[i]);
    }
    puts("]}");
    fflush(stdout);
}

int main(void)
{
    scenario(8, 1);
    measure("engine_8", 4000, nobody);
    scenario(8, 1);
    with_core(LBRL_LEVEL_BASIC, LBRL_LOAD_OPEN);
    measure("flows_8", 2000, nobody);
    scenario(64, 6);
    with_core(LBRL_LEVEL_BASIC, LBRL_LOAD_OPEN);
    measure("flows_64_6", 250, nobody);
    scenario(64, 6);
    with_core(LBRL_LEVEL_FULL, LBRL_LOAD_ACTIVE);
    measure("loop_64_6", 250, learned);
    measure("loop_64_6_all_features", 10, learned_of_all);
    return 0;
}
