/* Matrix products beside OpenBLAS and oneDNN in one run, taking turns, so that whatever else
 * the machine does hits all alike. Peers are loaded when present (libopenblas.so.0,
 * libdnnl.so.2); the best of the rounds counts.
 *     bench_gemm [threads [rounds [substring of a row's name]]]          default 1 12
 * GFLOP/s, ratio to the better peer, share of the FMA rate measured in the same process; for
 * few rows GB/s of weights and the share of a plain read of 256 MB. */
#define _GNU_SOURCE
#include "base/alloc.h"
#include "base/half.h"
#include "base/thread.h"
#include "bench.h"
#include "core/backend.h"
#include "cpu/cpu_matmul.h"
#include "cpu/gemm.h"
#include <dlfcn.h>
#include <string.h>

/* ---- limits ---- */

#define FMA_LOOP(T, set, fma)                                                                      \
    T a[12], x = set(0.999f), y = set(0.001f);                                                     \
    for (int i = 0; i < 12; i++) a[i] = set(1.0f);                                                 \
    for (int64_t q = 0; q < n; q++)                                                                \
        _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) a[i] = fma(a[i], x, y);              \
    for (int i = 1; i < 12; i++) a[0] += a[i];                                                     \
    float r[sizeof(T) / 4];                                                                        \
    memcpy(r, &a[0], sizeof(T));                                                                   \
    return r[0];

#if defined(__x86_64__)
#include <immintrin.h>
__attribute__((target("avx512f"))) static float fma512(int64_t n) {
    FMA_LOOP(__m512, _mm512_set1_ps, _mm512_fmadd_ps)
}
__attribute__((target("avx2,fma"))) static float fma256(int64_t n) {
    FMA_LOOP(__m256, _mm256_set1_ps, _mm256_fmadd_ps)
}
#elif defined(__aarch64__)
#include <arm_neon.h>
#define NEON_FMA(a, x, y) vfmaq_f32(y, a, x)
static float fma128(int64_t n) { FMA_LOOP(float32x4_t, vdupq_n_f32, NEON_FMA) }
#endif

static float (*fma_loop)(int64_t n);
static int fma_lanes;
static volatile float fma_sink;

static void fma_choose(void) {
#if defined(__x86_64__)
    bool wide = __builtin_cpu_supports("avx512f");
    fma_loop = wide ? fma512 : fma256;
    fma_lanes = wide ? 16 : 8;
#elif defined(__aarch64__)
    fma_loop = fma128;
    fma_lanes = 4;
#endif
}

enum { FMA_N = 200000 };
static void fma_part(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)ctx, (void)worker;
    for (int64_t i = begin; i < end; i++) fma_sink = fma_loop(FMA_N);
}
static double fma_rate(int threads) {
    if (!fma_loop) return 1;
    double t = now();
    tni_parallel(threads, 1, fma_part, NULL);
    return 2.0 * 12 * fma_lanes * FMA_N * threads / (now() - t) * 1e-9;
}

typedef uint64_t words __attribute__((vector_size(16)));
enum { READ_BYTES = 256 << 20, READ_CHUNK = 1 << 20 };
static char *read_buffer;
static volatile uint64_t read_sink;

static void read_part(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)ctx, (void)worker;
    words s[4] = {{0}};
    for (int64_t i = begin; i < end; i++) {
        const words *p = (const words *)(read_buffer + i * READ_CHUNK);
        for (int j = 0; j < READ_CHUNK / 16; j += 4)
            for (int l = 0; l < 4; l++) s[l] += p[j + l];
    }
    s[0] += s[1] + s[2] + s[3];
    read_sink = s[0][0] + s[0][1];
}
static double read_rate(void) {
    double t = now();
    tni_parallel(READ_BYTES / READ_CHUNK, 1, read_part, NULL);
    return READ_BYTES / (now() - t) * 1e-9;
}

/* ---- peers ---- */

static void (*blas_sgemm)(int, int, int, int, int, int, float, const float *, int, const float *,
                          int, float, float *, int);
static void (*blas_threads)(int);
static int (*dnnl_sgemm)(char, char, int64_t, int64_t, int64_t, float, const float *, int64_t,
                         const float *, int64_t, float, float *, int64_t);
static void (*omp_threads)(int);

static void *symbol(void *lib, const char *name) { return lib ? dlsym(lib, name) : NULL; }

