/* A function over many arguments at once: traced for one of them, then every primitive of the trace
 * mapped to one that takes all. What does not depend on a mapped argument is computed once. */
#include "ops/vmap.h"
#include "base/alloc.h"
#include "base/err.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "ops/build.h"
#include "ops/rules.h"
#include "trans/call.h"
#include "trans/trace.h"
#include <string.h>

/* ---- along a trace ---- */

static int map_lowered(const tni_node *n, int64_t size, tn_array *const *in, tn_array **out) {
    tni_trace t;
    int status = tni_trace_lower(&t, n);
    if (!status) status = tni_trace_map(&t, size, in, out);
    tni_trace_free(&t);
    return status;
}

/* Nothing to compute: shapes alone. */
static int map_empty(const tni_node *n, int64_t size, tn_array **out) {
    int status = 0;
    for (int k = 0; k < n->n_out && !status; k++) {
        const tn_array *y = n->out[k];
        out[k] =
            tni_stack_shape(tn_zeros(TN_SHAPE(0), (tn_dtype)y->dtype), size, y->ndim, y->shape);
        status = tn_array_status(out[k]);
    }
    return status;
}

static bool map_has_elements(const tni_node *n, int64_t size) {
    bool any = false;
    for (int k = 0; k < n->n_out; k++) any = any || n->out[k]->size;
    return any && size;
}

static int map_rule(const tni_node *n, int64_t size, tn_array *const *in, tn_array **out) {
    bool any = false;
    for (int i = 0; i < n->n_in; i++) any = any || tni_stacked(n, in, i);
    if (!any) return tni_stack_node(n, -1, in, n->params, out);
    if (!map_has_elements(n, size)) return map_empty(n, size, out);
    int status = n->prim->vmap ? n->prim->vmap(n, size, in, out) : TNI_BY_LOWER;
    if (status != TNI_BY_LOWER) return status;
    return n->prim->lower ? map_lowered(n, size, in, out) : tni_vmap_apart(n, size, in, out);
}

/* What a rule gave, checked: a wrong shape would only surface far away. */
static int map_fits(const tni_node *n, int64_t size, const tn_array *got, const tn_array *like) {
    int more = got->ndim - like->ndim;
    if (tni_is_error(got)) return got->status;
    if (got->dtype == like->dtype && (!more || (more == 1 && got->shape[0] == size)) &&
        tni_same_shape(like->ndim, got->shape + more, like->ndim, like->shape))
        return 0;
    return tni_fail(TN_EINTERNAL, "%s: %s for %lld times %s", n->prim->name, tni_describe(got),
                    (long long)size, tni_describe(like));
}

int tni_trace_map(tni_trace *t, int64_t size, tn_array *const *in, tn_array **out) {
    tn_array **slot = tni_calloc((size_t)t->n_slots + 1, sizeof *slot),
             **v = tni_calloc((size_t)t->most_in + 1, sizeof *v);
    int status = slot && v ? 0 : tni_fail_memory((size_t)t->n_slots * sizeof *slot, "vmap");
    for (int k = 0; k < t->n && !status; k++) slot[k] = in[k];
    for (size_t i = 0; i < t->steps.n && !status; i++) {
        const tni_step *s = &t->steps.v[i];
        const tni_node *n = s->node;
        for (int k = 0; k < n->n_in; k++) {
            int32_t from = t->in_slot.v[s->in + k];
            v[k] = from >= 0 ? slot[from] : n->in[k];
        }
        status = map_rule(n, size, v, slot + s->slot);
        for (int k = 0; k < n->n_out && !status; k++)
            status = map_fits(n, size, slot[s->slot + k], n->out[k]);
    }
    for (int k = 0; k < t->n_out && !status; k++)
        out[k] = t->out_slot[k] >= 0 ? slot[t->out_slot[k]] : t->out[k];
    tni_free(slot), tni_free(v);
    return status;
}

/* ---- the public call ---- */

typedef struct vmap_run {
    tn_ints in_axes, out_axes;
    int n; /* mapped arguments */
    int64_t size;
    tn_array **x, **all, **in; /* one of each mapped argument; all of it, stacked; what fn gets */
    tni_trace t;
} vmap_run;

static int64_t vmap_axis(tn_ints axes, int i) { return axes.n < 0 ? 0 : axes.v[i]; }

static int vmap_check_count(const char *what, tn_ints axes, int n) {
    if (axes.n < 0 || axes.n == n) return 0;
    return tni_fail(TN_EVALUE, "vmap: %d axes for %d %ss", axes.n, n, what);
}

/* Argument i, mapped along `axis`: one of it, and all stacked. */
static int vmap_argument(vmap_run *r, tn_array *a, int i, int64_t axis, int *first) {
    int d = tni_axis(a->ndim, axis);
    if (d < 0)
        return tni_fail(TN_EAXIS, "vmap: axis %lld is out of range for argument %d, %s",
                        (long long)axis, i, tni_describe(a));
    if (*first < 0) *first = i, r->size = a->shape[d];
    if (a->shape[d] != r->size)
        return tni_fail(TN_ESHAPE,
                        "vmap: axis %d of argument %d, %s, has size %lld, but the mapped axis of "
                        "argument %d has %lld",
                        d, i, tni_describe(a), (long long)a->shape[d], *first, (long long)r->size);
    tn_array *all = tn_moveaxis(a, d, 0), *one;
    if (tni_is_error(all)) return all->status;
    tn_ints shape = {all->shape + 1, all->ndim - 1};
    one = r->size ? tn_reshape(tn_slice_axis(all, 0, 0, 1), shape)
                  : tn_zeros(shape, (tn_dtype)a->dtype);
    r->x[r->n] = one, r->all[r->n++] = all;
    return tn_array_status(one);
}

