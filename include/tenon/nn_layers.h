/* Layers. A layer is a struct of yours that holds parameters in slots:
 *
 *     struct { tn_nn_linear in, out; } m;
 *     if (tn_nn_linear_init(&m.in, p, "in", 784, 128, true) ||
 *         tn_nn_linear_init(&m.out, p, "out", 128, 10, true)) return fail(tn_error());
 *     tn_array *logits = tn_nn_linear_call(&m.out, tn_nn_relu(tn_nn_linear_call(&m.in, x)));
 *
 * tn_nn_x_init adds the layer's parameters to the tree under `name` and a dot (NULL: without), f32,
 * lazily, with random numbers of this thread's sequence; the struct must stay where it is until the
 * tree is freed, and what it held before is not looked at. On failure some parameters may be in the
 * tree: free it. tn_nn_x_call extends your graph. Names, shapes, formulas and initial values are
 * those of mlx.nn, so are the same files and, from the same seed, the same numbers. `training` says
 * whether random and running parts of a layer work as in training.
 *
 * Pooling is tn_max_pool and tn_avg_pool; a sequence of layers is a sequence of calls. */
#ifndef TENON_NN_LAYERS_H
#define TENON_NN_LAYERS_H

#include "tenon/nn.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Linear maps and tables ----------------------------------------------------------------- */

typedef struct tn_nn_linear {
    tn_array *weight, *bias; /* [out, in]; [out] or NULL */
} tn_nn_linear;
/* x [..., in] to x weight^T + bias [..., out]. */
TN_API int tn_nn_linear_init(tn_nn_linear *l, tn_params *p, const char *name, int64_t in,
                             int64_t out, bool bias) TN_MUST_CHECK;
TN_API tn_array *tn_nn_linear_call(const tn_nn_linear *l, tn_array *x);

typedef struct tn_nn_embedding {
    tn_array *weight; /* [n, dims] */
} tn_nn_embedding;
/* Integers of any shape, 0 to n - 1, to rows of the table: [..., dims]. One out of range is
 * TN_EINDEX when it is evaluated. */
TN_API int tn_nn_embedding_init(tn_nn_embedding *l, tn_params *p, const char *name, int64_t n,
                                int64_t dims) TN_MUST_CHECK;
TN_API tn_array *tn_nn_embedding_call(const tn_nn_embedding *l, tn_array *ids);
/* x [..., dims] weight^T: an output layer that shares the table. */
TN_API tn_array *tn_nn_embedding_as_linear(const tn_nn_embedding *l, tn_array *x);

/* ---- Convolution: channels last, as tn_conv2d has it ---------------------------------------- */

typedef struct tn_nn_conv {
    tn_array *weight, *bias; /* [out, taps..., in / groups]; [out] or NULL */
    tn_conv_opt opt;
    int axes;
    bool transposed;
} tn_nn_conv;
/* in to out channels by `kernel` taps; all else of the convolution is said by `opt` (may be NULL).
 * Transposed ones take groups too. */
TN_API int tn_nn_conv1d_init(tn_nn_conv *l, tn_params *p, const char *name, int64_t in, int64_t out,
                             tn_spatial kernel, bool bias, const tn_conv_opt *opt) TN_MUST_CHECK;
TN_API int tn_nn_conv2d_init(tn_nn_conv *l, tn_params *p, const char *name, int64_t in, int64_t out,
                             tn_spatial kernel, bool bias, const tn_conv_opt *opt) TN_MUST_CHECK;
TN_API int tn_nn_conv3d_init(tn_nn_conv *l, tn_params *p, const char *name, int64_t in, int64_t out,
                             tn_spatial kernel, bool bias, const tn_conv_opt *opt) TN_MUST_CHECK;
TN_API int tn_nn_conv_transpose1d_init(tn_nn_conv *l, tn_params *p, const char *name, int64_t in,
                                       int64_t out, tn_spatial kernel, bool bias,
                                       const tn_conv_opt *opt) TN_MUST_CHECK;
