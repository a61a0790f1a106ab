/* Reading a GGUF header. Layout (little-endian): "GGUF", u32 version, u64 tensor count, u64 key
 * count, the keys (string name, u32 kind, value), the tensors (string name, u32 ndim, u64 dims,
 * u32 type, u64 offset), padding to general.alignment, tensor data. A string is u64 length, bytes.
 *
 * The header is copied out of the file in doubling pieces while it is parsed, and only the copy is
 * ever looked at: a file that is cut or rewritten meanwhile cannot change what was checked. The
 * copy holds at most twice the header, and no count in the file sizes an allocation before the
 * bytes it stands for are known to exist; so memory stays in proportion to the file. */
#include "io/gguf.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/mmap.h"
#include "base/vec.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GGUF_FIRST_PIECE = 4096,   /* small, so that tests and fuzzers meet the growth */
    GGUF_MAX_HEADER = 1 << 30, /* a sparse file of any size costs its maker nothing */
    GGUF_MAX_NAME = 255,       /* ggml stops at 63; diffusion models have longer ones */
    GGUF_MAX_KEY = 65535,      /* the specification's limit */
    GGUF_MAX_NESTING = 4,      /* arrays of arrays; nobody writes even two levels */
    GGUF_MIN_KEY = 14,         /* bytes: length, one letter, kind, one value byte */
    GGUF_MIN_TENSOR = 25,      /* bytes: length, one letter, ndim, no dims, type, offset */
    GGUF_SHOWN = 64,           /* letters of a name that a message repeats */
    GGUF_STRING = 8,
    GGUF_ARRAY = 9,
    GGUF_BOOL = 7,
};

/* Bytes of one value of each kind; 0: string or array. */
static const uint8_t gguf_kind_size[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
static const char *const gguf_kind_name[13] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};

typedef struct gguf_key {
    size_t name, name_n; /* where in `meta` */
    uint32_t kind, item; /* item: an array's element kind */
    size_t at;           /* where the value (an array's elements) begins */
    size_t n;            /* bytes of a string, elements of an array */
} gguf_key;

typedef struct gguf_record {
    tni_gguf_tensor t;
    size_t name, name_n, at; /* at: where the record begins, for messages */
    uint64_t offset;         /* from the start of the data */
} gguf_record;

struct tni_gguf {
    tni_file file; /* fd -1 for memory */
    const uint8_t *data;
    size_t size;
    char *meta; /* copy of data[0, meta_n) */
    size_t meta_n;
    size_t head; /* bytes up to the end of the keys */
    TNI_VEC(gguf_key) keys;
    TNI_VEC(gguf_record) tensors;
    tni_map key_map, tensor_map;
};

typedef struct gguf_reader {
    tni_gguf *g;
    size_t pos;
    uint32_t version;
    uint64_t n_tensors, n_keys;
    char where[GGUF_SHOWN + 24]; /* 'key "x"', for messages */
} gguf_reader;

static const char *gguf_path(const tni_gguf *g) {
    return g->file.path ? g->file.path : "GGUF data";
}

/* ---- bytes ---- */

/* Makes sure that n more bytes exist and are in `meta`. */
static int gguf_need(gguf_reader *r, uint64_t n) {
    tni_gguf *g = r->g;
    if (n > g->size - r->pos)
        return tni_fail(TN_EFORMAT,
                        "%s: %s at byte %zu needs %" PRIu64 " bytes, but the file ends at byte %zu",
                        gguf_path(g), r->where, r->pos, n, g->size);
    size_t end = r->pos + (size_t)n;
    if (end <= g->meta_n) return 0;
    if (end > GGUF_MAX_HEADER)
        return tni_fail(TN_EFORMAT,
                        "%s: %s at byte %zu takes the header beyond the limit of %d MiB",
                        gguf_path(g), r->where, r->pos, GGUF_MAX_HEADER >> 20);
    size_t want = g->meta_n > g->size / 2 ? g->size : g->meta_n * 2;
    want = want < GGUF_FIRST_PIECE ? GGUF_FIRST_PIECE : want;
    want = want < end ? end : want > g->size ? g->size : want;
    char *grown = tni_realloc(g->meta, want);
    if (!grown) return tni_fail_memory(want, "a GGUF header");
    g->meta = grown;
    int status = 0;
    if (g->file.path)
        status = tni_file_copy(&g->file, g->meta_n, grown + g->meta_n, want - g->meta_n);
    else
        memcpy(grown + g->meta_n, g->data + g->meta_n, want - g->meta_n);
    if (!status) g->meta_n = want;
    return status;
}

