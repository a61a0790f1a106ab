/* Primitives of user code: the one of the example, tested like a built-in op; small ones for every
 * combination of rules; what happens when rules are wrong, and when memory runs out. */
#define main csr_main
int csr_main(void);
#include "../examples/10_custom_op_csr.c"
#undef main
#include "base/alloc.h"
#include "memory.h"
#include "random.h"
#include "tap.h"
#include "values.h"
#include <math.h>

static tn_array *noise(tn_ints shape, tn_dtype dtype) {
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++) n *= shape.v[i];
    double *v = malloc((size_t)n * sizeof *v + 1);
    for (int64_t i = 0; i < n; i++) v[i] = (double)below(2001) / 1000 - 1;
    tn_array *a = tn_astype(tn_array_new(v, TN_F64, shape), dtype);
    free(v);
    return a;
}

/* ---- the example: values ---- */

/* A random matrix [rows, columns] with empty rows among the others: values, columns, offsets. */
typedef struct sparse {
    int64_t rows, columns, nnz;
    int32_t at[256], offset[32];
    tn_array *v, *column, *row_end;
} sparse;

static void sparse_make(sparse *s, int64_t rows, int64_t columns, tn_dtype dtype) {
    s->rows = rows, s->columns = columns, s->nnz = 0;
    for (int64_t r = 0; r < rows; r++) {
        s->offset[r] = (int32_t)s->nnz;
        for (int64_t k = columns ? below(4) : 0; k > 0; k--)
            s->at[s->nnz++] = (int32_t)below(columns);
    }
    s->offset[rows] = (int32_t)s->nnz;
    s->v = noise(TN_SHAPE(s->nnz), dtype);
    s->column = tn_array_new(s->at, TN_I32, TN_SHAPE(s->nnz));
    s->row_end = tn_array_new(s->offset, TN_I32, TN_SHAPE(rows + 1));
}

/* The matrix with all its zeros, from ops that are there without the example. */
static tn_array *sparse_dense(const sparse *s) {
    double *d = calloc((size_t)(s->rows * s->columns) + 1, sizeof *d), *v = values(s->v);
    for (int64_t r = 0; r < s->rows; r++)
        for (int32_t e = s->offset[r]; e < s->offset[r + 1]; e++)
            d[r * s->columns + s->at[e]] += v[e];
    tn_array *a = tn_array_new(d, TN_F64, TN_SHAPE(s->rows, s->columns));
    free(d), free(v);
    return a;
}

static void check_values(tn_prim *csr, int64_t rows, int64_t columns, int64_t n, tn_dtype dtype) {
    TN_SCOPE {
        sparse s;
        sparse_make(&s, rows, columns, dtype);
        tn_array *a = sparse_dense(&s), *x = noise(TN_SHAPE(n, columns), dtype),
                 *z = noise(TN_SHAPE(rows, n), dtype);
        x = tn_transpose(x, TN_ALL); /* columns of a row-major array */
        tn_array *y = csr_call(&csr, TN_LIST(s.v, s.column, s.row_end, x), rows, 0);
        tn_array *yt = csr_call(&csr, TN_LIST(s.v, s.column, s.row_end, z), columns, 1);
        ok(tn_dtype_of(y) == dtype && close_to(y, tn_matmul(a, tn_astype(x, TN_F64)), 1e-5) &&
               close_to(yt, tn_matmul(tn_transpose(a, TN_ALL), tn_astype(z, TN_F64)), 1e-5) &&
               !tn_graph_check(TN_LIST(y, yt)),
           "[%d, %d] times [%d, %d], %s", (int)rows, (int)columns, (int)columns, (int)n,
           tn_dtype_name(dtype));
    }
}

static void test_values(tn_prim *csr) {
    check_values(csr, 3, 4, 2, TN_F32);
    check_values(csr, 17, 9, 700, TN_F32); /* more than one piece */
    check_values(csr, 9, 30, 5, TN_F64);
    check_values(csr, 1, 1, 1, TN_F64);
    check_values(csr, 0, 3, 2, TN_F64);
    check_values(csr, 3, 0, 2, TN_F64);
    check_values(csr, 3, 2, 0, TN_F64);
}

/* ---- the example: derivatives ---- */

typedef struct product {
    tn_prim **csr;
    sparse s;
    int64_t transpose;
    tn_array *weight;
} product;

