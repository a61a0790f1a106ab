/* Shapeless compiled functions: the same bits as plain ones for all sizes, without running the
 * function for them; what cannot be open is looked at anew; nothing is lost when something fails.
 */
#include "free_cases.h"
#include "memory.h"
#include "tenon/ext.h"
#include "values.h"
#include <math.h>

#define SHAPELESS TN_OPT(tn_compile_opt, .shapeless = true)

static int64_t runs(tn_compiled *c) { return tn_compiled_stats(c).runs; }

/* ---- every case, for many sizes ---- */

static const int64_t case_sizes[][2] = {{2, 5}, {3, 8}, {2, 6},  {3, 9},  {5, 7},
                                        {1, 4}, {4, 1}, {7, 12}, {4, 11}, {6, 10}};
enum { CASE_SIZES = sizeof case_sizes / sizeof *case_sizes };

/* Sizes that the function is not for. */
static bool case_skips(const char *name, const int64_t *size) {
    bool pairs = !strcmp(name, "gather") || !strcmp(name, "scatter"),
         wide = !strcmp(name, "conv_flat") || !strcmp(name, "pool");
    return (pairs && size[0] < 2) || (wide && size[1] < 2);
}

/* Of the sizes above 1, those that fn was not run for. */
static int check_case(int k, tn_fns fn, const char *what, int n_out) {
    tn_compiled *c = tn_compile(fn, &k, n_out, SHAPELESS);
    const char *name = free_cases[k].name;
    int known = 0, wrong = 0, status = 0;
    for (int s = 0; s < CASE_SIZES && !status; s++)
        TN_SCOPE {
            const int64_t *size = case_sizes[s];
            if (case_skips(name, size)) continue;
            tn_array *x = cube_of(size[0], size[1], 4), *want[2], *got[2];
            tn_random_seed(3);
            if (fn(TN_LIST(x), want, n_out, &k)) continue;
            if ((status = tn_eval((tn_list){want, n_out}))) continue;
            tn_random_seed(3);
            int64_t before = runs(c);
            status = tn_compiled_call(c, TN_LIST(x), got);
            bool equal = !status;
            for (int i = 0; i < n_out && equal; i++) equal = same_bytes(want[i], got[i]);
            if (!equal) diag("[%d,%d,4]: %s", (int)size[0], (int)size[1], tn_error());
            wrong += !equal;
            known += runs(c) == before;
            if (size[0] == 1 || size[1] == 1) ok(runs(c) > before, "sizes of 1 are looked at");
        }
    ok(!status && !wrong, "%s %s: %d of %d sizes known%s%s", what, name, known, CASE_SIZES,
       *tn_compiled_stats(c).closed ? "; " : "", tn_compiled_stats(c).closed);
    tn_compiled_free(c);
    return known;
}

static void test_cases(void) {
    int open = 0, open_grads = 0;
    for (int k = 0; k < FREE_COUNT; k++) {
        int n = check_case(k, free_fns, "open", 1);
        open += n >= 5;
        if (n < 5) diag("%s is hardly open: %d", free_cases[k].name, n);
        open_grads += check_case(k, free_grad, "gradient of", 2) >= 5;
    }
    ok(open == FREE_COUNT, "%d of %d are open", open, FREE_COUNT);
    ok(open_grads > FREE_COUNT * 2 / 3, "%d gradients are", open_grads);
}

/* ---- when the function is run ---- */

static int twice(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tn_mul(in.v[0], tn_f32(*(double *)ud));
    return 0;
}

static void test_runs(void) {
    double factor = 2;
    tn_compiled *c = tn_compile(twice, &factor, 1, SHAPELESS);
    TN_SCOPE {
        tn_array *y;
        ok(!tn_compiled_call(c, TN_LIST(tn_ones(TN_SHAPE(3), TN_F32)), &y), "called");
        int64_t first = runs(c);
        factor = 5;
        for (int n = 2; n < 20; n++)
            TN_SCOPE {
                int status = tn_compiled_call(c, TN_LIST(tn_ones(TN_SHAPE(n), TN_F32)), &y);
                tn_array *sum = tn_sum(y, TN_ALL, false);
                if (status || tn_dim(y, 0) != n || tn_item_f32(sum) != (float)(2 * n))
                    ok(false, "%d numbers", n);
            }
        is_i64(runs(c), first, "known for all sizes, what it looks at is a constant");
        ok(!tn_compiled_call(c, TN_LIST(tn_ones(TN_SHAPE(1), TN_F32)), &y) && tn_item_f32(y) == 5,
           "one number is looked at");
        is_i64(runs(c), first + 1, "once");
        ok(!tn_compiled_call(c, TN_LIST(tn_ones(TN_SHAPE(0), TN_F32)), &y) && !tn_size(y), "none");
        int64_t before = runs(c);
        ok(!tn_compiled_call(c, TN_LIST(tn_ones(TN_SHAPE(3), TN_F16)), &y) && runs(c) > before,
           "another dtype");
        before = runs(c);
        ok(!tn_compiled_call(c, TN_LIST(tn_ones(TN_SHAPE(3, 2), TN_F32)), &y) && runs(c) > before,
           "other axes");
        ok(!tn_compiled_call(c, TN_LIST(tn_f32(3)), &y) && tn_item_f32(y) == 15, "a number");
    }
    tn_compile_stats s = tn_compiled_stats(c);
    ok(!*s.closed && s.misses > 20, "nothing kept it closed: %s", s.closed);
    tn_compiled_free(c);
}

