/* Gather and scatter against plain loops: one axis and several index arrays, every mode and dtype,
 * views and broadcasting, threads, empty arrays, bad arguments, memory that runs out. */
#include "base/thread.h"
#include "core/array.h"
#include "memory.h"
#include "random.h"
#include "tap.h"
#include "tenon/tenon.h"
#include "values.h"
#include <math.h>

/* Whole numbers from -4 to 4, exact in every dtype (0 to 8 in unsigned ones). */
static tn_array *numbers(tn_ints shape, tn_dtype d) {
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++) n *= shape.v[i];
    float *v = malloc((size_t)(n ? n : 1) * sizeof *v);
    bool positive = d <= TN_U64;
    for (int64_t i = 0; i < n; i++) v[i] = (float)(int)(rnd() % 9) - (positive ? 0 : 4);
    tn_array *a = tn_astype(tn_array_new(v, TN_F32, shape), d);
    free(v);
    return a;
}

static tn_array *indices(tn_ints shape, int64_t size, tn_dtype d) {
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++) n *= shape.v[i];
    int64_t *v = malloc((size_t)(n ? n : 1) * sizeof *v);
    bool negative = d >= TN_I8;
    for (int64_t i = 0; i < n; i++)
        v[i] = (int64_t)(rnd() % (uint64_t)(negative ? 2 * size : size)) - (negative ? size : 0);
    tn_array *a = tn_astype(tn_array_new(v, TN_I64, shape), d);
    free(v);
    return a;
}

static double combine(int mode, tn_dtype d, double a, double b) {
    double wrap = d == TN_U8 || d == TN_I8 ? 256 : d == TN_U16 || d == TN_I16 ? 65536 : 0, r;
    switch (mode) {
    case 0:
        return b;
    case 1:
        r = d == TN_BOOL ? a + b > 0 : a + b;
        break;
    case 2:
        r = a * b;
        break;
    case 3:
        return a > b ? a : b;
    default:
        return a < b ? a : b;
    }
    if (wrap > 0) {
        r = fmod(r, wrap);
        if (r < 0) r += wrap;
        if (d >= TN_I8 && r >= wrap / 2) r -= wrap;
    }
    return r;
}

static bool same(tn_array *y, const double *want, const char *what) {
    if (tn_array_status(y)) {
        diag("%s: %s", what, tn_array_error(y));
        return false;
    }
    double *v = values(y);
    int bad = 0;
    for (int64_t i = 0; i < tn_size(y); i++)
        if (v[i] != want[i] && bad++ < 3)
            diag("%s: element %lld is %g, not %g", what, (long long)i, v[i], want[i]);
    free(v);
    return !bad;
}

static tn_array *scatter(int mode, tn_array *a, tn_list index, tn_array *u, tn_ints axes) {
    switch (mode) {
    case 0:
        return tn_scatter(a, index, u, axes);
    case 1:
        return tn_scatter_add(a, index, u, axes);
    case 2:
        return tn_scatter_prod(a, index, u, axes);
    case 3:
        return tn_scatter_max(a, index, u, axes);
    default:
        return tn_scatter_min(a, index, u, axes);
    }
}

/* ---- along an axis ---- */

/* a [o, n, i] by index [o, m, i], all row-major in the reference. */
static void ref_take(const double *a, const double *x, int64_t o, int64_t n, int64_t m, int64_t in,
                     double *out) {
    for (int64_t p = 0; p < o; p++)
        for (int64_t j = 0; j < m; j++)
            for (int64_t q = 0; q < in; q++) {
                int64_t at = (p * m + j) * in + q, k = (int64_t)x[at];
                out[at] = a[(p * n + (k < 0 ? k + n : k)) * in + q];
            }
}

static void ref_put(int mode, tn_dtype d, double *a, const double *x, const double *u, int64_t o,
                    int64_t n, int64_t m, int64_t in) {
    for (int64_t p = 0; p < o; p++)
        for (int64_t j = 0; j < m; j++)
            for (int64_t q = 0; q < in; q++) {
                int64_t at = (p * m + j) * in + q, k = (int64_t)x[at];
                double *t = &a[(p * n + (k < 0 ? k + n : k)) * in + q];
                *t = combine(mode, d, *t, u[at]);
            }
}

