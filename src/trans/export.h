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
 *   trace:     u8 random; u32 n, specs of the arguments; u32 n, nodes; u32 operand per result
 *   node:      u16 primitive; u16 n, parameters without the zeros at their end; u32 n, operands;
 *              u8 n, specs of the outputs
 *   operand:   u32: a value, or EX_CONSTANT | a constant
 *
 * With `random`, the function draws from the thread's sequence: the key is one more argument and
 * the next key one more result, both the last. */
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
    EX_NAME = 63
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

typedef struct ex_trace {
    bool random;
    uint32_t n_in, most_in; /* arguments; inputs of the node that has most */
    TNI_VEC(ex_value) values;
    TNI_VEC(int64_t) shapes;
    TNI_VEC(ex_node) nodes;
    TNI_VEC(uint32_t) operands;
    TNI_VEC(int64_t) params; /* eight bytes each, so that rules can look into them */
    TNI_VEC(uint32_t) results;
} ex_trace;

typedef struct ex_function {
    int n_out;
    char *text;
    TNI_VEC(ex_trace *) traces;
    TNI_VEC(tn_array *) constants; /* kept, evaluated */
} ex_function;

void tni_ex_trace_free(ex_trace *t);
void tni_ex_function_free(ex_function *f); /* what it holds */
/* The next value: TN_EMEMORY, or TN_EVALUE when there are too many. */
int tni_ex_value(ex_trace *t, tn_dtype dtype, int ndim, const int64_t *shape);
/* Bytes of parameters, in units of 8. */
static inline size_t tni_ex_units(const tni_prim *p) { return (p->params_size + 7) / 8; }
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
