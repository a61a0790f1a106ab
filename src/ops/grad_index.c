/* Derivatives of picking by index, sorting and scans. What reads a place adds its cotangent there;
 * what writes one reads it back. */
#include "core/dtype.h"
#include "ops/build.h"
#include "ops/rules.h"
#include <math.h>
#include <string.h>

static tn_array *grad_zeros(const tn_array *like) {
    return tn_zeros((tn_ints){like->shape, like->ndim}, (tn_dtype)like->dtype);
}

static tn_ints grad_shape(const tn_array *a) { return (tn_ints){a->shape, a->ndim}; }
static tn_array *grad_conj(tn_array *a) { return a->dtype == TN_C64 ? tn_conj(a) : a; }

/* x moved by `by` places along the axis, towards its end or (back) its start, `fill`, which is 1
 * long there, in the places it leaves. */
static tn_array *grad_shift(tn_array *x, tn_array *fill, int64_t by, int axis, bool back) {
    int64_t shape[TN_MAX_NDIM], m;
    if (tni_is_error(x)) return x;
    m = x->shape[axis], by = by < m ? by : m;
    memcpy(shape, x->shape, sizeof shape[0] * x->ndim);
    shape[axis] = by;
    fill = tn_broadcast_to(tn_astype(fill, (tn_dtype)x->dtype), (tn_ints){shape, x->ndim});
    return back ? tn_concatenate(TN_LIST(tn_slice_axis(x, axis, by, m), fill), axis)
                : tn_concatenate(TN_LIST(fill, tn_slice_axis(x, axis, 0, m - by)), axis);
}

/* ---- take ---- */

/* take's cotangent [before, I, after] as scatter's updates [I, before, 1, after]. */
static tn_array *grad_take_updates(tn_array *g, const tn_array *a, const tn_array *indices,
                                   int axis) {
    int64_t order[TN_MAX_NDIM], shape[2 * TN_MAX_NDIM];
    int n = 0, ni = indices->ndim;
    for (int i = 0; i < ni; i++) order[n] = axis + i, shape[n++] = indices->shape[i];
    for (int i = 0; i < g->ndim; i++)
        if (i < axis || i >= axis + ni) order[n++] = i;
    for (int i = 0; i < a->ndim; i++) shape[ni + i] = i == axis ? 1 : a->shape[i];
    return tn_reshape(tn_transpose(g, (tn_ints){order, n}), (tn_ints){shape, ni + a->ndim});
}
TNI_RULE_VJP(take) {
    const tni_p_take *p = n->params;
    if (!want[0]) return 0;
    tn_array *u = grad_take_updates(cot[0], n->in[0], n->in[1], p->axis);
    grad[0] = tn_scatter_add(grad_zeros(n->in[0]), TN_LIST(n->in[1]), u, TN_AXES(p->axis));
    return 0;
}
TNI_RULE_JVP(take) {
    if (tan[0]) out[0] = tn_take(tan[0], n->in[1], ((const tni_p_take *)n->params)->axis);
    return 0;
}

/* ---- gather and scatter ---- */

/* g added at the places that gather read. */
static tn_array *grad_scatter_add(const tni_node *n, tn_array *g) {
    const tni_p_gather *p = n->params;
    const tn_array *a = n->in[0];
    int64_t axes[TN_MAX_NDIM];
    for (int i = 0; i < p->n; i++) axes[i] = p->axes[i];
    return tn_scatter_add(grad_zeros(a), (tn_list){n->in + 1, p->n}, g, (tn_ints){axes, p->n});
}
/* What scatter's indices read from x: gather, its slices shaped as the updates' last axes. */
static tn_array *grad_gather(const tni_node *n, tn_array *x) {
    const tni_p_gather *p = n->params;
    const tn_array *u = n->in[n->n_in - 1];
    int64_t axes[TN_MAX_NDIM];
    for (int i = 0; i < p->n; i++) axes[i] = p->axes[i];
    return tn_gather(x, (tn_list){n->in + 1, p->n}, (tn_ints){axes, p->n},
                     (tn_ints){u->shape + (u->ndim - x->ndim), x->ndim});
}
static tn_array *grad_scatter_set(const tni_node *n, tn_array *x, tn_array *u) {
    const tni_p_gather *p = n->params;
    int64_t axes[TN_MAX_NDIM];
    for (int i = 0; i < p->n; i++) axes[i] = p->axes[i];
    return tn_scatter(x, (tn_list){n->in + 1, p->n}, u, (tn_ints){axes, p->n});
}

