/* Functions of one example as functions of many: distances of every pair, gradients example by
 * example, a whole Jacobian at once. The functions know nothing of batches. */
#include <stdio.h>
#include <tenon/tenon.h>

static void print(const char *what, tn_array *a) {
    char text[512];
    if (tn_format(a, text, sizeof text) < 0) snprintf(text, sizeof text, "%s", tn_error());
    printf("%s\n%s\n", what, text);
}

/* ---- every pair: vmap of vmap ---- */

static int distance(tn_list in, tn_array **out, int n_out, void *ud) { /* two points */
    (void)n_out, (void)ud;
    out[0] = tn_sqrt(tn_sum(tn_square(tn_sub(in.v[0], in.v[1])), TN_ALL, false));
    return 0;
}
static int distances(tn_list in, tn_array **out, int n_out, void *ud) { /* a point and many */
    return tn_vmap(distance, ud, in, TN_AXES(TN_UNMAPPED, 0), n_out, TN_ALL, out);
}

/* ---- gradients example by example: vmap of grad ---- */

/* in: weights [3], one x [3], one y. */
static tn_array *loss(tn_list in, void *ud) {
    (void)ud;
    return tn_square(tn_sub(tn_tanh(tn_matmul(in.v[0], in.v[1])), in.v[2]));
}
static int slope(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tn_grad(loss, ud, in, 0);
    return 0;
}

/* ---- a Jacobian: vmap of vjp over the rows of the identity ---- */

static int polar(tn_list in, tn_array **out, int n_out, void *ud) { /* [r, angle] to [x, y] */
    tn_array *r = tn_slice_axis(in.v[0], 0, 0, 1), *t = tn_slice_axis(in.v[0], 0, 1, 2);
    (void)n_out, (void)ud;
    out[0] = tn_concatenate(TN_LIST(tn_mul(r, tn_cos(t)), tn_mul(r, tn_sin(t))), 0);
    return 0;
}
static int row(tn_list in, tn_array **out, int n_out, void *ud) { /* a point, a unit vector */
    tn_array *value;
    (void)n_out;
    return tn_vjp(polar, ud, TN_LIST(in.v[0]), TN_LIST(in.v[1]), &value, out);
}

int main(void) {
    TN_SCOPE {
        tn_array *p = tn_array_new((float[]){0, 0, 3, 4, 6, 8}, TN_F32, TN_SHAPE(3, 2)), *y, *g, *j;
        if (tn_vmap(distances, NULL, TN_LIST(p, p), TN_AXES(0, TN_UNMAPPED), 1, TN_ALL, &y)) break;
        print("distances:", y);

        tn_array *w = tn_array_new((float[]){0.5f, -1, 0.25f}, TN_F32, TN_SHAPE(3));
        tn_array *x = tn_reshape(tn_linspace(-1, 1, 12, TN_F32), TN_SHAPE(3, 4)); /* columns */
        tn_array *want = tn_array_new((float[]){1, 0, 0, -1}, TN_F32, TN_SHAPE(4));
        if (tn_vmap(slope, NULL, TN_LIST(w, x, want), TN_AXES(TN_UNMAPPED, 1, 0), 1, TN_ALL, &g))
            break;
        print("gradients, one a row:", tn_div(tn_round(tn_mul(g, tn_f32(100))), tn_f32(100)));

        tn_array *at = tn_array_new((float[]){2, 0}, TN_F32, TN_SHAPE(2));
        tn_array *unit = tn_eye(2, 2, 0, TN_F32);
        if (tn_vmap(row, NULL, TN_LIST(at, unit), TN_AXES(TN_UNMAPPED, 0), 1, TN_ALL, &j)) break;
        print("Jacobian of polar coordinates at radius 2, angle 0:", j);
        return 0;
    }
    return fprintf(stderr, "%s\n", tn_error()), 1;
}
