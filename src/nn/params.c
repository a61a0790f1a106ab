/* Parameter trees: names for slots, and gradients by what they hold. */
#include "nn/params.h"
#include "base/alloc.h"
#include "base/err.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

tn_params *tn_params_new(void) {
    tn_params *p = tni_calloc(1, sizeof *p);
    if (!p) tni_fail_memory(sizeof *p, "a parameter tree");
    return p;
}

void tn_params_free(tn_params *p) {
    if (!p) return;
    for (size_t i = 0; i < p->v.n; i++) {
        tn_drop(*p->slot.v[i]);
        *p->slot.v[i] = NULL;
        tni_free(p->v.v[i].name);
    }
    tni_vec_free(&p->v);
    tni_vec_free(&p->slot);
    tni_vec_free(&p->mark);
    for (size_t i = 0; i < p->block.n; i++) tni_free(p->block.v[i]);
    tni_vec_free(&p->block);
    tni_str_free(&p->prefix);
    tni_free(p);
}

/* ---- building ---- */

static int params_no_memory(void) { return tni_fail_memory(sizeof(tni_param), "a parameter"); }

int tn_params_push(tn_params *p, const char *fmt, ...) {
    char part[256];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(part, sizeof part, fmt, ap);
    va_end(ap);
    if (n < 1 || n >= (int)sizeof part)
        return tni_fail(TN_EVALUE, "params: a part of a name has 1 to %zu bytes, not %d",
                        sizeof part - 1, n);
    size_t before = p->prefix.n;
    if (tni_vec_push(&p->mark, before)) return params_no_memory();
    if (!tni_str_puts(&p->prefix, part) && !tni_str_putc(&p->prefix, '.')) return 0;
    tn_params_pop(p);
    return params_no_memory();
}

void tn_params_pop(tn_params *p) {
    if (!p->mark.n) return;
    p->prefix.n = p->mark.v[--p->mark.n];
    if (p->prefix.v) p->prefix.v[p->prefix.n] = 0;
}

static char *params_full_name(const tn_params *p, const char *name) {
    tni_str s = {0};
    if (!tni_str_append(&s, p->prefix.v ? p->prefix.v : "", p->prefix.n) && !tni_str_puts(&s, name))
        return s.v;
    tni_str_free(&s);
    return NULL;
}

int tn_params_add(tn_params *p, const char *name, tn_array **slot, tn_array *init) {
    *slot = NULL;
    int status = tn_array_status(init);
    if (status)
        return tni_fail(status, "%s%s: %s", p->prefix.n ? p->prefix.v : "", name,
                        tn_array_error(init));
    if (!*name) return tni_fail(TN_EVALUE, "params: a parameter without a name");
    if (tni_vec_reserve(&p->slot, p->slot.n + 1) || tni_vec_reserve(&p->v, p->v.n + 1))
        return params_no_memory();
    char *full = params_full_name(p, name);
    if (!full) return params_no_memory();
    if (tn_params_find(p, full) >= 0) {
        status = tni_fail(TN_EVALUE, "params: there is a parameter %s already", full);
        tni_free(full);
        return status;
    }
    p->v.v[p->v.n++] = (tni_param){.name = full};
    p->slot.v[p->slot.n++] = slot;
    *slot = tn_keep(init);
    return 0;
}

void tni_params_fix(tn_params *p) {
    tni_param *last = &p->v.v[p->v.n - 1];
    last->frozen = last->fixed = true;
}

void *tni_params_block(tn_params *p, size_t count, size_t size) {
    void *block = tni_calloc(count, size);
    if (block && !tni_vec_push(&p->block, block)) return block;
    tni_free(block);
    tni_fail_memory(count * size, "layers");
    return NULL;
}

/* ---- asking ---- */

static bool params_in(const tn_params *p, int i) { return i >= 0 && (size_t)i < p->v.n; }

int tn_params_count(const tn_params *p) { return (int)p->v.n; }

int64_t tn_params_size(const tn_params *p) {
    int64_t n = 0;
    for (size_t i = 0; i < p->slot.n; i++) n += tn_size(*p->slot.v[i]);
    return n;
}

const char *tn_params_name(const tn_params *p, int i) {
    return params_in(p, i) ? p->v.v[i].name : "";
}

tn_array **tn_params_slot(const tn_params *p, int i) {
    return params_in(p, i) ? p->slot.v[i] : NULL;
}

int tn_params_find(const tn_params *p, const char *name) {
    for (size_t i = 0; i < p->v.n; i++)
        if (!strcmp(p->v.v[i].name, name)) return (int)i;
    return -1;
}

tn_slots tn_params_slots(const tn_params *p) { return (tn_slots){p->slot.v, (int)p->slot.n}; }