TNI_RULE_VJP(gather) {
    if (want[0]) grad[0] = grad_scatter_add(n, cot[0]);
    return 0;
}
TNI_RULE_JVP(gather) {
    const tni_p_gather *p = n->params;
    const tn_array *y = n->out[0];
    int64_t axes[TN_MAX_NDIM];
    for (int i = 0; i < p->n; i++) axes[i] = p->axes[i];
    if (tan[0])
        out[0] = tn_gather(tan[0], (tn_list){n->in + 1, p->n}, (tn_ints){axes, p->n},
                           (tn_ints){y->shape + (y->ndim - tan[0]->ndim), tan[0]->ndim});
    return 0;
}

TNI_RULE_VJP(gather_axis) {
    int axis = ((const tni_p_gather_axis *)n->params)->axis;
    if (want[0]) grad[0] = tn_scatter_add_axis(grad_zeros(n->in[0]), n->in[1], cot[0], axis);
    return 0;
}
TNI_RULE_JVP(gather_axis) {
    int axis = ((const tni_p_gather_axis *)n->params)->axis;
    if (tan[0]) out[0] = tn_take_along_axis(tan[0], n->in[1], axis);
    return 0;
}

/* The two scatters behind one form: reading what the indices name, and writing there. */
typedef struct grad_scatter {
    const tni_node *n;
    bool axis;
    int mode;
} grad_scatter;

static grad_scatter grad_scatter_of(const tni_node *n, bool axis) {
    return (grad_scatter){n, axis,
                          axis ? ((const tni_p_gather_axis *)n->params)->mode
                               : ((const tni_p_gather *)n->params)->mode};
}
static int grad_scatter_axis(const grad_scatter *s) {
    return ((const tni_p_gather_axis *)s->n->params)->axis;
}
static tn_array *grad_read(const grad_scatter *s, tn_array *x) {
    return s->axis ? tn_take_along_axis(x, s->n->in[1], grad_scatter_axis(s))
                   : grad_gather(s->n, x);
}
static tn_array *grad_write(const grad_scatter *s, tn_array *x, tn_array *u) {
    return s->axis ? tn_put_along_axis(x, s->n->in[1], u, grad_scatter_axis(s))
                   : grad_scatter_set(s->n, x, u);
}

/* Which updates stay: those whose number is still there when all have been written. */
static tn_array *grad_winners(const grad_scatter *s, const tn_array *u) {
    tn_array *id =
        tn_reshape(tn_arange(0, (double)u->size, 1, TN_I64), (tn_ints){u->shape, u->ndim});
    tn_array *none =
        tn_full((tn_ints){s->n->in[0]->shape, s->n->in[0]->ndim}, tn_scalar_i64(-1, TN_I64));
    return tn_equal(grad_read(s, grad_write(s, none, id)), id);
}

/* ---- scattered products: what each update was multiplied by, without a division ---- */

/* The updates multiplied into x. */
static tn_array *grad_product(const grad_scatter *s, tn_array *x, tn_array *u) {
    const tni_node *n = s->n;
    tn_array *in[2 + TN_MAX_NDIM];
    for (int i = 0; i < n->n_in; i++) in[i] = n->in[i];
    in[0] = x, in[n->n_in - 1] = u;
    if (tni_is_error(x) || tni_is_error(u)) return tni_is_error(x) ? x : u;
    return tni_op1(n->prim, n->n_in, in, n->params, (tn_dtype)x->dtype, x->ndim, x->shape);
}

