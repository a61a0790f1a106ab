/* Ops with kernels of their own that simpler ops could make: softmax, norms, rope.
 * Each has its meaning below it, as the lowering. */
#include "base/err.h"
#include "ops/build.h"
#include "ops/lower.h"
#include <math.h>
#include <string.h>

static tn_array *fast_f32(tn_array *a) {
    return tn_astype(a, a->dtype == TN_F64 ? TN_F64 : TN_F32);
}
static tn_array *fast_back(tn_array *y, const tni_node *n) {
    return tn_astype(y, (tn_dtype)n->in[0]->dtype);
}
static bool fast_is_real(const tn_array *a) { return tni_is_float((tn_dtype)a->dtype); }

static bool fast_real(const tni_out_spec *a) { return tni_is_float(a->dtype); }

/* ---- softmax ---- */

static tn_array *fast_softmax_axes(tn_array *x, tn_ints axes) {
    tn_array *e = tn_exp(tn_sub(x, tn_max(x, axes, true)));
    return tn_div(e, tn_sum(e, axes, true));
}

TNI_RULE_INFER(softmax) {
    if (tni_infer_arity(c, 1, 1)) return TN_EVALUE;
    if (c->in[0].ndim && fast_real(c->in)) return tni_infer_like(c, 0);
    return tni_fail(TN_EDTYPE, "%s: not defined for %s", c->op, tni_describe_spec(c->in));
}

tn_array *tn_softmax(tn_array *a, tn_ints axes) {
    TNI_INPUTS("softmax", a);
    int64_t mask = tni_axes_mask("softmax", a->ndim, axes);
    if (mask < 0) return tni_error_last();
    if (a->dtype == TN_C64)
        return tni_error_array(TN_EDTYPE, "softmax: not defined for %s", tni_describe(a));
    tn_array *x = tni_cast(a, fast_is_real(a) ? (tn_dtype)a->dtype : TN_F32);
    if (tni_is_error(x) || !mask || !x->size) return x == a ? tni_scope_again(a) : x;
    if (mask == (int64_t)1 << (x->ndim - 1))
        return tni_op1(TNI_PRIM(softmax), 1, &x, NULL, (tn_dtype)x->dtype, x->ndim, x->shape);
    return tn_astype(fast_softmax_axes(fast_f32(x), axes), (tn_dtype)x->dtype);
}

int tni_lower_softmax(const tni_node *n, tn_array **out) {
    out[0] = fast_back(fast_softmax_axes(fast_f32(n->in[0]), TN_AXES(-1)), n);
    return tn_array_status(out[0]);
}

/* ---- norms ---- */

/* A weight or bias of the last axis: [D]. */
static int fast_norm_param(const tni_infer_call *c, const char *what, int i) {
    const tni_out_spec *x = c->in, *w = &c->in[i];
    if (w->ndim == 1 && w->shape[0] == x->shape[x->ndim - 1] && fast_real(w)) return 0;
    return tni_fail(TN_ESHAPE, "%s: %s %s does not fit the last axis of %s", c->op, what,
                    tni_describe_spec(w), tni_describe_spec(x));
}

static int fast_norm_infer(const tni_infer_call *c, int most) {
    const tni_p_norm *p = c->params;
    bool weight = p->has_weight, bias = p->has_bias;
    int n = 1 + weight + bias;
    if (!tni_infer_flag(p->has_weight) || !tni_infer_flag(p->has_bias) || n > most)
        return tni_fail(TN_EVALUE, "%s: parameters out of range", c->op);
    if (tni_infer_arity(c, n, n)) return TN_EVALUE;
    if (!c->in[0].ndim || !fast_real(c->in))
        return tni_fail(TN_EDTYPE, "%s: needs floats of at least one axis, not %s", c->op,
                        tni_describe_spec(c->in));
    int status = weight ? fast_norm_param(c, "weight", 1) : 0;
    if (!status && bias) status = fast_norm_param(c, "bias", n - 1);
    return status ? status : tni_infer_like(c, 0);
}
TNI_RULE_INFER(rms_norm) { return fast_norm_infer(c, 2); }
TNI_RULE_INFER(layer_norm) { return fast_norm_infer(c, 3); }

