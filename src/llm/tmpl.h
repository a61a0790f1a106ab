/* Inside of the template interpreter: what its files share.
 *   tmpl_lex.c    text to tokens          tmpl_value.c   arena, strings, lists, dicts
 *   tmpl_parse.c  statements              tmpl_ops.c     operators, attributes, slices
 *   tmpl_expr.c   expressions             tmpl_text.c    str(), repr(), Unicode
 *   tmpl_json.c   JSON in and out         tmpl_iter.c    iterables
 *   tmpl_names.c  which names are hidden  tmpl_string.c  strip, split, replace, join
 *   tmpl_eval.c   expressions' values     tmpl_filter.c, tmpl_seq.c, tmpl_test.c,
 *   tmpl_run.c    statements, macros      tmpl_method.c, tmpl_func.c, tmpl_format.c
 *
 * All memory of a parsed template is one arena, all memory of one rendering another: values
 * are never freed one by one, and are plain structs copied by value. Strings, lists and
 * dicts do not change after they are made (the sandbox forbids it in Jinja too); only
 * namespaces do. Integers are 64 bits wide; an overflow is an error. */
#ifndef TNI_LLM_TMPL_H
#define TNI_LLM_TMPL_H

#include "base/hash.h"
#include "llm/template.h"

enum {
    TM_MAX_TEXT = 4 << 20,    /* bytes of a template */
    TM_MAX_TREE = 300,        /* depth of the syntax tree, and of the parser */
    TM_MAX_DEPTH = 700,       /* depth of evaluation; a level takes about 0.5 KiB of stack */
    TM_MAX_NEST = 200,        /* depth of values, in JSON, comparisons and printing */
    TM_MAX_RANGE = 100000,    /* as jinja2's sandbox */
    TM_MAX_OUTPUT = 64 << 20, /* default of max_output; also of any one string */
    TM_MAX_STEPS = 100000000, /* default of max_steps */
    TM_MAX_MEMORY = 1 << 30,  /* of one rendering */
    TM_MAX_ARGS = 64          /* parameters of one macro, arguments of one call */
};

/* ---- memory ---- */

typedef struct tm_arena {
    struct tm_chunk *chunks;
    char *at, *end;
    size_t used, limit;
    int status; /* why the last tni_tm_alloc returned NULL */
} tm_arena;

void *tni_tm_alloc(tm_arena *a, size_t size); /* zeroed; NULL: a->status, error set */
void tni_tm_arena_free(tm_arena *a);

/* ---- values ---- */

typedef enum tm_kind {
    TM_MISSING, /* no value at all: an absent argument, a variable nobody set */
    TM_UNDEF,
    TM_NONE,
    TM_BOOL,
    TM_INT,
    TM_FLOAT,
    TM_STR,
    TM_LIST,
    TM_TUPLE,
    TM_DICT,
    TM_NS, /* namespace: a dict whose attributes can be set */
    TM_RANGE,
    TM_VIEW, /* dict.items(), keys(), values() */
    TM_ITER, /* what Python calls a generator: can be run through once */
    TM_MACRO,
    TM_METHOD, /* of a value */
    TM_FUNC,   /* of the environment */
    TM_LOOP,
    TM_JOINER,
    TM_CYCLER
} tm_kind;

/* Room that strings share, so that x = x + y in a loop does not copy x each time: the
 * string that ends where the used part ends may grow in place. */
typedef struct tm_buf {
    char *s;
    uint8_t *m;
    size_t n, cap;
} tm_buf;

typedef struct tm_string {
    const char *s;
    const uint8_t *m; /* one mark for each byte: 1, from a message */
    size_t n;
    int64_t chars; /* code points; -1: not counted yet */
    tm_buf *buf;   /* NULL: cannot grow */
    bool safe;     /* markupsafe.Markup: escapes what is joined to it */
} tm_string;

