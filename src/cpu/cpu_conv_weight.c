/* A convolution's gradient for its weight: cotangents [out, places] times patches [places, taps *
 * channels], by the blocks of cpu_conv_patch.c. Long sums over few taps are cut into parts that
 * threads make side by side and that are joined in their order; parts are fixed by the shapes, so
 * bits do not depend on threads. */
#include "base/err.h"
#include "base/half.h"
#include "base/scratch.h"
#include "base/thread.h"
#include "cpu/cpu_conv.h"
#include "cpu/gemm.h"
#include <stdatomic.h>
#include <string.h>

enum {
    WEIGHT_COLS = 64,  /* columns of a block of patches: 128 KiB in f32 */
    WEIGHT_PART = 2048 /* least rows of a part */
};

typedef struct weight_job {
    tni_conv v;
    const char *d; /* cotangents [rows, groups * og] */
    tn_dtype dtype;
    int kind;
    int64_t parts, rows, cols, nc; /* rows of a part; columns of a block; blocks */
    int64_t size;                  /* elements of the result */
    char *sum;                     /* [parts, groups * og, depth], f32 or f64 */
    const tni_view *out;
    _Atomic int status;
} weight_job;

static int64_t weight_min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t weight_up(int64_t a, int64_t by) { return (a + by - 1) / by; }

/* The GEMM adds to f32 alone; f64 goes through `tile`. */
static int weight_add(const weight_job *j, tni_gemm *g, bool first, double *tile) {
    if (j->kind != TNI_GEMM_F64 || first) {
        g->add = !first;
        return tni_gemm_run(g);
    }
    tni_gemm_mat to = g->c;
    g->c = (tni_gemm_mat){tile, TNI_GEMM_F64, g->n, 1};
    int status = tni_gemm_run(g);
    double *d = (double *)(uintptr_t)to.data;
    for (int64_t i = 0; i < g->m && !status; i++)
        for (int64_t k = 0; k < g->n; k++) d[i * to.rs + k] += tile[i * g->n + k];
    g->c = to;
    return status;
}

static int weight_block(const weight_job *j, int64_t part, int64_t g, int64_t k, char *patch) {
    const tni_conv *v = &j->v;
    bool wide = j->kind == TNI_GEMM_F64;
    int64_t all = v->groups * v->og, n = weight_min(j->cols, v->depth - k), word = wide ? 8 : 4;
    int64_t from = part * j->rows, to = weight_min(from + j->rows, v->rows);
    double *tile = (double *)(void *)(patch + TNI_GEMM_KC * j->cols * v->item);
    tni_gemm p = {.m = v->og, .n = n, .batch = 1, .serial = 1};
    p.c = (tni_gemm_mat){j->sum + (part * j->size + g * v->og * v->depth + k) * word,
                         wide ? TNI_GEMM_F64 : TNI_GEMM_F32, v->depth, 1};
    int status = 0;
    for (int64_t m = from; m < to && !status; m += TNI_GEMM_KC) {
        p.k = weight_min(TNI_GEMM_KC, to - m);
        tni_conv_patches(v, g, m, p.k, k, n, patch);
        p.a = (tni_gemm_mat){j->d + (m * all + g * v->og) * v->item, j->kind, 1, all};
        p.b = (tni_gemm_mat){patch, j->kind, n, 1};
        status = weight_add(j, &p, m == from, tile);
    }
    return status;
}

static void weight_range(void *ctx, int64_t begin, int64_t end, int worker) {
    weight_job *j = ctx;
    int64_t tile = j->kind == TNI_GEMM_F64 ? j->v.og * 8 : 0;
    size_t bytes = (size_t)(j->cols * (TNI_GEMM_KC * j->v.item + tile));
    char *work = tni_scratch_take(bytes);
    (void)worker;
    if (!work) j->status = TN_EMEMORY;
    for (int64_t i = begin; i < end && !j->status; i++) {
        int64_t k = i % j->nc * j->cols, g = i / j->nc % j->v.groups;
        int status = weight_block(j, i / (j->nc * j->v.groups), g, k, work);
        if (status) j->status = status;
    }
    tni_scratch_give(work);
}

