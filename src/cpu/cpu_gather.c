/* gather and scatter: places in an array given by index arrays.
 *
 * A scatter gives the same bits at any number of threads: updates that meet in one element are
 * combined in the order of the indices by one thread. Threads share the work by ranges of
 * destinations (every thread reads all indices, which are few beside the data) and by parts of the
 * slices. Only slices longer than one along an indexed axis, which may overlap, run on one thread.
 *
 * Indices are read and checked before anything is written: a bad one costs no partial result. */
#include "cpu/cpu_gather.h"
#include "base/err.h"
#include "base/scratch.h"
#include "base/thread.h"
#include "ops/prims.h"
#include <stdatomic.h>
#include <string.h>

enum {
    GATHER_RUN = 256,        /* indices looked at together, on the stack */
    GATHER_PIECE = 4096,     /* elements of a slice that one thread takes at a time */
    GATHER_SMALL = 16 * 1024 /* elements of updates that are not worth a second thread */
};

static int64_t gather_min(int64_t a, int64_t b) { return a < b ? a : b; }

/* Element offset of row-major position `at` of n axes. */
static int64_t gather_offset(int n, const int64_t *shape, const int64_t *strides, int64_t at) {
    int64_t offset = 0;
    for (int d = n - 1; d >= 0; d--) {
        offset += at % shape[d] * strides[d];
        at /= shape[d];
    }
    return offset;
}

/* Steps of two operands over the same axes, with as few axes as both allow. The last one is the
 * run that inner loops take; there is always one. */
typedef struct gather_steps {
    int n;
    int64_t shape[TN_MAX_NDIM], a[TN_MAX_NDIM], b[TN_MAX_NDIM];
    int64_t rows, run; /* product of the axes before the last; the last */
} gather_steps;

static void gather_collapse(gather_steps *s, int n, const int64_t *shape, const int64_t *a,
                            const int64_t *b) {
    int k = 0;
    for (int d = 0; d < n; d++) {
        if (shape[d] == 1) continue;
        if (k && s->a[k - 1] == a[d] * shape[d] && s->b[k - 1] == b[d] * shape[d])
            s->shape[k - 1] *= shape[d], s->a[k - 1] = a[d], s->b[k - 1] = b[d];
        else
            s->shape[k] = shape[d], s->a[k] = a[d], s->b[k] = b[d], k++;
    }
    if (!k) s->shape[0] = 1, s->a[0] = s->b[0] = 1, k = 1;
    s->n = k, s->rows = 1, s->run = s->shape[k - 1];
    for (int d = 0; d < k - 1; d++) s->rows *= s->shape[d];
}

/* ---- copying `a` to the output before updates ---- */

typedef struct gather_copy_job {
    gather_steps s; /* a: the destination, b: the source */
    tni_fold_fn set;
    const char *src;
    char *dst;
    int64_t item;
} gather_copy_job;

static void gather_copy_range(void *ctx, int64_t begin, int64_t end, int worker) {
    const gather_copy_job *j = ctx;
    const gather_steps *s = &j->s;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        char *d = j->dst + gather_offset(s->n - 1, s->shape, s->a, r) * j->item;
        const char *p = j->src + gather_offset(s->n - 1, s->shape, s->b, r) * j->item;
        if (s->a[s->n - 1] == 1 && s->b[s->n - 1] == 1)
            memcpy(d, p, (size_t)(s->run * j->item));
        else
            j->set(d, NULL, s->a[s->n - 1], p, s->b[s->n - 1], s->run);
    }
}

void tni_cpu_copy_view(const tni_view *a, const tni_view *out) {
    gather_copy_job j = {.src = a->data, .dst = out->data};
    if (a->data == out->data) return; /* TNI_F_ONTO */
    j.item = (int64_t)tn_dtype_size(a->dtype);
    j.set = tni_cpu_fold(TNI_SCATTER_SET, a->dtype);
    gather_collapse(&j.s, a->ndim, a->shape, out->strides, a->strides);
    if (j.s.rows == 1 && j.s.run > 2 * GATHER_PIECE && j.s.n < TN_MAX_NDIM) {
        /* one long run: cut, so that threads share it */
        int64_t whole = j.s.run / GATHER_PIECE;
        int64_t shape[2] = {whole, GATHER_PIECE}, da = j.s.a[0], db = j.s.b[0];
        int64_t rest = j.s.run - whole * GATHER_PIECE, at = whole * GATHER_PIECE;
        j.set((char *)j.dst + at * da * j.item, NULL, da, j.src + at * db * j.item, db, rest);
        j.s.n = 2, j.s.rows = whole, j.s.run = GATHER_PIECE;
        memcpy(j.s.shape, shape, sizeof shape);
        j.s.a[0] = da * GATHER_PIECE, j.s.a[1] = da;
        j.s.b[0] = db * GATHER_PIECE, j.s.b[1] = db;
    }
    tni_parallel(j.s.rows, 1 + 65536 / (1 + j.s.run * j.item), gather_copy_range, &j);
}

