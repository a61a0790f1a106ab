/* jinja2 makes a Python function of a template, where each block's variables are the
 * function's local ones. What shows of that: a block that sets a name before it reads it,
 * when no block around it speaks of that name, does not see the caller's variable of that
 * name at all, not even in a loop or macro that stands before the {% set %}. This pass finds
 * those names (idtracking.py calls their load VAR_LOAD_UNDEFINED); rendering hides them. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/tmpl.h"
#include <string.h>

enum { NAMES_NONE, NAMES_ALIAS, NAMES_UNSET, NAMES_RESOLVE, NAMES_PARAM };
enum { NAMES_MAX_WORK = 20000000 }; /* beyond it nothing more is hidden */

typedef struct names_frame {
    struct names_frame *parent;
    uint8_t *load, *stored; /* by name: how it is loaded, whether it is set here */
} names_frame;

typedef struct names_pass {
    tni_template *t;
    size_t n, work;
} names_pass;

static void names_statement(names_pass *p, names_frame *f, const tm_node *n, int *status);

static bool names_spent(names_pass *p, size_t work) {
    p->work += work;
    return p->work > NAMES_MAX_WORK;
}

static int names_new(names_pass *p, names_frame *parent, names_frame *out) {
    *out = (names_frame){.parent = parent};
    names_spent(p, p->n);
    out->load = tni_calloc(2, p->n);
    if (!out->load) return tni_fail_memory(2 * p->n, "a template's names");
    out->stored = out->load + p->n;
    return 0;
}

static bool names_outside(names_pass *p, const names_frame *f, int32_t name) {
    for (const names_frame *o = f->parent; o; o = o->parent) {
        p->work++;
        if (o->load[name]) return true;
    }
    return false;
}

static void names_load(names_pass *p, names_frame *f, int32_t name) {
    if (!f->load[name] && !names_outside(p, f, name)) f->load[name] = NAMES_RESOLVE;
}

static void names_store(names_pass *p, names_frame *f, int32_t name) {
    f->stored[name] = 1;
    if (!f->load[name]) f->load[name] = names_outside(p, f, name) ? NAMES_ALIAS : NAMES_UNSET;
}

static void names_expr(names_pass *p, names_frame *f, const tm_node *n) {
    if (!n || names_spent(p, 1)) return;
    if (n->kind == TM_N_NAME || n->kind == TM_N_NSREF) names_load(p, f, n->name);
    names_expr(p, f, n->a), names_expr(p, f, n->b), names_expr(p, f, n->c);
    for (int32_t i = 0; i < n->n; i++) names_expr(p, f, n->v[i]);
    if (!n->args) return;
    for (int32_t i = 0; i < n->args->n_pos + n->args->n_kw; i++) names_expr(p, f, n->args->v[i]);
    names_expr(p, f, n->args->star), names_expr(p, f, n->args->kwstar);
}

static void names_target(names_pass *p, names_frame *f, const tm_node *n, bool param) {
    if (n->kind == TM_N_NSREF) {
        names_load(p, f, n->name);
    } else if (n->kind == TM_N_TUPLE) {
        for (int32_t i = 0; i < n->n; i++) names_target(p, f, n->v[i], param);
    } else if (param) {
        f->load[n->name] = NAMES_PARAM, f->stored[n->name] = 1;
    } else {
        names_store(p, f, n->name);
    }
}

/* ---- branches ---- */

static int names_copy(names_pass *p, const names_frame *f, names_frame *out) {
    int status = names_new(p, f->parent, out);
    if (!status) memcpy(out->load, f->load, 2 * p->n);
    return status;
}

/* What a branch sets may not have been set: such a name is looked up when it is read. */
static void names_merge(names_pass *p, names_frame *f, names_frame *branch, size_t n_branches) {
    for (size_t i = 0; i < p->n; i++) {
        uint8_t stored = 0;
        for (size_t b = 0; b < n_branches; b++) {
            stored |= branch[b].stored[i];
            if (branch[b].load[i] && branch[b].load[i] != f->load[i])
                f->load[i] = branch[b].load[i];
        }
        if (stored && !f->stored[i])
            f->load[i] = names_outside(p, f, (int32_t)i) ? NAMES_ALIAS : NAMES_RESOLVE;
        f->stored[i] |= stored;
    }
    for (size_t b = 0; b < n_branches; b++) tni_free(branch[b].load), branch[b].load = NULL;
}

static void names_elif(names_pass *p, names_frame *f, const tm_node *test, const tm_node *body,
                       int *status) {
    names_frame branch = {0};
    names_expr(p, f, test);
    if (*status || names_spent(p, p->n)) return;
    *status = names_copy(p, f, &branch);
    if (*status) return;
    names_statement(p, &branch, body, status);
    names_merge(p, f, &branch, 1);
}

