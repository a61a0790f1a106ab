/* The GGUF reader: widening against the gguf package, repacking, metadata, hostile files. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/half.h"
#include "base/mmap.h"
#include "base/str.h"
#include "data/gguf_golden.h"
#include "io/gguf.h"
#include "tap.h"
#include <math.h>
#include <unistd.h>

/* ---- files made here ---- */

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };

static void put(tni_str *s, uint64_t v, size_t n) {
    for (size_t i = 0; i < n; i++) tni_str_putc(s, (char)(i < 8 ? v >> (8 * i) : 0));
}

static void put_bytes(tni_str *s, const char *text, size_t n) {
    put(s, n, 8);
    tni_str_append(s, text, n);
}

static void put_text(tni_str *s, const char *text) { put_bytes(s, text, strlen(text)); }

static void put_head(tni_str *s, uint32_t version, uint64_t tensors, uint64_t keys) {
    tni_str_puts(s, "GGUF");
    put(s, version, 4);
    put(s, tensors, 8);
    put(s, keys, 8);
}

static void put_key(tni_str *s, const char *name, uint32_t kind, uint64_t v, size_t n) {
    put_text(s, name);
    put(s, kind, 4);
    put(s, v, n);
}

static void put_key_text(tni_str *s, const char *name, const char *text) {
    put_key(s, name, STRING, 0, 0);
    put_text(s, text);
}

static void put_array(tni_str *s, const char *name, uint32_t kind, uint64_t n) {
    put_key(s, name, ARRAY, kind, 4);
    put(s, n, 8);
}

static void put_tensor(tni_str *s, const char *name, uint32_t ndim, const uint64_t *dims,
                       uint32_t type, uint64_t offset) {
    put_text(s, name);
    put(s, ndim, 4);
    for (uint32_t i = 0; i < ndim; i++) put(s, dims[i], 8);
    put(s, type, 4);
    put(s, offset, 8);
}

static void put_pad(tni_str *s, size_t to) {
    while (s->n % to) tni_str_putc(s, 0);
}

/* A block of exactly the file's size, so that the sanitizer sees one byte too many. */
static int open_exact(const tni_str *s, size_t n, tni_gguf **g, char **block) {
    *block = malloc(n ? n : 1);
    if (n) memcpy(*block, s->v, n);
    return tni_gguf_open_mem(*block, n, g);
}

static uint64_t noise_word(uint64_t seed, uint64_t i) {
    uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint8_t *noise(uint64_t seed, size_t n) {
    uint8_t *b = malloc(n + 8);
    for (size_t i = 0; i * 8 < n; i++) {
        uint64_t w = noise_word(seed, i);
        memcpy(b + i * 8, &w, 8);
    }
    return b;
}

/* ---- widening ---- */

static uint64_t fnv(const float *f, size_t n) {
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (isnan(f[i]) ? 0x7FC00000u : tni_f32_bits(f[i]))) * 0x100000001B3u;
    return h;
}

static void test_widen(void) {
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
        const struct golden *w = &goldens[i];
        size_t values = 0, bytes = 0, n = w->values * GOLDEN_BLOCKS,
               size = w->bytes * GOLDEN_BLOCKS;
        ok(tni_gguf_type_block(w->type, &values, &bytes) && values == w->values &&
               bytes == w->bytes,
           "%s: %zu values in %zu bytes", w->name, values, bytes);
        is_str(tni_gguf_type_name(w->type), w->name, "its name");
        uint8_t *made = noise((uint64_t)w->type, size), *src = malloc(size + 1);
        float *f = malloc(n * sizeof *f);
        memcpy(src + 1, made, size); /* odd addresses are usual */
        is_i64(tni_gguf_dequant(w->type, src + 1, (int64_t)n, f), 0, "%s: widens", w->name);
        for (size_t k = 0; k < 8; k++)
            if (!(f[k] == w->begin[k] || (isnan(f[k]) && isnan(w->begin[k]))))
                diag("value %zu: %.9g, want %.9g", k, (double)f[k], (double)w->begin[k]);
        ok(fnv(f, w->values) == w->first, "%s: bits of the first block", w->name);
        ok(fnv(f, n) == w->all, "%s: bits of %d blocks", w->name, GOLDEN_BLOCKS);
        free(made), free(src), free(f);
    }
}

static void test_widen_bad(void) {
    float f[256];
    uint8_t b[300] = {0};
    static const int unknown[] = {-1, 4, 5, 31, 32, 33, 36, 37, 38, 43, 1 << 30};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        size_t v, n;
        ok(!tni_gguf_type_block(unknown[i], &v, &n), "type %d is unknown", unknown[i]);
        is_i64(tni_gguf_dequant(unknown[i], b, 0, f), TN_EVALUE, "and not widened");
        is_str(tni_gguf_type_name(unknown[i]), "?", "nor named");
    }
    is_i64(tni_gguf_dequant(TNI_GGUF_Q4_K, b, 255, f), TN_EVALUE, "part of a block");
    is_str(tni_error(), "255 values are not a whole number of Q4_K's blocks of 256", "said so");
    is_i64(tni_gguf_dequant(TNI_GGUF_F32, b, -1, f), TN_EVALUE, "fewer than none");
    is_i64(tni_gguf_dequant(TNI_GGUF_F32, b, 0, f), 0, "none");
}

/* ---- repacking ---- */

static uint32_t affine_q(const uint8_t *q, int bits, size_t i) {
    uint32_t v = 0;
    for (size_t k = 0; k < (size_t)bits; k++) {
        size_t at = i * (size_t)bits + k;
        v |= (uint32_t)(q[at / 8] >> (at % 8) & 1) << k;
    }
    return v;
}

static float affine_value(const void *p, bool wide, size_t i) {
    uint16_t h;
    float f;
    memcpy(&h, (const char *)p + i * 2, 2);
    if (!wide) return tni_f16_to_f32(h);
    memcpy(&f, (const char *)p + i * 4, 4);
    return f;
}

enum { A_ROWS = 5, A_COLS = 96, A_GROUPS = A_ROWS * A_COLS / 32 };

/* Blocks whose scales have random bits with exponents up to `exponent`, signs and subnormals
 * included. */
