/* Template text to tokens, as jinja2's lexer.py cuts it with trim_blocks and lstrip_blocks:
 * newlines become "\n", one at the end of the text goes, the newline after a block's end
 * goes, and so does the white space before a block that begins its line. */
#include "base/err.h"
#include "base/vec.h"
#include "llm/tmpl.h"
#include <string.h>
#include <utf8proc.h>

typedef struct lex {
    tm_arena *arena;
    const char *name, *s;
    size_t n, at;
    int32_t line;
    bool line_start; /* the last match ended in a newline, or this is the beginning */
    TNI_VEC(tm_token) out;
    tni_str open; /* closing brackets that are still to come */
} lex;

static int lex_fail(const lex *x, const char *what) {
    return tni_fail(TN_EFORMAT, "%s, line %d: %s", x->name, x->line, what);
}

static int lex_memory(void) { return tni_fail_memory(sizeof(tm_token), "a template's tokens"); }

static int lex_push(lex *x, tm_token_kind kind, const char *s, size_t n) {
    tm_token t = {.kind = (uint8_t)kind, .line = x->line, .text = {s, n}};
    return tni_vec_push(&x->out, t) ? lex_memory() : 0;
}

static bool lex_has(const lex *x, size_t at, const char *what) {
    size_t n = strlen(what);
    return at <= x->n && x->n - at >= n && !memcmp(x->s + at, what, n);
}

static size_t lex_skip_space(const lex *x, size_t at) {
    size_t len;
    while (at < x->n && tni_tm_space(tni_tm_decode(x->s + at, x->n - at, &len))) at += len;
    return at;
}

/* Moves to `to`, counting lines. */
static void lex_move(lex *x, size_t to) {
    for (size_t i = x->at; i < to; i++) x->line += x->s[i] == '\n';
    if (to > x->at) x->line_start = x->s[to - 1] == '\n';
    x->at = to;
}

/* The text s[from..to) without white space at its end. */
static size_t lex_rstrip(const lex *x, size_t from, size_t to) {
    size_t end = from, len;
    for (size_t i = from; i < to; i += len)
        if (!tni_tm_space(tni_tm_decode(x->s + i, to - i, &len))) end = i + len;
    return end;
}

/* Text up to a tag at x->at + n whose sign is '-', '+' or 0. */
static int lex_data(lex *x, size_t to, char sign, bool variable) {
    size_t from = x->at, end = to;
    if (sign == '-') {
        end = lex_rstrip(x, from, to);
    } else if (sign != '+' && !variable) {
        size_t bol = to;
        while (bol > from && x->s[bol - 1] != '\n') bol--;
        if ((bol > from || x->line_start) && lex_rstrip(x, bol, to) == bol) end = bol;
    }
    int status = end > from ? lex_push(x, TM_T_DATA, x->s + from, end - from) : 0;
    lex_move(x, to);
    return status;
}

static char lex_sign(const lex *x, size_t at) {
    return at < x->n && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at] : 0;
}

/* The end of a block or comment: its mark with a sign, and what is trimmed after it; 0
 * when there is none at `at`. */
static size_t lex_close(const lex *x, size_t at, const char *mark) {
    char sign = lex_sign(x, at);
    size_t p = at + (sign != 0);
    if (!lex_has(x, p, mark)) return 0;
    p += 2;
    if (sign == '-') return lex_skip_space(x, p);
    return !sign && p < x->n && x->s[p] == '\n' ? p + 1 : p;
}

static int lex_comment(lex *x) {
    if (x->at == x->n) return 0; /* jinja2 lets this one pass */
    for (size_t p = x->at; p + 1 < x->n; p++) {
        size_t end = lex_close(x, p, "#}");
        if (!end) continue;
        lex_move(x, end);
        return 0;
    }
    return lex_fail(x, "a comment has no end");
}

/* After the word that opens a raw block, 0 when this is another block. */
static size_t lex_raw_open(const lex *x, size_t at) {
    size_t p = at + 2 + (lex_sign(x, at + 2) != 0);
    p = lex_skip_space(x, p);
    if (!lex_has(x, p, "raw")) return 0;
    p = lex_skip_space(x, p + 3);
    if (lex_has(x, p, "-%}")) return lex_skip_space(x, p + 3);
    return lex_has(x, p, "%}") ? p + 2 : 0;
}

