/* simd.h's words in AVX2 with FMA and F16C: truth values are all-ones lanes. */
#ifndef TNI_CPU_SIMD_AVX2_H
#define TNI_CPU_SIMD_AVX2_H

#include <immintrin.h>

#define VN 8
typedef __m256 vf;
typedef int32_t vi __attribute__((vector_size(32)));
typedef uint32_t vu __attribute__((vector_size(32)));
typedef int32_t vm __attribute__((vector_size(32)));

V_FN vf vf_set(float x) { return _mm256_set1_ps(x); }
V_FN vi vi_set(int32_t x) { return (vi)_mm256_set1_epi32(x); }
V_FN vu vu_set(uint32_t x) { return (vu)_mm256_set1_epi32((int)x); }
V_FN vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
V_FN void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
V_FN void vf_stream(float *p, vf a) { _mm256_stream_ps(p, a); } /* 32-byte aligned */
V_FN void v_fence(void) { _mm_sfence(); }
V_FN vf vf_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
V_FN vf vf_load_bf16(const uint16_t *p) {
    __m256i w = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
}
V_FN void vf_store_f16(uint16_t *p, vf a) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
V_FN void vf_store_bf16(uint16_t *p, vf a) {
    __m256i u = _mm256_castps_si256(a),
            odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(
        _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256i q = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
    r = _mm256_blendv_epi8(r, q, _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
    _mm_storeu_si128((__m128i *)p,
                     _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1)));
}
V_FN vf vf_load_u8(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
V_FN vf vf_load_i8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
V_FN vf vf_load_u16(const uint16_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)));
}
V_FN vf vf_load_i16(const int16_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)p)));
}
/* hi * 65536 and lo are exact, so that only the last sum rounds. */
V_FN vf vf_load_u32(const uint32_t *p) {
    __m256i u = _mm256_loadu_si256((const __m256i *)p);
    __m256 hi = _mm256_cvtepi32_ps(_mm256_srli_epi32(u, 16));
    __m256 lo = _mm256_cvtepi32_ps(_mm256_and_si256(u, _mm256_set1_epi32(0xffff)));
    return _mm256_add_ps(_mm256_mul_ps(hi, _mm256_set1_ps(65536.0f)), lo);
}
V_FN vf vf_load_i32(const int32_t *p) {
    return _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)p));
}

V_FN vu vf_bits(vf a) { return (vu)_mm256_castps_si256(a); }
V_FN vf vf_of_bits(vu a) { return _mm256_castsi256_ps((__m256i)a); }
V_FN vi vi_of_u(vu a) { return (vi)a; }
V_FN vu vu_of_i(vi a) { return (vu)a; }
V_FN vi vi_sar(vi a, int n) { return a >> n; }
V_FN vf vf_of_i(vi a) { return _mm256_cvtepi32_ps((__m256i)a); }
V_FN vi vi_trunc(vf a) { return (vi)_mm256_cvttps_epi32(a); }

V_FN vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
V_FN vf vf_sqrt(vf a) { return _mm256_sqrt_ps(a); }
V_FN vf vf_floor(vf a) { return _mm256_floor_ps(a); }
V_FN vf vf_ceil(vf a) { return _mm256_ceil_ps(a); }
V_FN vf vf_trunc(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC); }
V_FN vf vf_rint(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V_FN vf vf_gtsel(vf a, vf b) { return _mm256_max_ps(a, b); }
V_FN vf vf_ltsel(vf a, vf b) { return _mm256_min_ps(a, b); }
/* In two steps, of which the first is exact: rounds once, also into the subnormals. */
V_FN vf vf_ldexp(vf p, vf k) {
    vi i = vi_trunc(k), h = i >> 1;
    vf a = vf_of_bits((vu)(h + vi_set(127)) << 23), b = vf_of_bits((vu)(i - h + vi_set(127)) << 23);
    return p * a * b;
}

V_FN vm vf_lt(vf a, vf b) { return (vm)_mm256_cmp_ps(a, b, _CMP_LT_OQ); }
V_FN vm vf_le(vf a, vf b) { return (vm)_mm256_cmp_ps(a, b, _CMP_LE_OQ); }
V_FN vm vf_eq(vf a, vf b) { return (vm)_mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
V_FN vm vf_ne(vf a, vf b) { return (vm)_mm256_cmp_ps(a, b, _CMP_NEQ_UQ); }
V_FN vm vi_eq(vi a, vi b) { return (vm)_mm256_cmpeq_epi32((__m256i)a, (__m256i)b); }
V_FN vm vi_lt(vi a, vi b) { return (vm)_mm256_cmpgt_epi32((__m256i)b, (__m256i)a); }
V_FN vm vm_and(vm a, vm b) { return a & b; }
V_FN vm vm_or(vm a, vm b) { return a | b; }
V_FN vm vm_xor(vm a, vm b) { return a ^ b; }
V_FN vm vm_not(vm a) { return ~a; }
V_FN bool vm_any(vm a) { return _mm256_movemask_ps((__m256)a) != 0; }
V_FN vf vf_sel(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, (__m256)m); }
V_FN vi vi_sel(vm m, vi a, vi b) {
    return (vi)_mm256_blendv_epi8((__m256i)b, (__m256i)a, (__m256i)m);
}
V_FN void vf_store_bool(uint8_t *p, vf a) {
    __m256i m = (__m256i)vf_ne(a, _mm256_setzero_ps());
    __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    _mm_storel_epi64((__m128i *)p, _mm_and_si128(_mm_packs_epi16(w, w), _mm_set1_epi8(1)));
}
V_FN vf vf_round_f16(vf a) {
    return _mm256_cvtph_ps(_mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

#endif
