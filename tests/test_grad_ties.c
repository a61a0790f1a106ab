/* Gradients where a function has a corner: equal numbers under largest and smallest, in
 * reductions, scans and scatters; NaN, infinities and nothing at all. The numbers are what mlx
 * gives, but for running log-sums of -inf alone, where it has NaN. */
#include "tap.h"
#include "tenon/tenon.h"
#include "values.h"
#include <math.h>

typedef tn_array *(*tie_fn)(tn_list in);

static int tie_run(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = (*(tie_fn *)ud)(in);
    return tn_array_status(out[0]);
}

/* The gradient by argument k along the cotangent 1, 2, 3, ..., in f32 and, where it is exact, in
 * half precision. */
static void tie_check(const char *what, tie_fn f, int n, tn_array *const *in, int k,
                      const double *want) {
    static const tn_dtype dtypes[] = {TN_F32, TN_F64, TN_BF16};
    for (int d = 0; d < 3; d++)
        TN_SCOPE {
            tn_array *x[3], *y, *g[3];
            for (int i = 0; i < n; i++) x[i] = tn_astype(in[i], dtypes[d]);
            tn_array *probe = f((tn_list){x, n});
            tn_array *c =
                tn_reshape(tn_arange(1, (double)tn_size(probe) + 1, 1, dtypes[d]), tn_shape(probe));
            int status = tn_vjp(tie_run, &f, (tn_list){x, n}, TN_LIST(c), &y, g), bad = 0;
            if (status) diag("%s", tn_error());
            double *v = values(g[k]);
            for (int64_t i = 0; i < tn_size(g[k]); i++)
                if (fabs(v[i] - want[i]) > (d == 2 ? 0.02 : 1e-6) * (1 + fabs(want[i])))
                    diag("element %d: %g, want %g", (int)i, v[i], want[i]), bad = 1;
            free(v);
            ok(!status && !bad, "%s, argument %d, %s", what, k, tn_dtype_name(dtypes[d]));
        }
}
#define TIE(what, f, n, in, k, ...) tie_check(what, f, n, in, k, (double[]){__VA_ARGS__})

static tn_array *matrix(int64_t rows, int64_t columns, const double *v) {
    return tn_array_new(v, TN_F64, TN_SHAPE(rows, columns));
}

/* ---- reductions and scans ---- */

static tn_array *max_all(tn_list in) { return tn_max(in.v[0], TN_ALL, false); }
static tn_array *max_rows(tn_list in) { return tn_max(in.v[0], TN_AXES(1), false); }
static tn_array *min_columns(tn_list in) { return tn_min(in.v[0], TN_AXES(0), true); }
static tn_array *cummax(tn_list in) { return tn_cummax(in.v[0], 1, false, true); }
static tn_array *cummin_back(tn_list in) { return tn_cummin(in.v[0], 1, true, true); }

static void test_reductions(void) {
    TN_SCOPE {
        tn_array *x = matrix(2, 4, (double[]){7, 2, 7, 2, 2, 2, 7, 2});
        TIE("max of all", max_all, 1, &x, 0, 1.0 / 3, 0, 1.0 / 3, 0, 0, 0, 1.0 / 3, 0);
        TIE("max of rows", max_rows, 1, &x, 0, 0.5, 0, 0.5, 0, 0, 0, 2, 0);
        TIE("min of columns", min_columns, 1, &x, 0, 0, 1, 1.5, 2, 1, 1, 1.5, 2);
        TIE("cummax: the last so far", cummax, 1, &x, 0, 3, 0, 7, 0, 5, 6, 15, 0);
        TIE("cummin from the end", cummin_back, 1, &x, 0, 0, 3, 0, 7, 5, 6, 0, 15);
    }
}

/* ---- scatter: all that equal the result ---- */

static tn_array *rows_twice(void) { return tn_array_new((int32_t[]){0, 0}, TN_I32, TN_SHAPE(2)); }
static tn_array *scatter_max(tn_list in) {
    return tn_scatter_max(in.v[0], TN_LIST(rows_twice()), tn_reshape(in.v[1], TN_SHAPE(2, 1, 3)),
                          TN_AXES(0));
}
static tn_array *scatter_min(tn_list in) {
    return tn_scatter_min(in.v[0], TN_LIST(rows_twice()), tn_reshape(in.v[1], TN_SHAPE(2, 1, 3)),
                          TN_AXES(0));
}

static void test_scatter(void) {
    TN_SCOPE {
        tn_array *in[2] = {matrix(2, 3, (double[]){1, 2, 3, 4, 5, 6}),
                           matrix(2, 3, (double[]){1, 5, 9, 1, 5, 2})};
        TIE("scatter_max", scatter_max, 2, in, 0, 1, 0, 0, 4, 5, 6);
        TIE("scatter_max", scatter_max, 2, in, 1, 1, 2, 3, 1, 2, 0);
        TIE("scatter_min", scatter_min, 2, in, 0, 1, 2, 0, 4, 5, 6);
        TIE("scatter_min", scatter_min, 2, in, 1, 1, 0, 0, 1, 0, 3);
    }
}

