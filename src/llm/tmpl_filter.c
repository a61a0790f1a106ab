/* Filters of texts and numbers, and how filters are found. Python's soft_str() leaves a
 * text as it is and makes one of everything else: so does tni_tm_str. */
#include "base/err.h"
#include "llm/tmpl.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- texts ---- */

static int filter_trim(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    TM_TRY(tni_tm_str(r, v, &v));
    return tni_tm_strip(r, v.s, a[0], 3, out);
}

#define FILTER_CASE(name, how)                                                                     \
    static int filter_##name(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {                    \
        (void)a;                                                                                   \
        TM_TRY(tni_tm_str(r, v, &v));                                                              \
        return tni_tm_case(r, v.s, how, out);                                                      \
    }
FILTER_CASE(upper, 'u')
FILTER_CASE(lower, 'l')
FILTER_CASE(capitalize, 'c')

/* The characters after which the filter `title` begins a word. */
static bool filter_word_break(const tm_string *s, size_t at) {
    size_t len;
    return tni_tm_space(tni_tm_decode(s->s + at, s->n - at, &len)) ||
           (s->s[at] && strchr("-({[<", s->s[at]));
}

static int filter_title_part(tm_r *r, tm_buf *b, const tm_string *s, size_t from, size_t to) {
    tm_val head, rest;
    size_t n = tni_tm_char_at(s, from);
    TM_TRY(tni_tm_sub(r, s, from, from + n, &head));
    TM_TRY(tni_tm_case(r, head.s, 'u', &head));
    TM_TRY(tni_tm_put_str(r, b, head.s));
    TM_TRY(tni_tm_sub(r, s, from + n, to, &rest));
    TM_TRY(tni_tm_case(r, rest.s, 'l', &rest));
    return tni_tm_put_str(r, b, rest.s);
}

static int filter_title(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    tm_buf *b;
    (void)a;
    TM_TRY(tni_tm_str(r, v, &v));
    TM_TRY(tni_tm_buf(r, &b));
    const tm_string *s = v.s;
    for (size_t at = 0, end; at < s->n; at = end) {
        bool space = filter_word_break(s, at);
        for (end = at; end < s->n && filter_word_break(s, end) == space;)
            end += tni_tm_char_at(s, end);
        TM_TRY(filter_title_part(r, b, s, at, end));
    }
    return tni_tm_buf_str(r, b, out);
}

static int filter_plain(tm_r *r, tm_val v, tm_val *out) {
    TM_TRY(tni_tm_str(r, v, out));
    if (out->s->safe) {
        TM_TRY(tni_tm_sub(r, out->s, 0, out->s->n, out));
        ((tm_string *)out->s)->safe = false;
    }
    return 0;
}

static int filter_replace(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    tm_val from, to;
    int64_t count = -1;
    TM_TRY(filter_plain(r, v, &v));
    TM_TRY(filter_plain(r, a[0], &from));
    TM_TRY(filter_plain(r, a[1], &to));
    if (a[2].kind != TM_MISSING && a[2].kind != TM_NONE)
        TM_TRY(tni_tm_int_of(r, a[2], "replace", &count));
    return tni_tm_replace(r, v.s, from.s, to.s, count, out);
}

static int filter_string(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    (void)a;
    return tni_tm_str(r, v, out);
}

static int filter_safe(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    (void)a;
    TM_TRY(tni_tm_str(r, v, out));
    TM_TRY(tni_tm_sub(r, out->s, 0, out->s->n, out));
    ((tm_string *)out->s)->safe = true;
    return 0;
}

static int filter_escape(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    (void)a;
    TM_TRY(tni_tm_str(r, v, out));
    return out->s->safe ? 0 : tni_tm_escape(r, out->s, out);
}

static int filter_forceescape(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    (void)a;
    TM_TRY(tni_tm_str(r, v, out));
    return tni_tm_escape(r, out->s, out);
}

