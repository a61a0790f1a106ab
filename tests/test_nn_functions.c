/* Activations and first values: misuse and memory. Parity with mlx.nn is in tests/py. */
#include "nn_check.h"
#include "values.h"
#include <math.h>

static void test_activation_misuse(void) {
    TN_SCOPE {
        tn_array *x = fill(1, TN_SHAPE(2, 5)), *bad = tn_add(x, fill(1, TN_SHAPE(7)));
        fails(tn_nn_relu(bad), TN_ESHAPE, "add");
        fails(tn_nn_elu(bad, 1), TN_ESHAPE, "add");
        fails(tn_nn_gelu(NULL), TN_EVALUE, "NULL");
        fails(tn_nn_prelu(x, fill(1, TN_SHAPE(4))), TN_ESHAPE, "[4]");
        fails(tn_nn_celu(x, 0), TN_EVALUE, "celu: alpha of 0");
        fails(tn_nn_glu(x, 1), TN_ESHAPE, "glu: axis 1 has 5 places, which have no halves");
        fails(tn_nn_glu(x, 2), TN_EAXIS, "axis 2");
        fails(tn_nn_glu(bad, 0), TN_ESHAPE, "add");
        fails(tn_nn_softmin(x, 2), TN_EAXIS, "axis 2");
        fails(tn_nn_log_softmax(x, -3), TN_EAXIS, "axis -3");
        ok(tn_dim(tn_nn_glu(x, 0), 0) == 1, "halves of two");
    }
}

static void test_init_misuse(void) {
    TN_SCOPE {
        tn_ints row = TN_SHAPE(3), wide = TN_SHAPE(2, 3), none = TN_SHAPE(0, 3);
        fails(tn_nn_init_identity(row, TN_F32), TN_ESHAPE, "identity: a shape of 1 axes, not 2");
        fails(tn_nn_init_identity(wide, TN_F32), TN_ESHAPE, "identity: [2, 3] is not square");
        fails(tn_nn_init_glorot_normal(row, 1, TN_F32), TN_ESHAPE,
              "glorot_normal: a shape of 1 axes");
        fails(tn_nn_init_glorot_uniform(none, 1, TN_F32), TN_ESHAPE,
              "glorot_uniform: 3 inputs and 0 outputs");
        fails(tn_nn_init_he_normal(row, false, 1, TN_F32), TN_ESHAPE, "he_normal: a shape");
        fails(tn_nn_init_he_uniform(TN_SHAPE(), true, 1, TN_F32), TN_ESHAPE,
              "he_uniform: a shape of 0 axes");
        fails(tn_nn_init_normal(wide, 0, 1, TN_I32), TN_EDTYPE, "random_normal: not defined for");
        fails(tn_nn_init_uniform(TN_SHAPE(-1), 0, 1, TN_F32), TN_ESHAPE, "negative");
        fails(tn_nn_init_sparse(row, 0.5, 0, 1, TN_F32), TN_ESHAPE, "sparse: a shape of 1 axes");
        fails(tn_nn_init_sparse(wide, 1.5, 0, 1, TN_F32), TN_EVALUE, "sparse: a share of 1.5");
        fails(tn_nn_init_orthogonal(row, 1, TN_F32), TN_ESHAPE, "orthogonal: a shape of 1 axes");
        fails(tn_nn_init_orthogonal(none, 1, TN_F32), TN_ESHAPE, "orthogonal: [0, 3]");
        fails(tn_nn_init_orthogonal(TN_SHAPE(3, 1 << 16), 1, TN_F32), TN_ESHAPE,
              "sizes of 1 to 32768");
        fails(tn_nn_init_constant(TN_SHAPE(-2), 1, TN_F32), TN_ESHAPE, "[-2]");
    }
}

/* A thousandth of the numbers is far from what the deviation says only if the fans are wrong. */
static void test_deviation(void) {
    TN_SCOPE {
        tn_random_seed(1);
        tn_array *w = tn_nn_init_he_normal(TN_SHAPE(64, 3, 3, 32), false, 1, TN_F32);
        double sd = tn_item_f64(tn_std(w, TN_ALL, false, 0));
        ok(fabs(sd * sqrt(3 * 3 * 32) - 1) < 0.03, "deviation %g of 288 inputs", sd);
        w = tn_nn_init_he_normal(TN_SHAPE(64, 3, 3, 32), true, 1, TN_F32);
        sd = tn_item_f64(tn_std(w, TN_ALL, false, 0));
        ok(fabs(sd * sqrt(3 * 3 * 64) - 1) < 0.03, "deviation %g of 576 outputs", sd);
    }
}

static int half_loss(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_nn_cross_entropy(in.v[0], in.v[1], TN_NN_SUM, NULL);
    return 0;
}

/* One row's loss and gradient, for tn_vmap; and those of all rows, by sums that keep them apart. */
static int row_grad(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    tn_array *value[1], *grad[1];
    int status = tn_value_and_grad_of(half_loss, ud, in, NULL, 1, 1, value, grad);
    out[0] = value[0], out[1] = grad[0];
    return status;
}

static void test_mapped(tn_dtype d) {
    TN_SCOPE {
        tn_array *x = tn_nn_init_normal(TN_SHAPE(6, 1, 9), 0, 3, d), *one[2], *all[2];
        tn_array *t = tn_array_new((int32_t[]){0, 8, 3, -1, 3, -9}, TN_I32, TN_SHAPE(6, 1));
        int status = tn_vmap(row_grad, NULL, TN_LIST(x, t), TN_ALL, 2, TN_ALL, one);
        if (!status) status = row_grad(TN_LIST(x, t), all, 2, NULL);
        ok(!status, "mapped, %s: %s", tn_dtype_name(d), status ? tn_error() : "done");
        tn_array *same = tn_equal(one[1], all[1]);
        ok(tn_item_bool(tn_all(same, TN_ALL, false)), "each row's gradient is its own");
        double off = tn_item_f64(tn_sum(one[0], TN_ALL, false)) - tn_item_f64(all[0]);
        ok(fabs(off) < (d == TN_F32 ? 1e-5 : 0.3), "losses sum up, to %g", off);
    }
}

static int life(void) {
    int status = 0;
    TN_SCOPE {
        tn_array *value[1], *grad[1], *t = tn_array_new((int8_t[]){1, -1}, TN_I8, TN_SHAPE(2));
        tn_list in = TN_LIST(tn_nn_init_normal(TN_SHAPE(2, 5), 0, 1, TN_BF16), t);
        status = tn_value_and_grad_of(half_loss, NULL, in, NULL, 1, 1, value, grad);
        if (!status) status = tn_eval(TN_LIST(value[0], grad[0]));
        if (status) break;
        tn_array *x = tn_nn_init_orthogonal(TN_SHAPE(4, 6), 1, TN_F32);
        tn_array *y = tn_nn_init_sparse(TN_SHAPE(4, 6), 0.5, 0, 1, TN_F32);
        tn_array *z = tn_nn_glu(tn_nn_log_softmax(tn_nn_mish(tn_nn_selu(tn_add(x, y))), 0), 1);
        status = tn_eval(TN_LIST(z, tn_nn_init_glorot_uniform(TN_SHAPE(3, 3), 1, TN_F16)));
    }
    return status;
}

int main(void) {
    test_activation_misuse();
    test_init_misuse();
    test_deviation();
    test_mapped(TN_F32);
    test_mapped(TN_BF16);
    test_lives(life, 100);
    return tap_done();
}
