/* A training step of three networks, compiled, over random data: what bench/train_steps.py compares
 * with PyTorch and MLX.
 *     bench_train mlp|cnn|gpt [steps]                                        default 20
 * mlp: 784-256-10 units, batch 128. cnn: 28 x 28 pictures, 32 and 64 channels of 3 x 3, each halved
 * by max pooling, 128 units, batch 128. gpt: 6 layers, 384 wide, 6 heads, 65 letters, 12 x 256.
 * Adam (gpt: AdamW, gradients clipped to norm 1). Prints one JSON object: the median step in
 * seconds, the peak of resident memory and of arrays in bytes, the last loss. */
#include "bench.h"
#include <math.h>
#include <string.h>
#include <sys/resource.h>
#include <tenon/nn.h>

enum { BATCH = 128, LAYERS = 6, WIDTH = 384, HEADS = 6, LETTERS = 65, ROWS = 12, CONTEXT = 256 };
enum { MOST_GRADS = 8 * LAYERS + 3, MOST_STEPS = 10000 };

typedef struct block {
    tn_nn_layer_norm norm1, norm2;
    tn_nn_multi_head_attention attention;
    tn_nn_linear up, down;
} block;

typedef struct net {
    tn_params *p;
    tn_optim *o;
    tn_array *(*scores)(const struct net *, tn_array *);
    double clip;
    tn_nn_conv conv1, conv2;
    tn_nn_linear hidden, out;
    tn_nn_embedding token, position;
    tn_nn_layer_norm norm;
    block b[LAYERS];
} net;

static tn_array *mlp_scores(const net *m, tn_array *x) {
    x = tn_div(tn_astype(tn_reshape(x, TN_SHAPE(-1, 784)), TN_F32), tn_f32(255));
    return tn_nn_linear_call(&m->out, tn_nn_relu(tn_nn_linear_call(&m->hidden, x)));
}

static int mlp_init(net *m) {
    m->scores = mlp_scores;
    return tn_nn_linear_init(&m->hidden, m->p, "hidden", 784, 256, true) ||
           tn_nn_linear_init(&m->out, m->p, "out", 256, 10, true);
}

static tn_array *halved(const tn_nn_conv *conv, tn_array *x) {
    x = tn_nn_conv_call(conv, x);
    return tn_nn_relu(tn_max_pool(x, TN_SPATIAL(2, 2), TN_SPATIAL(2, 2), TN_SPATIAL(0, 0)));
}

static tn_array *cnn_scores(const net *m, tn_array *x) {
    x = tn_div(tn_astype(x, TN_F32), tn_f32(255));
    x = tn_flatten(halved(&m->conv2, halved(&m->conv1, x)), 1, -1);
    return tn_nn_linear_call(&m->out, tn_nn_relu(tn_nn_linear_call(&m->hidden, x)));
}

static int cnn_init(net *m) {
    tn_spatial three = TN_SPATIAL(3, 3);
    const tn_conv_opt *same = TN_OPT(tn_conv_opt, .padding = TN_SPATIAL(1, 1));
    m->scores = cnn_scores;
    return tn_nn_conv2d_init(&m->conv1, m->p, "conv1", 1, 32, three, true, same) ||
           tn_nn_conv2d_init(&m->conv2, m->p, "conv2", 32, 64, three, true, same) ||
           tn_nn_linear_init(&m->hidden, m->p, "hidden", 3136, 128, true) ||
           tn_nn_linear_init(&m->out, m->p, "out", 128, 10, true);
}

static tn_array *gpt_scores(const net *m, tn_array *letters) {
    tn_array *place = tn_arange(0, CONTEXT, 1, TN_I32);
    tn_array *h =
        tn_add(tn_nn_embedding_call(&m->token, letters), tn_nn_embedding_call(&m->position, place));
    for (const block *b = m->b; b < m->b + LAYERS; b++) {
        tn_array *x = tn_nn_layer_norm_call(&b->norm1, h);
        h = tn_add(h, tn_nn_multi_head_attention_call(&b->attention, x, x, x,
                                                      TN_OPT(tn_sdpa_opt, .causal = true)));
        tn_array *up = tn_nn_linear_call(&b->up, tn_nn_layer_norm_call(&b->norm2, h));
        h = tn_add(h, tn_nn_linear_call(&b->down, tn_nn_gelu(up)));
    }
    return tn_nn_embedding_as_linear(&m->token, tn_nn_layer_norm_call(&m->norm, h));
}