static uint64_t gguf_load(const char *p, size_t n) {
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) v |= (uint64_t)(uint8_t)p[i] << (8 * i);
    return v;
}

static int gguf_read(gguf_reader *r, size_t n, uint64_t *v) {
    int status = gguf_need(r, n);
    if (status) return status;
    *v = gguf_load(r->g->meta + r->pos, n);
    r->pos += n;
    return 0;
}

static int gguf_read_u32(gguf_reader *r, uint32_t *v) {
    uint64_t wide = 0;
    int status = gguf_read(r, 4, &wide);
    *v = (uint32_t)wide;
    return status;
}

static int gguf_read_string(gguf_reader *r, size_t *at, size_t *n) {
    uint64_t length;
    int status = gguf_read(r, 8, &length);
    if (!status) status = gguf_need(r, length);
    if (status) return status;
    *at = r->pos, *n = (size_t)length;
    r->pos += (size_t)length;
    return 0;
}

/* A name in a message: cut, and without bytes that could steer a terminal. */
static const char *gguf_show(const tni_gguf *g, size_t at, size_t n, char out[GGUF_SHOWN + 4]) {
    size_t k = 0;
    for (; k < n && k < GGUF_SHOWN; k++) {
        char c = g->meta[at + k];
        out[k] = c >= ' ' && c <= '~' ? c : '?';
    }
    memcpy(out + k, n > k ? "..." : "", n > k ? 4 : 1);
    return out;
}

static void gguf_at(gguf_reader *r, const char *what, size_t at, size_t n) {
    char shown[GGUF_SHOWN + 4];
    snprintf(r->where, sizeof r->where, "%s \"%s\"", what, gguf_show(r->g, at, n, shown));
}

/* Reads a name of 1 to `limit` bytes without NUL, so that it can be used as a C string. */
static int gguf_read_name(gguf_reader *r, const char *what, size_t limit, size_t *at, size_t *n) {
    size_t begin = r->pos;
    int status = gguf_read_string(r, at, n);
    if (status) return status;
    gguf_at(r, what, *at, *n);
    if (*n < 1 || *n > limit)
        return tni_fail(TN_EFORMAT,
                        "%s: the name of a %s at byte %zu has %zu bytes; 1 to %zu are allowed",
                        gguf_path(r->g), what, begin, *n, limit);
    if (memchr(r->g->meta + *at, 0, *n))
        return tni_fail(TN_EFORMAT, "%s: the name of %s at byte %zu contains a NUL byte",
                        gguf_path(r->g), r->where, begin);
    return 0;
}

/* ---- keys ---- */

static int gguf_check_bools(gguf_reader *r, size_t at, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)r->g->meta[at + i] > 1)
            return tni_fail(TN_EFORMAT, "%s: %s at byte %zu is neither true nor false but %d",
                            gguf_path(r->g), r->where, at + i, (uint8_t)r->g->meta[at + i]);
    return 0;
}

static int gguf_read_kind(gguf_reader *r, uint32_t *kind) {
    size_t begin = r->pos;
    int status = gguf_read_u32(r, kind);
    if (status || *kind <= 12) return status;
    return tni_fail(TN_EFORMAT, "%s: %s at byte %zu has the value type %u; 0 to 12 are known",
                    gguf_path(r->g), r->where, begin, *kind);
}

/* Passes over the elements of an array, after its kind and count. Each has at least a byte, so the
 * work is bounded by the file's size. Nested arrays are checked but cannot be asked for. */
