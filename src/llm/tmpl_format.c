/* Formatting: text % values, and text.format(...). */
#include "base/err.h"
#include "llm/tmpl.h"
#include <stdio.h>
#include <string.h>

enum { FORMAT_MAX = 1000 }; /* widths and precisions */

typedef struct format_spec {
    const tm_string *fill; /* NULL: a space, or zeros after the sign */
    char align, sign, type, group;
    bool alternate, zero;
    int64_t width, precision; /* -1: none */
} format_spec;

static const tm_string format_space = {.s = " ", .m = (const uint8_t *)"", .n = 1, .chars = 1};
static const tm_string format_zero = {.s = "0", .m = (const uint8_t *)"", .n = 1, .chars = 1};

static int format_text(tm_r *r, const char *s, tm_val *out) {
    return tni_tm_literal(r, s, strlen(s), out);
}

/* Bytes before the first of `stop`. */
static size_t format_span(const char *s, size_t n, const char *stop) {
    size_t i = 0;
    while (i < n && !(s[i] && strchr(stop, s[i]))) i++;
    return i;
}

/* ---- numbers ---- */

/* The locale's decimal point, whatever bytes it has, becomes '.'. */
static void format_point(char *s) {
    char *to = s;
    bool point = false;
    for (; *s; s++) {
        bool plain = (*s >= '0' && *s <= '9') || strchr("+-eEinfaINFA", *s);
        if (plain || !point) *to++ = plain ? *s : '.';
        point = !plain;
    }
    *to = 0;
}

static int format_float(tm_r *r, double f, const format_spec *s, char out[FORMAT_MAX + 400]) {
    char spec[16];
    char type = s->type == '%' || !s->type ? 'f' : s->type;
    int precision = s->precision < 0 ? 6 : (int)s->precision;
    if (precision > FORMAT_MAX / 2)
        return tni_tm_fail(r, "a precision of more than %d", FORMAT_MAX / 2);
    snprintf(spec, sizeof spec, "%%%s.*%c", s->alternate ? "#" : "", type);
    snprintf(out, FORMAT_MAX + 400, spec, precision, s->type == '%' ? f * 100 : f);
    format_point(out);
    if (s->type == '%') strcat(out, "%");
    return 0;
}

/* Digits of |v| in a base, most significant first. */
static void format_digits(uint64_t v, int base, bool upper, char *out) {
    char t[72];
    int n = 0;
    do {
        t[n++] = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[v % (uint64_t)base];
        v /= (uint64_t)base;
    } while (v);
    while (n) *out++ = t[--n];
    *out = 0;
}

/* A separator every three digits before the point. */
static void format_group(char *s, char group) {
    size_t digits = strspn(s, "0123456789"), commas = digits ? (digits - 1) / 3 : 0;
    if (!group || !commas) return;
    memmove(s + digits + commas, s + digits, strlen(s + digits) + 1);
    for (size_t i = 0, to = digits + commas; i < digits; i++) {
        s[--to] = s[digits - 1 - i];
        if (i % 3 == 2 && i + 1 < digits) s[--to] = group;
    }
}

/* body: the number without its sign; prefix: "-", "+0x" and so on. */
static int format_pad_number(tm_r *r, const char *prefix, const char *body, const format_spec *s,
                             tm_val *out) {
    tm_val head, rest;
    TM_TRY(format_text(r, prefix, &head));
    TM_TRY(format_text(r, body, &rest));
    bool inside = s->align == '=' || (!s->align && s->zero);
    const tm_string *fill = s->fill ? s->fill : inside && s->zero ? &format_zero : &format_space;
    if (inside) TM_TRY(tni_tm_pad(r, rest.s, s->width - (int64_t)strlen(prefix), fill, '>', &rest));
    TM_TRY(tni_tm_join2(r, head.s, rest.s, out));
    char side = s->align == '<' ? '<' : s->align == '^' ? 'c' : '>';
    return inside ? 0 : tni_tm_pad(r, out->s, s->width, fill, side, out);
}

