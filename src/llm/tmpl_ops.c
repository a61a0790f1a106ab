/* Operators, attributes, subscripts and slices, as Python has them. */
#include "base/err.h"
#include "llm/tmpl.h"
#include <math.h>
#include <string.h>

static int ops_enter(tm_r *r) {
    if (++r->nest > TM_MAX_NEST)
        return tni_tm_fail(r, "values are nested more than %d deep", TM_MAX_NEST);
    return tni_tm_step(r, 1);
}

static int ops_bad(tm_r *r, const char *op, tm_val a, tm_val b) {
    if (a.kind == TM_UNDEF) return tni_tm_undef_fail(r, a);
    if (b.kind == TM_UNDEF) return tni_tm_undef_fail(r, b);
    return tni_tm_fail(r, "'%s' does not work between '%s' and '%s'", op, tni_tm_type(a),
                       tni_tm_type(b));
}

static int ops_overflow(tm_r *r) { return tni_tm_fail(r, "an integer does not fit in 64 bits"); }

static double ops_float(tm_val v) { return v.kind == TM_FLOAT ? v.f : (double)tm_to_int(v); }

int tni_tm_int_of(tm_r *r, tm_val v, const char *what, int64_t *out) {
    if (v.kind == TM_UNDEF) return tni_tm_undef_fail(r, v);
    if (!tm_is_int(v)) return tni_tm_fail(r, "%s: '%s' is not an integer", what, tni_tm_type(v));
    *out = tm_to_int(v);
    return 0;
}

int tni_tm_length(tm_r *r, tm_val v, int64_t *out) {
    *out = -1;
    switch (v.kind) {
    case TM_UNDEF:
        *out = 0;
        return 0;
    case TM_STR:
        *out = tni_tm_chars(v.s);
        return tni_tm_step(r, v.s->n >> 8);
    case TM_LIST:
    case TM_TUPLE:
        *out = (int64_t)v.l->n;
        return 0;
    case TM_DICT:
        *out = (int64_t)v.d->n;
        return 0;
    case TM_RANGE:
        *out = v.range->n;
        return 0;
    case TM_VIEW:
        *out = (int64_t)v.view->d->n;
        return 0;
    case TM_LOOP:
        return tni_tm_loop_length(r, v.loop, out);
    default:
        return 0;
    }
}

bool tni_tm_true(tm_r *r, tm_val v) {
    (void)r;
    switch (v.kind) {
    case TM_MISSING:
    case TM_UNDEF:
    case TM_NONE:
        return false;
    case TM_BOOL:
        return v.b;
    case TM_INT:
        return v.i != 0;
    case TM_FLOAT:
        return v.f != 0;
    case TM_STR:
        return v.s->n != 0;
    case TM_LIST:
    case TM_TUPLE:
        return v.l->n != 0;
    case TM_DICT:
        return v.d->n != 0;
    case TM_RANGE:
        return v.range->n != 0;
    case TM_VIEW:
        return v.view->d->n != 0;
    default:
        return true;
    }
}

/* ---- comparisons ---- */

/* -1, 0, 1; 2 when one is not a number. Exact between integers and floats. */
static int ops_order(tm_val a, tm_val b) {
    if (a.kind != TM_FLOAT && b.kind != TM_FLOAT) {
        int64_t x = tm_to_int(a), y = tm_to_int(b);
        return (x > y) - (x < y);
    }
    if (a.kind == TM_FLOAT && b.kind == TM_FLOAT)
        return isnan(a.f) || isnan(b.f) ? 2 : (a.f > b.f) - (a.f < b.f);
    if (a.kind != TM_FLOAT) {
        int o = ops_order(b, a);
        return o == 2 ? 2 : -o;
    }
    if (isnan(a.f)) return 2;
    if (a.f >= 9223372036854775808.0) return 1;
    if (a.f < -9223372036854775808.0) return -1;
    int64_t whole = (int64_t)a.f, y = tm_to_int(b);
    if (whole != y) return whole > y ? 1 : -1;
    double rest = a.f - (double)whole;
    return (rest > 0) - (rest < 0);
}