TN_API int tn_nn_conv_transpose2d_init(tn_nn_conv *l, tn_params *p, const char *name, int64_t in,
                                       int64_t out, tn_spatial kernel, bool bias,
                                       const tn_conv_opt *opt) TN_MUST_CHECK;
TN_API int tn_nn_conv_transpose3d_init(tn_nn_conv *l, tn_params *p, const char *name, int64_t in,
                                       int64_t out, tn_spatial kernel, bool bias,
                                       const tn_conv_opt *opt) TN_MUST_CHECK;
/* x [N, places..., in] to [N, places..., out]. */
TN_API tn_array *tn_nn_conv_call(const tn_nn_conv *l, tn_array *x);

/* ---- Normalisation -------------------------------------------------------------------------- */

/* Settings of the layers below; each says which it looks at. */
typedef struct tn_nn_norm_opt {
    size_t size;
    double eps;              /* all: added to the variance; 1e-5 */
    bool no_affine;          /* without weight and bias */
    bool no_bias;            /* weight alone */
    double momentum;         /* batch norm: the share of what is new; 0.1 */
    bool no_running;         /* batch norm: always the statistics of the batch */
    bool affine;             /* instance norm, which has none otherwise: weight and bias */
    bool pytorch_compatible; /* group norm: groups are neighbouring channels */
} tn_nn_norm_opt;

typedef struct tn_nn_layer_norm {
    tn_array *weight, *bias; /* [dims]: ones, zeros; or NULL */
    double eps;
} tn_nn_layer_norm;
/* (x - mean) / sqrt(variance + eps) * weight + bias over the last axis. Looks at eps, no_affine,
 * no_bias. */
TN_API int tn_nn_layer_norm_init(tn_nn_layer_norm *l, tn_params *p, const char *name, int64_t dims,
                                 const tn_nn_norm_opt *opt) TN_MUST_CHECK;
TN_API tn_array *tn_nn_layer_norm_call(const tn_nn_layer_norm *l, tn_array *x);

typedef struct tn_nn_rms_norm {
    tn_array *weight; /* [dims]: ones */
    double eps;
} tn_nn_rms_norm;
/* x / sqrt(mean(x^2) + eps) * weight over the last axis. Looks at eps. */
TN_API int tn_nn_rms_norm_init(tn_nn_rms_norm *l, tn_params *p, const char *name, int64_t dims,
                               const tn_nn_norm_opt *opt) TN_MUST_CHECK;
TN_API tn_array *tn_nn_rms_norm_call(const tn_nn_rms_norm *l, tn_array *x);

typedef struct tn_nn_batch_norm {
    tn_array *weight, *bias;              /* [dims]: ones, zeros; or NULL */
    tn_array *running_mean, *running_var; /* [dims]: zeros, ones, frozen; or NULL */
    double eps, momentum;
} tn_nn_batch_norm;
/* x [N, ..., dims], every channel by the mean and variance of all its numbers in the batch, which
 * also move the running ones in their slots; outside training by the running ones. Looks at eps,
 * momentum, no_affine, no_bias, no_running. In training a channel must have two numbers. Outside
 * it, in a function compiled with `fold`, it goes into the weights of the layer before it. */
TN_API int tn_nn_batch_norm_init(tn_nn_batch_norm *l, tn_params *p, const char *name, int64_t dims,
                                 const tn_nn_norm_opt *opt) TN_MUST_CHECK;
TN_API tn_array *tn_nn_batch_norm_call(tn_nn_batch_norm *l, tn_array *x, bool training);

typedef struct tn_nn_group_norm {
    tn_array *weight, *bias; /* [dims]: ones, zeros; or NULL */
    double eps;
    int64_t groups, dims;
    bool neighbours;
} tn_nn_group_norm;
/* x [N, ..., dims], by the mean and variance of one example's numbers in each of `groups` groups of
 * channels: i, i + groups, i + 2 groups, ..., or, pytorch_compatible, dims / groups neighbours.
 * Looks at eps, no_affine, no_bias, pytorch_compatible. */
TN_API int tn_nn_group_norm_init(tn_nn_group_norm *l, tn_params *p, const char *name,
                                 int64_t groups, int64_t dims,
                                 const tn_nn_norm_opt *opt) TN_MUST_CHECK;
