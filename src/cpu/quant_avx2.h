/* Quantised matmul with AVX2, for machines without VNNI. Included by quant_isa.c only.
 *
 * vpmaddwd multiplies 16-bit X as it is by weights widened to 16 bits, which costs what two
 * planes of vpmaddubsw would and cannot saturate. gemv takes four rows of w at a time, so that
 * the horizontal adds leave vectors of two groups x four rows (low half: chains 0 and 2, high
 * half: 1 and 3); gemm broadcasts pairs of x against panels of 16 rows of w. */
#ifndef TNI_CPU_QUANT_AVX2_H
#define TNI_CPU_QUANT_AVX2_H

#include <immintrin.h>

#define AVX2_FN static inline __attribute__((always_inline))

enum { AVX2_TILE = 4, AVX2_PANEL = 16, AVX2_AHEAD = 2048 };

/* ---- x ---- */

/* gemv layout of a row, by blocks of four groups: X (four-bit weights: of each 32 values the
 * even then the odd ones), then a and xs, each value four times. gemm layout of a tile of mr
 * rows, by groups: [group / 2][mr] pairs, a [mr], xs [mr]. */
AVX2_FN int64_t avx2_x_block(const tni_qmm *q) { return 8 * q->group + 128; }
AVX2_FN int64_t avx2_blocks(const tni_qmm *q) { return (q->ng + 3) / 4; }
AVX2_FN int64_t avx2_x_group(const tni_qmm *q, int64_t mr) { return mr * (2 * q->group + 8); }

static size_t avx2_x_bytes(const tni_qmm *q, bool gemm) {
    if (gemm) return (size_t)(q->ng * avx2_x_group(q, q->M));
    return (size_t)(q->M * avx2_blocks(q) * avx2_x_block(q));
}

/* X[0..n) of one group and its scale. */
AVX2_FN portable_scale avx2_quant_group(const float *x, int n, int planes, portable_range *r,
                                        int16_t *X) {
    const __m256i abs = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256(), sum = top;
    uint32_t tops[8], most = 0;
    int32_t sums[8], total = 0;
    portable_scale p;
    for (int i = 0; i < n; i += 8)
        top = _mm256_max_epu32(top,
                               _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(x + i)), abs));
    _mm256_storeu_si256((__m256i *)tops, top);
    for (int i = 0; i < 8; i++) most = tops[i] > most ? tops[i] : most;
    const __m256 inverse = _mm256_set1_ps(portable_inverse(most, planes, r, &p.a));
    if (p.a == 0) {
        memset(X, 0, (size_t)n * sizeof *X);
        p.xs = 0;
        return p;
    }
    for (int i = 0; i < n; i += 16) {
        __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
        __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8), inverse));
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(a, b));
        _mm256_storeu_si256((__m256i *)(X + i),
                            _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8));
    }
    _mm256_storeu_si256((__m256i *)sums, sum);
    for (int i = 0; i < 8; i++) total += sums[i];
    p.xs = p.a * (float)total;
    return p;
}

static void avx2_x_row(const tni_qmm *q, int64_t m, float *tmp) {
    const float *x = portable_row(q, m, tmp);
    uint8_t *out = q->xq + m * avx2_blocks(q) * avx2_x_block(q);
    const int G = q->group;
    portable_range r = {0, false};
    for (int64_t g0 = 0; g0 < q->ng; g0 += 4, out += avx2_x_block(q)) {
        int16_t *to = (int16_t *)(void *)out;
        float *a = (float *)(void *)(out + 8 * G);
        for (int i = 0; i < 4; i++, to += G) {
            int16_t X[TNI_Q_MAX_GROUP] = {0};
            portable_scale s = {0, 0};
            if (g0 + i < q->ng) s = avx2_quant_group(x + (g0 + i) * G, G, q->planes, &r, X);
            _mm_storeu_ps(a + 4 * i, _mm_set1_ps(s.a));
            _mm_storeu_ps(a + 16 + 4 * i, _mm_set1_ps(s.xs));
            for (int k = 0; k < G; k++)
                to[q->bits == 4 ? k / 32 * 32 + k % 2 * 16 + k % 32 / 2 : k] = X[k];
        }
    }
    q->leave[m] = portable_leaves(&r);
}

