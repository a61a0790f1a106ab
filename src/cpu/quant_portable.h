/* Quantised matmul in plain C: the reference (TNI_ISA=ref), and the parts the vector kernels
 * share with it. Included by quant_isa.c only. Loops are written so that the compiler can
 * vectorise them; nothing here may be contracted into FMA by the compiler (-ffp-contract=off). */
#ifndef TNI_CPU_QUANT_PORTABLE_H
#define TNI_CPU_QUANT_PORTABLE_H

#include "cpu/quant.h"
#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { PORTABLE_LANES = 16, PORTABLE_GEMV_ROWS = 8 };

/* ---- weights ---- */

static inline __attribute__((always_inline)) void portable_unpack_bits(const uint8_t *p, int bits,
                                                                       int64_t n, uint8_t *out) {
    for (int64_t i = 0; i < n; i += 8, p += bits, out += 8) {
        uint64_t v = 0;
        memcpy(&v, p, (size_t)bits);
        for (int j = 0; j < 8; j++) out[j] = (uint8_t)((v >> (bits * j)) & ((1u << bits) - 1));
    }
}

/* n values (a multiple of 8) of a packed row, in order. */
static inline void portable_unpack(const uint8_t *p, int bits, int64_t n, uint8_t *out) {
    switch (bits) {
    case 2:
        portable_unpack_bits(p, 2, n, out);
        break;
    case 3:
        portable_unpack_bits(p, 3, n, out);
        break;
    case 4:
        portable_unpack_bits(p, 4, n, out);
        break;
    case 5:
        portable_unpack_bits(p, 5, n, out);
        break;
    case 6:
        portable_unpack_bits(p, 6, n, out);
        break;
    default:
        memcpy(out, p, (size_t)n);
    }
}

static inline float portable_s(const tni_qmm *q, int64_t row, int64_t g) {
    return tni_q_load(q->s + row * q->s_row + g * tni_q_size(q->s_kind), q->s_kind);
}

static inline float portable_b(const tni_qmm *q, int64_t row, int64_t g) {
    return tni_q_load(q->b + row * q->b_row + g * tni_q_size(q->b_kind), q->b_kind);
}

static inline int64_t portable_group_bytes(const tni_qmm *q) { return q->group * q->bits / 8; }

/* ---- x ---- */

/* Row m of x as floats: where it lies when it is an aligned f32 row, else converted into tmp. */
static const float *portable_row(const tni_qmm *q, int64_t m, float *tmp) {
    const uint8_t *p = q->x + m * q->x_row;
    int64_t k = 0;
    if (q->x_kind == TNI_QK_F32 && q->x_elem == 4 && (uintptr_t)p % 4 == 0)
        return (const float *)(const void *)p;
#if defined(__F16C__)
    if (q->x_kind == TNI_QK_F16 && q->x_elem == 2)
        for (; k + 8 <= q->K; k += 8)
            _mm256_storeu_ps(tmp + k,
                             _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 2 * k))));
#elif defined(__aarch64__)
    if (q->x_kind == TNI_QK_F16 && q->x_elem == 2)
        for (; k + 4 <= q->K; k += 4)
            vst1q_f32(tmp + k, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 2 * k))));
#endif
    for (; k < q->K; k++) tmp[k] = tni_q_load(p + k * q->x_elem, q->x_kind);
    return tmp;
}

typedef struct portable_scale {
    float a, xs;
} portable_scale;

/* What a row's groups had to say about whether the integer path can represent it. */
typedef struct portable_range {
    uint32_t top; /* largest |x|, as bits: NaN above infinity above numbers */
    bool tiny;    /* a group was too small for its scale and became zero */
} portable_range;

static const uint32_t portable_huge = 0x7149f2cau; /* 1e30f: beyond it a * sum X can overflow */
static const float portable_least = 1e-30f;        /* below it 32512 / max overflows */

/* The scale factor for a group whose largest magnitude has the bits `top`. */
static inline float portable_inverse(uint32_t top, int planes, portable_range *r, float *a) {
    float max = tni_bits_f32(top), limit = planes == 2 ? (float)TNI_Q_X2 : (float)TNI_Q_X1;
    if (top > r->top) r->top = top;
    *a = 0;
    if (top > portable_huge) return 0;
    if (max < portable_least) {
        r->tiny |= top != 0;
        return 0;
    }
    *a = max / limit;
    return limit / max;
}

