/* Calling the user's functions, and what every transform checks. */
#include "trans/call.h"
#include "base/err.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "ops/build.h"

/* One usable array of a callback's results, as a handle of the current scope. */
static int call_result(const char *op, int k, tn_array *a) {
    if (!a) return tni_fail(TN_EVALUE, "%s: result %d of the function is NULL", op, k);
    if (!tni_alive(a))
        return tni_fail(TN_ESTATE, "%s: result %d of the function was freed (its scope has ended)",
                        op, k);
    if (tni_is_error(a))
        return tni_fail(a->status, "%s: the function failed: %s", op, tn_array_error(a));
    return 0;
}

int tni_call_fns(const char *op, tn_fns fn, void *ud, tn_list in, int n_out, tn_array **out) {
    if (!fn) return tni_fail(TN_EVALUE, "%s: the function is NULL", op);
    for (int k = 0; k < n_out; k++) out[k] = NULL;
    tn_scope *s = tn_scope_begin();
    tni_error_clear();
    int status = fn(in, out, n_out, ud);
    if (status > 0) status = tni_fail(TN_EVALUE, "%s: the function returned %d", op, status);
    if (status && !*tni_error()) tni_fail(status, "%s: the function returned %d", op, status);
    int kept = 0;
    for (; kept < n_out && !status; kept++) {
        status = call_result(op, kept, out[kept]);
        if (status) break;
        tni_array_retain(out[kept]);
    }
    tn_scope_end(s);
    for (int k = 0; k < kept; k++) {
        out[k] = tni_scope_own(out[k]);
        if (!status && tni_is_error(out[k])) status = TN_EMEMORY;
    }
    return status;
}

int tni_call_inputs(const char *op, const char *what, tn_list in) {
    if (in.n < 0) return tni_fail(TN_EVALUE, "%s: %d %ss", op, in.n, what);
    for (int i = 0; i < in.n; i++) {
        tn_array *a = in.v[i];
        if (!a) return tni_fail(TN_EVALUE, "%s: %s %d is NULL", op, what, i);
        if (!tni_alive(a))
            return tni_fail(TN_ESTATE, "%s: %s %d was freed (its scope has ended)", op, what, i);
        if (tni_is_error(a)) return tni_fail(a->status, "%s", tn_array_error(a));
    }
    return 0;
}

int tni_call_like(const char *op, const char *what, tn_list got, tn_list like) {
    if (got.n != like.n)
        return tni_fail(TN_EVALUE, "%s: %d %ss for %d arrays", op, got.n, what, like.n);
    int status = tni_call_inputs(op, what, got);
    for (int i = 0; i < got.n && !status; i++) {
        const tn_array *g = got.v[i], *a = like.v[i];
        if (g->dtype != a->dtype || !tni_same_shape(g->ndim, g->shape, a->ndim, a->shape))
            status = tni_fail(TN_ESHAPE, "%s: %s %d is %s, but what it belongs to is %s", op, what,
                              i, tni_describe(g), tni_describe(a));
    }
    return status;
}

static int call_stack(const char *op, const tn_array *like, int k, int64_t size, int64_t axis,
                      tn_array **out) {
    bool stacked = axis != TN_UNMAPPED;
    tn_array *y = *out;
    if (!tni_alive(y) || tni_is_error(y)) return 0; /* the call says so */
    int d = stacked ? tni_axis(y->ndim, axis) : 0;
    bool fits = !stacked || (d >= 0 && y->shape[d] == size);
    if (fits && d) y = *out = tn_moveaxis(y, d, 0);
    if (tni_is_error(y)) return y->status;
    if (fits && y->dtype == like->dtype && y->ndim == like->ndim + stacked &&
        tni_same_shape(like->ndim, y->shape + stacked, like->ndim, like->shape))
        return 0;
    return tni_fail(TN_ESHAPE, "%s: result %d of the rule is %s, not %s%s", op, k, tni_describe(y),
                    stacked ? "a stack of " : "", tni_describe(like));
}

int tni_call_stacks(const char *op, const tni_node *n, int64_t size, const int64_t *axes,
                    tn_array **out) {
    int status = 0;
    for (int k = 0; k < n->n_out && !status; k++)
        status = call_stack(op, n->out[k], k, size, axes[k], &out[k]);
    return status;
}

int tni_call_leave(tn_scope *s, int status, int n, tn_array **list) {
    for (int i = 0; i < n && !status; i++)
        if (list[i]) tni_array_retain(list[i]);
    tn_scope_end(s);
    tn_array *bad = status ? tni_error_last() : NULL;
    for (int i = 0; i < n; i++) {
        if (bad || !list[i]) {
            list[i] = bad;
            continue;
        }
        list[i] = tni_scope_own(list[i]);
        if (!status && tni_is_error(list[i])) status = list[i]->status;
    }
    if (status && !bad) /* no memory for a handle: none of them */
        for (int i = 0; i < n; i++) list[i] = tni_oom();
    return status;
}
