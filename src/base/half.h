/* f16 (IEEE binary16) and bf16 as bits; round to nearest even, NaN kept quiet.
 * Scalar forms for references and single values; kernels have vector forms. */
#ifndef TNI_BASE_HALF_H
#define TNI_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t tni_f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static inline float tni_bits_f32(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline float tni_bf16_to_f32(uint16_t h) { return tni_bits_f32((uint32_t)h << 16); }

static inline uint16_t tni_f32_to_bf16(float f) {
    uint32_t u = tni_f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float tni_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 31u, man = h & 0x3ffu;
    if (exp == 31) {
        if (man) man |= 0x200u;
        return tni_bits_f32(sign | 0x7f800000u | (man << 13));
    }
    if (exp == 0) { /* zero and subnormals: man * 2^-24 is exact in f32 */
        float f = (float)man * 0x1p-24f;
        return tni_bits_f32(tni_f32_bits(f) | sign);
    }
    return tni_bits_f32(sign | ((exp + 112u) << 23) | (man << 13));
}

static inline uint16_t tni_f32_to_f16(float f) {
    uint32_t u = tni_f32_bits(f), sign = (u >> 16) & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((u >> 13) & 0x1ffu));
    if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* >= 65520 rounds to infinity */
    if (u <
        0x38800000u) { /* below 2^-14: adding 0.5 leaves the rounded subnormal in the low bits */
        float g = tni_bits_f32(u) + 0.5f;
        return (uint16_t)(sign | (tni_f32_bits(g) - 0x3f000000u));
    }
    u += 0xfffu + ((u >> 13) & 1u);
    return (uint16_t)(sign | ((u - 0x38000000u) >> 13));
}

#endif
