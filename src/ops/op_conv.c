/* Convolutions: one primitive, of which 1-, 2- and 3-dimensional, general and transposed ones are
 * settings. Layout as in MLX: input [N, ..., C], weight [O, ..., C / groups], channels last. */
#include "base/err.h"
#include "ops/build.h"
#include "ops/conv.h"
#include <string.h>

enum { CONV_MOST = 1 << 30 }; /* sizes and settings stay far from what 64 bits hold */

/* One entry for all axes or one for each; `none` when not given. */
static int conv_setting(const char *op, const char *what, tn_spatial v, int nd, int64_t none,
                        int64_t least, int32_t *out) {
    if (v.n != 0 && v.n != 1 && v.n != nd)
        return tni_fail(TN_ESHAPE, "%s: %d numbers of %s for %d axes", op, v.n, what, nd);
    for (int d = 0; d < nd; d++) {
        int64_t x = v.n == 0 ? none : v.n == 1 ? v.v[0] : v.v[d];
        if (x < least || x > CONV_MOST)
            return tni_fail(TN_EVALUE, "%s: %s of %lld", op, what, (long long)x);
        out[d] = (int32_t)x;
    }
    return 0;
}

static int conv_settings(const char *op, const tn_conv_opt *o, int nd, tni_p_conv *p) {
    memset(p, 0, sizeof *p);
    p->nd = nd, p->groups = o && o->groups ? o->groups : 1, p->flip = o && o->flip;
    for (int d = 0; d < 3; d++) p->stride[d] = p->dilation[d] = p->input_dilation[d] = 1;
    if (p->groups < 1) return tni_fail(TN_EVALUE, "%s: %d groups", op, p->groups);
    if (!o) return 0;
    int32_t most = CONV_MOST;
    if (conv_setting(op, "stride", o->stride, nd, 1, 1, p->stride) ||
        conv_setting(op, "padding", o->padding, nd, 0, -most, p->low) ||
        conv_setting(op, "padding", o->padding_high.n ? o->padding_high : o->padding, nd, 0, -most,
                     p->high) ||
        conv_setting(op, "dilation", o->dilation, nd, 1, 1, p->dilation) ||
        conv_setting(op, "input dilation", o->input_dilation, nd, 1, 1, p->input_dilation))
        return TN_EVALUE;
    return 0;
}

static const char *conv_axes(int nd) {
    return nd == 1 ? "3" : nd == 2 ? "4" : nd == 3 ? "5" : "3, 4 or 5";
}

/* Input and weight fit each other, and the number of axes the function has (0: any). */
static int conv_check(const char *op, const tni_out_spec *x, const tni_out_spec *w, int nd,
                      int groups) {
    int n = nd ? nd : x->ndim - 2;
    if (x->ndim != n + 2 || w->ndim != n + 2 || n < 1 || n > 3)
        return tni_fail(TN_ESHAPE, "%s: input %s and weight %s must have %s axes", op,
                        tni_describe_spec(x), tni_describe_spec(w), conv_axes(nd));
    if (!tni_is_float(x->dtype) || !tni_is_float(w->dtype))
        return tni_fail(TN_EDTYPE, "%s: needs floats, not %s and %s", op, tni_describe_spec(x),
                        tni_describe_spec(w));
    if (groups < 1 || w->shape[0] % groups || x->shape[n + 1] % groups ||
        x->shape[n + 1] / groups != w->shape[n + 1])
        return tni_fail(TN_ESHAPE,
                        "%s: weight %s does not fit the channels of %s in %d groups (weight: [out, "
                        "..., in / groups])",
                        op, tni_describe_spec(w), tni_describe_spec(x), groups);
    return 0;
}

/* Places of an output along an axis; negative when the kernel does not fit. */
static int64_t conv_out(int64_t in, int64_t k, const tni_p_conv *p, int d) {
    int64_t wide = in ? (in - 1) * p->input_dilation[d] + 1 : 0, tap = (k - 1) * p->dilation[d] + 1;
    int64_t room = wide + p->low[d] + p->high[d] - tap;
    return room < 0 ? -1 : room / p->stride[d] + 1;
}

static bool conv_within(int32_t x, int32_t least) { return x >= least && x <= CONV_MOST; }