static int gguf_skip_items(gguf_reader *r, uint32_t kind, uint64_t n, int depth) {
    size_t size = gguf_kind_size[kind], least = size ? size : kind == GGUF_STRING ? 8 : 12;
    if (n > (r->g->size - r->pos) / least)
        return tni_fail(TN_EFORMAT,
                        "%s: %s says it has %" PRIu64 " values of type %s, but %zu bytes are left",
                        gguf_path(r->g), r->where, n, gguf_kind_name[kind], r->g->size - r->pos);
    if (size) {
        int status = gguf_need(r, n * size);
        if (!status && kind == GGUF_BOOL) status = gguf_check_bools(r, r->pos, (size_t)n);
        r->pos += status ? 0 : (size_t)n * size;
        return status;
    }
    if (kind == GGUF_ARRAY && depth >= GGUF_MAX_NESTING)
        return tni_fail(TN_EFORMAT, "%s: %s at byte %zu nests arrays deeper than %d levels",
                        gguf_path(r->g), r->where, r->pos, GGUF_MAX_NESTING);
    int status = 0;
    for (uint64_t i = 0; i < n && !status; i++) {
        size_t at, length;
        uint32_t inner;
        uint64_t count;
        if (kind == GGUF_STRING) {
            status = gguf_read_string(r, &at, &length);
            continue;
        }
        status = gguf_read_kind(r, &inner);
        if (!status) status = gguf_read(r, 8, &count);
        if (!status) status = gguf_skip_items(r, inner, count, depth + 1);
    }
    return status;
}

static int gguf_read_value(gguf_reader *r, gguf_key *k) {
    uint64_t n = 1;
    if (k->kind == GGUF_STRING) return gguf_read_string(r, &k->at, &k->n);
    k->item = k->kind;
    int status = 0;
    if (k->kind == GGUF_ARRAY) {
        status = gguf_read_kind(r, &k->item);
        if (!status) status = gguf_read(r, 8, &n);
    }
    k->at = r->pos, k->n = (size_t)n;
    return status ? status : gguf_skip_items(r, k->item, n, 1);
}

static int gguf_read_keys(gguf_reader *r) {
    tni_gguf *g = r->g;
    for (uint64_t i = 0; i < r->n_keys; i++) {
        gguf_key k = {0};
        strcpy(r->where, "a key");
        int status = gguf_read_name(r, "key", GGUF_MAX_KEY, &k.name, &k.name_n);
        if (!status) status = gguf_read_kind(r, &k.kind);
        if (!status) status = gguf_read_value(r, &k);
        if (status) return status;
        if (tni_vec_push(&g->keys, k)) return tni_fail_memory(sizeof k, "the keys of a GGUF file");
    }
    return 0;
}

/* ---- tensors ---- */

static int gguf_read_dims(gguf_reader *r, gguf_record *t) {
    uint32_t ndim;
    size_t begin = r->pos;
    int status = gguf_read_u32(r, &ndim);
    if (status) return status;
    if (ndim > 4)
        return tni_fail(TN_EFORMAT, "%s: %s at byte %zu has %u dimensions; at most 4 are possible",
                        gguf_path(r->g), r->where, begin, ndim);
    t->t.ndim = (int)ndim;
    for (int i = 0; i < 4; i++) t->t.dims[i] = 1;
    for (uint32_t i = 0; i < ndim; i++) {
        uint64_t d;
        if ((status = gguf_read(r, 8, &d))) return status;
        if (!d || d > INT64_MAX)
            return tni_fail(TN_EFORMAT,
                            "%s: dimension %u of %s is %" PRIu64 "; 1 to 2^63-1 are possible",
                            gguf_path(r->g), i, r->where, d);
        t->t.dims[i] = (int64_t)d;
    }
    return 0;
}

/* Sets t.bytes from dims and type. */
static int gguf_size_tensor(gguf_reader *r, gguf_record *t) {
    size_t block, bytes;
    int64_t blocks, n = 1;
    if (!tni_gguf_type_block(t->t.type, &block, &bytes))
        return tni_fail(TN_EFORMAT, "%s: %s at byte %zu has the unknown type %u", gguf_path(r->g),
                        r->where, t->at, (uint32_t)t->t.type);
    bool too_big = false;
    for (int i = 0; i < 4; i++) too_big |= __builtin_mul_overflow(n, t->t.dims[i], &n);
    if (!too_big && t->t.dims[0] % (int64_t)block)
        return tni_fail(
            TN_EFORMAT,
            "%s: rows of %s have %" PRId64 " values, not a multiple of %s's block of %zu",
            gguf_path(r->g), r->where, t->t.dims[0], tni_gguf_type_name(t->t.type), block);
    blocks = n / (int64_t)block;
    if (too_big || __builtin_mul_overflow((size_t)blocks, bytes, &t->t.bytes))
        return tni_fail(TN_EFORMAT,
                        "%s: %s at byte %zu is too big: %" PRId64 " x %" PRId64 " x %" PRId64
                        " x %" PRId64 " values",
                        gguf_path(r->g), r->where, t->at, t->t.dims[0], t->t.dims[1], t->t.dims[2],
                        t->t.dims[3]);
    return 0;
}

