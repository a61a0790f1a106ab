/* Strict JSON (RFC 8259), pulled. What other readers let pass is refused: trailing commas, raw
 * control characters, unpaired surrogates, bytes that are not UTF-8, leading zeros. Every function
 * reads forward only and stops at `end`, so the time is linear in the text. */
#include "io/st_json.h"
#include "base/err.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void tni_json_init(tni_json *j, const char *file, size_t base, char *text, size_t n) {
    *j = (tni_json){.file = file, .base = base, .begin = text, .at = text, .end = text + n};
}

size_t tni_json_offset(const tni_json *j) { return j->base + (size_t)(j->at - j->begin); }

int tni_json_fail(tni_json *j, const char *fmt, ...) {
    char text[640];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    j->failed = true;
    return tni_fail(TN_EFORMAT, "%s, byte %zu: %s", j->file, tni_json_offset(j), text);
}

const char *tni_json_show(const char *s, char shown[TNI_SHOWN]) {
    size_t n = strlen(s), cut = n < TNI_SHOWN ? n : TNI_SHOWN - 4;
    while (cut < n && cut && ((unsigned char)s[cut] & 0xc0) == 0x80) cut--;
    for (size_t i = 0; i < cut; i++) {
        unsigned char c = (unsigned char)s[i];
        shown[i] = c < 0x20 || c == 0x7f ? '?' : s[i];
    }
    strcpy(shown + cut, cut < n ? "..." : "");
    return shown;
}

static void json_space(tni_json *j) {
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\r' || *j->at == '\t'))
        j->at++;
}

/* Says what stands there instead. */
static int json_expected(tni_json *j, const char *what) {
    if (j->at == j->end) return tni_json_fail(j, "expected %s, but the JSON text ends", what);
    unsigned char c = (unsigned char)*j->at;
    if (c < 0x20 || c >= 0x7f) return tni_json_fail(j, "expected %s, got byte 0x%02x", what, c);
    return tni_json_fail(j, "expected %s, got '%c'", what, c);
}

static int json_take(tni_json *j, char c) {
    char what[] = {'\'', c, '\'', 0};
    json_space(j);
    if (j->at == j->end || *j->at != c) return json_expected(j, what);
    j->at++;
    return 0;
}

int tni_json_enter(tni_json *j, char open) {
    int status = json_take(j, open);
    j->fresh = true;
    return status;
}

int tni_json_more(tni_json *j, char close, bool *more) {
    json_space(j);
    bool closes = j->at < j->end && *j->at == close, comma = j->at < j->end && *j->at == ',';
    if (!closes && !comma && !j->fresh)
        return json_expected(j, close == '}' ? "',' or '}'" : "',' or ']'");
    if (closes || !j->fresh) j->at++;
    *more = !closes;
    j->fresh = false;
    return 0;
}

/* ---- strings ---- */

static int json_hex4(tni_json *j, uint32_t *v) {
    *v = 0;
    for (int i = 0; i < 4; i++, j->at++) {
        char c = j->at < j->end ? *j->at : '?';
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return json_expected(j, "a hexadecimal digit of \\u");
        *v = *v << 4 | (uint32_t)digit;
    }
    return 0;
}

/* After "\u". A pair of surrogates is one code point; 6 or 12 bytes become at most 4. */
static int json_unicode(tni_json *j, char **out) {
    uint32_t cp, low;
    int status = json_hex4(j, &cp);
    if (status) return status;
    if (!cp) return tni_json_fail(j, "a string holds NUL (\\u0000)");
    if (cp >= 0xd800 && cp < 0xdc00 && j->end - j->at > 2 && j->at[0] == '\\' && j->at[1] == 'u') {
        j->at += 2;
        if ((status = json_hex4(j, &low))) return status;
        cp = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00) : cp;
    }
    int len = tni_utf8_encode(cp, *out);
    if (!len) return tni_json_fail(j, "unpaired surrogate \\u%04x in a string", cp);
    *out += len;
    return 0;
}

static int json_escape(tni_json *j, char **out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = j->at < j->end ? *j->at : '\0';
    const char *k = c ? strchr(from, c) : NULL;
    if (c == 'u') return j->at++, json_unicode(j, out);
    if (!k) return json_expected(j, "an escape (one of \"\\/bfnrtu)");
    j->at++;
    *(*out)++ = to[k - from];
    return 0;
}

/* A run of plain ASCII, which is nearly all there is; bytes move only behind an escape. */
static void json_plain(tni_json *j, char **out) {
    char *first = j->at;
    while (j->at < j->end && *j->at >= 0x20 && *j->at < 0x7f && *j->at != '"' && *j->at != '\\')
        j->at++;
    size_t n = (size_t)(j->at - first);
    if (*out != first) memmove(*out, first, n);
    *out += n;
}

