/* The forward pass, as an array program: the only code that knows what a decoder computes.
 * Shapes: B sequences of T tokens, D hidden, H heads, G key-value heads, E head size. Activations
 * are f32 [B T, D]. */
#include "llm/model.h"
#include <math.h>

/* What the parts of one layer share. */
typedef struct forward {
    const tn_llm *m;
    const tni_pass *p;
    tni_layer *l;
    tn_array *offset; /* of positions, i32 */
    tn_array *keys;   /* [sites, 2] of random numbers, or NULL */
    const tni_kv *kv;
    tni_kv *next;
} forward;

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

/* Row k of random keys [n, 2]. */
static tn_array *forward_key(tn_array *keys, int64_t k) {
    return tn_reshape(tn_slice_axis(keys, 0, k, k + 1), TN_SHAPE(2));
}

/* x with elements zeroed at random and the others made larger by as much. */
static tn_array *forward_drop(tn_array *x, double p, tn_array *key) {
    tn_array *stay = tn_random_bernoulli(tn_f32(1 - p), tn_shape(x), key);
    return tn_mul(tn_mul(x, tn_f32(1 / (1 - p))), tn_astype(stay, TN_F32));
}

static tn_array *forward_lora(const forward *f, const tni_lora *r, tn_array *x, int site) {
    const tni_adapter *a = &f->m->adapter;
    if (f->keys) x = forward_drop(x, a->dropout, forward_key(f->keys, site));
    return tn_matmul(tn_mul(tn_matmul(x, r->a), tn_f32(a->scale)), r->b);
}

/* x through n stacked matrices with out[i] of width[i]; `site` numbers the first of them. */
static void forward_stack(const forward *f, const tni_linear *l, tn_array *x, int site, int n,
                          const int64_t *width, tn_array **out) {
    tn_array *y = forward_linear(l, x);
    int64_t at = 0;
    for (int i = 0; i < n; at += width[i++]) {
        out[i] = n == 1 ? y : tn_slice_axis(y, 1, at, at + width[i]);
        if (l->lora[i].a) out[i] = tn_add(out[i], forward_lora(f, &l->lora[i], x, site + i));
    }
}

static tn_array *forward_one(const forward *f, const tni_linear *l, tn_array *x, int site) {
    tn_array *y;
    forward_stack(f, l, x, site, 1, TN_INTS(0).v, &y);
    return y;
}

/* Rows of the embedding, [B T] -> [B T, D]. A quantised table is picked packed and widened after,
 * in f32 whatever its scales are: rounding here is 0.03 of a log-probability later. */
static tn_array *forward_embed(const tn_llm *m, const tni_pass *p, tn_array *ids) {
    const tni_linear *e = &m->embed;
    tn_array *x = tn_take(e->w, ids, 0);
    if (e->scales)
        x = tn_dequantize(x, tn_astype(tn_take(e->scales, ids, 0), TN_F32),
                          tn_astype(tn_take(e->biases, ids, 0), TN_F32), e->group, e->bits);
    x = tn_astype(x, TN_F32);
    if (!m->pos_embed) return x;
    tn_array *pos = tn_slice_axis(m->pos_embed, 0, p->past, p->past + p->tokens);
    if (p->batch > 1) pos = tn_tile(pos, TN_INTS(p->batch, 1));
    return tn_add(x, pos);
}

/* [B T, heads E] -> [B, heads, T, E]. */
static tn_array *forward_heads(const forward *f, tn_array *y, int64_t heads) {
    y = tn_reshape(y, TN_SHAPE(f->p->batch, f->p->tokens, heads, f->m->head_dim));
    return tn_transpose(y, TN_AXES(0, 2, 1, 3));
}

static tn_array *forward_rope(const forward *f, tn_array *x) {
    const tn_llm *m = f->m;
    if (m->arch->learned_pos) return x;
    return tn_fast_rope(x, m->rope_dims, f->offset,
                        TN_OPT(tn_rope_opt, .traditional = m->rope_traditional,
                               .base = m->rope_base, .scale = m->rope_scale,
                               .freqs = m->rope_freqs));
}

static void forward_qkv(const forward *f, tn_array *h, tn_array *out[3]) {
    int64_t H = f->m->heads, G = f->m->kv_heads, E = f->m->head_dim;
    const tni_layer *l = f->l;
    if (l->k.w) {
        out[0] = forward_one(f, &l->qkv, h, 0);
        out[1] = forward_one(f, &l->k, h, 1), out[2] = forward_one(f, &l->v, h, 2);
    } else if (f->m->arch->conv1d) { /* one matrix in the file, so one adapter */
        tn_split_at(forward_one(f, &l->qkv, h, 0), TN_INTS(H * E, (H + G) * E), 1, out);
    } else {
        forward_stack(f, &l->qkv, h, 0, 3, TN_INTS(H * E, G * E, G * E).v, out);
    }
    out[0] = forward_rope(f, forward_heads(f, out[0], H));
    out[1] = forward_rope(f, forward_heads(f, out[1], G));
    out[2] = forward_heads(f, out[2], G);
}

/* The new keys and values written behind the old ones; *k and *v are all there are. */
static void forward_cache(const forward *f, tn_array **k, tn_array **v) {
    int64_t past = f->p->past, end = past + f->p->tokens;
    f->next->k = tn_slice_update(f->kv->k, tn_swapaxes(*k, 2, 3), TN_INTS(0, 0, 0, past), TN_ALL);
    f->next->v = tn_slice_update(f->kv->v, *v, TN_INTS(0, 0, past, 0), TN_ALL);
    *k = tn_swapaxes(tn_slice_axis(f->next->k, 3, 0, end), 2, 3);
    *v = tn_slice_axis(f->next->v, 2, 0, end);
}

