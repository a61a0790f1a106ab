/* The tokenizer, the chat template and the tokens that end a turn. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/mmap.h"
#include "llm/json.h"
#include "llm/load.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { TEXT_JSON_LIMIT = 64 << 20 };

static int text_add_end(tn_llm *m, int64_t id) {
    if (id < 0 || id > INT32_MAX) return 0;
    int32_t *grown = tni_realloc(m->ends, (m->n_ends + 1) * sizeof *grown);
    if (!grown) return tni_fail_memory(sizeof *grown, "the end tokens");
    m->ends = grown;
    m->ends[m->n_ends++] = (int32_t)id;
    return 0;
}

static int text_copy(char **slot, const char *s, size_t n) {
    *slot = tni_strndup(s, n);
    return *slot ? 0 : tni_fail_memory(n, "a special token's text");
}

/* The text of token `id`, "" when there is none. */
static int text_token(const tn_llm *m, int64_t id, char **slot) {
    const char *s = "";
    size_t n = 0;
    if (id >= 0 && id <= INT32_MAX && m->tok) tni_tok_token_bytes(m->tok, (int32_t)id, &s, &n);
    return text_copy(slot, s, n);
}

/* ---- GGUF ---- */

static int text_gguf_flag(const tni_gguf *g, const char *key) {
    bool v;
    return tni_gguf_bool(g, key, &v) ? v : -1;
}

static int text_gguf_source(const tni_gguf *g, tni_tok_source *src, tni_bytes **spans) {
    int64_t v;
    size_t n_tokens = 0, n_merges = 0;
    if (!tni_gguf_array_len(g, "tokenizer.ggml.tokens", &n_tokens) || !n_tokens)
        return tni_fail(TN_EFORMAT, "the file has no vocabulary (tokenizer.ggml.tokens)");
    tni_gguf_array_len(g, "tokenizer.ggml.merges", &n_merges);
    *spans = tni_alloc_array(n_tokens + n_merges, sizeof **spans);
    if (!*spans) return tni_fail_memory((n_tokens + n_merges) * sizeof **spans, "the vocabulary");
    int status = tni_gguf_array_strings(g, "tokenizer.ggml.tokens", *spans, n_tokens);
    if (!status && n_merges)
        status = tni_gguf_array_strings(g, "tokenizer.ggml.merges", *spans + n_tokens, n_merges);
    *src = (tni_tok_source){.model = tni_gguf_str(g, "tokenizer.ggml.model"),
                            .pre = tni_gguf_str(g, "tokenizer.ggml.pre"),
                            .n_tokens = (int64_t)n_tokens,
                            .tokens = *spans,
                            .n_merges = (int64_t)n_merges,
                            .merges = *spans + n_tokens};
    src->bos = tni_gguf_i64(g, "tokenizer.ggml.bos_token_id", &v) ? (int32_t)v : -1;
    src->eos = tni_gguf_i64(g, "tokenizer.ggml.eos_token_id", &v) ? (int32_t)v : -1;
    src->unk = tni_gguf_i64(g, "tokenizer.ggml.unknown_token_id", &v) ? (int32_t)v : -1;
    src->add_bos = text_gguf_flag(g, "tokenizer.ggml.add_bos_token");
    src->add_eos = text_gguf_flag(g, "tokenizer.ggml.add_eos_token");
    src->add_space_prefix = text_gguf_flag(g, "tokenizer.ggml.add_space_prefix");
    return status;
}

/* Types and scores, one of each a token; what is missing stays NULL. */
static int text_gguf_numbers(const tni_gguf *g, size_t n, int32_t **types, float **scores) {
    size_t have = 0;
    int status = 0;
    if (tni_gguf_array_len(g, "tokenizer.ggml.token_type", &have) && have == n) {
        *types = tni_alloc_array(n, sizeof **types);
        status = *types ? tni_gguf_array_i32(g, "tokenizer.ggml.token_type", *types, n)
                        : tni_fail_memory(n * sizeof **types, "token types");
    }
    if (!status && tni_gguf_array_len(g, "tokenizer.ggml.scores", &have) && have == n) {
        *scores = tni_alloc_array(n, sizeof **scores);
        status = *scores ? tni_gguf_array_f32(g, "tokenizer.ggml.scores", *scores, n)
                         : tni_fail_memory(n * sizeof **scores, "token scores");
    }
    return status;
}