/* Four spaces, a number of them, or a text. */
static int filter_indention(tm_r *r, tm_val width, tm_val *out) {
    char spaces[256];
    int64_t n = 4;
    if (width.kind == TM_STR) return *out = width, 0;
    if (width.kind != TM_MISSING) TM_TRY(tni_tm_int_of(r, width, "indent", &n));
    if (n > (int64_t)sizeof spaces)
        return tni_tm_fail(r, "indent: more than %zu spaces", sizeof spaces);
    memset(spaces, ' ', sizeof spaces);
    return tni_tm_literal(r, spaces, n < 0 ? 0 : (size_t)n, out);
}

/* width, first, blank */
static int filter_indent(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    static const tm_string newline = {.s = "\n", .m = (const uint8_t *)"", .n = 1, .chars = 1};
    bool first = tni_tm_true(r, a[1]), blank = tni_tm_true(r, a[2]);
    tm_list *lines;
    tm_buf *b;
    tm_val by;
    if (v.kind == TM_UNDEF) return tni_tm_undef_fail(r, v);
    if (v.kind != TM_STR) return tni_tm_fail(r, "indent: '%s' is not a text", tni_tm_type(v));
    bool safe = v.s->safe;
    TM_TRY(filter_indention(r, a[0], &by));
    TM_TRY(tni_tm_join2(r, v.s, &newline, &v));
    TM_TRY(tni_tm_splitlines(r, v.s, false, &lines));
    TM_TRY(tni_tm_buf(r, &b));
    for (size_t i = 0; i < lines->n; i++) {
        const tm_string *line = lines->v[i].s;
        if (i) TM_TRY(tni_tm_put(r, b, "\n", NULL, 1));
        if (i ? blank || line->n : first) TM_TRY(tni_tm_put_str(r, b, by.s));
        TM_TRY(tni_tm_put_str(r, b, line));
    }
    TM_TRY(tni_tm_buf_str(r, b, out));
    ((tm_string *)out->s)->safe = safe;
    return 0;
}

/* The longest beginning of the text of `chars` characters that ends before a space. */
static int filter_cut(tm_r *r, tm_val v, int64_t chars, bool words, tm_val *out) {
    tm_val to[3] = {tm_none(), tm_int(chars), tm_none()};
    TM_TRY(tni_tm_slice(r, v, to, out));
    if (!words) return 0;
    for (size_t n = out->s->n; n > 0; n--)
        if (out->s->s[n - 1] == ' ') return tni_tm_sub(r, out->s, 0, n - 1, out);
    return 0;
}

/* length, killwords, end, leeway */
static int filter_truncate(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    int64_t length = 255, leeway = 5;
    tm_val end = a[2];
    if (a[0].kind != TM_MISSING) TM_TRY(tni_tm_int_of(r, a[0], "truncate", &length));
    if (a[3].kind != TM_MISSING && a[3].kind != TM_NONE)
        TM_TRY(tni_tm_int_of(r, a[3], "truncate", &leeway));
    if (end.kind == TM_MISSING) TM_TRY(tni_tm_literal(r, "...", 3, &end));
    int64_t n, n_end;
    TM_TRY(tni_tm_length(r, v, &n));
    TM_TRY(tni_tm_length(r, end, &n_end));
    if (n < 0 || n_end < 0 || length < n_end || leeway < 0)
        return tni_tm_fail(r, "truncate: nothing to cut, or the length or leeway is too small");
    if (n - leeway <= length) return *out = v, 0;
    if (v.kind != TM_STR || end.kind != TM_STR) return tni_tm_fail(r, "truncate needs a text");
    int64_t cut = length - n_end;
    TM_TRY(filter_cut(r, v, cut, !tni_tm_true(r, a[1]), &v));
    return tni_tm_join2(r, v.s, end.s, out);
}

