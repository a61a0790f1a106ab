/* Fused programs: random programs of every op, dtype, layout and size against an evaluation
 * of one element at a time with the scalar kernels, on every ISA this machine has, with one
 * thread and with several; reductions against the order that cpu_reduce.c promises. */
#include "base/alloc.h"
#include "base/thread.h"
#include "cpu/cpu_program.h"
#include "isas.h"
#include "random.h"
#include "rows.h"
#include "tap.h"
#include "tenon/status.h"
#include <math.h>
#include <stdlib.h>

/* ---- Buffers: an operand's memory with room around it that must not change ------------------ */

enum { GUARD = 256 };
typedef struct buf {
    char *mem;
    size_t bytes;
    char *zero; /* element 0 */
} buf;

/* The extent of a strided operand, in elements below and above element 0. */
static void extent(const tni_program *p, const int64_t *strides, int64_t *lo, int64_t *hi) {
    *lo = *hi = 0;
    for (int d = 0; d < p->ndim; d++) {
        if (p->shape[d] == 0) continue;
        int64_t e = (p->shape[d] - 1) * strides[d];
        if (e < 0)
            *lo += e;
        else
            *hi += e;
    }
}

static buf buf_new(const tni_program *p, const int64_t *strides, size_t size) {
    int64_t lo, hi;
    extent(p, strides, &lo, &hi);
    buf b;
    b.bytes = (size_t)(hi - lo + 1) * size + 2 * GUARD;
    b.mem = malloc(b.bytes);
    memset(b.mem, 0xa5, b.bytes);
    b.zero = b.mem + GUARD + (size_t)(-lo) * size;
    return b;
}

/* Values that exercise every branch: small numbers, specials, wide magnitudes. */
static double value_any(tn_dtype d) {
    static const double special[] = {0.0,  -0.0,  1.0,    -1.0,    0.5,  2.0, 3.0,
                                     -7.0, 100.0, -128.0, 65504.0, 1e-8, 1e9, -1e20};
    switch (below(d >= TN_F16 ? 12 : 8)) {
    case 0:
        return special[below(14)];
    case 10:
        return below(2) ? INFINITY : -INFINITY;
    case 11:
        return below(2) ? (double)NAN : 1e-42;
    default:
        return (double)(int64_t)(rnd() >> 40) / 1048576.0 - 8.0;
    }
}

static void put(const tni_vm_isa *ref, tn_dtype d, void *dst, double v) {
    double box[2] = {v, 0};
    char cls[16];
    enum tni_cls c = tni_cls_of(d);
    ref->cast[TNI_CLS_F64][c](1, cls, box);
    if (c == TNI_CLS_C64) ((float *)cls)[1] = (float)value_any(TN_F32);
    if (ref->round[d]) ref->round[d](1, cls, cls);
    if (ref->store[d])
        ref->store[d](1, dst, cls);
    else
        memcpy(dst, cls, tni_cls_size(c));
}

static void buf_random(const tni_vm_isa *ref, buf *b, tn_dtype d) {
    size_t size = tn_dtype_size(d);
    for (size_t i = GUARD; i + GUARD + size <= b->bytes; i += size)
        put(ref, d, b->mem + i, value_any(d));
}

/* ---- Random programs ------------------------------------------------------------------------ */

static tn_dtype any_dtype(int style) {
    static const tn_dtype floats[] = {TN_F32, TN_F32, TN_F32, TN_F16, TN_BF16, TN_BOOL};
    if (style == 0) return floats[below(6)];
    return (tn_dtype)below(TN_DTYPE_COUNT);
}

static tn_dtype op_result(int e, tn_dtype operand);

static void random_strides(const tni_program *p, int64_t *strides, bool output, uint32_t reduced) {
    int order[TN_MAX_NDIM];
    int64_t step = below(4) == 0 && !output ? 2 : 1;
    for (int d = 0; d < p->ndim; d++) order[d] = d;
    if (below(3) == 0)
        for (int d = p->ndim - 1; d > 0; d--) {
            int k = (int)below(d + 1), t = order[d];
            order[d] = order[k];
            order[k] = t;
        }
    for (int i = p->ndim - 1; i >= 0; i--) {
        int d = order[i];
        strides[d] = step;
        if (reduced >> d & 1)
            strides[d] = 0;
        else
            step *= p->shape[d];
        if (!output && below(6) == 0) strides[d] = 0;
        if (!output && below(8) == 0) strides[d] = -strides[d];
    }
}

