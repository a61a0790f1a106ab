/* tenon finetune: fits an adapter to examples, and leaves it, a loss curve and a state from which
 * the run can go on in one folder. */
#include "base/mmap.h"
#include "curve.h"
#include "opt.h"
#include "tenon/llm.h"
#include "tenon/tenon.h"
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FT_CACHE = 256 }; /* MiB */

static const char *ft_model, *ft_data, *ft_adapter, *ft_keys, *ft_optimizer = "adam";
static int64_t ft_rank = 8, ft_layers = 16, ft_batch = 4, ft_iters = 1000, ft_tokens = 2048,
               ft_save = 100, ft_val_batches = 25, ft_eval = 200, ft_report = 10, ft_seed,
               ft_threads;
static double ft_scale = 20, ft_dropout, ft_rate = 1e-5;
static bool ft_mask, ft_checkpoint, ft_resume;

static const opt ft_opts[] = {
    {"--model", OPT_STR, &ft_model, "PATH", "GGUF file or Hugging Face folder", 0, 0},
    {"--data", OPT_STR, &ft_data, "DIR",
     "folder of train.jsonl, and valid.jsonl and test.jsonl where there are any: a line is "
     "{\"text\"}, {\"prompt\", \"completion\"} or {\"messages\"}",
     0, 0},
    {"--adapter", OPT_STR, &ft_adapter, "DIR", "folder to leave the adapter in", 0, 0},
    {"--resume", OPT_FLAG, &ft_resume, NULL, "go on with the run that --adapter holds", 0, 0},
    {"--iters", OPT_INT, &ft_iters, "N", "steps to train, those before --resume among them", 1,
     1e9},
    {"--batch", OPT_INT, &ft_batch, "N", "examples a step", 1, 4096},
    {"--learning-rate", OPT_NUM, &ft_rate, "R", "size of a step", 1e-12, 1},
    {"--optimizer", OPT_STR, &ft_optimizer, "NAME", "adam, or adamw (weight decay 0.01)", 0, 0},
    {"--rank", OPT_INT, &ft_rank, "N", "of the adapter's matrices", 1, 4096},
    {"--scale", OPT_NUM, &ft_scale, "S", "of what the adapter adds", -1e6, 1e6},
    {"--dropout", OPT_NUM, &ft_dropout, "P", "part of the adapter's input that is left out", 0,
     0.99},
    {"--layers", OPT_INT, &ft_layers, "N", "the last N layers get adapters; 0: all", 0, 1e6},
    {"--keys", OPT_STR, &ft_keys, "LIST",
     "matrices with adapters, as self_attn.q_proj,self_attn.v_proj; all of a layer if not given", 0,
     0},
    {"--mask-prompt", OPT_FLAG, &ft_mask, NULL, "learn the answers alone, not the prompts", 0, 0},
    {"--max-seq-length", OPT_INT, &ft_tokens, "N", "longer examples are cut to N tokens", 2, 1e9},
    {"--grad-checkpoint", OPT_FLAG, &ft_checkpoint, NULL,
     "compute layers twice and keep less in memory", 0, 0},
    {"--steps-per-report", OPT_INT, &ft_report, "N", "steps between two reported losses", 1, 1e9},
    {"--steps-per-eval", OPT_INT, &ft_eval, "N", "steps between two losses on valid.jsonl", 1, 1e9},
    {"--val-batches", OPT_INT, &ft_val_batches, "N", "batches of valid.jsonl to use; 0: all", 0,
     1e9},
    {"--save-every", OPT_INT, &ft_save, "N", "steps between two saves", 1, 1e9},
    {"--seed", OPT_INT, &ft_seed, "S", "of the adapter's beginning, the order and dropout", 0, 0},
    {"--threads", OPT_INT, &ft_threads, "N", "threads to use; 0: one a core", 0, 1024},
    {NULL, OPT_FLAG, NULL, NULL, NULL, 0, 0},
};

typedef struct finetune {
    tn_llm *m;
    tn_llm_data *train, *valid, *test;
    tn_llm_trainer *t;
    curve curve;
    double sum, start, mark; /* losses since the last report; seconds */
    int64_t first, tokens, trained, since;
    bool made; /* the folder of the adapter, by this run */
    char state[4096], csv[4096], png[4096];
} finetune;

static int ft_error(void) {
    cmd_progress(NULL);
    return cmd_fail("%s", tn_error());
}

/* ---- what goes in ---- */

static bool ft_exists(const char *path) {
    struct stat st;
    return !stat(path, &st);
}

static int ft_open_data(finetune *f, const char *name, tn_llm_data **out) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.jsonl", ft_data, name);
    if (out != &f->train && !ft_exists(path)) return 0;
    tn_llm_data_opt o = {.size = sizeof o, .mask_prompt = ft_mask, .max_tokens = ft_tokens};
    if (tn_llm_data_open(f->m, path, &o, out)) return ft_error();
    tn_llm_data_info i = tn_llm_data_describe(*out);
    cmd_progress(NULL);
    printf("%s: %lld example%s, %lld tokens, the longest has %lld", path, (long long)i.examples,
           i.examples == 1 ? "" : "s", (long long)i.tokens, (long long)i.longest);
    if (i.cut) printf("; %lld were cut to %lld tokens", (long long)i.cut, (long long)ft_tokens);
    putchar('\n');
    return 0;
}

