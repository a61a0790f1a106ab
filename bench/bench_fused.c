/* Fused element-wise chains (the machine of src/cpu/vm_isa.c) beside loops that the compiler
 * made for exactly that chain: -O3 -march=native, cheap ops as plain C that it vectorises,
 * transcendental ones on the same vector functions, with plain and with streaming stores. The
 * best of them counts; streaming ones only from the size on at which they spare the caches
 * (16 MiB of output), since below it who reads the output next would pay. One thread, turns taken:
 * the least time of each, and the median of the rounds' ratios (what else the machine does hits
 * both sides of a round).
 *     bench_fused [rounds [elements ...]]           default 31; 16384 1048576 16777216
 * "program": the executor alone. "graph": building the arrays, evaluating and freeing them too.
 * Then what a new graph costs before its first element: the same chains on 16 elements. */
#include "base/alloc.h"
#include "base/thread.h"
#include "bench.h"
#include "core/array.h"
#include "cpu/cpu_program.h"
#include "eval/build.h"
#include "ops/op.h"
#include "tenon/ops.h"

#if defined(__AVX512F__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define TNI_ISA avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define TNI_ISA avx2
#elif defined(__aarch64__)
#define TNI_ISA neon
#else
#define TNI_ISA ref
#endif
#include "cpu/vmath.h"

/* ---- Chains, in words that mean graph nodes, vectors or floats --------------------------------
 */

#define CHAIN_fma(a, b, c)  ADD(MUL(a, b), c)
#define CHAIN_bias(a, b, c) MAX(ADD(MUL(a, NUM(0.125f)), b), NUM(0))
#define CHAIN_ten(a, b, c)                                                                         \
    MIN(SUB(MUL(ABS(ADD(MUL(MAX(SUB(ADD(MUL(a, b), c), a), b), NUM(0.5f)), NUM(1.25f))), c), b), a)
#define CHAIN_swiglu(a, b, c) MUL(MUL(a, SIGMOID(a)), b)
#define CHAIN_gelu(a, b, c)                                                                        \
    MUL(MUL(a, NUM(0.5f)),                                                                         \
        ADD(TANH(MUL(ADD(a, MUL(MUL(MUL(a, a), a), NUM(0.044715f))), NUM(0.79788456f))), NUM(1)))
#define CHAIN_exp(a, b, c) EXP(a)
#define CHAINS(X)          X(fma, 3, 1) X(bias, 2, 1) X(ten, 3, 1) X(exp, 1, 0) X(swiglu, 2, 0) X(gelu, 1, 0)

#define ADD     tn_add
#define SUB     tn_sub
#define MUL     tn_mul
#define MAX     tn_maximum
#define MIN     tn_minimum
#define ABS     tn_abs
#define EXP     tn_exp
#define TANH    tn_tanh
#define SIGMOID tn_sigmoid
#define NUM     tn_f32
#define GRAPH(name, n_in, cheap)                                                                   \
    static tn_array *graph_##name(tn_array *a, tn_array *b, tn_array *c) {                         \
        (void)b, (void)c;                                                                          \
        return CHAIN_##name(a, b, c);                                                              \
    }
CHAINS(GRAPH)
#undef ADD
#undef SUB
#undef MUL
#undef MAX
#undef MIN
#undef ABS
#undef EXP
#undef TANH
#undef SIGMOID
#undef NUM

