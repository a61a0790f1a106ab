/* The thread's default random sequence, for what must carry it along: compiled functions. */
#ifndef TNI_OPS_RANDOM_H
#define TNI_OPS_RANDOM_H

#include "tenon/tenon.h"

/* While a slot is set, draws without a key split the key it holds, in graph words, and leave the
 * next one in it. Returns the previous slot; NULL: none. */
tn_array **tni_random_trace(tn_array **slot);
void tni_random_get(uint32_t key[2]);
void tni_random_put(const uint32_t key[2]);

#endif
