/* The graph simplifier: a test for every rule (what is left of the graph, and the same bits), equal
 * subexpressions, folding, random graphs over all rows and views, failures and long chains. */
#include "base/alloc.h"
#include "op_names.h"
#include "ops/build.h"
#include "random.h"
#include "rows.h"
#include "tap.h"
#include "trans/simplify.h"
#include "trans/trace.h"
#include <math.h>

/* ---- helpers ---- */

static bool same_element(tn_dtype d, const char *a, const char *b) {
    if (d == TN_C64) return same_element(TN_F32, a, b) && same_element(TN_F32, a + 4, b + 4);
    if (!memcmp(a, b, tn_dtype_size(d))) return true;
    return d >= TN_F16 && isnan(tni_load_f64(d, a)) && isnan(tni_load_f64(d, b));
}

/* The same dtype, shape and bits; any NaN is like any other. */
static bool same_bits(tn_array *a, tn_array *b) {
    tn_dtype d = tn_dtype_of(a);
    size_t n = tn_nbytes(a), w = tn_dtype_size(d);
    if (d != tn_dtype_of(b) || n != tn_nbytes(b) ||
        !tni_same_shape(a->ndim, a->shape, b->ndim, b->shape))
        return false;
    char *x = malloc(n + 1), *y = malloc(n + 1);
    bool same = !tn_read(a, d, x, n) && !tn_read(b, d, y, n);
    for (size_t i = 0; i < n && same; i += w) same = same_element(d, x + i, y + i);
    free(x), free(y);
    return same;
}

typedef struct result {
    int status, before, after; /* nodes of the plain and of the simplified graph */
    bool same;
    char names[512], plain[512];
} result;

static int count_words(const char *names) {
    int n = *names != 0;
    for (; *names; names++) n += *names == ' ';
    return n;
}

/* fn over the arguments, plain and simplified. */
static result compare(tn_fns fn, void *ud, tn_list in, int n_out) {
    result r = {0};
    tn_array *plain[8], *out[8];
    tni_trace t = {0};
    r.status = tni_trace_open(&t, in.n, in.v);
    if (!r.status) r.status = fn((tn_list){t.tracer, in.n}, out, n_out, ud);
    for (int k = 0; k < n_out; k++) plain[k] = out[k];
    if (!r.status) r.status = tni_simplify(in.n, t.tracer, n_out, out, false);
    for (int k = 0; k < n_out && !r.status; k++)
        if (!out[k] || tn_array_status(out[k])) r.status = TN_EINTERNAL;
    if (!r.status) r.status = tn_graph_check((tn_list){out, n_out});
    if (!r.status) r.status = tni_trace_walk(&t, n_out, out);
    for (int k = 0; k < n_out && !r.status; k++) out[k] = t.out[k];
    tni_trace u = t;
    memset(&t, 0, sizeof t);
    if (!r.status) op_names((tn_list){out, n_out}, r.names, sizeof r.names);
    tni_trace_free(&u);
    if (!r.status) r.status = tni_trace_open(&t, in.n, in.v);
    if (!r.status) r.status = fn((tn_list){t.tracer, in.n}, plain, n_out, ud);
    if (!r.status) r.status = tni_trace_walk(&t, n_out, plain);
    for (int k = 0; k < n_out && !r.status; k++) plain[k] = t.out[k];
    if (!r.status) op_names((tn_list){plain, n_out}, r.plain, sizeof r.plain);
    tni_trace_free(&t);
    if (!r.status) r.status = tn_eval((tn_list){plain, n_out});
    if (!r.status) r.status = tn_eval((tn_list){out, n_out});
    r.same = !r.status;
    for (int k = 0; k < n_out && r.same; k++) r.same = same_bits(plain[k], out[k]);
    r.before = count_words(r.plain), r.after = count_words(r.names);
    return r;
}

/* Awkward values of any dtype. */
static tn_array *data(tn_dtype d, int phase, tn_ints shape) {
    static const double v[] = {0,  -0.0,  1,       -1,     INFINITY, -INFINITY, NAN, 2.5,
                               -7, 1e-40, 0.1,     -0.5,   3e38,     65504,     255, -128,
                               3,  1e30,  1 / 3.0, -1e-45, 127.5,    1e9,       -3,  2147483647.0};
    enum { V = sizeof v / sizeof *v };
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++) n *= shape.v[i];
    double *x = calloc((size_t)n + 1, sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = v[(i * 7 + phase * 5) % V];
    tn_array *a = tn_astype(tn_array_new(x, TN_F64, shape), d);
    if (d == TN_C64) {
        for (int64_t i = 0; i < n; i++) x[i] = v[(i * 5 + phase * 11 + 3) % V];
        tn_array *im = tn_astype(tn_array_new(x, TN_F64, shape), TN_F32);
        int64_t two[TN_MAX_NDIM + 1];
        memcpy(two, shape.v, sizeof *two * (size_t)shape.n);
        two[shape.n] = 2;
        tn_array *pair = tn_stack(TN_LIST(tn_real(a), im), -1);
        a = tn_reshape(tn_view(pair, TN_C64), shape);
    }
    free(x);
    (void)!tn_eval(TN_LIST(a));
    return a;
}

