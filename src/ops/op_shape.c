/* Shape and layout: views, concatenation, parts. */
#include "base/alloc.h"
#include "base/err.h"
#include "ops/build.h"
#include <string.h>

static tn_array *shape_view(int op, tn_array *a, const void *params, int ndim,
                            const int64_t *shape) {
    return tni_op1(&tni_prims[op], 1, &a, params, (tn_dtype)a->dtype, ndim, shape);
}

/* ---- rules ---- */

/* The wanted shape holds as many elements. */
TNI_RULE_INFER(reshape) {
    const tni_spec *y = c->out;
    int64_t from = 0, to = 0;
    char s[TNI_SHAPE_STR];
    if (tni_infer_arity(c, 1, 1)) return TN_EVALUE;
    if (!tni_shape_size(c->in[0].ndim, c->in[0].shape, &from) ||
        !tni_shape_size(y->ndim, y->shape, &to) || from != to)
        return tni_fail(TN_ESHAPE, "%s: %s has %lld elements and cannot become %s", c->op,
                        tni_describe_spec(c->in), (long long)from,
                        tni_shape_str(y->ndim, y->shape, s, sizeof s));
    c->out[0].dtype = c->in[0].dtype;
    return 0;
}

TNI_RULE_INFER(transpose) {
    const tni_p_axes *p = c->params;
    int64_t shape[TN_MAX_NDIM], seen = 0;
    if (tni_infer_arity(c, 1, 1)) return TN_EVALUE;
    const tni_out_spec *a = c->in;
    for (int i = 0; i < a->ndim; i++) {
        int k = p->axes[i];
        if (k < 0 || k >= a->ndim || seen >> k & 1)
            return tni_fail(TN_EAXIS, "%s: axis %d of %s is out of range or named twice", c->op, k,
                            tni_describe_spec(a));
        seen |= (int64_t)1 << k;
        shape[i] = a->shape[k];
    }
    tni_infer_out(c, 0, a->dtype, a->ndim, shape);
    return 0;
}

/* n places from `start` by `step` lie on an axis of `size`. */
static bool shape_part_fits(int64_t start, int64_t step, int64_t n, int64_t size) {
    int64_t last;
    if (!step || step == INT64_MIN) return false;
    if (!n) return true;
    if (start < 0 || start >= size || __builtin_mul_overflow(step, n - 1, &last)) return false;
    return !__builtin_add_overflow(last, start, &last) && last >= 0 && last < size;
}

static int shape_infer_part(const tni_infer_call *c, const int64_t *part, int part_ndim) {
    const tni_p_slice *p = c->params;
    const tni_out_spec *a = c->in;
    bool good = part_ndim == a->ndim;
    for (int i = 0; i < a->ndim && good; i++) {
        good = shape_part_fits(p->start[i], p->step[i], part[i], a->shape[i]) &&
               (part[i] > 1 || p->step[i] == 1) && (part[i] || !p->start[i]);
        if (!good)
            return tni_fail(TN_EINDEX, "%s: %lld places from %lld, step %lld, on axis %d of %s",
                            c->op, (long long)part[i], (long long)p->start[i],
                            (long long)p->step[i], i, tni_describe_spec(a));
    }
    if (good) return 0;
    return tni_fail(TN_ESHAPE, "%s: a part of %d axes of %s", c->op, part_ndim,
                    tni_describe_spec(a));
}

/* The lengths are free. */
TNI_RULE_INFER(slice) {
    if (tni_infer_arity(c, 1, 1)) return TN_EVALUE;
    c->out[0].dtype = c->in[0].dtype;
    return shape_infer_part(c, c->out[0].shape, c->out[0].ndim);
}

TNI_RULE_INFER(slice_update) {
    if (tni_infer_arity(c, 2, 2)) return TN_EVALUE;
    const tni_out_spec *u = &c->in[1];
    if (u->dtype != c->in[0].dtype)
        return tni_fail(TN_EDTYPE, "%s: %s into %s", c->op, tni_describe_spec(u),
                        tni_describe_spec(c->in));
    int status = shape_infer_part(c, u->shape, u->ndim);
    return status ? status : tni_infer_like(c, 0);
}

