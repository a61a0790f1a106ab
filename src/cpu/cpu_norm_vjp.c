/* Gradients of normalisations, row by row. Those of weight and bias are sums over the rows that
 * share them: of blocks of NORM_ROWS rows each, then of the blocks in their order, so that bits do
 * not depend on threads. f16 and bf16 are widened, computed in f32 and rounded once. */
#include "base/err.h"
#include "base/scratch.h"
#include "base/thread.h"
#include "cpu/cpu_nn.h"
#include "cpu/nn.h"
#include "ops/prims.h"
#include <stdatomic.h>
#include <string.h>

enum { NORM_ROWS = 64 };

typedef struct norm_job {
    const tni_call *c;
    const tni_p_norm_vjp *p;
    const tni_nn_isa *isa;
    tn_dtype dtype;
    int64_t n, weights; /* how many there are: each serves `rows` rows in `blocks` blocks */
    int64_t rows, blocks;
    float *w;       /* [weights, n] */
    float *partial; /* [weights, blocks, 2, n]: of the weight, of the bias */
    _Atomic int failed;
} norm_job;

static void norm_widen(const norm_job *j, const void *src, float *dst) {
    if (j->dtype == TN_F32)
        memcpy(dst, src, (size_t)j->n * sizeof *dst);
    else
        (j->dtype == TN_F16 ? j->isa->from_f16 : j->isa->from_bf16)(src, dst, j->n);
}
static void norm_narrow(const norm_job *j, const float *src, void *dst) {
    if (j->dtype == TN_F32)
        memcpy(dst, src, (size_t)j->n * sizeof *src);
    else
        (j->dtype == TN_F16 ? j->isa->to_f16 : j->isa->to_bf16)(src, dst, j->n);
}

/* room: [4, n] */
static void norm_row(const norm_job *j, int64_t r, const float *w, float *room, float *dw,
                     float *db) {
    const tni_call *c = j->c;
    size_t at = (size_t)(r * j->n) * tn_dtype_size(j->dtype);
    const char *x = (const char *)c->in[0].data + at, *g = (const char *)c->in[c->n_in - 1].data;
    char *dx = (char *)c->out[0].data + at;
    float *fx = room + j->n, *fg = fx + j->n, *fd = fg + j->n;
    g += at;
    if (j->dtype == TN_F32) {
        j->isa->norm_vjp((const void *)x, w, (const void *)g, (void *)dx, room, dw, db, j->n,
                         j->p->eps, j->p->centre);
        return;
    }
    norm_widen(j, x, fx);
    norm_widen(j, g, fg);
    j->isa->norm_vjp(fx, w, fg, fd, room, dw, db, j->n, j->p->eps, j->p->centre);
    norm_narrow(j, fd, dx);
}

static void norm_range(void *ctx, int64_t begin, int64_t end, int worker) {
    norm_job *j = ctx;
    float *room = tni_scratch_array((size_t)j->n, 4 * sizeof *room);
    (void)worker;
    if (!room) j->failed = 1;
    for (int64_t b = begin; b < end && room; b++) {
        float *dw = j->partial + b * 2 * j->n, *db = dw + j->n;
        int64_t of = b / j->blocks, start = b % j->blocks * NORM_ROWS,
                stop = start + NORM_ROWS < j->rows ? start + NORM_ROWS : j->rows;
        memset(dw, 0, (size_t)j->n * 2 * sizeof *dw);
        for (int64_t r = start; r < stop; r++)
            norm_row(j, of * j->rows + r, j->w ? j->w + of * j->n : NULL, room,
                     j->p->has_weight ? dw : NULL, j->p->has_bias ? db : NULL);
    }
    tni_scratch_give(room);
}

/* The blocks of weight `of`, summed up in the first, to the outputs. */
static void norm_join(const norm_job *j, int64_t of) {
    const tni_call *c = j->c;
    float *sum = j->partial + of * j->blocks * 2 * j->n;
    size_t at = (size_t)(of * j->n) * tn_dtype_size(j->dtype);
    for (int64_t b = 1; b < j->blocks; b++)
        for (int64_t i = 0; i < 2 * j->n; i++) sum[i] += sum[b * 2 * j->n + i];
    for (int i = 1; i < c->n_out; i++)
        norm_narrow(j, sum + (i == 1 && j->p->has_weight ? 0 : j->n), (char *)c->out[i].data + at);
}

int tni_cpu_norm_vjp(const tni_call *c) {
    const tni_view *x = &c->in[0];
    norm_job j = {.c = c, .p = c->params, .isa = tni_nn_current(), .dtype = x->dtype};
    j.n = x->shape[x->ndim - 1];
    j.weights = j.p->has_weight ? tni_view_size(&c->in[1]) / j.n : 1;
    j.rows = tni_view_size(x) / j.n / j.weights;
    j.blocks = j.rows ? (j.rows + NORM_ROWS - 1) / NORM_ROWS : 1;
    size_t all = (size_t)(j.weights * j.blocks * 2) * (size_t)j.n;
    j.w = j.p->has_weight ? tni_scratch_array((size_t)(j.weights * j.n), sizeof *j.w) : NULL;
    j.partial = tni_scratch_array(all, sizeof *j.partial);
    j.failed = !j.partial || (j.p->has_weight && !j.w);
    for (int64_t i = 0; i < j.weights && j.w && !j.failed; i++)
        norm_widen(&j, (const char *)c->in[1].data + (size_t)(i * j.n) * tn_dtype_size(j.dtype),
                   j.w + i * j.n);
    if (!j.failed) tni_parallel(j.weights * j.blocks, 1, norm_range, &j);
    for (int64_t i = 0; i < j.weights && !j.failed; i++) norm_join(&j, i);
    tni_scratch_give(j.partial);
    tni_scratch_give(j.w);
    return j.failed ? tni_fail_memory(all * sizeof(float), "a normalisation's gradient") : 0;
}
