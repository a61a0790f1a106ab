/* Elementary functions on vectors of f32 (and, compiled for ref, on one float): at most
 * 2 ULP, the same bits on every ISA, IEEE special values throughout. For *_isa.c files.
 *
 * Every polynomial was fitted for this file (weighted least squares driven towards the
 * minimax by Lawson's iteration, coefficients rounded to f32 one by one with the rest refitted);
 * the comment at each gives its interval and its relative error before rounding of the
 * arithmetic. tests/test_vmath.c measures the ULPs over 1.2 to 1.5 million points a function:
 *   exp 1.0 · expm1 1.4 · log 0.8 · log2, log10 1.1 · log1p 0.9 · sin, cos 0.8 · tan 1.2
 *   asin 0.6 · acos 1.1 · atan 1.2 · atan2 1.4 · sinh 1.6 · cosh 1.4 · tanh 1.3 · asinh 1.1
 *   acosh 1.1 · atanh 1.0 · erf 1.1 · sigmoid 1.5 · power 0.9; sqrt and 1 / x are IEEE operations,
 * logaddexp 1.9 of the larger operand's. erfinv is MLX's formula (2.4 ULP), because its random
 * normal streams are made of it.
 */
#ifndef TNI_CPU_VMATH_H
#define TNI_CPU_VMATH_H

#include "cpu/simd.h"

/* Horner's rule, coefficients from the constant term upwards. */
#define V_P1(z, a)       vf_set(a)
#define V_P2(z, a, ...)  vf_fma(z, V_P1(z, __VA_ARGS__), vf_set(a))
#define V_P3(z, a, ...)  vf_fma(z, V_P2(z, __VA_ARGS__), vf_set(a))
#define V_P4(z, a, ...)  vf_fma(z, V_P3(z, __VA_ARGS__), vf_set(a))
#define V_P5(z, a, ...)  vf_fma(z, V_P4(z, __VA_ARGS__), vf_set(a))
#define V_P6(z, a, ...)  vf_fma(z, V_P5(z, __VA_ARGS__), vf_set(a))
#define V_P7(z, a, ...)  vf_fma(z, V_P6(z, __VA_ARGS__), vf_set(a))
#define V_P8(z, a, ...)  vf_fma(z, V_P7(z, __VA_ARGS__), vf_set(a))
#define V_P9(z, a, ...)  vf_fma(z, V_P8(z, __VA_ARGS__), vf_set(a))
#define V_P10(z, a, ...) vf_fma(z, V_P9(z, __VA_ARGS__), vf_set(a))

#define V_LOG2E  0x1.715476p+0f
#define V_LN2_HI 0x1.62e43p-1f /* ln 2 = HI + LO to 48 bits */
#define V_LN2_LO -0x1.05c61p-29f

/* ---- exp and its family ------------------------------------------------------------- */

/* x = k ln 2 + r with |r| <= 0.3466, for |x| < 2^16. */
V_FN vf v_exp_reduce(vf x, vf *k) {
    *k = vf_rint(x * vf_set(V_LOG2E));
    vf r = vf_fnma(*k, vf_set(V_LN2_HI), x);
    return vf_fnma(*k, vf_set(V_LN2_LO), r);
}
/* exp(r) - 1 = r + r^2 q(r), |r| <= 0.3477: degree 6, 2^-28; degree 7, 2^-31. */
V_FN vf v_exp_poly(vf r) {
    vf q = V_P5(r, 0x1.fffffcp-2f, 0x1.55549p-3f, 0x1.5558b4p-5f, 0x1.123afep-7f, 0x1.6a4be6p-10f);
    return vf_fma(r * r, q, r);
}
V_FN vf v_expm1_poly(vf r) {
    vf q = V_P6(r, 0x1p-1f, 0x1.555556p-3f, 0x1.5554f4p-5f, 0x1.110ffcp-7f, 0x1.6d3f3cp-10f,
                0x1.a254ecp-13f);
    return vf_fma(r * r, q, r);
}
/* exp(x) * 2^shift, shift 0 or -1; NaN stays. The clamp bounds k and still gives 0 and inf. */
V_FN vf v_exp_shift(vf x, float shift) {
    vf k, c = vf_ltsel(vf_set(91.0f), vf_gtsel(vf_set(-104.0f), x));
    vf r = v_exp_reduce(c, &k);
    return vf_ldexp(v_exp_poly(r) + vf_set(1.0f), k + vf_set(shift));
}
V_FN vf vf_exp(vf x) { return v_exp_shift(x, 0.0f); }

