/* Convolutions as nodes, for their derivatives: arguments already fit. */
#ifndef TNI_OPS_CONV_H
#define TNI_OPS_CONV_H

#include "ops/prims.h"

/* conv(x, w) of these settings; an error array when nothing is left of the places. */
tn_array *tni_conv_node(const char *op, tn_array *x, tn_array *w, const tni_p_conv *p);
/* The cotangent of the weight (shaped as `w`) for the cotangent d of conv(x, w). */
tn_array *tni_conv_weight_node(tn_array *x, tn_array *d, const tni_p_conv *p, const tn_array *w);

#endif
