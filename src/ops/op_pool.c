/* Pooling over the axes of places, channels last, and its gradient: the public functions, shape and
 * derivative rules, and what the kernels compute in simpler ops. */
#include "base/err.h"
#include "ops/build.h"
#include "ops/lower.h"
#include <math.h>
#include <string.h>

/* ---- shapes ---- */

/* One axis: kernel, stride and padding over `size` places; how many windows, or a status. */
static int64_t pool_axis(const char *op, int d, int64_t size, int64_t k, int64_t stride,
                         int64_t pad) {
    if (k < 1 || k > INT32_MAX || stride < 1 || stride > INT32_MAX || pad < 0 || pad >= k)
        return tni_fail(TN_EVALUE,
                        "%s: kernel %lld, stride %lld, padding %lld of axis %d (padding must be "
                        "less than the kernel)",
                        op, (long long)k, (long long)stride, (long long)pad, d + 1);
    int64_t room = size + 2 * pad - k;
    if (room >= 0) return room / stride + 1;
    return tni_fail(TN_ESHAPE, "%s: kernel %lld is wider than axis %d, %lld with padding %lld", op,
                    (long long)k, d + 1, (long long)size, (long long)pad);
}

/* What pooling makes of the shape x. */
static int pool_shape(const char *op, const tni_p_pool *p, const int64_t *x, int64_t *y) {
    y[0] = x[0], y[p->nd + 1] = x[p->nd + 1];
    for (int d = 0; d < p->nd; d++) {
        y[d + 1] = pool_axis(op, d, x[d + 1], p->k[d], p->stride[d], p->pad[d]);
        if (y[d + 1] < 0) return (int)y[d + 1];
    }
    return 0;
}

static int pool_takes(const tni_infer_call *c) {
    const tni_p_pool *p = c->params;
    const tni_out_spec *a = &c->in[0];
    if (p->nd < 1 || p->nd > 3 || !tni_infer_flag(p->mean))
        return tni_fail(TN_EVALUE, "%s: parameters out of range", c->op);
    if (a->ndim == p->nd + 2 && tni_is_float(a->dtype)) return 0;
    return tni_fail(TN_ESHAPE, "%s: needs floats of %d axes, not %s", c->op, p->nd + 2,
                    tni_describe_spec(a));
}

TNI_RULE_INFER(pool) {
    int64_t shape[5];
    if (tni_infer_arity(c, 1, 1)) return TN_EVALUE;
    int status = pool_takes(c);
    if (!status) status = pool_shape(c->op, c->params, c->in[0].shape, shape);
    if (!status) tni_infer_out(c, 0, c->in[0].dtype, c->in[0].ndim, shape);
    return status;
}

/* The last input is the cotangent; how many places the gradient of a mean has is free. */
TNI_RULE_INFER(pool_vjp) {
    const tni_p_pool *p = c->params;
    int64_t x[5], y[5];
    int n = p->mean ? 1 : 2, status = pool_takes(c);
    if (status || tni_infer_arity(c, n, n)) return TN_EVALUE;
    const tni_out_spec *a = &c->in[0], *g = &c->in[n - 1];
    if (g->dtype != a->dtype || g->ndim != a->ndim || c->out[0].ndim != a->ndim)
        return tni_fail(TN_ESHAPE, "%s: a cotangent %s for %s", c->op, tni_describe_spec(g),
                        tni_describe_spec(a));
    memcpy(x, p->mean ? c->out[0].shape : a->shape, sizeof x[0] * (size_t)a->ndim);
    x[0] = a->shape[0], x[p->nd + 1] = a->shape[p->nd + 1];
    for (int d = 0; d < p->nd; d++)
        if (x[d + 1] < 0) return tni_fail(TN_ESHAPE, "%s: an axis of negative size", c->op);
    status = pool_shape(c->op, p, x, y);
    if (!status && !tni_same_shape(g->ndim, g->shape, a->ndim, y))
        status = tni_fail(TN_ESHAPE, "%s: the cotangent %s is not as the output", c->op,
                          tni_describe_spec(g));
    if (!status) tni_infer_out(c, 0, a->dtype, a->ndim, x);
    return status;
}

/* ---- the functions ---- */

static int64_t pool_number(tn_spatial s, int d, int64_t none) {
    return s.n == 0 ? none : s.v[s.n == 1 ? 0 : d];
}

