/* Pooling and its gradient, window by window: a row of channels under every tap is one vector, so
 * that the row kernels of nn.h do the work. Pieces of work are images, or where those are few a
 * block of channels of one; none touches what another does, so bits do not depend on threads. f16
 * and bf16 pieces are widened, computed in f32 and rounded once; f64 has plain loops. */
#include "cpu/cpu_pool.h"
#include "base/err.h"
#include "base/scratch.h"
#include "base/thread.h"
#include "cpu/nn.h"
#include "ops/prims.h"
#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* POOL_PIECES: worth having; POOL_BLOCK: channels below which a piece is not cut. */
enum { POOL_PIECES = 16, POOL_BLOCK = 64 };

typedef struct pool_job {
    const tni_call *c;
    const tni_nn_isa *isa;
    tn_dtype dtype;
    bool mean, back;                              /* back: the gradient */
    int64_t in[3], out[3], k[3], step[3], low[3]; /* axes that it lacks have one place, one tap */
    int64_t places, windows, taps;                /* of an image; of the kernel at most, inside */
    double count;                                 /* taps of the kernel */
    int64_t channels, block, blocks;
    _Atomic int failed;
} pool_job;

/* Rows of one piece: `stride` elements from one place to the next. */
typedef struct pool_piece {
    const void *x, *g;
    void *y, *dx;
    int64_t x_stride, y_stride, n; /* n: channels */
    int64_t *at;                   /* [taps] */
} pool_piece;

/* ---- one window ---- */

static void pool_f64(const pool_job *j, const double *x, const int64_t *at, int64_t taps, double *y,
                     int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double v = x[at[0] + i];
        for (int64_t t = 1; t < taps; t++) {
            double w = x[at[t] + i];
            v = j->mean ? v + w : isnan(v) || v > w ? v : w;
        }
        y[i] = j->mean ? v / j->count : v;
    }
}

static void pool_vjp_f64(const pool_job *j, const double *x, const int64_t *at, int64_t taps,
                         const double *g, double *dx, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double top = 0, count = 0;
        for (int64_t t = 0; t < taps && j->mean; t++) dx[at[t] + i] += g[i] / j->count;
        if (j->mean) continue;
        pool_f64(j, x + i, at, taps, &top, 1);
        for (int64_t t = 0; t < taps; t++) count += x[at[t] + i] == top;
        for (int64_t t = 0; t < taps; t++) dx[at[t] + i] += g[i] * ((x[at[t] + i] == top) / count);
    }
}

/* Window w of the piece; `taps` of them lie inside. */
static void pool_window(const pool_job *j, const pool_piece *p, int64_t w, int64_t taps) {
    const tni_nn_isa *isa = j->isa;
    int64_t o = w * p->y_stride, n = p->n;
    float by = (float)j->count;
    if (j->dtype == TN_F64) {
        if (j->back)
            pool_vjp_f64(j, p->x, p->at, taps, (const double *)p->g + o, p->dx, n);
        else
            pool_f64(j, p->x, p->at, taps, (double *)p->y + o, n);
    } else if (j->back) {
        const float *g = (const float *)p->g + o;
        if (j->mean)
            isa->pool_mean_vjp(p->at, taps, by, g, p->dx, n);
        else
            isa->pool_max_vjp(p->x, p->at, taps, g, p->dx, n);
    } else if (j->mean) {
        isa->pool_mean(p->x, p->at, taps, by, (float *)p->y + o, n);
    } else {
        isa->pool_max(p->x, p->at, taps, (float *)p->y + o, n);
    }
}

/* ---- one piece ---- */

/* Taps of one axis that lie inside, for a window that starts at `from`. */
static void pool_inside(const pool_job *j, int d, int64_t from, int64_t *lo, int64_t *hi) {
    *lo = from < 0 ? -from : 0;
    *hi = j->in[d] - from < j->k[d] ? j->in[d] - from : j->k[d];
}

/* An axis without places, padded, has windows all the same. */
static void pool_nothing(const pool_job *j, const pool_piece *p, int64_t w) {
    double none = j->mean ? 0 : -(double)INFINITY;
    for (int64_t i = 0; i < p->n; i++)
        if (j->dtype == TN_F64)
            ((double *)p->y)[w * p->y_stride + i] = none;
        else
            ((float *)p->y)[w * p->y_stride + i] = (float)none;
}

static void pool_windows(const pool_job *j, const pool_piece *p) {
    int64_t w = 0, s = p->x_stride, a0, a1, b0, b1, c0, c1;
    for (int64_t i = 0; i < j->out[0]; i++)
        for (int64_t k = 0; k < j->out[1]; k++)
            for (int64_t l = 0; l < j->out[2]; l++, w++) {
                int64_t x = i * j->step[0] - j->low[0], y = k * j->step[1] - j->low[1],
                        z = l * j->step[2] - j->low[2], n = 0;
                pool_inside(j, 0, x, &a0, &a1);
                pool_inside(j, 1, y, &b0, &b1);
                pool_inside(j, 2, z, &c0, &c1);
                for (int64_t a = a0; a < a1; a++)
                    for (int64_t b = b0; b < b1; b++) {
                        int64_t row = ((x + a) * j->in[1] + y + b) * j->in[2] + z;
                        for (int64_t c = c0; c < c1; c++) p->at[n++] = (row + c) * s;
                    }
                if (n)
                    pool_window(j, p, w, n);
                else if (!j->back)
                    pool_nothing(j, p, w);
            }
}

