/* Normalisation layers. Those of the last axis have kernels; the others are means and variances
 * over axes, which fuse: no transposed copy is made. f16 and bf16 are computed in f32. */
#include "base/err.h"
#include "nn/layer.h"
#include "nn/params.h"
#include <math.h>

/* The options of a layer of so many `what`, checked. */
static int norm_options(const char *layer, const char *what, int64_t dims,
                        const tn_nn_norm_opt *opt, tn_nn_norm_opt *o) {
    TNI_OPTIONS(*o, opt);
    if (o->eps == 0) o->eps = 1e-5;
    if (!(o->eps > 0))
        return tni_fail(TN_EVALUE, "%s: eps of %g; it must be above 0", layer, o->eps);
    return tni_layer_size(layer, what, dims);
}

static void norm_add_affine(tni_layer *b, int64_t dims, bool bias, tn_array **w, tn_array **c) {
    tni_layer_add(b, "weight", w, tn_ones(TN_SHAPE(dims), TN_F32));
    if (bias) tni_layer_add(b, "bias", c, tn_zeros(TN_SHAPE(dims), TN_F32));
}

/* ---- layer norm, RMS norm ---- */

int tn_nn_layer_norm_init(tn_nn_layer_norm *l, tn_params *p, const char *name, int64_t dims,
                          const tn_nn_norm_opt *opt) {
    tn_nn_norm_opt o;
    int status = norm_options("layer_norm", "dimensions", dims, opt, &o);
    *l = (tn_nn_layer_norm){.eps = o.eps};
    if (status) return status;
    tni_layer b = tni_layer_begin(p, name, status);
    if (!o.no_affine) norm_add_affine(&b, dims, !o.no_bias, &l->weight, &l->bias);
    return tni_layer_end(&b);
}

tn_array *tn_nn_layer_norm_call(const tn_nn_layer_norm *l, tn_array *x) {
    return tn_fast_layer_norm(x, l->weight, l->bias, l->eps);
}

int tn_nn_rms_norm_init(tn_nn_rms_norm *l, tn_params *p, const char *name, int64_t dims,
                        const tn_nn_norm_opt *opt) {
    tn_nn_norm_opt o;
    int status = norm_options("rms_norm", "dimensions", dims, opt, &o);
    *l = (tn_nn_rms_norm){.eps = o.eps};
    if (status) return status;
    tni_layer b = tni_layer_begin(p, name, status);
    tni_layer_add(&b, "weight", &l->weight, tn_ones(TN_SHAPE(dims), TN_F32));
    return tni_layer_end(&b);
}

tn_array *tn_nn_rms_norm_call(const tn_nn_rms_norm *l, tn_array *x) {
    return tn_fast_rms_norm(x, l->weight, l->eps);
}

/* ---- over other axes ---- */

static bool norm_is_half(tn_array *x) {
    return tn_dtype_of(x) == TN_F16 || tn_dtype_of(x) == TN_BF16;
}

static tn_array *norm_wide(tn_array *x) { return norm_is_half(x) ? tn_astype(x, TN_F32) : x; }

static tn_array *norm_scale(tn_array *x, tn_array *mean, tn_array *var, double eps) {
    return tn_mul(tn_sub(x, mean), tn_rsqrt(tn_add(var, tn_f32(eps))));
}

static tn_array *norm_affine(tn_array *x, tn_array *weight, tn_array *bias) {
    if (weight) x = tn_mul(weight, x);
    return bias ? tn_add(x, bias) : x;
}

/* By the mean and variance over these axes, in x's dtype. */
static tn_array *norm_over(tn_array *x, tn_ints axes, double eps) {
    tn_array *wide = norm_wide(x);
    tn_array *y = norm_scale(wide, tn_mean(wide, axes, true), tn_var(wide, axes, true, 0), eps);
    return tn_astype(y, tn_dtype_of(x));
}

/* x has `least` axes and `dims` channels: NULL, or what to return. */
static tn_array *norm_check(const char *op, tn_array *x, int least, int64_t dims) {
    if (tn_array_status(x)) return x;
    if (tn_ndim(x) < least)
        return tn_error_array(TN_ESHAPE, "%s: x has %d axes; %d at least", op, tn_ndim(x), least);
    if (!tni_layer_is_float(tn_dtype_of(x)))
        return tn_error_array(TN_EDTYPE, "%s: needs floats, not %s", op,
                              tn_dtype_name(tn_dtype_of(x)));
    if (dims && tn_dim(x, -1) != dims)
        return tn_error_array(TN_ESHAPE, "%s: x has %lld channels (the last axis), not %lld", op,
                              (long long)tn_dim(x, -1), (long long)dims);
    return NULL;
}

/* Axes from..to, both included. */
static tn_ints norm_axes(int64_t *v, int from, int to) {
    int n = 0;
    for (int d = from; d <= to; d++) v[n++] = d;
    return (tn_ints){v, n};
}

/* ---- batch norm ---- */

static void norm_add_fixed(tni_layer *b, const char *name, tn_array **slot, tn_array *init) {
    tni_layer_add(b, name, slot, init);
    if (!b->status) tni_params_fix(b->p);
}

