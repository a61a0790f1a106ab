/* Mapped functions as their caller sees them: axes in and out, sizes, what serves all calls, rules
 * of the caller's own at any depth, random keys, compiled functions, misuse, memory that runs out.
 */
#include "base/alloc.h"
#include "memory.h"
#include "ops/build.h"
#include "ops/vmap.h"
#include "tap.h"
#include <math.h>

static tn_array *count_up(tn_ints shape) { /* 1, 2, 3, ... f64 */
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++) n *= shape.v[i];
    return tn_reshape(tn_arange(1, (double)n + 1, 1, TN_F64), shape);
}

/* Whether `a` has this shape and is close to `want`, which has it too. */
static bool same(tn_array *a, tn_array *want) {
    if (tn_array_status(a) || tn_array_status(want)) {
        diag("%s%s", tn_array_error(a), tn_array_error(want));
        return false;
    }
    if (!tni_same_shape(a->ndim, a->shape, want->ndim, want->shape)) {
        diag("%s, want %s", tni_describe(a), tni_describe(want));
        return false;
    }
    if (!a->size) return true;
    tn_array *d = tn_abs(tn_sub(tn_astype(a, TN_F64), tn_astype(want, TN_F64)));
    double most = tn_item_f64(tn_max(d, TN_ALL, false));
    if (!(most <= 1e-9)) diag("they differ by %g", most);
    return most <= 1e-9;
}

/* ---- axes ---- */

static int product(tn_list in, tn_array **out, int n_out, void *ud) { /* [i, j] . [j] */
    (void)n_out, (void)ud;
    out[0] = tn_matmul(in.v[0], in.v[1]);
    return 0;
}
static int several(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = in.v[0];
    out[1] = tn_add(tn_sum(in.v[0], TN_ALL, false), in.v[1]);
    out[2] = in.v[1];
    out[3] = tn_f32(7);
    return 0;
}

static int gives_null(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)in, (void)out, (void)n_out, (void)ud;
    return 0;
}

static void test_axes(void) {
    TN_SCOPE {
        tn_array *a = count_up(TN_SHAPE(2, 3, 4)), *b = count_up(TN_SHAPE(3, 2)), *v[3], *y[4];
        tn_array *c = count_up(TN_SHAPE(4, 3));
        for (int i = 0; i < 3; i++)
            v[i] = tn_matmul(tn_squeeze(tn_slice_axis(a, 1, i, i + 1), TN_AXES(1)),
                             tn_squeeze(tn_slice_axis(c, 1, i, i + 1), TN_AXES(1)));
        tn_array *want = tn_stack((tn_list){v, 3}, 1);
        int status = tn_vmap(product, NULL, TN_LIST(a, c), TN_AXES(1, -1), 1, TN_AXES(1), y);
        ok(!status && same(y[0], want), "axes 1 and -1 to 1");
        status = tn_vmap(product, NULL, TN_LIST(a, c), TN_AXES(-2, 1), 1, TN_AXES(-1), y);
        ok(!status && same(y[0], want), "the same from the end");
        status = tn_vmap(product, NULL, TN_LIST(tn_slice_axis(a, 0, 0, 1), b),
                         TN_AXES(TN_UNMAPPED, 1), 1, TN_ALL, y);
        ok(status == TN_ESHAPE, "what the function refuses: %s", tn_error());
        status = tn_vmap(product, NULL, TN_LIST(a, tn_ones(TN_SHAPE(4), TN_F64)),
                         TN_AXES(0, TN_UNMAPPED), 1, TN_AXES(1), y);
        want = tn_swapaxes(tn_matmul(a, tn_ones(TN_SHAPE(4), TN_F64)), 0, 1);
        ok(!status && same(y[0], want), "an argument for all");

        status = tn_vmap(several, NULL, TN_LIST(b, tn_f32(0.5)), TN_AXES(0, TN_UNMAPPED), 4,
                         TN_AXES(1, 0, 0, 0), y);
        tn_array *half = tn_full(TN_SHAPE(3), tn_f32(0.5)),
                 *seven = tn_full(TN_SHAPE(3), tn_f32(7));
        ok(!status && same(y[0], tn_swapaxes(b, 0, 1)) &&
               same(y[1], tn_add(tn_sum(b, TN_AXES(1), false), tn_f32(0.5))) && same(y[2], half) &&
               same(y[3], seven),
           "an argument comes back, what serves all is repeated");
        status = tn_vmap(several, NULL, TN_LIST(b, tn_f32(0.5)), TN_AXES(0, TN_UNMAPPED), 4,
                         TN_AXES(-1, 0, TN_UNMAPPED, TN_UNMAPPED), y);
        ok(!status && tn_ndim(y[2]) == 0 && tn_item_f64(y[3]) == 7, "or left as it is");
        ok(!tn_vmap(gives_null, NULL, TN_LIST(b, b), TN_ALL, 0, TN_ALL, NULL), "no results");
    }
}

