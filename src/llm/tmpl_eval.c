/* The values of expressions, and calls of everything that can be called. */
#include "base/err.h"
#include "llm/tmpl.h"
#include <string.h>

/* ---- arguments ---- */

static int eval_star(tm_r *r, const tm_node *n, tm_list *pos) {
    tm_val v;
    tm_list *items;
    TM_TRY(tni_tm_eval(r, n, &v));
    TM_TRY(tni_tm_to_list(r, v, &items));
    for (size_t i = 0; i < items->n; i++) TM_TRY(tni_tm_push(r, pos, items->v[i]));
    return 0;
}

static int eval_kwstar(tm_r *r, const tm_node *n, const tm_dict **out) {
    tm_val v;
    TM_TRY(tni_tm_eval(r, n, &v));
    if (v.kind != TM_DICT) return tni_tm_fail(r, "'%s' after '**' is not a dict", tni_tm_type(v));
    for (size_t i = 0; i < v.d->n; i++)
        if (v.d->e[i].key.kind != TM_STR) return tni_tm_fail(r, "names of arguments must be texts");
    *out = v.d;
    return 0;
}

static int eval_same_name(tm_r *r, const tm_call *c) {
    for (size_t i = 0; i < c->n_kw; i++)
        for (size_t j = 0; j < i; j++)
            if (c->kw[i].name->n == c->kw[j].name->n &&
                !memcmp(c->kw[i].name->s, c->kw[j].name->s, c->kw[i].name->n))
                return tni_tm_fail(r, "an argument is given twice by name");
    return 0;
}

int tni_tm_eval_args(tm_r *r, const tm_args *a, const tm_val *caller, tm_call *out) {
    static const tm_string name_caller = {
        .s = "caller", .m = (const uint8_t *)"\0\0\0\0\0", .n = 6, .chars = 6};
    const tm_dict *more = NULL;
    tm_list *pos;
    size_t n_kw = 0;
    *out = (tm_call){0};
    if (!a->n_pos && !a->n_kw && !a->star && !a->kwstar && !caller) return 0;
    TM_TRY(tni_tm_list(r, (size_t)a->n_pos, &pos));
    for (int32_t i = 0; i < a->n_pos; i++) TM_TRY(tni_tm_eval(r, a->v[i], &pos->v[pos->n++]));
    if (a->star) TM_TRY(eval_star(r, a->star, pos));
    if (a->kwstar) TM_TRY(eval_kwstar(r, a->kwstar, &more));
    size_t total = (size_t)a->n_kw + (more ? more->n : 0) + (caller != NULL);
    tm_kw *kw = total ? tni_tm_new(r, total * sizeof *kw) : NULL;
    if (total && !kw) return r->arena.status;
    if (total > 4 * TM_MAX_ARGS) return tni_tm_fail(r, "more than %d arguments", 4 * TM_MAX_ARGS);
    for (int32_t i = 0; i < a->n_kw; i++) {
        kw[n_kw].name = a->names[i];
        TM_TRY(tni_tm_eval(r, a->v[a->n_pos + i], &kw[n_kw++].v));
    }
    for (size_t i = 0; more && i < more->n; i++)
        kw[n_kw++] = (tm_kw){more->e[i].key.s, more->e[i].value};
    if (caller) kw[n_kw++] = (tm_kw){&name_caller, *caller};
    *out = (tm_call){pos->v, pos->n, kw, n_kw};
    return eval_same_name(r, out);
}

/* The place of a name in "a,b,c", or -1. */
static int eval_param(const char *params, const tm_string *name) {
    for (int i = 0; *params; i++) {
        size_t n = strcspn(params, ",");
        if (n == name->n && !memcmp(params, name->s, n)) return i;
        params += n + (params[n] == ',');
    }
    return -1;
}

