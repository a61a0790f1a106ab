/* Parameters of the structural primitives, and their kernel contracts. A struct is
 * compared and hashed by its bytes: no padding left unset, no pointers. */
#ifndef TNI_OPS_PRIMS_H
#define TNI_OPS_PRIMS_H

#include "tenon/tenon.h"

typedef struct tni_p_none {
    char unused; /* primitives whose shapes say everything; never read */
} tni_p_none;

typedef struct tni_p_axis {
    int32_t axis;
} tni_p_axis;

/* Reductions keep the reduced axes with size 1; bit i of axes: axis i is reduced. */
typedef struct tni_p_reduce {
    uint32_t axes;
} tni_p_reduce;

/* transpose: output axis i is input axis axes[i]. */
typedef struct tni_p_axes {
    int8_t axes[TN_MAX_NDIM];
} tni_p_axes;

/* slice(a): out[i...] = a[start + i*step ...]; the output's shape gives the lengths.
 * slice_update(a, u): a copy of `a` whose part (lengths from u's shape) is replaced by u.
 * Where the length is 1 or 0, the step is 1; where it is 0, the start is 0. */
typedef struct tni_p_slice {
    int64_t start[TN_MAX_NDIM], step[TN_MAX_NDIM];
} tni_p_slice;

/* take(a, indices): out = a with `axis` replaced by the index array's axes. Indices of any
 * integer dtype; negative ones count from the end; one out of range is TN_EINDEX. Any strides. */
typedef struct tni_p_take {
    int32_t axis;
} tni_p_take;

/* arange(): out[i] = start + i * step, computed in f64 (floats) or i64 (integers). */
typedef struct tni_p_arange {
    double start, step;
    int64_t istart, istep;
} tni_p_arange;

/* matmul(a [..., M, K], b [..., K, N]) -> [..., M, N]; batch axes already broadcast to the
 * output's (stride 0 where repeated); any strides, of which the plain and the transposed
 * layouts are the fast ones. f16 and bf16 accumulate in f32; also f32, f64, c64. K may be 0. With
 * an f32 output each operand may be f16 or bf16. */

/* MLX's affine quantisation: `bits` of 2 3 4 5 6 8, groups of 32 64 128 along the last axis. */
typedef struct tni_p_quant {
    int32_t group, bits;
    int32_t transpose; /* quantized_matmul: 1: x [..., M, K] @ w^T, w [N, K]; 0: x [..., M, K] @ w
                          [K, N] packed along N */
    int32_t dtype;     /* dequantize: output dtype */
} tni_p_quant;

/* softmax(x) over the last axis (row-contiguous input). Accumulates in f32 (f64 for f64). */
/* rms_norm(x, w) and layer_norm(x, w, b) over the last axis; w and b of shape [D] (or 0-d 1 / 0).
 */
typedef struct tni_p_norm {
    float eps;
    int32_t has_weight, has_bias;
} tni_p_norm;

/* norm_vjp(x, w?, g) -> the gradients of x, of w [D] and, last, of the bias, where has_... say that
 * there are any, for the cotangent g of layer_norm (centre) or rms_norm; all of one dtype of f32,
 * f16, bf16. w may be [..., D], its other axes x's first: a weight each, the bias's gradient alike.
 */
typedef struct tni_p_norm_vjp {
    float eps;
    int32_t centre, has_weight, has_bias;
} tni_p_norm_vjp;

/* rope(x [B, ..., T, D], offset i32 scalar or [B], freqs [dims/2] when has_freqs):
 * rotates the first `dims` of D; pair i of position t turns by (offset + t) * scale *
 * base^(-2i/dims) (or (offset + t) * scale / freqs[i]); traditional: pairs (2i, 2i+1), else (i, i +
 * dims/2). */
typedef struct tni_p_rope {
    int32_t dims, traditional, has_freqs;
    float base, scale;
} tni_p_rope;

enum { TNI_MASK_NONE, TNI_MASK_CAUSAL, TNI_MASK_BOOL, TNI_MASK_ADD };
/* sdpa(q [B, Hq, Lq, D], k [B, Hkv, Lk, D], v [B, Hkv, Lk, Dv], mask?, sinks [Hq]?) ->
 * [B, Hq, Lq, Dv]; Hq a multiple of Hkv; any strides. k and v are usually slices of a cache, f32,
 * f16 or bf16, which may differ from q's dtype (but all are f64 or none); decoding is fastest with
 * keys kept [.., D, Lk]. causal: query i sees keys j <= i + Lk - Lq. mask broadcast to [B, Hq, Lq,
 * Lk] by strides: bool (true = may look) or additive (f32, f16, bf16). Softmax in f32; a row that
 * may look nowhere gives zeros. sinks: a logit a head that takes part in the softmax and has no
 * value; also [B, Hq]. All f64: computed in f64, but for the sinks. */
