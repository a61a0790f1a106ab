/* Which matrices of a model may have an adapter, under which names, and making fresh ones. */
#include "llm/lora.h"
#include "base/alloc.h"
#include "base/err.h"
#include "llm/load.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the matrices ---- */

/* GGUF keeps the rows of q and k of a head in pairs (j, j + half), Hugging Face one half after the
 * other; b's columns follow. */
static int64_t lora_pairs(const tn_llm *m, int64_t heads) { return m->source->gguf ? heads : 0; }

/* Matrix `part` of a stack, or the one beside it. */
static tni_lora *lora_of(tni_linear *stack, int part, tni_linear *alone) {
    return alone->w ? &alone->lora[0] : &stack->lora[part];
}

static int lora_sites_gpt2(const tn_llm *m, tni_layer *y, tni_site *out) {
    int64_t d = m->hidden, q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    out[0] = (tni_site){"attn.c_attn", &y->qkv.lora[0], d, q + 2 * kv, 0};
    out[1] = (tni_site){"attn.c_proj", &y->o.lora[0], q, d, 0};
    out[2] = (tni_site){"mlp.c_fc", &y->gate_up.lora[0], d, m->ffn, 0};
    out[3] = (tni_site){"mlp.c_proj", &y->down.lora[0], m->ffn, d, 0};
    return 4;
}

int tni_lora_sites(const tn_llm *m, int64_t i, tni_site out[TNI_LORA_SITES]) {
    tni_layer *y = &m->layer[i];
    int64_t d = m->hidden, q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    if (m->arch->conv1d) return lora_sites_gpt2(m, y, out);
    tni_lora *up = lora_of(&y->gate_up, 1, &y->up);
    out[0] = (tni_site){"self_attn.q_proj", &y->qkv.lora[0], d, q, lora_pairs(m, m->heads)};
    out[1] = (tni_site){"self_attn.k_proj", lora_of(&y->qkv, 1, &y->k), d, kv,
                        lora_pairs(m, m->kv_heads)};
    out[2] = (tni_site){"self_attn.v_proj", lora_of(&y->qkv, 2, &y->v), d, kv, 0};
    out[3] = (tni_site){"self_attn.o_proj", &y->o.lora[0], q, d, 0};
    out[4] = (tni_site){"mlp.gate_proj", &y->gate_up.lora[0], d, m->ffn, 0};
    out[5] = (tni_site){"mlp.up_proj", up, d, m->ffn, 0};
    out[6] = (tni_site){"mlp.down_proj", &y->down.lora[0], m->ffn, d, 0};
    return 7;
}

void tni_lora_name(const tn_llm *m, int64_t layer, const char *key, char *buf, size_t n) {
    snprintf(buf, n, "model.%s.%lld.%s", m->arch->conv1d ? "h" : "layers", (long long)layer, key);
}

int tni_lora_each(const tn_llm *m,
                  int (*fn)(const tn_llm *m, int64_t layer, const tni_site *s, void *ud),
                  void *ud) {
    tni_site site[TNI_LORA_SITES];
    for (int64_t i = 0; m->layer && i < m->layers; i++) {
        int n = tni_lora_sites(m, i, site);
        for (int k = 0; k < n; k++) {
            int status = fn(m, i, &site[k], ud);
            if (status) return status;
        }
    }
    return 0;
}

static int lora_count(const tn_llm *m, int64_t layer, const tni_site *s, void *ud) {
    (void)m, (void)layer;
    *(int64_t *)ud += tn_size(s->lora->a) + tn_size(s->lora->b);
    return 0;
}

int64_t tni_lora_numbers(const tn_llm *m) {
    int64_t n = 0;
    if (m->adapter.rank) tni_lora_each(m, lora_count, &n);
    return n;
}

/* ---- ending and exchanging ---- */

static int lora_drop(const tn_llm *m, int64_t layer, const tni_site *s, void *ud) {
    (void)m, (void)layer, (void)ud;
    tn_drop(s->lora->a), tn_drop(s->lora->b);
    *s->lora = (tni_lora){0};
    return 0;
}

void tn_llm_adapter_drop(tn_llm *m) {
    if (!m->arch) return; /* a tokenizer alone */
    tni_lora_each(m, lora_drop, NULL);
    tni_free(m->adapter.keys);
    m->adapter = (tni_adapter){0};
}

static int lora_move(const tn_llm *m, int64_t layer, const tni_site *s, void *ud) {
    (void)m, (void)layer;
    tni_lora **next = ud;
    *s->lora = *(*next)++;
    return 0;
}

void tni_lora_exchange(tn_llm *m, const tni_adapter *a, tni_lora *fresh) {
    tn_llm_adapter_drop(m);
    tni_lora_each(m, lora_move, &fresh);
    m->adapter = *a;
}

void tni_lora_release(const tn_llm *m, tni_adapter *a, tni_lora *fresh) {
    for (int64_t i = 0; fresh && i < m->layers * TNI_LORA_SITES; i++)
        tn_drop(fresh[i].a), tn_drop(fresh[i].b);
    tni_free(fresh);
    tni_free(a->keys);
}