static int ft_make_adapter(finetune *f) {
    int64_t layers = tn_llm_describe(f->m).layers;
    tn_llm_lora_opt o = {.size = sizeof o,
                         .rank = ft_rank,
                         .scale = ft_scale,
                         .dropout = ft_dropout,
                         .layers = ft_layers < layers ? ft_layers : layers,
                         .keys = ft_keys,
                         .seed = (uint64_t)ft_seed};
    if (tn_llm_adapter_new(f->m, &o)) return ft_error();
    tn_llm_info i = tn_llm_describe(f->m);
    printf("adapter: %.3f M numbers beside the model's %.1f M\n", (double)i.adapter / 1e6,
           (double)i.parameters / 1e6);
    return 0;
}

static int ft_make_trainer(finetune *f) {
    tn_llm_train_opt o = {.size = sizeof o,
                          .batch = ft_batch,
                          .learning_rate = ft_rate,
                          .adamw = !strcmp(ft_optimizer, "adamw"),
                          .checkpoint = ft_checkpoint,
                          .seed = (uint64_t)ft_seed};
    if (tn_llm_trainer_new(f->m, f->train, &o, &f->t)) return ft_error();
    if (!ft_resume) return 0;
    if (tn_llm_trainer_load(f->t, f->state)) return ft_error();
    f->first = tn_llm_trainer_steps(f->t);
    if (f->first < ft_iters)
        printf("going on after step %lld\n", (long long)f->first);
    else
        printf("the run has %lld steps already: a larger --iters goes on\n", (long long)f->first);
    return curve_read(&f->curve, f->csv, f->first) ? ft_error() : 0;
}

/* What takes no time to see, before the model is read. A run in the folder is not overwritten. */
static int ft_open_folder(finetune *f) {
    snprintf(f->state, sizeof f->state, "%s/checkpoint.safetensors", ft_adapter);
    snprintf(f->csv, sizeof f->csv, "%s/loss.csv", ft_adapter);
    snprintf(f->png, sizeof f->png, "%s/loss.png", ft_adapter);
    bool there = ft_exists(f->state);
    if (ft_resume && !there)
        return cmd_fail("%s: there is no run to go on with (checkpoint.safetensors is missing)",
                        ft_adapter);
    if (!ft_resume && there)
        return cmd_fail("%s already holds a run: --resume goes on with it; or name another folder",
                        ft_adapter);
    char path[4096];
    snprintf(path, sizeof path, "%s/train.jsonl", ft_data);
    if (!ft_exists(path))
        return cmd_fail("%s: no folder with a train.jsonl in it, which --data must name", ft_data);
    return tni_folder_make(ft_adapter, &f->made) ? ft_error() : 0;
}

static int ft_open(finetune *f) {
    int status = ft_open_folder(f);
    if (status) return status;
    cmd_progress("loading %s", ft_model);
    if (tn_llm_open(ft_model, &f->m)) return ft_error();
    cmd_progress("reading %s", ft_data);
    status = ft_open_data(f, "train", &f->train);
    if (!status) status = ft_open_data(f, "valid", &f->valid);
    if (!status) status = ft_open_data(f, "test", &f->test);
    if (!status) status = ft_make_adapter(f);
    return status ? status : ft_make_trainer(f);
}

/* ---- what comes out ---- */

static int ft_write(finetune *f) {
    if (tn_llm_adapter_save(f->m, ft_adapter) || tn_llm_trainer_save(f->t, f->state))
        return ft_error();
    return curve_write(&f->curve, f->csv) || curve_draw(&f->curve, f->png) ? ft_error() : 0;
}

