/* Exported functions: imported = plain for every primitive, derivatives too; files that are cut,
 * changed or made up are refused with a sentence; the same function gives the same bytes; nothing
 * is lost when something fails. */
#include "cases.h"
#include "every.h"
#include "exported.h"
#include "tenon/ext.h"
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* fn, written and read again, gives what it gives for these and for other arguments. */
static void check(const char *name, tn_fns fn, void *ud, tn_list in, tn_list more, int n_out) {
    tn_array *want[8], *got[8];
    bool equal = true;
    tn_imported *f = NULL;
    int status = 0;
    TN_SCOPE {
        status = tn_export(path, fn, ud, in, n_out);
        if (!status) status = tn_export(other, fn, ud, in, n_out);
        f = status ? NULL : tn_import(path);
        if (!status && !f) status = 1;
        for (int run = 0; run < 2 && !status; run++) {
            tn_list x = run ? more : in;
            tn_random_seed(9);
            status = fn(x, want, n_out, ud);
            uint64_t state = tn_random_state();
            tn_random_seed(9);
            if (!status) status = tn_imported_call(x, got, n_out, f);
            equal = equal && tn_random_state() == state;
            if (!status) status = tn_graph_check((tn_list){got, n_out});
            for (int k = 0; k < n_out && !status; k++) equal = equal && same(want[k], got[k]);
        }
        tn_imported_free(f);
    }
    ok(!status && equal && same_files(path, other), "%s%s%s", name, status ? ": " : "",
       status ? tn_error() : "");
}

/* ---- every primitive ---- */

static void visit(const every_case *c) {
    TN_SCOPE {
        tn_array *in[EVERY_IN], *more[EVERY_IN];
        every_inputs(c, in, 0);
        every_inputs(c, more, 5);
        check(c->name, c->fn, (void *)(uintptr_t)c, (tn_list){in, c->n_in},
              (tn_list){more, c->n_in}, c->n_out);
    }
}

/* The other way round: the gradient of what was imported. */
static int loss_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = case_loss(in, ud);
    return 0;
}

static int imported_jvp(tn_list in, tn_array **out, int n_out, void *f) {
    (void)n_out;
    return tn_jvp(tn_imported_call, f, in, TN_LIST(tn_ones_like(in.v[0])), 1, &out[0], &out[1]);
}

static void check_derivatives(int k, tn_array *x) {
    tn_array *want[2], *got[2];
    int status = tn_export(path, loss_fns, &k, TN_LIST(x), 1);
    tn_imported *f = status ? NULL : tn_import(path);
    if (!f) status = 1;
    if (!status) status = case_grad(TN_LIST(x), want, 2, &k);
    if (!status) status = imported_grad(TN_LIST(x), got, 2, f);
    ok(!status && same(want[0], got[0]) && same(want[1], got[1]), "gradient of imported %s%s%s",
       case_name(k), status ? ": " : "", status ? tn_error() : "");
    if (!status)
        status = tn_jvp(loss_fns, &k, TN_LIST(x), TN_LIST(tn_ones_like(x)), 1, want, want + 1);
    int plain = status;
    status = imported_jvp(TN_LIST(x), got, 2, f);
    ok(status == plain && (status || (same(want[0], got[0]) && same(want[1], got[1]))),
       "forward derivative of imported %s", case_name(k));
    tn_array *both = tn_stack(TN_LIST(x, tn_mul(x, tn_f32(-0.7))), 0);
    status = tn_vmap(loss_fns, &k, TN_LIST(both), TN_AXES(0), 1, TN_ALL, want);
    if (!status) status = tn_vmap(tn_imported_call, f, TN_LIST(both), TN_AXES(0), 1, TN_ALL, got);
    ok(!status && same(want[0], got[0]), "vmap of imported %s%s%s", case_name(k),
       status ? ": " : "", status ? tn_error() : "");
    tn_compiled *c = tn_compile(imported_grad, f, 2, NULL);
    status = case_grad(TN_LIST(x), want, 2, &k);
    if (!status) status = tn_compiled_call(c, TN_LIST(x), got);
    ok(!status && same(want[0], got[0]) && same(want[1], got[1]), "and compiled%s%s",
       status ? ": " : "", status ? tn_error() : "");
    tn_compiled_free(c);
    tn_imported_free(f);
}