/* ---- a rule each ---- */

enum {
    BOOLS = 1 << TN_BOOL,
    UNSIGNED = 1 << TN_U8 | 1 << TN_U16 | 1 << TN_U32 | 1 << TN_U64,
    SIGNED = 1 << TN_I8 | 1 << TN_I16 | 1 << TN_I32 | 1 << TN_I64,
    FLOATS = 1 << TN_F16 | 1 << TN_BF16 | 1 << TN_F32 | 1 << TN_F64,
    COMPLEX = 1 << TN_C64,
    INTS = UNSIGNED | SIGNED,
    WHOLE = INTS | BOOLS,
    REALS = FLOATS | SIGNED,
    ALL = WHOLE | FLOATS | COMPLEX
};

#define NUM(v)  tn_scalar(v, d)
#define FULL(v) tn_full(TN_SHAPE(3, 4), NUM(v))
#define SL(...) tn_slice(__VA_ARGS__, TN_ALL)
#define WIDE(x) tn_broadcast_to(x, TN_SHAPE(3, 4))
/* a, b: [3,4]; r: [4]; q: [3,1]; k: no axes. The names are what is left. */
#define RULES(R)                                                                                   \
    R(add_negative_zero, FLOATS | COMPLEX, "", tn_add(a, tn_neg(tn_zeros_like(a))))                \
    R(add_zero_left, FLOATS | COMPLEX, "", tn_add(tn_neg(NUM(0)), a))                              \
    R(add_zero_stays, FLOATS | COMPLEX, "add", tn_add(a, tn_contiguous(tn_zeros_like(a))))         \
    R(add_zero_whole, WHOLE, "", tn_add(a, FULL(0)))                                               \
    R(add_zero_repeats, INTS, "broadcast_to", tn_add(r, FULL(0)))                                  \
    R(add_neg, REALS | COMPLEX, "sub", tn_add(a, tn_neg(b)))                                       \
    R(neg_add, REALS | COMPLEX, "sub", tn_add(tn_neg(a), b))                                       \
    R(sub_zero, ALL, "", tn_sub(a, FULL(0)))                                                       \
    R(sub_negative_zero_stays, FLOATS, "sub", tn_sub(a, tn_neg(NUM(0))))                           \
    R(sub_from_zero, INTS, "neg", tn_sub(FULL(0), a))                                              \
    R(sub_from_zero_stays, FLOATS, "sub", tn_sub(FULL(0), a))                                      \
    R(sub_from_negative_zero, FLOATS | COMPLEX, "neg", tn_sub(tn_neg(FULL(0)), a))                 \
    R(sub_self, INTS, "", tn_sub(a, a))                                                            \
    R(sub_self_stays, FLOATS | COMPLEX | BOOLS, "sub", tn_sub(a, a))                               \
    R(sub_neg, REALS | COMPLEX, "add", tn_sub(a, tn_neg(b)))                                       \
    R(mul_one, WHOLE | FLOATS, "", tn_mul(tn_mul(tn_ones_like(a), a), NUM(1)))                     \
    R(mul_one_stays, COMPLEX, "mul", tn_mul(a, NUM(1)))                                            \
    R(mul_one_repeats, FLOATS, "broadcast_to", tn_mul(q, FULL(1)))                                 \
    R(mul_zero, WHOLE, "", tn_mul(a, NUM(0)))                                                      \
    R(mul_zero_stays, FLOATS | COMPLEX, "mul", tn_mul(a, NUM(0)))                                  \
    R(mul_minus_one, REALS, "neg", tn_mul(a, NUM(-1)))                                             \
    R(mul_self, ALL, "square", tn_mul(a, a))                                                       \
    R(mul_negs, REALS, "mul", tn_mul(tn_neg(a), tn_neg(b)))                                        \
    R(div_one, FLOATS, "", tn_div(a, NUM(1)))                                                      \
    R(div_power, FLOATS, "mul", tn_div(a, NUM(-8)))                                                \
    R(div_tiny, FLOATS, "mul", tn_div(a, NUM(0x1p-14)))                                            \
    R(div_three_stays, FLOATS, "div", tn_div(a, NUM(3)))                                           \
    R(div_inf_stays, FLOATS, "div", tn_div(a, NUM(INFINITY)))                                      \
    R(div_huge_stays, 1 << TN_F32, "div", tn_div(a, NUM(0x1p127)))                                 \
    R(div_into_one, FLOATS, "reciprocal", tn_div(NUM(1), a))                                       \
    R(div_negs, FLOATS, "div", tn_div(tn_neg(a), tn_neg(b)))                                       \
    R(neg_neg, REALS | UNSIGNED | COMPLEX, "", tn_neg(tn_neg(a)))                                  \
    R(conj_conj, COMPLEX, "", tn_conj(tn_conj(a)))                                                 \
    R(conj_real, FLOATS | INTS, "", tn_conj(tn_real(tn_positive(a))))                              \
    R(imag_real, FLOATS | WHOLE, "", tn_imag(a))                                                   \
    R(not_not, BOOLS, "", tn_logical_not(tn_logical_not(a)))                                       \
    R(not_equal, ALL, "not_equal", tn_logical_not(tn_equal(a, b)))                                 \
    R(not_not_equal, ALL, "equal", tn_logical_not(tn_not_equal(a, b)))                             \
    R(invert_invert, WHOLE, "", tn_bitwise_invert(tn_bitwise_invert(a)))                           \
    R(abs_abs, FLOATS | INTS, "abs", tn_abs(tn_abs(a)))                                            \
    R(abs_neg, REALS | COMPLEX, "abs", tn_abs(tn_neg(a)))                                          \
    R(square_neg, REALS, "square", tn_square(tn_neg(a)))                                           \
    R(square_abs, REALS, "square", tn_square(tn_abs(a)))                                           \
    R(square_abs_stays, COMPLEX, "abs square", tn_square(tn_abs(a)))                               \
    R(floor_whole, INTS, "", tn_round(tn_trunc(tn_ceil(tn_floor(a)))))                             \
    R(floor_ceil, FLOATS, "ceil", tn_round(tn_trunc(tn_floor(tn_ceil(a)))))                        \
    R(max_self, FLOATS | WHOLE | COMPLEX, "", tn_minimum(tn_maximum(a, a), a))                     \
    R(and_or_self, WHOLE, "", tn_bitwise_or(tn_bitwise_and(a, a), a))                              \
    R(xor_self, WHOLE, "", tn_bitwise_xor(a, a))                                                   \
    R(or_xor_zero, WHOLE, "", tn_bitwise_or(tn_bitwise_xor(a, NUM(0)), NUM(0)))                    \
    R(and_zero, WHOLE, "", tn_bitwise_and(a, NUM(0)))                                              \
    R(and_ones, SIGNED | BOOLS, "", tn_bitwise_and(d == TN_BOOL ? NUM(1) : NUM(-1), a))            \
    R(shift_zero, INTS, "", tn_left_shift(tn_right_shift(a, NUM(0)), NUM(0)))                      \
    R(logical_constant, BOOLS, "", tn_logical_and(tn_logical_or(a, NUM(0)), NUM(1)))               \
    R(logical_absorbed, BOOLS, "", tn_logical_and(tn_logical_or(a, NUM(1)), NUM(0)))               \
    R(logical_self, BOOLS, "", tn_logical_and(tn_logical_or(a, a), a))                             \
    R(where_same, ALL, "", tn_where(tn_equal(a, b), a, a))                                         \
    R(where_known, ALL, "", tn_where(tn_scalar(0, TN_BOOL), b, a))                                 \
    R(where_not, ALL, "equal where", tn_where(tn_logical_not(tn_not_equal(a, b)), b, a))           \
    R(where_not_bool, BOOLS, "where", tn_where(tn_logical_not(a), b, a))                           \
    R(copy_of_op, FLOATS, "exp", tn_contiguous(tn_exp(a)))                                         \
    R(copy_of_copy, FLOATS, "contiguous", tn_contiguous(tn_contiguous(a)))                         \
    R(copy_stays, ALL, "transpose contiguous", tn_contiguous(tn_transpose(a, TN_ALL)))             \
    R(reshape_back, ALL, "", tn_reshape(tn_reshape(a, TN_SHAPE(12)), TN_SHAPE(3, 4)))              \
    R(reshape_twice, ALL, "reshape", tn_reshape(tn_reshape(a, TN_SHAPE(12)), TN_SHAPE(2, 6)))      \
    R(transpose_back, ALL, "", tn_transpose(tn_transpose(a, TN_ALL), TN_ALL))                      \
    R(transpose_twice, ALL, "reshape transpose",                                                   \
      tn_transpose(tn_transpose(tn_reshape(a, TN_SHAPE(3, 2, 2)), TN_AXES(2, 0, 1)),               \
                   TN_AXES(2, 0, 1)))                                                              \
    R(transpose_ones, ALL, "reshape", tn_transpose(q, TN_ALL))                                     \
    R(broadcast_twice, ALL, "broadcast_to", tn_broadcast_to(WIDE(r), TN_SHAPE(2, 3, 4)))           \
    R(broadcast_ones, ALL, "reshape", tn_broadcast_to(a, TN_SHAPE(1, 1, 3, 4)))                    \
    R(broadcast_lead, ALL, "broadcast_to", WIDE(tn_expand_dims(r, TN_AXES(0))))                    \
    R(slice_slice, ALL, "slice",                                                                   \
      tn_slice(SL(a, TN_INTS(1, 1), TN_INTS(3, 4)), TN_INTS(1, 2), TN_INTS(INT64_MIN, INT64_MIN),  \
               TN_INTS(-1, -2)))                                                                   \
    R(flip_flip, ALL, "", tn_flip(tn_flip(a, TN_ALL), TN_ALL))                                     \
    R(slice_part, ALL, "", tn_slice_axis(tn_concatenate(TN_LIST(b, a, b), 1), 1, 4, 8))            \
    R(slice_in_part, ALL, "slice", tn_slice_axis(tn_concatenate(TN_LIST(b, a), 1), 1, 5, 7))       \
    R(slice_two_parts_stays, ALL, "concatenate slice",                                             \
      tn_slice_axis(tn_concatenate(TN_LIST(b, a), 1), 1, 3, 7))                                    \
    R(slice_broadcast, ALL, "broadcast_to", tn_slice_axis(WIDE(r), 0, 1, 3))                       \
    R(slice_broadcast_stays, ALL, "broadcast_to slice", tn_slice_axis(WIDE(r), 1, 1, 3))           \
    R(slice_of_update, ALL, "",                                                                    \
      SL(tn_slice_update(a, q, TN_INTS(0, 2), TN_ALL), TN_INTS(0, 2), TN_INTS(3, 3)))              \
    R(slice_of_update_stays, ALL, "slice_update slice",                                            \
      SL(tn_slice_update(a, q, TN_INTS(0, 2), TN_ALL), TN_INTS(0, 1), TN_INTS(3, 2)))              \
    R(split_join, ALL, "",                                                                         \
      tn_concatenate(TN_LIST(tn_slice_axis(a, 1, 0, 1), tn_slice_axis(a, 1, 1, 3),                 \
                             tn_slice_axis(a, 1, 3, 4)),                                           \
                     1))                                                                           \
    R(split_join_part, ALL, "slice slice concatenate",                                             \
      tn_concatenate(TN_LIST(tn_slice_axis(a, 1, 2, 4), tn_slice_axis(a, 1, 0, 1),                 \
                             tn_slice_axis(a, 1, 1, 3)),                                           \
                     1))                                                                           \
    R(join_one, ALL, "", tn_concatenate(TN_LIST(a, tn_slice_axis(b, 0, 1, 1)), 0))                 \
    R(join_joined, ALL, "concatenate",                                                             \
      tn_concatenate(TN_LIST(tn_concatenate(TN_LIST(a, b), 0), a), 0))                             \
    R(view_back, 1 << TN_F32, "", tn_view(tn_view(a, TN_U16), TN_F32))                             \
    R(view_twice, 1 << TN_F32, "view", tn_view(tn_view(a, TN_U8), TN_U16))                         \
    R(ew_broadcast, ALL, "equal", tn_equal(a, WIDE(r)))                                            \
    R(ew_broadcasts, ALL, "equal", tn_equal(WIDE(q), WIDE(r)))                                     \
    R(ew_small, FLOATS, "exp broadcast_to", tn_exp(WIDE(r)))                                       \
    R(cast_small, FLOATS, "astype broadcast_to", tn_astype(WIDE(r), TN_C64))                       \
    R(max_of_one, ALL, "", tn_max(tn_min(q, TN_AXES(1), true), TN_AXES(-1), true))                 \
    R(prod_of_one, FLOATS, "", tn_prod(q, TN_AXES(1), true))                                       \
    R(sum_of_one_stays, FLOATS, "sum", tn_sum(q, TN_AXES(1), true))                                \
    R(stop_gradient, ALL, "", tn_stop_gradient(a))                                                 \
    R(equal_ops, FLOATS, "add square exp", (b = tn_mul(tn_add(a, b), tn_add(b, a)), tn_exp(b)))    \
    R(constants, FLOATS, "add", tn_add(a, tn_sqrt(tn_add(NUM(1), NUM(3)))))

