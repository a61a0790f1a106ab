/* The forward pass, as an array program: the only code that knows what a decoder computes.
 * Shapes: T tokens, D hidden, H heads, G key-value heads, E head size. Activations are f32. */
#include "llm/model.h"
#include <math.h>

static tn_array *forward_linear(const tni_linear *l, tn_array *x) {
    tn_array *y;
    if (l->scales)
        y = tn_quantized_matmul(x, l->w, l->scales, l->biases, true, l->group, l->bits);
    else
        y = tn_matmul(x, l->flipped ? l->w : tn_swapaxes(l->w, 0, 1));
    return l->bias ? tn_add(y, l->bias) : y;
}

static tn_array *forward_norm(const tn_llm *m, const tni_norm *n, tn_array *x) {
    if (m->arch->layer_norm) return tn_fast_layer_norm(x, n->weight, n->bias, (double)m->norm_eps);
    return tn_fast_rms_norm(x, n->weight, (double)m->norm_eps);
}

/* Rows of the embedding, [T] -> [T, D]. A quantised table is picked packed and widened after,
 * in f32 whatever its scales are: rounding here is 0.03 of a log-probability later. */
static tn_array *forward_embed(const tn_llm *m, tn_array *ids, int64_t past, int64_t n) {
    const tni_linear *e = &m->embed;
    tn_array *x = tn_take(e->w, ids, 0);
    if (e->scales)
        x = tn_dequantize(x, tn_astype(tn_take(e->scales, ids, 0), TN_F32),
                          tn_astype(tn_take(e->biases, ids, 0), TN_F32), e->group, e->bits);
    x = tn_astype(x, TN_F32);
    return m->pos_embed ? tn_add(x, tn_slice_axis(m->pos_embed, 0, past, past + n)) : x;
}

/* Part [from, from + heads) of the stacked heads: [T, (...) E] -> [1, heads, T, E]. */
static tn_array *forward_heads(tn_array *y, int64_t from, int64_t heads, int64_t e) {
    tn_array *part = tn_slice_axis(y, 1, from * e, (from + heads) * e);
    return tn_expand_dims(tn_transpose(tn_reshape(part, TN_SHAPE(-1, heads, e)), TN_AXES(1, 0, 2)),
                          TN_AXES(0));
}

static tn_array *forward_rope(const tn_llm *m, tn_array *x, tn_array *past) {
    if (m->arch->learned_pos) return x;
    return tn_fast_rope(x, m->rope_dims, past,
                        TN_OPT(tn_rope_opt, .traditional = m->rope_traditional,
                               .base = m->rope_base, .scale = m->rope_scale,
                               .freqs = m->rope_freqs));
}

static void forward_qkv(const tn_llm *m, const tni_layer *l, tn_array *h, tn_array *past,
                        tn_array *out[3]) {
    int64_t H = m->heads, G = m->kv_heads, E = m->head_dim;
    tn_array *q = forward_linear(&l->qkv, h), *k = q, *v = q;
    bool stacked = !l->k.w;
    if (!stacked) k = forward_linear(&l->k, h), v = forward_linear(&l->v, h);
    out[0] = forward_rope(m, forward_heads(q, 0, H, E), past);
    out[1] = forward_rope(m, forward_heads(k, stacked ? H : 0, G, E), past);
    out[2] = forward_heads(v, stacked ? H + G : 0, G, E);
}

static tn_array *forward_attention(const tn_llm *m, const tni_layer *l, tn_array *h,
                                   tn_array *offset, int64_t past, int64_t n, const tni_kv *kv,
                                   tni_kv *next) {
    tn_array *qkv[3];
    forward_qkv(m, l, h, offset, qkv);
    next->k = tn_slice_update(kv->k, tn_swapaxes(qkv[1], 2, 3), TN_INTS(0, 0, 0, past), TN_ALL);
    next->v = tn_slice_update(kv->v, qkv[2], TN_INTS(0, 0, past, 0), TN_ALL);
    tn_array *k = tn_swapaxes(tn_slice_axis(next->k, 3, 0, past + n), 2, 3),
             *v = tn_slice_axis(next->v, 2, 0, past + n);
    tn_array *a = tn_fast_scaled_dot_product_attention(qkv[0], k, v, 1 / sqrt((double)m->head_dim),
                                                       TN_OPT(tn_sdpa_opt, .causal = n > 1));
    a = tn_transpose(tn_squeeze(a, TN_AXES(0)), TN_AXES(1, 0, 2)); /* [T, H, E] */
    return forward_linear(&l->o, tn_reshape(a, TN_SHAPE(n, -1)));
}

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), GPT-2's gelu. */
static tn_array *forward_gelu(tn_array *x) {
    tn_array *inner = tn_mul(tn_f32(0.7978845608028654),
                             tn_add(x, tn_mul(tn_f32(0.044715), tn_mul(x, tn_mul(x, x)))));
    return tn_mul(tn_mul(tn_f32(0.5), x), tn_add(tn_f32(1), tn_tanh(inner)));
}

static tn_array *forward_ffn(const tn_llm *m, const tni_layer *l, tn_array *h) {
    tn_array *g = forward_linear(&l->gate_up, h), *u;
    if (m->arch->gelu) return forward_linear(&l->down, forward_gelu(g));
    if (l->up.w)
        u = forward_linear(&l->up, h);
    else
        u = tn_slice_axis(g, 1, m->ffn, 2 * m->ffn), g = tn_slice_axis(g, 1, 0, m->ffn);
    return forward_linear(&l->down, tn_mul(tn_mul(g, tn_sigmoid(g)), u));
}

tn_array *tni_llm_forward(const tn_llm *m, const int32_t *ids, int64_t n, int64_t past,
                          const tni_kv *kv, tni_kv *next, bool all) {
    tn_array *x = forward_embed(m, tn_array_new(ids, TN_I32, TN_SHAPE(n)), past, n);
    tn_array *offset = tn_scalar_i64(past, TN_I32);
    for (int64_t i = 0; i < m->layers; i++) {
        const tni_layer *l = &m->layer[i];
        x = tn_add(x, forward_attention(m, l, forward_norm(m, &l->attn_norm, x), offset, past, n,
                                        &kv[i], &next[i]));
        if (i == m->layers - 1 && !all) x = tn_slice_axis(x, 0, n - 1, n);
        x = tn_add(x, forward_ffn(m, l, forward_norm(m, &l->ffn_norm, x)));
    }
    x = forward_norm(m, &m->final_norm, x);
    return forward_linear(m->head.w ? &m->head : &m->embed, x);
}
