/* Scaled dot-product attention. Contract: ops/prims.h. */
#ifndef TNI_CPU_SDPA_H
#define TNI_CPU_SDPA_H

#include "core/backend.h"

int tni_cpu_sdpa(const tni_call *c);
int tni_cpu_sdpa_vjp(const tni_call *c);
/* All of f64 but the sinks. */
int tni_cpu_sdpa64(const tni_call *c);
int tni_cpu_sdpa_vjp64(const tni_call *c);

#endif
