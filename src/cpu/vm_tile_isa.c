/* Kernels over tiles, one for each op and class of values: what runs a fused program that
 * the register-threaded machine (vm_isa.c) does not take, and every constant fold. The loops
 * come from the value column of elementwise.def; compilers vectorise the integer ones. */
#include "cpu/vm.h"
#include "cpu/vm_words.h"

#if defined(__clang__)
#define V_IVDEP /* clang versions the loop by itself */
#else
#define V_IVDEP _Pragma("GCC ivdep")
#endif

/* clang-format off */
/* ---- integers ---- */

#define HAS_NUM 1
#define HAS_SIG 1
#define HAS_REAL 1
#define HAS_FLT 0
#define HAS_FLTR 0
#define HAS_RE 1
#define HAS_CMP 1
#define HAS_TEST 1
#define HAS_LOG 0
#define HAS_INT 1
#define HAS_SHF 1
#define HAS_SEL 1

#define CLS i32
#define T int32_t
#define U uint32_t
#define RE_T int32_t
#define ROW_FIX(x) (x)
#include "cpu/vm_rows.h"

#define CLS u32
#define T uint32_t
#define U uint32_t
#define RE_T uint32_t
#define ROW_FIX(x) (x)
#include "cpu/vm_rows.h"

#define CLS i64
#define T int64_t
#define U uint64_t
#define RE_T int64_t
#define ROW_FIX(x) (x)
#include "cpu/vm_rows.h"

#define CLS u64
#define T uint64_t
#define U uint64_t
#define RE_T uint64_t
#define ROW_FIX(x) (x)
#include "cpu/vm_rows.h"

/* ---- bool: no sign, no shifts, but logic ---- */

#undef HAS_SIG
#undef HAS_LOG
#undef HAS_SHF
#define HAS_SIG 0
#define HAS_LOG 1
#define HAS_SHF 0

#define CLS b
#define T uint8_t
#define U uint8_t
#define RE_T uint8_t
#define ROW_FIX(x) ((uint8_t)((x) != 0))
#include "cpu/vm_rows.h"

/* ---- floats; f32 over vectors ---- */

#undef HAS_SIG
#undef HAS_FLT
#undef HAS_FLTR
#undef HAS_LOG
#undef HAS_INT
#define HAS_SIG 1
#define HAS_FLT 1
#define HAS_FLTR 1
#define HAS_LOG 0
#define HAS_INT 0

#define CLS f64
#define T double
#define U double
#define RE_T double
#define ROW_FIX(x) (x)
#include "cpu/vm_rows.h"

#define V_ROWS
#define CLS f32
#define T float
#define U vf
#define RE_T float
#include "cpu/vm_rows.h"
#undef V_ROWS

/* ---- complex numbers ---- */

#undef HAS_REAL
#undef HAS_FLTR
#define HAS_REAL 0
#define HAS_FLTR 0

#define CLS c64
#define T v_c64
#define U v_c64
#define RE_T float
#define ROW_FIX(x) (x)
#include "cpu/vm_rows.h"
/* clang-format on */

/* ---- Casts between classes ------------------------------------------------------------------ */

/* Floats to integers truncate and saturate, NaN becomes 0; integers wrap; complex numbers lose
 * their imaginary part; anything to bool is x != 0. */
#define TO_B(x) ((uint8_t)((x) != 0))
#define TO_SAT(T, x, lo, hi, first_above)                                                          \
    ((x) >= (first_above) ? (hi) : (x) >= (lo) ? (T)(x) : (x) != (x) ? 0 : (T)(lo))
#define F_I32(x)   TO_SAT(int32_t, x, -2147483648.0f, INT32_MAX, 2147483648.0f)
#define F_U32(x)   TO_SAT(uint32_t, x, 0.0f, UINT32_MAX, 4294967296.0f)
#define F_I64(x)   TO_SAT(int64_t, x, -9223372036854775808.0f, INT64_MAX, 9223372036854775808.0f)
#define F_U64(x)   TO_SAT(uint64_t, x, 0.0f, UINT64_MAX, 18446744073709551616.0f)
#define SAME(T, x) ((T)(x))
#define C_OF(x)    v_c64_of((float)(x), 0.0f)

