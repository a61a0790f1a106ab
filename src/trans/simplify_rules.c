/* Rules for element-wise rows and reductions. All give the same bits, NaNs aside (a NaN stays one;
 * its sign and payload may change). Below, x and y are operands, c, 0 and 1 constants of equal
 * elements; "whole" are bool and the integers, "real" everything but complex numbers.
 *
 *   x + (-0), x - (+0), (-0) - x = -x     floats and complex; +0 for -0 would turn -0 into +0
 *   x + 0, x - 0, 0 - x = -x, x - x = 0   whole (-x and x - x not for bool, which has no sign)
 *   x * 1                                 real: complex products would lose infinities
 *   x * 0 = 0                             whole: of floats it is NaN or -0
 *   x * (-1) = -x                         real, not bool
 *   x / 1; x / c = x * (1 / c)            floats; the second where c and 1 / c are powers of two
 *                                         in the normal range: both round the same number
 *   1 / x = reciprocal(x), x * x = square(x)          the same instruction
 *   x + -y = x - y, -x + y = y - x, x - -y = x + y, -x * -y = x * y, -x / -y = x / y
 *   --x, conj conj x, not not x, ~~x = x; abs -x, abs abs x = abs x; square -x = square x;
 *   square abs x = square x (real)
 *   positive x = x; real x, conj x = x and imag x = 0 of real x;
 *   floor, ceil, trunc, round of whole x, and of what one of them gave: x
 *   not (x == y) = x != y, not (x != y) = x == y
 *   max, min, and, or of x with itself: x; x ^ x = 0; x | 0, x ^ 0, x & ~0, x << 0, x >> 0 = x;
 *   x & 0 = 0; logical and, or with a constant
 *   where(c, x, y), where(x, y, y); where(not x, y, z) = where(x, z, y)
 *   casts: to the same dtype; a -> b -> c = a -> c where b holds every a and the second cast means
 *   the same from both, or all are integers and c is no wider than b
 *   contiguous of what is row-major by the way it is made
 *   operands broadcast by hand are broadcast by the row: f(broadcast x, y) = f(x, y), and
 *   f(broadcast x) = broadcast f(x), which computes less; a number repeated is the number
 *   min, max, prod, all, any over axes of size 1: x. (A sum of one -0 is +0.) */
#include "base/err.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "ops/op.h"
#include "trans/simp.h"
#include <math.h>
#include <string.h>

/* ---- asking ---- */

static const tni_node *rules_is(const tni_simp *s, const tn_array *a, int e) {
    return tni_simp_is(s, a, TNI_OP_EW + e);
}

/* `a` is a constant of elements equal to `value`, a small whole number; -0.0 is only itself. Of
 * complex ones zeros alone are told, both parts with that sign. */
static bool rules_value(const tni_simp *s, const tn_array *a, double value) {
    tn_dtype d = (tn_dtype)a->dtype;
    if (!tni_simp_uniform_is(s, a)) return false;
    if (!tni_is_inexact(d)) return tni_load_i64(d, a->inl) == (int64_t)value;
    double re = tni_load_f64(d, a->inl);
    bool minus = signbit(value);
    if (re != value || !signbit(re) == minus) return false;
    if (d != TN_C64) return true;
    float z[2];
    memcpy(z, a->inl, sizeof z);
    return value == 0 && z[1] == 0 && !signbit(z[1]) != minus;
}

static bool rules_whole(tn_dtype d) { return !tni_is_inexact(d); }

/* ---- answering ---- */

/* x itself, repeated when the row broadcasts it. */
static tn_array *rules_give(tni_simp *s, const tni_simp_op *op, tn_array *x) {
    if (tni_same_shape(x->ndim, x->shape, op->ndim, op->shape)) return x;
    return tni_simp_broadcast(s, x, op->ndim, op->shape);
}