/* Column of the result that column k of the sums is, when taps count from the end. */
static int64_t weight_column(const weight_job *j, int64_t k) {
    int64_t taps = j->v.depth / j->v.cg;
    return j->v.flip ? (taps - 1 - k / j->v.cg) * j->v.cg + k % j->v.cg : k;
}

static void weight_join_range(void *ctx, int64_t begin, int64_t end, int worker) {
    const weight_job *j = ctx;
    const float *f = (const float *)(void *)j->sum;
    const double *w = (const double *)(void *)j->sum;
    void *out = j->out->data;
    (void)worker;
    for (int64_t r = begin; r < end; r++)
        for (int64_t k = 0; k < j->v.depth; k++) {
            int64_t from = r * j->v.depth + k, to = r * j->v.depth + weight_column(j, k);
            if (j->kind == TNI_GEMM_F64) {
                double s = w[from];
                for (int64_t p = 1; p < j->parts; p++) s += w[p * j->size + from];
                ((double *)out)[to] = s;
                continue;
            }
            float s = f[from];
            for (int64_t p = 1; p < j->parts; p++) s += f[p * j->size + from];
            if (j->kind == TNI_GEMM_F32)
                ((float *)out)[to] = s;
            else
                ((uint16_t *)out)[to] =
                    j->kind == TNI_GEMM_F16 ? tni_f32_to_f16(s) : tni_f32_to_bf16(s);
        }
}

/* ---- depthwise: sums [taps, channels] of products of rows of channels ---- */

enum { WEIGHT_DEPTH_PART = 512 };

static void weight_add_row(float *sum, const float *a, const float *b, int64_t n) {
    typedef float v8 __attribute__((vector_size(32), aligned(4), may_alias));
    int64_t k = 0;
    for (; k + 8 <= n; k += 8) *(v8 *)(sum + k) += *(const v8 *)(a + k) * *(const v8 *)(b + k);
    for (; k < n; k++) sum[k] += a[k] * b[k];
}

static void weight_depth_range(void *ctx, int64_t begin, int64_t end, int worker) {
    weight_job *j = ctx;
    const tni_conv *v = &j->v;
    int64_t c = v->groups, taps = v->depth;
    bool narrow = j->kind != TNI_GEMM_F32;
    int64_t *at = tni_scratch_array((size_t)taps, sizeof *at);
    float *wide = tni_scratch_array((size_t)(2 * c), sizeof *wide);
    (void)worker;
    if (!at || !wide) j->status = TN_EMEMORY;
    for (int64_t p = begin; p < end && !j->status; p++) {
        float *sum = (float *)(void *)j->sum + p * j->size;
        memset(sum, 0, (size_t)j->size * sizeof *sum);
        for (int64_t m = p * j->rows; m < v->rows && m < (p + 1) * j->rows; m++) {
            const void *row = j->d + m * c * v->item;
            if (narrow) tni_conv_widen(j->dtype, row, c, wide), row = wide;
            tni_conv_taps(v, m, at);
            for (int64_t t = 0; t < taps; t++) {
                if (at[t] < 0) continue;
                const void *x = v->x + at[t] * v->item;
                if (narrow) tni_conv_widen(j->dtype, x, c, wide + c), x = wide + c;
                weight_add_row(sum + t * c, row, x, c);
            }
        }
    }
    tni_scratch_give(at), tni_scratch_give(wide);
}

