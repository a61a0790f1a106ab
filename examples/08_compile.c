/* A compiled training step: the function is traced once, and from then on a plan is replayed, with
 * the parameters and Adam's moments as its state, updated in place. Here a network of two layers
 * learns whether a point lies inside a circle. */
#include <stdio.h>
#include <tenon/nn.h>

enum { POINTS = 256, HIDDEN = 32, STEPS = 300 };

typedef struct mlp {
    tn_params *p;
    tn_optim *o;
    tn_nn_linear in, out;
} mlp;

static int loss(tn_list in, tn_array **out, int n_out, void *ud) {
    const mlp *m = ud;
    (void)n_out;
    tn_array *h = tn_tanh(tn_nn_linear_call(&m->in, in.v[0]));
    tn_array *logits = tn_nn_linear_call(&m->out, h); /* of being inside */
    out[0] = tn_nn_binary_cross_entropy(logits, in.v[1], NULL, true, TN_NN_MEAN);
    return 0;
}

static int step(tn_list in, tn_array **out, int n_out, void *ud) {
    const mlp *m = ud;
    tn_array *grads[4];
    int failed = tn_nn_value_and_grad(m->p, loss, ud, in, n_out, out, grads);
    return failed ? failed : tn_optim_update(m->o, grads);
}

static int init(mlp *m) {
    m->p = tn_params_new();
    if (!m->p || tn_nn_linear_init(&m->in, m->p, "in", 2, HIDDEN, true) ||
        tn_nn_linear_init(&m->out, m->p, "out", HIDDEN, 1, true))
        return 1;
    m->o = tn_optim_adam(m->p, TN_OPT(tn_adam_opt, .learning_rate = 0.02, .bias_correction = true));
    return !m->o;
}

static int train(mlp *m) {
    tn_compiled *c = tn_compile(step, m, 1, TN_OPT(tn_compile_opt, .state = tn_optim_slots(m->o)));
    int failed = !c;
    for (int i = 0; i <= STEPS && !failed; i++)
        TN_SCOPE {
            tn_array *x =
                tn_random_uniform(tn_f32(-1), tn_f32(1), TN_SHAPE(POINTS, 2), TN_F32, NULL);
            tn_array *r = tn_sum(tn_square(x), TN_AXES(1), true), *value;
            tn_array *inside = tn_astype(tn_less(r, tn_f32(0.5)), TN_F32);
            failed = tn_compiled_call(c, TN_LIST(x, inside), &value);
            if (!failed && i % 100 == 0) printf("step %3d: loss %.3f\n", i, tn_item_f64(value));
        }
    tn_compile_stats s = tn_compiled_stats(c);
    printf("traced %lld time, replayed %lld times\n", (long long)s.misses, (long long)s.hits);
    tn_compiled_free(c);
    return failed;
}

int main(void) {
    mlp m = {.p = NULL};
    int failed = 1;
    tn_random_seed(7);
    TN_SCOPE {
        failed = init(&m);
    }
    failed = failed || train(&m);
    if (failed) fprintf(stderr, "%s\n", tn_error());
    tn_optim_free(m.o);
    tn_params_free(m.p);
    return failed;
}
