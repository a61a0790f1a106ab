/* From a function to a plan: traced once, its graph copied onto arrays that have addresses but no
 * memory, and that copy evaluated by the ordinary evaluator while it records (eval/flat.h). */
#include "base/alloc.h"
#include "base/err.h"
#include "core/buffer.h"
#include "eval/plan.h"
#include "ops/op.h"
#include "ops/random.h"
#include "trans/call.h"
#include "trans/compile.h"
#include "trans/simplify.h"
#include "trans/trace.h"
#include <string.h>

static int plan_no_memory(void) {
    return tni_fail_memory(sizeof(compiled_plan), "a compiled plan");
}

void tni_compiled_plan_free(compiled_plan *p) {
    if (!p) return;
    for (int k = 0; k < p->n_result && p->result; k++)
        if (p->result[k].constant) tni_array_release(p->result[k].constant);
    tni_vec_free(&p->own);
    tni_flat_free(&p->flat);
    tni_free(p->signature);
    tni_free(p->arg);
    tni_free(p->result);
    tni_free(p->memory);
    tni_free(p->made);
    tni_free(p);
}

/* ---- tracing ---- */

typedef struct plan_trace {
    tn_compiled *c;
    tni_trace t;
    int n_in, n_state, n_res;
    bool random;
    tn_array **res;    /* outputs, new state, new key, which is kept by us */
    tn_array **simple; /* the same simplified */
} plan_trace;

/* Stand-ins into the slots; what they held is in before[]. */
static void plan_enter(tn_compiled *c, tn_array *const *in, tn_array **before) {
    for (int i = 0; i < c->n_state; i++) {
        before[i] = *c->state[i];
        *c->state[i] = tn_keep(in[i]);
    }
}

/* Takes out what the function left there, and puts back what was there. */
static void plan_leave(tn_compiled *c, tn_array **before, tn_array **out) {
    for (int i = 0; i < c->n_state; i++) {
        tn_array *a = *c->state[i];
        *c->state[i] = before[i];
        out[i] = tni_alive(a) ? tni_scope_again(a) : a;
        tn_drop(a);
    }
}

int tni_compiled_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_compiled *c = ud;
    int n_in = in.n - c->n_state;
    tn_array **before = tni_alloc_array((size_t)c->n_state + 1, sizeof *before);
    if (!before) return plan_no_memory();
    (void)n_out;
    c->stats.runs++;
    plan_enter(c, in.v + n_in, before);
    int status = tni_call_fns("compile", c->fn, c->ud, (tn_list){in.v, n_in}, c->n_out, out);
    plan_leave(c, before, out + c->n_out);
    tni_free(before);
    for (int i = 0; i < c->n_state && !status; i++)
        if (!out[c->n_out + i])
            status = tni_fail(TN_EVALUE, "compile: the function left slot %d empty", i);
    return status;
}

/* The results, from a recording if one is open for these sizes. */
static int plan_results(plan_trace *r, bool *known) {
    tn_list in = {r->t.tracer, r->t.n - 1};
    int status = r->c->shapeless ? tni_compiled_recall(r->c, in, r->res) : TN_ESHAPE;
    *known = !status || status == TN_EMEMORY;
    return *known ? status
                  : tni_call_fns("compile", tni_compiled_fns, r->c, in, r->n_res - 1, r->res);
}

/* Random numbers are drawn from a stand-in for the thread's sequence. */
static int plan_call(plan_trace *r, bool *known) {
    tn_array *first = r->t.tracer[r->t.n - 1], **key = &r->res[r->n_res - 1];
    *key = tn_keep(first);
    tn_array **outer = tni_random_trace(key);
    int status = plan_results(r, known);
    tni_random_trace(outer);
    r->random = *key != first;
    return status ? status : tn_array_status(*key);
}

static int plan_trace_open(plan_trace *r, tn_compiled *c, int n, tn_array *const *x) {
    memset(r, 0, sizeof *r);
    r->c = c, r->n_state = c->n_state, r->n_in = n - c->n_state - 1;
    r->n_res = c->n_out + c->n_state + 1;
    r->res = tni_calloc(2 * (size_t)r->n_res, sizeof *r->res);
    if (!r->res) return plan_no_memory();
    r->simple = r->res + r->n_res;
    return tni_trace_open(&r->t, n, x);
}

