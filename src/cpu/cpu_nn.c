/* Softmax, norms and rotary embedding: dtypes and threads around the row kernels. f16 and bf16 rows
 * are widened, computed in f32 and rounded once; f64 rows have plain loops of their own. */
#include "cpu/cpu_nn.h"
#include "base/cpu.h"
#include "base/err.h"
#include "base/half.h"
#include "base/scratch.h"
#include "base/thread.h"
#include "cpu/nn.h"
#include "ops/prims.h"
#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* ---- which kernels ---- */

static _Atomic(const tni_nn_isa *) nn_isa;

void tni_nn_use(const tni_nn_isa *isa) { atomic_store(&nn_isa, isa); }

const tni_nn_isa *tni_nn_current(void) {
    const tni_nn_isa *isa = atomic_load_explicit(&nn_isa, memory_order_relaxed);
    if (isa) return isa;
    isa = tni_nn_isa_ref();
#if defined(__x86_64__)
    if (tni_cpu_info()->isa == TNI_ISA_AVX512)
        isa = tni_nn_isa_avx512();
    else if (tni_cpu_info()->isa == TNI_ISA_AVX2)
        isa = tni_nn_isa_avx2();
#elif defined(__aarch64__)
    if (tni_cpu_info()->isa == TNI_ISA_NEON) isa = tni_nn_isa_neon();
#endif
    atomic_store_explicit(&nn_isa, isa, memory_order_relaxed);
    return isa;
}

/* ---- rows ---- */

enum { NN_SOFTMAX, NN_RMS, NN_LAYER };

typedef struct nn_job {
    const tni_call *c;
    const tni_nn_isa *isa;
    int op;
    int64_t n;               /* row length */
    const float *w, *b;      /* f32 */
    const double *w64, *b64; /* for f64 rows */
    float eps;
    _Atomic int failed;
} nn_job;

static void nn_widen(const tni_nn_isa *isa, tn_dtype d, const void *src, float *dst, int64_t n) {
    if (d == TN_F16)
        isa->from_f16(src, dst, n);
    else if (d == TN_BF16)
        isa->from_bf16(src, dst, n);
    else if (d == TN_F64)
        for (int64_t i = 0; i < n; i++) dst[i] = (float)((const double *)src)[i];
    else
        memcpy(dst, src, (size_t)n * sizeof *dst);
}

static void nn_row(const nn_job *j, const float *x, float *y) {
    if (j->op == NN_SOFTMAX)
        j->isa->softmax(x, y, j->n);
    else if (j->op == NN_RMS)
        j->isa->rms_norm(x, j->w, y, j->n, j->eps);
    else
        j->isa->layer_norm(x, j->w, j->b, y, j->n, j->eps);
}