static tn_array *forward_attention(const forward *f, tn_array *h) {
    const tni_pass *p = f->p;
    tn_array *qkv[3];
    forward_qkv(f, h, qkv);
    if (f->kv) forward_cache(f, &qkv[1], &qkv[2]);
    tn_array *a = tn_fast_scaled_dot_product_attention(
        qkv[0], qkv[1], qkv[2], 1 / sqrt((double)f->m->head_dim),
        TN_OPT(tn_sdpa_opt, .causal = p->tokens > 1));
    a = tn_transpose(a, TN_AXES(0, 2, 1, 3)); /* [B, T, H, E] */
    return forward_one(f, &f->l->o, tn_reshape(a, TN_SHAPE(p->batch * p->tokens, -1)), 3);
}

/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), GPT-2's gelu. */
static tn_array *forward_gelu(tn_array *x) {
    tn_array *inner = tn_mul(tn_f32(0.7978845608028654),
                             tn_add(x, tn_mul(tn_f32(0.044715), tn_mul(x, tn_mul(x, x)))));
    return tn_mul(tn_mul(tn_f32(0.5), x), tn_add(tn_f32(1), tn_tanh(inner)));
}

static tn_array *forward_ffn(const forward *f, tn_array *h) {
    const tni_layer *l = f->l;
    tn_array *g[2];
    if (f->m->arch->gelu)
        return forward_one(f, &l->down, forward_gelu(forward_one(f, &l->gate_up, h, 4)), 6);
    if (l->up.w)
        g[0] = forward_one(f, &l->gate_up, h, 4), g[1] = forward_one(f, &l->up, h, 5);
    else
        forward_stack(f, &l->gate_up, h, 4, 2, TN_INTS(f->m->ffn, f->m->ffn).v, g);
    return forward_one(f, &l->down, tn_mul(tn_mul(g[0], tn_sigmoid(g[0])), g[1]), 6);
}

static tn_array *forward_layer(tn_llm *m, const tni_pass *p, int64_t i, tn_array *x,
                               tn_array *offset) {
    forward f = {.m = m, .p = p, .l = &m->layer[i], .offset = offset};
    if (p->kv) f.kv = &p->kv[i], f.next = &p->next[i];
    if (p->key)
        f.keys =
            tn_random_split(forward_key(tn_random_split(p->key, m->layers), i), TNI_LORA_SITES);
    x = tn_add(x, forward_attention(&f, forward_norm(m, &f.l->attn_norm, x)));
    if (i == m->layers - 1 && !p->all) x = tn_slice_axis(x, 0, p->tokens - 1, p->tokens);
    return tn_add(x, forward_ffn(&f, forward_norm(m, &f.l->ffn_norm, x)));
}

/* ---- a layer that is run again for its derivatives ---- */

static int forward_loras(const tn_llm *m, int64_t i, tni_lora **out) {
    tni_site site[TNI_LORA_SITES];
    int n = tni_lora_sites(m, i, site), have = 0;
    for (int k = 0; k < n; k++)
        if (site[k].lora->a) out[have++] = site[k].lora;
    return have;
}

/* in: x, then a and b of each adapter, then the key if there is one. They stand in for what the
 * slots hold while the layer runs. */
static int forward_again(tn_list in, tn_array **out, int n_out, void *ud) {
    const tni_layer_call *c = ud;
    tni_pass p = c->pass;
    tni_lora *slot[TNI_LORA_SITES], old[TNI_LORA_SITES];
    int n = forward_loras(c->m, c->layer, slot);
    (void)n_out;
    for (int k = 0; k < n; k++) {
        old[k] = *slot[k];
        *slot[k] = (tni_lora){in.v[1 + 2 * k], in.v[2 + 2 * k]};
    }
    if (p.key) p.key = in.v[1 + 2 * n];
    out[0] = forward_layer(c->m, &p, c->layer, in.v[0], tn_scalar_i64(p.past, TN_I32));
    for (int k = 0; k < n; k++) *slot[k] = old[k];
    return 0;
}

static tn_array *forward_checkpoint(tn_llm *m, const tni_pass *p, int64_t i, tn_array *x) {
    tn_array *in[2 + 2 * TNI_LORA_SITES] = {x}, *y;
    tni_lora *slot[TNI_LORA_SITES];
    int n = forward_loras(m, i, slot), at = 1;
    for (int k = 0; k < n; k++) in[at++] = slot[k]->a, in[at++] = slot[k]->b;
    if (p->key) in[at++] = p->key;
    p->again[i] = (tni_layer_call){m, *p, i};
    int status = tn_checkpoint(forward_again, &p->again[i], (tn_list){in, at}, 1, &y);
    return status ? tn_error_array(status, "%s", tn_error()) : y;
}

tn_array *tni_llm_forward(tn_llm *m, const tni_pass *p, tn_array *ids) {
    tn_array *x = forward_embed(m, p, ids), *offset = tn_scalar_i64(p->past, TN_I32);
    for (int64_t i = 0; i < m->layers; i++)
        x = p->again ? forward_checkpoint(m, p, i, x) : forward_layer(m, p, i, x, offset);
    x = forward_norm(m, &m->final_norm, x);
    return forward_linear(m->head.w ? &m->head : &m->embed, x);
}
