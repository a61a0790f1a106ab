/* Callbacks of transforms: functions under a rule for tangents, and every transform given functions
 * and rules that fail, that evaluate, that keep what they should not, that change shapes. */
#include "base/alloc.h"
#include "memory.h"
#include "tap.h"
#include "tenon/tenon.h"
#include "values.h"
#include <math.h>

static tn_array *total(tn_array *a) { return tn_sum(a, TN_ALL, false); }

/* ---- custom_jvp: x y and sin x, whose tangents are said to be 10 times as large ---- */

typedef struct rule_ud {
    int fault, calls;
    tn_array *kept;
} rule_ud;

static int pair(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)ud;
    out[0] = tn_mul(in.v[0], in.v[1]);
    if (n_out > 1) out[1] = tn_sin(in.v[0]);
    return 0;
}
static int pair_rule(tn_list in, tn_list out, tn_list tan, tn_array **out_tan, void *ud) {
    rule_ud *u = ud;
    u->calls++;
    if (in.n != 2 || tan.n != 2 || out.n != 2) return TN_EINTERNAL;
    tn_array *t = tn_mul(tan.v[0], tn_f32(10)), *s = tn_mul(tan.v[1], tn_f32(10));
    out_tan[0] = tn_add(tn_mul(t, in.v[1]), tn_mul(s, in.v[0]));
    out_tan[1] = tn_mul(t, tn_sqrt(tn_sub(tn_f32(1), tn_square(out.v[1])))); /* cos, up to pi / 2 */
    if (u->fault == 1) return TN_EFORMAT;
    if (u->fault == 2) out_tan[1] = tn_sum(out_tan[1], TN_ALL, true);
    if (u->fault == 3) out_tan[1] = NULL;
    if (u->fault == 4) return tn_eval(TN_LIST(out_tan[0]));
    if (u->fault == 5) out_tan[0] = tn_reshape(out_tan[0], TN_SHAPE(99));
    return 0;
}
static int ruled(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_custom_jvp(pair, pair_rule, ud, in, n_out, out);
}
static tn_array *ruled_loss(tn_list in, void *ud) {
    tn_array *y[2];
    if (ruled(in, y, 2, ud)) return y[0];
    return tn_add(total(tn_square(y[0])), total(y[1]));
}
static tn_array *ruled_slope(tn_list in, void *ud) { return total(tn_grad(ruled_loss, ud, in, 0)); }
static int ruled_grads(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *y;
    tn_value_and_grad(ruled_loss, ud, in, n_out, &y, out);
    return tn_array_status(y);
}