int tn_nn_batch_norm_init(tn_nn_batch_norm *l, tn_params *p, const char *name, int64_t dims,
                          const tn_nn_norm_opt *opt) {
    tn_nn_norm_opt o;
    int status = norm_options("batch_norm", "channels", dims, opt, &o);
    *l = (tn_nn_batch_norm){.eps = o.eps,
                            .momentum = o.momentum == 0  ? 0.1
                                        : o.momentum < 0 ? 0
                                                         : o.momentum};
    if (!status && !(l->momentum <= 1))
        status = tni_fail(TN_EVALUE, "batch_norm: momentum of %g; 1 at most", l->momentum);
    if (status) return status;
    tni_layer b = tni_layer_begin(p, name, status);
    if (!o.no_affine) norm_add_affine(&b, dims, !o.no_bias, &l->weight, &l->bias);
    if (!o.no_running) {
        norm_add_fixed(&b, "running_mean", &l->running_mean, tn_zeros(TN_SHAPE(dims), TN_F32));
        norm_add_fixed(&b, "running_var", &l->running_var, tn_ones(TN_SHAPE(dims), TN_F32));
    }
    return tni_layer_end(&b);
}

/* (1 - momentum) slot + momentum x */
static int norm_move(tn_array **slot, double momentum, tn_array *x) {
    tn_array *kept = tn_mul(tn_f32(1 - momentum), *slot);
    tn_array *next = tn_add(kept, tn_mul(tn_f32(momentum), x));
    return tn_assign(slot, tn_astype(next, tn_dtype_of(*slot)));
}

/* The variance that runs is that of n - 1; derivatives do not pass through what runs. */
static int norm_run(tn_nn_batch_norm *l, tn_array *mean, tn_array *var, int64_t n) {
    double unbiased = (double)n / (double)(n - 1);
    mean = tn_stop_gradient(mean), var = tn_stop_gradient(var);
    int status = norm_move(&l->running_mean, l->momentum, mean);
    return status ? status : norm_move(&l->running_var, l->momentum, tn_mul(var, tn_f32(unbiased)));
}

tn_array *tn_nn_batch_norm_call(tn_nn_batch_norm *l, tn_array *x, bool training) {
    tn_array *known = l->running_mean ? l->running_mean : l->weight;
    tn_array *bad = norm_check("batch_norm", x, 2, known ? tn_dim(known, 0) : 0);
    if (bad) return bad;
    int64_t axes[TN_MAX_NDIM], n = tn_dim(x, -1) ? tn_size(x) / tn_dim(x, -1) : 0;
    if (training && n < 2)
        return tn_error_array(TN_EVALUE,
                              "batch_norm: training needs two numbers a channel at least, not %lld",
                              (long long)n);
    tn_array *mean = l->running_mean, *var = l->running_var, *wide = norm_wide(x);
    if (training || !mean) {
        tn_ints all = norm_axes(axes, 0, tn_ndim(x) - 2);
        mean = tn_mean(wide, all, false), var = tn_var(wide, all, false, 0);
        int status = l->running_mean ? norm_run(l, mean, var, n) : 0;
        if (status) return tn_error_array(status, "batch_norm: %s", tn_error());
    }
    tn_array *y = norm_scale(wide, mean, var, l->eps);
    return norm_affine(tn_astype(y, tn_dtype_of(x)), l->weight, l->bias);
}

/* ---- group norm, instance norm ---- */

int tn_nn_group_norm_init(tn_nn_group_norm *l, tn_params *p, const char *name, int64_t groups,
                          int64_t dims, const tn_nn_norm_opt *opt) {
    tn_nn_norm_opt o;
    int status = norm_options("group_norm", "channels", dims, opt, &o);
    *l = (tn_nn_group_norm){
        .groups = groups, .dims = dims, .neighbours = o.pytorch_compatible, .eps = o.eps};
    if (!status) status = tni_layer_size("group_norm", "groups", groups);
    if (!status && dims % groups)
        status = tni_fail(TN_EVALUE, "group_norm: %lld channels do not divide into %lld groups",
                          (long long)dims, (long long)groups);
    if (status) return status;
    tni_layer b = tni_layer_begin(p, name, status);
    if (!o.no_affine) norm_add_affine(&b, dims, !o.no_bias, &l->weight, &l->bias);
    return tni_layer_end(&b);
}

tn_array *tn_nn_group_norm_call(const tn_nn_group_norm *l, tn_array *x) {
    tn_array *bad = norm_check("group_norm", x, 2, l->dims);
    if (bad) return bad;
    int64_t size = l->dims / l->groups, n = tn_dim(x, 0);
    int64_t places = tn_size(x) ? tn_size(x) / n / l->dims : 0;
    tn_array *y = l->neighbours ? tn_reshape(x, TN_SHAPE(n, places, l->groups, size))
                                : tn_reshape(x, TN_SHAPE(n, places, size, l->groups));
    y = norm_over(y, l->neighbours ? TN_AXES(1, 3) : TN_AXES(1, 2), l->eps);
    return norm_affine(tn_reshape(y, tn_shape(x)), l->weight, l->bias);
}

int tn_nn_instance_norm_init(tn_nn_instance_norm *l, tn_params *p, const char *name, int64_t dims,
                             const tn_nn_norm_opt *opt) {
    tn_nn_norm_opt o;
    int status = norm_options("instance_norm", "channels", dims, opt, &o);
    *l = (tn_nn_instance_norm){.eps = o.eps};
    if (status) return status;
    tni_layer b = tni_layer_begin(p, name, status);
    if (o.affine) norm_add_affine(&b, dims, true, &l->weight, &l->bias);
    return tni_layer_end(&b);
}

tn_array *tn_nn_instance_norm_call(const tn_nn_instance_norm *l, tn_array *x) {
    int64_t axes[TN_MAX_NDIM];
    tn_array *bad = norm_check("instance_norm", x, 3, l->weight ? tn_dim(l->weight, 0) : 0);
    if (bad) return bad;
    tn_array *y = norm_over(x, norm_axes(axes, 1, tn_ndim(x) - 2), l->eps);
    return norm_affine(y, l->weight, l->bias);
}
