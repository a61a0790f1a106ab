/* GGML's types: block sizes, names, and widening to float. Layouts are ggml's (ggml-common.h);
 * every rule does its roundings in the order of ggml's own reference code, so that the floats are
 * the same bits. Blocks lie at odd addresses in a file: everything is read bytewise (the compiler
 * makes loads of it). The types with code books are in gguf_iq.c. */
#include "io/gguf_types.h"
#include "base/err.h"
#include "base/half.h"
#include "io/gguf.h"
#include <string.h>

#define F16(p) tni_f16_to_f32(tni_le16(p))

/* ---- plain numbers ---- */

static void types_f64(const uint8_t *p, float *y) {
    double d;
    memcpy(&d, p, 8);
    *y = (float)d;
}

static void types_f16(const uint8_t *p, float *y) { *y = F16(p); }
static void types_bf16(const uint8_t *p, float *y) { *y = tni_bf16_to_f32(tni_le16(p)); }
static void types_i8(const uint8_t *p, float *y) { *y = (int8_t)*p; }
static void types_i16(const uint8_t *p, float *y) { *y = (int16_t)tni_le16(p); }
static void types_i32(const uint8_t *p, float *y) { *y = (float)(int32_t)tni_le32(p); }

static void types_i64(const uint8_t *p, float *y) {
    int64_t v;
    memcpy(&v, p, 8);
    *y = (float)v;
}

/* ---- blocks of 32: an f16 scale d, for _1 types an f16 minimum m ---- */

/* Low nibbles are values 0-15, high nibbles values 16-31. */
static void types_q4_0(const uint8_t *p, float *y) {
    float d = F16(p);
    for (int i = 0; i < 16; i++) {
        y[i] = d * (float)((p[2 + i] & 15) - 8);
        y[i + 16] = d * (float)((p[2 + i] >> 4) - 8);
    }
}

static void types_q4_1(const uint8_t *p, float *y) {
    float d = F16(p), m = F16(p + 2);
    for (int i = 0; i < 16; i++) {
        y[i] = d * (float)(p[4 + i] & 15) + m;
        y[i + 16] = d * (float)(p[4 + i] >> 4) + m;
    }
}

/* The fifth bit of value i is bit i of a u32 before the nibbles. */
static void types_q5(const uint8_t *p, int q[32]) {
    uint32_t high = tni_le32(p);
    for (int i = 0; i < 16; i++) {
        q[i] = (p[4 + i] & 15) | (int)(high >> i & 1) << 4;
        q[i + 16] = p[4 + i] >> 4 | (int)(high >> (i + 16) & 1) << 4;
    }
}

static void types_q5_0(const uint8_t *p, float *y) {
    float d = F16(p);
    int q[32];
    types_q5(p + 2, q);
    for (int i = 0; i < 32; i++) y[i] = d * (float)(q[i] - 16);
}

static void types_q5_1(const uint8_t *p, float *y) {
    float d = F16(p), m = F16(p + 2);
    int q[32];
    types_q5(p + 4, q);
    for (int i = 0; i < 32; i++) y[i] = d * (float)q[i] + m;
}

static void types_q8_0(const uint8_t *p, float *y) {
    float d = F16(p);
    for (int i = 0; i < 32; i++) y[i] = (float)(int8_t)p[2 + i] * d;
}

/* An activation format (scale, d * sum of q, q); no file should hold it, but it is harmless. */
static void types_q8_1(const uint8_t *p, float *y) {
    float d = F16(p);
    for (int i = 0; i < 32; i++) y[i] = (float)(int8_t)p[4 + i] * d;
}

/* ---- blocks of 256 with scales of their own for each 16 or 32 values ---- */

/* The 16 two-bit values of group i, of 16: values come in two halves of 128 from 32 bytes each,
 * bits 0-1 of those bytes first, then 2-3, 4-5, 6-7. */
static void types_pairs(const uint8_t *q, int i, int v[16]) {
    q += i / 8 * 32 + i % 2 * 16;
    int shift = i / 2 % 4 * 2;
    for (int k = 0; k < 16; k++) v[k] = q[k] >> shift & 3;
}