#define R_FN(name, dtypes, left, expr)                                                             \
    static int rule_##name(tn_list in, tn_array **out, int n_out, void *ud) {                      \
        tn_array *a = in.v[0], *b = in.v[1], *r = in.v[2], *q = in.v[3];                           \
        tn_dtype d = tn_dtype_of(a);                                                               \
        (void)n_out, (void)ud, (void)b, (void)r, (void)q, (void)d;                                 \
        out[0] = expr;                                                                             \
        return tn_array_status(out[0]);                                                            \
    }
RULES(R_FN)

static const struct {
    const char *name, *left;
    unsigned dtypes;
    tn_fns fn;
} rule_list[] = {
#define R_ROW(name, dtypes, left, expr) {#name, left, dtypes, rule_##name},
    RULES(R_ROW)};

static void test_rule(int i, tn_dtype d) {
    result r = {0};
    TN_SCOPE {
        tn_list in = TN_LIST(data(d, 0, TN_SHAPE(3, 4)), data(d, 1, TN_SHAPE(3, 4)),
                             data(d, 2, TN_SHAPE(4)), data(d, 3, TN_SHAPE(3, 1)));
        r = compare(rule_list[i].fn, NULL, in, 1);
    }
    bool as_said = !strcmp(r.names, rule_list[i].left);
    bool smaller = strcmp(r.names, r.plain) || strstr(rule_list[i].name, "stays");
    ok(!r.status && r.same && as_said && smaller, "%s, %s", rule_list[i].name, tn_dtype_name(d));
    if (r.status || !r.same || !as_said || !smaller)
        diag("  %s: \"%s\", then \"%s\", not \"%s\"; %s %s", r.same ? "same bits" : "OTHER BITS",
             r.plain, r.names, rule_list[i].left, tn_status_name(r.status), tn_error());
}

