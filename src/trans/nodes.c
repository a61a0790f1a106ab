/* Depth first, with a stack of its own. */
#include "trans/nodes.h"
#include "base/err.h"

typedef struct nodes_place {
    tni_node *node;
    int32_t next; /* input to look at next */
} nodes_place;
typedef TNI_VEC(nodes_place) nodes_stack;

static int nodes_no_memory(void) { return tni_fail_memory(sizeof(nodes_place), "a graph's order"); }

/* A tracer belongs to the trace that is open, or to one around it. */
static int nodes_enter(tni_nodes *l, nodes_stack *stack, const tn_array *a) {
    if (tni_state_of(a) != TNI_LAZY || a->node->mark == l->epoch) return 0;
    tni_node *n = a->node;
    n->mark = l->epoch;
    n->index = -1;
    if (n->out[0] && n->out[0]->flags & TNI_A_TRACER) return 0;
    return tni_vec_push(stack, ((nodes_place){n, 0})) ? nodes_no_memory() : 0;
}

static int nodes_put(tni_nodes *l, tni_node *n) {
    if (l->n_slots > INT32_MAX - n->n_out)
        return tni_fail(TN_EVALUE, "a graph of more than %d values", INT32_MAX - TNI_MAX_OUT);
    n->index = (int32_t)l->n_slots;
    l->n_slots += n->n_out;
    return tni_vec_push(&l->order, n) ? nodes_no_memory() : 0;
}

int tni_nodes_add(tni_nodes *l, const tn_array *root) {
    nodes_stack stack = {0};
    int status = nodes_enter(l, &stack, root);
    while (!status && stack.n) {
        nodes_place *top = &stack.v[stack.n - 1];
        if (top->next < top->node->n_in) {
            status = nodes_enter(l, &stack, top->node->in[top->next++]);
            continue;
        }
        status = nodes_put(l, top->node);
        stack.n--;
    }
    tni_vec_free(&stack);
    return status;
}

void tni_nodes_free(tni_nodes *l) { tni_vec_free(&l->order); }
