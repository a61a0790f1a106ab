/* Optimizers as objects: slots for the state of every parameter, and an update that assigns all of
 * them lazily, so that one evaluation (or one replay of a compiled function) writes a parameter and
 * its state in one fused pass. Nothing is assigned before everything is known to be no error. */
#include "nn/optim.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/vec.h"
#include "nn/params.h"
#include <string.h>

/* ---- making ---- */

static bool optim_is_float(tn_dtype d) {
    return d == TN_F16 || d == TN_BF16 || d == TN_F32 || d == TN_F64;
}

static tn_array **optim_state(const tn_optim *o, int i, int kind) {
    return &o->state[i * TNI_OPTIM_STATES + kind];
}

static int optim_init_state(tn_optim *o, int i) {
    tn_array *p = *tn_params_slot(o->params, i);
    if (!optim_is_float(tn_dtype_of(p)))
        return tni_fail(TN_EDTYPE,
                        "optim_%s: parameter \"%s\" is %s; only floats are trained: freeze it",
                        o->rule->name, tn_params_name(o->params, i), tn_dtype_name(tn_dtype_of(p)));
    o->mine[i] = true;
    int status = 0;
    for (int k = 0; k < TNI_OPTIM_STATES && o->rule->states[k] && !status; k++) {
        tn_array *s = o->rule->init(o, p, k);
        if (s) status = tn_assign(optim_state(o, i, k), s);
    }
    return status;
}

static int optim_init(tn_optim *o, double rate) {
    int status = 0;
    TN_SCOPE {
        tn_array *zero = tn_scalar_i64(0, TN_U64);
        status = tn_assign(&o->step, zero);
        tn_array *lr = o->schedule ? tn_astype(o->schedule(zero, o->schedule_ud), TN_F32)
                                   : tn_scalar(rate, TN_F32);
        if (!status && tn_ndim(lr))
            status = tni_fail(TN_ESHAPE, "optim_%s: the schedule gave an array of %d axes, not 0",
                              o->rule->name, tn_ndim(lr));
        if (!status) status = tn_assign(&o->lr, lr);
        for (int i = 0; i < o->n && !status; i++)
            if (!tn_params_frozen(o->params, i)) status = optim_init_state(o, i);
    }
    return status;
}

static tn_optim *optim_alloc(tn_params *p) {
    tn_optim *o = tni_calloc(1, sizeof *o);
    if (!o) return NULL;
    o->params = p;
    o->n = tn_params_count(p);
    o->mine = tni_calloc((size_t)o->n + 1, sizeof *o->mine);
    o->state = tni_calloc((size_t)o->n * TNI_OPTIM_STATES + 1, sizeof(tn_array *));
    if (o->mine && o->state) return o;
    tn_optim_free(o);
    return NULL;
}

tn_optim *tni_optim_new(tn_params *p, const tni_optim_rule *rule, const tni_optim_rate *rate,
                        const double *numbers, const bool *flags) {
    tn_optim *o = optim_alloc(p);
    if (!o) {
        tni_fail_memory(sizeof *o, "an optimizer");
        return NULL;
    }
    o->rule = rule;
    memcpy(o->number, numbers, sizeof o->number);
    memcpy(o->flag, flags, sizeof o->flag);
    if (rate) o->schedule = rate->schedule, o->schedule_ud = rate->schedule_ud;
    if (!optim_init(o, rate ? rate->learning_rate : 0)) return o;
    tn_optim_free(o);
    return NULL;
}

static void optim_drop(tn_array **slots, int n) {
    for (int i = 0; slots && i < n; i++) tn_drop(slots[i]);
    tni_free(slots);
}

void tn_optim_free(tn_optim *o) {
    if (!o) return;
    for (int i = 0; i < o->n_parts; i++) tn_optim_free(o->parts[i]);
    tni_free(o->parts);
    optim_drop(o->state, o->n * TNI_OPTIM_STATES);
    optim_drop(o->sum, o->n);
    tn_drop(o->step);
    tn_drop(o->lr);
    tn_drop(o->added);
    tni_free(o->mine);
    tni_free(o->slots);
    tni_free(o);
}

/* ---- several ---- */

static void optim_disown(tn_optim *o, int i) {
    o->mine[i] = false;
    for (int k = 0; k < TNI_OPTIM_STATES; k++) {
        tn_drop(*optim_state(o, i, k));
        *optim_state(o, i, k) = NULL;
    }
}