static int gguf_read_tensors(gguf_reader *r) {
    tni_gguf *g = r->g;
    for (uint64_t i = 0; i < r->n_tensors; i++) {
        gguf_record t = {.at = r->pos};
        uint32_t type = 0;
        strcpy(r->where, "a tensor");
        int status = gguf_read_name(r, "tensor", GGUF_MAX_NAME, &t.name, &t.name_n);
        if (!status) status = gguf_read_dims(r, &t);
        if (!status) status = gguf_read_u32(r, &type);
        t.t.type = (int)type;
        if (!status) status = gguf_read(r, 8, &t.offset);
        if (!status) status = gguf_size_tensor(r, &t);
        if (status) return status;
        if (tni_vec_push(&g->tensors, t))
            return tni_fail_memory(sizeof t, "the tensors of a GGUF file");
    }
    return 0;
}

/* ---- names ---- */

/* Moves n bytes at meta[at], which follow their length, one to the left and ends them with a NUL:
 * the length's last byte is given up, and the number is known by now. */
static const char *gguf_terminate(tni_gguf *g, size_t at, size_t n) {
    char *s = g->meta + at - 1;
    memmove(s, s + 1, n);
    s[n] = 0;
    return s;
}

/* Puts a name into a map. A second one of the same name is an error: programs that read the first
 * and programs that read the last would see different files. */
static int gguf_index(gguf_reader *r, tni_map *m, const char *what, const char *name, size_t n,
                      size_t i) {
    char shown[GGUF_SHOWN + 4];
    if (tni_map_get(m, name, n, NULL))
        return tni_fail(TN_EFORMAT, "%s: there are two %ss named \"%s\"", gguf_path(r->g), what,
                        gguf_show(r->g, (size_t)(name - r->g->meta), n, shown));
    return tni_map_put(m, name, n, (int64_t)i) ? tni_fail_memory(64, "the names of a GGUF file")
                                               : 0;
}

static int gguf_index_all(gguf_reader *r) {
    tni_gguf *g = r->g;
    int status = 0;
    for (size_t i = 0; i < g->keys.n && !status; i++) {
        gguf_key *k = &g->keys.v[i];
        const char *name = gguf_terminate(g, k->name, k->name_n);
        k->name--;
        if (k->kind == GGUF_STRING) gguf_terminate(g, k->at, k->n), k->at--;
        status = gguf_index(r, &g->key_map, "key", name, k->name_n, i);
    }
    for (size_t i = 0; i < g->tensors.n && !status; i++) {
        gguf_record *t = &g->tensors.v[i];
        t->t.name = gguf_terminate(g, t->name, t->name_n);
        t->name--;
        status = gguf_index(r, &g->tensor_map, "tensor", t->t.name, t->name_n, i);
    }
    return status;
}

/* ---- where the data lies ---- */

static int gguf_alignment(gguf_reader *r, size_t *alignment) {
    int64_t v = 32, i;
    const char *key = "general.alignment";
    if (tni_map_get(&r->g->key_map, key, strlen(key), &i) && !tni_gguf_i64(r->g, key, &v))
        return tni_fail(TN_EFORMAT, "%s: key \"%s\" is not a whole number", gguf_path(r->g), key);
    if (v < 1 || v > (int64_t)1 << 31 || (v & (v - 1)))
        return tni_fail(TN_EFORMAT,
                        "%s: key \"%s\" is %" PRId64 "; powers of two up to 2^31 are possible",
                        gguf_path(r->g), key, v);
    *alignment = (size_t)v;
    return 0;
}

