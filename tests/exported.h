/* What tests of exported functions share: two files in a folder of their own, results compared bit
 * for bit, bytes tried as a file. */
#ifndef TESTS_EXPORTED_H
#define TESTS_EXPORTED_H

#include "base/alloc.h"
#include "base/err.h"
#include "base/mmap.h"
#include "tap.h"
#include "trans/export.h"
#include "values.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64], path[128], other[128];

/* Bit for bit, and of one shape, dtype and weakness. */
static inline bool same(tn_array *a, tn_array *b) {
    return same_bytes(a, b) && !((a->flags ^ b->flags) & TNI_A_WEAK);
}

static inline char *contents(const char *file, size_t *n) {
    char *text = NULL;
    if (tni_file_read(file, (size_t)1 << 30, &text, n)) diag("%s", tn_error());
    return text;
}

static inline bool same_files(const char *a, const char *b) {
    size_t n = 0, m = 0;
    char *x = contents(a, &n), *y = contents(b, &m);
    bool equal = x && y && n == m && !memcmp(x, y, n);
    tni_free(x), tni_free(y);
    return equal;
}

static inline bool says(const char *a, const char *b) {
    bool both = strstr(tn_error(), a) && strstr(tn_error(), b);
    if (!both) diag("it says: %s", tn_error());
    return both;
}

/* ---- damage ---- */

static inline void put_file(const char *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f)) diag("cannot write %s", path);
}

/* The checksums of what a file says now: for changes that are to be found without them. */
static inline void mend(char *bytes, size_t size) {
    uint64_t n[2], sum[2];
    memcpy(n, bytes + 16, sizeof n);
    if (n[0] > size - EX_START || n[1] > size - EX_START - n[0]) return;
    sum[0] = tni_ex_checksum(bytes + EX_START, n[0], 0);
    sum[1] = tni_ex_checksum(bytes + EX_START + n[0], n[1], 0);
    memcpy(bytes + 32, sum, sizeof sum);
}

/* 0 refused, with a sentence that names the file; 1 read, called and run; -1 otherwise. */
static inline int try_bytes(const char *bytes, size_t n) {
    int result = -1;
    put_file(bytes, n);
    TN_SCOPE {
        tn_array *in[4], *y[4];
        tn_imported *f = tn_import(path);
        if (!f) {
            result = strstr(tn_error(), path) && tni_error_code() == TN_EFORMAT ? 0 : -1;
            if (result) diag("%d: %s", tni_error_code(), tn_error());
            break;
        }
        result = 1;
        for (int t = 0; t < tn_imported_traces(f) && tn_imported_results(f) <= 4; t++) {
            int n_in = tn_imported_arguments(f, t), small = n_in <= 4;
            for (int i = 0; i < n_in && small; i++) {
                tn_dtype d = TN_F32;
                tn_ints shape = tn_imported_argument(f, t, i, &d);
                int64_t sizes[TN_MAX_NDIM];
                for (int k = 0; k < shape.n; k++) sizes[k] = shape.v[k] < 0 ? 3 : shape.v[k];
                in[i] = tn_zeros((tn_ints){sizes, shape.n}, d);
                small = tn_size(in[i]) < 10000;
            }
            if (!small || tn_imported_call((tn_list){in, n_in}, y, tn_imported_results(f), f))
                continue;
            for (int k = 0; k < tn_imported_results(f); k++) small = small && tn_size(y[k]) < 10000;
            if (small) (void)!tn_eval((tn_list){y, tn_imported_results(f)});
        }
        tn_imported_free(f);
    }
    return result;
}

/* Changes of a file whose checksums are right again: how many were refused. */
static inline int try_mended(const char *bytes, size_t n, int *silent) {
    int refused = 0;
    char *b = tni_alloc(n);
    for (size_t i = 0; i < n && i < 1500; i++)
        for (int flip = 0; flip < 6; flip++) {
            memcpy(b, bytes, n);
            b[i] = (char)(flip < 4 ? b[i] ^ 1 << (2 * flip) : flip == 4 ? -1 : 0x7f);
            mend(b, n);
            int r = try_bytes(b, n);
            *silent += r < 0, refused += !r;
        }
    tni_free(b);
    return refused;
}

/* Value and gradient of an imported function. */
static inline int imported_grad(tn_list in, tn_array **out, int n_out, void *f) {
    (void)n_out;
    return tn_value_and_grad_of(tn_imported_call, f, in, NULL, 1, 1, &out[0], &out[1]);
}

static inline bool begin(void) {
    snprintf(dir, sizeof dir, "/dev/shm/tenon-export-XXXXXX"); /* thousands of files, each synced */
    if (!mkdtemp(dir)) snprintf(dir, sizeof dir, "/tmp/tenon-export-XXXXXX");
    if (strstr(dir, "XXXXXX") && !mkdtemp(dir)) return false;
    snprintf(path, sizeof path, "%s/f.tenon", dir);
    snprintf(other, sizeof other, "%s/g.tenon", dir);
    return true;
}

static inline int end(void) {
    unlink(path), unlink(other), rmdir(dir);
    return tap_done();
}

#endif
