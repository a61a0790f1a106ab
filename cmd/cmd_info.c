/* tenon info: this machine, and a model's shape. */
#include "base/cpu.h"
#include "opt.h"
#include "tenon/llm.h"
#include "tenon/tenon.h"
#include <jansson.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>

static const char *info_model;

static const opt info_opts[] = {
    {"--model", OPT_STR, &info_model, "PATH", "GGUF file or Hugging Face folder to describe", 0, 0},
    {NULL, OPT_FLAG, NULL, NULL, NULL, 0, 0},
};

static void info_machine(void) {
    const tni_cpu *c = tni_cpu_info();
    char pcre[64] = "";
    pcre2_config(PCRE2_CONFIG_VERSION, pcre);
    printf("tenon      " TN_VERSION "\n");
    printf("processor  %s\n", tn_cpu_name());
    printf("kernels    %s%s%s%s%s%s\n", tn_isa(), c->vnni ? " vnni" : "",
           c->avx512_bf16 ? " bf16" : "", c->amx_int8 ? " amx" : "", c->dotprod ? " dotprod" : "",
           c->i8mm ? " i8mm" : "");
    printf("threads    %d\n", tn_threads());
    printf("libraries  jansson %s, PCRE2 %s, utf8proc %s\n", JANSSON_VERSION, pcre,
           utf8proc_version());
}

static int info_describe(void) {
    tn_llm *m;
    if (tn_llm_open(info_model, &m)) return cmd_fail("%s", tn_error());
    tn_llm_info i = tn_llm_describe(m);
    printf("\nmodel      %s\n", *i.name ? i.name : info_model);
    printf("family     %s (%s)\n", i.architecture, i.format);
    printf("weights    %.1f M numbers, %.1f MB in memory; %s\n", (double)i.parameters / 1e6,
           (double)i.bytes / 1e6, i.weights);
    printf("shape      %lld layers, %lld wide, %lld heads (%lld for keys), %lld a head, %lld in "
           "the feed-forward\n",
           (long long)i.layers, (long long)i.hidden, (long long)i.heads, (long long)i.kv_heads,
           (long long)i.head_dim, (long long)i.ffn);
    printf("text       vocabulary %lld, context %lld, tokenizer %s, chat template %s\n",
           (long long)i.vocab, (long long)i.context, i.has_tokenizer ? "yes" : "no",
           i.has_template ? "yes" : "no");
    tn_llm_free(m);
    return 0;
}

static int info_run(void) {
    info_machine();
    return info_model ? info_describe() : 0;
}

extern const command cmd_info;
const command cmd_info = {"info", "describe this machine, and a model", info_opts, info_run};
