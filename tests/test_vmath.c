/* Vector math: every float op of elementwise.def within 2 ULP of the C library in double, over
 * bit patterns of the whole range and dense stretches where functions are hard (zeros, poles,
 * limits of exponents, multiples of pi/2), and the same bits from every ISA, from the kernels
 * over tiles and from the vector machine, with one thread and with four.
 *
 * The reference is double libm (at most 2^-51 relative, 1e-8 of an f32 ULP). f64 and complex
 * functions are the C library's own, except the ones in test_f64 and test_c64.
 * A float row without a reference here fails the test. */
#include "base/half.h"
#include "base/thread.h"
#include "cpu/cpu_program.h"
#include "isas.h"
#include "random.h"
#include "rows.h"
#include "tap.h"
#include <complex.h>
#include <math.h>

static double unit(void) { return (double)(rnd() >> 11) * 0x1p-53; }

/* ---- References ------------------------------------------------------------------------------ */

static double r_sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
static double r_rsqrt(double x) { return 1 / sqrt(x); }
static double r_reciprocal(double x) { return 1 / x; }
static double r_degrees(double x) { return x * 57.295779513082320877; }
static double r_radians(double x) { return x * 0.017453292519943295769; }
/* Newton's method on erfc from a start that the tail's expansion gives. */
static double r_erfinv(double a) {
    double p = fabs(a), q = 1 - p;
    if (!(p < 1)) return p == 1 ? copysign(INFINITY, a) : NAN;
    if (p < 1e-6) return a * 0.88622692545275801365;
    double x = p < 0.7 ? p : sqrt(-log(q * 1.2));
    for (int i = 0; i < 60; i++) {
        double d = (p < 0.5 ? erf(x) - p : q - erfc(x)) / (1.1283791670955125739 * exp(-x * x));
        d = d / (1 + x * d); /* Halley's correction */
        x -= d;
        if (fabs(d) <= 1e-15 * x) break;
    }
    return copysign(x, a);
}
static double r_add(double a, double b) { return a + b; }
static double r_sub(double a, double b) { return a - b; }
static double r_mul(double a, double b) { return a * b; }
static double r_div(double a, double b) { return a / b; }
static double r_remainder(double a, double b) {
    double r = fmod(a, b);
    if (r != 0 && (r < 0) != (b < 0)) r += b;
    return r == 0 ? copysign(0, b) : r;
}
static double r_logaddexp(double a, double b) {
    double m = a > b ? a : b;
    if (a != a || b != b) return NAN;
    return a == b ? m + 0.69314718055994530942 : m + log1p(exp(-fabs(a - b)));
}

/* Which points matter beyond those for everybody. */
enum { P_TRIG = 1, P_POS = 2, P_UNIT = 4, P_EXP = 8 };

