/* Parameter trees from the inside: for files and optimizers. */
#ifndef TNI_NN_PARAMS_H
#define TNI_NN_PARAMS_H

#include "base/str.h"
#include "base/vec.h"
#include "io/safetensors.h"
#include "tenon/nn.h"

typedef struct tni_param {
    char *name;
    bool frozen;
    bool fixed; /* frozen for good: a statistic */
} tni_param;

struct tn_params {
    TNI_VEC(tni_param) v;
    TNI_VEC(tn_array **) slot; /* of the same number; by itself, since it is handed out */
    tni_str prefix;
    TNI_VEC(size_t) mark;  /* lengths of the prefix at the pushes */
    TNI_VEC(void *) block; /* memory of layers that hold slots: freed with the tree */
};

bool tni_params_fits(const char *pattern, const char *name); /* as tn_params_freeze */

/* The parameter added last is none that is trained, whatever tn_params_freeze is told. */
void tni_params_fix(tn_params *p);
/* Zeroed memory that lives as long as the tree; NULL with tn_error() set. */
void *tni_params_block(tn_params *p, size_t count, size_t size);

/* ---- safetensors (params_file.c) ---- */

/* The slots' arrays, evaluated, as tensors to write, their names after `prefix`; appended to the
 * list, which borrows from the tree and from `names`. */
typedef struct tni_tensors {
    TNI_VEC(tni_st_tensor) v;
    TNI_VEC(char *) names;
} tni_tensors;
int tni_tensors_add(tni_tensors *t, const tn_params *p, const char *prefix);
void tni_tensors_free(tni_tensors *t);

/* The arrays for all slots from the file, in order (NULL: not there), kept: drop each. */
int tni_tensors_load(const tni_st *file, const char *path, const tn_params *p, const char *prefix,
                     bool strict, tn_array **out);
/* A tensor as an array (a copy); TN_EDTYPE for an element type that arrays do not have. */
tn_array *tni_tensor_array(const char *path, const tni_st_tensor *t);

#endif
