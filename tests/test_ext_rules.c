/* Small primitives of user code, one for every combination of rules, and what is said of rules that
 * are wrong: a wrong shape, a failure, an evaluation, a missing rule. */
#include "base/alloc.h"
#include "tap.h"
#include "tenon/ext.h"
#include "values.h"
#include <math.h>

/* ---- sine and cosine at once: fault says what goes wrong ---- */

typedef enum fault {
    FINE,
    FAILS_MUTE, /* a status without a sentence */
    FAILS,      /* one with a sentence */
    POSITIVE,
    WRONG_SHAPE,
    WRONG_DTYPE,
    EVALUATES,
    NOTHING,      /* leaves its results alone */
    BROKEN,       /* gives an error array */
    LEAVES_SCOPE, /* only builds with assertions notice */
    FAULTS
} fault;

typedef struct sincos {
    fault infer, kernel, lower, vjp, jvp, vmap;
    int kernels, vjps, jvps, vmaps, lowers, released; /* calls */
    int peeked;                                       /* what evaluation inside said */
    tn_prim *prim;
} sincos;

static int fault_status(fault f) {
    if (f == FAILS_MUTE) return TN_EFORMAT;
    if (f == POSITIVE) return 3;
    return f == FAILS ? tn_fail(TN_EINDEX, "no such luck") : 0;
}

/* y, or what the fault makes of it. */
static tn_array *fault_result(sincos *s, fault f, tn_array *y) {
    if (f == WRONG_SHAPE) return tn_sum(y, TN_ALL, true);
    if (f == WRONG_DTYPE) return tn_astype(y, TN_F32);
    if (f == BROKEN) return tn_reshape(y, TN_SHAPE(77));
    if (f == EVALUATES) s->peeked = tn_eval(TN_LIST(y));
    if (f == LEAVES_SCOPE)
        TN_SCOPE
            y = tn_neg(y);
    return f == NOTHING ? NULL : y;
}

static int sincos_infer(const tn_spec *in, int n_in, const void *params, tn_spec *out, int n_out,
                        void *ud) {
    sincos *s = ud;
    (void)params;
    if (n_in != 1 || n_out != 2 || in[0].dtype != TN_F64)
        return tn_fail(TN_EDTYPE, "one float64 array is needed");
    out[0] = out[1] = in[0];
    if (s->infer == WRONG_SHAPE) out[1].ndim = TN_MAX_NDIM + 1;
    if (s->infer == WRONG_DTYPE) out[1].dtype = (tn_dtype)99;
    if (s->infer == BROKEN) out[0].ndim = 1, out[0].shape[0] = -4;
    return fault_status(s->infer);
}

/* Rank by rank, so that it is right for any strides. */
static void sincos_walk(const tn_operand *in, int axis, int64_t from, double **y, double **z) {
    if (axis == in->ndim) {
        *(*y)++ = sin(((double *)in->data)[from]);
        *(*z)++ = cos(((double *)in->data)[from]);
        return;
    }
    for (int64_t i = 0; i < in->shape[axis]; i++)
        sincos_walk(in, axis + 1, from + i * in->strides[axis], y, z);
}

static int sincos_kernel(const tn_operand *in, int n_in, const tn_operand *out, int n_out,
                         const void *params, void *ud) {
    sincos *s = ud;
    double *y = out[0].data, *z = out[1].data;
    (void)n_in, (void)n_out, (void)params;
    s->kernels++;
    sincos_walk(in, 0, 0, &y, &z);
    return fault_status(s->kernel);
}

static int sincos_lower(tn_list in, const void *params, tn_array **out, int n_out, void *ud) {
    sincos *s = ud;
    (void)params;
    s->lowers++;
    for (int k = 0; k < n_out; k++)
        out[k] = fault_result(s, s->lower, k ? tn_cos(in.v[0]) : tn_sin(in.v[0]));
    return fault_status(s->lower);
}

static int sincos_vjp(tn_list in, tn_list out, tn_list cot, const bool *want, const void *params,
                      tn_array **grads, void *ud) {
    sincos *s = ud;
    (void)in, (void)params;
    s->vjps++;
    if (want[0])
        grads[0] =
            fault_result(s, s->vjp, tn_sub(tn_mul(cot.v[0], out.v[1]), tn_mul(cot.v[1], out.v[0])));
    return fault_status(s->vjp);
}

