/* tenon generate: a prompt in, text out. */
#include "opt.h"
#include "tenon/llm.h"
#include "tenon/tenon.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *gen_model, *gen_adapter, *gen_prompt, *gen_system;
static bool gen_raw, gen_json, gen_f16;
static int64_t gen_max = 256, gen_top_k, gen_seed, gen_threads, gen_logprobs, gen_context;
static double gen_temp, gen_top_p = 1, gen_min_p, gen_penalty = 1;

static const opt gen_opts[] = {
    {"--model", OPT_STR, &gen_model, "PATH", "GGUF file or Hugging Face folder", 0, 0},
    {"--adapter", OPT_STR, &gen_adapter, "DIR",
     "adapter to apply, as tenon finetune or mlx-lm wrote it", 0, 0},
    {"--prompt", OPT_STR, &gen_prompt, "TEXT", "what to answer or continue; - reads standard input",
     0, 0},
    {"--system", OPT_STR, &gen_system, "TEXT", "system message before the prompt", 0, 0},
    {"--raw", OPT_FLAG, &gen_raw, NULL, "continue the text as it is, without the chat template", 0,
     0},
    {"--max-tokens", OPT_INT, &gen_max, "N", "most tokens to generate", 1, 1e9},
    {"--context", OPT_INT, &gen_context, "N", "most positions to keep; 0: what the model allows", 0,
     1e9},
    {"--temp", OPT_NUM, &gen_temp, "T", "sampling temperature; 0 takes the likeliest token", 0,
     100},
    {"--top-k", OPT_INT, &gen_top_k, "K", "sample from the K likeliest tokens; 0: all", 0, 1e9},
    {"--top-p", OPT_NUM, &gen_top_p, "P", "sample from the likeliest tokens that make up P", 0, 1},
    {"--min-p", OPT_NUM, &gen_min_p, "P", "drop tokens less likely than P times the best", 0, 1},
    {"--repetition-penalty", OPT_NUM, &gen_penalty, "R", "divides the scores of the last 64 tokens",
     0.01, 100},
    {"--seed", OPT_INT, &gen_seed, "S", "of sampling; the same seed gives the same text", 0, 0},
    {"--threads", OPT_INT, &gen_threads, "N", "threads to use; 0: one a core", 0, 1024},
    {"--logprobs", OPT_INT, &gen_logprobs, "N",
     "report the N likeliest tokens of each step (with --json)", 0, 20},
    {"--cache-f16", OPT_FLAG, &gen_f16, NULL, "keep keys and values in half precision", 0, 0},
    {"--json", OPT_FLAG, &gen_json, NULL, "print one JSON object instead of the text", 0, 0},
    {NULL, OPT_FLAG, NULL, NULL, NULL, 0, 0},
};

typedef struct generation {
    tn_llm *m;
    tn_llm_session *s;
    int32_t *prompt;
    size_t n_prompt;
    json_t *text, *ids, *logprobs; /* collected for --json */
    char *out;
    size_t n_out;
    int64_t n;
    const char *finish;
    double prompt_seconds, seconds;
} generation;

static int gen_error(void) { return cmd_fail("%s", tn_error()); }

/* ---- the prompt ---- */

static char *gen_messages(const char *prompt, size_t n) {
    json_t *list = json_array();
    if (gen_system)
        json_array_append_new(list, json_pack("{ssss}", "role", "system", "content", gen_system));
    json_array_append_new(list,
                          json_pack("{ssso}", "role", "user", "content", json_stringn(prompt, n)));
    char *text = json_dumps(list, JSON_COMPACT);
    json_decref(list);
    return text;
}

static int gen_tokens(generation *g, const char *prompt, size_t n) {
    if (gen_raw || !tn_llm_describe(g->m).has_template) {
        if (gen_system)
            return cmd_usage(
                "--system needs a chat template, and --raw or the model rules that out");
        return tn_llm_tokenize(g->m, prompt, n, TN_TEXT_SPECIAL | TN_TEXT_BOS, &g->prompt,
                               &g->n_prompt)
                   ? gen_error()
                   : 0;
    }
    char *messages = gen_messages(prompt, n);
    if (!messages) return cmd_fail("the prompt is not valid UTF-8, or memory is out");
    int status = tn_llm_chat(g->m, messages, NULL, &g->prompt, &g->n_prompt) ? gen_error() : 0;
    cmd_json_free(messages);
    return status;
}

static bool gen_show_progress(size_t done, size_t total, void *ud) {
    (void)ud;
    if (total > 512) cmd_progress("prompt: %zu of %zu tokens", done, total);
    return cmd_interrupted;
}

static int gen_run_prompt(generation *g) {
    double start = cmd_seconds();
    int status = tn_llm_prompt(g->s, g->prompt, g->n_prompt, gen_show_progress, NULL);
    cmd_progress(NULL);
    g->prompt_seconds = cmd_seconds() - start;
    if (status == TN_ECANCELLED) g->finish = "cancelled";
    return status && status != TN_ECANCELLED ? gen_error() : 0;
}

/* ---- the answer ---- */

static int gen_emit(generation *g, const char *text, size_t n) {
    if (!gen_json) {
        fwrite(text, 1, n, stdout);
        return fflush(stdout) ? cmd_fail("standard output cannot be written") : 0;
    }
    char *more = realloc(g->out, g->n_out + n + 1);
    if (!more) return cmd_fail("out of memory");
    memcpy(more + g->n_out, text, n);
    g->out = more, g->n_out += n;
    return 0;
}

