/* Kernels against their lowering: every primitive that ops/lower.h can say in simpler ops, over
 * dtypes, layouts and options, in f32 both ways where the kernel computes in f32, else within
 * the rounding of the dtype. A primitive with a lowering and no case here fails the test. */
#include "base/thread.h"
#include "core/array.h"
#include "core/prim.h"
#include "ops/build.h"
#include "random.h"
#include "tap.h"
#include "tenon/ops.h"
#include <math.h>

static bool seen[TNI_OP_COUNT];

static tn_array *noise(tn_ints shape, tn_dtype d) {
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++) n *= shape.v[i];
    float *v = malloc((size_t)(n ? n : 1) * sizeof *v);
    for (int64_t i = 0; i < n; i++) {
        double u = 0; /* about normal */
        for (int k = 0; k < 4; k++) u += (double)(rnd() >> 11) * 0x1p-53 - 0.5;
        v[i] = (float)(1.7 * u);
    }
    tn_array *a = tn_astype(tn_array_new(v, TN_F32, shape), d);
    free(v);
    return a;
}

static double tolerance(tn_dtype d) {
    return d == TN_F16 ? 2e-3 : d == TN_BF16 ? 1.6e-2 : d == TN_F64 ? 1e-12 : 4e-6;
}

/* y is an unevaluated result of a primitive: the kernel's value against the lowering's. */
static void check(tn_array *y, double tol, const char *what) {
    if (tn_array_status(y) || tni_state_of(y) != TNI_LAZY) {
        ok(0, "%s: %s", what, tn_array_error(y));
        return;
    }
    tni_node *n = y->node;
    seen[n->prim->id] = true;
    tn_array *low[TNI_MAX_OUT] = {NULL};
    int status = n->prim->lower(n, low), bad = 0, which = 0;
    while (n->out[which] != y) which++;
    tn_array *l = low[which];
    bool alike = !status && tn_dtype_of(l) == tn_dtype_of(y) && tn_ndim(l) == tn_ndim(y);
    for (int i = 0; alike && i < tn_ndim(y); i++) alike = tn_dim(l, i) == tn_dim(y, i);
    /* Both at once: the node must be there for its kernel. */
    if (!status) status = tn_eval(TN_LIST(l, y));
    size_t count = (size_t)tn_size(y), bytes = count * sizeof(double);
    double *a = malloc(bytes + 8), *b = malloc(bytes + 8), worst = 0;
    if (!status) status = tn_read(y, TN_F64, a, bytes);
    if (!status) status = tn_read(l, TN_F64, b, bytes);
    for (size_t i = 0; !status && i < count; i++) {
        double e = fabs(a[i] - b[i]) / (1 + fabs(b[i]));
        if (!(e <= tol) && !(isnan(a[i]) && isnan(b[i])) && bad++ < 3)
            diag("%s: element %zu: kernel %.9g, lowering %.9g", what, i, a[i], b[i]);
        if (e > worst) worst = e;
    }
    free(a), free(b);
    if (status) diag("%s", tn_error());
    ok(!status && alike && !bad && count, "%s, %s: within %.1e of its lowering (%.1e)", what,
       tn_dtype_name(tn_dtype_of(y)), tol, worst);
}

static const tn_dtype floats[] = {TN_F32, TN_F16, TN_BF16, TN_F64};

static void test_softmax(tn_dtype d) {
    double tol = tolerance(d);
    TN_SCOPE {
        check(tn_softmax(noise(TN_SHAPE(5, 3, 77), d), TN_AXES(-1)), tol, "softmax");
        check(tn_softmax(noise(TN_SHAPE(3, 5000), d), TN_AXES(-1)), tol, "softmax of long rows");
        check(tn_softmax(tn_transpose(noise(TN_SHAPE(33, 7), d), TN_ALL), TN_AXES(-1)), tol,
              "softmax of a transposed matrix");
        tn_array *x = noise(TN_SHAPE(4, 65), d);
        check(tn_softmax(tn_mul(x, tn_f32(30)), TN_AXES(-1)), tol, "softmax of large numbers");
        tn_array *none = tn_scalar(-(double)INFINITY, d);
        check(tn_softmax(tn_where(tn_less(x, tn_f32(0)), none, x), TN_AXES(-1)), tol,
              "softmax with -inf");
        check(tn_softmax(noise(TN_SHAPE(9, 1), d), TN_AXES(-1)), tol, "softmax of single numbers");
    }
}

