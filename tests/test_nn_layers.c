/* Layers and losses: known values, misuse, every allocation made to fail. Parity with mlx.nn is in
 * tests/py. */
#include "nn_check.h"
#include "values.h"
#include <math.h>

static void test_init_misuse(void) {
    tn_params *p = tn_params_new();
    tn_nn_linear linear, other;
    tn_nn_embedding table;
    tn_nn_conv conv;
    tn_nn_layer_norm norm;
    tn_nn_rms_norm rms;
    tn_nn_multi_head_attention mha;
    tn_spatial three = TN_SPATIAL(3), pair = TN_SPATIAL(3, 3), none = {{0}, 0};
    refused(tn_nn_linear_init(&linear, p, "l", 0, 3, true), TN_EVALUE, "linear: 0 inputs");
    refused(tn_nn_linear_init(&linear, p, "l", 3, -1, true), TN_EVALUE, "linear: -1 outputs");
    refused(tn_nn_embedding_init(&table, p, "e", 0, 3), TN_EVALUE, "embedding: 0 rows");
    refused(tn_nn_embedding_init(&table, p, "e", 3, 0), TN_EVALUE, "embedding: 0 dimensions");
    refused(tn_nn_conv1d_init(&conv, p, "c", 4, 4, pair, true, NULL), TN_EVALUE,
            "conv1d: a kernel of 2 sizes for 1 axes");
    refused(tn_nn_conv2d_init(&conv, p, "c", 4, 4, none, true, NULL), TN_EVALUE,
            "conv2d: a kernel of 0 sizes for 2 axes");
    refused(tn_nn_conv2d_init(&conv, p, "c", 4, 4, TN_SPATIAL(0), true, NULL), TN_EVALUE,
            "conv2d: 0 taps");
    refused(tn_nn_conv3d_init(&conv, p, "c", 4, 6, three, true, TN_OPT(tn_conv_opt, .groups = 3)),
            TN_EVALUE, "conv3d: 4 input and 6 output channels in 3 groups");
    refused(tn_nn_conv_transpose2d_init(&conv, p, "c", 0, 6, three, true, NULL), TN_EVALUE,
            "conv_transpose2d: 0 input channels");
    refused(tn_nn_layer_norm_init(&norm, p, "n", 0, NULL), TN_EVALUE, "layer_norm: 0 dimensions");
    refused(tn_nn_layer_norm_init(&norm, p, "n", 4, TN_OPT(tn_nn_norm_opt, .eps = -1)), TN_EVALUE,
            "layer_norm: eps of -1");
    refused(tn_nn_rms_norm_init(&rms, p, "n", -4, NULL), TN_EVALUE, "rms_norm: -4 dimensions");
    refused(tn_nn_multi_head_attention_init(&mha, p, "a", 8, 3, NULL), TN_EVALUE,
            "8 dimensions, of values 8, do not divide into 3 heads");
    refused(tn_nn_multi_head_attention_init(&mha, p, "a", 8, 0, NULL), TN_EVALUE,
            "multi_head_attention: 0 heads");
    is_i64(tn_params_count(p), 0, "nothing was added");
    is_i64(tn_nn_linear_init(&linear, p, "l", 2, 3, true), 0, "a layer");
    refused(tn_nn_linear_init(&other, p, "l", 2, 3, true), TN_EVALUE,
            "there is a parameter l.weight already");
    ok(tn_nn_linear_init(&other, p, NULL, 2, 3, false) == 0 && tn_params_find(p, "weight") >= 0,
       "a layer without a name of its own");
    tn_params_free(p);
}

