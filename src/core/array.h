/* Arrays, nodes and buffers: the three records everything else is about.
 *
 * A node is one operation; an array is one value. A lazy array holds its node strongly, a
 * node holds its inputs strongly and knows its outputs weakly, so there are no cycles:
 *
 *     array --> node --> inputs (arrays) --> ...      until evaluated, then
 *     array --> buffer
 *
 * Evaluation gives an array a buffer (or a view into one) and lets go of its node; what
 * only that node kept alive dies with it. */
#ifndef TNI_CORE_ARRAY_H
#define TNI_CORE_ARRAY_H

#include "tenon/tenon.h"
#include <stdatomic.h>

typedef struct tni_buffer {
    _Atomic int64_t refs; /* arrays that look into it */
    void *data;           /* 64-byte aligned when ours */
    size_t size;          /* bytes accounted as active */
    void (*release)(void *ud);
    void *ud; /* set with release: memory that is not ours, never written */
    bool borrowed;
    bool planned; /* an address that a plan will give memory to (eval/flat.h) */
} tni_buffer;

struct tni_event;
typedef struct tni_node tni_node;

typedef enum tni_state {
    TNI_LAZY,      /* has a node */
    TNI_SCHEDULED, /* a stream worker will fill it; wait for `event` */
    TNI_READY,     /* has data */
    TNI_ERROR      /* has a status and a message */
} tni_state;

enum { TNI_A_WEAK = 1, TNI_A_STATIC = 2, TNI_A_TRACER = 4 /* of an open trace: not to evaluate */ };
enum { TNI_ALIVE = 0x414c4956, TNI_DEAD = 0x44454144 };

struct tn_array {
    uint32_t magic;         /* TNI_ALIVE; checked at entries of debug builds */
    _Atomic int32_t refs;   /* scopes, keeps, nodes */
    _Atomic int32_t scoped; /* how many of them are scopes */
    _Atomic uint8_t state;
    uint8_t dtype, ndim, flags;
    int32_t status;          /* TNI_ERROR */
    int32_t out_index;       /* which output of its node */
    int32_t uses;            /* evaluation's scratch: uses by nodes of this evaluation */
    int64_t size;            /* elements */
    tni_node *node;          /* TNI_LAZY */
    struct tni_event *event; /* TNI_SCHEDULED, and after until freed */
    tni_buffer *buf;         /* TNI_READY; NULL: the value is in `inl` (one element) */
    int64_t offset;          /* bytes into buf */
    union {
        uint64_t inl[1]; /* a single element that needs no buffer */
        char *message;   /* TNI_ERROR */
    };
    _Atomic(tni_buffer *) dense; /* row-major copy, made by tn_data for a strided view */
    int64_t *strides;            /* elements; valid when READY; points behind shape */
    int64_t shape[];             /* ndim sizes, then ndim strides */
};

enum { TNI_MAX_OUT = 8, TNI_NODE_INLINE = 3, TNI_PARAMS_INLINE = 48 };

struct tni_prim;

struct tni_node {
    _Atomic int32_t refs; /* output arrays that still hold it */
    const struct tni_prim *prim;
    tn_stream *stream;
    int32_t n_in, n_out;
    tn_array **in;  /* n_in; points at inl_in when they fit */
    tn_array **out; /* n_out, weak: NULL once the array is gone, but an output
                     * whose siblings live stays as an orphan, for its shape */
    tn_array *inl_in[TNI_NODE_INLINE];
    tn_array *inl_out[1];
    /* Evaluation's scratch; belongs to the thread that evaluates. */
    uint64_t mark;                /* epoch of the walk that last saw it */
    int32_t index, group, cgroup; /* place in the order; its group; its consumers' group */
    int32_t value;                /* instruction in the group's program; -1: none yet */
    void *params;                 /* prim->params_size bytes; at inl_params when they fit */
    _Alignas(8) char inl_params[TNI_PARAMS_INLINE];
};

/* ---- arrays (array.c) ---- */

/* A fresh array with refs 1 (the caller's), state READY without data or LAZY; NULL when out
 * of memory. Strides are set to row-major. */
tn_array *tni_array_alloc(tn_dtype dtype, int ndim, const int64_t *shape);
void tni_array_retain(tn_array *a);
void tni_array_release(tn_array *a); /* iterative: frees a graph of any depth */
/* Gives an array its value (`buf` is taken over; NULL: the value is in a->inl), lets go of its
 * node, and marks it READY for every thread. */
void tni_array_finish(tn_array *a, tni_buffer *buf, int64_t offset);
/* An output that nobody holds, of a node that others still need. */
bool tni_array_orphaned(const tn_array *a);
/* Output k of the node as a handle of the current scope, even if nobody held it any more. */
tn_array *tni_array_adopt(tni_node *n, int k);
void tni_array_poison(tn_array *a, int status, const char *message);
tn_array *tni_oom(void); /* the static out-of-memory error array */
/* An error array owned by the current scope; the message also becomes tn_error(). */
tn_array *tni_error_array(int status, const char *fmt, ...) TN_PRINTF(2, 3);
tn_array *tni_error_last(void);    /* from the thread's last error (tni_fail...) */
bool tni_alive(const tn_array *a); /* not NULL, and not freed as far as can be told */
/* For entries: `a` itself when usable; else an error array that says why. */
tn_array *tni_check(tn_array *a, const char *op);

static inline tni_state tni_state_of(const tn_array *a) {
    return (tni_state)atomic_load_explicit(&((tn_array *)(uintptr_t)a)->state,
                                           memory_order_acquire);
}
static inline bool tni_is_error(const tn_array *a) { return tni_state_of(a) == TNI_ERROR; }
static inline void *tni_array_data(const tn_array *a) {
    return a->buf ? (char *)a->buf->data + a->offset : (void *)(uintptr_t)a->inl;
}
static inline bool tni_is_inline(const tn_array *a) { return !a->buf; }
bool tni_row_major(const tn_array *a); /* strides are those of its shape; READY only */

/* ---- nodes (node.c) ---- */

/* Makes a node and its outputs. Inputs are retained; params copied. Outputs are handed out
 * with refs 1, not yet in a scope. 0, or TN_EMEMORY with nothing made. */
typedef struct tni_out_spec {
    tn_dtype dtype;
    int ndim;
    const int64_t *shape;
} tni_out_spec;
int tni_node_new(const struct tni_prim *prim, int n_in, tn_array *const *in, const void *params,
                 int n_out, const tni_out_spec *spec, tn_array **out);
void tni_node_free_shell(tni_node *n); /* the record alone; inputs already released */

/* The usual case: one output, given to the current scope; an error array on failure. */
tn_array *tni_op1(const struct tni_prim *prim, int n_in, tn_array *const *in, const void *params,
                  tn_dtype dtype, int ndim, const int64_t *shape);

/* ---- scopes (scope.c) ---- */

/* Hands the caller's reference to the innermost scope and returns a; on failure releases a
 * and returns the out-of-memory array. */
tn_array *tni_scope_own(tn_array *a);
/* For ops that return an argument unchanged: one more handle to it, in the innermost scope. */
tn_array *tni_scope_again(tn_array *a);

#endif
