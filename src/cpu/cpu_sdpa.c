/* Attention in blocks: scores of a few queries against a block of keys stay in the cache, a running
 * maximum and sum make the softmax, and the two products go through the packed GEMM, which reads
 * f16 and bf16 caches as they are. The query heads that share a key-value head are rows of one
 * product, so a decoding step reads keys and values once.
 *
 * When one block holds all rows (decoding), the keys are cut into parts that run side by side, and
 * their maxima, sums and rows are joined in the parts' order. Blocks and parts are fixed by the
 * shapes, so bits do not depend on threads or ISA. */
#include "cpu/cpu_sdpa.h"
#include "base/err.h"
#include "base/half.h"
#include "base/scratch.h"
#include "base/thread.h"
#include "cpu/gemm.h"
#include "cpu/nn.h"
#include "ops/prims.h"
#include <math.h>
#include <string.h>

enum { SDPA_ROWS = 64, SDPA_KEYS = 256 };

typedef struct sdpa_job {
    const tni_call *c;
    const tni_p_sdpa *p;
    const tni_nn_isa *isa;
    int64_t group, lq, lk, d, dv, hkv; /* group: query heads a key-value head */
    int64_t blocks;                    /* row blocks a (batch, key-value head) */
    int64_t parts;                     /* of the keys, SDPA_KEYS each; 1: not cut */
    float *partial;                    /* of each part: acc [rows, dv], top [rows], sum [rows] */
    _Atomic int status;
} sdpa_job;

/* What one block of rows works in. Row r is head r / lq of the group, query r % lq. */
typedef struct sdpa_block {
    int64_t b, h, first, rows;
    float *q, *s, *acc; /* [rows, d], [rows, SDPA_KEYS], [rows, dv] */
    float *top, *sum;   /* [rows] */
} sdpa_block;

static int sdpa_kind(tn_dtype d) {
    return d == TN_F16    ? TNI_GEMM_F16
           : d == TN_BF16 ? TNI_GEMM_BF16
           : d == TN_F64  ? TNI_GEMM_F64
                          : TNI_GEMM_F32;
}

static float sdpa_load(tn_dtype d, const void *p, int64_t i) {
    switch (d) {
    case TN_F16:
        return tni_f16_to_f32(((const uint16_t *)p)[i]);
    case TN_BF16:
        return tni_bf16_to_f32(((const uint16_t *)p)[i]);
    case TN_F64:
        return (float)((const double *)p)[i];
    default:
        return ((const float *)p)[i];
    }
}

static void sdpa_load_queries(const sdpa_job *j, sdpa_block *k) {
    const tni_view *q = &j->c->in[0];
    for (int64_t r = 0; r < k->rows; r++) {
        int64_t head = k->h * j->group + (k->first + r) / j->lq, row = (k->first + r) % j->lq;
        int64_t at = k->b * q->strides[0] + head * q->strides[1] + row * q->strides[2];
        for (int64_t i = 0; i < j->d; i++)
            k->q[r * j->d + i] = sdpa_load(q->dtype, q->data, at + i * q->strides[3]) * j->p->scale;
    }
}

/* Keys that row r may see by causality: [0, result). */
static int64_t sdpa_seen(const sdpa_job *j, const sdpa_block *k, int64_t r) {
    if (j->p->mask != TNI_MASK_CAUSAL) return j->lk;
    int64_t n = (k->first + r) % j->lq + 1 + j->lk - j->lq;
    return n < 0 ? 0 : n < j->lk ? n : j->lk;
}

static void sdpa_mask(const sdpa_job *j, const sdpa_block *k, int64_t r, int64_t key, int64_t n) {
    float *s = k->s + r * SDPA_KEYS;
    int64_t seen = sdpa_seen(j, k, r) - key;
    for (int64_t i = seen < 0 ? 0 : seen; i < n; i++) s[i] = -INFINITY;
    if (j->p->mask < TNI_MASK_BOOL) return;
    const tni_view *m = &j->c->in[3];
    int64_t head = k->h * j->group + (k->first + r) / j->lq, row = (k->first + r) % j->lq,
            step = m->strides[3];
    int64_t at = k->b * m->strides[0] + head * m->strides[1] + row * m->strides[2] + key * step;
    for (int64_t i = 0; i < n; i++, at += step) {
        if (j->p->mask == TNI_MASK_ADD)
            s[i] += sdpa_load(m->dtype, m->data, at);
        else if (!((const uint8_t *)m->data)[at])
            s[i] = -INFINITY;
    }
}