static void random_shape(tni_program *p, int64_t limit) {
    p->ndim = (uint8_t)(1 + below(4));
    int64_t total = 1;
    for (int d = 0; d < p->ndim; d++) {
        int64_t most = d == p->ndim - 1 && below(2) ? limit / total : 1 + below(12);
        p->shape[d] = 2 + below(most > 1 ? most : 1);
        total *= p->shape[d];
    }
    if (below(12) == 0) p->ndim = 1, p->shape[0] = 1;
}

static int find_value(const tni_program *p, tn_dtype d) {
    for (int tries = 0; tries < 20; tries++) {
        int v = (int)below(p->n_inst);
        if (p->inst[v].dtype == d) return v;
    }
    return -1;
}

static int add_inst(tni_program *p, int op, tn_dtype d, int a, int b, int c) {
    tni_inst *i = &p->inst[p->n_inst];
    memset(i, 0, sizeof *i);
    i->op = (uint16_t)op;
    i->dtype = (uint8_t)d;
    i->a = (uint16_t)a;
    i->b = (uint16_t)b;
    i->c = (uint16_t)c;
    return p->n_inst++;
}

static tn_dtype op_result(int e, tn_dtype operand) {
    switch (rows[e].dom) {
    case CMP:
    case TEST:
    case LOG:
        return TN_BOOL;
    case RE:
        return operand == TN_C64 ? TN_F32 : operand;
    default:
        return operand;
    }
}

static void random_op(tni_program *p, const tni_vm_isa *ref) {
    int e = (int)below(TNI_EW_COUNT), a = (int)below(p->n_inst);
    if (rows[e].arity == 3) {
        int cond = find_value(p, TN_BOOL), c = find_value(p, (tn_dtype)p->inst[a].dtype);
        if (cond >= 0 && c >= 0)
            add_inst(p, TNI_INST_EW + e, (tn_dtype)p->inst[a].dtype, cond, a, c);
        return;
    }
    tn_dtype d = (tn_dtype)p->inst[a].dtype;
    if (!ref->ew[tni_cls_of(d)][e]) return;
    int b = rows[e].arity == 2 ? find_value(p, d) : 0;
    if (b >= 0) add_inst(p, TNI_INST_EW + e, op_result(e, d), a, b, 0);
}

static void random_program(tni_program *p, const tni_vm_isa *ref, int style, int64_t limit) {
    memset(p, 0, sizeof *p);
    random_shape(p, limit);
    int n_in = 1 + (int)below(4), n_ops = 1 + (int)below(style == 2 ? 40 : 12);
    p->n_in = (uint16_t)n_in;
    for (int i = 0; i < n_in; i++) {
        p->in[i].dtype = any_dtype(style);
        random_strides(p, p->in[i].strides, false, 0);
        add_inst(p, TNI_INST_LOAD, p->in[i].dtype, i, 0, 0);
    }
    while (n_ops-- > 0 && p->n_inst < TNI_PROG_MAX_INST - 2) {
        if (below(6) == 0)
            add_inst(p, TNI_INST_CAST, any_dtype(style), (int)below(p->n_inst), 0, 0);
        else if (below(8) == 0) {
            tn_dtype d = any_dtype(style);
            int k = add_inst(p, TNI_INST_CONST, d, 0, 0, 0);
            double v = value_any(TN_F32);
            enum tni_cls c = tni_cls_of(d);
            if (c == TNI_CLS_F32 || c == TNI_CLS_F64)
                p->inst[k].imm.f = v;
            else if (c == TNI_CLS_C64)
                p->inst[k].imm.c[0] = (float)v, p->inst[k].imm.c[1] = 2;
            else if (c == TNI_CLS_B)
                p->inst[k].imm.i = below(2);
            else
                p->inst[k].imm.i = below(100);
        } else
            random_op(p, ref);
    }
    p->n_out = (uint16_t)(1 + (below(3) == 0 ? below(3) : 0));
    for (int o = 0; o < p->n_out; o++) {
        int v = o == 0 ? p->n_inst - 1 : (int)below(p->n_inst);
        p->out[o].value = (uint16_t)v;
        p->out[o].dtype = (tn_dtype)p->inst[v].dtype;
        random_strides(p, p->out[o].strides, true, 0);
    }
}

