/* Compiled functions: the same bits as plain ones, state in place, plans kept and let go, no
 * allocation in a replay, and nothing lost when something fails. */
#include "base/alloc.h"
#include "base/err.h"
#include "cases.h"
#include "ops/build.h"
#include "rows.h"
#include "tap.h"
#include "values.h"
#include <math.h>
#include <pthread.h>

/* fn plain and twice compiled over the same arguments. */
static void check(const char *name, tn_fns fn, void *ud, tn_list in, int n_out) {
    tn_array *want[8], *got[8];
    bool equal = true;
    int status = 0;
    TN_SCOPE {
        tn_compiled *c = tn_compile(fn, ud, n_out, NULL);
        status = fn(in, want, n_out, ud);
        for (int run = 0; run < 2 && !status; run++) {
            status = tn_compiled_call(c, in, got);
            for (int k = 0; k < n_out && !status; k++) equal = equal && same_bytes(want[k], got[k]);
        }
        tn_compile_stats s = tn_compiled_stats(c);
        equal = equal && (status || (s.hits == 1 && s.misses == 1));
        tn_compiled_free(c);
    }
    ok(!status && equal, "%s%s%s", name, status ? ": " : "", status ? tn_error() : "");
}

/* ---- every element-wise row and reduction ---- */

static int row_fn(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tni_ew(*(int *)ud, in.n, in.v);
    return 0;
}

static void test_rows(void) {
    double v[6] = {0.1, 0.7, 0.4, 0.9, 0.3, 0.6};
    TN_SCOPE {
        tn_array *x = tn_array_new(v, TN_F64, TN_SHAPE(2, 3));
        for (int e = 0; e < TNI_EW_COUNT; e++) {
            const tn_dtype tried[] = {TN_F32, TN_I32, TN_BOOL, TN_C64};
            for (int d = 0; d < 4; d++) {
                tn_array *in[3];
                int n = rows[e].arity;
                for (int k = 0; k < n; k++) in[k] = tn_astype(x, tried[d]);
                if (n == 3) in[0] = tn_greater(x, tn_f32(0.5));
                if (n == 2) in[1] = tn_slice_axis(in[1], 0, 1, 2); /* broadcast */
                tn_array *y = tni_ew(e, n, in);
                if (tn_array_status(y)) continue;
                check(rows[e].name, row_fn, &e, (tn_list){in, n}, 1);
                break;
            }
        }
    }
}

typedef tn_array *(*red_fn)(tn_array *a, tn_ints axes, bool keepdims);
static const struct {
    const char *name;
    red_fn fn;
} reds[] = {
#define RED(name, ...) {#name, tn_##name},
#include "ops/reduce.def"
#undef RED
};
typedef struct red_case {
    red_fn fn;
    int64_t axis;
} red_case;

static int red_call(tn_list in, tn_array **out, int n_out, void *ud) {
    const red_case *r = ud;
    (void)n_out;
    out[0] = r->fn(tn_mul(in.v[0], tn_f32(2)), TN_AXES(r->axis), false);
    return 0;
}

static void test_reductions(void) {
    float v[24];
    for (int i = 0; i < 24; i++) v[i] = (float)((i * 7) % 11) - 4;
    TN_SCOPE {
        tn_array *x = tn_array_new(v, TN_F32, TN_SHAPE(2, 3, 4));
        for (size_t k = 0; k < sizeof reds / sizeof *reds; k++)
            for (int64_t axis = 0; axis < 3; axis++) {
                red_case r = {reds[k].fn, axis};
                check(reds[k].name, red_call, &r, TN_LIST(x), 1);
            }
    }
}

/* ---- every structural primitive, and its gradient ---- */

static void test_cases(void) {
    const char *missing = case_missing();
    ok(!missing, "every primitive has a case%s%s", missing ? ": not " : "", missing ? missing : "");
    TN_SCOPE {
        tn_array *x = case_input();
        for (int k = 0; k < CASE_COUNT; k++) {
            check(case_name(k), case_fns, &k, TN_LIST(x), 1);
            check(case_name(k), case_grad, &k, TN_LIST(x), 2);
        }
    }
}

