/* Growable strings and UTF-8. The decoder follows Table 3-7 of the Unicode
 * Standard (well-formed byte sequences): the range of the second byte depends on
 * the first, which is what refuses overlong forms, surrogates and > U+10FFFF. */
#include "base/str.h"
#include "base/alloc.h"
#include "base/vec.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int str_reserve(tni_str *s, size_t more) {
    size_t want;
    if (__builtin_add_overflow(s->n, more, &want) || want == SIZE_MAX) return TN_EMEMORY;
    if (want < s->cap) return 0;
    return tni_vec_grow((void **)&s->v, &s->cap, want + 1, 1);
}

/* `bytes` may lie inside the string itself, so an address is kept as an offset. */
int tni_str_append(tni_str *s, const char *bytes, size_t n) {
    uintptr_t at = (uintptr_t)bytes - (uintptr_t)s->v;
    int own = s->v && at <= s->n;
    if (str_reserve(s, n)) return TN_EMEMORY;
    if (n) memmove(s->v + s->n, own ? s->v + at : bytes, n);
    s->n += n;
    s->v[s->n] = '\0';
    return 0;
}

int tni_str_puts(tni_str *s, const char *text) { return tni_str_append(s, text, strlen(text)); }
int tni_str_putc(tni_str *s, char c) { return tni_str_append(s, &c, 1); }

int tni_str_printf(tni_str *s, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || str_reserve(s, (size_t)n)) return TN_EMEMORY;
    va_start(ap, fmt);
    vsnprintf(s->v + s->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    s->n += (size_t)n;
    return 0;
}

void tni_str_free(tni_str *s) {
    tni_free(s->v);
    *s = (tni_str){0};
}

/* Bytes a lead byte announces, and the least and greatest second byte; 0: no lead. */
static int str_utf8_lead(uint8_t b, uint8_t *lo, uint8_t *hi) {
    *lo = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
    *hi = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
    return b < 0x80 ? 1 : b < 0xc2 ? 0 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : b < 0xf5 ? 4 : 0;
}

int tni_utf8_decode(const char *s, size_t n, uint32_t *cp) {
    if (!n) return 0;
    const uint8_t *b = (const uint8_t *)s;
    uint8_t lo, hi;
    int len = str_utf8_lead(b[0], &lo, &hi);
    if (!len) return 0;
    uint32_t c = len == 1 ? b[0] : b[0] & (0x7fu >> len);
    for (int i = 1; i < len; i++, lo = 0x80, hi = 0xbf) {
        if ((size_t)i == n) return i - len;
        if (b[i] < lo || b[i] > hi) return 0;
        c = c << 6 | (b[i] & 0x3fu);
    }
    *cp = c;
    return len;
}

int tni_utf8_encode(uint32_t cp, char out[4]) {
    if (cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000)) return 0;
    int len = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3f));
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(lead[len] | cp);
    return len;
}
