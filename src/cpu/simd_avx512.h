/* simd.h's words in AVX-512 (F, BW, DQ, VL): truth values live in mask registers. */
#ifndef TNI_CPU_SIMD_AVX512_H
#define TNI_CPU_SIMD_AVX512_H

#include <immintrin.h>

#define VN 16
typedef __m512 vf;
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef __mmask16 vm;

V_FN vf vf_set(float x) { return _mm512_set1_ps(x); }
V_FN vi vi_set(int32_t x) { return (vi)_mm512_set1_epi32(x); }
V_FN vu vu_set(uint32_t x) { return (vu)_mm512_set1_epi32((int)x); }
V_FN vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
V_FN void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
V_FN void vf_stream(float *p, vf a) { _mm512_stream_ps(p, a); } /* 64-byte aligned */
V_FN void v_fence(void) { _mm_sfence(); }
V_FN vf vf_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
V_FN vf vf_load_bf16(const uint16_t *p) {
    __m512i w = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}
V_FN void vf_store_f16(uint16_t *p, vf a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
V_FN void vf_store_bf16(uint16_t *p, vf a) {
    __m512i u = _mm512_castps_si512(a),
            odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_srli_epi32(
        _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __m512i q = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    r = _mm512_mask_mov_epi32(r, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), q);
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(r));
}
V_FN vf vf_load_u8(const uint8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
V_FN vf vf_load_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
V_FN vf vf_load_u16(const uint16_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)));
}
V_FN vf vf_load_i16(const int16_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)p)));
}
V_FN vf vf_load_u32(const uint32_t *p) { return _mm512_cvtepu32_ps(_mm512_loadu_si512(p)); }
V_FN vf vf_load_i32(const int32_t *p) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }

V_FN vu vf_bits(vf a) { return (vu)_mm512_castps_si512(a); }
V_FN vf vf_of_bits(vu a) { return _mm512_castsi512_ps((__m512i)a); }
V_FN vi vi_of_u(vu a) { return (vi)a; }
V_FN vu vu_of_i(vi a) { return (vu)a; }
V_FN vi vi_sar(vi a, int n) { return a >> n; }
V_FN vf vf_of_i(vi a) { return _mm512_cvtepi32_ps((__m512i)a); }
V_FN vi vi_trunc(vf a) { return (vi)_mm512_cvttps_epi32(a); }

V_FN vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
V_FN vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
V_FN vf vf_floor(vf a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
V_FN vf vf_ceil(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC); }
V_FN vf vf_trunc(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC); }
V_FN vf vf_rint(vf a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
V_FN vf vf_gtsel(vf a, vf b) { return _mm512_max_ps(a, b); }
V_FN vf vf_ltsel(vf a, vf b) { return _mm512_min_ps(a, b); }
/* simd.h's, in two instructions instead of three: a where it is NaN, else the processor's. */
#define V_HAS_MINMAX 1
V_FN vf vf_max(vf a, vf b) {
    return _mm512_mask_max_ps(a, _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q), a, b);
}
V_FN vf vf_min(vf a, vf b) {
    return _mm512_mask_min_ps(a, _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q), a, b);
}
V_FN vf vf_ldexp(vf p, vf k) { return _mm512_scalef_ps(p, k); }

V_FN vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
V_FN vm vf_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
V_FN vm vf_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
V_FN vm vf_ne(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
V_FN vm vi_eq(vi a, vi b) { return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b); }
V_FN vm vi_lt(vi a, vi b) { return _mm512_cmplt_epi32_mask((__m512i)a, (__m512i)b); }
V_FN vm vm_and(vm a, vm b) { return (vm)(a & b); }
V_FN vm vm_or(vm a, vm b) { return (vm)(a | b); }
V_FN vm vm_xor(vm a, vm b) { return (vm)(a ^ b); }
V_FN vm vm_not(vm a) { return (vm)~a; }
V_FN bool vm_any(vm a) { return a != 0; }
V_FN vf vf_sel(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
V_FN vi vi_sel(vm m, vi a, vi b) { return (vi)_mm512_mask_blend_epi32(m, (__m512i)b, (__m512i)a); }
V_FN void vf_store_bool(uint8_t *p, vf a) {
    vm m = vf_ne(a, _mm512_setzero_ps());
    _mm_storeu_si128((__m128i *)p, _mm_maskz_set1_epi8(m, 1));
}
V_FN vf vf_round_f16(vf a) {
    return _mm512_cvtph_ps(_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

#endif
