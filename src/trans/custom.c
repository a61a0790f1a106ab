/* Functions under derivative rules of their own: stop_gradient, custom_vjp, custom_jvp, checkpoint,
 * and custom_vmap. Each is one node that hands on the function's results and says how to go back,
 * or how to take many calls at once; forwards it moves no data. */
#include "base/alloc.h"
#include "base/err.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "ops/build.h"
#include "ops/random.h"
#include "ops/rules.h"
#include "ops/vmap.h"
#include "trans/call.h"
#include "trans/trace.h"
#include <string.h>

tn_array *tn_stop_gradient(tn_array *a) {
    TNI_INPUTS("stop_gradient", a);
    tni_p_custom p = {.n = 1, .kind = TNI_CUSTOM_STOP};
    return tni_op1(TNI_PRIM(custom), 1, &a, &p, (tn_dtype)a->dtype, a->ndim, a->shape);
}

/* ---- making the node ---- */

/* `key`: one more argument, or NULL. */
static int custom_node(const tni_p_custom *p, tn_list in, tn_array *key, tn_array **out) {
    tni_out_spec spec[TNI_MAX_OUT];
    int n = p->n + in.n;
    tn_array **all = tni_alloc_array((size_t)n + 1, sizeof *all);
    if (!all) return tni_fail_memory((size_t)(p->n + in.n) * sizeof *all, "a custom function");
    for (int k = 0; k < p->n; k++) {
        all[k] = out[k];
        spec[k] = (tni_out_spec){(tn_dtype)out[k]->dtype, out[k]->ndim, out[k]->shape};
    }
    for (int i = 0; i < in.n; i++) all[p->n + i] = in.v[i];
    if (key) all[n++] = key;
    int status = tni_node_new(TNI_PRIM(custom), n, all, p, p->n, spec, out);
    for (int k = 0; k < p->n && !status; k++) out[k] = tni_scope_own(out[k]);
    tni_free(all);
    return status;
}

static int custom_results(const char *op, tn_fns fn, const tni_p_custom *p, tn_list in,
                          tn_array **out) {
    int status = tni_call_inputs(op, "argument", in);
    if (!status && (p->n < 1 || p->n > TNI_MAX_OUT))
        status = tni_fail(TN_EVALUE, "%s: %d results; 1 to %d are allowed", op, p->n, TNI_MAX_OUT);
    if (!status && !p->vjp) status = tni_fail(TN_EVALUE, "%s: the rule is NULL", op);
    if (!status) status = tni_call_fns(op, fn, p->ud, in, p->n, out);
    return status;
}

static int custom_run(const char *op, tn_fns fn, const tni_p_custom *p, tn_list in,
                      tn_array **out) {
    tn_scope *s = tn_scope_begin();
    int status = custom_results(op, fn, p, in, out);
    if (!status) status = custom_node(p, in, NULL, out);
    return tni_call_leave(s, status, p->n, out);
}

int tn_custom_vjp(tn_fns fn, tn_vjp_rule rule, void *ud, tn_list in, int n_out, tn_array **out) {
    tni_p_custom p;
    memset(&p, 0, sizeof p);
    p.vjp = (void (*)(void))rule, p.ud = ud, p.n = n_out, p.kind = TNI_CUSTOM_VJP;
    return custom_run("custom_vjp", fn, &p, in, out);
}

int tn_custom_jvp(tn_fns fn, tn_jvp_rule rule, void *ud, tn_list in, int n_out, tn_array **out) {
    tni_p_custom p;
    memset(&p, 0, sizeof p);
    p.vjp = (void (*)(void))rule, p.ud = ud, p.n = n_out, p.kind = TNI_CUSTOM_JVP;
    return custom_run("custom_jvp", fn, &p, in, out);
}

int tn_checkpoint(tn_fns fn, void *ud, tn_list in, int n_out, tn_array **out) {
    tni_p_custom p;
    memset(&p, 0, sizeof p);
    p.vjp = (void (*)(void))fn, p.ud = ud, p.n = n_out, p.kind = TNI_CUSTOM_CHECKPOINT;
    tn_scope *s = tn_scope_begin();
    tn_array *key = tni_random_now();
    int status = tn_array_status(key);
    if (!status) status = custom_results("checkpoint", fn, &p, in, out);
    bool drawn = !status && tni_random_drawn(key);
    if (drawn) p.kind = TNI_CUSTOM_DRAWN;
    if (!status) status = custom_node(&p, in, drawn ? key : NULL, out);
    return tni_call_leave(s, status, n_out, out);
}