typedef struct tm_val {
    uint8_t kind;
    union {
        bool b;
        int64_t i;
        double f;
        const tm_string *s;
        const struct tm_list *l;
        struct tm_dict *d;
        const struct tm_range *range;
        const struct tm_view *view;
        struct tm_iter *it;
        const struct tm_macro *macro;
        const struct tm_bound *bound;
        const struct tm_func *fn;
        struct tm_loop *loop;
        const struct tm_undef *undef;
        struct tm_cycle *cycle;
    };
} tm_val;

typedef struct tm_list {
    tm_val *v;
    size_t n, cap;
    bool group; /* a pair of groupby: also .grouper and .list */
} tm_list;

typedef struct tm_entry {
    tm_val key, value;
} tm_entry;

typedef struct tm_dict {
    tm_entry *e;
    size_t n, cap;
    uint32_t *index; /* open addressing, entry + 1; NULL while the dict is small */
    size_t slots;
} tm_dict;

typedef struct tm_range {
    int64_t start, step, n;
} tm_range;

typedef struct tm_view {
    const tm_dict *d;
    char what; /* 'i' items, 'k' keys, 'v' values */
} tm_view;

/* Why a value is undefined: a hint, or the name that `type` (NULL: no object) lacks. */
typedef struct tm_undef {
    const char *hint, *type;
    tm_val name;
} tm_undef;

typedef struct tm_macro {
    const struct tm_node *node;
    struct tm_scope *scope; /* where it was defined */
    tm_val caller;
} tm_macro;

typedef struct tm_bound {
    tm_val self;
    const struct tm_method *method;
} tm_bound;

typedef struct tm_cycle { /* of joiner and cycler */
    const tm_list *items;
    size_t at;
} tm_cycle;

static inline tm_val tm_none(void) { return (tm_val){.kind = TM_NONE}; }
static inline tm_val tm_missing(void) { return (tm_val){.kind = TM_MISSING}; }
static inline tm_val tm_bool(bool b) { return (tm_val){.kind = TM_BOOL, .b = b}; }
static inline tm_val tm_int(int64_t i) { return (tm_val){.kind = TM_INT, .i = i}; }
static inline tm_val tm_float(double f) { return (tm_val){.kind = TM_FLOAT, .f = f}; }
static inline tm_val tm_str(const tm_string *s) { return (tm_val){.kind = TM_STR, .s = s}; }
static inline tm_val tm_listv(const tm_list *l) { return (tm_val){.kind = TM_LIST, .l = l}; }
static inline tm_val tm_tuple(const tm_list *l) { return (tm_val){.kind = TM_TUPLE, .l = l}; }
static inline tm_val tm_dictv(tm_dict *d) { return (tm_val){.kind = TM_DICT, .d = d}; }
static inline bool tm_is_number(tm_val v) { return v.kind >= TM_BOOL && v.kind <= TM_FLOAT; }
static inline bool tm_is_int(tm_val v) { return v.kind == TM_BOOL || v.kind == TM_INT; }
static inline int64_t tm_to_int(tm_val v) { return v.kind == TM_BOOL ? v.b : v.i; }

/* ---- the syntax tree ---- */

typedef enum tm_op {
    TM_ADD,
    TM_SUB,
    TM_MUL,
    TM_DIV,
    TM_FLOORDIV,
    TM_MOD,
    TM_POW,
    TM_EQ,
    TM_NE,
    TM_LT,
    TM_LE,
    TM_GT,
    TM_GE,
    TM_IN,
    TM_NOTIN
} tm_op;

