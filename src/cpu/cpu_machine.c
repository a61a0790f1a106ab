/* Compiles a float program for the register-threaded machine and runs it on pieces.
 *
 * The machine has one accumulator (of eight registers), so a graph becomes an accumulator
 * program: an operand that lies in memory or is a constant is used from where it is; of two
 * computed operands the one that needs more slots is made first and kept in a slot; a value
 * that is used again is kept in a slot as it is made. Planning costs a microsecond or two. */
#include "base/half.h"
#include "cpu/vm_run.h"
#include <string.h>

typedef struct mach_planner {
    tni_run *r;
    const tni_program *p;
    const tni_walk *w;
    tni_machine_plan *t;
    uint16_t uses[TNI_PROG_MAX_INST]; /* uses still to come */
    uint8_t needs[TNI_PROG_MAX_INST]; /* slots that making the value takes */
    int16_t slot[TNI_PROG_MAX_INST];  /* where the value is kept, or -1 */
    bool busy[TNI_PROG_MAX_INST + 1];
    bool failed;
} mach_planner;

/* ---- Which programs ------------------------------------------------------------------------- */

static bool mach_float(tn_dtype d) { return d == TN_F16 || d == TN_BF16 || d == TN_F32; }
static bool mach_dtype(tn_dtype d) { return mach_float(d) || d == TN_BOOL; }

#define MACH_DOM_NUM  0
#define MACH_DOM_SIG  0
#define MACH_DOM_REAL 0
#define MACH_DOM_FLT  0
#define MACH_DOM_FLTR 0
#define MACH_DOM_RE   0
#define MACH_DOM_CMP  1
#define MACH_DOM_TEST 1
#define MACH_DOM_LOG  1
#define MACH_DOM_INT  0
#define MACH_DOM_SHF  0
#define MACH_DOM_SEL  1

/* Ops that mean the same on bools held as 0 and 1; the others take floats only. */
static bool mach_takes_bool(int ew) {
#define EW1(name, dom, value, deriv, doc)      MACH_DOM_##dom,
#define EW2(name, dom, value, da, db, doc)     MACH_DOM_##dom,
#define EW3(name, dom, value, da, db, dc, doc) MACH_DOM_##dom,
    static const uint8_t takes[TNI_EW_COUNT] = {
#include "ops/elementwise.def"
    };
#undef EW1
#undef EW2
#undef EW3
    return takes[ew];
}

static bool mach_small_int(tn_dtype d) {
    return d == TN_U8 || d == TN_I8 || d == TN_U16 || d == TN_I16 || d == TN_U32 || d == TN_I32;
}

/* An integer may only be loaded and cast: handlers load it as f32, rounded as the cast would. */
static bool mach_takes(const tni_program *p, const tni_walk *w, const tni_inst *i) {
    tn_dtype d = (tn_dtype)i->dtype, a = i->op == TNI_INST_LOAD ? d : (tn_dtype)p->inst[i->a].dtype;
    if (i->op == TNI_INST_LOAD)
        return mach_dtype(d) || (mach_small_int(d) && w->in[i->a].kind != TNI_WALK_SCALAR);
    if (!mach_dtype(d)) return false;
    if (i->op == TNI_INST_CONST) return true;
    if (i->op == TNI_INST_CAST) return mach_dtype(a) || p->inst[i->a].op == TNI_INST_LOAD;
    int ew = i->op - TNI_INST_EW, n = tni_ew_arity(ew);
    if (!mach_dtype(a) || (n > 1 && !mach_dtype((tn_dtype)p->inst[i->b].dtype))) return false;
    return mach_takes_bool(ew) || mach_float(a);
}

static bool mach_fits(const tni_program *p, const tni_walk *w) {
    for (int i = 0; i < p->n_inst; i++)
        if (!mach_takes(p, w, &p->inst[i])) return false;
    for (int o = 0; o < p->n_out; o++)
        if (!mach_dtype((tn_dtype)p->inst[p->out[o].value].dtype)) return false;
    return true;
}

/* ---- Code ---------------------------------------------------------------------------------------
 */

