/* The matrix product against a plain loop in the promised order (cpu/gemm.h), bit for bit:
 * every dtype, layout, instruction set, path and number of threads has to give these bits.
 * The loop itself is held against double precision. Operands end at an unmapped page, so
 * that a read or write past the end cannot go unseen in vector code. */
#define _GNU_SOURCE
#include "base/alloc.h"
#include "base/cpu.h"
#include "base/err.h"
#include "base/half.h"
#include "base/thread.h"
#include "cpu/cpu_matmul.h"
#include "cpu/gemm.h"
#include "random.h"
#include "tap.h"
#include <math.h>
#include <sys/mman.h>

static double uniform(void) { return (double)(rnd() >> 11) * 0x1p-52 - 1.0; }
static int64_t pick(int64_t lo, int64_t hi) {
    return lo + (int64_t)(rnd() % (uint64_t)(hi - lo + 1));
}

static const tn_dtype dtypes[] = {TN_F32, TN_F16, TN_BF16, TN_F64, TN_C64};
static const char *dtype_name(tn_dtype d) {
    return d == TN_F32    ? "f32"
           : d == TN_F16  ? "f16"
           : d == TN_BF16 ? "bf16"
           : d == TN_F64  ? "f64"
                          : "c64";
}
static size_t size_of(tn_dtype d) { return d == TN_F32 ? 4 : d == TN_F64 || d == TN_C64 ? 8 : 2; }

/* ---- memory that ends at an unmapped page ---- */

typedef struct guarded {
    char *base, *data;
    size_t map, bytes;
} guarded;

static guarded guarded_new(size_t bytes) {
    size_t page = 16384, body = (bytes + page - 1) / page * page;
    guarded g = {.map = body + 2 * page, .bytes = bytes};
    g.base = mmap(NULL, g.map, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.base == MAP_FAILED) exit(99);
    mprotect(g.base, page, PROT_NONE);
    mprotect(g.base + page + body, page, PROT_NONE);
    g.data = g.base + page + body - bytes;
    return g;
}
static void guarded_free(guarded *g) { munmap(g->base, g->map); }

/* ---- operands ---- */

enum { PLAIN, TURNED, SPREAD, BACKWARD, REPEATED, ONE_ROW, LAYOUTS };
static const char *const layout_names[] = {"plain",    "transposed", "general strides",
                                           "negative", "broadcast",  "broadcast inside"};

typedef struct operand {
    guarded mem;
    tn_dtype dtype;
    int64_t shape[3], strides[3];
    char *origin;
} operand;

static void put(char *p, tn_dtype d) {
    double x = uniform();
    float z[2] = {(float)x, (float)uniform()};
    uint16_t h = d == TN_F16 ? tni_f32_to_f16((float)x) : tni_f32_to_bf16((float)x);
    if (d == TN_F32) memcpy(p, z, 4);
    if (d == TN_C64) memcpy(p, z, 8);
    if (d == TN_F64) memcpy(p, &x, 8);
    if (d == TN_F16 || d == TN_BF16) memcpy(p, &h, 2);
}

/* [batch, rows, cols] in one of the layouts. */
static operand operand_new(tn_dtype d, int layout, int64_t batch, int64_t rows, int64_t cols) {
    operand o = {.dtype = d, .shape = {batch, rows, cols}};
    int64_t *s = o.strides, first = 0, last = 0;
    s[1] = cols, s[2] = 1, s[0] = rows * cols;
    if (layout == TURNED) s[1] = 1, s[2] = rows;
    if (layout == SPREAD) s[2] = 3, s[1] = 3 * cols + 5, s[0] = rows * s[1] + 7;
    if (layout == BACKWARD) s[1] = -cols, s[2] = 1, s[0] = rows * cols;
    if (layout == BACKWARD && rows % 2) s[1] = cols, s[2] = -1;
    if (layout == REPEATED) s[0] = 0;
    if (layout == ONE_ROW) s[1] = 0;
    for (int i = 0; i < 3; i++) {
        if (o.shape[i] == 1 && layout == SPREAD) s[i] = 12345 + i; /* must not matter */
        int64_t reach = o.shape[i] == 1 ? 0 : (o.shape[i] - 1) * s[i];
        *(reach < 0 ? &first : &last) += reach;
    }
    o.mem = guarded_new((size_t)(last - first + 1) * size_of(d));
    for (int64_t i = 0; i < last - first + 1; i++) put(o.mem.data + (size_t)i * size_of(d), d);
    o.origin = o.mem.data + (size_t)-first * size_of(d);
    return o;
}
static void operand_free(operand *o) { guarded_free(&o->mem); }
static tni_view operand_view(operand *o) {
    return (tni_view){o->origin, o->dtype, 3, o->shape, o->strides};
}

