/* Stacked inputs of element-wise ops, reductions, views, joins and parts, and what all rules of the
 * vmap column share. */
#include "base/alloc.h"
#include "base/err.h"
#include "ops/build.h"
#include "ops/vmap.h"
#include <string.h>

/* ---- stacking ---- */

tn_array *tni_stack_shape(tn_array *a, int64_t size, int ndim, const int64_t *shape) {
    int64_t s[TN_MAX_NDIM];
    if (tni_is_error(a)) return a;
    if (ndim >= TN_MAX_NDIM)
        return tni_error_array(TN_ESHAPE, "vmap: %s has no room for one more axis",
                               tni_describe(a));
    s[0] = size;
    memcpy(s + 1, shape, sizeof *s * (size_t)ndim);
    return tn_reshape(a, (tn_ints){s, ndim + 1});
}

tn_array *tni_stack_of(const tni_node *n, int64_t size, tn_array *const *in, int i) {
    tn_array *a = in[i];
    int64_t s[TN_MAX_NDIM];
    if (tni_stacked(n, in, i)) return a;
    if (a->ndim >= TN_MAX_NDIM)
        return tni_error_array(TN_ESHAPE, "vmap: %s has no room for one more axis",
                               tni_describe(a));
    s[0] = size;
    memcpy(s + 1, a->shape, sizeof *s * a->ndim);
    return tn_broadcast_to(a, (tn_ints){s, a->ndim + 1});
}

tn_array *tni_stack_rank(tn_array *a, int ndim) {
    int64_t s[TN_MAX_NDIM];
    int more = ndim + 1 - a->ndim;
    if (tni_is_error(a) || !more) return a;
    for (int i = 0; i < more; i++) s[i] = 1;
    memcpy(s + more, a->shape + 1, sizeof *s * (size_t)(a->ndim - 1));
    return tni_stack_shape(a, a->shape[0], ndim, s);
}

tn_array *tni_stack_join(tn_array *a, int i) {
    return tni_is_error(a) ? a : tn_flatten(a, i, i + 1);
}

int tni_stack_done(tn_array **out, tn_array *y) {
    out[0] = y;
    return tn_array_status(y);
}

int tni_stack_node(const tni_node *n, int64_t size, tn_array *const *in, const void *params,
                   tn_array **out) {
    int64_t shape[TNI_MAX_OUT][TN_MAX_NDIM], elements;
    tni_out_spec spec[TNI_MAX_OUT];
    int lead = size >= 0;
    for (int i = 0; i < n->n_in; i++)
        if (tni_is_error(in[i])) return in[i]->status;
    for (int k = 0; k < n->n_out; k++) {
        const tn_array *y = n->out[k];
        if (y->ndim + lead > TN_MAX_NDIM)
            return tni_fail(TN_ESHAPE, "vmap: %s of %s has no room for one more axis",
                            n->prim->name, tni_describe(y));
        shape[k][0] = size;
        memcpy(shape[k] + lead, y->shape, sizeof shape[k][0] * y->ndim);
        if (!tni_shape_size(y->ndim + lead, shape[k], &elements))
            return tni_fail(TN_ESHAPE, "vmap: %lld times %s of %s is too large", (long long)size,
                            n->prim->name, tni_describe(y));
        spec[k] = (tni_out_spec){(tn_dtype)y->dtype, y->ndim + lead, shape[k]};
    }
    int status = tni_node_new(n->prim, n->n_in, in, params, n->n_out, spec, out);
    for (int k = 0; k < n->n_out && !status; k++) out[k] = tni_scope_own(out[k]);
    for (int k = 0; k < n->n_out && !status; k++) status = tn_array_status(out[k]);
    return status;
}

int tni_stack_all(const tni_node *n, int64_t size, tn_array *const *in, const void *params,
                  tn_array **out) {
    tn_array *few[8] = {NULL},
             **v = n->n_in <= 8 ? few : tni_alloc_array((size_t)n->n_in, sizeof *v);
    if (!v) return tni_fail_memory((size_t)n->n_in * sizeof *v, "vmap");
    for (int i = 0; i < n->n_in; i++) v[i] = tni_stack_of(n, size, in, i);
    int status = tni_stack_node(n, size, v, params, out);
    if (v != few) tni_free(v);
    return status;
}

