/* Attention over several heads, and what tells it where its inputs stand. */
#include "base/err.h"
#include "nn/layer.h"
#include <math.h>

static int64_t attention_or(int64_t n, int64_t standard) { return n ? n : standard; }

static int attention_check(int64_t dims, int64_t value_dims, int heads) {
    int status = tni_layer_size("multi_head_attention", "heads", heads);
    if (!status && (dims % heads || value_dims % heads))
        status = tni_fail(TN_EVALUE,
                          "multi_head_attention: %lld dimensions, of values %lld, do not divide "
                          "into %d heads",
                          (long long)dims, (long long)value_dims, heads);
    return status;
}

int tn_nn_multi_head_attention_init(tn_nn_multi_head_attention *l, tn_params *p, const char *name,
                                    int64_t dims, int heads, const tn_nn_attention_opt *opt) {
    *l = (tn_nn_multi_head_attention){.heads = heads};
    tn_nn_attention_opt o;
    TNI_OPTIONS(o, opt);
    int64_t q = attention_or(o.query_input_dims, dims), k = attention_or(o.key_input_dims, dims);
    int64_t v = attention_or(o.value_input_dims, k), mid = attention_or(o.value_dims, dims);
    tni_layer b = tni_layer_begin(p, name, attention_check(dims, mid, heads));
    if (!b.status) b.status = tn_nn_linear_init(&l->query_proj, p, "query_proj", q, dims, o.bias);
    if (!b.status) b.status = tn_nn_linear_init(&l->key_proj, p, "key_proj", k, dims, o.bias);
    if (!b.status) b.status = tn_nn_linear_init(&l->value_proj, p, "value_proj", v, mid, o.bias);
    if (!b.status)
        b.status = tn_nn_linear_init(&l->out_proj, p, "out_proj", mid,
                                     attention_or(o.value_output_dims, dims), o.bias);
    return tni_layer_end(&b);
}

/* [N, L, heads * D] to [N, heads, L, D] */
static tn_array *attention_heads(const char *what, tn_array *x, int heads) {
    if (!tn_array_status(x) && tn_ndim(x) != 3)
        return tn_error_array(TN_ESHAPE, "multi_head_attention: %s have %d axes, not 3 [N, L, D]",
                              what, tn_ndim(x));
    tn_array *y = tn_reshape(x, TN_SHAPE(tn_dim(x, 0), tn_dim(x, 1), heads, tn_dim(x, 2) / heads));
    return tn_transpose(y, TN_AXES(0, 2, 1, 3));
}

tn_array *tn_nn_multi_head_attention_call(const tn_nn_multi_head_attention *l, tn_array *queries,
                                          tn_array *keys, tn_array *values,
                                          const tn_sdpa_opt *opt) {
    if (l->heads < 1)
        return tn_error_array(TN_EVALUE, "multi_head_attention: the layer was not initialised");
    tn_array *q = attention_heads("queries", tn_nn_linear_call(&l->query_proj, queries), l->heads);
    tn_array *k = attention_heads("keys", tn_nn_linear_call(&l->key_proj, keys), l->heads);
    tn_array *v = attention_heads("values", tn_nn_linear_call(&l->value_proj, values), l->heads);
    double scale = sqrt(1 / (double)(tn_dim(q, 3) ? tn_dim(q, 3) : 1));
    tn_array *y = tn_fast_scaled_dot_product_attention(q, k, v, scale, opt);
    y = tn_flatten(tn_transpose(y, TN_AXES(0, 2, 1, 3)), -2, -1);
    return tn_nn_linear_call(&l->out_proj, y);
}

/* ---- positions ---- */

tn_array *tn_nn_rope(tn_array *x, int dims, int64_t offset, const tn_rope_opt *opt) {
    return tn_fast_rope(x, dims, tn_scalar_i64(offset, TN_I32), opt);
}

tn_array *tn_nn_sinusoidal(tn_array *positions, int64_t dims, const tn_nn_sinusoidal_opt *opt) {
    tn_nn_sinusoidal_opt o;
    TNI_OPTIONS(o, opt);
    if (dims < 2 || dims % 2)
        return tn_error_array(TN_EVALUE, "sinusoidal: %lld dimensions; an even number is needed",
                              (long long)dims);
    double low = o.min_freq == 0 ? 1e-4 : o.min_freq, high = o.max_freq == 0 ? 1 : o.max_freq;
    double scale = o.scale == 0 ? sqrt(2 / (double)dims) : o.scale;
    if (!(low > 0 && high > 0))
        return tn_error_array(TN_EVALUE,
                              "sinusoidal: frequencies from %g to %g; they must be "
                              "above 0",
                              low, high);
    double least = log(low), range = log(high) - least;
    double gap = dims > 2 ? (double)(dims / 2 - 1) : 1;
    tn_array *back = tn_div(tn_arange(0, (double)(dims / 2), 1, TN_F32), tn_f32(gap));
    tn_array *freq = tn_add(tn_mul(tn_sub(tn_f32(1), back), tn_f32(range)), tn_f32(least));
    freq = tn_exp(freq);
    if (o.full_turns) freq = tn_mul(freq, tn_f32(2 * M_PI));
    tn_array *angle = tn_mul(tn_expand_dims(positions, TN_AXES(-1)), freq);
    tn_array *s = tn_sin(angle), *c = tn_cos(angle);
    tn_array *y = tn_concatenate(o.cos_first ? TN_LIST(c, s) : TN_LIST(s, c), -1);
    return scale == 1 ? y : tn_mul(y, tn_f32(scale));
}

/* The slope of head i of n, a power of two: 2^(-8 (i + 1) / n). Of other numbers the greatest power
 * of two below comes first, then every second slope of the next (Press et al. 2021). */
static double attention_slope(int i, int n) {
    int power = 1;
    while (power <= n / 2) power *= 2;
    if (i < power) return exp2(-8.0 * (i + 1) / power);
    return exp2(-8.0 * (2 * (i - power) + 1) / (2 * power));
}

enum { ATTENTION_HEADS = 4096 }; /* more than any model has; bounds the table of slopes */

tn_array *tn_nn_alibi(int64_t q, int64_t k, int heads, int64_t offset, tn_dtype dtype) {
    float slope[ATTENTION_HEADS];
    if (heads < 1 || heads > ATTENTION_HEADS)
        return tn_error_array(TN_EVALUE, "alibi: %d heads; 1 to %d", heads, ATTENTION_HEADS);
    if (q < 0 || k < 0)
        return tn_error_array(TN_ESHAPE, "alibi: %lld queries, %lld keys", (long long)q,
                              (long long)k);
    if (!tni_layer_is_float(dtype))
        return tn_error_array(TN_EDTYPE, "alibi: needs a float dtype, not %s",
                              tn_dtype_name(dtype));
    for (int i = 0; i < heads; i++) slope[i] = (float)attention_slope(i, heads);
    tn_array *s = tn_astype(tn_array_new(slope, TN_F32, TN_SHAPE(heads, 1, 1)), dtype);
    tn_array *at = tn_arange((double)offset, (double)(offset + q), 1, TN_I32);
    at = tn_sub(tn_expand_dims(at, TN_AXES(1)), tn_arange(0, (double)k, 1, TN_I32));
    tn_array *bias = tn_mul(tn_neg(tn_abs(at)), s);
    return tn_expand_dims(bias, TN_AXES(0));
}
