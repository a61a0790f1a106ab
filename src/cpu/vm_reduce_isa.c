/* Kernels of the reductions of reduce.def, for every class of values. The order in which a row
 * block is joined is that of simd.h (64 partial results, element i into partial i % 64, folded
 * by halves), so that every ISA gives the same bits; integers and extrema do not care. */
#include "cpu/vm.h"
#include "cpu/vm_words.h"

#if defined(__clang__)
#define V_IVDEP
#else
#define V_IVDEP _Pragma("GCC ivdep")
#endif

/* ---- One value of state: the scalar classes ------------------------------------------------ */

/* S: state; A: operand as stored; id, step(s, x), merge(s, r) are expressions. */
#define RED_ONE(tag, S, A, id, step, merge)                                                        \
    static void tag##_init(size_t n, void *s) {                                                    \
        S *ps = s;                                                                                 \
        for (size_t i = 0; i < n; i++) ps[i] = (S)(id);                                            \
    }                                                                                              \
    static void tag##_row(size_t n, void *out, const void *px, int64_t at) {                       \
        const A *v = px;                                                                           \
        S l[64];                                                                                   \
        size_t i = 0;                                                                              \
        (void)at;                                                                                  \
        for (int j = 0; j < 64; j++) l[j] = (S)(id);                                               \
        for (; i + 64 <= n; i += 64)                                                               \
            for (size_t j = 0; j < 64; j++) {                                                      \
                S s = l[j];                                                                        \
                A x = v[i + j];                                                                    \
                l[j] = (S)(step);                                                                  \
            }                                                                                      \
        for (size_t j = 0; i + j < n; j++) {                                                       \
            S s = l[j];                                                                            \
            A x = v[i + j];                                                                        \
            l[j] = (S)(step);                                                                      \
        }                                                                                          \
        for (int h = 32; h; h /= 2)                                                                \
            for (int j = 0; j < h; j++) {                                                          \
                S s = l[j], r = l[j + h];                                                          \
                l[j] = (S)(merge);                                                                 \
            }                                                                                      \
        *(S *)out = l[0];                                                                          \
    }                                                                                              \
    static void tag##_col(size_t n, void *state, const void *px, int64_t at) {                     \
        S *ps = state;                                                                             \
        const A *v = px;                                                                           \
        (void)at;                                                                                  \
        V_IVDEP for (size_t i = 0; i < n; i++) {                                                   \
            S s = ps[i];                                                                           \
            A x = v[i];                                                                            \
            ps[i] = (S)(step);                                                                     \
        }                                                                                          \
    }                                                                                              \
    static void tag##_merge(size_t n, void *state, const void *later) {                            \
        S *ps = state;                                                                             \
        const S *pr = later;                                                                       \
        V_IVDEP for (size_t i = 0; i < n; i++) {                                                   \
            S s = ps[i], r = pr[i];                                                                \
            ps[i] = (S)(merge);                                                                    \
        }                                                                                          \
    }                                                                                              \
    static void tag##_finish(size_t n, void *y, const void *s) { memcpy(y, s, n * sizeof(S)); }

