/* Picking and changing parts by index arrays: along one axis with an index an element, and in
 * general with an index array for each of several axes. */
#include "base/err.h"
#include "ops/build.h"
#include <string.h>

/* ---- along one axis ---- */

/* The shape both take off the axis, sizes along it kept apart; 0 or a status. */
static int gather_axis_shape(const char *op, const tn_array *a, const tn_array *indices, int k,
                             int64_t *as, int64_t *is) {
    int n;
    memcpy(as, a->shape, sizeof *as * a->ndim);
    memcpy(is, indices->shape, sizeof *is * a->ndim);
    as[k] = is[k] = 1;
    if (!tni_broadcast(a->ndim, as, a->ndim, is, &n, as))
        return tni_fail(TN_ESHAPE, "%s: indices %s do not fit %s off axis %d", op,
                        tni_describe(indices), tni_describe(a), k);
    memcpy(is, as, sizeof *is * a->ndim);
    as[k] = a->shape[k], is[k] = indices->shape[k];
    int64_t size;
    if (!tni_shape_size(a->ndim, as, &size) || !tni_shape_size(a->ndim, is, &size))
        return tni_fail(TN_ESHAPE, "%s: the result is too large", op);
    return 0;
}

/* Checks the arguments; the axis counted from the front, or a negative status. */
static int gather_axis_check(const char *op, const tn_array *a, const tn_array *indices, int axis) {
    int k = tni_axis(a->ndim, axis);
    if (k < 0)
        return tni_fail(TN_EAXIS, "%s: axis %d is out of range for %s", op, axis, tni_describe(a));
    if (!tni_is_int((tn_dtype)indices->dtype))
        return tni_fail(TN_EDTYPE, "%s: indices must be integers, not %s", op,
                        tni_describe(indices));
    if (indices->ndim != a->ndim)
        return tni_fail(TN_ESHAPE, "%s: indices %s must have as many axes as %s", op,
                        tni_describe(indices), tni_describe(a));
    if (!a->shape[k] && indices->size)
        return tni_fail(TN_EINDEX, "%s: axis %d of %s is empty", op, axis, tni_describe(a));
    return k;
}

tn_array *tn_take_along_axis(tn_array *a, tn_array *indices, int axis) {
    TNI_INPUTS("take_along_axis", a, indices);
    int64_t as[TN_MAX_NDIM], is[TN_MAX_NDIM];
    int k = gather_axis_check("take_along_axis", a, indices, axis);
    if (k < 0 || gather_axis_shape("take_along_axis", a, indices, k, as, is))
        return tni_error_last();
    tn_array *in[2] = {tni_expand(a, a->ndim, as), tni_expand(indices, a->ndim, is)};
    if (tni_is_error(in[0])) return in[0];
    if (tni_is_error(in[1])) return in[1];
    return tni_op1(TNI_PRIM(gather_axis), 2, in, &(tni_p_gather_axis){.axis = k},
                   (tn_dtype)a->dtype, a->ndim, is);
}

/* The updates as `shape`: broadcast, leading axes of size 1 dropped. */
static tn_array *gather_updates(const char *op, tn_array *u, tn_dtype d, int ndim,
                                const int64_t *shape) {
    int64_t got[TN_MAX_NDIM];
    int n, lead = 0;
    while (u->ndim - lead > ndim && u->shape[lead] == 1) lead++;
    char s[TNI_SHAPE_STR];
    if (!tni_broadcast(u->ndim - lead, u->shape + lead, ndim, shape, &n, got) ||
        !tni_same_shape(n, got, ndim, shape))
        return tni_error_array(TN_ESHAPE, "%s: updates %s do not become %s", op, tni_describe(u),
                               tni_shape_str(ndim, shape, s, sizeof s));
    tn_array *v = tni_cast(u, d);
    if (lead && !tni_is_error(v)) v = tn_reshape(v, (tn_ints){u->shape + lead, u->ndim - lead});
    return tni_is_error(v) ? v : tni_expand(v, ndim, shape);
}

/* Sums and products of narrow floats are made in f32, rounded once. */
static tn_dtype gather_dtype(int mode, tn_dtype d) {
    bool rounds = mode == TNI_SCATTER_SUM || mode == TNI_SCATTER_PROD;
    return rounds && (d == TN_F16 || d == TN_BF16) ? TN_F32 : d;
}

