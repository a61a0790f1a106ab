/* Layers that are one product, one lookup or one mask. */
#include "base/err.h"
#include "nn/layer.h"
#include <math.h>
#include <string.h>

/* ---- linear ---- */

int tn_nn_linear_init(tn_nn_linear *l, tn_params *p, const char *name, int64_t in, int64_t out,
                      bool bias) {
    *l = (tn_nn_linear){0};
    int status = tni_layer_size("linear", "inputs", in);
    if (!status) status = tni_layer_size("linear", "outputs", out);
    if (status) return status;
    double limit = sqrt(1.0 / (double)in);
    tni_layer b = tni_layer_begin(p, name, status);
    tni_layer_add(&b, "weight", &l->weight, tni_layer_uniform(limit, TN_SHAPE(out, in)));
    if (bias) tni_layer_add(&b, "bias", &l->bias, tni_layer_uniform(limit, TN_SHAPE(out)));
    return tni_layer_end(&b);
}

tn_array *tn_nn_linear_call(const tn_nn_linear *l, tn_array *x) {
    tn_array *w = tn_transpose(l->weight, TN_ALL);
    return l->bias ? tn_addmm(l->bias, x, w, 1, 1) : tn_matmul(x, w);
}

/* ---- embedding ---- */

int tn_nn_embedding_init(tn_nn_embedding *l, tn_params *p, const char *name, int64_t n,
                         int64_t dims) {
    *l = (tn_nn_embedding){0};
    int status = tni_layer_size("embedding", "rows", n);
    if (!status) status = tni_layer_size("embedding", "dimensions", dims);
    if (status) return status;
    tni_layer b = tni_layer_begin(p, name, status);
    tn_array *w = tn_random_normal(TN_SHAPE(n, dims), TN_F32, NULL);
    tni_layer_add(&b, "weight", &l->weight, tn_mul(w, tn_f32(sqrt(1.0 / (double)dims))));
    return tni_layer_end(&b);
}

tn_array *tn_nn_embedding_call(const tn_nn_embedding *l, tn_array *ids) {
    return tn_take(l->weight, ids, 0);
}

tn_array *tn_nn_embedding_as_linear(const tn_nn_embedding *l, tn_array *x) {
    return tn_matmul(x, tn_transpose(l->weight, TN_ALL));
}

/* ---- dropout ---- */

/* One decision for all places: the `whole` axes before the last. */
static tn_array *layers_dropout(const char *op, tn_array *x, double p, bool training, int whole) {
    int nd = tn_ndim(x);
    int64_t shape[TN_MAX_NDIM];
    if (!(p >= 0 && p < 1))
        return tn_error_array(TN_EVALUE, "%s: a probability of %g; it must be in [0, 1)", op, p);
    if (tn_array_status(x)) return x;
    if (whole && nd != whole + 1 && nd != whole + 2)
        return tn_error_array(TN_ESHAPE, "%s: x has %d axes, not %d or %d", op, nd, whole + 1,
                              whole + 2);
    if (!training || p == 0) return x;
    for (int d = 0; d < nd; d++) shape[d] = tn_dim(x, d);
    for (int d = nd - 1 - whole; d < nd - 1; d++) shape[d] = 1;
    tn_array *mask = tn_random_bernoulli(tn_f32(1 - p), (tn_ints){shape, nd}, NULL);
    return tn_mul(tn_mul(mask, x), tn_f32(1 / (1 - p)));
}

tn_array *tn_nn_dropout(tn_array *x, double p, bool training) {
    return layers_dropout("dropout", x, p, training, 0);
}

tn_array *tn_nn_dropout2d(tn_array *x, double p, bool training) {
    return layers_dropout("dropout2d", x, p, training, 2);
}

tn_array *tn_nn_dropout3d(tn_array *x, double p, bool training) {
    return layers_dropout("dropout3d", x, p, training, 3);
}
