/* Derivatives of every primitive, by every call of every.h and in every dtype that it is there for.
 * In f64 (f32 where there is no f64, complex numbers along both axes of the plane): jvp and vjp
 * against central differences, and against each other, and the same of the vjp itself: second
 * derivatives. In each dtype: the vjp against that in f64 of the same numbers; vmap of the vjp
 * against a loop of vjps; the vjp compiled, to the bit. */
#include "every.h"
#include "tap.h"
#include "values.h"
#include <math.h>

enum { MOST = EVERY_IN + TNI_MAX_OUT, CALLS = 3 };

/* ---- a case as a function of its floats ---- */

/* Arguments are the case's, results those of them that have derivatives. */
typedef struct subject {
    every_case c;
    tn_array *x[EVERY_IN];    /* what the arguments that are no floats are */
    tn_array *cot[MOST];      /* for gradients as a function: fixed cotangents */
    int n_float, n_out;       /* arguments and results that are floats */
    int at[EVERY_IN];         /* which arguments */
    int results[TNI_MAX_OUT]; /* which results */
} subject;

static bool inexact(tn_dtype d) { return d >= TN_F16; }

/* in: the floats alone. */
static int call(tn_list in, tn_array **out, int n_out, void *ud) {
    const subject *s = ud;
    tn_array *x[EVERY_IN], *y[TNI_MAX_OUT];
    memcpy(x, s->x, sizeof x);
    for (int i = 0; i < s->n_float; i++) x[s->at[i]] = in.v[i];
    int status = s->c.fn((tn_list){x, s->c.n_in}, y, s->c.n_out, (void *)(uintptr_t)&s->c);
    for (int k = 0; k < n_out; k++) out[k] = y[s->results[k]];
    return status;
}

/* Gradients by the floats for the fixed cotangents. */
static int gradient(tn_list in, tn_array **out, int n_out, void *ud) {
    subject *s = ud;
    tn_array *y[TNI_MAX_OUT];
    (void)n_out;
    return tn_vjp(call, ud, in, (tn_list){s->cot, s->n_out}, y, out);
}

/* in: all arguments, then cotangents. */
static int pull(tn_list in, tn_array **out, int n_out, void *ud) {
    subject s = *(const subject *)ud;
    tn_array *x[EVERY_IN], *y[TNI_MAX_OUT];
    (void)n_out;
    memcpy(s.x, in.v, sizeof s.x[0] * (size_t)s.c.n_in);
    for (int i = 0; i < s.n_float; i++) x[i] = in.v[s.at[i]];
    return tn_vjp(call, &s, (tn_list){x, s.n_float}, (tn_list){in.v + s.c.n_in, s.n_out}, y, out);
}

/* ---- numbers ---- */

enum { SIGNED, SMALL, LARGE, RANGES };

/* f64, or c64; none near 0 nor, for SMALL and LARGE, below it; of a seed with which no two numbers
 * that are compared lie within a difference of each other. */
static tn_array *spread(tn_ints shape, tn_dtype d, int range, uint64_t salt) {
    double v[4096];
    int64_t n = 1, m;
    for (int i = 0; i < shape.n; i++) n *= shape.v[i];
    rng_state = 41 + salt * 1000003;
    for (int64_t i = 0; i < n && i < 4096; i++) {
        double u = (double)(rnd() >> 11) * 0x1p-53, sign = rnd() >> 40 & 1 ? 1 : -1;
        v[i] = range == SIGNED  ? sign * (0.13 + 1.6 * u)
               : range == SMALL ? 0.14 + 0.8 * u
                                : 1.1 + u;
    }
    tn_array *a = tn_array_new(v, TN_F64, shape);
    if (d != TN_C64) return tn_astype(a, d);
    m = (int64_t)(salt + 5);
    return tn_add(a, tn_mul(tn_complex(0, 1), spread(shape, TN_F32, range, (uint64_t)m * 31)));
}

