/* First values of weights, from the same random numbers as mlx.nn.init draws. */
#include "base/alloc.h"
#include "base/err.h"
#include "nn/layer.h"
#include <math.h>

tn_array *tn_nn_init_constant(tn_ints shape, double value, tn_dtype dtype) {
    return tn_full(shape, tn_scalar(value, dtype));
}

tn_array *tn_nn_init_normal(tn_ints shape, double mean, double std, tn_dtype dtype) {
    tn_array *x = tn_random_normal(shape, dtype, NULL);
    if (std != 1) x = tn_mul(x, tn_f32(std));
    return mean == 0 ? x : tn_add(x, tn_f32(mean));
}

tn_array *tn_nn_init_uniform(tn_ints shape, double low, double high, tn_dtype dtype) {
    return tn_random_uniform(tn_f32(low), tn_f32(high), shape, dtype, NULL);
}

/* NULL, or an error array unless the shape has two axes. */
static tn_array *init_matrix(const char *op, tn_ints shape) {
    return shape.n == 2 ? NULL
                        : tn_error_array(TN_ESHAPE, "%s: a shape of %d axes, not 2", op, shape.n);
}

tn_array *tn_nn_init_identity(tn_ints shape, tn_dtype dtype) {
    tn_array *bad = init_matrix("identity", shape);
    if (bad) return bad;
    if (shape.v[0] != shape.v[1])
        return tn_error_array(TN_ESHAPE, "identity: [%lld, %lld] is not square",
                              (long long)shape.v[0], (long long)shape.v[1]);
    return tn_eye(shape.v[0], shape.v[1], 0, dtype);
}

/* ---- by the number of inputs and outputs ---- */

typedef struct init_fans {
    double in, out;
} init_fans;

/* NULL, or an error array. */
static tn_array *init_count(const char *op, tn_ints shape, init_fans *f) {
    if (shape.n < 2)
        return tn_error_array(TN_ESHAPE, "%s: a shape of %d axes; [out, ..., in] is needed", op,
                              shape.n);
    double taps = 1;
    for (int d = 1; d < shape.n - 1; d++) taps *= (double)shape.v[d];
    *f = (init_fans){taps * (double)shape.v[shape.n - 1], taps * (double)shape.v[0]};
    return f->in > 0 && f->out > 0
               ? NULL
               : tn_error_array(TN_ESHAPE, "%s: %g inputs and %g outputs; 1 at least", op, f->in,
                                f->out);
}

tn_array *tn_nn_init_glorot_normal(tn_ints shape, double gain, tn_dtype dtype) {
    init_fans f;
    tn_array *bad = init_count("glorot_normal", shape, &f);
    return bad ? bad : tn_nn_init_normal(shape, 0, gain * sqrt(2 / (f.in + f.out)), dtype);
}

tn_array *tn_nn_init_glorot_uniform(tn_ints shape, double gain, tn_dtype dtype) {
    init_fans f;
    tn_array *bad = init_count("glorot_uniform", shape, &f);
    double limit = bad ? 0 : gain * sqrt(6 / (f.in + f.out));
    return bad ? bad : tn_nn_init_uniform(shape, -limit, limit, dtype);
}

tn_array *tn_nn_init_he_normal(tn_ints shape, bool fan_out, double gain, tn_dtype dtype) {
    init_fans f;
    tn_array *bad = init_count("he_normal", shape, &f);
    return bad ? bad : tn_nn_init_normal(shape, 0, gain / sqrt(fan_out ? f.out : f.in), dtype);
}

tn_array *tn_nn_init_he_uniform(tn_ints shape, bool fan_out, double gain, tn_dtype dtype) {
    init_fans f;
    tn_array *bad = init_count("he_uniform", shape, &f);
    double limit = bad ? 0 : gain * sqrt(3 / (fan_out ? f.out : f.in));
    return bad ? bad : tn_nn_init_uniform(shape, -limit, limit, dtype);
}

/* ---- sparse, orthogonal ---- */

tn_array *tn_nn_init_sparse(tn_ints shape, double sparsity, double mean, double std,
                            tn_dtype dtype) {
    tn_array *bad = init_matrix("sparse", shape);
    if (bad) return bad;
    if (!(sparsity >= 0 && sparsity <= 1))
        return tn_error_array(TN_EVALUE, "sparse: a share of %g; it must be in [0, 1]", sparsity);
    tn_array *order = tn_argsort(tn_random_uniform(NULL, NULL, shape, TN_F32, NULL), 1);
    tn_array *x = tn_nn_init_normal(shape, mean, std, dtype);
    int64_t zeros = (int64_t)ceil(sparsity * (double)shape.v[1]);
    return tn_put_along_axis(x, tn_slice_axis(order, 1, 0, zeros), tn_scalar(0, dtype), 1);
}

static double init_dot(const double *a, const double *b, int64_t n) {
    double s[4] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int k = 0; k < 4; k++) s[k] += a[i + k] * b[i + k];
    for (; i < n; i++) s[0] += a[i] * b[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

/* Rows made orthogonal in their order and of length 1 (modified Gram-Schmidt: the Q of a QR
 * decomposition whose R has a positive diagonal). */
static void init_orthogonalise(double *v, int64_t n) {
    for (int64_t j = 0; j < n; j++) {
        double *x = v + j * n, scale = 1 / sqrt(init_dot(x, x, n));
        for (int64_t i = 0; i < n; i++) x[i] *= scale;
        for (int64_t k = j + 1; k < n; k++) {
            double *y = v + k * n, r = init_dot(x, y, n);
            for (int64_t i = 0; i < n; i++) y[i] -= r * x[i];
        }
    }
}

tn_array *tn_nn_init_orthogonal(tn_ints shape, double gain, tn_dtype dtype) {
    tn_array *bad = init_matrix("orthogonal", shape);
    if (bad) return bad;
    int64_t rows = shape.v[0], columns = shape.v[1], n = rows > columns ? rows : columns;
    if (rows < 1 || columns < 1 || n > 1 << 15)
        return tn_error_array(TN_ESHAPE, "orthogonal: [%lld, %lld]; sizes of 1 to %d are allowed",
                              (long long)rows, (long long)columns, 1 << 15);
    size_t count = (size_t)n * (size_t)n;
    double *v = tni_alloc_array(count, sizeof *v);
    if (!v) {
        int status = tni_fail_memory(count * sizeof *v, "an orthogonal matrix");
        return tn_error_array(status, "%s", tn_error());
    }
    tn_array *random = tn_random_normal(TN_SHAPE(n, n), TN_F32, NULL), *q;
    int status = tn_read(tn_transpose(random, TN_ALL), TN_F64, v, count * sizeof *v);
    if (!status) init_orthogonalise(v, n);
    q = status ? tn_error_array(status, "orthogonal: %s", tn_error())
               : tn_transpose(tn_array_new(v, TN_F64, TN_SHAPE(n, n)), TN_ALL);
    tni_free(v);
    q = tn_slice(q, TN_INTS(0, 0), shape, TN_ALL);
    return tn_contiguous(tn_astype(tn_mul(q, tn_f32(gain)), dtype));
}
