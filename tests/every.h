/* One call at least of every primitive, for tests that must leave none out: small arguments and a
 * function of them. Index arguments hold valid indices; everything else numbers around 0. */
#ifndef TESTS_EVERY_H
#define TESTS_EVERY_H

#include "ops/build.h"
#include "random.h"
#include "rows.h"
#include "tap.h"
#include "tenon/tenon.h"

enum { EVERY_IN = 5 };

typedef struct every_arg {
    tn_dtype dtype;
    int64_t below; /* integers of 0 to below - 1; 0: numbers */
    int ndim;
    int64_t shape[5];
} every_arg;

typedef struct every_case {
    char name[64];
    int n_in, n_out;
    every_arg in[EVERY_IN];
    int (*fn)(tn_list in, tn_array **out, int n_out, void *ud); /* ud: the case */
    int row, mask, keep;                                        /* of the generated ones */
} every_case;

/* Lazy where it must be converted; the same for the same case, `salt` apart. */
static tn_array *every_input(const every_arg *a, uint64_t salt) {
    float v[4096];
    int64_t n = 1;
    for (int i = 0; i < a->ndim; i++) n *= a->shape[i];
    rng_state = 77 + salt * 1000003;
    for (int64_t i = 0; i < n && i < 4096; i++)
        v[i] = a->below ? (float)below(a->below) : (float)(below(4001) - 2000) / 1000;
    return tn_astype(tn_array_new(v, TN_F32, (tn_ints){a->shape, a->ndim}), a->dtype);
}

static inline void every_inputs(const every_case *c, tn_array **in, uint64_t salt) {
    for (int i = 0; i < c->n_in; i++) in[i] = every_input(&c->in[i], salt + (uint64_t)i);
}

/* ---- structural primitives, by hand ---- */

#define A(dtype, ...)                                                                              \
    {                                                                                              \
        TN_##dtype, 0, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), { __VA_ARGS__ }                \
    }
#define INDEX(dtype, below, ...)                                                                   \
    {                                                                                              \
        TN_##dtype, below, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), { __VA_ARGS__ }            \
    }
#define NUMBER(dtype, below)                                                                       \
    {                                                                                              \
        TN_##dtype, below, 0, { 0 }                                                                \
    }
#define ARGS(...)                                                                                  \
    { __VA_ARGS__ }

