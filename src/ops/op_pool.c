/* Pooling over the axes of places, channels last. Windows side by side are a reshape and one
 * reduction; others the elements of every tap as a strided slice, combined in one fused pass (more
 * than POOL_TAPS taps: axis after axis, which reads less). */
#include "base/err.h"
#include "ops/build.h"
#include <math.h>

enum { POOL_TAPS = 9 };

typedef struct pool {
    const char *op;
    int nd;
    bool largest; /* else the mean */
    int64_t k[3], stride[3], pad[3], out[3];
} pool;

static int64_t pool_number(tn_spatial s, int d, int64_t none) {
    return s.n == 0 ? none : s.v[s.n == 1 ? 0 : d];
}

static int pool_init(pool *p, const tn_array *a, tn_spatial kernel, tn_spatial stride,
                     tn_spatial padding) {
    int nd = p->nd = a->ndim - 2;
    if (nd < 1 || nd > 3 || !tni_is_float((tn_dtype)a->dtype))
        return tni_fail(TN_ESHAPE,
                        "%s: needs floats of 3, 4 or 5 axes (images, places, channels), not %s",
                        p->op, tni_describe(a));
    if ((kernel.n != 1 && kernel.n != nd) || (stride.n && stride.n != 1 && stride.n != nd) ||
        (padding.n && padding.n != 1 && padding.n != nd))
        return tni_fail(TN_ESHAPE, "%s: kernel, stride and padding need one number or %d", p->op,
                        nd);
    for (int d = 0; d < nd; d++) {
        int64_t k = p->k[d] = pool_number(kernel, d, 0), most = (int64_t)1 << 31;
        p->stride[d] = pool_number(stride, d, k), p->pad[d] = pool_number(padding, d, 0);
        if (k < 1 || k > most || p->stride[d] < 1 || p->stride[d] > most || p->pad[d] < 0 ||
            p->pad[d] >= k)
            return tni_fail(TN_EVALUE,
                            "%s: kernel %lld, stride %lld, padding %lld of axis %d (padding must "
                            "be less than the kernel)",
                            p->op, (long long)k, (long long)p->stride[d], (long long)p->pad[d],
                            d + 1);
        int64_t room = a->shape[d + 1] + 2 * p->pad[d] - k;
        if (room < 0)
            return tni_fail(TN_ESHAPE,
                            "%s: kernel %lld is wider than axis %d of %s with padding %lld", p->op,
                            (long long)k, d + 1, tni_describe(a), (long long)p->pad[d]);
        p->out[d] = room / p->stride[d] + 1;
    }
    return 0;
}

static tn_array *pool_pad(const pool *p, tn_array *x) {
    int64_t width[5] = {0}, any = 0;
    for (int d = 0; d < p->nd; d++) any |= width[d + 1] = p->pad[d];
    if (!any) return x;
    tn_ints w = {width, p->nd + 2};
    return tn_pad(x, w, w, tn_scalar(p->largest ? -(double)INFINITY : 0, (tn_dtype)x->dtype));
}

/* Windows that do not overlap and leave nothing between them. */
static tn_array *pool_side_by_side(const pool *p, tn_array *x) {
    int64_t zero[5] = {0}, stop[5], shape[8], axes[3];
    int n = 0;
    stop[0] = shape[n++] = x->shape[0], stop[p->nd + 1] = x->shape[p->nd + 1];
    for (int d = 0; d < p->nd; d++) {
        stop[d + 1] = p->out[d] * p->k[d];
        shape[n++] = p->out[d], axes[d] = n, shape[n++] = p->k[d];
    }
    shape[n++] = x->shape[p->nd + 1];
    tn_array *y = tn_slice(x, (tn_ints){zero, p->nd + 2}, (tn_ints){stop, p->nd + 2}, TN_ALL);
    y = tn_reshape(y, (tn_ints){shape, n});
    tn_ints all = {axes, p->nd};
    return p->largest ? tn_max(y, all, false) : tn_mean(y, all, false);
}

/* Combined over the taps of axes [from, to); the other axes of places stay. */
static tn_array *pool_taps(const pool *p, tn_array *x, int from, int to) {
    int64_t taps = 1;
    tn_array *y = NULL;
    for (int d = from; d < to; d++) taps *= p->k[d];
    for (int64_t t = 0; t < taps; t++) {
        int64_t start[5] = {0}, stop[5], step[5], rest = t;
        for (int i = 0; i < p->nd + 2; i++) stop[i] = x->shape[i], step[i] = 1;
        for (int d = to - 1; d >= from; d--) {
            start[d + 1] = rest % p->k[d], rest /= p->k[d];
            step[d + 1] = p->stride[d];
            stop[d + 1] = start[d + 1] + (p->out[d] - 1) * p->stride[d] + 1;
        }
        int n = p->nd + 2;
        tn_array *part = tn_slice(x, (tn_ints){start, n}, (tn_ints){stop, n}, (tn_ints){step, n});
        y = !y ? part : p->largest ? tn_maximum(y, part) : tn_add(y, part);
        if (tni_is_error(y)) return y;
    }
    return y;
}

static tn_array *pool_windows(const pool *p, tn_array *x) {
    int64_t taps = 1;
    for (int d = 0; d < p->nd; d++) taps *= p->k[d];
    if (taps <= POOL_TAPS) return pool_taps(p, x, 0, p->nd);
    for (int d = p->nd - 1; d >= 0 && !tni_is_error(x); d--) x = pool_taps(p, x, d, d + 1);
    return x;
}

static tn_array *pool_run(const char *op, bool largest, tn_array *a, tn_spatial kernel,
                          tn_spatial stride, tn_spatial padding) {
    TNI_INPUTS(op, a);
    pool p = {.op = op, .largest = largest};
    if (pool_init(&p, a, kernel, stride, padding)) return tni_error_last();
    bool apart = true;
    double taps = 1;
    for (int d = 0; d < p.nd; d++) apart = apart && p.k[d] == p.stride[d], taps *= (double)p.k[d];
    tn_dtype d = (tn_dtype)a->dtype;
    /* Means of narrow floats are summed in f32. */
    tn_array *x = pool_pad(&p, largest || d == TN_F64 ? a : tn_astype(a, TN_F32));
    if (tni_is_error(x)) return x;
    tn_array *y = apart ? pool_side_by_side(&p, x) : pool_windows(&p, x);
    if (!largest && !apart) y = tn_div(y, tn_f32(taps)); /* a whole number: exact */
    return tn_astype(y, d);
}

tn_array *tn_max_pool(tn_array *a, tn_spatial kernel, tn_spatial stride, tn_spatial padding) {
    return pool_run("max_pool", true, a, kernel, stride, padding);
}
tn_array *tn_avg_pool(tn_array *a, tn_spatial kernel, tn_spatial stride, tn_spatial padding) {
    return pool_run("avg_pool", false, a, kernel, stride, padding);
}