static void test_axis(tn_dtype d, tn_dtype xd, int64_t o, int64_t n, int64_t m, int64_t in,
                      bool views) {
    char s[160];
    TN_SCOPE {
        tn_array *a = numbers(TN_SHAPE(o, n, in), d), *u = numbers(TN_SHAPE(o, m, in), d),
                 *x = indices(TN_SHAPE(o, m, in), n, xd);
        if (views) { /* the same values in other layouts */
            a = tn_transpose(tn_contiguous(tn_transpose(a, TN_ALL)), TN_ALL);
            u = tn_flip(tn_contiguous(tn_flip(u, TN_AXES(2))), TN_AXES(2));
            x = tn_swapaxes(tn_contiguous(tn_swapaxes(x, 0, 1)), 0, 1);
        }
        double *va = values(a), *vx = values(x), *vu = values(u),
               *want = malloc((size_t)(o * m * in + 1) * sizeof *want);
        snprintf(s, sizeof s, "axis 1 of [%lld, %lld, %lld] %s by %lld %s%s", (long long)o,
                 (long long)n, (long long)in, tn_dtype_name(d), (long long)m, tn_dtype_name(xd),
                 views ? ", views" : "");
        ref_take(va, vx, o, n, m, in, want);
        tn_array *y = tn_take_along_axis(a, x, in == 1 ? -2 : 1);
        ok(same(y, want, s) && tn_dtype_of(y) == d, "take_along_axis, %s", s);
        for (int mode = 0; mode < 2; mode++) {
            double *w = values(a);
            ref_put(mode, d, w, vx, vu, o, n, m, in);
            y = mode ? tn_scatter_add_axis(a, x, u, 1) : tn_put_along_axis(a, x, u, 1);
            ok(same(y, w, s) && tn_dtype_of(y) == d, "%s, %s",
               mode ? "scatter_add_axis" : "put_along_axis", s);
            free(w);
        }
        free(va), free(vx), free(vu), free(want);
    }
}

static void test_axis_more(void) {
    TN_SCOPE {
        float v[] = {1, 2, 3, 4, 5, 6};
        tn_array *a = tn_array_new(v, TN_F32, TN_SHAPE(2, 3));
        tn_array *x = tn_array_new((int32_t[]){2, 0}, TN_I32, TN_SHAPE(1, 2));
        ok(same(tn_take_along_axis(a, x, 1), (double[]){3, 1, 6, 4}, "rows"),
           "indices repeat along the other axes");
        tn_array *one = tn_array_new(v, TN_F32, TN_SHAPE(1, 3)),
                 *deep = tn_array_new((uint8_t[]){0, 2, 1, 1}, TN_U8, TN_SHAPE(2, 2));
        ok(same(tn_take_along_axis(one, deep, -1), (double[]){1, 3, 2, 2}, "rows"),
           "so does the array");
        ok(same(tn_put_along_axis(one, deep, tn_i32(9), -1), (double[]){9, 2, 9, 1, 9, 3}, "put"),
           "put repeats the array and one value");
        tn_array *again = tn_array_new((int32_t[]){1, 1, 1, -2}, TN_I32, TN_SHAPE(1, 4)),
                 *u = tn_array_new((float[]){1, 10, 100, 1000}, TN_F32, TN_SHAPE(4));
        ok(same(tn_put_along_axis(a, again, u, 1), (double[]){1, 1000, 3, 4, 1000, 6}, "last"),
           "of several values for a place the last stays");
        ok(same(tn_scatter_add_axis(a, again, u, 1), (double[]){1, 1113, 3, 4, 1116, 6}, "sum"),
           "or all are added");
        tn_array *empty = tn_zeros(TN_SHAPE(2, 0), TN_I32);
        is_i64(tn_size(tn_take_along_axis(a, empty, 1)), 0, "no indices: nothing");
        ok(same(tn_put_along_axis(a, empty, tn_f32(1), 1), (double[]){1, 2, 3, 4, 5, 6}, "none"),
           "no indices: the array stays");
        tn_array *order = tn_argsort(tn_sub(tn_i32(9), a), 1);
        ok(same(tn_take_along_axis(a, order, 1), (double[]){3, 2, 1, 6, 5, 4}, "sorted"),
           "take_along_axis by argsort sorts");
        tn_array *h = tn_zeros(TN_SHAPE(4), TN_F16),
                 *thousand = tn_full(TN_SHAPE(3000), tn_scalar(1, TN_F16)),
                 *same_place = tn_zeros(TN_SHAPE(3000), TN_I32);
        ok(same(tn_scatter_add_axis(h, same_place, thousand, 0), (double[]){3000, 0, 0, 0}, "f16"),
           "3000 ones add up to 3000 in f16");
    }
}

