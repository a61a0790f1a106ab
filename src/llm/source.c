/* Files behind one look-up. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/mmap.h"
#include "llm/json.h"
#include "llm/load.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SOURCE_JSON_LIMIT = 16 << 20 };

static int source_config(tni_source *s) {
    char path[4096], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/config.json", s->path);
    if (access(path, F_OK))
        return tni_fail(
            TN_EFILE, "%s: no model: a Hugging Face folder has config.json; of GGUF, name the file",
            s->path);
    int status = tni_file_read(path, SOURCE_JSON_LIMIT, &text, &n);
    if (status) return status;
    status = tni_json_parse(text, n, JSON_REJECT_DUPLICATES, path, &s->config);
    tni_free(text);
    if (status) return status;
    return json_is_object(s->config) ? 0 : tni_fail(TN_EFORMAT, "%s: not a JSON object", path);
}

int tni_source_open(const char *path, tni_source **out) {
    struct stat st;
    tni_source *s = tni_calloc(1, sizeof *s);
    *out = s;
    if (!s || !(s->path = tni_strdup(path))) return tni_fail_memory(sizeof *s, "a model's files");
    if (stat(path, &st))
        return tni_fail(TN_EFILE, "%s: no such file or folder, or it cannot be read", path);
    if (!S_ISDIR(st.st_mode)) {
        return tni_gguf_open(path, &s->gguf);
    }
    int status = source_config(s);
    return status ? status : tni_st_open_dir(path, &s->st);
}

int tni_source_verify(const tni_source *s) {
    return s->gguf ? tni_gguf_verify(s->gguf) : tni_st_verify(s->st);
}

void tni_source_free(tni_source *s) {
    if (!s) return;
    tni_gguf_free(s->gguf);
    tni_st_free(s->st);
    json_decref(s->config);
    tni_free(s->path);
    tni_free(s);
}

/* ---- tensors ---- */

static bool source_find_gguf(const tni_source *s, const char *name, tni_weight *w) {
    const tni_gguf_tensor *t = tni_gguf_tensor_find(s->gguf, name);
    if (!t || t->ndim > 2) return false;
    *w = (tni_weight){
        .name = t->name, .type = t->type, .ndim = t->ndim, .data = t->data, .bytes = t->bytes};
    w->cols = t->ndim ? t->dims[0] : 1, w->rows = t->ndim > 1 ? t->dims[1] : 1;
    return true;
}

static bool source_find_st(const tni_source *s, const char *name, tni_weight *w) {
    const tni_st_tensor *t = tni_st_find(s->st, name);
    if (!t || t->ndim > 2) return false;
    *w = (tni_weight){.name = t->name,
                      .type = (int)t->dtype,
                      .ndim = t->ndim,
                      .data = t->data,
                      .bytes = t->bytes};
    w->cols = t->ndim ? t->shape[t->ndim - 1] : 1, w->rows = t->ndim > 1 ? t->shape[0] : 1;
    return true;
}

bool tni_source_find(const tni_source *s, const char *name, tni_weight *w) {
    return s->gguf ? source_find_gguf(s, name, w) : source_find_st(s, name, w);
}

bool tni_load_is_packed(const tni_weight *w) { return w->type == TNI_ST_U32; }

static int source_st_dtype(int type, tn_dtype *d) {
    switch (type) {
    case TNI_ST_F32:
        return *d = TN_F32, 0;
    case TNI_ST_F16:
        return *d = TN_F16, 0;
    case TNI_ST_BF16:
        return *d = TN_BF16, 0;
    case TNI_ST_F64:
        return *d = TN_F64, 0;
    case TNI_ST_U32:
        return *d = TN_U32, 0;
    default:
        return TN_EDTYPE;
    }
}

static int source_gguf_dtype(int type, tn_dtype *d) {
    switch (type) {
    case TNI_GGUF_F32:
        return *d = TN_F32, 0;
    case TNI_GGUF_F16:
        return *d = TN_F16, 0;
    case TNI_GGUF_BF16:
        return *d = TN_BF16, 0;
    default:
        return TN_EDTYPE;
    }
}

static tn_array *source_widen(const tni_source *s, const tni_weight *w, tn_ints shape) {
    size_t bytes = (size_t)(w->rows * w->cols) * sizeof(float);
    float *f = tni_alloc_aligned(bytes);
    if (!f)
        return tn_error_array(TN_EMEMORY, "out of memory: %zu bytes for \"%s\"", bytes, w->name);
    int status = tni_gguf_dequant(w->type, w->data, w->rows * w->cols, f);
    tn_array *a =
        status ? tn_error_array(status, "%s", tn_error()) : tn_array_new(f, TN_F32, shape);
    tni_free_aligned(f, bytes);
    tni_gguf_forget(s->gguf, w->data, w->bytes);
    return a;
}

tn_array *tni_source_array(const tni_source *s, const tni_weight *w) {
    tn_dtype d;
    tn_ints shape = w->ndim > 1 ? TN_SHAPE(w->rows, w->cols) : TN_SHAPE(w->cols);
    if (s->gguf && source_gguf_dtype(w->type, &d)) return source_widen(s, w, shape);
    if (!s->gguf && source_st_dtype(w->type, &d))
        return tn_error_array(TN_EFORMAT, "%s: the type of \"%s\" is not supported", s->path,
                              w->name);
    if ((uintptr_t)w->data % tn_dtype_size(d)) return tn_array_new(w->data, d, shape);
    return tn_array_wrap(w->data, d, shape, NULL, NULL);
}

void tni_source_census(const tni_source *s, char *buf, size_t n, int64_t *numbers) {
    struct {
        const char *name;
        int count;
    } kinds[64];
    int n_kinds = 0;
    size_t at = 0, total = s->gguf ? tni_gguf_tensor_count(s->gguf) : tni_st_count(s->st);
    *numbers = 0, *buf = 0;
    for (size_t i = 0; i < total; i++) {
        const tni_gguf_tensor *g = s->gguf ? tni_gguf_tensor_at(s->gguf, i) : NULL;
        const tni_st_tensor *t = g ? NULL : tni_st_at(s->st, i);
        const char *name = g ? tni_gguf_type_name(g->type) : tni_st_dtype_name(t->dtype);
        int64_t size = 1, k = 0;
        for (int d = 0; d < (g ? g->ndim : t->ndim); d++) size *= g ? g->dims[d] : t->shape[d];
        *numbers += size;
        while (k < n_kinds && strcmp(kinds[k].name, name)) k++;
        if (k == 64) continue;
        if (k == n_kinds) kinds[n_kinds].name = name, kinds[n_kinds++].count = 0;
        kinds[k].count++;
    }
    for (int i = 0; i < n_kinds && at < n; i++)
        at += (size_t)snprintf(buf + at, n - at, "%s%s %d", i ? ", " : "", kinds[i].name,
                               kinds[i].count);
}

/* ---- numbers of the configuration ---- */

bool tni_source_i64(const tni_source *s, const char *json_key, const char *gguf_key, int64_t *out) {
    if (s->gguf) return tni_gguf_i64(s->gguf, gguf_key, out);
    const json_t *v = json_object_get(s->config, json_key);
    if (!json_is_integer(v)) return false;
    *out = json_integer_value(v);
    return true;
}

bool tni_source_f64(const tni_source *s, const char *json_key, const char *gguf_key, double *out) {
    if (s->gguf) return tni_gguf_f64(s->gguf, gguf_key, out);
    const json_t *v = json_object_get(s->config, json_key);
    if (!json_is_number(v)) return false;
    *out = json_number_value(v);
    return true;
}
