/* Filters of sequences and dicts. */
#include "base/err.h"
#include "llm/tmpl.h"
#include <string.h>

/* ---- lists ---- */

static int seq_list(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    tm_list *l;
    (void)a;
    TM_TRY(tni_tm_to_list(r, v, &l));
    *out = tm_listv(l);
    return 0;
}

static int seq_first(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    struct tm_iter *it;
    bool more;
    (void)a;
    TM_TRY(tni_tm_iter(r, v, &it));
    TM_TRY(tni_tm_next(r, it, out, &more));
    return more ? 0 : tni_tm_undef(r, "No first item, sequence was empty.", NULL, tm_none(), out);
}

static bool seq_reversible(tm_val v) {
    return v.kind == TM_UNDEF || (v.kind >= TM_STR && v.kind <= TM_DICT) || v.kind == TM_RANGE ||
           v.kind == TM_VIEW;
}

static int seq_last(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    tm_list *l;
    (void)a;
    if (!seq_reversible(v)) return tni_tm_fail(r, "last: '%s' has no last item", tni_tm_type(v));
    TM_TRY(tni_tm_to_list(r, v, &l));
    if (!l->n) return tni_tm_undef(r, "No last item, sequence was empty.", NULL, tm_none(), out);
    *out = l->v[l->n - 1];
    return 0;
}

static int seq_reverse(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    tm_list *l;
    (void)a;
    if (v.kind == TM_STR) {
        const tm_val backwards[3] = {tm_none(), tm_none(), tm_int(-1)};
        return tni_tm_slice(r, v, backwards, out);
    }
    TM_TRY(tni_tm_to_list(r, v, &l));
    TM_TRY(tni_tm_list_iter(r, l, true, out));
    if (seq_reversible(v)) return 0;
    TM_TRY(tni_tm_to_list(r, *out, &l)); /* of a generator it is a list */
    *out = tm_listv(l);
    return 0;
}

/* d, attribute */
static int seq_join(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    struct tm_iter *it;
    tm_pipe pipe = {.filter = -1, .test = -1};
    tm_list *path;
    tm_val sep;
    if (a[1].kind != TM_MISSING && a[1].kind != TM_NONE) {
        TM_TRY(tni_tm_path(r, a[1], &path));
        pipe.path = path;
        TM_TRY(tni_tm_pipe(r, v, &pipe, &v));
    }
    TM_TRY(a[0].kind == TM_MISSING ? tni_tm_literal(r, "", 0, &sep) : tni_tm_str(r, a[0], &sep));
    TM_TRY(tni_tm_iter(r, v, &it));
    return tni_tm_join(r, sep.s, it, false, out);
}

/* linecount, fill_with */
static int seq_batch(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    tm_list *items, *all, *row;
    int64_t n;
    TM_TRY(tni_tm_int_of(r, a[0], "batch", &n));
    TM_TRY(tni_tm_to_list(r, v, &items));
    TM_TRY(tni_tm_list(r, 0, &all));
    TM_TRY(tni_tm_list(r, 0, &row));
    for (size_t i = 0; i < items->n; i++) {
        if ((int64_t)row->n == n) {
            TM_TRY(tni_tm_push(r, all, tm_listv(row)));
            TM_TRY(tni_tm_list(r, 0, &row));
        }
        TM_TRY(tni_tm_push(r, row, items->v[i]));
    }
    bool fill = row->n && a[1].kind != TM_MISSING && a[1].kind != TM_NONE;
    while (fill && (int64_t)row->n < n) {
        TM_TRY(tni_tm_step(r, 1));
        TM_TRY(tni_tm_push(r, row, a[1]));
    }
    if (row->n) TM_TRY(tni_tm_push(r, all, tm_listv(row)));
    return tni_tm_list_iter(r, all, false, out);
}

