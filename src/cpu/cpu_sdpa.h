/* Scaled dot-product attention. Contract: ops/prims.h. */
#ifndef TNI_CPU_SDPA_H
#define TNI_CPU_SDPA_H

#include "core/backend.h"

int tni_cpu_sdpa(const tni_call *c);
int tni_cpu_sdpa_vjp(const tni_call *c);
int tni_cpu_sdpa_vjp64(const tni_call *c); /* all of f64 but the sinks */

#endif