/* Rows of a cache from key `key` on, as a matrix of the GEMM. */
static tni_gemm_mat sdpa_cache(const tni_view *v, const sdpa_block *k, int64_t key,
                               bool transposed) {
    int64_t at = k->b * v->strides[0] + k->h * v->strides[1] + key * v->strides[2];
    tni_gemm_mat m = {(const char *)v->data + at * (int64_t)tn_dtype_size(v->dtype),
                      sdpa_kind(v->dtype), v->strides[2], v->strides[3]};
    if (transposed) m.rs = v->strides[3], m.cs = v->strides[2];
    return m;
}

static int sdpa_keys(const sdpa_job *j, sdpa_block *k, int64_t key, int64_t n) {
    tni_gemm g = {.m = k->rows, .n = n, .k = j->d, .batch = 1, .serial = 1};
    g.a = (tni_gemm_mat){k->q, TNI_GEMM_F32, j->d, 1};
    g.b = sdpa_cache(&j->c->in[1], k, key, true);
    g.c = (tni_gemm_mat){k->s, TNI_GEMM_F32, SDPA_KEYS, 1};
    int status = tni_gemm_run(&g);
    if (status) return status;
    for (int64_t r = 0; r < k->rows; r++) {
        sdpa_mask(j, k, r, key, n);
        j->isa->online(k->s + r * SDPA_KEYS, n, &k->top[r], &k->sum[r], k->acc + r * j->dv, j->dv);
    }
    tni_gemm v = {.m = k->rows, .n = j->dv, .k = n, .batch = 1, .add = 1, .serial = 1};
    v.a = g.c;
    v.b = sdpa_cache(&j->c->in[2], k, key, false);
    v.c = (tni_gemm_mat){k->acc, TNI_GEMM_F32, j->dv, 1};
    return tni_gemm_run(&v);
}

static void sdpa_start(const sdpa_job *j, sdpa_block *k, bool first) {
    memset(k->acc, 0, sizeof(float) * (size_t)(k->rows * j->dv));
    const tni_view *sinks =
        j->p->has_sinks && first ? &j->c->in[j->p->mask >= TNI_MASK_BOOL ? 4 : 3] : NULL;
    for (int64_t r = 0; r < k->rows; r++) {
        int64_t head = k->h * j->group + (k->first + r) / j->lq;
        k->top[r] = sinks ? ((const float *)sinks->data)[head * sinks->strides[0]] : -INFINITY;
        k->sum[r] = sinks ? 1 : 0; /* exp(sink - top) */
    }
}

static void sdpa_finish(const sdpa_job *j, sdpa_block *k) {
    const tni_view *o = j->c->out;
    size_t item = tn_dtype_size(o->dtype);
    for (int64_t r = 0; r < k->rows; r++) {
        int64_t head = k->h * j->group + (k->first + r) / j->lq, row = (k->first + r) % j->lq;
        char *dst = (char *)o->data +
                    (size_t)(((k->b * j->hkv * j->group + head) * j->lq + row) * j->dv) * item;
        float *acc = k->acc + r * j->dv;
        if (k->sum[r] != 0) j->isa->scale(acc, j->dv, 1.0f / k->sum[r]);
        if (o->dtype == TN_F16)
            j->isa->to_f16(acc, (void *)dst, j->dv);
        else if (o->dtype == TN_BF16)
            j->isa->to_bf16(acc, (void *)dst, j->dv);
        else
            memcpy(dst, acc, (size_t)j->dv * item);
    }
}

static int sdpa_run_block(const sdpa_job *j, sdpa_block *k, int64_t part) {
    int64_t most = 0, key = part * SDPA_KEYS;
    int status = 0;
    for (int64_t r = 0; r < k->rows; r++) {
        int64_t n = sdpa_seen(j, k, r);
        most = n > most ? n : most;
    }
    if (j->parts > 1 && most > key + SDPA_KEYS) most = key + SDPA_KEYS;
    sdpa_load_queries(j, k);
    sdpa_start(j, k, !part);
    for (; key < most && !status; key += SDPA_KEYS)
        status = sdpa_keys(j, k, key, most - key < SDPA_KEYS ? most - key : SDPA_KEYS);
    return status;
}

