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

/* Operands of a node: as many axes each, batch axes alike; halves beside f32 as they are. */
TNI_RULE_INFER(matmul) {
    int64_t shape[TN_MAX_NDIM], size;
    if (tni_infer_arity(c, 2, 2)) return TN_EVALUE;
    const tni_out_spec *a = &c->in[0], *b = &c->in[1];
    int n = a->ndim;
    tn_dtype d = tn_promote(a->dtype, b->dtype);
    for (int i = 0; i < 2; i++) {
        tn_dtype e = c->in[i].dtype;
        if (!tni_is_inexact(d) || (e != d && (d != TN_F32 || (e != TN_F16 && e != TN_BF16))))
            return tni_fail(TN_EDTYPE, "%s: not defined for %s and %s; use tn_astype first", c->op,
                            tni_describe_spec(a), tni_describe_spec(b));
    }
    bool fit = n >= 2 && b->ndim == n && tni_same_shape(n - 2, a->shape, n - 2, b->shape);
    if (!fit || a->shape[n - 1] != b->shape[n - 2])
        return tni_fail(TN_ESHAPE,
                        "%s: %s and %s: the last axis of the first must equal the second last of "
                        "the other, and batch axes be the same",
                        c->op, tni_describe_spec(a), tni_describe_spec(b));
    memcpy(shape, a->shape, sizeof shape[0] * (size_t)n);
    shape[n - 1] = b->shape[n - 1];
    if (!tni_shape_size(n, shape, &size))
        return tni_fail(TN_ESHAPE, "%s: the result is too large", c->op);
    tni_infer_out(c, 0, d, n, shape);
    return 0;
}

/* a with its batch axes repeated to `batch`, the last two as they are. */
static tn_array *matmul_batch(tn_array *a, int n, const int64_t *batch) {
    int64_t shape[TN_MAX_NDIM];
    memcpy(shape, batch, sizeof(int64_t) * (size_t)n);
    shape[n] = a->shape[a->ndim - 2], shape[n + 1] = a->shape[a->ndim - 1];
    return tni_expand(a, n + 2, shape);
}

