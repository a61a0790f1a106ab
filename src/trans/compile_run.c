/* Replaying a plan. Everything that can fail besides the launches comes first; what changes the
 * slots comes last. */
#include "base/err.h"
#include "core/buffer.h"
#include "ops/random.h"
#include "trans/compile.h"
#include <string.h>

/* State that nobody but its slot can see: its record and its memory may be used again. */
static bool run_exclusive(const tn_array *a) {
    return atomic_load_explicit(&((tn_array *)(uintptr_t)a)->refs, memory_order_acquire) == 1 &&
           tni_state_of(a) == TNI_READY &&
           (!a->buf ||
            (!a->buf->borrowed && atomic_load_explicit(&a->buf->refs, memory_order_acquire) == 1));
}

static tni_buffer **run_copy(compiled_plan *p, int arg) {
    return &p->memory[p->own.n + (size_t)arg];
}

/* Memory for the arguments: their own, or a copy of what is written over but seen elsewhere. */
static int run_arguments(compiled_plan *p, tn_array *const *x) {
    for (int i = 0; i < p->n_arg; i++) {
        const tni_flat_buffer *b = &p->flat.buffers.v[p->arg[i]];
        char *data = tni_array_data(x[i]);
        if (b->written && !run_exclusive(x[i])) {
            tni_buffer *copy = *run_copy(p, i) = tni_buffer_new(tn_nbytes(x[i]));
            if (!copy) return TN_EMEMORY;
            data = memcpy(copy->data, data, tn_nbytes(x[i]));
        }
        p->flat.base[p->arg[i]] = data;
    }
    for (size_t k = 0; k < p->own.n; k++) {
        const tni_flat_buffer *b = &p->flat.buffers.v[p->own.v[k]];
        if (!(p->memory[k] = tni_buffer_new(b->size))) return TN_EMEMORY;
        p->flat.base[p->own.v[k]] = p->memory[k]->data;
    }
    return 0;
}

/* A slot's array may take the result as its own new value. */
static bool run_refills(const compiled_result *r, const tn_array *a) {
    return r->from == COMPILED_BUFFER && r->row_major && r->dtype == (tn_dtype)a->dtype &&
           r->weak == !!(a->flags & TNI_A_WEAK) && r->ndim == a->ndim &&
           !memcmp(r->shape, a->shape, sizeof(int64_t) * a->ndim) && run_exclusive(a) &&
           (r->size <= COMPILED_INLINE) == !a->buf && tni_row_major(a);
}

static tn_array *run_new(const compiled_result *r, tn_array *const *x) {
    if (r->from != COMPILED_BUFFER) {
        tn_array *a = r->from == COMPILED_ARGUMENT ? x[r->argument] : r->constant;
        tni_array_retain(a);
        return a;
    }
    tn_array *a = tni_array_alloc(r->dtype, r->ndim, r->shape);
    if (!a) return NULL;
    memcpy(a->strides, r->strides, sizeof(int64_t) * (size_t)r->ndim);
    if (r->weak) a->flags |= TNI_A_WEAK;
    atomic_store_explicit(&a->state, TNI_READY, memory_order_release);
    return a;
}

/* The results' arrays; NULL where the slot's array is refilled. Outputs belong to the scope at
 * once, so that nothing can fail later. The key needs none. */
static int run_made(tn_compiled *c, compiled_plan *p, tn_array *const *x) {
    for (int k = 0; k < c->n_out + c->n_state; k++) {
        if (k >= c->n_out && run_refills(&p->result[k], *c->state[k - c->n_out])) continue;
        tn_array *a = run_new(&p->result[k], x);
        if (!a) return TN_EMEMORY;
        if (k < c->n_out && tni_is_error(a = tni_scope_own(a))) return a->status;
        p->made[k] = a;
    }
    return 0;
}

/* ---- after the launches: nothing here fails ---- */

/* Arguments' own memory, held: refilling one slot must not lose what another result lies in. */
static void run_hold(compiled_plan *p, tn_array *const *x) {
    for (int i = 0; i < p->n_arg; i++) {
        tni_buffer **held = run_copy(p, i);
        if (!*held && x[i]->buf) tni_buffer_retain(*held = x[i]->buf);
    }
}

