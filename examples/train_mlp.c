/* A network of two layers that tells ten kinds of clothes apart (Fashion-MNIST, from Debian's
 * package dataset-fashion-mnist). train_mlp [--steps 2000 --batch 128 --hidden 256 --rate 1e-3
 * --data FOLDER --out FOLDER] */
#include "common/data.h"
#include "common/progress.h"
#include <stdio.h>
#include <tenon/nn.h>

typedef struct mlp {
    tn_params *p;
    tn_optim *o;
    tn_nn_linear hidden, out;
} mlp;

/* Scores [n, 10] of pictures [n, 28, 28, 1]. */
static tn_array *scores(const mlp *m, tn_array *pixels) {
    tn_array *x = tn_div(tn_astype(tn_reshape(pixels, TN_SHAPE(-1, 784)), TN_F32), tn_f32(255));
    return tn_nn_linear_call(&m->out, tn_nn_relu(tn_nn_linear_call(&m->hidden, x)));
}

static int loss(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tn_nn_cross_entropy(scores(ud, in.v[0]), in.v[1], TN_NN_MEAN, NULL);
    return 0;
}

/* A step on the pictures in.v[0] with the labels in.v[1]; the loss before it. */
static int step(tn_list in, tn_array **out, int n_out, void *ud) {
    const mlp *m = ud;
    tn_array *grads[4];
    int failed = tn_nn_value_and_grad(m->p, loss, ud, in, n_out, out, grads);
    return failed ? failed : tn_optim_update(m->o, grads);
}

static int train(mlp *m, const pictures *data, int64_t steps, int64_t batch, const char *folder) {
    tn_compiled *c =
        tn_compile(step, m, 1, TN_OPT(tn_compile_opt, .state = tn_optim_slots(m->o), .keep = true));
    int failed = !c;
    progress line;
    progress_begin(&line, 0, steps, batch, "pictures");
    for (int64_t i = 0; i < steps && !failed; i++)
        TN_SCOPE {
            tn_array *most = tn_i32(tn_dim(data->labels, 0)), *value;
            tn_array *pick = tn_random_randint(tn_i32(0), most, TN_SHAPE(batch), TN_I32, NULL);
            tn_array *x = tn_take(data->pixels, pick, 0), *y = tn_take(data->labels, pick, 0);
            failed = tn_compiled_call(c, TN_LIST(x, y), &value);
            if (!failed) failed = progress_step(&line, tn_item_f32(value));
        }
    tn_compiled_free(c);
    return progress_end(&line, folder) || failed;
}

static int test(const mlp *m, const pictures *data) {
    TN_SCOPE {
        tn_array *said = tn_argmax(scores(m, data->pixels), TN_AXES(-1), false);
        tn_array *right = tn_mean(tn_equal(said, data->labels), TN_ALL, false);
        if (tn_eval(TN_LIST(right))) return 1;
        printf("right on %.2f %% of %lld pictures it has not seen\n", 100 * tn_item_f64(right),
               (long long)tn_dim(data->labels, 0));
    }
    return 0;
}

static int init(mlp *m, int64_t hidden, double rate) {
    m->p = tn_params_new();
    if (!m->p || tn_nn_linear_init(&m->hidden, m->p, "hidden", 784, hidden, true) ||
        tn_nn_linear_init(&m->out, m->p, "out", hidden, 10, true))
        return 1;
    m->o = tn_optim_adam(m->p, TN_OPT(tn_adam_opt, .learning_rate = rate, .bias_correction = true));
    return !m->o;
}

int main(int argc, char **argv) {
    const char *folder = option_text(argv, "--data", FASHION_MNIST);
    pictures seen = {NULL, NULL}, unseen = {NULL, NULL};
    mlp m = {.p = NULL};
    (void)argc;
    if (pictures_open(&seen, folder, "train") || pictures_open(&unseen, folder, "t10k")) return 1;
    tn_random_seed(1);
    int failed =
        init(&m, (int64_t)option_number(argv, "--hidden", 256),
             option_number(argv, "--rate", 1e-3)) ||
        train(&m, &seen, (int64_t)option_number(argv, "--steps", 2000),
              (int64_t)option_number(argv, "--batch", 128), option_text(argv, "--out", NULL)) ||
        test(&m, &unseen);
    if (failed && *tn_error()) fprintf(stderr, "%s\n", tn_error());
    tn_optim_free(m.o), tn_params_free(m.p);
    pictures_close(&seen), pictures_close(&unseen);
    return failed;
}
