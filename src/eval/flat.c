/* Recording launches, and running them again. */
#include "eval/flat.h"
#include "base/err.h"
#include "core/buffer.h"
#include "eval/run.h"
#include <stdlib.h>
#include <string.h>

_Thread_local tni_flat *tni_recording;

enum { FLAT_ALIGN = 64 };
/* Addresses that no memory of a process has (user space ends at 2^47 or 2^56). */
static const uint64_t flat_first = (uint64_t)1 << 60;

void tni_flat_init(tni_flat *f) {
    memset(f, 0, sizeof *f);
    f->next = flat_first;
}

static void flat_drop(tni_flat_launch *l) {
    if (l->prim) tni_prim_release(l->prim);
    tni_free(l->program);
    tni_free(l->view);
}

void tni_flat_free(tni_flat *f) {
    for (size_t i = 0; i < f->launches.n; i++) flat_drop(&f->launches.v[i]);
    for (size_t i = 0; i < f->constants.n; i++) tni_array_release(f->constants.v[i]);
    tni_vec_free(&f->constants);
    tni_vec_free(&f->launches);
    tni_vec_free(&f->buffers);
    tni_vec_free(&f->operands);
    tni_free(f->base);
    f->base = NULL;
}

/* ---- recording ---- */

static int flat_no_memory(void) { return tni_fail_memory(sizeof(tni_flat_launch), "a plan"); }

static size_t flat_round(size_t bytes) {
    return (bytes + FLAT_ALIGN - 1) & ~(size_t)(FLAT_ALIGN - 1);
}

tni_buffer *tni_flat_new(tni_flat *f, size_t bytes) {
    size_t size = flat_round(bytes ? bytes : 1);
    tni_buffer *b = tni_buffer_planned(f->next, size);
    if (!b) return NULL;
    tni_flat_buffer record = {.address = f->next, .size = size, .first = INT32_MAX, .last = -1};
    if (tni_vec_push(&f->buffers, record)) {
        tni_buffer_release(b);
        flat_no_memory();
        return NULL;
    }
    f->next += size + FLAT_ALIGN; /* so that an end is never a beginning */
    return b;
}

tni_flat_ptr tni_flat_find(const tni_flat *f, const void *address) {
    uint64_t a = (uint64_t)(uintptr_t)address;
    if (a < flat_first) return (tni_flat_ptr){-1, (int64_t)(intptr_t)address};
    size_t low = 0, high = f->buffers.n;
    while (high - low > 1) {
        size_t mid = (low + high) / 2;
        if (f->buffers.v[mid].address <= a)
            low = mid;
        else
            high = mid;
    }
    return (tni_flat_ptr){(int32_t)low, (int64_t)(a - f->buffers.v[low].address)};
}

int tni_flat_keep(tni_flat *f, tn_array *a) {
    if (a->buf && a->buf->planned) return 0;
    if (tni_vec_push(&f->constants, a)) return flat_no_memory();
    tni_array_retain(a);
    return 0;
}

static int flat_operand(tni_flat *f, const void *address, bool written) {
    tni_flat_ptr p = tni_flat_find(f, address);
    if (p.buffer >= 0) {
        tni_flat_buffer *b = &f->buffers.v[p.buffer];
        int32_t now = (int32_t)f->launches.n;
        if (b->first > now) b->first = now;
        b->last = now;
        b->written = b->written || written;
    }
    return tni_vec_push(&f->operands, p);
}

static int flat_record(tni_flat *f, tni_flat_launch *l) {
    int status = l->program || l->view ? 0 : TN_EMEMORY;
    l->operand = (int64_t)f->operands.n - l->n_in - l->n_out;
    if (!status) status = tni_vec_push(&f->launches, *l);
    if (!status) return 0;
    flat_drop(l);
    return flat_no_memory();
}

