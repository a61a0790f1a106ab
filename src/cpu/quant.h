/* The contract between the quantised matmul's driver (cpu_quant.c) and its kernels, which
 * quant_isa.c compiles once per instruction set.
 *
 * The integer path gives the same bits on every ISA, for any thread count, any number of rows
 * of x in the call and either kernel, because only integers are summed in a free order:
 *
 *     per row of x and group g of `group` values:
 *         a[g]  = max |x| / 32512             X[k] = rint(x[k] * (32512 / max |x|))
 *         xs[g] = a[g] * sum X[k]             (planes == 1: 127 instead of 32512)
 *     per output:
 *         D[g]  = sum q[k] * X[k]             exact: at most 128 * 255 * 32512 < 2^31
 *         chain[g % 4] = fma(b[g], xs[g], fma(s[g] * a[g], (float)D[g], chain[g % 4]))
 *         y = ((chain[0] + chain[2]) + (chain[1] + chain[3])) + 0      (+ 0: no negative zero)
 *
 * 32512 = 127 * 256 lets X be split into two signed bytes, X = 256 * hi + lo, which is what the
 * byte dot products of VNNI and sdot want; other ISAs multiply 16-bit X as it is. The rounding
 * error of x is at most max|x| / 65024 in each group: about 1e-5 of the result.
 *
 * The float path dequantises in f32, w = fma(s, q, b), and sums with FMA in 16 lanes (k % 16),
 * then lanes l and l + 8, l + 4, l + 2, l + 1. It serves as ground truth, and takes over rows
 * of x that the integer path cannot represent (NaN, infinity, magnitudes near f32's ends).
 *
 * The column path widens w as the float path does and sums as gemm.h says. */
#ifndef TNI_CPU_QUANT_H
#define TNI_CPU_QUANT_H

#include "base/half.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TNI_QK_F32, TNI_QK_F16, TNI_QK_BF16 };
enum { TNI_Q_CHAINS = 4, TNI_Q_MAX_GROUP = 128, TNI_Q_X2 = 32512, TNI_Q_X1 = 127 };

/* One product y [M, N] = x [M, K] @ w^T (w [N, K]), or @ w (w [K, N]) on the column path.
 * Strides are in bytes; nothing but the element type's size is assumed of alignment. */
typedef struct tni_qmm {
    int64_t M, N, K;
    int64_t ng; /* groups in a packed row */
    int bits, group, planes;
    const uint8_t *w, *s, *b;
    int64_t w_row, s_row, b_row;
    int s_kind, b_kind, x_kind; /* TNI_QK_...; y has x's */
    const uint8_t *x;
    int64_t x_row, x_elem;
    uint8_t *y;
    int64_t y_row;
    uint8_t *xq;    /* x quantised, in the kernel's own layout; 64-byte aligned */
    uint8_t *leave; /* [M] set for rows of x that the float path must do */
    int64_t tiles;  /* gemm: how many tiles the rows of x are cut into */
} tni_qmm;

typedef struct tni_quant_isa {
    const char *name;
    int64_t gemm_from;  /* rows of x from which gemm is the faster kernel */
    int64_t tile_rows;  /* most rows of x in a gemm tile */
    int64_t panel_rows; /* gemm takes rows of w in multiples of this */
    /* Bytes of xq, and of scratch that a worker needs for gemm over `n` rows of w. */
    size_t (*x_bytes)(const tni_qmm *q, bool gemm);
    size_t (*scratch_bytes)(const tni_qmm *q, int64_t n);
    /* Quantise row m (gemv layout), or tile t (gemm layout); tmp holds K floats. */
    void (*x_row)(const tni_qmm *q, int64_t m, float *tmp);
    void (*x_tile)(const tni_qmm *q, int64_t t, float *tmp);
    /* y[:, n0:n1] from xq. */
    void (*gemv)(const tni_qmm *q, int64_t n0, int64_t n1);
    void (*gemm)(const tni_qmm *q, int64_t n0, int64_t n1, void *scratch);
    /* The float path: y[m, n0:n1]; tmp holds 2 K floats. */
    void (*float_row)(const tni_qmm *q, int64_t m, int64_t n0, int64_t n1, float *tmp);
    /* Values at..at + n of a packed row, multiples of `group`, as the float path has them. */
    void (*widen)(const tni_qmm *q, int64_t row, int64_t at, int64_t n, float *out);
} tni_quant_isa;

/* NULL when the file was compiled without what the kernels need. */
const tni_quant_isa *tni_quant_isa_ref(void);
const tni_quant_isa *tni_quant_isa_avx2(void);
const tni_quant_isa *tni_quant_isa_avx512(void);
const tni_quant_isa *tni_quant_isa_neon(void);

static inline float tni_q_load(const uint8_t *p, int kind) {
    if (kind == TNI_QK_F32) {
        float f;
        memcpy(&f, p, 4);
        return f;
    }
    uint16_t h;
    memcpy(&h, p, 2);
    return kind == TNI_QK_F16 ? tni_f16_to_f32(h) : tni_bf16_to_f32(h);
}

static inline void tni_q_store(uint8_t *p, int kind, float f) {
    if (kind == TNI_QK_F32) {
        memcpy(p, &f, 4);
        return;
    }
    uint16_t h = kind == TNI_QK_F16 ? tni_f32_to_f16(f) : tni_f32_to_bf16(f);
    memcpy(p, &h, 2);
}

static inline int64_t tni_q_size(int kind) { return kind == TNI_QK_F32 ? 4 : 2; }

/* Rows [*m0, *m1) of tile t when M rows are cut evenly into `tiles`. */
static inline void tni_q_tile(const tni_qmm *q, int64_t t, int64_t *m0, int64_t *m1) {
    *m0 = t * q->M / q->tiles;
    *m1 = (t + 1) * q->M / q->tiles;
}

#endif