/* EVERY(name, ARGS(arguments), n_in, n_out, statements that set y[0 ..] from x[0 ..]) */
/* clang-format off */
#define EVERY_LIST(EVERY) \
EVERY(reshape, ARGS(A(F32, 3, 4)), 1, 1, y[0] = tn_reshape(x[0], TN_SHAPE(2, 6))) \
EVERY(flatten, ARGS(A(F32, 3, 4, 2)), 1, 1, y[0] = tn_flatten(x[0], 0, 1)) \
EVERY(transpose, ARGS(A(F16, 3, 4, 2)), 1, 1, y[0] = tn_transpose(x[0], TN_AXES(1, 2, 0))) \
EVERY(slice, ARGS(A(F32, 5, 6)), 1, 1, y[0] = tn_slice(x[0], TN_INTS(1, 5), TN_INTS(4, 0), TN_INTS(1, -2))) \
EVERY(slice_one, ARGS(A(F32, 5, 6)), 1, 1, y[0] = tn_slice(x[0], TN_INTS(1, 5), TN_INTS(4, 0), TN_INTS(INT64_MAX, -INT64_MAX))) \
EVERY(slice_update_one, ARGS(A(F32, 5, 6), A(F32, 1, 1)), 2, 1, y[0] = tn_slice_update(x[0], x[1], TN_INTS(1, 5), TN_INTS(INT64_MAX, -INT64_MAX))) \
EVERY(slice_empty, ARGS(A(F32, 5, 6)), 1, 1, y[0] = tn_slice_axis(x[0], 0, 3, 3)) \
EVERY(flip, ARGS(A(I32, 5, 3)), 1, 1, y[0] = tn_flip(x[0], TN_AXES(0))) \
EVERY(broadcast_to, ARGS(A(F32, 3, 1)), 1, 1, y[0] = tn_broadcast_to(x[0], TN_SHAPE(2, 3, 4))) \
EVERY(view_narrow, ARGS(A(F32, 3, 4)), 1, 1, y[0] = tn_view(x[0], TN_U8)) \
EVERY(view_wide, ARGS(A(F16, 3, 4)), 1, 1, y[0] = tn_view(x[0], TN_U64)) \
EVERY(astype, ARGS(A(F32, 3, 4)), 1, 1, y[0] = tn_astype(x[0], TN_I16)) \
EVERY(contiguous, ARGS(A(F32, 3, 4)), 1, 1, y[0] = tn_contiguous(tn_swapaxes(x[0], 0, 1))) \
EVERY(concatenate, ARGS(A(F32, 3, 4), A(F16, 2, 4), A(I32, 1, 4)), 3, 1, y[0] = tn_concatenate(TN_LIST(x[0], x[1], x[2], x[0]), 0)) \
EVERY(slice_update, ARGS(A(F32, 5, 6), A(F32, 2, 3)), 2, 1, y[0] = tn_slice_update(x[0], x[1], TN_INTS(1, 5), TN_INTS(2, -2))) \
EVERY(pad, ARGS(A(F32, 3, 4)), 1, 1, y[0] = tn_pad(x[0], TN_INTS(1, 0), TN_INTS(0, 2), tn_f32(7))) \
EVERY(arange, ARGS(A(F32, 5)), 1, 2, y[0] = tn_add(x[0], tn_arange(1, 11, 2, TN_F32)); y[1] = tn_arange(5, 0, -1, TN_I64)) \
EVERY(take, ARGS(A(F32, 5, 6), INDEX(I64, 6, 2, 3)), 2, 1, y[0] = tn_take(x[0], x[1], 1)) \
EVERY(matmul, ARGS(A(F32, 2, 3, 4), A(F32, 4, 5)), 2, 1, y[0] = tn_matmul(x[0], x[1])) \
EVERY(matmul_mixed, ARGS(A(BF16, 2, 3, 4), A(F32, 2, 4, 2)), 2, 1, y[0] = tn_matmul(x[0], x[1])) \
EVERY(matmul_complex, ARGS(A(C64, 3, 4), A(F32, 4)), 2, 1, y[0] = tn_matmul(x[0], x[1])) \
EVERY(matmul_halves, ARGS(A(F16, 2, 3, 4), A(BF16, 4, 2)), 2, 1, y[0] = tn_matmul(x[0], x[1])) \
EVERY(quantize, ARGS(A(F32, 3, 64)), 1, 3, tn_quantize(x[0], 32, 4, y)) \
EVERY(dequantize, ARGS(INDEX(U32, 999, 3, 12), A(F16, 3, 2), A(F16, 3, 2)), 3, 1, y[0] = tn_dequantize(x[0], x[1], x[2], 32, 6)) \
EVERY(quantized_matmul, ARGS(A(F32, 2, 64), INDEX(U32, 999, 5, 16), A(F32, 5, 1), A(F32, 5, 1)), 4, 1, y[0] = tn_quantized_matmul(x[0], x[1], x[2], x[3], true, 64, 8)) \
EVERY(quantized_matmul_rows, ARGS(A(F16, 5), INDEX(U32, 999, 5, 4), A(F16, 5, 2), A(F16, 5, 2)), 4, 1, y[0] = tn_quantized_matmul(x[0], x[1], x[2], x[3], false, 32, 2)) \
EVERY(quantized_matmul_half, ARGS(A(BF16, 2, 3, 32), INDEX(U32, 999, 7, 4), A(BF16, 7, 1), A(BF16, 7, 1)), 4, 1, y[0] = tn_quantized_matmul(x[0], x[1], x[2], x[3], true, 32, 4)) \
EVERY(quantized_matmul_batch, ARGS(A(F32, 2, 3, 4), INDEX(U32, 999, 2, 4, 8), A(F32, 2, 4, 1), A(F32, 2, 4, 1)), 4, 1, y[0] = tn_quantized_matmul(x[0], x[1], x[2], x[3], false, 64, 4)) \
EVERY(quantized_matmul_spread, ARGS(A(F32, 2, 1, 3, 32), INDEX(U32, 999, 3, 4, 4), A(F32, 3, 4, 1), A(F32, 3, 4, 1)), 4, 1, y[0] = tn_quantized_matmul(x[0], x[1], x[2], x[3], true, 32, 4)) \
EVERY(softmax, ARGS(A(BF16, 3, 4)), 1, 1, y[0] = tn_softmax(x[0], TN_AXES(-1))) \
EVERY(rms_norm, ARGS(A(F32, 3, 8), A(F32, 8)), 2, 1, y[0] = tn_fast_rms_norm(x[0], x[1], 1e-5)) \
EVERY(rms_norm_bare, ARGS(A(F16, 3, 8)), 1, 1, y[0] = tn_fast_rms_norm(x[0], NULL, 1e-5)) \
EVERY(layer_norm, ARGS(A(F32, 3, 8), A(F32, 8), A(F32, 8)), 3, 1, y[0] = tn_fast_layer_norm(x[0], x[1], x[2], 1e-5)) \
EVERY(layer_norm_bias, ARGS(A(F32, 3, 8), A(F32, 8)), 2, 1, y[0] = tn_fast_layer_norm(x[0], NULL, x[1], 1e-5)) \
EVERY(norm_vjp, ARGS(A(F32, 3, 8), A(F32, 8), A(F32, 8)), 3, 3, every_norm_grad(x, y)) \
EVERY(rms_norm_vjp, ARGS(A(BF16, 70, 4), A(BF16, 4)), 2, 2, tn_value_and_grad(every_rms_loss, NULL, (tn_list){x, 2}, 2, NULL, y)) \
EVERY(norm_vjp_bias, ARGS(A(F32, 3, 2, 8), A(F32, 8)), 2, 2, tn_value_and_grad(every_bias_loss, NULL, (tn_list){x, 2}, 2, NULL, y)) \
EVERY(norm_vjp_mixed, ARGS(A(BF16, 3, 8), A(F32, 8), A(F16, 8)), 3, 3, every_norm_grad(x, y)) \
EVERY(norm_vjp_bare, ARGS(A(F16, 3, 2, 8)), 1, 1, y[0] = tn_grad(every_bare_loss, NULL, TN_LIST(x[0]), 0)) \
EVERY(rope, ARGS(A(F32, 2, 3, 8), INDEX(I32, 9, 2)), 2, 1, y[0] = tn_fast_rope(x[0], 6, x[1], NULL)) \
EVERY(rope_freqs, ARGS(A(F16, 1, 2, 3, 8), NUMBER(I32, 9), INDEX(F32, 9, 4)), 3, 1, y[0] = tn_fast_rope(x[0], 8, x[1], TN_OPT(tn_rope_opt, .freqs = tn_add(x[2], tn_f32(1)), .traditional = true))) \
EVERY(sdpa, ARGS(A(F32, 1, 4, 3, 8), A(F32, 1, 2, 5, 8), A(F32, 1, 2, 5, 6)), 3, 1, y[0] = tn_fast_scaled_dot_product_attention(x[0], x[1], x[2], 0.3, TN_OPT(tn_sdpa_opt, .causal = true))) \
EVERY(sdpa_mask, ARGS(A(F32, 1, 4, 3, 8), A(F16, 1, 2, 5, 8), A(F16, 1, 2, 5, 6), A(F32, 3, 5), A(F32, 4)), 5, 1, y[0] = tn_fast_scaled_dot_product_attention(x[0], x[1], x[2], 0.3, TN_OPT(tn_sdpa_opt, .mask = x[3], .sinks = x[4]))) \
EVERY(sdpa_bool, ARGS(A(F16, 2, 2, 3, 8), A(F16, 2, 2, 4, 8), A(F16, 2, 2, 4, 8), INDEX(BOOL, 2, 3, 4)), 4, 1, y[0] = tn_fast_scaled_dot_product_attention(x[0], x[1], x[2], 0.5, TN_OPT(tn_sdpa_opt, .mask = x[3]))) \
EVERY(sdpa_wide, ARGS(A(F32, 1, 2, 3, 4), A(F64, 1, 2, 5, 4), A(F16, 1, 2, 5, 3)), 3, 1, y[0] = tn_fast_scaled_dot_product_attention(x[0], x[1], x[2], 0.3, NULL)) \
EVERY(sdpa_vjp, ARGS(A(F32, 1, 4, 3, 8), A(F16, 1, 2, 5, 8), A(F16, 1, 2, 5, 6), A(F32, 4)), 4, 4, every_attention_grad(x, y)) \
EVERY(sdpa_vjp_mask, ARGS(A(F32, 2, 4, 3, 4), A(F32, 2, 2, 5, 4), A(F32, 2, 2, 5, 6), INDEX(BOOL, 2, 2, 1, 3, 5), A(F32, 4)), 5, 4, every_masked_grad(x, y)) \
EVERY(sdpa_vjp_heads, ARGS(A(BF16, 2, 4, 3, 4), A(BF16, 2, 2, 5, 4), A(BF16, 2, 2, 5, 6), A(F32, 4, 1, 5), A(F32, 2, 4)), 5, 4, every_masked_grad(x, y)) \
EVERY(random_bits, ARGS(INDEX(U32, 99, 2)), 1, 2, y[0] = tn_random_bits(TN_SHAPE(3, 5), 2, x[0]); y[1] = tn_random_normal(TN_SHAPE(4), TN_F32, x[0])) \
EVERY(sort, ARGS(A(F32, 3, 7)), 1, 1, y[0] = tn_sort(x[0], 0)) \
EVERY(argsort, ARGS(A(F16, 3, 7)), 1, 1, y[0] = tn_argsort(x[0], -1)) \
EVERY(scan, ARGS(A(I32, 3, 7)), 1, 2, y[0] = tn_cumsum(x[0], 0, true, false); y[1] = tn_cumprod(x[0], 1, false, true)) \
EVERY(scan_float, ARGS(A(F32, 3, 7)), 1, 3, y[0] = tn_cummax(x[0], 0, false, true); y[1] = tn_cummin(x[0], 1, true, true); y[2] = tn_logcumsumexp(x[0], 1, false, true)) \
EVERY(scan_sum, ARGS(A(F32, 2, 5, 3)), 1, 4, for (int i = 0; i < 4; i++) y[i] = tn_cumsum(x[0], 1, i & 1, i >> 1)) \
EVERY(scan_prod, ARGS(A(F32, 2, 5, 3)), 1, 4, for (int i = 0; i < 4; i++) y[i] = tn_cumprod(x[0], 1, i & 1, i >> 1)) \
EVERY(scan_max, ARGS(A(F32, 3, 7)), 1, 2, for (int i = 0; i < 2; i++) y[i] = tn_cummax(x[0], -1, i, true)) \
EVERY(scan_min, ARGS(A(F32, 3, 7)), 1, 2, for (int i = 0; i < 2; i++) y[i] = tn_cummin(x[0], 0, i, true)) \
EVERY(scan_logsumexp, ARGS(A(F32, 3, 5)), 1, 2, for (int i = 0; i < 2; i++) y[i] = tn_logcumsumexp(x[0], -1, i, true)) \
EVERY(gather, ARGS(A(F32, 5, 6), INDEX(I32, 4, 3), INDEX(U8, 4, 2, 1)), 3, 1, y[0] = tn_gather(x[0], TN_LIST(x[1], x[2]), TN_AXES(1, 0), TN_SHAPE(2, 3))) \
EVERY(gather_axis, ARGS(A(F32, 5, 6), INDEX(I32, 5, 2, 6)), 2, 1, y[0] = tn_take_along_axis(x[0], x[1], 0)) \
EVERY(scatter, ARGS(A(F32, 5, 6), INDEX(I32, 5, 3), A(F32, 3, 1, 6)), 3, 2, y[0] = tn_scatter(x[0], TN_LIST(x[1]), x[2], TN_AXES(0)); y[1] = tn_scatter_max(x[0], TN_LIST(x[1]), x[2], TN_AXES(0))) \
EVERY(scatter_half, ARGS(A(F16, 5, 6), INDEX(I32, 5, 3), A(F16, 3, 1, 6)), 3, 2, y[0] = tn_scatter_add(x[0], TN_LIST(x[1]), x[2], TN_AXES(0)); y[1] = tn_scatter_prod(x[0], TN_LIST(x[1]), x[2], TN_AXES(0))) \
EVERY(scatter_min, ARGS(A(F32, 5, 6), INDEX(I32, 4, 2, 2), INDEX(I32, 5, 2, 1), A(F32, 2, 2, 2, 2)), 4, 2, y[0] = tn_scatter_min(x[0], TN_LIST(x[1], x[2]), x[3], TN_AXES(0, 1)); y[1] = tn_scatter_prod(x[0], TN_LIST(x[1], x[2]), x[3], TN_AXES(0, 1))) \
EVERY(scatter_axis, ARGS(A(F32, 5, 6), INDEX(I32, 5, 2, 6), A(F32, 2, 1)), 3, 2, y[0] = tn_put_along_axis(x[0], x[1], x[2], 0); y[1] = tn_scatter_add_axis(x[0], x[1], x[2], 0)) \
EVERY(conv, ARGS(A(F32, 2, 9, 4), A(F32, 6, 3, 2)), 2, 1, y[0] = tn_conv1d(x[0], x[1], TN_OPT(tn_conv_opt, .stride = TN_SPATIAL(2), .padding = TN_SPATIAL(1), .groups = 2))) \
EVERY(conv2d, ARGS(A(F16, 1, 5, 6, 3), A(F16, 4, 3, 2, 3)), 2, 1, y[0] = tn_conv_transpose2d(x[0], x[1], TN_OPT(tn_conv_opt, .stride = TN_SPATIAL(2, 1)))) \
EVERY(conv_cut, ARGS(A(F32, 2, 7, 6, 2), A(F32, 3, 2, 3, 2)), 2, 1, y[0] = tn_conv_general(x[0], x[1], TN_OPT(tn_conv_opt, .stride = TN_SPATIAL(2, 1), .padding = TN_SPATIAL(-1, 2), .padding_high = TN_SPATIAL(1, -2), .dilation = TN_SPATIAL(1, 2), .input_dilation = TN_SPATIAL(2, 1), .flip = true))) \
EVERY(conv3d, ARGS(A(F32, 1, 4, 3, 4, 4), A(F32, 4, 2, 2, 2, 1)), 2, 1, y[0] = tn_conv3d(x[0], x[1], TN_OPT(tn_conv_opt, .groups = 4, .padding = TN_SPATIAL(1)))) \
EVERY(max_pool, ARGS(A(F32, 2, 6, 4, 3)), 1, 2, y[0] = tn_max_pool(x[0], TN_SPATIAL(2), TN_SPATIAL(), TN_SPATIAL()); y[1] = tn_max_pool(x[0], TN_SPATIAL(3, 2), TN_SPATIAL(2, 1), TN_SPATIAL(1))) \
EVERY(avg_pool, ARGS(A(F32, 2, 7, 3)), 1, 2, y[0] = tn_avg_pool(x[0], TN_SPATIAL(2), TN_SPATIAL(), TN_SPATIAL()); y[1] = tn_avg_pool(x[0], TN_SPATIAL(3), TN_SPATIAL(2), TN_SPATIAL(1))) \
EVERY(pool_vjp, ARGS(A(F32, 2, 5, 4, 3)), 1, 2, y[0] = every_pool_grad(x[0], false); y[1] = every_pool_grad(x[0], true)) \
EVERY(conv_weight, ARGS(A(F32, 2, 5, 5, 3), A(F32, 4, 3, 3, 3)), 2, 2, int n; every_conv_grad(x, y); n = 0; (void)n) \
EVERY(custom, ARGS(A(F32, 3)), 1, 1, y[0] = tn_mul(tn_stop_gradient(x[0]), x[0])) \
EVERY(mean, ARGS(A(F16, 3, 4)), 1, 2, y[0] = tn_mean(x[0], TN_AXES(0), false); y[1] = tn_var(x[0], TN_ALL, true, 1))
/* clang-format on */

