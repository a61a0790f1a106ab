/* The inner loops of scatter: a run of updates combined with what is already there, one after
 * the other, so that an index that occurs twice counts twice. And the reading of indices. */
#include "base/half.h"
#include "cpu/cpu_gather.h"
#include "ops/prims.h"

#define FOLD(name, T, expr)                                                                        \
    static void fold_##name(void *dst, const int64_t *at, int64_t ds, const void *src, int64_t ss, \
                            int64_t n) {                                                           \
        T *d = dst;                                                                                \
        const T *s = src;                                                                          \
        if (at)                                                                                    \
            for (int64_t i = 0; i < n; i++) {                                                      \
                T a = d[at[i]], b = s[i * ss];                                                     \
                (void)a, d[at[i]] = (expr);                                                        \
            }                                                                                      \
        else if (ds == 1 && ss == 1)                                                               \
            for (int64_t i = 0; i < n; i++) {                                                      \
                T a = d[i], b = s[i];                                                              \
                (void)a, d[i] = (expr);                                                            \
            }                                                                                      \
        else                                                                                       \
            for (int64_t i = 0; i < n; i++) {                                                      \
                T a = d[i * ds], b = s[i * ss];                                                    \
                (void)a, d[i * ds] = (expr);                                                       \
            }                                                                                      \
    }

typedef struct fold_c64 {
    float re, im;
} fold_c64;

static fold_c64 fold_cadd(fold_c64 a, fold_c64 b) { return (fold_c64){a.re + b.re, a.im + b.im}; }
static fold_c64 fold_cmul(fold_c64 a, fold_c64 b) {
    return (fold_c64){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
static uint16_t fold_half(float a, float b, uint16_t ha, uint16_t hb, bool largest) {
    if (a != a) return ha;
    return b != b || (largest ? b > a : b < a) ? hb : ha;
}

FOLD(set1, uint8_t, b)
FOLD(set2, uint16_t, b)
FOLD(set4, uint32_t, b)
FOLD(set8, uint64_t, b)
FOLD(or, uint8_t, a | b)
FOLD(and, uint8_t, a &b)
/* Integers wrap: unsigned arithmetic in 64 bits, cut to the width. */
FOLD(add1, uint8_t, (uint8_t)(a + b))
FOLD(add2, uint16_t, (uint16_t)(a + b))
FOLD(add4, uint32_t, a + b)
FOLD(add8, uint64_t, a + b)
FOLD(mul1, uint8_t, (uint8_t)((uint32_t)a *b))
FOLD(mul2, uint16_t, (uint16_t)((uint32_t)a *b))
FOLD(mul4, uint32_t, a *b)
FOLD(mul8, uint64_t, a *b)
FOLD(add_f32, float, a + b)
FOLD(mul_f32, float, a *b)
FOLD(add_f64, double, a + b)
FOLD(mul_f64, double, a *b)
FOLD(add_c64, fold_c64, fold_cadd(a, b))
FOLD(mul_c64, fold_c64, fold_cmul(a, b))
FOLD(add_f16, uint16_t, tni_f32_to_f16(tni_f16_to_f32(a) + tni_f16_to_f32(b)))
FOLD(mul_f16, uint16_t, tni_f32_to_f16(tni_f16_to_f32(a) * tni_f16_to_f32(b)))
FOLD(add_bf16, uint16_t, tni_f32_to_bf16(tni_bf16_to_f32(a) + tni_bf16_to_f32(b)))
FOLD(mul_bf16, uint16_t, tni_f32_to_bf16(tni_bf16_to_f32(a) * tni_bf16_to_f32(b)))
/* NaN wins, as in maximum and minimum. */
#define FOLD_ENDS(name, T)                                                                         \
    FOLD(max_##name, T, b > a || b != b ? b : a)                                                   \
    FOLD(min_##name, T, b < a || b != b ? b : a)
FOLD_ENDS(u8, uint8_t)
FOLD_ENDS(u16, uint16_t)
FOLD_ENDS(u32, uint32_t)
FOLD_ENDS(u64, uint64_t)
FOLD_ENDS(i8, int8_t)
FOLD_ENDS(i16, int16_t)
FOLD_ENDS(i32, int32_t)
FOLD_ENDS(i64, int64_t)
FOLD_ENDS(f32, float)
FOLD_ENDS(f64, double)
FOLD(max_f16, uint16_t, fold_half(tni_f16_to_f32(a), tni_f16_to_f32(b), a, b, true))
FOLD(min_f16, uint16_t, fold_half(tni_f16_to_f32(a), tni_f16_to_f32(b), a, b, false))
FOLD(max_bf16, uint16_t, fold_half(tni_bf16_to_f32(a), tni_bf16_to_f32(b), a, b, true))
FOLD(min_bf16, uint16_t, fold_half(tni_bf16_to_f32(a), tni_bf16_to_f32(b), a, b, false))

tni_fold_fn tni_cpu_fold(int mode, tn_dtype dtype) {
#define INTS(u, i, w)                                                                              \
    [TN_##u] = { fold_set##w, fold_add##w, fold_mul##w, fold_max_##i, fold_min_##i }
    static const tni_fold_fn fold[TN_DTYPE_COUNT][5] = {
        [TN_BOOL] = {fold_set1, fold_or, fold_and, fold_or, fold_and},
        INTS(U8, u8, 1),
        INTS(U16, u16, 2),
        INTS(U32, u32, 4),
        INTS(U64, u64, 8),
        INTS(I8, i8, 1),
        INTS(I16, i16, 2),
        INTS(I32, i32, 4),
        INTS(I64, i64, 8),
        [TN_F16] = {fold_set2, fold_add_f16, fold_mul_f16, fold_max_f16, fold_min_f16},
        [TN_BF16] = {fold_set2, fold_add_bf16, fold_mul_bf16, fold_max_bf16, fold_min_bf16},
        [TN_F32] = {fold_set4, fold_add_f32, fold_mul_f32, fold_max_f32, fold_min_f32},
        [TN_F64] = {fold_set8, fold_add_f64, fold_mul_f64, fold_max_f64, fold_min_f64},
        [TN_C64] = {fold_set8, fold_add_c64, fold_mul_c64, NULL, NULL},
    };
    return fold[dtype][mode];
}

/* ---- indices ---- */

/* u64 beyond 2^63 comes out negative and stays so: out of range. */
#define LOAD(dtype, T)                                                                             \
    case dtype:                                                                                    \
        for (int64_t i = 0; i < n; i++) out[i] = (int64_t)((const T *)v->data)[from + i * step];   \
        break;

int64_t tni_cpu_indices(const tni_view *v, int64_t from, int64_t step, int64_t n, int64_t size,
                        int64_t limit, int64_t *out) {
    switch (v->dtype) {
        LOAD(TN_U8, uint8_t)
        LOAD(TN_U16, uint16_t)
        LOAD(TN_U32, uint32_t)
        LOAD(TN_I8, int8_t)
        LOAD(TN_I16, int16_t)
        LOAD(TN_I32, int32_t)
    default:
        for (int64_t i = 0; i < n; i++) out[i] = ((const int64_t *)v->data)[from + i * step];
    }
    if (v->dtype == TN_U64) size = 0;
    for (int64_t i = 0; i < n; i++) {
        if (out[i] < 0) out[i] += size;
        if (out[i] < 0 || out[i] >= limit) return i;
    }
    return -1;
}
