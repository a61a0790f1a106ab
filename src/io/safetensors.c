/* The safetensors reader. The header is copied before it is parsed (the file is somebody else's
 * and may change meanwhile), and the names point into that copy: besides it there is one record a
 * tensor, so the memory is bounded by a small multiple of the header. Checks follow the reference
 * implementation (safetensors/src/tensor.rs): header up to 100 MB, shape times dtype equal to the
 * range, ranges in a row without overlap or hole up to the file's end; in addition names may
 * occur once, as the format demands and JSON parsers often overlook. */
#include "io/safetensors.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/mmap.h"
#include "base/vec.h"
#include "io/st_json.h"
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ST_HEADER_MAX = 100000000, ST_LENGTH = 8 };

typedef struct st_shard {
    tni_file file; /* path is NULL for borrowed memory */
    char *header;  /* the copy that names point into */
    size_t end;    /* its tensors come before this index */
} st_shard;

struct tni_st {
    TNI_VEC(st_shard) shards;
    TNI_VEC(tni_st_tensor) tensors;
    TNI_VEC(tni_st_pair) meta; /* of the first shard */
    tni_map names, keys;       /* indices into tensors, meta */
};

/* One file being read. */
typedef struct st_reader {
    tni_st *s;
    tni_json j;
    const char *file; /* for messages */
    const uint8_t *data;
    size_t n_data, data_at; /* bytes of data; their place in the file */
    size_t first;           /* index of the file's first tensor */
    bool want_meta;
} st_reader;

/* ---- dtypes ---- */

static const struct {
    const char *name;
    int bits;
} st_dtypes[] = {
#define X(name, bits) {#name, bits},
    TNI_ST_DTYPE_MAP(X)
#undef X
};

static bool st_dtype_known(tni_st_dtype d) { return (unsigned)d < TNI_ST_DTYPES; }

const char *tni_st_dtype_name(tni_st_dtype d) {
    return st_dtype_known(d) ? st_dtypes[d].name : "?";
}
int tni_st_dtype_bits(tni_st_dtype d) { return st_dtype_known(d) ? st_dtypes[d].bits : 0; }

/* ---- one tensor ---- */

static int st_fail(size_t where, const st_reader *r, const char *name, const char *fmt, ...)
    TN_PRINTF(4, 5);

static int st_fail(size_t where, const st_reader *r, const char *name, const char *fmt, ...) {
    char text[512], shown[TNI_SHOWN];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return tni_fail(TN_EFORMAT, "%s, byte %zu: tensor \"%s\" %s", r->file, where,
                    tni_json_show(name, shown), text);
}

static int st_dtype(st_reader *r, tni_st_tensor *t) {
    char shown[TNI_SHOWN];
    tni_bytes s;
    size_t where = tni_json_offset(&r->j);
    int status = tni_json_string(&r->j, &s);
    if (status) return status;
    for (int d = 0; d < TNI_ST_DTYPES; d++)
        if (!strcmp(s.s, st_dtypes[d].name)) return t->dtype = (tni_st_dtype)d, 0;
    return st_fail(where, r, t->name, "has the dtype \"%s\", which is not known",
                   tni_json_show(s.s, shown));
}

static int st_shape(st_reader *r, tni_st_tensor *t) {
    bool more;
    int status = tni_json_enter(&r->j, '[');
    t->ndim = 0;
    while (!status && !(status = tni_json_more(&r->j, ']', &more)) && more) {
        if (t->ndim == TNI_ST_MAX_DIMS)
            return st_fail(tni_json_offset(&r->j), r, t->name, "has more than %d dimensions",
                           TNI_ST_MAX_DIMS);
        status = tni_json_integer(&r->j, &t->shape[t->ndim++]);
    }
    return status;
}

static int st_offsets(st_reader *r, const tni_st_tensor *t, int64_t at[2]) {
    bool more;
    int n = 0, status = tni_json_enter(&r->j, '[');
    size_t where = tni_json_offset(&r->j);
    while (!status && !(status = tni_json_more(&r->j, ']', &more)) && more) {
        if (n == 2) return st_fail(where, r, t->name, "has more than two data_offsets");
        status = tni_json_integer(&r->j, &at[n++]);
    }
    if (status || n == 2) return status;
    return st_fail(where, r, t->name, "has %d data_offsets instead of two", n);
}

