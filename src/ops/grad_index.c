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

static int grad_scatter_vjp(const grad_scatter *s, tn_array *g, const bool *want, tn_array **grad) {
    const tni_node *n = s->n;
    int last = n->n_in - 1;
    tn_array *a = n->in[0], *u = n->in[last], *y = n->out[0],
             *zero = tn_scalar(0, (tn_dtype)y->dtype);
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
    case TNI_SCATTER_PROD: /* y over what was multiplied in, which must not be 0 */
        if (want[0]) grad[0] = tn_mul(g, tn_div(y, a));
        if (want[last]) grad[last] = tn_div(tn_mul(at, grad_read(s, y)), u);
        return 0;
    default: /* the largest or smallest: whatever equals it */
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
    int64_t m = g->shape[p->axis], shape[TN_MAX_NDIM];
    memcpy(shape, g->shape, sizeof shape[0] * g->ndim);
    shape[p->axis] = 1;
    tn_array *none = tn_zeros((tn_ints){shape, g->ndim}, (tn_dtype)g->dtype);
    return p->reverse ? tn_concatenate(TN_LIST(none, tn_slice_axis(g, p->axis, 0, m - 1)), p->axis)
                      : tn_concatenate(TN_LIST(tn_slice_axis(g, p->axis, 1, m), none), p->axis);
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

/* The sum over later i of g_i exp(x_j - y_i), as a table of every i by every j: its entries are at
 * most 1 whatever the range of x, and it is linear in g, but it takes n * n for an axis of n. */
static tn_array *grad_scan_logaddexp(const tni_node *n, tn_array *g, tn_array *y) {
    const tni_p_scan *p = n->params;
    int64_t m = n->in[0]->shape[p->axis];
    tn_array *x = tn_moveaxis(n->in[0], p->axis, -1), *mask = tn_tri(m, m, 0, TN_BOOL);
    y = tn_expand_dims(tn_moveaxis(y, p->axis, -1), TN_AXES(-1));
    g = tn_expand_dims(tn_moveaxis(g, p->axis, -1), TN_AXES(-1));
    tn_array *d = tn_sub(tn_expand_dims(x, TN_AXES(-2)), y),
             *none = tn_scalar(-(double)INFINITY, tn_dtype_of(d));
    tn_array *w = tn_exp(tn_where(p->reverse ? tn_transpose(mask, TN_ALL) : mask, d, none));
    return tn_moveaxis(tn_sum(tn_mul(w, g), TN_AXES(-2), false), -1, p->axis);
}

TNI_RULE_VJP(scan) {
    const tni_p_scan *p = n->params;
    tn_array *x = n->in[0], *y = n->out[0], *g = cot[0];
    if (!want[0]) return 0;
    if (!x->size) {
        grad[0] = g;
    } else if (p->op == TNI_SCAN_SUM) {
        grad[0] = grad_scan(n, p->op, g, !p->reverse, p->inclusive);
    } else if (p->op == TNI_SCAN_PROD) { /* no element may be 0 */
        tn_array *c = x->dtype == TN_C64 ? tn_conj(y) : y;
        grad[0] = tn_div(grad_scan(n, TNI_SCAN_SUM, tn_mul(g, c), !p->reverse, p->inclusive),
                         x->dtype == TN_C64 ? tn_conj(x) : x);
    } else {
        if (!p->inclusive) g = grad_scan_shift(p, g), y = grad_scan(n, p->op, x, p->reverse, true);
        grad[0] =
            p->op == TNI_SCAN_LOGADDEXP ? grad_scan_logaddexp(n, g, y) : grad_scan_extreme(n, g, y);
    }
    return 0;
}