/* ---- state ---- */

typedef struct model {
    tn_array *w, *b, *m, *v, *step;
    tn_array *other; /* what it looks at beside its state */
    int fail;
} model;

static void model_init(model *p) {
    *p = (model){0};
    float w[12];
    for (int i = 0; i < 12; i++) w[i] = 0.1f * (float)(i - 5);
    TN_SCOPE {
        (void)tn_assign(&p->w, tn_array_new(w, TN_F32, TN_SHAPE(3, 4)));
        (void)tn_assign(&p->b, tn_zeros(TN_SHAPE(4), TN_F32));
        (void)tn_assign(&p->m, tn_zeros(TN_SHAPE(3, 4), TN_F32));
        (void)tn_assign(&p->v, tn_zeros(TN_SHAPE(3, 4), TN_F32));
        (void)tn_assign(&p->step, tn_scalar_i64(0, TN_I32));
        if (tn_eval(TN_LIST(p->b, p->m, p->v))) return;
    }
}
static void model_free(model *p) {
    tn_drop(p->w), tn_drop(p->b), tn_drop(p->m), tn_drop(p->v), tn_drop(p->step);
    tn_drop(p->other);
}
#define SLOTS(p)                                                                                   \
    ((tn_slots){(tn_array * *const[]){&(p)->w, &(p)->b, &(p)->m, &(p)->v, &(p)->step}, 5})

static tn_array *model_loss(tn_list in, void *ud) {
    (void)ud;
    tn_array *d = tn_sub(tn_tanh(tn_add(tn_matmul(in.v[2], in.v[0]), in.v[1])), in.v[3]);
    return tn_mean(tn_mul(d, d), TN_ALL, false);
}

/* One step of Adam for w, of plain descent for b. */
static int model_step(tn_list in, tn_array **out, int n_out, void *ud) {
    model *p = ud;
    tn_array *g[2];
    (void)n_out;
    if (p->fail == 1) return tn_eval(TN_LIST(tn_add(p->w, p->w)));
    if (p->fail == 2) return TN_ECANCELLED;
    tn_value_and_grad(model_loss, NULL, TN_LIST(p->w, p->b, in.v[0], in.v[1]), 2, &out[0], g);
    tn_array *step = tn_add(p->step, tn_i32(1)), *t = tn_astype(step, TN_F32);
    tn_array *m = tn_add(tn_mul(tn_f32(0.9), p->m), tn_mul(tn_f32(0.1), g[0]));
    tn_array *v = tn_add(tn_mul(tn_f32(0.99), p->v), tn_mul(tn_f32(0.01), tn_square(g[0])));
    tn_array *mh = tn_div(m, tn_sub(tn_f32(1), tn_power(tn_f32(0.9), t)));
    tn_array *vh = tn_div(v, tn_sub(tn_f32(1), tn_power(tn_f32(0.99), t)));
    tn_array *w = tn_sub(p->w, tn_mul(tn_f32(0.05), tn_div(mh, tn_add(tn_sqrt(vh), tn_f32(1e-8)))));
    if (p->fail == 3) w = tn_add(w, tn_zeros(TN_SHAPE(7), TN_F32));
    int status = tn_assign(&p->w, w);
    if (!status) status = tn_assign(&p->b, tn_sub(p->b, tn_mul(tn_f32(0.1), g[1])));
    if (!status) status = tn_assign(&p->m, m);
    if (!status) status = tn_assign(&p->v, v);
    if (!status) status = tn_assign(&p->step, step);
    return status;
}

static tn_array *batch(int i, int64_t n, int64_t m) {
    return tn_random_normal(TN_SHAPE(n, m), TN_F32, tn_random_key((uint64_t)i));
}

