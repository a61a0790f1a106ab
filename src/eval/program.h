/* The program: what fusion makes and backends run. A list of scalar instructions in
 * SSA form over an index space (the loop), ended by stores or by one reduction.
 *
 *   for each index of shape[0..ndim): run the instructions; store, or fold into a reduction
 *
 * Each instruction makes one value of `dtype`. Values of f16 and bf16 are computed in f32
 * and rounded at once to their dtype, so that fusing never changes a result; integers
 * narrower than 32 bits wrap to their width likewise. Operands always have the dtype the
 * op computes in (casts are explicit instructions); comparisons and logic make TN_BOOL. */
#ifndef TNI_EVAL_PROGRAM_H
#define TNI_EVAL_PROGRAM_H

#include "tenon/tenon.h"

enum {
    TNI_PROG_MAX_INST = 96, /* instructions, loads and constants included */
    TNI_PROG_MAX_IN = 16,
    TNI_PROG_MAX_OUT = 8
};

/* Instruction codes: the ones below, then TNI_INST_EW + e for row e of elementwise.def
 * (enum tni_ew in ops/ew.h). */
enum { TNI_INST_LOAD, TNI_INST_CONST, TNI_INST_CAST, TNI_INST_EW };

typedef struct tni_inst {
    uint16_t op;
    uint8_t dtype; /* tn_dtype of the value made */
    uint8_t unused;
    uint16_t a, b, c; /* earlier instructions; LOAD: a = input number */
    union {           /* CONST: the value, in the member of its dtype's class */
        double f;     /* f16, bf16, f32, f64 */
        int64_t i;    /* signed integers, bool */
        uint64_t u;   /* unsigned integers */
        float c[2];   /* complex */
    } imm;
} tni_inst;

typedef struct tni_prog_in {
    tn_dtype dtype;
    int64_t strides[TN_MAX_NDIM]; /* elements; 0 = broadcast along that loop dimension */
} tni_prog_in;

typedef struct tni_prog_out {
    tn_dtype dtype; /* equals the dtype of instruction `value`, except for a reduction */
    uint16_t value; /* the instruction stored or reduced */
    int64_t strides[TN_MAX_NDIM]; /* elements; 0 along reduced dimensions */
} tni_prog_out;

/* Dimensions are already collapsed: no dimension of size 1 (a scalar loop has ndim 1,
 * shape {1}), and neighbours merge when every operand allows it. The loop never has size 0,
 * except that a reduction may have reduced dimensions of size 0 (the result is the identity).
 * Dimension ndim-1 is innermost. With a reduction, n_out is 1. */
typedef struct tni_program {
    uint16_t n_inst, n_in, n_out;
    uint8_t ndim;
    uint8_t reduce;       /* TNI_RED_NONE or enum tni_red (ops/ew.h) */
    uint32_t reduce_mask; /* bit d: loop dimension d is reduced */
    int64_t shape[TN_MAX_NDIM];
    tni_inst inst[TNI_PROG_MAX_INST];
    tni_prog_in in[TNI_PROG_MAX_IN];
    tni_prog_out out[TNI_PROG_MAX_OUT];
} tni_program;

#endif
