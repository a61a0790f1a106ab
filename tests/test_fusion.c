/* Fusion changes no bit: random graphs of element-wise ops, casts, selections, broadcasts, views,
 * joins and reductions, evaluated whole, against the same graph evaluated op by op (which never
 * fuses anything); with results shared by several outputs, intermediates held by the scope or
 * gone, inputs given away, one thread and four, asynchronously; every ISA against the others.
 *
 *     test_fusion [first seed] [number of seeds]        digest SEED N: what an ISA computes */
#include "base/thread.h"
#include "core/array.h"
#include "core/prim.h"
#include "ops/build.h"
#include "random.h"
#include "tap.h"
#include "tenon/ops.h"
#include <math.h>
#include <stdlib.h>

static void rng_seed(uint64_t s) { rng_state = s * 0x9e3779b97f4a7c15ull + 0x632be59bd9b4e019ull; }

/* ---- Random graphs ------------------------------------------------------------------------------
 * Decisions depend on the seed, on shapes and dtypes, never on values or on what was evaluated:
 * the same seed makes the same graph however it is run. */

enum { MAX_VALUES = 64, MAX_LEAVES = 6 };
typedef struct graph {
    tn_array *v[MAX_VALUES];
    int n;
    int64_t shape[3]; /* what leaves broadcast to */
    int ndim;
    bool eager; /* evaluate every op as it is made */
    int status; /* of those evaluations */
    int out[8]; /* values asked for */
    int n_out;
} graph;

static const int ew_arity[] = {
#define EW1(...) 1,
#define EW2(...) 2,
#define EW3(...) 3,
#include "ops/elementwise.def"
#undef EW1
#undef EW2
#undef EW3
};

static tn_array *graph_add(graph *g, tn_array *a) {
    if (tn_array_status(a) || g->n == MAX_VALUES || tn_size(a) > 1 << 20) return NULL;
    if (g->eager && !g->status) g->status = tn_eval(TN_LIST(a));
    g->v[g->n++] = a;
    return a;
}

static tn_dtype any_dtype(void) {
    static const tn_dtype d[] = {TN_F32, TN_F32,  TN_F32, TN_F32, TN_F16, TN_BF16, TN_F64,
                                 TN_I32, TN_BOOL, TN_U8,  TN_I16, TN_I64, TN_C64,  TN_U32};
    return d[below(14)];
}

static double any_number(void) {
    static const double special[] = {0, -0.0, 1, -1, INFINITY, -INFINITY, NAN, 1e-42, 65504, 3e38};
    return below(24) ? (double)(int64_t)(rnd() >> 40) / 1048576.0 - 8.0 : special[below(10)];
}

/* Axes of the graph's shape, some of them 1 or (at the front) missing. */
static tn_array *leaf_new(const graph *g) {
    int64_t shape[3], size = 1;
    int skip = below(5) ? 0 : (int)below(g->ndim + 1), n = 0;
    for (int i = skip; i < g->ndim; i++) {
        shape[n] = below(5) ? g->shape[i] : 1;
        size *= shape[n++];
    }
    double *v = malloc((size_t)size * sizeof *v);
    for (int64_t i = 0; i < size; i++) v[i] = any_number();
    tn_array *a = tn_array_new(v, TN_F64, (tn_ints){shape, n});
    free(v);
    a = tn_astype(a, any_dtype());
    int status = tn_eval(TN_LIST(a));
    return status ? NULL : a;
}

static void graph_start(graph *g, bool large) {
    memset(g, 0, sizeof *g);
    g->ndim = 1 + (int)below(3);
    for (int i = 0; i < g->ndim; i++)
        g->shape[i] = large ? 1 + below(g->ndim == 1   ? 200000
                                        : g->ndim == 2 ? 500
                                                       : 60)
                            : 1 + below(i ? 40 : 9);
}

static tn_array *pick(const graph *g) {
    int64_t back = below(3) ? below(g->n < 6 ? g->n : 6) : below(g->n);
    return g->v[g->n - 1 - back];
}

static void step_view(graph *g) {
    tn_array *a = pick(g);
    int nd = tn_ndim(a), axis = nd ? (int)below(nd) : 0;
    int64_t len = nd ? tn_dim(a, axis) : 0;
    switch (below(6)) {
    case 0:
        graph_add(g, tn_transpose(a, TN_ALL));
        break;
    case 1:
        if (nd) graph_add(g, tn_flip(a, TN_AXES(axis)));
        break;
    case 2:
        if (len > 1) graph_add(g, tn_slice_axis(a, axis, below(len / 2 + 1), len - below(len / 2)));
        break;
    case 3:
        graph_add(g, tn_broadcast_to(a, (tn_ints){g->shape, g->ndim}));
        break;
    case 4:
        graph_add(g, tn_reshape(a, TN_SHAPE(-1)));
        break;
    default:
        graph_add(g, tn_expand_dims(a, TN_AXES(nd ? axis : 0)));
    }
}

