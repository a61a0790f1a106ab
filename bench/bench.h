/* What benchmarks share: a clock, an order of times, an end when something fails. */
#ifndef BENCH_H
#define BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <tenon/tenon.h>
#include <time.h>

static inline double now(void) { /* seconds */
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline int by_value(const void *a, const void *b) { /* for qsort */
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline void check(int failed) {
    if (failed) exit((fprintf(stderr, "%s\n", tn_error()), 1));
}

#endif
