/* Statements to syntax trees, and the life of a parsed template. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/vec.h"
#include "llm/tmpl.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- what the parsers share ---- */

int tni_tm_syntax(tm_parser *p, int32_t line, const char *fmt, ...) {
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return tni_fail(TN_EFORMAT, "%s, line %d: %s", p->t->name, line, text);
}

const char *tni_tm_token_name(const tm_token *t) {
    static _Thread_local char text[64];
    int n = t->text.n < 40 ? (int)t->text.n : 40;
    switch (t->kind) {
    case TM_T_EOF:
        return "end of the template";
    case TM_T_DATA:
        return "text";
    case TM_T_STRING:
        snprintf(text, sizeof text, "string '%.*s'", n, t->text.s);
        break;
    default:
        snprintf(text, sizeof text, "'%.*s'", n, t->text.s);
    }
    return text;
}

static bool parse_is(tni_bytes s, const char *name) {
    return strlen(name) == s.n && !memcmp(name, s.s, s.n);
}

bool tni_tm_at_name(const tm_parser *p, const char *name) {
    return p->tok->kind == TM_T_NAME && parse_is(p->tok->text, name);
}

bool tni_tm_skip(tm_parser *p, tm_token_kind kind) {
    bool is = p->tok->kind == kind;
    p->tok += is;
    return is;
}

int tni_tm_expect(tm_parser *p, tm_token_kind kind, const char *what) {
    if (p->tok->kind == kind) return p->tok += kind != TM_T_EOF, 0;
    return tni_tm_syntax(p, p->tok->line, "expected %s, got %s", what, tni_tm_token_name(p->tok));
}

int tni_tm_node(tm_parser *p, tm_node_kind kind, int32_t line, tm_node **out) {
    *out = tni_tm_alloc(&p->t->arena, sizeof **out);
    if (!*out) return p->t->arena.status;
    (*out)->kind = (uint8_t)kind, (*out)->line = line, (*out)->depth = 1;
    return 0;
}

int tni_tm_adopt(tm_parser *p, tm_node *parent, const tm_node *child) {
    if (child->depth >= TM_MAX_TREE)
        return tni_tm_syntax(p, child->line, "more than %d levels of nesting", TM_MAX_TREE);
    if (parent->depth <= child->depth) parent->depth = (uint16_t)(child->depth + 1);
    return 0;
}

int tni_tm_kid(tm_parser *p, tm_kids *k, tm_node *parent, tm_node *child) {
    if (tni_vec_push(k, child)) return tni_fail_memory(sizeof child, "a template's tree");
    return child ? tni_tm_adopt(p, parent, child) : 0;
}

int tni_tm_kids_done(tm_parser *p, tm_kids *k, tm_node *parent, int status) {
    if (!status) {
        parent->v = tni_tm_alloc(&p->t->arena, (k->n + 1) * sizeof *k->v);
        parent->n = (int32_t)k->n;
        if (!parent->v)
            status = p->t->arena.status;
        else if (k->n)
            memcpy(parent->v, k->v, k->n * sizeof *k->v);
    }
    tni_vec_free(k);
    return status;
}

int tni_tm_name_id(tm_parser *p, tni_bytes name, int32_t *id) {
    int64_t found;
    if (tni_map_get(&p->ids, name.s, name.n, &found)) return *id = (int32_t)found, 0;
    char *copy = tni_tm_alloc(&p->t->arena, name.n + 1);
    if (!copy) return p->t->arena.status;
    memcpy(copy, name.s, name.n);
    *id = (int32_t)p->n_names;
    if ((p->n_names == p->cap_names &&
         tni_vec_grow((void **)&p->names, &p->cap_names, p->n_names + 1, sizeof *p->names)) ||
        tni_map_put(&p->ids, copy, name.n, *id))
        return tni_fail_memory(name.n, "a template's names");
    p->names[p->n_names++] = (tni_bytes){copy, name.n};
    return 0;
}

int tni_tm_const_string(tm_parser *p, tni_bytes s, tm_val *out) {
    tm_string *t = tni_tm_alloc(&p->t->arena, sizeof *t);
    char *bytes = tni_tm_alloc(&p->t->arena, 2 * s.n + 1); /* the marks are zero */
    if (!t || !bytes) return p->t->arena.status;
    memcpy(bytes, s.s, s.n);
    *t = (tm_string){.s = bytes, .m = (uint8_t *)bytes + s.n, .n = s.n, .chars = -1};
    t->chars = tni_tm_chars(t); /* now: a parsed template never changes */
    *out = tm_str(t);
    return 0;
}