/* Zeros are left out of the product, so that strides over the other dimensions cannot overflow
 * later. */
const char *tni_st_size(const tni_st_tensor *t, int64_t *bytes) {
    int64_t count = 1, bits = tni_st_dtype_bits(t->dtype);
    bool empty = false;
    if (!bits) return "has a dtype that is not known";
    if (t->ndim < 0 || t->ndim > TNI_ST_MAX_DIMS) return "has more than 16 dimensions";
    for (int i = 0; i < t->ndim; i++) {
        if (t->shape[i] < 0) return "has a negative dimension";
        if (!t->shape[i])
            empty = true;
        else if (__builtin_mul_overflow(count, t->shape[i], &count))
            return "has a shape with more than 2^63-1 elements";
    }
    if (__builtin_mul_overflow(count, bits, &bits)) return "has a shape with more than 2^63-1 bits";
    if (!empty && bits % 8) return "does not fill whole bytes";
    *bytes = empty ? 0 : bits / 8;
    return NULL;
}

static int st_place(st_reader *r, size_t where, tni_st_tensor *t, const int64_t at[2]) {
    int64_t bytes = 0;
    long long begin = at[0], end = at[1];
    const char *wrong = tni_st_size(t, &bytes);
    if (wrong) return st_fail(where, r, t->name, "%s", wrong);
    if (begin > end)
        return st_fail(where, r, t->name, "begins at %lld, after its end %lld", begin, end);
    if (end - begin != bytes)
        return st_fail(where, r, t->name, "needs %lld bytes by its shape, but has [%lld, %lld)",
                       (long long)bytes, begin, end);
    if ((uint64_t)end > r->n_data)
        return st_fail(where, r, t->name,
                       "ends at byte %lld of the data, but the file has only %zu: it is cut short",
                       end, r->n_data);
    t->data = r->data + begin;
    t->bytes = (size_t)bytes;
    return 0;
}

static int st_fields(st_reader *r, size_t where, tni_st_tensor *t) {
    static const char *const fields[] = {"dtype", "shape", "data_offsets"};
    int64_t at[2] = {0};
    bool seen[4] = {false}, more;
    int status = tni_json_enter(&r->j, '{');
    while (!status && !(status = tni_json_more(&r->j, '}', &more)) && more) {
        tni_bytes key;
        int f = 0;
        if ((status = tni_json_key(&r->j, &key))) break;
        while (f < 3 && strcmp(key.s, fields[f])) f++;
        if (f < 3 && seen[f]) return st_fail(where, r, t->name, "has two fields \"%s\"", fields[f]);
        seen[f] = true;
        status = f == 0   ? st_dtype(r, t)
                 : f == 1 ? st_shape(r, t)
                 : f == 2 ? st_offsets(r, t, at)
                          : tni_json_skip(&r->j);
    }
    for (int f = 0; f < 3 && !status; f++)
        if (!seen[f]) status = st_fail(where, r, t->name, "has no field \"%s\"", fields[f]);
    return status ? status : st_place(r, where, t, at);
}

static int st_tensor(st_reader *r, size_t where, tni_bytes name) {
    tni_st *s = r->s;
    int64_t other;
    if (tni_map_get(&s->names, name.s, name.n, &other)) {
        if ((size_t)other >= r->first) return st_fail(where, r, name.s, "occurs twice");
        size_t k = 0;
        while ((size_t)other >= s->shards.v[k].end) k++;
        return st_fail(where, r, name.s, "is also in %s", s->shards.v[k].file.path);
    }
    tni_st_tensor t = {.name = name.s};
    char shown[TNI_SHOWN];
    int status = st_fields(r, where, &t);
    if (status == TN_EFORMAT && r->j.failed)
        return tni_fail(status, "%s, in tensor \"%s\"", tni_error(), tni_json_show(name.s, shown));
    if (status) return status;
    if (tni_vec_push(&s->tensors, t) ||
        tni_map_put(&s->names, name.s, name.n, (int64_t)s->tensors.n - 1))
        return tni_fail_memory(s->tensors.n * sizeof t, "a table of tensors");
    return 0;
}

/* ---- one header ---- */

