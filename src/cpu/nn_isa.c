/* The row kernels of nn.h, once per instruction set. */
#include "cpu/nn.h"
#include "cpu/simd.h"
#include "cpu/vmath.h"

/* Applies EXPR, in which i is the index and v_part-loaded operands may appear, to whole vectors and
 * then to the partial one at the end. */
#define NN_EACH(n, y, EXPR)                                                                        \
    do {                                                                                           \
        int64_t i = 0;                                                                             \
        for (; i + VN <= (n); i += VN) {                                                           \
            const size_t m = (size_t)-1;                                                           \
            (void)m;                                                                               \
            vf_store((y) + i, (EXPR));                                                             \
        }                                                                                          \
        if (i < (n)) {                                                                             \
            const size_t m = (size_t)(n);                                                          \
            vf_store_n((y) + i, (EXPR), (size_t)((n)-i));                                          \
        }                                                                                          \
    } while (0)
#define NN_LOAD(x) v_part(x, (size_t)i, m, 0.0f)

static void nn_softmax(const float *x, float *y, int64_t n) {
    float top = v_row_max(x, (size_t)n);
    vf shift = vf_set(top);
    NN_EACH(n, y, vf_exp(NN_LOAD(x) - shift));
    vf by = vf_set(v_row_sum(y, (size_t)n));
    NN_EACH(n, y, NN_LOAD(y) / by);
}

static void nn_rms_norm(const float *x, const float *w, float *y, int64_t n, float eps) {
    float ms = v_row_sumsq(x, (size_t)n) / (float)n;
    vf by = vf_set(1.0f / sqrtf(ms + eps));
    if (w)
        NN_EACH(n, y, NN_LOAD(x) * by * NN_LOAD(w));
    else
        NN_EACH(n, y, NN_LOAD(x) * by);
}

static void nn_layer_norm(const float *x, const float *w, const float *b, float *y, int64_t n,
                          float eps) {
    vf mean = vf_set(v_row_sum(x, (size_t)n) / (float)n);
    NN_EACH(n, y, NN_LOAD(x) - mean); /* two passes: no cancellation */
    vf by = vf_set(1.0f / sqrtf(v_row_sumsq(y, (size_t)n) / (float)n + eps));
    if (w && b)
        NN_EACH(n, y, vf_fma(NN_LOAD(y) * by, NN_LOAD(w), NN_LOAD(b)));
    else if (w)
        NN_EACH(n, y, NN_LOAD(y) * by * NN_LOAD(w));
    else if (b)
        NN_EACH(n, y, vf_fma(NN_LOAD(y), by, NN_LOAD(b)));
    else
        NN_EACH(n, y, NN_LOAD(y) * by);
}

static void nn_scale(float *x, int64_t n, float by) {
    vf f = vf_set(by);
    NN_EACH(n, x, NN_LOAD(x) * f);
}

static void nn_online(float *s, int64_t n, float *top, float *sum, float *acc, int64_t d) {
    float row = v_row_max(s, (size_t)n), next = v1_max(*top, row);
    if (next == -INFINITY) {
        for (int64_t k = 0; k < n; k++) s[k] = 0;
        return;
    }
    vf shift = vf_set(next);
    NN_EACH(n, s, vf_exp(NN_LOAD(s) - shift));
    if (next != *top) { /* also when either is NaN */
        float keep[VN];
        vf_store(keep, vf_exp(vf_set(*top) - shift));
        *sum *= keep[0];
        nn_scale(acc, d, keep[0]);
    }
    *top = next;
    *sum += v_row_sum(s, (size_t)n);
}

static float nn_softmax_vjp(const float *p, float *d, int64_t n) {
    float delta = v_row_dot(p, d, (size_t)n);
    vf shift = vf_set(delta);
    NN_EACH(n, d, NN_LOAD(p) * (NN_LOAD(d) - shift));
    return delta;
}

static void nn_from_f16(const uint16_t *x, float *y, int64_t n) {
    int64_t i = 0;
    for (; i + VN <= n; i += VN) vf_store(y + i, vf_load_f16(x + i));
    for (; i < n; i++) y[i] = tni_f16_to_f32(x[i]);
}

static void nn_from_bf16(const uint16_t *x, float *y, int64_t n) {
    int64_t i = 0;
    for (; i + VN <= n; i += VN) vf_store(y + i, vf_load_bf16(x + i));
    for (; i < n; i++) y[i] = tni_bf16_to_f32(x[i]);
}

static void nn_to_f16(const float *x, uint16_t *y, int64_t n) {
    int64_t i = 0;
    for (; i + VN <= n; i += VN) vf_store_f16(y + i, vf_load(x + i));
    for (; i < n; i++) y[i] = tni_f32_to_f16(x[i]);
}