static int sincos_jvp(tn_list in, tn_list out, tn_list tan, const void *params, tn_array **out_tan,
                      void *ud) {
    sincos *s = ud;
    (void)in, (void)params;
    s->jvps++;
    out_tan[0] = fault_result(s, s->jvp, tn_mul(tan.v[0], out.v[1]));
    out_tan[1] = fault_result(s, s->jvp, tn_neg(tn_mul(tan.v[0], out.v[0])));
    return fault_status(s->jvp);
}

static int sincos_vmap(tn_list in, tn_ints axes, int64_t size, const void *params, tn_array **out,
                       int64_t *out_axes, int n_out, void *ud) {
    sincos *s = ud;
    (void)params;
    s->vmaps++;
    if (axes.n != 1 || axes.v[0] != 0 || size != tn_dim(in.v[0], 0)) return TN_EINTERNAL;
    if (tn_prim_call(s->prim, NULL, in, out, n_out)) return tn_array_status(out[0]);
    out[0] = fault_result(s, s->vmap, tn_moveaxis(out[0], 0, -1)), out_axes[0] = -1;
    out[1] = fault_result(s, s->vmap, out[1]);
    return fault_status(s->vmap);
}

static void sincos_release(void *ud) { ((sincos *)ud)->released++; }

enum { KERNEL = 1, LOWER = 2, VJP = 4, JVP = 8, VMAP = 16 };

static tn_prim *sincos_new(sincos *s, int rules) {
    memset(s, 0, sizeof *s);
    tn_prim_desc d = {.size = sizeof d, .name = "sincos", .n_out = 2, .ud = s};
    d.infer = sincos_infer, d.release = sincos_release;
    if (rules & KERNEL) d.kernel = sincos_kernel;
    if (rules & LOWER) d.lower = sincos_lower;
    if (rules & VJP) d.vjp = sincos_vjp;
    if (rules & JVP) d.jvp = sincos_jvp;
    if (rules & VMAP) d.vmap = sincos_vmap;
    return s->prim = tn_prim_new(&d);
}

static int both(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_prim_call(((sincos *)ud)->prim, NULL, in, out, n_out);
}
/* Only one of the results is used: the other is nobody's. */
static tn_array *square_sine(tn_list in, void *ud) {
    tn_array *y[2] = {NULL};
    (void)both(in, y, 2, ud);
    return tn_sum(tn_square(y[0]), TN_ALL, false);
}
static tn_array *slope(tn_list in, void *ud) {
    return tn_sum(tn_square(tn_grad(square_sine, ud, in, 0)), TN_ALL, false);
}
static int grad_fn(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tn_grad(square_sine, ud, in, 0);
    return tn_array_status(out[0]);
}

/* ---- every combination of rules ---- */

