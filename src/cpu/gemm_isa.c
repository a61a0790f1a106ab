/* Matrix product kernels, compiled once per instruction set: micro-kernels (gemm_ukr.h),
 * packing that widens, and the strip kernel for up to eight rows. gemm.h has the contracts
 * and the one order of the sums that all of them keep. */
#include "cpu/gemm.h"
#include "cpu/gemm_words.h"

/* Tiles: accumulators + b + one of a fill the registers (32, 16, 32) and cover the FMA
 * latency (8 to 10 in flight). */
#if TNI_SIMD == TNI_SIMD_avx512
enum { GEMM_MRP = 16 };
#define GEMM_MR 14
#define GEMM_NV 2
#elif TNI_SIMD == TNI_SIMD_avx2
enum { GEMM_MRP = 8 };
#define GEMM_MR 6
#define GEMM_NV 2
#elif TNI_SIMD == TNI_SIMD_neon
enum { GEMM_MRP = 8 };
#define GEMM_MR 8
#define GEMM_NV 3
#else
enum { GEMM_MRP = 4 };
#define GEMM_MR 4
#define GEMM_NV 4
#endif

#define U_MR      GEMM_MR
#define U_NV      GEMM_NV
#define U_T       float
#define U_V       vf
#define U_VN      VN
#define U_SET     vf_set
#define U_LOAD    vf_load
#define U_STORE   vf_store
#define U_FMA     vf_fma
#define U_M       gm
#define U_MASK    g_mask
#define U_LOADM   g_load
#define U_STOREM  g_store
#define U_NAME(x) x##_f32
#include "cpu/gemm_ukr.h"
#undef U_T
#undef U_V
#undef U_VN
#undef U_SET
#undef U_LOAD
#undef U_STORE
#undef U_FMA
#undef U_M
#undef U_MASK
#undef U_LOADM
#undef U_STOREM
#undef U_NAME

#define U_T       double
#define U_V       vd
#define U_VN      DN
#define U_SET     d_set
#define U_LOAD    d_load
#define U_STORE   d_store
#define U_FMA     d_fma
#define U_M       dm
#define U_MASK    d_mask
#define U_LOADM   d_loadm
#define U_STOREM  d_storem
#define U_NAME(x) x##_f64
#include "cpu/gemm_ukr.h"

/* ---- packing ---- */

V_FN vf pack_load(const void *p, int64_t at, const int kind) {
    if (kind == TNI_GEMM_F16) return vf_load_f16((const uint16_t *)p + at);
    if (kind == TNI_GEMM_BF16) return vf_load_bf16((const uint16_t *)p + at);
    return vf_load((const float *)p + at);
}

V_FN vf pack_load_n(const void *p, int64_t at, int n, const int kind) {
    uint16_t t[VN] = {0};
    if (kind == TNI_GEMM_F32) return g_load((const float *)p + at, g_mask(n));
    for (int i = 0; i < n; i++) t[i] = ((const uint16_t *)p)[at + i];
    return pack_load(t, 0, kind);
}

V_FN float pack_one(const void *p, int64_t at, const int kind) {
    if (kind == TNI_GEMM_F16) return tni_f16_to_f32(((const uint16_t *)p)[at]);
    if (kind == TNI_GEMM_BF16) return tni_bf16_to_f32(((const uint16_t *)p)[at]);
    return ((const float *)p)[at];
}

/* i has unit stride: rows are copied. */
V_FN void pack_copy(float *dst, int64_t ld, const void *s, int64_t ks, int64_t n, int64_t k,
                    const int kind) {
    for (int64_t q = 0; q < k; q++) {
        int64_t i = 0;
        for (; i + VN <= n; i += VN) vf_store(dst + q * ld + i, pack_load(s, q * ks + i, kind));
        if (i < n) vf_store(dst + q * ld + i, pack_load_n(s, q * ks + i, (int)(n - i), kind));
    }
}

