/* The register-threaded machine: a fused float program is a list of handlers; eight vector
 * registers, the accumulators, go from one to the next as arguments in registers (SysV x86-64
 * and AAPCS64 pass eight), and every handler ends in a jump to the next. Nothing is stored
 * between operations but what a fork in the graph needs, and no code is made at run time.
 *
 * Each handler works on one tile, 8 VN floats: 128 with AVX-512, 64 with AVX2, 32 with NEON.
 * Built without optimisation the jumps are calls, one level an instruction: the last handler
 * returns, so depth is bounded by the program and sanitizers can watch. */
#include "cpu/vm.h"
#include "cpu/vm_words.h"

#define CLS f32
#define MACH_ARGS                                                                                  \
    const tni_code *pc, size_t i, vf v0, vf v1, vf v2, vf v3, vf v4, vf v5, vf v6, vf v7
typedef void (*mach_fn)(MACH_ARGS);
#define MACH_GO                                                                                    \
    do {                                                                                           \
        const tni_code *next_ = pc + 1;                                                            \
        ((mach_fn)next_->fn)(next_, i, v0, v1, v2, v3, v4, v5, v6, v7);                            \
    } while (0)

V_FN const float *mach_p(const tni_code *pc, size_t i) {
    return (const float *)(const void *)pc->p + (i & pc->p_mask);
}
V_FN const float *mach_q(const tni_code *pc, size_t i) {
    return (const float *)(const void *)pc->q + (i & pc->q_mask);
}
V_FN const uint16_t *mach_h(const tni_code *pc, size_t i) {
    return (const uint16_t *)(const void *)pc->p + (i & pc->p_mask);
}

/* ---- Every op, from its row ------------------------------------------------------------------ */

#define HAS_NUM  1
#define HAS_SIG  1
#define HAS_REAL 1
#define HAS_FLT  1
#define HAS_FLTR 1
#define HAS_RE   1
#define HAS_CMP  1
#define HAS_TEST 1
#define HAS_LOG  1
#define HAS_INT  0
#define HAS_SHF  0
#define HAS_SEL  0

/* The value column as a function, and handlers in a loop form that keeps long functions short. */
#define MACH_1_0(name, value)
#define MACH_1_1(name, value)                                                                      \
    V_FN vf x_##name(vf a) {                                                                       \
        (void)a;                                                                                   \
        return value;                                                                              \
    }                                                                                              \
    static void g_##name(MACH_ARGS) {                                                              \
        vf t[8] = {v0, v1, v2, v3, v4, v5, v6, v7};                                                \
        for (int j = 0; j < 8; j++) t[j] = x_##name(t[j]);                                         \
        v0 = t[0], v1 = t[1], v2 = t[2], v3 = t[3], v4 = t[4], v5 = t[5], v6 = t[6], v7 = t[7];    \
        MACH_GO;                                                                                   \
    }
#define MACH_2_0(name, value)
#define MACH_2_1(name, value)                                                                      \
    V_FN vf x_##name(vf a, vf b) { return value; }                                                 \
    static void g_##name(MACH_ARGS) {                                                              \
        const float *p = mach_p(pc, i);                                                            \
        vf t[8] = {v0, v1, v2, v3, v4, v5, v6, v7};                                                \
        for (int j = 0; j < 8; j++) t[j] = x_##name(t[j], vf_load(p + j * VN));                    \
        v0 = t[0], v1 = t[1], v2 = t[2], v3 = t[3], v4 = t[4], v5 = t[5], v6 = t[6], v7 = t[7];    \
        MACH_GO;                                                                                   \
    }                                                                                              \
    static void gr_##name(MACH_ARGS) {                                                             \
        const float *p = mach_p(pc, i);                                                            \
        vf t[8] = {v0, v1, v2, v3, v4, v5, v6, v7};                                                \
        for (int j = 0; j < 8; j++) t[j] = x_##name(vf_load(p + j * VN), t[j]);                    \
        v0 = t[0], v1 = t[1], v2 = t[2], v3 = t[3], v4 = t[4], v5 = t[5], v6 = t[6], v7 = t[7];    \
        MACH_GO;                                                                                   \
    }
