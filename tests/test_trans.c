/* How transforms behave: every element-wise row, precision, nesting, custom rules, checkpoints,
 * long chains, misuse, memory that runs out. */
#include "base/alloc.h"
#include "memory.h"
#include "ops/build.h"
#include "tap.h"
#include <math.h>

/* ---- every row of elementwise.def, through the public transforms ---- */

static const struct {
    const char *name;
    int arity;
} rows[] = {
#define EW1(name, ...) {#name, 1},
#define EW2(name, ...) {#name, 2},
#define EW3(name, ...) {#name, 3},
#include "ops/elementwise.def"
#undef EW1
#undef EW2
#undef EW3
};

enum { N = 12 };
/* Inside (0, 1), the domain of every op but arccosh, clear of ties; tests/test_derivatives.c has
 * the columns everywhere else. */
static const double as[N] = {0.13, 0.36, 0.62, 0.91, 0.27, 0.44,
                             0.53, 0.87, 0.21, 0.83, 0.73, 0.31};
static const double bs[4] = {0.7, 1.4, 2.2, 0.35};

static tn_array *row_in(int e, int k, tn_dtype d) {
    if (rows[e].arity == 3 && k == 0)
        return tn_array_new((uint8_t[]){1, 0, 0, 1}, TN_BOOL, TN_SHAPE(4));
    bool wide = k == 0 || (rows[e].arity == 3 && k == 1);
    return tn_astype(
        wide ? tn_array_new(as, TN_F64, TN_SHAPE(3, 4)) : tn_array_new(bs, TN_F64, TN_SHAPE(4)), d);
}
static int row_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tni_ew(*(int *)ud, in.n, in.v);
    return 0;
}
static tn_array *row_weights(tn_array *like, double phase) {
    double v[N];
    for (int i = 0; i < N; i++) v[i] = cos(phase + 1.7 * i);
    tn_array *w = tn_array_new(v, TN_F64, TN_SHAPE(3, 4));
    return tn_astype(like->ndim == 1 ? tn_squeeze(tn_slice_axis(w, 0, 0, 1), TN_AXES(0)) : w,
                     tn_dtype_of(like));
}

static double row_dot(tn_array *a, tn_array *w) {
    tn_array *p = tn_mul(tn_astype(a, TN_F64), tn_astype(w, TN_F64));
    return tn_item_f64(tn_sum(p, TN_ALL, false));
}

static void check_row(int e, tn_dtype d) {
    double along = NAN, back = 0, slope = 0, h = 1e-4;
    int status = 0;
    TN_SCOPE {
        tn_array *in[3], *v[3], *y, *t, *g[3], *u, *plus[3], *minus[3];
        int n = rows[e].arity;
        for (int k = 0; k < n; k++) {
            in[k] = row_in(e, k, d);
            bool flat = in[k]->dtype == TN_BOOL;
            v[k] = flat ? tn_zeros_like(in[k]) : row_weights(in[k], k + 0.3);
            tn_array *m = flat ? NULL : tn_mul(tn_astype(v[k], TN_F64), tn_scalar(h, TN_F64));
            tn_array *x = flat ? in[k] : tn_astype(in[k], TN_F64);
            plus[k] = flat ? x : tn_add(x, m), minus[k] = flat ? x : tn_sub(x, m);
        }
        status = tn_jvp(row_fns, &e, (tn_list){in, n}, (tn_list){v, n}, 1, &y, &t);
        if (status || !tni_is_inexact(tn_dtype_of(y))) break;
        u = row_weights(y, 2.1);
        status = tn_vjp(row_fns, &e, (tn_list){in, n}, TN_LIST(u), &y, g);
        along = row_dot(t, u);
        for (int k = 0; k < n && !status; k++)
            if (in[k]->dtype != TN_BOOL) back += row_dot(g[k], v[k]);
        tn_array *dy = tn_sub(tni_ew(e, n, plus), tni_ew(e, n, minus));
        slope = row_dot(tn_mul(dy, tn_scalar(0.5 / h, TN_F64)), u);
    }
    if (isnan(along)) {
        ok(!status, "%s: no derivative, and no error", rows[e].name);
        return;
    }
    double slack = (d == TN_F64 ? 1e-5 : 1e-3) * (1 + fabs(slope));
    ok(!status && fabs(along - slope) <= slack && fabs(along - back) <= slack,
       "%s, %s: along %.9g, back %.9g, difference %.9g", rows[e].name, tn_dtype_name(d), along,
       back, slope);
}