static void nn_row_f64(const nn_job *j, const double *x, double *y) {
    int64_t n = j->n;
    double sum = 0, mean = 0, top = -INFINITY, by;
    if (j->op == NN_SOFTMAX) {
        for (int64_t i = 0; i < n; i++) top = x[i] > top || isnan(x[i]) ? x[i] : top;
        for (int64_t i = 0; i < n; i++) sum += y[i] = exp(x[i] - top);
        for (int64_t i = 0; i < n; i++) y[i] /= sum;
        return;
    }
    if (j->op == NN_LAYER) {
        for (int64_t i = 0; i < n; i++) mean += x[i];
        mean /= (double)n;
    }
    for (int64_t i = 0; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    by = 1 / sqrt(sum / (double)n + (double)j->eps);
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * by * (j->w64 ? j->w64[i] : 1) + (j->b64 ? j->b64[i] : 0);
}

static void nn_range(void *ctx, int64_t begin, int64_t end, int worker) {
    nn_job *j = ctx;
    const tni_view *x = &j->c->in[0];
    size_t item = tn_dtype_size(x->dtype), step = (size_t)j->n * item;
    bool half = x->dtype == TN_F16 || x->dtype == TN_BF16;
    float *t = half ? tni_scratch_array((size_t)j->n, sizeof *t) : NULL;
    (void)worker;
    if (half && !t) {
        j->failed = 1;
        return;
    }
    for (int64_t r = begin; r < end; r++) {
        const char *src = (const char *)x->data + (size_t)r * step;
        char *dst = (char *)j->c->out->data + (size_t)r * step;
        if (x->dtype == TN_F32)
            nn_row(j, (const void *)src, (void *)dst);
        else if (x->dtype == TN_F64)
            nn_row_f64(j, (const void *)src, (void *)dst);
        else {
            nn_widen(j->isa, x->dtype, src, t, j->n);
            nn_row(j, t, t);
            if (x->dtype == TN_F16)
                j->isa->to_f16(t, (void *)dst, j->n);
            else
                j->isa->to_bf16(t, (void *)dst, j->n);
        }
    }
    tni_scratch_give(t);
}

static int nn_rows(nn_job *j) {
    const tni_view *x = &j->c->in[0];
    j->isa = tni_nn_current();
    j->n = x->shape[x->ndim - 1];
    /* About 16 K elements a chunk: 5 to 10 us. */
    tni_parallel(tni_view_size(x) / j->n, 1 + 16384 / j->n, nn_range, j);
    return j->failed ? tni_fail_memory((size_t)j->n * sizeof(float), "a normalisation's row") : 0;
}

int tni_cpu_softmax(const tni_call *c) {
    nn_job j = {.c = c, .op = NN_SOFTMAX};
    return nn_rows(&j);
}

/* ---- norms ---- */

/* A weight in the type of the computation: itself, or a converted copy that *owned frees. */
static int nn_weight(const tni_view *v, bool f64, const void **use, void **owned) {
    int64_t n = tni_view_size(v);
    *use = v->data, *owned = NULL;
    if (v->dtype == (f64 ? TN_F64 : TN_F32)) return 0;
    float *f = tni_scratch_array((size_t)n, f64 ? sizeof(double) : sizeof(float));
    if (!f) return tni_fail_memory((size_t)n * sizeof(double), "a norm's weight");
    if (f64) {
        float *t = tni_scratch_array((size_t)n, sizeof *t);
        if (!t)
            return tni_scratch_give(f), tni_fail_memory((size_t)n * sizeof *t, "a norm's weight");
        nn_widen(tni_nn_current(), v->dtype, v->data, t, n);
        for (int64_t i = 0; i < n; i++) ((double *)(void *)f)[i] = (double)t[i];
        tni_scratch_give(t);
    } else {
        nn_widen(tni_nn_current(), v->dtype, v->data, f, n);
    }
    *use = *owned = f;
    return 0;
}

static int nn_norm(const tni_call *c, int op) {
    const tni_p_norm *p = c->params;
    nn_job j = {.c = c, .op = op, .eps = p->eps};
    bool f64 = c->in[0].dtype == TN_F64;
    const void *w = NULL, *b = NULL;
    void *own_w = NULL, *own_b = NULL;
    int status = p->has_weight ? nn_weight(&c->in[1], f64, &w, &own_w) : 0;
    if (!status && p->has_bias) status = nn_weight(&c->in[1 + p->has_weight], f64, &b, &own_b);
    if (f64)
        j.w64 = w, j.b64 = b;
    else
        j.w = w, j.b = b;
    if (!status) status = nn_rows(&j);
    tni_scratch_give(own_w);
    tni_scratch_give(own_b);
    return status;
}

int tni_cpu_rms_norm(const tni_call *c) { return nn_norm(c, NN_RMS); }
int tni_cpu_layer_norm(const tni_call *c) { return nn_norm(c, NN_LAYER); }

/* ---- rotary embedding ----
 * Angles are computed in double and rounded once, so that position 10^6 is as exact as position 1;
 * a row of positions shares its sines and cosines among the heads. */

typedef struct rope_job {
    const tni_call *c;
    const tni_p_rope *p;
    const float *table; /* [batch or 1, T, dims/2, 2]: cosine, sine */
    int64_t t, batch;   /* positions; batches in the table */
    int64_t heads;      /* rows between batch and positions */
} rope_job;

static double rope_load(tn_dtype d, const char *p) {
    uint16_t h;
    switch (d) {
    case TN_F32:
        return (double)*(const float *)(const void *)p;
    case TN_F64:
        return *(const double *)(const void *)p;
    case TN_F16:
        return memcpy(&h, p, 2), (double)tni_f16_to_f32(h);
    default:
        return memcpy(&h, p, 2), (double)tni_bf16_to_f32(h);
    }
}

static void rope_store(tn_dtype d, char *p, double v) {
    uint16_t h;
    if (d == TN_F32)
        *(float *)(void *)p = (float)v;
    else if (d == TN_F64)
        *(double *)(void *)p = v;
    else
        h = d == TN_F16 ? tni_f32_to_f16((float)v) : tni_f32_to_bf16((float)v), memcpy(p, &h, 2);
}

/* f32 rows of unit stride, the usual case: f32 arithmetic, four products a pair. */
static void rope_row_f32(const rope_job *j, const float *x, float *y, const float *cs, int64_t d) {
    int64_t n = j->p->dims, half = n / 2, step = j->p->traditional ? 2 : 1,
            other = j->p->traditional ? 1 : half;
    for (int64_t i = 0; i < half; i++) {
        float a = x[i * step], b = x[i * step + other], c = cs[2 * i], s = cs[2 * i + 1];
        y[i * step] = a * c - b * s;
        y[i * step + other] = a * s + b * c;
    }
    for (int64_t i = n; i < d; i++) y[i] = x[i];
}

static void rope_row(const rope_job *j, const char *x, int64_t xs, char *y, const float *cs,
                     int64_t d) {
    tn_dtype t = j->c->in[0].dtype;
    int64_t item = (int64_t)tn_dtype_size(t), half = j->p->dims / 2,
            step = j->p->traditional ? 2 : 1, other = j->p->traditional ? 1 : half;
    for (int64_t i = 0; i < half; i++) {
        double a = rope_load(t, x + i * step * xs * item),
               b = rope_load(t, x + (i * step + other) * xs * item);
        double c = (double)cs[2 * i], s = (double)cs[2 * i + 1];
        rope_store(t, y + i * step * item, a * c - b * s);
        rope_store(t, y + (i * step + other) * item, a * s + b * c);
    }
    for (int64_t i = j->p->dims; i < d; i++) memcpy(y + i * item, x + i * xs * item, (size_t)item);
}

static void rope_range(void *ctx, int64_t begin, int64_t end, int worker) {
    const rope_job *j = ctx;
    const tni_view *x = &j->c->in[0];
    int64_t d = x->shape[x->ndim - 1], item = (int64_t)tn_dtype_size(x->dtype),
            xs = x->strides[x->ndim - 1];
    (void)worker;
    for (int64_t r = begin; r < end; r++) { /* row r of [B, ..., T] */
        int64_t at = r, offset = 0;
        for (int k = x->ndim - 2; k >= 0; k--)
            offset += at % x->shape[k] * x->strides[k], at /= x->shape[k];
        int64_t batch = j->batch > 1 ? r / (j->heads * j->t) : 0;
        const float *cs = j->table + (batch * j->t + r % j->t) * j->p->dims;
        const char *src = (const char *)x->data + offset * item;
        char *dst = (char *)j->c->out->data + r * d * item;
        if (x->dtype == TN_F32 && xs == 1)
            rope_row_f32(j, (const void *)src, (void *)dst, cs, d);
        else
            rope_row(j, src, xs, dst, cs, d);
    }
}

static void rope_table(const tni_call *c, const tni_p_rope *p, float *table, int64_t batch,
                       int64_t t) {
    const tni_view *off = &c->in[1], *freqs = p->has_freqs ? &c->in[2] : NULL;
    int64_t half = p->dims / 2;
    for (int64_t i = 0; i < half; i++) {
        double f = freqs ? 1 / (double)((const float *)freqs->data)[i * freqs->strides[0]]
                         : pow((double)p->base, -2.0 * (double)i / p->dims);
        for (int64_t b = 0; b < batch; b++) {
            int32_t start = ((const int32_t *)off->data)[off->ndim ? b * off->strides[0] : 0];
            for (int64_t k = 0; k < t; k++) {
                double angle = ((double)start + (double)k) * (double)p->scale * f;
                float *cs = table + ((b * t + k) * half + i) * 2;
                cs[0] = (float)cos(angle), cs[1] = (float)sin(angle);
            }
        }
    }
}

int tni_cpu_rope(const tni_call *c) {
    const tni_view *x = &c->in[0];
    rope_job j = {.c = c, .p = c->params, .t = x->shape[x->ndim - 2], .heads = 1};
    j.batch = c->in[1].ndim ? x->shape[0] : 1;
    for (int k = 1; k < x->ndim - 2; k++) j.heads *= x->shape[k];
    float *table = tni_scratch_array((size_t)(j.batch * j.t * j.p->dims), sizeof *table);
    if (!table)
        return tni_fail_memory((size_t)(j.batch * j.t * j.p->dims) * sizeof *table,
                               "rope's angles");
    rope_table(c, j.p, table, j.batch, j.t);
    j.table = table;
    int64_t d = x->shape[x->ndim - 1];
    tni_parallel(tni_view_size(x) / d, 1 + 16384 / d, rope_range, &j);
    tni_scratch_give(table);
    return 0;
}