static int ops_equal_lists(tm_r *r, const tm_list *a, const tm_list *b, bool *out) {
    *out = a->n == b->n;
    for (size_t i = 0; i < a->n && *out; i++) TM_TRY(tni_tm_equal(r, a->v[i], b->v[i], out));
    return 0;
}

static int ops_equal_dicts(tm_r *r, const tm_dict *a, const tm_dict *b, bool *out) {
    *out = a->n == b->n;
    for (size_t i = 0; i < a->n && *out; i++) {
        tm_val other;
        TM_TRY(tni_tm_dict_get(r, b, a->e[i].key, &other));
        *out = other.kind != TM_MISSING;
        if (*out) TM_TRY(tni_tm_equal(r, a->e[i].value, other, out));
    }
    return 0;
}

static int ops_equal(tm_r *r, tm_val a, tm_val b, bool *out) {
    *out = false;
    if (tm_is_number(a) && tm_is_number(b)) return *out = ops_order(a, b) == 0, 0;
    if (a.kind != b.kind) return 0;
    switch (a.kind) {
    case TM_MISSING:
    case TM_NONE:
    case TM_UNDEF:
        *out = true;
        return 0;
    case TM_STR:
        *out = a.s->n == b.s->n && !memcmp(a.s->s, b.s->s, a.s->n);
        return tni_tm_step(r, *out ? a.s->n >> 8 : 0);
    case TM_LIST:
    case TM_TUPLE:
        return ops_equal_lists(r, a.l, b.l, out);
    case TM_DICT:
        return ops_equal_dicts(r, a.d, b.d, out);
    case TM_RANGE:
        *out = a.range->n == b.range->n &&
               (!a.range->n || (a.range->start == b.range->start &&
                                (a.range->n == 1 || a.range->step == b.range->step)));
        return 0;
    default:
        *out = a.l == b.l;
        return 0;
    }
}

int tni_tm_equal(tm_r *r, tm_val a, tm_val b, bool *out) {
    TM_TRY(ops_enter(r));
    TM_TRY(ops_equal(r, a, b, out));
    r->nest--;
    return 0;
}

static bool ops_ordered(tm_op op, int o) {
    if (o == 2) return false;
    return op == TM_LT ? o < 0 : op == TM_LE ? o <= 0 : op == TM_GT ? o > 0 : o >= 0;
}

/* The first items that differ decide, else the lengths. */
static int ops_order_lists(tm_r *r, tm_op op, const tm_list *a, const tm_list *b, bool *out) {
    size_t n = a->n < b->n ? a->n : b->n;
    for (size_t i = 0; i < n; i++) {
        bool same;
        TM_TRY(tni_tm_equal(r, a->v[i], b->v[i], &same));
        if (!same) return tni_tm_less(r, op, a->v[i], b->v[i], out);
    }
    *out = ops_ordered(op, (a->n > b->n) - (a->n < b->n));
    return 0;
}

int tni_tm_less(tm_r *r, tm_op op, tm_val a, tm_val b, bool *out) {
    static const char *const names[] = {"<", "<=", ">", ">="};
    TM_TRY(ops_enter(r));
    int status = 0;
    if (tm_is_number(a) && tm_is_number(b)) {
        *out = ops_ordered(op, ops_order(a, b));
    } else if (a.kind == TM_STR && b.kind == TM_STR) {
        size_t n = a.s->n < b.s->n ? a.s->n : b.s->n;
        int o = n ? memcmp(a.s->s, b.s->s, n) : 0;
        if (!o) o = (a.s->n > b.s->n) - (a.s->n < b.s->n);
        *out = ops_ordered(op, o < 0 ? -1 : o > 0);
    } else if (a.kind == b.kind && (a.kind == TM_LIST || a.kind == TM_TUPLE)) {
        status = ops_order_lists(r, op, a.l, b.l, out);
    } else {
        status = ops_bad(r, names[op - TM_LT], a, b);
    }
    r->nest--;
    return status;
}