static uint8_t *affine_blocks(const struct golden *t, uint32_t exponent) {
    uint8_t *b = noise(77 + (uint64_t)t->type, A_GROUPS * t->bytes);
    for (size_t i = 0; i < A_GROUPS; i++)
        for (size_t k = 1; k < 4; k += 2) { /* q in types without minimum: harmless */
            uint8_t *high = b + i * t->bytes + k;
            if ((*high >> 2 & 31) > exponent || i == 3) *high &= 0x83;
        }
    return b;
}

static void affine_check(const struct golden *t, int bits, bool wide) {
    uint8_t q[A_ROWS * A_COLS], s[A_GROUPS * 4], z[A_GROUPS * 4],
        *b = affine_blocks(t, wide ? 30 : 23);
    float w[A_ROWS * A_COLS];
    memset(q, 0xEE, sizeof q), memset(s, 0xEE, sizeof s), memset(z, 0xEE, sizeof z);
    tni_gguf_dequant(t->type, b, A_ROWS * A_COLS, w);
    int status = tni_gguf_to_affine(t->type, b, A_ROWS, A_COLS, 3, 5, q, s, z, wide);
    uint8_t untouched[A_GROUPS * 4];
    memset(untouched, 0xEE, sizeof untouched);
    ok(!memcmp(q, untouched, sizeof untouched) && !memcmp(s, untouched, 9 * (wide ? 4 : 2)),
       "%s: rows 3 and 4 leave the others alone", t->name);
    status |= tni_gguf_to_affine(t->type, b, A_ROWS, A_COLS, 0, 3, q, s, z, wide);
    status |= tni_gguf_to_affine(t->type, b, A_ROWS, A_COLS, 2, 2, q, s, z, wide);
    is_i64(status, 0, "%s: repacks, scales %s", t->name, wide ? "f32" : "f16");
    int wrong = 0;
    for (size_t i = 0; i < A_ROWS * A_COLS; i++) {
        float v = affine_value(s, wide, i / 32) * (float)affine_q(q, bits, i);
        v += affine_value(z, wide, i / 32);
        wrong += v != w[i];
        if (wrong == 1 && v != w[i]) diag("%zu: %.9g, want %.9g", i, (double)v, (double)w[i]);
    }
    is_i64(wrong, 0, "%s: scale * q + bias is GGUF's value", t->name);
    is_i64(q[A_ROWS * A_COLS * (size_t)bits / 8 - 1] >> (8 - bits),
           affine_q(q, bits, A_ROWS * A_COLS - 1), "%s: the last value is at the end", t->name);
    free(b);
}

static void test_affine(void) {
    static const struct {
        int type, bits;
        double limit; /* the smallest d that f16 cannot take, 0: none */
    } kinds[] = {{TNI_GGUF_Q4_0, 4, 8192},
                 {TNI_GGUF_Q4_1, 4, 0},
                 {TNI_GGUF_Q5_0, 5, 4096},
                 {TNI_GGUF_Q5_1, 5, 0},
                 {TNI_GGUF_Q8_0, 8, 512}};
    for (size_t i = 0; i < 5; i++) {
        const struct golden *t = goldens;
        while (t->type != kinds[i].type) t++;
        affine_check(t, kinds[i].bits, true);
        affine_check(t, kinds[i].bits, false);
        uint8_t *b = noise(9, 4 * t->bytes);
        for (size_t k = 0; k < 4; k++) memset(b + k * t->bytes, 0, 4);
        ok(!tni_gguf_affine_needs_f32(t->type, b, 2, 64), "%s: f16 is enough", t->name);
        uint16_t d = tni_f32_to_f16((float)kinds[i].limit), below = (uint16_t)(d - 1);
        d |= 0x8000;
        if (!kinds[i].limit) d = 0x7bff, below = d;
        memcpy(b + 2 * t->bytes, &below, 2);
        ok(!tni_gguf_affine_needs_f32(t->type, b, 2, 64), "%s: for %g", t->name,
           (double)tni_f16_to_f32(below));
        memcpy(b + 2 * t->bytes, &d, 2);
        ok(tni_gguf_affine_needs_f32(t->type, b, 2, 64) == (kinds[i].limit > 0), "%s: for %g %s",
           t->name, (double)tni_f16_to_f32(d), kinds[i].limit > 0 ? "it is not" : "too");
        ok(!tni_gguf_affine_needs_f32(t->type, b, 1, 64), "%s: only rows asked for", t->name);
        free(b);
    }
    ok(!tni_gguf_affine_needs_f32(TNI_GGUF_F16, "", 1, 32), "other types need nothing");
    is_i64(tni_gguf_to_affine(TNI_GGUF_Q6_K, "", 1, 32, 0, 1, NULL, NULL, NULL, true), TN_EVALUE,
           "and have no affine form: %s", tni_error());
    is_i64(tni_gguf_to_affine(TNI_GGUF_Q8_0, "", 1, 33, 0, 1, NULL, NULL, NULL, true), TN_EVALUE,
           "columns that are no groups: %s", tni_error());
    is_i64(tni_gguf_to_affine(TNI_GGUF_Q8_0, "", 1, 32, 0, 2, NULL, NULL, NULL, true), TN_EVALUE,
           "rows that are not there");
}

/* Scales at and beyond f16's edge: forced into f16, a bias becomes infinite and no NaN. */
static void test_affine_edge(void) {
    uint8_t b[34] = {0}, q[32];
    uint16_t s, z, d = tni_f32_to_f16(513);
    memcpy(b, &d, 2);
    is_i64(tni_gguf_to_affine(TNI_GGUF_Q8_0, b, 1, 32, 0, 1, q, &s, &z, false), 0, "d = 513");
    ok(s == d && z == 0xfc00, "its bias is minus infinity in f16");
    d = 0x7c00;
    memcpy(b, &d, 2);
    ok(!tni_gguf_affine_needs_f32(TNI_GGUF_Q8_0, b, 1, 32), "f32 does not help an infinite d");
    is_i64(tni_gguf_to_affine(TNI_GGUF_Q8_0, b, 1, 32, 0, 1, q, &s, &z, false), 0, "infinite d");
    ok(s == 0x7c00 && z == 0xfc00, "stays infinite");
    is_i64(tni_gguf_to_affine(TNI_GGUF_Q8_0, b, 1, 32, -1, 1, q, &s, &z, false), TN_EVALUE,
           "a row before the first");
    is_i64(tni_gguf_to_affine(TNI_GGUF_Q8_0, b, 1, 32, 1, 0, q, &s, &z, false), TN_EVALUE,
           "rows backwards");
    is_i64(tni_gguf_to_affine(TNI_GGUF_Q8_0, b, 1, -32, 0, 1, q, &s, &z, false), TN_EVALUE,
           "fewer columns than none");
    ok(!tni_gguf_affine_needs_f32(TNI_GGUF_Q8_0, b, -1, 32) &&
           !tni_gguf_affine_needs_f32(TNI_GGUF_Q8_0, b, 1, -32),
       "nothing is read of matrices that cannot be");
}