#define EW1(name, dom, value, deriv, doc)  W_CAT(MACH_1_, HAS_##dom)(name, value)
#define EW2(name, dom, value, da, db, doc) W_CAT(MACH_2_, HAS_##dom)(name, value)
#define EW3(name, dom, value, da, db, dc, doc)
#include "ops/elementwise.def"
#undef EW1
#undef EW2
#undef EW3

/* The row's index is used, so that EW1 and EW2 need not know what a form lacks. */
#define MACH_E1_0(name)
#define MACH_E1_1(name) [TNI_EW_##name] = {.u = (tni_handler)g_##name},
#define MACH_E2_0(name)
#define MACH_E2_1(name)                                                                            \
    [TNI_EW_##name] = {.m = (tni_handler)g_##name, .mr = (tni_handler)gr_##name},
#define EW1(name, dom, value, deriv, doc)  W_CAT(MACH_E1_, HAS_##dom)(name)
#define EW2(name, dom, value, da, db, doc) W_CAT(MACH_E2_, HAS_##dom)(name)
#define EW3(name, dom, value, da, db, dc, doc)
static const tni_mach_op mach_ops[TNI_EW_COUNT] = {
#include "ops/elementwise.def"
};
#undef EW1
#undef EW2
#undef EW3

/* ---- The ops that chains are made of: all forms, unrolled over the accumulators ---- */

/* It would break these lists at other places each time. */
/* clang-format off */
#define MACH_HOT1(X) \
    X(neg) X(abs) X(square) X(sqrt) X(rsqrt) X(reciprocal) X(exp) X(log) X(tanh) X(sigmoid) X(erf) \
    X(floor) X(round) X(sign) X(logical_not)
#define MACH_HOT2(X) \
    X(add) X(sub) X(mul) X(div) X(maximum) X(minimum) X(equal) X(not_equal) X(less) X(less_equal) \
    X(greater) X(greater_equal) X(logical_and) X(logical_or)
/* clang-format on */

#define MACH_UNROLLED(fname, setup, expr)                                                          \
    static void fname(MACH_ARGS) {                                                                 \
        setup;                                                                                     \
        MACH_STEP(0, v0, expr)                                                                     \
        MACH_STEP(1, v1, expr)                                                                     \
        MACH_STEP(2, v2, expr)                                                                     \
        MACH_STEP(3, v3, expr)                                                                     \
        MACH_STEP(4, v4, expr)                                                                     \
        MACH_STEP(5, v5, expr)                                                                     \
        MACH_STEP(6, v6, expr)                                                                     \
        MACH_STEP(7, v7, expr)                                                                     \
        MACH_GO;                                                                                   \
    }
#define MACH_STEP(k, acc, expr)                                                                    \
    {                                                                                              \
        enum { J = (k)*VN };                                                                       \
        const vf a = acc;                                                                          \
        (void)a;                                                                                   \
        acc = expr;                                                                                \
    }
#define MACH_M const float *p = mach_p(pc, i)
#define MACH_S const vf s = vf_set(pc->imm)
#define MACH_H const uint16_t *p = mach_h(pc, i)

#define MACH_DEF1(name) MACH_UNROLLED(u_##name, (void)0, x_##name(a))
MACH_HOT1(MACH_DEF1)
#define MACH_DEF2(name)                                                                            \
    MACH_UNROLLED(m_##name, MACH_M, x_##name(a, vf_load(p + J)))                                   \
    MACH_UNROLLED(mr_##name, MACH_M, x_##name(vf_load(p + J), a))                                  \
    MACH_UNROLLED(s_##name, MACH_S, x_##name(a, s))                                                \
    MACH_UNROLLED(sr_##name, MACH_S, x_##name(s, a))                                               \
    MACH_UNROLLED(h_##name, MACH_H, x_##name(a, vf_load_f16(p + J)))                               \
    MACH_UNROLLED(hr_##name, MACH_H, x_##name(vf_load_f16(p + J), a))                              \
    MACH_UNROLLED(b_##name, MACH_H, x_##name(a, vf_load_bf16(p + J)))                              \
    MACH_UNROLLED(br_##name, MACH_H, x_##name(vf_load_bf16(p + J), a))
MACH_HOT2(MACH_DEF2)

#define MACH_HOT_ROW1(name) [TNI_EW_##name] = {.u = (tni_handler)u_##name},
#define MACH_HOT_ROW2(name)                                                                        \
    [TNI_EW_##name] = {.m = (tni_handler)m_##name,                                                 \
                       .mr = (tni_handler)mr_##name,                                               \
                       .s = (tni_handler)s_##name,                                                 \
                       .sr = (tni_handler)sr_##name,                                               \
                       .h = (tni_handler)h_##name,                                                 \
                       .hr = (tni_handler)hr_##name,                                               \
                       .b = (tni_handler)b_##name,                                                 \
                       .br = (tni_handler)br_##name},
static const tni_mach_op mach_hot[TNI_EW_COUNT] = {MACH_HOT1(MACH_HOT_ROW1)
                                                       MACH_HOT2(MACH_HOT_ROW2)};

/* where: the accumulators are the condition, the first or the second value */
#define MACH_MM MACH_M, *q = mach_q(pc, i)
MACH_UNROLLED(sel_a, MACH_MM, w_select_f32(a, vf_load(p + J), vf_load(q + J)))
MACH_UNROLLED(sel_b, MACH_MM, w_select_f32(vf_load(p + J), a, vf_load(q + J)))
MACH_UNROLLED(sel_c, MACH_MM, w_select_f32(vf_load(p + J), vf_load(q + J), a))

/* a product and a sum, each rounded: what the two handlers give, at one dispatch */
#define MACH_MS                                                                                    \
    MACH_M;                                                                                        \
    const vf t = vf_set(pc->imm2)
#define MACH_SM                                                                                    \
    MACH_S;                                                                                        \
    const float *q = mach_q(pc, i)
#define MACH_SS MACH_S, t = vf_set(pc->imm2)
MACH_UNROLLED(mul_add_mm, MACH_MM, a *vf_load(p + J) + vf_load(q + J))
MACH_UNROLLED(mul_add_ms, MACH_MS, a *vf_load(p + J) + t)
MACH_UNROLLED(mul_add_sm, MACH_SM, a *s + vf_load(q + J))
MACH_UNROLLED(mul_add_ss, MACH_SS, a *s + t)

/* ---- Loads, stores, rounding
 * --------------------------------------------------------------------- */

MACH_UNROLLED(load_f32, MACH_M, vf_load(p + J))
MACH_UNROLLED(load_s, MACH_S, s)
MACH_UNROLLED(load_f16, MACH_H, vf_load_f16(p + J))
MACH_UNROLLED(load_bf16, MACH_H, vf_load_bf16(p + J))
#define MACH_LOAD_INT(name, T)                                                                     \
    MACH_UNROLLED(load_##name, const T *p = (const T *)(const void *)pc->p + (i & pc->p_mask),     \
                  vf_load_##name(p + J))
MACH_LOAD_INT(u8, uint8_t)
MACH_LOAD_INT(i8, int8_t)
MACH_LOAD_INT(u16, uint16_t)
MACH_LOAD_INT(i16, int16_t)
MACH_LOAD_INT(u32, uint32_t)
MACH_LOAD_INT(i32, int32_t)
MACH_UNROLLED(load_bool, const uint8_t *p = (const uint8_t *)pc->p + (i & pc->p_mask),
              vf_of_mask(vf_ne(vf_load_u8(p + J), vf_set(0.0f))))

#define MACH_STORE(name, T, put)                                                                   \
    static void store_##name(MACH_ARGS) {                                                          \
        T *p = (T *)(void *)pc->p + (i & pc->p_mask);                                              \
        put(p, v0);                                                                                \
        put(p + VN, v1);                                                                           \
        put(p + 2 * VN, v2);                                                                       \
        put(p + 3 * VN, v3);                                                                       \
        put(p + 4 * VN, v4);                                                                       \
        put(p + 5 * VN, v5);                                                                       \
        put(p + 6 * VN, v6);                                                                       \
        put(p + 7 * VN, v7);                                                                       \
        MACH_GO;                                                                                   \
    }
MACH_STORE(f32, float, vf_store)
MACH_STORE(stream, float, vf_stream)
MACH_STORE(f16, uint16_t, vf_store_f16)
MACH_STORE(bf16, uint16_t, vf_store_bf16)
MACH_STORE(bool, uint8_t, vf_store_bool)
MACH_UNROLLED(round_to_f16, (void)0, vf_round_f16(a))
MACH_UNROLLED(round_to_bf16, (void)0, vf_round_bf16(a))

/* Asks for what the loop wants two tiles later. Eight loads of one array, then eight of the next:
 * the hardware runs ahead of that less well than of a loop that takes turns (590 ns against 465
 * for 1000 elements of a * b + c from memory, 510 with this). */
#define MACH_FETCH(name, T)                                                                        \
    static void fetch_##name(MACH_ARGS) {                                                          \
        enum { TILE = 8 * VN * sizeof(T), LINE = 64 };                                             \
        uintptr_t p = (uintptr_t)((const T *)(const void *)pc->p + i) + 2 * TILE;                  \
        for (int k = 0; k < TILE; k += LINE) __builtin_prefetch((const void *)(p + (uintptr_t)k)); \
        MACH_GO;                                                                                   \
    }
MACH_FETCH(f32, float)
MACH_FETCH(half, uint16_t)

static void mach_end(MACH_ARGS) {
    (void)pc, (void)i, (void)v0, (void)v1, (void)v2, (void)v3, (void)v4, (void)v5, (void)v6,
        (void)v7;
}

static void mach_run(const tni_code *code, size_t n, bool streams) {
    vf z = vf_set(0.0f);
    for (size_t i = 0; i < n; i += 8 * VN) ((mach_fn)code->fn)(code, i, z, z, z, z, z, z, z, z);
    if (streams) v_fence();
}

const tni_machine *TNI_FN(vm_machine)(void) {
    static const tni_machine m = {
        .tile = 8 * VN,
        .align = VN * sizeof(float),
        .ops = mach_ops,
        .hot = mach_hot,
        .sel_a = (tni_handler)sel_a,
        .sel_b = (tni_handler)sel_b,
        .sel_c = (tni_handler)sel_c,
        .load = {[TN_BOOL] = (tni_handler)load_bool,
                 [TN_U8] = (tni_handler)load_u8,
                 [TN_I8] = (tni_handler)load_i8,
                 [TN_U16] = (tni_handler)load_u16,
                 [TN_I16] = (tni_handler)load_i16,
                 [TN_U32] = (tni_handler)load_u32,
                 [TN_I32] = (tni_handler)load_i32,
                 [TN_F16] = (tni_handler)load_f16,
                 [TN_BF16] = (tni_handler)load_bf16,
                 [TN_F32] = (tni_handler)load_f32},
        .load_s = (tni_handler)load_s,
        .store = {[TN_BOOL] = (tni_handler)store_bool,
                  [TN_F16] = (tni_handler)store_f16,
                  [TN_BF16] = (tni_handler)store_bf16,
                  [TN_F32] = (tni_handler)store_f32},
        .stream = (tni_handler)store_stream,
        .round = {[TN_F16] = (tni_handler)round_to_f16, [TN_BF16] = (tni_handler)round_to_bf16},
        .mul_add_mm = (tni_handler)mul_add_mm,
        .mul_add_ms = (tni_handler)mul_add_ms,
        .mul_add_sm = (tni_handler)mul_add_sm,
        .mul_add_ss = (tni_handler)mul_add_ss,
        .fetch = {[TN_F32] = (tni_handler)fetch_f32,
                  [TN_F16] = (tni_handler)fetch_half,
                  [TN_BF16] = (tni_handler)fetch_half},
        .end = (tni_handler)mach_end,
        .run = mach_run,
    };
    return &m;
}
