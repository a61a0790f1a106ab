/* Working memory of kernels, taken and given back within a call. Each thread keeps what it gave
 * back, so that the same work again asks the system for nothing: a fresh block of a megabyte
 * costs 250 us of page faults on a virtual machine, more than many a kernel that wants it. */
#ifndef TNI_BASE_SCRATCH_H
#define TNI_BASE_SCRATCH_H

#include <stddef.h>

/* 64-byte aligned, uninitialised; NULL when out of memory. Size 0 gives a pointer too. */
void *tni_scratch_take(size_t size);
/* count * size bytes; NULL also when that overflows. */
void *tni_scratch_array(size_t count, size_t size);
void tni_scratch_give(void *p); /* by the thread that took it; NULL accepted */

#endif
