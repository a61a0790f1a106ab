/* A model with its adapter merged in answers as the two beside each other, for each family; what
 * is refused; every failing allocation. */
#include "folder.h"
#include "llm/dataset.h"
#include "memory.h"
#include "tap.h"
#include "tenon/tenon.h"
#include "tiny_text.h"
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define TINY_GPT2                                                                                  \
    "{\"model_type\":\"gpt2\",\"n_layer\":2,\"n_embd\":8,\"n_head\":2,\"n_positions\":16,"         \
    "\"tie_word_embeddings\":false}"

static tn_llm *trained; /* of test_failures */

static void drop_fused(void) {
    char path[512];
    for (size_t i = 0; i < sizeof tiny_names / sizeof *tiny_names; i++)
        snprintf(path, sizeof path, "%s/%s", in_dir("fused"), tiny_names[i]), unlink(path);
    rmdir(in_dir("fused"));
}

/* An adapter that changes something. */
static void train(tn_llm *m, const char *keys) {
    static const char text[] = "{\"text\": \"abcdabcd\"}\n{\"text\": \"ab:cd?\"}\n";
    tn_llm_data *d;
    tn_llm_trainer *t;
    tn_llm_loss l;
    MUST(!tni_data_parse(m, "x.jsonl", text, strlen(text), NULL, &d));
    MUST(!tn_llm_adapter_new(m, TN_OPT(tn_llm_lora_opt, .rank = 2, .scale = 4, .keys = keys)));
    MUST(
        !tn_llm_trainer_new(m, d, TN_OPT(tn_llm_train_opt, .batch = 2, .learning_rate = 0.05), &t));
    for (int i = 0; i < 10; i++) MUST(!tn_llm_trainer_step(t, &l));
    tn_llm_trainer_free(t);
    tn_llm_data_free(d);
}

static void scores(tn_llm *m, float out[4]) {
    static const int32_t ids[] = {9, 4, 5, 7, 2};
    tn_llm_session *s;
    MUST(!tn_llm_session_new(m, NULL, &s) && !tn_llm_score(s, ids, 5, out, NULL));
    tn_llm_session_free(s);
}

static double farthest(const float *a, const float *b) {
    double worst = 0;
    for (int i = 0; i < 4; i++) worst = fmax(worst, fabs((double)(a[i] - b[i])));
    return worst;
}

static void test_fused(const char *family, const char *keys) {
    tn_llm *m, *fused;
    float plain[4], with[4], merged[4];
    MUST(!tn_llm_open(dir, &m));
    scores(m, plain);
    train(m, keys);
    scores(m, with);
    is_i64(tn_llm_fuse(m, in_dir("fused"), NULL), 0, "%s, %s", family, keys ? keys : "all");
    MUST(!tn_llm_open(in_dir("fused"), &fused));
    ok(tn_llm_describe(fused).has_template, "other files went with it");
    ok(!tn_llm_describe(fused).adapter, "it has no adapter");
    scores(fused, merged);
    ok(farthest(plain, with) > 1e-3, "the adapter changes answers by %.3f", farthest(plain, with));
    ok(farthest(merged, with) < 1e-5, "merged, to %.1e", farthest(merged, with));
    is_i64(tn_llm_fuse(m, in_dir("fused"), NULL), TN_EFILE, "a model there is kept");
    ok(strstr(tn_error(), "not overwritten"), "says: %s", tn_error());
    tn_llm_adapter_drop(m);
    is_i64(tn_llm_fuse(m, in_dir("other"), NULL), TN_ESTATE, "no adapter: %s", tn_error());
    tn_llm_free(m), tn_llm_free(fused);
    drop_fused();
}

/* One that fails leaves no model. */
static int whole_run(int64_t failing, void *left) {
    int status = tn_llm_fuse(trained, in_dir("fused"), NULL);
    *(int *)left += status && !access(in_dir("fused"), F_OK);
    (void)failing;
    drop_fused();
    return status;
}

