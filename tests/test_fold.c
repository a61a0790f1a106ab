/* The simplifier's rewrites that round otherwise (tn_compile_opt's `fold`): what is left of the
 * graph and how far its values are from those in f64, what must stay as it is, random chains,
 * failing allocations, and a network of nn's layers. */
#include "core/dtype.h"
#include "memory.h"
#include "op_names.h"
#include "ops/build.h"
#include "random.h"
#include "tenon/nn.h"
#include "trans/simplify.h"
#include "trans/trace.h"
#include <math.h>

/* ---- data ---- */

/* Constants of one dtype. */
typedef struct set {
    tn_dtype d;
    tn_array *w, *wg, *w1, *w3;  /* convolutions: [6,3,2,4], [6,3,2,2], [6,3,4], [6,2,2,2,4] */
    tn_array *m, *mt, *mb, *mr;  /* matrices: [4,6], [6,4] transposed, [2,4,6], repeated */
    tn_array *a, *b, *c, *p, *q; /* [6], [6], [1,1,6], [4], [4] */
    tn_array *rows;              /* [5,1]: not along the last axis */
} set;
enum { SET = 14 };

static tn_array *held(tn_array *a) {
    (void)!tn_eval(TN_LIST(a));
    return a;
}

/* Numbers of magnitude 0.25 to 2, as the dtype holds them. */
static tn_array *values(tn_dtype d, tn_ints shape) {
    double v[1024];
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++) n *= shape.v[i];
    for (int64_t i = 0; i < n; i++)
        v[i] = (0.25 + 1.75 * (double)below(1 << 20) / (1 << 20)) * (below(2) ? 1 : -1);
    return held(tn_astype(tn_array_new(v, TN_F64, shape), d));
}

static set make(tn_dtype d) {
    return (set){
        .d = d,
        .w = values(d, TN_SHAPE(6, 3, 2, 4)),
        .wg = values(d, TN_SHAPE(6, 3, 2, 2)),
        .w1 = values(d, TN_SHAPE(6, 3, 4)),
        .w3 = values(d, TN_SHAPE(6, 2, 2, 2, 4)),
        .m = values(d, TN_SHAPE(4, 6)),
        .mt = held(tn_swapaxes(values(d, TN_SHAPE(6, 4)), 0, 1)),
        .mb = values(d, TN_SHAPE(2, 4, 6)),
        .mr = held(tn_broadcast_to(values(d, TN_SHAPE(1, 4, 6)), TN_SHAPE(2, 4, 6))),
        .a = values(d, TN_SHAPE(6)),
        .b = values(d, TN_SHAPE(6)),
        .c = values(d, TN_SHAPE(1, 1, 6)),
        .p = values(d, TN_SHAPE(4)),
        .q = values(d, TN_SHAPE(4)),
        .rows = values(d, TN_SHAPE(5, 1)),
    };
}

/* The same numbers in f64. */
static set widen(const set *s) {
    set to = {.d = TN_F64};
    for (int i = 0; i < SET; i++) (&to.w)[i] = tn_astype((&s->w)[i], TN_F64);
    return to;
}

/* ---- what is left ---- */

typedef struct graph {
    int status;
    tn_array *out[4];
    char names[512];
} graph;

/* fn of `in` simplified; its results are of the current scope, evaluated. */
static graph simplified(tn_fns fn, void *ud, tn_list in, int n_out, bool fold) {
    graph g = {0};
    tni_trace t = {0};
    g.status = tni_trace_open(&t, in.n, in.v);
    if (!g.status) g.status = fn((tn_list){t.tracer, in.n}, g.out, n_out, ud);
    if (!g.status) g.status = tni_simplify(in.n, t.tracer, n_out, g.out, fold);
    if (!g.status) g.status = tn_graph_check((tn_list){g.out, n_out});
    if (!g.status) g.status = tni_trace_walk(&t, n_out, g.out);
    for (int k = 0; k < n_out && !g.status; k++) g.out[k] = t.out[k];
    tni_trace_free(&t);
    if (!g.status) op_names((tn_list){g.out, n_out}, g.names, sizeof g.names);
    if (!g.status) g.status = tn_eval((tn_list){g.out, n_out});
    return g;
}

/* Root of the mean square of a - b. */
static double distance(tn_array *a, tn_array *b) {
    tn_array *d = tn_sub(tn_astype(a, TN_F64), tn_astype(b, TN_F64));
    return sqrt(tn_item_f64(tn_mean(tn_square(d), TN_ALL, false)));
}

static double eps(tn_dtype d) {
    return d == TN_F64 ? 0x1p-52 : d == TN_F32 ? 0x1p-23 : d == TN_F16 ? 0x1p-10 : 0x1p-7;
}

static bool same_bits(tn_array *a, tn_array *b) {
    return tn_dtype_of(a) == tn_dtype_of(b) &&
           tni_same_shape(a->ndim, a->shape, b->ndim, b->shape) &&
           !memcmp(tn_data(a), tn_data(b), tn_nbytes(a));
}