int tni_tm_bind(tm_r *r, const char *what, const char *params, int required, const tm_call *c,
                tm_val *slots) {
    size_t count = *params != 0;
    for (const char *p = params; *p; p++) count += *p == ',';
    for (size_t i = 0; i < count; i++) slots[i] = i < c->n_pos ? c->pos[i] : tm_missing();
    if (c->n_pos > count)
        return tni_tm_fail(r, "%s takes at most %zu arguments, not %zu", what, count, c->n_pos);
    for (size_t i = 0; i < c->n_kw; i++) {
        int at = eval_param(params, c->kw[i].name);
        int n = c->kw[i].name->n < 60 ? (int)c->kw[i].name->n : 60;
        if (at < 0) return tni_tm_fail(r, "%s has no argument '%.*s'", what, n, c->kw[i].name->s);
        if (slots[at].kind != TM_MISSING)
            return tni_tm_fail(r, "%s: the argument '%.*s' is given twice", what, n,
                               c->kw[i].name->s);
        slots[at] = c->kw[i].v;
    }
    for (int i = 0; i < required; i++)
        if (slots[i].kind == TM_MISSING)
            return tni_tm_fail(r, "%s needs %d argument%s", what, required,
                               required == 1 ? "" : "s");
    return 0;
}

/* ---- calls ---- */

static int eval_named(tm_r *r, const tm_node *n) {
    int len = n->value.s->n < 60 ? (int)n->value.s->n : 60;
    return tni_tm_fail(r, "there is no %s '%.*s'", n->kind == TM_N_FILTER ? "filter" : "test", len,
                       n->value.s->s);
}

static int eval_method(tm_r *r, const tm_bound *b, const tm_call *c, tm_val *out) {
    tm_val slots[TM_SLOTS];
    const tm_method *m = b->method;
    if (m->raw) return m->raw(r, b->self, c, out);
    if (!m->bound)
        return tni_tm_fail(r, "the method '%s' of '%s' is not supported", m->name,
                           tni_tm_type(b->self));
    TM_TRY(tni_tm_bind(r, m->name, m->params, m->required, c, slots));
    return m->bound(r, b->self, slots, out);
}

static int eval_joiner(tm_r *r, tm_cycle *j, tm_val *out) {
    if (j->at) return *out = j->items->v[0], 0;
    j->at = 1;
    return tni_tm_literal(r, "", 0, out);
}

int tni_tm_call_value(tm_r *r, tm_val fn, const tm_call *c, tm_val *out) {
    tm_val slots[TM_SLOTS];
    switch (fn.kind) {
    case TM_UNDEF:
        return tni_tm_undef_fail(r, fn);
    case TM_MACRO:
        return tni_tm_call_macro(r, fn.macro, c, out);
    case TM_METHOD:
        return eval_method(r, fn.bound, c, out);
    case TM_LOOP:
        return tni_tm_call_loop(r, fn.loop, c, out);
    case TM_JOINER:
        return eval_joiner(r, fn.cycle, out);
    case TM_FUNC:
        if (fn.fn->raw) return fn.fn->raw(r, c, out);
        TM_TRY(tni_tm_bind(r, fn.fn->name, fn.fn->params, fn.fn->required, c, slots));
        return fn.fn->bound(r, slots, out);
    default:
        return tni_tm_fail(r, "'%s' cannot be called", tni_tm_type(fn));
    }
}

int tni_tm_apply_filter(tm_r *r, int index, tm_val in, const tm_call *c, tm_val *out) {
    tm_val slots[TM_SLOTS];
    const tm_filter *f = tni_tm_filter(index);
    if (f->raw) return f->raw(r, in, c, out);
    TM_TRY(tni_tm_bind(r, f->name, f->params, f->required, c, slots));
    return f->bound(r, in, slots, out);
}

/* ---- expressions ---- */