typedef enum tm_node_kind {
    /* expressions */
    TM_N_CONST,  /* value */
    TM_N_NAME,   /* name */
    TM_N_NSREF,  /* name, value: the attribute */
    TM_N_TUPLE,  /* v */
    TM_N_LIST,   /* v */
    TM_N_DICT,   /* v: key, value, key, value ... */
    TM_N_ATTR,   /* a, value */
    TM_N_ITEM,   /* a, b */
    TM_N_SLICE,  /* a, v[3], each may be NULL */
    TM_N_CALL,   /* a, args */
    TM_N_FILTER, /* a (NULL: the text of the block), args, index into the table */
    TM_N_TEST,   /* a, args, index */
    TM_N_NOT,
    TM_N_NEG,
    TM_N_POS,    /* a */
    TM_N_BIN,    /* op, a, b */
    TM_N_CONCAT, /* v */
    TM_N_AND,
    TM_N_OR,      /* a, b */
    TM_N_COMPARE, /* a, v of TM_N_OPERAND */
    TM_N_OPERAND, /* op, a */
    TM_N_COND,    /* a: test, b, c or NULL */
    /* statements */
    TM_N_TEXT,        /* value */
    TM_N_OUTPUT,      /* a */
    TM_N_BODY,        /* v */
    TM_N_IF,          /* v: test, body, test, body ...; c: else or NULL */
    TM_N_FOR,         /* a: target, b: iterable, c: test or NULL, v: body, else or NULL */
    TM_N_SET,         /* a: target, b */
    TM_N_SETBLOCK,    /* a: target, b: filters or NULL, c: body */
    TM_N_MACRO,       /* name, v: names and defaults or NULL, c: body */
    TM_N_CALLBLOCK,   /* a: the call, b: an anonymous macro */
    TM_N_FILTERBLOCK, /* b: filters, c: body */
    TM_N_WITH,        /* v: target, value ...; c: body */
    TM_N_SCOPE,       /* c: body (the generation tag) */
    TM_N_BREAK,
    TM_N_CONTINUE
} tm_node_kind;

/* Arguments of a call, filter or test: v holds the positional ones, then the values of the
 * named ones, whose names stand in `names`; star and kwstar are *x and **x or NULL. */
typedef struct tm_args {
    struct tm_node **v;
    int32_t n_pos, n_kw;
    const tm_string **names;
    struct tm_node *star, *kwstar;
} tm_args;

typedef struct tm_node {
    uint8_t kind, op; /* macro: op holds tm_parser.uses */
    bool flag;        /* for: recursive */
    uint16_t depth;
    int32_t line, name, index, n;
    struct tm_node *a, *b, *c, **v;
    tm_args *args;
    tm_val value;
    int32_t *hide; /* of a frame's body: names it does not see from outside */
    int32_t n_hide;
} tm_node;

struct tni_template {
    tm_arena arena;
    char *name;
    tm_node *body;
    tni_bytes *names; /* of variables; a name's number is its place here */
    int32_t n_names;
    int32_t loop, caller, kwargs, varargs; /* numbers of these */
};

/* ---- tokens ---- */

typedef enum tm_token_kind {
    TM_T_EOF,
    TM_T_DATA,
    TM_T_VAR_BEGIN,
    TM_T_VAR_END,
    TM_T_BLOCK_BEGIN,
    TM_T_BLOCK_END,
    TM_T_NAME,
    TM_T_STRING,
    TM_T_INT,
    TM_T_FLOAT,
    TM_T_ADD,
    TM_T_SUB,
    TM_T_MUL,
    TM_T_DIV,
    TM_T_FLOORDIV,
    TM_T_MOD,
    TM_T_POW,
    TM_T_TILDE,
    TM_T_EQ,
    TM_T_NE,
    TM_T_LT,
    TM_T_LE,
    TM_T_GT,
    TM_T_GE,
    TM_T_ASSIGN,
    TM_T_LPAREN,
    TM_T_RPAREN,
    TM_T_LBRACKET,
    TM_T_RBRACKET,
    TM_T_LBRACE,
    TM_T_RBRACE,
    TM_T_DOT,
    TM_T_COLON,
    TM_T_PIPE,
    TM_T_COMMA,
    TM_T_SEMICOLON
} tm_token_kind;

