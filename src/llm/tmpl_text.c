/* What values look like as text: Python's str() and repr(), and the case of letters. */
#include "base/alloc.h"
#include "llm/tmpl.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- numbers ---- */

/* The digits and the decimal exponent of the shortest text that reads back as f. */
static int text_digits(double f, char digits[20], int *exponent) {
    char e[40];
    for (int p = 0; p < 17; p++) {
        snprintf(e, sizeof e, "%.*e", p, f);
        if (strtod(e, NULL) == f) break; /* both use the locale's decimal point */
    }
    int n = 0;
    char *c = e;
    for (; *c && *c != 'e'; c++)
        if (*c >= '0' && *c <= '9') digits[n++] = *c;
    *exponent = *c ? atoi(c + 1) : 0;
    while (n > 1 && digits[n - 1] == '0') n--;
    return n;
}

/* repr(f): positional from 1e-4 to 1e16, else with an exponent. */
void tni_tm_float_text(double f, char out[40]) {
    char digits[20], *o = out;
    int exponent;
    if (isnan(f)) {
        snprintf(out, 40, "nan");
        return;
    }
    if (signbit(f)) *o++ = '-';
    if (isinf(f)) {
        snprintf(o, 39, "inf");
        return;
    }
    int n = text_digits(fabs(f), digits, &exponent);
    bool plain = exponent >= -4 && exponent < 16;
    int point = plain ? exponent + 1 : 1; /* digits before the point */
    if (point <= 0) {
        *o++ = '0', *o++ = '.';
        for (int i = point; i < 0; i++) *o++ = '0';
        point = -1;
    }
    for (int i = 0; i < n || (plain && i <= point); i++) {
        if (i == point && (plain || n > 1)) *o++ = '.';
        *o++ = i < n ? digits[i] : '0';
    }
    *o = 0;
    if (!plain)
        snprintf(o, (size_t)(out + 40 - o), "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
}

static size_t text_skip_digits(const char *s, size_t n, size_t at) {
    while (at < n && s[at] >= '0' && s[at] <= '9') at++;
    return at;
}

static bool text_is_float(const char *s, size_t n) {
    size_t at = n && (*s == '+' || *s == '-'), from = at;
    at = text_skip_digits(s, n, at);
    size_t digits = at - from;
    if (at < n && s[at] == '.') {
        from = at + 1;
        at = text_skip_digits(s, n, from);
        digits += at - from;
    }
    if (!digits) return false;
    if (at < n && (s[at] | 32) == 'e') {
        at++;
        at += at < n && (s[at] == '+' || s[at] == '-');
        from = at;
        at = text_skip_digits(s, n, at);
        if (at == from) return false;
    }
    return at == n;
}

bool tni_tm_parse_float(const char *s, size_t n, double *out) {
    char text[400], half[16];
    if (!text_is_float(s, n) || n > 350) return false;
    int k = snprintf(half, sizeof half, "%.1f", 0.5); /* shows the locale's point */
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] != '.') {
            text[len++] = s[i];
            continue;
        }
        memcpy(text + len, half + 1, (size_t)k - 2);
        len += (size_t)k - 2;
    }
    text[len] = 0;
    *out = strtod(text, NULL);
    return true;
}

/* ---- characters ---- */

bool tni_tm_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

