/* Between gguf_types.c (the table of types) and gguf_iq.c (the types with code books). */
#ifndef TNI_IO_GGUF_TYPES_H
#define TNI_IO_GGUF_TYPES_H

#include <stdint.h>

static inline uint16_t tni_le16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static inline uint32_t tni_le32(const uint8_t *p) {
    return (uint32_t)tni_le16(p) | (uint32_t)tni_le16(p + 2) << 16;
}

/* Widens one block at p to floats at y. */
typedef void (*tni_gguf_block_fn)(const uint8_t *p, float *y);

void tni_gguf_iq2_xxs(const uint8_t *p, float *y);
void tni_gguf_iq2_xs(const uint8_t *p, float *y);
void tni_gguf_iq2_s(const uint8_t *p, float *y);
void tni_gguf_iq3_xxs(const uint8_t *p, float *y);
void tni_gguf_iq3_s(const uint8_t *p, float *y);
void tni_gguf_iq1_s(const uint8_t *p, float *y);
void tni_gguf_iq1_m(const uint8_t *p, float *y);
void tni_gguf_iq4_nl(const uint8_t *p, float *y);
void tni_gguf_iq4_xs(const uint8_t *p, float *y);

#endif
