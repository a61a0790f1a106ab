/* Softmax, norms and rotary embedding. Contracts: ops/prims.h. */
#ifndef TNI_CPU_NN_H
#define TNI_CPU_NN_H

#include "core/backend.h"

int tni_cpu_softmax(const tni_call *c);
int tni_cpu_rms_norm(const tni_call *c);
int tni_cpu_layer_norm(const tni_call *c);
int tni_cpu_norm_vjp(const tni_call *c);
int tni_cpu_rope(const tni_call *c);

#endif
