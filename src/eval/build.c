/* Program building: instructions in SSA order from the group's nodes, one load a distinct
 * input, numbers as constants; then the loop, with as few dimensions as the strides allow. */
#include "eval/build.h"
#include "base/err.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "ops/op.h"
#include <string.h>

static uint16_t build_push(tni_build *b, tni_inst inst) {
    tni_assert(b->prog.n_inst < TNI_PROG_MAX_INST);
    b->prog.inst[b->prog.n_inst] = inst;
    return b->prog.n_inst++;
}

static uint16_t build_const(tni_build *b, const tn_array *a) {
    tni_inst inst = {.op = TNI_INST_CONST, .dtype = a->dtype};
    if (a->dtype == TN_C64)
        memcpy(inst.imm.c, a->inl, 8);
    else if (tni_is_float((tn_dtype)a->dtype))
        inst.imm.f = tni_load_f64((tn_dtype)a->dtype, a->inl);
    else
        inst.imm.i = tni_load_i64((tn_dtype)a->dtype, a->inl);
    return build_push(b, inst);
}

static uint16_t build_leaf(tni_build *b, tn_array *a) {
    if (tni_state_of(a) == TNI_READY && tni_is_inline(a)) return build_const(b, a);
    for (uint16_t i = 0; i < b->prog.n_in; i++)
        if (b->in[i] == a) {
            b->edges[i]++;
            for (uint16_t k = 0;; k++)
                if (b->prog.inst[k].op == TNI_INST_LOAD && b->prog.inst[k].a == i) return k;
        }
    uint16_t i = b->prog.n_in++;
    b->in[i] = a, b->edges[i] = 1;
    b->prog.in[i].dtype = (tn_dtype)a->dtype;
    return build_push(b, (tni_inst){.op = TNI_INST_LOAD, .dtype = a->dtype, .a = i});
}

/* The value of `a` as an instruction. Recursion is as deep as the group, which is bounded by
 * TNI_PROG_MAX_INST. */
static uint16_t build_value(tni_build *b, tn_array *a) {
    if (!tni_plan_owns(b->plan, a, b->group)) return build_leaf(b, a);
    tni_node *n = a->node;
    if (n->value >= 0) return (uint16_t)n->value;
    uint16_t v[3] = {0};
    for (int i = 0; i < n->n_in; i++) v[i] = build_value(b, n->in[i]);
    int code = n->prim->code;
    if (code == TNI_CODE_COPY)
        n->value = v[0];
    else
        n->value = build_push(
            b,
            (tni_inst){.op = (uint16_t)(code == TNI_CODE_CAST ? TNI_INST_CAST : TNI_INST_EW + code),
                       .dtype = a->dtype,
                       .a = v[0],
                       .b = v[1],
                       .c = v[2]});
    if (tni_plan_stored(b->plan, a)) {
        b->prog.out[b->prog.n_out] =
            (tni_prog_out){.dtype = (tn_dtype)a->dtype, .value = (uint16_t)n->value};
        b->out[b->prog.n_out++] = a;
    }
    b->member[b->n_members++] = n;
    return (uint16_t)n->value;
}

/* A member that an open scope holds stays lazy after the launch, and so does everything it is made
 * from: their leaves must keep their values. */
static void build_pin(tni_build *b) {
    uint64_t keep[(TNI_PROG_MAX_INST + 63) / 64] = {0};
    for (int i = b->n_members - 1; i-- > 0;) { /* the last is the root, which is stored */
        tni_node *n = b->member[i];
        const tn_array *a = n->out[0];
        bool lives = !tni_plan_stored(b->plan, a) &&
                     atomic_load_explicit(&((tn_array *)(uintptr_t)a)->refs, memory_order_relaxed) >
                         (a->uses & ~TNI_TARGET);
        if (!lives && !(keep[i / 64] >> (i % 64) & 1)) continue;
        for (int k = 0; k < n->n_in; k++) {
            const tn_array *x = n->in[k];
            for (int m = 0; m < i; m++)
                if (x->node && b->member[m] == x->node) keep[m / 64] |= (uint64_t)1 << (m % 64);
            for (int m = 0; m < b->prog.n_in; m++)
                if (b->in[m] == x) b->pinned[m] = true;
        }
    }
}