TNI_RULE_INFER(broadcast_to) {
    int64_t out[TN_MAX_NDIM];
    char s[TNI_SHAPE_STR];
    int n;
    const tni_spec *y = c->out;
    if (tni_infer_arity(c, 1, 1)) return TN_EVALUE;
    if (!tni_broadcast(c->in[0].ndim, c->in[0].shape, y->ndim, y->shape, &n, out) ||
        !tni_same_shape(n, out, y->ndim, y->shape))
        return tni_fail(TN_ESHAPE, "%s: %s cannot become %s", c->op, tni_describe_spec(c->in),
                        tni_shape_str(y->ndim, y->shape, s, sizeof s));
    c->out[0].dtype = c->in[0].dtype;
    return 0;
}

/* The dtype is free. */
TNI_RULE_INFER(view) {
    if (tni_infer_arity(c, 1, 1)) return TN_EVALUE;
    const tni_out_spec *a = c->in;
    tni_spec *y = c->out;
    int64_t from = (int64_t)tn_dtype_size(a->dtype), to = (int64_t)tn_dtype_size(y->dtype);
    int last = a->ndim - 1;
    tni_infer_out(c, 0, y->dtype, a->ndim, a->shape);
    if (from == to) return 0;
    if (last < 0 || a->shape[last] * from % to)
        return tni_fail(TN_ESHAPE, "%s: the last axis of %s does not divide into %s", c->op,
                        tni_describe_spec(a), tn_dtype_name(y->dtype));
    y->shape[last] = a->shape[last] * from / to;
    return 0;
}

TNI_RULE_INFER(concatenate) {
    int axis = ((const tni_p_axis *)c->params)->axis;
    if (tni_infer_arity(c, 1, INT32_MAX)) return TN_EVALUE;
    const tni_out_spec *a = c->in;
    if (axis < 0 || axis >= a->ndim)
        return tni_fail(TN_EAXIS, "%s: axis %d is out of range for %s", c->op, axis,
                        tni_describe_spec(a));
    int64_t total = 0;
    for (int i = 0; i < c->n_in; i++) {
        const tni_out_spec *x = &c->in[i];
        bool same = x->ndim == a->ndim && x->dtype == a->dtype;
        for (int k = 0; k < a->ndim && same; k++) same = k == axis || x->shape[k] == a->shape[k];
        if (!same || __builtin_add_overflow(total, x->shape[axis], &total))
            return tni_fail(TN_ESHAPE, "%s: %s and %s do not join along axis %d", c->op,
                            tni_describe_spec(a), tni_describe_spec(x), axis);
    }
    tni_infer_like(c, 0);
    c->out[0].shape[axis] = total;
    return 0;
}

/* ---- */

static tn_array *shape_reshape(tn_array *a, int ndim, const int64_t *shape) {
    if (tni_same_shape(a->ndim, a->shape, ndim, shape)) return tni_scope_again(a);
    return shape_view(TNI_OP_reshape, a, NULL, ndim, shape);
}

/* Fills in the one -1 of a wanted shape; 0 or a status with the message set. */
static int shape_resolve(const tn_array *a, tn_ints want, int64_t *shape) {
    char s[TNI_SHAPE_STR];
    int unknown = -1;
    int64_t known = 1;
    if (want.n < 0 || want.n > TN_MAX_NDIM)
        return tni_fail(TN_ESHAPE, "reshape: %d axes; 0 to %d are allowed", want.n, TN_MAX_NDIM);
    for (int i = 0; i < want.n; i++) {
        shape[i] = want.v[i];
        if (shape[i] == -1 && unknown < 0)
            unknown = i;
        else if (shape[i] < 0 || __builtin_mul_overflow(known, shape[i], &known))
            known = -1, i = want.n;
    }
    if (unknown >= 0 && known > 0 && a->size % known == 0)
        shape[unknown] = a->size / known, known = a->size;
    if (known == a->size && (unknown < 0 || shape[unknown] >= 0)) return 0;
    return tni_fail(TN_ESHAPE, "reshape: %s has %lld elements and cannot become %s",
                    tni_describe(a), (long long)a->size,
                    tni_shape_str(want.n, want.v, s, sizeof s));
}