/* ---- metadata ---- */

enum { GOOD_KEYS = 29, GOOD_TENSORS = 3 };

static void put_good_arrays(tni_str *s) {
    put_array(s, "a.strings", STRING, 3);
    put_text(s, "one");
    put_bytes(s, "t\0o", 3);
    put_text(s, "");
    put_array(s, "a.i8", I8, 3);
    put(s, 0x80ff7f, 3);
    put_array(s, "a.u32", U32, 2);
    put(s, 7, 4), put(s, 0x80000000u, 4);
    put_array(s, "a.f32", F32, 2);
    put(s, 0x3f800000, 4), put(s, 0xc0000000u, 4);
    put_array(s, "a.f64", F64, 1);
    put(s, 0x3fb999999999999au, 8);
    put_array(s, "a.bool", BOOL, 2);
    put(s, 0x0100, 2);
    put_array(s, "a.empty", STRING, 0);
    put_array(s, "a.nested", ARRAY, 2);
    put(s, U8, 4), put(s, 3, 8), put(s, 0x010203, 3);
    put(s, STRING, 4), put(s, 1, 8), put_text(s, "deep");
    put_array(s, "a.u64", U64, 2);
    put(s, 5, 8), put(s, UINT64_MAX, 8);
    put_array(s, "a.i64", I64, 2);
    put(s, INT32_MAX, 8), put(s, (uint64_t)-1 << 31, 8);
}

/* A file with a key of every kind and three tensors, out of order in the data. */
static void put_good(tni_str *s, uint32_t version) {
    put_head(s, version, GOOD_TENSORS, GOOD_KEYS);
    put_key_text(s, "general.architecture", "test");
    put_key(s, "general.alignment", U32, 64, 4);
    put_key(s, "v.u8", U8, 200, 1);
    put_key(s, "v.i8", I8, 200, 1);
    put_key(s, "v.u16", U16, 65000, 2);
    put_key(s, "v.i16", I16, 65000, 2);
    put_key(s, "v.u32", U32, 4000000000u, 4);
    put_key(s, "v.i32", I32, 4000000000u, 4);
    put_key(s, "v.u64", U64, 1u << 31, 8);
    put_key(s, "v.u64.max", U64, UINT64_MAX, 8);
    put_key(s, "v.i64", I64, (uint64_t)INT64_MIN, 8);
    put_key(s, "v.f32", F32, 0x3e000000, 4);
    put_key(s, "v.f64", F64, 0x3fb999999999999au, 8);
    put_key(s, "v.true", BOOL, 1, 1);
    put_key(s, "v.false", BOOL, 0, 1);
    put_key_text(s, "s.empty", "");
    put_key(s, "s.nul", STRING, 0, 0);
    put_bytes(s, "a\0b", 3);
    put_key_text(s, "s.text", "Gr\xc3\xbc\xc3\x9f");
    put_key(s, "split.count", U16, 1, 2);
    put_good_arrays(s);
    put_tensor(s, "second", 2, (uint64_t[]){32, 2}, TNI_GGUF_Q4_0, 128);
    put_tensor(s, "first", 1, (uint64_t[]){5}, TNI_GGUF_F32, 0);
    put_tensor(s, "scalar", 0, NULL, TNI_GGUF_F16, 64);
    put_pad(s, 64);
    size_t data = s->n;
    for (size_t i = 0; i < 5; i++) put(s, tni_f32_bits((float)i), 4);
    put_pad(s, 64);
    put(s, 0x3c00, 2);
    put_pad(s, 64);
    while (s->n < data + 128 + 36) tni_str_putc(s, 0x5a);
}

static void check_numbers(const tni_gguf *g) {
    static const struct {
        const char *key;
        int64_t want;
    } ints[] = {{"v.u8", 200},         {"v.i8", -56},         {"v.u16", 65000},
                {"v.i16", -536},       {"v.u32", 4000000000}, {"v.i32", -294967296},
                {"v.u64", 2147483648}, {"v.i64", INT64_MIN}};
    int64_t v;
    double d;
    bool b;
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        v = 0;
        ok(tni_gguf_i64(g, ints[i].key, &v) && v == ints[i].want, "%s as integer", ints[i].key);
        ok(tni_gguf_f64(g, ints[i].key, &d) && d == (double)v, "%s as number", ints[i].key);
        ok(!tni_gguf_bool(g, ints[i].key, &b), "%s is no truth value", ints[i].key);
    }
    ok(!tni_gguf_i64(g, "v.u64.max", &v), "2^64-1 is no int64");
    ok(tni_gguf_f64(g, "v.u64.max", &d) && d == 0x1p64, "but a number");
    ok(!tni_gguf_i64(g, "v.f32", &v) && !tni_gguf_i64(g, "v.true", &v), "floats, bools: no ints");
    ok(tni_gguf_f64(g, "v.f32", &d) && d == 0.125, "f32");
    ok(tni_gguf_f64(g, "v.f64", &d) && d == 0.1, "f64");
    ok(tni_gguf_bool(g, "v.true", &b) && b, "true");
    ok(tni_gguf_bool(g, "v.false", &b) && !b, "false");
    ok(!tni_gguf_f64(g, "v.true", &d) && !tni_gguf_f64(g, "s.text", &d) &&
           !tni_gguf_f64(g, "a.f32", &d) && !tni_gguf_i64(g, "a.i8", &v),
       "bools, text and arrays are no numbers");
    ok(!tni_gguf_i64(g, "nothing", &v) && !tni_gguf_f64(g, "", &d) && !tni_gguf_bool(g, "v", &b),
       "absent keys");
}

