/* Scaled dot-product attention and its gradient: the public function, shape rules, and what the
 * kernels compute in simpler ops. */
#include "base/err.h"
#include "ops/attention.h"
#include "ops/build.h"
#include "ops/lower.h"
#include <math.h>

static bool attention_float(const tni_out_spec *a) { return tni_is_float(a->dtype); }
static bool attention_is_float(const tn_array *a) { return tni_is_float((tn_dtype)a->dtype); }
static tn_array *attention_f32(tn_array *a) {
    return tn_astype(a, a->dtype == TN_F64 ? TN_F64 : TN_F32);
}

static int attention_check(const tni_infer_call *c) {
    const tni_out_spec *q = &c->in[0], *k = &c->in[1], *v = &c->in[2];
    bool ok = q->ndim == 4 && k->ndim == 4 && v->ndim == 4 && attention_float(q) &&
              attention_float(k) && attention_float(v);
    ok = ok && k->shape[1] && q->shape[1] % k->shape[1] == 0 && q->shape[3] == k->shape[3] &&
         q->shape[0] == k->shape[0];
    for (int i = 0; i < 3 && ok; i++) ok = k->shape[i] == v->shape[i];
    bool wide = q->dtype == TN_F64;
    ok = ok && (k->dtype == TN_F64) == wide && (v->dtype == TN_F64) == wide;
    if (ok) return 0;
    return tni_fail(
        TN_ESHAPE,
        "%s: q %s, k %s and v %s must be [B, Hq, Lq, D], [B, "
        "Hkv, Lk, D], [B, Hkv, Lk, Dv] with Hq a multiple of Hkv, floats, all f64 or none",
        c->op, tni_describe_spec(q), tni_describe_spec(k), tni_describe_spec(v));
}

/* [Hq], or [B, Hq]. */
static bool attention_sinks_fit(const tni_out_spec *sinks, const tni_out_spec *q) {
    if (sinks->ndim != 1 && sinks->ndim != 2) return false;
    return sinks->shape[sinks->ndim - 1] == q->shape[1] &&
           (sinks->ndim == 1 || sinks->shape[0] == q->shape[0]);
}

/* The mask as [B, Hq, Lq, Lk], one sink a head. */
static int attention_extras(const tni_infer_call *c, const tni_p_sdpa *p) {
    const tni_out_spec *q = &c->in[0], *k = &c->in[1], *last = &c->in[c->n_in - 1];
    bool masked = p->mask >= TNI_MASK_BOOL, bools = p->mask == TNI_MASK_BOOL;
    const tni_out_spec scores = {TN_F32, 4,
                                 (int64_t[4]){q->shape[0], q->shape[1], q->shape[2], k->shape[2]}};
    if (masked && ((bools ? c->in[3].dtype != TN_BOOL : !attention_float(&c->in[3])) ||
                   !tni_infer_same(&c->in[3], &scores)))
        return tni_fail(TN_ESHAPE, "%s: mask %s is not [B, Hq, Lq, Lk] of q %s, k %s", c->op,
                        tni_describe_spec(&c->in[3]), tni_describe_spec(q), tni_describe_spec(k));
    if (!p->has_sinks || (last->dtype == TN_F32 && attention_sinks_fit(last, q))) return 0;
    return tni_fail(TN_ESHAPE, "%s: sinks %s must be one number for each head of q %s", c->op,
                    tni_describe_spec(last), tni_describe_spec(q));
}

TNI_RULE_INFER(sdpa) {
    const tni_p_sdpa *p = c->params;
    bool masked = p->mask >= TNI_MASK_BOOL, sinks = p->has_sinks;
    int n = 3 + masked + sinks;
    if (p->mask < TNI_MASK_NONE || p->mask > TNI_MASK_ADD || !tni_infer_flag(p->has_sinks) ||
        tni_infer_arity(c, n, n))
        return tni_fail(TN_EVALUE, "%s: mask kind %d with %d inputs", c->op, p->mask, c->n_in);
    int status = attention_check(c);
    if (!status) status = attention_extras(c, p);
    if (status) return status;
    tni_infer_like(c, 0);
    c->out[0].shape[3] = c->in[2].shape[3];
    return 0;
}

