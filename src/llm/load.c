/* From a source to a model: shape from the metadata, weights by name, matrices stacked where the
 * types allow, GGUF's plain quantised blocks rewritten as the affine layout without loss. */
#include "llm/load.h"
#include "base/alloc.h"
#include "base/err.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const tni_arch load_archs[] = {
#define ARCH(name, layer_norm, learned_pos, gelu, linear_bias, conv1d, gguf)                       \
    {#name, layer_norm, learned_pos, gelu, linear_bias, conv1d, gguf},
#include "llm/arch.def"
#undef ARCH
};

const tni_arch *tni_arch_find(const char *name) {
    for (size_t i = 0; i < sizeof load_archs / sizeof *load_archs; i++)
        if (!strcmp(load_archs[i].name, name)) return &load_archs[i];
    return NULL;
}

/* ---- names ---- */

typedef enum load_part {
#define NAME(part, llama, gpt2, gguf) PART_##part,
#include "llm/names.def"
#undef NAME
} load_part;

static const char *const load_names[][3] = {
#define NAME(part, llama, gpt2, gguf) {llama, gpt2, gguf},
#include "llm/names.def"
#undef NAME
};

typedef struct loader {
    tn_llm *m;
    const tni_source *s;
    int family;         /* column of names.def */
    const char *prefix; /* "transformer." in some GPT-2 folders */
    char name[192];
} loader;

static const char *load_name(loader *l, load_part part, int64_t layer, const char *suffix) {
    const char *pattern = load_names[part][l->family], *hole = strstr(pattern, "%d");
    if (hole)
        snprintf(l->name, sizeof l->name, "%s%.*s%lld%s%s", l->prefix, (int)(hole - pattern),
                 pattern, (long long)layer, hole + 2, suffix);
    else
        snprintf(l->name, sizeof l->name, "%s%s%s", l->prefix, pattern, suffix);
    return l->name;
}

static bool load_find(loader *l, load_part part, int64_t layer, const char *suffix, tni_weight *w) {
    return *load_names[part][l->family] &&
           tni_source_find(l->s, load_name(l, part, layer, suffix), w);
}

static int load_missing(loader *l, load_part part, int64_t layer, const char *suffix) {
    return tni_fail(TN_EFORMAT, "%s: the tensor \"%s\" is missing", l->s->path,
                    load_name(l, part, layer, suffix));
}

static int load_wrong_shape(loader *l, const tni_weight *w, int64_t rows, int64_t cols) {
    if (rows)
        return tni_fail(TN_EFORMAT, "%s: \"%s\" is %lld by %lld; the model needs %lld by %lld",
                        l->s->path, w->name, (long long)w->rows, (long long)w->cols,
                        (long long)rows, (long long)cols);
    return tni_fail(TN_EFORMAT, "%s: \"%s\" has %lld numbers; the model needs %lld", l->s->path,
                    w->name, (long long)(w->rows * w->cols), (long long)cols);
}

/* ---- vectors ---- */

/* A vector of `n`, as f32, into a slot; absent ones leave it NULL when `optional`. */
static int load_vector(loader *l, load_part part, int64_t layer, const char *suffix, int64_t n,
                       bool optional, tn_array **slot) {
    tni_weight w;
    int status = 0;
    if (!load_find(l, part, layer, suffix, &w))
        return optional ? 0 : load_missing(l, part, layer, suffix);
    if (w.rows * w.cols != n) return load_wrong_shape(l, &w, 0, n);
    TN_SCOPE {
        tn_array *a = tn_reshape(tn_astype(tni_source_array(l->s, &w), TN_F32), TN_SHAPE(n));
        status = tn_commit(slot, TN_LIST(a), (tn_list){0});
    }
    return status;
}

static int load_norm(loader *l, load_part part, int64_t layer, tni_norm *n) {
    int status = load_vector(l, part, layer, ".weight", l->m->hidden, false, &n->weight);
    if (!status && l->m->arch->layer_norm)
        status = load_vector(l, part, layer, ".bias", l->m->hidden, false, &n->bias);
    return status;
}

