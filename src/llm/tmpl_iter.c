/* Iterables. What Python makes a generator is one here too: it works when it is asked for
 * an item, and can be run through once. */
#include "llm/tmpl.h"
#include <string.h>

typedef struct tm_iter {
    uint8_t kind; /* of the value that is run through; TM_ITER: a pipe */
    bool reverse;
    size_t at;
    tm_val of;
    struct tm_iter *source;
    tm_pipe pipe;
} tm_iter;

bool tni_tm_iterable(tm_val v) {
    return v.kind == TM_UNDEF || (v.kind >= TM_STR && v.kind <= TM_DICT) || v.kind == TM_RANGE ||
           v.kind == TM_VIEW || v.kind == TM_ITER || v.kind == TM_LOOP;
}

static int iter_new(tm_r *r, tm_val of, tm_iter **out) {
    *out = tni_tm_new(r, sizeof **out);
    if (!*out) return r->arena.status;
    (*out)->kind = of.kind;
    (*out)->of = of;
    return 0;
}

int tni_tm_iter(tm_r *r, tm_val v, struct tm_iter **out) {
    if (v.kind == TM_ITER) return *out = v.it, 0;
    if (v.kind == TM_LOOP || !tni_tm_iterable(v))
        return tni_tm_fail(r, "'%s' is not iterable", tni_tm_type(v));
    return iter_new(r, v, out);
}

static int iter_char(tm_r *r, tm_iter *it, tm_val *out, bool *more) {
    const tm_string *s = it->of.s;
    size_t at = it->at;
    *more = at < s->n;
    if (!*more) return 0;
    it->at += tni_tm_char_at(s, at);
    TM_TRY(tni_tm_sub(r, s, at, it->at, out));
    ((tm_string *)out->s)->safe = false; /* iter(Markup) gives plain characters */
    return 0;
}

static int iter_dict(tm_r *r, tm_iter *it, const tm_dict *d, char what, tm_val *out, bool *more) {
    *more = it->at < d->n;
    if (!*more) return 0;
    tm_entry e = d->e[it->at++];
    if (what == 'i') return tni_tm_pair(r, e.key, e.value, out);
    *out = what == 'k' ? e.key : e.value;
    return 0;
}

int tni_tm_follow(tm_r *r, const tm_list *path, tm_val dflt, tm_val of, tm_val *out) {
    *out = of;
    for (size_t i = 0; path && i < path->n; i++) {
        TM_TRY(tni_tm_getitem(r, *out, path->v[i], out));
        if (out->kind == TM_UNDEF && dflt.kind != TM_MISSING && dflt.kind != TM_NONE) *out = dflt;
    }
    return 0;
}

static int iter_pipe_item(tm_r *r, const tm_pipe *p, tm_val item, tm_val *out, bool *pass) {
    tm_val v;
    TM_TRY(tni_tm_follow(r, p->path, p->dflt, item, &v));
    *pass = true;
    *out = p->select ? item : v;
    if (p->filter >= 0) return tni_tm_apply_filter(r, p->filter, v, p->call, out);
    if (!p->select) return 0;
    bool is = tni_tm_true(r, v);
    if (p->test >= 0) TM_TRY(tni_tm_apply_test(r, p->test, v, p->call, &is));
    *pass = is == p->keep;
    return 0;
}

static int iter_pipe(tm_r *r, tm_iter *it, tm_val *out, bool *more) {
    bool pass = false;
    tm_val item;
    if (++r->depth > TM_MAX_DEPTH)
        return tni_tm_fail(r, "more than %d levels of evaluation", TM_MAX_DEPTH);
    /* As late as a generator does it: what is never run through need not be iterable. */
    if (!it->source) TM_TRY(tni_tm_iter(r, it->of, &it->source));
    while (!pass) {
        TM_TRY(tni_tm_next(r, it->source, &item, more));
        if (!*more) break;
        TM_TRY(iter_pipe_item(r, &it->pipe, item, out, &pass));
    }
    r->depth--;
    return 0;
}

int tni_tm_next(tm_r *r, struct tm_iter *it, tm_val *out, bool *more) {
    TM_TRY(tni_tm_step(r, 1));
    *more = false;
    switch (it->kind) {
    case TM_STR:
        return iter_char(r, it, out, more);
    case TM_LIST:
    case TM_TUPLE:
        *more = it->at < it->of.l->n;
        if (!*more) return 0;
        *out = it->of.l->v[it->reverse ? it->of.l->n - 1 - it->at : it->at];
        it->at++;
        return 0;
    case TM_DICT:
        return iter_dict(r, it, it->of.d, 'k', out, more);
    case TM_VIEW:
        return iter_dict(r, it, it->of.view->d, it->of.view->what, out, more);
    case TM_RANGE:
        *more = (int64_t)it->at < it->of.range->n;
        if (*more) *out = tm_int(it->of.range->start + (int64_t)it->at++ * it->of.range->step);
        return 0;
    case TM_ITER:
        return iter_pipe(r, it, out, more);
    default:
        return 0; /* an undefined value has no items */
    }
}

int tni_tm_to_list(tm_r *r, tm_val v, tm_list **out) {
    tm_iter *it;
    tm_val item;
    bool more;
    TM_TRY(tni_tm_iter(r, v, &it));
    TM_TRY(tni_tm_list(r, v.kind == TM_LIST || v.kind == TM_TUPLE ? v.l->n : 0, out));
    for (;;) {
        TM_TRY(tni_tm_next(r, it, &item, &more));
        if (!more) return 0;
        TM_TRY(tni_tm_push(r, *out, item));
    }
}

int tni_tm_list_iter(tm_r *r, const tm_list *l, bool reverse, tm_val *out) {
    tm_iter *it;
    TM_TRY(iter_new(r, tm_listv(l), &it));
    it->reverse = reverse;
    *out = (tm_val){.kind = TM_ITER, .it = it};
    return 0;
}

int tni_tm_pipe(tm_r *r, tm_val source, const tm_pipe *pipe, tm_val *out) {
    tm_iter *it;
    TM_TRY(iter_new(r, source, &it));
    it->kind = TM_ITER;
    it->pipe = *pipe;
    *out = (tm_val){.kind = TM_ITER, .it = it};
    return 0;
}

/* A part of digits is an index. */
static int iter_path_part(tm_r *r, const tm_string *s, size_t from, size_t to, tm_val *out) {
    int64_t i = 0;
    bool digits = to > from;
    for (size_t k = from; k < to && digits; k++) {
        digits = s->s[k] >= '0' && s->s[k] <= '9' && k - from < 18;
        i = i * 10 + (s->s[k] - '0');
    }
    if (!digits) return tni_tm_sub(r, s, from, to, out);
    *out = tm_int(i);
    return 0;
}

int tni_tm_path(tm_r *r, tm_val attribute, tm_list **out) {
    TM_TRY(tni_tm_list(r, 2, out));
    if (attribute.kind == TM_MISSING || attribute.kind == TM_NONE) return 0;
    if (attribute.kind != TM_STR) return tni_tm_push(r, *out, attribute);
    const tm_string *s = attribute.s;
    for (size_t i = 0, from = 0; i <= s->n; i++) {
        if (i < s->n && s->s[i] != '.') continue;
        tm_val part;
        TM_TRY(iter_path_part(r, s, from, i, &part));
        TM_TRY(tni_tm_push(r, *out, part));
        from = i + 1;
    }
    return 0;
}