/* Vectors: one loop with plain stores, one with streaming stores. */
#define ADD(a, b) ((a) + (b))
#define SUB(a, b) ((a) - (b))
#define MUL(a, b) ((a) * (b))
#define MAX       vf_max
#define MIN       vf_min
#define ABS       vf_abs
#define EXP       vf_exp
#define TANH      vf_tanh
#define SIGMOID   vf_sigmoid
#define NUM       vf_set
#define LOOPS(name, n_in, cheap)                                                                   \
    static void plain_##name(float *y, const float *pa, const float *pb, const float *pc,          \
                             int64_t n) {                                                          \
        for (int64_t i = 0; i < n; i += VN) {                                                      \
            const vf a = vf_load(pa + i), b = vf_load(pb + i), c = vf_load(pc + i);                \
            (void)b, (void)c;                                                                      \
            vf_store(y + i, CHAIN_##name(a, b, c));                                                \
        }                                                                                          \
    }                                                                                              \
    static void stream_##name(float *y, const float *pa, const float *pb, const float *pc,         \
                              int64_t n) {                                                         \
        for (int64_t i = 0; i < n; i += VN) {                                                      \
            const vf a = vf_load(pa + i), b = vf_load(pb + i), c = vf_load(pc + i);                \
            (void)b, (void)c;                                                                      \
            vf_stream(y + i, CHAIN_##name(a, b, c));                                               \
        }                                                                                          \
        v_fence();                                                                                 \
    }
CHAINS(LOOPS)
#undef MAX
#undef MIN
#undef ABS
#undef EXP
#undef TANH
#undef SIGMOID
#undef NUM

/* Floats, for the compiler to vectorise; what calls libm is left to the vectors above. */
#define MAX(a, b)  ((a) > (b) ? (a) : (b))
#define MIN(a, b)  ((a) < (b) ? (a) : (b))
#define ABS        __builtin_fabsf
#define EXP(a)     (a)
#define TANH(a)    (a)
#define SIGMOID(a) (a)
#define NUM(x)     ((float)(x))
#define SCALAR(name, n_in, cheap)                                                                  \
    static void c_##name(float *restrict y, const float *pa, const float *pb, const float *pc,     \
                         int64_t n) {                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            const float a = pa[i], b = pb[i], c = pc[i];                                           \
            (void)b, (void)c;                                                                      \
            y[i] = CHAIN_##name(a, b, c);                                                          \
        }                                                                                          \
    }
CHAINS(SCALAR)

