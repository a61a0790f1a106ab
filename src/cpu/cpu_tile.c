/* The tile interpreter: one kernel call an instruction over tiles of TNI_TILE elements that
 * stay in L1. It takes every program; the register-threaded machine takes the float ones. */
#include "cpu/vm_run.h"
#include <string.h>

enum tni_cls tni_cls_of(tn_dtype d) {
    switch (d) {
    case TN_BOOL:
        return TNI_CLS_B;
    case TN_U8:
    case TN_U16:
    case TN_U32:
        return TNI_CLS_U32;
    case TN_U64:
        return TNI_CLS_U64;
    case TN_I8:
    case TN_I16:
    case TN_I32:
        return TNI_CLS_I32;
    case TN_I64:
        return TNI_CLS_I64;
    case TN_F64:
        return TNI_CLS_F64;
    case TN_C64:
        return TNI_CLS_C64;
    default:
        return TNI_CLS_F32;
    }
}

size_t tni_cls_size(enum tni_cls c) {
    static const uint8_t size[TNI_CLS_COUNT] = {1, 4, 4, 8, 8, 4, 8, 8};
    return size[c];
}

/* ---- Plan ---------------------------------------------------------------------------------- */

typedef struct tile_planner {
    tni_run *r;
    const tni_program *p;
    tni_tile_plan *t;
    uint16_t last[TNI_PROG_MAX_INST]; /* last instruction that uses the value; n_inst: an output */
    uint16_t reg[TNI_PROG_MAX_INST];
    uint16_t uses[TNI_PROG_MAX_IN + TNI_PROG_MAX_INST]; /* values held by each register */
} tile_planner;

#define EW1(name, dom, value, deriv, doc)      1,
#define EW2(name, dom, value, da, db, doc)     2,
#define EW3(name, dom, value, da, db, dc, doc) 3,
const uint8_t tni_ew_arities[TNI_EW_COUNT] = {
#include "ops/elementwise.def"
};
#undef EW1
#undef EW2
#undef EW3

static int tile_arity(const tni_inst *i) {
    if (i->op == TNI_INST_CAST) return 1;
    return i->op >= TNI_INST_EW ? tni_ew_arity(i->op - TNI_INST_EW) : 0;
}

static uint16_t tile_operand(const tni_inst *i, int k) {
    return k == 0 ? i->a : k == 1 ? i->b : i->c;
}

static void tile_last_uses(tile_planner *q) {
    for (int i = 0; i < q->p->n_inst; i++) {
        q->last[i] = (uint16_t)i;
        for (int k = 0; k < tile_arity(&q->p->inst[i]); k++)
            q->last[tile_operand(&q->p->inst[i], k)] = (uint16_t)i;
    }
    for (int o = 0; o < q->p->n_out; o++) q->last[q->p->out[o].value] = q->p->n_inst;
}

/* A free slot; never that of an operand, which is released only after the instruction. */
static uint16_t tile_slot(tile_planner *q) {
    uint16_t s = TNI_PROG_MAX_IN;
    while (q->uses[s]) s++;
    if (s - TNI_PROG_MAX_IN >= q->t->n_slots) q->t->n_slots = s - TNI_PROG_MAX_IN + 1;
    return s;
}

static void tile_hold(tile_planner *q, int inst, uint16_t reg) {
    q->reg[inst] = reg;
    q->uses[reg]++;
}

static void tile_release_one(tile_planner *q, int v, int inst) {
    if (q->last[v] != inst) return;
    q->uses[q->reg[v]]--;
    q->last[v] = UINT16_MAX;
}

static void tile_release(tile_planner *q, int inst) {
    const tni_inst *i = &q->p->inst[inst];
    for (int k = 0; k < tile_arity(i); k++) tile_release_one(q, tile_operand(i, k), inst);
    tile_release_one(q, inst, inst);
}

static tni_tile_step *tile_step(tile_planner *q) {
    tni_tile_step *s = &q->t->step[q->t->n_steps++];
    memset(s, 0, sizeof *s);
    return s;
}

static void tile_convert(tile_planner *q, uint16_t y, uint16_t a, tni_cv_fn cv) {
    tni_tile_step *s = tile_step(q);
    s->cv = cv;
    s->y = y;
    s->a = a;
}