/* Weights from elsewhere fix some sizes: the second call shows which are free. */
static tn_array *weight;
static int layer(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_tanh(tn_matmul(in.v[0], weight));
    return 0;
}
/* Rows in fours. */
static int fours(tn_list in, tn_array **out, int n_out, void *ud) {
    int64_t n = tn_dim(in.v[0], 0);
    (void)n_out, (void)ud;
    out[0] = tn_sum(tn_reshape(in.v[0], TN_SHAPE(n / 4, 4, tn_dim(in.v[0], 1))), TN_AXES(1), false);
    return 0;
}
static int square(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_add(
        in.v[0], tn_reshape(tn_arange(0, (double)tn_dim(in.v[0], 1), 1, TN_F32), TN_SHAPE(1, -1)));
    return 0;
}

/* Calls with [a, b], the same bits as plain; how often fn was run for it. */
static int64_t run_for(tn_compiled *c, tn_fns fn, int64_t a, int64_t b) {
    int64_t before = runs(c);
    TN_SCOPE {
        tn_array *x = tn_random_normal(TN_SHAPE(a, b), TN_F32, tn_random_key((uint64_t)(a * b))),
                 *want, *y;
        int status = fn(TN_LIST(x), &want, 1, NULL);
        if (!status) status = tn_compiled_call(c, TN_LIST(x), &y);
        if (status || !same_bytes(want, y)) {
            ok(false, "[%d,%d]: %s", (int)a, (int)b, tn_error());
            break;
        }
    }
    return runs(c) - before;
}

static void test_second_call(void) {
    weight = tn_keep(tn_random_normal(TN_SHAPE(3, 5), TN_F32, tn_random_key(1)));
    tn_compiled *c = tn_compile(layer, NULL, 1, SHAPELESS);
    ok(run_for(c, layer, 4, 3) > 1, "fixed by a weight: the first call tries");
    ok(*tn_compiled_stats(c).closed, "and says why: %s", tn_compiled_stats(c).closed);
    ok(run_for(c, layer, 7, 3) > 1, "the second finds out");
    int64_t more = 0;
    for (int n = 2; n < 30; n++) more += run_for(c, layer, n, 3);
    is_i64(more, 0, "then all are known");
    ok(run_for(c, layer, 1, 3) == 1, "but a single row");
    TN_SCOPE {
        tn_array *y;
        is_i64(tn_compiled_call(c, TN_LIST(tn_zeros(TN_SHAPE(4, 4), TN_F32)), &y), TN_ESHAPE,
               "what does not fit the weight: %s", tn_error());
    }
    ok(run_for(c, layer, 40, 3) == 0, "goes on");
    tn_compiled_free(c);
    tn_drop(weight);

    c = tn_compile(fours, NULL, 1, SHAPELESS);
    (void)run_for(c, fours, 8, 3);
    (void)run_for(c, fours, 16, 3);
    is_i64(run_for(c, fours, 24, 3), 0, "multiples, in the steps seen");
    is_i64(run_for(c, fours, 48, 3), 0, "larger ones");
    int64_t before = runs(c);
    ok(run_for(c, fours, 12, 3) > 0, "not in the steps seen: looked at");
    for (int i = 0; i < 20; i++) (void)run_for(c, fours, 4 * (100 + i * i), 3);
    ok(runs(c) < before + 40, "it does not try for ever (%d runs)", (int)(runs(c) - before));
    tn_compiled_free(c);

    c = tn_compile(square, NULL, 1, SHAPELESS);
    ok(run_for(c, square, 4, 4) > 1, "two equal sizes");
    is_i64(run_for(c, square, 6, 6), 0, "that stay equal");
    ok(run_for(c, square, 3, 5) > 1, "and then do not");
    is_i64(run_for(c, square, 9, 2), 0, "are known apart");
    tn_compiled_free(c);
}

/* ---- what cannot be open ---- */

