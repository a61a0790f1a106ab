/* Quantised matmul with AVX-512 VNNI and VBMI. Included by quant_isa.c only.
 *
 * gemv: weights are read as they lie. A 64-byte chunk is 128 four-bit weights (even and odd
 * nibbles, each dotted with x's even and odd values) or, for other widths, 64 weights that
 * vpermb + vpmultishiftqb spread to bytes. Four rows of w go together: the transposing adds
 * that finish their dot products cost little more than those of one, and leave a vector of
 * four groups x four rows (128-bit part = group, element = row), which is also the shape that
 * four rows of scales take with a single permutation. Part i holds chain i.
 *
 * gemm: 16 rows of w are spread to bytes and transposed once (element = row, its four bytes =
 * four values of k), and every tile of up to 12 rows of x broadcasts its bytes against them.
 *
 * X = 256 hi + lo: all hi products first, one shift, then the lo products into the same sums. */
#ifndef TNI_CPU_QUANT_AVX512_H
#define TNI_CPU_QUANT_AVX512_H

#include <immintrin.h>

#define AVX512_FN static inline __attribute__((always_inline))

enum { AVX512_TILE = 12, AVX512_PANEL = 16, AVX512_AHEAD = 4096, AVX512_AHEAD_SCALES = 1024 };

/* ---- reading weights and scales ---- */

/* How 64 packed values of 2, 3, 5 or 6 bits become bytes in order: each 8 bytes of the result
 * take the `bits` bytes that hold them (vpermb), then 8 bits from eight places (vpmultishiftqb). */
typedef struct avx512_spread {
    __m512i where, shift, mask;
} avx512_spread;

static avx512_spread avx512_spread_of(int bits) {
    avx512_spread s;
    int8_t idx[64], sh[64];
    for (int i = 0; i < 64; i++) {
        idx[i] = (int8_t)((i / 8) * bits + i % 8);
        sh[i] = (int8_t)((i % 8) * bits);
    }
    s.where = _mm512_loadu_si512(idx);
    s.shift = _mm512_loadu_si512(sh);
    s.mask = _mm512_set1_epi8((char)((1 << bits) - 1));
    return s;
}

AVX512_FN __mmask64 avx512_bytes(int64_t n) {
    return n >= 64 ? ~(__mmask64)0 : n <= 0 ? 0 : ((__mmask64)1 << n) - 1;
}

/* Bytes of a chunk: 128 four-bit weights, or 64 of another width. */
AVX512_FN int64_t avx512_chunk(int64_t bits) { return bits == 4 ? 64 : 8 * bits; }

/* A chunk at p: four-bit weights packed, others one a byte. Of a tail there are `left` bytes.
 * `form` is 4, 8, or 0 for any other width: all the code below is compiled for these three. */
AVX512_FN __m512i avx512_load(const uint8_t *p, int form, int64_t bits, const avx512_spread *sp,
                              bool tail, int64_t left) {
    if (form && !tail) return _mm512_loadu_si512(p);
    const int64_t n = form ? 64 : 8 * bits;
    __m512i v = _mm512_maskz_loadu_epi8(avx512_bytes(tail && left < n ? left : n), p);
    if (form) return v;
    v = _mm512_multishift_epi64_epi8(sp->shift, _mm512_permutexvar_epi8(sp->where, v));
    return _mm512_and_si512(v, sp->mask);
}

AVX512_FN __m512i avx512_inserts(__m128i a, __m128i b, __m128i c, __m128i d) {
    __m512i v = _mm512_inserti32x4(_mm512_castsi128_si512(a), b, 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(v, c, 2), d, 3);
}

AVX512_FN __m512i avx512_four(const uint8_t *p, int64_t row) {
    return avx512_inserts(_mm_loadu_si128((const __m128i *)p),
                          _mm_loadu_si128((const __m128i *)(p + row)),
                          _mm_loadu_si128((const __m128i *)(p + 2 * row)),
                          _mm_loadu_si128((const __m128i *)(p + 3 * row)));
}

AVX512_FN __m512i avx512_four_masked(const uint8_t *p, int64_t row, __mmask16 k) {
    return avx512_inserts(_mm_maskz_loadu_epi8(k, p), _mm_maskz_loadu_epi8(k, p + row),
                          _mm_maskz_loadu_epi8(k, p + 2 * row),
                          _mm_maskz_loadu_epi8(k, p + 3 * row));
}

AVX512_FN __mmask16 avx512_16(int64_t n) {
    return (__mmask16)(n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1);
}

typedef struct avx512_pair {
    __m512 lo, hi;
} avx512_pair;