/* Constants and scalars: filled once a piece, their slots never reused. */
static void tile_fill(tile_planner *q, int inst, const tni_inst *i) {
    tni_tile_plan *t = q->t;
    uint16_t y = tile_slot(q);
    t->fill[t->n_fill].y = y;
    t->fill[t->n_fill++].inst = i;
    tile_hold(q, inst, y);
    q->uses[y]++;
}

static void tile_load(tile_planner *q, int inst) {
    int in = q->p->inst[inst].a;
    tn_dtype d = q->p->in[in].dtype;
    q->t->in_size[in] = (uint8_t)tn_dtype_size(d);
    if (!q->r->isa->load[d] && q->p->n_out == 1) {
        tile_hold(q, inst, (uint16_t)in);
        return;
    }
    /* With several outputs a store may overwrite an input that another output still names. */
    uint16_t y = tile_slot(q);
    tni_cv_fn cv = q->r->isa->load[d];
    tile_convert(q, y, (uint16_t)in, cv ? cv : q->r->isa->cast[tni_cls_of(d)][tni_cls_of(d)]);
    tile_hold(q, inst, y);
}

static void tile_cast(tile_planner *q, int inst) {
    const tni_inst *i = &q->p->inst[inst];
    tn_dtype from = (tn_dtype)q->p->inst[i->a].dtype, to = (tn_dtype)i->dtype;
    const tni_vm_isa *isa = q->r->isa;
    enum tni_cls cf = tni_cls_of(from), ct = tni_cls_of(to);
    tni_cv_fn round = from == to ? NULL : isa->round[to];
    tni_cv_fn cv = cf == ct ? NULL : isa->cast[cf][ct];
    if (cf == TNI_CLS_F64 && round && ct == TNI_CLS_F32) cv = isa->narrow_f64;
    if (!cv && !round) {
        tile_hold(q, inst, q->reg[i->a]);
        return;
    }
    uint16_t y = tile_slot(q);
    tile_convert(q, y, q->reg[i->a], cv ? cv : round);
    if (cv && round) tile_convert(q, y, y, round);
    tile_hold(q, inst, y);
}

static void tile_op(tile_planner *q, int inst) {
    const tni_inst *i = &q->p->inst[inst];
    int e = i->op - TNI_INST_EW, n = tile_arity(i);
    const tni_inst *operand = &q->p->inst[n == 3 ? i->b : i->a];
    tni_tile_step *s = tile_step(q);
    s->ew = q->r->isa->ew[tni_cls_of((tn_dtype)operand->dtype)][e];
    s->round = q->r->isa->round[i->dtype];
    s->a = q->reg[i->a];
    s->b = n > 1 ? q->reg[i->b] : s->a;
    s->c = n > 2 ? q->reg[i->c] : s->a;
    s->y = tile_slot(q);
    tile_hold(q, inst, s->y);
}

/* Fills come first: their slots are taken before any step could be given them. */
static bool tile_is_fill(const tni_inst *i, const tni_walk *w) {
    return i->op == TNI_INST_CONST ||
           (i->op == TNI_INST_LOAD && w->in[i->a].kind == TNI_WALK_SCALAR);
}

void tni_tile_plan_make(tni_run *r, const tni_walk *w) {
    const tni_program *p = r->p;
    tile_planner q = {.r = r, .p = p, .t = &r->tile};
    r->tile.n_fill = r->tile.n_steps = r->tile.n_slots = 0;
    memset(r->tile.in_size, 0, sizeof r->tile.in_size);
    tile_last_uses(&q);
    for (int i = 0; i < p->n_inst; i++)
        if (tile_is_fill(&p->inst[i], w)) tile_fill(&q, i, &p->inst[i]);
    for (int i = 0; i < p->n_inst; i++) {
        const tni_inst *inst = &p->inst[i];
        if (!tile_is_fill(inst, w)) {
            if (inst->op == TNI_INST_LOAD)
                tile_load(&q, i);
            else if (inst->op == TNI_INST_CAST)
                tile_cast(&q, i);
            else
                tile_op(&q, i);
        }
        tile_release(&q, i);
    }
    for (int o = 0; o < p->n_out; o++) r->tile.out[o] = q.reg[p->out[o].value];
}