static void test_jvp(void) {
    rule_ud u = {0};
    TN_SCOPE {
        tn_array *x = quarters(4), *w = tn_add(quarters(4), tn_f32(2)), *y[2], *t[2], *g[2],
                 *nine[9], *ten = tn_f32(10);
        tn_list in = TN_LIST(x, w);
        ok(!ruled(in, y, 2, &u) && alike(y[0], tn_mul(x, w)) && alike(y[1], tn_sin(x)) && !u.calls,
           "values are the function's");
        int status = tn_jvp(ruled, &u, in, TN_LIST(w, x), 2, y, t);
        tn_array *squares = tn_add(tn_square(x), tn_square(w));
        ok(!status && u.calls == 1 && alike(t[0], tn_mul(squares, ten)) &&
               alike(t[1], tn_mul(tn_mul(w, tn_cos(x)), ten)),
           "tangents are the rule's");
        /* d/dx of (x w)^2 + sin x through the rule: 10 (2 x w^2 + cos x), by w 20 x^2 w */
        tn_array *by_x = tn_mul(tn_add(tn_mul(tn_mul(x, tn_square(w)), tn_f32(2)), tn_cos(x)), ten),
                 *by_w = tn_mul(tn_mul(tn_square(x), w), tn_f32(20));
        status = ruled_grads(in, g, 2, &u);
        ok(!status && alike(g[0], by_x) && alike(g[1], by_w),
           "gradients are the rule's, transposed");
        /* 10 (2 y w + sqrt(1 - z^2)) once more: y = x w and z = sin x, both by the rule */
        g[0] = tn_grad(ruled_slope, &u, in, 0);
        tn_array *want = tn_mul(tn_sub(tn_mul(tn_square(w), tn_f32(2)), tn_sin(x)), tn_f32(100));
        ok(alike(g[0], want), "gradient of the gradient");
        tn_compiled *c = tn_compile(ruled_grads, &u, 2, NULL);
        for (int run = 0; run < 2; run++)
            ok(!tn_compiled_call(c, in, g) && alike(g[0], by_x) && alike(g[1], by_w),
               "gradients, compiled");
        tn_compiled_free(c);
        tn_array *many = tn_stack(TN_LIST(x, w), 0), *m[2], *half = tn_slice_axis(w, 0, 0, 1);
        status =
            tn_vmap(ruled_grads, &u, TN_LIST(many, half), TN_AXES(0, TN_UNMAPPED), 2, TN_ALL, m);
        ok(!status, "gradients under vmap %s", status ? tn_error() : "");
        for (int b = 0; b < 2 && !status; b++) {
            tn_list one = TN_LIST(b ? w : x, half);
            ok(!ruled_grads(one, g, 2, &u) && alike(tn_take(m[0], tn_i32(b), 0), g[0]) &&
                   alike(tn_take(m[1], tn_i32(b), 0), g[1]),
               "as one after the other");
        }
        u.fault = 3;
        ok(!tn_jvp(ruled, &u, in, TN_LIST(w, x), 2, y, t) && alike(t[1], tn_zeros_like(x)) &&
               !ruled_grads(in, g, 2, &u) && alike(g[1], by_w),
           "a tangent left NULL is zero");
        static const struct {
            int status;
            const char *text;
        } faults[6] = {[1] = {TN_EFORMAT, "custom_jvp: the function returned"},
                       [2] = {TN_ESHAPE, "custom_jvp: the tangent of result 1 is [1] float64"},
                       [4] = {TN_ESTATE, "a value is not known inside"},
                       [5] = {TN_ESHAPE, "reshape"}};
        for (u.fault = 1; u.fault < 6; u.fault++) {
            if (!faults[u.fault].status) continue;
            status = tn_jvp(ruled, &u, in, TN_LIST(w, x), 2, y, t);
            ok(status == faults[u.fault].status && strstr(tn_error(), faults[u.fault].text) &&
                   tn_array_status(t[1]) == status,
               "forwards: %s", tn_error());
            status = ruled_grads(in, g, 2, &u);
            ok(status == faults[u.fault].status && strstr(tn_error(), faults[u.fault].text),
               "backwards: %s", tn_error());
        }
        u.fault = 0;
        ok(tn_custom_jvp(pair, NULL, &u, in, 2, y) == TN_EVALUE && strstr(tn_error(), "NULL"),
           "no rule: %s", tn_error());
        ok(tn_custom_jvp(pair, pair_rule, &u, in, 9, nine) == TN_EVALUE, "nine results: %s",
           tn_error());
    }
}

static int memory_run(int64_t n, bool *reached, bool *clean) {
    int status = 0;
    rule_ud u = {0};
    TN_SCOPE {
        tn_array *x = quarters(3), *w = quarters(3), *y[2], *t[2], *g[2];
        int64_t asked = tni_alloc_count();
        tni_fail_alloc_at(n);
        status = tn_jvp(ruled, &u, TN_LIST(x, w), TN_LIST(x, x), 2, y, t);
        if (!status)
            status = tn_vmap(ruled_grads, &u, TN_LIST(tn_stack(TN_LIST(x, w), 0), w),
                             TN_AXES(0, TN_UNMAPPED), 2, TN_ALL, g);
        *reached = n && tni_alloc_count() - asked >= n;
        tni_fail_alloc_at(0);
        if (!status) *clean = *clean && !tn_eval(TN_LIST(t[0], g[0], g[1]));
    }
    return status;
}

static void test_memory(void) { memory_check(memory_run, 100); }

/* ---- every transform, given a function that goes wrong ---- */