static int eval_collection(tm_r *r, const tm_node *n, tm_val *out) {
    tm_list *l;
    TM_TRY(tni_tm_list(r, (size_t)n->n, &l));
    for (int32_t i = 0; i < n->n; i++) TM_TRY(tni_tm_eval(r, n->v[i], &l->v[l->n++]));
    *out = n->kind == TM_N_LIST ? tm_listv(l) : tm_tuple(l);
    return 0;
}

static int eval_dict(tm_r *r, const tm_node *n, tm_val *out) {
    tm_dict *d;
    TM_TRY(tni_tm_dict(r, &d));
    for (int32_t i = 0; i + 1 < n->n; i += 2) {
        tm_val key, value;
        TM_TRY(tni_tm_eval(r, n->v[i], &key));
        TM_TRY(tni_tm_eval(r, n->v[i + 1], &value));
        TM_TRY(tni_tm_dict_set(r, d, key, value));
    }
    *out = tm_dictv(d);
    return 0;
}

static int eval_slice(tm_r *r, const tm_node *n, tm_val *out) {
    tm_val of, index[3];
    TM_TRY(tni_tm_eval(r, n->a, &of));
    for (int i = 0; i < 3; i++) {
        index[i] = tm_none();
        if (n->v[i]) TM_TRY(tni_tm_eval(r, n->v[i], &index[i]));
    }
    return tni_tm_slice(r, of, index, out);
}

static int eval_call(tm_r *r, const tm_node *n, const tm_val *caller, tm_val *out) {
    tm_val fn;
    tm_call c;
    TM_TRY(tni_tm_eval(r, n->a, &fn));
    TM_TRY(tni_tm_eval_args(r, n->args, caller, &c));
    r->line = n->line;
    return tni_tm_call_value(r, fn, &c, out);
}

static int eval_filter(tm_r *r, const tm_node *n, tm_val *out) {
    tm_val in;
    tm_call c;
    if (n->a)
        TM_TRY(tni_tm_eval(r, n->a, &in));
    else
        in = *r->block;
    TM_TRY(tni_tm_eval_args(r, n->args, NULL, &c));
    r->line = n->line;
    if (n->index < 0) return eval_named(r, n);
    return tni_tm_apply_filter(r, n->index, in, &c, out);
}

static int eval_test(tm_r *r, const tm_node *n, tm_val *out) {
    tm_val in;
    tm_call c;
    bool is = false;
    TM_TRY(tni_tm_eval(r, n->a, &in));
    TM_TRY(tni_tm_eval_args(r, n->args, NULL, &c));
    r->line = n->line;
    if (n->index < 0) return eval_named(r, n);
    TM_TRY(tni_tm_apply_test(r, n->index, in, &c, &is));
    *out = tm_bool(is);
    return 0;
}

static int eval_binary(tm_r *r, const tm_node *n, tm_val *out) {
    tm_val a, b;
    TM_TRY(tni_tm_eval(r, n->a, &a));
    TM_TRY(tni_tm_eval(r, n->b, &b));
    r->line = n->line;
    return n->kind == TM_N_ITEM ? tni_tm_getitem(r, a, b, out)
                                : tni_tm_binary(r, (tm_op)n->op, a, b, out);
}

/* ~: the texts of all parts in a row; no escaping here, not even of safe ones. x ~ y may
 * grow x in place, but only when all parts are known: they may have grown x themselves. */
static int eval_concat(tm_r *r, const tm_node *n, tm_val *out) {
    tm_list *l;
    tm_buf *b;
    TM_TRY(tni_tm_list(r, (size_t)n->n, &l));
    for (int32_t i = 0; i < n->n; i++) TM_TRY(tni_tm_eval(r, n->v[i], &l->v[l->n++]));
    const tm_string *first = l->v[0].kind == TM_STR ? l->v[0].s : NULL;
    bool grow = first && first->buf && first->buf->n == first->n && first->buf->s == first->s;
    if (grow)
        b = first->buf;
    else
        TM_TRY(tni_tm_buf(r, &b));
    for (size_t i = grow; i < l->n; i++) TM_TRY(tni_tm_put_text(r, b, l->v[i]));
    return tni_tm_buf_str(r, b, out);
}