/* ---- statements ---- */

static int parse_statement(tm_parser *p, tm_node **out);

/* The tags that may end a body; the parser stops at the name of one of them. */
static int parse_body(tm_parser *p, const char *const *ends, tm_node **out);

static int parse_block_end(tm_parser *p) {
    tni_tm_skip(p, TM_T_COLON);
    return tni_tm_expect(p, TM_T_BLOCK_END, "'%}'");
}

/* The body after a tag's "%}", in its own frame, up to `end`, which is skipped. */
static int parse_block(tm_parser *p, const char *end, tm_node **out) {
    const char *const ends[] = {end, NULL};
    bool soft = p->soft;
    p->soft = false;
    TM_TRY(parse_block_end(p));
    TM_TRY(parse_body(p, ends, out));
    p->soft = soft;
    p->tok++;
    return 0;
}

static int parse_own(tm_parser *p, tm_node *n, tm_node **slot, tm_node *child) {
    *slot = child;
    return child ? tni_tm_adopt(p, n, child) : 0;
}

static int parse_if(tm_parser *p, tm_node **out) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    static const char *const last[] = {"endif", NULL};
    tm_kids k = {0};
    tm_node *part, *n = *out;
    bool soft = p->soft, more = true;
    int status = 0;
    n->kind = TM_N_IF;
    p->soft = true;
    while (!status && more) {
        p->tok++; /* if, elif */
        status = tni_tm_parse_tuple(p, TM_P_NOCOND, &part);
        if (!status) status = tni_tm_kid(p, &k, n, part);
        if (!status) status = parse_block_end(p);
        if (!status) status = parse_body(p, ends, &part);
        if (!status) status = tni_tm_kid(p, &k, n, part);
        more = !status && tni_tm_at_name(p, "elif");
    }
    if (!status && tni_tm_at_name(p, "else")) {
        p->tok++;
        status = parse_block_end(p);
        if (!status) status = parse_body(p, last, &part);
        if (!status) status = parse_own(p, n, &n->c, part);
    }
    p->tok += !status;
    p->soft = soft;
    return tni_tm_kids_done(p, &k, n, status);
}

static int parse_for_head(tm_parser *p, tm_node *n) {
    tm_node *part;
    TM_TRY(tni_tm_parse_target(p, TM_P_FOR_TARGET, &part));
    TM_TRY(parse_own(p, n, &n->a, part));
    if (!tni_tm_at_name(p, "in")) return tni_tm_expect(p, TM_T_EOF, "'in'");
    p->tok++;
    TM_TRY(tni_tm_parse_tuple(p, TM_P_NOCOND | TM_P_RECURSIVE, &part));
    TM_TRY(parse_own(p, n, &n->b, part));
    if (tni_tm_at_name(p, "if")) {
        bool soft = p->soft;
        p->tok++, p->soft = false;
        TM_TRY(tni_tm_parse_expr(p, 0, &part));
        TM_TRY(parse_own(p, n, &n->c, part));
        p->soft = soft;
    }
    n->flag = tni_tm_at_name(p, "recursive");
    p->tok += n->flag;
    return parse_block_end(p);
}

static int parse_for_bodies(tm_parser *p, tm_node *n) {
    static const char *const ends[] = {"else", "endfor", NULL};
    tm_node *body, *other = NULL;
    p->loops++;
    TM_TRY(parse_body(p, ends, &body));
    p->loops--;
    if (tni_tm_at_name(p, "else")) {
        p->tok++;
        TM_TRY(parse_block_end(p));
        TM_TRY(parse_body(p, ends + 1, &other));
    }
    p->tok++;
    tm_kids k = {0};
    int status = tni_tm_kid(p, &k, n, body);
    if (!status) status = tni_tm_kid(p, &k, n, other);
    return tni_tm_kids_done(p, &k, n, status);
}

static int parse_for(tm_parser *p, tm_node **out) {
    tm_node *n = *out;
    bool soft = p->soft;
    int loops = p->loops;
    n->kind = TM_N_FOR;
    p->tok++;
    p->for_depth++;
    TM_TRY(parse_for_head(p, n));
    p->soft = false;
    if (n->flag) p->loops = 0;
    TM_TRY(parse_for_bodies(p, n));
    p->soft = soft, p->loops = loops;
    p->for_depth--;
    return 0;
}