static void test_every(void) {
    every(visit);
    for (int k = 0; k < CASE_COUNT; k++)
        TN_SCOPE {
            tn_array *x = case_input(), *y = tn_mul(x, tn_f32(-0.7));
            check(case_name(k), case_fns, &k, TN_LIST(x), TN_LIST(y), 1);
            check("its gradient", case_grad, &k, TN_LIST(x), TN_LIST(y), 2);
            check_derivatives(k, x);
        }
}

/* ---- what a file holds ---- */

typedef struct net {
    tn_array *w, *b;
    int calls;
} net;

static int net_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    net *m = ud;
    m->calls++;
    tn_array *h = tn_tanh(tn_add(tn_matmul(in.v[0], m->w), m->b));
    out[0] = tn_mul(h, tn_f32(0.5));
    if (n_out > 1) out[1] = in.v[0];
    if (n_out > 2) out[2] = tn_f32(7);
    if (n_out > 3) out[3] = tn_zeros(TN_SHAPE(300, 300), TN_F32);
    return 0;
}

static void net_init(net *m) {
    m->w = tn_keep(tn_random_normal(TN_SHAPE(4, 64), TN_F32, tn_random_key(3)));
    m->b = tn_keep(tn_random_normal(TN_SHAPE(64), TN_F32, tn_random_key(4)));
    m->calls = 0;
}
static void net_free(net *m) { tn_drop(m->w), tn_drop(m->b); }

static tn_array *rows_of(int64_t n) {
    return tn_random_normal(TN_SHAPE(n, 4), TN_F32, tn_random_key((uint64_t)n));
}

static void test_signatures(void) {
    net m;
    tn_array *y[4], *want[4];
    net_init(&m);
    TN_SCOPE {
        tn_exporter *e = tn_exporter_new(net_fns, &m, 4);
        int status = tn_exporter_add(e, TN_LIST(rows_of(2)));
        if (!status) status = tn_exporter_add(e, TN_LIST(rows_of(5)));
        is_i64(status, 0, "two signatures");
        is_i64(tn_exporter_add(e, TN_LIST(rows_of(5))), TN_EVALUE, "not twice the same");
        ok(says("(float32[5,4])", "already"), "says so");
        is_i64(tn_exporter_save(e, path, "text \xc3\xa9"), 0, "is saved");
        tn_exporter_free(e);
        int calls = m.calls;
        tn_imported *f = tn_import(path);
        net_fns(TN_LIST(rows_of(5)), want, 4, &m);
        is_i64(f ? tn_imported_call(TN_LIST(rows_of(5)), y, 4, f) : 1, 0, "is called");
        for (int k = 0; k < 4; k++) ok(same(want[k], y[k]), "result %d", k);
        is_i64(m.calls, calls + 1, "without the source");
        is_i64(tn_imported_call(TN_LIST(rows_of(2)), y, 4, f), 0, "for the other signature");
        is_i64(tn_imported_traces(f), 2, "signatures are counted");
        is_i64(tn_imported_results(f), 4, "results are counted");
        is_i64(tn_imported_arguments(f, 1), 1, "arguments are counted");
        is_i64(tn_imported_arguments(f, 2), 0, "none of no trace");
        tn_dtype d = TN_BOOL;
        tn_ints shape = tn_imported_argument(f, 1, 0, &d);
        ok(shape.n == 2 && shape.v[0] == 5 && shape.v[1] == 4 && d == TN_F32, "and described");
        shape = tn_imported_argument(f, 1, 1, &d);
        ok(!shape.n && d == TN_F32, "no argument, no description");
        is_str(tn_imported_text(f), "text \xc3\xa9", "the text is kept");
        is_i64(tn_imported_call(TN_LIST(rows_of(3)), y, 4, f), TN_ESHAPE, "another shape");
        ok(says("no trace takes (float32[3,4])", "2, the first takes (float32[2,4])"), "says so");
        ok(tn_array_status(y[0]) == TN_ESHAPE, "results are error arrays");
        is_i64(tn_imported_call(TN_LIST(rows_of(2)), y, 3, f), TN_EVALUE, "another count");
        is_i64(tn_imported_call(TN_LIST(tn_ones(TN_SHAPE(2, 4), TN_F16)), y, 4, f), TN_ESHAPE,
               "another dtype");
        is_i64(tn_imported_call(TN_LIST(), y, 4, f), TN_ESHAPE, "no arguments");
        is_i64(tn_imported_call(TN_LIST(NULL), y, 4, f), TN_EVALUE, "a NULL argument");
        tn_imported_free(f);
    }
    net_free(&m);
}

