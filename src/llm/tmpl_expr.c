/* Expressions to syntax trees, with the precedences of jinja2's parser.py: inline if, or,
 * and, not, comparisons, + -, ~, * / // %, **, unary signs, postfixes, filters and tests. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tmpl.h"
#include <string.h>

static int expr_or(tm_parser *p, tm_node **out);
static int expr_unary(tm_parser *p, bool with_filter, tm_node **out);
static int expr_primary(tm_parser *p, int flags, tm_node **out);

static int expr_enter(tm_parser *p) {
    if (++p->depth > TM_MAX_TREE)
        return tni_tm_syntax(p, p->tok->line, "more than %d levels of nesting", TM_MAX_TREE);
    return 0;
}

static int expr_new(tm_parser *p, tm_node_kind kind, tm_node *a, tm_node *b, tm_node **out) {
    TM_TRY(tni_tm_node(p, kind, a ? a->line : p->tok->line, out));
    (*out)->a = a, (*out)->b = b;
    if (a) TM_TRY(tni_tm_adopt(p, *out, a));
    return b ? tni_tm_adopt(p, *out, b) : 0;
}

static bool expr_skip_name(tm_parser *p, const char *name) {
    bool is = tni_tm_at_name(p, name);
    p->tok += is;
    return is;
}

static int expr_unexpected(tm_parser *p) {
    return tni_tm_syntax(p, p->tok->line, "unexpected %s", tni_tm_token_name(p->tok));
}

/* ---- operators ---- */

/* A level of left-associative operators between operands read by `next`. */
typedef struct expr_level {
    uint8_t first, last; /* tokens */
    uint8_t op;          /* tm_op of the first token */
    int (*next)(tm_parser *p, tm_node **out);
} expr_level;

static int expr_binary(tm_parser *p, const expr_level *l, tm_node **out) {
    TM_TRY(l->next(p, out));
    while (p->tok->kind >= l->first && p->tok->kind <= l->last) {
        tm_op op = (tm_op)(l->op + p->tok++->kind - l->first);
        tm_node *right;
        TM_TRY(l->next(p, &right));
        TM_TRY(expr_new(p, TM_N_BIN, *out, right, out));
        (*out)->op = (uint8_t)op;
    }
    return 0;
}

static int expr_signed(tm_parser *p, tm_node **out) { return expr_unary(p, true, out); }

static int expr_pow(tm_parser *p, tm_node **out) {
    static const expr_level l = {TM_T_POW, TM_T_POW, TM_POW, expr_signed};
    return expr_binary(p, &l, out);
}

static int expr_math2(tm_parser *p, tm_node **out) {
    static const expr_level l = {TM_T_MUL, TM_T_MOD, TM_MUL, expr_pow};
    return expr_binary(p, &l, out);
}

static int expr_concat(tm_parser *p, tm_node **out) {
    TM_TRY(expr_math2(p, out));
    if (p->tok->kind != TM_T_TILDE) return 0;
    tm_node *all, *part = *out;
    tm_kids k = {0};
    TM_TRY(tni_tm_node(p, TM_N_CONCAT, part->line, &all));
    int status = tni_tm_kid(p, &k, all, part);
    while (!status && tni_tm_skip(p, TM_T_TILDE)) {
        status = expr_math2(p, &part);
        if (!status) status = tni_tm_kid(p, &k, all, part);
    }
    *out = all;
    return tni_tm_kids_done(p, &k, all, status);
}

static int expr_math1(tm_parser *p, tm_node **out) {
    static const expr_level l = {TM_T_ADD, TM_T_SUB, TM_ADD, expr_concat};
    return expr_binary(p, &l, out);
}

/* The comparison at the current token, or false. */
static bool expr_comparison(tm_parser *p, uint8_t *op) {
    if (p->tok->kind >= TM_T_EQ && p->tok->kind <= TM_T_GE) {
        *op = (uint8_t)(TM_EQ + p->tok->kind - TM_T_EQ);
        p->tok++;
        return true;
    }
    *op = TM_IN;
    if (expr_skip_name(p, "in")) return true;
    if (!tni_tm_at_name(p, "not")) return false;
    p->tok++;
    *op = TM_NOTIN;
    if (expr_skip_name(p, "in")) return true;
    p->tok--;
    return false;
}

