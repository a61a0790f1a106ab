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
#include "base/scratch.h"
#include "base/thread.h"
#include "cpu/attention.h"
#include <math.h>
#include <string.h>

enum { SDPA_ROWS = TNI_ATTENTION_ROWS, SDPA_KEYS = 256 };

typedef struct sdpa_job {
    tni_attention a;
    int64_t parts;  /* of the keys, SDPA_KEYS each; 1: not cut */
    float *partial; /* of each part: acc [rows, dv], top [rows], sum [rows] */
    _Atomic int status;
} sdpa_job;

/* What one block of rows works in. */
typedef struct sdpa_block {
    tni_attention_rows at;
    float *q, *s, *acc; /* [rows, d], [rows, SDPA_KEYS], [rows, dv] */
    float *top, *sum;   /* [rows] */
} sdpa_block;

static int sdpa_keys(const sdpa_job *j, sdpa_block *k, int64_t key, int64_t n) {
    tni_gemm g = {.m = k->at.n, .n = n, .k = j->a.d, .batch = 1, .serial = 1};
    g.a = (tni_gemm_mat){k->q, TNI_GEMM_F32, j->a.d, 1};
    g.b = tni_attention_cache(&j->a.c->in[1], &k->at, key, true);
    g.c = (tni_gemm_mat){k->s, TNI_GEMM_F32, SDPA_KEYS, 1};
    int status = tni_gemm_run(&g);
    if (status) return status;
    for (int64_t r = 0; r < k->at.n; r++) {
        tni_attention_mask(&j->a, &k->at, r, key, n, k->s + r * SDPA_KEYS);
        j->a.isa->online(k->s + r * SDPA_KEYS, n, &k->top[r], &k->sum[r], k->acc + r * j->a.dv,
                         j->a.dv);
    }
    tni_gemm v = {.m = k->at.n, .n = j->a.dv, .k = n, .batch = 1, .add = 1, .serial = 1};
    v.a = g.c;
    v.b = tni_attention_cache(&j->a.c->in[2], &k->at, key, false);
    v.c = (tni_gemm_mat){k->acc, TNI_GEMM_F32, j->a.dv, 1};
    return tni_gemm_run(&v);
}

static void sdpa_start(const sdpa_job *j, sdpa_block *k, bool first) {
    memset(k->acc, 0, sizeof(float) * (size_t)(k->at.n * j->a.dv));
    for (int64_t r = 0; r < k->at.n; r++) {
        bool sink = j->a.p->has_sinks && first;
        k->top[r] = sink ? tni_attention_sink(&j->a, k->at.b, tni_attention_head(&j->a, &k->at, r))
                         : -INFINITY;
        k->sum[r] = sink ? 1 : 0; /* exp(sink - top) */
    }
}

static void sdpa_finish(const sdpa_job *j, sdpa_block *k) {
    const tni_view *o = j->a.c->out;
    size_t item = tn_dtype_size(o->dtype);
    for (int64_t r = 0; r < k->at.n; r++) {
        int64_t head = tni_attention_head(&j->a, &k->at, r),
                row = tni_attention_query(&j->a, &k->at, r);
        int64_t at = ((k->at.b * j->a.hkv * j->a.group + head) * j->a.lq + row) * j->a.dv;
        float *acc = k->acc + r * j->a.dv;
        if (k->sum[r] != 0) j->a.isa->scale(acc, j->a.dv, 1.0f / k->sum[r]);
        tni_attention_store(&j->a, acc, o->dtype, (char *)o->data + (size_t)at * item, j->a.dv);
    }
}

static int sdpa_run_block(const sdpa_job *j, sdpa_block *k, int64_t part) {
    int64_t most = tni_attention_most(&j->a, &k->at), key = part * SDPA_KEYS;
    int status = 0;
    if (j->parts > 1 && most > key + SDPA_KEYS) most = key + SDPA_KEYS;
    tni_attention_load(&j->a, &k->at, &j->a.c->in[0], j->a.p->scale, k->q);
    sdpa_start(j, k, !part);
    for (; key < most && !status; key += SDPA_KEYS)
        status = sdpa_keys(j, k, key, most - key < SDPA_KEYS ? most - key : SDPA_KEYS);
    return status;
}

