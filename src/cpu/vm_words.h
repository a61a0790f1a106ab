/* What the words of elementwise.def mean in each class of values. v_word(x) becomes
 * w_word_CLS(x) for the class being expanded. Operands are unsigned in the signed integer
 * classes (so that + - * wrap), vf in f32, plain C types elsewhere. */
#ifndef TNI_CPU_VM_WORDS_H
#define TNI_CPU_VM_WORDS_H

#include "cpu/vmath.h"
#include <complex.h>
#undef I

#define W_CAT_(a, b) a##b
#define W_CAT(a, b)  W_CAT_(a, b)
#define W_(word)     W_CAT(w_##word##_, CLS)

#define v_num(x)             W_(num)(x)
#define v_abs(a)             W_(abs)(a)
#define v_sign(a)            W_(sign)(a)
#define v_sqrt(a)            W_(sqrt)(a)
#define v_exp(a)             W_(exp)(a)
#define v_expm1(a)           W_(expm1)(a)
#define v_log(a)             W_(log)(a)
#define v_log2(a)            W_(log2)(a)
#define v_log10(a)           W_(log10)(a)
#define v_log1p(a)           W_(log1p)(a)
#define v_logaddexp(a, b)    W_(logaddexp)(a, b)
#define v_sigmoid(a)         W_(sigmoid)(a)
#define v_sin(a)             W_(sin)(a)
#define v_cos(a)             W_(cos)(a)
#define v_tan(a)             W_(tan)(a)
#define v_arcsin(a)          W_(arcsin)(a)
#define v_arccos(a)          W_(arccos)(a)
#define v_arctan(a)          W_(arctan)(a)
#define v_arctan2(a, b)      W_(arctan2)(a, b)
#define v_sinh(a)            W_(sinh)(a)
#define v_cosh(a)            W_(cosh)(a)
#define v_tanh(a)            W_(tanh)(a)
#define v_arcsinh(a)         W_(arcsinh)(a)
#define v_arccosh(a)         W_(arccosh)(a)
#define v_arctanh(a)         W_(arctanh)(a)
#define v_erf(a)             W_(erf)(a)
#define v_erfinv(a)          W_(erfinv)(a)
#define v_floor(a)           W_(floor)(a)
#define v_ceil(a)            W_(ceil)(a)
#define v_trunc(a)           W_(trunc)(a)
#define v_round(a)           W_(round)(a)
#define v_real(a)            W_(real)(a)
#define v_imag(a)            W_(imag)(a)
#define v_conj(a)            W_(conj)(a)
#define v_eq(a, b)           W_(eq)(a, b)
#define v_ne(a, b)           W_(ne)(a, b)
#define v_lt(a, b)           W_(lt)(a, b)
#define v_le(a, b)           W_(le)(a, b)
#define v_isnan(a)           W_(isnan)(a)
#define v_isinf(a)           W_(isinf)(a)
#define v_isfinite(a)        W_(isfinite)(a)
#define v_isposinf(a)        W_(isposinf)(a)
#define v_isneginf(a)        W_(isneginf)(a)
#define v_lnot(a)            W_(lnot)(a)
#define v_land(a, b)         W_(land)(a, b)
#define v_lor(a, b)          W_(lor)(a, b)
#define v_lxor(a, b)         W_(lxor)(a, b)
#define v_not(a)             W_(not )(a)
#define v_shl(a, b)          W_(shl)(a, b)
#define v_shr(a, b)          W_(shr)(a, b)
#define v_select(a, b, c)    W_(select)(a, b, c)
#define v_floor_divide(a, b) W_(floor_divide)(a, b)
#define v_remainder(a, b)    W_(remainder)(a, b)
#define v_power(a, b)        W_(power)(a, b)
#define v_max(a, b)          W_(max)(a, b)
#define v_min(a, b)          W_(min)(a, b)

