/* The model's shape from config.json or GGUF metadata, every number checked before use. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/load.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* One number of the shape: its names in config.json (llama, gpt2) and GGUF, its range. */
typedef struct config_row {
    const char *json, *json_gpt2, *gguf;
    size_t offset;
    int64_t low, high, fallback; /* fallback 0: must be there */
} config_row;

#define AT(field) offsetof(tn_llm, field)
static const config_row config_rows[] = {
    {"num_hidden_layers", "n_layer", "block_count", AT(layers), 1, 1000, 0},
    {"hidden_size", "n_embd", "embedding_length", AT(hidden), 1, 1 << 20, 0},
    {"num_attention_heads", "n_head", "attention.head_count", AT(heads), 1, 1 << 16, 0},
    {"num_key_value_heads", "", "attention.head_count_kv", AT(kv_heads), 1, 1 << 16, -1},
    {"head_dim", "", "attention.key_length", AT(head_dim), 1, 1 << 16, -1},
    {"intermediate_size", "n_inner", "feed_forward_length", AT(ffn), 1, 1 << 24, -1},
    {"max_position_embeddings", "n_positions", "context_length", AT(context), 1, 1 << 28, 0},
};

static const char *config_gguf_key(const tn_llm *m, const char *key, char *buf, size_t n) {
    snprintf(buf, n, "%s.%s", m->arch->name, key);
    return buf;
}

static int config_number(tn_llm *m, const config_row *r) {
    char key[96];
    int64_t v, *field = (int64_t *)(void *)((char *)m + r->offset);
    const char *json = m->arch->conv1d ? r->json_gpt2 : r->json;
    if (!tni_source_i64(m->source, json, config_gguf_key(m, r->gguf, key, sizeof key), &v)) {
        if (r->fallback) return *field = 0, 0;
        return tni_fail(TN_EFORMAT, "%s: \"%s\" is missing or not a whole number", m->source->path,
                        m->source->gguf ? key : json);
    }
    if (v < r->low || v > r->high)
        return tni_fail(TN_EFORMAT, "%s: \"%s\" is %lld; %lld to %lld are possible",
                        m->source->path, m->source->gguf ? key : json, (long long)v,
                        (long long)r->low, (long long)r->high);
    *field = v;
    return 0;
}

static int config_derive(tn_llm *m) {
    if (!m->kv_heads) m->kv_heads = m->heads;
    if (!m->head_dim) m->head_dim = m->hidden / m->heads;
    if (!m->ffn) m->ffn = 4 * m->hidden; /* GPT-2's rule when n_inner is null */
    if (m->heads % m->kv_heads || m->head_dim < 1)
        return tni_fail(
            TN_EFORMAT, "%s: %lld heads, %lld for keys and values, %lld wide do not fit",
            m->source->path, (long long)m->heads, (long long)m->kv_heads, (long long)m->hidden);
    return 0;
}

static int config_architecture(tn_llm *m) {
    const tni_source *s = m->source;
    const char *name = s->gguf ? tni_gguf_str(s->gguf, "general.architecture")
                               : json_string_value(json_object_get(s->config, "model_type"));
    if (!name) return tni_fail(TN_EFORMAT, "%s: the file does not name its architecture", s->path);
    m->arch = tni_arch_find(name);
    if (m->arch && (!s->gguf || m->arch->gguf)) return 0;
    return tni_fail(TN_EFORMAT,
                    "%s: the architecture \"%s\" is not supported%s; llama, mistral and gpt2 are",
                    s->path, name, s->gguf ? " from GGUF" : "");
}

/* ---- rotary embedding ---- */

/* Llama 3.1's rule ("llama3"): long wavelengths stretched by `factor`, short ones kept, a linear
 * blend between. freqs are wavelengths / 2 pi, as tn_fast_rope wants them. */
static int config_rope_llama3(tn_llm *m, double factor, double low, double high, double old) {
    int n = m->rope_dims / 2;
    float *f = tni_alloc_array((size_t)n, sizeof *f);
    if (!f) return tni_fail_memory((size_t)n * sizeof *f, "rope frequencies");
    for (int i = 0; i < n; i++) {
        double freq = pow(m->rope_base, -2.0 * i / m->rope_dims),
               wave = 2 * 3.14159265358979323846 / freq;
        double blend = (old / wave - low) / (high - low);
        blend = blend < 0 ? 0 : blend > 1 ? 1 : blend;
        f[i] = (float)(1 / ((1 - blend) * freq / factor + blend * freq));
    }
    int status = 0;
    TN_SCOPE {
        status = tn_assign(&m->rope_freqs, tn_array_new(f, TN_F32, TN_SHAPE(n)));
    }
    tni_free(f);
    return status;
}