#define CAST(from, to, A, Y, expr)                                                                 \
    static void cast_##from##_##to(size_t n, void *y, const void *pa) {                            \
        const A *a = pa;                                                                           \
        Y *r = y;                                                                                  \
        size_t i = 0;                                                                              \
        for (; i + 32 <= n; i += 32) {                                                             \
            V_IVDEP for (size_t j = i; j < i + 32; j++) {                                          \
                A x = a[j];                                                                        \
                r[j] = (Y)(expr);                                                                  \
            }                                                                                      \
        }                                                                                          \
        for (; i < n; i++) {                                                                       \
            A x = a[i];                                                                            \
            r[i] = (Y)(expr);                                                                      \
        }                                                                                          \
    }
#define CASTS_INT(from, A)                                                                         \
    CAST(from, b, A, uint8_t, TO_B(x))                                                             \
    CAST(from, i32, A, int32_t, x)                                                                 \
    CAST(from, u32, A, uint32_t, x)                                                                \
    CAST(from, i64, A, int64_t, x)                                                                 \
    CAST(from, u64, A, uint64_t, x)                                                                \
    CAST(from, f32, A, float, x)                                                                   \
    CAST(from, f64, A, double, x)                                                                  \
    CAST(from, c64, A, v_c64, C_OF(x))
CASTS_INT(b, uint8_t)
CASTS_INT(i32, int32_t)
CASTS_INT(u32, uint32_t)
CASTS_INT(i64, int64_t)
CASTS_INT(u64, uint64_t)
#define CASTS_FLOAT(from, A, R)                                                                    \
    CAST(from, b, A, uint8_t, TO_B(x))                                                             \
    CAST(from, i32, A, int32_t, F_I32(R(x)))                                                       \
    CAST(from, u32, A, uint32_t, F_U32(R(x)))                                                      \
    CAST(from, i64, A, int64_t, F_I64(R(x)))                                                       \
    CAST(from, u64, A, uint64_t, F_U64(R(x)))                                                      \
    CAST(from, f32, A, float, R(x))                                                                \
    CAST(from, f64, A, double, R(x))
#define REAL_ITSELF(x) (x)
CASTS_FLOAT(f32, float, REAL_ITSELF)
CASTS_FLOAT(f64, double, REAL_ITSELF)
CASTS_FLOAT(c64, v_c64, crealf)
CAST(f32, c64, float, v_c64, C_OF(x))
CAST(f64, c64, double, v_c64, C_OF(x))
CAST(c64, c64, v_c64, v_c64, x)

/* f64 to f32 rounded to odd: rounding that to f16 or bf16 equals rounding the f64 once. */
static void narrow_f64(size_t n, void *y, const void *pa) {
    const double *a = pa;
    float *r = y;
    for (size_t i = 0; i < n; i++) {
        float f = (float)a[i];
        uint32_t u = tni_f32_bits(f);
        if ((double)f != a[i] && a[i] == a[i] && (u & 1) == 0) {
            /* away from zero by rounding: the odd neighbour is the one below, else above */
            bool above = fabs((double)f) > fabs(a[i]);
            u = above ? u - 1 : u + 1;
        }
        r[i] = tni_bits_f32(u);
    }
}

/* ---- Loads, stores and rounding of narrow dtypes ------------------------------------------------
 */