static void names_if(names_pass *p, names_frame *f, const tm_node *n, int *status) {
    names_frame branch[3] = {{0}};
    names_expr(p, f, n->v[0]);
    if (names_spent(p, 3 * p->n)) return;
    for (int i = 0; i < 3 && !*status; i++) *status = names_copy(p, f, &branch[i]);
    if (!*status) {
        names_statement(p, &branch[0], n->v[1], status);
        for (int32_t i = 2; i + 1 < n->n; i += 2)
            names_elif(p, &branch[1], n->v[i], n->v[i + 1], status);
        if (n->c) names_statement(p, &branch[2], n->c, status);
        names_merge(p, f, branch, 3);
    }
    for (int i = 0; i < 3; i++) tni_free(branch[i].load);
}

/* ---- statements: what they do to the frame they stand in ---- */

static void names_statement(names_pass *p, names_frame *f, const tm_node *n, int *status) {
    if (*status || names_spent(p, 1)) return;
    switch (n->kind) {
    case TM_N_BODY:
        for (int32_t i = 0; i < n->n; i++) names_statement(p, f, n->v[i], status);
        break;
    case TM_N_IF:
        names_if(p, f, n, status);
        break;
    case TM_N_OUTPUT:
    case TM_N_CALLBLOCK:
        names_expr(p, f, n->a);
        break;
    case TM_N_FOR:
    case TM_N_FILTERBLOCK:
        names_expr(p, f, n->b);
        break;
    case TM_N_SET:
        names_expr(p, f, n->b);
        names_target(p, f, n->a, false);
        break;
    case TM_N_SETBLOCK:
        names_target(p, f, n->a, false);
        break;
    case TM_N_MACRO:
        names_store(p, f, n->name);
        break;
    case TM_N_WITH:
        for (int32_t i = 1; i < n->n; i += 2) names_expr(p, f, n->v[i]);
        break;
    default:
        break;
    }
}

/* ---- frames ---- */

static int names_inside(names_pass *p, names_frame *f, const tm_node *n);

/* Notes the hidden names of a frame's body and goes on to the frames in it. */
static int names_finish(names_pass *p, names_frame *f, tm_node *body, int status) {
    size_t count = 0;
    if (!status) names_statement(p, f, body, &status);
    for (size_t i = 0; !status && i < p->n; i++) count += f->load[i] == NAMES_UNSET;
    if (!status && count && p->work <= NAMES_MAX_WORK) {
        body->hide = tni_tm_alloc(&p->t->arena, count * sizeof *body->hide);
        if (!body->hide) status = p->t->arena.status;
        for (size_t i = 0; !status && i < p->n; i++)
            if (f->load[i] == NAMES_UNSET) body->hide[body->n_hide++] = (int32_t)i;
    }
    if (!status) status = names_inside(p, f, body);
    tni_free(f->load);
    return status;
}

static int names_block(names_pass *p, names_frame *f, tm_node *body) {
    names_frame inner;
    int status = names_new(p, f, &inner);
    return status ? status : names_finish(p, &inner, body, 0);
}

static int names_for(names_pass *p, names_frame *f, const tm_node *n) {
    names_frame inner;
    TM_TRY(names_new(p, f, &inner));
    inner.load[p->t->loop] = NAMES_PARAM;
    names_target(p, &inner, n->a, true);
    TM_TRY(names_finish(p, &inner, n->v[0], 0));
    return n->v[1] ? names_block(p, f, n->v[1]) : 0;
}

static int names_function(names_pass *p, names_frame *f, const tm_node *n) {
    names_frame inner;
    TM_TRY(names_new(p, f, &inner));
    for (int32_t i = 0; i < n->n; i += 2) names_target(p, &inner, n->v[i], true);
    for (int32_t i = 1; i < n->n; i += 2) names_expr(p, &inner, n->v[i]);
    return names_finish(p, &inner, n->c, 0);
}

static int names_with(names_pass *p, names_frame *f, const tm_node *n) {
    names_frame inner;
    TM_TRY(names_new(p, f, &inner));
    for (int32_t i = 0; i < n->n; i += 2) names_target(p, &inner, n->v[i], true);
    return names_finish(p, &inner, n->c, 0);
}

/* The frames that the statements of a body open. */
static int names_inside(names_pass *p, names_frame *f, const tm_node *n) {
    if (names_spent(p, 1)) return 0;
    switch (n->kind) {
    case TM_N_BODY:
        for (int32_t i = 0; i < n->n; i++) TM_TRY(names_inside(p, f, n->v[i]));
        return 0;
    case TM_N_IF:
        for (int32_t i = 1; i < n->n; i += 2) TM_TRY(names_inside(p, f, n->v[i]));
        return n->c ? names_inside(p, f, n->c) : 0;
    case TM_N_FOR:
        return names_for(p, f, n);
    case TM_N_MACRO:
        return names_function(p, f, n);
    case TM_N_CALLBLOCK:
        return names_function(p, f, n->b);
    case TM_N_WITH:
        return names_with(p, f, n);
    case TM_N_SETBLOCK:
    case TM_N_FILTERBLOCK:
    case TM_N_SCOPE:
        return names_block(p, f, n->c);
    default:
        return 0;
    }
}

int tni_tm_hide_names(tni_template *t) {
    names_pass p = {.t = t, .n = (size_t)t->n_names};
    names_frame root;
    TM_TRY(names_new(&p, NULL, &root));
    return names_finish(&p, &root, t->body, 0);
}
