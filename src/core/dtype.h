/* Dtype classes and promotion. */
#ifndef TNI_CORE_DTYPE_H
#define TNI_CORE_DTYPE_H

#include "core/array.h"

static inline bool tni_is_float(tn_dtype d) { return d >= TN_F16 && d <= TN_F64; }
static inline bool tni_is_inexact(tn_dtype d) { return d >= TN_F16; }
static inline bool tni_is_unsigned(tn_dtype d) { return d >= TN_U8 && d <= TN_U64; }
static inline bool tni_is_signed(tn_dtype d) { return d >= TN_I8 && d <= TN_I64; }
static inline bool tni_is_int(tn_dtype d) { return d >= TN_U8 && d <= TN_I64; }

/* The dtype the arrays of an expression meet in, weak scalars giving way. */
tn_dtype tni_result_type(int n, tn_array *const *a);
/* Writes value converted to dtype at dst (one element). */
void tni_store_f64(tn_dtype dtype, double value, void *dst);
void tni_store_i64(tn_dtype dtype, int64_t value, void *dst);
double tni_load_f64(tn_dtype dtype, const void *src);  /* complex: the real part */
int64_t tni_load_i64(tn_dtype dtype, const void *src); /* floats truncated, saturating; NaN is 0 */

#endif
