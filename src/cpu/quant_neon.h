/* Quantised matmul with NEON (ARMv8.2 with dot products). Included by quant_isa.c only.
 *
 * sdot multiplies signed bytes, so 16-bit X is kept as two planes, hi and lo, and eight-bit
 * weights are taken as q - 128, with 128 * sum X added to the result. gemv takes four rows of w
 * at a time, whose sums pairwise adds leave in one vector (element = row); gemm goes through
 * tiles of four rows of x with each panel of four rows of w unpacked once. */
#ifndef TNI_CPU_QUANT_NEON_H
#define TNI_CPU_QUANT_NEON_H

#include <arm_neon.h>

#define NEON_FN static inline __attribute__((always_inline))

enum { NEON_PANEL = 4, NEON_GEMV_ROWS = 16 };

/* A row of x, by groups: hi [group], lo [group], then a, xs, 128 * sum X and nothing. */
NEON_FN int64_t neon_x_group(const tni_qmm *q) { return 2 * q->group + 16; }

static size_t neon_x_bytes(const tni_qmm *q, bool gemm) {
    (void)gemm;
    return (size_t)(q->M * q->ng * neon_x_group(q));
}

static void neon_x_row(const tni_qmm *q, int64_t m, float *tmp) {
    const float *x = portable_row(q, m, tmp);
    uint8_t *out = q->xq + m * q->ng * neon_x_group(q);
    const int G = q->group;
    portable_range r = {0, false};
    for (int64_t g = 0; g < q->ng; g++, out += neon_x_group(q)) {
        int16_t X[TNI_Q_MAX_GROUP];
        portable_scale s = portable_quant_group(x + g * G, G, q->planes, &r, X);
        int8_t *hi = (int8_t *)out, *lo = hi + G;
        int32_t sum = 0;
        for (int i = 0; i < G; i++) {
            hi[i] = (int8_t)(q->planes == 2 ? (X[i] + 128) >> 8 : X[i]);
            lo[i] = (int8_t)(q->planes == 2 ? X[i] - hi[i] * 256 : 0);
            sum += X[i];
        }
        sum *= 128;
        memcpy(out + 2 * G, &s.a, 4);
        memcpy(out + 2 * G + 4, &s.xs, 4);
        memcpy(out + 2 * G + 8, &sum, 4);
    }
    q->leave[m] = portable_leaves(&r);
}

static void neon_x_tile(const tni_qmm *q, int64_t t, float *tmp) {
    int64_t m0, m1;
    tni_q_tile(q, t, &m0, &m1);
    for (int64_t m = m0; m < m1; m++) neon_x_row(q, m, tmp);
}

/* A group of one row of w as signed bytes in order; eight bits: less 128. */
NEON_FN void neon_unpack(const tni_qmm *q, const uint8_t *w, int8_t *out) {
    const int G = q->group;
    if (q->bits == 4) {
        for (int i = 0; i < G; i += 32, w += 16, out += 32) {
            const uint8x16_t v = vld1q_u8(w);
            const uint8x16_t even = vandq_u8(v, vdupq_n_u8(15)), odd = vshrq_n_u8(v, 4);
            vst1q_s8(out, vreinterpretq_s8_u8(vzip1q_u8(even, odd)));
            vst1q_s8(out + 16, vreinterpretq_s8_u8(vzip2q_u8(even, odd)));
        }
    } else if (q->bits == 8) {
        for (int i = 0; i < G; i += 16)
            vst1q_s8(out + i, vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w + i), vdupq_n_u8(128))));
    } else {
        portable_unpack(w, q->bits, G, (uint8_t *)out);
    }
}

/* D of four rows of w (each a group of bytes, `row` apart) against one group of x. */
NEON_FN int32x4_t neon_dot4(const int8_t *w, int64_t row, const int8_t *x, int G, int planes) {
    int32x4_t d[4];
    for (int r = 0; r < 4; r++) {
        d[r] = vdupq_n_s32(0);
        for (int i = 0; i < G; i += 16)
            d[r] = vdotq_s32(d[r], vld1q_s8(w + r * row + i), vld1q_s8(x + i));
        if (planes == 1) continue;
        d[r] = vshlq_n_s32(d[r], 8);
        for (int i = 0; i < G; i += 16)
            d[r] = vdotq_s32(d[r], vld1q_s8(w + r * row + i), vld1q_s8(x + G + i));
    }
    return vpaddq_s32(vpaddq_s32(d[0], d[1]), vpaddq_s32(d[2], d[3]));
}

NEON_FN float32x4_t neon_update(float32x4_t c, int32x4_t d, float32x4_t s, float32x4_t b,
                                const uint8_t *x, int bits) {
    float a, xs;
    int32_t sum;
    memcpy(&a, x, 4);
    memcpy(&xs, x + 4, 4);
    memcpy(&sum, x + 8, 4);
    if (bits == 8) d = vaddq_s32(d, vdupq_n_s32(sum));
    c = vfmaq_f32(c, vmulq_n_f32(s, a), vcvtq_f32_s32(d));
    return vfmaq_f32(c, b, vdupq_n_f32(xs));
}