static void step_reduce(graph *g) {
    static tn_array *(*const f[])(tn_array *, tn_ints, bool) = {
#define RED(name, ...) tn_##name,
#include "ops/reduce.def"
#undef RED
    };
    tn_array *a = pick(g);
    int nd = tn_ndim(a);
    if (!nd) return;
    int64_t axes[3], n = 0;
    for (int i = 0; i < nd && n < 3; i++)
        if (below(2)) axes[n++] = i;
    graph_add(g, f[below((int64_t)(sizeof f / sizeof *f))](a, (tn_ints){axes, (int)n}, below(3)));
}

static void step_join(graph *g) {
    tn_array *a = pick(g), *b = pick(g);
    if (!tn_ndim(a)) return;
    int axis = (int)below(tn_ndim(a));
    if (below(2)) {
        graph_add(g, tn_concatenate(TN_LIST(a, tn_astype(b, tn_dtype_of(a))), axis));
        return;
    }
    int64_t start[16] = {0};
    tn_array *part = tn_slice_axis(a, axis, 0, tn_dim(a, axis) / 2);
    start[axis] = tn_dim(a, axis) - tn_dim(part, axis);
    graph_add(g, tn_slice_update(a, tn_square(part), (tn_ints){start, tn_ndim(a)}, TN_ALL));
}

static void step_ew(graph *g) {
    int e = (int)below(TNI_EW_COUNT);
    tn_array *in[3] = {pick(g), pick(g), pick(g)};
    if (ew_arity[e] == 2 && !below(4))
        in[1] = below(2) ? tn_f32(any_number()) : tn_i32(below(9) - 3);
    if (ew_arity[e] == 2 && !below(8)) in[0] = tn_f32(below(9) - 3);
    if (e == TNI_EW_where) in[0] = tn_less(in[0], in[1]);
    graph_add(g, tni_ew(e, ew_arity[e], in));
}

static void graph_grow(graph *g, int steps) {
    while (steps-- > 0) switch (below(12)) {
        case 0:
            step_view(g);
            break;
        case 1:
            graph_add(g, tn_astype(pick(g), any_dtype()));
            break;
        case 2:
            step_reduce(g);
            break;
        case 3:
            if (!below(3)) step_join(g);
            break;
        default:
            step_ew(g);
        }
    g->out[g->n_out++] = g->n - 1;
    for (int64_t extra = below(4); extra > 0; extra--) g->out[g->n_out++] = (int)below(g->n);
}

/* ---- Results: bytes, in which a NaN equals any NaN
 * ------------------------------------------------- */

static void canonical_nan(tn_dtype d, char *p, size_t n) {
    size_t size = d == TN_C64 ? 4 : tn_dtype_size(d);
    if (d == TN_F64) {
        for (size_t i = 0; i + 8 <= n; i += 8) {
            double x;
            memcpy(&x, p + i, 8);
            if (x != x) memset(p + i, 0xff, 8);
        }
        return;
    }
    uint32_t inf = d == TN_F16 ? 0x7c00u : d == TN_BF16 ? 0x7f80u : 0x7f800000u;
    uint32_t mask = size == 2 ? 0x7fffu : 0x7fffffffu;
    if (d < TN_F16) return;
    for (size_t i = 0; i + size <= n; i += size) {
        uint32_t u = 0;
        memcpy(&u, p + i, size);
        if ((u & mask) > inf) memset(p + i, 0xff, size);
    }
}

typedef struct bytes {
    char *p;
    size_t n;
} bytes;

static bytes bytes_of(tn_array *a) {
    bytes b = {NULL, tn_nbytes(a)};
    const void *data = tn_data(a);
    if (!data) return (bytes){NULL, SIZE_MAX};
    b.p = malloc(b.n + 1);
    memcpy(b.p, data, b.n);
    canonical_nan(tn_dtype_of(a), b.p, b.n);
    return b;
}
static bool bytes_same(const bytes *a, const bytes *b) {
    return a->n == b->n && a->n != SIZE_MAX && !memcmp(a->p, b->p, a->n);
}

/* ---- One graph in one way
 * ---------------------------------------------------------------------------- */

enum mode {
    EAGER, /* op by op: nothing is ever fused */
    WHOLE, /* at once, every intermediate still held by the scope, and read afterwards */
    GONE,  /* at once, intermediates and leaves given away with their scope */
    ASYNC  /* on the stream's worker */
};

typedef struct result {
    bytes out[8], all[MAX_VALUES];
    int n_out, n_all, status;
} result;