static tn_array *argument(const every_arg *a, int range, uint64_t salt) {
    if (!inexact(a->dtype) || a->below) return every_input(a, salt);
    return spread((tn_ints){a->shape, a->ndim}, a->dtype, range, salt);
}

/* The case on numbers of a range: which arguments and results are floats. */
static bool subject_init(subject *s, const every_case *c, int range, tn_array **x) {
    tn_array *y[TNI_MAX_OUT];
    memset(s, 0, sizeof *s);
    s->c = *c;
    for (int i = 0; i < c->n_in; i++) {
        s->x[i] = argument(&c->in[i], range, (uint64_t)i);
        if (inexact(c->in[i].dtype)) x[s->n_float] = s->x[i], s->at[s->n_float++] = i;
    }
    if (c->fn((tn_list){s->x, c->n_in}, y, c->n_out, (void *)(uintptr_t)c)) return false;
    for (int k = 0; k < c->n_out; k++) {
        if (tn_array_status(y[k])) return false;
        if (inexact(tn_dtype_of(y[k]))) s->results[s->n_out++] = k;
    }
    return true;
}

static tn_array *apart(tn_array *a) { /* real and imaginary parts as one array of f64 */
    if (tn_dtype_of(a) != TN_C64) return tn_flatten(tn_astype(a, TN_F64), 0, -1);
    return tn_concatenate(TN_LIST(apart(tn_real(a)), apart(tn_imag(a))), 0);
}
static double dot(int n, tn_array *const *a, tn_array *const *b) {
    double sum = 0;
    for (int k = 0; k < n; k++)
        sum += tn_item_f64(tn_sum(tn_mul(apart(a[k]), apart(b[k])), TN_ALL, false));
    return sum;
}

/* ---- differences ---- */

typedef struct slack {
    double h, forward, reverse; /* the step; relative errors */
} slack;

/* <f(x + t v), u> */
static double value_at(tn_fns f, subject *s, int n_out, tn_array **x, tn_array **v, tn_array **u,
                       double t) {
    tn_array *in[EVERY_IN], *y[MOST];
    for (int i = 0; i < s->n_float; i++) in[i] = tn_add(x[i], tn_mul(v[i], tn_f32(t)));
    if (f((tn_list){in, s->n_float}, y, n_out, s)) return NAN;
    return dot(n_out, y, u);
}

/* vjp and jvp of f along directions of all arguments. */
static bool differs(tn_fns f, subject *s, int n_out, tn_array **x, slack tol, const char *what) {
    tn_array *v[EVERY_IN], *y[MOST], *t[MOST], *u[MOST], *g[EVERY_IN];
    tn_list in = {x, s->n_float};
    for (int i = 0; i < s->n_float; i++)
        v[i] = spread(tn_shape(x[i]), tn_dtype_of(x[i]), SIGNED, 300 + (uint64_t)i);
    int status = tn_jvp(f, s, in, (tn_list){v, s->n_float}, n_out, y, t);
    for (int k = 0; k < n_out && !status; k++)
        u[k] = spread(tn_shape(y[k]), tn_dtype_of(y[k]), SIGNED, 400 + (uint64_t)k);
    if (!status) status = tn_vjp(f, s, in, (tn_list){u, n_out}, y, g);
    if (status) {
        diag("%s of %s: %s", what, s->c.name, tn_error());
        return true;
    }
    double h = tol.h, forward = dot(n_out, t, u), reverse = dot(s->n_float, g, v);
    double d = (8 * (value_at(f, s, n_out, x, v, u, h) - value_at(f, s, n_out, x, v, u, -h)) -
                (value_at(f, s, n_out, x, v, u, 2 * h) - value_at(f, s, n_out, x, v, u, -2 * h))) /
               (12 * h);
    bool bad = !(fabs(forward - d) <= tol.forward * (1 + fabs(d))) ||
               !(fabs(reverse - forward) <= tol.reverse * (1 + fabs(d)));
    if (bad)
        diag("%s of %s: jvp %.12g, vjp %.12g, difference %.12g", what, s->c.name, forward, reverse,
             d);
    return bad;
}

