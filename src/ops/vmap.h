/* Primitives over many inputs at once: the vmap column. A node and its inputs stacked along a new
 * axis 0 become one node (or a few) whose results are stacked likewise. */
#ifndef TNI_OPS_VMAP_H
#define TNI_OPS_VMAP_H

#include "core/prim.h"

/* in[i] is n->in[i] itself, serving every call, or `size` of them (1 or more) stacked along a new
 * axis 0; at least one is stacked. So is what a rule gives in out[k], of the shape and dtype of
 * n->out[k], which has elements. A rule reads shapes and dtypes of n's arrays and never uses them
 * as values. 0, a status, or TNI_BY_LOWER. NULL in the column: by the lowering, or call by call. */
#define TNI_RULE_VMAP(name)                                                                        \
    int tni_vmap_##name(const tni_node *n, int64_t size, tn_array *const *in, tn_array **out)

static inline bool tni_stacked(const tni_node *n, tn_array *const *in, int i) {
    return in[i]->ndim > n->in[i]->ndim;
}

/* in[i], stacked in any case: what serves every call is repeated. */
tn_array *tni_stack_of(const tni_node *n, int64_t size, tn_array *const *in, int i);
/* Stacked `a` under `ndim` axes behind the first: axes of size 1 come in between. */
tn_array *tni_stack_rank(tn_array *a, int ndim);
/* a under the axes [size, shape...]. */
tn_array *tni_stack_shape(tn_array *a, int64_t size, int ndim, const int64_t *shape);
/* a with axes i and i + 1 joined into one. */
tn_array *tni_stack_join(tn_array *a, int i);
/* The node again over in[], stacked results into out[]; size < 0: not stacked. 0 or a status. */
int tni_stack_node(const tni_node *n, int64_t size, tn_array *const *in, const void *params,
                   tn_array **out);
/* The same with every input stacked. */
int tni_stack_all(const tni_node *n, int64_t size, tn_array *const *in, const void *params,
                  tn_array **out);
/* n's primitive over other inputs, its one result of this shape. */
tn_array *tni_stack_op(const tni_node *n, int n_in, tn_array *const *in, const void *params,
                       int ndim, const int64_t *shape);
/* Status of a rule's single result. */
int tni_stack_done(tn_array **out, tn_array *y);

TNI_RULE_VMAP(ew);
TNI_RULE_VMAP(red);
/* Primitives that treat leading axes alike: the same parameters over stacked inputs. */
TNI_RULE_VMAP(front);
/* One call after the other, results stacked: for primitives that know of no batch. */
TNI_RULE_VMAP(apart);

#define tni_vmap_reshape tni_vmap_front
TNI_RULE_VMAP(transpose);
TNI_RULE_VMAP(slice);
TNI_RULE_VMAP(broadcast_to);
#define tni_vmap_view       tni_vmap_front
#define tni_vmap_astype     tni_vmap_front
#define tni_vmap_contiguous tni_vmap_front
TNI_RULE_VMAP(concatenate);
TNI_RULE_VMAP(slice_update);
#define tni_vmap_arange NULL /* no inputs */
TNI_RULE_VMAP(take);
TNI_RULE_VMAP(matmul);
#define tni_vmap_quantize   tni_vmap_front
#define tni_vmap_dequantize tni_vmap_front
TNI_RULE_VMAP(quantized_matmul);
#define tni_vmap_softmax tni_vmap_front
TNI_RULE_VMAP(rms_norm);
TNI_RULE_VMAP(layer_norm);
TNI_RULE_VMAP(norm_vjp);
TNI_RULE_VMAP(rope);
TNI_RULE_VMAP(sdpa);
TNI_RULE_VMAP(sdpa_vjp);
#define tni_vmap_random_bits tni_vmap_front
#define tni_vmap_sort        tni_vmap_front
#define tni_vmap_argsort     tni_vmap_front
TNI_RULE_VMAP(scan);
TNI_RULE_VMAP(gather);
TNI_RULE_VMAP(gather_axis);
TNI_RULE_VMAP(scatter);
TNI_RULE_VMAP(scatter_axis);
TNI_RULE_VMAP(conv);
TNI_RULE_VMAP(conv_weight);
TNI_RULE_VMAP(pool);
TNI_RULE_VMAP(pool_vjp);
TNI_RULE_VMAP(custom);

#endif
