/* matmul(a, b): takes the views apart. Batch axes become one table of offsets an operand;
 * axes that both operands step through evenly need no table entries of their own, but batch
 * counts are small beside the work, so every case goes through the table. */
#include "cpu/cpu_matmul.h"
#include "base/err.h"
#include "base/scratch.h"
#include "cpu/gemm.h"

enum { MATMUL_STACK = 64 }; /* batches whose offsets need no allocation */

static int matmul_kind(tn_dtype d) {
    switch (d) {
    case TN_F32:
        return TNI_GEMM_F32;
    case TN_F16:
        return TNI_GEMM_F16;
    case TN_BF16:
        return TNI_GEMM_BF16;
    case TN_F64:
        return TNI_GEMM_F64;
    case TN_C64:
        return TNI_GEMM_C64;
    default:
        return -1;
    }
}

static tni_gemm_mat matmul_mat(const tni_view *v) {
    return (tni_gemm_mat){v->data, matmul_kind(v->dtype), v->strides[v->ndim - 2],
                          v->strides[v->ndim - 1]};
}

static bool matmul_reads(tn_dtype in, tn_dtype out) {
    return in == out || (out == TN_F32 && (in == TN_F16 || in == TN_BF16));
}

/* at[i]: offset of the i-th matrix of v, batch axes of `shape` counted in row order. */
static void matmul_offsets(const tni_view *v, const int64_t *shape, int64_t n, int64_t *at) {
    int64_t index[TN_MAX_NDIM] = {0}, o = 0;
    for (int64_t i = 0; i < n; i++) {
        at[i] = o;
        for (int d = v->ndim - 3; d >= 0; d--) {
            o += v->strides[d];
            if (++index[d] < shape[d]) break;
            o -= index[d] * v->strides[d];
            index[d] = 0;
        }
    }
}

/* Rows of a that share one b (b broadcast, a evenly stacked) are one taller product. */
static void matmul_stack(tni_gemm *g, const tni_call *c) {
    const tni_view *a = &c->in[0], *b = &c->in[1], *o = &c->out[0];
    int64_t m = g->m;
    for (int d = o->ndim - 3; d >= 0; d--) {
        if (o->shape[d] == 1) continue;
        if (b->strides[d] != 0 || (m != 1 && a->strides[d] != m * g->a.rs)) return;
        if (m == 1) g->a.rs = a->strides[d];
        m *= o->shape[d];
    }
    g->m = m;
    g->batch = 1;
}

int tni_cpu_matmul(const tni_call *c) {
    const tni_view *a = &c->in[0], *b = &c->in[1], *o = &c->out[0];
    int kind = c->n_in == 2 && c->n_out == 1 ? matmul_kind(o->dtype) : -1;
    if (kind < 0 || !matmul_reads(a->dtype, o->dtype) || !matmul_reads(b->dtype, o->dtype))
        return tni_fail(TN_EDTYPE, "matmul: no kernel for these dtypes");
    if (o->ndim < 2 || a->ndim != o->ndim || b->ndim != o->ndim)
        return tni_fail(TN_ESHAPE, "matmul: operands of %d and %d axes for a result of %d", a->ndim,
                        b->ndim, o->ndim);
    int nd = o->ndim;
    tni_gemm g = {.m = o->shape[nd - 2],
                  .n = o->shape[nd - 1],
                  .k = a->shape[nd - 1],
                  .batch = 1,
                  .a = matmul_mat(a),
                  .b = matmul_mat(b)};
    g.c = (tni_gemm_mat){o->data, kind, g.n, 1};
    for (int d = 0; d < nd - 2; d++) g.batch *= o->shape[d];
    if (g.batch > 1) matmul_stack(&g, c);
    if (g.batch <= 1) return tni_gemm_run(&g);
    int64_t few[3 * MATMUL_STACK], *at = few;
    if (g.batch > MATMUL_STACK) at = tni_scratch_array((size_t)g.batch, 3 * sizeof *at);
    if (!at) return tni_fail_memory((size_t)g.batch * 3 * sizeof *at, "matmul's batch offsets");
    matmul_offsets(a, o->shape, g.batch, at);
    matmul_offsets(b, o->shape, g.batch, at + g.batch);
    matmul_offsets(o, o->shape, g.batch, at + 2 * g.batch);
    g.a_at = at;
    g.b_at = at + g.batch;
    g.c_at = at + 2 * g.batch;
    int rc = tni_gemm_run(&g);
    if (at != few) tni_scratch_give(at);
    return rc;
}