static bool all_finite(int n, tn_array *const *a) {
    for (int k = 0; k < n; k++)
        if (!isfinite(tn_item_f64(tn_sum(apart(a[k]), TN_ALL, false)))) return false;
    return true;
}

/* A range on which results and gradients are finite; RANGES when there is none. */
static int usable(const every_case *c, subject *s, tn_array **x) {
    for (int range = 0; range < RANGES; range++) {
        tn_array *y[TNI_MAX_OUT], *g[EVERY_IN];
        if (!subject_init(s, c, range, x)) return RANGES;
        if (call((tn_list){x, s->n_float}, y, s->n_out, s) || !all_finite(s->n_out, y)) continue;
        for (int k = 0; k < s->n_out; k++)
            s->cot[k] = spread(tn_shape(y[k]), tn_dtype_of(y[k]), SIGNED, 500 + (uint64_t)k);
        if (gradient((tn_list){x, s->n_float}, g, s->n_float, s)) return RANGES;
        if (all_finite(s->n_float, g)) return range;
    }
    return RANGES;
}

static bool is_named(const every_case *c, const char *name) {
    return !strncmp(c->name, name, strlen(name));
}
/* Derivatives that are not those of the function: stop_gradient stops, sign of a complex number is
 * taken for flat, imag is MLX's; quantising jumps, and products with quantised matrices round too
 * coarsely for differences (tests/py/test_composites.py has both against MLX). */
static bool by_design(const every_case *c) {
    return is_named(c, "quantize") || is_named(c, "custom") || is_named(c, "sign complex64") ||
           is_named(c, "imag complex64");
}

/* Whatever the dtypes, wavelengths and sinks are f32. */
static bool in_f32(const every_case *c) {
    return is_named(c, "rope_freqs") || is_named(c, "sdpa_mask") || is_named(c, "sdpa_vjp");
}

static every_case with_floats(const every_case *c, tn_dtype d) {
    every_case w = *c;
    for (int i = 0; i < w.n_in; i++)
        if (inexact(w.in[i].dtype)) w.in[i].dtype = d;
    return w;
}

static int tried[4]; /* cases checked in f64, f32, c64; too narrow for differences */

static void check_differences(const every_case *c, tn_dtype d) {
    static const slack f64 = {1e-4, 1e-6, 1e-9}, f32 = {0.02, 2e-3, 1e-4}, c64 = {2e-3, 5e-3, 2e-4};
    slack tol = d == TN_C64 ? c64 : d == TN_F32 || in_f32(c) ? f32 : f64;
    every_case w = with_floats(c, d);
    subject s;
    tn_array *x[EVERY_IN];
    int range = usable(&w, &s, x);
    if (range == RANGES) {
        if (d == TN_F64)
            check_differences(c, TN_F32);
        else
            ok(0, "%s, %s: %s", c->name, tn_dtype_name(d), tn_error());
        return;
    }
    tried[d == TN_F64 ? 0 : d == TN_F32 ? 1 : 2]++;
    bool bad = differs(call, &s, s.n_out, x, tol, "derivatives");
    ok(!bad, "%s, %s: jvp, vjp, differences", c->name, tn_dtype_name(d));
    bad = differs(gradient, &s, s.n_float, x, tol, "second derivatives");
    ok(!bad, "%s, %s: second derivatives", c->name, tn_dtype_name(d));
}

/* ---- every dtype ---- */

static double rounding(tn_dtype d) {
    return d == TN_F64 ? 1e-12 : d == TN_F16 ? 4e-3 : d == TN_BF16 ? 3e-2 : 2e-5; /* f32, c64 */
}
/* The least exact of those a case works in. */
static double case_rounding(const every_case *c) {
    double worst = in_f32(c) ? rounding(TN_F32) : 0;
    for (int i = 0; i < c->n_in; i++)
        if (inexact(c->in[i].dtype)) worst = fmax(worst, rounding(c->in[i].dtype));
    return worst;
}