tn_array *tn_reshape(tn_array *a, tn_ints want) {
    int64_t shape[TN_MAX_NDIM];
    TNI_INPUTS("reshape", a);
    if (shape_resolve(a, want, shape)) return tni_error_last();
    return shape_reshape(a, want.n, shape);
}

tn_array *tn_flatten(tn_array *a, int start, int end) {
    TNI_INPUTS("flatten", a);
    int64_t shape[TN_MAX_NDIM];
    if (!a->ndim) return shape_reshape(a, 1, (int64_t[]){1});
    int s = tni_axis(a->ndim, start), e = tni_axis(a->ndim, end), n = 0;
    if (s < 0 || e < s)
        return tni_error_array(TN_EAXIS, "flatten: axes %d to %d of %s", start, end,
                               tni_describe(a));
    for (int i = 0; i < a->ndim; i++) {
        if (i > s && i <= e)
            shape[n - 1] *= a->shape[i];
        else
            shape[n++] = a->shape[i];
    }
    return shape_reshape(a, n, shape);
}

tn_array *tn_squeeze(tn_array *a, tn_ints axes) {
    TNI_INPUTS("squeeze", a);
    int64_t mask = tni_axes_mask("squeeze", a->ndim, axes), shape[TN_MAX_NDIM];
    int n = 0;
    if (mask < 0) return tni_error_last();
    for (int i = 0; i < a->ndim; i++) {
        bool drop = mask >> i & 1;
        if (drop && axes.n >= 0 && a->shape[i] != 1)
            return tni_error_array(TN_ESHAPE, "squeeze: axis %d of %s is not 1", i,
                                   tni_describe(a));
        if (!drop || a->shape[i] != 1) shape[n++] = a->shape[i];
    }
    return shape_reshape(a, n, shape);
}

tn_array *tn_expand_dims(tn_array *a, tn_ints axes) {
    TNI_INPUTS("expand_dims", a);
    int ndim = a->ndim + (axes.n > 0 ? axes.n : 0);
    if (ndim > TN_MAX_NDIM)
        return tni_error_array(TN_ESHAPE, "expand_dims: %d axes; at most %d are allowed", ndim,
                               TN_MAX_NDIM);
    int64_t mask = axes.n < 0 ? 0 : tni_axes_mask("expand_dims", ndim, axes), shape[TN_MAX_NDIM];
    if (mask < 0) return tni_error_last();
    for (int i = 0, k = 0; i < ndim; i++) shape[i] = mask >> i & 1 ? 1 : a->shape[k++];
    return shape_reshape(a, ndim, shape);
}

tn_array *tn_transpose(tn_array *a, tn_ints axes) {
    TNI_INPUTS("transpose", a);
    tni_p_axes p = {0};
    int64_t shape[TN_MAX_NDIM];
    bool identity = true;
    if (axes.n >= 0) {
        int64_t mask = tni_axes_mask("transpose", a->ndim, axes);
        if (mask < 0) return tni_error_last();
        if (axes.n != a->ndim)
            return tni_error_array(TN_EAXIS, "transpose: %d axes given for %s", axes.n,
                                   tni_describe(a));
    }
    for (int i = 0; i < a->ndim; i++) {
        p.axes[i] = (int8_t)(axes.n < 0 ? a->ndim - 1 - i : tni_axis(a->ndim, axes.v[i]));
        shape[i] = a->shape[p.axes[i]];
        identity = identity && p.axes[i] == i;
    }
    return identity ? tni_scope_again(a) : shape_view(TNI_OP_transpose, a, &p, a->ndim, shape);
}

tn_array *tn_moveaxis(tn_array *a, int source, int destination) {
    TNI_INPUTS("moveaxis", a);
    int s = tni_axis(a->ndim, source), d = tni_axis(a->ndim, destination);
    int64_t order[TN_MAX_NDIM];
    if (s < 0 || d < 0)
        return tni_error_array(TN_EAXIS, "moveaxis: axis %d to %d of %s", source, destination,
                               tni_describe(a));
    for (int i = 0, k = 0; i < a->ndim; i++) {
        if (i == d) {
            order[i] = s;
            continue;
        }
        if (k == s) k++;
        order[i] = k++;
    }
    return tn_transpose(a, (tn_ints){order, a->ndim});
}