/* Rows of halves to floats without gaps, and back. */
static void pool_widen(const pool_job *j, const void *src, int64_t rows, int64_t n, float *dst) {
    const uint16_t *h = src;
    for (int64_t r = 0; r < rows; r++)
        (j->dtype == TN_F16 ? j->isa->from_f16 : j->isa->from_bf16)(h + r * j->channels,
                                                                    dst + r * n, n);
}
static void pool_narrow(const pool_job *j, const float *src, int64_t rows, int64_t n, void *dst) {
    uint16_t *h = dst;
    for (int64_t r = 0; r < rows; r++)
        (j->dtype == TN_F16 ? j->isa->to_f16 : j->isa->to_bf16)(src + r * n, h + r * j->channels,
                                                                n);
}

static void pool_halves(const pool_job *j, pool_piece *p, float *space) {
    int64_t n = p->n, big = j->places * n, small = j->windows * n;
    float *x = space, *y = x + big, *dx = y + small;
    void *to = j->back ? p->dx : p->y;
    if (p->x) pool_widen(j, p->x, j->places, n, x);
    if (j->back) {
        pool_widen(j, p->g, j->windows, n, y);
        memset(dx, 0, (size_t)big * sizeof *dx);
    }
    *p = (pool_piece){x, y, y, dx, n, n, n, p->at};
    pool_windows(j, p);
    pool_narrow(j, j->back ? dx : y, j->back ? j->places : j->windows, n, to);
}

static void pool_zero(const pool_job *j, const pool_piece *p) {
    size_t item = tn_dtype_size(j->dtype);
    for (int64_t r = 0; r < j->places; r++)
        memset((char *)p->dx + (size_t)(r * j->channels) * item, 0, (size_t)p->n * item);
}

static void pool_range(void *ctx, int64_t begin, int64_t end, int worker) {
    pool_job *j = ctx;
    bool half = j->dtype == TN_F16 || j->dtype == TN_BF16;
    int64_t item = (int64_t)tn_dtype_size(j->dtype);
    size_t room = (size_t)((2 * j->places + j->windows) * j->block);
    int64_t *at = tni_scratch_array((size_t)j->taps, sizeof *at);
    float *space = half ? tni_scratch_array(room, sizeof *space) : NULL;
    (void)worker;
    if (!at || (half && !space)) j->failed = 1;
    for (int64_t u = begin; u < end && !j->failed; u++) {
        int64_t image = u / j->blocks, c0 = u % j->blocks * j->block, left = j->channels - c0;
        int64_t big = (image * j->places * j->channels + c0) * item,
                small = (image * j->windows * j->channels + c0) * item;
        const tni_call *c = j->c;
        pool_piece p = {.x_stride = j->channels, .y_stride = j->channels, .at = at};
        p.n = left < j->block ? left : j->block;
        if (!j->back || !j->mean) p.x = (const char *)c->in[0].data + big;
        if (j->back) {
            p.g = (const char *)c->in[c->n_in - 1].data + small;
            p.dx = (char *)c->out[0].data + big;
        } else {
            p.y = (char *)c->out[0].data + small;
        }
        if (half) {
            pool_halves(j, &p, space);
            continue;
        }
        if (j->back) pool_zero(j, &p);
        pool_windows(j, &p);
    }
    tni_scratch_give(space);
    tni_scratch_give(at);
}

/* x: what is pooled, y: what comes of it. */
static int pool_run(const tni_call *c, const tni_view *x, const tni_view *y, bool back) {
    const tni_p_pool *p = c->params;
    pool_job j = {
        .c = c, .isa = tni_nn_current(), .dtype = x->dtype, .mean = p->mean, .back = back};
    int64_t images = x->shape[0];
    j.places = j.windows = j.taps = 1, j.count = 1;
    j.channels = x->shape[p->nd + 1];
    for (int d = 0; d < 3; d++) {
        int k = d - (3 - p->nd);
        j.in[d] = j.out[d] = j.k[d] = j.step[d] = 1;
        if (k >= 0) {
            j.in[d] = x->shape[k + 1], j.out[d] = y->shape[k + 1];
            j.k[d] = p->k[k], j.step[d] = p->stride[k], j.low[d] = p->pad[k];
        }
        j.places *= j.in[d], j.windows *= j.out[d], j.count *= (double)j.k[d];
        j.taps *= j.k[d] < j.in[d] ? j.k[d] : j.in[d];
    }
    j.block = j.channels;
    if (images < POOL_PIECES && j.channels > POOL_BLOCK) j.block = POOL_BLOCK;
    j.blocks = (j.channels + j.block - 1) / j.block;
    /* About 16 K elements a chunk. */
    tni_parallel(images * j.blocks, 1 + 16384 / (1 + j.places * j.block), pool_range, &j);
    return j.failed ? tni_fail_memory((size_t)(j.places * j.block) * sizeof(float), "pooling") : 0;
}

int tni_cpu_pool(const tni_call *c) { return pool_run(c, &c->in[0], &c->out[0], false); }
int tni_cpu_pool_vjp(const tni_call *c) {
    return pool_run(c, &c->out[0], &c->in[c->n_in - 1], true);
}