static void check_rules(int rules) {
    sincos s;
    bool derivatives = rules & (LOWER | VJP), forward = rules & (LOWER | VJP | JVP);
    if (!sincos_new(&s, rules)) {
        ok(!(rules & (KERNEL | LOWER)) && strstr(tn_error(), "neither a kernel nor a lowering"),
           "rules %#x: refused", (unsigned)rules);
        return;
    }
    TN_SCOPE {
        tn_array *x = tn_reshape(quarters(6), TN_SHAPE(2, 3)), *y[2], *dy[2], *g;
        tn_list in = TN_LIST(tn_transpose(x, TN_ALL));
        bool good =
            !both(in, y, 2, &s) && alike(y[0], tn_sin(in.v[0])) && alike(y[1], tn_cos(in.v[0]));
        ok(good && !s.kernels == !(rules & KERNEL), "rules %#x: values", (unsigned)rules);
        g = tn_grad(square_sine, &s, in, 0);
        tn_array *twice = tn_mul(in.v[0], tn_f32(2));
        ok(derivatives ? alike(g, tn_sin(twice)) : tn_array_status(g) == TN_EVALUE,
           "rules %#x: gradient%s%s", (unsigned)rules, derivatives ? "" : ": ",
           derivatives ? "" : tn_array_error(g));
        if (derivatives)
            ok(alike(tn_grad(slope, &s, in, 0),
                     tn_mul(tn_mul(tn_sin(twice), tn_cos(twice)), tn_f32(4))),
               "rules %#x: gradient of the gradient", (unsigned)rules);
        int status = tn_jvp(both, &s, in, TN_LIST(twice), 2, y, dy);
        ok(forward ? !status && alike(dy[0], tn_mul(twice, tn_cos(in.v[0]))) &&
                         alike(dy[1], tn_neg(tn_mul(twice, tn_sin(in.v[0]))))
                   : status == TN_EVALUE,
           "rules %#x: tangents%s%s", (unsigned)rules, status ? ": " : "",
           status ? tn_error() : "");
        status = tn_vmap(both, &s, TN_LIST(x), TN_AXES(1), 2, TN_AXES(1, 0), y);
        ok(!status && alike(y[0], tn_sin(x)) && alike(y[1], tn_transpose(tn_cos(x), TN_ALL)),
           "rules %#x: vmap", (unsigned)rules);
        ok(!s.vjps == !(rules & VJP) && !s.jvps == !(rules & JVP) && !s.vmaps == !(rules & VMAP),
           "rules %#x: each was asked", (unsigned)rules);
        tn_compiled *c = tn_compile(derivatives ? grad_fn : both, &s, 1 + !derivatives, NULL);
        for (int run = 0; run < 2; run++)
            ok(!tn_compiled_call(c, in, y) &&
                   alike(y[0], derivatives ? tn_sin(twice) : tn_sin(in.v[0])),
               "rules %#x: compiled", (unsigned)rules);
        tn_prim_free(s.prim);
        status = tn_compiled_call(c, TN_LIST(tn_neg(in.v[0])), y);
        ok(!status && (rules & KERNEL ? !s.released : 1), "rules %#x: a plan keeps the primitive",
           (unsigned)rules);
        tn_compiled_free(c);
    }
    is_i64(s.released, 1, "rules %#x: released at the end", (unsigned)rules);
}

static void test_rules(void) {
    for (int rules = 0; rules < 32; rules++) check_rules(rules);
}

/* ---- faults ---- */

typedef struct outcome {
    int status;
    const char *text;
} outcome;

/* What comes of the fault in the rule under test; status 0: nothing bad. */
static void check_fault(sincos *s, fault f, const char *rule, int status, outcome w) {
    ok(status == w.status && (!w.status || strstr(tn_error(), w.text)), "%s, fault %d: %d %s", rule,
       (int)f, status, status ? tn_error() : "");
    s->infer = s->kernel = s->lower = s->vjp = s->jvp = s->vmap = FINE;
}

