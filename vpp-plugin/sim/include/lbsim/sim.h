/*
 * lbsim: a discrete-event simulator of clients and servers around the real load balancer (lbrl), in
 * virtual time. A simulation is a batch of environments. An environment is one scenario with one
 * seed: connections arrive, an ECMP split assigns each to a balancer, the balancer picks a server,
 * and the server works on the requests of the connection.
 *
 * Servers. The requests in service of a server share its processors: each of n progresses at
 *
 *     speed x factor x min(1, cores / n) / (1 + thrash x max(0, n - thrash_from))
 *
 * work seconds per second (egalitarian processor sharing, at most one core per request). With a
 * quota, n requests use min(n, cores) CPU seconds per second; when those of a period are used, all
 * service stops until the next period begins (CFS bandwidth control of Linux). After the CPU work a
 * request may wait for input and output, which uses no CPU. Kleinrock, "Time-shared Systems: a
 * theoretical treatment", J. ACM 14 (1967); for insensitivity to the distribution of work: Kelly,
 * "Reversibility and Stochastic Networks" (1979), chapter 3.
 *
 * Randomness. All of it comes from the seed of the environment, in separate streams: arrivals,
 * balancers, one stream per connection (class, number of requests, works, pauses), phases of quota
 * periods, ties of the oracles, and the schedulers of each balancer. Streams of clients do not depend
 * on what balancers decide, so two policies under one seed see the same connections (common random
 * numbers). Generators: xoshiro256++ and splitmix64 (Blackman and Vigna, ACM TOMS 47, 2021).
 *
 * Order of simultaneous events: scenario events in their order, then completions by server number,
 * then delays of connections in the order in which they were started, then messages between
 * balancers, then ticks of the balancers,
 * then arrivals. Results depend on the inputs alone, not on the number of threads.
 *
 * Units are seconds, work seconds (CPU seconds at speed 1), bytes. Virtual time starts at 0. The core
 * sees now_us = 1,000,000 + time x 1,000,000.
 *
 * Threading. One thread calls everything that takes a sim_t; sim_advance() starts threads of its own
 * and joins them before it returns. No global state.
 *
 * Errors. Functions that can fail return SIM_OK or a negative sim_error_t and fill a sim_problem_t,
 * which may be NULL. After sim_advance() has failed, the simulation can only be read and destroyed.
 */
#ifndef LBSIM_SIM_H
#define LBSIM_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "lbrl/features.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SIM_ENVIRONMENTS_MAX 1024u
#define SIM_BALANCERS_MAX    64u
#define SIM_SERVERS_MAX      1024u
#define SIM_CLASSES_MAX      64u
#define SIM_ROWS_MAX         (1u << 24) /* of rates, trace or events */
#define SIM_THREADS_MAX      256u
#define SIM_TIME_MAX         1e9 /* seconds: microseconds of it are exact in a double */

/* Bounds of what an environment keeps at one time; beyond them sim_advance() fails. */
#define SIM_CONNECTIONS_MAX (1u << 20)
#define SIM_RECORDS_MAX     (1u << 25)

typedef enum sim_error {
    SIM_OK = 0,
    SIM_ERR_INVALID = -201, /* an argument is out of its range */
    SIM_ERR_MEMORY = -202,  /* no memory */
    SIM_ERR_LIMIT = -203,   /* more connections or records than the bounds above */
    SIM_ERR_CORE = -204,    /* the core refused a configuration, weights or channels */
} sim_error_t;

/* What is wrong, for people: "environments[0].servers[3].cores: is -1; must be ...". */
typedef struct sim_problem {
    char text[240];
} sim_problem_t;

/* ---- Columns ----
 *
 * Each table below is the one definition of its columns: of their order, names, ranges and units.
 *
 * X(symbol, name, lowest, highest, kind, unit, meaning); kind is REAL or WHOLE. */