static int ops_in_items(tm_r *r, tm_val item, tm_val in, bool *out) {
    struct tm_iter *it;
    tm_val v;
    bool more;
    *out = false;
    TM_TRY(tni_tm_iter(r, in, &it));
    for (;;) {
        TM_TRY(tni_tm_next(r, it, &v, &more));
        if (!more) return 0;
        TM_TRY(tni_tm_equal(r, v, item, out));
        if (*out) return 0;
    }
}

int tni_tm_contains(tm_r *r, tm_val item, tm_val in, bool *out) {
    tm_val found;
    const tm_dict *d = in.kind == TM_DICT ? in.d : NULL;
    if (in.kind == TM_VIEW && in.view->what == 'k') d = in.view->d;
    if (d) {
        TM_TRY(tni_tm_dict_get(r, d, item, &found));
        *out = found.kind != TM_MISSING;
        return 0;
    }
    if (in.kind != TM_STR) return ops_in_items(r, item, in, out);
    if (item.kind != TM_STR)
        return tni_tm_fail(r, "'in <text>' needs a text on its left, not '%s'", tni_tm_type(item));
    *out = tni_tm_find(in.s, item.s, 0) != SIZE_MAX;
    return tni_tm_step(r, in.s->n >> 8);
}

int tni_tm_compare(tm_r *r, tm_op op, tm_val a, tm_val b, bool *out) {
    if (op >= TM_LT && op <= TM_GE) return tni_tm_less(r, op, a, b, out);
    TM_TRY(op == TM_EQ || op == TM_NE ? tni_tm_equal(r, a, b, out) : tni_tm_contains(r, a, b, out));
    if (op == TM_NE || op == TM_NOTIN) *out = !*out;
    return 0;
}

/* ---- arithmetic ---- */

static int ops_pow_int(tm_r *r, int64_t a, int64_t n, tm_val *out) {
    int64_t v = 1;
    if (a == 0 || a == 1 || a == -1)
        return *out = tm_int(!n ? 1 : a == -1 && n % 2 == 0 ? 1 : a), 0;
    if (n > 63) return ops_overflow(r);
    for (; n > 0; n--)
        if (__builtin_mul_overflow(v, a, &v)) return ops_overflow(r);
    *out = tm_int(v);
    return 0;
}

static int ops_int(tm_r *r, tm_op op, int64_t a, int64_t b, tm_val *out) {
    int64_t v = 0;
    bool over = false;
    if ((op == TM_FLOORDIV || op == TM_MOD) && b == 0) return tni_tm_fail(r, "division by zero");
    switch (op) {
    case TM_ADD:
        over = __builtin_add_overflow(a, b, &v);
        break;
    case TM_SUB:
        over = __builtin_sub_overflow(a, b, &v);
        break;
    case TM_MUL:
        over = __builtin_mul_overflow(a, b, &v);
        break;
    case TM_FLOORDIV:
        over = a == INT64_MIN && b == -1;
        v = over ? 0 : a / b - (a % b != 0 && (a % b < 0) != (b < 0));
        break;
    case TM_MOD:
        v = b == -1 ? 0 : a % b;
        if (v && (v < 0) != (b < 0)) v += b;
        break;
    default:
        return ops_pow_int(r, a, b, out);
    }
    *out = tm_int(v);
    return over ? ops_overflow(r) : 0;
}

static int ops_real(tm_r *r, tm_op op, double a, double b, tm_val *out) {
    double v = 0;
    if (b == 0 && (op == TM_DIV || op == TM_FLOORDIV || op == TM_MOD))
        return tni_tm_fail(r, "division by zero");
    switch (op) {
    case TM_ADD:
        v = a + b;
        break;
    case TM_SUB:
        v = a - b;
        break;
    case TM_MUL:
        v = a * b;
        break;
    case TM_DIV:
        v = a / b;
        break;
    case TM_FLOORDIV:
    case TM_MOD: {
        double m = fmod(a, b);
        if (m && (m < 0) != (b < 0)) m += b;
        v = op == TM_MOD ? (m ? m : copysign(0, b)) : floor((a - m) / b + 0.5);
        break;
    }
    default:
        if ((a == 0 && b < 0) || (a < 0 && b != floor(b) && !isinf(b)))
            return tni_tm_fail(r, "%g cannot be raised to the power of %g", a, b);
        v = pow(a, b);
        if (isinf(v) && !isinf(a) && !isinf(b)) return tni_tm_fail(r, "a number is too large");
    }
    *out = tm_float(v);
    return 0;
}