typedef enum fault {
    FINE,
    FAILS_MUTE,
    FAILS,
    POSITIVE,
    ERROR_ARRAY,
    NULL_RESULT,
    EVALUATES,       /* and hands on what that said */
    EVALUATES_LATER, /* tn_async_eval */
    READS,
    PEEKS, /* evaluates and goes on */
    FAULTS
} fault;

typedef struct fn_ud {
    fault f;
    int peeked;
} fn_ud;

static int wrong(tn_list in, tn_array **out, int n_out, void *ud) {
    fn_ud *u = ud;
    double v[8];
    (void)n_out;
    tn_array *y = out[0] = total(tn_square(in.v[0]));
    switch (u->f) {
    case FAILS_MUTE:
        return TN_EFORMAT;
    case FAILS:
        return tn_array_status(tn_reshape(in.v[0], TN_SHAPE(1000)));
    case POSITIVE:
        return 5;
    case ERROR_ARRAY:
        out[0] = tn_reshape(in.v[0], TN_SHAPE(1000));
        return 0;
    case NULL_RESULT:
        out[0] = NULL;
        return 0;
    case EVALUATES:
        return tn_eval(TN_LIST(y));
    case EVALUATES_LATER:
        return tn_async_eval(TN_LIST(y));
    case READS:
        return tn_read(y, TN_F64, v, sizeof v[0]);
    case PEEKS:
        u->peeked = tn_eval(TN_LIST(y));
        u->peeked += tn_data(y) ? 1 : 0;
        return 0;
    default:
        return 0;
    }
}

static const struct {
    int status;
    const char *text;
} outcomes[FAULTS] = {
    [FAILS_MUTE] = {TN_EFORMAT, "returned"},
    [FAILS] = {TN_ESHAPE, "cannot become [1000]"},
    [POSITIVE] = {TN_EVALUE, "the function returned 5"},
    [ERROR_ARRAY] = {TN_ESHAPE, "cannot become [1000]"},
    [NULL_RESULT] = {TN_EVALUE, "result 0 of the function is NULL"},
    [EVALUATES] = {TN_ESTATE, "a value is not known inside, return the array instead"},
    [EVALUATES_LATER] = {TN_ESTATE, "a value is not known inside"},
    [READS] = {TN_ESTATE, "a value is not known inside"},
};

/* Each gives the sum of squares of x in *y, whatever else it does. */
static int by_grad(fn_ud *u, tn_array *x, tn_array **y) {
    tn_array *g;
    return tn_value_and_grad_of(wrong, u, TN_LIST(x), NULL, 1, 1, y, &g);
}
static int by_vjp(fn_ud *u, tn_array *x, tn_array **y) {
    tn_array *g;
    return tn_vjp(wrong, u, TN_LIST(x), TN_LIST(tn_scalar(1, TN_F64)), y, &g);
}
static int by_jvp(fn_ud *u, tn_array *x, tn_array **y) {
    tn_array *t;
    return tn_jvp(wrong, u, TN_LIST(x), TN_LIST(x), 1, y, &t);
}
static int by_vmap(fn_ud *u, tn_array *x, tn_array **y) {
    int status = tn_vmap(wrong, u, TN_LIST(tn_stack(TN_LIST(x, x), 0)), TN_ALL, 1, TN_ALL, y);
    if (!status) *y = tn_take(*y, tn_i32(1), 0);
    return status;
}
static int by_compile(fn_ud *u, tn_array *x, tn_array **y) {
    tn_compiled *c = tn_compile(wrong, u, 1, NULL);
    int status = tn_compiled_call(c, TN_LIST(x), y);
    tn_compiled_free(c);
    return status;
}
static int by_export(fn_ud *u, tn_array *x, tn_array **y) {
    tn_exporter *e = tn_exporter_new(wrong, u, 1);
    int status = tn_exporter_add(e, TN_LIST(x));
    tn_exporter_free(e);
    *y = total(tn_square(x));
    return status;
}

