/* The gradients of attention as a node, for the rules that make one. */
#ifndef TNI_OPS_ATTENTION_H
#define TNI_OPS_ATTENTION_H

#include "ops/op.h"

enum { TNI_SDPA_VJP_IN = 6 };

/* What sdpa_vjp of prims.h takes and gives (the sinks' gradient last, where there are sinks). 0 or
 * a status; results belong to the scope. */
int tni_sdpa_vjp_node(int n_in, tn_array *const *in, const tni_p_sdpa *p, tn_array **out);

#endif