/* k has unit stride: VN x VN blocks are transposed in registers; rows past n repeat row n-1. */
V_FN void pack_turn(float *dst, int64_t ld, const void *s, int64_t is, int64_t n, int64_t k,
                    const int kind) {
    for (int64_t i = 0; i < n; i += VN)
        for (int64_t q = 0; q < k; q += VN) {
            vf r[VN];
            int rows = n - i < VN ? (int)(n - i) : VN, cols = k - q < VN ? (int)(k - q) : VN;
            float *d = dst + q * ld + i;
            if (rows == VN && cols == VN) {
                for (int x = 0; x < VN; x++) r[x] = pack_load(s, (i + x) * is + q, kind);
                g_transpose(r);
                for (int x = 0; x < VN; x++) vf_store(d + x * ld, r[x]);
                continue;
            }
            for (int x = 0; x < VN; x++) {
                int64_t at = (i + (x < rows ? x : rows - 1)) * is + q;
                r[x] = cols == VN ? pack_load(s, at, kind) : pack_load_n(s, at, cols, kind);
            }
            g_transpose(r);
            for (int x = 0; x < cols; x++) vf_store(d + x * ld, r[x]);
        }
}

V_FN void pack_kind(float *dst, int64_t ld, const tni_gemm_mat *m, int64_t n, int64_t k,
                    const int kind) {
    if (m->rs == 1 || n == 1)
        pack_copy(dst, ld, m->data, m->cs, n, k, kind);
    else if (m->cs == 1 || k == 1)
        pack_turn(dst, ld, m->data, m->rs, n, k, kind);
    else
        for (int64_t q = 0; q < k; q++)
            for (int64_t i = 0; i < n; i++)
                dst[q * ld + i] = pack_one(m->data, i * m->rs + q * m->cs, kind);
}

static void pack_f32(void *dst, int64_t ld, const tni_gemm_mat *m, int64_t n, int64_t k) {
    if (m->kind == TNI_GEMM_F16)
        pack_kind(dst, ld, m, n, k, TNI_GEMM_F16);
    else if (m->kind == TNI_GEMM_BF16)
        pack_kind(dst, ld, m, n, k, TNI_GEMM_BF16);
    else
        pack_kind(dst, ld, m, n, k, TNI_GEMM_F32);
}

static void pack_f64(void *dst, int64_t ld, const tni_gemm_mat *m, int64_t n, int64_t k) {
    const double *s = m->data;
    double *d = dst;
    for (int64_t q = 0; q < k; q++)
        if (m->rs == 1)
            memcpy(d + q * ld, s + q * m->cs, (size_t)n * sizeof *d);
        else
            for (int64_t i = 0; i < n; i++) d[q * ld + i] = s[i * m->rs + q * m->cs];
}

/* ---- up to eight rows of a against rows of b as they lie in memory ----
 * Sixteen rows of b are read side by side along a strip, the sums of the strip staying in L1
 * between groups: memory sees sixteen forward streams, and every byte of b once. */
enum { STRIP_N = 512, STRIP_K = 16 };

#if defined(__clang__)
#define STRIP_UNROLL _Pragma("clang loop unroll(full)")
#else
#define STRIP_UNROLL _Pragma("GCC unroll 16")
#endif

typedef struct strip_args {
    const float *a;
    int64_t rsa, csa, ldb, ldc;
    const void *b;
    float *c;
    float *sums; /* [m][STRIP_N] */
    int64_t k;
    int add;
} strip_args;

/* Columns j .. of one group of k: nv vectors, the last of `left` lanes when part. */
V_FN void strip_block(const strip_args *s, const int m, const int nv, const bool part, int left,
                      int64_t j, int64_t k0, int64_t k1, const int kind) {
    vf acc[8][4], bv[4];
    STRIP_UNROLL
    for (int i = 0; i < m; i++) {
        STRIP_UNROLL
        for (int v = 0; v < nv; v++)
            acc[i][v] = k0 ? vf_load(s->sums + i * STRIP_N + j + v * VN) : vf_set(0);
    }
    for (int64_t q = k0; q < k1; q++) {
        int64_t at = q * s->ldb + j;
        STRIP_UNROLL
        for (int v = 0; v < nv; v++)
            bv[v] = part ? pack_load_n(s->b, at, left, kind) : pack_load(s->b, at + v * VN, kind);
        STRIP_UNROLL
        for (int i = 0; i < m; i++) {
            vf x = vf_set(s->a[i * s->rsa + q * s->csa]);
            STRIP_UNROLL
            for (int v = 0; v < nv; v++) acc[i][v] = vf_fma(x, bv[v], acc[i][v]);
        }
    }
    STRIP_UNROLL
    for (int i = 0; i < m; i++) {
        STRIP_UNROLL
        for (int v = 0; v < nv; v++) {
            float *c = s->c + i * s->ldc + j + v * VN;
            vf sum = acc[i][v];
            if (k1 < s->k) {
                vf_store(s->sums + i * STRIP_N + j + v * VN, sum);
            } else if (part) {
                if (s->add) sum = g_load(c, g_mask(left)) + sum;
                g_store(c, sum, g_mask(left));
            } else {
                if (s->add) sum = vf_load(c) + sum;
                vf_store(c, sum);
            }
        }
    }
}