static void avx2_x_tile(const tni_qmm *q, int64_t t, float *tmp) {
    int64_t m0, m1;
    tni_q_tile(q, t, &m0, &m1);
    const int64_t mr = m1 - m0;
    for (int64_t m = m0; m < m1; m++) {
        const float *x = portable_row(q, m, tmp);
        uint8_t *out = q->xq + q->ng * avx2_x_group(q, m0);
        portable_range r = {0, false};
        for (int64_t g = 0; g < q->ng; g++, out += avx2_x_group(q, mr)) {
            int16_t X[TNI_Q_MAX_GROUP];
            portable_scale s = avx2_quant_group(x + g * q->group, q->group, q->planes, &r, X);
            float *a = (float *)(void *)(out + mr * 2 * q->group);
            uint32_t *o = (uint32_t *)(void *)out + (m - m0);
            for (int i = 0; i < q->group / 2; i++) memcpy(o + i * mr, X + 2 * i, 4);
            a[m - m0] = s.a;
            a[mr + m - m0] = s.xs;
        }
        q->leave[m] = portable_leaves(&r);
    }
}

/* ---- gemv ---- */

/* Eight partial sums of one group of one row. */
AVX2_FN __m256i avx2_dot(const uint8_t *w, const int16_t *x, int bits, int G) {
    uint8_t u[TNI_Q_MAX_GROUP];
    __m256i acc = _mm256_setzero_si256();
    if (bits != 4 && bits != 8) {
        portable_unpack(w, bits, G, u);
        w = u;
    }
    for (int i = 0; i < G; i += 32, x += 32) {
        __m256i a, b;
        if (bits == 4) {
            a = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(w + i / 2)));
            b = _mm256_srli_epi16(a, 4);
            a = _mm256_and_si256(a, _mm256_set1_epi16(15));
        } else {
            a = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(w + i)));
            b = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(w + i + 16)));
        }
        a = _mm256_madd_epi16(a, _mm256_loadu_si256((const __m256i *)x));
        b = _mm256_madd_epi16(b, _mm256_loadu_si256((const __m256i *)(x + 16)));
        acc = _mm256_add_epi32(acc, _mm256_add_epi32(a, b));
    }
    return acc;
}

/* Two groups x four rows of D: group 0 in the low half. `there`: how many of the two exist. */
AVX2_FN __m256i avx2_two(const uint8_t *w, int64_t row, const int16_t *x, int bits, int G,
                         int64_t there) {
    __m256i h[2];
    for (int g = 0; g < 2; g++, w += G * bits / 8, x += G) {
        if (g >= there) {
            h[g] = _mm256_setzero_si256();
            continue;
        }
        __m256i a = _mm256_hadd_epi32(avx2_dot(w, x, bits, G), avx2_dot(w + row, x, bits, G));
        __m256i b =
            _mm256_hadd_epi32(avx2_dot(w + 2 * row, x, bits, G), avx2_dot(w + 3 * row, x, bits, G));
        h[g] = _mm256_hadd_epi32(a, b);
    }
    return _mm256_add_epi32(_mm256_permute2x128_si256(h[0], h[1], 0x20),
                            _mm256_permute2x128_si256(h[0], h[1], 0x31));
}

typedef struct avx2_pair {
    __m256 lo, hi;
} avx2_pair;

/* Four groups x four rows of scales: lo has groups 0 and 1, hi 2 and 3. */
AVX2_FN avx2_pair avx2_scales(const uint8_t *p, int64_t row, int kind, int64_t there) {
    float f[4][4] = {{0}};
    avx2_pair out;
    if (kind == TNI_QK_F32 || there < 4) {
        const int64_t size = tni_q_size(kind);
        for (int r = 0; r < 4; r++)
            for (int64_t g = 0; g < 4 && g < there; g++)
                f[g][r] = tni_q_load(p + r * row + g * size, kind);
        out.lo = _mm256_loadu_ps(f[0]);
        out.hi = _mm256_loadu_ps(f[2]);
        return out;
    }
    __m128i a = _mm_unpacklo_epi16(_mm_loadl_epi64((const __m128i *)p),
                                   _mm_loadl_epi64((const __m128i *)(p + row)));
    __m128i b = _mm_unpacklo_epi16(_mm_loadl_epi64((const __m128i *)(p + 2 * row)),
                                   _mm_loadl_epi64((const __m128i *)(p + 3 * row)));
    __m128i lo = _mm_unpacklo_epi32(a, b), hi = _mm_unpackhi_epi32(a, b);
    if (kind == TNI_QK_F16) {
        out.lo = _mm256_cvtph_ps(lo);
        out.hi = _mm256_cvtph_ps(hi);
    } else {
        out.lo = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(lo), 16));
        out.hi = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(hi), 16));
    }
    return out;
}

AVX2_FN __m256 avx2_update(__m256 acc, __m256i d, __m256 s, __m256 b, const float *scales) {
    acc = _mm256_fmadd_ps(_mm256_mul_ps(s, _mm256_loadu_ps(scales)), _mm256_cvtepi32_ps(d), acc);
    return _mm256_fmadd_ps(b, _mm256_loadu_ps(scales + 16), acc);
}