static int expr_compare(tm_parser *p, tm_node **out) {
    TM_TRY(expr_math1(p, out));
    tm_kids k = {0};
    tm_node *all = NULL;
    uint8_t op;
    int status = 0;
    while (!status && expr_comparison(p, &op)) {
        tm_node *operand, *right;
        if (!all) status = expr_new(p, TM_N_COMPARE, *out, NULL, &all);
        if (!status) status = expr_math1(p, &right);
        if (!status) status = expr_new(p, TM_N_OPERAND, right, NULL, &operand);
        if (!status) operand->op = op, status = tni_tm_kid(p, &k, all, operand);
    }
    if (!all) return status;
    *out = all;
    return tni_tm_kids_done(p, &k, all, status);
}

static int expr_not(tm_parser *p, tm_node **out) {
    if (!expr_skip_name(p, "not")) return expr_compare(p, out);
    TM_TRY(expr_enter(p));
    tm_node *of;
    TM_TRY(expr_not(p, &of));
    p->depth--;
    return expr_new(p, TM_N_NOT, of, NULL, out);
}

static int expr_and(tm_parser *p, tm_node **out) {
    TM_TRY(expr_not(p, out));
    while (expr_skip_name(p, "and")) {
        tm_node *right;
        TM_TRY(expr_not(p, &right));
        TM_TRY(expr_new(p, TM_N_AND, *out, right, out));
    }
    return 0;
}

static int expr_or(tm_parser *p, tm_node **out) {
    TM_TRY(expr_and(p, out));
    while (expr_skip_name(p, "or")) {
        tm_node *right;
        TM_TRY(expr_and(p, &right));
        TM_TRY(expr_new(p, TM_N_OR, *out, right, out));
    }
    return 0;
}

/* Filters that do not exist are no error of the template inside an inline if, before
 * which a part of it was read: what was noted there is forgotten again. */
static int expr_cond(tm_parser *p, tm_node **out) {
    const tm_node *unknown = p->unknown;
    TM_TRY(expr_or(p, out));
    while (expr_skip_name(p, "if")) {
        tm_node *test, *then = *out, *other = NULL;
        TM_TRY(expr_or(p, &test));
        if (expr_skip_name(p, "else")) TM_TRY(tni_tm_parse_expr(p, 0, &other));
        TM_TRY(expr_new(p, TM_N_COND, test, then, out));
        (*out)->c = other;
        if (other) TM_TRY(tni_tm_adopt(p, *out, other));
        p->unknown = unknown;
    }
    return 0;
}

int tni_tm_parse_expr(tm_parser *p, int flags, tm_node **out) {
    TM_TRY(expr_enter(p));
    TM_TRY(flags & TM_P_NOCOND ? expr_or(p, out) : expr_cond(p, out));
    p->depth--;
    return 0;
}

/* ---- primaries ---- */

static bool expr_tuple_end(const tm_parser *p, int flags) {
    uint8_t k = p->tok->kind;
    return k == TM_T_VAR_END || k == TM_T_BLOCK_END || k == TM_T_RPAREN ||
           (flags & TM_P_FOR_TARGET && tni_tm_at_name(p, "in")) ||
           (flags & TM_P_RECURSIVE && tni_tm_at_name(p, "recursive"));
}

/* One expression, or a tuple when there are commas. */
int tni_tm_parse_tuple(tm_parser *p, int flags, tm_node **out) {
    tm_node *all, *part = NULL;
    tm_kids k = {0};
    bool comma = false;
    TM_TRY(tni_tm_node(p, TM_N_TUPLE, p->tok->line, &all));
    int status = expr_enter(p);
    while (!status && !expr_tuple_end(p, flags)) {
        status = flags & TM_P_SIMPLE ? expr_primary(p, flags, &part)
                                     : tni_tm_parse_expr(p, flags, &part);
        if (!status) status = tni_tm_kid(p, &k, all, part);
        if (status || !tni_tm_skip(p, TM_T_COMMA)) break;
        comma = true;
    }
    p->depth--;
    bool alone = !comma && k.n;
    if (!status && !comma && !k.n && !(flags & TM_P_PAREN)) status = expr_unexpected(p);
    status = tni_tm_kids_done(p, &k, all, status);
    *out = alone ? part : all;
    return status;
}

