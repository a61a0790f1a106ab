/* Sorting and scans. Kernels sort the last axis; other axes are moved there and back. */
#include "base/err.h"
#include "ops/build.h"

static tn_array *sort_last(const char *op, int prim, tn_array *a, int axis, tn_dtype out) {
    TNI_INPUTS(op, a);
    int k = tni_axis(a->ndim, axis);
    if (k < 0)
        return tni_error_array(TN_EAXIS, "%s: axis %d is out of range for %s", op, axis,
                               tni_describe(a));
    tn_array *x = k == a->ndim - 1 ? a : tn_swapaxes(a, k, -1);
    if (tni_is_error(x)) return x;
    tn_array *y = tni_op1(&tni_prims[prim], 1, &x, NULL, out, x->ndim, x->shape);
    return x == a ? y : tn_swapaxes(y, k, -1);
}

tn_array *tn_sort(tn_array *a, int axis) {
    return sort_last("sort", TNI_OP_sort, a, axis, tn_dtype_of(a));
}
tn_array *tn_argsort(tn_array *a, int axis) {
    return sort_last("argsort", TNI_OP_argsort, a, axis, TN_U32);
}

tn_array *tn_topk(tn_array *a, int64_t k, int axis) {
    TNI_INPUTS("topk", a);
    int d = tni_axis(a->ndim, axis);
    if (d < 0)
        return tni_error_array(TN_EAXIS, "topk: axis %d is out of range for %s", axis,
                               tni_describe(a));
    if (k < 0 || k > a->shape[d])
        return tni_error_array(TN_EVALUE, "topk: k = %lld along axis %d of %s", (long long)k, axis,
                               tni_describe(a));
    return tn_slice_axis(tn_sort(a, d), d, a->shape[d] - k, a->shape[d]);
}

/* Sums and products of narrow integers widen as reductions do. */
static tn_dtype scan_dtype(int op, tn_dtype d) {
    if (op == TNI_SCAN_LOGADDEXP) return tni_is_inexact(d) ? d : TN_F32;
    if (op != TNI_SCAN_SUM && op != TNI_SCAN_PROD) return d;
    return d == TN_BOOL ? TN_I32 : d;
}

static tn_array *scan(const char *name, int op, tn_array *a, int axis, bool reverse,
                      bool inclusive) {
    TNI_INPUTS(name, a);
    int k = tni_axis(a->ndim, axis);
    if (k < 0)
        return tni_error_array(TN_EAXIS, "%s: axis %d is out of range for %s", name, axis,
                               tni_describe(a));
    if (op == TNI_SCAN_LOGADDEXP && a->dtype == TN_C64)
        return tni_error_array(TN_EDTYPE, "%s: not defined for %s", name, tni_describe(a));
    tn_array *x = tni_cast(a, scan_dtype(op, (tn_dtype)a->dtype));
    if (tni_is_error(x)) return x;
    tni_p_scan p = {.op = op, .axis = k, .reverse = reverse, .inclusive = inclusive};
    return tni_op1(TNI_PRIM(scan), 1, &x, &p, (tn_dtype)x->dtype, x->ndim, x->shape);
}

tn_array *tn_cumsum(tn_array *a, int axis, bool reverse, bool inclusive) {
    return scan("cumsum", TNI_SCAN_SUM, a, axis, reverse, inclusive);
}
tn_array *tn_cumprod(tn_array *a, int axis, bool reverse, bool inclusive) {
    return scan("cumprod", TNI_SCAN_PROD, a, axis, reverse, inclusive);
}
tn_array *tn_cummax(tn_array *a, int axis, bool reverse, bool inclusive) {
    return scan("cummax", TNI_SCAN_MAX, a, axis, reverse, inclusive);
}
tn_array *tn_cummin(tn_array *a, int axis, bool reverse, bool inclusive) {
    return scan("cummin", TNI_SCAN_MIN, a, axis, reverse, inclusive);
}
tn_array *tn_logcumsumexp(tn_array *a, int axis, bool reverse, bool inclusive) {
    return scan("logcumsumexp", TNI_SCAN_LOGADDEXP, a, axis, reverse, inclusive);
}
