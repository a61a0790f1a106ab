/* Shared between run.c (programs and kernels) and move.c (views and copies). */
#ifndef TNI_EVAL_RUN_H
#define TNI_EVAL_RUN_H

#include "core/backend.h"
#include "eval/plan.h"
#include "ops/ids.h"

extern const tni_backend *const tni_backends[]; /* NULL-terminated; backends.c */

static inline tni_view tni_view_of(const tn_array *a) {
    return (tni_view){tni_array_data(a), (tn_dtype)a->dtype, a->ndim, a->shape, a->strides};
}

/* What computes a node that is one call of a kernel; NULL: its lowering does. */
static inline tni_kernel tni_kernel_of(const tni_node *n) {
    if (n->prim->id >= TNI_OP_COUNT) return n->prim->kernel;
    return tni_backends[0]->kernels[n->prim->id];
}

/* Waits for a scheduled input; 0, or the status and message of one that failed. */
int tni_input_ready(tn_array *a);
/* Memory for an array's value: *data points at it; *buf stays NULL for a single element. */
int tni_output_alloc(tn_array *a, tni_buffer **buf, void **data);
/* Copies src into dst's strides, converting. */
int tni_copy_view(const tni_view *src, const tni_view *dst);
/* A new buffer with src's elements row-major. */
int tni_copy_dense(const tni_view *src, tni_buffer **buf);
/* Whether the launch may write over `a`: `edges` references to it come from nodes that die
 * with the launch, and nobody else can see its memory. */
bool tni_can_donate(const tn_array *a, int32_t edges);

/* One element-wise node of few elements over inputs that are READY (single.c). */
bool tni_single_fits(const tn_array *a);
int tni_run_single(tn_array *a);

int tni_run_view(tni_node *n); /* move.c */
int tni_run_move(tni_node *n);

#endif
