/* A growable byte string. After any failed append the string is unchanged and the
 * call returns TN_EMEMORY; `v` is NUL-terminated whenever it is not NULL. */
#ifndef TNI_BASE_STR_H
#define TNI_BASE_STR_H

#include "tenon/status.h"
#include <stddef.h>
#include <stdint.h>

/* A borrowed string that may hold NUL bytes and need not end in one. */
typedef struct tni_bytes {
    const char *s;
    size_t n;
} tni_bytes;

typedef struct tni_str {
    char *v;
    size_t n, cap;
} tni_str;

int tni_str_append(tni_str *s, const char *bytes, size_t n);
int tni_str_puts(tni_str *s, const char *text);
int tni_str_putc(tni_str *s, char c);
int tni_str_printf(tni_str *s, const char *fmt, ...) TN_PRINTF(2, 3);
void tni_str_free(tni_str *s);

/* UTF-8. Decodes one code point of s[0..n): returns its length in bytes and sets
 * *cp, or 0 when the bytes are not valid UTF-8 (overlong and surrogates refused),
 * or -k when they are a valid but unfinished prefix that needs k more bytes. */
int tni_utf8_decode(const char *s, size_t n, uint32_t *cp);
int tni_utf8_encode(uint32_t cp, char out[4]); /* length, 0 when not a scalar value */

#endif