static int vmap_arguments(vmap_run *r, tn_list in) {
    int first = -1, status = 0;
    for (int i = 0; i < in.n && !status; i++) {
        int64_t axis = vmap_axis(r->in_axes, i);
        r->in[i] = in.v[i];
        if (axis != TN_UNMAPPED) status = vmap_argument(r, in.v[i], i, axis, &first);
    }
    if (!status && first < 0) status = tni_fail(TN_EVALUE, "vmap: no argument is mapped");
    if (!status) status = tni_trace_open(&r->t, r->n, r->x);
    for (int i = 0, k = 0; i < in.n && !status; i++)
        if (vmap_axis(r->in_axes, i) != TN_UNMAPPED) r->in[i] = r->t.tracer[k++];
    return status;
}

/* Result k, of which `got` is what the walk gave, along its axis. */
static int vmap_result(const vmap_run *r, int k, int ndim, tn_array *got, tn_array **out) {
    int64_t axis = vmap_axis(r->out_axes, k), shape[TN_MAX_NDIM];
    bool stacked = got->ndim > ndim;
    if (axis == TN_UNMAPPED) {
        if (stacked)
            return tni_fail(TN_EVALUE,
                            "vmap: result %d depends on a mapped argument, so that its "
                            "axis may not be TN_UNMAPPED",
                            k);
        *out = tni_scope_again(got);
        return tn_array_status(*out);
    }
    int d = tni_axis(ndim + 1, axis);
    if (d < 0 || ndim >= TN_MAX_NDIM)
        return tni_fail(TN_EAXIS,
                        "vmap: axis %lld is out of range for result %d, which has %d with it",
                        (long long)axis, k, ndim + 1);
    shape[0] = r->size;
    if (!stacked) {
        memcpy(shape + 1, got->shape, sizeof *shape * (size_t)ndim);
        got = tn_broadcast_to(got, (tn_ints){shape, ndim + 1});
    }
    *out = tn_moveaxis(got, 0, d);
    return tn_array_status(*out);
}

static int vmap_trace(vmap_run *r, tn_fns fn, void *ud, int n_in, int n_out, tn_array **out) {
    int status = tni_call_fns("vmap", fn, ud, (tn_list){r->in, n_in}, n_out, out);
    int *ndim = tni_alloc_array((size_t)n_out + 1, sizeof *ndim);
    if (!ndim) status = tni_fail_memory((size_t)n_out * sizeof *ndim, "vmap");
    for (int k = 0; k < n_out && !status; k++) ndim[k] = out[k]->ndim;
    if (!status) status = tni_trace_walk(&r->t, n_out, out);
    if (!status) status = tni_trace_map(&r->t, r->size, r->all, out);
    for (int k = 0; k < n_out && !status; k++) status = vmap_result(r, k, ndim[k], out[k], &out[k]);
    tni_free(ndim);
    return status;
}

static int vmap(tn_fns fn, void *ud, tn_list in, tn_ints in_axes, int n_out, tn_ints out_axes,
                tn_array **out) {
    int status = tni_call_inputs("vmap", "argument", in);
    if (!status && n_out < 0) status = tni_fail(TN_EVALUE, "vmap: %d results", n_out);
    if (!status) status = vmap_check_count("argument", in_axes, in.n);
    if (!status) status = vmap_check_count("result", out_axes, n_out);
    if (status) return status;
    vmap_run r = {.in_axes = in_axes, .out_axes = out_axes};
    size_t m = (size_t)in.n + 1;
    r.x = tni_calloc(m * 3, sizeof *r.x);
    if (!r.x) return tni_fail_memory(m * 3 * sizeof *r.x, "vmap");
    r.all = r.x + m, r.in = r.all + m;
    status = vmap_arguments(&r, in);
    if (!status) status = vmap_trace(&r, fn, ud, in.n, n_out, out);
    tni_trace_free(&r.t);
    /* One of many is no value: what kept it past the call is told so. */
    for (int k = 0; k < r.n; k++)
        if (tni_state_of(r.x[k]) == TNI_LAZY)
            tni_array_poison(r.x[k], TN_ESTATE,
                             "vmap: a value from inside a mapped function was used after the "
                             "function had returned");
    tni_free(r.x);
    return status;
}

int tn_vmap(tn_fns fn, void *ud, tn_list in, tn_ints in_axes, int n_out, tn_ints out_axes,
            tn_array **out) {
    tn_scope *s = tn_scope_begin();
    int status = vmap(fn, ud, in, in_axes, n_out, out_axes, out);
    return tni_call_leave(s, status, n_out < 0 ? 0 : n_out, out);
}
