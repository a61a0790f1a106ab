/* Views, which move no data when strides allow, and copies into parts: concatenate and
 * slice_update, which overwrites its first argument in place when nobody else can see it. */
#include "base/err.h"
#include "core/buffer.h"
#include "core/shape.h"
#include "eval/flat.h"
#include "eval/run.h"
#include "ops/op.h"
#include <string.h>

/* Makes `a` a view of x's memory with the strides already in a->strides. A single element
 * that has no buffer is copied, whatever shape it is repeated over. */
static int move_share(tn_array *a, tn_array *x, int64_t offset_elements) {
    if (!x->buf) {
        a->inl[0] = x->inl[0];
        tni_array_finish(a, NULL, 0);
        return 0;
    }
    tni_buffer_retain(x->buf);
    tni_array_finish(a, x->buf,
                     x->offset + offset_elements * (int64_t)tn_dtype_size((tn_dtype)x->dtype));
    return 0;
}

static int move_dense(tn_array *a, const tn_array *x) {
    tni_view src = tni_view_of(x);
    tni_buffer *buf;
    int status = tni_copy_dense(&src, &buf);
    if (status) return status;
    tni_row_strides(a->ndim, a->shape, a->strides);
    tni_array_finish(a, buf, 0);
    return 0;
}

static int move_reshape(tn_array *a, tn_array *x) {
    if (tni_reshape_strides(x->ndim, x->shape, x->strides, a->ndim, a->shape, a->strides))
        return move_share(a, x, 0);
    return move_dense(a, x);
}

static int move_transpose(tn_array *a, tn_array *x, const tni_p_axes *p) {
    for (int i = 0; i < a->ndim; i++) a->strides[i] = x->strides[p->axes[i]];
    return move_share(a, x, 0);
}

static int64_t move_part(int ndim, const int64_t *strides, const tni_p_slice *p, int64_t *out) {
    int64_t offset = 0;
    for (int i = 0; i < ndim; i++) {
        offset += p->start[i] * strides[i];
        out[i] = strides[i] * p->step[i];
    }
    return offset;
}

static int move_slice(tn_array *a, tn_array *x, const tni_p_slice *p) {
    int64_t offset = move_part(a->ndim, x->strides, p, a->strides);
    return move_share(a, x, a->size ? offset : 0);
}

/* The same bytes under another dtype; the last axis was scaled when the node was made. */
static int move_view(tn_array *a, tn_array *x) {
    int64_t from = (int64_t)tn_dtype_size((tn_dtype)x->dtype),
            to = (int64_t)tn_dtype_size((tn_dtype)a->dtype);
    if (!x->buf && x->size > 1) return move_dense(a, x);
    if (from != to && !tni_row_major(x)) {
        tni_view src = tni_view_of(x);
        tni_buffer *buf;
        int status = tni_copy_dense(&src, &buf);
        if (!status) tni_array_finish(a, buf, 0);
        return status;
    }
    if (from == to) memcpy(a->strides, x->strides, sizeof(int64_t) * a->ndim);
    if (!x->buf && a->size > 1) { /* one wide element becomes several narrow ones */
        tni_buffer *buf = tni_eval_buffer((size_t)from);
        if (!buf) return TN_EMEMORY;
        memcpy(buf->data, x->inl, (size_t)from);
        tni_array_finish(a, buf, 0);
        return 0;
    }
    return move_share(a, x, 0);
}

/* Every result is the input of its number. The node dies with the last one that somebody holds. */
static int move_custom(tni_node *n) {
    tn_array *out[TNI_MAX_OUT];
    int n_out = n->n_out, status = 0;
    for (int k = 0; k < n_out; k++) {
        out[k] = n->out[k] && !tni_array_orphaned(n->out[k]) ? n->out[k] : NULL;
        if (!status) status = tni_input_ready(n->in[k]);
    }
    for (int k = 0; k < n_out && !status; k++) {
        if (!out[k]) continue;
        memcpy(out[k]->strides, n->in[k]->strides, sizeof(int64_t) * out[k]->ndim);
        status = move_share(out[k], n->in[k], 0);
    }
    return status;
}