/* Rows that hold NaN, infinity or values near the ends of f32, as r tells. */
static inline bool portable_leaves(const portable_range *r) {
    return r->top > portable_huge || (r->tiny && tni_bits_f32(r->top) < 1e-20f);
}

/* One group: X[0..n) and its scale. Adding 1.5 * 2^23 rounds to an integer in the low bits. */
static inline portable_scale portable_quant_group(const float *x, int n, int planes,
                                                  portable_range *r, int16_t *X) {
    uint32_t top = 0;
    int32_t sum = 0;
    portable_scale p;
    for (int i = 0; i < n; i++) {
        uint32_t u = tni_f32_bits(x[i]) & 0x7fffffffu;
        top = u > top ? u : top;
    }
    float inverse = portable_inverse(top, planes, r, &p.a);
    if (inverse == 0) {
        memset(X, 0, (size_t)n * sizeof *X);
        p.xs = 0;
        return p;
    }
    for (int i = 0; i < n; i++) {
        float v = x[i] * inverse + 12582912.0f;
        X[i] = (int16_t)(tni_f32_bits(v) - 0x4b400000u);
        sum += X[i];
    }
    p.xs = p.a * (float)sum;
    return p;
}

/* Quantised row: K values, then ng scales. */
static inline int64_t portable_x_stride(const tni_qmm *q) {
    return ((q->K * 2 + 63) & ~(int64_t)63) +
           ((q->ng * (int64_t)sizeof(portable_scale) + 63) & ~(int64_t)63);
}

static inline const int16_t *portable_x(const tni_qmm *q, int64_t m) {
    return (const int16_t *)(const void *)(q->xq + m * portable_x_stride(q));
}

static inline const portable_scale *portable_x_scale(const tni_qmm *q, int64_t m) {
    return (const portable_scale *)(const void *)(q->xq + m * portable_x_stride(q) +
                                                  ((q->K * 2 + 63) & ~(int64_t)63));
}

static void portable_quant_row(const tni_qmm *q, int64_t m, float *tmp) {
    const float *x = portable_row(q, m, tmp);
    int16_t *X = (int16_t *)(uintptr_t)portable_x(q, m);
    portable_scale *s = (portable_scale *)(uintptr_t)portable_x_scale(q, m);
    portable_range r = {0, false};
    for (int64_t g = 0; g < q->ng; g++)
        s[g] = portable_quant_group(x + g * q->group, q->group, q->planes, &r, X + g * q->group);
    q->leave[m] = portable_leaves(&r);
}

static inline void portable_quant_tile(const tni_qmm *q, int64_t t, float *tmp) {
    int64_t m0, m1;
    tni_q_tile(q, t, &m0, &m1);
    for (int64_t m = m0; m < m1; m++) portable_quant_row(q, m, tmp);
}

static inline size_t portable_x_bytes(const tni_qmm *q, bool gemm) {
    (void)gemm;
    return (size_t)(q->M * portable_x_stride(q));
}

/* ---- integer path ---- */

static inline float portable_total(const float c[TNI_Q_CHAINS]) {
    return ((c[0] + c[2]) + (c[1] + c[3])) + 0.0f;
}

static inline void portable_add(float *chain, float s, float b, portable_scale x, int32_t dot) {
    *chain = __builtin_fmaf(s * x.a, (float)dot, *chain);
    *chain = __builtin_fmaf(b, x.xs, *chain);
}

static inline int32_t portable_dot(const int16_t *w, const int16_t *x, int n) {
    int32_t d = 0;
    for (int i = 0; i < n; i++) d += (int32_t)w[i] * x[i];
    return d;
}

/* One output row of w, unpacked into `wide` [K] with its scales in sb [2 ng]. */
static inline void portable_open_row(const tni_qmm *q, int64_t n, int16_t *wide, float *sb) {
    uint8_t u[TNI_Q_MAX_GROUP];
    const uint8_t *w = q->w + n * q->w_row;
    for (int64_t g = 0; g < q->ng; g++, w += portable_group_bytes(q), wide += q->group) {
        portable_unpack(w, q->bits, q->group, u);
        for (int i = 0; i < q->group; i++) wide[i] = u[i];
        sb[2 * g] = portable_s(q, n, g);
        sb[2 * g + 1] = portable_b(q, n, g);
    }
}

