/* Contract: attention.h. */
#include "cpu/attention.h"
#include "base/half.h"
#include <math.h>
#include <string.h>

static int attention_kind(tn_dtype d) {
    return d == TN_F16    ? TNI_GEMM_F16
           : d == TN_BF16 ? TNI_GEMM_BF16
           : d == TN_F64  ? TNI_GEMM_F64
                          : TNI_GEMM_F32;
}

float tni_attention_number(tn_dtype d, const void *p, int64_t i) {
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

tni_attention tni_attention_of(const tni_call *c) {
    const tni_view *q = &c->in[0], *k = &c->in[1], *v = &c->in[2];
    tni_attention j = {.c = c, .p = c->params, .isa = tni_nn_current()};
    j.hkv = k->shape[1], j.group = q->shape[1] / j.hkv, j.lq = q->shape[2], j.lk = k->shape[2],
    j.d = q->shape[3], j.dv = v->shape[3];
    j.blocks = (j.group * j.lq + TNI_ATTENTION_ROWS - 1) / TNI_ATTENTION_ROWS;
    return j;
}

tni_attention_rows tni_attention_place(const tni_attention *j, int64_t bh, int64_t block) {
    tni_attention_rows k = {bh / j->hkv, bh % j->hkv, block * TNI_ATTENTION_ROWS,
                            TNI_ATTENTION_ROWS};
    int64_t left = j->group * j->lq - k.first;
    if (left < k.n) k.n = left;
    return k;
}

static void attention_row(const tni_attention *j, const tni_view *v, int64_t at, float by,
                          float *dst, int64_t n) {
    bool dense = v->strides[3] == 1;
    if (dense && v->dtype == TN_F32)
        memcpy(dst, (const float *)v->data + at, (size_t)n * sizeof *dst);
    else if (dense && v->dtype == TN_F16)
        j->isa->from_f16((const uint16_t *)v->data + at, dst, n);
    else if (dense && v->dtype == TN_BF16)
        j->isa->from_bf16((const uint16_t *)v->data + at, dst, n);
    else
        for (int64_t i = 0; i < n; i++)
            dst[i] = tni_attention_number(v->dtype, v->data, at + i * v->strides[3]);
    if (by != 1) j->isa->scale(dst, n, by);
}

void tni_attention_load(const tni_attention *j, const tni_attention_rows *k, const tni_view *v,
                        float by, float *dst) {
    int64_t d = v->shape[3];
    for (int64_t r = 0; r < k->n; r++) {
        int64_t at = k->b * v->strides[0] + tni_attention_head(j, k, r) * v->strides[1] +
                     tni_attention_query(j, k, r) * v->strides[2];
        attention_row(j, v, at, by, dst + r * d, d);
    }
}

void tni_attention_store(const tni_attention *j, const float *row, tn_dtype dtype, void *dst,
                         int64_t n) {
    if (dtype == TN_F16)
        j->isa->to_f16(row, dst, n);
    else if (dtype == TN_BF16)
        j->isa->to_bf16(row, dst, n);
    else
        memcpy(dst, row, (size_t)n * sizeof *row);
}

float tni_attention_sink(const tni_attention *j, int64_t batch, int64_t head) {
    if (!j->p->has_sinks) return -INFINITY;
    const tni_view *sinks = &j->c->in[j->p->mask >= TNI_MASK_BOOL ? 4 : 3];
    int64_t at = head * sinks->strides[sinks->ndim - 1];
    if (sinks->ndim == 2) at += batch * sinks->strides[0];
    return ((const float *)sinks->data)[at];
}

int64_t tni_attention_seen(const tni_attention *j, const tni_attention_rows *k, int64_t r) {
    if (j->p->mask != TNI_MASK_CAUSAL) return j->lk;
    int64_t n = tni_attention_query(j, k, r) + 1 + j->lk - j->lq;
    return n < 0 ? 0 : n < j->lk ? n : j->lk;
}

int64_t tni_attention_most(const tni_attention *j, const tni_attention_rows *k) {
    int64_t most = 0;
    for (int64_t r = 0; r < k->n; r++) {
        int64_t n = tni_attention_seen(j, k, r);
        most = n > most ? n : most;
    }
    return most;
}

void tni_attention_mask(const tni_attention *j, const tni_attention_rows *k, int64_t r, int64_t key,
                        int64_t n, float *s) {
    int64_t seen = tni_attention_seen(j, k, r) - key;
    for (int64_t i = seen < 0 ? 0 : seen; i < n; i++) s[i] = -INFINITY;
    if (j->p->mask < TNI_MASK_BOOL) return;
    const tni_view *m = &j->c->in[3];
    int64_t step = m->strides[3];
    int64_t at = k->b * m->strides[0] + tni_attention_head(j, k, r) * m->strides[1] +
                 tni_attention_query(j, k, r) * m->strides[2] + key * step;
    for (int64_t i = 0; i < n; i++, at += step) {
        if (j->p->mask == TNI_MASK_ADD)
            s[i] += tni_attention_number(m->dtype, m->data, at);
        else if (!((const uint8_t *)m->data)[at])
            s[i] = -INFINITY;
    }
}

tni_gemm_mat tni_attention_cache(const tni_view *v, const tni_attention_rows *k, int64_t key,
                                 bool transposed) {
    int64_t at = k->b * v->strides[0] + k->h * v->strides[1] + key * v->strides[2];
    tni_gemm_mat m = {(const char *)v->data + at * (int64_t)tn_dtype_size(v->dtype),
                      attention_kind(v->dtype), v->strides[2], v->strides[3]};
    if (transposed) m.rs = v->strides[3], m.cs = v->strides[2];
    return m;
}