static const struct {
    int ew;
    double (*f)(double);
    int points;
    double limit; /* ULP */
} unary[] = {
    {TNI_EW_sqrt, sqrt, P_POS, 0.501},
    {TNI_EW_reciprocal, r_reciprocal, 0, 0.501},
    {TNI_EW_rsqrt, r_rsqrt, P_POS, 2},
    {TNI_EW_exp, exp, P_EXP, 2},
    {TNI_EW_expm1, expm1, P_EXP, 2},
    {TNI_EW_log, log, P_POS, 2},
    {TNI_EW_log2, log2, P_POS, 2},
    {TNI_EW_log10, log10, P_POS, 2},
    {TNI_EW_log1p, log1p, P_POS, 2},
    {TNI_EW_sigmoid, r_sigmoid, P_EXP, 2},
    {TNI_EW_sin, sin, P_TRIG, 2},
    {TNI_EW_cos, cos, P_TRIG, 2},
    {TNI_EW_tan, tan, P_TRIG, 2},
    {TNI_EW_arcsin, asin, P_UNIT, 2},
    {TNI_EW_arccos, acos, P_UNIT, 2},
    {TNI_EW_arctan, atan, 0, 2},
    {TNI_EW_sinh, sinh, P_EXP, 2},
    {TNI_EW_cosh, cosh, P_EXP, 2},
    {TNI_EW_tanh, tanh, P_EXP, 2},
    {TNI_EW_arcsinh, asinh, 0, 2},
    {TNI_EW_arccosh, acosh, P_POS, 2},
    {TNI_EW_arctanh, atanh, P_UNIT, 2},
    {TNI_EW_degrees, r_degrees, 0, 2},
    {TNI_EW_radians, r_radians, 0, 2},
    {TNI_EW_erf, erf, P_EXP, 2},
    /* MLX's formula term by term, of which its random normal streams are made */
    {TNI_EW_erfinv, r_erfinv, P_UNIT, 2.5},
    {TNI_EW_floor, floor, 0, 0},
    {TNI_EW_ceil, ceil, 0, 0},
    {TNI_EW_trunc, trunc, 0, 0},
    {TNI_EW_round, rint, 0, 0},
};
static const struct {
    int ew;
    double (*f)(double, double);
    double limit;
    bool cancels; /* ULPs of the larger operand: the result is a difference of large terms */
} binary[] = {
    {TNI_EW_add, r_add, 0.501, false},
    {TNI_EW_sub, r_sub, 0.501, false},
    {TNI_EW_mul, r_mul, 0.501, false},
    {TNI_EW_div, r_div, 0.501, false},
    {TNI_EW_power, pow, 2, false},
    {TNI_EW_arctan2, atan2, 2, false},
    {TNI_EW_remainder, r_remainder, 0.501, false},
    {TNI_EW_logaddexp, r_logaddexp, 2, true},
};

/* ---- Points -----------------------------------------------------------------------------------
 */

enum { POINTS_MAX = 3 << 19, PATTERNS = 1 << 20 };
static float *pa, *pb, *py, *pz;
static int64_t n_points;

static void point(float x) {
    if (n_points < POINTS_MAX) pa[n_points++] = x;
}
/* n floats that follow one another around x. */
static void points_near(double x, int n) {
    uint32_t u = tni_f32_bits((float)x);
    for (int i = -n / 2; i < n / 2; i++) point(tni_bits_f32(u + (uint32_t)i));
}
static void points_between(double lo, double hi, int n) {
    for (int i = 0; i < n; i++) point((float)(lo + (hi - lo) * unit()));
}
static void points_patterns(void) {
    for (uint32_t i = 0; i < PATTERNS; i++)
        point(tni_bits_f32((i << 12) | (uint32_t)(rnd() >> 52)));
}

static void points_unary(int kind) {
    static const double centres[] = {0,     1e-4,   0.2929, 0.4142,  0.5,    0.625,       0.7071,
                                     1,     1.4142, 2,      4,       17.3,   0x1p13,      32768,
                                     1e-38, 1e38,   1e-20,  0x1p-25, 0x1p24, 2147483648.0};
    static const double limits[] = {9.01, 18, 20, 45, 87.33, 88.72, 89.41, 91, 103.97, 104, 128};
    n_points = 0;
    points_patterns();
    for (size_t i = 0; i < sizeof centres / sizeof *centres; i++) {
        points_near(centres[i], 2048);
        points_near(-centres[i], 2048);
    }
    points_between(-1, 1, 65536);
    points_between(-10, 10, 65536);
    for (size_t i = 0; kind & P_EXP && i < sizeof limits / sizeof *limits; i++) {
        points_near(limits[i], 2048);
        points_near(-limits[i], 2048);
    }
    if (kind & P_EXP) points_between(-110, 110, 65536);
    if (kind & P_POS) points_between(0, 3, 65536), points_near(1, 65536);
    if (kind & P_UNIT) points_near(1, 65536), points_near(-1, 65536);
    if (kind & P_TRIG) {
        for (int k = 1; k <= 65536; k++) point((float)(k * 1.57079632679489661923));
        for (int k = 1; k <= 65536; k++) points_near((double)(rnd() >> 33) * 1.5707963267948966, 2);
        points_between(-40000, 40000, 65536);
    }
    point(INFINITY), point(-INFINITY), point(NAN), point(-0.0f);
}

