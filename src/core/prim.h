/* A primitive's descriptor: what the graph knows about an operation. Instances are made by
 * ops/ from its tables; kernels are in the backends' own tables, by id. */
#ifndef TNI_CORE_PRIM_H
#define TNI_CORE_PRIM_H

#include "core/array.h"
#include "core/backend.h"

typedef enum tni_kind {
    TNI_K_KERNEL, /* one call of a backend kernel */
    TNI_K_EW,     /* element-wise: fused into programs */
    TNI_K_REDUCE, /* ends a program */
    TNI_K_VIEW,   /* moves no data when it can */
    TNI_K_MOVE    /* copies parts: concatenate, slice_update */
} tni_kind;

enum {
    TNI_F_DENSE = 1, /* the kernel wants its inputs row-contiguous */
    TNI_F_ROWS = 2,  /* it wants the last axis of each to have stride 1 */
    TNI_F_ONTO = 4 /* output 0 may lie where input 0, which it is shaped as, did: the kernel writes
                      nothing before all that can fail, and then changes parts of it */
};

typedef tn_spec tni_spec; /* rules fill in or check those of the outputs */

struct tni_prim;

/* A question to a shape rule. Nothing in it is believed: it may come from a file. */
typedef struct tni_infer_call {
    const char *op; /* what messages name: the public function, or the primitive */
    const struct tni_prim *prim;
    const void *params;
    int n_in, n_out;
    const tni_out_spec *in;
    tni_spec *out; /* what a primitive leaves free (a reshape's shape) comes in as wanted */
} tni_infer_call;

typedef struct tni_prim {
    const char *name;
    int id; /* TNI_OP_... */
    tni_kind kind;
    int code; /* EW: enum tni_ew, or -1 cast, -2 copy; REDUCE: enum tni_red */
    uint32_t flags;
    size_t params_size;
    /* Checks inputs, parameters and what is wanted, and says what the outputs are; 0 or a status.
     * Called through tni_infer. */
    int (*infer)(const tni_infer_call *c);
    /* The same values from simpler ops, as arrays of the current scope; NULL: none. */
    int (*lower)(const tni_node *n, tn_array **out);
    /* Derivatives (ops/rules.h): cotangents of the outputs (NULL: zero) to those of the wanted
     * inputs, tangents of the inputs to those of the outputs. The arrays of what is filled in
     * belong to the current scope; what is left alone stays NULL: zero. */
    int (*vjp)(const tni_node *n, tn_array *const *cot, const bool *want, tn_array **grad);
    int (*jvp)(const tni_node *n, tn_array *const *tan, tn_array **out);
    /* Many calls as one (ops/vmap.h): in[i] is n->in[i], or `size` of them stacked along a new axis
     * 0, and so the results in out[]. */
    int (*vmap)(const tni_node *n, int64_t size, tn_array *const *in, tn_array **out);
    /* Primitives that are not rows of a table (tenon/ext.h): the kernel, in place of a backend's;
     * who needs it (nodes, plans); what to call when the last of them is gone. All NULL otherwise.
     */
    tni_kernel kernel;
    _Atomic int64_t *refs;
    void (*release)(const struct tni_prim *p);
} tni_prim;

static inline void tni_prim_retain(const tni_prim *p) {
    if (p->refs) atomic_fetch_add_explicit(p->refs, 1, memory_order_relaxed);
}

static inline void tni_prim_release(const tni_prim *p) {
    if (p->refs && atomic_fetch_sub_explicit(p->refs, 1, memory_order_acq_rel) == 1) p->release(p);
}

/* Asks c->prim's rule, and checks what every primitive has to hold to: known dtypes, sizes that
 * can be held, at most TNI_MAX_OUT outputs. 0 or a status with a sentence; c->out is what it is. */
int tni_infer(const tni_infer_call *c);
/* Whether a node's outputs are what the rule says; TN_EINTERNAL if they are not. */
int tni_infer_node(const tni_node *n);

#endif