static const char *element(const operand *o, int64_t q, int64_t i, int64_t j) {
    return o->origin +
           (q * o->strides[0] + i * o->strides[1] + j * o->strides[2]) * (int64_t)size_of(o->dtype);
}
static float get32(const char *p, tn_dtype d, int part) {
    float f[2];
    uint16_t h;
    if (d == TN_F16 || d == TN_BF16) {
        memcpy(&h, p, 2);
        return d == TN_F16 ? tni_f16_to_f32(h) : tni_bf16_to_f32(h);
    }
    memcpy(f, p, d == TN_C64 ? 8 : 4);
    return f[part];
}
static double get64(const char *p) {
    double x;
    memcpy(&x, p, 8);
    return x;
}

/* ---- the reference ---- */

static float sum32(const operand *a, const operand *b, int64_t q, int64_t i, int64_t j, int64_t k) {
    float c = 0, acc = 0;
    for (int64_t x = 0; x < k; x++) {
        acc = fmaf(get32(element(a, q, i, x), a->dtype, 0), get32(element(b, q, x, j), b->dtype, 0),
                   acc);
        if ((x + 1) % TNI_GEMM_KC && x + 1 < k) continue;
        c = x < TNI_GEMM_KC ? acc : c + acc;
        acc = 0;
    }
    return c;
}
static double sum64(const operand *a, const operand *b, int64_t q, int64_t i, int64_t j,
                    int64_t k) {
    double c = 0, acc = 0;
    for (int64_t x = 0; x < k; x++) {
        acc = fma(get64(element(a, q, i, x)), get64(element(b, q, x, j)), acc);
        if ((x + 1) % TNI_GEMM_KC && x + 1 < k) continue;
        c = x < TNI_GEMM_KC ? acc : c + acc;
        acc = 0;
    }
    return c;
}
static float sum_c64(const operand *a, const operand *b, int64_t q, int64_t i, int64_t j, int64_t k,
                     int part) {
    float c = 0, acc = 0;
    for (int64_t x = 0; x < k; x++) {
        const char *u = element(a, q, i, x), *v = element(b, q, x, j);
        float y = get32(v, TN_C64, 1 - part);
        acc = fmaf(get32(u, TN_C64, 0), get32(v, TN_C64, part), acc);
        acc = fmaf(get32(u, TN_C64, 1), part ? y : -y, acc);
        if ((2 * x + 2) % TNI_GEMM_KC && x + 1 < k) continue;
        c = 2 * x < TNI_GEMM_KC ? acc : c + acc;
        acc = 0;
    }
    return c;
}

static void reference(const operand *a, const operand *b, int64_t batch, int64_t m, int64_t n,
                      int64_t k, char *out) {
    tn_dtype d = a->dtype;
    for (int64_t q = 0; q < batch; q++)
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++, out += size_of(d)) {
                if (d == TN_F64) {
                    double x = sum64(a, b, q, i, j, k);
                    memcpy(out, &x, 8);
                } else if (d == TN_C64) {
                    float z[2] = {sum_c64(a, b, q, i, j, k, 0), sum_c64(a, b, q, i, j, k, 1)};
                    memcpy(out, z, 8);
                } else {
                    float x = sum32(a, b, q, i, j, k);
                    uint16_t h = d == TN_F16 ? tni_f32_to_f16(x) : tni_f32_to_bf16(x);
                    memcpy(out, d == TN_F32 ? (void *)&x : (void *)&h, size_of(d));
                }
            }
}

/* ---- one product, checked ---- */

typedef struct problem {
    tn_dtype dtype;
    int layout_a, layout_b;
    int64_t batch, m, n, k;
} problem;

static int run(operand *a, operand *b, guarded *c, const problem *p) {
    int64_t shape[3] = {p->batch, p->m, p->n}, strides[3] = {p->m * p->n, p->n, 1};
    tni_view in[2] = {operand_view(a), operand_view(b)};
    tni_view out = {c->data, p->dtype, 3, shape, strides};
    tni_call call = {.n_in = 2, .n_out = 1, .in = in, .out = &out};
    return tni_cpu_matmul(&call);
}

static void describe(const char *what, const problem *p) {
    diag("%s: %s %s x %s, batch %" PRId64 ", %" PRId64 " x %" PRId64 " x %" PRId64, what,
         dtype_name(p->dtype), layout_names[p->layout_a], layout_names[p->layout_b], p->batch, p->m,
         p->n, p->k);
}