static void peers_load(int threads) {
    void *blas = dlopen("libopenblas.so.0", RTLD_NOW), *dnnl = dlopen("libdnnl.so.2", RTLD_NOW);
    void *omp = dlopen("libgomp.so.1", RTLD_NOW);
    *(void **)&blas_sgemm = symbol(blas, "cblas_sgemm");
    *(void **)&blas_threads = symbol(blas, "openblas_set_num_threads");
    *(void **)&dnnl_sgemm = symbol(dnnl, "dnnl_sgemm");
    *(void **)&omp_threads = symbol(omp, "omp_set_num_threads");
    if (blas_threads) blas_threads(threads);
    if (omp_threads) omp_threads(threads);
}

/* ---- rows ---- */

typedef struct row {
    int64_t m, n, k;
    int turned; /* b is [N, K], as weights of a linear layer are */
    tn_dtype dtype;
    float *a, *c;
    char *b;
    int64_t copies, at; /* of b, taken in turn when it would stay in a cache */
    int first;          /* a is turned */
} row;

static size_t row_b(const row *r) { return (size_t)(r->n * r->k) * (r->dtype == TN_F32 ? 4 : 2); }

static void run_tenon(row *r) {
    int64_t sa[2] = {r->m, r->k}, sb[2] = {r->k, r->n}, sc[2] = {r->m, r->n};
    int64_t ta[2] = {r->first ? 1 : r->k, r->first ? r->m : 1},
            tb[2] = {r->turned ? 1 : r->n, r->turned ? r->k : 1};
    int64_t tc[2] = {r->n, 1};
    tni_view in[2] = {{r->a, r->dtype, 2, sa, ta},
                      {r->b + row_b(r) * (size_t)r->at, r->dtype, 2, sb, tb}};
    tni_view out = {r->c, r->dtype, 2, sc, tc};
    tni_call call = {.n_in = 2, .n_out = 1, .in = in, .out = &out};
    if (tni_cpu_matmul(&call)) exit(1);
}
static void run_blas(row *r) {
    int m = (int)r->m, n = (int)r->n, k = (int)r->k;
    blas_sgemm(101, r->first ? 112 : 111, r->turned ? 112 : 111, m, n, k, 1, r->a, r->first ? m : k,
               (float *)(r->b + row_b(r) * (size_t)r->at), r->turned ? k : n, 0, r->c, n);
}
static void run_dnnl(row *r) {
    dnnl_sgemm(r->first ? 'T' : 'N', r->turned ? 'T' : 'N', r->m, r->n, r->k, 1, r->a,
               r->first ? r->m : r->k, (float *)(r->b + row_b(r) * (size_t)r->at),
               r->turned ? r->k : r->n, 0, r->c, r->n);
}

static double once(void (*run)(row *), row *r, int64_t times) {
    double t = now();
    for (int64_t i = 0; i < times; i++) {
        r->at = (r->at + 1) % r->copies;
        run(r);
    }
    return (now() - t) / (double)times;
}

static void fill(void *p, size_t bytes, tn_dtype d) {
    for (size_t i = 0; i < bytes / 4; i++) {
        float f = (float)((i * 2654435761u >> 8) & 0xffff) * 0x1p-16f - 0.5f;
        uint16_t h = d == TN_F16 ? tni_f32_to_f16(f) : tni_f32_to_bf16(f);
        if (d == TN_F32)
            ((float *)p)[i] = f;
        else
            ((uint16_t *)p)[2 * i] = ((uint16_t *)p)[2 * i + 1] = h;
    }
}

