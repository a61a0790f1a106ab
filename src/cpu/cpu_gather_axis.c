/* gather_axis and scatter_axis: an index for every element, along one axis.
 *
 * Rows of the last axis are the runs of the inner loops. A scatter shares lanes (everything but
 * the axis) among threads, never the axis itself, so updates that meet are combined in order. */
#include "base/err.h"
#include "base/thread.h"
#include "cpu/cpu_gather.h"
#include "ops/prims.h"
#include <stdatomic.h>

enum { AXIS_RUN = 256 }; /* indices looked at together, on the stack */

typedef struct axis_job {
    const char *op;
    const tni_view *index, *a; /* a: what the indices point into: the source or the output */
    const tni_view *u;         /* scatter: the updates */
    char *out;
    int axis, last;    /* last axis of all */
    int64_t item, cut; /* cut: pieces of a row, which lanes have for themselves */
    tni_fold_fn fold;
    _Atomic int64_t bad; /* first bad position of the indices, or their number */
} axis_job;

/* Row-major position of rows over the axes but the last, and but `skip`, as element offsets. */
static int64_t axis_offset(const tni_view *shape, int skip, const int64_t *strides, int64_t at) {
    int64_t offset = 0;
    for (int d = shape->ndim - 2; d >= 0; d--) {
        if (d == skip) continue;
        offset += at % shape->shape[d] * strides[d];
        at /= shape->shape[d];
    }
    return offset;
}

/* Elements [first, first + n) of row `row` of the indices: where they point, in `at`, as offsets
 * from the row's place in `a` (the axis left out). False when one is out of range. */
static bool axis_places(axis_job *j, int64_t row, int64_t from, int64_t first, int64_t n,
                        int64_t *at) {
    const tni_view *v = j->index, *a = j->a;
    int64_t step = v->strides[j->last], size = a->shape[j->axis];
    int64_t bad = tni_cpu_indices(v, from + first * step, step, n, size, size, at);
    if (bad >= 0) {
        int64_t here = row * v->shape[j->last] + first + bad,
                old = atomic_load_explicit(&j->bad, memory_order_relaxed);
        while (here < old && !atomic_compare_exchange_weak(&j->bad, &old, here)) continue;
        return false;
    }
    int64_t sa = a->strides[j->axis], sk = j->axis == j->last ? 0 : a->strides[j->last];
    for (int64_t i = 0; i < n; i++) at[i] = at[i] * sa + (first + i) * sk;
    return true;
}

static int axis_fail(const axis_job *j) {
    const tni_view *v = j->index;
    int64_t at = j->bad, from = 0, raw;
    for (int d = j->last; d >= 0; d--) {
        from += at % v->shape[d] * v->strides[d];
        at /= v->shape[d];
    }
    tni_cpu_indices(v, from, 0, 1, 0, INT64_MAX, &raw);
    return tni_fail(
        TN_EINDEX,
        "%s: index %lld (number %lld of the indices) is out of range for axis %d of size %lld",
        j->op, (long long)raw, (long long)j->bad, j->axis, (long long)j->a->shape[j->axis]);
}

/* ---- gather ---- */

#define GATHER(T)                                                                                  \
    for (int64_t i = 0; i < n; i++) ((T *)dst)[i] = ((const T *)src)[at[i]];                       \
    break;
static void axis_pick(int64_t item, void *dst, const void *src, const int64_t *at, int64_t n) {
    switch (item) {
    case 1:
        GATHER(uint8_t)
    case 2:
        GATHER(uint16_t)
    case 4:
        GATHER(uint32_t)
    default:
        GATHER(uint64_t)
    }
}

static void axis_gather_range(void *ctx, int64_t begin, int64_t end, int worker) {
    axis_job *j = ctx;
    int64_t at[AXIS_RUN], length = j->index->shape[j->last];
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        int64_t from = axis_offset(j->index, -1, j->index->strides, r);
        /* a's place without the axis: its stride there counts as 0 */
        int64_t base = 0, rest = r;
        for (int d = j->last - 1; d >= 0; d--) {
            if (d != j->axis) base += rest % j->index->shape[d] * j->a->strides[d];
            rest /= j->index->shape[d];
        }
        for (int64_t k = 0; k < length; k += AXIS_RUN) {
            int64_t n = length - k < AXIS_RUN ? length - k : AXIS_RUN;
            if (!axis_places(j, r, from, k, n, at)) return;
            axis_pick(j->item, j->out + (r * length + k) * j->item,
                      (const char *)j->a->data + base * j->item, at, n);
        }
    }
}

