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

/* What holds of arguments and of nodes; 0 or a status. */
static int gather_axis_check(const char *op, const tni_out_spec *a, const tni_out_spec *indices,
                             int k) {
    int64_t size = 0;
    if (!tni_is_int(indices->dtype))
        return tni_fail(TN_EDTYPE, "%s: indices must be integers, not %s", op,
                        tni_describe_spec(indices));
    if (indices->ndim != a->ndim)
        return tni_fail(TN_ESHAPE, "%s: indices %s must have as many axes as %s", op,
                        tni_describe_spec(indices), tni_describe_spec(a));
    if (!a->shape[k] && tni_shape_size(indices->ndim, indices->shape, &size) && size)
        return tni_fail(TN_EINDEX, "%s: axis %d of %s is empty", op, k, tni_describe_spec(a));
    return 0;
}

/* The same of arguments; the axis counted from the front, or a negative status. */
static int gather_axis_arguments(const char *op, const tn_array *a, const tn_array *indices,
                                 int axis) {
    int k = tni_axis(a->ndim, axis);
    if (k < 0)
        return tni_fail(TN_EAXIS, "%s: axis %d is out of range for %s", op, axis, tni_describe(a));
    tni_out_spec x = tni_spec_of(a), i = tni_spec_of(indices);
    int status = gather_axis_check(op, &x, &i, k);
    return status ? status : k;
}

static int gather_axis_infer(const tni_infer_call *c) {
    int k = ((const tni_p_gather_axis *)c->params)->axis;
    const tni_out_spec *a = &c->in[0], *indices = &c->in[1];
    if (k < 0 || k >= a->ndim)
        return tni_fail(TN_EAXIS, "%s: axis %d is out of range for %s", c->op, k,
                        tni_describe_spec(a));
    int status = gather_axis_check(c->op, a, indices, k);
    for (int d = 0; d < a->ndim && !status; d++)
        if (d != k && a->shape[d] != indices->shape[d])
            status = tni_fail(TN_ESHAPE, "%s: indices %s do not fit %s off axis %d", c->op,
                              tni_describe_spec(indices), tni_describe_spec(a), k);
    return status;
}

TNI_RULE_INFER(gather_axis) {
    if (tni_infer_arity(c, 2, 2)) return TN_EVALUE;
    int status = gather_axis_infer(c);
    if (!status) tni_infer_out(c, 0, c->in[0].dtype, c->in[1].ndim, c->in[1].shape);
    return status;
}

