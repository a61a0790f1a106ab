/* A loaded model: one generic decoder, described by data. */
#ifndef TNI_LLM_MODEL_H
#define TNI_LLM_MODEL_H

#include "base/str.h"
#include "llm/template.h"
#include "llm/tokenizer.h"
#include "tenon/llm.h"
#include "tenon/tenon.h"

/* What a row of arch.def says. */
typedef struct tni_arch {
    const char *name; /* config.json's model_type and GGUF's general.architecture */
    bool layer_norm;  /* layer norm with bias; else RMS norm */
    bool learned_pos; /* learned positions; else rotary */
    bool gelu;        /* gelu (tanh form) of one matrix; else silu(gate) * up */
    bool linear_bias; /* every linear layer has a bias, unless the file says otherwise */
    bool conv1d;      /* Hugging Face stores linear weights as [in, out] */
    bool gguf;        /* read from GGUF too */
} tni_arch;

const tni_arch *tni_arch_find(const char *name);

/* A low-rank addition to a matrix, scale * (x a) b: a [in, rank], b [rank, out], slots of f32;
 * both NULL: none. */
typedef struct tni_lora {
    tn_array *a, *b;
} tni_lora;

enum { TNI_STACKED = 3, TNI_LORA_SITES = 7 }; /* matrices in one, matrices of a layer */

/* y = x w^T + bias, w [out, in] (or [in, out] when flipped); quantised when scales is set. Each of
 * the matrices stacked in it may have an adapter. */
typedef struct tni_linear {
    tn_array *w, *scales, *biases, *bias;
    int group, bits;
    bool flipped;
    tni_lora lora[TNI_STACKED];
} tni_linear;

typedef struct tni_norm {
    tn_array *weight, *bias;
} tni_norm;

typedef struct tni_layer {
    tni_norm attn_norm, ffn_norm;
    tni_linear qkv, o;      /* qkv: the three stacked, or q alone with k and v beside it */
    tni_linear k, v;        /* only when the files' types do not let them be stacked */
    tni_linear gate_up, up; /* stacked likewise; gelu models use gate_up alone */
    tni_linear down;
} tni_layer;

/* What the adapters of a model have in common; rank 0: there are none. */
typedef struct tni_adapter {
    int64_t rank, layers; /* the last `layers` of the model have them */
    double scale, dropout;
    char *keys; /* "self_attn.q_proj,mlp.up_proj"; NULL: every matrix of a layer */
} tni_adapter;

struct tn_llm {
    const tni_arch *arch;
    int64_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab, context;
    float norm_eps;
    bool rope_traditional;
    int rope_dims;
    double rope_base, rope_scale; /* scale multiplies positions */
    tn_array *rope_freqs;         /* f32 [dims/2], or NULL */
    tni_linear embed, head;       /* head.w NULL: tied to embed */
    tn_array *pos_embed;
    tni_norm final_norm;
    tni_layer *layer;
    tni_tok *tok;
    tni_template *chat;
    char *name, *bos, *eos;
    char weights[160];
    const char *format;
    int32_t *ends; /* ids that end a turn */
    size_t n_ends;
    int64_t parameters, bytes;
    struct tni_source *source; /* the mapped files */
    tni_adapter adapter;
};

/* ---- load.c ---- */
int tni_llm_load(const char *path, tn_llm *m);

/* ---- forward.c ---- */

/* The cache of one layer: keys [1, kv_heads, head_dim, capacity], so that the scores of one query
 * read them in order; values [1, kv_heads, capacity, head_dim]. */
typedef struct tni_kv {
    tn_array *k, *v;
} tni_kv;

/* One run of the decoder. With caches: one sequence that goes on after `past` positions. Without:
 * sequences that begin, for training. */
typedef struct tni_pass {
    int64_t batch, tokens, past;
    const tni_kv *kv; /* of every layer, or NULL */
    tni_kv *next;     /* receives the layers' new caches; nothing is evaluated */
    bool all;         /* scores of all tokens, not of the last alone */
    tn_array *key;    /* of random numbers: adapters drop inputs; NULL: they do not */
    /* For each layer what tn_checkpoint runs again: must live as long as the result can be
     * differentiated. NULL: everything is kept. */
    struct tni_layer_call *again;
} tni_pass;

typedef struct tni_layer_call {
    tn_llm *m;
    tni_pass pass;
    int64_t layer;
} tni_layer_call;

/* Scores of the tokens `ids` [batch * tokens], i32: [batch * tokens, vocab], or [1, vocab]. */
tn_array *tni_llm_forward(tn_llm *m, const tni_pass *p, tn_array *ids);

/* ---- lora.c ---- */

/* One matrix that may have an adapter. */
typedef struct tni_site {
    const char *key; /* "self_attn.q_proj": its name inside the layer */
    tni_lora *lora;
    int64_t in, out;
    int64_t pairs; /* heads whose rows GGUF keeps in pairs; 0: in Hugging Face's order */
} tni_site;
/* The matrices of layer i; how many. */
int tni_lora_sites(const tn_llm *m, int64_t i, tni_site out[TNI_LORA_SITES]);
int64_t tni_lora_numbers(const tn_llm *m); /* in all adapters */
/* "model.layers.3.self_attn.q_proj" */
void tni_lora_name(const tn_llm *m, int64_t layer, const char *key, char *buf, size_t n);

/* ---- sample.c ---- */
typedef struct tni_rng {
    uint64_t seed, count;
} tni_rng;

/* Picks a token from `n` scores. `work` has room for n (score, id) pairs. */
typedef struct tni_candidate {
    float logit;
    int32_t id;
} tni_candidate;
int32_t tni_sample(const float *logits, int64_t n, const tn_llm_sampler *opt, const int32_t *recent,
                   size_t n_recent, tni_rng *rng, tni_candidate *work);
/* The k best in order. */
void tni_top(const float *logits, int64_t n, int k, tni_candidate *best);

#endif
