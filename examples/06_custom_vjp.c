/* Gradients by rules of your own: one that survives where the plain one is NaN, one that pretends
 * that rounding is smooth, one that limits itself. Rules nest, map and compile like any op. */
#include <stdio.h>
#include <tenon/tenon.h>

static void print(const char *what, tn_array *a) {
    char text[256] = "";
    printf("%s %s\n", what, tn_format(a, text, sizeof text) < 0 ? tn_error() : text);
}

/* ---- log(1 + exp(x)): exp overflows at x = 100, though the slope is 1 there ---- */

static int softplus(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_log(tn_add(tn_f32(1), tn_exp(in.v[0])));
    return 0;
}
/* The cotangent of the result times 1 - 1 / (1 + exp(x)). */
static int softplus_vjp(tn_list in, tn_list out, tn_list cot, tn_array **grads, void *ud) {
    (void)out, (void)ud;
    tn_array *rest = tn_reciprocal(tn_add(tn_f32(1), tn_exp(in.v[0])));
    grads[0] = tn_mul(cot.v[0], tn_sub(tn_f32(1), rest));
    return 0;
}
static tn_array *plain(tn_list in, void *ud) {
    tn_array *y;
    softplus(in, &y, 1, ud);
    return tn_sum(y, TN_ALL, false);
}
static tn_array *ruled(tn_list in, void *ud) {
    tn_array *y;
    tn_custom_vjp(softplus, softplus_vjp, ud, in, 1, &y);
    return tn_sum(y, TN_ALL, false);
}
static tn_array *slope(tn_list in, void *ud) { /* itself differentiable: the rule is ops */
    return tn_sum(tn_grad(ruled, ud, in, 0), TN_ALL, false);
}

/* ---- weights that are whole numbers: rounded forwards, as they are backwards ---- */

static int whole(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_round(in.v[0]);
    return 0;
}
static int straight_through(tn_list in, tn_list out, tn_list cot, tn_array **grads, void *ud) {
    (void)in, (void)out, (void)ud;
    grads[0] = cot.v[0];
    return 0;
}
/* in: weights [3], x [n, 3], y [n]. */
static tn_array *loss(tn_list in, void *ud) {
    tn_array *w;
    tn_custom_vjp(whole, straight_through, ud, TN_LIST(in.v[0]), 1, &w);
    return tn_mean(tn_square(tn_sub(tn_matmul(in.v[1], w), in.v[2])), TN_ALL, false);
}

/* ---- the identity, whose gradient has a norm of at most *ud ---- */

static int itself(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = in.v[0];
    return 0;
}
static int limited(tn_list in, tn_list out, tn_list cot, tn_array **grads, void *ud) {
    (void)in, (void)out;
    tn_array *norm = tn_sqrt(tn_sum(tn_square(cot.v[0]), TN_ALL, false));
    tn_array *scale = tn_minimum(tn_f32(1), tn_div(tn_f32(*(double *)ud), norm));
    grads[0] = tn_mul(cot.v[0], scale);
    return 0;
}
static tn_array *steep(tn_list in, void *ud) {
    tn_array *x;
    tn_custom_vjp(itself, limited, ud, in, 1, &x);
    return tn_sum(tn_power(x, tn_f32(3)), TN_ALL, false);
}

int main(void) {
    TN_SCOPE {
        tn_array *x = tn_array_new((float[]){-2, 0, 100}, TN_F32, TN_SHAPE(3));
        print("slope of log(1 + exp(x)) is NaN:", tn_isnan(tn_grad(plain, NULL, TN_LIST(x), 0)));
        print("by the rule:", tn_grad(ruled, NULL, TN_LIST(x), 0));
        x = tn_array_new((float[]){-2, 0, 2}, TN_F32, TN_SHAPE(3));
        print("its slope:", tn_grad(slope, NULL, TN_LIST(x), 0));
    }
    TN_SCOPE {
        tn_array *w = tn_zeros(TN_SHAPE(3), TN_F32);
        tn_array *x = tn_random_normal(TN_SHAPE(64, 3), TN_F32, tn_random_key(1));
        tn_array *y = tn_matmul(x, tn_array_new((float[]){3, -1, 2}, TN_F32, TN_SHAPE(3)));
        for (int i = 0; i < 100; i++)
            w = tn_sub(w, tn_mul(tn_f32(0.05), tn_grad(loss, NULL, TN_LIST(w, x, y), 0)));
        print("whole weights that fit:", tn_round(w));
    }
    TN_SCOPE {
        double most = 5;
        tn_array *x = tn_array_new((float[]){1, 2}, TN_F32, TN_SHAPE(2));
        print("gradient [3, 12], limited to 5:", tn_grad(steep, &most, TN_LIST(x), 0));
    }
    return 0;
}