static int ops_repeat(tm_r *r, tm_val of, int64_t n, tm_val *out) {
    if (of.kind == TM_STR) {
        tm_buf *b;
        TM_TRY(tni_tm_buf(r, &b));
        for (int64_t i = 0; of.s->n && i < n; i++) {
            TM_TRY(tni_tm_step(r, 1));
            TM_TRY(tni_tm_put_str(r, b, of.s));
        }
        TM_TRY(tni_tm_buf_str(r, b, out));
        ((tm_string *)out->s)->safe = of.s->safe;
        return 0;
    }
    tm_list *l;
    TM_TRY(tni_tm_list(r, 0, &l));
    for (int64_t i = 0; of.l->n && i < n; i++)
        for (size_t j = 0; j < of.l->n; j++) {
            TM_TRY(tni_tm_step(r, 1));
            TM_TRY(tni_tm_push(r, l, of.l->v[j]));
        }
    *out = of.kind == TM_LIST ? tm_listv(l) : tm_tuple(l);
    return 0;
}

static int ops_append(tm_r *r, tm_val a, tm_val b, tm_val *out) {
    tm_list *l;
    TM_TRY(tni_tm_list(r, a.l->n + b.l->n, &l));
    if (a.l->n) memcpy(l->v, a.l->v, a.l->n * sizeof *l->v);
    if (b.l->n) memcpy(l->v + a.l->n, b.l->v, b.l->n * sizeof *l->v);
    l->n = a.l->n + b.l->n;
    *out = a.kind == TM_LIST ? tm_listv(l) : tm_tuple(l);
    return 0;
}

static bool ops_sequence(tm_val v) {
    return v.kind == TM_STR || v.kind == TM_LIST || v.kind == TM_TUPLE;
}

int tni_tm_binary(tm_r *r, tm_op op, tm_val a, tm_val b, tm_val *out) {
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "**"};
    if (tm_is_int(a) && tm_is_int(b) && op != TM_DIV && (op != TM_POW || tm_to_int(b) >= 0))
        return ops_int(r, op, tm_to_int(a), tm_to_int(b), out);
    if (tm_is_number(a) && tm_is_number(b)) return ops_real(r, op, ops_float(a), ops_float(b), out);
    if (a.kind == TM_STR && op == TM_MOD) return tni_tm_percent(r, a.s, b, out);
    if (op == TM_ADD && a.kind == b.kind && ops_sequence(a))
        return a.kind == TM_STR ? tni_tm_join2(r, a.s, b.s, out) : ops_append(r, a, b, out);
    if (op == TM_MUL && ops_sequence(a) && tm_is_int(b)) return ops_repeat(r, a, tm_to_int(b), out);
    if (op == TM_MUL && ops_sequence(b) && tm_is_int(a)) return ops_repeat(r, b, tm_to_int(a), out);
    return ops_bad(r, names[op], a, b);
}

int tni_tm_unary(tm_r *r, bool negate, tm_val a, tm_val *out) {
    if (a.kind == TM_UNDEF) return tni_tm_undef_fail(r, a);
    if (!tm_is_number(a))
        return tni_tm_fail(r, "'%s' does not work on '%s'", negate ? "-" : "+", tni_tm_type(a));
    if (a.kind == TM_FLOAT) return *out = tm_float(negate ? -a.f : a.f), 0;
    int64_t v = tm_to_int(a);
    if (negate && v == INT64_MIN) return ops_overflow(r);
    *out = tm_int(negate ? -v : v);
    return 0;
}

/* ---- attributes and subscripts ---- */