/* ---- Run ------------------------------------------------------------------------------------ */

/* One element of the class, from a constant. */
static void tile_constant(const tni_inst *k, void *dst) {
    switch (tni_cls_of((tn_dtype)k->dtype)) {
    case TNI_CLS_B:
        *(uint8_t *)dst = k->imm.i != 0;
        break;
    case TNI_CLS_I32:
        *(int32_t *)dst = (int32_t)k->imm.i;
        break;
    case TNI_CLS_U32:
        *(uint32_t *)dst = (uint32_t)k->imm.u;
        break;
    case TNI_CLS_I64:
    case TNI_CLS_U64:
        memcpy(dst, &k->imm.u, 8);
        break;
    case TNI_CLS_F64:
        memcpy(dst, &k->imm.f, 8);
        break;
    case TNI_CLS_C64:
        memcpy(dst, k->imm.c, 8);
        break;
    default:
        *(float *)dst = (float)k->imm.f;
        break;
    }
}

static void tile_spread(char *dst, size_t size, int64_t n) {
    for (int64_t have = 1; have < n; have *= 2)
        memcpy(dst + (size_t)have * size, dst, (size_t)(have < n - have ? have : n - have) * size);
}

static void tile_fills(const tni_run *r, char *const *reg, const char *const *in, int64_t n) {
    for (int f = 0; f < r->tile.n_fill; f++) {
        const tni_inst *i = r->tile.fill[f].inst;
        char *y = reg[r->tile.fill[f].y];
        tn_dtype d = (tn_dtype)i->dtype;
        tni_cv_fn load = r->isa->load[d], round = r->isa->round[d];
        if (i->op == TNI_INST_CONST) {
            tile_constant(i, y);
            if (round) round(1, y, y);
        } else if (load)
            load(1, y, in[i->a]);
        else
            memcpy(y, in[i->a], tn_dtype_size(d));
        tile_spread(y, tni_cls_size(tni_cls_of(d)), n);
    }
}

static void tile_store(const tni_run *r, int o, char *out, const char *value, size_t n) {
    tn_dtype d = r->to_class ? (tn_dtype)r->p->inst[r->p->out[o].value].dtype : r->p->out[o].dtype;
    if (!r->to_class && r->isa->store[d])
        r->isa->store[d](n, out, value);
    else
        memmove(out, value, n * tni_cls_size(tni_cls_of(d)));
}

void tni_tile_run(const tni_run *r, const tni_walk *w, char *slots, const char *const *in,
                  char *const *out, int64_t n) {
    const tni_tile_plan *t = &r->tile;
    char *reg[TNI_PROG_MAX_IN + TNI_PROG_MAX_INST];
    for (int s = 0; s < t->n_slots; s++)
        reg[TNI_PROG_MAX_IN + s] = slots + (size_t)s * TNI_TILE * 8;
    tile_fills(r, reg, in, n < TNI_TILE ? n : TNI_TILE);
    for (int64_t at = 0; at < n; at += TNI_TILE) {
        size_t m = (size_t)(n - at < TNI_TILE ? n - at : TNI_TILE);
        for (int i = 0; i < w->n_in; i++) reg[i] = (char *)(uintptr_t)(in[i] + at * t->in_size[i]);
        for (int s = 0; s < t->n_steps; s++) {
            const tni_tile_step *k = &t->step[s];
            if (k->ew)
                k->ew(m, reg[k->y], reg[k->a], reg[k->b], reg[k->c]);
            else
                k->cv(m, reg[k->y], reg[k->a]);
            if (k->round) k->round(m, reg[k->y], reg[k->y]);
        }
        for (int o = 0; o < w->n_out; o++)
            tile_store(r, o, out[o] + at * (int64_t)w->out[o].size, reg[t->out[o]], m);
    }
}

/* ---- Small programs ------------------------------------------------------------------------- */

enum { TILE_SMALL = 2048 }; /* elements, all values together */

