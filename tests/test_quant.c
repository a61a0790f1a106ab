/* Affine quantisation: quantize, dequantize and quantized_matmul against double precision,
 * every instruction set against the reference kernels bit for bit, one thread against many. */
#include "base/alloc.h"
#include "base/cpu.h"
#include "base/err.h"
#include "base/thread.h"
#include "core/backend.h"
#include "cpu/cpu_quant.h"
#include "cpu/quant.h"
#include "ops/prims.h"
#include "random.h"
#include "tap.h"
#include <math.h>
#include <stdlib.h>

enum { MAX_IN = 4 };

static const int all_bits[] = {2, 3, 4, 5, 6, 8}, all_groups[] = {32, 64, 128};
static const tn_dtype all_dtypes[] = {TN_F32, TN_F16, TN_BF16};

static float uniform(void) { return (float)((double)(rnd() >> 40) * 0x1p-23 - 1.0); }
static float normal(void) { return uniform() + uniform() + uniform(); }

static int kind_of(tn_dtype d) {
    return d == TN_F32 ? TNI_QK_F32 : d == TN_F16 ? TNI_QK_F16 : TNI_QK_BF16;
}
static float get(const void *p, tn_dtype d, int64_t i) {
    return tni_q_load((const uint8_t *)p + i * tni_q_size(kind_of(d)), kind_of(d));
}
static void put(void *p, tn_dtype d, int64_t i, float v) {
    tni_q_store((uint8_t *)p + i * tni_q_size(kind_of(d)), kind_of(d), v);
}
static void *make(int64_t n, tn_dtype d) {
    return calloc((size_t)n + 1, (size_t)tni_q_size(kind_of(d)));
}

/* A matrix of quantised weights: rows x cols values, packed along cols. */
typedef struct packed {
    int bits, group;
    int64_t rows, cols;
    tn_dtype sd;
    uint32_t *w;
    void *s, *b;
} packed;

static packed packed_random(int64_t rows, int64_t cols, int bits, int group, tn_dtype sd) {
    packed p = {.bits = bits, .group = group, .rows = rows, .cols = cols, .sd = sd};
    int64_t words = rows * cols * bits / 32, scales = rows * cols / group;
    p.w = calloc((size_t)words, 4);
    p.s = make(scales, sd);
    p.b = make(scales, sd);
    for (int64_t i = 0; i < words; i++) p.w[i] = (uint32_t)(rnd() >> 32);
    for (int64_t i = 0; i < scales; i++) {
        float s = uniform() * 0.02f;
        put(p.s, sd, i, s);
        put(p.b, sd, i, -s * (float)(1 << (bits - 1)) + uniform() * 0.01f);
    }
    return p;
}

static void packed_free(packed *p) {
    free(p->w);
    free(p->s);
    free(p->b);
}

static uint32_t packed_q(const packed *p, int64_t r, int64_t c) {
    const uint8_t *row = (const uint8_t *)p->w + r * p->cols * p->bits / 8;
    int64_t bit = c * p->bits;
    uint32_t v = row[bit / 8];
    if (bit % 8 + p->bits > 8) v |= (uint32_t)row[bit / 8 + 1] << 8;
    return (v >> (bit % 8)) & ((1u << p->bits) - 1);
}

static double packed_value(const packed *p, int64_t r, int64_t c) {
    int64_t g = r * (p->cols / p->group) + c / p->group;
    return (double)get(p->s, p->sd, g) * packed_q(p, r, c) + get(p->b, p->sd, g);
}

static tni_view view2(void *data, tn_dtype d, int64_t *ss, int64_t rows, int64_t cols) {
    ss[0] = rows;
    ss[1] = cols;
    ss[2] = cols;
    ss[3] = 1;
    return (tni_view){.data = data, .dtype = d, .ndim = 2, .shape = ss, .strides = ss + 2};
}

