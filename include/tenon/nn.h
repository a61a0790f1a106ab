/* Neural networks: parameters with names, layers, losses, optimizers. Everything here is made of
 * tenon.h's functions; nothing is hidden from you, and all of it may be mixed with your own.
 *
 *     tn_params *p = tn_params_new();
 *     tn_array *w = NULL;
 *     if (tn_params_add(p, "w", &w, tn_zeros(TN_SHAPE(3), TN_F32))) return fail(tn_error());
 *     ...
 *     TN_SCOPE {
 *         tn_array *loss, *grad[1];
 *         if (tn_nn_value_and_grad(p, loss_fn, &model, TN_LIST(x, y), 1, &loss, grad)) ...
 *     }
 *     tn_params_free(p);
 *
 * Rules of tenon.h hold: functions that return arrays never return NULL, those that return int give
 * 0 or a negative TN_E... code with a sentence in tn_error(). A tree, and the slots in it, belong
 * to one thread at a time. */
#ifndef TENON_NN_H
#define TENON_NN_H

#include "tenon/tenon.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Parameters ------------------------------------------------------------------------------
 * A tree is an ordered list of slots (array variables of yours, in structs that you lay out) under
 * dotted names: "layers.0.attention.query_proj.weight". It owns what the slots hold. */

typedef struct tn_params tn_params;

TN_API tn_params *tn_params_new(void);    /* empty; NULL with tn_error() set */
TN_API void tn_params_free(tn_params *p); /* drops what the slots hold and sets them NULL */
/* Names that follow begin with this and a dot, until the matching pop. */
TN_API int tn_params_push(tn_params *p, const char *fmt, ...) TN_PRINTF(2, 3);
TN_API void tn_params_pop(tn_params *p);
/* The slot, whose content is not looked at, holds `init` from now on. It must stay where it is
 * until the tree is freed. A name that is taken or empty is TN_EVALUE. */
TN_API int tn_params_add(tn_params *p, const char *name, tn_array **slot, tn_array *init);
TN_API int tn_params_count(const tn_params *p);                  /* slots */
TN_API int64_t tn_params_size(const tn_params *p);               /* numbers in all of them */
TN_API const char *tn_params_name(const tn_params *p, int i);    /* "" when out of range */
TN_API tn_array **tn_params_slot(const tn_params *p, int i);     /* NULL when out of range */
TN_API int tn_params_find(const tn_params *p, const char *name); /* its number; -1: none */
TN_API tn_slots tn_params_slots(const tn_params *p); /* all, in order; until the tree changes */

/* Frozen parameters get no gradient. Every name that `pattern` fits, where '*' stands for any
 * text; how many it fitted. Layers freeze their statistics themselves. */
TN_API int tn_params_freeze(tn_params *p, const char *pattern, bool frozen);
TN_API bool tn_params_frozen(const tn_params *p, int i);
TN_API int tn_params_trainable(const tn_params *p); /* how many are not frozen */

/* A table of names, shapes, dtypes and counts; free with tn_free. NULL on failure. */
TN_API char *tn_params_summary(const tn_params *p);

/* A safetensors file of all slots under their names, written atomically: on failure the old file
 * stays. Loading puts every slot's array under its name there, of the same shape, in the file's
 * dtype, into it; all or none. `strict`: a name that only one of the two has is an error; without
 * it such names are passed over. */
TN_API int tn_params_save(const tn_params *p, const char *path) TN_MUST_CHECK;
TN_API int tn_params_load(tn_params *p, const char *path, bool strict) TN_MUST_CHECK;

/* Results of fn and the gradients of the first by the parameters that are not frozen, in order
 * (grads[tn_params_trainable(p)], floats). While fn runs, slots hold stand-ins; what fn assigns to
 * a slot stays there (running statistics). On failure every slot is as it was, and out and grads
 * are error arrays. */
TN_API int tn_nn_value_and_grad(tn_params *p, tn_fns fn, void *ud, tn_list in, int n_out,
                                tn_array **out, tn_array **grads);

#ifdef __cplusplus
}
#endif

#endif
