/* A compiled training step: the function is traced once, and from then on a plan is replayed, with
 * the parameters and Adam's moments as its state, updated in place. Here a network of two layers
 * learns whether a point lies inside a circle. */
#include <stdio.h>
#include <tenon/nn.h>

enum { POINTS = 256, HIDDEN = 32, STEPS = 300 };

typedef struct mlp {
    tn_params *p;
    tn_optim *o;
    tn_array *w1, *b1, *w2, *b2;
} mlp;

static int init(mlp *m) {
    tn_array *key = tn_random_key(3), *zeros = tn_zeros(TN_SHAPE(HIDDEN), TN_F32);
    m->p = tn_params_new();
    int failed =
        tn_params_add(m->p, "w1", &m->w1, tn_random_normal(TN_SHAPE(2, HIDDEN), TN_F32, key)) ||
        tn_params_add(m->p, "b1", &m->b1, zeros) ||
        tn_params_add(m->p, "w2", &m->w2,
                      tn_mul(tn_random_normal(TN_SHAPE(HIDDEN, 1), TN_F32, key), tn_f32(0.2))) ||
        tn_params_add(m->p, "b2", &m->b2, tn_zeros(TN_SHAPE(1), TN_F32));
    if (failed) return failed;
    m->o = tn_optim_adam(m->p, TN_OPT(tn_adam_opt, .learning_rate = 0.02, .bias_correction = true));
    return !m->o;
}

static int loss(tn_list in, tn_array **out, int n_out, void *ud) {
    const mlp *m = ud;
    (void)n_out;
    tn_array *h = tn_tanh(tn_addmm(m->b1, in.v[0], m->w1, 1, 1));
    tn_array *s = tn_addmm(m->b2, h, m->w2, 1, 1); /* log odds of being inside */
    tn_array *gap = tn_sub(tn_logaddexp(s, tn_f32(0)), tn_mul(s, in.v[1]));
    out[0] = tn_mean(gap, TN_ALL, false);
    return 0;
}

static int step(tn_list in, tn_array **out, int n_out, void *ud) {
    mlp *m = ud;
    tn_array *grads[4];
    int failed = tn_nn_value_and_grad(m->p, loss, m, in, n_out, out, grads);
    return failed ? failed : tn_optim_update(m->o, grads);
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