#define SIM_SERVER_FIELDS(X)                                                                       \
    X(CORES, "cores", 0.001, 4096, REAL, "cores", "processors")                                    \
    X(SPEED, "speed", 0.000001, 1e6, REAL, "work seconds per second and core", "nominal speed")    \
    X(LIMIT, "limit", 0, 1048576, WHOLE, "requests", "served at once; 0: no limit")                \
    X(BACKLOG, "backlog", 0, 1048576, WHOLE, "requests",                                           \
      "wait first-in first-out beyond the limit; more are refused")                                \
    X(THRASH_FROM, "thrash_from", 0, 1e6, REAL, "requests", "in service without any loss")         \
    X(THRASH, "thrash", 0, 1000, REAL, "per request", "loss of capacity beyond thrash_from")       \
    X(QUOTA, "quota", 0, 1e6, REAL, "CPU seconds per period", "0: no quota")                       \
    X(QUOTA_PERIOD, "quota_period", 0, 1000, REAL, "seconds",                                      \
      "at least 0.001 where there is a quota")                                                     \
    X(LATENCY, "latency", 0, 60, REAL, "seconds", "balancer to server, one way")                   \
    X(WEIGHT, "weight", 0, 1e6, REAL, "", "configured weight")                                     \
    X(PRESENT, "present", 0, 1, WHOLE, "", "0: absent until an event of kind state adds it")

#define SIM_CLASS_FIELDS(X)                                                                        \
    X(SHARE, "share", 0, 1, REAL, "of the connections", "all shares add up to 1")                  \
    X(WORK_KIND, "work_kind", 0, 3, WHOLE, "", "number in SIM_WORK_KINDS")                         \
    X(WORK_MEAN, "work_mean", 1e-9, 1e6, REAL, "work seconds", "mean work of a request")           \
    X(WORK_SHAPE, "work_shape", 0, 100, REAL, "",                                                  \
      "sigma of lognormal, at most 5; alpha of pareto, at least 0.05")                             \
    X(WORK_MAX, "work_max", 0, 1e9, REAL, "work seconds",                                          \
      "bound of pareto, above work_mean; else unused")                                             \
    X(IO_MEAN, "io_mean", 0, 1e6, REAL, "seconds", "exponential delay after the work; 0: none")    \
    X(REQUESTS, "requests", 1, 1e6, REAL, "per connection",                                        \
      "mean; a whole number unless requests_random is 1")                                          \
    X(REQUESTS_RANDOM, "requests_random", 0, 1, WHOLE, "", "1: geometric")                         \
    X(THINK_MEAN, "think_mean", 0, 1e6, REAL, "seconds",                                           \
      "exponential pause between the requests of a connection")                                    \
    X(IDLE_SHARE, "idle_share", 0, 1, REAL, "of the connections",                                  \
      "stay open after their last response")                                                       \
    X(IDLE_MEAN, "idle_mean", 0, 1e6, REAL, "seconds", "exponential time that they stay open")     \
    X(REQUEST_BYTES, "request_bytes", 1, 1048576, WHOLE, "bytes", "payload of a request")          \
    X(RESPONSE_BYTES, "response_bytes", 1, 1073741824, WHOLE, "bytes", "payload of a response")

/* Of rates: piecewise constant, Poisson; before the first row no connection arrives. */
#define SIM_RATE_FIELDS(X)                                                                         \
    X(FROM, "from", 0, SIM_TIME_MAX, REAL, "seconds", "ascending")                                 \
    X(RATE, "rate", 0, 1e7, REAL, "connections per second", "until the next row")

/* Of a trace, instead of rates. */
#define SIM_TRACE_FIELDS(X)                                                                        \
    X(ARRIVAL, "second", 0, SIM_TIME_MAX, REAL, "seconds", "ascending, ties allowed")              \
    X(WORK, "work", 1e-9, 1e6, REAL, "work seconds", "of the connection's first request")          \
    X(CLASS, "class", 0, SIM_CLASSES_MAX - 1, WHOLE, "", "number of the class")

