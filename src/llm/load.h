/* The steps of loading: shape (config.c), weights (load.c), affine blocks (affine.c), text
 * (text.c). */
#ifndef TNI_LLM_LOAD_H
#define TNI_LLM_LOAD_H

#include "llm/model.h"
#include "llm/source.h"

int tni_llm_load_config(tn_llm *m); /* arch and shape; checks ranges */
int tni_llm_load_weights(tn_llm *m);
int tni_llm_load_text(tn_llm *m, const char *path); /* tokenizer, template, ends */

/* A stack of GGUF matrices in MLX's affine layout: one block of memory, three views of it. */
typedef struct tni_affine {
    void *q, *scales, *biases;
    bool f32; /* scales and biases are f32, since f16 would lose */
    size_t bytes;
    void *owner; /* each of the three is released with tni_affine_release(owner) */
} tni_affine;
int tni_affine_bits(int gguf_type); /* 4, 5 or 8; 0: not a type that maps without loss */
int tni_affine_make(int gguf_type, int bits, int n, const void *const *data, const int64_t *rows,
                    int64_t cols, tni_affine *out);
void tni_affine_release(void *owner);

/* MLX's group and bits of a matrix of `cols` whose packed rows have `words` and scales `groups`. */
int tni_load_quant(const tni_source *s, const char *name, int64_t cols, int64_t words,
                   int64_t groups, int *group, int *bits);
/* The tensor of an adapter's matrix ("self_attn.q_proj"); false when the files have none. */
bool tni_load_site(const tn_llm *m, int64_t layer, const char *key, const char *suffix,
                   tni_weight *w);
bool tni_load_is_packed(const tni_weight *w); /* safetensors U32 */

#endif