/* Two deep. */
static int grad_in(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    return by_grad(ud, in.v[0], out);
}
static int checkpoint_in(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_checkpoint(wrong, ud, in, n_out, out);
}
static int vmap_in(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    return by_vmap(ud, in.v[0], out);
}
static int jvp_in(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    return by_jvp(ud, in.v[0], out);
}
static int by_compiled_grad(fn_ud *u, tn_array *x, tn_array **y) {
    tn_compiled *c = tn_compile(grad_in, u, 1, NULL);
    int status = tn_compiled_call(c, TN_LIST(x), y);
    tn_compiled_free(c);
    return status;
}
static int by_grad_of_checkpoint(fn_ud *u, tn_array *x, tn_array **y) {
    tn_array *g;
    return tn_value_and_grad_of(checkpoint_in, u, TN_LIST(x), NULL, 1, 1, y, &g);
}
static int by_grad_of_vmap(fn_ud *u, tn_array *x, tn_array **y) {
    tn_array *g;
    return tn_value_and_grad_of(vmap_in, u, TN_LIST(x), NULL, 1, 1, y, &g);
}
static int by_vjp_of_jvp(fn_ud *u, tn_array *x, tn_array **y) {
    tn_array *g;
    return tn_vjp(jvp_in, u, TN_LIST(x), TN_LIST(tn_scalar(1, TN_F64)), y, &g);
}

static const struct {
    const char *name;
    int (*run)(fn_ud *u, tn_array *x, tn_array **y);
} transforms[] = {
    {"grad", by_grad},
    {"vjp", by_vjp},
    {"jvp", by_jvp},
    {"vmap", by_vmap},
    {"compile", by_compile},
    {"export", by_export},
    {"compile of grad", by_compiled_grad},
    {"grad of checkpoint", by_grad_of_checkpoint},
    {"grad of vmap", by_grad_of_vmap},
    {"vjp of jvp", by_vjp_of_jvp},
};

static void test_functions(void) {
    for (size_t t = 0; t < sizeof transforms / sizeof *transforms; t++)
        for (fault f = FAILS_MUTE; f < FAULTS; f++)
            TN_SCOPE {
                fn_ud u = {f, 0};
                tn_array *x = quarters(5), *y = NULL;
                int status = transforms[t].run(&u, x, &y);
                if (f == PEEKS) {
                    ok(!status && u.peeked == TN_ESTATE && alike(y, total(tn_square(x))),
                       "%s: evaluation inside is refused, and does no harm", transforms[t].name);
                    continue;
                }
                ok(status == outcomes[f].status && strstr(tn_error(), outcomes[f].text), "%s: %s",
                   transforms[t].name, tn_error());
                u.f = FINE;
                ok(!transforms[t].run(&u, x, &y) && alike(y, total(tn_square(x))),
                   "%s: and then it works", transforms[t].name);
            }
}

/* ---- a rule that evaluates what its function kept ---- */

typedef struct kept_ud {
    tn_array *middle;
    int status;
} kept_ud;

static int keeps(tn_list in, tn_array **out, int n_out, void *ud) {
    kept_ud *u = ud;
    (void)n_out;
    out[0] = tn_sin(in.v[0]);
    return tn_assign(&u->middle, out[0]);
}
static int keeps_vjp(tn_list in, tn_list out, tn_list cot, tn_array **grads, void *ud) {
    kept_ud *u = ud;
    (void)out;
    u->status = tn_eval(TN_LIST(u->middle));
    grads[0] = tn_mul(cot.v[0], tn_cos(in.v[0]));
    return 0;
}
static int keeps_jvp(tn_list in, tn_list out, tn_list tan, tn_array **out_tan, void *ud) {
    return keeps_vjp(in, out, tan, out_tan, ud);
}
static int keeps_vmap(tn_list in, tn_ints axes, tn_array **out, int64_t *out_axes, void *ud) {
    kept_ud *u = ud;
    (void)axes, (void)out_axes;
    u->status = tn_eval(TN_LIST(u->middle));
    out[0] = tn_sin(in.v[0]);
    return 0;
}
static int with_vjp(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_custom_vjp(keeps, keeps_vjp, ud, in, n_out, out);
}
static int with_jvp(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_custom_jvp(keeps, keeps_jvp, ud, in, n_out, out);
}
static int with_vmap(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_custom_vmap(keeps, keeps_vmap, ud, in, n_out, out);
}

