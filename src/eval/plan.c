/* Planning: order the graph without recursion, then group it from the results back.
 *
 * An element-wise node joins the group of its consumers when all of them are in one group
 * of the same loop shape; otherwise it starts a group of its own. Since every consumer of a
 * member is in the group, no path leaves a group and comes back, so groups can run whole, each
 * in the place of its last node. A member that somebody else needs too becomes one more
 * output; one that only an open scope holds is not stored: it stays lazy and costs a
 * recomputation if it is asked for after all. */
#include "eval/plan.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/vec.h"
#include "core/shape.h"
#include "eval/program.h"

static _Atomic uint64_t plan_epoch;

uint64_t tni_plan_epoch(void) {
    return 1 + atomic_fetch_add_explicit(&plan_epoch, 1, memory_order_relaxed);
}

void tni_plan_init(tni_plan *p) {
    p->epoch = tni_plan_epoch();
    p->order = p->small_order, p->groups = p->small_groups;
    p->cap = p->cap_groups = sizeof p->small_order / sizeof *p->small_order;
    p->n = p->n_groups = p->n_held = 0;
    p->event = NULL, p->held = NULL;
}

void tni_plan_free(tni_plan *p) {
    if (p->order != p->small_order) tni_free(p->order);
    if (p->groups != p->small_groups) tni_free(p->groups);
    for (size_t i = 0; i < p->n_held; i++) tni_array_release(p->held[i]);
    tni_free(p->held);
    tni_event_release(p->event);
}

/* Doubles an array that may still be the small one inside the plan. */
static int plan_grow(void **v, const void *small, size_t *cap, size_t size) {
    size_t want = *cap * 2;
    void *grown = tni_realloc(*v == small ? NULL : *v, want * size);
    if (!grown) return tni_fail_memory(want * size, "an evaluation plan");
    if (*v == small) __builtin_memcpy(grown, small, *cap * size);
    *v = grown, *cap = want;
    return 0;
}

static int plan_add(tni_plan *p, tni_node *n) {
    if (p->n == p->cap && plan_grow((void **)&p->order, p->small_order, &p->cap, sizeof *p->order))
        return TN_EMEMORY;
    n->index = (int32_t)p->n;
    p->order[p->n++] = n;
    return 0;
}

/* ---- order ---- */

typedef struct plan_step {
    tni_node *node;
    int32_t next; /* input to look at next */
} plan_step;

typedef TNI_VEC(plan_step) plan_stack;

static void plan_mark(const tni_plan *p, tni_node *n) {
    n->mark = p->epoch;
    n->group = n->cgroup = TNI_GROUP_NONE;
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i]) n->out[i]->uses = 0;
}

static int plan_push(plan_stack *s, tni_node *n) {
    return tni_vec_push(s, ((plan_step){n, 0}))
               ? tni_fail_memory(sizeof(plan_step), "an evaluation plan")
               : 0;
}

/* A tracer stands for an argument of a function that is being transformed. */
static int plan_check_trace(const tni_node *n) {
    if (!n->out[0] || !(n->out[0]->flags & TNI_A_TRACER)) return 0;
    return tni_fail(TN_ESTATE,
                    "eval: the array depends on an argument of a function that is being "
                    "transformed; a value is not known inside, return the array instead");
}

static bool plan_is_leaf(const tni_node *n) {
    for (int i = 0; i < n->n_in; i++)
        if (tni_state_of(n->in[i]) == TNI_LAZY) return false;
    return true;
}

static int plan_walk(tni_plan *p, plan_stack *s, tni_node *root) {
    if (root->mark == p->epoch) return 0;
    if (plan_check_trace(root)) return TN_ESTATE;
    plan_mark(p, root);
    if (plan_is_leaf(root)) return plan_add(p, root);
    int status = plan_push(s, root);
    while (!status && s->n) {
        plan_step *top = &s->v[s->n - 1];
        if (top->next == top->node->n_in) {
            status = plan_add(p, top->node);
            s->n--;
            continue;
        }
        tn_array *a = top->node->in[top->next++];
        if (tni_state_of(a) != TNI_LAZY) continue;
        if (plan_check_trace(a->node)) return TN_ESTATE;
        if (a->node->mark != p->epoch) {
            plan_mark(p, a->node);
            status = plan_is_leaf(a->node) ? plan_add(p, a->node) : plan_push(s, a->node);
        }
        a->uses++;
    }
    return status;
}

