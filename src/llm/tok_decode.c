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

/* ---- whole texts ---- */

/* Bytes of byte tokens in a row: a character each byte when they are no text, as the decoder
 * ByteFallback has it. */
static int decode_run(tni_str *bytes, size_t begin) {
    uint32_t c;
    size_t i = begin, n = bytes->n;
    int len = 1, status = 0;
    for (; i < n && (len = tni_utf8_decode(bytes->v + i, n - i, &c)) > 0;) i += (size_t)len;
    if (i == n) return 0;
    bytes->n = begin;
    for (i = begin; i < n && !status; i++) status = tni_str_puts(bytes, "\xef\xbf\xbd");
    return status;
}

static bool decode_is_strip(const tok_decoder *d, const char *s, size_t n) {
    return n >= d->strip.n && !memcmp(s, d->strip.s, d->strip.n);
}

static tni_bytes decode_stripped(const tok_decoder *d, tni_bytes b) {
    for (int i = 0; i < d->strip_begin && decode_is_strip(d, b.s, b.n); i++)
        b.s += d->strip.n, b.n -= d->strip.n;
    for (int i = 0; i < d->strip_end && b.n >= d->strip.n &&
                    decode_is_strip(d, b.s + b.n - d->strip.n, d->strip.n);
         i++)
        b.n -= d->strip.n;
    return b;
}

/* The first token of a text loses its marks of spaces. */
static int decode_first(const tok_decoder *d, const tok_token *k, tni_str *bytes) {
    int status = 0;
    for (size_t i = 0; i < k->raw.n && !status;) {
        bool hit = k->raw.n - i >= d->from.n && !memcmp(k->raw.s + i, d->from.s, d->from.n);
        if (!hit) status = tni_str_putc(bytes, k->raw.s[i]);
        i += hit ? d->from.n : 1;
    }
    return status;
}

int tni_tok_decode(const tni_tok *t, const int32_t *ids, size_t n, bool skip_special,
                   tni_str *out) {
    tni_str bytes = {0};
    const tok_token *k = NULL;
    size_t run = SIZE_MAX; /* where a row of byte tokens began */
    bool first = true;
    int status = 0;
    for (size_t i = 0; i < n && !status; i++) {
        if ((status = decode_token(t, ids[i], &k)) || (skip_special && k->special)) continue;
        if (run != SIZE_MAX && !k->byte) status = decode_run(&bytes, run), run = SIZE_MAX;
        if (k->byte && run == SIZE_MAX) run = bytes.n;
        if (!status)
            status = first && t->decoder.metaspace ? decode_first(&t->decoder, k, &bytes)
                                                   : tni_str_append(&bytes, k->bytes.s, k->bytes.n);
        if (status) decode_memory(k->bytes.n);
        first = false;
    }
    if (!status && run != SIZE_MAX && decode_run(&bytes, run)) status = decode_memory(bytes.n);
    tni_bytes b = decode_stripped(&t->decoder, (tni_bytes){bytes.v ? bytes.v : "", bytes.n});
    size_t before = out->n;
    if (!status) status = decode_append(out, b.s, b.n, NULL);
    if (status && out->v) out->v[out->n = before] = '\0';
    tni_str_free(&bytes);
    return status;
}

/* ---- as tokens come ---- */

/* What is to be stripped at the beginning is; the end is not known. Returns the bytes to write. */
static tni_bytes decode_begin(tni_detok *d, const tni_tok *t, tni_bytes b) {
    const tok_decoder *k = &t->decoder;
    while (!d->begun && k->strip_begin && (int)d->stripped < k->strip_begin &&
           decode_is_strip(k, b.s, b.n))
        b.s += k->strip.n, b.n -= k->strip.n, d->stripped++;
    d->begun |= b.n > 0;
    return b;
}

int tni_detok_push(tni_detok *d, const tni_tok *t, int32_t id, tni_str *out) {
    tni_str bytes = {0};
    const tok_token *k = NULL;
    size_t held = 0, before = out->n;
    int status = decode_token(t, id, &k);
    if (status) return status;
    bool first = t->decoder.metaspace && !d->pushed;
    if (tni_str_append(&bytes, d->held, d->n) ||
        (first ? decode_first(&t->decoder, k, &bytes)
               : tni_str_append(&bytes, k->bytes.s, k->bytes.n)))
        status = decode_memory(d->n + k->bytes.n);
    tni_detok next = *d;
    next.pushed = true;
    tni_bytes b = decode_begin(&next, t, (tni_bytes){bytes.v ? bytes.v : "", bytes.n});
    if (!status) status = decode_append(out, b.s, b.n, &held);
    if (!status) {
        *d = next;
        d->n = held;
        memcpy(d->held, b.s + b.n - held, held);
    } else if (out->v) {
        out->v[out->n = before] = '\0';
    }
    tni_str_free(&bytes);
    return status;
}

int tni_detok_finish(tni_detok *d, tni_str *out) {
    int status = decode_append(out, d->held, d->n, NULL);
    *d = (tni_detok){0};
    return status;
}

void tni_detok_free(tni_detok *d) { *d = (tni_detok){0}; }
