/* Running one group: a fused program, a kernel, a view or a copy. An array gets its value
 * only once its launch has succeeded, so that a failure leaves the rest of the graph as it was. */
#include "eval/run.h"
#include "base/alloc.h"
#include "base/err.h"
#include "core/buffer.h"
#include "core/shape.h"
#include "eval/build.h"
#include "eval/flat.h"
#include "ops/op.h"
#include <string.h>

int tni_input_ready(tn_array *a) {
    tni_state s = tni_state_of(a);
    if (s == TNI_SCHEDULED) {
        tni_event_wait(a->event);
        s = tni_state_of(a);
    }
    if (s == TNI_ERROR) return tni_fail(a->status, "%s", tn_array_error(a));
    if (s != TNI_READY) return tni_fail(TN_EINTERNAL, "eval: an input was not computed");
    return tni_recording ? tni_flat_keep(tni_recording, a) : 0;
}

int tni_output_alloc(tn_array *a, tni_buffer **buf, void **data) {
    *buf = NULL, *data = a->inl;
    if (a->size < 1 || (a->size == 1 && !tni_recording)) return 0;
    *buf = tni_eval_buffer((size_t)a->size * tn_dtype_size((tn_dtype)a->dtype));
    if (!*buf) return TN_EMEMORY;
    *data = (*buf)->data;
    return 0;
}

bool tni_can_donate(const tn_array *a, int32_t edges) {
    return a->buf && !a->buf->borrowed &&
           atomic_load_explicit(&a->buf->refs, memory_order_acquire) == 1 &&
           atomic_load_explicit(&((tn_array *)(uintptr_t)a)->refs, memory_order_acquire) == edges &&
           tni_row_major(a);
}

int tni_copy_view(const tni_view *src, const tni_view *dst) {
    if (!tni_view_size(dst)) return 0;
    tni_program p;
    tni_program_copy(&p, src->dtype, src->strides, dst->dtype, dst->strides, dst->ndim, dst->shape);
    return tni_launch_program(&p, (const void *const[]){src->data}, (void *const[]){dst->data});
}

int tni_copy_dense(const tni_view *src, tni_buffer **buf) {
    int64_t strides[TN_MAX_NDIM];
    tni_row_strides(src->ndim, src->shape, strides);
    *buf = tni_eval_buffer((size_t)tni_view_size(src) * tn_dtype_size(src->dtype));
    if (!*buf) return TN_EMEMORY;
    tni_view dst = {(*buf)->data, src->dtype, src->ndim, src->shape, strides};
    int status = tni_copy_view(src, &dst);
    if (status) tni_buffer_release(*buf), *buf = NULL;
    return status;
}

/* ---- programs ---- */

/* Reuses the memory of an input for output a, or allocates. */
static int run_place(tni_build *b, tn_array *a, bool *taken, tni_buffer **buf, void **data) {
    const tn_array *loop = b->plan->groups[b->group].loop;
    for (int i = 0; i < b->prog.n_in && b->prog.reduce == TNI_RED_NONE; i++) {
        tn_array *x = b->in[i];
        if (taken[i] || b->pinned[i] ||
            tn_dtype_size((tn_dtype)x->dtype) != tn_dtype_size((tn_dtype)a->dtype) ||
            !tni_same_shape(x->ndim, x->shape, loop->ndim, loop->shape) ||
            !tni_can_donate(x, b->edges[i]))
            continue;
        taken[i] = true;
        tni_buffer_retain(x->buf);
        *buf = x->buf;
        *data = tni_array_data(x);
        return 0;
    }
    return tni_output_alloc(a, buf, data);
}

static void run_drop(tni_buffer **buf, int n) {
    for (int i = 0; i < n; i++) tni_buffer_release(buf[i]);
}

/* A root that only copies a row-major array shares its memory instead. */
static bool run_share(tni_build *b) {
    tni_program *p = &b->prog;
    if (p->n_inst != 1 || p->n_in != 1 || p->n_out != 1 || p->reduce != TNI_RED_NONE) return false;
    tn_array *x = b->in[0], *a = b->out[0];
    if (!tni_row_major(x) || !tni_same_shape(x->ndim, x->shape, a->ndim, a->shape)) return false;
    tni_buffer_retain(x->buf);
    tni_array_finish(a, x->buf, x->offset);
    return true;
}