static void check_texts(const tni_gguf *g) {
    is_str(tni_gguf_str(g, "general.architecture"), "test", "text");
    is_str(tni_gguf_str(g, "s.text"), "Gr\xc3\xbc\xc3\x9f", "text in UTF-8");
    is_str(tni_gguf_str(g, "s.empty"), "", "no text");
    ok(!tni_gguf_str(g, "s.nul"), "text with a NUL is not given out");
    ok(!tni_gguf_str(g, "v.u8") && !tni_gguf_str(g, "a.strings") && !tni_gguf_str(g, "absent"),
       "nor are other kinds");
    is_i64(tni_gguf_key_count(g), GOOD_KEYS, "keys");
    is_str(tni_gguf_key_at(g, 0), "general.architecture", "the first key");
    is_str(tni_gguf_key_at(g, GOOD_KEYS - 1), "a.i64", "the last key");
    ok(!tni_gguf_key_at(g, GOOD_KEYS), "no more");
}

static void check_arrays(const tni_gguf *g) {
    tni_bytes t[4];
    int32_t n[4];
    float f[4];
    size_t k = 0;
    ok(tni_gguf_array_len(g, "a.strings", &k) && k == 3, "array of three strings");
    ok(!tni_gguf_array_len(g, "v.u8", &k) && !tni_gguf_array_len(g, "absent", &k), "no arrays");
    is_i64(tni_gguf_array_strings(g, "a.strings", t, 3), 0, "strings");
    ok(t[0].n == 3 && !memcmp(t[0].s, "one", 3) && t[1].n == 3 && !memcmp(t[1].s, "t\0o", 3) &&
           !t[2].n,
       "with NUL and empty ones");
    is_i64(tni_gguf_array_strings(g, "a.strings", t, 1), 0, "fewer than there are");
    is_i64(tni_gguf_array_strings(g, "a.strings", t, 4), TN_EFORMAT, "more than there are");
    is_str(tni_error(), "GGUF data: array \"a.strings\" has 3 values; 4 are needed", "said so");
    is_i64(tni_gguf_array_strings(g, "a.empty", t, 0), 0, "an empty array");
    is_i64(tni_gguf_array_strings(g, "a.i8", t, 1), TN_EFORMAT, "strings of numbers");
    is_str(tni_error(), "GGUF data: array \"a.i8\" holds values of type i8; strings are needed",
           "said so");
    ok(!tni_gguf_array_i32(g, "a.i8", n, 3) && n[0] == 127 && n[1] == -1 && n[2] == -128, "i8");
    is_i64(tni_gguf_array_i32(g, "a.u32", n, 1), 0, "a u32 that fits");
    is_i64(tni_gguf_array_i32(g, "a.u32", n, 2), TN_EFORMAT, "and one that does not");
    is_str(tni_error(), "GGUF data: value 1 of array \"a.u32\" does not fit in 32 bits", "said so");
    is_i64(tni_gguf_array_i32(g, "a.u64", n, 2), TN_EFORMAT, "2^64-1");
    ok(!tni_gguf_array_i32(g, "a.i64", n, 2) && n[0] == INT32_MAX && n[1] == INT32_MIN, "i64");
    is_i64(tni_gguf_array_i32(g, "a.f32", n, 1), TN_EFORMAT, "floats as integers");
    is_i64(tni_gguf_array_i32(g, "a.bool", n, 1), TN_EFORMAT, "bools as integers");
    is_i64(tni_gguf_array_i32(g, "a.nested", n, 1), TN_EFORMAT, "arrays as integers");
    is_i64(tni_gguf_array_i32(g, "v.u8", n, 1), TN_EFORMAT, "no array: %s", tni_error());
    ok(!tni_gguf_array_f32(g, "a.f32", f, 2) && f[0] == 1 && f[1] == -2, "f32");
    f[1] = 77;
    ok(!tni_gguf_array_f32(g, "a.f64", f, 1) && f[0] == 0.1f && f[1] == 77, "f64 rounded");
    ok(!tni_gguf_array_f32(g, "a.i8", f, 2) && f[1] == -1, "integers as floats");
    ok(!tni_gguf_array_f32(g, "a.u64", f, 2) && f[1] == 0x1p64f, "even big ones");
    is_i64(tni_gguf_array_f32(g, "a.strings", f, 1), TN_EFORMAT, "strings as floats");
}

static void check_tensors(const tni_gguf *g) {
    is_i64(tni_gguf_tensor_count(g), GOOD_TENSORS, "tensors");
    const tni_gguf_tensor *t = tni_gguf_tensor_find(g, "first");
    float f[64];
    ok(t && t == tni_gguf_tensor_at(g, 1) && t->ndim == 1 && t->dims[0] == 5 && t->dims[1] == 1 &&
           t->bytes == 20,
       "the first in the data");
    ok(t && !tni_gguf_dequant(t->type, t->data, 5, f) && f[4] == 4, "its values");
    t = tni_gguf_tensor_at(g, 0);
    is_str(t->name, "second", "the first in the header");
    ok(t->ndim == 2 && t->dims[0] == 32 && t->dims[1] == 2 && t->bytes == 36 &&
           t->type == TNI_GGUF_Q4_0,
       "rows of 32 in Q4_0");
    t = tni_gguf_tensor_find(g, "scalar");
    ok(t && t->ndim == 0 && t->dims[0] == 1 && t->bytes == 2, "a single value");
    ok(t && !tni_gguf_dequant(t->type, t->data, 1, f) && f[0] == 1, "which is 1");
    ok(!tni_gguf_tensor_find(g, "third") && !tni_gguf_tensor_at(g, 3), "no other");
    is_i64(tni_gguf_verify(g), 0, "memory cannot be cut");
}

static void test_good(void) {
    for (uint32_t version = 2; version <= 3; version++) {
        tni_str s = {0};
        tni_gguf *g;
        char *block;
        put_good(&s, version);
        if (ok(!open_exact(&s, s.n, &g, &block), "version %u opens: %s", version, tni_error())) {
            check_numbers(g);
            check_texts(g);
            check_arrays(g);
            check_tensors(g);
        }
        tni_gguf_free(g);
        free(block);
        tni_str_free(&s);
    }
    tni_gguf_free(NULL);
}

/* ---- hostile files ---- */

static void refused(tni_str *s, const char *want) {
    tni_gguf *g = (tni_gguf *)s; /* anything but NULL */
    char *block;
    int64_t live = tni_alloc_live();
    int status = open_exact(s, s->n, &g, &block);
    ok(status == TN_EFORMAT && !g && strstr(tni_error(), want), "%s", want);
    if (status != TN_EFORMAT || !strstr(tni_error(), want)) diag("%d: %s", status, tni_error());
    is_i64(tni_alloc_live(), live, "nothing is left");
    tni_gguf_free(status ? NULL : g);
    free(block);
    tni_str_free(s);
}

