/* Rules for views and moves. All are exact: they only change by which way elements are reached.
 *   reshape       of the same shape; of a reshape
 *   transpose     that moves nothing; of a transpose; that moves only axes of size 1: a reshape
 *   broadcast_to  of the same shape; of a broadcast; that only adds axes of size 1: a reshape; of a
 *                 reshape that adds such axes in front
 *   slice         of everything; of a slice; of one part of a concatenation; of repeated axes of a
 *                 broadcast; of what a slice_update just put there
 *   view          of the same dtype; of a view
 *   concatenate   of one part that is not empty; of neighbouring slices of one array; of
 *                 concatenations along the same axis */
#include "base/alloc.h"
#include "base/err.h"
#include "core/shape.h"
#include "ops/build.h"
#include "ops/op.h"
#include "trans/simp.h"
#include <string.h>

/* Concatenations of more parts are left alone, so that chains of them stay linear. */
enum { VIEWS_PARTS = 64 };

static bool views_same(const tn_array *a, const tni_simp_op *op) {
    return a->dtype == op->dtype && tni_same_shape(a->ndim, a->shape, op->ndim, op->shape);
}

static tn_array *views_make(tni_simp *s, int id, tn_array *a, const void *params, int ndim,
                            const int64_t *shape) {
    tni_simp_op op = {&tni_prims[id], 1, &a, params, (tn_dtype)a->dtype, ndim, shape};
    return tni_simp_make(s, &op);
}

tn_array *tni_simp_reshape(tni_simp *s, tn_array *a, int ndim, const int64_t *shape) {
    return views_make(s, TNI_OP_reshape, a, NULL, ndim, shape);
}

tn_array *tni_simp_broadcast(tni_simp *s, tn_array *a, int ndim, const int64_t *shape) {
    return views_make(s, TNI_OP_broadcast_to, a, NULL, ndim, shape);
}

static tn_array *views_reshape(tni_simp *s, const tni_simp_op *op) {
    tn_array *a = op->in[0];
    if (views_same(a, op)) return a;
    const tni_node *n = tni_simp_is(s, a, TNI_OP_reshape);
    return n ? tni_simp_reshape(s, n->in[0], op->ndim, op->shape) : NULL;
}

/* The axes that are longer than 1 keep their order. */
static bool views_moves_ones(const tn_array *a, const tni_p_axes *p) {
    int last = -1;
    for (int i = 0; i < a->ndim; i++) {
        if (a->shape[p->axes[i]] == 1) continue;
        if (p->axes[i] < last) return false;
        last = p->axes[i];
    }
    return true;
}

static tn_array *views_transpose(tni_simp *s, const tni_simp_op *op) {
    tn_array *a = op->in[0];
    const tni_p_axes *p = op->params;
    const tni_node *n = tni_simp_is(s, a, TNI_OP_transpose);
    if (views_moves_ones(a, p)) return tni_simp_reshape(s, a, op->ndim, op->shape);
    if (!n) return NULL;
    const tni_p_axes *q = n->params;
    tni_p_axes r = {0};
    for (int i = 0; i < op->ndim; i++) r.axes[i] = q->axes[p->axes[i]];
    return views_make(s, TNI_OP_transpose, n->in[0], &r, op->ndim, op->shape);
}

/* The shape of `a` is the end of `shape`, behind sizes 1. */
static bool views_adds_ones(const tn_array *a, int ndim, const int64_t *shape) {
    int extra = ndim - a->ndim;
    for (int i = 0; i < extra; i++)
        if (shape[i] != 1) return false;
    return extra >= 0 && tni_same_shape(a->ndim, a->shape, a->ndim, shape + extra);
}

