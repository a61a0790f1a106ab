/* What an op costs besides its work: building nodes, evaluating tiny ones, freeing; one thread.
 *     bench_node [rounds]                                                    default 31
 * "build": a node of a chain of adds, scope handle included. "free": the chain again, unevaluated.
 * "chain": evaluating 64 chained adds of 16 floats in one group, a node. "unfused": the same, each
 * add evaluated by itself. "add + eval": one add of two arrays of 16, evaluated, freed. "program":
 * the executor alone on 16 elements of one add. */
#include "base/thread.h"
#include "bench.h"
#include "core/array.h"
#include "cpu/cpu_program.h"
#include "ops/ew.h"
#include "tenon/ops.h"
#include <string.h>

enum { CHAIN = 64, REPS = 400, ROUNDS_MAX = 1001 };
enum { BUILD, FREE, FUSED, UNFUSED, ONE, ONE_ONLY, PROGRAM, KINDS };
static const struct {
    const char *name, *what;
    double goal;
} kinds[KINDS] = {
    {"build", "one node in a chain", 20},
    {"free", "one node, never evaluated", 0},
    {"chain", "one node of a fused chain of 64, evaluated", 60},
    {"unfused", "one node, built and evaluated alone", 150},
    {"add + eval", "built, evaluated, freed", 150},
    {"eval", "the evaluation of it", 60},
    {"program", "the executor on 16 elements", 0},
};
static double times[KINDS][ROUNDS_MAX];
static tn_array *a16, *b16;

static tn_array *chain(tn_array *x) {
    for (int i = 0; i < CHAIN; i++) x = tn_add(x, b16);
    return x;
}
static void round_chain(double *build, double *eval, double *freed) {
    *build = *eval = *freed = 0;
    for (int r = 0; r < REPS / 8; r++) {
        tn_scope *s = tn_scope_begin();
        double t0 = now();
        tn_array *y = chain(a16);
        double t1 = now();
        tn_scope_end(s);
        double t2 = now();
        s = tn_scope_begin();
        y = chain(a16);
        double t3 = now();
        check(tn_scope_eval(s, TN_LIST(y)));
        double t4 = now();
        *build += t1 - t0;
        *freed += t2 - t1;
        *eval += t4 - t3;
    }
    *build /= CHAIN * (REPS / 8), *eval /= CHAIN * (REPS / 8), *freed /= CHAIN * (REPS / 8);
}

static double round_unfused(void) {
    double t = now();
    for (int r = 0; r < REPS / 8; r++)
        TN_SCOPE {
            tn_array *x = a16;
            for (int i = 0; i < CHAIN; i++) check(tn_eval(TN_LIST(x = tn_add(x, b16))));
        }
    return (now() - t) / (CHAIN * (REPS / 8));
}

static void round_one(double *all, double *eval) {
    double t = now();
    for (int r = 0; r < REPS; r++)
        TN_SCOPE
            check(tn_eval(TN_LIST(tn_add(a16, b16))));
    *all = (now() - t) / REPS;
    tn_array *y[REPS];
    tn_scope *s = tn_scope_begin();
    for (int r = 0; r < REPS; r++) y[r] = tn_add(a16, b16);
    t = now();
    for (int r = 0; r < REPS; r++) check(tn_eval(TN_LIST(y[r])));
    *eval = (now() - t) / REPS;
    tn_scope_end(s);
}

static double round_program(void) {
    static float a[16], b[16], y[16];
    static tni_program p;
    memset(&p, 0, sizeof p);
    p.ndim = 1, p.shape[0] = 16;
    p.n_in = 2, p.n_inst = 3, p.n_out = 1;
    for (int i = 0; i < 2; i++) {
        p.in[i].dtype = TN_F32, p.in[i].strides[0] = 1;
        p.inst[i].dtype = TN_F32, p.inst[i].a = (uint16_t)i;
    }
    p.inst[2] = (tni_inst){.op = TNI_INST_EW + TNI_EW_add, .dtype = TN_F32, .a = 0, .b = 1};
    p.out[0] = (tni_prog_out){.dtype = TN_F32, .value = 2, .strides = {1}};
    const void *in[2] = {a, b};
    void *out[1] = {y};
    double t = now();
    for (int r = 0; r < REPS; r++) check(tni_cpu_run(&p, in, out));
    return (now() - t) / REPS;
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 31;
    if (rounds < 1 || rounds > ROUNDS_MAX || tn_set_threads(1)) return 2;
    float v[16] = {1, 2, 3};
    a16 = tn_array_new(v, TN_F32, TN_SHAPE(16));
    b16 = tn_array_new(v, TN_F32, TN_SHAPE(16));
    for (int r = -1; r < rounds; r++) {
        double one[KINDS];
        round_chain(&one[BUILD], &one[FUSED], &one[FREE]);
        one[UNFUSED] = round_unfused();
        round_one(&one[ONE], &one[ONE_ONLY]);
        one[PROGRAM] = round_program();
        for (int k = 0; k < KINDS && r >= 0; k++) times[k][r] = one[k] * 1e9;
    }
    printf("%s, 1 thread, %d rounds\n\n", tn_cpu_name(), rounds);
    printf("| what | least ns | median | goal | |\n|---|---|---|---|---|\n");
    for (int k = 0; k < KINDS; k++) {
        qsort(times[k], (size_t)rounds, sizeof(double), by_value);
        printf("| %-10s | %6.1f | %6.1f | ", kinds[k].name, times[k][0], times[k][rounds / 2]);
        if (kinds[k].goal > 0)
            printf("%4.0f | %s |\n", kinds[k].goal, kinds[k].what);
        else
            printf("     | %s |\n", kinds[k].what);
    }
    tni_pool_shutdown();
    return 0;
}
