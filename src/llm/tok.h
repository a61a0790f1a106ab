/* Inside of a tokenizer: the stages a text goes through, in order.
 *   added     tokens written in the text are cut out (trie, leftmost longest)
 *   normal    Unicode normalisation of what lies between
 *   pre       regular expressions cut it into words
 *   merge     a word's bytes are merged pair by pair, best rank first */
#ifndef TNI_LLM_TOK_H
#define TNI_LLM_TOK_H

#include "base/hash.h"
#include "base/vec.h"
#include "llm/tokenizer.h"

enum { TOK_MAX_VOCAB = 1 << 24, TOK_MAX_STEPS = 32, TOK_MAX_PIECE = 1024 };

typedef struct tok_token {
    tni_bytes raw;   /* as the file writes it */
    tni_bytes bytes; /* what it stands for */
    bool special, added;
    bool byte; /* "<0xNN>", one byte of a character that has no token */
} tok_token;

/* What the decoder does, of tokenizers that do not work on bytes. */
typedef struct tok_decoder {
    tni_bytes from, with; /* in each token, first of all; from.n 0: nothing */
    bool byte_fallback;   /* "<0xNN>" is a byte */
    bool metaspace;       /* `from` vanishes from the first token */
    tni_bytes strip;      /* one character, taken away at the ends of the text */
    int strip_begin, strip_end;
} tok_decoder;

/* ---- added tokens ---- */

typedef struct tok_added {
    tni_bytes text;
    int32_t id;
    bool special, normalized, lstrip, rstrip, single_word;
} tok_added;

typedef struct tok_trie_node {
    int32_t child, next; /* first child; next of the same parent; 0: none */
    int32_t token;       /* index into added, or -1 */
    uint8_t byte;
} tok_trie_node;

typedef struct tok_trie {
    TNI_VEC(tok_trie_node) nodes;
    bool first[256]; /* bytes a token may begin with */
} tok_trie;

/* ---- normalisers and pre-tokenizers ---- */

typedef enum tok_norm_kind {
    TOK_NFC,
    TOK_NFD,
    TOK_NFKC,
    TOK_NFKD,
    TOK_LOWER,
    TOK_STRIP,
    TOK_STRIP_ACCENTS,
    TOK_PREPEND,
    TOK_REPLACE
} tok_norm_kind;

typedef struct tok_norm {
    tok_norm_kind kind;
    bool left, right;     /* strip */
    tni_bytes from, with; /* replace, prepend */
    struct tok_regex *regex;
} tok_norm;

typedef enum tok_behavior {
    TOK_ISOLATED,
    TOK_REMOVED,
    TOK_WITH_PREVIOUS,
    TOK_WITH_NEXT,
    TOK_CONTIGUOUS
} tok_behavior;

typedef struct tok_pre {
    struct tok_regex *regex; /* NULL: no cut, only the space */
    tok_behavior behavior;
    bool invert, prefix_space;
    tni_bytes metaspace; /* stands for a space; n 0: this step is none */
    enum { TOK_NEVER, TOK_FIRST, TOK_ALWAYS } prepend;
} tok_pre;

/* One right-hand side for a pair of ids, in a table with open addressing. */
typedef struct tok_pair {
    uint64_t pair; /* left << 32 | right; UINT64_MAX: empty */
    int32_t rank, id;
} tok_pair;

struct tni_tok {
    tok_token *token;
    int64_t n_tokens;
    char *text; /* the tokens' bytes, one block */
    tni_map by_raw;
    tok_pair *pairs;
    uint64_t pair_mask, pair_seed;
    bool byte_level;      /* tokens are written in GPT-2's alphabet; else as they are */
    int32_t byte_id[256]; /* of each single byte; -1: none */
    int32_t unk;
    bool ignore_merges, fuse_unk;
    bool byte_fallback; /* a character without a token: its bytes', if all have one; else unk */
    tok_decoder decoder;
    TNI_VEC(tok_added) added;
    tok_trie plain, normal; /* tokens looked for before and after normalisation */
    tok_norm norm[TOK_MAX_STEPS];
    int n_norm;
    tok_pre pre[TOK_MAX_STEPS];
    int n_pre;
    tni_ids before, after; /* what TNI_TOK_TEMPLATE adds */
    TNI_VEC(char *) owned; /* strings of the steps */
};

/* ---- tok_build.c: from parts to a tokenizer ---- */

/* A token's text as files write it. In byte-level tokenizers added ones stand for themselves,
 * others for bytes in GPT-2's alphabet (one printable character a byte); byte_level and decoder
 * are set before. */
size_t tni_tok_to_alphabet(const char *s, size_t n, char *to); /* to: 2 n bytes and 2 to spare */
int tni_tok_set_tokens(tni_tok *t, const tni_bytes *raw, int64_t n, const bool *is_added);
int tni_tok_add_merge(tni_tok *t, tni_bytes left, tni_bytes right, int32_t rank);
int tni_tok_reserve_merges(tni_tok *t, int64_t n);
/* Copies; NULL when memory is out. */
const char *tni_tok_own(tni_tok *t, const char *s, size_t n);
int tni_tok_add_added(tni_tok *t, tok_added a);
int tni_tok_finish(tni_tok *t);

/* ---- tok_regex.c ---- */

/* Oniguruma's syntax as tokenizer.json uses it. */
int tni_tok_regex_new(const char *pattern, size_t n, struct tok_regex **out);
void tni_tok_regex_free(struct tok_regex *r);
/* The first match at or after `from`, where the one before ended: 1 and its ends, 0 for none, or a
 * status. Matches may be empty, but not where the one before ended (again). A cursor holds what one
 * thread needs to match; one is enough for a whole encoding. */
typedef struct tok_cursor {
    struct pcre2_real_match_data_8 *data;
    struct pcre2_real_match_context_8 *limits;
    struct pcre2_real_jit_stack_8 *stack; /* when the small one that PCRE2 has does not do */
} tok_cursor;
int tni_tok_regex_next(const struct tok_regex *r, tok_cursor *c, const char *s, size_t n,
                       size_t from, bool again, size_t *begin, size_t *end);
void tni_tok_cursor_free(tok_cursor *c);

/* ---- tok_norm.c, tok_pre.c, tni_tok_merge.c ---- */

bool tni_tok_is_space(uint32_t c);
bool tni_tok_is_word(uint32_t c);
/* Text after all normalisers, appended to `out`. */
int tni_tok_normalize(const tni_tok *t, tok_cursor *c, const char *s, size_t n, tni_str *out);

typedef struct tok_span {
    size_t begin, end;
} tok_span;
typedef struct tok_words {
    tni_str text; /* spans point into it */
    TNI_VEC(tok_span) spans;
    TNI_VEC(tok_span) next; /* work */
} tok_words;
/* Cuts words->text, given as one span, by all steps; `first`: the whole text begins with it. */
int tni_tok_pretokenize(const tni_tok *t, tok_cursor *c, tok_words *w, bool first);
void tni_tok_words_free(tok_words *w);

typedef struct tok_work tok_work;
struct tok_work { /* buffers of tni_tok_merge, kept between words */
    TNI_VEC(int32_t) start;
    TNI_VEC(struct tok_symbol) symbols;
    TNI_VEC(struct tok_candidate) heap;
};
int tni_tok_merge(const tni_tok *t, tok_work *work, const char *s, size_t n, tni_ids *ids);
void tni_tok_work_free(tok_work *w);

const tok_pair *tni_tok_find_pair(const tni_tok *t, int32_t left, int32_t right); /* or NULL */
int tni_tok_push_id(tni_ids *ids, int32_t id);

#endif
