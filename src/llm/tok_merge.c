/* Byte-pair merging of one word: again and again the pair of lowest rank, the leftmost of equals.
 * Short words, nearly all, are scanned; long ones use a heap, so that a word of a million bytes
 * takes n log n. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tok.h"
#include <limits.h>
#include <string.h>

enum { MERGE_SHORT = 40 };

struct tok_symbol {
    int32_t id, prev, next; /* id -1: merged into its left neighbour */
};
struct tok_candidate {
    int32_t rank, at, left, right, id;
};

/* ---- a word's characters ---- */

typedef struct merge_list { /* at most one id a byte */
    int32_t *id;
    size_t n;
    int32_t unk; /* not written yet: more of them may follow; -1: none */
} merge_list;

static void merge_unknown(const tni_tok *t, merge_list *l) {
    if (t->unk < 0) return;
    if (l->unk >= 0 && !t->fuse_unk) l->id[l->n++] = l->unk;
    l->unk = t->unk;
}

static void merge_known(merge_list *l, int32_t id) {
    if (l->unk >= 0) l->id[l->n++] = l->unk;
    l->unk = -1;
    l->id[l->n++] = id;
}

static bool merge_fallback(const tni_tok *t, merge_list *l, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (t->byte_id[(uint8_t)s[i]] < 0) return false;
    /* Before an unknown token that waits, as in `tokenizers`. */
    for (size_t i = 0; i < n; i++) l->id[l->n++] = t->byte_id[(uint8_t)s[i]];
    return true;
}

/* The tokens of the word's bytes, or of its characters. */
static size_t merge_start(const tni_tok *t, const char *s, size_t n, int32_t *id) {
    merge_list l = {.id = id, .unk = -1};
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c;
        int k = t->byte_level ? 1 : tni_utf8_decode(s + i, n - i, &c);
        len = k > 0 ? (size_t)k : 1;
        int32_t one = t->byte_level ? t->byte_id[(uint8_t)s[i]] : tni_tok_id(t, s + i, len);
        if (one >= 0)
            merge_known(&l, one);
        else if (!t->byte_fallback || !merge_fallback(t, &l, s + i, len))
            merge_unknown(t, &l);
    }
    if (l.unk >= 0) l.id[l.n++] = l.unk;
    return l.n;
}

/* ---- short words ---- */

static void merge_look(const tni_tok *t, const int32_t *id, int i, int n, int32_t *rank,
                       int32_t *to) {
    const tok_pair *p = i >= 0 && i + 1 < n ? tni_tok_find_pair(t, id[i], id[i + 1]) : NULL;
    if (i >= 0) rank[i] = p ? p->rank : INT32_MAX, to[i] = p ? p->id : -1;
}

static int merge_short(const tni_tok *t, const char *s, size_t size, tni_ids *ids) {
    int32_t id[MERGE_SHORT], rank[MERGE_SHORT], to[MERGE_SHORT];
    int n = (int)merge_start(t, s, size, id), status = 0;
    for (int i = 0; i < n; i++) merge_look(t, id, i, n, rank, to);
    while (n > 1) {
        int best = 0;
        for (int i = 1; i < n - 1; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == INT32_MAX) break;
        id[best] = to[best];
        size_t tail = (size_t)(n - best - 2) * sizeof *id;
        memmove(id + best + 1, id + best + 2, tail);
        memmove(rank + best + 1, rank + best + 2, tail);
        memmove(to + best + 1, to + best + 2, tail);
        n--;
        merge_look(t, id, best - 1, n, rank, to);
        merge_look(t, id, best, n, rank, to);
    }
    for (int i = 0; i < n && !status; i++) status = tni_tok_push_id(ids, id[i]);
    return status;
}

/* ---- long words ---- */

static bool merge_before(const struct tok_candidate *a, const struct tok_candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static int merge_push(const tni_tok *t, tok_work *w, int32_t at) {
    int32_t right = at < 0 ? -1 : w->symbols.v[at].next;
    if (right < 0) return 0;
    const tok_pair *p = tni_tok_find_pair(t, w->symbols.v[at].id, w->symbols.v[right].id);
    if (!p) return 0;
    struct tok_candidate c = {p->rank, at, w->symbols.v[at].id, w->symbols.v[right].id, p->id};
    if (tni_vec_push(&w->heap, c)) return tni_fail_memory(w->heap.n * sizeof c, "merging a word");
    size_t i = w->heap.n - 1;
    for (; i && merge_before(&c, &w->heap.v[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap.v[i] = w->heap.v[(i - 1) / 2];
    w->heap.v[i] = c;
    return 0;
}

static struct tok_candidate merge_pop(tok_work *w) {
    struct tok_candidate top = w->heap.v[0], last = w->heap.v[--w->heap.n];
    size_t i = 0, n = w->heap.n;
    for (size_t k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && merge_before(&w->heap.v[k + 1], &w->heap.v[k])) k++;
        if (!merge_before(&w->heap.v[k], &last)) break;
        w->heap.v[i] = w->heap.v[k];
    }
    if (n) w->heap.v[i] = last;
    return top;
}

static int merge_long(const tni_tok *t, tok_work *w, const char *s, size_t size, tni_ids *ids) {
    int status = 0;
    w->symbols.n = w->heap.n = 0;
    if (size > INT32_MAX) return tni_fail(TN_EVALUE, "a word of %zu bytes is too long", size);
    if (tni_vec_reserve(&w->start, size) || tni_vec_reserve(&w->symbols, size))
        return tni_fail_memory(size * sizeof *w->symbols.v, "merging a word");
    size_t n = merge_start(t, s, size, w->start.v);
    for (size_t i = 0; i < n; i++)
        w->symbols.v[i] = (struct tok_symbol){w->start.v[i], (int32_t)i - 1, (int32_t)i + 1};
    w->symbols.n = n;
    if (w->symbols.n) w->symbols.v[w->symbols.n - 1].next = -1;
    for (size_t i = 0; i < w->symbols.n && !status; i++) status = merge_push(t, w, (int32_t)i);
    while (w->heap.n && !status) {
        struct tok_candidate c = merge_pop(w);
        struct tok_symbol *a = &w->symbols.v[c.at];
        if (a->id != c.left || a->next < 0 || w->symbols.v[a->next].id != c.right) continue;
        struct tok_symbol *b = &w->symbols.v[a->next];
        a->id = c.id, a->next = b->next, b->id = -1;
        if (a->next >= 0) w->symbols.v[a->next].prev = c.at;
        status = merge_push(t, w, a->prev);
        if (!status) status = merge_push(t, w, c.at);
    }
    for (size_t i = 0; i < w->symbols.n && !status; i++)
        if (w->symbols.v[i].id >= 0) status = tni_tok_push_id(ids, w->symbols.v[i].id);
    return status;
}

int tni_tok_merge(const tni_tok *t, tok_work *w, const char *s, size_t n, tni_ids *ids) {
    if (t->ignore_merges && n < 1024) {
        char raw[2048];
        int32_t id = t->byte_level ? tni_tok_id(t, raw, tni_tok_to_alphabet(s, n, raw))
                                   : tni_tok_id(t, s, n);
        if (id >= 0) return tni_tok_push_id(ids, id);
    }
    return n <= MERGE_SHORT ? merge_short(t, s, n, ids) : merge_long(t, w, s, n, ids);
}

void tni_tok_work_free(tok_work *w) {
    tni_vec_free(&w->start);
    tni_vec_free(&w->symbols);
    tni_vec_free(&w->heap);
}