static void product_init(product *p, tn_prim **csr, int64_t transpose, int64_t n) {
    p->csr = csr, p->transpose = transpose;
    sparse_make(&p->s, 5, 7, TN_F64);
    p->weight = noise(TN_SHAPE(transpose ? 7 : 5, n), TN_F64);
}
static tn_array *product_x(const product *p) {
    return noise(TN_SHAPE(p->transpose ? 5 : 7, tn_dim(p->weight, 1)), TN_F64);
}
static tn_array *product_of(const product *p, tn_array *v, tn_array *x) {
    tn_list in = TN_LIST(v, p->s.column, p->s.row_end, x);
    return csr_call(p->csr, in, p->transpose ? 7 : 5, p->transpose);
}

/* in: values, x. Nonlinear on both sides, so that second derivatives say something. */
static tn_array *product_loss(tn_list in, void *ud) {
    const product *p = ud;
    tn_array *y = product_of(p, tn_sin(in.v[0]), tn_square(in.v[1]));
    return tn_sum(tn_mul(tn_sin(y), p->weight), TN_ALL, false);
}
static int product_grads(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *y;
    tn_value_and_grad(product_loss, ud, in, n_out, &y, out);
    return tn_array_status(y);
}
static int product_fn(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = product_loss(in, ud);
    return 0;
}
/* The gradients' product with fixed directions: the Hessian's with them is its gradient. */
static tn_array *product_slope(tn_list in, void *ud) {
    tn_array *g[2];
    product *p = ud;
    if (product_grads(in, g, 2, ud)) return g[0];
    return tn_add(tn_sum(tn_mul(g[0], tn_cos(p->s.v)), TN_ALL, false),
                  tn_sum(tn_sin(g[1]), TN_ALL, false));
}

/* d f / d in[k] by central differences of order 4, element by element. */
static tn_array *differences(tn_fn f, void *ud, tn_list in, int k) {
    static const double at[4] = {-2, -1, 1, 2}, weight[4] = {1, -8, 8, -1}, h = 1e-3;
    int64_t n = tn_size(in.v[k]);
    double *v = values(in.v[k]), *d = calloc((size_t)n + 1, sizeof *d);
    tn_array *moved[2] = {in.v[0], in.v[1]};
    for (int64_t i = 0; i < n; i++) {
        double was = v[i];
        for (int t = 0; t < 4; t++) {
            TN_SCOPE {
                v[i] = was + at[t] * h;
                moved[k] = tn_array_new(v, TN_F64, tn_shape(in.v[k]));
                d[i] += weight[t] * tn_item_f64(f((tn_list){moved, 2}, ud)) / (12 * h);
            }
        }
        v[i] = was;
    }
    tn_array *a = tn_array_new(d, TN_F64, tn_shape(in.v[k]));
    free(v), free(d);
    return a;
}

static void check_derivatives(tn_prim **csr, int64_t transpose) {
    TN_SCOPE {
        product p;
        product_init(&p, csr, transpose, 3);
        tn_array *g[2], *y, *dy, *in_v[2] = {p.s.v, product_x(&p)};
        tn_list in = {in_v, 2}, tan = TN_LIST(noise(TN_SHAPE(p.s.nnz), TN_F64), product_x(&p));
        tn_array *fv = differences(product_loss, &p, in, 0),
                 *fx = differences(product_loss, &p, in, 1);
        int status = product_grads(in, g, 2, &p);
        ok(!status && close_to(g[0], fv, 1e-8) && close_to(g[1], fx, 1e-8),
           "vjp, transpose %d: differences", (int)transpose);
        tn_array *want = tn_add(tn_sum(tn_mul(fv, tan.v[0]), TN_ALL, false),
                                tn_sum(tn_mul(fx, tan.v[1]), TN_ALL, false));
        status = tn_jvp(product_fn, &p, in, tan, 1, &y, &dy);
        ok(!status && close_to(dy, want, 1e-8), "jvp, transpose %d: differences", (int)transpose);
        for (int k = 0; k < 2; k++)
            ok(close_to(tn_grad(product_slope, &p, in, k), differences(product_slope, &p, in, k),
                        1e-7),
               "second derivatives, argument %d, transpose %d", k, (int)transpose);
        ok(close_to(tn_grad(product_loss, &p, in, 0), fv, 1e-8), "one argument alone");
    }
}

static void test_derivatives(tn_prim **csr) {
    check_derivatives(csr, 0);
    check_derivatives(csr, 1);
}

