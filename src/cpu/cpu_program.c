/* Entry of the fused-program executor: checks, choice of the machine, work for the threads. */
#include "cpu/cpu_program.h"
#include "base/cpu.h"
#include "base/err.h"
#include "base/scratch.h"
#include "base/thread.h"
#include "cpu/vm_run.h"
#include <string.h>

enum {
    PROGRAM_STREAM = 16 << 20, /* bytes of output: half of a 32 MiB L3 */
    PROGRAM_FETCH = 32 << 20,  /* bytes of operands: an L3; in it, prefetching costs 5 to 10 % */
    PROGRAM_SMALL = 16 << 10   /* bytes of scratch that the stack gives */
};

static const tni_vm_isa *program_isa(void) {
    switch (tni_cpu_info()->isa) {
#if defined(__x86_64__)
    case TNI_ISA_AVX512:
        return tni_vm_avx512();
    case TNI_ISA_AVX2:
        return tni_vm_avx2();
#elif defined(__aarch64__)
    case TNI_ISA_NEON:
        return tni_vm_neon();
#endif
    default:
        return tni_vm_ref();
    }
}

/* What a program may not be; anything here is a bug of the planner, but must not crash. */
static const char *program_operand_fault(const tni_program *p, int at) {
    const tni_inst *i = &p->inst[at];
    if (i->dtype >= TN_DTYPE_COUNT) return "dtype out of range";
    if (i->op == TNI_INST_LOAD) return i->a < p->n_in ? NULL : "input out of range";
    if (i->op == TNI_INST_CONST) return NULL;
    if (i->op == TNI_INST_CAST) return i->a < at ? NULL : "operand out of order";
    int e = i->op - TNI_INST_EW;
    if (e >= TNI_EW_COUNT) return "unknown instruction";
    int n = tni_ew_arity(e);
    if (i->a >= at || (n > 1 && i->b >= at) || (n > 2 && i->c >= at)) return "operand out of order";
    return NULL;
}

static const char *program_fault(const tni_program *p, const tni_vm_isa *isa) {
    if (p->ndim < 1 || p->ndim > TN_MAX_NDIM) return "number of dimensions";
    if (p->n_inst < 1 || p->n_inst > TNI_PROG_MAX_INST) return "number of instructions";
    if (p->n_in > TNI_PROG_MAX_IN || p->n_out < 1 || p->n_out > TNI_PROG_MAX_OUT) return "operands";
    for (int i = 0; i < p->n_inst; i++) {
        const char *fault = program_operand_fault(p, i);
        if (fault) return fault;
        if (p->inst[i].op < TNI_INST_EW) continue;
        int e = p->inst[i].op - TNI_INST_EW,
            operand = tni_ew_arity(e) == 3 ? p->inst[i].b : p->inst[i].a;
        if (!isa->ew[tni_cls_of((tn_dtype)p->inst[operand].dtype)][e])
            return "op has no such dtype";
    }
    for (int o = 0; o < p->n_out; o++)
        if (p->out[o].value >= p->n_inst) return "output out of range";
    if (p->reduce == TNI_RED_NONE) return NULL;
    if (p->reduce >= TNI_RED_COUNT || p->n_out != 1) return "reduction";
    enum tni_cls c = tni_cls_of((tn_dtype)p->inst[p->out[0].value].dtype);
    return isa->red(p->reduce)[c].size ? NULL : "reduction has no such dtype";
}

/* Measured on Zen 4: about 0.03 ns a cheap op, 0.3 ns a transcendental one, and memory. */
double tni_run_cost(const tni_program *p) {
    double ns = 0.1 * (p->n_in + p->n_out);
    for (int i = 0; i < p->n_inst; i++) {
        if (p->inst[i].op < TNI_INST_EW) continue;
        switch (p->inst[i].op - TNI_INST_EW) {
        case TNI_EW_add:
        case TNI_EW_sub:
        case TNI_EW_mul:
        case TNI_EW_neg:
        case TNI_EW_abs:
        case TNI_EW_square:
        case TNI_EW_maximum:
        case TNI_EW_minimum:
        case TNI_EW_where:
            ns += 0.04;
            break;
        default:
            ns += 0.3;
            break;
        }
    }
    return ns;
}

void tni_run_layout(tni_run *r) {
    size_t packs = r->walk.packs ? (size_t)(r->walk.n_in + r->walk.n_out) * TNI_PACK * 8 : 0;
    size_t slots = (size_t)r->tile.n_slots * TNI_TILE * 8;
    r->slots_at = packs;
    r->scratch_size = (packs + (r->machine.used ? r->machine.scratch : slots) + 63) / 64 * 64;
}

int tni_run_scratch(tni_run *r, int workers) {
    r->scratch_size = (r->scratch_size + 63) / 64 * 64;
    size_t bytes = (size_t)workers * r->scratch_size;
    r->scratch = tni_scratch_take(bytes ? bytes : 64);
    return r->scratch ? 0 : tni_fail_memory(bytes, "scratch of a fused program");
}