static tn_array *rules_number(tni_simp *s, const tni_simp_op *op, int64_t value) {
    uint64_t raw = 0;
    tni_store_i64(op->dtype, value, &raw);
    return tni_simp_uniform(s, op->dtype, &raw, op->ndim, op->shape);
}

/* Another row over arrays whose shapes broadcast to the op's. */
static tn_array *rules_row(tni_simp *s, const tni_simp_op *op, int e, int n, tn_array *const *in) {
    tni_simp_op to = {TNI_PRIM_EW(e), n, in, NULL, op->dtype, op->ndim, op->shape};
    return tni_simp_make(s, &to);
}

static tn_array *rules_row1(tni_simp *s, const tni_simp_op *op, int e, tn_array *a) {
    tn_array *x = rules_give(s, op, a);
    return x ? rules_row(s, op, e, 1, &x) : NULL;
}

static tn_array *rules_row2(tni_simp *s, const tni_simp_op *op, int e, tn_array *a, tn_array *b) {
    return rules_row(s, op, e, 2, (tn_array *[]){a, b});
}

/* ---- arithmetic ---- */

static tn_array *rules_add(tni_simp *s, const tni_simp_op *op) {
    tn_array *a = op->in[0], *b = op->in[1];
    double zero = rules_whole(op->dtype) ? 0.0 : -0.0;
    if (rules_value(s, b, zero)) return rules_give(s, op, a);
    if (rules_value(s, a, zero)) return rules_give(s, op, b);
    const tni_node *n = rules_is(s, b, TNI_EW_neg);
    if (n) return rules_row2(s, op, TNI_EW_sub, a, n->in[0]);
    n = rules_is(s, a, TNI_EW_neg);
    return n ? rules_row2(s, op, TNI_EW_sub, b, n->in[0]) : NULL;
}

static tn_array *rules_sub(tni_simp *s, const tni_simp_op *op) {
    tn_array *a = op->in[0], *b = op->in[1];
    bool whole = rules_whole(op->dtype);
    if (rules_value(s, b, 0.0)) return rules_give(s, op, a);
    if (op->dtype != TN_BOOL) {
        if (rules_value(s, a, whole ? 0.0 : -0.0)) return rules_row1(s, op, TNI_EW_neg, b);
        if (whole && a == b) return rules_number(s, op, 0);
    }
    const tni_node *n = rules_is(s, b, TNI_EW_neg);
    return n ? rules_row2(s, op, TNI_EW_add, a, n->in[0]) : NULL;
}

static tn_array *rules_mul_by(tni_simp *s, const tni_simp_op *op, tn_array *x, tn_array *c) {
    bool whole = rules_whole(op->dtype), is_signed = op->dtype != TN_BOOL;
    if (op->dtype == TN_C64) return NULL;
    if (rules_value(s, c, 1)) return rules_give(s, op, x);
    if (whole && rules_value(s, c, 0)) return rules_number(s, op, 0);
    if (is_signed && !tni_is_unsigned(op->dtype) && rules_value(s, c, -1))
        return rules_row1(s, op, TNI_EW_neg, x);
    return NULL;
}

static tn_array *rules_mul(tni_simp *s, const tni_simp_op *op) {
    tn_array *a = op->in[0], *b = op->in[1], *y = rules_mul_by(s, op, a, b);
    if (!y && !s->status) y = rules_mul_by(s, op, b, a);
    if (y || s->status) return y;
    if (a == b) return rules_row1(s, op, TNI_EW_square, a);
    const tni_node *m = rules_is(s, a, TNI_EW_neg), *n = rules_is(s, b, TNI_EW_neg);
    return m && n && op->dtype != TN_C64 ? rules_row2(s, op, TNI_EW_mul, m->in[0], n->in[0]) : NULL;
}

