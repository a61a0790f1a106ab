/* Tracers, and the order of what was built from them. */
#include "trans/trace.h"
#include "base/alloc.h"
#include "base/err.h"
#include "eval/plan.h"
#include "ops/op.h"
#include <string.h>

static tn_array *trace_tracer(tn_array *x) {
    tn_array *a = tni_op1(TNI_PRIM(contiguous), 1, &x, NULL, (tn_dtype)x->dtype, x->ndim, x->shape);
    if (!tni_is_error(a)) a->flags |= (uint8_t)(TNI_A_TRACER | (x->flags & TNI_A_WEAK));
    return a;
}

static _Thread_local int trace_depth;

bool tni_tracing(void) { return trace_depth > 0; }

int tni_trace_open(tni_trace *t, int n, tn_array *const *x) {
    memset(t, 0, sizeof *t);
    t->x = x;
    t->open = true;
    trace_depth++;
    t->tracer = tni_calloc((size_t)n + 1, sizeof *t->tracer);
    if (!t->tracer) return tni_fail_memory((size_t)n * sizeof *t->tracer, "a trace");
    for (; t->n < n; t->n++) {
        tn_array *a = trace_tracer(x[t->n]);
        if (tni_is_error(a)) return a->status;
        tni_array_retain(t->tracer[t->n] = a);
    }
    return 0;
}

void tni_trace_close(tni_trace *t) {
    if (t->open) trace_depth--;
    t->open = false;
    for (int i = 0; i < t->n; i++) t->tracer[i]->flags &= (uint8_t)~TNI_A_TRACER;
}

/* Nodes of the steps are not to be evaluated, by a rule that got hold of them, before the walks
 * over them are done: evaluated nodes are gone. */
static void trace_guard(tni_trace *t, bool on) {
    for (size_t i = 0; i < t->steps.n; i++) {
        tn_array *a = t->steps.v[i].node->out[0];
        if (on)
            a->flags |= TNI_A_TRACER;
        else
            a->flags &= (uint8_t)~TNI_A_TRACER;
    }
}

void tni_trace_free(tni_trace *t) {
    tni_trace_close(t);
    if (t->guarded) trace_guard(t, false);
    for (int i = 0; i < t->n; i++) tni_array_release(t->tracer[i]);
    for (size_t i = 0; i < t->held.n; i++) tni_array_release(t->held.v[i]);
    tni_vec_free(&t->held);
    tni_vec_free(&t->steps);
    tni_vec_free(&t->in_slot);
    tni_free(t->tracer);
    tni_free(t->out);
    tni_free(t->out_slot);
}

/* ---- order ---- */

typedef struct trace_place {
    tni_node *node;
    int32_t next; /* input to look at next */
} trace_place;
typedef TNI_VEC(trace_place) trace_stack;

static int trace_no_memory(void) { return tni_fail_memory(sizeof(trace_place), "a trace"); }

/* The slot of `a`, whose node, if any, was walked. */
static int32_t trace_slot(const tni_trace *t, const tn_array *a) {
    if (tni_state_of(a) != TNI_LAZY || a->node->mark != t->epoch || a->node->index < 0) return -1;
    return a->node->index + a->out_index;
}

/* The node's inputs have been seen: a step, if it depends on one. */
static int trace_add(tni_trace *t, tni_node *n) {
    bool depends = false;
    n->index = -1;
    for (int i = 0; i < n->n_in && !depends; i++) depends = trace_slot(t, n->in[i]) >= 0;
    if (!depends) return 0;
    if (t->n_slots > INT32_MAX - n->n_out)
        return tni_fail(TN_EVALUE, "a trace of more than %d values", INT32_MAX - TNI_MAX_OUT);
    tni_step s = {n, (int64_t)t->in_slot.n, t->n_slots};
    for (int i = 0; i < n->n_in; i++)
        if (tni_vec_push(&t->in_slot, trace_slot(t, n->in[i]))) return trace_no_memory();
    if (tni_vec_push(&t->steps, s)) return trace_no_memory();
    n->index = t->n_slots;
    t->n_slots += n->n_out;
    if (n->n_in > t->most_in) t->most_in = n->n_in;
    return 0;
}

static int trace_enter(tni_trace *t, trace_stack *s, const tn_array *a) {
    if (tni_state_of(a) != TNI_LAZY || a->node->mark == t->epoch) return 0;
    a->node->mark = t->epoch;
    a->node->index = -1;
    return tni_vec_push(s, ((trace_place){a->node, 0})) ? trace_no_memory() : 0;
}

static int trace_order(tni_trace *t, trace_stack *s, const tn_array *root) {
    int status = trace_enter(t, s, root);
    while (!status && s->n) {
        trace_place *top = &s->v[s->n - 1];
        if (top->next < top->node->n_in) {
            status = trace_enter(t, s, top->node->in[top->next++]);
            continue;
        }
        status = trace_add(t, top->node);
        s->n--;
    }
    return status;
}

/* Arguments take the places of their tracers. */
static void trace_replace(tni_trace *t) {
    for (size_t k = 0; k < t->steps.n; k++) {
        tni_step s = t->steps.v[k];
        for (int i = 0; i < s.node->n_in; i++) {
            int32_t slot = t->in_slot.v[s.in + i];
            if (slot < 0 || slot >= t->n) continue;
            tni_array_retain(t->x[slot]);
            tni_array_release(s.node->in[i]);
            s.node->in[i] = t->x[slot];
        }
    }
}

static int trace_results(tni_trace *t, int n_out, tn_array *const *out) {
    t->out = tni_alloc_array((size_t)n_out + 1, sizeof *t->out);
    t->out_slot = tni_alloc_array((size_t)n_out + 1, sizeof *t->out_slot);
    if (!t->out || !t->out_slot || tni_vec_reserve(&t->held, (size_t)n_out)) {
        return trace_no_memory();
    }
    for (t->n_out = 0; t->n_out < n_out; t->n_out++) {
        tn_array *a = out[t->n_out];
        int32_t slot = t->out_slot[t->n_out] = trace_slot(t, a);
        t->out[t->n_out] = slot >= 0 && slot < t->n ? t->x[slot] : a;
        tni_array_retain(a);
        t->held.v[t->held.n++] = a;
    }
    return 0;
}

int tni_trace_walk(tni_trace *t, int n_out, tn_array *const *out) {
    trace_stack s = {0};
    int status = 0;
    t->epoch = tni_plan_epoch();
    for (; t->n_slots < t->n; t->n_slots++) {
        tni_node *n = t->tracer[t->n_slots]->node;
        n->mark = t->epoch, n->index = t->n_slots;
    }
    for (int i = 0; i < n_out && !status; i++) status = trace_order(t, &s, out[i]);
    tni_vec_free(&s);
    if (!status) status = trace_results(t, n_out, out);
    if (!status) trace_replace(t);
    tni_trace_close(t);
    if (!status) trace_guard(t, t->guarded = true);
    return status;
}
