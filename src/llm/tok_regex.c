/* Regular expressions of tokenizers, on PCRE2. tokenizer.json is written for Oniguruma, whose
 * classes \s and \w, escapes and (?m) differ a little: the pattern is rewritten first. Matching is
 * bounded by PCRE2's match limit, so that no pattern and text can hang. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tok_unicode.h"
#include <pcre2.h>
#include <string.h>

enum { REGEX_PATTERN_LIMIT = 1 << 16, REGEX_STEPS = 1000000, REGEX_STEPS_A_BYTE = 16 };
enum { REGEX_STACK_FIRST = 1 << 18, REGEX_STACK = 1 << 28 /* grows as it is used */ };

/* White_Space of Unicode (PropList.txt), and everything else; PCRE2's own \s has U+180E too. */
#define REGEX_SPACE                                                                                \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define REGEX_NO_SPACE                                                                             \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-"         \
    "\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"        \
    "\\x{3001}-\\x{10ffff}"
/* Alphabetic, marks, decimal numbers, connectors (UTS 18, annex C). */
#define REGEX_WORD "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\p{tok word}"

struct tok_regex {
    pcre2_code *code;
    pcre2_general_context *memory;
};

static void *regex_alloc(size_t n, void *ud) {
    (void)ud;
    return tni_alloc(n);
}
static void regex_free(void *p, void *ud) {
    (void)ud;
    tni_free(p);
}

/* ---- rewriting ---- */

typedef struct regex_reader {
    const char *s;
    size_t n, at;
    bool in_class;
    tni_str out;
} regex_reader;

static int regex_property(regex_reader *r);

/* `body` is written in this file's own terms: the members of a class. */
static int regex_puts(regex_reader *r, const char *open, const char *body) {
    regex_reader sub = {.s = body, .n = strlen(body), .in_class = true, .out = r->out};
    int status = r->in_class ? 0 : tni_str_puts(&sub.out, open);
    while (sub.at < sub.n && !status) {
        if (!strncmp(sub.s + sub.at, "\\p{", 3))
            status = regex_property(&sub);
        else
            status = tni_str_putc(&sub.out, sub.s[sub.at++]);
    }
    if (!status && !r->in_class) status = tni_str_putc(&sub.out, ']');
    r->out = sub.out;
    return status ? tni_fail_memory(r->n, "a pattern") : 0;
}

static int regex_copy(regex_reader *r, size_t n) {
    int status = tni_str_append(&r->out, r->s + r->at, n);
    r->at += n;
    return status ? tni_fail_memory(r->n, "a pattern") : 0;
}

/* \p{name}, \P{name} or \p{^name}, with the members that PCRE2's tables lack; "tok name" has these
 * alone. PCRE2 from 10.40 on takes \p{Han} for script extensions, Oniguruma for the script. */
static int regex_property(regex_reader *r) {
    const char *name = r->s + r->at + 3, *end = memchr(name, '}', r->n - r->at - 3);
    if (!end) return regex_copy(r, 3);
    bool negative = r->s[r->at + 1] == 'P';
    if (*name == '^') negative = !negative, name++;
    size_t n = (size_t)(end - name);
    bool own = n > 4 && !memcmp(name, "tok ", 4), han = n == 3 && !memcmp(name, "Han", 3);
    const char *more = own ? tni_tok_more(name + 4, n - 4) : tni_tok_more(name, n);
    if (!more || (negative && r->in_class)) return regex_copy(r, (size_t)(end + 1 - r->s) - r->at);
    int status = r->in_class ? 0 : tni_str_puts(&r->out, negative ? "[^" : "[");
    if (!status && !own)
        status = tni_str_printf(&r->out, "\\p{%s%.*s}", han && PCRE2_MINOR >= 40 ? "sc:" : "",
                                (int)n, name);
    if (!status) status = tni_str_puts(&r->out, more);
    if (!status && !r->in_class) status = tni_str_putc(&r->out, ']');
    r->at = (size_t)(end + 1 - r->s);
    return status ? tni_fail_memory(r->n, "a pattern") : 0;
}

