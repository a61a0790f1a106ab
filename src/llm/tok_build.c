/* Putting a tokenizer together: tokens, pairs, added tokens; and what is asked of them. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tok.h"
#include <string.h>

/* ---- GPT-2's alphabet: a printable character for every byte (encoder.py, bytes_to_unicode) ----
 */

static bool build_prints(int b) {
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
}

/* byte[c] is the byte that character c stands for, or -1; characters end at U+0143. */
static const int16_t *build_alphabet(int16_t byte[512]) {
    int next = 256;
    for (int i = 0; i < 512; i++) byte[i] = -1;
    for (int b = 0; b < 256; b++) byte[build_prints(b) ? b : next++] = (int16_t)b;
    return byte;
}

/* Bytes of a token written in the alphabet into `to`; 0 when a character is not of it. */
static size_t build_bytes(const int16_t *byte, tni_bytes raw, char *to) {
    size_t n = 0;
    for (size_t i = 0; i < raw.n;) {
        uint32_t c;
        int len = tni_utf8_decode(raw.s + i, raw.n - i, &c);
        if (len <= 0 || c >= 512 || byte[c] < 0) return 0;
        to[n++] = (char)byte[c];
        i += (size_t)len;
    }
    return n;
}

size_t tni_tok_to_alphabet(const char *s, size_t n, char *to) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        int b = (unsigned char)s[i], c = b;
        if (!build_prints(b)) /* the others are counted from 256 on, in their order */
            c = 256 + (b <= ' ' ? b : b <= 0xa0 ? b - 0x7f + 33 : 67);
        at += (size_t)tni_utf8_encode((uint32_t)c, to + at);
    }
    return at;
}

/* ---- tokens ---- */

/* "<0xNN>": the byte, or -1. */
static int build_byte_token(tni_bytes raw) {
    int v = 0;
    if (raw.n != 6 || memcmp(raw.s, "<0x", 3) || raw.s[5] != '>') return -1;
    for (int i = 3; i < 5; i++) {
        char c = raw.s[i];
        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'))) return -1;
        v = v * 16 + (c <= '9' ? c - '0' : c - 'A' + 10);
    }
    return v;
}

/* What a token stands for in a tokenizer that does not work on bytes; `to` has room for it. */
static size_t build_decoded(const tok_decoder *d, tok_token *k, char *to) {
    size_t n = 0;
    int byte = build_byte_token(k->raw);
    if ((k->byte = d->byte_fallback && byte >= 0)) {
        *to = (char)byte;
        return 1;
    }
    for (size_t i = 0; i < k->raw.n;) {
        bool hit =
            d->from.n && k->raw.n - i >= d->from.n && !memcmp(k->raw.s + i, d->from.s, d->from.n);
        const char *from = hit ? d->with.s : k->raw.s + i;
        size_t len = hit ? d->with.n : 1;
        memcpy(to + n, from, len);
        n += len, i += hit ? d->from.n : 1;
    }
    return n;
}

/* Room for the bytes of a token: a replacement may be longer than what it replaces. */
static size_t build_room(const tni_tok *t, tni_bytes raw) {
    const tok_decoder *d = &t->decoder;
    return raw.n + (d->from.n && d->with.n > d->from.n ? raw.n / d->from.n * d->with.n : 0) + 1;
}

static int build_token(tni_tok *t, const int16_t *byte, int64_t i, tni_bytes raw, char **at,
                       bool added) {
    tok_token *k = &t->token[i];
    k->added = added;
    k->raw = (tni_bytes){*at, raw.n};
    memcpy(*at, raw.s, raw.n);
    *at += raw.n;
    size_t n = !t->byte_level ? build_decoded(&t->decoder, k, *at)
               : added        ? 0
                              : build_bytes(byte, raw, *at);
    k->bytes = n || !t->byte_level ? (tni_bytes){*at, n} : k->raw;
    *at += n;
    if (t->byte_level && n == 1) t->byte_id[(uint8_t)k->bytes.s[0]] = (int32_t)i;
    if (!t->byte_level && build_byte_token(raw) >= 0)
        t->byte_id[build_byte_token(raw)] = (int32_t)i;
    int64_t before;
    if (!raw.n || tni_map_get(&t->by_raw, raw.s, raw.n, &before)) return 0; /* the first counts */
    return tni_map_put(&t->by_raw, k->raw.s, raw.n, i) ? tni_fail_memory(raw.n, "the vocabulary")
                                                       : 0;
}

