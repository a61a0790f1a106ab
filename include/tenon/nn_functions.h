/* Functions of networks that hold no parameters: losses, activations, first values. Formulas and
 * names are those of mlx.nn; all are made of ops, so they fuse and differentiate as ops do. */
#ifndef TENON_NN_FUNCTIONS_H
#define TENON_NN_FUNCTIONS_H

#include "tenon/nn.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Losses
 * -------------------------------------------------------------------------------------- One number
 * an example, or their mean or sum (an f32 scalar for f32). Floats; shapes that must be the same
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
 * shaped as logits. Nothing as big as the logits is made; their gradient is one pass. */
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

#ifdef __cplusplus
}
#endif

#endif
