/* Statements, variables, loops, macros, and one rendering as a whole. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tmpl.h"
#include <string.h>

typedef struct tm_loop {
    const tm_node *node;
    tm_scope *outer; /* where the loop stands */
    struct tm_iter *it;
    tm_val iterable, before, current, after; /* after: an item looked at early, or TM_MISSING */
    int64_t index0, length, depth0;
    tm_list *changed; /* arguments of the last loop.changed() */
} tm_loop;

/* ---- variables ---- */

/* Nearest first: what loops and blocks set, then the template, then the caller. */
int tni_tm_lookup(tm_r *r, int32_t name, tm_val *out) {
    size_t work = 0;
    *out = tm_missing();
    bool found = false;
    for (const tm_scope *s = r->scope; s && !found; s = s->parent) {
        work += (size_t)s->n;
        for (int32_t i = 0; i < s->n && !found; i++)
            if (s->v[i].name == name) *out = s->v[i].v, found = true;
    }
    TM_TRY(tni_tm_step(r, work >> 4));
    if (!found) *out = r->root[name].kind != TM_MISSING ? r->root[name] : r->vars[name];
    if (out->kind != TM_MISSING) return 0;
    const tni_bytes text = r->t->names[name];
    tm_val v;
    TM_TRY(tni_tm_literal(r, text.s, text.n, &v));
    return tni_tm_undef(r, NULL, NULL, v, out);
}

static int run_set(tm_r *r, int32_t name, tm_val v) {
    tm_scope *s = r->scope;
    if (!s) return r->root[name] = v, 0;
    for (int32_t i = 0; i < s->n; i++)
        if (s->v[i].name == name) return s->v[i].v = v, 0;
    if (s->n == s->cap) {
        int32_t cap = s->cap ? 2 * s->cap : 4;
        tm_slot *grown = tni_tm_new(r, (size_t)cap * sizeof *grown);
        if (!grown) return r->arena.status;
        if (s->n) memcpy(grown, s->v, (size_t)s->n * sizeof *grown);
        s->v = grown, s->cap = cap;
    }
    s->v[s->n++] = (tm_slot){name, v};
    return 0;
}

static int run_enter(tm_r *r, tm_scope *parent) {
    tm_scope *s = tni_tm_new(r, sizeof *s);
    if (!s) return r->arena.status;
    s->parent = parent;
    r->scope = s;
    return 0;
}

static int run_set_attribute(tm_r *r, const tm_node *target, tm_val v) {
    tm_val ns;
    TM_TRY(tni_tm_lookup(r, target->name, &ns));
    if (ns.kind != TM_NS) return tni_tm_fail(r, "attributes can be set on a namespace only");
    if (target->value.s->n && target->value.s->s[0] == '_')
        return tni_tm_fail(r, "a namespace's attributes cannot begin with '_'");
    return tni_tm_dict_set(r, ns.d, target->value, v);
}

static int run_assign(tm_r *r, const tm_node *target, tm_val v);

static int run_unpack(tm_r *r, const tm_node *target, tm_val v) {
    tm_list *l;
    if (!tni_tm_iterable(v)) return tni_tm_fail(r, "'%s' cannot be unpacked", tni_tm_type(v));
    TM_TRY(tni_tm_to_list(r, v, &l));
    if (l->n != (size_t)target->n)
        return tni_tm_fail(r, "%zu values cannot be unpacked into %d names", l->n, target->n);
    for (int32_t i = 0; i < target->n; i++) TM_TRY(run_assign(r, target->v[i], l->v[i]));
    return 0;
}

static int run_assign(tm_r *r, const tm_node *target, tm_val v) {
    switch (target->kind) {
    case TM_N_NAME:
        return run_set(r, target->name, v);
    case TM_N_NSREF:
        return run_set_attribute(r, target, v);
    default:
        return run_unpack(r, target, v);
    }
}

/* ---- loops ---- */

