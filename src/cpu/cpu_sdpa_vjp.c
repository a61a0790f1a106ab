/* The gradients of attention, block by block as the forward pass goes: the scores of a block of
 * query rows against all the keys that they see are made again, so that nothing as large as
 * queries times keys is kept. With P the softmax, dO the cotangent and dP = dO V^T:
 *
 *     dS = P (dP - sum(P dP)),  dQ = scale dS K,  dK = scale dS^T Q,  dV = P^T dO
 *
 * (Dao et al., "FlashAttention", 2022, appendix B.4). Five products a block, the fewest there can
 * be without the scores.
 *
 * Blocks of one key-value head add to the same dK and dV, so they run one after the other; where
 * there are few heads, the blocks are cut into parts with sums of their own, which are joined in
 * the parts' order. Parts are fixed by the shapes, so bits do not depend on threads or ISA. */
#include "base/err.h"
#include "base/scratch.h"
#include "base/thread.h"
#include "cpu/attention.h"
#include "cpu/cpu_sdpa.h"
#include <math.h>
#include <string.h>

enum { VJP_ROWS = TNI_ATTENTION_ROWS, VJP_WORK = 32 }; /* VJP_WORK: pieces of work worth having */

typedef struct vjp_job {
    tni_attention a;
    const tni_view *g; /* the cotangent */
    int64_t parts;     /* of the blocks of a (batch, key-value head) */
    int64_t size;      /* of sums: dK [lk, d], dV [lk, dv], the sinks' [group] */
    float *partial;    /* [batch * hkv, parts, size] */
    _Atomic int status;
} vjp_job;

/* What a block of rows works in. */
typedef struct vjp_block {
    tni_attention_rows at;
    int64_t keys;      /* that its rows see */
    float *q, *g, *dq; /* [rows, d], [rows, dv], [rows, d] */
    float *p, *ds;     /* [rows, keys] */
    float *dk, *dv, *sink;
} vjp_block;

static tni_gemm_mat vjp_mat(const float *p, int64_t rs, int64_t cs) {
    return (tni_gemm_mat){p, TNI_GEMM_F32, rs, cs};
}

static int vjp_product(int64_t m, int64_t n, int64_t k, tni_gemm_mat a, tni_gemm_mat b, float *c,
                       int add) {
    tni_gemm g = {.m = m, .n = n, .k = k, .batch = 1, .add = add, .serial = 1};
    g.a = a, g.b = b, g.c = vjp_mat(c, n, 1);
    return tni_gemm_run(&g);
}

/* P and dP to P and dS, a row at a time. */
static void vjp_rows(const vjp_job *j, vjp_block *k) {
    for (int64_t r = 0; r < k->at.n; r++) {
        float *p = k->p + r * k->keys;
        int64_t head = tni_attention_head(&j->a, &k->at, r);
        float sink = tni_attention_sink(&j->a, k->at.b, head), top = sink,
              sum = j->a.p->has_sinks ? 1 : 0;
        tni_attention_mask(&j->a, &k->at, r, 0, k->keys, p);
        j->a.isa->online(p, k->keys, &top, &sum, NULL, 0);
        if (sum != 0) j->a.isa->scale(p, k->keys, 1.0f / sum);
        float delta = j->a.isa->softmax_vjp(p, k->ds + r * k->keys, k->keys);
        if (j->a.p->has_sinks) k->sink[head % j->a.group] -= expf(sink - top) / sum * delta;
    }
}

static void vjp_store_queries(const vjp_job *j, const vjp_block *k) {
    const tni_view *o = &j->a.c->out[0];
    for (int64_t r = 0; r < k->at.n; r++) {
        int64_t head = tni_attention_head(&j->a, &k->at, r),
                row = tni_attention_query(&j->a, &k->at, r);
        int64_t at = ((k->at.b * j->a.hkv * j->a.group + head) * j->a.lq + row) * j->a.d;
        float *dq = k->dq + r * j->a.d;
        j->a.isa->scale(dq, j->a.d, j->a.p->scale);
        tni_attention_store(&j->a, dq, o->dtype,
                            (char *)o->data + (size_t)at * tn_dtype_size(o->dtype), j->a.d);
    }
}

static int vjp_run_block(const vjp_job *j, vjp_block *k) {
    const tni_attention *a = &j->a;
    const tni_view *keys = &a->c->in[1], *values = &a->c->in[2];
    int64_t n = k->keys = tni_attention_most(a, &k->at), m = k->at.n;
    k->ds = k->p + m * n;
    tni_attention_load(a, &k->at, &a->c->in[0], a->p->scale, k->q);
    tni_attention_load(a, &k->at, j->g, 1, k->g);
    int status = vjp_product(m, n, a->d, vjp_mat(k->q, a->d, 1),
                             tni_attention_cache(keys, &k->at, 0, true), k->p, 0);
    if (!status)
        status = vjp_product(m, n, a->dv, vjp_mat(k->g, a->dv, 1),
                             tni_attention_cache(values, &k->at, 0, true), k->ds, 0);
    if (status) return status;
    vjp_rows(j, k);
    status = vjp_product(m, a->d, n, vjp_mat(k->ds, n, 1),
                         tni_attention_cache(keys, &k->at, 0, false), k->dq, 0);
    if (!status)
        status = vjp_product(n, a->d, m, vjp_mat(k->ds, 1, n), vjp_mat(k->q, a->d, 1), k->dk, 1);
    if (!status)
        status = vjp_product(n, a->dv, m, vjp_mat(k->p, 1, n), vjp_mat(k->g, a->dv, 1), k->dv, 1);
    if (!status) vjp_store_queries(j, k);
    return status;
}