static tn_array *every_conv_loss(tn_list in, void *ud) {
    (void)ud;
    return tn_sum(tn_square(tn_conv2d(in.v[0], in.v[1], NULL)), TN_ALL, false);
}
static void every_conv_grad(tn_array *const *x, tn_array **y) {
    tn_value_and_grad(every_conv_loss, NULL, (tn_list){x, 2}, 2, NULL, y);
}

static tn_array *every_norm_loss(tn_list in, void *ud) {
    (void)ud;
    return tn_sum(tn_square(tn_fast_layer_norm(in.v[0], in.v[1], in.v[2], 1e-3)), TN_ALL, false);
}
static void every_norm_grad(tn_array *const *x, tn_array **y) {
    tn_value_and_grad(every_norm_loss, NULL, (tn_list){x, 3}, 3, NULL, y);
}
static tn_array *every_rms_loss(tn_list in, void *ud) {
    (void)ud;
    return tn_sum(tn_square(tn_fast_rms_norm(in.v[0], in.v[1], 1e-3)), TN_ALL, false);
}

static tn_array *every_bias_loss(tn_list in, void *ud) {
    (void)ud;
    return tn_sum(tn_square(tn_fast_layer_norm(in.v[0], NULL, in.v[1], 1e-3)), TN_ALL, false);
}
static tn_array *every_bare_loss(tn_list in, void *ud) {
    tn_array *w = tn_arange(1, 17, 1, TN_F16);
    (void)ud;
    return tn_sum(tn_mul(tn_reshape(w, TN_SHAPE(2, 8)), tn_fast_rms_norm(in.v[0], NULL, 1e-3)),
                  TN_ALL, false);
}

