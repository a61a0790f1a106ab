/* The thread's default random sequence, for what must carry it along: compiled functions. */
#ifndef TNI_OPS_RANDOM_H
#define TNI_OPS_RANDOM_H

#include "tenon/tenon.h"

/* While a slot is set, draws without a key split the key it holds, in graph words, and leave the
 * next one in it. Returns the previous slot; NULL: none. */
tn_array **tni_random_trace(tn_array **slot);
/* The key that the next draw will split: an array of the current scope. */
tn_array *tni_random_now(void);
bool tni_random_drawn(const tn_array *before); /* since tni_random_now gave it */
void tni_random_get(uint32_t key[2]);
void tni_random_put(const uint32_t key[2]);

#endif