/* 16 bytes of (4-bit scale, 4-bit minimum), 64 of 2-bit values, d, dmin. */
static void types_q2_k(const uint8_t *p, float *y) {
    float d = F16(p + 80), min = F16(p + 82);
    int v[16];
    for (int i = 0; i < 16; i++, y += 16) {
        float dl = d * (float)(p[i] & 15), ml = min * (float)(p[i] >> 4);
        types_pairs(p + 16, i, v);
        for (int k = 0; k < 16; k++) y[k] = dl * (float)v[k] - ml;
    }
}

/* 32 bytes of high bits (0 means minus 4; bit i / 2 of byte k is value 16 i + k's), 64 of 2-bit
 * values as in Q2_K, 12 of 6-bit scales, d. Scale i has its low nibble in byte i % 8 and its high
 * bits in byte 8 + i % 4. */
static void types_q3_k(const uint8_t *p, float *y) {
    const uint8_t *s = p + 96;
    float d = F16(p + 108);
    int v[16];
    for (int i = 0; i < 16; i++, y += 16) {
        int low = s[i % 8] >> (i / 8 * 4) & 15, high = s[8 + i % 4] >> (i / 4 * 2) & 3;
        float dl = d * (float)((low | high << 4) - 32);
        const uint8_t *h = p + i % 2 * 16;
        types_pairs(p + 32, i, v);
        for (int k = 0; k < 16; k++) y[k] = dl * (float)(v[k] - 4 + (h[k] >> (i / 2) & 1) * 4);
    }
}

/* Eight 6-bit scales and minima in 12 bytes: 0-3 in the low six bits of bytes 0-3 and 4-7; 4-7
 * have their low nibbles in bytes 8-11 and their high bits in the tops of bytes 0-7. */
static void types_k4_scale(const uint8_t *s, int i, float *scale, float *min) {
    if (i < 4) {
        *scale = (float)(s[i] & 63), *min = (float)(s[i + 4] & 63);
        return;
    }
    *scale = (float)((s[i + 4] & 15) | s[i - 4] >> 6 << 4);
    *min = (float)(s[i + 4] >> 4 | s[i] >> 6 << 4);
}

/* d, dmin, 12 bytes of scales, 128 bytes of nibbles: 32 bytes give 32 low and then 32 high ones. */
static void types_q4_k(const uint8_t *p, float *y) {
    float d = F16(p), min = F16(p + 2), scale, m;
    for (int i = 0; i < 8; i++) {
        const uint8_t *q = p + 16 + i / 2 * 32;
        types_k4_scale(p + 4, i, &scale, &m);
        float dl = d * scale, ml = min * m;
        for (int k = 0; k < 32; k++) y[i * 32 + k] = dl * (float)(q[k] >> (i % 2 * 4) & 15) - ml;
    }
}

/* As Q4_K with 32 bytes of fifth bits before the nibbles: bit i of byte k is value 32 i + k's. */
static void types_q5_k(const uint8_t *p, float *y) {
    const uint8_t *high = p + 16;
    float d = F16(p), min = F16(p + 2), scale, m;
    for (int i = 0; i < 8; i++) {
        const uint8_t *q = p + 48 + i / 2 * 32;
        types_k4_scale(p + 4, i, &scale, &m);
        float dl = d * scale, ml = min * m;
        for (int k = 0; k < 32; k++) {
            int v = (q[k] >> (i % 2 * 4) & 15) | (high[k] >> i & 1) << 4;
            y[i * 32 + k] = dl * (float)v - ml;
        }
    }
}

/* 128 bytes of low nibbles, 64 of high pairs of bits as in Q2_K, 16 int8 scales, d. A half of 128
 * values has 64 bytes of nibbles: all low ones first, then the high ones. */
static void types_q6_k(const uint8_t *p, float *y) {
    float d = F16(p + 208);
    int v[16];
    for (int i = 0; i < 16; i++, y += 16) {
        float dl = d * (float)(int8_t)p[192 + i];
        const uint8_t *low = p + i / 8 * 64 + i % 4 * 16;
        int shift = i / 4 % 2 * 4;
        types_pairs(p + 128, i, v);
        for (int k = 0; k < 16; k++) y[k] = dl * (float)((low[k] >> shift & 15) + v[k] * 16 - 32);
    }
}