/* bool sums and products count in i32 (unsigned inside, so that sums wrap). */
RED_ONE(sum_b, uint32_t, uint8_t, 0, s + x, s + r)
RED_ONE(sum_i32, uint32_t, uint32_t, 0, s + x, s + r)
RED_ONE(sum_i64, uint64_t, uint64_t, 0, s + x, s + r)
RED_ONE(sum_f64, double, double, 0, s + x, s + r)
RED_ONE(sum_c64, v_c64, v_c64, 0, s + x, s + r)
RED_ONE(prod_b, uint32_t, uint8_t, 1, s *x, s *r)
RED_ONE(prod_i32, uint32_t, uint32_t, 1, s *x, s *r)
RED_ONE(prod_i64, uint64_t, uint64_t, 1, s *x, s *r)
RED_ONE(prod_f64, double, double, 1, s *x, s *r)
/* 1 must be neutral: the product of 1 + 0i and inf + 2i would be inf + NaN i. */
V_FN v_c64 red_mul_c64(v_c64 a, v_c64 b) { return a == 1 ? b : b == 1 ? a : a * b; }
RED_ONE(prod_c64, v_c64, v_c64, 1, red_mul_c64(s, x), red_mul_c64(s, r))
RED_ONE(all_b, uint8_t, uint8_t, 1, s &x, s &r)
RED_ONE(any_b, uint8_t, uint8_t, 0, s | x, s | r)
#define RED_LESS(cls, T, low, high)                                                                \
    RED_ONE(max_##cls, T, T, low, x > s ? x : s, r > s ? r : s)                                    \
    RED_ONE(min_##cls, T, T, high, x < s ? x : s, r < s ? r : s)
RED_LESS(b, uint8_t, 0, 1)
RED_LESS(i32, int32_t, INT32_MIN, INT32_MAX)
RED_LESS(u32, uint32_t, 0, UINT32_MAX)
RED_LESS(i64, int64_t, INT64_MIN, INT64_MAX)
RED_LESS(u64, uint64_t, 0, UINT64_MAX)
RED_ONE(max_f64, double, double, -INFINITY, w_max_f64(s, x), w_max_f64(s, r))
RED_ONE(min_f64, double, double, INFINITY, w_min_f64(s, x), w_min_f64(s, r))
RED_ONE(max_c64, v_c64, v_c64, v_c64_of(-INFINITY, -INFINITY), w_max_c64(s, x), w_max_c64(s, r))
RED_ONE(min_c64, v_c64, v_c64, v_c64_of(INFINITY, INFINITY), w_min_c64(s, x), w_min_c64(s, r))

/* ---- One value of state: f32 in vectors ------------------------------------------------------ */

#define RED_F32(tag, id, join, fold)                                                               \
    static void tag##_init(size_t n, void *s) {                                                    \
        float *ps = s;                                                                             \
        for (size_t i = 0; i < n; i++) ps[i] = (id);                                               \
    }                                                                                              \
    static void tag##_row(size_t n, void *out, const void *px, int64_t at) {                       \
        const float *x = px;                                                                       \
        float lanes[16];                                                                           \
        (void)at;                                                                                  \
        V_ROW_LANES(lanes, n, id, tag##_value, join);                                              \
        *(float *)out = fold(lanes);                                                               \
    }                                                                                              \
    static void tag##_join(size_t n, float *s, const float *x) {                                   \
        size_t i = 0;                                                                              \
        for (; i + VN <= n; i += VN) vf_store(s + i, join(vf_load(s + i), vf_load(x + i)));        \
        if (i < n) vf_store_n(s + i, join(v_part(s, i, n, 0.0f), v_part(x, i, n, 0.0f)), n - i);   \
    }                                                                                              \
    static void tag##_col(size_t n, void *s, const void *x, int64_t at) {                          \
        (void)at;                                                                                  \
        tag##_join(n, s, x);                                                                       \
    }                                                                                              \
    static void tag##_merge(size_t n, void *s, const void *r) { tag##_join(n, s, r); }             \
    static void tag##_finish(size_t n, void *y, const void *s) { memcpy(y, s, n * 4); }
#define V_MUL(a, b) ((a) * (b))
V_FN float red_fold_prod(const float *l) {
    float t[8];
    for (int i = 0; i < 8; i++) t[i] = l[i] * l[i + 8];
    for (int h = 4; h; h /= 2)
        for (int i = 0; i < h; i++) t[i] = t[i] * t[i + h];
    return t[0];
}
V_FN float red_fold_min(const float *l) {
    float t[8];
    for (int i = 0; i < 8; i++) t[i] = v1_min(l[i], l[i + 8]);
    for (int h = 4; h; h /= 2)
        for (int i = 0; i < h; i++) t[i] = v1_min(t[i], t[i + h]);
    return t[0];
}
#define sum_f32_value(i, m)  v_part(x, i, m, 0.0f)
#define prod_f32_value(i, m) v_part(x, i, m, 1.0f)
#define max_f32_value(i, m)  v_part(x, i, m, -INFINITY)
#define min_f32_value(i, m)  v_part(x, i, m, INFINITY)
RED_F32(sum_f32, 0.0f, V_ADD, v16_fold_sum)
RED_F32(prod_f32, 1.0f, V_MUL, red_fold_prod)
RED_F32(max_f32, -INFINITY, vf_max, v16_fold_max)
RED_F32(min_f32, INFINITY, vf_min, red_fold_min)