/* Inside, the argument of the mapped function around it is one for all. */
static int times(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tn_mul(in.v[0], ud);
    return 0;
}
static int table(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_vmap(times, in.v[0], TN_LIST(ud), TN_ALL, n_out, TN_ALL, out);
}

static void test_capture(void) {
    TN_SCOPE {
        tn_array *a = count_up(TN_SHAPE(3)), *b = count_up(TN_SHAPE(4)), *y;
        int status = tn_vmap(table, b, TN_LIST(a), TN_ALL, 1, TN_ALL, &y);
        ok(!status &&
               same(y, tn_matmul(tn_reshape(a, TN_SHAPE(3, 1)), tn_reshape(b, TN_SHAPE(1, 4)))),
           "an inner function takes the argument of the outer");
    }
}

static void test_sizes(void) {
    TN_SCOPE {
        tn_array *y[4], *one = count_up(TN_SHAPE(1, 3)), *none = tn_zeros(TN_SHAPE(3, 0), TN_F32);
        int status =
            tn_vmap(several, NULL, TN_LIST(one, tn_f32(1)), TN_AXES(0, TN_UNMAPPED), 4, TN_ALL, y);
        ok(!status && same(y[0], one) && same(y[1], tn_full(TN_SHAPE(1), tn_f32(7))), "one call");
        status =
            tn_vmap(several, NULL, TN_LIST(none, none), TN_AXES(1, 1), 4, TN_AXES(1, 1, 1, 0), y);
        ok(!status && same(y[0], none) && same(y[1], none) &&
               same(y[3], tn_zeros(TN_SHAPE(0), TN_F32)),
           "no calls");
        tn_array *wide = tn_ones(TN_SHAPE(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2), TN_F32);
        status = tn_vmap(several, NULL, TN_LIST(wide, tn_ones(TN_SHAPE(2), TN_F32)), TN_AXES(-1, 0),
                         2, TN_AXES(3, 0), y);
        ok(!status && tn_ndim(y[0]) == 16 && tn_dim(y[0], 3) == 2, "as many axes as there may be");
    }
}