V_FN vf vf_expm1(vf x) {
    vf k, c = vf_ltsel(vf_set(89.0f), vf_gtsel(vf_set(-18.0f), x));
    vf p = v_expm1_poly(v_exp_reduce(c, &k));
    /* 2^k (1 + p) - 1; halved so that k = 128 stays finite until the end. */
    vf s = vf_ldexp(vf_set(0.5f), k);
    vf y = vf_fma(s, p, s - vf_set(0.5f));
    y = y + y;
    return vf_sel(vf_eq(k, vf_set(0.0f)), vf_sel(vf_eq(x, vf_set(0.0f)), x, p), y);
}
/* e / (1 + e) or 1 / (1 + e), e = exp(-|x|), with the rounding of 1 + e and of the quotient undone.
 */
V_FN vf vf_sigmoid(vf x) {
    vf e = vf_exp(vf_neg(vf_abs(x))), one = vf_set(1.0f), d = one + e, lost = e - (d - one);
    vf n = vf_sel(vf_lt(x, vf_set(0.0f)), e, one), q = one / d, y = n * q;
    return vf_fma(vf_fnma(y, lost, vf_fnma(y, d, n)), q, y);
}
/* |x| < 0.625: x + x^3 P(x^2), 2^-32; else 1 - 2 / (exp(2|x|) + 1). */
V_FN vf vf_tanh(vf x) {
    vf a = vf_abs(x), z = x * x;
    vf p = V_P6(z, -0x1.555554p-2f, 0x1.11107cp-3f, -0x1.b9f22p-5f, 0x1.63ad1ap-6f, -0x1.0c8978p-7f,
                0x1.1aceep-9f);
    vf small = vf_fma(x * z, p, x);
    vf e = vf_exp(vf_ltsel(vf_set(20.0f), a + a));
    vf big = vf_set(1.0f) - vf_set(2.0f) / (e + vf_set(1.0f));
    vf y = vf_sel(vf_lt(a, vf_set(0.625f)), small, vf_copysign(big, x));
    return vf_sel(vf_isnan(x), x, vf_copysign(y, x));
}
/* |x| < 1: x + x^3 P(x^2), 2^-31; else (e^x - e^-x) / 2 with the halving inside the exponent. */
V_FN vf vf_sinh(vf x) {
    vf a = vf_abs(x), z = x * x;
    vf small =
        vf_fma(x * z, V_P4(z, 0x1.555556p-3f, 0x1.1110e2p-7f, 0x1.a02158p-13f, 0x1.75a66p-19f), x);
    vf h = v_exp_shift(a, -1.0f);
    vf big = vf_copysign(h - vf_set(0.25f) / h, x);
    return vf_sel(vf_lt(a, vf_set(1.0f)), small, big);
}
V_FN vf vf_cosh(vf x) {
    vf h = v_exp_shift(vf_abs(x), -1.0f);
    return h + vf_set(0.25f) / h;
}

/* ---- Logarithms ------------------------------------------------------------------------ */

/* x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); subnormals are scaled first. x finite, > 0. */
V_FN vf v_log_split(vf x, vf *k) {
    vm tiny = vf_lt(x, vf_set(0x1p-126f));
    vu u = vf_bits(vf_sel(tiny, x * vf_set(0x1p24f), x)) - vu_set(0x3f3504f3u);
    *k = vf_of_i(vi_sar(vi_of_u(u), 23)) - vf_sel(tiny, vf_set(24.0f), vf_set(0.0f));
    return vf_of_bits((u & vu_set(0x7fffffu)) + vu_set(0x3f3504f3u)) - vf_set(1.0f);
}
/* (log(1 + f) - f + f^2 / 2) / f^3 on [-0.293, 0.415], 2^-28. */
V_FN vf v_log_poly(vf f) {
    return V_P9(f, 0x1.555548p-2f, -0x1.000008p-2f, 0x1.99a478p-3f, -0x1.555b8cp-3f, 0x1.233af6p-3f,
                -0x1.fc3e4p-4f, 0x1.e6dd2ep-4f, -0x1.dd98ep-4f, 0x1.13bd72p-4f);
}
/* log of 2^k (1 + f + c), c a correction below f's last bit. */
V_FN vf v_log_finish(vf f, vf c, vf k) {
    vf t = vf_fma(f * f, vf_fma(f, v_log_poly(f), vf_set(-0.5f)), vf_fma(k, vf_set(V_LN2_LO), c));
    return vf_fma(k, vf_set(V_LN2_HI), f + t);
}
V_FN vf v_log_special(vf y, vf x) { /* log's values at inf, 0, below 0 and NaN */
    y = vf_sel(vf_eq(x, vf_set(INFINITY)), x, y);
    y = vf_sel(vf_eq(x, vf_set(0.0f)), vf_set(-INFINITY), y);
    return vf_sel(vf_le(vf_set(0.0f), x), y, vf_set(NAN));
}
V_FN vf vf_log(vf x) {
    vf k, f = v_log_split(x, &k);
    return v_log_special(v_log_finish(f, vf_set(0.0f), k), x);
}
/* k * base2 + log(1 + f) * scale, both constants in two parts: f * scale is kept in two parts
 * and added to k * base2 with the rounding error of the sum. */