/* Four rows of w from n on (the same row four times when !four) against row m of x. */
AVX2_FN __m128 avx2_rows4(const tni_qmm *q, int64_t n, bool four, int64_t m, int bits, int G) {
    const int64_t step = (int64_t)G * bits / 2, wr = four ? q->w_row : 0;
    const int64_t sr = four ? q->s_row : 0, br = four ? q->b_row : 0;
    const uint8_t *w = q->w + n * q->w_row, *s = q->s + n * q->s_row, *b = q->b + n * q->b_row;
    const uint8_t *x = q->xq + m * avx2_blocks(q) * (8 * G + 128);
    uintptr_t ahead = (uintptr_t)w + (uintptr_t)(4 * q->w_row) + AVX2_AHEAD;
    __m256 lo = _mm256_setzero_ps(), hi = lo;
    for (int64_t left = q->ng; left > 0; left -= 4, w += step, x += 8 * G + 128) {
        const avx2_pair sv = avx2_scales(s, sr, q->s_kind, left);
        const avx2_pair bv = avx2_scales(b, br, q->b_kind, left);
        const float *scales = (const float *)(const void *)(x + 8 * G);
        const int16_t *X = (const int16_t *)(const void *)x;
        for (int64_t i = 0; i < 4 * step; i += 64)
            _mm_prefetch((const char *)(ahead + (uintptr_t)i), _MM_HINT_T1);
        ahead += 4 * (uintptr_t)step;
        lo = avx2_update(lo, avx2_two(w, wr, X, bits, G, left), sv.lo, bv.lo, scales);
        hi = avx2_update(hi, avx2_two(w + step / 2, wr, X + 2 * G, bits, G, left - 2), sv.hi, bv.hi,
                         scales + 8);
        s += 4 * tni_q_size(q->s_kind);
        b += 4 * tni_q_size(q->b_kind);
    }
    lo = _mm256_add_ps(lo, hi);
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(lo), _mm256_extractf128_ps(lo, 1));
    return _mm_add_ps(t, _mm_setzero_ps());
}

AVX2_FN void avx2_gemv_as(const tni_qmm *q, int64_t n0, int64_t n1, int bits, int G) {
    const int64_t es = tni_q_size(q->x_kind);
    for (int64_t n = n0; n < n1;) {
        const bool four = n1 - n >= 4;
        for (int64_t m = 0; m < q->M; m++) {
            float y[4];
            _mm_storeu_ps(y, avx2_rows4(q, n, four, m, bits, G));
            for (int r = 0; r < (four ? 4 : 1); r++)
                tni_q_store(q->y + m * q->y_row + (n + r) * es, q->x_kind, y[r]);
        }
        n += four ? 4 : 1;
    }
}

static void avx2_gemv(const tni_qmm *q, int64_t n0, int64_t n1) {
    if (q->bits == 4 && q->group == 32)
        avx2_gemv_as(q, n0, n1, 4, 32);
    else if (q->bits == 4)
        avx2_gemv_as(q, n0, n1, 4, q->group);
    else if (q->bits == 8)
        avx2_gemv_as(q, n0, n1, 8, q->group);
    else
        avx2_gemv_as(q, n0, n1, q->bits, q->group);
}

/* ---- gemm ---- */

/* A panel: 16 rows of w as 16-bit pairs [K / 2][16][2], s [ng][16], b [ng][16]. */
AVX2_FN size_t avx2_panel_bytes(const tni_qmm *q) { return (size_t)(32 * q->K + 128 * q->ng); }

static size_t avx2_scratch(const tni_qmm *q, int64_t n) {
    return (size_t)((n + 15) / 16) * avx2_panel_bytes(q);
}

static void avx2_pack(const tni_qmm *q, int64_t n, int64_t n1, uint8_t *out) {
    float *s = (float *)(void *)(out + 32 * q->K), *b = s + 16 * q->ng;
    for (int r = 0; r < 16; r++) {
        const int64_t at = n + r < n1 ? n + r : n1 - 1;
        const uint8_t *w = q->w + at * q->w_row;
        uint32_t *to = (uint32_t *)(void *)out + r;
        for (int64_t g = 0; g < q->ng; g++, w += portable_group_bytes(q), to += 8 * q->group) {
            s[16 * g + r] = portable_s(q, at, g);
            b[16 * g + r] = portable_b(q, at, g);
            if (q->bits == 4) {
                for (int i = 0; i < q->group / 2; i++)
                    to[16 * i] = (uint32_t)(w[i] & 15) | (uint32_t)(w[i] >> 4) << 16;
                continue;
            }
            uint8_t u[TNI_Q_MAX_GROUP];
            portable_unpack(w, q->bits, q->group, u);
            for (int i = 0; i < q->group / 2; i++)
                to[16 * i] = (uint32_t)u[2 * i] | (uint32_t)u[2 * i + 1] << 16;
        }
    }
}

