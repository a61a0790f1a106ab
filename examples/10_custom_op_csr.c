/* An op of your own: a sparse matrix (CSR) times a dense one, with derivatives and vmap. It then
 * works in every transform, as tests/test_ext.c shows. */
#include <stdio.h>
#include <string.h>
#include <tenon/ext.h>

/* csr(values [nnz], columns i32 [nnz], offsets i32 [rows + 1], x [m, n]) -> [height, n]: row r of
 * the matrix has values offsets[r] up to offsets[r + 1]. transpose: its transpose times x. */
typedef struct csr_params {
    int64_t height, transpose;
} csr_params;

static int csr_infer(const tn_spec *in, int n_in, const void *params, tn_spec *out, int n_out,
                     void *ud) {
    const csr_params *p = params;
    (void)n_out, (void)ud;
    if (n_in != 4 || in[0].ndim != 1 || in[1].ndim != 1 || in[2].ndim != 1 || in[3].ndim != 2 ||
        in[0].shape[0] != in[1].shape[0] ||
        in[2].shape[0] != 1 + (p->transpose ? in[3].shape[0] : p->height))
        return tn_fail(TN_ESHAPE, "values [nnz], columns [nnz], offsets [rows + 1], x [m, n]");
    if (in[1].dtype != TN_I32 || in[2].dtype != TN_I32 || in[0].dtype != in[3].dtype ||
        (in[0].dtype != TN_F32 && in[0].dtype != TN_F64))
        return tn_fail(TN_EDTYPE, "indices are int32; values and x both float32 or float64");
    *out = in[3], out->shape[0] = p->height;
    return 0;
}

typedef struct csr_job {
    const void *v, *x;
    const int32_t *column, *offset;
    void *y;
    int64_t rows, n, transpose;
} csr_job;
#define CSR_BODY(T) /* columns begin..end of x and y, all rows of the matrix */                    \
    static void csr_##T(void *ctx, int64_t begin, int64_t end, int worker) {                       \
        const csr_job *j = ctx;                                                                    \
        (void)worker;                                                                              \
        for (int64_t r = 0; r < j->rows; r++)                                                      \
            for (int32_t e = j->offset[r]; e < j->offset[r + 1]; e++) {                            \
                int64_t from = j->transpose ? r : j->column[e], to = r + j->column[e] - from;      \
                const T *x = (const T *)j->x + from * j->n;                                        \
                T *y = (T *)j->y + to * j->n, v = ((const T *)j->v)[e];                            \
                for (int64_t i = begin; i < end; i++) y[i] += v * x[i];                            \
            }                                                                                      \
    }
CSR_BODY(float)
CSR_BODY(double)

static int csr_kernel(const tn_operand *in, int n_in, const tn_operand *out, int n_out,
                      const void *params, void *ud) {
    const csr_params *p = params;
    csr_job j = {in[0].data,  in[3].data,         in[1].data,     in[2].data,
                 out[0].data, in[2].shape[0] - 1, in[3].shape[1], p->transpose};
    int64_t nnz = in[0].shape[0], columns = p->transpose ? p->height : in[3].shape[0];
    (void)n_in, (void)n_out, (void)ud;
    if (j.offset[0] != 0 || j.offset[j.rows] != nnz)
        return tn_fail(TN_EINDEX, "offsets do not go from 0 to %d", (int)nnz);
    for (int64_t r = 0; r < j.rows; r++)
        if (j.offset[r] > j.offset[r + 1]) return tn_fail(TN_EINDEX, "row %d's end", (int)r);
    for (int64_t e = 0; e < nnz; e++)
        if (j.column[e] < 0 || j.column[e] >= columns)
            return tn_fail(TN_EINDEX, "value %d is in column %d", (int)e, (int)j.column[e]);
    memset(j.y, 0, (size_t)(p->height * j.n) * tn_dtype_size(out[0].dtype));
    tn_parallel_for(j.n, 256, in[0].dtype == TN_F32 ? csr_float : csr_double, &j);
    return 0;
}

static tn_array *csr_call(void *ud, tn_list in, int64_t height, int64_t transpose) {
    return tn_prim_call1(*(tn_prim **)ud, &(csr_params){height, transpose}, in);
}

