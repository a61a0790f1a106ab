/* The descriptors, from the tables. */
#include "ops/lower.h"
#include "ops/op.h"
#include "ops/rules.h"
#include "ops/vmap.h"

#define SIZEOF(params) (sizeof(params) == 1 ? 0 : sizeof(params))
#define EW_CODE(id)    ((id) == TNI_OP_astype ? TNI_CODE_CAST : TNI_CODE_COPY)
/* Kernels are in the backends' tables; and rows of a table live for ever. */
#define TABLE_ROW NULL, NULL, NULL

const tni_prim tni_prims[TNI_OP_COUNT] = {
#define PRIM(name, kind, params, flags, doc)                                                       \
    [TNI_OP_##name] = {#name,          TNI_OP_##name,  TNI_K_##kind,     EW_CODE(TNI_OP_##name),   \
                       flags,          SIZEOF(params), tni_infer_##name, tni_lower_##name,         \
                       tni_vjp_##name, tni_jvp_##name, tni_vmap_##name,  TABLE_ROW},
#include "ops/prims.def"
#undef PRIM
#define EW1(name, ...)                                                                             \
    [TNI_OP_EW + TNI_EW_##name] = {#name,                                                          \
                                   TNI_OP_EW + TNI_EW_##name,                                      \
                                   TNI_K_EW,                                                       \
                                   TNI_EW_##name,                                                  \
                                   0,                                                              \
                                   0,                                                              \
                                   tni_infer_ew,                                                   \
                                   NULL,                                                           \
                                   tni_vjp_ew,                                                     \
                                   tni_jvp_ew,                                                     \
                                   tni_vmap_ew,                                                    \
                                   TABLE_ROW},
#define EW2 EW1
#define EW3 EW1
#include "ops/elementwise.def"
#undef EW1
#undef EW2
#undef EW3
#define RED(name, ...)                                                                             \
    [TNI_OP_RED + TNI_RED_##name] = {#name,                                                        \
                                     TNI_OP_RED + TNI_RED_##name,                                  \
                                     TNI_K_REDUCE,                                                 \
                                     TNI_RED_##name,                                               \
                                     0,                                                            \
                                     sizeof(tni_p_reduce),                                         \
                                     tni_infer_red,                                                \
                                     NULL,                                                         \
                                     tni_vjp_red,                                                  \
                                     tni_jvp_red,                                                  \
                                     tni_vmap_red,                                                 \
                                     TABLE_ROW},
#include "ops/reduce.def"
#undef RED
};
