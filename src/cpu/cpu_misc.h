/* Kernels that move or make bytes: take, arange, random_bits. Contracts: ops/prims.h. */
#ifndef TNI_CPU_MISC_H
#define TNI_CPU_MISC_H

#include "core/backend.h"

int tni_cpu_take(const tni_call *c);
int tni_cpu_arange(const tni_call *c);
int tni_cpu_random_bits(const tni_call *c);

#endif
