/* The safetensors writer. Layout and spelling are those of the reference implementation, so that
 * the same tensors give the same bytes whichever of the two wrote them. Everything is checked
 * before the file is touched, and the data goes from the caller's memory to the file uncopied. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/mmap.h"
#include "io/safetensors.h"
#include "io/st_json.h"
#include <stdlib.h>
#include <string.h>

enum { WRITE_HEADER_MAX = 100000000, WRITE_LENGTH = 8 };

static int write_by_layout(const void *a, const void *b) {
    const tni_st_tensor *x = *(const tni_st_tensor *const *)a,
                        *y = *(const tni_st_tensor *const *)b;
    if (x->dtype != y->dtype) return x->dtype > y->dtype ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int write_by_key(const void *a, const void *b) {
    return strcmp((*(const tni_st_pair *const *)a)->key, (*(const tni_st_pair *const *)b)->key);
}

/* ---- checks ---- */

static bool write_utf8(const char *s) {
    size_t n = strlen(s), at = 0;
    uint32_t cp;
    while (at < n) {
        int len = tni_utf8_decode(s + at, n - at, &cp);
        if (len <= 0) return false;
        at += (size_t)len;
    }
    return true;
}

/* Notes the name in `seen`; two of them would make the file unreadable. */
static int write_check_name(const char *path, const char *name, const char *kind, tni_map *seen) {
    char shown[TNI_SHOWN];
    if (!write_utf8(name))
        return tni_fail(TN_EVALUE, "%s: cannot write: a %s's name is not UTF-8", path, kind);
    if (tni_map_get(seen, name, strlen(name), NULL))
        return tni_fail(TN_EVALUE, "%s: cannot write: two %ss are called \"%s\"", path, kind,
                        tni_json_show(name, shown));
    return tni_map_put(seen, name, strlen(name), 0) ? tni_fail_memory(0, "a table of names") : 0;
}

static int write_check_tensor(const char *path, const tni_st_tensor *t, bool later, tni_map *seen) {
    char shown[TNI_SHOWN];
    int64_t bytes;
    int status = write_check_name(path, t->name, "tensor", seen);
    if (status) return status;
    const char *wrong = tni_st_size(t, &bytes);
    if (!wrong && (uint64_t)bytes != t->bytes) wrong = "has other bytes than its shape needs";
    if (!wrong && bytes && !t->data && !later) wrong = "has no data";
    if (!wrong && !strcmp(t->name, "__metadata__")) wrong = "has a reserved name";
    if (!wrong) return 0;
    return tni_fail(TN_EVALUE, "%s: cannot write: tensor \"%s\" %s", path,
                    tni_json_show(t->name, shown), wrong);
}

static int write_check(const char *path, const tni_st_tensor *t, size_t n, bool later,
                       const tni_st_pair *meta, size_t n_meta) {
    tni_map names = {0}, keys = {0};
    int status = 0;
    int64_t total = 0; /* the same memory may be given many times */
    for (size_t i = 0; i < n && !status; i++) {
        status = write_check_tensor(path, &t[i], later, &names);
        if (!status && __builtin_add_overflow(total, (int64_t)t[i].bytes, &total))
            status = tni_fail(TN_EVALUE, "%s: cannot write: more than 2^63-1 bytes", path);
    }
    for (size_t i = 0; i < n_meta && !status; i++) {
        status = write_check_name(path, meta[i].key, "metadata key", &keys);
        if (!status && !write_utf8(meta[i].value))
            status = tni_fail(TN_EVALUE,
                              "%s: cannot write: the value of a metadata key is not UTF-8", path);
    }
    tni_map_free(&names);
    tni_map_free(&keys);
    return status;
}

/* ---- the header ---- */

/* One character of a JSON string, escaped as short as JSON allows. */
static int write_char(tni_str *s, char c) {
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *k = c ? strchr(from, c) : NULL;
    if (k) return tni_str_printf(s, "\\%c", to[k - from]);
    return (unsigned char)c < 0x20 ? tni_str_printf(s, "\\u%04x", (unsigned)c) : tni_str_putc(s, c);
}

static int write_quoted(tni_str *s, const char *text) {
    int status = tni_str_putc(s, '"');
    for (; *text && !status; text++) status = write_char(s, *text);
    return status ? status : tni_str_putc(s, '"');
}

static int write_meta(tni_str *s, const tni_st_pair *const *meta, size_t n) {
    int status = n ? tni_str_puts(s, "\"__metadata__\":{") : 0;
    for (size_t i = 0; i < n && !status; i++) {
        if (i) status = tni_str_putc(s, ',');
        if (!status) status = write_quoted(s, meta[i]->key);
        if (!status) status = tni_str_putc(s, ':');
        if (!status) status = write_quoted(s, meta[i]->value);
    }
    return status || !n ? status : tni_str_putc(s, '}');
}