static void test_call_misuse(void) {
    tn_params *p = tn_params_new();
    tn_nn_linear linear;
    tn_nn_embedding table;
    tn_nn_conv conv, unmade = {0};
    tn_nn_multi_head_attention mha, none = {0};
    ok(!tn_nn_linear_init(&linear, p, "l", 4, 3, true) &&
           !tn_nn_embedding_init(&table, p, "e", 5, 4) &&
           !tn_nn_conv1d_init(&conv, p, "c", 4, 3, TN_SPATIAL(3), true, NULL) &&
           !tn_nn_multi_head_attention_init(&mha, p, "a", 4, 2, NULL),
       "layers");
    TN_SCOPE {
        tn_array *x = fill(1, TN_SHAPE(2, 5)), *bad = tn_add(x, fill(1, TN_SHAPE(7)));
        fails(tn_nn_linear_call(&linear, x), TN_ESHAPE, "[2,5] float32 and [4,3] float32");
        fails(tn_nn_linear_call(&linear, bad), TN_ESHAPE, "add");
        fails(tn_nn_embedding_call(&table, x), TN_EDTYPE, "take");
        tn_array *far =
            tn_nn_embedding_call(&table, tn_array_new(&(int32_t){5}, TN_I32, TN_SHAPE()));
        is_i64(tn_eval(TN_LIST(far)), TN_EINDEX, "a row that is not there");
        fails(tn_nn_conv_call(&conv, x), TN_ESHAPE, "conv1d");
        fails(tn_nn_conv_call(&unmade, x), TN_EVALUE, "the layer was not initialised");
        tn_array *q = fill(1, TN_SHAPE(2, 4));
        fails(tn_nn_multi_head_attention_call(&mha, q, q, q, NULL), TN_ESHAPE,
              "queries have 2 axes, not 3");
        fails(tn_nn_multi_head_attention_call(&none, q, q, q, NULL), TN_EVALUE, "not initialised");
        fails(tn_nn_dropout(x, 1, true), TN_EVALUE, "dropout: a probability of 1");
        fails(tn_nn_dropout(x, -0.1, false), TN_EVALUE, "it must be in [0, 1)");
        fails(tn_nn_dropout(x, NAN, true), TN_EVALUE, "dropout: a probability of");
        fails(tn_nn_dropout2d(x, 0.5, true), TN_ESHAPE, "dropout2d: x has 2 axes, not 3 or 4");
        fails(tn_nn_dropout3d(x, 0.5, false), TN_ESHAPE, "dropout3d: x has 2 axes, not 4 or 5");
        fails(tn_nn_dropout(bad, 0.5, true), TN_ESHAPE, "add");
        fails(tn_nn_sinusoidal(x, 5, NULL), TN_EVALUE, "sinusoidal: 5 dimensions");
        fails(tn_nn_sinusoidal(x, 4, TN_OPT(tn_nn_sinusoidal_opt, .min_freq = -1)), TN_EVALUE,
              "sinusoidal: frequencies from -1 to 1");
        fails(tn_nn_alibi(2, 2, 0, 0, TN_F32), TN_EVALUE, "alibi: 0 heads");
        fails(tn_nn_alibi(-2, 2, 1, 0, TN_F32), TN_ESHAPE, "alibi: -2 queries");
        fails(tn_nn_alibi(2, 2, 1, 0, TN_I32), TN_EDTYPE, "alibi: needs a float dtype, not int32");
    }
    tn_params_free(p);
}

static void test_loss_misuse(void) {
    TN_SCOPE {
        tn_array *x = fill(1, TN_SHAPE(2, 5)), *y = fill(1, TN_SHAPE(5)), *w = fill(1, TN_SHAPE(3));
        tn_array *i = tn_zeros(TN_SHAPE(2), TN_I32), *bad = tn_add(x, w);
        fails(tn_nn_cross_entropy(x, y, TN_NN_MEAN, NULL), TN_ESHAPE,
              "cross_entropy: targets [5] do not fit inputs [2, 5]");
        fails(tn_nn_cross_entropy(x, fill(1, TN_SHAPE(2)), TN_NN_MEAN, NULL), TN_EDTYPE,
              "take_along_axis");
        fails(tn_nn_cross_entropy(x, fill(1, TN_SHAPE(2, 4)), TN_NN_MEAN, NULL), TN_ESHAPE,
              "[2, 5] and targets [2, 4] must have the same shape");
        fails(tn_nn_cross_entropy(x, i, TN_NN_MEAN,
                                  TN_OPT(tn_nn_cross_entropy_opt, .label_smoothing = 1)),
              TN_EVALUE, "cross_entropy: label_smoothing of 1");
        fails(tn_nn_cross_entropy(x, i, TN_NN_MEAN,
                                  TN_OPT(tn_nn_cross_entropy_opt, .axis = TN_AXES(2))),
              TN_EAXIS, "cross_entropy: axis 2 of an array with 2 axes");
        fails(tn_nn_cross_entropy(x, i, TN_NN_MEAN, TN_OPT(tn_nn_cross_entropy_opt, .weights = w)),
              TN_ESHAPE, "[2] and weights [3] must have the same shape");
        fails(tn_nn_cross_entropy(x, i, (tn_nn_reduction)7, NULL), TN_EVALUE,
              "cross_entropy: no reduction 7");
        fails(tn_nn_cross_entropy(bad, i, TN_NN_SUM, NULL), TN_ESHAPE, "add");
        fails(tn_nn_cross_entropy(x, bad, TN_NN_SUM, NULL), TN_ESHAPE, "add");
        fails(tn_nn_nll_loss(x, i, 0, TN_NN_SUM), TN_ESHAPE, "nll_loss: targets [2] do not fit");
        fails(tn_nn_nll_loss(x, i, -3, TN_NN_SUM), TN_EAXIS, "nll_loss: axis -3");
        fails(tn_nn_mse_loss(x, y, TN_NN_MEAN), TN_ESHAPE, "mse_loss: [2, 5] and targets [5]");
        fails(tn_nn_l1_loss(bad, y, TN_NN_MEAN), TN_ESHAPE, "add");
        fails(tn_nn_smooth_l1_loss(x, x, 0, TN_NN_MEAN), TN_EVALUE, "smooth_l1_loss: beta of 0");
        fails(tn_nn_huber_loss(x, x, -1, TN_NN_MEAN), TN_EVALUE, "huber_loss: delta of -1");
        fails(tn_nn_hinge_loss(x, w, TN_NN_MEAN), TN_ESHAPE, "mul");
        fails(tn_nn_kl_div_loss(x, x, 2, TN_NN_MEAN), TN_EAXIS, "sum");
        fails(tn_nn_binary_cross_entropy(x, x, y, true, TN_NN_MEAN), TN_ESHAPE,
              "binary_cross_entropy: [2, 5] and weights [5]");
        fails(tn_nn_gaussian_nll_loss(x, x, y, false, 1e-6, TN_NN_MEAN), TN_ESHAPE,
              "gaussian_nll_loss: [2, 5] and variances [5]");
        fails(tn_nn_margin_ranking_loss(x, x, y, 0, TN_NN_MEAN), TN_ESHAPE,
              "margin_ranking_loss: [2, 5] and targets [5]");
        fails(tn_nn_triplet_loss(x, x, x, TN_NN_MEAN, TN_OPT(tn_nn_triplet_opt, .p = -1)),
              TN_EVALUE, "triplet_loss: a norm of p = -1");
        fails(tn_nn_triplet_loss(x, x, w, TN_NN_MEAN, NULL), TN_ESHAPE, "sub");
    }
}