static float *vjp_work(const vjp_job *j, vjp_block *k) {
    const tni_attention *a = &j->a;
    size_t n = (size_t)VJP_ROWS * (size_t)(2 * a->d + a->dv);
    size_t keys;
    if (__builtin_mul_overflow((size_t)VJP_ROWS * 2, (size_t)a->lk, &keys)) return NULL;
    float *work = tni_scratch_array(n + keys, sizeof *work);
    if (!work) return NULL;
    k->q = work, k->g = k->q + VJP_ROWS * a->d, k->dq = k->g + VJP_ROWS * a->dv,
    k->p = k->dq + VJP_ROWS * a->d;
    return work;
}

static void vjp_range(void *ctx, int64_t begin, int64_t end, int worker) {
    vjp_job *j = ctx;
    vjp_block k;
    float *work = vjp_work(j, &k);
    (void)worker;
    if (!work) j->status = TN_EMEMORY;
    for (int64_t i = begin; i < end && !j->status; i++) {
        int64_t part = i % j->parts, blocks = j->a.blocks;
        k.dk = j->partial + i * j->size, k.dv = k.dk + j->a.lk * j->a.d;
        k.sink = k.dv + j->a.lk * j->a.dv;
        memset(k.dk, 0, (size_t)j->size * sizeof *k.dk);
        for (int64_t b = part * blocks / j->parts; b < (part + 1) * blocks / j->parts; b++) {
            k.at = tni_attention_place(&j->a, i / j->parts, b);
            int status = vjp_run_block(j, &k);
            if (status) j->status = status;
        }
    }
    tni_scratch_give(work);
}

/* Sums of the parts of a (batch, key-value head), in the first, to the outputs. */
static void vjp_join_range(void *ctx, int64_t begin, int64_t end, int worker) {
    vjp_job *j = ctx;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        float *sum = j->partial + i * j->parts * j->size;
        for (int64_t p = 1; p < j->parts; p++)
            for (int64_t x = 0; x < j->size; x++) sum[x] += sum[p * j->size + x];
        const tni_view *dk = &j->a.c->out[1], *dv = &j->a.c->out[2];
        int64_t nk = j->a.lk * j->a.d, nv = j->a.lk * j->a.dv;
        tni_attention_store(&j->a, sum, dk->dtype,
                            (char *)dk->data + (size_t)(i * nk) * tn_dtype_size(dk->dtype), nk);
        tni_attention_store(&j->a, sum + nk, dv->dtype,
                            (char *)dv->data + (size_t)(i * nv) * tn_dtype_size(dv->dtype), nv);
    }
}

/* The sinks' gradients: of a batch each, or over the batches in order. */
static void vjp_sinks(const vjp_job *j, int64_t batch) {
    const tni_view *o = &j->a.c->out[3];
    float *out = o->data;
    int64_t skip = j->a.lk * (j->a.d + j->a.dv), heads = j->a.hkv * j->a.group;
    memset(out, 0, (size_t)(o->ndim == 2 ? batch * heads : heads) * sizeof *out);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < heads; h++)
            out[(o->ndim == 2 ? b * heads : 0) + h] +=
                j->partial[(b * j->a.hkv + h / j->a.group) * j->parts * j->size + skip +
                           h % j->a.group];
}

int tni_cpu_sdpa_vjp(const tni_call *c) {
    if (c->in[0].dtype == TN_F64) return tni_cpu_sdpa_vjp64(c);
    vjp_job j = {.a = tni_attention_of(c)};
    int64_t batch = c->in[0].shape[0], heads = batch * j.a.hkv, blocks = j.a.blocks;
    j.g = &c->in[3 + (j.a.p->mask >= TNI_MASK_BOOL) + j.a.p->has_sinks];
    j.parts = heads >= VJP_WORK || !heads ? 1 : (VJP_WORK + heads - 1) / heads;
    if (j.parts > blocks) j.parts = blocks ? blocks : 1;
    j.size = j.a.lk * (j.a.d + j.a.dv) + j.a.group;
    j.partial = tni_scratch_array((size_t)(heads * j.parts), (size_t)j.size * sizeof *j.partial);
    if (!j.partial) return tni_fail_memory(0, "the gradients of attention");
    tni_parallel(heads * j.parts, 1, vjp_range, &j);
    if (!j.status) tni_parallel(heads, 1, vjp_join_range, &j);
    if (!j.status && j.a.p->has_sinks) vjp_sinks(&j, batch);
    tni_scratch_give(j.partial);
    return j.status ? tni_fail_memory(0, "the gradients of attention") : 0;
}