static void result_free(result *r) {
    for (int i = 0; i < r->n_out; i++) free(r->out[i].p);
    for (int i = 0; i < r->n_all; i++) free(r->all[i].p);
}

static int graph_outputs(const graph *g, tn_array **list) {
    int n = 0;
    for (int i = 0; i < g->n_out; i++) {
        bool twice = false;
        for (int k = 0; k < n; k++) twice |= list[k] == g->v[g->out[i]];
        if (!twice) list[n++] = g->v[g->out[i]];
    }
    return n;
}

static void graph_make(graph *g, uint64_t seed, enum mode mode) {
    rng_seed(seed);
    graph_start(g, seed % 16 == 0);
    int leaves = 2 + (int)below(MAX_LEAVES - 2);
    for (int i = 0; i < leaves; i++) g->v[g->n++] = leaf_new(g);
    g->eager = mode == EAGER;
    graph_grow(g, 3 + (int)below(seed % 5 ? 14 : 45));
}

/* The leaves must be what they were made as, whatever was computed from them. */
static bool leaves_intact(const graph *g, uint64_t seed) {
    graph fresh;
    bool good = true;
    rng_seed(seed);
    graph_start(&fresh, seed % 16 == 0);
    int leaves = 2 + (int)below(MAX_LEAVES - 2);
    for (int i = 0; i < leaves; i++) {
        bytes a = bytes_of(leaf_new(&fresh)), b = bytes_of(g->v[i]);
        good = good && bytes_same(&a, &b);
        free(a.p), free(b.p);
    }
    return good;
}

static void run_held(graph *g, uint64_t seed, enum mode mode, result *r) {
    tn_array *list[8];
    r->n_out = graph_outputs(g, list);
    r->status = mode == ASYNC ? tn_async_eval((tn_list){list, r->n_out})
                              : tn_eval((tn_list){list, r->n_out});
    for (int i = 0; i < r->n_out; i++) r->out[i] = bytes_of(list[i]);
    for (r->n_all = 0; mode != ASYNC && r->n_all < g->n; r->n_all++)
        r->all[r->n_all] = bytes_of(g->v[r->n_all]);
    if (!r->status && !leaves_intact(g, seed)) r->status = 1;
}

static void run_graph(uint64_t seed, enum mode mode, result *r) {
    graph g;
    memset(r, 0, sizeof *r);
    tn_scope *outer = tn_scope_begin(), *inner = tn_scope_begin();
    graph_make(&g, seed, mode);
    r->status = g.status;
    if (mode == GONE) {
        tn_array *list[8];
        r->n_out = graph_outputs(&g, list);
        r->status = tn_scope_eval(inner, (tn_list){list, r->n_out});
        for (int i = 0; i < r->n_out; i++) r->out[i] = bytes_of(list[i]);
    } else
        run_held(&g, seed, mode, r);
    tn_scope_end(outer);
}

static const char *const mode_names[] = {"op by op", "whole", "given away", "asynchronous"};

static bool same_results(const result *want, const result *got, uint64_t seed, enum mode mode,
                         int threads) {
    bool good = !got->status && want->n_out == got->n_out;
    for (int i = 0; good && i < want->n_out; i++) {
        good = bytes_same(&want->out[i], &got->out[i]);
        if (!good) diag("output %d differs", i);
    }
    for (int i = 0; good && i < got->n_all; i++) {
        good = bytes_same(&want->all[i], &got->all[i]);
        if (!good) diag("value %d differs when it is read later", i);
    }
    if (!good)
        diag("seed %" PRIu64 " %s with %d threads: status %d %s", seed, mode_names[mode], threads,
             got->status, got->status ? tn_error() : "");
    return good;
}

static int check_seed(uint64_t seed) {
    result want, got;
    int bad = tni_set_threads(1) != 0;
    run_graph(seed, EAGER, &want);
    bad += want.status != 0;
    for (int threads = 1; threads <= 4; threads += 3)
        for (int mode = WHOLE; mode <= ASYNC; mode++) {
            bad += tni_set_threads(threads) != 0;
            run_graph(seed, (enum mode)mode, &got);
            bad += !same_results(&want, &got, seed, (enum mode)mode, threads);
            result_free(&got);
        }
    result_free(&want);
    return bad;
}

static void test_fused(uint64_t first, int count) {
    int bad = 0;
    for (int i = 0; i < count; i++) bad += check_seed(first + (uint64_t)i);
    ok(!bad, "%d random graphs: whole, given away, asynchronous as op by op, 1 and 4 threads",
       count);
}

/* ---- ISA against ISA
 * ------------------------------------------------------------------------------- */

