/* Patches: the inputs that meet the kernel at each place, as rows of a matrix, for a block of
 * rows and columns at a time, so that the whole matrix (the input times the number of taps) never
 * exists. Bytes are copied as they are; the GEMM widens. */
#include "cpu/cpu_conv.h"
#include <string.h>

static void patch_copy(char *dst, const char *src, int64_t n, int64_t step, int64_t item) {
    if (step == 1) {
        memcpy(dst, src, (size_t)(n * item));
        return;
    }
    if (item == 4)
        for (int64_t i = 0; i < n; i++) ((uint32_t *)dst)[i] = ((const uint32_t *)src)[i * step];
    else if (item == 2)
        for (int64_t i = 0; i < n; i++) ((uint16_t *)dst)[i] = ((const uint16_t *)src)[i * step];
    else
        for (int64_t i = 0; i < n; i++) ((uint64_t *)dst)[i] = ((const uint64_t *)src)[i * step];
}

/* The input's place under tap t of a kernel that starts at i, or -1. */
static int64_t patch_place(const tni_conv_axis *a, int64_t i, int64_t t) {
    int64_t p = i + t * a->dilation;
    if (p < 0) return -1;
    if (a->input_dilation > 1) {
        if (p % a->input_dilation) return -1;
        p /= a->input_dilation;
    }
    return p < a->in ? p : -1;
}

/* Runs are often a few numbers long (three taps of one channel), less than a call costs. */
static inline void patch_put(char *dst, const char *src, int64_t bytes) {
    if (bytes > 64) {
        memcpy(dst, src, (size_t)bytes);
        return;
    }
    for (; bytes >= 16; bytes -= 16, dst += 16, src += 16) memcpy(dst, src, 16);
    for (; bytes >= 4; bytes -= 4, dst += 4, src += 4) memcpy(dst, src, 4);
    if (bytes) memcpy(dst, src, 2);
}

static inline void patch_zero(char *dst, int64_t bytes) {
    if (bytes > 64) {
        memset(dst, 0, (size_t)bytes);
        return;
    }
    for (; bytes >= 4; bytes -= 4, dst += 4) memset(dst, 0, 4);
    if (bytes) memset(dst, 0, 2);
}

/* Of one tap of the first two axes, elements [at, at + n) of the taps and channels of the last. */
typedef struct patch_run {
    int64_t tap, at, n;
} patch_run;

/* A run at one place: the kernel starts at i of the last axis. */
static void patch_taps(const tni_conv *v, const char *src, int64_t i, const patch_run *r,
                       char *dst) {
    const tni_conv_axis *a = &v->axis[2];
    int64_t n = r->n;
    for (int64_t t = r->at / v->cg, c = r->at % v->cg; n > 0; t++, c = 0) {
        int64_t m = n < v->cg - c ? n : v->cg - c, p = patch_place(a, i, t);
        if (p < 0)
            memset(dst, 0, (size_t)(m * v->item));
        else
            patch_copy(dst, src + (p * a->xs + c * v->xc) * v->item, m, v->xc, v->item);
        dst += m * v->item, n -= m;
    }
}

/* The same where taps lie side by side in the input: one piece, cut at the borders. */
static inline void patch_piece(const tni_conv *v, const char *src, int64_t i, const patch_run *r,
                               char *dst) {
    int64_t first = i * v->cg + r->at, end = v->axis[2].in * v->cg - first, n = r->n;
    if (first >= 0 && end >= n) {
        patch_put(dst, src + first * v->item, n * v->item);
        return;
    }
    int64_t low = first < 0 ? -first : 0, high = end < n ? end : n;
    if (low >= high) low = high = n;
    patch_zero(dst, low * v->item);
    patch_put(dst + low * v->item, src + (first + low) * v->item, (high - low) * v->item);
    patch_zero(dst + high * v->item, (n - high) * v->item);
}

/* A run for places i[2], i[2] + stride, ... of one line of an image: rows of dst, `ld` apart. */
static void patch_line(const tni_conv *v, const char *x, const int64_t *i, const patch_run *r,
                       int64_t rows, char *dst, int64_t ld) {
    int64_t p = patch_place(&v->axis[0], i[0], r->tap / v->axis[1].taps),
            q = patch_place(&v->axis[1], i[1], r->tap % v->axis[1].taps), at = i[2];
    bool inside = p >= 0 && q >= 0;
    if (inside) x += (p * v->axis[0].xs + q * v->axis[1].xs) * v->item;
    for (; rows > 0; rows--, dst += ld, at += v->axis[2].stride) {
        if (!inside)
            patch_zero(dst, r->n * v->item);
        else if (v->merged)
            patch_piece(v, x, at, r, dst);
        else
            patch_taps(v, x, at, r, dst);
    }
}

static void patch_rows(const tni_conv *v, int64_t group, int64_t m, int64_t rows,
                       const patch_run *r, char *dst, int64_t ld) {
    int64_t at[3], rest = m;
    for (int d = 2; d >= 0; d--) at[d] = rest % v->axis[d].out, rest /= v->axis[d].out;
    while (rows > 0) {
        int64_t i[3], line = v->axis[2].out - at[2];
        if (line > rows) line = rows;
        for (int d = 0; d < 3; d++) i[d] = at[d] * v->axis[d].stride - v->axis[d].low;
        patch_line(v, v->x + (rest * v->xn + group * v->cg * v->xc) * v->item, i, r, line, dst, ld);
        rows -= line, dst += line * ld, at[2] = 0;
        for (int d = 1; d >= 0; d--) { /* the next line, then the next image */
            if (++at[d] < v->axis[d].out) break;
            at[d] = 0;
            rest += d == 0;
        }
    }
}

void tni_conv_patches(const tni_conv *v, int64_t group, int64_t m, int64_t rows, int64_t k,
                      int64_t n, char *dst) {
    int64_t all = v->axis[2].taps * v->cg, ld = n * v->item;
    for (patch_run r = {k / all, k % all, 0}; n > 0; r.tap++, r.at = 0) {
        r.n = n < all - r.at ? n : all - r.at;
        patch_rows(v, group, m, rows, &r, dst, ld);
        dst += r.n * v->item, n -= r.n;
    }
}

void tni_conv_init(tni_conv *v, const tni_p_conv *p, const tni_view *x, const tni_view *w,
                   const tni_view *y) {
    int nd = p->nd;
    *v = (tni_conv){.x = x->data, .xn = x->strides[0], .xc = x->strides[nd + 1]};
    v->item = (int64_t)tn_dtype_size(x->dtype);
    v->groups = p->groups, v->flip = p->flip != 0;
    v->cg = w->shape[nd + 1], v->og = w->shape[0] / p->groups;
    v->rows = x->shape[0], v->depth = v->cg;
    for (int i = 0; i < 3; i++) {
        int d = i - (3 - nd); /* the axis of the array, less 1 */
        tni_conv_axis *a = &v->axis[i];
        *a = (tni_conv_axis){1, 1, 1, 1, 0, 1, 1, 0};
        if (d < 0) continue;
        a->in = x->shape[d + 1], a->out = y->shape[d + 1], a->taps = w->shape[d + 1];
        a->stride = p->stride[d], a->low = p->low[d], a->dilation = p->dilation[d];
        a->input_dilation = p->input_dilation[d], a->xs = x->strides[d + 1];
        v->rows *= a->out, v->depth *= a->taps;
    }
    const tni_conv_axis *a = &v->axis[2];
    v->merged = a->dilation == 1 && a->input_dilation == 1 && v->xc == 1 && a->xs == v->cg;
}
