/* Shape rules asked from outside: what holds for every primitive, around the primitive's own. */
#include "base/alloc.h"
#include "base/err.h"
#include "core/prim.h"
#include "core/shape.h"
#include <string.h>

enum { INFER_INLINE = 8 }; /* inputs of most nodes */

static int infer_sane(const tni_infer_call *c, tn_dtype d, int ndim, const int64_t *shape,
                      const char *role, int k) {
    int64_t size;
    if ((unsigned)d < TN_DTYPE_COUNT && ndim >= 0 && ndim <= TN_MAX_NDIM &&
        tni_shape_size(ndim, shape, &size))
        return 0;
    return tni_fail(TN_ESHAPE, "%s: %s %d has dtype %d, %d axes or a size that cannot be held",
                    c->op, role, k, (int)d, ndim);
}

int tni_infer(const tni_infer_call *c) {
    int status = 0;
    if (!c->prim->infer || c->n_out < 1 || c->n_out > TNI_MAX_OUT || c->n_in < 0)
        return tni_fail(TN_EVALUE, "%s: %d inputs and %d outputs", c->op, c->n_in, c->n_out);
    for (int i = 0; i < c->n_in && !status; i++)
        status = infer_sane(c, c->in[i].dtype, c->in[i].ndim, c->in[i].shape, "input", i);
    for (int k = 0; k < c->n_out && !status; k++) /* wanted: at least no nonsense */
        status =
            infer_sane(c, c->out[k].dtype, c->out[k].ndim, c->out[k].shape, "wanted output", k);
    if (!status) status = c->prim->infer(c);
    for (int k = 0; k < c->n_out && !status; k++)
        status = infer_sane(c, c->out[k].dtype, c->out[k].ndim, c->out[k].shape, "output", k);
    return status;
}

/* ---- nodes ---- */

static void infer_want(const tn_array *a, tni_spec *s) {
    memset(s, 0, sizeof *s);
    if (!a)
        return; /* an output that nobody holds; only rules that leave nothing free have several */
    s->dtype = (tn_dtype)a->dtype, s->ndim = a->ndim;
    memcpy(s->shape, a->shape, sizeof a->shape[0] * a->ndim);
}

static int infer_differs(const tni_node *n, int k, const tni_spec *s) {
    const tn_array *a = n->out[k];
    char want[TNI_SHAPE_STR], got[TNI_SHAPE_STR];
    if (!a || (a->dtype == s->dtype && tni_same_shape(a->ndim, a->shape, s->ndim, s->shape)))
        return 0;
    return tni_fail(TN_EINTERNAL, "graph: output %d of %s is %s %s, but its rule says %s %s", k,
                    n->prim->name, tni_shape_str(a->ndim, a->shape, got, sizeof got),
                    tn_dtype_name((tn_dtype)a->dtype),
                    tni_shape_str(s->ndim, s->shape, want, sizeof want), tn_dtype_name(s->dtype));
}

int tni_infer_node(const tni_node *n) {
    tni_out_spec few[INFER_INLINE], *in = few;
    tni_spec out[TNI_MAX_OUT];
    if (n->n_in > INFER_INLINE && !(in = tni_alloc_array((size_t)n->n_in, sizeof *in)))
        return tni_fail_memory((size_t)n->n_in * sizeof *in, "a shape rule");
    for (int i = 0; i < n->n_in; i++)
        in[i] = (tni_out_spec){(tn_dtype)n->in[i]->dtype, n->in[i]->ndim, n->in[i]->shape};
    for (int k = 0; k < n->n_out; k++) infer_want(n->out[k], &out[k]);
    tni_infer_call c = {n->prim->name, n->prim, n->params, n->n_in, n->n_out, in, out};
    int status = tni_infer(&c);
    if (in != few) tni_free(in);
    if (status == TN_EMEMORY) return status;
    if (status) return tni_fail(TN_EINTERNAL, "graph: %s", tni_error());
    for (int k = 0; k < n->n_out && !status; k++) status = infer_differs(n, k, &out[k]);
    return status;
}