static tni_code *mach_emit(mach_planner *q, tni_handler fn) {
    tni_code *c = &q->t->code[q->t->n_code];
    if (!fn || q->t->n_code >= TNI_MACH_MAX_CODE - 1) {
        q->failed = true;
        return c;
    }
    memset(c, 0, sizeof *c);
    c->fn = fn;
    q->t->n_code++;
    return c;
}

static void mach_patch(mach_planner *q, int which, enum tni_mach_at at, int n) {
    int k = q->t->n_patch++;
    tni_code *c = &q->t->code[q->t->n_code - 1];
    q->t->patch[k].code = (uint16_t)(q->t->n_code - 1);
    q->t->patch[k].which = (uint8_t)which;
    q->t->patch[k].at = (uint8_t)at;
    q->t->patch[k].n = (uint16_t)n;
    size_t mask = at == TNI_MACH_SLOT ? 0 : SIZE_MAX;
    if (which)
        c->q_mask = mask;
    else
        c->p_mask = mask;
}

static int mach_slot(mach_planner *q) {
    int s = 0;
    while (q->busy[s]) s++;
    q->busy[s] = true;
    if (s >= q->t->n_slots) q->t->n_slots = s + 1;
    return s;
}

static void mach_keep(mach_planner *q, int v) {
    q->slot[v] = (int16_t)mach_slot(q);
    mach_emit(q, q->t->m->store[TN_F32]);
    mach_patch(q, 0, TNI_MACH_SLOT, q->slot[v]);
}

/* One use of v is over; its slot is free after the last. */
static void mach_used(mach_planner *q, int v) {
    if (--q->uses[v] == 0 && q->slot[v] >= 0 && q->slot[v] < TNI_PROG_MAX_INST)
        q->busy[q->slot[v]] = false;
}

static bool mach_is_scalar(const mach_planner *q, const tni_inst *i) {
    return i->op == TNI_INST_CONST ||
           (i->op == TNI_INST_LOAD && q->w->in[i->a].kind == TNI_WALK_SCALAR);
}

/* A slot with one value in every element, filled before the piece: no value that dies before
 * may have had it, since it is written for every tile. */
static void mach_fill(mach_planner *q, int v) {
    q->slot[v] = (int16_t)q->t->n_slots;
    q->busy[q->t->n_slots++] = true;
    q->t->fill[q->t->n_fill].slot = (uint16_t)q->slot[v];
    q->t->fill[q->t->n_fill++].inst = &q->p->inst[v];
    q->uses[v]++; /* the slot stays taken */
}

static float mach_constant(const tni_inst *i) {
    if (i->dtype == TN_BOOL) return i->imm.i != 0;
    float f = (float)i->imm.f;
    if (i->dtype == TN_F16) return tni_f16_to_f32(tni_f32_to_f16(f));
    return i->dtype == TN_BF16 ? tni_bf16_to_f32(tni_f32_to_bf16(f)) : f;
}

/* Forms in which v can be an operand without being computed into the accumulators. */
enum { MACH_COMPUTE, MACH_MEMORY, MACH_F16, MACH_BF16, MACH_IMM };

static int mach_form(const mach_planner *q, int v) {
    const tni_inst *i = &q->p->inst[v];
    if (q->slot[v] >= 0) return MACH_MEMORY;
    if (mach_is_scalar(q, i)) return MACH_IMM;
    if (i->op != TNI_INST_LOAD) return MACH_COMPUTE;
    switch ((tn_dtype)i->dtype) {
    case TN_F32:
        return MACH_MEMORY;
    case TN_F16:
        return MACH_F16;
    case TN_BF16:
        return MACH_BF16;
    default:
        return MACH_COMPUTE;
    }
}

/* Sets operand `which` of the last instruction to v, which is in memory or an immediate. */
static void mach_operand(mach_planner *q, int which, int v) {
    const tni_inst *i = &q->p->inst[v];
    tni_code *c = &q->t->code[q->t->n_code - 1];
    if (q->failed) return;
    if (q->slot[v] >= 0)
        mach_patch(q, which, TNI_MACH_SLOT, q->slot[v]);
    else if (i->op == TNI_INST_CONST)
        *(which ? &c->imm2 : &c->imm) = mach_constant(i);
    else
        mach_patch(q, which, mach_is_scalar(q, i) ? TNI_MACH_SCALAR : TNI_MACH_IN, i->a);
}

