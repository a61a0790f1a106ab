/* The parts of training: which examples make a batch (train_batch.c), what a step computes and
 * how it is saved (train.c). */
#ifndef TNI_LLM_TRAIN_H
#define TNI_LLM_TRAIN_H

#include "llm/dataset.h"
#include "llm/lora.h"

/* Which examples come when. */
typedef struct tni_order {
    const tn_llm_data *d;
    int64_t batch, n; /* examples a batch, whole batches */
    uint64_t seed;
    int64_t *order;           /* examples by length, then as in the file */
    int64_t *turn;            /* batches in the order of `epoch` */
    int64_t epoch, positions; /* of `turn`; of the model */
} tni_order;
/* After a failure too, tni_order_free. */
int tni_order_make(const tn_llm *m, const tn_llm_data *d, int64_t batch, uint64_t seed,
                   tni_order *p);
void tni_order_free(tni_order *p);

/* The batch of a step: ids [batch, length], padded with 0; and of each row the tokens before the
 * answer and the tokens in all, [batch, 2]. Handles of the current scope. */
typedef struct tni_batch {
    tn_array *ids, *spans;
} tni_batch;
int tni_order_batch(tni_order *p, int64_t step, tni_batch *out);

#endif
