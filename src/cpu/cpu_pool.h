/* Pooling and its gradient. Contracts: ops/prims.h. */
#ifndef TNI_CPU_POOL_H
#define TNI_CPU_POOL_H

#include "core/backend.h"

int tni_cpu_pool(const tni_call *c);
int tni_cpu_pool_vjp(const tni_call *c);

#endif
