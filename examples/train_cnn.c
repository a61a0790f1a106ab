/* A convolutional network that tells ten kinds of clothes apart (Fashion-MNIST, from Debian's
 * package dataset-fashion-mnist): about 92.5 % of unseen pictures right after 4000 steps. train_cnn
 * [--steps 4000 --batch 128 --rate 2e-3 --test 10000 --data FOLDER --out FOLDER] */
#include "common/data.h"
#include "common/progress.h"
#include <math.h>
#include <stdio.h>
#include <tenon/nn.h>

typedef struct cnn {
    tn_params *p;
    tn_optim *o;
    tn_nn_conv conv1, conv2;
    tn_nn_linear hidden, out;
    double rate;
    int64_t steps;
} cnn;

/* Half the size: 3 x 3 convolution, the largest of each 2 x 2, relu. */
static tn_array *halved(const tn_nn_conv *conv, tn_array *x) {
    x = tn_nn_conv_call(conv, x);
    return tn_nn_relu(tn_max_pool(x, TN_SPATIAL(2, 2), TN_SPATIAL(2, 2), TN_SPATIAL(0, 0)));
}

/* Scores [n, 10] of pictures [n, 28, 28, 1]; while training, half of the last layer's inputs drop
 * out, which keeps it from learning pictures by heart. */
static tn_array *scores(const cnn *m, tn_array *pixels, bool training) {
    tn_array *x = tn_div(tn_astype(pixels, TN_F32), tn_f32(255));
    x = tn_flatten(halved(&m->conv2, halved(&m->conv1, x)), 1, -1);
    x = tn_nn_dropout(tn_nn_relu(tn_nn_linear_call(&m->hidden, x)), 0.5, training);
    return tn_nn_linear_call(&m->out, x);
}

static int loss(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    out[0] = tn_nn_cross_entropy(scores(ud, in.v[0], true), in.v[1], TN_NN_MEAN, NULL);
    return 0;
}

/* A step on the pictures in.v[0] with the labels in.v[1]; the loss before it. */
static int step(tn_list in, tn_array **out, int n_out, void *ud) {
    const cnn *m = ud;
    tn_array *grads[8];
    int failed = tn_nn_value_and_grad(m->p, loss, ud, in, n_out, out, grads);
    return failed ? failed : tn_optim_update(m->o, grads);
}

static int train(cnn *m, const pictures *data, int64_t batch, const char *folder) {
    tn_compiled *c =
        tn_compile(step, m, 1, TN_OPT(tn_compile_opt, .state = tn_optim_slots(m->o), .keep = true));
    int failed = !c;
    progress line;
    progress_begin(&line, 0, m->steps, batch, "pictures");
    for (int64_t i = 0; i < m->steps && !failed; i++)
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

/* A hundred pictures at a time. */
static int test(const cnn *m, const pictures *data, int64_t n) {
    double right = 0;
    if (n > tn_dim(data->labels, 0)) n = tn_dim(data->labels, 0);
    for (int64_t i = 0; i < n; i += 100)
        TN_SCOPE {
            int64_t to = i + 100 < n ? i + 100 : n;
            tn_array *x = tn_slice_axis(data->pixels, 0, i, to);
            tn_array *y = tn_slice_axis(data->labels, 0, i, to);
            tn_array *said = tn_argmax(scores(m, x, false), TN_AXES(-1), false);
            right += tn_item_f64(tn_sum(tn_equal(said, y), TN_ALL, false));
        }
    if (isnan(right) || n < 1) return isnan(right);
    printf("right on %.2f %% of %lld pictures it has not seen\n", 100 * right / (double)n,
           (long long)n);
    return 0;
}

static tn_array *rate(tn_array *n, void *ud) {
    const cnn *m = ud;
    return tn_optim_cosine_decay(n, m->rate, m->steps, 0);
}

static int init(cnn *m) {
    tn_spatial three = TN_SPATIAL(3, 3);
    const tn_conv_opt *same = TN_OPT(tn_conv_opt, .padding = TN_SPATIAL(1, 1));
    m->p = tn_params_new();
    if (!m->p || tn_nn_conv2d_init(&m->conv1, m->p, "conv1", 1, 32, three, true, same) ||
        tn_nn_conv2d_init(&m->conv2, m->p, "conv2", 32, 64, three, true, same) ||
        tn_nn_linear_init(&m->hidden, m->p, "hidden", 3136, 128, true) ||
        tn_nn_linear_init(&m->out, m->p, "out", 128, 10, true))
        return 1;
    m->o = tn_optim_adam(
        m->p, TN_OPT(tn_adam_opt, .schedule = rate, .schedule_ud = m, .bias_correction = true));
    return !m->o;
}

int main(int argc, char **argv) {
    const char *folder = option_text(argv, "--data", FASHION_MNIST);
    pictures seen = {NULL, NULL}, unseen = {NULL, NULL};
    cnn m = {.rate = option_number(argv, "--rate", 2e-3)};
    m.steps = (int64_t)option_number(argv, "--steps", 4000);
    (void)argc;
    if (pictures_open(&seen, folder, "train") || pictures_open(&unseen, folder, "t10k")) return 1;
    tn_random_seed(1);
    int failed = init(&m) ||
                 train(&m, &seen, (int64_t)option_number(argv, "--batch", 128),
                       option_text(argv, "--out", NULL)) ||
                 test(&m, &unseen, (int64_t)option_number(argv, "--test", 10000));
    if (failed && *tn_error()) fprintf(stderr, "%s\n", tn_error());
    tn_optim_free(m.o), tn_params_free(m.p);
    pictures_close(&seen), pictures_close(&unseen);
    return failed;
}