static int filter_center(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    static const tm_string space = {.s = " ", .m = (const uint8_t *)"", .n = 1, .chars = 1};
    int64_t width = 80;
    if (a[0].kind != TM_MISSING) TM_TRY(tni_tm_int_of(r, a[0], "center", &width));
    TM_TRY(tni_tm_str(r, v, &v));
    return tni_tm_pad(r, v.s, width, &space, '^', out);
}

static int filter_format(tm_r *r, tm_val v, const tm_call *c, tm_val *out) {
    tm_list *l;
    tm_dict *d;
    if (c->n_pos && c->n_kw)
        return tni_tm_fail(r, "format takes arguments with or without names, not both");
    TM_TRY(tni_tm_str(r, v, &v));
    TM_TRY(tni_tm_list(r, c->n_pos, &l));
    TM_TRY(tni_tm_dict(r, &d));
    for (size_t i = 0; i < c->n_pos; i++) TM_TRY(tni_tm_push(r, l, c->pos[i]));
    for (size_t i = 0; i < c->n_kw; i++)
        TM_TRY(tni_tm_dict_set(r, d, tm_str(c->kw[i].name), c->kw[i].v));
    return tni_tm_percent(r, v.s, c->n_kw ? tm_dictv(d) : tm_tuple(l), out);
}

/* ---- numbers ---- */

/* int(text, base): sign, prefix, digits with single underscores. */
static bool filter_parse_int(const tm_string *s, int64_t base, int64_t *out) {
    size_t at = 0, n = s->n;
    bool negative = n && s->s[0] == '-', under = true;
    at += n && (s->s[0] == '-' || s->s[0] == '+');
    int64_t prefix = at + 1 < n && s->s[at] == '0' ? (s->s[at + 1] | 32) == 'x'   ? 16
                                                     : (s->s[at + 1] | 32) == 'o' ? 8
                                                     : (s->s[at + 1] | 32) == 'b' ? 2
                                                                                  : 0
                                                   : 0;
    if (prefix && (base == prefix || base == 0)) at += 2, base = prefix, under = false;
    bool zeros_only = !base && at < n && s->s[at] == '0'; /* base 0: "012" is no number */
    if (!base) base = 10;
    *out = 0;
    if (at == n) return false;
    for (; at < n; at++) {
        char c = s->s[at];
        int d = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'z' ? (c | 32) - 87
                                                     : 99;
        if (c == '_' && !under) {
            under = true;
            continue;
        }
        if (d >= base || (zeros_only && d) || __builtin_mul_overflow(*out, base, out) ||
            __builtin_add_overflow(*out, negative ? -d : d, out))
            return false;
        under = false;
    }
    return !under;
}

/* float(text); also inf, nan and underscores between digits. */
static bool filter_parse_float(const tm_string *s, double *out) {
    char t[400];
    size_t n = 0, sign = s->n && (s->s[0] == '-' || s->s[0] == '+');
    static const struct {
        const char *name;
        double v;
    } words[] = {{"inf", INFINITY}, {"infinity", INFINITY}, {"nan", NAN}};
    if (s->n >= sizeof t) return false;
    for (size_t i = 0; i < s->n; i++) {
        bool inner = i && i + 1 < s->n && s->s[i - 1] >= '0' && s->s[i - 1] <= '9' &&
                     s->s[i + 1] >= '0' && s->s[i + 1] <= '9';
        if (s->s[i] != '_' || !inner) t[n++] = s->s[i];
    }
    t[n] = 0;
    if (tni_tm_parse_float(t, n, out)) return true;
    for (size_t i = sign; i < n; i++) t[i] = (char)(t[i] >= 'A' && t[i] <= 'Z' ? t[i] | 32 : t[i]);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(t + sign, words[i].name))
            return *out = t[0] == '-' ? -words[i].v : words[i].v, true;
    return false;
}

