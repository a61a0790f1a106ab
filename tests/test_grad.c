/* Reverse and forward differentiation: every differentiable primitive's vjp and jvp against
 * central differences in f64, nesting, a training step against the same in plain C, misuse. */
#include "base/alloc.h"
#include "tap.h"
#include "tenon/tenon.h"
#include <math.h>

/* ---- the training step of the design ---- */

enum { NX = 5, DX = 3, DH = 4, DY = 2, STEPS = 10 };

static tn_array *mlp_loss(tn_list in, void *ud) {
    (void)ud;
    tn_array *w1 = in.v[0], *b1 = in.v[1], *w2 = in.v[2], *b2 = in.v[3], *x = in.v[4], *t = in.v[5];
    tn_array *h = tn_maximum(tn_add(tn_matmul(x, w1), b1), tn_f32(0));
    tn_array *d = tn_sub(tn_add(tn_matmul(h, w2), b2), t);
    return tn_mean(tn_mul(d, d), TN_ALL, false);
}

typedef struct mlp {
    double w1[DX * DH], b1[DH], w2[DH * DY], b2[DY];
} mlp;

static double mlp_number(unsigned *state) {
    *state = *state * 1664525u + 1013904223u;
    return (double)(*state >> 8) / (1 << 24) - 0.5;
}

/* One step of plain C; the loss before it. */
static double mlp_step(mlp *p, const double *x, const double *t, double lr) {
    mlp g = {0};
    double loss = 0;
    for (int n = 0; n < NX; n++) {
        double z[DH], h[DH], dh[DH] = {0};
        for (int j = 0; j < DH; j++) {
            z[j] = p->b1[j];
            for (int i = 0; i < DX; i++) z[j] += x[n * DX + i] * p->w1[i * DH + j];
            h[j] = z[j] > 0 ? z[j] : 0;
        }
        for (int k = 0; k < DY; k++) {
            double y = p->b2[k];
            for (int j = 0; j < DH; j++) y += h[j] * p->w2[j * DY + k];
            double d = y - t[n * DY + k], dy = 2 * d / (NX * DY);
            loss += d * d / (NX * DY);
            g.b2[k] += dy;
            for (int j = 0; j < DH; j++)
                g.w2[j * DY + k] += dy * h[j], dh[j] += dy * p->w2[j * DY + k];
        }
        for (int j = 0; j < DH; j++) {
            double dz = z[j] > 0 ? dh[j] : 0;
            g.b1[j] += dz;
            for (int i = 0; i < DX; i++) g.w1[i * DH + j] += dz * x[n * DX + i];
        }
    }
    double *q = (double *)(void *)p, *d = (double *)(void *)&g;
    for (size_t i = 0; i < sizeof *p / sizeof *q; i++) q[i] -= lr * d[i];
    return loss;
}

static void test_mlp(void) {
    mlp c;
    unsigned state = 1;
    double x[NX * DX], t[NX * DY], lr = 0.3, worst = 0, *q = (double *)(void *)&c;
    for (size_t i = 0; i < sizeof c / sizeof *q; i++) q[i] = mlp_number(&state);
    for (int i = 0; i < NX * DX; i++) x[i] = mlp_number(&state);
    for (int i = 0; i < NX * DY; i++) t[i] = mlp_number(&state);
    tn_array *p[4] = {NULL};
    TN_SCOPE {
        tn_array *a[4] = {
            tn_array_new(c.w1, TN_F64, TN_SHAPE(DX, DH)), tn_array_new(c.b1, TN_F64, TN_SHAPE(DH)),
            tn_array_new(c.w2, TN_F64, TN_SHAPE(DH, DY)), tn_array_new(c.b2, TN_F64, TN_SHAPE(DY))};
        for (int k = 0; k < 4; k++) (void)!tn_assign(&p[k], a[k]);
    }
    double first = 0, last = 0;
    for (int step = 0; step < STEPS; step++)
        TN_SCOPE {
            tn_array *ax = tn_array_new(x, TN_F64, TN_SHAPE(NX, DX)),
                     *at = tn_array_new(t, TN_F64, TN_SHAPE(NX, DY));
            tn_array *loss, *g[4], *n[4];
            tn_value_and_grad(mlp_loss, NULL, TN_LIST(p[0], p[1], p[2], p[3], ax, at), 4, &loss, g);
            for (int k = 0; k < 4; k++) n[k] = tn_sub(p[k], tn_mul(tn_f32(lr), g[k]));
            lr = (double)(float)lr;
            if (tn_commit(p, (tn_list){n, 4}, TN_LIST(loss))) {
                ok(0, "a step: %s", tn_error());
                return;
            }
            double want = mlp_step(&c, x, t, lr), got = tn_item_f64(loss);
            worst = fmax(worst, fabs(got - want));
            if (!step) first = got;
            last = got;
        }
    ok(worst < 1e-12, "mlp: ten steps follow plain C (%g)", worst);
    ok(last < first * 0.9, "mlp: the loss falls (%g to %g)", first, last);
    for (int k = 0; k < 4; k++) tn_drop(p[k]);
}

