/* What methods and filters do to strings. Every byte keeps its mark wherever it goes. */
#include "base/err.h"
#include "llm/tmpl.h"
#include <string.h>

/* ---- strip ---- */

static bool string_in_set(const tm_string *set, const char *c, size_t n) {
    for (size_t i = 0, len; i < set->n; i += len) {
        len = tni_tm_char_at(set, i);
        if (len == n && !memcmp(set->s + i, c, n)) return true;
    }
    return false;
}

static bool string_strips(const tm_string *s, size_t at, size_t n, const tm_string *set) {
    size_t len;
    if (set) return string_in_set(set, s->s + at, n);
    return tni_tm_space(tni_tm_decode(s->s + at, s->n - at, &len));
}

/* sides: 1 left, 2 right, 3 both; chars absent or none: white space */
int tni_tm_strip(tm_r *r, const tm_string *s, tm_val chars, int sides, tm_val *out) {
    size_t from = 0, to = s->n, n;
    const tm_string *set = chars.kind == TM_STR ? chars.s : NULL;
    if (!set && chars.kind != TM_NONE && chars.kind != TM_MISSING)
        return tni_tm_fail(r, "strip: the characters are a '%s', not a text", tni_tm_type(chars));
    TM_TRY(tni_tm_step(r, (s->n >> 8) + (set ? set->n : 0)));
    while (sides & 1 && from < to && (n = tni_tm_char_at(s, from), string_strips(s, from, n, set)))
        from += n;
    while (sides & 2 && to > from) {
        for (n = 1; to - n > from && ((unsigned char)s->s[to - n] & 0xC0) == 0x80;) n++;
        if (!string_strips(s, to - n, n, set)) break;
        to -= n;
    }
    return tni_tm_sub(r, s, from, to, out);
}

/* ---- replace ---- */

/* An empty `from` stands before every character and at the end. */
static int string_replace_empty(tm_r *r, tm_buf *b, const tm_string *s, const tm_string *to,
                                int64_t count) {
    size_t at = 0;
    for (; count && at <= s->n; count--) {
        TM_TRY(tni_tm_put_str(r, b, to));
        if (at == s->n) return 0;
        size_t n = tni_tm_char_at(s, at);
        TM_TRY(tni_tm_put(r, b, s->s + at, s->m + at, n));
        at += n;
    }
    return tni_tm_put(r, b, s->s + at, s->m + at, s->n - at);
}

static int string_escaped(tm_r *r, const tm_string **s) {
    tm_val v;
    if ((*s)->safe) return 0;
    TM_TRY(tni_tm_escape(r, *s, &v));
    *s = v.s;
    return 0;
}

int tni_tm_replace(tm_r *r, const tm_string *s, const tm_string *from, const tm_string *to,
                   int64_t count, tm_val *out) {
    tm_buf *b;
    size_t at = 0, next;
    if (s->safe) TM_TRY(string_escaped(r, &to));
    TM_TRY(tni_tm_step(r, s->n >> 6));
    TM_TRY(tni_tm_buf(r, &b));
    if (!from->n) {
        TM_TRY(string_replace_empty(r, b, s, to, count));
    } else {
        for (; count && (next = tni_tm_find(s, from, at)) != SIZE_MAX; count--) {
            TM_TRY(tni_tm_put(r, b, s->s + at, s->m + at, next - at));
            TM_TRY(tni_tm_put_str(r, b, to));
            at = next + from->n;
        }
        TM_TRY(tni_tm_put(r, b, s->s + at, s->m + at, s->n - at));
    }
    TM_TRY(tni_tm_buf_str(r, b, out));
    ((tm_string *)out->s)->safe = s->safe;
    return 0;
}

/* ---- lines, joining ---- */