static int optim_deal(tn_optim *o, const char *const *patterns) {
    for (int i = 0; i < o->n; i++) {
        int owner = 0;
        while (owner < o->n_parts - 1 &&
               !tni_params_fits(patterns[owner], tn_params_name(o->params, i)))
            owner++;
        for (int k = 0; k < o->n_parts; k++)
            if (k != owner) optim_disown(o->parts[k], i);
        o->mine[i] = o->parts[owner]->mine[i];
    }
    return 0;
}

static int optim_check_parts(tn_params *p, int n, tn_optim *const *parts,
                             const char *const *patterns) {
    if (n < 1) return tni_fail(TN_EVALUE, "optim_multi: %d parts; at least one is needed", n);
    for (int i = 0; i < n; i++) {
        if (!parts[i]) return tni_fail(TN_EVALUE, "optim_multi: part %d: %s", i, tni_error());
        if (parts[i]->params != p || parts[i]->n != tn_params_count(p) || !parts[i]->rule)
            return tni_fail(TN_EVALUE,
                            "optim_multi: part %d was made for other parameters, or has parts", i);
        for (int k = 0; k < i; k++)
            if (parts[k] == parts[i])
                return tni_fail(TN_EVALUE, "optim_multi: parts %d and %d are the same", k, i);
        if (i < n - 1 && !patterns[i])
            return tni_fail(TN_EVALUE, "optim_multi: part %d of %d has no pattern", i, n);
    }
    return 0;
}

static void optim_free_parts(int n, tn_optim *const *parts) {
    for (int i = 0; i < n; i++) {
        int first = 0;
        while (parts[first] != parts[i]) first++;
        if (first == i) tn_optim_free(parts[i]);
    }
}

tn_optim *tn_optim_multi(tn_params *p, int n, tn_optim *const *parts, const char *const *patterns) {
    int status = optim_check_parts(p, n, parts, patterns);
    tn_optim *o = status ? NULL : optim_alloc(p);
    tn_optim **list = o ? tni_alloc_array((size_t)n, sizeof(tn_optim *)) : NULL;
    if (!list) {
        if (!status) tni_fail_memory(sizeof *o, "an optimizer");
        tn_optim_free(o);
        optim_free_parts(n, parts);
        return NULL;
    }
    for (int i = 0; i < n; i++) list[i] = parts[i];
    o->parts = list;
    o->n_parts = n;
    optim_deal(o, patterns);
    return o;
}

/* ---- updating ---- */

/* What an update will assign: nothing is, before the list is whole and free of errors. */
typedef struct optim_pending {
    tn_array **slot, *value;
} optim_pending;

typedef struct optim_work {
    tn_array **grads; /* by parameter of the tree; NULL: frozen */
    TNI_VEC(optim_pending) pending;
} optim_work;

static int optim_set(optim_work *w, tn_array **slot, tn_array *value) {
    int status = tn_array_status(value);
    if (status) return tni_fail(status, "%s", tn_array_error(value));
    if (tni_vec_push(&w->pending, ((optim_pending){slot, value})))
        return tni_fail_memory((w->pending.n + 1) * sizeof(optim_pending), "an update");
    return 0;
}

static const char *optim_name(const tn_optim *o) { return o->rule ? o->rule->name : "multi"; }

static int optim_check_grad(const tn_optim *o, int i, tn_array *g) {
    tn_ints want = tn_shape(*tn_params_slot(o->params, i));
    int status = g ? tn_array_status(g) : TN_EVALUE;
    if (!g) return tni_fail(TN_EVALUE, "optim_%s: a gradient is NULL", optim_name(o));
    if (status) return tni_fail(status, "%s", tn_array_error(g));
    tn_ints got = tn_shape(g);
    if (got.n == want.n && !memcmp(got.v, want.v, (size_t)got.n * sizeof *got.v)) return 0;
    return tni_fail(TN_ESHAPE,
                    "optim_%s: the gradient of \"%s\" has %lld numbers in %d axes, the parameter "
                    "%lld in %d",
                    optim_name(o), tn_params_name(o->params, i), (long long)tn_size(g), got.n,
                    (long long)tn_size(*tn_params_slot(o->params, i)), want.n);
}

/* grads[k] of the k-th parameter that is not frozen, laid out by parameter. */
static int optim_begin(tn_optim *o, optim_work *w, tn_array *const *grads) {
    int n = tn_params_count(o->params), status = 0;
    w->grads = tni_calloc((size_t)n + 1, sizeof *w->grads);
    if (!w->grads) return tni_fail_memory((size_t)n * sizeof *w->grads, "an update");
    for (int i = 0, k = 0; i < n && !status; i++) {
        if (tn_params_frozen(o->params, i)) continue;
        if (i >= o->n || !o->mine[i])
            return tni_fail(TN_ESTATE,
                            "optim_%s: parameter \"%s\" was frozen or absent when the optimizer "
                            "was made: make it anew",
                            optim_name(o), tn_params_name(o->params, i));
        if (grads)
            status = optim_check_grad(o, i, w->grads[i] = grads[k++]);
        else
            w->grads[i] = o->sum[i];
    }
    return status;
}