static int plan_order(tni_plan *p, tn_list list) {
    plan_stack s = {0};
    int status = 0;
    for (int i = 0; i < list.n && !status; i++)
        if (tni_state_of(list.v[i]) == TNI_LAZY) status = plan_walk(p, &s, list.v[i]->node);
    for (int i = 0; i < list.n && !status; i++)
        if (tni_state_of(list.v[i]) == TNI_LAZY) list.v[i]->uses |= TNI_TARGET;
    tni_vec_free(&s);
    return status;
}

/* ---- groups ---- */

bool tni_plan_stored(const tni_plan *p, const tn_array *a) {
    if (a->uses & TNI_TARGET) return true;
    int32_t others =
        atomic_load_explicit(&((tn_array *)(uintptr_t)a)->refs, memory_order_relaxed) - a->uses;
    if (!p->event)
        others -= atomic_load_explicit(&((tn_array *)(uintptr_t)a)->scoped, memory_order_relaxed);
    return others > 0;
}

bool tni_plan_owns(const tni_plan *p, const tn_array *a, int32_t g) {
    tni_state s = tni_state_of(a);
    if (s != TNI_LAZY && !(s == TNI_SCHEDULED && a->event == p->event)) return false;
    return a->node && a->node->mark == p->epoch && a->node->group == g;
}

static bool plan_can_join(const tni_plan *p, const tni_group *g, const tni_node *n) {
    const tn_array *a = n->out[0];
    int32_t n_in = g->n_in + n->n_in - 1, members = g->members + 1;
    if (!g->program || n_in > TNI_PROG_MAX_IN || members + n_in > TNI_PROG_MAX_INST) return false;
    if (!tni_same_shape(a->ndim, a->shape, g->loop->ndim, g->loop->shape)) return false;
    return !tni_plan_stored(p, a) || (!g->reduce && g->n_out < TNI_PROG_MAX_OUT);
}

static int plan_new_group(tni_plan *p, tni_node *n) {
    if (p->n_groups == p->cap_groups &&
        plan_grow((void **)&p->groups, p->small_groups, &p->cap_groups, sizeof *p->groups))
        return TN_EMEMORY;
    tni_kind k = n->prim->kind;
    p->groups[p->n_groups] = (tni_group){.root = n->index,
                                         .members = 1,
                                         .n_in = n->n_in,
                                         .n_out = 1,
                                         .program = k == TNI_K_EW || k == TNI_K_REDUCE,
                                         .reduce = k == TNI_K_REDUCE,
                                         .loop = k == TNI_K_REDUCE ? n->in[0] : n->out[0]};
    n->group = (int32_t)p->n_groups++;
    return 0;
}

static void plan_join(tni_plan *p, tni_node *n) {
    tni_group *g = &p->groups[n->cgroup];
    n->group = n->cgroup;
    g->members++;
    g->n_in += n->n_in - 1;
    g->n_out += tni_plan_stored(p, n->out[0]);
}

static int plan_group(tni_plan *p) {
    for (size_t i = p->n; i-- > 0;) {
        tni_node *n = p->order[i];
        n->value = -1;
        if (n->prim->kind == TNI_K_EW && n->cgroup >= 0 &&
            plan_can_join(p, &p->groups[n->cgroup], n))
            plan_join(p, n);
        else if (plan_new_group(p, n))
            return TN_EMEMORY;
        for (int k = 0; k < n->n_in; k++) {
            tn_array *a = n->in[k];
            if (tni_state_of(a) != TNI_LAZY) continue;
            int32_t *c = &a->node->cgroup;
            *c = *c == TNI_GROUP_NONE || *c == n->group ? n->group : TNI_GROUP_MIXED;
        }
    }
    return 0;
}

int tni_plan_make(tni_plan *p, tn_list list, bool async) {
    if (async && !(p->event = tni_event_new(tni_stream_current()))) return TN_EMEMORY;
    int status = plan_order(p, list);
    return status ? status : plan_group(p);
}

int tni_plan_run(tni_plan *p) {
    /* Groups were numbered from the results back, so their roots' order is the reverse. */
    for (size_t g = p->n_groups; g-- > 0;) {
        int status = tni_run_group(p, (int32_t)g);
        if (status) return status;
    }
    return 0;
}
