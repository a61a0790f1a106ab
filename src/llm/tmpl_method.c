/* Methods of strings, dicts, lists, loops and cyclers. */
#include "base/err.h"
#include "llm/tmpl.h"
#include <string.h>
#include <utf8proc.h>

static int method_text(tm_r *r, const char *what, tm_val v, const tm_string **out) {
    *out = v.kind == TM_STR ? v.s : NULL;
    return *out ? 0 : tni_tm_fail(r, "%s: '%s' is not a text", what, tni_tm_type(v));
}

static int method_int(tm_r *r, const char *what, tm_val v, int64_t absent, int64_t *out) {
    *out = absent;
    return v.kind == TM_MISSING ? 0 : tni_tm_int_of(r, v, what, out);
}

static bool method_absent(tm_val v) { return v.kind == TM_MISSING || v.kind == TM_NONE; }

/* ---- strings to strings ---- */

#define METHOD_STRIP(name, sides)                                                                  \
    static int method_##name(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {                 \
        return tni_tm_strip(r, self.s, a[0], sides, out);                                          \
    }
METHOD_STRIP(strip, 3)
METHOD_STRIP(lstrip, 1)
METHOD_STRIP(rstrip, 2)

#define METHOD_CASE(name, how)                                                                     \
    static int method_##name(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {                 \
        (void)a;                                                                                   \
        return tni_tm_case(r, self.s, how, out);                                                   \
    }
METHOD_CASE(upper, 'u')
METHOD_CASE(lower, 'l')
METHOD_CASE(title, 't')
METHOD_CASE(capitalize, 'c')
METHOD_CASE(swapcase, 's')

static int method_replace(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    const tm_string *from, *to;
    int64_t count;
    TM_TRY(method_text(r, "replace", a[0], &from));
    TM_TRY(method_text(r, "replace", a[1], &to));
    TM_TRY(method_int(r, "replace", a[2], -1, &count));
    return tni_tm_replace(r, self.s, from, to, count, out);
}

static int method_join(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    struct tm_iter *it;
    TM_TRY(tni_tm_iter(r, a[0], &it));
    return tni_tm_join(r, self.s, it, true, out);
}

static int method_remove(tm_r *r, tm_val self, tm_val what, bool suffix, tm_val *out) {
    const tm_string *s = self.s, *w;
    TM_TRY(method_text(r, "removeprefix", what, &w));
    bool has = w->n <= s->n && !memcmp(suffix ? s->s + s->n - w->n : s->s, w->s, w->n);
    size_t n = has ? w->n : 0;
    return tni_tm_sub(r, s, suffix ? 0 : n, suffix ? s->n - n : s->n, out);
}

static int method_removeprefix(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    return method_remove(r, self, a[0], false, out);
}

static int method_removesuffix(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    return method_remove(r, self, a[0], true, out);
}

static int method_pad(tm_r *r, tm_val self, const tm_val *a, char side, tm_val *out) {
    static const tm_string space = {.s = " ", .m = (const uint8_t *)"", .n = 1, .chars = 1};
    const tm_string *fill = &space;
    int64_t width;
    TM_TRY(tni_tm_int_of(r, a[0], "a width", &width));
    if (a[1].kind != TM_MISSING) TM_TRY(method_text(r, "a fill character", a[1], &fill));
    if (tni_tm_chars(fill) != 1)
        return tni_tm_fail(r, "the text to fill with must be one character");
    return tni_tm_pad(r, self.s, width, fill, side, out);
}

static int method_ljust(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    return method_pad(r, self, a, '<', out);
}

static int method_rjust(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    return method_pad(r, self, a, '>', out);
}

static int method_center(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    return method_pad(r, self, a, '^', out);
}

/* Zeros go after a sign. */
static int method_zfill(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    static const tm_string zero = {.s = "0", .m = (const uint8_t *)"", .n = 1, .chars = 1};
    int64_t width;
    const tm_string *s = self.s;
    TM_TRY(tni_tm_int_of(r, a[0], "zfill", &width));
    size_t sign = s->n && (s->s[0] == '+' || s->s[0] == '-');
    tm_val head, rest;
    TM_TRY(tni_tm_sub(r, s, 0, sign, &head));
    TM_TRY(tni_tm_sub(r, s, sign, s->n, &rest));
    TM_TRY(tni_tm_pad(r, rest.s, width - (int64_t)sign, &zero, '>', &rest));
    return tni_tm_join2(r, head.s, rest.s, out);
}