#define SIM_EVENT_FIELDS(X)                                                                        \
    X(SECOND, "second", 0, SIM_TIME_MAX, REAL, "seconds", "ascending, ties allowed")               \
    X(KIND, "kind", 0, 5, WHOLE, "", "number in SIM_EVENT_KINDS")                                  \
    X(SERVER, "server", 0, SIM_SERVERS_MAX - 1, WHOLE, "", "number of the server")                 \
    X(VALUE, "value", 0, 1e6, REAL, "", "as the kind says")

/* X(symbol, name, meaning) */
#define SIM_WORK_KINDS(X)                                                                          \
    X(CONSTANT, "constant", "work_mean")                                                           \
    X(EXPONENTIAL, "exponential", "mean work_mean")                                                \
    X(LOGNORMAL, "lognormal", "mean work_mean, sigma work_shape")                                  \
    X(PARETO, "pareto", "bounded Pareto: mean work_mean, alpha work_shape, at most work_max")

/* X(symbol, name, lowest value, highest value, kind of the value, meaning) */
#define SIM_EVENT_KINDS(X)                                                                         \
    X(SPEED, "speed", 0, 1e6, REAL, "factor on the nominal speed; 0: service stands still")        \
    X(CORES, "cores", 0.001, 4096, REAL, "number of cores")                                        \
    X(STOP, "stop", 0, 1e6, REAL,                                                                  \
      "the process ends: its connections are reset, requests in progress fail, new connections "   \
      "are refused; clients do not try again; the value is unused")                                \
    X(START, "start", 0, 1e6, REAL, "the process runs again; the value is unused")                 \
    X(STATE, "state", 0, 4, WHOLE,                                                                 \
      "lbrl_backend_state_t that balancers are configured with; 0: absent")                        \
    X(WEIGHT, "weight", 0, 1e6, REAL, "configured weight")

#define SIM_FIELD_ENUM(symbol, name, low, high, kind, unit, meaning) SIM_SERVER_##symbol,
typedef enum sim_server_field {
    SIM_SERVER_FIELDS(SIM_FIELD_ENUM) SIM_SERVER_COLUMNS
} sim_server_field_t;
#undef SIM_FIELD_ENUM
#define SIM_FIELD_ENUM(symbol, name, low, high, kind, unit, meaning) SIM_CLASS_##symbol,
typedef enum sim_class_field {
    SIM_CLASS_FIELDS(SIM_FIELD_ENUM) SIM_CLASS_COLUMNS
} sim_class_field_t;
#undef SIM_FIELD_ENUM
#define SIM_FIELD_ENUM(symbol, name, low, high, kind, unit, meaning) SIM_RATE_##symbol,
typedef enum sim_rate_field { SIM_RATE_FIELDS(SIM_FIELD_ENUM) SIM_RATE_COLUMNS } sim_rate_field_t;
#undef SIM_FIELD_ENUM
#define SIM_FIELD_ENUM(symbol, name, low, high, kind, unit, meaning) SIM_TRACE_##symbol,
typedef enum sim_trace_field {
    SIM_TRACE_FIELDS(SIM_FIELD_ENUM) SIM_TRACE_COLUMNS
} sim_trace_field_t;
#undef SIM_FIELD_ENUM
#define SIM_FIELD_ENUM(symbol, name, low, high, kind, unit, meaning) SIM_EVENT_##symbol,
typedef enum sim_event_field {
    SIM_EVENT_FIELDS(SIM_FIELD_ENUM) SIM_EVENT_COLUMNS
} sim_event_field_t;
#undef SIM_FIELD_ENUM
#define SIM_KIND_ENUM(symbol, name, meaning) SIM_WORK_IS_##symbol,
typedef enum sim_work_kind { SIM_WORK_KINDS(SIM_KIND_ENUM) SIM_WORK_KIND_COUNT } sim_work_kind_t;
#undef SIM_KIND_ENUM
#define SIM_KIND_ENUM(symbol, name, low, high, kind, meaning) SIM_EVENT_IS_##symbol,
typedef enum sim_event_kind {
    SIM_EVENT_KINDS(SIM_KIND_ENUM) SIM_EVENT_KIND_COUNT
} sim_event_kind_t;
#undef SIM_KIND_ENUM