int tni_tok_set_tokens(tni_tok *t, const tni_bytes *raw, int64_t n, const bool *is_added) {
    int16_t byte[512];
    size_t total = 0;
    if (n < 1 || n > TOK_MAX_VOCAB)
        return tni_fail(TN_EFORMAT, "a vocabulary of %lld tokens; 1 to %d are possible",
                        (long long)n, TOK_MAX_VOCAB);
    for (int64_t i = 0; i < n; i++) total += raw[i].n + build_room(t, raw[i]);
    t->token = tni_calloc((size_t)n, sizeof *t->token);
    t->text = tni_alloc(total + 1);
    if (!t->token || !t->text) return tni_fail_memory(total, "the vocabulary");
    t->n_tokens = n;
    for (int b = 0; b < 256; b++) t->byte_id[b] = -1;
    build_alphabet(byte);
    char *at = t->text;
    int status = 0;
    for (int64_t i = 0; i < n && !status; i++)
        status = build_token(t, byte, i, raw[i], &at, is_added[i]);
    return status;
}

const char *tni_tok_own(tni_tok *t, const char *s, size_t n) {
    char *copy = tni_strndup(s, n);
    if (!copy || tni_vec_push(&t->owned, copy)) {
        tni_free(copy);
        tni_fail_memory(n, "a tokenizer");
        return NULL;
    }
    return copy;
}

/* ---- pairs ---- */

