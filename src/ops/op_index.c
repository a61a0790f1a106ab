/* Picking by index. */
#include "base/err.h"
#include "ops/build.h"

TNI_RULE_INFER(take) {
    int k = ((const tni_p_take *)c->params)->axis, n = 0;
    int64_t shape[2 * TN_MAX_NDIM], size, picked;
    if (tni_infer_arity(c, 2, 2)) return TN_EVALUE;
    const tni_out_spec *a = &c->in[0], *indices = &c->in[1];
    if (k < 0 || k >= a->ndim)
        return tni_fail(TN_EAXIS, "%s: axis %d is out of range for %s", c->op, k,
                        tni_describe_spec(a));
    if (!tni_is_int(indices->dtype))
        return tni_fail(TN_EDTYPE, "%s: indices must be integers, not %s", c->op,
                        tni_describe_spec(indices));
    if (a->ndim - 1 + indices->ndim > TN_MAX_NDIM)
        return tni_fail(TN_ESHAPE, "%s: %s by %s has too many axes", c->op, tni_describe_spec(a),
                        tni_describe_spec(indices));
    if (!tni_shape_size(indices->ndim, indices->shape, &picked)) picked = 0;
    if (!a->shape[k] && picked)
        return tni_fail(TN_EINDEX, "%s: axis %d of %s is empty", c->op, k, tni_describe_spec(a));
    for (int i = 0; i < k; i++) shape[n++] = a->shape[i];
    for (int i = 0; i < indices->ndim; i++) shape[n++] = indices->shape[i];
    for (int i = k + 1; i < a->ndim; i++) shape[n++] = a->shape[i];
    if (!tni_shape_size(n, shape, &size))
        return tni_fail(TN_ESHAPE, "%s: the result is too large", c->op);
    tni_infer_out(c, 0, a->dtype, n, shape);
    return 0;
}

tn_array *tn_take(tn_array *a, tn_array *indices, int axis) {
    TNI_INPUTS("take", a, indices);
    int k = tni_axis(a->ndim, axis);
    if (k < 0)
        return tni_error_array(TN_EAXIS, "take: axis %d is out of range for %s", axis,
                               tni_describe(a));
    return tni_op_rule("take", TNI_PRIM(take), 2, (tn_array *[]){a, indices}, &(tni_p_take){k},
                       NULL);
}
