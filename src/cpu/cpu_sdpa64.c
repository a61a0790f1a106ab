/* Attention in f64 and its gradients: a block of rows against all the keys that they see, in the
 * way of cpu_sdpa_vjp.c. For the gradients a key-value head takes its blocks in their order. */
#include "base/err.h"
#include "base/scratch.h"
#include "base/thread.h"
#include "cpu/attention.h"
#include "cpu/cpu_sdpa.h"
#include <math.h>
#include <string.h>

enum { WIDE_ROWS = TNI_ATTENTION_ROWS };

typedef struct wide_job {
    tni_attention a;
    const tni_view *g; /* the cotangent */
    double *sinks;     /* [batch, query heads]: the gradients of the sinks */
    _Atomic int status;
} wide_job;

/* What a block of rows works in. */
typedef struct wide_block {
    tni_attention_rows at;
    int64_t keys;           /* that its rows see */
    double *q, *g, *dq;     /* [rows, d], [rows, dv], [rows, d] */
    double *p, *ds;         /* [rows, keys] */
    double *part, *dk, *dv; /* [keys, d or dv], sums [lk, d] and [lk, dv] */
} wide_block;

static tni_gemm_mat wide_mat(const double *p, int64_t rs, int64_t cs) {
    return (tni_gemm_mat){p, TNI_GEMM_F64, rs, cs};
}

static int wide_product(int64_t m, int64_t n, int64_t k, tni_gemm_mat a, tni_gemm_mat b,
                        double *c) {
    tni_gemm g = {.m = m, .n = n, .k = k, .batch = 1, .serial = 1};
    g.a = a, g.b = b, g.c = wide_mat(c, n, 1);
    return tni_gemm_run(&g);
}

/* Rows of v [B, Hq, Lq, n] times `by`. */
static void wide_load(const wide_job *j, const tni_attention_rows *k, const tni_view *v, double by,
                      double *dst) {
    int64_t n = v->shape[3];
    for (int64_t r = 0; r < k->n; r++) {
        const double *src = (const double *)v->data + k->b * v->strides[0] +
                            tni_attention_head(&j->a, k, r) * v->strides[1] +
                            tni_attention_query(&j->a, k, r) * v->strides[2];
        for (int64_t i = 0; i < n; i++) dst[r * n + i] = src[i * v->strides[3]] * by;
    }
}

static void wide_mask(const wide_job *j, const wide_block *k, int64_t r, double *s) {
    int64_t seen = tni_attention_seen(&j->a, &k->at, r);
    for (int64_t i = seen; i < k->keys; i++) s[i] = -(double)INFINITY;
    if (j->a.p->mask < TNI_MASK_BOOL) return;
    const tni_view *m = &j->a.c->in[3];
    int64_t at = k->at.b * m->strides[0] + tni_attention_head(&j->a, &k->at, r) * m->strides[1] +
                 tni_attention_query(&j->a, &k->at, r) * m->strides[2];
    for (int64_t i = 0; i < k->keys; i++, at += m->strides[3]) {
        if (j->a.p->mask == TNI_MASK_BOOL)
            s[i] = ((const uint8_t *)m->data)[at] ? s[i] : -(double)INFINITY;
        else
            s[i] += m->dtype == TN_F64 ? ((const double *)m->data)[at]
                                       : (double)tni_attention_number(m->dtype, m->data, at);
    }
}

/* Scores of row r to P; what the sink takes of it. */
static double wide_softmax(const wide_job *j, const wide_block *k, int64_t r, int64_t head) {
    double *p = k->p + r * k->keys, sum;
    double sink = (double)tni_attention_sink(&j->a, k->at.b, head), top = sink;
    wide_mask(j, k, r, p);
    for (int64_t i = 0; i < k->keys; i++) top = p[i] > top || isnan(p[i]) ? p[i] : top;
    if (top == -(double)INFINITY) top = 0; /* a row that may look nowhere */
    sum = sink = exp(sink - top);
    for (int64_t i = 0; i < k->keys; i++) p[i] = exp(p[i] - top), sum += p[i];
    if (sum == 0) sum = 1;
    for (int64_t i = 0; i < k->keys; i++) p[i] /= sum;
    return sink / sum;
}

