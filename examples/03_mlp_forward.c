/* A two-layer network: parameters live in slots, helpers extend the caller's graph and open no
 * scope, and the function that finishes a graph opens one. A mistake anywhere in the network
 * comes out at the one check, with a sentence that names the op and the shapes. */
#include <stdio.h>
#include <tenon/tenon.h>

enum { INPUT = 784, HIDDEN = 128, CLASSES = 10, BATCH = 4 };

typedef struct linear {
    tn_array *weight, *bias; /* [in, out], [out]; slots: NULL at first */
} linear;

typedef struct network {
    linear hidden, output;
} network;

static int linear_init(linear *l, int in, int out) {
    TN_SCOPE {
        double scale = 1.0 / in; /* of the variance: outputs keep the size of inputs */
        tn_array *w = tn_random_normal(TN_SHAPE(in, out), TN_F32, NULL);
        int failed = tn_assign(&l->weight, tn_mul(w, tn_sqrt(tn_f32(scale))));
        return failed ? failed : tn_assign(&l->bias, tn_zeros(TN_SHAPE(out), TN_F32));
    }
    return 0;
}

static void linear_free(linear *l) {
    tn_drop(l->weight);
    tn_drop(l->bias);
}

static int network_init(network *n) {
    *n = (network){{NULL, NULL}, {NULL, NULL}};
    int failed = linear_init(&n->hidden, INPUT, HIDDEN);
    if (!failed) failed = linear_init(&n->output, HIDDEN, CLASSES);
    linear *a = &n->hidden, *b = &n->output;
    return failed ? failed : tn_eval(TN_LIST(a->weight, a->bias, b->weight, b->bias));
}

static void network_free(network *n) {
    linear_free(&n->hidden);
    linear_free(&n->output);
}

static tn_array *linear_apply(const linear *l, tn_array *x) {
    return tn_addmm(l->bias, x, l->weight, 1, 1);
}

static tn_array *relu(tn_array *x) { return tn_maximum(x, tn_f32(0)); }

/* Probabilities [batch, CLASSES] of x [batch, INPUT]. */
static tn_array *network_apply(const network *n, tn_array *x) {
    return tn_softmax(linear_apply(&n->output, relu(linear_apply(&n->hidden, x))), TN_AXES(-1));
}

static int predict(const network *n, tn_ints shape) {
    TN_SCOPE {
        tn_array *x = tn_random_uniform(NULL, NULL, shape, TN_F32, tn_random_key(7));
        tn_array *p = network_apply(n, x);
        tn_array *best = tn_max(p, TN_AXES(-1), false);
        tn_array *label = tn_argmax(p, TN_AXES(-1), false);
        int failed = tn_eval(TN_LIST(best, label)); /* the one check */
        if (failed) return failed;
        const float *probability = tn_data_f32(best);
        const uint32_t *class = tn_data(label);
        for (int i = 0; i < (int)tn_size(best); i++)
            printf("row %d: class %u with probability %.4f\n", i, class[i], probability[i]);
    }
    return 0;
}

int main(void) {
    network n;
    tn_random_seed(1);
    int failed = network_init(&n);
    if (!failed) failed = predict(&n, TN_SHAPE(BATCH, INPUT));
    if (failed) fprintf(stderr, "%s\n", tn_error());
    /* Rows of the wrong length: nothing crashes, and nothing needs a check in between. */
    if (!failed && predict(&n, TN_SHAPE(BATCH, INPUT + 1))) printf("%s\n", tn_error());
    network_free(&n);
    return failed != 0;
}
