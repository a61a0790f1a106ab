/* Stacked inputs of convolutions: calls become images of the batch where they share the weight, and
 * channels of more groups where they do not. With G groups, channels are [G, C / G] in memory, so
 * that calls which share the other operand go between: [G, calls, C / G]. */
#include "base/err.h"
#include "ops/build.h"
#include "ops/vmap.h"
#include <string.h>

/* a with axis i as [size, rest]. */
static tn_array *vmap_split(tn_array *a, int i, int64_t size) {
    int64_t s[TN_MAX_NDIM];
    if (tni_is_error(a)) return a;
    for (int d = 0; d < a->ndim; d++) s[d + (d > i)] = a->shape[d];
    s[i] = size, s[i + 1] = a->shape[i] / size;
    return tn_reshape(a, (tn_ints){s, a->ndim + 1});
}

/* Channels, the last axis, of [size, ..., G * c] as G * size * c. */
static tn_array *vmap_channels(tn_array *a, int64_t groups) {
    if (tni_is_error(a)) return a;
    int last = a->ndim - 2; /* of what is left without the stack */
    a = tn_moveaxis(vmap_split(a, last + 1, groups), 0, last + 1);
    return tni_stack_join(tni_stack_join(a, last), last);
}
/* And the other way. */
static tn_array *vmap_channels_back(tn_array *a, int64_t groups, int64_t size) {
    if (tni_is_error(a)) return a;
    int last = a->ndim - 1;
    a = vmap_split(vmap_split(a, last, groups), last + 1, size);
    return tni_stack_join(tn_moveaxis(a, last + 1, 0), last + 1);
}

/* Rows, the first axis, of a weight [size, G * o, ...] as G * size * o. */
static tn_array *vmap_rows(tn_array *w, int64_t groups) {
    w = tn_moveaxis(vmap_split(w, 1, groups), 0, 1);
    return tni_stack_join(tni_stack_join(w, 0), 0);
}
static tn_array *vmap_rows_back(tn_array *w, int64_t groups, int64_t size) {
    w = tn_moveaxis(vmap_split(vmap_split(w, 0, groups), 1, size), 1, 0);
    return tni_stack_join(w, 1);
}

static int vmap_groups(const tni_node *n, int64_t size, tni_p_conv *p) {
    *p = *(const tni_p_conv *)n->params;
    if (size <= INT32_MAX / p->groups) return 0;
    return tni_fail(TN_ESHAPE, "vmap: %lld times %s in %d groups is too large", (long long)size,
                    n->prim->name, p->groups);
}

TNI_RULE_VMAP(conv) {
    const tn_array *y = n->out[0];
    bool xs = tni_stacked(n, in, 0), ws = tni_stacked(n, in, 1);
    int64_t shape[TN_MAX_NDIM];
    int last = y->ndim - 1, status;
    tni_p_conv p;
    if ((status = vmap_groups(n, size, &p))) return status;
    memcpy(shape, y->shape, sizeof *shape * y->ndim);
    shape[ws ? last : 0] *= size;
    tn_array *v[2] = {in[0], in[1]}, *z;
    if (!ws) { /* more images */
        v[0] = tni_stack_join(in[0], 0);
        z = tni_stack_op(n, 2, v, &p, y->ndim, shape);
        return tni_stack_done(out, tni_stack_shape(z, size, y->ndim, y->shape));
    }
    int64_t groups = xs ? 1 : p.groups; /* of which each holds a part of every call */
    v[1] = vmap_rows(in[1], groups);
    if (xs) v[0] = vmap_channels(in[0], 1), p.groups *= (int32_t)size;
    z = tni_stack_op(n, 2, v, &p, y->ndim, shape);
    return tni_stack_done(out, vmap_channels_back(z, groups, size));
}

TNI_RULE_VMAP(conv_weight) {
    const tn_array *y = n->out[0];
    bool xs = tni_stacked(n, in, 0), ds = tni_stacked(n, in, 1);
    int64_t shape[TN_MAX_NDIM];
    int last = y->ndim - 1, status;
    tni_p_conv p;
    if ((status = vmap_groups(n, size, &p))) return status;
    int64_t groups = xs && ds ? 1 : p.groups;
    memcpy(shape, y->shape, sizeof *shape * y->ndim);
    shape[ds ? 0 : last] *= size;
    tn_array *v[2] = {xs ? vmap_channels(in[0], groups) : in[0],
                      ds ? vmap_channels(in[1], groups) : in[1]};
    if (xs && ds) p.groups *= (int32_t)size;
    tn_array *z = tni_stack_op(n, 2, v, &p, y->ndim, shape);
    return tni_stack_done(out,
                          ds ? vmap_rows_back(z, groups, size) : vmap_channels_back(z, 1, size));
}

/* Calls as more images. */
TNI_RULE_VMAP(pool) {
    const tn_array *y = n->out[0];
    int64_t shape[TN_MAX_NDIM];
    tn_array *v[2] = {NULL};
    memcpy(shape, y->shape, sizeof *shape * y->ndim);
    shape[0] *= size;
    for (int i = 0; i < n->n_in; i++) v[i] = tni_stack_join(tni_stack_of(n, size, in, i), 0);
    tn_array *z = tni_stack_op(n, n->n_in, v, n->params, y->ndim, shape);
    return tni_stack_done(out, tni_stack_shape(z, size, y->ndim, y->shape));
}
TNI_RULE_VMAP(pool_vjp) { return tni_vmap_pool(n, size, in, out); }
