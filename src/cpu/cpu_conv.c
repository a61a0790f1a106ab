/* Convolution as an implicit product: blocks of patches (cpu_conv_patch.c) times the weight as a
 * matrix [taps * channels, out], which is laid out once a call.
 *
 * The depth is walked in the GEMM's own blocks of TNI_GEMM_KC, so an output's bits are those of
 * one product over all of the depth, whatever the blocks of rows and columns and the threads. A
 * block of patches is 96 KiB or less in f32 and stays in the L2 cache between its packing and its
 * use. A kernel that sees one channel (depthwise) would leave the GEMM one column: its channels
 * run side by side in loops of their own instead. */
#include "cpu/cpu_conv.h"
#include "base/err.h"
#include "base/half.h"
#include "base/scratch.h"
#include "base/thread.h"
#include "cpu/gemm.h"
#include <stdatomic.h>
#include <string.h>

enum {
    CONV_ROWS = 96,       /* rows of a block of patches */
    CONV_COLS = 64,       /* a block of columns is not cut below this */
    CONV_INLINE = 1 << 17 /* multiply-adds that one thread does in about 3 us */
};

typedef struct conv_job {
    tni_conv v;
    tn_dtype dtype;
    int kind; /* TNI_GEMM_... */
    const tni_view *w;
    char *weight; /* [groups, depth, og] */
    char *out;
    int64_t rows, cols, nr, nc; /* of a block; blocks */
    int64_t step;               /* of the depth */
    _Atomic int status;
} conv_job;

static int64_t conv_min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t conv_up(int64_t a, int64_t by) { return (a + by - 1) / by; }

static int conv_kind(tn_dtype d) {
    return d == TN_F16    ? TNI_GEMM_F16
           : d == TN_BF16 ? TNI_GEMM_BF16
           : d == TN_F64  ? TNI_GEMM_F64
                          : TNI_GEMM_F32;
}

/* ---- the weight as a matrix ---- */

enum { CONV_TAPS = 16 };

/* Element offset in the weight of row k of the matrix. */
static int64_t conv_weight_at(const conv_job *j, int64_t k) {
    const tni_view *w = j->w;
    int nd = w->ndim - 2;
    int64_t at = k % j->v.cg * w->strides[nd + 1];
    k /= j->v.cg;
    for (int d = nd; d > 0; d--) {
        int64_t t = k % w->shape[d];
        at += (j->v.flip ? w->shape[d] - 1 - t : t) * w->strides[d];
        k /= w->shape[d];
    }
    return at;
}

#define CONV_LAY(T)                                                                                \
    for (int64_t o = 0; o < og; o++)                                                               \
        for (int64_t i = 0; i < n; i++) ((T *)dst)[i * og + o] = ((const T *)src)[at[i] + o * os];

static void conv_lay_range(void *ctx, int64_t begin, int64_t end, int worker) {
    const conv_job *j = ctx;
    int64_t blocks = conv_up(j->v.depth, CONV_TAPS), og = j->v.og, os = j->w->strides[0];
    (void)worker;
    for (int64_t b = begin; b < end; b++) {
        int64_t g = b / blocks, k = b % blocks * CONV_TAPS, n = conv_min(CONV_TAPS, j->v.depth - k),
                at[CONV_TAPS];
        for (int64_t i = 0; i < n; i++) at[i] = conv_weight_at(j, k + i);
        const char *src = (const char *)j->w->data + g * og * os * j->v.item;
        char *dst = j->weight + (g * j->v.depth + k) * og * j->v.item;
        if (j->v.item == 4) {
            CONV_LAY(uint32_t)
        } else if (j->v.item == 2) {
            CONV_LAY(uint16_t)
        } else {
            CONV_LAY(uint64_t)
        }
    }
}

static int conv_lay(conv_job *j) {
    size_t bytes = (size_t)(j->v.groups * j->v.depth * j->v.og * j->v.item);
    j->weight = tni_scratch_take(bytes);
    if (!j->weight) return tni_fail_memory(bytes, "a convolution's weight");
    int64_t blocks = conv_up(j->v.depth, CONV_TAPS) * j->v.groups;
    tni_parallel(blocks, 1 + 16384 / (CONV_TAPS * j->v.og), conv_lay_range, j);
    return 0;
}

/* ---- blocks ---- */

static bool conv_narrow(const conv_job *j) {
    return j->kind == TNI_GEMM_F16 || j->kind == TNI_GEMM_BF16;
}