V_FN vf v_log_base(vf x, float base_hi, float base_lo, float hi, float lo) {
    vf k, f = v_log_split(x, &k);
    vf g = f * f * vf_fma(f, v_log_poly(f), vf_set(-0.5f));
    vf t = f * vf_set(hi), e = vf_fms(f, vf_set(hi), t);
    e = vf_fma(f, vf_set(lo), e) + g * vf_set(hi);
    vf b = k * vf_set(base_hi), s = b + t;
    vf be = vf_fma(k, vf_set(base_lo), vf_fms(k, vf_set(base_hi), b));
    vf d = s - b, se = (b - (s - d)) + (t - d); /* two-sum */
    return v_log_special(s + (se + (be + e)), x);
}
V_FN vf vf_log2(vf x) { return v_log_base(x, 1.0f, 0.0f, 0x1.715476p+0f, 0x1.4ae0cp-26f); }
V_FN vf vf_log10(vf x) {
    return v_log_base(x, 0x1.344136p-2f, -0x1.ec10cp-27f, 0x1.bcb7b2p-2f, -0x1.5b235ep-27f);
}
/* log(hi + lo) with hi in [2^-126, inf), |lo| at most an ULP or so of hi. */
V_FN vf v_log_two(vf hi, vf lo) {
    vf k, f = v_log_split(hi, &k);
    vf c = lo * (f + vf_set(1.0f)) / hi;
    vf s = f + c; /* two-sum: |f| may be smaller than c near hi = 1 */
    vf d = s - f, e = (f - (s - d)) + (c - d);
    return v_log_finish(s, e, k);
}
V_FN vf v_two_sum(vf a, vf b, vf *e) {
    vf s = a + b, d = s - a;
    *e = (a - (s - d)) + (b - d);
    return s;
}
V_FN vf vf_log1p(vf x) {
    vf lo, hi = v_two_sum(x, vf_set(1.0f), &lo);
    vf y = v_log_two(hi, lo);
    y = vf_sel(vf_lt(vf_abs(x), vf_set(0x1p-25f)), x, y);
    y = vf_sel(vf_eq(x, vf_set(-1.0f)), vf_set(-INFINITY), y);
    y = vf_sel(vf_eq(x, vf_set(INFINITY)), x, y);
    return vf_sel(vf_le(vf_set(-1.0f), x), y, vf_set(NAN));
}
/* Both infinite with one sign: that infinity. */
V_FN vf vf_logaddexp(vf a, vf b) {
    vf m = vf_max(a, b), d = vf_neg(vf_abs(a - b));
    vf y = m + vf_log1p(vf_exp(d));
    y = vf_sel(vf_eq(a, b), m + vf_set(0x1.62e43p-1f), y);
    return vf_sel(vf_isnan(m), m, y);
}
/* |x| < 0.5: x + x^3 P(x^2), 2^-35; else log(u) with u = |x| + sqrt(x^2 + 1) in two parts. */
V_FN vf vf_asinh(vf x) {
    vf a = vf_abs(x), z = x * x;
    vf p = V_P7(z, -0x1.555556p-3f, 0x1.333392p-4f, -0x1.6dc7dcp-5f, 0x1.f312fp-6f, -0x1.737956p-6f,
                0x1.18ade8p-6f, -0x1.2dca66p-7f);
    vf small = vf_fma(x * z, p, x);
    vm huge = vf_lt(vf_set(0x1p13f), a); /* u = 2a to f32's precision */
    vf b = vf_sel(huge, vf_set(1.0f), a), e1, e2, q = b * b;
    vf s = v_two_sum(q, vf_set(1.0f), &e1), r = vf_sqrt(s);
    e1 = e1 + vf_fms(b, b, q) + vf_fnma(r, r, s); /* s + e1 = b^2 + 1 - r^2 + ... */
    vf u = v_two_sum(b, r, &e2);
    vf l = v_log_two(vf_sel(huge, a, u), vf_sel(huge, vf_set(0.0f), e2 + e1 * vf_set(0.5f) / r));
    l = vf_sel(huge, l + vf_set(0x1.62e43p-1f), l);
    vf y = vf_copysign(vf_sel(vf_lt(a, vf_set(0.5f)), small, l), x);
    return vf_sel(vf_lt(a, vf_set(INFINITY)), y, x);
}
/* log1p(t + sqrt(t (t + 2))), t = x - 1, the root in two parts; large x as asinh. */
V_FN vf vf_acosh(vf x) {
    vm huge = vf_lt(vf_set(0x1p13f), x);
    vf b = vf_sel(huge, vf_set(2.0f), x), t = b - vf_set(1.0f), e;
    vf q = t * t, s = v_two_sum(t + t, q, &e), r = vf_sqrt(s);
    e = e + vf_fms(t, t, q) + vf_fnma(r, r, s);
    e = vf_sel(vf_lt(vf_set(0.0f), r), e * vf_set(0.5f) / r, vf_set(0.0f));
    vf e2, e3, w = v_two_sum(r, t, &e2), u = v_two_sum(w, vf_set(1.0f), &e3);
    vf l = v_log_two(vf_sel(huge, x, u), vf_sel(huge, vf_set(0.0f), e + e2 + e3));
    l = vf_sel(huge, l + vf_set(0x1.62e43p-1f), l);
    l = vf_sel(vf_eq(x, vf_set(INFINITY)), x, l);
    return vf_sel(vf_le(vf_set(1.0f), x), l, vf_set(NAN));
}
/* |x| < 0.5: x + x^3 P(x^2), 2^-33; else log1p(2|x| / (1 - |x|)) / 2, 1 - |x| being exact. */
V_FN vf vf_atanh(vf x) {
    vf a = vf_abs(x), z = x * x;
    vf p = V_P7(z, 0x1.555558p-2f, 0x1.9997a2p-3f, 0x1.24d104p-3f, 0x1.bfc214p-4f, 0x1.ae6b02p-4f,
                0x1.1f06a8p-6f, 0x1.79acdp-3f);
    vf small = vf_fma(x * z, p, x);
    vf big = vf_set(0.5f) * vf_log1p((a + a) / (vf_set(1.0f) - a));
    return vf_sel(vf_lt(a, vf_set(0.5f)), small, vf_copysign(big, x));
}

