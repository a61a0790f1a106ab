/* Recurrent layers: the inputs of all steps in one product, then a short graph a step. */
#include "base/alloc.h"
#include "base/err.h"
#include "nn/layer.h"
#include <math.h>

/* ---- words ---- */

static int recurrent_sizes(const char *layer, int64_t in, int64_t hidden) {
    int status = tni_layer_size(layer, "inputs", in);
    return status ? status : tni_layer_size(layer, "hidden numbers", hidden);
}

static tn_array *recurrent_uniform(int64_t hidden, tn_ints shape) {
    return tni_layer_uniform(1 / sqrt((double)hidden), shape);
}

/* h W^T + y */
static tn_array *recurrent_map(tn_array *h, tn_array *w, tn_array *y) {
    w = tn_transpose(w, TN_ALL);
    return y ? tn_addmm(y, h, w, 1, 1) : tn_matmul(h, w);
}

/* x [..., steps, n] at one step: [..., n] */
static tn_array *recurrent_at(tn_array *x, int64_t step) {
    return tn_squeeze(tn_slice_axis(x, -2, step, step + 1), TN_AXES(-2));
}

/* The k-th of n equal parts of the last axis. */
static tn_array *recurrent_part(tn_array *x, int k, int n) {
    int64_t size = tn_dim(x, -1) / n;
    return tn_slice_axis(x, -1, k * size, (k + 1) * size);
}

/* A step of a layer: from x at it, and the state [hidden, cell], to the state after (NULL: 0). */
typedef void (*recurrent_step)(const void *layer, tn_array *x, tn_array **state);

/* out[k]: state k after every step; x [..., steps, n]. */
static void recurrent_run(const char *op, const void *layer, recurrent_step step, tn_array *x,
                          tn_array **state, int n, tn_array **out) {
    int64_t steps = tn_array_status(x) || tn_ndim(x) < 2 ? 0 : tn_dim(x, -2);
    tn_array *bad = NULL, **all = NULL;
    if (tn_array_status(x)) bad = x;
    if (!bad && !steps)
        bad = tn_error_array(TN_ESHAPE, "%s: x has no steps: [..., steps, in] is needed", op);
    if (!bad && steps > INT32_MAX / 2)
        bad = tn_error_array(TN_ESHAPE, "%s: %lld steps", op, (long long)steps);
    if (!bad && !(all = tni_alloc_array((size_t)(n * steps), sizeof *all)))
        bad = tn_error_array(tni_fail_memory((size_t)(n * steps) * sizeof *all, op), "%s",
                             "no memory for the steps");
    for (int64_t t = 0; t < steps && !bad; t++) {
        step(layer, recurrent_at(x, t), state);
        for (int k = 0; k < n; k++) all[k * steps + t] = state[k];
    }
    for (int k = 0; k < n; k++)
        out[k] = bad ? bad : tn_stack((tn_list){all + k * steps, (int)steps}, -2);
    tni_free(all);
}

/* ---- RNN ---- */

int tn_nn_rnn_init(tn_nn_rnn *l, tn_params *p, const char *name, int64_t in, int64_t hidden,
                   bool bias, tn_nn_activation nonlinearity) {
    *l = (tn_nn_rnn){.nonlinearity = nonlinearity ? nonlinearity : tn_tanh};
    int status = recurrent_sizes("rnn", in, hidden);
    if (status) return status;
    tni_layer b = tni_layer_begin(p, name, status);
    tni_layer_add(&b, "Wxh", &l->Wxh, recurrent_uniform(hidden, TN_SHAPE(hidden, in)));
    tni_layer_add(&b, "Whh", &l->Whh, recurrent_uniform(hidden, TN_SHAPE(hidden, hidden)));
    if (bias) tni_layer_add(&b, "bias", &l->bias, recurrent_uniform(hidden, TN_SHAPE(hidden)));
    return tni_layer_end(&b);
}

static void recurrent_rnn(const void *layer, tn_array *x, tn_array **state) {
    const tn_nn_rnn *l = layer;
    state[0] = l->nonlinearity(state[0] ? recurrent_map(state[0], l->Whh, x) : x);
}

tn_array *tn_nn_rnn_call(const tn_nn_rnn *l, tn_array *x, tn_array *hidden) {
    tn_array *state[1] = {hidden}, *out[1];
    if (!l->nonlinearity) return tn_error_array(TN_EVALUE, "rnn: the layer was not initialised");
    recurrent_run("rnn", l, recurrent_rnn, recurrent_map(x, l->Wxh, l->bias), state, 1, out);
    return out[0];
}

/* ---- GRU ---- */

int tn_nn_gru_init(tn_nn_gru *l, tn_params *p, const char *name, int64_t in, int64_t hidden,
                   bool bias) {
    *l = (tn_nn_gru){0};
    int status = recurrent_sizes("gru", in, hidden);
    if (status) return status;
    tni_layer b = tni_layer_begin(p, name, status);
    tni_layer_add(&b, "Wx", &l->Wx, recurrent_uniform(hidden, TN_SHAPE(3 * hidden, in)));
    tni_layer_add(&b, "Wh", &l->Wh, recurrent_uniform(hidden, TN_SHAPE(3 * hidden, hidden)));
    if (bias) {
        tni_layer_add(&b, "b", &l->b, recurrent_uniform(hidden, TN_SHAPE(3 * hidden)));
        tni_layer_add(&b, "bhn", &l->bhn, recurrent_uniform(hidden, TN_SHAPE(hidden)));
    }
    return tni_layer_end(&b);
}

