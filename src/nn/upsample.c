/* Resizing along axes of places, one axis after the other. Where each place of the result comes
 * from is worked out here, in f32 as mlx.nn does; up to four sources are picked and added, more are
 * one matrix. Constants: Keys, "Cubic convolution interpolation" (1981), with a = -0.75, and -0.5
 * when antialiased. */
#include "base/alloc.h"
#include "base/err.h"
#include "nn/layer.h"
#include <math.h>
#include <string.h>

enum { UPSAMPLE_PICKS = 4, UPSAMPLE_MOST = 1 << 24 }; /* places: f32 counts them exactly */

/* One axis: place i of `to` is the sum over k of weight[k * to + i] x[at[k * to + i]]. */
typedef struct upsample_axis {
    int64_t from, to;
    int taps;
    int32_t *at;
    float *weight; /* NULL: at alone, of one tap */
} upsample_axis;

static void upsample_free(upsample_axis *a) { tni_free(a->at), tni_free(a->weight); }

static int upsample_room(upsample_axis *a, int64_t taps, bool weights) {
    size_t n = (size_t)(taps * a->to);
    a->taps = (int)taps;
    a->at = tni_alloc_array(n, sizeof *a->at);
    a->weight = weights ? tni_alloc_array(n, sizeof *a->weight) : NULL;
    return a->at && (a->weight || !weights) ? 0 : tni_fail_memory(n * 8, "upsampling");
}

static int32_t upsample_inside(float x, int64_t n) {
    return (int32_t)(x < 0 ? 0 : x > (float)(n - 1) ? (float)(n - 1) : x);
}

/* Where place i of the result lies between those of x. */
static float upsample_place(const upsample_axis *a, double scale, bool corners, int64_t i) {
    if (corners) {
        int64_t gaps = a->to > 1 ? a->to - 1 : 1;
        return (float)i * (float)((double)(a->from - 1) / (double)gaps);
    }
    double step = 1 / scale;
    float start = (float)(((double)(a->to - 1) * step - (double)a->from + 1) / 2);
    return (float)i * (float)step - start;
}

static int upsample_nearest(upsample_axis *a) {
    int status = upsample_room(a, 1, false);
    float ratio = (float)((double)a->from / (double)a->to);
    for (int64_t i = 0; i < a->to && !status; i++) {
        float x = a->to > a->from ? rintf(((float)i + 0.5f) * ratio - 0.5f) : (float)i * ratio;
        a->at[i] = upsample_inside(x, a->from);
    }
    return status;
}

static int upsample_linear(upsample_axis *a, double scale, bool corners) {
    int status = upsample_room(a, 2, true);
    for (int64_t i = 0; i < a->to && !status; i++) {
        float x = upsample_place(a, scale, corners, i);
        x = x < 0 ? 0 : x > (float)(a->from - 1) ? (float)(a->from - 1) : x;
        float low = floorf(x);
        a->at[i] = (int32_t)low, a->at[a->to + i] = (int32_t)ceilf(x);
        a->weight[i] = 1 - (x - low), a->weight[a->to + i] = x - low;
    }
    return status;
}