static int qmm(const packed *p, const void *x, tn_dtype xd, int64_t M, int transpose, void *y) {
    int64_t ss[5][4];
    int64_t K = transpose ? p->cols : p->rows, N = transpose ? p->rows : p->cols;
    tni_p_quant params = {.group = p->group, .bits = p->bits, .transpose = transpose};
    tni_view in[4] = {view2((void *)(uintptr_t)x, xd, ss[0], M, K),
                      view2(p->w, TN_U32, ss[1], p->rows, p->cols * p->bits / 32),
                      view2(p->s, p->sd, ss[2], p->rows, p->cols / p->group),
                      view2(p->b, p->sd, ss[3], p->rows, p->cols / p->group)};
    tni_view out = view2(y, xd, ss[4], M, N);
    tni_call c = {.params = &params, .n_in = 4, .n_out = 1, .in = in, .out = &out};
    return tni_cpu_quantized_matmul(&c);
}

/* Largest |y - exact| / (|x| |w|), the rounding of y to its dtype taken off. */
static double qmm_error(const packed *p, const void *x, tn_dtype xd, int64_t M, int transpose,
                        const void *y) {
    int64_t K = transpose ? p->cols : p->rows, N = transpose ? p->rows : p->cols;
    double worst = 0, ulp = xd == TN_F32 ? 0x1p-23 : xd == TN_F16 ? 0x1p-11 : 0x1p-8;
    for (int64_t n = 0; n < N; n++)
        for (int64_t m = 0; m < M; m++) {
            double sum = 0, nx = 0, nw = 0;
            for (int64_t k = 0; k < K; k++) {
                double a = get(x, xd, m * K + k);
                double b = transpose ? packed_value(p, n, k) : packed_value(p, k, n);
                sum += a * b;
                nx += a * a;
                nw += b * b;
            }
            double e = fabs(get(y, xd, m * N + n) - sum) - ulp * fabs(sum) - 1e-7;
            if (!(e <= 0)) e = e / (sqrt(nx * nw) + 1e-30);
            if (!(e <= worst)) worst = e;
        }
    return worst;
}

static const tni_quant_isa *isas[4];
static int n_isas;

static void find_isas(void) {
    isas[n_isas++] = tni_quant_isa_ref();
#if defined(__x86_64__)
    if (tni_cpu_info()->avx2) isas[n_isas++] = tni_quant_isa_avx2();
    if (tni_cpu_info()->avx512 && tni_cpu_info()->vnni && tni_cpu_info()->vbmi)
        isas[n_isas++] = tni_quant_isa_avx512();
#elif defined(__aarch64__)
    if (tni_cpu_info()->dotprod) isas[n_isas++] = tni_quant_isa_neon();
#endif
}

/* Every ISA's default path: close to double precision, and the same bits as the reference.
 * Row m of a call must not depend on how many rows there are. */
static void check_shape(int bits, int group, tn_dtype sd, tn_dtype xd, int64_t M, int64_t N,
                        int64_t K) {
    packed p = packed_random(N, K, bits, group, sd);
    void *x = make(M * K, xd), *y = make(M * N, xd), *want = make(M * N, xd), *row = make(N, xd);
    size_t es = (size_t)tni_q_size(kind_of(xd));
    for (int64_t i = 0; i < M * K; i++) put(x, xd, i, normal());
    for (int i = 0; i < n_isas; i++) {
        tni_cpu_set_quant_isa(isas[i]);
        memset(y, 0xff, (size_t)(M * N) * es);
        int e = qmm(&p, x, xd, M, 1, y);
        double err = qmm_error(&p, x, xd, M, 1, y);
        ok(!e && err <= 3e-5, "%s: %d bits, group %d, scales %s, x %s [%d, %d] x [%d]: error %.1e",
           isas[i]->name, bits, group, tn_dtype_name(sd), tn_dtype_name(xd), (int)M, (int)K, (int)N,
           err);
        if (i == 0) memcpy(want, y, (size_t)(M * N) * es);
        ok(!memcmp(want, y, (size_t)(M * N) * es), "  same bits as the reference");
    }
    for (int64_t m = 0; m < M; m += 3) {
        int e = qmm(&p, (char *)x + (size_t)(m * K) * es, xd, 1, 1, row);
        ok(!e && !memcmp(row, (char *)want + (size_t)(m * N) * es, (size_t)N * es),
           "  row %d alone gives the same bits", (int)m);
    }
    tni_cpu_set_quant_isa(NULL);
    packed_free(&p);
    free(x);
    free(y);
    free(want);
    free(row);
}