static int config_rope_scaling(tn_llm *m, const json_t *r) {
    const json_t *kind = json_object_get(r, "rope_type");
    const char *name = json_string_value(kind ? kind : json_object_get(r, "type"));
    double factor = json_number_value(json_object_get(r, "factor"));
    const json_t *theta = json_object_get(r, "rope_theta");
    if (json_is_number(theta)) m->rope_base = json_number_value(theta);
    if (!name || !strcmp(name, "default")) return 0;
    if (!(factor > 0) || isinf(factor))
        return tni_fail(TN_EFORMAT, "%s: rope scaling \"%s\" needs a positive factor",
                        m->source->path, name);
    if (!strcmp(name, "linear")) return m->rope_scale = 1 / factor, 0;
    if (strcmp(name, "llama3"))
        return tni_fail(TN_EFORMAT,
                        "%s: rope scaling \"%s\" is not supported; default, linear and llama3 are",
                        m->source->path, name);
    double low = json_number_value(json_object_get(r, "low_freq_factor")),
           high = json_number_value(json_object_get(r, "high_freq_factor"));
    double old = json_number_value(json_object_get(r, "original_max_position_embeddings"));
    if (!(low > 0) || !(high > low) || !(old > 0))
        return tni_fail(TN_EFORMAT, "%s: rope scaling \"llama3\" has factors out of range",
                        m->source->path);
    return config_rope_llama3(m, factor, low, high, old);
}

static int config_rope_gguf(tn_llm *m) {
    char key[96];
    const char *kind =
        tni_gguf_str(m->source->gguf, config_gguf_key(m, "rope.scaling.type", key, sizeof key));
    double factor;
    tni_weight w;
    if (tni_source_find(m->source, "rope_freqs.weight",
                        &w)) { /* factors of each frequency, f32 [dims/2] */
        if (w.rows * w.cols != m->rope_dims / 2)
            return tni_fail(TN_EFORMAT, "%s: \"rope_freqs.weight\" has %lld numbers; %d are needed",
                            m->source->path, (long long)(w.rows * w.cols), m->rope_dims / 2);
        int status = 0;
        TN_SCOPE {
            tn_array *i = tn_arange(0, m->rope_dims / 2, 1, TN_F32);
            tn_array *wave = tn_exp(tn_mul(i, tn_f32(2 * log(m->rope_base) / m->rope_dims)));
            wave = tn_mul(wave, tn_reshape(tn_astype(tni_source_array(m->source, &w), TN_F32),
                                           TN_SHAPE(m->rope_dims / 2)));
            status = tn_commit(&m->rope_freqs, TN_LIST(wave), (tn_list){0});
        }
        return status;
    }
    if (!kind || !strcmp(kind, "none")) return 0;
    if (strcmp(kind, "linear"))
        return tni_fail(TN_EFORMAT, "%s: rope scaling \"%s\" is not supported; none and linear are",
                        m->source->path, kind);
    if (tni_source_f64(m->source, "", config_gguf_key(m, "rope.scaling.factor", key, sizeof key),
                       &factor) &&
        factor > 0)
        m->rope_scale = 1 / factor;
    return 0;
}

static int config_rope(tn_llm *m) {
    char key[96];
    int64_t dims;
    m->rope_base = 10000, m->rope_scale = 1, m->rope_dims = (int)m->head_dim;
    m->rope_traditional =
        m->source->gguf != NULL; /* GGUF llama stores q and k for interleaved pairs */
    if (m->arch->learned_pos) return 0;
    tni_source_f64(m->source, "rope_theta", config_gguf_key(m, "rope.freq_base", key, sizeof key),
                   &m->rope_base);
    if (m->source->gguf &&
        tni_source_i64(m->source, "", config_gguf_key(m, "rope.dimension_count", key, sizeof key),
                       &dims)) {
        if (dims < 2 || dims % 2 || dims > m->head_dim)
            return tni_fail(TN_EFORMAT, "%s: %lld rotary dimensions of heads of %lld",
                            m->source->path, (long long)dims, (long long)m->head_dim);
        m->rope_dims = (int)dims;
    }
    if (m->rope_dims % 2)
        return tni_fail(TN_EFORMAT, "%s: rotary embedding of heads of %d", m->source->path,
                        m->rope_dims);
    if (!(m->rope_base > 0) || isinf(m->rope_base))
        return tni_fail(TN_EFORMAT, "%s: the rotary base is %g", m->source->path, m->rope_base);
    if (m->source->gguf) return config_rope_gguf(m);
    const json_t *r = json_object_get(m->source->config, "rope_scaling");
    if (!json_is_object(r)) r = json_object_get(m->source->config, "rope_parameters");
    return json_is_object(r) ? config_rope_scaling(m, r) : 0;
}