static int parse_set(tm_parser *p, tm_node **out) {
    tm_node *n = *out, *part;
    p->tok++;
    TM_TRY(tni_tm_parse_target(p, TM_P_NSREF, &part));
    TM_TRY(parse_own(p, n, &n->a, part));
    if (tni_tm_skip(p, TM_T_ASSIGN)) {
        n->kind = TM_N_SET;
        TM_TRY(tni_tm_parse_tuple(p, 0, &part));
        return parse_own(p, n, &n->b, part);
    }
    n->kind = TM_N_SETBLOCK;
    bool soft = p->soft;
    p->soft = false;
    TM_TRY(tni_tm_parse_filters(p, NULL, false, &part));
    TM_TRY(parse_own(p, n, &n->b, part));
    TM_TRY(parse_block(p, "endset", &part));
    p->soft = soft;
    return parse_own(p, n, &n->c, part);
}

/* "(a, b=1)" of a macro or call block: names and defaults in turn. */
static int parse_params(tm_parser *p, tm_node *n) {
    tm_kids k = {0};
    bool defaults = false;
    int status = tni_tm_expect(p, TM_T_LPAREN, "'('");
    while (!status && p->tok->kind != TM_T_RPAREN) {
        tm_node *name = NULL, *value = NULL;
        if (k.n) status = tni_tm_expect(p, TM_T_COMMA, "','");
        if (!status && p->tok->kind == TM_T_RPAREN) break;
        if (!status) status = tni_tm_node(p, TM_N_NAME, p->tok->line, &name);
        tni_bytes text = p->tok->text;
        if (!status) status = tni_tm_expect(p, TM_T_NAME, "a parameter's name");
        if (!status) status = tni_tm_name_id(p, text, &name->name);
        if (!status) status = tni_tm_const_string(p, text, &name->value);
        if (!status && tni_tm_skip(p, TM_T_ASSIGN)) {
            defaults = true;
            status = tni_tm_parse_expr(p, 0, &value);
        } else if (!status && defaults) {
            status = tni_tm_syntax(p, p->tok->line,
                                   "a parameter without a default after one that has one");
        }
        if (!status && k.n >= 2 * TM_MAX_ARGS)
            status = tni_tm_syntax(p, p->tok->line, "more than %d parameters", TM_MAX_ARGS);
        if (!status) status = tni_tm_kid(p, &k, n, name);
        if (!status) status = tni_tm_kid(p, &k, n, value);
    }
    p->tok += !status;
    return tni_tm_kids_done(p, &k, n, status);
}

/* Parameters (when there are any) and body of what becomes a function. */
static int parse_function(tm_parser *p, tm_node *n, bool params, const char *end) {
    bool soft = p->soft;
    int loops = p->loops;
    uint8_t uses = p->uses;
    tm_node *body;
    p->soft = false, p->loops = 0, p->uses = 0;
    n->kind = TM_N_MACRO;
    if (params) TM_TRY(parse_params(p, n));
    TM_TRY(parse_block(p, end, &body));
    n->op = p->uses;
    p->soft = soft, p->loops = loops, p->uses |= uses;
    return parse_own(p, n, &n->c, body);
}

static int parse_macro(tm_parser *p, tm_node **out) {
    tm_node *n = *out;
    p->tok++;
    tni_bytes name = p->tok->text;
    TM_TRY(tni_tm_expect(p, TM_T_NAME, "a macro's name"));
    TM_TRY(tni_tm_name_id(p, name, &n->name));
    TM_TRY(tni_tm_const_string(p, name, &n->value));
    return parse_function(p, n, true, "endmacro");
}

static int parse_call_block(tm_parser *p, tm_node **out) {
    tm_node *n = *out, *macro, *call;
    n->kind = TM_N_CALLBLOCK;
    p->tok++;
    TM_TRY(tni_tm_node(p, TM_N_MACRO, n->line, &macro));
    macro->name = -1;
    if (p->tok->kind == TM_T_LPAREN) TM_TRY(parse_params(p, macro));
    TM_TRY(tni_tm_parse_expr(p, 0, &call));
    if (call->kind != TM_N_CALL) return tni_tm_syntax(p, n->line, "expected a call after 'call'");
    TM_TRY(parse_own(p, n, &n->a, call));
    TM_TRY(parse_function(p, macro, false, "endcall"));
    return parse_own(p, n, &n->b, macro);
}

static int parse_filter_block(tm_parser *p, tm_node **out) {
    tm_node *n = *out, *part;
    bool soft = p->soft;
    n->kind = TM_N_FILTERBLOCK;
    p->tok++, p->soft = false;
    TM_TRY(tni_tm_parse_filters(p, NULL, true, &part));
    TM_TRY(parse_own(p, n, &n->b, part));
    TM_TRY(parse_block(p, "endfilter", &part));
    p->soft = soft;
    return parse_own(p, n, &n->c, part);
}