/* ---- the example: vmap ---- */

static int sparse_fn(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = csr_call(ud, in, 3, 0);
    return tn_array_status(out[0]);
}
static int sparse_loss(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = loss(in, ud);
    return 0;
}
static int sparse_grads(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *y;
    (void)n_out;
    return tn_value_and_grad_of(sparse_loss, ud, in, (int[]){0, 3}, 2, 1, &y, out);
}

/* The inputs of `set` mapped, against one call after the other. */
static void check_vmap(tn_prim **csr, tn_fns fn, int n_out, int set, const char *what) {
    static const int32_t columns[2][4] = {{0, 2, 1, 3}, {1, 1, 3, 0}},
                         offsets[2][4] = {{0, 2, 2, 4}, {0, 0, 1, 4}};
    tn_array *in[4] = {noise(TN_SHAPE(2, 4), TN_F64), tn_array_new(columns, TN_I32, TN_SHAPE(2, 4)),
                       tn_array_new(offsets, TN_I32, TN_SHAPE(2, 4)),
                       noise(TN_SHAPE(4, 2, 2), TN_F64)};
    tn_array *y[2], *one[4], *each[2], *want[2][2];
    int64_t axes[4];
    int status = 0;
    for (int i = 0; i < 4; i++) {
        bool mapped = set >> i & 1;
        axes[i] = mapped ? i == 3 : TN_UNMAPPED;
        if (!mapped) in[i] = tn_take(in[i], tn_i32(0), i == 3);
    }
    for (int b = 0; b < 2 && !status; b++) {
        for (int i = 0; i < 4; i++)
            one[i] = axes[i] == TN_UNMAPPED ? in[i] : tn_take(in[i], tn_i32(b), i == 3);
        status = fn((tn_list){one, 4}, each, n_out, csr);
        for (int k = 0; k < n_out; k++) want[k][b] = each[k];
    }
    if (!status) status = tn_vmap(fn, csr, (tn_list){in, 4}, (tn_ints){axes, 4}, n_out, TN_ALL, y);
    bool equal = !status;
    for (int k = 0; k < n_out && equal; k++)
        equal = close_to(y[k], tn_stack((tn_list){want[k], 2}, 0), 1e-12);
    ok(equal, "vmap of %s, inputs %#x%s%s", what, (unsigned)set, status ? ": " : "",
       status ? tn_error() : "");
}

static void test_vmap(tn_prim **csr) {
    for (int set = 1; set < 16; set++)
        TN_SCOPE {
            check_vmap(csr, sparse_fn, 1, set, "the product");
            check_vmap(csr, sparse_grads, 2, set, "its gradients");
        }
}

/* ---- the example: compiled, checkpointed ---- */

static int product_again(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_checkpoint(product_fn, ud, in, n_out, out);
}
static tn_array *product_checkpointed(tn_list in, void *ud) {
    tn_array *y;
    return product_again(in, &y, 1, ud), y;
}
static int product_twice(tn_list in, tn_array **out, int n_out, void *ud) {
    const product *p = ud;
    for (int k = 0; k < n_out; k++) out[k] = product_of(p, in.v[0], in.v[1]);
    return 0;
}

static void test_compiled(tn_prim **csr) {
    TN_SCOPE {
        product p;
        product_init(&p, csr, 0, 3);
        tn_array *want[2], *got[2];
        tn_compiled *c = tn_compile(product_grads, &p, 2, NULL);
        for (int run = 0; run < 3; run++) {
            tn_list in = TN_LIST(noise(TN_SHAPE(p.s.nnz), TN_F64), product_x(&p));
            int status = product_grads(in, want, 2, &p);
            if (!status) status = tn_compiled_call(c, in, got);
            ok(!status && close_to(got[0], want[0], 0) && close_to(got[1], want[1], 0),
               "gradients compiled, run %d", run);
            ok(close_to(tn_grad(product_checkpointed, &p, in, 0), want[0], 1e-14),
               "gradient through a checkpoint");
        }
        is_i64(tn_compiled_stats(c).hits, 2, "the plan was replayed");
        tn_compiled_free(c);
        c = tn_compile(product_twice, &p, 2, NULL);
        tn_list in = TN_LIST(p.s.v, product_x(&p));
        ok(!tn_compiled_call(c, in, got) && close_to(got[0], got[1], 0), "two equal calls");
        is_i64(tn_compiled_stats(c).launches, 1, "are one");
        tn_compiled_free(c);
    }
}