/* ---- what is not supported must not be ignored ---- */

static int config_refuse(const tn_llm *m) {
    const json_t *c = m->source->config;
    const char *act = json_string_value(
        json_object_get(c, m->arch->conv1d ? "activation_function" : "hidden_act"));
    const char *want = m->arch->gelu ? "gelu_new" : "silu";
    if (act && strcmp(act, want) && !(m->arch->gelu && !strcmp(act, "gelu_pytorch_tanh")))
        return tni_fail(TN_EFORMAT, "%s: the activation \"%s\" is not supported for %s; \"%s\" is",
                        m->source->path, act, m->arch->name, want);
    if (json_is_true(json_object_get(c, "scale_attn_by_inverse_layer_idx")) ||
        json_is_false(json_object_get(c, "scale_attn_weights")))
        return tni_fail(TN_EFORMAT, "%s: this scaling of attention is not supported",
                        m->source->path);
    const json_t *window = json_object_get(c, "sliding_window");
    if (json_is_integer(window) && json_integer_value(window) < m->context)
        return tni_fail(TN_EFORMAT, "%s: a sliding window of %lld is not supported",
                        m->source->path, (long long)json_integer_value(window));
    int64_t experts;
    char key[96];
    if (tni_source_i64(m->source, "num_local_experts",
                       config_gguf_key(m, "expert_count", key, sizeof key), &experts) &&
        experts > 0)
        return tni_fail(TN_EFORMAT, "%s: mixtures of experts are not supported", m->source->path);
    return 0;
}

int tni_llm_load_config(tn_llm *m) {
    char key[96];
    double eps = 1e-5;
    int status = config_architecture(m);
    for (size_t i = 0; i < sizeof config_rows / sizeof *config_rows && !status; i++)
        status = config_number(m, &config_rows[i]);
    if (!status) status = config_derive(m);
    if (status) return status;
    const char *json = m->arch->layer_norm ? "layer_norm_epsilon" : "rms_norm_eps";
    tni_source_f64(m->source, json,
                   config_gguf_key(m,
                                   m->arch->layer_norm ? "attention.layer_norm_epsilon"
                                                       : "attention.layer_norm_rms_epsilon",
                                   key, sizeof key),
                   &eps);
    if (!(eps > 0 && eps < 1))
        return tni_fail(TN_EFORMAT, "%s: the normalisation's epsilon is %g", m->source->path, eps);
    m->norm_eps = (float)eps;
    status = config_rope(m);
    return status ? status : config_refuse(m);
}

/* ---- MLX's quantisation settings ---- */

static bool config_fits(int64_t cols, int64_t words, int64_t groups, int64_t group, int64_t bits) {
    return group > 0 && bits > 0 && group * groups == cols && words * 32 == cols * bits;
}

/* The settings that the tensor's own module or the whole model has, if they fit its shape. */
int tni_load_quant(const tni_source *s, const char *name, int64_t cols, int64_t words,
                   int64_t groups, int *group, int *bits) {
    const json_t *q = json_object_get(s->config, "quantization");
    if (!json_is_object(q)) q = json_object_get(s->config, "quantization_config");
    char module[192];
    snprintf(module, sizeof module, "%s", name);
    char *dot = strrchr(module, '.');
    if (dot) *dot = 0;
    const json_t *own = json_object_get(q, module), *from = json_is_object(own) ? own : q;
    const char *mode = json_string_value(json_object_get(from, "mode"));
    if (mode && strcmp(mode, "affine"))
        return tni_fail(TN_EFORMAT,
                        "%s: quantisation \"%s\" of \"%s\" is not supported; \"affine\" is",
                        s->path, mode, name);
    int64_t g = json_integer_value(json_object_get(from, "group_size")),
            b = json_integer_value(json_object_get(from, "bits"));
    if (!config_fits(cols, words, groups, g, b))
        return tni_fail(TN_EFORMAT,
                        "%s: \"%s\" is quantised, but config.json's group_size %lld and bits %lld "
                        "do not fit its shape",
                        s->path, name, (long long)g, (long long)b);
    *group = (int)g, *bits = (int)b;
    return 0;
}