static int st_meta_pairs(st_reader *r, tni_map *keys) {
    char shown[TNI_SHOWN];
    bool more;
    int status = tni_json_enter(&r->j, '{');
    while (!status && !(status = tni_json_more(&r->j, '}', &more)) && more) {
        tni_bytes key, value;
        size_t n = r->s->meta.n;
        if ((status = tni_json_key(&r->j, &key))) break;
        if (tni_map_get(keys, key.s, key.n, NULL))
            return tni_json_fail(&r->j, "the key \"%s\" occurs twice in __metadata__",
                                 tni_json_show(key.s, shown));
        if ((status = tni_json_string(&r->j, &value))) break;
        tni_st_pair pair = {key.s, value.s};
        if (tni_map_put(keys, key.s, key.n, (int64_t)n) ||
            (r->want_meta && tni_vec_push(&r->s->meta, pair)))
            return tni_fail_memory(n * sizeof pair, "a table of metadata");
    }
    return status;
}

/* The metadata of later shards is checked and dropped. MLX writes null for none. */
static int st_meta(st_reader *r) {
    tni_map unused = {0};
    if (tni_json_null(&r->j)) return 0;
    int status = st_meta_pairs(r, r->want_meta ? &r->s->keys : &unused);
    tni_map_free(&unused);
    return status;
}

static int st_entries(st_reader *r) {
    bool more, seen_meta = false;
    int status = tni_json_enter(&r->j, '{');
    while (!status && !(status = tni_json_more(&r->j, '}', &more)) && more) {
        tni_bytes key;
        size_t where = tni_json_offset(&r->j);
        if ((status = tni_json_key(&r->j, &key))) break;
        if (strcmp(key.s, "__metadata__")) {
            status = st_tensor(r, where, key);
            continue;
        }
        if (seen_meta) return tni_json_fail(&r->j, "__metadata__ occurs twice");
        seen_meta = true;
        status = st_meta(r);
    }
    return status ? status : tni_json_finish(&r->j);
}

typedef struct st_range {
    size_t begin, end, index;
} st_range;

