/* What tests of networks share: failures and what they say, lives of which each allocation fails.
 */
#ifndef TESTS_NN_CHECK_H
#define TESTS_NN_CHECK_H

#include "base/alloc.h"
#include "tap.h"
#include "tenon/nn.h"

static inline void fails(tn_array *a, int status, const char *text) {
    is_i64(tn_array_status(a), status, "%s", text);
    if (!strstr(tn_array_error(a), text)) ok(0, "says \"%s\": %s", text, tn_array_error(a));
}

static inline void refused(int got, int status, const char *text) {
    is_i64(got, status, "%s", text);
    if (!strstr(tn_error(), text)) ok(0, "says \"%s\": %s", text, tn_error());
}

static inline tn_array *fill(double x, tn_ints shape) {
    return tn_full(shape, tn_scalar(x, TN_F32));
}

/* Each allocation of a life fails once; some failures do no harm, so it goes on until a life has no
 * n-th one. Every failure must be TN_EMEMORY. */
static inline int fail_each(int (*life)(void), int64_t *n) {
    int status = 0;
    bool reached = true;
    for (*n = 1; reached && (!status || status == TN_EMEMORY); ++*n) {
        int64_t before = tni_alloc_count();
        tni_fail_alloc_at(*n);
        status = life();
        tni_fail_alloc_at(0);
        reached = tni_alloc_count() - before >= *n;
    }
    return status;
}

static inline void test_lives(int (*life)(void), int64_t least) {
    int64_t n, again;
    int status = fail_each(life, &n);
    ok(!status && n > least, "each of %lld allocations failed cleanly (%s)", (long long)n,
       status ? tn_error() : "");
    int64_t live = tni_alloc_live(); /* threads have filled their stores of records by now */
    status = fail_each(life, &again);
    ok(!status, "and again: %s", status ? tn_error() : "");
    is_i64(tni_alloc_live(), live, "nothing leaks");
}

#endif
