/* Losses. Each is a short graph that fuses into the passes its reductions need. */
#include "base/err.h"
#include "nn/layer.h"
#include <math.h>
#include <stdint.h>
#include <stdio.h>

/* ---- checks and words ---- */

static tn_array *losses_reduce(const char *op, tn_array *loss, tn_nn_reduction r) {
    switch (r) {
    case TN_NN_NONE:
        return loss;
    case TN_NN_MEAN:
        return tn_mean(loss, TN_ALL, false);
    case TN_NN_SUM:
        return tn_sum(loss, TN_ALL, false);
    default:
        return tn_error_array(TN_EVALUE, "%s: no reduction %d", op, (int)r);
    }
}

static void losses_shape_text(const tn_array *a, char *text, size_t n) {
    size_t at = 0;
    for (int d = 0; d < tn_ndim(a) && at < n; d++)
        at += (size_t)snprintf(text + at, n - at, "%s%lld", d ? ", " : "", (long long)tn_dim(a, d));
    if (!tn_ndim(a)) text[0] = 0;
}

static bool losses_same_shape(const tn_array *a, const tn_array *b) {
    bool same = tn_ndim(a) == tn_ndim(b);
    for (int d = 0; same && d < tn_ndim(a); d++) same = tn_dim(a, d) == tn_dim(b, d);
    return same;
}

/* NULL, or the error array to return: one of the arguments, or that their shapes differ. */
static tn_array *losses_differ(const char *op, const char *what, tn_array *a, tn_array *b) {
    char one[256], other[256];
    if (tn_array_status(a)) return a;
    if (tn_array_status(b)) return b;
    if (losses_same_shape(a, b)) return NULL;
    losses_shape_text(a, one, sizeof one);
    losses_shape_text(b, other, sizeof other);
    return tn_error_array(TN_ESHAPE, "%s: [%s] and %s [%s] must have the same shape", op, one, what,
                          other);
}

static tn_array *losses_scale(double x, tn_array *a) { return tn_mul(tn_f32(x), a); }

/* f16 and bf16 to f32: sums of logits lose too much in them. */
static bool losses_is_half(const tn_array *a) {
    return tn_dtype_of(a) == TN_F16 || tn_dtype_of(a) == TN_BF16;
}

static tn_array *losses_wide(tn_array *a) { return losses_is_half(a) ? tn_astype(a, TN_F32) : a; }

/* ---- the number at the target ---- */

/* x [..., C], i [...] to x[..., i]. Backwards it is added, in place, to the rest of the gradient.
 */
static tn_array *losses_pick(tn_array *x, tn_array *i) {
    tn_array *at = tn_expand_dims(i, TN_AXES(-1));
    return tn_squeeze(tn_take_along_axis(x, at, -1), TN_AXES(-1));
}

/* x with the axis last; an error array when there is none. */
static tn_array *losses_last(const char *op, tn_array *x, int axis) {
    int nd = tn_ndim(x);
    if (tn_array_status(x)) return x;
    if (axis < -nd || axis >= nd)
        return tn_error_array(TN_EAXIS, "%s: axis %d of an array with %d axes", op, axis, nd);
    return axis == -1 || axis == nd - 1 ? x : tn_moveaxis(x, axis, -1);
}

static int losses_axis(tn_ints axis, int standard) {
    return axis.n == 1 ? (int)axis.v[0] : standard;
}

/* ---- cross entropy ---- */

/* Targets fit the logits [..., C]: NULL, or what to return. */
static tn_array *losses_targets(const char *op, tn_array *x, tn_array *t) {
    char one[256], other[256];
    if (tn_array_status(x)) return x;
    if (tn_array_status(t)) return t;
    bool fits = tn_ndim(t) == tn_ndim(x) - 1;
    for (int d = 0; fits && d < tn_ndim(t); d++) fits = tn_dim(t, d) == tn_dim(x, d);
    if (fits) return NULL;
    losses_shape_text(x, one, sizeof one);
    losses_shape_text(t, other, sizeof other);
    return tn_error_array(TN_ESHAPE,
                          "%s: targets [%s] do not fit inputs [%s] (classes last): they have its "
                          "shape without the classes, or all of it for probabilities",
                          op, other, one);
}