static int format_number(tm_r *r, tm_val v, const format_spec *s, tm_val *out) {
    char body[2 * FORMAT_MAX + 800], prefix[8], sign[2] = {0};
    const char *mark = "";
    bool real = v.kind == TM_FLOAT || (s->type && strchr("eEfFgG%", s->type));
    bool negative = v.kind == TM_FLOAT ? v.f < 0 || (v.f == 0 && 1 / v.f < 0) : tm_to_int(v) < 0;
    if (real) {
        double f = v.kind == TM_FLOAT ? v.f : (double)tm_to_int(v);
        if (s->type || s->precision >= 0)
            TM_TRY(format_float(r, negative ? -f : f, s, body));
        else
            tni_tm_float_text(negative ? -f : f, body);
    } else {
        int64_t i = tm_to_int(v);
        char t = s->type ? s->type : 'd';
        int base = t == 'b' ? 2 : t == 'o' ? 8 : (t | 32) == 'x' ? 16 : 10;
        format_digits(i < 0 ? 0 - (uint64_t)i : (uint64_t)i, base, t == 'X', body);
        if (s->alternate)
            mark = t == 'b' ? "0b" : t == 'o' ? "0o" : t == 'x' ? "0x" : t == 'X' ? "0X" : "";
    }
    format_group(body, s->group);
    sign[0] = negative ? '-' : s->sign == '+' || s->sign == ' ' ? s->sign : 0;
    snprintf(prefix, sizeof prefix, "%s%s", sign, mark);
    return format_pad_number(r, prefix, body, s, out);
}

/* ---- text % values ---- */

typedef struct format_percent {
    tm_r *r;
    const tm_string *f;
    size_t at;
    tm_val args;
    size_t next; /* of a tuple; for any other value: 0 or 1 */
} format_percent;

static int format_next(format_percent *p, tm_val *out) {
    bool many = p->args.kind == TM_TUPLE;
    if (p->next >= (many ? p->args.l->n : 1))
        return tni_tm_fail(p->r, "%%: not enough values for the text");
    *out = many ? p->args.l->v[p->next] : p->args;
    p->next++;
    return 0;
}

/* A number or '*' at the current place. */
static int format_count(format_percent *p, int64_t *out) {
    if (p->at < p->f->n && p->f->s[p->at] == '*') {
        tm_val v;
        p->at++;
        TM_TRY(format_next(p, &v));
        TM_TRY(tni_tm_int_of(p->r, v, "%: '*'", out));
    } else {
        for (*out = 0; p->at < p->f->n && p->f->s[p->at] >= '0' && p->f->s[p->at] <= '9'; p->at++)
            if (*out <= FORMAT_MAX) *out = *out * 10 + (p->f->s[p->at] - '0');
    }
    if (*out > FORMAT_MAX || *out < -FORMAT_MAX)
        return tni_tm_fail(p->r, "%%: a width of more than %d", FORMAT_MAX);
    return 0;
}

static int format_percent_spec(format_percent *p, format_spec *s) {
    const tm_string *f = p->f;
    for (; p->at < f->n && f->s[p->at] && strchr("#0- +", f->s[p->at]); p->at++) {
        char c = f->s[p->at];
        if (c == '#') s->alternate = true;
        if (c == '0') s->zero = true;
        if (c == '-') s->align = '<';
        if (c == '+' || (c == ' ' && s->sign != '+')) s->sign = c;
    }
    TM_TRY(format_count(p, &s->width));
    if (s->width < 0) s->align = '<', s->width = -s->width;
    if (p->at < f->n && f->s[p->at] == '.') {
        p->at++;
        TM_TRY(format_count(p, &s->precision));
        if (s->precision < 0) s->precision = 0;
    }
    while (p->at < f->n && f->s[p->at] && strchr("hlL", f->s[p->at])) p->at++;
    if (p->at >= f->n) return tni_tm_fail(p->r, "%%: the text ends inside a format");
    s->type = f->s[p->at++];
    return 0;
}

/* %(name)s: the value of the dict. */
static int format_key(format_percent *p, tm_val *out) {
    size_t from = ++p->at, depth = 1;
    while (p->at < p->f->n && depth) {
        char c = p->f->s[p->at++];
        depth += c == '(' ? 1 : c == ')' ? (size_t)-1 : 0;
    }
    tm_val key;
    if (depth) return tni_tm_fail(p->r, "%%: the text ends inside a format");
    if (p->args.kind != TM_DICT) return tni_tm_fail(p->r, "%%: a name needs a dict on the right");
    TM_TRY(tni_tm_sub(p->r, p->f, from, p->at - 1, &key));
    TM_TRY(tni_tm_dict_get(p->r, p->args.d, key, out));
    return out->kind == TM_MISSING ? tni_tm_fail(p->r, "%%: the dict lacks a name") : 0;
}