/* ---- strings to lists ---- */

static int method_splits(tm_r *r, tm_val self, const tm_val *a, bool right, tm_val *out) {
    tm_list *l;
    const tm_string *sep;
    int64_t max;
    TM_TRY(method_int(r, "split", a[1], -1, &max));
    if (method_absent(a[0])) {
        TM_TRY(right ? tni_tm_rsplit_space(r, self.s, max, &l)
                     : tni_tm_split_space(r, self.s, max, &l));
    } else {
        TM_TRY(method_text(r, "split", a[0], &sep));
        TM_TRY(right ? tni_tm_rsplit(r, self.s, sep, max, &l)
                     : tni_tm_split(r, self.s, sep, max, &l));
    }
    *out = tm_listv(l);
    return 0;
}

static int method_split(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    return method_splits(r, self, a, false, out);
}

static int method_rsplit(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    return method_splits(r, self, a, true, out);
}

static int method_splitlines(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    tm_list *l;
    TM_TRY(tni_tm_splitlines(r, self.s, tni_tm_true(r, a[0]), &l));
    *out = tm_listv(l);
    return 0;
}

static int method_parts(tm_r *r, tm_val self, tm_val sep, bool right, tm_val *out) {
    const tm_string *s = self.s, *w;
    tm_list *l;
    TM_TRY(method_text(r, "partition", sep, &w));
    if (!w->n) return tni_tm_fail(r, "partition: the separator is empty");
    TM_TRY(tni_tm_list(r, 3, &l));
    size_t at = right ? tni_tm_rfind(s, w, 0, s->n) : tni_tm_find(s, w, 0);
    size_t from = at, to = at + w->n;
    if (at == SIZE_MAX) from = to = right ? 0 : s->n;
    TM_TRY(tni_tm_sub(r, s, 0, from, &l->v[0]));
    TM_TRY(tni_tm_sub(r, s, from, to, &l->v[1]));
    TM_TRY(tni_tm_sub(r, s, to, s->n, &l->v[2]));
    l->n = 3;
    *out = tm_tuple(l);
    return 0;
}

static int method_partition(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    return method_parts(r, self, a[0], false, out);
}

static int method_rpartition(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    return method_parts(r, self, a[0], true, out);
}

/* ---- searching ---- */

/* Bytes from..to of the characters start..end; false when start lies behind the end. */
static int method_span(tm_r *r, const tm_string *s, const tm_val *a, size_t *from, size_t *to,
                       bool *inside) {
    const int64_t n = tni_tm_chars(s);
    int64_t start = 0, end = n;
    if (!method_absent(a[0])) TM_TRY(tni_tm_int_of(r, a[0], "a start", &start));
    if (!method_absent(a[1])) TM_TRY(tni_tm_int_of(r, a[1], "an end", &end));
    start = start < 0 ? (start + n < 0 ? 0 : start + n) : start;
    end = end > n ? n : end < 0 ? (end + n < 0 ? 0 : end + n) : end;
    *inside = start <= end;
    *from = *to = 0;
    TM_TRY(tni_tm_step(r, s->n >> 8));
    for (int64_t i = 0; *inside && i < end; i++) {
        size_t len = tni_tm_char_at(s, *to);
        *to += len;
        if (i < start) *from += len;
    }
    return 0;
}

static int method_ends(tm_r *r, tm_val self, const tm_val *a, bool suffix, tm_val *out) {
    size_t from, to;
    bool inside, is = false;
    TM_TRY(method_span(r, self.s, a + 1, &from, &to, &inside));
    size_t n = a[0].kind == TM_TUPLE ? a[0].l->n : 1;
    for (size_t i = 0; i < n && !is; i++) {
        const tm_string *w;
        TM_TRY(method_text(r, suffix ? "endswith" : "startswith",
                           a[0].kind == TM_TUPLE ? a[0].l->v[i] : a[0], &w));
        is = inside && w->n <= to - from &&
             !memcmp(self.s->s + (suffix ? to - w->n : from), w->s, w->n);
    }
    *out = tm_bool(is);
    return 0;
}