static int lex_raw(lex *x, size_t from) {
    lex_move(x, from);
    if (from == x->n) return 0;
    for (size_t p = from; p + 1 < x->n; p++) {
        if (!lex_has(x, p, "{%")) continue;
        char sign = lex_sign(x, p + 2);
        size_t q = lex_skip_space(x, p + 2 + (sign != 0));
        if (!lex_has(x, q, "endraw")) continue;
        size_t end = lex_close(x, lex_skip_space(x, q + 6), "%}");
        if (!end) continue;
        int status = lex_data(x, p, sign, false);
        lex_move(x, end);
        return status;
    }
    return lex_fail(x, "a raw block has no end");
}

/* ---- inside tags ---- */

static bool lex_digit(char c, int base) {
    int v = c >= '0' && c <= '9'                 ? c - '0'
            : (c | 32) >= 'a' && (c | 32) <= 'z' ? (c | 32) - 87
                                                 : 99;
    return v < base;
}

/* Digits with single underscores between them; the end, or `at` when there are none. */
static size_t lex_digits(const lex *x, size_t at, int base) {
    size_t p = at;
    while (p < x->n && (lex_digit(x->s[p], base) ||
                        (x->s[p] == '_' && p > at && p + 1 < x->n && lex_digit(x->s[p + 1], base))))
        p++;
    return p;
}

/* The end of a float at x->at, or x->at. */
static size_t lex_float_end(const lex *x) {
    size_t p = lex_digits(x, x->at, 10), q = p;
    if (p == x->at || (x->at && x->s[x->at - 1] == '.')) return x->at;
    bool frac = false;
    if (p < x->n && x->s[p] == '.') {
        q = lex_digits(x, p + 1, 10);
        frac = q > p + 1;
    }
    if (frac) p = q;
    if (p < x->n && (x->s[p] | 32) == 'e') {
        size_t e = p + 1 + (p + 1 < x->n && (x->s[p + 1] == '+' || x->s[p + 1] == '-'));
        q = lex_digits(x, e, 10);
        if (q > e) return q;
    }
    return frac ? p : x->at;
}

static int lex_float(lex *x, size_t end) {
    char text[64];
    size_t n = 0;
    for (size_t i = x->at; i < end; i++)
        if (x->s[i] != '_') {
            if (n + 1 >= sizeof text) return lex_fail(x, "a number has too many digits");
            text[n++] = x->s[i];
        }
    int status = lex_push(x, TM_T_FLOAT, x->s + x->at, end - x->at);
    if (!status && !tni_tm_parse_float(text, n, &x->out.v[x->out.n - 1].f))
        status = lex_fail(x, "a number cannot be read");
    lex_move(x, end);
    return status;
}

static int lex_int(lex *x) {
    size_t from = x->at, end;
    char second = from + 1 < x->n ? x->s[from + 1] | 32 : 0;
    int base = x->s[from] != '0' ? 10
               : second == 'x'   ? 16
               : second == 'o'   ? 8
               : second == 'b'   ? 2
                                 : 1;
    size_t first = base == 10 || base == 1 ? from : from + 2;
    if (first < x->n && first > from && x->s[first] == '_') first++;
    end = lex_digits(x, first, base);
    if (end == first) base = 1, first = from, end = lex_digits(x, from, 1);
    int64_t v = 0;
    for (size_t i = first; i < end; i++) {
        if (x->s[i] == '_') continue;
        int d = x->s[i] <= '9' ? x->s[i] - '0' : (x->s[i] | 32) - 87;
        if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, d, &v))
            return lex_fail(x, "an integer does not fit in 64 bits");
    }
    int status = lex_push(x, TM_T_INT, x->s + from, end - from);
    if (!status) x->out.v[x->out.n - 1].i = v;
    lex_move(x, end);
    return status;
}

static bool lex_name_char(uint32_t cp) {
    if (cp < 0x80) return cp == '_' || lex_digit((char)cp, 36);
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NO) || c == UTF8PROC_CATEGORY_PC;
}

static size_t lex_name_end(const lex *x) {
    size_t p = x->at, len;
    while (p < x->n && lex_name_char(tni_tm_decode(x->s + p, x->n - p, &len))) p += len;
    return p;
}