/* Vectors at a time: as many sums as registers allow. */
#define STRIP_NV(m) (VN == 16 || VN == 4 ? ((m) <= 4 ? 4 : 2) : (m) <= 2 ? 4 : (m) <= 4 ? 2 : 1)

V_FN void strip_run(strip_args s, const int m, int64_t n, const int kind) {
    const int nv = STRIP_NV(m);
    for (int64_t k0 = 0; k0 < s.k; k0 += STRIP_K) {
        int64_t k1 = s.k - k0 < STRIP_K ? s.k : k0 + STRIP_K, j = 0;
        for (; j + nv * VN <= n; j += nv * VN) strip_block(&s, m, nv, false, 0, j, k0, k1, kind);
        for (; j + VN <= n; j += VN) strip_block(&s, m, 1, false, 0, j, k0, k1, kind);
        if (j < n) strip_block(&s, m, 1, true, (int)(n - j), j, k0, k1, kind);
    }
}

V_FN void strip_rows(strip_args s, int m, int64_t n, const int kind) {
    switch (m) {
    case 1:
        strip_run(s, 1, n, kind);
        break;
    case 2:
        strip_run(s, 2, n, kind);
        break;
    case 3:
        strip_run(s, 3, n, kind);
        break;
    case 4:
        strip_run(s, 4, n, kind);
        break;
    case 5:
        strip_run(s, 5, n, kind);
        break;
    case 6:
        strip_run(s, 6, n, kind);
        break;
    case 7:
        strip_run(s, 7, n, kind);
        break;
    default:
        strip_run(s, 8, n, kind);
        break;
    }
}

static void strip_f32(strip_args s, int m, int64_t n) { strip_rows(s, m, n, TNI_GEMM_F32); }
static void strip_f16(strip_args s, int m, int64_t n) { strip_rows(s, m, n, TNI_GEMM_F16); }
static void strip_bf16(strip_args s, int m, int64_t n) { strip_rows(s, m, n, TNI_GEMM_BF16); }

static void gemm_strip(int64_t k, const float *a, int64_t rsa, int64_t csa, const void *b, int kind,
                       int64_t ldb, float *c, int64_t ldc, int m, int64_t n, int add) {
    _Alignas(64) float sums[8 * STRIP_N];
    for (int64_t j = 0; j < n; j += STRIP_N) {
        int64_t w = n - j < STRIP_N ? n - j : STRIP_N;
        const char *p = (const char *)b + j * (kind == TNI_GEMM_F32 ? 4 : 2);
        strip_args s = {a, rsa, csa, ldb, ldc, p, c + j, sums, k, add};
        if (kind == TNI_GEMM_F16)
            strip_f16(s, m, w);
        else if (kind == TNI_GEMM_BF16)
            strip_bf16(s, m, w);
        else
            strip_f32(s, m, w);
    }
}

static void gemm_narrow(void *dst, int kind, const float *src, int64_t n) {
    uint16_t *d = dst;
    int64_t i = 0;
    if (kind == TNI_GEMM_F16) {
        for (; i + VN <= n; i += VN) vf_store_f16(d + i, vf_load(src + i));
        for (; i < n; i++) d[i] = tni_f32_to_f16(src[i]);
    } else {
        for (; i + VN <= n; i += VN) vf_store_bf16(d + i, vf_load(src + i));
        for (; i < n; i++) d[i] = tni_f32_to_bf16(src[i]);
    }
}

const tni_gemm_isa *TNI_FN(gemm_isa)(void) {
    static const tni_gemm_isa isa = {
        .f32 = {GEMM_MR, GEMM_NV * VN, GEMM_MRP, 4, u_tile_f32, pack_f32},
        .f64 = {GEMM_MR, GEMM_NV * DN, GEMM_MRP, 8, u_tile_f64, pack_f64},
        .strip = gemm_strip,
        .narrow = gemm_narrow,
    };
    return &isa;
}