static const tni_gemm_isa *isas[4];
static const char *isa_names[4];
static int n_isas, most_threads = 4;

/* 1 when all instruction sets, on one thread and on several, give the reference's bits. */
static int same_bits(const problem *p) {
    operand a = operand_new(p->dtype, p->layout_a, p->batch, p->m, p->k);
    operand b = operand_new(p->dtype, p->layout_b, p->batch, p->k, p->n);
    size_t bytes = (size_t)(p->batch * p->m * p->n) * size_of(p->dtype);
    char *want = malloc(bytes);
    int good = 1;
    reference(&a, &b, p->batch, p->m, p->n, p->k, want);
    for (int i = 0; i < n_isas && good; i++)
        for (int threads = 1; threads <= most_threads && good; threads *= 4) {
            guarded c = guarded_new(bytes);
            memset(c.data, 0xa5, bytes);
            tni_gemm_use(isas[i]);
            tni_set_threads(threads);
            good = run(&a, &b, &c, p) == 0 && !memcmp(c.data, want, bytes);
            if (!good) describe(isa_names[i], p);
            guarded_free(&c);
        }
    free(want);
    operand_free(&a);
    operand_free(&b);
    return good;
}

static void check(const char *what, int64_t tries, int64_t max_m, int64_t max_n, int64_t max_k) {
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
        int good = 1;
        for (int64_t i = 0; i < tries && good; i++) {
            problem p = {dtypes[d],
                         (int)pick(0, LAYOUTS - 1),
                         (int)pick(0, LAYOUTS - 1),
                         pick(0, 3) ? 1 : pick(2, 5),
                         pick(1, max_m),
                         pick(1, max_n),
                         pick(1, max_k)};
            good = same_bits(&p);
        }
        ok(good, "%s, %s: the promised bits", what, dtype_name(dtypes[d]));
    }
}

static void test_layouts(void) {
    static const int64_t sizes[][3] = {{1, 1, 1},     {1, 300, 70},  {5, 130, 300}, {8, 33, 257},
                                       {14, 32, 256}, {15, 33, 255}, {70, 70, 70},  {100, 3, 40},
                                       {40, 1, 600},  {29, 65, 513}, {340, 40, 20}, {20, 530, 30}};
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
        for (int la = 0; la < LAYOUTS; la++)
            for (int lb = 0; lb < LAYOUTS; lb++) {
                int good = 1;
                for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
                    problem p = {dtypes[d],   la,          lb,         s % 5 == 2 ? 3 : 1,
                                 sizes[s][0], sizes[s][1], sizes[s][2]};
                    good &= same_bits(&p);
                }
                ok(good, "%s, %s x %s", dtype_name(dtypes[d]), layout_names[la], layout_names[lb]);
            }
}

/* Every edge of every tile: 1..70 along one axis, the others taken from around the blocks. */
static void test_edges(void) {
    static const int64_t others[] = {1, 2, 7, 8, 9, 14, 16, 17, 33, 64};
    for (int axis = 0; axis < 3; axis++) {
        int good = 1;
        for (int64_t x = 1; x <= 70 && good; x++)
            for (int lay = 0; lay < 4 && good; lay++) {
                int64_t s[3] = {others[pick(0, 9)], others[pick(0, 9)], others[pick(0, 9)]};
                s[axis] = x;
                problem p = {TN_F32, lay & 1, lay >> 1, 1, s[0], s[1], s[2]};
                good = same_bits(&p);
            }
        ok(good, "f32: 1 to 70 along %c", "MNK"[axis]);
    }
    int good = 1;
    for (int64_t k = TNI_GEMM_KC - 1; k <= 2 * TNI_GEMM_KC + 1;
         k += k % TNI_GEMM_KC == 1 ? TNI_GEMM_KC - 2 : 1)
        for (int lay = 0; lay < 4; lay++)
            for (int64_t m = 1; m <= 33; m += 4) {
                problem p = {TN_F32, lay & 1, lay >> 1, 1, m, 47, k};
                good &= same_bits(&p);
            }
    ok(good, "f32: around the ends of K blocks");
}

/* Products large enough that panels are packed for all tiles: many rows and few (the threads decide
 * which way they go), sums and rows and columns that are taken in parts. */