/* \x41, \u0041, \U00000041: `digits` hexadecimal ones after s[0]. */
static int lex_hex(lex *x, const char **s, const char *end, int digits, char **out) {
    uint32_t v = 0;
    if (end - *s <= digits) return lex_fail(x, "a string has an unfinished escape");
    for (int i = 1; i <= digits; i++) {
        char c = (*s)[i];
        if (!lex_digit(c, 16)) return lex_fail(x, "a string has an escape that is not hexadecimal");
        v = v * 16 + (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 87);
    }
    char utf8[4];
    int n = tni_utf8_encode(v, utf8);
    if (!n) return lex_fail(x, "a string has an escape that is not a character");
    memcpy(*out, utf8, (size_t)n);
    *out += n, *s += digits + 1;
    return 0;
}

static void lex_octal(const char **s, const char *end, char **out) {
    uint32_t v = 0;
    for (int i = 0; i < 3 && *s < end && lex_digit(**s, 8); i++)
        v = v * 8 + (uint32_t)(*(*s)++ - '0');
    *out += tni_utf8_encode(v, *out);
}

/* One escape after its backslash. */
static int lex_escape(lex *x, const char **s, const char *end, char **out) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *p = **s ? strchr(from, **s) : NULL;
    if (p) {
        *(*out)++ = to[p - from], (*s)++;
    } else if (**s == '\n') {
        (*s)++;
    } else if (lex_digit(**s, 8)) {
        lex_octal(s, end, out);
    } else if (**s == 'x' || **s == 'u' || **s == 'U') {
        return lex_hex(x, s, end, **s == 'x' ? 2 : **s == 'u' ? 4 : 8, out);
    } else if (**s == 'N') {
        return lex_fail(x, "the escape \\N{...} in a string is not supported");
    } else {
        *(*out)++ = '\\';
    }
    return 0;
}

static int lex_string(lex *x) {
    char quote = x->s[x->at];
    size_t p = x->at + 1;
    while (p < x->n && x->s[p] != quote) p += x->s[p] == '\\' ? 2 : 1;
    if (p >= x->n) return lex_fail(x, "a string has no end");
    const char *s = x->s + x->at + 1, *end = x->s + p;
    char *text = tni_tm_alloc(x->arena, (size_t)(end - s) + 8), *to = text;
    if (!text) return x->arena->status;
    while (s < end) {
        if (*s != '\\') {
            *to++ = *s++;
            continue;
        }
        s++;
        int status = lex_escape(x, &s, end, &to);
        if (status) return status;
    }
    int status = lex_push(x, TM_T_STRING, text, (size_t)(to - text));
    lex_move(x, p + 1);
    return status;
}

static const struct {
    char text[3];
    uint8_t kind;
} lex_operators[] = {
    {"//", TM_T_FLOORDIV}, {"**", TM_T_POW},      {"==", TM_T_EQ},    {"!=", TM_T_NE},
    {">=", TM_T_GE},       {"<=", TM_T_LE},       {"+", TM_T_ADD},    {"-", TM_T_SUB},
    {"/", TM_T_DIV},       {"*", TM_T_MUL},       {"%", TM_T_MOD},    {"~", TM_T_TILDE},
    {"[", TM_T_LBRACKET},  {"]", TM_T_RBRACKET},  {"(", TM_T_LPAREN}, {")", TM_T_RPAREN},
    {"{", TM_T_LBRACE},    {"}", TM_T_RBRACE},    {">", TM_T_GT},     {"<", TM_T_LT},
    {"=", TM_T_ASSIGN},    {".", TM_T_DOT},       {":", TM_T_COLON},  {"|", TM_T_PIPE},
    {",", TM_T_COMMA},     {";", TM_T_SEMICOLON},
};

static int lex_balance(lex *x, uint8_t kind) {
    char open = kind == TM_T_LPAREN     ? ')'
                : kind == TM_T_LBRACKET ? ']'
                : kind == TM_T_LBRACE   ? '}'
                                        : 0;
    if (open) return tni_str_putc(&x->open, open) ? lex_memory() : 0;
    char c = kind == TM_T_RPAREN     ? ')'
             : kind == TM_T_RBRACKET ? ']'
             : kind == TM_T_RBRACE   ? '}'
                                     : 0;
    if (!c) return 0;
    if (!x->open.n || x->open.v[x->open.n - 1] != c)
        return tni_fail(TN_EFORMAT, "%s, line %d: unexpected '%c'", x->name, x->line, c);
    x->open.n--;
    return 0;
}

