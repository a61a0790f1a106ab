/* Quantised kernels: takes a call apart into 2-D problems on raw pointers, gives them
 * scratch, and shares them among the threads. The arithmetic is in quant_isa.c; its contract
 * (and why the result does not depend on any choice made here) in quant.h. */
#include "cpu/cpu_quant.h"
#include "base/cpu.h"
#include "base/err.h"
#include "base/scratch.h"
#include "base/thread.h"
#include "cpu/gemm.h"
#include "cpu/quant.h"
#include "ops/prims.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    QUANT_STACK = 24 * 1024,    /* scratch up to this size needs no allocation */
    QUANT_INLINE = 128 * 1024,  /* bytes of w that one thread streams in about 5 us */
    QUANT_CHUNK = 32 * 1024,    /* bytes of w handed to a thread at a time */
    QUANT_M_BLOCK = 1008,       /* rows of x quantised at a time: bounds scratch; 84 x 12 */
    QUANT_X_INLINE = 16 * 1024, /* values of x that one thread quantises in about 5 us */
    QUANT_SLAB = 512 * 1024     /* values of w widened at a time on the column path */
};

static const int quant_gemm_kind[] = {
    [TNI_QK_F32] = TNI_GEMM_F32, [TNI_QK_F16] = TNI_GEMM_F16, [TNI_QK_BF16] = TNI_GEMM_BF16};

/* ---- choices ---- */

static _Atomic int quant_mode = -1;
static _Atomic(const tni_quant_isa *) quant_isa;

tni_qmm_mode tni_cpu_qmm_mode(void) {
    int m = atomic_load_explicit(&quant_mode, memory_order_relaxed);
    if (m >= 0) return (tni_qmm_mode)m;
    const char *e = getenv("TENON_QMM");
    m = TNI_QMM_INT16;
    if (e && !strcmp(e, "float")) m = TNI_QMM_FLOAT;
    if (e && !strcmp(e, "int8")) m = TNI_QMM_INT8;
    atomic_store_explicit(&quant_mode, m, memory_order_relaxed);
    return (tni_qmm_mode)m;
}

void tni_cpu_set_qmm_mode(tni_qmm_mode mode) {
    atomic_store_explicit(&quant_mode, (int)mode, memory_order_relaxed);
}

void tni_cpu_set_quant_isa(const tni_quant_isa *isa) {
    atomic_store_explicit(&quant_isa, isa, memory_order_relaxed);
}

const tni_quant_isa *tni_cpu_quant_isa(void) {
    const tni_quant_isa *isa = atomic_load_explicit(&quant_isa, memory_order_relaxed);
    if (isa) return isa;
    const tni_cpu *cpu = tni_cpu_info();
    (void)cpu;
    isa = tni_quant_isa_ref();
#if defined(__x86_64__)
    if (cpu->isa == TNI_ISA_AVX512 && cpu->vnni && cpu->vbmi)
        isa = tni_quant_isa_avx512();
    else if (cpu->isa == TNI_ISA_AVX512 || cpu->isa == TNI_ISA_AVX2)
        isa = tni_quant_isa_avx2();
#elif defined(__aarch64__)
    if (cpu->isa == TNI_ISA_NEON && cpu->dotprod) isa = tni_quant_isa_neon();
#endif
    atomic_store_explicit(&quant_isa, isa, memory_order_relaxed);
    return isa;
}

/* ---- views ---- */

static int quant_kind(tn_dtype d) {
    switch (d) {
    case TN_F32:
        return TNI_QK_F32;
    case TN_F16:
        return TNI_QK_F16;
    case TN_BF16:
        return TNI_QK_BF16;
    default:
        return -1;
    }
}

static int quant_check(const char *op, const tni_call *c, int n_in, int n_out) {
    const tni_p_quant *p = c->params;
    if (c->n_in != n_in || c->n_out != n_out)
        return tni_fail(TN_EINTERNAL, "%s: %d inputs and %d outputs, expected %d and %d", op,
                        c->n_in, c->n_out, n_in, n_out);
    if (p->bits < 2 || p->bits > 8 || p->bits == 7)
        return tni_fail(TN_EVALUE, "%s: %d bits; 2, 3, 4, 5, 6 and 8 are supported", op, p->bits);
    if (p->group != 32 && p->group != 64 && p->group != 128)
        return tni_fail(TN_EVALUE, "%s: groups of %d; 32, 64 and 128 are supported", op, p->group);
    for (int i = 0; i < n_in + n_out; i++)
        if ((i < n_in ? c->in[i] : c->out[i - n_in]).ndim < 1)
            return tni_fail(TN_ESHAPE, "%s: operand %d is a scalar", op, i);
    return 0;
}

