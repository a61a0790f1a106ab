/* The contract between the driver of fused programs (cpu_program.c and its neighbours) and
 * what is compiled once per ISA: kernels over tiles for every class of values, the
 * register-threaded machine for floats, and the kernels of reductions.
 *
 * Inside a kernel a value has one of eight classes; narrow dtypes are widened on load, and
 * rounded or wrapped to their dtype after every operation (eval/program.h). */
#ifndef TNI_CPU_VM_H
#define TNI_CPU_VM_H

#include "eval/program.h"
#include "ops/ew.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tni_cls {
    TNI_CLS_B,   /* bool: one byte, 0 or 1 */
    TNI_CLS_I32, /* i8 i16 i32 */
    TNI_CLS_U32, /* u8 u16 u32 */
    TNI_CLS_I64,
    TNI_CLS_U64,
    TNI_CLS_F32, /* f16 bf16 f32 */
    TNI_CLS_F64,
    TNI_CLS_C64,
    TNI_CLS_COUNT
};

enum {
    TNI_TILE = 512,  /* elements a tile of the interpreter: 2 or 4 KiB a value stay in L1 */
    TNI_BLOCK = 4096 /* elements a block of a reduction */
};

/* y[i] = op(a[i], b[i], c[i]) for i < n; y may be one of the operands. */
typedef void (*tni_ew_fn)(size_t n, void *y, const void *a, const void *b, const void *c);
/* y[i] = a[i] converted or rounded. */
typedef void (*tni_cv_fn)(size_t n, void *y, const void *a);

/* A reduction of one class of operands. The states of n outputs are one piece of memory of
 * n * size bytes, laid out by the reduction (columns of s, then of t, say). */
typedef struct tni_red_fns {
    size_t size;      /* bytes of state an output; 0: the class has no such reduction */
    enum tni_cls out; /* class of the results */
    void (*init)(size_t n, void *s);
    /* One output: the state of x[0..n), n <= TNI_BLOCK, whose first element has position `at`. */
    void (*row)(size_t n, void *s, const void *x, int64_t at);
    /* n outputs: x[i], at position `at`, joins state i. */
    void (*col)(size_t n, void *s, const void *x, int64_t at);
    void (*merge)(size_t n, void *s, const void *later);
    void (*finish)(size_t n, void *y, const void *s);
} tni_red_fns;

/* ---- The register-threaded machine: see vm_isa.c ------------------------------------------ */

typedef void (*tni_handler)(void); /* really (const tni_code *, size_t i, VN floats x 8) */

/* One instruction: what it does and its operands. An operand in memory is element
 * p[i & mask]: mask 0 is a tile of scratch, all ones an array that the loop goes along. */
typedef struct tni_code {
    tni_handler fn;
    char *p, *q;
    size_t p_mask, q_mask;
    float imm, imm2;
} tni_code;

/* Handlers of one op: acc = op(acc), or op(acc, operand), or with r op(operand, acc). Operands
 * are f32 in memory (m), an immediate (s), f16 (h) or bf16 (b) in memory; NULL: no such form. */
typedef struct tni_mach_op {
    tni_handler u, m, mr, s, sr, h, hr, b, br;
} tni_mach_op;

typedef struct tni_machine {
    size_t tile;                     /* floats that the eight accumulators hold */
    size_t align;                    /* bytes that a streaming store wants its address aligned to */
    const tni_mach_op *ops, *hot;    /* by op: hot has all forms, ops has u or m and mr */
    tni_handler sel_a, sel_b, sel_c; /* where(a, b, c), the accumulators being a, b or c */
    tni_handler load[TN_DTYPE_COUNT], load_s;
    tni_handler store[TN_DTYPE_COUNT], stream;
    tni_handler round[TN_DTYPE_COUNT];                          /* f16, bf16 */
    tni_handler mul_add_mm, mul_add_ms, mul_add_sm, mul_add_ss; /* acc * p + q, rounded twice */
    tni_handler fetch[TN_DTYPE_COUNT]; /* prefetches an input; NULL: none */
    tni_handler end;
    /* n elements, a multiple of tile; streams: some store is `stream` */
    void (*run)(const tni_code *code, size_t n, bool streams);
} tni_machine;

typedef struct tni_vm_isa {
    const char *name;
    const tni_ew_fn *ew[TNI_CLS_COUNT];           /* by op, NULL where the op has no such class */
    tni_cv_fn cast[TNI_CLS_COUNT][TNI_CLS_COUNT]; /* [from][to] */
    tni_cv_fn load[TN_DTYPE_COUNT];               /* memory to class; NULL: the same bytes */
    tni_cv_fn store[TN_DTYPE_COUNT];              /* class to memory; NULL: the same bytes */
    tni_cv_fn round[TN_DTYPE_COUNT];              /* class to the dtype's values; NULL: all are */
    tni_cv_fn narrow_f64; /* f64 to f32 rounded to odd: then f16 or bf16 is rounded once */
    const tni_red_fns *(*red)(int red); /* of enum tni_red: one entry a class of the operand */
    const tni_machine *(*machine)(void);
} tni_vm_isa;

const tni_vm_isa *tni_vm_ref(void);
const tni_vm_isa *tni_vm_avx2(void);
const tni_vm_isa *tni_vm_avx512(void);
const tni_vm_isa *tni_vm_neon(void);
const tni_red_fns *tni_vm_red_ref(int red);
const tni_red_fns *tni_vm_red_avx2(int red);
const tni_red_fns *tni_vm_red_avx512(int red);
const tni_red_fns *tni_vm_red_neon(int red);

const tni_machine *tni_vm_machine_ref(void);
const tni_machine *tni_vm_machine_avx2(void);
const tni_machine *tni_vm_machine_avx512(void);
const tni_machine *tni_vm_machine_neon(void);

enum tni_cls tni_cls_of(tn_dtype d);
size_t tni_cls_size(enum tni_cls c);

#endif