/* ---- logsumexp: n maxima, then n sums of exp(x - ref(max)) --------------------------------------
 */

/* What is subtracted: an infinite or NaN maximum would turn x - max into NaN. */
V_FN vf lse_ref(vf m) { return vf_sel(vf_lt(vf_abs(m), vf_set(INFINITY)), m, vf_set(0.0f)); }
V_FN vf lse_scaled(vf t, vf from, vf to) { /* t * exp(from - to), 0 for an empty sum */
    return vf_sel(vf_eq(t, vf_set(0.0f)), t, t * vf_exp(lse_ref(from) - lse_ref(to)));
}
static void lse_f32_init(size_t n, void *s) {
    float *m = s;
    for (size_t i = 0; i < n; i++) m[i] = -INFINITY, m[n + i] = 0;
}
static void lse_f32_row(size_t n, void *s, const void *px, int64_t at) {
    const float *x = px;
    float lanes[16], *out = s;
    (void)at;
    out[0] = v_row_max(x, n);
    vf ref = lse_ref(vf_set(out[0]));
#define V_VALUE(i, m) vf_exp(v_part(x, i, m, -INFINITY) - ref)
    V_ROW_LANES(lanes, n, 0.0f, V_VALUE, V_ADD);
#undef V_VALUE
    out[1] = v16_fold_sum(lanes);
}
/* (m, t) joined with (rm, rt), vectors at index i of n. */
V_FN void lse_join(float *s, size_t i, size_t n, vf rm, vf rt) {
    vf m = v_part(s, i, n, 0.0f), t = v_part(s + n, i, n, 0.0f), top = vf_max(m, rm);
    vf sum = lse_scaled(t, m, top) + lse_scaled(rt, rm, top);
    size_t k = n - i < VN ? n - i : VN;
    vf_store_n(s + i, top, k);
    vf_store_n(s + n + i, sum, k);
}
/* An element is the state (x, exp(x - ref(x))): 1, or 0, inf, NaN where x is -inf, inf, NaN. */
static void lse_f32_col(size_t n, void *s, const void *px, int64_t at) {
    (void)at;
    for (size_t i = 0; i < n; i += VN) {
        vf x = v_part(px, i, n, 0.0f);
        lse_join(s, i, n, x, vf_exp(x - lse_ref(x)));
    }
}
static void lse_f32_merge(size_t n, void *s, const void *later) {
    const float *r = later;
    for (size_t i = 0; i < n; i += VN)
        lse_join(s, i, n, v_part(r, i, n, 0.0f), v_part(r + n, i, n, 0.0f));
}
static void lse_f32_finish(size_t n, void *y, const void *state) {
    const float *s = state;
    for (size_t i = 0; i < n; i += VN) {
        vf v = lse_ref(v_part(s, i, n, 0.0f)) + vf_log(v_part(s + n, i, n, 0.0f));
        vf_store_n((float *)y + i, v, n - i < VN ? n - i : VN);
    }
}

static double lse_ref64(double m) { return fabs(m) < INFINITY ? m : 0; }
static double lse_scaled64(double t, double from, double to) {
    return t == 0 ? t : t * exp(lse_ref64(from) - lse_ref64(to));
}
static void lse_f64_init(size_t n, void *s) {
    double *m = s;
    for (size_t i = 0; i < n; i++) m[i] = -INFINITY, m[n + i] = 0;
}
static void lse_f64_row(size_t n, void *s, const void *px, int64_t at) {
    const double *x = px;
    double e[TNI_BLOCK], *out = s;
    max_f64_row(n, out, x, at);
    double ref = lse_ref64(out[0]);
    for (size_t i = 0; i < n; i++) e[i] = exp(x[i] - ref);
    sum_f64_row(n, out + 1, e, at);
}
static void lse_join64(double *s, size_t i, size_t n, double rm, double rt) {
    double top = w_max_f64(s[i], rm);
    s[n + i] = lse_scaled64(s[n + i], s[i], top) + lse_scaled64(rt, rm, top);
    s[i] = top;
}
static void lse_f64_col(size_t n, void *s, const void *px, int64_t at) {
    const double *x = px;
    (void)at;
    for (size_t i = 0; i < n; i++) lse_join64(s, i, n, x[i], exp(x[i] - lse_ref64(x[i])));
}
static void lse_f64_merge(size_t n, void *s, const void *later) {
    const double *r = later;
    for (size_t i = 0; i < n; i++) lse_join64(s, i, n, r[i], r[n + i]);
}
static void lse_f64_finish(size_t n, void *y, const void *state) {
    const double *s = state;
    for (size_t i = 0; i < n; i++) ((double *)y)[i] = lse_ref64(s[i]) + log(s[n + i]);
}