static bool model_same(model *a, model *b) {
    return same_bytes(a->w, b->w) && same_bytes(a->b, b->b) && same_bytes(a->m, b->m) &&
           same_bytes(a->v, b->v) && same_bytes(a->step, b->step);
}

static void test_state(void) {
    model plain, fast;
    model_init(&plain), model_init(&fast);
    tn_compiled *c =
        tn_compile(model_step, &fast, 1, TN_OPT(tn_compile_opt, .state = SLOTS(&fast)));
    bool equal = true, in_place = true;
    size_t active = 0;
    int status = 0;
    for (int i = 0; i < 20 && !status; i++)
        TN_SCOPE {
            tn_array *l1, *l2, *w = fast.w, *x = batch(i, 5, 3), *y = batch(i + 100, 5, 4);
            status = model_step(TN_LIST(x, y), &l1, 1, &plain);
            if (!status)
                status = tn_eval(TN_LIST(l1, plain.w, plain.b, plain.m, plain.v, plain.step));
            if (!status) status = tn_compiled_call(c, TN_LIST(x, y), &l2);
            equal = equal && !status && same_bytes(l1, l2) && model_same(&plain, &fast);
            if (i > 1) in_place = in_place && fast.w == w && tn_memory_stats().active == active;
            active = tn_memory_stats().active;
        }
    ok(!status && equal, "20 steps of training, the same bits (%s)", status ? tn_error() : "");
    ok(in_place, "parameters are updated where they are");
    tn_compile_stats s = tn_compiled_stats(c);
    ok(s.misses == 1 && s.hits == 19 && s.plans == 1 && s.launches > 3, "one plan, %d launches",
       (int)s.launches);
    ok(s.arena <= s.bound + s.bound / 20 && s.bound,
       "an arena of %zu bytes, of which %zu are needed", s.arena, s.bound);
    TN_SCOPE { /* a handle that somebody holds keeps its value */
        tn_array *l, *w = tn_keep(fast.w), *x = batch(3, 5, 3), *y = batch(4, 5, 4);
        float before = tn_data_f32(w)[0];
        status = tn_compiled_call(c, TN_LIST(x, y), &l);
        ok(!status && fast.w != w && tn_data_f32(w)[0] == before &&
               tn_data_f32(fast.w)[0] != before,
           "state that is held elsewhere is not written over");
        tn_drop(w);
    }
    tn_compiled_free(c);
    model_free(&plain), model_free(&fast);
}

/* Cross-entropy of x w^T: the gradient of the scores is made where they lie, and what the chosen
 * ones add to it is scattered onto it. */
static tn_array *entropy_loss(tn_list in, void *ud) {
    tn_array *s = tn_matmul(in.v[0], tn_swapaxes(in.v[1], 0, 1));
    tn_array *right = tn_take_along_axis(s, tn_expand_dims(in.v[2], TN_AXES(-1)), -1);
    (void)ud;
    return tn_mean(tn_sub(tn_logsumexp(s, TN_AXES(-1), true), right), TN_ALL, false);
}

static int entropy(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    tn_value_and_grad(entropy_loss, ud, in, 2, out, out + 1);
    return tn_array_status(out[0]);
}

static void test_entropy(void) {
    enum { N = 64, V = 1000, D = 8 };
    tn_compiled *c = tn_compile(entropy, NULL, 3, NULL);
    TN_SCOPE {
        tn_array *x = batch(1, N, D), *w = batch(2, V, D), *fast[3], *plain[3];
        tn_array *y = tn_random_randint(tn_i32(0), tn_i32(V), TN_SHAPE(N), TN_I32, NULL);
        int status = tn_eval(TN_LIST(x, w, y));
        if (!status) status = tn_compiled_call(c, TN_LIST(x, w, y), fast);
        if (!status) status = entropy(TN_LIST(x, w, y), plain, 3, NULL);
        bool equal = true;
        for (int i = 0; i < 3 && !status; i++) equal = equal && same_bytes(fast[i], plain[i]);
        ok(!status && equal, "cross-entropy and its gradients (%s)", status ? tn_error() : "");
        size_t scores = (size_t)N * V * sizeof(float);
        ok(tn_compiled_stats(c).arena < scores + scores / 20,
           "in the memory of one array of scores: %zu of %zu bytes", tn_compiled_stats(c).arena,
           scores);
    }
    tn_compiled_free(c);
}