static void test_rules(void) {
    for (size_t i = 0; i < sizeof rule_list / sizeof *rule_list; i++)
        for (int d = 0; d < TN_DTYPE_COUNT; d++)
            if (rule_list[i].dtypes >> d & 1) test_rule((int)i, (tn_dtype)d);
}

/* ---- casts ---- */

static int cast_fn(tn_list in, tn_array **out, int n_out, void *ud) {
    const tn_dtype *d = ud;
    (void)n_out;
    out[0] = tn_astype(tn_astype(in.v[0], d[0]), d[1]);
    return tn_array_status(out[0]);
}

/* Every chain of three dtypes: the same bits, and the exact ones become one cast. */
static void test_casts(void) {
    int shorter = 0;
    bool fine = true;
    for (int a = 0; a < TN_DTYPE_COUNT; a++)
        for (int b = 0; b < TN_DTYPE_COUNT; b++)
            for (int c = 0; c < TN_DTYPE_COUNT; c++) {
                result r = {0};
                TN_SCOPE {
                    r = compare(cast_fn, (tn_dtype[]){(tn_dtype)b, (tn_dtype)c},
                                TN_LIST(data((tn_dtype)a, 0, TN_SHAPE(24))), 1);
                }
                if (!r.same)
                    diag("  %s to %s to %s", tn_dtype_name((tn_dtype)a), tn_dtype_name((tn_dtype)b),
                         tn_dtype_name((tn_dtype)c));
                fine = fine && r.same && r.after <= r.before;
                shorter += a != b && b != c && r.after < r.before;
            }
    ok(fine, "every cast of a cast gives the same bits");
    is_i64(shorter, 803, "chains of different dtypes that got shorter");
}