/* Of f16 or bf16 logits and class numbers: logsumexp and the logit at the target, in f32. */
static int losses_half_forward(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_logsumexp(tn_astype(in.v[0], TN_F32), TN_AXES(-1), false);
    out[1] = tn_astype(losses_pick(in.v[0], in.v[1]), TN_F32);
    return 0;
}

/* One pass, which converts the logits anew: converted once for both ways they would be kept, at
 * twice their size, and a scatter into them would sum in f32 as well. */
static int losses_half_back(tn_list in, tn_list out, tn_list cot, tn_array **grads, void *ud) {
    (void)ud;
    tn_array *x = in.v[0], *last[4] = {out.v[0], cot.v[0], cot.v[1], tn_astype(in.v[1], TN_I32)};
    for (int k = 0; k < 4; k++) last[k] = tn_expand_dims(last[k], TN_AXES(-1));
    int64_t n = tn_dim(x, -1);
    tn_array *i = tn_where(tn_less(last[3], tn_i32(0)), tn_add(last[3], tn_i32(n)), last[3]);
    tn_array *here = tn_equal(tn_arange(0, (double)n, 1, TN_I32), i);
    tn_array *g = tn_mul(tn_exp(tn_sub(tn_astype(x, TN_F32), last[0])), last[1]);
    g = tn_add(g, tn_where(here, last[2], tn_scalar(0, TN_F32)));
    grads[0] = tn_astype(g, tn_dtype_of(x));
    return 0;
}

/* all: logsumexp of x; score: the target's part of it. */
static void losses_parts(tn_array *x, tn_array *t, bool probable, tn_array **all,
                         tn_array **score) {
    tn_array *out[2];
    if (!probable && losses_is_half(x)) {
        (void)tn_custom_vjp(losses_half_forward, losses_half_back, NULL, TN_LIST(x, t), 2, out);
        *all = out[0], *score = out[1];
        return;
    }
    *all = tn_logsumexp(x, TN_AXES(-1), false);
    *score = probable ? tn_sum(tn_mul(x, t), TN_AXES(-1), false) : losses_pick(x, t);
}

static tn_array *losses_cross_entropy(tn_array *x, tn_array *t, double smooth, bool probable) {
    tn_array *all, *score;
    if (probable) {
        x = losses_wide(x);
        x = tn_sub(x, tn_stop_gradient(tn_max(x, TN_AXES(-1), true)));
    }
    losses_parts(x, t, probable, &all, &score);
    if (smooth == 0) return tn_sub(all, score);
    tn_array *mean = tn_mean(losses_wide(x), TN_AXES(-1), false);
    return tn_sub(tn_sub(all, losses_scale(1 - smooth, score)), losses_scale(smooth, mean));
}

tn_array *tn_nn_cross_entropy(tn_array *logits, tn_array *targets, tn_nn_reduction reduction,
                              const tn_nn_cross_entropy_opt *opt) {
    const char *op = "cross_entropy";
    tn_nn_cross_entropy_opt o;
    TNI_OPTIONS(o, opt);
    if (!(o.label_smoothing >= 0 && o.label_smoothing < 1))
        return tn_error_array(TN_EVALUE, "%s: label_smoothing of %g; it must be in [0, 1)", op,
                              o.label_smoothing);
    int axis = losses_axis(o.axis, -1);
    bool probable = tn_ndim(targets) == tn_ndim(logits);
    tn_array *x = losses_last(op, logits, axis);
    tn_array *t = probable ? losses_last(op, targets, axis) : targets;
    tn_array *bad = probable ? losses_differ(op, "targets", x, t) : losses_targets(op, x, t);
    if (bad) return bad;
    tn_array *loss = losses_cross_entropy(x, t, o.label_smoothing, probable);
    if (o.weights) {
        bad = losses_differ(op, "weights", loss, o.weights);
        if (bad) return bad;
        loss = tn_mul(loss, o.weights);
    }
    loss = losses_reduce(op, loss, reduction);
    return losses_is_half(x) ? tn_astype(loss, tn_dtype_of(x)) : loss;
}