static int expr_list(tm_parser *p, tm_node **out) {
    tm_kids k = {0};
    tm_node *item;
    TM_TRY(tni_tm_node(p, TM_N_LIST, p->tok->line, out));
    p->tok++;
    int status = 0;
    while (!status && p->tok->kind != TM_T_RBRACKET) {
        if (k.n) status = tni_tm_expect(p, TM_T_COMMA, "','");
        if (!status && p->tok->kind == TM_T_RBRACKET) break;
        if (!status) status = tni_tm_parse_expr(p, 0, &item);
        if (!status) status = tni_tm_kid(p, &k, *out, item);
    }
    p->tok += !status;
    return tni_tm_kids_done(p, &k, *out, status);
}

static int expr_dict(tm_parser *p, tm_node **out) {
    tm_kids k = {0};
    tm_node *item;
    TM_TRY(tni_tm_node(p, TM_N_DICT, p->tok->line, out));
    p->tok++;
    int status = 0;
    while (!status && p->tok->kind != TM_T_RBRACE) {
        if (k.n) status = tni_tm_expect(p, TM_T_COMMA, "','");
        if (!status && p->tok->kind == TM_T_RBRACE) break;
        if (!status) status = tni_tm_parse_expr(p, 0, &item);
        if (!status) status = tni_tm_kid(p, &k, *out, item);
        if (!status) status = tni_tm_expect(p, TM_T_COLON, "':'");
        if (!status) status = tni_tm_parse_expr(p, 0, &item);
        if (!status) status = tni_tm_kid(p, &k, *out, item);
    }
    p->tok += !status;
    return tni_tm_kids_done(p, &k, *out, status);
}

static bool expr_constant(tni_bytes name, tm_val *v) {
    static const struct {
        char name[6];
        int value; /* 2: none */
    } words[] = {{"true", 1}, {"True", 1}, {"false", 0}, {"False", 0}, {"none", 2}, {"None", 2}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i].name) == name.n && !memcmp(words[i].name, name.s, name.n)) {
            *v = words[i].value == 2 ? tm_none() : tm_bool(words[i].value);
            return true;
        }
    return false;
}

static void expr_note_use(tm_parser *p, int32_t id) {
    p->uses |=
        (uint8_t)((id == p->t->kwargs) | (id == p->t->varargs) << 1 | (id == p->t->caller) << 2);
}

static int expr_name(tm_parser *p, int flags, tm_node **out) {
    const tm_token *t = p->tok++;
    TM_TRY(tni_tm_node(p, TM_N_NAME, t->line, out));
    if (expr_constant(t->text, &(*out)->value)) {
        (*out)->kind = TM_N_CONST;
        return 0;
    }
    TM_TRY(tni_tm_name_id(p, t->text, &(*out)->name));
    expr_note_use(p, (*out)->name);
    if (!(flags & TM_P_NSREF) || !tni_tm_skip(p, TM_T_DOT)) return 0;
    (*out)->kind = TM_N_NSREF;
    tni_bytes attr = p->tok->text;
    TM_TRY(tni_tm_expect(p, TM_T_NAME, "a name"));
    return tni_tm_const_string(p, attr, &(*out)->value);
}

/* Strings that stand side by side are one. */
static int expr_strings(tm_parser *p, tm_node **out) {
    tni_str all = {0};
    TM_TRY(tni_tm_node(p, TM_N_CONST, p->tok->line, out));
    int status = 0;
    for (; !status && p->tok->kind == TM_T_STRING; p->tok++)
        if (tni_str_append(&all, p->tok->text.s, p->tok->text.n))
            status = tni_fail_memory(p->tok->text.n, "a template's string");
    if (!status)
        status = tni_tm_const_string(p, (tni_bytes){all.v ? all.v : "", all.n}, &(*out)->value);
    tni_str_free(&all);
    return status;
}