/* ---- a rule each ---- */

#define CONV(w_, ...) tn_conv_general(x, w_, TN_OPT(tn_conv_opt, __VA_ARGS__))
#define ROW(x_)       tn_add(tn_mul(x_, s->a), s->b)
#define NORM(x_)      tn_add(tn_mul(tn_div(tn_sub(x_, s->a), s->b), s->c), s->a)
#define FLAT          tn_reshape(x, TN_SHAPE(60, 4))
#define NUM(v)        tn_scalar(v, s->d)
enum { HALVES = 1 << TN_F16 | 1 << TN_BF16, WIDE = 1 << TN_F32 | 1 << TN_F64, ALL = HALVES | WIDE };

/* x: [2,5,6,4]. The names are what is left. */
#define RULES(R)                                                                                   \
    R(conv_scale, ALL, "conv", tn_mul(CONV(s->w, .groups = 1), s->b))                              \
    R(conv_number, ALL, "conv", tn_mul(NUM(1.25), CONV(s->w, .groups = 1)))                        \
    R(conv_div, ALL, "conv", tn_div(CONV(s->w, .groups = 1), s->b))                                \
    R(conv_neg, ALL, "conv", tn_neg(CONV(s->w, .groups = 1)))                                      \
    R(conv_norm, ALL, "conv add", NORM(CONV(s->w, .groups = 1)))                                   \
    R(conv_from, ALL, "conv add", tn_sub(s->a, tn_mul(CONV(s->w, .groups = 1), s->b)))             \
    R(conv_relu, ALL, "conv add maximum", tn_maximum(NORM(CONV(s->w, .groups = 1)), NUM(0)))       \
    R(conv_bias_norm, ALL, "conv add", NORM(tn_add(CONV(s->w, .groups = 1), s->c)))                \
    R(conv_bias, ALL, "conv add", tn_add(tn_add(CONV(s->w, .groups = 1), s->a), s->b))             \
    R(conv_one_bias, ALL, "conv add", tn_add(CONV(s->w, .groups = 1), s->a))                       \
    R(conv_zero, ALL, "conv add", tn_add(tn_mul(CONV(s->w, .groups = 1), NUM(0)), s->a))           \
    R(conv_groups, ALL, "conv add", ROW(CONV(s->wg, .groups = 2)))                                 \
    R(conv_all, ALL, "conv add",                                                                   \
      ROW(CONV(s->w, .groups = 1, .flip = true, .stride = TN_SPATIAL(2), .padding = TN_SPATIAL(2), \
               .dilation = TN_SPATIAL(1, 2), .input_dilation = TN_SPATIAL(2, 1))))                 \
    R(conv_transpose, ALL, "conv add",                                                             \
      ROW(tn_conv_transpose2d(x, s->w, TN_OPT(tn_conv_opt, .stride = TN_SPATIAL(2)))))             \
    R(conv_transpose_groups, ALL, "conv add",                                                      \
      ROW(tn_conv_transpose2d(x, s->wg, TN_OPT(tn_conv_opt, .groups = 2))))                        \
    R(conv_1d, ALL, "reshape conv add",                                                            \
      ROW(tn_conv1d(tn_reshape(x, TN_SHAPE(2, 30, 4)), s->w1, NULL)))                              \
    R(conv_3d, ALL, "reshape conv add",                                                            \
      ROW(tn_conv3d(tn_reshape(x, TN_SHAPE(1, 2, 5, 6, 4)), s->w3, NULL)))                         \
    R(matmul, ALL, "reshape matmul reshape add", ROW(tn_matmul(x, s->m)))                          \
    R(matmul_columns, ALL, "reshape matmul add", ROW(tn_matmul(FLAT, s->mt)))                      \
    R(matmul_batch, ALL, "reshape matmul add",                                                     \
      ROW(tn_matmul(tn_reshape(x, TN_SHAPE(2, 30, 4)), s->mb)))                                    \
    R(matmul_repeated, ALL, "reshape matmul add",                                                  \
      ROW(tn_matmul(tn_reshape(x, TN_SHAPE(2, 30, 4)), s->mr)))                                    \
    R(addmm, ALL, "reshape matmul add", tn_mul(tn_addmm(s->a, FLAT, s->m, 0.5, 2), s->b))          \
    R(mul_mul, ALL, "mul", tn_mul(tn_mul(x, s->p), s->q))                                          \
    R(mul_div, ALL, "mul", tn_div(tn_mul(x, s->p), s->q))                                          \
    R(add_sub, ALL, "add", tn_sub(tn_add(x, s->p), s->q))                                          \
    R(sub_from, ALL, "mul add", tn_neg(tn_sub(s->p, tn_mul(tn_neg(x), s->q))))                     \
    R(row_numbers, ALL, "mul", tn_mul(tn_mul(x, NUM(3)), NUM(0.75)))                               \
    R(add_mul_add, WIDE, "mul add", tn_add(tn_mul(tn_add(x, s->p), s->q), s->p))                   \
    R(add_mul_mul, HALVES, "add mul", tn_mul(tn_mul(tn_add(x, s->p), s->q), s->p))                 \
    R(add_mul_add_halves, HALVES, "add mul add", tn_add(tn_mul(tn_add(x, s->p), s->q), s->p))      \
    /* as it is: nothing to gain, or not along the channels, or not constant */                    \
    R(stays_row, ALL, "add mul", tn_mul(tn_add(x, s->p), s->q))                                    \
    R(stays_div, ALL, "div", tn_div(x, s->p))                                                      \
    R(stays_over, ALL, "conv div", tn_div(s->a, CONV(s->w, .groups = 1)))                          \
    R(stays_rows, ALL, "mul mul",                                                                  \
      tn_mul(tn_mul(tn_slice_axis(x, 2, 0, 6), NUM(3)), tn_reshape(s->rows, TN_SHAPE(5, 1, 1))))   \
    R(stays_inf, ALL, "conv mul", tn_mul(CONV(s->w, .groups = 1), NUM(INFINITY)))                  \
    R(stays_nan, ALL, "conv add", tn_add(CONV(s->w, .groups = 1), NUM(NAN)))                       \
    R(stays_by_zero, ALL, "conv div", tn_div(CONV(s->w, .groups = 1), NUM(0)))