/* ---- the example: what it says of nonsense ---- */

static void test_nonsense(tn_prim **csr) {
    TN_SCOPE {
        tn_array *v = tn_ones(TN_SHAPE(2), TN_F32), *x = tn_ones(TN_SHAPE(3, 2), TN_F32), *y,
                 *column = tn_array_new((int32_t[]){0, 3}, TN_I32, TN_SHAPE(2)),
                 *offset = tn_array_new((int32_t[]){0, 1, 2}, TN_I32, TN_SHAPE(3)),
                 *past = tn_array_new((int32_t[]){0, 1, 3}, TN_I32, TN_SHAPE(3));
        y = csr_call(csr, TN_LIST(v, column, offset, x), 3, 0);
        ok(tn_array_status(y) == TN_ESHAPE && strstr(tn_array_error(y), "csr: values [nnz]"),
           "by the shape rule: %s", tn_array_error(y));
        y = csr_call(csr, TN_LIST(v, offset, offset, tn_astype(x, TN_F16)), 2, 0);
        ok(tn_array_status(y) < 0, "by the shape rule: %s", tn_array_error(y));
        y = csr_call(csr, TN_LIST(v, column, offset, x), 2, 0);
        ok(!tn_array_status(y) && tn_eval(TN_LIST(y)) == TN_EINDEX &&
               strstr(tn_error(), "csr: value 1 is in column 3"),
           "by the kernel: %s", tn_error());
        y = csr_call(csr, TN_LIST(v, column, past, x), 2, 0);
        ok(tn_eval(TN_LIST(y)) == TN_EINDEX && strstr(tn_error(), "offsets do not go from 0 to 2"),
           "by the kernel: %s", tn_error());
    }
}

/* ---- the example: memory that runs out ---- */

static int much(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *y, *dy;
    product *p = ud;
    (void)n_out;
    int status = tn_jvp(product_fn, ud, in, TN_LIST(tn_cos(in.v[0]), in.v[1]), 1, &y, &dy);
    tn_array *many = tn_stack(TN_LIST(in.v[1], tn_neg(in.v[1])), 1);
    if (!status)
        status = tn_vmap(product_twice, ud, TN_LIST(p->s.v, many), TN_AXES(TN_UNMAPPED, 1), 1,
                         TN_ALL, &y);
    if (!status) out[0] = tn_add(dy, tn_sum(y, TN_ALL, false));
    return status;
}
static tn_array *much_loss(tn_list in, void *ud) {
    tn_array *y = NULL;
    return much(in, &y, 1, ud), y ? y : tn_f32(0);
}
static int much_grads(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *y;
    tn_value_and_grad(much_loss, ud, in, n_out, &y, out);
    return tn_array_status(y);
}

static int memory_run(int64_t n, bool *reached, bool *clean) {
    int status = 0;
    tn_prim *csr = NULL;
    TN_SCOPE {
        product p;
        rng_state = 7;
        product_init(&p, &csr, 0, 2);
        tn_array *x = product_x(&p), *g[2] = {NULL};
        int64_t asked = tni_alloc_count();
        tni_fail_alloc_at(n);
        if (!csr_new(&csr)) status = TN_EMEMORY;
        tn_compiled *c = status ? NULL : tn_compile(much_grads, &p, 2, NULL);
        if (!status && !c) status = TN_EMEMORY;
        if (c) status = tn_compiled_call(c, TN_LIST(p.s.v, x), g);
        *reached = n && tni_alloc_count() - asked >= n;
        tni_fail_alloc_at(0);
        for (int k = 0; k < 2 && c; k++) *clean = *clean && tn_array_status(g[k]) == status;
        tn_compiled_free(c);
        if (!status) *clean = *clean && !tn_eval(TN_LIST(g[0], g[1]));
    }
    tn_prim_free(csr);
    return status;
}

static void test_memory(void) { memory_check(memory_run, 200); }

int main(void) {
    tn_prim *csr;
    if (!ok(csr_new(&csr) != NULL, "the example's primitive")) return tap_done();
    test_values(csr);
    test_derivatives(&csr);
    test_vmap(&csr);
    test_compiled(&csr);
    test_nonsense(&csr);
    tn_prim_free(csr);
    test_memory();
    return tap_done();
}