/* Eight groups' scales of four rows, `row` bytes apart: part = group, element = row; lo has
 * groups 0-3, hi 4-7. Of a tail only `left` groups are there, the others read as zero. */
AVX512_FN avx512_pair avx512_scales(const uint8_t *p, int64_t row, int kind, bool tail,
                                    int64_t left) {
    avx512_pair out;
    if (kind == TNI_QK_F32) {
        const __m512i t = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        __m512i lo, hi;
        if (tail) {
            lo = avx512_four_masked(p, row, avx512_16(4 * left));
            hi = avx512_four_masked(p + 16, row, avx512_16(4 * left - 16));
        } else {
            lo = avx512_four(p, row);
            hi = avx512_four(p + 16, row);
        }
        out.lo = _mm512_castsi512_ps(_mm512_permutexvar_epi32(t, lo));
        out.hi = _mm512_castsi512_ps(_mm512_permutexvar_epi32(t, hi));
        return out;
    }
    int16_t idx[32];
    __m512i t, v;
    for (int i = 0; i < 32; i++) idx[i] = (int16_t)(i % 4 * 8 + i / 4);
    memcpy(&t, idx, 64);
    v = tail ? avx512_four_masked(p, row, avx512_16(2 * left)) : avx512_four(p, row);
    v = _mm512_permutexvar_epi16(t, v);
    __m256i lo = _mm512_castsi512_si256(v), hi = _mm512_extracti64x4_epi64(v, 1);
    if (kind == TNI_QK_F16) {
        out.lo = _mm512_cvtph_ps(lo);
        out.hi = _mm512_cvtph_ps(hi);
    } else {
        out.lo = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(lo), 16));
        out.hi = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(hi), 16));
    }
    return out;
}

AVX512_FN void avx512_store16(uint8_t *p, int kind, __m512 v, __mmask16 k) {
    if (kind == TNI_QK_F32) {
        if (k == 15)
            _mm_storeu_ps((float *)(void *)p, _mm512_castps512_ps128(v));
        else
            _mm512_mask_storeu_ps(p, k, v);
        return;
    }
    if (kind == TNI_QK_F16) {
        _mm256_mask_storeu_epi16(p, k, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
        return;
    }
    __m512i u = _mm512_castps_si512(v), one = _mm512_set1_epi32(1);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), one);
    __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, u, _mm512_set1_epi32(0x400000));
    _mm256_mask_storeu_epi16(p, k, _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16)));
}

/* ---- x ---- */

/* gemv layout of a row, by blocks of four groups: the chunks' planes (four bits: even hi, odd
 * hi, even lo, odd lo, 64 bytes each; else hi, lo), then a and xs, each value four times. */
AVX512_FN int64_t avx512_x_block(const tni_qmm *q) { return 8 * q->group + 128; }
AVX512_FN int64_t avx512_blocks(const tni_qmm *q) { return (q->ng + 3) / 4; }
/* gemm layout of a tile of mr rows, by groups: hi then lo, [group / 4][mr] 4-byte pieces, then
 * a [mr] and xs [mr]. Four-bit pieces alternate between even and odd values of eight. */
AVX512_FN int64_t avx512_x_group(const tni_qmm *q, int64_t mr) { return mr * (2 * q->group + 8); }

static size_t avx512_x_bytes(const tni_qmm *q, bool gemm) {
    if (gemm) return (size_t)(q->ng * avx512_x_group(q, q->M));
    return (size_t)(q->M * avx512_blocks(q) * avx512_x_block(q));
}

/* Splits n (a multiple of 32) values into planes. */
AVX512_FN void avx512_split(const int16_t *X, int n, int planes, int8_t *hi, int8_t *lo) {
    for (int i = 0; i < n; i += 32) {
        __m512i v = _mm512_loadu_si512(X + i), h = v;
        if (planes == 2) {
            h = _mm512_srai_epi16(_mm512_add_epi16(v, _mm512_set1_epi16(128)), 8);
            _mm256_storeu_si256((__m256i *)(lo + i), _mm512_cvtepi16_epi8(v));
        }
        _mm256_storeu_si256((__m256i *)(hi + i), _mm512_cvtepi16_epi8(h));
    }
}