static tn_array *pool_run(const char *op, bool mean, tn_array *a, tn_spatial kernel,
                          tn_spatial stride, tn_spatial padding) {
    TNI_INPUTS(op, a);
    int nd = a->ndim - 2;
    if (nd < 1 || nd > 3 || !tni_is_float((tn_dtype)a->dtype))
        return tni_error_array(TN_ESHAPE,
                               "%s: needs floats of 3, 4 or 5 axes (images, places, channels), not "
                               "%s",
                               op, tni_describe(a));
    if ((kernel.n != 1 && kernel.n != nd) || (stride.n && stride.n != 1 && stride.n != nd) ||
        (padding.n && padding.n != 1 && padding.n != nd))
        return tni_error_array(TN_ESHAPE, "%s: kernel, stride and padding need one number or %d",
                               op, nd);
    tni_p_pool p = {.nd = nd, .mean = mean};
    for (int d = 0; d < nd; d++) {
        int64_t k = pool_number(kernel, d, 0), step = pool_number(stride, d, k),
                pad = pool_number(padding, d, 0);
        if (pool_axis(op, d, a->shape[d + 1], k, step, pad) < 0) return tni_error_last();
        p.k[d] = (int32_t)k, p.stride[d] = (int32_t)step, p.pad[d] = (int32_t)pad;
    }
    return tni_op_rule(op, TNI_PRIM(pool), 1, &a, &p, NULL);
}

tn_array *tn_max_pool(tn_array *a, tn_spatial kernel, tn_spatial stride, tn_spatial padding) {
    return pool_run("max_pool", false, a, kernel, stride, padding);
}
tn_array *tn_avg_pool(tn_array *a, tn_spatial kernel, tn_spatial stride, tn_spatial padding) {
    return pool_run("avg_pool", true, a, kernel, stride, padding);
}

/* ---- in simpler ops ----
 * Every axis of places becomes two, windows and taps of the kernel: picked by index, and for the
 * gradient added back there. */

static tn_array *pool_f32(tn_array *a) {
    return tn_astype(a, a->dtype == TN_F64 ? TN_F64 : TN_F32);
}

/* Places under the taps of axis d: [windows, taps]. */
static tn_array *pool_index(const tni_p_pool *p, int d, int64_t windows) {
    tn_array *at = tn_mul(tn_arange(0, (double)windows, 1, TN_I64), tn_i32(p->stride[d]));
    return tn_add(tn_reshape(at, TN_SHAPE(windows, 1)), tn_arange(0, p->k[d], 1, TN_I64));
}

static tn_array *pool_padded(const tni_p_pool *p, tn_array *x) {
    int64_t width[5] = {0};
    for (int d = 0; d < p->nd; d++) width[d + 1] = p->pad[d];
    tn_ints w = {width, p->nd + 2};
    return tn_pad(x, w, w, tn_scalar(p->mean ? 0 : -(double)INFINITY, tn_dtype_of(x)));
}

/* x as [N, windows, taps, windows, taps, ..., C]; y: the output, for its shape. */
static tn_array *pool_windows(const tni_p_pool *p, tn_array *x, const tn_array *y) {
    for (int d = p->nd - 1; d >= 0; d--) x = tn_take(x, pool_index(p, d, y->shape[d + 1]), d + 1);
    return x;
}

/* w, of that form, added up where it came from; x: the input, for its shape. */
static tn_array *pool_fold(const tni_p_pool *p, tn_array *w, const tn_array *x) {
    int64_t low[5] = {0}, high[5], shape[TN_MAX_NDIM];
    for (int d = 0; d < p->nd && !tni_is_error(w); d++) {
        tn_array *index = pool_index(p, d, w->shape[d + 1]);
        w = tn_moveaxis(tn_moveaxis(w, d + 1, 0), d + 2, 1);
        memcpy(shape, w->shape, sizeof shape[0] * w->ndim);
        int n = w->ndim - 1;
        shape[1] = x->shape[d + 1] + 2 * p->pad[d];
        tn_array *zeros = tn_zeros((tn_ints){shape + 1, n}, (tn_dtype)w->dtype);
        memcpy(shape, w->shape, sizeof shape[0] * 2);
        memmove(shape + 3, shape + 2, sizeof shape[0] * (size_t)(n - 1));
        shape[2] = 1;
        w = tn_scatter_add(zeros, TN_LIST(index), tn_reshape(w, (tn_ints){shape, n + 2}),
                           TN_AXES(0));
        w = tn_moveaxis(w, 0, d + 1);
    }
    high[0] = x->shape[0], high[p->nd + 1] = x->shape[p->nd + 1];
    for (int d = 0; d < p->nd; d++)
        low[d + 1] = p->pad[d], high[d + 1] = p->pad[d] + x->shape[d + 1];
    return tn_slice(w, (tn_ints){low, p->nd + 2}, (tn_ints){high, p->nd + 2}, TN_ALL);
}