tn_array *tn_swapaxes(tn_array *a, int axis1, int axis2) {
    TNI_INPUTS("swapaxes", a);
    int x = tni_axis(a->ndim, axis1), y = tni_axis(a->ndim, axis2);
    int64_t order[TN_MAX_NDIM];
    if (x < 0 || y < 0)
        return tni_error_array(TN_EAXIS, "swapaxes: axes %d and %d of %s", axis1, axis2,
                               tni_describe(a));
    for (int i = 0; i < a->ndim; i++) order[i] = i == x ? y : i == y ? x : i;
    return tn_transpose(a, (tn_ints){order, a->ndim});
}

tn_array *tni_expand(tn_array *a, int ndim, const int64_t *shape) {
    if (tni_same_shape(a->ndim, a->shape, ndim, shape)) return a;
    return shape_view(TNI_OP_broadcast_to, a, NULL, ndim, shape);
}

tn_array *tn_broadcast_to(tn_array *a, tn_ints shape) {
    TNI_INPUTS("broadcast_to", a);
    char s[TNI_SHAPE_STR];
    int64_t out[TN_MAX_NDIM], size;
    int n;
    if (shape.n < 0 || shape.n > TN_MAX_NDIM || !tni_shape_size(shape.n, shape.v, &size) ||
        !tni_broadcast(a->ndim, a->shape, shape.n, shape.v, &n, out) ||
        !tni_same_shape(n, out, shape.n, shape.v))
        return tni_error_array(TN_ESHAPE, "broadcast_to: %s cannot become %s", tni_describe(a),
                               tni_shape_str(shape.n < 0 ? 0 : shape.n, shape.v, s, sizeof s));
    tn_array *y = tni_expand(a, shape.n, shape.v);
    return y == a ? tni_scope_again(a) : y;
}

tn_array *tn_view(tn_array *a, tn_dtype dtype) {
    TNI_INPUTS("view", a);
    if ((unsigned)dtype >= TN_DTYPE_COUNT)
        return tni_error_array(TN_EDTYPE, "view: %d is not a dtype", (int)dtype);
    if (a->dtype == dtype) return tni_scope_again(a);
    return tni_op_rule("view", TNI_PRIM(view), 1, &a, NULL, &(tni_spec){.dtype = dtype});
}

/* ---- parts ---- */

void tni_slice_normal(tni_p_slice *p, int ndim, const int64_t *lengths) {
    for (int i = 0; i < ndim; i++) {
        if (lengths[i] < 2) p->step[i] = 1;
        if (!lengths[i]) p->start[i] = 0;
    }
}

tn_array *tni_slice_node(tn_array *a, const tni_p_slice *p, const int64_t *shape) {
    tni_p_slice q = *p;
    tni_slice_normal(&q, a->ndim, shape);
    return shape_view(TNI_OP_slice, a, &q, a->ndim, shape);
}

/* Python's rules for start:stop:step on an axis of n: clamps, and gives the length. */
static int64_t shape_slice_axis(int64_t n, int64_t *start, int64_t stop, int64_t step) {
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
    if (*start < 0) *start += n;
    if (stop < 0 && stop >= -n) stop += n;
    *start = *start < low ? low : *start > high ? high : *start;
    stop = stop < low ? low : stop > high ? high : stop;
    int64_t span = step > 0 ? stop - *start : *start - stop, by = step > 0 ? step : -step;
    return span <= 0 ? 0 : (span - 1) / by + 1;
}

static int shape_slice_params(const char *op, const tn_array *a, tn_ints start, tn_ints step,
                              tni_p_slice *p) {
    memset(p, 0, sizeof *p);
    if (start.n != a->ndim || (step.n >= 0 && step.n != a->ndim))
        return tni_fail(TN_ESHAPE, "%s: one start (and step) for each axis of %s is needed", op,
                        tni_describe(a));
    for (int i = 0; i < a->ndim; i++) {
        p->start[i] = start.v[i];
        p->step[i] = step.n < 0 ? 1 : step.v[i];
        if (!p->step[i] || p->step[i] == INT64_MIN)
            return tni_fail(TN_EVALUE, "%s: step %lld of axis %d", op, (long long)p->step[i], i);
    }
    return 0;
}

