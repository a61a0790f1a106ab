/* Ops made of other ops. A new primitive needs a measurement; these did not. */
#include "base/err.h"
#include "ops/build.h"
#include <math.h>
#include <string.h>

/* ---- constants ---- */

tn_array *tn_full(tn_ints shape, tn_array *value) {
    TNI_INPUTS("full", value);
    tn_array *v = value->flags & TNI_A_WEAK ? tn_astype(value, (tn_dtype)value->dtype) : value;
    return tn_broadcast_to(v, shape);
}

tn_array *tn_zeros(tn_ints shape, tn_dtype dtype) { return tn_full(shape, tn_scalar(0, dtype)); }
tn_array *tn_ones(tn_ints shape, tn_dtype dtype) { return tn_full(shape, tn_scalar(1, dtype)); }

tn_array *tn_zeros_like(tn_array *a) {
    TNI_INPUTS("zeros_like", a);
    return tn_zeros(tn_shape(a), (tn_dtype)a->dtype);
}

tn_array *tn_ones_like(tn_array *a) {
    TNI_INPUTS("ones_like", a);
    return tn_ones(tn_shape(a), (tn_dtype)a->dtype);
}

/* The dtype and the number of elements are free. */
TNI_RULE_INFER(arange) {
    tn_dtype d = c->out[0].dtype;
    if (tni_infer_arity(c, 0, 0)) return TN_EVALUE;
    if (d == TN_BOOL || d == TN_C64)
        return tni_fail(TN_EDTYPE, "%s: not defined for %s", c->op, tn_dtype_name(d));
    if (c->out[0].ndim != 1)
        return tni_fail(TN_ESHAPE, "%s: has one axis, not %d", c->op, c->out[0].ndim);
    return 0;
}

tn_array *tn_arange(double start, double stop, double step, tn_dtype dtype) {
    if ((unsigned)dtype >= TN_DTYPE_COUNT)
        return tni_error_array(TN_EDTYPE, "arange: not defined for %s", tn_dtype_name(dtype));
    double n = step != 0 ? ceil((stop - start) / step) : NAN;
    if (isnan(n) || n > 0x1p59)
        return tni_error_array(TN_EVALUE,
                               "arange: from %g to %g by %g has no length that can be held", start,
                               stop, step);
    tni_p_arange p = {start, step, (int64_t)start, (int64_t)step};
    tni_spec want = {dtype, 1, {n > 0 ? (int64_t)n : 0}};
    return tni_op_rule("arange", TNI_PRIM(arange), 0, NULL, &p, &want);
}

tn_array *tn_linspace(double start, double stop, int64_t num, tn_dtype dtype) {
    if (num < 0 || !tni_is_float(dtype))
        return tni_error_array(TN_EVALUE, "linspace: %lld numbers of %s", (long long)num,
                               tn_dtype_name(dtype));
    tn_array *t =
        tn_div(tn_arange(0, (double)num, 1, TN_F32), tn_f32(num > 1 ? (double)(num - 1) : 1));
    return tn_astype(tn_add(tn_mul(tn_sub(tn_f32(1), t), tn_f32(start)), tn_mul(t, tn_f32(stop))),
                     dtype);
}

/* Row number + k - column number of an n by m matrix, i64. */
static tn_array *compose_diagonal(int64_t n, int64_t m, int64_t k) {
    tn_array *rows = tn_arange((double)k, (double)(n + k), 1, TN_I64);
    return tn_sub(tn_expand_dims(rows, TN_AXES(1)), tn_arange(0, (double)m, 1, TN_I64));
}

static bool compose_matrix_ok(int64_t n, int64_t m, int64_t k) {
    const int64_t limit = (int64_t)1 << 52; /* exact as double */
    return n >= 0 && m >= 0 && n < limit && m < limit && k > -limit && k < limit;
}

tn_array *tn_eye(int64_t n, int64_t m, int64_t k, tn_dtype dtype) {
    if (!compose_matrix_ok(n, m, k))
        return tni_error_array(TN_EVALUE, "eye: %lld by %lld, diagonal %lld", (long long)n,
                               (long long)m, (long long)k);
    return tn_astype(tn_equal(compose_diagonal(n, m, k), tn_i32(0)), dtype);
}

tn_array *tn_tri(int64_t n, int64_t m, int64_t k, tn_dtype dtype) {
    if (!compose_matrix_ok(n, m, k))
        return tni_error_array(TN_EVALUE, "tri: %lld by %lld, diagonal %lld", (long long)n,
                               (long long)m, (long long)k);
    return tn_astype(tn_greater_equal(compose_diagonal(n, m, k), tn_i32(0)), dtype);
}

tn_array *tn_tril(tn_array *a, int64_t k) {
    TNI_INPUTS("tril", a);
    if (a->ndim < 2)
        return tni_error_array(TN_ESHAPE, "tril: needs two axes, got %s", tni_describe(a));
    return tn_where(tn_tri(tn_dim(a, -2), tn_dim(a, -1), k, TN_BOOL), a,
                    tn_scalar(0, (tn_dtype)a->dtype));
}

tn_array *tn_triu(tn_array *a, int64_t k) {
    TNI_INPUTS("triu", a);
    if (a->ndim < 2)
        return tni_error_array(TN_ESHAPE, "triu: needs two axes, got %s", tni_describe(a));
    return tn_where(tn_tri(tn_dim(a, -2), tn_dim(a, -1), k - 1, TN_BOOL),
                    tn_scalar(0, (tn_dtype)a->dtype), a);
}

/* ---- repetition ---- */