/* Constants are stored once, what makes zeros takes no room, lazy ones are evaluated. */
static int sharing(tn_list in, tn_array **out, int n_out, void *ud) {
    net *m = ud;
    (void)n_out;
    tn_array *twice = tn_concatenate(TN_LIST(m->w, m->w), 0);
    out[0] = tn_add(tn_matmul(in.v[0], m->w), tn_sum(tn_mul(m->w, tn_f32(2)), TN_ALL, false));
    out[1] = tn_add(tn_mul(in.v[0], tn_f32(2)), tn_zeros(TN_SHAPE(512, 1, 4), TN_F32));
    tn_array *part = tn_slice_axis(tn_reshape(m->b, TN_SHAPE(4, 4)), 1, 0, 1);
    out[0] = tn_add(out[0], tn_transpose(part, TN_AXES(1, 0)));
    out[2] = tn_add(tn_slice_axis(twice, 0, 0, 1), tn_slice_axis(in.v[0], 0, 0, 1));
    return 0;
}

static void test_constants(void) {
    net m;
    struct stat st = {0};
    TN_SCOPE {
        m.w = tn_keep(tn_reshape(tn_arange(0, 16, 1, TN_F32), TN_SHAPE(4, 4)));
        m.b = tn_keep(tn_exp(tn_arange(0, 16, 1, TN_F32)));
        check("shared constants", sharing, &m, TN_LIST(rows_of(2)), TN_LIST(tn_neg(rows_of(2))), 3);
        stat(path, &st);
        ok(st.st_size < 2500, "constants are stored once, zeros not at all: %d bytes",
           (int)st.st_size);
        ok(tni_state_of(m.w) == TNI_READY, "a lazy constant of the caller is evaluated");
        net_free(&m);
    }
}

static int imported_again(tn_list in, tn_array **out, int n_out, void *f) {
    int status = tn_imported_call(in, out, 1, f);
    for (int k = 1; k < n_out; k++) out[k] = tn_exp(out[0]);
    return status;
}

/* An imported function lives on in graphs that it built, and is exported like any. */
static void test_lifetime(void) {
    net m;
    net_init(&m);
    TN_SCOPE {
        tn_array *x = rows_of(2), *want, *y = NULL;
        net_fns(TN_LIST(x), &want, 1, &m);
        int status = tn_export(path, net_fns, &m, TN_LIST(x), 1);
        tn_imported *f = status ? NULL : tn_import(path);
        ok(f && !tn_export(other, imported_again, f, TN_LIST(x), 1), "an imported one is exported");
        ok(same_files(path, other), "to the same bytes");
        status = tn_imported_call(TN_LIST(x), &y, 1, f);
        tn_imported_free(f);
        unlink(path);
        ok(!status && same(want, y), "what it built outlives it and its file");
        f = tn_import(other);
        ok(!tn_export(other, imported_again, f, TN_LIST(x), 2),
           "a file is replaced while it is read");
        status = f ? tn_imported_call(TN_LIST(x), &y, 1, f) : 1;
        ok(!status && same(want, y), "and read on");
        tn_imported_free(f);
    }
    net_free(&m);
}

/* ---- random numbers, rules of callers ---- */

static int dropout(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)ud, (void)n_out;
    tn_array *a = tn_random_uniform(NULL, NULL, tn_shape(in.v[0]), TN_F32, NULL);
    tn_array *b = tn_random_normal(tn_shape(in.v[0]), TN_F32, NULL);
    out[0] = tn_where(tn_greater(a, tn_f32(0.5)), in.v[0], b);
    return 0;
}

static int twice_compiled(tn_list in, tn_array **out, int n_out, void *f) {
    int status = tn_imported_call(in, out, 1, f);
    return status ? status : tn_imported_call(in, out + 1, n_out - 1, f);
}

