/* A primitive's descriptor: what the graph knows about an operation. Instances are made by
 * ops/ from its tables; kernels are in the backends' own tables, by id. */
#ifndef TNI_CORE_PRIM_H
#define TNI_CORE_PRIM_H

#include "core/array.h"

typedef enum tni_kind {
    TNI_K_KERNEL, /* one call of a backend kernel */
    TNI_K_EW,     /* element-wise: fused into programs */
    TNI_K_REDUCE, /* ends a program */
    TNI_K_VIEW,   /* moves no data when it can */
    TNI_K_MOVE    /* copies parts: concatenate, slice_update */
} tni_kind;

enum {
    TNI_F_DENSE = 1, /* the kernel wants its inputs row-contiguous */
    TNI_F_ROWS = 2   /* it wants the last axis of each to have stride 1 */
};

typedef struct tni_prim {
    const char *name;
    int id; /* TNI_OP_... */
    tni_kind kind;
    int code; /* EW: enum tni_ew, or -1 cast, -2 copy; REDUCE: enum tni_red */
    uint32_t flags;
    size_t params_size;
    /* The same values from simpler ops, as arrays of the current scope; NULL: none. */
    int (*lower)(const tni_node *n, tn_array **out);
    /* Derivatives (ops/rules.h): cotangents of the outputs (NULL: zero) to those of the wanted
     * inputs, tangents of the inputs to those of the outputs. The arrays of what is filled in
     * belong to the current scope; what is left alone stays NULL: zero. */
    int (*vjp)(const tni_node *n, tn_array *const *cot, const bool *want, tn_array **grad);
    int (*jvp)(const tni_node *n, tn_array *const *tan, tn_array **out);
} tni_prim;

#endif