/* ---- Configuration ---- */

/* Rows of one of the tables above, row after row; copied by sim_create(). */
typedef struct sim_table {
    const double *rows;
    uint64_t count;
} sim_table_t;

/* One scenario with one seed. Exactly one of `rates` and `trace` has rows. */
typedef struct sim_environment {
    uint64_t seed;
    double warmup;                    /* seconds after which busy and offered begin at 0 */
    const double *split;              /* share of each balancer in new connections; sums to 1 */
    uint64_t split_count;             /* balancers, 1 .. SIM_BALANCERS_MAX */
    sim_table_t servers;              /* 1 .. SIM_SERVERS_MAX */
    sim_table_t classes;              /* 1 .. SIM_CLASSES_MAX */
    sim_table_t rates, trace, events; /* at most SIM_ROWS_MAX */
} sim_environment_t;

/* Who picks servers. The oracles are central: they see the requests in progress and the true cores,
 * quota and speed of every server that runs and is ACTIVE; ties are broken at random. The balancers'
 * core is left out under them: no frames. With m = n + 1, c = min(cores, quota / period) and
 * sigma(m) = max(1, m / c) they pick the smallest of */
typedef enum sim_rule {
    SIM_RULE_CORE = 0,     /* (no oracle) the core's scheduler */
    SIM_RULE_SED = 1,      /* m / (speed c): shortest expected delay */
    SIM_RULE_MARGINAL = 2, /* [sigma(m) + n (sigma(m) - sigma(n))] / speed: least added delay */
    SIM_RULE_COUNT
} sim_rule_t;

/* How the balancers of an environment exchange their counts of flows (lbrl_sharing_t of lbrl/lbrl.h). Each sends its own
 * to every peer once per interval, at a phase of its own, and uses the last ones of each peer from then on. A message comes
 * after a delay, uniform between two bounds, or is lost. */
typedef struct sim_sharing {
    double interval;   /* seconds, 0.001 to 60; 0: no exchange, and the rest is unused */
    double delay_low;  /* seconds */
    double delay_high; /* seconds, at most the interval: messages do not overtake each other */
    double loss;       /* probability */
    double anticipate, doubt, mirror; /* 0 to 1 */
    double mean; /* seconds, 0.001 to 3600: time constant of the mean of own flows */
} sim_sharing_t;

/* What all environments of a batch have in common. */
typedef struct sim_options {
    uint8_t level;      /* lbrl_level_t */
    uint8_t scheduler;  /* lbrl_scheduler_type_t */
    uint8_t load;       /* lbrl_load_t */
    uint8_t forwarding; /* lbrl_forwarding_t: LBRL_FORWARD_NAT or LBRL_FORWARD_GRE */
    uint8_t rule;       /* sim_rule_t */
    bool record;        /* keep a record per request */
    uint32_t threads;   /* 1 .. SIM_THREADS_MAX */
    sim_sharing_t sharing;
} sim_options_t;

/* ---- Life ---- */

typedef struct sim sim_t;

/* Makes a simulation at time 0 of `count` environments, 1 .. SIM_ENVIRONMENTS_MAX. Checks every
 * number first. SIM_ERR_INVALID, SIM_ERR_MEMORY or SIM_ERR_CORE; then *out is NULL. */
int sim_create(sim_t **out, const sim_options_t *options, const sim_environment_t *environments,
               uint32_t count, sim_problem_t *problem);

void sim_destroy(sim_t *sim); /* NULL is allowed */

/* Simulates all events up to and including `until`, which is at least sim_time() and at most
 * SIM_TIME_MAX; then publishes frames. SIM_ERR_INVALID changes nothing; other errors end the
 * simulation, and the problem names the environment. */
int sim_advance(sim_t *sim, double until, sim_problem_t *problem);

