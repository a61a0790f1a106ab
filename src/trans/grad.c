/* The public derivatives: value_and_grad, grad, vjp and jvp. */
#include "base/alloc.h"
#include "base/err.h"
#include "core/dtype.h"
#include "ops/build.h"
#include "trans/call.h"
#include "trans/trace.h"
#include <string.h>

/* A function of one result as one of several. */
typedef struct grad_single {
    tn_fn fn;
    void *ud;
} grad_single;

static int grad_call_single(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    const grad_single *s = ud;
    out[0] = s->fn(in, s->ud);
    return 0;
}

static tn_array *grad_zeros(const tn_array *like) {
    return tn_zeros((tn_ints){like->shape, like->ndim}, (tn_dtype)like->dtype);
}

/* One run of `fn` with some of its arguments traced. */
typedef struct grad_run {
    const char *op;
    int n; /* traced arguments */
    tn_array **x, **in;
    tni_trace t;
} grad_run;

static int grad_begin(grad_run *r, const char *op, tn_list in, int n, const int *which) {
    memset(r, 0, sizeof *r);
    r->op = op, r->n = n;
    r->x = tni_alloc_array((size_t)n + 1, sizeof *r->x);
    r->in = tni_alloc_array((size_t)in.n + 1, sizeof *r->in);
    if (!r->x || !r->in) return tni_fail_memory((size_t)in.n * sizeof *r->in, op);
    for (int i = 0; i < in.n; i++) r->in[i] = in.v[i];
    for (int k = 0; k < n; k++) r->x[k] = in.v[which ? which[k] : k];
    int status = tni_trace_open(&r->t, n, r->x);
    for (int k = 0; k < n && !status; k++) r->in[which ? which[k] : k] = r->t.tracer[k];
    return status;
}

static void grad_end(grad_run *r) {
    tni_trace_free(&r->t);
    tni_free(r->x);
    tni_free(r->in);
}

/* Calls the function and orders its graph; out[] become results that no tracer shows in. */
static int grad_trace(grad_run *r, tn_fns fn, void *ud, int n_in, int n_out, tn_array **out) {
    int status = tni_call_fns(r->op, fn, ud, (tn_list){r->in, n_in}, n_out, out);
    if (!status) status = tni_trace_walk(&r->t, n_out, out);
    for (int k = 0; k < n_out && !status; k++)
        if (out[k] != r->t.out[k]) out[k] = tni_scope_again(r->t.out[k]);
    return status;
}

static int grad_fill(const grad_run *r, tn_array **grad) {
    int status = 0;
    for (int k = 0; k < r->n && !status; k++) {
        if (!grad[k]) grad[k] = grad_zeros(r->x[k]);
        status = tn_array_status(grad[k]);
    }
    return status;
}

/* ---- value and gradient ---- */

static int grad_check_which(const char *op, tn_list in, int n, const int *which) {
    if (n < 1 || n > in.n)
        return tni_fail(TN_EVALUE, "%s: gradients by %d of %d arguments", op, n, in.n);
    for (int k = 0; k < n; k++) {
        int i = which ? which[k] : k;
        if (i < 0 || i >= in.n)
            return tni_fail(TN_EVALUE, "%s: there is no argument %d among %d", op, i, in.n);
        for (int j = 0; j < k && which; j++)
            if (which[j] == i) return tni_fail(TN_EVALUE, "%s: argument %d is named twice", op, i);
        if (!tni_is_inexact((tn_dtype)in.v[i]->dtype))
            return tni_fail(TN_EDTYPE,
                            "%s: argument %d is %s; gradients are of floats and complex numbers",
                            op, i, tni_describe(in.v[i]));
    }
    return 0;
}

static int grad_check_loss(const char *op, const tn_array *y) {
    if (y->size == 1 && !y->ndim && tni_is_inexact((tn_dtype)y->dtype)) return 0;
    return tni_fail(TN_ESHAPE, "%s: the function must return one float of no axes, not %s", op,
                    tni_describe(y));
}

static int grad_value(const char *op, tn_fns fn, void *ud, tn_list in, int n, const int *which,
                      int n_out, tn_array **out, tn_array **grad) {
    int status = tni_call_inputs(op, "argument", in);
    if (!status) status = grad_check_which(op, in, n, which);
    if (!status && n_out < 1) status = tni_fail(TN_EVALUE, "%s: %d results", op, n_out);
    if (status) return status;
    grad_run r;
    tn_array **cot = tni_calloc((size_t)n_out, sizeof *cot);
    status = grad_begin(&r, op, in, n, which);
    if (!status && !cot) status = tni_fail_memory((size_t)n_out * sizeof *cot, op);
    if (!status) status = grad_trace(&r, fn, ud, in.n, n_out, out);
    if (!status) status = grad_check_loss(op, out[0]);
    if (!status) {
        cot[0] = tn_scalar(1, (tn_dtype)out[0]->dtype);
        status = tn_array_status(cot[0]);
    }
    if (!status) status = tni_trace_reverse(&r.t, cot, NULL, grad);
    if (!status) status = grad_fill(&r, grad);
    tni_free(cot);
    grad_end(&r);
    return status;
}

