/* Transformer layers: misuse, layers that are run again, memory. Parity is in tests/py. */
#include "nn_check.h"
#include "values.h"
#include <math.h>

static void test_misuse(void) {
    tn_params *p = tn_params_new();
    tn_nn_transformer_encoder_layer e, unmade = {0};
    tn_nn_transformer_decoder_layer d, unmade_too = {0};
    tn_nn_transformer_encoder stack;
    tn_nn_transformer_opt drop = {.size = sizeof drop, .dropout = 1};
    refused(tn_nn_transformer_encoder_layer_init(&e, p, "e", 8, 3, NULL), TN_EVALUE,
            "do not divide into 3 heads");
    refused(tn_nn_transformer_encoder_layer_init(&e, p, "e", 8, 2, &drop), TN_EVALUE,
            "transformer: dropout of 1; it must be in [0, 1)");
    refused(tn_nn_transformer_decoder_layer_init(&d, p, "d", 8, 0, NULL), TN_EVALUE, "0 heads");
    refused(tn_nn_transformer_encoder_init(&stack, p, "s", -1, 8, 2, NULL), TN_EVALUE,
            "transformer: -1 layers");
    is_i64(tn_params_count(p), 0, "nothing was added");
    ok(!tn_nn_transformer_encoder_layer_init(&e, p, "e", 8, 2, NULL) &&
           !tn_nn_transformer_decoder_layer_init(&d, p, "d", 8, 2, NULL),
       "layers");
    ok(tn_params_find(p, "d.cross_attention.out_proj.weight") > 0, "names");
    TN_SCOPE {
        tn_array *x = fill(1, TN_SHAPE(2, 5, 8)), *flat = fill(1, TN_SHAPE(5, 8));
        fails(tn_nn_transformer_encoder_layer_call(&unmade, x, NULL, true), TN_EVALUE,
              "transformer: the layer was not initialised");
        fails(tn_nn_transformer_decoder_layer_call(&unmade_too, x, x, NULL, NULL, true), TN_EVALUE,
              "transformer: the layer was not initialised");
        fails(tn_nn_transformer_decoder_layer_call(&d, x, NULL, NULL, NULL, true), TN_EVALUE,
              "transformer: the decoder's memory is NULL");
        fails(tn_nn_transformer_encoder_layer_call(&e, flat, NULL, true), TN_ESHAPE,
              "queries have 2 axes");
        fails(tn_nn_transformer_decoder_layer_call(&d, x, flat, NULL, NULL, true), TN_ESHAPE,
              "keys have 2 axes");
    }
    tn_params_free(p);
}

typedef struct net {
    tn_nn_transformer t;
} net;

static int net_init(net *m, tn_params *p, bool checkpoint) {
    tn_nn_transformer_opt o = {.size = sizeof o, .dropout = 0.2, .checkpoint = checkpoint};
    o.activation = tn_nn_silu;
    tn_random_seed(5);
    return tn_nn_transformer_init(&m->t, p, "net", 8, 2, 2, 2, &o);
}

static int net_loss(tn_list in, tn_array **out, int n_out, void *ud) {
    net *m = ud;
    (void)n_out;
    tn_array *y = tn_nn_transformer_call(&m->t, in.v[0], in.v[0], NULL,
                                         TN_OPT(tn_sdpa_opt, .causal = true), NULL, true);
    out[0] = tn_nn_mse_loss(y, in.v[0], TN_NN_MEAN);
    return 0;
}

static int net_step(net *m, tn_params *p, tn_array **out, tn_array **grad) {
    tn_random_seed(6);
    tn_list in = TN_LIST(tn_reshape(tn_arange(0, 96, 1, TN_F32), TN_SHAPE(2, 6, 8)));
    int status = tn_nn_value_and_grad(p, net_loss, m, in, 1, out, grad);
    return status ? status : tn_eval((tn_list){grad, tn_params_trainable(p)});
}

/* Layers that are run again give what the others give; their records are made once. */
static void test_again(void) {
    net m[2];
    tn_params *p[2] = {tn_params_new(), tn_params_new()};
    ok(!net_init(&m[0], p[0], false) && !net_init(&m[1], p[1], true), "two nets");
    int64_t live[3];
    for (int i = 0; i < 3; i++) {
        TN_SCOPE {
            tn_array *out[2], *grad[2][128];
            is_i64(net_step(&m[0], p[0], &out[0], grad[0]), 0, "a step");
            is_i64(net_step(&m[1], p[1], &out[1], grad[1]), 0, "a step with checkpoints");
            ok(tn_item_f32(out[0]) == tn_item_f32(out[1]), "the same loss, %g",
               (double)tn_item_f32(out[0]));
            float off = 0;
            for (int k = 0; k < tn_params_trainable(p[0]); k++)
                off = fmaxf(off, tn_item_f32(tn_max(tn_abs(tn_sub(grad[0][k], grad[1][k])), TN_ALL,
                                                    false)));
            ok(off < 1e-5f, "the same gradients, to %g", (double)off);
        }
        live[i] = tni_alloc_live();
    }
    ok(live[2] == live[1], "each way of calling is kept once: %lld, %lld blocks",
       (long long)live[1], (long long)live[2]);
    tn_params_free(p[0]), tn_params_free(p[1]);
}

static int life(void) {
    net m;
    tn_params *p = tn_params_new();
    if (!p) return TN_EMEMORY;
    int status = net_init(&m, p, true);
    TN_SCOPE {
        tn_array *out[1], *grad[128];
        if (!status) status = net_step(&m, p, out, grad);
    }
    tn_params_free(p);
    return status;
}

/* Some of the allocations of a life fail: one in `every`. */
static int some_fail(int64_t every) {
    int status = 0;
    bool reached = true;
    for (int64_t n = 1; reached && (!status || status == TN_EMEMORY); n += every) {
        int64_t before = tni_alloc_count();
        tni_fail_alloc_at(n);
        status = life();
        tni_fail_alloc_at(0);
        reached = tni_alloc_count() - before >= n;
    }
    return status;
}

static void test_memory(void) {
    int status = some_fail(83);
    ok(!status, "allocations fail cleanly: %s", status ? tn_error() : "");
    int64_t live = tni_alloc_live();
    status = some_fail(97);
    ok(!status, "and again: %s", status ? tn_error() : "");
    is_i64(tni_alloc_live(), live, "nothing leaks");
}

int main(void) {
    test_misuse();
    test_again();
    test_memory();
    return tap_done();
}