/* ---- folding and equal subexpressions ---- */

static int fold_fn(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *key = tn_random_key(7), *w = ud, *x = in.v[0];
    (void)n_out;
    out[0] = tn_add(x, tn_random_uniform(NULL, NULL, TN_SHAPE(3, 4), TN_F32, key));
    out[1] = tn_add(x, tn_random_uniform(NULL, NULL, TN_SHAPE(3, 4), TN_F32, tn_random_key(7)));
    out[2] = tn_mul(x, tn_sum(w, TN_ALL, false));
    out[3] = tn_add(x, tn_sum(tn_exp(w), TN_AXES(0), false)); /* exp(w) is too large to keep */
    out[4] = tn_matmul(x, tn_transpose(tn_slice_axis(w, 0, 0, 4), TN_AXES(0, 1)));
    out[5] = tn_exp(tn_ones(TN_SHAPE(1000, 1000, 1000), TN_F32)); /* takes no memory */
    out[5] = tn_slice(out[5], TN_INTS(0, 0, 0), TN_INTS(1, 3, 4), TN_ALL);
    out[6] = tn_take(x, tn_add(tn_scalar(5, TN_I32), tn_scalar(-4, TN_I32)), 0);
    out[7] = tn_arange(0, 5, 1, TN_F32);
    return 0;
}