/* ---- Trigonometric functions -------------------------------------------------------------- */

#define V_PIO2_1     0x1.921fb6p+0f /* pi / 2 in three parts, 72 bits */
#define V_PIO2_2     -0x1.777a5cp-25f
#define V_PIO2_3     -0x1.ee59dap-50f
#define V_TRIG_LIMIT 32768.0f

/* |x| >= V_TRIG_LIMIT, one lane: x * 2/pi modulo 4 from 256 bits of 2/pi in integers, which is
 * exact to 2^-60 or better; returns the remainder in (-pi/4, pi/4), what rounding it lost, and
 * the quadrant. */
static inline float v_trig_far(float x, int32_t *quadrant, float *low) {
    static const uint32_t two_over_pi[8] = {0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u,
                                            0xdb629599u, 0x3c439041u, 0xfe5163abu, 0xdebbc561u};
    uint32_t u = tni_f32_bits(x);
    uint64_t m = (u & 0x7fffffu) | 0x800000u;
    int e = (int)((u >> 23) & 255u) - 150; /* |x| = m * 2^e, e in [-9, 104] */
    *quadrant = 0;
    *low = 0;
    if (e > 104) return NAN;
    /* Bits of 2/pi with weights 2^(1-e) and below: those above give multiples of 4. */
    int skip = e >= 2 ? e - 2 : 0, word = skip / 32, bit = skip % 32;
    uint32_t w[4];
    for (int i = 0; i < 4; i++) {
        uint32_t hi = word + i < 8 ? two_over_pi[word + i] : 0;
        uint32_t lo = word + i + 1 < 8 ? two_over_pi[word + i + 1] : 0;
        w[i] = bit ? hi << bit | lo >> (32 - bit) : hi;
    }
    /* m * 0.w with the binary point such that the product's weight is 2^(e - skip). */
    uint64_t p2 = m * w[2] + ((m * w[3]) >> 32), p1 = m * w[1] + (p2 >> 32),
             p0 = m * w[0] + (p1 >> 32);
    uint64_t hi = p0, lo = (p1 << 32) | (p2 & 0xffffffffu); /* hi * 2^-32 + lo * 2^-96 */
    int s = e - skip; /* <= 2: shift so that hi's bit 32 is the unit quadrant */
    uint64_t top, frac;
    if (s >= 0) {
        hi = (hi << s) | (s ? lo >> (64 - s) : 0);
        lo <<= s;
    } else {
        lo = (lo >> -s) | (hi << (64 + s));
        hi >>= -s;
    }
    top = hi >> 32;
    frac = (hi << 32) | (lo >> 32); /* fraction of a quadrant, 64 bits */
    int64_t f = (int64_t)frac;      /* rounds to nearest: [-1/2, 1/2) */
    if (f < 0) top++;
    double r = (double)f * (0x1.921fb54442d18p+0 * 0x1p-64);
    int32_t q = (int32_t)(top & 3);
    if (u >> 31) r = -r, q = -q & 3;
    *quadrant = q;
    *low = (float)(r - (double)(float)r);
    return (float)r;
}
/* Remainder of x by pi/2 in two parts, and the quadrant. */
V_FN vf v_trig_reduce(vf x, vi *quadrant, vf *lo) {
    vm far = vf_le(vf_set(V_TRIG_LIMIT), vf_abs(x));
    vf y = vf_sel(far, vf_set(0.0f), x);
    vf k = vf_rint(y * vf_set(0x1.45f306p-1f));
    vf a = vf_fnma(k, vf_set(V_PIO2_1), y);
    vf b = k * vf_set(-V_PIO2_2), be = vf_fms(k, vf_set(-V_PIO2_2), b), e, r = v_two_sum(a, b, &e);
    *lo = vf_fnma(k, vf_set(V_PIO2_3), e + be);
    *quadrant = vi_trunc(k);
    if (__builtin_expect(vm_any(far), 0)) {
        float xs[VN], rs[VN], ls[VN];
        int32_t qs[VN];
        vf_store(xs, x);
        vf_store(rs, r);
        vf_store(ls, *lo);
        memcpy(qs, quadrant, sizeof qs);
        for (int i = 0; i < VN; i++)
            if (fabsf(xs[i]) >= V_TRIG_LIMIT) rs[i] = v_trig_far(xs[i], &qs[i], &ls[i]);
        r = vf_load(rs);
        *lo = vf_load(ls);
        memcpy(quadrant, qs, sizeof qs);
    }
    return r;
}
/* |r| <= 0.793: r + r^3 P(r^2), 2^-32; 1 - r^2/2 + r^4 P(r^2), 2^-33; lo corrects r. */
V_FN vf v_sin_poly(vf r, vf lo) {
    vf z = r * r;
    vf p = V_P4(z, -0x1.555556p-3f, 0x1.111174p-7f, -0x1.a058e2p-13f, 0x1.7bf0cp-19f);
    return r + vf_fma(r * z, p, lo);
}
V_FN vf v_cos_poly(vf r, vf lo) {
    vf z = r * r, h = vf_fma(vf_set(-0.5f), z, vf_set(1.0f));
    vf e = vf_fma(vf_set(-0.5f), z, vf_set(1.0f) - h); /* what h lost */
    vf p = V_P3(z, 0x1.55554ap-5f, -0x1.6c0c1cp-10f, 0x1.99e1dap-16f);
    return h + vf_fma(z * z, p, vf_fnma(r, lo, e));
}
V_FN vf v_sincos(vf x, int add) {
    vi q;
    vf lo, r = v_trig_reduce(x, &q, &lo);
    q = q + vi_set(add);
    vf s = v_sin_poly(r, lo), c = v_cos_poly(r, lo);
    vf y = vf_sel(vi_eq(q & vi_set(1), vi_set(0)), s, c);
    return vf_of_bits(vf_bits(y) ^ ((vu_of_i(q) & vu_set(2)) << 30));
}
V_FN vf vf_sin(vf x) { return vf_sel(vf_eq(x, vf_set(0.0f)), x, v_sincos(x, 0)); }
V_FN vf vf_cos(vf x) { return v_sincos(x, 1); }
/* r + r^3 P(r^2) on |r| <= 0.793, 2^-29; -1 / tan in odd quadrants. */
V_FN vf vf_tan(vf x) {
    vi q;
    vf lo, r = v_trig_reduce(x, &q, &lo), z = r * r;
    vf p = V_P7(z, 0x1.555564p-2f, 0x1.110c9ep-3f, 0x1.bb051p-5f, 0x1.5b0f9p-6f, 0x1.6b5d62p-7f,
                -0x1.dcff08p-13f, 0x1.28f344p-8f);
    vf g = vf_fma(r * z, p, vf_fma(lo, z, lo)), t = r + g;
    vf e = g - (t - r); /* the part that t lost, for the quotient */
    vf inv = vf_set(-1.0f) / t;
    vf fix = vf_fma(inv, e, vf_fma(inv, t, vf_set(1.0f))); /* 1 + inv * (t + e) */
    inv = vf_sel(vf_lt(vf_set(0x1p-60f), vf_abs(t)), vf_fma(inv, fix, inv), inv);
    vf y = vf_sel(vi_eq(q & vi_set(1), vi_set(0)), t, inv);
    return vf_sel(vf_eq(x, vf_set(0.0f)), x, y);
}