static void plan_trace_free(plan_trace *r) {
    if (r->res) tn_drop(r->res[r->n_res - 1]);
    tni_trace_free(&r->t);
    tni_free(r->res);
}

static int plan_simplify(plan_trace *r) {
    for (int k = 0; k < r->n_res; k++) r->simple[k] = r->res[k];
    int status = tni_simplify(r->t.n, r->t.tracer, r->n_res, r->simple, r->c->fold);
    return status ? status : tni_trace_walk(&r->t, r->n_res, r->simple);
}

/* What the graph takes from outside is computed now: constants of the plan. */
static int plan_constants(const plan_trace *r) {
    TNI_VEC(tn_array *) list = {0};
    const tni_trace *t = &r->t;
    int status = 0;
    for (size_t k = 0; k < t->steps.n && !status; k++) {
        const tni_step *s = &t->steps.v[k];
        for (int i = 0; i < s->node->n_in && !status; i++)
            if (t->in_slot.v[s->in + i] < 0) status = tni_vec_push(&list, s->node->in[i]);
    }
    for (int k = 0; k < t->n_out && !status; k++)
        if (t->out_slot[k] < 0) status = tni_vec_push(&list, t->out[k]);
    status = status ? plan_no_memory() : tn_eval((tn_list){list.v, (int)list.n});
    tni_vec_free(&list);
    return status;
}

/* ---- the copy ---- */

typedef struct plan_copy {
    const plan_trace *r;
    tn_array **value; /* by slot of the trace; held */
    tn_array **root;  /* the results; held */
} plan_copy;

static tn_array *copy_input(const plan_copy *c, const tni_step *s, int i) {
    int32_t slot = c->r->t.in_slot.v[s->in + i];
    return slot < 0 ? s->node->in[i] : c->value[slot];
}

/* Functions with rules of their own hand on what they computed; only checkpoint's order matters. */
static bool copy_passes(const tni_node *n) {
    return n->prim->id == TNI_OP_custom &&
           ((const tni_p_custom *)n->params)->kind != TNI_CUSTOM_AFTER;
}

static int copy_step(plan_copy *c, const tni_step *s, tn_array **in) {
    const tni_node *n = s->node;
    tni_out_spec spec[TNI_MAX_OUT];
    for (int i = 0; i < n->n_in; i++) in[i] = copy_input(c, s, i);
    for (int k = 0; k < n->n_out; k++) {
        if (copy_passes(n)) {
            tni_array_retain(c->value[s->slot + k] = in[k]);
            continue;
        }
        const tn_array *a = n->out[k];
        spec[k] = (tni_out_spec){(tn_dtype)a->dtype, a->ndim, a->shape};
    }
    if (copy_passes(n)) return 0;
    tn_array *out[TNI_MAX_OUT];
    int status = tni_node_new(n->prim, n->n_in, in, n->params, n->n_out, spec, out);
    for (int k = 0; k < n->n_out && !status; k++) {
        c->value[s->slot + k] = out[k];
        out[k]->flags |= n->out[k]->flags & TNI_A_WEAK;
    }
    return status;
}

static void copy_release(tn_array **v, int n) {
    for (int i = 0; i < n && v; i++)
        if (v[i]) tni_array_release(v[i]), v[i] = NULL;
}

static int copy_make(plan_copy *c, const plan_trace *r, tn_array *const *place) {
    const tni_trace *t = &r->t;
    int status = 0;
    *c = (plan_copy){r, tni_calloc((size_t)t->n_slots + 1, sizeof *c->value),
                     tni_calloc((size_t)t->n_out + 1, sizeof *c->root)};
    tn_array **in = tni_alloc_array((size_t)t->most_in + 1, sizeof *in);
    if (!c->value || !c->root || !in) status = plan_no_memory();
    for (int i = 0; i < t->n && !status; i++) tni_array_retain(c->value[i] = place[i]);
    for (size_t k = 0; k < t->steps.n && !status; k++) status = copy_step(c, &t->steps.v[k], in);
    for (int k = 0; k < t->n_out && !status; k++) {
        c->root[k] = t->out_slot[k] < 0 ? t->out[k] : c->value[t->out_slot[k]];
        tni_array_retain(c->root[k]);
    }
    copy_release(c->value, t->n_slots);
    tni_free(c->value);
    tni_free(in);
    c->value = NULL;
    return status;
}

