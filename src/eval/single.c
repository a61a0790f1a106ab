/* The commonest small evaluation: one element-wise node whose inputs have their values, over few
 * elements. Its program is known without a plan, a group or a walk over the graph, which would
 * cost several times what the op does. */
#include "core/buffer.h"
#include "core/shape.h"
#include "eval/program.h"
#include "eval/run.h"
#include "ops/op.h"

enum { SINGLE_MAX = 256 };

bool tni_single_fits(const tn_array *a) {
    if (tni_state_of(a) != TNI_LAZY || a->size < 1 || a->size > SINGLE_MAX) return false;
    if (a->flags & TNI_A_TRACER) return false; /* a plan says that it may not be */
    const tni_node *n = a->node;
    if (n->prim->kind != TNI_K_EW || n->prim->code == TNI_CODE_COPY) return false;
    for (int i = 0; i < n->n_in; i++) {
        const tn_array *x = n->in[i];
        if (tni_state_of(x) != TNI_READY) return false;
        if (x->size == 1) continue;
        if (!tni_same_shape(x->ndim, x->shape, a->ndim, a->shape) || !tni_row_major(x))
            return false;
    }
    return true;
}

static void single_program(tni_program *p, const tn_array *a, const void **in) {
    const tni_node *n = a->node;
    p->ndim = 1, p->shape[0] = a->size;
    p->reduce = TNI_RED_NONE, p->reduce_mask = 0;
    p->n_in = (uint16_t)n->n_in, p->n_inst = (uint16_t)(n->n_in + 1), p->n_out = 1;
    for (int i = 0; i < n->n_in; i++) {
        const tn_array *x = n->in[i];
        p->in[i].dtype = (tn_dtype)x->dtype;
        p->in[i].strides[0] = x->size != 1;
        p->inst[i] = (tni_inst){.op = TNI_INST_LOAD, .dtype = x->dtype, .a = (uint16_t)i};
        in[i] = tni_array_data(x);
    }
    int code = n->prim->code;
    p->inst[n->n_in] =
        (tni_inst){.op = (uint16_t)(code == TNI_CODE_CAST ? TNI_INST_CAST : TNI_INST_EW + code),
                   .dtype = a->dtype,
                   .b = 1,
                   .c = 2};
    p->out[0].dtype = (tn_dtype)a->dtype;
    p->out[0].value = (uint16_t)n->n_in;
    p->out[0].strides[0] = a->size != 1;
}

/* The memory of an input that dies with the node, or new memory. */
static int single_place(tn_array *a, tni_buffer **buf, void **data) {
    const tni_node *n = a->node;
    for (int i = 0; i < n->n_in; i++) {
        tn_array *x = n->in[i];
        int32_t edges = 0;
        for (int k = 0; k < n->n_in; k++) edges += n->in[k] == x;
        if (x->size != a->size || !tni_can_donate(x, edges) ||
            tn_dtype_size((tn_dtype)x->dtype) != tn_dtype_size((tn_dtype)a->dtype))
            continue;
        tni_buffer_retain(*buf = x->buf);
        *data = tni_array_data(x);
        return 0;
    }
    return tni_output_alloc(a, buf, data);
}

int tni_run_single(tn_array *a) {
    tni_program p;
    const void *in[3];
    void *out;
    tni_buffer *buf;
    int status = single_place(a, &buf, &out);
    if (status) return status;
    single_program(&p, a, in);
    status = tni_backends[0]->run(&p, in, &out);
    if (status)
        tni_buffer_release(buf);
    else
        tni_array_finish(a, buf, buf ? (char *)out - (char *)buf->data : 0);
    return status;
}