/* ---- matrices ---- */

/* Up to three matrices of the same width, one below the other. */
typedef struct load_stack {
    tni_weight w[3];
    int64_t rows; /* of all */
    int n;
} load_stack;

static bool load_same_kind(const load_stack *k) {
    for (int i = 1; i < k->n; i++)
        if (k->w[i].type != k->w[0].type || k->w[i].cols != k->w[0].cols) return false;
    return true;
}

static int load_commit(tni_linear *out, tn_array *w, tn_array *s, tn_array *b) {
    int status = tn_commit(&out->w, TN_LIST(w), (tn_list){0});
    if (!status && s) status = tn_commit(&out->scales, TN_LIST(s), (tn_list){0});
    if (!status && b) status = tn_commit(&out->biases, TN_LIST(b), (tn_list){0});
    return status;
}

static int load_gguf_affine(loader *l, const load_stack *k, int bits, tni_linear *out) {
    tni_affine a;
    const void *data[3];
    int64_t rows[3];
    for (int i = 0; i < k->n; i++) data[i] = k->w[i].data, rows[i] = k->w[i].rows;
    int status = tni_affine_make(k->w[0].type, bits, k->n, data, rows, k->w[0].cols, &a);
    for (int i = 0; i < k->n; i++) tni_gguf_forget(l->s->gguf, k->w[i].data, k->w[i].bytes);
    if (status) return status;
    tn_dtype d = a.f32 ? TN_F32 : TN_F16;
    out->group = 32, out->bits = bits;
    l->m->bytes += (int64_t)a.bytes;
    TN_SCOPE {
        /* The three parts lie in one block, which the last of them to go frees. */
        tn_array *w = tn_array_wrap(a.q, TN_U32, TN_SHAPE(k->rows, k->w[0].cols / 32 * bits),
                                    tni_affine_release, a.owner);
        tn_array *s = tn_array_wrap(a.scales, d, TN_SHAPE(k->rows, k->w[0].cols / 32),
                                    tni_affine_release, a.owner);
        tn_array *b = tn_array_wrap(a.biases, d, TN_SHAPE(k->rows, k->w[0].cols / 32),
                                    tni_affine_release, a.owner);
        status = load_commit(out, w, s, b);
    }
    return status;
}

static tn_array *load_join(const tni_source *s, const load_stack *k) {
    tn_array *part[3];
    for (int i = 0; i < k->n; i++) part[i] = tni_source_array(s, &k->w[i]);
    return k->n == 1 ? part[0] : tn_concatenate((tn_list){part, k->n}, 0);
}

/* `turn`: stored as [in, out], whose rows a product with one token reads in order, three times as
 * fast as it gathers them from [out, in]. */
static int load_plain(loader *l, const load_stack *k, bool turn, tni_linear *out) {
    int status = 0;
    TN_SCOPE {
        tn_array *w = load_join(l->s, k);
        if (turn) w = tn_contiguous(tn_swapaxes(w, 0, 1));
        status = load_commit(out, w, NULL, NULL);
        l->m->bytes += (int64_t)tn_nbytes(w);
    }
    return status;
}

/* MLX's quantised matrices: .scales and .biases beside the packed .weight. */
static int load_mlx(loader *l, const load_part *parts, const int64_t *rows, int64_t cols,
                    const load_stack *k, int64_t layer, tni_linear *out) {
    load_stack s = {.n = k->n}, b = {.n = k->n};
    for (int i = 0; i < k->n; i++) {
        if (!load_find(l, parts[i], layer, ".scales", &s.w[i]))
            return load_missing(l, parts[i], layer, ".scales");
        if (!load_find(l, parts[i], layer, ".biases", &b.w[i]))
            return load_missing(l, parts[i], layer, ".biases");
        if (k->w[i].rows != rows[i]) return load_wrong_shape(l, &k->w[i], rows[i], k->w[i].cols);
    }
    if (tni_load_quant(l->s, s.w[0].name, cols, k->w[0].cols, s.w[0].cols, &out->group, &out->bits))
        return tni_error_code();
    int status = 0;
    TN_SCOPE {
        tn_array *w = load_join(l->s, k), *sc = load_join(l->s, &s), *bi = load_join(l->s, &b);
        l->m->bytes += (int64_t)(tn_nbytes(w) + tn_nbytes(sc) + tn_nbytes(bi));
        status = load_commit(out, w, sc, bi);
    }
    return status;
}