static double pool_taps(const tni_p_pool *p) {
    double taps = 1;
    for (int d = 0; d < p->nd; d++) taps *= p->k[d];
    return taps;
}

int tni_lower_pool(const tni_node *n, tn_array **out) {
    const tni_p_pool *p = n->params;
    const int64_t axes[3] = {2, 4, 6};
    tn_array *w = pool_windows(p, pool_padded(p, pool_f32(n->in[0])), n->out[0]);
    tn_array *y = p->mean ? tn_div(tn_sum(w, (tn_ints){axes, p->nd}, false), tn_f32(pool_taps(p)))
                          : tn_max(w, (tn_ints){axes, p->nd}, false);
    out[0] = tn_astype(y, (tn_dtype)n->out[0]->dtype);
    return tn_array_status(out[0]);
}

/* Elements of a window that are equally large share its cotangent. */
int tni_lower_pool_vjp(const tni_node *n, tn_array **out) {
    const tni_p_pool *p = n->params;
    const int64_t axes[3] = {2, 4, 6};
    tn_ints taps = {axes, p->nd};
    const tn_array *y = n->in[n->n_in - 1];
    tn_array *g = tn_expand_dims(pool_f32(n->in[n->n_in - 1]), taps), *w;
    if (p->mean) {
        int64_t shape[8] = {y->shape[0]};
        for (int d = 0; d < p->nd; d++)
            shape[1 + 2 * d] = y->shape[d + 1], shape[2 + 2 * d] = p->k[d];
        shape[1 + 2 * p->nd] = y->shape[p->nd + 1];
        w = tn_broadcast_to(tn_div(g, tn_f32(pool_taps(p))), (tn_ints){shape, 2 + 2 * p->nd});
    } else {
        w = pool_windows(p, pool_padded(p, pool_f32(n->in[0])), y);
        tn_array *tops = tn_astype(tn_equal(w, tn_max(w, taps, true)), tn_dtype_of(w));
        w = tn_mul(g, tn_div(tops, tn_sum(tops, taps, true)));
    }
    out[0] = tn_astype(pool_fold(p, w, n->out[0]), (tn_dtype)n->out[0]->dtype);
    return tn_array_status(out[0]);
}

/* ---- derivatives ---- */

static tn_array *pool_again(const tni_p_pool *p, tn_array *x) {
    return tni_op_rule("avg_pool", TNI_PRIM(pool), 1, &x, p, NULL);
}
/* The gradient of `like` for the cotangent g. */
static tn_array *pool_back(const tni_p_pool *p, tn_array *x, tn_array *g, const tn_array *like) {
    tni_spec want = {.dtype = (tn_dtype)like->dtype, .ndim = like->ndim};
    memcpy(want.shape, like->shape, sizeof want.shape[0] * like->ndim);
    tn_array *in[2] = {p->mean ? g : x, g};
    return tni_op_rule("a pooling's gradient", TNI_PRIM(pool_vjp), p->mean ? 1 : 2, in, p, &want);
}

TNI_RULE_VJP(pool) {
    if (want[0]) grad[0] = pool_back(n->params, n->in[0], cot[0], n->in[0]);
    return 0;
}
TNI_RULE_JVP(pool) {
    const tni_p_pool *p = n->params;
    if (!p->mean) return TNI_BY_VJP;
    if (tan[0]) out[0] = pool_again(p, tan[0]);
    return 0;
}
TNI_RULE_VJP(pool_vjp) {
    const tni_p_pool *p = n->params;
    if (!p->mean) return TNI_BY_LOWER;
    if (want[0]) grad[0] = pool_again(p, cot[0]);
    return 0;
}
TNI_RULE_JVP(pool_vjp) {
    const tni_p_pool *p = n->params;
    int last = n->n_in - 1; /* linear in the cotangent, and in x flat but where it jumps */
    if (tan[last]) out[0] = pool_back(p, n->in[0], tan[last], n->out[0]);
    return 0;
}