/* The mask as the node takes it: an error that says what it does not fit. */
static tn_array *attention_expand(const char *op, tn_array *mask, const tn_array *q,
                                  const tn_array *k) {
    int64_t got[TN_MAX_NDIM];
    int ndim;
    if (q->ndim != 4 || k->ndim != 4) return mask; /* the rule refuses them */
    const int64_t scores[4] = {q->shape[0], q->shape[1], q->shape[2], k->shape[2]};
    if ((attention_is_float(mask) || mask->dtype == TN_BOOL) &&
        tni_broadcast(mask->ndim, mask->shape, 4, scores, &ndim, got) &&
        tni_same_shape(ndim, got, 4, scores))
        return tni_expand(mask, 4, scores);
    return tni_error_array(TN_ESHAPE,
                           "%s: mask %s does not broadcast to [B, Hq, Lq, Lk] of q %s, k %s", op,
                           tni_describe(mask), tni_describe(q), tni_describe(k));
}

tn_array *tn_fast_scaled_dot_product_attention(tn_array *q, tn_array *k, tn_array *v, double scale,
                                               const tn_sdpa_opt *opt) {
    const char *op = "scaled_dot_product_attention";
    TNI_INPUTS(op, q, k, v);
    tn_array *mask = opt ? opt->mask : NULL, *sinks = opt ? opt->sinks : NULL;
    if (mask) TNI_INPUTS(op, mask);
    if (sinks) TNI_INPUTS(op, sinks);
    if (mask && opt->causal)
        return tni_error_array(TN_EVALUE, "%s: give a mask or causal, not both", op);
    tni_p_sdpa p = {.scale = (float)scale, .has_sinks = sinks != NULL};
    p.mask = mask                 ? mask->dtype == TN_BOOL ? TNI_MASK_BOOL : TNI_MASK_ADD
             : opt && opt->causal ? TNI_MASK_CAUSAL
                                  : TNI_MASK_NONE;
    tn_array *in[5] = {q, k, v};
    int n = 3;
    if (q->dtype == TN_F64 || k->dtype == TN_F64 || v->dtype == TN_F64)
        for (int i = 0; i < 3; i++)
            if (attention_is_float(in[i])) in[i] = tni_cast(in[i], TN_F64);
    if (mask) in[n++] = attention_expand(op, mask, q, k);
    if (sinks) in[n++] = attention_is_float(sinks) ? tni_cast(sinks, TN_F32) : sinks;
    return tni_op_rule(op, TNI_PRIM(sdpa), n, in, &p, NULL);
}

static tn_array *attention_mask(const tni_node *n, const tni_p_sdpa *p, tn_array *s) {
    int64_t lq = n->in[0]->shape[2], lk = n->in[1]->shape[2];
    tn_array *none = tn_scalar(-(double)INFINITY, tn_dtype_of(s));
    if (p->mask == TNI_MASK_ADD) return tn_add(s, tn_reshape(attention_f32(n->in[3]), tn_shape(s)));
    if (p->mask == TNI_MASK_BOOL) return tn_where(tn_reshape(n->in[3], tn_shape(s)), s, none);
    if (p->mask == TNI_MASK_CAUSAL) return tn_where(tn_tri(lq, lk, lk - lq, TN_BOOL), s, none);
    return s;
}

/* What both lowerings start from, in f32 or f64; query heads by the key-value head they share. */
typedef struct attention_parts {
    tn_array *q, *k, *v; /* [B, Hkv, g, Lq, D] scaled, [B, Hkv, 1, Lk, D], [B, Hkv, 1, Lk, Dv] */
    tn_array *p, *sink;  /* softmax of the scores [B, Hkv, g, Lq, Lk]; what the sink takes of it */
} attention_parts;

