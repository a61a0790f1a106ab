/* Reductions: dtype rules of reduce.def; the node keeps reduced axes, a reshape drops them. */
#include "base/err.h"
#include "ops/build.h"

enum red_dom { DOM_SUM, DOM_SAME, DOM_BOOL, DOM_FLTR, DOM_IDX };

static const struct {
    const char *name;
    enum red_dom dom;
    bool needs_elements; /* no identity to give for an empty axis */
} red_info[] = {
    {"none", DOM_SAME, false},
#define RED(name, dom, state, ...)                                                                 \
    {#name, DOM_##dom, DOM_##dom == DOM_IDX || DOM_##dom == DOM_SAME},
#include "ops/reduce.def"
#undef RED
};

int64_t tni_axes_mask(const char *op, int ndim, tn_ints axes) {
    if (axes.n < 0) return ((int64_t)1 << ndim) - 1;
    int64_t mask = 0;
    for (int i = 0; i < axes.n; i++) {
        int k = tni_axis(ndim, axes.v[i]);
        if (k < 0)
            return tni_fail(TN_EAXIS, "%s: axis %lld is out of range for %d axes", op,
                            (long long)axes.v[i], ndim);
        if (mask >> k & 1)
            return tni_fail(TN_EAXIS, "%s: axis %lld is named twice", op, (long long)axes.v[i]);
        mask |= (int64_t)1 << k;
    }
    return mask;
}

static tn_dtype red_result(enum red_dom dom, tn_dtype d) {
    switch (dom) {
    case DOM_SUM:
        if (d == TN_BOOL || d == TN_I8 || d == TN_I16) return TN_I32;
        return d == TN_U8 || d == TN_U16 ? TN_U32 : d;
    case DOM_BOOL:
        return TN_BOOL;
    case DOM_IDX:
        return TN_U32;
    default:
        return d;
    }
}

static tn_array *red_squeeze(tn_array *y, int64_t mask) {
    int64_t shape[TN_MAX_NDIM];
    int n = 0;
    for (int i = 0; i < y->ndim; i++)
        if (!(mask >> i & 1)) shape[n++] = y->shape[i];
    return tni_op1(TNI_PRIM(reshape), 1, &y, NULL, (tn_dtype)y->dtype, n, shape);
}

/* Reduced axes become 1; an axis without elements needs an identity. */
static int red_shape(const char *op, int r, const tni_out_spec *a, int64_t mask, int64_t *shape) {
    for (int i = 0; i < a->ndim; i++) {
        shape[i] = mask >> i & 1 ? 1 : a->shape[i];
        if (shape[i] != a->shape[i] && !a->shape[i] && red_info[r].needs_elements)
            return tni_fail(TN_ESHAPE, "%s: axis %d of %s is empty", op, i, tni_describe_spec(a));
    }
    return 0;
}

/* The dtype reduced in; the operand is cast to it. */
static tn_dtype red_compute(enum red_dom dom, tn_dtype d) {
    if (dom == DOM_BOOL) return TN_BOOL;
    return dom == DOM_FLTR && !tni_is_inexact(d) ? TN_F32 : d;
}

TNI_RULE_INFER(red) {
    const tni_p_reduce *p = c->params;
    const tni_out_spec *a = c->in;
    int r = c->prim->code;
    int64_t shape[TN_MAX_NDIM];
    if (tni_infer_arity(c, 1, 1)) return TN_EVALUE;
    if ((int64_t)p->axes >> a->ndim)
        return tni_fail(TN_EAXIS, "%s: axes 0x%x of %s", c->op, p->axes, tni_describe_spec(a));
    enum red_dom dom = red_info[r].dom;
    if (red_compute(dom, a->dtype) != a->dtype || (dom == DOM_FLTR && a->dtype == TN_C64))
        return tni_fail(TN_EDTYPE, "%s: not defined for %s", c->op, tni_describe_spec(a));
    int status = red_shape(c->op, r, a, p->axes, shape);
    if (!status) tni_infer_out(c, 0, red_result(dom, a->dtype), a->ndim, shape);
    return status;
}

static tn_array *red_op(int r, tn_array *a, tn_ints axes, bool keepdims) {
    const char *op = red_info[r].name;
    TNI_INPUTS(op, a);
    int64_t mask = tni_axes_mask(op, a->ndim, axes), shape[TN_MAX_NDIM];
    if (mask < 0) return tni_error_last();
    tn_dtype d = (tn_dtype)a->dtype;
    enum red_dom dom = red_info[r].dom;
    if (dom == DOM_FLTR && d == TN_C64)
        return tni_error_array(TN_EDTYPE, "%s: not defined for %s", op, tni_describe(a));
    tni_out_spec spec = tni_spec_of(a);
    if (red_shape(op, r, &spec, mask, shape)) return tni_error_last();
    d = red_compute(dom, d);
    tn_array *x = tni_cast(a, d);
    if (tni_is_error(x)) return x;
    tn_array *y = tni_op1(TNI_PRIM_RED(r), 1, &x, &(tni_p_reduce){(uint32_t)mask},
                          red_result(dom, d), a->ndim, shape);
    return keepdims || !mask || tni_is_error(y) ? y : red_squeeze(y, mask);
}

#define RED(name, ...)                                                                             \
    tn_array *tn_##name(tn_array *a, tn_ints axes, bool keepdims) {                                \
        return red_op(TNI_RED_##name, a, axes, keepdims);                                          \
    }
#include "ops/reduce.def"
#undef RED