/* Adds a part to what k holds: both sums brought to the larger of the two maxima. */
static void sdpa_join(const sdpa_job *j, sdpa_block *k, const float *acc) {
    const float *top = acc + k->rows * j->dv, *sum = top + k->rows;
    for (int64_t r = 0; r < k->rows; r++) {
        if (sum[r] == 0) continue; /* a part none of whose keys is seen */
        float m = k->top[r] > top[r] ? k->top[r] : top[r];
        float a = k->sum[r] == 0 ? 0 : expf(k->top[r] - m), b = expf(top[r] - m);
        k->top[r] = m, k->sum[r] = k->sum[r] * a + sum[r] * b;
        for (int64_t i = 0; i < j->dv; i++)
            k->acc[r * j->dv + i] = k->acc[r * j->dv + i] * a + acc[r * j->dv + i] * b;
    }
}

static void sdpa_place(const sdpa_job *j, sdpa_block *k, int64_t i) {
    int64_t bh = i / j->blocks, rows = j->group * j->lq;
    k->b = bh / j->hkv, k->h = bh % j->hkv;
    k->first = i % j->blocks * SDPA_ROWS;
    k->rows = rows - k->first < SDPA_ROWS ? rows - k->first : SDPA_ROWS;
}

static float *sdpa_work(const sdpa_job *j, sdpa_block *k) {
    size_t n = (size_t)SDPA_ROWS * (size_t)(j->d + j->dv + SDPA_KEYS + 2);
    float *work = tni_scratch_array(n, sizeof *work);
    if (!work) return NULL;
    *k = (sdpa_block){.q = work};
    k->s = k->q + SDPA_ROWS * j->d, k->acc = k->s + SDPA_ROWS * SDPA_KEYS,
    k->top = k->acc + SDPA_ROWS * j->dv, k->sum = k->top + SDPA_ROWS;
    return work;
}

static void sdpa_range(void *ctx, int64_t begin, int64_t end, int worker) {
    sdpa_job *j = ctx;
    sdpa_block k;
    float *work = sdpa_work(j, &k);
    (void)worker;
    if (!work) j->status = TN_EMEMORY;
    for (int64_t i = begin; i < end && !j->status; i++) {
        sdpa_place(j, &k, i / j->parts);
        if (j->parts > 1) { /* one block a head: its rows are all rows */
            k.acc = j->partial + i * k.rows * (j->dv + 2);
            k.top = k.acc + k.rows * j->dv, k.sum = k.top + k.rows;
        }
        int status = sdpa_run_block(j, &k, i % j->parts);
        if (status)
            j->status = status;
        else if (j->parts == 1)
            sdpa_finish(j, &k);
    }
    tni_scratch_give(work);
}

static void sdpa_join_range(void *ctx, int64_t begin, int64_t end, int worker) {
    sdpa_job *j = ctx;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        sdpa_block k;
        sdpa_place(j, &k, i);
        int64_t size = k.rows * (j->dv + 2);
        k.acc = j->partial + i * j->parts * size;
        k.top = k.acc + k.rows * j->dv, k.sum = k.top + k.rows;
        for (int64_t p = 1; p < j->parts; p++) sdpa_join(j, &k, k.acc + p * size);
        sdpa_finish(j, &k);
    }
}

static int sdpa_run(sdpa_job *j, int64_t heads) {
    int64_t rows = j->group * j->lq;
    j->parts = j->blocks == 1 && j->lk > SDPA_KEYS ? (j->lk + SDPA_KEYS - 1) / SDPA_KEYS : 1;
    if (j->parts > 1) {
        size_t n = (size_t)(heads * j->parts * rows * (j->dv + 2));
        j->partial = tni_scratch_array(n, sizeof *j->partial);
        if (!j->partial) return tni_fail_memory(n * sizeof *j->partial, "attention");
    }
    tni_parallel(heads * j->blocks * j->parts, 1, sdpa_range, j);
    if (!j->status && j->parts > 1) tni_parallel(heads, 64, sdpa_join_range, j);
    tni_scratch_give(j->partial);
    return j->status ? tni_fail_memory(0, "attention") : 0;
}

