/* simd.h's words for one lane of plain C: the reference that the vector ISAs are tested
 * against. fmaf may be a library call here; it is exact either way. */
#ifndef TNI_CPU_SIMD_REF_H
#define TNI_CPU_SIMD_REF_H

#define VN 1
typedef float vf;
typedef int32_t vi;
typedef uint32_t vu;
typedef bool vm;

V_FN vf vf_set(float x) { return x; }
V_FN vi vi_set(int32_t x) { return x; }
V_FN vu vu_set(uint32_t x) { return x; }
V_FN vf vf_load(const float *p) { return *p; }
V_FN void vf_store(float *p, vf a) { *p = a; }
V_FN void vf_stream(float *p, vf a) { *p = a; }
V_FN void v_fence(void) {}
V_FN vf vf_load_f16(const uint16_t *p) { return tni_f16_to_f32(*p); }
V_FN vf vf_load_bf16(const uint16_t *p) { return tni_bf16_to_f32(*p); }
V_FN void vf_store_f16(uint16_t *p, vf a) { *p = tni_f32_to_f16(a); }
V_FN void vf_store_bf16(uint16_t *p, vf a) { *p = tni_f32_to_bf16(a); }
V_FN vf vf_load_u8(const uint8_t *p) { return (float)*p; }
V_FN vf vf_load_i8(const int8_t *p) { return (float)*p; }
V_FN vf vf_load_u16(const uint16_t *p) { return (float)*p; }
V_FN vf vf_load_i16(const int16_t *p) { return (float)*p; }
V_FN vf vf_load_u32(const uint32_t *p) { return (float)*p; }
V_FN vf vf_load_i32(const int32_t *p) { return (float)*p; }
V_FN void vf_store_bool(uint8_t *p, vf a) { *p = a != 0; }

V_FN vu vf_bits(vf a) { return tni_f32_bits(a); }
V_FN vf vf_of_bits(vu a) { return tni_bits_f32(a); }
V_FN vi vi_of_u(vu a) { return (int32_t)a; }
V_FN vu vu_of_i(vi a) { return (uint32_t)a; }
V_FN vi vi_sar(vi a, int n) { return a >> n; }
V_FN vf vf_of_i(vi a) { return (float)a; }
/* What the processors give out of range and for NaN; results are discarded there. */
V_FN vi vi_trunc(vf a) { return a > -0x1p31f && a < 0x1p31f ? (int32_t)a : INT32_MIN; }

V_FN vf vf_fma(vf a, vf b, vf c) { return fmaf(a, b, c); }
V_FN vf vf_sqrt(vf a) { return sqrtf(a); }
V_FN vf vf_floor(vf a) { return floorf(a); }
V_FN vf vf_ceil(vf a) { return ceilf(a); }
V_FN vf vf_trunc(vf a) { return truncf(a); }
V_FN vf vf_rint(vf a) { return rintf(a); } /* half to even */
V_FN vf vf_gtsel(vf a, vf b) { return a > b ? a : b; }
V_FN vf vf_ltsel(vf a, vf b) { return a < b ? a : b; }
/* p * 2^k for integral k in [-150, 128] and |p| in [0.25, 4), rounded once. */
V_FN vf vf_ldexp(vf p, vf k) {
    int32_t i = vi_trunc(k), h = i >> 1;
    return p * tni_bits_f32((uint32_t)(h + 127) << 23) *
           tni_bits_f32((uint32_t)(i - h + 127) << 23);
}

V_FN vm vf_lt(vf a, vf b) { return a < b; }
V_FN vm vf_le(vf a, vf b) { return a <= b; }
V_FN vm vf_eq(vf a, vf b) { return a == b; }
V_FN vm vf_ne(vf a, vf b) { return a != b; }
V_FN vm vi_eq(vi a, vi b) { return a == b; }
V_FN vm vi_lt(vi a, vi b) { return a < b; }
V_FN vm vm_and(vm a, vm b) { return a && b; }
V_FN vm vm_or(vm a, vm b) { return a || b; }
V_FN vm vm_xor(vm a, vm b) { return a != b; }
V_FN vm vm_not(vm a) { return !a; }
V_FN bool vm_any(vm a) { return a; }
V_FN vf vf_sel(vm m, vf a, vf b) { return m ? a : b; }
V_FN vi vi_sel(vm m, vi a, vi b) { return m ? a : b; }
V_FN vf vf_round_f16(vf a) { return tni_f16_to_f32(tni_f32_to_f16(a)); }

#endif
