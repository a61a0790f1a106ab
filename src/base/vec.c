/* Growth of base/vec.h: by half again, from 8 elements, so that n pushes copy
 * fewer than 3n elements and a vector wastes at most a third of its memory. */
#include "base/vec.h"
#include <stdint.h>

int tni_vec_grow(void **v, size_t *cap, size_t want, size_t size) {
    size_t to = *cap + *cap / 2, bytes;
    if (to < 8) to = 8;
    if (to < want) to = want;
    if (__builtin_mul_overflow(to, size, &bytes)) return TN_EMEMORY;
    void *p = tni_realloc(*v, bytes);
    if (!p) return TN_EMEMORY;
    *v = p;
    *cap = to;
    return 0;
}
