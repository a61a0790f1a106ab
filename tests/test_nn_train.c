/* Networks of every kind of layer in training: a compiled step leaves the bits of one that is not,
 * statistics and dropout included, and the loss goes down. */
#include "nn_check.h"
#include "values.h"
#include <math.h>

enum { STEPS = 10, BATCH = 8 };

typedef struct net {
    tn_params *p;
    tn_optim *o;
    tn_nn_conv conv;
    tn_nn_batch_norm batch;
    tn_nn_group_norm group;
    tn_nn_instance_norm each;
    tn_nn_lstm lstm;
    tn_nn_transformer_encoder stack;
    tn_nn_linear head;
} net;

/* [BATCH, 12, 12, 1] to 10 classes: pictures, then their rows as a sequence. */
static int net_init(net *m, bool checkpoint) {
    tn_nn_transformer_opt t = {.size = sizeof t, .dropout = 0.1, .checkpoint = checkpoint};
    tn_params *p = m->p = tn_params_new();
    m->o = NULL;
    if (!p) return TN_EMEMORY;
    tn_random_seed(1);
    int status = tn_nn_conv2d_init(&m->conv, p, "conv", 1, 4, TN_SPATIAL(3), true,
                                   TN_OPT(tn_conv_opt, .padding = TN_SPATIAL(1)));
    if (!status) status = tn_nn_batch_norm_init(&m->batch, p, "batch", 4, NULL);
    if (!status) status = tn_nn_group_norm_init(&m->group, p, "group", 2, 4, NULL);
    if (!status)
        status = tn_nn_instance_norm_init(&m->each, p, "each", 4,
                                          TN_OPT(tn_nn_norm_opt, .affine = true));
    if (!status) status = tn_nn_lstm_init(&m->lstm, p, "lstm", 24, 16, true);
    if (!status) status = tn_nn_transformer_encoder_init(&m->stack, p, "stack", 2, 16, 2, &t);
    if (!status) status = tn_nn_linear_init(&m->head, p, "head", 16, 10, true);
    if (!status && !(m->o = tn_optim_adamw(p, TN_OPT(tn_adamw_opt, .learning_rate = 0.01))))
        status = TN_EMEMORY;
    return status;
}

static void net_free(net *m) {
    tn_optim_free(m->o);
    tn_params_free(m->p);
}

static int net_loss(tn_list in, tn_array **out, int n_out, void *ud) {
    net *m = ud;
    tn_array *both[2], *x = tn_nn_conv_call(&m->conv, in.v[0]);
    (void)n_out;
    x = tn_nn_gelu(tn_nn_batch_norm_call(&m->batch, x, true));
    x = tn_max_pool(x, TN_SPATIAL(2), TN_SPATIAL(2), TN_SPATIAL(0));
    x = tn_nn_instance_norm_call(&m->each, tn_nn_group_norm_call(&m->group, x));
    x = tn_nn_dropout2d(x, 0.1, true);
    tn_nn_lstm_call(&m->lstm, tn_flatten(x, 2, 3), NULL, NULL, both);
    x = tn_nn_transformer_encoder_call(&m->stack, both[0], TN_OPT(tn_sdpa_opt, .causal = true),
                                       true);
    x = tn_nn_linear_call(&m->head, tn_mean(x, TN_AXES(1), false));
    out[0] = tn_nn_cross_entropy(x, in.v[1], TN_NN_MEAN,
                                 TN_OPT(tn_nn_cross_entropy_opt, .label_smoothing = 0.05));
    return 0;
}

static int net_step(tn_list in, tn_array **out, int n_out, void *ud) {
    net *m = ud;
    tn_array *grad[128];
    int status = tn_nn_value_and_grad(m->p, net_loss, m, in, n_out, out, grad);
    return status ? status : tn_optim_update(m->o, grad);
}

/* Losses of the steps; 0 or why it ended. */
static int net_train(net *m, bool compiled, double *loss) {
    tn_compiled *c = NULL;
    int status = 0;
    if (compiled) {
        c = tn_compile(net_step, m, 1, TN_OPT(tn_compile_opt, .state = tn_optim_slots(m->o)));
        if (!c) return TN_EMEMORY;
    }
    tn_random_seed(2);
    for (int i = 0; i < STEPS && !status; i++)
        TN_SCOPE {
            tn_array *key = tn_random_key((uint64_t)(i % 2)), *value;
            tn_array *x = tn_random_normal(TN_SHAPE(BATCH, 12, 12, 1), TN_F32, key);
            tn_array *y = tn_random_randint(tn_i32(0), tn_i32(10), TN_SHAPE(BATCH), TN_I32, key);
            if (compiled) {
                status = tn_compiled_call(c, TN_LIST(x, y), &value);
            } else {
                status = net_step(TN_LIST(x, y), &value, 1, m);
                if (!status) status = tn_optim_eval(m->o, TN_LIST(value));
            }
            loss[i] = tn_item_f64(value);
        }
    if (compiled && !status) is_i64(tn_compiled_stats(c).misses, 1, "one plan");
    tn_compiled_free(c);
    return status;
}

static void test_compiled(bool checkpoint) {
    net m[2];
    double loss[2][STEPS] = {{0}};
    const char *how = checkpoint ? "with checkpoints" : "as it is";
    for (int k = 0; k < 2; k++) {
        int status = net_init(&m[k], checkpoint);
        if (!status) status = net_train(&m[k], k, loss[k]);
        ok(!status, "%s: %s: %s", how, k ? "compiled" : "plain", status ? tn_error() : "trained");
    }
    ok(!memcmp(loss[0], loss[1], sizeof loss[0]), "%s: the same losses", how);
    ok(loss[0][STEPS - 1] < 0.7 * loss[0][0], "%s: from %g to %g", how, loss[0][0],
       loss[0][STEPS - 1]);
    int other = 0;
    TN_SCOPE
        for (int i = 0; i < tn_params_count(m[0].p); i++) {
            tn_array *same = tn_equal(*tn_params_slot(m[0].p, i), *tn_params_slot(m[1].p, i));
            if (tn_item_bool(tn_all(same, TN_ALL, false))) continue;
            diag("%s differs", tn_params_name(m[0].p, i));
            other++;
        }
    is_i64(other, 0, "%s: the same parameters and statistics", how);
    net_free(&m[0]), net_free(&m[1]);
}

int main(void) {
    test_compiled(false);
    test_compiled(true);
    return tap_done();
}
