/* What the simplifier and its rules share: making nodes of the new graph, asking about them. */
#ifndef TNI_TRANS_SIMP_H
#define TNI_TRANS_SIMP_H

#include "base/vec.h"
#include "core/prim.h"
#include "core/stream.h"
#include "trans/nodes.h"

typedef struct tni_simp_entry {
    uint64_t hash;
    tn_array *key;   /* first output of a node, or a constant; NULL: free */
    tn_array *value; /* what stands for it: itself, or its value */
} tni_simp_entry;

typedef struct tni_simp_fold tni_simp_fold;

typedef struct tni_simp {
    int status;
    tni_nodes old;      /* the nodes read */
    uint64_t new_epoch; /* mark of those made */
    tn_stream *stream;  /* of the node that is being rewritten */
    int n_in;
    tn_array **in;            /* the arguments, by address */
    tn_array **value;         /* of each output of the nodes read, in the new graph */
    TNI_VEC(tn_array *) made; /* held until the end */
    tni_simp_entry *table;
    size_t n_entries, cap;
    tni_simp_fold *fold; /* of the pass that may round otherwise (simplify_fold.c); else NULL */
} tni_simp;

/* One node with one output, as it would be made. */
typedef struct tni_simp_op {
    const tni_prim *prim;
    int n_in;
    tn_array *const *in;
    const void *params;
    tn_dtype dtype;
    int ndim;
    const int64_t *shape;
} tni_simp_op;

/* The array that stands for `op`: simplified, shared with an equal one, or folded. NULL when the
 * status is set. Arrays are the simplifier's. */
tn_array *tni_simp_make(tni_simp *s, const tni_simp_op *op);
/* One number repeated over a shape, without memory; `raw` holds an element of the dtype. */
tn_array *tni_simp_uniform(tni_simp *s, tn_dtype dtype, const void *raw, int ndim,
                           const int64_t *shape);

/* The node of the new graph that makes `a` and is primitive `id`, or NULL: never one of the
 * arguments, nor what is behind them. */
const tni_node *tni_simp_is(const tni_simp *s, const tn_array *a, int id);
bool tni_simp_made(const tni_simp *s, const tn_array *a);       /* by a node of the new graph */
bool tni_simp_constant(const tni_simp *s, const tn_array *a);   /* has a value, is no argument */
bool tni_simp_uniform_is(const tni_simp *s, const tn_array *a); /* a constant of equal elements */

/* Shorthands: one input of the same dtype. */
tn_array *tni_simp_reshape(tni_simp *s, tn_array *a, int ndim, const int64_t *shape);
tn_array *tni_simp_broadcast(tni_simp *s, tn_array *a, int ndim, const int64_t *shape);

/* The rules: what stands for `op` instead, or NULL (none, or the status is set). */
tn_array *tni_simp_view_rule(tni_simp *s, const tni_simp_op *op);
tn_array *tni_simp_ew_rule(tni_simp *s, const tni_simp_op *op);
tn_array *tni_simp_reduce_rule(tni_simp *s, const tni_simp_op *op);
/* Whether casts a -> b -> c give what a -> c gives. */
bool tni_simp_cast_chain(tn_dtype a, tn_dtype b, tn_dtype c);

/* The pass that may round otherwise; all may set the status. _inputs: before node n of the old
 * graph is made, whose inputs became in[]: notes what n is, or settles what the inputs are.
 * _output: after that, with what its only result became by itself: what to go on with. _take: what
 * stands for `a` of the old graph, which became `plain` by itself, where it is used as a value. */
void tni_simp_fold_open(tni_simp *s, int n_out, tn_array *const *out);
void tni_simp_fold_inputs(tni_simp *s, const tni_node *n, tn_array **in);
tn_array *tni_simp_fold_output(tni_simp *s, const tni_node *n, tn_array *y);
tn_array *tni_simp_fold_take(tni_simp *s, const tn_array *a, tn_array *plain);
void tni_simp_fold_free(tni_simp *s);

#endif