static void ft_time(double seconds, char *buf, size_t n) {
    long long s = seconds > 0 && seconds < 1e9 ? (long long)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(buf, n, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(buf, n, "%lld:%02lld", s / 60, s % 60);
}

static void ft_line(finetune *f, int64_t step, double loss, double rate, bool keep) {
    char left[32];
    double each = (cmd_seconds() - f->start) / (double)(step - f->first);
    ft_time(each * (double)(ft_iters - step), left, sizeof left);
    cmd_progress(NULL);
    if (keep)
        printf("step %lld: loss %.4f, %.0f tokens/s, %s left\n", (long long)step, loss, rate, left),
            fflush(stdout);
    else
        cmd_progress("step %lld of %lld: loss %.4f, %.0f tokens/s, %s left", (long long)step,
                     (long long)ft_iters, loss, rate, left);
}

static int ft_report_step(finetune *f, int64_t step, const tn_llm_loss *l) {
    f->sum += l->loss, f->tokens += l->tokens, f->trained += l->tokens, f->since++;
    double seconds = cmd_seconds() - f->mark, rate = (double)f->tokens / seconds;
    if (step % ft_report && step != ft_iters) return ft_line(f, step, l->loss, rate, false), 0;
    double mean = f->sum / (double)f->since;
    ft_line(f, step, mean, rate, true);
    if (curve_add(&f->curve, step, mean, NAN)) return cmd_fail("out of memory");
    f->sum = 0, f->tokens = f->since = 0, f->mark = cmd_seconds();
    return curve_write(&f->curve, f->csv) ? ft_error() : 0;
}

/* ---- the run ---- */

static bool ft_progress(size_t done, size_t total, void *ud) {
    cmd_progress("%s loss: %zu of %zu batches", (const char *)ud, done, total);
    return cmd_interrupted;
}

static int ft_loss_on(finetune *f, const tn_llm_data *d, char *name, int64_t step,
                      int64_t batches) {
    tn_llm_loss l;
    double begin = cmd_seconds();
    int status = d ? tn_llm_trainer_loss(f->t, d, batches, &l, ft_progress, name) : 0;
    cmd_progress(NULL);
    if (!d || status == TN_ECANCELLED) return 0;
    if (status) return ft_error();
    printf("step %lld: %s loss %.4f, perplexity %.3f, %lld tokens in %lld batches\n",
           (long long)step, name, l.loss, exp(l.loss), (long long)l.tokens, (long long)l.batches);
    fflush(stdout);
    double took = cmd_seconds() - begin;
    f->mark += took, f->start += took; /* the pace is that of training alone */
    if (d != f->valid) return 0;
    return curve_add(&f->curve, step, NAN, l.loss) ? cmd_fail("out of memory") : 0;
}

static int ft_step(finetune *f) {
    char valid[] = "validation";
    tn_llm_loss l;
    if (tn_llm_trainer_step(f->t, &l)) return ft_error();
    int64_t step = tn_llm_trainer_steps(f->t);
    if (!isfinite(l.loss)) {
        cmd_progress(NULL);
        return cmd_fail("step %lld: the loss is %g; a smaller --learning-rate helps, and what was "
                        "saved before is as it was",
                        (long long)step, l.loss);
    }
    int status = ft_report_step(f, step, &l);
    if (!status && (step % ft_eval == 0 || step == ft_iters) && !cmd_interrupted)
        status = ft_loss_on(f, f->valid, valid, step, ft_val_batches);
    if (!status && (step % ft_save == 0 || step == ft_iters)) status = ft_write(f);
    return status;
}

static int ft_train(finetune *f) {
    char valid[] = "validation", test[] = "test";
    int status = 0;
    f->start = f->mark = cmd_seconds();
    if (!f->first) status = ft_loss_on(f, f->valid, valid, 0, ft_val_batches);
    while (!status && !cmd_interrupted && tn_llm_trainer_steps(f->t) < ft_iters)
        status = ft_step(f);
    cmd_progress(NULL);
    int64_t step = tn_llm_trainer_steps(f->t);
    if (status) return status;
    if (step < ft_iters) {
        status = ft_write(f);
        if (!status)
            printf("stopped after step %lld; the same command with --resume goes on\n",
                   (long long)step);
        return status;
    }
    return ft_loss_on(f, f->test, test, step, 0);
}

static int ft_finish(const finetune *f) {
    double seconds = cmd_seconds() - f->start;
    int64_t steps = tn_llm_trainer_steps(f->t) - f->first;
    printf("%s: %lld steps in this run, %lld tokens, %.0f tokens/s, peak memory %.0f MB\n",
           ft_adapter, (long long)steps, (long long)f->trained,
           seconds > 0 ? (double)f->trained / seconds : 0, (double)cmd_peak_bytes() / 1e6);
    return 0;
}

static int ft_run(void) {
    finetune f = {0};
    if (!ft_model) return cmd_usage("finetune: --model is needed");
    if (!ft_data) return cmd_usage("finetune: --data is needed");
    if (!ft_adapter) return cmd_usage("finetune: --adapter is needed");
    if (strcmp(ft_optimizer, "adam") && strcmp(ft_optimizer, "adamw"))
        return cmd_usage("--optimizer \"%s\": adam and adamw are possible", ft_optimizer);
    if (tn_set_threads((int)ft_threads)) return ft_error();
    /* Batches of other lengths need memory of other sizes: kept, it would lie idle. */
    tn_memory_set_cache_limit((size_t)FT_CACHE << 20);
    cmd_catch_interrupt();
    int status = ft_open(&f);
    if (!status) status = ft_train(&f);
    if (!status) status = ft_finish(&f);
    if (status && f.made) rmdir(ft_adapter); /* which does nothing once something is in it */
    tn_llm_trainer_free(f.t);
    tn_llm_data_free(f.train), tn_llm_data_free(f.valid), tn_llm_data_free(f.test);
    tn_llm_free(f.m);
    curve_free(&f.curve);
    return status;
}

extern const command cmd_finetune;
const command cmd_finetune = {"finetune", "fit an adapter to examples", ft_opts, ft_run};