static int flat_program(tni_flat *f, const tni_program *p, const void *const *in,
                        void *const *out) {
    tni_flat_launch l = {.program = tni_alloc(sizeof *p), .n_in = p->n_in, .n_out = p->n_out};
    if (l.program) *l.program = *p;
    int status = 0;
    for (int i = 0; i < l.n_in && !status; i++) status = flat_operand(f, in[i], false);
    for (int i = 0; i < l.n_out && !status; i++) status = flat_operand(f, out[i], true);
    if (status) {
        tni_free(l.program);
        return flat_no_memory();
    }
    return flat_record(f, &l);
}

/* One block: the views, then their shapes and strides, then the parameters. */
static tni_view *flat_views(const tni_call *c, size_t params_size, const void **params) {
    int n = c->n_in + c->n_out;
    size_t dims = 0;
    for (int i = 0; i < n; i++)
        dims += 2 * (size_t)(i < c->n_in ? c->in[i] : c->out[i - c->n_in]).ndim;
    tni_view *v = tni_alloc((size_t)n * sizeof *v + dims * sizeof(int64_t) + params_size + 1);
    if (!v) return NULL;
    int64_t *at = (int64_t *)(void *)(v + n);
    for (int i = 0; i < n; i++) {
        v[i] = i < c->n_in ? c->in[i] : c->out[i - c->n_in];
        size_t nd = (size_t)v[i].ndim;
        memcpy(at, v[i].shape, nd * sizeof *at);
        memcpy(at + nd, v[i].strides, nd * sizeof *at);
        v[i].shape = at, v[i].strides = at + nd;
        at += 2 * nd;
    }
    if (params_size) memcpy(at, c->params, params_size);
    *params = at;
    return v;
}

static int flat_kernel(tni_flat *f, tni_kernel kernel, const tni_call *c, const tni_prim *prim) {
    tni_flat_launch l = {
        .kernel = kernel, .prim = prim, .call = *c, .n_in = c->n_in, .n_out = c->n_out};
    l.view = flat_views(c, prim->params_size, &l.call.params);
    if (!l.view) return flat_no_memory();
    tni_prim_retain(prim);
    l.call.in = l.view, l.call.out = l.view + c->n_in;
    int status = 0;
    for (int i = 0; i < l.n_in && !status; i++) status = flat_operand(f, c->in[i].data, false);
    for (int i = 0; i < l.n_out && !status; i++) status = flat_operand(f, c->out[i].data, true);
    if (status) {
        flat_drop(&l);
        return flat_no_memory();
    }
    return flat_record(f, &l);
}

int tni_launch_program(const tni_program *p, const void *const *in, void *const *out) {
    return tni_recording ? flat_program(tni_recording, p, in, out)
                         : tni_backends[0]->run(p, in, out);
}

int tni_launch_kernel(tni_kernel kernel, const tni_call *c, const tni_prim *prim) {
    return tni_recording ? flat_kernel(tni_recording, kernel, c, prim) : kernel(c);
}

tni_buffer *tni_eval_buffer(size_t bytes) {
    return tni_recording ? tni_flat_new(tni_recording, bytes) : tni_buffer_new(bytes);
}

/* ---- the arena ---- */

static int32_t flat_end(const tni_flat *f, size_t i, const bool *until_end) {
    return until_end[i] ? (int32_t)f->launches.n : f->buffers.v[i].last;
}

static bool flat_lives(const tni_flat *f, size_t i, const bool *until_end) {
    const tni_flat_buffer *b = &f->buffers.v[i];
    return b->kind == TNI_FLAT_ARENA && b->first <= flat_end(f, i, until_end);
}

int tni_flat_bound(const tni_flat *f, const bool *until_end, size_t *bound) {
    size_t n = f->launches.n + 2, now = 0;
    size_t *change = tni_calloc(n, sizeof *change); /* wraps around where it falls */
    if (!change) return flat_no_memory();
    for (size_t i = 0; i < f->buffers.n; i++) {
        if (!flat_lives(f, i, until_end)) continue;
        change[f->buffers.v[i].first] += f->buffers.v[i].size;
        change[flat_end(f, i, until_end) + 1] -= f->buffers.v[i].size;
    }
    *bound = 0;
    for (size_t t = 0; t < n; t++) {
        now += change[t];
        if (now > *bound) *bound = now;
    }
    tni_free(change);
    return 0;
}