/* ---- f64: one row at a time, in double ---- */

static double sdpa_load64(const tni_view *v, int64_t at) {
    return v->dtype == TN_F64 ? ((const double *)v->data)[at]
                              : (double)sdpa_load(v->dtype, v->data, at);
}

/* The score of query row (b, head, i) for key n, masked. */
static double sdpa_score64(const sdpa_job *j, int64_t b, int64_t head, int64_t i, int64_t n) {
    const tni_view *q = &j->c->in[0], *k = &j->c->in[1], *m = &j->c->in[3];
    int64_t qa = b * q->strides[0] + head * q->strides[1] + i * q->strides[2];
    int64_t ka = b * k->strides[0] + head / j->group * k->strides[1] + n * k->strides[2];
    double s = 0;
    for (int64_t x = 0; x < j->d; x++)
        s += sdpa_load64(q, qa + x * q->strides[3]) * sdpa_load64(k, ka + x * k->strides[3]);
    s *= (double)j->p->scale;
    if (j->p->mask == TNI_MASK_CAUSAL) return n <= i + j->lk - j->lq ? s : -(double)INFINITY;
    if (j->p->mask == TNI_MASK_NONE) return s;
    int64_t ma = b * m->strides[0] + head * m->strides[1] + i * m->strides[2] + n * m->strides[3];
    if (j->p->mask == TNI_MASK_ADD) return s + sdpa_load64(m, ma);
    return ((const uint8_t *)m->data)[ma] ? s : -(double)INFINITY;
}

static void sdpa_row64(const sdpa_job *j, int64_t b, int64_t head, int64_t i, double *s,
                       double *out) {
    const tni_view *v = &j->c->in[2], *sinks = &j->c->in[j->p->mask >= TNI_MASK_BOOL ? 4 : 3];
    double sink = j->p->has_sinks ? (double)((const float *)sinks->data)[head * sinks->strides[0]]
                                  : -(double)INFINITY;
    double top = sink, sum = 0;
    for (int64_t n = 0; n < j->lk; n++) {
        s[n] = sdpa_score64(j, b, head, i, n);
        top = s[n] > top || isnan(s[n]) ? s[n] : top;
    }
    for (int64_t x = 0; x < j->dv; x++) out[x] = 0;
    if (top == -(double)INFINITY) return;
    sum = exp(sink - top);
    for (int64_t n = 0; n < j->lk; n++) {
        double p = exp(s[n] - top);
        int64_t va = b * v->strides[0] + head / j->group * v->strides[1] + n * v->strides[2];
        sum += p;
        for (int64_t x = 0; x < j->dv; x++) out[x] += p * sdpa_load64(v, va + x * v->strides[3]);
    }
    for (int64_t x = 0; x < j->dv; x++) out[x] /= sum;
}

static void sdpa_range64(void *ctx, int64_t begin, int64_t end, int worker) {
    sdpa_job *j = ctx;
    int64_t heads = j->hkv * j->group;
    double *s = tni_scratch_array((size_t)j->lk, sizeof *s);
    (void)worker;
    if (!s) j->status = TN_EMEMORY;
    for (int64_t r = begin; r < end && s; r++)
        sdpa_row64(j, r / (heads * j->lq), r / j->lq % heads, r % j->lq, s,
                   (double *)j->c->out->data + r * j->dv);
    tni_scratch_give(s);
}

int tni_cpu_sdpa(const tni_call *c) {
    const tni_view *q = &c->in[0], *k = &c->in[1], *v = &c->in[2];
    sdpa_job j = {.c = c, .p = c->params, .isa = tni_nn_current()};
    j.hkv = k->shape[1], j.group = q->shape[1] / j.hkv, j.lq = q->shape[2], j.lk = k->shape[2],
    j.d = q->shape[3], j.dv = v->shape[3];
    j.blocks = (j.group * j.lq + SDPA_ROWS - 1) / SDPA_ROWS;
    if (q->dtype != TN_F64) return sdpa_run(&j, q->shape[0] * j.hkv);
    tni_parallel(q->shape[0] * q->shape[1] * j.lq, 1, sdpa_range64, &j);
    return j.status ? tni_fail_memory(0, "attention") : 0;
}
