/* GGUF's 32-value blocks as MLX's affine groups of 32: w = scale * q + bias.
 *
 *   Q4_0, Q5_0, Q8_0   d * (q - z), z = 8, 16, 128    scale d, bias -z d (Q8_0's int8 plus 128)
 *   Q4_1, Q5_1         d * q + m                      scale d, bias m
 *
 * Nothing is lost: d has 11 significant bits, so d * q has at most 19 and d * q - z * d is exact in
 * f32; the _1 types round once, in the same place as GGML's own rule. As f16, -z d is d with
 * another exponent: exact unless it leaves f16's range, which tni_gguf_affine_needs_f32 finds.
 *
 * GGUF keeps values 0-15 in low and 16-31 in high nibbles; MLX wants them in order, least
 * significant bits first. Values are moved eight at a time in a 64-bit word, one byte each, which
 * is fast enough in plain C (a 135M-weight model in some 40 ms on one core). Byte order of the
 * machine is little-endian, as everywhere in this library. */
#include "base/err.h"
#include "base/half.h"
#include "io/gguf.h"
#include "io/gguf_types.h"
#include <string.h>

enum { AFFINE_GROUP = 32 };

/* bits: of q; zero: z above, 0 when the block has a minimum of its own; at: where q begins. */
typedef struct affine_kind {
    int bits, zero, at;
    size_t bytes;
} affine_kind;

static bool affine_find(int type, affine_kind *k) {
    switch (type) {
    case TNI_GGUF_Q4_0:
        return *k = (affine_kind){4, 8, 2, 18}, true;
    case TNI_GGUF_Q4_1:
        return *k = (affine_kind){4, 0, 4, 20}, true;
    case TNI_GGUF_Q5_0:
        return *k = (affine_kind){5, 16, 2, 22}, true;
    case TNI_GGUF_Q5_1:
        return *k = (affine_kind){5, 0, 4, 24}, true;
    case TNI_GGUF_Q8_0:
        return *k = (affine_kind){8, 128, 2, 34}, true;
    default:
        return false;
    }
}

