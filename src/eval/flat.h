/* A flat plan: an evaluation written down as a list of launches over memory with fixed offsets, so
 * that running it again builds, plans and allocates nothing.
 *
 * It is made by running the ordinary planner with the thread in *recording*: outputs then get
 * addresses without memory behind them (a tni_buffer that is `planned`), and every launch of a
 * program or a kernel is noted instead of done. Views, donations and lowerings work on such arrays
 * as on any other, so a recorded evaluation takes exactly the decisions of a real one. Afterwards
 * each address is a buffer number and an offset; lifetimes follow from the launches, and buffers
 * that never live at the same time share memory of the arena. */
#ifndef TNI_EVAL_FLAT_H
#define TNI_EVAL_FLAT_H

#include "base/vec.h"
#include "core/backend.h"
#include "core/prim.h"
#include "eval/program.h"

typedef enum tni_flat_kind {
    TNI_FLAT_ARENA, /* has an offset in the arena */
    TNI_FLAT_OWN,   /* the caller gives the memory: arguments, results that outlive the run */
} tni_flat_kind;

typedef struct tni_flat_buffer {
    uint64_t address; /* while recording */
    size_t size;
    tni_flat_kind kind;
    int32_t first, last; /* launches that use it; first > last: none */
    bool written;        /* some launch writes it */
    size_t offset;       /* in the arena */
} tni_flat_buffer;

typedef struct tni_flat_ptr {
    int32_t buffer; /* -1: `at` is an address of this process */
    int64_t at;     /* bytes */
} tni_flat_ptr;

typedef struct tni_flat_launch {
    tni_program *program; /* NULL: a kernel */
    tni_kernel kernel;
    const tni_prim *prim; /* whose kernel it is; kept */
    tni_call call;        /* of the kernel; its views and parameters belong to the plan */
    tni_view *view;       /* the same views, to be given their addresses */
    int32_t n_in, n_out;  /* operands */
    int64_t operand;      /* the first of them in `operands` */
} tni_flat_launch;

typedef struct tni_flat {
    TNI_VEC(tni_flat_buffer) buffers;
    TNI_VEC(tni_flat_launch) launches;
    TNI_VEC(tni_flat_ptr) operands; /* of each launch: inputs, then outputs */
    TNI_VEC(tn_array *) constants;  /* what the launches read from elsewhere; kept */
    uint64_t next;                  /* address of the next buffer */
    size_t arena;                   /* bytes */
    char **base;                    /* where each buffer is in the run at hand */
} tni_flat;

/* The plan that this thread records into; NULL: it really evaluates. */
extern _Thread_local tni_flat *tni_recording;

void tni_flat_init(tni_flat *f);
void tni_flat_free(tni_flat *f);

/* While recording: an address without memory; NULL when out of memory. */
tni_buffer *tni_flat_new(tni_flat *f, size_t bytes);
/* The launches to come read `a`, which has a value: kept as long as the plan. */
int tni_flat_keep(tni_flat *f, tn_array *a);
/* Where an address is: buffer -1 if it is of no buffer of the plan. */
tni_flat_ptr tni_flat_find(const tni_flat *f, const void *address);

/* Lays out the arena. Buffers whose kind was set to OWN are left out; `until_end` (one a buffer)
 * says which must keep their content until after the last launch. */
int tni_flat_place(tni_flat *f, const bool *until_end);
/* The most bytes of the arena's buffers that live at one launch: no layout can be smaller. */
int tni_flat_bound(const tni_flat *f, const bool *until_end, size_t *bound);
/* Runs it: f->base[i] must be set for every OWN buffer. *done: how many launches succeeded. */
int tni_flat_run(tni_flat *f, char *arena, size_t *done);

/* ---- what the evaluator calls at its launches (flat.c): records, or runs ---- */
int tni_launch_program(const tni_program *p, const void *const *in, void *const *out);
int tni_launch_kernel(tni_kernel kernel, const tni_call *c, const tni_prim *prim);
tni_buffer *tni_eval_buffer(size_t bytes); /* memory for a value */

#endif
