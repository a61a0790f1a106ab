/* What an array holds, for comparing with plain loops. */
#ifndef TESTS_VALUES_H
#define TESTS_VALUES_H

#include "tap.h"
#include "tenon/tenon.h"

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

#endif