static void test_norms(tn_dtype d) {
    double tol = tolerance(d) * 2;
    TN_SCOPE {
        tn_array *x = tn_add(noise(TN_SHAPE(2, 5, 130), d), tn_f32(0.3));
        tn_array *w = noise(TN_SHAPE(130), d), *b = noise(TN_SHAPE(130), d),
                 *w32 = noise(TN_SHAPE(130), TN_F32);
        check(tn_fast_rms_norm(x, w, 1e-5), tol, "rms_norm");
        check(tn_fast_rms_norm(x, w32, 1e-5), tol, "rms_norm, weight in f32");
        check(tn_fast_rms_norm(x, NULL, 1e-6), tol, "rms_norm without weight");
        check(tn_fast_rms_norm(tn_slice_axis(x, -1, 3, 70), NULL, 1e-6), tol,
              "rms_norm of a slice");
        check(tn_fast_layer_norm(x, w, b, 1e-5), tol, "layer_norm");
        check(tn_fast_layer_norm(x, w, NULL, 1e-5), tol, "layer_norm without bias");
        check(tn_fast_layer_norm(x, NULL, b, 1e-5), tol, "layer_norm without weight");
        check(tn_fast_layer_norm(tn_swapaxes(x, 0, 1), NULL, NULL, 1e-5), tol,
              "layer_norm of a transposed array");
    }
}

static void test_rope(tn_dtype d) {
    double tol = (d == TN_F64 ? tolerance(TN_F32) : tolerance(d)) * 5; /* angles are f32 */
    TN_SCOPE {
        tn_array *x = noise(TN_SHAPE(2, 3, 5, 24), d), *at = tn_scalar_i64(7, TN_I32);
        tn_array *per = tn_array_new((int32_t[]){3, 11}, TN_I32, TN_SHAPE(2));
        tn_array *freqs = tn_add(tn_arange(1, 9, 1, TN_F32), tn_f32(0.5));
        check(tn_fast_rope(x, 24, at, NULL), tol, "rope");
        check(tn_fast_rope(x, 24, per, TN_OPT(tn_rope_opt, .traditional = true)), tol,
              "rope, pairs side by side, an offset a batch");
        check(tn_fast_rope(x, 16, at, TN_OPT(tn_rope_opt, .base = 500, .scale = 0.25)), tol,
              "rope of a part, base and scale");
        check(tn_fast_rope(x, 16, per, TN_OPT(tn_rope_opt, .freqs = freqs)), tol,
              "rope with wavelengths");
        check(tn_fast_rope(x, 16, at, TN_OPT(tn_rope_opt, .freqs = freqs, .traditional = true)),
              tol, "rope with wavelengths, pairs side by side");
        check(tn_fast_rope(tn_swapaxes(x, 1, 2), 24, at, NULL), tol, "rope of a transposed array");
    }
}

static tn_array *attend(tn_array *q, tn_array *k, tn_array *v, bool causal, tn_array *mask,
                        tn_array *sinks) {
    return tn_fast_scaled_dot_product_attention(
        q, k, v, 0.25, TN_OPT(tn_sdpa_opt, .causal = causal, .mask = mask, .sinks = sinks));
}

typedef struct attention {
    bool causal, sinks;
    tn_array *mask;
} attention;

static int attention_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    const attention *a = ud;
    (void)n_out;
    out[0] = attend(in.v[0], in.v[1], in.v[2], a->causal, a->mask, a->sinks ? in.v[3] : NULL);
    return 0;
}

/* The gradients of attention: one kernel makes them all. Keys and values sum over many queries. */
static void check_attention_grads(tn_list in, attention *a, double tol, const char *what) {
    static const char *const of[] = {"queries", "keys", "values", "sinks"};
    const tn_array *q = in.v[0];
    int64_t n = tn_dim(q, 2), n_in = 3 + a->sinks;
    if (tn_dtype_of(q) == TN_F64) return; /* through the lowering */
    TN_SCOPE {
        for (int i = 0; i < n_in; i++) {
            char s[160];
            tn_array *y, *g[4];
            tn_array *cot = noise(TN_SHAPE(tn_dim(q, 0), tn_dim(q, 1), n, 20), tn_dtype_of(q));
            (void)tn_vjp(attention_fns, a, (tn_list){in.v, (int)n_in}, TN_LIST(cot), &y, g);
            snprintf(s, sizeof s, "%s, gradient of the %s", what, of[i]);
            check(g[i], i < 3 ? tol : 1e-4, s);
        }
    }
}