static int64_t quant_last(const tni_view *v) { return v->shape[v->ndim - 1]; }

/* Elements before row `i`, rows counted over the leading axes. */
static int64_t quant_row(const tni_view *v, int64_t i) {
    int64_t at = 0;
    for (int a = v->ndim - 2; a >= 0; a--) {
        at += i % v->shape[a] * v->strides[a];
        i /= v->shape[a];
    }
    return at;
}

/* Packed rows w, scales and biases that belong to rows of `k` values: dtypes and sizes. */
static int quant_check_packed(const char *op, const tni_p_quant *p, const tni_view *w,
                              const tni_view *s, const tni_view *b, int64_t k) {
    if (w->dtype != TN_U32 || quant_kind(s->dtype) < 0 || quant_kind(b->dtype) < 0)
        return tni_fail(TN_EDTYPE,
                        "%s: packed weights must be uint32 (is %s), scales and biases "
                        "floating point of at most 32 bits (are %s and %s)",
                        op, tn_dtype_name(w->dtype), tn_dtype_name(s->dtype),
                        tn_dtype_name(b->dtype));
    if (k % p->group || quant_last(w) * 32 != k * p->bits || quant_last(s) * p->group != k ||
        quant_last(b) * p->group != k)
        return tni_fail(TN_ESHAPE,
                        "%s: rows of %lld values in %d bits and groups of %d take %lld words and "
                        "%lld scales and biases, not %lld, %lld and %lld",
                        op, (long long)k, p->bits, p->group, (long long)(k * p->bits / 32),
                        (long long)(k / p->group), (long long)quant_last(w),
                        (long long)quant_last(s), (long long)quant_last(b));
    return 0;
}

/* ---- quantize ---- */

typedef struct quant_rows {
    const tni_p_quant *p;
    const tni_view *in[3], *out[3];
    int64_t k;
    int in_kind[3], out_kind;
} quant_rows;

static float quant_clamp(float v, float most) {
    return v >= 0 ? (v > most ? most : v) : 0; /* NaN is 0 */
}

/* One group: MLX's rule. The edge of larger magnitude is exactly representable. */
static void quant_group(const uint8_t *w, int64_t step, int kind, const tni_p_quant *p,
                        uint8_t *out, float *scale, float *bias) {
    const float most = (float)((1 << p->bits) - 1);
    float lo = HUGE_VALF, hi = -HUGE_VALF;
    for (int i = 0; i < p->group; i++) {
        float v = tni_q_load(w + i * step, kind);
        if (hi < v) hi = v;
        if (v < lo) lo = v;
    }
    float s = (hi - lo) / most;
    if (s < 1e-7f) s = 1e-7f;
    float edge = hi;
    if (fabsf(lo) > fabsf(hi))
        edge = lo;
    else
        s = -s;
    float q0 = rintf(edge / s);
    *bias = 0;
    if (q0 != 0) {
        s = edge / q0;
        *bias = edge;
    }
    for (int i = 0; i < p->group; i += 8, out += p->bits) {
        uint64_t word = 0;
        for (int j = 0; j < 8; j++) {
            float v = rintf((tni_q_load(w + (i + j) * step, kind) - *bias) / s);
            word |= (uint64_t)quant_clamp(v, most) << (j * p->bits);
        }
        memcpy(out, &word, (size_t)p->bits);
    }
    *scale = s;
}