typedef tn_array *(*rule_fn)(const set *, tn_array *);
#define DEFINE(name, dtypes, left, expr)                                                           \
    static tn_array *rule_##name(const set *s, tn_array *x) {                                      \
        (void)s;                                                                                   \
        return expr;                                                                               \
    }
RULES(DEFINE)
#undef DEFINE
#define DEFINE(name, dtypes, left, expr) {#name, left, rule_##name, dtypes},
static const struct rule {
    const char *name, *left;
    rule_fn make;
    int dtypes;
} rules[] = {RULES(DEFINE)};
#undef DEFINE

typedef struct call {
    rule_fn make;
    const set *s;
} call;

static int rule_call(tn_list in, tn_array **out, int n_out, void *ud) {
    const call *c = ud;
    (void)n_out;
    out[0] = c->make(c->s, in.v[0]);
    return tn_array_status(out[0]);
}

/* Errors against f64 of all rules, plain and folded, in units of the dtype's rounding. */
static double errors[TN_DTYPE_COUNT][2];

static void test_rule(const struct rule *r, const set *s, const set *wide) {
    tn_array *x = values(s->d, TN_SHAPE(2, 5, 6, 4));
    call c = {r->make, s};
    graph plain = simplified(rule_call, &c, TN_LIST(x), 1, false),
          fold = simplified(rule_call, &c, TN_LIST(x), 1, true);
    const char *d = tn_dtype_name(s->d);
    if (plain.status || fold.status || strcmp(fold.names, r->left) != 0) {
        ok(0, "%s %s: %s, left \"%s\"", r->name, d, tn_error(), fold.names);
        return;
    }
    if (!strncmp(r->name, "stays", 5)) {
        ok(same_bits(plain.out[0], fold.out[0]), "%s %s: the same bits", r->name, d);
        return;
    }
    tn_array *want = r->make(wide, tn_astype(x, TN_F64));
    double size = sqrt(tn_item_f64(tn_mean(tn_square(want), TN_ALL, false))) * eps(s->d);
    double a = distance(plain.out[0], want) / size, b = distance(fold.out[0], want) / size;
    errors[s->d][0] += a, errors[s->d][1] += b;
    ok(b < 4 && tn_dtype_of(fold.out[0]) == s->d, "%s %s: %.2f roundings from f64, plain %.2f",
       r->name, d, b, a);
}

static void test_rules(void) {
    static const tn_dtype dtypes[] = {TN_F16, TN_BF16, TN_F32, TN_F64};
    for (int k = 0; k < 4; k++)
        TN_SCOPE {
            set s = make(dtypes[k]), wide = widen(&s);
            for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
                if (rules[i].dtypes >> dtypes[k] & 1) test_rule(&rules[i], &s, &wide);
            diag("%s: roundings from f64 in all: plain %.2f, folded %.2f", tn_dtype_name(dtypes[k]),
                 errors[dtypes[k]][0], errors[dtypes[k]][1]);
            ok(errors[dtypes[k]][1] < 1.1 * errors[dtypes[k]][0] || dtypes[k] == TN_F64,
               "%s: no less exact on the whole than plain", tn_dtype_name(dtypes[k]));
        }
}

/* ---- what must stay ---- */

static int fn_two_users(tn_list in, tn_array **out, int n_out, void *ud) {
    const set *s = ud;
    tn_array *x = in.v[0], *y = CONV(s->w, .groups = 1), *z = tn_matmul(FLAT, s->m);
    (void)n_out;
    out[0] = tn_add(tn_mul(y, s->a), tn_exp(y));
    out[1] = tn_mul(z, s->a);
    out[2] = z;
    return 0;
}