/* ---- The reference: one element at a time
 * -------------------------------------------------------- */

static void eval_inst(const tni_vm_isa *ref, const tni_program *p, int at, char (*v)[16],
                      const char *const *in, const int64_t *idx) {
    const tni_inst *i = &p->inst[at];
    tn_dtype d = (tn_dtype)i->dtype;
    if (i->op == TNI_INST_LOAD) {
        int64_t off = 0;
        for (int k = 0; k < p->ndim; k++) off += idx[k] * p->in[i->a].strides[k];
        const char *src = in[i->a] + off * (int64_t)tn_dtype_size(d);
        if (ref->load[d])
            ref->load[d](1, v[at], src);
        else
            memcpy(v[at], src, tn_dtype_size(d));
    } else if (i->op == TNI_INST_CONST) {
        float f = (float)i->imm.f;
        switch (tni_cls_of(d)) {
        case TNI_CLS_F32:
            memcpy(v[at], &f, 4);
            break;
        case TNI_CLS_B:
            v[at][0] = i->imm.i != 0;
            break;
        default:
            memcpy(v[at], &i->imm, 8);
            break;
        }
    } else if (i->op == TNI_INST_CAST) {
        tn_dtype from = (tn_dtype)p->inst[i->a].dtype;
        bool odd = from == TN_F64 && (d == TN_F16 || d == TN_BF16);
        (odd ? ref->narrow_f64 : ref->cast[tni_cls_of(from)][tni_cls_of(d)])(1, v[at], v[i->a]);
    } else {
        int e = i->op - TNI_INST_EW;
        tn_dtype operand = (tn_dtype)p->inst[rows[e].arity == 3 ? i->b : i->a].dtype;
        ref->ew[tni_cls_of(operand)][e](1, v[at], v[i->a], v[i->b], v[i->c]);
    }
    if (ref->round[d]) ref->round[d](1, v[at], v[at]);
}

static int64_t flat_offset(const tni_program *p, const int64_t *strides, const int64_t *idx) {
    int64_t off = 0;
    for (int d = 0; d < p->ndim; d++) off += idx[d] * strides[d];
    return off;
}

static bool next_index(const tni_program *p, int64_t *idx) {
    for (int d = p->ndim - 1; d >= 0; d--) {
        if (++idx[d] < p->shape[d]) return true;
        idx[d] = 0;
    }
    return false;
}

static void eval_program(const tni_vm_isa *ref, const tni_program *p, const char *const *in,
                         char *const *out) {
    int64_t idx[TN_MAX_NDIM] = {0};
    static char v[TNI_PROG_MAX_INST][16];
    do {
        for (int i = 0; i < p->n_inst; i++) eval_inst(ref, p, i, v, in, idx);
        for (int o = 0; o < p->n_out; o++) {
            tn_dtype d = p->out[o].dtype;
            char *dst = out[o] + flat_offset(p, p->out[o].strides, idx) * (int64_t)tn_dtype_size(d);
            if (ref->store[d])
                ref->store[d](1, dst, v[p->out[o].value]);
            else
                memcpy(dst, v[p->out[o].value], tn_dtype_size(d));
        }
    } while (next_index(p, idx));
}

/* Same bits, where a NaN equals any NaN. */
static bool same(tn_dtype d, const char *a, const char *b) {
    size_t n = tn_dtype_size(d);
    if (!memcmp(a, b, n)) return true;
    if (d == TN_C64) return same(TN_F32, a, b) && same(TN_F32, a + 4, b + 4);
    if (d < TN_F16) return false;
    if (d == TN_F64) {
        double x, y;
        memcpy(&x, a, 8);
        memcpy(&y, b, 8);
        return x != x && y != y;
    }
    uint32_t x = 0, y = 0, inf = d == TN_F32 ? 0x7f800000u : d == TN_F16 ? 0x7c00u : 0x7f80u;
    uint32_t mask = d == TN_F32 ? 0x7fffffffu : 0x7fffu;
    memcpy(&x, a, n);
    memcpy(&y, b, n);
    return (x & mask) > inf && (y & mask) > inf;
}

