/* Sorting and scans. Kernels sort the last axis; other axes are moved there and back. */
#include "base/err.h"
#include "ops/build.h"

static int sort_infer(const tni_infer_call *c, bool places) {
    if (tni_infer_arity(c, 1, 1)) return TN_EVALUE;
    if (!c->in[0].ndim)
        return tni_fail(TN_EAXIS, "%s: %s has no axis", c->op, tni_describe_spec(c->in));
    tni_infer_like(c, 0);
    if (places) c->out[0].dtype = TN_U32;
    return 0;
}
TNI_RULE_INFER(sort) { return sort_infer(c, false); }
TNI_RULE_INFER(argsort) { return sort_infer(c, true); }

static tn_array *sort_last(const char *op, int prim, tn_array *a, int axis) {
    TNI_INPUTS(op, a);
    int k = tni_axis(a->ndim, axis);
    if (k < 0)
        return tni_error_array(TN_EAXIS, "%s: axis %d is out of range for %s", op, axis,
                               tni_describe(a));
    tn_array *x = k == a->ndim - 1 ? a : tn_swapaxes(a, k, -1);
    if (tni_is_error(x)) return x;
    tn_array *y = tni_op_rule(op, &tni_prims[prim], 1, &x, NULL, NULL);
    return x == a ? y : tn_swapaxes(y, k, -1);
}

tn_array *tn_sort(tn_array *a, int axis) { return sort_last("sort", TNI_OP_sort, a, axis); }
tn_array *tn_argsort(tn_array *a, int axis) {
    return sort_last("argsort", TNI_OP_argsort, a, axis);
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

TNI_RULE_INFER(scan) {
    const tni_p_scan *p = c->params;
    if (tni_infer_arity(c, 1, 1)) return TN_EVALUE;
    const tni_out_spec *a = c->in;
    if (p->op < TNI_SCAN_SUM || p->op > TNI_SCAN_LOGADDEXP || !tni_infer_flag(p->reverse) ||
        !tni_infer_flag(p->inclusive))
        return tni_fail(TN_EVALUE, "%s: no operation %d", c->op, p->op);
    if (p->axis < 0 || p->axis >= a->ndim)
        return tni_fail(TN_EAXIS, "%s: axis %d is out of range for %s", c->op, p->axis,
                        tni_describe_spec(a));
    if (scan_dtype(p->op, a->dtype) != a->dtype ||
        (p->op == TNI_SCAN_LOGADDEXP && a->dtype == TN_C64))
        return tni_fail(TN_EDTYPE, "%s: not defined for %s", c->op, tni_describe_spec(a));
    return tni_infer_like(c, 0);
}

static tn_array *scan(const char *name, int op, tn_array *a, int axis, bool reverse,
                      bool inclusive) {
    TNI_INPUTS(name, a);
    int k = tni_axis(a->ndim, axis);
    if (k < 0)
        return tni_error_array(TN_EAXIS, "%s: axis %d is out of range for %s", name, axis,
                               tni_describe(a));
    tn_array *x = tni_cast(a, scan_dtype(op, (tn_dtype)a->dtype));
    tni_p_scan p = {.op = op, .axis = k, .reverse = reverse, .inclusive = inclusive};
    return tni_op_rule(name, TNI_PRIM(scan), 1, &x, &p, NULL);
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
