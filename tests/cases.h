/* Functions of one array x [4, 6] f32 that between them use every structural primitive: for tests
 * that compare two ways to run the same graph. case_all_seen says whether one is missing. */
#ifndef TESTS_CASES_H
#define TESTS_CASES_H

#include "core/array.h"
#include "ops/op.h"
#include "tenon/tenon.h"
#include <string.h>

static inline tn_array *case_ints(int64_t n, const int32_t *v) {
    return tn_array_new(v, TN_I32, TN_SHAPE(n));
}
#define CASE_INTS(...) case_ints(sizeof((int32_t[]){__VA_ARGS__}) / 4, (int32_t[]){__VA_ARGS__})

static inline tn_array *case_heads(tn_array *x) { return tn_reshape(x, TN_SHAPE(1, 4, 2, 3)); }
static inline tn_array *case_image(tn_array *x) { return tn_reshape(x, TN_SHAPE(1, 4, 3, 2)); }
static inline tn_array *case_wide(tn_array *x) { /* [4, 64] */
    return tn_slice_axis(tn_tile(x, TN_INTS(1, 11)), 1, 0, 64);
}
static inline tn_array *case_dequantized(tn_array *x) {
    tn_array *q[3];
    tn_quantize(case_wide(x), 32, 4, q);
    return tn_dequantize(q[0], q[1], q[2], 32, 4);
}
static inline tn_array *case_quantized(tn_array *x) {
    tn_array *q[3];
    tn_quantize(case_wide(x), 32, 4, q);
    return tn_quantized_matmul(case_wide(x), q[0], q[1], q[2], true, 32, 4);
}
static inline tn_array *case_masked(tn_array *x) {
    tn_array *h = case_heads(x), *mask = tn_greater(tn_matmul(h, tn_swapaxes(h, 2, 3)), tn_f32(0));
    return tn_fast_scaled_dot_product_attention(h, h, h, 0.7, TN_OPT(tn_sdpa_opt, .mask = mask));
}
static inline int case_masked_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)ud, (void)n_out;
    out[0] = case_masked(in.v[0]);
    return 0;
}
static inline tn_array *case_masked_grad(tn_array *x) {
    tn_array *y, *g;
    (void)tn_vjp(case_masked_fns, NULL, TN_LIST(x), TN_LIST(case_heads(tn_square(x))), &y, &g);
    return g;
}
static inline int case_pool_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)ud, (void)n_out;
    out[0] = tn_max_pool(in.v[0], TN_SPATIAL(2), TN_SPATIAL(1), TN_SPATIAL(1));
    return 0;
}
static inline tn_array *case_pool_grad(tn_array *x) {
    tn_array *y, *g, *h = tn_add(case_image(x), tn_f32(0.125));
    y = tn_max_pool(h, TN_SPATIAL(2), TN_SPATIAL(1), TN_SPATIAL(1));
    (void)tn_vjp(case_pool_fns, NULL, TN_LIST(h), TN_LIST(tn_square(y)), &y, &g);
    return g;
}
static inline int case_norm_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)ud, (void)n_out;
    out[0] = tn_fast_rms_norm(in.v[0], in.v[1], 1e-3);
    return 0;
}
static inline tn_array *case_norm_grad(tn_array *x) {
    tn_array *y, *g[2], *w = tn_sum(x, TN_AXES(0), false);
    (void)tn_vjp(case_norm_fns, NULL, TN_LIST(x, w), TN_LIST(tn_square(x)), &y, g);
    return tn_add(g[0], g[1]);
}
static inline tn_array *case_update(tn_array *x) {
    return tn_slice_update(tn_neg(x), tn_sum(x, TN_AXES(0), true), TN_INTS(1, 0), TN_ALL);
}
static inline tn_array *case_conv(tn_array *x) {
    tn_array *w = tn_reshape(tn_slice_axis(x, 0, 0, 2), TN_SHAPE(3, 2, 1, 2));
    return tn_conv2d(case_image(x), w, TN_OPT(tn_conv_opt, .padding = TN_SPATIAL(1)));
}
static inline int case_conv_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)ud, (void)n_out;
    out[0] = tn_conv2d(in.v[0], in.v[1], NULL);
    return 0;
}
static inline tn_array *case_conv_weight(tn_array *x) {
    tn_array *w = tn_reshape(tn_slice_axis(x, 0, 0, 2), TN_SHAPE(3, 2, 1, 2)), *y, *g[2];
    tn_array *cot = tn_slice(tn_tile(case_image(x), TN_INTS(1, 1, 1, 2)), TN_INTS(0, 0, 0, 0),
                             TN_INTS(1, 3, 3, 3), TN_ALL);
    (void)tn_vjp(case_conv_fns, NULL, TN_LIST(case_image(x), w), TN_LIST(cot), &y, g);
    return g[1];
}
static inline tn_array *case_gather(tn_array *x) {
    return tn_gather(x, TN_LIST(CASE_INTS(0, 2, -1), CASE_INTS(1, 0, 3)), TN_AXES(0, 1),
                     TN_INTS(1, 2));
}
static inline tn_array *case_scatter(tn_array *x) {
    tn_array *u = tn_reshape(tn_slice_axis(x, 1, 0, 3), TN_SHAPE(2, 1, 6));
    return tn_scatter_add(x, TN_LIST(CASE_INTS(1, 1)), u, TN_AXES(0));
}

