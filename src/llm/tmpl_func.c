/* The functions and the tests (`is ...`) of the environment. */
#include "base/err.h"
#include "llm/tmpl.h"
#include <string.h>
#include <time.h>

/* ---- functions ---- */

static int func_range(tm_r *r, const tm_val *a, tm_val *out) {
    int64_t start = 0, stop, step = 1;
    TM_TRY(tni_tm_int_of(r, a[0], "range", &stop));
    if (a[1].kind != TM_MISSING) {
        start = stop;
        TM_TRY(tni_tm_int_of(r, a[1], "range", &stop));
    }
    if (a[2].kind != TM_MISSING) TM_TRY(tni_tm_int_of(r, a[2], "range", &step));
    if (!step) return tni_tm_fail(r, "range: the step is zero");
    uint64_t span = 0, width = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    if (step > 0 && stop > start) span = (uint64_t)stop - (uint64_t)start;
    if (step < 0 && stop < start) span = (uint64_t)start - (uint64_t)stop;
    uint64_t n = span / width + (span % width != 0);
    if (n > TM_MAX_RANGE) return tni_tm_fail(r, "range: more than %d numbers", TM_MAX_RANGE);
    tm_range *g = tni_tm_new(r, sizeof *g);
    if (!g) return r->arena.status;
    *g = (tm_range){start, n ? step : 1, (int64_t)n};
    *out = (tm_val){.kind = TM_RANGE, .range = g};
    return 0;
}

static int func_update(tm_r *r, tm_dict *d, tm_val from) {
    tm_list *items, *pair;
    if (from.kind == TM_DICT) {
        for (size_t i = 0; i < from.d->n; i++)
            TM_TRY(tni_tm_dict_set(r, d, from.d->e[i].key, from.d->e[i].value));
        return 0;
    }
    TM_TRY(tni_tm_to_list(r, from, &items));
    for (size_t i = 0; i < items->n; i++) {
        TM_TRY(tni_tm_to_list(r, items->v[i], &pair));
        if (pair->n != 2) return tni_tm_fail(r, "dict: item %zu is not a pair", i);
        TM_TRY(tni_tm_dict_set(r, d, pair->v[0], pair->v[1]));
    }
    return 0;
}

static int func_dict(tm_r *r, const tm_call *c, tm_val *out) {
    tm_dict *d;
    if (c->n_pos > 1) return tni_tm_fail(r, "dict takes at most one argument without a name");
    TM_TRY(tni_tm_dict(r, &d));
    if (c->n_pos) TM_TRY(func_update(r, d, c->pos[0]));
    for (size_t i = 0; i < c->n_kw; i++)
        TM_TRY(tni_tm_dict_set(r, d, tm_str(c->kw[i].name), c->kw[i].v));
    *out = tm_dictv(d);
    return 0;
}

static int func_namespace(tm_r *r, const tm_call *c, tm_val *out) {
    TM_TRY(func_dict(r, c, out));
    for (size_t i = 0; i < out->d->n; i++) {
        tm_val key = out->d->e[i].key;
        if (key.kind == TM_STR && key.s->n && key.s->s[0] == '_')
            return tni_tm_fail(r, "a namespace's attributes cannot begin with '_'");
    }
    out->kind = TM_NS;
    return 0;
}

static int func_raise(tm_r *r, const tm_val *a, tm_val *out) {
    TM_TRY(tni_tm_str(r, a[0], out));
    return tni_tm_fail(r, "%.*s", out->s->n < 900 ? (int)out->s->n : 900, out->s->s);
}

static int func_strftime_now(tm_r *r, const tm_val *a, tm_val *out) {
    char format[512], text[2048];
    struct tm tm;
    time_t now = r->opt->now ? (time_t)r->opt->now : time(NULL);
    if (a[0].kind == TM_UNDEF) return tni_tm_undef_fail(r, a[0]);
    if (a[0].kind != TM_STR || a[0].s->n + 2 > sizeof format || memchr(a[0].s->s, 0, a[0].s->n))
        return tni_tm_fail(r, "strftime_now: the format is not a short text");
    /* The space tells an empty result from one that does not fit. */
    memcpy(format, a[0].s->s, a[0].s->n);
    memcpy(format + a[0].s->n, " ", 2);
    if (!localtime_r(&now, &tm)) return tni_tm_fail(r, "strftime_now: no such time");
    size_t n = strftime(text, sizeof text, format, &tm);
    if (!n) return tni_tm_fail(r, "strftime_now: the result is longer than %zu bytes", sizeof text);
    uint8_t mark = memchr(a[0].s->m, 1, a[0].s->n) != NULL;
    tm_buf *b;
    TM_TRY(tni_tm_buf(r, &b));
    TM_TRY(tni_tm_put_marked(r, b, text, n - 1, mark));
    return tni_tm_buf_str(r, b, out);
}

