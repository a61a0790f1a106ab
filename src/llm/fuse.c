/* A model with its adapter merged into the weights, written as the files it was read from: W in
 * place becomes W + scale (a b)^T, in f32 and rounded once; all other tensors go over as they are.
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

enum { FUSE_PATH = 4096, FUSE_COPY = 256 << 20 };

/* What takes the place of a matrix: itself and, when it is packed, its scales and biases. A NULL
 * array leaves the tensor out. */
typedef struct fuse_item {
    const char *name[3];
    tn_array *a[3];
    int n;
} fuse_item;

typedef struct fuse {
    const tn_llm *m;
    bool dequantize;
    TNI_VEC(fuse_item) item;
} fuse;

/* ---- one matrix ---- */

/* [in, out], or [out, in] as most files have it. */
static tn_array *fuse_delta(const tn_llm *m, const tni_site *s, bool flipped) {
    tn_array *d = tn_mul(tn_matmul(s->lora->a, s->lora->b), tn_f32(m->adapter.scale));
    return flipped ? d : tn_swapaxes(d, 0, 1);
}

static int fuse_keep(fuse_item *it, const char *name, tn_array *a) {
    it->name[it->n] = name;
    return tn_commit(&it->a[it->n++], TN_LIST(tn_contiguous(a)), (tn_list){0});
}

static int fuse_packed(const fuse *f, int64_t layer, const tni_site *s, const tni_weight *w,
                       fuse_item *it) {
    const tni_source *src = f->m->source;
    tni_weight sc, bi;
    int group, bits;
    if (!tni_load_site(f->m, layer, s->key, ".scales", &sc) ||
        !tni_load_site(f->m, layer, s->key, ".biases", &bi))
        return tni_fail(TN_EFORMAT, "%s: \"%s\" has no scales or biases", src->path, w->name);
    int status = tni_load_quant(src, sc.name, s->in, w->cols, sc.cols, &group, &bits);
    if (status) return status;
    tn_array *scales = tni_source_array(src, &sc), *biases = tni_source_array(src, &bi), *q[3];
    tn_dtype d = tn_dtype_of(scales);
    tn_array *x = tn_dequantize(tni_source_array(src, w), tn_astype(scales, TN_F32),
                                tn_astype(biases, TN_F32), group, bits);
    x = tn_astype(tn_add(x, fuse_delta(f->m, s, false)), d);
    if (f->dequantize) {
        it->name[1] = sc.name, it->name[2] = bi.name;
        status = fuse_keep(it, w->name, x);
        it->n = 3;
        return status;
    }
    tn_quantize(x, group, bits, q);
    status = fuse_keep(it, w->name, q[0]);
    if (!status) status = fuse_keep(it, sc.name, q[1]);
    return status ? status : fuse_keep(it, bi.name, q[2]);
}

/* GGUF's packed types become f16. */
static int fuse_plain(const fuse *f, const tni_site *s, const tni_weight *w, fuse_item *it) {
    const tni_source *src = f->m->source;
    tn_array *x = tni_source_array(src, w);
    tn_dtype d =
        src->gguf && w->type != TNI_GGUF_F32 && w->type != TNI_GGUF_BF16 ? TN_F16 : tn_dtype_of(x);
    bool flipped = f->m->arch->conv1d && !src->gguf;
    x = tn_add(tn_astype(x, TN_F32), fuse_delta(f->m, s, flipped));
    return fuse_keep(it, w->name, tn_astype(x, d));
}

static int fuse_finite(const fuse_item *it) {
    bool yes = true;
    for (int i = 0; i < it->n && yes; i++)
        if (it->a[i] && tn_dtype_of(it->a[i]) != TN_U32) {
            tn_array *all = tn_all(tn_isfinite(it->a[i]), TN_ALL, false);
            if (tn_eval(TN_LIST(all))) return tni_error_code();
            yes = tn_item_i64(all) != 0;
        }
    if (yes) return 0;
    return tni_fail(TN_EVALUE, "fuse: \"%s\" has numbers that are not finite, or too large for %s",
                    it->name[0], tn_dtype_name(tn_dtype_of(it->a[it->n == 3 && it->a[1]])));
}

static int fuse_site(const tn_llm *m, int64_t layer, const tni_site *s, void *ud) {
    fuse *f = ud;
    tni_weight w;
    fuse_item it = {.n = 0};
    if (!s->lora->a) return 0;
    if (!tni_load_site(m, layer, s->key, ".weight", &w))
        return tni_fail(TN_EFORMAT, "%s: no tensor of its own for %s of layer %lld",
                        m->source->path, s->key, (long long)layer);
    if (tni_vec_reserve(&f->item, f->item.n + 1)) return tni_fail_memory(sizeof it, "fusing");
    int status = 0;
    TN_SCOPE {
        bool packed = !m->source->gguf && tni_load_is_packed(&w);
        status = packed ? fuse_packed(f, layer, s, &w, &it) : fuse_plain(f, s, &w, &it);
        if (!status) status = fuse_finite(&it);
    }
    f->item.v[f->item.n++] = it;
    return status;
}