static tn_array *every_pool_loss(tn_list in, void *ud) {
    tn_spatial k = TN_SPATIAL(3, 2), stride = TN_SPATIAL(2, 1), pad = TN_SPATIAL(1);
    tn_array *x = in.v[0];
    x = *(bool *)ud ? tn_avg_pool(x, k, stride, pad) : tn_max_pool(x, k, stride, pad);
    return tn_sum(tn_square(x), TN_ALL, false);
}
static tn_array *every_pool_grad(tn_array *x, bool mean) {
    return tn_grad(every_pool_loss, &mean, TN_LIST(x), 0);
}

static tn_array *every_attention_loss(tn_list in, void *ud) {
    (void)ud;
    return tn_sum(
        tn_square(tn_fast_scaled_dot_product_attention(
            in.v[0], in.v[1], in.v[2], 0.3, TN_OPT(tn_sdpa_opt, .causal = true, .sinks = in.v[3]))),
        TN_ALL, false);
}
static void every_attention_grad(tn_array *const *x, tn_array **y) {
    tn_value_and_grad(every_attention_loss, NULL, (tn_list){x, 4}, 4, NULL, y);
}

/* By queries, keys, values and sinks, but not by the mask. */
static int every_masked_loss(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)ud, (void)n_out;
    out[0] = tn_fast_scaled_dot_product_attention(
        in.v[0], in.v[1], in.v[2], 0.3, TN_OPT(tn_sdpa_opt, .mask = in.v[3], .sinks = in.v[4]));
    out[0] = tn_sum(tn_square(out[0]), TN_ALL, false);
    return 0;
}
static void every_masked_grad(tn_array *const *x, tn_array **y) {
    tn_array *value;
    (void)tn_value_and_grad_of(every_masked_loss, NULL, (tn_list){x, 5}, (int[]){0, 1, 2, 4}, 4, 1,
                               &value, y);
}

