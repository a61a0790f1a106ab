/* Runs fused programs on the CPU. */
#ifndef TNI_CPU_CPU_PROGRAM_H
#define TNI_CPU_CPU_PROGRAM_H

#include "eval/program.h"

struct tni_vm_isa;

/* in[i] and out[i] point at element 0 of each operand. An output may be one of the inputs
 * exactly (same address, same strides); otherwise outputs overlap nothing. 0 or a status. */
int tni_cpu_run(const tni_program *p, const void *const *in, void *const *out);
/* The same with the kernels of a given ISA, for tests. */
int tni_cpu_run_isa(const struct tni_vm_isa *isa, const tni_program *p, const void *const *in,
                    void *const *out);

#endif