/* ---- several index arrays ---- */

enum { A = 7, B = 5, C = 6 };

/* a [A, B, C], indices along axes 0 and 2 of shape [P, Q], slices [sa, sb, sc]. */
static void test_general(tn_dtype d, tn_dtype xd, int64_t sa, int64_t sb, int64_t sc, bool views) {
    enum { P = 4, Q = 9 };
    char s[160];
    TN_SCOPE {
        tn_array *a = numbers(TN_SHAPE(A, B, C), d), *u = numbers(TN_SHAPE(P, Q, sa, sb, sc), d);
        tn_array *x = tn_remainder(indices(TN_SHAPE(P, 1), A, xd), tn_scalar_i64(A - sa + 1, xd)),
                 *z = tn_remainder(indices(TN_SHAPE(Q), C, xd), tn_scalar_i64(C - sc + 1, xd));
        if (views) {
            a = tn_transpose(tn_contiguous(tn_transpose(a, TN_ALL)), TN_ALL);
            u = tn_transpose(tn_contiguous(tn_transpose(u, TN_ALL)), TN_ALL);
        }
        double *va = values(a), *vx = values(x), *vz = values(z), *vu = values(u),
               *want = malloc((size_t)(P * Q * sa * sb * sc) * sizeof *want);
        snprintf(s, sizeof s, "slices [%lld, %lld, %lld] of %s by %s%s", (long long)sa,
                 (long long)sb, (long long)sc, tn_dtype_name(d), tn_dtype_name(xd),
                 views ? ", views" : "");
        for (int mode = -1; mode < 5; mode++) {
            if (mode > 2 && d == TN_C64) continue;
            double *w = values(a);
            int64_t n = 0;
            for (int64_t i = 0; i < P * Q; i++)
                for (int64_t p = 0; p < sa; p++)
                    for (int64_t q = 0; q < sb; q++)
                        for (int64_t r = 0; r < sc; r++, n++) {
                            int64_t k = (int64_t)vx[i / Q] + p, l = (int64_t)vz[i % Q] + r;
                            double *t = &w[(k * B + q) * C + l];
                            if (mode < 0)
                                want[n] = *t;
                            else
                                *t = combine(mode, d, *t, vu[n]);
                        }
            tn_array *y = mode < 0
                              ? tn_gather(a, TN_LIST(x, z), TN_AXES(0, -1), TN_INTS(sa, sb, sc))
                              : scatter(mode, a, TN_LIST(x, z), u, TN_AXES(0, 2));
            static const char *const names[] = {"gather",       "scatter",     "scatter_add",
                                                "scatter_prod", "scatter_max", "scatter_min"};
            /* Products of many numbers leave what floats and the reference hold exactly. */
            if (mode != 2 || (tn_dtype_size(d) < 4 && d < TN_F16) || sa * sc == 1)
                ok(same(y, mode < 0 ? want : w, s) && tn_dtype_of(y) == d, "%s, %s",
                   names[mode + 1], s);
            free(w);
        }
        free(va), free(vx), free(vz), free(vu), free(want);
    }
}

