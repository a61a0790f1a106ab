/* Element-wise ops: one dtype rule a domain of elementwise.def, broadcasting, casts. The
 * public functions come from the rows. */
#include "base/err.h"
#include "ops/build.h"
#include <stdio.h>

enum ew_dom {
    DOM_NUM,
    DOM_SIG,
    DOM_REAL,
    DOM_FLT,
    DOM_FLTR,
    DOM_RE,
    DOM_CMP,
    DOM_TEST,
    DOM_LOG,
    DOM_INT,
    DOM_SHF,
    DOM_SEL
};

static const struct {
    const char *name;
    enum ew_dom dom;
} ew_info[] = {
#define EW1(name, dom, ...) {#name, DOM_##dom},
#define EW2                 EW1
#define EW3                 EW1
#include "ops/elementwise.def"
#undef EW1
#undef EW2
#undef EW3
};

const char *tni_describe_spec(const tni_out_spec *a) {
    static _Thread_local char buf[4][TNI_SHAPE_STR + 16];
    static _Thread_local unsigned turn;
    char s[TNI_SHAPE_STR], *b = buf[turn++ % 4];
    snprintf(b, sizeof buf[0], "%s %s", tni_shape_str(a->ndim, a->shape, s, sizeof s),
             tn_dtype_name(a->dtype));
    return b;
}

const char *tni_describe(const tn_array *a) {
    tni_out_spec s = tni_spec_of(a);
    return tni_describe_spec(&s);
}

tn_array *tni_inputs(const char *op, tn_list in) {
    for (int i = 0; i < in.n; i++) {
        tn_array *a = tni_check(in.v[i], op);
        if (a != in.v[i]) return a;
        if (tni_is_error(a)) return tni_scope_again(a);
    }
    return NULL;
}

tn_array *tni_cast(tn_array *a, tn_dtype dtype) {
    if (a->dtype == dtype) return a;
    if (tni_state_of(a) == TNI_READY && a->size == 1 && a->ndim == 0 && !a->buf &&
        a->dtype != TN_C64) {
        bool exact = !tni_is_inexact((tn_dtype)a->dtype);
        bool large = a->dtype == TN_U64 && a->inl[0] >> 63; /* no int64 */
        return large   ? tni_op1(TNI_PRIM(astype), 1, &a, NULL, dtype, 0, NULL)
               : exact ? tn_scalar_i64(tni_load_i64((tn_dtype)a->dtype, a->inl), dtype)
                       : tn_scalar(tni_load_f64((tn_dtype)a->dtype, a->inl), dtype);
    }
    return tni_op1(TNI_PRIM(astype), 1, &a, NULL, dtype, a->ndim, a->shape);
}

/* For operands that meet in d: the dtype computed in, and the result's; -1: not allowed. */
static int ew_dtypes(enum ew_dom dom, tn_dtype d, tn_dtype *compute, tn_dtype *result) {
    bool is_bool = d == TN_BOOL, is_complex = d == TN_C64;
    *compute = *result = d;
    switch (dom) {
    case DOM_NUM:
    case DOM_SEL:
        return 0;
    case DOM_SIG:
        return is_bool ? -1 : 0;
    case DOM_REAL:
        return is_complex ? -1 : 0;
    case DOM_FLTR:
        if (is_complex) return -1; /* fall through */
    case DOM_FLT:
        if (!tni_is_inexact(d)) *compute = *result = TN_F32;
        return 0;
    case DOM_RE:
        *result = is_complex ? TN_F32 : d;
        return 0;
    case DOM_CMP:
    case DOM_TEST:
        *result = TN_BOOL;
        return 0;
    case DOM_LOG:
        *compute = *result = TN_BOOL;
        return 0;
    case DOM_SHF:
        if (is_bool) *compute = *result = TN_U8; /* fall through */
    case DOM_INT:
        return tni_is_inexact(d) ? -1 : 0;
    }
    return -1;
}

static tn_array *ew_bad_dtype(const char *op, int n, tn_array *const *in) {
    if (n == 1)
        return tni_error_array(TN_EDTYPE, "%s: not defined for %s", op, tni_describe(in[0]));
    return tni_error_array(TN_EDTYPE, "%s: not defined for %s and %s", op, tni_describe(in[n - 2]),
                           tni_describe(in[n - 1]));
}