/* 1 / c as a constant, where c is a power of two and both are normal numbers. */
static tn_array *rules_inverse(tni_simp *s, const tn_array *c) {
    tn_dtype d = (tn_dtype)c->dtype;
    if (!tni_simp_uniform_is(s, c) || !tni_is_float(d)) return NULL;
    double v = tni_load_f64(d, c->inl);
    int e, limit = d == TN_F64 ? 1022 : d == TN_F16 ? 14 : 126; /* largest exponents, less 1 */
    if (!isfinite(v) || fabs(frexp(v, &e)) != 0.5 || e - 1 > limit || 1 - e > limit) return NULL;
    uint64_t raw = 0;
    tni_store_f64(d, 1 / v, &raw);
    return tni_simp_uniform(s, d, &raw, c->ndim, c->shape);
}

static tn_array *rules_div(tni_simp *s, const tni_simp_op *op) {
    tn_array *a = op->in[0], *b = op->in[1];
    if (op->dtype == TN_C64) return NULL;
    if (rules_value(s, b, 1)) return rules_give(s, op, a);
    tn_array *c = rules_inverse(s, b);
    if (c) return rules_row2(s, op, TNI_EW_mul, a, c);
    if (s->status) return NULL;
    if (rules_value(s, a, 1)) return rules_row1(s, op, TNI_EW_reciprocal, b);
    const tni_node *m = rules_is(s, a, TNI_EW_neg), *n = rules_is(s, b, TNI_EW_neg);
    return m && n ? rules_row2(s, op, TNI_EW_div, m->in[0], n->in[0]) : NULL;
}

/* ---- rows of one operand ---- */

/* What a row of one operand undoes or repeats. */
static tn_array *rules_unary(tni_simp *s, const tni_simp_op *op) {
    tn_array *a = op->in[0];
    tn_dtype d = (tn_dtype)a->dtype;
    const tni_node *n = tni_simp_made(s, a) && a->node->prim->kind == TNI_K_EW ? a->node : NULL;
    int under = n ? n->prim->code : -1, e = op->prim->code;
    switch (e) {
    case TNI_EW_neg:
    case TNI_EW_bitwise_invert:
        return under == e ? n->in[0] : NULL;
    case TNI_EW_logical_not:
        if (under == e) return n->in[0];
        if (under == TNI_EW_equal) return rules_row(s, op, TNI_EW_not_equal, 2, n->in);
        return under == TNI_EW_not_equal ? rules_row(s, op, TNI_EW_equal, 2, n->in) : NULL;
    case TNI_EW_positive:
        return a;
    case TNI_EW_real:
    case TNI_EW_conj:
        return d != TN_C64 ? a : under == e && e == TNI_EW_conj ? n->in[0] : NULL;
    case TNI_EW_imag:
        return d != TN_C64 ? rules_number(s, op, 0) : NULL;
    case TNI_EW_abs:
        if (under == e && d != TN_C64) return a;
        return under == TNI_EW_neg ? rules_row(s, op, e, 1, n->in) : NULL;
    case TNI_EW_square:
        if (d == TN_C64 || (under != TNI_EW_neg && under != TNI_EW_abs)) return NULL;
        return n->in[0]->dtype == d ? rules_row(s, op, e, 1, n->in) : NULL;
    case TNI_EW_floor:
    case TNI_EW_ceil:
    case TNI_EW_trunc:
    case TNI_EW_round:
        if (rules_whole(d)) return a;
        return under == TNI_EW_floor || under == TNI_EW_ceil || under == TNI_EW_trunc ||
                       under == TNI_EW_round
                   ? a
                   : NULL;
    default:
        return NULL;
    }
}

/* ---- logic and choice ---- */

static tn_array *rules_logic(tni_simp *s, const tni_simp_op *op, bool is_and) {
    for (int i = 0; i < 2; i++) {
        tn_array *x = op->in[i], *c = op->in[1 - i];
        if (!tni_simp_uniform_is(s, c)) continue;
        bool value = c->inl[0] & 0xff;
        return value == is_and ? rules_give(s, op, x) : rules_number(s, op, value);
    }
    return op->in[0] == op->in[1] ? op->in[0] : NULL;
}