TN_API tn_array *tn_nn_group_norm_call(const tn_nn_group_norm *l, tn_array *x);

typedef struct tn_nn_instance_norm {
    tn_array *weight, *bias; /* [dims]: ones, zeros; or NULL */
    double eps;
} tn_nn_instance_norm;
/* x [N, places..., dims], every channel of every example by its own mean and variance. Looks at
 * eps, affine. */
TN_API int tn_nn_instance_norm_init(tn_nn_instance_norm *l, tn_params *p, const char *name,
                                    int64_t dims, const tn_nn_norm_opt *opt) TN_MUST_CHECK;
TN_API tn_array *tn_nn_instance_norm_call(const tn_nn_instance_norm *l, tn_array *x);

/* ---- Dropout -------------------------------------------------------------------------------
 * Zeros with probability p, 0 <= p < 1, the rest times 1 / (1 - p); x itself outside training. */

TN_API tn_array *tn_nn_dropout(tn_array *x, double p, bool training); /* every number by itself */
/* Whole channels, the last axis: x [..., H, W, C] of 3 or 4 axes, [..., D, H, W, C] of 4 or 5. */
TN_API tn_array *tn_nn_dropout2d(tn_array *x, double p, bool training);
TN_API tn_array *tn_nn_dropout3d(tn_array *x, double p, bool training);

/* ---- Attention and positions ---------------------------------------------------------------- */

typedef struct tn_nn_attention_opt {
    size_t size;
    int64_t query_input_dims, key_input_dims; /* dims */
    int64_t value_input_dims;                 /* key_input_dims */
    int64_t value_dims, value_output_dims;    /* dims */
    bool bias;                                /* of the four maps */
} tn_nn_attention_opt;
typedef struct tn_nn_multi_head_attention {
    tn_nn_linear query_proj, key_proj, value_proj, out_proj;
    int heads;
} tn_nn_multi_head_attention;
/* Queries [N, Lq, query_input_dims], keys and values [N, Lk, ...] to [N, Lq, value_output_dims];
 * `heads` divides dims and value_dims. Mask, causal, sinks: as tn_fast_scaled_dot_product_attention
 * has them. */
TN_API int tn_nn_multi_head_attention_init(tn_nn_multi_head_attention *l, tn_params *p,
                                           const char *name, int64_t dims, int heads,
                                           const tn_nn_attention_opt *opt) TN_MUST_CHECK;
TN_API tn_array *tn_nn_multi_head_attention_call(const tn_nn_multi_head_attention *l,
                                                 tn_array *queries, tn_array *keys,
                                                 tn_array *values, const tn_sdpa_opt *opt);

/* Rotary embedding from position `offset` on; see tn_fast_rope. */
TN_API tn_array *tn_nn_rope(tn_array *x, int dims, int64_t offset, const tn_rope_opt *opt);

typedef struct tn_nn_sinusoidal_opt {
    size_t size;
    double min_freq, max_freq; /* 0.0001, 1 */
    double scale;              /* sqrt(2 / dims) */
    bool cos_first;            /* cosines, then sines; else sines first */
    bool full_turns;           /* frequencies are in turns */
} tn_nn_sinusoidal_opt;
/* Positions of any shape to [..., dims]: sines and cosines of dims / 2 frequencies from max_freq
 * down to min_freq, in f32. dims is even. */
TN_API tn_array *tn_nn_sinusoidal(tn_array *positions, int64_t dims,
                                  const tn_nn_sinusoidal_opt *opt);

/* What ALiBi adds to scores, [1, heads, q, k] of a float dtype: minus the distance of query
 * offset + i and key j, times a slope of the head's. */
TN_API tn_array *tn_nn_alibi(int64_t q, int64_t k, int heads, int64_t offset, tn_dtype dtype);

/* ---- Transformers ---------------------------------------------------------------------------
 * Attention and two linear maps, each with a norm before it and its input added after it. x is
 * [N, L, dims]; what is looked at is said as in attention, by tn_sdpa_opt (may be NULL). */

