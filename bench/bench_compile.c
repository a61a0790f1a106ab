/* What replaying a compiled function saves: the same steps, built and evaluated each time, and
 * compiled, in turns. Medians of one step and their ratio.
 *     bench_compile [rounds]                                                 default 51
 * "chain": ten element-wise ops of 16 floats, every second a row sum (so that nothing fuses whole).
 * "mlp": a training step with Adam of an MLP of `in`, `hidden` and 10 units.
 * Then what a new size costs: a transformer of 6 layers, 64 wide, over texts of 32 to 231 places.
 */
#include "bench.h"
#include <tenon/nn.h>

enum { ROUNDS_MAX = 1001, CLASSES = 10 };

typedef struct model {
    const char *name;
    int64_t batch, in, hidden; /* hidden 0: the chain */
    int steps;                 /* a round */
    tn_params *p;
    tn_optim *o;
    tn_array *w1, *b1, *w2, *b2, *x, *y;
    tn_compiled *c;
    double plain[ROUNDS_MAX], compiled[ROUNDS_MAX];
} model;

static int chain(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *x = in.v[0];
    (void)ud, (void)n_out;
    for (int i = 0; i < 5; i++)
        x = tn_sub(x, tn_mul(tn_sum(tn_tanh(x), TN_AXES(-1), true), tn_f32(0.01)));
    out[0] = x;
    return 0;
}

static int loss(tn_list in, tn_array **out, int n_out, void *ud) {
    const model *m = ud;
    (void)n_out;
    tn_array *h = tn_maximum(tn_addmm(m->b1, in.v[0], m->w1, 1, 1), tn_f32(0));
    tn_array *s = tn_addmm(m->b2, h, m->w2, 1, 1);
    tn_array *right = tn_take_along_axis(s, tn_expand_dims(in.v[1], TN_AXES(-1)), -1);
    out[0] = tn_mean(tn_sub(tn_logsumexp(s, TN_AXES(-1), true), right), TN_ALL, false);
    return 0;
}

static int step(tn_list in, tn_array **out, int n_out, void *ud) {
    model *m = ud;
    tn_array *grads[4];
    int failed = tn_nn_value_and_grad(m->p, loss, m, in, n_out, out, grads);
    return failed ? failed : tn_optim_update(m->o, grads);
}

static tn_array *noise(tn_ints shape) {
    return tn_mul(tn_random_normal(shape, TN_F32, NULL), tn_f32(0.05));
}

static void init(model *m) {
    tn_compile_opt opt = {.size = sizeof opt};
    TN_SCOPE {
        if (m->hidden) {
            m->p = tn_params_new();
            check(!m->p);
            check(tn_params_add(m->p, "w1", &m->w1, noise(TN_SHAPE(m->in, m->hidden))));
            check(tn_params_add(m->p, "b1", &m->b1, noise(TN_SHAPE(m->hidden))));
            check(tn_params_add(m->p, "w2", &m->w2, noise(TN_SHAPE(m->hidden, CLASSES))));
            check(tn_params_add(m->p, "b2", &m->b2, noise(TN_SHAPE(CLASSES))));
            m->o = tn_optim_adam(
                m->p, TN_OPT(tn_adam_opt, .learning_rate = 1e-3, .bias_correction = true));
            check(!m->o);
            opt.state = tn_optim_slots(m->o);
        }
        tn_array *y =
            tn_random_randint(tn_i32(0), tn_i32(CLASSES), TN_SHAPE(m->batch), TN_I32, NULL);
        check(tn_assign(&m->x, noise(TN_SHAPE(m->batch, m->in))) || tn_assign(&m->y, y) ||
              tn_eval(TN_LIST(m->x, m->y)));
    }
    m->c = tn_compile(m->hidden ? step : chain, m, 1, &opt);
    check(!m->c);
}

static double run(model *m, bool compiled) {
    double begin = now();
    for (int i = 0; i < m->steps; i++)
        TN_SCOPE {
            tn_array *y;
            tn_list in = TN_LIST(m->x, m->y);
            if (compiled)
                check(tn_compiled_call(m->c, in, &y));
            else if (m->hidden)
                check(step(in, &y, 1, m) || tn_optim_eval(m->o, TN_LIST(y)));
            else
                check(chain(in, &y, 1, m) || tn_eval(TN_LIST(y)));
        }
    return (now() - begin) / m->steps;
}