/* slices, fill_with */
static int seq_slice(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    tm_list *items, *all, *part;
    int64_t slices, at = 0;
    TM_TRY(tni_tm_int_of(r, a[0], "slice", &slices));
    TM_TRY(tni_tm_to_list(r, v, &items));
    TM_TRY(tni_tm_list(r, 0, &all));
    if (!slices) return tni_tm_fail(r, "division by zero");
    for (int64_t i = 0; i < slices; i++) {
        int64_t n = (int64_t)items->n / slices, extra = (int64_t)items->n % slices;
        TM_TRY(tni_tm_list(r, (size_t)n + 1, &part));
        for (int64_t k = 0; k < n + (i < extra); k++) part->v[part->n++] = items->v[at++];
        bool fill = a[1].kind != TM_MISSING && a[1].kind != TM_NONE && i >= extra;
        if (fill) TM_TRY(tni_tm_push(r, part, a[1]));
        TM_TRY(tni_tm_push(r, all, tm_listv(part)));
    }
    return tni_tm_list_iter(r, all, false, out);
}

/* ---- map, select ---- */

static int seq_copy_call(tm_r *r, const tm_call *c, size_t skip, const tm_call **out) {
    tm_call *copy = tni_tm_new(r, sizeof *copy);
    if (!copy) return r->arena.status;
    *copy = (tm_call){c->pos + skip, c->n_pos - skip, c->kw, c->n_kw};
    *out = copy;
    return 0;
}

/* map(attribute=..., default=...) */
static int seq_map_attribute(tm_r *r, tm_val v, const tm_call *c, tm_val *out) {
    tm_val slots[2];
    tm_list *path;
    TM_TRY(tni_tm_bind(r, "map", "attribute,default", 1, c, slots));
    TM_TRY(tni_tm_path(r, slots[0], &path));
    const tm_pipe pipe = {.path = path, .dflt = slots[1], .filter = -1, .test = -1};
    return tni_tm_pipe(r, v, &pipe, out);
}

static int seq_empty(tm_r *r, tm_val *out) {
    tm_list *none;
    TM_TRY(tni_tm_list(r, 0, &none));
    return tni_tm_list_iter(r, none, false, out);
}

static int seq_map(tm_r *r, tm_val v, const tm_call *c, tm_val *out) {
    tm_pipe pipe = {.test = -1};
    if (!tni_tm_true(r, v)) return seq_empty(r, out);
    if (!c->n_pos && c->n_kw) return seq_map_attribute(r, v, c, out);
    if (!c->n_pos) return tni_tm_fail(r, "map needs a filter or an attribute");
    if (c->pos[0].kind == TM_STR)
        pipe.filter = tni_tm_filter_index((tni_bytes){c->pos[0].s->s, c->pos[0].s->n});
    if (c->pos[0].kind != TM_STR || pipe.filter < 0)
        return tni_tm_fail(r, "map: there is no such filter");
    TM_TRY(seq_copy_call(r, c, 1, &pipe.call));
    return tni_tm_pipe(r, v, &pipe, out);
}

static int seq_choose(tm_r *r, tm_val v, const tm_call *c, bool attribute, bool keep, tm_val *out) {
    tm_pipe pipe = {.filter = -1, .test = -1, .select = true, .keep = keep};
    size_t at = 0;
    if (!tni_tm_true(r, v)) return seq_empty(r, out);
    if (attribute) {
        tm_list *path;
        if (!c->n_pos) return tni_tm_fail(r, "the name of an attribute is missing");
        TM_TRY(tni_tm_path(r, c->pos[at++], &path));
        pipe.path = path;
    }
    if (at < c->n_pos) {
        tm_val name = c->pos[at++];
        if (name.kind == TM_STR) pipe.test = tni_tm_test_index((tni_bytes){name.s->s, name.s->n});
        if (name.kind != TM_STR || pipe.test < 0) return tni_tm_fail(r, "there is no such test");
        TM_TRY(seq_copy_call(r, c, at, &pipe.call));
    }
    return tni_tm_pipe(r, v, &pipe, out);
}

#define SEQ_CHOOSE(name, attribute, keep)                                                          \
    static int seq_##name(tm_r *r, tm_val v, const tm_call *c, tm_val *out) {                      \
        return seq_choose(r, v, c, attribute, keep, out);                                          \
    }
