/* Text to ids: added tokens cut the text, what lies between is normalised, cut into words and
 * merged. Follows added_vocabulary.rs of Hugging Face's `tokenizers`: first the tokens that are
 * looked for in the raw text, then, between them, those looked for after normalisation. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tok.h"
#include <string.h>

typedef struct encoder {
    const tni_tok *t;
    int flags;
    bool first; /* what is being encoded begins the text */
    tni_ids *ids;
    tok_cursor cursor[2]; /* of normalisers and of pre-tokenizers */
    tok_words words;
    tok_work work;
} encoder;

/* ---- words ---- */

static int encode_normal(encoder *e, const char *s, size_t n) {
    e->words.text.n = 0;
    if (!n) return 0;
    if (tni_str_append(&e->words.text, s, n)) return tni_fail_memory(n, "cutting text");
    int status = tni_tok_pretokenize(e->t, &e->cursor[1], &e->words, e->first);
    for (size_t i = 0; i < e->words.spans.n && !status; i++) {
        tok_span w = e->words.spans.v[i];
        status = tni_tok_merge(e->t, &e->work, e->words.text.v + w.begin, w.end - w.begin, e->ids);
    }
    return status;
}

/* ---- added tokens ---- */

typedef struct match {
    size_t begin, end;
    int32_t token; /* index into added */
} match;

/* The longest token at s[at..), none of whose bytes are literal. */
static bool encode_match(const tok_trie *trie, const char *s, size_t n, const uint8_t *literal,
                         size_t at, match *m) {
    int32_t node = 0;
    m->token = -1;
    for (size_t i = at; i < n && !(literal && literal[i]); i++) {
        int32_t child = trie->nodes.v[node].child;
        while (child && trie->nodes.v[child].byte != (uint8_t)s[i])
            child = trie->nodes.v[child].next;
        if (!child) break;
        node = child;
        if (trie->nodes.v[node].token >= 0) *m = (match){at, i + 1, trie->nodes.v[node].token};
    }
    return m->token >= 0;
}

/* The character before (or at) `at`, and how many bytes it has; 0 at the text's ends. */
static size_t encode_char(const char *s, size_t n, size_t at, bool before, uint32_t *c) {
    size_t from = at;
    *c = 0;
    if (before ? !at : at >= n) return 0;
    if (before)
        for (from--; from && ((uint8_t)s[from] & 0xc0) == 0x80;) from--;
    int len = tni_utf8_decode(s + from, n - from, c);
    return len > 0 ? (size_t)len : 1;
}

static bool encode_is_word(const char *s, size_t n, size_t at, bool before) {
    uint32_t c;
    return encode_char(s, n, at, before, &c) && tni_tok_is_word(c);
}

static size_t encode_space(const char *s, size_t n, size_t at, bool before) {
    uint32_t c;
    size_t len = encode_char(s, n, at, before, &c);
    return len && tni_tok_is_space(c) ? len : 0;
}

/* Whether the match counts; with lstrip and rstrip it takes in the spaces beside it that are not
 * literal. */
static bool encode_accept(const encoder *e, const char *s, size_t n, const uint8_t *literal,
                          size_t from, match *m) {
    const tok_added *a = &e->t->added.v[m->token];
    if (a->special && !(e->flags & TNI_TOK_SPECIAL)) return false;
    if (a->single_word &&
        (encode_is_word(s, n, m->begin, true) || encode_is_word(s, n, m->end, false)))
        return false;
    size_t len;
    while (a->lstrip && m->begin > from && !(literal && literal[m->begin - 1]) &&
           (len = encode_space(s, n, m->begin, true)))
        m->begin -= len;
    while (a->rstrip && !(literal && m->end < n && literal[m->end]) &&
           (len = encode_space(s, n, m->end, false)))
        m->end += len;
    return true;
}

/* The next match from `from` on that counts. One that does not takes its text with it, as in
 * `tokenizers`. */
static bool encode_next(const encoder *e, const tok_trie *trie, const char *s, size_t n,
                        const uint8_t *literal, size_t from, match *m) {
    size_t at = from;
    if (!trie->nodes.n) return false;
    while (at < n) {
        if (!trie->first[(uint8_t)s[at]] || !encode_match(trie, s, n, literal, at, m)) {
            at++;
            continue;
        }
        at = m->end;
        if (encode_accept(e, s, n, literal, from, m)) return true;
    }
    return false;
}