/* ---- files ---- */

/* The item and part of a tensor's name; NULL: it goes over as it is. */
static const fuse_item *fuse_find(const fuse *f, const char *name, int *part) {
    for (size_t i = 0; i < f->item.n; i++)
        for (*part = 0; *part < f->item.v[i].n; ++*part)
            if (!strcmp(f->item.v[i].name[*part], name)) return &f->item.v[i];
    return NULL;
}

static int fuse_st_tensor(tni_st_tensor *t, tn_array *a) {
    tn_dtype d = tn_dtype_of(a);
    t->dtype = d == TN_U32    ? TNI_ST_U32
               : d == TN_F16  ? TNI_ST_F16
               : d == TN_BF16 ? TNI_ST_BF16
               : d == TN_F64  ? TNI_ST_F64
                              : TNI_ST_F32;
    for (int i = 0; i < 2; i++) t->shape[i] = tn_dim(a, i);
    t->data = tn_data(a), t->bytes = tn_nbytes(a);
    return t->data ? 0 : tni_error_code();
}

static int fuse_write_st(const fuse *f, const char *path) {
    const tni_st *st = f->m->source->st;
    size_t n = tni_st_count(st), n_meta = tni_st_metadata_count(st), out = 0;
    tni_st_tensor *t = tni_alloc_array(n, sizeof *t);
    tni_st_pair *meta = tni_alloc_array(n_meta + 1, sizeof *meta);
    int status = t && meta ? 0 : tni_fail_memory(n * sizeof *t, "fusing"), part;
    for (size_t i = 0; i < n && !status; i++) {
        t[out] = *tni_st_at(st, i);
        const fuse_item *it = fuse_find(f, t[out].name, &part);
        if (it && !it->a[part]) continue;
        if (it) status = fuse_st_tensor(&t[out], it->a[part]);
        out++;
    }
    for (size_t i = 0; i < n_meta && !status; i++) meta[i] = tni_st_metadata_at(st, i);
    if (!status) status = tni_st_write(path, t, out, meta, n_meta);
    tni_free(t), tni_free(meta);
    return status ? status : tni_st_verify(st);
}

static int fuse_write_gguf(const fuse *f, const char *path) {
    const tni_gguf *g = f->m->source->gguf;
    tni_gguf_tensor *t = tni_alloc_array(f->item.n, sizeof *t);
    int status = t ? 0 : tni_fail_memory(f->item.n * sizeof *t, "fusing");
    for (size_t i = 0; i < f->item.n && !status; i++) {
        tn_array *a = f->item.v[i].a[0];
        tn_dtype d = tn_dtype_of(a);
        t[i] = *tni_gguf_tensor_find(g, f->item.v[i].name[0]);
        t[i].type = d == TN_F16 ? TNI_GGUF_F16 : d == TN_BF16 ? TNI_GGUF_BF16 : TNI_GGUF_F32;
        t[i].data = tn_data(a), t[i].bytes = tn_nbytes(a);
        if (!t[i].data) status = tni_error_code();
    }
    if (!status) status = tni_gguf_write_with(g, path, t, f->item.n);
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

static int fuse_write(const fuse *f, const char *dir) {
    const tni_source *s = f->m->source;
    char path[FUSE_PATH];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, s->gguf ? "model.gguf" : "model.safetensors");
    if (!stat(path, &st))
        return tni_fail(TN_EFILE, "%s: there is a model already, which is not overwritten", path);
    if (mkdir(dir, 0777) && errno != EEXIST)
        return tni_fail(TN_EFILE, "%s: the folder cannot be made: %s", dir, strerror(errno));
    if (s->gguf) return fuse_write_gguf(f, path);
    int status = fuse_copy_all(s->path, dir);
    return status ? status : fuse_write_st(f, path);
}

int tn_llm_fuse(const tn_llm *m, const char *dir, const tn_llm_fuse_opt *opt) {
    fuse f = {.m = m, .dequantize = opt && opt->dequantize};
    if (!m->adapter.rank) return tni_fail(TN_ESTATE, "fuse: the model has no adapter");
    int status = tni_lora_each(m, fuse_site, &f);
    if (!status) status = fuse_write(&f, dir);
    for (size_t i = 0; i < f.item.n; i++)
        for (int k = 0; k < 3; k++) tn_drop(f.item.v[i].a[k]);
    tni_vec_free(&f.item);
    return status;
}