tn_array *tn_slice(tn_array *a, tn_ints start, tn_ints stop, tn_ints step) {
    TNI_INPUTS("slice", a);
    tni_p_slice p;
    int64_t shape[TN_MAX_NDIM];
    if (shape_slice_params("slice", a, start, step, &p)) return tni_error_last();
    if (stop.n != a->ndim)
        return tni_error_array(TN_ESHAPE, "slice: one stop for each axis of %s is needed",
                               tni_describe(a));
    for (int i = 0; i < a->ndim; i++)
        shape[i] = shape_slice_axis(a->shape[i], &p.start[i], stop.v[i], p.step[i]);
    if (step.n < 0 && tni_same_shape(a->ndim, a->shape, a->ndim, shape)) return tni_scope_again(a);
    return tni_slice_node(a, &p, shape);
}

tn_array *tn_slice_axis(tn_array *a, int axis, int64_t start, int64_t stop) {
    TNI_INPUTS("slice_axis", a);
    int k = tni_axis(a->ndim, axis);
    if (k < 0)
        return tni_error_array(TN_EAXIS, "slice_axis: axis %d is out of range for %s", axis,
                               tni_describe(a));
    tni_p_slice p = {0};
    int64_t shape[TN_MAX_NDIM];
    for (int i = 0; i < a->ndim; i++) p.step[i] = 1, shape[i] = a->shape[i];
    p.start[k] = start;
    shape[k] = shape_slice_axis(a->shape[k], &p.start[k], stop, 1);
    if (shape[k] == a->shape[k]) return tni_scope_again(a);
    return tni_slice_node(a, &p, shape);
}

tn_array *tn_slice_update(tn_array *a, tn_array *update, tn_ints start, tn_ints step) {
    TNI_INPUTS("slice_update", a, update);
    tni_p_slice p;
    if (shape_slice_params("slice_update", a, start, step, &p)) return tni_error_last();
    if (update->ndim > a->ndim)
        return tni_error_array(TN_ESHAPE, "slice_update: the update %s has more axes than %s",
                               tni_describe(update), tni_describe(a));
    tn_array *u = tni_cast(update, (tn_dtype)a->dtype);
    if (u->ndim < a->ndim) {
        int64_t shape[TN_MAX_NDIM];
        for (int i = 0; i < a->ndim; i++)
            shape[i] = i < a->ndim - u->ndim ? 1 : u->shape[i - (a->ndim - u->ndim)];
        u = tn_reshape(u, (tn_ints){shape, a->ndim});
    }
    if (tni_is_error(u)) return u;
    for (int i = 0; i < a->ndim; i++) {
        if (p.start[i] < 0) p.start[i] += a->shape[i];
        if (!shape_part_fits(p.start[i], p.step[i], u->shape[i], a->shape[i]))
            return tni_error_array(
                TN_EINDEX,
                "slice_update: update %s at start %lld, step %lld does not fit axis %d of %s",
                tni_describe(u), (long long)start.v[i], (long long)p.step[i], i, tni_describe(a));
    }
    tni_slice_normal(&p, a->ndim, u->shape);
    return tni_op1(TNI_PRIM(slice_update), 2, (tn_array *[]){a, u}, &p, (tn_dtype)a->dtype, a->ndim,
                   a->shape);
}

/* ---- joining and splitting ---- */

tn_array *tn_concatenate(tn_list in, int axis) {
    if (in.n < 1) return tni_error_array(TN_EVALUE, "concatenate: no arrays given");
    tn_array *bad = tni_inputs("concatenate", in);
    if (bad) return bad;
    const tn_array *a = in.v[0];
    int k = tni_axis(a->ndim, axis);
    if (k < 0)
        return tni_error_array(TN_EAXIS, "concatenate: axis %d is out of range for %s", axis,
                               tni_describe(a));
    tn_array **v = tni_alloc_array((size_t)in.n, sizeof *v);
    if (!v) return tni_fail_memory((size_t)in.n * sizeof *v, "concatenate"), tni_error_last();
    tn_dtype d = tni_result_type(in.n, in.v);
    for (int i = 0; i < in.n; i++) v[i] = tni_cast(in.v[i], d);
    tn_array *y =
        tni_op_rule("concatenate", TNI_PRIM(concatenate), in.n, v, &(tni_p_axis){k}, NULL);
    tni_free(v);
    return y;
}

