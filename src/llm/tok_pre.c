/* Pre-tokenizers: each step cuts every span of the text further. Spans point into one string;
 * only a step that adds a space in front makes a new one. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tok.h"
#include <string.h>

static int pre_push(tok_words *w, size_t begin, size_t end) {
    tok_span s = {begin, end};
    return tni_vec_push(&w->next, s) ? tni_fail_memory(w->next.n * sizeof s, "cutting text") : 0;
}

/* What happens to a match, or to what lies between two; `first` is where the span's words began,
 * so that a piece never joins one of another span. */
static int pre_piece(const tok_pre *p, tok_words *w, size_t first, size_t begin, size_t end,
                     bool match, bool *last_match) {
    bool cut = match != p->invert, before = *last_match;
    *last_match = cut;
    if (cut && p->behavior == TOK_REMOVED) return 0;
    bool extend = (p->behavior == TOK_WITH_PREVIOUS && cut && !before) ||
                  (p->behavior == TOK_WITH_NEXT && !cut && before) ||
                  (p->behavior == TOK_CONTIGUOUS && cut == before);
    if (!extend || w->next.n == first) return pre_push(w, begin, end);
    w->next.v[w->next.n - 1].end = end;
    return 0;
}

/* A match may be empty: it cuts, or is what its neighbour joins. */
static int pre_split(const tok_pre *p, tok_cursor *c, tok_words *w, tok_span span) {
    const char *s = w->text.v + span.begin;
    size_t at = 0, n = span.end - span.begin, begin, end, first = w->next.n;
    bool last = false, again = false;
    int found, status = 0;
    while (!status) {
        found = tni_tok_regex_next(p->regex, c, s, n, at, again, &begin, &end);
        if (found < 0) return found;
        if (!found) begin = n;
        if (begin > at)
            status = pre_piece(p, w, first, span.begin + at, span.begin + begin, false, &last);
        if (!found || status) break;
        status = pre_piece(p, w, first, span.begin + begin, span.begin + end, true, &last);
        at = end, again = true;
    }
    size_t kept = first;
    for (size_t i = first; i < w->next.n; i++)
        if (w->next.v[i].end > w->next.v[i].begin) w->next.v[kept++] = w->next.v[i];
    w->next.n = kept;
    return status;
}

/* The words' text becomes `text`, unless there was no memory for it. */
static int pre_replace(tok_words *w, tni_str text, int status) {
    tni_str_free(status ? &text : &w->text);
    if (status) return tni_fail_memory(w->text.n, "cutting text");
    w->text = text;
    return 0;
}

/* A space before every span that does not begin with one. */
static int pre_spaces(tok_words *w) {
    tni_str text = {0};
    int status = 0;
    for (size_t i = 0; i < w->spans.n && !status; i++) {
        tok_span *s = &w->spans.v[i];
        size_t begin = text.n;
        if (s->end > s->begin && w->text.v[s->begin] != ' ') status = tni_str_putc(&text, ' ');
        if (!status) status = tni_str_append(&text, w->text.v + s->begin, s->end - s->begin);
        *s = (tok_span){begin, text.n};
    }
    return pre_replace(w, text, status);
}

/* The tokenizer's sign in place of every space and, if so wished, in front. */
static int pre_metaspace(const tok_pre *p, tok_words *w, bool first) {
    tni_str text = {0};
    const tni_bytes sign = p->metaspace;
    int status = 0;
    for (size_t i = 0; i < w->spans.n && !status; i++) {
        tok_span *s = &w->spans.v[i];
        const char *from = w->text.v + s->begin;
        size_t begin = text.n, n = s->end - s->begin;
        bool has = (n && *from == ' ') || (n >= sign.n && !memcmp(from, sign.s, sign.n));
        bool wanted = p->prepend == TOK_ALWAYS || (p->prepend == TOK_FIRST && first && !s->begin);
        if (wanted && !has) status = tni_str_append(&text, sign.s, sign.n);
        for (size_t k = 0, len; k < n && !status; k += len) {
            const char *space = memchr(from + k, ' ', n - k);
            len = space ? (size_t)(space - from) - k : n - k;
            status = tni_str_append(&text, from + k, len);
            if (!status && space) status = tni_str_append(&text, sign.s, sign.n), len++;
        }
        *s = (tok_span){begin, text.n};
    }
    return pre_replace(w, text, status);
}

int tni_tok_pretokenize(const tni_tok *t, tok_cursor *c, tok_words *w, bool first) {
    tok_span all = {0, w->text.n};
    w->spans.n = 0;
    if (!all.end) return 0;
    if (tni_vec_push(&w->spans, all)) return tni_fail_memory(sizeof all, "cutting text");
    int status = 0;
    for (int i = 0; i < t->n_pre && !status; i++) {
        const tok_pre *p = &t->pre[i];
        if (p->prefix_space) status = pre_spaces(w);
        if (p->metaspace.n) status = pre_metaspace(p, w, first);
        if (!p->regex || status) continue;
        w->next.n = 0;
        for (size_t k = 0; k < w->spans.n && !status; k++)
            status = pre_split(p, c, w, w->spans.v[k]);
        tok_span *v = w->spans.v;
        size_t cap = w->spans.cap;
        w->spans.v = w->next.v, w->spans.n = w->next.n, w->spans.cap = w->next.cap;
        w->next.v = v, w->next.cap = cap;
    }
    return status;
}

void tni_tok_words_free(tok_words *w) {
    tni_str_free(&w->text);
    tni_vec_free(&w->spans);
    tni_vec_free(&w->next);
}