/* Scores and dP to P and dS, a row at a time. */
static void wide_rows(const wide_job *j, const wide_block *k) {
    for (int64_t r = 0; r < k->at.n; r++) {
        int64_t head = tni_attention_head(&j->a, &k->at, r);
        double sink = wide_softmax(j, k, r, head), delta = 0;
        double *p = k->p + r * k->keys, *ds = k->ds + r * k->keys;
        for (int64_t i = 0; i < k->keys; i++) delta += p[i] * ds[i];
        for (int64_t i = 0; i < k->keys; i++) ds[i] = p[i] * (ds[i] - delta);
        if (j->sinks) j->sinks[k->at.b * j->a.hkv * j->a.group + head] -= sink * delta;
    }
}

/* Rows [rows, d] times `by` to where they belong in the first output. */
static void wide_store(const wide_job *j, const wide_block *k, const double *rows, int64_t d,
                       double by) {
    const tni_attention *a = &j->a;
    for (int64_t r = 0; r < k->at.n; r++) {
        int64_t head = k->at.b * a->hkv * a->group + tni_attention_head(a, &k->at, r);
        double *to =
            (double *)a->c->out[0].data + (head * a->lq + tni_attention_query(a, &k->at, r)) * d;
        for (int64_t i = 0; i < d; i++) to[i] = rows[r * d + i] * by;
    }
}

static double *wide_work(const wide_job *j, wide_block *k) {
    const tni_attention *a = &j->a;
    int64_t most = a->d > a->dv ? a->d : a->dv;
    size_t rows = (size_t)WIDE_ROWS * (size_t)(2 * a->d + a->dv), keys;
    if (__builtin_mul_overflow((size_t)WIDE_ROWS * 2 + (size_t)most, (size_t)a->lk, &keys))
        return NULL;
    double *work = tni_scratch_array(rows + keys, sizeof *work);
    if (!work) return NULL;
    k->q = work, k->g = k->q + WIDE_ROWS * a->d, k->dq = k->g + WIDE_ROWS * a->dv;
    k->part = k->dq + WIDE_ROWS * a->d, k->p = k->part + most * a->lk;
    return work;
}

/* The block's queries and its scores, into q and p. */
static int wide_scores(const wide_job *j, wide_block *k) {
    const tni_attention *a = &j->a;
    int64_t n = k->keys = tni_attention_most(a, &k->at);
    k->ds = k->p + k->at.n * n;
    wide_load(j, &k->at, &a->c->in[0], (double)a->p->scale, k->q);
    return wide_product(k->at.n, n, a->d, wide_mat(k->q, a->d, 1),
                        tni_attention_cache(&a->c->in[1], &k->at, 0, true), k->p);
}

/* ---- attention ---- */

static void wide_forward_range(void *ctx, int64_t begin, int64_t end, int worker) {
    wide_job *j = ctx;
    wide_block k;
    const tni_attention *a = &j->a;
    double *work = wide_work(j, &k);
    (void)worker;
    if (!work) j->status = TN_EMEMORY;
    for (int64_t i = begin; i < end && !j->status; i++) {
        k.at = tni_attention_place(a, i / a->blocks, i % a->blocks);
        int status = wide_scores(j, &k);
        for (int64_t r = 0; r < k.at.n && !status; r++)
            wide_softmax(j, &k, r, tni_attention_head(a, &k.at, r));
        if (!status)
            status = wide_product(k.at.n, a->dv, k.keys, wide_mat(k.p, k.keys, 1),
                                  tni_attention_cache(&a->c->in[2], &k.at, 0, false), k.g);
        if (status)
            j->status = status;
        else
            wide_store(j, &k, k.g, a->dv, 1);
    }
    tni_scratch_give(work);
}

int tni_cpu_sdpa64(const tni_call *c) {
    wide_job j = {.a = tni_attention_of(c)};
    tni_parallel(c->in[0].shape[0] * j.a.hkv * j.a.blocks, 1, wide_forward_range, &j);
    return j.status ? tni_fail_memory(0, "attention") : 0;
}