SEQ_CHOOSE(select, false, true)
SEQ_CHOOSE(reject, false, false)
SEQ_CHOOSE(selectattr, true, true)
SEQ_CHOOSE(rejectattr, true, false)

/* ---- sorting ---- */

static int seq_before(tm_r *r, tm_val a, tm_val b, bool reverse, bool *out) {
    return reverse ? tni_tm_less(r, TM_LT, b, a, out) : tni_tm_less(r, TM_LT, a, b, out);
}

/* Merges [from, mid) and [mid, to) of `order` into `to_order`. */
static int seq_merge(tm_r *r, const tm_list *keys, bool reverse, const uint32_t *in, size_t from,
                     size_t mid, size_t to, uint32_t *out) {
    size_t i = from, j = mid;
    for (size_t k = from; k < to; k++) {
        bool right = i == mid;
        if (i < mid && j < to)
            TM_TRY(seq_before(r, keys->v[in[j]], keys->v[in[i]], reverse, &right));
        out[k] = in[right ? j++ : i++];
    }
    return 0;
}

int tni_tm_sort(tm_r *r, tm_list *keys, tm_list *items, bool reverse) {
    const size_t n = items->n;
    uint32_t *order = tni_tm_new(r, (2 * n + 1) * sizeof *order), *next = order + n;
    tm_val *sorted = tni_tm_new(r, (n + 1) * sizeof *sorted);
    if (!order || !sorted) return r->arena.status;
    for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t at = 0; at < n; at += 2 * width) {
            size_t mid = at + width < n ? at + width : n, to = mid + width < n ? mid + width : n;
            TM_TRY(seq_merge(r, keys, reverse, order, at, mid, to, next));
        }
        uint32_t *swap = order;
        order = next, next = swap;
    }
    for (size_t i = 0; i < n; i++) sorted[i] = items->v[order[i]];
    if (n) memcpy(items->v, sorted, n * sizeof *sorted);
    return 0;
}

static int seq_ignore_case(tm_r *r, bool sensitive, tm_val *v) {
    return v->kind == TM_STR && !sensitive ? tni_tm_case(r, v->s, 'l', v) : 0;
}

/* The keys of items by one attribute (or themselves). */
static int seq_keys(tm_r *r, const tm_list *items, tm_val attribute, tm_val dflt, bool sensitive,
                    tm_list **out) {
    tm_list *path;
    TM_TRY(tni_tm_path(r, attribute, &path));
    TM_TRY(tni_tm_list(r, items->n, out));
    for (size_t i = 0; i < items->n; i++) {
        tm_val key;
        TM_TRY(tni_tm_follow(r, path, dflt, items->v[i], &key));
        TM_TRY(seq_ignore_case(r, sensitive, &key));
        TM_TRY(tni_tm_push(r, *out, key));
    }
    return 0;
}

/* "a,b": a list of one key after the other; each item's key is a list of those. */
static int seq_multi_keys(tm_r *r, const tm_list *items, tm_val attribute, bool sensitive,
                          tm_list **out) {
    static const tm_string comma = {.s = ",", .m = (const uint8_t *)"", .n = 1, .chars = 1};
    tm_list *names, *one, *row;
    TM_TRY(tni_tm_list(r, 1, &names));
    if (attribute.kind == TM_STR)
        TM_TRY(tni_tm_split(r, attribute.s, &comma, -1, &names));
    else
        TM_TRY(tni_tm_push(r, names, attribute));
    TM_TRY(tni_tm_list(r, items->n, out));
    for (size_t i = 0; i < items->n; i++) {
        TM_TRY(tni_tm_list(r, names->n, &row));
        TM_TRY(tni_tm_push(r, *out, tm_listv(row)));
    }
    for (size_t k = 0; k < names->n; k++) {
        TM_TRY(seq_keys(r, items, names->v[k], tm_none(), sensitive, &one));
        for (size_t i = 0; i < items->n; i++)
            TM_TRY(tni_tm_push(r, (tm_list *)(*out)->v[i].l, one->v[i]));
    }
    return 0;
}