bool tni_tm_word(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return c == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
           (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
}

/* str.isprintable() */
static bool text_printable(uint32_t c) {
    if (c < 0x7F) return c >= 32;
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k != UTF8PROC_CATEGORY_CN && k < UTF8PROC_CATEGORY_ZS;
}

/* ---- str() and repr() ---- */

static int text_escaped_char(tm_r *r, tm_buf *b, uint32_t c, char quote, uint8_t mark) {
    static const char from[] = "\n\r\t\\", to[] = "nrt\\";
    char e[12];
    const char *p = c && c < 128 ? strchr(from, (char)c) : NULL;
    if (p || c == (unsigned char)quote)
        snprintf(e, sizeof e, "\\%c", p ? to[p - from] : quote);
    else
        snprintf(e, sizeof e, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    return tni_tm_put_marked(r, b, e, strlen(e), mark);
}

static int text_repr_string(tm_r *r, tm_buf *b, const tm_string *s) {
    char quote = memchr(s->s, '\'', s->n) && !memchr(s->s, '"', s->n) ? '"' : '\'';
    size_t run = 0, len;
    TM_TRY(tni_tm_put(r, b, &quote, NULL, 1));
    for (size_t i = 0; i < s->n; i += len) {
        uint32_t c = tni_tm_decode(s->s + i, s->n - i, &len);
        if (text_printable(c) && c != '\\' && c != (unsigned char)quote) continue;
        TM_TRY(tni_tm_put(r, b, s->s + run, s->m + run, i - run));
        TM_TRY(text_escaped_char(r, b, c, quote, s->m[i]));
        run = i + len;
    }
    TM_TRY(tni_tm_put(r, b, s->s + run, s->m + run, s->n - run));
    return tni_tm_put(r, b, &quote, NULL, 1);
}

static int text_list(tm_r *r, tm_buf *b, const tm_list *l, const char *open, const char *close) {
    TM_TRY(tni_tm_puts(r, b, open));
    for (size_t i = 0; i < l->n; i++) {
        if (i) TM_TRY(tni_tm_puts(r, b, ", "));
        TM_TRY(tni_tm_put_repr(r, b, l->v[i]));
    }
    return tni_tm_puts(r, b, close);
}

static int text_dict(tm_r *r, tm_buf *b, const tm_dict *d) {
    TM_TRY(tni_tm_puts(r, b, "{"));
    for (size_t i = 0; i < d->n; i++) {
        if (i) TM_TRY(tni_tm_puts(r, b, ", "));
        TM_TRY(tni_tm_put_repr(r, b, d->e[i].key));
        TM_TRY(tni_tm_puts(r, b, ": "));
        TM_TRY(tni_tm_put_repr(r, b, d->e[i].value));
    }
    return tni_tm_puts(r, b, "}");
}

static int text_view(tm_r *r, tm_buf *b, tm_val v) {
    tm_list *l;
    const char *name = v.view->what == 'i'   ? "dict_items(["
                       : v.view->what == 'k' ? "dict_keys(["
                                             : "dict_values([";
    TM_TRY(tni_tm_to_list(r, v, &l));
    return text_list(r, b, l, name, "])");
}

static int text_range(tm_r *r, tm_buf *b, const tm_range *g) {
    char t[100];
    int64_t stop = g->start + g->step * g->n;
    int n = snprintf(t, sizeof t, "range(%lld, %lld", (long long)g->start, (long long)stop);
    if (g->step != 1) n += snprintf(t + n, sizeof t - (size_t)n, ", %lld", (long long)g->step);
    snprintf(t + n, sizeof t - (size_t)n, ")");
    return tni_tm_puts(r, b, t);
}

static int text_loop(tm_r *r, tm_buf *b, tm_val v) {
    tm_val index;
    int64_t n;
    char t[80];
    TM_TRY(tni_tm_loop_attr(r, v.loop, (tni_bytes){"index", 5}, &index));
    TM_TRY(tni_tm_loop_length(r, v.loop, &n));
    snprintf(t, sizeof t, "<LoopContext %lld/%lld>", (long long)index.i, (long long)n);
    return tni_tm_puts(r, b, t);
}

static int text_namespace(tm_r *r, tm_buf *b, const tm_dict *d) {
    TM_TRY(tni_tm_puts(r, b, "<Namespace "));
    TM_TRY(text_dict(r, b, d));
    return tni_tm_puts(r, b, ">");
}

static int text_macro(tm_r *r, tm_buf *b, const tm_node *n) {
    if (n->name < 0) return tni_tm_puts(r, b, "<Macro anonymous>");
    TM_TRY(tni_tm_puts(r, b, "<Macro "));
    TM_TRY(text_repr_string(r, b, n->value.s));
    return tni_tm_puts(r, b, ">");
}

/* Python prints an address here, which nobody can want. */
static int text_object(tm_r *r, tm_buf *b, tm_val v) {
    TM_TRY(tni_tm_puts(r, b, "<"));
    TM_TRY(tni_tm_puts(r, b, tni_tm_type(v)));
    return tni_tm_puts(r, b, " object>");
}

static int text_repr(tm_r *r, tm_buf *b, tm_val v) {
    char t[40];
    switch (v.kind) {
    case TM_UNDEF:
    case TM_MISSING:
        return tni_tm_puts(r, b, "Undefined");
    case TM_NONE:
        return tni_tm_puts(r, b, "None");
    case TM_BOOL:
        return tni_tm_puts(r, b, v.b ? "True" : "False");
    case TM_INT:
        snprintf(t, sizeof t, "%lld", (long long)v.i);
        return tni_tm_puts(r, b, t);
    case TM_FLOAT:
        tni_tm_float_text(v.f, t);
        return tni_tm_puts(r, b, t);
    case TM_STR:
        if (!v.s->safe) return text_repr_string(r, b, v.s);
        TM_TRY(tni_tm_puts(r, b, "Markup("));
        TM_TRY(text_repr_string(r, b, v.s));
        return tni_tm_puts(r, b, ")");
    case TM_LIST:
        return text_list(r, b, v.l, "[", "]");
    case TM_TUPLE:
        return text_list(r, b, v.l, "(", v.l->n == 1 ? ",)" : ")");
    case TM_DICT:
        return text_dict(r, b, v.d);
    case TM_NS:
        return text_namespace(r, b, v.d);
    case TM_RANGE:
        return text_range(r, b, v.range);
    case TM_VIEW:
        return text_view(r, b, v);
    case TM_LOOP:
        return text_loop(r, b, v);
    case TM_MACRO:
        return text_macro(r, b, v.macro->node);
    default:
        return text_object(r, b, v);
    }
}

int tni_tm_put_repr(tm_r *r, tm_buf *b, tm_val v) {
    if (++r->nest > TM_MAX_NEST)
        return tni_tm_fail(r, "values are nested more than %d deep", TM_MAX_NEST);
    TM_TRY(tni_tm_step(r, 1));
    TM_TRY(text_repr(r, b, v));
    r->nest--;
    return 0;
}

int tni_tm_put_text(tm_r *r, tm_buf *b, tm_val v) {
    if (v.kind == TM_STR) return tni_tm_put_str(r, b, v.s);
    return v.kind == TM_UNDEF ? 0 : tni_tm_put_repr(r, b, v);
}

int tni_tm_str(tm_r *r, tm_val v, tm_val *out) {
    tm_buf *b;
    if (v.kind == TM_STR) return *out = v, 0;
    TM_TRY(tni_tm_buf(r, &b));
    TM_TRY(tni_tm_put_text(r, b, v));
    return tni_tm_buf_str(r, b, out);
}

/* ---- case ---- */

static const struct text_special {
    uint32_t cp;
    const char *upper, *title;
} text_specials[] = {
#define X(cp, upper, title) {cp, upper, title},
#include "llm/tmpl_case.def"
#undef X
};

static const struct text_special *text_special(uint32_t c) {
    size_t lo = 0, hi = sizeof text_specials / sizeof *text_specials;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (text_specials[mid].cp == c) return &text_specials[mid];
        if (text_specials[mid].cp < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static bool text_cased(uint32_t c) {
    if (c < 128) return (c | 32) >= 'a' && (c | 32) <= 'z';
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

/* Characters that do not stand between a letter and the end of its word. */
static bool text_case_ignorable(uint32_t c) {
    if (c < 128) return c == '\'' || c == '.' || c == ':' || c == '^' || c == '`';
    if (c == 0xB7 || c == 0x2018 || c == 0x2019 || c == 0x2024 || c == 0x2027) return true;
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK;
}

/* No letter follows the capital sigma at `at`: after a letter it ends a word. */
static bool text_final_sigma(const tm_string *s, size_t at) {
    size_t len;
    for (size_t i = at + 2; i < s->n; i += len) {
        uint32_t c = tni_tm_decode(s->s + i, s->n - i, &len);
        if (!text_case_ignorable(c)) return !text_cased(c);
    }
    return true;
}

/* One character in upper ('u'), lower ('l') or title ('t') case; its length in out. `after`:
 * the last character before it that counts was a letter. */
static size_t text_case_char(const tm_string *s, size_t at, bool after, char how, char out[16]) {
    size_t len;
    uint32_t c = tni_tm_decode(s->s + at, s->n - at, &len);
    if (c < 128) {
        bool change = how == 'l' ? c >= 'A' && c <= 'Z' : c >= 'a' && c <= 'z';
        return out[0] = (char)(change ? c ^ 32 : c), 1;
    }
    const struct text_special *x = how == 'l' ? NULL : text_special(c);
    if (x) {
        const char *t = how == 'u' ? x->upper : x->title;
        size_t n = strlen(t);
        return memcpy(out, t, n), n;
    }
    if (how == 'l' && c == 0x130) return memcpy(out, "i\xCC\x87", 3), 3;
    if (how == 'l' && c == 0x3A3 && after && text_final_sigma(s, at))
        return memcpy(out, "\xCF\x82", 2), 2;
    utf8proc_int32_t v = (utf8proc_int32_t)c;
    v = how == 'u' ? utf8proc_toupper(v) : how == 'l' ? utf8proc_tolower(v) : utf8proc_totitle(v);
    return (size_t)tni_utf8_encode((uint32_t)v, out);
}

/* how: u upper, l lower, c capitalize, t title, s swapcase */
int tni_tm_case(tm_r *r, const tm_string *s, char how, tm_val *out) {
    tm_buf *b;
    size_t len;
    bool word = false, after = false; /* the character before is a letter; but for marks */
    char to[16];
    TM_TRY(tni_tm_buf(r, &b));
    for (size_t i = 0; i < s->n; i += len) {
        uint32_t c = tni_tm_decode(s->s + i, s->n - i, &len);
        char one = how;
        if (how == 'c') one = i ? 'l' : 't';
        if (how == 't') one = word ? 'l' : 't';
        if (how == 's')
            one = utf8proc_tolower((utf8proc_int32_t)c) != (utf8proc_int32_t)c ? 'l' : 'u';
        word = text_cased(c);
        size_t n = text_case_char(s, i, after, one, to);
        if (!text_case_ignorable(c)) after = word;
        TM_TRY(n ? tni_tm_put_marked(r, b, to, n, s->m[i])
                 : tni_tm_put(r, b, s->s + i, s->m + i, len));
    }
    TM_TRY(tni_tm_buf_str(r, b, out));
    ((tm_string *)out->s)->safe = s->safe;
    return 0;
}

/* str.isupper(), str.islower(): some cased character, none of the other case. */
bool tni_tm_has_case(const tm_string *s, bool upper) {
    bool some = false;
    size_t len;
    for (size_t i = 0; i < s->n; i += len) {
        uint32_t c = tni_tm_decode(s->s + i, s->n - i, &len);
        if (!text_cased(c)) continue;
        bool is_lower = utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LL;
        bool is_upper = utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LU;
        if (upper ? !is_upper : !is_lower) return false;
        some = true;
    }
    return some;
}