typedef struct tm_token {
    uint8_t kind;
    int32_t line;
    tni_bytes text; /* data, a name, a string's value */
    int64_t i;
    double f;
} tm_token;

/* The whole text's tokens, the last one TM_T_EOF; strings lie in the arena. */
int tni_tm_lex(tm_arena *a, const char *name, const char *text, size_t n, tm_token **out,
               size_t *n_out);

/* ---- the parser ---- */

typedef struct tm_parser {
    tni_template *t;
    const tm_token *tok; /* the current one; there is always one more unless it is EOF */
    int depth, loops;    /* nesting; loops that `break` may leave */
    int for_depth;       /* loops of any kind around, where `loop` cannot be set */
    bool soft;           /* in an if: an unknown filter is an error only when it is reached */
    tni_map ids;
    tni_bytes *names;
    size_t n_names, cap_names;
    uint8_t uses;           /* of the macro being parsed: 1 kwargs, 2 varargs, 4 caller */
    const tm_node *unknown; /* the first filter or test that does not exist, or NULL */
} tm_parser;

int tni_tm_syntax(tm_parser *p, int32_t line, const char *fmt, ...) TN_PRINTF(3, 4);
const char *tni_tm_token_name(const tm_token *t); /* for messages; up to 60 bytes, per thread */
bool tni_tm_at_name(const tm_parser *p, const char *name);
bool tni_tm_skip(tm_parser *p, tm_token_kind kind);
int tni_tm_expect(tm_parser *p, tm_token_kind kind, const char *what);
int tni_tm_node(tm_parser *p, tm_node_kind kind, int32_t line, tm_node **out);
int tni_tm_adopt(tm_parser *p, tm_node *parent, const tm_node *child); /* keeps count of depth */
int tni_tm_name_id(tm_parser *p, tni_bytes name, int32_t *id);
int tni_tm_const_string(tm_parser *p, tni_bytes s, tm_val *out);
/* A growing list of children; finished by tni_tm_kids_done, dropped by tni_free(k->v). */
typedef struct tm_kids {
    tm_node **v;
    size_t n, cap;
} tm_kids;
int tni_tm_kid(tm_parser *p, tm_kids *k, tm_node *parent, tm_node *child);
int tni_tm_kids_done(tm_parser *p, tm_kids *k, tm_node *parent, int status);

enum {
    TM_P_NOCOND = 1,
    TM_P_PAREN = 2,
    TM_P_FOR_TARGET = 4,
    TM_P_SIMPLE = 8,
    TM_P_NSREF = 16,
    TM_P_RECURSIVE = 32
};
int tni_tm_parse_expr(tm_parser *p, int flags, tm_node **out);
int tni_tm_parse_tuple(tm_parser *p, int flags, tm_node **out);
int tni_tm_parse_target(tm_parser *p, int flags, tm_node **out);
int tni_tm_parse_filters(tm_parser *p, tm_node *of, bool inline_first, tm_node **out);
int tni_tm_hide_names(tni_template *t); /* the pass after the parser: tmpl_names.c */
int tni_tm_parse_call(tm_parser *p, tm_node *of, tm_node **out);

/* ---- rendering ---- */

typedef struct tm_slot {
    int32_t name;
    tm_val v;
} tm_slot;

typedef struct tm_scope {
    struct tm_scope *parent; /* NULL: the template's own variables */
    tm_slot *v;
    int32_t n, cap;
} tm_scope;

typedef struct tm_r {
    const tni_template *t;
    const tni_render_opt *opt;
    tm_arena arena;
    tm_val *root, *vars; /* by name: set at the top level; given by the caller or built in */
    tm_scope *scope;
    tm_buf *out;
    uint64_t steps, max_steps;
    size_t max_output;
    int depth, nest;
    int32_t line;
    char flow;           /* 0; 'b', 'c': a break or continue is under way */
    const tm_val *block; /* the text that a filter block works on */
} tm_r;

