/* Convolution layers: tn_conv1d and its kin with weights of their own. */
#include "base/err.h"
#include "nn/layer.h"
#include <math.h>

static const char *const conv_name[2][3] = {
    {"conv1d", "conv2d", "conv3d"}, {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}};

static int conv_check(const char *op, int64_t in, int64_t out, int groups) {
    int status = tni_layer_size(op, "input channels", in);
    if (!status) status = tni_layer_size(op, "output channels", out);
    if (!status) status = tni_layer_size(op, "groups", groups);
    if (!status && (in % groups || out % groups))
        status = tni_fail(TN_EVALUE, "%s: %lld input and %lld output channels in %d groups", op,
                          (long long)in, (long long)out, groups);
    return status;
}

/* shape: [out, taps..., in / groups] */
static int conv_shape(const tn_nn_conv *l, const char *op, int64_t in, int64_t out,
                      tn_spatial kernel, int64_t *shape) {
    if (kernel.n != 1 && kernel.n != l->axes)
        return tni_fail(TN_EVALUE, "%s: a kernel of %d sizes for %d axes", op, kernel.n, l->axes);
    shape[0] = out, shape[l->axes + 1] = in / l->opt.groups;
    for (int d = 0; d < l->axes; d++) {
        shape[1 + d] = kernel.v[kernel.n == 1 ? 0 : d];
        if (tni_layer_size(op, "taps", shape[1 + d])) return TN_EVALUE;
    }
    return 0;
}

static int conv_init(tn_nn_conv *l, bool transposed, int axes, tn_params *p, const char *name,
                     int64_t in, int64_t out, tn_spatial kernel, bool bias,
                     const tn_conv_opt *opt) {
    const char *op = conv_name[transposed][axes - 1];
    int64_t shape[5];
    *l = (tn_nn_conv){.axes = axes, .transposed = transposed};
    TNI_OPTIONS(l->opt, opt);
    l->opt.size = sizeof l->opt;
    if (!l->opt.groups) l->opt.groups = 1;
    int status = conv_check(op, in, out, l->opt.groups);
    if (!status) status = conv_shape(l, op, in, out, kernel, shape);
    if (status) return status;
    double fan = 1;
    for (int d = 1; d <= axes + 1; d++) fan *= (double)shape[d];
    tni_layer b = tni_layer_begin(p, name, status);
    tni_layer_add(&b, "weight", &l->weight,
                  tni_layer_uniform(sqrt(1 / fan), (tn_ints){shape, axes + 2}));
    if (bias) tni_layer_add(&b, "bias", &l->bias, tn_zeros(TN_SHAPE(out), TN_F32));
    return tni_layer_end(&b);
}

#define CONV_INIT(name_, transposed, axes)                                                         \
    int tn_nn_##name_##_init(tn_nn_conv *l, tn_params *p, const char *name, int64_t in,            \
                             int64_t out, tn_spatial kernel, bool bias, const tn_conv_opt *opt) {  \
        return conv_init(l, transposed, axes, p, name, in, out, kernel, bias, opt);                \
    }
CONV_INIT(conv1d, false, 1)
CONV_INIT(conv2d, false, 2)
CONV_INIT(conv3d, false, 3)
CONV_INIT(conv_transpose1d, true, 1)
CONV_INIT(conv_transpose2d, true, 2)
CONV_INIT(conv_transpose3d, true, 3)

tn_array *tn_nn_conv_call(const tn_nn_conv *l, tn_array *x) {
    static tn_array *(*const call[2][3])(tn_array *, tn_array *, const tn_conv_opt *) = {
        {tn_conv1d, tn_conv2d, tn_conv3d},
        {tn_conv_transpose1d, tn_conv_transpose2d, tn_conv_transpose3d}};
    if (l->axes < 1 || l->axes > 3)
        return tn_error_array(TN_EVALUE, "conv: the layer was not initialised");
    tn_array *y = call[l->transposed][l->axes - 1](x, l->weight, &l->opt);
    return l->bias ? tn_add(y, l->bias) : y;
}