static void test_rows(void) {
    for (int e = 0; e < TNI_EW_COUNT; e++) {
        tn_array *probe;
        int status = 0;
        TN_SCOPE {
            tn_array *in[3];
            for (int k = 0; k < rows[e].arity; k++) in[k] = row_in(e, k, TN_F64);
            status = tn_array_status(probe = tni_ew(e, rows[e].arity, in));
        }
        if (status) continue; /* bits and shifts take no floats */
        check_row(e, TN_F64);
        check_row(e, TN_F32);
    }
}

/* ---- nesting ---- */

static tn_array *cube(tn_list in, void *ud) {
    (void)ud;
    return tn_mul(in.v[0], tn_mul(in.v[0], in.v[0]));
}
static tn_array *cube1(tn_list in, void *ud) { return tn_grad(cube, ud, in, 0); }
static tn_array *cube2(tn_list in, void *ud) { return tn_grad(cube1, ud, in, 0); }
static int cube_grad_fns(tn_list in, tn_array **out, int n, void *ud) {
    (void)n;
    out[0] = tn_grad(cube, ud, in, 0);
    return 0;
}
/* x times the derivative of (y -> x y) at y = x: the inner and outer x must not be confused. */
static tn_array *product(tn_list in, void *ud) { return tn_mul(in.v[0], ud); }
static tn_array *confusion(tn_list in, void *ud) {
    (void)ud;
    return tn_mul(in.v[0], tn_grad(product, in.v[0], in, 0));
}
static int jvp_inside(tn_list in, tn_array **out, int n, void *ud) {
    (void)n;
    tn_array *y;
    return tn_jvp(cube_grad_fns, ud, in, TN_LIST(tn_scalar(1, TN_F64)), 1, &y, out);
}

static void test_nesting(void) {
    TN_SCOPE {
        tn_array *x = tn_scalar(3, TN_F64), *y, *t, *g;
        ok(tn_item_f64(cube1(TN_LIST(x), NULL)) == 27, "grad of a cube");
        ok(tn_item_f64(cube2(TN_LIST(x), NULL)) == 18, "grad of grad");
        ok(tn_item_f64(tn_grad(cube2, NULL, TN_LIST(x), 0)) == 6, "grad of grad of grad");
        ok(!tn_jvp(cube_grad_fns, NULL, TN_LIST(x), TN_LIST(tn_scalar(2, TN_F64)), 1, &y, &t) &&
               tn_item_f64(y) == 27 && tn_item_f64(t) == 36,
           "jvp of grad");
        ok(!tn_vjp(jvp_inside, NULL, TN_LIST(x), TN_LIST(tn_scalar(1, TN_F64)), &y, &g) &&
               tn_item_f64(y) == 18 && tn_item_f64(g) == 6,
           "vjp of jvp of grad");
        ok(tn_item_f64(tn_grad(confusion, NULL, TN_LIST(x), 0)) == 6,
           "an inner gradient at an outer argument");
    }
}

/* ---- results ---- */

static int several(tn_list in, tn_array **out, int n, void *ud) {
    (void)n, (void)ud;
    out[0] = tn_sum(tn_mul(in.v[0], in.v[2]), TN_ALL, false);
    out[1] = in.v[0];
    out[2] = tn_add(in.v[1], tn_i32(1));
    return 0;
}
static tn_array *itself(tn_list in, void *ud) {
    (void)ud;
    return in.v[0];
}
static tn_array *stopped(tn_list in, void *ud) {
    (void)ud;
    return tn_mul(in.v[0], tn_stop_gradient(in.v[0]));
}

