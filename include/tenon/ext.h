/* Primitives of your own, which take part in everything: evaluation, fusion around them, tn_grad,
 * tn_vjp, tn_jvp, tn_vmap, tn_checkpoint, tn_compile; tn_export writes what they are lowered to and
 * refuses those that are not. You give a shape rule and a kernel (or a composition of other ops);
 * rules for derivatives and for tn_vmap as far as you need them. See examples/10_custom_op_csr.c.
 *
 *     static int twice_infer(const tn_spec *in, int n_in, const void *params, tn_spec *out,
 *                            int n_out, void *ud) {
 *         if (n_in != 1 || in[0].dtype != TN_F32)
 *             return tn_fail(TN_EDTYPE, "one float32 array is needed");
 *         return out[0] = in[0], 0;
 *     }
 *     ...
 *     tn_prim *twice = tn_prim_new(&(tn_prim_desc){
 *         .size = sizeof(tn_prim_desc), .name = "twice", .n_out = 1,
 *         .infer = twice_infer, .kernel = twice_kernel, .vjp = twice_vjp});
 *     tn_array *y = tn_prim_call1(twice, NULL, TN_LIST(x));
 *
 * RULES ARE CALLBACKS
 *  X1  They return 0 or a negative TN_E... status, with a sentence left by tn_fail (or by the
 *      function of Tenon that failed); the library puts the primitive's name before it.
 *  X2  A primitive is a pure function of its inputs and parameters: equal calls may be merged,
 *      calls with constant inputs made once, calls whose results nobody needs left out.
 *  X3  Rules over arrays (lower, vjp, jvp, vmap) run on stand-ins: they build expressions and
 *      evaluate nothing (TN_ESTATE). They free nothing; what they return belongs to the caller.
 *      What they return may itself be differentiated, so write them with ops that can be. Arrays
 *      that they take from elsewhere have been evaluated.
 *  X4  Kernels run on any thread, several at a time, and see plain memory. They call no function of
 *      Tenon but tn_fail, on the thread that called them, tn_parallel_for, and those that know
 *      dtypes (tn_dtype_size). */
#ifndef TENON_EXT_H
#define TENON_EXT_H

#include "tenon/tenon.h"

#ifdef __cplusplus
extern "C" {
#endif

/* dtype and shape of an array that has no value yet. */
typedef struct tn_spec {
    tn_dtype dtype;
    int ndim;
    int64_t shape[TN_MAX_NDIM];
} tn_spec;

/* An array in memory. Strides count elements and may be 0 (repeated) or negative. */
typedef struct tn_operand {
    void *data;
    tn_dtype dtype;
    int ndim;
    const int64_t *shape, *strides;
} tn_operand;

/* Sets tn_error() and returns `status`. */
TN_API int tn_fail(int status, const char *fmt, ...) TN_PRINTF(2, 3);

/* For kernels: body over [0, n) in pieces of `grain`, on the library's threads; back when all is
 * done. What is computed must not depend on the split. `worker` is in [0, tn_threads()), and no two
 * calls that run at the same time have the same. */
TN_API void tn_parallel_for(int64_t n, int64_t grain,
                            void (*body)(void *ctx, int64_t begin, int64_t end, int worker),
                            void *ctx);

typedef struct tn_prim tn_prim; /* a primitive made by tn_prim_new */

enum { TN_PRIM_DENSE = 1 /* the kernel wants its inputs row-major: strided ones are copied */ };
enum { TN_PRIM_APART = 1 /* what a vmap rule may answer */ };

typedef struct tn_prim_desc {
    size_t size;        /* sizeof(tn_prim_desc) */
    const char *name;   /* for messages and printed graphs; copied */
    size_t params_size; /* bytes of a call's parameters: copied, compared by their bytes (leave no
                           padding unset), handed to the rules aligned to 8 */
    int n_out;          /* results: 1 to 8 */
    uint32_t flags;     /* TN_PRIM_... */
    void *ud;           /* handed to every rule */
    void (*release)(void *ud); /* when nothing can call a rule any more, on any thread; may be
                                  NULL */

    /* The shape rule: out[k] from the inputs' specs. Needed. */
    int (*infer)(const tn_spec *in, int n_in, const void *params, tn_spec *out, int n_out,
                 void *ud);
    /* Computes the results, which are row-major, hold no zeros yet, are not empty all at once and
     * overlap nothing. NULL: by `lower`. */
    int (*kernel)(const tn_operand *in, int n_in, const tn_operand *out, int n_out,
                  const void *params, void *ud);
    /* The same values from other ops: stands in for each of the others that is NULL. */
    int (*lower)(tn_list in, const void *params, tn_array **out, int n_out, void *ud);
    /* Gradients of the inputs from cotangents of the results, all there: grads[i], where want[i],
     * shaped as input i; left NULL: zero. */
    int (*vjp)(tn_list in, tn_list out, tn_list cotangents, const bool *want, const void *params,
               tn_array **grads, void *ud);
    /* Tangents of the results from those of the inputs (NULL: zero): shaped as the results; left
     * NULL: zero. Without it the vjp is transposed. */
    int (*jvp)(tn_list in, tn_list out, tn_list tangents, const void *params,
               tn_array **out_tangents, void *ud);
    /* `size` calls at once: axes.v[i] is 0 where input i is stacked along axis 0, or TN_UNMAPPED
     * where it is one for all. Results stacked along out_axes[k], which is 0 unless set, or one
     * for all: TN_UNMAPPED. TN_PRIM_APART: please map `lower`, or make the calls one by one, as
     * without this rule. */
    int (*vmap)(tn_list in, tn_ints axes, int64_t size, const void *params, tn_array **out,
                int64_t *out_axes, int n_out, void *ud);
} tn_prim_desc;

/* NULL with tn_error() set: no name or infer, neither kernel nor lower, a bad n_out. */
TN_API tn_prim *tn_prim_new(const tn_prim_desc *desc);
/* Graphs and compiled functions that use it keep it alive, with its `ud`, until they are gone. */
TN_API void tn_prim_free(tn_prim *p);

/* Lazy results of a call into out[0..n_out); params may be NULL when there are none. A negative
 * status, and error arrays, on failure: what `infer` said, or a spec from it that is none. */
TN_API int tn_prim_call(tn_prim *p, const void *params, tn_list in, tn_array **out, int n_out);
/* The only result of a primitive that has one. */
TN_API tn_array *tn_prim_call1(tn_prim *p, const void *params, tn_list in);

#ifdef __cplusplus
}
#endif

#endif