static int ops_bind_method(tm_r *r, tm_val self, const tm_method *m, tm_val *out) {
    if (m->required < 0)
        return tni_tm_undef(r, "the sandbox forbids methods that change a list or dict", NULL,
                            tm_none(), out);
    tm_bound *b = tni_tm_new(r, sizeof *b);
    if (!b) return r->arena.status;
    *b = (tm_bound){self, m};
    *out = (tm_val){.kind = TM_METHOD, .bound = b};
    return 0;
}

/* What getattr() finds; TM_MISSING when there is nothing. */
static int ops_attribute(tm_r *r, tm_val of, const tm_string *name, tm_val *out) {
    tni_bytes n = {name->s, name->n};
    *out = tm_missing();
    if (of.kind == TM_NS) return tni_tm_dict_get(r, of.d, tm_str(name), out);
    if (of.kind == TM_LOOP) return tni_tm_loop_attr(r, of.loop, n, out);
    if (of.kind == TM_TUPLE && of.l->group &&
        (tni_tm_is(tm_str(name), "grouper") || tni_tm_is(tm_str(name), "list")))
        return *out = of.l->v[n.s[0] == 'l'], 0;
    if (of.kind == TM_CYCLER && tni_tm_is(tm_str(name), "current"))
        return *out = of.cycle->items->v[of.cycle->at], 0;
    if (of.kind == TM_MACRO && tni_tm_is(tm_str(name), "name"))
        return *out = of.macro->node->name < 0 ? tm_none() : of.macro->node->value, 0;
    const tm_method *m = tni_tm_method(of, n);
    return m ? ops_bind_method(r, of, m, out) : 0;
}

static int ops_no_attribute(tm_r *r, tm_val of, tm_val name, tm_val *out) {
    return tni_tm_undef(r, NULL, tni_tm_type(of), name, out);
}

int tni_tm_getattr(tm_r *r, tm_val of, const tm_string *name, tm_val *out) {
    if (of.kind == TM_UNDEF) return tni_tm_undef_fail(r, of);
    TM_TRY(ops_attribute(r, of, name, out));
    if (out->kind != TM_MISSING) return 0;
    if (of.kind == TM_DICT) TM_TRY(tni_tm_dict_get(r, of.d, tm_str(name), out));
    return out->kind != TM_MISSING ? 0 : ops_no_attribute(r, of, tm_str(name), out);
}

static int ops_index(tm_r *r, tm_val of, int64_t i, tm_val *out) {
    int64_t n;
    *out = tm_missing();
    TM_TRY(tni_tm_length(r, of, &n));
    if (i < 0) i += n;
    if (i < 0 || i >= n) return 0;
    if (of.kind == TM_RANGE) return *out = tm_int(of.range->start + i * of.range->step), 0;
    if (of.kind != TM_STR) return *out = of.l->v[i], 0;
    size_t at = (size_t)i;
    if ((size_t)n != of.s->n) {
        TM_TRY(tni_tm_step(r, (size_t)i >> 8));
        for (at = 0; i > 0; i--) at += tni_tm_char_at(of.s, at);
    }
    return tni_tm_sub(r, of.s, at, at + tni_tm_char_at(of.s, at), out);
}

int tni_tm_getitem(tm_r *r, tm_val of, tm_val key, tm_val *out) {
    *out = tm_missing();
    if (of.kind == TM_UNDEF) return tni_tm_undef_fail(r, of);
    if (of.kind == TM_DICT && tni_tm_hashable(key))
        TM_TRY(tni_tm_dict_get(r, of.d, key, out));
    else if (tm_is_int(key) && (ops_sequence(of) || of.kind == TM_RANGE))
        TM_TRY(ops_index(r, of, tm_to_int(key), out));
    if (out->kind == TM_MISSING && key.kind == TM_STR) TM_TRY(ops_attribute(r, of, key.s, out));
    return out->kind != TM_MISSING ? 0 : ops_no_attribute(r, of, key, out);
}

/* ---- slices ---- */

typedef struct ops_range {
    int64_t start, step, n;
} ops_range;