tn_array *tn_nn_nll_loss(tn_array *inputs, tn_array *targets, int axis, tn_nn_reduction reduction) {
    tn_array *x = losses_last("nll_loss", inputs, axis);
    tn_array *bad = losses_targets("nll_loss", x, targets);
    if (bad) return bad;
    return losses_reduce("nll_loss", tn_neg(losses_pick(x, targets)), reduction);
}

tn_array *tn_nn_binary_cross_entropy(tn_array *inputs, tn_array *targets, tn_array *weights,
                                     bool with_logits, tn_nn_reduction reduction) {
    const char *op = "binary_cross_entropy";
    tn_array *bad = losses_differ(op, "targets", inputs, targets), *loss;
    if (!bad && weights) bad = losses_differ(op, "weights", inputs, weights);
    if (bad) return bad;
    if (with_logits) {
        loss = tn_sub(tn_logaddexp(tn_f32(0), inputs), tn_mul(inputs, targets));
    } else {
        tn_array *yes = tn_maximum(tn_log(inputs), tn_f32(-100));
        tn_array *no = tn_maximum(tn_log(tn_sub(tn_f32(1), inputs)), tn_f32(-100));
        loss = tn_neg(tn_add(tn_mul(targets, yes), tn_mul(tn_sub(tn_f32(1), targets), no)));
    }
    return losses_reduce(op, weights ? tn_mul(loss, weights) : loss, reduction);
}

tn_array *tn_nn_kl_div_loss(tn_array *inputs, tn_array *targets, int axis,
                            tn_nn_reduction reduction) {
    tn_array *each = tn_mul(tn_exp(targets), tn_sub(targets, inputs));
    return losses_reduce("kl_div_loss", tn_sum(each, TN_AXES(axis), false), reduction);
}

/* ---- distances ---- */

tn_array *tn_nn_mse_loss(tn_array *x, tn_array *y, tn_nn_reduction reduction) {
    tn_array *bad = losses_differ("mse_loss", "targets", x, y);
    return bad ? bad : losses_reduce("mse_loss", tn_square(tn_sub(x, y)), reduction);
}

tn_array *tn_nn_l1_loss(tn_array *x, tn_array *y, tn_nn_reduction reduction) {
    tn_array *bad = losses_differ("l1_loss", "targets", x, y);
    return bad ? bad : losses_reduce("l1_loss", tn_abs(tn_sub(x, y)), reduction);
}

tn_array *tn_nn_smooth_l1_loss(tn_array *x, tn_array *y, double beta, tn_nn_reduction reduction) {
    const char *op = "smooth_l1_loss";
    tn_array *bad = losses_differ(op, "targets", x, y);
    if (bad) return bad;
    if (!(beta > 0))
        return tn_error_array(TN_EVALUE, "%s: beta of %g; it must be above 0", op, beta);
    tn_array *d = tn_abs(tn_sub(x, y));
    tn_array *near = tn_div(losses_scale(0.5, tn_square(d)), tn_f32(beta));
    tn_array *loss = tn_where(tn_less(d, tn_f32(beta)), near, tn_sub(d, tn_f32(0.5 * beta)));
    return losses_reduce(op, loss, reduction);
}

tn_array *tn_nn_huber_loss(tn_array *x, tn_array *y, double delta, tn_nn_reduction reduction) {
    const char *op = "huber_loss";
    if (!(delta > 0))
        return tn_error_array(TN_EVALUE, "%s: delta of %g; it must be above 0", op, delta);
    tn_array *d = tn_abs(tn_sub(x, y)), *near = tn_minimum(d, tn_f32(delta));
    tn_array *loss =
        tn_add(losses_scale(0.5, tn_square(near)), losses_scale(delta, tn_sub(d, near)));
    return losses_reduce(op, loss, reduction);
}

tn_array *tn_nn_log_cosh_loss(tn_array *x, tn_array *y, tn_nn_reduction reduction) {
    tn_array *d = tn_sub(x, y);
    tn_array *loss = tn_sub(tn_logaddexp(d, tn_neg(d)), tn_f32(M_LN2));
    return losses_reduce("log_cosh_loss", loss, reduction);
}