static int run_program(tni_build *b) {
    tni_program *p = &b->prog;
    tni_buffer *buf[TNI_PROG_MAX_OUT];
    const void *in[TNI_PROG_MAX_IN];
    void *out[TNI_PROG_MAX_OUT];
    bool taken[TNI_PROG_MAX_IN] = {false};
    for (int i = 0; i < p->n_out; i++)
        if (run_place(b, b->out[i], taken, &buf[i], &out[i])) {
            run_drop(buf, i);
            return TN_EMEMORY;
        }
    tni_build_loop(b);
    for (int i = 0; i < p->n_in; i++) in[i] = tni_array_data(b->in[i]);
    int status = b->out[0]->size ? tni_launch_program(p, in, out) : 0;
    if (status) {
        run_drop(buf, p->n_out);
        return status;
    }
    int64_t offset[TNI_PROG_MAX_OUT];
    for (int i = 0; i < p->n_out; i++)
        offset[i] = buf[i] ? (char *)out[i] - (char *)buf[i]->data : 0;
    for (int i = 0; i < p->n_out; i++) tni_array_finish(b->out[i], buf[i], offset[i]);
    return 0;
}

static int run_fused(tni_plan *p, int32_t g) {
    tni_build b;
    int status = tni_build_group(&b, p, g);
    for (int i = 0; i < b.prog.n_in && !status; i++) status = tni_input_ready(b.in[i]);
    if (status) return status;
    return run_share(&b) ? 0 : run_program(&b);
}

/* ---- kernels ---- */

typedef struct run_args {
    tni_view *in, *out;
    tni_buffer **temp, **buf; /* dense copies of inputs; outputs */
    int64_t *strides;         /* row-major strides of the copies */
    int64_t offset;           /* of output 0 in its buffer */
    tni_view small_view[12];
    tni_buffer *small_buf[12];
} run_args;

static int run_args_init(run_args *r, int n_in, int n_out) {
    size_t n = (size_t)(n_in + n_out);
    bool small = n <= 12;
    r->offset = 0;
    r->in = small ? r->small_view : tni_alloc_array(n, sizeof *r->in);
    r->temp = small ? r->small_buf : tni_alloc_array(n, sizeof *r->temp);
    r->strides = tni_alloc_array((size_t)n_in, sizeof(int64_t) * TN_MAX_NDIM);
    if (r->temp)
        for (size_t i = 0; i < n; i++) r->temp[i] = NULL;
    r->out = r->in + n_in, r->buf = r->temp + n_in;
    return r->in && r->temp && r->strides
               ? 0
               : tni_fail_memory(n * sizeof *r->in, "a kernel's operands");
}

static void run_args_free(run_args *r, int n) {
    if (r->temp) run_drop(r->temp, n);
    if (r->in != r->small_view) tni_free(r->in);
    if (r->temp != r->small_buf) tni_free(r->temp);
    tni_free(r->strides);
}

static bool run_layout_ok(uint32_t flags, const tn_array *a) {
    if (!a->size || tni_row_major(a)) return true;
    if (flags & TNI_F_DENSE) return false;
    return !(flags & TNI_F_ROWS) || !a->ndim || a->strides[a->ndim - 1] == 1 ||
           a->shape[a->ndim - 1] == 1;
}

static int run_kernel_inputs(run_args *r, tni_node *n) {
    for (int i = 0; i < n->n_in; i++) {
        tn_array *a = n->in[i];
        int status = tni_input_ready(a);
        if (status) return status;
        r->in[i] = tni_view_of(a);
        if (run_layout_ok(n->prim->flags, a)) continue;
        if ((status = tni_copy_dense(&r->in[i], &r->temp[i]))) return status;
        int64_t *strides = r->strides + (size_t)i * TN_MAX_NDIM;
        tni_row_strides(a->ndim, a->shape, strides);
        r->in[i].data = r->temp[i]->data, r->in[i].strides = strides;
    }
    return 0;
}