/* ---- where each index tuple points ---- */

typedef struct gather_places {
    const tni_view *index, *a; /* n index arrays; what they point into */
    const int64_t *strides;    /* of a, or of the output in its place */
    const int64_t *slice;      /* its size along each axis of a */
    const tni_p_gather *p;
    int64_t count;
    int64_t *at;         /* [count] element offsets */
    _Atomic int64_t bad; /* first bad position, or count */
} gather_places;

/* Threads meet bad indices in any order; the message names the first. */
static void gather_bad(_Atomic int64_t *bad, int64_t at) {
    int64_t old = atomic_load_explicit(bad, memory_order_relaxed);
    while (at < old && !atomic_compare_exchange_weak(bad, &old, at)) continue;
}

static void gather_places_run(gather_places *g, int64_t begin, int64_t n) {
    int64_t index[GATHER_RUN];
    memset(g->at + begin, 0, sizeof *g->at * (size_t)n);
    for (int k = 0; k < g->p->n; k++) {
        const tni_view *v = &g->index[k];
        int axis = g->p->axes[k];
        int64_t size = g->a->shape[axis], limit = size - g->slice[axis] + 1;
        int64_t last = v->ndim ? v->shape[v->ndim - 1] : 1,
                step = v->ndim ? v->strides[v->ndim - 1] : 0;
        for (int64_t i = 0; i < n;) { /* a part of one row of the index array at a time */
            int64_t m = gather_min(n - i, last - (begin + i) % last);
            int64_t from = gather_offset(v->ndim, v->shape, v->strides, begin + i);
            int64_t bad = tni_cpu_indices(v, from, step, m, size, limit, index);
            if (bad >= 0) {
                gather_bad(&g->bad, begin + i + bad);
                return;
            }
            for (int64_t q = 0; q < m; q++) g->at[begin + i + q] += index[q] * g->strides[axis];
            i += m;
        }
    }
}

static void gather_places_range(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    for (int64_t i = begin; i < end; i += GATHER_RUN)
        gather_places_run(ctx, i, gather_min(GATHER_RUN, end - i));
}

static int gather_places_fail(const gather_places *g, const char *op) {
    for (int k = 0; k < g->p->n; k++) {
        const tni_view *v = &g->index[k];
        int axis = g->p->axes[k];
        int64_t size = g->a->shape[axis], value, raw;
        int64_t from = gather_offset(v->ndim, v->shape, v->strides, g->bad);
        tni_cpu_indices(v, from, 0, 1, 0, INT64_MAX, &raw);
        if (tni_cpu_indices(v, from, 0, 1, size, size - g->slice[axis] + 1, &value) < 0) continue;
        return tni_fail(TN_EINDEX,
                        "%s: index %lld (number %lld of index array %d) is out of range for a "
                        "slice of %lld of axis %d of size %lld",
                        op, (long long)raw, (long long)g->bad, k, (long long)g->slice[axis], axis,
                        (long long)size);
    }
    return tni_fail(TN_EINDEX, "%s: an index is out of range", op);
}

static int gather_places_make(gather_places *g, const char *op) {
    g->at = tni_scratch_array((size_t)g->count, sizeof *g->at);
    if (!g->at) return tni_fail_memory((size_t)g->count * sizeof *g->at, op);
    g->bad = g->count;
    tni_parallel(g->count, 4096, gather_places_range, g);
    if (g->bad == g->count) return 0;
    int status = gather_places_fail(g, op);
    tni_scratch_give(g->at);
    return status;
}

/* ---- gather ---- */

typedef struct gather_job {
    gather_places p;
    gather_steps s; /* a: the output or the updates' place in it; b: the source or the updates */
    const char *src;
    char *dst;
    int64_t item, size; /* size: elements of a slice */
    tni_fold_fn fold;
    const tni_view *u;     /* scatter: the updates */
    int64_t parts, pieces; /* scatter: ranges of places; cuts of a run */
    int64_t most;          /* scatter: the largest place there may be */
} gather_job;

static void gather_range(void *ctx, int64_t begin, int64_t end, int worker) {
    const gather_job *j = ctx;
    const gather_steps *s = &j->s;
    int64_t da = s->a[s->n - 1], db = s->b[s->n - 1];
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        int64_t t = r / s->rows, q = r % s->rows;
        char *d = j->dst + (t * j->size + gather_offset(s->n - 1, s->shape, s->a, q)) * j->item;
        const char *p =
            j->src + (j->p.at[t] + gather_offset(s->n - 1, s->shape, s->b, q)) * j->item;
        if (da == 1 && db == 1)
            memcpy(d, p, (size_t)(s->run * j->item));
        else
            j->fold(d, NULL, da, p, db, s->run);
    }
}