static int parse_with(tm_parser *p, tm_node **out) {
    tm_node *n = *out, *part;
    tm_kids k = {0};
    int status = 0;
    n->kind = TM_N_WITH;
    p->tok++;
    while (!status && p->tok->kind != TM_T_BLOCK_END && p->tok->kind != TM_T_EOF) {
        if (k.n) status = tni_tm_expect(p, TM_T_COMMA, "','");
        if (!status) status = tni_tm_parse_target(p, 0, &part);
        if (!status) status = tni_tm_kid(p, &k, n, part);
        if (!status) status = tni_tm_expect(p, TM_T_ASSIGN, "'='");
        if (!status) status = tni_tm_parse_expr(p, 0, &part);
        if (!status) status = tni_tm_kid(p, &k, n, part);
    }
    TM_TRY(tni_tm_kids_done(p, &k, n, status));
    TM_TRY(parse_block(p, "endwith", &part));
    return parse_own(p, n, &n->c, part);
}

/* The body becomes a macro in jinja2: what it sets stays inside, and it has a caller,
 * kwargs and varargs of its own. */
static int parse_generation(tm_parser *p, tm_node **out) {
    int loops = p->loops;
    uint8_t uses = p->uses;
    tm_node *part;
    (*out)->kind = TM_N_SCOPE;
    p->tok++, p->loops = 0, p->uses = 0;
    TM_TRY(parse_block(p, "endgeneration", &part));
    (*out)->op = p->uses;
    p->loops = loops, p->uses |= uses;
    return parse_own(p, *out, &(*out)->c, part);
}

static int parse_loop_control(tm_parser *p, tm_node **out) {
    bool leave = tni_tm_at_name(p, "break");
    (*out)->kind = leave ? TM_N_BREAK : TM_N_CONTINUE;
    if (!p->loops)
        return tni_tm_syntax(p, p->tok->line, "'%s' outside a loop", leave ? "break" : "continue");
    p->tok++;
    return 0;
}

/* Here commas stand between values, not in a tuple. */
static int parse_print(tm_parser *p, tm_node **out) {
    tm_kids k = {0};
    int status = 0;
    p->tok++;
    while (!status && p->tok->kind != TM_T_BLOCK_END) {
        tm_node *one, *value;
        if (k.n) status = tni_tm_expect(p, TM_T_COMMA, "','");
        if (!status) status = tni_tm_parse_expr(p, 0, &value);
        if (!status) status = tni_tm_node(p, TM_N_OUTPUT, value->line, &one);
        if (!status) status = parse_own(p, one, &one->a, value);
        if (!status) status = tni_tm_kid(p, &k, *out, one);
    }
    return tni_tm_kids_done(p, &k, *out, status);
}

static const struct {
    const char *name;
    int (*parse)(tm_parser *p, tm_node **out); /* NULL: known to Jinja only */
} parse_tags[] = {
    {"if", parse_if},
    {"for", parse_for},
    {"set", parse_set},
    {"macro", parse_macro},
    {"call", parse_call_block},
    {"filter", parse_filter_block},
    {"with", parse_with},
    {"break", parse_loop_control},
    {"continue", parse_loop_control},
    {"print", parse_print},
    {"generation", parse_generation},
    {"block", NULL},
    {"extends", NULL},
    {"include", NULL},
    {"import", NULL},
    {"from", NULL},
    {"autoescape", NULL},
};

static int parse_statement(tm_parser *p, tm_node **out) {
    const tm_token *t = p->tok;
    if (t->kind != TM_T_NAME) return tni_tm_syntax(p, t->line, "expected a tag's name after '{%%'");
    TM_TRY(tni_tm_node(p, TM_N_BODY, t->line, out));
    if (++p->depth > TM_MAX_TREE)
        return tni_tm_syntax(p, t->line, "more than %d levels of nesting", TM_MAX_TREE);
    for (size_t i = 0; i < sizeof parse_tags / sizeof *parse_tags; i++) {
        if (!parse_is(t->text, parse_tags[i].name)) continue;
        if (!parse_tags[i].parse)
            return tni_tm_syntax(p, t->line, "the tag '%s' is not supported", parse_tags[i].name);
        TM_TRY(parse_tags[i].parse(p, out));
        p->depth--;
        return tni_tm_expect(p, TM_T_BLOCK_END, "'%}'");
    }
    return tni_tm_syntax(p, t->line, "unknown tag %s", tni_tm_token_name(t));
}