static int expr_primary(tm_parser *p, int flags, tm_node **out) {
    switch (p->tok->kind) {
    case TM_T_NAME:
        return expr_name(p, flags, out);
    case TM_T_STRING:
        return expr_strings(p, out);
    case TM_T_INT:
    case TM_T_FLOAT:
        TM_TRY(tni_tm_node(p, TM_N_CONST, p->tok->line, out));
        (*out)->value = p->tok->kind == TM_T_INT ? tm_int(p->tok->i) : tm_float(p->tok->f);
        p->tok++;
        return 0;
    case TM_T_LPAREN:
        p->tok++;
        TM_TRY(tni_tm_parse_tuple(p, TM_P_PAREN, out));
        return tni_tm_expect(p, TM_T_RPAREN, "')'");
    case TM_T_LBRACKET:
        return expr_list(p, out);
    case TM_T_LBRACE:
        return expr_dict(p, out);
    default:
        return expr_unexpected(p);
    }
}

/* ---- postfixes ---- */

static int expr_dot(tm_parser *p, tm_node **node) {
    const tm_token *t = p->tok;
    if (t->kind == TM_T_NAME) {
        p->tok++;
        TM_TRY(expr_new(p, TM_N_ATTR, *node, NULL, node));
        return tni_tm_const_string(p, t->text, &(*node)->value);
    }
    tm_node *index;
    if (t->kind != TM_T_INT)
        return tni_tm_syntax(p, t->line, "expected a name or a number after '.'");
    TM_TRY(expr_primary(p, 0, &index));
    return expr_new(p, TM_N_ITEM, *node, index, node);
}

/* One of a slice's three parts, NULL when it is left out. */
static int expr_bound(tm_parser *p, tm_node **out) {
    *out = NULL;
    uint8_t k = p->tok->kind;
    return k == TM_T_COLON || k == TM_T_RBRACKET ? 0 : tni_tm_parse_expr(p, 0, out);
}

static int expr_subscript(tm_parser *p, tm_node **node) {
    tm_node *part[3] = {0}, *of = *node;
    int32_t n = 1;
    TM_TRY(expr_bound(p, &part[0]));
    for (; n < 3 && tni_tm_skip(p, TM_T_COLON); n++) TM_TRY(expr_bound(p, &part[n]));
    if (p->tok->kind == TM_T_COMMA)
        return tni_tm_syntax(p, p->tok->line, "more than one subscript is not supported");
    if (n == 1 && !part[0]) return expr_unexpected(p);
    TM_TRY(tni_tm_expect(p, TM_T_RBRACKET, "']'"));
    if (n == 1) return expr_new(p, TM_N_ITEM, of, part[0], node);
    TM_TRY(expr_new(p, TM_N_SLICE, of, NULL, node));
    tm_kids k = {0};
    int status = 0;
    for (int i = 0; i < 3 && !status; i++) status = tni_tm_kid(p, &k, *node, part[i]);
    return tni_tm_kids_done(p, &k, *node, status);
}

static int expr_postfix(tm_parser *p, tm_node **node) {
    for (;;) {
        if (tni_tm_skip(p, TM_T_DOT))
            TM_TRY(expr_dot(p, node));
        else if (tni_tm_skip(p, TM_T_LBRACKET))
            TM_TRY(expr_subscript(p, node));
        else if (p->tok->kind == TM_T_LPAREN)
            TM_TRY(tni_tm_parse_call(p, *node, node));
        else
            return 0;
    }
}

/* ---- calls ---- */

typedef struct expr_args {
    tm_kids pos, kw;
    const tm_string *names[TM_MAX_ARGS];
    tm_node *star, *kwstar;
} expr_args;

static int expr_star(tm_parser *p, tm_node *node, tm_node **slot, bool bad) {
    if (bad) return tni_tm_syntax(p, p->tok->line, "these arguments are in the wrong order");
    p->tok++;
    TM_TRY(tni_tm_parse_expr(p, 0, slot));
    return tni_tm_adopt(p, node, *slot);
}