static void axis_init(axis_job *j, const tni_view *index, const tni_view *a, int axis) {
    j->index = index, j->a = a, j->axis = axis, j->last = index->ndim - 1;
    j->item = (int64_t)tn_dtype_size(a->dtype);
    j->bad = tni_view_size(index);
}

int tni_cpu_gather_axis(const tni_call *c) {
    axis_job j = {.op = "take_along_axis", .out = c->out->data};
    axis_init(&j, &c->in[1], &c->in[0], ((const tni_p_gather_axis *)c->params)->axis);
    int64_t length = j.index->shape[j.last], all = j.bad;
    tni_parallel(all / length, 1 + 8192 / length, axis_gather_range, &j);
    return j.bad == all ? 0 : axis_fail(&j);
}

/* ---- scatter ---- */

/* Checks every index before a value is written. */
static void axis_check_range(void *ctx, int64_t begin, int64_t end, int worker) {
    axis_job *j = ctx;
    int64_t at[AXIS_RUN], length = j->index->shape[j->last];
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        int64_t from = axis_offset(j->index, -1, j->index->strides, r);
        for (int64_t k = 0; k < length; k += AXIS_RUN)
            if (!axis_places(j, r, from, k, length - k < AXIS_RUN ? length - k : AXIS_RUN, at))
                return;
    }
}

/* One lane: all j of the axis, elements [first, first + n) of its rows. */
static void axis_scatter_lane(axis_job *j, int64_t lane, int64_t first, int64_t n) {
    int skip = j->axis;
    int64_t at[AXIS_RUN], from = axis_offset(j->index, skip, j->index->strides, lane),
                          base = axis_offset(j->index, skip, j->a->strides, lane),
                          u = axis_offset(j->index, skip, j->u->strides, lane);
    bool along = j->axis == j->last;
    int64_t rows = along ? 1 : j->index->shape[j->axis];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = first; k < first + n; k += AXIS_RUN) {
            int64_t m = first + n - k < AXIS_RUN ? first + n - k : AXIS_RUN;
            axis_places(j, 0, from + r * j->index->strides[j->axis], k, m, at);
            int64_t s = u + r * j->u->strides[j->axis] + k * j->u->strides[j->last];
            j->fold(j->out + base * j->item, at, 0, (const char *)j->u->data + s * j->item,
                    j->u->strides[j->last], m);
        }
}

static void axis_scatter_range(void *ctx, int64_t begin, int64_t end, int worker) {
    axis_job *j = ctx;
    int64_t length = j->index->shape[j->last];
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        int64_t lane = i / j->cut, first = i % j->cut * AXIS_RUN;
        if (j->cut == 1)
            axis_scatter_lane(j, lane, 0, length);
        else
            axis_scatter_lane(j, lane, first,
                              length - first < AXIS_RUN ? length - first : AXIS_RUN);
    }
}

int tni_cpu_scatter_axis(const tni_call *c) {
    const tni_p_gather_axis *p = c->params;
    axis_job j = {.op = p->mode == TNI_SCATTER_SET ? "put_along_axis" : "scatter_axis",
                  .u = &c->in[2],
                  .out = c->out->data,
                  .fold = tni_cpu_fold(p->mode, c->out->dtype)};
    axis_init(&j, &c->in[1], c->out, p->axis);
    if (!j.fold) return tni_fail(TN_EDTYPE, "%s: not defined for this dtype", j.op);
    int64_t all = j.bad;
    if (all) {
        int64_t length = j.index->shape[j.last];
        tni_parallel(all / length, 1 + 8192 / length, axis_check_range, &j);
        if (j.bad != all) return axis_fail(&j);
    }
    tni_cpu_copy_view(&c->in[0], c->out);
    if (!all) return 0;
    int64_t length = j.index->shape[j.last], m = j.index->shape[j.axis];
    j.cut = j.axis == j.last ? 1 : (length + AXIS_RUN - 1) / AXIS_RUN;
    int64_t items = all / length / (j.axis == j.last ? 1 : m) * j.cut;
    tni_parallel(items, 1 + 8192 * items / all, axis_scatter_range, &j);
    return 0;
}
