/* A plan: the nodes of one evaluation in the order they run, and the groups they fall into.
 * A group is what one launch computes: a fused program, or one other node. */
#ifndef TNI_EVAL_PLAN_H
#define TNI_EVAL_PLAN_H

#include "core/prim.h"
#include "core/stream.h"

typedef struct tni_group {
    int32_t root;         /* index of its last node: the group runs in that node's place */
    int32_t members;      /* nodes */
    int32_t n_in;         /* operands from outside, an upper bound */
    int32_t n_out;        /* values stored */
    bool program;         /* may grow */
    bool reduce;          /* ends in a reduction */
    const tn_array *loop; /* the array whose shape is the loop */
} tni_group;

typedef struct tni_plan {
    uint64_t epoch;   /* nodes of this plan carry it as mark */
    tni_node **order; /* topological */
    tni_group *groups;
    size_t n, cap, n_groups, cap_groups;
    tni_event *event; /* asynchronous plans: what their arrays wait for */
    tn_array **held;  /* asynchronous plans: the arrays they will fill, retained */
    size_t n_held;
    /* Room for the small evaluations that most are. */
    tni_node *small_order[32];
    tni_group small_groups[32];
} tni_plan;

enum { TNI_TARGET = 1 << 30 }; /* bit of tn_array.uses: asked for by the caller */
enum { TNI_GROUP_NONE = -1, TNI_GROUP_MIXED = -2 };

uint64_t tni_plan_epoch(void); /* a mark that no walk has used */
void tni_plan_init(tni_plan *p);
void tni_plan_free(tni_plan *p);
/* Orders and groups everything unevaluated below the list. `async`: every handle that outlives
 * the plan counts as asked for, since its graph must not be shared with the worker. */
int tni_plan_make(tni_plan *p, tn_list list, bool async);
int tni_plan_run(tni_plan *p); /* stops at the first failure */

/* Runs group g (run.c). */
int tni_run_group(tni_plan *p, int32_t g);
/* True when `a` is computed by a node of group g of this plan and not yet evaluated. */
bool tni_plan_owns(const tni_plan *p, const tn_array *a, int32_t g);
/* True when the value of `a` must be stored for somebody outside its group. */
bool tni_plan_stored(const tni_plan *p, const tn_array *a);

#endif
