/* Matrix products, plain and quantised. */
#include "base/err.h"
#include "ops/build.h"
#include "ops/lower.h"
#include <string.h>

/* Checks the last two axes and broadcasts the batch axes into shape; 0 or a status. */
static int matmul_shape(const tn_array *a, const tn_array *b, int *ndim, int64_t *shape) {
    if (a->shape[a->ndim - 1] != b->shape[b->ndim - 2])
        return tni_fail(
            TN_ESHAPE,
            "matmul: %s and %s: the last axis of the first must equal the second last of the other",
            tni_describe(a), tni_describe(b));
    if (!tni_broadcast(a->ndim - 2, a->shape, b->ndim - 2, b->shape, ndim, shape))
        return tni_fail(TN_ESHAPE, "matmul: batch axes of %s and %s do not broadcast",
                        tni_describe(a), tni_describe(b));
    return 0;
}

/* a with its batch axes repeated to `batch`, the last two as they are. */
static tn_array *matmul_batch(tn_array *a, int n, const int64_t *batch) {
    int64_t shape[TN_MAX_NDIM];
    memcpy(shape, batch, sizeof(int64_t) * (size_t)n);
    shape[n] = a->shape[a->ndim - 2], shape[n + 1] = a->shape[a->ndim - 1];
    return tni_expand(a, n + 2, shape);
}

static tn_array *matmul_2d(tn_array *a, tn_array *b, tn_dtype d) {
    int64_t shape[TN_MAX_NDIM], size;
    int n;
    if (matmul_shape(a, b, &n, shape)) return tni_error_last();
    /* A batch against one matrix is one tall product: the weights are read once. */
    if (b->ndim == 2 && a->ndim > 2) {
        int64_t m = a->shape[a->ndim - 1] ? a->size / a->shape[a->ndim - 1] : 0;
        if (m) {
            tn_array *flat = tn_reshape(a, TN_SHAPE(m, a->shape[a->ndim - 1])),
                     *y = matmul_2d(flat, b, d);
            memcpy(shape, a->shape, sizeof(int64_t) * (size_t)(a->ndim - 1));
            shape[a->ndim - 1] = b->shape[1];
            return tn_reshape(y, (tn_ints){shape, a->ndim});
        }
    }
    tn_array *in[2] = {matmul_batch(a, n, shape), matmul_batch(b, n, shape)};
    shape[n] = a->shape[a->ndim - 2], shape[n + 1] = b->shape[b->ndim - 1];
    if (!tni_shape_size(n + 2, shape, &size))
        return tni_error_array(TN_ESHAPE, "matmul: the result is too large");
    if (tni_is_error(in[0])) return in[0];
    if (tni_is_error(in[1])) return in[1];
    return tni_op1(TNI_PRIM(matmul), 2, in, NULL, d, n + 2, shape);
}

/* f16 and bf16 beside f32 stay as they are: the kernel widens them as it reads, which is exact and
 * saves a copy of a model's weights. */
static tn_array *matmul_operand(tn_array *a, tn_dtype d) {
    bool half = a->dtype == TN_F16 || a->dtype == TN_BF16;
    return half && d == TN_F32 ? a : tni_cast(a, d);
}

tn_array *tn_matmul(tn_array *a, tn_array *b) {
    TNI_INPUTS("matmul", a, b);
    if (!a->ndim || !b->ndim)
        return tni_error_array(TN_ESHAPE, "matmul: %s and %s: needs at least one axis each",
                               tni_describe(a), tni_describe(b));
    tn_dtype d = tni_result_type(2, (tn_array *[]){a, b});
    if (!tni_is_inexact(d))
        return tni_error_array(TN_EDTYPE, "matmul: not defined for %s and %s; use tn_astype first",
                               tni_describe(a), tni_describe(b));
    tn_array *x = matmul_operand(a, d), *w = matmul_operand(b, d);
    if (a->ndim == 1) x = tn_expand_dims(x, TN_AXES(0));
    if (b->ndim == 1) w = tn_expand_dims(w, TN_AXES(1));
    if (tni_is_error(x)) return x;
    if (tni_is_error(w)) return w;
    tn_array *y = matmul_2d(x, w, d);
    if (a->ndim == 1)
        y = tn_squeeze(y, b->ndim == 1 ? TN_AXES(-2, -1) : TN_AXES(-2));
    else if (b->ndim == 1)
        y = tn_squeeze(y, TN_AXES(-1));
    return y;
}