static int regex_escape(regex_reader *r) {
    if (r->at + 1 >= r->n) return regex_copy(r, 1);
    char c = r->s[r->at + 1];
    if (c == 'u' && r->at + 6 <= r->n) {
        int status = tni_str_printf(&r->out, "\\x{%.4s}", r->s + r->at + 2);
        r->at += 6;
        return status ? tni_fail_memory(r->n, "a pattern") : 0;
    }
    if ((c == 'p' || c == 'P') && r->at + 3 < r->n && r->s[r->at + 2] == '{')
        return regex_property(r);
    if (!strchr("sSwh", c) && (c != 'W' || r->in_class)) return regex_copy(r, 2);
    r->at += 2;
    switch (c) {
    case 's':
        return regex_puts(r, "[", REGEX_SPACE);
    case 'S':
        return regex_puts(r, "[", REGEX_NO_SPACE);
    case 'w':
        return regex_puts(r, "[", REGEX_WORD);
    case 'W':
        return regex_puts(r, "[^", REGEX_WORD);
    default: /* \h is a hexadecimal digit */
        return regex_puts(r, "[", "0-9a-fA-F");
    }
}

static int regex_class_byte(regex_reader *r) {
    if (r->s[r->at] == ']')
        r->in_class = false;
    else if (r->s[r->at] == '[' && r->at + 1 < r->n && r->s[r->at + 1] != ':')
        return tni_fail(TN_EFORMAT, "a class inside a class is not supported (byte %zu)", r->at);
    else if (r->s[r->at] == '&' && r->at + 1 < r->n && r->s[r->at + 1] == '&')
        return tni_fail(TN_EFORMAT, "an intersection of classes is not supported (byte %zu)",
                        r->at);
    return regex_copy(r, 1);
}

/* '[' and what may follow it as itself: '^', then a first ']'. */
static int regex_class_open(regex_reader *r) {
    size_t n = 1;
    r->in_class = true;
    if (r->at + n < r->n && r->s[r->at + n] == '^') n++;
    if (r->at + n < r->n && r->s[r->at + n] == ']') n++;
    return regex_copy(r, n);
}

static int regex_rewrite(regex_reader *r) {
    int status = 0;
    while (r->at < r->n && !status) {
        if (r->s[r->at] == '\\')
            status = regex_escape(r);
        else if (r->in_class)
            status = regex_class_byte(r);
        else
            status = r->s[r->at] == '[' ? regex_class_open(r) : regex_copy(r, 1);
    }
    return status;
}

/* ---- compiling ---- */

static int regex_compile(struct tok_regex *r, const char *pattern, size_t n) {
    int error;
    PCRE2_SIZE at;
    r->memory = pcre2_general_context_create(regex_alloc, regex_free, NULL);
    pcre2_compile_context *c = r->memory ? pcre2_compile_context_create(r->memory) : NULL;
    if (!c) return tni_fail_memory(n, "a pattern");
    r->code = pcre2_compile((PCRE2_SPTR)pattern, n,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                            &error, &at, c);
    pcre2_compile_context_free(c);
    if (!r->code) {
        PCRE2_UCHAR text[128];
        if (error == PCRE2_ERROR_NOMEMORY || error == 121) /* 121: out of memory while compiling */
            return tni_fail_memory(n, "a pattern");
        pcre2_get_error_message(error, text, sizeof text);
        return tni_fail(TN_EFORMAT, "the pattern \"%.*s\" at byte %zu: %s", (int)(n < 80 ? n : 80),
                        pattern, (size_t)at, (char *)text);
    }
    pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* without it matching is slower, not wrong */
    return 0;
}

