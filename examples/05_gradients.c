/* Gradients, and a network trained with them: sin(3 x) on [-1, 1] by 32 hidden units. A step is one
 * scope; tn_commit replaces all parameters or none, and their old memory is written in place. */
#include <stdio.h>
#include <tenon/tenon.h>

enum { POINTS = 64, HIDDEN = 32, PARAMETERS = 4, STEPS = 600 };

/* in: w1 [1, HIDDEN], b1 [HIDDEN], w2 [HIDDEN, 1], b2 [1], x [POINTS, 1], y [POINTS, 1]. */
static tn_array *loss_of(tn_list in, void *ud) {
    (void)ud;
    tn_array *h = tn_tanh(tn_add(tn_matmul(in.v[4], in.v[0]), in.v[1]));
    tn_array *error = tn_sub(tn_add(tn_matmul(h, in.v[2]), in.v[3]), in.v[5]);
    return tn_mean(tn_square(error), TN_ALL, false);
}

static int init(tn_array *p[PARAMETERS]) {
    TN_SCOPE {
        tn_array *key = tn_random_key(1);
        tn_array *w1 = tn_mul(tn_random_normal(TN_SHAPE(1, HIDDEN), TN_F32, key), tn_f32(2));
        tn_array *w2 = tn_mul(tn_random_normal(TN_SHAPE(HIDDEN, 1), TN_F32, key), tn_f32(0.1));
        tn_list start =
            TN_LIST(w1, tn_zeros(TN_SHAPE(HIDDEN), TN_F32), w2, tn_zeros(TN_SHAPE(1), TN_F32));
        return tn_commit(p, start, TN_LIST());
    }
    return 0;
}

static int step(tn_array *p[PARAMETERS], tn_array *x, tn_array *y, float *loss) {
    TN_SCOPE {
        tn_array *value, *g[PARAMETERS], *q[PARAMETERS];
        tn_value_and_grad(loss_of, NULL, TN_LIST(p[0], p[1], p[2], p[3], x, y), PARAMETERS, &value,
                          g);
        for (int i = 0; i < PARAMETERS; i++) q[i] = tn_sub(p[i], tn_mul(tn_f32(0.05), g[i]));
        int failed = tn_commit(p, (tn_list){q, PARAMETERS}, TN_LIST(value));
        if (failed) return failed;
        *loss = tn_item_f32(value);
    }
    return 0;
}

static int train(void) {
    tn_array *p[PARAMETERS] = {NULL};
    float loss = 0;
    int failed = init(p);
    TN_SCOPE {
        tn_array *x = tn_reshape(tn_linspace(-1, 1, POINTS, TN_F32), TN_SHAPE(POINTS, 1));
        tn_array *y = tn_sin(tn_mul(tn_f32(3), x));
        for (int i = 0; i <= STEPS && !failed; i++) {
            failed = step(p, x, y, &loss);
            if (!failed && i % 200 == 0) printf("step %3d: loss %.3f\n", i, (double)loss);
        }
    }
    for (int i = 0; i < PARAMETERS; i++) tn_drop(p[i]);
    return failed;
}

/* A gradient of a gradient: the second derivative of x^3 at 2 is 12. */
static tn_array *cube(tn_list in, void *ud) {
    (void)ud;
    return tn_power(in.v[0], tn_f32(3));
}
static tn_array *slope(tn_list in, void *ud) { return tn_grad(cube, ud, in, 0); }

int main(void) {
    TN_SCOPE {
        tn_array *two = tn_scalar(2, TN_F32);
        printf("x^3 at 2: slope %g, curvature %g\n", (double)tn_item_f32(slope(TN_LIST(two), NULL)),
               (double)tn_item_f32(tn_grad(slope, NULL, TN_LIST(two), 0)));
    }
    if (train()) return fprintf(stderr, "%s\n", tn_error()), 1;
    return 0;
}
