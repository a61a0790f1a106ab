/* A model with its adapter merged into the weights, written as the files it was read from: W in
 * place becomes W + scale (a b)^T, in f32 and rounded once; all other tensors go over as they are.
 * Each matrix is merged when its turn to be written comes, so that one at a time is in memory.
 */
#include "base/alloc.h"
#include "base/err.h"
#include "base/mmap.h"
#include "base/vec.h"
#include "llm/load.h"
#include "llm/lora.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FUSE_PATH = 4096, FUSE_COPY = 256 << 20, FUSE_PARTS = 3 };

/* A matrix that changes: itself and, when it is packed, its scales and biases. */
typedef struct fuse_item {
    tni_site site;
    tni_weight w[FUSE_PARTS];
    int n, group, bits;
} fuse_item;

typedef struct fuse {
    const tn_llm *m;
    bool dequantize;
    TNI_VEC(fuse_item) item;
    const fuse_item *now;    /* whose arrays these are, or NULL */
    tn_array *a[FUSE_PARTS]; /* what takes the place of its parts */
} fuse;

/* ---- what changes ---- */

static int fuse_find_packed(const fuse *f, int64_t layer, fuse_item *it) {
    const tni_source *src = f->m->source;
    it->n = FUSE_PARTS;
    if (!tni_load_site(f->m, layer, it->site.key, ".scales", &it->w[1]) ||
        !tni_load_site(f->m, layer, it->site.key, ".biases", &it->w[2]))
        return tni_fail(TN_EFORMAT, "%s: \"%s\" has no scales or biases", src->path, it->w[0].name);
    return tni_load_quant(src, it->w[1].name, it->site.in, it->w[0].cols, it->w[1].cols, &it->group,
                          &it->bits);
}

static int fuse_site(const tn_llm *m, int64_t layer, const tni_site *s, void *ud) {
    fuse *f = ud;
    fuse_item it = {.site = *s, .n = 1};
    if (!s->lora->a) return 0;
    if (!tni_load_site(m, layer, s->key, ".weight", &it.w[0]))
        return tni_fail(TN_EFORMAT, "%s: no tensor of its own for %s of layer %lld",
                        m->source->path, s->key, (long long)layer);
    if (tni_vec_reserve(&f->item, f->item.n + 1)) return tni_fail_memory(sizeof it, "fusing");
    int status = 0;
    if (!m->source->gguf && tni_load_is_packed(&it.w[0])) status = fuse_find_packed(f, layer, &it);
    f->item.v[f->item.n++] = it;
    return status;
}

/* The item and part of a tensor's name; NULL: it goes over as it is. */
static const fuse_item *fuse_find(const fuse *f, const char *name, int *part) {
    for (size_t i = 0; i < f->item.n; i++)
        for (*part = 0; *part < f->item.v[i].n; ++*part)
            if (!strcmp(f->item.v[i].w[*part].name, name)) return &f->item.v[i];
    return NULL;
}

/* GGUF's packed types become f16. */
static int fuse_gguf_type(const tni_weight *w) {
    return w->type == TNI_GGUF_F32 || w->type == TNI_GGUF_BF16 ? w->type : TNI_GGUF_F16;
}

/* ---- one matrix ---- */

/* [in, out], or [out, in] as most files have it. */
static tn_array *fuse_delta(const tn_llm *m, const tni_site *s, bool flipped) {
    tn_array *d = tn_mul(tn_matmul(s->lora->a, s->lora->b), tn_f32(m->adapter.scale));
    return flipped ? d : tn_swapaxes(d, 0, 1);
}

/* The parts that are left: one, or all three when it stays packed. */
static int fuse_packed(const fuse *f, const fuse_item *it, tn_array **out) {
    const tni_source *src = f->m->source;
    tn_array *scales = tni_source_array(src, &it->w[1]), *biases = tni_source_array(src, &it->w[2]);
    tn_dtype d = tn_dtype_of(scales);
    tn_array *x = tn_dequantize(tni_source_array(src, &it->w[0]), tn_astype(scales, TN_F32),
                                tn_astype(biases, TN_F32), it->group, it->bits);
    *out = tn_astype(tn_add(x, fuse_delta(f->m, &it->site, false)), d);
    if (f->dequantize) return 1;
    tn_quantize(*out, it->group, it->bits, out);
    return FUSE_PARTS;
}

