/* One class of values: a kernel for each row of elementwise.def that has it, and the table of
 * them, ew_CLS. Included by vm_tile_isa.c once per class, with
 *   CLS   the class's suffix           T    how a value is stored
 *   U     how an expression sees it    RE_T what abs, real and imag store
 *   HAS_dom  1 for each dtype rule of elementwise.def whose ops compute in the class; 0 for the
 *            others. They stay defined, for the next class.
 * The f32 class is expanded over vectors (V_ROWS). No include guard on purpose. */

#define ROW_FN(name) W_CAT(W_CAT(k_, name), W_CAT(_, CLS))
#define RES_NUM      T
#define RES_SIG      T
#define RES_REAL     T
#define RES_FLT      T
#define RES_FLTR     T
#define RES_INT      T
#define RES_SHF      T
#define RES_SEL      T
#define RES_RE       RE_T
#define RES_CMP      uint8_t
#define RES_TEST     uint8_t
#define RES_LOG      uint8_t

#ifdef V_ROWS
/* f32: VN lanes a step; the rest through a padded copy. */
V_FN vf row_get(const float *p, size_t i, size_t n) { return v_part(p, i, n, 0.0f); }
V_FN void row_put_T(float *p, vf a, size_t i, size_t n) {
    if (i + VN <= n)
        vf_store(p + i, a);
    else
        vf_store_n(p + i, a, n - i);
}
V_FN void row_put_B(uint8_t *p, vf a, size_t i, size_t n) {
    uint8_t t[VN];
    vf_store_bool(t, a);
    for (size_t j = 0; j < VN && i + j < n; j++) p[i + j] = t[j];
}
V_FN vf row_get_b(const uint8_t *p, size_t i, size_t n) {
    uint8_t t[VN];
    for (size_t j = 0; j < VN; j++) t[j] = i + j < n ? p[i + j] : 0;
    return vf_load_u8(t);
}
#define PUT_NUM  row_put_T
#define PUT_SIG  row_put_T
#define PUT_REAL row_put_T
#define PUT_FLT  row_put_T
#define PUT_FLTR row_put_T
#define PUT_INT  row_put_T
#define PUT_SHF  row_put_T
#define PUT_SEL  row_put_T
#define PUT_RE   row_put_T
#define PUT_CMP  row_put_B
#define PUT_TEST row_put_B
#define PUT_LOG  row_put_B
#define ROW_LOOP(dom, arity, value)                                                                \
    for (size_t i = 0; i < n; i += VN) {                                                           \
        vf a = ROW_A##arity, b = ROW_B##arity, c = ROW_C##arity;                                   \
        (void)a, (void)b, (void)c;                                                                 \
        PUT_##dom(py, value, i, n);                                                                \
    }
#define ROW_A1 row_get((const float *)pa, i, n)
#define ROW_A2 ROW_A1
#define ROW_A3 row_get_b((const uint8_t *)pa, i, n)
#define ROW_B1 a
#define ROW_B2 row_get((const float *)pb, i, n)
#define ROW_B3 ROW_B2
#define ROW_C1 a
#define ROW_C2 a
#define ROW_C3 row_get((const float *)pc, i, n)
#else
/* Steps of 32 with a constant trip count vectorise at -O2; y may be an operand, so no restrict. */
#define ROW_LOOP(dom, arity, value)                                                                \
    size_t i = 0;                                                                                  \
    for (; i + 32 <= n; i += 32) {                                                                 \
        V_IVDEP for (size_t j = i; j < i + 32; j++) { ROW_STEP(dom, arity, j, value) }             \
    }                                                                                              \
    for (; i < n; i++) {                                                                           \
        ROW_STEP(dom, arity, i, value)                                                             \
    }
#define ROW_STEP(dom, arity, at, value)                                                            \
    const size_t k = at;                                                                           \
    U a = (U)(ROW_A##arity), b = (U)(ROW_B##arity), c = (U)(ROW_C##arity);                         \
    (void)a, (void)b, (void)c;                                                                     \
    py[k] = ROW_FIX((RES_##dom)(value));
#define ROW_A1 ((const T *)pa)[k]
#define ROW_A2 ((const T *)pa)[k]
#define ROW_A3 ((const uint8_t *)pa)[k]
#define ROW_B1 a
#define ROW_B2 ((const T *)pb)[k]
#define ROW_B3 ((const T *)pb)[k]
#define ROW_C1 a
#define ROW_C2 a
#define ROW_C3 ((const T *)pc)[k]
#endif

#define ROW_EMIT_0(dom, name, arity, value)
#define ROW_EMIT_1(dom, name, arity, value)                                                        \
    static void ROW_FN(name)(size_t n, void *y, const void *pa, const void *pb, const void *pc) {  \
        RES_##dom *py = y;                                                                         \
        (void)pb, (void)pc;                                                                        \
        ROW_LOOP(dom, arity, value)                                                                \
    }
#define EW1(name, dom, value, deriv, doc)      W_CAT(ROW_EMIT_, HAS_##dom)(dom, name, 1, value)
#define EW2(name, dom, value, da, db, doc)     W_CAT(ROW_EMIT_, HAS_##dom)(dom, name, 2, value)
#define EW3(name, dom, value, da, db, dc, doc) W_CAT(ROW_EMIT_, HAS_##dom)(dom, name, 3, value)
#include "ops/elementwise.def"
#undef EW1
#undef EW2
#undef EW3

#define ROW_ENTRY_0(name) NULL,
#define ROW_ENTRY_1(name) ROW_FN(name),
static const tni_ew_fn W_CAT(ew_, CLS)[TNI_EW_COUNT] = {
#define EW1(name, dom, value, deriv, doc)      W_CAT(ROW_ENTRY_, HAS_##dom)(name)
#define EW2(name, dom, value, da, db, doc)     W_CAT(ROW_ENTRY_, HAS_##dom)(name)
#define EW3(name, dom, value, da, db, dc, doc) W_CAT(ROW_ENTRY_, HAS_##dom)(name)
#include "ops/elementwise.def"
#undef EW1
#undef EW2
#undef EW3
};

#undef ROW_ENTRY_0
#undef ROW_ENTRY_1
#undef ROW_EMIT_0
#undef ROW_EMIT_1
#undef ROW_LOOP
#undef ROW_STEP
#undef ROW_A1
#undef ROW_A2
#undef ROW_A3
#undef ROW_B1
#undef ROW_B2
#undef ROW_B3
#undef ROW_C1
#undef ROW_C2
#undef ROW_C3
#undef ROW_FN
#undef ROW_FIX
#undef RES_NUM
#undef RES_SIG
#undef RES_REAL
#undef RES_FLT
#undef RES_FLTR
#undef RES_INT
#undef RES_SHF
#undef RES_SEL
#undef RES_RE
#undef RES_CMP
#undef RES_TEST
#undef RES_LOG
#undef CLS
#undef T
#undef U
#undef RE_T