static int ops_bound(tm_r *r, tm_val v, int64_t n, int64_t absent, int64_t low, int64_t high,
                     int64_t *out) {
    *out = absent;
    if (v.kind == TM_NONE || v.kind == TM_MISSING) return 0;
    TM_TRY(tni_tm_int_of(r, v, "a slice", out));
    if (*out < 0) *out += n;
    if (*out < low) *out = low;
    if (*out > high) *out = high;
    return 0;
}

/* slice.indices() */
static int ops_indices(tm_r *r, int64_t n, const tm_val index[3], ops_range *out) {
    int64_t step = 1, start, stop;
    *out = (ops_range){0};
    if (index[2].kind != TM_NONE && index[2].kind != TM_MISSING)
        TM_TRY(tni_tm_int_of(r, index[2], "a slice", &step));
    if (!step) return tni_tm_fail(r, "the step of a slice is zero");
    if (step < -INT64_MAX) step = -INT64_MAX;
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
    TM_TRY(ops_bound(r, index[0], n, step > 0 ? low : high, low, high, &start));
    TM_TRY(ops_bound(r, index[1], n, step > 0 ? high : low, low, high, &stop));
    int64_t span = step > 0 ? stop - start : start - stop;
    *out = (ops_range){start, step, span <= 0 ? 0 : (span - 1) / (step > 0 ? step : -step) + 1};
    return 0;
}

static int ops_slice_string(tm_r *r, const tm_string *s, ops_range g, tm_val *out) {
    size_t chars = (size_t)tni_tm_chars(s), *at = NULL;
    if (!g.n) return tni_tm_sub(r, s, 0, 0, out);
    if (chars != s->n) {
        at = tni_tm_new(r, (chars + 1) * sizeof *at);
        if (!at) return r->arena.status;
        for (size_t i = 0, p = 0; i < chars; i++, p = at[i]) at[i + 1] = p + tni_tm_char_at(s, p);
    }
#define OPS_AT(i) (at ? at[i] : (size_t)(i))
    if (g.step == 1) return tni_tm_sub(r, s, OPS_AT(g.start), OPS_AT(g.start + g.n), out);
    tm_buf *b;
    TM_TRY(tni_tm_buf(r, &b));
    for (int64_t k = 0; k < g.n; k++) {
        int64_t i = g.start + k * g.step;
        TM_TRY(tni_tm_put(r, b, s->s + OPS_AT(i), s->m + OPS_AT(i), OPS_AT(i + 1) - OPS_AT(i)));
    }
#undef OPS_AT
    TM_TRY(tni_tm_buf_str(r, b, out));
    ((tm_string *)out->s)->safe = s->safe;
    return 0;
}

int tni_tm_slice(tm_r *r, tm_val of, const tm_val index[3], tm_val *out) {
    int64_t n;
    ops_range g;
    tm_list *l;
    if (of.kind == TM_UNDEF) return tni_tm_undef_fail(r, of);
    if (!ops_sequence(of) && of.kind != TM_RANGE)
        return tni_tm_fail(r, "'%s' cannot be sliced", tni_tm_type(of));
    TM_TRY(tni_tm_length(r, of, &n));
    TM_TRY(ops_indices(r, n, index, &g));
    if (of.kind == TM_STR) return ops_slice_string(r, of.s, g, out);
    if (of.kind == TM_RANGE) {
        tm_range *range = tni_tm_new(r, sizeof *range);
        if (!range) return r->arena.status;
        int64_t step = g.n > 1 ? of.range->step * g.step : of.range->step;
        *range = (tm_range){of.range->start + g.start * of.range->step, step, g.n};
        return *out = (tm_val){.kind = TM_RANGE, .range = range}, 0;
    }
    TM_TRY(tni_tm_list(r, (size_t)g.n, &l));
    for (int64_t k = 0; k < g.n; k++) l->v[l->n++] = of.l->v[g.start + k * g.step];
    *out = of.kind == TM_LIST ? tm_listv(l) : tm_tuple(l);
    return 0;
}