static void test_random(void) {
    TN_SCOPE {
        tn_array *x = rows_of(3), *want[2], *got[2];
        check("draws from the thread's sequence", dropout, NULL, TN_LIST(x), TN_LIST(tn_neg(x)), 1);
        tn_imported *f = tn_import(path);
        tn_compiled *c = tn_compile(twice_compiled, f, 2, NULL);
        for (int run = 0; run < 2; run++) {
            tn_random_seed(21);
            dropout(TN_LIST(x), want, 1, NULL), dropout(TN_LIST(x), want + 1, 1, NULL);
            uint64_t state = tn_random_state();
            tn_random_seed(21);
            int status = tn_compiled_call(c, TN_LIST(x), got);
            ok(!status && same(want[0], got[0]) && same(want[1], got[1]), "compiled, run %d", run);
            ok(tn_random_state() == state, "the sequence goes on as without");
        }
        tn_compiled_free(c);
        tn_imported_free(f);
    }
}

static int rule(tn_list in, tn_list out, tn_list cot, tn_array **grads, void *ud) {
    (void)out, (void)ud, (void)in;
    grads[0] = cot.v[0];
    return 0;
}
static int square(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)ud, (void)n_out;
    out[0] = tn_sum(tn_mul(in.v[0], in.v[0]), TN_ALL, false);
    return 0;
}
static int with_rule(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_custom_vjp(square, rule, ud, in, n_out, out);
}
static int with_checkpoint(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_checkpoint(square, ud, in, n_out, out);
}
static int checkpoint_drops(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_checkpoint(dropout, ud, in, n_out, out);
}
static int checkpoint_draws(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    tn_array *one = tn_ones_like(in.v[0]);
    return tn_vjp(checkpoint_drops, ud, in, TN_LIST(one), out, out + 1);
}
static int jvp_rule(tn_list in, tn_list out, tn_list tan, tn_array **out_tan, void *ud) {
    (void)in, (void)out, (void)ud;
    out_tan[0] = tn_sum(tan.v[0], TN_ALL, false);
    return 0;
}
static int with_jvp(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_custom_jvp(square, jvp_rule, ud, in, n_out, out);
}
static int vmap_rule(tn_list in, tn_ints axes, tn_array **out, int64_t *out_axes, void *ud) {
    (void)in, (void)axes, (void)out, (void)out_axes, (void)ud;
    return TN_ECANCELLED;
}
static int with_vmap(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_custom_vmap(square, vmap_rule, ud, in, n_out, out);
}
static int checkpoint_grad(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    return tn_value_and_grad_of(with_checkpoint, ud, in, NULL, 1, 1, out, out + 1);
}

static void test_rules(void) {
    TN_SCOPE {
        tn_array *x = rows_of(3), *y[2], *z[2];
        check("custom_vjp", with_rule, NULL, TN_LIST(x), TN_LIST(tn_neg(x)), 1);
        tn_imported *f = tn_import(path);
        is_i64(imported_grad(TN_LIST(x), y, 2, f), TN_EVALUE, "has no derivative any more");
        ok(says("custom_vjp", "lost the rule"), "says why");
        is_i64(tn_vmap(imported_grad, f, TN_LIST(tn_stack(TN_LIST(x, x), 0)), TN_AXES(0), 2, TN_ALL,
                       y),
               TN_EVALUE, "under vmap neither");
        is_i64(imported_jvp(TN_LIST(x), y, 2, f), TN_EVALUE, "forwards neither");
        tn_imported_free(f);
        check("checkpoint", with_checkpoint, NULL, TN_LIST(x), TN_LIST(tn_neg(x)), 1);
        f = tn_import(path);
        int status = imported_grad(TN_LIST(x), y, 2, f);
        if (!status) status = checkpoint_grad(TN_LIST(x), z, 2, NULL);
        ok(!status && same(y[1], z[1]), "its gradient");
        tn_imported_free(f);
        check("a checkpoint that draws", checkpoint_draws, NULL, TN_LIST(x), TN_LIST(tn_neg(x)), 2);
        check("custom_jvp", with_jvp, NULL, TN_LIST(x), TN_LIST(tn_neg(x)), 1);
        check("custom_vmap", with_vmap, NULL, TN_LIST(x), TN_LIST(tn_neg(x)), 1);
        f = tn_import(path);
        status = tn_vmap(tn_imported_call, f, TN_LIST(tn_stack(TN_LIST(x, x), 0)), TN_AXES(0), 1,
                         TN_ALL, y);
        ok(!status && same(tn_sum(tn_square(x), TN_ALL, false), tn_take(y[0], tn_i32(1), 0)),
           "is mapped like what it is made of");
        tn_imported_free(f);
        check("gradient of a checkpoint", checkpoint_grad, NULL, TN_LIST(x), TN_LIST(tn_neg(x)), 2);
    }
}