/* ---- every primitive against differences ----
 * A case is a function of up to three f64 arguments to one f64 array. Along random directions v and
 * cotangents u: jvp against a central difference of fourth order, <jvp, u> = <v, vjp>, and the same
 * for the gradient function itself: second derivatives. */

enum { MOST = 64 };
typedef struct probe {
    const char *name;
    tn_array *(*f)(tn_list in);
    int n_in;
    double low, high; /* where the arguments lie */
    int64_t shape[3][3];
    bool flat2; /* no second derivative to look at */
} probe;

static int probe_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = ((const probe *)ud)->f(in);
    return 0;
}

static tn_array *probe_random(unsigned *s, double low, double high, tn_ints shape) {
    double v[MOST];
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++) n *= shape.v[i];
    for (int64_t i = 0; i < n; i++) v[i] = low + (high - low) * (mlp_number(s) + 0.5);
    return tn_array_new(v, TN_F64, shape);
}
static tn_ints probe_shape(const probe *p, int k) {
    int n = 0;
    while (n < 3 && p->shape[k][n]) n++;
    return (tn_ints){p->shape[k], n};
}
static double dot(tn_array *a, tn_array *b) {
    return tn_item_f64(tn_sum(tn_mul(a, b), TN_ALL, false));
}

/* <f(x + t v), u> */
static double probe_at(tn_fns f, const void *ud, int n, tn_array **x, tn_array **v, tn_array *u,
                       double t) {
    tn_array *in[4], *y = NULL;
    for (int k = 0; k < n; k++) in[k] = tn_add(x[k], tn_mul(v[k], tn_scalar(t, TN_F64)));
    if (f((tn_list){in, n}, &y, 1, (void *)(uintptr_t)ud)) return NAN;
    return dot(y, u);
}

/* Reverse and forward mode of f against differences; relative errors. */
static int probe_check(tn_fns f, const void *ud, int n, tn_array **x, unsigned *s, double *slope,
                       double *forward, double *reverse) {
    tn_array *v[4], *y, *t, *g[4], *u;
    void *p = (void *)(uintptr_t)ud;
    for (int k = 0; k < n; k++) v[k] = probe_random(s, -1, 1, tn_shape(x[k]));
    int status = tn_jvp(f, p, (tn_list){x, n}, (tn_list){v, n}, 1, &y, &t);
    if (status) return status;
    u = probe_random(s, -1, 1, tn_shape(y));
    status = tn_vjp(f, p, (tn_list){x, n}, TN_LIST(u), &y, g);
    if (status) return status;
    double h = 1e-3, a = 0, b = dot(t, u);
    for (int k = 0; k < n; k++) a += dot(g[k], v[k]);
    double d = (8 * (probe_at(f, ud, n, x, v, u, h) - probe_at(f, ud, n, x, v, u, -h)) -
                (probe_at(f, ud, n, x, v, u, 2 * h) - probe_at(f, ud, n, x, v, u, -2 * h))) /
               (12 * h);
    *slope = fabs(d);
    *forward = fabs(b - d) / (1 + fabs(d));
    *reverse = fabs(a - b) / (1 + fabs(d));
    return 0;
}

/* The gradient of <f, weights> by the first argument, as a function: its derivatives are second
 * ones. */
static tn_array *probe_weighted(tn_list in, void *ud) {
    tn_array *y = ((const probe *)ud)->f(in), *w;
    unsigned s = 77;
    w = probe_random(&s, -1, 1, tn_shape(y));
    return tn_sum(tn_mul(y, w), TN_ALL, false);
}
static int probe_gradient(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tn_grad(probe_weighted, ud, in, 0);
    return 0;
}

