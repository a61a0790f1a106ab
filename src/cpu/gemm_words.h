/* Vector words that only the matrix product needs, on top of simd.h: partial loads and
 * stores, doubles, and the square transpose. */
#ifndef TNI_CPU_GEMM_WORDS_H
#define TNI_CPU_GEMM_WORDS_H

#include "cpu/simd.h"

#if TNI_SIMD == TNI_SIMD_avx512

typedef __mmask16 gm;
V_FN gm g_mask(int n) { return (gm)((1u << n) - 1); }
V_FN vf g_load(const float *p, gm m) { return _mm512_maskz_loadu_ps(m, p); }
V_FN void g_store(float *p, vf v, gm m) { _mm512_mask_storeu_ps(p, m, v); }

#define DN 8
typedef __m512d vd;
typedef __mmask8 dm;
V_FN vd d_set(double x) { return _mm512_set1_pd(x); }
V_FN vd d_load(const double *p) { return _mm512_loadu_pd(p); }
V_FN void d_store(double *p, vd v) { _mm512_storeu_pd(p, v); }
V_FN vd d_fma(vd a, vd b, vd c) { return _mm512_fmadd_pd(a, b, c); }
V_FN dm d_mask(int n) { return (dm)((1u << n) - 1); }
V_FN vd d_loadm(const double *p, dm m) { return _mm512_maskz_loadu_pd(m, p); }
V_FN void d_storem(double *p, vd v, dm m) { _mm512_mask_storeu_pd(p, m, v); }

V_FN void g_pair(vf *a, vf *b) { /* 2 x 2 blocks of one element */
    vf lo = _mm512_unpacklo_ps(*a, *b), hi = _mm512_unpackhi_ps(*a, *b);
    *a = lo;
    *b = hi;
}
V_FN void g_pair2(vf *a, vf *b) { /* of two elements */
    __m512d x = _mm512_castps_pd(*a), y = _mm512_castps_pd(*b);
    *a = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
    *b = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
}
/* 4 x 4 inside each 128-bit lane of four registers, in the order unpack leaves them. */
V_FN void g_quad(vf *r) {
    vf a0 = r[0], a1 = r[1], a2 = r[2], a3 = r[3];
    g_pair(&a0, &a1); /* a0: columns 0 1 of rows 0 1, a1: columns 2 3 */
    g_pair(&a2, &a3);
    g_pair2(&a0, &a2); /* a0: column 0, a2: column 1 */
    g_pair2(&a1, &a3);
    r[0] = a0;
    r[1] = a2;
    r[2] = a1;
    r[3] = a3;
}
V_FN void g_transpose(vf r[16]) {
    vf t[16];
    for (int i = 0; i < 4; i++) g_quad(r + 4 * i);
    /* r[4 i + c] now holds, per lane l, column 4 l + c of rows 4 i .. 4 i + 3. */
    for (int c = 0; c < 4; c++) {
        vf x0 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
        vf x1 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
        vf y0 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        vf y1 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_f32x4(x0, y0, 0x88);
        t[8 + c] = _mm512_shuffle_f32x4(x0, y0, 0xdd);
        t[4 + c] = _mm512_shuffle_f32x4(x1, y1, 0x88);
        t[12 + c] = _mm512_shuffle_f32x4(x1, y1, 0xdd);
    }
    for (int i = 0; i < 16; i++) r[i] = t[i];
}

#elif TNI_SIMD == TNI_SIMD_avx2

typedef __m256i gm;
V_FN gm g_mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
V_FN vf g_load(const float *p, gm m) { return _mm256_maskload_ps(p, m); }
V_FN void g_store(float *p, vf v, gm m) { _mm256_maskstore_ps(p, m, v); }

#define DN 4
typedef __m256d vd;
typedef __m256i dm;
V_FN vd d_set(double x) { return _mm256_set1_pd(x); }
V_FN vd d_load(const double *p) { return _mm256_loadu_pd(p); }
V_FN void d_store(double *p, vd v) { _mm256_storeu_pd(p, v); }
V_FN vd d_fma(vd a, vd b, vd c) { return _mm256_fmadd_pd(a, b, c); }
V_FN dm d_mask(int n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
V_FN vd d_loadm(const double *p, dm m) { return _mm256_maskload_pd(p, m); }
V_FN void d_storem(double *p, vd v, dm m) { _mm256_maskstore_pd(p, m, v); }

V_FN void g_transpose(vf r[8]) {
    vf t[8];
    for (int i = 0; i < 8; i += 4) { /* 4 x 4 inside each half */
        vf a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
        vf c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm256_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}

#elif TNI_SIMD == TNI_SIMD_neon

typedef int gm;
V_FN gm g_mask(int n) { return n; }
V_FN vf g_load(const float *p, gm m) { return m == VN ? vf_load(p) : vf_load_n(p, (size_t)m, 0); }
V_FN void g_store(float *p, vf v, gm m) { vf_store_n(p, v, (size_t)m); }

#define DN 2
typedef float64x2_t vd;
typedef int dm;
V_FN vd d_set(double x) { return vdupq_n_f64(x); }
V_FN vd d_load(const double *p) { return vld1q_f64(p); }
V_FN void d_store(double *p, vd v) { vst1q_f64(p, v); }
V_FN vd d_fma(vd a, vd b, vd c) { return vfmaq_f64(c, a, b); }
V_FN dm d_mask(int n) { return n; }
V_FN vd d_loadm(const double *p, dm m) {
    return m == DN ? vld1q_f64(p) : vcombine_f64(vld1_f64(p), vdup_n_f64(0));
}
V_FN void d_storem(double *p, vd v, dm m) {
    if (m == DN)
        vst1q_f64(p, v);
    else
        vst1_f64(p, vget_low_f64(v));
}

V_FN void g_transpose(vf r[4]) {
    float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

#else

typedef int gm;
V_FN gm g_mask(int n) { return n; }
V_FN vf g_load(const float *p, gm m) {
    (void)m;
    return *p;
}
V_FN void g_store(float *p, vf v, gm m) {
    (void)m;
    *p = v;
}

#define DN 1
typedef double vd;
typedef int dm;
V_FN vd d_set(double x) { return x; }
V_FN vd d_load(const double *p) { return *p; }
V_FN void d_store(double *p, vd v) { *p = v; }
V_FN vd d_fma(vd a, vd b, vd c) { return fma(a, b, c); }
V_FN dm d_mask(int n) { return n; }
V_FN vd d_loadm(const double *p, dm m) {
    (void)m;
    return *p;
}
V_FN void d_storem(double *p, vd v, dm m) {
    (void)m;
    *p = v;
}
V_FN void g_transpose(vf r[1]) { (void)r; }

#endif
#endif