static void mach_value(mach_planner *q, int v);

/* v into memory form: a slot, unless it is an f32 input. */
static void mach_to_memory(mach_planner *q, int v) {
    if (mach_form(q, v) == MACH_MEMORY) return;
    if (mach_form(q, v) == MACH_IMM) {
        mach_fill(q, v);
        return;
    }
    mach_value(q, v);
    if (q->slot[v] < 0) mach_keep(q, v);
}

static tni_handler mach_variant(const tni_mach_op *op, int form, bool reversed) {
    switch (form) {
    case MACH_MEMORY:
        return reversed ? op->mr : op->m;
    case MACH_F16:
        return reversed ? op->hr : op->h;
    case MACH_BF16:
        return reversed ? op->br : op->b;
    case MACH_IMM:
        return reversed ? op->sr : op->s;
    default:
        return NULL;
    }
}

/* acc = op(acc, v) or op(v, acc); v is not computed any more. */
static void mach_apply(mach_planner *q, int ew, int v, bool reversed) {
    const tni_mach_op *hot = &q->t->m->hot[ew], *any = &q->t->m->ops[ew];
    tni_handler fn = mach_variant(hot, mach_form(q, v), reversed);
    if (!fn) fn = mach_variant(any, mach_form(q, v), reversed);
    mach_emit(q, fn);
    mach_operand(q, 0, v);
}

/* Whether some handler takes v as second operand as it is. */
static bool mach_ready(const mach_planner *q, int ew, int v) {
    int form = mach_form(q, v);
    return form != MACH_COMPUTE && (mach_variant(&q->t->m->hot[ew], form, false) ||
                                    mach_variant(&q->t->m->ops[ew], form, false));
}

static void mach_binary(mach_planner *q, int ew, int a, int b) {
    if (a == b) {
        if (ew == TNI_EW_mul) {
            mach_value(q, a);
            mach_emit(q, q->t->m->hot[TNI_EW_square].u);
            return;
        }
        mach_to_memory(q, a);
    }
    if (!mach_ready(q, ew, b) && mach_ready(q, ew, a)) {
        mach_value(q, b);
        if (mach_ready(q, ew, a)) {
            mach_apply(q, ew, a, true);
            return;
        }
    }
    if (!mach_ready(q, ew, b)) {
        /* The needier first: while the other is made, only its slot is taken. */
        if (mach_form(q, a) == MACH_COMPUTE && q->needs[a] > q->needs[b]) {
            mach_to_memory(q, a);
            mach_value(q, b);
            mach_apply(q, ew, a, true);
            return;
        }
        mach_to_memory(q, b);
    }
    mach_value(q, a);
    mach_apply(q, ew, b, false);
}

static void mach_where(mach_planner *q, int a, int b, int c) {
    int v[3] = {a, b, c}, acc = 0;
    for (int k = 1; k < 3; k++)
        if (mach_form(q, v[k]) == MACH_COMPUTE && mach_form(q, v[acc]) != MACH_COMPUTE) acc = k;
    for (int k = 0; k < 3; k++)
        if (k != acc) mach_to_memory(q, v[k]);
    mach_value(q, v[acc]);
    const tni_machine *m = q->t->m;
    mach_emit(q, acc == 0 ? m->sel_a : acc == 1 ? m->sel_b : m->sel_c);
    mach_operand(q, 0, acc == 0 ? b : a);
    mach_operand(q, 1, acc == 2 ? b : c);
}

/* Ops whose result is one of their operands or otherwise needs no rounding to a narrow dtype. */
static bool mach_exact(const tni_inst *i) {
    switch (i->op - TNI_INST_EW) {
    case TNI_EW_neg:
    case TNI_EW_abs:
    case TNI_EW_sign:
    case TNI_EW_maximum:
    case TNI_EW_minimum:
    case TNI_EW_where:
    case TNI_EW_floor:
    case TNI_EW_ceil:
    case TNI_EW_trunc:
    case TNI_EW_round:
    case TNI_EW_real:
    case TNI_EW_imag:
    case TNI_EW_conj:
        return true;
    default:
        return false;
    }
}

