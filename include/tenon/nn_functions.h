/* Functions of networks that hold no parameters: losses, activations, first values. Formulas and
 * names are those of mlx.nn; all are made of ops, so they fuse and differentiate as ops do. */
#ifndef TENON_NN_FUNCTIONS_H
#define TENON_NN_FUNCTIONS_H

#include "tenon/tenon.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Losses --------------------------------------------------------------------------------
 * One number an example, or their mean or sum, without axes. Floats; shapes that must be the same
 * and are not are TN_ESHAPE. f16 and bf16 are reduced in f32. */

typedef enum tn_nn_reduction { TN_NN_NONE, TN_NN_MEAN, TN_NN_SUM } tn_nn_reduction;

typedef struct tn_nn_cross_entropy_opt {
    size_t size;
    tn_ints axis;           /* one: that of the classes; by default the last */
    tn_array *weights;      /* one a loss, shaped as the losses are: multiplied with them */
    double label_smoothing; /* 0 <= s < 1: the share of the target that all classes get alike */
} tn_nn_cross_entropy_opt;
/* -log softmax(logits) at the target. Targets are class numbers, integers shaped as logits without
 * the axis of the classes (one out of range is TN_EINDEX when it is evaluated), or probabilities
 * shaped as logits. Nothing as big as the logits is made beside their gradient. */
TN_API tn_array *tn_nn_cross_entropy(tn_array *logits, tn_array *targets, tn_nn_reduction reduction,
                                     const tn_nn_cross_entropy_opt *opt);
/* Of two classes: targets 0 to 1, shaped as the inputs, which are logits or, without with_logits,
 * probabilities (whose logarithms end at -100). weights (may be NULL) multiply the losses. */
TN_API tn_array *tn_nn_binary_cross_entropy(tn_array *inputs, tn_array *targets, tn_array *weights,
                                            bool with_logits, tn_nn_reduction reduction);
/* -inputs at the target: inputs are logarithms of probabilities, targets class numbers. */
TN_API tn_array *tn_nn_nll_loss(tn_array *inputs, tn_array *targets, int axis,
                                tn_nn_reduction reduction);
/* sum(exp(targets) (targets - inputs)) along the axis: both are logarithms of probabilities. */
TN_API tn_array *tn_nn_kl_div_loss(tn_array *inputs, tn_array *targets, int axis,
                                   tn_nn_reduction reduction);
/* (x - y)^2 and |x - y|; of the same shape. */
TN_API tn_array *tn_nn_mse_loss(tn_array *x, tn_array *y, tn_nn_reduction reduction);
TN_API tn_array *tn_nn_l1_loss(tn_array *x, tn_array *y, tn_nn_reduction reduction);
/* With d = |x - y|: d^2 / (2 beta) where d < beta, else d - beta / 2; of the same shape; and
 * d^2 / 2 up to delta, then delta (d - delta / 2), which broadcasts. Both need a number above 0. */
TN_API tn_array *tn_nn_smooth_l1_loss(tn_array *x, tn_array *y, double beta,
                                      tn_nn_reduction reduction);
TN_API tn_array *tn_nn_huber_loss(tn_array *x, tn_array *y, double delta,
                                  tn_nn_reduction reduction);
/* log cosh(x - y), without overflow. */
TN_API tn_array *tn_nn_log_cosh_loss(tn_array *x, tn_array *y, tn_nn_reduction reduction);
/* max(1 - x y, 0), with y -1 or 1. */
TN_API tn_array *tn_nn_hinge_loss(tn_array *x, tn_array *y, tn_nn_reduction reduction);
/* (log var + (y - mean)^2 / var) / 2 with var at least eps (MLX: 1e-6); `full` adds log(2 pi) / 2.
 * All of the same shape. */
TN_API tn_array *tn_nn_gaussian_nll_loss(tn_array *mean, tn_array *y, tn_array *var, bool full,
                                         double eps, tn_nn_reduction reduction);
/* x1 . x2 / max(|x1| |x2|, eps) along the axis (MLX: axis 1, eps 1e-8): a similarity, not less for
 * what is alike. */
TN_API tn_array *tn_nn_cosine_similarity_loss(tn_array *x1, tn_array *x2, int axis, double eps,
                                              tn_nn_reduction reduction);
/* max(0, -y (x1 - x2) + margin), y 1 where x1 should be the greater, else -1; of the same shape. */
TN_API tn_array *tn_nn_margin_ranking_loss(tn_array *x1, tn_array *x2, tn_array *y, double margin,
                                           tn_nn_reduction reduction);
typedef struct tn_nn_triplet_opt {
    size_t size;
    tn_ints axis;  /* one: that of the vectors; by default the last */
    double p;      /* 2: of the norm */
    double margin; /* 1; below 0: 0 */
    double eps;    /* 1e-6: added to the sums */
} tn_nn_triplet_opt;
/* max(0, distance to positives - distance to negatives + margin). */
TN_API tn_array *tn_nn_triplet_loss(tn_array *anchors, tn_array *positives, tn_array *negatives,
                                    tn_nn_reduction reduction, const tn_nn_triplet_opt *opt);

/* ---- Activations ---------------------------------------------------------------------------
 * Of every number by itself, unless an axis is named; floats. tn_sigmoid, tn_tanh and tn_softmax
 * are in tenon.h. */

