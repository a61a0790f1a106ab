/* Any bytes as an exported function. The start is mended (sizes and checksums), so that changes are
 * seen by what reads the tables. What is taken is called: its graph must obey the shape rules, and
 * is run and differentiated when it is small. */
#include "base/alloc.h"
#include "core/array.h"
#include "fuzz.h"
#include "tenon/tenon.h"
#include "trans/export.h"
#include <stdlib.h>
#include <string.h>

enum { FUZZ_ELEMENTS = 5000, FUZZ_NODES = 200, FUZZ_MOST = 8 };

static void fuzz_mend(uint8_t *b, size_t size) {
    uint64_t n[2], sum[2], rest = size - EX_START;
    memcpy(n, b + 16, sizeof n);
    if (n[0] > rest) n[0] = rest;
    n[1] = rest - n[0];
    sum[0] = tni_ex_checksum(b + EX_START, n[0], 0);
    sum[1] = tni_ex_checksum(b + EX_START + n[0], n[1], 0);
    memcpy(b, EX_MAGIC, 8);
    memcpy(b + 16, n, sizeof n);
    memcpy(b + 32, sum, sizeof sum);
}

/* Work that a run would do is bounded by what it makes. */
static bool fuzz_small(const ex_trace *t) {
    bool small = t->nodes.n <= FUZZ_NODES && t->n_in <= FUZZ_MOST;
    for (uint32_t v = 0; v < t->values.n && small; v++) {
        tni_out_spec s = tni_ex_spec(t, v);
        int64_t n = 1;
        for (int i = 0; i < s.ndim; i++)
            if (__builtin_mul_overflow(n, s.shape[i], &n)) n = INT64_MAX;
        small = n <= FUZZ_ELEMENTS;
    }
    return small;
}

/* The same of a graph, for the traces that are open; a node counts as often as it is used. */
static bool fuzz_small_graph(int n, tn_array **y) {
    TNI_VEC(const tn_array *) todo = {0};
    int seen = 0;
    bool small = true;
    for (int k = 0; k < n; k++) MUST(!tni_vec_push(&todo, y[k]));
    while (todo.n && small) {
        const tn_array *a = todo.v[--todo.n];
        small = a->size <= FUZZ_ELEMENTS && ++seen < 50 * FUZZ_NODES;
        if (tni_state_of(a) != TNI_LAZY) continue;
        for (int i = 0; i < a->node->n_in; i++) MUST(!tni_vec_push(&todo, a->node->in[i]));
    }
    tni_vec_free(&todo);
    return small;
}

/* Any status will do here; crashing will not. */
static void fuzz_run(tn_imported *f, tn_list in, tn_array **y, int n) {
    tn_array *cot[FUZZ_MOST], *out[FUZZ_MOST], *grad[FUZZ_MOST], *two[FUZZ_MOST];
    int64_t axes[FUZZ_MOST] = {0};
    if (!fuzz_small_graph(n, y)) return;
    (void)!tn_eval((tn_list){y, n});
    for (int k = 0; k < n; k++) cot[k] = tn_ones_like(y[k]);
    if (!tn_vjp(tn_imported_call, f, in, (tn_list){cot, n}, out, grad) &&
        fuzz_small_graph(in.n, grad))
        (void)!tn_eval((tn_list){grad, in.n});
    if (!tn_jvp(tn_imported_call, f, in, in, n, out, grad) && fuzz_small_graph(n, grad))
        (void)!tn_eval((tn_list){grad, n});
    for (int i = 0; i < in.n; i++) two[i] = tn_stack(TN_LIST(in.v[i], in.v[i]), 0);
    if (!tn_vmap(tn_imported_call, f, (tn_list){two, in.n}, (tn_ints){axes, in.n}, n, TN_ALL,
                 out) &&
        fuzz_small_graph(n, out))
        (void)!tn_eval((tn_list){out, n});
}

/* With the sizes that were traced, or others where they are free. */
static void fuzz_call(tn_imported *f, int trace, bool other) {
    const ex_trace *t = f->f.traces.v[trace];
    tn_array *in[FUZZ_MOST], *y[FUZZ_MOST];
    int n_in = tn_imported_arguments(f, trace), n = tn_imported_results(f);
    if (n > FUZZ_MOST || n_in > FUZZ_MOST || (other && !t->open.n)) return;
    if (t->random && (other || !fuzz_small(t))) return; /* a call evaluates the next key */
    TN_SCOPE {
        bool small = fuzz_small(t);
        for (int i = 0; i < n_in; i++) {
            tn_dtype d = TN_F32;
            tn_ints open = tn_imported_argument(f, trace, i, &d);
            tni_out_spec s = tni_ex_spec(t, (uint32_t)i);
            int64_t shape[TN_MAX_NDIM];
            for (int k = 0; k < s.ndim; k++)
                shape[k] = other && open.v[k] < 0 ? 2 - open.v[k] : s.shape[k];
            in[i] = tn_ones((tn_ints){shape, s.ndim}, d);
            small = small && tn_size(in[i]) <= FUZZ_ELEMENTS;
        }
        if (tn_imported_call((tn_list){in, n_in}, y, n, f)) break;
        MUST(!tn_graph_check((tn_list){y, n}));
        if (small) fuzz_run(f, (tn_list){in, n_in}, y, n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < EX_START) {
        MUST(!tni_import_memory("memory", data, size));
        return 0;
    }
    uint8_t *b = malloc(size);
    MUST(b);
    memcpy(b, data, size);
    fuzz_mend(b, size);
    tn_imported *f = tni_import_memory("memory", b, size);
    MUST(f || *tn_error());
    for (int i = 0; f && i < tn_imported_traces(f) && i < 4; i++)
        fuzz_call(f, i, false), fuzz_call(f, i, true);
    tn_imported_free(f);
    free(b);
    return 0;
}
