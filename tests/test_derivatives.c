/* Every derivative column of elementwise.def and reduce.def against central differences, in f64
 * and, for complex numbers, in c64 along both axes of the plane. The columns are compiled here
 * from the tables, their words being local names, and run as graphs; so a new row is tested
 * without touching this file, and a column with an unknown word does not compile.
 *
 * Differences are of fourth order, (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12 h: with
 * h = 1e-3 |x| about 1e-11 in f64. Samples keep clear of the points where ops jump or have a
 * corner; what ops do there (ties) is tested by name. A sample where f is NaN is outside the
 * op's domain; each row must keep enough samples, and a gradient that says something. */
#include "ops/build.h"
#include "ops/grad_columns.h"
#include "rows.h"
#include "tap.h"
#include "tenon/ops.h"
#include <complex.h>
#include <math.h>

static tn_array *column(int e, int k, tn_dtype dtype, tn_array *a, tn_array *b, tn_array *c,
                        tn_array *y) {
    return tni_grad_column(e, k, &(tni_grad_row){.dtype = dtype, .a = a, .b = b, .c = c, .y = y});
}

static tn_array *red_column(int r, tn_dtype dtype, tn_array *a, tn_array *y, tn_ints axes) {
    return tni_grad_red_column(r, &(tni_grad_row){.dtype = dtype, .a = a, .y = y, .axes = axes});
}

static tn_array *red_value(int r, tn_array *a, tn_ints axes) {
    static tn_array *(*const f[])(tn_array *, tn_ints, bool) = {
        NULL,
#define RED(name, ...) tn_##name,
#include "ops/reduce.def"
#undef RED
    };
    return f[r](a, axes, true);
}
static const char *const red_names[] = {
    "none",
#define RED(name, ...) #name,
#include "ops/reduce.def"
#undef RED
};

/* ---- Element-wise, real ------------------------------------------------------------------------
 */

/* No integers, halves or ties among the first; the second has integers for powers. No quotient
 * of the two is near an integer. */
static const double as[] = {-3.73, -2.31, -1.43, -0.83, -0.41, -0.17, 0.13, 0.36,
                            0.62,  0.91,  1.33,  1.87,  2.61,  3.29,  7.11};
static const double bs[] = {-2.7, -1.6, -0.45, 0.35, 0.7, 1.4, 2, 3, 5.2};
enum { NA = 15, NB = 9, N = NA * NB };

typedef struct sample {
    double v[3][N]; /* operands; of where, the first is a condition */
    double h[N];
    int n;
} sample;

static void sample_fill(sample *s, int arity) {
    s->n = arity == 1 ? NA : N;
    for (int i = 0; i < s->n; i++) {
        double a = as[i % NA], b = bs[i / NA];
        s->v[0][i] = arity == 3 ? (i * 7 % 3 == 0) : a;
        s->v[1][i] = arity == 3 ? a : b;
        s->v[2][i] = b;
    }
}

/* f at the samples with operand k moved by t * h; into out. 0 or a status. */
static int sample_value(const sample *s, int e, int k, double t, double *out) {
    int status = 0;
    TN_SCOPE {
        tn_array *in[3];
        for (int j = 0; j < rows[e].arity; j++) {
            double v[N];
            for (int i = 0; i < s->n; i++) v[i] = s->v[j][i] + (j == k ? t * s->h[i] : 0);
            in[j] = tn_array_new(v, TN_F64, TN_SHAPE(s->n));
            if (rows[e].arity == 3 && j == 0) in[j] = tn_astype(in[j], TN_BOOL);
        }
        status = tn_read(tni_ew(e, rows[e].arity, in), TN_F64, out, sizeof(double) * (size_t)s->n);
    }
    return status;
}