/* ---- argmin, argmax: n positions (i64, -1 before the first element), then n values
 * --------------- */

/* before(s, r): r takes the place of s. Among equals the lower position wins; partial results
 * are not joined in order of position. */
#define RED_ARG(tag, T, row_best, same, before)                                                    \
    static void tag##_init(size_t n, void *s) {                                                    \
        int64_t *pos = s;                                                                          \
        for (size_t i = 0; i < n; i++) pos[i] = -1;                                                \
        memset(pos + n, 0, n * sizeof(T));                                                         \
    }                                                                                              \
    static void tag##_row(size_t n, void *out, const void *px, int64_t at) {                       \
        const T *x = px;                                                                           \
        int64_t *pos = out;                                                                        \
        T best;                                                                                    \
        size_t i = 0;                                                                              \
        row_best(n, &best, x, at);                                                                 \
        while (i + 1 < n && !(same(x[i], best))) i++;                                              \
        pos[0] = at + (int64_t)i;                                                                  \
        memcpy(pos + 1, &x[i], sizeof(T));                                                         \
    }                                                                                              \
    static void tag##_col(size_t n, void *state, const void *px, int64_t at) {                     \
        int64_t *pos = state;                                                                      \
        T *val = (T *)(pos + n);                                                                   \
        const T *x = px;                                                                           \
        for (size_t i = 0; i < n; i++) {                                                           \
            T s = val[i], r = x[i];                                                                \
            bool take = pos[i] < 0 || before(s, r);                                                \
            val[i] = take ? r : s;                                                                 \
            pos[i] = take ? at : pos[i];                                                           \
        }                                                                                          \
    }                                                                                              \
    static void tag##_merge(size_t n, void *state, const void *later) {                            \
        int64_t *pos = state;                                                                      \
        const int64_t *rpos = later;                                                               \
        T *val = (T *)(pos + n);                                                                   \
        const T *rval = (const T *)(rpos + n);                                                     \
        for (size_t i = 0; i < n; i++) {                                                           \
            T s = val[i], r = rval[i];                                                             \
            bool first = rpos[i] < pos[i] && !before(r, s);                                        \
            if (rpos[i] >= 0 && (pos[i] < 0 || before(s, r) || first))                             \
                val[i] = r, pos[i] = rpos[i];                                                      \
        }                                                                                          \
    }                                                                                              \
    static void tag##_finish(size_t n, void *y, const void *s) {                                   \
        const int64_t *pos = s;                                                                    \
        for (size_t i = 0; i < n; i++) ((uint32_t *)y)[i] = (uint32_t)(pos[i] < 0 ? 0 : pos[i]);   \
    }
