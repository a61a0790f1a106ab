/* Exporting: a function is traced and what it built becomes records. Arrays from elsewhere are
 * constants; what is computed from constants alone is evaluated once, here, unless it is a view or
 * a range, which take no room. Nothing is simplified: derivatives of the imported function are
 * those of the original. */
#include "trans/export.h"
#include "base/err.h"
#include "ops/build.h"
#include "ops/op.h"
#include "ops/random.h"
#include "trans/call.h"
#include "trans/trace.h"
#include <string.h>

enum {
    EXPORT_DEPTH = 32,    /* views of views of a constant that are kept as such */
    EXPORT_NESTING = 1000 /* nodes above each other that depend on no argument, of open traces */
};

/* Arrays, by address {a, 0} or, of one element, by what they hold, to an operand. */
typedef struct export_key {
    uint64_t a, b;
} export_key;
typedef struct export_slot {
    export_key key;
    uint32_t operand, used;
} export_slot;
typedef struct export_map {
    export_slot *v;
    size_t n, cap; /* cap is 0 or a power of two */
} export_map;

struct tn_exporter {
    tn_fns fn;
    void *ud;
    ex_function f;
    export_map constants;
    bool memory; /* never written: code may stay, and free sizes go in steps */
};

/* One tn_exporter_add. */
typedef struct export_job {
    tn_exporter *e;
    tni_trace t;
    ex_trace *x;
    uint32_t *number; /* operand of each slot of the trace */
    export_map views; /* values that hang on constants alone */
    export_map uses;  /* how often the graph takes what is not yet evaluated of them */
    bool open;        /* what the function makes may depend on sizes: nothing of it is evaluated */
    bool lowering;    /* `views` holds the inputs of a node that is written by its lowering */
} export_job;

static int export_no_memory(void) { return tni_fail_memory(sizeof(ex_node), "exporting"); }

tn_exporter *tn_exporter_new(tn_fns fn, void *ud, int n_out) {
    if (!fn || n_out < 0) {
        tni_fail(TN_EVALUE, "export: %s",
                 fn ? "a negative number of results" : "the function is NULL");
        return NULL;
    }
    tn_exporter *e = tni_calloc(1, sizeof *e);
    if (!e) {
        export_no_memory();
        return NULL;
    }
    e->fn = fn, e->ud = ud, e->f.n_out = n_out;
    return e;
}

tn_exporter *tni_ex_recorder(tn_fns fn, void *ud, int n_out) {
    tn_exporter *e = tn_exporter_new(fn, ud, n_out);
    if (e) e->memory = true;
    return e;
}

const ex_function *tni_ex_recorded(const tn_exporter *e) { return &e->f; }

void tn_exporter_free(tn_exporter *e) {
    if (!e) return;
    tni_ex_function_free(&e->f);
    tni_free(e->constants.v);
    tni_free(e);
}

/* ---- maps ---- */

static export_slot *export_find(const export_map *m, export_key k) {
    size_t i = (size_t)((k.a ^ k.b * 31) * 0x9e3779b97f4a7c15u >> 32);
    for (;; i++) {
        export_slot *s = &m->v[i & (m->cap - 1)];
        if (!s->used || (s->key.a == k.a && s->key.b == k.b)) return s;
    }
}

static bool export_get(const export_map *m, export_key k, uint32_t *operand) {
    if (!m->n) return false;
    const export_slot *s = export_find(m, k);
    if (s->used) *operand = s->operand;
    return s->used;
}

static int export_put(export_map *m, export_key k, uint32_t operand) {
    if (m->n * 2 >= m->cap) {
        export_map to = {.n = m->n, .cap = m->cap ? 2 * m->cap : 64};
        to.v = tni_calloc(to.cap, sizeof *to.v);
        if (!to.v) return export_no_memory();
        for (size_t i = 0; i < m->cap; i++)
            if (m->v[i].used) *export_find(&to, m->v[i].key) = m->v[i];
        tni_free(m->v);
        *m = to;
    }
    *export_find(m, k) = (export_slot){k, operand, 1};
    m->n++;
    return 0;
}

