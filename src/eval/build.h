/* From a group of nodes to a program (build.c). */
#ifndef TNI_EVAL_BUILD_H
#define TNI_EVAL_BUILD_H

#include "eval/plan.h"
#include "eval/program.h"

/* A program with what it works on. Leaves are the distinct arrays it reads; edges counts how
 * many references to each come from nodes of the group. */
typedef struct tni_build {
    tni_program prog;
    const tni_plan *plan;
    int32_t group;
    tn_array *in[TNI_PROG_MAX_IN];
    int32_t edges[TNI_PROG_MAX_IN];
    tn_array *out[TNI_PROG_MAX_OUT];
    bool pinned[TNI_PROG_MAX_IN];        /* a member that stays lazy still needs this leaf */
    tni_node *member[TNI_PROG_MAX_INST]; /* in the order of their instructions */
    int n_members;
} tni_build;

/* Instructions, inputs and outputs of group g; strides are filled by tni_build_loop. */
int tni_build_group(tni_build *b, const tni_plan *p, int32_t g);
/* Fills loop shape and strides (inputs are READY, outputs row-major), then collapses. */
void tni_build_loop(tni_build *b);

/* A copy (and cast) of `ndim`/`shape` elements from strided src to strided dst. */
void tni_program_copy(tni_program *p, tn_dtype from, const int64_t *src_strides, tn_dtype to,
                      const int64_t *dst_strides, int ndim, const int64_t *shape);
/* Drops dimensions of size 1 and merges neighbours; called by the two above. */
void tni_program_collapse(tni_program *p);

#endif
