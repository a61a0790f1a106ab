/* Functions of one array x [B, T, D] f32, D even, that read its sizes: for tests that run them for
 * sizes other than those they were traced with. With cases of their gradients they use every
 * structural primitive. */
#ifndef TESTS_FREE_CASES_H
#define TESTS_FREE_CASES_H

#include "cases.h"

enum { LONGEST = 12 };

static inline tn_array *
open_causal(tn_array *x) { /* [B, T, D]: attention under a mask made of ranges */
    int64_t b = tn_dim(x, 0), t = tn_dim(x, 1), d = tn_dim(x, 2);
    tn_array *h = tn_reshape(x, TN_SHAPE(b, t, 2, d / 2)), *r = tn_arange(0, (double)t, 1, TN_I32);
    tn_array *mask = tn_greater_equal(tn_expand_dims(r, TN_AXES(1)), r);
    h = tn_transpose(h, TN_AXES(0, 2, 1, 3));
    h = tn_fast_scaled_dot_product_attention(h, h, h, 0.5, TN_OPT(tn_sdpa_opt, .mask = mask));
    return tn_reshape(tn_transpose(h, TN_AXES(0, 2, 1, 3)), TN_SHAPE(b, t, d));
}
static inline tn_array *open_image(tn_array *x) { /* [B, T, D, 1] */
    return tn_reshape(x, TN_SHAPE(tn_dim(x, 0), tn_dim(x, 1), tn_dim(x, 2), 1));
}
static inline tn_array *open_rope(tn_array *x) {
    tn_array *from = tn_scalar_i64(2, TN_I32);
    return tn_fast_rope(x, 4, from, NULL);
}
static inline tn_array *open_last(tn_array *x) { /* what follows each place, rotated by one */
    int64_t t = tn_dim(x, 1);
    return tn_concatenate(TN_LIST(tn_slice_axis(x, 1, 1, t), tn_slice_axis(x, 1, 0, 1)), 1);
}
static inline tn_array *open_tokens(tn_array *x) { /* a table looked up by the order of values */
    tn_array *order = tn_argsort(x, 1), *table = tn_arange(0, LONGEST, 1, TN_F32);
    return tn_add(tn_take(table, order, 0), tn_take_along_axis(x, order, 1));
}

static inline tn_array *open_wide(tn_array *x) {
    return tn_tile(x, TN_INTS(1, 1, 8));
} /* [B, T, 32] */
static inline tn_array *open_quantized(tn_array *x) {
    tn_array *q[3];
    tn_quantize(tn_ones(TN_SHAPE(6, 32), TN_F32), 32, 4, q);
    return tn_quantized_matmul(open_wide(x), q[0], q[1], q[2], true, 32, 4);
}
static inline tn_array *open_dequantized(tn_array *x) {
    tn_array *q[3];
    tn_quantize(open_wide(x), 32, 4, q);
    return tn_dequantize(q[0], q[1], q[2], 32, 4);
}