typedef void (*loop_fn)(float *, const float *, const float *, const float *, int64_t);
static const struct chain {
    const char *name;
    int n_in;
    tn_array *(*graph)(tn_array *, tn_array *, tn_array *);
    loop_fn loop[3]; /* the third only where it computes the same */
} chains[] = {
#define ROW(name, n_in, cheap)                                                                     \
    {#name, n_in, graph_##name, {plain_##name, stream_##name, cheap ? c_##name : plain_##name}},
    CHAINS(ROW)};
enum { N_CHAINS = sizeof chains / sizeof *chains };

/* ---- Measuring
 * ------------------------------------------------------------------------------------ */

static float *mem[4]; /* a, b, c, y */

static double median(double *t, int n) {
    qsort(t, (size_t)n, sizeof *t, by_value);
    return t[n / 2];
}

/* The fused program of the chain, as evaluation would make it. */
static void program_of(const struct chain *c, int64_t n, tni_program *prog, const void **in) {
    TN_SCOPE {
        tn_array *v[3];
        for (int i = 0; i < 3; i++) v[i] = tn_array_wrap(mem[i], TN_F32, TN_SHAPE(n), NULL, NULL);
        tn_array *y = c->graph(v[0], v[1], v[2]);
        tni_plan p;
        static tni_build b;
        tni_plan_init(&p);
        if (tni_plan_make(&p, TN_LIST(y), false) || tni_build_group(&b, &p, 0)) exit(1);
        tni_build_loop(&b);
        *prog = b.prog;
        for (int i = 0; i < b.prog.n_in; i++) in[i] = tni_array_data(b.in[i]);
        tni_plan_free(&p);
    }
}

static void graph_once(const struct chain *c, tn_array *const *v) {
    tn_scope *s = tn_scope_begin();
    tn_array *y = c->graph(v[0], v[1], v[2]);
    if (tn_eval(TN_LIST(y))) exit((puts(tn_error()), 1));
    tn_scope_end(s);
}

enum { WAYS = 5, ROUNDS_MAX = 1001 };
/* One turn of each way, `reps` times; nanoseconds for 1000 elements. */
static void turn(const struct chain *c, const tni_program *prog, const void **in,
                 tn_array *const *v, int64_t n, int reps, double t[WAYS]) {
    void *out[1] = {mem[3]};
    for (int w = 0; w < WAYS; w++) {
        double start = now();
        for (int r = 0; r < reps; r++) {
            if (w < 3)
                c->loop[w](mem[3], mem[0], mem[1], mem[2], n);
            else if (w == 3)
                (void)tni_cpu_run(prog, in, out);
            else
                graph_once(c, v);
        }
        t[w] = (now() - start) * 1e12 / (double)(n * reps);
    }
}

static void bench_chain(const struct chain *c, int64_t n, int rounds) {
    static double t[WAYS][ROUNDS_MAX];
    static tni_program prog;
    const void *in[TNI_PROG_MAX_IN];
    program_of(c, n, &prog, in);
    TN_SCOPE {
        tn_array *v[3];
        for (int i = 0; i < 3; i++) v[i] = tn_array_wrap(mem[i], TN_F32, TN_SHAPE(n), NULL, NULL);
        int reps = (int)(4000000 / n) + 1;
        double one[WAYS];
        turn(c, &prog, in, v, n, reps, one);
        for (int r = 0; r < rounds; r++) {
            turn(c, &prog, in, v, n, reps, one);
            for (int w = 0; w < WAYS; w++) t[w][r] = one[w];
        }
    }
    double least[WAYS];
    int peer = 0;
    for (int w = 0; w < WAYS; w++) {
        least[w] = t[w][0];
        for (int r = 1; r < rounds; r++) least[w] = t[w][r] < least[w] ? t[w][r] : least[w];
        bool fair = w != 1 || n * 4 >= 16 << 20;
        if (w < 3 && fair && least[w] < least[peer]) peer = w;
    }
    for (int r = 0; r < rounds; r++)
        for (int w = 3; w < WAYS; w++) t[w][r] = t[peer][r] / t[w][r];
    printf("| %-6s | %8lld | %7.1f | %7.1f | %7.1f | %7.1f | %5.2f | %5.2f |\n", c->name,
           (long long)n, least[2] < least[0] ? least[2] : least[0], least[1], least[3], least[4],
           median(t[3], rounds), median(t[4], rounds));
    fflush(stdout);
}

/* Build, plan and evaluate on 16 elements: the very first time in the process, and the median. */
static void bench_first(const struct chain *c, int rounds) {
    static double t[ROUNDS_MAX];
    double first = 0;
    for (int r = -1; r < rounds; r++)
        TN_SCOPE {
            tn_array *v[3];
            for (int i = 0; i < 3; i++) v[i] = tn_array_new(mem[i], TN_F32, TN_SHAPE(16));
            double start = now();
            graph_once(c, v);
            double us = (now() - start) * 1e6;
            if (r < 0)
                first = us;
            else
                t[r] = us;
        }
    printf("| %-6s | %8.2f | %8.2f |\n", c->name, first, median(t, rounds));
}

int main(int argc, char **argv) {
    static const int64_t sizes[] = {16384, 1048576, 16777216};
    int rounds = argc > 1 ? atoi(argv[1]) : 31, n_sizes = argc > 2 ? argc - 2 : 3;
    int64_t most = 0;
    if (rounds < 1 || rounds > ROUNDS_MAX || tn_set_threads(1)) return 2;
    for (int s = 0; s < n_sizes; s++) {
        int64_t n = argc > 2 ? atoll(argv[2 + s]) : sizes[s];
        most = n > most ? n : most;
    }
    for (int i = 0; i < 4; i++) {
        mem[i] = tni_alloc_aligned((size_t)(most + 16) * sizeof(float)); /* as arrays lie */
        if (!mem[i]) return 1;
        for (int64_t k = 0; k < most + 16; k++)
            mem[i][k] = (float)(k * (i + 3) % 1009) / 200 - 2.5f;
    }
    printf("%s, kernels %s, loops %s, 1 thread, %d rounds\n\n", tn_cpu_name(), tn_isa(),
           TNI_ISA_NAME, rounds);
    printf("| chain  | first us | median us |\n|---|---|---|\n");
    for (int c = 0; c < N_CHAINS; c++) bench_first(&chains[c], rounds);
    printf("\nns per 1000 elements; ratios are the best loop's time / ours, 1 or more is good\n\n");
    printf("| chain  | elements | loop    | streams | program | graph   | program/loop | "
           "graph/loop |\n"
           "|---|---|---|---|---|---|---|---|\n");
    for (int s = 0; s < n_sizes; s++)
        for (int c = 0; c < N_CHAINS; c++)
            bench_chain(&chains[c], argc > 2 ? atoll(argv[2 + s]) / 16 * 16 : sizes[s], rounds);
    for (int i = 0; i < 4; i++) tni_free_aligned(mem[i], (size_t)(most + 16) * sizeof(float));
    tni_pool_shutdown();
    return 0;
}
