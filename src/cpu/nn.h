/* Row kernels of softmax, norms and attention, compiled once per instruction set (nn_isa.c).
 * Sums and maxima go in simd.h's fixed order of 16 virtual lanes, so every ISA gives the same bits.
 */
#ifndef TNI_CPU_NN_KERNELS_H
#define TNI_CPU_NN_KERNELS_H

#include <stdint.h>

typedef struct tni_nn_isa {
    /* y = softmax(x) over n; y may be x. */
    void (*softmax)(const float *x, float *y, int64_t n);
    /* y = x / sqrt(mean(x^2) + eps) * w; w may be NULL. */
    void (*rms_norm)(const float *x, const float *w, float *y, int64_t n, float eps);
    /* y = (x - mean) / sqrt(var + eps) * w + b; w and b may be NULL. */
    void (*layer_norm)(const float *x, const float *w, const float *b, float *y, int64_t n,
                       float eps);
    /* One row of scores joins a running softmax: s[i] = exp(s[i] - m') for i < n, where m' is the
     * larger of *top and the row's maximum; *sum becomes *sum * exp(*top - m') + sum(s), *top m',
     * and acc[0..d) is scaled by exp(*top - m'). A row of -inf alone leaves everything and gives
     * zeros. */
    void (*online)(float *s, int64_t n, float *top, float *sum, float *acc, int64_t d);
    void (*scale)(float *x, int64_t n, float by); /* x *= by */
    /* d = p * (d - delta), where delta, which is returned, is the sum of p * d: what the gradient
     * d of a softmax p makes of that of its input. */
    float (*softmax_vjp)(const float *p, float *d, int64_t n);
    /* One row of a normalisation's gradient: dx; dw += g z and db += g (either may be NULL) with z
     * the normalised row. t: n floats of room; w may be NULL. */
    void (*norm_vjp)(const float *x, const float *w, const float *g, float *dx, float *t, float *dw,
                     float *db, int64_t n, float eps, int centre);
    /* Pooling one window: element i of tap t is x[at[t] + i], i < n, t < taps (1 or more). y: the
     * largest, or the sum over `by`. The gradients add to dx[at[t] + i]: g shared among the
     * largest, or g over `by` each. */
    void (*pool_max)(const float *x, const int64_t *at, int64_t taps, float *y, int64_t n);
    void (*pool_mean)(const float *x, const int64_t *at, int64_t taps, float by, float *y,
                      int64_t n);
    void (*pool_max_vjp)(const float *x, const int64_t *at, int64_t taps, const float *g, float *dx,
                         int64_t n);
    void (*pool_mean_vjp)(const int64_t *at, int64_t taps, float by, const float *g, float *dx,
                          int64_t n);
    /* Widens n elements of f16 or bf16, and back, rounding to nearest even. */
    void (*from_f16)(const uint16_t *x, float *y, int64_t n);
    void (*from_bf16)(const uint16_t *x, float *y, int64_t n);
    void (*to_f16)(const float *x, uint16_t *y, int64_t n);
    void (*to_bf16)(const float *x, uint16_t *y, int64_t n);
} tni_nn_isa;

const tni_nn_isa *tni_nn_isa_ref(void);
const tni_nn_isa *tni_nn_isa_avx2(void);
const tni_nn_isa *tni_nn_isa_avx512(void);
const tni_nn_isa *tni_nn_isa_neon(void);

const tni_nn_isa *tni_nn_current(void);
void tni_nn_use(const tni_nn_isa *isa); /* tests; NULL: the best this machine has */

#endif