tn_array *tn_take_along_axis(tn_array *a, tn_array *indices, int axis) {
    const char *op = "take_along_axis";
    TNI_INPUTS(op, a, indices);
    int64_t as[TN_MAX_NDIM], is[TN_MAX_NDIM];
    int k = gather_axis_arguments(op, a, indices, axis);
    if (k < 0 || gather_axis_shape(op, a, indices, k, as, is)) return tni_error_last();
    tn_array *in[2] = {tni_expand(a, a->ndim, as), tni_expand(indices, a->ndim, is)};
    return tni_op_rule(op, TNI_PRIM(gather_axis), 2, in, &(tni_p_gather_axis){.axis = k}, NULL);
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

/* A node of this dtype may combine so. */
static int gather_mode_check(const tni_infer_call *c, int mode) {
    const tni_out_spec *a = c->in;
    if (mode < TNI_SCATTER_SET || mode > TNI_SCATTER_MIN)
        return tni_fail(TN_EVALUE, "%s: no mode %d", c->op, mode);
    bool ordered = mode == TNI_SCATTER_MAX || mode == TNI_SCATTER_MIN;
    if (gather_dtype(mode, a->dtype) == a->dtype && !(ordered && a->dtype == TN_C64)) return 0;
    return tni_fail(TN_EDTYPE, "%s: not defined for %s", c->op, tni_describe_spec(a));
}

/* Updates, the last input, of the wanted shape and the array's dtype. */
static int gather_infer_updates(const tni_infer_call *c, int ndim, const int64_t *shape) {
    const tni_out_spec *u = &c->in[c->n_in - 1];
    char s[TNI_SHAPE_STR];
    if (u->dtype == c->in[0].dtype && tni_same_shape(u->ndim, u->shape, ndim, shape)) return 0;
    return tni_fail(TN_ESHAPE, "%s: updates %s are not %s %s", c->op, tni_describe_spec(u),
                    tni_shape_str(ndim, shape, s, sizeof s), tn_dtype_name(c->in[0].dtype));
}

TNI_RULE_INFER(scatter_axis) {
    if (tni_infer_arity(c, 3, 3)) return TN_EVALUE;
    int status = gather_axis_infer(c);
    if (!status) status = gather_mode_check(c, ((const tni_p_gather_axis *)c->params)->mode);
    if (!status) status = gather_infer_updates(c, c->in[1].ndim, c->in[1].shape);
    return status ? status : tni_infer_like(c, 0);
}

static tn_array *gather_back(tn_array *y, tn_dtype d) {
    return y->dtype == d ? y : tn_astype(y, d);
}

static tn_array *scatter_axis(const char *op, int mode, tn_array *a, tn_array *indices,
                              tn_array *updates, int axis) {
    TNI_INPUTS(op, a, indices, updates);
    int64_t as[TN_MAX_NDIM], is[TN_MAX_NDIM];
    int k = gather_axis_arguments(op, a, indices, axis);
    if (k < 0 || gather_axis_shape(op, a, indices, k, as, is)) return tni_error_last();
    tn_dtype d = gather_dtype(mode, (tn_dtype)a->dtype);
    tn_array *x = tni_cast(a, d);
    if (tni_is_error(x)) return x;
    tn_array *in[3] = {tni_expand(x, a->ndim, as), tni_expand(indices, a->ndim, is),
                       gather_updates(op, updates, d, a->ndim, is)};
    tni_p_gather_axis p = {.axis = k, .mode = mode};
    return gather_back(tni_op_rule(op, TNI_PRIM(scatter_axis), 3, in, &p, NULL),
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
        if (!tni_broadcast(*ni, shape, v->ndim, v->shape, ni, shape))
            return tni_fail(TN_ESHAPE, "%s: index array %d, %s, does not fit those before it", op,
                            k, tni_describe(v));
    }
    return 0;
}

/* The rules' common part: in[1 .. p->n] are the indices. */
static int gather_infer(const tni_infer_call *c, const tni_p_gather *p) {
    const tni_out_spec *a = &c->in[0], *i = &c->in[1];
    uint32_t seen = 0;
    for (int k = 0; k < p->n; k++) {
        int axis = p->axes[k];
        if (axis < 0 || axis >= a->ndim || seen >> axis & 1)
            return tni_fail(TN_EAXIS, "%s: axis %d of %s is out of range or named twice", c->op,
                            axis, tni_describe_spec(a));
        seen |= 1u << axis;
        if (!tni_is_int(i[k].dtype))
            return tni_fail(TN_EDTYPE, "%s: indices must be integers, not %s", c->op,
                            tni_describe_spec(&i[k]));
        if (!tni_infer_same(&i[k], i))
            return tni_fail(TN_ESHAPE, "%s: index arrays %s and %s differ", c->op,
                            tni_describe_spec(i), tni_describe_spec(&i[k]));
    }
    if (i->ndim + a->ndim <= TN_MAX_NDIM) return 0;
    return tni_fail(TN_ESHAPE, "%s: %d axes of indices and %d of the array are too many", c->op,
                    i->ndim, a->ndim);
}

/* The slice, last axes of `shape`, is a part of the array. */
static int gather_slice(const tni_infer_call *c, int ndim, const int64_t *shape) {
    const tni_out_spec *a = &c->in[0];
    for (int d = 0; d < a->ndim; d++) {
        int64_t n = shape[ndim - a->ndim + d];
        if (n < 0 || n > a->shape[d])
            return tni_fail(TN_ESHAPE, "%s: a slice of %lld of axis %d of %s", c->op, (long long)n,
                            d, tni_describe_spec(a));
    }
    return 0;
}

/* The sizes of the slice, last axes of the output, are free. */
TNI_RULE_INFER(gather) {
    const tni_p_gather *p = c->params;
    if (p->n < 1 || p->n > TN_MAX_NDIM || tni_infer_arity(c, 1 + p->n, 1 + p->n)) return TN_EVALUE;
    const tni_out_spec *a = &c->in[0], *i = &c->in[1];
    tni_spec *y = c->out;
    int status = p->mode ? tni_fail(TN_EVALUE, "%s: mode %d", c->op, p->mode) : gather_infer(c, p);
    if (!status && y->ndim != i->ndim + a->ndim)
        status = tni_fail(TN_ESHAPE, "%s: %d axes out of %s by %s", c->op, y->ndim,
                          tni_describe_spec(a), tni_describe_spec(i));
    if (!status) status = gather_slice(c, y->ndim, y->shape);
    if (status) return status;
    memcpy(y->shape, i->shape, sizeof y->shape[0] * (size_t)i->ndim);
    y->dtype = a->dtype;
    int64_t size;
    if (tni_shape_size(y->ndim, y->shape, &size)) return 0;
    return tni_fail(TN_ESHAPE, "%s: the result is too large", c->op);
}

TNI_RULE_INFER(scatter) {
    const tni_p_gather *p = c->params;
    if (p->n < 1 || p->n > TN_MAX_NDIM || tni_infer_arity(c, 2 + p->n, 2 + p->n)) return TN_EVALUE;
    const tni_out_spec *a = &c->in[0], *i = &c->in[1], *u = &c->in[c->n_in - 1];
    int status = gather_infer(c, p);
    if (!status) status = gather_mode_check(c, p->mode);
    if (status) return status;
    bool fit = u->dtype == a->dtype && u->ndim == i->ndim + a->ndim &&
               tni_same_shape(i->ndim, u->shape, i->ndim, i->shape);
    for (int d = 0; d < a->ndim && fit; d++) fit = u->shape[i->ndim + d] <= a->shape[d];
    if (fit) return tni_infer_like(c, 0);
    char s[TNI_SHAPE_STR];
    return tni_fail(TN_ESHAPE,
                    "%s: updates %s must be shaped as the indices, %s, and then a slice of %s",
                    c->op, tni_describe_spec(u), tni_shape_str(i->ndim, i->shape, s, sizeof s),
                    tni_describe_spec(a));
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
    int64_t shape[TN_MAX_NDIM];
    int ni;
    if (gather_check("gather", a, indices, axes, &p, &ni, shape)) return tni_error_last();
    if (slice_sizes.n != a->ndim)
        return tni_error_array(TN_ESHAPE, "gather: one slice size for each axis of %s is needed",
                               tni_describe(a));
    if (gather_inputs(indices, ni, shape, in + 1)) return tni_error_last();
    tni_spec want = {.dtype = (tn_dtype)a->dtype, .ndim = ni + a->ndim};
    for (int d = 0; d < a->ndim && want.ndim <= TN_MAX_NDIM; d++) {
        if (slice_sizes.v[d] < 0 || slice_sizes.v[d] > a->shape[d])
            return tni_error_array(TN_ESHAPE, "gather: a slice of %lld of axis %d of %s",
                                   (long long)slice_sizes.v[d], d, tni_describe(a));
        want.shape[ni + d] = slice_sizes.v[d];
    }
    if (want.ndim > TN_MAX_NDIM) want.ndim = TN_MAX_NDIM; /* the rule says what is wrong */
    return tni_op_rule("gather", TNI_PRIM(gather), 1 + p.n, in, &p, &want);
}

static tn_array *scatter(const char *op, int mode, tn_array *a, tn_list indices, tn_array *updates,
                         tn_ints axes) {
    TNI_INPUTS(op, a, updates);
    tn_array *bad = tni_inputs(op, indices), *in[2 + TN_MAX_NDIM];
    if (bad) return bad;
    tni_p_gather p;
    int64_t shape[TN_MAX_NDIM];
    int ni;
    if (gather_check(op, a, indices, axes, &p, &ni, shape) ||
        gather_inputs(indices, ni, shape, in + 1))
        return tni_error_last();
    p.mode = mode;
    tn_dtype d = gather_dtype(mode, (tn_dtype)a->dtype);
    in[0] = tni_cast(a, d), in[1 + p.n] = tni_cast(updates, d);
    return gather_back(tni_op_rule(op, TNI_PRIM(scatter), 2 + p.n, in, &p, NULL),
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