static int optim_finish(optim_work *w, int status) {
    for (size_t i = 0; i < w->pending.n && !status; i++)
        status = tn_assign(w->pending.v[i].slot, w->pending.v[i].value);
    tni_vec_free(&w->pending);
    tni_free(w->grads);
    return status;
}

static int optim_one(const tn_optim *o, optim_work *w, int i, tn_array *lr, tn_array *step) {
    tn_array **slot = tn_params_slot(o->params, i);
    tni_optim_step u = {.o = o, .g = w->grads[i], .p = *slot, .lr = lr, .step = step};
    for (int k = 0; k < TNI_OPTIM_STATES; k++) u.s[k] = *optim_state(o, i, k);
    int status = optim_set(w, slot, o->rule->apply(&u));
    for (int k = 0; k < TNI_OPTIM_STATES && !status; k++)
        if (u.s[k]) status = optim_set(w, optim_state(o, i, k), u.s[k]);
    return status;
}

static int optim_all(tn_optim *o, optim_work *w) {
    int status = 0;
    for (int i = 0; i < o->n_parts && !status; i++) status = optim_all(o->parts[i], w);
    if (!o->rule || status) return status;
    tn_array *lr = o->lr, *step = tn_add(o->step, tn_i32(1));
    if (o->schedule) {
        lr = tn_astype(o->schedule(o->step, o->schedule_ud), TN_F32);
        status = optim_set(w, &o->lr, lr);
    }
    if (!status) status = optim_set(w, &o->step, step);
    for (int i = 0; i < o->n && !status; i++)
        if (o->mine[i] && w->grads[i]) status = optim_one(o, w, i, lr, step);
    return status;
}

/* The means in place of the gradients; the sums begin again. */
static int optim_means(tn_optim *o, optim_work *w) {
    tn_array *count = tn_maximum(o->added, tn_f32(1));
    int status = optim_set(w, &o->added, tn_scalar(0, TN_F32));
    for (int i = 0; i < o->n && !status; i++) {
        if (!w->grads[i]) continue;
        w->grads[i] = tn_div(o->sum[i], tn_astype(count, tn_dtype_of(o->sum[i])));
        status = optim_set(w, &o->sum[i], tn_zeros_like(o->sum[i]));
    }
    return status;
}

int tn_optim_update(tn_optim *o, tn_array *const *grads) {
    if (!grads && !o->sum)
        return tni_fail(TN_ESTATE, "optim_%s: no gradients were given or added", optim_name(o));
    int status = 0;
    TN_SCOPE {
        optim_work w = {0};
        status = optim_begin(o, &w, grads);
        if (!status && !grads) status = optim_means(o, &w);
        if (!status) status = optim_all(o, &w);
        status = optim_finish(&w, status);
    }
    return status;
}

/* ---- accumulation ---- */

int tn_optim_accumulate(tn_optim *o) {
    if (o->sum) return 0;
    tn_array **sum = tni_calloc((size_t)o->n + 1, sizeof *sum);
    if (!sum) return tni_fail_memory((size_t)o->n * sizeof *sum, "sums of gradients");
    int status = 0;
    TN_SCOPE {
        for (int i = 0; i < o->n && !status; i++)
            if (o->mine[i])
                status = tn_assign(&sum[i], tn_zeros_like(*tn_params_slot(o->params, i)));
        if (!status) status = tn_assign(&o->added, tn_scalar(0, TN_F32));
    }
    if (status)
        optim_drop(sum, o->n);
    else
        o->sum = sum;
    return status;
}

int tn_optim_add(tn_optim *o, tn_array *const *grads) {
    if (!grads) return tni_fail(TN_EVALUE, "optim_%s: no gradients to add", optim_name(o));
    int status = tn_optim_accumulate(o);
    if (status) return status;
    TN_SCOPE {
        optim_work w = {0};
        status = optim_begin(o, &w, grads);
        for (int i = 0; i < o->n && !status; i++)
            if (w.grads[i]) status = optim_set(&w, &o->sum[i], tn_add(o->sum[i], w.grads[i]));
        if (!status) status = optim_set(&w, &o->added, tn_add(o->added, tn_f32(1)));
        status = optim_finish(&w, status);
    }
    return status;
}