static bool unlike(tn_array *a, tn_array *b, double tolerance, const char *what) {
    if (tn_array_status(a) || tn_array_status(b) || tn_ndim(a) != tn_ndim(b) ||
        tn_size(a) != tn_size(b)) {
        diag("%s: %s and %s, %s%s", what, tni_describe(a), tni_describe(b), tn_array_error(a),
             tn_array_error(b));
        return true;
    }
    a = apart(a), b = apart(b);
    double *x = values(a), *y = values(b), most = 0;
    bool bad = false;
    for (int64_t i = 0; i < tn_size(a); i++) most = fmax(most, fabs(y[i]));
    for (int64_t i = 0; i < tn_size(a) && !bad; i++)
        if (!(fabs(x[i] - y[i]) <= tolerance * (1 + most))) {
            diag("%s: element %d: %.9g, want %.9g", what, (int)i, x[i], y[i]);
            bad = true;
        }
    free(x), free(y);
    return bad;
}

/* The vjp in the case's dtypes against that in f64 of the same numbers. */
static void check_rounding(const every_case *c, int range) {
    subject s, wide;
    tn_array *x[EVERY_IN], *y[TNI_MAX_OUT], *g[EVERY_IN], *g64[EVERY_IN];
    every_case w = with_floats(c, TN_F64);
    bool bad = !subject_init(&s, c, range, x);
    if (bad || !subject_init(&wide, &w, range, y)) return;
    bad = call((tn_list){x, s.n_float}, y, s.n_out, &s);
    for (int k = 0; k < s.n_out && !bad; k++) {
        s.cot[k] = spread(tn_shape(y[k]), tn_dtype_of(y[k]), SIGNED, 600 + (uint64_t)k);
        wide.cot[k] = tn_astype(s.cot[k], TN_F64);
    }
    bad = bad || gradient((tn_list){x, s.n_float}, g, s.n_float, &s);
    for (int i = 0; i < s.n_float; i++) x[i] = tn_astype(x[i], TN_F64);
    bad = bad || gradient((tn_list){x, s.n_float}, g64, s.n_float, &wide);
    if (bad) diag("%s", tn_error());
    for (int i = 0; i < s.n_float && !bad; i++)
        bad = tn_dtype_of(g[i]) != c->in[s.at[i]].dtype ||
              unlike(g[i], g64[i], case_rounding(c), c->name);
    ok(!bad, "%s: as in float64", c->name);
}

/* ---- vmap and compile ---- */

/* All arguments and cotangents of a call. */
static int call_inputs(const subject *s, int range, uint64_t salt, tn_array **in) {
    tn_array *x[EVERY_IN], *y[TNI_MAX_OUT];
    int n = 0, m = 0;
    for (int i = 0; i < s->c.n_in; i++) {
        in[n++] = argument(&s->c.in[i], range, salt + (uint64_t)i);
        if (inexact(s->c.in[i].dtype)) x[m++] = in[i];
    }
    if (call((tn_list){x, m}, y, s->n_out, (void *)(uintptr_t)s)) return -1;
    for (int k = 0; k < s->n_out; k++)
        in[n++] = spread(tn_shape(y[k]), tn_dtype_of(y[k]), SIGNED, salt + 700 + (uint64_t)k);
    return n;
}