typedef struct tni_p_sdpa {
    float scale;
    int32_t mask; /* TNI_MASK_... */
    int32_t has_sinks;
} tni_p_sdpa;
/* sdpa_vjp(the inputs of sdpa, cotangent [B, Hq, Lq, Dv]) -> the gradients of q, k and v, and of
 * the sinks when there are any; f32, f16 and bf16, or all f64. Memory grows with Lq and Lk, not
 * their product. */

/* random_bits(keys u32 [..., 2]) -> u32, u16 or u8 [..., any shape]: threefry2x32 as MLX lays it
 * out, for each key anew. */

/* sort(x), argsort(x) -> u32: along the last axis, ascending, stable, NaN last; row-contiguous. */

enum { TNI_SCAN_SUM, TNI_SCAN_PROD, TNI_SCAN_MAX, TNI_SCAN_MIN, TNI_SCAN_LOGADDEXP };
/* scan(x) along `axis`, row-contiguous input; exclusive scans start with the identity. */
typedef struct tni_p_scan {
    int32_t op, axis, reverse, inclusive;
} tni_p_scan;

enum { TNI_SCATTER_SET, TNI_SCATTER_SUM, TNI_SCATTER_PROD, TNI_SCATTER_MAX, TNI_SCATTER_MIN };

/* gather(a, index 0, ..., index n-1): the index arrays have one shape I (strides 0 where
 * broadcast), index k moves along axes[k], the output is I followed by a slice of a's ndim axes:
 * out[i, s] = a[s + sum over k of index k at i, along axes[k]].
 * scatter(a, index 0, ..., index n-1, u): a copy of `a` into which u, shaped as gather's output, is
 * combined at the places that gather reads, in the row-major order of I. Indices of any integer
 * dtype; negative ones count from the end; a slice that does not fit is TN_EINDEX. Any strides. */
typedef struct tni_p_gather {
    int32_t n, mode; /* mode: TNI_SCATTER_..., 0 for gather */
    int8_t axes[TN_MAX_NDIM];
} tni_p_gather;

/* gather_axis(a, indices): out[.., j, ..] = a[.., indices[.., j, ..], ..], j at `axis`; both of
 * the same shape but for that axis. scatter_axis(a, indices, u): a copy of `a` into which u, of the
 * indices' shape, is combined there, in the order of j. Rules of indices as above. Any strides. */
typedef struct tni_p_gather_axis {
    int32_t axis, mode;
} tni_p_gather_axis;

/* conv(x [N, ..., C], w [O, ..., C / groups]) -> [N, ..., O] over 1 to 3 axes: out[n, p, o] = sum
 * over taps t and channels c of x[n, (p * stride - low + t * dilation) / input_dilation, c] *
 * w[o, t, c]; zero where that place is outside or no whole number; taps counted from the end with
 * flip. All of one float dtype, any strides; f16 and bf16 accumulate in f32.
 * conv_weight(x, d [N, ..., O]) -> [O, ..., C / groups]: the sum over n and p of d[n, p, o] * x at
 * that place: a convolution's gradient for its weight. Row-contiguous, of one dtype. */
typedef struct tni_p_conv {
    int32_t nd, groups, flip;
    int32_t stride[3], low[3], high[3], dilation[3], input_dilation[3];
} tni_p_conv;

/* pool(x [N, ..., C]) -> [N, ..., C] over 1 to 3 axes: the largest of each window of k places (NaN
 * if any is), `stride` apart, or their mean; `pad` more places at both ends, less than k, which are
 * no candidates for the largest and 0 for the mean. Means of f16 and bf16 are made in f32.
 * pool_vjp(x, g) -> the gradient of x for the cotangent g of pool(x): elements that are equally
 * large share it. Of a mean: pool_vjp(g), whose output says how many places x had. */
typedef struct tni_p_pool {
    int32_t nd, mean;
    int32_t k[3], stride[3], pad[3];
} tni_p_pool;

/* custom(y 0, ..., y n-1, x 0, ..., x m-1) -> y 0, ..., y n-1, whose derivatives by the x are those
 * of the rule, and by the y nothing (a vmap rule's: those of the y). Under vmap, `levels` axes of
 * calls come first, of size 1 in those x that all calls share. Pointers, since a rule is code: not
 * for files. */
typedef struct tni_p_custom {
    void (*vjp)(void); /* tn_vjp_rule, tn_jvp_rule, tn_vmap_rule or, for a checkpoint, tn_fns */
    void *ud;
    int32_t n, kind; /* results; TNI_CUSTOM_... */
    int64_t levels;
} tni_p_custom;
/* LOST: once of the kind VJP or JVP, from a file, which has no rule. DRAWN: a checkpoint whose
 * function drew random numbers; its last x is the key that the sequence had before. Numbers are
 * written to files.
 */
enum {
    TNI_CUSTOM_STOP,
    TNI_CUSTOM_VJP,
    TNI_CUSTOM_CHECKPOINT,
    TNI_CUSTOM_AFTER,
    TNI_CUSTOM_VMAP,
    TNI_CUSTOM_LOST,
    TNI_CUSTOM_JVP,
    TNI_CUSTOM_DRAWN
};

#endif
