/* Thread-local error state. Two buffers take turns so that a new sentence may
 * quote the old one ("layer 3: " + tni_error()) without an allocation, which must
 * also work when the error is that there is no memory. */
#include "base/err.h"
#include <stdio.h>

enum { ERR_MAX = 1024 };

static _Thread_local char err_text[2][ERR_MAX];
static _Thread_local int err_turn, err_code;

/* vsnprintf cuts bytes, not characters: drop a code point the limit split. */
static void err_trim_utf8(char *s, size_t n) {
    size_t i = n;
    while (i > 0 && n - i < 3 && ((unsigned char)s[i - 1] & 0xc0) == 0x80) i--;
    if (i == 0 || (unsigned char)s[i - 1] < 0xc0) return;
    unsigned char lead = (unsigned char)s[i - 1];
    size_t need = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (n - (i - 1) < need) s[i - 1] = '\0';
}

int tni_vfail(int code, const char *fmt, va_list ap) {
    char *to = err_text[err_turn ^= 1];
    int n = vsnprintf(to, ERR_MAX, fmt, ap);
    if (n < 0) to[0] = '\0';
    if (n >= ERR_MAX) err_trim_utf8(to, ERR_MAX - 1);
    return err_code = code;
}

int tni_fail(int code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    tni_vfail(code, fmt, ap);
    va_end(ap);
    return code;
}

int tni_fail_memory(size_t bytes, const char *what) {
    return tni_fail(TN_EMEMORY, "out of memory: %zu bytes for %s", bytes, what);
}

const char *tni_error(void) { return err_code ? err_text[err_turn] : ""; }
int tni_error_code(void) { return err_code; }

void tni_error_clear(void) { err_code = 0; }

const char *tni_status_name(int code) {
    switch (code) {
#define X(name, value, text)                                                                       \
    case value:                                                                                    \
        return #name;
        TN_STATUS_MAP(X)
#undef X
    }
    return "unknown status";
}

const char *tni_status_text(int code) {
    switch (code) {
#define X(name, value, text)                                                                       \
    case value:                                                                                    \
        return text;
        TN_STATUS_MAP(X)
#undef X
    }
    return "unknown status";
}
