/* simd.h's words in AArch64 NEON: four lanes, truth values are all-ones lanes. */
#ifndef TNI_CPU_SIMD_NEON_H
#define TNI_CPU_SIMD_NEON_H

#include <arm_neon.h>

#define VN 4
typedef float32x4_t vf;
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));
typedef int32_t vm __attribute__((vector_size(16)));

V_FN vf vf_set(float x) { return vdupq_n_f32(x); }
V_FN vi vi_set(int32_t x) { return (vi)vdupq_n_s32(x); }
V_FN vu vu_set(uint32_t x) { return (vu)vdupq_n_u32(x); }
V_FN vf vf_load(const float *p) { return vld1q_f32(p); }
V_FN void vf_store(float *p, vf a) { vst1q_f32(p, a); }
V_FN void vf_stream(float *p, vf a) { vst1q_f32(p, a); }
V_FN void v_fence(void) {}
V_FN vf vf_load_f16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
V_FN vf vf_load_bf16(const uint16_t *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
V_FN void vf_store_f16(uint16_t *p, vf a) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a))); }
V_FN void vf_store_bf16(uint16_t *p, vf a) {
    uint32x4_t u = vreinterpretq_u32_f32(a), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    uint32x4_t r = vshrq_n_u32(vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff))), 16);
    uint32x4_t q = vorrq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(0x40));
    vst1_u16(p, vmovn_u32(vbslq_u32(vceqq_f32(a, a), r, q)));
}
V_FN uint16x4_t v_neon_u8(const void *p) {
    uint32_t w;
    memcpy(&w, p, 4);
    return vget_low_u16(vmovl_u8(vcreate_u8(w)));
}
V_FN vf vf_load_u8(const uint8_t *p) { return vcvtq_f32_u32(vmovl_u16(v_neon_u8(p))); }
V_FN vf vf_load_i8(const int8_t *p) {
    uint32_t w;
    memcpy(&w, p, 4);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(w)))));
}
V_FN vf vf_load_u16(const uint16_t *p) { return vcvtq_f32_u32(vmovl_u16(vld1_u16(p))); }
V_FN vf vf_load_i16(const int16_t *p) { return vcvtq_f32_s32(vmovl_s16(vld1_s16(p))); }
V_FN vf vf_load_u32(const uint32_t *p) { return vcvtq_f32_u32(vld1q_u32(p)); }
V_FN vf vf_load_i32(const int32_t *p) { return vcvtq_f32_s32(vld1q_s32(p)); }

V_FN vu vf_bits(vf a) { return (vu)vreinterpretq_u32_f32(a); }
V_FN vf vf_of_bits(vu a) { return vreinterpretq_f32_u32((uint32x4_t)a); }
V_FN vi vi_of_u(vu a) { return (vi)a; }
V_FN vu vu_of_i(vi a) { return (vu)a; }
V_FN vi vi_sar(vi a, int n) { return a >> n; }
V_FN vf vf_of_i(vi a) { return vcvtq_f32_s32((int32x4_t)a); }
V_FN vi vi_trunc(vf a) { return (vi)vcvtq_s32_f32(a); }

V_FN vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
V_FN vf vf_sqrt(vf a) { return vsqrtq_f32(a); }
V_FN vf vf_floor(vf a) { return vrndmq_f32(a); }
V_FN vf vf_ceil(vf a) { return vrndpq_f32(a); }
V_FN vf vf_trunc(vf a) { return vrndq_f32(a); }
V_FN vf vf_rint(vf a) { return vrndnq_f32(a); }
V_FN vf vf_gtsel(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
V_FN vf vf_ltsel(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
/* In two steps, of which the first is exact: rounds once, also into the subnormals. */
V_FN vf vf_ldexp(vf p, vf k) {
    vi i = vi_trunc(k), h = i >> 1;
    vf a = vf_of_bits((vu)(h + vi_set(127)) << 23), b = vf_of_bits((vu)(i - h + vi_set(127)) << 23);
    return p * a * b;
}

V_FN vm vf_lt(vf a, vf b) { return (vm)vcltq_f32(a, b); }
V_FN vm vf_le(vf a, vf b) { return (vm)vcleq_f32(a, b); }
V_FN vm vf_eq(vf a, vf b) { return (vm)vceqq_f32(a, b); }
V_FN vm vf_ne(vf a, vf b) { return ~(vm)vceqq_f32(a, b); }
V_FN vm vi_eq(vi a, vi b) { return (vm)vceqq_s32((int32x4_t)a, (int32x4_t)b); }
V_FN vm vi_lt(vi a, vi b) { return (vm)vcltq_s32((int32x4_t)a, (int32x4_t)b); }
V_FN vm vm_and(vm a, vm b) { return a & b; }
V_FN vm vm_or(vm a, vm b) { return a | b; }
V_FN vm vm_xor(vm a, vm b) { return a ^ b; }
V_FN vm vm_not(vm a) { return ~a; }
V_FN bool vm_any(vm a) { return vmaxvq_u32((uint32x4_t)a) != 0; }
V_FN vf vf_sel(vm m, vf a, vf b) { return vbslq_f32((uint32x4_t)m, a, b); }
V_FN vi vi_sel(vm m, vi a, vi b) {
    return (vi)vbslq_s32((uint32x4_t)m, (int32x4_t)a, (int32x4_t)b);
}
V_FN void vf_store_bool(uint8_t *p, vf a) {
    uint16x4_t h = vmovn_u32((uint32x4_t)(vf_ne(a, vdupq_n_f32(0)) & vi_set(1)));
    uint64_t w = vget_lane_u64(vreinterpret_u64_u8(vmovn_u16(vcombine_u16(h, h))), 0);
    memcpy(p, &w, 4);
}
V_FN vf vf_round_f16(vf a) { return vcvt_f32_f16(vcvt_f16_f32(a)); }

#endif