static int method_startswith(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    return method_ends(r, self, a, false, out);
}

static int method_endswith(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    return method_ends(r, self, a, true, out);
}

/* The character's place, or -1. */
static int method_search(tm_r *r, tm_val self, const tm_val *a, bool last, int64_t *out) {
    const tm_string *s = self.s, *w;
    size_t from, to, at = SIZE_MAX;
    bool inside;
    *out = -1;
    TM_TRY(method_text(r, "find", a[0], &w));
    TM_TRY(method_span(r, s, a + 1, &from, &to, &inside));
    if (!inside) return 0;
    TM_TRY(tni_tm_step(r, s->n >> 4));
    at = last ? tni_tm_rfind(s, w, from, to) : tni_tm_find(s, w, from);
    if (at == SIZE_MAX || at + w->n > to) return 0;
    const tm_string head = {.s = s->s, .n = at, .chars = -1};
    *out = tni_tm_chars(&head);
    return 0;
}

static int method_find(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    *out = tm_int(0);
    return method_search(r, self, a, false, &out->i);
}

static int method_rfind(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    *out = tm_int(0);
    return method_search(r, self, a, true, &out->i);
}

static int method_found(tm_r *r, tm_val *out) {
    return out->i < 0 ? tni_tm_fail(r, "index: the text does not occur") : 0;
}

static int method_index(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    TM_TRY(method_find(r, self, a, out));
    return method_found(r, out);
}

static int method_rindex(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    TM_TRY(method_rfind(r, self, a, out));
    return method_found(r, out);
}

static int method_count(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    const tm_string *s = self.s, *w;
    size_t from, to, at;
    bool inside;
    int64_t n = 0;
    TM_TRY(method_text(r, "count", a[0], &w));
    TM_TRY(method_span(r, s, a + 1, &from, &to, &inside));
    TM_TRY(tni_tm_step(r, s->n >> 4));
    if (inside && !w->n) {
        const tm_string part = {.s = s->s + from, .n = to - from, .chars = -1};
        n = tni_tm_chars(&part) + 1;
    } else if (inside) {
        for (; (at = tni_tm_find(s, w, from)) != SIZE_MAX && at + w->n <= to; from = at + w->n) n++;
    }
    *out = tm_int(n);
    return 0;
}

/* ---- what characters a string has ---- */

static bool method_letter(utf8proc_category_t c) {
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

static bool method_is_kind(const tm_string *s, char kind) {
    size_t len;
    for (size_t i = 0; i < s->n; i += len) {
        uint32_t cp = tni_tm_decode(s->s + i, s->n - i, &len);
        utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
        bool digit = c == UTF8PROC_CATEGORY_ND, is = false;
        if (kind == 'a') is = method_letter(c);
        if (kind == 'd')
            is = digit || cp == 0xB2 || cp == 0xB3 || cp == 0xB9 ||
                 (cp >= 0x2070 && cp < 0x208A && c == UTF8PROC_CATEGORY_NO);
        if (kind == 'D') is = digit;
        if (kind == 'n')
            is = method_letter(c) || (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO);
        if (kind == 'N') is = c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
        if (kind == 's') is = tni_tm_space(cp);
        if (!is) return false;
    }
    return s->n > 0;
}

#define METHOD_IS(name, condition)                                                                 \
    static int method_##name(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {                 \
        (void)a;                                                                                   \
        TM_TRY(tni_tm_step(r, self.s->n >> 4));                                                    \
        *out = tm_bool(condition);                                                                 \
        return 0;                                                                                  \
    }
METHOD_IS(isalpha, method_is_kind(self.s, 'a'))
METHOD_IS(isdigit, method_is_kind(self.s, 'd'))
METHOD_IS(isdecimal, method_is_kind(self.s, 'D'))
METHOD_IS(isnumeric, method_is_kind(self.s, 'N'))
METHOD_IS(isalnum, method_is_kind(self.s, 'n'))
METHOD_IS(isspace, method_is_kind(self.s, 's'))
METHOD_IS(isupper, tni_tm_has_case(self.s, true))
METHOD_IS(islower, tni_tm_has_case(self.s, false))
METHOD_IS(isascii, tni_tm_chars(self.s) == (int64_t)self.s->n)