static void test_results(void) {
    TN_SCOPE {
        tn_array *a = tn_array_new((double[]){1, 2}, TN_F64, TN_SHAPE(2)), *i = tn_i32(4),
                 *b = tn_array_new((double[]){3, 5}, TN_F64, TN_SHAPE(2)), *out[3], *g[2], *y;
        int which[2] = {2, 0};
        int status = tn_value_and_grad_of(several, NULL, TN_LIST(a, i, b), which, 2, 3, out, g);
        ok(!status && tn_item_f64(out[0]) == 13 && tn_item_i64(out[2]) == 5 && out[1] == a,
           "auxiliary results; an argument comes back as itself");
        ok(!status && tn_data(g[0]) && ((const double *)tn_data(g[0]))[1] == 2 &&
               ((const double *)tn_data(g[1]))[1] == 5,
           "gradients by arguments 2 and 0");
        tn_value_and_grad(itself, NULL, TN_LIST(tn_scalar(2, TN_F64)), 1, &y, g);
        ok(tn_item_f64(y) == 2 && tn_item_f64(g[0]) == 1, "the identity");
        ok(tn_item_f64(tn_grad(stopped, NULL, TN_LIST(tn_scalar(5, TN_F64)), 0)) == 5,
           "stop_gradient");
    }
}

/* ---- custom rules and checkpoints ---- */

static int twice(tn_list in, tn_array **out, int n, void *ud) {
    (void)ud;
    out[0] = tn_mul(in.v[0], tn_f32(2));
    if (n > 1) out[1] = tn_exp(in.v[0]);
    return 0;
}
static int wrong_rule(tn_list in, tn_list out, tn_list cot, tn_array **grads, void *ud) {
    (void)in, (void)out, (void)ud;
    grads[0] = tn_sum(cot.v[0], TN_ALL, true);
    return 0;
}
static int times_ten(tn_list in, tn_list out, tn_list cot, tn_array **grads, void *ud) {
    (void)ud;
    grads[0] = tn_mul(cot.v[0], tn_mul(in.v[0], tn_f32(10)));
    if (cot.n > 1) grads[0] = tn_add(grads[0], tn_mul(cot.v[1], out.v[1]));
    return 0;
}
typedef struct custom_ud {
    tn_vjp_rule rule;
    int n, runs;
} custom_ud;
static int counted(tn_list in, tn_array **out, int n, void *ud) {
    ((custom_ud *)ud)->runs++;
    return twice(in, out, n, NULL);
}
static tn_array *custom_loss(tn_list in, void *ud) {
    custom_ud *c = ud;
    tn_array *y[2];
    int status = c->rule ? tn_custom_vjp(twice, c->rule, NULL, in, c->n, y)
                         : tn_checkpoint(counted, c, in, c->n, y);
    if (status) return y[0];
    return tn_sum(c->n > 1 ? tn_add(y[0], y[1]) : y[0], TN_ALL, false);
}
static int custom_fns(tn_list in, tn_array **out, int n, void *ud) {
    (void)n;
    out[0] = custom_loss(in, ud);
    return 0;
}
static tn_array *custom_loss_grad(tn_list in, void *ud) {
    return tn_sum(tn_grad(custom_loss, ud, in, 0), TN_ALL, false);
}