/* X[0..n) of one group and its scale. */
AVX512_FN portable_scale avx512_quant_group(const float *x, int n, int planes, portable_range *r,
                                            int16_t *X) {
    const __m512i abs = _mm512_set1_epi32(0x7fffffff);
    __m512i top = _mm512_setzero_si512(), sum = top;
    portable_scale p;
    for (int i = 0; i < n; i += 16)
        top = _mm512_max_epu32(top, _mm512_and_si512(_mm512_loadu_si512(x + i), abs));
    __m512 inverse =
        _mm512_set1_ps(portable_inverse((uint32_t)_mm512_reduce_max_epu32(top), planes, r, &p.a));
    for (int i = 0; i < n; i += 16) {
        __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), inverse));
        sum = _mm512_add_epi32(sum, v);
        _mm256_storeu_si256((__m256i *)(X + i), _mm512_cvtepi32_epi16(v));
    }
    p.xs = p.a * (float)_mm512_reduce_add_epi32(sum);
    return p;
}

/* n values (a multiple of 64) of natural order into even and odd ones. */
AVX512_FN void avx512_even_odd(const int8_t *v, int8_t *even, int8_t *odd) {
    int8_t idx[64];
    __m512i e, lo = _mm512_loadu_si512(v), hi = _mm512_loadu_si512(v + 64);
    for (int i = 0; i < 64; i++) idx[i] = (int8_t)(2 * i);
    memcpy(&e, idx, 64);
    __m512i o = _mm512_or_si512(e, _mm512_set1_epi8(1));
    _mm512_storeu_si512(even, _mm512_permutex2var_epi8(lo, e, hi));
    _mm512_storeu_si512(odd, _mm512_permutex2var_epi8(lo, o, hi));
}

static void avx512_x_row(const tni_qmm *q, int64_t m, float *tmp) {
    const float *x = portable_row(q, m, tmp);
    uint8_t *out = q->xq + m * avx512_blocks(q) * avx512_x_block(q);
    const int G = q->group;
    portable_range r = {0, false};
    for (int64_t g0 = 0; g0 < q->ng; g0 += 4, out += avx512_x_block(q)) {
        int16_t X[4 * TNI_Q_MAX_GROUP];
        int8_t hi[4 * TNI_Q_MAX_GROUP], lo[4 * TNI_Q_MAX_GROUP];
        float *a = (float *)(void *)(out + 8 * G);
        for (int i = 0; i < 4; i++) {
            portable_scale s = {0, 0};
            if (g0 + i < q->ng)
                s = avx512_quant_group(x + (g0 + i) * G, G, q->planes, &r, X + i * G);
            else
                memset(X + i * G, 0, (size_t)G * sizeof *X);
            _mm_storeu_ps(a + 4 * i, _mm_set1_ps(s.a));
            _mm_storeu_ps(a + 16 + 4 * i, _mm_set1_ps(s.xs));
        }
        avx512_split(X, 4 * G, q->planes, hi, lo);
        int8_t *o = (int8_t *)out;
        for (int i = 0; i < 4 * G; i += q->bits == 4 ? 128 : 64) {
            if (q->bits == 4) {
                avx512_even_odd(hi + i, o + 2 * i, o + 2 * i + 64);
                if (q->planes == 2) avx512_even_odd(lo + i, o + 2 * i + 128, o + 2 * i + 192);
            } else {
                _mm512_storeu_si512(o + 2 * i, _mm512_loadu_si512(hi + i));
                if (q->planes == 2) _mm512_storeu_si512(o + 2 * i + 64, _mm512_loadu_si512(lo + i));
            }
        }
    }
    q->leave[m] = portable_leaves(&r);
}

/* Four-bit gemm order: of each eight bytes, the even ones then the odd ones. */
AVX512_FN __m512i avx512_pairs(__m512i v) {
    int8_t idx[64];
    __m512i e;
    for (int i = 0; i < 64; i++) idx[i] = (int8_t)(i / 8 * 8 + i % 4 * 2 + i % 8 / 4);
    memcpy(&e, idx, 64);
    return _mm512_permutexvar_epi8(e, v);
}

static void avx512_x_tile(const tni_qmm *q, int64_t t, float *tmp) {
    int64_t m0, m1;
    tni_q_tile(q, t, &m0, &m1);
    const int64_t mr = m1 - m0;
    const int G = q->group, piece = G / 4;
    for (int64_t m = m0; m < m1; m++) {
        const float *x = portable_row(q, m, tmp);
        uint8_t *out = q->xq + q->ng * avx512_x_group(q, m0);
        portable_range r = {0, false};
        for (int64_t g = 0; g < q->ng; g++, out += avx512_x_group(q, mr)) {
            int16_t X[TNI_Q_MAX_GROUP];
            int8_t plane[2][TNI_Q_MAX_GROUP];
            portable_scale s = avx512_quant_group(x + g * G, G, q->planes, &r, X);
            avx512_split(X, G, q->planes, plane[0], plane[1]);
            float *a = (float *)(void *)(out + mr * 2 * G);
            a[m - m0] = s.a;
            a[mr + m - m0] = s.xs;
            for (int p = 0; p < q->planes; p++) {
                uint32_t d[TNI_Q_MAX_GROUP / 4];
                uint32_t *o = (uint32_t *)(void *)(out + p * mr * G) + (m - m0);
                for (int i = 0; i < G; i += 64) {
                    __m512i v = _mm512_maskz_loadu_epi8(avx512_bytes(G - i), plane[p] + i);
                    _mm512_mask_storeu_epi32(d + i / 4, (__mmask16)(G - i >= 64 ? 0xffff : 0xff),
                                             q->bits == 4 ? avx512_pairs(v) : v);
                }
                for (int i = 0; i < piece; i++) o[i * mr] = d[i];
            }
        }
        q->leave[m] = portable_leaves(&r);
    }
}