/* Results and state that are each other, arguments, views and constants. */
static int tangle(tn_list in, tn_array **out, int n_out, void *ud) {
    model *p = ud;
    (void)n_out;
    tn_array *w = p->w, *m = p->m, *sum = tn_add(in.v[0], in.v[0]);
    out[0] = in.v[0];
    out[1] = sum, out[2] = sum;
    out[3] = tn_swapaxes(sum, 0, 1);
    out[4] = tn_mul(p->other, tn_f32(2));
    out[5] = tn_slice_axis(sum, 0, 1, 2);
    out[6] = tn_sum(sum, TN_ALL, false);
    out[7] = tn_slice_axis(sum, 0, 0, 0);
    tn_array *minus = tn_neg(w); /* w and m change places, almost */
    int status = tn_assign(&p->w, tn_neg(m));
    if (!status) status = tn_assign(&p->m, minus);
    if (!status) status = tn_assign(&p->v, tn_reshape(tn_swapaxes(p->v, 0, 1), TN_SHAPE(3, 4)));
    if (!status) status = tn_assign(&p->b, tn_f32(1.5));
    return status;
}

static void test_results(void) {
    model a, b;
    model_init(&a), model_init(&b);
    TN_SCOPE {
        tn_array *want[8], *got[8], *x = batch(7, 3, 4);
        (void)tn_assign(&a.other, tn_neg(x)), (void)tn_assign(&b.other, tn_neg(x));
        (void)tn_assign(&a.m, tn_add(x, x)), (void)tn_assign(&b.m, tn_add(x, x));
        tn_compiled *c = tn_compile(tangle, &b, 8, TN_OPT(tn_compile_opt, .state = SLOTS(&b)));
        bool equal = true;
        int status = 0;
        for (int i = 0; i < 5 && !status; i++) {
            status = tangle(TN_LIST(x), want, 8, &a);
            if (!status) status = tn_compiled_call(c, TN_LIST(x), got);
            for (int k = 0; k < 8 && !status; k++) equal = equal && same_bytes(want[k], got[k]);
            equal = equal && !status && model_same(&a, &b);
        }
        ok(!status && equal, "results that are arguments, views, constants, each other (%s)",
           status ? tn_error() : "");
        ok(!status && got[0] == x, "an argument that is handed on is itself");
        tn_compiled_free(c);
        ok(same_bytes(want[1], got[1]) && same_bytes(want[5], got[5]),
           "results outlive the object");
    }
    model_free(&a), model_free(&b);
}

/* ---- random numbers ---- */

static int draws(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_add(in.v[0], tn_random_normal(TN_SHAPE(3), TN_F32, NULL));
    out[1] = tn_random_uniform(NULL, NULL, TN_SHAPE(2), TN_F32, NULL);
    return 0;
}
static int seeds(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_random_seed(11);
    return draws(in, out, n_out, ud);
}

static void test_random(tn_fns fn, const char *what) {
    TN_SCOPE {
        tn_array *want[3][2], *got[3][2], *x = tn_ones(TN_SHAPE(3), TN_F32);
        tn_compiled *c = tn_compile(fn, NULL, 2, NULL);
        int status = 0;
        tn_random_seed(42);
        for (int i = 0; i < 3; i++) (void)fn(TN_LIST(x), want[i], 2, NULL);
        tn_array *after = tn_random_bits(TN_SHAPE(4), 4, NULL);
        tn_random_seed(42);
        for (int i = 0; i < 3 && !status; i++) status = tn_compiled_call(c, TN_LIST(x), got[i]);
        bool equal = !status && same_bytes(after, tn_random_bits(TN_SHAPE(4), 4, NULL));
        for (int i = 0; i < 6 && !status; i++)
            equal = equal && same_bytes(want[i / 2][i % 2], got[i / 2][i % 2]);
        ok(equal, "%s (%s)", what, status ? tn_error() : "");
        tn_compiled_free(c);
    }
}