static void test_failures(void) {
    int left = 0;
    MUST(!tn_llm_open(dir, &trained));
    train(trained, NULL);
    memory_each(whole_run, &left, 100);
    is_i64(left, 0, "or half a model");
    tn_llm_free(trained);
}

static void refused(tn_llm *m, int status, const char *why) {
    is_i64(tn_llm_fuse(m, in_dir("fused"), NULL), status, "not written: %s", tn_error());
    ok(strstr(tn_error(), why), "says %s", why);
    ok(access(in_dir("fused"), F_OK), "the folder that was made is gone");
}

/* A matrix is merged and written before the next. */
static void test_memory(void) {
    tn_llm *m;
    MUST(!tn_set_threads(1) && !tn_llm_open(dir, &m));
    train(m, NULL);
    size_t before = tn_memory_stats().active, all = 2 * 4 * (8 * 8 * 2 + 4 * 8 * 2 + 8 * 16 * 3);
    tn_memory_reset_peak();
    MUST(!tn_llm_fuse(m, in_dir("fused"), NULL));
    size_t more = tn_memory_stats().peak - before;
    ok(more && more < all / 2, "%d bytes in use at most, the matrices have %d", (int)more,
       (int)all);
    is_i64(tn_memory_stats().active, before, "and none in the end");
    tn_llm_free(m);
    drop_fused();
    MUST(!tn_set_threads(0));
}

static void test_no_room(void) {
    tn_llm *m;
    struct rlimit was, now;
    MUST(!tn_llm_open(dir, &m));
    train(m, NULL);
    MUST(!getrlimit(RLIMIT_FSIZE, &was));
    now = was, now.rlim_cur = 6000; /* more than half of the model */
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    MUST(!setrlimit(RLIMIT_FSIZE, &now));
    refused(m, TN_EFILE, "cannot write: File too large");
    MUST(!setrlimit(RLIMIT_FSIZE, &was));
    signal(SIGXFSZ, handler);
    MUST(!mkdir(in_dir("fused"), 0777));
    tiny_write(in_dir("fused"), "mine", "x", 1);
    MUST(!tn_llm_fuse(m, in_dir("fused"), NULL));
    ok(!unlink(in_dir("fused/mine")), "a folder that was there keeps its files");
    drop_fused();
    is_i64(tn_llm_fuse(m, in_dir("config.json"), NULL), TN_EFILE, "a file in its place");
    ok(strstr(tn_error(), "config.json: is a file"), "says: %s", tn_error());
    tn_llm_free(m);
}

/* A number in the middle of the file: half of it is written when it is met. */
static void test_not_finite(void) {
    static const char name[] = "\"model.layers.1.self_attn.o_proj.weight\"";
    tn_llm *m;
    tni_str file = tiny_file();
    uint64_t head;
    const float bad = NAN;
    memcpy(&head, file.v, 8);
    const char *at = strstr(file.v + 8, name);
    MUST(at && (at = strstr(at, "\"data_offsets\":[")));
    memcpy(file.v + 8 + head + strtoul(at + 16, NULL, 10), &bad, sizeof bad);
    tiny_write(dir, "model.safetensors", file.v, file.n);
    MUST(!tn_llm_open(dir, &m) && !tn_llm_adapter_new(m, NULL));
    refused(m, TN_EVALUE, "\"model.layers.1.self_attn.o_proj.weight\" has numbers that are not");
    tn_llm_free(m);
    tni_str_free(&file);
}

int main(void) {
    snprintf(dir, sizeof dir, "/tmp/tenon-fuse-XXXXXX");
    tiny_make(dir);
    test_fused("llama", NULL);
    test_fused("llama", "self_attn.k_proj,mlp.up_proj");
    test_failures();
    test_memory();
    test_no_room();
    tiny_write(dir, "config.json", TINY_GPT2, strlen(TINY_GPT2));
    test_fused("gpt2", NULL);
    tiny_write(dir, "config.json", TINY_LLAMA, strlen(TINY_LLAMA));
    test_not_finite();
    tiny_remove(dir);
    return tap_done();
}