/* The next item that the loop's own test lets through. The test is asked as late as in
 * jinja2: it sees what the body has set in namespaces. */
static int run_pull(tm_r *r, tm_loop *l, tm_val *out, bool *more) {
    for (;;) {
        tm_val test;
        TM_TRY(tni_tm_next(r, l->it, out, more));
        if (!*more || !l->node->c) return 0;
        tm_scope *saved = r->scope;
        TM_TRY(run_enter(r, l->outer));
        TM_TRY(run_assign(r, l->node->a, *out));
        TM_TRY(tni_tm_eval(r, l->node->c, &test));
        r->scope = saved;
        if (tni_tm_true(r, test)) return 0;
    }
}

static int run_peek(tm_r *r, tm_loop *l, bool *more) {
    *more = l->after.kind != TM_MISSING;
    if (*more) return 0;
    TM_TRY(run_pull(r, l, &l->after, more));
    if (!*more) l->after = tm_missing();
    return 0;
}

static int run_next(tm_r *r, tm_loop *l, bool *more) {
    TM_TRY(run_peek(r, l, more));
    if (!*more) return 0;
    l->index0++;
    l->before = l->current, l->current = l->after, l->after = tm_missing();
    return 0;
}

/* Without a length of its own, what is run through is read to its end now. */
int tni_tm_loop_length(tm_r *r, tm_loop *l, int64_t *out) {
    *out = l->length;
    if (l->length < 0 && !l->node->c) TM_TRY(tni_tm_length(r, l->iterable, out));
    if (*out < 0) {
        tm_list *rest;
        tm_val v;
        bool more;
        TM_TRY(tni_tm_list(r, 0, &rest));
        for (;;) {
            TM_TRY(run_pull(r, l, &v, &more));
            if (!more) break;
            TM_TRY(tni_tm_push(r, rest, v));
        }
        TM_TRY(tni_tm_list_iter(r, rest, false, &v));
        l->it = v.it;
        tm_node *plain = tni_tm_new(r, sizeof *plain); /* what is left has passed the test */
        if (!plain) return r->arena.status;
        *plain = *l->node, plain->c = NULL;
        l->node = plain;
        *out = (int64_t)rest->n + l->index0 + 1 + (l->after.kind != TM_MISSING);
    }
    l->length = *out;
    return 0;
}

static int run_loop_item(tm_r *r, tm_loop *l, bool next, tm_val *out) {
    bool more = true;
    if (next) TM_TRY(run_peek(r, l, &more));
    if (!more || (!next && !l->index0))
        return tni_tm_undef(r, next ? "there is no next item" : "there is no previous item", NULL,
                            tm_none(), out);
    *out = next ? l->after : l->before;
    return 0;
}

int tni_tm_loop_attr(tm_r *r, struct tm_loop *l, tni_bytes name, tm_val *out) {
    static const char *const names[] = {"index0",    "index",    "first",   "depth",
                                        "depth0",    "last",     "length",  "revindex",
                                        "revindex0", "previtem", "nextitem"};
    size_t i = 0, n = sizeof names / sizeof *names;
    int64_t length = 0;
    bool more;
    while (i < n && (strlen(names[i]) != name.n || memcmp(names[i], name.s, name.n))) i++;
    if (i >= 6 && i <= 8) TM_TRY(tni_tm_loop_length(r, l, &length));
    switch (i) {
    case 0:
    case 1:
        *out = tm_int(l->index0 + (int64_t)i);
        return 0;
    case 2:
        *out = tm_bool(l->index0 == 0);
        return 0;
    case 3:
        *out = tm_int(l->depth0 + 1);
        return 0;
    case 4:
        *out = tm_int(l->depth0);
        return 0;
    case 5:
        TM_TRY(run_peek(r, l, &more));
        *out = tm_bool(!more);
        return 0;
    case 6:
        *out = tm_int(length);
        return 0;
    case 7:
        *out = tm_int(length - l->index0);
        return 0;
    case 8:
        *out = tm_int(length - l->index0 - 1);
        return 0;
    case 9:
        return run_loop_item(r, l, false, out);
    case 10:
        return run_loop_item(r, l, true, out);
    default:
        break;
    }
    const tm_method *m = tni_tm_method((tm_val){.kind = TM_LOOP, .loop = l}, name);
    *out = tm_missing();
    if (!m) return 0;
    tm_bound *b = tni_tm_new(r, sizeof *b);
    if (!b) return r->arena.status;
    *b = (tm_bound){(tm_val){.kind = TM_LOOP, .loop = l}, m};
    *out = (tm_val){.kind = TM_METHOD, .bound = b};
    return 0;
}

