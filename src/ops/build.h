/* What op functions share: argument checks and small builders. Every function returns an
 * array of the current scope, an error array on failure. */
#ifndef TNI_OPS_BUILD_H
#define TNI_OPS_BUILD_H

#include "core/dtype.h"
#include "core/shape.h"
#include "ops/op.h"

/* NULL when every array may be used; else the error array that the op must return. */
tn_array *tni_inputs(const char *op, tn_list in);
#define TNI_INPUTS(op, ...)                                                                        \
    do {                                                                                           \
        tn_array *bad_ = tni_inputs(op, TN_LIST(__VA_ARGS__));                                     \
        if (bad_) return bad_;                                                                     \
    } while (0)

/* a as `dtype`: itself, a converted number, or an astype node. */
tn_array *tni_cast(tn_array *a, tn_dtype dtype);
/* a repeated to `shape` (which it fits): itself or a broadcast_to node. */
tn_array *tni_expand(tn_array *a, int ndim, const int64_t *shape);
/* Row e of elementwise.def applied to in[0..n). */
tn_array *tni_ew(int e, int n, tn_array *const *in);
tn_array *tni_slice_node(tn_array *a, const tni_p_slice *p, const int64_t *shape);
/* Axes normalised into a bit mask; a negative status (message set) when out of range or repeated.
 */
int64_t tni_axes_mask(const char *op, int ndim, tn_ints axes);
/* "[2,3] float32" for messages; up to four results live at a time. */
const char *tni_describe(const tn_array *a);

#endif