/* ---- gradients ---- */

static void wide_add(double *sum, const double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) sum[i] += x[i];
}

static int wide_run_block(const wide_job *j, wide_block *k) {
    const tni_attention *a = &j->a;
    const tni_view *keys = &a->c->in[1], *values = &a->c->in[2];
    int status = wide_scores(j, k);
    int64_t n = k->keys, m = k->at.n;
    wide_load(j, &k->at, j->g, 1, k->g);
    if (!status)
        status = wide_product(m, n, a->dv, wide_mat(k->g, a->dv, 1),
                              tni_attention_cache(values, &k->at, 0, true), k->ds);
    if (status) return status;
    wide_rows(j, k);
    status = wide_product(m, a->d, n, wide_mat(k->ds, n, 1),
                          tni_attention_cache(keys, &k->at, 0, false), k->dq);
    if (!status)
        status = wide_product(n, a->d, m, wide_mat(k->ds, 1, n), wide_mat(k->q, a->d, 1), k->part);
    if (!status) wide_add(k->dk, k->part, n * a->d);
    if (!status)
        status = wide_product(n, a->dv, m, wide_mat(k->p, 1, n), wide_mat(k->g, a->dv, 1), k->part);
    if (!status) wide_add(k->dv, k->part, n * a->dv);
    return status;
}

/* Key-value heads of batches. */
static void wide_range(void *ctx, int64_t begin, int64_t end, int worker) {
    wide_job *j = ctx;
    wide_block k;
    double *work = wide_work(j, &k);
    int64_t nk = j->a.lk * j->a.d, nv = j->a.lk * j->a.dv;
    (void)worker;
    if (!work) j->status = TN_EMEMORY;
    for (int64_t i = begin; i < end && !j->status; i++) {
        k.dk = (double *)j->a.c->out[1].data + i * nk;
        k.dv = (double *)j->a.c->out[2].data + i * nv;
        memset(k.dk, 0, (size_t)nk * sizeof *k.dk), memset(k.dv, 0, (size_t)nv * sizeof *k.dv);
        for (int64_t b = 0; b < j->a.blocks && !j->status; b++) {
            k.at = tni_attention_place(&j->a, i, b);
            int status = wide_run_block(j, &k);
            if (status)
                j->status = status;
            else
                wide_store(j, &k, k.dq, j->a.d, (double)j->a.p->scale);
        }
    }
    tni_scratch_give(work);
}

/* To the output: one for each query head, of all batches unless each has its own. */
static void wide_sinks(const wide_job *j, int64_t batch) {
    const tni_view *o = &j->a.c->out[3];
    int64_t heads = j->a.hkv * j->a.group;
    bool apart = o->ndim == 2;
    for (int64_t i = 0; i < (apart ? batch * heads : heads); i++) {
        double sum = j->sinks[i];
        for (int64_t b = 1; b < batch && !apart; b++) sum += j->sinks[b * heads + i];
        ((float *)o->data)[i] = (float)sum;
    }
}

int tni_cpu_sdpa_vjp64(const tni_call *c) {
    wide_job j = {.a = tni_attention_of(c)};
    int64_t batch = c->in[0].shape[0], heads = batch * j.a.hkv;
    size_t sinks = j.a.p->has_sinks ? (size_t)(heads * j.a.group) : 0;
    j.g = &c->in[3 + (j.a.p->mask >= TNI_MASK_BOOL) + j.a.p->has_sinks];
    if (j.a.p->has_sinks) {
        j.sinks = tni_scratch_array(sinks + 1, sizeof *j.sinks);
        if (!j.sinks) return tni_fail_memory(sinks * sizeof *j.sinks, "the gradients of attention");
        memset(j.sinks, 0, (sinks + 1) * sizeof *j.sinks);
    }
    tni_parallel(heads, 1, wide_range, &j);
    if (!j.status && j.sinks) wide_sinks(&j, batch);
    tni_scratch_give(j.sinks);
    return j.status ? tni_fail_memory(0, "the gradients of attention") : 0;
}