/* f32 d, 256 int8, 16 int16 sums: an activation format like Q8_1. */
static void types_q8_k(const uint8_t *p, float *y) {
    float d;
    memcpy(&d, p, 4);
    for (int i = 0; i < 256; i++) y[i] = (float)(int8_t)p[4 + i] * d;
}

/* ---- one, two and three levels ---- */

static void types_q1_0(const uint8_t *p, float *y) {
    float d = F16(p);
    for (int i = 0; i < 128; i++) y[i] = p[2 + i / 8] >> (i % 8) & 1 ? d : -d;
}

static void types_q2_0(const uint8_t *p, float *y) {
    float d = F16(p);
    for (int i = 0; i < 64; i++) y[i] = d * (float)((p[2 + i / 4] >> (i % 4 * 2) & 3) - 1);
}

/* Five digits base 3 in a byte, as a fraction of 256: multiplying by 3^k modulo 256 brings digit k
 * to the top. `n` bytes give n first digits, then n second ones, ... */
static float *types_trits(const uint8_t *p, int n, int digits, float d, float *y) {
    uint8_t power = 1;
    for (int k = 0; k < digits; k++, power = (uint8_t)(power * 3))
        for (int i = 0; i < n; i++) {
            uint8_t v = (uint8_t)(p[i] * power);
            *y++ = d * (float)((v * 3 >> 8) - 1);
        }
    return y;
}

static void types_tq1_0(const uint8_t *p, float *y) {
    float d = F16(p + 52);
    y = types_trits(p, 32, 5, d, y);
    y = types_trits(p + 32, 16, 5, d, y);
    types_trits(p + 48, 4, 4, d, y);
}

