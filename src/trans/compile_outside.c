/* Lazy arrays of others that a traced function takes: evaluated where they are, before the graph is
 * simplified. Otherwise every plan would compute them for itself and keep a copy: weights that are
 * loaded or drawn lazily, once for each set of sizes. */
#include "base/alloc.h"
#include "base/err.h"
#include "eval/plan.h"
#include "trans/compile.h"

typedef struct outside_place {
    tni_node *node;
    int32_t next; /* input to look at next */
} outside_place;

typedef struct outside {
    uint64_t epoch;
    TNI_VEC(outside_place) stack;
    TNI_VEC(tni_node *) order; /* of what depends on no tracer, or may */
    TNI_VEC(int32_t)
    uses; /* of each output of those nodes, in the graph; -1: of a node that
             depends on a tracer */
    TNI_VEC(tn_array *) list;
} outside;

static int outside_no_memory(void) { return tni_fail_memory(sizeof(outside), "a compiled plan"); }

/* Tracers are leaves: marked, without a place among the uses. */
static int outside_enter(outside *o, const tn_array *a) {
    if (tni_state_of(a) != TNI_LAZY || a->node->mark == o->epoch) return 0;
    tni_node *n = a->node;
    n->mark = o->epoch, n->index = -1;
    if (n->out[0] && n->out[0]->flags & TNI_A_TRACER) return 0;
    return tni_vec_push(&o->stack, ((outside_place){n, 0})) ? outside_no_memory() : 0;
}

static bool outside_depends(const outside *o, const tn_array *a) {
    return tni_state_of(a) == TNI_LAZY && (a->node->index < 0 || o->uses.v[a->node->index] < 0);
}

/* All its inputs have been added. */
static int outside_add(outside *o, tni_node *n) {
    bool depends = false;
    n->index = (int32_t)o->uses.n;
    for (int i = 0; i < n->n_in; i++) {
        const tn_array *a = n->in[i];
        depends = depends || outside_depends(o, a);
        if (tni_state_of(a) == TNI_LAZY && !outside_depends(o, a))
            o->uses.v[a->node->index + a->out_index]++;
    }
    for (int k = 0; k < n->n_out; k++)
        if (tni_vec_push(&o->uses, depends ? -1 : 0)) return outside_no_memory();
    return depends || !tni_vec_push(&o->order, n) ? 0 : outside_no_memory();
}

static int outside_walk(outside *o, tn_array *root) {
    int status = outside_enter(o, root);
    while (!status && o->stack.n) {
        outside_place *top = &o->stack.v[o->stack.n - 1];
        if (top->next < top->node->n_in) {
            status = outside_enter(o, top->node->in[top->next++]);
        } else {
            status = outside_add(o, top->node);
            o->stack.n--;
        }
    }
    return status;
}

/* Somebody besides the graph holds it. */
static int outside_gather(outside *o) {
    for (size_t i = 0; i < o->order.n; i++) {
        const tni_node *n = o->order.v[i];
        for (int k = 0; k < n->n_out; k++) {
            tn_array *a = n->out[k];
            if (!a ||
                atomic_load_explicit(&a->refs, memory_order_relaxed) <= o->uses.v[n->index + k])
                continue;
            if (tni_vec_push(&o->list, a)) return outside_no_memory();
            tni_array_retain(a);
        }
    }
    return 0;
}

int tni_compiled_outside(int n, tn_array *const *results) {
    outside o = {.epoch = tni_plan_epoch()};
    int status = 0;
    for (int k = 0; k < n && !status; k++) status = outside_walk(&o, results[k]);
    if (!status) status = outside_gather(&o);
    if (!status) status = tn_eval((tn_list){o.list.v, (int)o.list.n});
    for (size_t i = 0; i < o.list.n; i++) tni_array_release(o.list.v[i]);
    tni_vec_free(&o.stack), tni_vec_free(&o.order);
    tni_vec_free(&o.uses), tni_vec_free(&o.list);
    return status;
}
