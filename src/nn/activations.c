/* Activations: mlx.nn's formulas in Tenon's ops, rearranged only where a gradient would be NaN for
 * large numbers. Where operands of a minimum or maximum tie, the second gets the gradient. */
#include "base/err.h"
#include "tenon/nn.h"
#include <math.h>

static tn_array *act_times(double a, tn_array *x) { return tn_mul(tn_f32(a), x); }

tn_array *tn_nn_relu(tn_array *x) { return tn_maximum(x, tn_f32(0)); }
tn_array *tn_nn_relu2(tn_array *x) { return tn_square(tn_nn_relu(x)); }
tn_array *tn_nn_relu6(tn_array *x) { return tn_minimum(tn_nn_relu(x), tn_f32(6)); }
tn_array *tn_nn_leaky_relu(tn_array *x, double slope) { return tn_maximum(act_times(slope, x), x); }

tn_array *tn_nn_prelu(tn_array *x, tn_array *alpha) {
    return tn_add(tn_maximum(tn_f32(0), x), tn_mul(alpha, tn_minimum(tn_f32(0), x)));
}

/* exp(x) - 1 below 0, where alone it is wanted: above, its gradient may be infinite */
tn_array *tn_nn_elu(tn_array *x, double alpha) {
    tn_array *low = tn_expm1(tn_minimum(tn_f32(0), x));
    return tn_where(tn_greater(x, tn_f32(0)), x, act_times(alpha, low));
}

tn_array *tn_nn_celu(tn_array *x, double alpha) {
    if (alpha == 0) return tn_error_array(TN_EVALUE, "celu: alpha of 0");
    tn_array *low = tn_expm1(tn_div(tn_minimum(x, tn_f32(0)), tn_f32(alpha)));
    return tn_add(tn_maximum(x, tn_f32(0)), act_times(alpha, low));
}

tn_array *tn_nn_selu(tn_array *x) { return act_times(1.0507, tn_nn_elu(x, 1.67326)); }

tn_array *tn_nn_gelu(tn_array *x) {
    tn_array *twice = tn_add(tn_f32(1), tn_erf(tn_div(x, tn_f32(M_SQRT2))));
    return tn_div(tn_mul(x, twice), tn_f32(2));
}

/* Hendrycks and Gimpel, "Gaussian error linear units" (2016): both approximations. */
tn_array *tn_nn_gelu_approx(tn_array *x) {
    tn_array *cube = tn_mul(tn_square(x), x);
    tn_array *inner = act_times(sqrt(2 / M_PI), tn_add(x, act_times(0.044715, cube)));
    return tn_mul(act_times(0.5, x), tn_add(tn_f32(1), tn_tanh(inner)));
}

tn_array *tn_nn_gelu_fast_approx(tn_array *x) { return tn_mul(x, tn_sigmoid(act_times(1.702, x))); }
tn_array *tn_nn_silu(tn_array *x) { return tn_mul(x, tn_sigmoid(x)); }
tn_array *tn_nn_mish(tn_array *x) { return tn_mul(x, tn_tanh(tn_nn_softplus(x))); }
tn_array *tn_nn_softplus(tn_array *x) { return tn_logaddexp(x, tn_f32(0)); }
tn_array *tn_nn_softsign(tn_array *x) { return tn_div(x, tn_add(tn_f32(1), tn_abs(x))); }
tn_array *tn_nn_log_sigmoid(tn_array *x) { return tn_neg(tn_nn_softplus(tn_neg(x))); }

tn_array *tn_nn_hardswish(tn_array *x) {
    return tn_div(tn_mul(x, tn_nn_relu6(tn_add(x, tn_f32(3)))), tn_f32(6));
}

tn_array *tn_nn_hard_tanh(tn_array *x, double low, double high) {
    return tn_minimum(tn_maximum(x, tn_f32(low)), tn_f32(high));
}

static tn_array *act_shrink(tn_array *x, double lambda, tn_array *kept) {
    return tn_where(tn_greater(tn_abs(x), tn_f32(lambda)), kept, tn_f32(0));
}

tn_array *tn_nn_hard_shrink(tn_array *x, double lambda) { return act_shrink(x, lambda, x); }

tn_array *tn_nn_softshrink(tn_array *x, double lambda) {
    return act_shrink(x, lambda, tn_sub(x, act_times(lambda, tn_sign(x))));
}

tn_array *tn_nn_step(tn_array *x, double threshold) {
    return tn_where(tn_greater_equal(x, tn_f32(threshold)), tn_i32(1), tn_i32(0));
}

/* ---- along an axis ---- */

tn_array *tn_nn_softmin(tn_array *x, int axis) { return tn_softmax(tn_neg(x), TN_AXES(axis)); }

/* Shifted first: the logarithm of a sum is small then, and nothing of it is rounded away. */
tn_array *tn_nn_log_softmax(tn_array *x, int axis) {
    tn_array *y = tn_sub(x, tn_stop_gradient(tn_max(x, TN_AXES(axis), true)));
    return tn_sub(y, tn_logsumexp(y, TN_AXES(axis), true));
}

tn_array *tn_nn_glu(tn_array *x, int axis) {
    tn_array *half[2];
    if (!tn_array_status(x) && tn_dim(x, axis) % 2)
        return tn_error_array(TN_ESHAPE, "glu: axis %d has %lld places, which have no halves", axis,
                              (long long)tn_dim(x, axis));
    tn_split(x, 2, axis, half);
    return tn_mul(half[0], tn_sigmoid(half[1]));
}
