/* The simplifier's table of what was made: equal nodes and constants are one. */
#ifndef TNI_TRANS_SIMP_TABLE_H
#define TNI_TRANS_SIMP_TABLE_H

#include "trans/simp.h"

/* A node as given, without the rules; or the one made already. out[k] NULL: the status is set. */
void tni_simp_node(tni_simp *s, const tni_prim *prim, int n_in, tn_array *const *in,
                   const void *params, int n_out, const tni_out_spec *spec, tn_array **out);
/* The one that stands for all constants of a's shape and bytes; `a` itself when it is large. */
tn_array *tni_simp_intern(tni_simp *s, tn_array *a);

/* One number repeated, an array of its own with the caller's reference; NULL: the status is set. */
tn_array *tni_simp_number(tni_simp *s, tn_dtype dtype, const void *raw, int ndim,
                          const int64_t *shape);

#endif