/* The largest of each row; of none, where there are no keys, -inf. */
static tn_array *attention_top(tn_array *s) {
    if (tni_is_error(s) || s->shape[4]) return tn_max(s, TN_AXES(-1), true);
    return tn_full(TN_SHAPE(s->shape[0], s->shape[1], s->shape[2], s->shape[3], 1),
                   tn_scalar(-(double)INFINITY, tn_dtype_of(s)));
}

static attention_parts attention_lower(const tni_node *n) {
    const tni_p_sdpa *p = n->params;
    tn_array *q = attention_f32(n->in[0]), *sink = NULL;
    int64_t hkv = n->in[1]->shape[1], g = q->shape[1] / hkv;
    attention_parts a = {.k = tn_expand_dims(attention_f32(n->in[1]), TN_AXES(2)),
                         .v = tn_expand_dims(attention_f32(n->in[2]), TN_AXES(2))};
    a.q = tn_reshape(tn_mul(q, tn_f32(p->scale)),
                     TN_SHAPE(q->shape[0], hkv, g, q->shape[2], q->shape[3]));
    tn_array *s = attention_mask(n, p, tn_matmul(a.q, tn_swapaxes(a.k, -1, -2)));
    tn_array *top = attention_top(s);
    if (p->has_sinks) {
        const tn_array *given = n->in[p->mask >= TNI_MASK_BOOL ? 4 : 3];
        sink = tn_reshape(attention_f32(n->in[p->mask >= TNI_MASK_BOOL ? 4 : 3]),
                          TN_SHAPE(given->ndim == 2 ? given->shape[0] : 1, hkv, g, 1, 1));
        top = tn_maximum(top, sink);
    }
    top = tn_where(tn_isneginf(top), tn_f32(0), top); /* a row that may look nowhere */
    tn_array *e = tn_exp(tn_sub(s, top)), *sum = tn_sum(e, TN_AXES(-1), true);
    if (sink) sink = tn_exp(tn_sub(sink, top)), sum = tn_add(sum, sink);
    sum = tn_where(tn_equal(sum, tn_f32(0)), tn_f32(1), sum);
    a.p = tn_div(e, sum);
    if (sink) a.sink = tn_div(sink, sum);
    return a;
}

int tni_lower_sdpa(const tni_node *n, tn_array **out) {
    const tn_array *q = n->in[0], *v = n->in[2];
    attention_parts a = attention_lower(n);
    out[0] = tn_reshape(tn_matmul(a.p, a.v),
                        TN_SHAPE(q->shape[0], q->shape[1], q->shape[2], v->shape[3]));
    out[0] = tn_astype(out[0], (tn_dtype)q->dtype);
    return tn_array_status(out[0]);
}

/* ---- the gradient ---- */

TNI_RULE_INFER(sdpa_vjp) {
    const tni_p_sdpa *p = c->params;
    tni_spec y = {0};
    tni_infer_call forward = {c->op, TNI_PRIM(sdpa), p, c->n_in - 1, 1, c->in, &y};
    int status = c->n_in < 4 ? tni_fail(TN_EVALUE, "%s: %d inputs", c->op, c->n_in)
                             : tni_infer_sdpa(&forward);
    if (status) return status;
    const tni_out_spec *g = &c->in[c->n_in - 1], want = {y.dtype, y.ndim, y.shape};
    if (c->n_out != 3 + p->has_sinks) return tni_fail(TN_EVALUE, "%s: %d outputs", c->op, c->n_out);
    if (g->dtype != want.dtype || !tni_infer_same(g, &want))
        return tni_fail(TN_ESHAPE, "%s: the cotangent %s is not as the output %s", c->op,
                        tni_describe_spec(g), tni_describe_spec(&want));
    for (int i = 0; i < 3; i++) tni_infer_out(c, i, c->in[i].dtype, c->in[i].ndim, c->in[i].shape);
    if (p->has_sinks)
        tni_infer_out(c, 3, TN_F32, c->in[c->n_in - 2].ndim, c->in[c->n_in - 2].shape);
    return 0;
}