static void test_shapes(void) {
    static const int64_t Ms[] = {1, 2, 3, 5, 8, 9, 17, 64};
    static const int64_t Ns[] = {1, 7, 16, 37, 80};
    int turn = 0;
    for (int b = 0; b < 6; b++)
        for (int g = 0; g < 3; g++)
            for (int m = 0; m < 8; m++, turn++) {
                int64_t groups = 1 + turn % 11;
                check_shape(all_bits[b], all_groups[g], all_dtypes[turn % 3],
                            all_dtypes[turn / 3 % 3], Ms[m], Ns[turn % 5], groups * all_groups[g]);
            }
    check_shape(4, 32, TN_F16, TN_F32, 1, 576, 576);
    check_shape(4, 32, TN_F16, TN_F32, 33, 192, 1536);
    check_shape(8, 32, TN_F16, TN_F32, 1, 1000, 576);
}

static void test_float_mode(void) {
    for (int b = 0; b < 6; b++) {
        packed p = packed_random(19, 192, all_bits[b], 64, TN_F16);
        float x[3 * 192], y[3 * 19], want[3 * 19];
        for (int i = 0; i < 3 * 192; i++) x[i] = normal();
        tni_cpu_set_qmm_mode(TNI_QMM_FLOAT);
        for (int i = 0; i < n_isas; i++) {
            tni_cpu_set_quant_isa(isas[i]);
            int e = qmm(&p, x, TN_F32, 3, 1, y);
            double err = qmm_error(&p, x, TN_F32, 3, 1, y);
            ok(!e && err <= 1e-6, "float path, %s, %d bits: error %.1e", isas[i]->name, all_bits[b],
               err);
            if (!i) memcpy(want, y, sizeof y);
            ok(!memcmp(want, y, sizeof y), "  same bits as the reference");
        }
        tni_cpu_set_qmm_mode(TNI_QMM_INT8);
        for (int i = 0; i < n_isas; i++) {
            tni_cpu_set_quant_isa(isas[i]);
            int e = qmm(&p, x, TN_F32, 3, 1, y);
            double err = qmm_error(&p, x, TN_F32, 3, 1, y);
            ok(!e && err <= 1e-2, "int8 mode, %s: error %.1e", isas[i]->name, err);
            if (!i) memcpy(want, y, sizeof y);
            ok(!memcmp(want, y, sizeof y), "  same bits as the reference");
        }
        tni_cpu_set_qmm_mode(TNI_QMM_INT16);
        tni_cpu_set_quant_isa(NULL);
        packed_free(&p);
    }
}

static void test_cols(void) {
    for (int b = 0; b < 6; b++)
        for (int d = 0; d < 3; d++) {
            packed p = packed_random(37, 256, all_bits[b], 32, all_dtypes[(b + d) % 3]);
            tn_dtype xd = all_dtypes[d];
            void *x = make(70 * 37, xd), *y = make(70 * 256, xd), *want = make(70 * 256, xd);
            for (int i = 0; i < 70 * 37; i++) put(x, xd, i, normal());
            for (int i = 0; i < n_isas; i++) {
                tni_cpu_set_quant_isa(isas[i]);
                int e = qmm(&p, x, xd, 70, 0, y);
                double err = qmm_error(&p, x, xd, 70, 0, y);
                ok(!e && err <= 1e-6, "x @ w, %s, %d bits, %s: error %.1e", isas[i]->name, p.bits,
                   tn_dtype_name(xd), err);
                size_t n = (size_t)(70 * 256 * tni_q_size(kind_of(xd)));
                if (!i) memcpy(want, y, n);
                ok(!memcmp(want, y, n), "  same bits as the reference");
            }
            tni_cpu_set_quant_isa(NULL);
            packed_free(&p);
            free(x);
            free(y);
            free(want);
        }
}

