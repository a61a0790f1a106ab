/* Functions under derivative rules of their own: stop_gradient, custom_vjp, checkpoint. Each is one
 * node that hands on the function's results and says how to go back; forwards it moves no data. */
#include "base/alloc.h"
#include "base/err.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "ops/build.h"
#include "ops/rules.h"
#include "trans/call.h"
#include "trans/trace.h"
#include <string.h>

tn_array *tn_stop_gradient(tn_array *a) {
    TNI_INPUTS("stop_gradient", a);
    tni_p_custom p = {.n = 1, .kind = TNI_CUSTOM_STOP};
    return tni_op1(TNI_PRIM(custom), 1, &a, &p, (tn_dtype)a->dtype, a->ndim, a->shape);
}

/* ---- making the node ---- */

static int custom_node(const tni_p_custom *p, tn_list in, tn_array **out) {
    tni_out_spec spec[TNI_MAX_OUT];
    tn_array **all = tni_alloc_array((size_t)(p->n + in.n), sizeof *all);
    if (!all) return tni_fail_memory((size_t)(p->n + in.n) * sizeof *all, "a custom function");
    for (int k = 0; k < p->n; k++) {
        all[k] = out[k];
        spec[k] = (tni_out_spec){(tn_dtype)out[k]->dtype, out[k]->ndim, out[k]->shape};
    }
    for (int i = 0; i < in.n; i++) all[p->n + i] = in.v[i];
    int status = tni_node_new(TNI_PRIM(custom), p->n + in.n, all, p, p->n, spec, out);
    for (int k = 0; k < p->n && !status; k++) out[k] = tni_scope_own(out[k]);
    tni_free(all);
    return status;
}

static int custom_call(const char *op, tn_fns fn, const tni_p_custom *p, tn_list in,
                       tn_array **out) {
    int status = tni_call_inputs(op, "argument", in);
    if (!status && (p->n < 1 || p->n > TNI_MAX_OUT))
        status = tni_fail(TN_EVALUE, "%s: %d results; 1 to %d are allowed", op, p->n, TNI_MAX_OUT);
    if (!status && !p->vjp) status = tni_fail(TN_EVALUE, "%s: the rule is NULL", op);
    if (!status) status = tni_call_fns(op, fn, p->ud, in, p->n, out);
    return status ? status : custom_node(p, in, out);
}

static int custom_run(const char *op, tn_fns fn, const tni_p_custom *p, tn_list in,
                      tn_array **out) {
    tn_scope *s = tn_scope_begin();
    return tni_call_leave(s, custom_call(op, fn, p, in, out), p->n, out);
}

int tn_custom_vjp(tn_fns fn, tn_vjp_rule rule, void *ud, tn_list in, int n_out, tn_array **out) {
    tni_p_custom p;
    memset(&p, 0, sizeof p);
    p.vjp = (void (*)(void))rule, p.ud = ud, p.n = n_out, p.kind = TNI_CUSTOM_VJP;
    return custom_run("custom_vjp", fn, &p, in, out);
}

int tn_checkpoint(tn_fns fn, void *ud, tn_list in, int n_out, tn_array **out) {
    tni_p_custom p;
    memset(&p, 0, sizeof p);
    p.vjp = (void (*)(void))fn, p.ud = ud, p.n = n_out, p.kind = TNI_CUSTOM_CHECKPOINT;
    return custom_run("checkpoint", fn, &p, in, out);
}

/* ---- the caller's rule ---- */

typedef struct custom_rule {
    const tni_node *n;
    const tni_p_custom *p;
    int m; /* arguments */
} custom_rule;

/* The rule as a function: (arguments, results, cotangents) to gradients, zeros filled in. */
static int custom_call_rule(tn_list in, tn_array **grad, int n_out, void *ud) {
    const custom_rule *r = ud;
    tn_vjp_rule rule = (tn_vjp_rule)r->p->vjp;
    tn_list x = {in.v, r->m}, y = {in.v + r->m, r->p->n}, cot = {in.v + r->m + r->p->n, r->p->n};
    int status = rule(x, y, cot, grad, r->p->ud);
    for (int i = 0; i < n_out && !status; i++) {
        tn_array *a = x.v[i];
        if (!grad[i]) grad[i] = tn_zeros_like(a);
        if (!tni_alive(grad[i]) || tni_is_error(grad[i])) continue; /* the call says so */
        if (grad[i]->dtype != a->dtype ||
            !tni_same_shape(a->ndim, a->shape, grad[i]->ndim, grad[i]->shape))
            status =
                tni_fail(TN_ESHAPE, "custom_vjp: the gradient of argument %d is %s, but it is %s",
                         i, tni_describe(grad[i]), tni_describe(a));
    }
    return status;
}

static int custom_cot(const tni_node *n, tn_array *const *cot, int n_out, tn_array **out) {
    int status = 0;
    for (int k = 0; k < n_out && !status; k++) {
        out[k] = cot[k] ? cot[k] : tn_zeros_like(n->in[k]);
        status = tn_array_status(out[k]);
    }
    return status;
}