/* ---- keys ---- */

bool tni_lora_has_key(const char *keys, const char *key) {
    size_t n = strlen(key);
    for (const char *at = keys; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, key, n) && (at[n] == ',' || !at[n])) return true;
    return !keys;
}

/* Each name of the list is one of a layer's matrices. */
static int lora_check_keys(const tn_llm *m, const char *keys) {
    tni_site site[TNI_LORA_SITES];
    int n = tni_lora_sites(m, 0, site);
    for (const char *at = keys; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        int len = (int)strcspn(at, ","), k = 0;
        while (k < n && (strncmp(at, site[k].key, (size_t)len) || site[k].key[len])) k++;
        if (k < n) continue;
        tni_str all = {0};
        for (k = 0; k < n; k++)
            if (tni_str_printf(&all, "%s%s", k ? ", " : "", site[k].key))
                return tni_str_free(&all), tni_fail_memory(64, "the names of matrices");
        int status = tni_fail(TN_EVALUE, "adapter: no matrix \"%.*s\" in a layer; there are %s",
                              len > 64 ? 64 : len, at, all.v);
        tni_str_free(&all);
        return status;
    }
    return 0;
}

/* ---- fresh adapters ---- */

static int lora_check(const tn_llm *m, const tni_adapter *a) {
    if (!m->layer) return tni_fail(TN_ESTATE, "adapter: the model has no weights");
    if (a->rank < 1 || a->rank > TNI_LORA_RANK)
        return tni_fail(TN_EVALUE, "adapter: rank %lld; 1 to %d are possible", (long long)a->rank,
                        TNI_LORA_RANK);
    if (!isfinite(a->scale)) return tni_fail(TN_EVALUE, "adapter: the scale is %g", a->scale);
    if (!(a->dropout >= 0 && a->dropout < 1))
        return tni_fail(TN_EVALUE, "adapter: dropout %g; 0 up to but not including 1 are possible",
                        a->dropout);
    if (a->layers < 1 || a->layers > m->layers)
        return tni_fail(TN_EVALUE, "adapter: for %lld layers; the model has %lld",
                        (long long)a->layers, (long long)m->layers);
    return lora_check_keys(m, a->keys);
}

/* mlx-lm's beginning: a uniform in +-1/sqrt(in), b zero. */
static int lora_begin(const tni_site *s, int64_t rank, tn_array *key, tni_lora *out) {
    double bound = 1 / sqrt((double)s->in);
    tn_array *a =
        tn_random_uniform(tn_f32(-bound), tn_f32(bound), TN_SHAPE(s->in, rank), TN_F32, key);
    tn_array *b = tn_zeros(TN_SHAPE(rank, s->out), TN_F32);
    int status = tn_commit(&out->a, TN_LIST(a), (tn_list){0});
    return status ? status : tn_commit(&out->b, TN_LIST(b), (tn_list){0});
}

static int lora_begin_all(const tn_llm *m, const tni_adapter *a, uint64_t seed, tni_lora *fresh) {
    tni_site site[TNI_LORA_SITES];
    int status = 0;
    for (int64_t i = m->layers - a->layers, at = 0; i < m->layers && !status; i++)
        TN_SCOPE {
            int n = tni_lora_sites(m, i, site);
            at = i * n;
            /* The key depends on the place alone, so other choices leave a matrix's values. */
            tn_array *keys = tn_random_split(tn_random_key(seed + (uint64_t)i), n);
            for (int k = 0; k < n && !status; k++) {
                tn_array *key = tn_reshape(tn_slice_axis(keys, 0, k, k + 1), TN_SHAPE(2));
                if (tni_lora_has_key(a->keys, site[k].key))
                    status = lora_begin(&site[k], a->rank, key, &fresh[at + k]);
            }
        }
    return status;
}

int tn_llm_adapter_new(tn_llm *m, const tn_llm_lora_opt *opt) {
    static const tn_llm_lora_opt none = {.size = sizeof none};
    if (!opt) opt = &none;
    tni_adapter a = {.rank = opt->rank ? opt->rank : 8,
                     .scale = opt->scale != 0 ? opt->scale : 20,
                     .dropout = opt->dropout,
                     .layers = opt->layers ? opt->layers : m->layers};
    if (opt->keys && !(a.keys = tni_strdup(opt->keys)))
        return tni_fail_memory(strlen(opt->keys), "an adapter");
    int status = lora_check(m, &a);
    size_t n = (size_t)m->layers * TNI_LORA_SITES;
    tni_lora *fresh = status ? NULL : tni_calloc(n, sizeof *fresh);
    if (!status && !fresh) status = tni_fail_memory(n * sizeof *fresh, "an adapter");
    if (!status) status = lora_begin_all(m, &a, opt->seed, fresh);
    if (status) return tni_lora_release(m, &a, fresh), status;
    tni_lora_exchange(m, &a, fresh);
    tni_free(fresh);
    return 0;
}
