/* Array memory: a pool with exact statistics. A freed buffer is kept for reuse up to the
 * cache limit: first touch of fresh pages costs about 1 us per 4 KiB in a virtual machine. */
#ifndef TNI_CORE_BUFFER_H
#define TNI_CORE_BUFFER_H

#include "core/array.h"

tni_buffer *tni_buffer_new(size_t bytes); /* refs 1; NULL with TN_EMEMORY set */
tni_buffer *tni_buffer_wrap(void *data, size_t bytes, void (*release)(void *), void *ud);
/* Stands for memory that a plan will have; `data` is only compared and added to. */
tni_buffer *tni_buffer_planned(uint64_t address, size_t bytes);
void tni_buffer_retain(tni_buffer *b);
void tni_buffer_release(tni_buffer *b);

#endif
