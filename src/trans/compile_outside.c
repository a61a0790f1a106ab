/* Lazy arrays of others that a traced function takes: evaluated where they are, before the graph is
 * simplified. Otherwise every plan would compute them for itself and keep a copy: weights that are
 * loaded or drawn lazily, once for each set of sizes. */
#include "base/alloc.h"
#include "base/err.h"
#include "eval/plan.h"
#include "trans/compile.h"
#include "trans/nodes.h"

typedef struct outside {
    tni_nodes nodes;
    TNI_VEC(int32_t) uses; /* of each output, in the graph; -1: it depends on a tracer */
    TNI_VEC(tn_array *) list;
} outside;

static int outside_no_memory(void) { return tni_fail_memory(sizeof(outside), "a compiled plan"); }

static bool outside_depends(const outside *o, const tn_array *a) {
    return tni_state_of(a) == TNI_LAZY && (a->node->index < 0 || o->uses.v[a->node->index] < 0);
}

/* In order: what its inputs depend on is known. */
static int outside_count(outside *o, const tni_node *n) {
    bool depends = false;
    for (int i = 0; i < n->n_in; i++) {
        const tn_array *a = n->in[i];
        if (outside_depends(o, a))
            depends = true;
        else if (tni_state_of(a) == TNI_LAZY)
            o->uses.v[a->node->index + a->out_index]++;
    }
    for (int k = 0; k < n->n_out; k++)
        if (tni_vec_push(&o->uses, depends ? -1 : 0)) return outside_no_memory();
    return 0;
}

/* Somebody besides the graph holds it. */
static int outside_gather(outside *o, const tni_node *n) {
    for (int k = 0; k < n->n_out; k++) {
        tn_array *a = n->out[k];
        int32_t uses = o->uses.v[n->index + k];
        if (uses < 0 || !a || atomic_load_explicit(&a->refs, memory_order_relaxed) <= uses)
            continue;
        if (tni_vec_push(&o->list, a)) return outside_no_memory();
        tni_array_retain(a);
    }
    return 0;
}

int tni_compiled_outside(int n, tn_array *const *results) {
    outside o = {.nodes.epoch = tni_plan_epoch()};
    const tni_nodes *l = &o.nodes;
    int status = 0;
    for (int k = 0; k < n && !status; k++) status = tni_nodes_add(&o.nodes, results[k]);
    for (size_t i = 0; i < l->order.n && !status; i++) status = outside_count(&o, l->order.v[i]);
    for (size_t i = 0; i < l->order.n && !status; i++) status = outside_gather(&o, l->order.v[i]);
    if (!status) status = tn_eval((tn_list){o.list.v, (int)o.list.n});
    for (size_t i = 0; i < o.list.n; i++) tni_array_release(o.list.v[i]);
    tni_nodes_free(&o.nodes);
    tni_vec_free(&o.uses), tni_vec_free(&o.list);
    return status;
}