static void test_folding(void) {
    TN_SCOPE {
        tn_array *w = tn_random_normal(TN_SHAPE(40000, 4), TN_F32, tn_random_key(1));
        ok(!tn_eval(TN_LIST(w)), "a large constant");
        result r = compare(fold_fn, w, TN_LIST(data(TN_F32, 0, TN_SHAPE(3, 4))), 8);
        ok(r.same, "folded: the same bits");
        is_str(r.names, "add mul exp sum reshape add matmul take", "folded: what is left");
    }
}

static int fold_bad(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    tn_array *two = data(TN_F32, 0, TN_SHAPE(2));
    out[0] = tn_add(in.v[0], tn_take(two, tn_add(tn_scalar(5, TN_I32), tn_i32(4)), 0));
    return 0;
}

static void test_fold_error(void) {
    TN_SCOPE {
        result r = compare(fold_bad, NULL, TN_LIST(data(TN_F32, 0, TN_SHAPE(3))), 1);
        is_i64(r.status, TN_EINDEX, "what cannot be folded fails when it is evaluated");
        is_str(r.names, "take add", "and stays in the graph");
    }
}

static int equal_fn(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *x = in.v[0], *y = in.v[1], *q1[3], *q2[3];
    (void)n_out, (void)ud;
    tn_quantize(tn_add(x, y), 32, 4, q1);
    tn_quantize(tn_add(y, x), 32, 4, q2);
    out[0] = q1[0], out[1] = q2[1];
    out[2] = tn_maximum(x, y), out[3] = tn_maximum(y, x); /* not the same zero */
    out[4] = tn_sum(x, TN_AXES(0), false), out[5] = tn_sum(x, TN_AXES(1), false);
    out[6] = tn_sum(x, TN_AXES(-2), false);
    out[7] = x;
    return 0;
}

static void test_equal(void) {
    TN_SCOPE {
        result r =
            compare(equal_fn, NULL,
                    TN_LIST(data(TN_F32, 0, TN_SHAPE(3, 32)), data(TN_F32, 1, TN_SHAPE(3, 32))), 8);
        ok(r.same, "equal subexpressions: the same bits");
        is_str(r.names, "add quantize maximum maximum sum reshape sum reshape",
               "equal ones are one, with several results, too");
    }
}

static int two_streams(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tn_exp(in.v[0]);
    TN_ON (ud) {
        out[1] = tn_exp(in.v[0]);
    }
    return 0;
}

static void test_streams(void) {
    tn_stream *other = tn_stream_new();
    TN_SCOPE {
        result r = compare(two_streams, other, TN_LIST(data(TN_F32, 0, TN_SHAPE(3))), 2);
        is_str(r.names, "exp exp", "work on two streams is not merged");
    }
    tn_stream_free(other);
}

/* ---- arguments and results ---- */

static void test_ends(void) {
    TN_SCOPE {
        tn_array *x = data(TN_F32, 0, TN_SHAPE(3)), *lazy = tn_add(x, tn_f32(1));
        tn_array *y = tn_neg(tn_neg(lazy)), *z = tn_neg(tn_neg(x)), *c = tn_mul(x, tn_f32(1));
        tn_array *out[] = {y, z, c, x};
        ok(!tni_simplify(2, (tn_array *[]){lazy, x}, 4, out, false),
           "arguments with and without values");
        ok(out[0] == lazy && out[1] == x && out[2] == x && out[3] == x,
           "results that are arguments");
        out[0] = tn_add(lazy, x);
        ok(!tni_simplify(0, NULL, 1, out, false) && tn_is_evaluated(out[0]),
           "without arguments: a value");
        out[0] = tn_contiguous(lazy);
        ok(!tni_simplify(1, &lazy, 1, out, false) && !tn_is_evaluated(out[0]),
           "an argument is not looked into");
        out[0] = tn_astype(tn_f32(2), TN_F32);
        ok(out[0]->node && !tni_simplify(0, NULL, 1, out, false) && !(out[0]->flags & TNI_A_WEAK),
           "a strong number stays strong");
        is_i64(tn_dtype_of(tn_mul(out[0], data(TN_F16, 0, TN_SHAPE(2)))), TN_F32, "and decides");
    }
}

static int square_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_exp(tn_sin(in.v[0]));
    return 0;
}
static tn_array *checkpointed(tn_list in, void *ud) {
    tn_array *y;
    if (tn_checkpoint(square_fns, ud, in, 1, &y)) return tn_error_array(TN_EVALUE, "no");
    return tn_sum(y, TN_ALL, false);
}
static int grad_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    tn_value_and_grad(checkpointed, ud, in, 1, &out[0], &out[1]);
    return 0;
}