/* The column as numbers: 1 and 0 for the words that are not factors. */
static int sample_column(const sample *s, int e, int k, double *out, bool *flat) {
    int status = 0;
    TN_SCOPE {
        tn_array *in[3] = {NULL};
        for (int j = 0; j < rows[e].arity; j++) {
            in[j] = tn_array_new(s->v[j], TN_F64, TN_SHAPE(s->n));
            if (rows[e].arity == 3 && j == 0) in[j] = tn_astype(in[j], TN_BOOL);
        }
        tn_array *y = tni_ew(e, rows[e].arity, in);
        tn_array *d = column(e, k, TN_F64, in[0], in[1], in[2], y);
        *flat = d == TNI_GRAD_ZERO;
        if (d == TNI_GRAD_ONE || d == TNI_GRAD_ZERO || d == TNI_GRAD_CONJ)
            for (int i = 0; i < s->n; i++) out[i] = d != TNI_GRAD_ZERO;
        else {
            bool c64 = tn_dtype_of(d) == TN_C64; /* of imag: its real part acts on real numbers */
            d = tn_broadcast_to(c64 ? tn_real(d) : d, TN_SHAPE(s->n));
            status = tn_read(d, TN_F64, out, sizeof(double) * (size_t)s->n);
        }
    }
    return status;
}

static double difference(const double f[4], double h) {
    return (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * h);
}

/* Operand k of row e, f64: how many samples lie in the domain, how many agree, how many are not 0.
 */
static void check_real(int e, int k) {
    static const double at[4] = {-2, -1, 1, 2};
    static sample s;
    static double f[4][N], d[N];
    bool flat = false;
    sample_fill(&s, rows[e].arity);
    for (int i = 0; i < s.n; i++) s.h[i] = 1e-3 * fabs(s.v[k][i]);
    int status = 0, inside = 0, good = 0, slope = 0;
    for (int t = 0; t < 4 && !status; t++) status = sample_value(&s, e, k, at[t], f[t]);
    if (!status) status = sample_column(&s, e, k, d, &flat);
    if (status) {
        ok(0, "%s, operand %d: %s", rows[e].name, k, tn_error());
        return;
    }
    for (int i = 0; i < s.n; i++) {
        double v[4] = {f[0][i], f[1][i], f[2][i], f[3][i]}, fd = difference(v, s.h[i]);
        if (!isfinite(v[0] + v[1] + v[2] + v[3])) continue;
        inside++;
        slope += fabs(fd) > 1e-3;
        if (fabs(fd - d[i]) <= 1e-7 * (1 + fabs(fd)))
            good++;
        else
            diag("%s, operand %d at (%g, %g, %g): column %.12g, difference %.12g", rows[e].name, k,
                 s.v[0][i], s.v[1][i], s.v[2][i], d[i], fd);
    }
    ok(good == inside && inside >= s.n / 5 && (flat || rows[e].dom == RE || slope),
       "%s, operand %d: %d of %d samples agree", rows[e].name, k, good, inside);
}

static bool takes_floats(int e) { return rows[e].dom != INT && rows[e].dom != SHF; }

static void test_real(void) {
    for (int e = 0; e < TNI_EW_COUNT; e++)
        for (int k = 0; k < rows[e].arity; k++) {
            bool whole = !takes_floats(e) || rows[e].dom == LOG || rows[e].dom == CMP ||
                         rows[e].dom == TEST || (rows[e].arity == 3 && k == 0);
            if (whole)
                ok(column(e, k, TN_F64, NULL, NULL, NULL, NULL) == TNI_GRAD_ZERO,
                   "%s, operand %d: no gradient through bools and integers", rows[e].name, k);
            if (takes_floats(e) && !(rows[e].arity == 3 && k == 0)) check_real(e, k);
        }
}

/* ---- Element-wise, complex ---------------------------------------------------------------------
 */

/* All four quadrants, clear of the axes on which branch cuts lie. */
static const float zs[][2] = {{0.61f, 0.43f},  {-0.57f, 0.71f}, {-1.31f, -0.36f}, {0.33f, -1.12f},
                              {1.41f, 0.92f},  {0.84f, -0.57f}, {-0.38f, 1.63f},  {1.72f, -0.31f},
                              {-1.09f, 1.27f}, {0.45f, 0.39f}};
enum { NZ = 10, ZN = NZ * NZ };

static tn_array *z_operand(int j, int arity, const float *move, bool moved) {
    float v[ZN][2];
    for (int i = 0; i < ZN; i++) {
        const float *z = zs[j == arity - 1 && arity > 1 ? i / NZ : i % NZ];
        v[i][0] = z[0] + (j ? 0.05f : 0) + (moved ? move[0] : 0);
        v[i][1] = z[1] + (moved ? move[1] : 0);
    }
    tn_array *x = tn_array_new(v, TN_C64, TN_SHAPE(ZN));
    return arity == 3 && j == 0 ? tn_greater(tn_imag(x), tn_f32(0)) : x;
}