int tni_tm_loop_cycle(tm_r *r, tm_val self, const tm_call *c, tm_val *out) {
    if (!c->n_pos || c->n_kw) return tni_tm_fail(r, "loop.cycle needs values to choose from");
    *out = c->pos[(size_t)self.loop->index0 % c->n_pos];
    return 0;
}

int tni_tm_loop_changed(tm_r *r, tm_val self, const tm_call *c, tm_val *out) {
    tm_loop *l = self.loop;
    tm_list *now;
    bool same = false;
    if (c->n_kw) return tni_tm_fail(r, "loop.changed takes no named arguments");
    TM_TRY(tni_tm_list(r, c->n_pos, &now));
    for (size_t i = 0; i < c->n_pos; i++) now->v[now->n++] = c->pos[i];
    if (l->changed) TM_TRY(tni_tm_equal(r, tm_tuple(now), tm_tuple(l->changed), &same));
    if (!same) l->changed = now;
    *out = tm_bool(!same);
    return 0;
}

static int run_loop_body(tm_r *r, tm_loop *l, tm_scope *outer, bool *ran) {
    TM_TRY(run_enter(r, outer));
    TM_TRY(run_assign(r, l->node->a, l->current));
    TM_TRY(run_set(r, r->t->loop, (tm_val){.kind = TM_LOOP, .loop = l}));
    TM_TRY(tni_tm_exec(r, l->node->v[0]));
    *ran |= !r->flow; /* as in jinja2: a body that was left early does not count */
    return 0;
}

static int run_loop(tm_r *r, const tm_node *n, tm_val iterable, int64_t depth0, tm_scope *outer) {
    tm_loop *l = tni_tm_new(r, sizeof *l);
    tm_scope *saved = r->scope;
    bool ran = false, more = true;
    if (!l) return r->arena.status;
    *l = (tm_loop){.node = n,
                   .outer = outer,
                   .iterable = iterable,
                   .index0 = -1,
                   .length = -1,
                   .depth0 = depth0};
    TM_TRY(tni_tm_iter(r, iterable, &l->it));
    while (r->flow != 'b') {
        r->flow = 0;
        TM_TRY(run_next(r, l, &more));
        if (!more) break;
        TM_TRY(run_loop_body(r, l, outer, &ran));
    }
    r->flow = 0;
    if (!ran && n->v[1]) {
        TM_TRY(run_enter(r, outer));
        TM_TRY(tni_tm_exec(r, n->v[1]));
    }
    r->scope = saved;
    return 0;
}

static int run_for(tm_r *r, const tm_node *n) {
    tm_val iterable;
    TM_TRY(tni_tm_eval(r, n->b, &iterable));
    r->line = n->line;
    return run_loop(r, n, iterable, 0, r->scope);
}

/* ---- text that is caught ---- */

static int run_capture(tm_r *r, const tm_node *body, tm_val *out) {
    tm_buf *saved = r->out;
    TM_TRY(tni_tm_buf(r, &r->out));
    TM_TRY(tni_tm_exec(r, body));
    TM_TRY(tni_tm_buf_str(r, r->out, out));
    r->out = saved;
    return 0;
}

