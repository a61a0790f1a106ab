/* Normalisers: normal forms, case, white space, replacements. Each step reads one string and writes
 * another. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tok_unicode.h"
#include <string.h>
#include <utf8proc.h>

static int norm_memory(size_t n) { return tni_fail_memory(n, "normalising text"); }

static int norm_append(tni_str *out, const char *s, size_t n) {
    return tni_str_append(out, s, n) ? norm_memory(n) : 0;
}

/* Runs through the characters: lower case, or without non-spacing marks. */
static int norm_each(tok_norm_kind kind, const char *s, size_t n, tni_str *out) {
    int status = 0;
    for (size_t i = 0; i < n && !status;) {
        uint32_t c;
        char to[8];
        int len = tni_utf8_decode(s + i, n - i, &c);
        if (len <= 0) len = 1, c = 0;
        if (kind == TOK_STRIP_ACCENTS) {
            if (!tni_tok_is_mark((int32_t)c)) status = norm_append(out, s + i, (size_t)len);
        } else if (c == 0x130) { /* the one character whose lower case is two */
            status = norm_append(out, "i\xcc\x87", 3);
        } else {
            int k = tni_utf8_encode((uint32_t)tni_tok_lower((int32_t)c), to);
            status = norm_append(out, to, (size_t)k);
        }
        i += (size_t)len;
    }
    return status;
}

bool tni_tok_is_space(uint32_t c) { /* White_Space of Unicode (PropList.txt) */
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

/* \w of Rust's regex: Alphabetic, marks, decimal numbers, connectors, joiners (UTS 18, annex C). */
bool tni_tok_is_word(uint32_t c) {
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return (c >= 0x24b6 && c <= 0x24e9) || c == 0x200c || c == 0x200d;
    }
}

static int norm_strip(const tok_norm *k, const char *s, size_t n, tni_str *out) {
    size_t begin = n, end = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c = 0;
        int len = tni_utf8_decode(s + i, n - i, &c);
        if (len <= 0) len = 1;
        if (!tni_tok_is_space(c)) {
            if (begin == n) begin = i;
            end = i + (size_t)len;
        }
        i += (size_t)len;
    }
    if (!k->left) begin = 0;
    if (!k->right) end = n;
    return begin < end ? norm_append(out, s + begin, end - begin) : 0;
}

static const char *norm_find(const char *s, size_t n, tni_bytes what) {
    for (const char *at = s, *end = s + n; what.n && (size_t)(end - at) >= what.n; at++) {
        at = memchr(at, what.s[0], (size_t)(end - at) - what.n + 1);
        if (!at) return NULL;
        if (!memcmp(at, what.s, what.n)) return at;
    }
    return NULL;
}

static int norm_replace(const tok_norm *k, tok_cursor *c, const char *s, size_t n, tni_str *out) {
    size_t at = 0, begin = 0, end = 0;
    int found = 1, status = 0;
    for (bool again = false; !status; again = true, at = end) {
        if (k->regex) {
            found = tni_tok_regex_next(k->regex, c, s, n, at, again, &begin, &end);
        } else {
            const char *p = norm_find(s + at, n - at, k->from);
            found = p != NULL;
            if (p) begin = (size_t)(p - s), end = begin + k->from.n;
        }
        if (found <= 0) return found ? found : norm_append(out, s + at, n - at);
        status = norm_append(out, s + at, begin - at);
        if (!status) status = norm_append(out, k->with.s, k->with.n);
    }
    return status;
}

static int norm_step(const tok_norm *k, tok_cursor *c, const char *s, size_t n, tni_str *out) {
    int status = 0;
    switch (k->kind) {
    case TOK_LOWER:
    case TOK_STRIP_ACCENTS:
        return norm_each(k->kind, s, n, out);
    case TOK_STRIP:
        return norm_strip(k, s, n, out);
    case TOK_PREPEND:
        if (n) status = norm_append(out, k->with.s, k->with.n);
        return status ? status : norm_append(out, s, n);
    case TOK_REPLACE:
        return norm_replace(k, c, s, n, out);
    default:
        return tni_tok_normal_form(k->kind, s, n, out);
    }
}

int tni_tok_normalize(const tni_tok *t, tok_cursor *c, const char *s, size_t n, tni_str *out) {
    tni_str now = {0};
    int status = norm_append(&now, s, n);
    for (int i = 0; i < t->n_norm && !status; i++) {
        tni_str next = {0};
        status = norm_step(&t->norm[i], c, now.v ? now.v : "", now.n, &next);
        tni_str_free(&now);
        now = next;
    }
    if (!status) status = norm_append(out, now.v ? now.v : "", now.n);
    tni_str_free(&now);
    return status;
}
