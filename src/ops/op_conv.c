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

/* Input and weight fit each other, and the number of axes the function has. */
static int conv_check(const char *op, const tn_array *x, const tn_array *w, int nd, int groups) {
    int n = nd ? nd : x->ndim - 2;
    if (x->ndim != n + 2 || w->ndim != n + 2 || n < 1 || n > 3)
        return tni_fail(TN_ESHAPE, "%s: input %s and weight %s must have %s axes", op,
                        tni_describe(x), tni_describe(w),
                        nd == 1   ? "3"
                        : nd == 2 ? "4"
                        : nd == 3 ? "5"
                                  : "3, 4 or 5");
    if (!tni_is_float((tn_dtype)x->dtype) || !tni_is_float((tn_dtype)w->dtype))
        return tni_fail(TN_EDTYPE, "%s: needs floats, not %s and %s", op, tni_describe(x),
                        tni_describe(w));
    if (groups < 1 || w->shape[0] % groups || x->shape[n + 1] % groups ||
        x->shape[n + 1] / groups != w->shape[n + 1])
        return tni_fail(TN_ESHAPE,
                        "%s: weight %s does not fit the channels of %s in %d groups (weight: [out, "
                        "..., in / groups])",
                        op, tni_describe(w), tni_describe(x), groups);
    return 0;
}

/* Places of an output along an axis; negative when the kernel does not fit. */
static int64_t conv_out(int64_t in, int64_t k, const tni_p_conv *p, int d) {
    int64_t wide = in ? (in - 1) * p->input_dilation[d] + 1 : 0, tap = (k - 1) * p->dilation[d] + 1;
    int64_t room = wide + p->low[d] + p->high[d] - tap;
    return room < 0 ? -1 : room / p->stride[d] + 1;
}

tn_array *tni_conv_node(const char *op, tn_array *x, tn_array *w, const tni_p_conv *p) {
    int64_t shape[5], size;
    int nd = p->nd;
    shape[0] = x->shape[0], shape[nd + 1] = w->shape[0];
    for (int d = 0; d < nd; d++) {
        if (x->shape[d + 1] > CONV_MOST || w->shape[d + 1] > CONV_MOST || w->shape[d + 1] < 1)
            return tni_error_array(TN_ESHAPE, "%s: axis %d of %s or %s is empty or too large", op,
                                   d + 1, tni_describe(x), tni_describe(w));
        shape[d + 1] = conv_out(x->shape[d + 1], w->shape[d + 1], p, d);
        if (shape[d + 1] < 0)
            return tni_error_array(TN_ESHAPE,
                                   "%s: weight %s is wider than axis %d of the padded input %s", op,
                                   tni_describe(w), d + 1, tni_describe(x));
    }
    if (!tni_shape_size(nd + 2, shape, &size))
        return tni_error_array(TN_ESHAPE, "%s: the result is too large", op);
    tn_dtype d = tni_result_type(2, (tn_array *[]){x, w});
    tn_array *in[2] = {tni_cast(x, d), tni_cast(w, d)};
    if (tni_is_error(in[0])) return in[0];
    if (tni_is_error(in[1])) return in[1];
    return tni_op1(TNI_PRIM(conv), 2, in, p, d, nd + 2, shape);
}

tn_array *tni_conv_weight_node(tn_array *x, tn_array *d, const tni_p_conv *p, const tn_array *w) {
    tn_array *in[2] = {tni_cast(x, (tn_dtype)w->dtype), tni_cast(d, (tn_dtype)w->dtype)};
    if (tni_is_error(in[0])) return in[0];
    if (tni_is_error(in[1])) return in[1];
    return tni_op1(TNI_PRIM(conv_weight), 2, in, p, (tn_dtype)w->dtype, w->ndim, w->shape);
}

static tn_array *conv(const char *op, int nd, tn_array *x, tn_array *w, const tn_conv_opt *opt) {
    TNI_INPUTS(op, x, w);
    tni_p_conv p;
    if (conv_check(op, x, w, nd, opt && opt->groups ? opt->groups : 1) ||
        conv_settings(op, opt, x->ndim - 2, &p))
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
    if (conv_check(op, x, w, nd, opt && opt->groups ? opt->groups : 1) ||
        conv_settings(op, opt, nd, &p))
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