/* asin(s) - s = s^3 P(s^2) for |s| <= 0.5, 2^-31. */
V_FN vf v_asin_poly(vf z) {
    return V_P6(z, 0x1.55554cp-3f, 0x1.3338a4p-4f, 0x1.6ca96cp-5f, 0x1.04bbap-5f, 0x1.d6c84ap-7f,
                0x1.341e12p-5f);
}
/* |x| > 0.5: asin(|x|) = pi/2 - 2 asin(s) with s = sqrt((1 - |x|) / 2). */
V_FN vf vf_asin(vf x) {
    vf a = vf_abs(x);
    vm big = vf_lt(vf_set(0.5f), a);
    vf z = vf_sel(big, vf_set(0.5f) - vf_set(0.5f) * a, a * a);
    vf s = vf_sel(big, vf_sqrt(z), a), sz = s * z, p = v_asin_poly(z);
    vf lo = vf_fnma(s, s, z) * (vf_set(0.5f) / s); /* what the root lost */
    lo = vf_sel(vm_and(big, vf_lt(vf_set(0.0f), s)), lo, vf_set(0.0f));
    vf w = vf_fma(sz, p, lo), h = vf_set(V_PIO2_1) - (s + s), e = (vf_set(V_PIO2_1) - h) - (s + s);
    vf y = vf_sel(big, h + (e - (w + w) + vf_set(V_PIO2_2)), s + w);
    return vf_xorsign(y, x);
}
V_FN vf vf_acos(vf x) {
    vf a = vf_abs(x);
    vm big = vf_lt(vf_set(0.5f), a), neg = vf_lt(x, vf_set(0.0f));
    vf z = vf_sel(big, vf_set(0.5f) - vf_set(0.5f) * a, a * a);
    vf s = vf_sel(big, vf_sqrt(z), a);
    vf t = vf_fma(s * z, v_asin_poly(z), s);
    vf small = vf_set(V_PIO2_1) - vf_sel(neg, vf_set(-V_PIO2_2) - t, t + vf_set(-V_PIO2_2));
    vf twice = t + t;
    vf large = vf_sel(neg, vf_set(2 * V_PIO2_1) - (twice - vf_set(2 * V_PIO2_2)), twice);
    return vf_sel(big, large, small);
}
/* atan(q) = q + q^3 P(q^2) for 0 <= q <= 1, 2^-31. */
V_FN vf v_atan_poly(vf q) {
    vf z = q * q;
    vf p =
        V_P10(z, -0x1.555552p-2f, 0x1.99981cp-3f, -0x1.24762p-3f, 0x1.c5116ep-4f, -0x1.6953aap-4f,
              0x1.1509bep-4f, -0x1.707fbep-5f, 0x1.752e2ep-6f, -0x1.e69c5cp-8f, 0x1.29645ep-10f);
    return vf_fma(q * z, p, q);
}
V_FN vf vf_atan(vf x) {
    vf a = vf_abs(x);
    vm big = vf_lt(vf_set(1.0f), a);
    vf t = v_atan_poly(vf_sel(big, vf_set(1.0f) / a, a));
    vf y = vf_sel(big, vf_set(V_PIO2_1) - (t - vf_set(V_PIO2_2)), t);
    return vf_copysign(y, x);
}
/* The angle of (x, y): smaller over larger, then the octant. Infinities count as equal. */
V_FN vf vf_atan2(vf y, vf x) {
    vf ay = vf_abs(y), ax = vf_abs(x);
    vm swap = vf_lt(ax, ay), left = vf_lt(vf_copysign(vf_set(1.0f), x), vf_set(0.0f));
    vf num = vf_sel(swap, ax, ay), den = vf_sel(swap, ay, ax);
    vf q = vf_sel(vf_eq(num, den), vf_sel(vf_eq(den, vf_set(0.0f)), num, vf_set(1.0f)), num / den);
    vf t = v_atan_poly(q);
    t = vf_sel(swap, vf_set(V_PIO2_1) - (t - vf_set(V_PIO2_2)), t);
    t = vf_sel(left, vf_set(2 * V_PIO2_1) - (t - vf_set(2 * V_PIO2_2)), t);
    t = vf_sel(vf_isnan(x), x, t);
    return vf_sel(vf_isnan(y), y, vf_copysign(t, y));
}

