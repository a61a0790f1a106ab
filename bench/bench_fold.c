/* What folding batch norm into the weights saves (tn_compile's `fold`): the same networks in
 * inference, compiled with and without, in turns. Medians of one call and their ratio; "off" is
 * how far either's results are from f64.
 *     bench_fold [rounds]                                                    default 21
 * "resnet": three stages of two blocks of two 3x3 convolutions, 64 to 256 channels, from 56 x 56.
 * "bottle": the same of blocks of 1x1, 3x3 and 1x1. "mobile": 3x3 of each channel by itself, then
 * 1x1. Every convolution has a batch norm, and a ReLU after that or after the block's sum. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <tenon/nn.h>
#include <time.h>

enum { ROUNDS_MAX = 1001, LAYERS_MAX = 64, STAGES = 3, BLOCKS = 2, WIDTH = 64, SIDE = 56 };

typedef struct net {
    const char *name;
    int (*block)(struct net *m, int64_t in, int64_t out, int stride);
    tn_dtype dtype;
    tn_params *p;
    tn_nn_conv conv[LAYERS_MAX];
    tn_nn_batch_norm norm[LAYERS_MAX];
    int n, ends[STAGES * BLOCKS]; /* layers; of each block the first after it */
    int side[STAGES * BLOCKS];    /* the layer that the sum's other part goes through; -1: none */
    int blocks;
    tn_array *x;
    tn_compiled *c[2]; /* plain, folded */
    double took[2][ROUNDS_MAX];
} net;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static void check(int failed) {
    if (failed) exit((fprintf(stderr, "%s\n", tn_error()), 1));
}

/* ---- networks ---- */

static void layer(net *m, int64_t in, int64_t out, int64_t k, int64_t stride, int groups) {
    char name[32];
    tn_conv_opt o = {.size = sizeof o,
                     .stride = TN_SPATIAL(stride),
                     .padding = TN_SPATIAL(k / 2),
                     .groups = groups};
    if (m->n == LAYERS_MAX) exit((fprintf(stderr, "too many layers\n"), 1));
    snprintf(name, sizeof name, "conv%d", m->n);
    check(tn_nn_conv2d_init(&m->conv[m->n], m->p, name, in, out, TN_SPATIAL(k), false, &o));
    snprintf(name, sizeof name, "norm%d", m->n);
    check(tn_nn_batch_norm_init(&m->norm[m->n], m->p, name, out, NULL));
    m->n++;
}

/* These give the layer of the sum's other part. */
static int side(net *m, int64_t in, int64_t out, int stride) {
    if (in == out && stride == 1) return -1;
    layer(m, in, out, 1, stride, 1);
    return m->n - 1;
}

static int block_resnet(net *m, int64_t in, int64_t out, int stride) {
    int at = side(m, in, out, stride);
    layer(m, in, out, 3, stride, 1);
    layer(m, out, out, 3, 1, 1);
    return at;
}

static int block_bottle(net *m, int64_t in, int64_t out, int stride) {
    int at = side(m, in, out, stride);
    layer(m, in, out / 4, 1, 1, 1);
    layer(m, out / 4, out / 4, 3, stride, 1);
    layer(m, out / 4, out, 1, 1, 1);
    return at;
}

static int block_mobile(net *m, int64_t in, int64_t out, int stride) {
    int at = side(m, in, out, stride);
    layer(m, in, in, 3, stride, (int)in);
    layer(m, in, out, 1, 1, 1);
    return at;
}

static tn_array *run_layer(net *m, int k, tn_array *x) {
    return tn_nn_batch_norm_call(&m->norm[k], tn_nn_conv_call(&m->conv[k], x), false);
}

static int forward(tn_list in, tn_array **out, int n_out, void *ud) {
    net *m = ud;
    tn_array *x = in.v[0];
    (void)n_out;
    for (int b = 0, k = 0; b < m->blocks; b++) {
        tn_array *rest = m->side[b] < 0 ? x : run_layer(m, k++, x);
        for (; k < m->ends[b]; k++) {
            x = run_layer(m, k, x);
            x = tn_nn_relu(k + 1 < m->ends[b] ? x : tn_add(x, rest));
        }
    }
    out[0] = x;
    return 0;
}

/* ---- measuring ---- */