int tni_tok_regex_new(const char *pattern, size_t n, struct tok_regex **out) {
    *out = NULL;
    if (n > REGEX_PATTERN_LIMIT)
        return tni_fail(TN_EFORMAT, "a pattern of %zu bytes; the limit is %d", n,
                        REGEX_PATTERN_LIMIT);
    regex_reader reader = {.s = pattern, .n = n};
    struct tok_regex *r = tni_calloc(1, sizeof *r);
    int status = r ? regex_rewrite(&reader) : tni_fail_memory(sizeof *r, "a pattern");
    if (!status) status = regex_compile(r, reader.out.v ? reader.out.v : "", reader.out.n);
    tni_str_free(&reader.out);
    if (status)
        tni_tok_regex_free(r);
    else
        *out = r;
    return status;
}

void tni_tok_regex_free(struct tok_regex *r) {
    if (!r) return;
    pcre2_code_free(r->code);
    pcre2_general_context_free(r->memory);
    tni_free(r);
}

/* ---- matching ---- */

static int regex_failed(int code) {
    PCRE2_UCHAR text[128];
    if (code == PCRE2_ERROR_NOMEMORY) return tni_fail_memory(0, "matching a pattern");
    pcre2_get_error_message(code, text, sizeof text);
    return tni_fail(TN_EVALUE, "a pattern of the tokenizer gave up on this text: %s", (char *)text);
}

/* Patterns that occur take a few steps a byte at most, over any text. */
static int regex_start(const struct tok_regex *r, tok_cursor *c, size_t n) {
    if (!c->data) c->data = pcre2_match_data_create(1, r->memory);
    if (!c->limits) c->limits = pcre2_match_context_create(r->memory);
    if (!c->data || !c->limits) return tni_fail_memory(64, "matching a pattern");
    size_t steps = REGEX_STEPS + REGEX_STEPS_A_BYTE * n;
    pcre2_set_match_limit(c->limits, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    pcre2_set_heap_limit(c->limits, 1 << 16); /* KiB */
    return 0;
}

/* On PCRE2's own 32 KiB of stack, then on a large one, then without machine code. */
static int regex_match(const struct tok_regex *r, tok_cursor *c, const char *s, size_t n,
                       size_t at) {
    PCRE2_SPTR text = (PCRE2_SPTR)s;
    int code = pcre2_match(r->code, text, n, at, PCRE2_NO_UTF_CHECK, c->data, c->limits);
    if (code == PCRE2_ERROR_JIT_STACKLIMIT && !c->stack) {
        c->stack = pcre2_jit_stack_create(REGEX_STACK_FIRST, REGEX_STACK, r->memory);
        pcre2_jit_stack_assign(c->limits, NULL, c->stack);
        code = pcre2_match(r->code, text, n, at, PCRE2_NO_UTF_CHECK, c->data, c->limits);
    }
    if (code == PCRE2_ERROR_JIT_STACKLIMIT)
        code = pcre2_match(r->code, text, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, c->data,
                           c->limits);
    return code;
}

int tni_tok_regex_next(const struct tok_regex *r, tok_cursor *c, const char *s, size_t n,
                       size_t from, bool again, size_t *begin, size_t *end) {
    int status = regex_start(r, c, n);
    if (status) return status;
    for (size_t at = from; at <= n;) {
        int code = regex_match(r, c, s, n, at);
        if (code == PCRE2_ERROR_NOMATCH) return 0;
        if (code < 0) return regex_failed(code);
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(c->data);
        *begin = v[0], *end = v[1];
        if (*end > from || !again) return *begin >= from && *end >= *begin;
        for (at = from + 1; at < n && ((uint8_t)s[at] & 0xc0) == 0x80;) at++;
    }
    return 0;
}

void tni_tok_cursor_free(tok_cursor *c) {
    pcre2_match_data_free(c->data);
    pcre2_match_context_free(c->limits);
    pcre2_jit_stack_free(c->stack);
    *c = (tok_cursor){0};
}