/* The parts joined in their order, as the result [channels, taps]. */
static void weight_depth_join(const weight_job *j) {
    const float *f = (const float *)(void *)j->sum;
    int64_t c = j->v.groups, taps = j->v.depth;
    for (int64_t k = 0; k < c; k++)
        for (int64_t t = 0; t < taps; t++) {
            float s = f[t * c + k];
            int64_t to = k * taps + weight_column(j, t);
            for (int64_t p = 1; p < j->parts; p++) s += f[p * j->size + t * c + k];
            if (j->kind == TNI_GEMM_F32)
                ((float *)j->out->data)[to] = s;
            else
                ((uint16_t *)j->out->data)[to] =
                    j->kind == TNI_GEMM_F16 ? tni_f32_to_f16(s) : tni_f32_to_bf16(s);
        }
}

static int weight_depthwise(weight_job *j) {
    j->parts = weight_min(weight_up(j->v.rows, WEIGHT_DEPTH_PART), 32);
    j->rows = weight_up(j->v.rows, j->parts), j->parts = weight_up(j->v.rows, j->rows);
    size_t bytes = (size_t)(j->parts * j->size) * sizeof(float);
    j->sum = tni_scratch_take(bytes);
    if (!j->sum) return tni_fail_memory(bytes, "a convolution's gradient");
    tni_parallel(j->parts, 1, weight_depth_range, j);
    if (!j->status) weight_depth_join(j);
    tni_scratch_give(j->sum);
    return j->status ? tni_fail_memory(0, "a convolution's gradient") : 0;
}

static void weight_grid(weight_job *j) {
    const tni_conv *v = &j->v;
    int64_t blocks = v->groups * weight_up(v->depth, WEIGHT_COLS);
    j->parts = weight_min(v->rows / WEIGHT_PART, weight_up(16, blocks));
    if (j->parts < 1) j->parts = 1;
    j->rows = weight_up(weight_up(v->rows, j->parts), TNI_GEMM_KC) * TNI_GEMM_KC;
    j->parts = weight_up(v->rows, j->rows);
    j->cols = weight_min(WEIGHT_COLS, v->depth);
    while (j->cols > 32 && j->parts * v->groups * weight_up(v->depth, j->cols) < 2 * tni_threads())
        j->cols = weight_up(weight_up(j->cols, 2), 16) * 16;
    j->nc = weight_up(v->depth, j->cols);
}

int tni_cpu_conv_weight(const tni_call *c) {
    const tni_view *x = &c->in[0], *d = &c->in[1];
    weight_job j = {.d = d->data, .dtype = x->dtype, .out = c->out};
    j.kind = x->dtype == TN_F16    ? TNI_GEMM_F16
             : x->dtype == TN_BF16 ? TNI_GEMM_BF16
             : x->dtype == TN_F64  ? TNI_GEMM_F64
                                   : TNI_GEMM_F32;
    tni_conv_init(&j.v, c->params, x, c->out, d);
    j.size = tni_view_size(c->out);
    if (!j.v.rows) {
        memset(c->out->data, 0, (size_t)(j.size * j.v.item));
        return 0;
    }
    if (j.v.cg == 1 && j.v.og == 1 && j.v.groups > 1 && j.kind != TNI_GEMM_F64)
        return weight_depthwise(&j);
    weight_grid(&j);
    bool direct = j.kind == TNI_GEMM_F32 && j.parts == 1 && !j.v.flip;
    size_t bytes = (size_t)(j.parts * j.size) * (j.kind == TNI_GEMM_F64 ? 8 : 4);
    j.sum = direct ? c->out->data : tni_scratch_take(bytes);
    if (!j.sum) return tni_fail_memory(bytes, "a convolution's gradient");
    double work = (double)j.v.rows * (double)j.size;
    int64_t items = j.parts * j.v.groups * j.nc;
    tni_parallel(items, work < 131072 ? items : 1, weight_range, &j);
    if (!direct && !j.status)
        tni_parallel(j.v.groups * j.v.og, 1 + 16384 / (j.v.depth * j.parts), weight_join_range, &j);
    if (!direct) tni_scratch_give(j.sum);
    return j.status ? tni_fail_memory(0, "a convolution's gradient") : 0;
}