/* '*' stands for any text. Goes back to the last star only, so it takes at most |s| |pattern|. */
bool tni_params_fits(const char *pattern, const char *s) {
    const char *star = NULL, *from = s;
    while (*s) {
        if (*pattern == '*') {
            star = pattern++, from = s;
        } else if (*pattern == *s) {
            pattern++, s++;
        } else if (star) {
            pattern = star + 1, s = ++from;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return !*pattern;
}

int tn_params_freeze(tn_params *p, const char *pattern, bool frozen) {
    int n = 0;
    for (size_t i = 0; i < p->v.n; i++)
        if (tni_params_fits(pattern, p->v.v[i].name))
            p->v.v[i].frozen = frozen || p->v.v[i].fixed, n++;
    return n;
}

bool tn_params_frozen(const tn_params *p, int i) { return params_in(p, i) && p->v.v[i].frozen; }

int tn_params_trainable(const tn_params *p) {
    int n = 0;
    for (size_t i = 0; i < p->v.n; i++) n += !p->v.v[i].frozen;
    return n;
}

/* ---- a table to look at ---- */

static int params_shape_text(const tn_array *a, char *buf, size_t n) {
    size_t at = (size_t)snprintf(buf, n, "[");
    for (int d = 0; d < tn_ndim(a) && at < n; d++)
        at += (size_t)snprintf(buf + at, n - at, "%s%lld", d ? ", " : "", (long long)tn_dim(a, d));
    if (at < n) at += (size_t)snprintf(buf + at, n - at, "]");
    return (int)at;
}

char *tn_params_summary(const tn_params *p) {
    tni_str s = {0};
    char shape[TN_MAX_NDIM * 22 + 4];
    int width = 4, status = 0;
    int64_t trainable = 0;
    for (size_t i = 0; i < p->v.n; i++)
        if ((int)strlen(p->v.v[i].name) > width) width = (int)strlen(p->v.v[i].name);
    status =
        tni_str_printf(&s, "%-*s  %-20s %-9s %12s\n", width, "name", "shape", "dtype", "numbers");
    for (size_t i = 0; i < p->v.n && !status; i++) {
        const tn_array *a = *p->slot.v[i];
        bool frozen = p->v.v[i].frozen;
        params_shape_text(a, shape, sizeof shape);
        if (!frozen) trainable += tn_size(a);
        status = tni_str_printf(&s, "%-*s  %-20s %-9s %12lld%s\n", width, p->v.v[i].name, shape,
                                tn_dtype_name(tn_dtype_of(a)), (long long)tn_size(a),
                                frozen ? "  frozen" : "");
    }
    if (!status)
        status = tni_str_printf(&s, "%zu parameters, %lld numbers, of which %lld are trained\n",
                                p->v.n, (long long)tn_params_size(p), (long long)trainable);
    if (!status) return s.v;
    params_no_memory();
    tni_str_free(&s);
    return NULL;
}

/* ---- gradients ---- */

typedef struct params_run {
    tn_params *p;
    tn_fns fn;
    void *ud;
    tn_list in;
    tn_array **before; /* of all slots; kept until the end */
    tn_array **x;      /* of those that are not frozen */
} params_run;

/* Stand-ins into the slots that are not frozen, and those that are still there out again. */
static void params_swap(params_run *r, tn_list stand_in, bool put) {
    for (size_t i = 0, k = 0; i < r->p->v.n; i++) {
        if (r->p->v.v[i].frozen) continue;
        tn_array **slot = r->p->slot.v[i], *t = stand_in.v[k++];
        if (put || *slot == t) (void)tn_assign(slot, put ? t : r->before[i]);
    }
}

static int params_call(tn_list traced, tn_array **out, int n_out, void *ud) {
    params_run *r = ud;
    params_swap(r, traced, true);
    int status = r->fn(r->in, out, n_out, r->ud);
    params_swap(r, traced, false);
    return status;
}

static void params_settle(params_run *r, int status) {
    for (size_t i = 0; i < r->p->v.n; i++) {
        if (status) (void)tn_assign(r->p->slot.v[i], r->before[i]);
        tn_drop(r->before[i]);
    }
}

int tn_nn_value_and_grad(tn_params *p, tn_fns fn, void *ud, tn_list in, int n_out, tn_array **out,
                         tn_array **grads) {
    params_run r = {p, fn, ud, in, NULL, NULL};
    int n = 0, status = 0;
    r.before = tni_alloc_array(2 * p->v.n + 1, sizeof *r.before);
    if (!r.before) status = params_no_memory();
    if (!status) r.x = r.before + p->v.n;
    for (size_t i = 0; i < p->v.n && !status; i++) {
        r.before[i] = tn_keep(*p->slot.v[i]);
        if (!p->v.v[i].frozen) r.x[n++] = r.before[i];
    }
    if (status) {
        tn_array *bad = tn_error_array(status, "%s", tn_error());
        for (int k = 0; k < n_out; k++) out[k] = bad;
        for (int k = 0; k < tn_params_trainable(p); k++) grads[k] = bad;
        return status;
    }
    status = tn_value_and_grad_of(fn ? params_call : NULL, &r, (tn_list){r.x, n}, NULL, n, n_out,
                                  out, grads);
    params_settle(&r, status);
    tni_free(r.before);
    return status;
}