static const outcome vjp_faults[FAULTS] = {
    [FAILS_MUTE] = {TN_EFORMAT, "sincos: its vjp returned"},
    [FAILS] = {TN_EINDEX, "sincos: no such luck"},
    [POSITIVE] = {TN_EVALUE, "sincos: its vjp returned 3"},
    [WRONG_SHAPE] = {TN_ESHAPE,
                     "sincos's vjp: gradient 0 is [1] float64, but what it belongs to is "
                     "[3] float64"},
    [WRONG_DTYPE] = {TN_ESHAPE, "sincos's vjp: gradient 0 is [3] float32"},
    [BROKEN] = {TN_ESHAPE, "reshape"},
    [LEAVES_SCOPE] = {TN_ESTATE, "freed"},
};
static const outcome jvp_faults[FAULTS] = {
    [FAILS_MUTE] = {TN_EFORMAT, "sincos: its jvp returned"},
    [FAILS] = {TN_EINDEX, "sincos: no such luck"},
    [POSITIVE] = {TN_EVALUE, "sincos: its jvp returned 3"},
    [WRONG_SHAPE] = {TN_ESHAPE, "sincos's jvp: tangent 0 is [1] float64"},
    [WRONG_DTYPE] = {TN_ESHAPE, "sincos's jvp: tangent 0 is [3] float32"},
    [BROKEN] = {TN_ESHAPE, "reshape"},
    [LEAVES_SCOPE] = {TN_ESTATE, "freed"},
};
static const outcome vmap_faults[FAULTS] = {
    [FAILS_MUTE] = {TN_EFORMAT, "sincos: its vmap returned"},
    [FAILS] = {TN_EINDEX, "sincos: no such luck"},
    [POSITIVE] = {TN_EVALUE, "sincos: its vmap returned 3"},
    [WRONG_SHAPE] = {TN_ESHAPE, "sincos's vmap: result 0 of the rule is"},
    [WRONG_DTYPE] = {TN_ESHAPE, "float32, not a stack of [] float64"},
    [NOTHING] = {TN_EVALUE, "sincos's vmap: result 0 of the function is NULL"},
    [BROKEN] = {TN_ESHAPE, "reshape"},
    [LEAVES_SCOPE] = {TN_ESTATE, "freed"},
};
static const outcome lower_faults[FAULTS] = {
    [FAILS_MUTE] = {TN_EFORMAT, "sincos: its lowering returned"},
    [FAILS] = {TN_EINDEX, "sincos: no such luck"},
    [POSITIVE] = {TN_EVALUE, "sincos: its lowering returned 3"},
    [WRONG_SHAPE] = {TN_ESHAPE, "sincos's lowering: result 0 is [1] float64"},
    [WRONG_DTYPE] = {TN_ESHAPE, "sincos's lowering: result 0 is [3] float32"},
    [NOTHING] = {TN_EVALUE, "sincos's lowering: result 0 of the function is NULL"},
    [BROKEN] = {TN_ESHAPE, "reshape"},
    [LEAVES_SCOPE] = {TN_ESTATE, "freed"},
};
static const outcome kernel_faults[FAULTS] = {
    [FAILS_MUTE] = {TN_EFORMAT, "sincos: its kernel returned"},
    [FAILS] = {TN_EINDEX, "sincos: no such luck"},
    [POSITIVE] = {TN_EVALUE, "sincos: its kernel returned 3"},
};
static const outcome infer_faults[FAULTS] = {
    [FAILS_MUTE] = {TN_EFORMAT, "sincos: its shape rule returned"},
    [FAILS] = {TN_EINDEX, "sincos: no such luck"},
    [POSITIVE] = {TN_EVALUE, "sincos: its shape rule returned 3"},
    [WRONG_SHAPE] = {TN_ESHAPE, "sincos: output 1 has dtype"},
    [WRONG_DTYPE] = {TN_ESHAPE, "sincos: output 1 has dtype 99"},
    [BROKEN] = {TN_ESHAPE, "sincos: output 0"},
};

static void test_faults(void) {
    sincos s, low;
    (void)(sincos_new(&s, KERNEL | VJP | JVP | VMAP) && sincos_new(&low, LOWER));
    for (fault f = FAILS_MUTE; f < FAULTS; f++)
        TN_SCOPE {
            tn_array *x = quarters(3), *y[2], *dy[2], *g;
#ifdef NDEBUG
            if (f == LEAVES_SCOPE) continue;
#endif
            s.vjp = f;
            g = tn_grad(square_sine, &s, TN_LIST(x), 0);
            check_fault(&s, f, "vjp", tn_array_status(g), vjp_faults[f]);
            if (f == NOTHING) ok(alike(g, tn_zeros_like(x)), "no gradient is zero");
            s.jvp = f;
            int status = tn_jvp(both, &s, TN_LIST(x), TN_LIST(x), 2, y, dy);
            check_fault(&s, f, "jvp", status, jvp_faults[f]);
            if (f == NOTHING) ok(alike(dy[1], tn_zeros_like(x)), "no tangent is zero");
            s.vmap = f;
            status = tn_vmap(both, &s, TN_LIST(x), TN_ALL, 2, TN_ALL, y);
            check_fault(&s, f, "vmap", status, vmap_faults[f]);
            s.kernel = f;
            (void)both(TN_LIST(x), y, 2, &s);
            status = tn_eval(TN_LIST(y[0], y[1]));
            check_fault(&s, f, "kernel", status, kernel_faults[f]);
            s.infer = f;
            status = both(TN_LIST(x), y, 2, &s);
            check_fault(&s, f, "infer", status, infer_faults[f]);
            ok(tn_array_status(y[0]) == status && tn_array_status(y[1]) == status, "its results");
            low.lower = f;
            (void)both(TN_LIST(x), y, 2, &low);
            status = tn_eval(TN_LIST(y[0], y[1]));
            check_fault(&low, f, "lower", status, lower_faults[f]);
            low.lower = f;
            g = tn_grad(square_sine, &low, TN_LIST(x), 0);
            check_fault(&low, f, "lower, differentiated", tn_array_status(g), lower_faults[f]);
            if (f == EVALUATES)
                ok(s.peeked == TN_ESTATE && low.peeked == TN_ESTATE,
                   "evaluation inside is refused, and does no harm");
            ok(!both(TN_LIST(x), y, 2, &s) && alike(y[1], tn_cos(x)), "and then it works");
        }
    tn_prim_free(s.prim), tn_prim_free(low.prim);
    ok(s.released == 1 && low.released == 1, "released once");
}