static int format_percent_text(format_percent *p, tm_val v, const format_spec *s, tm_val *out) {
    tm_r *r = p->r;
    tm_buf *b;
    tm_val index[3] = {tm_none(), tm_int(s->precision), tm_none()};
    TM_TRY(tni_tm_buf(r, &b));
    TM_TRY(s->type == 's' ? tni_tm_put_text(r, b, v) : tni_tm_put_repr(r, b, v));
    TM_TRY(tni_tm_buf_str(r, b, out));
    if (p->f->safe && !(v.kind == TM_STR && v.s->safe)) TM_TRY(tni_tm_escape(r, out->s, out));
    if (s->precision >= 0) TM_TRY(tni_tm_slice(r, *out, index, out));
    return tni_tm_pad(r, out->s, s->width, &format_space, s->align == '<' ? '<' : '>', out);
}

static int format_percent_char(format_percent *p, tm_val v, const format_spec *s, tm_val *out) {
    char utf8[4];
    int n = tm_is_int(v) && tm_to_int(v) >= 0 && tm_to_int(v) < 0x110000
                ? tni_utf8_encode((uint32_t)tm_to_int(v), utf8)
                : 0;
    if (n) TM_TRY(tni_tm_literal(p->r, utf8, (size_t)n, &v));
    if (v.kind != TM_STR || tni_tm_chars(v.s) != 1)
        return tni_tm_fail(p->r, "%%c needs one character or its number");
    return tni_tm_pad(p->r, v.s, s->width, &format_space, s->align == '<' ? '<' : '>', out);
}

/* %.5d: at least five digits. */
static int format_percent_number(format_percent *p, tm_val v, format_spec *s, tm_val *out) {
    if (v.kind == TM_UNDEF) return tni_tm_undef_fail(p->r, v);
    if (!tm_is_number(v) || (v.kind == TM_FLOAT && strchr("oxX", s->type)))
        return tni_tm_fail(p->r, "%%%c: '%s' is not a number", s->type, tni_tm_type(v));
    if (strchr("diuoxX", s->type)) {
        if (v.kind == TM_FLOAT) {
            if (!(v.f > -9.2e18 && v.f < 9.2e18))
                return tni_tm_fail(p->r, "%%%c: an integer does not fit in 64 bits", s->type);
            v = tm_int((int64_t)v.f);
        }
        if (s->precision >= 0)
            return tni_tm_fail(p->r, "%%%c: a precision is not supported", s->type);
        if (strchr("iu", s->type)) s->type = 'd';
    }
    if (s->align == '<') s->zero = false;
    return format_number(p->r, v, s, out);
}

static int format_percent_one(format_percent *p, tm_buf *b) {
    format_spec s = {.precision = -1};
    tm_val v = tm_missing(), text;
    if (p->at < p->f->n && p->f->s[p->at] == '(') TM_TRY(format_key(p, &v));
    TM_TRY(format_percent_spec(p, &s));
    if (s.type == '%') return tni_tm_puts(p->r, b, "%");
    if (v.kind == TM_MISSING) TM_TRY(format_next(p, &v));
    if (s.type == 's' || s.type == 'r')
        TM_TRY(format_percent_text(p, v, &s, &text));
    else if (s.type == 'c')
        TM_TRY(format_percent_char(p, v, &s, &text));
    else if (s.type && strchr("diuoxXeEfFgG", s.type))
        TM_TRY(format_percent_number(p, v, &s, &text));
    else
        return tni_tm_fail(p->r, "%%: the format '%c' is not supported",
                           s.type >= 32 && s.type < 127 ? s.type : '?');
    return tni_tm_put_str(p->r, b, text.s);
}

int tni_tm_percent(tm_r *r, const tm_string *fmt, tm_val args, tm_val *out) {
    format_percent p = {.r = r, .f = fmt, .args = args};
    tm_buf *b;
    TM_TRY(tni_tm_buf(r, &b));
    while (p.at < fmt->n) {
        const char *next = memchr(fmt->s + p.at, '%', fmt->n - p.at);
        size_t to = next ? (size_t)(next - fmt->s) : fmt->n;
        TM_TRY(tni_tm_put(r, b, fmt->s + p.at, fmt->m + p.at, to - p.at));
        p.at = to + 1;
        if (next) TM_TRY(format_percent_one(&p, b));
    }
    bool mapping = args.kind == TM_DICT || args.kind == TM_LIST || args.kind == TM_UNDEF;
    if (args.kind == TM_TUPLE ? p.next < args.l->n : !p.next && !mapping)
        return tni_tm_fail(r, "%%: more values than the text has places for");
    TM_TRY(tni_tm_buf_str(r, b, out));
    ((tm_string *)out->s)->safe = fmt->safe;
    return 0;
}

/* ---- text.format(...) ---- */