static int z_value(int e, int k, float re, float im, float complex *out) {
    int status = 0, n = rows[e].arity;
    TN_SCOPE {
        tn_array *in[3];
        for (int j = 0; j < n; j++) in[j] = z_operand(j, n, (float[]){re, im}, j == k);
        status = tn_read(tni_ew(e, n, in), TN_C64, out, ZN * 8);
    }
    return status;
}

static int z_column(int e, int k, float complex *out, tn_array **word) {
    int status = 0, n = rows[e].arity;
    TN_SCOPE {
        tn_array *in[3] = {NULL};
        for (int j = 0; j < n; j++) in[j] = z_operand(j, n, NULL, false);
        tn_array *d = column(e, k, TN_C64, in[0], in[1], in[2], tni_ew(e, n, in));
        *word = d;
        if (d == TNI_GRAD_ONE || d == TNI_GRAD_ZERO || d == TNI_GRAD_CONJ)
            for (int i = 0; i < ZN; i++) out[i] = d != TNI_GRAD_ZERO;
        else
            status = tn_read(tn_broadcast_to(d, TN_SHAPE(ZN)), TN_C64, out, ZN * 8);
    }
    return status;
}

/* A holomorphic function's factor is its derivative, whichever way it is taken. That of abs and
 * real is the gradient d/dx + i d/dy of their real result; that of imag, as in MLX, is
 * d/dx - i d/dy; conj has no factor but conjugates. */
static void check_complex(int e, int k) {
    static const float at[4] = {-2, -1, 1, 2}, h = 0.02f;
    static float complex f[4][ZN], g[4][ZN], d[ZN];
    tn_array *word = NULL;
    int status = z_column(e, k, d, &word), good = 0;
    for (int t = 0; t < 4 && !status; t++) {
        status = z_value(e, k, at[t] * h, 0, f[t]);
        if (!status) status = z_value(e, k, 0, at[t] * h, g[t]);
    }
    if (status) {
        ok(0, "%s, complex operand %d: %s", rows[e].name, k, tn_error());
        return;
    }
    for (int i = 0; i < ZN; i++) {
        double complex dx =
            (8.0 * ((double complex)f[2][i] - f[1][i]) - (f[3][i] - f[0][i])) / (12 * h);
        double complex dy =
            (8.0 * ((double complex)g[2][i] - g[1][i]) - (g[3][i] - g[0][i])) / (12 * h);
        double slack = 3e-4 * (1 + cabs(dx) + cabsf(f[1][i]));
        double error;
        if (word == TNI_GRAD_CONJ)
            error = cabs(dx - 1) + cabs(dy + I); /* what conjugating the cotangent undoes */
        else if (rows[e].dom == RE)
            error = cabs(creal(dx) + (e == TNI_EW_imag ? -I : I) * creal(dy) - d[i]);
        else
            error = cabs(dx - d[i]) + cabs(dy / I - d[i]);
        if (error <= slack)
            good++;
        else
            diag("%s, complex operand %d, sample %d: column %g%+gi, along x %g%+gi, along y %g%+gi",
                 rows[e].name, k, i, crealf(d[i]), cimagf(d[i]), creal(dx), cimag(dx), creal(dy),
                 cimag(dy));
    }
    ok(good == ZN, "%s, complex operand %d: %d of %d samples agree", rows[e].name, k, good, ZN);
}

static void test_complex(void) {
    for (int e = 0; e < TNI_EW_COUNT; e++)
        for (int k = rows[e].arity == 3; k < rows[e].arity; k++) {
            enum dom d = rows[e].dom;
            /* sign is not holomorphic; MLX and the table let no gradient through */
            if (d == NUM || d == SIG || d == FLT || d == RE || d == SEL)
                if (e != TNI_EW_sign) check_complex(e, k);
        }
}

/* ---- Points with a rule of their own
 * -------------------------------------------------------------- */

