/* Derivatives along a trace: cotangents from the results back, tangents from the arguments on. */
#include "base/alloc.h"
#include "base/err.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "ops/build.h"
#include "ops/rules.h"
#include "trans/trace.h"
#include <string.h>

/* ---- rules that a primitive does not have itself ---- */

int tni_trace_lower(tni_trace *t, const tni_node *n) {
    tni_node shadow = *n;
    tn_array *out[TNI_MAX_OUT];
    int status = tni_trace_open(t, n->n_in, n->in);
    if (status) return status;
    if (!n->prim->lower)
        return tni_fail(TN_EINTERNAL, "%s has no rule and no lowering", n->prim->name);
    shadow.in = t->tracer;
    status = n->prim->lower(&shadow, out);
    return status ? status : tni_trace_walk(t, n->n_out, out);
}

static int lowered_vjp(const tni_node *n, tn_array *const *cot, const bool *want, tn_array **grad) {
    tni_trace t;
    int status = tni_trace_lower(&t, n);
    if (!status) status = tni_trace_reverse(&t, cot, want, grad);
    tni_trace_free(&t);
    return status;
}

static int lowered_jvp(const tni_node *n, tn_array *const *tan, tn_array **out) {
    tni_trace t;
    int status = tni_trace_lower(&t, n);
    if (!status) status = tni_trace_forward(&t, tan, out);
    tni_trace_free(&t);
    return status;
}

static int rule_vjp(const tni_node *n, tn_array *const *cot, const bool *want, tn_array **grad) {
    int status = n->prim->vjp ? n->prim->vjp(n, cot, want, grad) : TNI_BY_LOWER;
    return status == TNI_BY_LOWER ? lowered_vjp(n, cot, want, grad) : status;
}

/* The vjp is linear in its cotangents: traced from them and reversed, it is the jvp. */
static int transposed_jvp(const tni_node *n, tn_array *const *tan, tn_array **out) {
    tn_array *u[TNI_MAX_OUT];
    tn_array **grad = tni_calloc((size_t)n->n_in * 2 + 1, sizeof *grad);
    bool *want = tni_calloc((size_t)n->n_in + 1, sizeof *want);
    if (!grad || !want) {
        tni_free(grad), tni_free(want);
        return tni_fail_memory((size_t)n->n_in * 2 * sizeof *grad, "a jvp");
    }
    tn_array **cot = grad + n->n_in;
    int status = 0, m = 0;
    for (int i = 0; i < n->n_in; i++) want[i] = tan[i] != NULL;
    for (int k = 0; k < n->n_out; k++) {
        u[k] = tn_zeros((tn_ints){n->out[k]->shape, n->out[k]->ndim}, (tn_dtype)n->out[k]->dtype);
        if (tni_is_error(u[k])) status = u[k]->status;
    }
    tni_trace t = {0};
    if (!status) status = tni_trace_open(&t, n->n_out, u);
    if (!status) status = rule_vjp(n, t.tracer, want, grad);
    for (int i = 0; i < n->n_in && !status; i++)
        if (grad[i]) grad[m] = grad[i], cot[m++] = tan[i];
    if (!status) status = tni_trace_walk(&t, m, grad);
    if (!status) status = tni_trace_reverse(&t, cot, NULL, out);
    tni_trace_free(&t);
    tni_free(grad), tni_free(want);
    return status;
}

static int rule_jvp(const tni_node *n, tn_array *const *tan, tn_array **out) {
    int status = n->prim->jvp   ? n->prim->jvp(n, tan, out)
                 : n->prim->vjp ? TNI_BY_VJP
                                : TNI_BY_LOWER;
    if (status == TNI_BY_VJP) return transposed_jvp(n, tan, out);
    return status == TNI_BY_LOWER ? lowered_jvp(n, tan, out) : status;
}

/* ---- walks ---- */

/* What a rule gave, checked: a wrong shape would only surface far away. */
static int walk_fits(const tni_node *n, const char *what, tn_array *g, const tn_array *like) {
    if (tni_is_error(g)) return g->status;
    if (g->dtype == like->dtype && tni_same_shape(g->ndim, g->shape, like->ndim, like->shape))
        return 0;
    return tni_fail(TN_EINTERNAL, "%s: a %s of %s for %s", n->prim->name, what, tni_describe(g),
                    tni_describe(like));
}