static bool same_buf(const buf *a, const buf *b, tn_dtype d) {
    size_t size = tn_dtype_size(d);
    if (memcmp(a->mem, b->mem, GUARD)) return false;
    for (size_t i = GUARD; i + GUARD < a->bytes; i += size)
        if (!same(d, a->mem + i, b->mem + i)) return false;
    return !memcmp(a->mem + a->bytes - GUARD, b->mem + a->bytes - GUARD, GUARD);
}

static void print_program(const tni_program *p) {
    printf("# shape");
    for (int d = 0; d < p->ndim; d++) printf(" %lld", (long long)p->shape[d]);
    if (p->reduce) printf(" reduce %d mask %x", p->reduce, p->reduce_mask);
    printf("\n");
    for (int i = 0; i < p->n_in; i++) {
        printf("#  in%d %s:", i, tn_dtype_name(p->in[i].dtype));
        for (int d = 0; d < p->ndim; d++) printf(" %lld", (long long)p->in[i].strides[d]);
        printf("\n");
    }
    for (int i = 0; i < p->n_inst; i++) {
        int op = p->inst[i].op;
        printf("#  %d = %s.%s %d %d %d  (%g)\n", i,
               op >= TNI_INST_EW ? rows[op - TNI_INST_EW].name
               : op == 0         ? "load"
               : op == 1         ? "const"
                                 : "cast",
               tn_dtype_name((tn_dtype)p->inst[i].dtype), p->inst[i].a, p->inst[i].b, p->inst[i].c,
               p->inst[i].imm.f);
    }
    for (int o = 0; o < p->n_out; o++) {
        printf("#  out%d = %d:", o, p->out[o].value);
        for (int d = 0; d < p->ndim; d++) printf(" %lld", (long long)p->out[o].strides[d]);
        printf("\n");
    }
}

static int failures;

static void check_program(const tni_program *p, const char *what) {
    const tni_vm_isa *ref = isas[0];
    buf in[TNI_PROG_MAX_IN], want[TNI_PROG_MAX_OUT];
    const void *pin[TNI_PROG_MAX_IN];
    void *pout[TNI_PROG_MAX_OUT];
    for (int i = 0; i < p->n_in; i++) {
        in[i] = buf_new(p, p->in[i].strides, tn_dtype_size(p->in[i].dtype));
        buf_random(ref, &in[i], p->in[i].dtype);
        pin[i] = in[i].zero;
    }
    for (int o = 0; o < p->n_out; o++) {
        want[o] = buf_new(p, p->out[o].strides, tn_dtype_size(p->out[o].dtype));
        pout[o] = want[o].zero;
    }
    eval_program(ref, p, (const char *const *)pin, (char *const *)pout);
    for (int k = 0; k < n_isas; k++) {
        buf got[TNI_PROG_MAX_OUT];
        for (int o = 0; o < p->n_out; o++) {
            got[o] = buf_new(p, p->out[o].strides, tn_dtype_size(p->out[o].dtype));
            pout[o] = got[o].zero;
        }
        int err = tni_cpu_run_isa(isas[k], p, pin, pout);
        for (int o = 0; o < p->n_out; o++) {
            if ((err || !same_buf(&got[o], &want[o], p->out[o].dtype)) && failures++ < 5) {
                ok(0, "%s: %s output %d (status %d)", what, isas[k]->name, o, err);
                print_program(p);
            }
            free(got[o].mem);
        }
    }
    for (int i = 0; i < p->n_in; i++) free(in[i].mem);
    for (int o = 0; o < p->n_out; o++) free(want[o].mem);
}

static void test_random(int style, int count, int64_t limit, const char *what) {
    failures = 0;
    for (int i = 0; i < count; i++) {
        tni_program p;
        random_program(&p, isas[0], style, limit);
        check_program(&p, what);
    }
    ok(failures == 0, "%d random programs: %s", count, what);
}