static int eval_compare(tm_r *r, const tm_node *n, tm_val *out) {
    tm_val a, b;
    bool is = true;
    TM_TRY(tni_tm_eval(r, n->a, &a));
    for (int32_t i = 0; i < n->n && is; i++, a = b) {
        TM_TRY(tni_tm_eval(r, n->v[i]->a, &b));
        r->line = n->line;
        TM_TRY(tni_tm_compare(r, (tm_op)n->v[i]->op, a, b, &is));
    }
    *out = tm_bool(is);
    return 0;
}

static int eval_cond(tm_r *r, const tm_node *n, tm_val *out) {
    tm_val test;
    TM_TRY(tni_tm_eval(r, n->a, &test));
    if (tni_tm_true(r, test)) return tni_tm_eval(r, n->b, out);
    if (n->c) return tni_tm_eval(r, n->c, out);
    return tni_tm_undef(r, "an inline if without 'else' was false", NULL, tm_none(), out);
}

static int eval_logic(tm_r *r, const tm_node *n, tm_val *out) {
    TM_TRY(tni_tm_eval(r, n->a, out));
    bool is = tni_tm_true(r, *out);
    if (n->kind == TM_N_NOT) return *out = tm_bool(!is), 0;
    return is == (n->kind == TM_N_AND) ? tni_tm_eval(r, n->b, out) : 0;
}

static int eval_unary(tm_r *r, const tm_node *n, tm_val *out) {
    tm_val a;
    TM_TRY(tni_tm_eval(r, n->a, &a));
    r->line = n->line;
    return n->kind == TM_N_ATTR ? tni_tm_getattr(r, a, n->value.s, out)
                                : tni_tm_unary(r, n->kind == TM_N_NEG, a, out);
}

static int eval_node(tm_r *r, const tm_node *n, tm_val *out) {
    switch (n->kind) {
    case TM_N_CONST:
        *out = n->value;
        return 0;
    case TM_N_NAME:
        return tni_tm_lookup(r, n->name, out);
    case TM_N_TUPLE:
    case TM_N_LIST:
        return eval_collection(r, n, out);
    case TM_N_DICT:
        return eval_dict(r, n, out);
    case TM_N_ITEM:
    case TM_N_BIN:
        return eval_binary(r, n, out);
    case TM_N_SLICE:
        return eval_slice(r, n, out);
    case TM_N_CALL:
        return eval_call(r, n, NULL, out);
    case TM_N_FILTER:
        return eval_filter(r, n, out);
    case TM_N_TEST:
        return eval_test(r, n, out);
    case TM_N_NOT:
    case TM_N_AND:
    case TM_N_OR:
        return eval_logic(r, n, out);
    case TM_N_ATTR:
    case TM_N_NEG:
    case TM_N_POS:
        return eval_unary(r, n, out);
    case TM_N_CONCAT:
        return eval_concat(r, n, out);
    case TM_N_COMPARE:
        return eval_compare(r, n, out);
    case TM_N_COND:
        return eval_cond(r, n, out);
    default:
        return tni_fail(TN_EINTERNAL, "%s: node %d is no expression", r->t->name, n->kind);
    }
}

int tni_tm_eval(tm_r *r, const tm_node *n, tm_val *out) {
    r->line = n->line;
    if (r->depth >= TM_MAX_DEPTH)
        return tni_tm_fail(r, "more than %d levels of evaluation", TM_MAX_DEPTH);
    TM_TRY(tni_tm_step(r, 1));
    r->depth++;
    TM_TRY(eval_node(r, n, out));
    r->depth--;
    return 0;
}

/* {% call f(...) %}: the block's macro goes along as the argument `caller`. */
int tni_tm_eval_call_block(tm_r *r, const tm_node *n, tm_val caller, tm_val *out) {
    return eval_call(r, n, &caller, out);
}