static inline void portable_close_row(const tni_qmm *q, int64_t n, const int16_t *wide,
                                      const float *sb) {
    for (int64_t m = 0; m < q->M; m++) {
        float c[TNI_Q_CHAINS] = {0};
        const int16_t *x = portable_x(q, m);
        const portable_scale *xs = portable_x_scale(q, m);
        for (int64_t g = 0; g < q->ng; g++)
            portable_add(&c[g % TNI_Q_CHAINS], sb[2 * g], sb[2 * g + 1], xs[g],
                         portable_dot(wide + g * q->group, x + g * q->group, q->group));
        tni_q_store(q->y + m * q->y_row + n * tni_q_size(q->x_kind), q->x_kind, portable_total(c));
    }
}

/* Few rows of x: no scratch, groups unpacked on the stack. */
static inline void portable_gemv(const tni_qmm *q, int64_t n0, int64_t n1) {
    for (int64_t n = n0; n < n1; n++) {
        float c[PORTABLE_GEMV_ROWS][TNI_Q_CHAINS] = {{0}};
        const uint8_t *w = q->w + n * q->w_row;
        for (int64_t g = 0; g < q->ng; g++, w += portable_group_bytes(q)) {
            uint8_t u[TNI_Q_MAX_GROUP];
            int16_t wide[TNI_Q_MAX_GROUP];
            float s = portable_s(q, n, g), b = portable_b(q, n, g);
            portable_unpack(w, q->bits, q->group, u);
            for (int i = 0; i < q->group; i++) wide[i] = u[i];
            for (int64_t m = 0; m < q->M; m++)
                portable_add(&c[m][g % TNI_Q_CHAINS], s, b, portable_x_scale(q, m)[g],
                             portable_dot(wide, portable_x(q, m) + g * q->group, q->group));
        }
        for (int64_t m = 0; m < q->M; m++)
            tni_q_store(q->y + m * q->y_row + n * tni_q_size(q->x_kind), q->x_kind,
                        portable_total(c[m]));
    }
}

static inline size_t portable_scratch(const tni_qmm *q, int64_t n) {
    (void)n;
    return (size_t)(q->K * 2 + q->ng * 8);
}

static inline void portable_gemm(const tni_qmm *q, int64_t n0, int64_t n1, void *scratch) {
    float *sb = scratch;
    int16_t *wide = (int16_t *)(void *)(sb + 2 * q->ng);
    for (int64_t n = n0; n < n1; n++) {
        portable_open_row(q, n, wide, sb);
        portable_close_row(q, n, wide, sb);
    }
}

/* ---- float path ---- */

/* n values of one packed row from value `at` on (both multiples of the group), dequantised. */
static void portable_dequant(const tni_qmm *q, int64_t row, int64_t at, int64_t n, float *out) {
    uint8_t u[TNI_Q_MAX_GROUP];
    for (int64_t g = at / q->group; g < (at + n) / q->group; g++, out += q->group) {
        float s = portable_s(q, row, g), b = portable_b(q, row, g);
        portable_unpack(q->w + row * q->w_row + g * portable_group_bytes(q), q->bits, q->group, u);
        for (int i = 0; i < q->group; i++) out[i] = __builtin_fmaf(s, (float)u[i], b);
    }
}

static void portable_float_row(const tni_qmm *q, int64_t m, int64_t n0, int64_t n1, float *tmp) {
    const float *x = portable_row(q, m, tmp);
    float *w = tmp + q->K;
    for (int64_t n = n0; n < n1; n++) {
        float acc[PORTABLE_LANES] = {0};
        portable_dequant(q, n, 0, q->K, w);
        for (int64_t k = 0; k < q->K; k += PORTABLE_LANES)
            for (int l = 0; l < PORTABLE_LANES; l++)
                acc[l] = __builtin_fmaf(w[k + l], x[k + l], acc[l]);
        for (int half = PORTABLE_LANES / 2; half; half /= 2)
            for (int l = 0; l < half; l++) acc[l] += acc[l + half];
        tni_q_store(q->y + m * q->y_row + n * tni_q_size(q->x_kind), q->x_kind, acc[0]);
    }
}

#endif