static void nn_to_bf16(const float *x, uint16_t *y, int64_t n) {
    int64_t i = 0;
    for (; i + VN <= n; i += VN) vf_store_bf16(y + i, vf_load(x + i));
    for (; i < n; i++) y[i] = tni_f32_to_bf16(x[i]);
}

static void nn_norm_vjp(const float *x, const float *w, const float *g, float *dx, float *t,
                        float *dw, float *db, int64_t n, float eps, int centre) {
    vf mean = vf_set(centre ? v_row_sum(x, (size_t)n) / (float)n : 0.0f);
    NN_EACH(n, dx, NN_LOAD(x) - mean);
    vf by = vf_set(1.0f / sqrtf(v_row_sumsq(dx, (size_t)n) / (float)n + eps));
    NN_EACH(n, dx, NN_LOAD(dx) * by);
    if (dw) NN_EACH(n, dw, NN_LOAD(dw) + NN_LOAD(g) * NN_LOAD(dx));
    if (db) NN_EACH(n, db, NN_LOAD(db) + NN_LOAD(g));
    if (w) {
        NN_EACH(n, t, NN_LOAD(g) * NN_LOAD(w));
        g = t;
    }
    vf along = vf_set(v_row_dot(g, dx, (size_t)n) / (float)n),
       shift = vf_set(centre ? v_row_sum(g, (size_t)n) / (float)n : 0.0f);
    NN_EACH(n, dx, (NN_LOAD(g) - shift - NN_LOAD(dx) * along) * by);
}

V_FN vf nn_tops(const float *x, const int64_t *at, int64_t taps, size_t i, size_t m) {
    vf top = v_part(x + at[0], i, m, 0.0f);
    for (int64_t t = 1; t < taps; t++) top = vf_max(top, v_part(x + at[t], i, m, 0.0f));
    return top;
}
V_FN vf nn_total(const float *x, const int64_t *at, int64_t taps, size_t i, size_t m) {
    vf sum = v_part(x + at[0], i, m, 0.0f);
    for (int64_t t = 1; t < taps; t++) sum = sum + v_part(x + at[t], i, m, 0.0f);
    return sum;
}

static void nn_pool_max(const float *x, const int64_t *at, int64_t taps, float *y, int64_t n) {
    NN_EACH(n, y, nn_tops(x, at, taps, (size_t)i, m));
}

static void nn_pool_mean(const float *x, const int64_t *at, int64_t taps, float by, float *y,
                         int64_t n) {
    vf d = vf_set(by);
    NN_EACH(n, y, nn_total(x, at, taps, (size_t)i, m) / d);
}

static void nn_pool_max_vjp(const float *x, const int64_t *at, int64_t taps, const float *g,
                            float *dx, int64_t n) {
    for (int64_t i = 0; i < n; i += VN) {
        size_t m = i + VN <= n ? (size_t)-1 : (size_t)n;
        vf top = nn_tops(x, at, taps, (size_t)i, m), count = vf_set(0.0f), d = NN_LOAD(g);
        for (int64_t t = 0; t < taps; t++)
            count = count + vf_of_mask(vf_eq(NN_LOAD(x + at[t]), top));
        vf share = vf_set(1.0f) / count; /* infinite, and NaN below, where the largest is NaN */
        for (int64_t t = 0; t < taps; t++) {
            vf by = vf_of_mask(vf_eq(NN_LOAD(x + at[t]), top)) * share;
            float *to = dx + at[t] + i;
            vf sum = NN_LOAD(dx + at[t]) + d * by;
            if (m == (size_t)-1)
                vf_store(to, sum);
            else
                vf_store_n(to, sum, (size_t)(n - i));
        }
    }
}

static void nn_pool_mean_vjp(const int64_t *at, int64_t taps, float by, const float *g, float *dx,
                             int64_t n) {
    vf d = vf_set(by);
    for (int64_t t = 0; t < taps; t++) {
        float *to = dx + at[t];
        NN_EACH(n, to, NN_LOAD(to) + NN_LOAD(g) / d);
    }
}

const tni_nn_isa *TNI_FN(nn_isa)(void) {
    static const tni_nn_isa kernels = {nn_softmax,   nn_rms_norm,     nn_layer_norm,    nn_online,
                                       nn_scale,     nn_softmax_vjp,  nn_norm_vjp,      nn_pool_max,
                                       nn_pool_mean, nn_pool_max_vjp, nn_pool_mean_vjp, nn_from_f16,
                                       nn_from_bf16, nn_to_f16,       nn_to_bf16};
    return &kernels;
}