static tn_array *rules_bits(tni_simp *s, const tni_simp_op *op) {
    int e = op->prim->code;
    double ones = op->dtype == TN_BOOL ? 1 : -1;
    if (op->in[0] == op->in[1]) return e == TNI_EW_bitwise_xor ? rules_number(s, op, 0) : op->in[0];
    for (int i = 0; i < 2; i++) {
        tn_array *x = op->in[i], *c = op->in[1 - i];
        bool zero = rules_value(s, c, 0);
        if (zero && e == TNI_EW_bitwise_and) return rules_number(s, op, 0);
        if (zero) return rules_give(s, op, x);
        if (e == TNI_EW_bitwise_and && !tni_is_unsigned(op->dtype) && rules_value(s, c, ones))
            return rules_give(s, op, x);
    }
    return NULL;
}

static tn_array *rules_where(tni_simp *s, const tni_simp_op *op) {
    tn_array *c = op->in[0], *x = op->in[1], *y = op->in[2];
    if (x == y) return rules_give(s, op, x);
    if (tni_simp_uniform_is(s, c)) return rules_give(s, op, c->inl[0] & 0xff ? x : y);
    const tni_node *n = rules_is(s, c, TNI_EW_logical_not);
    return n ? rules_row(s, op, TNI_EW_where, 3, (tn_array *[]){n->in[0], y, x}) : NULL;
}

static tn_array *rules_code(tni_simp *s, const tni_simp_op *op) {
    switch (op->prim->code) {
    case TNI_EW_add:
        return rules_add(s, op);
    case TNI_EW_sub:
        return rules_sub(s, op);
    case TNI_EW_mul:
        return rules_mul(s, op);
    case TNI_EW_div:
        return rules_div(s, op);
    case TNI_EW_maximum:
    case TNI_EW_minimum:
        return op->in[0] == op->in[1] ? op->in[0] : NULL;
    case TNI_EW_logical_and:
    case TNI_EW_logical_or:
        return rules_logic(s, op, op->prim->code == TNI_EW_logical_and);
    case TNI_EW_bitwise_and:
    case TNI_EW_bitwise_or:
    case TNI_EW_bitwise_xor:
        return rules_bits(s, op);
    case TNI_EW_left_shift:
    case TNI_EW_right_shift:
        return rules_value(s, op->in[1], 0) ? rules_give(s, op, op->in[0]) : NULL;
    case TNI_EW_where:
        return rules_where(s, op);
    default:
        return op->n_in == 1 ? rules_unary(s, op) : NULL;
    }
}

/* ---- casts and copies ---- */

/* Every value of dtype a is one of dtype b. */
static bool rules_holds(tn_dtype a, tn_dtype b) {
    static const int8_t bits[TN_DTYPE_COUNT] = {
        [TN_BOOL] = 1, [TN_U8] = 8,   [TN_U16] = 16, [TN_U32] = 32, [TN_U64] = 64,
        [TN_I8] = 7,   [TN_I16] = 15, [TN_I32] = 31, [TN_I64] = 63, /* and a sign */
        [TN_F16] = 11, [TN_BF16] = 8, [TN_F32] = 24, [TN_F64] = 53, [TN_C64] = 24};
    if (a == b || a == TN_BOOL) return true;
    if (b == TN_BOOL || a == TN_C64) return false;
    if (!tni_is_inexact(a) && b == TN_F16) return bits[a] <= 8; /* its range ends at 65504 */
    if (!tni_is_inexact(a) && tni_is_inexact(b)) return bits[a] <= bits[b];
    if (!tni_is_inexact(a)) return bits[a] <= bits[b] && (tni_is_signed(b) || !tni_is_signed(a));
    return (b == TN_F32 || b == TN_F64 || b == TN_C64) && bits[a] <= bits[b];
}

