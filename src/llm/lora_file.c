/* Adapters as files: mlx-lm's folder of adapters.safetensors (pairs "....lora_a" [in, rank],
 * "....lora_b" [rank, out]) and adapter_config.json. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/mmap.h"
#include "io/safetensors.h"
#include "llm/json.h"
#include "llm/lora.h"
#include "llm/source.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LORA_PATH = 4096, LORA_NAME = 192, LORA_JSON_LIMIT = 16 << 20 };

/* ---- GGUF's order ---- */

/* Columns of b per head: [heads, 2, half] in Hugging Face's order, [heads, half, 2] in GGUF's. */
tn_array *tni_lora_from_hf(const tni_site *s, tn_array *b) {
    if (!s->pairs) return b;
    int64_t r = tn_dim(b, 0), half = s->out / s->pairs / 2;
    return tn_reshape(tn_swapaxes(tn_reshape(b, TN_SHAPE(r, s->pairs, 2, half)), 2, 3),
                      TN_SHAPE(r, s->out));
}

tn_array *tni_lora_to_hf(const tni_site *s, tn_array *b) {
    if (!s->pairs) return b;
    int64_t r = tn_dim(b, 0), half = s->out / s->pairs / 2;
    return tn_reshape(tn_swapaxes(tn_reshape(b, TN_SHAPE(r, s->pairs, half, 2)), 2, 3),
                      TN_SHAPE(r, s->out));
}

/* ---- reading ---- */

typedef struct lora_reader {
    const char *path;
    tni_st *st;
    const tni_adapter *a;
    tni_lora *next; /* of the walk over all matrices */
    size_t found;
} lora_reader;

static tn_array *lora_array(const lora_reader *r, const tni_st_tensor *t) {
    static const struct {
        tni_st_dtype from;
        tn_dtype to;
    } known[] = {{TNI_ST_F32, TN_F32}, {TNI_ST_F16, TN_F16}, {TNI_ST_BF16, TN_BF16}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].from == t->dtype)
            return tn_astype(tn_array_new(t->data, known[i].to, TN_SHAPE(t->shape[0], t->shape[1])),
                             TN_F32);
    return tn_error_array(TN_EFORMAT, "%s: \"%s\" is of type %s; F32, F16 and BF16 can be read",
                          r->path, t->name, tni_st_dtype_name(t->dtype));
}

static int lora_read_one(lora_reader *r, const char *name, int64_t rows, int64_t cols,
                         const tni_site *turn, tn_array **slot) {
    const tni_st_tensor *t = tni_st_find(r->st, name);
    if (!t) return 0;
    if (t->ndim != 2 || t->shape[0] != rows || t->shape[1] != cols) {
        long long d0 = t->ndim ? (long long)t->shape[0] : 0,
                  d1 = t->ndim > 1 ? (long long)t->shape[1] : 0;
        return tni_fail(TN_EFORMAT,
                        "%s: \"%s\" is %lld by %lld (%d axes); this model and the rank need %lld "
                        "by %lld",
                        r->path, name, d0, d1, t->ndim, (long long)rows, (long long)cols);
    }
    r->found++;
    int status = 0;
    TN_SCOPE {
        tn_array *x = lora_array(r, t);
        if (turn) x = tni_lora_from_hf(turn, x);
        status = tn_commit(slot, TN_LIST(tn_contiguous(x)), (tn_list){0});
    }
    return status;
}

static int lora_read_pair(const tn_llm *m, int64_t layer, const tni_site *s, void *ud) {
    lora_reader *r = ud;
    tni_lora *to = r->next++;
    char name[LORA_NAME];
    tni_lora_name(m, layer, s->key, name, sizeof name - 8);
    size_t n = strlen(name);
    strcpy(name + n, ".lora_a");
    int status = lora_read_one(r, name, s->in, r->a->rank, NULL, &to->a);
    strcpy(name + n, ".lora_b");
    if (!status) status = lora_read_one(r, name, r->a->rank, s->out, s, &to->b);
    if (status || !to->a == !to->b) return status;
    strcpy(name + n, to->a ? ".lora_b" : ".lora_a");
    return tni_fail(TN_EFORMAT, "%s: the tensor \"%s\" is missing", r->path, name);
}

typedef struct lora_known {
    const char *name;
    bool yes;
} lora_known;

static int lora_is_known(const tn_llm *m, int64_t layer, const tni_site *s, void *ud) {
    lora_known *k = ud;
    char name[LORA_NAME];
    tni_lora_name(m, layer, s->key, name, sizeof name - 8);
    size_t n = strlen(name);
    if (!strncmp(k->name, name, n) &&
        (!strcmp(k->name + n, ".lora_a") || !strcmp(k->name + n, ".lora_b")))
        k->yes = true;
    return 0;
}