static int write_entry(tni_str *s, const tni_st_tensor *t, size_t begin) {
    int status = write_quoted(s, t->name);
    if (!status)
        status = tni_str_printf(s, ":{\"dtype\":\"%s\",\"shape\":[", tni_st_dtype_name(t->dtype));
    for (int i = 0; i < t->ndim && !status; i++)
        status = tni_str_printf(s, "%s%lld", i ? "," : "", (long long)t->shape[i]);
    return status ? status
                  : tni_str_printf(s, "],\"data_offsets\":[%zu,%zu]}", begin, begin + t->bytes);
}

/* The length, the JSON text, spaces up to a multiple of 8. */
static int write_header(tni_str *s, const tni_st_tensor *const *t, size_t n,
                        const tni_st_pair *const *meta, size_t n_meta) {
    size_t at = 0;
    int status = tni_str_append(s, "\0\0\0\0\0\0\0", WRITE_LENGTH);
    if (!status) status = tni_str_putc(s, '{');
    if (!status) status = write_meta(s, meta, n_meta);
    for (size_t i = 0; i < n && !status; at += t[i++]->bytes) {
        if (i || n_meta) status = tni_str_putc(s, ',');
        if (!status) status = write_entry(s, t[i], at);
    }
    if (!status) status = tni_str_putc(s, '}');
    while (!status && s->n % 8) status = tni_str_putc(s, ' ');
    for (int i = 0; i < WRITE_LENGTH && !status; i++)
        s->v[i] = (char)(unsigned char)((uint64_t)(s->n - WRITE_LENGTH) >> 8 * i);
    return status;
}

/* ---- the file ---- */

/* What is put in order, and who has the data that the tensors lack. */
typedef struct write_job {
    const tni_st_tensor **tensors;
    const tni_st_pair **meta;
    tni_str header;
    int (*data)(void *ud, const char *name, const void **out);
    void *ud;
} write_job;

/* The parts of the file: the header and one part a tensor. */
static int write_part(void *ud, size_t i, tni_bytes *out) {
    const write_job *w = ud;
    *out = (tni_bytes){w->header.v, w->header.n};
    if (!i) return 0;
    const tni_st_tensor *t = w->tensors[i - 1];
    const void *data = t->data;
    int status = data || !t->bytes ? 0 : w->data(w->ud, t->name, &data);
    *out = (tni_bytes){data, t->bytes};
    return status;
}

static int write_file(write_job *w, const char *path, const tni_st_tensor *t, size_t n,
                      const tni_st_pair *meta, size_t n_meta) {
    for (size_t i = 0; i < n; i++) w->tensors[i] = &t[i];
    for (size_t i = 0; i < n_meta; i++) w->meta[i] = &meta[i];
    qsort(w->tensors, n, sizeof *w->tensors, write_by_layout);
    qsort(w->meta, n_meta, sizeof *w->meta, write_by_key);
    if (write_header(&w->header, w->tensors, n, w->meta, n_meta))
        return tni_fail_memory(w->header.n, "a safetensors header");
    if (w->header.n - WRITE_LENGTH > WRITE_HEADER_MAX)
        return tni_fail(TN_EVALUE, "%s: cannot write: a header of %zu bytes, the format allows %d",
                        path, w->header.n - WRITE_LENGTH, WRITE_HEADER_MAX);
    return tni_file_write_stream(path, write_part, w, n + 1);
}

int tni_st_write_stream(const char *path, const tni_st_tensor *tensors, size_t n,
                        const tni_st_pair *metadata, size_t n_metadata,
                        int (*data)(void *ud, const char *name, const void **out), void *ud) {
    int status = write_check(path, tensors, n, data != NULL, metadata, n_metadata);
    if (status) return status;
    write_job w = {.tensors = tni_alloc_array(n, sizeof *w.tensors),
                   .meta = tni_alloc_array(n_metadata, sizeof *w.meta),
                   .data = data,
                   .ud = ud};
    if (w.tensors && w.meta)
        status = write_file(&w, path, tensors, n, metadata, n_metadata);
    else
        status = tni_fail_memory(n * sizeof *w.tensors, "writing a safetensors file");
    tni_free((void *)w.tensors);
    tni_free((void *)w.meta);
    tni_str_free(&w.header);
    return status;
}

int tni_st_write(const char *path, const tni_st_tensor *tensors, size_t n,
                 const tni_st_pair *metadata, size_t n_metadata) {
    return tni_st_write_stream(path, tensors, n, metadata, n_metadata, NULL, NULL);
}