/* ---- a kernel that fails in a replay ---- */

static void test_replay(void) {
    sincos s;
    (void)sincos_new(&s, KERNEL | VJP);
    tn_compiled *c = tn_compile(grad_fn, &s, 1, NULL);
    TN_SCOPE {
        tn_array *x = quarters(3), *y;
        ok(!tn_compiled_call(c, TN_LIST(x), &y), "compiled");
        s.kernel = FAILS;
        ok(tn_compiled_call(c, TN_LIST(x), &y) == TN_EINDEX &&
               strstr(tn_error(), "sincos: no such luck") && tn_array_status(y) == TN_EINDEX,
           "fails in a replay: %s", tn_error());
        s.kernel = FINE;
        ok(!tn_compiled_call(c, TN_LIST(x), &y) && alike(y, tn_sin(tn_mul(x, tn_f32(2)))),
           "and then works");
    }
    tn_compiled_free(c);
    tn_prim_free(s.prim);
}

/* ---- other threads, files ---- */

static void test_elsewhere(void) {
    sincos s;
    (void)sincos_new(&s, KERNEL | VJP);
    TN_SCOPE {
        tn_array *x = quarters(3), *y[2], *g = tn_grad(square_sine, &s, TN_LIST(x), 0);
        (void)both(TN_LIST(x), y, 2, &s);
        ok(!tn_async_eval(TN_LIST(g, y[0])) && !tn_wait(NULL) &&
               alike(g, tn_sin(tn_mul(x, tn_f32(2)))) && alike(y[0], tn_sin(x)),
           "computed by a stream's worker");
        s.kernel = FAILS;
        (void)both(TN_LIST(x), y, 2, &s);
        int status = tn_async_eval(TN_LIST(y[1]));
        ok(!status && tn_eval(TN_LIST(y[1])) == TN_EINDEX && strstr(tn_error(), "no such luck"),
           "fails there: %s", tn_error());
        (void)!tn_wait(NULL);
        s.kernel = FINE;
        tn_exporter *e = tn_exporter_new(both, &s, 2);
        ok(tn_exporter_add(e, TN_LIST(x)) == TN_EVALUE &&
               strstr(tn_error(), "sincos has no lowering"),
           "not for files: %s", tn_error());
        tn_exporter_free(e);
    }
    tn_prim_free(s.prim);
    is_i64(s.released, 1, "released");
}

/* ---- parameters: x to a power, plus a table's sum ---- */

typedef struct table_params {
    int64_t power;
    double table[20];
} table_params;

static int table_infer(const tn_spec *in, int n_in, const void *params, tn_spec *out, int n_out,
                       void *ud) {
    const table_params *p = params;
    (void)n_out, (void)ud;
    if (n_in < 1 || p->power < 0) return tn_fail(TN_EVALUE, "power %d", (int)p->power);
    out[0] = in[n_in - 1];
    return 0;
}

typedef struct table_job {
    const double *x;
    double *y, power, add;
    bool seen[64];
} table_job;

static void table_body(void *ctx, int64_t begin, int64_t end, int worker) {
    table_job *j = ctx;
    if (worker < 64) j->seen[worker] = true;
    for (int64_t i = begin; i < end; i++) j->y[i] = pow(j->x[i], j->power) + j->add;
}