static tn_array *views_broadcast(tni_simp *s, const tni_simp_op *op) {
    tn_array *a = op->in[0];
    int64_t size;
    if (tni_shape_size(op->ndim, op->shape, &size) && size == a->size && size)
        return tni_simp_reshape(s, a, op->ndim, op->shape);
    const tni_node *n = tni_simp_is(s, a, TNI_OP_broadcast_to);
    if (!n && (n = tni_simp_is(s, a, TNI_OP_reshape)) &&
        !views_adds_ones(n->in[0], a->ndim, a->shape))
        n = NULL;
    return n ? tni_simp_broadcast(s, n->in[0], op->ndim, op->shape) : NULL;
}

/* ---- slices ---- */

static bool views_takes_all(const tn_array *a, const tni_p_slice *p, const int64_t *shape) {
    for (int i = 0; i < a->ndim; i++)
        if (shape[i] != a->shape[i] || p->start[i] || (p->step[i] != 1 && shape[i] > 1))
            return false;
    return true;
}

static tn_array *views_slice_slice(tni_simp *s, const tni_simp_op *op, const tni_node *n) {
    const tni_p_slice *p = op->params, *q = n->params;
    tni_p_slice r = {0};
    for (int i = 0; i < op->ndim; i++) {
        int64_t at;
        if (__builtin_mul_overflow(p->start[i], q->step[i], &at) ||
            __builtin_add_overflow(at, q->start[i], &r.start[i]) ||
            __builtin_mul_overflow(p->step[i], q->step[i], &r.step[i]))
            return NULL;
    }
    tni_slice_normal(&r, op->ndim, op->shape);
    return views_make(s, TNI_OP_slice, n->in[0], &r, op->ndim, op->shape);
}

/* The first and the last element taken along an axis. */
static void views_span(const tni_p_slice *p, int axis, int64_t length, int64_t *low,
                       int64_t *high) {
    int64_t a = p->start[axis], b = a + (length - 1) * p->step[axis];
    *low = a < b ? a : b, *high = a < b ? b : a;
}

static tn_array *views_slice_part(tni_simp *s, const tni_simp_op *op, const tni_node *n) {
    int axis = ((const tni_p_axis *)n->params)->axis;
    int64_t low, high, at = 0;
    if (!op->shape[axis] || n->n_in > VIEWS_PARTS) return NULL;
    views_span(op->params, axis, op->shape[axis], &low, &high);
    for (int i = 0; i < n->n_in; at += n->in[i++]->shape[axis]) {
        int64_t end = at + n->in[i]->shape[axis];
        if (low >= end) continue;
        if (high >= end) return NULL;
        tni_p_slice r = *(const tni_p_slice *)op->params;
        r.start[axis] -= at;
        return views_make(s, TNI_OP_slice, n->in[i], &r, op->ndim, op->shape);
    }
    return NULL;
}

static tn_array *views_slice_broadcast(tni_simp *s, const tni_simp_op *op, const tni_node *n) {
    const tni_p_slice *p = op->params;
    const tn_array *a = op->in[0], *x = n->in[0];
    for (int i = 0; i < op->ndim; i++) {
        int k = i - (a->ndim - x->ndim);
        bool whole = op->shape[i] == a->shape[i] && !p->start[i] && p->step[i] == 1;
        if (!whole && k >= 0 && x->shape[k] != 1) return NULL;
    }
    return tni_simp_broadcast(s, n->in[0], op->ndim, op->shape);
}

static tn_array *views_slice_update(const tni_simp_op *op, const tni_node *n) {
    if (!views_same(n->in[1], op) || memcmp(op->params, n->params, sizeof(tni_p_slice)))
        return NULL;
    return n->in[1];
}

static tn_array *views_slice(tni_simp *s, const tni_simp_op *op) {
    tn_array *a = op->in[0];
    const tni_node *n;
    if (views_takes_all(a, op->params, op->shape)) return a;
    if ((n = tni_simp_is(s, a, TNI_OP_slice))) return views_slice_slice(s, op, n);
    if ((n = tni_simp_is(s, a, TNI_OP_concatenate))) return views_slice_part(s, op, n);
    if ((n = tni_simp_is(s, a, TNI_OP_broadcast_to))) return views_slice_broadcast(s, op, n);
    if ((n = tni_simp_is(s, a, TNI_OP_slice_update))) return views_slice_update(op, n);
    return NULL;
}