/* "name, line 3: ..." */
int tni_tm_fail(tm_r *r, const char *fmt, ...) TN_PRINTF(2, 3);
int tni_tm_step(tm_r *r, size_t work);  /* counts; an error beyond the limit */
void *tni_tm_new(tm_r *r, size_t size); /* NULL: r->arena.status */
const char *tni_tm_type(tm_val v);      /* Python's name of the type */

/* ---- values' operations; every int is a status ---- */

#define TM_TRY(call)                                                                               \
    do {                                                                                           \
        int tm_status = (call);                                                                    \
        if (tm_status) return tm_status;                                                           \
    } while (0)

int tni_tm_string(tm_r *r, size_t n, tm_string **out, char **s, uint8_t **m); /* to be filled */
int tni_tm_literal(tm_r *r, const char *s, size_t n, tm_val *out);            /* copies; marks 0 */
int tni_tm_sub(tm_r *r, const tm_string *s, size_t from, size_t to, tm_val *out);
int tni_tm_buf(tm_r *r, tm_buf **out);
int tni_tm_put(tm_r *r, tm_buf *b, const char *s, const uint8_t *m, size_t n); /* m NULL: zeros */
int tni_tm_puts(tm_r *r, tm_buf *b, const char *s);
int tni_tm_put_marked(tm_r *r, tm_buf *b, const char *s, size_t n, uint8_t mark);
int tni_tm_put_str(tm_r *r, tm_buf *b, const tm_string *s);
int tni_tm_buf_str(tm_r *r, tm_buf *b, tm_val *out);
int tni_tm_join2(tm_r *r, const tm_string *a, const tm_string *b, tm_val *out);
int tni_tm_escape(tm_r *r, const tm_string *s, tm_val *out); /* HTML, result is safe */
int64_t tni_tm_chars(const tm_string *s);
size_t tni_tm_char_at(const tm_string *s, size_t at); /* bytes of the character at `at` */
size_t tni_tm_find(const tm_string *s, const tm_string *what, size_t from); /* SIZE_MAX: no */
bool tni_tm_is(tm_val v, const char *text);                                 /* the string `text` */

int tni_tm_list(tm_r *r, size_t cap, tm_list **out);
int tni_tm_push(tm_r *r, tm_list *l, tm_val v);
int tni_tm_pair(tm_r *r, tm_val a, tm_val b, tm_val *out); /* a tuple of two */
int tni_tm_dict(tm_r *r, tm_dict **out);
int tni_tm_dict_set(tm_r *r, tm_dict *d, tm_val key, tm_val value);
int tni_tm_dict_get(tm_r *r, const tm_dict *d, tm_val key, tm_val *out); /* TM_MISSING: no */
bool tni_tm_hashable(tm_val v);

int tni_tm_undef(tm_r *r, const char *hint, const char *type, tm_val name, tm_val *out);
int tni_tm_undef_fail(tm_r *r, tm_val v); /* the error of using an undefined value */

bool tni_tm_true(tm_r *r, tm_val v);
int tni_tm_equal(tm_r *r, tm_val a, tm_val b, bool *out);
int tni_tm_less(tm_r *r, tm_op op, tm_val a, tm_val b, bool *out); /* TM_LT ... TM_GE */
int tni_tm_compare(tm_r *r, tm_op op, tm_val a, tm_val b, bool *out);
int tni_tm_contains(tm_r *r, tm_val item, tm_val in, bool *out);
int tni_tm_binary(tm_r *r, tm_op op, tm_val a, tm_val b, tm_val *out);
int tni_tm_unary(tm_r *r, bool negate, tm_val a, tm_val *out);
int tni_tm_getattr(tm_r *r, tm_val of, const tm_string *name, tm_val *out);
int tni_tm_getitem(tm_r *r, tm_val of, tm_val key, tm_val *out);
int tni_tm_slice(tm_r *r, tm_val of, const tm_val index[3], tm_val *out);
int tni_tm_length(tm_r *r, tm_val v, int64_t *out); /* -1: it has none */

