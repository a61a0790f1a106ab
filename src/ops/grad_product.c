/* Derivatives of matrix products, plain and quantised, and of the layers that have a short rule of
 * their own. */
#include "base/err.h"
#include "core/dtype.h"
#include "ops/build.h"
#include "ops/rules.h"

static tn_array *grad_to(tn_array *g, const tn_array *like) {
    return tni_is_error(g) ? g : tni_cast(g, (tn_dtype)like->dtype);
}
/* The adjoint of a matrix: its last two axes exchanged, conjugated when complex. */
static tn_array *grad_adjoint(tn_array *a) {
    tn_array *t = tn_swapaxes(a, -1, -2);
    return a->dtype == TN_C64 ? tn_conj(t) : t;
}

TNI_RULE_VJP(matmul) {
    if (want[0]) grad[0] = grad_to(tn_matmul(cot[0], grad_adjoint(n->in[1])), n->in[0]);
    if (want[1]) grad[1] = grad_to(tn_matmul(grad_adjoint(n->in[0]), cot[0]), n->in[1]);
    return 0;
}
TNI_RULE_JVP(matmul) {
    tn_array *a = tan[0] ? tn_matmul(tan[0], n->in[1]) : NULL,
             *b = tan[1] ? tn_matmul(n->in[0], tan[1]) : NULL;
    if (a || b) out[0] = grad_to(a && b ? tn_add(a, b) : a ? a : b, n->out[0]);
    return 0;
}

/* ---- quantised ---- */

/* Gradients of scales and biases from that of the matrix w = scale * q + bias: sums over groups,
 * in f32. */
static void grad_quant(tn_array *dw, tn_array *w, tn_array *s, const tni_p_quant *p,
                       const bool *want, tn_array **grad) {
    int64_t shape[TN_MAX_NDIM + 1];
    tn_ints small = {s->shape, s->ndim};
    tn_array *g = tn_astype(dw, TN_F32);
    for (int i = 0; i < s->ndim; i++) shape[i] = s->shape[i];
    shape[s->ndim] = p->group;
    tn_ints groups = {shape, s->ndim + 1};
    if (want[0]) {
        tn_array *q =
            tn_dequantize(w, tn_ones(small, TN_F32), tn_zeros(small, TN_F32), p->group, p->bits);
        grad[0] = grad_to(tn_sum(tn_reshape(tn_mul(g, q), groups), TN_AXES(-1), false), s);
    }
    if (want[1]) grad[1] = grad_to(tn_sum(tn_reshape(g, groups), TN_AXES(-1), false), s);
}

/* Of each group's numbers the edge, the smallest or largest, is the bias, and a whole number q0 of
 * scales (cpu_quant.c): the scale and the bias are smooth functions of it alone. Numbers equal to
 * it share, as those of a maximum do. No gradient comes through the packed numbers. */
TNI_RULE_VJP(quantize) {
    const tni_p_quant *p = n->params;
    const tn_array *w = n->in[0], *s = n->out[1];
    int64_t shape[TN_MAX_NDIM + 1];
    if (!want[0] || !w->size) return 0;
    if (s->ndim >= TN_MAX_NDIM)
        return tni_fail(TN_ESHAPE, "quantize: %s has no room for one more axis", tni_describe(w));
    for (int i = 0; i < s->ndim; i++) shape[i] = s->shape[i];
    shape[s->ndim] = p->group;
    tn_array *v = tn_reshape(tn_astype(n->in[0], TN_F32), (tn_ints){shape, s->ndim + 1});
    tn_array *low = tn_min(v, TN_AXES(-1), true), *high = tn_max(v, TN_AXES(-1), true);
    tn_array *is_low = tn_greater(tn_abs(low), tn_abs(high));
    tn_array *edge = tn_where(is_low, low, high), *zero = tn_f32(0), *one = tn_f32(1);
    tn_array *step = tn_div(tn_sub(high, low), tn_f32((1 << p->bits) - 1));
    step = tn_maximum(step, tn_f32(1e-7));
    tn_array *q0 = tn_round(tn_div(edge, tn_where(is_low, step, tn_neg(step))));
    tn_array *none = tn_equal(q0, zero), *g = zero;
    if (cot[1])
        g = tn_div(tn_expand_dims(tn_astype(cot[1], TN_F32), TN_AXES(-1)), tn_where(none, one, q0));
    if (cot[2]) g = tn_add(g, tn_expand_dims(tn_astype(cot[2], TN_F32), TN_AXES(-1)));
    tn_array *at = tn_astype(tn_equal(v, edge), TN_F32);
    g = tn_div(tn_where(none, zero, g), tn_sum(at, TN_AXES(-1), true));
    g = tn_reshape(tn_mul(at, g), (tn_ints){w->shape, w->ndim});
    grad[0] = grad_to(g, w);
    return 0;
}

