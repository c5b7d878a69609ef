#include "clients.h"

#include <math.h>
#include <string.h>

/* ---- Classes ---- */

/* Mean of the bounded Pareto distribution on [exp(low), high] over exp(low); see Harchol-Balter,
 * "Performance Modeling and Design of Computer Systems" (2013), section 20.2. expm1 keeps it exact
 * near alpha = 1. */
static double pareto_mean(double low, double high, double alpha)
{
    double ratio = low - log(high), less = alpha - 1; /* log of low / high */
    double sum = fabs(less) < 1e-9 ? -ratio : -expm1(less * ratio) / less;
    return exp(low) * alpha * sum / -expm1(alpha * ratio);
}

/* The lower bound that gives the mean: the mean grows with it. */
static double pareto_low(double mean, double high, double alpha)
{
    double below = log(mean) - 600, above = log(mean);
    for (int i = 0; i < 200; i++) {
        double middle = (below + above) / 2;
        if (pareto_mean(middle, high, alpha) < mean) {
            below = middle;
        } else {
            above = middle;
        }
    }
    return exp(above);
}

static bool prepare_work(sim_class_t *class, double mean, double shape, double most)
{
    class->a = mean;
    switch (class->work_kind) {
    case SIM_WORK_IS_LOGNORMAL: /* exp(a + b normal) */
        class->a = log(mean) - shape * shape / 2;
        class->b = shape;
        break;
    case SIM_WORK_IS_PARETO: /* a (1 - b u)^c */
        class->a = pareto_low(mean, most, shape);
        class->b = -expm1(shape * log(class->a / most));
        class->c = -1 / shape;
        return fabs(pareto_mean(log(class->a), most, shape) / mean - 1) < 1e-6;
    default:
        break;
    }
    return true;
}

bool sim_class_prepare(sim_class_t *class, const double *row)
{
    memset(class, 0, sizeof(*class));
    class->work_kind = (sim_work_kind_t)row[SIM_CLASS_WORK_KIND];
    class->io_mean = row[SIM_CLASS_IO_MEAN];
    class->think_mean = row[SIM_CLASS_THINK_MEAN];
    class->idle_share = row[SIM_CLASS_IDLE_SHARE];
    class->idle_mean = row[SIM_CLASS_IDLE_MEAN];
    class->requests = row[SIM_CLASS_REQUESTS];
    if (row[SIM_CLASS_REQUESTS_RANDOM] != 0 && class->requests > 1) {
        class->requests_log = 1 / log1p(-1 / class->requests);
    }
    class->request_bytes = (uint32_t)row[SIM_CLASS_REQUEST_BYTES];
    class->response_bytes = (uint32_t)row[SIM_CLASS_RESPONSE_BYTES];
    return prepare_work(class, row[SIM_CLASS_WORK_MEAN], row[SIM_CLASS_WORK_SHAPE],
                        row[SIM_CLASS_WORK_MAX]);
}

/* Box and Muller's, of which one of the pair is used. */
static double normal(uint64_t *stream)
{
    static const double two_pi = 6.283185307179586;
    double radius = sqrt(2 * sim_exponential(sim_split_next(stream)));
    return radius * cos(two_pi * sim_unit(sim_split_next(stream)));
}

double sim_class_work(const sim_class_t *class, uint64_t *stream)
{
    switch (class->work_kind) {
    case SIM_WORK_IS_EXPONENTIAL:
        return class->a * sim_exponential(sim_split_next(stream));
    case SIM_WORK_IS_LOGNORMAL:
        return exp(class->a + class->b * normal(stream));
    case SIM_WORK_IS_PARETO:
        return class->a * pow(1 - class->b * sim_unit(sim_split_next(stream)), class->c);
    default:
        return class->a;
    }
}

uint32_t sim_class_requests(const sim_class_t *class, uint64_t *stream)
{
    if (class->requests_log == 0) {
        return (uint32_t)class->requests;
    }
    double more = floor(log(sim_unit(sim_split_next(stream))) * class->requests_log);
    return more < 1e9 ? 1 + (uint32_t)more : 1000000000;
}

uint32_t sim_class_draw(const sim_class_t *classes, uint32_t count, uint64_t *stream)
{
    if (count == 1) {
        return 0;
    }
    double at = sim_unit(sim_split_next(stream));
    for (uint32_t i = 0; i + 1 < count; i++) {
        if (at <= classes[i].share_end) {
            return i;
        }
    }
    return count - 1;
}

/* ---- Arrivals ---- */

/* Time at which the integral of the rate from `now` on is a unit exponential variable. */
static double next_poisson(sim_arrivals_t *arrivals, double now)
{
    double left = sim_exponential(sim_random_next(&arrivals->random));
    for (;;) {
        const double *row = arrivals->rates + arrivals->row * SIM_RATE_COLUMNS;
        double end =
            arrivals->row + 1 < arrivals->count ? row[SIM_RATE_COLUMNS + SIM_RATE_FROM] : INFINITY;
        double rate = row[SIM_RATE_RATE];
        if (rate > 0 && now + left / rate <= end) {
            return now + left / rate;
        }
        if (isinf(end)) {
            return INFINITY;
        }
        left -= rate * (end - now);
        left = left > 0 ? left : 0; /* rounding */
        now = end;
        arrivals->row++;
    }
}

static double next_of_trace(const sim_arrivals_t *arrivals)
{
    return arrivals->row < arrivals->count
               ? arrivals->trace[arrivals->row * SIM_TRACE_COLUMNS + SIM_TRACE_ARRIVAL]
               : INFINITY;
}

void sim_arrivals_open(sim_arrivals_t *arrivals, const sim_environment_t *environment)
{
    memset(arrivals, 0, sizeof(*arrivals));
    sim_random_seed(&arrivals->random, environment->seed, SIM_STREAM_ARRIVALS);
    if (environment->trace.count > 0) {
        arrivals->trace = environment->trace.rows;
        arrivals->count = environment->trace.count;
        arrivals->next = next_of_trace(arrivals);
        return;
    }
    arrivals->rates = environment->rates.rows;
    arrivals->count = environment->rates.count;
    arrivals->next = next_poisson(arrivals, arrivals->rates[SIM_RATE_FROM]);
}

void sim_arrivals_step(sim_arrivals_t *arrivals)
{
    arrivals->number++;
    if (arrivals->trace != NULL) {
        arrivals->row++;
        arrivals->next = next_of_trace(arrivals);
    } else {
        arrivals->next = next_poisson(arrivals, arrivals->next);
    }
}
