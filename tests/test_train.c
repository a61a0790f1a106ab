/* Checkpoints of training: runs that are killed and resumed end with the bits of one that was not;
 * a kill or a full disk while saving leaves the old file; files of other models change nothing.
 * What is killed runs in child processes, which come first: before this one has threads. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "base/alloc.h"
#include "base/mmap.h"
#include "folder.h"
#include "io/safetensors.h"
#include "random.h"
#include "tap.h"
#include "tenon/nn.h"
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IN = 6, HIDDEN = 16, OUT = 3, BATCH = 8, STEPS = 24, KILLS = 6, SAVES = 12 };

/* ---- a run ---- */

typedef struct net {
    tn_params *p;
    tn_array *w1, *b1, *w2;
    tn_array *seen; /* frozen: what the function itself counts */
} net;

static int net_init(net *m, int64_t hidden, tn_dtype d) {
    *m = (net){.p = tn_params_new()};
    if (!m->p) return TN_EMEMORY;
    int status = 0;
    TN_SCOPE {
        tn_array *key = tn_random_key(5);
        tn_array *w1 = tn_astype(tn_random_normal(TN_SHAPE(IN, hidden), TN_F32, key), d);
        tn_array *w2 = tn_astype(tn_random_normal(TN_SHAPE(hidden, OUT), TN_F32, key), d);
        status = tn_params_add(m->p, "w1", &m->w1, w1);
        if (!status) status = tn_params_add(m->p, "b1", &m->b1, tn_zeros(TN_SHAPE(hidden), d));
        if (!status) status = tn_params_add(m->p, "w2", &m->w2, w2);
        if (!status) status = tn_params_add(m->p, "seen", &m->seen, tn_zeros(TN_SHAPE(), TN_F32));
    }
    tn_params_freeze(m->p, "seen", true);
    return status;
}

/* Data and dropout come from the thread's random sequence. */
static int loss(tn_list in, tn_array **out, int n_out, void *ud) {
    net *m = ud;
    (void)in, (void)n_out;
    tn_array *x = tn_random_normal(TN_SHAPE(BATCH, IN), TN_F32, NULL);
    tn_array *h = tn_tanh(tn_addmm(m->b1, x, m->w1, 1, 1));
    tn_array *keep = tn_random_bernoulli(tn_f32(0.8), tn_shape(h), NULL);
    tn_array *y = tn_matmul(tn_where(keep, h, tn_f32(0)), m->w2);
    out[0] = tn_mean(tn_square(tn_sub(y, tn_slice_axis(x, 1, 0, OUT))), TN_ALL, false);
    return tn_assign(&m->seen, tn_add(m->seen, tn_f32(BATCH)));
}

static tn_array *rate(tn_array *step, void *ud) {
    (void)ud;
    return tn_optim_cosine_decay(step, 0.01, STEPS, 0.001);
}

static tn_optim *adamw(tn_params *p) {
    return tn_optim_adamw(p, TN_OPT(tn_adamw_opt, .schedule = rate, .bias_correction = true));
}

static int net_step(net *m, tn_optim *o) {
    int status = 0;
    TN_SCOPE {
        tn_array *value, *grads[3];
        status = tn_nn_value_and_grad(m->p, loss, m, TN_LIST(), 1, &value, grads);
        if (!status) status = tn_optim_update(o, grads);
        if (!status) status = tn_optim_eval(o, TN_LIST(value));
    }
    return status;
}

/* From the checkpoint at `path`, if there is one, to its last step; a byte into `said` a step. */
static int run(const char *path, int said) {
    net m;
    int64_t step = 0;
    tn_random_seed(77);
    int status = net_init(&m, HIDDEN, TN_F32);
    tn_optim *o = status ? NULL : adamw(m.p);
    if (!o) return 1;
    if (!access(path, F_OK)) status = tn_train_load(path, m.p, o, &step, NULL);
    while (step < STEPS && !status) {
        status = net_step(&m, o);
        step++;
        if (!status) status = tn_train_save(path, m.p, o, step, "a text");
        if (said >= 0 && write(said, "", 1) != 1) status = TN_EFILE;
    }
    if (status) diag("run: %s", tn_error());
    tn_optim_free(o);
    tn_params_free(m.p);
    return status != 0;
}

