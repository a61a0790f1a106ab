/* Gradients of attention, of many calls at once, and of running log-sums take memory that grows
 * with the length, not with its square: as compiled, and of the process while it runs. */
#include "random.h"
#include "tap.h"
#include "tenon/tenon.h"
#include "values.h"

enum { CALLS = 3, HEADS = 4, KV = 2, D = 8 };

typedef struct setting {
    const char *name;
    tn_dtype dtype;
    bool causal, sinks;
    int mask; /* 1: for all calls, 2: one each, 3: an additive one each */
} setting;

static int loss(tn_list in, tn_array **out, int n_out, void *ud) {
    const setting *s = ud;
    tn_sdpa_opt opt = {.size = sizeof opt, .causal = s->causal};
    int n = 3;
    (void)n_out;
    if (s->mask) opt.mask = in.v[n++];
    if (s->sinks) opt.sinks = in.v[n++];
    tn_array *y = tn_fast_scaled_dot_product_attention(in.v[0], in.v[1], in.v[2], 0.35, &opt);
    out[0] = tn_sum(tn_square(y), TN_ALL, false);
    return 0;
}

static int gradients(tn_list in, tn_array **out, int n_out, void *ud) {
    const setting *s = ud;
    tn_array *value;
    return tn_value_and_grad_of(loss, ud, in, (int[]){0, 1, 2, s->mask ? 4 : 3}, n_out, 1, &value,
                                out);
}

static int mapped(tn_list in, tn_array **out, int n_out, void *ud) {
    const setting *s = ud;
    int64_t axes[5] = {0, 0, 0, 0, 0};
    if (s->mask == 1) axes[3] = TN_UNMAPPED;
    return tn_vmap(gradients, ud, in, (tn_ints){axes, in.n}, n_out, TN_ALL, out);
}

static tn_array *noise(tn_ints shape, tn_dtype d) {
    tn_array *key = tn_random_key(below(1000));
    return tn_astype(tn_random_uniform(tn_f32(-1), tn_f32(1), shape, TN_F32, key), d);
}

static int inputs(const setting *s, int64_t length, tn_array **in) {
    int n = 0;
    in[n++] = noise(TN_SHAPE(CALLS, 1, HEADS, length, D), s->dtype);
    in[n++] = noise(TN_SHAPE(CALLS, 1, KV, length, D), s->dtype);
    in[n++] = noise(TN_SHAPE(CALLS, 1, KV, length, D), s->dtype);
    if (s->mask) {
        tn_array *m = s->mask == 1 ? noise(TN_SHAPE(length, length), TN_F32)
                                   : noise(TN_SHAPE(CALLS, 1, 1, length, length), TN_F32);
        in[n++] = s->mask == 3 ? m : tn_greater(m, tn_f32(-0.5));
    }
    if (s->sinks) in[n++] = noise(TN_SHAPE(CALLS, HEADS), TN_F32);
    return tn_eval((tn_list){in, n}) ? -1 : n;
}

/* Bytes at most while it runs, and those of the plan. */
static bool memory_of(tn_fns fn, void *ud, tn_list in, int n_out, double *peak, double *plan) {
    tn_array *g[4];
    int status = 0;
    tn_compiled *c = tn_compile(fn, ud, n_out, NULL);
    for (int twice = 0; twice < 2 && !status; twice++) {
        tn_memory_clear_cache();
        size_t before = tn_memory_stats().active;
        tn_memory_reset_peak();
        status = tn_compiled_call(c, in, g) || tn_eval((tn_list){g, n_out});
        *peak = (double)(tn_memory_stats().peak - before);
        *plan = (double)tn_compiled_stats(c).arena;
    }
    if (status) diag("%s", tn_error());
    tn_compiled_free(c);
    return !status;
}

static void check(setting *s) {
    double peak[2] = {0}, plan[2] = {0};
    double scores = (double)CALLS * HEADS * 1024 * 1024;
    bool done = true;
    for (int i = 0; i < 2 && done; i++)
        TN_SCOPE {
            tn_array *in[5];
            int n = inputs(s, 512 << i, in);
            done =
                n > 0 && memory_of(mapped, s, (tn_list){in, n}, 3 + s->sinks, &peak[i], &plan[i]);
        }
    diag("%s: %.0f and %.0f bytes, of plans %.0f and %.0f", s->name, peak[0], peak[1], plan[0],
         plan[1]);
    ok(done && peak[1] <= 2.05 * peak[0] && plan[1] <= 2.05 * plan[0] + 4096,
       "%s: twice the length, twice the memory", s->name);
    ok(done && peak[1] < scores, "%s: less than a byte for each score", s->name);
}

static tn_array *sums(tn_list in, void *ud) {
    (void)ud;
    return tn_sum(tn_square(tn_logcumsumexp(in.v[0], 0, false, true)), TN_ALL, false);
}
static int sums_gradient(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tn_grad(sums, ud, in, 0);
    return tn_array_status(out[0]);
}

static void test_scan(void) {
    double peak[2] = {0}, plan[2] = {0};
    bool done = true;
    for (int i = 0; i < 2 && done; i++)
        TN_SCOPE {
            tn_array *x = noise(TN_SHAPE(2048 << i), TN_F32);
            done = !tn_eval(TN_LIST(x)) &&
                   memory_of(sums_gradient, NULL, TN_LIST(x), 1, &peak[i], &plan[i]);
        }
    diag("running log-sums: %.0f and %.0f bytes, of plans %.0f and %.0f", peak[0], peak[1], plan[0],
         plan[1]);
    ok(done && peak[1] <= 2.3 * peak[0] && plan[1] <= 2.3 * plan[0],
       "running log-sums: twice the length, twice the memory");
}

int main(void) {
    static setting settings[] = {
        {"no mask", TN_F32, false, false, 0},
        {"causal, sinks", TN_F32, true, true, 0},
        {"causal, sinks, halves", TN_F16, true, true, 0},
        {"a mask for all, sinks", TN_F32, false, true, 1},
        {"a mask each", TN_F32, false, false, 2},
        {"a mask each, sinks", TN_BF16, false, true, 2},
        {"an additive mask each", TN_F32, false, true, 3},
        {"causal, float64", TN_F64, true, false, 0},
        {"a mask for all, sinks, float64", TN_F64, false, true, 1},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        TN_SCOPE {
            check(&settings[i]);
        }
    test_scan();
    return tap_done();
}
