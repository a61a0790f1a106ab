/* take, arange and random_bits. */
#include "cpu/cpu_misc.h"
#include "base/err.h"
#include "base/half.h"
#include "base/thread.h"
#include "base/threefry.h"
#include "ops/prims.h"
#include <string.h>

/* ---- take: out[o..., k..., i...] = a[o..., index[k...], i...] ---- */

typedef struct take_job {
    const tni_view *a, *index;
    char *out;
    int axis, item;       /* item: bytes of an element */
    int64_t picks, inner; /* indices; elements of `a` behind the axis */
    bool inner_dense;     /* those are one block of memory */
    _Atomic int64_t bad;  /* 1 + the first pick found out of range */
} take_job;

static int64_t take_load(const tni_view *v, int64_t at) {
    const char *p = v->data;
    switch (v->dtype) {
    case TN_U8:
        return ((const uint8_t *)p)[at];
    case TN_I8:
        return ((const int8_t *)p)[at];
    case TN_U16:
        return ((const uint16_t *)p)[at];
    case TN_I16:
        return ((const int16_t *)p)[at];
    case TN_U32:
        return ((const uint32_t *)p)[at];
    case TN_I32:
        return ((const int32_t *)p)[at];
    default:
        return ((const int64_t *)p)[at]; /* u64 beyond 2^63 comes out negative: out of range */
    }
}

/* Element offset of row-major position `at` of axes [from, to) of a view. */
static int64_t take_offset(const tni_view *v, int from, int to, int64_t at) {
    int64_t offset = 0;
    for (int d = to - 1; d >= from; d--) {
        offset += at % v->shape[d] * v->strides[d];
        at /= v->shape[d];
    }
    return offset;
}

static void take_copy(const take_job *j, char *dst, const char *src) {
    if (j->inner_dense) {
        memcpy(dst, src, (size_t)(j->inner * j->item));
        return;
    }
    for (int64_t i = 0; i < j->inner; i++)
        memcpy(dst + i * j->item, src + take_offset(j->a, j->axis + 1, j->a->ndim, i) * j->item,
               (size_t)j->item);
}

static void take_range(void *ctx, int64_t begin, int64_t end, int worker) {
    take_job *j = ctx;
    (void)worker;
    int64_t n = j->a->shape[j->axis];
    for (int64_t r = begin; r < end; r++) {
        int64_t pick = r % j->picks,
                k = take_load(j->index, take_offset(j->index, 0, j->index->ndim, pick));
        if (j->index->dtype != TN_U64 && k < 0) k += n;
        if (k < 0 || k >= n) {
            j->bad = 1 + pick;
            return;
        }
        int64_t from = take_offset(j->a, 0, j->axis, r / j->picks) + k * j->a->strides[j->axis];
        take_copy(j, j->out + r * j->inner * j->item, (const char *)j->a->data + from * j->item);
    }
}

int tni_cpu_take(const tni_call *c) {
    take_job j = {.a = &c->in[0], .index = &c->in[1], .out = c->out->data};
    j.axis = ((const tni_p_take *)c->params)->axis;
    j.item = (int)tn_dtype_size(j.a->dtype);
    j.picks = tni_view_size(j.index);
    j.inner = 1;
    int64_t outer = 1;
    for (int d = 0; d < j.axis; d++) outer *= j.a->shape[d];
    for (int d = j.axis + 1; d < j.a->ndim; d++) j.inner *= j.a->shape[d];
    int behind = j.a->ndim - j.axis - 1;
    tni_view inner = {NULL, j.a->dtype, behind, j.a->shape + j.axis + 1, j.a->strides + j.axis + 1};
    j.inner_dense = tni_view_contiguous(&inner);
    /* About 64 KiB a chunk, which takes some 10 us. */
    tni_parallel(outer * j.picks, 1 + 65536 / (1 + j.inner * j.item), take_range, &j);
    if (!j.bad) return 0;
    int64_t value = take_load(j.index, take_offset(j.index, 0, j.index->ndim, j.bad - 1));
    return tni_fail(
        TN_EINDEX,
        "take: index %lld (number %lld of the indices) is out of range for axis %d of size %lld",
        (long long)value, (long long)(j.bad - 1), j.axis, (long long)j.a->shape[j.axis]);
}