/* ---- new sizes ---- */

enum { LAYERS = 6, WIDTH = 64, SHORTEST = 32, SIZES = 200 };

static int encode(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out;
    const tn_sdpa_opt *causal = TN_OPT(tn_sdpa_opt, .causal = true);
    out[0] = tn_nn_transformer_encoder_call(ud, in.v[0], causal, false);
    return 0;
}

/* Seconds for all sizes, each new to it. */
static double sizes(tn_nn_transformer_encoder *s, bool compiled, bool shapeless) {
    tn_compile_opt opt = {.size = sizeof opt, .shapeless = shapeless, .capacity = SIZES + 1};
    tn_compiled *c = compiled ? tn_compile(encode, s, 1, &opt) : NULL;
    double begin = 0;
    check(compiled && !c);
    for (int i = -2; i < SIZES; i++) /* the first two show what is free */
        TN_SCOPE {
            tn_array *y, *x = tn_zeros(TN_SHAPE(1, SHORTEST + i, WIDTH), TN_F32);
            if (!i) begin = now();
            check(c ? tn_compiled_call(c, TN_LIST(x), &y)
                    : encode(TN_LIST(x), &y, 1, s) || tn_eval(TN_LIST(y)));
        }
    double seconds = now() - begin;
    tn_compiled_free(c);
    return seconds;
}

static void compare_sizes(int rounds) {
    static double plain[ROUNDS_MAX], traced[ROUNDS_MAX], open[ROUNDS_MAX];
    tn_nn_transformer_encoder s;
    tn_params *p = tn_params_new();
    check(!p || tn_nn_transformer_encoder_init(&s, p, "encoder", LAYERS, WIDTH, 4, NULL));
    for (int r = 0; r < rounds; r++)
        plain[r] = sizes(&s, false, false), traced[r] = sizes(&s, true, false),
        open[r] = sizes(&s, true, true);
    qsort(plain, (size_t)rounds, sizeof(double), by_value);
    qsort(traced, (size_t)rounds, sizeof(double), by_value);
    qsort(open, (size_t)rounds, sizeof(double), by_value);
    printf("\n%d new sizes, us each: plain %.0f, compiled %.0f, shapeless %.0f\n", SIZES,
           1e6 * plain[rounds / 2] / SIZES, 1e6 * traced[rounds / 2] / SIZES,
           1e6 * open[rounds / 2] / SIZES);
    tn_params_free(p);
}

int main(int argc, char **argv) {
    static model models[] = {{.name = "chain", .batch = 1, .in = 16, .steps = 2000},
                             {.name = "mlp", .batch = 1, .in = 16, .hidden = 16, .steps = 500},
                             {.name = "mlp", .batch = 32, .in = 64, .hidden = 64, .steps = 200},
                             {.name = "mlp", .batch = 128, .in = 784, .hidden = 256, .steps = 20}};
    int rounds = argc > 1 ? atoi(argv[1]) : 51;
    if (rounds < 1 || rounds > ROUNDS_MAX) rounds = ROUNDS_MAX;
    printf("%-8s %6s %5s %7s %9s %10s %12s %7s\n", "function", "batch", "in", "hidden", "launches",
           "plain us", "compiled us", "ratio");
    for (size_t k = 0; k < sizeof models / sizeof *models; k++) {
        model *m = &models[k];
        init(m);
        run(m, true), run(m, false);
        for (int r = 0; r < rounds; r++) m->plain[r] = run(m, false), m->compiled[r] = run(m, true);
        qsort(m->plain, (size_t)rounds, sizeof(double), by_value);
        qsort(m->compiled, (size_t)rounds, sizeof(double), by_value);
        double a = m->plain[rounds / 2], b = m->compiled[rounds / 2];
        printf("%-8s %6lld %5lld %7lld %9lld %10.2f %12.2f %7.2f\n", m->name, (long long)m->batch,
               (long long)m->in, (long long)m->hidden, (long long)tn_compiled_stats(m->c).launches,
               1e6 * a, 1e6 * b, a / b);
        tn_compiled_free(m->c), tn_optim_free(m->o), tn_params_free(m->p);
        tn_drop(m->x), tn_drop(m->y);
    }
    compare_sizes(rounds < 5 ? rounds : 5);
    return 0;
}