tn_array *tn_repeat(tn_array *a, int64_t repeats, int axis) {
    TNI_INPUTS("repeat", a);
    int k = tni_axis(a->ndim, axis);
    int64_t shape[TN_MAX_NDIM + 1], size;
    if (k < 0)
        return tni_error_array(TN_EAXIS, "repeat: axis %d is out of range for %s", axis,
                               tni_describe(a));
    if (repeats < 0 || a->ndim == TN_MAX_NDIM ||
        __builtin_mul_overflow(a->shape[k], repeats, &size))
        return tni_error_array(TN_EVALUE, "repeat: %lld times along axis %d of %s",
                               (long long)repeats, axis, tni_describe(a));
    for (int i = 0, n = 0; i < a->ndim; i++) {
        shape[n++] = a->shape[i];
        if (i == k) shape[n++] = repeats;
    }
    tn_array *y = tn_broadcast_to(tn_expand_dims(a, TN_AXES(k + 1)), (tn_ints){shape, a->ndim + 1});
    memcpy(shape, a->shape, sizeof shape[0] * a->ndim);
    shape[k] = size;
    return tn_reshape(y, (tn_ints){shape, a->ndim});
}

tn_array *tn_tile(tn_array *a, tn_ints reps) {
    TNI_INPUTS("tile", a);
    tn_array *y = a;
    int n = reps.n > a->ndim ? reps.n : a->ndim;
    if (n > TN_MAX_NDIM)
        return tni_error_array(TN_ESHAPE, "tile: %d axes; at most %d are allowed", n, TN_MAX_NDIM);
    int64_t shape[TN_MAX_NDIM];
    for (int i = 0; i < n; i++) shape[i] = i < n - a->ndim ? 1 : a->shape[i - (n - a->ndim)];
    y = tn_reshape(y, (tn_ints){shape, n});
    for (int i = 0; i < n; i++) {
        int64_t r = i < n - reps.n ? 1 : reps.v[i - (n - reps.n)];
        if (r < 0)
            return tni_error_array(TN_EVALUE, "tile: %lld times along axis %d", (long long)r, i);
        /* [.., n, ..] -> [.., r, n, ..] -> [.., r*n, ..] is a repeat of an axis put in front. */
        if (r != 1) y = tn_flatten(tn_repeat(tn_expand_dims(y, TN_AXES(i)), r, i), i, i + 1);
    }
    return y == a ? tni_scope_again(a) : y;
}

tn_array *tn_flip(tn_array *a, tn_ints axes) {
    TNI_INPUTS("flip", a);
    int64_t mask = tni_axes_mask("flip", a->ndim, axes);
    if (mask < 0) return tni_error_last();
    tni_p_slice p = {0};
    for (int i = 0; i < a->ndim; i++) {
        bool turn = (mask >> i & 1) && a->shape[i];
        p.start[i] = turn ? a->shape[i] - 1 : 0, p.step[i] = turn ? -1 : 1;
    }
    return tni_slice_node(a, &p, a->shape);
}

/* ---- statistics ---- */

static double compose_count(const tn_array *a, int64_t mask) {
    double n = 1;
    for (int i = 0; i < a->ndim; i++)
        if (mask >> i & 1) n *= (double)a->shape[i];
    return n;
}

static tn_array *compose_float(tn_array *a) {
    return tni_is_inexact((tn_dtype)a->dtype) ? a : tn_astype(a, TN_F32);
}

/* A number with all the digits that x's dtype holds. */
static tn_array *compose_like(const tn_array *x, double value) {
    return tn_scalar(value, (tn_dtype)x->dtype);
}

tn_array *tn_mean(tn_array *a, tn_ints axes, bool keepdims) {
    TNI_INPUTS("mean", a);
    int64_t mask = tni_axes_mask("mean", a->ndim, axes);
    if (mask < 0) return tni_error_last();
    /* Halves are summed and divided in f32, so that a sum past their range still has a mean. */
    tn_dtype d = tni_is_inexact((tn_dtype)a->dtype) ? (tn_dtype)a->dtype : TN_F32;
    tn_array *x = d == TN_F16 || d == TN_BF16 ? tn_astype(a, TN_F32) : compose_float(a);
    return tn_astype(tn_mul(tn_sum(x, axes, keepdims), compose_like(x, 1 / compose_count(a, mask))),
                     d);
}

tn_array *tn_var(tn_array *a, tn_ints axes, bool keepdims, int64_t ddof) {
    TNI_INPUTS("var", a);
    int64_t mask = tni_axes_mask("var", a->ndim, axes);
    if (mask < 0) return tni_error_last();
    if (a->dtype == TN_C64)
        return tni_error_array(TN_EDTYPE, "var: not defined for %s", tni_describe(a));
    tn_dtype d = tni_is_inexact((tn_dtype)a->dtype) ? (tn_dtype)a->dtype : TN_F32;
    tn_array *x = d == TN_F16 || d == TN_BF16 ? tn_astype(a, TN_F32) : compose_float(a);
    tn_array *dev = tn_square(tn_sub(x, tn_mean(x, axes, true)));
    double n = compose_count(a, mask) - (double)ddof;
    return tn_astype(tn_mul(tn_sum(dev, axes, keepdims), compose_like(x, 1 / (n > 0 ? n : 0))), d);
}

tn_array *tn_std(tn_array *a, tn_ints axes, bool keepdims, int64_t ddof) {
    return tn_sqrt(tn_var(a, axes, keepdims, ddof));
}

tn_array *tn_clip(tn_array *a, tn_array *low, tn_array *high) {
    tn_array *y = low ? tn_maximum(a, low) : a;
    if (high) y = tn_minimum(y, high);
    TNI_INPUTS("clip", y);
    return y == a ? tni_scope_again(a) : y;
}