/* Every op with every class it has, contiguous, at sizes around tile ends. */
static void test_every_op(void) {
    static const int64_t sizes[] = {1, 2, 7, 31, 64, 65, 127, 128, 129, 511, 513, 1025};
    failures = 0;
    int ops = 0;
    for (int e = 0; e < TNI_EW_COUNT; e++)
        for (int d = 0; d < TN_DTYPE_COUNT; d++) {
            if (!isas[0]->ew[tni_cls_of((tn_dtype)d)][e]) continue;
            tni_program p;
            memset(&p, 0, sizeof p);
            p.ndim = 1;
            p.shape[0] = sizes[below(12)];
            p.n_in = (uint16_t)rows[e].arity;
            for (int i = 0; i < p.n_in; i++) {
                p.in[i].dtype = i == 0 && rows[e].arity == 3 ? TN_BOOL : (tn_dtype)d;
                p.in[i].strides[0] = 1;
                add_inst(&p, TNI_INST_LOAD, p.in[i].dtype, i, 0, 0);
            }
            p.out[0].value =
                (uint16_t)add_inst(&p, TNI_INST_EW + e, op_result(e, (tn_dtype)d), 0, 1, 2);
            p.out[0].dtype = op_result(e, (tn_dtype)d);
            p.out[0].strides[0] = 1;
            p.n_out = 1;
            check_program(&p, rows[e].name);
            ops++;
        }
    ok(failures == 0, "%d ops x dtypes", ops);
}

/* ---- Reductions: the promised order
 * ------------------------------------------------------------------ */

static void red_reference(const tni_vm_isa *ref, const tni_red_fns *f, size_t size, const char *x,
                          int64_t n, void *result) {
    int64_t blocks = (n + TNI_BLOCK - 1) / TNI_BLOCK;
    char *states = calloc((size_t)blocks + 1, f->size);
    (void)ref;
    f->init(1, states);
    for (int64_t b = 0; b < blocks; b++) {
        char parts[64][16];
        for (int j = 0; j < 64; j++) f->init(1, parts[j]);
        int64_t end = (b + 1) * TNI_BLOCK < n ? (b + 1) * TNI_BLOCK : n;
        for (int64_t i = b * TNI_BLOCK; i < end; i++)
            f->col(1, parts[i % 64], x + (size_t)i * size, i);
        for (int h = 32; h; h /= 2)
            for (int j = 0; j < h; j++) f->merge(1, parts[j], parts[j + h]);
        memcpy(states + (size_t)b * f->size, parts[0], f->size);
    }
    for (int64_t step = 1; step < blocks; step *= 2)
        for (int64_t i = 0; i + step < blocks; i += 2 * step)
            f->merge(1, states + (size_t)i * f->size, states + (size_t)(i + step) * f->size);
    f->finish(1, result, states);
    free(states);
}

/* Results of one reduction over `idx`-ordered reduced dimensions, output by output. */
static void eval_reduce(const tni_vm_isa *ref, const tni_program *p, const char *const *in,
                        char *out) {
    tn_dtype vd = (tn_dtype)p->inst[p->out[0].value].dtype, od = p->out[0].dtype;
    const tni_red_fns *f = &ref->red(p->reduce)[tni_cls_of(vd)];
    size_t size = tni_cls_size(tni_cls_of(vd));
    int64_t n = 1;
    for (int d = 0; d < p->ndim; d++)
        if (p->reduce_mask >> d & 1) n *= p->shape[d];
    char *x = malloc((size_t)n * size + 16);
    static char v[TNI_PROG_MAX_INST][16];
    tni_program kept = *p, reduced = *p;
    int64_t ko[TN_MAX_NDIM] = {0};
    for (int d = 0; d < p->ndim; d++) {
        if (p->reduce_mask >> d & 1)
            kept.shape[d] = 1;
        else
            reduced.shape[d] = 1;
    }
    do {
        int64_t ri[TN_MAX_NDIM] = {0}, at = 0;
        if (n) do {
                int64_t idx[TN_MAX_NDIM];
                for (int d = 0; d < p->ndim; d++) idx[d] = ko[d] + ri[d];
                for (int i = 0; i < p->n_inst; i++) eval_inst(ref, p, i, v, in, idx);
                memcpy(x + (size_t)at++ * size, v[p->out[0].value], size);
            } while (next_index(&reduced, ri));
        char result[16];
        red_reference(ref, f, size, x, n, result);
        char *dst = out + flat_offset(p, p->out[0].strides, ko) * (int64_t)tn_dtype_size(od);
        if (ref->store[od])
            ref->store[od](1, dst, result);
        else
            memcpy(dst, result, tn_dtype_size(od));
    } while (next_index(&kept, ko));
    free(x);
}