/* ---- gemv ---- */

/* Sums each 128-bit part of four rows: element r of part i = the sum of part i of row r. */
AVX512_FN __m512i avx512_parts(const __m512i a[4]) {
    __m512i u =
        _mm512_add_epi32(_mm512_unpacklo_epi32(a[0], a[1]), _mm512_unpackhi_epi32(a[0], a[1]));
    __m512i v =
        _mm512_add_epi32(_mm512_unpacklo_epi32(a[2], a[3]), _mm512_unpackhi_epi32(a[2], a[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(u, v), _mm512_unpackhi_epi64(u, v));
}

/* Sums neighbouring parts: a0 + a1, a2 + a3, b0 + b1, b2 + b3. */
AVX512_FN __m512i avx512_fold(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* One chunk of a row of w against one plane of x. */
AVX512_FN __m512i avx512_chunk_dot(__m512i acc, const __m512i w[2], const uint8_t *x, int form) {
    acc = _mm512_dpbusd_epi32(acc, w[0], _mm512_loadu_si512(x));
    if (form == 4) acc = _mm512_dpbusd_epi32(acc, w[1], _mm512_loadu_si512(x + 64));
    return acc;
}

/* What a kernel is compiled for, and what it is given. */
typedef struct avx512_kind {
    int form, group, s_kind, b_kind, planes;
    int64_t bits;
    avx512_spread spread;
} avx512_kind;

/* Sums over `count` chunks, of four rows, reduced to parts. */
AVX512_FN __m512i avx512_chunks(const avx512_kind *k, const uint8_t *w, int64_t row,
                                const uint8_t *x, int count, bool tail, int64_t left) {
    const int plane = k->form == 4 ? 128 : 64;
    const __m512i low = _mm512_set1_epi8(15);
    __m512i acc[4], v[4][2][2];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        acc[r] = _mm512_setzero_si512();
#pragma GCC unroll 2
        for (int c = 0; c < count; c++) {
            const int64_t o = c * avx512_chunk(k->bits);
            __m512i p = avx512_load(w + r * row + o, k->form, k->bits, &k->spread, tail, left - o);
            v[r][c][0] = k->form == 4 ? _mm512_and_si512(p, low) : p;
            v[r][c][1] = _mm512_and_si512(_mm512_srli_epi16(p, 4), low);
            acc[r] = avx512_chunk_dot(acc[r], v[r][c], x + c * 2 * plane, k->form);
        }
    }
    if (k->planes == 2) {
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
            acc[r] = _mm512_slli_epi32(acc[r], 8);
#pragma GCC unroll 2
            for (int c = 0; c < count; c++)
                acc[r] = avx512_chunk_dot(acc[r], v[r][c], x + c * 2 * plane + plane, k->form);
        }
    }
    return avx512_parts(acc);
}

/* D of four groups x four rows. A group's sums take `lanes` elements of a vector. */
AVX512_FN __m512i avx512_block(const avx512_kind *k, const uint8_t *w, int64_t row,
                               const uint8_t *x, bool tail, int64_t left) {
    const int lanes = k->form == 4 ? k->group / 8 : k->group / 4, count = lanes > 16 ? 2 : 1;
    const int n = lanes > 16 ? 4 : lanes / 4, xstep = count * (k->form == 4 ? 256 : 128);
    const int64_t step = count * avx512_chunk(k->bits);
    __m512i d[4];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
        d[i] = avx512_chunks(k, w + i * step, row, x + i * xstep, count, tail, left - i * step);
    if (n == 1) return d[0];
    if (n == 2) return avx512_fold(d[0], d[1]);
    return avx512_fold(avx512_fold(d[0], d[1]), avx512_fold(d[2], d[3]));
}

AVX512_FN __m512 avx512_update(__m512 acc, __m512i d, __m512 s, __m512 b, const uint8_t *scales) {
    __m512 a = _mm512_loadu_ps(scales), xs = _mm512_loadu_ps(scales + 64);
    acc = _mm512_fmadd_ps(_mm512_mul_ps(s, a), _mm512_cvtepi32_ps(d), acc);
    return _mm512_fmadd_ps(b, xs, acc);
}

/* Chains to totals: (0 + 2) + (1 + 3), + 0. */
AVX512_FN __m128 avx512_total(__m512 acc) {
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(acc), _mm512_extractf32x8_ps(acc, 1));
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    return _mm_add_ps(t, _mm_setzero_ps());
}

