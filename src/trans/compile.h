/* Inside a compiled function: its plans, one a signature (compile_plan.c makes them, compile_run.c
 * runs them, compile.c keeps them). */
#ifndef TNI_TRANS_COMPILE_H
#define TNI_TRANS_COMPILE_H

#include "base/vec.h"
#include "eval/flat.h"
#include "trans/export.h"
#include <pthread.h>

/* Where a result comes from. */
typedef enum compiled_from {
    COMPILED_ARGUMENT, /* it is an argument, untouched */
    COMPILED_CONSTANT, /* it depends on no argument */
    COMPILED_BUFFER    /* memory of the plan */
} compiled_from;

typedef struct compiled_result {
    compiled_from from;
    int argument;       /* ARGUMENT; BUFFER: whose memory it is, -1: of none */
    tn_array *constant; /* CONSTANT: kept */
    int32_t buffer;     /* BUFFER */
    int64_t at;         /* BUFFER: bytes into it */
    tn_dtype dtype;
    int ndim;
    int64_t size;
    bool weak, row_major;
    int64_t shape[TN_MAX_NDIM], strides[TN_MAX_NDIM];
} compiled_result;

typedef struct compiled_plan {
    int64_t *signature;
    size_t n_signature;
    uint64_t used; /* when last */
    tni_flat flat;
    size_t bound; /* bytes of the arena's buffers that live together: the arena cannot be smaller */
    bool random;  /* it draws from the thread's sequence: one more argument and result */
    int n_arg, n_result; /* arguments: inputs, state, random key; results: outputs, state, key */
    int32_t *arg;        /* buffer of each argument */
    compiled_result *result;
    TNI_VEC(int32_t) own; /* buffers of results that outlive a run */
    tni_buffer **memory;  /* of a run: one for each of `own`, then one for each argument */
    tn_array **made;      /* of a run: the results' arrays */
} compiled_plan;

/* With `shapeless`: what was recorded for arguments of certain dtypes and axes. */
typedef struct compiled_open {
    int64_t *kinds; /* as in signatures, without the sizes */
    int n, tries;
    tn_exporter *recorder;
} compiled_open;

struct tn_compiled {
    pthread_mutex_t lock;
    tn_fns fn;
    void *ud;
    int n_out, n_state, capacity;
    bool keep, shapeless, fold;
    tni_buffer *arena; /* with `keep`: the largest so far, for all plans */
    tn_array ***state; /* slots */
    TNI_VEC(compiled_plan *) plans;
    TNI_VEC(compiled_open) open;
    uint64_t clock;
    tn_compile_stats stats;
};

enum { COMPILED_INLINE = 1 }; /* results of so many elements hold their value themselves */

/* Of an argument, in a signature: dtype, axes and weakness in one number, before its sizes. */
static inline int64_t tni_compiled_kind(const tn_array *a) {
    return a->dtype | a->ndim << 8 | (a->flags & TNI_A_WEAK ? 1 << 16 : 0);
}

/* fn as a function of its inputs and state that gives its outputs and new state; `ud` is the
 * tn_compiled. The slots are as before. */
int tni_compiled_fns(tn_list in, tn_array **out, int n_out, void *ud);
/* Evaluates what lies in the graph of the results, depends on no tracer and is held by others. */
int tni_compiled_outside(int n, tn_array *const *results);
/* Finds out what it does for x[0..n) (inputs, state, key) and plans that; NULL with the message
 * set. *known: fn was not run, since a recording was open for these sizes. */
compiled_plan *tni_compiled_plan(tn_compiled *c, int n, tn_array *const *x, bool *known);
void tni_compiled_plan_free(compiled_plan *p);

/* Runs a plan over x[0..n); out[n_out] are results of the current scope, slots hold the new state.
 * On failure out is not touched. */
int tni_compiled_run(tn_compiled *c, compiled_plan *p, tn_array *const *x, tn_array **out);

/* What a recording says about inputs and state `in`: 0 with all results, TN_EMEMORY, or TN_ESHAPE
 * when there is none for them. */
int tni_compiled_recall(tn_compiled *c, tn_list in, tn_array **out);
/* Records fn for arguments like x[0..n) of free sizes: those in which `other`, the signature of an
 * earlier plan for such arguments, differs; all when it is NULL. 0, also when that cannot be, or
 * TN_EMEMORY. */
int tni_compiled_record(tn_compiled *c, int n, tn_array *const *x, const int64_t *other);
void tni_compiled_open_free(compiled_open *o);

#endif