static int table_kernel(const tn_operand *in, int n_in, const tn_operand *out, int n_out,
                        const void *params, void *ud) {
    const table_params *p = params;
    table_job j = {in[n_in - 1].data, out[0].data, (double)p->power, 0, {false}};
    (void)n_out;
    if ((uintptr_t)params % 8) return tn_fail(TN_EINTERNAL, "parameters are not aligned");
    for (int i = 0; i < 20; i++) j.add += p->table[i];
    int64_t n = 1;
    for (int i = 0; i < out[0].ndim; i++) n *= out[0].shape[i];
    tn_parallel_for(n, 3, table_body, &j);
    tn_parallel_for(0, 3, table_body, NULL);
    tn_parallel_for(-1, 0, table_body, NULL);
    for (int i = tn_threads(); i < 64; i++)
        if (j.seen[i]) return tn_fail(TN_EINTERNAL, "worker %d of %d", i, tn_threads());
    ++*(int *)ud;
    return 0;
}

static int table_pair(tn_list in, tn_array **out, int n_out, void *ud) {
    table_params p = {2, {0.5, [19] = 0.25}};
    for (int k = 0; k < n_out; k++) {
        if (k == 2) p.table[7] = 3;
        out[k] = tn_prim_call1(ud, &p, in);
    }
    return 0;
}

static void test_parameters(void) {
    int calls = 0;
    tn_prim_desc d = {.size = sizeof d, .name = "table", .n_out = 1, .ud = &calls};
    d.params_size = sizeof(table_params), d.infer = table_infer, d.kernel = table_kernel;
    d.flags = TN_PRIM_DENSE;
    char name[] = "table";
    d.name = name;
    tn_prim *p = tn_prim_new(&d);
    strcpy(name, "gone");
    TN_SCOPE {
        tn_array *x = quarters(100), *y[3], *want = tn_add(tn_square(x), tn_f32(0.75));
        tn_compiled *c = tn_compile(table_pair, p, 3, NULL);
        ok(!table_pair(TN_LIST(x), y, 3, p) && alike(y[0], want) &&
               alike(y[2], tn_add(want, tn_f32(3))),
           "parameters of %d bytes", (int)d.params_size);
        calls = 0;
        ok(!tn_compiled_call(c, TN_LIST(x), y) && alike(y[1], want) &&
               alike(y[2], tn_add(want, tn_f32(3))) && calls == 2,
           "equal calls are merged, others are not");
        tn_compiled_free(c);
        char *text = tn_graph_print(TN_LIST(tn_prim_call1(p, &(table_params){1, {0}}, TN_LIST(x))));
        ok(text && strstr(text, "table("), "printed by its name: %s", text);
        tn_free(text);
        tn_array *twelve[12];
        for (int i = 0; i < 12; i++) twelve[i] = x;
        ok(alike(tn_prim_call1(p, &(table_params){1, {0}}, (tn_list){twelve, 12}), x),
           "twelve inputs");
        tn_array *none = tn_zeros(TN_SHAPE(0, 3), TN_F64);
        calls = 0;
        ok(!tn_eval(TN_LIST(tn_prim_call1(p, &(table_params){1, {0}}, TN_LIST(none)))) && !calls,
           "nothing to compute");
    }
    tn_prim_free(p);
}

/* ---- misuse of the calls ---- */

static void refused(tn_prim_desc d, const char *text) {
    ok(!tn_prim_new(&d) && strstr(tn_error(), text), "refused: %s", tn_error());
}