static void test_custom(void) {
    TN_SCOPE {
        custom_ud c = {times_ten, 1, 0}, both = {times_ten, 2, 0}, bad = {wrong_rule, 1, 0},
                  keep = {NULL, 2, 0};
        tn_array *x = tn_array_new((double[]){3, 4}, TN_F64, TN_SHAPE(2)), *y, *t, *g;
        g = tn_grad(custom_loss, &c, TN_LIST(x), 0);
        ok(tn_data(g) && ((const double *)tn_data(g))[1] == 40, "custom_vjp: its own rule");
        g = tn_grad(custom_loss, &both, TN_LIST(x), 0);
        ok(tn_data(g) && fabs(((const double *)tn_data(g))[0] - 30 - exp(3)) < 1e-12,
           "custom_vjp of two results");
        g = tn_grad(custom_loss_grad, &c, TN_LIST(x), 0);
        ok(tn_data(g) && ((const double *)tn_data(g))[1] == 10,
           "custom_vjp: the rule's derivative");
        ok(!tn_jvp(custom_fns, &c, TN_LIST(x), TN_LIST(x), 1, &y, &t) && tn_item_f64(y) == 14 &&
               tn_item_f64(t) == 250,
           "custom_vjp forwards: the rule transposed");
        g = tn_grad(custom_loss, &bad, TN_LIST(x), 0);
        ok(tn_array_status(g) == TN_ESHAPE && strstr(tn_array_error(g), "argument 0"),
           "custom_vjp: a wrong gradient shape: %s", tn_array_error(g));
        tn_value_and_grad(custom_loss, &keep, TN_LIST(x), 1, &y, &g);
        ok(keep.runs == 2 && tn_data(g) &&
               fabs(((const double *)tn_data(g))[0] - 2 - exp(3)) < 1e-12,
           "checkpoint: runs twice, the same gradient");
        g = tn_grad(custom_loss_grad, &keep, TN_LIST(x), 0);
        ok(tn_data(g) && fabs(((const double *)tn_data(g))[1] - exp(4)) < 1e-12,
           "checkpoint: second derivatives");
        ok(!tn_jvp(custom_fns, &keep, TN_LIST(x), TN_LIST(x), 1, &y, &t) &&
               fabs(tn_item_f64(t) - 14 - 3 * exp(3) - 4 * exp(4)) < 1e-9,
           "checkpoint forwards");
    }
}

/* ---- a rule's results, differentiated again: through the rule ---- */

/* Steps, whose slope is 0 to all but the rules, which say that result 1 is its own derivative and
 * that of result 0. */
static int stairs(tn_list in, tn_array **out, int n, void *ud) {
    (void)ud;
    tn_array *floor = tn_floor(tn_exp(in.v[0]));
    for (int k = 0; k < n; k++) out[k] = tn_mul(floor, tn_f32(k + 1));
    return 0;
}
static int stairs_vjp(tn_list in, tn_list out, tn_list cot, tn_array **grads, void *ud) {
    (void)in, (void)ud;
    grads[0] = tn_mul(out.v[out.n - 1], cot.v[0]);
    if (out.n > 1) grads[0] = tn_add(grads[0], tn_mul(out.v[1], cot.v[1]));
    return 0;
}
static int stairs_jvp(tn_list in, tn_list out, tn_list tan, tn_array **out_tan, void *ud) {
    (void)in, (void)ud;
    for (int k = 0; k < out.n; k++) out_tan[k] = tn_mul(out.v[out.n - 1], tan.v[0]);
    return 0;
}

typedef struct stairs_ud {
    int n;
    bool jvp;
} stairs_ud;
static tn_array *stairs_0(tn_list in, void *ud) {
    const stairs_ud *s = ud;
    tn_array *y[2];
    if (s->jvp)
        (void)tn_custom_jvp(stairs, stairs_jvp, NULL, in, s->n, y);
    else
        (void)tn_custom_vjp(stairs, stairs_vjp, NULL, in, s->n, y);
    return y[0];
}
static tn_array *stairs_1(tn_list in, void *ud) { return tn_grad(stairs_0, ud, in, 0); }
static tn_array *stairs_2(tn_list in, void *ud) { return tn_grad(stairs_1, ud, in, 0); }
static tn_array *stairs_3(tn_list in, void *ud) { return tn_grad(stairs_2, ud, in, 0); }

static int stairs_forward_1(tn_list in, tn_array **out, int n, void *ud) {
    (void)n;
    out[0] = stairs_1(in, ud);
    return 0;
}
static int stairs_forward_2(tn_list in, tn_array **out, int n, void *ud) {
    tn_array *y;
    tn_list one = TN_LIST(tn_ones_like(in.v[0]));
    return tn_jvp(stairs_forward_1, ud, in, one, n, &y, out);
}