/* Equal products are one before users are counted. */
static int fn_equal(tn_list in, tn_array **out, int n_out, void *ud) {
    const set *s = ud;
    tn_array *x = in.v[0];
    (void)n_out;
    out[0] = tn_mul(CONV(s->w, .groups = 1), s->a);
    out[1] = tn_mul(CONV(s->w, .groups = 1), s->b);
    return 0;
}

/* A part of a chain that is used elsewhere is made once, and the rest goes on from it. */
static int fn_fork(tn_list in, tn_array **out, int n_out, void *ud) {
    const set *s = ud;
    tn_array *x = in.v[0];
    (void)n_out;
    out[0] = tn_mul(tn_mul(CONV(s->w, .groups = 1), s->a), s->b);
    out[1] = tn_mul(tn_mul(out[0], s->b), s->a);
    return 0;
}

/* Weights, or numbers of the channels, that are arguments. */
static int fn_arguments(tn_list in, tn_array **out, int n_out, void *ud) {
    const set *s = ud;
    tn_array *x = in.v[0];
    (void)n_out;
    out[0] = tn_mul(CONV(in.v[1], .groups = 1), s->a);
    out[1] = tn_mul(CONV(s->w, .groups = 1), in.v[2]);
    return 0;
}

/* A row that repeats what it scales; x scaled along its own axis before it is a product's. */
static int fn_other(tn_list in, tn_array **out, int n_out, void *ud) {
    const set *s = ud;
    tn_array *x = in.v[0], *y = tn_slice_axis(FLAT, 0, 0, 1);
    (void)n_out;
    out[0] = tn_mul(tn_sum(tn_matmul(y, s->m), TN_AXES(1), true), s->a);
    out[1] = tn_matmul(s->m, tn_swapaxes(tn_matmul(FLAT, s->m), 0, 1));
    out[2] = tn_reshape(tn_matmul(FLAT, s->m), TN_SHAPE(36, 10));
    out[3] = tn_mul(out[2], NUM(3));
    return 0;
}

static void test_stays(void) {
    static const struct {
        const char *name;
        tn_fns fn;
        int n_out;
        const char *left;
        bool same;
    } cases[] = {
        {"two users", fn_two_users, 3, "conv mul exp add reshape matmul mul", true},
        {"equal products", fn_equal, 2, "conv mul mul", true},
        {"a chain used twice", fn_fork, 2, "conv mul", false},
        {"arguments", fn_arguments, 2, "conv mul conv mul", true},
        {"other axes", fn_other, 4,
         "reshape slice matmul sum mul matmul transpose matmul reshape mul", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        TN_SCOPE {
            set s = make(TN_F32);
            tn_array *x = values(TN_F32, TN_SHAPE(2, 5, 6, 4));
            tn_array *v = values(TN_F32, TN_SHAPE(6, 3, 2, 4));
            tn_list in = TN_LIST(x, v, values(TN_F32, TN_SHAPE(6)));
            if (cases[i].fn != fn_arguments) in.n = 1;
            graph a = simplified(cases[i].fn, &s, in, cases[i].n_out, false),
                  b = simplified(cases[i].fn, &s, in, cases[i].n_out, true);
            bool fine = !a.status && !b.status;
            for (int k = 0; k < cases[i].n_out && fine; k++)
                fine = cases[i].same ? same_bits(a.out[k], b.out[k])
                                     : distance(a.out[k], b.out[k]) < 1e-5;
            ok(fine && !strcmp(b.names, cases[i].left), "%s: %s", cases[i].name, b.names);
        }
}

/* ---- numbers at the edges ---- */

typedef struct edge {
    tn_dtype d;
    double w, first,
        second; /* the weights of a convolution (0: none) or what x is; two rows' numbers */
    const char *left;
} edge;

static int fn_edge(tn_list in, tn_array **out, int n_out, void *ud) {
    const edge *e = ud;
    tn_array *x = in.v[0];
    (void)n_out;
    if (e->w != 0)
        x = tn_conv1d(x, held(tn_contiguous(tn_full(TN_SHAPE(2, 1, 2), tn_scalar(e->w, e->d)))),
                      NULL);
    out[0] = tn_mul(tn_mul(x, tn_scalar(e->first, e->d)), tn_scalar(e->second, e->d));
    return 0;
}

/* (x - mean) * scale in a dtype of narrow range. */
static int fn_shifts(tn_list in, tn_array **out, int n_out, void *ud) {
    const edge *e = ud;
    tn_array *w = held(tn_contiguous(tn_full(TN_SHAPE(2, 1, 2), tn_scalar(e->w, e->d))));
    tn_array *y = tn_conv1d(in.v[0], w, NULL);
    (void)n_out;
    out[0] = tn_mul(tn_sub(y, tn_scalar(e->first, e->d)), tn_scalar(e->second, e->d));
    return 0;
}

/* Sums that fit where the sum of their constants does not. */
static int fn_sums(tn_list in, tn_array **out, int n_out, void *ud) {
    const edge *e = ud;
    tn_array *x = tn_minimum(in.v[0], tn_scalar(e->w, e->d));
    (void)n_out;
    out[0] = tn_add(tn_add(x, tn_scalar(e->first, e->d)), tn_scalar(e->second, e->d));
    return 0;
}

static void test_edge(tn_fns fn, const edge *e) {
    TN_SCOPE {
        tn_array *x = tn_full(TN_SHAPE(1, 3, 2), tn_scalar(1.5, e->d));
        edge copy = *e;
        graph a = simplified(fn, &copy, TN_LIST(x), 1, false),
              b = simplified(fn, &copy, TN_LIST(x), 1, true);
        bool fine = !a.status && !b.status && !strcmp(b.names, e->left);
        double u = 0, v = 0;
        if (fine) u = tn_item_f64(tn_max(a.out[0], TN_ALL, false));
        if (fine) v = tn_item_f64(tn_max(b.out[0], TN_ALL, false));
        fine = fine && (u == v || fabs(u - v) <= 4 * eps(e->d) * fabs(u));
        ok(fine, "%s: %g, then %g and %g: %s, %g as %g", tn_dtype_name(e->d), e->w, e->first,
           e->second, b.names, v, u);
    }
}

static void test_edges(void) {
    static const edge rows[] = {
        {TN_F32, 0, 1e30, 3e-30, "mul"},          {TN_F32, 0, 1e-30, 1e-30, "mul mul"},
        {TN_F32, 0, 1e30, 1e30, "mul mul"},       {TN_F64, 0, 1e200, 1e200, "mul mul"},
        {TN_F64, 0, 1e-200, 1e-200, "mul mul"},   {TN_F32, 0, 0, 3, "mul"},
        {TN_F16, 0, 300, 300, "mul mul"},         {TN_BF16, 0, 300, 300, "mul"},
        {TN_F32, 1e-20, 1, 1e-10, "conv"},        {TN_F32, 1e-30, 1, 1e-10, "conv mul"},
        {TN_F32, 1e30, 1, 1e10, "conv mul"},      {TN_F32, 1e-30, 1e-5, 1e-5, "conv mul"},
        {TN_F16, 0.0625, 0.0625, 0.0625, "conv"}, {TN_F16, 0.0625, 0.0625, 0.00390625, "conv mul"},
        {TN_F64, 1e-200, 1, 1e-150, "conv mul"},  {TN_F32, 1, 0, 0, "conv"},
    };
    static const edge shifts[] = {
        {TN_F16, 1, 3, 100, "conv add"},
        {TN_F16, 1, 100, 100, "conv sub mul"},
        {TN_F32, 1, 100, 100, "conv add"},
    };
    static const edge sums[] = {
        {TN_F16, -30000, 40000, 40000, "minimum add add"},
        {TN_F32, -30000, 40000, 40000, "minimum add"},
    };
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) test_edge(fn_sums, &sums[i]);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) test_edge(fn_edge, &rows[i]);
    for (size_t i = 0; i < sizeof shifts / sizeof *shifts; i++) test_edge(fn_shifts, &shifts[i]);
}