static void mach_cast(mach_planner *q, const tni_inst *i) {
    tn_dtype from = (tn_dtype)q->p->inst[i->a].dtype, to = (tn_dtype)i->dtype;
    mach_value(q, i->a);
    if (to == TN_BOOL && from != TN_BOOL)
        mach_emit(q, q->t->m->hot[TNI_EW_not_equal].s); /* with the immediate 0 */
    else if (to != from && from != TN_BOOL && q->t->m->round[to])
        mach_emit(q, q->t->m->round[to]);
}

static void mach_op(mach_planner *q, const tni_inst *i) {
    int ew = i->op - TNI_INST_EW, n = tni_ew_arity(ew);
    const tni_machine *m = q->t->m;
    if (n == 1) {
        mach_value(q, i->a);
        mach_emit(q, m->hot[ew].u ? m->hot[ew].u : m->ops[ew].u);
    } else if (n == 2)
        mach_binary(q, ew, i->a, i->b);
    else
        mach_where(q, i->a, i->b, i->c);
    mach_used(q, i->a);
    if (n > 1) mach_used(q, i->b);
    if (n > 2) mach_used(q, i->c);
    if (m->round[i->dtype] && !mach_exact(i)) mach_emit(q, m->round[i->dtype]);
}

/* v into the accumulators; kept in a slot when it is used again. */
static void mach_value(mach_planner *q, int v) {
    const tni_inst *i = &q->p->inst[v];
    const tni_machine *m = q->t->m;
    int form = mach_form(q, v);
    if (q->failed) return;
    if (form == MACH_IMM) {
        mach_emit(q, m->load_s);
        mach_operand(q, 0, v);
    } else if (form != MACH_COMPUTE) {
        mach_emit(q, form == MACH_MEMORY ? m->load[TN_F32] : m->load[i->dtype]);
        mach_operand(q, 0, v);
    } else if (i->op == TNI_INST_LOAD) {
        mach_emit(q, m->load[i->dtype]);
        mach_patch(q, 0, TNI_MACH_IN, i->a);
        if (q->uses[v] > 1) mach_keep(q, v);
    } else {
        if (i->op == TNI_INST_CAST) {
            mach_cast(q, i);
            mach_used(q, i->a);
        } else
            mach_op(q, i);
        if (q->uses[v] > 1) mach_keep(q, v);
    }
}

/* ---- Peepholes: none may change a bit
 * ------------------------------------------------------------- */

static tni_handler mach_fused(const tni_machine *m, tni_handler a, tni_handler b) {
    const tni_mach_op *mul = &m->hot[TNI_EW_mul], *add = &m->hot[TNI_EW_add];
    if (a != mul->m && a != mul->s && a != mul->mr && a != mul->sr) return NULL;
    bool ms = a == mul->s || a == mul->sr;
    if (b == add->m || b == add->mr) return ms ? m->mul_add_sm : m->mul_add_mm;
    if (b == add->s || b == add->sr) return ms ? m->mul_add_ss : m->mul_add_ms;
    return NULL;
}

/* mul then add becomes one instruction (both still round). Patches follow their instruction. */
static void mach_peephole(tni_machine_plan *t) {
    uint16_t to[TNI_MACH_MAX_CODE];
    bool second[TNI_MACH_MAX_CODE];
    int n = 0;
    memset(second, 0, (size_t)t->n_code);
    for (int i = 0; i < t->n_code; i++) {
        tni_handler f =
            n > 0 && !second[i - 1] ? mach_fused(t->m, t->code[n - 1].fn, t->code[i].fn) : NULL;
        if (f && to[i - 1] == n - 1) {
            tni_code *c = &t->code[n - 1];
            c->fn = f;
            c->q_mask = t->code[i].p_mask;
            c->imm2 = t->code[i].imm;
            second[i] = true;
            to[i] = (uint16_t)(n - 1);
        } else {
            t->code[n] = t->code[i];
            to[i] = (uint16_t)n++;
        }
    }
    for (int k = 0; k < t->n_patch; k++) {
        if (second[t->patch[k].code]) t->patch[k].which = 1;
        t->patch[k].code = to[t->patch[k].code];
    }
    t->n_code = n;
}