static void test_stairs(void) {
    static const stairs_ud all[] = {{1, false}, {2, false}, {1, true}, {2, true}};
    for (int i = 0; i < 4; i++)
        TN_SCOPE {
            stairs_ud s = all[i];
            const char *name = s.jvp ? "custom_jvp" : "custom_vjp";
            tn_array *x = tn_scalar(2, TN_F64),
                     *two = tn_array_new((double[]){2, 3}, TN_F64, TN_SHAPE(2)), *y, *t;
            tn_list in = TN_LIST(x), one = TN_LIST(tn_scalar(1, TN_F64));
            double want = 7.0 * s.n; /* floor(exp(2)) */
            ok(tn_item_f64(stairs_0(in, &s)) == 7, "%s, %d results", name, s.n);
            ok(tn_item_f64(stairs_1(in, &s)) == want, "the first derivative is result %d", s.n - 1);
            ok(tn_item_f64(stairs_2(in, &s)) == want, "the second goes through the rule");
            ok(tn_item_f64(stairs_3(in, &s)) == want, "the third as well");
            ok(!tn_jvp(stairs_forward_1, &s, in, one, 1, &y, &t) && tn_item_f64(t) == want,
               "the second, forwards");
            ok(!tn_jvp(stairs_forward_2, &s, in, one, 1, &y, &t) && tn_item_f64(t) == want,
               "the third, forwards over forwards");
            ok(!tn_vmap(stairs_forward_2, &s, TN_LIST(two), TN_INTS(0), 1, TN_ALL, &y) &&
                   tn_data(y) && ((const double *)tn_data(y))[1] == 20.0 * s.n,
               "the second of many calls");
        }
}

/* ---- random numbers in a checkpoint: run again, it draws what it drew ---- */

static int dropped(tn_list in, tn_array **out, int n, void *ud) {
    (void)n, (void)ud;
    tn_array *mask = tn_random_bernoulli(tn_f32(0.5), tn_shape(in.v[0]), NULL);
    out[0] = tn_mul(mask, tn_mul(in.v[0], tn_random_normal(tn_shape(in.v[0]), TN_F32, NULL)));
    return 0;
}
/* The second of a checkpoint in a checkpoint. */
static int dropped_within(tn_list in, tn_array **out, int n, void *ud) {
    int status = dropped(in, out, n, ud);
    return status ? status : tn_checkpoint(dropped, NULL, TN_LIST(out[0]), n, out);
}
static int drop_loss(tn_list in, tn_array **out, int n, void *ud) {
    tn_fns fn = *(tn_fns *)ud;
    tn_array *y;
    int status = tn_checkpoint(fn, NULL, in, 1, &y);
    if (!status && n > 1) out[1] = y;
    out[0] = status ? y : tn_sum(y, TN_ALL, false);
    return status;
}
/* The results, and x times their gradient, which is the same. */
static int drop_both(tn_list in, tn_array **out, int n, void *ud) {
    tn_array *value[2], *grad;
    (void)n;
    int status = tn_value_and_grad_of(drop_loss, ud, in, NULL, 1, 2, value, &grad);
    out[0] = value[1], out[1] = tn_mul(grad, in.v[0]);
    return status;
}

static void test_drawn(tn_fns fn, const char *what) {
    TN_SCOPE {
        tn_array *x = tn_random_normal(TN_SHAPE(4, 50), TN_F32, NULL), *y[2], *z[2], *plain;
        tn_random_seed(11);
        int status = fn(TN_LIST(x), &plain, 1, NULL);
        uint64_t after = tn_random_state();
        tn_random_seed(11);
        if (!status) status = drop_both(TN_LIST(x), y, 2, &fn);
        ok(!status && tn_random_state() == after, "%s: the sequence goes on as without", what);
        tn_array *off = tn_max(tn_abs(tn_sub(y[0], y[1])), TN_ALL, false);
        ok(tn_item_f32(off) < 1e-5f, "%s: gradients of what was drawn (%s)", what, tn_error());
        ok(tn_item_bool(tn_all(tn_equal(y[0], plain), TN_ALL, false)), "%s: the same values", what);
        ok(tn_item_f32(tn_sum(tn_equal(plain, tn_f32(0)), TN_ALL, false)) > 50, "%s: drops", what);
        tn_random_seed(11);
        tn_compiled *c = tn_compile(drop_both, &fn, 2, NULL);
        for (int i = 0; i < 2; i++) {
            uint64_t before = tn_random_state();
            status = tn_compiled_call(c, TN_LIST(x), z);
            off = tn_max(tn_abs(tn_sub(z[0], z[1])), TN_ALL, false);
            ok(!status && tn_item_f32(off) < 1e-5f, "%s: compiled, call %d", what, i);
            tn_array *like = tn_equal(z[0], y[0]);
            ok(tn_item_bool(tn_all(like, TN_ALL, false)) == !i && tn_random_state() != before,
               "%s: each call draws anew", what);
        }
        ok(tn_random_state() != after, "%s: twice as far", what);
        tn_compiled_free(c);
        status = tn_vmap(drop_both, &fn, TN_LIST(x), TN_ALL, 2, TN_ALL, y);
        off = tn_max(tn_abs(tn_sub(y[0], y[1])), TN_ALL, false);
        ok(!status && tn_item_f32(off) < 1e-5f, "%s: mapped (%s)", what, status ? tn_error() : "");
        tn_random_seed(3);
        status = tn_vmap(fn, NULL, TN_LIST(x), TN_ALL, 1, TN_ALL, z);
        tn_random_seed(3);
        if (!status) status = tn_vmap(drop_both, &fn, TN_LIST(x), TN_ALL, 2, TN_ALL, y);
        ok(!status && tn_item_bool(tn_all(tn_equal(y[0], z[0]), TN_ALL, false)),
           "%s: mapped, the same values", what);
    }
}