static int gather_mode_check(const char *op, int mode, const tn_array *a) {
    if (a->dtype != TN_C64 || mode == TNI_SCATTER_SET || mode == TNI_SCATTER_SUM ||
        mode == TNI_SCATTER_PROD)
        return 0;
    return tni_fail(TN_EDTYPE, "%s: not defined for %s", op, tni_describe(a));
}

static tn_array *gather_back(tn_array *y, tn_dtype d) {
    return y->dtype == d ? y : tn_astype(y, d);
}

static tn_array *scatter_axis(const char *op, int mode, tn_array *a, tn_array *indices,
                              tn_array *updates, int axis) {
    TNI_INPUTS(op, a, indices, updates);
    int64_t as[TN_MAX_NDIM], is[TN_MAX_NDIM];
    int k = gather_axis_check(op, a, indices, axis);
    if (k < 0 || gather_mode_check(op, mode, a) || gather_axis_shape(op, a, indices, k, as, is))
        return tni_error_last();
    tn_dtype d = gather_dtype(mode, (tn_dtype)a->dtype);
    tn_array *x = tni_cast(a, d);
    if (tni_is_error(x)) return x;
    tn_array *in[3] = {tni_expand(x, a->ndim, as), tni_expand(indices, a->ndim, is),
                       gather_updates(op, updates, d, a->ndim, is)};
    for (int i = 0; i < 3; i++)
        if (tni_is_error(in[i])) return in[i];
    tni_p_gather_axis p = {.axis = k, .mode = mode};
    return gather_back(tni_op1(TNI_PRIM(scatter_axis), 3, in, &p, d, a->ndim, as),
                       (tn_dtype)a->dtype);
}

tn_array *tn_put_along_axis(tn_array *a, tn_array *indices, tn_array *values, int axis) {
    return scatter_axis("put_along_axis", TNI_SCATTER_SET, a, indices, values, axis);
}
tn_array *tn_scatter_add_axis(tn_array *a, tn_array *indices, tn_array *values, int axis) {
    return scatter_axis("scatter_add_axis", TNI_SCATTER_SUM, a, indices, values, axis);
}

/* ---- several index arrays ---- */

/* Checks the indices and gives the shape they have together; 0 or a status. */
static int gather_check(const char *op, const tn_array *a, tn_list indices, tn_ints axes,
                        tni_p_gather *p, int *ni, int64_t *shape) {
    memset(p, 0, sizeof *p);
    *ni = 0;
    if (tni_axes_mask(op, a->ndim, axes) < 0) return TN_EAXIS;
    if (indices.n < 1 || indices.n != axes.n)
        return tni_fail(TN_EAXIS, "%s: one axis of %s for each index array is needed", op,
                        tni_describe(a));
    p->n = indices.n;
    for (int k = 0; k < indices.n; k++) {
        const tn_array *v = indices.v[k];
        p->axes[k] = (int8_t)tni_axis(a->ndim, axes.v[k]);
        if (!tni_is_int((tn_dtype)v->dtype))
            return tni_fail(TN_EDTYPE, "%s: indices must be integers, not %s", op, tni_describe(v));
        if (!tni_broadcast(*ni, shape, v->ndim, v->shape, ni, shape))
            return tni_fail(TN_ESHAPE, "%s: index array %d, %s, does not fit those before it", op,
                            k, tni_describe(v));
    }
    if (*ni + a->ndim <= TN_MAX_NDIM) return 0;
    return tni_fail(TN_ESHAPE, "%s: %d axes of indices and %d of the array are too many", op, *ni,
                    a->ndim);
}

/* in[1..]: the index arrays, all of the same shape. */
static int gather_inputs(tn_list indices, int ni, const int64_t *shape, tn_array **in) {
    for (int k = 0; k < indices.n; k++) {
        in[k] = tni_expand(indices.v[k], ni, shape);
        if (tni_is_error(in[k])) return tn_array_status(in[k]);
    }
    return 0;
}