static void measure(row r, const char *name, int threads, int rounds) {
    double best[3] = {1e9, 1e9, 1e9}, peak = 0, bandwidth = 0;
    double flops = 2.0 * (double)(r.m * r.n * r.k);
    int64_t times = flops > 1e7 ? 1 : (int64_t)(1e7 / flops) + 1;
    void (*const runs[3])(row *) = {run_tenon, r.dtype == TN_F32 && blas_sgemm ? run_blas : NULL,
                                    r.dtype == TN_F32 && dnnl_sgemm ? run_dnnl : NULL};
    r.copies = r.m <= 8 && r.n * r.k > 1 << 20 ? 1 + (int64_t)((128 << 20) / row_b(&r)) : 1;
    size_t na = (size_t)(r.m * r.k) * 4, nc = (size_t)(r.m * r.n) * 4,
           nb = row_b(&r) * (size_t)r.copies;
    r.a = tni_alloc_aligned(na);
    r.b = tni_alloc_aligned(nb);
    r.c = tni_alloc_aligned(nc);
    if (!r.a || !r.b || !r.c) exit(1);
    fill(r.a, na, r.dtype);
    fill(r.b, nb, r.dtype);
    for (int i = 0; i < rounds; i++) {
        double p = fma_rate(threads), w = r.copies > 1 ? read_rate() : 0;
        if (p > peak) peak = p;
        if (w > bandwidth) bandwidth = w;
        for (int j = 0; j < 3; j++) {
            if (!runs[j]) continue;
            once(runs[j], &r, 1);
            double t = once(runs[j], &r, times);
            if (t < best[j]) best[j] = t;
        }
    }
    double g[3], peer;
    for (int j = 0; j < 3; j++) g[j] = best[j] < 1e9 ? flops / best[j] * 1e-9 : 0;
    peer = g[1] > g[2] ? g[1] : g[2];
    printf("%-28s %9.2f us %7.1f %7.1f %7.1f %6.2f %6.2f", name, best[0] * 1e6, g[0], g[1], g[2],
           peer > 0 ? g[0] / peer : 0, g[0] / peak);
    if (bandwidth > 0)
        printf(" %6.1f GB/s %5.2f", (double)row_b(&r) / best[0] * 1e-9,
               (double)row_b(&r) / best[0] * 1e-9 / bandwidth);
    printf("\n");
    fflush(stdout);
    tni_free_aligned(r.a, na);
    tni_free_aligned(r.b, nb);
    tni_free_aligned(r.c, nc);
}

int main(int argc, char **argv) {
    static const int64_t shapes[][3] = {
        {4, 4, 4},        {16, 16, 16},    {32, 32, 32},       {64, 64, 64},       {128, 128, 128},
        {256, 256, 256},  {512, 512, 512}, {1024, 1024, 1024}, {2048, 2048, 2048}, {512, 768, 768},
        {64, 3072, 768},  {1, 4096, 4096}, {2, 4096, 4096},    {4, 4096, 4096},    {8, 4096, 4096},
        {12, 4096, 4096}, {16, 4096, 4096}};
    int threads = argc > 1 ? atoi(argv[1]) : 1, rounds = argc > 2 ? atoi(argv[2]) : 12;
    const char *only = argc > 3 ? argv[3] : "";
    if (tni_set_threads(threads)) return 1;
    peers_load(threads);
    fma_choose();
    read_buffer = tni_alloc_aligned(READ_BYTES);
    if (!read_buffer) return 1;
    memset(read_buffer, 1, READ_BYTES);
    printf("%d threads, FMA %.1f GFLOP/s, read %.1f GB/s\n%-28s %12s %7s %7s %7s %6s %6s\n",
           threads, fma_rate(threads), read_rate(), "", "time", "Tenon", "OpenBL", "oneDNN",
           "ratio", "/FMA");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int v = 0; v < 6; v++) {
            static const tn_dtype ds[3] = {TN_F32, TN_F16, TN_BF16};
            static const char *const dn[3] = {"f32", "f16", "bf16"};
            row r = {shapes[i][0],
                     shapes[i][1],
                     shapes[i][2],
                     v & 1,
                     ds[v / 2],
                     NULL,
                     NULL,
                     NULL,
                     0,
                     0,
                     0};
            char name[64];
            snprintf(name, sizeof name, "%lldx%lldx%lld %s %s", (long long)r.m, (long long)r.n,
                     (long long)r.k, r.turned ? "nt" : "nn", dn[v / 2]);
            if (strstr(name, only)) measure(r, name, threads, rounds);
        }
    /* A layer of 384 numbers over 3072 tokens: forward, back to its input, to its weight. */
    static const int64_t layer[][5] = {{3072, 384, 384, 0, 1},
                                       {3072, 1536, 384, 0, 1},
                                       {3072, 384, 1536, 0, 0},
                                       {384, 1536, 3072, 1, 0},
                                       {384, 384, 3072, 1, 0}};
    for (size_t i = 0; i < sizeof layer / sizeof *layer; i++) {
        const int64_t *n = layer[i];
        row r = {.m = n[0], .n = n[1], .k = n[2], .first = (int)n[3], .turned = (int)n[4]};
        r.dtype = TN_F32;
        char name[64];
        snprintf(name, sizeof name, "%lldx%lldx%lld %s train", (long long)r.m, (long long)r.n,
                 (long long)r.k,
                 r.first    ? "tn"
                 : r.turned ? "nt"
                            : "nn");
        if (strstr(name, only)) measure(r, name, threads, rounds);
    }
    tni_free_aligned(read_buffer, READ_BYTES);
    tni_pool_shutdown();
    return 0;
}
