/* Picking by index. */
#include "base/err.h"
#include "ops/build.h"

tn_array *tn_take(tn_array *a, tn_array *indices, int axis) {
    TNI_INPUTS("take", a, indices);
    int k = tni_axis(a->ndim, axis), n = 0;
    if (k < 0)
        return tni_error_array(TN_EAXIS, "take: axis %d is out of range for %s", axis,
                               tni_describe(a));
    if (!tni_is_int((tn_dtype)indices->dtype))
        return tni_error_array(TN_EDTYPE, "take: indices must be integers, not %s",
                               tni_describe(indices));
    if (a->ndim - 1 + indices->ndim > TN_MAX_NDIM)
        return tni_error_array(TN_ESHAPE, "take: %s by %s has too many axes", tni_describe(a),
                               tni_describe(indices));
    if (!a->shape[k] && indices->size)
        return tni_error_array(TN_EINDEX, "take: axis %d of %s is empty", axis, tni_describe(a));
    int64_t shape[TN_MAX_NDIM], size;
    for (int i = 0; i < k; i++) shape[n++] = a->shape[i];
    for (int i = 0; i < indices->ndim; i++) shape[n++] = indices->shape[i];
    for (int i = k + 1; i < a->ndim; i++) shape[n++] = a->shape[i];
    if (!tni_shape_size(n, shape, &size))
        return tni_error_array(TN_ESHAPE, "take: the result is too large");
    return tni_op1(TNI_PRIM(take), 2, (tn_array *[]){a, indices}, &(tni_p_take){k},
                   (tn_dtype)a->dtype, n, shape);
}
