/* What shape rules share, and how op functions ask them. */
#include "base/alloc.h"
#include "base/err.h"
#include "ops/build.h"
#include <string.h>

enum { INFER_INLINE = 8 };

static tn_array *infer_op(const char *op, const tni_prim *prim, int n_in, tn_array *const *in,
                          const void *params, const tni_spec *want, tni_out_spec *spec) {
    tni_spec out = {0};
    if (want) out = *want;
    for (int i = 0; i < n_in; i++) {
        if (tni_is_error(in[i])) return in[i];
        spec[i] = tni_spec_of(in[i]);
    }
    tni_infer_call c = {op, prim, params, n_in, 1, spec, &out};
    if (tni_infer(&c)) return tni_error_last();
    return tni_op1(prim, n_in, in, params, out.dtype, out.ndim, out.shape);
}

tn_array *tni_op_rule(const char *op, const tni_prim *prim, int n_in, tn_array *const *in,
                      const void *params, const tni_spec *want) {
    tni_out_spec few[INFER_INLINE], *spec = few;
    if (n_in > INFER_INLINE && !(spec = tni_alloc_array((size_t)n_in, sizeof *spec)))
        return tni_fail_memory((size_t)n_in * sizeof *spec, op), tni_error_last();
    tn_array *y = infer_op(op, prim, n_in, in, params, want, spec);
    if (spec != few) tni_free(spec);
    return y;
}

int tni_infer_arity(const tni_infer_call *c, int least_in, int most_in) {
    if (c->n_in >= least_in && c->n_in <= most_in && c->n_out == 1) return 0;
    return tni_fail(TN_EVALUE, "%s: %d inputs and %d outputs", c->op, c->n_in, c->n_out);
}

void tni_infer_out(const tni_infer_call *c, int k, tn_dtype dtype, int ndim, const int64_t *shape) {
    c->out[k].dtype = dtype, c->out[k].ndim = ndim;
    memmove(c->out[k].shape, shape, sizeof shape[0] * (size_t)ndim);
}

int tni_infer_like(const tni_infer_call *c, int input) {
    const tni_out_spec *s = &c->in[input];
    tni_infer_out(c, 0, s->dtype, s->ndim, s->shape);
    return 0;
}
