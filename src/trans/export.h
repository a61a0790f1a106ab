/* Exported functions: traces as records, and the file they are written to.
 *
 * A trace is a list of nodes in order over numbered values: first the arguments, then the outputs
 * of each node. Constants are the file's: its traces share them. The file, all numbers
 * little-endian:
 *
 *      0  8 bytes  "TENONFN\n"
 *      8  u32      version, 1
 *     12  u32      0
 *     16  u64 u64  bytes of the head, bytes of the data
 *     32  u64 u64  checksum of the head, of the data (tni_ex_checksum)
 *     48  head     the tables below, zeros up to a multiple of 64 in the file
 *         data     each constant row-major at a multiple of 64, zeros between
 *
 *   head:      u32 n, primitives; u32 n, constants; u32 n, text; u32 results; u32 n, traces
 *   primitive: u8 n, name; u16 bytes of its parameters
 *   constant:  spec; u64 place in the data
 *   spec:      u8 dtype; u8 axes; u8 weak; u64 sizes
 *   trace:     u8 random + 2 open; u32 n, specs of the arguments; u32 n, nodes; u32 operand per
 *              result; if it is open: u64 per axis of the arguments; u32 n, sizes; u32 n, patches
 *   node:      u16 primitive; u16 n, parameters without the zeros at their end; u32 n, operands;
 *              u8 n, specs of the outputs
 *   operand:   u32: a value, or EX_CONSTANT | a constant
 *   size:      u32 kind, x, y; u64 num, add, den
 *   patch:     u32 node, target, index, size; f64 num
 *
 * With `random`, the function draws from the thread's sequence: the key is one more argument and
 * the next key one more result, both the last.
 *
 * An open trace is one of sizes that it was traced with, and says what changes with them: sizes are
 * numbers got from those of arrays built before, patches the places in nodes where they go. A call
 * with other sizes asks the shape rules anew; nothing about it is taken for granted. */
#ifndef TNI_TRANS_EXPORT_H
#define TNI_TRANS_EXPORT_H

#include "base/vec.h"
#include "core/prim.h"

enum {
    EX_VERSION = 1,
    EX_START = 48, /* bytes before the head */
    EX_ALIGN = 64,
    EX_MOST_VALUES = 1 << 30, /* of a trace; and constants */
    EX_MOST_TEXT = 1 << 24,
    EX_NAME = 63,
    EX_MOST_FREE = 8 /* sizes that vary apart */
};
#define EX_CONSTANT 0x80000000u
#define EX_MAGIC    "TENONFN\n"

typedef struct ex_value {
    uint8_t dtype, ndim;
    size_t shape; /* in `shapes` */
} ex_value;

typedef struct ex_node {
    const tni_prim *prim;
    uint32_t n_in, n_out;
    size_t in;     /* in `operands` */
    size_t params; /* in `params` */
    uint32_t out;  /* number of the first output */
} ex_node;

/* DIM: size of axis y of value x. PRODUCT: of sizes x and y. LINEAR: (num * size x + add) / den,
 * which has no remainder. x and y of the latter two come before it. */
enum { EX_DIM, EX_PRODUCT, EX_LINEAR };
typedef struct ex_size {
    uint32_t kind, x, y;
    int64_t num, add, den;
} ex_size;

/* Where size number `size` goes. SHAPE: axis index % 16 of what is wanted of output index / 16.
 * INT, REAL: the parameters' eight bytes at `index`. NUMBER: operand `index`, a number of the dtype
 * of what is there. The inverse ones: num / size. Patches are in the order of the nodes. */
enum { EX_SHAPE, EX_INT, EX_REAL, EX_REAL_INVERSE, EX_NUMBER, EX_NUMBER_INVERSE, EX_TARGETS };
typedef struct ex_patch {
    uint32_t node, target, index, size;
    double num;
} ex_patch;