/* ---- misuse ---- */

static int peek_status;
static tn_array *peeks(tn_list in, void *ud) {
    tn_array *y = tn_sum(tn_square(in.v[0]), TN_ALL, false);
    peek_status = tn_eval(TN_LIST(y));
    return ud ? tn_mul(y, tn_f32(tn_item_f64(y))) : y;
}
static tn_array *gives_error(tn_list in, void *ud) {
    (void)ud;
    return tn_add(in.v[0], tn_zeros(TN_SHAPE(7), TN_F64));
}
static tn_array *gives_null(tn_list in, void *ud) {
    (void)in, (void)ud;
    return NULL;
}
static tn_array *gives_vector(tn_list in, void *ud) {
    (void)ud;
    return tn_square(in.v[0]);
}
static tn_array *gives_integer(tn_list in, void *ud) {
    (void)ud;
    return tn_argmax(in.v[0], TN_ALL, false);
}
static int fails(tn_list in, tn_array **out, int n, void *ud) {
    (void)in, (void)out, (void)n, (void)ud;
    return TN_EFORMAT;
}

static void misuse(tn_array *g, int status, const char *word, const char *what) {
    ok(tn_array_status(g) == status && strstr(tn_array_error(g), word), "%s: %s", what,
       tn_array_error(g));
}

static void test_misuse(void) {
    TN_SCOPE {
        tn_array *x = tn_array_new((double[]){3, 4}, TN_F64, TN_SHAPE(2)), *y, *g[2];
        tn_array *whole = tn_array_new((int32_t[]){3, 4}, TN_I32, TN_SHAPE(2));
        g[0] = tn_grad(peeks, NULL, TN_LIST(x), 0);
        ok(peek_status == TN_ESTATE && tn_item_f64(tn_sum(g[0], TN_ALL, false)) == 14,
           "evaluation inside is refused, and does no harm");
        misuse(tn_grad(gives_error, NULL, TN_LIST(x), 0), TN_ESHAPE, "grad", "an error array");
        misuse(tn_grad(gives_null, NULL, TN_LIST(x), 0), TN_EVALUE, "NULL", "a NULL result");
        misuse(tn_grad(gives_vector, NULL, TN_LIST(x), 0), TN_ESHAPE, "[2] float64", "no scalar");
        misuse(tn_grad(gives_integer, NULL, TN_LIST(x), 0), TN_ESHAPE, "uint32", "an integer loss");
        misuse(tn_grad(cube, NULL, TN_LIST(whole), 0), TN_EDTYPE, "int32", "an integer argument");
        misuse(tn_grad(NULL, NULL, TN_LIST(x), 0), TN_EVALUE, "NULL", "no function");
        misuse(tn_grad(cube, NULL, TN_LIST(x), 1), TN_EVALUE, "argument 1", "no such argument");
        misuse(tn_grad(cube, NULL, TN_LIST(NULL), 0), TN_EVALUE, "argument 0", "a NULL argument");
        ok(tn_vjp(twice, NULL, TN_LIST(x), TN_LIST(tn_f32(1)), &y, g) == TN_ESHAPE &&
               strstr(tn_error(), "cotangent 0"),
           "a cotangent of another shape: %s", tn_error());
        ok(tn_jvp(twice, NULL, TN_LIST(x), TN_LIST(), 1, &y, g) == TN_EVALUE,
           "a missing tangent: %s", tn_error());
        ok(tn_vjp(fails, NULL, TN_LIST(x), TN_LIST(x), &y, g) == TN_EFORMAT &&
               tn_array_status(g[0]) == TN_EFORMAT,
           "the function's status: %s", tn_error());
        int twin[2] = {0, 0};
        ok(tn_value_and_grad_of(twice, NULL, TN_LIST(x), twin, 2, 1, &y, g) == TN_EVALUE,
           "an argument named twice: %s", tn_error());
    }
}

