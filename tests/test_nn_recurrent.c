/* Recurrent layers, bilinear maps, upsampling: misuse and memory. Parity is in tests/py. */
#include "nn_check.h"
#include "values.h"
#include <math.h>

static void test_misuse(void) {
    tn_params *p = tn_params_new();
    tn_nn_rnn rnn, unmade = {0};
    tn_nn_gru gru;
    tn_nn_lstm lstm;
    tn_nn_bilinear pair;
    refused(tn_nn_rnn_init(&rnn, p, "r", 0, 3, true, NULL), TN_EVALUE, "rnn: 0 inputs");
    refused(tn_nn_gru_init(&gru, p, "g", 4, 0, true), TN_EVALUE, "gru: 0 hidden numbers");
    refused(tn_nn_lstm_init(&lstm, p, "l", 4, -2, true), TN_EVALUE, "lstm: -2 hidden numbers");
    refused(tn_nn_bilinear_init(&pair, p, "b", 4, 0, 2, true), TN_EVALUE,
            "bilinear: 0 second inputs");
    is_i64(tn_params_count(p), 0, "nothing was added");
    ok(!tn_nn_rnn_init(&rnn, p, "r", 4, 3, true, NULL) &&
           !tn_nn_gru_init(&gru, p, "g", 4, 3, true) &&
           !tn_nn_lstm_init(&lstm, p, "l", 4, 3, true) &&
           !tn_nn_bilinear_init(&pair, p, "b", 4, 3, 2, true),
       "layers");
    TN_SCOPE {
        tn_array *x = fill(1, TN_SHAPE(2, 5, 4)), *out[2], *h = fill(0, TN_SHAPE(2, 3));
        fails(tn_nn_rnn_call(&unmade, x, NULL), TN_EVALUE, "rnn: the layer was not initialised");
        fails(tn_nn_rnn_call(&rnn, fill(1, TN_SHAPE(4)), NULL), TN_ESHAPE, "rnn: x has no steps");
        fails(tn_nn_gru_call(&gru, fill(1, TN_SHAPE(2, 0, 4)), NULL), TN_ESHAPE, "no steps");
        fails(tn_nn_gru_call(&gru, fill(1, TN_SHAPE(2, 5, 3)), h), TN_ESHAPE, "[2,5,3]");
        fails(tn_nn_rnn_call(&rnn, x, fill(1, TN_SHAPE(2, 4))), TN_ESHAPE, "[2,4]");
        tn_nn_lstm_call(&lstm, x, h, fill(1, TN_SHAPE(2, 4)), out);
        fails(out[0], TN_ESHAPE, "[2,4]");
        fails(out[1], TN_ESHAPE, "[2,4]");
        tn_nn_lstm_call(&lstm, x, h, h, out);
        ok(tn_ndim(out[1]) == 3 && tn_dim(out[1], 1) == 5 && tn_dim(out[1], 2) == 3, "all cells");
        fails(tn_nn_bilinear_call(&pair, x, h), TN_ESHAPE, "bilinear: x1 has 3 axes, x2 2");
        fails(tn_nn_bilinear_call(&pair, h, h), TN_ESHAPE, "matmul");
    }
    tn_params_free(p);
}

static void test_upsample_misuse(void) {
    TN_SCOPE {
        tn_array *x = fill(1, TN_SHAPE(2, 5, 4));
        fails(tn_nn_upsample(fill(1, TN_SHAPE(2, 5)), 2, NULL), TN_ESHAPE,
              "upsample: x has 2 axes");
        fails(tn_nn_upsample(tn_zeros(TN_SHAPE(2, 5, 4), TN_I32), 2, NULL), TN_EDTYPE,
              "upsample: needs floats, not int32");
        fails(tn_nn_upsample(x, 0.1, NULL), TN_EVALUE, "5 places of axis 1 by a scale of 0.1");
        fails(tn_nn_upsample(x, 0, NULL), TN_EVALUE, "by a scale of 0");
        fails(tn_nn_upsample(x, NAN, NULL), TN_EVALUE, "by a scale of nan");
        fails(tn_nn_upsample(x, 1e9, NULL), TN_EVALUE, "by a scale of 1e+09");
        fails(tn_nn_upsample(x, 2, TN_OPT(tn_nn_upsample_opt, .mode = (tn_nn_upsample_mode)3)),
              TN_EVALUE, "upsample: no mode 3");
        fails(tn_nn_upsample(x, 2, TN_OPT(tn_nn_upsample_opt, .antialias = true)), TN_EVALUE,
              "antialias goes neither");
        /* constants stay what they are at every size */
        static const double scales[] = {0.3, 0.7, 1.9, 2.7, 5};
        for (int mode = 0; mode < 6; mode++)
            for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
                tn_nn_upsample_opt o = {.size = sizeof o,
                                        .mode = (tn_nn_upsample_mode)(mode % 3),
                                        .align_corners = mode == 4,
                                        .antialias = mode == 5};
                tn_array *y = tn_nn_upsample(fill(3, TN_SHAPE(1, 11, 7, 2)), scales[i], &o);
                tn_array *off = tn_max(tn_abs(tn_sub(y, tn_f32(3))), TN_ALL, false);
                ok(tn_item_f32(off) < 1e-5f, "mode %d, scale %g", mode, scales[i]);
            }
    }
}

typedef struct net {
    tn_nn_rnn rnn;
    tn_nn_gru gru;
    tn_nn_lstm lstm;
    tn_nn_bilinear pair;
} net;

static int net_init(net *m, tn_params *p) {
    int status = tn_nn_rnn_init(&m->rnn, p, "rnn", 4, 3, true, tn_nn_relu);
    if (!status) status = tn_nn_gru_init(&m->gru, p, "gru", 3, 3, true);
    if (!status) status = tn_nn_lstm_init(&m->lstm, p, "lstm", 3, 3, true);
    return status ? status : tn_nn_bilinear_init(&m->pair, p, "pair", 3, 3, 2, true);
}

static int net_loss(tn_list in, tn_array **out, int n_out, void *ud) {
    net *m = ud;
    (void)n_out;
    tn_array *state[2], *x = tn_nn_rnn_call(&m->rnn, in.v[0], NULL);
    x = tn_nn_gru_call(&m->gru, x, NULL);
    tn_nn_lstm_call(&m->lstm, x, NULL, NULL, state);
    x = tn_nn_bilinear_call(&m->pair, state[0], state[1]);
    x = tn_nn_upsample(x, 1.5, TN_OPT(tn_nn_upsample_opt, .mode = TN_NN_CUBIC));
    x = tn_nn_upsample(x, 0.5, TN_OPT(tn_nn_upsample_opt, .mode = TN_NN_CUBIC, .antialias = true));
    out[0] = tn_sum(x, TN_ALL, false);
    return 0;
}

static int life(void) {
    net m;
    tn_params *p = tn_params_new();
    if (!p) return TN_EMEMORY;
    int status = net_init(&m, p);
    TN_SCOPE {
        tn_array *out[1], *grad[16];
        tn_list in = TN_LIST(fill(0.5, TN_SHAPE(1, 2, 4)));
        if (!status) status = tn_nn_value_and_grad(p, net_loss, &m, in, 1, out, grad);
        if (!status) status = tn_eval((tn_list){grad, tn_params_trainable(p)});
    }
    tn_params_free(p);
    return status;
}

int main(void) {
    test_misuse();
    test_upsample_misuse();
    test_lives(life, 1000);
    return tap_done();
}