/* Gradients of a query head are those of its place in [B, Hkv, g, ...]; of a key or value, the sum
 * over the query heads that share it. */
int tni_lower_sdpa_vjp(const tni_node *n, tn_array **out) {
    const tni_p_sdpa *p = n->params;
    attention_parts a = attention_lower(n);
    const tn_array *q = n->in[0], *v = n->in[2];
    tn_array *g = tn_reshape(
        attention_f32(n->in[n->n_in - 1]),
        TN_SHAPE(q->shape[0], v->shape[1], q->shape[1] / v->shape[1], q->shape[2], v->shape[3]));
    tn_array *dp = tn_matmul(g, tn_swapaxes(a.v, -1, -2));
    tn_array *delta = tn_sum(tn_mul(a.p, dp), TN_AXES(-1), true);
    tn_array *ds = tn_mul(a.p, tn_sub(dp, delta));
    out[0] = tn_reshape(tn_mul(tn_matmul(ds, a.k), tn_f32(p->scale)), tn_shape(q));
    out[1] = tn_sum(tn_matmul(tn_swapaxes(ds, -1, -2), a.q), TN_AXES(2), false);
    out[2] = tn_sum(tn_matmul(tn_swapaxes(a.p, -1, -2), g), TN_AXES(2), false);
    for (int i = 0; i < 3; i++) out[i] = tn_astype(out[i], (tn_dtype)n->in[i]->dtype);
    if (p->has_sinks) {
        const tn_array *sinks = n->in[n->n_in - 2];
        tn_array *each = tn_sum(tn_mul(a.sink, delta), TN_AXES(3, 4), false);
        if (sinks->ndim == 1) each = tn_sum(each, TN_AXES(0), false);
        out[3] = tn_astype(tn_reshape(tn_neg(each), (tn_ints){sinks->shape, sinks->ndim}), TN_F32);
    }
    for (int i = 0; i < n->n_out; i++)
        if (tni_is_error(out[i])) return out[i]->status;
    return 0;
}

int tni_sdpa_vjp_node(int n_in, tn_array *const *in, const tni_p_sdpa *p, tn_array **out) {
    tni_out_spec from[TNI_SDPA_VJP_IN], made[4];
    tni_spec spec[4] = {{0}};
    int n_out = 3 + p->has_sinks;
    for (int i = 0; i < n_in; i++) {
        if (tni_is_error(in[i])) return in[i]->status;
        from[i] = tni_spec_of(in[i]);
    }
    tni_infer_call c = {"sdpa_vjp", TNI_PRIM(sdpa_vjp), p, n_in, n_out, from, spec};
    int status = tni_infer(&c);
    for (int i = 0; i < n_out; i++)
        made[i] = (tni_out_spec){spec[i].dtype, spec[i].ndim, spec[i].shape};
    if (!status) status = tni_node_new(TNI_PRIM(sdpa_vjp), n_in, in, p, n_out, made, out);
    for (int i = 0; i < n_out && !status; i++) out[i] = tni_scope_own(out[i]);
    return status;
}

/* Through the kernel, in memory linear in the lengths; but a mask that wants a gradient is as large
 * as the scores. */
TNI_RULE_VJP(sdpa) {
    const tni_p_sdpa *p = n->params;
    tn_array *in[TNI_SDPA_VJP_IN], *out[4];
    int sinks = n->n_in - 1;
    if (p->mask == TNI_MASK_ADD && want[3]) return TNI_BY_LOWER;
    for (int i = 0; i < n->n_in; i++) in[i] = n->in[i];
    in[n->n_in] = cot[0];
    int status = tni_sdpa_vjp_node(n->n_in + 1, in, p, out);
    if (status) return status;
    for (int i = 0; i < 3; i++)
        if (want[i]) grad[i] = out[i];
    if (p->has_sinks && want[sinks]) grad[sinks] = out[3];
    return 0;
}