/* Adds a part to what k holds: both sums brought to the larger of the two maxima. */
static void sdpa_join(const sdpa_job *j, sdpa_block *k, const float *acc) {
    const float *top = acc + k->at.n * j->a.dv, *sum = top + k->at.n;
    for (int64_t r = 0; r < k->at.n; r++) {
        if (sum[r] == 0) continue; /* a part none of whose keys is seen */
        float m = k->top[r] > top[r] ? k->top[r] : top[r];
        float a = k->sum[r] == 0 ? 0 : expf(k->top[r] - m), b = expf(top[r] - m);
        k->top[r] = m, k->sum[r] = k->sum[r] * a + sum[r] * b;
        for (int64_t i = 0; i < j->a.dv; i++)
            k->acc[r * j->a.dv + i] = k->acc[r * j->a.dv + i] * a + acc[r * j->a.dv + i] * b;
    }
}

static float *sdpa_work(const sdpa_job *j, sdpa_block *k) {
    size_t n = (size_t)SDPA_ROWS * (size_t)(j->a.d + j->a.dv + SDPA_KEYS + 2);
    float *work = tni_scratch_array(n, sizeof *work);
    if (!work) return NULL;
    *k = (sdpa_block){.q = work};
    k->s = k->q + SDPA_ROWS * j->a.d, k->acc = k->s + SDPA_ROWS * SDPA_KEYS,
    k->top = k->acc + SDPA_ROWS * j->a.dv, k->sum = k->top + SDPA_ROWS;
    return work;
}

static void sdpa_range(void *ctx, int64_t begin, int64_t end, int worker) {
    sdpa_job *j = ctx;
    sdpa_block k;
    float *work = sdpa_work(j, &k);
    (void)worker;
    if (!work) j->status = TN_EMEMORY;
    for (int64_t i = begin; i < end && !j->status; i++) {
        int64_t block = i / j->parts;
        k.at = tni_attention_place(&j->a, block / j->a.blocks, block % j->a.blocks);
        if (j->parts > 1) { /* one block a head: its rows are all rows */
            k.acc = j->partial + i * k.at.n * (j->a.dv + 2);
            k.top = k.acc + k.at.n * j->a.dv, k.sum = k.top + k.at.n;
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
        k.at = tni_attention_place(&j->a, i / j->a.blocks, i % j->a.blocks);
        int64_t size = k.at.n * (j->a.dv + 2);
        k.acc = j->partial + i * j->parts * size;
        k.top = k.acc + k.at.n * j->a.dv, k.sum = k.top + k.at.n;
        for (int64_t p = 1; p < j->parts; p++) sdpa_join(j, &k, k.acc + p * size);
        sdpa_finish(j, &k);
    }
}

static int sdpa_run(sdpa_job *j, int64_t heads) {
    int64_t rows = j->a.group * j->a.lq;
    j->parts = j->a.blocks == 1 && j->a.lk > SDPA_KEYS ? (j->a.lk + SDPA_KEYS - 1) / SDPA_KEYS : 1;
    if (j->parts > 1) {
        size_t n = (size_t)(heads * j->parts * rows * (j->a.dv + 2));
        j->partial = tni_scratch_array(n, sizeof *j->partial);
        if (!j->partial) return tni_fail_memory(n * sizeof *j->partial, "attention");
    }
    tni_parallel(heads * j->a.blocks * j->parts, 1, sdpa_range, j);
    if (!j->status && j->parts > 1) tni_parallel(heads, 64, sdpa_join_range, j);
    tni_scratch_give(j->partial);
    return j->status ? tni_fail_memory(0, "attention") : 0;
}

int tni_cpu_sdpa(const tni_call *c) {
    if (c->in[0].dtype == TN_F64) return tni_cpu_sdpa64(c);
    sdpa_job j = {.a = tni_attention_of(c)};
    return sdpa_run(&j, c->in[0].shape[0] * j.a.hkv);
}