/* ---- pooling: shared within each window ---- */

static tn_array *max_pool(tn_list in, int64_t k, int64_t stride, int64_t pad) {
    return tn_max_pool(tn_reshape(in.v[0], TN_SHAPE(1, 4, 4, 1)), TN_SPATIAL(k), TN_SPATIAL(stride),
                       TN_SPATIAL(pad));
}
static tn_array *max_pool2(tn_list in) { return max_pool(in, 2, 2, 0); }
static tn_array *max_pool2s1(tn_list in) { return max_pool(in, 2, 1, 0); }
static tn_array *max_pool3p(tn_list in) { return max_pool(in, 3, 2, 1); }

static void test_pool(void) {
    TN_SCOPE {
        tn_array *x = matrix(4, 4, (double[]){1, 1, 2, 2, 1, 2, 2, 0, 0, 0, 2, 2, 2, 0, 2, 2});
        TIE("max_pool, side by side", max_pool2, 1, &x, 0, 0, 0, 0.6666667, 0.6666667, 0, 1,
            0.6666667, 0, 0, 0, 1, 1, 3, 0, 1, 1);
        TIE("max_pool, overlapping", max_pool2s1, 1, &x, 0, 0, 0, 1.666667, 1, 0, 7.333333,
            5.333333, 0, 0, 0, 9.916666, 4.25, 7, 0, 6.25, 2.25);
        TIE("max_pool, padded", max_pool3p, 1, &x, 0, 0, 0, 0.5, 0.5, 0, 3.666667, 1.166667, 0, 0,
            0, 0.6666667, 0.6666667, 1.5, 0, 0.6666667, 0.6666667);
    }
}

/* ---- NaN, infinities, no keys ---- */

static tn_array *larger(tn_list in) { return tn_maximum(in.v[0], in.v[1]); }
static tn_array *smaller(tn_list in) { return tn_minimum(in.v[0], in.v[1]); }
static tn_array *log_sums(tn_list in) { return tn_logcumsumexp(in.v[0], 1, false, true); }
static tn_array *log_sums_back(tn_list in) { return tn_logcumsumexp(in.v[0], 1, true, true); }

static void test_ends(void) {
    TN_SCOPE {
        double inf = (double)INFINITY;
        tn_array *in[2] = {matrix(1, 4, (double[]){(double)NAN, 1, 2, 3}),
                           matrix(1, 4, (double[]){1, (double)NAN, 2, 1})};
        TIE("maximum", larger, 2, in, 0, 0, 0, 0, 4);
        TIE("maximum", larger, 2, in, 1, 0, 0, 3, 0);
        TIE("minimum", smaller, 2, in, 0, 0, 0, 0, 0);
        TIE("minimum", smaller, 2, in, 1, 0, 0, 3, 4);
        tn_array *x = matrix(1, 4, (double[]){-inf, -inf, 1, 1});
        TIE("logcumsumexp of -inf", log_sums, 1, &x, 0, 0, 0, 5, 2);
        x = matrix(1, 4, (double[]){16, -inf, -1000, 16});
        TIE("logcumsumexp of a wide range", log_sums, 1, &x, 0, 8, 0, 0, 2);
        TIE("logcumsumexp from the end", log_sums_back, 1, &x, 0, 0.5, 0, 0, 9.5);
    }
}

static int no_keys(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_fast_scaled_dot_product_attention(in.v[0], in.v[1], in.v[1], 0.5,
                                                  TN_OPT(tn_sdpa_opt, .sinks = in.v[2]));
    return 0;
}
static int no_keys_grad(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *y;
    (void)n_out;
    return tn_vjp(no_keys, ud, in, TN_LIST(tn_full(TN_SHAPE(1, 2, 3, 4), tn_f32(1))), &y, out);
}

static void test_no_keys(void) {
    TN_SCOPE {
        tn_array *in[3] = {tn_full(TN_SHAPE(1, 2, 3, 4), tn_f32(2)),
                           tn_zeros(TN_SHAPE(1, 2, 0, 4), TN_F32), tn_ones(TN_SHAPE(2), TN_F32)};
        tn_array *y[3], *t[3], *g[3];
        int status = tn_jvp(no_keys, NULL, (tn_list){in, 3}, (tn_list){in, 3}, 1, y, t);
        double *v = values(t[0]);
        ok(!status && tn_size(t[0]) == 24 && v[0] == 0 && v[23] == 0,
           "attention without keys: jvp");
        free(v);
        status = tn_vjp(no_keys_grad, NULL, (tn_list){in, 3}, (tn_list){in, 3}, y, g);
        v = values(g[0]);
        ok(!status && tn_size(g[0]) == 24 && v[0] == 0 && v[23] == 0,
           "attention without keys: second derivatives");
        free(v);
    }
}

int main(void) {
    test_ends();
    test_no_keys();
    test_pool();
    test_reductions();
    test_scatter();
    return tap_done();
}
