/* The simplifier's pass: the old graph in order, each node made anew over what its inputs became,
 * through the rules and a table of what was made already. */
#include "trans/simplify.h"
#include "base/alloc.h"
#include "base/err.h"
#include "eval/plan.h"
#include "ops/op.h"
#include "trans/simp.h"
#include "trans/simp_table.h"
#include <stdlib.h>
#include <string.h>

static int simplify_no_memory(void) { return tni_fail_memory(sizeof(tni_simp), "simplifying"); }

/* ---- the arguments ---- */

static int simplify_compare(const void *pa, const void *pb) {
    uintptr_t a = (uintptr_t) * (tn_array *const *)pa, b = (uintptr_t) * (tn_array *const *)pb;
    return (a > b) - (a < b);
}

/* A node that gives an argument is a leaf: mark without a slot. */
static int simplify_arguments(tni_simp *s, int n, tn_array *const *in) {
    s->in = tni_alloc_array((size_t)n + 1, sizeof *s->in);
    if (!s->in) return simplify_no_memory();
    for (int i = 0; i < n; i++) {
        s->in[s->n_in++] = in[i];
        if (tni_state_of(in[i]) == TNI_LAZY)
            in[i]->node->mark = s->old.epoch, in[i]->node->index = -1;
    }
    qsort(s->in, (size_t)n, sizeof *s->in, simplify_compare);
    return 0;
}

static bool simplify_is_argument(const tni_simp *s, const tn_array *a) {
    return s->n_in && bsearch(&a, s->in, (size_t)s->n_in, sizeof *s->in, simplify_compare);
}

bool tni_simp_constant(const tni_simp *s, const tn_array *a) {
    return tni_state_of(a) == TNI_READY && !simplify_is_argument(s, a);
}

bool tni_simp_uniform_is(const tni_simp *s, const tn_array *a) {
    return tni_simp_constant(s, a) && !a->buf && a->size > 0;
}

bool tni_simp_made(const tni_simp *s, const tn_array *a) {
    return tni_state_of(a) == TNI_LAZY && a->node->mark == s->new_epoch;
}

const tni_node *tni_simp_is(const tni_simp *s, const tn_array *a, int id) {
    return tni_simp_made(s, a) && a->node->prim->id == id ? a->node : NULL;
}

/* ---- the new graph ---- */

/* What `a` of the old graph became. */
static tn_array *simplify_value(tni_simp *s, tn_array *a) {
    if (tni_state_of(a) == TNI_LAZY)
        return a->node->index >= 0 ? s->value[a->node->index + a->out_index] : a;
    return tni_simp_constant(s, a) ? tni_simp_intern(s, a) : a;
}

static bool simplify_drops_custom(const tni_node *n) {
    return n->prim->id == TNI_OP_custom &&
           ((const tni_p_custom *)n->params)->kind != TNI_CUSTOM_AFTER;
}

static void simplify_node(tni_simp *s, tni_node *n, tn_array **in) {
    tn_array **value = s->value + n->index;
    s->stream = n->stream;
    for (int i = 0; i < n->n_in && !s->status; i++) in[i] = simplify_value(s, n->in[i]);
    if (s->fold && !s->status) tni_simp_fold_inputs(s, n, in);
    if (s->status) return;
    if (simplify_drops_custom(n)) {
        for (int k = 0; k < n->n_out; k++) value[k] = in[k];
        return;
    }
    tni_out_spec spec[TNI_MAX_OUT];
    for (int k = 0; k < n->n_out; k++) {
        const tn_array *y = n->out[k]; /* NULL: had a value once; of no use to anybody */
        spec[k] = y ? (tni_out_spec){(tn_dtype)y->dtype, y->ndim, y->shape}
                    : (tni_out_spec){TN_F32, 0, NULL};
    }
    if (n->n_out > 1) {
        tni_simp_node(s, n->prim, n->n_in, in, n->params, n->n_out, spec, value);
        return;
    }
    tni_simp_op op = {n->prim, n->n_in, in, n->params, spec[0].dtype, spec[0].ndim, spec[0].shape};
    value[0] = tni_simp_make(s, &op);
    if (s->fold && !s->status) value[0] = tni_simp_fold_output(s, n, value[0]);
}