#define REFUSED(want, ...)                                                                         \
    do {                                                                                           \
        tni_str str = {0}, *s = &str;                                                              \
        __VA_ARGS__;                                                                               \
        refused(s, want);                                                                          \
    } while (0)

static void test_bad_head(void) {
    REFUSED("the header at byte 0 needs 4 bytes, but the file ends at byte 0", (void)s);
    REFUSED("needs 4 bytes, but the file ends at byte 3", tni_str_puts(s, "GGU"));
    REFUSED("not a GGUF file (it does not begin with \"GGUF\")", tni_str_puts(s, "GGJTxxxxxxxx"));
    REFUSED("GGUF version 0;", put_head(s, 0, 0, 0));
    REFUSED("GGUF version 1; versions 2 and 3 are read", put_head(s, 1, 0, 0));
    REFUSED("GGUF version 4;", put_head(s, 4, 0, 0));
    REFUSED("a big-endian GGUF file; only little-endian", put_head(s, 3u << 24, 0, 0));
    REFUSED("a big-endian GGUF file", put_head(s, 2u << 24, 0, 0));
    REFUSED("needs 8 bytes, but the file ends at byte 16", put_head(s, 3, 0, 0); s->n = 16);
    REFUSED("18446744073709551615 tensors, but 0 bytes are left", put_head(s, 3, UINT64_MAX, 0));
    REFUSED("9223372036854775808 keys, but 0 bytes are left", put_head(s, 3, 0, 1ull << 63));
    REFUSED("1 keys, but 13 bytes are left", put_head(s, 3, 0, 1); put(s, 0, 8); put(s, 0, 5));
    REFUSED("2 tensors, but 49 bytes are left", put_head(s, 3, 2, 0); put_pad(s, 73));
}

static void test_bad_keys(void) {
    REFUSED("name of a key at byte 24 has 0 bytes; 1 to 65535", put_head(s, 3, 0, 1);
            put_key(s, "", U64, 0, 8));
    REFUSED("a key at byte 32 needs 18446744073709551615 bytes, but the file ends at byte 44",
            put_head(s, 3, 0, 1);
            put(s, UINT64_MAX, 8); put(s, 0, 8); put(s, 0, 4));
    REFUSED("name of key \"a?b\" at byte 24 contains a NUL", put_head(s, 3, 0, 1);
            put_bytes(s, "a\0b", 3); put(s, U64, 4); put(s, 0, 8));
    REFUSED("key \"k\" at byte 33 has the value type 13; 0 to 12", put_head(s, 3, 0, 1);
            put_key(s, "k", 13, 0, 8));
    REFUSED("key \"k?[31m\" at byte 38 has the value type 4294967295", put_head(s, 3, 0, 1);
            put_key(s, "k\033[31m", UINT32_MAX, 0, 8)); /* no escape reaches a terminal */
    REFUSED("key \"k\" says it has 1 values of type i64, but 7 bytes are left",
            put_head(s, 3, 0, 1);
            put_key(s, "k", I64, 0, 7));
    REFUSED("key \"k\" at byte 45 needs 6 bytes, but the file ends at byte 50",
            put_head(s, 3, 0, 1);
            put_key(s, "k", STRING, 6, 8); put(s, 0, 5));
    REFUSED("neither true nor false but 2", put_head(s, 3, 0, 1); put_key(s, "k", BOOL, 2, 1));
    REFUSED("key \"k\" at byte 50 is neither true nor false but 255", put_head(s, 3, 0, 1);
            put_array(s, "k", BOOL, 2); put(s, 0xff01, 2));
    REFUSED("there are two keys named \"k\"", put_head(s, 3, 0, 2); put_key(s, "k", U8, 1, 1);
            put_key(s, "k", I8, 1, 1));
    tni_str name = {0};
    while (name.n < 65536) tni_str_putc(&name, 'k');
    REFUSED("has 65536 bytes", put_head(s, 3, 0, 1); put_key(s, name.v, U8, 1, 1));
    name.v[65535] = 0;
    tni_str s = {0};
    tni_gguf *g;
    char *block;
    put_head(&s, 3, 0, 1);
    put_key(&s, name.v, U8, 1, 1);
    is_i64(open_exact(&s, s.n, &g, &block), 0, "a name of 65535 bytes");
    tni_gguf_free(g);
    free(block);
    tni_str_free(&s);
    tni_str_free(&name);
}

static void test_bad_arrays(void) {
    REFUSED("says it has 18446744073709551615 values of type u8, but 1 bytes are left",
            put_head(s, 3, 0, 1);
            put_array(s, "k", U8, UINT64_MAX); put(s, 0, 1));
    /* 2^61 + 1 values of eight bytes are eight bytes modulo 2^64 */
    REFUSED("says it has 2305843009213693953 values of type f64", put_head(s, 3, 0, 1);
            put_array(s, "k", F64, (1ull << 61) + 1); put(s, 0, 8));
    REFUSED("says it has 1152921504606846976 values of type string", put_head(s, 3, 0, 1);
            put_array(s, "k", STRING, 1ull << 60); put(s, 0, 8));
    REFUSED("says it has 2 values of type string, but 15 bytes are left", put_head(s, 3, 0, 1);
            put_array(s, "k", STRING, 2); put(s, 0, 8); put(s, 0, 7));
    REFUSED("key \"k\" at byte 57 needs 9 bytes", put_head(s, 3, 0, 1);
            put_array(s, "k", STRING, 2); put(s, 9, 8); put(s, 0, 8));
    REFUSED("value type 99", put_head(s, 3, 0, 1); put_array(s, "k", 99, 0));
    REFUSED("value type 13", put_head(s, 3, 0, 1); put_array(s, "k", ARRAY, 1); put(s, 13, 4);
            put(s, 0, 8));
    REFUSED("nests arrays deeper than 4 levels", put_head(s, 3, 0, 1); put_array(s, "k", ARRAY, 1);
            for (int i = 0; i < 1000; i++) put(s, ARRAY, 4), put(s, 1, 8););
    for (int levels = 4; levels <= 5; levels++) {
        tni_str s = {0};
        tni_gguf *g;
        char *block;
        put_head(&s, 3, 0, 1);
        put_array(&s, "k", ARRAY, 1);
        for (int i = 2; i < levels; i++) put(&s, ARRAY, 4), put(&s, 1, 8);
        put(&s, STRING, 4), put(&s, 1, 8), put_text(&s, "leaf");
        is_i64(open_exact(&s, s.n, &g, &block), levels == 4 ? 0 : TN_EFORMAT, "%d levels", levels);
        tni_gguf_free(g);
        free(block);
        tni_str_free(&s);
    }
    REFUSED("says it has 1000 values of type array", put_head(s, 3, 0, 1);
            put_array(s, "k", ARRAY, 1); put(s, ARRAY, 4); put(s, 1000, 8); put(s, 0, 8));
}

