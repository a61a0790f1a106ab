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

int main(void) {
    test_mlp();
    return tap_done();
}