/* ---- Error function ------------------------------------------------------------------------- */

/* |x| < 1: x + x (c + P(x^2)), c = 2/sqrt(pi) - 1, 2^-29; else 1 - exp(P(|x|)), log erfc on [1, 4].
 */
V_FN vf vf_erf(vf x) {
    vf a = vf_abs(x), z = x * x;
    vf p = V_P7(z, -0x1.b5c646p-32f, -0x1.81273ep-2f, 0x1.ce2cfcp-4f, -0x1.b7f96p-6f,
                0x1.540830p-8f, -0x1.a4088cp-11f, 0x1.49986cp-14f);
    vf small = vf_fma(x, p + vf_set(0x1.06eba8p-3f), x);
    vf b = vf_ltsel(a, vf_set(4.0f));
    vf q = V_P9(b, 0x1.ad60bep-13f, -0x1.21319ap+0f, -0x1.441d36p-1f, -0x1.bd01a8p-4f,
                0x1.9fc86ap-6f, -0x1.18c4p-8f, 0x1.e6d614p-12f, -0x1.aa0462p-16f, 0x1.137ea8p-22f);
    vf big = vf_copysign(vf_set(1.0f) - vf_exp(q), x);
    vf y = vf_sel(vf_lt(a, vf_set(1.0f)), small, big);
    return vf_sel(vf_isnan(x), x, y);
}
/* MLX computes a * P(log(1 - a^2)) with the coefficients of Norbert Juffa's single-precision
 * erfinv; the same formula here, so that random normals carry over. */