static void test_kept(void) {
    static const tn_fns fns[2] = {with_vjp, with_jvp};
    kept_ud u = {0};
    for (int k = 0; k < 2; k++)
        TN_SCOPE {
            tn_array *x = quarters(4), *y, *g;
            u.status = 0;
            int status = tn_vjp(fns[k], &u, TN_LIST(x), TN_LIST(x), &y, &g);
            ok(!status && u.status == TN_ESTATE && alike(g, tn_mul(x, tn_cos(x))),
               "backwards: what the function kept cannot be had in the rule");
            ok(!tn_eval(TN_LIST(u.middle)) && alike(u.middle, tn_sin(x)), "but afterwards");
            u.status = 0;
            status = tn_jvp(fns[k], &u, TN_LIST(x), TN_LIST(x), 1, &y, &g);
            ok(!status && u.status == TN_ESTATE && alike(g, tn_mul(x, tn_cos(x))), "forwards");
            ok(!tn_eval(TN_LIST(u.middle)) && alike(u.middle, tn_sin(x)), "and afterwards");
        }
    TN_SCOPE {
        tn_array *x = quarters(4), *y;
        int status = tn_vmap(with_vmap, &u, TN_LIST(x), TN_ALL, 1, TN_ALL, &y);
        ok(!status && u.status == TN_ESTATE && alike(y, tn_sin(x)), "vmap");
        ok(tn_eval(TN_LIST(u.middle)) == TN_ESTATE &&
               strstr(tn_error(), "after the function had returned"),
           "one of many is no value afterwards: %s", tn_error());
    }
    tn_drop(u.middle);
}

/* ---- shapes that change ---- */

static int grows(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = ++*(int *)ud > 1 ? tn_concatenate(TN_LIST(in.v[0], in.v[0]), 0) : tn_neg(in.v[0]);
    return 0;
}
static int grows_checkpointed(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_checkpoint(grows, ud, in, n_out, out);
}
static int appends(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array **log = ud;
    (void)n_out;
    out[0] = total(*log);
    return tn_assign(log, tn_concatenate(TN_LIST(*log, in.v[0]), 0));
}
static int retypes(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array **log = ud;
    (void)n_out;
    out[0] = tn_mul(in.v[0], total(*log));
    return tn_assign(log, tn_astype(tn_greater(*log, tn_f32(1)), TN_I32));
}

static void test_shapes(void) {
    int runs = 0;
    tn_array *log = NULL, *y, *g;
    TN_SCOPE {
        tn_array *x = quarters(3);
        int status = tn_vjp(grows_checkpointed, &runs, TN_LIST(x), TN_LIST(x), &y, &g);
        ok(status == TN_ESHAPE && runs == 2 &&
               strstr(tn_error(),
                      "checkpoint: result 0 was [3] float64 and is [6] float64 when run again"),
           "another shape when run again: %s", tn_error());
        (void)!tn_assign(&log, quarters(1));
        tn_array **const slots[] = {&log};
        tn_compiled *c = tn_compile(appends, &log, 1, TN_OPT(tn_compile_opt, .state = {slots, 1}));
        double want = 0.25;
        for (int i = 0; i < 3; i++) {
            status = tn_compiled_call(c, TN_LIST(x), &y);
            ok(!status && tn_size(log) == 4 + 3 * i && fabs(tn_item_f64(y) - want) < 1e-12,
               "state that grows, call %d", i);
            want += 1.5;
        }
        is_i64(tn_compiled_stats(c).misses, 3, "a plan for each shape");
        tn_compiled_free(c);
        c = tn_compile(retypes, &log, 1, TN_OPT(tn_compile_opt, .state = {slots, 1}));
        for (int i = 0; i < 3; i++) {
            tn_array *before = tn_astype(log, TN_F64);
            status = tn_eval(TN_LIST(before));
            if (!status) status = tn_compiled_call(c, TN_LIST(x), &y);
            ok(!status && tn_dtype_of(log) == TN_I32 && alike(y, tn_mul(x, total(before))),
               "state of another dtype, call %d", i);
        }
        tn_compiled_free(c);
    }
    tn_drop(log);
}

int main(void) {
    test_jvp();
    test_memory();
    test_functions();
    test_kept();
    test_shapes();
    return tap_done();
}
