/* Training of adapters on a tiny model: which examples come when, that the loss falls, that a run
 * taken up again ends with the same bits, what is refused, every failing allocation. */
#include "folder.h"
#include "llm/train.h"
#include "memory.h"
#include "tap.h"
#include "tenon/tenon.h"
#include "tiny_text.h"
#include <math.h>

static tn_llm *model;

static tn_llm_data *examples(const char *lines) {
    tn_llm_data *d;
    MUST(!tni_data_parse(model, "x.jsonl", lines, strlen(lines), NULL, &d));
    return d;
}

static const char six[] = "{\"text\": \"abcdabcd\"}\n{\"text\": \"ab:cd?\"}\n{\"text\": \"d\"}\n"
                          "{\"text\": \"a b c d\"}\n{\"text\": \"cc dd\"}\n{\"text\": \"ab\"}\n";

static void fresh(double dropout) {
    MUST(!tn_llm_adapter_new(
        model, TN_OPT(tn_llm_lora_opt, .rank = 2, .scale = 10, .dropout = dropout, .seed = 7)));
}

/* ---- batches ---- */

static void test_order(void) {
    tn_llm_data *d = examples(six);
    tni_order p;
    int seen[3] = {0}, turns = 0, other = 0;
    MUST(!tni_order_make(model, d, 2, 5, &p));
    ok(p.n == 3, "six examples are three batches of two");
    int rising = 1;
    for (int i = 1; i < 6; i++)
        rising &= d->example.v[p.order[i - 1]].n <= d->example.v[p.order[i]].n;
    ok(rising, "of like length");
    for (int64_t epoch = 0; epoch < 20; epoch++) {
        int64_t first = -1;
        memset(seen, 0, sizeof seen);
        TN_SCOPE {
            for (int64_t i = 0; i < 3; i++) {
                tni_batch b;
                MUST(!tni_order_batch(&p, epoch * 3 + i, &b));
                seen[p.turn[i]]++;
                if (!i) first = p.turn[0];
            }
        }
        turns += seen[0] == 1 && seen[1] == 1 && seen[2] == 1;
        other |= 1 << first;
    }
    is_i64(turns, 20, "each batch once in each of 20 rounds");
    is_i64(other, 7, "in different orders");
    tni_order_free(&p);
    tn_llm_data_free(d);
}

/* The batch of a step depends on the step alone, not on which were asked for before. */
static void test_order_anywhere(void) {
    tn_llm_data *d = examples(six);
    tni_order p, q;
    int differ = 0;
    MUST(!tni_order_make(model, d, 2, 5, &p) && !tni_order_make(model, d, 2, 5, &q));
    for (int64_t i = 0; i < 12; i++)
        TN_SCOPE {
            tni_batch a, b;
            int64_t step = i * 7 % 12;
            MUST(!tni_order_batch(&p, step, &a));
            for (int64_t k = 0; k <= step; k++) MUST(!tni_order_batch(&q, k, &b));
            differ += tn_size(a.ids) != tn_size(b.ids) ||
                      memcmp(tn_data(a.ids), tn_data(b.ids), tn_nbytes(a.ids)) ||
                      memcmp(tn_data(a.spans), tn_data(b.spans), tn_nbytes(a.spans));
        }
    is_i64(differ, 0, "a step's batch is the same whatever came before");
    tni_order_free(&p), tni_order_free(&q);
    tn_llm_data_free(d);
}