typedef struct flat_item {
    size_t size;
    int32_t first, last, buffer;
} flat_item;

/* Largest first; among equals the one that begins first. */
static int flat_compare(const void *a, const void *b) {
    const flat_item *x = a, *y = b;
    if (x->size != y->size) return x->size < y->size ? 1 : -1;
    if (x->first != y->first) return x->first < y->first ? -1 : 1;
    return x->buffer < y->buffer ? -1 : 1;
}

/* The lowest offset at which item k fits beside those of by_offset[0..n) that live with it; they
 * are sorted by offset. */
static size_t flat_fit(const tni_flat *f, const flat_item *k, const int32_t *by_offset, size_t n,
                       const bool *until_end) {
    size_t at = 0, best = SIZE_MAX, best_gap = SIZE_MAX;
    for (size_t j = 0; j < n; j++) {
        const tni_flat_buffer *b = &f->buffers.v[by_offset[j]];
        if (b->first > k->last || flat_end(f, (size_t)by_offset[j], until_end) < k->first) continue;
        if (b->offset > at && b->offset - at >= k->size && b->offset - at < best_gap)
            best = at, best_gap = b->offset - at;
        if (b->offset + b->size > at) at = b->offset + b->size;
    }
    return best == SIZE_MAX ? at : best;
}

int tni_flat_place(tni_flat *f, const bool *until_end) {
    size_t n = 0, m = f->buffers.n;
    flat_item *items = tni_alloc_array(m + 1, sizeof *items);
    int32_t *by_offset = tni_alloc_array(m + 1, sizeof *by_offset);
    f->base = tni_calloc(m + 1, sizeof *f->base);
    if (!items || !by_offset || !f->base) {
        tni_free(items), tni_free(by_offset);
        return flat_no_memory();
    }
    for (size_t i = 0; i < m; i++)
        if (flat_lives(f, i, until_end))
            items[n++] = (flat_item){f->buffers.v[i].size, f->buffers.v[i].first,
                                     flat_end(f, i, until_end), (int32_t)i};
    if (n) qsort(items, n, sizeof *items, flat_compare);
    f->arena = 0;
    for (size_t k = 0; k < n; k++) {
        tni_flat_buffer *b = &f->buffers.v[items[k].buffer];
        b->offset = flat_fit(f, &items[k], by_offset, k, until_end);
        size_t at = k;
        for (; at && f->buffers.v[by_offset[at - 1]].offset > b->offset; at--)
            by_offset[at] = by_offset[at - 1];
        by_offset[at] = items[k].buffer;
        if (b->offset + b->size > f->arena) f->arena = b->offset + b->size;
    }
    tni_free(items);
    tni_free(by_offset);
    return 0;
}

/* ---- running ---- */

static inline void *flat_address(const tni_flat *f, tni_flat_ptr p) {
    return p.buffer < 0 ? (void *)(intptr_t)p.at : f->base[p.buffer] + p.at;
}

static int flat_launch(const tni_flat *f, const tni_flat_launch *l) {
    const tni_flat_ptr *p = f->operands.v + l->operand;
    if (l->program) {
        const void *in[TNI_PROG_MAX_IN];
        void *out[TNI_PROG_MAX_OUT];
        for (int i = 0; i < l->n_in; i++) in[i] = flat_address(f, p[i]);
        for (int i = 0; i < l->n_out; i++) out[i] = flat_address(f, p[l->n_in + i]);
        return tni_backends[0]->run(l->program, in, out);
    }
    for (int i = 0; i < l->n_in + l->n_out; i++) l->view[i].data = flat_address(f, p[i]);
    return l->kernel(&l->call);
}

int tni_flat_run(tni_flat *f, char *arena, size_t *done) {
    int status = 0;
    for (size_t i = 0; i < f->buffers.n; i++)
        if (f->buffers.v[i].kind == TNI_FLAT_ARENA && f->arena)
            f->base[i] = arena + f->buffers.v[i].offset;
    for (*done = 0; *done < f->launches.n; ++*done)
        if ((status = flat_launch(f, &f->launches.v[*done]))) break;
    return status;
}
