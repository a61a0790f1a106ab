/* The table of the new graph: hash-consing of nodes and constants, and folding. */
#include "trans/simp_table.h"
#include "base/alloc.h"
#include "base/err.h"
#include "core/shape.h"
#include "ops/op.h"
#include <string.h>

/* Results of at most FOLD_MAX bytes are computed once and kept; constants of at most INTERN_MAX
 * bytes are equal when their bytes are. */
enum { FOLD_MAX = 64 << 10, INTERN_MAX = 256, TABLE_MIN = 64 };

static void table_no_memory(tni_simp *s) {
    s->status = tni_fail_memory(s->cap * sizeof *s->table, "simplifying");
}

/* ---- hashing ---- */

static uint64_t table_mix(uint64_t h, uint64_t x) {
    h = (h ^ x) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio */
    return h ^ h >> 29;
}

static uint64_t table_bytes(uint64_t h, const void *p, size_t n) {
    for (; n >= 8; n -= 8, p = (const char *)p + 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        h = table_mix(h, w);
    }
    if (!n) return h; /* p may be NULL */
    uint64_t w = n;
    memcpy(&w, p, n);
    return table_mix(h, w);
}

static uint64_t table_shape(uint64_t h, tn_dtype dtype, int ndim, const int64_t *shape) {
    h = table_mix(h, (uint64_t)dtype << 8 | (uint64_t)ndim);
    return table_bytes(h, shape, sizeof *shape * (size_t)ndim);
}

/* ---- the table ---- */

static bool table_grow(tni_simp *s) {
    size_t cap = s->cap ? s->cap * 2 : TABLE_MIN;
    tni_simp_entry *t = tni_calloc(cap, sizeof *t);
    if (!t) return table_no_memory(s), false;
    for (size_t i = 0; i < s->cap; i++) {
        if (!s->table[i].key) continue;
        size_t at = s->table[i].hash & (cap - 1);
        while (t[at].key) at = (at + 1) & (cap - 1);
        t[at] = s->table[i];
    }
    tni_free(s->table);
    s->table = t, s->cap = cap;
    return true;
}

/* Room for one more entry and one more array to hold. */
static bool table_ready(tni_simp *s, size_t arrays) {
    if (s->n_entries * 2 >= s->cap && !table_grow(s)) return false;
    if (!tni_vec_reserve(&s->made, s->made.n + arrays)) return true;
    return table_no_memory(s), false;
}

static void table_put(tni_simp *s, uint64_t hash, tn_array *key, tn_array *value) {
    size_t at = hash & (s->cap - 1);
    while (s->table[at].key) at = (at + 1) & (s->cap - 1);
    s->table[at] = (tni_simp_entry){hash, key, value};
    s->n_entries++;
}

/* ---- constants ---- */

static size_t table_key_bytes(const tn_array *a) {
    if (!a->buf) return tn_dtype_size((tn_dtype)a->dtype);
    return (size_t)a->size * tn_dtype_size((tn_dtype)a->dtype);
}

static bool table_same_constant(const tn_array *a, const tn_array *b) {
    return tni_state_of(a) == TNI_READY && a->dtype == b->dtype && !a->buf == !b->buf &&
           tni_same_shape(a->ndim, a->shape, b->ndim, b->shape) &&
           !memcmp(tni_array_data(a), tni_array_data(b), table_key_bytes(a));
}

tn_array *tni_simp_intern(tni_simp *s, tn_array *a) {
    if (a->buf && (table_key_bytes(a) > INTERN_MAX || !tni_row_major(a))) return a;
    if (!table_ready(s, 1)) return NULL;
    uint64_t h = table_shape(a->buf ? 1 : 2, (tn_dtype)a->dtype, a->ndim, a->shape);
    h = table_bytes(h, tni_array_data(a), table_key_bytes(a));
    size_t at = h & (s->cap - 1);
    for (; s->table[at].key; at = (at + 1) & (s->cap - 1))
        if (s->table[at].hash == h && table_same_constant(s->table[at].key, a))
            return s->table[at].value;
    tni_array_retain(s->made.v[s->made.n++] = a);
    table_put(s, h, a, a);
    return a;
}

tn_array *tni_simp_number(tni_simp *s, tn_dtype dtype, const void *raw, int ndim,
                          const int64_t *shape) {
    tn_array *a = tni_array_alloc(dtype, ndim, shape);
    if (!a) {
        s->status = TN_EMEMORY;
        return NULL;
    }
    memcpy(a->inl, raw, tn_dtype_size(dtype));
    memset(a->strides, 0, sizeof *a->strides * (size_t)ndim);
    atomic_store_explicit(&a->state, TNI_READY, memory_order_relaxed);
    return a;
}