/* ---- Planning
 * ---------------------------------------------------------------------------------------- */

static void mach_count(mach_planner *q) {
    const tni_program *p = q->p;
    for (int o = 0; o < p->n_out; o++) q->uses[p->out[o].value]++;
    for (int v = p->n_inst - 1; v >= 0; v--) {
        const tni_inst *i = &p->inst[v];
        q->slot[v] = -1;
        if (!q->uses[v] || i->op < TNI_INST_CAST) continue;
        int n = i->op == TNI_INST_CAST ? 1 : tni_ew_arity(i->op - TNI_INST_EW);
        q->uses[i->a]++;
        if (n > 1) q->uses[i->b]++;
        if (n > 2) q->uses[i->c]++;
    }
    for (int v = 0; v < p->n_inst; v++) {
        const tni_inst *i = &p->inst[v];
        if (i->op < TNI_INST_CAST) continue;
        int n = i->op == TNI_INST_CAST ? 1 : tni_ew_arity(i->op - TNI_INST_EW);
        uint8_t a = q->needs[i->a], b = n > 1 ? q->needs[i->b] : 0;
        q->needs[v] = n == 1 ? a : a == b ? (uint8_t)(a + 1) : a > b ? a : b;
    }
}

static void mach_fetches(mach_planner *q) {
    for (int i = 0; i < q->w->n_in; i++) {
        tni_handler fetch = q->t->m->fetch[q->p->in[i].dtype];
        if (!fetch || q->w->in[i].kind != TNI_WALK_CONTIG) continue;
        mach_emit(q, fetch);
        mach_patch(q, 0, TNI_MACH_IN, i);
    }
}

static void mach_store(mach_planner *q, int o, bool from_slot) {
    int v = q->p->out[o].value;
    tn_dtype d = q->r->to_class ? TN_F32 : q->p->out[o].dtype;
    if (q->r->to_class && q->p->inst[v].dtype == TN_BOOL) d = TN_BOOL;
    if (from_slot) mach_value(q, v);
    mach_emit(q, d == TN_F32 && q->r->stream ? q->t->m->stream : q->t->m->store[d]);
    mach_patch(q, 0, TNI_MACH_OUT, o);
}

void tni_machine_plan_make(tni_run *r, const tni_walk *w, bool late) {
    tni_machine_plan *t = &r->machine;
    t->used = false;
    t->scratch = 0;
    if (!r->isa->machine || !mach_fits(r->p, w)) return;
    mach_planner q = {.r = r, .p = r->p, .w = w, .t = t};
    t->m = r->isa->machine();
    t->n_code = t->n_slots = t->n_fill = t->n_patch = 0;
    mach_count(&q);
    if (r->fetch) mach_fetches(&q);
    for (int o = 0; o < r->p->n_out && !q.failed; o++) {
        int v = r->p->out[o].value;
        if (late && q.slot[v] < 0) {
            q.uses[v]++; /* kept until its store */
            mach_to_memory(&q, v);
        } else if (!late) {
            mach_value(&q, v);
            mach_store(&q, o, false);
            mach_used(&q, v);
        }
    }
    for (int o = 0; late && o < r->p->n_out && !q.failed; o++) mach_store(&q, o, true);
    if (q.failed) return;
    mach_peephole(t);
    tni_code *end = &t->code[t->n_code++];
    memset(end, 0, sizeof *end);
    end->fn = t->m->end;
    t->used = true;
    t->scratch = (size_t)t->n_slots * t->m->tile * 4 +
                 (size_t)(w->n_in + w->n_out) * t->m->tile * 4 +
                 (size_t)t->n_code * sizeof(tni_code) + 64;
}

/* ---- Running
 * ------------------------------------------------------------------------------------------- */

static float mach_scalar(const tni_program *p, int in, const char *at) {
    uint16_t h;
    float f;
    switch (p->in[in].dtype) {
    case TN_BOOL:
        return *at != 0;
    case TN_F16:
        memcpy(&h, at, 2);
        return tni_f16_to_f32(h);
    case TN_BF16:
        memcpy(&h, at, 2);
        return tni_bf16_to_f32(h);
    default:
        memcpy(&f, at, 4);
        return f;
    }
}

