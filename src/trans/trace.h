/* One trace: a function's arguments replaced by tracers, the graph that its callback built from
 * them in order, and the two walks over it. Iterative throughout: a chain of a million ops is an
 * ordinary graph.
 *
 * A tracer is a lazy copy of its argument. Evaluating what depends on one is an error while the
 * trace is open (eval/plan.c looks at the flag); when it closes, the nodes between tracers and
 * results are handed the arguments themselves, so the tracers leave no mark on the graph; from
 * then until the trace is freed it is those nodes that may not be evaluated. Values live in slots:
 * those of the tracers first, then one for each output of each node in order. */
#ifndef TNI_TRANS_TRACE_H
#define TNI_TRANS_TRACE_H

#include "base/vec.h"
#include "core/prim.h"

typedef struct tni_step {
    tni_node *node;
    int64_t in;   /* its inputs' slots are in_slot[in ...]; -1: does not depend on a tracer */
    int32_t slot; /* slot of its first output */
} tni_step;

typedef struct tni_trace {
    int n;              /* arguments */
    bool open, guarded; /* before, and after the walk */
    tn_array *const *x;
    tn_array **tracer;
    uint64_t epoch;
    int32_t n_slots;
    TNI_VEC(tni_step) steps;
    TNI_VEC(int32_t) in_slot;
    TNI_VEC(tn_array *) held; /* the results, kept while their nodes are in `steps` */
    int n_out;
    tn_array **out;    /* results, tracers replaced by arguments */
    int32_t *out_slot; /* -1: does not depend on the arguments */
    int32_t most_in;   /* inputs of the node that has most */
} tni_trace;

/* Makes the tracers, in the current scope; `x` must outlive the trace. 0 or a status. */
int tni_trace_open(tni_trace *t, int n, tn_array *const *x);
bool tni_tracing(void); /* some trace of this thread is open */
/* Ends tracing: what was built may be evaluated again. Frees nothing. */
void tni_trace_close(tni_trace *t);
/* Orders what lies between the tracers and out[0..n), closes, replaces tracers by arguments. */
int tni_trace_walk(tni_trace *t, int n_out, tn_array *const *out);
void tni_trace_free(tni_trace *t); /* after open, whether or not that succeeded */

/* Reverse: cot[n_out] (NULL: zero) to grad[n] (NULL: zero), where want[k] (NULL: all). */
int tni_trace_reverse(tni_trace *t, tn_array *const *cot, const bool *want, tn_array **grad);
/* Forward: tan[n] (NULL: zero) to out_tan[n_out] (NULL: zero). */
int tni_trace_forward(tni_trace *t, tn_array *const *tan, tn_array **out_tan);
/* Mapping (ops/vmap.h): in[n], each x[k] itself or `size` of them stacked along a new axis 0, to
 * out[n_out], stacked where they depend on a stacked one. */
int tni_trace_map(tni_trace *t, int64_t size, tn_array *const *in, tn_array **out);

/* Opens and walks a trace of what the node means in simpler ops, over its inputs. */
int tni_trace_lower(tni_trace *t, const tni_node *n);

#endif