static export_key export_address(const tn_array *a) { return (export_key){(uintptr_t)a, 0}; }

/* ---- constants ---- */

/* {bits, what they are}; b is never 0. */
static export_key export_content(tn_array *a) {
    export_key k = {0, (uint64_t)1 << 63 | (uint64_t)a->dtype | (uint64_t)a->ndim << 8 |
                           (a->flags & TNI_A_WEAK ? 1u << 16 : 0)};
    memcpy(&k.a, tn_data(a), tn_nbytes(a));
    return k;
}

static int export_keep(export_job *j, tn_array *a, uint32_t *operand) {
    ex_function *f = &j->e->f;
    if (f->constants.n >= EX_MOST_VALUES)
        return tni_fail(TN_EVALUE, "export: more than %d constants", EX_MOST_VALUES);
    if (tni_vec_reserve(&f->constants, f->constants.n + 1)) return export_no_memory();
    *operand = EX_CONSTANT | (uint32_t)f->constants.n;
    int status = export_put(&j->e->constants, export_address(a), *operand);
    if (status) return status;
    tni_array_retain(f->constants.v[f->constants.n++] = a);
    return 0;
}

/* The operand of an array with a value. */
static int export_constant(export_job *j, tn_array *a, uint32_t *operand) {
    export_map *m = &j->e->constants;
    if (export_get(m, export_address(a), operand)) return 0;
    if (a->size && !tn_data(a)) return tni_error_code();
    if (a->size != 1) return export_keep(j, a, operand);
    export_key k = export_content(a);
    if (export_get(m, k, operand)) return 0;
    int status = export_keep(j, a, operand);
    return status ? status : export_put(m, k, *operand);
}

/* Back to the first n constants, after a failure. */
static void export_forget(tn_exporter *e, size_t n) {
    ex_function *f = &e->f;
    if (f->constants.n == n) return;
    while (f->constants.n > n) tni_array_release(f->constants.v[--f->constants.n]);
    if (e->constants.cap) memset(e->constants.v, 0, e->constants.cap * sizeof *e->constants.v);
    e->constants.n = 0;
    for (size_t i = 0; i < n; i++) { /* there was room for more */
        tn_array *a = f->constants.v[i];
        (void)export_put(&e->constants, export_address(a), EX_CONSTANT | (uint32_t)i);
        if (a->size == 1)
            (void)export_put(&e->constants, export_content(a), EX_CONSTANT | (uint32_t)i);
    }
}

/* ---- nodes ---- */

/* Rules of callers are code and stay behind: the node goes on, but cannot be differentiated. */
static void export_custom(tni_p_custom *p) {
    p->vjp = NULL, p->ud = NULL, p->levels = 0;
    if (p->kind == TNI_CUSTOM_VJP || p->kind == TNI_CUSTOM_JVP) p->kind = TNI_CUSTOM_LOST;
}

/* Records n, whose operands have been pushed from `in` on. */
static int export_node(export_job *j, const tni_node *n, size_t in) {
    ex_trace *x = j->x;
    const tni_prim *p = n->prim;
    ex_node y = {p, (uint32_t)n->n_in, (uint32_t)n->n_out, in, x->params.n, (uint32_t)x->values.n};
    size_t units = tni_ex_units(p);
    if (tni_vec_reserve(&x->params, x->params.n + units) || tni_vec_push(&x->nodes, y))
        return export_no_memory();
    tni_prim_retain(p);
    if (units) {
        memset(x->params.v + y.params, 0, units * sizeof *x->params.v);
        memcpy(x->params.v + y.params, n->params, p->params_size);
        x->params.n += units;
        if (p->id == TNI_OP_custom) export_custom((void *)(x->params.v + y.params));
    }
    if (y.n_in > x->most_in) x->most_in = y.n_in;
    int status = 0;
    for (int k = 0; k < n->n_out && !status; k++) {
        const tn_array *a = n->out[k];
        if (!a) return tni_fail(TN_EINTERNAL, "export: an output of %s is gone", p->name);
        status = tni_ex_value(x, (tn_dtype)a->dtype, a->ndim, a->shape);
    }
    return status;
}