typedef struct program_job {
    const tni_run *r;
    int64_t n, chunk;
    const char *in[TNI_PROG_MAX_IN];
    char *out[TNI_PROG_MAX_OUT];
} program_job;

static void program_chunks(void *ctx, int64_t begin, int64_t end, int worker) {
    const program_job *j = ctx;
    int64_t first = begin * j->chunk, last = end * j->chunk;
    if (last > j->n) last = j->n;
    tni_walk_range(j->r, &j->r->walk, j->r->scratch + (size_t)worker * j->r->scratch_size, j->in,
                   j->out, first, last - first);
}

static void program_walk(tni_run *r) {
    const tni_program *p = r->p;
    tni_walk *w = &r->walk;
    w->nd = p->ndim;
    w->n_in = p->n_in;
    w->n_out = p->n_out;
    memcpy(w->shape, p->shape, sizeof(int64_t) * p->ndim);
    for (int i = 0; i < p->n_in; i++) {
        w->in[i].strides = p->in[i].strides;
        w->in[i].size = tn_dtype_size(p->in[i].dtype);
    }
    for (int i = 0; i < p->n_out; i++) {
        w->out[i].strides = p->out[i].strides;
        w->out[i].size = tn_dtype_size(p->out[i].dtype);
    }
    tni_walk_plan(w);
}

static bool program_aliases(const tni_program *p, const void *const *in, void *const *out) {
    for (int o = 0; o < p->n_out; o++)
        for (int i = 0; i < p->n_in; i++)
            if (in[i] == out[o]) return true;
    return false;
}

/* Outputs that no cache would keep are written around it: 1.3 to 1.9 times faster from DRAM. */
static bool program_streams(const tni_run *r, const void *const *in, void *const *out, int64_t n) {
    int64_t bytes = 0;
    for (int o = 0; o < r->p->n_out; o++) bytes += n * (int64_t)r->walk.out[o].size;
    return bytes >= (int64_t)PROGRAM_STREAM && !program_aliases(r->p, in, out);
}

static bool program_fetches(const tni_run *r, int64_t n) {
    size_t bytes = 0;
    for (int i = 0; i < r->p->n_in; i++) bytes += r->walk.in[i].size;
    for (int o = 0; o < r->p->n_out; o++) bytes += r->walk.out[o].size;
    return n * (int64_t)bytes > PROGRAM_FETCH;
}

static int program_elementwise(tni_run *r, const void *const *in, void *const *out) {
    program_job j = {.r = r, .n = 1};
    program_walk(r);
    for (int d = 0; d < r->walk.nd; d++) j.n *= r->walk.shape[d];
    for (int i = 0; i < r->p->n_in; i++) j.in[i] = in[i];
    for (int i = 0; i < r->p->n_out; i++) j.out[i] = out[i];
    r->stream = program_streams(r, in, out, j.n);
    r->fetch = program_fetches(r, j.n);
    tni_machine_plan_make(r, &r->walk, r->p->n_out > 1 && program_aliases(r->p, in, out));
    if (!r->machine.used) tni_tile_plan_make(r, &r->walk);
    int threads = tni_threads();
    bool worth = threads > 1 && (double)j.n * tni_run_cost(r->p) > 20000.0;
    j.chunk = worth ? (j.n / (8 * threads) + TNI_BLOCK) / TNI_BLOCK * TNI_BLOCK : j.n;
    if (j.chunk > 256 * TNI_BLOCK) j.chunk = 256 * TNI_BLOCK;
    tni_run_layout(r);
    _Alignas(64) char small[PROGRAM_SMALL];
    bool on_stack = !worth && r->scratch_size <= sizeof small;
    if (on_stack)
        r->scratch = small;
    else if (tni_run_scratch(r, worth ? threads : 1))
        return TN_EMEMORY;
    int64_t chunks = (j.n + j.chunk - 1) / j.chunk;
    if (worth)
        tni_parallel(chunks, 1, program_chunks, &j);
    else
        program_chunks(&j, 0, chunks, 0);
    if (!on_stack) tni_scratch_give(r->scratch);
    return 0;
}

static int program_run(const tni_vm_isa *isa, const tni_program *p, const void *const *in,
                       void *const *out) {
    tni_run r;
    r.p = p;
    r.isa = isa;
    r.to_class = r.stream = r.fetch = false;
    r.machine.used = false;
    r.scratch = NULL;
    return p->reduce == TNI_RED_NONE ? program_elementwise(&r, in, out)
                                     : tni_run_reduce(&r, in, out[0]);
}

int tni_cpu_run_isa(const tni_vm_isa *isa, const tni_program *p, const void *const *in,
                    void *const *out) {
    const char *fault = program_fault(p, isa);
    if (fault) return tni_fail(TN_EINTERNAL, "fused program is malformed: %s", fault);
    if (tni_tile_small(p, isa, in, out)) return 0;
    return program_run(isa, p, in, out);
}

int tni_cpu_run(const tni_program *p, const void *const *in, void *const *out) {
    return tni_cpu_run_isa(program_isa(), p, in, out);
}
