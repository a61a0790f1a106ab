/* The IQ types: values are entries of fixed code books (IQ1, IQ2, IQ3) or of a table of sixteen
 * levels (IQ4), times a block's f16 scale and a small scale for each 16 or 32 values. */
#include "base/half.h"
#include "io/gguf_grids.h"
#include "io/gguf_types.h"
#include <stdbool.h>

#define F16(p) tni_f16_to_f32(tni_le16(p))

/* Levels a digit of a code book stands for. */
static const float iq_levels2[4] = {0x08, 0x19, 0x2b, 0};
static const float iq_levels3_xxs[8] = {0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3e};
static const float iq_levels3_s[8] = {0x01, 0x03, 0x05, 0x07, 0x09, 0x0b, 0x0d, 0x0f};
static const int8_t iq_levels4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

/* Eight signs from seven bits: the eighth makes the number of minus signs even. */
static uint8_t iq_signs(uint32_t bits) {
    bits &= 127;
    return (uint8_t)(bits | (uint32_t)__builtin_parity(bits) << 7);
}

/* n values d * level * sign from one entry with `width` bits a digit. */
static void iq_entry(uint16_t entry, int width, const float *levels, float d, uint8_t signs, int n,
                     float *y) {
    uint32_t mask = (1u << width) - 1;
    for (int i = 0; i < n; i++) {
        float v = d * levels[entry >> (i * width) & mask];
        y[i] = signs >> i & 1 ? -v : v;
    }
}

static void iq2_entry(uint16_t entry, float d, uint8_t signs, float *y) {
    iq_entry(entry, 2, iq_levels2, d, signs, 8, y);
}

static float iq2_scale(float d, uint32_t s) { return d * (0.5f + (float)s) * 0.25f; }

/* d; each 32 values: four entries in bytes, then a u32 of four times seven signs and a scale. */
void tni_gguf_iq2_xxs(const uint8_t *p, float *y) {
    float d = F16(p);
    for (int i = 0; i < 8; i++) {
        const uint8_t *q = p + 2 + i * 8;
        uint32_t s = tni_le32(q + 4);
        for (int k = 0; k < 4; k++)
            iq2_entry(gguf_grid_iq2_xxs[q[k]], iq2_scale(d, s >> 28), iq_signs(s >> (7 * k)),
                      y + i * 32 + k * 8);
    }
}

/* d; 32 u16 of entry (9 bits) and signs (7); 8 bytes of two scales, one for each 16 values. */
void tni_gguf_iq2_xs(const uint8_t *p, float *y) {
    float d = F16(p);
    for (int i = 0; i < 32; i++) {
        uint32_t q = tni_le16(p + 2 + i * 2), s = p[66 + i / 4] >> (i / 2 % 2 * 4) & 15;
        iq2_entry(gguf_grid_iq2_xs[q & 511], iq2_scale(d, s), iq_signs(q >> 9), y + i * 8);
    }
}

/* d; 32 low bytes of entries, 32 bytes of signs, 8 of entries' high pairs of bits, 8 of scales. */
void tni_gguf_iq2_s(const uint8_t *p, float *y) {
    float d = F16(p);
    for (int i = 0; i < 32; i++) {
        uint32_t high = p[66 + i / 4] >> (i % 4 * 2) & 3, s = p[74 + i / 4] >> (i / 2 % 2 * 4) & 15;
        iq2_entry(gguf_grid_iq2_s[p[2 + i] | high << 8], iq2_scale(d, s), p[34 + i], y + i * 8);
    }
}

/* d; 64 bytes of entries (four values each); 8 u32 of four times seven signs and a scale. */
void tni_gguf_iq3_xxs(const uint8_t *p, float *y) {
    float d = F16(p);
    for (int i = 0; i < 64; i++) {
        uint32_t s = tni_le32(p + 66 + i / 8 * 4);
        float dl = d * (0.5f + (float)(s >> 28)) * 0.5f;
        uint8_t signs = (uint8_t)(iq_signs(s >> (i / 2 % 4 * 7)) >> (i % 2 * 4));
        iq_entry(gguf_grid_iq3_xxs[p[2 + i]], 4, iq_levels3_xxs, dl, signs, 4, y + i * 4);
    }
}

/* d; 64 low bytes of entries, 8 of their ninth bits, 32 of signs, 4 of two scales each. */
void tni_gguf_iq3_s(const uint8_t *p, float *y) {
    float d = F16(p);
    for (int i = 0; i < 64; i++) {
        uint32_t high = p[66 + i / 8] >> (i % 8) & 1, s = p[106 + i / 16] >> (i / 8 % 2 * 4) & 15;
        uint8_t signs = (uint8_t)(p[74 + i / 2] >> (i % 2 * 4));
        iq_entry(gguf_grid_iq3_s[p[2 + i] | high << 8], 4, iq_levels3_s, d * (float)(1 + 2 * s),
                 signs, 4, y + i * 4);
    }
}

/* Digits 0, 1, 2 are -1, 0, 1, all of them moved by the same eighth up or down. */
static void iq1_entry(uint32_t entry, float d, bool down, float *y) {
    float delta = down ? -0.125f : 0.125f;
    for (int i = 0; i < 8; i++)
        y[i] = d * ((float)((int)(gguf_grid_iq1[entry] >> (i * 2) & 3) - 1) + delta);
}

/* d; 32 low bytes of entries; 8 u16 of four times three high bits, a scale and delta's sign. */
void tni_gguf_iq1_s(const uint8_t *p, float *y) {
    float d = F16(p);
    for (int i = 0; i < 32; i++) {
        uint32_t h = tni_le16(p + 34 + i / 4 * 2);
        iq1_entry(p[2 + i] | (h >> (i % 4 * 3) & 7) << 8, d * (float)(2 * (h >> 12 & 7) + 1),
                  h >> 15, y + i * 8);
    }
}

/* 32 low bytes of entries; 16 bytes of two times three high bits and delta's sign; 4 u16 of four
 * 3-bit scales (one for each 16 values) whose top nibbles together are d. */
void tni_gguf_iq1_m(const uint8_t *p, float *y) {
    uint32_t bits = 0;
    for (int i = 0; i < 4; i++) bits |= (uint32_t)(p[49 + i * 2] >> 4) << (i * 4);
    float d = tni_f16_to_f32((uint16_t)bits);
    for (int i = 0; i < 32; i++) {
        uint32_t h = p[32 + i / 2] >> (i % 2 * 4),
                 s = tni_le16(p + 48 + i / 8 * 2) >> (i / 2 % 4 * 3);
        iq1_entry(p[i] | (h & 7) << 8, d * (float)(2 * (s & 7) + 1), h >> 3 & 1, y + i * 8);
    }
}

static void iq4_32(const uint8_t *q, float d, float *y) {
    for (int i = 0; i < 16; i++) {
        y[i] = d * (float)iq_levels4[q[i] & 15];
        y[i + 16] = d * (float)iq_levels4[q[i] >> 4];
    }
}

void tni_gguf_iq4_nl(const uint8_t *p, float *y) { iq4_32(p + 2, F16(p), y); }

/* d; a u16 of eight times two high bits of scales, 4 bytes of their low nibbles; 128 of nibbles. */
void tni_gguf_iq4_xs(const uint8_t *p, float *y) {
    float d = F16(p);
    for (int i = 0; i < 8; i++) {
        int s = (p[4 + i / 2] >> (i % 2 * 4) & 15) | (tni_le16(p + 2) >> (i * 2) & 3) << 4;
        iq4_32(p + 8 + i * 16, d * (float)(s - 32), y + i * 32);
    }
}