static void test_padding(void) {
    tn_llm_data *d = examples("{\"text\": \"ab\"}\n{\"text\": \"abcd\"}\n");
    tni_order p;
    MUST(!tni_order_make(model, d, 2, 0, &p));
    TN_SCOPE {
        static const int32_t want[] = {9, 1, 0, 0, 0, 9, 4, 5, 1, 0}, spans[] = {0, 2, 0, 4};
        tni_batch b;
        MUST(!tni_order_batch(&p, 0, &b));
        /* 32 k + 1 would be 33; the model's 16 positions need 17 tokens. */
        ok(tn_ndim(b.ids) == 2 && tn_dim(b.ids, 0) == 2 && tn_dim(b.ids, 1) == 17, "padded to 17");
        ok(!memcmp(tn_data(b.spans), spans, sizeof spans), "begins and ends");
        const int32_t *ids = tn_data(b.ids);
        ok(!memcmp(ids, want, 5 * 4) && !memcmp(ids + 17, want + 5, 5 * 4), "rows, padded with 0");
    }
    tni_order_free(&p);
    tn_llm_data_free(d);
}

/* ---- training ---- */

static double train(tn_llm_trainer *t, int steps) {
    tn_llm_loss l = {0};
    for (int i = 0; i < steps; i++) MUST(!tn_llm_trainer_step(t, &l));
    return l.loss;
}

static const tn_llm_train_opt fast = {
    .size = sizeof fast, .batch = 2, .learning_rate = 0.02, .seed = 3};

/* The same numbers of the adapter, as text of bytes: kept to compare with. */
static tni_str numbers(void) {
    tni_str s = {0};
    char *text;
    size_t n;
    MUST(!tn_llm_adapter_save(model, in_dir("kept")));
    MUST(!tni_file_read(in_dir("kept/adapters.safetensors"), 1 << 20, &text, &n));
    MUST(!tni_str_append(&s, text, n));
    tni_free(text);
    return s;
}

static bool same(tni_str *a, tni_str *b) {
    bool yes = a->n == b->n && !memcmp(a->v, b->v, a->n);
    tni_str_free(a), tni_str_free(b);
    return yes;
}

static void test_learns(void) {
    tn_llm_data *d = examples(six);
    tn_llm_trainer *t;
    tn_llm_loss before, after, l;
    fresh(0);
    MUST(!tn_llm_trainer_new(model, d, &fast, &t));
    MUST(!tn_llm_trainer_loss(t, d, 0, &before, NULL, NULL));
    ok(before.batches == 3 && before.tokens == 31, "%d tokens in %d batches", (int)before.tokens,
       (int)before.batches);
    is_i64(tn_llm_trainer_steps(t), 0, "no step yet");
    MUST(!tn_llm_trainer_step(t, &l));
    ok(l.batches == 1 && l.tokens > 0 && fabs(l.loss - before.loss) < 1.5, "the first step's loss");
    train(t, 99);
    is_i64(tn_llm_trainer_steps(t), 100, "a hundred steps");
    MUST(!tn_llm_trainer_loss(t, d, 0, &after, NULL, NULL));
    /* The tiny model's scores stay within about 1 of each other, whatever its adapter. */
    ok(after.loss < before.loss - 0.12, "the loss fell from %.3f to %.3f", before.loss, after.loss);
    tn_llm_trainer_free(t);
    ok(tn_llm_describe(model).adapter > 0, "the adapter stays with the model");
    MUST(!tn_llm_trainer_new(model, d, NULL, &t));
    MUST(!tn_llm_trainer_loss(t, d, 0, &l, NULL, NULL));
    ok(fabs(l.loss - after.loss) < 1e-5 || l.batches != 3, "and what it learned");
    tn_llm_trainer_free(t);
    tn_llm_data_free(d);
}