typedef struct format_call {
    tm_r *r;
    const tm_string *f;
    const tm_call *c;
    int64_t next; /* number of the next {} ; -1 once a field had a number */
} format_call;

static bool format_in(char c, const char *set) { return c && strchr(set, c); }

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static int format_parse_spec(tm_r *r, const tm_string *f, format_spec *s) {
    size_t at = 0, fill = f->n ? tni_tm_char_at(f, 0) : 0;
    tm_val v;
    if (fill && fill < f->n && format_in(f->s[fill], "<>=^")) {
        TM_TRY(tni_tm_sub(r, f, 0, fill, &v));
        s->fill = v.s, s->align = f->s[fill], at = fill + 1;
    } else if (f->n && format_in(f->s[0], "<>=^")) {
        s->align = f->s[at++];
    }
    if (at < f->n && format_in(f->s[at], "+- ")) s->sign = f->s[at++];
    if (at < f->n && f->s[at] == '#') s->alternate = true, at++;
    if (at < f->n && f->s[at] == '0') s->zero = true, at++;
    for (; at < f->n && f->s[at] >= '0' && f->s[at] <= '9'; at++)
        if (s->width <= FORMAT_MAX) s->width = s->width * 10 + (f->s[at] - '0');
    if (at < f->n && format_in(f->s[at], ",_")) s->group = f->s[at++];
    if (at < f->n && f->s[at] == '.') {
        size_t from = ++at;
        for (s->precision = 0; at < f->n && f->s[at] >= '0' && f->s[at] <= '9'; at++)
            if (s->precision <= FORMAT_MAX) s->precision = s->precision * 10 + (f->s[at] - '0');
        if (from == at) return tni_tm_fail(r, "format: a precision is missing");
    }
    if (at < f->n) s->type = f->s[at++];
    if (at < f->n || (s->type && !format_in(s->type, "sdboxXeEfFgG%")))
        return tni_tm_fail(r, "format: '%.*s' is not supported", f->n < 40 ? (int)f->n : 40, f->s);
    if (s->width > FORMAT_MAX || s->precision > FORMAT_MAX)
        return tni_tm_fail(r, "format: a width of more than %d", FORMAT_MAX);
    return 0;
}

static int format_field_text(tm_r *r, const tm_string *text, const format_spec *s, tm_val *out) {
    tm_val index[3] = {tm_none(), tm_int(s->precision), tm_none()};
    *out = tm_str(text);
    if ((s->type && s->type != 's') || s->align == '=' || s->sign || s->group)
        return tni_tm_fail(r, "format: this format does not fit a text");
    if (s->precision >= 0) TM_TRY(tni_tm_slice(r, *out, index, out));
    const tm_string *fill = s->fill ? s->fill : s->zero ? &format_zero : &format_space;
    char side = s->align == '>' ? '>' : s->align == '^' ? 'c' : '<';
    return tni_tm_pad(r, out->s, s->width, fill, side, out);
}

static int format_value(tm_r *r, tm_val v, const tm_string *spec, tm_val *out) {
    format_spec s = {.precision = -1};
    if (!spec->n) return tni_tm_str(r, v, out);
    TM_TRY(format_parse_spec(r, spec, &s));
    if (v.kind == TM_STR) return format_field_text(r, v.s, &s, out);
    if (!tm_is_number(v) || s.type == 's')
        return tni_tm_fail(r, "format: this format does not fit a '%s'", tni_tm_type(v));
    if (v.kind == TM_FLOAT ? format_in(s.type, "dboxX") || (!s.type && s.precision >= 0)
                           : s.precision >= 0 && (!s.type || format_in(s.type, "dboxX")))
        return tni_tm_fail(r, "format: this format of a number is not supported");
    return format_number(r, v, &s, out);
}

static int format_argument(format_call *p, const tm_string *name, tm_val *out) {
    tm_r *r = p->r;
    int64_t i = 0;
    bool digits = true;
    for (size_t k = 0; k < name->n && digits; k++) {
        digits = name->s[k] >= '0' && name->s[k] <= '9' && k < 6;
        i = i * 10 + (name->s[k] - '0');
    }
    if (digits) {
        if (name->n ? p->next > 0 : p->next < 0)
            return tni_tm_fail(r, "format: fields with and without numbers");
        i = name->n ? i : p->next;
        p->next = name->n ? -1 : i + 1;
        if ((size_t)i >= p->c->n_pos)
            return tni_tm_fail(r, "format: there is no argument %d", (int)i);
        *out = p->c->pos[i];
        return 0;
    }
    for (size_t k = 0; k < p->c->n_kw; k++)
        if (p->c->kw[k].name->n == name->n && !memcmp(p->c->kw[k].name->s, name->s, name->n))
            return *out = p->c->kw[k].v, 0;
    return tni_tm_fail(r, "format: there is no argument '%.*s'", name->n < 60 ? (int)name->n : 60,
                       name->s);
}