/* Settings of a node's axes are in range. */
static int conv_infer_settings(const tni_infer_call *c, const tni_p_conv *p) {
    bool good = p->nd >= 1 && p->nd <= 3 && p->groups >= 1 && tni_infer_flag(p->flip);
    for (int d = 0; good && d < p->nd; d++)
        good = conv_within(p->stride[d], 1) && conv_within(p->dilation[d], 1) &&
               conv_within(p->input_dilation[d], 1) && conv_within(p->low[d], -CONV_MOST) &&
               conv_within(p->high[d], -CONV_MOST);
    return good ? 0 : tni_fail(TN_EVALUE, "%s: settings out of range", c->op);
}

/* Sizes of the places of the output for x and taps w; 0 or a status. */
static int conv_places(const tni_infer_call *c, const tni_out_spec *x, const tni_out_spec *w,
                       int64_t *places) {
    const tni_p_conv *p = c->params;
    for (int d = 0; d < p->nd; d++) {
        if (x->shape[d + 1] > CONV_MOST || w->shape[d + 1] > CONV_MOST || w->shape[d + 1] < 1)
            return tni_fail(TN_ESHAPE, "%s: axis %d of %s or %s is empty or too large", c->op,
                            d + 1, tni_describe_spec(x), tni_describe_spec(w));
        places[d] = conv_out(x->shape[d + 1], w->shape[d + 1], p, d);
        if (places[d] < 0)
            return tni_fail(TN_ESHAPE, "%s: weight %s is wider than axis %d of the padded input %s",
                            c->op, tni_describe_spec(w), d + 1, tni_describe_spec(x));
    }
    return 0;
}

TNI_RULE_INFER(conv) {
    const tni_p_conv *p = c->params;
    int64_t shape[5], size;
    if (tni_infer_arity(c, 2, 2)) return TN_EVALUE;
    const tni_out_spec *x = &c->in[0], *w = &c->in[1];
    int status = conv_infer_settings(c, p);
    if (!status) status = conv_check(c->op, x, w, p->nd, p->groups);
    if (!status && x->dtype != w->dtype)
        status =
            tni_fail(TN_EDTYPE, "%s: %s by %s", c->op, tni_describe_spec(x), tni_describe_spec(w));
    if (!status) status = conv_places(c, x, w, shape + 1);
    if (status) return status;
    shape[0] = x->shape[0], shape[p->nd + 1] = w->shape[0];
    if (!tni_shape_size(p->nd + 2, shape, &size))
        return tni_fail(TN_ESHAPE, "%s: the result is too large", c->op);
    tni_infer_out(c, 0, x->dtype, p->nd + 2, shape);
    return 0;
}

/* The weight's sizes are free as far as they give the places that the cotangent has. */
TNI_RULE_INFER(conv_weight) {
    const tni_p_conv *p = c->params;
    int64_t places[3];
    if (tni_infer_arity(c, 2, 2)) return TN_EVALUE;
    const tni_out_spec *x = &c->in[0], *d = &c->in[1];
    const tni_out_spec w = {x->dtype, c->out[0].ndim, c->out[0].shape};
    int status = conv_infer_settings(c, p), last = p->nd + 1;
    if (!status) status = conv_check(c->op, x, &w, p->nd, p->groups);
    if (!status) status = conv_places(c, x, &w, places);
    if (status) return status;
    bool fit = d->dtype == x->dtype && d->ndim == x->ndim && d->shape[0] == x->shape[0] &&
               d->shape[last] == w.shape[0];
    for (int i = 0; i < p->nd && fit; i++) fit = d->shape[i + 1] == places[i];
    c->out[0].dtype = x->dtype;
    if (fit) return 0;
    return tni_fail(TN_ESHAPE, "%s: cotangent %s does not fit input %s and weight %s", c->op,
                    tni_describe_spec(d), tni_describe_spec(x), tni_describe_spec(&w));
}

tn_array *tni_conv_node(const char *op, tn_array *x, tn_array *w, const tni_p_conv *p) {
    tn_dtype d = tni_result_type(2, (tn_array *[]){x, w});
    tn_array *in[2] = {tni_cast(x, d), tni_cast(w, d)};
    return tni_op_rule(op, TNI_PRIM(conv), 2, in, p, NULL);
}