static int root(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_mul(in.v[0], tn_f32(sqrt((double)tn_dim(in.v[0], 1))));
    return 0;
}
static int depends(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_dim(in.v[0], 1) % 2 ? tn_exp(in.v[0]) : tn_neg(in.v[0]);
    return 0;
}

static void test_closed(void) {
    static const tn_fns fn[] = {root, depends};
    static const char *const why[] = {"a number of mul", "other things for other sizes"};
    for (int k = 0; k < 2; k++) {
        tn_compiled *c = tn_compile(fn[k], NULL, 1, SHAPELESS);
        int64_t n = 0;
        for (int i = 2; i < 24; i++) n += run_for(c, fn[k], 3, i) > 0;
        is_i64(n, 22, "is run for all sizes");
        ok(strstr(tn_compiled_stats(c).closed, why[k]) != NULL, "says why: %s",
           tn_compiled_stats(c).closed);
        ok(tn_compiled_stats(c).runs < 22 + 60, "tries a few times: %d runs", (int)runs(c));
        tn_compiled_free(c);
    }
}

/* ---- state, random numbers, own primitives ---- */

typedef struct network {
    tn_array *w, *step;
} network;

static tn_array *network_loss(tn_list in, void *ud) {
    (void)ud;
    tn_array *y = tn_matmul(in.v[1], in.v[0]), *key = NULL;
    tn_array *keep = tn_random_bernoulli(tn_f32(0.8), tn_shape(y), key);
    return tn_mean(tn_square(tn_where(keep, y, tn_f32(0))), TN_ALL, false);
}
static int network_step(tn_list in, tn_array **out, int n_out, void *ud) {
    network *m = ud;
    tn_array *g;
    (void)n_out;
    tn_value_and_grad(network_loss, NULL, TN_LIST(m->w, in.v[0]), 1, &out[0], &g);
    int status = tn_assign(&m->w, tn_sub(m->w, tn_mul(tn_f32(0.1), g)));
    return status ? status : tn_assign(&m->step, tn_add(m->step, tn_i32(1)));
}

static void test_state(void) {
    network plain = {0}, fast = {0};
    TN_SCOPE {
        tn_array *w = tn_random_normal(TN_SHAPE(3, 4), TN_F32, tn_random_key(9)),
                 *zero = tn_scalar_i64(0, TN_I32);
        (void)!tn_assign(&plain.w, w), (void)!tn_assign(&fast.w, tn_add(w, tn_f32(0)));
        (void)!tn_assign(&plain.step, zero), (void)!tn_assign(&fast.step, tn_scalar_i64(0, TN_I32));
    }
    tn_compiled *c = tn_compile(network_step, &fast, 1,
                                TN_OPT(tn_compile_opt, .shapeless = true,
                                       .state = {(tn_array * *const[]){&fast.w, &fast.step}, 2}));
    int wrong = 0;
    int64_t at[3] = {0};
    for (int i = 0; i < 20; i++)
        TN_SCOPE {
            int64_t n = 2 + i * 7 % 11;
            tn_array *x = tn_random_normal(TN_SHAPE(n, 3), TN_F32, tn_random_key((uint64_t)i)), *a,
                     *b;
            tn_random_seed((uint64_t)i);
            int status = network_step(TN_LIST(x), &a, 1, &plain);
            if (!status) status = tn_eval(TN_LIST(a, plain.w, plain.step));
            tn_random_seed((uint64_t)i);
            if (!status) status = tn_compiled_call(c, TN_LIST(x), &b);
            tn_array *next = tn_random_uniform(NULL, NULL, TN_SHAPE(2), TN_F32, NULL);
            bool equal = !status && same_bytes(a, b) && same_bytes(plain.w, fast.w) &&
                         !tn_eval(TN_LIST(next));
            wrong += !equal || !same_bytes(plain.step, fast.step);
            if (i < 3) at[i] = runs(c);
        }
    ok(!wrong, "20 steps over batches of any size: %d wrong", wrong);
    ok(at[1] > at[0] && runs(c) == at[1], "known after two (%d, %d, %d runs)", (int)at[0],
       (int)at[1], (int)runs(c));
    tn_compiled_free(c);
    tn_drop(plain.w), tn_drop(plain.step), tn_drop(fast.w), tn_drop(fast.step);
}

static int kernels;
static int more_infer(const tn_spec *in, int n_in, const void *params, tn_spec *out, int n_out,
                      void *ud) {
    (void)n_in, (void)params, (void)n_out, (void)ud;
    return out[0] = in[0], 0;
}
static int more_kernel(const tn_operand *in, int n_in, const tn_operand *out, int n_out,
                       const void *params, void *ud) {
    const float *x = in[0].data;
    float *y = out[0].data;
    (void)n_in, (void)n_out, (void)ud;
    for (int64_t i = 0; i < in[0].shape[0] * in[0].shape[1]; i++)
        y[i] = x[i] + *(const float *)params;
    kernels++;
    return 0;
}
static void more_release(void *ud) { *(int *)ud += 1; }