/* ---- plans ---- */

static int runs;
static int counted(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    runs++;
    out[0] = tn_mul(in.v[0], tn_f32(2));
    return 0;
}

static void test_plans(void) {
    tn_array *y;
    tn_compiled *c = tn_compile(counted, NULL, 1, TN_OPT(tn_compile_opt, .capacity = 2));
    TN_SCOPE {
        tn_array *a = tn_ones(TN_SHAPE(3), TN_F32), *b = tn_ones(TN_SHAPE(4), TN_F32),
                 *h = tn_ones(TN_SHAPE(3), TN_F16), *grid = tn_ones(TN_SHAPE(3, 1), TN_F32);
        runs = 0;
        for (int i = 0; i < 3; i++) ok(!tn_compiled_call(c, TN_LIST(a), &y), "called");
        is_i64(runs, 1, "run once for one signature");
        ok(!tn_compiled_call(c, TN_LIST(b), &y) && tn_dim(y, 0) == 4, "another size");
        ok(!tn_compiled_call(c, TN_LIST(a), &y) && runs == 2, "the first is still known");
        ok(!tn_compiled_call(c, TN_LIST(h), &y) && tn_dtype_of(y) == TN_F16, "another dtype");
        tn_compile_stats s = tn_compiled_stats(c);
        ok(s.plans == 2 && s.evictions == 1 && s.misses == 3 && s.hits == 3, "two plans are kept");
        ok(!tn_compiled_call(c, TN_LIST(a), &y) && runs == 3, "the one used longest ago went");
        ok(!tn_compiled_call(c, TN_LIST(grid), &y) && tn_ndim(y) == 2, "more axes");
        ok(!tn_compiled_call(c, TN_LIST(tn_f32(3)), &y) && tn_item_f32(y) == 6, "a number");
        tn_array *across = tn_swapaxes(batch(1, 3, 4), 0, 1);
        ok(!tn_compiled_call(c, TN_LIST(across), &y) && same_bytes(y, tn_mul(across, tn_f32(2))),
           "an argument that is not row-major");
        tn_array *none = tn_zeros(TN_SHAPE(0, 3), TN_F32);
        ok(!tn_compiled_call(c, TN_LIST(none), &y) && tn_size(y) == 0, "an empty argument");
    }
    tn_compiled_free(c);
    tn_compiled_free(NULL);
}

/* Lazy weights from elsewhere: computed once and shared by all plans. */
static int captures(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *w = *(tn_array **)ud;
    (void)n_out;
    out[0] = tn_matmul(in.v[0], tn_swapaxes(w, 0, 1));
    return 0;
}

static void test_captured(void) {
    tn_array *w = NULL, *y, *want;
    TN_SCOPE {
        (void)!tn_assign(&w, tn_random_normal(TN_SHAPE(300, 400), TN_F32, tn_random_key(7)));
    }
    tn_compiled *c = tn_compile(captures, &w, 1, NULL);
    size_t active[2] = {0};
    bool equal = true;
    for (int n = 1; n <= 6; n++)
        TN_SCOPE {
            tn_array *x = batch(n, n, 400);
            int status = tn_compiled_call(c, TN_LIST(x), &y);
            if (n == 1) ok(!status && tn_is_evaluated(w), "a lazy weight is evaluated where it is");
            equal = !status && !captures(TN_LIST(x), &want, 1, &w) && same_bytes(want, y) && equal;
            if (n == 1) active[0] = tn_memory_stats().active;
        }
    active[1] = tn_memory_stats().active;
    ok(equal, "the same bits with it");
    tn_compiled_free(c);
    ok(active[1] < active[0] + 300 * 400, "no plan has a copy of it (%lld bytes more)",
       (long long)(active[1] - active[0]));
    tn_drop(w);
}

