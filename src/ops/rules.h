/* The primitives' rules: shapes, and derivatives in graph words. Derivatives are written for arrays
 * that may themselves be traced, so that derivatives of derivatives come for free. */
#ifndef TNI_OPS_RULES_H
#define TNI_OPS_RULES_H

#include "core/prim.h"

/* What a rule may answer in place of 0 or a negative status: differentiate the lowering, or (a
 * jvp) transpose the vjp. */
enum { TNI_BY_LOWER = 1, TNI_BY_VJP = 2 };

/* Shape rules: each stands beside the op functions of its primitive, which ask it too. */
#define TNI_RULE_INFER(name) int tni_infer_##name(const tni_infer_call *c)
#define PRIM(name, ...)      TNI_RULE_INFER(name);
#include "ops/prims.def"
#undef PRIM
TNI_RULE_INFER(ew);
TNI_RULE_INFER(red);

/* g summed over the axes that broadcasting `like` had repeated, in like's shape and dtype. */
tn_array *tni_sum_like(tn_array *g, const tn_array *like);

/* a + b of one shape and dtype. What one of them scatters over zeros is scattered over the other,
 * so that the gradient of a cross-entropy has one array of the scores' size, not two. */
tn_array *tni_grad_sum(tn_array *a, tn_array *b);

int tni_vjp_ew(const tni_node *n, tn_array *const *cot, const bool *want, tn_array **grad);
int tni_jvp_ew(const tni_node *n, tn_array *const *tan, tn_array **out);
int tni_vjp_red(const tni_node *n, tn_array *const *cot, const bool *want, tn_array **grad);
int tni_jvp_red(const tni_node *n, tn_array *const *tan, tn_array **out);

/* For results that are integers, or depend on nothing smoothly: no gradient at all. */
int tni_vjp_none(const tni_node *n, tn_array *const *cot, const bool *want, tn_array **grad);
int tni_jvp_none(const tni_node *n, tn_array *const *tan, tn_array **out);

#define TNI_RULE_VJP(name)                                                                         \
    int tni_vjp_##name(const tni_node *n, tn_array *const *cot, const bool *want, tn_array **grad)
#define TNI_RULE_JVP(name)                                                                         \
    int tni_jvp_##name(const tni_node *n, tn_array *const *tan, tn_array **out)

TNI_RULE_VJP(reshape);
TNI_RULE_JVP(reshape);
TNI_RULE_VJP(transpose);
TNI_RULE_JVP(transpose);
TNI_RULE_VJP(slice);
TNI_RULE_JVP(slice);
TNI_RULE_VJP(broadcast_to);
TNI_RULE_JVP(broadcast_to);
TNI_RULE_VJP(view);
TNI_RULE_JVP(view);
TNI_RULE_VJP(astype);
TNI_RULE_JVP(astype);
TNI_RULE_VJP(contiguous);
TNI_RULE_JVP(contiguous);
TNI_RULE_VJP(concatenate);
TNI_RULE_JVP(concatenate);
TNI_RULE_VJP(slice_update);
TNI_RULE_JVP(slice_update);
TNI_RULE_VJP(take);
TNI_RULE_JVP(take);
TNI_RULE_VJP(matmul);
TNI_RULE_JVP(matmul);
TNI_RULE_VJP(quantize);
TNI_RULE_VJP(dequantize);
TNI_RULE_JVP(dequantize);
TNI_RULE_VJP(quantized_matmul);
TNI_RULE_JVP(quantized_matmul);
TNI_RULE_VJP(softmax);
TNI_RULE_JVP(softmax);
TNI_RULE_VJP(rms_norm);
TNI_RULE_VJP(layer_norm);
int tni_jvp_by_lower(const tni_node *n, tn_array *const *tan, tn_array **out);
TNI_RULE_VJP(rope);
TNI_RULE_JVP(rope);
TNI_RULE_VJP(sort);
TNI_RULE_JVP(sort);
TNI_RULE_VJP(scan);
TNI_RULE_VJP(gather);
TNI_RULE_JVP(gather);
TNI_RULE_VJP(gather_axis);
TNI_RULE_JVP(gather_axis);
TNI_RULE_VJP(scatter);
TNI_RULE_VJP(scatter_axis);
TNI_RULE_VJP(conv);
TNI_RULE_JVP(conv);
TNI_RULE_VJP(conv_weight);
TNI_RULE_JVP(conv_weight);
TNI_RULE_VJP(sdpa);
TNI_RULE_VJP(pool);
TNI_RULE_JVP(pool);
TNI_RULE_VJP(pool_vjp);
TNI_RULE_JVP(pool_vjp);
TNI_RULE_VJP(custom);
TNI_RULE_JVP(custom);

/* Integers and random numbers. */
#define tni_vjp_arange      tni_vjp_none
#define tni_jvp_arange      tni_jvp_none
#define tni_vjp_random_bits tni_vjp_none
#define tni_jvp_random_bits tni_jvp_none
#define tni_vjp_argsort     tni_vjp_none
#define tni_jvp_argsort     tni_jvp_none

/* NULL: through the lowering. */
#define tni_jvp_rms_norm   tni_jvp_by_lower
#define tni_vjp_norm_vjp   NULL
#define tni_jvp_norm_vjp   NULL
#define tni_jvp_layer_norm tni_jvp_by_lower
#define tni_jvp_sdpa       NULL
#define tni_vjp_sdpa_vjp   NULL
#define tni_jvp_sdpa_vjp   NULL

/* jvp NULL where there is a vjp: the vjp, which is linear in the cotangent, transposed. */
#define tni_jvp_quantize     NULL
#define tni_jvp_scan         NULL
#define tni_jvp_scatter      NULL
#define tni_jvp_scatter_axis NULL

#endif