/* Results and derivatives leave the transform's scope together. */
static int grad_leave(tn_scope *s, int status, int n, tn_array **a, int m, tn_array **b) {
    int before = status;
    for (int k = 0; k < m && !before; k++) tni_array_retain(b[k]);
    status = tni_call_leave(s, status, n, a);
    for (int k = 0; k < m; k++) {
        b[k] = before ? (n > 0 ? a[0] : tni_error_last()) : tni_scope_own(b[k]);
        if (!status && tni_is_error(b[k])) status = b[k]->status;
    }
    if (!status || before) return status;
    for (int k = 0; k < n; k++) a[k] = tni_oom(); /* no memory for a handle: none of them */
    for (int k = 0; k < m; k++) b[k] = tni_oom();
    return status;
}

int tn_value_and_grad_of(tn_fns fn, void *ud, tn_list in, const int *which, int n_wrt, int n_out,
                         tn_array **out, tn_array **grads) {
    tn_scope *s = tn_scope_begin();
    int status = grad_value("value_and_grad", fn, ud, in, n_wrt, which, n_out, out, grads);
    return grad_leave(s, status, n_out, out, n_wrt, grads);
}

void tn_value_and_grad(tn_fn fn, void *ud, tn_list in, int n_wrt, tn_array **value,
                       tn_array **grads) {
    grad_single one = {fn, ud};
    tn_array *y = NULL;
    (void)tn_value_and_grad_of(fn ? grad_call_single : NULL, &one, in, NULL, n_wrt, 1,
                               value ? value : &y, grads);
}

tn_array *tn_grad(tn_fn fn, void *ud, tn_list in, int argument) {
    grad_single one = {fn, ud};
    tn_array *y = NULL, *g = NULL;
    tn_scope *s = tn_scope_begin();
    int status =
        grad_value("grad", fn ? grad_call_single : NULL, &one, in, 1, &argument, 1, &y, &g);
    (void)tni_call_leave(s, status, 1, &g);
    return g;
}

/* ---- vjp and jvp ---- */

static int grad_vjp(tn_fns fn, void *ud, tn_list in, tn_list cot, tn_array **out, tn_array **grad) {
    int status = tni_call_inputs("vjp", "argument", in);
    if (!status) status = tni_call_inputs("vjp", "cotangent", cot);
    if (status) return status;
    grad_run r;
    status = grad_begin(&r, "vjp", in, in.n, NULL);
    if (!status) status = grad_trace(&r, fn, ud, in.n, cot.n, out);
    if (!status) status = tni_call_like("vjp", "cotangent", cot, (tn_list){out, cot.n});
    if (!status) status = tni_trace_reverse(&r.t, cot.v, NULL, grad);
    if (!status) status = grad_fill(&r, grad);
    grad_end(&r);
    return status;
}

static int grad_jvp(tn_fns fn, void *ud, tn_list in, tn_list tan, int n_out, tn_array **out,
                    tn_array **out_tan) {
    int status = tni_call_inputs("jvp", "argument", in);
    if (!status) status = tni_call_like("jvp", "tangent", tan, in);
    if (status) return status;
    grad_run r;
    status = grad_begin(&r, "jvp", in, in.n, NULL);
    if (!status) status = grad_trace(&r, fn, ud, in.n, n_out, out);
    if (!status) status = tni_trace_forward(&r.t, tan.v, out_tan);
    for (int k = 0; k < n_out && !status; k++) {
        if (!out_tan[k]) out_tan[k] = grad_zeros(out[k]);
        status = tn_array_status(out_tan[k]);
    }
    grad_end(&r);
    return status;
}

int tn_vjp(tn_fns fn, void *ud, tn_list in, tn_list cotangents, tn_array **out, tn_array **grads) {
    tn_scope *s = tn_scope_begin();
    int status = grad_vjp(fn, ud, in, cotangents, out, grads);
    return grad_leave(s, status, cotangents.n, out, in.n, grads);
}

int tn_jvp(tn_fns fn, void *ud, tn_list in, tn_list tangents, int n_out, tn_array **out,
           tn_array **out_tangents) {
    tn_scope *s = tn_scope_begin();
    int status = grad_jvp(fn, ud, in, tangents, n_out, out, out_tangents);
    return grad_leave(s, status, n_out, out, n_out, out_tangents);
}