static float any_float(void) { return tni_bits_f32((uint32_t)(rnd() >> 32)); }
static float special(void) {
    static const float s[] = {
        0.0f, -0.0f, 1,      -1,    INFINITY,      -INFINITY,       NAN,        0.5f, 2,
        3,    -3,    1e-45f, -0.5f, 3.4028235e38f, 1.17549435e-38f, 16777216.0f};
    return s[rnd() >> 60];
}
/* Pairs: bit patterns, moderate values, integers, equal magnitudes, specials; for powers also
 * results all over the range of f32. */
static void points_binary(int ew) {
    for (n_points = 0; n_points < PATTERNS + (PATTERNS >> 2); n_points++) {
        float a = any_float(), b = any_float();
        switch (rnd() >> 61) {
        case 0:
            a = special(), b = special();
            break;
        case 1:
            a = (float)(20 * unit() - 10), b = (float)(20 * unit() - 10);
            break;
        case 2:
            a = (float)(int)(rnd() >> 54) - 512, b = (float)(int)(rnd() >> 58) - 32;
            break;
        case 3:
            b = a * (float)(1 + 0x1p-22 * (double)(int)(rnd() >> 60));
            break;
        case 4:
            a = special();
            break;
        case 5:
            a = (float)exp(20 * unit() - 10);
            b = ew == TNI_EW_power ? (float)((220 * unit() - 110) / log(fabs(a))) : (float)unit();
            break;
        case 6:
            a = 1 + (float)(0.01 * unit() - 0.005), b = (float)(40000 * unit() - 20000);
            break;
        default:
            break;
        }
        pa[n_points] = a, pb[n_points] = b;
    }
}

/* ---- Measuring --------------------------------------------------------------------------------
 */

static double f32_ulp(double x) {
    int e;
    frexp(x, &e);
    return ldexp(1, (e - 1 < -126 ? -126 : e - 1 > 127 ? 127 : e - 1) - 23);
}
/* Distance in ULPs of the exact value; an infinity counts as 2^128, from where results round
 * to it; 1e9 for a NaN on one side only, or a zero of the wrong sign. */
static double ulps(float got, double want, double scale) {
    if (want != want || got != got) return (want != want) == (got != got) ? 0 : 1e9;
    if (want == 0 && got == 0) return !signbit(want) == !signbit(got) ? 0 : 1e9;
    double w = fmin(fmax(want, -0x1p128), 0x1p128), g = isinf(got) ? copysign(0x1p128, got) : got;
    return fabs(g - w) / f32_ulp(fmax(fabs(w), scale));
}

static void program_of(tni_program *p, int ew, int arity, tn_dtype d, int64_t n) {
    memset(p, 0, sizeof *p);
    p->ndim = 1;
    p->shape[0] = n;
    p->n_in = (uint16_t)arity;
    for (int i = 0; i < arity; i++) {
        p->in[i].dtype = d;
        p->in[i].strides[0] = 1;
        p->inst[i].dtype = (uint8_t)d;
        p->inst[i].a = (uint16_t)i;
    }
    p->inst[arity].op = (uint16_t)(TNI_INST_EW + ew);
    p->inst[arity].dtype = (uint8_t)d;
    p->inst[arity].b = 1;
    p->n_inst = (uint16_t)(arity + 1);
    p->n_out = 1;
    p->out[0].dtype = d;
    p->out[0].value = (uint16_t)arity;
    p->out[0].strides[0] = 1;
}

static bool same_floats(const float *a, const float *b, int64_t n, int64_t *at) {
    if (!memcmp(a, b, (size_t)n * 4)) return true;
    for (*at = 0; *at < n; ++*at) {
        float x = a[*at], y = b[*at];
        if (memcmp(&x, &y, 4) && (x == x || y == y)) return false;
    }
    return true;
}