/* reverse, case_sensitive, attribute */
static int seq_sort(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    tm_list *items, *keys;
    TM_TRY(tni_tm_to_list(r, v, &items));
    TM_TRY(seq_multi_keys(r, items, a[2], tni_tm_true(r, a[1]), &keys));
    TM_TRY(tni_tm_sort(r, keys, items, tni_tm_true(r, a[0])));
    *out = tm_listv(items);
    return 0;
}

/* case_sensitive, by, reverse */
static int seq_dictsort(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    tm_list *items, *keys;
    bool by_value = tni_tm_is(a[1], "value");
    if (!by_value && a[1].kind != TM_MISSING && !tni_tm_is(a[1], "key"))
        return tni_tm_fail(r, "dictsort: by must be key or value");
    if (v.kind == TM_UNDEF) return tni_tm_undef_fail(r, v);
    if (v.kind != TM_DICT) return tni_tm_fail(r, "dictsort: '%s' is not a dict", tni_tm_type(v));
    TM_TRY(tni_tm_list(r, v.d->n, &items));
    for (size_t i = 0; i < v.d->n; i++)
        TM_TRY(tni_tm_pair(r, v.d->e[i].key, v.d->e[i].value, &items->v[items->n++]));
    TM_TRY(seq_keys(r, items, tm_int(by_value), tm_none(), tni_tm_true(r, a[0]), &keys));
    TM_TRY(tni_tm_sort(r, keys, items, tni_tm_true(r, a[2])));
    *out = tm_listv(items);
    return 0;
}

/* case_sensitive, attribute */
static int seq_unique(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    tm_list *items, *keys, *some;
    tm_dict *seen;
    TM_TRY(tni_tm_to_list(r, v, &items));
    TM_TRY(seq_keys(r, items, a[1], tm_none(), tni_tm_true(r, a[0]), &keys));
    TM_TRY(tni_tm_list(r, 0, &some));
    TM_TRY(tni_tm_dict(r, &seen));
    for (size_t i = 0; i < items->n; i++) {
        size_t before = seen->n;
        TM_TRY(tni_tm_dict_set(r, seen, keys->v[i], tm_none()));
        if (seen->n > before) TM_TRY(tni_tm_push(r, some, items->v[i]));
    }
    return tni_tm_list_iter(r, some, false, out);
}

static int seq_extreme(tm_r *r, tm_val v, const tm_val *a, bool max, tm_val *out) {
    tm_list *items, *keys;
    size_t best = 0;
    TM_TRY(tni_tm_to_list(r, v, &items));
    if (!items->n)
        return tni_tm_undef(r, "No aggregated item, sequence was empty.", NULL, tm_none(), out);
    TM_TRY(seq_keys(r, items, a[1], tm_none(), tni_tm_true(r, a[0]), &keys));
    for (size_t i = 1; i < items->n; i++) {
        bool better;
        TM_TRY(tni_tm_less(r, max ? TM_GT : TM_LT, keys->v[i], keys->v[best], &better));
        if (better) best = i;
    }
    *out = items->v[best];
    return 0;
}

static int seq_min(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    return seq_extreme(r, v, a, false, out);
}

static int seq_max(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    return seq_extreme(r, v, a, true, out);
}

static int seq_new_group(tm_r *r, tm_list *all, tm_val key, tm_list **members) {
    tm_val pair;
    TM_TRY(tni_tm_list(r, 0, members));
    TM_TRY(tni_tm_pair(r, key, tm_listv(*members), &pair));
    ((tm_list *)pair.l)->group = true;
    return tni_tm_push(r, all, pair);
}

