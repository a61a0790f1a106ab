/* Shape rules: every primitive's nodes agree with its rule; calls that make no sense get a status
 * and a sentence; and what a rule accepts, evaluation can run. Nothing a rule is given is believed,
 * since files bring it: random changes of every call are tried. */
#include "base/alloc.h"
#include "every.h"
#include <string.h>

static bool seen[TNI_OP_COUNT];
static int wrong_calls, accepted, refused, silent;

/* ---- a call that can be changed ---- */

enum { MOST_IN = 8 };

typedef struct call {
    const tni_prim *prim;
    _Alignas(8) char params[512];
    int n_in, n_out;
    tni_spec in[MOST_IN], out[TNI_MAX_OUT];
} call;

static tni_spec spec_of(const tn_array *a) {
    tni_spec s = {.dtype = tn_dtype_of(a), .ndim = a->ndim};
    memcpy(s.shape, a->shape, sizeof a->shape[0] * a->ndim);
    return s;
}

static bool call_of(const tni_node *n, call *c) {
    if (n->n_in > MOST_IN) return false;
    memset(c, 0, sizeof *c);
    c->prim = n->prim, c->n_in = n->n_in, c->n_out = n->n_out;
    memcpy(c->params, n->params, n->prim->params_size);
    for (int i = 0; i < n->n_in; i++) c->in[i] = spec_of(n->in[i]);
    for (int k = 0; k < n->n_out; k++)
        if (n->out[k]) c->out[k] = spec_of(n->out[k]);
    return true;
}

static int ask(const call *c, tni_spec *out) {
    tni_out_spec in[MOST_IN];
    for (int i = 0; i < MOST_IN; i++)
        in[i] = (tni_out_spec){c->in[i].dtype, c->in[i].ndim, c->in[i].shape};
    memcpy(out, c->out, sizeof c->out);
    tni_infer_call q = {c->prim->name, c->prim, c->params, c->n_in, c->n_out, in, out};
    return tni_infer(&q);
}

static int64_t elements(const tni_spec *s) {
    int64_t n = 1;
    for (int i = 0; i < s->ndim; i++)
        if (__builtin_mul_overflow(n, s->shape[i], &n)) return INT64_MAX;
    return n;
}

/* A call that the rule accepts is run: any status will do, a crash will not. */
static void run_call(const call *c, const tni_spec *out) {
    tn_array *in[MOST_IN], *y[TNI_MAX_OUT];
    tni_out_spec spec[TNI_MAX_OUT];
    int64_t total = 0;
    for (int i = 0; i < c->n_in; i++) total += elements(&c->in[i]) < 5000 ? 0 : 1;
    for (int k = 0; k < c->n_out; k++) total += elements(&out[k]) < 100000 ? 0 : 1;
    if (total || c->prim->id == TNI_OP_custom) return;
    TN_SCOPE {
        for (int i = 0; i < c->n_in; i++) {
            tn_ints shape = {c->in[i].shape, c->in[i].ndim};
            in[i] = tn_astype(tn_random_randint(tn_i32(0), tn_i32(4), shape, TN_I32, NULL),
                              c->in[i].dtype);
        }
        for (int k = 0; k < c->n_out; k++)
            spec[k] = (tni_out_spec){out[k].dtype, out[k].ndim, out[k].shape};
        if (tni_node_new(c->prim, c->n_in, in, c->params, c->n_out, spec, y)) break;
        for (int k = 0; k < c->n_out; k++) y[k] = tni_scope_own(y[k]);
        (void)!tn_eval((tn_list){y, c->n_out});
    }
}

static void try_call(const call *c) {
    tni_spec out[TNI_MAX_OUT];
    int status = ask(c, out);
    status ? refused++ : accepted++;
    if (status > 0 || (status && !*tn_error())) silent++;
    if (!status) run_call(c, out);
}

/* ---- changes ---- */

static void change_spec(tni_spec *s) {
    switch (below(4)) {
    case 0:
        s->dtype = (tn_dtype)below(TN_DTYPE_COUNT + 1);
        break;
    case 1:
        s->ndim = (int)below(6);
        for (int i = 0; i < s->ndim; i++)
            if (!s->shape[i]) s->shape[i] = 1 + below(4);
        break;
    default:
        if (s->ndim > 0 && s->ndim <= TN_MAX_NDIM)
            s->shape[below(s->ndim)] = below(8) ? below(9) : (int64_t)rnd() >> below(60);
    }
}

/* A number somewhere in the parameters, small or wild, of 1, 4 or 8 bytes. */
static void change_params(call *c) {
    size_t size = c->prim->params_size;
    static const size_t widths[] = {1, 4, 8};
    size_t width = widths[below(3)];
    if (size < width) return;
    int64_t v = below(4) ? below(12) - 4 : (int64_t)rnd() >> below(60);
    size_t at = (size_t)below((int64_t)(size / width)) * width;
    memcpy(c->params + at, &v, width);
}