/* The memory that a result lies in; NULL: it is no memory that outlives the run. */
static tni_buffer *run_memory(compiled_plan *p, const compiled_result *r) {
    if (r->argument >= 0) return *run_copy(p, r->argument);
    for (size_t k = 0; k < p->own.n; k++)
        if (p->own.v[k] == r->buffer) return p->memory[k];
    return NULL;
}

static void run_fill(compiled_plan *p, const compiled_result *r, tn_array *a) {
    const char *data = p->flat.base[r->buffer] + r->at;
    tni_buffer *buf = r->size <= COMPILED_INLINE ? NULL : run_memory(p, r), *old = a->buf;
    if (!buf) {
        a->inl[0] = 0;
        if (r->size) memcpy(a->inl, data, tn_dtype_size(r->dtype));
        return;
    }
    tni_buffer_retain(buf);
    a->buf = buf, a->offset = data - (const char *)buf->data;
    tni_buffer_release(old);
}

static void run_finish(tn_compiled *c, compiled_plan *p, tn_array *const *x, tn_array **out) {
    int n = c->n_out + c->n_state;
    const compiled_result *key = &p->result[n];
    uint32_t next[2];
    run_hold(p, x);
    for (int k = 0; k < n; k++)
        if (p->result[k].from == COMPILED_BUFFER)
            run_fill(p, &p->result[k], p->made[k] ? p->made[k] : *c->state[k - c->n_out]);
    if (p->random && key->from == COMPILED_BUFFER)
        tni_random_put(memcpy(next, p->flat.base[key->buffer] + key->at, sizeof next));
    else if (p->random && key->from == COMPILED_CONSTANT)
        tni_random_put(memcpy(next, tni_array_data(key->constant), sizeof next));
    for (int k = 0; k < n; k++) {
        if (!p->made[k]) continue;
        if (k < c->n_out) {
            out[k] = p->made[k];
        } else {
            tn_array **slot = c->state[k - c->n_out];
            tni_array_release(*slot);
            *slot = p->made[k];
        }
        p->made[k] = NULL;
    }
}

static void run_release(compiled_plan *p, int n_out) {
    for (size_t k = 0; k < p->own.n + (size_t)p->n_arg; k++) {
        tni_buffer_release(p->memory[k]);
        p->memory[k] = NULL;
    }
    for (int k = 0; k < p->n_result; k++) {
        if (p->made[k] && k >= n_out) tni_array_release(p->made[k]);
        p->made[k] = NULL;
    }
}

/* Whether one of the first `n` launches wrote over memory that a slot still shows. */
static bool run_spoiled(const compiled_plan *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const tni_flat_launch *l = &p->flat.launches.v[i];
        for (int k = l->n_in; k < l->n_in + l->n_out; k++) {
            int32_t buffer = p->flat.operands.v[l->operand + k].buffer;
            for (int a = 0; a < p->n_arg && buffer >= 0; a++)
                if (p->arg[a] == buffer && !p->memory[p->own.n + (size_t)a]) return true;
        }
    }
    return false;
}

/* Memory of at least n bytes. A kept one that is too small goes before the larger is made. */
static tni_buffer *run_arena(tn_compiled *c, size_t n) {
    tni_buffer *b = c->arena;
    c->arena = NULL;
    if (b && b->size >= n) return b;
    tni_buffer_release(b);
    return tni_buffer_new(n);
}

int tni_compiled_run(tn_compiled *c, compiled_plan *p, tn_array *const *x, tn_array **out) {
    size_t done = 0;
    tni_buffer *arena = NULL;
    int status = run_arguments(p, x);
    if (!status) status = run_made(c, p, x);
    if (!status && p->flat.arena && !(arena = run_arena(c, p->flat.arena))) status = TN_EMEMORY;
    if (!status) {
        status = tni_flat_run(&p->flat, arena ? arena->data : NULL, &done);
        if (status && run_spoiled(p, done))
            tni_fail(status, "%s (in a compiled function that had begun to write its new state)",
                     tni_error());
    }
    if (!status) run_finish(c, p, x, out);
    run_release(p, c->n_out);
    if (c->keep && arena)
        c->arena = arena;
    else
        tni_buffer_release(arena);
    return status;
}