/* Several slabs of w; a row alone gives the bits it has among others. */
static void test_cols_slabs(void) {
    enum { M = 9, K = 1100, N = 512 };
    for (int d = 0; d < 3; d++) {
        packed p = packed_random(K, N, 4, 64, TN_F32);
        tn_dtype xd = all_dtypes[d];
        size_t es = (size_t)tni_q_size(kind_of(xd));
        char *x = make(M * K, xd), *y = make(M * N, xd), *one = make(N, xd);
        for (int i = 0; i < M * K; i++) put(x, xd, i, normal());
        int e = qmm(&p, x, xd, M, 0, y), differ = 0;
        double err = qmm_error(&p, x, xd, M, 0, y);
        ok(!e && err <= 1e-6, "x @ w of %d rows, %s: error %.1e", K, tn_dtype_name(xd), err);
        for (size_t m = 0; m < M; m++)
            differ += qmm(&p, x + m * K * es, xd, 1, 0, one) || memcmp(one, y + m * N * es, N * es);
        is_i64(differ, 0, "  each row alone has the same bits");
        packed_free(&p);
        free(x);
        free(y);
        free(one);
    }
}

/* NaN, infinity and extreme magnitudes: what the float path gives; other rows untouched. */
static void test_extremes(void) {
    enum { K = 256, N = 20, M = 14 };
    packed p = packed_random(N, K, 4, 32, TN_F32);
    static float x[M * K], y[M * N], want[M * N], plain[M * N];
    for (int i = 0; i < M * K; i++) x[i] = normal();
    for (int i = 0; i < K; i++) x[9 * K + i] = 0;
    ok(!qmm(&p, x, TN_F32, M, 1, plain), "plain");
    x[0 * K + 3] = NAN;
    x[2 * K + 200] = INFINITY;
    x[4 * K + 77] = -INFINITY;
    x[5 * K + 7] = 3e38f;
    for (int i = 0; i < K; i++) x[6 * K + i] *= 1e-38f;
    for (int i = 0; i < K; i++) x[7 * K + i] *= 1e-33f;
    for (int i = 0; i < 32; i++) x[8 * K + i] *= 1e-38f;
    for (int few = 0; few < 2; few++) {
        tni_cpu_set_qmm_mode(TNI_QMM_FLOAT);
        ok(!qmm(&p, x, TN_F32, M, 1, want), "float path");
        tni_cpu_set_qmm_mode(TNI_QMM_INT16);
        for (int m = 0; m < M; m += few ? 2 : M)
            ok(!qmm(&p, x + m * K, TN_F32, few ? 2 : M, 1, y + m * N), "default path");
        static const int exact[] = {0, 2, 4, 5, 6, 7};
        for (int i = 0; i < 6; i++)
            ok(!memcmp(y + exact[i] * N, want + exact[i] * N, N * sizeof *y),
               "row %d is the float path's", exact[i]);
        ok(isnan(y[0]) && isinf(y[2 * N]) && isinf(y[4 * N]) && isfinite(y[1 * N]), "kinds");
        ok(!memcmp(y + N, plain + N, N * sizeof *y), "a neighbour row is untouched");
        double worst = 0;
        for (int n = 0; n < N; n++) {
            double e = fabs((double)y[8 * N + n] - want[8 * N + n]);
            if (!(e <= worst)) worst = e;
        }
        ok(worst < 1e-4, "a group of tiny values among others: %.1e", worst);
        float zeros[N] = {0};
        ok(!memcmp(y + 9 * N, zeros, sizeof zeros), "zero rows give +0");
    }
    packed_free(&p);
}

static void test_threads(void) {
    enum { K = 1536, N = 1003 };
    packed p = packed_random(N, K, 4, 64, TN_F16);
    float *x = make(40 * K, TN_F32), *one = make(40 * N, TN_F32), *many = make(40 * N, TN_F32);
    for (int i = 0; i < 40 * K; i++) x[i] = normal();
    x[5 * K] = NAN;
    static const int64_t Ms[] = {1, 4, 40};
    for (int m = 0; m < 3; m++) {
        size_t n = (size_t)Ms[m] * N * sizeof(float);
        tni_set_threads(1);
        ok(!qmm(&p, x, TN_F32, Ms[m], 1, one), "one thread, %d rows", (int)Ms[m]);
        tni_set_threads(5);
        ok(!qmm(&p, x, TN_F32, Ms[m], 1, many), "five threads");
        ok(!memcmp(one, many, n), "same bits");
    }
    tni_set_threads(0);
    packed_free(&p);
    free(x);
    free(one);
    free(many);
}