static void quant_quantize_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    const quant_rows *r = ctx;
    const tni_view *w = r->in[0];
    const int kind = r->in_kind[0];
    const int64_t es = tni_q_size(kind), step = w->strides[w->ndim - 1] * es;
    const int64_t groups = r->k / r->p->group, row = r->k * r->p->bits / 8;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const uint8_t *from = (const uint8_t *)w->data + quant_row(w, i) * es;
        uint8_t *q = (uint8_t *)r->out[0]->data + i * row;
        for (int64_t g = 0; g < groups; g++) {
            float s, b;
            quant_group(from + g * r->p->group * step, step, kind, r->p,
                        q + g * r->p->group * r->p->bits / 8, &s, &b);
            tni_q_store((uint8_t *)r->out[1]->data + (i * groups + g) * es, kind, s);
            tni_q_store((uint8_t *)r->out[2]->data + (i * groups + g) * es, kind, b);
        }
    }
}

int tni_cpu_quantize(const tni_call *c) {
    int e = quant_check("quantize", c, 1, 3);
    if (e) return e;
    quant_rows r = {.p = c->params, .in = {&c->in[0]}, .k = quant_last(&c->in[0])};
    for (int i = 0; i < 3; i++) r.out[i] = &c->out[i];
    r.in_kind[0] = quant_kind(c->in[0].dtype);
    if (r.in_kind[0] < 0 || c->out[1].dtype != c->in[0].dtype || c->out[2].dtype != c->in[0].dtype)
        return tni_fail(TN_EDTYPE,
                        "quantize: needs float32, float16 or bfloat16 and scales of the same; "
                        "got %s and %s",
                        tn_dtype_name(c->in[0].dtype), tn_dtype_name(c->out[1].dtype));
    e = quant_check_packed("quantize", r.p, r.out[0], r.out[1], r.out[2], r.k);
    if (e) return e;
    int64_t grain = 1 + 16384 / (r.k + 1);
    tni_parallel(tni_view_size(&c->in[0]) / r.k, grain, quant_quantize_rows, &r);
    return 0;
}

/* ---- dequantize ---- */

/* One value as MLX's CPU backend has it: f16 and bf16 round the product and the sum. */
static float quant_value(float s, float q, float b, int kind) {
    if (kind == TNI_QK_F32) return s * q + b;
    float p = s * q;
    p = kind == TNI_QK_F16 ? tni_f16_to_f32(tni_f32_to_f16(p))
                           : tni_bf16_to_f32(tni_f32_to_bf16(p));
    return p + b;
}

static void quant_dequantize_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    const quant_rows *r = ctx;
    const tni_p_quant *p = r->p;
    const tni_view *w = r->in[0], *s = r->in[1], *b = r->in[2];
    const int64_t ws = w->strides[w->ndim - 1] * 4, es = tni_q_size(r->out_kind);
    const int64_t ss = s->strides[s->ndim - 1], bs = b->strides[b->ndim - 1];
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const uint8_t *wr = (const uint8_t *)w->data + quant_row(w, i) * 4;
        uint8_t *out = (uint8_t *)r->out[0]->data + i * r->k * es;
        float table[256];
        for (int64_t k = 0; k < r->k; k++) {
            if (k % p->group == 0) {
                int64_t g = k / p->group;
                float sv = tni_q_load((const uint8_t *)s->data +
                                          (quant_row(s, i) + g * ss) * tni_q_size(r->in_kind[1]),
                                      r->in_kind[1]);
                float bv = tni_q_load((const uint8_t *)b->data +
                                          (quant_row(b, i) + g * bs) * tni_q_size(r->in_kind[2]),
                                      r->in_kind[2]);
                for (int q = 0; q < 1 << p->bits; q++)
                    table[q] = quant_value(sv, (float)q, bv, r->in_kind[1]);
            }
            int64_t bit = k * p->bits;
            uint64_t v = 0;
            uint32_t word;
            memcpy(&word, wr + bit / 32 * ws, 4);
            v = word;
            if (bit % 32 + p->bits > 32) {
                memcpy(&word, wr + (bit / 32 + 1) * ws, 4);
                v |= (uint64_t)word << 32;
            }
            tni_q_store(out + k * es, r->out_kind,
                        table[(v >> (bit % 32)) & ((1u << p->bits) - 1)]);
        }
    }
}