/* An embedding's gradient and others of some size: one thread and several give the same bits. */
static void test_threads(int64_t rows, int64_t width, int64_t count) {
    TN_SCOPE {
        tn_array *a = tn_random_normal(TN_SHAPE(rows, width), TN_F32, tn_random_key(1)),
                 *u = tn_random_normal(TN_SHAPE(count, 1, width), TN_F32, tn_random_key(2)),
                 *x = indices(TN_SHAPE(count), rows, TN_I32);
        ok(!tn_eval(TN_LIST(a, u, x)), "inputs");
        size_t bytes = tn_nbytes(a);
        float *one = malloc(bytes), *many = malloc(bytes);
        memcpy(one, tn_data(a), bytes);
        const float *vu = tn_data(u);
        const int32_t *vx = tn_data(x);
        for (int64_t i = 0; i < count; i++)
            for (int64_t k = 0; k < width; k++)
                one[(vx[i] < 0 ? vx[i] + rows : vx[i]) * width + k] += vu[i * width + k];
        for (int t = 1; t <= 8; t *= 2) {
            int status = tn_set_threads(t);
            tn_array *y = tn_scatter_add(a, TN_LIST(x), u, TN_AXES(0));
            status = status ? status : tn_read(y, TN_F32, many, bytes);
            ok(!status && !memcmp(one, many, bytes),
               "scatter_add of %lld slices of %lld, %d threads: bits of a plain loop",
               (long long)count, (long long)width, t);
            tn_array *wide =
                tn_broadcast_to(tn_reshape(x, TN_SHAPE(count, 1)), TN_SHAPE(count, width));
            y = tn_scatter_add_axis(a, wide, tn_reshape(u, TN_SHAPE(count, width)), 0);
            status = tn_read(y, TN_F32, many, bytes);
            ok(!status && !memcmp(one, many, bytes), "scatter_add_axis too");
        }
        ok(!tn_set_threads(0), "threads as before");
        free(one), free(many);
    }
}

/* ---- misuse ---- */

static void refused(tn_array *y, int status, const char *word, const char *what) {
    int got = tn_array_status(y);
    const char *text = tn_array_error(y);
    if (!got) got = tn_eval(TN_LIST(y)), text = tn_error();
    if (!ok(got == status && strstr(text, word), "%s is refused", what))
        diag("  %s: %s", tn_status_name(got), text);
}

static void test_misuse(void) {
    TN_SCOPE {
        tn_array *a = tn_zeros(TN_SHAPE(3, 4), TN_F32), *x = tn_zeros(TN_SHAPE(3, 2), TN_I32),
                 *f = tn_zeros(TN_SHAPE(3, 2), TN_F32), *line = tn_zeros(TN_SHAPE(5), TN_I32);
        tn_array *far = tn_array_new((int32_t[]){0, 1, 4, 0, 9, 0}, TN_I32, TN_SHAPE(3, 2)),
                 *low = tn_array_new((int64_t[]){-5}, TN_I64, TN_SHAPE(1)),
                 *huge = tn_array_new((uint64_t[]){UINT64_MAX}, TN_U64, TN_SHAPE(1));
        refused(tn_take_along_axis(a, x, 2), TN_EAXIS, "axis 2", "an axis too far");
        refused(tn_take_along_axis(a, f, 1), TN_EDTYPE, "integers", "a float index");
        refused(tn_take_along_axis(a, line, 1), TN_ESHAPE, "as many axes", "too few axes");
        refused(tn_take_along_axis(a, x, 0), TN_ESHAPE, "do not fit", "another shape");
        refused(tn_take_along_axis(tn_f32(1), tn_i32(0), 0), TN_EAXIS, "axis 0", "a number");
        refused(tn_take_along_axis(a, far, 1), TN_EINDEX, "index 4 (number 2", "an index too far");
        refused(tn_put_along_axis(a, far, f, 1), TN_EINDEX, "index 4 (number 2", "putting there");
        refused(tn_put_along_axis(a, x, line, 1), TN_ESHAPE, "updates", "values of another shape");
        refused(tn_take_along_axis(tn_zeros(TN_SHAPE(3, 0), TN_F32), x, 1), TN_EINDEX, "empty",
                "an empty axis");
        refused(tn_gather(a, TN_LIST(low), TN_AXES(1), TN_INTS(3, 1)), TN_EINDEX, "index -5",
                "an index before the start");
        refused(tn_gather(a, TN_LIST(huge), TN_AXES(1), TN_INTS(3, 1)), TN_EINDEX, "out of range",
                "2^64 - 1");
        refused(tn_gather(a, TN_LIST(tn_i32(3)), TN_AXES(1), TN_INTS(3, 2)), TN_EINDEX,
                "slice of 2", "a slice across the end");
        refused(tn_gather(a, TN_LIST(x), TN_AXES(0, 1), TN_INTS(1, 1)), TN_EAXIS, "each index",
                "an axis without indices");
        refused(tn_gather(a, TN_LIST(x, x), TN_AXES(1, -1), TN_INTS(1, 1)), TN_EAXIS, "twice",
                "an axis named twice");
        refused(tn_gather(a, TN_LIST(x, line), TN_AXES(0, 1), TN_INTS(1, 1)), TN_ESHAPE,
                "index array 1", "index arrays that do not fit");
        refused(tn_gather(a, TN_LIST(x), TN_AXES(0), TN_INTS(1, 5)), TN_ESHAPE, "slice of 5",
                "a slice too long");
        refused(tn_gather(a, TN_LIST(x), TN_AXES(0), TN_INTS(1)), TN_ESHAPE, "one slice size",
                "too few slice sizes");
        refused(tn_gather(a, TN_LIST(f), TN_AXES(0), TN_INTS(1, 1)), TN_EDTYPE, "integers",
                "float indices");
        refused(tn_scatter(a, TN_LIST(line), f, TN_AXES(0)), TN_ESHAPE, "updates",
                "updates of another shape");
        refused(tn_scatter_add(a, TN_LIST(tn_i32(7)), tn_zeros(TN_SHAPE(1, 4), TN_F32), TN_AXES(0)),
                TN_EINDEX, "index 7", "adding too far");
        refused(tn_scatter_max(tn_astype(a, TN_C64), TN_LIST(line),
                               tn_zeros(TN_SHAPE(5, 1, 4), TN_F32), TN_AXES(0)),
                TN_EDTYPE, "complex64", "the largest of complex numbers");
        refused(tn_gather(a, TN_LIST(NULL), TN_AXES(0), TN_INTS(1, 1)), TN_EVALUE, "gather",
                "no array");
        int64_t ones[TN_MAX_NDIM] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
        tn_array *deep = tn_zeros((tn_ints){ones, TN_MAX_NDIM}, TN_I32);
        refused(tn_gather(a, TN_LIST(deep), TN_AXES(0), TN_INTS(1, 1)), TN_ESHAPE, "too many",
                "too many axes");
    }
}