/* Asks for n bytes at p. Rows of one matrix lie one behind the other, so that memory is asked
 * for in one rising sequence, though four rows are read at once: the hardware's prefetcher does
 * not follow four short ones. The sequence begins AVX512_AHEAD behind the four rows. */
AVX512_FN void avx512_ahead(uintptr_t p, int64_t n) {
    for (int64_t i = 0; i < n; i += 64) _mm_prefetch((const char *)(p + (uintptr_t)i), _MM_HINT_T1);
}

typedef struct avx512_rows {
    const uint8_t *w, *s, *b;
    int64_t w_row, s_row, b_row; /* 0: the same row four times */
} avx512_rows;

/* Four rows of w against row m of x. */
AVX512_FN __m128 avx512_rows4(const tni_qmm *q, const avx512_rows *at, const avx512_kind *k,
                              int64_t m) {
    const int G = k->group;
    const int64_t step = G * k->bits / 2, xstep = 8 * G + 128, row = q->K * k->bits / 8;
    const int64_t ss = 8 * tni_q_size(k->s_kind), bs = 8 * tni_q_size(k->b_kind);
    const uint8_t *x = q->xq + m * avx512_blocks(q) * xstep, *w = at->w, *s = at->s, *b = at->b;
    uintptr_t ahead_w = (uintptr_t)w + (uintptr_t)(4 * row) + AVX512_AHEAD;
    uintptr_t ahead_s = (uintptr_t)s + (uintptr_t)(q->ng * ss / 2) + AVX512_AHEAD_SCALES;
    uintptr_t ahead_b = (uintptr_t)b + (uintptr_t)(q->ng * bs / 2) + AVX512_AHEAD_SCALES;
    const int64_t wr = at->w_row, sr = at->s_row, br = at->b_row;
    __m512 acc = _mm512_setzero_ps();
    int64_t left = q->ng;
    for (; left >= 8; left -= 8, s += ss, b += bs) {
        const avx512_pair sv = avx512_scales(s, sr, k->s_kind, false, 8);
        const avx512_pair bv = avx512_scales(b, br, k->b_kind, false, 8);
        avx512_ahead(ahead_s, 4 * ss);
        avx512_ahead(ahead_b, 4 * bs);
        avx512_ahead(ahead_w, 8 * step);
        ahead_s += 4 * (uintptr_t)ss;
        ahead_b += 4 * (uintptr_t)bs;
        ahead_w += 8 * (uintptr_t)step;
        __m512i d = avx512_block(k, w, wr, x, false, 0);
        acc = avx512_update(acc, d, sv.lo, bv.lo, x + 8 * G);
        d = avx512_block(k, w + step, wr, x + xstep, false, 0);
        acc = avx512_update(acc, d, sv.hi, bv.hi, x + xstep + 8 * G);
        w += 2 * step;
        x += 2 * xstep;
    }
    if (left) {
        const avx512_pair sv = avx512_scales(s, sr, k->s_kind, true, left);
        const avx512_pair bv = avx512_scales(b, br, k->b_kind, true, left);
        const int64_t bytes = left * G * k->bits / 8;
        avx512_ahead(ahead_w, 4 * bytes);
        __m512i d = avx512_block(k, w, wr, x, true, bytes);
        acc = avx512_update(acc, d, sv.lo, bv.lo, x + 8 * G);
        if (left > 4) {
            d = avx512_block(k, w + step, wr, x + xstep, true, bytes - step);
            acc = avx512_update(acc, d, sv.hi, bv.hi, x + xstep + 8 * G);
        }
    }
    return avx512_total(acc);
}