static tn_array *fast_norm(const char *op, int prim, tn_array *x, tn_array *w, tn_array *b,
                           double eps) {
    TNI_INPUTS(op, x);
    if (w) TNI_INPUTS(op, w);
    if (b) TNI_INPUTS(op, b);
    tni_p_norm p = {.eps = (float)eps, .has_weight = w != NULL, .has_bias = b != NULL};
    tn_array *in[3] = {x};
    int n = 1;
    if (w) in[n++] = w;
    if (b) in[n++] = b;
    return tni_op_rule(op, &tni_prims[prim], n, in, &p, NULL);
}

tn_array *tn_fast_rms_norm(tn_array *x, tn_array *weight, double eps) {
    return fast_norm("rms_norm", TNI_OP_rms_norm, x, weight, NULL, eps);
}

tn_array *tn_fast_layer_norm(tn_array *x, tn_array *weight, tn_array *bias, double eps) {
    return fast_norm("layer_norm", TNI_OP_layer_norm, x, weight, bias, eps);
}

static tn_array *fast_scale_shift(tn_array *y, const tni_node *n) {
    const tni_p_norm *p = n->params;
    if (p->has_weight) y = tn_mul(y, fast_f32(n->in[1]));
    if (p->has_bias) y = tn_add(y, fast_f32(n->in[1 + p->has_weight]));
    return fast_back(y, n);
}

int tni_lower_rms_norm(const tni_node *n, tn_array **out) {
    tn_array *x = fast_f32(n->in[0]), *ms = tn_mean(tn_square(x), TN_AXES(-1), true);
    out[0] = fast_scale_shift(
        tn_mul(x, tn_rsqrt(tn_add(ms, tn_f32(((const tni_p_norm *)n->params)->eps)))), n);
    return tn_array_status(out[0]);
}

int tni_lower_layer_norm(const tni_node *n, tn_array **out) {
    tn_array *x = fast_f32(n->in[0]), *d = tn_sub(x, tn_mean(x, TN_AXES(-1), true));
    tn_array *var = tn_mean(tn_square(d), TN_AXES(-1), true);
    out[0] = fast_scale_shift(
        tn_mul(d, tn_rsqrt(tn_add(var, tn_f32(((const tni_p_norm *)n->params)->eps)))), n);
    return tn_array_status(out[0]);
}

/* ---- rotary embedding ---- */

static int fast_rope_inputs(const tni_infer_call *c, int dims) {
    const tni_out_spec *x = c->in, *offset = &c->in[1], *freqs = c->n_in > 2 ? &c->in[2] : NULL;
    if (offset->dtype != TN_I32 || offset->ndim > 1 ||
        (offset->ndim == 1 && offset->shape[0] != x->shape[0]))
        return tni_fail(TN_ESHAPE,
                        "%s: offset %s must be an integer or one for each of the batch of %s",
                        c->op, tni_describe_spec(offset), tni_describe_spec(x));
    if (freqs && (freqs->ndim != 1 || freqs->shape[0] != dims / 2 || freqs->dtype != TN_F32))
        return tni_fail(TN_ESHAPE, "%s: freqs %s must have %d numbers", c->op,
                        tni_describe_spec(freqs), dims / 2);
    return 0;
}

TNI_RULE_INFER(rope) {
    const tni_p_rope *p = c->params;
    int n = p->has_freqs ? 3 : 2, dims = p->dims;
    if (!tni_infer_flag(p->has_freqs) || !tni_infer_flag(p->traditional))
        return tni_fail(TN_EVALUE, "%s: parameters out of range", c->op);
    if (tni_infer_arity(c, n, n)) return TN_EVALUE;
    const tni_out_spec *x = c->in;
    if (x->ndim < 3 || !fast_real(x))
        return tni_fail(
            TN_ESHAPE,
            "%s: needs floats of at least three axes (batch, ..., positions, features), not %s",
            c->op, tni_describe_spec(x));
    if (dims < 2 || dims % 2 || dims > x->shape[x->ndim - 1])
        return tni_fail(TN_EVALUE, "%s: dims %d must be even, from 2 to the last axis of %s", c->op,
                        dims, tni_describe_spec(x));
    int status = fast_rope_inputs(c, dims);
    return status ? status : tni_infer_like(c, 0);
}

