/* Shapeless compiled functions: recordings whose sizes are open (export_open.c), one recorder for
 * arguments of the same dtypes and axes. They are made from what fn does for a few sizes, so they
 * are believed only for such as those: above 1, and whole steps apart. Steps of one, which fit all
 * sizes, are tried first; functions that need multiples of something are recorded in the steps in
 * which their sizes were seen to differ. */
#include "base/alloc.h"
#include "base/err.h"
#include "trans/compile.h"
#include <stdio.h>
#include <string.h>

enum { OPEN_TRIES = 4 }; /* for arguments of the same kinds; each runs fn 4 to 13 times */

void tni_compiled_open_free(compiled_open *o) {
    tni_free(o->kinds);
    tn_exporter_free(o->recorder);
}

static int open_no_memory(void) { return tni_fail_memory(sizeof(compiled_open), "a recording"); }

static compiled_open *open_find(tn_compiled *c, tn_list in) {
    for (size_t k = 0; k < c->open.n; k++) {
        compiled_open *o = &c->open.v[k];
        bool same = o->n == in.n;
        for (int i = 0; i < in.n && same; i++) same = o->kinds[i] == tni_compiled_kind(in.v[i]);
        if (same) return o;
    }
    return NULL;
}

int tni_compiled_recall(tn_compiled *c, tn_list in, tn_array **out) {
    const compiled_open *o = open_find(c, in);
    bool open = false;
    if (!o) return TN_ESHAPE;
    const ex_function *f = tni_ex_recorded(o->recorder);
    const ex_trace *t = tni_ex_find(f, in, &open);
    if (!t) return TN_ESHAPE;
    int status = tni_ex_build(f, "compile", t, open, in, out);
    return !status || status == TN_EMEMORY ? status : TN_ESHAPE;
}

static compiled_open *open_new(tn_compiled *c, tn_list in) {
    compiled_open o = {.n = in.n, .kinds = tni_alloc_array((size_t)in.n + 1, sizeof *o.kinds)};
    o.recorder = tni_ex_recorder(tni_compiled_fns, c, c->n_out + c->n_state);
    if (o.kinds && o.recorder && !tni_vec_push(&c->open, o)) {
        for (int i = 0; i < in.n; i++) o.kinds[i] = tni_compiled_kind(in.v[i]);
        return &c->open.v[c->open.n - 1];
    }
    tni_compiled_open_free(&o);
    open_no_memory();
    return NULL;
}

/* Where to look for what an open function does besides the sizes it was called with. */
typedef struct open_example {
    tn_compiled *c;
    tn_list in;
    const int64_t *other; /* signature of an earlier plan; NULL: none */
    bool by_one;          /* one more of each size that differs, not the other size itself */
    tn_array **x;         /* the second example */
    bool differs;
} open_example;

static int64_t open_size(const open_example *e, int i, int d, const int64_t *other) {
    int64_t n = e->in.v[i]->shape[d];
    bool free = e->other ? other[d] != n : i < e->in.n - e->c->n_state;
    if (!free || n < 2) return n;
    return e->by_one || other[d] < 2 ? n + 1 : other[d];
}

static int open_arguments(open_example *e) {
    const int64_t *other = e->other;
    int status = 0;
    for (int i = 0; i < e->in.n && !status; i++) {
        const tn_array *a = e->in.v[i];
        int64_t shape[TN_MAX_NDIM];
        bool same = true;
        if (other) other++;
        for (int d = 0; d < a->ndim; d++) {
            shape[d] = open_size(e, i, d, other);
            same = same && shape[d] == a->shape[d];
        }
        if (other) other += a->ndim;
        e->x[i] = same ? e->in.v[i] : tn_zeros((tn_ints){shape, a->ndim}, (tn_dtype)a->dtype);
        e->differs = e->differs || !same;
        status = tn_array_status(e->x[i]);
    }
    return status;
}

/* 0, TN_EMEMORY, or why not. */
static int open_try(compiled_open *o, open_example *e) {
    e->differs = false;
    int status = open_arguments(e);
    if (status || !e->differs) return status;
    o->tries++;
    return tn_exporter_add_shapeless(o->recorder, e->in, (tn_list){e->x, e->in.n});
}

static void open_say(tn_compiled *c, const char *why) {
    static const char from[] = "export: ";
    if (!strncmp(why, from, sizeof from - 1)) why += sizeof from - 1;
    snprintf(c->stats.closed, sizeof c->stats.closed, "%s", why);
}

static int open_tries(tn_compiled *c, compiled_open *o, open_example *e) {
    for (int by_one = 1; by_one >= 0 && o->tries < OPEN_TRIES; by_one--) {
        e->by_one = by_one;
        if (!by_one && !e->other) break;
        int status = open_try(o, e);
        if (!status || status == TN_EMEMORY) return status;
        open_say(c, tni_error());
    }
    return 0;
}

int tni_compiled_record(tn_compiled *c, int n, tn_array *const *x, const int64_t *other) {
    tn_list in = {(tn_array **)(uintptr_t)x, n - 1};
    compiled_open *o = open_find(c, in);
    if (!o) o = open_new(c, in);
    if (!o) return TN_EMEMORY;
    if (o->tries >= OPEN_TRIES) return 0;
    tn_scope *s = tn_scope_begin();
    open_example e = {.c = c, .in = in, .other = other};
    e.x = tni_alloc_array((size_t)n, sizeof *e.x);
    int status = e.x ? open_tries(c, o, &e) : open_no_memory();
    tni_free(e.x);
    tn_scope_end(s);
    return status;
}