AVX512_FN void avx512_gemv_as(const tni_qmm *q, int64_t n0, int64_t n1, const avx512_kind *k) {
    const int64_t es = tni_q_size(q->x_kind);
    for (int64_t n = n0; n < n1;) {
        const bool four = n1 - n >= 4;
        const avx512_rows at = {.w = q->w + n * q->w_row,
                                .s = q->s + n * q->s_row,
                                .b = q->b + n * q->b_row,
                                .w_row = four ? q->w_row : 0,
                                .s_row = four ? q->s_row : 0,
                                .b_row = four ? q->b_row : 0};
        for (int64_t m = 0; m < q->M; m++) {
            __m128 y = avx512_rows4(q, &at, k, m);
            avx512_store16(q->y + m * q->y_row + n * es, q->x_kind, _mm512_castps128_ps512(y),
                           four ? 15 : 1);
        }
        n += four ? 4 : 1;
    }
}

#define AVX512_GEMV(form_, group_)                                                                 \
    static __attribute__((noinline)) void avx512_gemv_##form_##_##group_(const tni_qmm *q,         \
                                                                         int64_t n0, int64_t n1) { \
        avx512_kind k = {.form = form_,                                                            \
                         .group = group_,                                                          \
                         .s_kind = q->s_kind,                                                      \
                         .b_kind = q->b_kind,                                                      \
                         .planes = q->planes,                                                      \
                         .bits = form_};                                                           \
        if (!form_) {                                                                              \
            k.bits = q->bits;                                                                      \
            k.spread = avx512_spread_of(q->bits);                                                  \
        }                                                                                          \
        avx512_gemv_as(q, n0, n1, &k);                                                             \
    }
/* Scales of one 16-bit kind and two planes: the usual case has code of its own. */
#define AVX512_GEMV_16(form_, group_, name, kind_)                                                 \
    static __attribute__((noinline)) void avx512_gemv_##form_##_##group_##_##name(                 \
        const tni_qmm *q, int64_t n0, int64_t n1) {                                                \
        const avx512_kind k = {.form = form_,                                                      \
                               .group = group_,                                                    \
                               .s_kind = kind_,                                                    \
                               .b_kind = kind_,                                                    \
                               .planes = 2,                                                        \
                               .bits = form_};                                                     \
        avx512_gemv_as(q, n0, n1, &k);                                                             \
    }
#define AVX512_GEMVS(group_)                                                                       \
    AVX512_GEMV(0, group_)                                                                         \
    AVX512_GEMV(4, group_)                                                                         \
    AVX512_GEMV(8, group_)                                                                         \
    AVX512_GEMV_16(4, group_, f16, TNI_QK_F16)                                                     \
    AVX512_GEMV_16(4, group_, bf16, TNI_QK_BF16)                                                   \
    AVX512_GEMV_16(8, group_, f16, TNI_QK_F16)                                                     \
    AVX512_GEMV_16(8, group_, bf16, TNI_QK_BF16)
AVX512_GEMVS(32)
AVX512_GEMVS(64)
AVX512_GEMVS(128)

static void avx512_gemv(const tni_qmm *q, int64_t n0, int64_t n1) {
    typedef void (*gemv_fn)(const tni_qmm *, int64_t, int64_t);
#define AVX512_ROW(form_)                                                                          \
    { avx512_gemv_##form_##_32, avx512_gemv_##form_##_64, avx512_gemv_##form_##_128 }
#define AVX512_ROW_16(form_, name)                                                                 \
    {                                                                                              \
        avx512_gemv_##form_##_32_##name, avx512_gemv_##form_##_64_##name,                          \
            avx512_gemv_##form_##_128_##name                                                       \
    }
    static const gemv_fn any[3][3] = {AVX512_ROW(0), AVX512_ROW(4), AVX512_ROW(8)};
    static const gemv_fn usual[2][2][3] = {{AVX512_ROW_16(4, f16), AVX512_ROW_16(8, f16)},
                                           {AVX512_ROW_16(4, bf16), AVX512_ROW_16(8, bf16)}};
    const int form = q->bits == 4 ? 1 : q->bits == 8 ? 2 : 0, g = q->group / 64;
    if (form && q->planes == 2 && q->s_kind == q->b_kind && q->s_kind != TNI_QK_F32)
        usual[q->s_kind == TNI_QK_BF16][form - 1][g](q, n0, n1);
    else
        any[form][g](q, n0, n1);
}

/* ---- gemm ---- */

/* A panel: 16 rows of w as bytes [K / 4][16][4], s [ng][16], b [ng][16]. */
AVX512_FN size_t avx512_panel_bytes(const tni_qmm *q) {
    return (size_t)(16 * q->K + 2 * 64 * ((q->ng + 15) & ~(int64_t)15));
}

static size_t avx512_scratch(const tni_qmm *q, int64_t n) {
    return (size_t)((n + 15) / 16) * avx512_panel_bytes(q);
}

AVX512_FN void avx512_transpose16(__m512i v[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* v[4 r + c]: rows 4 r .. 4 r + 3; its part p holds column 4 p + c. */
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        __m512i a = _mm512_shuffle_i32x4(v[c], v[4 + c], 0x88);
        __m512i b = _mm512_shuffle_i32x4(v[c], v[4 + c], 0xdd);
        __m512i d = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x88);
        __m512i e = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xdd);
        t[c] = _mm512_shuffle_i32x4(a, d, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(a, d, 0xdd);
        t[4 + c] = _mm512_shuffle_i32x4(b, e, 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(b, e, 0xdd);
    }
    for (int i = 0; i < 16; i++) v[i] = t[i];
}

/* [ng][16] floats from 16 rows of scales. */
static void avx512_pack_scales(const uint8_t *p, int64_t stride, int64_t last, int kind, int64_t ng,
                               float *out) {
    for (int64_t g = 0; g < ng; g += 16) {
        __m512i v[16];
        __mmask16 k = avx512_16(ng - g);
        for (int r = 0; r < 16; r++) {
            const uint8_t *at = p + (r < last ? r : last) * stride + g * tni_q_size(kind);
            if (kind == TNI_QK_F32) {
                v[r] = _mm512_maskz_loadu_epi32(k, at);
                continue;
            }
            __m256i h = _mm256_maskz_loadu_epi16(k, at);
            if (kind == TNI_QK_F16)
                v[r] = _mm512_castps_si512(_mm512_cvtph_ps(h));
            else
                v[r] = _mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
        }
        avx512_transpose16(v);
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + 16 * (g + i), v[i]);
    }
}