static int export_push(export_job *j, uint32_t operand) {
    return tni_vec_push(&j->x->operands, operand) ? export_no_memory() : 0;
}

/* ---- what hangs on constants ---- */

static bool export_lazy_view(const tn_array *a) {
    return tni_state_of(a) == TNI_LAZY && a->node->prim->kind == TNI_K_VIEW &&
           a->node->prim->id != TNI_OP_custom && a->node->n_in == 1;
}

/* One more use, and of what it is a view of, or in open traces made of, if it is the first. */
static int export_count(export_job *j, const tn_array *a) {
    TNI_VEC(const tn_array *) todo = {0};
    uint32_t n = 0;
    int status = tni_vec_push(&todo, a) ? export_no_memory() : 0;
    while (todo.n && !status) {
        a = todo.v[--todo.n];
        if (tni_state_of(a) != TNI_LAZY) continue;
        if (export_get(&j->uses, export_address(a), &n)) {
            export_find(&j->uses, export_address(a))->operand++;
            continue;
        }
        status = export_put(&j->uses, export_address(a), 1);
        if (!j->open && !export_lazy_view(a)) continue;
        for (int i = 0; i < a->node->n_in && !status; i++)
            if (tni_vec_push(&todo, a->node->in[i])) status = export_no_memory();
    }
    tni_vec_free(&todo);
    return status;
}

/* Nobody but the graph knows it: the function made it. */
static bool export_inside(const export_job *j, tn_array *a) {
    uint32_t n = 0;
    return export_get(&j->uses, export_address(a), &n) && atomic_load(&a->refs) == (int32_t)n;
}

/* Whether `a` takes no room as it is: a range, or a view of something evaluated or of such a view.
 * Lazy arrays of the caller are evaluated, so that the file is the same when they were before. */
static int export_is_view(const export_job *j, tn_array *a, bool *view) {
    int status = 0;
    *view = false;
    for (int n = 0; n < EXPORT_DEPTH && !status; n++) {
        if (tni_state_of(a) == TNI_LAZY && !export_inside(j, a)) status = tn_eval(TN_LIST(a));
        *view = !status && (tni_state_of(a) != TNI_LAZY || a->node->prim->id == TNI_OP_arange);
        if (*view || status || !export_lazy_view(a)) break;
        a = a->node->in[0];
    }
    return status;
}

/* From the innermost view outwards: a chain of at most EXPORT_DEPTH, each with one input. */
static int export_views(export_job *j, tn_array *a, uint32_t *operand) {
    tn_array *chain[EXPORT_DEPTH];
    int n = 0, status = 0;
    for (; tni_state_of(a) == TNI_LAZY; a = a->node->in[0]) {
        if (export_get(&j->views, export_address(a), operand)) break;
        chain[n++] = a;
        if (!a->node->n_in) break;
    }
    if (tni_state_of(a) != TNI_LAZY) status = export_constant(j, a, operand);
    while (n-- > 0 && !status) {
        size_t in = j->x->operands.n;
        if (chain[n]->node->n_in) status = export_push(j, *operand);
        *operand = (uint32_t)j->x->values.n;
        if (!status) status = export_node(j, chain[n]->node, in);
        if (!status) status = export_put(&j->views, export_address(chain[n]), *operand);
    }
    return status;
}

/* A checkpoint says how to go back with less memory, a custom_vmap how to take many calls at once:
 * the results are what the node was given. */
static bool export_passes(const tni_node *n) {
    const tni_p_custom *p = n->params;
    return n->prim->id == TNI_OP_custom &&
           (p->kind == TNI_CUSTOM_CHECKPOINT || p->kind == TNI_CUSTOM_DRAWN ||
            p->kind == TNI_CUSTOM_VMAP);
}

static int export_lowered(export_job *j, const tni_node *n, const uint32_t *operand, int depth,
                          uint32_t *out);

