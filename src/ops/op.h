/* Op ids and descriptors. Ids: structural primitives, then element-wise rows, then reductions. */
#ifndef TNI_OPS_OP_H
#define TNI_OPS_OP_H

#include "core/prim.h"
#include "ops/ew.h"
#include "ops/ids.h"
#include "ops/prims.h"

extern const tni_prim tni_prims[TNI_OP_COUNT];

#define TNI_PRIM(name)  (&tni_prims[TNI_OP_##name])
#define TNI_PRIM_EW(e)  (&tni_prims[TNI_OP_EW + (e)])
#define TNI_PRIM_RED(r) (&tni_prims[TNI_OP_RED + (r)])

/* EW prims that are not rows of elementwise.def: tni_prim.code. */
enum { TNI_CODE_CAST = -1, TNI_CODE_COPY = -2 };

#endif