static int func_cycle(tm_r *r, const tm_val *items, size_t n, tm_kind kind, tm_val *out) {
    tm_cycle *cycle = tni_tm_new(r, sizeof *cycle);
    tm_list *l;
    if (!cycle) return r->arena.status;
    TM_TRY(tni_tm_list(r, n, &l));
    for (size_t i = 0; i < n; i++) l->v[l->n++] = items[i];
    cycle->items = l;
    *out = (tm_val){.kind = (uint8_t)kind, .cycle = cycle};
    return 0;
}

static int func_joiner(tm_r *r, const tm_val *a, tm_val *out) {
    tm_val sep = a[0];
    if (sep.kind == TM_MISSING) TM_TRY(tni_tm_literal(r, ", ", 2, &sep));
    return func_cycle(r, &sep, 1, TM_JOINER, out);
}

static int func_cycler(tm_r *r, const tm_call *c, tm_val *out) {
    if (!c->n_pos || c->n_kw) return tni_tm_fail(r, "cycler needs items");
    return func_cycle(r, c->pos, c->n_pos, TM_CYCLER, out);
}

static const tm_func func_all[] = {
    {"range", "a,b,c", 1, func_range, NULL},
    {"dict", "", 0, NULL, func_dict},
    {"namespace", "", 0, NULL, func_namespace},
    {"raise_exception", "message", 1, func_raise, NULL},
    {"strftime_now", "format", 1, func_strftime_now, NULL},
    {"joiner", "sep", 0, func_joiner, NULL},
    {"cycler", "", 0, NULL, func_cycler},
};

const tm_func *tni_tm_function(tni_bytes name) {
    for (size_t i = 0; i < sizeof func_all / sizeof *func_all; i++)
        if (strlen(func_all[i].name) == name.n && !memcmp(func_all[i].name, name.s, name.n))
            return &func_all[i];
    return NULL;
}

/* ---- tests ---- */

static int test_modulo(tm_r *r, tm_val v, tm_val by, int64_t want, bool *out) {
    tm_val m;
    TM_TRY(tni_tm_binary(r, TM_MOD, v, by, &m));
    return tni_tm_equal(r, m, tm_int(want), out);
}

static int test_odd(tm_r *r, tm_val v, const tm_val *a, bool *out) {
    (void)a;
    return test_modulo(r, v, tm_int(2), 1, out);
}

static int test_even(tm_r *r, tm_val v, const tm_val *a, bool *out) {
    (void)a;
    return test_modulo(r, v, tm_int(2), 0, out);
}

static int test_divisible(tm_r *r, tm_val v, const tm_val *a, bool *out) {
    return test_modulo(r, v, a[0], 0, out);
}

/* Tests of a value's type. */
#define TEST_IS(name, condition)                                                                   \
    static int test_##name(tm_r *r, tm_val v, const tm_val *a, bool *out) {                        \
        (void)r, (void)a;                                                                          \
        *out = (condition);                                                                        \
        return 0;                                                                                  \
    }
TEST_IS(defined, v.kind != TM_UNDEF)
TEST_IS(undefined, v.kind == TM_UNDEF)
TEST_IS(none, v.kind == TM_NONE)
TEST_IS(boolean, v.kind == TM_BOOL)
TEST_IS(true, v.kind == TM_BOOL && v.b)
TEST_IS(false, v.kind == TM_BOOL && !v.b)
TEST_IS(integer, v.kind == TM_INT)
TEST_IS(float, v.kind == TM_FLOAT)
TEST_IS(number, tm_is_number(v))
TEST_IS(string, v.kind == TM_STR)
TEST_IS(mapping, v.kind == TM_DICT)
TEST_IS(sequence,
        v.kind == TM_UNDEF || (v.kind >= TM_STR && v.kind <= TM_DICT) || v.kind == TM_RANGE)
TEST_IS(iterable, tni_tm_iterable(v))
TEST_IS(callable, v.kind == TM_UNDEF || v.kind == TM_MACRO || v.kind == TM_METHOD ||
                      v.kind == TM_FUNC || v.kind == TM_LOOP || v.kind == TM_JOINER)
TEST_IS(escaped, v.kind == TM_STR && v.s->safe)

