/* What the driver's files share: the walk over an index space, the tile interpreter's plan,
 * and the context of one run.
 *
 *   cpu_program.c   entry, checks, splitting work over threads
 *   cpu_walk.c      pieces of an index space: which operands are contiguous, gather, scatter
 *   cpu_tile.c      plan and run of the tile interpreter
 *   cpu_machine.c   plan and run of the register-threaded machine
 *   cpu_reduce.c    reductions: blocks, trees */
#ifndef TNI_CPU_VM_RUN_H
#define TNI_CPU_VM_RUN_H

#include "cpu/vm.h"

enum {
    TNI_PACK = 2048,       /* elements gathered at a time for operands that are not contiguous */
    TNI_WALK_ROWS_MIN = 96 /* inner dimensions shorter than this are walked as one flat range */
};

enum tni_walk_kind { TNI_WALK_CONTIG, TNI_WALK_SCALAR, TNI_WALK_PACK };

/* An index space and the operands' strides over it, in elements. */
typedef struct tni_walk {
    int nd;
    bool flat; /* pieces cross rows: only operands contiguous over all of it are direct */
    bool packs;
    int n_in, n_out;
    int64_t shape[TN_MAX_NDIM];
    struct tni_walk_op {
        const int64_t *strides; /* [nd] */
        size_t size;            /* bytes an element */
        enum tni_walk_kind kind;
    } in[TNI_PROG_MAX_IN], out[TNI_PROG_MAX_OUT];
} tni_walk;

/* One instruction of the tile interpreter. */
typedef struct tni_tile_step {
    tni_ew_fn ew; /* either this */
    tni_cv_fn cv; /* or this (a to y) */
    tni_cv_fn round;
    uint16_t y, a, b, c; /* registers */
} tni_tile_step;

/* Register r < TNI_PROG_MAX_IN is input r where it lies, 0 bytes of scratch; the others are
 * slots of TNI_TILE elements. */
typedef struct tni_tile_plan {
    int n_fill, n_steps, n_slots;
    struct {
        uint16_t y;           /* register filled with one value: */
        const tni_inst *inst; /* a constant or the load of a scalar input */
    } fill[TNI_PROG_MAX_INST];
    tni_tile_step step[3 * TNI_PROG_MAX_INST];
    uint16_t out[TNI_PROG_MAX_OUT];   /* registers of the results */
    uint8_t in_size[TNI_PROG_MAX_IN]; /* bytes an element, for inputs read where they lie */
} tni_tile_plan;

/* A program compiled for the register-threaded machine. */
enum { TNI_MACH_MAX_CODE = 4 * TNI_PROG_MAX_INST + 2 * TNI_PROG_MAX_OUT + 2 };

enum tni_mach_at { /* what an operand of the code is */
                   TNI_MACH_NONE,
                   TNI_MACH_IN,    /* input `n` in memory */
                   TNI_MACH_OUT,   /* output `n` in memory */
                   TNI_MACH_SLOT,  /* slot `n`: a tile of scratch */
                   TNI_MACH_SCALAR /* imm (or imm2) is scalar input `n` */
};

typedef struct tni_machine_plan {
    const tni_machine *m;
    int n_code, n_slots, n_fill, n_patch;
    tni_code code[TNI_MACH_MAX_CODE];
    struct { /* operands to be set when a piece starts */
        uint16_t code;
        uint8_t which; /* 0: p or imm, 1: q or imm2 */
        uint8_t at;    /* enum tni_mach_at */
        uint16_t n;
    } patch[2 * TNI_MACH_MAX_CODE];
    struct { /* slots that hold one value: a constant or a scalar input */
        uint16_t slot;
        const tni_inst *inst;
    } fill[TNI_PROG_MAX_INST];
    size_t scratch; /* bytes: slots, padded operands, a copy of the code */
    bool used;
} tni_machine_plan;

typedef struct tni_run {
    const tni_program *p;
    const tni_vm_isa *isa;
    tni_walk walk;
    tni_tile_plan tile;
    tni_machine_plan machine; /* used: false means the tile interpreter */
    bool to_class;            /* a reduction: the value is written in its class, unconverted */
    bool stream;              /* outputs are larger than the cache keeps */
    bool fetch;               /* operands are larger than the caches */
    size_t slots_at, red_at, scratch_size; /* offsets in a worker's scratch, its size */
    char *scratch;                         /* scratch_size bytes a worker */
} tni_run;

/* Decides kinds from shape and strides; `out` of a reduction's walk are contiguous. */
void tni_walk_plan(tni_walk *w);
/* Elements [start, start + n) in row-major order of the walk's space. in[] and out[] point at
 * index 0; outputs whose strides are NULL are contiguous from `start` on. */
void tni_walk_range(const tni_run *r, const tni_walk *w, char *scratch, const char *const *in,
                    char *const *out, int64_t start, int64_t n);
/* Copies n elements at src + i * stride (in elements) to dst. */
void tni_gather(char *dst, const char *src, int64_t stride, int64_t n, size_t size);

extern const uint8_t tni_ew_arities[TNI_EW_COUNT]; /* operands of the rows of elementwise.def */
static inline int tni_ew_arity(int ew) { return tni_ew_arities[ew]; }

void tni_tile_plan_make(tni_run *r, const tni_walk *w);
/* n contiguous elements; scalar inputs point at their element. */
void tni_tile_run(const tni_run *r, const tni_walk *w, char *slots, const char *const *in,
                  char *const *out, int64_t n);

/* Runs a program of few elements over one contiguous dimension at once, without a plan; false
 * when it is not such a program. */
bool tni_tile_small(const tni_program *p, const tni_vm_isa *isa, const void *const *in,
                    void *const *out);

/* Fills r->machine if the program is one for it: floats and bools. `late` stores come after all
 * loads of a tile (an output that is also an input, and other outputs beside it). */
void tni_machine_plan_make(tni_run *r, const tni_walk *w, bool late);
void tni_machine_run(const tni_run *r, const tni_walk *w, char *scratch, const char *const *in,
                     char *const *out, int64_t n);

int tni_run_reduce(tni_run *r, const void *const *in, void *out);
/* Places buffers of the walk and of the interpreter or machine in a worker's scratch. */
void tni_run_layout(tni_run *r);
int tni_run_scratch(tni_run *r, int workers); /* allocates r->scratch */
double tni_run_cost(const tni_program *p);    /* rough nanoseconds an element on one core */

#endif