static bool string_line_end(uint32_t c) {
    return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

int tni_tm_splitlines(tm_r *r, const tm_string *s, bool keep, tm_list **out) {
    size_t from = 0, len;
    tm_val line;
    TM_TRY(tni_tm_list(r, 0, out));
    for (size_t i = 0; i < s->n; i += len) {
        uint32_t c = tni_tm_decode(s->s + i, s->n - i, &len);
        if (!string_line_end(c)) continue;
        if (c == '\r' && i + 1 < s->n && s->s[i + 1] == '\n') len = 2;
        TM_TRY(tni_tm_sub(r, s, from, keep ? i + len : i, &line));
        TM_TRY(tni_tm_push(r, *out, line));
        from = i + len;
    }
    if (from == s->n) return 0;
    TM_TRY(tni_tm_sub(r, s, from, s->n, &line));
    return tni_tm_push(r, *out, line);
}

/* strict: as str.join, which takes texts only; else as the filter, which makes texts. */
int tni_tm_join(tm_r *r, const tm_string *sep, struct tm_iter *items, bool strict, tm_val *out) {
    tm_buf *b;
    bool more, first = true;
    TM_TRY(tni_tm_buf(r, &b));
    for (;; first = false) {
        tm_val v;
        TM_TRY(tni_tm_next(r, items, &v, &more));
        if (!more) break;
        if (strict && v.kind != TM_STR)
            return tni_tm_fail(r, "join: an item is a '%s', not a text", tni_tm_type(v));
        if (strict && sep->safe && !v.s->safe) TM_TRY(tni_tm_escape(r, v.s, &v));
        if (!first) TM_TRY(tni_tm_put_str(r, b, sep));
        TM_TRY(tni_tm_put_text(r, b, v));
    }
    TM_TRY(tni_tm_buf_str(r, b, out));
    ((tm_string *)out->s)->safe = strict && sep->safe;
    return 0;
}

/* ---- split ---- */

static int string_push_part(tm_r *r, tm_list *l, const tm_string *s, size_t from, size_t to) {
    tm_val v;
    TM_TRY(tni_tm_sub(r, s, from, to, &v));
    return tni_tm_push(r, l, v);
}

static size_t string_space_at(const tm_string *s, size_t at) {
    size_t len;
    return at < s->n && tni_tm_space(tni_tm_decode(s->s + at, s->n - at, &len)) ? len : 0;
}

/* At white space: no part is empty. */
int tni_tm_split_space(tm_r *r, const tm_string *s, int64_t max, tm_list **out) {
    size_t at = 0, n;
    TM_TRY(tni_tm_list(r, 0, out));
    for (;;) {
        while ((n = string_space_at(s, at))) at += n;
        if (at >= s->n) return 0;
        if (max-- == 0) break;
        size_t from = at;
        while (at < s->n && !string_space_at(s, at)) at += tni_tm_char_at(s, at);
        TM_TRY(string_push_part(r, *out, s, from, at));
    }
    return string_push_part(r, *out, s, at, s->n);
}

int tni_tm_split(tm_r *r, const tm_string *s, const tm_string *sep, int64_t max, tm_list **out) {
    size_t at = 0, next;
    if (!sep->n) return tni_tm_fail(r, "split: the separator is empty");
    TM_TRY(tni_tm_step(r, s->n >> 6));
    TM_TRY(tni_tm_list(r, 0, out));
    for (; max && (next = tni_tm_find(s, sep, at)) != SIZE_MAX; max--) {
        TM_TRY(string_push_part(r, *out, s, at, next));
        at = next + sep->n;
    }
    return string_push_part(r, *out, s, at, s->n);
}

/* The last occurrence that ends at `to` or before; SIZE_MAX: none. */
size_t tni_tm_rfind(const tm_string *s, const tm_string *what, size_t from, size_t to) {
    if (to - from < what->n || to < from) return SIZE_MAX;
    for (size_t at = to - what->n;; at--) {
        if (!memcmp(s->s + at, what->s, what->n)) return at;
        if (at == from) return SIZE_MAX;
    }
}

static void string_reverse(tm_list *l) {
    for (size_t i = 0; i < l->n / 2; i++) {
        tm_val v = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = v;
    }
}

int tni_tm_rsplit(tm_r *r, const tm_string *s, const tm_string *sep, int64_t max, tm_list **out) {
    size_t to = s->n, at;
    if (!sep->n) return tni_tm_fail(r, "rsplit: the separator is empty");
    TM_TRY(tni_tm_step(r, s->n >> 4));
    TM_TRY(tni_tm_list(r, 0, out));
    for (; max && (at = tni_tm_rfind(s, sep, 0, to)) != SIZE_MAX; max--) {
        TM_TRY(string_push_part(r, *out, s, at + sep->n, to));
        to = at;
    }
    TM_TRY(string_push_part(r, *out, s, 0, to));
    string_reverse(*out);
    return 0;
}

int tni_tm_rsplit_space(tm_r *r, const tm_string *s, int64_t max, tm_list **out) {
    tm_val rest = tm_str(s), part;
    TM_TRY(tni_tm_list(r, 0, out));
    for (;;) {
        TM_TRY(tni_tm_strip(r, rest.s, tm_none(), 2, &rest));
        if (!rest.s->n || max-- == 0) break;
        size_t word = 0;
        for (size_t i = 0, n; i < rest.s->n; i += n ? n : tni_tm_char_at(rest.s, i))
            if ((n = string_space_at(rest.s, i))) word = i + n;
        TM_TRY(tni_tm_step(r, rest.s->n >> 4));
        TM_TRY(tni_tm_sub(r, rest.s, word, rest.s->n, &part));
        TM_TRY(tni_tm_push(r, *out, part));
        TM_TRY(tni_tm_sub(r, rest.s, 0, word, &rest));
    }
    if (rest.s->n) TM_TRY(tni_tm_push(r, *out, rest));
    string_reverse(*out);
    return 0;
}

/* ---- width ---- */

/* side: '<' text left, '>' right, '^' as str.center, 'c' as format's '^' */
int tni_tm_pad(tm_r *r, const tm_string *s, int64_t width, const tm_string *fill, char side,
               tm_val *out) {
    tm_buf *b;
    int64_t n = width - tni_tm_chars(s);
    if (n <= 0) return tni_tm_sub(r, s, 0, s->n, out);
    if ((uint64_t)n > r->max_output)
        return tni_tm_fail(r, "a text of more than %zu bytes", r->max_output);
    int64_t left = side == '<'   ? 0
                   : side == '>' ? n
                   : side == 'c' ? n / 2
                                 : n / 2 + (n & width & 1);
    TM_TRY(tni_tm_step(r, (size_t)n >> 4));
    TM_TRY(tni_tm_buf(r, &b));
    for (int64_t i = 0; i < n; i++) {
        if (i == left) TM_TRY(tni_tm_put_str(r, b, s));
        TM_TRY(tni_tm_put_str(r, b, fill));
    }
    if (left == n) TM_TRY(tni_tm_put_str(r, b, s));
    TM_TRY(tni_tm_buf_str(r, b, out));
    ((tm_string *)out->s)->safe = s->safe;
    return 0;
}