/* ---- arange ---- */

int tni_cpu_arange(const tni_call *c) {
    const tni_p_arange *p = c->params;
    int64_t n = tni_view_size(c->out);
    void *out = c->out->data;
    for (int64_t i = 0; i < n; i++) {
        double f = p->start + (double)i * p->step;
        uint64_t u = (uint64_t)p->istart + (uint64_t)i * (uint64_t)p->istep;
        switch (c->out->dtype) {
        case TN_U8:
        case TN_I8:
            ((uint8_t *)out)[i] = (uint8_t)u;
            break;
        case TN_U16:
        case TN_I16:
            ((uint16_t *)out)[i] = (uint16_t)u;
            break;
        case TN_U32:
        case TN_I32:
            ((uint32_t *)out)[i] = (uint32_t)u;
            break;
        case TN_U64:
        case TN_I64:
            ((uint64_t *)out)[i] = u;
            break;
        case TN_F16:
            ((uint16_t *)out)[i] = tni_f32_to_f16((float)f);
            break;
        case TN_BF16:
            ((uint16_t *)out)[i] = tni_f32_to_bf16((float)f);
            break;
        case TN_F32:
            ((float *)out)[i] = (float)f;
            break;
        case TN_F64:
            ((double *)out)[i] = f;
            break;
        default:
            return tni_fail(TN_EDTYPE, "arange: not defined for %s", tn_dtype_name(c->out->dtype));
        }
    }
    return 0;
}

/* ---- random bits ----
 * MLX's layout (mlx/backend/cpu/primitives.cpp, threefry): n words come from counter pairs
 * (i, i + ceil(n/2)); the first word of pair i is word i, the second is word i + ceil(n/2). With
 * odd n the last pair's second counter is 0 and only its first word is used. Narrow outputs are the
 * bytes of that word stream. */

typedef struct bits_job {
    const uint32_t *keys;
    uint64_t half, full, bytes; /* of one key: ceil(n/2); whole pairs; bytes of output */
    unsigned char *out;
} bits_job;

static void bits_put(unsigned char *out, uint64_t bytes, uint64_t word, uint32_t value) {
    uint64_t at = word * 4, n = at < bytes ? bytes - at : 0;
    memcpy(out + at, &value, n < 4 ? n : 4);
}

static void bits_range(void *ctx, int64_t begin, int64_t end, int worker) {
    const bits_job *j = ctx;
    (void)worker;
    uint64_t k = (uint64_t)begin / j->half, i = (uint64_t)begin % j->half;
    for (int64_t left = end - begin; left > 0; left--) {
        unsigned char *out = j->out + k * j->bytes;
        bool pair = i < j->full;
        tni_u32x2 r = tni_threefry((tni_u32x2){j->keys[2 * k], j->keys[2 * k + 1]},
                                   (tni_u32x2){(uint32_t)i, pair ? (uint32_t)(i + j->half) : 0});
        bits_put(out, j->bytes, i, r.x);
        if (pair) bits_put(out, j->bytes, i + j->half, r.y);
        if (++i == j->half) i = 0, k++;
    }
}

int tni_cpu_random_bits(const tni_call *c) {
    int64_t keys = tni_view_size(&c->in[0]) / 2, size = tni_view_size(c->out);
    if (!size) return 0;
    bits_job j = {.keys = c->in[0].data, .out = c->out->data};
    j.bytes = (uint64_t)(size / keys) * tn_dtype_size(c->out->dtype);
    uint64_t words = (j.bytes + 3) / 4;
    j.half = (words + 1) / 2, j.full = words / 2;
    tni_parallel(keys * (int64_t)j.half, 4096, bits_range, &j);
    return 0;
}