static tn_dtype red_dtype(int red, tn_dtype d) {
    switch (red) {
    case TNI_RED_sum:
    case TNI_RED_prod:
        return d == TN_BOOL || d == TN_I8 || d == TN_I16 ? TN_I32
               : d == TN_U8 || d == TN_U16               ? TN_U32
                                                         : d;
    case TNI_RED_argmin:
    case TNI_RED_argmax:
        return TN_U32;
    default:
        return d;
    }
}

/* logsumexp joins a row in another way than columns join; only its value is promised. */
static bool close_enough(tn_dtype d, const char *a, const char *b) {
    if (same(d, a, b)) return true;
    float x, y;
    double u, w;
    if (d == TN_F64) {
        memcpy(&u, a, 8);
        memcpy(&w, b, 8);
        return fabs(u - w) <= 1e-13 * fabs(w) + 1e-13;
    }
    tni_vm_ref()->load[TN_BOOL](0, &x, a);
    if (d != TN_F32) {
        tni_vm_ref()->load[d](1, &x, a);
        tni_vm_ref()->load[d](1, &y, b);
        return fabsf(x - y) <= 0.01f * fabsf(y) + 0.01f;
    }
    memcpy(&x, a, 4);
    memcpy(&y, b, 4);
    return fabsf(x - y) <= 1e-5f * fabsf(y) + 1e-6f;
}

static void check_reduce(const tni_program *p, const char *what) {
    const tni_vm_isa *ref = isas[0];
    buf in[TNI_PROG_MAX_IN], want, first = {0};
    const void *pin[TNI_PROG_MAX_IN];
    tn_dtype d = p->out[0].dtype;
    for (int i = 0; i < p->n_in; i++) {
        in[i] = buf_new(p, p->in[i].strides, tn_dtype_size(p->in[i].dtype));
        buf_random(ref, &in[i], p->in[i].dtype);
        pin[i] = in[i].zero;
    }
    want = buf_new(p, p->out[0].strides, tn_dtype_size(d));
    eval_reduce(ref, p, (const char *const *)pin, want.zero);
    for (int k = 0; k < n_isas; k++) {
        buf got = buf_new(p, p->out[0].strides, tn_dtype_size(d));
        void *pout[1] = {got.zero};
        int err = tni_cpu_run_isa(isas[k], p, pin, pout);
        bool good = !err;
        if (p->reduce == TNI_RED_logsumexp) {
            for (size_t i = 0; i < got.bytes; i += tn_dtype_size(d))
                good = good && close_enough(d, got.mem + i, want.mem + i);
            if (k > 0) good = good && same_buf(&got, &first, d);
        } else
            good = good && same_buf(&got, &want, d);
        if (!good && failures++ < 5) {
            ok(0, "%s: %s (status %d)", what, isas[k]->name, err);
            print_program(p);
        }
        if (k == 0)
            first = got;
        else
            free(got.mem);
    }
    free(first.mem);
    free(want.mem);
    for (int i = 0; i < p->n_in; i++) free(in[i].mem);
}

static void test_reduce(int style, int count, int64_t limit, const char *what) {
    failures = 0;
    for (int i = 0; i < count; i++) {
        tni_program p;
        random_program(&p, isas[0], style, limit);
        if (below(2)) { /* a plain load: kernels read the operand itself */
            p.n_in = 1;
            p.n_inst = 1;
        }
        p.n_out = 1;
        p.reduce = (uint8_t)(1 + below(TNI_RED_COUNT - 1));
        p.reduce_mask = (uint32_t)(1 + below((1 << p.ndim) - 1));
        int v = p.n_inst - 1;
        if (p.reduce == TNI_RED_all || p.reduce == TNI_RED_any)
            v = add_inst(&p, TNI_INST_CAST, TN_BOOL, v, 0, 0);
        p.out[0].value = (uint16_t)v;
        if (!isas[0]->red(p.reduce)[tni_cls_of((tn_dtype)p.inst[v].dtype)].size) continue;
        p.out[0].dtype = red_dtype(p.reduce, (tn_dtype)p.inst[v].dtype);
        random_strides(&p, p.out[0].strides, true, p.reduce_mask);
        if (below(40) == 0)
            for (int d = 0; d < p.ndim; d++)
                if (p.reduce_mask >> d & 1) p.shape[d] = 0;
        check_reduce(&p, what);
    }
    ok(failures == 0, "%d random reductions: %s", count, what);
}

