/* The model object: opening, describing, text. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/load.h"
#include <string.h>
#include <sys/stat.h>

/* ---- open and free ---- */

static void llm_drop_linear(tni_linear *l) {
    tn_drop(l->w), tn_drop(l->scales), tn_drop(l->biases), tn_drop(l->bias);
}

static void llm_drop_layer(tni_layer *l) {
    tni_linear *linear[] = {&l->qkv, &l->k, &l->v, &l->o, &l->gate_up, &l->up, &l->down};
    tn_array *norms[] = {l->attn_norm.weight, l->attn_norm.bias, l->ffn_norm.weight,
                         l->ffn_norm.bias};
    for (size_t i = 0; i < sizeof linear / sizeof *linear; i++) llm_drop_linear(linear[i]);
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++) tn_drop(norms[i]);
}

void tn_llm_free(tn_llm *m) {
    if (!m) return;
    tn_llm_adapter_drop(m);
    for (int64_t i = 0; m->layer && i < m->layers; i++) llm_drop_layer(&m->layer[i]);
    llm_drop_linear(&m->embed), llm_drop_linear(&m->head);
    tn_drop(m->pos_embed), tn_drop(m->rope_freqs);
    tn_drop(m->final_norm.weight), tn_drop(m->final_norm.bias);
    tni_tok_free(m->tok);
    tni_template_free(m->chat);
    tni_source_free(m->source);
    tni_free(m->layer), tni_free(m->ends), tni_free(m->name), tni_free(m->bos), tni_free(m->eos);
    tni_free(m);
}

static int llm_load(tn_llm *m, const char *path) {
    int status = tni_source_open(path, &m->source);
    if (status) return status;
    m->format = m->source->gguf ? "GGUF" : "safetensors";
    status = tni_llm_load_config(m);
    if (!status) status = tni_llm_load_weights(m);
    return status ? status : tni_llm_load_text(m, path);
}

int tn_llm_open(const char *path, tn_llm **out) {
    *out = NULL;
    tn_llm *m = tni_calloc(1, sizeof *m);
    if (!m) return tni_fail_memory(sizeof *m, "a model");
    int status = llm_load(m, path);
    if (status)
        tn_llm_free(m);
    else
        *out = m;
    return status;
}

/* A tokenizer needs no weights: a GGUF file's metadata, a folder's tokenizer files, or
 * tokenizer.json. */
static int llm_load_tokenizer(tn_llm *m, const char *path) {
    struct stat st;
    size_t n = strlen(path);
    bool is_json = n > 5 && !strcmp(path + n - 5, ".json");
    if (stat(path, &st))
        return tni_fail(TN_EFILE, "%s: no such file or folder, or it cannot be read", path);
    if (S_ISREG(st.st_mode) && !is_json) {
        int status = tni_source_open(path, &m->source);
        if (status) return status;
    }
    int status = tni_llm_load_text(m, path);
    if (!status && !m->tok && !m->chat)
        status = tni_fail(TN_EFORMAT, "%s: no tokenizer found", path);
    return status;
}

int tn_llm_open_tokenizer(const char *path, tn_llm **out) {
    *out = NULL;
    tn_llm *m = tni_calloc(1, sizeof *m);
    if (!m) return tni_fail_memory(sizeof *m, "a tokenizer");
    int status = llm_load_tokenizer(m, path);
    if (status)
        tn_llm_free(m);
    else
        *out = m;
    return status;
}

tn_llm_info tn_llm_describe(const tn_llm *m) {
    return (tn_llm_info){.architecture = m->arch ? m->arch->name : "",
                         .name = m->name ? m->name : "",
                         .format = m->format ? m->format : "",
                         .weights = m->weights,
                         .layers = m->layers,
                         .hidden = m->hidden,
                         .heads = m->heads,
                         .kv_heads = m->kv_heads,
                         .head_dim = m->head_dim,
                         .ffn = m->ffn,
                         .vocab = m->vocab,
                         .context = m->context,
                         .parameters = m->parameters,
                         .bytes = m->bytes,
                         .adapter = tni_lora_numbers(m),
                         .has_tokenizer = m->tok != NULL,
                         .has_template = m->chat != NULL};
}