double sim_time(const sim_t *sim);

/* ---- Results ---- */

/* One request that ended. */
typedef struct sim_record {
    double arrival;  /* seconds: the client sent its SYN, or a later request of the connection */
    double duration; /* seconds until the response passed the balancer; not-a-number: it failed */
    double pause; /* seconds until the connection's next request, or after its last one until it is
                        closed, as drawn; 0: none, or the request failed */
    float work;   /* work seconds, as drawn */
    float io;     /* seconds of input and output, as drawn; 0: none, or the request failed before */
    uint32_t connection; /* its number in order of arrival, from 0 */
    int16_t server;      /* -1: no server took the connection */
    uint8_t balancer;
    uint8_t class_number;
} sim_record_t;

/* Records of an environment in the order in which requests ended; valid until the next
 * sim_advance(). */
const sim_record_t *sim_records(const sim_t *sim, uint32_t environment, uint64_t *count);

/* Arrays, C order, all of the size of the largest environment; what an environment lacks is zero.
 * They stay where they are until sim_destroy(); sim_create() and sim_advance() write to them. */
typedef struct sim_results {
    uint32_t environments; /* E */
    uint32_t balancers;    /* L */
    uint32_t servers;      /* N */
    uint32_t slots;        /* S: places of backends in the tables of a balancer */
    /* During the last sim_advance(), requests by the balancer and server of their connection. */
    const int64_t *completed; /* [E, L, N] */
    const double *duration;   /* [E, L, N], sum, of those that completed */
    const int64_t *failed;    /* [E, L, N] */
    const int64_t *refused;   /* [E, L], connections that no server took */
    /* CPU seconds since the warm-up. A server that is absent or stopped offers none; one with a
     * quota offers min(cores, quota / period) per second. */
    const double *busy;    /* [E, N] */
    const double *offered; /* [E, N] */
    /* Frames, as an agent reads them: [E, L, S]. Under an oracle no slot is active. */
    const uint8_t *active;     /* 1: the slot holds a backend */
    const uint8_t *generation; /* changes when the slot gets another backend */
    const uint8_t *eligible;   /* 1: it takes new flows: ACTIVE, configured weight above 0 */
    const int16_t *server;     /* number of the server; -1: free */
    const double *configured;  /* weight */
    const float *weight;       /* in force */
    const float *base;         /* in force; 0: the common one */
    const int64_t *counters[LBRL_COUNTER_COUNT]; /* NULL: not recorded at this level */
    const int64_t *peers; /* flows of the other balancers; -1: none exchanged yet, or long ago */
} sim_results_t;

const sim_results_t *sim_results(const sim_t *sim);

/* ---- What an agent does; none of it under an oracle (SIM_ERR_INVALID) ---- */

/* Reduces channels as of sim_time(). out[i] has E x L x S x 5 elements: those of lbrl_reduction_t;
 * not-a-number where there is no sample. SIM_ERR_CORE where a channel is not of this level. */
int sim_reduce(sim_t *sim, const lbrl_channel_t *channels, uint32_t count, double *const *out,
               sim_problem_t *problem);

/* Publishes weights, and bases or NULL, both [E, L, S], through actions objects, and takes them into
 * force. `shared`: bases are on the flows of all balancers. Those of a balancer that refuses its row stay as they were; the others' change, and the
 * problem names the first one that refused (SIM_ERR_CORE). The simulation goes on. */
int sim_act(sim_t *sim, const float *weights, const float *bases, bool shared,
            sim_problem_t *problem);

/* ---- Totals ---- */

/* Events since the start, over all environments. */
typedef struct sim_totals {
    uint64_t arrivals;    /* connections */
    uint64_t completions; /* of CPU work */
    uint64_t delays;      /* ends of latency, io, think and idle times */
    uint64_t others;      /* scenario events, ticks, ends of quota periods */
} sim_totals_t;

sim_totals_t sim_totals(const sim_t *sim);

#ifdef __cplusplus
}
#endif
#endif