/* ---- f32: vectors ---------------------------------------------------------------------- */
#define w_num_f32(x)      vf_set((float)(x))
#define w_abs_f32         vf_abs
#define w_sign_f32        vf_sign
#define w_sqrt_f32        vf_sqrt
#define w_exp_f32         vf_exp
#define w_expm1_f32       vf_expm1
#define w_log_f32         vf_log
#define w_log2_f32        vf_log2
#define w_log10_f32       vf_log10
#define w_log1p_f32       vf_log1p
#define w_logaddexp_f32   vf_logaddexp
#define w_sigmoid_f32     vf_sigmoid
#define w_sin_f32         vf_sin
#define w_cos_f32         vf_cos
#define w_tan_f32         vf_tan
#define w_arcsin_f32      vf_asin
#define w_arccos_f32      vf_acos
#define w_arctan_f32      vf_atan
#define w_arctan2_f32     vf_atan2
#define w_sinh_f32        vf_sinh
#define w_cosh_f32        vf_cosh
#define w_tanh_f32        vf_tanh
#define w_arcsinh_f32     vf_asinh
#define w_arccosh_f32     vf_acosh
#define w_arctanh_f32     vf_atanh
#define w_erf_f32         vf_erf
#define w_erfinv_f32      vf_erfinv
#define w_floor_f32       vf_floor
#define w_ceil_f32        vf_ceil
#define w_trunc_f32       vf_trunc
#define w_round_f32       vf_rint
#define w_real_f32(a)     (a)
#define w_imag_f32(a)     vf_set(0.0f)
#define w_conj_f32(a)     (a)
#define w_eq_f32(a, b)    vf_of_mask(vf_eq(a, b))
#define w_ne_f32(a, b)    vf_of_mask(vf_ne(a, b))
#define w_lt_f32(a, b)    vf_of_mask(vf_lt(a, b))
#define w_le_f32(a, b)    vf_of_mask(vf_le(a, b))
#define w_isnan_f32(a)    vf_of_mask(vf_isnan(a))
#define w_isinf_f32(a)    vf_of_mask(vf_eq(vf_abs(a), vf_set(INFINITY)))
#define w_isfinite_f32(a) vf_of_mask(vf_lt(vf_abs(a), vf_set(INFINITY)))
#define w_isposinf_f32(a) vf_of_mask(vf_eq(a, vf_set(INFINITY)))
#define w_isneginf_f32(a) vf_of_mask(vf_eq(a, vf_set(-INFINITY)))
/* bool held as 0 or 1 */
#define w_lnot_f32(a)            vf_of_mask(vf_eq(a, vf_set(0.0f)))
#define w_land_f32(a, b)         ((a) * (b))
#define w_lor_f32(a, b)          vf_gtsel(a, b)
#define w_lxor_f32(a, b)         vf_of_mask(vf_ne(a, b))
#define w_select_f32(a, b, c)    vf_sel(vf_ne(a, vf_set(0.0f)), b, c)
#define w_floor_divide_f32(a, b) vf_floor((a) / (b))
#define w_remainder_f32          vf_remainder
#define w_power_f32              vf_pow
#define w_max_f32                vf_max
#define w_min_f32                vf_min

/* ---- f64: the C library's functions ------------------------------------------------------ */
#define w_num_f64(x) ((double)(x))
#define w_abs_f64    fabs
V_FN double w_sign_f64(double a) { return (double)(a > 0) - (double)(a < 0); }
#define w_sqrt_f64  sqrt
#define w_exp_f64   exp
#define w_expm1_f64 expm1
#define w_log_f64   log
#define w_log2_f64  log2
#define w_log10_f64 log10
#define w_log1p_f64 log1p
V_FN double w_max_f64(double a, double b) { return a != a || a > b ? a : b; }
V_FN double w_min_f64(double a, double b) { return a != a || a < b ? a : b; }
V_FN double w_logaddexp_f64(double a, double b) {
    double m = w_max_f64(a, b);
    if (a == b) return m + 0.69314718055994530942;
    return m != m ? m : m + log1p(exp(-fabs(a - b)));
}
V_FN double w_sigmoid_f64(double a) {
    double e = exp(-fabs(a));
    return (a < 0 ? e : 1.0) / (1.0 + e);
}
#define w_sin_f64     sin
#define w_cos_f64     cos
#define w_tan_f64     tan
#define w_arcsin_f64  asin
#define w_arccos_f64  acos
#define w_arctan_f64  atan
#define w_arctan2_f64 atan2
#define w_sinh_f64    sinh
#define w_cosh_f64    cosh
#define w_tanh_f64    tanh
#define w_arcsinh_f64 asinh
#define w_arccosh_f64 acosh
#define w_arctanh_f64 atanh
#define w_erf_f64     erf
/* A rough start (Winitzki's closed form), then Halley steps on erfc, whose tail keeps its digits.
 */