static float upsample_cubic_weight(float x, float a) {
    if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x <= 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static int upsample_cubic(upsample_axis *a, double scale, bool corners) {
    int status = upsample_room(a, 4, true);
    for (int64_t i = 0; i < a->to && !status; i++) {
        float x = upsample_place(a, scale, corners, i), low = floorf(x);
        for (int k = 0; k < 4; k++) {
            float grid = low + (float)(k - 1);
            a->at[k * a->to + i] = upsample_inside(grid, a->from);
            a->weight[k * a->to + i] = upsample_cubic_weight(fabsf(x - grid), -0.75f);
        }
    }
    return status;
}

/* Kernels as wide as the places of the result are apart; weights sum to 1. */
static int upsample_smooth(upsample_axis *a, double scale, bool cubic) {
    double wide = scale < 1 ? 1 / scale : 1;
    int64_t half = (int64_t)ceil((cubic ? 2 : 1) * wide) + 1, taps = 2 * half - 1;
    if (taps > UPSAMPLE_MOST / a->to)
        return tni_fail(TN_EVALUE, "upsample: scale %g of %lld places takes %lld at a time", scale,
                        (long long)a->from, (long long)taps);
    int status = upsample_room(a, taps, true);
    for (int64_t i = 0; i < a->to && !status; i++) {
        float x = upsample_place(a, scale, false, i), sum = 0;
        for (int64_t k = 0; k < taps; k++) {
            float grid = floorf(x) + (float)(k - half + 1), far = fabsf(x - grid) / (float)wide;
            float w = cubic ? upsample_cubic_weight(far, -0.5f) : far < 1 ? 1 - far : 0;
            if (grid < 0 || grid >= (float)a->from) w = 0;
            a->at[k * a->to + i] = upsample_inside(grid, a->from);
            a->weight[k * a->to + i] = w, sum += w;
        }
        for (int64_t k = 0; k < taps && sum > 0; k++) a->weight[k * a->to + i] /= sum;
    }
    return status;
}

/* ---- from the tables to the graph ---- */

/* Picks along `axis`, each times its weight. */
static tn_array *upsample_pick(tn_array *x, int axis, const upsample_axis *a) {
    int64_t shape[TN_MAX_NDIM];
    for (int d = 0; d < tn_ndim(x); d++) shape[d] = d == axis ? a->to : 1;
    tn_array *sum = NULL;
    for (int k = 0; k < a->taps; k++) {
        tn_array *at = tn_array_new(a->at + k * a->to, TN_I32, TN_SHAPE(a->to));
        tn_array *part = tn_take(x, at, axis);
        if (a->weight)
            part = tn_mul(
                part, tn_array_new(a->weight + k * a->to, TN_F32, (tn_ints){shape, tn_ndim(x)}));
        sum = sum ? tn_add(sum, part) : part;
    }
    return sum;
}

/* A matrix [from, to] from the right, the axis last. */
static tn_array *upsample_product(tn_array *x, int axis, const upsample_axis *a) {
    float *m = tni_calloc((size_t)a->from, (size_t)a->to * sizeof *m);
    if (!m) {
        int status = tni_fail_memory((size_t)(a->from * a->to) * sizeof *m, "upsampling");
        return tn_error_array(status, "%s", tn_error());
    }
    for (int64_t j = 0; j < a->taps * a->to; j++) m[a->at[j] * a->to + j % a->to] += a->weight[j];
    tn_array *w = tn_array_new(m, TN_F32, TN_SHAPE(a->from, a->to));
    tni_free(m);
    return tn_moveaxis(tn_matmul(tn_moveaxis(x, axis, -1), w), -1, axis);
}

static tn_array *upsample_one(tn_array *x, int axis, double scale, const tn_nn_upsample_opt *o) {
    upsample_axis a = {.from = tn_dim(x, axis)};
    double to = floor(scale * (double)a.from);
    int status = 0;
    if (!(scale > 0) || !(to >= 1) || to > UPSAMPLE_MOST || a.from > UPSAMPLE_MOST)
        return tn_error_array(TN_EVALUE,
                              "upsample: %lld places of axis %d by a scale of %g; 1 to %d are "
                              "allowed to come out",
                              (long long)a.from, axis, scale, UPSAMPLE_MOST);
    a.to = (int64_t)to;
    if (o->mode == TN_NN_NEAREST && scale == floor(scale))
        return tn_repeat(x, (int64_t)scale, axis);
    if (o->mode == TN_NN_NEAREST)
        status = upsample_nearest(&a);
    else if (o->antialias)
        status = upsample_smooth(&a, scale, o->mode == TN_NN_CUBIC);
    else if (o->mode == TN_NN_LINEAR)
        status = upsample_linear(&a, scale, o->align_corners);
    else
        status = upsample_cubic(&a, scale, o->align_corners);
    tn_array *y = status                    ? tn_error_array(status, "%s", tn_error())
                  : a.taps > UPSAMPLE_PICKS ? upsample_product(x, axis, &a)
                                            : upsample_pick(x, axis, &a);
    upsample_free(&a);
    return y;
}

tn_array *tn_nn_upsample(tn_array *x, double scale, const tn_nn_upsample_opt *opt) {
    tn_nn_upsample_opt o;
    TNI_OPTIONS(o, opt);
    if (tn_array_status(x)) return x;
    int places = tn_ndim(x) - 2;
    if (places < 1 || places > 3)
        return tn_error_array(TN_ESHAPE, "upsample: x has %d axes; 3 to 5 are needed", places + 2);
    tn_dtype d = tn_dtype_of(x);
    if (!tni_layer_is_float(d))
        return tn_error_array(TN_EDTYPE, "upsample: needs floats, not %s", tn_dtype_name(d));
    if (o.mode < TN_NN_NEAREST || o.mode > TN_NN_CUBIC)
        return tn_error_array(TN_EVALUE, "upsample: no mode %d", (int)o.mode);
    if (o.antialias && (o.align_corners || o.mode == TN_NN_NEAREST))
        return tn_error_array(TN_EVALUE, "upsample: antialias goes neither with align_corners nor "
                                         "with the nearest place");
    for (int i = 0; i < places; i++)
        x = upsample_one(x, i + 1, o.scale[i] != 0 ? o.scale[i] : scale, &o);
    return tn_astype(x, d);
}