static int lex_operator(lex *x) {
    for (size_t i = 0; i < sizeof lex_operators / sizeof *lex_operators; i++) {
        if (!lex_has(x, x->at, lex_operators[i].text)) continue;
        int status = lex_balance(x, lex_operators[i].kind);
        size_t n = strlen(lex_operators[i].text);
        if (!status) status = lex_push(x, lex_operators[i].kind, x->s + x->at, n);
        lex_move(x, x->at + n);
        return status;
    }
    unsigned c = (unsigned char)x->s[x->at];
    if (c < 32 || c > 126)
        return tni_fail(TN_EFORMAT, "%s, line %d: unexpected byte 0x%02x", x->name, x->line, c);
    return tni_fail(TN_EFORMAT, "%s, line %d: unexpected character '%c'", x->name, x->line, c);
}

static int lex_inner(lex *x) {
    size_t end = lex_skip_space(x, x->at);
    if (end > x->at) return lex_move(x, end), 0;
    char c = x->s[x->at];
    if (c == '\'' || c == '"') return lex_string(x);
    if (c >= '0' && c <= '9')
        return (end = lex_float_end(x)) > x->at ? lex_float(x, end) : lex_int(x);
    end = lex_name_end(x);
    if (end == x->at) return lex_operator(x);
    int status = lex_push(x, TM_T_NAME, x->s + x->at, end - x->at);
    lex_move(x, end);
    return status;
}

/* Tokens of {{ }} or {% %} from after its opening mark. */
static int lex_tag(lex *x, bool variable) {
    int status = 0;
    while (!status) {
        size_t end = 0;
        if (x->at >= x->n) return lex_fail(x, variable ? "a '{{' has no end" : "a '{%' has no end");
        if (!x->open.n) {
            if (!variable)
                end = lex_close(x, x->at, "%}");
            else if (lex_has(x, x->at, "-}}"))
                end = lex_skip_space(x, x->at + 3);
            else if (lex_has(x, x->at, "}}"))
                end = x->at + 2;
        }
        if (end) {
            status = lex_push(x, variable ? TM_T_VAR_END : TM_T_BLOCK_END, x->s + x->at, 2);
            lex_move(x, end);
            return status;
        }
        status = lex_inner(x);
    }
    return status;
}

/* Text up to the next tag, and that tag. */
static int lex_root(lex *x) {
    size_t p = x->at;
    while (p + 1 < x->n && !(x->s[p] == '{' && strchr("{%#", x->s[p + 1]) && x->s[p + 1])) p++;
    if (p + 1 >= x->n) {
        int status = lex_push(x, TM_T_DATA, x->s + x->at, x->n - x->at);
        lex_move(x, x->n);
        return status;
    }
    char kind = x->s[p + 1], sign = lex_sign(x, p + 2);
    size_t raw = kind == '%' ? lex_raw_open(x, p) : 0;
    int status = lex_data(x, p, sign, kind == '{');
    if (status) return status;
    if (raw) return lex_raw(x, raw);
    if (kind != '#')
        status = lex_push(x, kind == '{' ? TM_T_VAR_BEGIN : TM_T_BLOCK_BEGIN, x->s + p, 2);
    lex_move(x, p + 2 + (sign != 0));
    if (status) return status;
    return kind == '#' ? lex_comment(x) : lex_tag(x, kind == '{');
}

/* One kind of newline; without the last one. */
static int lex_normalize(lex *x, const char *text, size_t n) {
    char *s = tni_tm_alloc(x->arena, n + 1);
    if (!s) return x->arena->status;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\r' && i + 1 < n && text[i + 1] == '\n') continue;
        s[x->n++] = text[i] == '\r' ? '\n' : text[i];
    }
    if (x->n && s[x->n - 1] == '\n') x->n--;
    x->s = s;
    for (size_t i = 0; i < x->n;) {
        uint32_t cp;
        int len = tni_utf8_decode(s + i, x->n - i, &cp);
        if (len <= 0) return lex_fail(x, "the template is not valid UTF-8");
        x->line += s[i] == '\n';
        i += (size_t)len;
    }
    x->line = 1;
    return 0;
}

int tni_tm_lex(tm_arena *a, const char *name, const char *text, size_t n, tm_token **out,
               size_t *n_out) {
    lex x = {.arena = a, .name = name, .line = 1, .line_start = true};
    int status = lex_normalize(&x, text, n);
    while (!status && x.at < x.n) status = lex_root(&x);
    if (!status) status = lex_push(&x, TM_T_EOF, "", 0);
    tni_str_free(&x.open);
    if (status) tni_vec_free(&x.out);
    *out = x.out.v, *n_out = x.out.n;
    return status;
}