int tni_cpu_gather(const tni_call *c) {
    const tni_p_gather *p = c->params;
    const tni_view *a = &c->in[0], *o = c->out;
    int ni = o->ndim - a->ndim;
    gather_job j = {.src = a->data, .dst = o->data, .size = 1};
    j.p = (gather_places){.index = c->in + 1, .a = a, .strides = a->strides, .p = p, .count = 1};
    j.p.slice = o->shape + ni;
    for (int d = 0; d < ni; d++) j.p.count *= o->shape[d];
    for (int d = ni; d < o->ndim; d++) j.size *= o->shape[d];
    j.item = (int64_t)tn_dtype_size(a->dtype);
    j.fold = tni_cpu_fold(TNI_SCATTER_SET, a->dtype);
    gather_collapse(&j.s, a->ndim, o->shape + ni, o->strides + ni, a->strides);
    int status = gather_places_make(&j.p, "gather");
    if (status) return status;
    tni_parallel(j.p.count * j.s.rows, 1 + 65536 / (1 + j.s.run * j.item), gather_range, &j);
    tni_scratch_give(j.p.at);
    return 0;
}

/* ---- scatter ---- */

static void gather_scatter_slice(const gather_job *j, int64_t t, int64_t first, int64_t n) {
    const gather_steps *s = &j->s;
    const tni_view *u = j->u;
    int64_t da = s->a[s->n - 1], db = s->b[s->n - 1];
    int64_t from = gather_offset(u->ndim - j->p.a->ndim, u->shape, u->strides, t);
    for (int64_t q = 0; q < s->rows; q++) {
        int64_t d = j->p.at[t] + gather_offset(s->n - 1, s->shape, s->a, q) + first * da;
        int64_t p = from + gather_offset(s->n - 1, s->shape, s->b, q) + first * db;
        j->fold(j->dst + d * j->item, NULL, da, j->src + p * j->item, db, n);
    }
}

static void gather_scatter_range(void *ctx, int64_t begin, int64_t end, int worker) {
    const gather_job *j = ctx;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        int64_t part = i / j->pieces, first = i % j->pieces * GATHER_PIECE;
        int64_t n = j->pieces == 1 ? j->s.run : gather_min(GATHER_PIECE, j->s.run - first);
        int64_t each = j->most / j->parts + 1, low = part * each, high = low + each;
        for (int64_t t = 0; t < j->p.count; t++)
            if (j->p.at[t] >= low && j->p.at[t] < high) gather_scatter_slice(j, t, first, n);
    }
}

/* How the work is shared; see the head of this file. */
static void gather_scatter_parts(gather_job *j) {
    const gather_places *p = &j->p;
    bool overlap = false;
    j->parts = j->pieces = 1, j->most = 0;
    for (int d = 0; d < p->a->ndim; d++) j->most += (p->a->shape[d] - 1) * p->strides[d];
    for (int k = 0; k < p->p->n; k++) overlap = overlap || p->slice[p->p->axes[k]] > 1;
    if (overlap || p->count * j->size < GATHER_SMALL) return;
    j->parts = j->size >= 64 ? 4 * tni_threads() : tni_threads();
    j->pieces = (j->s.run + GATHER_PIECE - 1) / GATHER_PIECE;
}

int tni_cpu_scatter(const tni_call *c) {
    const tni_p_gather *p = c->params;
    const tni_view *a = &c->in[0], *u = &c->in[1 + p->n], *o = c->out;
    int ni = u->ndim - a->ndim;
    gather_job j = {.src = u->data, .dst = o->data, .size = 1, .u = u};
    j.p = (gather_places){.index = c->in + 1, .a = a, .strides = o->strides, .p = p, .count = 1};
    j.p.slice = u->shape + ni;
    for (int d = 0; d < ni; d++) j.p.count *= u->shape[d];
    for (int d = ni; d < u->ndim; d++) j.size *= u->shape[d];
    j.item = (int64_t)tn_dtype_size(a->dtype);
    j.fold = tni_cpu_fold(p->mode, a->dtype);
    if (!j.fold) return tni_fail(TN_EDTYPE, "scatter: not defined for %s", tn_dtype_name(a->dtype));
    if (!j.p.count || !j.size) {
        tni_cpu_copy_view(a, o);
        return 0;
    }
    gather_collapse(&j.s, a->ndim, u->shape + ni, o->strides, u->strides + ni);
    int status = gather_places_make(&j.p, "scatter");
    if (status) return status;
    tni_cpu_copy_view(a, o);
    gather_scatter_parts(&j);
    tni_parallel(j.parts * j.pieces, 1, gather_scatter_range, &j);
    tni_scratch_give(j.p.at);
    return 0;
}