typedef struct tn_nn_transformer_opt {
    size_t size;
    int64_t mlp_dims;            /* 4 dims */
    double dropout;              /* 0: after attention, and between the linear maps */
    tn_nn_activation activation; /* tn_nn_relu */
    bool norm_last;              /* norms after what was added, not before */
    bool checkpoint;             /* stacks: layers are run again when gradients are computed */
} tn_nn_transformer_opt;

typedef struct tn_nn_transformer_encoder_layer {
    tn_nn_multi_head_attention attention;
    tn_nn_layer_norm ln1, ln2;
    tn_nn_linear linear1, linear2;
    tn_nn_transformer_opt opt;
    void *again; /* for checkpoints */
} tn_nn_transformer_encoder_layer;
/* Every query looks at the keys of x. */
TN_API int tn_nn_transformer_encoder_layer_init(tn_nn_transformer_encoder_layer *l, tn_params *p,
                                                const char *name, int64_t dims, int heads,
                                                const tn_nn_transformer_opt *opt) TN_MUST_CHECK;
TN_API tn_array *tn_nn_transformer_encoder_layer_call(const tn_nn_transformer_encoder_layer *l,
                                                      tn_array *x, const tn_sdpa_opt *look,
                                                      bool training);

typedef struct tn_nn_transformer_decoder_layer {
    tn_nn_multi_head_attention self_attention, cross_attention;
    tn_nn_layer_norm ln1, ln2, ln3;
    tn_nn_linear linear1, linear2;
    tn_nn_transformer_opt opt;
    void *again;
} tn_nn_transformer_decoder_layer;
/* Queries look at x, then at memory [N, Lm, dims]. */
TN_API int tn_nn_transformer_decoder_layer_init(tn_nn_transformer_decoder_layer *l, tn_params *p,
                                                const char *name, int64_t dims, int heads,
                                                const tn_nn_transformer_opt *opt) TN_MUST_CHECK;
TN_API tn_array *tn_nn_transformer_decoder_layer_call(const tn_nn_transformer_decoder_layer *l,
                                                      tn_array *x, tn_array *memory,
                                                      const tn_sdpa_opt *look,
                                                      const tn_sdpa_opt *memory_look,
                                                      bool training);

/* n layers and a norm at the end. The layers' memory belongs to the tree. */
typedef struct tn_nn_transformer_encoder {
    tn_nn_transformer_encoder_layer *layers;
    int n;
    tn_nn_layer_norm ln;
} tn_nn_transformer_encoder;
TN_API int tn_nn_transformer_encoder_init(tn_nn_transformer_encoder *l, tn_params *p,
                                          const char *name, int n, int64_t dims, int heads,
                                          const tn_nn_transformer_opt *opt) TN_MUST_CHECK;
TN_API tn_array *tn_nn_transformer_encoder_call(const tn_nn_transformer_encoder *l, tn_array *x,
                                                const tn_sdpa_opt *look, bool training);
typedef struct tn_nn_transformer_decoder {
    tn_nn_transformer_decoder_layer *layers;
    int n;
    tn_nn_layer_norm ln;
} tn_nn_transformer_decoder;
TN_API int tn_nn_transformer_decoder_init(tn_nn_transformer_decoder *l, tn_params *p,
                                          const char *name, int n, int64_t dims, int heads,
                                          const tn_nn_transformer_opt *opt) TN_MUST_CHECK;
TN_API tn_array *tn_nn_transformer_decoder_call(const tn_nn_transformer_decoder *l, tn_array *x,
                                                tn_array *memory, const tn_sdpa_opt *look,
                                                const tn_sdpa_opt *memory_look, bool training);

/* Both: the decoder, given the target, looks at what the encoder made of the source. */
typedef struct tn_nn_transformer {
    tn_nn_transformer_encoder encoder;
    tn_nn_transformer_decoder decoder;
} tn_nn_transformer;
TN_API int tn_nn_transformer_init(tn_nn_transformer *l, tn_params *p, const char *name,
                                  int64_t dims, int heads, int encoder_layers, int decoder_layers,
                                  const tn_nn_transformer_opt *opt) TN_MUST_CHECK;
