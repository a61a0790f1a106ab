/* Derivatives of convolutions. One is linear in the input and in the weight: each has the other's
 * gradient in it, and the three (conv for both its inputs, conv_weight) are closed under
 * differentiation, so derivatives of any order are convolutions. */
#include "base/err.h"
#include "ops/build.h"
#include "ops/conv.h"
#include "ops/rules.h"

static tn_array *conv_zeros(const tn_array *like) {
    return tn_zeros((tn_ints){like->shape, like->ndim}, (tn_dtype)like->dtype);
}

/* w [G * og, taps..., cg] as [G * cg, taps..., og]: the channels change sides within each group. */
static tn_array *conv_sides(tn_array *w, int groups) {
    int64_t shape[6], order[6], og = w->shape[0] / groups, cg = w->shape[w->ndim - 1];
    int n = w->ndim + 1;
    shape[0] = groups, shape[1] = og;
    for (int i = 2; i < n; i++) shape[i] = w->shape[i - 1];
    for (int i = 0; i < n; i++) order[i] = i;
    order[1] = n - 1, order[n - 1] = 1;
    tn_array *t = tn_transpose(tn_reshape(w, (tn_ints){shape, n}), (tn_ints){order, n});
    for (int i = 1; i < n - 2; i++) shape[i] = shape[i + 1];
    shape[0] = groups * cg, shape[n - 2] = og;
    return tn_reshape(t, (tn_ints){shape, n - 1});
}

/* The cotangent of the input for d, that of conv(x, w): the places of d spread by the stride under
 * the kernel turned around. */
static tn_array *conv_input(const tn_array *x, tn_array *d, tn_array *w, const tni_p_conv *p) {
    if (tni_is_error(d) || tni_is_error(w)) return tni_is_error(d) ? d : w;
    if (!x->size || !d->size || !w->size) return conv_zeros(x);
    tni_p_conv q = *p;
    q.flip = !p->flip;
    for (int i = 0; i < p->nd; i++) {
        int64_t low = (w->shape[i + 1] - 1) * p->dilation[i] - p->low[i];
        int64_t high = (x->shape[i + 1] - 1) * p->input_dilation[i] -
                       (d->shape[i + 1] - 1) * p->stride[i] + p->low[i];
        q.stride[i] = p->input_dilation[i], q.input_dilation[i] = p->stride[i];
        q.low[i] = (int32_t)low, q.high[i] = (int32_t)high;
        if (q.low[i] != low || q.high[i] != high)
            return tni_error_array(TN_EVALUE, "a convolution's gradient: padding of %lld and %lld",
                                   (long long)low, (long long)high);
    }
    return tni_conv_node("a convolution's gradient", d, conv_sides(w, p->groups), &q);
}

/* a + b, each possibly absent. */
static tn_array *conv_sum(tn_array *a, tn_array *b) { return a && b ? tn_add(a, b) : a ? a : b; }

TNI_RULE_VJP(conv) {
    const tni_p_conv *p = n->params;
    if (want[0]) grad[0] = conv_input(n->in[0], cot[0], n->in[1], p);
    if (want[1]) grad[1] = tni_conv_weight_node(n->in[0], cot[0], p, n->in[1]);
    return 0;
}
TNI_RULE_JVP(conv) {
    const tni_p_conv *p = n->params;
    tn_array *x = tan[0] ? tni_conv_node("conv", tan[0], n->in[1], p) : NULL,
             *w = tan[1] ? tni_conv_node("conv", n->in[0], tan[1], p) : NULL;
    out[0] = conv_sum(x, w);
    return 0;
}

TNI_RULE_VJP(conv_weight) {
    const tni_p_conv *p = n->params;
    if (want[0]) grad[0] = conv_input(n->in[0], n->in[1], cot[0], p);
    if (want[1]) grad[1] = tni_conv_node("conv", n->in[0], cot[0], p);
    return 0;
}
TNI_RULE_JVP(conv_weight) {
    const tni_p_conv *p = n->params;
    const tn_array *w = n->out[0];
    tn_array *x = tan[0] ? tni_conv_weight_node(tan[0], n->in[1], p, w) : NULL,
             *d = tan[1] ? tni_conv_weight_node(n->in[0], tan[1], p, w) : NULL;
    out[0] = conv_sum(x, d);
    return 0;
}