static inline double w_erfinv_f64(double a) {
    double p = fabs(a), q = 1.0 - p;
    if (!(p < 1.0)) return p == 1.0 ? copysign(INFINITY, a) : NAN;
    if (p < 1e-8) return a * 0.88622692545275801365;
    double l = log1p(-p * p), u = 4.33074675 + 0.5 * l;
    double x = sqrt(sqrt(u * u - l * (1.0 / 0.147)) - u);
    for (int i = 0; i < 3; i++) {
        double f = p < 0.5 ? erf(x) - p : q - erfc(x);
        double d = f / (1.12837916709551257390 * exp(-x * x));
        x -= d / (1.0 + x * d);
    }
    return copysign(x, a);
}
#define w_floor_f64              floor
#define w_ceil_f64               ceil
#define w_trunc_f64              trunc
#define w_round_f64              rint
#define w_real_f64(a)            (a)
#define w_imag_f64(a)            ((void)(a), 0.0)
#define w_conj_f64(a)            (a)
#define w_isnan_f64(a)           ((a) != (a))
#define w_isinf_f64(a)           (fabs(a) == INFINITY)
#define w_isfinite_f64(a)        (fabs(a) < INFINITY)
#define w_isposinf_f64(a)        ((a) == INFINITY)
#define w_isneginf_f64(a)        ((a) == -INFINITY)
#define w_floor_divide_f64(a, b) floor((a) / (b))
V_FN double w_remainder_f64(double a, double b) {
    double r = fmod(a, b);
    if (r != 0 && (r < 0) != (b < 0)) r += b;
    return r == 0 ? copysign(0.0, b) : r;
}
#define w_power_f64           pow
#define w_eq_f64(a, b)        ((a) == (b))
#define w_ne_f64(a, b)        ((a) != (b))
#define w_lt_f64(a, b)        ((a) < (b))
#define w_le_f64(a, b)        ((a) <= (b))
#define w_select_f64(a, b, c) ((a) ? (b) : (c))

/* ---- c64 ----------------------------------------------------------------------------------- */
typedef float _Complex v_c64;
V_FN v_c64 v_c64_of(float re, float im) { return __builtin_complex(re, im); }
V_FN v_c64 v_c64_ofd(double _Complex z) { return v_c64_of((float)creal(z), (float)cimag(z)); }
#define w_num_c64(x) v_c64_of((float)(x), 0.0f)
#define w_abs_c64    cabsf
V_FN v_c64 w_sign_c64(v_c64 a) {
    float m = cabsf(a);
    return m == 0 ? v_c64_of(0, 0) : v_c64_of(crealf(a) / m, cimagf(a) / m);
}
#define w_sqrt_c64     csqrtf
#define w_exp_c64      cexpf
#define w_log_c64      clogf
#define w_log2_c64(a)  (clogf(a) * 1.4426950408889634f)
#define w_log10_c64(a) (clogf(a) * 0.4342944819032518f)
/* |1 + z|^2 - 1 = x (2 + x) + y^2, free of cancellation in double */
static inline v_c64 w_log1p_c64(v_c64 a) {
    double x = crealf(a), y = cimagf(a);
    double re =
        fabs(x) < 1e15 && fabs(y) < 1e15 ? 0.5 * log1p(x * (2 + x) + y * y) : log(hypot(1 + x, y));
    return v_c64_of((float)re, (float)atan2(y, 1 + x));
}
#define w_sin_c64     csinf
#define w_cos_c64     ccosf
#define w_tan_c64     ctanf
#define w_arcsin_c64  casinf
#define w_arccos_c64  cacosf
#define w_arctan_c64  catanf
#define w_sinh_c64    csinhf
#define w_cosh_c64    ccoshf
#define w_tanh_c64    ctanhf
#define w_arcsinh_c64 casinhf
#define w_arccosh_c64 cacoshf
#define w_arctanh_c64 catanhf
V_FN v_c64 w_round_c64(v_c64 a) { return v_c64_of(rintf(crealf(a)), rintf(cimagf(a))); }
#define w_real_c64 crealf
#define w_imag_c64 cimagf
#define w_conj_c64 conjf
V_FN bool w_isnan_c64(v_c64 a) { return crealf(a) != crealf(a) || cimagf(a) != cimagf(a); }
V_FN bool w_isinf_c64(v_c64 a) {
    return fabsf(crealf(a)) == INFINITY || fabsf(cimagf(a)) == INFINITY;
}
V_FN bool w_isfinite_c64(v_c64 a) {
    return fabsf(crealf(a)) < INFINITY && fabsf(cimagf(a)) < INFINITY;
}
V_FN bool w_isposinf_c64(v_c64 a) { return crealf(a) == INFINITY && cimagf(a) == 0; }
V_FN bool w_isneginf_c64(v_c64 a) { return crealf(a) == -INFINITY && cimagf(a) == 0; }
#define w_eq_c64(a, b) ((a) == (b))
#define w_ne_c64(a, b) ((a) != (b))
V_FN bool w_lt_c64(v_c64 a, v_c64 b) {
    return crealf(a) < crealf(b) || (crealf(a) == crealf(b) && cimagf(a) < cimagf(b));
}
V_FN bool w_le_c64(v_c64 a, v_c64 b) {
    return crealf(a) < crealf(b) || (crealf(a) == crealf(b) && cimagf(a) <= cimagf(b));
}
V_FN v_c64 w_max_c64(v_c64 a, v_c64 b) {
    return w_isnan_c64(a) || (!w_isnan_c64(b) && w_lt_c64(b, a)) ? a : b;
}
V_FN v_c64 w_min_c64(v_c64 a, v_c64 b) {
    return w_isnan_c64(a) || (!w_isnan_c64(b) && w_lt_c64(a, b)) ? a : b;
}
#define w_select_c64(a, b, c) ((a) ? (b) : (c))
/* In double: exp(b log a) loses as many digits as b log a has before the point. */
static inline v_c64 w_power_c64(v_c64 a, v_c64 b) {
    if (b == 0) return v_c64_of(1, 0);
    if (a == 0)
        return crealf(b) > 0 ? v_c64_of(0, 0) : v_c64_of(crealf(b) < 0 ? INFINITY : NAN, NAN);
    if (b == 1) return a;
    return v_c64_ofd(cpow((double _Complex)a, (double _Complex)b));
}