static int method_format(tm_r *r, tm_val self, const tm_call *c, tm_val *out) {
    return tni_tm_format(r, self.s, c, out);
}

/* ---- dicts and lists ---- */

static int method_get(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    TM_TRY(tni_tm_dict_get(r, self.d, a[0], out));
    if (out->kind == TM_MISSING) *out = a[1].kind == TM_MISSING ? tm_none() : a[1];
    return 0;
}

static int method_view(tm_r *r, tm_val self, char what, tm_val *out) {
    tm_view *w = tni_tm_new(r, sizeof *w);
    if (!w) return r->arena.status;
    *w = (tm_view){self.d, what};
    *out = (tm_val){.kind = TM_VIEW, .view = w};
    return 0;
}

#define METHOD_VIEW(name, what)                                                                    \
    static int method_##name(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {                 \
        (void)a;                                                                                   \
        return method_view(r, self, what, out);                                                    \
    }
METHOD_VIEW(items, 'i')
METHOD_VIEW(keys, 'k')
METHOD_VIEW(values, 'v')

static int method_copy(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    (void)r, (void)a;
    *out = self; /* nothing can change either of the two */
    return 0;
}

static int method_places(tm_r *r, tm_val self, tm_val what, int64_t *first, int64_t *count) {
    *first = -1, *count = 0;
    for (size_t i = 0; i < self.l->n; i++) {
        bool same;
        TM_TRY(tni_tm_equal(r, self.l->v[i], what, &same));
        if (!same) continue;
        if (!(*count)++) *first = (int64_t)i;
    }
    return 0;
}

static int method_list_count(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    int64_t first;
    *out = tm_int(0);
    return method_places(r, self, a[0], &first, &out->i);
}

static int method_list_index(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    int64_t count;
    *out = tm_int(0);
    TM_TRY(method_places(r, self, a[0], &out->i, &count));
    return count ? 0 : tni_tm_fail(r, "index: the value is not in the list");
}

static int method_next(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    (void)r, (void)a;
    *out = self.cycle->items->v[self.cycle->at];
    self.cycle->at = (self.cycle->at + 1) % self.cycle->items->n;
    return 0;
}

static int method_reset(tm_r *r, tm_val self, const tm_val *a, tm_val *out) {
    (void)r, (void)a;
    self.cycle->at = 0;
    *out = tm_none();
    return 0;
}

/* ---- the table ---- */