typedef struct walk {
    tn_array **slot; /* borrowed: the current scope holds them */
    tn_array **in;   /* of one node: tangents or gradients */
    bool *want;
} walk;

static int walk_begin(walk *w, const tni_trace *t) {
    size_t m = (size_t)t->most_in + 1;
    w->slot = tni_calloc((size_t)t->n_slots + 1, sizeof *w->slot);
    w->in = tni_calloc(m, sizeof *w->in);
    w->want = tni_calloc(m, sizeof *w->want);
    if (w->slot && w->in && w->want) return 0;
    return tni_fail_memory(((size_t)t->n_slots + 1) * sizeof *w->slot, "a derivative");
}

static void walk_end(walk *w) {
    tni_free(w->slot);
    tni_free(w->in);
    tni_free(w->want);
}

static int walk_add(walk *w, int32_t slot, tn_array *g) {
    tn_array **s = &w->slot[slot];
    *s = *s ? tni_grad_sum(*s, g) : g;
    return tn_array_status(*s);
}

static int walk_back(walk *w, const tni_trace *t, const tni_step *s) {
    const tni_node *n = s->node;
    tn_array *const *cot = w->slot + s->slot;
    bool any = false;
    int status = 0;
    for (int k = 0; k < n->n_out; k++) any = any || cot[k];
    if (!any) return 0;
    for (int i = 0; i < n->n_in; i++) {
        w->in[i] = NULL;
        w->want[i] = t->in_slot.v[s->in + i] >= 0 && tni_is_inexact((tn_dtype)n->in[i]->dtype);
    }
    status = rule_vjp(n, cot, w->want, w->in);
    for (int i = 0; i < n->n_in && !status; i++) {
        if (!w->want[i] || !w->in[i]) continue;
        status = walk_fits(n, "gradient", w->in[i], n->in[i]);
        if (!status) status = walk_add(w, t->in_slot.v[s->in + i], w->in[i]);
    }
    return status;
}

int tni_trace_reverse(tni_trace *t, tn_array *const *cot, const bool *want, tn_array **grad) {
    walk w;
    int status = walk_begin(&w, t);
    for (int k = 0; k < t->n_out && !status; k++)
        if (cot[k] && t->out_slot[k] >= 0) status = walk_add(&w, t->out_slot[k], cot[k]);
    for (size_t i = t->steps.n; i-- > 0 && !status;) status = walk_back(&w, t, &t->steps.v[i]);
    for (int k = 0; k < t->n && !status; k++) grad[k] = !want || want[k] ? w.slot[k] : NULL;
    walk_end(&w);
    return status;
}

static int walk_on(walk *w, const tni_trace *t, const tni_step *s) {
    const tni_node *n = s->node;
    tn_array **out = w->slot + s->slot;
    bool any = false;
    for (int i = 0; i < n->n_in; i++) {
        int32_t slot = t->in_slot.v[s->in + i];
        w->in[i] = slot >= 0 && tni_is_inexact((tn_dtype)n->in[i]->dtype) ? w->slot[slot] : NULL;
        any = any || w->in[i];
    }
    int status = any ? rule_jvp(n, w->in, out) : 0;
    for (int k = 0; k < n->n_out && !status; k++)
        if (out[k]) status = walk_fits(n, "tangent", out[k], n->out[k]);
    return status;
}

int tni_trace_forward(tni_trace *t, tn_array *const *tan, tn_array **out_tan) {
    walk w;
    int status = walk_begin(&w, t);
    for (int k = 0; k < t->n && !status; k++) w.slot[k] = tan[k];
    for (size_t i = 0; i < t->steps.n && !status; i++) status = walk_on(&w, t, &t->steps.v[i]);
    for (int k = 0; k < t->n_out && !status; k++)
        out_tan[k] = t->out_slot[k] >= 0 ? w.slot[t->out_slot[k]] : NULL;
    walk_end(&w);
    return status;
}