/* What is masked has no part in the loss, which is the mean over what is left. */
static void test_masked(void) {
    static const char a[] = "{\"prompt\": \"ab\", \"completion\": \"cd\"}\n";
    tn_llm_data *whole = examples(a), *masked;
    tn_llm_trainer *t;
    tn_llm_loss l, m;
    MUST(!tni_data_parse(model, "x.jsonl", a, strlen(a),
                         TN_OPT(tn_llm_data_opt, .mask_prompt = true), &masked));
    fresh(0);
    MUST(!tn_llm_trainer_new(model, whole, TN_OPT(tn_llm_train_opt, .batch = 1), &t));
    MUST(!tn_llm_trainer_loss(t, whole, 1, &l, NULL, NULL));
    MUST(!tn_llm_trainer_loss(t, masked, 1, &m, NULL, NULL));
    /* "?ab</s>:cd</s>" is 7 tokens, 4 of them the prompt; the one after the last counts. */
    ok(l.tokens == 7 && m.tokens == 4, "7 tokens, or 4 of the answer");
    ok(fabs(l.loss - m.loss) > 1e-4, "with different means");
    tn_llm_trainer_free(t);
    tn_llm_data_free(whole), tn_llm_data_free(masked);
}

static tni_str trained(const tn_llm_train_opt *o, double dropout, int threads) {
    tn_llm_data *d = examples(six);
    tn_llm_trainer *t;
    MUST(!tn_set_threads(threads));
    fresh(dropout);
    MUST(!tn_llm_trainer_new(model, d, o, &t));
    train(t, 9);
    tni_str s = numbers();
    tn_llm_trainer_free(t);
    tn_llm_data_free(d);
    return s;
}

static void test_same_bits(void) {
    tn_llm_train_opt again = fast, other = fast;
    again.checkpoint = true;
    other.seed = 4;
    tni_str a = trained(&fast, 0.3, 1), b = trained(&fast, 0.3, 3);
    ok(same(&a, &b), "the same bits with one thread and three");
    a = trained(&fast, 0, 1), b = trained(&again, 0, 1);
    ok(same(&a, &b), "and with layers computed twice");
    a = trained(&fast, 0.3, 1), b = trained(&again, 0.3, 1);
    ok(same(&a, &b), "which drop the same inputs");
    a = trained(&fast, 0.3, 1), b = trained(&fast, 0, 1);
    ok(!same(&a, &b), "dropout changes them");
    a = trained(&fast, 0, 1), b = trained(&other, 0, 1);
    ok(!same(&a, &b), "and so does the seed");
    MUST(!tn_set_threads(0));
}

/* ---- taking up a run ---- */

static void test_resume(const tn_llm_train_opt *o, double dropout, const char *what) {
    tn_llm_data *d = examples(six);
    tn_llm_trainer *t;
    fresh(dropout);
    MUST(!tn_llm_trainer_new(model, d, o, &t));
    train(t, 13);
    tni_str whole = numbers();
    tn_llm_trainer_free(t);
    for (int stop = 1; stop < 13; stop += 5) {
        fresh(dropout);
        MUST(!tn_llm_trainer_new(model, d, o, &t));
        train(t, stop);
        MUST(!tn_llm_trainer_save(t, in_dir("state")));
        train(t, 2); /* lost */
        tn_llm_trainer_free(t);
        fresh(dropout);
        MUST(!tn_llm_trainer_new(model, d, o, &t));
        is_i64(tn_llm_trainer_load(t, in_dir("state")), 0, "%s: taken up after %d steps", what,
               stop);
        is_i64(tn_llm_trainer_steps(t), stop, "it knows how many");
        train(t, 13 - stop);
        tni_str kept = {0}, parts = numbers();
        MUST(!tni_str_append(&kept, whole.v, whole.n));
        ok(same(&kept, &parts), "and ends with the same bits");
        tn_llm_trainer_free(t);
    }
    tni_str_free(&whole);
    tn_llm_data_free(d);
}

static void is_refused(const tn_llm_data *d, const tn_llm_train_opt *o, const char *says) {
    tn_llm_trainer *t;
    MUST(!tn_llm_trainer_new(model, d, o, &t));
    is_i64(tn_llm_trainer_load(t, in_dir("state")), TN_EVALUE, "refused: %s", says);
    ok(strstr(tn_error(), in_dir("state")) && strstr(tn_error(), says), "says: %s", tn_error());
    is_i64(tn_llm_trainer_steps(t), 0, "nothing is changed");
    tn_llm_trainer_free(t);
}