#define FREE_CASES(X)                                                                              \
    X(elementwise, tn_mul(tn_exp(x), tn_add(x, tn_f32(2))))                                        \
    X(flat, tn_reshape(x, TN_SHAPE(-1)))                                                           \
    X(merged, tn_reshape(x, TN_SHAPE(tn_dim(x, 0) * tn_dim(x, 1), tn_dim(x, 2))))                  \
    X(turned, tn_reshape(tn_transpose(x, TN_AXES(2, 1, 0)), TN_SHAPE(tn_dim(x, 2), -1)))           \
    X(means, tn_add(tn_mean(x, TN_AXES(1), true), tn_mean(x, TN_ALL, true)))                       \
    X(variance, tn_var(x, TN_AXES(0, 1), true, 1))                                                 \
    X(softmax, tn_softmax(x, TN_AXES(1)))                                                          \
    X(softmax_last, tn_softmax(x, TN_AXES(-1)))                                                    \
    X(logsumexp, tn_logsumexp(x, TN_AXES(0, 1), false))                                            \
    X(matmul, tn_matmul(x, tn_swapaxes(x, 1, 2)))                                                  \
    X(flattened_matmul, tn_matmul(x, tn_ones(TN_SHAPE(tn_dim(x, 2), 3), TN_F32)))                  \
    X(attention, open_causal(x))                                                                   \
    X(causal, tn_fast_scaled_dot_product_attention(                                                \
                  tn_expand_dims(x, TN_AXES(1)), tn_expand_dims(x, TN_AXES(1)),                    \
                  tn_expand_dims(x, TN_AXES(1)), 0.3, TN_OPT(tn_sdpa_opt, .causal = true)))        \
    X(rope, open_rope(x))                                                                          \
    X(shift, open_last(x))                                                                         \
    X(back, tn_flip(x, TN_AXES(1)))                                                                \
    X(padded, tn_pad(x, TN_INTS(0, 1, 0), TN_INTS(0, 2, 0), tn_f32(7)))                            \
    X(split, tn_add(tn_slice_axis(x, 2, 0, tn_dim(x, 2) / 2),                                      \
                    tn_slice_axis(x, 2, tn_dim(x, 2) / 2, tn_dim(x, 2))))                          \
    X(tiled, tn_tile(x, TN_INTS(1, 2, 1)))                                                         \
    X(repeated, tn_repeat(x, 3, 1))                                                                \
    X(scan, tn_cumsum(x, 1, true, false))                                                          \
    X(sorted, tn_sort(x, 1))                                                                       \
    X(tokens, open_tokens(x))                                                                      \
    X(places, tn_add(tn_linspace(0, 1, tn_dim(x, 1), TN_F32), tn_swapaxes(x, 1, 2)))               \
    X(triangle, tn_tril(tn_matmul(x, tn_swapaxes(x, 1, 2)), 0))                                    \
    X(scaled, tn_mul(x, tn_f32((double)tn_dim(x, 1))))                                             \
    X(updated, tn_slice_update(x, tn_neg(tn_slice_axis(x, 1, 0, 1)),                               \
                               TN_INTS(0, tn_dim(x, 1) - 1, 0), TN_ALL))                           \
    X(conv_two, tn_conv1d(x, tn_ones(TN_SHAPE(5, 3, 4), TN_F32),                                   \
                          TN_OPT(tn_conv_opt, .stride = TN_SPATIAL(2), .padding = TN_SPATIAL(1)))) \
    X(conv, tn_conv1d(x, tn_mul(tn_ones(TN_SHAPE(5, 3, 4), TN_F32), tn_mean(x, TN_ALL, false)),    \
                      TN_OPT(tn_conv_opt, .padding = TN_SPATIAL(1))))                              \
    X(conv_flat,                                                                                   \
      tn_flatten(tn_conv2d(open_image(x), tn_ones(TN_SHAPE(2, 2, 2, 1), TN_F32), NULL), 1, -1))    \
    X(pool, tn_avg_pool(open_image(x), TN_SPATIAL(2), TN_SPATIAL(1), TN_SPATIAL(0)))               \
    X(norms, tn_fast_layer_norm(tn_fast_rms_norm(x, NULL, 1e-5), NULL, NULL, 1e-5))                \
    X(dropout, tn_where(tn_random_bernoulli(tn_f32(0.5), tn_shape(x), NULL), x, tn_f32(0)))        \
    X(gather,                                                                                      \
      tn_gather(x, TN_LIST(CASE_INTS(1, 0)), TN_AXES(0), TN_SHAPE(1, tn_dim(x, 1), tn_dim(x, 2)))) \
    X(scatter,                                                                                     \
      tn_scatter_add(x, TN_LIST(CASE_INTS(1, 1)),                                                  \
                     tn_ones(TN_SHAPE(2, 1, tn_dim(x, 1), tn_dim(x, 2)), TN_F32), TN_AXES(0)))     \
    X(view, tn_astype(tn_view(tn_contiguous(tn_swapaxes(x, 0, 1)), TN_U8), TN_F32))                \
    X(quantized, open_quantized(x))                                                                \
    X(dequantized, open_dequantized(x))                                                            \
    X(put, tn_put_along_axis(x, tn_argsort(x, 1), tn_neg(x), 1))                                   \
    X(custom, tn_mul(tn_stop_gradient(x), x))

typedef tn_array *(*free_fn)(tn_array *x);
#define X(name, ...)                                                                               \
    static inline tn_array *free_##name(tn_array *x) { return __VA_ARGS__; }
FREE_CASES(X)
#undef X
static const struct {
    const char *name;
    free_fn fn;
} free_cases[] = {
#define X(name, ...) {#name, free_##name},
    FREE_CASES(X)
#undef X
};
enum { FREE_COUNT = sizeof free_cases / sizeof *free_cases };

static inline int free_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    free_fn fn = free_cases[*(int *)ud].fn;
    (void)n_out;
    out[0] = fn(in.v[0]);
    return 0;
}
static inline tn_array *free_loss(tn_list in, void *ud) {
    tn_array *y = free_cases[*(int *)ud].fn(in.v[0]);
    return tn_mean(tn_mul(y, tn_sin(y)), TN_ALL, false);
}
static inline int free_grad(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    tn_value_and_grad(free_loss, ud, in, 1, &out[0], &out[1]);
    return tn_array_status(out[0]);
}
static inline int free_loss_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = free_loss(in, ud);
    return 0;
}

static inline tn_array *cube_of(int64_t b, int64_t t, int64_t d) {
    return tn_random_normal(TN_SHAPE(b, t, d), TN_F32, tn_random_key((uint64_t)(b * t * d)));
}

#endif