static void probe_run(const probe *p) {
    unsigned s = 5;
    double slope = 0, forward = 1, reverse = 1, forward2 = 0, reverse2 = 0, slope2;
    int status = 0;
    TN_SCOPE {
        tn_array *x[4];
        for (int k = 0; k < p->n_in; k++)
            x[k] = probe_random(&s, p->low, p->high, probe_shape(p, k));
        status = probe_check(probe_fns, p, p->n_in, x, &s, &slope, &forward, &reverse);
        if (!status && !p->flat2)
            status = probe_check(probe_gradient, p, p->n_in, x, &s, &slope2, &forward2, &reverse2);
    }
    ok(!status && forward < 1e-6 && reverse < 1e-9, "%s: jvp %.1e, vjp %.1e%s%s", p->name, forward,
       reverse, status ? ": " : "", status ? tn_error() : "");
    ok(!status && forward2 < 1e-5 && reverse2 < 1e-9, "%s twice: jvp %.1e, vjp %.1e", p->name,
       forward2, reverse2);
}

#define CASE(name, expr)                                                                           \
    static tn_array *case_##name(tn_list in) {                                                     \
        tn_array *a = in.v[0], *b = in.n > 1 ? in.v[1] : NULL, *c = in.n > 2 ? in.v[2] : NULL;     \
        (void)a, (void)b, (void)c;                                                                 \
        return expr;                                                                               \
    }
static tn_array *index3(void) {
    return tn_array_new((int32_t[]){2, 0, -1, 0}, TN_I32, TN_SHAPE(4));
}
static tn_array *index_axis(void) {
    return tn_array_new((int32_t[]){2, 0, 1, 1, 0, 2, 2, 2}, TN_I32, TN_SHAPE(2, 4));
}
static tn_array *corners(void) {
    return tn_array_new((int32_t[]){2, 0, 1, 0}, TN_I32, TN_SHAPE(4));
}
static tn_array *attend(tn_array *q, tn_array *k, tn_array *v) {
    return tn_fast_scaled_dot_product_attention(
        tn_reshape(q, TN_SHAPE(1, 2, 3, 2)), tn_reshape(k, TN_SHAPE(1, 1, 3, 2)),
        tn_reshape(v, TN_SHAPE(1, 1, 3, 2)), 0.7, TN_OPT(tn_sdpa_opt, .causal = true));
}
static tn_array *rope(tn_array *a, bool traditional) {
    return tn_fast_rope(a, 4, tn_i32(3), TN_OPT(tn_rope_opt, .traditional = traditional));
}
static tn_array *gather2(tn_array *a) {
    return tn_gather(a, TN_LIST(index3()), TN_AXES(0), TN_SHAPE(1, 4));
}

/* Added to arguments that are all 0: numbers with zeros among them, one, two and none a row. */
static tn_array *holes(int64_t rows) {
    return tn_array_new((double[]){1.5, 0, 2, -1, 0, 0.5, 0, 3, 1, 2, 0.5, -2, 0, 3, 0, 1}, TN_F64,
                        TN_SHAPE(rows, 4));
}

CASE(reshape, tn_square(tn_reshape(a, TN_SHAPE(2, -1))))
CASE(transpose, tn_mul(tn_transpose(a, TN_ALL), tn_exp(tn_transpose(a, TN_ALL))))
CASE(slice, tn_square(tn_slice(a, TN_SHAPE(2, 0), TN_SHAPE(INT64_MIN, 4), TN_SHAPE(-1, 2))))
CASE(broadcast,
     tn_mul(tn_broadcast_to(a, TN_SHAPE(2, 3, 4)), tn_broadcast_to(a, TN_SHAPE(2, 3, 4))))
CASE(rows, tn_mul(a, tn_exp(b)))
CASE(astype, tn_square(tn_astype(tn_astype(tn_square(a), TN_F64), TN_F64)))
CASE(contiguous, tn_square(tn_contiguous(tn_transpose(a, TN_ALL))))
CASE(concatenate, tn_square(tn_concatenate(TN_LIST(a, b, tn_square(a)), 0)))
CASE(slice_update, tn_exp(tn_slice_update(a, tn_square(b), TN_SHAPE(1, 0), TN_ALL)))
CASE(take, tn_square(tn_take(a, index3(), 0)))
CASE(take_axis1, tn_square(tn_take(a, tn_reshape(index3(), TN_SHAPE(2, 2)), 1)))
CASE(gather, tn_square(gather2(a)))
CASE(scatter_add,
     tn_square(tn_scatter_add(a, TN_LIST(index3()), tn_reshape(tn_square(b), TN_SHAPE(4, 1, 4)),
                              TN_AXES(0))))