static void test_resume_refused(void) {
    tn_llm_data *d = examples(six), *more = examples("{\"text\": \"ab\"}\n{\"text\": \"cd\"}\n");
    tn_llm_trainer *t;
    tn_llm_train_opt seed = fast, rate = fast, batch = fast, adamw = fast;
    fresh(0);
    MUST(!tn_llm_trainer_new(model, d, &fast, &t) && !tn_llm_trainer_step(t, &(tn_llm_loss){0}));
    MUST(!tn_llm_trainer_save(t, in_dir("state")));
    tn_llm_trainer_free(t);
    seed.seed = 9, rate.learning_rate = 1, batch.batch = 3, adamw.adamw = true;
    is_refused(d, &seed, "\"seed\" was \"3\", now \"9\"");
    is_refused(d, &rate, "\"learning rate\" was 0.02");
    is_refused(d, &batch, "\"batch\" was 2, now 3");
    is_refused(d, &adamw, "\"optimizer\" was \"adam\", now \"adamw\"");
    is_refused(more, &fast, "\"examples\" was 6, now 2");
    MUST(!tn_llm_adapter_new(model, TN_OPT(tn_llm_lora_opt, .rank = 3, .scale = 2)));
    is_refused(d, &fast, "\"rank\" was 2, now 3");
    fresh(0);
    MUST(!tn_llm_trainer_new(model, d, &fast, &t));
    is_i64(tn_llm_trainer_load(t, in_dir("nothing")), TN_EFILE, "a missing file");
    MUST(!truncate(in_dir("state"), 500));
    is_i64(tn_llm_trainer_load(t, in_dir("state")), TN_EFORMAT, "a cut file: %s", tn_error());
    tn_llm_trainer_free(t);
    tn_llm_data_free(d), tn_llm_data_free(more);
}

/* ---- misuse ---- */

static void is_not_made(const tn_llm_data *d, const tn_llm_train_opt *o, int status,
                        const char *says) {
    tn_llm_trainer *t = (tn_llm_trainer *)1;
    is_i64(tn_llm_trainer_new(model, d, o, &t), status, "no trainer: %s", says);
    ok(!t && strstr(tn_error(), says), "says: %s", tn_error());
}

static void test_misuse(void) {
    tn_llm_data *d = examples(six), *longest = examples("{\"text\": \"dddddddddddddddddddd\"}\n");
    tn_llm_adapter_drop(model);
    is_not_made(d, NULL, TN_ESTATE, "the model has no adapter");
    fresh(0);
    is_not_made(d, TN_OPT(tn_llm_train_opt, .batch = 7), TN_EVALUE,
                "6 examples are fewer than a batch of 7");
    is_not_made(d, TN_OPT(tn_llm_train_opt, .batch = -1), TN_EVALUE, "a batch of -1");
    is_not_made(d, TN_OPT(tn_llm_train_opt, .learning_rate = -1), TN_EVALUE, "learning rate is -1");
    is_not_made(d, TN_OPT(tn_llm_train_opt, .learning_rate = NAN), TN_EVALUE, "learning rate");
    is_not_made(d, TN_OPT(tn_llm_train_opt, .weight_decay = INFINITY), TN_EVALUE, "weight decay");
    is_not_made(longest, TN_OPT(tn_llm_train_opt, .batch = 1), TN_EVALUE,
                "an example has 21 tokens; the model has 16 positions");
    is_i64(tn_llm_adapter_load(model, dir), TN_EFILE, "a folder without an adapter");
    ok(strstr(tn_error(), "no folder with an adapter"), "says: %s", tn_error());
    ok(tn_llm_describe(model).adapter > 0, "the adapter is still there");
    tn_llm_trainer_free(NULL);
    tn_llm_data_free(d), tn_llm_data_free(longest);
}