#define EVERY(name, args, n_in, n, ...)                                                            \
    static int every_fn_##name(tn_list in, tn_array **y, int n_out, void *ud) {                    \
        tn_array *const *x = in.v;                                                                 \
        (void)n_out, (void)ud;                                                                     \
        __VA_ARGS__;                                                                               \
        return 0;                                                                                  \
    }
EVERY_LIST(EVERY)
#undef EVERY

static const every_case every_hand[] = {
#define EVERY(name, args, n_in, n, ...) {#name, n_in, n, args, every_fn_##name, 0, 0, 0},
    EVERY_LIST(EVERY)
#undef EVERY
};
#undef A
#undef INDEX
#undef NUMBER
#undef ARGS

/* ---- element-wise ops and reductions, by their tables ---- */

static int every_ew(tn_list in, tn_array **out, int n_out, void *ud) {
    const every_case *c = ud;
    (void)n_out;
    out[0] = tni_ew(c->row, in.n, in.v);
    return 0;
}

typedef tn_array *(*every_red_fn)(tn_array *, tn_ints, bool);
static const every_red_fn every_reds[] = {
    NULL,
#define RED(name, ...) tn_##name,
#include "ops/reduce.def"
#undef RED
};

static int every_red(tn_list in, tn_array **out, int n_out, void *ud) {
    const every_case *c = ud;
    int64_t axes[3];
    int n = 0;
    (void)n_out;
    for (int i = 0; i < 3; i++)
        if (c->mask >> i & 1) axes[n++] = i;
    out[0] = every_reds[c->row](in.v[0], (tn_ints){axes, n}, c->keep);
    return 0;
}