/* Weights as a mapped file has them: no alignment to speak of, ending where the page ends. */
static void test_unaligned(void) {
    enum { K = 320, N = 21, M = 6 };
    for (int b = 0; b < 6; b++) {
        packed p = packed_random(N, K, all_bits[b], 32, TN_F16), moved = p;
        size_t nw = (size_t)(N * K * p.bits / 8), ns = N * K / 32 * 2;
        char *w = malloc(nw + 2), *s = malloc(ns + 2), *bb = malloc(ns + 2);
        moved.w = (uint32_t *)(void *)memcpy(w + 2, p.w, nw);
        moved.s = memcpy(s + 2, p.s, ns);
        moved.b = memcpy(bb + 2, p.b, ns);
        float x[M * K + 1], y[M * N], want[M * N];
        for (int i = 0; i < M * K; i++) x[i] = normal();
        for (int i = 0; i < n_isas; i++)
            for (int m = 1; m <= M; m += M - 1) {
                tni_cpu_set_quant_isa(isas[i]);
                int e = qmm(&p, x, TN_F32, m, 1, want) | qmm(&moved, x, TN_F32, m, 1, y);
                ok(!e && !memcmp(y, want, (size_t)(m * N) * 4), "%s: %d bits unaligned, %d rows",
                   isas[i]->name, p.bits, m);
            }
        tni_cpu_set_quant_isa(NULL);
        packed_free(&p);
        free(w);
        free(s);
        free(bb);
    }
}

/* x [2, 3, M, K] permuted, w [3, N, K] broadcast over the first axis; and w shared. */
static void test_batches(void) {
    enum { K = 64, N = 10, M = 4 };
    packed p = packed_random(3 * N, K, 4, 32, TN_F32);
    static float x[2 * 3 * M * K], y[2 * 3 * M * N], want[M * N];
    for (int i = 0; i < 2 * 3 * M * K; i++) x[i] = normal();
    tni_p_quant params = {.group = 32, .bits = 4, .transpose = 1};
    /* memory order of x: [M, 2, 3, K] */
    int64_t xs[] = {2, 3, M, K}, xt[] = {3 * K, K, 6 * K, 1};
    int64_t ws[] = {2, 3, N, K / 8}, wt[] = {0, N * K / 8, K / 8, 1};
    int64_t ss[] = {2, 3, N, 2}, st[] = {0, N * 2, 2, 1};
    int64_t ys[] = {2, 3, M, N}, yt[] = {3 * M * N, M * N, N, 1};
    tni_view in[4] = {{x, TN_F32, 4, xs, xt},
                      {p.w, TN_U32, 4, ws, wt},
                      {p.s, TN_F32, 4, ss, st},
                      {p.b, TN_F32, 4, ss, st}};
    tni_view out = {y, TN_F32, 4, ys, yt};
    tni_call c = {.params = &params, .n_in = 4, .n_out = 1, .in = in, .out = &out};
    for (int shared = 0; shared < 2; shared++) {
        if (shared) { /* w [N, K] for every batch element */
            in[1] = (tni_view){p.w, TN_U32, 2, ws + 2, wt + 2};
            in[2] = (tni_view){p.s, TN_F32, 2, ss + 2, st + 2};
            in[3] = (tni_view){p.b, TN_F32, 2, ss + 2, st + 2};
        }
        ok(!tni_cpu_quantized_matmul(&c), "batched call");
        bool same = true;
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 3; j++) {
                float part[M * K];
                packed one = p;
                one.rows = N;
                one.w += shared ? 0 : j * N * K / 8;
                one.s = (float *)p.s + (shared ? 0 : j * N * 2);
                one.b = (float *)p.b + (shared ? 0 : j * N * 2);
                for (int m = 0; m < M; m++)
                    memcpy(part + m * K, x + m * 6 * K + i * 3 * K + j * K, K * 4);
                same &= !qmm(&one, part, TN_F32, M, 1, want) &&
                        !memcmp(want, y + (i * 3 + j) * M * N, sizeof want);
            }
        ok(same, "each element is its own product (%s w)", shared ? "shared" : "batched");
    }
    packed_free(&p);
}