V_FN vf vf_erfinv(vf a) {
    vf t = vf_log(vf_fma(a, vf_neg(a), vf_set(1.0f)));
    vf p = V_P9(t, 8.40016484e-1f, -2.64646143e-1f, 4.83185798e-3f, 3.02698812e-3f, 3.93552968e-4f,
                2.84108955e-5f, 1.22150334e-6f, 2.93243101e-8f, 3.03697567e-10f);
    vf q =
        V_P10(t, 8.86226892e-1f, -2.32015476e-1f, 1.15392562e-2f, 2.31468701e-3f, -1.47697705e-4f,
              -5.61531961e-5f, 1.12962631e-7f, 1.22775396e-6f, 1.43286059e-7f, 5.43877832e-9f);
    return a * vf_sel(vf_lt(vf_set(6.125f), vf_abs(t)), p, q);
}

/* ---- Powers -------------------------------------------------------------------------------------
 */

/* log2 |x| in two f32 parts, about 2^-45 relative: with s = f / (2 + f) in two parts,
 * log(1 + f) = 2 (s + s z/3 + s z^2 P(z)), z = s^2 <= 0.0295, 2^-43. x finite, > 0. */
V_FN vf v_log2_two(vf x, vf *lo) {
    vf k, f = v_log_split(x, &k), de;
    vf d = v_two_sum(vf_set(2.0f), f, &de), s = f / d;
    vf sl = vf_fnma(s, de, vf_fnma(s, d, f)) / d;
    vf z = s * s, zl = vf_fma(s + s, sl, vf_fms(s, s, z));
    vf p = V_P4(z, 0x1.999998p-3f, 0x1.2493b6p-3f, 0x1.c63d88p-4f, 0x1.9089d8p-4f);
    vf c = vf_set(0x1.555556p-2f), t = z * c, te = vf_fms(z, c, t);
    te = te + vf_fma(zl, c, z * vf_fma(z, p, vf_set(-0x1.555556p-27f)));
    vf u = s * t, ue = vf_fma(s, te, vf_fma(sl, t, vf_fms(s, t, u)));
    vf w = s + u, we = (u - (w - s)) + (sl + ue); /* |u| < |s|: fast two-sum */
    vf l = w * vf_set(0x1.715476p+1f);
    vf le = vf_fma(w, vf_set(0x1.4ae0cp-25f),
                   vf_fma(we, vf_set(0x1.715476p+1f), vf_fms(w, vf_set(0x1.715476p+1f), l)));
    vf e, r = v_two_sum(k, l, &e);
    e = e + le;
    vf h = r + e;
    *lo = e - (h - r);
    return h;
}
/* 2^(hi + lo): (2^r - 1) / r on |r| <= 0.501, 2^-32. */
V_FN vf v_exp2_two(vf hi, vf lo) {
    vf c = vf_ltsel(vf_set(129.0f), vf_gtsel(vf_set(-150.5f), hi));
    lo = vf_sel(vf_eq(c, hi), lo, vf_set(0.0f));
    vf k = vf_rint(c), r = (c - k) + lo;
    vf p = V_P7(r, 0x1.62e43p-1f, 0x1.ebfbep-3f, 0x1.c6b074p-5f, 0x1.3b2a5cp-7f, 0x1.5d9ccp-10f,
                0x1.440ecep-13f, 0x1.ec807cp-17f);
    return vf_ldexp(vf_fma(r, p, vf_set(1.0f)), k);
}
V_FN vf vf_pow(vf x, vf y) {
    vf one = vf_set(1.0f), zero = vf_set(0.0f), inf = vf_set(INFINITY);
    vf a = vf_abs(x), ay = vf_abs(y), lo, hi = v_log2_two(a, &lo);
    /* |y| beyond 2^30 overflows or underflows whatever the base, unless it is 1. */
    vf yc = vf_copysign(vf_ltsel(ay, vf_set(0x1p30f)), y);
    vf p = yc * hi, pe = vf_fma(yc, lo, vf_fms(yc, hi, p));
    vf r = v_exp2_two(p, pe);
    /* Parity of y, for negative bases: an integer; odd when y / 2 is none. */
    vm integral = vf_eq(vf_rint(y), y), half = vf_ne(vf_rint(y * vf_set(0.5f)), y * vf_set(0.5f));
    vm odd = vm_and(vm_and(integral, half), vf_lt(ay, vf_set(0x1p24f)));
    vm grows = vm_xor(vf_lt(a, one), vf_lt(zero, y)); /* limit is inf rather than 0 */
    vm edge = vm_or(vm_or(vf_eq(a, zero), vf_eq(a, inf)), vf_eq(ay, inf));
    r = vf_sel(edge, vf_sel(grows, inf, zero), r);
    r = vf_sel(vm_and(vf_eq(a, one), vf_eq(y, y)), one, r);
    r = vf_sel(vm_and(odd, vf_lt(vf_copysign(one, x), zero)), vf_neg(r), r);
    vm bad = vm_and(vm_and(vf_lt(x, zero), vm_not(integral)), vf_lt(a, inf));
    r = vf_sel(bad, vf_set(NAN), r);
    r = vf_sel(vm_or(vf_isnan(x), vf_isnan(y)), vf_set(NAN), r);
    return vf_sel(vm_or(vf_eq(x, one), vf_eq(y, zero)), one, r);
}