/* Records n over operands; out[k] are those of its results. */
static int export_emit(export_job *j, const tni_node *n, const uint32_t *operand, int depth,
                       uint32_t *out) {
    const tni_prim *p = n->prim;
    size_t in = j->x->operands.n, first = j->x->values.n;
    int status = 0;
    if (export_passes(n)) {
        memcpy(out, operand, sizeof *out * (size_t)n->n_out);
        return 0;
    }
    bool row = p->id >= 0 && p->id < TNI_OP_COUNT && p == &tni_prims[p->id];
    if (!row && !j->e->memory) return export_lowered(j, n, operand, depth, out);
    for (int i = 0; i < n->n_in && !status; i++) status = export_push(j, operand[i]);
    if (!status) status = export_node(j, n, in);
    for (int k = 0; k < n->n_out; k++) out[k] = (uint32_t)first + (uint32_t)k;
    return status;
}

/* As nodes: what an open function made of constants, or a lowering of a node's inputs. */
static int export_made(export_job *j, tn_array *a, int depth, uint32_t *operand) {
    bool nodes = j->lowering || depth < 0 || export_inside(j, a); /* -1: a result */
    uint32_t out[TNI_MAX_OUT];
    int status = 0;
    if (export_get(&j->views, export_address(a), operand)) return 0;
    if (tni_state_of(a) == TNI_LAZY && (a->flags & TNI_A_TRACER || !nodes))
        status = tn_eval(TN_LIST(a));
    if (status || tni_state_of(a) != TNI_LAZY)
        return status ? status : export_constant(j, a, operand);
    if (depth >= EXPORT_NESTING)
        return tni_fail(TN_EVALUE,
                        "export: more than %d operations on top of each other within one "
                        "that is written as several, or without an argument",
                        EXPORT_NESTING);
    const tni_node *n = a->node;
    uint32_t *v = tni_alloc_array((size_t)n->n_in + 1, sizeof *v);
    if (!v) return export_no_memory();
    for (int i = 0; i < n->n_in && !status; i++)
        status = export_made(j, n->in[i], depth + 1, &v[i]);
    if (!status) status = export_emit(j, n, v, depth, out);
    tni_free(v);
    for (int k = 0; k < n->n_out && !status; k++)
        if (n->out[k]) status = export_put(&j->views, export_address(n->out[k]), out[k]);
    if (!status) *operand = out[a->out_index];
    return status;
}

/* A primitive of the caller, whose kernel is code: by what it is made of. */
static int export_lowered(export_job *j, const tni_node *n, const uint32_t *operand, int depth,
                          uint32_t *out) {
    tn_array *y[TNI_MAX_OUT] = {NULL};
    uint32_t known;
    if (!n->prim->lower)
        return tni_fail(TN_EVALUE,
                        "export: %s has no lowering, and files hold no code of the caller's",
                        n->prim->name);
    export_map outer = j->views;
    bool lowering = j->lowering;
    j->views = (export_map){0}, j->lowering = true;
    tn_scope *s = tn_scope_begin();
    int status = n->prim->lower(n, y);
    for (int i = 0; i < n->n_in && !status; i++)
        if (!export_get(&j->views, export_address(n->in[i]), &known))
            status = export_put(&j->views, export_address(n->in[i]), operand[i]);
    for (int k = 0; k < n->n_out && !status; k++) {
        if (!y[k] || tni_is_error(y[k]))
            status = tni_fail(TN_EVALUE, "export: the lowering of %s has no result %d: %s",
                              n->prim->name, k, y[k] ? tn_array_error(y[k]) : "it is NULL");
        else
            status = export_made(j, y[k], depth + 1, &out[k]);
    }
    tn_scope_end(s);
    tni_free(j->views.v);
    j->views = outer, j->lowering = lowering;
    return status;
}

/* The operand of an array that depends on no argument. */
static int export_outside(export_job *j, tn_array *a, uint32_t *operand) {
    bool view = false;
    if (j->open) return export_made(j, a, 0, operand);
    int status = export_is_view(j, a, &view);
    if (!status && view) return export_views(j, a, operand);
    if (!status) status = tn_eval(TN_LIST(a));
    return status ? status : export_constant(j, a, operand);
}