static char *tile_small_load(const tni_program *p, const tni_vm_isa *isa, const tni_inst *i,
                             const void *const *in, char *y, int64_t n) {
    tn_dtype d = (tn_dtype)i->dtype;
    bool one = p->in[i->a].strides[0] == 0;
    tni_cv_fn load = isa->load[d];
    size_t size = tni_cls_size(tni_cls_of(d));
    /* With several outputs a store may overwrite an input that another output still names. */
    if (!load && !one && p->n_out == 1) return (char *)(uintptr_t)in[i->a];
    if (load)
        load(one ? 1 : (size_t)n, y, in[i->a]);
    else
        memcpy(y, in[i->a], one ? size : (size_t)n * size);
    if (one) tile_spread(y, size, n);
    return y;
}

static char *tile_small_cast(const tni_program *p, const tni_vm_isa *isa, const tni_inst *i,
                             char *const *v, char *y, int64_t n) {
    tn_dtype from = (tn_dtype)p->inst[i->a].dtype, to = (tn_dtype)i->dtype;
    enum tni_cls cf = tni_cls_of(from), ct = tni_cls_of(to);
    tni_cv_fn round = from == to ? NULL : isa->round[to];
    tni_cv_fn cv = cf == ct ? NULL : isa->cast[cf][ct];
    if (cf == TNI_CLS_F64 && round && ct == TNI_CLS_F32) cv = isa->narrow_f64;
    if (!cv && !round) return v[i->a];
    (cv ? cv : round)((size_t)n, y, v[i->a]);
    if (cv && round) round((size_t)n, y, y);
    return y;
}

/* One value: in y, or where it lies already. */
static char *tile_small_value(const tni_program *p, const tni_vm_isa *isa, const tni_inst *i,
                              const void *const *in, char *const *v, char *y, int64_t n) {
    tni_cv_fn round = isa->round[i->dtype];
    switch (i->op) {
    case TNI_INST_LOAD:
        return tile_small_load(p, isa, i, in, y, n);
    case TNI_INST_CAST:
        return tile_small_cast(p, isa, i, v, y, n);
    case TNI_INST_CONST:
        tile_constant(i, y);
        if (round) round(1, y, y);
        tile_spread(y, tni_cls_size(tni_cls_of((tn_dtype)i->dtype)), n);
        return y;
    default:;
        int e = i->op - TNI_INST_EW, arity = tni_ew_arity(e);
        tn_dtype d = (tn_dtype)p->inst[arity == 3 ? i->b : i->a].dtype;
        isa->ew[tni_cls_of(d)][e]((size_t)n, y, v[i->a], v[i->b], v[i->c]);
        if (round) round((size_t)n, y, y);
        return y;
    }
}

bool tni_tile_small(const tni_program *p, const tni_vm_isa *isa, const void *const *in,
                    void *const *out) {
    int64_t n = p->shape[0];
    if (p->ndim != 1 || p->reduce != TNI_RED_NONE || n * p->n_inst > TILE_SMALL) return false;
    for (int i = 0; i < p->n_in; i++)
        if (p->in[i].strides[0] != 1 && p->in[i].strides[0] != 0) return false;
    for (int o = 0; o < p->n_out; o++)
        if (p->out[o].strides[0] != 1 && n != 1) return false;
    _Alignas(64) char mem[(TILE_SMALL + TNI_PROG_MAX_INST * 8) * 8];
    char *v[TNI_PROG_MAX_INST], *y = mem;
    /* A last value that is stored as it is goes where it belongs at once. */
    int last = p->n_inst - 1;
    int direct =
        p->n_out == 1 && p->out[0].value == last && !isa->store[p->out[0].dtype] ? last : -1;
    for (int i = 0; i < p->n_inst; i++, y += (n + 7) / 8 * 64) /* slots start on cache lines */
        v[i] = tile_small_value(p, isa, &p->inst[i], in, v, i == direct ? (char *)out[0] : y, n);
    for (int o = 0; o < p->n_out; o++) {
        tn_dtype d = p->out[o].dtype;
        const char *x = v[p->out[o].value];
        if (x == out[o]) continue;
        if (isa->store[d])
            isa->store[d]((size_t)n, out[o], x);
        else
            memmove(out[o], x, (size_t)n * tni_cls_size(tni_cls_of(d)));
    }
    return true;
}