static void mach_point(const tni_run *r, tni_code *code, char *slots, const char *const *in,
                       char *const *out) {
    const tni_machine_plan *t = &r->machine;
    for (int k = 0; k < t->n_patch; k++) {
        tni_code *c = &code[t->patch[k].code];
        int n = t->patch[k].n, second = t->patch[k].which;
        char *p = NULL;
        switch (t->patch[k].at) {
        case TNI_MACH_IN:
            p = (char *)(uintptr_t)in[n];
            break;
        case TNI_MACH_OUT:
            p = out[n];
            if (c->fn == t->m->stream && (uintptr_t)p % t->m->align) c->fn = t->m->store[TN_F32];
            break;
        case TNI_MACH_SLOT:
            p = slots + (size_t)n * t->m->tile * 4;
            break;
        default:
            *(second ? &c->imm2 : &c->imm) = mach_scalar(r->p, n, in[n]);
            continue;
        }
        *(second ? &c->q : &c->p) = p;
    }
}

static void mach_fills(const tni_run *r, char *slots, const char *const *in) {
    const tni_machine_plan *t = &r->machine;
    for (int k = 0; k < t->n_fill; k++) {
        const tni_inst *i = t->fill[k].inst;
        float *s = (float *)(void *)(slots + (size_t)t->fill[k].slot * t->m->tile * 4);
        float x = i->op == TNI_INST_CONST ? mach_constant(i) : mach_scalar(r->p, i->a, in[i->a]);
        for (size_t j = 0; j < t->m->tile; j++) s[j] = x;
    }
}

/* The last n elements, less than a tile: from and to padded copies of the operands. */
static void mach_tail(const tni_run *r, const tni_walk *w, tni_code *code, char *slots, char *pads,
                      const char *const *in, char *const *out, size_t n) {
    const tni_machine_plan *t = &r->machine;
    const char *pi[TNI_PROG_MAX_IN];
    char *po[TNI_PROG_MAX_OUT];
    for (int i = 0; i < w->n_in; i++, pads += t->m->tile * 4) {
        pi[i] = in[i];
        if (w->in[i].kind == TNI_WALK_SCALAR) continue;
        memcpy(pads, in[i], n * w->in[i].size);
        memset(pads + n * w->in[i].size, 0, (t->m->tile - n) * w->in[i].size);
        pi[i] = pads;
    }
    for (int i = 0; i < w->n_out; i++, pads += t->m->tile * 4) po[i] = pads;
    mach_point(r, code, slots, pi, po);
    t->m->run(code, t->m->tile, r->stream);
    for (int i = 0; i < w->n_out; i++) memcpy(out[i], po[i], n * w->out[i].size);
}

void tni_machine_run(const tni_run *r, const tni_walk *w, char *scratch, const char *const *in,
                     char *const *out, int64_t n) {
    const tni_machine_plan *t = &r->machine;
    size_t tile = t->m->tile, tail = (size_t)n % tile, whole = (size_t)n - tail;
    char *slots = scratch, *pads = slots + (size_t)t->n_slots * tile * 4;
    tni_code *code = (tni_code *)(void *)(pads + (size_t)(w->n_in + w->n_out) * tile * 4);
    memcpy(code, t->code, (size_t)t->n_code * sizeof *code);
    mach_fills(r, slots, in);
    if (whole) {
        mach_point(r, code, slots, in, out);
        t->m->run(code, whole, r->stream);
    }
    if (!tail) return;
    const char *pi[TNI_PROG_MAX_IN];
    char *po[TNI_PROG_MAX_OUT];
    for (int i = 0; i < w->n_in; i++)
        pi[i] = in[i] + (w->in[i].kind == TNI_WALK_SCALAR ? 0 : whole * w->in[i].size);
    for (int i = 0; i < w->n_out; i++) po[i] = out[i] + whole * w->out[i].size;
    mach_tail(r, w, code, slots, pads, pi, po, tail);
}