/* ---- the trace ---- */

static int export_operand(export_job *j, tn_array *a, int32_t slot, uint32_t *operand) {
    if (slot < 0) return export_outside(j, a, operand);
    *operand = j->number[slot];
    return 0;
}

static int export_step(export_job *j, const tni_step *s, uint32_t *operand) {
    const tni_node *n = s->node;
    int status = 0;
    for (int i = 0; i < n->n_in && !status; i++)
        status = export_operand(j, n->in[i], j->t.in_slot.v[s->in + i], &operand[i]);
    return status ? status : export_emit(j, n, operand, 0, j->number + s->slot);
}

/* Arguments, and the random key if it was drawn from. */
static int export_arguments(export_job *j) {
    int n = j->t.n - 1, status = 0;
    if (tni_vec_reserve(&j->x->operands, 1) || tni_vec_reserve(&j->x->params, 1)) /* never NULL */
        return export_no_memory();
    j->x->n_in = (uint32_t)n;
    j->x->random = j->t.out_slot[j->t.n_out - 1] != n;
    for (int i = 0; i <= n && !status; i++) {
        const tn_array *a = j->t.x[i];
        j->number[i] = (uint32_t)i;
        if (i < n || j->x->random)
            status = tni_ex_value(j->x, (tn_dtype)a->dtype, a->ndim, a->shape);
    }
    return status;
}

static int export_count_all(export_job *j) {
    const tni_trace *t = &j->t;
    int status = 0;
    for (size_t k = 0; k < t->steps.n && !status; k++) {
        const tni_step *s = &t->steps.v[k];
        for (int i = 0; i < s->node->n_in && !status; i++)
            if (t->in_slot.v[s->in + i] < 0) status = export_count(j, s->node->in[i]);
    }
    for (int k = 0; k < t->n_out && !status && j->open; k++)
        if (t->out_slot[k] < 0) status = export_count(j, t->out[k]);
    return status;
}

static int export_record(export_job *j) {
    const tni_trace *t = &j->t;
    int n_out = t->n_out, status;
    uint32_t *operand = tni_alloc_array((size_t)t->most_in + 1, sizeof *operand), y = 0;
    j->number = tni_alloc_array((size_t)t->n_slots + 1, sizeof *j->number);
    status = operand && j->number ? export_arguments(j) : export_no_memory();
    if (!status) status = export_count_all(j);
    for (size_t k = 0; k < t->steps.n && !status; k++)
        status = export_step(j, &t->steps.v[k], operand);
    for (int k = 0; k < n_out - !j->x->random && !status; k++) {
        status = j->open && t->out_slot[k] < 0 ? export_made(j, t->out[k], -1, &y)
                                               : export_operand(j, t->out[k], t->out_slot[k], &y);
        if (!status && tni_vec_push(&j->x->results, y)) status = export_no_memory();
    }
    tni_free(operand);
    return status;
}

/* Calls the function on the tracers, draws from a traced key. */
static int export_call(export_job *j, int n, tn_array **out) {
    tn_array *key = NULL;
    int n_out = j->e->f.n_out, status = tn_assign(&key, j->t.tracer[n]);
    if (status) return status;
    tn_array **outer = tni_random_trace(&key);
    status = tni_call_fns("export", j->e->fn, j->e->ud, (tn_list){j->t.tracer, n}, n_out, out);
    tni_random_trace(outer);
    out[n_out] = key;
    if (!status) status = tni_trace_walk(&j->t, n_out + 1, out);
    tn_drop(key);
    return status;
}

static int export_distinct(const tn_exporter *e, const ex_trace *x) {
    char s[300];
    for (size_t i = 0; i < e->f.traces.n; i++)
        if (tni_ex_same_inputs(e->f.traces.v[i], x))
            return tni_fail(TN_EVALUE, "export: arguments %s have been traced already",
                            tni_ex_signature(x, s, sizeof s));
    return 0;
}

