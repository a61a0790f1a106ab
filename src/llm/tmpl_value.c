/* Memory, strings with their marks, lists and dicts. */
#define _GNU_SOURCE 1 /* memmem */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tmpl.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- arena ---- */

enum { VALUE_CHUNK = 64 << 10, VALUE_ALIGN = 16 };

struct tm_chunk {
    struct tm_chunk *next;
    uint64_t pad; /* what follows is aligned to 16 bytes */
};

static int value_refill(tm_arena *a, size_t size) {
    /* Large blocks get a chunk of their own; the current one goes on after them. */
    size_t want = size > VALUE_CHUNK / 4 ? size : VALUE_CHUNK;
    if (size > a->limit || a->used > a->limit - want)
        return tni_fail(TN_EVALUE, "the chat template needs more than %zu MiB of memory",
                        a->limit >> 20);
    struct tm_chunk *c = tni_calloc(1, sizeof *c + want);
    if (!c) return tni_fail_memory(want, "a chat template");
    c->next = a->chunks;
    a->chunks = c;
    a->used += want;
    a->at = (char *)(c + 1);
    a->end = a->at + want;
    return 0;
}

void *tni_tm_alloc(tm_arena *a, size_t size) {
    if (size > SIZE_MAX / 2) size = SIZE_MAX / 2;
    size = (size + VALUE_ALIGN - 1) & ~(size_t)(VALUE_ALIGN - 1);
    if (size > (size_t)(a->end - a->at)) {
        char *at = a->at, *end = a->end;
        a->status = value_refill(a, size);
        if (a->status) return NULL;
        if ((size_t)(end - at) > (size_t)(a->end - a->at) - size) {
            void *p = a->at; /* the old chunk has more room left than the new one */
            a->at = at, a->end = end;
            return p;
        }
    }
    void *p = a->at;
    a->at += size;
    return p;
}

void tni_tm_arena_free(tm_arena *a) {
    while (a->chunks) {
        struct tm_chunk *next = a->chunks->next;
        tni_free(a->chunks);
        a->chunks = next;
    }
    *a = (tm_arena){0};
}

/* ---- the rendering's bookkeeping ---- */

int tni_tm_fail(tm_r *r, const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return tni_fail(TN_EVALUE, "%s, line %d: %s", r->t->name, r->line, text);
}

int tni_tm_step(tm_r *r, size_t work) {
    r->steps += work;
    if (r->steps <= r->max_steps) return 0;
    return tni_tm_fail(r, "more than %llu steps of work", (unsigned long long)r->max_steps);
}

/* 256 bytes are a step: a bound on the steps bounds the memory too. */
void *tni_tm_new(tm_r *r, size_t size) {
    r->arena.status = tni_tm_step(r, 1 + (size >> 8));
    return r->arena.status ? NULL : tni_tm_alloc(&r->arena, size);
}

const char *tni_tm_type(tm_val v) {
    static const char *const names[] = {
        [TM_MISSING] = "Undefined", [TM_UNDEF] = "Undefined", [TM_NONE] = "NoneType",
        [TM_BOOL] = "bool",         [TM_INT] = "int",         [TM_FLOAT] = "float",
        [TM_STR] = "str",           [TM_LIST] = "list",       [TM_TUPLE] = "tuple",
        [TM_DICT] = "dict",         [TM_NS] = "Namespace",    [TM_RANGE] = "range",
        [TM_VIEW] = "dict_items",   [TM_ITER] = "generator",  [TM_MACRO] = "Macro",
        [TM_METHOD] = "method",     [TM_FUNC] = "function",   [TM_LOOP] = "LoopContext",
        [TM_JOINER] = "Joiner",     [TM_CYCLER] = "Cycler",
    };
    return names[v.kind];
}

int tni_tm_undef(tm_r *r, const char *hint, const char *type, tm_val name, tm_val *out) {
    tm_undef *u = tni_tm_new(r, sizeof *u);
    if (!u) return r->arena.status;
    *u = (tm_undef){hint, type, name};
    *out = (tm_val){.kind = TM_UNDEF, .undef = u};
    return 0;
}

int tni_tm_undef_fail(tm_r *r, tm_val v) {
    const tm_undef *u = v.undef;
    if (u->hint) return tni_tm_fail(r, "%s", u->hint);
    tm_buf *b;
    tm_val name;
    TM_TRY(tni_tm_buf(r, &b));
    TM_TRY(tni_tm_put_repr(r, b, u->name));
    TM_TRY(tni_tm_buf_str(r, b, &name));
    int n = name.s->n < 200 ? (int)name.s->n : 200;
    if (!u->type) return tni_tm_fail(r, "%.*s is undefined", n, name.s->s);
    return tni_tm_fail(r, "a '%s' has no %s %.*s", u->type,
                       u->name.kind == TM_STR ? "attribute" : "element", n, name.s->s);
}