/* ---- random chains ---- */

static tn_array *random_row(const set *s, tn_array *y, int64_t what) {
    tn_array *c = below(3) ? tn_dim(y, -1) == 6 ? s->a : s->p : NUM(0.25 + (double)below(8) / 4);
    switch (what) {
    case 0:
    case 1:
        return tn_mul(y, c);
    case 2:
        return tn_add(c, y);
    case 3:
        return tn_sub(y, c);
    case 4:
        return tn_sub(c, y);
    case 5:
        return tn_div(y, c);
    case 6:
        return tn_neg(y);
    default:
        return tn_maximum(y, NUM(-0.5));
    }
}

/* Up to three products with chains of rows between, results from anywhere in them. */
static int fn_random(tn_list in, tn_array **out, int n_out, void *ud) {
    const set *s = ud;
    tn_array *y = in.v[0];
    rng_state = 77 + (uint64_t)tn_item_i64(s->rows);
    for (int k = 0; k < n_out; k++) {
        for (int64_t n = below(6); n > 0; n--) y = random_row(s, y, below(8));
        if (below(2)) y = tn_reshape(y, TN_SHAPE(-1, tn_dim(y, -1)));
        if (below(2)) y = tn_matmul(y, tn_dim(y, -1) == 4 ? s->m : tn_swapaxes(s->m, 0, 1));
        for (int64_t n = below(6); n > 0; n--) y = random_row(s, y, below(8));
        out[k] = y;
    }
    return 0;
}

static int count_words(const char *names) {
    int n = *names != 0;
    for (; *names; names++) n += *names == ' ';
    return n;
}