/* One trace, not yet of the exporter, whose constants are: *x, NULL on failure. */
static int export_trace(tn_exporter *e, tn_list in, bool open, ex_trace **record) {
    export_job j = {.e = e, .open = open, .x = tni_calloc(1, sizeof *j.x)};
    tn_array **x = tni_alloc_array((size_t)in.n + 1, sizeof *x),
             **out = tni_calloc((size_t)e->f.n_out + 1, sizeof *out);
    int status = j.x && x && out ? 0 : export_no_memory();
    if (!status) {
        for (int i = 0; i < in.n; i++) x[i] = in.v[i];
        x[in.n] = tn_array_new((uint32_t[2]){0, 0}, TN_U32, TN_SHAPE(2));
        status = tn_array_status(x[in.n]);
        if (!status) status = tni_trace_open(&j.t, in.n + 1, x);
        if (!status) status = export_call(&j, in.n, out);
        if (!status) status = export_record(&j);
        tni_trace_free(&j.t);
    }
    if (status) tni_ex_trace_free(j.x);
    *record = status ? NULL : j.x;
    tni_free(j.number), tni_free(j.views.v), tni_free(j.uses.v);
    tni_free(x), tni_free(out);
    return status;
}

/* A finished trace becomes the exporter's, or is freed, and constants from n on with it. */
static int export_take(tn_exporter *e, int status, ex_trace *x, size_t n) {
    if (!status) status = export_distinct(e, x);
    if (!status && tni_vec_push(&e->f.traces, x)) status = export_no_memory();
    if (status) tni_ex_trace_free(x), export_forget(e, n);
    return status;
}

int tn_exporter_add(tn_exporter *e, tn_list in) {
    if (!e) return tni_fail(TN_EVALUE, "export: the exporter is NULL");
    int status = tni_call_inputs("export", "argument", in);
    if (status) return status;
    size_t n = e->f.constants.n;
    ex_trace *x = NULL;
    tn_scope *s = tn_scope_begin();
    status = export_trace(e, in, false, &x);
    status = export_take(e, status, x, n);
    tn_scope_end(s);
    return status;
}

/* ---- open traces: several, compared ---- */

enum { EXPORT_SAMPLES = EX_MOST_FREE + 6 };

typedef struct export_sizes {
    int n;                                    /* free sizes */
    int64_t a[EX_MOST_FREE], b[EX_MOST_FREE]; /* in the two examples */
} export_sizes;

/* The free size of an axis; -1: it is the same in both; -2: there are too many. */
static int export_symbol(export_sizes *f, int64_t a, int64_t b) {
    int k = 0;
    if (a == b) return -1;
    while (k < f->n && (f->a[k] != a || f->b[k] != b)) k++;
    if (k == EX_MOST_FREE) return -2;
    f->a[k] = a, f->b[k] = b;
    if (k == f->n) f->n++;
    return k;
}

/* Size k in sample s: the two examples, two steps beyond the larger, then mixtures. */
static int64_t export_sample(const export_sizes *f, int s, int k) {
    int64_t a = f->a[k], b = f->b[k], high = a > b ? a : b, step = a > b ? a - b : b - a;
    if (s < 2) return s ? b : a;
    if (s < 4) return high + (s - 1) * step;
    if (s == 4) return k % 2 ? high + step : b;
    return k == s - 5 ? b : a;
}

static int export_sizes_of(export_sizes *f, tn_list in, tn_list other) {
    *f = (export_sizes){0};
    if (in.n != other.n)
        return tni_fail(TN_EVALUE, "export: %d arguments in one example, %d in the other", in.n,
                        other.n);
    for (int i = 0; i < in.n; i++) {
        const tn_array *a = in.v[i], *b = other.v[i];
        if (a->ndim != b->ndim || a->dtype != b->dtype)
            return tni_fail(TN_ESHAPE,
                            "export: argument %d is %s in one example and %s in the other", i,
                            tni_describe(a), tni_describe(b));
        for (int d = 0; d < a->ndim; d++)
            if (export_symbol(f, a->shape[d], b->shape[d]) == -2)
                return tni_fail(TN_EVALUE, "export: more than %d sizes vary apart", EX_MOST_FREE);
    }
    return f->n ? 0 : tni_fail(TN_EVALUE, "export: the two examples are of the same sizes");
}

