/* The matmul primitive on the CPU: batches of views become one tni_gemm (gemm.h). */
#ifndef TNI_CPU_CPU_MATMUL_H
#define TNI_CPU_CPU_MATMUL_H

#include "core/backend.h"

/* a [..., M, K] @ b [..., K, N] -> [..., M, N] (ops/prims.h). TN_EMEMORY when there is no
 * scratch; small products need none. */
int tni_cpu_matmul(const tni_call *c);

#endif