static int load_bias(loader *l, const load_part *parts, const int64_t *rows, int n, int64_t layer,
                     tni_linear *out) {
    tn_array *slot[3] = {0};
    int status = 0, have = 0;
    for (int i = 0; i < n && !status; i++) {
        status =
            load_vector(l, parts[i], layer, ".bias", rows[i], !l->m->arch->linear_bias, &slot[i]);
        have += slot[i] != NULL;
    }
    if (!status && have && have < n)
        status =
            tni_fail(TN_EFORMAT, "%s: some of the matrices beside \"%s\" have a bias and some not",
                     l->s->path, l->name);
    TN_SCOPE {
        if (!status && have)
            status =
                tn_commit(&out->bias, TN_LIST(tn_concatenate((tn_list){slot, n}, 0)), (tn_list){0});
    }
    for (int i = 0; i < n; i++) tn_drop(slot[i]);
    return status;
}

/* The matrices `parts`, stacked: rows[i] by cols each. *stacked is false, and nothing loaded, when
 * their types differ. */
static int load_linear(loader *l, int n, const load_part *parts, const int64_t *rows, int64_t cols,
                       int64_t layer, bool *stacked, tni_linear *out) {
    load_stack k = {.n = n};
    bool table = parts[0] == PART_EMBED || parts[0] == PART_HEAD || parts[0] == PART_POS_EMBED,
         flip = l->m->arch->conv1d && !table;
    for (int i = 0; i < n; i++) {
        if (!load_find(l, parts[i], layer, ".weight", &k.w[i]))
            return load_missing(l, parts[i], layer, ".weight");
        k.rows += rows[i];
    }
    *stacked = load_same_kind(&k);
    if (!*stacked) return 0;
    int status, bits = l->s->gguf ? tni_affine_bits(k.w[0].type) : 0;
    if (!l->s->gguf && tni_load_is_packed(&k.w[0]))
        status = load_mlx(l, parts, rows, cols, &k, layer, out);
    else {
        for (int i = 0; i < n; i++)
            if (k.w[i].rows != (flip ? cols : rows[i]) || k.w[i].cols != (flip ? rows[i] : cols))
                return load_wrong_shape(l, &k.w[i], flip ? cols : rows[i], flip ? rows[i] : cols);
        bool turn = !table && !flip;
        status = bits ? load_gguf_affine(l, &k, bits, out) : load_plain(l, &k, turn, out);
        out->flipped = !bits && !table;
    }
    return status || table ? status : load_bias(l, parts, rows, n, layer, out);
}

static int load_one(loader *l, load_part part, int64_t rows, int64_t cols, int64_t layer,
                    tni_linear *out) {
    bool stacked;
    return load_linear(l, 1, &part, &rows, cols, layer, &stacked, out);
}

/* ---- layers ---- */

static int load_attention(loader *l, int64_t i, tni_layer *y) {
    const tn_llm *m = l->m;
    int64_t q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    tni_weight whole;
    bool stacked;
    if (load_find(l, PART_QKV, i, ".weight", &whole)) {
        int status = load_one(l, PART_QKV, q + 2 * kv, m->hidden, i, &y->qkv);
        return status ? status : load_one(l, PART_O, m->hidden, q, i, &y->o);
    }
    int status = load_linear(l, 3, (load_part[]){PART_Q, PART_K, PART_V}, (int64_t[]){q, kv, kv},
                             m->hidden, i, &stacked, &y->qkv);
    if (!status && !stacked) {
        status = load_one(l, PART_Q, q, m->hidden, i, &y->qkv);
        if (!status) status = load_one(l, PART_K, kv, m->hidden, i, &y->k);
        if (!status) status = load_one(l, PART_V, kv, m->hidden, i, &y->v);
    }
    return status ? status : load_one(l, PART_O, m->hidden, q, i, &y->o);
}