/* ---- primitives of callers ---- */

static int twice_infer(const tn_spec *in, int n_in, const void *params, tn_spec *out, int n_out,
                       void *ud) {
    (void)params, (void)ud, (void)n_in;
    for (int k = 0; k < n_out; k++) out[k] = in[0];
    return 0;
}
static int twice_lower(tn_list in, const void *params, tn_array **out, int n_out, void *ud) {
    (void)params, (void)n_out;
    out[0] = tn_add(in.v[0], in.v[1]); /* both may be the same */
    out[1] = tn_matmul(tn_tanh(out[0]), *(tn_array **)ud);
    return 0;
}
static int twice_kernel(const tn_operand *in, int n_in, const tn_operand *out, int n_out,
                        const void *params, void *ud) {
    (void)in, (void)n_in, (void)out, (void)n_out, (void)params, (void)ud;
    return tn_fail(TN_EDEVICE, "the kernel was called");
}
static int calls_twice(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *y[2];
    int status = tn_prim_call(ud, NULL, TN_LIST(in.v[0], tn_exp(in.v[0])), y, 2);
    if (!status) status = tn_prim_call(ud, NULL, TN_LIST(y[1], y[1]), out, n_out);
    return status;
}

static void test_prims(void) {
    bool distinct = true;
    for (int i = 0; i < TNI_OP_COUNT; i++)
        for (int k = 0; k < i && tni_prims[i].name; k++)
            if (tni_prims[k].name && !strcmp(tni_prims[i].name, tni_prims[k].name)) {
                distinct = false;
                diag("two operations are called %s", tni_prims[i].name);
            }
    ok(distinct, "operations have names of their own");
    TN_SCOPE {
        tn_array *w = tn_random_normal(TN_SHAPE(4, 4), TN_F32, NULL), *x = rows_of(4);
        tn_prim_desc d = {.size = sizeof d,
                          .name = "twice",
                          .n_out = 2,
                          .ud = &w,
                          .infer = twice_infer,
                          .lower = twice_lower};
        tn_prim *p = tn_prim_new(&d);
        check("a primitive with a lowering", calls_twice, p, TN_LIST(x), TN_LIST(tn_neg(x)), 2);
        tn_prim_free(p);
        d.lower = NULL, d.kernel = twice_kernel;
        p = tn_prim_new(&d);
        is_i64(tn_export(path, calls_twice, p, TN_LIST(x), 2), TN_EVALUE, "one without");
        ok(says("export: twice", "no lowering"), "says so");
        tn_prim_free(p);
    }
}

/* ---- misuse ---- */

static int fails(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = in.v[0];
    if (*(int *)ud == 1) return TN_ECANCELLED;
    if (*(int *)ud == 2) out[0] = tn_matmul(in.v[0], in.v[0]);
    if (*(int *)ud == 3) out[0] = tn_item_f32(tn_sum(in.v[0], TN_ALL, false)) > 0 ? in.v[0] : NULL;
    if (*(int *)ud == 4) out[0] = NULL;
    return 0;
}

