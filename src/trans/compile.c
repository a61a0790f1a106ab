/* Compiled functions: the object, its signatures and its bounded store of plans. */
#include "trans/compile.h"
#include "base/alloc.h"
#include "base/err.h"
#include "core/buffer.h"
#include "ops/build.h"
#include "ops/random.h"
#include "trans/call.h"
#include "trans/trace.h"
#include <string.h>

enum { COMPILE_CAPACITY = 32, COMPILE_SMALL = 64 };

tn_compiled *tn_compile(tn_fns fn, void *ud, int n_out, const tn_compile_opt *opt) {
    int n_state = opt ? opt->state.n : 0,
        capacity = opt && opt->capacity ? opt->capacity : COMPILE_CAPACITY;
    const char *fault = !fn            ? "the function is NULL"
                        : n_out < 0    ? "a negative number of results"
                        : capacity < 1 ? "a negative capacity"
                        : n_state < 0  ? "a negative number of slots"
                                       : NULL;
    for (int i = 0; i < n_state && !fault; i++)
        if (!opt->state.v[i]) fault = "a slot is NULL";
    if (fault) {
        tni_fail(TN_EVALUE, "compile: %s", fault);
        return NULL;
    }
    tn_compiled *c = tni_calloc(1, sizeof *c);
    tn_array ***state = tni_alloc_array((size_t)n_state + 1, sizeof *state);
    if (!c || !state) {
        tni_free(c), tni_free(state);
        tni_fail_memory(sizeof *c, "a compiled function");
        return NULL;
    }
    for (int i = 0; i < n_state; i++) state[i] = opt->state.v[i];
    pthread_mutex_init(&c->lock, NULL);
    c->fn = fn, c->ud = ud, c->n_out = n_out;
    c->state = state, c->n_state = n_state, c->capacity = capacity;
    c->keep = opt && opt->keep, c->shapeless = opt && opt->shapeless;
    c->fold = opt && opt->fold;
    return c;
}

void tn_compiled_free(tn_compiled *c) {
    if (!c) return;
    for (size_t i = 0; i < c->plans.n; i++) tni_compiled_plan_free(c->plans.v[i]);
    for (size_t i = 0; i < c->open.n; i++) tni_compiled_open_free(&c->open.v[i]);
    tni_vec_free(&c->plans);
    tni_vec_free(&c->open);
    tni_buffer_release(c->arena);
    tni_free(c->state);
    pthread_mutex_destroy(&c->lock);
    tni_free(c);
}

tn_compile_stats tn_compiled_stats(tn_compiled *c) {
    if (!c) return (tn_compile_stats){0};
    pthread_mutex_lock(&c->lock);
    tn_compile_stats s = c->stats;
    pthread_mutex_unlock(&c->lock);
    return s;
}

/* ---- signatures: for each argument its kind, then its sizes ---- */

static bool compile_fits(const compiled_plan *p, int n, tn_array *const *x) {
    if (p->n_arg != n) return false;
    const int64_t *s = p->signature;
    for (int i = 0; i < n; i++) {
        if (*s++ != tni_compiled_kind(x[i])) return false;
        for (int d = 0; d < x[i]->ndim; d++)
            if (*s++ != x[i]->shape[d]) return false;
    }
    return true;
}

static int compile_sign(compiled_plan *p, int n, tn_array *const *x) {
    size_t size = 1;
    for (int i = 0; i < n; i++) size += 1 + x[i]->ndim;
    int64_t *s = p->signature = tni_alloc_array(size, sizeof *s);
    if (!s) return tni_fail_memory(size * sizeof *s, "a compiled plan");
    for (int i = 0; i < n; i++) {
        *s++ = tni_compiled_kind(x[i]);
        for (int d = 0; d < x[i]->ndim; d++) *s++ = x[i]->shape[d];
    }
    return 0;
}

/* ---- the store ---- */

static compiled_plan *compile_find(tn_compiled *c, int n, tn_array *const *x) {
    for (size_t i = 0; i < c->plans.n; i++)
        if (compile_fits(c->plans.v[i], n, x)) return c->plans.v[i];
    return NULL;
}

static void compile_evict(tn_compiled *c) {
    size_t oldest = 0;
    for (size_t i = 1; i < c->plans.n; i++)
        if (c->plans.v[i]->used < c->plans.v[oldest]->used) oldest = i;
    tni_compiled_plan_free(c->plans.v[oldest]);
    c->plans.v[oldest] = c->plans.v[--c->plans.n];
    c->stats.evictions++;
}