/* loop(x) in a recursive loop. */
int tni_tm_call_loop(tm_r *r, tm_loop *l, const tm_call *c, tm_val *out) {
    if (!l->node->flag) return tni_tm_fail(r, "only a loop marked 'recursive' can be called");
    if (c->n_pos != 1 || c->n_kw) return tni_tm_fail(r, "a loop is called with one argument");
    if (r->depth + 20 > TM_MAX_DEPTH)
        return tni_tm_fail(r, "more than %d levels of evaluation", TM_MAX_DEPTH);
    tm_buf *saved = r->out;
    r->depth += 20;
    TM_TRY(tni_tm_buf(r, &r->out));
    TM_TRY(run_loop(r, l->node, c->pos[0], l->depth0 + 1, l->outer));
    TM_TRY(tni_tm_buf_str(r, r->out, out));
    r->depth -= 20;
    r->out = saved;
    return 0;
}

static int run_filtered(tm_r *r, const tm_node *filters, tm_val *text) {
    const tm_val *saved = r->block, in = *text;
    r->block = &in;
    int status = tni_tm_eval(r, filters, text);
    r->block = saved;
    return status;
}

/* The body of {% set x %} or {% filter f %} in its own scope, then the filters. */
static int run_block_text(tm_r *r, const tm_node *n, tm_val *text) {
    tm_scope *saved = r->scope;
    TM_TRY(run_enter(r, saved));
    TM_TRY(run_capture(r, n->c, text));
    if (n->b && !r->flow) TM_TRY(run_filtered(r, n->b, text));
    r->scope = saved;
    return 0;
}

static int run_set_block(tm_r *r, const tm_node *n) {
    tm_val text;
    TM_TRY(run_block_text(r, n, &text));
    return r->flow ? 0 : run_assign(r, n->a, text);
}

static int run_filter_block(tm_r *r, const tm_node *n) {
    tm_val text;
    TM_TRY(run_block_text(r, n, &text));
    return r->flow ? 0 : tni_tm_put_text(r, r->out, text);
}

/* ---- macros ---- */

static int run_macro_value(tm_r *r, const tm_node *n, tm_val *out) {
    tm_macro *m = tni_tm_new(r, sizeof *m);
    if (!m) return r->arena.status;
    *m = (tm_macro){.node = n, .scope = r->scope};
    *out = (tm_val){.kind = TM_MACRO, .macro = m};
    return 0;
}

static bool run_same(const tm_string *a, const tm_string *b) {
    return a->n == b->n && !memcmp(a->s, b->s, a->n);
}

/* Sets the parameters that the call gives; used[i] says that c->kw[i] is one of them. */
static int run_params(tm_r *r, const tm_node *n, const tm_call *c, bool *used) {
    for (int32_t i = 0; i < n->n / 2; i++) {
        const tm_node *name = n->v[2 * i];
        tm_val v = (size_t)i < c->n_pos ? c->pos[i] : tm_missing();
        for (size_t k = 0; (size_t)i >= c->n_pos && k < c->n_kw; k++)
            if (run_same(c->kw[k].name, name->value.s)) v = c->kw[k].v, used[k] = true;
        TM_TRY(run_set(r, name->name, v));
    }
    return 0;
}

static int run_defaults(tm_r *r, const tm_node *n) {
    tm_scope *s = r->scope;
    for (int32_t i = 0; i < n->n / 2; i++) {
        const tm_node *name = n->v[2 * i];
        tm_val v = tm_missing();
        for (int32_t k = 0; k < s->n; k++)
            if (s->v[k].name == name->name) v = s->v[k].v;
        if (v.kind != TM_MISSING) continue;
        if (n->v[2 * i + 1])
            TM_TRY(tni_tm_eval(r, n->v[2 * i + 1], &v));
        else
            TM_TRY(tni_tm_undef(r, "a parameter of a macro was not given", NULL, name->value, &v));
        TM_TRY(run_set(r, name->name, v));
    }
    return 0;
}

