/* Derivatives of views, casts, joins and parts: all linear, so that a tangent takes the way of the
 * value itself. */
#include "core/dtype.h"
#include "ops/build.h"
#include "ops/rules.h"
#include <string.h>

int tni_vjp_none(const tni_node *n, tn_array *const *cot, const bool *want, tn_array **grad) {
    (void)n, (void)cot, (void)want, (void)grad;
    return 0;
}
int tni_jvp_none(const tni_node *n, tn_array *const *tan, tn_array **out) {
    (void)n, (void)tan, (void)out;
    return 0;
}

/* The same node over other inputs. */
static tn_array *grad_again(const tni_node *n, tn_array *const *in) {
    const tn_array *y = n->out[0];
    for (int i = 0; i < n->n_in; i++)
        if (tni_is_error(in[i])) return in[i];
    return tni_op1(n->prim, n->n_in, in, n->params, (tn_dtype)y->dtype, y->ndim, y->shape);
}
static tn_array *grad_zeros(const tn_array *like) {
    return tn_zeros((tn_ints){like->shape, like->ndim}, (tn_dtype)like->dtype);
}
static tn_ints grad_shape(const tn_array *a) { return (tn_ints){a->shape, a->ndim}; }

/* ---- views ---- */

TNI_RULE_VJP(reshape) {
    if (want[0]) grad[0] = tn_reshape(cot[0], grad_shape(n->in[0]));
    return 0;
}
TNI_RULE_JVP(reshape) {
    if (tan[0]) out[0] = grad_again(n, tan);
    return 0;
}

TNI_RULE_VJP(transpose) {
    const tni_p_axes *p = n->params;
    int64_t back[TN_MAX_NDIM];
    int ndim = n->in[0]->ndim;
    for (int i = 0; i < ndim; i++) back[p->axes[i]] = i;
    if (want[0]) grad[0] = tn_transpose(cot[0], (tn_ints){back, ndim});
    return 0;
}
TNI_RULE_JVP(transpose) {
    if (tan[0]) out[0] = grad_again(n, tan);
    return 0;
}

/* u put into a copy of `a` where slice with these parameters would read. */
static tn_array *grad_put(tn_array *a, tn_array *u, const void *params) {
    if (tni_is_error(a) || tni_is_error(u)) return tni_is_error(a) ? a : u;
    if (!u->size) return a;
    return tni_op1(TNI_PRIM(slice_update), 2, (tn_array *[]){a, u}, params, (tn_dtype)a->dtype,
                   a->ndim, a->shape);
}

TNI_RULE_VJP(slice) {
    if (want[0]) grad[0] = grad_put(grad_zeros(n->in[0]), cot[0], n->params);
    return 0;
}
TNI_RULE_JVP(slice) {
    if (tan[0]) out[0] = grad_again(n, tan);
    return 0;
}

TNI_RULE_VJP(broadcast_to) {
    if (want[0]) grad[0] = tni_sum_like(cot[0], n->in[0]);
    return 0;
}
TNI_RULE_JVP(broadcast_to) {
    if (tan[0]) out[0] = grad_again(n, tan);
    return 0;
}

/* The bits of a number are no smooth function of it; but a complex number is a pair of floats. */
static bool grad_view_is_pair(const tni_node *n) {
    tn_dtype a = (tn_dtype)n->in[0]->dtype, b = (tn_dtype)n->out[0]->dtype;
    return (a == TN_C64 && b == TN_F32) || (a == TN_F32 && b == TN_C64);
}
TNI_RULE_VJP(view) {
    if (want[0] && grad_view_is_pair(n)) grad[0] = tn_view(cot[0], (tn_dtype)n->in[0]->dtype);
    return 0;
}
TNI_RULE_JVP(view) {
    if (tan[0] && grad_view_is_pair(n)) out[0] = tn_view(tan[0], (tn_dtype)n->out[0]->dtype);
    return 0;
}

/* ---- casts ---- */

static tn_array *grad_cast(tn_array *g, const tn_array *from, const tn_array *to) {
    if (!tni_is_inexact((tn_dtype)from->dtype) || !tni_is_inexact((tn_dtype)to->dtype)) return NULL;
    if (g->dtype == TN_C64 && to->dtype != TN_C64) g = tn_real(g);
    return tn_astype(g, (tn_dtype)to->dtype);
}
TNI_RULE_VJP(astype) {
    if (want[0]) grad[0] = grad_cast(cot[0], n->out[0], n->in[0]);
    return 0;
}
TNI_RULE_JVP(astype) {
    if (tan[0]) out[0] = grad_cast(tan[0], n->in[0], n->out[0]);
    return 0;
}

TNI_RULE_VJP(contiguous) {
    (void)n;
    if (want[0]) grad[0] = cot[0];
    return 0;
}
TNI_RULE_JVP(contiguous) {
    (void)n;
    out[0] = tan[0];
    return 0;
}

/* ---- joins and parts ---- */

TNI_RULE_VJP(concatenate) {
    int axis = ((const tni_p_axis *)n->params)->axis;
    int64_t at = 0;
    for (int i = 0; i < n->n_in; i++) {
        int64_t size = n->in[i]->shape[axis];
        if (want[i]) grad[i] = tn_slice_axis(cot[0], axis, at, at + size);
        at += size;
    }
    return 0;
}
TNI_RULE_JVP(concatenate) {
    tn_array **t = (tn_array **)(void *)tan; /* the walk's own scratch */
    for (int i = 0; i < n->n_in; i++)
        if (!t[i]) t[i] = grad_zeros(n->in[i]);
    out[0] = grad_again(n, t);
    return 0;
}

TNI_RULE_VJP(slice_update) {
    const tn_array *u = n->in[1];
    if (want[0]) grad[0] = grad_put(cot[0], grad_zeros(u), n->params);
    if (want[1]) grad[1] = u->size ? tni_slice_node(cot[0], n->params, u->shape) : grad_zeros(u);
    return 0;
}
TNI_RULE_JVP(slice_update) {
    if (!tan[0] && !tan[1]) return 0;
    out[0] = grad_put(tan[0] ? tan[0] : grad_zeros(n->in[0]),
                      tan[1] ? tan[1] : grad_zeros(n->in[1]), n->params);
    return 0;
}