/* ---- Aliasing, memory, bad programs
 * -------------------------------------------------------------------- */

static void chain_program(tni_program *p, int64_t n, tn_dtype d) {
    memset(p, 0, sizeof *p);
    p->ndim = 1;
    p->shape[0] = n;
    p->n_in = 2;
    for (int i = 0; i < 2; i++) {
        p->in[i].dtype = d;
        p->in[i].strides[0] = 1;
        add_inst(p, TNI_INST_LOAD, d, i, 0, 0);
    }
    add_inst(p, TNI_INST_EW + TNI_EW_mul, d, 0, 1, 0);
    add_inst(p, TNI_INST_EW + TNI_EW_tanh, d, 2, 0, 0);
    p->n_out = 1;
    p->out[0].value = (uint16_t)add_inst(p, TNI_INST_EW + TNI_EW_add, d, 3, 0, 0);
    p->out[0].dtype = d;
    p->out[0].strides[0] = 1;
}

static void test_in_place(void) {
    for (int k = 0; k < n_isas; k++) {
        int64_t n = 100003;
        tni_program p;
        chain_program(&p, n, TN_F32);
        float *a = malloc((size_t)n * 4), *b = malloc((size_t)n * 4), *y = malloc((size_t)n * 4);
        for (int64_t i = 0; i < n; i++) a[i] = (float)(i % 17) - 8, b[i] = (float)(i % 5) / 3;
        const void *in[2] = {a, b};
        void *out[1] = {y};
        int err = tni_cpu_run_isa(isas[k], &p, in, out);
        out[0] = a;
        err |= tni_cpu_run_isa(isas[k], &p, in, out);
        ok(!err && !memcmp(a, y, (size_t)n * 4), "%s: in place", isas[k]->name);
        free(a);
        free(b);
        free(y);
    }
}

static void test_threads(void) {
    int64_t n = 3000017;
    tni_program p;
    chain_program(&p, n, TN_F32);
    float *a = malloc((size_t)n * 4), *b = malloc((size_t)n * 4), *y1 = malloc((size_t)n * 4),
          *y2 = malloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++) a[i] = (float)(i % 1717) / 100 - 8, b[i] = (float)(i % 5) / 3;
    const void *in[2] = {a, b};
    void *o1[1] = {y1}, *o2[1] = {y2};
    int err =
        tni_set_threads(1) | tni_cpu_run(&p, in, o1) | tni_set_threads(4) | tni_cpu_run(&p, in, o2);
    ok(!err && !memcmp(y1, y2, (size_t)n * 4), "1 and 4 threads: element-wise");
    static const struct {
        int ndim;
        int64_t shape[3];
        uint32_t mask;
    } cases[] = {{1, {3000017}, 1},       {2, {3000, 1000}, 1},    {2, {3000, 1000}, 2},
                 {3, {100, 300, 100}, 5}, {3, {100, 300, 100}, 2}, {2, {1000000, 3}, 1},
                 {2, {3, 1000000}, 2}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int red = 1; red < TNI_RED_COUNT; red++) {
            if (red == TNI_RED_all || red == TNI_RED_any) continue;
            tni_program q = p;
            q.ndim = (uint8_t)cases[c].ndim;
            q.reduce = (uint8_t)red;
            q.reduce_mask = cases[c].mask;
            q.out[0].dtype = red_dtype(red, TN_F32);
            int64_t step = 1, ostep = 1;
            for (int d = q.ndim - 1; d >= 0; d--) {
                q.shape[d] = cases[c].shape[d];
                q.in[0].strides[d] = q.in[1].strides[d] = step;
                q.out[0].strides[d] = cases[c].mask >> d & 1 ? 0 : ostep;
                step *= q.shape[d];
                if (!(cases[c].mask >> d & 1)) ostep *= q.shape[d];
            }
            err = tni_set_threads(1) | tni_cpu_run(&q, in, o1) | tni_set_threads(4) |
                  tni_cpu_run(&q, in, o2);
            if (err || memcmp(y1, y2, (size_t)ostep * 4))
                ok(0, "1 and 4 threads: reduction %d case %zu", red, c);
        }
    ok(1, "1 and 4 threads: reductions");
    err = tni_set_threads(0);
    free(a);
    free(b);
    free(y1);
    free(y2);
}