/* One block of the output: rows from m, columns of group g from n. */
static int conv_block(const conv_job *j, int64_t g, int64_t m, int64_t n, char *patch,
                      float *sums) {
    const tni_conv *v = &j->v;
    int64_t all = v->groups * v->og, rows = conv_min(j->rows, v->rows - m),
            cols = conv_min(j->cols, v->og - n);
    char *out = j->out + (m * all + g * v->og + n) * v->item;
    tni_gemm p = {.m = rows, .n = cols, .batch = 1, .serial = 1};
    p.c = (tni_gemm_mat){out, j->kind, all, 1};
    if (conv_narrow(j)) p.c = (tni_gemm_mat){sums, TNI_GEMM_F32, cols, 1};
    int status = 0;
    for (int64_t k = 0; k < v->depth && !status; k += j->step) {
        p.k = conv_min(j->step, v->depth - k);
        tni_conv_patches(v, g, m, rows, k, p.k, patch);
        p.a = (tni_gemm_mat){patch, j->kind, p.k, 1};
        p.b = (tni_gemm_mat){j->weight + ((g * v->depth + k) * v->og + n) * v->item, j->kind, v->og,
                             1};
        p.add = k > 0;
        status = tni_gemm_run(&p);
    }
    if (status || !conv_narrow(j)) return status;
    for (int64_t r = 0; r < rows; r++)
        tni_gemm_current()->narrow(out + r * all * v->item, j->kind, sums + r * cols, cols);
    return 0;
}

static void conv_range(void *ctx, int64_t begin, int64_t end, int worker) {
    conv_job *j = ctx;
    size_t patch = (size_t)(j->rows * j->step * j->v.item + 63) / 64 * 64;
    size_t bytes = patch + (conv_narrow(j) ? (size_t)(j->rows * j->cols) * sizeof(float) : 0);
    char *work = tni_scratch_take(bytes);
    (void)worker;
    if (!work) j->status = TN_EMEMORY;
    for (int64_t i = begin; i < end && !j->status; i++) {
        int64_t n = i % j->nc, m = i / j->nc % j->nr, g = i / (j->nc * j->nr);
        int status = conv_block(j, g, m * j->rows, n * j->cols, work, (float *)(work + patch));
        if (status) j->status = status;
    }
    tni_scratch_give(work);
}

/* Blocks small enough that every thread has some. */
static void conv_grid(conv_job *j, int threads) {
    const tni_conv *v = &j->v;
    j->rows = conv_min(CONV_ROWS, v->rows), j->cols = v->og, j->step = TNI_GEMM_KC;
    if (j->kind == TNI_GEMM_F64) { /* the GEMM adds to f32 alone: all of the depth at once */
        j->step = v->depth;
        j->rows = conv_min(j->rows, 8 + 24576 / v->depth);
    }
    j->step = conv_min(j->step, v->depth);
    for (;;) {
        j->nr = conv_up(v->rows, j->rows), j->nc = conv_up(v->og, j->cols);
        if (threads == 1 || j->nr * j->nc * v->groups >= 3 * threads) return;
        if (j->rows > 32)
            j->rows /= 2;
        else if (j->cols >= 2 * CONV_COLS)
            j->cols = conv_up(conv_up(j->cols, 2), CONV_COLS) * CONV_COLS;
        else
            return;
    }
}

/* ---- depthwise: one channel a kernel, as many kernels as channels ---- */

void tni_conv_widen(tn_dtype d, const void *src, int64_t n, float *dst) {
    const uint16_t *h = src;
    if (d == TN_F16)
        for (int64_t i = 0; i < n; i++) dst[i] = tni_f16_to_f32(h[i]);
    else if (d == TN_BF16)
        for (int64_t i = 0; i < n; i++) dst[i] = tni_bf16_to_f32(h[i]);
    else
        memcpy(dst, src, (size_t)n * sizeof *dst);
}

static bool conv_depthwise(const conv_job *j) {
    return j->v.cg == 1 && j->v.og == 1 && j->v.groups > 1 && j->kind != TNI_GEMM_F64 &&
           j->v.xc == 1;
}

/* The weight as f32 [taps, channels]. */
static int conv_depth_lay(conv_job *j) {
    int64_t c = j->v.groups;
    size_t bytes = (size_t)(j->v.depth * c) * sizeof(float);
    j->weight = tni_scratch_take(bytes);
    if (!j->weight) return tni_fail_memory(bytes, "a convolution's weight");
    for (int64_t t = 0; t < j->v.depth; t++) {
        const char *src = (const char *)j->w->data + conv_weight_at(j, t) * j->v.item;
        for (int64_t k = 0; k < c; k++)
            tni_conv_widen(j->dtype, src + k * j->w->strides[0] * j->v.item, 1,
                           (float *)(void *)j->weight + t * c + k);
    }
    return 0;
}

/* Element offset along axis d of tap t of a kernel that starts at place i; -1 outside. */
static int64_t conv_tap(const tni_conv_axis *a, int64_t i, int64_t t) {
    int64_t p = i + t * a->dilation;
    if (p < 0) return -1;
    if (a->input_dilation > 1) {
        if (p % a->input_dilation) return -1;
        p /= a->input_dilation;
    }
    return p < a->in ? p * a->xs : -1;
}