CAST(load, i8, int8_t, int32_t, x)
CAST(load, i16, int16_t, int32_t, x)
CAST(load, u8, uint8_t, uint32_t, x)
CAST(load, u16, uint16_t, uint32_t, x)
CAST(load, bool, uint8_t, uint8_t, x != 0)
CAST(store, i8, int32_t, int8_t, x)
CAST(store, i16, int32_t, int16_t, x)
CAST(store, u8, uint32_t, uint8_t, x)
CAST(store, u16, uint32_t, uint16_t, x)
CAST(round, i8, int32_t, int32_t, (int8_t)x)
CAST(round, i16, int32_t, int32_t, (int16_t)x)
CAST(round, u8, uint32_t, uint32_t, (uint8_t)x)
CAST(round, u16, uint32_t, uint32_t, (uint16_t)x)

#define HALF(kind)                                                                                 \
    static void load_##kind(size_t n, void *y, const void *pa) {                                   \
        const uint16_t *a = pa;                                                                    \
        float *r = y;                                                                              \
        size_t i = 0;                                                                              \
        for (; i + VN <= n; i += VN) vf_store(r + i, vf_load_##kind(a + i));                       \
        for (; i < n; i++) r[i] = tni_##kind##_to_f32(a[i]);                                       \
    }                                                                                              \
    static void store_##kind(size_t n, void *y, const void *pa) {                                  \
        const float *a = pa;                                                                       \
        uint16_t *r = y;                                                                           \
        size_t i = 0;                                                                              \
        for (; i + VN <= n; i += VN) vf_store_##kind(r + i, vf_load(a + i));                       \
        for (; i < n; i++) r[i] = tni_f32_to_##kind(a[i]);                                         \
    }                                                                                              \
    static void round_##kind(size_t n, void *y, const void *pa) {                                  \
        const float *a = pa;                                                                       \
        float *r = y;                                                                              \
        size_t i = 0;                                                                              \
        for (; i + VN <= n; i += VN) vf_store(r + i, vf_round_##kind(vf_load(a + i)));             \
        for (; i < n; i++) r[i] = tni_##kind##_to_f32(tni_f32_to_##kind(a[i]));                    \
    }
HALF(f16)
HALF(bf16)

#define CASTS_ROW(from)                                                                            \
    {                                                                                              \
        cast_##from##_b, cast_##from##_i32, cast_##from##_u32, cast_##from##_i64,                  \
            cast_##from##_u64, cast_##from##_f32, cast_##from##_f64, cast_##from##_c64             \
    }

const tni_vm_isa *TNI_FN(vm)(void) {
    static const tni_vm_isa isa = {
        .name = TNI_ISA_NAME,
        .ew = {ew_b, ew_i32, ew_u32, ew_i64, ew_u64, ew_f32, ew_f64, ew_c64},
        .cast = {CASTS_ROW(b), CASTS_ROW(i32), CASTS_ROW(u32), CASTS_ROW(i64), CASTS_ROW(u64),
                 CASTS_ROW(f32), CASTS_ROW(f64), CASTS_ROW(c64)},
        .load = {[TN_BOOL] = cast_load_bool,
                 [TN_I8] = cast_load_i8,
                 [TN_I16] = cast_load_i16,
                 [TN_U8] = cast_load_u8,
                 [TN_U16] = cast_load_u16,
                 [TN_F16] = load_f16,
                 [TN_BF16] = load_bf16},
        .store = {[TN_I8] = cast_store_i8,
                  [TN_I16] = cast_store_i16,
                  [TN_U8] = cast_store_u8,
                  [TN_U16] = cast_store_u16,
                  [TN_F16] = store_f16,
                  [TN_BF16] = store_bf16},
        .round = {[TN_I8] = cast_round_i8,
                  [TN_I16] = cast_round_i16,
                  [TN_U8] = cast_round_u8,
                  [TN_U16] = cast_round_u16,
                  [TN_F16] = round_f16,
                  [TN_BF16] = round_bf16},
        .narrow_f64 = narrow_f64,
        .red = TNI_FN(vm_red),
        .machine = TNI_FN(vm_machine),
    };
    return &isa;
}
