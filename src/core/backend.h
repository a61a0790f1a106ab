/* What a backend offers and what it is handed. Kernels see plain views (pointer, dtype,
 * shape, strides), never arrays, so that they can be tested alone and core need not know
 * any backend. */
#ifndef TNI_CORE_BACKEND_H
#define TNI_CORE_BACKEND_H

#include "tenon/ext.h"

typedef tn_operand tni_view; /* strides count elements and may be 0 (broadcast) or negative */

/* One call of a structural primitive. Outputs are allocated, row-contiguous and do not
 * overlap the inputs, unless the primitive says it can work in place. `params` is the
 * struct that ops/prims.h gives the primitive. Zero-size outputs never reach a kernel. */
typedef struct tni_call {
    int op; /* TNI_OP_... */
    const void *params;
    int n_in, n_out;
    const tni_view *in, *out;
} tni_call;

typedef int (*tni_kernel)(const tni_call *c); /* 0 or a negative status, message set */

struct tni_program;

typedef struct tni_backend {
    const char *name;
    const tni_kernel *kernels; /* by op id; NULL: lowered to simpler ops */
    /* Runs a fused program; in[i] and out[i] point at element 0 of each operand. */
    int (*run)(const struct tni_program *p, const void *const *in, void *const *out);
} tni_backend;

static inline int64_t tni_view_size(const tni_view *v) {
    int64_t n = 1;
    for (int i = 0; i < v->ndim; i++) n *= v->shape[i];
    return n;
}

static inline bool tni_view_contiguous(const tni_view *v) {
    int64_t expect = 1;
    for (int i = v->ndim - 1; i >= 0; i--) {
        if (v->shape[i] != 1 && v->strides[i] != expect) return false;
        expect *= v->shape[i];
    }
    return true;
}

#endif