/* A packed operand whose last axis has gaps is copied first; f16 x with a stride too. */
static void test_strided(void) {
    enum { K = 64, N = 5 };
    packed p = packed_random(N, K, 4, 32, TN_F16);
    uint32_t gaps[N * K / 8 * 2];
    for (int i = 0; i < N * K / 8; i++) gaps[2 * i] = p.w[i];
    uint16_t x[K * 3];
    uint16_t dense[K], y[N], want[N];
    for (int k = 0; k < K; k++) dense[k] = x[3 * k] = tni_f32_to_f16(normal());
    int64_t ss[5][4];
    tni_p_quant params = {.group = 32, .bits = 4, .transpose = 1};
    tni_view in[4] = {view2(x, TN_F16, ss[0], 1, K), view2(gaps, TN_U32, ss[1], N, K / 8),
                      view2(p.s, TN_F16, ss[2], N, 2), view2(p.b, TN_F16, ss[3], N, 2)};
    tni_view out = view2(y, TN_F16, ss[4], 1, N);
    ss[0][3] = 3;
    ss[1][2] = K / 4;
    ss[1][3] = 2;
    tni_call c = {.params = &params, .n_in = 4, .n_out = 1, .in = in, .out = &out};
    ok(!qmm(&p, dense, TN_F16, 1, 1, want), "dense");
    ok(!tni_cpu_quantized_matmul(&c) && !memcmp(y, want, sizeof y), "strided gives the same bits");
    packed_free(&p);
}

static void test_round_trip(void) {
    for (int b = 0; b < 6; b++)
        for (int g = 0; g < 3; g++)
            for (int d = 0; d < 3; d++) {
                int bits = all_bits[b], group = all_groups[g];
                tn_dtype wd = all_dtypes[d];
                int64_t rows = 5, cols = 384, ss[5][4];
                void *w = make(rows * cols, wd), *back = make(rows * cols, wd);
                packed p = packed_random(rows, cols, bits, group, wd);
                for (int64_t i = 0; i < rows * cols; i++) put(w, wd, i, normal());
                for (int64_t i = 0; i < group; i++) put(w, wd, i, 0); /* a group of zeros */
                tni_p_quant params = {.group = group, .bits = bits, .dtype = wd};
                tni_view in = view2(w, wd, ss[0], rows, cols);
                tni_view out[3] = {view2(p.w, TN_U32, ss[1], rows, cols * bits / 32),
                                   view2(p.s, wd, ss[2], rows, cols / group),
                                   view2(p.b, wd, ss[3], rows, cols / group)};
                tni_view to = view2(back, wd, ss[4], rows, cols);
                tni_call c = {.params = &params, .n_in = 1, .n_out = 3, .in = &in, .out = out};
                tni_call u = {.params = &params, .n_in = 3, .n_out = 1, .in = out, .out = &to};
                ok(!tni_cpu_quantize(&c) && !tni_cpu_dequantize(&u), "%d bits, group %d, %s", bits,
                   group, tn_dtype_name(wd));
                double worst = 0, value = 0;
                for (int64_t i = 0; i < rows * cols; i++) {
                    int64_t at = i / group;
                    double s = fabs(get(p.s, wd, at)), scale = fabs(get(p.b, wd, at)) + 6;
                    double slack = wd == TN_F32 ? 1e-6 : wd == TN_F16 ? 2e-3 : 1.6e-2;
                    double e = fabs((double)get(back, wd, i) - get(w, wd, i)) - slack * scale;
                    worst = fmax(worst, e / (s + 1e-9));
                    e = fabs(get(back, wd, i) - packed_value(&p, i / cols, i % cols));
                    value = fmax(value, e - slack * scale);
                }
                ok(worst <= 1.0001, "  within a step, the far edge included (%.3f)", worst);
                ok(value <= 0, "  dequantize agrees with the definition");
                ok(packed_q(&p, 0, 0) == 0 && get(back, wd, 0) == 0, "  zeros stay zeros");
                packed_free(&p);
                free(w);
                free(back);
            }
}