/* Names the first tensor that is no adapter of this model. */
static int lora_read_foreign(const tn_llm *m, const lora_reader *r) {
    for (size_t i = 0; i < tni_st_count(r->st); i++) {
        lora_known k = {tni_st_at(r->st, i)->name, false};
        tni_lora_each(m, lora_is_known, &k);
        if (!k.yes)
            return tni_fail(TN_EFORMAT,
                            "%s: \"%.160s\" is no matrix of this model (%lld layers of %s): the "
                            "adapter is another model's, or of a kind that is not supported",
                            r->path, k.name, (long long)m->layers, m->arch->name);
    }
    return tni_fail(TN_EFORMAT, "%s: it holds no adapters", r->path);
}

int tni_lora_read(const tn_llm *m, const char *path, const tni_adapter *a, tni_lora *fresh) {
    lora_reader r = {.path = path, .a = a, .next = fresh};
    int status = tni_st_open(path, &r.st);
    if (status) return status;
    status = tni_lora_each(m, lora_read_pair, &r);
    if (!status && (r.found != tni_st_count(r.st) || !r.found)) status = lora_read_foreign(m, &r);
    if (!status) status = tni_st_verify(r.st);
    tni_st_free(r.st);
    return status;
}

/* ---- the configuration ---- */

static int lora_config_keys(const char *path, const json_t *list, char **out) {
    tni_str s = {0};
    int status = 0;
    if (!list || json_is_null(list)) return 0;
    if (!json_is_array(list)) return tni_fail(TN_EFORMAT, "%s: \"keys\" is not a list", path);
    for (size_t i = 0; i < json_array_size(list) && !status; i++) {
        const char *key = json_string_value(json_array_get(list, i));
        if (!key)
            status = tni_fail(TN_EFORMAT, "%s: \"keys\" holds something other than names", path);
        else if (tni_str_printf(&s, "%s%s", s.n ? "," : "", key))
            status = tni_fail_memory(strlen(key), "an adapter's keys");
    }
    if (status) return tni_str_free(&s), status;
    *out = s.v;
    return 0;
}

static int lora_config_number(const char *path, const json_t *from, const char *key, double *out) {
    const json_t *v = json_object_get(from, key);
    if (!json_is_number(v))
        return tni_fail(TN_EFORMAT, "%s: \"%s\" is missing or not a number", path, key);
    *out = json_number_value(v);
    return 0;
}

static int lora_config_take(const tn_llm *m, const char *path, const json_t *c, tni_adapter *a) {
    const json_t *type = json_object_get(c, "fine_tune_type"),
                 *p = json_object_get(c, "lora_parameters");
    double rank = 0, layers = 0;
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "lora")))
        return tni_fail(TN_EFORMAT,
                        "%s: \"fine_tune_type\" is not \"lora\", which alone is "
                        "supported",
                        path);
    if (!json_is_object(p))
        return tni_fail(TN_EFORMAT, "%s: \"lora_parameters\" is missing: not mlx-lm's format",
                        path);
    int status = lora_config_number(path, c, "num_layers", &layers);
    if (!status) status = lora_config_number(path, p, "rank", &rank);
    if (!status) status = lora_config_number(path, p, "scale", &a->scale);
    if (!status && json_object_get(p, "dropout"))
        status = lora_config_number(path, p, "dropout", &a->dropout);
    if (!status && !(rank >= 1 && rank <= TNI_LORA_RANK))
        status =
            tni_fail(TN_EFORMAT, "%s: rank %g; 1 to %d are possible", path, rank, TNI_LORA_RANK);
    if (!status && !(layers <= (double)m->layers))
        status = tni_fail(TN_EFORMAT, "%s: for %g layers; this model has %lld", path, layers,
                          (long long)m->layers);
    if (!status && !(a->dropout >= 0 && a->dropout < 1))
        status = tni_fail(TN_EFORMAT, "%s: dropout %g is not possible", path, a->dropout);
    if (status) return status;
    a->rank = (int64_t)rank, a->layers = layers < 1 ? m->layers : (int64_t)layers;
    return lora_config_keys(path, json_object_get(p, "keys"), &a->keys);
}

static int lora_config(const tn_llm *m, const char *path, tni_adapter *a) {
    char *text;
    size_t n;
    json_t *c;
    int status = tni_file_read(path, LORA_JSON_LIMIT, &text, &n);
    if (status) return status;
    status = tni_json_parse(text, n, JSON_REJECT_DUPLICATES, path, &c);
    tni_free(text);
    if (status) return status;
    status = json_is_object(c) ? lora_config_take(m, path, c, a)
                               : tni_fail(TN_EFORMAT, "%s: not a JSON object", path);
    json_decref(c);
    return status;
}