static uint64_t affine_load(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* Eight nibbles, one in each byte, to 32 bits. */
static uint32_t affine_pack4(uint64_t x) {
    x = (x | x >> 4) & 0x00ff00ff00ff00ffu;
    x = (x | x >> 8) & 0x0000ffff0000ffffu;
    return (uint32_t)(x | x >> 16);
}

/* Eight 5-bit values, one in each byte, to 40 bits. */
static uint64_t affine_pack5(uint64_t x) {
    x = (x & 0x001f001f001f001fu) | (x & 0x1f001f001f001f00u) >> 3;
    x = (x & 0x000003ff000003ffu) | (x & 0x03ff000003ff0000u) >> 6;
    return (x & 0xfffff) | (x >> 32 & 0xfffff) << 20;
}

/* Bit i of b to bit 4 of byte i. */
static uint64_t affine_spread(uint64_t b) {
    b = (b & 255) * 0x0101010101010101u & 0x8040201008040201u;
    return (b + 0x7f7f7f7f7f7f7f7fu) >> 3 & 0x1010101010101010u;
}

static const uint64_t affine_low = 0x0f0f0f0f0f0f0f0fu;

static void affine_q4(const uint8_t *p, uint8_t *to) {
    uint64_t a = affine_load(p), b = affine_load(p + 8);
    uint32_t q[4] = {affine_pack4(a & affine_low), affine_pack4(b & affine_low),
                     affine_pack4(a >> 4 & affine_low), affine_pack4(b >> 4 & affine_low)};
    memcpy(to, q, sizeof q);
}

/* p: u32 of fifth bits, then the nibbles. */
static void affine_q5(const uint8_t *p, uint8_t *to) {
    uint32_t high = tni_le32(p);
    uint64_t a = affine_load(p + 4), b = affine_load(p + 12);
    uint64_t x[4] = {a & affine_low, b & affine_low, a >> 4 & affine_low, b >> 4 & affine_low};
    for (int i = 0; i < 4; i++) {
        uint64_t v = affine_pack5(x[i] | affine_spread(high >> (8 * i)));
        memcpy(to + 5 * i, &v, 5);
    }
}

static void affine_q8(const uint8_t *p, uint8_t *to) {
    for (int i = 0; i < 4; i++) {
        uint64_t v = affine_load(p + 8 * i) ^ 0x8080808080808080u;
        memcpy(to + 8 * i, &v, 8);
    }
}

/* -zero * d as f16; zero is a power of two, so that a normal d changes only its exponent. */
static uint16_t affine_bias16(uint16_t d, int zero) {
    uint32_t exponent = d >> 10 & 31, up = (uint32_t)__builtin_ctz((unsigned)zero);
    if (exponent && exponent + up < 31) return (uint16_t)((d ^ 0x8000u) + (up << 10));
    return tni_f32_to_f16((float)-zero * tni_f16_to_f32(d));
}

static void affine_scales16(const affine_kind *k, const uint8_t *p, uint8_t *scale, uint8_t *bias) {
    uint16_t d = tni_le16(p), b = k->zero ? affine_bias16(d, k->zero) : tni_le16(p + 2);
    memcpy(scale, &d, 2);
    memcpy(bias, &b, 2);
}

static void affine_scales32(const affine_kind *k, const uint8_t *p, uint8_t *scale, uint8_t *bias) {
    float d = tni_f16_to_f32(tni_le16(p));
    float b = k->zero ? (float)-k->zero * d : tni_f16_to_f32(tni_le16(p + 2));
    memcpy(scale, &d, 4);
    memcpy(bias, &b, 4);
}

int tni_gguf_to_affine(int type, const void *src, int64_t rows, int64_t cols, int64_t row_begin,
                       int64_t row_end, void *q, void *scales, void *biases, bool f32_scales) {
    affine_kind k;
    if (!affine_find(type, &k))
        return tni_fail(TN_EVALUE, "%s is not one of the types with an affine form",
                        tni_gguf_type_name(type));
    if (cols < 0 || cols % AFFINE_GROUP || row_begin < 0 || row_begin > row_end || row_end > rows)
        return tni_fail(
            TN_EVALUE,
            "rows %lld to %lld of a %lld x %lld matrix cannot be repacked; columns have "
            "to be a multiple of 32",
            (long long)row_begin, (long long)row_end, (long long)rows, (long long)cols);
    size_t groups = (size_t)(cols / AFFINE_GROUP), i = (size_t)row_begin * groups,
           end = (size_t)row_end * groups, step = (size_t)k.bits * 4;
    const uint8_t *p = (const uint8_t *)src + i * k.bytes;
    uint8_t *to = (uint8_t *)q + i * step, *s = scales, *b = biases;
    for (; i < end; i++, p += k.bytes, to += step) {
        if (f32_scales)
            affine_scales32(&k, p, s + i * 4, b + i * 4);
        else
            affine_scales16(&k, p, s + i * 2, b + i * 2);
        if (k.bits == 4)
            affine_q4(p + k.at, to);
        else if (k.bits == 5)
            affine_q5(p + k.at, to);
        else
            affine_q8(p + k.at, to);
    }
    return 0;
}

bool tni_gguf_affine_needs_f32(int type, const void *src, int64_t rows, int64_t cols) {
    affine_kind k;
    if (!affine_find(type, &k) || !k.zero || rows < 0 || cols < 0) return false;
    size_t n = (size_t)rows * (size_t)(cols / AFFINE_GROUP);
    uint32_t up = (uint32_t)__builtin_ctz((unsigned)k.zero);
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i++, p += k.bytes) {
        uint32_t exponent = tni_le16(p) >> 10 & 31;
        if (exponent < 31 && exponent + up >= 31) return true; /* infinite d is lost anyhow */
    }
    return false;
}
