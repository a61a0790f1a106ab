/* Stacked inputs of products, norms and attention: a stack becomes rows of a product, images of a
 * batch, or heads and groups, whichever reads shared operands once. */
#include "base/err.h"
#include "ops/attention.h"
#include "ops/build.h"
#include "ops/rules.h"
#include "ops/vmap.h"
#include <string.h>

/* A result whose elements are those of [size, n's result]. */
static int vmap_back(const tni_node *n, int64_t size, tn_array *y, tn_array **out) {
    return tni_stack_done(out, tni_stack_shape(y, size, n->out[0]->ndim, n->out[0]->shape));
}

/* ---- matrix products ---- */

TNI_RULE_VMAP(matmul) {
    const tn_array *a = n->in[0], *y = n->out[0];
    if (tni_stacked(n, in, 1) || a->ndim > 2) return tni_stack_all(n, size, in, NULL, out);
    /* Against one matrix: one tall product. */
    tn_array *v[2] = {tni_stack_join(in[0], 0), in[1]};
    return vmap_back(
        n, size, tni_stack_op(n, 2, v, NULL, 2, (int64_t[]){size * y->shape[0], y->shape[1]}), out);
}

/* x [b, ..., M, K] of a batch of matrices that all calls share: more rows for each matrix. */
static int vmap_quant_rows(const tni_node *n, int64_t size, tn_array *const *in, tn_array **out) {
    const tn_array *y = n->out[0];
    int64_t shape[TN_MAX_NDIM + 1];
    int r = y->ndim - 2;
    memcpy(shape, y->shape, sizeof *shape * y->ndim);
    shape[r] *= size;
    tn_array *v[4] = {tni_stack_join(tn_moveaxis(in[0], 0, r), r), in[1], in[2], in[3]};
    tn_array *z = tni_stack_op(n, 4, v, n->params, y->ndim, shape);
    memcpy(shape, y->shape, sizeof *shape * (size_t)r);
    shape[r] = size, shape[r + 1] = y->shape[r], shape[r + 2] = y->shape[r + 1];
    return tni_stack_done(out, tn_moveaxis(tn_reshape(z, (tn_ints){shape, y->ndim + 1}), r, 0));
}

TNI_RULE_VMAP(quantized_matmul) {
    const tn_array *x = n->in[0], *w = n->in[1], *y = n->out[0];
    bool shared = true;
    for (int i = 1; i < 4; i++) shared = shared && !tni_stacked(n, in, i);
    if (shared && w->ndim == 2) return tni_stack_node(n, size, in, n->params, out);
    if (shared) return vmap_quant_rows(n, size, in, out);
    if (w->ndim > 2) return tni_stack_all(n, size, in, n->params, out);
    int64_t rows = 1;
    for (int i = 0; i + 1 < x->ndim; i++) rows *= x->shape[i];
    tn_array *v[4];
    for (int i = 0; i < 4; i++) v[i] = tni_stack_of(n, size, in, i);
    if (!tni_is_error(v[0])) v[0] = tn_reshape(v[0], TN_SHAPE(size, rows, x->shape[x->ndim - 1]));
    return vmap_back(
        n, size,
        tni_stack_op(n, 4, v, n->params, 3, (int64_t[]){size, rows, y->shape[y->ndim - 1]}), out);
}

/* ---- norms ---- */

/* Weights of each call: the norm without them, in f32 as the kernel computes, then they. */
static int vmap_norm(const tni_node *n, int64_t size, tn_array *const *in, tn_array **out) {
    const tni_p_norm *p = n->params;
    bool shared = true;
    for (int i = 1; i < n->n_in; i++) shared = shared && !tni_stacked(n, in, i);
    if (shared) return tni_stack_node(n, size, in, p, out);
    tn_dtype d = (tn_dtype)n->out[0]->dtype, wide = d == TN_F64 ? TN_F64 : TN_F32;
    tni_p_norm q = {.eps = p->eps};
    tn_array *y = tn_astype(in[0], wide);
    if (!tni_is_error(y)) y = tni_op1(n->prim, 1, &y, &q, wide, y->ndim, y->shape);
    for (int i = 1; i < n->n_in; i++) {
        tn_array *w = tn_astype(in[i], wide);
        if (tni_stacked(n, in, i)) w = tni_stack_rank(w, n->out[0]->ndim);
        y = i == 1 && p->has_weight ? tn_mul(y, w) : tn_add(y, w);
    }
    return tni_stack_done(out, tn_astype(y, d));
}
TNI_RULE_VMAP(rms_norm) { return vmap_norm(n, size, in, out); }
TNI_RULE_VMAP(layer_norm) { return vmap_norm(n, size, in, out); }

/* A gradient for each weight: those of each call apart. A bias without a weight: the sum of the
 * cotangent, which the node would take over all calls. */
TNI_RULE_VMAP(norm_vjp) {
    tni_p_norm_vjp p = *(const tni_p_norm_vjp *)n->params;
    if (p.has_weight || !p.has_bias) return tni_stack_all(n, size, in, &p, out);
    tn_array *v[2] = {tni_stack_of(n, size, in, 0), tni_stack_of(n, size, in, 1)};
    p.has_bias = 0;
    for (int i = 0; i < 2; i++)
        if (tni_is_error(v[i])) return v[i]->status;
    out[0] = tni_op1(n->prim, 2, v, &p, (tn_dtype)v[0]->dtype, v[0]->ndim, v[0]->shape);
    int64_t d = n->out[1]->shape[0];
    tn_array *g =
        tn_reshape(tn_astype(v[1], TN_F32), TN_SHAPE(size, d ? n->in[1]->size / d : 0, d));
    out[1] = tn_astype(tn_sum(g, TN_AXES(1), false), (tn_dtype)v[1]->dtype);
    return tni_is_error(out[0]) ? out[0]->status : tn_array_status(out[1]);
}

