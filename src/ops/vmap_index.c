/* Stacked inputs of picking and changing by index. Where indices and what they index are both
 * stacked, the number of the call is one more index: what is out of range stays an error. */
#include "ops/build.h"
#include "ops/vmap.h"
#include <string.h>

/* ---- take ---- */

/* 0, 1, ... size - 1 along axis 0 of `ndim` axes. */
static tn_array *vmap_calls(int64_t size, int ndim) {
    int64_t shape[TN_MAX_NDIM];
    for (int i = 0; i < ndim; i++) shape[i] = i ? 1 : size;
    return tn_reshape(tn_arange(0, (double)size, 1, TN_I64), (tn_ints){shape, ndim});
}

static int64_t vmap_product(const int64_t *shape, int from, int to) {
    int64_t n = 1;
    for (int i = from; i < to; i++) n *= shape[i];
    return n;
}

/* a as [size, before, axis, after] and indices as [size, places]: gathered by call and index. */
static tn_array *vmap_take_both(const tni_node *n, int64_t size, tn_array *const *in, int axis) {
    const tn_array *a = n->in[0], *indices = n->in[1], *y = n->out[0];
    int64_t p = vmap_product(a->shape, 0, axis), q = vmap_product(a->shape, axis + 1, a->ndim),
            m = indices->size;
    tn_array *x = tn_reshape(in[0], TN_SHAPE(size, p, a->shape[axis], q));
    tn_array *at = tn_reshape(in[1], TN_SHAPE(size, m));
    tn_array *g =
        tn_gather(x, TN_LIST(vmap_calls(size, 2), at), TN_AXES(0, 2), TN_SHAPE(1, p, 1, q));
    g = tn_transpose(tn_squeeze(g, TN_AXES(2, 4)), TN_AXES(0, 2, 1, 3));
    return tni_stack_shape(g, size, y->ndim, y->shape);
}

TNI_RULE_VMAP(take) {
    tni_p_take p = *(const tni_p_take *)n->params;
    const tn_array *y = n->out[0];
    int64_t shape[TN_MAX_NDIM + 1];
    if (!tni_stacked(n, in, 1)) {
        p.axis++;
        return tni_stack_node(n, size, in, &p, out);
    }
    if (tni_stacked(n, in, 0)) return tni_stack_done(out, vmap_take_both(n, size, in, p.axis));
    for (int i = 0; i < y->ndim; i++) shape[i + (i >= p.axis)] = y->shape[i];
    shape[p.axis] = size;
    return tni_stack_done(out,
                          tn_moveaxis(tni_stack_op(n, 2, in, &p, y->ndim + 1, shape), p.axis, 0));
}

/* ---- gather and scatter ---- */

static bool vmap_indices_stacked(const tni_node *n, tn_array *const *in) {
    bool any = false;
    for (int i = 1; i <= ((const tni_p_gather *)n->params)->n; i++)
        any = any || tni_stacked(n, in, i);
    return any;
}

/* The array's axes counted with one more in front. */
static tni_p_gather vmap_shift(const tni_node *n) {
    tni_p_gather p = *(const tni_p_gather *)n->params;
    for (int i = 0; i < p.n; i++) p.axes[i]++;
    return p;
}

/* The index arrays stacked, and before them the number of the call, along axis 0. */
static void vmap_index_calls(const tni_node *n, int64_t size, tn_array *const *in, tni_p_gather *p,
                             tn_array **v) {
    int ni = n->in[1]->ndim;
    for (int i = 0; i < p->n; i++) v[1 + i] = tni_stack_of(n, size, in, 1 + i);
    v[0] = tni_is_error(v[1]) ? v[1] : tn_broadcast_to(vmap_calls(size, ni + 1), tn_shape(v[1]));
    memmove(p->axes + 1, p->axes, (size_t)p->n);
    p->axes[0] = 0;
    p->n++;
}

/* y's shape with axis `at` of `more` put in. */
static int vmap_insert(const tn_array *y, int at, int64_t more, int64_t *shape) {
    for (int i = 0; i < y->ndim; i++) shape[i + (i >= at)] = y->shape[i];
    shape[at] = more;
    return y->ndim + 1;
}

TNI_RULE_VMAP(gather) {
    const tn_array *y = n->out[0];
    tni_p_gather p = vmap_shift(n);
    int64_t shape[TN_MAX_NDIM + 2];
    int ni = n->in[1]->ndim, ndim;
    if (!vmap_indices_stacked(n, in)) { /* the stack is one more axis of each slice */
        ndim = vmap_insert(y, ni, size, shape);
        return tni_stack_done(out,
                              tn_moveaxis(tni_stack_op(n, n->n_in, in, &p, ndim, shape), ni, 0));
    }
    tn_array *v[2 + TN_MAX_NDIM] = {in[0]};
    if (!tni_stacked(n, in, 0)) {
        for (int i = 1; i < n->n_in; i++) v[i] = tni_stack_of(n, size, in, i);
        return tni_stack_node(n, size, v, n->params, out);
    }
    vmap_index_calls(n, size, in, &p, v + 1);
    ndim = vmap_insert(y, ni, 1, shape);
    memmove(shape + 1, shape, sizeof *shape * (size_t)ndim);
    shape[0] = size;
    tn_array *g = tni_stack_op(n, n->n_in + 1, v, &p, ndim + 1, shape);
    return tni_stack_done(out, tni_stack_shape(g, size, y->ndim, y->shape));
}

TNI_RULE_VMAP(scatter) {
    const tn_array *y = n->out[0];
    tni_p_gather p = vmap_shift(n);
    int64_t shape[TN_MAX_NDIM + 1];
    int ni = n->in[1]->ndim, last = n->n_in - 1, ndim = vmap_insert(y, 0, size, shape);
    tn_array *v[3 + TN_MAX_NDIM] = {tni_stack_of(n, size, in, 0)},
                    *u = tni_stack_of(n, size, in, last);
    if (vmap_indices_stacked(n, in)) {
        vmap_index_calls(n, size, in, &p, v + 1);
        v[++last] = tn_expand_dims(u, TN_AXES(1 + ni));
    } else {
        for (int i = 1; i < last; i++) v[i] = in[i];
        v[last] = tn_moveaxis(u, 0, ni);
    }
    return tni_stack_done(out, tni_stack_op(n, last + 1, v, &p, ndim, shape));
}

TNI_RULE_VMAP(gather_axis) {
    tni_p_gather_axis p = *(const tni_p_gather_axis *)n->params;
    p.axis++;
    return tni_stack_all(n, size, in, &p, out);
}
TNI_RULE_VMAP(scatter_axis) {
    tni_p_gather_axis p = *(const tni_p_gather_axis *)n->params;
    p.axis++;
    return tni_stack_all(n, size, in, &p, out);
}