/* ---- a long chain; memory that runs out ---- */

static tn_array *chain(tn_list in, void *ud) {
    tn_array *y = in.v[0];
    for (int i = 0; i < *(int *)ud; i++) y = tn_add(tn_mul(y, tn_f32(0.5)), in.v[0]);
    return y;
}

static void test_chain(void) {
    int n = 500000;
    TN_SCOPE {
        tn_array *y, *g;
        tn_value_and_grad(chain, &n, TN_LIST(tn_scalar(1, TN_F64)), 1, &y, &g);
        ok(!tn_eval(TN_LIST(y, g)) && fabs(tn_item_f64(y) - 2) < 1e-9 &&
               fabs(tn_item_f64(g) - 2) < 1e-9,
           "a chain of a million ops");
    }
}

static tn_array *layers(tn_list in, void *ud) {
    tn_array *y[1];
    tn_array *h = tn_softmax(tn_matmul(in.v[0], in.v[1]), TN_AXES(-1));
    if (tn_checkpoint(twice, ud, TN_LIST(tn_fast_rms_norm(h, NULL, 1e-5)), 1, y)) return y[0];
    return tn_mean(tn_mul(y[0], tn_concatenate(TN_LIST(h), 0)), TN_ALL, false);
}

static int memory_run(int64_t n, bool *reached, bool *clean) {
    int status = 0;
    TN_SCOPE {
        tn_array *x = tn_ones(TN_SHAPE(3, 4), TN_F64), *w = tn_eye(4, 4, 0, TN_F64), *y, *g[2];
        int64_t asked = tni_alloc_count();
        tni_fail_alloc_at(n);
        tn_value_and_grad(layers, NULL, TN_LIST(x, w), 2, &y, g);
        *reached = n && tni_alloc_count() - asked >= n;
        tni_fail_alloc_at(0);
        status = tn_array_status(y);
        for (int k = 0; k < 2; k++) *clean = *clean && tn_array_status(g[k]) == status;
        if (!status) *clean = *clean && !tn_eval(TN_LIST(y, g[0], g[1]));
    }
    return status;
}

/* Rules of which nobody holds a result. */
static int memory_stairs(int64_t n, bool *reached, bool *clean) {
    int status = 0;
    TN_SCOPE {
        stairs_ud s = {2, false};
        tn_array *x = tn_scalar(2, TN_F64);
        int64_t asked = tni_alloc_count();
        tni_fail_alloc_at(n);
        tn_array *g = stairs_2(TN_LIST(x), &s);
        *reached = n && tni_alloc_count() - asked >= n;
        tni_fail_alloc_at(0);
        status = tn_array_status(g);
        if (!status) *clean = *clean && tn_item_f64(g) == 14;
    }
    return status;
}

static void test_memory(void) {
    memory_check(memory_run, 20);
    memory_check(memory_stairs, 20);
}

int main(void) {
    test_rows();
    test_nesting();
    test_results();
    test_custom();
    test_stairs();
    test_drawn(dropped, "a checkpoint that draws");
    test_drawn(dropped_within, "two checkpoints that draw");
    test_misuse();
    test_chain();
    test_memory();
    return tap_done();
}