static uint64_t build_mix(uint64_t x) { /* a finaliser with full avalanche (splitmix64) */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

int tni_tok_reserve_merges(tni_tok *t, int64_t n) {
    uint64_t cap = 16;
    if (n > TOK_MAX_VOCAB)
        return tni_fail(TN_EFORMAT, "%lld merges; at most %d are possible", (long long)n,
                        TOK_MAX_VOCAB);
    while (cap < 2 * (uint64_t)n) cap *= 2;
    t->pairs = tni_alloc_array(cap, sizeof *t->pairs);
    if (!t->pairs) return tni_fail_memory(cap * sizeof *t->pairs, "the merges");
    t->pair_mask = cap - 1;
    t->pair_seed = tni_hash("pairs", 5); /* drawn once a process: no file can aim at one slot */
    for (uint64_t i = 0; i < cap; i++) t->pairs[i].pair = UINT64_MAX;
    return 0;
}

static tok_pair *build_slot(const tni_tok *t, uint64_t pair) {
    uint64_t i = build_mix(pair ^ t->pair_seed) & t->pair_mask;
    while (t->pairs[i].pair != pair && t->pairs[i].pair != UINT64_MAX) i = (i + 1) & t->pair_mask;
    return &t->pairs[i];
}

const tok_pair *tni_tok_find_pair(const tni_tok *t, int32_t left, int32_t right) {
    const tok_pair *p = build_slot(t, (uint64_t)(uint32_t)left << 32 | (uint32_t)right);
    return p->pair == UINT64_MAX ? NULL : p;
}

static int build_not_a_token(tni_bytes b) {
    return tni_fail(TN_EFORMAT, "a merge names \"%.*s\", which is not in the vocabulary",
                    (int)(b.n < 60 ? b.n : 60), b.s);
}

int tni_tok_add_merge(tni_tok *t, tni_bytes left, tni_bytes right, int32_t rank) {
    char joined[TOK_MAX_PIECE];
    int32_t a = tni_tok_id(t, left.s, left.n), b = tni_tok_id(t, right.s, right.n);
    if (a < 0 || b < 0) return build_not_a_token(a < 0 ? left : right);
    if (left.n + right.n > sizeof joined)
        return tni_fail(TN_EFORMAT, "merge %d makes a token of more than %zu bytes", rank,
                        sizeof joined);
    memcpy(joined, left.s, left.n);
    memcpy(joined + left.n, right.s, right.n);
    int32_t id = tni_tok_id(t, joined, left.n + right.n);
    if (id < 0) return build_not_a_token((tni_bytes){joined, left.n + right.n});
    uint64_t pair = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    *build_slot(t, pair) = (tok_pair){pair, rank, id}; /* the last of equal pairs counts */
    return 0;
}

/* ---- added tokens ---- */

static int build_trie_node(tok_trie *trie, uint8_t byte) {
    tok_trie_node n = {.token = -1, .byte = byte};
    return tni_vec_push(&trie->nodes, n) ? tni_fail_memory(sizeof n, "the added tokens") : 0;
}

static int build_trie_add(tok_trie *trie, tni_bytes text, int32_t token) {
    int status = trie->nodes.n ? 0 : build_trie_node(trie, 0);
    int32_t at = 0;
    trie->first[(uint8_t)text.s[0]] = true;
    for (size_t i = 0; i < text.n && !status; i++) {
        uint8_t b = (uint8_t)text.s[i];
        int32_t child = trie->nodes.v[at].child;
        while (child && trie->nodes.v[child].byte != b) child = trie->nodes.v[child].next;
        if (!child) {
            if ((status = build_trie_node(trie, b))) break;
            child = (int32_t)trie->nodes.n - 1;
            trie->nodes.v[child].next = trie->nodes.v[at].child;
            trie->nodes.v[at].child = child;
        }
        at = child;
    }
    if (!status && trie->nodes.v[at].token < 0) trie->nodes.v[at].token = token;
    return status;
}

int tni_tok_add_added(tni_tok *t, tok_added a) {
    if (!a.text.n) return 0;
    if (a.id < 0 || a.id >= t->n_tokens)
        return tni_fail(TN_EFORMAT, "the added token \"%.*s\" has id %d; the vocabulary has %lld",
                        (int)(a.text.n < 60 ? a.text.n : 60), a.text.s, a.id,
                        (long long)t->n_tokens);
    t->token[a.id].special |= a.special;
    if (!(a.text.s = tni_tok_own(t, a.text.s, a.text.n))) return TN_EMEMORY;
    return tni_vec_push(&t->added, a) ? tni_fail_memory(sizeof a, "the added tokens") : 0;
}

/* What the token is looked for and decoded as. */
static int build_normal(tni_tok *t, int32_t i, tni_bytes text) {
    text.s = tni_tok_own(t, text.s, text.n);
    if (!text.s) return TN_EMEMORY;
    if (t->byte_level) t->token[t->added.v[i].id].bytes = text;
    return build_trie_add(&t->normal, text, i);
}

/* Tokens that are looked for after normalisation are normalised themselves. */
int tni_tok_finish(tni_tok *t) {
    tok_cursor cursor = {0};
    int status = 0;
    for (size_t i = 0; i < t->added.n && !status; i++) {
        tok_added *a = &t->added.v[i];
        tni_str s = {0};
        if (!a->normalized || !t->n_norm) {
            status = build_trie_add(a->normalized ? &t->normal : &t->plain, a->text, (int32_t)i);
            continue;
        }
        status = tni_tok_normalize(t, &cursor, a->text.s, a->text.n, &s);
        if (!status && s.n) status = build_normal(t, (int32_t)i, (tni_bytes){s.v, s.n});
        tni_str_free(&s);
    }
    tni_tok_cursor_free(&cursor);
    return status;
}

void tni_tok_free(tni_tok *t) {
    if (!t) return;
    for (int i = 0; i < t->n_norm; i++) tni_tok_regex_free(t->norm[i].regex);
    for (int i = 0; i < t->n_pre; i++) tni_tok_regex_free(t->pre[i].regex);
    for (size_t i = 0; i < t->owned.n; i++) tni_free(t->owned.v[i]);
    tni_vec_free(&t->owned), tni_vec_free(&t->added);
    tni_vec_free(&t->plain.nodes), tni_vec_free(&t->normal.nodes);
    tni_map_free(&t->by_raw);
    tni_free(t->before.v), tni_free(t->after.v);
    tni_free(t->pairs), tni_free(t->token), tni_free(t->text);
    tni_free(t);
}

/* ---- questions ---- */

int32_t tni_tok_id(const tni_tok *t, const char *text, size_t n) {
    int64_t id;
    return tni_map_get(&t->by_raw, text, n, &id) ? (int32_t)id : -1;
}

bool tni_tok_token_bytes(const tni_tok *t, int32_t id, const char **s, size_t *n) {
    if (id < 0 || id >= t->n_tokens) return false;
    *s = t->token[id].bytes.s, *n = t->token[id].bytes.n;
    return true;
}

int64_t tni_tok_vocab_size(const tni_tok *t) { return t->n_tokens; }

bool tni_tok_is_special(const tni_tok *t, int32_t id) {
    return id >= 0 && id < t->n_tokens && t->token[id].special;
}

int tni_tok_push_id(tni_ids *ids, int32_t id) {
    return tni_vec_push(ids, id) ? tni_fail_memory(ids->n * sizeof id, "token ids") : 0;
}