static void test_errors(void) {
    packed p = packed_random(4, 64, 4, 32, TN_F32);
    float x[2 * 64] = {0}, y[2 * 4];
    int64_t ss[5][4];
    tni_p_quant params = {.group = 32, .bits = 4, .transpose = 1};
    tni_view in[4] = {view2(x, TN_F32, ss[0], 2, 64), view2(p.w, TN_U32, ss[1], 4, 8),
                      view2(p.s, TN_F32, ss[2], 4, 2), view2(p.b, TN_F32, ss[3], 4, 2)};
    tni_view out = view2(y, TN_F32, ss[4], 2, 4);
    tni_call c = {.params = &params, .n_in = 4, .n_out = 1, .in = in, .out = &out};
    is_i64(tni_cpu_quantized_matmul(&c), 0, "well formed");
    params.bits = 7;
    is_i64(tni_cpu_quantized_matmul(&c), TN_EVALUE, "seven bits");
    params.bits = 4;
    params.group = 48;
    is_i64(tni_cpu_quantized_matmul(&c), TN_EVALUE, "groups of 48");
    params.group = 32;
    in[1].dtype = TN_I32;
    is_i64(tni_cpu_quantized_matmul(&c), TN_EDTYPE, "signed words");
    in[1].dtype = TN_U32;
    ss[1][1] = 7;
    is_i64(tni_cpu_quantized_matmul(&c), TN_ESHAPE, "a word short");
    ok(strstr(tni_error(), "quantized_matmul") && strstr(tni_error(), "7"), "message: %s",
       tni_error());
    ss[1][1] = 8;
    ss[3][0] = 3;
    is_i64(tni_cpu_quantized_matmul(&c), TN_ESHAPE, "biases of three rows");
    ss[3][0] = 4;
    in[0].dtype = TN_F64;
    is_i64(tni_cpu_quantized_matmul(&c), TN_EDTYPE, "double x");
    in[0].dtype = TN_F32;
    c.n_in = 3;
    is_i64(tni_cpu_quantized_matmul(&c), TN_EINTERNAL, "three inputs");
    packed_free(&p);
}

static void test_no_memory(void) {
    enum { K = 4096, N = 24, M = 9 };
    packed p = packed_random(N, K, 4, 32, TN_F16);
    float *x = make(M * K, TN_F32), y[M * N];
    for (int i = 0; i < M * K; i++) x[i] = normal();
    x[K] = NAN;
    for (int mode = 0; mode < 3; mode++) {
        tni_cpu_set_qmm_mode((tni_qmm_mode)mode);
        qmm(&p, x, TN_F32, M, 1, y); /* the pool's own allocations are not the subject */
        int64_t live = tni_alloc_live(), n = 0;
        int e = -1;
        while (e && n < 20) {
            tni_fail_alloc_at(++n);
            e = qmm(&p, x, TN_F32, M, 1, y);
            tni_fail_alloc_at(0);
            if (e)
                ok(e == TN_EMEMORY && *tni_error(), "allocation %d fails: %s", (int)n, tni_error());
            ok(tni_alloc_live() == live, "nothing leaked");
        }
        ok(!e && n > 1, "mode %d: succeeds once nothing fails", mode);
    }
    tni_cpu_set_qmm_mode(TNI_QMM_INT16);
    packed_free(&p);
    free(x);
}

int main(void) {
    find_isas();
    tni_cpu_set_qmm_mode(TNI_QMM_INT16);
    test_shapes();
    test_float_mode();
    test_cols();
    test_cols_slabs();
    test_extremes();
    test_threads();
    test_unaligned();
    test_batches();
    test_strided();
    test_round_trip();
    test_errors();
    test_no_memory();
    return tap_done();
}
