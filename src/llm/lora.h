/* Adapters as the files that train, save and fuse them see them. */
#ifndef TNI_LLM_LORA_H
#define TNI_LLM_LORA_H

#include "llm/model.h"

enum { TNI_LORA_RANK = 4096 }; /* the largest rank; beyond it nothing is gained */

/* Calls fn for every matrix of every layer, with an adapter or not, until one call fails. */
int tni_lora_each(const tn_llm *m,
                  int (*fn)(const tn_llm *m, int64_t layer, const tni_site *s, void *ud), void *ud);
/* Whether the list "a,b" has the key; NULL has all. */
bool tni_lora_has_key(const char *keys, const char *key);

/* The adapters of `fresh` (a pair for each call of tni_lora_each, in its order) take the place of
 * the model's; their arrays and a->keys then belong to the model. */
void tni_lora_exchange(tn_llm *m, const tni_adapter *a, tni_lora *fresh);
/* The end of a `fresh` that was not used: layers * TNI_LORA_SITES pairs. */
void tni_lora_release(const tn_llm *m, tni_adapter *a, tni_lora *fresh);

/* b between the model's own order of columns and Hugging Face's. */
tn_array *tni_lora_to_hf(const tni_site *s, tn_array *b);
tn_array *tni_lora_from_hf(const tni_site *s, tn_array *b);

/* adapters.safetensors (or another name) and adapter_config.json of the model's adapter. */
int tni_lora_write(const tn_llm *m, const char *path);
int tni_lora_write_config(const tn_llm *m, const char *path);
/* The pairs of a safetensors file into `fresh`; every tensor of the file must be one of them. */
int tni_lora_read(const tn_llm *m, const char *path, const tni_adapter *a, tni_lora *fresh);

#endif
