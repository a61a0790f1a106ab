/* A growable array of any element type, for the places that need one.
 *     TNI_VEC(int) v = {0};
 *     if (tni_vec_push(&v, 3)) return tni_fail_memory(...);   // 0 or TN_EMEMORY
 *     ... v.v[i], v.n ...
 *     tni_vec_free(&v);
 */
#ifndef TNI_BASE_VEC_H
#define TNI_BASE_VEC_H

#include "base/alloc.h"
#include "tenon/status.h"

#define TNI_VEC(T)                                                                                 \
    struct {                                                                                       \
        T *v;                                                                                      \
        size_t n, cap;                                                                             \
    }

/* Makes room for `want` elements of `size` bytes; 0 or TN_EMEMORY (nothing lost). */
int tni_vec_grow(void **v, size_t *cap, size_t want, size_t size);

#define tni_vec_reserve(a, want)                                                                   \
    ((want) <= (a)->cap ? 0 : tni_vec_grow((void **)&(a)->v, &(a)->cap, (want), sizeof *(a)->v))
#define tni_vec_push(a, x)                                                                         \
    (tni_vec_reserve(a, (a)->n + 1) ? TN_EMEMORY : ((a)->v[(a)->n++] = (x), 0))
#define tni_vec_free(a) (tni_free((a)->v), (a)->v = NULL, (a)->n = (a)->cap = 0)

#endif