static int expr_arg(tm_parser *p, tm_node *node, expr_args *a) {
    tm_node *v;
    if (p->tok->kind == TM_T_MUL) return expr_star(p, node, &a->star, a->star || a->kwstar);
    if (p->tok->kind == TM_T_POW) return expr_star(p, node, &a->kwstar, a->kwstar);
    bool named = p->tok->kind == TM_T_NAME && p->tok[1].kind == TM_T_ASSIGN;
    if (a->kwstar || (!named && (a->star || a->kw.n)))
        return tni_tm_syntax(p, p->tok->line, "these arguments are in the wrong order");
    if (a->pos.n + a->kw.n >= TM_MAX_ARGS)
        return tni_tm_syntax(p, p->tok->line, "more than %d arguments", TM_MAX_ARGS);
    if (named) {
        tm_val name;
        TM_TRY(tni_tm_const_string(p, p->tok->text, &name));
        a->names[a->kw.n] = name.s;
        p->tok += 2;
    }
    TM_TRY(tni_tm_parse_expr(p, 0, &v));
    return tni_tm_kid(p, named ? &a->kw : &a->pos, node, v);
}

/* Moves the lists into the arena. */
static int expr_args_done(tm_parser *p, tm_node *node, expr_args *a) {
    size_t n = a->pos.n + a->kw.n;
    tm_args *out = tni_tm_alloc(&p->t->arena, sizeof *out);
    if (!out) return p->t->arena.status;
    *out = (tm_args){
        .n_pos = (int32_t)a->pos.n, .n_kw = (int32_t)a->kw.n, .star = a->star, .kwstar = a->kwstar};
    out->v = tni_tm_alloc(&p->t->arena, (n + 1) * sizeof *out->v);
    out->names = tni_tm_alloc(&p->t->arena, (a->kw.n + 1) * sizeof *out->names);
    if (!out->v || !out->names) return p->t->arena.status;
    for (size_t i = 0; i < n; i++) out->v[i] = i < a->pos.n ? a->pos.v[i] : a->kw.v[i - a->pos.n];
    for (size_t i = 0; i < a->kw.n; i++) out->names[i] = a->names[i];
    node->args = out;
    return 0;
}

/* "(a, b=c, *d, **e)" into node->args; without a parenthesis there are none. */
static int expr_call_args(tm_parser *p, tm_node *node) {
    expr_args a = {0};
    int status = 0;
    if (tni_tm_skip(p, TM_T_LPAREN)) {
        while (!status && p->tok->kind != TM_T_RPAREN) {
            status = expr_arg(p, node, &a);
            if (!status && p->tok->kind != TM_T_RPAREN)
                status = tni_tm_expect(p, TM_T_COMMA, "',' or ')'");
        }
        p->tok += !status;
    }
    if (!status) status = expr_args_done(p, node, &a);
    tni_free(a.pos.v), tni_free(a.kw.v);
    return status;
}

int tni_tm_parse_call(tm_parser *p, tm_node *of, tm_node **out) {
    TM_TRY(expr_new(p, TM_N_CALL, of, NULL, out));
    return expr_call_args(p, *out);
}

/* ---- filters and tests ---- */

/* A name that may hold dots; its number in the table, and a note when there is none. */
static int expr_table_name(tm_parser *p, tm_node *node) {
    tni_bytes name = p->tok->text;
    TM_TRY(tni_tm_expect(p, TM_T_NAME, "a name"));
    if (p->tok->kind == TM_T_DOT)
        return tni_tm_syntax(p, p->tok->line,
                             "names of filters and tests with dots are not supported");
    node->index = node->kind == TM_N_FILTER ? tni_tm_filter_index(name) : tni_tm_test_index(name);
    TM_TRY(tni_tm_const_string(p, name, &node->value));
    if (node->index < 0 && !p->soft && !p->unknown) p->unknown = node;
    return 0;
}