int tn_llm_adapter_load(tn_llm *m, const char *dir) {
    char path[LORA_PATH];
    tni_adapter a = {0};
    if (!m->layer) return tni_fail(TN_ESTATE, "adapter: the model has no weights");
    snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    if (access(path, F_OK))
        return tni_fail(TN_EFILE, "%s: no folder with an adapter: adapter_config.json is missing",
                        dir);
    int status = lora_config(m, path, &a);
    size_t n = (size_t)m->layers * TNI_LORA_SITES;
    tni_lora *fresh = status ? NULL : tni_calloc(n, sizeof *fresh);
    if (!status && !fresh) status = tni_fail_memory(n * sizeof *fresh, "an adapter");
    snprintf(path, sizeof path, "%s/adapters.safetensors", dir);
    if (!status) status = tni_lora_read(m, path, &a, fresh);
    if (status) return tni_lora_release(m, &a, fresh), status;
    tni_lora_exchange(m, &a, fresh);
    tni_free(fresh);
    return 0;
}

/* ---- writing ---- */

typedef struct lora_writer {
    tni_st_tensor *t;
    char (*name)[LORA_NAME];
    size_t n;
} lora_writer;

static int lora_write_one(lora_writer *w, const char *stem, const char *end, tn_array *x) {
    tni_st_tensor *t = &w->t[w->n];
    char *name = w->name[w->n++];
    x = tn_contiguous(x);
    snprintf(name, LORA_NAME, "%.170s.%s", stem, end);
    *t = (tni_st_tensor){.name = name, .dtype = TNI_ST_F32, .ndim = 2, .bytes = tn_nbytes(x)};
    t->data = tn_data_f32(x);
    t->shape[0] = tn_dim(x, 0), t->shape[1] = tn_dim(x, 1);
    if (!t->data) return tni_error_code();
    tn_array *sound = tn_all(tn_isfinite(x), TN_ALL, false);
    int status = tn_eval(TN_LIST(sound));
    if (!status && !tn_item_bool(sound))
        status = tni_fail(TN_EVALUE,
                          "%s: the adapter has become infinite or NaN and is not written; a "
                          "smaller learning rate helps",
                          name);
    return status;
}

static int lora_write_pair(const tn_llm *m, int64_t layer, const tni_site *s, void *ud) {
    char name[LORA_NAME];
    if (!s->lora->a) return 0;
    tni_lora_name(m, layer, s->key, name, sizeof name);
    int status = lora_write_one(ud, name, "lora_a", s->lora->a);
    return status ? status : lora_write_one(ud, name, "lora_b", tni_lora_to_hf(s, s->lora->b));
}

int tni_lora_write(const tn_llm *m, const char *path) {
    size_t most = 2 * (size_t)m->layers * TNI_LORA_SITES;
    lora_writer w = {.t = tni_alloc_array(most, sizeof *w.t),
                     .name = tni_alloc_array(most, sizeof *w.name)};
    int status = w.t && w.name ? 0 : tni_fail_memory(most * LORA_NAME, "writing an adapter");
    TN_SCOPE {
        if (!status) status = tni_lora_each(m, lora_write_pair, &w);
        if (!status) status = tni_st_write(path, w.t, w.n, &(tni_st_pair){"format", "mlx"}, 1);
    }
    tni_free(w.t), tni_free(w.name);
    return status;
}

/* The keys are always written: mlx-lm's meaning of none has changed over its versions. */
static json_t *lora_config_json(const tn_llm *m) {
    tni_site site[TNI_LORA_SITES];
    int n = tni_lora_sites(m, 0, site);
    json_t *keys = json_array();
    for (int k = 0; k < n; k++)
        if (tni_lora_has_key(m->adapter.keys, site[k].key) &&
            json_array_append_new(keys, json_string(site[k].key)))
            return json_decref(keys), NULL;
    return json_pack("{sssIs{sIsfsfso}}", "fine_tune_type", "lora", "num_layers",
                     (json_int_t)m->adapter.layers, "lora_parameters", "rank",
                     (json_int_t)m->adapter.rank, "scale", m->adapter.scale, "dropout",
                     m->adapter.dropout, "keys", keys);
}

int tni_lora_write_config(const tn_llm *m, const char *path) {
    tni_str text = {0};
    json_t *c = lora_config_json(m);
    int status = tni_json_dump(c, JSON_INDENT(4), "an adapter's configuration", &text);
    if (!status && tni_str_putc(&text, '\n'))
        status = tni_fail_memory(text.n, "an adapter's configuration");
    if (!status) status = tni_file_write(path, text.v, text.n);
    json_decref(c);
    tni_str_free(&text);
    return status;
}

int tn_llm_adapter_save(const tn_llm *m, const char *dir) {
    char path[LORA_PATH];
    if (!m->adapter.rank) return tni_fail(TN_ESTATE, "adapter: the model has none");
    bool made;
    int status = tni_folder_make(dir, &made);
    snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    if (!status) status = tni_lora_write_config(m, path);
    snprintf(path, sizeof path, "%s/adapters.safetensors", dir);
    return status ? status : tni_lora_write(m, path);
}