int tni_tm_str(tm_r *r, tm_val v, tm_val *out); /* str(v); a string stays what it is */
int tni_tm_put_text(tm_r *r, tm_buf *b, tm_val v);
int tni_tm_put_repr(tm_r *r, tm_buf *b, tm_val v);
void tni_tm_float_text(double f, char out[40]);
bool tni_tm_parse_float(const char *s, size_t n, double *out); /* the C locale's digits */
bool tni_tm_space(uint32_t cp);
bool tni_tm_word(uint32_t cp);                                       /* \w */
uint32_t tni_tm_decode(const char *s, size_t n, size_t *len);        /* never fails; len >= 1 */
int tni_tm_case(tm_r *r, const tm_string *s, char how, tm_val *out); /* u l t c s f */
bool tni_tm_has_case(const tm_string *s, bool upper);

struct json_t;
int tni_tm_from_json(tm_r *r, const char *what, const char *s, size_t n, tm_val *out);

/* ---- iterables ---- */

int tni_tm_iter(tm_r *r, tm_val v, struct tm_iter **out); /* an error when v is not iterable */
int tni_tm_next(tm_r *r, struct tm_iter *it, tm_val *out, bool *more);
int tni_tm_to_list(tm_r *r, tm_val v, tm_list **out); /* a new list of the items */
int tni_tm_list_iter(tm_r *r, const tm_list *l, bool reverse, tm_val *out);
bool tni_tm_iterable(tm_val v);

/* "a.b.0" to the parts that are looked up one after the other; none when it is absent. */
int tni_tm_path(tm_r *r, tm_val attribute, tm_list **out);
int tni_tm_follow(tm_r *r, const tm_list *path, tm_val dflt, tm_val of, tm_val *out);

struct tm_call;

/* What map, select and reject do to each item, when it is asked for. */
typedef struct tm_pipe {
    const tm_list *path;        /* attributes to follow first */
    tm_val dflt;                /* for map: in place of an undefined attribute */
    int filter, test;           /* numbers in the tables, or -1 */
    bool select, keep;          /* pass items on for which the test says `keep` */
    const struct tm_call *call; /* arguments of the filter or test */
} tm_pipe;

int tni_tm_pipe(tm_r *r, tm_val source, const tm_pipe *pipe, tm_val *out);

/* ---- calls ---- */

typedef struct tm_kw {
    const tm_string *name;
    tm_val v;
} tm_kw;

typedef struct tm_call {
    const tm_val *pos;
    size_t n_pos;
    const tm_kw *kw;
    size_t n_kw;
} tm_call;

/* Sets one slot for each of the comma-separated names; absent ones to TM_MISSING. */
int tni_tm_bind(tm_r *r, const char *what, const char *params, int required, const tm_call *c,
                tm_val *slots);

enum { TM_SLOTS = 8 };

typedef struct tm_func {
    const char *name, *params;
    int required;
    int (*bound)(tm_r *r, const tm_val *a, tm_val *out);
    int (*raw)(tm_r *r, const tm_call *c, tm_val *out); /* instead of bound */
} tm_func;

typedef struct tm_method {
    uint8_t kind; /* of self */
    const char *name, *params;
    int required; /* -1: the sandbox forbids it */
    int (*bound)(tm_r *r, tm_val self, const tm_val *a, tm_val *out);
    int (*raw)(tm_r *r, tm_val self, const tm_call *c, tm_val *out);
} tm_method;

typedef struct tm_filter {
    const char *name, *params;
    int required;
    int (*bound)(tm_r *r, tm_val in, const tm_val *a, tm_val *out);
    int (*raw)(tm_r *r, tm_val in, const tm_call *c, tm_val *out);
} tm_filter;