static void copy_free(plan_copy *c) {
    copy_release(c->root, c->r->t.n_out);
    tni_free(c->root);
}

/* ---- the plan ---- */

/* An array with an address for each argument. */
static int plan_places(compiled_plan *p, const plan_trace *r, tn_array **place) {
    for (int i = 0; i < p->n_arg; i++) {
        const tn_array *x = r->t.x[i];
        place[i] = tni_array_alloc((tn_dtype)x->dtype, x->ndim, x->shape);
        if (!place[i]) return TN_EMEMORY;
        p->arg[i] = (int32_t)p->flat.buffers.n;
        place[i]->buf = tni_flat_new(&p->flat, tn_nbytes(x));
        if (!place[i]->buf) return TN_EMEMORY;
        place[i]->flags |= x->flags & TNI_A_WEAK;
        atomic_store_explicit(&place[i]->state, TNI_READY, memory_order_release);
    }
    return 0;
}

/* State of more than one element may be written over: nobody but the graph holds it then. */
static void plan_donate(const plan_trace *r, tn_array **place) {
    for (int i = r->n_in; i < r->n_in + r->n_state; i++)
        if (place[i]->size > COMPILED_INLINE) copy_release(&place[i], 1);
}

static int plan_record(compiled_plan *p, plan_copy *c, bool backwards) {
    int n = c->r->t.n_out;
    tn_array **list = tni_alloc_array((size_t)n + 1, sizeof *list);
    if (!list) return plan_no_memory();
    for (int k = 0; k < n; k++) list[k] = c->root[backwards ? n - 1 - k : k];
    tni_plan plan;
    tni_plan_init(&plan);
    int status = tni_plan_make(&plan, (tn_list){list, n}, false);
    tni_recording = &p->flat;
    if (!status) status = tni_plan_run(&plan);
    tni_recording = NULL;
    tni_plan_free(&plan);
    tni_free(list);
    return status;
}

static int plan_argument_of(const compiled_plan *p, int32_t buffer) {
    for (int i = 0; i < p->n_arg; i++)
        if (p->arg[i] == buffer) return i;
    return -1;
}

/* `who`: the arrays of the arguments, only to be compared with. */
static void plan_result(compiled_plan *p, compiled_result *r, tn_array *a, tn_array *const *who) {
    *r = (compiled_result){.argument = -1, .dtype = (tn_dtype)a->dtype, .ndim = a->ndim};
    r->size = a->size, r->weak = a->flags & TNI_A_WEAK, r->row_major = tni_row_major(a);
    memcpy(r->shape, a->shape, sizeof(int64_t) * a->ndim);
    memcpy(r->strides, a->strides, sizeof(int64_t) * a->ndim);
    for (int i = 0; i < p->n_arg; i++)
        if (who[i] == a) {
            r->from = COMPILED_ARGUMENT, r->argument = i;
            return;
        }
    if (!a->buf || !a->buf->planned) {
        r->from = COMPILED_CONSTANT;
        tni_array_retain(r->constant = a);
        return;
    }
    tni_flat_ptr at = tni_flat_find(&p->flat, tni_array_data(a));
    r->from = COMPILED_BUFFER, r->buffer = at.buffer, r->at = at.at;
    r->argument = plan_argument_of(p, at.buffer);
}

