/* Op ids alone, for backends' tables: structural primitives, element-wise rows, reductions. */
#ifndef TNI_OPS_IDS_H
#define TNI_OPS_IDS_H

#include "ops/ew.h"

enum tni_op {
#define PRIM(name, kind, params, flags, doc) TNI_OP_##name,
#include "ops/prims.def"
#undef PRIM
    TNI_OP_EW,
    TNI_OP_RED = TNI_OP_EW + TNI_EW_COUNT, /* + enum tni_red (TNI_RED_NONE unused) */
    TNI_OP_COUNT = TNI_OP_RED + TNI_RED_COUNT
};

#endif
