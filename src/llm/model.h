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

/* y = x w^T + bias, w [out, in] (or [in, out] when flipped); quantised when scales is set. */
typedef struct tni_linear {
    tn_array *w, *scales, *biases, *bias;
    int group, bits;
    bool flipped;
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
};

/* ---- load.c ---- */
int tni_llm_load(const char *path, tn_llm *m);

/* ---- forward.c ---- */

/* The cache of one layer: keys [1, kv_heads, head_dim, capacity], so that the scores of one query
 * read them in order; values [1, kv_heads, capacity, head_dim]. */
typedef struct tni_kv {
    tn_array *k, *v;
} tni_kv;

/* Scores of `n` tokens that follow `past` positions: of the last alone [1, vocab], or of all
 * [n, vocab]. `next` receives the layers' new caches; nothing is evaluated. */
tn_array *tni_llm_forward(const tn_llm *m, const int32_t *ids, int64_t n, int64_t past,
                          const tni_kv *kv, tni_kv *next, bool all);

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