/* Which buffers the arena holds, and which of those keep their value until the end. */
static int plan_layout(compiled_plan *p) {
    bool *until_end = tni_calloc(p->flat.buffers.n + 1, sizeof *until_end);
    if (!until_end) return plan_no_memory();
    int status = 0;
    for (int i = 0; i < p->n_arg; i++) p->flat.buffers.v[p->arg[i]].kind = TNI_FLAT_OWN;
    for (int k = 0; k < p->n_result && !status; k++) {
        const compiled_result *r = &p->result[k];
        if (r->from != COMPILED_BUFFER) continue;
        tni_flat_buffer *b = &p->flat.buffers.v[r->buffer];
        bool is_key = k == p->n_result - 1;
        if (r->size <= COMPILED_INLINE || is_key) {
            until_end[r->buffer] = true;
        } else if (b->kind != TNI_FLAT_OWN) {
            b->kind = TNI_FLAT_OWN;
            status = tni_vec_push(&p->own, r->buffer);
        }
    }
    status = status ? plan_no_memory() : tni_flat_place(&p->flat, until_end);
    if (!status) status = tni_flat_bound(&p->flat, until_end, &p->bound);
    tni_free(until_end);
    if (status) return status;
    p->memory = tni_calloc(p->own.n + (size_t)p->n_arg + 1, sizeof *p->memory);
    p->made = tni_calloc((size_t)p->n_result + 1, sizeof *p->made);
    return p->memory && p->made ? 0 : plan_no_memory();
}

static int plan_fill(compiled_plan *p, const plan_trace *r, tn_array **place, tn_array **who,
                     bool backwards) {
    plan_copy c;
    int status = plan_places(p, r, place);
    for (int i = 0; i < p->n_arg && !status; i++) who[i] = place[i];
    if (status) return status;
    status = copy_make(&c, r, place);
    plan_donate(r, place);
    if (!status) status = plan_record(p, &c, backwards);
    for (int k = 0; k < p->n_result && !status; k++) plan_result(p, &p->result[k], c.root[k], who);
    copy_free(&c);
    return status ? status : plan_layout(p);
}

static compiled_plan *plan_make(const plan_trace *r, bool backwards) {
    compiled_plan *p = tni_calloc(1, sizeof *p);
    if (!p) {
        plan_no_memory();
        return NULL;
    }
    tni_flat_init(&p->flat);
    p->n_arg = r->t.n, p->n_result = r->n_res, p->random = r->random;
    p->arg = tni_calloc((size_t)p->n_arg, sizeof *p->arg);
    p->result = tni_calloc((size_t)p->n_result, sizeof *p->result);
    tn_array **place = tni_calloc((size_t)p->n_arg * 2, sizeof *place);
    int status = p->arg && p->result && place ? 0 : plan_no_memory();
    if (!status) status = plan_fill(p, r, place, place + p->n_arg, backwards);
    copy_release(place, p->n_arg);
    tni_free(place);
    if (!status) return p;
    tni_compiled_plan_free(p);
    return NULL;
}

/* What a run needs at its height, beside the arguments. */
static size_t plan_bytes(const compiled_plan *p) {
    size_t n = p->flat.arena;
    for (size_t i = 0; i < p->own.n; i++) n += p->flat.buffers.v[p->own.v[i]].size;
    return n;
}

/* Gradients listed from the last layer to the first let each layer's memory go before the next is
 * reached: whichever order of the results needs less is taken. */
static compiled_plan *plan_best(const plan_trace *r) {
    compiled_plan *a = plan_make(r, false), *b = a ? plan_make(r, true) : NULL;
    if (!b) {
        tni_compiled_plan_free(a);
        return NULL;
    }
    bool first = plan_bytes(a) <= plan_bytes(b);
    tni_compiled_plan_free(first ? b : a);
    return first ? a : b;
}

compiled_plan *tni_compiled_plan(tn_compiled *c, int n, tn_array *const *x, bool *known) {
    plan_trace r;
    compiled_plan *p = NULL;
    tn_scope *s = tn_scope_begin();
    int status = plan_trace_open(&r, c, n, x);
    if (!status) status = plan_call(&r, known);
    if (!status) status = tni_compiled_outside(r.n_res, r.res);
    if (!status) status = plan_simplify(&r);
    if (!status) status = plan_constants(&r);
    if (!status) p = plan_best(&r);
    plan_trace_free(&r);
    tn_scope_end(s);
    return p;
}
