/* Normalisation layers: running statistics through training and failure, misuse, memory. Parity
 * with mlx.nn is in tests/py. */
#include "nn_check.h"
#include "values.h"
#include <math.h>

static void test_misuse(void) {
    tn_params *p = tn_params_new();
    tn_nn_batch_norm batch, plain;
    tn_nn_group_norm group;
    tn_nn_instance_norm each;
    refused(tn_nn_batch_norm_init(&batch, p, "b", 0, NULL), TN_EVALUE, "batch_norm: 0 channels");
    refused(tn_nn_batch_norm_init(&batch, p, "b", 4, TN_OPT(tn_nn_norm_opt, .momentum = 2)),
            TN_EVALUE, "batch_norm: momentum of 2; 1 at most");
    refused(tn_nn_batch_norm_init(&batch, p, "b", 4, TN_OPT(tn_nn_norm_opt, .eps = -1)), TN_EVALUE,
            "batch_norm: eps of -1");
    refused(tn_nn_group_norm_init(&group, p, "g", 3, 4, NULL), TN_EVALUE,
            "group_norm: 4 channels do not divide into 3 groups");
    refused(tn_nn_group_norm_init(&group, p, "g", 0, 4, NULL), TN_EVALUE, "group_norm: 0 groups");
    refused(tn_nn_instance_norm_init(&each, p, "i", -1, NULL), TN_EVALUE,
            "instance_norm: -1 channels");
    is_i64(tn_params_count(p), 0, "nothing was added");
    ok(!tn_nn_batch_norm_init(&batch, p, "b", 4, NULL) &&
           !tn_nn_batch_norm_init(&plain, p, "p", 4,
                                  TN_OPT(tn_nn_norm_opt, .no_affine = true, .no_running = true)) &&
           !tn_nn_group_norm_init(&group, p, "g", 2, 4, NULL) &&
           !tn_nn_instance_norm_init(&each, p, "i", 4, TN_OPT(tn_nn_norm_opt, .affine = true)),
       "layers");
    TN_SCOPE {
        tn_array *x = fill(1, TN_SHAPE(1, 4)), *bad = tn_add(x, fill(1, TN_SHAPE(7)));
        tn_array *mean = batch.running_mean;
        fails(tn_nn_batch_norm_call(&batch, x, true), TN_EVALUE,
              "training needs two numbers a channel at least, not 1");
        fails(tn_nn_batch_norm_call(&batch, fill(1, TN_SHAPE(4)), true), TN_ESHAPE,
              "batch_norm: x has 1 axes; 2 at least");
        fails(tn_nn_batch_norm_call(&batch, fill(1, TN_SHAPE(2, 5)), false), TN_ESHAPE,
              "x has 5 channels (the last axis), not 4");
        fails(tn_nn_batch_norm_call(&batch, tn_zeros(TN_SHAPE(2, 4), TN_I32), false), TN_EDTYPE,
              "batch_norm: needs floats, not int32");
        fails(tn_nn_batch_norm_call(&batch, bad, true), TN_ESHAPE, "add");
        ok(batch.running_mean == mean, "the statistics are as they were");
        ok(!tn_array_status(tn_nn_batch_norm_call(&plain, fill(1, TN_SHAPE(2, 3)), false)),
           "without parameters any number of channels");
        fails(tn_nn_group_norm_call(&group, fill(1, TN_SHAPE(2, 5))), TN_ESHAPE,
              "group_norm: x has 5 channels");
        fails(tn_nn_instance_norm_call(&each, x), TN_ESHAPE, "instance_norm: x has 2 axes; 3");
        ok(!tn_array_status(tn_nn_group_norm_call(&group, fill(1, TN_SHAPE(0, 3, 4)))),
           "no examples");
    }
    tn_params_free(p);
}

/* ---- statistics ---- */

typedef struct net {
    tn_nn_batch_norm norm;
    tn_nn_group_norm group;
    bool fail;
} net;

static int net_loss(tn_list in, tn_array **out, int n_out, void *ud) {
    net *m = ud;
    (void)n_out;
    tn_array *y = tn_nn_batch_norm_call(&m->norm, in.v[0], true);
    out[0] = tn_nn_mse_loss(tn_nn_group_norm_call(&m->group, y), in.v[0], TN_NN_SUM);
    return m->fail ? TN_EVALUE : 0;
}

static int net_init(net *m, tn_params *p) {
    m->fail = false;
    int status = tn_nn_batch_norm_init(&m->norm, p, "norm", 2, NULL);
    return status ? status : tn_nn_group_norm_init(&m->group, p, "group", 1, 2, NULL);
}

static void test_statistics(void) {
    net m;
    tn_params *p = tn_params_new();
    ok(!net_init(&m, p), "a net");
    is_i64(tn_params_trainable(p), 4, "statistics are not trained");
    TN_SCOPE {
        float v[8] = {1, 10, 2, 20, 3, 30, 4, 40};
        tn_array *out[1], *grad[4];
        tn_list in = TN_LIST(tn_array_new(v, TN_F32, TN_SHAPE(4, 2)));
        is_i64(tn_nn_value_and_grad(p, net_loss, &m, in, 1, out, grad), 0, "a step");
        tn_array *mean = m.norm.running_mean, *var = m.norm.running_var;
        double *a = values(mean), *b = values(var);
        /* 0.9 * 0 + 0.1 * 2.5; 0.9 * 1 + 0.1 * 5 / 3 */
        ok(fabs(a[0] - 0.25) < 1e-6 && fabs(a[1] - 2.5) < 1e-5, "the mean has run");
        ok(fabs(b[0] - (0.9 + 0.5 / 3)) < 1e-6 && fabs(b[1] - (0.9 + 50.0 / 3)) < 1e-5,
           "so has the variance");
        free(a), free(b);
        m.fail = true;
        is_i64(tn_nn_value_and_grad(p, net_loss, &m, in, 1, out, grad), TN_EVALUE, "it failed");
        ok(m.norm.running_mean == mean && m.norm.running_var == var, "they are as they were");
        tn_array *y = tn_nn_batch_norm_call(&m.norm, in.v[0], false);
        ok(m.norm.running_mean == mean && tn_item_f32(tn_max(y, TN_ALL, false)) > 3,
           "outside training they stay and are used");
    }
    tn_params_free(p);
}

static int life(void) {
    net m;
    tn_params *p = tn_params_new();
    if (!p) return TN_EMEMORY;
    int status = net_init(&m, p);
    TN_SCOPE {
        tn_array *out[1], *grad[4], *mean = m.norm.running_mean;
        tn_list in = TN_LIST(tn_arange(0, 24, 1, TN_F32));
        in = TN_LIST(tn_reshape(in.v[0], TN_SHAPE(3, 4, 2)));
        if (!status) {
            status = tn_nn_value_and_grad(p, net_loss, &m, in, 1, out, grad);
            if (status && m.norm.running_mean != mean) status = TN_EINTERNAL;
        }
        if (!status)
            status = tn_eval(TN_LIST(out[0], grad[0], grad[1], grad[2], m.norm.running_mean,
                                     m.norm.running_var));
    }
    tn_params_free(p);
    return status;
}

int main(void) {
    test_misuse();
    test_statistics();
    test_lives(life, 300);
    return tap_done();
}
