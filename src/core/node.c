/* Nodes: one record an operation. */
#include "base/alloc.h"
#include "base/err.h"
#include "core/prim.h"
#include "core/stream.h"
#include <string.h>

void tni_node_free_shell(tni_node *n) {
    const tni_prim *prim = n->prim;
    if (n->in != n->inl_in) tni_free(n->in);
    if (n->out != n->inl_out) tni_free(n->out);
    if (n->params != n->inl_params) tni_free(n->params);
    tni_record_free(n, sizeof *n);
    tni_prim_release(prim);
}

static tni_node *node_alloc(const tni_prim *prim, int n_in, int n_out) {
    tni_node *n = tni_record_alloc(sizeof *n);
    if (!n) return NULL;
    tni_prim_retain(n->prim = prim);
    n->n_in = n_in, n->n_out = n_out;
    n->mark = 0;
    n->in = n_in <= TNI_NODE_INLINE ? n->inl_in : tni_alloc_array((size_t)n_in, sizeof *n->in);
    n->out = n_out <= 1 ? n->inl_out : tni_calloc((size_t)n_out, sizeof *n->out);
    n->inl_out[0] = NULL;
    n->params =
        prim->params_size <= TNI_PARAMS_INLINE ? n->inl_params : tni_alloc(prim->params_size);
    if (n->in && n->out && n->params) return n;
    tni_node_free_shell(n);
    return NULL;
}

int tni_node_new(const tni_prim *prim, int n_in, tn_array *const *in, const void *params, int n_out,
                 const tni_out_spec *spec, tn_array **out) {
    tni_assert(n_out >= 1 && n_out <= TNI_MAX_OUT);
    tni_node *n = node_alloc(prim, n_in, n_out);
    if (!n) return tni_fail_memory(sizeof *n, "a graph node");
    for (int i = 0; i < n_out; i++) {
        out[i] = tni_array_alloc(spec[i].dtype, spec[i].ndim, spec[i].shape);
        if (!out[i]) {
            while (i--) out[i]->node = NULL, tni_array_release(out[i]);
            tni_node_free_shell(n);
            return TN_EMEMORY;
        }
        out[i]->node = n, out[i]->out_index = i;
        n->out[i] = out[i];
    }
    atomic_init(&n->refs, n_out);
    n->stream = tni_stream_current();
    for (int i = 0; i < n_in; i++) tni_array_retain(n->in[i] = in[i]);
    if (prim->params_size) memcpy(n->params, params, prim->params_size);
    return 0;
}

tn_array *tni_op1(const tni_prim *prim, int n_in, tn_array *const *in, const void *params,
                  tn_dtype dtype, int ndim, const int64_t *shape) {
    tn_array *out;
    if (tni_node_new(prim, n_in, in, params, 1, &(tni_out_spec){dtype, ndim, shape}, &out))
        return tni_error_last();
    return tni_scope_own(out);
}