/* The results of all ISAs, executors and numbers of threads against those of ref in py. */
static bool same_everywhere(int ew) {
    int arity = rows[ew].arity;
    tni_program p;
    program_of(&p, ew, arity, TN_F32, n_points);
    const void *in[2] = {pa, pb};
    void *out[1] = {pz};
    bool good = true;
    int64_t at = 0;
    /* Under an emulator, ref's machine is left to the native test. */
    for (int k = tap_runner()[0] != 0; k < n_isas; k++) {
        isas[k]->ew[TNI_CLS_F32][ew]((size_t)n_points, pz, pa, pb, NULL);
        for (int threads = 0; threads < 3; threads++) {
            int err = 0;
            if (threads) {
                memset(pz, 0xa5, (size_t)n_points * 4);
                err = tni_set_threads(threads == 1 ? 1 : 4);
                if (!err) err = tni_cpu_run_isa(isas[k], &p, in, out);
            }
            if (err || !same_floats(py, pz, n_points, &at)) {
                diag("%s, %s, %s: %s(%a, %a) gives %a, ref %a", rows[ew].name, isas[k]->name,
                     threads == 0   ? "kernel"
                     : threads == 1 ? "1 thread"
                                    : "4 threads",
                     rows[ew].name, pa[at], pb[at], pz[at], py[at]);
                good = false;
            }
        }
    }
    return good;
}

static void judge(int ew, double worst, int64_t at, double limit) {
    diag("%-12s %8.3f ULP  at %a%s%s", rows[ew].name, worst, pa[at], rows[ew].arity > 1 ? ", " : "",
         rows[ew].arity > 1 ? "(second operand below)" : "");
    if (rows[ew].arity > 1) diag("%-12s %12s      %a", "", "", pb[at]);
    ok(worst <= limit, "%s: at most %.3g ULP at %" PRId64 " points", rows[ew].name, limit,
       n_points);
    ok(same_everywhere(ew), "%s: the same bits on %d ISAs, 1 and 4 threads", rows[ew].name, n_isas);
}

static void test_unary(void) {
    for (size_t r = 0; r < sizeof unary / sizeof *unary; r++) {
        points_unary(unary[r].points);
        isas[0]->ew[TNI_CLS_F32][unary[r].ew]((size_t)n_points, py, pa, NULL, NULL);
        double worst = 0;
        int64_t at = 0;
        for (int64_t i = 0; i < n_points; i++) {
            double u = ulps(py[i], unary[r].f(pa[i]), 0);
            if (u > worst) worst = u, at = i;
        }
        judge(unary[r].ew, worst, at, unary[r].limit);
    }
}

static void test_binary(void) {
    for (size_t r = 0; r < sizeof binary / sizeof *binary; r++) {
        points_binary(binary[r].ew);
        isas[0]->ew[TNI_CLS_F32][binary[r].ew]((size_t)n_points, py, pa, pb, NULL);
        double worst = 0;
        int64_t at = 0;
        for (int64_t i = 0; i < n_points; i++) {
            double scale = binary[r].cancels ? fmax(fabs(pa[i]), fabs(pb[i])) : 0;
            double u = ulps(py[i], binary[r].f(pa[i], pb[i]), isfinite(scale) ? scale : 0);
            if (u > worst) worst = u, at = i;
        }
        judge(binary[r].ew, worst, at, binary[r].limit);
    }
}

static void test_coverage(void) {
    for (int e = 0; e < TNI_EW_COUNT; e++) {
        if (rows[e].dom != FLT && rows[e].dom != FLTR) continue;
        bool found = false;
        for (size_t r = 0; r < sizeof unary / sizeof *unary; r++) found |= unary[r].ew == e;
        for (size_t r = 0; r < sizeof binary / sizeof *binary; r++) found |= binary[r].ew == e;
        ok(found, "%s has a reference", rows[e].name);
    }
}

/* ---- f64 and c64: only what is not the C library's own function -------------------------------
 */