static bool parse_at_end(const tm_parser *p, const char *const *ends) {
    for (; ends && *ends; ends++)
        if (tni_tm_at_name(p, *ends)) return true;
    return false;
}

/* One piece of a body; *done when it was one of the end tags. */
static int parse_piece(tm_parser *p, const char *const *ends, tm_node **out, bool *done) {
    const tm_token *t = p->tok++;
    *out = NULL;
    if (t->kind == TM_T_DATA) {
        TM_TRY(tni_tm_node(p, TM_N_TEXT, t->line, out));
        return tni_tm_const_string(p, t->text, &(*out)->value);
    }
    if (t->kind == TM_T_VAR_BEGIN) {
        tm_node *part;
        TM_TRY(tni_tm_node(p, TM_N_OUTPUT, t->line, out));
        TM_TRY(tni_tm_parse_tuple(p, 0, &part));
        TM_TRY(parse_own(p, *out, &(*out)->a, part));
        return tni_tm_expect(p, TM_T_VAR_END, "'}}'");
    }
    *done = parse_at_end(p, ends);
    return *done ? 0 : parse_statement(p, out);
}

static int parse_body(tm_parser *p, const char *const *ends, tm_node **out) {
    tm_kids k = {0};
    bool done = false;
    TM_TRY(tni_tm_node(p, TM_N_BODY, p->tok->line, out));
    int status = 0;
    while (!status && !done && p->tok->kind != TM_T_EOF) {
        tm_node *piece;
        status = parse_piece(p, ends, &piece, &done);
        if (!status && piece) status = tni_tm_kid(p, &k, *out, piece);
    }
    if (!status && ends && !done)
        status =
            tni_tm_syntax(p, (*out)->line, "the tag '%s' that belongs to this one is missing",
                          ends[0][0] == 'e' && ends[1] ? ends[2] ? ends[2] : ends[1] : ends[0]);
    return tni_tm_kids_done(p, &k, *out, status);
}

/* ---- a template ---- */

void tni_template_free(tni_template *t) {
    if (!t) return;
    tni_tm_arena_free(&t->arena);
    tni_free(t->name);
    tni_free(t);
}

static int parse_special_names(tm_parser *p) {
    static const char *const names[] = {"loop", "caller", "kwargs", "varargs"};
    int32_t *const ids[] = {&p->t->loop, &p->t->caller, &p->t->kwargs, &p->t->varargs};
    for (int i = 0; i < 4; i++)
        TM_TRY(tni_tm_name_id(p, (tni_bytes){names[i], strlen(names[i])}, ids[i]));
    return 0;
}

static int parse_whole(tm_parser *p) {
    TM_TRY(parse_special_names(p));
    TM_TRY(parse_body(p, NULL, &p->t->body));
    if (p->unknown) {
        const tm_node *u = p->unknown;
        return tni_tm_syntax(p, u->line, "there is no %s '%.*s'",
                             u->kind == TM_N_FILTER ? "filter" : "test",
                             u->value.s->n < 60 ? (int)u->value.s->n : 60, u->value.s->s);
    }
    p->t->names = tni_tm_alloc(&p->t->arena, (p->n_names + 1) * sizeof *p->names);
    if (!p->t->names) return p->t->arena.status;
    memcpy(p->t->names, p->names, p->n_names * sizeof *p->names);
    p->t->n_names = (int32_t)p->n_names;
    return tni_tm_hide_names(p->t);
}

static int parse_template(tni_template *t, const char *text, size_t n) {
    tm_parser p = {.t = t};
    tm_token *tokens = NULL;
    size_t n_tokens;
    int status = tni_tm_lex(&t->arena, t->name, text, n, &tokens, &n_tokens);
    p.tok = tokens;
    if (!status) status = parse_whole(&p);
    tni_free(tokens);
    tni_map_free(&p.ids);
    tni_free(p.names);
    return status;
}

int tni_template_parse(const char *text, size_t n, const char *name, tni_template **out) {
    *out = NULL;
    if (n > TM_MAX_TEXT)
        return tni_fail(TN_EFORMAT, "%s: %zu bytes, more than the limit of %d for a template", name,
                        n, TM_MAX_TEXT);
    tni_template *t = tni_calloc(1, sizeof *t);
    if (!t) return tni_fail_memory(sizeof *t, "a template");
    t->arena.limit = (size_t)TM_MAX_TEXT * 256;
    t->name = tni_strdup(name);
    int status = t->name ? parse_template(t, text, n) : tni_fail_memory(strlen(name), "a template");
    if (status)
        tni_template_free(t);
    else
        *out = t;
    return status;
}