static void column_at(int e, int k, double a, double b, double want, const char *what) {
    double got = NAN;
    TN_SCOPE {
        tn_array *x = tn_scalar(a, TN_F64), *z = tn_scalar(b, TN_F64), *in[2] = {x, z};
        got = tn_item_f64(column(e, k, TN_F64, x, z, NULL, tni_ew(e, 2, in)));
    }
    ok(got == want, "%s (%g, want %g)", what, got, want);
}

static void test_ties(void) {
    column_at(TNI_EW_maximum, 0, 2, 2, 0, "maximum of equals: nothing to a");
    column_at(TNI_EW_maximum, 1, 2, 2, 1, "maximum of equals: all to b");
    column_at(TNI_EW_minimum, 0, 2, 2, 0, "minimum of equals: nothing to a");
    column_at(TNI_EW_minimum, 1, 2, 2, 1, "minimum of equals: all to b");
    column_at(TNI_EW_power, 0, 0, 0, 0, "0 to the power 0, base");
    column_at(TNI_EW_power, 1, 0, 2, 0, "0 squared, exponent");
    column_at(TNI_EW_power, 0, -3, 2, -6, "negative base squared");
    double got[4], want[4] = {0, 0.5, 0.5, 0};
    int status = 0;
    TN_SCOPE {
        tn_array *a = tn_array_new((double[]){1, 7, 7, 2}, TN_F64, TN_SHAPE(4));
        tn_array *d =
            red_column(TNI_RED_max, TN_F64, a, red_value(TNI_RED_max, a, TN_AXES(0)), TN_AXES(0));
        status = tn_read(d, TN_F64, got, sizeof got);
    }
    ok(!status && !memcmp(got, want, sizeof got), "max of equals: the gradient is shared");
}

/* ---- Reductions
 * ------------------------------------------------------------------------------------- */

enum { RN = 12 };
static const double rs[RN] = {0.7, -1.3, 2.1, 0.4, -0.6, 1.9, 3.2, -2.2, 0.9, 1.1, -0.8, 0.3};

/* y of the [3, 4] matrix with element j moved, broadcast back to it. */
static int red_read(int r, tn_ints axes, int j, double move, double *out) {
    int status = 0;
    TN_SCOPE {
        double v[RN];
        memcpy(v, rs, sizeof v);
        v[j] += move;
        tn_array *y = red_value(r, tn_array_new(v, TN_F64, TN_SHAPE(3, 4)), axes);
        status = tn_read(tn_broadcast_to(y, TN_SHAPE(3, 4)), TN_F64, out, sizeof v);
    }
    return status;
}

static void check_reduction(int r, tn_ints axes, const char *what) {
    double d[RN], f[4][RN];
    bool zero = false;
    int status = 0, good = 0;
    TN_SCOPE {
        tn_array *a = tn_array_new(rs, TN_F64, TN_SHAPE(3, 4));
        tn_array *c = red_column(r, TN_F64, a, red_value(r, a, axes), axes);
        zero = c == TNI_GRAD_ZERO;
        if (c == TNI_GRAD_ONE || zero)
            for (int i = 0; i < RN; i++) d[i] = c == TNI_GRAD_ONE;
        else
            status = tn_read(tn_broadcast_to(c, TN_SHAPE(3, 4)), TN_F64, d, sizeof d);
    }
    for (int j = 0; j < RN && !status; j++) {
        for (int t = 0; t < 4 && !status; t++)
            status = red_read(r, axes, j, 1e-3 * (t < 2 ? t - 2 : t - 1), f[t]);
        double v[4] = {f[0][j], f[1][j], f[2][j], f[3][j]};
        if (fabs(difference(v, 1e-3) - d[j]) <= 1e-8 * (1 + fabs(d[j])))
            good++;
        else
            diag("%s over %s, element %d: column %g, difference %g", red_names[r], what, j, d[j],
                 difference(v, 1e-3));
    }
    if (status) diag("%s", tn_error());
    ok(!status && good == RN, "%s over %s: %d of %d elements agree", red_names[r], what, good, RN);
}

static void test_reductions(void) {
    for (int r = 1; r < TNI_RED_COUNT; r++) {
        check_reduction(r, TN_AXES(0), "axis 0");
        check_reduction(r, TN_AXES(1), "axis 1");
        check_reduction(r, TN_AXES(0, 1), "both axes");
    }
}

int main(void) {
    test_real();
    test_complex();
    test_ties();
    test_reductions();
    return tap_done();
}
