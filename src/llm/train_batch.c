/* Batches: of examples of like length, so that little is padding; in an order that depends on the
 * seed and the number of the step alone, so that a run can be taken up anywhere. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/threefry.h"
#include "llm/train.h"
#include <stdlib.h>
#include <string.h>

enum { BATCH_PAD = 32 }; /* mlx-lm's: lengths are a multiple of it, and one for the shift */

/* ---- the order ---- */

typedef struct batch_key {
    int32_t n;
    int64_t index;
} batch_key;

static int batch_by_length(const void *a, const void *b) {
    const batch_key *x = a, *y = b;
    if (x->n != y->n) return x->n < y->n ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static int batch_sort(const tn_llm_data *d, int64_t *order) {
    size_t n = d->example.n;
    batch_key *key = tni_alloc_array(n, sizeof *key);
    if (!key) return tni_fail_memory(n * sizeof *key, "the order of examples");
    for (size_t i = 0; i < n; i++) key[i] = (batch_key){d->example.v[i].n, (int64_t)i};
    qsort(key, n, sizeof *key, batch_by_length);
    for (size_t i = 0; i < n; i++) order[i] = key[i].index;
    tni_free(key);
    return 0;
}

int tni_order_make(const tn_llm *m, const tn_llm_data *d, int64_t batch, uint64_t seed,
                   tni_order *p) {
    int64_t n = (int64_t)d->example.n;
    *p = (tni_order){
        .d = d, .batch = batch, .n = n / batch, .seed = seed, .epoch = -1, .positions = m->context};
    if (d->longest > m->context)
        return tni_fail(TN_EVALUE,
                        "training: an example has %lld tokens; the model has %lld positions",
                        (long long)d->longest, (long long)m->context);
    if (n < batch)
        return tni_fail(
            TN_EVALUE,
            "training: %lld examples are fewer than a batch of %lld: a smaller batch is needed",
            (long long)n, (long long)batch);
    p->order = tni_alloc_array((size_t)n, sizeof *p->order);
    p->turn = tni_alloc_array((size_t)p->n, sizeof *p->turn);
    if (!p->order || !p->turn)
        return tni_fail_memory((size_t)n * sizeof *p->order, "the order of examples");
    return batch_sort(d, p->order);
}

void tni_order_free(tni_order *p) {
    tni_free(p->order), tni_free(p->turn);
    p->order = p->turn = NULL;
}

/* Fisher and Yates's shuffle, from the last down; the k-th number of (seed, epoch) is 64 bits of
 * threefry, taken modulo. */
static void batch_shuffle(tni_order *p, int64_t epoch) {
    tni_u32x2 key = {(uint32_t)p->seed, (uint32_t)(p->seed >> 32)};
    for (int64_t i = 0; i < p->n; i++) p->turn[i] = i;
    for (int64_t i = p->n - 1; i > 0; i--) {
        tni_u32x2 r = tni_threefry(key, (tni_u32x2){(uint32_t)epoch, (uint32_t)i});
        int64_t k = (int64_t)(((uint64_t)r.x << 32 | r.y) % (uint64_t)(i + 1)), old = p->turn[i];
        p->turn[i] = p->turn[k], p->turn[k] = old;
    }
    p->epoch = epoch;
}

/* ---- arrays ---- */

static int64_t batch_length(const tni_order *p, const int64_t *rows) {
    int64_t longest = 0;
    for (int64_t i = 0; i < p->batch; i++) {
        int64_t n = p->d->example.v[rows[i]].n;
        longest = n > longest ? n : longest;
    }
    int64_t padded = 1 + (longest + BATCH_PAD - 1) / BATCH_PAD * BATCH_PAD;
    padded = padded < p->d->most ? padded : p->d->most;
    return padded < p->positions ? padded : p->positions + 1;
}

int tni_order_batch(tni_order *p, int64_t step, tni_batch *out) {
    if (p->epoch != step / p->n) batch_shuffle(p, step / p->n);
    const int64_t *rows = p->order + p->turn[step % p->n] * p->batch;
    int64_t length = batch_length(p, rows), n = p->batch * length;
    int32_t *ids = tni_calloc((size_t)(n + 2 * p->batch), sizeof *ids);
    if (!ids) return tni_fail_memory((size_t)n * sizeof *ids, "a batch");
    int32_t *spans = ids + n;
    for (int64_t i = 0; i < p->batch; i++) {
        const tni_example *e = &p->d->example.v[rows[i]];
        memcpy(ids + i * length, p->d->ids.v + e->at, (size_t)e->n * sizeof *ids);
        spans[2 * i] = e->offset, spans[2 * i + 1] = e->n;
    }
    out->ids = tn_array_new(ids, TN_I32, TN_SHAPE(p->batch, length));
    out->spans = tn_array_new(spans, TN_I32, TN_SHAPE(p->batch, 2));
    tni_free(ids);
    int status = tn_array_status(out->ids);
    return status ? status : tn_array_status(out->spans);
}