/* ---- Integers ---------------------------------------------------------------------------------
 */
#define W_INTS(cls, T, U, is_signed)                                                               \
    V_FN U w_sign_##cls(U a) { return (U)((T)a > 0) - (U)((T)a < 0); }                             \
    V_FN U w_abs_##cls(U a) { return (T)a < 0 ? (U)(0 - a) : a; }                                  \
    V_FN U w_floor_divide_##cls(U a, U b) {                                                        \
        if (b == 0) return 0;                                                                      \
        if ((is_signed) && b == (U)-1) return (U)(0 - a);                                          \
        T q = (T)a / (T)b, r = (T)a % (T)b;                                                        \
        return (U)q - (U)(r != 0 && (r < 0) != ((T)b < 0));                                        \
    }                                                                                              \
    V_FN U w_remainder_##cls(U a, U b) {                                                           \
        if (b == 0 || ((is_signed) && b == (U)-1)) return 0;                                       \
        T r = (T)a % (T)b;                                                                         \
        return (U)r + (r != 0 && (r < 0) != ((T)b < 0) ? b : 0);                                   \
    }                                                                                              \
    static inline U w_power_##cls(U a, U b) {                                                      \
        if ((T)b < 0) return a == 1 ? 1 : a == (U)-1 ? (b & 1 ? a : 1) : 0;                        \
        U y = 1;                                                                                   \
        for (; b; b >>= 1, a *= a)                                                                 \
            if (b & 1) y *= a;                                                                     \
        return y;                                                                                  \
    }                                                                                              \
    V_FN U w_max_##cls(U a, U b) { return (T)a > (T)b ? a : b; }                                   \
    V_FN U w_min_##cls(U a, U b) { return (T)a < (T)b ? a : b; }                                   \
    V_FN bool w_eq_##cls(U a, U b) { return a == b; }                                              \
    V_FN bool w_ne_##cls(U a, U b) { return a != b; }                                              \
    V_FN bool w_lt_##cls(U a, U b) { return (T)a < (T)b; }                                         \
    V_FN bool w_le_##cls(U a, U b) { return (T)a <= (T)b; }                                        \
    V_FN U w_not_##cls(U a) { return ~a; }                                                         \
    V_FN U w_shl_##cls(U a, U b) { return b < sizeof(U) * 8 ? (U)(a << b) : 0; }                   \
    V_FN U w_shr_##cls(U a, U b) {                                                                 \
        return (U)((T)a >> (b < sizeof(U) * 8 - ((is_signed) ? 1 : 0) ? b : sizeof(U) * 8 - 1)) &  \
               (U)(0 - (U)((is_signed) || b < sizeof(U) * 8));                                     \
    }                                                                                              \
    V_FN U w_select_##cls(uint8_t a, U b, U c) { return a ? b : c; }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtype-limits" /* the unsigned classes are never < 0 */