tn_array *tn_gather(tn_array *a, tn_list indices, tn_ints axes, tn_ints slice_sizes) {
    TNI_INPUTS("gather", a);
    tn_array *bad = tni_inputs("gather", indices), *in[1 + TN_MAX_NDIM] = {a};
    if (bad) return bad;
    tni_p_gather p;
    int64_t shape[2 * TN_MAX_NDIM], size;
    int ni;
    if (gather_check("gather", a, indices, axes, &p, &ni, shape)) return tni_error_last();
    if (slice_sizes.n != a->ndim)
        return tni_error_array(TN_ESHAPE, "gather: one slice size for each axis of %s is needed",
                               tni_describe(a));
    for (int d = 0; d < a->ndim; d++) {
        shape[ni + d] = slice_sizes.v[d];
        if (slice_sizes.v[d] < 0 || slice_sizes.v[d] > a->shape[d])
            return tni_error_array(TN_ESHAPE, "gather: a slice of %lld of axis %d of %s",
                                   (long long)slice_sizes.v[d], d, tni_describe(a));
    }
    if (!tni_shape_size(ni + a->ndim, shape, &size))
        return tni_error_array(TN_ESHAPE, "gather: the result is too large");
    if (gather_inputs(indices, ni, shape, in + 1)) return tni_error_last();
    return tni_op1(TNI_PRIM(gather), 1 + p.n, in, &p, (tn_dtype)a->dtype, ni + a->ndim, shape);
}

/* Shape of the updates: that of the indices, then a slice that fits `a`; 0 or a status. */
static int scatter_updates(const char *op, const tn_array *a, const tn_array *u, int ni,
                           const int64_t *shape) {
    bool good = u->ndim == ni + a->ndim;
    for (int d = 0; d < a->ndim && good; d++) good = u->shape[ni + d] <= a->shape[d];
    for (int d = 0; d < ni && good; d++) good = u->shape[d] == shape[d];
    if (good) return 0;
    char s[TNI_SHAPE_STR];
    return tni_fail(TN_ESHAPE,
                    "%s: updates %s must be shaped as the indices, %s, and then a slice of %s", op,
                    tni_describe(u), tni_shape_str(ni, shape, s, sizeof s), tni_describe(a));
}

static tn_array *scatter(const char *op, int mode, tn_array *a, tn_list indices, tn_array *updates,
                         tn_ints axes) {
    TNI_INPUTS(op, a, updates);
    tn_array *bad = tni_inputs(op, indices), *in[2 + TN_MAX_NDIM];
    if (bad) return bad;
    tni_p_gather p;
    int64_t shape[TN_MAX_NDIM];
    int ni;
    if (gather_mode_check(op, mode, a) || gather_check(op, a, indices, axes, &p, &ni, shape) ||
        scatter_updates(op, a, updates, ni, shape) || gather_inputs(indices, ni, shape, in + 1))
        return tni_error_last();
    p.mode = mode;
    tn_dtype d = gather_dtype(mode, (tn_dtype)a->dtype);
    in[0] = tni_cast(a, d), in[1 + p.n] = tni_cast(updates, d);
    if (tni_is_error(in[0])) return in[0];
    if (tni_is_error(in[1 + p.n])) return in[1 + p.n];
    return gather_back(tni_op1(TNI_PRIM(scatter), 2 + p.n, in, &p, d, a->ndim, a->shape),
                       (tn_dtype)a->dtype);
}

tn_array *tn_scatter(tn_array *a, tn_list indices, tn_array *updates, tn_ints axes) {
    return scatter("scatter", TNI_SCATTER_SET, a, indices, updates, axes);
}
tn_array *tn_scatter_add(tn_array *a, tn_list indices, tn_array *updates, tn_ints axes) {
    return scatter("scatter_add", TNI_SCATTER_SUM, a, indices, updates, axes);
}
tn_array *tn_scatter_prod(tn_array *a, tn_list indices, tn_array *updates, tn_ints axes) {
    return scatter("scatter_prod", TNI_SCATTER_PROD, a, indices, updates, axes);
}
tn_array *tn_scatter_max(tn_array *a, tn_list indices, tn_array *updates, tn_ints axes) {
    return scatter("scatter_max", TNI_SCATTER_MAX, a, indices, updates, axes);
}
tn_array *tn_scatter_min(tn_array *a, tn_list indices, tn_array *updates, tn_ints axes) {
    return scatter("scatter_min", TNI_SCATTER_MIN, a, indices, updates, axes);
}