static const tm_method method_all[] = {
    {TM_STR, "strip", "chars", 0, method_strip, NULL},
    {TM_STR, "lstrip", "chars", 0, method_lstrip, NULL},
    {TM_STR, "rstrip", "chars", 0, method_rstrip, NULL},
    {TM_STR, "split", "sep,maxsplit", 0, method_split, NULL},
    {TM_STR, "rsplit", "sep,maxsplit", 0, method_rsplit, NULL},
    {TM_STR, "startswith", "a,b,c", 1, method_startswith, NULL},
    {TM_STR, "endswith", "a,b,c", 1, method_endswith, NULL},
    {TM_STR, "replace", "a,b,c", 2, method_replace, NULL},
    {TM_STR, "join", "a", 1, method_join, NULL},
    {TM_STR, "format", "", 0, NULL, method_format},
    {TM_STR, "upper", "", 0, method_upper, NULL},
    {TM_STR, "lower", "", 0, method_lower, NULL},
    {TM_STR, "title", "", 0, method_title, NULL},
    {TM_STR, "capitalize", "", 0, method_capitalize, NULL},
    {TM_STR, "swapcase", "", 0, method_swapcase, NULL},
    {TM_STR, "find", "a,b,c", 1, method_find, NULL},
    {TM_STR, "rfind", "a,b,c", 1, method_rfind, NULL},
    {TM_STR, "index", "a,b,c", 1, method_index, NULL},
    {TM_STR, "rindex", "a,b,c", 1, method_rindex, NULL},
    {TM_STR, "count", "a,b,c", 1, method_count, NULL},
    {TM_STR, "splitlines", "keepends", 0, method_splitlines, NULL},
    {TM_STR, "partition", "a", 1, method_partition, NULL},
    {TM_STR, "rpartition", "a", 1, method_rpartition, NULL},
    {TM_STR, "removeprefix", "a", 1, method_removeprefix, NULL},
    {TM_STR, "removesuffix", "a", 1, method_removesuffix, NULL},
    {TM_STR, "ljust", "a,b", 1, method_ljust, NULL},
    {TM_STR, "rjust", "a,b", 1, method_rjust, NULL},
    {TM_STR, "center", "a,b", 1, method_center, NULL},
    {TM_STR, "zfill", "a", 1, method_zfill, NULL},
    {TM_STR, "isalpha", "", 0, method_isalpha, NULL},
    {TM_STR, "isdigit", "", 0, method_isdigit, NULL},
    {TM_STR, "isdecimal", "", 0, method_isdecimal, NULL},
    {TM_STR, "isnumeric", "", 0, method_isnumeric, NULL},
    {TM_STR, "isalnum", "", 0, method_isalnum, NULL},
    {TM_STR, "isspace", "", 0, method_isspace, NULL},
    {TM_STR, "isupper", "", 0, method_isupper, NULL},
    {TM_STR, "islower", "", 0, method_islower, NULL},
    {TM_STR, "isascii", "", 0, method_isascii, NULL},
    {TM_STR, "casefold", "", 0, NULL, NULL},
    {TM_STR, "encode", "", 0, NULL, NULL},
    {TM_STR, "expandtabs", "", 0, NULL, NULL},
    {TM_STR, "format_map", "", 0, NULL, NULL},
    {TM_STR, "isidentifier", "", 0, NULL, NULL},
    {TM_STR, "isprintable", "", 0, NULL, NULL},
    {TM_STR, "istitle", "", 0, NULL, NULL},
    {TM_STR, "maketrans", "", 0, NULL, NULL},
    {TM_STR, "translate", "", 0, NULL, NULL},
    {TM_DICT, "get", "a,b", 1, method_get, NULL},
    {TM_DICT, "items", "", 0, method_items, NULL},
    {TM_DICT, "keys", "", 0, method_keys, NULL},
    {TM_DICT, "values", "", 0, method_values, NULL},
    {TM_DICT, "copy", "", 0, method_copy, NULL},
    {TM_DICT, "fromkeys", "", 0, NULL, NULL},
    {TM_DICT, "clear", "", -1, NULL, NULL},
    {TM_DICT, "pop", "", -1, NULL, NULL},
    {TM_DICT, "popitem", "", -1, NULL, NULL},
    {TM_DICT, "setdefault", "", -1, NULL, NULL},
    {TM_DICT, "update", "", -1, NULL, NULL},
    {TM_LIST, "count", "a", 1, method_list_count, NULL},
    {TM_LIST, "index", "a", 1, method_list_index, NULL},
    {TM_LIST, "copy", "", 0, method_copy, NULL},
    {TM_LIST, "append", "", -1, NULL, NULL},
    {TM_LIST, "clear", "", -1, NULL, NULL},
    {TM_LIST, "extend", "", -1, NULL, NULL},
    {TM_LIST, "insert", "", -1, NULL, NULL},
    {TM_LIST, "pop", "", -1, NULL, NULL},
    {TM_LIST, "remove", "", -1, NULL, NULL},
    {TM_LIST, "reverse", "", -1, NULL, NULL},
    {TM_LIST, "sort", "", -1, NULL, NULL},
    {TM_TUPLE, "count", "a", 1, method_list_count, NULL},
    {TM_TUPLE, "index", "a", 1, method_list_index, NULL},
    {TM_LOOP, "cycle", "", 0, NULL, tni_tm_loop_cycle},
    {TM_LOOP, "changed", "", 0, NULL, tni_tm_loop_changed},
    {TM_CYCLER, "next", "", 0, method_next, NULL},
    {TM_CYCLER, "reset", "", 0, method_reset, NULL},
};

const tm_method *tni_tm_method(tm_val self, tni_bytes name) {
    for (size_t i = 0; i < sizeof method_all / sizeof *method_all; i++)
        if (method_all[i].kind == self.kind && strlen(method_all[i].name) == name.n &&
            !memcmp(method_all[i].name, name.s, name.n))
            return &method_all[i];
    return NULL;
}