static long double l_sigmoid(double a, double b) {
    return (void)b, 1 / (1 + expl(-(long double)a));
}
static long double l_rsqrt(double a, double b) { return (void)b, 1 / sqrtl((long double)a); }
static long double l_logaddexp(double a, double b) {
    long double m = a > b ? a : b;
    return m + log1pl(expl(-fabsl((long double)a - b)));
}
static long double l_erfinv(double a, double b) {
    long double p = fabsl((long double)a), x = r_erfinv((double)p);
    for (int i = 0; i < 2; i++)
        x -= (p < 0.5L ? erfl(x) - p : 1 - p - erfcl(x)) / (1.12837916709551257390L * expl(-x * x));
    return (void)b, copysignl(x, (long double)a);
}

static void test_f64(void) {
    enum { N = 20000 };
    static double a[N], b[N], y[N], z[N];
    static const struct {
        int ew;
        long double (*f)(double, double);
        double lo, hi, limit;
    } own[] = {{TNI_EW_sigmoid, l_sigmoid, -700, 700, 3},
               {TNI_EW_rsqrt, l_rsqrt, 1e-3, 1e3, 2},
               {TNI_EW_logaddexp, l_logaddexp, -20, 20, 3},
               {TNI_EW_erfinv, l_erfinv, -1, 1, 4}};
    for (size_t r = 0; r < sizeof own / sizeof *own; r++) {
        double worst = 0, at = 0;
        bool same = true;
        for (int i = 0; i < N; i++) {
            double u = i % 2 ? unit() : pow(unit(), 12); /* half of them near the ends */
            a[i] = i % 4 < 2 ? own[r].lo + u * (own[r].hi - own[r].lo)
                             : own[r].hi - u * (own[r].hi - own[r].lo);
            b[i] = own[r].lo + unit() * (own[r].hi - own[r].lo);
        }
        isas[0]->ew[TNI_CLS_F64][own[r].ew](N, y, a, b, NULL);
        for (int k = 1; k < n_isas; k++) {
            isas[k]->ew[TNI_CLS_F64][own[r].ew](N, z, a, b, NULL);
            same = same && !memcmp(y, z, sizeof y);
        }
        for (int i = 0; i < N; i++) {
            int e;
            long double want = own[r].f(a[i], b[i]);
            double scale = own[r].ew == TNI_EW_logaddexp ? fmax(fabs(a[i]), fabs(b[i])) : 0;
            frexp(fmax(fabs((double)want), fmax(scale, 0x1p-1000)), &e);
            double u = isfinite(y[i]) || isfinite((double)want)
                           ? (double)fabsl(y[i] - want) / ldexp(1, e - 53)
                           : 0;
            if (!(u <= worst)) worst = u, at = a[i];
        }
        diag("%-12s %8.3f ULP  at %a (f64)", rows[own[r].ew].name, worst, at);
        ok(worst <= own[r].limit && same, "f64 %s", rows[own[r].ew].name);
    }
}

typedef long double _Complex lc;
static lc c_log1p(lc a, lc b) {
    (void)b;
    if (cabsl(a) >= 1e-3L) return clogl(1 + a);
    lc s = 0, t = a;
    for (int k = 1; k < 12; k++, t *= -a) s += t / k;
    return s;
}
static lc c_log2(lc a, lc b) { return (void)b, clogl(a) * 1.44269504088896340736L; }
static lc c_log10(lc a, lc b) { return (void)b, clogl(a) * 0.43429448190325182765L; }
static lc c_sign(lc a, lc b) { return (void)b, a / cabsl(a); }
static lc c_rsqrt(lc a, lc b) { return (void)b, 1 / csqrtl(a); }
static lc c_power(lc a, lc b) { return cpowl(a, b); }

