/* tenon perplexity: how well a model predicts a text. Windows do not overlap; every token of a
 * window but its first is counted. */
#include "opt.h"
#include "tenon/llm.h"
#include "tenon/tenon.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

static const char *ppl_model, *ppl_adapter, *ppl_text;
static int64_t ppl_context = 512, ppl_windows, ppl_threads;
static bool ppl_json;

static const opt ppl_opts[] = {
    {"--model", OPT_STR, &ppl_model, "PATH", "GGUF file or Hugging Face folder", 0, 0},
    {"--adapter", OPT_STR, &ppl_adapter, "DIR",
     "adapter to apply, as tenon finetune or mlx-lm wrote it", 0, 0},
    {"--text", OPT_STR, &ppl_text, "FILE", "text to predict; - reads standard input", 0, 0},
    {"--context", OPT_INT, &ppl_context, "N", "tokens a window", 2, 1e9},
    {"--windows", OPT_INT, &ppl_windows, "N", "most windows to use; 0: the whole text", 0, 1e9},
    {"--threads", OPT_INT, &ppl_threads, "N", "threads to use; 0: one a core", 0, 1024},
    {"--json", OPT_FLAG, &ppl_json, NULL, "print one JSON object instead of the text", 0, 0},
    {NULL, OPT_FLAG, NULL, NULL, NULL, 0, 0},
};

typedef struct score {
    double nll, seconds;
    int64_t tokens, windows;
} score;

/* One window's scores, from an empty cache; `out` has room for n numbers. */
static int ppl_window(tn_llm_session *s, const int32_t *ids, int64_t n, float *out, score *total) {
    if (tn_llm_session_rewind(s, 0) || tn_llm_score(s, ids, (size_t)n, out, NULL))
        return cmd_fail("%s", tn_error());
    for (int64_t i = 0; i < n - 1; i++) total->nll -= (double)out[i];
    total->tokens += n - 1;
    total->windows++;
    return 0;
}

static int ppl_score(tn_llm_session *s, const int32_t *ids, int64_t n, score *total) {
    int64_t windows = n / ppl_context, whole = windows ? ppl_context : n;
    if (n < 2)
        return cmd_fail("%s: the text has %lld tokens; at least 2 are needed", ppl_text,
                        (long long)n);
    if (!windows) windows = 1; /* a short text is one short window */
    if (ppl_windows && ppl_windows < windows) windows = ppl_windows;
    float *out = malloc(sizeof *out * (size_t)whole);
    if (!out) return cmd_fail("out of memory");
    int status = 0;
    double start = cmd_seconds();
    for (int64_t w = 0; w < windows && !status && !cmd_interrupted; w++) {
        status = ppl_window(s, ids + w * whole, whole, out, total);
        if (!status)
            cmd_progress("window %lld of %lld: perplexity %.4f", (long long)w + 1,
                         (long long)windows, exp(total->nll / (double)total->tokens));
    }
    total->seconds = cmd_seconds() - start;
    free(out);
    cmd_progress(NULL);
    return status;
}

static int ppl_report(const score *t) {
    if (!t->tokens) return cmd_fail("stopped before the first window was done");
    double nll = t->nll / (double)t->tokens,
           rate = t->seconds > 0 ? (double)(t->tokens + t->windows) / t->seconds : 0;
    if (!ppl_json) {
        printf("%.4f\n", exp(nll));
        fprintf(stderr, "perplexity over %lld tokens in %lld windows of %lld; %.1f tokens/s\n",
                (long long)t->tokens, (long long)t->windows, (long long)ppl_context, rate);
        return 0;
    }
    json_t *o = json_pack("{sfsfsIsIsIsfsI}", "perplexity", exp(nll), "nll", nll, "tokens",
                          (json_int_t)t->tokens, "windows", (json_int_t)t->windows, "context",
                          (json_int_t)ppl_context, "tokens_per_second", rate, "peak_bytes",
                          (json_int_t)cmd_peak_bytes());
    bool failed = !o || json_dumpf(o, stdout, JSON_COMPACT);
    json_decref(o);
    putchar('\n');
    return failed ? cmd_fail("the JSON report cannot be made: out of memory") : 0;
}

static int ppl_with_model(tn_llm *m, const char *text, size_t n) {
    int32_t *ids;
    size_t n_ids;
    tn_llm_session *s = NULL;
    score total = {0};
    if (tn_llm_tokenize(m, text, n, TN_TEXT_SPECIAL, &ids, &n_ids))
        return cmd_fail("%s", tn_error());
    tn_llm_session_opt so = {.size = sizeof so, .context = ppl_context};
    int status = tn_llm_session_new(m, &so, &s) ? cmd_fail("%s", tn_error()) : 0;
    if (!status) status = ppl_score(s, ids, (int64_t)n_ids, &total);
    if (!status) status = ppl_report(&total);
    tn_llm_session_free(s);
    tn_llm_ids_free(ids);
    return status;
}

static int ppl_run(void) {
    if (!ppl_model || !ppl_text) return cmd_usage("perplexity: --model and --text are needed");
    if (tn_set_threads((int)ppl_threads)) return cmd_fail("%s", tn_error());
    size_t n;
    tn_llm *m = NULL;
    char *text = cmd_read(ppl_text, &n);
    if (!text) return EXIT_FAILED;
    cmd_catch_interrupt();
    int status = tn_llm_open(ppl_model, &m) ? cmd_fail("%s", tn_error()) : 0;
    if (!status && ppl_adapter && tn_llm_adapter_load(m, ppl_adapter))
        status = cmd_fail("%s", tn_error());
    if (!status && ppl_context > tn_llm_describe(m).context)
        status = cmd_usage("--context %lld: the model has %lld positions", (long long)ppl_context,
                           (long long)tn_llm_describe(m).context);
    if (!status) status = ppl_with_model(m, text, n);
    tn_llm_free(m);
    free(text);
    return status;
}

extern const command cmd_perplexity;
const command cmd_perplexity = {"perplexity", "measure how well a model predicts a text", ppl_opts,
                                ppl_run};