static void test_sdpa(tn_dtype d, int64_t lq, int64_t lk, const char *what) {
    double tol = tolerance(d) * 4;
    char s[96];
    TN_SCOPE {
        tn_array *q = noise(TN_SHAPE(2, 6, lq, 32), d), *k = noise(TN_SHAPE(2, 2, lk, 32), d),
                 *v = noise(TN_SHAPE(2, 2, lk, 20), d), *one = noise(TN_SHAPE(6), d);
        tn_array *add = noise(TN_SHAPE(6, lq, lk), d);
        tn_array *look = tn_less(noise(TN_SHAPE(2, 1, lq, lk), TN_F32), tn_f32(0.4));
        tn_array *never = tn_greater(noise(TN_SHAPE(lq, 1), TN_F32), tn_f32(0.5));
        look = tn_logical_and(look, tn_logical_not(never)); /* rows that may look nowhere */
        static const char *const kinds[] = {"", ", sinks", ", sinks of a batch"};
        static const char *const names[] = {"no mask", "causal", "bool mask", "additive mask"};
        for (int m = 0; m < 4; m++)
            for (int sink = 0; sink < 3; sink++) {
                snprintf(s, sizeof s, "attention of %s, %s%s", what, names[m], kinds[sink]);
                tn_array *sinks = sink == 2 ? noise(TN_SHAPE(2, 6), d) : one;
                if (m == 1 && lq > lk) continue;
                check(attend(q, k, v, m == 1,
                             m == 2   ? look
                             : m == 3 ? add
                                      : NULL,
                             sink ? sinks : NULL),
                      tol, s);
                if (m < 3)
                    check_attention_grads(
                        TN_LIST(q, k, v, tn_astype(sinks, TN_F32)),
                        &(attention){.causal = m == 1, .sinks = sink, .mask = m == 2 ? look : NULL},
                        tol, s);
            }
        /* heads and positions swapped in memory, as they come from a projection */
        tn_array *qt = tn_swapaxes(noise(TN_SHAPE(2, lq, 6, 32), d), 1, 2);
        tn_array *kt = tn_swapaxes(noise(TN_SHAPE(2, lk, 2, 32), d), 1, 2);
        snprintf(s, sizeof s, "attention of %s, views", what);
        check(attend(qt, kt, v, lq <= lk, NULL, NULL), tol, s);
        check_attention_grads(TN_LIST(qt, kt, v), &(attention){.causal = lq <= lk}, tol, s);
    }
}

/* Two planes of int8 hold activations to 2^-15 of their largest; 384 terms of about 1 add up. */
static int norm_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    int kind = *(int *)ud; /* bits: centre, weight, bias */
    tn_array *w = kind & 2 ? in.v[1] : NULL, *b = kind & 4 ? in.v[in.n - 1] : NULL;
    (void)n_out;
    out[0] =
        kind & 1 ? tn_fast_layer_norm(in.v[0], w, b, 1e-3) : tn_fast_rms_norm(in.v[0], w, 1e-3);
    return 0;
}

/* Gradients of the norms; those of weight and bias are sums over 131 rows, in three blocks. */
static void test_norm_vjp(tn_dtype d) {
    for (int kind = 0; kind < 8 && d != TN_F64; kind++) {
        int n = 1 + (kind >> 1 & 1) + (kind >> 2 & 1);
        for (int i = 0; i < n && (kind & 1 || kind < 4); i++)
            TN_SCOPE {
                char s[64];
                tn_array *in[3] = {noise(TN_SHAPE(131, 77), d), noise(TN_SHAPE(77), d), NULL};
                tn_array *y, *g[3];
                if (n == 3) in[2] = noise(TN_SHAPE(77), d);
                (void)tn_vjp(norm_fns, &kind, (tn_list){in, n},
                             TN_LIST(noise(TN_SHAPE(131, 77), d)), &y, g);
                snprintf(s, sizeof s, "gradient %d of a norm of kind %d", i, kind);
                check(g[i], i ? 1e-4 + tolerance(d) : tolerance(d) * 4, s);
            }
    }
}