int tni_cpu_dequantize(const tni_call *c) {
    int e = quant_check("dequantize", c, 3, 1);
    if (e) return e;
    quant_rows r = {.p = c->params, .out = {&c->out[0]}, .k = quant_last(&c->out[0])};
    for (int i = 0; i < 3; i++) {
        r.in[i] = &c->in[i];
        r.in_kind[i] = i ? quant_kind(c->in[i].dtype) : -1;
    }
    r.out_kind = quant_kind(c->out[0].dtype);
    if (r.out_kind < 0)
        return tni_fail(TN_EDTYPE, "dequantize: cannot give %s, only float32, float16, bfloat16",
                        tn_dtype_name(c->out[0].dtype));
    e = quant_check_packed("dequantize", r.p, r.in[0], r.in[1], r.in[2], r.k);
    if (e) return e;
    int64_t grain = 1 + 16384 / (r.k + 1);
    tni_parallel(tni_view_size(&c->out[0]) / r.k, grain, quant_dequantize_rows, &r);
    return 0;
}

/* ---- quantized_matmul: one 2-D problem ---- */

typedef struct quant_job {
    const tni_qmm *q;
    const tni_quant_isa *isa;
    uint8_t *scratch; /* a part for every worker */
    size_t part;
    int64_t unit, m;
} quant_job;

static void *quant_part(const quant_job *j, int worker) {
    return j->scratch + (size_t)worker * j->part;
}

static void quant_job_x_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    const quant_job *j = ctx;
    for (int64_t m = begin; m < end; m++) j->isa->x_row(j->q, m, quant_part(j, worker));
}

static void quant_job_x_tiles(void *ctx, int64_t begin, int64_t end, int worker) {
    const quant_job *j = ctx;
    for (int64_t t = begin; t < end; t++) j->isa->x_tile(j->q, t, quant_part(j, worker));
}

static int64_t quant_end(const quant_job *j, int64_t end) {
    return end * j->unit < j->q->N ? end * j->unit : j->q->N;
}

static void quant_job_gemv(void *ctx, int64_t begin, int64_t end, int worker) {
    const quant_job *j = ctx;
    (void)worker;
    j->isa->gemv(j->q, begin * j->unit, quant_end(j, end));
}

static void quant_job_gemm(void *ctx, int64_t begin, int64_t end, int worker) {
    const quant_job *j = ctx;
    for (int64_t i = begin; i < end; i++)
        j->isa->gemm(j->q, i * j->unit, quant_end(j, i + 1), quant_part(j, worker));
}

static void quant_job_float(void *ctx, int64_t begin, int64_t end, int worker) {
    const quant_job *j = ctx;
    j->isa->float_row(j->q, j->m, begin * j->unit, quant_end(j, end), quant_part(j, worker));
}

/* Runs fn over units of w's rows; inline when w is small. */
static void quant_share(quant_job *j, tni_range_fn fn, int64_t unit, int64_t grain, bool small) {
    j->unit = unit;
    int64_t n = (j->q->N + unit - 1) / unit;
    if (small)
        fn(j, 0, n, 0);
    else
        tni_parallel(n, grain > 0 ? grain : 1, fn, j);
}

static void quant_float_rows(quant_job *j, const uint8_t *leave) {
    const tni_qmm *q = j->q;
    int64_t grain = 1 + QUANT_CHUNK / (q->K + 1);
    for (j->m = 0; j->m < q->M; j->m++)
        if (!leave || leave[j->m]) quant_share(j, quant_job_float, 1, grain, q->N <= grain);
}

static size_t quant_round(size_t n) { return (n + 63) & ~(size_t)63; }

/* Scratch of `size` bytes: the caller's stack block when it fits. */
static uint8_t *quant_scratch(uint8_t *stack, size_t size) {
    return size <= QUANT_STACK ? stack : tni_scratch_take(size);
}

static void quant_release(uint8_t *stack, uint8_t *p) {
    if (p != stack) tni_scratch_give(p);
}

/* Rows of w a gemm chunk has: as many panels as still give every thread a few chunks. */
static int64_t quant_gemm_unit(const tni_quant_isa *isa, int64_t n, int threads) {
    int64_t panels = n / (isa->panel_rows * 4 * threads), most = 64 / isa->panel_rows;
    if (panels > most) panels = most;
    return isa->panel_rows * (panels > 1 ? panels : 1);
}