tn_array *tni_ew(int e, int n, tn_array *const *in) {
    const char *op = ew_info[e].name;
    tn_array *bad = tni_inputs(op, (tn_list){in, n}), *v[3];
    if (bad) return bad;
    enum ew_dom dom = ew_info[e].dom;
    tn_dtype compute, result,
        d = n == 1 ? (tn_dtype)in[0]->dtype
                   : tni_result_type(dom == DOM_SEL ? 2 : n, dom == DOM_SEL ? in + 1 : in);
    if (ew_dtypes(dom, d, &compute, &result)) return ew_bad_dtype(op, n, in);
    int64_t shape[TN_MAX_NDIM];
    int ndim = in[0]->ndim;
    for (int i = 0; i < ndim; i++) shape[i] = in[0]->shape[i];
    for (int i = 1; i < n; i++)
        if (!tni_broadcast(ndim, shape, in[i]->ndim, in[i]->shape, &ndim, shape)) {
            if (n == 2)
                return tni_error_array(TN_ESHAPE, "%s: shapes of %s and %s do not broadcast", op,
                                       tni_describe(in[0]), tni_describe(in[1]));
            return tni_error_array(TN_ESHAPE, "%s: shapes of %s, %s and %s do not broadcast", op,
                                   tni_describe(in[0]), tni_describe(in[1]), tni_describe(in[2]));
        }
    for (int i = 0; i < n; i++) {
        v[i] = tni_cast(in[i], dom == DOM_SEL && i == 0 ? TN_BOOL : compute);
        if (tni_is_error(v[i])) return v[i];
    }
    int64_t size;
    if (!tni_shape_size(ndim, shape, &size))
        return tni_error_array(TN_ESHAPE, "%s: the result is too large", op);
    return tni_op1(TNI_PRIM_EW(e), n, v, NULL, result, ndim, shape);
}

/* Of a node, whose operands have been cast. Not asked by tni_ew, where every nanosecond counts. */
TNI_RULE_INFER(ew) {
    static const int arity[] = {
#define EW1(name, ...) 1,
#define EW2(name, ...) 2,
#define EW3(name, ...) 3,
#include "ops/elementwise.def"
#undef EW1
#undef EW2
#undef EW3
    };
    const tni_out_spec *in = c->in;
    int n = arity[c->prim->code], ndim = 0;
    int64_t shape[TN_MAX_NDIM];
    if (tni_infer_arity(c, n, n)) return TN_EVALUE;
    enum ew_dom dom = ew_info[c->prim->code].dom;
    tn_dtype d = in[n - 1].dtype, compute, result;
    bool good = !ew_dtypes(dom, d, &compute, &result) && compute == d;
    for (int i = 0; i < n; i++)
        good = good && in[i].dtype == (dom == DOM_SEL && i == 0 ? TN_BOOL : d);
    if (!good)
        return tni_fail(TN_EDTYPE, "%s: not defined for operands like %s", c->op,
                        tni_describe_spec(&in[0]));
    for (int i = 0; i < n; i++)
        if (!tni_broadcast(ndim, shape, in[i].ndim, in[i].shape, &ndim, shape))
            return tni_fail(TN_ESHAPE, "%s: shapes of %s and %s do not broadcast", c->op,
                            tni_describe_spec(&in[0]), tni_describe_spec(&in[i]));
    tni_infer_out(c, 0, result, ndim, shape);
    return 0;
}

TNI_RULE_INFER(astype) { /* the dtype is free */
    if (tni_infer_arity(c, 1, 1)) return TN_EVALUE;
    tni_infer_out(c, 0, c->out[0].dtype, c->in[0].ndim, c->in[0].shape);
    return 0;
}

TNI_RULE_INFER(contiguous) { return tni_infer_arity(c, 1, 1) ? TN_EVALUE : tni_infer_like(c, 0); }

#define EW1(name, ...)                                                                             \
    tn_array *tn_##name(tn_array *a) { return tni_ew(TNI_EW_##name, 1, &a); }
#define EW2(name, ...)                                                                             \
    tn_array *tn_##name(tn_array *a, tn_array *b) {                                                \
        return tni_ew(TNI_EW_##name, 2, (tn_array *[]){a, b});                                     \
    }
#define EW3(name, ...)                                                                             \
    tn_array *tn_##name(tn_array *a, tn_array *b, tn_array *c) {                                   \
        return tni_ew(TNI_EW_##name, 3, (tn_array *[]){a, b, c});                                  \
    }
#include "ops/elementwise.def"
#undef EW1
#undef EW2
#undef EW3

tn_array *tn_astype(tn_array *a, tn_dtype dtype) {
    TNI_INPUTS("astype", a);
    if ((unsigned)dtype >= TN_DTYPE_COUNT)
        return tni_error_array(TN_EDTYPE, "astype: %d is not a dtype", (int)dtype);
    if (a->dtype != dtype) return tni_cast(a, dtype);
    return a->flags & TNI_A_WEAK
               ? tni_op1(TNI_PRIM(contiguous), 1, &a, NULL, dtype, a->ndim, a->shape)
               : tni_scope_again(a);
}

tn_array *tn_contiguous(tn_array *a) {
    TNI_INPUTS("contiguous", a);
    if (tni_state_of(a) == TNI_READY && tni_row_major(a)) return tni_scope_again(a);
    return tni_op1(TNI_PRIM(contiguous), 1, &a, NULL, (tn_dtype)a->dtype, a->ndim, a->shape);
}
