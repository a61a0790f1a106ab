/* Kernels that read and write places given by index arrays. Contracts: ops/prims.h. */
#ifndef TNI_CPU_GATHER_H
#define TNI_CPU_GATHER_H

#include "core/backend.h"

int tni_cpu_gather(const tni_call *c);
int tni_cpu_gather_axis(const tni_call *c);
int tni_cpu_scatter(const tni_call *c);
int tni_cpu_scatter_axis(const tni_call *c);

/* `a` into the row-major `out` of its shape and dtype; neither is empty. */
void tni_cpu_copy_view(const tni_view *a, const tni_view *out);

/* d[p] = mode(d[p], s[i * ss]) for i < n in order, p = at[i], or i * ds when at is NULL; steps
 * and places count elements. NULL: the dtype has no such mode. */
typedef void (*tni_fold_fn)(void *d, const int64_t *at, int64_t ds, const void *s, int64_t ss,
                            int64_t n);
tni_fold_fn tni_cpu_fold(int mode, tn_dtype dtype); /* mode: TNI_SCATTER_... */

/* Indices at elements from, from + step, ... of a view of integers as i64; negative ones of signed
 * dtypes get `size` added. Returns the position of the first that then lies outside [0, limit), or
 * -1. */
int64_t tni_cpu_indices(const tni_view *v, int64_t from, int64_t step, int64_t n, int64_t size,
                        int64_t limit, int64_t *out);

#endif
