/* Quantised matmul at SmolLM2's shapes and 4096 x 4096: GB/s of weights for one row of x,
 * GOP/s for many, each beside a read test made in the same moment.
 *     bench_quant [threads [group [bits]]]        default 1 32 4
 * Weights of 16-bit scales; the matrices of a decode test are many, 256 MB in all unless
 * "cached" is printed, so that they come from memory and not from a cache. */
#include "base/alloc.h"
#include "base/thread.h"
#include "bench.h"
#include "core/backend.h"
#include "cpu/cpu_quant.h"
#include "cpu/quant.h"
#include "ops/prims.h"

typedef struct weights {
    uint8_t *w, *s, *b;
    size_t nw, ns;
    int64_t K, N;
    int bits, group;
} weights;

static weights weights_new(int64_t K, int64_t N, int bits, int group, int64_t copies) {
    weights m = {.K = K, .N = N, .bits = bits, .group = group};
    m.nw = (size_t)(K * N * bits / 8);
    m.ns = (size_t)(K * N / group * 2);
    m.w = tni_alloc_aligned(m.nw * (size_t)copies);
    m.s = tni_alloc_aligned(m.ns * (size_t)copies);
    m.b = tni_alloc_aligned(m.ns * (size_t)copies);
    if (!m.w || !m.s || !m.b) exit(1);
    for (size_t i = 0; i < m.nw * (size_t)copies; i++) m.w[i] = (uint8_t)(i * 2654435761u >> 24);
    for (size_t i = 0; i < m.ns * (size_t)copies; i++) m.s[i] = m.b[i] = i & 1 ? 0x20 : 0x11;
    return m;
}

static void weights_free(weights *m, int64_t copies) {
    tni_free_aligned(m->w, m->nw * (size_t)copies);
    tni_free_aligned(m->s, m->ns * (size_t)copies);
    tni_free_aligned(m->b, m->ns * (size_t)copies);
}

static int product(const weights *m, int64_t copy, float *x, float *y, int64_t M) {
    int64_t c[3] = {m->K * m->bits / 32, m->K / m->group, m->N};
    int64_t xs[2] = {M, m->K}, xt[2] = {m->K, 1}, ws[2] = {m->N, c[0]}, wt[2] = {c[0], 1};
    int64_t ss[2] = {m->N, c[1]}, st[2] = {c[1], 1}, ys[2] = {M, m->N}, yt[2] = {m->N, 1};
    tni_p_quant p = {.group = m->group, .bits = m->bits, .transpose = 1};
    tni_view in[4] = {{x, TN_F32, 2, xs, xt},
                      {m->w + m->nw * (size_t)copy, TN_U32, 2, ws, wt},
                      {m->s + m->ns * (size_t)copy, TN_F16, 2, ss, st},
                      {m->b + m->ns * (size_t)copy, TN_F16, 2, ss, st}};
    tni_view out = {y, TN_F32, 2, ys, yt};
    tni_call call = {.params = &p, .n_in = 4, .n_out = 1, .in = in, .out = &out};
    return tni_cpu_quantized_matmul(&call);
}

typedef struct read_job {
    const uint8_t *p;
    _Atomic uint64_t sum;
} read_job;

static void read_part(void *ctx, int64_t begin, int64_t end, int worker) {
    read_job *r = ctx;
    const uint64_t *p = (const uint64_t *)(const void *)(r->p + (begin << 16));
    uint64_t s[8] = {0};
    (void)worker;
    for (int64_t i = 0; i < (end - begin) << 13; i += 8)
        for (int j = 0; j < 8; j++) s[j] += p[i + j];
    r->sum += s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}

/* GB/s of reading n bytes. */
static double read_test(const uint8_t *p, size_t n) {
    read_job r = {.p = p};
    double t = now();
    tni_parallel((int64_t)(n >> 16), 4, read_part, &r);
    return (double)(n >> 16 << 16) / (now() - t) / 1e9;
}

static void decode(int64_t K, int64_t N, int bits, int group, bool cached, float *x, float *y) {
    int64_t one = K * N * bits / 8 + K * N / group * 4, copies = cached ? 1 : 1 + (256 << 20) / one;
    weights m = weights_new(K, N, bits, group, copies);
    double best = 1e9, read = 0;
    for (int rep = 0; rep < (cached ? 200 : 5); rep++) {
        if (!cached) {
            double r = read_test(m.w, m.nw * (size_t)copies);
            if (r > read) read = r;
        }
        double t = now();
        for (int64_t c = 0; c < copies; c++)
            if (product(&m, c, x, y, 1)) exit(1);
        t = (now() - t) / (double)copies;
        if (t < best) best = t;
    }
    double gb = (double)one / best / 1e9;
    if (cached)
        printf("decode  %5d -> %5d  cached  %9.1f us  %6.1f GB/s\n", (int)K, (int)N, best * 1e6,
               gb);
    else
        printf("decode  %5d -> %5d  memory  %9.1f us  %6.1f GB/s  read %5.1f  ratio %.2f\n", (int)K,
               (int)N, best * 1e6, gb, read, gb / read);
    weights_free(&m, copies);
}

static void prefill(int64_t K, int64_t N, int bits, int group, int64_t M, float *x, float *y) {
    weights m = weights_new(K, N, bits, group, 1);
    double best = 1e9, start = now();
    while (now() - start < 0.15) {
        double t = now();
        if (product(&m, 0, x, y, M)) exit(1);
        t = now() - t;
        if (t < best) best = t;
    }
    printf("M = %-4d %5d -> %5d  %9.1f us  %7.1f GOP/s\n", (int)M, (int)K, (int)N, best * 1e6,
           2e-9 * (double)(K * N * M) / best);
    weights_free(&m, 1);
}

int main(int argc, char **argv) {
    static const int64_t shapes[][2] = {{576, 576},  {576, 192},   {576, 1536},
                                        {1536, 576}, {576, 49152}, {4096, 4096}};
    int threads = argc > 1 ? atoi(argv[1]) : 1, group = argc > 2 ? atoi(argv[2]) : 32;
    int bits = argc > 3 ? atoi(argv[3]) : 4;
    float *x = tni_alloc_aligned(512 * 4096 * sizeof *x);
    float *y = tni_alloc_aligned((size_t)512 * 49152 * sizeof *y);
    if (!x || !y || tni_set_threads(threads)) return 1;
    for (int i = 0; i < 512 * 4096; i++)
        x[i] = (float)((unsigned)i * 2654435761u >> 16) / 32768 - 1;
    printf("%s, %d threads, %d bits, group %d\n", tni_cpu_quant_isa()->name, threads, bits, group);
    for (int i = 0; i < 6; i++) decode(shapes[i][0], shapes[i][1], bits, group, i < 4, x, y);
    for (int i = 0; i < 6; i++) decode(shapes[i][0], shapes[i][1], bits, group, false, x, y);
    static const int64_t Ms[] = {2, 4, 8, 16, 64, 512};
    for (int m = 0; m < 6; m++) prefill(576, 1536, bits, group, Ms[m], x, y);
    for (int i = 0; i < 6; i++)
        if (shapes[i][1] < 49152) prefill(shapes[i][0], shapes[i][1], bits, group, 512, x, y);
    prefill(576, 49152, bits, group, 64, x, y);
    return 0;
}
