/* Learning rates as functions of the step, which is an array: a compiled function that follows a
 * schedule is compiled once. And the two ways to keep gradients small. */
#include "base/err.h"
#include "tenon/nn.h"
#include <math.h>

static tn_array *schedule_bad(const char *name, const char *what, int64_t value) {
    return tn_error_array(TN_EVALUE, "optim_%s: %s is %lld; it must be above 0", name, what,
                          (long long)value);
}

tn_array *tn_optim_exponential_decay(tn_array *step, double init, double decay_rate) {
    return tn_mul(tn_f32(init), tn_power(tn_f32(decay_rate), step));
}

tn_array *tn_optim_step_decay(tn_array *step, double init, double decay_rate, int64_t every) {
    if (every < 1) return schedule_bad("step_decay", "the number of steps", every);
    return tn_optim_exponential_decay(tn_floor_divide(step, tn_i32(every)), init, decay_rate);
}

tn_array *tn_optim_cosine_decay(tn_array *step, double init, int64_t steps, double end) {
    if (steps < 1) return schedule_bad("cosine_decay", "the number of steps", steps);
    const double pi = 3.14159265358979323846;
    tn_array *angle = tn_mul(tn_f32(pi / (double)steps), tn_minimum(step, tn_i32(steps)));
    tn_array *decay = tn_mul(tn_f32(0.5), tn_add(tn_f32(1), tn_cos(angle)));
    return tn_add(tn_f32(end), tn_mul(decay, tn_f32(init - end)));
}

tn_array *tn_optim_linear_schedule(tn_array *step, double init, double end, int64_t steps) {
    if (steps < 1) return schedule_bad("linear_schedule", "the number of steps", steps);
    tn_array *done = tn_minimum(step, tn_i32(steps));
    return tn_add(tn_mul(done, tn_f32((end - init) / (double)steps)), tn_f32(init));
}

tn_array *tn_optim_join_schedules(tn_array *step, tn_list rates, tn_ints boundaries) {
    if (rates.n < 1 || rates.n != boundaries.n + 1)
        return tn_error_array(TN_EVALUE,
                              "optim_join_schedules: %d rates with %d boundaries; one more rate "
                              "than boundaries is needed",
                              rates.n, boundaries.n);
    tn_array *rate = rates.v[0];
    for (int i = 0; i < boundaries.n; i++)
        rate = tn_where(tn_less(step, tn_i32(boundaries.v[i])), rate, rates.v[i + 1]);
    return rate;
}

/* ---- clipping ---- */

static tn_array *schedule_square_sum(tn_array *g) {
    tn_dtype d = tn_dtype_of(g);
    if (d == TN_F16 || d == TN_BF16) g = tn_astype(g, TN_F32);
    return tn_sum(tn_square(g), TN_ALL, false);
}

/* The first of the gradients that is none. */
static tn_array *schedule_failed(tn_array *const *grads, int n) {
    for (int i = 0; i < n; i++) {
        if (!grads[i]) return tn_error_array(TN_EVALUE, "gradient %d is NULL", i);
        if (tn_array_status(grads[i])) return grads[i];
    }
    return NULL;
}

tn_array *tn_nn_clip_grad_norm(tn_array **grads, int n, double max_norm) {
    tn_array *bad = schedule_failed(grads, n);
    if (!bad && !(max_norm >= 0))
        bad = tn_error_array(TN_EVALUE, "nn_clip_grad_norm: max_norm is %g; it must not be below 0",
                             max_norm);
    for (int i = 0; i < n && bad; i++) grads[i] = bad;
    if (bad) return bad;
    tn_array *sum = tn_scalar(0, TN_F32);
    for (int i = 0; i < n; i++) sum = tn_add(sum, schedule_square_sum(grads[i]));
    tn_array *norm = tn_sqrt(sum);
    tn_array *scale = tn_minimum(tn_div(tn_f32(max_norm), tn_add(norm, tn_f32(1e-6))), tn_f32(1));
    for (int i = 0; i < n; i++)
        grads[i] = tn_astype(tn_mul(grads[i], scale), tn_dtype_of(grads[i]));
    return norm;
}

int tn_nn_clip_grad_value(tn_array **grads, int n, double limit) {
    tn_array *bad = schedule_failed(grads, n);
    if (!bad && !(limit >= 0))
        return tni_fail(TN_EVALUE, "nn_clip_grad_value: limit is %g; it must not be below 0",
                        limit);
    for (int i = 0; i < n && !bad; i++) {
        grads[i] = tn_clip(grads[i], tn_f32(-limit), tn_f32(limit));
        if (tn_array_status(grads[i])) bad = grads[i];
    }
    return bad ? tni_fail(tn_array_status(bad), "%s", tn_array_error(bad)) : 0;
}