/* ---- text ---- */

static int llm_no_tokenizer(void) { return tni_fail(TN_ESTATE, "the model has no tokenizer"); }

static int llm_encode(const tn_llm *m, const char *text, size_t n, const uint8_t *literal,
                      int flags, int32_t **ids, size_t *n_ids) {
    tni_ids list = {0};
    *ids = NULL, *n_ids = 0;
    int tok = (flags & TN_TEXT_SPECIAL ? TNI_TOK_SPECIAL : 0) |
              (flags & TN_TEXT_BOS ? TNI_TOK_TEMPLATE : 0);
    if (!m->tok) return llm_no_tokenizer();
    int status = tni_tok_encode_spans(m->tok, text, n, literal, tok, &list);
    if (status)
        tni_free(list.v);
    else
        *ids = list.v, *n_ids = list.n;
    return status;
}

int tn_llm_tokenize(const tn_llm *m, const char *text, size_t n, int flags, int32_t **ids,
                    size_t *n_ids) {
    return llm_encode(m, text, n, NULL, flags, ids, n_ids);
}

void tn_llm_ids_free(int32_t *ids) { tni_free(ids); }
void tn_llm_text_free(char *text) { tni_free(text); }

int tn_llm_detokenize(const tn_llm *m, const int32_t *ids, size_t n, bool skip_special, char **text,
                      size_t *n_text) {
    tni_str s = {0};
    *text = NULL, *n_text = 0;
    if (!m->tok) return llm_no_tokenizer();
    int status = tni_tok_decode(m->tok, ids, n, skip_special, &s);
    if (!status) status = tni_str_append(&s, "", 0) ? tni_fail_memory(1, "text") : 0;
    if (status)
        tni_str_free(&s);
    else
        *text = s.v, *n_text = s.n;
    return status;
}

bool tn_llm_is_end(const tn_llm *m, int32_t id) {
    for (size_t i = 0; i < m->n_ends; i++)
        if (m->ends[i] == id) return true;
    return false;
}

static int llm_render(const tn_llm *m, const char *messages, const tn_llm_chat_opt *opt,
                      tni_str *text, tni_str *literal) {
    if (!m->chat) return tni_fail(TN_ESTATE, "the model has no chat template");
    tni_render_opt o = {.bos_token = m->bos,
                        .eos_token = m->eos,
                        .add_generation_prompt = !(opt && opt->no_generation_prompt)};
    if (opt) o.tools_json = opt->tools, o.extra_json = opt->extra;
    return tni_template_render(m->chat, messages, strlen(messages), &o, text, literal);
}

int tn_llm_render(const tn_llm *m, const char *messages, const tn_llm_chat_opt *opt, char **text,
                  size_t *n) {
    tni_str s = {0};
    *text = NULL, *n = 0;
    int status = llm_render(m, messages, opt, &s, NULL);
    if (!status) status = tni_str_append(&s, "", 0) ? tni_fail_memory(1, "text") : 0;
    if (status)
        tni_str_free(&s);
    else
        *text = s.v, *n = s.n;
    return status;
}

int tn_llm_chat(const tn_llm *m, const char *messages, const tn_llm_chat_opt *opt, int32_t **ids,
                size_t *n) {
    tni_str text = {0}, literal = {0};
    *ids = NULL, *n = 0;
    int status = llm_render(m, messages, opt, &text, &literal);
    if (!status)
        status = llm_encode(m, text.v ? text.v : "", text.n, (const uint8_t *)literal.v,
                            TN_TEXT_SPECIAL, ids, n);
    tni_str_free(&text);
    tni_str_free(&literal);
    return status;
}