/* With beta 0 c gives its shape and dtype alone, as in BLAS: a NaN in it does not come through. */
tn_array *tn_addmm(tn_array *c, tn_array *a, tn_array *b, double alpha, double beta) {
    TNI_INPUTS("addmm", c);
    tn_array *y = tn_matmul(a, b);
    if (alpha != 1) y = tn_mul(y, tn_f32(alpha));
    if (beta == 0) c = tn_zeros(tn_shape(c), (tn_dtype)c->dtype);
    return tn_add(y, beta == 0 || beta == 1 ? c : tn_mul(c, tn_f32(beta)));
}

/* ---- quantised ---- */

static int quant_check(const char *op, int group, int bits) {
    bool bits_ok = bits >= 2 && bits <= 8 && bits != 7,
         group_ok = group == 32 || group == 64 || group == 128;
    if (bits_ok && group_ok) return 0;
    return tni_fail(
        TN_EVALUE,
        "%s: %d bits in groups of %d; bits must be 2, 3, 4, 5, 6 or 8 and groups 32, 64 or 128", op,
        bits, group);
}

static bool quant_is_float(const tn_array *a) {
    return a->dtype == TN_F16 || a->dtype == TN_BF16 || a->dtype == TN_F32;
}

static int quant_make(tn_array *w, int group, int bits, tn_array **out) {
    if (!quant_is_float(w))
        return tni_fail(TN_EDTYPE, "quantize: not defined for %s", tni_describe(w));
    if (w->ndim < 2 || w->shape[w->ndim - 1] % group || w->shape[w->ndim - 1] * bits % 32)
        return tni_fail(TN_ESHAPE,
                        "quantize: %s needs two axes, the last a multiple of the group of %d",
                        tni_describe(w), group);
    int64_t q[TN_MAX_NDIM], s[TN_MAX_NDIM];
    memcpy(q, w->shape, sizeof q[0] * w->ndim), memcpy(s, w->shape, sizeof s[0] * w->ndim);
    q[w->ndim - 1] = w->shape[w->ndim - 1] / 32 * bits;
    s[w->ndim - 1] = w->shape[w->ndim - 1] / group;
    tn_dtype d = (tn_dtype)w->dtype;
    tni_out_spec spec[3] = {{TN_U32, w->ndim, q}, {d, w->ndim, s}, {d, w->ndim, s}};
    tni_p_quant p = {.group = group, .bits = bits, .dtype = (int32_t)d};
    int status = tni_node_new(TNI_PRIM(quantize), 1, &w, &p, 3, spec, out);
    for (int i = 0; i < 3 && !status; i++) out[i] = tni_scope_own(out[i]);
    return status;
}

void tn_quantize(tn_array *w, int group, int bits, tn_array *out[3]) {
    tn_array *bad = tni_inputs("quantize", TN_LIST(w));
    if (!bad && (quant_check("quantize", group, bits) || quant_make(w, group, bits, out)))
        bad = tni_error_last();
    if (bad) out[0] = out[1] = out[2] = bad;
}