static void test_random(void) {
    int before = 0, after = 0;
    bool fine = true;
    for (int seed = 1; seed <= 1000 && fine; seed++)
        TN_SCOPE {
            rng_state = 5;
            set s = make(TN_F64);
            tn_array *x = values(TN_F64, TN_SHAPE(1, 3, 4));
            s.rows = held(tn_scalar(seed, TN_I64));
            int n = 1 + seed % 3;
            graph a = simplified(fn_random, &s, TN_LIST(x), n, false),
                  b = simplified(fn_random, &s, TN_LIST(x), n, true);
            fine = !a.status && !b.status;
            for (int k = 0; k < n && fine; k++) {
                double size = tn_item_f64(tn_max(tn_abs(a.out[k]), TN_ALL, false));
                fine = distance(a.out[k], b.out[k]) <= 1e-9 * (1 + size);
            }
            int u = count_words(a.names), v = count_words(b.names);
            fine = fine && v <= u;
            before += u, after += v;
            if (!fine) diag("seed %d: %s; %s, then %s", seed, tn_error(), a.names, b.names);
        }
    ok(fine, "random chains: the same values");
    ok(after * 10 < before * 8, "random chains: %d nodes, then %d", before, after);
}

/* Time and memory grow with the chain, not its square. */
static void test_long(void) {
    TN_SCOPE {
        tn_array *x = values(TN_F64, TN_SHAPE(2, 3)), *y = x, *out;
        tn_array *c = held(tn_array_new((double[]){1.5, -1.25, 2}, TN_F64, TN_SHAPE(3)));
        for (int i = 0; i < 50000; i++) y = tn_div(tn_mul(tn_add(y, c), c), c);
        out = y;
        ok(!tni_simplify(1, &x, 1, &out, true), "a chain of 150000 rows");
        char names[64];
        op_names(TN_LIST(out), names, sizeof names);
        double off = distance(out, tn_add(x, tn_mul(c, tn_scalar(50000, TN_F64))));
        ok(!strcmp(names, "add") && off < 1e-6, "is one: %s, off by %g", names, off);
    }
}

/* What belongs to another stream is not gathered. */
static void test_streams(void) {
    tn_stream *other = tn_stream_new();
    TN_SCOPE {
        set s = make(TN_F32);
        tn_array *x = values(TN_F32, TN_SHAPE(2, 5, 6, 4));
        tn_array *y = CONV(s.w, .groups = 1), *out = NULL;
        tn_stream *was = tn_use(other);
        out = y = tn_mul(y, s.a);
        tn_use(was);
        char names[64];
        int status = tni_simplify(1, &x, 1, &out, true);
        op_names(TN_LIST(out), names, sizeof names);
        ok(!status && !strcmp(names, "conv mul") && same_bits(out, y), "two streams: %s", names);
    }
    tn_stream_free(other);
}

/* ---- failures ---- */

static int fn_memory(tn_list in, tn_array **out, int n_out, void *ud) {
    const set *s = ud;
    tn_array *x = in.v[0];
    (void)n_out;
    out[0] = tn_maximum(NORM(CONV(s->w, .groups = 1)), NUM(0));
    out[1] = NORM(tn_matmul(FLAT, s->mt));
    out[2] = ROW(tn_matmul(tn_reshape(x, TN_SHAPE(2, 30, 4)), s->mr));
    out[3] = tn_mul(tn_mul(x, s->p), s->q);
    return 0;
}

static int memory_run(int64_t n, bool *reached, bool *clean) {
    int status = 0;
    TN_SCOPE {
        rng_state = 3;
        set s = make(TN_F32);
        tn_array *x = values(TN_F32, TN_SHAPE(2, 5, 6, 4)), *lazy = tn_neg(x), *out[4], *was[4];
        (void)fn_memory(TN_LIST(lazy), out, 4, &s);
        memcpy(was, out, sizeof out);
        int64_t before = tni_alloc_count();
        tni_fail_alloc_at(n);
        status = tni_simplify(1, &lazy, 4, out, true);
        tni_fail_alloc_at(0);
        *reached = tni_alloc_count() - before >= n;
        if (status && memcmp(was, out, sizeof out)) *clean = false;
        if (!status && tn_eval((tn_list){out, 4})) *clean = false;
    }
    return status;
}

/* ---- halves beside f32 ---- */

/* A product in f32 is not rounded to what its weights are. */
static int fn_mixed(tn_list in, tn_array **out, int n_out, void *ud) {
    const set *s = ud;
    tn_array *x = in.v[0];
    (void)n_out;
    out[0] = tn_mul(tn_matmul(tn_astype(FLAT, TN_F32), s->m), tn_astype(s->a, TN_F32));
    out[1] = tn_mul(tn_matmul(FLAT, tn_astype(s->m, TN_F32)), tn_astype(s->a, TN_F32));
    return 0;
}

static void test_mixed(void) {
    TN_SCOPE {
        set s = make(TN_BF16);
        tn_array *x = values(TN_BF16, TN_SHAPE(2, 5, 6, 4));
        graph a = simplified(fn_mixed, &s, TN_LIST(x), 2, false),
              b = simplified(fn_mixed, &s, TN_LIST(x), 2, true);
        ok(!strcmp(b.names, "reshape astype matmul mul matmul") && same_bits(a.out[0], b.out[0]) &&
               distance(a.out[1], b.out[1]) < 1e-6,
           "bfloat16 weights of a float32 product stay, float32 ones do not: %s", b.names);
    }
}