static void test_misuse(void) {
    tn_prim_desc d = {.size = sizeof d, .name = "table", .n_out = 1, .infer = table_infer}, e;
    d.kernel = table_kernel, d.params_size = sizeof(table_params);
    ok(!tn_prim_new(NULL) && strstr(tn_error(), "descriptor"), "no descriptor");
    e = d, e.size = 8, refused(e, "size");
    e = d, e.name = NULL, refused(e, "no name");
    e = d, e.name = "", refused(e, "no name");
    e = d, e.infer = NULL, refused(e, "no shape rule");
    e = d, e.kernel = NULL, refused(e, "neither a kernel nor a lowering");
    e = d, e.n_out = 0, refused(e, "0 results");
    e = d, e.n_out = 9, refused(e, "9 results; 1 to 8");
    e = d, e.flags = 64, refused(e, "flags 0x40");
    e = d, e.params_size = 1 << 21, refused(e, "bytes of parameters");
    tn_prim_free(NULL);
    tn_prim *p = tn_prim_new(&d);
    TN_SCOPE {
        table_params q = {1, {0}};
        tn_array *x = quarters(3), *y[2] = {NULL};
        is_i64(tn_prim_call(NULL, &q, TN_LIST(x), y, 1), TN_EVALUE, "no primitive: %s", tn_error());
        is_i64(tn_prim_call(p, &q, TN_LIST(x), y, 2), TN_EVALUE, "two results: %s", tn_error());
        ok(tn_array_status(y[1]) == TN_EVALUE, "are error arrays");
        is_i64(tn_prim_call(p, NULL, TN_LIST(x), y, 1), TN_EVALUE, "no parameters: %s", tn_error());
        is_i64(tn_prim_call(p, &q, TN_LIST(x, NULL), y, 1), TN_EVALUE, "a NULL input: %s",
               tn_error());
        is_i64(tn_prim_call(p, &q, TN_LIST(tn_reshape(x, TN_SHAPE(7))), y, 1), TN_ESHAPE,
               "an error array: %s", tn_error());
        q.power = -1;
        y[0] = tn_prim_call1(p, &q, TN_LIST(x));
        ok(tn_array_status(y[0]) == TN_EVALUE && strstr(tn_array_error(y[0]), "table: power -1"),
           "the shape rule's answer: %s", tn_array_error(y[0]));
        ok(tn_fail(TN_EFORMAT, "disk %d", 3) == TN_EFORMAT && !strcmp(tn_error(), "disk 3"),
           "tn_fail");
        ok(tn_fail(7, "x") == TN_EINTERNAL, "tn_fail of a status that is none");
    }
    tn_prim_free(p);
}

/* ---- memory that runs out ---- */

static int memory_run(int64_t n, int rules, bool *reached, bool *clean) {
    int status = 0;
    sincos s = {0};
    TN_SCOPE {
        tn_array *x = tn_reshape(quarters(6), TN_SHAPE(2, 3)), *y[2], *dy[2], *g = NULL;
        int64_t asked = tni_alloc_count();
        tni_fail_alloc_at(n);
        if (!sincos_new(&s, rules)) status = TN_EMEMORY;
        if (!status) status = tn_array_status(g = tn_grad(slope, &s, TN_LIST(x), 0));
        if (!status) status = tn_jvp(both, &s, TN_LIST(x), TN_LIST(x), 2, y, dy);
        if (!status) status = tn_vmap(both, &s, TN_LIST(dy[0]), TN_AXES(1), 2, TN_ALL, y);
        if (!status) status = tn_eval(TN_LIST(y[0], y[1], g));
        *reached = n && tni_alloc_count() - asked >= n;
        tni_fail_alloc_at(0);
        if (!status) *clean = *clean && alike(y[1], tn_transpose(tn_cos(dy[0]), TN_ALL));
    }
    tn_prim_free(s.prim);
    *clean = *clean && (!s.prim || s.released == 1);
    return status;
}

static void test_memory(int rules) {
    bool reached = true, clean = true;
    int failures = 0, wrong = 0;
    for (int i = 0; i < 3; i++) wrong += memory_run(0, rules, &reached, &clean) != 0;
    tn_memory_clear_cache();
    int64_t live = tni_alloc_live();
    reached = true;
    for (int64_t n = 1; reached; n++) {
        int status = memory_run(n, rules, &reached, &clean);
        failures += status != 0;
        if (status && status != TN_EMEMORY && !wrong++) diag("%d: %s", status, tn_error());
    }
    tn_memory_clear_cache();
    int64_t more = tni_alloc_live() - live;
    ok(failures > 100 && !wrong && clean && more < 64,
       "rules %#x: %d allocations failed once each, %d not cleanly, %lld blocks more",
       (unsigned)rules, failures, wrong, (long long)more);
}

int main(void) {
    test_rules();
    test_faults();
    test_replay();
    test_elsewhere();
    test_parameters();
    test_misuse();
    test_memory(KERNEL | VJP | JVP | VMAP);
    test_memory(KERNEL | VJP);
    test_memory(LOWER);
    return tap_done();
}