static void test_checkpoint(void) {
    TN_SCOPE {
        result r = compare(grad_fns, NULL, TN_LIST(data(TN_F32, 0, TN_SHAPE(3, 4))), 2);
        int sines = 0;
        for (const char *p = r.names; (p = strstr(p, "sin")); p++) sines++;
        ok(r.same, "checkpoint: the same bits");
        ok(sines == 2 && strstr(r.names, "custom"), "checkpoint: still runs twice (%s)", r.names);
    }
}

/* ---- random graphs ---- */

enum { POOL = 64, WIDTH = 256 };
typedef struct pool {
    int n;
    tn_array *v[POOL];
} pool;

static tn_array *pick(const pool *p) { return p->v[below(p->n)]; }

static tn_array *random_number(void) {
    static const double v[] = {0, -0.0, 1, -1, 2, 0.5, 3};
    double x = v[below(7)];
    tn_dtype d = (tn_dtype)below(TN_DTYPE_COUNT);
    return below(3) ? tn_scalar(x, d) : tn_full(TN_SHAPE(3, 1), tn_scalar(x, d));
}

static tn_array *random_view(const pool *p) {
    tn_array *a = pick(p);
    int64_t k = tn_ndim(a) ? below(tn_ndim(a)) : 0, n = tn_dim(a, (int)k);
    switch (below(8)) {
    case 0:
        return tn_reshape(a, TN_SHAPE(-1));
    case 1:
        return tn_size(a) % 4 ? tn_reshape(a, TN_SHAPE(1, -1)) : tn_reshape(a, TN_SHAPE(4, -1, 1));
    case 2:
        return tn_transpose(a, TN_ALL);
    case 3:
        return tn_ndim(a) ? tn_moveaxis(a, (int)k, 0) : a;
    case 4:
        return n ? tn_slice_axis(a, (int)k, below(n), below(n) + 1) : a;
    case 5:
        return tn_flip(a, tn_ndim(a) ? TN_AXES(k) : TN_ALL);
    case 6:
        return tn_ndim(a) < 3 ? tn_broadcast_to(tn_expand_dims(a, TN_AXES(0)),
                                                TN_SHAPE(2, tn_dim(a, 0), tn_dim(a, 1)))
                              : a;
    default:
        return tn_contiguous(a);
    }
}

static tn_array *random_move(const pool *p) {
    tn_array *a = pick(p), *b = pick(p);
    int64_t k = tn_ndim(a) ? below(tn_ndim(a)) : 0, n = tn_dim(a, (int)k), at = n ? below(n) : 0;
    switch (below(4)) {
    case 0:
        return tn_concatenate(TN_LIST(a, b), (int)k);
    case 1:
        return tn_concatenate(
            TN_LIST(tn_slice_axis(a, (int)k, 0, at), tn_slice_axis(a, (int)k, at, n)), (int)k);
    case 2:
        return tn_view(tn_view(a, TN_U8), tn_dtype_of(b));
    default:
        return tn_slice_update(a, tn_slice_axis(b, 0, 0, 1), TN_INTS(0, 0), TN_ALL);
    }
}

static tn_array *random_reduction(const pool *p) {
    static tn_array *(*const f[])(tn_array *, tn_ints, bool) = {
        tn_sum, tn_prod, tn_min, tn_max, tn_all, tn_any, tn_logsumexp, tn_argmax, tn_argmin};
    tn_array *a = pick(p);
    bool keep = below(2);
    if (!tn_ndim(a) || !below(3)) return f[below(9)](a, TN_ALL, keep);
    return f[below(9)](a, TN_AXES(below(tn_ndim(a))), keep);
}

static tn_array *random_op(const pool *p) {
    int64_t kind = below(16);
    if (kind < 8) {
        tn_array *in[3];
        int e = (int)below(TNI_EW_COUNT);
        for (int i = 0; i < 3; i++) in[i] = below(4) ? pick(p) : random_number();
        return tni_ew(e, rows[e].arity, in);
    }
    if (kind < 12) return random_view(p);
    if (kind == 12) return tn_astype(pick(p), (tn_dtype)below(TN_DTYPE_COUNT));
    if (kind == 13) return random_reduction(p);
    return kind == 14 ? random_move(p) : tn_stop_gradient(pick(p));
}

/* The same graph for the same seed: what depends on values would not be. */
static int random_graph(tn_list in, tn_array **out, int n_out, void *ud) {
    pool p = {0};
    rng_state = *(uint64_t *)ud;
    for (int i = 0; i < in.n; i++) p.v[p.n++] = in.v[i];
    p.v[p.n++] = data(TN_F32, 5, TN_SHAPE(3, 4));
    for (int tries = 0; tries < 200 && p.n < 40; tries++) {
        tn_array *y = random_op(&p);
        if (!tn_array_status(y) && tn_size(y) <= WIDTH) p.v[p.n++] = y;
    }
    for (int k = 0; k < n_out; k++) out[k] = p.v[p.n - 1 - k];
    return 0;
}