static tn_array *compiled_inside(tn_list in, void *ud) {
    tn_array *y;
    return tn_compiled_call(ud, in, &y) ? tn_error_array(TN_EVALUE, "%s", tn_error())
                                        : tn_sum(tn_square(y), TN_ALL, false);
}

static void test_inside(void) {
    tn_compiled *c = tn_compile(counted, NULL, 1, NULL);
    TN_SCOPE {
        tn_array *x = batch(2, 2, 2), *y;
        runs = 0;
        ok(!tn_compiled_call(c, TN_LIST(x), &y), "called");
        tn_array *g = tn_grad(compiled_inside, c, TN_LIST(x), 0);
        ok(same_bytes(g, tn_mul(x, tn_f32(8))) && runs == 2, "differentiated through");
    }
    tn_compiled_free(c);
}

/* ---- misuse ---- */

static int picks(tn_list in, tn_array **out, int n_out, void *ud) {
    model *p = ud;
    (void)n_out;
    tn_array *w = tn_add(p->w, tn_f32(1));
    out[0] = tn_take(w, in.v[0], 0);
    return tn_assign(&p->w, w);
}

/* Drops its state, and fails if it is told to. */
static int empties(tn_list in, tn_array **out, int n_out, void *ud) {
    model *p = ud;
    (void)n_out;
    tn_drop(p->w);
    p->w = NULL;
    if (p->fail) return tni_fail(TN_ECANCELLED, "enough");
    out[0] = in.v[0];
    return 0;
}

static void test_emptied(void) {
    model p;
    tn_array *y;
    model_init(&p);
    tn_compiled *c = tn_compile(empties, &p, 1, TN_OPT(tn_compile_opt, .state = SLOTS(&p)));
    TN_SCOPE {
        tn_array *x = batch(1, 2, 2), *w = p.w;
        is_i64(tn_compiled_call(c, TN_LIST(x), &y), TN_EVALUE, "a slot is left empty");
        ok(strstr(tn_error(), "left slot 0 empty") && p.w == w, "says so: %s", tn_error());
        p.fail = 1;
        is_i64(tn_compiled_call(c, TN_LIST(x), &y), TN_ECANCELLED, "and the function fails");
        ok(!strcmp(tn_error(), "enough") && p.w == w, "its own sentence stays: %s", tn_error());
    }
    tn_compiled_free(c);
    model_free(&p);
}