static int encode_raw(encoder *e, const char *s, size_t n) {
    tni_str text = {0};
    if (!e->t->n_norm || !n) return encode_normal(e, s, n);
    int status = tni_tok_normalize(e->t, &e->cursor[0], s, n, &text);
    if (!status) status = encode_normal(e, text.v ? text.v : "", text.n);
    tni_str_free(&text);
    return status;
}

/* Cuts s at the tokens of one trie; `piece` gets what lies between. */
static int encode_cut(encoder *e, const tok_trie *trie, const char *s, size_t n,
                      const uint8_t *literal,
                      int (*piece)(encoder *, const char *, size_t, const uint8_t *)) {
    size_t from = 0;
    match m;
    int status = 0;
    bool first = e->first;
    while (!status && encode_next(e, trie, s, n, literal, from, &m)) {
        e->first = first && !from;
        status = piece(e, s + from, m.begin - from, literal ? literal + from : NULL);
        if (!status) status = tni_tok_push_id(e->ids, e->t->added.v[m.token].id);
        from = m.end;
    }
    e->first = first && !from;
    return status ? status : piece(e, s + from, n - from, literal ? literal + from : NULL);
}

static int encode_words(encoder *e, const char *s, size_t n, const uint8_t *literal) {
    return literal ? encode_raw(e, s, n) : encode_normal(e, s, n);
}

/* Between tokens of the raw text. With literal bytes the others are looked for in the raw text
 * too, since normalisation moves bytes. */
static int encode_between(encoder *e, const char *s, size_t n, const uint8_t *literal) {
    tni_str text = {0};
    if (!n) return 0;
    if (literal || !e->t->n_norm) return encode_cut(e, &e->t->normal, s, n, literal, encode_words);
    int status = tni_tok_normalize(e->t, &e->cursor[0], s, n, &text);
    if (!status)
        status = encode_cut(e, &e->t->normal, text.v ? text.v : "", text.n, NULL, encode_words);
    tni_str_free(&text);
    return status;
}

/* ---- bytes that are not UTF-8 ---- */

static size_t encode_valid(const char *s, size_t n) {
    size_t i = 0;
    uint32_t c;
    while (i < n) {
        int len = (uint8_t)s[i] < 0x80 ? 1 : tni_utf8_decode(s + i, n - i, &c);
        if (len <= 0) break;
        i += (size_t)len;
    }
    return i;
}

/* Stretches of UTF-8 go the whole way; each stray byte is a word of its own. */
static int encode_bytes(encoder *e, const char *s, size_t n, const uint8_t *literal) {
    int status = 0;
    for (size_t at = 0; at < n && !status;) {
        size_t len = encode_valid(s + at, n - at);
        const uint8_t *marks = literal ? literal + at : NULL;
        e->first = !at;
        if (len) status = encode_cut(e, &e->t->plain, s + at, len, marks, encode_between);
        at += len;
        if (!status && at < n) status = tni_tok_merge(e->t, &e->work, s + at++, 1, e->ids);
    }
    return status;
}

static int encode_template(const tni_ids *list, int flags, tni_ids *ids) {
    int status = 0;
    for (size_t i = 0; i < list->n && flags & TNI_TOK_TEMPLATE && !status; i++)
        status = tni_tok_push_id(ids, list->v[i]);
    return status;
}

int tni_tok_encode_spans(const tni_tok *t, const char *text, size_t n, const uint8_t *literal,
                         int flags, tni_ids *ids) {
    encoder e = {.t = t, .flags = flags, .ids = ids};
    size_t before = ids->n;
    int status = encode_template(&t->before, flags, ids);
    if (!status) status = encode_bytes(&e, text, n, literal);
    if (!status) status = encode_template(&t->after, flags, ids);
    if (status) ids->n = before;
    tni_tok_cursor_free(&e.cursor[0]);
    tni_tok_cursor_free(&e.cursor[1]);
    tni_tok_words_free(&e.words);
    tni_tok_work_free(&e.work);
    return status;
}

int tni_tok_encode(const tni_tok *t, const char *text, size_t n, int flags, tni_ids *ids) {
    return tni_tok_encode_spans(t, text, n, NULL, flags, ids);
}