static int st_by_begin(const void *a, const void *b) {
    const st_range *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int st_check_ranges(const st_reader *r, const st_range *v, size_t n) {
    char a[TNI_SHOWN], b[TNI_SHOWN];
    const tni_st_tensor *t = r->s->tensors.v;
    size_t at = 0;
    for (size_t i = 0; i < n; at = v[i++].end) {
        const char *name = tni_json_show(t[v[i].index].name, a);
        if (v[i].begin > at)
            return tni_fail(TN_EFORMAT,
                            "%s, byte %zu: %zu bytes before tensor \"%s\" belong to no tensor",
                            r->file, r->data_at + at, v[i].begin - at, name);
        if (v[i].begin < at)
            return tni_fail(TN_EFORMAT, "%s, byte %zu: tensors \"%s\" and \"%s\" overlap", r->file,
                            r->data_at + v[i].begin, tni_json_show(t[v[i - 1].index].name, b),
                            name);
    }
    if (at == r->n_data) return 0;
    return tni_fail(TN_EFORMAT, "%s, byte %zu: the last %zu bytes belong to no tensor", r->file,
                    r->data_at + at, r->n_data - at);
}

static int st_coverage(const st_reader *r) {
    size_t n = r->s->tensors.n - r->first;
    st_range *v = tni_alloc_array(n, sizeof *v);
    if (!v) return tni_fail_memory(n * sizeof *v, "checking a file's tensors");
    for (size_t i = 0; i < n; i++) {
        const tni_st_tensor *t = &r->s->tensors.v[r->first + i];
        size_t begin = (size_t)((const uint8_t *)t->data - r->data);
        v[i] = (st_range){begin, begin + t->bytes, r->first + i};
    }
    qsort(v, n, sizeof *v, st_by_begin);
    int status = st_check_ranges(r, v, n);
    tni_free(v);
    return status;
}

/* Not through the mapping: a file that is cut just now gives an error. */
static int st_bytes(const st_shard *sh, size_t at, void *to, size_t n) {
    if (sh->file.path) return tni_file_copy(&sh->file, at, to, n);
    memcpy(to, sh->file.data + at, n);
    return 0;
}

/* The header's length, checked against the file. What is often there instead of one is the
 * pointer file of a repository whose large files were not fetched. */
static int st_length(const st_shard *sh, const char *file, size_t *n) {
    static const char lfs[] = "version https://git-lfs";
    char begin[sizeof lfs - 1] = {0};
    size_t size = sh->file.size;
    uint64_t v = 0;
    if (size < ST_LENGTH)
        return tni_fail(TN_EFORMAT, "%s: %zu bytes are too few for a safetensors file", file, size);
    int status = st_bytes(sh, 0, begin, size < sizeof begin ? size : sizeof begin);
    if (status) return status;
    if (!memcmp(begin, lfs, sizeof begin))
        return tni_fail(TN_EFORMAT, "%s: a Git LFS pointer, not the safetensors file itself", file);
    for (int i = 0; i < ST_LENGTH; i++) v |= (uint64_t)(unsigned char)begin[i] << 8 * i;
    *n = (size_t)v;
    if (v <= ST_HEADER_MAX && v <= size - ST_LENGTH) return 0;
    return tni_fail(TN_EFORMAT,
                    "%s, byte 0: not a safetensors file, or cut short: a header of %llu "
                    "bytes is announced, %s",
                    file, (unsigned long long)v,
                    v > ST_HEADER_MAX ? "at most 100000000 are allowed" : "the file has fewer");
}

/* Reads the shard that is last in the list. */
static int st_read(tni_st *s, const char *file) {
    st_shard *sh = &s->shards.v[s->shards.n - 1];
    size_t n = 0;
    int status = st_length(sh, file, &n);
    if (status) return status;
    if (!(sh->header = tni_alloc(n))) return tni_fail_memory(n, "a safetensors header");
    if ((status = st_bytes(sh, ST_LENGTH, sh->header, n))) return status;
    st_reader r = {.s = s, .file = file, .first = s->tensors.n, .want_meta = s->shards.n == 1};
    r.data_at = ST_LENGTH + n;
    r.data = sh->file.data + r.data_at;
    r.n_data = sh->file.size - r.data_at;
    tni_json_init(&r.j, file, ST_LENGTH, sh->header, n);
    status = st_entries(&r);
    if (!status) status = st_coverage(&r);
    sh->end = s->tensors.n;
    return status;
}

/* ---- opening ---- */

static int st_add(tni_st *s, const char *path) {
    st_shard sh = {0};
    int status = tni_file_map(path, &sh.file);
    if (status) return status;
    if (tni_vec_push(&s->shards, sh)) {
        tni_file_close(&sh.file);
        return tni_fail_memory(sizeof sh, "a table of files");
    }
    return st_read(s, path);
}

static int st_new(tni_st **out) {
    *out = tni_calloc(1, sizeof **out);
    return *out ? 0 : tni_fail_memory(sizeof **out, "a safetensors file");
}

static int st_done(int status, tni_st *s, tni_st **out) {
    *out = status ? NULL : s;
    if (status) tni_st_free(s);
    return status;
}

int tni_st_open(const char *path, tni_st **out) {
    tni_st *s;
    int status = st_new(&s);
    if (!status) status = st_add(s, path);
    return st_done(status, s, out);
}

int tni_st_open_mem(const void *bytes, size_t n, tni_st **out) {
    tni_st *s;
    st_shard sh = {.file = {.data = bytes, .size = n, .fd = -1}};
    int status = st_new(&s);
    if (!status && tni_vec_push(&s->shards, sh))
        status = tni_fail_memory(sizeof sh, "a table of files");
    if (!status) status = st_read(s, "memory");
    return st_done(status, s, out);
}

void tni_st_free(tni_st *s) {
    if (!s) return;
    for (size_t i = 0; i < s->shards.n; i++) {
        if (s->shards.v[i].file.path) tni_file_close(&s->shards.v[i].file);
        tni_free(s->shards.v[i].header);
    }
    tni_vec_free(&s->shards);
    tni_vec_free(&s->tensors);
    tni_vec_free(&s->meta);
    tni_map_free(&s->names);
    tni_map_free(&s->keys);
    tni_free(s);
}

int tni_st_verify(const tni_st *s) {
    int status = 0;
    for (size_t i = 0; i < s->shards.n && !status; i++)
        if (s->shards.v[i].file.path) status = tni_file_check(&s->shards.v[i].file);
    return status;
}

/* ---- folders ---- */

typedef TNI_VEC(const char *) st_names;

/* One entry of weight_map. */
typedef struct st_entry {
    tni_bytes tensor, shard;
    size_t where;
} st_entry;

typedef struct st_index {
    tni_json j;
    TNI_VEC(st_entry) entries;
    st_names shards; /* each once */
    tni_map tensors, numbers;
} st_index;

static int st_by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A name that stays in the folder, is not hidden and can be shown on a terminal. */
static bool st_plain_name(tni_bytes s) {
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.s[i] < 0x20 || s.s[i] == 0x7f) return false;
    return s.n && s.n < 256 && s.s[0] != '.' && !strchr(s.s, '/') && !strchr(s.s, '\\');
}

