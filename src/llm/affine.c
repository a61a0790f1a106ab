/* GGUF's 4, 5 and 8-bit blocks as MLX's affine layout, group 32, value for value. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/thread.h"
#include "io/gguf.h"
#include "llm/load.h"
#include <stdatomic.h>

int tni_affine_bits(int type) {
    switch (type) {
    case TNI_GGUF_Q4_0:
    case TNI_GGUF_Q4_1:
        return 4;
    case TNI_GGUF_Q5_0:
    case TNI_GGUF_Q5_1:
        return 5;
    case TNI_GGUF_Q8_0:
        return 8;
    default:
        return 0;
    }
}

typedef struct affine_block {
    _Atomic int refs;
    size_t size;
    void *memory;
} affine_block;

void tni_affine_release(void *owner) {
    affine_block *b = owner;
    if (atomic_fetch_sub(&b->refs, 1) != 1) return;
    tni_free_aligned(b->memory, b->size);
    tni_free(b);
}

static int affine_alloc(int bits, int64_t rows, int64_t cols, tni_affine *a) {
    size_t q = (size_t)rows * (size_t)cols / 8 * (size_t)bits,
           s = (size_t)rows * (size_t)cols / 32 * (a->f32 ? 4 : 2);
    affine_block *b = tni_alloc(sizeof *b);
    if (!b) return tni_fail_memory(sizeof *b, "a weight matrix");
    a->bytes = q + 2 * s;
    atomic_init(&b->refs, 3);
    b->size = a->bytes;
    b->memory = tni_alloc_aligned(a->bytes);
    if (!b->memory) {
        tni_free(b);
        return tni_fail_memory(a->bytes, "a weight matrix");
    }
    a->q = b->memory, a->scales = (char *)b->memory + q, a->biases = (char *)a->scales + s;
    a->owner = b;
    return 0;
}

typedef struct affine_job {
    int type;
    const void *src;
    int64_t rows, cols;
    tni_affine to; /* at the part's first row */
    _Atomic int status;
} affine_job;

static void affine_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    affine_job *j = ctx;
    (void)worker;
    int status = tni_gguf_to_affine(j->type, j->src, j->rows, j->cols, begin, end, j->to.q,
                                    j->to.scales, j->to.biases, j->to.f32);
    if (status) j->status = status;
}

int tni_affine_make(int type, int bits, int n, const void *const *data, const int64_t *rows,
                    int64_t cols, tni_affine *a) {
    int64_t total = 0, at = 0;
    a->f32 = false;
    for (int i = 0; i < n; i++) {
        total += rows[i];
        a->f32 = a->f32 || tni_gguf_affine_needs_f32(type, data[i], rows[i], cols);
    }
    int status = affine_alloc(bits, total, cols, a);
    size_t item = a->f32 ? 4 : 2;
    for (int i = 0; i < n && !status; i++) {
        affine_job j = {.type = type, .src = data[i], .rows = rows[i], .cols = cols, .to = *a};
        j.to.q = (char *)a->q + (size_t)(at * cols) / 8 * (size_t)bits;
        j.to.scales = (char *)a->scales + (size_t)(at * cols) / 32 * item;
        j.to.biases = (char *)a->biases + (size_t)(at * cols) / 32 * item;
        tni_parallel(rows[i], 64, affine_rows, &j);
        at += rows[i];
        if ((status = j.status))
            for (int k = 0; k < 3; k++) tni_affine_release(a->owner);
    }
    return status;
}
