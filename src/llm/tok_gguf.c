/* A tokenizer from GGUF metadata: byte-level BPE, whose pre-tokenizer the file names instead of
 * describing it, and SentencePiece's BPE, which has scores instead of merges. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tok.h"
#include <stdlib.h>
#include <string.h>

enum { GGUF_PATTERNS = 6, GGUF_CONTROL = 3, GGUF_USER = 4, GGUF_BYTE = 6 };
enum { PRETOK_IGNORE_MERGES = 1, PRETOK_ADD_BOS = 2, PRETOK_PIECES = 4 /* no bytes' alphabet */ };

typedef struct gguf_pretok {
    const char *name;
    int flags;
    const char *pattern[GGUF_PATTERNS];
} gguf_pretok;

static const gguf_pretok gguf_pretoks[] = {
#define PRETOK(name, flags, ...) {name, flags, {__VA_ARGS__}},
#include "llm/pretok.def"
#undef PRETOK
};

#define GGUF_SPACE "\xe2\x96\x81" /* U+2581 stands for a space */

static int gguf_find_pre(const char *name, const gguf_pretok **out) {
    if (!name) name = "default";
    for (size_t i = 0; i < sizeof gguf_pretoks / sizeof *gguf_pretoks; i++)
        if (!strcmp(gguf_pretoks[i].name, name)) return *out = &gguf_pretoks[i], 0;
    return tni_fail(TN_EFORMAT, "the pre-tokenizer \"%s\" (tokenizer.ggml.pre) is not known", name);
}

static int gguf_pre(tni_tok *t, const gguf_pretok *row, bool prefix_space) {
    int status = 0;
    for (int i = 0; i < GGUF_PATTERNS && row->pattern[i] && !status; i++) {
        tok_pre *p = &t->pre[t->n_pre++];
        p->behavior = TOK_ISOLATED, p->prefix_space = prefix_space && !i;
        status = tni_tok_regex_new(row->pattern[i], strlen(row->pattern[i]), &p->regex);
    }
    return status;
}

/* Spaces become marks, one more in front if so wished; back again when decoding. */
static void gguf_marks(tni_tok *t, bool prefix) {
    static const tni_bytes mark = {GGUF_SPACE, 3}, space = {" ", 1};
    if (prefix) t->norm[t->n_norm++] = (tok_norm){.kind = TOK_PREPEND, .with = mark};
    t->norm[t->n_norm++] = (tok_norm){.kind = TOK_REPLACE, .from = space, .with = mark};
    t->byte_fallback = t->decoder.byte_fallback = true;
    t->decoder.from = mark, t->decoder.with = space;
    if (prefix) t->decoder.strip = space, t->decoder.strip_begin = 1;
}

static int gguf_type(const tni_tok_source *s, int64_t i) { return s->types ? s->types[i] : 1; }

static int gguf_tokens(tni_tok *t, const tni_tok_source *s) {
    bool *is_added = tni_calloc((size_t)s->n_tokens, sizeof *is_added);
    if (!is_added) return tni_fail_memory((size_t)s->n_tokens, "the vocabulary");
    for (int64_t i = 0; i < s->n_tokens; i++)
        is_added[i] = gguf_type(s, i) == GGUF_CONTROL || gguf_type(s, i) == GGUF_USER;
    int status = tni_tok_set_tokens(t, s->tokens, s->n_tokens, is_added);
    for (int64_t i = 0; i < s->n_tokens && !status; i++)
        if (is_added[i])
            status = tni_tok_add_added(t, (tok_added){.text = s->tokens[i],
                                                      .id = (int32_t)i,
                                                      .special = gguf_type(s, i) == GGUF_CONTROL});
    tni_free(is_added);
    return status;
}

static int gguf_merges(tni_tok *t, const tni_tok_source *s) {
    int status = tni_tok_reserve_merges(t, s->n_merges);
    for (int64_t i = 0; i < s->n_merges && !status; i++) {
        tni_bytes m = s->merges[i];
        /* A token may begin with the space that parts them, never end with it. */
        const char *space = m.n > 1 ? memchr(m.s + 1, ' ', m.n - 1) : NULL;
        size_t left = space ? (size_t)(space - m.s) : 0;
        if (!space)
            status = tni_fail(TN_EFORMAT, "merge %lld is not a pair of tokens", (long long)i);
        else
            status = tni_tok_add_merge(t, (tni_bytes){m.s, left},
                                       (tni_bytes){space + 1, m.n - left - 1}, (int32_t)i);
    }
    return status;
}

/* ---- SentencePiece: the token of the highest score that two neighbours make ---- */

typedef struct gguf_score {
    float score;
    int32_t id;
} gguf_score;

static int gguf_by_score(const void *a, const void *b) {
    float x = ((const gguf_score *)a)->score, y = ((const gguf_score *)b)->score;
    return (x < y) - (x > y);
}