static tn_array *matmul_2d(tn_array *a, tn_array *b) {
    int64_t shape[TN_MAX_NDIM];
    int n;
    if (tni_is_error(a)) return a;
    if (matmul_shape(a, b, &n, shape)) return tni_error_last();
    /* A batch against one matrix is one tall product: the weights are read once. */
    if (b->ndim == 2 && a->ndim > 2) {
        int64_t m = a->shape[a->ndim - 1] ? a->size / a->shape[a->ndim - 1] : 0;
        if (m) {
            tn_array *flat = tn_reshape(a, TN_SHAPE(m, a->shape[a->ndim - 1])),
                     *y = matmul_2d(flat, b);
            memcpy(shape, a->shape, sizeof(int64_t) * (size_t)(a->ndim - 1));
            shape[a->ndim - 1] = b->shape[1];
            return tn_reshape(y, (tn_ints){shape, a->ndim});
        }
    }
    tn_array *in[2] = {matmul_batch(a, n, shape), matmul_batch(b, n, shape)};
    return tni_op_rule("matmul", TNI_PRIM(matmul), 2, in, NULL, NULL);
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
    tn_array *y = matmul_2d(x, w);
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

static bool quant_is_float(tn_dtype d) { return d == TN_F16 || d == TN_BF16 || d == TN_F32; }

TNI_RULE_INFER(quantize) {
    const tni_p_quant *p = c->params;
    if (c->n_in != 1 || c->n_out != 3)
        return tni_fail(TN_EVALUE, "%s: %d inputs and %d outputs", c->op, c->n_in, c->n_out);
    const tni_out_spec *w = c->in;
    int last = w->ndim - 1;
    if (quant_check(c->op, p->group, p->bits)) return TN_EVALUE;
    if (!quant_is_float(w->dtype) || p->dtype != (int32_t)w->dtype)
        return tni_fail(TN_EDTYPE, "%s: not defined for %s", c->op, tni_describe_spec(w));
    if (last < 1 || w->shape[last] % p->group || w->shape[last] * p->bits % 32)
        return tni_fail(TN_ESHAPE, "%s: %s needs two axes, the last a multiple of the group of %d",
                        c->op, tni_describe_spec(w), p->group);
    for (int k = 0; k < 3; k++) tni_infer_out(c, k, k ? w->dtype : TN_U32, w->ndim, w->shape);
    c->out[0].shape[last] = w->shape[last] / 32 * p->bits;
    c->out[1].shape[last] = c->out[2].shape[last] = w->shape[last] / p->group;
    return 0;
}

static int quant_make(tn_array *w, const tni_p_quant *p, tn_array **out) {
    tni_spec spec[3] = {{0}};
    tni_out_spec in = tni_spec_of(w), made[3];
    tni_infer_call c = {"quantize", TNI_PRIM(quantize), p, 1, 3, &in, spec};
    int status = tni_infer(&c);
    for (int i = 0; i < 3; i++)
        made[i] = (tni_out_spec){spec[i].dtype, spec[i].ndim, spec[i].shape};
    if (!status) status = tni_node_new(TNI_PRIM(quantize), 1, &w, p, 3, made, out);
    for (int i = 0; i < 3 && !status; i++) out[i] = tni_scope_own(out[i]);
    return status;
}

void tn_quantize(tn_array *w, int group, int bits, tn_array *out[3]) {
    tn_array *bad = tni_inputs("quantize", TN_LIST(w));
    tni_p_quant p = {.group = group, .bits = bits, .dtype = bad ? 0 : w->dtype};
    if (!bad && quant_make(w, &p, out)) bad = tni_error_last();
    if (bad) out[0] = out[1] = out[2] = bad;
}

/* The packed matrix, its scales and biases, in[0..3), agree with each other. */
static int quant_agree(const char *op, const tni_out_spec *in, int group, int bits) {
    const tni_out_spec *w = &in[0], *s = &in[1], *b = &in[2];
    if (quant_check(op, group, bits)) return TN_EVALUE;
    if (w->dtype != TN_U32 || !quant_is_float(s->dtype) || s->dtype != b->dtype)
        return tni_fail(
            TN_EDTYPE, "%s: w must be uint32 and scales and biases one float dtype; got %s, %s, %s",
            op, tni_describe_spec(w), tni_describe_spec(s), tni_describe_spec(b));
    bool fit = w->ndim >= 2 && w->ndim == s->ndim && tni_infer_same(s, b);
    for (int i = 0; i < w->ndim - 1 && fit; i++) fit = w->shape[i] == s->shape[i];
    int64_t packed = 0, numbers = 0;
    fit = fit && !__builtin_mul_overflow(w->shape[w->ndim - 1], 32, &packed) &&
          !__builtin_mul_overflow(s->shape[s->ndim - 1], group * bits, &numbers);
    if (fit && packed == numbers) return 0;
    return tni_fail(TN_ESHAPE,
                    "%s: w %s, scales %s and biases %s do not fit %d bits in groups of %d", op,
                    tni_describe_spec(w), tni_describe_spec(s), tni_describe_spec(b), bits, group);
}

TNI_RULE_INFER(dequantize) {
    const tni_p_quant *p = c->params;
    if (tni_infer_arity(c, 3, 3)) return TN_EVALUE;
    int status = quant_agree(c->op, c->in, p->group, p->bits);
    if (status) return status;
    const tni_out_spec *s = &c->in[1];
    if (p->dtype != (int32_t)s->dtype)
        return tni_fail(TN_EDTYPE, "%s: to dtype %d by scales %s", c->op, p->dtype,
                        tni_describe_spec(s));
    tni_infer_like(c, 1);
    c->out[0].shape[s->ndim - 1] *= p->group;
    return 0;
}

tn_array *tn_dequantize(tn_array *w, tn_array *scales, tn_array *biases, int group, int bits) {
    TNI_INPUTS("dequantize", w, scales, biases);
    tni_p_quant p = {.group = group, .bits = bits, .dtype = scales->dtype};
    return tni_op_rule("dequantize", TNI_PRIM(dequantize), 3, (tn_array *[]){w, scales, biases}, &p,
                       NULL);
}

TNI_RULE_INFER(quantized_matmul) {
    const tni_p_quant *p = c->params;
    if (tni_infer_arity(c, 4, 4)) return TN_EVALUE;
    const tni_out_spec *x = &c->in[0], *w = &c->in[1], *s = &c->in[2];
    int status = quant_agree(c->op, c->in + 1, p->group, p->bits);
    if (status) return status;
    if (!quant_is_float(x->dtype))
        return tni_fail(TN_EDTYPE, "%s: not defined for x %s", c->op, tni_describe_spec(x));
    int64_t cols = s->shape[s->ndim - 1] * p->group, rows = w->shape[w->ndim - 2], size;
    int64_t k = p->transpose ? cols : rows, n = p->transpose ? rows : cols;
    if (!x->ndim || x->shape[x->ndim - 1] != k)
        return tni_fail(TN_ESHAPE, "%s: x %s does not fit a matrix of %lld by %lld", c->op,
                        tni_describe_spec(x), (long long)rows, (long long)cols);
    if (w->ndim > 2 &&
        (x->ndim != w->ndim || !tni_same_shape(x->ndim - 2, x->shape, w->ndim - 2, w->shape)))
        return tni_fail(TN_ESHAPE, "%s: batch axes of x %s and w %s differ", c->op,
                        tni_describe_spec(x), tni_describe_spec(w));
    tni_infer_like(c, 0);
    c->out[0].shape[x->ndim - 1] = n;
    if (tni_shape_size(x->ndim, c->out[0].shape, &size)) return 0;
    return tni_fail(TN_ESHAPE, "%s: the result is too large", c->op);
}

/* Batch axes of x and of matrices that have some, made the same: operands in[4]. */
static int quant_batch(tn_array **in) {
    const tn_array *x = in[0], *w = in[1];
    int64_t shape[TN_MAX_NDIM];
    int n;
    bool agree = x->ndim == w->ndim && tni_same_shape(x->ndim - 2, x->shape, w->ndim - 2, w->shape);
    if (w->ndim <= 2 || x->ndim < 2 || agree) return 0;
    for (int i = 2; i < 4; i++)
        if (in[i]->ndim != w->ndim ||
            !tni_same_shape(w->ndim - 1, in[i]->shape, w->ndim - 1, w->shape))
            return 0; /* the rule refuses them */
    if (!tni_broadcast(x->ndim - 2, x->shape, w->ndim - 2, w->shape, &n, shape))
        return tni_fail(TN_ESHAPE, "quantized_matmul: batch axes of x %s and w %s do not broadcast",
                        tni_describe(x), tni_describe(w));
    for (int i = 0; i < 4; i++) in[i] = matmul_batch(in[i], n, shape);
    return 0;
}

tn_array *tn_quantized_matmul(tn_array *x, tn_array *w, tn_array *scales, tn_array *biases,
                              bool transpose, int group, int bits) {
    TNI_INPUTS("quantized_matmul", x, w, scales, biases);
    tni_p_quant p = {.group = group, .bits = bits, .transpose = transpose};
    tn_array *in[4] = {x, w, scales, biases};
    if (quant_batch(in)) return tni_error_last();
    return tni_op_rule("quantized_matmul", TNI_PRIM(quantized_matmul), 4, in, &p, NULL);
}

int tni_lower_quantized_matmul(const tni_node *n, tn_array **out) {
    const tni_p_quant *p = n->params;
    tn_array *w = tn_astype(tn_dequantize(n->in[1], n->in[2], n->in[3], p->group, p->bits), TN_F32);
    tn_array *x = tn_astype(n->in[0], TN_F32);
    out[0] = tn_astype(tn_matmul(x, p->transpose ? tn_swapaxes(w, -1, -2) : w),
                       (tn_dtype)n->in[0]->dtype);
    return tn_array_status(out[0]);
}
