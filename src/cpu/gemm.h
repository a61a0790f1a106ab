/* Matrix products on the CPU: C = A B for f32, f16, bf16, f64 and c64 with any strides.
 *
 * The order of the sums. Every product goes through one definition, whatever its layout, the
 * path taken, the number of threads or the instruction set:
 *
 *     c = 0
 *     for each block of TNI_GEMM_KC values of k, in order:
 *         acc = 0;  for k in the block, in order:  acc = fma(a[m][k], b[k][n], acc)
 *         c = first block ? acc : c + acc
 *
 * in f32 for f32, f16 and bf16 (widened exactly when packed, rounded once at the end) and in
 * f64 for f64. Vectors run along m or n, never along k, so nothing else is possible: an
 * element depends on its row of A and its column of B alone. A row gives the same bits in a
 * batch of one and of a thousand, in a view and in a copy. Blocks also bound the error:
 * KC + K / KC roundings instead of K. Products with a transposed B that others compute as dot
 * products over vector lanes transpose 16 x 16 blocks in registers here, which is still
 * faster than memory delivers them. c64 is the f32 product of [M, 2K] by [2K, 2N]
 * (gemm_pack_c64_b in gemm.c). */
#ifndef TNI_CPU_GEMM_H
#define TNI_CPU_GEMM_H

#include "cpu/isa.h"
#include "tenon/tenon.h"
#include <stdint.h>

enum { TNI_GEMM_KC = 256 };

/* Element types an operand may have. */
enum { TNI_GEMM_F32, TNI_GEMM_F16, TNI_GEMM_BF16, TNI_GEMM_F64, TNI_GEMM_C64, TNI_GEMM_KINDS };

/* One operand: element (i, j) is at data + i * rs + j * cs, counted in elements of its kind. */
typedef struct tni_gemm_mat {
    const void *data;
    int kind;
    int64_t rs, cs;
} tni_gemm_mat;

/* C [M, N] = A [M, K] B [K, N], or C += when `add` (f32 C only). A, B and C are each of f32,
 * f16, bf16 freely; or all f64; or all c64. C must not overlap A or B. `batch` > 1 repeats
 * it with the operands moved by the tables' offsets (in elements; NULL: none). K may be 0. */
typedef struct tni_gemm {
    int64_t m, n, k, batch;
    tni_gemm_mat a, b, c;
    const int64_t *a_at, *b_at, *c_at;
    int add;
    int serial; /* 1: stay on the calling thread */
} tni_gemm;

int tni_gemm_run(const tni_gemm *g); /* 0 or TN_EMEMORY */

/* f32 alone, on the calling thread's pool unless already inside it: a with strides (rsa, csa),
 * b (rsb, csb), c row-contiguous with ldc. Small problems allocate nothing. */
int tni_gemm_f32(int64_t m, int64_t n, int64_t k, const float *a, int64_t rsa, int64_t csa,
                 const float *b, int64_t rsb, int64_t csb, float *c, int64_t ldc, int add);

/* ---- what gemm_isa.c offers, once per instruction set -------------------------------------- */

/* c [m, n] (+)= a b over k values, m <= mr, n <= nr; element (i, k) of a at a + i rsa + k csa,
 * rows of b of unit stride at b + k ldb. Reads and writes nothing outside of the tile. */
typedef void (*tni_gemm_tile_fn)(int64_t k, const void *a, int64_t rsa, int64_t csa, const void *b,
                                 int64_t ldb, void *c, int64_t ldc, int m, int n, int add);
/* dst[k * ld + i] = src(i, k), widened, for i < n <= ld and k < K; src's strides are (is, ks).
 * ld is a multiple of the vector length; what lies behind column n is unspecified. */
typedef void (*tni_gemm_pack_fn)(void *dst, int64_t ld, const tni_gemm_mat *src, int64_t n,
                                 int64_t k);
typedef struct tni_gemm_kernels {
    int mr, nr, mrp; /* largest tile; mrp: row length of a packed panel of A */
    int size;        /* of an element */
    tni_gemm_tile_fn tile;
    tni_gemm_pack_fn pack;
} tni_gemm_kernels;

/* c [m, n] (ld ldc) (+)= a b for m <= 8 and k <= TNI_GEMM_KC: streams rows of b (unit stride,
 * any 16- or 32-bit kind) without packing. a is f32 with strides (rsa, csa). */
typedef void (*tni_gemm_strip_fn)(int64_t k, const float *a, int64_t rsa, int64_t csa,
                                  const void *b, int kind, int64_t ldb, float *c, int64_t ldc,
                                  int m, int64_t n, int add);

typedef struct tni_gemm_isa {
    tni_gemm_kernels f32, f64;
    tni_gemm_strip_fn strip;
    void (*narrow)(void *dst, int kind, const float *src, int64_t n); /* to f16 or bf16 */
} tni_gemm_isa;

const tni_gemm_isa *tni_gemm_isa_ref(void);
const tni_gemm_isa *tni_gemm_isa_avx2(void);
const tni_gemm_isa *tni_gemm_isa_avx512(void);
const tni_gemm_isa *tni_gemm_isa_neon(void);

/* The kernels in use; for tests, NULL goes back to the best this machine has. */
const tni_gemm_isa *tni_gemm_current(void);
void tni_gemm_use(const tni_gemm_isa *isa);

#endif