/* float(v): false when Python raises TypeError or ValueError. */
static int filter_as_float(tm_r *r, tm_val v, double *out, bool *done) {
    *done = tm_is_number(v);
    if (v.kind == TM_UNDEF) return tni_tm_undef_fail(r, v);
    if (*done) *out = v.kind == TM_FLOAT ? v.f : (double)tm_to_int(v);
    if (v.kind != TM_STR) return 0;
    TM_TRY(tni_tm_strip(r, v.s, tm_none(), 3, &v));
    *done = filter_parse_float(v.s, out);
    return 0;
}

static int filter_float(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    double f;
    bool done;
    TM_TRY(filter_as_float(r, v, &f, &done));
    *out = done ? tm_float(f) : a[0].kind == TM_MISSING ? tm_float(0) : a[0];
    return 0;
}

/* default, base */
static int filter_int(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    int64_t base = 10, i;
    double f;
    bool done;
    *out = a[0].kind == TM_MISSING ? tm_int(0) : a[0];
    if (tm_is_int(v)) return *out = tm_int(tm_to_int(v)), 0;
    if (v.kind == TM_STR) {
        tm_val s;
        if (a[1].kind != TM_MISSING) TM_TRY(tni_tm_int_of(r, a[1], "int", &base));
        TM_TRY(tni_tm_strip(r, v.s, tm_none(), 3, &s));
        bool valid = base == 0 || (base >= 2 && base <= 36);
        if (valid && filter_parse_int(s.s, base, &i)) return *out = tm_int(i), 0;
    }
    TM_TRY(filter_as_float(r, v, &f, &done));
    if (!done || isnan(f)) return 0;
    if (isinf(f)) return v.kind == TM_STR ? 0 : tni_tm_fail(r, "int: the number is infinite");
    if (fabs(f) >= 9223372036854775808.0)
        return tni_tm_fail(r, "int: the number does not fit in 64 bits");
    *out = tm_int((int64_t)f);
    return 0;
}

static int filter_abs(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    (void)a;
    if (v.kind == TM_FLOAT) return *out = tm_float(fabs(v.f)), 0;
    if (!tm_is_int(v)) return tni_tm_fail(r, "abs: '%s' is not a number", tni_tm_type(v));
    return tni_tm_unary(r, tm_to_int(v) < 0, v, out);
}

static int filter_round_int(tm_r *r, int64_t v, int64_t digits, tm_val *out) {
    int64_t unit = 1;
    *out = tm_int(v);
    if (digits >= 0) return 0;
    for (; digits < 0; digits++)
        if (__builtin_mul_overflow(unit, 10, &unit)) return *out = tm_int(0), 0;
    int64_t low = v - ((v % unit) + unit) % unit, rest = v - low;
    if (rest * 2 > unit || (rest * 2 == unit && (low / unit) % 2)) {
        if (__builtin_add_overflow(low, unit, &low))
            return tni_tm_fail(r, "round: a number is too large");
    }
    *out = tm_int(low);
    return 0;
}

/* Python rounds the exact decimal value: so does printing it with that many digits. */
static double filter_round_float(double f, int64_t digits) {
    char t[400];
    if (!isfinite(f) || digits > 300) return f;
    if (digits < 0) {
        double unit = pow(10, (double)-digits);
        return isinf(unit) ? copysign(0, f) : rint(f / unit) * unit;
    }
    if (fabs(f) > 1e40) return f; /* a whole number already */
    snprintf(t, sizeof t, "%.*f", (int)digits, f);
    return strtod(t, NULL);
}

/* precision, method */
static int filter_round(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    int64_t digits = 0;
    if (a[0].kind != TM_MISSING) TM_TRY(tni_tm_int_of(r, a[0], "round", &digits));
    bool common = a[1].kind == TM_MISSING || tni_tm_is(a[1], "common");
    bool up = tni_tm_is(a[1], "ceil");
    if (!common && !up && !tni_tm_is(a[1], "floor"))
        return tni_tm_fail(r, "round: the method must be common, ceil or floor");
    if (v.kind == TM_UNDEF) return tni_tm_undef_fail(r, v);
    if (!tm_is_number(v)) return tni_tm_fail(r, "round: '%s' is not a number", tni_tm_type(v));
    if (common && v.kind != TM_FLOAT) return filter_round_int(r, tm_to_int(v), digits, out);
    if (common) return *out = tm_float(filter_round_float(v.f, digits)), 0;
    double unit = pow(10, (double)digits), f = v.kind == TM_FLOAT ? v.f : (double)tm_to_int(v);
    if (!isfinite(f * unit) || !unit) return tni_tm_fail(r, "round: a number is too large");
    *out = tm_float((up ? ceil(f * unit) : floor(f * unit)) / unit);
    return 0;
}

