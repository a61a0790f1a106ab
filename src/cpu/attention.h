/* What attention and its gradient share: how rows are cut into blocks, loaded and masked. */
#ifndef TNI_CPU_ATTENTION_H
#define TNI_CPU_ATTENTION_H

#include "core/backend.h"
#include "cpu/gemm.h"
#include "cpu/nn.h"
#include "ops/prims.h"

enum { TNI_ATTENTION_ROWS = 64 };

typedef struct tni_attention {
    const tni_call *c; /* in: q, k, v, mask?, sinks? */
    const tni_p_sdpa *p;
    const tni_nn_isa *isa;
    int64_t group, lq, lk, d, dv, hkv; /* group: query heads a key-value head */
    int64_t blocks;                    /* row blocks a (batch, key-value head) */
} tni_attention;

/* A block of rows of key-value head h of batch b. Row r is head r / lq of the group, query r % lq.
 */
typedef struct tni_attention_rows {
    int64_t b, h, first, n;
} tni_attention_rows;

tni_attention tni_attention_of(const tni_call *c);
/* Block `block` of the (batch, key-value head) number bh. */
tni_attention_rows tni_attention_place(const tni_attention *j, int64_t bh, int64_t block);
static inline int64_t tni_attention_head(const tni_attention *j, const tni_attention_rows *k,
                                         int64_t r) {
    return k->h * j->group + (k->first + r) / j->lq;
}
static inline int64_t tni_attention_query(const tni_attention *j, const tni_attention_rows *k,
                                          int64_t r) {
    return (k->first + r) % j->lq;
}

/* Rows of v [B, Hq, Lq, d] times `by`, as f32 [n, d]. */
void tni_attention_load(const tni_attention *j, const tni_attention_rows *k, const tni_view *v,
                        float by, float *dst);
/* A row of results, from f32. */
void tni_attention_store(const tni_attention *j, const float *row, tn_dtype dtype, void *dst,
                         int64_t n);
/* -inf when there are none. */
float tni_attention_sink(const tni_attention *j, int64_t batch, int64_t head);
/* Keys that row r may see by causality: [0, result); the most of any row of the block. */
int64_t tni_attention_seen(const tni_attention *j, const tni_attention_rows *k, int64_t r);
int64_t tni_attention_most(const tni_attention *j, const tni_attention_rows *k);
/* Masks the scores s of row r for the keys [key, key + n). */
void tni_attention_mask(const tni_attention *j, const tni_attention_rows *k, int64_t r, int64_t key,
                        int64_t n, float *s);
/* Rows of keys or values from `key` on, as a matrix of the GEMM. */
tni_gemm_mat tni_attention_cache(const tni_view *v, const tni_attention_rows *k, int64_t key,
                                 bool transposed);
float tni_attention_number(tn_dtype d, const void *p, int64_t i);

#endif