static int gguf_compare(const void *a, const void *b) {
    const gguf_record *x = *(gguf_record *const *)a, *y = *(gguf_record *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* No two tensors may share bytes: one buffer seen as two weights is never what a writer meant. */
static int gguf_check_overlap(gguf_reader *r) {
    tni_gguf *g = r->g;
    bool sorted = true;
    for (size_t i = 1; i < g->tensors.n && sorted; i++)
        sorted = g->tensors.v[i].offset >= g->tensors.v[i - 1].offset + g->tensors.v[i - 1].t.bytes;
    if (sorted) return 0;
    gguf_record **order = tni_alloc_array(g->tensors.n, sizeof *order);
    if (!order) return tni_fail_memory(g->tensors.n * sizeof *order, "the tensors of a GGUF file");
    for (size_t i = 0; i < g->tensors.n; i++) order[i] = &g->tensors.v[i];
    qsort(order, g->tensors.n, sizeof *order, gguf_compare);
    int status = 0;
    for (size_t i = 1; i < g->tensors.n && !status; i++) {
        const gguf_record *a = order[i - 1], *b = order[i];
        char x[GGUF_SHOWN + 4], y[GGUF_SHOWN + 4];
        if (b->offset < a->offset + a->t.bytes)
            status =
                tni_fail(TN_EFORMAT,
                         "%s: tensors \"%s\" (offset %" PRIu64 ", %zu bytes) and \"%s\" (offset "
                         "%" PRIu64 ") overlap",
                         gguf_path(g), gguf_show(g, a->name, a->name_n, x), a->offset, a->t.bytes,
                         gguf_show(g, b->name, b->name_n, y), b->offset);
    }
    tni_free(order);
    return status;
}

static int gguf_place(gguf_reader *r) {
    tni_gguf *g = r->g;
    size_t alignment = 1;
    int status = gguf_alignment(r, &alignment);
    if (status || !g->tensors.n) return status;
    size_t pad = (alignment - r->pos % alignment) % alignment;
    size_t begin = pad > g->size - r->pos ? g->size : r->pos + pad, room = g->size - begin;
    for (size_t i = 0; i < g->tensors.n; i++) {
        gguf_record *t = &g->tensors.v[i];
        gguf_at(r, "tensor", t->name, t->name_n);
        if (t->offset % alignment)
            return tni_fail(TN_EFORMAT,
                            "%s: %s at byte %zu has the offset %" PRIu64
                            ", not a multiple of the alignment %zu",
                            gguf_path(g), r->where, t->at, t->offset, alignment);
        if (t->offset > room || t->t.bytes > room - t->offset)
            return tni_fail(TN_EFORMAT,
                            "%s: %s needs %zu bytes at offset %" PRIu64
                            " of the data, which has %zu; the file is cut or damaged",
                            gguf_path(g), r->where, t->t.bytes, t->offset, room);
        t->t.data = g->data + begin + t->offset;
    }
    return gguf_check_overlap(r);
}

/* ---- opening ---- */

static int gguf_read_head(gguf_reader *r) {
    const char *path = gguf_path(r->g);
    uint32_t magic = 0;
    int status = gguf_read_u32(r, &magic);
    if (!status && magic != 0x46554747) /* "GGUF" */
        return tni_fail(TN_EFORMAT, "%s: not a GGUF file (it does not begin with \"GGUF\")", path);
    if (!status) status = gguf_read_u32(r, &r->version);
    if (status) return status;
    if (r->version && !(r->version & 0xffff))
        return tni_fail(TN_EFORMAT, "%s: a big-endian GGUF file; only little-endian ones are read",
                        path);
    if (r->version != 2 && r->version != 3)
        return tni_fail(TN_EFORMAT, "%s: GGUF version %u; versions 2 and 3 are read", path,
                        r->version);
    status = gguf_read(r, 8, &r->n_tensors);
    if (!status) status = gguf_read(r, 8, &r->n_keys);
    if (status) return status;
    size_t left = r->g->size - r->pos;
    if (r->n_keys > left / GGUF_MIN_KEY)
        return tni_fail(TN_EFORMAT, "%s: the header says %" PRIu64 " keys, but %zu bytes are left",
                        path, r->n_keys, left);
    if (r->n_tensors > left / GGUF_MIN_TENSOR)
        return tni_fail(TN_EFORMAT,
                        "%s: the header says %" PRIu64 " tensors, but %zu bytes are left", path,
                        r->n_tensors, left);
    return 0;
}

static int gguf_check_split(const tni_gguf *g) {
    int64_t n, no = 0;
    if (!tni_gguf_i64(g, "split.count", &n) || n <= 1) return 0;
    tni_gguf_i64(g, "split.no", &no);
    return tni_fail(TN_EFORMAT,
                    "%s: part %" PRId64 " of a model split into %" PRId64
                    " files; join them into one file first (llama-gguf-split --merge)",
                    gguf_path(g), no < INT64_MAX ? no + 1 : no, n);
}

static int gguf_parse(tni_gguf *g) {
    gguf_reader r = {.g = g, .where = "the header"};
    int status = gguf_read_head(&r);
    if (!status) status = gguf_read_keys(&r);
    g->head = r.pos;
    if (!status) status = gguf_read_tensors(&r);
    if (!status) status = gguf_index_all(&r);
    if (!status) status = gguf_check_split(g);
    return status ? status : gguf_place(&r);
}

static int gguf_finish(tni_gguf *g, tni_gguf **out) {
    int status = gguf_parse(g);
    if (status)
        tni_gguf_free(g);
    else
        *out = g;
    return status;
}

int tni_gguf_open(const char *path, tni_gguf **out) {
    *out = NULL;
    tni_gguf *g = tni_calloc(1, sizeof *g);
    if (!g) return tni_fail_memory(sizeof *g, "a GGUF file");
    int status = tni_file_map(path, &g->file);
    if (status) {
        tni_free(g);
        return status;
    }
    g->data = g->file.data, g->size = g->file.size;
    return gguf_finish(g, out);
}

int tni_gguf_open_mem(const void *bytes, size_t n, tni_gguf **out) {
    *out = NULL;
    tni_gguf *g = tni_calloc(1, sizeof *g);
    if (!g) return tni_fail_memory(sizeof *g, "a GGUF file");
    g->file.fd = g->file.guard = -1;
    g->data = bytes, g->size = n;
    return gguf_finish(g, out);
}

void tni_gguf_free(tni_gguf *g) {
    if (!g) return;
    tni_map_free(&g->key_map);
    tni_map_free(&g->tensor_map);
    tni_vec_free(&g->keys);
    tni_vec_free(&g->tensors);
    tni_free(g->meta);
    tni_file_close(&g->file);
    tni_free(g);
}

int tni_gguf_verify(const tni_gguf *g) { return g->file.path ? tni_file_check(&g->file) : 0; }

void tni_gguf_forget(const tni_gguf *g, const void *data, size_t bytes) {
    if (g->file.path) tni_file_forget(&g->file, data, bytes);
}

tni_bytes tni_gguf_head(const tni_gguf *g) { return (tni_bytes){(const char *)g->data, g->head}; }

/* ---- answers ---- */

static const gguf_key *gguf_find(const tni_gguf *g, const char *key) {
    int64_t i;
    return tni_map_get(&g->key_map, key, strlen(key), &i) ? &g->keys.v[i] : NULL;
}

static double gguf_load_float(const char *p, size_t size) {
    uint64_t bits = gguf_load(p, size);
    uint32_t half = (uint32_t)bits;
    double d;
    float f;
    memcpy(&f, &half, sizeof f);
    memcpy(&d, &bits, sizeof d);
    return size == 4 ? (double)f : d;
}

static bool gguf_is_int(uint32_t kind) {
    return kind < 6 || kind == 10 || kind == 11; /* u8 to i32, u64, i64 */
}

static bool gguf_is_float(uint32_t kind) { return kind == 6 || kind == 12; }

/* Value i of a key whose elements are integers; false when above i64. */
static bool gguf_int_at(const tni_gguf *g, const gguf_key *k, size_t i, int64_t *out) {
    size_t size = gguf_kind_size[k->item];
    uint64_t v = gguf_load(g->meta + k->at + i * size, size);
    if (k->item == 10 && v > INT64_MAX) return false;
    bool is_signed = k->item == 1 || k->item == 3 || k->item == 5;
    uint64_t sign = (uint64_t)1 << (8 * size - 1);
    if (is_signed && (v & sign)) v |= ~(sign - 1);
    memcpy(out, &v, sizeof *out);
    return true;
}

static bool gguf_number_at(const tni_gguf *g, const gguf_key *k, size_t i, double *out) {
    size_t size = gguf_kind_size[k->item];
    const char *p = g->meta + k->at + i * size;
    int64_t v;
    if (gguf_is_float(k->item)) return *out = gguf_load_float(p, size), true;
    if (!gguf_is_int(k->item)) return false;
    *out = gguf_int_at(g, k, i, &v) ? (double)v : (double)gguf_load(p, size);
    return true;
}

const char *tni_gguf_str(const tni_gguf *g, const char *key) {
    const gguf_key *k = gguf_find(g, key);
    if (!k || k->kind != GGUF_STRING) return NULL;
    const char *s = g->meta + k->at;
    return memchr(s, 0, k->n) ? NULL : s;
}

bool tni_gguf_i64(const tni_gguf *g, const char *key, int64_t *out) {
    const gguf_key *k = gguf_find(g, key);
    return k && gguf_is_int(k->kind) && gguf_int_at(g, k, 0, out);
}

bool tni_gguf_f64(const tni_gguf *g, const char *key, double *out) {
    const gguf_key *k = gguf_find(g, key);
    return k && k->kind != GGUF_STRING && k->kind != GGUF_ARRAY && gguf_number_at(g, k, 0, out);
}

bool tni_gguf_bool(const tni_gguf *g, const char *key, bool *out) {
    const gguf_key *k = gguf_find(g, key);
    if (!k || k->kind != GGUF_BOOL) return false;
    *out = g->meta[k->at];
    return true;
}

bool tni_gguf_array_len(const tni_gguf *g, const char *key, size_t *n) {
    const gguf_key *k = gguf_find(g, key);
    if (!k || k->kind != GGUF_ARRAY) return false;
    *n = k->n;
    return true;
}

static int gguf_array(const tni_gguf *g, const char *key, size_t n, const gguf_key **k) {
    *k = gguf_find(g, key);
    if (!*k || (*k)->kind != GGUF_ARRAY)
        return tni_fail(TN_EFORMAT, "%s: there is no array \"%s\"", gguf_path(g), key);
    if (n > (*k)->n)
        return tni_fail(TN_EFORMAT, "%s: array \"%s\" has %zu values; %zu are needed", gguf_path(g),
                        key, (*k)->n, n);
    return 0;
}

static int gguf_array_kind(const tni_gguf *g, const char *key, const gguf_key *k,
                           const char *wanted) {
    return tni_fail(TN_EFORMAT, "%s: array \"%s\" holds values of type %s; %s are needed",
                    gguf_path(g), key, gguf_kind_name[k->item], wanted);
}

int tni_gguf_array_strings(const tni_gguf *g, const char *key, tni_bytes *out, size_t n) {
    const gguf_key *k;
    int status = gguf_array(g, key, n, &k);
    if (status) return status;
    if (k->item != GGUF_STRING) return gguf_array_kind(g, key, k, "strings");
    const char *p = g->meta + k->at;
    for (size_t i = 0; i < n; i++) {
        out[i] = (tni_bytes){p + 8, (size_t)gguf_load(p, 8)};
        p = out[i].s + out[i].n;
    }
    return 0;
}

int tni_gguf_array_i32(const tni_gguf *g, const char *key, int32_t *out, size_t n) {
    const gguf_key *k;
    int status = gguf_array(g, key, n, &k);
    if (status) return status;
    if (!gguf_is_int(k->item)) return gguf_array_kind(g, key, k, "whole numbers");
    for (size_t i = 0; i < n; i++) {
        int64_t v;
        if (!gguf_int_at(g, k, i, &v) || v < INT32_MIN || v > INT32_MAX)
            return tni_fail(TN_EFORMAT, "%s: value %zu of array \"%s\" does not fit in 32 bits",
                            gguf_path(g), i, key);
        out[i] = (int32_t)v;
    }
    return 0;
}

int tni_gguf_array_f32(const tni_gguf *g, const char *key, float *out, size_t n) {
    const gguf_key *k;
    int status = gguf_array(g, key, n, &k);
    if (status) return status;
    if (!gguf_is_int(k->item) && !gguf_is_float(k->item))
        return gguf_array_kind(g, key, k, "numbers");
    for (size_t i = 0; i < n; i++) {
        double v = 0;
        gguf_number_at(g, k, i, &v);
        out[i] = (float)v;
    }
    return 0;
}

size_t tni_gguf_key_count(const tni_gguf *g) { return g->keys.n; }

const char *tni_gguf_key_at(const tni_gguf *g, size_t i) {
    return i < g->keys.n ? g->meta + g->keys.v[i].name : NULL;
}

const tni_gguf_tensor *tni_gguf_tensor_find(const tni_gguf *g, const char *name) {
    int64_t i;
    return tni_map_get(&g->tensor_map, name, strlen(name), &i) ? &g->tensors.v[i].t : NULL;
}

size_t tni_gguf_tensor_count(const tni_gguf *g) { return g->tensors.n; }

const tni_gguf_tensor *tni_gguf_tensor_at(const tni_gguf *g, size_t i) {
    return i < g->tensors.n ? &g->tensors.v[i].t : NULL;
}