tn_array *tni_stack_op(const tni_node *n, int n_in, tn_array *const *in, const void *params,
                       int ndim, const int64_t *shape) {
    int64_t elements;
    for (int i = 0; i < n_in; i++)
        if (tni_is_error(in[i])) return in[i];
    if (ndim > TN_MAX_NDIM || !tni_shape_size(ndim, shape, &elements))
        return tni_error_array(TN_ESHAPE, "vmap: all of %s of %s are too large", n->prim->name,
                               tni_describe(n->out[0]));
    return tni_op1(n->prim, n_in, in, params, (tn_dtype)n->out[0]->dtype, ndim, shape);
}

/* ---- rules for many ---- */

TNI_RULE_VMAP(front) { return tni_stack_all(n, size, in, n->params, out); }

/* Operands keep their own shapes, which meet from the right: those of stacked ones are filled up.
 */
TNI_RULE_VMAP(ew) {
    tn_array *v[3];
    for (int i = 0; i < n->n_in; i++)
        v[i] = tni_stacked(n, in, i) ? tni_stack_rank(in[i], n->out[0]->ndim) : in[i];
    return tni_stack_node(n, size, v, n->params, out);
}

TNI_RULE_VMAP(red) {
    tni_p_reduce p = {((const tni_p_reduce *)n->params)->axes << 1};
    return tni_stack_node(n, size, in, &p, out);
}

/* Call b's inputs. */
static int vmap_call(const tni_node *n, tn_array *const *in, int64_t b, tn_array **v) {
    int status = 0;
    for (int i = 0; i < n->n_in && !status; i++) {
        v[i] = in[i];
        if (tni_stacked(n, in, i)) v[i] = tn_squeeze(tn_slice_axis(in[i], 0, b, b + 1), TN_AXES(0));
        status = tn_array_status(v[i]);
    }
    return status;
}

TNI_RULE_VMAP(apart) {
    if (size > INT32_MAX) return tni_fail(TN_ESHAPE, "vmap: %lld calls", (long long)size);
    size_t many = (size_t)size * (size_t)n->n_out;
    tn_array **v = tni_alloc_array((size_t)n->n_in, sizeof *v),
             **y = tni_alloc_array(many, sizeof *y), *one[TNI_MAX_OUT];
    int status = v && y ? 0 : tni_fail_memory(many * sizeof *y, "vmap");
    for (int64_t b = 0; b < size && !status; b++) {
        status = vmap_call(n, in, b, v);
        if (!status) status = tni_stack_node(n, -1, v, n->params, one);
        for (int k = 0; k < n->n_out && !status; k++) y[k * size + b] = one[k];
    }
    for (int k = 0; k < n->n_out && !status; k++) {
        out[k] = tn_stack((tn_list){y + k * size, (int)size}, 0);
        status = tn_array_status(out[k]);
    }
    tni_free(v), tni_free(y);
    return status;
}

/* ---- views ---- */

TNI_RULE_VMAP(transpose) {
    const tni_p_axes *p = n->params;
    tni_p_axes q = {{0}};
    for (int i = 0; i + 1 < TN_MAX_NDIM && i < n->in[0]->ndim; i++)
        q.axes[i + 1] = (int8_t)(p->axes[i] + 1);
    return tni_stack_node(n, size, in, &q, out);
}

/* The parameters with the whole of one more axis in front. */
static tni_p_slice vmap_part(const tni_node *n) {
    const tni_p_slice *p = n->params;
    tni_p_slice q = {.step = {1}};
    for (int i = 0; i + 1 < TN_MAX_NDIM; i++)
        q.start[i + 1] = p->start[i], q.step[i + 1] = p->step[i];
    return q;
}

TNI_RULE_VMAP(slice) {
    tni_p_slice p = vmap_part(n);
    return tni_stack_node(n, size, in, &p, out);
}

TNI_RULE_VMAP(broadcast_to) {
    tn_array *a = tni_stack_rank(in[0], n->out[0]->ndim);
    return tni_stack_node(n, size, &a, NULL, out);
}

/* ---- joins and parts ---- */

TNI_RULE_VMAP(concatenate) {
    tni_p_axis p = {((const tni_p_axis *)n->params)->axis + 1};
    return tni_stack_all(n, size, in, &p, out);
}

TNI_RULE_VMAP(slice_update) {
    tni_p_slice p = vmap_part(n);
    return tni_stack_all(n, size, in, &p, out);
}

TNI_RULE_VMAP(scan) {
    tni_p_scan p = *(const tni_p_scan *)n->params;
    p.axis++;
    return tni_stack_node(n, size, in, &p, out);
}