static uint64_t digest(uint64_t first, int count) {
    uint64_t h = 0xcbf29ce484222325ull;
    for (int i = 0; i < count; i++) {
        result r;
        run_graph(first + (uint64_t)i, GONE, &r);
        for (int k = 0; k < r.n_out; k++)
            for (size_t b = 0; r.out[k].p && b < r.out[k].n; b++)
                h = (h ^ (unsigned char)r.out[k].p[b]) * 0x100000001b3ull;
        result_free(&r);
    }
    return h;
}

static void digest_of(const char *self, const char *isa, int count, char *isa_got, char *text) {
    char cmd[4096];
    isa_got[0] = text[0] = '\0';
    snprintf(cmd, sizeof cmd, "TENON_ISA=%s %s '%s' digest 1 %d", isa, tap_runner(), self, count);
    FILE *f = popen(cmd, "r");
    if (f && fscanf(f, "%15s %31s", isa_got, text) != 2) text[0] = '\0';
    if (f) pclose(f);
}

static void test_isas(const char *self, int count) {
    static const char *const isas[] = {"ref", "neon", "avx2", "avx512"};
    char want[32], got[32], name[16];
    digest_of(self, "ref", count, name, want);
    ok(!strcmp(name, "ref") && want[0], "ref computes %d graphs: %s", count, want);
    for (size_t i = 1; i < sizeof isas / sizeof *isas; i++) {
        digest_of(self, isas[i], count, name, got);
        if (strcmp(name, isas[i]))
            skip("not on this machine", "%s", isas[i]);
        else
            is_str(got, want, "%s computes the same bits", isas[i]);
    }
}

/* ---- What random graphs found -------------------------------------------------------------------
 */

static void test_found(void) {
    TN_SCOPE {
        tn_array *a = tn_zeros(TN_SHAPE(2, 1), TN_F32), *b = tn_zeros(TN_SHAPE(1, 37, 1), TN_F32);
        is_i64(tn_array_status(tn_add(a, b)), TN_ESHAPE, "[2,1] and [1,37,1] do not broadcast");
        tn_array *c = tn_add(tn_zeros(TN_SHAPE(3, 1), TN_F32), tn_zeros(TN_SHAPE(4, 1, 5), TN_F32));
        ok(tn_ndim(c) == 3 && tn_dim(c, 0) == 4 && tn_dim(c, 1) == 3 && tn_dim(c, 2) == 5,
           "[3,1] and [4,1,5] make [4,3,5]");
    }
    TN_SCOPE { /* a stored member beside a last value that only a join uses */
        tn_array *x = tn_arange(0, 6, 1, TN_I32), *y = tn_square(x), *z = tn_astype(y, TN_F32);
        tn_array *j = tn_concatenate(TN_LIST(z, z), 0);
        ok(!tn_eval(TN_LIST(j, y)) && tn_data_f32(j) && tn_data_f32(j)[11] == 25,
           "the last value of a group is stored though another is");
    }
    TN_SCOPE { /* a number's cast, folded, against the kernel's */
        tn_array *v[4] = {tn_scalar(-6.5, TN_F32), tn_scalar(1e30, TN_F32), tn_scalar(NAN, TN_F32),
                          tn_scalar(-1e30, TN_F64)};
        static const tn_dtype to[] = {TN_U8, TN_U32, TN_U64, TN_I8, TN_I16, TN_I32, TN_I64};
        int bad = 0;
        for (int i = 0; i < 4; i++)
            for (size_t k = 0; k < sizeof to / sizeof *to; k++) {
                tn_array *wide = tn_broadcast_to(v[i], TN_SHAPE(3));
                tn_array *one = tn_slice_axis(tn_astype(wide, to[k]), 0, 1, 2);
                bad += tn_item_i64(tn_astype(v[i], to[k])) != tn_item_i64(one);
            }
        ok(!bad, "numbers out of range convert as arrays do");
        uint64_t big = 0x8000000000000401u;
        tn_array *u = tn_array_new(&big, TN_U64, TN_SHAPE()), *f = tn_astype(u, TN_F32);
        ok(tn_item_f32(f) == (float)big, "u64 past 2^63 to f32");
        ok(tn_item_f32(tn_astype(tn_scalar(1.00048828125 + 1e-9, TN_F64), TN_F16)) == 1.0009765625f,
           "f64 to f16 rounds once");
    }
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "digest")) {
        printf("%s %016" PRIx64 "\n", tn_isa(), digest(strtoull(argv[2], NULL, 0), atoi(argv[3])));
        tni_pool_shutdown();
        return 0;
    }
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    int count = argc > 2 ? atoi(argv[2]) : tap_runner()[0] ? 100 : 400; /* emulators are slow */
    test_found();
    test_fused(first, count);
    test_isas(argv[0], count / 2);
    tni_pool_shutdown();
    return tap_done();
}
