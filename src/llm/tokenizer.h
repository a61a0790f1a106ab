/* BPE tokenizers, from tokenizer.json and (byte-level ones) from GGUF metadata: text to ids and
 * back, with the ids of Hugging Face's `tokenizers`. A tokenizer is immutable: any thread may use
 * it. */
#ifndef TNI_LLM_TOKENIZER_H
#define TNI_LLM_TOKENIZER_H

#include "base/str.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tni_tok tni_tok;

/* What GGUF's tokenizer.ggml.* say. Strings are borrowed during the call. */
typedef struct tni_tok_source {
    const char *model, *pre; /* "gpt2" or "llama"; a row of pretok.def, or NULL */
    int64_t n_tokens;
    const tni_bytes *tokens;
    const int32_t *types; /* token_type of each, or NULL */
    const float *scores;  /* of each, or NULL */
    int64_t n_merges;
    const tni_bytes *merges;                /* "left right" */
    int32_t bos, eos, unk;                  /* -1: none */
    int add_bos, add_eos, add_space_prefix; /* -1: the file does not say */
} tni_tok_source;

int tni_tok_from_gguf(const tni_tok_source *src, tni_tok **out);
/* `name` is for messages. */
int tni_tok_from_json(const char *text, size_t n, const char *name, tni_tok **out);
int tni_tok_open(const char *path, tni_tok **out); /* a tokenizer.json */
void tni_tok_free(tni_tok *t);

typedef struct tni_ids {
    int32_t *v;
    size_t n, cap;
} tni_ids;

enum {
    TNI_TOK_SPECIAL = 1, /* special tokens written in the text are recognised */
    TNI_TOK_TEMPLATE = 2 /* what the file says stands before and after a text is added */
};
/* Appends the ids of text[0..n), which need not be valid UTF-8 (bytes that are not stay bytes).
 * After an error `ids` is as it was. */
int tni_tok_encode(const tni_tok *t, const char *text, size_t n, int flags, tni_ids *ids);
/* The same, where literal[i] != 0 (NULL: none) says that byte i came from a message: no special or
 * added token is recognised that takes in such a byte. */
int tni_tok_encode_spans(const tni_tok *t, const char *text, size_t n, const uint8_t *literal,
                         int flags, tni_ids *ids);

/* Appends the text. Bytes that are not UTF-8 become U+FFFD, one for each maximal part, as in
 * Rust's from_utf8_lossy. TN_EINDEX for an id that is none. */
int tni_tok_decode(const tni_tok *t, const int32_t *ids, size_t n, bool skip_special, tni_str *out);

/* Decoding as ids come: never emits part of a character. Starts as {0}. */
typedef struct tni_detok {
    char held[4]; /* an unfinished character */
    size_t n;
    uint32_t stripped; /* characters taken away at the beginning */
    bool begun, pushed;
} tni_detok;
int tni_detok_push(tni_detok *d, const tni_tok *t, int32_t id, tni_str *out);
int tni_detok_finish(tni_detok *d, tni_str *out); /* what is held becomes U+FFFD */
void tni_detok_free(tni_detok *d);

/* The bytes a token stands for; false when there is no such token. Valid as long as `t`. */
bool tni_tok_token_bytes(const tni_tok *t, int32_t id, const char **s, size_t *n);
int32_t tni_tok_id(const tni_tok *t, const char *text, size_t n); /* as in the file; -1: none */
int64_t tni_tok_vocab_size(const tni_tok *t);
bool tni_tok_is_special(const tni_tok *t, int32_t id);

#endif