static void test_misuse(void) {
    tn_array *y, *empty = NULL;
    model p;
    model_init(&p);
    ok(!tn_compile(NULL, NULL, 1, NULL) && strstr(tn_error(), "function is NULL"), "no function");
    ok(!tn_compile(counted, NULL, -1, NULL), "a negative number of results");
    tn_compiled *c = tn_compile(model_step, &p, 1, TN_OPT(tn_compile_opt, .state = SLOTS(&p)));
    TN_SCOPE {
        tn_array *x = batch(1, 5, 3), *t = batch(2, 5, 4), *w = p.w, *step = p.step;
        const int want[] = {TN_ESTATE, TN_ECANCELLED, TN_ESHAPE};
        for (p.fail = 1; p.fail <= 3; p.fail++) {
            is_i64(tn_compiled_call(c, TN_LIST(x, t), &y), want[p.fail - 1], "failure %d: %s",
                   p.fail, tn_error());
            ok(p.w == w && p.step == step && tn_array_status(y) == want[p.fail - 1],
               "slots are as they were");
        }
        is_i64(tn_compiled_stats(c).plans, 0, "nothing is kept of it");
        p.fail = 0;
        is_i64(tn_compiled_call(c, TN_LIST(x, NULL), &y), TN_EVALUE, "a NULL argument");
        is_i64(tn_compiled_call(c, TN_LIST(x, t), &y), 0, "and then it works");
        tn_compiled *d = tn_compile(
            counted, NULL, 1, TN_OPT(tn_compile_opt, .state = {(tn_array * *const[]){&empty}, 1}));
        is_i64(tn_compiled_call(d, TN_LIST(x), &y), TN_EVALUE, "an empty slot");
        tn_compiled_free(d);
    }
    tn_compiled_free(c);
    c = tn_compile(picks, &p, 1, TN_OPT(tn_compile_opt, .state = SLOTS(&p)));
    TN_SCOPE {
        tn_array *good = tn_array_new((int32_t[]){1}, TN_I32, TN_SHAPE(1)),
                 *bad = tn_array_new((int32_t[]){9}, TN_I32, TN_SHAPE(1));
        is_i64(tn_compiled_call(c, TN_LIST(good), &y), 0, "an index");
        is_i64(tn_compiled_call(c, TN_LIST(bad), &y), TN_EINDEX, "one out of range");
        ok(strstr(tn_error(), "begun to write its new state"), "says what became of the state: %s",
           tn_error());
        is_i64(tn_compiled_call(c, TN_LIST(good), &y), 0, "and it goes on");
    }
    tn_compiled_free(c);
    model_free(&p);
}

/* ---- memory ---- */

static void test_allocations(void) {
    model p;
    model_init(&p);
    tn_compiled *c = tn_compile(model_step, &p, 1, TN_OPT(tn_compile_opt, .state = SLOTS(&p)));
    int64_t asked = 0, taken = 0;
    int status = 0;
    TN_SCOPE {
        tn_array *x = batch(1, 5, 3), *t = batch(2, 5, 4), *y;
        if (tn_eval(TN_LIST(x, t))) status = TN_EVALUE;
        for (int i = 0; i < 40 && !status; i++) {
            if (i == 20) asked = tni_alloc_system();
            TN_SCOPE {
                status = tn_compiled_call(c, TN_LIST(x, t), &y);
            }
        }
        taken = tni_alloc_system() - asked;
    }
    is_i64(status, 0, "40 calls");
    if (tni_alloc_direct())
        skip("sanitizers see every record", "a replay calls no allocator");
    else
        is_i64(taken, 0, "20 replays call no allocator");
    tn_compiled_free(c);
    model_free(&p);
}

/* Two calls, one traced and one replayed; slots must keep their values when one fails, unless the
 * error says that a kernel failed (for want of working memory) after others had written them.
 * *reached: the allocation that was to fail was asked for. */
static int life(int64_t fail_at, int64_t fail_call, bool *kept, bool *reached) {
    model p;
    model_init(&p);
    int status = 0;
    tn_compiled *c = tn_compile(model_step, &p, 1, TN_OPT(tn_compile_opt, .state = SLOTS(&p)));
    TN_SCOPE {
        tn_array *x = batch(1, 5, 3), *t = batch(2, 5, 4), *y;
        status = tn_eval(TN_LIST(x, t, p.w, p.b, p.m, p.v, p.step));
        for (int k = 0; k < 2 && !status; k++) {
            float w = tn_data_f32(p.w)[3];
            int64_t step = tn_item_i64(p.step), asked = tni_alloc_count();
            if (k == fail_call) tni_fail_alloc_at(fail_at);
            status = tn_compiled_call(c, TN_LIST(x, t), &y);
            tni_fail_alloc_at(0);
            if (k == fail_call) *reached = tni_alloc_count() - asked >= fail_at;
            *kept = *kept && (!status || strstr(tn_error(), "begun to write its new state") ||
                              (p.w && tn_data_f32(p.w)[3] == w && tn_item_i64(p.step) == step &&
                               tn_array_status(y) == status));
        }
    }
    tn_compiled_free(c);
    model_free(&p);
    return status;
}