static bool run_has_param(const tm_node *n, int32_t name) {
    for (int32_t i = 0; i < n->n / 2; i++)
        if (n->v[2 * i]->name == name) return true;
    return false;
}

/* kwargs, varargs and caller, when the body speaks of them; an error when something is left
 * over that it does not. */
static int run_extras(tm_r *r, const tm_node *n, const tm_call *c, const bool *used) {
    tm_dict *rest;
    tm_list *more;
    tm_val caller = tm_missing();
    bool wants = n->op & 4 && !run_has_param(n, r->t->caller);
    bool kwargs = n->op & 1 && !run_has_param(n, r->t->kwargs);
    bool varargs = n->op & 2 && !run_has_param(n, r->t->varargs);
    TM_TRY(tni_tm_dict(r, &rest));
    for (size_t k = 0; k < c->n_kw; k++) {
        if (used[k]) continue;
        int len = c->kw[k].name->n < 60 ? (int)c->kw[k].name->n : 60;
        if (wants && tni_tm_is(tm_str(c->kw[k].name), "caller"))
            caller = c->kw[k].v;
        else if (kwargs)
            TM_TRY(tni_tm_dict_set(r, rest, tm_str(c->kw[k].name), c->kw[k].v));
        else
            return tni_tm_fail(r, "a macro has no argument '%.*s'", len, c->kw[k].name->s);
    }
    size_t n_params = (size_t)n->n / 2;
    if (c->n_pos > n_params && !varargs)
        return tni_tm_fail(r, "a macro takes at most %zu arguments, not %zu", n_params, c->n_pos);
    if (kwargs) TM_TRY(run_set(r, r->t->kwargs, tm_dictv(rest)));
    if (varargs) {
        TM_TRY(tni_tm_list(r, 0, &more));
        for (size_t i = n_params; i < c->n_pos; i++) TM_TRY(tni_tm_push(r, more, c->pos[i]));
        TM_TRY(run_set(r, r->t->varargs, tm_tuple(more)));
    }
    if (!wants) return 0;
    if (caller.kind == TM_MISSING || caller.kind == TM_NONE)
        TM_TRY(tni_tm_undef(r, "No caller defined", NULL, tm_none(), &caller));
    return run_set(r, r->t->caller, caller);
}

int tni_tm_call_macro(tm_r *r, const tm_macro *m, const tm_call *c, tm_val *out) {
    tm_scope *saved = r->scope;
    int32_t line = r->line;
    bool *used = tni_tm_new(r, c->n_kw + 1);
    if (!used) return r->arena.status;
    TM_TRY(run_enter(r, m->scope));
    TM_TRY(run_params(r, m->node, c, used));
    TM_TRY(run_extras(r, m->node, c, used));
    TM_TRY(run_defaults(r, m->node));
    TM_TRY(run_capture(r, m->node->c, out));
    r->scope = saved;
    r->line = line;
    return 0;
}

static int run_call_block(tm_r *r, const tm_node *n) {
    tm_val caller, text;
    TM_TRY(run_macro_value(r, n->b, &caller));
    TM_TRY(tni_tm_eval_call_block(r, n->a, caller, &text));
    return tni_tm_put_text(r, r->out, text);
}

/* ---- statements ---- */

static int run_if(tm_r *r, const tm_node *n) {
    for (int32_t i = 0; i + 1 < n->n; i += 2) {
        tm_val test;
        TM_TRY(tni_tm_eval(r, n->v[i], &test));
        if (tni_tm_true(r, test)) return tni_tm_exec(r, n->v[i + 1]);
    }
    return n->c ? tni_tm_exec(r, n->c) : 0;
}

/* jinja2 evaluates all values outside the block, before any name is set. */
static int run_with(tm_r *r, const tm_node *n) {
    tm_scope *saved = r->scope, *inner;
    TM_TRY(run_enter(r, saved));
    inner = r->scope;
    for (int32_t i = 0; i + 1 < n->n; i += 2) {
        tm_val v;
        r->scope = saved;
        TM_TRY(tni_tm_eval(r, n->v[i + 1], &v));
        r->scope = inner;
        TM_TRY(run_assign(r, n->v[i], v));
    }
    TM_TRY(tni_tm_exec(r, n->c));
    r->scope = saved;
    return 0;
}