/* Traced while the rule runs, so that it cannot evaluate the graph it is walked with. */
static int custom_vjp(const tni_node *n, const tni_p_custom *p, tn_array *const *cot,
                      tn_array **grad) {
    custom_rule r = {n, p, n->n_in - p->n};
    tn_array **x = tni_calloc((size_t)(n->n_in + p->n), sizeof *x);
    if (!x) return tni_fail_memory((size_t)n->n_in * sizeof *x, "custom_vjp");
    for (int i = 0; i < r.m; i++) x[i] = n->in[p->n + i];
    for (int k = 0; k < p->n; k++) x[r.m + k] = n->in[k];
    tni_trace t = {0};
    int status = custom_cot(n, cot, p->n, x + n->n_in);
    if (!status) status = tni_trace_open(&t, n->n_in + p->n, x);
    if (!status)
        status = tni_call_fns("custom_vjp", custom_call_rule, &r,
                              (tn_list){t.tracer, n->n_in + p->n}, r.m, grad + p->n);
    if (!status) status = tni_trace_walk(&t, r.m, grad + p->n);
    for (int i = 0; i < r.m && !status; i++) grad[p->n + i] = t.out[i];
    tni_trace_free(&t);
    tni_free(x);
    return status;
}

/* ---- checkpoint: run again when the cotangents are there ---- */

static tn_array *custom_after(tn_array *x, int n, tn_array *const *cot) {
    tn_array *in[1 + TNI_MAX_OUT] = {x};
    tni_p_custom p;
    memset(&p, 0, sizeof p);
    p.n = 1, p.kind = TNI_CUSTOM_AFTER;
    for (int k = 0; k < n; k++) in[1 + k] = cot[k];
    return tni_op1(TNI_PRIM(custom), 1 + n, in, &p, (tn_dtype)x->dtype, x->ndim, x->shape);
}

static int custom_again(const tni_node *n, const tni_p_custom *p, tn_array *const *cot,
                        const bool *want, tn_array **grad) {
    int m = n->n_in - p->n, status = 0, given = 0;
    tn_array *y[TNI_MAX_OUT], *have[TNI_MAX_OUT], **x = tni_calloc((size_t)m + 1, sizeof *x);
    if (!x) return tni_fail_memory((size_t)m * sizeof *x, "checkpoint");
    for (int k = 0; k < p->n; k++)
        if (cot[k]) have[given++] = cot[k];
    for (int i = 0; i < m && !status; i++) {
        x[i] = custom_after(n->in[p->n + i], given, have);
        status = tn_array_status(x[i]);
    }
    tni_trace t = {0};
    if (!status) status = tni_trace_open(&t, m, x);
    if (!status)
        status = tni_call_fns("checkpoint", (tn_fns)p->vjp, p->ud, (tn_list){t.tracer, m}, p->n, y);
    for (int k = 0; k < p->n && !status; k++)
        if (y[k]->dtype != n->in[k]->dtype ||
            !tni_same_shape(y[k]->ndim, y[k]->shape, n->in[k]->ndim, n->in[k]->shape))
            status = tni_fail(TN_ESHAPE, "checkpoint: result %d was %s and is %s when run again", k,
                              tni_describe(n->in[k]), tni_describe(y[k]));
    if (!status) status = tni_trace_walk(&t, p->n, y);
    if (!status) status = tni_trace_reverse(&t, cot, want + p->n, grad + p->n);
    tni_trace_free(&t);
    tni_free(x);
    return status;
}

/* ---- the primitive's rules ---- */

TNI_RULE_INFER(custom) {
    const tni_p_custom *p = c->params;
    if (p->n != c->n_out || p->n > c->n_in)
        return tni_fail(TN_EVALUE, "%s: %d inputs and %d outputs, %d results", c->op, c->n_in,
                        c->n_out, p->n);
    if (p->kind < TNI_CUSTOM_STOP || p->kind > TNI_CUSTOM_AFTER)
        return tni_fail(TN_EVALUE, "%s: no kind %d", c->op, p->kind);
    for (int k = 0; k < p->n; k++)
        tni_infer_out(c, k, c->in[k].dtype, c->in[k].ndim, c->in[k].shape);
    return 0;
}

TNI_RULE_VJP(custom) {
    const tni_p_custom *p = n->params;
    switch (p->kind) {
    case TNI_CUSTOM_VJP:
        return custom_vjp(n, p, cot, grad);
    case TNI_CUSTOM_CHECKPOINT:
        return custom_again(n, p, cot, want, grad);
    case TNI_CUSTOM_AFTER:
        grad[0] = cot[0];
        return 0;
    default:
        return 0;
    }
}

TNI_RULE_JVP(custom) {
    const tni_p_custom *p = n->params;
    if (p->kind == TNI_CUSTOM_VJP) return TNI_BY_VJP;
    for (int k = 0; k < p->n && p->kind != TNI_CUSTOM_STOP; k++) out[k] = tan[k];
    return 0;
}
