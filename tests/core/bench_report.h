/* What benchmarks of single functions have in common: processor time of this thread, so that other work on the machine
 * is not counted, and a JSON object per line. Include it first: it asks for clock_gettime. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline uint64_t next_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline uint64_t thread_nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline double nanoseconds(void)
{
    return (double)thread_nanoseconds();
}

static inline int ascending(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static inline double median(double *values, size_t n)
{
    qsort(values, n, sizeof(*values), ascending);
    return values[n / 2];
}

static inline void report(const char *name, double value, const char *unit)
{
    printf("{\"name\": \"core_%s\", \"value\": %.4g, \"unit\": \"%s\"}\n", name, value, unit);
}

/* A figure of several runs, which are printed beside it. */
static inline void report_runs(const char *name, double value, const char *unit, const double *runs,
                               size_t n)
{
    printf("{\"name\": \"core_%s\", \"value\": %.4g, \"unit\": \"%s\", \"runs\": [", name, value,
           unit);
    for (size_t i = 0; i < n; i++) {
        printf("%s%.5g", i ? ", " : "", runs[i]);
    }
    puts("]}");
}

/* A figure that must not exceed its bar. */
static inline void report_bar(const char *name, double value, const char *unit, double bar)
{
    printf("{\"name\": \"core_%s\", \"value\": %.4g, \"unit\": \"%s\", \"bar\": %g, \"met\": %s}\n",
           name, value, unit, bar, value <= bar ? "true" : "false");
}

enum { MEASURE_ROUNDS = 31 };

/* Runs `work` `inner` times, often; `result` becomes the median nanoseconds of one. */
#define MEASURE(result, inner, work)                                                               \
    do {                                                                                           \
        double times_[MEASURE_ROUNDS];                                                             \
        for (int round_ = 0; round_ < MEASURE_ROUNDS; round_++) {                                  \
            const double start_ = nanoseconds();                                                   \
            for (uint32_t i = 0; i < (inner); i++) {                                               \
                work;                                                                              \
            }                                                                                      \
            times_[round_] = (nanoseconds() - start_) / (inner);                                   \
        }                                                                                          \
        (result) = median(times_, MEASURE_ROUNDS);                                                 \
    } while (0)

#endif