static int st_index_entry(st_index *x) {
    char shown[TNI_SHOWN];
    st_entry e = {.where = tni_json_offset(&x->j)};
    int status = tni_json_key(&x->j, &e.tensor);
    if (!status && tni_map_get(&x->tensors, e.tensor.s, e.tensor.n, NULL))
        return tni_json_fail(&x->j, "the tensor \"%s\" occurs twice in weight_map",
                             tni_json_show(e.tensor.s, shown));
    if (!status) status = tni_json_string(&x->j, &e.shard);
    if (status) return status;
    if (!st_plain_name(e.shard))
        return tni_json_fail(&x->j, "\"%s\" is not the name of a file in this folder",
                             tni_json_show(e.shard.s, shown));
    bool known = tni_map_get(&x->numbers, e.shard.s, e.shard.n, NULL);
    if (tni_vec_push(&x->entries, e) || tni_map_put(&x->tensors, e.tensor.s, e.tensor.n, 0) ||
        tni_map_put(&x->numbers, e.shard.s, e.shard.n, 0) ||
        (!known && tni_vec_push(&x->shards, e.shard.s)))
        return tni_fail_memory(x->entries.n * sizeof e, "an index of shards");
    return 0;
}

static int st_index_parse(st_index *x) {
    bool more, inner, seen = false;
    int status = tni_json_enter(&x->j, '{');
    while (!status && !(status = tni_json_more(&x->j, '}', &more)) && more) {
        tni_bytes key;
        if ((status = tni_json_key(&x->j, &key))) break;
        if (strcmp(key.s, "weight_map")) {
            status = tni_json_skip(&x->j);
            continue;
        }
        if (seen) return tni_json_fail(&x->j, "weight_map occurs twice");
        seen = true;
        status = tni_json_enter(&x->j, '{');
        while (!status && !(status = tni_json_more(&x->j, '}', &inner)) && inner)
            status = st_index_entry(x);
    }
    if (!status) status = tni_json_finish(&x->j);
    if (status || x->entries.n) return status;
    return tni_json_fail(&x->j, seen ? "weight_map is empty" : "there is no weight_map");
}

static int st_add_all(tni_st *s, const char *dir, const st_names *names) {
    int status = 0;
    for (size_t i = 0; i < names->n && !status; i++) {
        tni_str path = {0};
        if (tni_str_printf(&path, "%s/%s", dir, names->v[i]))
            status = tni_fail_memory(strlen(dir) + strlen(names->v[i]) + 2, "a file name");
        if (!status) status = st_add(s, path.v);
        tni_str_free(&path);
    }
    return status;
}

/* Every tensor of the index is in the file the index says. Tensors that it does not mention stay
 * usable: their place is not in doubt, since no name may occur in two files. */
static int st_index_check(const tni_st *s, st_index *x) {
    char shown[TNI_SHOWN];
    int64_t at, shard = 0;
    for (size_t i = 0; i < x->shards.n; i++)
        if (tni_map_put(&x->numbers, x->shards.v[i], strlen(x->shards.v[i]), (int64_t)i))
            return tni_fail_memory(0, "an index of shards");
    for (size_t i = 0; i < x->entries.n; i++) {
        const st_entry *e = &x->entries.v[i];
        bool found = tni_map_get(&s->names, e->tensor.s, e->tensor.n, &at);
        tni_map_get(&x->numbers, e->shard.s, e->shard.n, &shard);
        size_t begin = shard ? s->shards.v[shard - 1].end : 0;
        if (found && (size_t)at >= begin && (size_t)at < s->shards.v[shard].end) continue;
        return tni_fail(TN_EFORMAT, "%s, byte %zu: the tensor \"%s\" is not in %s", x->j.file,
                        e->where, tni_json_show(e->tensor.s, shown), e->shard.s);
    }
    return 0;
}

