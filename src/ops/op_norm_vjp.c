/* The gradients of normalisations: a primitive of its own, since the way back through the simpler
 * ops passes over the rows many times. */
#include "base/err.h"
#include "ops/build.h"
#include "ops/lower.h"

enum { NORM_OUT = 3 };

TNI_RULE_INFER(norm_vjp) {
    const tni_p_norm_vjp *p = c->params;
    if (!tni_infer_flag(p->centre) || !tni_infer_flag(p->has_weight) ||
        !tni_infer_flag(p->has_bias) || c->n_in != 2 + p->has_weight ||
        c->n_out != 1 + p->has_weight + p->has_bias)
        return tni_fail(TN_EVALUE, "%s: %d inputs, %d outputs", c->op, c->n_in, c->n_out);
    const tni_out_spec *x = c->in, *g = &c->in[c->n_in - 1], *w = &c->in[1];
    bool narrow = x->dtype == TN_F32 || x->dtype == TN_F16 || x->dtype == TN_BF16;
    if (!x->ndim || !narrow || g->dtype != x->dtype || !tni_infer_same(g, x))
        return tni_fail(TN_ESHAPE, "%s: a cotangent %s for %s", c->op, tni_describe_spec(g),
                        tni_describe_spec(x));
    const int64_t *d = &x->shape[x->ndim - 1];
    bool fits = !p->has_weight || (w->ndim >= 1 && w->ndim <= x->ndim && w->dtype == x->dtype &&
                                   w->shape[w->ndim - 1] == *d);
    for (int i = 0; p->has_weight && fits && i + 1 < w->ndim; i++)
        fits = w->shape[i] == x->shape[i];
    if (!fits)
        return tni_fail(TN_ESHAPE, "%s: weight %s does not fit %s", c->op, tni_describe_spec(w),
                        tni_describe_spec(x));
    tni_infer_out(c, 0, x->dtype, x->ndim, x->shape);
    for (int i = 1; i < c->n_out; i++)
        tni_infer_out(c, i, x->dtype, p->has_weight ? w->ndim : 1, p->has_weight ? w->shape : d);
    return 0;
}

/* A weight [..., D] beside x: axes of size 1 before its last. */
static tn_array *norm_weight(tn_array *w, const tn_array *x) {
    int64_t shape[TN_MAX_NDIM];
    if (w->ndim == 1) return w;
    for (int i = 0; i < x->ndim; i++) shape[i] = i + 1 < w->ndim ? w->shape[i] : 1;
    shape[x->ndim - 1] = x->shape[x->ndim - 1];
    return tn_reshape(w, (tn_ints){shape, x->ndim});
}

/* s summed over the rows that share a weight. */
static tn_array *norm_rows(tn_array *s, const tni_node *n) {
    const tn_array *w = n->out[1];
    int64_t shape[TN_MAX_NDIM + 1], rows = 1;
    int lead = w->ndim - 1;
    if (tni_is_error(s)) return s;
    for (int i = 0; i < lead; i++) shape[i] = w->shape[i];
    for (int i = lead; i + 1 < s->ndim; i++) rows *= s->shape[i];
    shape[lead] = rows, shape[lead + 1] = w->shape[lead];
    return tn_sum(tn_reshape(s, (tn_ints){shape, lead + 2}), TN_AXES(lead), false);
}

/* With z the normalised row, r = 1 / sqrt(mean square + eps) and u the cotangent times the weight:
 * dx = r (u - mean(u) - z mean(u z)), without the first mean for rms_norm; dw is the sum of g z,
 * db that of g. */
int tni_lower_norm_vjp(const tni_node *n, tn_array **out) {
    const tni_p_norm_vjp *p = n->params;
    tn_dtype dtype = (tn_dtype)n->in[0]->dtype;
    tn_array *x = tn_astype(n->in[0], TN_F32), *g = tn_astype(n->in[n->n_in - 1], TN_F32);
    if (p->centre) x = tn_sub(x, tn_mean(x, TN_AXES(-1), true));
    tn_array *square = tn_mean(tn_square(x), TN_AXES(-1), true);
    tn_array *r = tn_rsqrt(tn_add(square, tn_f32((double)p->eps))), *z = tn_mul(x, r);
    tn_array *u = g;
    if (p->has_weight) u = tn_mul(g, tn_astype(norm_weight(n->in[1], x), TN_F32));
    tn_array *dx = tn_sub(u, tn_mul(z, tn_mean(tn_mul(u, z), TN_AXES(-1), true)));
    if (p->centre) dx = tn_sub(dx, tn_mean(u, TN_AXES(-1), true));
    out[0] = tn_astype(tn_mul(dx, r), dtype);
    for (int i = 1; i < n->n_out; i++) {
        tn_array *s = i == 1 && p->has_weight ? tn_mul(g, z) : g;
        out[i] = tn_astype(norm_rows(s, n), dtype);
    }
    for (int i = 0; i < n->n_out; i++)
        if (tni_is_error(out[i])) return out[i]->status;
    return 0;
}

/* f64 and empty arrays go through the lowering of the normalisation; mixed dtypes meet in f32. */
static int norm_vjp(const tni_node *n, bool centre, tn_array *g, const bool *want,
                    tn_array **grad) {
    const tni_p_norm *p = n->params;
    tni_p_norm_vjp q = {p->eps, centre, p->has_weight, p->has_bias};
    tn_array *in[3] = {n->in[0], p->has_weight ? n->in[1] : g}, *out[NORM_OUT];
    tni_out_spec from[3], made[NORM_OUT];
    tni_spec spec[NORM_OUT] = {{0}};
    int n_in = 2 + q.has_weight, n_out = 1 + q.has_weight + q.has_bias;
    bool mixed = false;
    if (!n->in[0]->size) return TNI_BY_LOWER;
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i]->dtype == TN_F64) return TNI_BY_LOWER;
        mixed = mixed || n->in[i]->dtype != n->in[0]->dtype;
    }
    in[n_in - 1] = g;
    for (int i = 0; i < n_in; i++) {
        if (mixed) in[i] = tn_astype(in[i], TN_F32);
        if (tni_is_error(in[i])) return in[i]->status;
        from[i] = tni_spec_of(in[i]);
    }
    tni_infer_call c = {"norm_vjp", TNI_PRIM(norm_vjp), &q, n_in, n_out, from, spec};
    int status = tni_infer(&c);
    for (int i = 0; i < n_out; i++)
        made[i] = (tni_out_spec){spec[i].dtype, spec[i].ndim, spec[i].shape};
    if (!status) status = tni_node_new(TNI_PRIM(norm_vjp), n_in, in, &q, n_out, made, out);
    for (int i = 0; i < n_out && !status; i++) out[i] = tni_scope_own(out[i]);
    for (int i = 0; i < n_out && !status; i++)
        if (want[i]) grad[i] = tn_astype(out[i], (tn_dtype)n->in[i]->dtype);
    return status;
}
TNI_RULE_VJP(rms_norm) { return norm_vjp(n, false, cot[0], want, grad); }
TNI_RULE_VJP(layer_norm) { return norm_vjp(n, true, cot[0], want, grad); }

int tni_jvp_by_lower(const tni_node *n, tn_array *const *tan, tn_array **out) {
    (void)n, (void)tan, (void)out;
    return TNI_BY_LOWER;
}
