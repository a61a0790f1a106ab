/* Ids of the element-wise ops and reductions, from their tables. */
#ifndef TNI_OPS_EW_H
#define TNI_OPS_EW_H

enum tni_ew {
#define EW1(name, dom, value, deriv, doc)      TNI_EW_##name,
#define EW2(name, dom, value, da, db, doc)     TNI_EW_##name,
#define EW3(name, dom, value, da, db, dc, doc) TNI_EW_##name,
#include "ops/elementwise.def"
#undef EW1
#undef EW2
#undef EW3
    TNI_EW_COUNT
};

enum tni_red {
    TNI_RED_NONE,
#define RED(name, dom, state, identity, step, merge, finish, deriv, doc) TNI_RED_##name,
#include "ops/reduce.def"
#undef RED
    TNI_RED_COUNT
};

#endif