tn_array *tn_fast_rope(tn_array *x, int dims, tn_array *offset, const tn_rope_opt *opt) {
    TNI_INPUTS("rope", x, offset);
    tn_array *freqs = opt ? opt->freqs : NULL;
    if (freqs) TNI_INPUTS("rope", freqs);
    if (!tni_is_int((tn_dtype)offset->dtype) || (freqs && !fast_is_real(freqs)))
        return tni_error_array(TN_EDTYPE, "rope: offset %s must be an integer, freqs %s floats",
                               tni_describe(offset), freqs ? tni_describe(freqs) : "(none)");
    tni_p_rope p = {
        .dims = dims, .traditional = opt && opt->traditional, .has_freqs = freqs != NULL};
    p.base = opt && opt->base != 0 ? (float)opt->base : 10000.0f;
    p.scale = opt && opt->scale != 0 ? (float)opt->scale : 1.0f;
    tn_array *in[3] = {x, tni_cast(offset, TN_I32), freqs ? tni_cast(freqs, TN_F32) : NULL};
    return tni_op_rule("rope", TNI_PRIM(rope), freqs ? 3 : 2, in, &p, NULL);
}

/* Angles of every position, [B or 1, 1..., T, dims/2]. */
static tn_array *fast_rope_angles(const tni_node *n, const tni_p_rope *p) {
    const tn_array *x = n->in[0];
    tn_array *offset = n->in[1];
    int64_t t = x->shape[x->ndim - 2], shape[TN_MAX_NDIM];
    tn_array *freq = p->has_freqs ? tn_reciprocal(n->in[2])
                                  : tn_exp(tn_mul(tn_arange(0, p->dims / 2, 1, TN_F32),
                                                  tn_f32(-log((double)p->base) * 2 / p->dims)));
    for (int i = 0; i < x->ndim; i++) shape[i] = 1;
    if (offset->ndim) shape[0] = offset->shape[0];
    tn_array *start = tn_reshape(tn_astype(offset, TN_F32), (tn_ints){shape, x->ndim});
    tn_array *pos =
        tn_mul(tn_add(start, tn_reshape(tn_arange(0, (double)t, 1, TN_F32), TN_SHAPE(t, 1))),
               tn_f32(p->scale));
    return tn_mul(pos, freq);
}

int tni_lower_rope(const tni_node *n, tn_array **out) {
    const tni_p_rope *p = n->params;
    tn_array *x = fast_f32(n->in[0]), *angle = fast_rope_angles(n, p), *c = tn_cos(angle),
             *s = tn_sin(angle);
    tn_array *turn = tn_slice_axis(x, -1, 0, p->dims), *a, *b, *y;
    int64_t half = p->dims / 2, shape[TN_MAX_NDIM + 1];
    int nd = x->ndim;
    memcpy(shape, turn->shape, sizeof shape[0] * (size_t)nd);
    shape[nd - 1] = half, shape[nd] = 2;
    if (p->traditional && nd < TN_MAX_NDIM) {
        tn_array *pairs = tn_reshape(turn, (tn_ints){shape, nd + 1});
        a = tn_squeeze(tn_slice_axis(pairs, -1, 0, 1), TN_AXES(-1)),
        b = tn_squeeze(tn_slice_axis(pairs, -1, 1, 2), TN_AXES(-1));
    } else {
        a = tn_slice_axis(turn, -1, 0, half), b = tn_slice_axis(turn, -1, half, p->dims);
    }
    tn_array *ra = tn_sub(tn_mul(a, c), tn_mul(b, s)), *rb = tn_add(tn_mul(a, s), tn_mul(b, c));
    y = p->traditional ? tn_reshape(tn_stack(TN_LIST(ra, rb), -1), tn_shape(turn))
                       : tn_concatenate(TN_LIST(ra, rb), -1);
    if (p->dims < x->shape[nd - 1])
        y = tn_concatenate(TN_LIST(y, tn_slice_axis(x, -1, p->dims, INT64_MAX)), -1);
    out[0] = fast_back(y, n);
    return tn_array_status(out[0]);
}