/* Packed weights are not packed again. */
static int fn_packed(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array **q = ud;
    (void)n_out;
    out[0] = tn_mul(tn_quantized_matmul(in.v[0], q[0], q[1], q[2], true, 32, 4), q[3]);
    return 0;
}

static void test_packed(void) {
    TN_SCOPE {
        tn_array *x = values(TN_F32, TN_SHAPE(3, 32)), *q[4];
        tn_quantize(values(TN_F32, TN_SHAPE(6, 32)), 32, 4, q);
        q[3] = values(TN_F32, TN_SHAPE(6));
        (void)!tn_eval((tn_list){q, 3});
        graph a = simplified(fn_packed, q, TN_LIST(x), 1, false),
              b = simplified(fn_packed, q, TN_LIST(x), 1, true);
        ok(!strcmp(b.names, "quantized_matmul mul") && same_bits(a.out[0], b.out[0]),
           "packed weights stay: %s", b.names);
    }
}

/* Large weights that have no value yet, but are kept by somebody, get one first. */
static int fn_lazy(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array **w = ud;
    (void)n_out;
    out[0] = tn_mul(tn_matmul(in.v[0], w[0]), w[1]);
    return 0;
}

static void test_lazy(void) {
    tn_array *w[2] = {NULL, NULL};
    TN_SCOPE {
        tn_array *x = held(tn_random_normal(TN_SHAPE(3, 128), TN_F32, NULL)), *y = x;
        w[0] = tn_keep(tn_random_normal(TN_SHAPE(128, 160), TN_F32, NULL));
        w[1] = tn_keep(tn_random_normal(TN_SHAPE(160), TN_F32, NULL));
        tn_compiled *c = tn_compile(fn_lazy, w, 1, TN_OPT(tn_compile_opt, .fold = true));
        int status = c ? tn_compiled_call(c, TN_LIST(x), &y) : TN_EMEMORY;
        int64_t launches = tn_compiled_stats(c).launches;
        graph g = simplified(fn_lazy, w, TN_LIST(x), 1, true);
        ok(!status && launches == 1 && !strcmp(g.names, "matmul") && same_bits(y, g.out[0]),
           "lazy weights: %lld launch, %s", (long long)launches, g.names);
        tn_compiled_free(c);
    }
    tn_drop(w[0]), tn_drop(w[1]);
}

/* ---- a network ---- */

typedef struct net {
    tn_params *p;
    tn_nn_conv conv[3];
    tn_nn_batch_norm norm[3];
    tn_nn_linear head;
    bool training;
} net;

/* Parameters of random values; variances are positive. */
static int net_fill(net *m, tn_dtype d) {
    int status = 0;
    for (int i = 0; i < tn_params_count(m->p) && !status; i++) {
        tn_array **slot = tn_params_slot(m->p, i);
        tn_array *v = tn_random_normal(tn_shape(*slot), TN_F32, NULL);
        v = tn_mul(v, tn_f32(0.3));
        if (strstr(tn_params_name(m->p, i), "running_var")) v = tn_add(tn_abs(v), tn_f32(0.5));
        status = tn_assign(slot, tn_astype(v, d));
        if (!status) status = tn_eval(TN_LIST(*slot));
    }
    return status;
}

static int net_init(net *m, tn_dtype d) {
    static const int64_t width[4] = {3, 8, 12, 8};
    static const char *const conv[3] = {"conv0", "conv1", "conv2"}, *const norm[3] = {
                                                                        "norm0", "norm1", "norm2"};
    *m = (net){.p = tn_params_new()};
    if (!m->p) return TN_EMEMORY;
    int status = 0;
    tn_random_seed(4);
    for (int k = 0; k < 3 && !status; k++) {
        tn_conv_opt o = {.size = sizeof o, .padding = TN_SPATIAL(1), .groups = k ? 4 : 1};
        status = (k == 2 ? tn_nn_conv_transpose2d_init : tn_nn_conv2d_init)(
            &m->conv[k], m->p, conv[k], width[k], width[k + 1], TN_SPATIAL(3), k == 1, &o);
        if (!status) status = tn_nn_batch_norm_init(&m->norm[k], m->p, norm[k], width[k + 1], NULL);
    }
    if (!status) status = tn_nn_linear_init(&m->head, m->p, "head", 8, 10, true);
    return status ? status : net_fill(m, d);
}

/* [N,8,8,3] to 10 logits. */
static int net_call(tn_list in, tn_array **out, int n_out, void *ud) {
    net *m = ud;
    tn_array *x = in.v[0];
    (void)n_out;
    for (int k = 0; k < 3; k++) {
        tn_array *y = tn_nn_conv_call(&m->conv[k], x);
        x = tn_nn_relu(tn_nn_batch_norm_call(&m->norm[k], y, m->training));
    }
    out[0] = tn_nn_linear_call(&m->head, tn_mean(x, TN_AXES(1, 2), false));
    return tn_array_status(out[0]);
}