/* ---- anything ---- */

/* default_value, boolean */
static int filter_default(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    *out = v;
    if (v.kind != TM_UNDEF && !(tni_tm_true(r, a[1]) && !tni_tm_true(r, v))) return 0;
    if (a[0].kind == TM_MISSING) return tni_tm_literal(r, "", 0, out);
    *out = a[0];
    return 0;
}

static int filter_length(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    int64_t n;
    (void)a;
    TM_TRY(tni_tm_length(r, v, &n));
    if (n < 0) return tni_tm_fail(r, "a '%s' has no length", tni_tm_type(v));
    *out = tm_int(n);
    return 0;
}

static int filter_wordcount(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    int64_t n = 0;
    bool word = false;
    size_t len;
    (void)a;
    TM_TRY(tni_tm_str(r, v, &v));
    TM_TRY(tni_tm_step(r, v.s->n >> 4));
    for (size_t i = 0; i < v.s->n; i += len) {
        bool is = tni_tm_word(tni_tm_decode(v.s->s + i, v.s->n - i, &len));
        n += is && !word;
        word = is;
    }
    *out = tm_int(n);
    return 0;
}

const tm_filter tni_tm_text_filters[] = {
    {"trim", "chars", 0, filter_trim, NULL},
    {"upper", "", 0, filter_upper, NULL},
    {"lower", "", 0, filter_lower, NULL},
    {"title", "", 0, filter_title, NULL},
    {"capitalize", "", 0, filter_capitalize, NULL},
    {"replace", "old,new,count", 2, filter_replace, NULL},
    {"string", "", 0, filter_string, NULL},
    {"safe", "", 0, filter_safe, NULL},
    {"escape", "", 0, filter_escape, NULL},
    {"e", "", 0, filter_escape, NULL},
    {"forceescape", "", 0, filter_forceescape, NULL},
    {"indent", "width,first,blank", 0, filter_indent, NULL},
    {"truncate", "length,killwords,end,leeway", 0, filter_truncate, NULL},
    {"center", "width", 0, filter_center, NULL},
    {"format", "", 0, NULL, filter_format},
    {"float", "default", 0, filter_float, NULL},
    {"int", "default,base", 0, filter_int, NULL},
    {"abs", "", 0, filter_abs, NULL},
    {"round", "precision,method", 0, filter_round, NULL},
    {"default", "default_value,boolean", 0, filter_default, NULL},
    {"d", "default_value,boolean", 0, filter_default, NULL},
    {"length", "", 0, filter_length, NULL},
    {"count", "", 0, filter_length, NULL},
    {"wordcount", "", 0, filter_wordcount, NULL},
    {"tojson", "ensure_ascii,indent,separators,sort_keys", 0, tni_tm_to_json, NULL},
    {0},
};

/* The two tables in a row; a filter's number is its place. */
const tm_filter *tni_tm_filter(int index) {
    const int n = (int)(sizeof tni_tm_text_filters / sizeof *tni_tm_text_filters) - 1;
    return index < n ? &tni_tm_text_filters[index] : &tni_tm_seq_filters[index - n];
}

int tni_tm_filter_index(tni_bytes name) {
    for (int i = 0; tni_tm_filter(i)->name; i++) {
        const char *s = tni_tm_filter(i)->name;
        if (strlen(s) == name.n && !memcmp(s, name.s, name.n)) return i;
    }
    return -1;
}