/* "a.b[0]" */
static int format_lookup(format_call *p, const tm_string *f, tm_val *out) {
    size_t at = format_span(f->s, f->n, ".["), end;
    tm_val part;
    TM_TRY(tni_tm_sub(p->r, f, 0, at, &part));
    TM_TRY(format_argument(p, part.s, out));
    while (at < f->n) {
        bool attribute = f->s[at] == '.';
        if (!attribute && f->s[at] != '[') return tni_tm_fail(p->r, "format: '.' or '[' expected");
        at++;
        end = at + format_span(f->s + at, f->n - at, attribute ? ".[" : "]");
        if (end == at || (!attribute && end == f->n))
            return tni_tm_fail(p->r, "format: an empty name");
        TM_TRY(tni_tm_sub(p->r, f, at, end, &part));
        at = end + !attribute;
        if (attribute) {
            TM_TRY(tni_tm_getattr(p->r, *out, part.s, out));
            continue;
        }
        tm_list *path;
        TM_TRY(tni_tm_path(p->r, part, &path));
        TM_TRY(tni_tm_getitem(p->r, *out, path->n == 1 ? path->v[0] : part, out));
    }
    return 0;
}

/* One {name!r:spec} between its braces. */
static int format_field(format_call *p, const tm_string *f, tm_buf *b) {
    tm_r *r = p->r;
    size_t name = format_span(f->s, f->n, "!:"), spec = name;
    tm_val part, v, text;
    char conversion = 0;
    if (memchr(f->s, '{', f->n))
        return tni_tm_fail(r, "format: fields inside fields are not supported");
    TM_TRY(tni_tm_sub(r, f, 0, name, &part));
    TM_TRY(format_lookup(p, part.s, &v));
    if (name < f->n && f->s[name] == '!') {
        conversion = name + 1 < f->n ? f->s[name + 1] : 0;
        spec = name + 2;
        if ((conversion != 'r' && conversion != 's') || (spec < f->n && f->s[spec] != ':'))
            return tni_tm_fail(r, "format: only the conversions !r and !s are supported");
    }
    if (conversion) {
        tm_buf *t;
        TM_TRY(tni_tm_buf(r, &t));
        TM_TRY(conversion == 'r' ? tni_tm_put_repr(r, t, v) : tni_tm_put_text(r, t, v));
        TM_TRY(tni_tm_buf_str(r, t, &v));
    }
    TM_TRY(tni_tm_sub(r, f, spec < f->n ? spec + 1 : f->n, f->n, &part));
    TM_TRY(format_value(r, v, part.s, &text));
    if (p->f->safe && !(v.kind == TM_STR && v.s->safe)) TM_TRY(tni_tm_escape(r, text.s, &text));
    return tni_tm_put_str(r, b, text.s);
}

int tni_tm_format(tm_r *r, const tm_string *fmt, const tm_call *c, tm_val *out) {
    format_call p = {.r = r, .f = fmt, .c = c};
    tm_buf *b;
    TM_TRY(tni_tm_buf(r, &b));
    for (size_t at = 0; at < fmt->n;) {
        size_t to = at + format_span(fmt->s + at, fmt->n - at, "{}");
        TM_TRY(tni_tm_put(r, b, fmt->s + at, fmt->m + at, to - at));
        if (to == fmt->n) break;
        if (to + 1 < fmt->n && fmt->s[to + 1] == fmt->s[to]) {
            TM_TRY(tni_tm_put(r, b, fmt->s + to, fmt->m + to, 1));
            at = to + 2;
            continue;
        }
        size_t end = to + 1, depth = 1;
        for (; end < fmt->n && depth; end++)
            depth += fmt->s[end] == '{' ? 1 : fmt->s[end] == '}' ? (size_t)-1 : 0;
        if (fmt->s[to] == '}' || depth) return tni_tm_fail(r, "format: a single '%c'", fmt->s[to]);
        tm_val field;
        TM_TRY(tni_tm_sub(r, fmt, to + 1, end - 1, &field));
        TM_TRY(format_field(&p, field.s, b));
        at = end;
    }
    TM_TRY(tni_tm_buf_str(r, b, out));
    ((tm_string *)out->s)->safe = fmt->safe;
    return 0;
}