/* One group of 16 rows of w x mr rows of x, added to f. */
AVX2_FN void avx2_tile_group(const uint8_t *w, const uint8_t *x, const float *s, const float *b,
                             int G, const int mr, float f[][16]) {
    __m256i d[AVX2_TILE][2];
    const float *a = (const float *)(const void *)(x + mr * 2 * G);
#pragma GCC unroll 4
    for (int m = 0; m < mr; m++) d[m][0] = d[m][1] = _mm256_setzero_si256();
    for (int i = 0; i < G / 2; i++, w += 64, x += 4 * mr) {
        const __m256i lo = _mm256_loadu_si256((const __m256i *)w);
        const __m256i hi = _mm256_loadu_si256((const __m256i *)(w + 32));
#pragma GCC unroll 4
        for (int m = 0; m < mr; m++) {
            int32_t pair;
            memcpy(&pair, x + 4 * m, 4);
            const __m256i v = _mm256_set1_epi32(pair);
            d[m][0] = _mm256_add_epi32(d[m][0], _mm256_madd_epi16(lo, v));
            d[m][1] = _mm256_add_epi32(d[m][1], _mm256_madd_epi16(hi, v));
        }
    }
#pragma GCC unroll 4
    for (int m = 0; m < mr; m++)
        for (int h = 0; h < 2; h++) {
            const __m256 sa = _mm256_mul_ps(_mm256_loadu_ps(s + 8 * h), _mm256_set1_ps(a[m]));
            __m256 v = _mm256_loadu_ps(f[m] + 8 * h);
            v = _mm256_fmadd_ps(sa, _mm256_cvtepi32_ps(d[m][h]), v);
            v = _mm256_fmadd_ps(_mm256_loadu_ps(b + 8 * h), _mm256_set1_ps(a[mr + m]), v);
            _mm256_storeu_ps(f[m] + 8 * h, v);
        }
}

AVX2_FN void avx2_tile(const tni_qmm *q, const uint8_t *panel, const uint8_t *x, const int mr,
                       uint8_t *y, int64_t count) {
    const float *s = (const float *)(const void *)(panel + 32 * q->K), *b = s + 16 * q->ng;
    const int64_t xstep = avx2_x_group(q, mr), es = tni_q_size(q->x_kind);
    float f[TNI_Q_CHAINS][AVX2_TILE][16] = {{{0}}};
    for (int64_t g = 0; g < q->ng; g++)
        avx2_tile_group(panel + g * 32 * q->group, x + g * xstep, s + 16 * g, b + 16 * g, q->group,
                        mr, f[g % TNI_Q_CHAINS]);
    for (int m = 0; m < mr; m++)
        for (int64_t i = 0; i < count; i++) {
            const float c[TNI_Q_CHAINS] = {f[0][m][i], f[1][m][i], f[2][m][i], f[3][m][i]};
            tni_q_store(y + m * q->y_row + i * es, q->x_kind, portable_total(c));
        }
}

static void avx2_gemm(const tni_qmm *q, int64_t n0, int64_t n1, void *scratch) {
    const int64_t size = (int64_t)avx2_panel_bytes(q), es = tni_q_size(q->x_kind);
    for (int64_t n = n0; n < n1; n += 16)
        avx2_pack(q, n, n1, (uint8_t *)scratch + (n - n0) / 16 * size);
    for (int64_t t = 0; t < q->tiles; t++) {
        int64_t m0, m1;
        tni_q_tile(q, t, &m0, &m1);
        const uint8_t *x = q->xq + q->ng * avx2_x_group(q, m0);
        for (int64_t n = n0; n < n1; n += 16) {
            const uint8_t *w = (uint8_t *)scratch + (n - n0) / 16 * size;
            uint8_t *y = q->y + m0 * q->y_row + n * es;
            const int64_t count = n1 - n < 16 ? n1 - n : 16;
            switch (m1 - m0) {
            case 1:
                avx2_tile(q, w, x, 1, y, count);
                break;
            case 2:
                avx2_tile(q, w, x, 2, y, count);
                break;
            case 3:
                avx2_tile(q, w, x, 3, y, count);
                break;
            default:
                avx2_tile(q, w, x, 4, y, count);
            }
        }
    }
}

#define QUANT_X_BYTES    avx2_x_bytes
#define QUANT_X_ROW      avx2_x_row
#define QUANT_X_TILE     avx2_x_tile
#define QUANT_SCRATCH    avx2_scratch
#define QUANT_GEMV       avx2_gemv
#define QUANT_GEMM       avx2_gemm
#define QUANT_TILE_ROWS  AVX2_TILE
#define QUANT_PANEL_ROWS AVX2_PANEL
#define QUANT_GEMM_FROM  16

#endif
