/* A tokenizer from GGUF metadata. The file names its pre-tokenizer instead of describing it. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tok.h"
#include <string.h>

enum { GGUF_PATTERNS = 6, GGUF_CONTROL = 3, GGUF_USER = 4 };

typedef struct gguf_pretok {
    const char *name;
    bool ignore_merges;
    const char *pattern[GGUF_PATTERNS];
} gguf_pretok;

static const gguf_pretok gguf_pretoks[] = {
#define PRETOK(name, ignore_merges, ...) {name, ignore_merges, {__VA_ARGS__}},
#include "llm/pretok.def"
#undef PRETOK
};

static int gguf_pre(tni_tok *t, const char *name, bool prefix_space) {
    const gguf_pretok *row = NULL;
    if (!name) name = "default";
    for (size_t i = 0; i < sizeof gguf_pretoks / sizeof *gguf_pretoks && !row; i++)
        if (!strcmp(gguf_pretoks[i].name, name)) row = &gguf_pretoks[i];
    if (!row)
        return tni_fail(TN_EFORMAT, "the pre-tokenizer \"%s\" (tokenizer.ggml.pre) is not known",
                        name);
    t->ignore_merges = row->ignore_merges;
    int status = 0;
    for (int i = 0; i < GGUF_PATTERNS && row->pattern[i] && !status; i++) {
        tok_pre *p = &t->pre[t->n_pre++];
        p->behavior = TOK_ISOLATED, p->prefix_space = prefix_space && !i;
        status = tni_tok_regex_new(row->pattern[i], strlen(row->pattern[i]), &p->regex);
    }
    return status;
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

static int gguf_around(tni_tok *t, const tni_tok_source *s) {
    int status = 0;
    if (s->bos >= t->n_tokens || s->eos >= t->n_tokens || s->unk >= t->n_tokens)
        return tni_fail(TN_EFORMAT, "a special token's id is beyond the vocabulary of %lld",
                        (long long)t->n_tokens);
    if (s->add_bos && s->bos >= 0) status = tni_tok_push_id(&t->before, s->bos);
    if (!status && s->add_eos && s->eos >= 0) status = tni_tok_push_id(&t->after, s->eos);
    return status;
}

static int gguf_build(tni_tok *t, const tni_tok_source *s) {
    t->byte_level = true;
    int status = gguf_tokens(t, s);
    if (!status) status = gguf_merges(t, s);
    if (!status) status = gguf_pre(t, s->pre, s->add_space_prefix);
    if (!status) status = gguf_around(t, s);
    t->unk = -1; /* byte-level vocabularies have every byte; the id is of other models */
    return status ? status : tni_tok_finish(t);
}

int tni_tok_from_gguf(const tni_tok_source *s, tni_tok **out) {
    *out = NULL;
    if (!s->model || strcmp(s->model, "gpt2"))
        return tni_fail(TN_EFORMAT,
                        "the tokenizer \"%s\" (tokenizer.ggml.model) is not supported; \"gpt2\" is",
                        s->model ? s->model : "");
    if (s->n_tokens < 1 || s->n_tokens > TOK_MAX_VOCAB)
        return tni_fail(TN_EFORMAT, "a vocabulary of %lld tokens; 1 to %d are possible",
                        (long long)s->n_tokens, TOK_MAX_VOCAB);
    tni_tok *t = tni_calloc(1, sizeof *t);
    int status = t ? gguf_build(t, s) : tni_fail_memory(sizeof *t, "a tokenizer");
    if (status)
        tni_tok_free(t);
    else
        *out = t;
    return status;
}