static bool every_ew_takes(int e, tn_dtype d) {
    enum dom m = rows[e].dom;
    if (m == SIG) return d != TN_BOOL;
    if (m == REAL || m == FLTR) return d != TN_C64;
    return (m != INT && m != SHF) || d < TN_F16;
}

/* Calls visit(case) for each. */
static void every(void (*visit)(const every_case *c)) {
    for (size_t i = 0; i < sizeof every_hand / sizeof *every_hand; i++) visit(&every_hand[i]);
    for (int e = 0; e < TNI_EW_COUNT; e++)
        for (int d = 0; d < TN_DTYPE_COUNT; d++) {
            every_case c = {.n_in = rows[e].arity, .n_out = 1, .fn = every_ew, .row = e};
            if (!every_ew_takes(e, (tn_dtype)d)) continue;
            snprintf(c.name, sizeof c.name, "%s %s", rows[e].name, tn_dtype_name((tn_dtype)d));
            for (int i = 0; i < c.n_in; i++)
                c.in[i] = (every_arg){(tn_dtype)d, d < TN_F16 ? 5 : 0, 2, {i == 1 ? 1 : 3, 4}};
            visit(&c);
        }
    for (int r = 1; r < TNI_RED_COUNT; r++)
        for (int d = 0; d < TN_DTYPE_COUNT; d++)
            for (int mask = 1; mask < 8; mask += 3) {
                every_case c = {.n_in = 1, .n_out = 1, .fn = every_red, .row = r, .mask = mask};
                c.keep = mask == 4;
                if (r == TNI_RED_logsumexp && d == TN_C64) continue;
                snprintf(c.name, sizeof c.name, "%s %s over %d", TNI_PRIM_RED(r)->name,
                         tn_dtype_name((tn_dtype)d), mask);
                c.in[0] = (every_arg){(tn_dtype)d, d < TN_F16 ? 5 : 0, 3, {3, 2, 4}};
                visit(&c);
            }
}

#endif