static void put_one(tni_str *s, uint32_t ndim, uint64_t a, uint64_t b, uint32_t type,
                    uint64_t offset, size_t data) {
    put_head(s, 3, 1, 0);
    put_tensor(s, "t", ndim, (uint64_t[]){a, b, b, b, b}, type, offset);
    put_pad(s, 32);
    for (size_t i = 0; i < data; i++) tni_str_putc(s, 0);
}

static void test_bad_tensors(void) {
    const uint32_t f32 = TNI_GGUF_F32;
    REFUSED("tensor \"t\" at byte 33 has 5 dimensions; at most 4", put_one(s, 5, 1, 1, f32, 0, 4));
    REFUSED("has 4294967295 dimensions", put_head(s, 3, 1, 0); put_text(s, "t");
            put(s, UINT32_MAX, 4); put(s, 0, 12));
    REFUSED("dimension 1 of tensor \"t\" is 0;", put_one(s, 2, 8, 0, f32, 0, 4));
    REFUSED("dimension 0 of tensor \"t\" is 9223372036854775808",
            put_one(s, 1, 1ull << 63, 0, f32, 0, 4));
    REFUSED("is too big: 4294967296 x 4294967296 x 1 x 1 values",
            put_one(s, 2, 1ull << 32, 1ull << 32, f32, 0, 4));
    REFUSED("is too big", put_one(s, 4, 1ull << 32, 1ull << 31, TNI_GGUF_Q4_0, 0, 4));
    REFUSED("is too big", put_one(s, 1, 1ull << 62, 0, f32, 0, 4));
    REFUSED("has the unknown type 4", put_one(s, 1, 32, 0, 4, 0, 256));
    REFUSED("has the unknown type 43", put_one(s, 1, 32, 0, 43, 0, 256));
    REFUSED("has the unknown type 4294967295", put_one(s, 1, 32, 0, UINT32_MAX, 0, 256));
    REFUSED("rows of tensor \"t\" have 48 values, not a multiple of Q4_0's block of 32",
            put_one(s, 2, 48, 2, TNI_GGUF_Q4_0, 0, 256));
    REFUSED("rows of tensor \"t\" have 1 values, not a multiple of Q6_K",
            put_one(s, 0, 1, 1, TNI_GGUF_Q6_K, 0, 256));
    REFUSED("has the offset 16, not a multiple of the alignment 32",
            put_one(s, 1, 4, 0, f32, 16, 64));
    REFUSED("tensor \"t\" needs 20 bytes at offset 0 of the data, which has 19",
            put_one(s, 1, 5, 0, f32, 0, 19));
    REFUSED("needs 4 bytes at offset 32 of the data, which has 32",
            put_one(s, 1, 1, 0, f32, 32, 32));
    REFUSED("at offset 18446744073709551584 of the data", put_one(s, 1, 8, 0, f32, -32ull, 64));
    REFUSED("of the data, which has 0; the file is cut", put_one(s, 1, 1, 0, f32, 0, 0); s->n -= 7);
    REFUSED("name of a tensor at byte 24 has 0 bytes", put_head(s, 3, 1, 0);
            put_tensor(s, "", 1, (uint64_t[]){1}, f32, 0); put(s, 0, 8));
    REFUSED("name of a tensor at byte 24 has 256 bytes; 1 to 255", put_head(s, 3, 1, 0);
            put(s, 256, 8); for (int i = 0; i < 256; i++) put(s, 't', 1); put(s, 0, 16));
}

static void put_two(tni_str *s, const char *a, const char *b, uint64_t at, uint64_t bt) {
    put_head(s, 3, 2, 0);
    put_tensor(s, a, 1, (uint64_t[]){16}, TNI_GGUF_F32, at);
    put_tensor(s, b, 1, (uint64_t[]){16}, TNI_GGUF_F32, bt);
    put_pad(s, 32);
    for (int i = 0; i < 160; i++) tni_str_putc(s, 0);
}

static void put_aligned(tni_str *s, uint32_t kind, uint64_t v, size_t n) {
    put_head(s, 3, 1, 1);
    put_key(s, "general.alignment", kind, v, n);
    put_tensor(s, "t", 1, (uint64_t[]){1}, TNI_GGUF_F32, 0);
    put_pad(s, 32);
    put(s, 0, 8);
}

/* Neighbours touch but do not overlap, in either order. */
static void test_neighbours(void) {
    for (uint64_t first = 0; first <= 64; first += 64) {
        tni_str s = {0};
        tni_gguf *g;
        char *block;
        put_two(&s, "a", "b", first, 64 - first);
        if (ok(!open_exact(&s, s.n, &g, &block), "two tensors side by side: %s", tni_error()))
            is_i64((const char *)tni_gguf_tensor_at(g, 1)->data -
                       (const char *)tni_gguf_tensor_at(g, 0)->data,
                   64 - 2 * (int64_t)first, "where they should be");
        tni_gguf_free(g);
        free(block);
        tni_str_free(&s);
    }
}