static void change(call *c) {
    switch (below(5)) {
    case 0:
        if (c->prim->params_size && c->prim->id != TNI_OP_custom) change_params(c);
        break;
    case 1:
        change_spec(&c->out[below(c->n_out)]);
        break;
    default:
        if (c->n_in) change_spec(&c->in[below(c->n_in)]);
    }
}

static void try_changes(const call *good) {
    tni_spec out[TNI_MAX_OUT];
    for (int i = 0; i < 60; i++) {
        call c = *good;
        for (int64_t k = below(3); k >= 0; k--) change(&c);
        try_call(&c);
    }
    call c = *good;
    c.n_out = good->n_out + 1;
    wrong_calls += !ask(&c, out);
    c = *good;
    c.n_in = good->n_in - 1;
    if (c.prim->id != TNI_OP_concatenate && c.prim->id != TNI_OP_custom)
        wrong_calls += !ask(&c, out);
    c = *good;
    c.n_out = 0;
    wrong_calls += !ask(&c, out);
    c = *good;
    if (c.n_in) {
        c.in[0].ndim = TN_MAX_NDIM + 1;
        wrong_calls += !ask(&c, out);
    }
}

static void visit_node(const tn_array *a, int depth) {
    call c;
    if (tni_state_of(a) != TNI_LAZY || depth > 6) return;
    const tni_node *n = a->node;
    bool first = !seen[n->prim->id];
    seen[n->prim->id] = true;
    if ((first || n->prim->id < TNI_OP_EW) && call_of(n, &c)) try_changes(&c);
    for (int i = 0; i < n->n_in; i++) visit_node(n->in[i], depth + 1);
}

static void visit(const every_case *c) {
    TN_SCOPE {
        tn_array *in[EVERY_IN], *out[TNI_MAX_OUT];
        every_inputs(c, in, 0);
        int status = c->fn((tn_list){in, c->n_in}, out, c->n_out, (void *)(uintptr_t)c);
        for (int k = 0; k < c->n_out && !status; k++) status = tn_array_status(out[k]);
        if (!status) status = tn_graph_check((tn_list){out, c->n_out});
        ok(!status, "%s agrees with its rules", c->name);
        if (status) diag("%s", tn_error());
        for (int k = 0; k < c->n_out && !status; k++) visit_node(out[k], 0);
    }
}

static void test_every(void) {
    int missing = 0;
    every(visit);
    for (int i = 0; i < TNI_OP_COUNT; i++)
        if (tni_prims[i].name && !seen[i]) missing++, diag("no case of %s", tni_prims[i].name);
    is_i64(missing, 0, "every primitive has a case");
    is_i64(wrong_calls, 0, "a wrong number of inputs, outputs or axes is refused");
    is_i64(silent, 0, "every refusal says why");
    ok(accepted > 500 && refused > 1000, "%d changed calls were accepted and run, %d refused",
       accepted, refused);
}

/* ---- a node that lies ---- */

static void test_lie(void) {
    TN_SCOPE {
        tn_array *x = tn_ones(TN_SHAPE(2, 3), TN_F32);
        tn_array *y = tni_op1(TNI_PRIM_EW(TNI_EW_exp), 1, &x, NULL, TN_F32, 2, (int64_t[]){2, 4});
        is_i64(tn_graph_check(TN_LIST(y)), TN_EINTERNAL, "a node of another shape than its rule's");
        ok(strstr(tn_error(), "exp") && strstr(tn_error(), "[2,4]") && strstr(tn_error(), "[2,3]"),
           "says which and what: %s", tn_error());
        y = tni_op1(TNI_PRIM_EW(TNI_EW_exp), 1, &x, NULL, TN_F16, 2, x->shape);
        is_i64(tn_graph_check(TN_LIST(y)), TN_EINTERNAL, "one of another dtype");
        y = tni_op1(TNI_PRIM(transpose), 1, &x, &(tni_p_axes){{1, 1}}, TN_F32, 2, x->shape);
        is_i64(tn_graph_check(TN_LIST(y)), TN_EINTERNAL, "one of impossible parameters");
        tn_array *many[12];
        for (int i = 0; i < 12; i++) many[i] = x;
        y = tn_concatenate((tn_list){many, 12}, 0);
        is_i64(tn_graph_check(TN_LIST(y)), 0, "more inputs than are kept on the stack");
        for (int64_t n = 1; n < 50; n++) {
            tni_fail_alloc_at(n);
            int status = tn_graph_check(TN_LIST(y));
            tni_fail_alloc_at(0);
            if (!status) break;
            ok(status == TN_EMEMORY, "allocation %d of the check fails", (int)n);
        }
    }
}

int main(void) {
    test_every();
    test_lie();
    return tap_done();
}