static void test_shared(void) {
    static const int64_t sizes[][3] = {{700, 260, 100}, {2000, 90, 100}, {64, 2100, 140},
                                       {40, 600, 1400}, {4200, 40, 101}, {337, 513, 100}};
    static const int layouts[][2] = {{PLAIN, PLAIN},   {TURNED, PLAIN}, {PLAIN, TURNED},
                                     {TURNED, TURNED}, {PLAIN, SPREAD}, {BACKWARD, PLAIN}};
    most_threads = 16;
    for (int i = 0; i < 6; i++)
        for (int wide = 0; wide < 1 + i % 2; wide++) {
            const int64_t *n = sizes[i];
            problem p = {wide ? TN_F64 : TN_F32, layouts[i][0], layouts[i][1], 1, n[0], n[1], n[2]};
            ok(same_bits(&p), "%s, %" PRId64 " x %" PRId64 " x %" PRId64 ": the promised bits",
               dtype_name(p.dtype), n[0], n[1], n[2]);
        }
    most_threads = 4;
}

/* The same added to what is there, the right side narrow. */
static void test_shared_add(void) {
    enum { M = 150, N = 200, K = 600 };
    operand a = operand_new(TN_F32, TURNED, 1, M, K), b = operand_new(TN_BF16, PLAIN, 1, K, N);
    float *c = malloc(sizeof *c * M * N);
    int good = 1;
    for (int i = 0; i < n_isas; i++) {
        tni_gemm g = {.m = M, .n = N, .k = K, .batch = 1, .add = 1};
        g.a = (tni_gemm_mat){a.origin, TNI_GEMM_F32, a.strides[1], a.strides[2]};
        g.b = (tni_gemm_mat){b.origin, TNI_GEMM_BF16, b.strides[1], b.strides[2]};
        g.c = (tni_gemm_mat){c, TNI_GEMM_F32, N, 1};
        for (int x = 0; x < M * N; x++) c[x] = 3;
        tni_gemm_use(isas[i]);
        good &= tni_gemm_run(&g) == 0;
        for (int x = 0; x < M * N; x++) {
            float sum = 3;
            for (int k0 = 0; k0 < K; k0 += TNI_GEMM_KC) {
                float acc = 0;
                for (int k = k0; k < k0 + TNI_GEMM_KC && k < K; k++)
                    acc = fmaf(get32(element(&a, 0, x / N, k), TN_F32, 0),
                               get32(element(&b, 0, k, x % N), TN_BF16, 0), acc);
                sum += acc;
            }
            good &= c[x] == sum;
        }
    }
    ok(good, "f32 x bf16 added to what is there");
    free(c);
    operand_free(&a), operand_free(&b);
}

/* The reference itself, so that both cannot be wrong in the same way. */
static void test_accuracy(void) {
    double worst = 0;
    operand a = operand_new(TN_F32, PLAIN, 1, 20, 3000),
            b = operand_new(TN_F32, PLAIN, 1, 3000, 20);
    for (int64_t i = 0; i < 20; i++)
        for (int64_t j = 0; j < 20; j++) {
            double s = 0;
            for (int64_t k = 0; k < 3000; k++)
                s += (double)get32(element(&a, 0, i, k), TN_F32, 0) *
                     (double)get32(element(&b, 0, k, j), TN_F32, 0);
            worst = fmax(worst, fabs(s - (double)sum32(&a, &b, 0, i, j, 3000)));
        }
    ok(worst < 1e-4, "3000 products of numbers in [-1, 1): off by %.2g", worst);
    operand_free(&a);
    operand_free(&b);
}

static void test_special(void) {
    float a[6] = {1, INFINITY, 0, 0, NAN, 1}, b[6] = {1, 2, 0, 1, 3, 4}, c[4];
    for (int i = 0; i < n_isas; i++) {
        tni_gemm_use(isas[i]);
        ok(!tni_gemm_f32(2, 2, 3, a, 3, 1, b, 2, 1, c, 2, 0) && isnan(c[0]) && isinf(c[1]) &&
               isnan(c[2]) && isnan(c[3]),
           "%s: NaN and infinity go through", isa_names[i]);
        memset(c, 0xff, sizeof c);
        ok(!tni_gemm_f32(2, 2, 0, a, 3, 1, b, 2, 1, c, 2, 0) && !c[0] && !c[1] && !c[2] && !c[3],
           "%s: K = 0 gives zeros", isa_names[i]);
        float d[4] = {1, 1, 1, 1};
        ok(!tni_gemm_f32(2, 2, 1, b, 1, 1, b, 2, 1, d, 2, 1) && d[0] == 2 && d[1] == 3 && d[3] == 5,
           "%s: add", isa_names[i]);
    }
}