static void test_misuse(void) {
    TN_SCOPE {
        tn_list in = TN_LIST(rows_of(3));
        const int want[] = {0, TN_ECANCELLED, TN_ESHAPE, TN_EVALUE, TN_EVALUE};
        for (int k = 1; k < 5; k++) {
            unlink(path);
            is_i64(tn_export(path, fails, &k, in, 1), want[k], "a function that fails, %d", k);
            ok(*tn_error() && access(path, F_OK), "leaves no file: %s", tn_error());
        }
        is_i64(tn_export(path, NULL, NULL, in, 1), TN_EVALUE, "no function");
        is_i64(tn_export(path, square, NULL, in, -1), TN_EVALUE, "a negative count");
        is_i64(tn_export(NULL, square, NULL, in, 1), TN_EVALUE, "no path");
        is_i64(tn_export("/nowhere/f", square, NULL, in, 1), TN_EFILE, "no such folder");
        is_i64(tn_export(path, square, NULL, TN_LIST(NULL), 1), TN_EVALUE, "a NULL argument");
        tn_exporter *e = tn_exporter_new(square, NULL, 1);
        is_i64(tn_exporter_save(e, path, NULL), TN_EVALUE, "nothing traced");
        is_i64(tn_exporter_add(e, in), 0, "something");
        is_i64(tn_exporter_save(e, path, "\xff"), TN_EVALUE, "a text that is not UTF-8");
        is_i64(tn_exporter_save(e, path, ""), 0, "an empty text");
        tn_exporter_free(e);
        tn_exporter_free(NULL);
        is_i64(tn_exporter_add(NULL, in), TN_EVALUE, "no exporter");
        ok(!tn_import(NULL) && says("import", "NULL"), "no path");
        ok(!tn_import("/nowhere/f") && says("/nowhere/f", "No such file"), "no file");
        ok(!tn_import(dir) && *tn_error(), "a folder: %s", tn_error());
        tn_array *y;
        is_i64(tn_imported_call(in, &y, 1, NULL), TN_EVALUE, "no imported function");
        tn_imported_free(NULL);
        is_i64(tn_imported_traces(NULL) + tn_imported_results(NULL), 0, "nothing of nothing");
        is_str(tn_imported_text(NULL), "", "no text of nothing");
    }
}

/* ---- damage ---- */

static void test_damage(void) {
    net m;
    size_t n = 0;
    int taken = 0, silent = 0, cut = 0, mended;
    net_init(&m);
    TN_SCOPE {
        ok(!tn_export(path, net_fns, &m, TN_LIST(rows_of(2)), 2), "a small file");
    }
    net_free(&m);
    char *bytes = contents(path, &n);
    for (size_t i = 0; i < n; i++)
        for (int flip = 1; flip < 256; flip *= i < 200 ? 2 : 16) {
            bytes[i] ^= (char)flip;
            int r = try_bytes(bytes, n);
            taken += r > 0, silent += r < 0;
            bytes[i] ^= (char)flip;
        }
    ok(!taken && !silent, "a changed byte is refused: %d taken, %d without a sentence", taken,
       silent);
    for (size_t i = 0; i < n; i++) cut += try_bytes(bytes, i) != 0;
    is_i64(cut, 0, "a shorter file is refused");
    char *longer = tni_calloc(n + 64, 1);
    memcpy(longer, bytes, n);
    is_i64(try_bytes(longer, n + 64), 0, "a longer one too");
    mended = try_mended(bytes, n, &silent);
    ok(!silent && mended > 1000, "with the right checksums %d are refused, others run", mended);
    memcpy(longer, bytes, n);
    longer[8] = 2;
    ok(!try_bytes(longer, n) && says("version 2.0", "up to 1.0"), "a later version");
    ok(!try_bytes("hello\n", 6) && says("not an exported function", path), "another file");
    ok(try_bytes(bytes, n) == 1, "and the file itself is good");
    tni_free(longer), tni_free(bytes);
}

/* A file of one trace, written field by field. */
typedef struct maker {
    tni_str s;
} maker;

static void put(maker *m, int bytes, uint64_t v) {
    (void)!tni_str_append(&m->s, (char *)&v, (size_t)bytes);
}
static void put_spec(maker *m, int dtype, int n, int64_t a, int64_t b) {
    put(m, 1, (uint64_t)dtype), put(m, 1, (uint64_t)n), put(m, 1, 0);
    if (n > 0) put(m, 8, (uint64_t)a);
    if (n > 1) put(m, 8, (uint64_t)b);
}

/* exp of float32[2,3]; each case has one thing wrong. */
typedef struct wrong_file {
    const char *what, *says;
    uint64_t prims, constants, results, traces, in, nodes, operands, operand, outs, result, last;
    const char *name;
    int dtype;
    uint64_t random;
} wrong_file;