static int quant_integer(tni_qmm *q, const tni_quant_isa *isa) {
    _Alignas(64) uint8_t stack[QUANT_STACK];
    const bool gemm = q->M >= isa->gemm_from, x_small = q->M * q->K <= QUANT_X_INLINE;
    const int64_t row = q->K * q->bits / 8;
    const bool small = !gemm && q->N * row <= QUANT_INLINE;
    const int threads = small && x_small ? 1 : tni_threads();
    const int64_t unit = gemm ? quant_gemm_unit(isa, q->N, threads) : 4;
    quant_job j = {.q = q, .isa = isa};
    q->tiles = (q->M + isa->tile_rows - 1) / isa->tile_rows;
    size_t xq = quant_round(isa->x_bytes(q, gemm)), leave = quant_round((size_t)q->M);
    j.part = (size_t)q->K * 2 * sizeof(float);
    if (gemm && isa->scratch_bytes(q, unit) > j.part) j.part = isa->scratch_bytes(q, unit);
    j.part = quant_round(j.part);
    size_t size = xq + leave + (size_t)threads * j.part;
    uint8_t *p = quant_scratch(stack, size);
    if (!p) return tni_fail_memory(size, "quantized_matmul's scratch");
    q->xq = p;
    q->leave = p + xq;
    j.scratch = p + xq + leave;
    int64_t nx = gemm ? q->tiles : q->M;
    tni_range_fn fx = gemm ? quant_job_x_tiles : quant_job_x_rows;
    if (x_small)
        fx(&j, 0, nx, 0);
    else
        tni_parallel(nx, 1, fx, &j);
    quant_share(&j, gemm ? quant_job_gemm : quant_job_gemv, unit,
                gemm ? 1 : QUANT_CHUNK / (4 * row + 1), small);
    for (int64_t m = 0; m < q->M; m++)
        if (q->leave[m]) {
            quant_float_rows(&j, q->leave);
            break;
        }
    quant_release(stack, p);
    return 0;
}

static int quant_float(tni_qmm *q, const tni_quant_isa *isa) {
    quant_job j = {.q = q, .isa = isa, .part = quant_round((size_t)q->K * 2 * sizeof(float))};
    size_t size = (size_t)tni_threads() * j.part;
    j.scratch = tni_scratch_take(size);
    if (!j.scratch) return tni_fail_memory(size, "quantized_matmul's scratch");
    quant_float_rows(&j, NULL);
    tni_scratch_give(j.scratch);
    return 0;
}

/* ---- w [K, N] packed along N ---- */

typedef struct quant_slab {
    const tni_qmm *q;
    const tni_quant_isa *isa;
    int64_t from;
    float *w;
} quant_slab;

static void quant_widen(void *ctx, int64_t begin, int64_t end, int worker) {
    const quant_slab *s = ctx;
    (void)worker;
    for (int64_t k = begin; k < end; k++)
        s->isa->widen(s->q, s->from + k, 0, s->q->N, s->w + k * s->q->N);
}

static void quant_narrow(const tni_qmm *q, const float *y) {
    for (int64_t m = 0; m < q->M; m++)
        tni_gemm_current()->narrow(q->y + m * q->y_row, quant_gemm_kind[q->x_kind], y + m * q->N,
                                   q->N);
}

/* A slab of w is widened and multiplied, after the others: whole blocks of the product's sums
 * (gemm.h), so that their number leaves no trace in the bits. */
static int quant_cols(const tni_qmm *q, const tni_quant_isa *isa) {
    const bool own = q->x_kind != TNI_QK_F32;
    const int64_t es = tni_q_size(q->x_kind), fit = QUANT_SLAB / q->N / TNI_GEMM_KC * TNI_GEMM_KC;
    int64_t rows = fit > TNI_GEMM_KC ? fit : TNI_GEMM_KC, grain = 1 + QUANT_CHUNK / (q->N + 1);
    if (rows > q->K) rows = q->K;
    size_t w = quant_round((size_t)(rows * q->N) * sizeof(float)),
           size = w + (own ? (size_t)(q->M * q->N) * sizeof(float) : 0);
    uint8_t *scratch = tni_scratch_take(size);
    if (!scratch) return tni_fail_memory(size, "quantized_matmul's scratch");
    float *y = own ? (float *)(scratch + w) : (float *)q->y;
    quant_slab s = {.q = q, .isa = isa, .w = (float *)scratch};
    tni_gemm g = {.m = q->M,
                  .n = q->N,
                  .batch = 1,
                  .a = {q->x, quant_gemm_kind[q->x_kind], q->x_row / es, q->x_elem / es},
                  .b = {s.w, TNI_GEMM_F32, q->N, 1},
                  .c = {y, TNI_GEMM_F32, q->N, 1}};
    int e = 0;
    for (; s.from < q->K && !e; s.from += rows) {
        g.k = q->K - s.from < rows ? q->K - s.from : rows;
        g.a.data = q->x + s.from * q->x_elem;
        g.add = s.from > 0;
        tni_parallel(g.k, grain, quant_widen, &s);
        e = tni_gemm_run(&g);
    }
    if (own && !e) quant_narrow(q, y);
    tni_scratch_give(scratch);
    return e;
}

