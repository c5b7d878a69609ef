/* Assertions of the C tests: a failed one prints where and what, and ends the program. */
#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);              \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Integers of any type that fits into 64 signed bits. */
#define CHECK_EQUAL(found, expected)                                                               \
    do {                                                                                           \
        int64_t found_ = (int64_t)(found), expected_ = (int64_t)(expected);                        \
        if (found_ != expected_) {                                                                 \
            fprintf(stderr, "%s:%d: %s is %" PRId64 ", expected %" PRId64 "\n", __FILE__,          \
                    __LINE__, #found, found_, expected_);                                          \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_NEAR(found, expected, tolerance)                                                     \
    do {                                                                                           \
        double found_ = (double)(found), expected_ = (double)(expected);                           \
        if (!(found_ >= expected_ - (tolerance) && found_ <= expected_ + (tolerance))) {           \
            fprintf(stderr, "%s:%d: %s is %.9g, expected %.9g\n", __FILE__, __LINE__, #found,      \
                    found_, expected_);                                                            \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#endif