void tni_conv_taps(const tni_conv *v, int64_t m, int64_t *at) {
    const tni_conv_axis *a = v->axis;
    int64_t i[3];
    for (int d = 2; d >= 0; d--) {
        i[d] = m % a[d].out * a[d].stride - a[d].low;
        m /= a[d].out;
    }
    for (int64_t p = 0; p < a[0].taps; p++)
        for (int64_t q = 0; q < a[1].taps; q++) {
            int64_t x = conv_tap(&a[0], i[0], p), y = conv_tap(&a[1], i[1], q);
            for (int64_t r = 0; r < a[2].taps; r++) {
                int64_t z = conv_tap(&a[2], i[2], r);
                *at++ = x < 0 || y < 0 || z < 0 ? -1 : m * v->xn + x + y + z;
            }
        }
}

/* Eight floats at any float's address. */
typedef float conv_v8 __attribute__((vector_size(32), aligned(4), may_alias));

/* sum[k] = the taps' w[t, k] x[t][k] added in order; x[t] is NULL outside of the input. */
static void conv_depth_place(const float *const *x, const float *w, int64_t taps, int64_t c,
                             float *sum) {
    int64_t k = 0;
    for (; k + 16 <= c; k += 16) {
        conv_v8 a = {0}, b = {0};
        for (int64_t t = 0; t < taps; t++) {
            if (!x[t]) continue;
            a += *(const conv_v8 *)(w + t * c + k) * *(const conv_v8 *)(x[t] + k);
            b += *(const conv_v8 *)(w + t * c + k + 8) * *(const conv_v8 *)(x[t] + k + 8);
        }
        *(conv_v8 *)(sum + k) = a;
        *(conv_v8 *)(sum + k + 8) = b;
    }
    for (; k < c; k++) {
        float a = 0;
        for (int64_t t = 0; t < taps; t++)
            if (x[t]) a += w[t * c + k] * x[t][k];
        sum[k] = a;
    }
}

static void conv_depth_range(void *ctx, int64_t begin, int64_t end, int worker) {
    conv_job *j = ctx;
    const tni_conv *v = &j->v;
    int64_t c = v->groups, taps = v->depth;
    bool wide = j->dtype != TN_F32;
    float *work = tni_scratch_array((size_t)(c * (wide ? taps + 1 : 1)), sizeof *work);
    int64_t *at = tni_scratch_array((size_t)taps, sizeof *at);
    const float **x = tni_scratch_array((size_t)taps, sizeof *x);
    (void)worker;
    if (!work || !at || !x) j->status = TN_EMEMORY;
    for (int64_t m = begin; m < end && !j->status; m++) {
        tni_conv_taps(v, m, at);
        for (int64_t t = 0; t < taps; t++) {
            const void *here = at[t] < 0 ? NULL : v->x + at[t] * v->item;
            x[t] = here;
            if (!here || !wide) continue;
            tni_conv_widen(j->dtype, here, c, work + (t + 1) * c);
            x[t] = work + (t + 1) * c;
        }
        char *out = j->out + m * c * v->item;
        float *sum = wide ? work : (float *)(void *)out;
        conv_depth_place(x, (const float *)(void *)j->weight, taps, c, sum);
        if (wide) tni_gemm_current()->narrow(out, j->kind, sum, c);
    }
    tni_scratch_give(work), tni_scratch_give(at), tni_scratch_give(x);
}

int tni_conv_plain(const tni_call *c) {
    const tni_view *x = &c->in[0], *w = &c->in[1];
    conv_job j = {.dtype = x->dtype, .kind = conv_kind(x->dtype), .w = w, .out = c->out->data};
    tni_conv_init(&j.v, c->params, x, w, c->out);
    if (!j.v.depth) {
        memset(j.out, 0, (size_t)(tni_view_size(c->out) * j.v.item));
        return 0;
    }
    int status = conv_depthwise(&j) ? conv_depth_lay(&j) : conv_lay(&j);
    if (status) return status;
    double work = (double)j.v.rows * (double)(j.v.groups * j.v.og) * (double)j.v.depth;
    int threads = work <= CONV_INLINE ? 1 : tni_threads();
    if (conv_depthwise(&j)) {
        tni_parallel(j.v.rows, threads == 1 ? j.v.rows : 1 + CONV_INLINE / (j.v.depth * j.v.groups),
                     conv_depth_range, &j);
    } else {
        conv_grid(&j, threads);
        int64_t items = j.v.groups * j.nr * j.nc;
        tni_parallel(items, threads == 1 ? items : 1 + items / (16 * threads), conv_range, &j);
    }
    tni_scratch_give(j.weight);
    return j.status ? tni_fail_memory(0, "a convolution") : 0;
}