/* Arguments of sample s; those without a free size as given. */
static int export_arguments_of(export_sizes *f, tn_list in, tn_list other, int s, tn_array **x) {
    int status = 0;
    for (int i = 0; i < in.n && !status; i++) {
        const tn_array *a = in.v[i];
        int64_t shape[TN_MAX_NDIM];
        bool free = false;
        for (int d = 0; d < a->ndim; d++) {
            int k = export_symbol(f, a->shape[d], other.v[i]->shape[d]);
            shape[d] = k < 0 ? a->shape[d] : export_sample(f, s, k);
            free = free || k >= 0;
        }
        x[i] = free && s ? tn_zeros((tn_ints){shape, a->ndim}, (tn_dtype)a->dtype) : in.v[i];
        status = tn_array_status(x[i]);
    }
    return status;
}

static int export_mark_open(export_sizes *f, tn_list in, tn_list other, ex_trace *x, bool steps) {
    int status = 0;
    for (int k = 0; k < f->n && steps && !status; k++)
        if (tni_vec_push(&x->steps, f->b[k] - f->a[k])) status = export_no_memory();
    for (int i = 0; i < in.n; i++)
        for (int d = 0; d < in.v[i]->ndim && !status; d++) {
            int64_t n = in.v[i]->shape[d];
            int k = export_symbol(f, n, other.v[i]->shape[d]);
            if (tni_vec_push(&x->open, k < 0 ? n : -1 - k)) status = export_no_memory();
        }
    return status;
}

static int export_open(tn_exporter *e, tn_list in, tn_list other, ex_trace **x) {
    export_sizes f = {0};
    tn_array **args = tni_alloc_array((size_t)in.n + 1, sizeof *args);
    int status = args ? export_sizes_of(&f, in, other) : export_no_memory();
    int m = status ? 0 : f.n > 1 ? 5 + f.n : 4;
    size_t n = 0;
    for (int s = 0; s < m && !status; s++) {
        status = export_arguments_of(&f, in, other, s, args);
        if (!status) status = export_trace(e, (tn_list){args, in.n}, true, &x[s]);
        if (!s) n = e->f.constants.n;
    }
    if (!status) status = tni_ex_open(&e->f, x, m);
    if (!status) status = export_mark_open(&f, in, other, x[0], e->memory);
    for (int s = 1; s < m; s++) tni_ex_trace_free(x[s]);
    if (!status) export_forget(e, n);
    tni_free(args);
    return status;
}

int tn_exporter_add_shapeless(tn_exporter *e, tn_list in, tn_list other) {
    if (!e) return tni_fail(TN_EVALUE, "export: the exporter is NULL");
    int status = tni_call_inputs("export", "argument", in);
    if (!status) status = tni_call_inputs("export", "argument", other);
    if (status) return status;
    size_t n = e->f.constants.n;
    ex_trace *x[EXPORT_SAMPLES] = {NULL};
    tn_scope *s = tn_scope_begin();
    status = export_open(e, in, other, x);
    status = export_take(e, status, x[0], n);
    tn_scope_end(s);
    return status;
}

int tn_exporter_save(tn_exporter *e, const char *path, const char *text) {
    if (!e || !path) return tni_fail(TN_EVALUE, "export: the exporter or the path is NULL");
    if (!e->f.traces.n) return tni_fail(TN_EVALUE, "%s: export: nothing has been traced", path);
    char *own = text ? tni_strdup(text) : NULL;
    if (text && !own) return export_no_memory();
    tni_free(e->f.text);
    e->f.text = own;
    return tni_ex_save(&e->f, path);
}

int tn_export(const char *path, tn_fns fn, void *ud, tn_list in, int n_out) {
    tn_exporter *e = tn_exporter_new(fn, ud, n_out);
    if (!e) return tni_error_code();
    int status = tn_exporter_add(e, in);
    if (!status) status = tn_exporter_save(e, path, NULL);
    tn_exporter_free(e);
    return status;
}
