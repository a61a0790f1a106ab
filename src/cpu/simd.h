/* The vector words that kernels compiled once per ISA are written in: one source for AVX-512,
 * AVX2, NEON and plain scalars (ref). Include it from *_isa.c files only.
 *
 *   VN                 lanes: 16, 8, 4, 1
 *   vf, vi, vu         vectors of VN float, int32_t, uint32_t; + - * / & | ^ << >> and unary -
 *                      work on them as in C, lane by lane (vu where sums may wrap)
 *   vm                 a truth value a lane, made by the comparisons below
 *
 * Every word gives the same bits on every ISA, except the sign and payload of a NaN. Nothing
 * contracts a * b + c by itself (-ffp-contract=off): FMA is where vf_fma is written.
 * vf_max/vf_min: if either is NaN so is the result; of two zeros the second operand. */
#ifndef TNI_CPU_SIMD_H
#define TNI_CPU_SIMD_H

#include "base/half.h"
#include "cpu/isa.h"
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TNI_SIMD_ref     0
#define TNI_SIMD_avx2    1
#define TNI_SIMD_avx512  2
#define TNI_SIMD_neon    3
#define TNI_SIMD_CAT_(a) TNI_SIMD_##a
#define TNI_SIMD_CAT(a)  TNI_SIMD_CAT_(a)
#define TNI_SIMD         TNI_SIMD_CAT(TNI_ISA)

#define V_FN static inline __attribute__((always_inline, unused))

#if TNI_SIMD == TNI_SIMD_avx512
#include "cpu/simd_avx512.h"
#elif TNI_SIMD == TNI_SIMD_avx2
#include "cpu/simd_avx2.h"
#elif TNI_SIMD == TNI_SIMD_neon
#include "cpu/simd_neon.h"
#else
#include "cpu/simd_ref.h"
#endif

/* Words that follow from those of the ISA. */
V_FN vf vf_neg(vf a) { return vf_of_bits(vf_bits(a) ^ vu_set(0x80000000u)); }
V_FN vf vf_abs(vf a) { return vf_of_bits(vf_bits(a) & vu_set(0x7fffffffu)); }
V_FN vf vf_copysign(vf mag, vf sign) {
    return vf_of_bits((vf_bits(mag) & vu_set(0x7fffffffu)) | (vf_bits(sign) & vu_set(0x80000000u)));
}
V_FN vf vf_xorsign(vf a, vf sign) {
    return vf_of_bits(vf_bits(a) ^ (vf_bits(sign) & vu_set(0x80000000u)));
}
V_FN vf vf_fnma(vf a, vf b, vf c) { return vf_fma(vf_neg(a), b, c); } /* c - a * b */
V_FN vf vf_fms(vf a, vf b, vf c) { return vf_fma(a, b, vf_neg(c)); }  /* a * b - c */
V_FN vm vf_isnan(vf a) { return vf_ne(a, a); }
#ifndef V_HAS_MINMAX
V_FN vf vf_max(vf a, vf b) { return vf_sel(vf_isnan(a), a, vf_gtsel(a, b)); }
V_FN vf vf_min(vf a, vf b) { return vf_sel(vf_isnan(a), a, vf_ltsel(a, b)); }
#endif
/* 1.0f where m, else 0. */
V_FN vf vf_of_mask(vm m) { return vf_sel(m, vf_set(1.0f), vf_set(0.0f)); }
/* To f16 or bf16 and back: the rounding of one f16 or bf16 operation. */
V_FN vf vf_round_bf16(vf a) {
    vu u = vf_bits(a);
    vu r = (u + vu_set(0x7fffu) + ((u >> 16) & vu_set(1))) & vu_set(0xffff0000u);
    return vf_sel(vf_isnan(a), a, vf_of_bits(r));
}

/* ---- Partial vectors: n of the VN lanes (0 <= n <= VN), the others get `fill` ---- */
V_FN vf vf_load_n(const float *p, size_t n, float fill) {
    float t[VN];
    for (size_t i = 0; i < VN; i++) t[i] = i < n ? p[i] : fill;
    return vf_load(t);
}
V_FN void vf_store_n(float *p, vf a, size_t n) {
    float t[VN];
    vf_store(t, a);
    for (size_t i = 0; i < n && i < VN; i++) p[i] = t[i];
}

/* ---- Sums and maxima in the fixed order -------------------------------------------------
 * Sixteen virtual lanes: lane l is joined with l + 8, then l + 4, l + 2, l + 1. VW registers
 * make the 16 lanes; a row is added into 4 groups of 16 (element i goes to group i / 16 % 4),
 * the groups are joined as (0 + 2) + (1 + 3). Missing elements count as the identity. */