typedef struct ex_trace {
    bool random;
    uint32_t n_in, most_in; /* arguments; inputs of the node that has most */
    TNI_VEC(ex_value) values;
    TNI_VEC(int64_t) shapes;
    TNI_VEC(ex_node) nodes;
    TNI_VEC(uint32_t) operands;
    TNI_VEC(int64_t) params; /* eight bytes each, so that rules can look into them */
    TNI_VEC(uint32_t) results;
    TNI_VEC(int64_t) open;  /* none, or sizes of the arguments, -1 - k: free, equal for equal k */
    TNI_VEC(int64_t) steps; /* in memory only: free size k is taken in steps from that traced */
    TNI_VEC(ex_size) sizes;
    TNI_VEC(ex_patch) patches;
} ex_trace;

typedef struct ex_function {
    int n_out;
    char *text;
    TNI_VEC(ex_trace *) traces;
    TNI_VEC(tn_array *) constants; /* kept, evaluated */
} ex_function;

/* As tn_exporter_new, for traces that stay in memory: callers' primitives stay what they are, and
 * free sizes are those only that lie whole steps, between the two examples, apart, and above 1. */
tn_exporter *tni_ex_recorder(tn_fns fn, void *ud, int n_out);
const ex_function *tni_ex_recorded(const tn_exporter *e);
/* The trace that takes `in`, NULL: none does; whether it is for other sizes than were traced. */
const ex_trace *tni_ex_find(const ex_function *f, tn_list in, bool *open);
/* Builds it for `in`, in the current scope; `name` is for messages. TN_ESHAPE: not these sizes. */
int tni_ex_build(const ex_function *f, const char *name, const ex_trace *t, bool open, tn_list in,
                 tn_array **out);

void tni_ex_trace_free(ex_trace *t);
void tni_ex_function_free(ex_function *f); /* what it holds */
/* The next value: TN_EMEMORY, or TN_EVALUE when there are too many. */
int tni_ex_value(ex_trace *t, tn_dtype dtype, int ndim, const int64_t *shape);
/* Bytes of parameters, in units of 8. */
static inline size_t tni_ex_units(const tni_prim *p) { return (p->params_size + 7) / 8; }
/* What varies among x[0..m), traces of one function for arguments of different sizes, as sizes and
 * patches of x[0], which has `open` filled in (export_open.c). */
int tni_ex_open(const ex_function *f, ex_trace *const *x, int m);
/* Value number v of t. */
static inline tni_out_spec tni_ex_spec(const ex_trace *t, uint32_t v) {
    const ex_value *x = &t->values.v[v];
    static const int64_t none[1];
    return (tni_out_spec){(tn_dtype)x->dtype, x->ndim, x->ndim ? t->shapes.v + x->shape : none};
}
/* Two traces cannot be told apart by their arguments. */
bool tni_ex_same_inputs(const ex_trace *a, const ex_trace *b);
/* "(float32[2,3], int32[])" into buf, cut short when it is too long; returns buf. */
char *tni_ex_signature(const ex_trace *t, char *buf, size_t n);
uint64_t tni_ex_checksum(const void *data, size_t n, uint64_t start);

/* Writes f (export_write.c). */
int tni_ex_save(const ex_function *f, const char *path);
/* Reads f from a whole file (export_read.c); nothing in it is believed. With `wrap`, constants stay
 * in data[]: wrap(ud) is called for each that does, release(ud) when it is gone. */
typedef struct ex_source {
    const char *name; /* for messages */
    const uint8_t *data;
    size_t size;
    void (*wrap)(void *ud);
    void (*release)(void *ud);
    void *ud;
} ex_source;
int tni_ex_read(const ex_source *s, ex_function *f);

struct tn_imported {
    char *path;
    ex_function f;
};
/* As tn_import, from memory, of which nothing is needed afterwards. */
tn_imported *tni_import_memory(const char *name, const void *data, size_t size);

#endif