/* Rows of x in blocks, so that scratch stays bounded. */
static int quant_run(const tni_qmm *whole, bool transpose) {
    const tni_quant_isa *isa = tni_cpu_quant_isa();
    const tni_qmm_mode mode = tni_cpu_qmm_mode();
    if (!transpose) return quant_cols(whole, isa);
    for (int64_t m = 0; m < whole->M; m += QUANT_M_BLOCK) {
        tni_qmm q = *whole;
        q.M = whole->M - m < QUANT_M_BLOCK ? whole->M - m : QUANT_M_BLOCK;
        q.x += m * q.x_row;
        q.y += m * q.y_row;
        q.planes = mode == TNI_QMM_INT8 ? 1 : 2;
        int e = mode == TNI_QMM_FLOAT ? quant_float(&q, isa) : quant_integer(&q, isa);
        if (e) return e;
    }
    return 0;
}

/* ---- quantized_matmul: the call ---- */

/* Bytes to batch element `i` of the output's leading axes in an operand that broadcasts. */
static int64_t quant_batch(const tni_view *v, const tni_view *out, int64_t i, int64_t size) {
    int64_t at = 0;
    for (int a = out->ndim - 3; a >= 0; a--) {
        int va = a + v->ndim - out->ndim;
        if (va >= 0 && v->shape[va] != 1) at += i % out->shape[a] * v->strides[va];
        i /= out->shape[a];
    }
    return at * size;
}

static bool quant_one_matrix(const tni_view *v) {
    for (int a = 0; a < v->ndim - 2; a++)
        if (v->shape[a] != 1 && v->strides[a] != 0) return false;
    return true;
}

/* Whether x's leading axes step evenly, so that they are one long axis of rows. */
static bool quant_even_rows(const tni_view *x, const tni_view *out) {
    if (x->ndim != out->ndim) return false;
    int64_t next = 0;
    for (int a = x->ndim - 2; a >= 0; a--) {
        if (x->shape[a] != out->shape[a]) return false;
        if (x->shape[a] == 1) continue;
        if (next && x->strides[a] != next) return false;
        next = x->strides[a] * x->shape[a];
        if (!next) return false;
    }
    return true;
}

static int64_t quant_step(const tni_view *v) {
    return v->ndim < 2 || v->shape[v->ndim - 2] == 1 ? 0 : v->strides[v->ndim - 2];
}

/* Fills a problem but for its pointers; checks the operands. */
static int quant_setup(const tni_call *c, tni_qmm *q) {
    const char *op = "quantized_matmul";
    const tni_p_quant *p = c->params;
    const tni_view *x = &c->in[0], *w = &c->in[1], *s = &c->in[2], *b = &c->in[3];
    const tni_view *y = &c->out[0];
    *q = (tni_qmm){.K = quant_last(x), .N = quant_last(y), .bits = p->bits, .group = p->group};
    q->x_kind = quant_kind(x->dtype);
    if (q->x_kind < 0 || y->dtype != x->dtype)
        return tni_fail(TN_EDTYPE,
                        "%s: x must be float32, float16 or bfloat16 and the result the "
                        "same, not %s and %s",
                        op, tn_dtype_name(x->dtype), tn_dtype_name(y->dtype));
    int64_t packed = p->transpose ? q->K : q->N, rows = p->transpose ? q->N : q->K;
    int e = quant_check_packed(op, p, w, s, b, packed);
    if (e) return e;
    const tni_view *three[3] = {w, s, b};
    for (int i = 0; i < 3; i++)
        if (three[i]->ndim < 2 || three[i]->shape[three[i]->ndim - 2] != rows)
            return tni_fail(TN_ESHAPE, "%s: weights, scales and biases need %lld rows", op,
                            (long long)rows);
    q->s_kind = quant_kind(s->dtype);
    q->b_kind = quant_kind(b->dtype);
    q->ng = packed / p->group;
    q->M = y->ndim < 2 ? 1 : y->shape[y->ndim - 2];
    q->w_row = quant_step(w) * 4;
    q->s_row = quant_step(s) * tni_q_size(q->s_kind);
    q->b_row = quant_step(b) * tni_q_size(q->b_kind);
    q->x_elem = x->strides[x->ndim - 1] * tni_q_size(q->x_kind);
    q->x_row = quant_step(x) * tni_q_size(q->x_kind);
    q->y_row = q->N * tni_q_size(q->x_kind);
    return 0;
}