/* The packed matrix, its scales and biases agree with each other. */
static int quant_agree(const char *op, const tn_array *w, const tn_array *s, const tn_array *b,
                       int group, int bits) {
    if (quant_check(op, group, bits)) return TN_EVALUE;
    if (w->dtype != TN_U32 || !quant_is_float(s) || s->dtype != b->dtype)
        return tni_fail(
            TN_EDTYPE, "%s: w must be uint32 and scales and biases one float dtype; got %s, %s, %s",
            op, tni_describe(w), tni_describe(s), tni_describe(b));
    bool fit =
        w->ndim >= 2 && w->ndim == s->ndim && tni_same_shape(s->ndim, s->shape, b->ndim, b->shape);
    for (int i = 0; i < w->ndim - 1 && fit; i++) fit = w->shape[i] == s->shape[i];
    if (fit && w->shape[w->ndim - 1] * 32 == s->shape[s->ndim - 1] * group * bits) return 0;
    return tni_fail(TN_ESHAPE,
                    "%s: w %s, scales %s and biases %s do not fit %d bits in groups of %d", op,
                    tni_describe(w), tni_describe(s), tni_describe(b), bits, group);
}

tn_array *tn_dequantize(tn_array *w, tn_array *scales, tn_array *biases, int group, int bits) {
    TNI_INPUTS("dequantize", w, scales, biases);
    if (quant_agree("dequantize", w, scales, biases, group, bits)) return tni_error_last();
    int64_t shape[TN_MAX_NDIM];
    memcpy(shape, scales->shape, sizeof shape[0] * scales->ndim);
    shape[scales->ndim - 1] *= group;
    tni_p_quant p = {.group = group, .bits = bits, .dtype = scales->dtype};
    return tni_op1(TNI_PRIM(dequantize), 3, (tn_array *[]){w, scales, biases}, &p,
                   (tn_dtype)scales->dtype, w->ndim, shape);
}

tn_array *tn_quantized_matmul(tn_array *x, tn_array *w, tn_array *scales, tn_array *biases,
                              bool transpose, int group, int bits) {
    TNI_INPUTS("quantized_matmul", x, w, scales, biases);
    if (quant_agree("quantized_matmul", w, scales, biases, group, bits)) return tni_error_last();
    if (!quant_is_float(x))
        return tni_error_array(TN_EDTYPE, "quantized_matmul: not defined for x %s",
                               tni_describe(x));
    int64_t cols = scales->shape[scales->ndim - 1] * group, rows = w->shape[w->ndim - 2];
    int64_t k = transpose ? cols : rows, n = transpose ? rows : cols, shape[TN_MAX_NDIM], size;
    if (!x->ndim || x->shape[x->ndim - 1] != k)
        return tni_error_array(
            TN_ESHAPE, "quantized_matmul: x %s does not fit a matrix of %lld by %lld",
            tni_describe(x), (long long)(transpose ? n : k), (long long)(transpose ? k : n));
    if (w->ndim > 2 &&
        (x->ndim != w->ndim || !tni_same_shape(x->ndim - 2, x->shape, w->ndim - 2, w->shape)))
        return tni_error_array(TN_ESHAPE, "quantized_matmul: batch axes of x %s and w %s differ",
                               tni_describe(x), tni_describe(w));
    memcpy(shape, x->shape, sizeof shape[0] * x->ndim);
    shape[x->ndim - 1] = n;
    if (!tni_shape_size(x->ndim, shape, &size))
        return tni_error_array(TN_ESHAPE, "quantized_matmul: the result is too large");
    tni_p_quant p = {.group = group, .bits = bits, .transpose = transpose};
    return tni_op1(TNI_PRIM(quantized_matmul), 4, (tn_array *[]){x, w, scales, biases}, &p,
                   (tn_dtype)x->dtype, x->ndim, shape);
}

int tni_lower_quantized_matmul(const tni_node *n, tn_array **out) {
    const tni_p_quant *p = n->params;
    tn_array *w = tn_astype(tn_dequantize(n->in[1], n->in[2], n->in[3], p->group, p->bits), TN_F32);
    tn_array *x = tn_astype(n->in[0], TN_F32);
    out[0] = tn_astype(tn_matmul(x, p->transpose ? tn_swapaxes(w, -1, -2) : w),
                       (tn_dtype)n->in[0]->dtype);
    return tn_array_status(out[0]);
}