int tni_tm_parse_filters(tm_parser *p, tm_node *of, bool inline_first, tm_node **out) {
    *out = of;
    while (inline_first || p->tok->kind == TM_T_PIPE) {
        p->tok += !inline_first;
        inline_first = false;
        TM_TRY(expr_new(p, TM_N_FILTER, *out, NULL, out));
        TM_TRY(expr_table_name(p, *out));
        TM_TRY(expr_call_args(p, *out));
    }
    return 0;
}

static bool expr_test_operand(const tm_parser *p) {
    uint8_t k = p->tok->kind;
    if (k == TM_T_NAME)
        return !tni_tm_at_name(p, "else") && !tni_tm_at_name(p, "or") && !tni_tm_at_name(p, "and");
    return k == TM_T_STRING || k == TM_T_INT || k == TM_T_FLOAT || k == TM_T_LBRACKET ||
           k == TM_T_LBRACE;
}

/* "is divisibleby 3": the operand without parentheses. */
static int expr_test_arg(tm_parser *p, tm_node *node) {
    expr_args a = {0};
    tm_node *v;
    if (tni_tm_at_name(p, "is"))
        return tni_tm_syntax(p, p->tok->line, "tests cannot be chained with 'is'");
    TM_TRY(expr_primary(p, 0, &v));
    TM_TRY(expr_postfix(p, &v));
    int status = tni_tm_kid(p, &a.pos, node, v);
    if (!status) status = expr_args_done(p, node, &a);
    tni_free(a.pos.v);
    return status;
}

static int expr_test(tm_parser *p, tm_node **node) {
    p->tok++;
    bool negated = expr_skip_name(p, "not");
    TM_TRY(expr_new(p, TM_N_TEST, *node, NULL, node));
    TM_TRY(expr_table_name(p, *node));
    TM_TRY(p->tok->kind != TM_T_LPAREN && expr_test_operand(p) ? expr_test_arg(p, *node)
                                                               : expr_call_args(p, *node));
    return negated ? expr_new(p, TM_N_NOT, *node, NULL, node) : 0;
}

static int expr_filters(tm_parser *p, tm_node **node) {
    for (;;) {
        if (p->tok->kind == TM_T_PIPE)
            TM_TRY(tni_tm_parse_filters(p, *node, false, node));
        else if (tni_tm_at_name(p, "is"))
            TM_TRY(expr_test(p, node));
        else if (p->tok->kind == TM_T_LPAREN)
            TM_TRY(tni_tm_parse_call(p, *node, node));
        else
            return 0;
    }
}

static int expr_unary(tm_parser *p, bool with_filter, tm_node **out) {
    uint8_t k = p->tok->kind;
    if (k == TM_T_SUB || k == TM_T_ADD) {
        tm_node *of;
        p->tok++;
        TM_TRY(expr_enter(p));
        TM_TRY(expr_unary(p, false, &of));
        p->depth--;
        TM_TRY(expr_new(p, k == TM_T_SUB ? TM_N_NEG : TM_N_POS, of, NULL, out));
    } else {
        TM_TRY(expr_primary(p, 0, out));
    }
    TM_TRY(expr_postfix(p, out));
    return with_filter ? expr_filters(p, out) : 0;
}

/* ---- targets of assignments ---- */

static int expr_assignable(tm_parser *p, const tm_node *n) {
    if (n->kind == TM_N_TUPLE) {
        for (int32_t i = 0; i < n->n; i++) TM_TRY(expr_assignable(p, n->v[i]));
        return 0;
    }
    if (n->kind == TM_N_NSREF) return 0;
    if (n->kind != TM_N_NAME) return tni_tm_syntax(p, n->line, "this cannot be assigned to");
    if (n->name == p->t->loop && p->for_depth)
        return tni_tm_syntax(p, n->line, "'loop' cannot be set inside a loop");
    return 0;
}

int tni_tm_parse_target(tm_parser *p, int flags, tm_node **out) {
    TM_TRY(tni_tm_parse_tuple(p, flags | TM_P_SIMPLE, out));
    return expr_assignable(p, *out);
}