static int net_ran(const net *m, const tn_compile_opt *opt, tn_array *x, tn_array **y,
                   int64_t *launches) {
    tn_compiled *c = tn_compile(net_call, (void *)(uintptr_t)m, 1, opt);
    int status = c ? tn_compiled_call(c, TN_LIST(x), y) : TN_EMEMORY;
    *launches = tn_compiled_stats(c).launches;
    tn_compiled_free(c);
    return status;
}

/* Every stage is a convolution and one pass. */
static void test_net(tn_dtype d, const char *left) {
    net m;
    TN_SCOPE {
        tn_array *x = values(d, TN_SHAPE(2, 8, 8, 3)), *y = x, *z = x, *u = x;
        int64_t plain = 0, folded = 0;
        int status = net_init(&m, d);
        graph g = simplified(net_call, &m, TN_LIST(x), 1, true);
        if (!status) status = net_call(TN_LIST(x), &y, 1, &m);
        if (!status) status = net_ran(&m, NULL, x, &z, &plain);
        if (!status) status = net_ran(&m, TN_OPT(tn_compile_opt, .fold = true), x, &u, &folded);
        ok(!status, "%s net%s%s", tn_dtype_name(d), status ? ": " : "", status ? tn_error() : "");
        if (status) break;
        ok(same_bits(y, z), "%s net: without fold the same bits", tn_dtype_name(d));
        ok(!strcmp(g.names, left), "%s net: %s", tn_dtype_name(d), g.names);
        ok(folded > 0 && folded <= plain, "%s net: %lld launches, plain %lld", tn_dtype_name(d),
           (long long)folded, (long long)plain);
        double size = distance(y, tn_f32(0)) * eps(d), b = distance(u, y) / size;
        ok(same_bits(u, g.out[0]) && b < 4, "%s net: %.2f roundings from plain", tn_dtype_name(d),
           b);
    }
    tn_params_free(m.p);
}

static void test_net_stays(void) {
    net m;
    TN_SCOPE {
        tn_array *x = values(TN_F32, TN_SHAPE(2, 8, 8, 3)), *y = x, *u = x;
        int64_t launches;
        int status = net_init(&m, TN_F32);
        tn_compile_opt o = {.size = sizeof o, .fold = true, .state = tn_params_slots(m.p)};
        if (!status) status = net_call(TN_LIST(x), &y, 1, &m);
        if (!status) status = tn_eval(TN_LIST(y));
        if (!status) status = net_ran(&m, &o, x, &u, &launches);
        ok(!status && same_bits(y, u), "parameters that are state: the same bits");
        tn_array *w = tn_keep(tn_add(m.norm[0].weight, tn_f32(1)));
        tn_compiled *c = tn_compile(net_call, &m, 1, &o);
        if (!status) status = tn_compiled_call(c, TN_LIST(x), &u);
        tn_drop(m.norm[0].weight), m.norm[0].weight = w;
        if (!status) status = tn_compiled_call(c, TN_LIST(x), &u);
        if (!status) status = net_call(TN_LIST(x), &y, 1, &m);
        ok(!status && same_bits(y, u), "and what is put there later is used");
        tn_compiled_free(c);
        m.training = true;
        graph g = simplified(net_call, &m, TN_LIST(x), 1, true);
        ok(!g.status && strstr(g.names, "sqrt"), "statistics of the batch stay");
    }
    tn_params_free(m.p);
}

/* Other batches are other plans; each is folded. */
static void test_net_open(void) {
    net m;
    TN_SCOPE {
        int status = net_init(&m, TN_F32);
        tn_compile_opt o = {.size = sizeof o, .fold = true, .shapeless = true};
        tn_compiled *c = tn_compile(net_call, &m, 1, &o);
        int64_t launches = 0, runs = 0;
        for (int n = 2; n < 6 && !status; n++) {
            tn_array *x = values(TN_F32, TN_SHAPE(n, 8, 8, 3)), *y = x, *u = x;
            status = tn_compiled_call(c, TN_LIST(x), &u);
            if (!status) status = net_call(TN_LIST(x), &y, 1, &m);
            tn_compile_stats s = tn_compiled_stats(c);
            if (n == 2) launches = s.launches;
            if (n < 4) runs = s.runs; /* the second size may be looked at too */
            ok(!status && distance(u, y) < 1e-5 && s.launches == launches && s.runs == runs,
               "shapeless, a batch of %d", n);
        }
        tn_compiled_free(c);
    }
    tn_params_free(m.p);
}

int main(void) {
    test_rules();
    test_stays();
    test_edges();
    test_random();
    test_long();
    test_streams();
    memory_check(memory_run, 60);
    test_mixed();
    test_packed();
    test_lazy();
    test_net(TN_F32,
             "conv add maximum conv add maximum conv add maximum sum reshape mul matmul add");
    test_net(TN_F16, "conv add maximum conv add maximum conv add maximum astype sum reshape mul "
                     "astype matmul add");
    test_net(TN_BF16, "conv add maximum conv add maximum conv add maximum astype sum reshape mul "
                      "astype matmul add");
    test_net_stays();
    test_net_open();
    return tap_done();
}