/* A child that runs, and is killed when it has done so many steps (0: never); whether it was. */
static bool run_child(const char *path, int kill_after) {
    int end[2], status = 0;
    char byte;
    if (pipe(end)) return false;
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        close(end[0]);
        _exit(run(path, end[1]));
    }
    close(end[1]);
    for (int i = 0; i < kill_after && read(end[0], &byte, 1) == 1; i++) {
    }
    if (kill_after) kill(pid, SIGKILL);
    while (read(end[0], &byte, 1) == 1) {
    }
    close(end[0]);
    if (waitpid(pid, &status, 0) != pid) return false;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return true;
    if (!WIFEXITED(status) || WEXITSTATUS(status)) ok(0, "a child ended with %x", status);
    return false;
}

static bool same_files(const char *a, const char *b) {
    char *x = NULL, *y = NULL;
    size_t n = 0, k = 0;
    bool same = !tni_file_read(a, 1 << 24, &x, &n) && !tni_file_read(b, 1 << 24, &y, &k) &&
                n == k && !memcmp(x, y, n);
    tni_free(x), tni_free(y);
    return same;
}

static void test_killed(void) {
    char whole[128], parts[128];
    snprintf(whole, sizeof whole, "%s", in_dir("whole"));
    snprintf(parts, sizeof parts, "%s", in_dir("parts"));
    ok(!run_child(whole, 0), "a run that nobody stops");
    int killed = 0;
    for (int i = 0; i < KILLS; i++) killed += run_child(parts, 1 + (int)below(4));
    ok(killed >= KILLS - 1, "%d of %d runs killed on their way", killed, KILLS);
    ok(!same_files(whole, parts), "they have not come to the end");
    ok(!run_child(parts, 0), "the last one does");
    ok(same_files(whole, parts), "the same bits: parameters, state, random numbers, step");
}

/* ---- saving that is killed, or has no room ---- */

/* Saves a and b in turn, for ever. */
__attribute__((noreturn)) static void save_for_ever(const char *path, int said) {
    net m;
    if (net_init(&m, 4096, TN_F32)) _exit(1);
    tn_optim *o = adamw(m.p);
    if (!o) _exit(1);
    for (int i = 0;; i++) {
        if (tn_train_save(i < 2 ? in_dir(i ? "b" : "a") : path, m.p, o, i % 2, NULL)) _exit(1);
        if (i == 2 && write(said, "", 1) != 1) _exit(1);
    }
}