/* A number becomes an integer by wrapping when it is one, by clamping when it is a float, so that
 * an integer may take the way over floats only where neither happens. */
bool tni_simp_cast_chain(tn_dtype a, tn_dtype b, tn_dtype c) {
    if (tni_is_int(a) && tni_is_int(b) && tni_is_int(c) && tn_dtype_size(c) <= tn_dtype_size(b))
        return true;
    if (!rules_holds(a, b)) return false;
    return tni_is_inexact(a) || !tni_is_inexact(b) || !tni_is_int(c) || rules_holds(a, c);
}

static tn_array *rules_cast(tni_simp *s, const tni_simp_op *op) {
    tn_array *a = op->in[0];
    if (a->dtype == op->dtype) return a;
    const tni_node *n = tni_simp_is(s, a, TNI_OP_astype);
    if (!n || !tni_simp_cast_chain((tn_dtype)n->in[0]->dtype, (tn_dtype)a->dtype, op->dtype))
        return NULL;
    tni_simp_op to = *op;
    to.in = n->in;
    return tni_simp_make(s, &to);
}

static tn_array *rules_copy(const tni_simp *s, const tni_simp_op *op) {
    const tn_array *a = op->in[0];
    const tni_node *n = tni_simp_is(s, a, TNI_OP_reshape);
    if (n) a = n->in[0]; /* of what is row-major, row-major */
    if (tni_simp_constant(s, a)) return tni_row_major(a) || !a->buf ? op->in[0] : NULL;
    return tni_simp_made(s, a) && a->node->prim->kind != TNI_K_VIEW ? op->in[0] : NULL;
}

/* ---- broadcasting ---- */

/* The operand without what the row would repeat: the array under a broadcast, a single number. */
static tn_array *rules_strip(tni_simp *s, tn_array *a) {
    const tni_node *n = tni_simp_is(s, a, TNI_OP_broadcast_to);
    if (n) return n->in[0];
    return a->ndim && tni_simp_uniform_is(s, a)
               ? tni_simp_uniform(s, (tn_dtype)a->dtype, a->inl, 0, NULL)
               : a;
}

static tn_array *rules_broadcast(tni_simp *s, const tni_simp_op *op) {
    tn_array *in[3];
    int64_t shape[TN_MAX_NDIM];
    int ndim = 0;
    bool any = false;
    for (int i = 0; i < op->n_in; i++) {
        in[i] = rules_strip(s, op->in[i]);
        if (!in[i]) return NULL;
        any = any || in[i] != op->in[i];
        if (!tni_broadcast(ndim, shape, in[i]->ndim, in[i]->shape, &ndim, shape)) return NULL;
    }
    if (!any) return NULL;
    tni_simp_op to = {op->prim, op->n_in, in, op->params, op->dtype, ndim, shape};
    tn_array *y = tni_simp_make(s, &to);
    return y ? rules_give(s, op, y) : NULL;
}

tn_array *tni_simp_ew_rule(tni_simp *s, const tni_simp_op *op) {
    tn_array *y = NULL;
    if (op->prim->code == TNI_CODE_CAST)
        y = rules_cast(s, op);
    else if (op->prim->code == TNI_CODE_COPY)
        y = rules_copy(s, op);
    else
        y = rules_code(s, op);
    if (y || s->status || op->prim->code == TNI_CODE_COPY) return y;
    return rules_broadcast(s, op);
}

/* ---- reductions ---- */

tn_array *tni_simp_reduce_rule(tni_simp *s, const tni_simp_op *op) {
    tn_array *a = op->in[0];
    (void)s;
    switch (op->prim->code) {
    case TNI_RED_min:
    case TNI_RED_max:
    case TNI_RED_prod:
    case TNI_RED_all:
    case TNI_RED_any:
        if (a->dtype == op->dtype && tni_same_shape(a->ndim, a->shape, op->ndim, op->shape))
            return a;
        return NULL;
    default:
        return NULL;
    }
}