int tn_custom_vmap(tn_fns fn, tn_vmap_rule rule, void *ud, tn_list in, int n_out, tn_array **out) {
    tni_p_custom p;
    memset(&p, 0, sizeof p);
    p.vjp = (void (*)(void))rule, p.ud = ud, p.n = n_out, p.kind = TNI_CUSTOM_VMAP;
    return custom_run("custom_vmap", fn, &p, in, out);
}

/* ---- under vmap ---- */

/* A function of one call as one of many, `levels` times over. */
typedef struct custom_lift {
    tn_fns fn;
    void *ud;
    int64_t levels;
} custom_lift;

static int custom_lifted(tn_list in, tn_array **out, int n_out, void *ud) {
    const custom_lift *l = ud;
    if (!l->levels) return l->fn(in, out, n_out, l->ud);
    custom_lift inner = {l->fn, l->ud, l->levels - 1};
    int64_t size = 1, *axes = tni_alloc_array((size_t)in.n + 1, sizeof *axes);
    tn_array **x = tni_alloc_array((size_t)in.n + 1, sizeof *x);
    int status = axes && x ? 0 : tni_fail_memory((size_t)in.n * sizeof *x, "vmap");
    for (int i = 0; i < in.n; i++)
        if (in.v[i]->shape[0] != 1) size = in.v[i]->shape[0];
    for (int i = 0; i < in.n && !status; i++) {
        bool shared = in.v[i]->shape[0] != size;
        axes[i] = shared ? TN_UNMAPPED : 0;
        x[i] = shared ? tn_squeeze(in.v[i], TN_AXES(0)) : in.v[i];
        status = tn_array_status(x[i]);
    }
    if (!status)
        status = tn_vmap(custom_lifted, &inner, (tn_list){x, in.n}, (tn_ints){axes, in.n}, n_out,
                         TN_ALL, out);
    tni_free(axes), tni_free(x);
    return status;
}

/* ---- the caller's rule ---- */

typedef struct custom_rule {
    const tni_node *n;
    const tni_p_custom *p;
    int m; /* arguments */
} custom_rule;

/* What a rule gave for `like`: zeros filled in, the rest of the same dtypes and shapes. */
static int custom_fill(const char *what, tn_list like, tn_array **v) {
    for (int i = 0; i < like.n; i++) {
        tn_array *a = like.v[i], *g = v[i] ? v[i] : tn_zeros_like(a);
        v[i] = g;
        if (!tni_alive(g) || tni_is_error(g)) continue; /* the call says so */
        if (g->dtype != a->dtype || !tni_same_shape(a->ndim, a->shape, g->ndim, g->shape))
            return tni_fail(TN_ESHAPE, "%s %d is %s, but it is %s", what, i, tni_describe(g),
                            tni_describe(a));
    }
    return 0;
}

/* The rules as functions: (arguments, results, cotangents) to gradients, ... */
static int custom_call_vjp(tn_list in, tn_array **grad, int n_out, void *ud) {
    const custom_rule *r = ud;
    tn_list x = {in.v, n_out}, y = {in.v + r->m, r->p->n}, cot = {in.v + r->m + r->p->n, r->p->n};
    int status = ((tn_vjp_rule)r->p->vjp)(x, y, cot, grad, r->p->ud);
    return status ? status : custom_fill("custom_vjp: the gradient of argument", x, grad);
}

/* ... (arguments, results, tangents) to tangents of the results, ... */
static int custom_call_jvp(tn_list in, tn_array **out, int n_out, void *ud) {
    const custom_rule *r = ud;
    tn_list x = {in.v, r->m}, y = {in.v + r->m, n_out}, tan = {in.v + r->m + n_out, r->m};
    int status = ((tn_jvp_rule)r->p->vjp)(x, y, tan, out, r->p->ud);
    return status ? status : custom_fill("custom_jvp: the tangent of result", y, out);
}

