/* Any bytes as a GGUF file: opening, every question about every key and tensor, widening and
 * repacking of what is small. A file that opens must be safe to read all of. */
#include "base/alloc.h"
#include "fuzz.h"
#include "io/gguf.h"
#include <stdlib.h>
#include <string.h>

enum { FUZZ_VALUES = 1 << 14, FUZZ_ITEMS = 1 << 12 };

/* Reads every byte, for the sanitizer. */
static void fuzz_touch(const void *p, size_t n) {
    volatile uint8_t sink = 0;
    for (size_t i = 0; i < n; i++) sink = (uint8_t)(sink + ((const uint8_t *)p)[i]);
}

static void fuzz_array(const tni_gguf *g, const char *key) {
    size_t n = 0;
    if (!tni_gguf_array_len(g, key, &n)) return;
    n = n < FUZZ_ITEMS ? n : FUZZ_ITEMS;
    tni_bytes *text = tni_alloc_array(n, sizeof *text);
    int32_t *ints = tni_alloc_array(n, sizeof *ints);
    float *floats = tni_alloc_array(n, sizeof *floats);
    if (text && ints && floats) {
        bool strings = !tni_gguf_array_strings(g, key, text, n);
        for (size_t i = 0; strings && i < n; i++) fuzz_touch(text[i].s, text[i].n);
        bool whole = !tni_gguf_array_i32(g, key, ints, n);
        if (whole && tni_gguf_array_f32(g, key, floats, n)) abort();
        if (strings && whole) abort();
    }
    tni_free(text);
    tni_free(ints);
    tni_free(floats);
}

static void fuzz_key(const tni_gguf *g, const char *key) {
    int64_t i;
    double d;
    bool b;
    const char *s = tni_gguf_str(g, key);
    bool whole = tni_gguf_i64(g, key, &i), number = tni_gguf_f64(g, key, &d);
    bool truth = tni_gguf_bool(g, key, &b);
    if (whole && !number) abort();
    if ((s != NULL) + number + truth > 1) abort();
    if (s && strlen(s) > (size_t)1 << 30) abort();
    fuzz_array(g, key);
}

static uint32_t fuzz_q(const uint8_t *q, int bits, int64_t i) {
    uint32_t v = 0;
    for (int64_t k = 0, at = i * bits; k < bits; k++, at++)
        v |= (uint32_t)(q[at / 8] >> (at % 8) & 1) << k;
    return v;
}

/* With f32 scales nothing may be lost; want: the widened values. */
static void fuzz_affine(const tni_gguf_tensor *t, int bits, int64_t n, const float *want) {
    int64_t cols = t->dims[0], rows = n / cols;
    float *s = tni_alloc_array((size_t)n / 32, 4), *b = tni_alloc_array((size_t)n / 32, 4);
    uint8_t *q = tni_alloc((size_t)n / 8 * (size_t)bits);
    if (s && b && q) {
        tni_gguf_affine_needs_f32(t->type, t->data, rows, cols);
        if (tni_gguf_to_affine(t->type, t->data, rows, cols, 0, rows, q, s, b, false)) abort();
        if (tni_gguf_to_affine(t->type, t->data, rows, cols, 0, rows, q, s, b, true)) abort();
        for (int64_t i = 0; i < n; i++) {
            float v = s[i / 32] * (float)fuzz_q(q, bits, i);
            v += b[i / 32];
            if (v == v && v != want[i]) abort(); /* infinite scales give NaN */
        }
    }
    tni_free(s);
    tni_free(b);
    tni_free(q);
}

static void fuzz_tensor(const tni_gguf_tensor *t) {
    int64_t n = t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    fuzz_touch(t->data, t->bytes);
    if (n > FUZZ_VALUES) return;
    float *f = tni_alloc_array((size_t)n, sizeof *f);
    int bits = t->type == TNI_GGUF_Q4_0 || t->type == TNI_GGUF_Q4_1   ? 4
               : t->type == TNI_GGUF_Q5_0 || t->type == TNI_GGUF_Q5_1 ? 5
               : t->type == TNI_GGUF_Q8_0                             ? 8
                                                                      : 0;
    if (f && tni_gguf_dequant(t->type, t->data, n, f)) abort();
    if (f && bits) fuzz_affine(t, bits, n, f);
    tni_free(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tni_gguf *g;
    if (tni_gguf_open_mem(data, size, &g)) return 0;
    for (size_t i = 0; i < tni_gguf_key_count(g); i++) fuzz_key(g, tni_gguf_key_at(g, i));
    for (size_t i = 0; i < tni_gguf_tensor_count(g); i++) {
        const tni_gguf_tensor *t = tni_gguf_tensor_at(g, i);
        if (tni_gguf_tensor_find(g, t->name) != t) abort();
        fuzz_tensor(t);
    }
    if (tni_gguf_verify(g)) abort();
    tni_gguf_free(g);
    return 0;
}