static void recurrent_gru(const void *layer, tn_array *x, tn_array **state) {
    const tn_nn_gru *l = layer;
    tn_array *h = state[0], *from = h ? recurrent_map(h, l->Wh, NULL) : NULL, *gate[2];
    for (int k = 0; k < 2; k++) {
        gate[k] = recurrent_part(x, k, 3);
        if (h) gate[k] = tn_add(gate[k], recurrent_part(from, k, 3));
        gate[k] = tn_sigmoid(gate[k]);
    }
    tn_array *n = recurrent_part(x, 2, 3), *back = h ? recurrent_part(from, 2, 3) : NULL;
    if (l->bhn) back = back ? tn_add(back, l->bhn) : l->bhn;
    n = tn_tanh(back ? tn_add(n, tn_mul(gate[0], back)) : n);
    tn_array *fresh = tn_mul(tn_sub(tn_f32(1), gate[1]), n);
    state[0] = h ? tn_add(fresh, tn_mul(gate[1], h)) : fresh;
}

tn_array *tn_nn_gru_call(const tn_nn_gru *l, tn_array *x, tn_array *hidden) {
    tn_array *state[1] = {hidden}, *out[1];
    recurrent_run("gru", l, recurrent_gru, recurrent_map(x, l->Wx, l->b), state, 1, out);
    return out[0];
}

/* ---- LSTM ---- */

int tn_nn_lstm_init(tn_nn_lstm *l, tn_params *p, const char *name, int64_t in, int64_t hidden,
                    bool bias) {
    *l = (tn_nn_lstm){0};
    int status = recurrent_sizes("lstm", in, hidden);
    if (status) return status;
    tni_layer b = tni_layer_begin(p, name, status);
    tni_layer_add(&b, "Wx", &l->Wx, recurrent_uniform(hidden, TN_SHAPE(4 * hidden, in)));
    tni_layer_add(&b, "Wh", &l->Wh, recurrent_uniform(hidden, TN_SHAPE(4 * hidden, hidden)));
    if (bias) tni_layer_add(&b, "bias", &l->bias, recurrent_uniform(hidden, TN_SHAPE(4 * hidden)));
    return tni_layer_end(&b);
}

static void recurrent_lstm(const void *layer, tn_array *x, tn_array **state) {
    const tn_nn_lstm *l = layer;
    if (state[0]) x = recurrent_map(state[0], l->Wh, x);
    tn_array *i = tn_sigmoid(recurrent_part(x, 0, 4)), *f = tn_sigmoid(recurrent_part(x, 1, 4));
    tn_array *g = tn_tanh(recurrent_part(x, 2, 4)), *o = tn_sigmoid(recurrent_part(x, 3, 4));
    tn_array *fresh = tn_mul(i, g);
    state[1] = state[1] ? tn_add(tn_mul(f, state[1]), fresh) : fresh;
    state[0] = tn_mul(o, tn_tanh(state[1]));
}

void tn_nn_lstm_call(const tn_nn_lstm *l, tn_array *x, tn_array *hidden, tn_array *cell,
                     tn_array *out[2]) {
    tn_array *state[2] = {hidden, cell};
    recurrent_run("lstm", l, recurrent_lstm, recurrent_map(x, l->Wx, l->bias), state, 2, out);
}

/* ---- bilinear ---- */

int tn_nn_bilinear_init(tn_nn_bilinear *l, tn_params *p, const char *name, int64_t in1, int64_t in2,
                        int64_t out, bool bias) {
    *l = (tn_nn_bilinear){0};
    int status = tni_layer_size("bilinear", "first inputs", in1);
    if (!status) status = tni_layer_size("bilinear", "second inputs", in2);
    if (!status) status = tni_layer_size("bilinear", "outputs", out);
    if (status) return status;
    double limit = sqrt(1.0 / (double)in1);
    tni_layer b = tni_layer_begin(p, name, status);
    tni_layer_add(&b, "weight", &l->weight, tni_layer_uniform(limit, TN_SHAPE(out, in2, in1)));
    if (bias) tni_layer_add(&b, "bias", &l->bias, tni_layer_uniform(limit, TN_SHAPE(out)));
    return tni_layer_end(&b);
}

/* One product with all matrices below each other, then sums over in2. */
tn_array *tn_nn_bilinear_call(const tn_nn_bilinear *l, tn_array *x1, tn_array *x2) {
    if (tn_array_status(x1)) return x1;
    if (tn_array_status(x2)) return x2;
    int nd = tn_ndim(x1);
    int64_t shape[TN_MAX_NDIM + 1], out = tn_dim(l->weight, 0), in2 = tn_dim(l->weight, 1);
    if (!nd || tn_ndim(x2) != nd || nd >= TN_MAX_NDIM || tn_dim(x2, -1) != in2)
        return tn_error_array(TN_ESHAPE,
                              "bilinear: x1 has %d axes, x2 %d and %lld numbers in the last; as "
                              "many axes and %lld numbers are needed",
                              nd, tn_ndim(x2), (long long)tn_dim(x2, -1), (long long)in2);
    tn_array *rows = tn_reshape(l->weight, TN_SHAPE(out * in2, tn_dim(l->weight, 2)));
    tn_array *y = tn_matmul(x1, tn_transpose(rows, TN_ALL));
    for (int d = 0; d < nd - 1; d++) shape[d] = tn_dim(x1, d);
    shape[nd - 1] = out, shape[nd] = in2;
    y = tn_reshape(y, (tn_ints){shape, nd + 1});
    y = tn_sum(tn_mul(y, tn_expand_dims(x2, TN_AXES(-2))), TN_AXES(-1), false);
    return l->bias ? tn_add(y, l->bias) : y;
}
