/* How llama.cpp answers on given tokens: the peer's side of the exactness
 * test. Built against libllama by bench/peer_llama.sh; not part of Tenon.
 *
 *   llama_teacher MODEL.gguf THREADS < INPUT > OUTPUT
 *
 * Each input line is "N M id id ...": N prompt ids, then M ids to be predicted.
 * The prompt goes through as one batch and each later token as a batch of one,
 * which is how llama.cpp generates. For each prediction (the prompt's own
 * positions too) one output line: arg-max id, its log-probability, the
 * log-probability of the token that really follows. An empty line ends a
 * prompt. Context parameters are llama.cpp's defaults but for the sizes: f16
 * key/value cache, 8-bit activations for quantised weights.
 */
#include <llama.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void teacher_quiet(enum ggml_log_level level, const char *text, void *ud) {
    (void)ud;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static void teacher_report(const float *logits, int vocab, llama_token next) {
    int best = 0;
    double sum = 0;
    for (int i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    for (int i = 0; i < vocab; i++) sum += exp((double)logits[i] - (double)logits[best]);
    printf("%d %.6f %.6f\n", best, -log(sum),
           (double)logits[next] - (double)logits[best] - log(sum));
}

/* Decode ids[from, to) as one batch, reporting every position. */
static int teacher_step(struct llama_context *ctx, int vocab, const llama_token *ids, int from,
                        int to) {
    struct llama_batch b = llama_batch_init(to - from, 0, 1);
    for (int i = from; i < to; i++) {
        int k = b.n_tokens++;
        b.token[k] = ids[i];
        b.pos[k] = i;
        b.n_seq_id[k] = 1;
        b.seq_id[k][0] = 0;
        b.logits[k] = 1;
    }
    int rc = llama_decode(ctx, b);
    for (int i = from; rc == 0 && i < to; i++)
        teacher_report(llama_get_logits_ith(ctx, i - from), vocab, ids[i + 1]);
    llama_batch_free(b);
    return rc;
}

static int teacher_prompt(struct llama_context *ctx, int vocab, int n, int m) {
    llama_token *ids = malloc((size_t)(n + m) * sizeof *ids);
    int rc = ids ? 0 : 1;
    for (int i = 0; rc == 0 && i < n + m; i++)
        if (scanf("%d", &ids[i]) != 1) rc = 1;
    llama_memory_clear(llama_get_memory(ctx), true);
    if (rc == 0) rc = teacher_step(ctx, vocab, ids, 0, n);
    for (int i = n; rc == 0 && i < n + m - 1; i++) rc = teacher_step(ctx, vocab, ids, i, i + 1);
    putchar('\n');
    free(ids);
    return rc;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fputs("usage: llama_teacher MODEL.gguf THREADS < INPUT\n", stderr);
        return 2;
    }
    llama_log_set(teacher_quiet, NULL);
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) return 1;
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = 4096;
    p.n_batch = p.n_ubatch = 2560; /* longest prompt of tests/data: 1,990 */
    p.n_threads = p.n_threads_batch = atoi(argv[2]);
    struct llama_context *ctx = llama_init_from_model(model, p);
    if (!ctx) return 1;
    int vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    int n, m, rc = 0;
    while (rc == 0 && scanf("%d %d", &n, &m) == 2) rc = teacher_prompt(ctx, vocab, n, m);
    llama_free(ctx);
    llama_model_free(model);
    llama_backend_free();
    return rc != 0;
}