static int load_ffn(loader *l, int64_t i, tni_layer *y) {
    const tn_llm *m = l->m;
    bool stacked = true;
    int status;
    if (m->arch->gelu)
        status = load_one(l, PART_UP, m->ffn, m->hidden, i, &y->gate_up);
    else
        status = load_linear(l, 2, (load_part[]){PART_GATE, PART_UP}, (int64_t[]){m->ffn, m->ffn},
                             m->hidden, i, &stacked, &y->gate_up);
    if (!status && !stacked) {
        status = load_one(l, PART_GATE, m->ffn, m->hidden, i, &y->gate_up);
        if (!status) status = load_one(l, PART_UP, m->ffn, m->hidden, i, &y->up);
    }
    return status ? status : load_one(l, PART_DOWN, m->hidden, m->ffn, i, &y->down);
}

static int load_layer(loader *l, int64_t i) {
    tni_layer *y = &l->m->layer[i];
    int status = load_norm(l, PART_ATTN_NORM, i, &y->attn_norm);
    if (!status) status = load_attention(l, i, y);
    if (!status) status = load_norm(l, PART_FFN_NORM, i, &y->ffn_norm);
    return status ? status : load_ffn(l, i, y);
}

static int load_ends(loader *l) {
    tn_llm *m = l->m;
    tni_weight w;
    int status = load_one(l, PART_EMBED, m->vocab, m->hidden, 0, &m->embed);
    if (!status && m->arch->learned_pos) {
        tni_linear pos = {0};
        status = load_one(l, PART_POS_EMBED, m->context, m->hidden, 0, &pos);
        m->pos_embed = pos.w;
    }
    if (!status) status = load_norm(l, PART_FINAL_NORM, 0, &m->final_norm);
    /* Some files that tie the head to the embedding store it all the same. */
    bool tied = json_is_true(json_object_get(l->s->config, "tie_word_embeddings"));
    if (!status && !tied && load_find(l, PART_HEAD, 0, ".weight", &w))
        status = load_one(l, PART_HEAD, m->vocab, m->hidden, 0, &m->head);
    return status;
}

/* Finds how the files name things, by the embedding. */
static bool load_begin(loader *l, tn_llm *m, tni_weight *embed) {
    *l = (loader){.m = m, .s = m->source, .prefix = ""};
    l->family = m->source->gguf ? 2 : m->arch->conv1d ? 1 : 0;
    if (load_find(l, PART_EMBED, 0, ".weight", embed)) return true;
    l->prefix = m->arch->conv1d ? "transformer." : "";
    if (load_find(l, PART_EMBED, 0, ".weight", embed)) return true;
    l->prefix = "";
    return false;
}

bool tni_load_site(const tn_llm *m, int64_t layer, const char *key, const char *suffix,
                   tni_weight *w) {
    loader l;
    tni_weight embed;
    if (!load_begin(&l, (tn_llm *)m, &embed)) return false;
    for (size_t part = 0; part < sizeof load_names / sizeof *load_names; part++) {
        const char *at = strstr(load_names[part][m->arch->conv1d], "%d.");
        if (at && !strcmp(at + 3, key)) return load_find(&l, (load_part)part, layer, suffix, w);
    }
    return false;
}

int tni_llm_load_weights(tn_llm *m) {
    loader l;
    tni_weight probe;
    if (!load_begin(&l, m, &probe)) return load_missing(&l, PART_EMBED, 0, ".weight");
    m->vocab = probe.rows;
    m->layer = tni_calloc((size_t)m->layers, sizeof *m->layer);
    if (!m->layer)
        return tni_fail_memory((size_t)m->layers * sizeof *m->layer, "the model's layers");
    int status = load_ends(&l);
    for (int64_t i = 0; i < m->layers && !status; i++) status = load_layer(&l, i);
    tni_source_census(m->source, m->weights, sizeof m->weights, &m->parameters);
    return status ? status : tni_source_verify(m->source);
}
