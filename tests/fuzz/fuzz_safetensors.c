/* Any bytes as a safetensors file: what opens must keep its promises (inside the file, no byte
 * twice, every byte once, names found) and survive being written and read again. Bytes that begin
 * like JSON are also tried as a header up to the first NUL and data after it (a mutation that
 * changes the header's length seldom hits the number in front), and as the index of a folder with
 * two shards. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/alloc.h"
#include "base/mmap.h"
#include "fuzz.h"
#include "io/safetensors.h"
#include "tenon/status.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* In memory where the system offers that: the writer syncs every file. */
static char fuzz_dir[40];

static const char *fuzz_path(const char *name) {
    static char path[80];
    snprintf(path, sizeof path, "%s/%s", fuzz_dir, name);
    return path;
}

static void fuzz_clean(void) {
    static const char *const names[] = {"1", "2", "file", "model.safetensors.index.json"};
    for (int i = 0; i < 4; i++) unlink(fuzz_path(names[i]));
    rmdir(fuzz_dir);
}

static void fuzz_begin(void) {
    static const uint8_t byte[2];
    static const tni_st_tensor a = {"a", TNI_ST_U8, 0, {0}, byte, 1},
                               b = {"b", TNI_ST_F16, 0, {0}, byte, 2};
    if (*fuzz_dir) return;
    strcpy(fuzz_dir, "/dev/shm/tenon-fuzz-XXXXXX");
    if (!mkdtemp(fuzz_dir)) {
        strcpy(fuzz_dir, "/tmp/tenon-fuzz-XXXXXX");
        MUST(mkdtemp(fuzz_dir));
    }
    atexit(fuzz_clean);
    MUST(!tni_st_write(fuzz_path("1"), &a, 1, NULL, 0));
    MUST(!tni_st_write(fuzz_path("2"), &b, 1, NULL, 0));
}

static size_t fuzz_check(const tni_st *s, const uint8_t *data, size_t size) {
    size_t sum = 0;
    unsigned bytes = 0;
    for (size_t i = 0; i < tni_st_count(s); i++) {
        const tni_st_tensor *t = tni_st_at(s, i);
        const uint8_t *p = t->data;
        int64_t want;
        MUST(tni_st_find(s, t->name) == t && !tni_st_size(t, &want) && (uint64_t)want == t->bytes);
        MUST(!data || (p >= data && t->bytes <= size && p <= data + size - t->bytes));
        for (size_t k = 0; k < t->bytes; k++) bytes += p[k];
        sum += t->bytes;
    }
    for (size_t i = 0; i < tni_st_metadata_count(s); i++) {
        tni_st_pair pair = tni_st_metadata_at(s, i);
        MUST(tni_st_metadata(s, pair.key) == pair.value);
    }
    return sum + (bytes & 0); /* the bytes were read */
}

static void fuzz_same(const tni_st *a, const tni_st *b) {
    MUST(tni_st_count(a) == tni_st_count(b));
    MUST(tni_st_metadata_count(a) == tni_st_metadata_count(b));
    for (size_t i = 0; i < tni_st_count(a); i++) {
        const tni_st_tensor *x = tni_st_at(a, i), *y = tni_st_find(b, x->name);
        MUST(y && y->dtype == x->dtype && y->ndim == x->ndim && y->bytes == x->bytes);
        MUST(!memcmp(x->shape, y->shape, sizeof x->shape) && !memcmp(x->data, y->data, x->bytes));
    }
    for (size_t i = 0; i < tni_st_metadata_count(a); i++) {
        tni_st_pair pair = tni_st_metadata_at(a, i);
        const char *value = tni_st_metadata(b, pair.key);
        MUST(value && !strcmp(value, pair.value));
    }
}

static void fuzz_rewrite(const tni_st *s) {
    size_t n = tni_st_count(s), k = tni_st_metadata_count(s);
    tni_st_tensor *t = calloc(n + 1, sizeof *t);
    tni_st_pair *meta = calloc(k + 1, sizeof *meta);
    MUST(t && meta);
    for (size_t i = 0; i < n; i++) t[i] = *tni_st_at(s, i);
    for (size_t i = 0; i < k; i++) meta[i] = tni_st_metadata_at(s, i);
    MUST(!tni_st_write(fuzz_path("file"), t, n, meta, k));
    tni_st *again;
    MUST(!tni_st_open(fuzz_path("file"), &again));
    fuzz_same(s, again);
    MUST(!tni_st_verify(again));
    tni_st_free(again);
    free(t);
    free(meta);
}

static void fuzz_index(const uint8_t *data, size_t size) {
    tni_st *s;
    MUST(!tni_file_write(fuzz_path("model.safetensors.index.json"), data, size));
    int code = tni_st_open_dir(fuzz_dir, &s);
    MUST(!code || (!s && (code == TN_EFORMAT || code == TN_EFILE)));
    if (!code) MUST(fuzz_check(s, NULL, 0) <= 3 && tni_st_count(s) > 0);
    tni_st_free(s);
}

static void fuzz_file(const uint8_t *data, size_t size) {
    tni_st *s;
    int code = tni_st_open_mem(data, size, &s);
    if (code) {
        MUST(code == TN_EFORMAT && !s);
        return;
    }
    size_t header = 0;
    for (int i = 7; i >= 0; i--) header = header << 8 | data[i];
    MUST(fuzz_check(s, data, size) == size - 8 - header);
    fuzz_rewrite(s);
    tni_st_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_begin();
    fuzz_file(data, size);
    if (size && data[0] == '{') {
        fuzz_with_header(data, size, fuzz_file);
        fuzz_index(data, size);
    }
    return 0;
}