static void test_random(void) {
    int64_t before = 0, after = 0;
    bool fine = true;
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        rng_state = seed * 0x9e3779b97f4a7c15u;
        uint64_t start = rnd();
        result r = {0};
        TN_SCOPE {
            tn_dtype d = (tn_dtype)below(TN_DTYPE_COUNT), e = (tn_dtype)below(TN_DTYPE_COUNT);
            r = compare(random_graph, &start,
                        TN_LIST(data(d, 0, TN_SHAPE(3, 4)), data(e, 1, TN_SHAPE(4)),
                                data(TN_F32, 2, TN_SHAPE(3, 1)), data(d, 3, TN_INTS())),
                        8);
        }
        if (!r.same)
            diag("  seed %d: %s %s; %s, then %s", (int)seed, tn_status_name(r.status), tn_error(),
                 r.plain, r.names);
        fine = fine && r.same && r.after <= r.before;
        before += r.before, after += r.after;
    }
    ok(fine, "random graphs: the same bits");
    ok(after * 10 < before * 8, "random graphs: %d nodes, then %d", (int)before, (int)after);
}

/* ---- long chains, memory ---- */

static tn_array *chain(tn_array *x, int n) {
    for (int i = 0; i < n; i += 4) {
        x = tn_neg(tn_neg(x));
        x = tn_transpose(tn_sin(x), TN_ALL);
    }
    return x;
}

static void test_chain(void) {
    TN_SCOPE {
        tn_array *x = data(TN_F32, 0, TN_SHAPE(2, 2)), *out[2];
        tn_scope *s = tn_scope_begin();
        tn_keep(out[0] = chain(x, 1000000));
        tn_keep(out[1] = chain(x, 1000000));
        tn_scope_end(s);
        tn_array *held[2] = {out[0], out[1]};
        ok(!tni_simplify(1, &x, 2, out, false), "two equal chains of a million ops");
        ok(out[0] == out[1] && out[0] != held[0], "are one");
        ok(!tn_graph_check((tn_list){out, 1}), "and fit together");
        tn_drop(held[0]), tn_drop(held[1]);
    }
}

static int wide_fn(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)ud, (void)n_out;
    tn_array *x = in.v[0], *q[3];
    tn_quantize(x, 32, 4, q);
    tn_array *again =
        tn_concatenate(TN_LIST(tn_slice_axis(x, 1, 0, 7), tn_slice_axis(x, 1, 7, 32)), 1);
    out[0] = tn_concatenate(TN_LIST(again, tn_exp(tn_neg(tn_neg(x))), tn_div(x, tn_f32(4))), 0);
    out[1] = tn_dequantize(q[0], q[1], q[2], 32, 4);
    out[2] = tn_mul(tn_astype(tn_f32(2), TN_F32), tn_ones(TN_SHAPE(5), TN_F32));
    out[3] = tn_add(x, tn_sum(data(TN_F32, 0, TN_SHAPE(3, 32)), TN_AXES(0), true));
    return 0;
}

static void test_memory(void) {
    int status = 0, failures = 0;
    bool kept = true, clean = true;
    for (int64_t n = 1; n == 1 || status; n++) {
        TN_SCOPE {
            tn_array *x = data(TN_F32, 0, TN_SHAPE(3, 32)), *lazy = tn_add(x, x), *out[4], *was[4];
            (void)wide_fn(TN_LIST(lazy), out, 4, NULL);
            memcpy(was, out, sizeof out);
            int64_t live = tni_alloc_live();
            tn_scope *s = tn_scope_begin();
            tni_fail_alloc_at(n);
            status = tni_simplify(1, &lazy, 4, out, false);
            tni_fail_alloc_at(0);
            if (status) kept = kept && !memcmp(was, out, sizeof out) && status == TN_EMEMORY;
            tn_scope_end(s);
            if (status) clean = clean && tni_alloc_live() - live <= 2; /* scopes keep their room */
            failures += status != 0;
        }
        if (n > 10000 || (status && status != TN_EMEMORY)) {
            diag("  %s", tn_error());
            break;
        }
    }
    ok(!status && failures > 30, "every allocation made to fail (%d)", failures);
    ok(kept, "the status is TN_EMEMORY and the results are as they were");
    ok(clean, "nothing leaks");
}

int main(void) {
    test_rules();
    test_casts();
    test_folding();
    test_fold_error();
    test_equal();
    test_streams();
    test_ends();
    test_checkpoint();
    test_random();
    test_chain();
    test_memory();
    return tap_done();
}