static void simplify_pass(tni_simp *s) {
    int32_t most = 0;
    for (size_t i = 0; i < s->old.order.n; i++)
        if (s->old.order.v[i]->n_in > most) most = s->old.order.v[i]->n_in;
    tn_array **in = tni_alloc_array((size_t)most + 1, sizeof *in);
    s->value = tni_alloc_array((size_t)s->old.n_slots + 1, sizeof *s->value);
    if (!in || !s->value) s->status = simplify_no_memory();
    for (size_t i = 0; i < s->old.order.n && !s->status; i++)
        simplify_node(s, s->old.order.v[i], in);
    tni_free(in);
}

/* Weak numbers and strong ones are the same inside the graph, but not to the caller. */
static tn_array *simplify_weakness(tni_simp *s, tn_array *y, uint8_t weak) {
    tni_out_spec spec = {(tn_dtype)y->dtype, y->ndim, y->shape};
    if (tni_vec_reserve(&s->made, s->made.n + 1)) s->status = simplify_no_memory();
    if (!s->status && !tni_simp_uniform_is(s, y))
        s->status = tni_node_new(TNI_PRIM(contiguous), 1, &y, NULL, 1, &spec, &y);
    else if (!s->status && (y = tni_simp_number(s, (tn_dtype)y->dtype, y->inl, y->ndim, y->shape)))
        y->flags |= weak;
    if (s->status) return NULL;
    return s->made.v[s->made.n++] = y;
}

static tn_array *simplify_result(tni_simp *s, tn_array *a) {
    tn_array *y = simplify_value(s, a);
    if (s->fold && !s->status) y = tni_simp_fold_take(s, a, y);
    if (s->status || !((y->flags ^ a->flags) & TNI_A_WEAK)) return y;
    return simplify_weakness(s, y, a->flags & TNI_A_WEAK);
}

/* Hands the results to the current scope: all or none. */
static int simplify_finish(tni_simp *s, int n_out, tn_array **out) {
    tn_array **y = tni_alloc_array((size_t)n_out + 1, sizeof *y);
    if (!y) s->status = simplify_no_memory();
    for (int k = 0; k < n_out && !s->status; k++) {
        y[k] = simplify_result(s, out[k]);
        if (!s->status && tni_is_error(y[k] = tni_scope_again(y[k]))) s->status = y[k]->status;
    }
    for (int k = 0; k < n_out && !s->status; k++) out[k] = y[k];
    tni_free(y);
    return s->status;
}

static void simplify_free(tni_simp *s) {
    for (size_t i = s->made.n; i-- > 0;) tni_array_release(s->made.v[i]);
    tni_vec_free(&s->made);
    tni_nodes_free(&s->old);
    tni_free(s->in);
    tni_free(s->value);
    tni_free(s->table);
    tni_simp_fold_free(s);
}

static int simplify_once(int n_in, tn_array *const *in, int n_out, tn_array **out, bool fold) {
    tni_simp s = {.old.epoch = tni_plan_epoch()};
    s.new_epoch = tni_plan_epoch();
    s.status = simplify_arguments(&s, n_in, in);
    for (int k = 0; k < n_out && !s.status; k++) s.status = tni_nodes_add(&s.old, out[k]);
    if (!s.status && fold) tni_simp_fold_open(&s, n_out, out);
    if (!s.status) simplify_pass(&s);
    if (!s.status) simplify_finish(&s, n_out, out);
    simplify_free(&s);
    return s.status;
}

int tni_simplify(int n_in, tn_array *const *in, int n_out, tn_array **out, bool fold) {
    if (!fold) return simplify_once(n_in, in, n_out, out, false);
    tn_array **y = tni_alloc_array((size_t)n_out + 1, sizeof *y);
    if (!y) return simplify_no_memory();
    for (int k = 0; k < n_out; k++) y[k] = out[k];
    int status = simplify_once(n_in, in, n_out, y, false);
    if (!status) status = simplify_once(n_in, in, n_out, y, true);
    for (int k = 0; k < n_out && !status; k++) out[k] = y[k];
    tni_free(y);
    return status;
}