typedef struct tm_test {
    const char *name;
    int required;
    int (*bound)(tm_r *r, tm_val in, const tm_val *a, bool *out);
} tm_test;

extern const tm_filter tni_tm_text_filters[], tni_tm_seq_filters[]; /* a NULL name ends them */
const tm_filter *tni_tm_filter(int index);
int tni_tm_filter_index(tni_bytes name); /* -1: none */
int tni_tm_test_index(tni_bytes name);
const tm_func *tni_tm_function(tni_bytes name);
const tm_method *tni_tm_method(tm_val self, tni_bytes name);

int tni_tm_apply_filter(tm_r *r, int index, tm_val in, const tm_call *c, tm_val *out);
int tni_tm_apply_test(tm_r *r, int index, tm_val in, const tm_call *c, bool *out);
int tni_tm_call_value(tm_r *r, tm_val fn, const tm_call *c, tm_val *out);
int tni_tm_call_macro(tm_r *r, const tm_macro *m, const tm_call *c, tm_val *out);
int tni_tm_loop_attr(tm_r *r, struct tm_loop *l, tni_bytes name, tm_val *out);
int tni_tm_loop_length(tm_r *r, struct tm_loop *l, int64_t *out);

int tni_tm_eval(tm_r *r, const tm_node *n, tm_val *out);
/* The arguments' values; `caller` (or NULL) is one more named one. */
int tni_tm_eval_args(tm_r *r, const tm_args *a, const tm_val *caller, tm_call *out);
int tni_tm_eval_call_block(tm_r *r, const tm_node *n, tm_val caller, tm_val *out);
int tni_tm_exec(tm_r *r, const tm_node *n);
int tni_tm_lookup(tm_r *r, int32_t name, tm_val *out); /* undefined when nobody set it */
int tni_tm_call_loop(tm_r *r, struct tm_loop *l, const tm_call *c, tm_val *out);
int tni_tm_loop_cycle(tm_r *r, tm_val self, const tm_call *c, tm_val *out);
int tni_tm_loop_changed(tm_r *r, tm_val self, const tm_call *c, tm_val *out);

/* ---- single operations other files need ---- */

int tni_tm_strip(tm_r *r, const tm_string *s, tm_val chars, int sides, tm_val *out);
int tni_tm_replace(tm_r *r, const tm_string *s, const tm_string *from, const tm_string *to,
                   int64_t count, tm_val *out);
int tni_tm_splitlines(tm_r *r, const tm_string *s, bool keep, tm_list **out);
int tni_tm_split(tm_r *r, const tm_string *s, const tm_string *sep, int64_t max, tm_list **out);
int tni_tm_rsplit(tm_r *r, const tm_string *s, const tm_string *sep, int64_t max, tm_list **out);
int tni_tm_split_space(tm_r *r, const tm_string *s, int64_t max, tm_list **out);
int tni_tm_rsplit_space(tm_r *r, const tm_string *s, int64_t max, tm_list **out);
size_t tni_tm_rfind(const tm_string *s, const tm_string *what, size_t from, size_t to);
int tni_tm_pad(tm_r *r, const tm_string *s, int64_t width, const tm_string *fill, char side,
               tm_val *out);
int tni_tm_join(tm_r *r, const tm_string *sep, struct tm_iter *items, bool strict, tm_val *out);
int tni_tm_percent(tm_r *r, const tm_string *fmt, tm_val args, tm_val *out);
int tni_tm_format(tm_r *r, const tm_string *fmt, const tm_call *c, tm_val *out);
int tni_tm_to_json(tm_r *r, tm_val v, const tm_val *a, tm_val *out);
int tni_tm_sort(tm_r *r, tm_list *keys, tm_list *items, bool reverse); /* by keys, stable */
int tni_tm_int_of(tm_r *r, tm_val v, const char *what, int64_t *out);

#endif