static tn_array *views_view(tni_simp *s, const tni_simp_op *op) {
    tn_array *a = op->in[0];
    if (views_same(a, op)) return a;
    const tni_node *n = tni_simp_is(s, a, TNI_OP_view);
    if (!n) return NULL;
    tni_simp_op to = {op->prim, 1, n->in, NULL, op->dtype, op->ndim, op->shape};
    return tni_simp_make(s, &to);
}

/* ---- concatenate ---- */

typedef struct views_parts {
    int axis, n;
    bool changed;
    tn_array *v[VIEWS_PARTS];
} views_parts;

/* b continues the slice a of the same array along the axis. */
static bool views_continues(const tni_simp *s, const views_parts *c, const tn_array *a,
                            const tn_array *b) {
    const tni_node *m = tni_simp_is(s, a, TNI_OP_slice), *n = tni_simp_is(s, b, TNI_OP_slice);
    if (!m || !n || m->in[0] != n->in[0]) return false;
    const tni_p_slice *p = m->params, *q = n->params;
    for (int i = 0; i < a->ndim; i++) {
        int64_t next = p->start[i] + (i == c->axis ? a->shape[i] * p->step[i] : 0);
        if (q->start[i] != next || q->step[i] != p->step[i]) return false;
    }
    return true;
}

static void views_push(tni_simp *s, views_parts *c, tn_array *a) {
    tn_array *last = c->n ? c->v[c->n - 1] : NULL;
    if (!a->shape[c->axis]) {
        c->changed = true;
    } else if (last && views_continues(s, c, last, a)) {
        int64_t shape[TN_MAX_NDIM];
        memcpy(shape, a->shape, sizeof *shape * a->ndim);
        shape[c->axis] += last->shape[c->axis];
        c->v[c->n - 1] =
            views_make(s, TNI_OP_slice, last->node->in[0], last->node->params, a->ndim, shape);
        c->changed = true;
    } else {
        c->v[c->n++] = a;
    }
}

static tn_array *views_concatenate(tni_simp *s, const tni_simp_op *op) {
    views_parts c = {.axis = ((const tni_p_axis *)op->params)->axis};
    int64_t size;
    if (!tni_shape_size(op->ndim, op->shape, &size) || !size) return NULL;
    for (int i = 0; i < op->n_in && !s->status; i++) {
        const tni_node *n = tni_simp_is(s, op->in[i], TNI_OP_concatenate);
        if (n && ((const tni_p_axis *)n->params)->axis != c.axis) n = NULL;
        if (c.n + (n ? n->n_in : 1) > VIEWS_PARTS) return NULL;
        c.changed = c.changed || n;
        for (int k = 0; n && k < n->n_in && !s->status; k++) views_push(s, &c, n->in[k]);
        if (!n) views_push(s, &c, op->in[i]);
    }
    if (s->status) return NULL;
    if (c.n == 1) return c.v[0];
    if (!c.changed) return NULL;
    tni_simp_op to = {op->prim, c.n, c.v, op->params, op->dtype, op->ndim, op->shape};
    return tni_simp_make(s, &to);
}

tn_array *tni_simp_view_rule(tni_simp *s, const tni_simp_op *op) {
    switch (op->prim->id) {
    case TNI_OP_reshape:
        return views_reshape(s, op);
    case TNI_OP_transpose:
        return views_transpose(s, op);
    case TNI_OP_broadcast_to:
        return views_broadcast(s, op);
    case TNI_OP_slice:
        return views_slice(s, op);
    case TNI_OP_view:
        return views_view(s, op);
    case TNI_OP_concatenate:
        return views_concatenate(s, op);
    default:
        return NULL;
    }
}