static int make(const wrong_file *w) {
    maker m = {0};
    for (int i = 0; i < EX_START; i++) put(&m, 1, 0);
    put(&m, 4, w->prims), put(&m, 1, strlen(w->name));
    (void)!tni_str_puts(&m.s, w->name);
    put(&m, 2, 0), put(&m, 4, w->constants), put(&m, 4, 0);
    put(&m, 4, w->results), put(&m, 4, w->traces), put(&m, 1, w->random), put(&m, 4, w->in);
    put_spec(&m, TN_F32, 2, 2, 3);
    put(&m, 4, w->nodes), put(&m, 2, 0), put(&m, 2, 0), put(&m, 4, w->operands);
    put(&m, 4, w->operand), put(&m, 1, w->outs);
    put_spec(&m, w->dtype, 2, 2, (int64_t)w->last);
    put(&m, 4, w->result);
    while (m.s.n % EX_ALIGN) put(&m, 1, 0);
    memcpy(m.s.v, EX_MAGIC, 8);
    m.s.v[8] = 1;
    memcpy(m.s.v + 16, &(uint64_t){m.s.n - EX_START}, 8);
    mend(m.s.v, m.s.n);
    int r = try_bytes(m.s.v, m.s.n);
    tni_str_free(&m.s);
    return r;
}

static void test_wrong(void) {
    static const wrong_file good = {"", "", 1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 3, "exp", TN_F32, 0};
#define W(text, expect, ...)                                                                       \
    {                                                                                              \
        wrong_file w = good;                                                                       \
        w.what = text, w.says = expect;                                                            \
        __VA_ARGS__;                                                                               \
        ok(!make(&w) && says(w.says, path), "%s", w.what);                                         \
    }
    is_i64(make(&good), 1, "a made-up file is read and run");
    W("an operation of tomorrow", "exp_of_tomorrow", w.name = "exp_of_tomorrow")
    W("an operation with other parameters", "transpose", w.name = "transpose")
    W("an operation named by control characters", "without a name", w.name = "\033[1m")
    W("four billion operations", "4294967295 operations", w.prims = UINT32_MAX)
    W("no operations", "do not fit", w.prims = 0)
    W("four billion constants", "constants do not fit", w.constants = UINT32_MAX)
    W("four billion results", "results do not fit", w.results = UINT32_MAX)
    W("more results than there are", "results do not fit", w.results = 40)
    W("no traces", "no traces", w.traces = 0)
    W("more traces than there are", "", w.traces = 2)
    W("an unknown kind of trace", "kind of trace, 4", w.random = 4)
    W("an open trace without sizes", "no argument", w.random = 2)
    W("a random trace without a key", "", w.random = 1)
    W("no arguments", "", w.in = 0)
    W("four billion arguments", "arguments do not fit", w.in = UINT32_MAX)
    W("four billion nodes", "nodes do not fit", w.nodes = UINT32_MAX)
    W("four billion operands", "operands do not fit", w.operands = UINT32_MAX)
    W("an operand that comes later", "value 1 of 1", w.operand = 1)
    W("a constant that is not there", "constant 0 of 0", w.operand = EX_CONSTANT)
    W("no outputs", "0 outputs of exp", w.outs = 0)
    W("too many outputs", "9 outputs of exp", w.outs = 9)
    W("another output than its rule's", "output 0 of exp", w.last = 4)
    W("an output that cannot be held", "cannot be held", w.last = INT64_MAX)
    W("a negative size", "cannot be held", w.last = (uint64_t)-3)
    W("another dtype than its rule's", "output 0 of exp", w.dtype = TN_F16)
    W("a dtype of tomorrow", "dtype 99", w.dtype = 99)
    W("a result that is not there", "value 2 of 2", w.result = 2)
#undef W
}

/* ---- when something fails ---- */

static int round_trip(net *m, tn_array *x, tn_array **y) {
    int status = tn_export(path, net_fns, m, TN_LIST(x), 2);
    if (status) return status;
    tn_imported *f = tn_import(path);
    if (!f) return tni_error_code();
    status = tn_imported_call(TN_LIST(x), y, 2, f);
    if (!status) status = tn_eval(TN_LIST(y[0], y[1]));
    tn_imported_free(f);
    return status;
}

