/* Small scenarios for the tests of the simulator. */
#ifndef LAB_H
#define LAB_H

#include <stdbool.h>
#include <stdint.h>

#include "lbsim/sim.h"

#define LAB_ROWS 4096

/* A scenario under construction; `environment` refers to its rows. */
typedef struct lab {
    sim_environment_t environment;
    sim_options_t options;
    double split[SIM_BALANCERS_MAX];
    double servers[LAB_ROWS][SIM_SERVER_COLUMNS];
    double classes[SIM_CLASSES_MAX][SIM_CLASS_COLUMNS];
    double rates[LAB_ROWS][SIM_RATE_COLUMNS];
    double trace[LAB_ROWS][SIM_TRACE_COLUMNS];
    double events[LAB_ROWS][SIM_EVENT_COLUMNS];
} lab_t;

/* One balancer, one class of exponential work of mean 0.1 s, the oracle SED; no server, no arrival. */
void lab_open(lab_t *lab);

/* Each adds a row and returns it. */
double *lab_server(lab_t *lab, double cores, double speed);
double *lab_class(lab_t *lab, sim_work_kind_t kind, double mean); /* of share 0 */
void lab_balancers(lab_t *lab, uint32_t count);
void lab_rate(lab_t *lab, double from, double rate);
void lab_arrival(lab_t *lab, double second, double work, uint32_t class_number);
void lab_event(lab_t *lab, double second, sim_event_kind_t kind, uint32_t server, double value);

/* Makes `count` environments that differ by their seeds, from `seed` on; ends the program on errors. */
sim_t *lab_start(const lab_t *lab, uint64_t seed, uint32_t count);
void lab_advance(sim_t *sim, double until);

/* A mean over environments, and the half width of its 99.9 % interval. */
typedef struct lab_interval {
    double mean, half;
} lab_interval_t;

lab_interval_t lab_interval(const double *values, uint32_t count);

/* Mean duration of the requests of an environment that arrived from `since` on. */
double lab_mean_duration(const sim_t *sim, uint32_t environment, double since);

#endif
