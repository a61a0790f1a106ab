/* Calling the user's functions: in a scope of their own, their results checked. */
#ifndef TNI_TRANS_CALL_H
#define TNI_TRANS_CALL_H

#include "core/array.h"

/* Calls fn over `in`; out[0..n_out) are results of the current scope. 0 or the first failure. */
int tni_call_fns(const char *op, tn_fns fn, void *ud, tn_list in, int n_out, tn_array **out);
/* Every array of the list may be used; names the first that may not. */
int tni_call_inputs(const char *op, const char *what, tn_list in);
/* Cotangents or tangents fit what they belong to; they may not be NULL. */
int tni_call_like(const char *op, const char *what, tn_list got, tn_list like);
/* What a vmap rule gave for `size` calls of the node: out[k] stacked along axes[k], or TN_UNMAPPED:
 * one for all. Moves the stacks to axis 0 and checks dtypes and shapes. */
int tni_call_stacks(const char *op, const tni_node *n, int64_t size, const int64_t *axes,
                    tn_array **out);
/* Ends scope s; list[0..n) stay, in the scope around it; NULL entries stay NULL. On failure of
 * any (or status, if not 0) each is an error array. Returns the status. */
int tni_call_leave(tn_scope *s, int status, int n, tn_array **list);

#endif