static void check_mapped(subject *s, int range) {
    tn_array *in[CALLS][MOST], *g[CALLS][EVERY_IN], *all[MOST], *got[EVERY_IN];
    int n = 0, status = 0;
    for (int b = 0; b < CALLS && !status; b++) {
        n = call_inputs(s, range, 11 * (uint64_t)b, in[b]);
        status = n < 0 ? n : pull((tn_list){in[b], n}, g[b], s->n_float, s);
    }
    for (int i = 0; i < n && !status; i++)
        all[i] = tn_stack(TN_LIST(in[0][i], in[1][i], in[2][i]), 0);
    if (!status) status = tn_vmap(pull, s, (tn_list){all, n}, TN_ALL, s->n_float, TN_ALL, got);
    bool bad = status;
    if (bad) diag("%s", tn_error());
    for (int i = 0; i < s->n_float && !bad; i++)
        bad = unlike(got[i], tn_stack(TN_LIST(g[0][i], g[1][i], g[2][i]), 0), case_rounding(&s->c),
                     s->c.name);
    ok(!bad, "%s: vmap of the vjp", s->c.name);
}

static void check_compiled(subject *s, int range) {
    tn_array *in[MOST], *g[EVERY_IN], *got[EVERY_IN];
    int n = call_inputs(s, range, 5, in);
    bool bad = n < 0 || tn_eval((tn_list){in, n}) || pull((tn_list){in, n}, g, s->n_float, s) ||
               tn_eval((tn_list){g, s->n_float});
    tn_compiled *f = tn_compile(pull, s, s->n_float, NULL);
    for (int twice = 0; twice < 2 && !bad; twice++) {
        bad = !f || tn_compiled_call(f, (tn_list){in, n}, got);
        for (int i = 0; i < s->n_float && !bad; i++) {
            const void *a = tn_data(got[i]), *b = tn_data(g[i]);
            bad = tn_nbytes(g[i]) &&
                  (!a || !b || tn_dtype_of(got[i]) != tn_dtype_of(g[i]) ||
                   tn_nbytes(got[i]) != tn_nbytes(g[i]) || memcmp(a, b, tn_nbytes(g[i])) != 0);
        }
    }
    if (bad) diag("%s", tn_error());
    tn_compiled_free(f);
    ok(!bad, "%s: the compiled vjp", s->c.name);
}

/* ---- the cases ---- */

/* Derivatives once for each kind of number, the rest in every dtype. */
static void check_case(const every_case *c, bool differences) {
    subject s;
    tn_array *x[EVERY_IN];
    bool complex = false;
    for (int i = 0; i < c->n_in; i++) complex = complex || c->in[i].dtype == TN_C64;
    int range = usable(c, &s, x);
    if (!s.n_float || !s.n_out) return;
    if (range == RANGES) {
        ok(0, "%s: finite nowhere: %s", c->name, tn_error());
        return;
    }
    if (!by_design(c) && (complex || differences))
        check_differences(c, complex ? TN_C64 : TN_F64);
    else
        tried[3]++;
    if (!complex && case_rounding(c) > 1e-10) check_rounding(c, range);
    check_mapped(&s, range);
    check_compiled(&s, range);
}

/* By hand: as it is, and with all its floats of one dtype, where it takes that. */
static void visit(const every_case *c) {
    static const tn_dtype floats[] = {TN_F16, TN_BF16, TN_F32, TN_F64, TN_C64};
    bool by_hand = c->fn != every_ew && c->fn != every_red;
    TN_SCOPE {
        check_case(c, by_hand || c->in[c->n_in - 1].dtype == TN_F64);
    }
    for (int d = 0; d < 5 && by_hand; d++)
        TN_SCOPE {
            every_case w = with_floats(c, floats[d]);
            subject s;
            tn_array *x[EVERY_IN];
            bool same = true;
            for (int i = 0; i < w.n_in; i++) same = same && w.in[i].dtype == c->in[i].dtype;
            snprintf(w.name, sizeof w.name, "%.40s %s", c->name, tn_dtype_name(floats[d]));
            if (!same && subject_init(&s, &w, SIGNED, x)) check_case(&w, false);
        }
}

int main(void) {
    every(visit);
    ok(tried[0] > 80 && tried[1] && tried[2] > 20 && tried[3] > 100,
       "differences in f64 %d, f32 %d, c64 %d; narrower %d", tried[0], tried[1], tried[2],
       tried[3]);
    return tap_done();
}
