/* JSON to values, every byte of whose strings is marked as a message's; and values to JSON
 * as Python's json.dumps writes it, which is the `tojson` of transformers. */
#include "base/err.h"
#include "llm/json.h"
#include "llm/tmpl.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- in ---- */

static int json_value(tm_r *r, const json_t *j, int depth, tm_val *out);

static int json_text(tm_r *r, const char *s, size_t n, tm_val *out) {
    tm_string *t;
    char *to;
    uint8_t *m;
    TM_TRY(tni_tm_string(r, n, &t, &to, &m));
    if (n) memcpy(to, s, n), memset(m, 1, n);
    *out = tm_str(t);
    return 0;
}

static int json_dict(tm_r *r, const json_t *j, int depth, tm_val *out) {
    tm_dict *d;
    const char *name;
    json_t *item;
    TM_TRY(tni_tm_dict(r, &d));
    json_object_foreach((json_t *)j, name, item) {
        tm_val key, value;
        TM_TRY(json_text(r, name, strlen(name), &key));
        TM_TRY(json_value(r, item, depth, &value));
        TM_TRY(tni_tm_dict_set(r, d, key, value));
    }
    *out = tm_dictv(d);
    return 0;
}

static int json_list(tm_r *r, const json_t *j, int depth, tm_val *out) {
    tm_list *l;
    TM_TRY(tni_tm_list(r, json_array_size(j), &l));
    for (size_t i = 0; i < json_array_size(j); i++)
        TM_TRY(json_value(r, json_array_get(j, i), depth, &l->v[l->n++]));
    *out = tm_listv(l);
    return 0;
}

static int json_value(tm_r *r, const json_t *j, int depth, tm_val *out) {
    if (depth > TM_MAX_NEST)
        return tni_fail(TN_EFORMAT, "%s: JSON nested more than %d deep", r->t->name, TM_MAX_NEST);
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return json_dict(r, j, depth + 1, out);
    case JSON_ARRAY:
        return json_list(r, j, depth + 1, out);
    case JSON_STRING:
        return json_text(r, json_string_value(j), json_string_length(j), out);
    case JSON_INTEGER:
        *out = tm_int(json_integer_value(j));
        return 0;
    case JSON_REAL:
        *out = tm_float(json_real_value(j));
        return 0;
    case JSON_NULL:
        *out = tm_none();
        return 0;
    default:
        *out = tm_bool(json_is_true(j));
        return 0;
    }
}

int tni_tm_from_json(tm_r *r, const char *what, const char *s, size_t n, tm_val *out) {
    json_t *j;
    int status = tni_json_parse(s, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, what, &j);
    if (status) return status;
    status = json_value(r, j, 1, out);
    json_decref(j);
    return status;
}

/* ---- out ---- */

typedef struct json_out {
    tm_r *r;
    tm_buf *b;
    bool ascii, sort;
    const tm_string *indent; /* NULL: all on one line */
    const tm_string *item, *key;
} json_out;

static int json_put(const json_out *o, tm_val v, int depth);

static int json_escape(const json_out *o, uint32_t c, uint8_t mark) {
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    char e[16];
    const char *p = c && c < 128 ? strchr(from, (char)c) : NULL;
    if (p)
        snprintf(e, sizeof e, "\\%c", to[p - from]);
    else if (c < 0x10000)
        snprintf(e, sizeof e, "\\u%04x", c);
    else
        snprintf(e, sizeof e, "\\u%04x\\u%04x", 0xD7C0 + (c >> 10), 0xDC00 + (c & 0x3FF));
    return tni_tm_put_marked(o->r, o->b, e, strlen(e), mark);
}

static int json_put_string(const json_out *o, const tm_string *s) {
    size_t run = 0, len;
    TM_TRY(tni_tm_puts(o->r, o->b, "\""));
    for (size_t i = 0; i < s->n; i += len) {
        uint32_t c = tni_tm_decode(s->s + i, s->n - i, &len);
        if (c >= 32 && c != '"' && c != '\\' && (c < 127 || !o->ascii)) continue;
        TM_TRY(tni_tm_put(o->r, o->b, s->s + run, s->m + run, i - run));
        TM_TRY(json_escape(o, c, s->m[i]));
        run = i + len;
    }
    TM_TRY(tni_tm_put(o->r, o->b, s->s + run, s->m + run, s->n - run));
    return tni_tm_puts(o->r, o->b, "\"");
}

static int json_put_float(const json_out *o, double f) {
    char t[40];
    if (isnan(f)) return tni_tm_puts(o->r, o->b, "NaN");
    if (isinf(f)) return tni_tm_puts(o->r, o->b, f < 0 ? "-Infinity" : "Infinity");
    tni_tm_float_text(f, t);
    return tni_tm_puts(o->r, o->b, t);
}

static int json_newline(const json_out *o, int depth) {
    if (!o->indent) return 0;
    TM_TRY(tni_tm_puts(o->r, o->b, "\n"));
    for (int i = 0; i < depth; i++) TM_TRY(tni_tm_put_str(o->r, o->b, o->indent));
    return 0;
}

static int json_separator(const json_out *o, size_t i, int depth) {
    if (i) TM_TRY(tni_tm_put_str(o->r, o->b, o->item));
    return json_newline(o, depth + 1);
}

