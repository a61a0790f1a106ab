/* The weights of a tiny Llama and a tiny GPT-2 as one safetensors file in memory: 2 layers of 8,
 * 2 heads (1 for keys) of 4, a feed-forward of 16 or 32, 10 tokens, 16 positions. */
#ifndef TESTS_TINY_MODEL_H
#define TESTS_TINY_MODEL_H

#include "base/str.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x)) abort();                                                                         \
    } while (0)

#define TINY_LLAMA                                                                                 \
    "{\"model_type\":\"llama\",\"hidden_act\":\"silu\",\"hidden_size\":8,\"intermediate_size\":"   \
    "16,"                                                                                          \
    "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":4,"  \
    "\"max_position_embeddings\":16,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0}"

static const struct {
    const char *name;
    int rows, cols; /* cols 0: a vector */
    int layers;
} tiny_tensors[] = {
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

static inline void tiny_tensor(tni_str *header, size_t *at, size_t i, int layer) {
    char name[96];
    size_t n = strcspn(tiny_tensors[i].name, "%");
    int rows = tiny_tensors[i].rows, cols = tiny_tensors[i].cols;
    bool hole = tiny_tensors[i].name[n] != 0;
    snprintf(name, sizeof name, "%.*s%.*d%s", (int)n, tiny_tensors[i].name, hole ? 1 : 0,
             hole ? layer : 0, hole ? tiny_tensors[i].name + n + 2 : "");
    size_t bytes = (size_t)rows * (size_t)(cols ? cols : 1) * 4;
    MUST(!tni_str_printf(header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%d", *at ? "," : "", name,
                         rows));
    if (cols) MUST(!tni_str_printf(header, ",%d", cols));
    MUST(!tni_str_printf(header, "],\"data_offsets\":[%zu,%zu]}", *at, *at + bytes));
    *at += bytes;
}

static inline tni_str tiny_file(void) {
    tni_str header = {0}, file = {0};
    size_t at = 0;
    MUST(!tni_str_putc(&header, '{'));
    for (size_t i = 0; i < sizeof tiny_tensors / sizeof *tiny_tensors; i++)
        for (int k = 0; k < (tiny_tensors[i].layers ? tiny_tensors[i].layers : 1); k++)
            tiny_tensor(&header, &at, i, k);
    MUST(!tni_str_putc(&header, '}'));
    while (header.n % 8) MUST(!tni_str_putc(&header, ' '));
    uint64_t n = header.n;
    MUST(!tni_str_append(&file, (const char *)&n, 8) && !tni_str_append(&file, header.v, header.n));
    for (size_t i = 0; i < at / 4; i++) {
        float x = (float)((int)((uint32_t)i * 2654435761u >> 24) - 128) / 256;
        MUST(!tni_str_append(&file, (const char *)&x, 4));
    }
    tni_str_free(&header);
    return file;
}

#endif