/* ---- strings ---- */

static int value_too_long(tm_r *r) {
    return tni_tm_fail(r, "a text of more than %zu bytes", r->max_output);
}

int tni_tm_string(tm_r *r, size_t n, tm_string **out, char **s, uint8_t **m) {
    *out = NULL, *s = NULL, *m = NULL;
    if (n > r->max_output) return value_too_long(r);
    tm_string *t = *out = tni_tm_new(r, sizeof *t + 2 * n + 1);
    if (!t) return r->arena.status;
    *s = (char *)(t + 1);
    *m = (uint8_t *)*s + n;
    *t = (tm_string){.s = *s, .m = *m, .n = n, .chars = -1};
    return 0;
}

int tni_tm_literal(tm_r *r, const char *s, size_t n, tm_val *out) {
    tm_string *t;
    char *to;
    uint8_t *m;
    TM_TRY(tni_tm_string(r, n, &t, &to, &m));
    if (n) memcpy(to, s, n);
    *out = tm_str(t);
    return 0;
}

int tni_tm_sub(tm_r *r, const tm_string *s, size_t from, size_t to, tm_val *out) {
    tm_string *t = tni_tm_new(r, sizeof *t);
    if (!t) return r->arena.status;
    *t = (tm_string){
        .s = s->s + from, .m = s->m + from, .n = to - from, .chars = -1, .safe = s->safe};
    *out = tm_str(t);
    return 0;
}

int tni_tm_buf(tm_r *r, tm_buf **out) {
    *out = tni_tm_new(r, sizeof **out);
    return *out ? 0 : r->arena.status;
}

static int value_grow(tm_r *r, tm_buf *b, size_t want) {
    size_t cap = b->cap ? b->cap : 32;
    if (want > r->max_output) return value_too_long(r);
    while (cap < want) cap *= 2;
    char *s = tni_tm_new(r, 2 * cap);
    if (!s) return r->arena.status;
    uint8_t *m = (uint8_t *)s + cap;
    if (b->n) memcpy(s, b->s, b->n), memcpy(m, b->m, b->n);
    b->s = s, b->m = m, b->cap = cap;
    return 0;
}

static int value_put(tm_r *r, tm_buf *b, const char *s, size_t n) {
    TM_TRY(tni_tm_step(r, n >> 8));
    if (n > b->cap - b->n) {
        if (n > r->max_output) return value_too_long(r);
        TM_TRY(value_grow(r, b, b->n + n));
    }
    if (b->n + n > r->max_output) return value_too_long(r);
    if (n) memcpy(b->s + b->n, s, n);
    return 0;
}

int tni_tm_put(tm_r *r, tm_buf *b, const char *s, const uint8_t *m, size_t n) {
    if (!n) return 0;
    TM_TRY(value_put(r, b, s, n));
    if (m)
        memcpy(b->m + b->n, m, n);
    else
        memset(b->m + b->n, 0, n);
    b->n += n;
    return 0;
}

int tni_tm_put_marked(tm_r *r, tm_buf *b, const char *s, size_t n, uint8_t mark) {
    if (!n) return 0;
    TM_TRY(value_put(r, b, s, n));
    memset(b->m + b->n, mark, n);
    b->n += n;
    return 0;
}

int tni_tm_puts(tm_r *r, tm_buf *b, const char *s) { return tni_tm_put(r, b, s, NULL, strlen(s)); }
int tni_tm_put_str(tm_r *r, tm_buf *b, const tm_string *s) {
    return tni_tm_put(r, b, s->s, s->m, s->n);
}

int tni_tm_buf_str(tm_r *r, tm_buf *b, tm_val *out) {
    tm_string *t = tni_tm_new(r, sizeof *t);
    if (!t) return r->arena.status;
    /* Never NULL, so that offsets into an empty string are defined. */
    const uint8_t *m = b->m ? b->m : (const uint8_t *)"";
    *t = (tm_string){.s = b->s ? b->s : "", .m = m, .n = b->n, .chars = -1, .buf = b};
    *out = tm_str(t);
    return 0;
}

static int value_escaped(tm_r *r, const tm_string **s) {
    if ((*s)->safe) return 0;
    tm_val v;
    TM_TRY(tni_tm_escape(r, *s, &v));
    *s = v.s;
    return 0;
}