static int fuse_plain(const fuse *f, const fuse_item *it, tn_array **out) {
    const tni_source *src = f->m->source;
    tn_array *x = tni_source_array(src, &it->w[0]);
    tn_dtype d = src->gguf && fuse_gguf_type(&it->w[0]) == TNI_GGUF_F16 ? TN_F16 : tn_dtype_of(x);
    bool flipped = f->m->arch->conv1d && !src->gguf;
    x = tn_add(tn_astype(x, TN_F32), fuse_delta(f->m, &it->site, flipped));
    *out = tn_astype(x, d);
    return 1;
}

static void fuse_drop(fuse *f) {
    for (int i = 0; i < FUSE_PARTS; i++) tn_drop(f->a[i]);
    memset(f->a, 0, sizeof f->a);
    f->now = NULL;
}

/* The item's arrays, evaluated, in place of those that were there. */
static int fuse_merge(fuse *f, const fuse_item *it) {
    int status = 0;
    bool finite = true;
    tn_dtype d = TN_F32;
    fuse_drop(f);
    TN_SCOPE {
        tn_array *a[FUSE_PARTS], *all[FUSE_PARTS];
        int n = it->n > 1 ? fuse_packed(f, it, a) : fuse_plain(f, it, a), k = 0;
        d = tn_dtype_of(a[n - 1]);
        for (int i = n > 1; i < n; i++) all[k++] = tn_all(tn_isfinite(a[i]), TN_ALL, false);
        for (int i = 0; i < n; i++) a[i] = tn_contiguous(a[i]);
        status = tn_commit(f->a, (tn_list){a, n}, (tn_list){all, k});
        for (int i = 0; i < k && !status; i++) finite = finite && tn_item_i64(all[i]);
    }
    if (status) return status;
    if (finite) return f->now = it, 0;
    return tni_fail(TN_EVALUE, "fuse: \"%s\" has numbers that are not finite, or too large for %s",
                    it->w[0].name, tn_dtype_name(d));
}

/* What a tensor of a changed matrix has. A packed matrix is asked for twice, words first and then
 * scales and biases, as the file has them, and is merged again. */
static int fuse_data(void *ud, const char *name, const void **out) {
    fuse *f = ud;
    int part;
    const fuse_item *it = fuse_find(f, name, &part);
    if (!it) return tni_fail(TN_EINTERNAL, "fuse: nobody has the tensor \"%s\"", name);
    int status = f->now == it ? 0 : fuse_merge(f, it);
    if (status) return status;
    *out = tn_data(f->a[part]);
    return *out ? 0 : tni_error_code();
}

/* ---- files ---- */

/* The entry of a part that is merged later; false: it is left out. */
static bool fuse_entry(const fuse *f, const fuse_item *it, int part, tni_st_tensor *t) {
    int64_t bytes = 0;
    if (it->n > 1 && f->dequantize) {
        if (part) return false;
        t->shape[0] = it->site.out, t->shape[1] = it->site.in;
    }
    if (it->n > 1 && (part || f->dequantize)) t->dtype = (tni_st_dtype)it->w[1].type;
    tni_st_size(t, &bytes);
    t->data = NULL, t->bytes = (size_t)bytes;
    return true;
}

static int fuse_write_st(fuse *f, const char *path) {
    const tni_st *st = f->m->source->st;
    size_t n = tni_st_count(st), n_meta = tni_st_metadata_count(st), out = 0;
    tni_st_tensor *t = tni_alloc_array(n, sizeof *t);
    tni_st_pair *meta = tni_alloc_array(n_meta + 1, sizeof *meta);
    int status = t && meta ? 0 : tni_fail_memory(n * sizeof *t, "fusing"), part;
    for (size_t i = 0; i < n && !status; i++) {
        t[out] = *tni_st_at(st, i);
        const fuse_item *it = fuse_find(f, t[out].name, &part);
        if (!it || fuse_entry(f, it, part, &t[out])) out++;
    }
    for (size_t i = 0; i < n_meta && !status; i++) meta[i] = tni_st_metadata_at(st, i);
    if (!status) status = tni_st_write_stream(path, t, out, meta, n_meta, fuse_data, f);
    tni_free(t), tni_free(meta);
    return status ? status : tni_st_verify(st);
}