#define VW (16 / VN)

V_FN float v16_fold_sum(const float l[16]) {
    float t[8];
    for (int i = 0; i < 8; i++) t[i] = l[i] + l[i + 8];
    for (int i = 0; i < 4; i++) t[i] = t[i] + t[i + 4];
    t[0] = t[0] + t[2];
    t[1] = t[1] + t[3];
    return t[0] + t[1];
}
V_FN float v1_max(float a, float b) { return a != a || a > b ? a : b; }
V_FN float v1_min(float a, float b) { return a != a || a < b ? a : b; }
V_FN float v16_fold_max(const float l[16]) {
    float t[8];
    for (int i = 0; i < 8; i++) t[i] = v1_max(l[i], l[i + 8]);
    for (int i = 0; i < 4; i++) t[i] = v1_max(t[i], t[i + 4]);
    return v1_max(v1_max(t[0], t[2]), v1_max(t[1], t[3]));
}

/* Writes the body of a reduction of n values: value(i, n) gives VN of them from index i on,
 * with the identity `id` from n on; join(a, b) of vectors. Leaves 16 lanes in `lanes`. */
#define V_ROW_LANES(lanes, n, id, value, join)                                                     \
    do {                                                                                           \
        vf v_s[4][VW];                                                                             \
        for (int g_ = 0; g_ < 4; g_++)                                                             \
            for (int w_ = 0; w_ < VW; w_++) v_s[g_][w_] = vf_set(id);                              \
        size_t v_i = 0;                                                                            \
        for (; v_i + 64 <= (n); v_i += 64)                                                         \
            for (int g_ = 0; g_ < 4; g_++)                                                         \
                for (int w_ = 0; w_ < VW; w_++)                                                    \
                    v_s[g_][w_] =                                                                  \
                        join(v_s[g_][w_], value(v_i + (size_t)(g_ * 16 + w_ * VN), (size_t)-1));   \
        for (int g_ = 0; g_ < 4; g_++)                                                             \
            for (int w_ = 0; w_ < VW; w_++) {                                                      \
                size_t v_k = v_i + (size_t)(g_ * 16 + w_ * VN);                                    \
                if (v_k < (n)) v_s[g_][w_] = join(v_s[g_][w_], value(v_k, (size_t)(n)));           \
            }                                                                                      \
        for (int w_ = 0; w_ < VW; w_++)                                                            \
            vf_store((lanes) + w_ * VN,                                                            \
                     join(join(v_s[0][w_], v_s[2][w_]), join(v_s[1][w_], v_s[3][w_])));            \
    } while (0)
#define V_ADD(a, b) ((a) + (b))

V_FN vf v_part(const float *x, size_t i, size_t n, float id) {
    if (i + VN <= n || n == (size_t)-1) return vf_load(x + i);
    return vf_load_n(x + i, n - i, id);
}

/* Sums and the largest of rows of n floats (0 and -inf when n is 0). */
V_FN float v_row_sum(const float *x, size_t n) {
    float lanes[16];
#define V_VALUE(i, m) v_part(x, i, m, 0.0f)
    V_ROW_LANES(lanes, n, 0.0f, V_VALUE, V_ADD);
#undef V_VALUE
    return v16_fold_sum(lanes);
}
V_FN float v_row_sumsq(const float *x, size_t n) {
    float lanes[16];
#define V_VALUE(i, m) v_sq(v_part(x, i, m, 0.0f))
#define v_sq(a)       ((a) * (a))
    V_ROW_LANES(lanes, n, 0.0f, V_VALUE, V_ADD);
#undef v_sq
#undef V_VALUE
    return v16_fold_sum(lanes);
}
V_FN float v_row_dot(const float *x, const float *y, size_t n) {
    float lanes[16];
#define V_VALUE(i, m) (v_part(x, i, m, 0.0f) * v_part(y, i, m, 0.0f))
    V_ROW_LANES(lanes, n, 0.0f, V_VALUE, V_ADD);
#undef V_VALUE
    return v16_fold_sum(lanes);
}
V_FN float v_row_max(const float *x, size_t n) {
    float lanes[16];
#define V_VALUE(i, m) v_part(x, i, m, -INFINITY)
    V_ROW_LANES(lanes, n, -INFINITY, V_VALUE, vf_max);
#undef V_VALUE
    return v16_fold_max(lanes);
}

#endif