tn_array *tni_simp_uniform(tni_simp *s, tn_dtype dtype, const void *raw, int ndim,
                           const int64_t *shape) {
    tn_array *a = tni_simp_number(s, dtype, raw, ndim, shape);
    tn_array *y = a ? tni_simp_intern(s, a) : NULL;
    tni_array_release(a);
    return y;
}

/* ---- nodes ---- */

/* a op b == b op a in every bit. Complex products are left out: their rescue of infinities may
 * tell the operands apart; the larger of +0 and -0 is the second operand. */
static bool table_commutes(const tni_prim *p, const tn_array *a) {
    if (p->kind != TNI_K_EW) return false;
    switch (p->code) {
    case TNI_EW_mul:
        return a->dtype != TN_C64;
    case TNI_EW_add:
    case TNI_EW_equal:
    case TNI_EW_not_equal:
    case TNI_EW_logical_and:
    case TNI_EW_logical_or:
    case TNI_EW_logical_xor:
    case TNI_EW_bitwise_and:
    case TNI_EW_bitwise_or:
    case TNI_EW_bitwise_xor:
        return true;
    default:
        return false;
    }
}

typedef struct table_probe {
    const tni_prim *prim;
    int n_in, n_out;
    tn_array *const *in;
    const void *params;
    const tni_out_spec *spec;
    bool commutes;
} table_probe;

static uint64_t table_hash(const tni_simp *s, const table_probe *p) {
    uint64_t h = table_mix((uint64_t)p->prim->id << 8 | (uint64_t)p->n_out, (uintptr_t)s->stream);
    h = table_mix(h, (uintptr_t)p->prim);
    h = table_bytes(h, p->params, p->prim->params_size);
    if (p->commutes) {
        uint64_t a = table_mix(0, (uintptr_t)p->in[0]), b = table_mix(0, (uintptr_t)p->in[1]);
        h = table_mix(h, a + b);
    } else {
        for (int i = 0; i < p->n_in; i++) h = table_mix(h, (uintptr_t)p->in[i]);
    }
    for (int k = 0; k < p->n_out; k++)
        h = table_shape(h, p->spec[k].dtype, p->spec[k].ndim, p->spec[k].shape);
    return h;
}

static bool table_same_node(const tni_simp *s, const tn_array *key, const table_probe *p) {
    if (!tni_simp_made(s, key)) return false;
    const tni_node *n = key->node;
    if (n->prim != p->prim || n->stream != s->stream || n->n_in != p->n_in ||
        n->n_out != p->n_out ||
        (p->prim->params_size && memcmp(n->params, p->params, p->prim->params_size)))
        return false;
    bool same = !memcmp(n->in, p->in, sizeof *p->in * (size_t)p->n_in);
    if (!same && p->commutes) same = n->in[0] == p->in[1] && n->in[1] == p->in[0];
    for (int k = 0; k < p->n_out && same; k++) {
        const tn_array *y = n->out[k];
        same = y->dtype == p->spec[k].dtype &&
               tni_same_shape(y->ndim, y->shape, p->spec[k].ndim, p->spec[k].shape);
    }
    return same;
}

static tni_simp_entry *table_find(const tni_simp *s, uint64_t h, const table_probe *p) {
    size_t at = h & (s->cap - 1);
    for (; s->table[at].key; at = (at + 1) & (s->cap - 1))
        if (s->table[at].hash == h && table_same_node(s, s->table[at].key, p)) return &s->table[at];
    return NULL;
}

/* A fresh node, its outputs held. */
static bool table_node(tni_simp *s, const table_probe *p, tn_array **out) {
    s->status = tni_node_new(p->prim, p->n_in, p->in, p->params, p->n_out, p->spec, out);
    if (s->status) return false;
    out[0]->node->stream = s->stream;
    out[0]->node->mark = s->new_epoch;
    for (int k = 0; k < p->n_out; k++) s->made.v[s->made.n++] = out[k];
    return true;
}

/* ---- folding ---- */