static void types_tq2_0(const uint8_t *p, float *y) {
    float d = F16(p + 64);
    for (int i = 0; i < 256; i++)
        y[i] = d * (float)((p[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3) - 1);
}

/* ---- 4-bit floats (OCP microscaling e2m1), doubled to be whole ---- */

static const int8_t types_e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* The scale is a power of two, 2^(e-127), halved because of the doubling. */
static void types_mxfp4(const uint8_t *p, float *y) {
    uint32_t e = *p;
    float d = tni_bits_f32(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    for (int i = 0; i < 16; i++) {
        y[i] = d * (float)types_e2m1[p[1 + i] & 15];
        y[i + 16] = d * (float)types_e2m1[p[1 + i] >> 4];
    }
}

/* Unsigned e4m3 (bias 7; 0x7f is NaN there and 0 to ggml), halved because of the doubling. */
static float types_ue4m3(uint8_t x) {
    int e = x >> 3 & 15, m = x & 7;
    if (x == 0x7f) return 0;
    if (!e) return (float)m * 0x1p-10f;
    return tni_bits_f32((uint32_t)(e - 8 + 127) << 23) * (1 + (float)m / 8);
}

/* Four scales, then 8 bytes for each 16 values: low nibbles first. */
static void types_nvfp4(const uint8_t *p, float *y) {
    for (int i = 0; i < 4; i++, y += 16) {
        const uint8_t *q = p + 4 + i * 8;
        float d = types_ue4m3(p[i]);
        for (int k = 0; k < 8; k++) {
            y[k] = d * (float)types_e2m1[q[k] & 15];
            y[k + 8] = d * (float)types_e2m1[q[k] >> 4];
        }
    }
}

/* ---- the table ---- */

typedef struct types_row {
    const char *name;
    uint16_t values, bytes;  /* of one block */
    tni_gguf_block_fn widen; /* NULL: it is float */
} types_row;

// clang-format off
static const types_row types_table[TNI_GGUF_TYPES] = {
    [TNI_GGUF_F32]     = {"F32", 1, 4, NULL},
    [TNI_GGUF_F16]     = {"F16", 1, 2, types_f16},
    [TNI_GGUF_Q4_0]    = {"Q4_0", 32, 18, types_q4_0},
    [TNI_GGUF_Q4_1]    = {"Q4_1", 32, 20, types_q4_1},
    [TNI_GGUF_Q5_0]    = {"Q5_0", 32, 22, types_q5_0},
    [TNI_GGUF_Q5_1]    = {"Q5_1", 32, 24, types_q5_1},
    [TNI_GGUF_Q8_0]    = {"Q8_0", 32, 34, types_q8_0},
    [TNI_GGUF_Q8_1]    = {"Q8_1", 32, 36, types_q8_1},
    [TNI_GGUF_Q2_K]    = {"Q2_K", 256, 84, types_q2_k},
    [TNI_GGUF_Q3_K]    = {"Q3_K", 256, 110, types_q3_k},
    [TNI_GGUF_Q4_K]    = {"Q4_K", 256, 144, types_q4_k},
    [TNI_GGUF_Q5_K]    = {"Q5_K", 256, 176, types_q5_k},
    [TNI_GGUF_Q6_K]    = {"Q6_K", 256, 210, types_q6_k},
    [TNI_GGUF_Q8_K]    = {"Q8_K", 256, 292, types_q8_k},
    [TNI_GGUF_IQ2_XXS] = {"IQ2_XXS", 256, 66, tni_gguf_iq2_xxs},
    [TNI_GGUF_IQ2_XS]  = {"IQ2_XS", 256, 74, tni_gguf_iq2_xs},
    [TNI_GGUF_IQ3_XXS] = {"IQ3_XXS", 256, 98, tni_gguf_iq3_xxs},
    [TNI_GGUF_IQ1_S]   = {"IQ1_S", 256, 50, tni_gguf_iq1_s},
    [TNI_GGUF_IQ4_NL]  = {"IQ4_NL", 32, 18, tni_gguf_iq4_nl},
    [TNI_GGUF_IQ3_S]   = {"IQ3_S", 256, 110, tni_gguf_iq3_s},
    [TNI_GGUF_IQ2_S]   = {"IQ2_S", 256, 82, tni_gguf_iq2_s},
    [TNI_GGUF_IQ4_XS]  = {"IQ4_XS", 256, 136, tni_gguf_iq4_xs},
    [TNI_GGUF_I8]      = {"I8", 1, 1, types_i8},
    [TNI_GGUF_I16]     = {"I16", 1, 2, types_i16},
    [TNI_GGUF_I32]     = {"I32", 1, 4, types_i32},
    [TNI_GGUF_I64]     = {"I64", 1, 8, types_i64},
    [TNI_GGUF_F64]     = {"F64", 1, 8, types_f64},
    [TNI_GGUF_IQ1_M]   = {"IQ1_M", 256, 56, tni_gguf_iq1_m},
    [TNI_GGUF_BF16]    = {"BF16", 1, 2, types_bf16},
    [TNI_GGUF_TQ1_0]   = {"TQ1_0", 256, 54, types_tq1_0},
    [TNI_GGUF_TQ2_0]   = {"TQ2_0", 256, 66, types_tq2_0},
    [TNI_GGUF_MXFP4]   = {"MXFP4", 32, 17, types_mxfp4},
    [TNI_GGUF_NVFP4]   = {"NVFP4", 64, 36, types_nvfp4},
    [TNI_GGUF_Q1_0]    = {"Q1_0", 128, 18, types_q1_0},
    [TNI_GGUF_Q2_0]    = {"Q2_0", 64, 18, types_q2_0},
};
// clang-format on

static const types_row *types_find(int type) {
    return type >= 0 && type < TNI_GGUF_TYPES && types_table[type].name ? &types_table[type] : NULL;
}

const char *tni_gguf_type_name(int type) {
    const types_row *t = types_find(type);
    return t ? t->name : "?";
}

bool tni_gguf_type_block(int type, size_t *values, size_t *bytes) {
    const types_row *t = types_find(type);
    if (t) *values = t->values, *bytes = t->bytes;
    return t != NULL;
}

int tni_gguf_dequant(int type, const void *src, int64_t n, float *dst) {
    const types_row *t = types_find(type);
    if (!t) return tni_fail(TN_EVALUE, "unknown GGUF type %d", type);
    if (n < 0 || n % t->values)
        return tni_fail(TN_EVALUE, "%lld values are not a whole number of %s's blocks of %d",
                        (long long)n, t->name, t->values);
    const uint8_t *p = src;
    if (!t->widen) {
        if (n) memcpy(dst, src, (size_t)n * sizeof *dst);
        return 0;
    }
    for (int64_t i = 0; i < n; i += t->values, p += t->bytes) t->widen(p, dst + i);
    return 0;
}
