/* What an optimizer holds, as a list: for evaluation, compiled functions and files. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/str.h"
#include "nn/optim.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- names ---- */

typedef struct slots_walk {
    tni_optim_visit visit;
    void *ud;
    tni_str name;
    size_t prefix;
} slots_walk;

static int slots_visit(slots_walk *w, tn_array **slot, const char *first, const char *second) {
    if (!*slot) return 0;
    w->name.n = w->prefix;
    int status =
        second ? tni_str_printf(&w->name, "%s.%s", first, second) : tni_str_puts(&w->name, first);
    return status ? tni_fail_memory(w->name.n, "a name") : w->visit(w->name.v, slot, w->ud);
}

static int slots_own(tn_optim *o, slots_walk *w) {
    int status = slots_visit(w, &o->step, "step", NULL);
    if (!status) status = slots_visit(w, &o->lr, "learning_rate", NULL);
    if (!status) status = slots_visit(w, &o->added, "added", NULL);
    for (int i = 0; i < o->n && !status; i++) {
        const char *name = tn_params_name(o->params, i);
        for (int k = 0; k < TNI_OPTIM_STATES && !status && o->rule; k++)
            status = slots_visit(w, &o->state[i * TNI_OPTIM_STATES + k], name, o->rule->states[k]);
        if (!status && o->sum) status = slots_visit(w, &o->sum[i], name, "sum");
    }
    return status;
}

int tni_optim_each(tn_optim *o, tni_optim_visit visit, void *ud) {
    slots_walk w = {.visit = visit, .ud = ud};
    int status = slots_own(o, &w);
    for (int i = 0; i < o->n_parts && !status; i++) {
        w.name.n = 0;
        if (tni_str_printf(&w.name, "%d.", i)) status = tni_fail_memory(8, "a name");
        w.prefix = w.name.n;
        if (!status) status = slots_own(o->parts[i], &w);
    }
    tni_str_free(&w.name);
    return status;
}

void tni_optim_describe(const tn_optim *o, char *text, size_t n) {
    if (o->rule) {
        snprintf(text, n, "%s", o->rule->name);
        return;
    }
    int at = snprintf(text, n, "multi(");
    for (int i = 0; i < o->n_parts && (size_t)at < n; i++)
        at += snprintf(text + at, n - (size_t)at, "%s%s", i ? "," : "", o->parts[i]->rule->name);
    if ((size_t)at < n) snprintf(text + at, n - (size_t)at, ")");
}

/* ---- the list ---- */

typedef struct slots_list {
    tn_array ***v;
    int n;
} slots_list;

static int slots_count(const char *name, tn_array **slot, void *ud) {
    (void)name, (void)slot;
    ((slots_list *)ud)->n++;
    return 0;
}

static int slots_append(const char *name, tn_array **slot, void *ud) {
    slots_list *list = ud;
    (void)name;
    list->v[list->n++] = slot;
    return 0;
}

tn_slots tn_optim_slots(tn_optim *o) {
    const tn_slots none = {NULL, -1};
    slots_list list = {NULL, tn_params_count(o->params)};
    if (tni_optim_each(o, slots_count, &list)) return none;
    list.v = tni_alloc_array((size_t)list.n + 1, sizeof *list.v);
    if (!list.v) return tni_fail_memory((size_t)list.n * sizeof *list.v, "a list of slots"), none;
    list.n = 0;
    for (int i = 0; i < tn_params_count(o->params); i++)
        list.v[list.n++] = tn_params_slot(o->params, i);
    if (tni_optim_each(o, slots_append, &list)) {
        tni_free(list.v);
        return none;
    }
    tni_free(o->slots);
    o->slots = list.v;
    return (tn_slots){list.v, list.n};
}

int tn_optim_eval(tn_optim *o, tn_list also) {
    tn_slots s = tn_optim_slots(o);
    if (s.n < 0) return tni_error_code();
    tn_array **all = tni_alloc_array((size_t)(s.n + also.n) + 1, sizeof *all);
    if (!all) return tni_fail_memory((size_t)(s.n + also.n) * sizeof *all, "a list of arrays");
    for (int i = 0; i < s.n; i++) all[i] = *s.v[i];
    for (int i = 0; i < also.n; i++) all[s.n + i] = also.v[i];
    int status = tn_eval((tn_list){all, s.n + also.n});
    tni_free(all);
    return status;
}

/* ---- the numbers ---- */

int tn_optim_set_lr(tn_optim *o, double rate) {
    int status = 0;
    for (int i = 0; i < o->n_parts && !status; i++) status = tn_optim_set_lr(o->parts[i], rate);
    if (!o->rule || status) return status;
    if (!isfinite(rate))
        return tni_fail(TN_EVALUE, "optim_%s: a learning rate of %g", o->rule->name, rate);
    TN_SCOPE
        status = tn_assign(&o->lr, tn_scalar(rate, TN_F32));
    return status;
}

double tn_optim_lr(tn_optim *o) { return o->rule ? tn_item_f64(o->lr) : tn_optim_lr(o->parts[0]); }

int64_t tn_optim_steps(tn_optim *o) {
    if (!o->rule) return tn_optim_steps(o->parts[0]);
    if (tn_eval(TN_LIST(o->step))) return -1;
    return tn_item_i64(o->step);
}
