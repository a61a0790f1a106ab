/* The structural primitives in terms of simpler ops: what a backend without the kernel runs,
 * what tests compare kernels with, and what transforms differentiate when a rule is missing. */
#ifndef TNI_OPS_LOWER_H
#define TNI_OPS_LOWER_H

#include "core/prim.h"

int tni_lower_softmax(const tni_node *n, tn_array **out);
int tni_lower_rms_norm(const tni_node *n, tn_array **out);
int tni_lower_layer_norm(const tni_node *n, tn_array **out);
int tni_lower_rope(const tni_node *n, tn_array **out);
int tni_lower_sdpa(const tni_node *n, tn_array **out);
int tni_lower_sdpa_vjp(const tni_node *n, tn_array **out);
int tni_lower_norm_vjp(const tni_node *n, tn_array **out);
int tni_lower_pool(const tni_node *n, tn_array **out);
int tni_lower_pool_vjp(const tni_node *n, tn_array **out);
int tni_lower_quantized_matmul(const tni_node *n, tn_array **out);

/* Views and moves run in eval itself; the rest are basic: every backend must have them. */
#define tni_lower_reshape      NULL
#define tni_lower_transpose    NULL
#define tni_lower_slice        NULL
#define tni_lower_broadcast_to NULL
#define tni_lower_view         NULL
#define tni_lower_astype       NULL
#define tni_lower_contiguous   NULL
#define tni_lower_concatenate  NULL
#define tni_lower_slice_update NULL
#define tni_lower_arange       NULL
#define tni_lower_take         NULL
#define tni_lower_matmul       NULL
#define tni_lower_quantize     NULL
#define tni_lower_dequantize   NULL
#define tni_lower_random_bits  NULL
#define tni_lower_sort         NULL
#define tni_lower_argsort      NULL
#define tni_lower_scan         NULL
#define tni_lower_gather       NULL
#define tni_lower_gather_axis  NULL
#define tni_lower_scatter      NULL
#define tni_lower_scatter_axis NULL
#define tni_lower_custom       NULL
#define tni_lower_conv         NULL
#define tni_lower_conv_weight  NULL

#endif