static bool table_folds(const tni_simp *s, const table_probe *p) {
    if (p->n_out > 1) return false;
    for (int i = 0; i < p->n_in; i++)
        if (!tni_simp_constant(s, p->in[i])) return false;
    switch (p->prim->id) {
    case TNI_OP_transpose:
    case TNI_OP_slice:
    case TNI_OP_broadcast_to:
        return true; /* views cost nothing */
    case TNI_OP_reshape:
        if (tni_row_major(p->in[0])) return true;
    }
    int64_t size = 1;
    if (!tni_shape_size(p->spec->ndim, p->spec->shape, &size)) return false;
    return size <= FOLD_MAX / (int64_t)tn_dtype_size(p->spec->dtype);
}

/* The value of a second node like the first, which stays as the key. One that cannot be computed
 * (an index out of range) is left to the evaluation that needs it. */
static tn_array *table_fold(tni_simp *s, const table_probe *p, tn_array *key) {
    tn_array *y;
    if (!table_node(s, p, &y)) return NULL;
    int status = tn_eval((tn_list){&y, 1});
    if (status == TN_EMEMORY) s->status = status;
    if (status && status != TN_EMEMORY) tni_error_clear();
    if (s->status) return NULL;
    return status ? key : tni_simp_intern(s, y);
}

void tni_simp_node(tni_simp *s, const tni_prim *prim, int n_in, tn_array *const *in,
                   const void *params, int n_out, const tni_out_spec *spec, tn_array **out) {
    table_probe p = {prim, n_in, n_out, in, params, spec, n_in == 2 && table_commutes(prim, in[0])};
    for (int k = 0; k < n_out; k++) out[k] = NULL;
    if (!table_ready(s, (size_t)n_out + 2)) return;
    uint64_t h = table_hash(s, &p);
    const tni_simp_entry *e = table_find(s, h, &p);
    if (e) {
        for (int k = 0; k < n_out; k++) out[k] = n_out > 1 ? e->key->node->out[k] : e->value;
        return;
    }
    tn_array *made[TNI_MAX_OUT];
    if (!table_node(s, &p, made)) return;
    tn_array *value = table_folds(s, &p) ? table_fold(s, &p, made[0]) : made[0];
    if (!value || !table_ready(s, 0)) return;
    table_put(s, h, made[0], value);
    for (int k = 0; k < n_out; k++) out[k] = n_out > 1 ? made[k] : value;
}

/* ---- nodes with the rules ---- */

static bool table_all_uniform(const tni_simp *s, const tni_simp_op *op) {
    for (int i = 0; i < op->n_in; i++)
        if (!tni_simp_uniform_is(s, op->in[i])) return false;
    return op->n_in > 0;
}

/* The op on numbers, then repeated: equal elements stay equal. */
static tn_array *table_repeat(tni_simp *s, const tni_simp_op *op) {
    if (op->prim->kind == TNI_K_VIEW)
        return tni_simp_uniform(s, op->dtype, op->in[0]->inl, op->ndim, op->shape);
    tn_array *in[3], *y = NULL;
    for (int i = 0; i < op->n_in; i++) {
        tn_array *a = op->in[i];
        in[i] = tni_simp_uniform(s, (tn_dtype)a->dtype, a->inl, 0, NULL);
        if (!in[i]) return NULL;
    }
    tni_out_spec spec = {op->dtype, 0, NULL};
    tni_simp_node(s, op->prim, op->n_in, in, op->params, 1, &spec, &y);
    if (!y || !tni_simp_uniform_is(s, y)) return NULL;
    return tni_simp_uniform(s, op->dtype, y->inl, op->ndim, op->shape);
}

static bool table_repeats(const tni_simp *s, const tni_simp_op *op) {
    if (op->prim->kind == TNI_K_EW) return table_all_uniform(s, op);
    return op->prim->kind == TNI_K_VIEW && op->prim->id != TNI_OP_view &&
           op->prim->id != TNI_OP_custom && table_all_uniform(s, op);
}

tn_array *tni_simp_make(tni_simp *s, const tni_simp_op *op) {
    tn_array *y = NULL;
    switch (op->prim->kind) {
    case TNI_K_VIEW:
    case TNI_K_MOVE:
        y = tni_simp_view_rule(s, op);
        break;
    case TNI_K_EW:
        y = tni_simp_ew_rule(s, op);
        break;
    case TNI_K_REDUCE:
        y = tni_simp_reduce_rule(s, op);
        break;
    default:
        break;
    }
    if (!y && !s->status && table_repeats(s, op)) y = table_repeat(s, op);
    if (y || s->status) return y;
    tni_out_spec spec = {op->dtype, op->ndim, op->shape};
    tni_simp_node(s, op->prim, op->n_in, op->in, op->params, 1, &spec, &y);
    return y;
}