static int run_scope(tm_r *r, const tm_node *n) {
    static const tm_call nothing = {0};
    tm_scope *saved = r->scope;
    TM_TRY(run_enter(r, saved));
    TM_TRY(run_extras(r, n, &nothing, NULL));
    TM_TRY(tni_tm_exec(r, n->c));
    r->scope = saved;
    return 0;
}

static int run_set_value(tm_r *r, const tm_node *n) {
    tm_val v;
    TM_TRY(tni_tm_eval(r, n->b, &v));
    r->line = n->line;
    return run_assign(r, n->a, v);
}

static int run_output(tm_r *r, const tm_node *n) {
    tm_val v;
    TM_TRY(tni_tm_eval(r, n->a, &v));
    return tni_tm_put_text(r, r->out, v);
}

static int run_macro(tm_r *r, const tm_node *n) {
    tm_val v;
    TM_TRY(run_macro_value(r, n, &v));
    return run_set(r, n->name, v);
}

static int run_body(tm_r *r, const tm_node *n) {
    for (int32_t i = 0; i < n->n_hide; i++) {
        if (!r->scope) r->vars[n->hide[i]] = tm_missing();
        if (r->scope) TM_TRY(run_set(r, n->hide[i], tm_missing()));
    }
    for (int32_t i = 0; i < n->n && !r->flow; i++) TM_TRY(tni_tm_exec(r, n->v[i]));
    return 0;
}

static int run_node(tm_r *r, const tm_node *n) {
    switch (n->kind) {
    case TM_N_TEXT:
        return tni_tm_put_str(r, r->out, n->value.s);
    case TM_N_OUTPUT:
        return run_output(r, n);
    case TM_N_BODY:
        return run_body(r, n);
    case TM_N_IF:
        return run_if(r, n);
    case TM_N_FOR:
        return run_for(r, n);
    case TM_N_SET:
        return run_set_value(r, n);
    case TM_N_SETBLOCK:
        return run_set_block(r, n);
    case TM_N_MACRO:
        return run_macro(r, n);
    case TM_N_CALLBLOCK:
        return run_call_block(r, n);
    case TM_N_FILTERBLOCK:
        return run_filter_block(r, n);
    case TM_N_WITH:
        return run_with(r, n);
    case TM_N_SCOPE:
        return run_scope(r, n);
    case TM_N_BREAK:
        r->flow = 'b';
        return 0;
    case TM_N_CONTINUE:
        r->flow = 'c';
        return 0;
    default:
        return tni_fail(TN_EINTERNAL, "%s: node %d is no statement", r->t->name, n->kind);
    }
}

int tni_tm_exec(tm_r *r, const tm_node *n) {
    r->line = n->line;
    if (r->depth >= TM_MAX_DEPTH)
        return tni_tm_fail(r, "more than %d levels of evaluation", TM_MAX_DEPTH);
    TM_TRY(tni_tm_step(r, 1));
    r->depth++;
    TM_TRY(run_node(r, n));
    r->depth--;
    return 0;
}

/* ---- a rendering ---- */

static int run_define(tm_r *r, const char *name, size_t n, tm_val v) {
    for (int32_t i = 0; i < r->t->n_names; i++)
        if (r->t->names[i].n == n && !memcmp(r->t->names[i].s, name, n)) r->vars[i] = v;
    return tni_tm_step(r, (size_t)r->t->n_names >> 4);
}

static int run_define_text(tm_r *r, const char *name, const char *text) {
    tm_val v;
    if (!text) return 0;
    TM_TRY(tni_tm_literal(r, text, strlen(text), &v));
    return run_define(r, name, strlen(name), v);
}