/* f32 activations against f16 and bf16 weights, as attention and linear layers use them. */
static void test_mixed(void) {
    enum { M = 9, N = 50, K = 300 };
    for (int kind = TNI_GEMM_F16; kind <= TNI_GEMM_BF16; kind++)
        for (int turned = 0; turned < 2; turned++) {
            tn_dtype d = kind == TNI_GEMM_F16 ? TN_F16 : TN_BF16;
            operand a = operand_new(TN_F32, PLAIN, 1, M, K), b = operand_new(d, turned, 1, K, N);
            int good = 1;
            for (int i = 0; i < n_isas; i++)
                for (int64_t m = 1; m <= M; m++) {
                    float c[M * N];
                    tni_gemm g = {.m = m, .n = N, .k = K, .batch = 1};
                    g.a = (tni_gemm_mat){a.origin, TNI_GEMM_F32, a.strides[1], a.strides[2]};
                    g.b = (tni_gemm_mat){b.origin, kind, b.strides[1], b.strides[2]};
                    g.c = (tni_gemm_mat){c, TNI_GEMM_F32, N, 1};
                    tni_gemm_use(isas[i]);
                    good &= tni_gemm_run(&g) == 0;
                    for (int64_t x = 0; x < m * N; x++)
                        good &= c[x] == sum32(&a, &b, 0, x / N, x % N, K);
                }
            ok(good, "f32 x %s %s", dtype_name(d), layout_names[turned]);
            operand_free(&a);
            operand_free(&b);
        }
}

static void test_memory(void) {
    static const problem ps[] = {
        {TN_F32, PLAIN, PLAIN, 1, 200, 200, 300}, {TN_BF16, PLAIN, TURNED, 1, 200, 200, 300},
        {TN_F32, PLAIN, PLAIN, 100, 4, 4, 4},     {TN_C64, PLAIN, PLAIN, 70, 50, 50, 150},
        {TN_F32, PLAIN, PLAIN, 1, 420, 260, 200}, {TN_F32, PLAIN, PLAIN, 1, 220, 560, 200}};
    tni_gemm_use(NULL);
    tni_set_threads(1);
    for (size_t i = 0; i < sizeof ps / sizeof *ps; i++) {
        const problem *p = &ps[i];
        operand a = operand_new(p->dtype, p->layout_a, p->batch, p->m, p->k);
        operand b = operand_new(p->dtype, p->layout_b, p->batch, p->k, p->n);
        guarded c = guarded_new((size_t)(p->batch * p->m * p->n) * size_of(p->dtype));
        int64_t live = tni_alloc_live();
        int rc = -1, n = 0, clean = 1;
        while (rc && n < 50) {
            tni_error_clear();
            tni_fail_alloc_at(++n);
            rc = run(&a, &b, &c, p);
            clean &= tni_alloc_live() == live && (!rc || (rc == TN_EMEMORY && *tni_error()));
        }
        tni_fail_alloc_at(0);
        ok(!rc && clean && n > 1, "case %zu: each of %d allocations may fail", i, n - 1);
        guarded_free(&c);
        operand_free(&a);
        operand_free(&b);
    }
}

static void test_refusals(void) {
    int32_t x[4] = {0};
    int64_t shape[2] = {2, 2}, strides[2] = {2, 1};
    tni_view v = {x, TN_I32, 2, shape, strides}, in[2] = {v, v}, f = {x, TN_F32, 1, shape, strides};
    tni_call c = {.n_in = 2, .n_out = 1, .in = in, .out = &v};
    is_i64(tni_cpu_matmul(&c), TN_EDTYPE, "integers are refused");
    tni_view fs[2] = {f, f};
    c = (tni_call){.n_in = 2, .n_out = 1, .in = fs, .out = &f};
    is_i64(tni_cpu_matmul(&c), TN_ESHAPE, "vectors are refused");
}

static void isa_add(const tni_gemm_isa *isa, const char *name) {
    isa_names[n_isas] = name;
    isas[n_isas++] = isa;
}

int main(void) {
    isa_add(tni_gemm_isa_ref(), "ref");
#if defined(__x86_64__)
    if (tni_cpu_info()->avx2) isa_add(tni_gemm_isa_avx2(), "avx2");
    if (tni_cpu_info()->avx512) isa_add(tni_gemm_isa_avx512(), "avx512");
#elif defined(__aarch64__)
    isa_add(tni_gemm_isa_neon(), "neon");
#endif
    test_accuracy();
    test_special();
    test_layouts();
    test_edges();
    check("random small", 150, 70, 70, 70);
    check("random long", 12, 40, 600, 600);
    check("random tall", 8, 700, 90, 300);
    test_shared();
    test_shared_add();
    test_mixed();
    test_memory();
    test_refusals();
    tni_pool_shutdown();
    return tap_done();
}