AVX512_FN void avx512_pack_weights(const tni_qmm *q, int64_t n, int64_t last, uint8_t *out,
                                   int form) {
    const int64_t bits = form ? form : q->bits, row = q->K * bits / 8, step = avx512_chunk(bits);
    const __m512i low = _mm512_set1_epi8(15);
    const avx512_spread sp = avx512_spread_of((int)bits);
    for (int64_t off = 0; off < row; off += step) {
        const int64_t left = row - off, take = left < step ? 16 * left / step : 16;
        __m512i v[16];
        for (int r = 0; r < 16; r++)
            v[r] = avx512_load(q->w + (n + (r < last ? r : last)) * q->w_row + off, form, bits, &sp,
                               left < step, left);
        avx512_transpose16(v);
        for (int64_t i = 0; i < take; i++, out += 64) {
            if (form == 4) {
                _mm512_storeu_si512(out, _mm512_and_si512(v[i], low));
                out += 64;
                v[i] = _mm512_and_si512(_mm512_srli_epi16(v[i], 4), low);
            }
            _mm512_storeu_si512(out, v[i]);
        }
    }
}

static void avx512_pack(const tni_qmm *q, int64_t n, int64_t n1, uint8_t *out) {
    int64_t last = n1 - n < 16 ? n1 - n - 1 : 15;
    float *scales = (float *)(void *)(out + 16 * q->K);
    if (q->bits == 4)
        avx512_pack_weights(q, n, last, out, 4);
    else if (q->bits == 8)
        avx512_pack_weights(q, n, last, out, 8);
    else
        avx512_pack_weights(q, n, last, out, 0);
    avx512_pack_scales(q->s + n * q->s_row, q->s_row, last, q->s_kind, q->ng, scales);
    avx512_pack_scales(q->b + n * q->b_row, q->b_row, last, q->b_kind, q->ng,
                       scales + 16 * ((q->ng + 15) & ~(int64_t)15));
}

typedef struct avx512_tile_at {
    const uint8_t *w, *x;
    const float *s, *b;
    int64_t ng;
    int group, planes;
} avx512_tile_at;