/* Of u, where equal numbers `at` stand together, the product of those of the same number before
 * (after, when `reverse`) each; `most` of one number at most. Windows double: u itself, then two
 * of them, and so on. */
static tn_array *grad_segments(tn_array *u, tn_array *at, int64_t most, bool reverse) {
    tn_array *one = tn_ones(TN_SHAPE(1), tn_dtype_of(u)), *none = tn_full(TN_SHAPE(1), tn_i32(-1));
    tn_array *y = grad_shift(u, one, 1, 0, reverse);
    y = tn_where(tn_equal(at, grad_shift(at, none, 1, 0, reverse)), y, one);
    for (int64_t w = 1; w < most; w *= 2) {
        tn_array *same = tn_equal(at, grad_shift(at, none, w, 0, reverse));
        y = tn_mul(y, tn_where(same, grad_shift(y, one, w, 0, reverse), one));
    }
    return y;
}

/* For each update, the product of the array's element and of the other updates of its place. */
static tn_array *grad_cofactors(const grad_scatter *s, tn_array *a, tn_array *u) {
    const tn_array *index = s->n->in[1];
    int64_t most = s->axis ? index->shape[grad_scatter_axis(s)] : index->size;
    if (!u->size) return grad_zeros(u);
    tn_array *id = tn_reshape(tn_arange(0, (double)a->size, 1, TN_I64), grad_shape(a));
    tn_array *at = tn_reshape(grad_read(s, id), TN_SHAPE(u->size)), *order = tn_argsort(at, 0);
    tn_array *v = tn_take(tn_reshape(u, TN_SHAPE(u->size)), order, 0);
    at = tn_take(at, order, 0);
    v = tn_mul(grad_segments(v, at, most, false), grad_segments(v, at, most, true));
    v = tn_take(v, tn_argsort(order, 0), 0);
    return tn_mul(grad_read(s, a), tn_reshape(v, grad_shape(u)));
}

static int grad_scatter_vjp(const grad_scatter *s, tn_array *g, const bool *want, tn_array **grad) {
    const tni_node *n = s->n;
    int last = n->n_in - 1;
    tn_array *a = n->in[0], *u = n->in[last], *y = n->out[0],
             *zero = tn_scalar(0, (tn_dtype)y->dtype);
    tn_dtype d = (tn_dtype)y->dtype;
    tn_array *at = want[last] ? grad_read(s, g) : NULL;
    switch (s->mode) {
    case TNI_SCATTER_SUM:
        if (want[0]) grad[0] = g;
        if (want[last]) grad[last] = at;
        return 0;
    case TNI_SCATTER_SET:
        if (want[0]) grad[0] = grad_write(s, g, grad_zeros(u));
        if (want[last]) grad[last] = tn_where(grad_winners(s, u), at, zero);
        return 0;
    case TNI_SCATTER_PROD:
        if (want[0]) grad[0] = tn_mul(g, grad_conj(grad_product(s, tn_ones(grad_shape(a), d), u)));
        if (want[last]) grad[last] = tn_mul(at, grad_conj(grad_cofactors(s, a, u)));
        return 0;
    default: /* the largest or smallest: to all that equal it, as in MLX */
        if (want[0]) grad[0] = tn_where(tn_equal(a, y), g, zero);
        if (want[last]) grad[last] = tn_where(tn_equal(grad_read(s, y), u), at, zero);
        return 0;
    }
}
TNI_RULE_VJP(scatter) {
    grad_scatter s = grad_scatter_of(n, false);
    return grad_scatter_vjp(&s, cot[0], want, grad);
}
TNI_RULE_VJP(scatter_axis) {
    grad_scatter s = grad_scatter_of(n, true);
    return grad_scatter_vjp(&s, cot[0], want, grad);
}