static int test_has_case(tm_r *r, tm_val v, bool upper, bool *out) {
    TM_TRY(tni_tm_str(r, v, &v));
    TM_TRY(tni_tm_step(r, v.s->n >> 4));
    *out = tni_tm_has_case(v.s, upper);
    return 0;
}

static int test_lower(tm_r *r, tm_val v, const tm_val *a, bool *out) {
    (void)a;
    return test_has_case(r, v, false, out);
}

static int test_upper(tm_r *r, tm_val v, const tm_val *a, bool *out) {
    (void)a;
    return test_has_case(r, v, true, out);
}

/* Python's `is`; numbers and texts of the same value count as the same object. */
static int test_sameas(tm_r *r, tm_val v, const tm_val *a, bool *out) {
    *out = false;
    if (v.kind != a[0].kind) return 0;
    if (v.kind <= TM_STR) return tni_tm_equal(r, v, a[0], out);
    *out = v.l == a[0].l;
    return 0;
}

#define TEST_COMPARE(name, op)                                                                     \
    static int test_##name(tm_r *r, tm_val v, const tm_val *a, bool *out) {                        \
        return tni_tm_compare(r, op, v, a[0], out);                                                \
    }
TEST_COMPARE(eq, TM_EQ)
TEST_COMPARE(ne, TM_NE)
TEST_COMPARE(lt, TM_LT)
TEST_COMPARE(le, TM_LE)
TEST_COMPARE(gt, TM_GT)
TEST_COMPARE(ge, TM_GE)
TEST_COMPARE(in, TM_IN)

static int test_hashable(tm_r *r, tm_val v) {
    return tni_tm_hashable(v) ? 0 : tni_tm_fail(r, "unhashable type: '%s'", tni_tm_type(v));
}

static int test_filter(tm_r *r, tm_val v, const tm_val *a, bool *out) {
    (void)a;
    TM_TRY(test_hashable(r, v));
    *out = v.kind == TM_STR && tni_tm_filter_index((tni_bytes){v.s->s, v.s->n}) >= 0;
    return 0;
}

static int test_test(tm_r *r, tm_val v, const tm_val *a, bool *out) {
    (void)a;
    TM_TRY(test_hashable(r, v));
    *out = v.kind == TM_STR && tni_tm_test_index((tni_bytes){v.s->s, v.s->n}) >= 0;
    return 0;
}

static const tm_test test_all[] = {
    {"defined", 0, test_defined},
    {"undefined", 0, test_undefined},
    {"none", 0, test_none},
    {"boolean", 0, test_boolean},
    {"true", 0, test_true},
    {"false", 0, test_false},
    {"integer", 0, test_integer},
    {"float", 0, test_float},
    {"number", 0, test_number},
    {"string", 0, test_string},
    {"mapping", 0, test_mapping},
    {"sequence", 0, test_sequence},
    {"iterable", 0, test_iterable},
    {"callable", 0, test_callable},
    {"escaped", 0, test_escaped},
    {"lower", 0, test_lower},
    {"upper", 0, test_upper},
    {"odd", 0, test_odd},
    {"even", 0, test_even},
    {"divisibleby", 1, test_divisible},
    {"sameas", 1, test_sameas},
    {"in", 1, test_in},
    {"filter", 0, test_filter},
    {"test", 0, test_test},
    {"eq", 1, test_eq},
    {"==", 1, test_eq},
    {"equalto", 1, test_eq},
    {"ne", 1, test_ne},
    {"!=", 1, test_ne},
    {"lt", 1, test_lt},
    {"<", 1, test_lt},
    {"lessthan", 1, test_lt},
    {"le", 1, test_le},
    {"<=", 1, test_le},
    {"gt", 1, test_gt},
    {">", 1, test_gt},
    {"greaterthan", 1, test_gt},
    {"ge", 1, test_ge},
    {">=", 1, test_ge},
};

int tni_tm_test_index(tni_bytes name) {
    for (size_t i = 0; i < sizeof test_all / sizeof *test_all; i++)
        if (strlen(test_all[i].name) == name.n && !memcmp(test_all[i].name, name.s, name.n))
            return (int)i;
    return -1;
}

int tni_tm_apply_test(tm_r *r, int index, tm_val in, const tm_call *c, bool *out) {
    const tm_test *t = &test_all[index];
    tm_val slots[TM_SLOTS];
    TM_TRY(tni_tm_bind(r, t->name, t->required ? "other" : "", t->required, c, slots));
    return t->bound(r, in, slots, out);
}