CASE(scatter, tn_square(tn_scatter(a, TN_LIST(index3()),
                                   tn_reshape(tn_square(b), TN_SHAPE(4, 1, 4)), TN_AXES(0))))
CASE(scatter_prod,
     tn_scatter_prod(a, TN_LIST(index3()), tn_reshape(b, TN_SHAPE(4, 1, 4)), TN_AXES(0)))
CASE(scatter_max,
     tn_square(tn_scatter_max(a, TN_LIST(index3()), tn_reshape(b, TN_SHAPE(4, 1, 4)), TN_AXES(0))))
CASE(scatter_min,
     tn_square(tn_scatter_min(a, TN_LIST(index3()), tn_reshape(b, TN_SHAPE(4, 1, 4)), TN_AXES(0))))
CASE(take_along, tn_square(tn_take_along_axis(a, index_axis(), 0)))
CASE(put_along, tn_square(tn_put_along_axis(a, index_axis(), b, 0)))
CASE(add_along, tn_square(tn_scatter_add_axis(a, index_axis(), b, 0)))
CASE(matmul, tn_square(tn_matmul(a, b)))
CASE(matvec, tn_square(tn_matmul(a, b)))
CASE(softmax, tn_softmax(a, TN_AXES(-1)))
CASE(softmax0, tn_softmax(a, TN_AXES(0)))
CASE(rms_norm, tn_fast_rms_norm(a, b, 1e-3))
CASE(layer_norm, tn_fast_layer_norm(a, b, c, 1e-3))
CASE(rope, tn_square(rope(a, false)))
CASE(rope_traditional, tn_square(rope(a, true)))
CASE(sdpa, attend(a, b, c))
CASE(sort, tn_square(tn_sort(a, -1)))
CASE(cumsum, tn_square(tn_cumsum(a, 0, false, true)))
CASE(cumsum_back, tn_square(tn_cumsum(a, 1, true, false)))
CASE(cumprod, tn_cumprod(a, 1, false, true))
CASE(cumprod_ex, tn_cumprod(a, 1, true, false))
CASE(cummax, tn_square(tn_cummax(a, 1, false, true)))
CASE(cummin_back, tn_square(tn_cummin(a, 1, true, true)))
CASE(logcumsumexp, tn_logcumsumexp(a, 1, false, true))
CASE(logcumsumexp_back, tn_logcumsumexp(a, 0, true, true))
CASE(cumprod_zeros, tn_cumprod(tn_add(a, holes(3)), 1, false, true))
CASE(cumprod_zeros_back, tn_cumprod(tn_add(a, holes(3)), 1, true, true))
CASE(cumprod_zeros_ex, tn_cumprod(tn_add(a, holes(3)), 0, false, false))
CASE(cumprod_zeros_ex_back, tn_cumprod(tn_add(a, holes(3)), 1, true, false))
CASE(prod_zeros, tn_prod(tn_add(a, holes(3)), TN_AXES(1), false))
CASE(scatter_prod_zeros,
     tn_scatter_prod(tn_add(a, holes(3)), TN_LIST(index3()),
                     tn_reshape(tn_add(b, holes(4)), TN_SHAPE(4, 1, 4)), TN_AXES(0)))
CASE(scatter_prod_blocks, /* blocks of two by two that overlap */
     tn_scatter_prod(a, TN_LIST(corners(), corners()), tn_reshape(b, TN_SHAPE(4, 2, 2)),
                     TN_AXES(0, 1)))
CASE(prod, tn_prod(a, TN_AXES(0), false))
CASE(prod_all, tn_prod(a, TN_ALL, false))
CASE(sum, tn_square(tn_sum(a, TN_AXES(1), false)))
CASE(max, tn_square(tn_max(a, TN_AXES(1), false)))
CASE(min, tn_square(tn_min(a, TN_ALL, true)))
CASE(logsumexp, tn_logsumexp(a, TN_AXES(-1), false))
CASE(var, tn_var(a, TN_AXES(0), false, 1))
CASE(stop, tn_add(tn_square(a), tn_mul(tn_stop_gradient(tn_i32(2)), a)))
CASE(constant, tn_mul(a, tn_arange(0, 4, 1, TN_F64)))

