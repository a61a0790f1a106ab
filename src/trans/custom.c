/* Functions under derivative rules of their own: stop_gradient. */
#include "base/err.h"
#include "ops/build.h"
#include "ops/rules.h"
#include "trans/call.h"

tn_array *tn_stop_gradient(tn_array *a) {
    TNI_INPUTS("stop_gradient", a);
    tni_p_custom p = {.n = 1, .kind = TNI_CUSTOM_STOP};
    return tni_op1(TNI_PRIM(custom), 1, &a, &p, (tn_dtype)a->dtype, a->ndim, a->shape);
}

TNI_RULE_VJP(custom) { return tni_vjp_none(n, cot, want, grad); }
TNI_RULE_JVP(custom) { return tni_jvp_none(n, tan, out); }
