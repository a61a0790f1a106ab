/* The graph below a list of arrays: checked, printed, drawn. Walks are iterative; nodes are told
 * apart by a mark of their own, so they number them too. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/str.h"
#include "base/vec.h"
#include "core/dtype.h"
#include "core/prim.h"
#include "core/shape.h"

typedef TNI_VEC(tni_node *) graph_nodes;

typedef struct graph_step {
    tni_node *node;
    int32_t next;
} graph_step;

/* Marks of this walk and of evaluation's come from one sequence: bit 63 keeps them apart. */
static _Atomic uint64_t graph_epoch = (uint64_t)1 << 63;

static int graph_visit(graph_nodes *order, tni_node *root, uint64_t mark) {
    TNI_VEC(graph_step) stack = {0};
    int status = 0;
    if (root->mark != mark)
        root->mark = mark, status = tni_vec_push(&stack, ((graph_step){root, 0}));
    while (!status && stack.n) {
        graph_step *top = &stack.v[stack.n - 1];
        if (top->next == top->node->n_in) {
            top->node->index = (int32_t)order->n;
            status = tni_vec_push(order, top->node);
            stack.n--;
            continue;
        }
        const tn_array *a = top->node->in[top->next++];
        if (tni_state_of(a) != TNI_LAZY || a->node->mark == mark) continue;
        a->node->mark = mark;
        status = tni_vec_push(&stack, ((graph_step){a->node, 0}));
    }
    tni_vec_free(&stack);
    return status;
}

static int graph_collect(tn_list list, graph_nodes *order) {
    uint64_t mark = 1 + atomic_fetch_add_explicit(&graph_epoch, 1, memory_order_relaxed);
    int status = 0;
    for (int i = 0; i < list.n && !status; i++) {
        if (!tni_alive(list.v[i]))
            return tni_fail(TN_ESTATE, "graph: array %d of the list is NULL or was freed", i);
        if (tni_state_of(list.v[i]) == TNI_LAZY) status = graph_visit(order, list.v[i]->node, mark);
    }
    return status ? tni_fail_memory(sizeof(graph_step), "walking the graph") : 0;
}

/* ---- checking ---- */

static int graph_check_array(const tni_node *n, const tn_array *a, const char *role) {
    int64_t size;
    char s[TNI_SHAPE_STR];
    if (!a || !tni_alive(a))
        return tni_fail(TN_EINTERNAL, "graph: an %s of %s is gone", role, n->prim->name);
    if (tni_is_error(a))
        return tni_fail(TN_EINTERNAL, "graph: an %s of %s is an error: %s", role, n->prim->name,
                        tn_array_error(a));
    if (a->ndim > TN_MAX_NDIM || a->dtype >= TN_DTYPE_COUNT ||
        !tni_shape_size(a->ndim, a->shape, &size) || size != a->size)
        return tni_fail(TN_EINTERNAL, "graph: an %s of %s has shape %s and %lld elements", role,
                        n->prim->name, tni_shape_str(a->ndim, a->shape, s, sizeof s),
                        (long long)a->size);
    return 0;
}

static int graph_check_node(const tni_node *n) {
    int32_t live = 0;
    for (int32_t i = 0; i < n->n_in; i++) {
        int status = graph_check_array(n, n->in[i], "input");
        if (status) return status;
        if (tni_state_of(n->in[i]) == TNI_LAZY && n->in[i]->node->index >= n->index)
            return tni_fail(TN_EINTERNAL, "graph: %s depends on itself", n->prim->name);
    }
    for (int32_t i = 0; i < n->n_out; i++) {
        const tn_array *a = n->out[i];
        if (!a) continue;
        int status = graph_check_array(n, a, "output");
        if (status) return status;
        live += a->node == n;
        if (a->node && (a->node != n || a->out_index != i))
            return tni_fail(TN_EINTERNAL, "graph: output %d of %s belongs elsewhere", i,
                            n->prim->name);
    }
    if (live == atomic_load(&((tni_node *)(uintptr_t)n)->refs)) return tni_infer_node(n);
    return tni_fail(TN_EINTERNAL, "graph: %s counts %d outputs, %d are there", n->prim->name,
                    atomic_load(&((tni_node *)(uintptr_t)n)->refs), live);
}

int tn_graph_check(tn_list list) {
    graph_nodes order = {0};
    int status = graph_collect(list, &order);
    for (size_t i = 0; i < order.n && !status; i++) status = graph_check_node(order.v[i]);
    tni_vec_free(&order);
    return status;
}

/* ---- text ---- */

static int graph_put_operand(tni_str *s, const tn_array *a) {
    char shape[TNI_SHAPE_STR];
    if (tni_state_of(a) == TNI_LAZY) return tni_str_printf(s, "%%%d", a->node->index);
    return tni_str_printf(s, "%s%s", tn_dtype_name((tn_dtype)a->dtype),
                          tni_shape_str(a->ndim, a->shape, shape, sizeof shape));
}