/* All pairs of tokens that make token `id`. */
static int gguf_pairs_of(tni_tok *t, int32_t id, int32_t rank, bool count, int64_t *n) {
    tni_bytes s = t->token[id].raw;
    int status = 0;
    for (size_t i = 1; i < s.n && !status; i++) {
        tni_bytes left = {s.s, i}, right = {s.s + i, s.n - i};
        if (((uint8_t)s.s[i] & 0xc0) == 0x80 || tni_tok_id(t, left.s, left.n) < 0 ||
            tni_tok_id(t, right.s, right.n) < 0)
            continue;
        ++*n;
        if (!count) status = tni_tok_add_merge(t, left, right, rank);
    }
    return status;
}

static int gguf_rank(tni_tok *t, const tni_tok_source *s, gguf_score *order) {
    int64_t n = 0, pairs = 0;
    for (int64_t i = 0; i < s->n_tokens; i++) {
        int type = s->types ? s->types[i] : 1;
        if ((type != 1 && type != GGUF_USER) || s->tokens[i].n > TOK_MAX_PIECE) continue;
        order[n++] = (gguf_score){s->scores[i] == s->scores[i] ? s->scores[i] : 0, (int32_t)i};
    }
    qsort(order, (size_t)n, sizeof *order, gguf_by_score);
    for (int64_t i = 0; i < n; i++) gguf_pairs_of(t, order[i].id, 0, true, &pairs);
    int status = tni_tok_reserve_merges(t, pairs);
    for (int64_t i = 0, rank = 0; i < n && !status; i++) {
        if (i && order[i].score != order[i - 1].score) rank = i;
        status = gguf_pairs_of(t, order[i].id, (int32_t)rank, false, &pairs);
    }
    return status;
}

static int gguf_pieces(tni_tok *t, const tni_tok_source *s) {
    if (!s->scores) return tni_fail(TN_EFORMAT, "the file has no scores (tokenizer.ggml.scores)");
    gguf_score *order = tni_alloc_array((size_t)s->n_tokens, sizeof *order);
    if (!order) return tni_fail_memory((size_t)s->n_tokens * sizeof *order, "the vocabulary");
    int status = gguf_rank(t, s, order);
    tni_free(order);
    return status;
}

/* ---- all ---- */

static int gguf_around(tni_tok *t, const tni_tok_source *s, bool add_bos) {
    int status = 0;
    if (s->bos >= t->n_tokens || s->eos >= t->n_tokens || s->unk >= t->n_tokens)
        return tni_fail(TN_EFORMAT, "a special token's id is beyond the vocabulary of %lld",
                        (long long)t->n_tokens);
    if ((s->add_bos < 0 ? add_bos : s->add_bos) && s->bos >= 0)
        status = tni_tok_push_id(&t->before, s->bos);
    if (!status && s->add_eos > 0 && s->eos >= 0) status = tni_tok_push_id(&t->after, s->eos);
    return status;
}

static int gguf_bytes(tni_tok *t, const tni_tok_source *s, const char *pre) {
    const gguf_pretok *row = NULL;
    int status = gguf_find_pre(pre, &row);
    if (status) return status;
    t->byte_level = !(row->flags & PRETOK_PIECES);
    t->ignore_merges = row->flags & PRETOK_IGNORE_MERGES;
    if (!t->byte_level) gguf_marks(t, s->add_space_prefix > 0);
    status = gguf_tokens(t, s);
    if (!status) status = gguf_merges(t, s);
    if (!status) status = gguf_pre(t, row, t->byte_level && s->add_space_prefix > 0);
    if (!status) status = gguf_around(t, s, row->flags & PRETOK_ADD_BOS);
    t->unk = t->byte_level ? -1 : s->unk; /* byte-level files name one that they do not use */
    return status;
}

static int gguf_sentencepiece(tni_tok *t, const tni_tok_source *s) {
    gguf_marks(t, s->add_space_prefix != 0);
    int status = gguf_tokens(t, s);
    if (!status) status = gguf_pieces(t, s);
    if (!status) status = gguf_around(t, s, true);
    t->unk = s->unk;
    return status;
}

/* "gemma4" is the model and the pre-tokenizer at once. */
static int gguf_build(tni_tok *t, const tni_tok_source *s) {
    if (s->model && !strcmp(s->model, "llama")) return gguf_sentencepiece(t, s);
    if (s->model && !strcmp(s->model, "gpt2")) return gguf_bytes(t, s, s->pre);
    if (s->model && !strcmp(s->model, "gemma4")) return gguf_bytes(t, s, s->model);
    return tni_fail(TN_EFORMAT,
                    "the tokenizer \"%s\" (tokenizer.ggml.model) is not supported; \"gpt2\", "
                    "\"llama\" and \"gemma4\" are",
                    s->model ? s->model : "");
}

int tni_tok_from_gguf(const tni_tok_source *s, tni_tok **out) {
    *out = NULL;
    if (s->n_tokens < 1 || s->n_tokens > TOK_MAX_VOCAB)
        return tni_fail(TN_EFORMAT, "a vocabulary of %lld tokens; 1 to %d are possible",
                        (long long)s->n_tokens, TOK_MAX_VOCAB);
    tni_tok *t = tni_calloc(1, sizeof *t);
    int status = t ? gguf_build(t, s) : tni_fail_memory(sizeof *t, "a tokenizer");
    if (!status) status = tni_tok_finish(t);
    if (status)
        tni_tok_free(t);
    else
        *out = t;
    return status;
}