static int run_messages(tm_r *r, const char *json, size_t n) {
    tm_val v;
    TM_TRY(tni_tm_from_json(r, "the messages", json, n, &v));
    if (v.kind != TM_LIST) return tni_fail(TN_EFORMAT, "the messages are not a JSON array");
    for (size_t i = 0; i < v.l->n; i++)
        if (v.l->v[i].kind != TM_DICT)
            return tni_fail(TN_EFORMAT, "message %zu is not a JSON object", i);
    return run_define(r, "messages", 8, v);
}

static int run_tools(tm_r *r, const char *json) {
    tm_val v = tm_none();
    if (json) TM_TRY(tni_tm_from_json(r, "the tools", json, strlen(json), &v));
    if (v.kind != TM_LIST && v.kind != TM_NONE)
        return tni_fail(TN_EFORMAT, "the tools are not a JSON array");
    return run_define(r, "tools", 5, v);
}

static int run_extra(tm_r *r, const char *json) {
    tm_val v;
    if (!json) return 0;
    TM_TRY(tni_tm_from_json(r, "the extra variables", json, strlen(json), &v));
    if (v.kind != TM_DICT) return tni_fail(TN_EFORMAT, "the extra variables are not a JSON object");
    for (size_t i = 0; i < v.d->n; i++)
        TM_TRY(run_define(r, v.d->e[i].key.s->s, v.d->e[i].key.s->n, v.d->e[i].value));
    return 0;
}

/* What transformers defines, then what the caller adds. */
static int run_variables(tm_r *r, const char *messages, size_t n) {
    const size_t names = (size_t)r->t->n_names;
    r->root = tni_tm_new(r, names * sizeof *r->root);
    r->vars = tni_tm_new(r, names * sizeof *r->vars);
    if (!r->root || !r->vars) return r->arena.status;
    for (size_t i = 0; i < names; i++) {
        const tm_func *f = tni_tm_function(r->t->names[i]);
        if (f) r->vars[i] = (tm_val){.kind = TM_FUNC, .fn = f};
    }
    TM_TRY(run_messages(r, messages, n));
    TM_TRY(run_tools(r, r->opt->tools_json));
    TM_TRY(run_define(r, "documents", 9, tm_none()));
    TM_TRY(run_define(r, "add_generation_prompt", 21, tm_bool(r->opt->add_generation_prompt)));
    TM_TRY(run_define_text(r, "bos_token", r->opt->bos_token));
    TM_TRY(run_define_text(r, "eos_token", r->opt->eos_token));
    return run_extra(r, r->opt->extra_json);
}

static int run_finish(const tm_buf *b, tni_str *text, tni_str *literal) {
    const size_t n = text->n;
    if (tni_str_append(text, b->n ? b->s : "", b->n)) return tni_fail_memory(b->n, "rendered text");
    if (!literal) return 0;
    if (!tni_str_append(literal, b->n ? (const char *)b->m : "", b->n)) return 0;
    text->n = n;
    text->v[n] = 0;
    return tni_fail_memory(b->n, "rendered text");
}

int tni_template_render(const tni_template *t, const char *messages_json, size_t n,
                        const tni_render_opt *opt, tni_str *text, tni_str *literal) {
    static const tni_render_opt none = {0};
    tm_r r = {.t = t, .opt = opt ? opt : &none, .line = 1};
    r.arena.limit = TM_MAX_MEMORY;
    r.max_steps = r.opt->max_steps ? r.opt->max_steps : TM_MAX_STEPS;
    r.max_output = r.opt->max_output ? r.opt->max_output : TM_MAX_OUTPUT;
    int status = tni_tm_buf(&r, &r.out);
    if (!status) status = run_variables(&r, messages_json, n);
    if (!status) status = tni_tm_exec(&r, t->body);
    if (!status) status = run_finish(r.out, text, literal);
    tni_tm_arena_free(&r.arena);
    return status;
}
