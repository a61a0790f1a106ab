/* Threefry-2x32, 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011), the counter-based generator of JAX and MLX. */
#ifndef TNI_BASE_THREEFRY_H
#define TNI_BASE_THREEFRY_H

#include <stdint.h>

typedef struct tni_u32x2 {
    uint32_t x, y;
} tni_u32x2;

static inline tni_u32x2 tni_threefry(tni_u32x2 key, tni_u32x2 counter) {
    static const uint8_t turn[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
    uint32_t ks[3] = {key.x, key.y, key.x ^ key.y ^ 0x1BD11BDAu};
    uint32_t x = counter.x + ks[0], y = counter.y + ks[1];
    for (uint32_t i = 0; i < 5; i++) {
        for (int r = 0; r < 4; r++) {
            x += y;
            y = (y << turn[i & 1][r] | y >> (32 - turn[i & 1][r])) ^ x;
        }
        x += ks[(i + 1) % 3];
        y += ks[(i + 2) % 3] + i + 1;
    }
    return (tni_u32x2){x, y};
}

#endif