static int text_gguf(tn_llm *m) {
    const tni_gguf *g = m->source->gguf;
    tni_tok_source src;
    tni_bytes *spans = NULL;
    int32_t *types = NULL;
    float *scores = NULL;
    int64_t id;
    if (!tni_gguf_str(g, "tokenizer.ggml.model")) return 0; /* weights alone */
    int status = text_gguf_source(g, &src, &spans);
    if (!status) status = text_gguf_numbers(g, (size_t)src.n_tokens, &types, &scores);
    src.types = types, src.scores = scores;
    if (!status) status = tni_tok_from_gguf(&src, &m->tok);
    tni_free(spans);
    tni_free(types);
    tni_free(scores);
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < 3 && !status; i++)
        if (tni_gguf_i64(g, ends[i], &id)) status = text_add_end(m, id);
    if (!status) status = text_token(m, src.bos, &m->bos);
    if (!status) status = text_token(m, src.eos, &m->eos);
    const char *chat = tni_gguf_str(g, "tokenizer.chat_template");
    if (!status && chat) status = tni_template_parse(chat, strlen(chat), "chat template", &m->chat);
    const char *name = tni_gguf_str(g, "general.name");
    if (!status && name) status = text_copy(&m->name, name, strlen(name));
    return status;
}

/* ---- Hugging Face folders ---- */

static bool text_exists(const char *path) {
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

/* A JSON file of the folder; *out stays NULL when it is not there. */
static int text_json(const char *dir, const char *file, json_t **out) {
    char path[4096], *text;
    size_t n;
    *out = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    if (!text_exists(path)) return 0;
    int status = tni_file_read(path, TEXT_JSON_LIMIT, &text, &n);
    if (status) return status;
    status = tni_json_parse(text, n, 0, path, out);
    tni_free(text);
    return status;
}

/* "<s>" or {"content": "<s>", ...}. */
static int text_special(const json_t *config, const char *key, char **slot) {
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v)) v = json_object_get(v, "content");
    return json_is_string(v) ? text_copy(slot, json_string_value(v), json_string_length(v))
                             : text_copy(slot, "", 0);
}

static int text_ends_of(tn_llm *m, const json_t *config) {
    const json_t *v = json_object_get(config, "eos_token_id");
    if (json_is_integer(v)) return text_add_end(m, json_integer_value(v));
    int status = 0;
    for (size_t i = 0; i < json_array_size(v) && !status; i++)
        status = text_add_end(m, json_integer_value(json_array_get(v, i)));
    return status;
}

/* The template of tokenizer_config.json: a string, or a list of {"name", "template"}. */
static const json_t *text_chat_of(const json_t *config) {
    const json_t *v = json_object_get(config, "chat_template");
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *item = json_array_get(v, i);
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && !strcmp(name, "default")) return json_object_get(item, "template");
    }
    return v;
}

static int text_hf_template(tn_llm *m, const char *dir, const json_t *config) {
    char path[4096], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/chat_template.jinja", dir);
    if (text_exists(path)) {
        int status = tni_file_read(path, TEXT_JSON_LIMIT, &text, &n);
        if (!status)
            status = tni_template_parse(text, n, "chat_template.jinja", &m->chat), tni_free(text);
        return status;
    }
    const json_t *chat = text_chat_of(config);
    if (!json_is_string(chat)) return 0;
    return tni_template_parse(json_string_value(chat), json_string_length(chat), "chat template",
                              &m->chat);
}

static int text_hf(tn_llm *m, const char *dir) {
    char path[4096];
    json_t *config = NULL, *generation = NULL;
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    int status = text_exists(path) ? tni_tok_open(path, &m->tok) : 0;
    if (!status) status = text_json(dir, "tokenizer_config.json", &config);
    if (!status) status = text_json(dir, "generation_config.json", &generation);
    if (!status) status = text_special(config, "bos_token", &m->bos);
    if (!status) status = text_special(config, "eos_token", &m->eos);
    if (!status) status = text_hf_template(m, dir, config);
    if (!status && m->source) status = text_ends_of(m, m->source->config);
    if (!status) status = text_ends_of(m, generation);
    if (!status && m->tok && *m->eos)
        status = text_add_end(m, tni_tok_id(m->tok, m->eos, strlen(m->eos)));
    json_decref(config);
    json_decref(generation);
    return status;
}

int tni_llm_load_text(tn_llm *m, const char *path) {
    if (m->source && m->source->gguf) return text_gguf(m);
    struct stat st;
    if (!stat(path, &st) && S_ISDIR(st.st_mode)) return text_hf(m, path);
    return tni_tok_open(path, &m->tok);
}