static int pool_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    const tn_spatial *s = ud;
    (void)n_out;
    out[0] =
        s[3].n ? tn_avg_pool(in.v[0], s[0], s[1], s[2]) : tn_max_pool(in.v[0], s[0], s[1], s[2]);
    return 0;
}

/* Pooling and its gradient; whole numbers, so that many are equally large. */
static void check_pool(tn_array *x, tn_spatial kernel, tn_spatial stride, tn_spatial pad,
                       const char *what) {
    for (int mean = 0; mean < 2; mean++)
        TN_SCOPE {
            tn_spatial s[4] = {kernel, stride, pad, {{0}, mean}};
            tn_dtype d = tn_dtype_of(x);
            tn_array *y, *g, *pooled;
            (void)pool_fns(TN_LIST(x), &pooled, 1, s);
            check(pooled, tolerance(d), what);
            (void)tn_vjp(pool_fns, s, TN_LIST(x), TN_LIST(noise(tn_shape(pooled), d)), &y, &g);
            check(g, tolerance(d) * 4, what);
        }
}
static void test_pool(tn_dtype d) {
    tn_spatial none = {{0}, 0};
    TN_SCOPE {
        tn_array *x = tn_round(noise(TN_SHAPE(3, 8, 6, 35), d));
        check_pool(x, TN_SPATIAL(2), none, none, "windows side by side");
        check_pool(x, TN_SPATIAL(3, 2), TN_SPATIAL(2, 1), TN_SPATIAL(1), "windows that overlap");
        check_pool(x, TN_SPATIAL(2), TN_SPATIAL(3), none, "windows apart");
        check_pool(tn_round(noise(TN_SHAPE(1, 4, 3, 5, 150), d)), TN_SPATIAL(2), TN_SPATIAL(1),
                   TN_SPATIAL(1), "three axes, blocks of channels");
        check_pool(tn_round(noise(TN_SHAPE(40, 9, 1), d)), TN_SPATIAL(4), TN_SPATIAL(2),
                   TN_SPATIAL(3), "one axis, one channel");
        x = noise(TN_SHAPE(2, 6, 6, 20), d);
        x = tn_where(tn_greater(x, tn_f32(1.5)), tn_scalar((double)NAN, d), x);
        check_pool(x, TN_SPATIAL(2), none, none, "windows with NaN");
    }
}

static void test_quantized(void) {
    static const int bits[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
    char s[96];
    for (int b = 0; b < 6; b++)
        for (int g = 0; g < 3; g++)
            for (int transpose = 0; transpose < 2; transpose++)
                for (int m = 1; m <= 9; m += 8)
                    TN_SCOPE {
                        tn_array *w = noise(TN_SHAPE(256, 384), TN_F32), *q[3];
                        tn_quantize(w, groups[g], bits[b], q);
                        tn_array *x = noise(TN_SHAPE(m, transpose ? 384 : 256), TN_F32);
                        snprintf(s, sizeof s, "quantized_matmul, %d bits, group %d, %s, %d rows",
                                 bits[b], groups[g], transpose ? "transposed" : "plain", m);
                        check(
                            tn_quantized_matmul(x, q[0], q[1], q[2], transpose, groups[g], bits[b]),
                            3e-3, s);
                    }
}

static void test_coverage(void) {
    for (int i = 0; i < TNI_OP_COUNT; i++)
        if (tni_prims[i].name && tni_prims[i].lower)
            ok(seen[i], "%s was compared with its lowering", tni_prims[i].name);
}

int main(void) {
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        test_softmax(floats[i]);
        test_pool(floats[i]);
        test_norm_vjp(floats[i]);
        test_norms(floats[i]);
        test_rope(floats[i]);
        test_sdpa(floats[i], 1, 37, "one query");
        test_sdpa(floats[i], 19, 19, "a square");
        test_sdpa(floats[i], 5, 300, "few queries");
        test_sdpa(floats[i], 9, 4, "few keys");
        test_sdpa(floats[i], 70, 130, "two blocks of rows");
    }
    test_quantized();
    test_coverage();
    tni_pool_shutdown();
    return tap_done();
}