static void test_memory(void) {
    net m;
    tn_array *y[2];
    net_init(&m);
    TN_SCOPE {
        tn_array *x = rows_of(2), *want[2];
        net_fns(TN_LIST(x), want, 2, &m);
        ok(!round_trip(&m, x, y) && same(want[0], y[0]), "with memory");
        int n = 1, wrong = 0, status = TN_EMEMORY;
        for (; status && n < 2000; n++) {
            int64_t live = tni_alloc_live();
            TN_SCOPE {
                tni_fail_alloc_at(n);
                status = round_trip(&m, x, y);
                tni_fail_alloc_at(0);
                if (status && (status != TN_EMEMORY || !*tn_error())) {
                    wrong++;
                    diag("allocation %d: %d %s", n, status, tn_error());
                }
                if (!status) wrong += !same(want[0], y[0]);
            }
            if (tni_alloc_live() != live) {
                wrong++;
                diag("allocation %d: %d blocks left", n, (int)(tni_alloc_live() - live));
            }
        }
        ok(!status && !wrong && n > 60, "%d allocations fail, one after the other", n);
    }
    net_free(&m);
}

/* What the exporter has traced survives a failed addition. */
static void test_memory_of_exporter(void) {
    net m;
    net_init(&m);
    TN_SCOPE {
        tn_array *a = rows_of(2), *b = rows_of(3);
        int wrong = 0, n = 1, status = TN_EMEMORY;
        tn_exporter *e = tn_exporter_new(net_fns, &m, 4);
        ok(!tn_exporter_add(e, TN_LIST(a)) && !tn_exporter_add(e, TN_LIST(b)) &&
               !tn_exporter_save(e, other, NULL),
           "two at once");
        tn_exporter_free(e);
        for (; status && n < 2000; n++) {
            e = tn_exporter_new(net_fns, &m, 4);
            int first = tn_exporter_add(e, TN_LIST(a));
            tni_fail_alloc_at(n);
            status = tn_exporter_add(e, TN_LIST(b));
            tni_fail_alloc_at(0);
            int again = status ? tn_exporter_add(e, TN_LIST(b)) : 0;
            if (first || again || tn_exporter_save(e, path, NULL) || !same_files(path, other))
                wrong++;
            tn_exporter_free(e);
        }
        ok(!status && !wrong && n > 20, "%d additions fail and are done again", n);
    }
    net_free(&m);
}

static void test_full_disk(void) {
    net m;
    struct rlimit was;
    net_init(&m);
    TN_SCOPE {
        tn_array *x = rows_of(2), *y[2];
        ok(!tn_export(path, net_fns, &m, TN_LIST(x), 2), "a file is there");
        ok(!tn_export(other, net_fns, &m, TN_LIST(x), 2), "and another like it");
        getrlimit(RLIMIT_FSIZE, &was);
        struct rlimit now = {1000, was.rlim_max};
        void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &now);
        int status = tn_export(path, net_fns, &m, TN_LIST(rows_of(5)), 2);
        setrlimit(RLIMIT_FSIZE, &was);
        signal(SIGXFSZ, handler);
        ok(status == TN_EFILE && says("cannot write", dir), "no room for a new one");
        ok(same_files(path, other), "the old one stays");
        tn_imported *f = tn_import(path);
        ok(f && !tn_imported_call(TN_LIST(x), y, 2, f), "and works");
        tn_imported_free(f);
    }
    net_free(&m);
}

static int deep(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)ud, (void)n_out;
    out[0] = in.v[0];
    for (int i = 0; i < 100000; i++) out[0] = i % 2 ? tn_neg(out[0]) : tn_add(out[0], tn_f32(1));
    return 0;
}

int main(void) {
    if (!begin()) return 1;
    test_every();
    test_signatures();
    test_constants();
    test_lifetime();
    test_random();
    test_rules();
    test_prims();
    test_misuse();
    test_damage();
    test_wrong();
    test_memory();
    test_memory_of_exporter();
    test_full_disk();
    TN_SCOPE {
        check("a deep graph", deep, NULL, TN_LIST(rows_of(1)), TN_LIST(rows_of(1)), 1);
    }
    return end();
}
