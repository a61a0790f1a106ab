/* How layers add their parameters: between begin and end every failure is kept, and nothing is done
 * after the first. */
#ifndef TNI_NN_LAYER_H
#define TNI_NN_LAYER_H

#include "tenon/nn.h"

typedef struct tni_layer {
    tn_params *p;
    tn_scope *scope;
    int status;
    bool pushed;
} tni_layer;

/* `status`: of the checks that were made; NULL or "" as name: no prefix. */
tni_layer tni_layer_begin(tn_params *p, const char *name, int status);
/* Keeps `init` in the slot, or makes the slot NULL when something has failed. */
void tni_layer_add(tni_layer *b, const char *name, tn_array **slot, tn_array *init);
int tni_layer_end(tni_layer *b);

/* 0, or TN_EVALUE that names the layer and the number, when it is below 1. */
int tni_layer_size(const char *layer, const char *what, int64_t n);
/* f32 between -limit and limit, drawn from the thread's sequence. */
tn_array *tni_layer_uniform(double limit, tn_ints shape);

/* Options given by the caller over defaults of zero: as many bytes as its `size` says. */
void tni_layer_options(void *to, size_t size, const void *opt, size_t given);
#define TNI_OPTIONS(to, opt) tni_layer_options(&(to), sizeof(to), opt, (opt) ? (opt)->size : 0)

bool tni_layer_is_float(tn_dtype d);

#endif