/* More axes inside than there is room for with one more. */
static int most_axes(tn_list in, tn_array **out, int n_out, void *ud) {
    int64_t ones[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    (void)n_out, (void)ud;
    out[0] = tn_sum(tn_reshape(in.v[0], (tn_ints){ones, 16}), TN_ALL, false);
    return 0;
}
static int too_large(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_broadcast_to(in.v[0], TN_SHAPE((int64_t)1 << 40, 1 << 17));
    return 0;
}

static void test_limits(void) {
    TN_SCOPE {
        tn_array *x = tn_ones(TN_SHAPE(9), TN_F32), *y;
        int status = tn_vmap(most_axes, NULL, TN_LIST(x), TN_ALL, 1, TN_ALL, &y);
        ok(status == TN_ESHAPE && strstr(tn_error(), "one more axis"), "17 axes: %s", tn_error());
        status = tn_vmap(too_large, NULL, TN_LIST(x), TN_ALL, 1, TN_ALL, &y);
        ok(status == TN_ESHAPE && strstr(tn_error(), "too large"), "too many elements: %s",
           tn_error());
    }
}

/* ---- call by call ---- */

static void test_apart(void) {
    TN_SCOPE {
        tn_array *w = tn_random_normal(TN_SHAPE(3, 2, 64), TN_F32, tn_random_key(3)), *q[3],
                 *all[3], *one[3];
        tn_quantize(tn_squeeze(tn_slice_axis(w, 0, 0, 1), TN_AXES(0)), 32, 4, one);
        tn_quantize(w, 32, 4, all);
        int status = tni_vmap_apart(one[0]->node, 3, &w, q);
        ok(!status && same(q[0], all[0]) && same(q[1], all[1]) && same(q[2], all[2]),
           "a primitive of three results, call by call");
        q[0] = q[1] = q[2] = NULL;
        status = tni_stack_node(one[0]->node, 3, &w, one[0]->node->params, q);
        ok(!status && same(q[0], all[0]) && same(q[2], all[2]), "and at once");
    }
}

/* ---- rules of the caller's own ---- */

static int runs, rules;

static int weighted(tn_list in, tn_array **out, int n_out, void *ud) { /* sin(x) w */
    (void)n_out, (void)ud;
    runs++;
    out[0] = tn_mul(tn_sin(in.v[0]), in.v[1]);
    return 0;
}
/* Ten times the true gradient, so that one sees whose rule it was. */
static int weighted_rule(tn_list in, tn_list out, tn_list cot, tn_array **grad, void *ud) {
    (void)out, (void)ud;
    rules++;
    tn_array *g = tn_mul(cot.v[0], tn_f32(10));
    grad[0] = tn_mul(tn_mul(g, in.v[1]), tn_cos(in.v[0]));
    grad[1] = tn_mul(g, tn_sin(in.v[0]));
    return 0;
}
static int with_rule(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_custom_vjp(weighted, weighted_rule, ud, in, n_out, out);
}
static int checkpointed(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_checkpoint(weighted, ud, in, n_out, out);
}
/* Rows of x by elements of w: mapped over both axes of x, the inner one along w. */
static int inner_rows(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_vmap(*(tn_fns *)ud, NULL, in, TN_ALL, n_out, TN_ALL, out);
}
static int outer_rows(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_vmap(inner_rows, ud, in, TN_AXES(0, TN_UNMAPPED), n_out, TN_ALL, out);
}
static tn_array *outer_loss(tn_list in, void *ud) {
    tn_array *y;
    if (outer_rows(in, &y, 1, ud)) return y;
    return tn_sum(tn_mul(y, y), TN_ALL, false);
}
static tn_array *plain_loss(tn_list in, void *ud) {
    (void)ud;
    tn_array *y = tn_mul(tn_sin(in.v[0]), in.v[1]);
    return tn_sum(tn_mul(y, y), TN_ALL, false);
}
static int one_grad(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    tn_array *y;
    if ((*(tn_fns *)ud)(in, &y, 1, NULL)) return tn_array_status(y);
    return tn_vjp(*(tn_fns *)ud, NULL, in, TN_LIST(tn_add(y, y)), &y, out);
}
static int rows_grad(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_vmap(one_grad, ud, in, TN_ALL, n_out, TN_ALL, out);
}

static void check_rule(const char *name, tn_fns fn, double factor, tn_array *x, tn_array *w) {
    tn_array *v, *g[2], *want[2], *y, *t, *f = tn_scalar(factor, TN_F64);
    tn_value_and_grad(plain_loss, NULL, TN_LIST(x, w), 2, &v, want);
    tn_value_and_grad(outer_loss, &fn, TN_LIST(x, w), 2, &v, g);
    ok(same(g[0], tn_mul(want[0], f)) && same(g[1], tn_mul(want[1], f)),
       "%s: grad of vmap of vmap, weights for all rows", name);
    int status = tn_vmap(rows_grad, &fn, TN_LIST(x, w), TN_AXES(0, TN_UNMAPPED), 2, TN_ALL, g);
    ok(!status && same(g[0], tn_mul(want[0], f)) &&
           same(tn_sum(g[1], TN_AXES(0), false), tn_mul(want[1], f)),
       "%s: vmap of vmap of grad", name);
    tn_array *dx = tn_cos(x), *dw = tn_sin(w);
    status = tn_jvp(outer_rows, &fn, TN_LIST(x, w), TN_LIST(dx, dw), 1, &y, &t);
    tn_array *along = tn_add(tn_mul(tn_mul(tn_cos(x), w), dx), tn_mul(tn_sin(x), dw));
    ok(!status && same(y, tn_mul(tn_sin(x), w)) && same(t, tn_mul(along, f)),
       "%s: jvp of vmap of vmap", name);
}

static void test_rules(void) {
    TN_SCOPE {
        tn_array *x = count_up(TN_SHAPE(2, 3)), *w = count_up(TN_SHAPE(3)), *y, *g[2];
        check_rule("custom_vjp", with_rule, 10, x, w);
        check_rule("checkpoint", checkpointed, 1, x, w);
        check_rule("custom_vjp of one row", with_rule, 10, tn_slice_axis(x, 0, 0, 1), w);
        check_rule("custom_vjp of one element", with_rule, 10, tn_slice_axis(x, 1, 0, 1),
                   tn_slice_axis(w, 0, 0, 1));
        tn_fns fn = checkpointed;
        runs = rules = 0;
        tn_value_and_grad(outer_loss, &fn, TN_LIST(x, w), 2, &y, g);
        is_i64(runs, 2, "a checkpoint of all calls runs its function twice");
        fn = with_rule;
        tn_value_and_grad(outer_loss, &fn, TN_LIST(x, w), 2, &y, g);
        is_i64(rules, 1, "a rule is asked once for all calls");
    }
}

/* ---- custom_vmap ---- */

static int cube(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_mul(tn_mul(in.v[0], in.v[0]), tn_mul(in.v[0], in.v[1]));
    out[1] = tn_neg(in.v[1]);
    return 0;
}
typedef struct cube_ud {
    int calls;
    int64_t axes[2];
    int fault; /* 1: a status; 2: a wrong shape; 3: NULL; 4: an axis out of range */
} cube_ud;
static int cube_rule(tn_list in, tn_ints axes, tn_array **out, int64_t *out_axes, void *ud) {
    cube_ud *c = ud;
    c->calls++;
    c->axes[0] = axes.v[0], c->axes[1] = axes.v[1];
    if (c->fault == 1) return TN_EFORMAT;
    out[0] = tn_mul(tn_power(in.v[0], tn_f32(3)), in.v[1]);
    out[1] = tn_neg(in.v[1]);
    out_axes[1] = axes.v[1];
    if (c->fault == 2) out[0] = tn_ones(TN_SHAPE(2), TN_F64);
    if (c->fault == 3) out[1] = NULL;
    if (c->fault == 4) out_axes[0] = 5;
    return 0;
}
static int with_cube(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_custom_vmap(cube, cube_rule, ud, in, n_out, out);
}
static int rows_cube(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_vmap(with_cube, ud, in, TN_AXES(0, TN_UNMAPPED), n_out, TN_ALL, out);
}

static void test_custom_vmap(void) {
    TN_SCOPE {
        cube_ud c = {0};
        tn_array *x = count_up(TN_SHAPE(3, 2)), *w = tn_scalar(2, TN_F64), *y[2], *g[2];
        tn_array *cubes = tn_mul(tn_power(x, tn_f32(3)), w), *three = tn_ones(TN_SHAPE(3), TN_F64);
        int status = with_cube(TN_LIST(x, w), y, 2, &c);
        ok(!status && !c.calls && same(y[0], cubes), "without vmap the function itself");
        status =
            tn_vmap(with_cube, &c, TN_LIST(x, w), TN_AXES(1, TN_UNMAPPED), 2, TN_AXES(1, 0), y);
        ok(!status && c.calls == 1 && c.axes[0] == 0 && c.axes[1] == TN_UNMAPPED &&
               same(y[0], cubes) && same(y[1], tn_full(TN_SHAPE(2), tn_f32(-2))),
           "a rule, one result for all");
        tn_array *cot[2] = {tn_ones(TN_SHAPE(3, 2), TN_F64), three};
        status = tn_vjp(rows_cube, &c, TN_LIST(x, w), (tn_list){cot, 2}, y, g);
        tn_array *d = tn_mul(tn_mul(x, x), tn_f32(6));
        ok(!status && same(g[0], d) && fabs(tn_item_f64(g[1]) - (441 - 3)) < 1e-9,
           "vjp of what the rule says");
        tn_array *t = tn_ones(TN_SHAPE(3, 2), TN_F64);
        status = tn_jvp(with_cube, &c, TN_LIST(x, w), TN_LIST(t, tn_scalar(0, TN_F64)), 2, y, g);
        ok(!status && same(g[0], d), "jvp without vmap is the function's");
        status = tn_vjp(with_cube, &c, TN_LIST(x, w), TN_LIST(t, w), y, g);
        ok(!status && same(g[0], d), "vjp without vmap is the function's");
        c.calls = 0;
        status = tn_vmap(rows_cube, &c, TN_LIST(tn_stack(TN_LIST(x, x), 0), w),
                         TN_AXES(0, TN_UNMAPPED), 2, TN_ALL, y);
        ok(!status && c.calls == 1 && same(y[0], tn_stack(TN_LIST(cubes, cubes), 0)),
           "vmap of vmap of a rule");
        static const struct {
            int status;
            const char *text;
        } faults[] = {{TN_EFORMAT, "the rule returned"},
                      {TN_ESHAPE, "result 0 of the rule is [2] float64"},
                      {TN_EVALUE, "result 1 of the function is NULL"},
                      {TN_ESHAPE, "result 0 of the rule"}};
        for (int i = 0; i < 4; i++) {
            c.fault = i + 1;
            status = rows_cube(TN_LIST(x, w), y, 2, &c);
            ok(status == faults[i].status && strstr(tn_error(), faults[i].text),
               "a rule that is wrong: %s", tn_error());
        }
        status = tn_custom_vmap(cube, NULL, NULL, TN_LIST(x, w), 2, y);
        ok(status == TN_EVALUE && strstr(tn_error(), "NULL"), "no rule: %s", tn_error());
    }
}

/* ---- random numbers, indices, compiled functions ---- */

static int draw(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *keys = tn_random_split(in.v[0], 2);
    (void)n_out, (void)ud;
    out[0] = tn_random_normal(TN_SHAPE(5), TN_F32,
                              tn_reshape(tn_slice_axis(keys, 0, 1, 2), TN_SHAPE(2)));
    out[1] = tn_random_categorical(tn_zeros(TN_SHAPE(3, 9), TN_F32), 1, in.v[0]);
    out[2] = tn_random_uniform(NULL, NULL, TN_SHAPE(4), TN_F32, NULL);
    return 0;
}

static void test_random(void) {
    TN_SCOPE {
        enum { KEYS = 700 }; /* more than one thread's share */
        tn_array *keys = tn_random_split(tn_random_key(11), KEYS), *y[3], *one[3];
        int status = tn_vmap(draw, NULL, TN_LIST(keys), TN_ALL, 3, TN_ALL, y);
        for (int i = 0; i < KEYS && !status; i += 233) {
            tn_array *key = tn_reshape(tn_slice_axis(keys, 0, i, i + 1), TN_SHAPE(2));
            (void)draw(TN_LIST(key), one, 3, NULL);
            for (int k = 0; k < 2; k++)
                ok(same(tn_squeeze(tn_slice_axis(y[k], 0, i, i + 1), TN_AXES(0)), one[k]),
                   "draw %d from key %d is the key's own", k, i);
        }
        tn_array *first = tn_slice_axis(y[2], 0, 0, 1);
        ok(!status && same(y[2], tn_broadcast_to(first, TN_SHAPE(KEYS, 4))),
           "without a key the calls draw the same");
    }
}

static int pick(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_take(in.v[0], in.v[1], 0);
    return 0;
}

static void test_indices(void) {
    TN_SCOPE {
        tn_array *a = count_up(TN_SHAPE(2, 3)), *y;
        tn_array *good = tn_array_new((int32_t[]){-1, 0}, TN_I32, TN_SHAPE(2)),
                 *bad = tn_array_new((int32_t[]){3, 0}, TN_I32, TN_SHAPE(2));
        tn_array *want = tn_array_new((double[]){3, 4}, TN_F64, TN_SHAPE(2));
        int status = tn_vmap(pick, NULL, TN_LIST(a, good), TN_ALL, 1, TN_ALL, &y);
        ok(!status && same(y, want), "every call its own index, from the end too");
        status = tn_vmap(pick, NULL, TN_LIST(a, bad), TN_ALL, 1, TN_ALL, &y);
        status = status ? 0 : tn_eval(TN_LIST(y));
        ok(status == TN_EINDEX, "an index out of its call is no index into the next: %s",
           tn_error());
        tn_array *none = tn_zeros(TN_SHAPE(2, 0), TN_F64), *no = tn_zeros(TN_SHAPE(2, 0), TN_I32);
        status = tn_vmap(pick, NULL, TN_LIST(none, no), TN_ALL, 1, TN_ALL, &y);
        ok(!status && same(y, none), "nothing of nothing");
    }
}

static int rows_weighted(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_vmap(weighted, ud, in, TN_AXES(0, TN_UNMAPPED), n_out, TN_ALL, out);
}
static int call_compiled(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    return tn_compiled_call(ud, in, out);
}

static void test_compiled(void) {
    tn_compiled *c = tn_compile(rows_weighted, NULL, 1, NULL),
                *d = tn_compile(weighted, NULL, 1, NULL);
    TN_SCOPE {
        tn_array *x = count_up(TN_SHAPE(4, 3)), *w = count_up(TN_SHAPE(3)), *y, *want;
        int status = rows_weighted(TN_LIST(x, w), &want, 1, NULL);
        for (int i = 0; i < 2 && !status; i++) {
            status = tn_compiled_call(c, TN_LIST(x, w), &y);
            ok(!status && same(y, want), "compiled, call %d", i);
        }
        status = tn_vmap(call_compiled, d, TN_LIST(x, w), TN_AXES(0, TN_UNMAPPED), 1, TN_ALL, &y);
        ok(!status && same(y, want), "vmap of a compiled function");
    }
    tn_compiled_free(c), tn_compiled_free(d);
}

/* ---- misuse ---- */

static int reads(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_f32(tn_item_f32(tn_sum(in.v[0], TN_ALL, false)));
    return tn_array_status(out[0]) || !*tn_error() ? 0 : TN_ESTATE;
}
static int leaks(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tn_mul(in.v[0], in.v[0]);
    return tn_assign(ud, tn_sin(out[0]));
}

static void misuse(tn_fns fn, tn_list in, tn_ints in_axes, tn_ints out_axes, int status,
                   const char *text) {
    tn_array *y[2];
    int got = tn_vmap(fn, NULL, in, in_axes, 1, out_axes, y);
    ok(got == status && strstr(tn_error(), text) && tn_array_status(y[0]) == status,
       "status %d: %s", got, tn_error());
}

static void test_misuse(void) {
    tn_array *slot = NULL;
    TN_SCOPE {
        tn_array *a = tn_ones(TN_SHAPE(2, 3), TN_F32), *b = tn_ones(TN_SHAPE(3), TN_F32), *y,
                 *s = tn_f32(1), *bad = tn_reshape(a, TN_SHAPE(5));
        misuse(product, TN_LIST(a, b), TN_AXES(0, 0), TN_ALL, TN_ESHAPE,
               "argument 1, [3] float32, has size 3");
        misuse(product, TN_LIST(a, s), TN_ALL, TN_ALL, TN_EAXIS, "argument 1");
        misuse(product, TN_LIST(a, b), TN_AXES(2, 0), TN_ALL, TN_EAXIS, "axis 2");
        misuse(product, TN_LIST(a, b), TN_AXES(-3, 0), TN_ALL, TN_EAXIS, "axis -3");
        misuse(product, TN_LIST(a, b), TN_AXES(1), TN_ALL, TN_EVALUE, "1 axes for 2 arguments");
        misuse(product, TN_LIST(a, b), TN_AXES(TN_UNMAPPED, TN_UNMAPPED), TN_ALL, TN_EVALUE,
               "no argument is mapped");
        misuse(product, TN_LIST(), TN_ALL, TN_ALL, TN_EVALUE, "no argument is mapped");
        misuse(product, TN_LIST(a, b), TN_AXES(0, TN_UNMAPPED), TN_AXES(1), TN_EAXIS, "result 0");
        misuse(product, TN_LIST(a, b), TN_AXES(0, TN_UNMAPPED), TN_AXES(0, 0), TN_EVALUE,
               "2 axes for 1 results");
        misuse(product, TN_LIST(a, b), TN_AXES(0, TN_UNMAPPED), TN_AXES(TN_UNMAPPED), TN_EVALUE,
               "result 0 depends");
        misuse(product, TN_LIST(a, NULL), TN_ALL, TN_ALL, TN_EVALUE, "argument 1 is NULL");
        misuse(product, TN_LIST(a, bad), TN_ALL, TN_ALL, TN_ESHAPE, "reshape");
        misuse(NULL, TN_LIST(a), TN_ALL, TN_ALL, TN_EVALUE, "function is NULL");
        misuse(gives_null, TN_LIST(a), TN_ALL, TN_ALL, TN_EVALUE,
               "result 0 of the function is NULL");
        misuse(reads, TN_LIST(a), TN_ALL, TN_ALL, TN_ESTATE, "not known inside");
        ok(tn_vmap(product, NULL, TN_LIST(a), TN_ALL, -1, TN_ALL, &y) == TN_EVALUE, "-1 results");
        int status = tn_vmap(leaks, &slot, TN_LIST(a), TN_ALL, 1, TN_ALL, &y);
        ok(!status && same(y, a), "a function that leaves a value behind");
        status = tn_eval(TN_LIST(slot));
        ok(status == TN_ESTATE && strstr(tn_error(), "after the function had returned"),
           "which is none: %s", tn_error());
    }
    tn_drop(slot);
}

/* ---- memory that runs out ---- */

static int much(tn_list in, tn_array **out, int n_out, void *ud) {
    static cube_ud c;
    tn_array *x = in.v[0], *w = in.v[1], *h = tn_softmax(tn_matmul(x, w), TN_AXES(-1)), *y[2];
    int status = tn_checkpoint(product, ud, TN_LIST(h, w), 1, y);
    if (!status) h = tn_fast_layer_norm(y[0], tn_sum(w, TN_AXES(0), false), NULL, 1e-5);
    if (!status) status = with_cube(TN_LIST(h, tn_sum(w, TN_ALL, false)), y, 2, &c);
    if (!status) h = tn_take(y[0], tn_argsort(tn_sum(h, TN_AXES(1), false), 0), 0);
    (void)n_out;
    out[0] = tn_concatenate(TN_LIST(h, y[0], x), 0);
    return status;
}
static tn_array *much_loss(tn_list in, void *ud) {
    tn_array *y;
    if (tn_vmap(much, ud, in, TN_AXES(1, TN_UNMAPPED), 1, TN_AXES(-1), &y)) return y;
    return tn_sum(y, TN_ALL, false);
}

static int memory_run(int64_t n, bool *reached, bool *clean) {
    int status = 0;
    TN_SCOPE {
        tn_array *x = count_up(TN_SHAPE(4, 2, 4)), *w = tn_eye(4, 4, 0, TN_F64), *y, *g[2];
        int64_t asked = tni_alloc_count();
        tni_fail_alloc_at(n);
        tn_value_and_grad(much_loss, NULL, TN_LIST(x, w), 2, &y, g);
        *reached = n && tni_alloc_count() - asked >= n;
        tni_fail_alloc_at(0);
        status = tn_array_status(y);
        for (int k = 0; k < 2; k++) *clean = *clean && tn_array_status(g[k]) == status;
        if (!status) *clean = *clean && !tn_eval(TN_LIST(y, g[0], g[1]));
    }
    return status;
}

static void test_memory(void) { memory_check(memory_run, 200); }

int main(void) {
    test_axes();
    test_capture();
    test_sizes();
    test_limits();
    test_apart();
    test_rules();
    test_custom_vmap();
    test_random();
    test_indices();
    test_compiled();
    test_misuse();
    test_memory();
    return tap_done();
}