static void test_empty(void) {
    TN_SCOPE {
        tn_array *a = numbers(TN_SHAPE(3, 4), TN_F32), *none = tn_zeros(TN_SHAPE(0), TN_I32),
                 *x = tn_zeros(TN_SHAPE(2), TN_I32);
        double *v = values(a);
        tn_array *y = tn_gather(a, TN_LIST(none), TN_AXES(0), TN_INTS(1, 4));
        ok(!tn_eval(TN_LIST(y)) && tn_size(y) == 0 && tn_dim(y, 2) == 4, "gather of no indices");
        y = tn_gather(a, TN_LIST(x), TN_AXES(0), TN_INTS(1, 0));
        ok(!tn_eval(TN_LIST(y)) && tn_size(y) == 0, "gather of empty slices");
        y = tn_scatter_add(a, TN_LIST(none), tn_zeros(TN_SHAPE(0, 1, 4), TN_F32), TN_AXES(0));
        ok(same(y, v, "no updates"), "scatter of no updates is the array");
        y = tn_scatter(a, TN_LIST(x), tn_zeros(TN_SHAPE(2, 1, 0), TN_F32), TN_AXES(0));
        ok(same(y, v, "empty updates"), "so is one of empty slices");
        y = tn_gather(tn_f32(2), TN_LIST(NULL), TN_AXES(), TN_INTS());
        ok(tn_array_status(y) < 0, "gather without indices is refused");
        y = tn_scatter_add(tn_zeros(TN_SHAPE(70000), TN_F32), TN_LIST(tn_i32(69999)),
                           tn_ones(TN_SHAPE(1), TN_F32), TN_AXES(0));
        is_i64((int64_t)tn_item_f64(tn_sum(y, TN_ALL, false)), 1, "a number by a number");
        free(v);
    }
}