static int json_character(tni_json *j, char **out) {
    uint32_t cp;
    int len = tni_utf8_decode(j->at, (size_t)(j->end - j->at), &cp);
    if (len <= 0) return json_expected(j, "UTF-8 in a string");
    if (cp < 0x20) return json_expected(j, "an escape instead of a control character");
    memmove(*out, j->at, (size_t)len);
    j->at += len;
    *out += len;
    return 0;
}

/* The NUL takes the place of the closing quote at the latest. */
int tni_json_string(tni_json *j, tni_bytes *s) {
    int status = json_take(j, '"');
    if (status) return status;
    char *out = j->at;
    s->s = out;
    for (json_plain(j, &out); !status && j->at < j->end && *j->at != '"'; json_plain(j, &out)) {
        if (*j->at == '\\')
            status = (j->at++, json_escape(j, &out));
        else
            status = json_character(j, &out);
    }
    if (status) return status;
    if (j->at == j->end) return json_expected(j, "'\"' at a string's end");
    j->at++;
    *out = '\0';
    s->n = (size_t)(out - s->s);
    return 0;
}

int tni_json_key(tni_json *j, tni_bytes *key) {
    int status = tni_json_string(j, key);
    return status ? status : json_take(j, ':');
}

/* ---- numbers and words ---- */

static bool json_digit(const tni_json *j) {
    return j->at < j->end && *j->at >= '0' && *j->at <= '9';
}

int tni_json_integer(tni_json *j, int64_t *v) {
    json_space(j);
    if (!json_digit(j)) return json_expected(j, "a non-negative integer");
    char *first = j->at;
    *v = 0;
    for (; json_digit(j); j->at++) {
        if (__builtin_mul_overflow(*v, 10, v) || __builtin_add_overflow(*v, *j->at - '0', v))
            return j->at = first, tni_json_fail(j, "an integer beyond 2^63-1");
    }
    if (*first == '0' && j->at - first > 1)
        return j->at = first, tni_json_fail(j, "a number with a leading zero");
    if (j->at < j->end && (*j->at == '.' || *j->at == 'e' || *j->at == 'E'))
        return json_expected(j, "an integer without a fraction or exponent");
    return 0;
}

static int json_digits(tni_json *j) {
    if (!json_digit(j)) return json_expected(j, "a digit");
    while (json_digit(j)) j->at++;
    return 0;
}

static int json_skip_number(tni_json *j) {
    int status = 0;
    if (*j->at == '-') j->at++;
    if (j->at < j->end && *j->at == '0')
        j->at++;
    else
        status = json_digits(j);
    if (!status && j->at < j->end && *j->at == '.') j->at++, status = json_digits(j);
    if (!status && j->at < j->end && (*j->at == 'e' || *j->at == 'E')) {
        j->at++;
        if (j->at < j->end && (*j->at == '+' || *j->at == '-')) j->at++;
        status = json_digits(j);
    }
    return status;
}

bool tni_json_null(tni_json *j) {
    json_space(j);
    if (j->end - j->at < 4 || memcmp(j->at, "null", 4)) return false;
    j->at += 4;
    return true;
}

static int json_skip_scalar(tni_json *j) {
    static const char *const words[] = {"true", "false", "null"};
    tni_bytes s;
    json_space(j);
    size_t left = (size_t)(j->end - j->at);
    if (left && *j->at == '"') return tni_json_string(j, &s);
    if (left && (*j->at == '-' || json_digit(j))) return json_skip_number(j);
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if (left >= n && !memcmp(j->at, words[i], n)) return j->at += n, 0;
    }
    return json_expected(j, "a value");
}

/* Containers still open are kept as one bit each, the innermost lowest: 1 for an object. */
int tni_json_skip(tni_json *j) {
    uint64_t objects = 0;
    int depth = 0, status = 0;
    do {
        bool more = true;
        tni_bytes key;
        if (depth) status = tni_json_more(j, objects & 1 ? '}' : ']', &more);
        if (!status && depth && !more) {
            depth--, objects >>= 1;
            continue;
        }
        if (!status && depth && (objects & 1)) status = tni_json_key(j, &key);
        if (!status) json_space(j);
        char c = status || j->at == j->end ? '\0' : *j->at;
        if (c == '{' || c == '[') {
            if (depth++ == TNI_JSON_DEPTH) return tni_json_fail(j, "nested deeper than 64 levels");
            objects = objects << 1 | (c == '{');
            status = tni_json_enter(j, c);
        } else if (!status) {
            status = json_skip_scalar(j);
        }
    } while (!status && depth);
    return status;
}

int tni_json_finish(tni_json *j) {
    json_space(j);
    return j->at == j->end ? 0 : json_expected(j, "the end of the JSON text");
}