W_INTS(i32, int32_t, uint32_t, 1)
W_INTS(u32, uint32_t, uint32_t, 0)
W_INTS(i64, int64_t, uint64_t, 1)
W_INTS(u64, uint64_t, uint64_t, 0)
#pragma GCC diagnostic pop
#undef W_INTS
#define w_num_i32(x) ((uint32_t)(int32_t)(x))
#define w_num_u32(x) ((uint32_t)(x))
#define w_num_i64(x) ((uint64_t)(int64_t)(x))
#define w_num_u64(x) ((uint64_t)(x))

/* bool: the result of arithmetic is made 0 or 1 by the kernel */
#define w_num_b(x) ((uint8_t)((x) != 0))
V_FN uint8_t w_sign_b(uint8_t a) { return a; }
V_FN uint8_t w_abs_b(uint8_t a) { return a; }
V_FN uint8_t w_floor_divide_b(uint8_t a, uint8_t b) { return a & b; }
V_FN uint8_t w_remainder_b(uint8_t a, uint8_t b) { return (void)a, (void)b, 0; }
V_FN uint8_t w_power_b(uint8_t a, uint8_t b) { return a | !b; }
V_FN uint8_t w_max_b(uint8_t a, uint8_t b) { return a | b; }
V_FN uint8_t w_min_b(uint8_t a, uint8_t b) { return a & b; }
V_FN uint8_t w_eq_b(uint8_t a, uint8_t b) { return a == b; }
V_FN uint8_t w_ne_b(uint8_t a, uint8_t b) { return a != b; }
V_FN uint8_t w_lt_b(uint8_t a, uint8_t b) { return a < b; }
V_FN uint8_t w_le_b(uint8_t a, uint8_t b) { return a <= b; }
V_FN uint8_t w_not_b(uint8_t a) { return !a; }
V_FN uint8_t w_lnot_b(uint8_t a) { return !a; }
V_FN uint8_t w_land_b(uint8_t a, uint8_t b) { return a & b; }
V_FN uint8_t w_lor_b(uint8_t a, uint8_t b) { return a | b; }
V_FN uint8_t w_lxor_b(uint8_t a, uint8_t b) { return a ^ b; }
V_FN uint8_t w_select_b(uint8_t a, uint8_t b, uint8_t c) { return a ? b : c; }

/* Rounding, parts and tests of what is already a whole and real number. */
#define W_WHOLE(cls, U)                                                                            \
    V_FN U w_floor_##cls(U a) { return a; }                                                        \
    V_FN U w_ceil_##cls(U a) { return a; }                                                         \
    V_FN U w_trunc_##cls(U a) { return a; }                                                        \
    V_FN U w_round_##cls(U a) { return a; }                                                        \
    V_FN U w_real_##cls(U a) { return a; }                                                         \
    V_FN U w_conj_##cls(U a) { return a; }                                                         \
    V_FN U w_imag_##cls(U a) { return (void)a, 0; }                                                \
    V_FN bool w_isnan_##cls(U a) { return (void)a, 0; }                                            \
    V_FN bool w_isinf_##cls(U a) { return (void)a, 0; }                                            \
    V_FN bool w_isposinf_##cls(U a) { return (void)a, 0; }                                         \
    V_FN bool w_isneginf_##cls(U a) { return (void)a, 0; }                                         \
    V_FN bool w_isfinite_##cls(U a) { return (void)a, 1; }
W_WHOLE(b, uint8_t)
W_WHOLE(i32, uint32_t)
W_WHOLE(u32, uint32_t)
W_WHOLE(i64, uint64_t)
W_WHOLE(u64, uint64_t)
#undef W_WHOLE

#endif