TN_API tn_array *tn_nn_transformer_call(const tn_nn_transformer *l, tn_array *source,
                                        tn_array *target, const tn_sdpa_opt *source_look,
                                        const tn_sdpa_opt *target_look,
                                        const tn_sdpa_opt *memory_look, bool training);

/* ---- Recurrence -----------------------------------------------------------------------------
 * x [..., steps, in] to [..., steps, hidden]: all states, one after the other; states before the
 * first (NULL: 0) are [..., hidden]. */

typedef struct tn_nn_rnn {
    tn_array *Wxh, *Whh, *bias; /* [hidden, in], [hidden, hidden]; [hidden] or NULL */
    tn_nn_activation nonlinearity;
} tn_nn_rnn;
/* h = nonlinearity(Wxh x + Whh h + bias); NULL: tn_tanh. */
TN_API int tn_nn_rnn_init(tn_nn_rnn *l, tn_params *p, const char *name, int64_t in, int64_t hidden,
                          bool bias, tn_nn_activation nonlinearity) TN_MUST_CHECK;
TN_API tn_array *tn_nn_rnn_call(const tn_nn_rnn *l, tn_array *x, tn_array *hidden);

typedef struct tn_nn_gru {
    tn_array *Wx, *Wh, *b,
        *bhn; /* [3 hidden, in], [3 hidden, hidden]; [3 hidden], [hidden] or NULL */
} tn_nn_gru;
/* Parts r, z, n of the rows: h = (1 - z) n + z h with r, z = sigmoid(Wx x + Wh h + b) and
 * n = tanh(Wx x + b + r (Wh h + bhn)). */
TN_API int tn_nn_gru_init(tn_nn_gru *l, tn_params *p, const char *name, int64_t in, int64_t hidden,
                          bool bias) TN_MUST_CHECK;
TN_API tn_array *tn_nn_gru_call(const tn_nn_gru *l, tn_array *x, tn_array *hidden);

typedef struct tn_nn_lstm {
    tn_array *Wx, *Wh, *bias; /* [4 hidden, in], [4 hidden, hidden]; [4 hidden] or NULL */
} tn_nn_lstm;
/* Parts i, f, g, o of the rows: c = sigmoid(f) c + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c).
 * out: all h, and all c. */
TN_API int tn_nn_lstm_init(tn_nn_lstm *l, tn_params *p, const char *name, int64_t in,
                           int64_t hidden, bool bias) TN_MUST_CHECK;
TN_API void tn_nn_lstm_call(const tn_nn_lstm *l, tn_array *x, tn_array *hidden, tn_array *cell,
                            tn_array *out[2]);

/* ---- Two inputs, other sizes ---------------------------------------------------------------- */

typedef struct tn_nn_bilinear {
    tn_array *weight, *bias; /* [out, in2, in1]; [out] or NULL */
} tn_nn_bilinear;
/* x1 [..., in1], x2 [..., in2] to [..., out]: x2 weight[i] x1 + bias[i]. */
TN_API int tn_nn_bilinear_init(tn_nn_bilinear *l, tn_params *p, const char *name, int64_t in1,
                               int64_t in2, int64_t out, bool bias) TN_MUST_CHECK;
TN_API tn_array *tn_nn_bilinear_call(const tn_nn_bilinear *l, tn_array *x1, tn_array *x2);

typedef enum tn_nn_upsample_mode { TN_NN_NEAREST, TN_NN_LINEAR, TN_NN_CUBIC } tn_nn_upsample_mode;
typedef struct tn_nn_upsample_opt {
    size_t size;
    tn_nn_upsample_mode mode;
    double scale[3];    /* one for each axis of places, in place of the one for all */
    bool align_corners; /* linear, cubic: the outermost places stay where they are */
    bool antialias;     /* linear, cubic, not align_corners: smaller by means, not by samples */
} tn_nn_upsample_opt;
/* x [N, places..., C], 1 to 3 axes of places, each scaled to floor(scale size); x's dtype. */
TN_API tn_array *tn_nn_upsample(tn_array *x, double scale, const tn_nn_upsample_opt *opt);

#ifdef __cplusplus
}
#endif

#endif
