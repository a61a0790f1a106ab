/* Convolution and its gradient for the weight. Contracts: ops/prims.h. */
#ifndef TNI_CPU_CONV_H
#define TNI_CPU_CONV_H

#include "core/backend.h"
#include "ops/prims.h"

int tni_cpu_conv(const tni_call *c);
int tni_cpu_conv_weight(const tni_call *c);

/* What tni_cpu_conv (cpu_conv_phase.c) makes of one: zeros in a spread input are multiplied. */
int tni_conv_plain(const tni_call *c);

/* ---- patches (cpu_conv_patch.c) ---- */

/* One of three axes; those a convolution lacks have one place and one tap. xs: of the input, in
 * elements. */
typedef struct tni_conv_axis {
    int64_t in, out, taps, stride, low, dilation, input_dilation, xs;
} tni_conv_axis;

/* A convolution as a product: row m (image, place) of the matrix of patches, [rows, depth], holds
 * the inputs that meet the kernel there, taps outer, channels of one group inner. */
typedef struct tni_conv {
    tni_conv_axis axis[3];
    const char *x;
    int64_t xn, xc;         /* strides of images and channels */
    int64_t item;           /* bytes of an element */
    int64_t groups, cg, og; /* channels in and out of a group */
    int64_t rows, depth;    /* places of all images; taps * cg */
    bool merged;            /* taps of the last axis and channels are one run of memory */
    bool flip;
} tni_conv;

/* y: the output, or what has its shape; w: the weight, or what has its shape. */
void tni_conv_init(tni_conv *v, const tni_p_conv *p, const tni_view *x, const tni_view *w,
                   const tni_view *y);
/* dst [rows, n]: columns [k, k + n) of rows [m, m + rows) of a group's patches. */
void tni_conv_patches(const tni_conv *v, int64_t group, int64_t m, int64_t rows, int64_t k,
                      int64_t n, char *dst);

/* ---- depthwise (cpu_conv.c) ---- */

/* at[tap]: the input's element offset under each tap for row m; -1 where it is none. */
void tni_conv_taps(const tni_conv *v, int64_t m, int64_t *at);
void tni_conv_widen(tn_dtype d, const void *src, int64_t n, float *dst); /* f32, f16, bf16 to f32 */

#endif