static int fuse_write_gguf(fuse *f, const char *path) {
    const tni_gguf *g = f->m->source->gguf;
    tni_gguf_tensor *t = tni_alloc_array(f->item.n, sizeof *t);
    if (!t) return tni_fail_memory(f->item.n * sizeof *t, "fusing");
    for (size_t i = 0; i < f->item.n; i++) {
        const tni_weight *w = &f->item.v[i].w[0];
        size_t values = 1, bytes = 0;
        t[i] = *tni_gguf_tensor_find(g, w->name);
        t[i].type = fuse_gguf_type(w);
        tni_gguf_type_block(t[i].type, &values, &bytes);
        t[i].data = NULL, t[i].bytes = (size_t)(w->rows * w->cols) / values * bytes;
    }
    int status = tni_gguf_write_with(g, path, t, f->item.n, fuse_data, f);
    tni_free(t);
    return status;
}

static bool fuse_is_side_file(const char *name) {
    static const char *const ends[] = {".json", ".jinja", ".txt", ".model", ".md"};
    if (*name == '.' || strstr(name, ".safetensors")) return false;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(name), k = strlen(ends[i]);
        if (n > k && !strcmp(name + n - k, ends[i])) return true;
    }
    return !strncmp(name, "LICENSE", 7);
}

static int fuse_copy(const char *from, const char *to, const char *name) {
    char path[FUSE_PATH], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/%s", from, name);
    int status = tni_file_read(path, FUSE_COPY, &text, &n);
    if (status) return status;
    snprintf(path, sizeof path, "%s/%s", to, name);
    status = tni_file_write(path, text, n);
    tni_free(text);
    return status;
}

static int fuse_copy_all(const char *from, const char *to) {
    DIR *d = opendir(from);
    if (!d) return tni_fail(TN_EFILE, "%s: cannot be listed: %s", from, strerror(errno));
    int status = 0;
    for (const struct dirent *e; !status && (e = readdir(d));)
        if (fuse_is_side_file(e->d_name)) status = fuse_copy(from, to, e->d_name);
    closedir(d);
    return status;
}

/* A folder that was made for a model that could not be written goes again. */
static void fuse_remove(const char *from, const char *made) {
    char path[FUSE_PATH];
    DIR *d = opendir(from);
    for (const struct dirent *e; d && (e = readdir(d));)
        if (fuse_is_side_file(e->d_name) &&
            snprintf(path, sizeof path, "%s/%s", made, e->d_name) < FUSE_PATH)
            unlink(path);
    if (d) closedir(d);
    rmdir(made);
}

static int fuse_write(fuse *f, const char *dir) {
    const tni_source *s = f->m->source;
    char path[FUSE_PATH];
    struct stat st;
    bool made;
    snprintf(path, sizeof path, "%s/%s", dir, s->gguf ? "model.gguf" : "model.safetensors");
    if (!stat(path, &st))
        return tni_fail(TN_EFILE, "%s: there is a model already, which is not overwritten", path);
    int status = tni_folder_make(dir, &made);
    if (status) return status;
    if (!s->gguf) status = fuse_copy_all(s->path, dir);
    if (!status) status = s->gguf ? fuse_write_gguf(f, path) : fuse_write_st(f, path);
    if (status) unlink(path); /* written before a cut of the source was noticed */
    if (status && made) fuse_remove(s->path, dir);
    return status;
}

int tn_llm_fuse(const tn_llm *m, const char *dir, const tn_llm_fuse_opt *opt) {
    fuse f = {.m = m, .dequantize = opt && opt->dequantize};
    if (!m->adapter.rank) return tni_fail(TN_ESTATE, "fuse: the model has no adapter");
    int status = tni_lora_each(m, fuse_site, &f);
    if (!status) status = fuse_write(&f, dir);
    fuse_drop(&f);
    tni_vec_free(&f.item);
    return status;
}