/* One chain (groups c, c + 4, ...) of 16 rows of w x mr rows of x. */
AVX512_FN void avx512_chain(const avx512_tile_at *t, int64_t c, const int mr, __m512 f[]) {
    const int64_t piece = t->group / 4, xstep = mr * (2 * t->group + 8);
#pragma GCC unroll 12
    for (int m = 0; m < mr; m++) f[m] = _mm512_setzero_ps();
    for (int64_t g = c; g < t->ng; g += TNI_Q_CHAINS) {
        const uint8_t *x = t->x + g * xstep;
        const float *a = (const float *)(const void *)(x + mr * 2 * t->group);
        __m512i d[AVX512_TILE];
#pragma GCC unroll 12
        for (int m = 0; m < mr; m++) d[m] = _mm512_setzero_si512();
        for (int p = 0; p < t->planes; p++) {
            const uint8_t *w = t->w + g * 16 * t->group, *xp = x + p * mr * t->group;
            if (p) {
#pragma GCC unroll 12
                for (int m = 0; m < mr; m++) d[m] = _mm512_slli_epi32(d[m], 8);
            }
            for (int64_t i = 0; i < piece; i++, w += 64, xp += 4 * mr) {
                const __m512i v = _mm512_loadu_si512(w);
#pragma GCC unroll 12
                for (int m = 0; m < mr; m++) {
                    int32_t k4;
                    memcpy(&k4, xp + 4 * m, 4);
                    d[m] = _mm512_dpbusd_epi32(d[m], v, _mm512_set1_epi32(k4));
                }
            }
        }
        const __m512 s = _mm512_loadu_ps(t->s + 16 * g), b = _mm512_loadu_ps(t->b + 16 * g);
#pragma GCC unroll 12
        for (int m = 0; m < mr; m++) {
            f[m] = _mm512_fmadd_ps(_mm512_mul_ps(s, _mm512_set1_ps(a[m])), _mm512_cvtepi32_ps(d[m]),
                                   f[m]);
            f[m] = _mm512_fmadd_ps(b, _mm512_set1_ps(a[mr + m]), f[m]);
        }
    }
}

AVX512_FN void avx512_tile(const avx512_tile_at *t, const int mr, uint8_t *y, int64_t y_row,
                           int kind, __mmask16 k) {
    __m512 f[AVX512_TILE];
    float sum[2][AVX512_TILE][16];
    for (int c = 0; c < TNI_Q_CHAINS; c++) {
        avx512_chain(t, c, mr, f);
#pragma GCC unroll 12
        for (int m = 0; m < mr; m++) {
            float *to = sum[c % 2][m];
            _mm512_storeu_ps(to, c < 2 ? f[m] : _mm512_add_ps(_mm512_loadu_ps(to), f[m]));
        }
    }
    for (int m = 0; m < mr; m++) {
        __m512 v = _mm512_add_ps(_mm512_loadu_ps(sum[0][m]), _mm512_loadu_ps(sum[1][m]));
        avx512_store16(y + m * y_row, kind, _mm512_add_ps(v, _mm512_setzero_ps()), k);
    }
}

#define AVX512_TILES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#define AVX512_TILE_FN(mr)                                                                         \
    static __attribute__((noinline)) void avx512_tile_##mr(const avx512_tile_at *t, uint8_t *y,    \
                                                           int64_t y_row, int kind, __mmask16 k) { \
        avx512_tile(t, mr, y, y_row, kind, k);                                                     \
    }
AVX512_TILES(AVX512_TILE_FN)

static void avx512_gemm(const tni_qmm *q, int64_t n0, int64_t n1, void *scratch) {
#define AVX512_TILE_ENTRY(mr) avx512_tile_##mr,
    static void (*const tile[])(const avx512_tile_at *, uint8_t *, int64_t, int,
                                __mmask16) = {NULL, AVX512_TILES(AVX512_TILE_ENTRY)};
    const int64_t size = (int64_t)avx512_panel_bytes(q), es = tni_q_size(q->x_kind);
    for (int64_t n = n0; n < n1; n += 16)
        avx512_pack(q, n, n1, (uint8_t *)scratch + (n - n0) / 16 * size);
    for (int64_t t = 0; t < q->tiles; t++) {
        int64_t m0, m1;
        tni_q_tile(q, t, &m0, &m1);
        for (int64_t n = n0; n < n1; n += 16) {
            const uint8_t *w = (uint8_t *)scratch + (n - n0) / 16 * size;
            const float *s = (const float *)(const void *)(w + 16 * q->K);
            const avx512_tile_at at = {.w = w,
                                       .x = q->xq + q->ng * avx512_x_group(q, m0),
                                       .s = s,
                                       .b = s + 16 * ((q->ng + 15) & ~(int64_t)15),
                                       .ng = q->ng,
                                       .group = q->group,
                                       .planes = q->planes};
            __mmask16 k = avx512_16(n1 - n);
            tile[m1 - m0](&at, q->y + m0 * q->y_row + n * es, q->y_row, q->x_kind, k);
        }
    }
}

#define QUANT_X_BYTES    avx512_x_bytes
#define QUANT_X_ROW      avx512_x_row
#define QUANT_X_TILE     avx512_x_tile
#define QUANT_SCRATCH    avx512_scratch
#define QUANT_GEMV       avx512_gemv
#define QUANT_GEMM       avx512_gemm
#define QUANT_TILE_ROWS  AVX512_TILE
#define QUANT_PANEL_ROWS AVX512_PANEL
#define QUANT_GEMM_FROM  6

#endif