/* A row-contiguous copy of v, whose last axis has gaps; strides must have room for ndim. */
static int quant_dense(tni_view *v, int64_t *strides, void **own) {
    *own = NULL;
    if (quant_last(v) == 1 || v->strides[v->ndim - 1] == 1) return 0;
    const int64_t es = (int64_t)tn_dtype_size(v->dtype), n = tni_view_size(v), last = quant_last(v);
    uint8_t *to = *own = tni_scratch_array((size_t)n, (size_t)es);
    if (!to) return tni_fail_memory((size_t)(n * es), "a dense copy of quantised weights");
    for (int64_t i = 0; i < n / last; i++) {
        const uint8_t *from = (const uint8_t *)v->data + quant_row(v, i) * es;
        for (int64_t k = 0; k < last; k++, to += es)
            memcpy(to, from + k * v->strides[v->ndim - 1] * es, (size_t)es);
    }
    int64_t step = 1;
    for (int a = v->ndim - 1; a >= 0; step *= v->shape[a--]) strides[a] = step;
    v->data = *own;
    v->strides = strides;
    return 0;
}

static int quant_batches(const tni_call *c, const tni_qmm *q) {
    const tni_view *x = &c->in[0], *y = &c->out[0];
    const tni_p_quant *p = c->params;
    tni_qmm one = *q;
    int64_t n = y->ndim < 2 ? 1 : tni_view_size(y) / (q->M * q->N);
    if (n > 1 && quant_one_matrix(&c->in[1]) && quant_one_matrix(&c->in[2]) &&
        quant_one_matrix(&c->in[3]) && quant_even_rows(x, y)) {
        int a = x->ndim - 2;
        while (a > 0 && x->shape[a] == 1) a--;
        one.x_row = x->strides[a] * tni_q_size(q->x_kind);
        one.M *= n;
        n = 1;
    }
    for (int64_t i = 0; i < n; i++) {
        one.x = (const uint8_t *)x->data + quant_batch(x, y, i, tni_q_size(q->x_kind));
        one.w = (const uint8_t *)c->in[1].data + quant_batch(&c->in[1], y, i, 4);
        one.s =
            (const uint8_t *)c->in[2].data + quant_batch(&c->in[2], y, i, tni_q_size(q->s_kind));
        one.b =
            (const uint8_t *)c->in[3].data + quant_batch(&c->in[3], y, i, tni_q_size(q->b_kind));
        one.y = (uint8_t *)y->data + i * q->M * q->y_row;
        int e = quant_run(&one, p->transpose != 0);
        if (e) return e;
    }
    return 0;
}

int tni_cpu_quantized_matmul(const tni_call *c) {
    int e = quant_check("quantized_matmul", c, 4, 1);
    if (e) return e;
    tni_view in[4] = {c->in[0], c->in[1], c->in[2], c->in[3]};
    tni_call dense = *c;
    int64_t strides[4][TN_MAX_NDIM];
    void *own[4] = {NULL};
    tni_qmm q;
    dense.in = in;
    for (int i = 1; i < 4 && !e; i++) e = quant_dense(&in[i], strides[i], &own[i]);
    if (!e) e = quant_setup(&dense, &q);
    if (!e) e = quant_batches(&dense, &q);
    for (int i = 1; i < 4; i++) tni_scratch_give(own[i]);
    return e;
}