tn_array *tni_conv_weight_node(tn_array *x, tn_array *d, const tni_p_conv *p, const tn_array *w) {
    tn_array *in[2] = {tni_cast(x, (tn_dtype)w->dtype), tni_cast(d, (tn_dtype)w->dtype)};
    tni_spec want = {.dtype = (tn_dtype)w->dtype, .ndim = w->ndim};
    memcpy(want.shape, w->shape, sizeof want.shape[0] * w->ndim);
    return tni_op_rule("conv_weight", TNI_PRIM(conv_weight), 2, in, p, &want);
}

/* What the caller gave, before it is turned into a node's settings. */
static int conv_check_arrays(const char *op, const tn_array *x, const tn_array *w, int nd,
                             const tn_conv_opt *opt) {
    tni_out_spec a = tni_spec_of(x), b = tni_spec_of(w);
    return conv_check(op, &a, &b, nd, opt && opt->groups ? opt->groups : 1);
}

static tn_array *conv(const char *op, int nd, tn_array *x, tn_array *w, const tn_conv_opt *opt) {
    TNI_INPUTS(op, x, w);
    tni_p_conv p;
    if (conv_check_arrays(op, x, w, nd, opt) || conv_settings(op, opt, x->ndim - 2, &p))
        return tni_error_last();
    if (opt && opt->output_padding.n)
        return tni_error_array(TN_EVALUE, "%s: output_padding is for transposed convolutions", op);
    return tni_conv_node(op, x, w, &p);
}

tn_array *tn_conv1d(tn_array *x, tn_array *weight, const tn_conv_opt *opt) {
    return conv("conv1d", 1, x, weight, opt);
}
tn_array *tn_conv2d(tn_array *x, tn_array *weight, const tn_conv_opt *opt) {
    return conv("conv2d", 2, x, weight, opt);
}
tn_array *tn_conv3d(tn_array *x, tn_array *weight, const tn_conv_opt *opt) {
    return conv("conv3d", 3, x, weight, opt);
}
tn_array *tn_conv_general(tn_array *x, tn_array *weight, const tn_conv_opt *opt) {
    return conv("conv_general", 0, x, weight, opt);
}

/* ---- transposed ----
 * The gradient of a convolution for its input: the input spread by the stride, the kernel turned
 * around, and the padding that is left of a full one. */

static tn_array *conv_transpose(const char *op, int nd, tn_array *x, tn_array *w,
                                const tn_conv_opt *opt) {
    TNI_INPUTS(op, x, w);
    tni_p_conv p;
    int32_t more[3] = {0};
    if (conv_check_arrays(op, x, w, nd, opt) || conv_settings(op, opt, nd, &p))
        return tni_error_last();
    if (opt && (opt->input_dilation.n || opt->padding_high.n || opt->flip))
        return tni_error_array(
            TN_EVALUE, "%s: padding_high, input_dilation and flip are for conv_general", op);
    if (opt && conv_setting(op, "output padding", opt->output_padding, nd, 0, 0, more))
        return tni_error_last();
    for (int d = 0; d < nd; d++) {
        int64_t full = (w->shape[d + 1] - 1) * p.dilation[d];
        int64_t low = full - p.low[d], high = low + more[d];
        if (w->shape[d + 1] > CONV_MOST || low < -CONV_MOST || high > CONV_MOST)
            return tni_error_array(TN_ESHAPE, "%s: axis %d of weight %s is too large", op, d + 1,
                                   tni_describe(w));
        p.low[d] = (int32_t)low, p.high[d] = (int32_t)high;
        p.input_dilation[d] = p.stride[d], p.stride[d] = 1;
    }
    p.flip = 1;
    return tni_conv_node(op, x, w, &p);
}

tn_array *tn_conv_transpose1d(tn_array *x, tn_array *weight, const tn_conv_opt *opt) {
    return conv_transpose("conv_transpose1d", 1, x, weight, opt);
}
tn_array *tn_conv_transpose2d(tn_array *x, tn_array *weight, const tn_conv_opt *opt) {
    return conv_transpose("conv_transpose2d", 2, x, weight, opt);
}
tn_array *tn_conv_transpose3d(tn_array *x, tn_array *weight, const tn_conv_opt *opt) {
    return conv_transpose("conv_transpose3d", 3, x, weight, opt);
}