/* More than the caches hold: streaming stores and prefetches, against small pieces of the same. */
static void test_large(void) {
    enum { PIECE = 40000 };
    int64_t n = 4500003;
    float *a = malloc((size_t)n * 4), *b = malloc((size_t)n * 4), *y = malloc((size_t)n * 4),
          *z = malloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++) a[i] = (float)(i % 1717) / 100 - 8, b[i] = (float)(i % 5) / 3;
    for (int k = 0; k < n_isas; k++) {
        tni_program p;
        chain_program(&p, n, TN_F32);
        const void *in[2] = {a, b};
        void *out[1] = {y};
        memset(y, 0xa5, (size_t)n * 4);
        int err = tni_cpu_run_isa(isas[k], &p, in, out);
        for (int64_t at = 0; at < n && !err; at += PIECE) {
            p.shape[0] = n - at < PIECE ? n - at : PIECE;
            in[0] = a + at, in[1] = b + at, out[0] = z + at;
            err = tni_cpu_run_isa(isas[k], &p, in, out);
        }
        ok(!err && !memcmp(y, z, (size_t)n * 4), "%s: larger than the caches", isas[k]->name);
    }
    free(a);
    free(b);
    free(y);
    free(z);
}

static void test_no_memory(void) {
    for (int reduce = 0; reduce < 2; reduce++) {
        tni_program p;
        int64_t n = 300000;
        chain_program(&p, n, TN_F16);
        p.reduce = reduce ? TNI_RED_sum : TNI_RED_NONE;
        p.reduce_mask = (uint32_t)reduce;
        uint16_t *a = calloc((size_t)n, 2), *y = calloc((size_t)n, 2);
        const void *in[2] = {a, a};
        void *out[1] = {y};
        (void)tni_cpu_run(&p, in, out); /* the pool's own allocations are not under test */
        int64_t live = tni_alloc_live();
        bool good = true;
        int at = 1;
        for (;; at++) {
            tni_fail_alloc_at(at);
            int err = tni_cpu_run(&p, in, out);
            tni_fail_alloc_at(0);
            if (!err) break;
            good = good && err == TN_EMEMORY && tni_alloc_live() == live;
        }
        bool none = !reduce && tni_threads() == 1; /* one thread's scratch is its stack */
        ok(good && (at > 1 || none), "%d allocations fail cleanly", at - 1);
        free(a);
        free(y);
    }
}

static void test_malformed(void) {
    tni_program p, good;
    chain_program(&good, 16, TN_F32);
    float a[16] = {0}, y[16];
    const void *in[2] = {a, a};
    void *out[1] = {y};
    p = good;
    p.inst[2].b = 7;
    is_i64(tni_cpu_run(&p, in, out), TN_EINTERNAL, "operand out of order");
    p = good;
    p.inst[3].op = 60000;
    is_i64(tni_cpu_run(&p, in, out), TN_EINTERNAL, "unknown instruction");
    p = good;
    p.inst[2].op = TNI_INST_EW + TNI_EW_bitwise_and;
    is_i64(tni_cpu_run(&p, in, out), TN_EINTERNAL, "bits of floats");
    p = good;
    p.ndim = 0;
    is_i64(tni_cpu_run(&p, in, out), TN_EINTERNAL, "no dimensions");
    is_i64(tni_cpu_run(&good, in, out), 0, "and the program itself runs");
}

int main(int argc, char **argv) {
    int scale = argc > 1 ? atoi(argv[1]) : 1;
    if (argc > 2) rng_state = strtoull(argv[2], NULL, 0);
    find_isas();
    test_every_op();
    test_random(0, 600 * scale, 3000, "floats");
    test_random(1, 600 * scale, 2000, "any dtype");
    test_random(2, 100 * scale, 700, "long, any dtype");
    test_random(0, 6 * scale, 200000, "floats, large");
    test_reduce(0, 400 * scale, 3000, "floats");
    test_reduce(1, 600 * scale, 3000, "any dtype");
    test_reduce(1, 20 * scale, 60000, "any dtype, large");
    test_in_place();
    test_threads();
    test_large();
    test_no_memory();
    test_malformed();
    tni_pool_shutdown();
    return tap_done();
}