typedef tn_array *(*tn_nn_activation)(tn_array *x); /* those without further settings */

TN_API tn_array *tn_nn_relu(tn_array *x);  /* max(x, 0) */
TN_API tn_array *tn_nn_relu2(tn_array *x); /* max(x, 0)^2 */
TN_API tn_array *tn_nn_relu6(tn_array *x); /* min(max(x, 0), 6) */
/* max(slope x, x); MLX: 0.01. */
TN_API tn_array *tn_nn_leaky_relu(tn_array *x, double slope);
/* max(0, x) + alpha min(0, x): alpha is a parameter, broadcast (MLX: [1] or [channels], 0.25). */
TN_API tn_array *tn_nn_prelu(tn_array *x, tn_array *alpha);
/* x where it is above 0, else alpha (exp(x) - 1), or alpha (exp(x / alpha) - 1); MLX: 1. */
TN_API tn_array *tn_nn_elu(tn_array *x, double alpha);
TN_API tn_array *tn_nn_celu(tn_array *x, double alpha);
TN_API tn_array *tn_nn_selu(tn_array *x); /* 1.0507 elu(x, 1.67326) */
/* x times the normal distribution function of x; that by a tanh; x sigmoid(1.702 x). */
TN_API tn_array *tn_nn_gelu(tn_array *x);
TN_API tn_array *tn_nn_gelu_approx(tn_array *x);
TN_API tn_array *tn_nn_gelu_fast_approx(tn_array *x);
TN_API tn_array *tn_nn_silu(tn_array *x);        /* x sigmoid(x) */
TN_API tn_array *tn_nn_mish(tn_array *x);        /* x tanh(softplus(x)) */
TN_API tn_array *tn_nn_softplus(tn_array *x);    /* log(1 + exp(x)) */
TN_API tn_array *tn_nn_softsign(tn_array *x);    /* x / (1 + |x|) */
TN_API tn_array *tn_nn_log_sigmoid(tn_array *x); /* log(sigmoid(x)) */
TN_API tn_array *tn_nn_hardswish(tn_array *x);   /* x min(max(x + 3, 0), 6) / 6 */
/* Kept between low and high; MLX: -1 and 1. */
TN_API tn_array *tn_nn_hard_tanh(tn_array *x, double low, double high);
/* x where |x| > lambda, else 0; softshrink goes lambda towards 0 as well. MLX: 0.5. */
TN_API tn_array *tn_nn_hard_shrink(tn_array *x, double lambda);
TN_API tn_array *tn_nn_softshrink(tn_array *x, double lambda);
TN_API tn_array *tn_nn_step(tn_array *x,
                            double threshold); /* i32: 1 where x >= threshold, else 0 */
/* Along an axis: softmax(-x); the logarithm of softmax(x); the first half times the sigmoid of the
 * second. */
TN_API tn_array *tn_nn_softmin(tn_array *x, int axis);
TN_API tn_array *tn_nn_log_softmax(tn_array *x, int axis);
TN_API tn_array *tn_nn_glu(tn_array *x, int axis);

/* ---- First values --------------------------------------------------------------------------
 * For weights [out, taps..., in]. Random ones take numbers of this thread's sequence; f16, bf16 or
 * f32. fan_in is in times the taps, fan_out is out times the taps; `gain` multiplies. */

/* All alike; of a mean and a deviation; evenly spread between two numbers. */
TN_API tn_array *tn_nn_init_constant(tn_ints shape, double value, tn_dtype dtype);
TN_API tn_array *tn_nn_init_normal(tn_ints shape, double mean, double std, tn_dtype dtype);
TN_API tn_array *tn_nn_init_uniform(tn_ints shape, double low, double high, tn_dtype dtype);
TN_API tn_array *tn_nn_init_identity(tn_ints shape, tn_dtype dtype); /* [n, n] */
/* Deviation gain sqrt(2 / (fan_in + fan_out)), and between -+ gain sqrt(6 / (fan_in + fan_out)). */
TN_API tn_array *tn_nn_init_glorot_normal(tn_ints shape, double gain, tn_dtype dtype);
TN_API tn_array *tn_nn_init_glorot_uniform(tn_ints shape, double gain, tn_dtype dtype);
/* With fan = fan_in or fan_out: deviation gain / sqrt(fan), and between -+ gain sqrt(3 / fan). */
TN_API tn_array *tn_nn_init_he_normal(tn_ints shape, bool fan_out, double gain, tn_dtype dtype);
TN_API tn_array *tn_nn_init_he_uniform(tn_ints shape, bool fan_out, double gain, tn_dtype dtype);
/* Normal numbers, of which the share `sparsity` of each row of [n, m] is 0. */
TN_API tn_array *tn_nn_init_sparse(tn_ints shape, double sparsity, double mean, double std,
                                   tn_dtype dtype);
/* [n, m]: rows or columns, whichever are fewer, are orthogonal and `gain` long. Computed at once,
 * in f64 on one thread: about 1 s at a size of 1024. */
TN_API tn_array *tn_nn_init_orthogonal(tn_ints shape, double gain, tn_dtype dtype);

#ifdef __cplusplus
}
#endif

#endif