static int graph_put_node(tni_str *s, const tni_node *n) {
    char shape[TNI_SHAPE_STR];
    const tn_array *out = NULL;
    for (int i = 0; i < n->n_out && !out; i++) out = n->out[i];
    int status = tni_str_printf(s, "%%%d = %s(", n->index, n->prim->name);
    for (int i = 0; i < n->n_in && !status; i++) {
        if (i) status = tni_str_puts(s, ", ");
        if (!status) status = graph_put_operand(s, n->in[i]);
    }
    if (status) return status;
    return tni_str_printf(s, ") : %s%s\n", tn_dtype_name((tn_dtype)out->dtype),
                          tni_shape_str(out->ndim, out->shape, shape, sizeof shape));
}

/* ---- for Graphviz: nodes n0 .., arrays with values a0 .., results r0 .., numbered in order ----
 */

typedef struct graph_drawing {
    tni_str s;
    tni_map leaves; /* array to its number */
} graph_drawing;

static int graph_dot_label(graph_drawing *d, const tn_array *a) {
    char shape[TNI_SHAPE_STR];
    if (tni_state_of(a) == TNI_READY && !a->buf && !a->ndim && a->dtype != TN_C64) {
        const void *v = tni_array_data(a);
        return tni_is_int((tn_dtype)a->dtype)
                   ? tni_str_printf(&d->s, "%lld\\n",
                                    (long long)tni_load_i64((tn_dtype)a->dtype, v))
                   : tni_str_printf(&d->s, "%g\\n", tni_load_f64((tn_dtype)a->dtype, v));
    }
    return tni_str_printf(&d->s, "%s ", tni_shape_str(a->ndim, a->shape, shape, sizeof shape));
}

/* The number of an array with a value, which is drawn when it is new. *at outlives the drawing. */
static int graph_dot_leaf(graph_drawing *d, tn_array *const *at, int64_t *number) {
    if (tni_map_get(&d->leaves, (const char *)at, sizeof *at, number)) return 0;
    *number = (int64_t)d->leaves.n;
    int status = tni_map_put(&d->leaves, (const char *)at, sizeof *at, *number);
    if (!status) status = tni_str_printf(&d->s, "  a%lld [shape=box, label=\"", (long long)*number);
    if (!status) status = graph_dot_label(d, *at);
    return status ? status
                  : tni_str_printf(&d->s, "%s\"];\n", tn_dtype_name((tn_dtype)(*at)->dtype));
}

/* An arrow to node n or result r; which output, where a node has several. */
static int graph_dot_arrow(graph_drawing *d, tn_array *const *at, char kind, int to) {
    const tn_array *a = *at;
    int64_t leaf;
    if (tni_state_of(a) != TNI_LAZY) {
        int status = graph_dot_leaf(d, at, &leaf);
        return status ? status
                      : tni_str_printf(&d->s, "  a%lld -> %c%d;\n", (long long)leaf, kind, to);
    }
    if (a->node->n_out == 1)
        return tni_str_printf(&d->s, "  n%d -> %c%d;\n", a->node->index, kind, to);
    return tni_str_printf(&d->s, "  n%d -> %c%d [label=\"%d\"];\n", a->node->index, kind, to,
                          a->out_index);
}

static int graph_dot_node(graph_drawing *d, const tni_node *n) {
    char shape[TNI_SHAPE_STR];
    const tn_array *out = NULL;
    for (int i = 0; i < n->n_out && !out; i++) out = n->out[i];
    int status = tni_str_printf(&d->s, "  n%d [label=\"%s\\n%s %s\"];\n", n->index, n->prim->name,
                                tni_shape_str(out->ndim, out->shape, shape, sizeof shape),
                                tn_dtype_name((tn_dtype)out->dtype));
    for (int i = 0; i < n->n_in && !status; i++)
        status = graph_dot_arrow(d, &n->in[i], 'n', n->index);
    return status;
}

static int graph_dot(graph_drawing *d, tn_list list, const graph_nodes *order) {
    int status = tni_str_puts(&d->s, "digraph tenon {\n");
    for (size_t i = 0; i < order->n && !status; i++) status = graph_dot_node(d, order->v[i]);
    for (int i = 0; i < list.n && !status; i++) {
        status = tni_str_printf(&d->s, "  r%d [shape=plaintext, label=\"result %d\"];\n", i, i);
        if (!status) status = graph_dot_arrow(d, &list.v[i], 'r', i);
    }
    return status ? status : tni_str_puts(&d->s, "}\n");
}

/* ---- */

static char *graph_finish(int status, int failed, graph_nodes *order, tni_str *s) {
    tni_vec_free(order);
    if (!status && !failed) return s->v;
    if (failed) tni_fail_memory(s->n, "the graph's text");
    tni_str_free(s);
    return NULL;
}

char *tn_graph_print(tn_list list) {
    graph_nodes order = {0};
    tni_str s = {0};
    int status = graph_collect(list, &order), failed = 0;
    if (!status) failed = tni_str_puts(&s, "");
    for (size_t i = 0; i < order.n && !status && !failed; i++)
        failed = graph_put_node(&s, order.v[i]);
    return graph_finish(status, failed, &order, &s);
}

char *tn_graph_dot(tn_list list) {
    graph_nodes order = {0};
    graph_drawing d = {0};
    int status = graph_collect(list, &order), failed = status ? 0 : graph_dot(&d, list, &order);
    tni_map_free(&d.leaves);
    return graph_finish(status, failed, &order, &d.s);
}