/* ---- sort: a permutation ---- */

TNI_RULE_VJP(sort) {
    if (want[0]) grad[0] = tn_put_along_axis(cot[0], tn_argsort(n->in[0], -1), cot[0], -1);
    return 0;
}
TNI_RULE_JVP(sort) {
    if (tan[0]) out[0] = tn_take_along_axis(tan[0], tn_argsort(n->in[0], -1), -1);
    return 0;
}

/* ---- scans ---- */

static tn_array *grad_scan(const tni_node *n, int op, tn_array *x, bool reverse, bool inclusive) {
    tni_p_scan p = *(const tni_p_scan *)n->params;
    p.op = op, p.reverse = reverse, p.inclusive = inclusive;
    if (tni_is_error(x)) return x;
    return tni_op1(TNI_PRIM(scan), 1, &x, &p, (tn_dtype)x->dtype, x->ndim, x->shape);
}

/* An exclusive scan is the inclusive one a step later: its cotangents a step earlier. */
static tn_array *grad_scan_shift(const tni_p_scan *p, tn_array *g) {
    return grad_shift(g, tn_i32(0), 1, p->axis, !p->reverse);
}

/* h_j = g_j + a_j h_(j+1), from the end: a sum over windows that double, h_j + a_j h_(j+w) with a_j
 * the product of w of them. */
static tn_array *grad_windows(const tni_p_scan *p, tn_array *a, tn_array *h) {
    tn_array *zero = tn_i32(0);
    if (tni_is_error(a) || tni_is_error(h)) return tni_is_error(a) ? a : h;
    for (int64_t w = 1, m = a->shape[p->axis]; w < m; w *= 2) {
        h = tn_add(h, tn_mul(a, grad_shift(h, zero, w, p->axis, !p->reverse)));
        if (2 * w < m) a = tn_mul(a, grad_shift(a, zero, w, p->axis, !p->reverse));
    }
    return h;
}

/* Running products: x_j takes part in every result from its own on, so that its gradient is the
 * product of those before it times h_j = g_j + x_(j+1) h_(j+1): no division, right at 0. */
static tn_array *grad_scan_product(const tni_node *n, tn_array *g) {
    const tni_p_scan *p = n->params;
    tn_dtype d = (tn_dtype)g->dtype, wide = d == TN_F16 || d == TN_BF16 ? TN_F32 : d;
    tn_array *zero = tn_i32(0), *x = tn_astype(grad_conj(n->in[0]), wide);
    tn_array *before = grad_scan(n, p->op, x, p->reverse, false);
    tn_array *a = grad_shift(x, zero, 1, p->axis, !p->reverse);
    tn_array *h = grad_windows(p, a, tn_astype(g, wide));
    return tn_astype(tn_mul(h, before), d);
}

/* Running extremes: each result comes from the last place so far that reached it. */
static tn_array *grad_scan_extreme(const tni_node *n, tn_array *g, tn_array *y) {
    const tni_p_scan *p = n->params;
    tn_array *x = n->in[0];
    int64_t shape[TN_MAX_NDIM], m = x->shape[p->axis];
    for (int i = 0; i < x->ndim; i++) shape[i] = i == p->axis ? m : 1;
    tn_array *at = tn_reshape(tn_arange(0, (double)m, 1, TN_I64), (tn_ints){shape, x->ndim});
    tn_array *none = tn_scalar_i64(p->reverse ? m - 1 : 0, TN_I64);
    tn_array *place = grad_scan(n, p->reverse ? TNI_SCAN_MIN : TNI_SCAN_MAX,
                                tn_where(tn_equal(x, y), at, none), p->reverse, true);
    return tn_scatter_add_axis(grad_zeros(x), place, g, p->axis);
}