static int st_open_index(tni_st *s, const char *dir, const char *path) {
    st_index x = {0};
    char *text;
    size_t n;
    int status = tni_file_read(path, ST_HEADER_MAX, &text, &n);
    if (status) return status;
    tni_json_init(&x.j, path, 0, text, n);
    status = st_index_parse(&x);
    if (!status) {
        qsort(x.shards.v, x.shards.n, sizeof *x.shards.v, st_by_name);
        status = st_add_all(s, dir, &x.shards);
    }
    if (!status) status = st_index_check(s, &x);
    tni_vec_free(&x.entries);
    tni_vec_free(&x.shards);
    tni_map_free(&x.tensors);
    tni_map_free(&x.numbers);
    tni_free(text);
    return status;
}

static int st_list(DIR *d, st_names *names) {
    static const char suffix[] = ".safetensors";
    struct dirent *e;
    while ((e = readdir(d))) {
        size_t n = strlen(e->d_name), k = sizeof suffix - 1;
        if (n <= k || e->d_name[0] == '.' || strcmp(e->d_name + n - k, suffix)) continue;
        char *name = tni_strdup(e->d_name);
        if (!name || tni_vec_push(names, name)) {
            tni_free(name);
            return tni_fail_memory(n, "a list of files");
        }
    }
    return 0;
}

static int st_open_list(tni_st *s, const char *dir) {
    st_names names = {0};
    DIR *d = opendir(dir);
    if (!d) return tni_fail(TN_EFILE, "%s: cannot open: %s", dir, strerror(errno));
    int status = st_list(d, &names);
    closedir(d);
    if (!status && !names.n)
        status = tni_fail(TN_EFILE, "%s: there is no *.safetensors file in this folder", dir);
    if (!status) {
        qsort(names.v, names.n, sizeof *names.v, st_by_name);
        status = st_add_all(s, dir, &names);
    }
    for (size_t i = 0; i < names.n; i++) tni_free((void *)(uintptr_t)names.v[i]);
    tni_vec_free(&names);
    return status;
}

/* A link that leads nowhere counts as there: to go on without it would hide what is wrong. */
static int st_open_any(tni_st *s, const char *dir) {
    struct stat st;
    tni_str one = {0}, index = {0};
    int status = 0;
    if (tni_str_printf(&one, "%s/model.safetensors", dir) ||
        tni_str_printf(&index, "%s/model.safetensors.index.json", dir))
        status = tni_fail_memory(strlen(dir) + 32, "a file name");
    else if (!lstat(one.v, &st))
        status = st_add(s, one.v);
    else if (!lstat(index.v, &st))
        status = st_open_index(s, dir, index.v);
    else
        status = st_open_list(s, dir);
    tni_str_free(&one);
    tni_str_free(&index);
    return status;
}

int tni_st_open_dir(const char *dir, tni_st **out) {
    tni_st *s;
    int status = st_new(&s);
    if (!status) status = st_open_any(s, dir);
    return st_done(status, s, out);
}

/* ---- looking things up ---- */

size_t tni_st_count(const tni_st *s) { return s->tensors.n; }

const tni_st_tensor *tni_st_at(const tni_st *s, size_t i) {
    return i < s->tensors.n ? &s->tensors.v[i] : NULL;
}

const tni_st_tensor *tni_st_find(const tni_st *s, const char *name) {
    int64_t i;
    return tni_map_get(&s->names, name, strlen(name), &i) ? &s->tensors.v[i] : NULL;
}

const char *tni_st_metadata(const tni_st *s, const char *key) {
    int64_t i;
    return tni_map_get(&s->keys, key, strlen(key), &i) ? s->meta.v[i].value : NULL;
}

size_t tni_st_metadata_count(const tni_st *s) { return s->meta.n; }

tni_st_pair tni_st_metadata_at(const tni_st *s, size_t i) {
    return i < s->meta.n ? s->meta.v[i] : (tni_st_pair){NULL, NULL};
}