/* ... and the second turned into the first: it is linear in the tangents. */
static int custom_call_transposed(tn_list in, tn_array **grad, int m, void *ud) {
    const custom_rule *r = ud;
    int n = r->p->n, status = 0;
    tn_array *dy[TNI_MAX_OUT], **u = tni_calloc((size_t)(3 * m + n) + 1, sizeof *u);
    if (!u) return tni_fail_memory((size_t)m * sizeof *u, "custom_jvp");
    tn_array **all = u + m;
    for (int i = 0; i < m && !status; i++) status = tn_array_status(u[i] = tn_zeros_like(in.v[i]));
    tni_trace t = {0};
    if (!status) status = tni_trace_open(&t, m, u);
    for (int i = 0; i < m + n; i++) all[i] = in.v[i];
    for (int i = 0; i < m && !status; i++) all[m + n + i] = t.tracer[i];
    if (!status)
        status = tni_call_fns("custom_jvp", custom_call_jvp, ud, (tn_list){all, 2 * m + n}, n, dy);
    if (!status) status = tni_trace_walk(&t, n, dy);
    if (!status) status = tni_trace_reverse(&t, in.v + m + n, NULL, grad);
    tni_trace_free(&t);
    tni_free(u);
    return status ? status
                  : custom_fill("custom_jvp: the gradient of argument", (tn_list){in.v, m}, grad);
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
static int custom_traced(const char *op, custom_lift *lift, int n_in, tn_array **x, int n_out,
                         tn_array **out) {
    tni_trace t = {0};
    int status = tni_trace_open(&t, n_in, x);
    if (!status)
        status = tni_call_fns(op, custom_lifted, lift, (tn_list){t.tracer, n_in}, n_out, out);
    if (!status) status = tni_trace_walk(&t, n_out, out);
    for (int k = 0; k < n_out && !status; k++) out[k] = t.out[k];
    tni_trace_free(&t);
    return status;
}

/* Arguments, then results, then room for `more` arrays. The results are the node's own, not what
 * its function computed: what a rule made of them is differentiated by the rule again. */
static tn_array **custom_values(const tni_node *n, const tni_p_custom *p, int more) {
    int m = n->n_in - p->n;
    tn_array **x = tni_calloc((size_t)(n->n_in + more), sizeof *x);
    if (!x) return tni_fail_memory((size_t)n->n_in * sizeof *x, "a custom rule"), NULL;
    for (int i = 0; i < m; i++) x[i] = n->in[p->n + i];
    int status = 0;
    for (int k = 0; k < p->n && !status; k++)
        status = tn_array_status(x[m + k] = tni_array_adopt((tni_node *)(uintptr_t)n, k));
    if (!status) return x;
    tni_fail_memory(sizeof(tn_array), "a custom rule");
    tni_free(x);
    return NULL;
}

static int custom_vjp(const tni_node *n, const tni_p_custom *p, tn_array *const *cot,
                      tn_array **grad) {
    bool jvp = p->kind == TNI_CUSTOM_JVP;
    custom_rule r = {n, p, n->n_in - p->n};
    custom_lift lift = {jvp ? custom_call_transposed : custom_call_vjp, &r, p->levels};
    tn_array **x = custom_values(n, p, p->n);
    if (!x) return TN_EMEMORY;
    int status = custom_cot(n, cot, p->n, x + n->n_in);
    if (!status)
        status = custom_traced(jvp ? "custom_jvp" : "custom_vjp", &lift, n->n_in + p->n, x, r.m,
                               grad + p->n);
    for (int i = 0; i < r.m && !status && p->levels; i++)
        grad[p->n + i] = tni_sum_like(grad[p->n + i], x[i]); /* over calls that share it */
    tni_free(x);
    return status;
}

static int custom_jvp(const tni_node *n, const tni_p_custom *p, tn_array *const *tan,
                      tn_array **out) {
    custom_rule r = {n, p, n->n_in - p->n};
    custom_lift lift = {custom_call_jvp, &r, p->levels};
    tn_array **x = custom_values(n, p, r.m);
    if (!x) return TN_EMEMORY;
    int status = 0;
    for (int i = 0; i < r.m && !status; i++) {
        x[n->n_in + i] = tan[p->n + i] ? tan[p->n + i] : tn_zeros_like(x[i]);
        status = tn_array_status(x[n->n_in + i]);
    }
    if (!status) status = custom_traced("custom_jvp", &lift, n->n_in + r.m, x, p->n, out);
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

/* A checkpoint's function and the key that its last argument is: what it draws is what it drew. */
typedef struct custom_drawn {
    tn_fns fn;
    void *ud;
} custom_drawn;

static int custom_redraw(tn_list in, tn_array **out, int n_out, void *ud) {
    const custom_drawn *d = ud;
    tn_array *key = tn_keep(in.v[in.n - 1]), **outer = tni_random_trace(&key);
    int status = d->fn((tn_list){in.v, in.n - 1}, out, n_out, d->ud);
    tni_random_trace(outer);
    tn_drop(key);
    return status;
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
    custom_drawn drawn = {(tn_fns)p->vjp, p->ud};
    custom_lift lift = {drawn.fn, drawn.ud, p->levels};
    if (p->kind == TNI_CUSTOM_DRAWN) lift.fn = custom_redraw, lift.ud = &drawn;
    tni_trace t = {0};
    if (!status) status = tni_trace_open(&t, m, x);
    if (!status)
        status = tni_call_fns("checkpoint", custom_lifted, &lift, (tn_list){t.tracer, m}, p->n, y);
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
    if (p->kind < TNI_CUSTOM_STOP || p->kind > TNI_CUSTOM_DRAWN)
        return tni_fail(TN_EVALUE, "%s: no kind %d", c->op, p->kind);
    for (int k = 0; k < p->n; k++)
        tni_infer_out(c, k, c->in[k].dtype, c->in[k].ndim, c->in[k].shape);
    return 0;
}

static int custom_lost(void) {
    return tni_fail(TN_EVALUE, "custom_vjp: an imported function has lost the rule for its "
                               "derivative, which was code and not in the file");
}

TNI_RULE_VJP(custom) {
    const tni_p_custom *p = n->params;
    switch (p->kind) {
    case TNI_CUSTOM_VJP:
    case TNI_CUSTOM_JVP:
        return custom_vjp(n, p, cot, grad);
    case TNI_CUSTOM_CHECKPOINT:
    case TNI_CUSTOM_DRAWN:
        return custom_again(n, p, cot, want, grad);
    case TNI_CUSTOM_AFTER:
    case TNI_CUSTOM_VMAP:
        for (int k = 0; k < p->n; k++) grad[k] = cot[k];
        return 0;
    case TNI_CUSTOM_LOST:
        return custom_lost();
    default:
        return 0;
    }
}

TNI_RULE_JVP(custom) {
    const tni_p_custom *p = n->params;
    if (p->kind == TNI_CUSTOM_LOST) return custom_lost();
    if (p->kind == TNI_CUSTOM_VJP) return TNI_BY_VJP;
    if (p->kind == TNI_CUSTOM_JVP) return custom_jvp(n, p, tan, out);
    for (int k = 0; k < p->n && p->kind != TNI_CUSTOM_STOP; k++) out[k] = tan[k];
    return 0;
}

/* A vmap rule as a function, results moved to where all rules have them. */
typedef struct custom_map {
    const tni_node *n;
    int64_t size, *axes;
} custom_map;

static int custom_call_map(tn_list in, tn_array **out, int n_out, void *ud) {
    const custom_map *m = ud;
    const tni_p_custom *p = m->n->params;
    (void)n_out;
    int64_t axes[TNI_MAX_OUT] = {0};
    tn_vmap_rule rule = (tn_vmap_rule)p->vjp;
    int status = rule(in, (tn_ints){m->axes, in.n}, out, axes, p->ud);
    if (status && !*tn_error()) tni_fail(status, "custom_vmap: the rule returned %d", status);
    return status ? status : tni_call_stacks("custom_vmap", m->n, m->size, axes, out);
}

static int custom_vmap(const tni_node *n, int64_t size, tn_array *const *in, tn_array **out) {
    const tni_p_custom *p = n->params;
    int m = n->n_in - p->n;
    custom_map map = {.n = n, .size = size};
    map.axes = tni_alloc_array((size_t)m + 1, sizeof *map.axes);
    if (!map.axes) return tni_fail_memory((size_t)m * sizeof *map.axes, "custom_vmap");
    for (int i = 0; i < m; i++) map.axes[i] = tni_stacked(n, in, p->n + i) ? 0 : TN_UNMAPPED;
    int status =
        tni_call_fns("custom_vmap", custom_call_map, &map, (tn_list){in + p->n, m}, p->n, out);
    tni_free(map.axes);
    return status;
}

/* One more axis of calls. */
static int custom_level(const tni_node *n, int64_t size, tn_array *const *in, tn_array **out) {
    tni_p_custom p = *(const tni_p_custom *)n->params;
    tn_array **v = tni_alloc_array((size_t)n->n_in, sizeof *v);
    if (!v) return tni_fail_memory((size_t)n->n_in * sizeof *v, "vmap");
    for (int i = 0; i < n->n_in; i++)
        v[i] = i < p.n || tni_stacked(n, in, i)
                   ? tni_stack_of(n, size, in, i)
                   : tni_stack_shape(in[i], 1, in[i]->ndim, in[i]->shape);
    p.levels++;
    int status = tni_stack_node(n, size, v, &p, out);
    tni_free(v);
    return status;
}

TNI_RULE_VMAP(custom) {
    const tni_p_custom *p = n->params;
    if (p->kind == TNI_CUSTOM_VMAP) return custom_vmap(n, size, in, out);
    if (p->kind == TNI_CUSTOM_VJP || p->kind == TNI_CUSTOM_JVP ||
        p->kind == TNI_CUSTOM_CHECKPOINT || p->kind == TNI_CUSTOM_DRAWN ||
        p->kind == TNI_CUSTOM_LOST)
        return custom_level(n, size, in, out);
    return tni_stack_node(n, tni_stacked(n, in, 0) ? size : -1, in, p, out);
}