tn_array *tn_nn_hinge_loss(tn_array *x, tn_array *y, tn_nn_reduction reduction) {
    tn_array *loss = tn_maximum(tn_sub(tn_f32(1), tn_mul(x, y)), tn_f32(0));
    return losses_reduce("hinge_loss", loss, reduction);
}

tn_array *tn_nn_gaussian_nll_loss(tn_array *mean, tn_array *y, tn_array *var, bool full, double eps,
                                  tn_nn_reduction reduction) {
    const char *op = "gaussian_nll_loss";
    tn_array *bad = losses_differ(op, "targets", mean, y);
    if (!bad) bad = losses_differ(op, "variances", mean, var);
    if (bad) return bad;
    tn_array *v = tn_maximum(var, tn_f32(eps));
    tn_array *loss = losses_scale(0.5, tn_add(tn_log(v), tn_div(tn_square(tn_sub(y, mean)), v)));
    if (full) loss = tn_add(loss, tn_f32(0.5 * log(2 * M_PI)));
    return losses_reduce(op, loss, reduction);
}

/* ---- of pairs and triples ---- */

static tn_array *losses_length(tn_array *x, int axis) {
    return tn_sqrt(tn_sum(tn_square(x), TN_AXES(axis), false));
}

tn_array *tn_nn_cosine_similarity_loss(tn_array *x1, tn_array *x2, int axis, double eps,
                                       tn_nn_reduction reduction) {
    tn_array *lengths = tn_mul(losses_length(x1, axis), losses_length(x2, axis));
    tn_array *loss =
        tn_div(tn_sum(tn_mul(x1, x2), TN_AXES(axis), false), tn_maximum(lengths, tn_f32(eps)));
    return losses_reduce("cosine_similarity_loss", loss, reduction);
}

tn_array *tn_nn_margin_ranking_loss(tn_array *x1, tn_array *x2, tn_array *y, double margin,
                                    tn_nn_reduction reduction) {
    const char *op = "margin_ranking_loss";
    tn_array *bad = losses_differ(op, "second inputs", x1, x2);
    if (!bad) bad = losses_differ(op, "targets", x1, y);
    if (bad) return bad;
    tn_array *loss = tn_add(tn_mul(tn_neg(y), tn_sub(x1, x2)), tn_f32(margin));
    return losses_reduce(op, tn_maximum(tn_f32(0), loss), reduction);
}

/* (sum |a - b|^p + eps)^(1/p) */
static tn_array *losses_distance(tn_array *a, tn_array *b, int axis, double p, double eps) {
    tn_array *d = tn_abs(tn_sub(a, b));
    d = p == 2 ? tn_square(d) : p == 1 ? d : tn_power(d, tn_f32(p));
    d = tn_add(tn_sum(d, TN_AXES(axis), false), tn_f32(eps));
    return p == 2 ? tn_sqrt(d) : tn_power(d, tn_f32(1 / p));
}

tn_array *tn_nn_triplet_loss(tn_array *anchors, tn_array *positives, tn_array *negatives,
                             tn_nn_reduction reduction, const tn_nn_triplet_opt *opt) {
    const char *op = "triplet_loss";
    tn_nn_triplet_opt o;
    TNI_OPTIONS(o, opt);
    double p = o.p == 0 ? 2 : o.p, eps = o.eps == 0 ? 1e-6 : o.eps;
    double margin = o.margin == 0 ? 1 : o.margin < 0 ? 0 : o.margin;
    if (!(p > 0))
        return tn_error_array(TN_EVALUE, "%s: a norm of p = %g; it must be above 0", op, p);
    int axis = losses_axis(o.axis, -1);
    tn_array *to = losses_distance(anchors, positives, axis, p, eps);
    tn_array *from = losses_distance(anchors, negatives, axis, p, eps);
    tn_array *loss = tn_maximum(tn_add(tn_sub(to, from), tn_f32(margin)), tn_f32(0));
    return losses_reduce(op, loss, reduction);
}