/* ---- rotary embedding and attention ---- */

/* [size, b, ...] as a batch of size * b. */
static tn_array *vmap_batch(const tni_node *n, int64_t size, tn_array *const *in, int i) {
    return tni_stack_join(tni_stack_of(n, size, in, i), 0);
}

TNI_RULE_VMAP(rope) {
    const tn_array *x = n->in[0], *offset = n->in[1];
    if (n->n_in > 2 && tni_stacked(n, in, 2)) return TNI_BY_LOWER;
    if (!tni_stacked(n, in, 1) && !offset->ndim) return tni_stack_node(n, size, in, n->params, out);
    tn_array *at = tni_stack_of(n, size, in, 1);
    if (!offset->ndim) {
        at = tn_expand_dims(at, TN_AXES(1));
        at = tn_broadcast_to(at, TN_SHAPE(size, x->shape[0]));
    }
    tn_array *v[3] = {vmap_batch(n, size, in, 0), tni_stack_join(at, 0),
                      n->n_in > 2 ? in[2] : NULL};
    if (tni_is_error(v[0])) return v[0]->status;
    return vmap_back(n, size, tni_stack_op(n, n->n_in, v, n->params, x->ndim, v[0]->shape), out);
}

/* The mask [b, h, lq, lk] of all calls as a batch. Where it is repeated it stays so: what is copied
 * is at most the calls' own masks, without their heads. */
static tn_array *vmap_mask(const tni_node *n, int64_t size, tn_array *mask) {
    const int64_t *to = n->in[3]->shape;
    int64_t s[5] = {1, 1, 1, 1, 1};
    if (tni_state_of(mask) == TNI_LAZY && mask->node->prim == TNI_PRIM(broadcast_to))
        mask = mask->node->in[0];
    for (int i = 0; i < mask->ndim; i++) s[5 - mask->ndim + i] = mask->shape[i];
    bool each = s[0] != 1 || s[1] != 1;
    mask = tn_reshape(mask, TN_SHAPE(s[0], s[1], s[2], s[3], s[4]));
    if (each) mask = tn_broadcast_to(mask, TN_SHAPE(size, to[0], s[2], s[3], s[4]));
    return tn_broadcast_to(tni_stack_join(mask, 0), TN_SHAPE(size * to[0], to[1], to[2], to[3]));
}

/* One number for each head of each image of each call, where calls differ. */
static tn_array *vmap_sinks(const tni_node *n, int64_t size, tn_array *const *in, int i) {
    tn_array *sinks = in[i];
    int64_t b = n->in[0]->shape[0], heads = n->in[0]->shape[1];
    if (!tni_stacked(n, in, i) && sinks->ndim == 1) return sinks;
    sinks = tni_stack_of(n, size, in, i);
    if (tni_is_error(sinks)) return sinks;
    if (sinks->ndim == 2) sinks = tn_expand_dims(sinks, TN_AXES(1));
    return tni_stack_join(tn_broadcast_to(sinks, TN_SHAPE(size, b, heads)), 0);
}

/* Calls as a batch. */
static void vmap_attention(const tni_node *n, int64_t size, tn_array *const *in, tn_array **v) {
    const tni_p_sdpa *p = n->params;
    int masked = p->mask >= TNI_MASK_BOOL, sinks = p->has_sinks ? 3 + masked : -1;
    for (int i = 0; i < n->n_in; i++)
        v[i] = i == 3 && masked ? vmap_mask(n, size, in[i])
               : i == sinks     ? vmap_sinks(n, size, in, i)
                                : vmap_batch(n, size, in, i);
}

TNI_RULE_VMAP(sdpa) {
    const tn_array *y = n->out[0];
    const int64_t shape[4] = {size * y->shape[0], y->shape[1], y->shape[2], y->shape[3]};
    tn_array *v[TNI_SDPA_VJP_IN];
    vmap_attention(n, size, in, v);
    return vmap_back(n, size, tni_stack_op(n, n->n_in, v, n->params, 4, shape), out);
}

/* Each call has its own gradient of the sinks: the sum over its batch. */
TNI_RULE_VMAP(sdpa_vjp) {
    const tni_p_sdpa *p = n->params;
    tn_array *v[TNI_SDPA_VJP_IN], *grad[4];
    vmap_attention(n, size, in, v);
    if (p->has_sinks) {
        const tn_array *q = n->in[0];
        tn_array **sinks = &v[n->n_in - 2];
        if (!tni_is_error(*sinks))
            *sinks = tn_broadcast_to(*sinks, TN_SHAPE(size * q->shape[0], q->shape[1]));
    }
    int status = tni_sdpa_vjp_node(n->n_in, v, p, grad);
    for (int i = 0; i < n->n_out && !status; i++) {
        const tn_array *y = n->out[i];
        if (i == 3 && y->ndim == 1)
            grad[i] = tn_sum(tn_reshape(grad[i], TN_SHAPE(size, n->in[0]->shape[0], y->shape[0])),
                             TN_AXES(1), false);
        out[i] = tni_stack_shape(grad[i], size, y->ndim, y->shape);
        status = tn_array_status(out[i]);
    }
    return status;
}