static void gen_note(generation *g, const tn_llm_token *t) {
    if (!gen_json) return;
    json_array_append_new(g->ids, json_integer(t->id));
    if (!gen_logprobs) return;
    json_t *top = json_array();
    for (int i = 0; i < t->n_top; i++)
        json_array_append_new(
            top, json_pack("{sisf}", "id", t->top[i].id, "logprob", (double)t->top[i].logprob));
    json_array_append_new(
        g->logprobs, json_pack("{sisfso}", "id", t->id, "logprob", (double)t->logprob, "top", top));
}

static int gen_loop(generation *g) {
    tn_llm_sampler sampler = {.size = sizeof sampler,
                              .temperature = (float)gen_temp,
                              .top_k = (int)gen_top_k,
                              .top_p = (float)gen_top_p,
                              .min_p = (float)gen_min_p,
                              .repetition_penalty = (float)gen_penalty,
                              .logprobs = (int)gen_logprobs};
    tn_llm_token t;
    const char *text;
    size_t n;
    g->finish = "length";
    while (g->n < gen_max) {
        if (cmd_interrupted) return g->finish = "cancelled", 0;
        if (tn_llm_next(g->s, &sampler, &t)) return gen_error();
        g->n++;
        gen_note(g, &t);
        if (tn_llm_is_end(g->m, t.id)) return g->finish = "stop", 0;
        if (tn_llm_text(g->s, t.id, &text, &n)) return gen_error();
        if (gen_emit(g, text, n)) return EXIT_FAILED;
    }
    return 0;
}

static int gen_answer(generation *g) {
    double start = cmd_seconds();
    int status = gen_loop(g);
    g->seconds = cmd_seconds() - start;
    const char *text;
    size_t n;
    if (!status && tn_llm_text_end(g->s, &text, &n)) status = gen_error();
    return status ? status : gen_emit(g, text, n);
}

/* ---- the report ---- */

static double gen_rate(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

static int gen_report_json(generation *g) {
    json_t *prompt = json_array();
    for (size_t i = 0; i < g->n_prompt; i++)
        json_array_append_new(prompt, json_integer(g->prompt[i]));
    json_t *o =
        json_pack("{ss#sosOsssfsfsI}", "text", g->out ? g->out : "", (int)g->n_out, "prompt_ids",
                  prompt, "ids", g->ids, "finish_reason", g->finish, "prompt_tokens_per_second",
                  gen_rate((double)g->n_prompt, g->prompt_seconds), "generation_tokens_per_second",
                  gen_rate((double)g->n, g->seconds), "peak_bytes", (json_int_t)cmd_peak_bytes());
    if (o && gen_logprobs) json_object_set(o, "logprobs", g->logprobs);
    bool failed = !o || json_dumpf(o, stdout, JSON_COMPACT);
    json_decref(o);
    putchar('\n');
    return failed ? cmd_fail("the JSON report cannot be made: out of memory") : 0;
}

static void gen_report_text(const generation *g) {
    putchar('\n');
    fflush(stdout);
    fprintf(stderr,
            "\nprompt: %zu tokens, %.1f tokens/s; generation: %lld tokens, %.1f tokens/s; peak "
            "memory: %.0f MB%s\n",
            g->n_prompt, gen_rate((double)g->n_prompt, g->prompt_seconds), (long long)g->n,
            gen_rate((double)g->n, g->seconds), (double)cmd_peak_bytes() / 1e6,
            strcmp(g->finish, "cancelled") ? "" : " (stopped)");
}

static int gen_with_session(generation *g, const char *prompt, size_t n) {
    int status = gen_tokens(g, prompt, n);
    if (status) return status;
    tn_llm_session_opt so = {.size = sizeof so,
                             .context = gen_context,
                             .cache_f16 = gen_f16,
                             .seed = (uint64_t)gen_seed};
    if (tn_llm_session_new(g->m, &so, &g->s)) return gen_error();
    status = gen_run_prompt(g);
    if (!status && !g->finish) status = gen_answer(g);
    if (status) return status;
    if (gen_json) return gen_report_json(g);
    gen_report_text(g);
    return 0;
}

static int gen_run(void) {
    if (!gen_model) return cmd_usage("generate: --model is needed");
    if (!gen_prompt) return cmd_usage("generate: --prompt is needed (- reads standard input)");
    if (tn_set_threads((int)gen_threads)) return gen_error();
    size_t n = strlen(gen_prompt);
    char *input = strcmp(gen_prompt, "-") ? NULL : cmd_read("-", &n);
    if (!strcmp(gen_prompt, "-") && !input) return EXIT_FAILED;
    generation g = {.ids = json_array(), .logprobs = json_array()};
    cmd_catch_interrupt();
    cmd_progress("loading %s", gen_model);
    int status = tn_llm_open(gen_model, &g.m) ? gen_error() : 0;
    if (!status && gen_adapter && tn_llm_adapter_load(g.m, gen_adapter)) status = gen_error();
    cmd_progress(NULL);
    if (!status) status = gen_with_session(&g, input ? input : gen_prompt, n);
    tn_llm_session_free(g.s);
    tn_llm_ids_free(g.prompt);
    tn_llm_free(g.m);
    json_decref(g.ids), json_decref(g.logprobs);
    free(g.out), free(input);
    return status;
}

extern const command cmd_generate;
const command cmd_generate = {"generate", "answer a prompt, or continue a text", gen_opts, gen_run};