/* attribute, default, case_sensitive */
static int seq_groupby(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    tm_list *items, *keys, *plain, *order, *all, *members = NULL;
    bool sensitive = tni_tm_true(r, a[2]), same = false;
    TM_TRY(tni_tm_to_list(r, v, &items));
    TM_TRY(seq_keys(r, items, a[0], a[1], sensitive, &keys));
    TM_TRY(seq_keys(r, items, a[0], a[1], true, &plain));
    TM_TRY(tni_tm_list(r, items->n, &order));
    for (size_t i = 0; i < items->n; i++) TM_TRY(tni_tm_push(r, order, tm_int((int64_t)i)));
    TM_TRY(tni_tm_sort(r, keys, order, false));
    TM_TRY(tni_tm_list(r, 0, &all));
    for (size_t i = 0; i < order->n; i++) {
        size_t at = (size_t)order->v[i].i;
        if (i) TM_TRY(tni_tm_equal(r, keys->v[at], keys->v[order->v[i - 1].i], &same));
        if (!same) TM_TRY(seq_new_group(r, all, plain->v[at], &members));
        TM_TRY(tni_tm_push(r, members, items->v[at]));
    }
    *out = tm_listv(all);
    return 0;
}

/* attribute, start */
static int seq_sum(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    tm_list *items, *path;
    TM_TRY(tni_tm_path(r, a[0], &path));
    TM_TRY(tni_tm_to_list(r, v, &items));
    *out = a[1].kind == TM_MISSING ? tm_int(0) : a[1];
    if (out->kind == TM_STR) return tni_tm_fail(r, "sum: texts cannot be summed");
    for (size_t i = 0; i < items->n; i++) {
        tm_val item;
        TM_TRY(tni_tm_follow(r, path, tm_none(), items->v[i], &item));
        TM_TRY(tni_tm_binary(r, TM_ADD, *out, item, out));
    }
    return 0;
}

/* ---- dicts, attributes ---- */

static int seq_items(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    tm_list *l;
    (void)a;
    if (v.kind == TM_UNDEF) return seq_empty(r, out);
    if (v.kind != TM_DICT) return tni_tm_fail(r, "items: '%s' is not a dict", tni_tm_type(v));
    TM_TRY(tni_tm_list(r, v.d->n, &l));
    for (size_t i = 0; i < v.d->n; i++)
        TM_TRY(tni_tm_pair(r, v.d->e[i].key, v.d->e[i].value, &l->v[l->n++]));
    return tni_tm_list_iter(r, l, false, out);
}

/* As x.name, but never x["name"]. */
static int seq_attr(tm_r *r, tm_val v, const tm_val *a, tm_val *out) {
    if (a[0].kind != TM_STR) return tni_tm_fail(r, "attr: the name is not a text");
    if (v.kind == TM_DICT && !tni_tm_method(v, (tni_bytes){a[0].s->s, a[0].s->n}))
        return tni_tm_undef(r, NULL, tni_tm_type(v), a[0], out);
    return tni_tm_getattr(r, v, a[0].s, out);
}

const tm_filter tni_tm_seq_filters[] = {
    {"list", "", 0, seq_list, NULL},
    {"first", "", 0, seq_first, NULL},
    {"last", "", 0, seq_last, NULL},
    {"reverse", "", 0, seq_reverse, NULL},
    {"join", "d,attribute", 0, seq_join, NULL},
    {"batch", "linecount,fill_with", 1, seq_batch, NULL},
    {"slice", "slices,fill_with", 1, seq_slice, NULL},
    {"map", "", 0, NULL, seq_map},
    {"select", "", 0, NULL, seq_select},
    {"reject", "", 0, NULL, seq_reject},
    {"selectattr", "", 0, NULL, seq_selectattr},
    {"rejectattr", "", 0, NULL, seq_rejectattr},
    {"sort", "reverse,case_sensitive,attribute", 0, seq_sort, NULL},
    {"dictsort", "case_sensitive,by,reverse", 0, seq_dictsort, NULL},
    {"unique", "case_sensitive,attribute", 0, seq_unique, NULL},
    {"min", "case_sensitive,attribute", 0, seq_min, NULL},
    {"max", "case_sensitive,attribute", 0, seq_max, NULL},
    {"groupby", "attribute,default,case_sensitive", 1, seq_groupby, NULL},
    {"sum", "attribute,start", 0, seq_sum, NULL},
    {"items", "", 0, seq_items, NULL},
    {"attr", "name", 1, seq_attr, NULL},
    {0},
};