static int json_put_list(const json_out *o, const tm_list *l, int depth) {
    if (!l->n) return tni_tm_puts(o->r, o->b, "[]");
    TM_TRY(tni_tm_puts(o->r, o->b, "["));
    for (size_t i = 0; i < l->n; i++) {
        TM_TRY(json_separator(o, i, depth));
        TM_TRY(json_put(o, l->v[i], depth + 1));
    }
    TM_TRY(json_newline(o, depth));
    return tni_tm_puts(o->r, o->b, "]");
}

/* Keys that are no text become one. */
static int json_put_key(const json_out *o, tm_val key) {
    if (key.kind == TM_STR) return json_put_string(o, key.s);
    if (key.kind != TM_NONE && !tm_is_number(key))
        return tni_tm_fail(o->r, "tojson: a key cannot be of type '%s'", tni_tm_type(key));
    TM_TRY(tni_tm_puts(o->r, o->b, "\""));
    TM_TRY(json_put(o, key, 0));
    return tni_tm_puts(o->r, o->b, "\"");
}

/* The entries by key. */
static int json_sorted(tm_r *r, const tm_dict *d, const tm_dict **out) {
    tm_list *keys, *items;
    tm_dict *sorted;
    TM_TRY(tni_tm_list(r, d->n, &keys));
    TM_TRY(tni_tm_list(r, d->n, &items));
    for (size_t i = 0; i < d->n; i++) {
        TM_TRY(tni_tm_push(r, keys, d->e[i].key));
        TM_TRY(tni_tm_push(r, items, tm_int((int64_t)i)));
    }
    TM_TRY(tni_tm_sort(r, keys, items, false));
    TM_TRY(tni_tm_dict(r, &sorted));
    for (size_t i = 0; i < d->n; i++)
        TM_TRY(tni_tm_dict_set(r, sorted, d->e[items->v[i].i].key, d->e[items->v[i].i].value));
    *out = sorted;
    return 0;
}

static int json_put_dict(const json_out *o, const tm_dict *d, int depth) {
    if (!d->n) return tni_tm_puts(o->r, o->b, "{}");
    if (o->sort) TM_TRY(json_sorted(o->r, d, &d));
    TM_TRY(tni_tm_puts(o->r, o->b, "{"));
    for (size_t i = 0; i < d->n; i++) {
        TM_TRY(json_separator(o, i, depth));
        TM_TRY(json_put_key(o, d->e[i].key));
        TM_TRY(tni_tm_put_str(o->r, o->b, o->key));
        TM_TRY(json_put(o, d->e[i].value, depth + 1));
    }
    TM_TRY(json_newline(o, depth));
    return tni_tm_puts(o->r, o->b, "}");
}

static int json_put(const json_out *o, tm_val v, int depth) {
    char t[32];
    if (depth > TM_MAX_NEST)
        return tni_tm_fail(o->r, "tojson: values are nested more than %d deep", TM_MAX_NEST);
    TM_TRY(tni_tm_step(o->r, 1));
    switch (v.kind) {
    case TM_NONE:
        return tni_tm_puts(o->r, o->b, "null");
    case TM_BOOL:
        return tni_tm_puts(o->r, o->b, v.b ? "true" : "false");
    case TM_INT:
        snprintf(t, sizeof t, "%lld", (long long)v.i);
        return tni_tm_puts(o->r, o->b, t);
    case TM_FLOAT:
        return json_put_float(o, v.f);
    case TM_STR:
        return json_put_string(o, v.s);
    case TM_LIST:
    case TM_TUPLE:
        return json_put_list(o, v.l, depth);
    case TM_DICT:
        return json_put_dict(o, v.d, depth);
    default:
        return tni_tm_fail(o->r, "tojson: a value of type '%s' cannot be JSON", tni_tm_type(v));
    }
}

static int json_indent(json_out *o, tm_val v) {
    tm_val t;
    if (v.kind == TM_MISSING || v.kind == TM_NONE) return 0;
    if (v.kind == TM_STR) return o->indent = v.s, 0;
    int64_t n;
    char spaces[64];
    TM_TRY(tni_tm_int_of(o->r, v, "tojson's indent", &n));
    if (n > (int64_t)sizeof spaces) return tni_tm_fail(o->r, "tojson: an indent of more than 64");
    n = n < 0 ? 0 : n;
    memset(spaces, ' ', sizeof spaces);
    TM_TRY(tni_tm_literal(o->r, spaces, (size_t)n, &t));
    o->indent = t.s;
    return 0;
}

/* Arguments: ensure_ascii, indent, separators, sort_keys. */
int tni_tm_to_json(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    json_out o = {.r = r, .ascii = tni_tm_true(r, a[0]), .sort = tni_tm_true(r, a[3])};
    tm_val item, key;
    TM_TRY(tni_tm_buf(r, &o.b));
    TM_TRY(json_indent(&o, a[1]));
    TM_TRY(tni_tm_literal(r, ", ", o.indent ? 1 : 2, &item));
    TM_TRY(tni_tm_literal(r, ": ", 2, &key));
    if (a[2].kind != TM_MISSING && a[2].kind != TM_NONE) {
        if ((a[2].kind != TM_TUPLE && a[2].kind != TM_LIST) || a[2].l->n != 2 ||
            a[2].l->v[0].kind != TM_STR || a[2].l->v[1].kind != TM_STR)
            return tni_tm_fail(r, "tojson: separators must be two texts");
        item = a[2].l->v[0], key = a[2].l->v[1];
    }
    o.item = item.s, o.key = key.s;
    TM_TRY(json_put(&o, v, 0));
    return tni_tm_buf_str(r, o.b, out);
}
