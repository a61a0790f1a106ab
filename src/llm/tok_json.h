/* The parts of tokenizer.json: each adds its steps to a tokenizer. NULL and null add none. */
#ifndef TNI_LLM_TOK_JSON_H
#define TNI_LLM_TOK_JSON_H

#include "llm/tok.h"
#include <jansson.h>

extern const char *const tni_tok_gpt2_pattern; /* encoder.py of GPT-2 */

int tni_tok_json_normalizer(tni_tok *t, const json_t *o, int depth);
int tni_tok_json_pretokenizer(tni_tok *t, const json_t *o, int depth);
int tni_tok_json_decoder(tni_tok *t, const json_t *o, int depth);
int tni_tok_json_processor(tni_tok *t, const json_t *o, int depth);

#endif