static int use_all(int64_t failing, void *ud) {
    (void)failing, (void)ud;
    int status = 0;
    TN_SCOPE {
        tn_array *a = tn_arange(0, 600, 1, TN_F32), *x = tn_arange(0, 100, 1, TN_I32);
        a = tn_reshape(a, TN_SHAPE(100, 6));
        tn_array *u = tn_ones(TN_SHAPE(100, 1, 6), TN_BF16), *l = tn_reshape(x, TN_SHAPE(100, 1));
        status = tn_eval(TN_LIST(tn_scatter_add(tn_astype(a, TN_BF16), TN_LIST(x), u, TN_AXES(0)),
                                 tn_gather(a, TN_LIST(x, l), TN_AXES(0, 0), TN_INTS(1, 6))));
        if (status == TN_EAXIS) /* the second is refused, memory or not */
            status = tn_eval(
                TN_LIST(tn_scatter_add(tn_astype(a, TN_BF16), TN_LIST(x), u, TN_AXES(0)),
                        tn_gather(a, TN_LIST(x), TN_AXES(0), TN_INTS(1, 6)),
                        tn_take_along_axis(a, l, 0), tn_put_along_axis(a, l, tn_f32(3), 0)));
    }
    return status;
}

/* A scatter over an array that nobody else holds takes its memory, and leaves it as it was when an
 * index is wrong: what failed may be tried again. */
static void test_onto(void) {
    TN_SCOPE {
        tn_array *a = tn_arange(0, 4096, 1, TN_F32), *i = tn_arange(0, 8, 1, TN_I32);
        int status = tn_eval(TN_LIST(a, i));
        size_t most, active = tn_memory_stats().active;
        tn_memory_reset_peak();
        tn_array *y = NULL;
        TN_SCOPE {
            tn_array *twice = tn_mul(a, tn_f32(2)), *one = tn_ones(TN_SHAPE(8, 1), TN_F32);
            y = tn_keep(tn_scatter_add(twice, TN_LIST(i), one, TN_AXES(0)));
        }
        if (!status) status = tn_eval(TN_LIST(y));
        most = tn_memory_stats().peak - active;
        ok(!status && most < 2 * tn_nbytes(a), "a scatter over what dies there: %zu bytes", most);
        ok(!status && tn_data_f32(y)[7] == 15 && tn_data_f32(y)[8] == 16, "values");
        tn_drop(y);
        tn_array *far = tn_mul(tn_add(a, tn_f32(1)), tn_f32(3));
        tn_array *bad = tn_scatter_add(far, TN_LIST(tn_mul(i, tn_i32(1000))),
                                       tn_ones(TN_SHAPE(8, 1), TN_F32), TN_AXES(0));
        is_i64(tn_eval(TN_LIST(bad)), TN_EINDEX, "an index beyond");
        is_i64(tn_eval(TN_LIST(bad)), TN_EINDEX, "again");
        ok(!tn_eval(TN_LIST(far)) && tn_data_f32(far)[0] == 3,
           "what it was to change is unchanged");
    }
}

int main(void) {
    static const tn_dtype index_dtypes[] = {TN_U8, TN_U16, TN_U32, TN_U64,
                                            TN_I8, TN_I16, TN_I32, TN_I64};
    for (int d = 0; d < TN_DTYPE_COUNT; d++) {
        tn_dtype x = index_dtypes[d % 8];
        test_axis((tn_dtype)d, x, 3, 5, 7, 4, false);
        test_axis((tn_dtype)d, x, 3, 5, 7, 4, true);
        test_general((tn_dtype)d, x < TN_I8 ? x : TN_I32, 1, B, 1, d % 2);
        test_general((tn_dtype)d, TN_U32, 2, 3, 3, d % 2);
    }
    test_axis(TN_F32, TN_I32, 1, 1000, 3000, 1, false);
    test_axis(TN_F32, TN_I64, 2, 90, 300, 700, false);
    test_axis(TN_F32, TN_I64, 2, 90, 300, 700, true);
    test_axis(TN_I32, TN_U16, 40, 1, 300, 3, false);
    test_axis_more();
    test_threads(50, 384, 3000);
    test_threads(3, 20000, 7);
    test_threads(1000, 1, 50000);
    test_threads(1, 5, 9);
    test_empty();
    test_misuse();
    test_onto();
    memory_each(use_all, NULL, 20);
    tni_pool_shutdown();
    return tap_done();
}