static void values(net *m) {
    for (int i = 0; i < tn_params_count(m->p); i++) {
        tn_array **slot = tn_params_slot(m->p, i);
        tn_array *v = tn_random_normal(tn_shape(*slot), TN_F32, NULL);
        if (tn_ndim(v) == 1)
            v = tn_add(tn_mul(v, tn_f32(0.1)), tn_f32(1));
        else
            v = tn_mul(v, tn_f32(sqrt(2 * (double)tn_dim(v, 0) / (double)tn_size(v))));
        check(tn_assign(slot, tn_astype(v, m->dtype)) || tn_eval(TN_LIST(*slot)));
    }
}

static void init(net *m) {
    m->p = tn_params_new();
    check(!m->p);
    TN_SCOPE {
        int64_t in = WIDTH;
        for (int s = 0; s < STAGES; s++)
            for (int b = 0; b < BLOCKS; b++) {
                m->side[m->blocks] = m->block(m, in, WIDTH << s, s && !b ? 2 : 1);
                m->ends[m->blocks++] = m->n;
                in = WIDTH << s;
            }
        values(m);
        tn_array *x = tn_random_normal(TN_SHAPE(1, SIDE, SIDE, WIDTH), TN_F32, NULL);
        check(tn_assign(&m->x, tn_astype(x, m->dtype)) || tn_eval(TN_LIST(m->x)));
    }
    for (int k = 0; k < 2; k++)
        check(!(m->c[k] = tn_compile(forward, m, 1,
                                     TN_OPT(tn_compile_opt, .fold = k == 1, .keep = true))));
}

static double run(net *m, int k) {
    double begin = now();
    TN_SCOPE {
        tn_array *y;
        check(tn_compiled_call(m->c[k], TN_LIST(m->x), &y));
    }
    return now() - begin;
}

/* Of plain and folded: the root of the mean square of what differs from f64, over f64's. */
static void off(net *m, double *d) {
    TN_SCOPE {
        tn_array *y[3], *wide = tn_astype(m->x, TN_F64);
        for (int k = 0; k < 2; k++) check(tn_compiled_call(m->c[k], TN_LIST(m->x), &y[k]));
        check(forward(TN_LIST(wide), &y[2], 1, m));
        double all = tn_item_f64(tn_mean(tn_square(y[2]), TN_ALL, false));
        for (int k = 0; k < 2; k++) {
            tn_array *e = tn_square(tn_sub(tn_astype(y[k], TN_F64), y[2]));
            d[k] = sqrt(tn_item_f64(tn_mean(e, TN_ALL, false)) / all);
        }
    }
}

int main(int argc, char **argv) {
    static net nets[] = {{.name = "resnet", .block = block_resnet, .dtype = TN_F32},
                         {.name = "bottle", .block = block_bottle, .dtype = TN_F32},
                         {.name = "mobile", .block = block_mobile, .dtype = TN_F32},
                         {.name = "bottle", .block = block_bottle, .dtype = TN_F16},
                         {.name = "bottle", .block = block_bottle, .dtype = TN_BF16}};
    int rounds = argc > 1 ? atoi(argv[1]) : 21;
    if (rounds < 1 || rounds > ROUNDS_MAX) rounds = ROUNDS_MAX;
    printf("%-8s %-9s %10s %10s %12s %7s %9s %15s\n", "network", "dtype", "launches", "plain ms",
           "folded ms", "ratio", "plan ms", "off");
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) {
        net *m = &nets[i];
        double plan[2], ms[2], d[2];
        init(m);
        for (int k = 0; k < 2; k++) plan[k] = run(m, k);
        for (int r = 0; r < rounds; r++)
            for (int k = 0; k < 2; k++) m->took[(r + k) % 2][r] = run(m, (r + k) % 2);
        for (int k = 0; k < 2; k++) {
            qsort(m->took[k], (size_t)rounds, sizeof(double), by_value);
            ms[k] = 1e3 * m->took[k][rounds / 2];
        }
        off(m, d);
        printf("%-8s %-9s %5lld/%-4lld %10.2f %12.2f %7.3f %4.0f/%-4.0f %.1e/%.1e\n", m->name,
               tn_dtype_name(m->dtype), (long long)tn_compiled_stats(m->c[0]).launches,
               (long long)tn_compiled_stats(m->c[1]).launches, ms[0], ms[1], ms[0] / ms[1],
               1e3 * plan[0], 1e3 * plan[1], d[0], d[1]);
        for (int k = 0; k < 2; k++) tn_compiled_free(m->c[k]);
        tn_params_free(m->p), tn_drop(m->x);
    }
    return 0;
}
