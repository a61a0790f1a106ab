/* Any bytes as config.json, beside the weights of a tiny Llama and a tiny GPT-2: refused with a
 * sentence, or the model runs. */
#include "base/alloc.h"
#include "base/str.h"
#include "llm/load.h"
#include "tenon/llm.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x)) abort();                                                                         \
    } while (0)

/* 2 layers of 8, 2 heads (1 for keys) of 4, a feed-forward of 16 or 32, 10 tokens, 16 positions. */
static const struct {
    const char *name;
    int rows, cols; /* cols 0: a vector */
    int layers;
} fuzz_tensors[] = {
    {"model.embed_tokens.weight", 10, 8, 0},
    {"model.norm.weight", 8, 0, 0},
    {"lm_head.weight", 10, 8, 0},
    {"model.layers.%d.input_layernorm.weight", 8, 0, 2},
    {"model.layers.%d.post_attention_layernorm.weight", 8, 0, 2},
    {"model.layers.%d.self_attn.q_proj.weight", 8, 8, 2},
    {"model.layers.%d.self_attn.k_proj.weight", 4, 8, 2},
    {"model.layers.%d.self_attn.v_proj.weight", 4, 8, 2},
    {"model.layers.%d.self_attn.o_proj.weight", 8, 8, 2},
    {"model.layers.%d.mlp.gate_proj.weight", 16, 8, 2},
    {"model.layers.%d.mlp.up_proj.weight", 16, 8, 2},
    {"model.layers.%d.mlp.down_proj.weight", 8, 16, 2},
    {"wte.weight", 10, 8, 0},
    {"wpe.weight", 16, 8, 0},
    {"ln_f.weight", 8, 0, 0},
    {"ln_f.bias", 8, 0, 0},
    {"h.%d.ln_1.weight", 8, 0, 2},
    {"h.%d.ln_1.bias", 8, 0, 2},
    {"h.%d.ln_2.weight", 8, 0, 2},
    {"h.%d.ln_2.bias", 8, 0, 2},
    {"h.%d.attn.c_attn.weight", 8, 24, 2},
    {"h.%d.attn.c_attn.bias", 24, 0, 2},
    {"h.%d.attn.c_proj.weight", 8, 8, 2},
    {"h.%d.attn.c_proj.bias", 8, 0, 2},
    {"h.%d.mlp.c_fc.weight", 8, 32, 2},
    {"h.%d.mlp.c_fc.bias", 32, 0, 2},
    {"h.%d.mlp.c_proj.weight", 32, 8, 2},
    {"h.%d.mlp.c_proj.bias", 8, 0, 2},
};

static void fuzz_tensor(tni_str *header, size_t *at, size_t i, int layer) {
    char name[96];
    size_t n = strcspn(fuzz_tensors[i].name, "%");
    int rows = fuzz_tensors[i].rows, cols = fuzz_tensors[i].cols;
    bool hole = fuzz_tensors[i].name[n] != 0;
    snprintf(name, sizeof name, "%.*s%.*d%s", (int)n, fuzz_tensors[i].name, hole ? 1 : 0,
             hole ? layer : 0, hole ? fuzz_tensors[i].name + n + 2 : "");
    size_t bytes = (size_t)rows * (size_t)(cols ? cols : 1) * 4;
    MUST(!tni_str_printf(header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%d", *at ? "," : "", name,
                         rows));
    if (cols) MUST(!tni_str_printf(header, ",%d", cols));
    MUST(!tni_str_printf(header, "],\"data_offsets\":[%zu,%zu]}", *at, *at + bytes));
    *at += bytes;
}

static tni_str fuzz_file(void) {
    tni_str header = {0}, file = {0};
    size_t at = 0;
    MUST(!tni_str_putc(&header, '{'));
    for (size_t i = 0; i < sizeof fuzz_tensors / sizeof *fuzz_tensors; i++)
        for (int k = 0; k < (fuzz_tensors[i].layers ? fuzz_tensors[i].layers : 1); k++)
            fuzz_tensor(&header, &at, i, k);
    MUST(!tni_str_putc(&header, '}'));
    while (header.n % 8) MUST(!tni_str_putc(&header, ' '));
    uint64_t n = header.n;
    MUST(!tni_str_append(&file, (const char *)&n, 8) && !tni_str_append(&file, header.v, header.n));
    for (size_t i = 0; i < at / 4; i++) {
        float x = (float)((int)(i * 2654435761u >> 24) - 128) / 256;
        MUST(!tni_str_append(&file, (const char *)&x, 4));
    }
    tni_str_free(&header);
    return file;
}

static void fuzz_run(tn_llm *m) {
    const int32_t ids[3] = {1, 2, 3};
    tn_llm_session *s;
    tn_llm_token token;
    MUST(!tn_llm_session_new(m, NULL, &s));
    int status = tn_llm_prompt(s, ids, 3, NULL, NULL);
    for (int i = 0; i < 2 && !status; i++) status = tn_llm_next(s, NULL, &token);
    MUST(!status || *tn_error());
    tn_llm_session_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static tni_str file;
    if (!file.n) file = fuzz_file();
    json_t *config = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(config)) return json_decref(config), 0;
    tn_llm *m = tni_calloc(1, sizeof *m);
    tni_source *s = m ? tni_calloc(1, sizeof *s) : NULL;
    MUST(s);
    m->source = s, s->config = config, s->path = tni_strdup("fuzz");
    MUST(s->path && !tni_st_open_mem(file.v, file.n, &s->st));
    int status = tni_llm_load_config(m);
    if (!status) status = tni_llm_load_weights(m);
    MUST(!status || *tn_error());
    if (!status) fuzz_run(m);
    tn_llm_free(m);
    return 0;
}