#define ARG_MORE(s, r)     ((r) > (s))
#define ARG_LESS(s, r)     ((r) < (s))
#define ARG_MORE_NAN(s, r) ((s) == (s) && ((r) != (r) || (r) > (s)))
#define ARG_LESS_NAN(s, r) ((s) == (s) && ((r) != (r) || (r) < (s)))
#define ARG_MORE_C64(s, r) (!w_isnan_c64(s) && (w_isnan_c64(r) || w_lt_c64(s, r)))
#define ARG_LESS_C64(s, r) (!w_isnan_c64(s) && (w_isnan_c64(r) || w_lt_c64(r, s)))
#define ARG_EQ(x, b)       ((x) == (b))
#define ARG_EQ_NAN(x, b)   ((b) != (b) ? (x) != (x) : (x) == (b))
#define ARG_EQ_C64(x, b)   (w_isnan_c64(b) ? w_isnan_c64(x) : (x) == (b))
#define RED_ARGS(cls, T)                                                                           \
    RED_ARG(argmax_##cls, T, max_##cls##_row, ARG_EQ, ARG_MORE)                                    \
    RED_ARG(argmin_##cls, T, min_##cls##_row, ARG_EQ, ARG_LESS)
#define RED_ARGS_FLOAT(cls, T)                                                                     \
    RED_ARG(argmax_##cls, T, max_##cls##_row, ARG_EQ_NAN, ARG_MORE_NAN)                            \
    RED_ARG(argmin_##cls, T, min_##cls##_row, ARG_EQ_NAN, ARG_LESS_NAN)
RED_ARGS(b, uint8_t)
RED_ARGS(i32, int32_t)
RED_ARGS(u32, uint32_t)
RED_ARGS(i64, int64_t)
RED_ARGS(u64, uint64_t)
RED_ARGS_FLOAT(f32, float)
RED_ARGS_FLOAT(f64, double)
RED_ARG(argmax_c64, v_c64, max_c64_row, ARG_EQ_C64, ARG_MORE_C64)
RED_ARG(argmin_c64, v_c64, min_c64_row, ARG_EQ_C64, ARG_LESS_C64)

#define RED_ROW(tag, bytes, cls)                                                                   \
    { bytes, TNI_CLS_##cls, tag##_init, tag##_row, tag##_col, tag##_merge, tag##_finish }
#define RED_SAME(red)                                                                              \
    {                                                                                              \
        RED_ROW(red##_b, 1, B), RED_ROW(red##_i32, 4, I32), RED_ROW(red##_u32, 4, U32),            \
            RED_ROW(red##_i64, 8, I64), RED_ROW(red##_u64, 8, U64), RED_ROW(red##_f32, 4, F32),    \
            RED_ROW(red##_f64, 8, F64), RED_ROW(red##_c64, 8, C64)                                 \
    }
#define RED_SUM(red)                                                                               \
    {                                                                                              \
        RED_ROW(red##_b, 4, I32), RED_ROW(red##_i32, 4, I32), RED_ROW(red##_i32, 4, U32),          \
            RED_ROW(red##_i64, 8, I64), RED_ROW(red##_i64, 8, U64), RED_ROW(red##_f32, 4, F32),    \
            RED_ROW(red##_f64, 8, F64), RED_ROW(red##_c64, 8, C64)                                 \
    }
/* 16 bytes though some need less: states follow one another and positions are aligned. */
#define RED_IDX(red)                                                                               \
    {                                                                                              \
        RED_ROW(red##_b, 16, U32), RED_ROW(red##_i32, 16, U32), RED_ROW(red##_u32, 16, U32),       \
            RED_ROW(red##_i64, 16, U32), RED_ROW(red##_u64, 16, U32), RED_ROW(red##_f32, 16, U32), \
            RED_ROW(red##_f64, 16, U32), RED_ROW(red##_c64, 16, U32)                               \
    }

const tni_red_fns *TNI_FN(vm_red)(int red) {
    static const tni_red_fns table[TNI_RED_COUNT][TNI_CLS_COUNT] = {
        [TNI_RED_sum] = RED_SUM(sum),
        [TNI_RED_prod] = RED_SUM(prod),
        [TNI_RED_min] = RED_SAME(min),
        [TNI_RED_max] = RED_SAME(max),
        [TNI_RED_all] = {RED_ROW(all_b, 1, B)},
        [TNI_RED_any] = {RED_ROW(any_b, 1, B)},
        [TNI_RED_logsumexp] =
            {[TNI_CLS_F32] = RED_ROW(lse_f32, 8, F32), [TNI_CLS_F64] = RED_ROW(lse_f64, 16, F64)},
        [TNI_RED_argmin] = RED_IDX(argmin),
        [TNI_RED_argmax] = RED_IDX(argmax),
    };
    return table[red];
}