tn_array *tn_stack(tn_list in, int axis) {
    tn_array *bad = tni_inputs("stack", in);
    if (bad) return bad;
    tn_array **v = tni_alloc_array((size_t)(in.n > 0 ? in.n : 0), sizeof *v);
    if (!v) return tni_fail_memory((size_t)in.n * sizeof *v, "stack"), tni_error_last();
    for (int i = 0; i < in.n; i++) v[i] = tn_expand_dims(in.v[i], TN_AXES(axis));
    tn_array *y = tn_concatenate((tn_list){v, in.n}, axis);
    tni_free(v);
    return y;
}

static void shape_fill_error(tn_array *e, int n, tn_array **out) {
    for (int i = 0; i < n; i++) out[i] = e;
}

void tn_split_at(tn_array *a, tn_ints at, int axis, tn_array **out) {
    tn_array *bad = tni_inputs("split", TN_LIST(a));
    int k = bad ? 0 : tni_axis(a->ndim, axis);
    if (k < 0)
        bad = tni_error_array(TN_EAXIS, "split: axis %d is out of range for %s", axis,
                              tni_describe(a));
    if (bad) {
        shape_fill_error(bad, at.n + 1, out);
        return;
    }
    for (int i = 0; i <= at.n; i++)
        out[i] = tn_slice_axis(a, k, i ? at.v[i - 1] : 0, i < at.n ? at.v[i] : a->shape[k]);
}

void tn_split(tn_array *a, int n, int axis, tn_array **out) {
    tn_array *bad = tni_inputs("split", TN_LIST(a));
    int k = bad ? 0 : tni_axis(a->ndim, axis);
    if (!bad && k < 0)
        bad = tni_error_array(TN_EAXIS, "split: axis %d is out of range for %s", axis,
                              tni_describe(a));
    if (!bad && (n < 1 || a->shape[k] % n))
        bad = tni_error_array(TN_ESHAPE, "split: axis %d of %s does not divide into %d parts", axis,
                              tni_describe(a), n);
    if (bad) {
        shape_fill_error(bad, n, out);
        return;
    }
    int64_t part = a->shape[k] / n;
    for (int i = 0; i < n; i++) out[i] = tn_slice_axis(a, k, i * part, (i + 1) * part);
}

tn_array *tn_pad(tn_array *a, tn_ints low, tn_ints high, tn_array *value) {
    TNI_INPUTS("pad", a, value);
    int64_t shape[TN_MAX_NDIM], size;
    if (low.n != a->ndim || high.n != a->ndim)
        return tni_error_array(TN_ESHAPE,
                               "pad: one width before and after each axis of %s is needed",
                               tni_describe(a));
    for (int i = 0; i < a->ndim; i++) {
        if (low.v[i] < 0 || high.v[i] < 0)
            return tni_error_array(TN_EVALUE, "pad: widths %lld and %lld of axis %d",
                                   (long long)low.v[i], (long long)high.v[i], i);
        if (__builtin_add_overflow(a->shape[i], low.v[i], &shape[i]) ||
            __builtin_add_overflow(shape[i], high.v[i], &shape[i]))
            return tni_error_array(TN_ESHAPE, "pad: the result is too large");
    }
    if (value->size != 1)
        return tni_error_array(TN_ESHAPE, "pad: the value must be one number, not %s",
                               tni_describe(value));
    if (!tni_shape_size(a->ndim, shape, &size))
        return tni_error_array(TN_ESHAPE, "pad: the result is too large");
    tn_array *v = tni_cast(tn_reshape(value, TN_SHAPE()), (tn_dtype)a->dtype);
    tn_array *full = tn_broadcast_to(v, (tn_ints){shape, a->ndim});
    return tn_slice_update(full, a, low, TN_ALL);
}