static void test_memory(int call) {
    bool kept = true, reached = true;
    int failed = 0, wrong = 0;
    int64_t live = 0;
    for (int round = 0; round < 2; round++) { /* in the second the threads' stores are full */
        live = tni_alloc_live();
        reached = true;
        for (int64_t n = 1; reached && n < 5000; n++) {
            int status = life(n, call, &kept, &reached);
            failed += status == TN_EMEMORY;
            wrong += status && status != TN_EMEMORY;
        }
    }
    if (wrong || !kept) diag("%d wrong (%s), kept %d", wrong, tn_error(), kept);
    ok(failed > 5 && !wrong && kept, "call %d: %d allocations failed, nothing was lost", call,
       failed);
    is_i64(tni_alloc_live(), live, "nothing leaks");
}

/* ---- threads ---- */

static void *thread_calls(void *ud) {
    bool *equal = tni_alloc(sizeof *equal);
    *equal = true;
    for (int i = 0; i < 200; i++)
        TN_SCOPE {
            tn_array *x = batch(i, 1 + i % 5, 4), *y;
            *equal = *equal && !tn_compiled_call(ud, TN_LIST(x), &y) &&
                     same_bytes(y, tn_mul(x, tn_f32(2)));
        }
    return equal;
}

/* Memory that stays: of the largest plan, for all of them, until the function goes. */
static int three_passes(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    tn_array *y = tn_matmul(tn_exp(tn_neg(in.v[0])), in.v[0]);
    out[0] = tn_sum(tn_matmul(y, y), TN_ALL, false);
    return 0;
}

static void test_keep(void) {
    static const int64_t side[] = {64, 256, 64, 128, 256};
    tn_compiled *c = tn_compile(three_passes, NULL, 1, TN_OPT(tn_compile_opt, .keep = true));
    size_t before = tn_memory_stats().active, most = 0;
    bool equal = true;
    int wrong = 0;
    for (int i = 0; i < 5; i++) {
        TN_SCOPE {
            tn_array *x = tn_astype(tn_arange(0, (double)(side[i] * side[i]), 1, TN_I32), TN_F32);
            tn_array *want, *got;
            x = tn_div(tn_reshape(x, TN_SHAPE(side[i], side[i])), tn_f32(65536));
            equal = equal && !tn_compiled_call(c, TN_LIST(x), &got) &&
                    !three_passes(TN_LIST(x), &want, 1, NULL) && same_bytes(want, got);
        }
        size_t arena = tn_compiled_stats(c).arena, kept = tn_memory_stats().active - before;
        most = arena > most ? arena : most;
        wrong += kept < most || kept > most + most / 8 + 65536;
    }
    ok(equal && most > 256 * 256 * 4, "kept memory: the same results");
    is_i64(wrong, 0, "no more and no less than the largest plan needs");
    tn_compiled_free(c);
    ok(tn_memory_stats().active <= before + 65536, "it goes with the function");
}

static void test_threads(void) {
    tn_compiled *c = tn_compile(counted, NULL, 1, TN_OPT(tn_compile_opt, .capacity = 3));
    pthread_t t[3];
    bool equal = true;
    for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, thread_calls, c);
    for (int i = 0; i < 3; i++) {
        void *r;
        pthread_join(t[i], &r);
        equal = equal && *(bool *)r;
        tni_free(r);
    }
    ok(equal, "three threads share one object");
    tn_compiled_free(c);
}

int main(void) {
    test_rows();
    test_reductions();
    test_cases();
    test_state();
    test_entropy();
    test_results();
    test_random(draws, "draws go on as without");
    test_random(seeds, "a seed inside");
    test_plans();
    test_captured();
    test_inside();
    test_misuse();
    test_emptied();
    test_allocations();
    test_memory(0);
    test_memory(1);
    test_keep();
    test_threads();
    return tap_done();
}