static void test_killed_saving(void) {
    int whole = 0;
    char path[128], byte;
    snprintf(path, sizeof path, "%s", in_dir("turns"));
    for (int i = 0; i < SAVES; i++) {
        int end[2];
        if (pipe(end)) return;
        fflush(stdout);
        pid_t pid = fork();
        if (!pid) save_for_ever(path, end[1]);
        close(end[1]);
        if (read(end[0], &byte, 1) == 1) usleep((useconds_t)below(20000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(end[0]);
        whole += same_files(path, in_dir("a")) || same_files(path, in_dir("b"));
    }
    is_i64(whole, SAVES, "killed while it saves: the file is whole, every time");
}

static int save_without_room(const char *path) {
    net m;
    struct rlimit least = {20000, 20000};
    signal(SIGXFSZ, SIG_IGN);
    if (net_init(&m, 4096, TN_F32) || setrlimit(RLIMIT_FSIZE, &least)) return 1;
    tn_optim *o = adamw(m.p);
    int status = tn_train_save(path, m.p, o, 7, NULL);
    if (status != TN_EFILE || !strstr(tn_error(), "cannot write")) return 2;
    status = net_step(&m, o); /* and training can go on */
    tn_optim_free(o);
    tn_params_free(m.p);
    return status ? 3 : 0;
}

static void test_no_room(void) {
    int status = -1;
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) _exit(save_without_room(in_dir("turns")));
    waitpid(pid, &status, 0);
    ok(WIFEXITED(status) && !WEXITSTATUS(status), "no room: TN_EFILE (%x)", status);
    ok(same_files(in_dir("turns"), in_dir("a")) || same_files(in_dir("turns"), in_dir("b")),
       "the old file is whole");
}

/* ---- other models, other optimizers, other files ---- */

typedef struct before {
    tn_array *w1, *seen;
    uint64_t random;
    int64_t steps;
} before;

static before note(const net *m, tn_optim *o) {
    return (before){m->w1, m->seen, tn_random_state(), tn_optim_steps(o)};
}

static void refused(net *m, tn_optim *o, const char *path, int code, const char *says) {
    before was = note(m, o);
    char *text = NULL;
    int64_t step = -5;
    is_i64(tn_train_load(path, m->p, o, &step, &text), code, "refused: %s", says);
    ok(strstr(tn_error(), says), "says so: %s", tn_error());
    before is = note(m, o);
    ok(was.w1 == is.w1 && was.seen == is.seen && was.random == is.random && was.steps == is.steps &&
           step == -5 && !text,
       "nothing is changed");
}

/* The saved file with one thing changed. */
static void changed(const char *from, const char *to, const char *key, const char *value,
                    const char *tensor, tni_st_dtype dtype) {
    tni_st *s;
    tni_st_tensor t[32];
    tni_st_pair meta[8];
    size_t n = 0, k = 0;
    if (tni_st_open(from, &s)) return;
    for (size_t i = 0; i < tni_st_count(s) && n < 32; i++) {
        t[n] = *tni_st_at(s, i);
        if (tensor && !strcmp(t[n].name, tensor)) {
            if (dtype == TNI_ST_DTYPES) continue;
            t[n].dtype = dtype;
        }
        n++;
    }
    for (size_t i = 0; i < tni_st_metadata_count(s) && k < 8; i++) {
        meta[k] = tni_st_metadata_at(s, i);
        if (key && !strcmp(meta[k].key, key)) {
            if (!value) continue;
            meta[k].value = value;
        }
        k++;
    }
    if (tni_st_write(to, t, n, meta, k)) ok(0, "%s", tn_error());
    tni_st_free(s);
}

static void test_other_files(void) {
    net m, wide;
    const char *good = in_dir("good"), *bad = in_dir("bad");
    int status = net_init(&m, HIDDEN, TN_F32) || net_init(&wide, HIDDEN + 1, TN_F32);
    tn_optim *o = adamw(m.p), *lion = tn_optim_lion(m.p, TN_OPT(tn_lion_opt, .learning_rate = 1)),
             *other = adamw(wide.p);
    status = status || net_step(&m, o) || tn_train_save(good, m.p, o, 1, "x\n\xc3\xa4");
    ok(!status, "saved");
    refused(&wide, other, good, TN_ESHAPE, "params.w1 is [6, 16], but the parameter is [6, 17]");
    refused(&m, lion, good, TN_EFORMAT, "saved with adamw, not with lion");
    is_i64(tn_train_load(good, m.p, other, NULL, NULL), TN_EVALUE, "an optimizer of another tree");
    is_i64(tn_train_save(good, m.p, other, 0, NULL), TN_EVALUE, "saving so");
    refused(&m, o, in_dir("absent"), TN_EFILE, "absent");
    const struct {
        const char *key, *value, *tensor;
        tni_st_dtype dtype;
        int code;
        const char *says;
    } wrong[] = {
        {"format", "mlx", NULL, 0, TN_EFORMAT, "no checkpoint of training"},
        {"format", NULL, NULL, 0, TN_EFORMAT, "no checkpoint of training"},
        {"format", "tenon-train-2", NULL, 0, TN_EFORMAT,
         "a checkpoint of form tenon-train-2; this version reads tenon-train-1"},
        {"optimizer", "", NULL, 0, TN_EFORMAT, "saved with no optimizer, not with adamw"},
        {"step", "1x", NULL, 0, TN_EFORMAT, "no step, or no random state"},
        {"random", NULL, NULL, 0, TN_EFORMAT, "no step, or no random state"},
        {NULL, NULL, "params.w2", TNI_ST_DTYPES, TN_EFORMAT, "there is no parameter params.w2"},
        {NULL, NULL, "optim.w1.m", TNI_ST_DTYPES, TN_EFORMAT, "there is no parameter optim.w1.m"},
        {NULL, NULL, "params.w2", TNI_ST_I32, TN_EDTYPE, "params.w2 is int32, not float32"},
        {NULL, NULL, "optim.step", TNI_ST_I64, TN_EDTYPE, "optim.step is int64, not uint64"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        changed(good, bad, wrong[i].key, wrong[i].value, wrong[i].tensor, wrong[i].dtype);
        refused(&m, o, bad, wrong[i].code, wrong[i].says);
    }
    char *text = NULL;
    int64_t step = 0;
    is_i64(tn_train_load(good, m.p, o, &step, &text), 0, "the right one is loaded");
    ok(step == 1 && tn_optim_steps(o) == 1, "with its step");
    is_str(text, "x\n\xc3\xa4", "and its text");
    tn_free(text);
    is_i64(tn_train_load(good, m.p, NULL, NULL, &text), 0, "without an optimizer");
    tn_free(text);
    is_i64(tn_train_save(good, m.p, NULL, -3, NULL), 0, "saved without one");
    is_i64(tn_train_load(good, m.p, NULL, &step, &text), 0, "and loaded");
    ok(step == -3 && !text, "step %d, no text", (int)step);
    ok(tn_train_save(good, m.p, NULL, 0, "\xff") == TN_EVALUE, "a text must be UTF-8");
    tn_optim_free(o), tn_optim_free(lion), tn_optim_free(other);
    tn_params_free(m.p), tn_params_free(wide.p);
}

/* Sums of gradients are part of it: saved between two small batches, the update is the same. */
static void test_half_way(void) {
    const char *path = in_dir("half");
    float end[2][IN * HIDDEN];
    for (int turn = 0; turn < 2; turn++) {
        net m;
        int status = net_init(&m, HIDDEN, TN_F32);
        tn_random_seed(3);
        tn_optim *o = adamw(m.p);
        for (int part = 0; part < 2 && !status; part++) {
            TN_SCOPE {
                tn_array *value, *grads[3];
                status = tn_nn_value_and_grad(m.p, loss, &m, TN_LIST(), 1, &value, grads);
                if (!status) status = tn_optim_add(o, grads);
            }
            if (!part && !status && !turn) status = tn_train_save(path, m.p, o, 0, NULL);
            if (part || status || !turn) continue;
            tn_optim_free(o);
            tn_params_free(m.p);
            status = net_init(&m, HIDDEN, TN_F32);
            o = adamw(m.p);
            tn_random_seed(9);
            if (!status) status = tn_train_load(path, m.p, o, NULL, NULL);
        }
        if (!status) status = tn_optim_update(o, NULL);
        if (!status) status = tn_optim_eval(o, TN_LIST());
        if (!status) status = tn_read(m.w1, TN_F32, end[turn], sizeof end[turn]);
        ok(!status, "half an update %s: %s", turn ? "loaded" : "saved", status ? tn_error() : "");
        tn_optim_free(o);
        tn_params_free(m.p);
    }
    ok(!memcmp(end[0], end[1], sizeof end[0]), "ends with the same bits");
}

/* ---- memory ---- */

static int save_and_load(net *m, tn_optim *o, const char *path) {
    char *text = NULL;
    int status = tn_train_save(path, m->p, o, 1, "t");
    if (!status) status = tn_train_load(path, m->p, o, NULL, &text);
    tn_free(text);
    return status;
}

static void test_allocations(void) {
    net m;
    const char *path = in_dir("memory");
    int status = net_init(&m, HIDDEN, TN_F32), n = 1, wrong = 0;
    tn_optim *o = adamw(m.p);
    if (!status) status = net_step(&m, o) || save_and_load(&m, o, path);
    ok(!status, "with memory");
    int64_t live = tni_alloc_live();
    for (status = TN_EMEMORY; status && n < 5000; n++) {
        tn_array *w1 = m.w1;
        tni_fail_alloc_at(n);
        status = save_and_load(&m, o, path);
        tni_fail_alloc_at(0);
        if (status && (status != TN_EMEMORY || m.w1 != w1)) wrong++;
    }
    ok(!status && !wrong && n > 50, "%d allocations fail, one after the other", n);
    is_i64(tni_alloc_live(), live, "nothing is lost");
    is_i64(net_step(&m, o), 0, "training goes on");
    tn_optim_free(o);
    tn_params_free(m.p);
}

static void test_random_state(void) {
    tn_random_seed(0x123456789abcdef0u);
    ok(tn_random_state() == 0x123456789abcdef0u, "the state is the seed at first");
    float a[2], b[2];
    uint64_t state = 0;
    int status = 0;
    for (int i = 0; i < 3; i++)
        TN_SCOPE {
            if (i == 2)
                tn_random_seed(state);
            else
                state = tn_random_state();
            tn_array *x = tn_random_normal(TN_SHAPE(2), TN_F32, NULL);
            status = status ? status : tn_read(x, TN_F32, i == 1 ? a : b, sizeof a);
        }
    ok(!status && !memcmp(a, b, sizeof a), "seeded with its state, a sequence goes on");
}

int main(void) {
    snprintf(dir, sizeof dir, "/tmp/tenon-train-XXXXXX");
    if (!mkdtemp(dir)) return ok(0, "a folder"), tap_done();
    test_killed();
    test_killed_saving();
    test_no_room();
    test_other_files();
    test_half_way();
    test_allocations();
    test_random_state();
    char command[96];
    snprintf(command, sizeof command, "rm -r %s", dir);
    if (system(command)) diag("%s is left", dir);
    return tap_done();
}
