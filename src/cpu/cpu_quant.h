/* Affine quantisation on the CPU: the kernels behind quantize, dequantize and
 * quantized_matmul (ops/prims.h: tni_p_quant), MLX's layout and rounding. */
#ifndef TNI_CPU_CPU_QUANT_H
#define TNI_CPU_CPU_QUANT_H

#include "core/backend.h"

struct tni_quant_isa;

/* w [..., K] -> packed u32 [..., K * bits / 32], scales and biases [..., K / group]. */
int tni_cpu_quantize(const tni_call *c);
/* packed, scales, biases -> out [..., K] of f32, f16 or bf16. */
int tni_cpu_dequantize(const tni_call *c);
/* x [..., M, K], packed, scales, biases -> [..., M, N] in x's dtype. Also allocates: one block
 * of scratch a call, none for a small single row. */
int tni_cpu_quantized_matmul(const tni_call *c);

/* How quantized_matmul computes; the environment's TENON_QMM (float, int8) sets the start. */
typedef enum tni_qmm_mode {
    TNI_QMM_INT16, /* activations rounded to 16 bits a group: within 1e-4 of the float path */
    TNI_QMM_INT8,  /* activations rounded to 8 bits: up to twice as fast, error about 1e-2 */
    TNI_QMM_FLOAT  /* weights dequantised, everything in f32 */
} tni_qmm_mode;

tni_qmm_mode tni_cpu_qmm_mode(void);
void tni_cpu_set_qmm_mode(tni_qmm_mode mode);
/* For tests: use these kernels (NULL: the best the machine has, TENON_ISA considered). */
void tni_cpu_set_quant_isa(const struct tni_quant_isa *isa);
const struct tni_quant_isa *tni_cpu_quant_isa(void);

#endif