/* a + b. */
int tni_tm_join2(tm_r *r, const tm_string *a, const tm_string *b, tm_val *out) {
    bool safe = a->safe || b->safe;
    if (safe) {
        TM_TRY(value_escaped(r, &a));
        TM_TRY(value_escaped(r, &b));
    }
    tm_buf *buf = a->buf;
    if (!buf || a->n != buf->n || a->s != buf->s) {
        TM_TRY(tni_tm_buf(r, &buf));
        TM_TRY(tni_tm_put_str(r, buf, a));
    }
    TM_TRY(tni_tm_put_str(r, buf, b));
    TM_TRY(tni_tm_buf_str(r, buf, out));
    ((tm_string *)out->s)->safe = safe;
    return 0;
}

int tni_tm_escape(tm_r *r, const tm_string *s, tm_val *out) {
    static const char from[] = "&<>\"'";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"};
    tm_buf *b;
    TM_TRY(tni_tm_buf(r, &b));
    for (size_t i = 0, run = 0; i <= s->n; i++) {
        const char *p = i < s->n && s->s[i] ? strchr(from, s->s[i]) : NULL;
        if (i < s->n && !p) continue;
        TM_TRY(tni_tm_put(r, b, s->s + run, s->m + run, i - run));
        if (p) TM_TRY(tni_tm_put_marked(r, b, to[p - from], strlen(to[p - from]), s->m[i]));
        run = i + 1;
    }
    TM_TRY(tni_tm_buf_str(r, b, out));
    ((tm_string *)out->s)->safe = true;
    return 0;
}

uint32_t tni_tm_decode(const char *s, size_t n, size_t *len) {
    uint32_t cp;
    if (n && (unsigned char)*s < 0x80) return *len = 1, (unsigned char)*s;
    int k = n ? tni_utf8_decode(s, n < 4 ? n : 4, &cp) : 0;
    if (k > 0) return *len = (size_t)k, cp;
    *len = 1;
    return 0xFFFD;
}

int64_t tni_tm_chars(const tm_string *s) {
    int64_t n = 0;
    if (s->chars >= 0) return s->chars;
    for (size_t i = 0; i < s->n; i++) n += ((unsigned char)s->s[i] & 0xC0) != 0x80;
    /* A template's own strings were counted when it was parsed: this one belongs to the
     * rendering alone. */
    return ((tm_string *)s)->chars = n;
}

size_t tni_tm_char_at(const tm_string *s, size_t at) {
    size_t n = 1;
    while (at + n < s->n && ((unsigned char)s->s[at + n] & 0xC0) == 0x80) n++;
    return n;
}

size_t tni_tm_find(const tm_string *s, const tm_string *what, size_t from) {
    if (from > s->n || what->n > s->n - from) return SIZE_MAX;
    if (!what->n) return from;
    const char *p = memmem(s->s + from, s->n - from, what->s, what->n);
    return p ? (size_t)(p - s->s) : SIZE_MAX;
}

bool tni_tm_is(tm_val v, const char *text) {
    size_t n = strlen(text);
    return v.kind == TM_STR && v.s->n == n && !memcmp(v.s->s, text, n);
}

/* ---- lists ---- */

int tni_tm_list(tm_r *r, size_t cap, tm_list **out) {
    tm_list *l = *out = tni_tm_new(r, sizeof *l);
    if (!l) return r->arena.status;
    if (cap) {
        l->v = tni_tm_new(r, cap * sizeof *l->v);
        if (!l->v) return r->arena.status;
        l->cap = cap;
    }
    return 0;
}

int tni_tm_push(tm_r *r, tm_list *l, tm_val v) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 8;
        tm_val *grown = tni_tm_new(r, cap * sizeof *grown);
        if (!grown) return r->arena.status;
        if (l->n) memcpy(grown, l->v, l->n * sizeof *grown);
        l->v = grown, l->cap = cap;
    }
    l->v[l->n++] = v;
    return 0;
}

int tni_tm_pair(tm_r *r, tm_val a, tm_val b, tm_val *out) {
    tm_list *l;
    TM_TRY(tni_tm_list(r, 2, &l));
    l->v[0] = a, l->v[1] = b, l->n = 2;
    *out = tm_tuple(l);
    return 0;
}

/* ---- dicts ---- */

enum { VALUE_SMALL_DICT = 8 };

bool tni_tm_hashable(tm_val v) {
    if (v.kind == TM_TUPLE) {
        for (size_t i = 0; i < v.l->n; i++)
            if (!tni_tm_hashable(v.l->v[i])) return false;
        return true;
    }
    return v.kind != TM_LIST && v.kind != TM_DICT && v.kind != TM_VIEW;
}

