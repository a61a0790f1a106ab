/* Shape arithmetic, checked: no size or stride overflows 63 bits. */
#ifndef TNI_CORE_SHAPE_H
#define TNI_CORE_SHAPE_H

#include "tenon/tenon.h"

/* Product of sizes into *size; false when negative sizes or overflow of size x 16 bytes. */
bool tni_shape_size(int ndim, const int64_t *shape, int64_t *size);
void tni_row_strides(int ndim, const int64_t *shape, int64_t *strides);
/* NumPy broadcasting of two shapes into out (TN_MAX_NDIM), which may be as; false when they do not
 * fit. */
bool tni_broadcast(int an, const int64_t *as, int bn, const int64_t *bs, int *on, int64_t *out);
/* Strides of an operand seen as `ndim`/`shape` (which it broadcasts to): 0 where repeated. */
void tni_broadcast_strides(int an, const int64_t *as, const int64_t *ast, int ndim,
                           const int64_t *shape, int64_t *out);
/* Strides that view the same data under another shape of equal size; false: needs a copy. */
bool tni_reshape_strides(int an, const int64_t *as, const int64_t *ast, int ndim,
                         const int64_t *shape, int64_t *out);
bool tni_same_shape(int an, const int64_t *as, int bn, const int64_t *bs);
/* "[2,3]" into buf, cut with "..." when long; returns buf. */
const char *tni_shape_str(int ndim, const int64_t *shape, char *buf, size_t n);
#define TNI_SHAPE_STR 96
/* axis in [-ndim, ndim) to [0, ndim); -1 when out of range. */
int tni_axis(int ndim, int64_t axis);

#endif