int tni_run_view(tni_node *n) {
    if (n->prim->id == TNI_OP_custom) return move_custom(n);
    tn_array *a = n->out[0], *x = n->in[0];
    int status = tni_input_ready(x);
    if (status) return status;
    if (!a->size) {
        tni_array_finish(a, NULL, 0);
        return 0;
    }
    switch (n->prim->id) {
    case TNI_OP_reshape:
        return move_reshape(a, x);
    case TNI_OP_transpose:
        return move_transpose(a, x, n->params);
    case TNI_OP_slice:
        return move_slice(a, x, n->params);
    case TNI_OP_broadcast_to:
        tni_broadcast_strides(x->ndim, x->shape, x->strides, a->ndim, a->shape, a->strides);
        return move_share(a, x, 0);
    case TNI_OP_view:
        return move_view(a, x);
    default:
        return tni_fail(TN_EINTERNAL, "eval: %s is not a view", n->prim->name);
    }
}

/* ---- copies into parts ---- */

static int move_concatenate(tni_node *n, tn_array *a, void *data) {
    int axis = ((const tni_p_axis *)n->params)->axis;
    int64_t row[TN_MAX_NDIM], at = 0;
    tni_row_strides(a->ndim, a->shape, row);
    for (int i = 0; i < n->n_in; i++) {
        tn_array *x = n->in[i];
        tni_view src = tni_view_of(x);
        tni_view dst = {(char *)data + at * row[axis] * (int64_t)tn_dtype_size((tn_dtype)a->dtype),
                        (tn_dtype)a->dtype, x->ndim, x->shape, row};
        int status = tni_copy_view(&src, &dst);
        if (status) return status;
        at += x->shape[axis];
    }
    return 0;
}

static int move_part_in(tni_node *n, tn_array *a, void *data) {
    int64_t row[TN_MAX_NDIM], strides[TN_MAX_NDIM];
    tni_row_strides(a->ndim, a->shape, row);
    int64_t offset = move_part(a->ndim, row, n->params, strides);
    tn_array *u = n->in[1];
    tni_view src = tni_view_of(u);
    tni_view dst = {(char *)data + offset * (int64_t)tn_dtype_size((tn_dtype)a->dtype),
                    (tn_dtype)a->dtype, u->ndim, u->shape, strides};
    return u->size ? tni_copy_view(&src, &dst) : 0;
}

static int move_update_in_place(tni_node *n, tn_array *a, tn_array *x) {
    tni_buffer *buf = x->buf;
    int status = move_part_in(n, a, tni_array_data(x));
    if (status) return status;
    tni_buffer_retain(buf);
    tni_array_finish(a, buf, x->offset);
    return 0;
}

static int move_fill(tni_node *n, tn_array *a, void *data) {
    if (n->prim->id == TNI_OP_concatenate) return move_concatenate(n, a, data);
    int64_t row[TN_MAX_NDIM];
    tni_row_strides(a->ndim, a->shape, row);
    tni_view src = tni_view_of(n->in[0]), dst = {data, (tn_dtype)a->dtype, a->ndim, a->shape, row};
    int status = tni_copy_view(&src, &dst);
    return status ? status : move_part_in(n, a, data);
}

int tni_run_move(tni_node *n) {
    tn_array *a = n->out[0];
    for (int i = 0; i < n->n_in; i++) {
        int status = tni_input_ready(n->in[i]);
        if (status) return status;
    }
    if (n->prim->id == TNI_OP_slice_update && n->in[0] != n->in[1] && tni_can_donate(n->in[0], 1))
        return move_update_in_place(n, a, n->in[0]);
    tni_buffer *buf;
    void *data;
    int status = tni_output_alloc(a, &buf, &data);
    if (!status && a->size) status = move_fill(n, a, data);
    if (status)
        tni_buffer_release(buf);
    else
        tni_array_finish(a, buf, 0);
    return status;
}
