/* What op functions share: argument checks and small builders. Every function returns an
 * array of the current scope, an error array on failure. */
#ifndef TNI_OPS_BUILD_H
#define TNI_OPS_BUILD_H

#include "core/dtype.h"
#include "core/shape.h"
#include "ops/op.h"
#include "ops/rules.h"

/* NULL when every array may be used; else the error array that the op must return. */
tn_array *tni_inputs(const char *op, tn_list in);
#define TNI_INPUTS(op, ...)                                                                        \
    do {                                                                                           \
        tn_array *bad_ = tni_inputs(op, TN_LIST(__VA_ARGS__));                                     \
        if (bad_) return bad_;                                                                     \
    } while (0)

/* A node of one output, which is what the primitive's rule makes of its inputs (and of `want`,
 * where the rule leaves something free; else NULL); an error array when it refuses. */
tn_array *tni_op_rule(const char *op, const tni_prim *prim, int n_in, tn_array *const *in,
                      const void *params, const tni_spec *want);
/* a as `dtype`: itself, a converted number, or an astype node. */
tn_array *tni_cast(tn_array *a, tn_dtype dtype);
/* a repeated to `shape` (which it fits): itself or a broadcast_to node. */
tn_array *tni_expand(tn_array *a, int ndim, const int64_t *shape);
/* Row e of elementwise.def applied to in[0..n). */
tn_array *tni_ew(int e, int n, tn_array *const *in);
/* What prims.h asks of parts of one place or none. */
void tni_slice_normal(tni_p_slice *p, int ndim, const int64_t *lengths);
tn_array *tni_slice_node(tn_array *a, const tni_p_slice *p, const int64_t *shape);
/* Axes normalised into a bit mask; a negative status (message set) when out of range or repeated.
 */
int64_t tni_axes_mask(const char *op, int ndim, tn_ints axes);
/* "[2,3] float32" for messages; up to four results live at a time. */
const char *tni_describe(const tn_array *a);
const char *tni_describe_spec(const tni_out_spec *s);
static inline tni_out_spec tni_spec_of(const tn_array *a) {
    return (tni_out_spec){(tn_dtype)a->dtype, a->ndim, a->shape};
}

/* ---- for shape rules ---- */

/* How many inputs and outputs there are; what output k is, or that it is as an input. */
int tni_infer_arity(const tni_infer_call *c, int least_in, int most_in);
void tni_infer_out(const tni_infer_call *c, int k, tn_dtype dtype, int ndim, const int64_t *shape);
int tni_infer_like(const tni_infer_call *c, int input); /* output 0; 0 */
/* A parameter that says yes or no holds 1 or 0: kernels count with them. */
static inline bool tni_infer_flag(int32_t flag) { return flag == 0 || flag == 1; }
static inline bool tni_infer_same(const tni_out_spec *a, const tni_out_spec *b) {
    return tni_same_shape(a->ndim, a->shape, b->ndim, b->shape);
}

#endif