/* Four rows of w from n on, unpacked and transposed into a panel: bytes [ng][4][group], then
 * s [ng][4], b [ng][4]. Rows past n1 repeat the last. */
static void neon_pack(const tni_qmm *q, int64_t n, int64_t n1, uint8_t *out) {
    float *s = (float *)(void *)(out + 4 * q->K), *b = s + 4 * q->ng;
    for (int r = 0; r < 4; r++) {
        const int64_t at = n + r < n1 ? n + r : n1 - 1;
        for (int64_t g = 0; g < q->ng; g++) {
            neon_unpack(q, q->w + at * q->w_row + g * portable_group_bytes(q),
                        (int8_t *)out + (4 * g + r) * q->group);
            s[4 * g + r] = portable_s(q, at, g);
            b[4 * g + r] = portable_b(q, at, g);
        }
    }
}

static void neon_store(const tni_qmm *q, int64_t n, int64_t n1, int64_t m,
                       const float32x4_t c[TNI_Q_CHAINS]) {
    float y[4];
    const int64_t es = tni_q_size(q->x_kind);
    const float32x4_t t = vaddq_f32(vaddq_f32(c[0], c[2]), vaddq_f32(c[1], c[3]));
    vst1q_f32(y, vaddq_f32(t, vdupq_n_f32(0)));
    for (int64_t r = 0; r < 4 && n + r < n1; r++)
        tni_q_store(q->y + m * q->y_row + (n + r) * es, q->x_kind, y[r]);
}

static void neon_gemv(const tni_qmm *q, int64_t n0, int64_t n1) {
    const int G = q->group;
    const int64_t xstep = neon_x_group(q);
    for (int64_t n = n0; n < n1; n += 4) {
        float32x4_t c[NEON_GEMV_ROWS][TNI_Q_CHAINS] = {{vdupq_n_f32(0)}};
        memset(c, 0, sizeof c);
        for (int64_t g = 0; g < q->ng; g++) {
            int8_t w[4 * TNI_Q_MAX_GROUP];
            float s[4], b[4];
            for (int r = 0; r < 4; r++) {
                const int64_t at = n + r < n1 ? n + r : n1 - 1;
                neon_unpack(q, q->w + at * q->w_row + g * portable_group_bytes(q), w + r * G);
                s[r] = portable_s(q, at, g);
                b[r] = portable_b(q, at, g);
            }
            for (int64_t m = 0; m < q->M; m++) {
                const uint8_t *x = q->xq + (m * q->ng + g) * xstep;
                float32x4_t *to = &c[m][g % TNI_Q_CHAINS];
                *to = neon_update(*to, neon_dot4(w, G, (const int8_t *)x, G, q->planes),
                                  vld1q_f32(s), vld1q_f32(b), x + 2 * G, q->bits);
            }
        }
        for (int64_t m = 0; m < q->M; m++) neon_store(q, n, n1, m, c[m]);
    }
}

static size_t neon_scratch(const tni_qmm *q, int64_t n) {
    (void)n;
    return (size_t)(4 * q->K + 32 * q->ng);
}

static void neon_gemm(const tni_qmm *q, int64_t n0, int64_t n1, void *scratch) {
    const int G = q->group;
    const int8_t *w = scratch;
    const float *s = (const float *)(const void *)((uint8_t *)scratch + 4 * q->K);
    for (int64_t n = n0; n < n1; n += 4) {
        neon_pack(q, n, n1, scratch);
        for (int64_t m = 0; m < q->M; m++) {
            float32x4_t c[TNI_Q_CHAINS];
            memset(c, 0, sizeof c);
            const uint8_t *x = q->xq + m * q->ng * neon_x_group(q);
            for (int64_t g = 0; g < q->ng; g++, x += neon_x_group(q)) {
                float32x4_t *to = &c[g % TNI_Q_CHAINS];
                *to = neon_update(*to, neon_dot4(w + 4 * g * G, G, (const int8_t *)x, G, q->planes),
                                  vld1q_f32(s + 4 * g), vld1q_f32(s + 4 * (q->ng + g)), x + 2 * G,
                                  q->bits);
            }
            neon_store(q, n, n1, m, c);
        }
    }
}

#define QUANT_X_BYTES    neon_x_bytes
#define QUANT_X_ROW      neon_x_row
#define QUANT_X_TILE     neon_x_tile
#define QUANT_SCRATCH    neon_scratch
#define QUANT_GEMV       neon_gemv
#define QUANT_GEMM       neon_gemm
#define QUANT_TILE_ROWS  1
#define QUANT_PANEL_ROWS NEON_PANEL
#define QUANT_GEMM_FROM  NEON_GEMV_ROWS

#endif