/* Known by hand: two rows of equal logits, label smoothing changes nothing there. */
static void test_loss_values(void) {
    TN_SCOPE {
        tn_array *x = fill(3, TN_SHAPE(2, 5)), *i = tn_zeros(TN_SHAPE(2), TN_U8);
        tn_array *loss = tn_nn_cross_entropy(x, i, TN_NN_NONE, NULL);
        double *v = values(loss);
        ok(tn_size(loss) == 2 && fabs(v[0] - log(5)) < 1e-6, "log of the number of classes");
        free(v);
        loss = tn_nn_cross_entropy(x, i, TN_NN_SUM,
                                   TN_OPT(tn_nn_cross_entropy_opt, .label_smoothing = 0.5));
        ok(fabs(tn_item_f64(loss) - 2 * log(5)) < 1e-6, "with smoothing");
        ok(tn_nn_dropout(x, 0.5, false) == x, "no dropout outside training");
        tn_array *far = tn_nn_triplet_loss(x, x, fill(0, TN_SHAPE(2, 5)), TN_NN_MEAN,
                                           TN_OPT(tn_nn_triplet_opt, .margin = -1));
        ok(tn_item_f32(far) == 0, "a margin of 0");
    }
}

/* ---- memory ---- */

typedef struct net {
    tn_nn_embedding table;
    tn_nn_conv conv;
    tn_nn_layer_norm norm;
    tn_nn_rms_norm rms;
    tn_nn_multi_head_attention mha;
    tn_nn_linear head;
} net;

static int net_init(net *m, tn_params *p) {
    int status = tn_nn_embedding_init(&m->table, p, "table", 7, 8);
    if (!status)
        status = tn_nn_conv1d_init(&m->conv, p, "conv", 8, 8, TN_SPATIAL(3), true,
                                   TN_OPT(tn_conv_opt, .padding = TN_SPATIAL(1)));
    if (!status) status = tn_nn_layer_norm_init(&m->norm, p, "norm", 8, NULL);
    if (!status) status = tn_nn_rms_norm_init(&m->rms, p, "rms", 8, NULL);
    if (!status)
        status = tn_nn_multi_head_attention_init(&m->mha, p, "mha", 8, 2,
                                                 TN_OPT(tn_nn_attention_opt, .bias = true));
    if (!status) status = tn_nn_linear_init(&m->head, p, "head", 8, 7, true);
    return status;
}

static int net_loss(tn_list in, tn_array **out, int n_out, void *ud) {
    const net *m = ud;
    (void)n_out;
    tn_array *x = tn_nn_conv_call(&m->conv, tn_nn_embedding_call(&m->table, in.v[0]));
    tn_array *y = tn_nn_rms_norm_call(&m->rms, tn_nn_layer_norm_call(&m->norm, x));
    y = tn_nn_multi_head_attention_call(&m->mha, y, y, y, TN_OPT(tn_sdpa_opt, .causal = true));
    y = tn_nn_linear_call(&m->head, tn_add(x, tn_nn_dropout(y, 0.1, true)));
    out[0] = tn_nn_cross_entropy(y, in.v[0], TN_NN_MEAN, NULL);
    return 0;
}

static int life(void) {
    net m;
    tn_params *p = tn_params_new();
    if (!p) return TN_EMEMORY;
    int status = net_init(&m, p);
    TN_SCOPE {
        int32_t ids[6] = {1, 2, 3, 4, 5, 6};
        tn_array *out[1], *grad[32];
        tn_list in = TN_LIST(tn_array_new(ids, TN_I32, TN_SHAPE(2, 3)));
        if (!status) status = tn_nn_value_and_grad(p, net_loss, &m, in, 1, out, grad);
        if (!status) status = tn_eval(TN_LIST(out[0], grad[0]));
        if (!status) status = tn_eval((tn_list){grad, tn_params_trainable(p)});
    }
    tn_params_free(p);
    return status;
}

int main(void) {
    test_init_misuse();
    test_call_misuse();
    test_loss_misuse();
    test_loss_values();
    test_lives(life, 500);
    return tap_done();
}