static int run_kernel_place(run_args *r, tni_node *n, int i, void **data) {
    tn_array *x = n->n_in ? n->in[0] : NULL;
    if (i || !(n->prim->flags & TNI_F_ONTO) || !tni_can_donate(x, 1))
        return tni_output_alloc(n->out[i], &r->buf[i], data);
    tni_buffer_retain(r->buf[0] = x->buf);
    r->offset = x->offset, *data = tni_array_data(x);
    return 0;
}

static int run_kernel_outputs(run_args *r, tni_node *n, bool *empty) {
    for (int i = 0; i < n->n_out; i++) {
        void *data;
        int status = run_kernel_place(r, n, i, &data);
        if (status) return status;
        r->out[i] = tni_view_of(n->out[i]);
        r->out[i].data = data;
        *empty = *empty && !n->out[i]->size;
    }
    return 0;
}

/* Gives the outputs their values (`offset`: of the first in its buffer); those that nobody holds
 * any more first, since the node dies with its last live output. */
static void run_finish(tni_node *n, tni_buffer **buf, int64_t offset) {
    tn_array *out[TNI_MAX_OUT];
    int n_out = n->n_out;
    for (int i = 0; i < n_out; i++) out[i] = n->out[i];
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < n_out; i++) {
            if (!out[i] || tni_array_orphaned(out[i]) != (pass == 0)) continue;
            tni_array_finish(out[i], buf[i], i ? 0 : offset);
            out[i] = NULL, buf[i] = NULL;
        }
}

static int run_kernel(tni_node *n, tni_kernel kernel) {
    run_args r;
    bool empty = true;
    int total = n->n_in + n->n_out;
    int status = run_args_init(&r, n->n_in, n->n_out);
    if (!status) status = run_kernel_inputs(&r, n);
    if (!status) status = run_kernel_outputs(&r, n, &empty);
    tni_call c = {n->prim->id, n->params, n->n_in, n->n_out, r.in, r.out};
    if (!status && !empty) status = tni_launch_kernel(kernel, &c, n->prim);
    if (!status) run_finish(n, r.buf, r.offset);
    run_args_free(&r, total);
    return status;
}

/* A backend without the kernel: the node's meaning in simpler ops, evaluated in its place. */
static int run_lowered(tni_node *n) {
    if (!n->prim->lower) return tni_fail(TN_EINTERNAL, "eval: no kernel for %s", n->prim->name);
    tn_array *low[TNI_MAX_OUT];
    tni_buffer *buf[TNI_MAX_OUT] = {0};
    tn_scope *s = tn_scope_begin();
    int status = n->prim->lower(n, low);
    for (int i = 0; i < n->n_out && !status; i++) low[i] = tn_contiguous(low[i]);
    if (!status) status = tn_eval((tn_list){low, n->n_out});
    for (int i = 0; i < n->n_out && !status; i++) status = tni_input_ready(low[i]);
    for (int i = 0; i < n->n_out && !status; i++) {
        tni_view src = tni_view_of(low[i]);
        if (n->out[i]->size > 1 || tni_recording)
            status = tni_copy_dense(&src, &buf[i]);
        else
            n->out[i]->inl[0] = 0, memcpy(n->out[i]->inl, src.data, tn_nbytes(low[i]));
    }
    if (!status)
        run_finish(n, buf, 0);
    else
        run_drop(buf, n->n_out);
    tn_scope_end(s);
    return status;
}

int tni_run_group(tni_plan *p, int32_t g) {
    tni_node *n = p->order[p->groups[g].root];
    if (p->groups[g].program) return run_fused(p, g);
    if (n->prim->kind == TNI_K_VIEW) return tni_run_view(n);
    if (n->prim->kind == TNI_K_MOVE) return tni_run_move(n);
    tni_kernel kernel = tni_kernel_of(n);
    return kernel ? run_kernel(n, kernel) : run_lowered(n);
}