/* Normwise: |got - want| in ULPs of |want|. */
static void test_c64(void) {
    enum { N = 20000 };
    static float a[2 * N], b[2 * N], y[2 * N], z[2 * N];
    static const struct {
        int ew;
        lc (*f)(lc, lc);
        double limit;
    } own[] = {{TNI_EW_log1p, c_log1p, 2}, {TNI_EW_log2, c_log2, 3},   {TNI_EW_log10, c_log10, 3},
               {TNI_EW_sign, c_sign, 2},   {TNI_EW_rsqrt, c_rsqrt, 4}, {TNI_EW_power, c_power, 2}};
    for (size_t r = 0; r < sizeof own / sizeof *own; r++) {
        double worst = 0;
        int at = 0;
        bool same = true;
        for (int i = 0; i < 2 * N; i++) {
            a[i] = (float)((unit() - 0.5) * exp(12 * unit() - 8));
            b[i] = (float)(6 * unit() - 3);
        }
        isas[0]->ew[TNI_CLS_C64][own[r].ew](N, y, a, b, NULL);
        for (int k = 1; k < n_isas; k++) {
            isas[k]->ew[TNI_CLS_C64][own[r].ew](N, z, a, b, NULL);
            same = same && !memcmp(y, z, sizeof y);
        }
        for (int i = 0; i < N; i++) {
            lc u = a[2 * i] + (long double)a[2 * i + 1] * I,
               v = b[2 * i] + (long double)b[2 * i + 1] * I;
            lc want = own[r].f(u, v), got = y[2 * i] + (long double)y[2 * i + 1] * I;
            double e = (double)(cabsl(got - want)) / f32_ulp((double)cabsl(want));
            if (!(e <= worst)) worst = e, at = i;
        }
        diag("%-12s %8.3f ULP  at %a + %a i (c64, of the modulus)", rows[own[r].ew].name, worst,
             a[2 * at], a[2 * at + 1]);
        ok(worst <= own[r].limit && same, "c64 %s", rows[own[r].ew].name);
    }
}

/* Every op of the classes f64 and c64: the same bits from every ISA, libm's functions included. */
static void test_wide_isas(void) {
    enum { N = 4099 };
    static double a[N], b[N], y[N], z[N];
    for (int cls = TNI_CLS_F64; cls <= TNI_CLS_C64; cls++) {
        int ops = 0, bad = 0;
        for (int i = 0; i < N; i++) {
            float t[2] = {(float)(8 * unit() - 4), (float)(8 * unit() - 4)};
            a[i] = 8 * unit() - 4, b[i] = 8 * unit() - 4;
            if (cls == TNI_CLS_C64) memcpy(&a[i], t, 8), t[0] += 1, memcpy(&b[i], t, 8);
        }
        for (int e = 0; e < TNI_EW_COUNT; e++) {
            if (!isas[0]->ew[cls][e] || rows[e].arity > 2) continue;
            ops++;
            memset(y, 0, sizeof y);
            isas[0]->ew[cls][e](N, y, a, b, NULL);
            for (int k = 1; k < n_isas; k++) {
                memset(z, 0, sizeof z);
                isas[k]->ew[cls][e](N, z, a, b, NULL);
                bool same = true;
                for (int i = 0; i < N && same; i++) {
                    float u[2], v[2];
                    memcpy(u, &y[i], 8), memcpy(v, &z[i], 8);
                    bool nan = cls == TNI_CLS_F64 ? y[i] != y[i] && z[i] != z[i]
                                                  : (u[0] != u[0] || !memcmp(u, v, 4)) &&
                                                        (u[1] != u[1] || !memcmp(u + 1, v + 1, 4));
                    same = nan || !memcmp(&y[i], &z[i], 8);
                }
                if (!same) bad++, diag("%s differs on %s", rows[e].name, isas[k]->name);
            }
        }
        ok(!bad, "%s: %d ops give the same bits on every ISA", cls == TNI_CLS_F64 ? "f64" : "c64",
           ops);
    }
}

int main(void) {
    find_isas();
    pa = malloc(POINTS_MAX * sizeof *pa);
    pb = calloc(POINTS_MAX, sizeof *pb);
    py = malloc(POINTS_MAX * sizeof *py);
    pz = malloc(POINTS_MAX * sizeof *pz);
    if (!pa || !pb || !py || !pz) return 1;
    for (int k = 0; k < n_isas; k++) diag("ISA: %s", isas[k]->name);
    test_coverage();
    test_unary();
    test_binary();
    test_f64();
    test_c64();
    test_wide_isas();
    free(pa), free(pb), free(py), free(pz);
    tni_pool_shutdown();
    return tap_done();
}