#define P(name, n, low, high, ...)                                                                 \
    { #name, case_##name, n, low, high, {__VA_ARGS__ }, false }
static const probe probes[] = {
    P(reshape, 1, -2, 2, {3, 4}),
    P(transpose, 1, -2, 2, {3, 4}),
    P(slice, 1, -2, 2, {3, 4}),
    P(broadcast, 1, -2, 2, {3, 1}),
    P(rows, 2, -1, 1, {3, 4}, {4}),
    P(astype, 1, -2, 2, {3, 4}),
    P(contiguous, 1, -2, 2, {3, 4}),
    P(concatenate, 2, -1, 1, {3, 4}, {2, 4}),
    P(slice_update, 2, -1, 1, {3, 4}, {2, 2}),
    P(take, 1, -2, 2, {3, 4}),
    P(take_axis1, 1, -2, 2, {2, 3, 2}),
    P(gather, 1, -2, 2, {3, 4}),
    P(scatter_add, 2, -2, 2, {3, 4}, {4, 4}),
    P(scatter, 2, -2, 2, {3, 4}, {4, 4}),
    P(scatter_prod, 2, 0.5, 2, {3, 4}, {4, 4}),
    P(scatter_max, 2, -2, 2, {3, 4}, {4, 4}),
    P(scatter_min, 2, -2, 2, {3, 4}, {4, 4}),
    P(take_along, 1, -2, 2, {3, 4}),
    P(put_along, 2, -2, 2, {3, 4}, {2, 4}),
    P(add_along, 2, -2, 2, {3, 4}, {2, 4}),
    P(matmul, 2, -1, 1, {2, 3, 4}, {4, 2}),
    P(matvec, 2, -1, 1, {3, 4}, {4}),
    P(softmax, 1, -2, 2, {3, 4}),
    P(softmax0, 1, -2, 2, {3, 4}),
    P(rms_norm, 2, -2, 2, {3, 4}, {4}),
    P(layer_norm, 3, -2, 2, {3, 4}, {4}, {4}),
    P(rope, 1, -2, 2, {1, 3, 4}),
    P(rope_traditional, 1, -2, 2, {1, 3, 4}),
    P(sdpa, 3, -1, 1, {6, 2}, {3, 2}, {3, 2}),
    P(sort, 1, -2, 2, {3, 4}),
    P(cumsum, 1, -2, 2, {3, 4}),
    P(cumsum_back, 1, -2, 2, {3, 4}),
    P(cumprod, 1, 0.5, 2, {3, 4}),
    P(cumprod_ex, 1, 0.5, 2, {3, 4}),
    P(cummax, 1, -2, 2, {3, 4}),
    P(cummin_back, 1, -2, 2, {3, 4}),
    P(logcumsumexp, 1, -1, 1, {3, 4}),
    P(logcumsumexp_back, 1, -1, 1, {3, 4}),
    P(cumprod_zeros, 1, 0, 0, {3, 4}),
    P(cumprod_zeros_back, 1, 0, 0, {3, 4}),
    P(cumprod_zeros_ex, 1, 0, 0, {3, 4}),
    P(cumprod_zeros_ex_back, 1, 0, 0, {3, 4}),
    P(prod_zeros, 1, 0, 0, {3, 4}),
    P(scatter_prod_zeros, 2, 0, 0, {3, 4}, {4, 4}),
    P(scatter_prod_blocks, 2, -2, 2, {4, 4}, {4, 4}),
    P(prod, 1, -2, 2, {3, 4}),
    P(prod_all, 1, -2, 2, {2, 3}),
    P(sum, 1, -2, 2, {3, 4}),
    P(max, 1, -2, 2, {3, 4}),
    P(min, 1, -2, 2, {3, 4}),
    P(logsumexp, 1, -2, 2, {3, 4}),
    P(var, 1, -2, 2, {3, 4}),
    P(stop, 1, -2, 2, {3, 4}),
    P(constant, 1, -2, 2, {3, 4}),
};

static void test_probes(void) {
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++) probe_run(&probes[i]);
}

int main(void) {
    test_mlp();
    test_probes();
    return tap_done();
}