static int csr_vjp(tn_list in, tn_list out, tn_list cot, const bool *want, const void *params,
                   tn_array **grads, void *ud) {
    const csr_params *p = params;
    tn_array *v = in.v[0], *column = in.v[1], *offset = in.v[2], *x = in.v[3], *g = cot.v[0];
    (void)out;
    if (want[0]) { /* row of a value: how many rows but the first begin before it or with it */
        int64_t nnz = tn_dim(v, 0), rows = tn_dim(offset, 0) - 1, t = p->transpose;
        tn_array *begun = tn_zeros(TN_SHAPE(nnz + 1), TN_I32), *row;
        begun = tn_scatter_add_axis(begun, tn_slice_axis(offset, 0, 1, rows), tn_i32(1), 0);
        row = tn_slice_axis(tn_cumsum(begun, 0, false, true), 0, 0, nnz);
        tn_array *gr = tn_take(g, t ? column : row, 0), *xr = tn_take(x, t ? row : column, 0);
        grads[0] = tn_sum(tn_mul(gr, xr), TN_AXES(1), false);
    }
    if (want[3])
        grads[3] = csr_call(ud, TN_LIST(v, column, offset, g), tn_dim(x, 0), !p->transpose);
    return 0;
}

static int csr_jvp(tn_list in, tn_list out, tn_list tan, const void *params, tn_array **out_tan,
                   void *ud) {
    const csr_params *p = params;
    for (int i = 0; i < 4; i += 3) { /* linear in values and in x */
        if (!tan.v[i]) continue;
        tn_list l = TN_LIST(i ? in.v[0] : tan.v[0], in.v[1], in.v[2], i ? tan.v[3] : in.v[3]);
        tn_array *dy = csr_call(ud, l, p->height, p->transpose);
        out_tan[0] = out_tan[0] ? tn_add(out_tan[0], dy) : dy;
    }
    (void)out;
    return 0;
}

/* One matrix, many x: one x with more columns. Otherwise the library makes call after call. */
static int csr_vmap(tn_list in, tn_ints axes, int64_t size, const void *params, tn_array **out,
                    int64_t *out_axes, int n_out, void *ud) {
    const csr_params *p = params;
    (void)n_out;
    for (int i = 0; i < 3; i++)
        if (axes.v[i] != TN_UNMAPPED) return TN_PRIM_APART;
    int64_t n = tn_dim(in.v[3], 2);
    tn_array *x = tn_reshape(tn_moveaxis(in.v[3], 0, 2), TN_SHAPE(tn_dim(in.v[3], 1), n * size));
    x = csr_call(ud, TN_LIST(in.v[0], in.v[1], in.v[2], x), p->height, p->transpose);
    out[0] = tn_reshape(x, TN_SHAPE(p->height, n, size));
    return out_axes[0] = 2, 0;
}

static tn_array *loss(tn_list in, void *csr) {
    return tn_sum(tn_square(csr_call(csr, in, 3, 0)), TN_ALL, false);
}

/* `self` is where the primitive will be: its rules call it. */
static tn_prim *csr_new(tn_prim **self) {
    tn_prim_desc d = {.size = sizeof d, .name = "csr", .params_size = sizeof(csr_params)};
    d.n_out = 1, d.flags = TN_PRIM_DENSE, d.ud = self, d.infer = csr_infer, d.kernel = csr_kernel;
    d.vjp = csr_vjp, d.jvp = csr_jvp, d.vmap = csr_vmap;
    return *self = tn_prim_new(&d);
}

static void print(const char *what, tn_array *a) {
    char text[256] = "";
    printf("%s\n%s\n", what, tn_format(a, text, sizeof text) < 0 ? tn_error() : text);
}

int main(void) {
    tn_prim *csr;
    if (!csr_new(&csr)) return 1;
    TN_SCOPE { /* [[1 0 2] [0 0 0] [0 3 0]] */
        tn_array *v = tn_array_new((float[]){1, 2, 3}, TN_F32, TN_SHAPE(3));
        tn_array *column = tn_array_new((int32_t[]){0, 2, 1}, TN_I32, TN_SHAPE(3));
        tn_array *offset = tn_array_new((int32_t[]){0, 2, 2, 3}, TN_I32, TN_SHAPE(4));
        tn_array *x = tn_reshape(tn_arange(0, 6, 1, TN_F32), TN_SHAPE(3, 2));
        tn_list in = TN_LIST(v, column, offset, x);
        print("A x =", csr_call(&csr, in, 3, 0));
        print("d|A x|^2 / d values =", tn_grad(loss, &csr, in, 0));
        print("d|A x|^2 / d x =", tn_grad(loss, &csr, in, 3));
    }
    tn_prim_free(csr);
    return 0;
}
