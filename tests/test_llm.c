/* Sessions of llm.h on a tiny model: order of calls, limits, misuse, every failing allocation. */
#include "base/alloc.h"
#include "base/mmap.h"
#include "memory.h"
#include "tap.h"
#include "tenon/llm.h"
#include "tenon/tenon.h"
#include "tiny_model.h"
#include <math.h>
#include <pthread.h>
#include <unistd.h>

static char dir[] = "/tmp/tenon-llm-XXXXXX";

static const char *at(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void make_folder(void) {
    tni_str file = tiny_file();
    MUST(mkdtemp(dir));
    MUST(!tni_file_write(at("model.safetensors"), file.v, file.n));
    MUST(!tni_file_write(at("config.json"), TINY_LLAMA, strlen(TINY_LLAMA)));
    tni_str_free(&file);
}

static void drop_folder(void) {
    unlink(at("model.safetensors"));
    unlink(at("config.json"));
    rmdir(dir);
}

static const int32_t prompt[] = {1, 2, 3, 4, 5};

static void test_describe(tn_llm *m) {
    tn_llm_info i = tn_llm_describe(m);
    is_str(i.architecture, "llama", "architecture");
    is_str(i.format, "safetensors", "format");
    ok(i.layers == 2 && i.hidden == 8 && i.heads == 2 && i.kv_heads == 1, "shape");
    ok(i.vocab == 10 && i.context == 16 && i.ffn == 16, "vocabulary, context, feed-forward");
    ok(!i.has_tokenizer && !i.has_template, "no text");
    ok(i.parameters > 1000 && i.bytes > 1000, "sizes");
}

static void test_text_without_tokenizer(tn_llm *m) {
    int32_t *ids = NULL;
    char *text = NULL;
    size_t n;
    is_i64(tn_llm_tokenize(m, "a", 1, 0, &ids, &n), TN_ESTATE, "no tokenizer");
    ok(!ids && strstr(tn_error(), "tokenizer"), "and says so: %s", tn_error());
    is_i64(tn_llm_detokenize(m, prompt, 2, false, &text, &n), TN_ESTATE, "nor the other way");
    is_i64(tn_llm_render(m, "[]", NULL, &text, &n), TN_ESTATE, "no template");
    ok(!text && strstr(tn_error(), "template"), "and says so: %s", tn_error());
}

/* A prompt at once, in chunks, and token by token leave the same scores. */
static void test_chunks(tn_llm *m) {
    float want[10];
    double worst = 0;
    for (int64_t chunk = 5; chunk >= 1; chunk -= 2) {
        tn_llm_session *s;
        MUST(!tn_llm_session_new(m, TN_OPT(tn_llm_session_opt, .chunk = chunk), &s));
        ok(!tn_llm_logits(s) && !tn_llm_session_length(s), "a new session is empty");
        is_i64(tn_llm_prompt(s, prompt, 5, NULL, NULL), 0, "prompt in chunks of %d", (int)chunk);
        is_i64(tn_llm_session_length(s), 5, "positions");
        for (int i = 0; i < 10 && chunk == 5; i++) want[i] = tn_llm_logits(s)[i];
        for (int i = 0; i < 10; i++)
            worst = fmax(worst, fabs((double)(tn_llm_logits(s)[i] - want[i])));
        tn_llm_session_free(s);
    }
    ok(worst < 1e-5, "the same scores, to %.2g", worst);
}

static void test_rewind(tn_llm *m) {
    tn_llm_session *s;
    tn_llm_token a, b;
    MUST(!tn_llm_session_new(m, NULL, &s));
    MUST(!tn_llm_prompt(s, prompt, 5, NULL, NULL) && !tn_llm_next(s, NULL, &a));
    is_i64(tn_llm_session_rewind(s, 3), 0, "rewind");
    ok(!tn_llm_logits(s), "the scores are forgotten");
    is_i64(tn_llm_next(s, NULL, &b), TN_ESTATE, "a token needs a prompt first");
    is_i64(tn_llm_prompt(s, prompt + 3, 2, NULL, NULL), 0, "the rest again");
    is_i64(tn_llm_next(s, NULL, &b), 0, "and on");
    ok(a.id == b.id && fabsf(a.logprob - b.logprob) < 1e-5f, "gives the same token");
    is_i64(tn_llm_session_rewind(s, 99), TN_EVALUE, "not forward");
    is_i64(tn_llm_session_rewind(s, -1), TN_EVALUE, "not below zero");
    tn_llm_session_free(s);
}

static void test_scores(tn_llm *m) {
    tn_llm_session *s;
    tn_llm_token t;
    float logp[4];
    int32_t best[4];
    double sum = 0;
    MUST(!tn_llm_session_new(m, NULL, &s));
    is_i64(tn_llm_score(s, prompt, 5, logp, best), 0, "score");
    ok(logp[0] < 0 && best[0] >= 0 && best[3] < 10, "log-probabilities and ids");
    MUST(!tn_llm_session_rewind(s, 0) && !tn_llm_prompt(s, prompt, 4, NULL, NULL));
    MUST(!tn_llm_next(s, TN_OPT(tn_llm_sampler, .logprobs = 20), &t));
    ok(t.id == best[3] && t.n_top == 10, "the likeliest token is the same; all 10 are reported");
    for (int i = 0; i < t.n_top; i++) sum += exp((double)t.top[i].logprob);
    ok(fabs(sum - 1) < 1e-5, "probabilities add up to %.7f", sum);
    for (int i = 0; i < t.n_top; i++)
        if (t.top[i].id == prompt[4]) ok(fabsf(t.top[i].logprob - logp[3]) < 1e-5f, "as scored");
    tn_llm_session_free(s);
}

static void test_limits(tn_llm *m) {
    const int32_t bad[] = {1, 10}, many[17] = {0};
    tn_llm_session *s;
    tn_llm_token t;
    MUST(!tn_llm_session_new(m, NULL, &s));
    is_i64(tn_llm_prompt(s, bad, 2, NULL, NULL), TN_EINDEX, "an id beyond the vocabulary");
    ok(strstr(tn_error(), "token 1 is 10"), "named: %s", tn_error());
    is_i64(tn_llm_prompt(s, many, 17, NULL, NULL), TN_EVALUE, "17 tokens in 16 positions");
    is_i64(tn_llm_session_length(s), 0, "nothing was taken");
    MUST(!tn_llm_prompt(s, many, 15, NULL, NULL));
    is_i64(tn_llm_next(s, NULL, &t), 0, "the last position");
    is_i64(tn_llm_next(s, NULL, &t), TN_EVALUE, "then the context is full: %s", tn_error());
    is_i64(tn_llm_session_length(s), 16, "and the session is as it was");
    is_i64(tn_llm_next(s, TN_OPT(tn_llm_sampler, .temperature = -1), &t), TN_EVALUE, "temperature");
    is_i64(tn_llm_next(s, TN_OPT(tn_llm_sampler, .top_p = 2), &t), TN_EVALUE, "top_p");
    is_i64(tn_llm_next(s, TN_OPT(tn_llm_sampler, .min_p = NAN), &t), TN_EVALUE, "min_p");
    is_i64(tn_llm_next(s, TN_OPT(tn_llm_sampler, .top_k = -1), &t), TN_EVALUE, "top_k");
    is_i64(tn_llm_next(s, TN_OPT(tn_llm_sampler, .repetition_penalty = INFINITY), &t), TN_EVALUE,
           "repetition_penalty");
    tn_llm_session_free(s);
}

static bool stop_after_two(size_t done, size_t total, void *ud) {
    (void)total;
    *(size_t *)ud = done;
    return done >= 2;
}

static void test_cancel(tn_llm *m) {
    tn_llm_session *s;
    size_t done = 0;
    MUST(!tn_llm_session_new(m, TN_OPT(tn_llm_session_opt, .chunk = 1), &s));
    is_i64(tn_llm_prompt(s, prompt, 5, stop_after_two, &done), TN_ECANCELLED, "stopped");
    ok(done == 2 && tn_llm_session_length(s) == 2, "what was done stays");
    is_i64(tn_llm_prompt(s, prompt + 2, 3, NULL, NULL), 0, "and can be continued");
    tn_llm_session_free(s);
}

/* Samplers: each filter alone leaves what it says. */
static void test_samplers(tn_llm *m) {
    tn_llm_session *s;
    tn_llm_token t, top;
    int seen[10] = {0}, kinds = 0, second = -1;
    MUST(!tn_llm_session_new(m, TN_OPT(tn_llm_session_opt, .seed = 5), &s));
    for (int i = 0; i < 300; i++) {
        MUST(!tn_llm_session_rewind(s, 0) && !tn_llm_prompt(s, prompt, 2, NULL, NULL));
        MUST(!tn_llm_next(s, TN_OPT(tn_llm_sampler, .temperature = 5), &t));
        seen[t.id]++;
    }
    for (int i = 0; i < 10; i++) kinds += seen[i] > 0;
    ok(kinds >= 8, "a hot sample sees %d of 10 tokens", kinds);
    MUST(!tn_llm_session_rewind(s, 0) && !tn_llm_prompt(s, prompt, 2, NULL, NULL));
    MUST(!tn_llm_next(s, TN_OPT(tn_llm_sampler, .logprobs = 2), &top));
    second = top.top[1].id;
    bool two = true, one = true;
    for (int i = 0; i < 60; i++) {
        MUST(!tn_llm_session_rewind(s, 0) && !tn_llm_prompt(s, prompt, 2, NULL, NULL));
        MUST(!tn_llm_next(s, TN_OPT(tn_llm_sampler, .temperature = 9, .top_k = 2), &t));
        two = two && (t.id == top.id || t.id == second);
        MUST(!tn_llm_session_rewind(s, 0) && !tn_llm_prompt(s, prompt, 2, NULL, NULL));
        MUST(!tn_llm_next(s, TN_OPT(tn_llm_sampler, .temperature = 9, .top_p = 1e-6f), &t));
        one = one && t.id == top.id;
        MUST(!tn_llm_session_rewind(s, 0) && !tn_llm_prompt(s, prompt, 2, NULL, NULL));
        MUST(!tn_llm_next(s, TN_OPT(tn_llm_sampler, .temperature = 1, .min_p = 1), &t));
        one = one && t.id == top.id;
    }
    ok(two, "top_k 2 leaves the best two");
    ok(one, "a tiny top_p, or min_p 1, leaves the best");
    tn_llm_session_free(s);
}

/* ---- several sessions of one model at once ---- */

static void *run_session(void *ud) {
    tn_llm_session *s;
    tn_llm_token t;
    static _Thread_local float sum;
    MUST(!tn_llm_session_new(ud, NULL, &s));
    MUST(!tn_llm_prompt(s, prompt, 5, NULL, NULL));
    for (int i = 0; i < 8; i++) MUST(!tn_llm_next(s, NULL, &t));
    sum = tn_llm_logits(s)[3];
    tn_llm_session_free(s);
    return &sum;
}

static void test_threads(tn_llm *m) {
    pthread_t thread[4];
    void *none;
    for (int i = 0; i < 4; i++) MUST(!pthread_create(&thread[i], NULL, run_session, m));
    for (int i = 0; i < 4; i++) MUST(!pthread_join(thread[i], &none));
    ok(true, "four threads, a session each");
}

/* ---- memory ---- */

static int whole_run(int64_t failing, void *ud) {
    (void)failing, (void)ud;
    tn_llm *m = NULL;
    tn_llm_session *s = NULL;
    tn_llm_token t;
    int status = tn_llm_open(dir, &m);
    if (!status) status = tn_llm_session_new(m, NULL, &s);
    if (!status) status = tn_llm_prompt(s, prompt, 5, NULL, NULL);
    for (int i = 0; i < 2 && !status; i++) status = tn_llm_next(s, NULL, &t);
    tn_llm_session_free(s);
    tn_llm_free(m);
    return status;
}

/* A session that ran out of memory goes on when there is some. */
static void test_recovery(tn_llm *m) {
    tn_llm_session *s;
    tn_llm_token want, got;
    MUST(!tn_llm_session_new(m, NULL, &s) && !tn_llm_prompt(s, prompt, 5, NULL, NULL));
    MUST(!tn_llm_next(s, NULL, &want) && !tn_llm_next(s, NULL, &want));
    tn_llm_session_free(s);
    MUST(!tn_set_threads(1));
    int wrong = 0, failed = 0;
    bool reached = true;
    for (int64_t n = 1; reached; n++) {
        MUST(!tn_llm_session_new(m, NULL, &s) && !tn_llm_prompt(s, prompt, 5, NULL, NULL));
        MUST(!tn_llm_next(s, NULL, &got));
        int64_t asked = tni_alloc_count();
        tni_fail_alloc_at(n);
        int status = tn_llm_next(s, NULL, &got);
        reached = tni_alloc_count() - asked >= n;
        tni_fail_alloc_at(0);
        if (status) {
            failed++;
            /* The position may or may not be in the cache: go back to what is known. */
            MUST(!tn_llm_session_rewind(s, 0) && !tn_llm_prompt(s, prompt, 5, NULL, NULL));
            MUST(!tn_llm_next(s, NULL, &got) && !tn_llm_next(s, NULL, &got));
        }
        wrong += got.id != want.id || fabsf(got.logprob - want.logprob) > 1e-5f;
        tn_llm_session_free(s);
    }
    ok(failed > 20 && !wrong, "after each of %d failures the session goes on", failed);
    MUST(!tn_set_threads(0));
}

static void test_open_errors(void) {
    tn_llm *m = (tn_llm *)1;
    is_i64(tn_llm_open("/nowhere", &m), TN_EFILE, "no such file");
    ok(!m && strstr(tn_error(), "/nowhere"), "%s", tn_error());
    is_i64(tn_llm_open("/proc/self/fd", &m), TN_EFILE, "a folder that is no model");
    ok(!m && strstr(tn_error(), "a Hugging Face folder has config.json"), "%s", tn_error());
    MUST(!truncate(at("model.safetensors"), 200));
    is_i64(tn_llm_open(dir, &m), TN_EFORMAT, "a cut file");
    ok(!m && strstr(tn_error(), "model.safetensors"), "%s", tn_error());
    tn_llm_free(NULL);
    tn_llm_session_free(NULL);
}

int main(void) {
    tn_llm *m;
    make_folder();
    MUST(!tn_llm_open(dir, &m));
    test_describe(m);
    test_text_without_tokenizer(m);
    test_chunks(m);
    test_rewind(m);
    test_scores(m);
    test_limits(m);
    test_cancel(m);
    test_samplers(m);
    test_threads(m);
    test_recovery(m);
    tn_llm_free(m);
    memory_each(whole_run, NULL, 100);
    test_open_errors();
    drop_folder();
    return tap_done();
}