/* Equal values have equal hashes: 1, 1.0 and true do. */
static uint64_t value_hash(tm_val v) {
    uint64_t h = v.kind;
    double f = v.kind == TM_FLOAT ? v.f : 0;
    if (v.kind == TM_FLOAT && f == floor(f) && fabs(f) < 9.2e18) v = tm_int((int64_t)f);
    if (tm_is_int(v)) {
        int64_t i = tm_to_int(v);
        return tni_hash(&i, sizeof i);
    }
    switch (v.kind) {
    case TM_FLOAT:
        return tni_hash(&v.f, sizeof v.f);
    case TM_STR:
        return tni_hash(v.s->s, v.s->n);
    case TM_TUPLE:
        for (size_t i = 0; i < v.l->n; i++) h = h * 0x9E3779B97F4A7C15u + value_hash(v.l->v[i]);
        return h;
    case TM_NONE:
    case TM_UNDEF:
    case TM_RANGE:
        return tni_hash(&h, sizeof h);
    default:
        return tni_hash(&v.l, sizeof v.l);
    }
}

int tni_tm_dict(tm_r *r, tm_dict **out) {
    *out = tni_tm_new(r, sizeof **out);
    return *out ? 0 : r->arena.status;
}

static int value_same_key(tm_r *r, tm_val a, tm_val b, bool *same) {
    if (a.kind == TM_STR && b.kind == TM_STR) {
        *same = a.s->n == b.s->n && !memcmp(a.s->s, b.s->s, a.s->n);
        return 0;
    }
    return tni_tm_equal(r, a, b, same);
}

/* The entry with this key, or -1; *slot is where the index has or would have it. */
static int value_lookup(tm_r *r, const tm_dict *d, tm_val key, int64_t *at, size_t *slot) {
    bool same = false;
    *at = -1;
    if (!tni_tm_hashable(key)) return tni_tm_fail(r, "unhashable type: '%s'", tni_tm_type(key));
    if (!d->index) {
        for (size_t i = 0; i < d->n && !same; i++) {
            TM_TRY(value_same_key(r, d->e[i].key, key, &same));
            if (same) *at = (int64_t)i;
        }
        return 0;
    }
    for (size_t s = value_hash(key);; s++) {
        s &= d->slots - 1;
        *slot = s;
        if (!d->index[s]) return 0;
        TM_TRY(value_same_key(r, d->e[d->index[s] - 1].key, key, &same));
        if (same) return *at = d->index[s] - 1, 0;
    }
}

static int value_index(tm_r *r, tm_dict *d) {
    size_t slots = 32;
    while (slots < d->cap * 2) slots *= 2;
    d->index = tni_tm_new(r, slots * sizeof *d->index);
    if (!d->index) return r->arena.status;
    d->slots = slots;
    for (size_t i = 0; i < d->n; i++) {
        size_t s = value_hash(d->e[i].key) & (slots - 1);
        while (d->index[s]) s = (s + 1) & (slots - 1);
        d->index[s] = (uint32_t)i + 1;
    }
    return 0;
}

static int value_dict_grow(tm_r *r, tm_dict *d) {
    size_t cap = d->cap ? 2 * d->cap : 4;
    tm_entry *e = tni_tm_new(r, cap * sizeof *e);
    if (!e) return r->arena.status;
    if (d->n) memcpy(e, d->e, d->n * sizeof *e);
    d->e = e, d->cap = cap;
    return cap > VALUE_SMALL_DICT ? value_index(r, d) : 0;
}

int tni_tm_dict_set(tm_r *r, tm_dict *d, tm_val key, tm_val value) {
    int64_t at;
    size_t slot = 0;
    TM_TRY(value_lookup(r, d, key, &at, &slot));
    if (at >= 0) return d->e[at].value = value, 0;
    if (d->n == d->cap) {
        TM_TRY(value_dict_grow(r, d));
        TM_TRY(value_lookup(r, d, key, &at, &slot));
    }
    d->e[d->n++] = (tm_entry){key, value};
    if (d->index) d->index[slot] = (uint32_t)d->n;
    return 0;
}

int tni_tm_dict_get(tm_r *r, const tm_dict *d, tm_val key, tm_val *out) {
    int64_t at;
    size_t slot;
    *out = tm_missing();
    TM_TRY(value_lookup(r, d, key, &at, &slot));
    if (at >= 0) *out = d->e[at].value;
    return 0;
}
