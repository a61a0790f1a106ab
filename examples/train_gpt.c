/* A GPT that learns to write Shakespeare letter by letter, and then writes. It can be stopped and
 * started again with the same command: it goes on where its last checkpoint was.
 *     train_gpt [--steps 2000 --layers 6 --width 384 --heads 6 --context 256 --batch 12
 *                --rate 1e-3 --text FILE --out FOLDER --letters 500] */
#include "common/data.h"
#include "common/progress.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <tenon/nn.h>

enum { MOST_GRADS = 1024, SAVE_EVERY = 100 };

typedef struct gpt {
    tn_params *p;
    tn_optim *o;
    int layers, width, heads, context, batch, letters; /* letters: size of the alphabet */
    double rate, steps;
    tn_array *text;
    tn_nn_embedding token, position;
    tn_nn_transformer_encoder stack; /* a norm at its end */
} gpt;

/* Scores [n, t, alphabet] of the letter after each of letters [n, t]. */
static tn_array *scores(const gpt *m, tn_array *letters) {
    tn_array *place = tn_arange(0, (double)tn_dim(letters, 1), 1, TN_I32);
    tn_array *h =
        tn_add(tn_nn_embedding_call(&m->token, letters), tn_nn_embedding_call(&m->position, place));
    h = tn_nn_transformer_encoder_call(&m->stack, h, TN_OPT(tn_sdpa_opt, .causal = true), true);
    return tn_nn_embedding_as_linear(&m->token, h);
}

static int loss(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tn_nn_cross_entropy(scores(ud, in.v[0]), in.v[1], TN_NN_MEAN, NULL);
    return 0;
}

/* A step: pieces of the text from random places, gradients, an update. */
static int step(tn_list in, tn_array **out, int n_out, void *ud) {
    gpt *m = ud;
    tn_array *grads[MOST_GRADS], *most = tn_i32(tn_size(m->text) - m->context);
    (void)in;
    tn_array *start = tn_random_randint(tn_i32(0), most, TN_SHAPE(m->batch, 1), TN_I32, NULL);
    tn_array *at = tn_add(start, tn_arange(0, m->context, 1, TN_I32));
    tn_array *x = tn_take(m->text, at, 0), *y = tn_take(m->text, tn_add(at, tn_i32(1)), 0);
    int failed = tn_nn_value_and_grad(m->p, loss, m, TN_LIST(x, y), n_out, out, grads);
    (void)tn_nn_clip_grad_norm(grads, tn_params_trainable(m->p), 1);
    return failed ? failed : tn_optim_update(m->o, grads);
}

static tn_array *rate(tn_array *n, void *ud) {
    const gpt *m = ud;
    int64_t warm = 20, rest = (int64_t)fmax(1, m->steps - 20);
    tn_array *rise = tn_optim_linear_schedule(n, 0, m->rate, warm);
    tn_array *fall = tn_optim_cosine_decay(tn_sub(n, tn_i32(warm)), m->rate, rest, m->rate / 10);
    return tn_optim_join_schedules(n, TN_LIST(rise, fall), TN_INTS(warm));
}

static int init(gpt *m) {
    const tn_nn_transformer_opt *gelu = TN_OPT(tn_nn_transformer_opt, .activation = tn_nn_gelu);
    const tn_adamw_opt *opt = TN_OPT(tn_adamw_opt, .schedule = rate, .schedule_ud = m,
                                     .beta2 = 0.99, .weight_decay = 0.1, .bias_correction = true);
    m->p = tn_params_new();
    if (!m->p || tn_nn_embedding_init(&m->token, m->p, "token", m->letters, m->width) ||
        tn_nn_embedding_init(&m->position, m->p, "position", m->context, m->width) ||
        tn_nn_transformer_encoder_init(&m->stack, m->p, "stack", m->layers, m->width, m->heads,
                                       gelu))
        return 1;
    if (tn_params_count(m->p) > MOST_GRADS) return fprintf(stderr, "too many layers\n"), 1;
    m->o = tn_optim_adamw(m->p, opt);
    return !m->o;
}

static int train(gpt *m, const char *folder) {
    int64_t done = 0;
    const char *file = folder_file(folder, "checkpoint.safetensors");
    FILE *there = file ? fopen(file, "rb") : NULL;
    int failed = there && (fclose(there), tn_train_load(file, m->p, m->o, &done, NULL));
    tn_compile_opt opt = {.size = sizeof opt, .state = tn_optim_slots(m->o), .keep = true};
    tn_compiled *c = tn_compile(step, m, 1, &opt);
    failed = failed || !c;
    progress line;
    progress_begin(&line, done, (int64_t)m->steps, (int64_t)m->batch * m->context, "tokens");
    for (; !failed; done++) {
        if (file && (done % SAVE_EVERY == 0 || done == (int64_t)m->steps))
            failed = tn_train_save(file, m->p, m->o, done, NULL);
        if (failed || done >= (int64_t)m->steps) break;
        TN_SCOPE {
            tn_array *value;
            failed = tn_compiled_call(c, TN_LIST(), &value);
            if (!failed) failed = progress_step(&line, tn_item_f32(value));
        }
    }
    tn_compiled_free(c);
    return progress_end(&line, folder) || failed;
}

/* Letters, each drawn from what the model makes of those before it. */
static int writes(gpt *m, const alphabet *a, int letters) {
    tn_array *seen = NULL; /* a slot: [1, so far] */
    int failed = tn_assign(&seen, tn_zeros(TN_SHAPE(1, 1), TN_U8));
    for (int i = 0; i < letters && !failed; i++)
        TN_SCOPE {
            int64_t n = tn_dim(seen, 1), from = n > m->context ? n - m->context : 0;
            tn_array *s = scores(m, tn_slice_axis(seen, 1, from, n));
            tn_array *last = tn_slice_axis(s, 1, -1, INT64_MAX);
            tn_array *next = tn_astype(tn_random_categorical(last, -1, NULL), TN_U8);
            putchar(a->letter[tn_item_i64(next) & 255]);
            failed =
                tn_assign(&seen, tn_concatenate(TN_LIST(seen, next), 1)) || tn_eval(TN_LIST(seen));
        }
    puts("");
    tn_drop(seen);
    return failed;
}

int main(int argc, char **argv) {
    alphabet a;
    const char *folder = option_text(argv, "--out", NULL);
    gpt m = {.rate = option_number(argv, "--rate", 1e-3)};
    (void)argc;
    m.layers = (int)option_number(argv, "--layers", 6);
    m.width = (int)option_number(argv, "--width", 384);
    m.heads = (int)option_number(argv, "--heads", 6);
    m.context = (int)option_number(argv, "--context", 256);
    m.batch = (int)option_number(argv, "--batch", 12);
    m.steps = option_number(argv, "--steps", 2000);
    if (alphabet_open(&a, option_text(argv, "--text", EXAMPLES_DATA "/tinyshakespeare.txt.gz")))
        return 1;
    m.letters = a.n, m.text = a.text;
    if (tn_size(a.text) <= m.context)
        return fprintf(stderr, "the text has %lld letters; more than --context %d are needed\n",
                       (long long)tn_size(a.text), m.context),
               alphabet_close(&a), 1;
    tn_random_seed(1);
    int failed =
        init(&m) || train(&m, folder) || writes(&m, &a, (int)option_number(argv, "--letters", 500));
    if (failed && *tn_error()) fprintf(stderr, "%s\n", tn_error());
    tn_optim_free(m.o), tn_params_free(m.p), alphabet_close(&a);
    return failed;
}