static void test_bad_layout(void) {
    REFUSED("there are two tensors named \"t\"", put_two(s, "t", "t", 0, 64));
    REFUSED("tensors \"a\" (offset 0, 64 bytes) and \"b\" (offset 32) overlap",
            put_two(s, "a", "b", 0, 32));
    REFUSED("tensors \"b\" (offset 32, 64 bytes) and \"a\" (offset 64) overlap",
            put_two(s, "a", "b", 64, 32));
    REFUSED("overlap", put_two(s, "a", "b", 0, 0));
    REFUSED("\"general.alignment\" is 0; powers of two", put_aligned(s, U32, 0, 4));
    REFUSED("\"general.alignment\" is 48; powers of two", put_aligned(s, U32, 48, 4));
    REFUSED("\"general.alignment\" is 4294967296;", put_aligned(s, U64, 1ull << 32, 8));
    REFUSED("\"general.alignment\" is -32;", put_aligned(s, I8, -32ull, 1));
    REFUSED("\"general.alignment\" is not a whole number", put_aligned(s, F32, 0x42000000, 4));
    REFUSED("needs 4 bytes at offset 0 of the data, which has 0", put_aligned(s, U32, 1u << 31, 4));
    REFUSED("part 2 of a model split into 3 files; join them", put_head(s, 3, 0, 2);
            put_key(s, "split.no", U16, 1, 2); put_key(s, "split.count", U16, 3, 2));
    tni_str s = {0};
    tni_gguf *g;
    char *block;
    put_aligned(&s, U64, 1, 8);
    is_i64(open_exact(&s, s.n, &g, &block), 0, "alignment 1 of another integer type");
    ok((const char *)tni_gguf_tensor_at(g, 0)->data == block + 24 + 37 + 33, "is kept to");
    tni_gguf_free(g);
    free(block);
    tni_str_free(&s);
}

/* ---- every cut, every changed byte, every failing allocation ---- */

static void test_cuts(void) {
    tni_str s = {0};
    put_good(&s, 3);
    int opened = 0, left = 0;
    int64_t live = tni_alloc_live();
    for (size_t n = 0; n < s.n; n++) {
        tni_gguf *g;
        char *block;
        opened += !open_exact(&s, n, &g, &block);
        left += tni_alloc_live() != live;
        tni_gguf_free(g);
        free(block);
    }
    is_i64(opened, 0, "no file cut short opens (%zu cuts)", s.n);
    is_i64(left, 0, "and none leaves memory behind");
    tni_str_free(&s);
}

static void touch(const tni_gguf *g) {
    float f[64];
    uint64_t sum = 0;
    for (size_t i = 0; i < tni_gguf_tensor_count(g); i++) {
        const tni_gguf_tensor *t = tni_gguf_tensor_at(g, i);
        const uint8_t *p = t->data;
        for (size_t k = 0; k < t->bytes; k++) sum += p[k];
        int64_t n = t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        if (n <= 64) tni_gguf_dequant(t->type, t->data, n, f);
    }
    volatile uint64_t sink = sum;
    (void)sink;
}

static void test_flips(void) {
    tni_str s = {0};
    put_good(&s, 3);
    int opened = 0, left = 0;
    int64_t live = tni_alloc_live();
    for (size_t i = 0; i < s.n; i++)
        for (int bit = 0; bit < 8; bit++) {
            tni_gguf *g;
            char *block;
            s.v[i] ^= (char)(1 << bit);
            if (!open_exact(&s, s.n, &g, &block)) touch(g), opened++;
            s.v[i] ^= (char)(1 << bit);
            tni_gguf_free(g);
            left += tni_alloc_live() != live;
            free(block);
        }
    ok(opened > 100, "%d of %zu files with a changed bit open and are safe", opened, s.n * 8);
    is_i64(left, 0, "none leaves memory behind");
    tni_str_free(&s);
}

static void test_memory(void) {
    tni_str s = {0};
    put_good(&s, 3);
    put_pad(&s, 1 << 20);
    char path[] = "/tmp/tenon-gguf-XXXXXX";
    close(mkstemp(path));
    is_i64(tni_file_write(path, s.v, s.n), 0, "a file");
    for (int from_file = 0; from_file < 2; from_file++) {
        int64_t live = tni_alloc_live(), n = 1;
        int status = TN_EMEMORY, clean = 1;
        for (; status && n < 1000; n++) {
            tni_gguf *g = NULL;
            tni_fail_alloc_at(n);
            status = from_file ? tni_gguf_open(path, &g) : tni_gguf_open_mem(s.v, s.n, &g);
            tni_fail_alloc_at(0);
            clean &= status ? status == TN_EMEMORY && !g && *tni_error() : !!g;
            tni_gguf_free(g);
            clean &= tni_alloc_live() == live;
        }
        ok(!status && n > 5, "opens once %" PRId64 " allocations work", n - 1);
        ok(clean, "each failure is reported and leaves nothing");
    }
    unlink(path);
    tni_str_free(&s);
}

/* A header of many pieces, from memory and from a file; values before, in and after the array. */
static void test_pieces(void) {
    enum { WORDS = 20000 };
    tni_str s = {0};
    char path[] = "/tmp/tenon-gguf-XXXXXX", word[16];
    put_head(&s, 3, 1, 3);
    put_key(&s, "before", U32, 0x01020304, 4);
    put_array(&s, "words", STRING, WORDS);
    for (int i = 0; i < WORDS; i++) {
        snprintf(word, sizeof word, "word%d", i);
        put_text(&s, word);
    }
    put_key_text(&s, "after", "words");
    put_tensor(&s, "t", 1, (uint64_t[]){1}, TNI_GGUF_F32, 0);
    put_pad(&s, 32);
    put(&s, 0x3f800000, 4);
    tni_bytes *t = malloc(WORDS * sizeof *t);
    close(mkstemp(path));
    is_i64(tni_file_write(path, s.v, s.n), 0, "a file of %zu bytes", s.n);
    for (int from_file = 0; from_file < 2; from_file++) {
        tni_gguf *g;
        int64_t v = 0;
        int status = from_file ? tni_gguf_open(path, &g) : tni_gguf_open_mem(s.v, s.n, &g), bad = 0;
        if (!ok(!status, "opens: %s", tni_error())) continue;
        ok(tni_gguf_i64(g, "before", &v) && v == 0x01020304, "what comes before");
        is_str(tni_gguf_str(g, "after"), "words", "what comes after");
        is_i64(tni_gguf_array_strings(g, "words", t, WORDS), 0, "the words");
        for (int i = 0; i < WORDS; i++) {
            int n = snprintf(word, sizeof word, "word%d", i);
            bad += t[i].n != (size_t)n || memcmp(t[i].s, word, t[i].n);
        }
        is_i64(bad, 0, "each as written");
        ok(*(const float *)tni_gguf_tensor_at(g, 0)->data == 1, "the tensor");
        tni_gguf_free(g);
    }
    unlink(path);
    free(t);
    tni_str_free(&s);
}