/* x_j adds exp(x_j - y_i) of g_i for every later i: exp(x_j - y_j) h_j, where h_j = g_j + a_j
 * h_(j+1) with a_j = exp(y_j - y_(j+1)). No factor is above 1 whatever the range of x. Where all so
 * far is -inf nothing is added. */
static tn_array *grad_scan_logaddexp(const tni_node *n, tn_array *g, tn_array *y) {
    const tni_p_scan *p = n->params;
    tn_dtype d = (tn_dtype)g->dtype, wide = d == TN_F64 ? TN_F64 : TN_F32;
    tn_array *x = tn_astype(n->in[0], wide), *zero = tn_scalar(0, wide);
    if (wide != d) y = grad_scan(n, p->op, x, p->reverse, true);
    int64_t m = n->in[0]->shape[p->axis], end = p->reverse ? 0 : m - 1;
    tn_array *last = tn_slice_axis(y, p->axis, end, end + 1), *none = tn_isneginf(y);
    tn_array *next = grad_shift(y, last, 1, p->axis, !p->reverse);
    tn_array *a = tn_where(none, zero, tn_exp(tn_where(none, zero, tn_sub(y, next))));
    tn_array *h = grad_windows(p, a, tn_astype(g, wide));
    a = tn_where(none, zero, tn_exp(tn_where(none, zero, tn_sub(x, y))));
    return tn_astype(tn_mul(a, h), d);
}

TNI_RULE_VJP(scan) {
    const tni_p_scan *p = n->params;
    tn_array *x = n->in[0], *y = n->out[0], *g = cot[0];
    if (!want[0]) return 0;
    if (!x->size) {
        grad[0] = g;
    } else if (p->op == TNI_SCAN_SUM) {
        grad[0] = grad_scan(n, p->op, g, !p->reverse, p->inclusive);
    } else {
        if (!p->inclusive) g = grad_scan_shift(p, g), y = grad_scan(n, p->op, x, p->reverse, true);
        grad[0] = p->op == TNI_SCAN_PROD        ? grad_scan_product(n, g)
                  : p->op == TNI_SCAN_LOGADDEXP ? grad_scan_logaddexp(n, g, y)
                                                : grad_scan_extreme(n, g, y);
    }
    return 0;
}

/* ---- sums of gradients ---- */

/* An unevaluated sum scattered over zeros: what reading some places of an array leaves. */
static bool grad_is_scattered(const tn_array *a) {
    const tni_node *n = tni_state_of(a) == TNI_LAZY ? a->node : NULL;
    if (!n || (n->prim->id != TNI_OP_scatter && n->prim->id != TNI_OP_scatter_axis)) return false;
    int32_t mode = n->prim->id == TNI_OP_scatter ? ((const tni_p_gather *)n->params)->mode
                                                 : ((const tni_p_gather_axis *)n->params)->mode;
    const tn_array *onto = n->in[0], *zero = onto;
    if (tni_state_of(onto) == TNI_LAZY && onto->node->prim->id == TNI_OP_broadcast_to)
        zero = onto->node->in[0];
    return mode == TNI_SCATTER_SUM && tni_state_of(zero) == TNI_READY && !zero->buf &&
           !memcmp(zero->inl, &(uint64_t){0}, tn_dtype_size((tn_dtype)zero->dtype));
}

tn_array *tni_grad_sum(tn_array *a, tn_array *b) {
    if (!grad_is_scattered(b)) {
        tn_array *t = a;
        a = b, b = t;
    }
    if (!grad_is_scattered(b) || a->dtype != b->dtype ||
        !tni_same_shape(a->ndim, a->shape, b->ndim, b->shape))
        return tn_add(a, b);
    const tni_node *n = b->node;
    tn_array *in[TN_MAX_NDIM + 2] = {a};
    for (int i = 1; i < n->n_in; i++) in[i] = n->in[i];
    return tni_op1(n->prim, n->n_in, in, n->params, (tn_dtype)b->dtype, b->ndim, b->shape);
}