/* A step whose loss is a number may leave weights that are none: what was saved before stays. */
static void test_diverged(void) {
    tn_llm_data *d = examples(six);
    tn_llm_train_opt wild = fast;
    tn_llm_trainer *t;
    char *text;
    size_t n;
    fresh(0);
    tni_str before = numbers(), after = {0};
    wild.learning_rate = 1e300;
    MUST(!tn_llm_trainer_new(model, d, &wild, &t));
    ok(isfinite(train(t, 1)), "the loss is a number");
    is_i64(tn_llm_adapter_save(model, in_dir("kept")), TN_EVALUE, "the adapter is not written");
    ok(strstr(tn_error(), "lora_a: the adapter has become infinite or NaN"), "says: %s",
       tn_error());
    MUST(!tni_file_read(in_dir("kept/adapters.safetensors"), 1 << 20, &text, &n));
    MUST(!tni_str_append(&after, text, n));
    tni_free(text);
    ok(same(&before, &after), "what was saved before is as it was");
    tn_llm_trainer_free(t);
    tn_llm_data_free(d);
}

static bool stop_now(size_t done, size_t total, void *ud) {
    *(size_t *)ud = 10 * done + total;
    return true;
}

static void test_cancel(void) {
    tn_llm_data *d = examples(six);
    tn_llm_trainer *t;
    tn_llm_loss l;
    size_t seen = 0;
    fresh(0);
    MUST(!tn_llm_trainer_new(model, d, &fast, &t));
    is_i64(tn_llm_trainer_loss(t, d, 0, &l, stop_now, &seen), TN_ECANCELLED, "stopped");
    is_i64(seen, 13, "after one batch of three");
    is_i64(tn_llm_trainer_loss(t, d, 1, &l, stop_now, &seen), 0, "the last is never too many");
    tn_llm_trainer_free(t);
    tn_llm_data_free(d);
}

/* ---- memory ---- */

static int whole_run(const tn_llm_data *d, bool checkpoint) {
    tn_llm_trainer *t = NULL;
    tn_llm_loss l;
    tn_llm_train_opt o = fast;
    o.checkpoint = checkpoint;
    int status = tn_llm_adapter_new(
        model, TN_OPT(tn_llm_lora_opt, .rank = 1, .layers = 1, .keys = "mlp.up_proj"));
    if (!status) status = tn_llm_trainer_new(model, d, &o, &t);
    if (!status) status = tn_llm_trainer_step(t, &l);
    if (!status) status = tn_llm_trainer_step(t, &l);
    if (!status) status = tn_llm_trainer_loss(t, d, 1, &l, NULL, NULL);
    if (!status) status = tn_llm_trainer_save(t, in_dir("state"));
    if (!status) status = tn_llm_trainer_load(t, in_dir("state"));
    tn_llm_trainer_free(t);
    tn_llm_adapter_drop(model);
    return status;
}

static int each_run(int64_t failing, void *d) { return whole_run(d, failing % 2); }

static void test_failures(void) {
    tn_llm_data *d = examples(six);
    memory_each(each_run, d, 300);
    tn_llm_data_free(d);
}

int main(void) {
    tn_llm_train_opt adamw = fast;
    adamw.adamw = true;
    snprintf(dir, sizeof dir, "/tmp/tenon-finetune-XXXXXX");
    tiny_make(dir);
    MUST(!tn_llm_open(dir, &model));
    test_order();
    test_order_anywhere();
    test_padding();
    test_learns();
    test_masked();
    test_same_bits();
    test_resume(&fast, 0, "adam");
    test_resume(&adamw, 0.3, "adamw, dropout");
    test_resume_refused();
    test_misuse();
    test_diverged();
    test_cancel();
    test_failures();
    unlink(in_dir("kept/adapters.safetensors")), unlink(in_dir("kept/adapter_config.json"));
    rmdir(in_dir("kept"));
    unlink(in_dir("state"));
    tn_llm_free(model);
    tiny_remove(dir);
    return tap_done();
}