/* A huge count must cost neither memory nor time: what is asked for stays near the file's size. */
static void test_appetite(void) {
    tni_str s = {0};
    put_head(&s, 3, 1000, 70000);
    put_pad(&s, 1 << 20);
    tni_gguf *g;
    int64_t before = tni_alloc_count();
    is_i64(tni_gguf_open_mem(s.v, s.n, &g), TN_EFORMAT, "counts that fit, keys that do not");
    ok(tni_alloc_count() - before < 10, "are given up at the first key");
    tni_str_free(&s);
}

/* A sparse file of 3 GiB that says it is one array. */
static void test_sparse(void) {
    tni_str s = {0};
    tni_gguf *g;
    char path[] = "/tmp/tenon-gguf-XXXXXX";
    close(mkstemp(path));
    put_head(&s, 3, 0, 1);
    put_array(&s, "k", U8, 2u << 30);
    is_i64(tni_file_write(path, s.v, s.n), 0, "a header");
    if (sizeof(size_t) < 8 || truncate(path, (off_t)3 << 30))
        skip("no files of 3 GiB here", "a sparse file");
    else {
        is_i64(tni_gguf_open(path, &g), TN_EFORMAT, "a header of 2 GiB is not read");
        ok(strstr(tni_error(),
                  "key \"k\" at byte 49 takes the header beyond the limit of 1024 MiB"),
           "%s", tni_error());
    }
    unlink(path);
    tni_str_free(&s);
}

/* ---- files ---- */

static void test_files(void) {
    tni_str s = {0};
    tni_gguf *g;
    char path[] = "/tmp/tenon-gguf-XXXXXX", want[200];
    close(mkstemp(path));
    put_good(&s, 3);
    is_i64(tni_file_write(path, s.v, s.n), 0, "a file");
    if (ok(!tni_gguf_open(path, &g), "opens: %s", tni_error())) {
        const tni_gguf_tensor *t = tni_gguf_tensor_find(g, "second");
        ok(t && ((const char *)t->data)[35] == 0x5a, "its data");
        is_i64(tni_gguf_verify(g), 0, "it is whole");
        is_i64(truncate(path, 100), 0, "cut it");
        is_i64(tni_gguf_verify(g), TN_EFILE, "noticed: %s", tni_error());
        is_str(tni_gguf_str(g, "s.text"), "Gr\xc3\xbc\xc3\x9f", "metadata is still there");
        snprintf(want, sizeof want, "%s: there is no array \"none\"", path);
        is_i64(tni_gguf_array_i32(g, "none", NULL, 0), TN_EFORMAT, "an error");
        is_str(tni_error(), want, "names the file");
        tni_gguf_free(g);
    }
    is_i64(tni_gguf_open(path, &g), TN_EFORMAT, "the rest does not open");
    ok(!strncmp(tni_error(), path, strlen(path)) &&
           strstr(tni_error(), "29 keys, but 76 bytes are left"),
       "the message: %s", tni_error());
    is_i64(truncate(path, 0), 0, "empty it");
    is_i64(tni_gguf_open(path, &g), TN_EFORMAT, "an empty file: %s", tni_error());
    unlink(path);
    is_i64(tni_gguf_open(path, &g), TN_EFILE, "no file: %s", tni_error());
    is_i64(tni_gguf_open("/tmp", &g), TN_EFILE, "a folder: %s", tni_error());
    tni_str_free(&s);
}

/* A file of the gguf package's own writer (tests/py/reference/make_gguf_corpus.py). */
static void test_writer(void) {
    const char *root = getenv("TENON_TEST_SOURCE");
    char path[4096];
    tni_gguf *g;
    int64_t v;
    double d;
    bool b;
    float f[12];
    int32_t kinds[4];
    tni_bytes t[4];
    snprintf(path, sizeof path, "%s/tests/fuzz/corpus/gguf/ok-writer-metadata", root ? root : ".");
    if (!ok(!tni_gguf_open(path, &g), "the gguf package's file opens: %s", tni_error())) return;
    is_str(tni_gguf_str(g, "general.architecture"), "llama", "architecture");
    is_str(tni_gguf_str(g, "v.string"),
           "Gr\xc3\xbc\xc3\x9f"
           "e",
           "text");
    ok(tni_gguf_i64(g, "v.i8", &v) && v == -100, "i8");
    ok(tni_gguf_i64(g, "v.i64", &v) && v == -((int64_t)1 << 62), "i64");
    ok(!tni_gguf_i64(g, "v.u64", &v) && tni_gguf_f64(g, "v.u64", &d) && d == 0x1p63, "u64");
    ok(tni_gguf_f64(g, "v.f32", &d) && d == (double)0.1f, "f32");
    ok(tni_gguf_bool(g, "v.bool", &b) && b, "bool");
    ok(!tni_gguf_array_strings(g, "tokenizer.ggml.tokens", t, 4) && t[2].n == 3 &&
           !memcmp(t[2].s,
                   "\xc4\xa0"
                   "b",
                   3),
       "strings");
    ok(!tni_gguf_array_i32(g, "tokenizer.ggml.token_type", kinds, 4) && kinds[0] == 3, "integers");
    ok(!tni_gguf_array_f32(g, "tokenizer.ggml.scores", f, 4) && f[2] == -2.25f, "floats");
    const tni_gguf_tensor *w = tni_gguf_tensor_find(g, "w");
    ok(w && w->dims[0] == 4 && w->dims[1] == 3 && !tni_gguf_dequant(w->type, w->data, 12, f) &&
           f[11] == 11,
       "a 3 x 4 matrix");
    w = tni_gguf_tensor_find(g, "h");
    ok(w && w->type == TNI_GGUF_F16 && !tni_gguf_dequant(w->type, w->data, 6, f) && f[5] == 5,
       "six half floats");
    tni_gguf_free(g);
}

int main(void) {
    test_writer();
    test_widen();
    test_widen_bad();
    test_affine();
    test_affine_edge();
    test_good();
    test_bad_head();
    test_bad_keys();
    test_bad_arrays();
    test_bad_tensors();
    test_neighbours();
    test_bad_layout();
    test_cuts();
    test_flips();
    test_memory();
    test_pieces();
    test_appetite();
    test_sparse();
    test_files();
    return tap_done();
}