static int more_fn(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tn_square(tn_prim_call1(*(tn_prim **)ud, &(float){3}, in));
    return 0;
}

static void test_own_primitive(void) {
    int released = 0;
    tn_prim *more = tn_prim_new(&(tn_prim_desc){.size = sizeof(tn_prim_desc),
                                                .name = "more",
                                                .params_size = sizeof(float),
                                                .n_out = 1,
                                                .flags = TN_PRIM_DENSE,
                                                .ud = &released,
                                                .release = more_release,
                                                .infer = more_infer,
                                                .kernel = more_kernel});
    tn_compiled *c = tn_compile(more_fn, &more, 1, SHAPELESS);
    int64_t first = 0;
    for (int n = 2; n < 12; n++)
        TN_SCOPE {
            tn_array *y, *sum;
            int before = kernels,
                status = tn_compiled_call(c, TN_LIST(tn_ones(TN_SHAPE(n, 20), TN_F32)), &y);
            sum = tn_sum(y, TN_ALL, false);
            if (status || tn_item_f32(sum) != (float)(320 * n) || kernels != before + 1)
                ok(false, "%d rows of an own primitive: %s", n, tn_error());
            if (n == 2) first = runs(c);
        }
    is_i64(runs(c), first, "an own primitive without a lowering is known too (%s)",
           tn_compiled_stats(c).closed);
    tn_prim_free(more);
    is_i64(released, 0, "what was recorded keeps it");
    tn_compiled_free(c);
    is_i64(released, 1, "and lets it go");
}

/* ---- failures ---- */

static int refuses(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    if (tn_dim(in.v[0], 0) > 9) return tn_fail(TN_EVALUE, "at most 9 rows");
    out[0] = tn_neg(in.v[0]);
    return 0;
}

static void test_refusal(void) {
    tn_compiled *c = tn_compile(refuses, NULL, 1, SHAPELESS);
    is_i64(run_for(c, refuses, 9, 2) > 1, 1, "fails for the sizes tried, not for those given");
    ok(strstr(tn_compiled_stats(c).closed, "at most 9 rows") != NULL, "and says so: %s",
       tn_compiled_stats(c).closed);
    TN_SCOPE {
        tn_array *y;
        is_i64(tn_compiled_call(c, TN_LIST(tn_zeros(TN_SHAPE(10, 2), TN_F32)), &y), TN_EVALUE,
               "a failure of the function is its own");
        ok(!strcmp(tn_error(), "at most 9 rows"), "says: %s", tn_error());
    }
    ok(run_for(c, refuses, 4, 2) > 0 && run_for(c, refuses, 5, 2) == 0, "and it goes on");
    tn_compiled_free(c);
}

static int memory_run(int64_t n, bool *reached, bool *clean) {
    int status = TN_EMEMORY, before = 0;
    network m = {0};
    TN_SCOPE {
        (void)!tn_assign(&m.w, tn_ones(TN_SHAPE(3, 4), TN_F32));
        (void)!tn_assign(&m.step, tn_scalar_i64(0, TN_I32));
        tn_array *w = m.w, *y, *x = tn_ones(TN_SHAPE(2, 3), TN_F32),
                 *z = tn_ones(TN_SHAPE(5, 3), TN_F32), *v = tn_ones(TN_SHAPE(6, 3), TN_F32);
        if (tn_eval(TN_LIST(m.w, m.step, x, z, v))) break;
        int64_t asked = tni_alloc_count();
        tni_fail_alloc_at(n);
        tn_compiled *c = tn_compile(network_step, &m, 1,
                                    TN_OPT(tn_compile_opt, .shapeless = true,
                                           .state = {(tn_array * *const[]){&m.w, &m.step}, 2}));
        status = c ? 0 : TN_EMEMORY;
        tn_array *const batches[] = {x, z, v};
        for (int i = 0; i < 3 && !status; i++) {
            before = (int)tn_item_i64(m.step), w = m.w;
            status = tn_compiled_call(c, TN_LIST(batches[i]), &y);
            if (status && (m.w != w || tn_item_i64(m.step) != before)) *clean = false;
        }
        *reached = n && tni_alloc_count() - asked >= n;
        tni_fail_alloc_at(0);
        if (status && !*tn_error()) *clean = false;
        tn_compiled_free(c);
    }
    tn_drop(m.w), tn_drop(m.step);
    return status;
}

int main(void) {
    test_cases();
    test_runs();
    test_second_call();
    test_closed();
    test_state();
    test_own_primitive();
    test_refusal();
    memory_check(memory_run, 500);
    return tap_done();
}