/* The signature of the plan used last for arguments that differ from these in sizes alone. */
static const int64_t *compile_like(const tn_compiled *c, int n, tn_array *const *x) {
    const compiled_plan *last = NULL;
    for (size_t i = 0; i < c->plans.n; i++) {
        const compiled_plan *p = c->plans.v[i];
        const int64_t *s = p->signature;
        bool like = p->n_arg == n;
        for (int k = 0; k < n && like; s += 1 + x[k++]->ndim) like = *s == tni_compiled_kind(x[k]);
        if (like && (!last || p->used > last->used)) last = p;
    }
    return last ? last->signature : NULL;
}

static int compile_keep(tn_compiled *c, compiled_plan *p, int n, tn_array *const *x) {
    int status = compile_sign(p, n, x);
    if (status) {
        tni_compiled_plan_free(p);
        return status;
    }
    if (c->plans.n == (size_t)c->capacity) compile_evict(c);
    c->plans.v[c->plans.n++] = p;
    c->stats.misses++;
    return 0;
}

static compiled_plan *compile_add(tn_compiled *c, int n, tn_array *const *x) {
    bool known = true;
    if (tni_vec_reserve(&c->plans, (size_t)c->capacity)) {
        tni_fail_memory(sizeof(compiled_plan), "a compiled plan");
        return NULL;
    }
    compiled_plan *p = tni_compiled_plan(c, n, x, &known);
    if (!p) return NULL;
    if (c->shapeless && !known && tni_compiled_record(c, n, x, compile_like(c, n, x))) {
        tni_compiled_plan_free(p);
        return NULL;
    }
    return compile_keep(c, p, n, x) ? NULL : p;
}

static compiled_plan *compile_get(tn_compiled *c, int n, tn_array *const *x) {
    compiled_plan *p = compile_find(c, n, x);
    if (p)
        c->stats.hits++;
    else
        p = compile_add(c, n, x);
    if (!p) return NULL;
    p->used = ++c->clock;
    c->stats.plans = (int64_t)c->plans.n;
    c->stats.launches = (int64_t)p->flat.launches.n;
    c->stats.arena = p->flat.arena, c->stats.bound = p->bound;
    return p;
}

/* ---- calls ---- */

/* Inputs, state and the thread's random key, evaluated and row-major. x has room for all. */
static int compile_arguments(tn_compiled *c, tn_list in, tn_array **x) {
    int n = in.n + c->n_state;
    uint32_t key[2];
    for (int i = 0; i < in.n; i++) x[i] = in.v[i];
    for (int i = 0; i < c->n_state; i++) {
        x[in.n + i] = *c->state[i];
        if (!x[in.n + i]) return tni_fail(TN_EVALUE, "compile: state %d is an empty slot", i);
    }
    int status = tni_call_inputs("compile", "argument", (tn_list){x, n});
    if (!status) status = tn_eval((tn_list){x, n});
    for (int i = 0; i < n && !status; i++) {
        if (tni_row_major(x[i])) continue;
        x[i] = tn_contiguous(x[i]);
        status = tn_eval(TN_LIST(x[i]));
    }
    tni_random_get(key);
    if (!status) x[n] = tn_array_new(key, TN_U32, TN_SHAPE(2));
    return status ? status : tn_array_status(x[n]);
}

static int compile_call(tn_compiled *c, tn_list in, tn_array **out) {
    int n = in.n + c->n_state + 1;
    tn_array *small[COMPILE_SMALL];
    tn_array **x = n <= COMPILE_SMALL ? small : tni_alloc_array((size_t)n, sizeof *x);
    if (!x) return tni_fail_memory((size_t)n * sizeof *x, "a compiled call");
    int status = compile_arguments(c, in, x);
    compiled_plan *p = status ? NULL : compile_get(c, n, x);
    if (!status) status = p ? tni_compiled_run(c, p, x, out) : tni_error_code();
    if (x != small) tni_free(x);
    return status;
}

int tn_compiled_call(tn_compiled *c, tn_list in, tn_array **out) {
    if (!c) return tni_fail(TN_EVALUE, "compile: the compiled function is NULL");
    tn_scope *s = tn_scope_begin();
    int status = tni_call_inputs("compile", "argument", in);
    if (!status && tni_tracing()) {
        status = tni_call_fns("compile", c->fn, c->ud, in, c->n_out, out);
    } else if (!status) {
        pthread_mutex_lock(&c->lock);
        status = compile_call(c, in, out);
        pthread_mutex_unlock(&c->lock);
    }
    return tni_call_leave(s, status, c->n_out, out);
}