static int gpt_init(net *m) {
    const tn_nn_norm_opt *bare = TN_OPT(tn_nn_norm_opt, .no_bias = true);
    int failed = 0;
    m->scores = gpt_scores, m->clip = 1;
    for (int i = 0; i < LAYERS && !failed; i++) {
        block *b = &m->b[i];
        failed =
            tn_params_push(m->p, "layers.%d", i) ||
            tn_nn_layer_norm_init(&b->norm1, m->p, "norm1", WIDTH, bare) ||
            tn_nn_multi_head_attention_init(&b->attention, m->p, "attention", WIDTH, HEADS, NULL) ||
            tn_nn_layer_norm_init(&b->norm2, m->p, "norm2", WIDTH, bare) ||
            tn_nn_linear_init(&b->up, m->p, "up", WIDTH, 4 * WIDTH, false) ||
            tn_nn_linear_init(&b->down, m->p, "down", 4 * WIDTH, WIDTH, false);
        tn_params_pop(m->p);
    }
    return failed || tn_nn_embedding_init(&m->token, m->p, "token", LETTERS, WIDTH) ||
           tn_nn_embedding_init(&m->position, m->p, "position", CONTEXT, WIDTH) ||
           tn_nn_layer_norm_init(&m->norm, m->p, "norm", WIDTH, bare);
}

static int loss(tn_list in, tn_array **out, int n_out, void *ud) {
    const net *m = ud;
    (void)n_out;
    out[0] = tn_nn_cross_entropy(m->scores(m, in.v[0]), in.v[1], TN_NN_MEAN, NULL);
    return 0;
}

static int step(tn_list in, tn_array **out, int n_out, void *ud) {
    const net *m = ud;
    tn_array *grads[MOST_GRADS];
    int failed = tn_nn_value_and_grad(m->p, loss, ud, in, n_out, out, grads);
    if (m->clip != 0) (void)tn_nn_clip_grad_norm(grads, tn_params_trainable(m->p), m->clip);
    return failed ? failed : tn_optim_update(m->o, grads);
}

static void run(net *m, bool gpt, int steps) {
    static double times[MOST_STEPS];
    tn_array *x = NULL, *y = NULL;
    double value = NAN;
    TN_SCOPE {
        tn_ints in = gpt ? TN_SHAPE(ROWS, CONTEXT) : TN_SHAPE(BATCH, 28, 28, 1);
        tn_ints of = gpt ? TN_SHAPE(ROWS, CONTEXT) : TN_SHAPE(BATCH);
        tn_array *below = tn_i32(gpt ? LETTERS : 256), *classes = tn_i32(gpt ? LETTERS : 10);
        check(tn_assign(&x, tn_random_randint(tn_i32(0), below, in, TN_U8, NULL)) ||
              tn_assign(&y, tn_random_randint(tn_i32(0), classes, of, TN_I32, NULL)) ||
              tn_eval(TN_LIST(x, y)));
    }
    tn_compiled *c =
        tn_compile(step, m, 1, TN_OPT(tn_compile_opt, .state = tn_optim_slots(m->o), .keep = true));
    check(!c);
    for (int i = -1; i < steps; i++) { /* the first traces */
        double begin = now();
        TN_SCOPE {
            tn_array *l;
            check(tn_compiled_call(c, TN_LIST(x, y), &l));
            value = tn_item_f64(l);
        }
        if (i >= 0) times[i] = now() - begin;
    }
    qsort(times, (size_t)steps, sizeof *times, by_value);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"seconds\": %.6f, \"resident\": %ld, \"arrays\": %zu, \"loss\": %.4f}\n",
           times[steps / 2], used.ru_maxrss * 1024, tn_memory_stats().peak, value);
    tn_compiled_free(c), tn_drop(x), tn_drop(y);
}

int main(int argc, char **argv) {
    static net m;
    const char *which = argc > 1 ? argv[1] : "mlp";
    int steps = argc > 2 ? atoi(argv[2]) : 20;
    bool gpt = !strcmp(which, "gpt");
    if (steps < 1 || steps > MOST_STEPS) steps = 20;
    m.p = tn_params_new();
    check(!m.p || (gpt ? gpt_init(&m) : !strcmp(which, "cnn") ? cnn_init(&m) : mlp_init(&m)));
    m.o = gpt ? tn_optim_adamw(m.p, TN_OPT(tn_adamw_opt, .learning_rate = 1e-3, .beta2 = 0.99,
                                           .weight_decay = 0.1, .bias_correction = true))
              : tn_optim_adam(m.p,
                              TN_OPT(tn_adam_opt, .learning_rate = 1e-3, .bias_correction = true));
    check(!m.o);
    run(&m, gpt, steps);
    tn_optim_free(m.o), tn_params_free(m.p);
    return 0;
}