TNI_RULE_VJP(dequantize) {
    if (want[1] || want[2]) grad_quant(cot[0], n->in[0], n->in[1], n->params, want + 1, grad + 1);
    return 0;
}

static tn_array *grad_or_zeros(tn_array *t, const tn_array *like) {
    return t ? t : tn_zeros((tn_ints){like->shape, like->ndim}, (tn_dtype)like->dtype);
}
TNI_RULE_JVP(dequantize) {
    const tni_p_quant *p = n->params;
    if (!tan[1] && !tan[2]) return 0;
    out[0] = tn_dequantize(n->in[0], grad_or_zeros(tan[1], n->in[1]),
                           grad_or_zeros(tan[2], n->in[2]), p->group, p->bits);
    return 0;
}

/* [..., M, K] as [rows, K] beside a matrix without batch axes. */
static tn_array *grad_rows(tn_array *x, const tn_array *w) {
    if (w->ndim > 2 || x->ndim == 2) return x;
    int64_t k = x->shape[x->ndim - 1];
    return tn_reshape(x, TN_SHAPE(k ? x->size / k : 0, k));
}

TNI_RULE_VJP(quantized_matmul) {
    const tni_p_quant *p = n->params;
    tn_array *x = n->in[0], *w = n->in[1], *s = n->in[2], *b = n->in[3];
    if (want[0]) grad[0] = tn_quantized_matmul(cot[0], w, s, b, !p->transpose, p->group, p->bits);
    if (!want[2] && !want[3]) return 0;
    tn_array *g = tn_astype(grad_rows(cot[0], w), TN_F32), *r = tn_astype(grad_rows(x, w), TN_F32);
    tn_array *dw =
        p->transpose ? tn_matmul(tn_swapaxes(g, -1, -2), r) : tn_matmul(tn_swapaxes(r, -1, -2), g);
    grad_quant(dw, w, s, p, want + 2, grad + 2);
    return 0;
}
TNI_RULE_JVP(quantized_matmul) {
    const tni_p_quant *p = n->params;
    tn_array *const *in = n->in, *a = NULL, *b = NULL;
    if (tan[0])
        a = tn_quantized_matmul(tan[0], in[1], in[2], in[3], p->transpose, p->group, p->bits);
    if (tan[2] || tan[3])
        b = tn_quantized_matmul(in[0], in[1], grad_or_zeros(tan[2], in[2]),
                                grad_or_zeros(tan[3], in[3]), p->transpose, p->group, p->bits);
    if (a || b) out[0] = a && b ? tn_add(a, b) : a ? a : b;
    return 0;
}

/* ---- softmax: its derivative is symmetric ---- */

static tn_array *grad_softmax(tn_array *y, tn_array *g) {
    tn_dtype d = (tn_dtype)y->dtype, wide = d == TN_F64 ? TN_F64 : TN_F32;
    y = tn_astype(y, wide), g = tn_astype(g, wide);
    tn_array *dot = tn_sum(tn_mul(g, y), TN_AXES(-1), true);
    return tn_astype(tn_mul(y, tn_sub(g, dot)), d);
}
TNI_RULE_VJP(softmax) {
    if (want[0]) grad[0] = grad_softmax(n->out[0], cot[0]);
    return 0;
}
TNI_RULE_JVP(softmax) {
    if (tan[0]) out[0] = grad_softmax(n->out[0], tan[0]);
    return 0;
}

/* ---- rope: a rotation, undone by turning the other way ---- */

static tn_array *grad_turn(const tni_node *n, tn_array *x, float way) {
    tni_p_rope p = *(const tni_p_rope *)n->params;
    p.scale *= way;
    tn_array *in[3] = {x, n->in[1], n->n_in > 2 ? n->in[2] : NULL};
    return tni_op1(TNI_PRIM(rope), n->n_in, in, &p, (tn_dtype)x->dtype, x->ndim, x->shape);
}
TNI_RULE_VJP(rope) {
    if (n->n_in > 2 && want[2]) return TNI_BY_LOWER;
    if (want[0]) grad[0] = grad_turn(n, cot[0], -1);
    return 0;
}
TNI_RULE_JVP(rope) {
    if (n->n_in > 2 && tan[2]) return TNI_BY_LOWER;
    if (tan[0]) out[0] = grad_turn(n, tan[0], 1);
    return 0;
}