int tni_build_group(tni_build *b, const tni_plan *p, int32_t g) {
    const tni_group *group = &p->groups[g];
    tni_node *root = p->order[group->root];
    b->plan = p, b->group = g, b->n_members = 0;
    memset(b->pinned, 0, sizeof b->pinned);
    b->prog.n_inst = b->prog.n_in = b->prog.n_out = 0;
    b->prog.reduce = TNI_RED_NONE, b->prog.reduce_mask = 0;
    tn_array *out = root->out[0];
    if (!out) return tni_fail(TN_EINTERNAL, "eval: the result of %s is gone", root->prim->name);
    if (group->reduce) {
        b->prog.reduce = (uint8_t)root->prim->code;
        b->prog.reduce_mask = ((const tni_p_reduce *)root->params)->axes;
        uint16_t v = build_value(b, root->in[0]);
        b->prog.out[0] = (tni_prog_out){.dtype = (tn_dtype)out->dtype, .value = v};
        b->out[0] = out;
        b->prog.n_out = 1;
        return 0;
    }
    build_value(b, out);
    if (!b->prog.n_out || b->out[b->prog.n_out - 1] != out) { /* the root is always stored */
        b->prog.out[b->prog.n_out] =
            (tni_prog_out){.dtype = (tn_dtype)out->dtype, .value = (uint16_t)root->value};
        b->out[b->prog.n_out++] = out;
    }
    build_pin(b);
    return 0;
}

/* ---- the loop ---- */

static int64_t *build_strides(tni_program *p, int k) {
    return k < p->n_in ? p->in[k].strides : p->out[k - p->n_in].strides;
}

static void build_move_dim(tni_program *p, int to, int from) {
    p->shape[to] = p->shape[from];
    uint32_t bit = (p->reduce_mask >> from) & 1;
    p->reduce_mask = (p->reduce_mask & ~(1u << to)) | (bit << to);
    for (int k = 0; k < p->n_in + p->n_out; k++) {
        int64_t *s = build_strides(p, k);
        s[to] = s[from];
    }
}

static bool build_can_merge(tni_program *p, int d, int e) {
    if (((p->reduce_mask >> d) ^ (p->reduce_mask >> e)) & 1) return false;
    for (int k = 0; k < p->n_in + p->n_out; k++) {
        const int64_t *s = build_strides(p, k);
        if (s[d] != s[e] * p->shape[e]) return false;
    }
    return true;
}

void tni_program_collapse(tni_program *p) {
    int nd = 0;
    for (int d = 0; d < p->ndim; d++) {
        if (p->shape[d] == 1) continue;
        build_move_dim(p, nd, d);
        if (nd && build_can_merge(p, nd - 1, nd)) {
            int64_t merged = p->shape[nd - 1] * p->shape[nd];
            build_move_dim(p, nd - 1, nd);
            p->shape[nd - 1] = merged;
        } else {
            nd++;
        }
    }
    if (!nd) { /* a single element; a reduction of one keeps a reduced dimension */
        p->shape[0] = 1;
        for (int k = 0; k < p->n_in + p->n_out; k++) build_strides(p, k)[0] = 0;
        p->reduce_mask = p->reduce != TNI_RED_NONE;
        nd = 1;
    }
    p->reduce_mask &= (1u << nd) - 1;
    p->ndim = (uint8_t)nd;
}

void tni_build_loop(tni_build *b) {
    tni_program *p = &b->prog;
    const tn_array *loop = b->plan->groups[b->group].loop;
    p->ndim = loop->ndim;
    memcpy(p->shape, loop->shape, sizeof(int64_t) * loop->ndim);
    for (int i = 0; i < p->n_in; i++)
        tni_broadcast_strides(b->in[i]->ndim, b->in[i]->shape, b->in[i]->strides, p->ndim, p->shape,
                              p->in[i].strides);
    for (int i = 0; i < p->n_out; i++) {
        tn_array *a = b->out[i];
        int64_t row[TN_MAX_NDIM];
        tni_row_strides(a->ndim, a->shape, row);
        for (int d = 0; d < p->ndim; d++)
            p->out[i].strides[d] = (p->reduce_mask >> d) & 1 ? 0 : row[d];
    }
    tni_program_collapse(p);
}

void tni_program_copy(tni_program *p, tn_dtype from, const int64_t *src_strides, tn_dtype to,
                      const int64_t *dst_strides, int ndim, const int64_t *shape) {
    p->n_inst = 1, p->n_in = p->n_out = 1;
    p->inst[0] = (tni_inst){.op = TNI_INST_LOAD, .dtype = (uint8_t)from};
    if (to != from) p->inst[p->n_inst++] = (tni_inst){.op = TNI_INST_CAST, .dtype = (uint8_t)to};
    p->reduce = TNI_RED_NONE, p->reduce_mask = 0;
    p->ndim = (uint8_t)ndim;
    p->in[0].dtype = from, p->out[0].dtype = to;
    p->out[0].value = (uint16_t)(p->n_inst - 1);
    memcpy(p->shape, shape, sizeof(int64_t) * (size_t)ndim);
    memcpy(p->in[0].strides, src_strides, sizeof(int64_t) * (size_t)ndim);
    memcpy(p->out[0].strides, dst_strides, sizeof(int64_t) * (size_t)ndim);
    tni_program_collapse(p);
}
