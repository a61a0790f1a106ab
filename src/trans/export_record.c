/* The records of exported functions: what both ends, writing and reading, need. */
#include "base/err.h"
#include "core/shape.h"
#include "trans/export.h"
#include <stdio.h>
#include <string.h>

void tni_ex_trace_free(ex_trace *t) {
    if (!t) return;
    for (size_t k = 0; k < t->nodes.n; k++) tni_prim_release(t->nodes.v[k].prim);
    tni_vec_free(&t->values);
    tni_vec_free(&t->shapes);
    tni_vec_free(&t->nodes);
    tni_vec_free(&t->operands);
    tni_vec_free(&t->params);
    tni_vec_free(&t->results);
    tni_vec_free(&t->open);
    tni_vec_free(&t->steps);
    tni_vec_free(&t->sizes);
    tni_vec_free(&t->patches);
    tni_free(t);
}

void tni_ex_function_free(ex_function *f) {
    for (size_t i = 0; i < f->traces.n; i++) tni_ex_trace_free(f->traces.v[i]);
    for (size_t i = 0; i < f->constants.n; i++) tni_array_release(f->constants.v[i]);
    tni_vec_free(&f->traces);
    tni_vec_free(&f->constants);
    tni_free(f->text);
    f->text = NULL;
}

int tni_ex_value(ex_trace *t, tn_dtype dtype, int ndim, const int64_t *shape) {
    if (t->values.n >= EX_MOST_VALUES)
        return tni_fail(TN_EVALUE, "export: more than %d values", EX_MOST_VALUES);
    ex_value v = {(uint8_t)dtype, (uint8_t)ndim, t->shapes.n};
    if (tni_vec_reserve(&t->shapes, t->shapes.n + (size_t)ndim) || tni_vec_push(&t->values, v))
        return tni_fail_memory(sizeof v, "a trace");
    if (ndim) memcpy(t->shapes.v + t->shapes.n, shape, sizeof *shape * (size_t)ndim);
    t->shapes.n += (size_t)ndim;
    return 0;
}

bool tni_ex_same_inputs(const ex_trace *a, const ex_trace *b) {
    bool same = a->n_in == b->n_in;
    for (uint32_t i = 0; i < a->n_in && same; i++) {
        tni_out_spec x = tni_ex_spec(a, i), y = tni_ex_spec(b, i);
        same = x.dtype == y.dtype && tni_same_shape(x.ndim, x.shape, y.ndim, y.shape);
    }
    return same;
}

char *tni_ex_signature(const ex_trace *t, char *buf, size_t n) {
    char s[TNI_SHAPE_STR];
    size_t at = (size_t)snprintf(buf, n, "(");
    for (uint32_t i = 0; i < t->n_in && at < n; i++) {
        tni_out_spec x = tni_ex_spec(t, i);
        if (t->open.n) x.shape = t->open.v + t->values.v[i].shape; /* arguments' shapes are first */
        at += (size_t)snprintf(buf + at, n - at, "%s%s%s", i ? ", " : "", tn_dtype_name(x.dtype),
                               tni_shape_str(x.ndim, x.shape, s, sizeof s));
    }
    if (at < n) at += (size_t)snprintf(buf + at, n - at, ")");
    if (at >= n && n > 4) memcpy(buf + n - 4, "...", 4);
    return buf;
}

/* Each step is one to one in the sum so far and in the word, so no change of one word goes
 * unseen; 5 GB/s. */
uint64_t tni_ex_checksum(const void *data, size_t n, uint64_t start) {
    const unsigned char *p = data;
    uint64_t h = start;
    for (; n; p += n < 8 ? n : 8, n -= n < 8 ? n : 8) {
        uint64_t w = 0;
        memcpy(&w, p, n < 8 ? n : 8);
        h = (h ^ w) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h;
}