#define CASES(X)                                                                                   \
    X(reshape, tn_reshape(tn_mul(x, x), TN_SHAPE(3, 8)))                                           \
    X(transpose, tn_transpose(tn_exp(x), TN_AXES(1, 0)))                                           \
    X(slice, tn_slice(tn_sin(x), TN_INTS(0, 5), TN_INTS(4, 0), TN_INTS(2, -2)))                    \
    X(broadcast_to,                                                                                \
      tn_mul(tn_broadcast_to(tn_sum(x, TN_AXES(0), false), TN_SHAPE(2, 6)), tn_f32(3)))            \
    X(view, tn_view(tn_add(x, x), TN_I32))                                                         \
    X(astype, tn_astype(x, TN_BF16))                                                               \
    X(contiguous, tn_contiguous(tn_swapaxes(x, 0, 1)))                                             \
    X(concatenate, tn_concatenate(TN_LIST(x, tn_neg(x), x), 1))                                    \
    X(slice_update, case_update(x))                                                                \
    X(arange, tn_mul(tn_arange(0, 6, 1, TN_F32), x))                                               \
    X(take, tn_take(x, CASE_INTS(1, -1, 0, 2), 0))                                                 \
    X(matmul, tn_matmul(x, tn_swapaxes(x, 0, 1)))                                                  \
    X(dequantize, case_dequantized(x))                                                             \
    X(quantized_matmul, case_quantized(x))                                                         \
    X(softmax, tn_softmax(x, TN_AXES(1)))                                                          \
    X(rms_norm, tn_fast_rms_norm(x, tn_mean(x, TN_AXES(0), false), 1e-5))                          \
    X(layer_norm, tn_fast_layer_norm(x, NULL, tn_mean(x, TN_AXES(0), false), 1e-5))                \
    X(rope, tn_fast_rope(tn_reshape(x, TN_SHAPE(1, 4, 6)), 6, tn_scalar_i64(3, TN_I32), NULL))     \
    X(sdpa, tn_fast_scaled_dot_product_attention(case_heads(x), case_heads(x), case_heads(x), 0.7, \
                                                 TN_OPT(tn_sdpa_opt, .causal = true)))             \
    X(sdpa_mask, case_masked(x))                                                                   \
    X(sdpa_vjp, case_masked_grad(x))                                                               \
    X(random_bits,                                                                                 \
      tn_random_bits(                                                                              \
          TN_SHAPE(5), 2,                                                                          \
          tn_reshape(tn_view(tn_slice(x, TN_INTS(0, 0), TN_INTS(1, 2), TN_ALL), TN_U32),           \
                     TN_SHAPE(2))))                                                                \
    X(sort, tn_sort(x, 0))                                                                         \
    X(argsort, tn_argsort(x, 1))                                                                   \
    X(scan, tn_cumsum(x, 1, true, false))                                                          \
    X(gather, case_gather(x))                                                                      \
    X(gather_axis, tn_take_along_axis(x, tn_argsort(x, 1), 1))                                     \
    X(scatter, case_scatter(x))                                                                    \
    X(scatter_axis, tn_put_along_axis(x, tn_argsort(x, 1), tn_neg(x), 1))                          \
    X(conv, case_conv(x))                                                                          \
    X(conv_weight, case_conv_weight(x))                                                            \
    X(pool, tn_max_pool(case_image(x), TN_SPATIAL(2), TN_SPATIAL(1), TN_SPATIAL(0)))               \
    X(norm_vjp, case_norm_grad(x))                                                                 \
    X(pool_vjp, case_pool_grad(x))                                                                 \
    X(custom, tn_mul(tn_stop_gradient(x), x))                                                      \
    X(var, tn_var(x, TN_AXES(1), true, 1))                                                         \
    X(categorical, tn_random_categorical(x, 1, tn_random_key(5)))

enum {
#define X(name, expr) CASE_##name,
    CASES(X)
#undef X
        CASE_COUNT
};

static inline const char *case_name(int which) {
    static const char *const names[] = {
#define X(name, expr) #name,
        CASES(X)
#undef X
    };
    return names[which];
}

static inline tn_array *case_call(int which, tn_array *x) {
    switch (which) {
#define X(name, expr)                                                                              \
    case CASE_##name:                                                                              \
        return expr;
        CASES(X)
#undef X
    default:
        return NULL;
    }
}

/* The same as a tn_fns; ud: an int, the case. */
static inline int case_fns(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = case_call(*(int *)ud, in.v[0]);
    return 0;
}

/* Numbers without ties, of either sign. */
static inline tn_array *case_input(void) {
    float v[24];
    for (int i = 0; i < 24; i++) v[i] = (float)((i * 7) % 24) / 8.0f - 1.3f;
    return tn_array_new(v, TN_F32, TN_SHAPE(4, 6));
}

static inline void case_mark(const tn_array *a, bool *seen) {
    if (tni_state_of(a) != TNI_LAZY) return;
    seen[a->node->prim->id] = true;
    for (int i = 0; i < a->node->n_in; i++) case_mark(a->node->in[i], seen);
}

/* The first structural primitive that no case uses; NULL: none is missing. */
static inline const char *case_missing(void) {
    bool seen[TNI_OP_COUNT] = {false};
    for (int k = 0; k < CASE_COUNT; k++)
        TN_SCOPE {
            case_mark(case_call(k, case_input()), seen);
        }
    for (int id = 0; id < TNI_OP_EW; id++)
        if (!seen[id]) return tni_prims[id].name;
    return NULL;
}

/* A number that depends on every element of the case's result, and its gradient. */
static inline tn_array *case_loss(tn_list in, void *k) {
    tn_array *y = tn_astype(case_call(*(int *)k, in.v[0]), TN_F32);
    return tn_sum(tn_mul(y, tn_sin(y)), TN_ALL, false);
}

static inline int case_grad(tn_list in, tn_array **out, int n_out, void *k) {
    (void)n_out;
    tn_value_and_grad(case_loss, k, in, 1, &out[0], &out[1]);
    return 0;
}

#endif