/* ---- Division with remainder
 * --------------------------------------------------------------------- */

/* fmod of one lane, exact: long division of the significands. Finite x, finite y != 0, |x| >= |y|.
 */
static inline float v_fmod_exact(float x, float y) { return fmodf(x, y); }
/* Remainder with y's sign. While |x / y| < 2^22, one FMA with the rounded-down quotient is exact
 * up to one multiple of y; beyond that lanes go through fmod (exact, so the same everywhere). */
V_FN vf vf_remainder(vf x, vf y) {
    vf r;
    vf q = vf_trunc(vf_abs(x) / vf_abs(y));
    r = vf_fnma(q, vf_abs(y), vf_abs(x)); /* exact: a multiple of the smaller ULP, below 2 |y| */
    r = vf_sel(vf_lt(r, vf_set(0.0f)), r + vf_abs(y), r);
    r = vf_sel(vf_le(vf_abs(y), r), r - vf_abs(y), r);
    r = vf_sel(vf_eq(vf_abs(y), vf_set(INFINITY)), vf_abs(x), r);
    vm far = vm_and(vf_le(vf_set(0x1p22f), q), vf_lt(vf_abs(x), vf_set(INFINITY)));
    if (__builtin_expect(vm_any(far), 0)) {
        float xs[VN], ys[VN], rs[VN];
        vf_store(xs, x);
        vf_store(ys, y);
        vf_store(rs, r);
        for (int i = 0; i < VN; i++)
            if (!(fabsf(xs[i]) / fabsf(ys[i]) < 0x1p22f))
                rs[i] = v_fmod_exact(fabsf(xs[i]), fabsf(ys[i]));
        r = vf_load(rs);
    }
    r = vf_sel(vf_lt(vf_abs(x), vf_set(INFINITY)), r, vf_set(NAN));
    r = vf_sel(vf_eq(y, vf_set(0.0f)), vf_set(NAN), r);
    r = vf_xorsign(r, x);
    vm other =
        vm_and(vf_ne(r, vf_set(0.0f)), vm_xor(vf_lt(r, vf_set(0.0f)), vf_lt(y, vf_set(0.0f))));
    r = vf_sel(other, r + y, r);
    r = vf_sel(vf_eq(r, vf_set(0.0f)), vf_copysign(vf_set(0.0f), y), r);
    return vf_sel(vm_or(vf_isnan(x), vf_isnan(y)), vf_set(NAN), r);
}
V_FN vf vf_sign(vf a) {
    vf zero = vf_set(0.0f);
    return vf_of_mask(vf_lt(zero, a)) - vf_of_mask(vf_lt(a, zero));
}

#endif
