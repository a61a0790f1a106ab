/* Ids to text. Bytes are collected, and what is not UTF-8 becomes U+FFFD. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tok.h"
#include <string.h>

static int decode_memory(size_t n) { return tni_fail_memory(n, "decoding tokens"); }

/* Length of the maximal part of a broken character at s, 1 to 3: the bytes that could still have
 * begun a character (Unicode 15, table 3-7). */
static size_t decode_broken(const char *s, size_t n) {
    uint32_t c;
    size_t len = 1;
    while (len < n && len < 3 && tni_utf8_decode(s, len, &c) < 0) {
        if (tni_utf8_decode(s, len + 1, &c) >= 0) break;
        len++;
    }
    return len;
}

/* Appends s as UTF-8. An unfinished character at the end is left, and its length returned in
 * *held, unless held is NULL. */
static int decode_append(tni_str *out, const char *s, size_t n, size_t *held) {
    int status = 0;
    uint32_t c;
    for (size_t i = 0, from = 0; i <= n && !status;) {
        int len = i == n ? 0 : (uint8_t)s[i] < 0x80 ? 1 : tni_utf8_decode(s + i, n - i, &c);
        if (len > 0) {
            i += (size_t)len;
            continue;
        }
        if (tni_str_append(out, s + from, i - from)) return decode_memory(i - from);
        if (held) *held = n - i;
        if (i == n || (len < 0 && held)) return 0;
        if (tni_str_append(out, "\xef\xbf\xbd", 3)) status = decode_memory(3);
        i += decode_broken(s + i, n - i);
        from = i;
    }
    return status;
}

static int decode_token(const tni_tok *t, int32_t id, const tok_token **k) {
    if (id < 0 || id >= t->n_tokens)
        return tni_fail(TN_EINDEX, "token id %d; the vocabulary has %lld", id,
                        (long long)t->n_tokens);
    *k = &t->token[id];
    return 0;
}

int tni_tok_decode(const tni_tok *t, const int32_t *ids, size_t n, bool skip_special,
                   tni_str *out) {
    tni_str bytes = {0};
    const tok_token *k = NULL;
    int status = 0;
    for (size_t i = 0; i < n && !status; i++) {
        if ((status = decode_token(t, ids[i], &k)) || (skip_special && k->special)) continue;
        if (tni_str_append(&bytes, k->bytes.s, k->bytes.n)) status = decode_memory(k->bytes.n);
    }
    if (!status) status = decode_append(out, bytes.v ? bytes.v : "", bytes.n, NULL);
    tni_str_free(&bytes);
    return status;
}

int tni_detok_push(tni_detok *d, const tni_tok *t, int32_t id, tni_str *out) {
    tni_str bytes = {0};
    const tok_token *k = NULL;
    size_t held = 0;
    int status = decode_token(t, id, &k);
    if (status) return status;
    if (tni_str_append(&bytes, d->held, d->n) || tni_str_append(&bytes, k->bytes.s, k->bytes.n))
        status = decode_memory(d->n + k->bytes.n);
    if (!status) status = decode_append(out, bytes.v ? bytes.v : "", bytes.n, &held);
    if (!status) {
        d->n = held;
        if (held) memcpy(d->held, bytes.v + bytes.n - held, held);
    }
    tni_str_free(&bytes);
    return status;
}

int tni_detok_finish(tni_detok *d, tni_str *out) {
    int status = decode_append(out, d->held, d->n, NULL);
    d->n = 0;
    return status;
}

void tni_detok_free(tni_detok *d) { d->n = 0; }
