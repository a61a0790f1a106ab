/* What an array holds, for comparing with plain loops and with other arrays. */
#ifndef TESTS_VALUES_H
#define TESTS_VALUES_H

#include "tap.h"
#include "tenon/tenon.h"
#include <math.h>

/* As doubles, freed with free(); with the message shown and nonsense inside when it cannot be had.
 */
static inline double *values(tn_array *a) {
    size_t n = (size_t)tn_size(a) * sizeof(double);
    double *v = malloc(n + 8);
    if (tn_read(a, TN_F64, v, n)) {
        diag("%s", tn_error());
        memset(v, 0x7f, n + 8);
    }
    return v;
}

static inline bool same_shape(tn_array *a, tn_array *b) {
    bool same = tn_ndim(a) == tn_ndim(b);
    for (int i = 0; i < tn_ndim(a) && same; i++) same = tn_dim(a, i) == tn_dim(b, i);
    return same;
}

/* Of b's shape and no further from it than `tolerance` of 1 + |b|; an error is shown. */
static inline bool close_to(tn_array *a, tn_array *b, double tolerance) {
    if (tn_array_status(a) || tn_array_status(b)) {
        diag("%s", tn_array_status(a) ? tn_array_error(a) : tn_array_error(b));
        return false;
    }
    bool same = same_shape(a, b);
    if (!same) return false;
    double *x = values(a), *y = values(b);
    for (int64_t i = 0; i < tn_size(a) && same; i++)
        same = fabs(x[i] - y[i]) <= tolerance * (1 + fabs(y[i]));
    free(x), free(y);
    return same;
}

/* Close as two ways to calculate one thing in f64 are. */
static inline bool alike(tn_array *a, tn_array *b) { return close_to(a, b, 1e-12); }

/* Of one dtype and shape, and the same bit for bit: a NaN is only like itself. */
static inline bool same_bytes(tn_array *a, tn_array *b) {
    if (tn_eval(TN_LIST(a, b)) || tn_dtype_of(a) != tn_dtype_of(b) || !same_shape(a, b))
        return false;
    size_t n = tn_nbytes(a);
    return !n || !memcmp(tn_data(a), tn_data(b), n);
}

/* 1/4, 2/4, ... n/4 in f64. */
static inline tn_array *quarters(int64_t n) {
    return tn_div(tn_arange(1, (double)n + 1, 1, TN_F64), tn_f32(4));
}

#endif
