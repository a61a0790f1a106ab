/* Reductions. Every output is joined in one order, whatever the layout, the ISA, the number
 * of threads and whether the program was fused: the reduced elements are numbered row-major
 * (over the reduced dimensions), blocks of TNI_BLOCK of them are joined in 64 partial results
 * (element i in partial i % 64, folded by halves), and the blocks in a binary tree.
 *
 * Two ways through memory: rows, where values are computed a block at a time into scratch that
 * stays in L1 and a kernel joins it; and columns, where the inner dimension is kept and the
 * partial results of a window of columns are vectors. Little work a row goes in batches of rows;
 * few outputs with many blocks go to the threads by blocks. */
#include "base/err.h"
#include "base/scratch.h"
#include "base/thread.h"
#include "cpu/vm_run.h"
#include <string.h>

enum { REDUCE_PARTS = 64, REDUCE_WINDOW = 256, REDUCE_COLUMNS_MIN = 16 };

typedef struct reduce_job {
    tni_run *r;
    const tni_red_fns *f;
    size_t value_size, out_size; /* of a value in its class; of a result in memory */
    bool direct;                 /* the operand lies in memory as kernels want it */
    int n_kept;                  /* dimensions [0, n_kept) of `walk` are kept, or `outer` ones */
    int64_t n_outer, n_reduced, n_blocks;
    int64_t batch, width; /* rows: outputs a unit; columns: outputs in a window */
    int64_t column;       /* columns: first column of this pass */
    int64_t in_strides[TNI_PROG_MAX_IN][TN_MAX_NDIM], out_strides[TN_MAX_NDIM];
    int64_t outer_shape[TN_MAX_NDIM], outer_in[TNI_PROG_MAX_IN][TN_MAX_NDIM];
    int64_t out_inner; /* columns: the output's stride along the window */
    const char *in[TNI_PROG_MAX_IN];
    char *out;
    char *states; /* shared: one per block, when blocks go to threads */
    int64_t unit; /* the output or window those blocks belong to */
} reduce_job;

/* ---- Shared pieces ------------------------------------------------------------------------- */

/* A worker's scratch: values, partial states, block states, results. */
static char *reduce_scratch(const reduce_job *j, int worker) {
    return j->r->scratch + (size_t)worker * j->r->scratch_size;
}
static char *reduce_values(const reduce_job *j, int worker) {
    return reduce_scratch(j, worker) + j->r->red_at;
}
static char *reduce_parts(const reduce_job *j, int worker) {
    return reduce_values(j, worker) + (size_t)TNI_BLOCK * 8;
}
static size_t reduce_parts_size(const reduce_job *j) {
    return ((size_t)REDUCE_PARTS * (size_t)j->width * j->f->size + 63) / 64 * 64;
}
static size_t reduce_state_size(const reduce_job *j) {
    return ((size_t)j->width * j->f->size + 63) / 64 * 64;
}
static char *reduce_blocks(const reduce_job *j, int worker) {
    return reduce_parts(j, worker) + reduce_parts_size(j);
}

/* Joins n states of `width` outputs, `size` bytes apart, into the first. */
static void reduce_tree(const reduce_job *j, char *states, int64_t n) {
    size_t size = reduce_state_size(j);
    for (int64_t step = 1; step < n; step *= 2)
        for (int64_t i = 0; i + step < n; i += 2 * step)
            j->f->merge((size_t)j->width, states + (size_t)i * size,
                        states + (size_t)(i + step) * size);
}

static int64_t reduce_offset(const reduce_job *j, const int64_t *strides, int64_t outer) {
    int64_t off = 0;
    for (int d = j->n_kept - 1; d >= 0; d--) {
        off += outer % j->outer_shape[d] * strides[d];
        outer /= j->outer_shape[d];
    }
    return off;
}

/* n results in their class, of consecutive outputs `stride` apart, to memory. */
static void reduce_write(const reduce_job *j, char *results, int64_t at, int64_t stride,
                         int64_t n) {
    tn_dtype d = j->r->p->out[0].dtype;
    if (j->r->isa->store[d]) j->r->isa->store[d]((size_t)n, results, results);
    for (int64_t i = 0; i < n; i++)
        memcpy(j->out + (at + i * stride) * (int64_t)j->out_size, results + (size_t)i * j->out_size,
               j->out_size);
}

/* ---- Rows -------------------------------------------------------------------------------------
 */

/* Values [first, first + n) of the whole space (outputs x reduced elements), in their class. */
static const char *reduce_eval(const reduce_job *j, int worker, int64_t first, int64_t n) {
    char *values = reduce_values(j, worker);
    if (j->direct) {
        int64_t off = reduce_offset(j, j->outer_in[0], first / j->n_reduced);
        return j->in[0] + (off + first % j->n_reduced) * (int64_t)j->value_size;
    }
    tni_walk_range(j->r, &j->r->walk, reduce_scratch(j, worker), j->in, &values, first, n);
    return values;
}

static void reduce_row_block(const reduce_job *j, int worker, int64_t output, int64_t b,
                             char *state) {
    int64_t at = b * TNI_BLOCK, n = j->n_reduced - at;
    if (n > TNI_BLOCK) n = TNI_BLOCK;
    j->f->row((size_t)n, state, reduce_eval(j, worker, output * j->n_reduced + at, n), at);
}

static void reduce_finish_row(const reduce_job *j, int worker, int64_t output, char *states) {
    char *result = reduce_values(j, worker);
    reduce_tree(j, states, j->n_blocks);
    j->f->finish(1, result, states);
    reduce_write(j, result, reduce_offset(j, j->out_strides, output), 0, 1);
}

/* Several short rows: one evaluation, then a kernel call a row. */
static void reduce_batch(const reduce_job *j, int worker, int64_t first, int64_t n) {
    char *results = reduce_parts(j, worker);
    const char *x = NULL;
    size_t result_size = tni_cls_size(j->f->out);
    if (!j->direct) x = reduce_eval(j, worker, first * j->n_reduced, n * j->n_reduced);
    for (int64_t i = 0; i < n; i++) {
        uint64_t state[2];
        const char *row = j->direct ? reduce_eval(j, worker, (first + i) * j->n_reduced, 0)
                                    : x + (size_t)(i * j->n_reduced) * j->value_size;
        j->f->row((size_t)j->n_reduced, state, row, 0);
        j->f->finish(1, results + (size_t)i * result_size, state);
    }
    int64_t stride = j->n_kept ? j->out_strides[j->n_kept - 1] : 0, done = 0;
    while (done < n) { /* as far as the innermost kept dimension reaches */
        int64_t inner = j->n_kept ? j->outer_shape[j->n_kept - 1] : 1;
        int64_t k = inner - (first + done) % inner;
        if (k > n - done) k = n - done;
        char *piece = results + (size_t)done * result_size;
        reduce_write(j, piece, reduce_offset(j, j->out_strides, first + done), stride, k);
        done += k;
    }
}

static void reduce_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    const reduce_job *j = ctx;
    for (int64_t u = begin; u < end; u++) {
        int64_t first = u * j->batch, n = j->n_outer - first;
        if (n > j->batch) n = j->batch;
        if (j->n_blocks == 1) {
            reduce_batch(j, worker, first, n);
            continue;
        }
        for (int64_t o = first; o < first + n; o++) {
            char *states = reduce_blocks(j, worker);
            for (int64_t b = 0; b < j->n_blocks; b++)
                reduce_row_block(j, worker, o, b, states + (size_t)b * reduce_state_size(j));
            reduce_finish_row(j, worker, o, states);
        }
    }
}

static void reduce_row_blocks(void *ctx, int64_t begin, int64_t end, int worker) {
    const reduce_job *j = ctx;
    for (int64_t b = begin; b < end; b++)
        reduce_row_block(j, worker, j->unit, b, j->states + (size_t)b * reduce_state_size(j));
}

/* ---- Columns ------------------------------------------------------------------------------------
 */

static void reduce_col_inputs(const reduce_job *j, int64_t outer, int64_t column, const char **in) {
    const tni_walk *w = &j->r->walk;
    for (int i = 0; i < w->n_in; i++) {
        int64_t off = reduce_offset(j, j->outer_in[i], outer);
        off += column * w->in[i].strides[w->nd - 1];
        in[i] = j->in[i] + off * (int64_t)w->in[i].size;
    }
}

/* Folds the partial states in use (the others are the identity) into the first. */
static void reduce_col_fold(const reduce_job *j, char *parts, int64_t used) {
    size_t size = (size_t)j->width * j->f->size;
    for (int64_t h = REDUCE_PARTS / 2; h; h /= 2)
        for (int64_t i = 0; i < h && i + h < used; i++)
            j->f->merge((size_t)j->width, parts + (size_t)i * size, parts + (size_t)(i + h) * size);
}

static void reduce_col_block(const reduce_job *j, int worker, int64_t unit, int64_t b,
                             char *state) {
    int64_t r = b * TNI_BLOCK, end = r + TNI_BLOCK;
    if (end > j->n_reduced) end = j->n_reduced;
    const char *in[TNI_PROG_MAX_IN];
    char *parts = reduce_parts(j, worker), *values = reduce_values(j, worker);
    size_t size = (size_t)j->width * j->f->size;
    int64_t used = end - r < REDUCE_PARTS ? end - r : REDUCE_PARTS;
    reduce_col_inputs(j, unit / j->batch, j->column + unit % j->batch * j->width, in);
    for (int64_t i = 0; i < used; i++) j->f->init((size_t)j->width, parts + (size_t)i * size);
    while (r < end) {
        int64_t rows = TNI_BLOCK / j->width, step = j->width * (int64_t)j->value_size;
        if (rows > end - r) rows = end - r;
        const char *x = values;
        if (j->direct) {
            step = j->r->walk.in[0].strides[0] * (int64_t)j->value_size;
            x = in[0] + r * step;
        } else
            tni_walk_range(j->r, &j->r->walk, reduce_scratch(j, worker), in, &values, r * j->width,
                           rows * j->width);
        for (int64_t i = 0; i < rows; i++, r++)
            j->f->col((size_t)j->width, parts + (size_t)(r % REDUCE_PARTS) * size, x + i * step, r);
    }
    reduce_col_fold(j, parts, used);
    memcpy(state, parts, size);
}

static void reduce_finish_col(const reduce_job *j, int worker, int64_t unit, char *states) {
    int64_t outer = unit / j->batch, column = j->column + unit % j->batch * j->width;
    char *results = reduce_values(j, worker);
    reduce_tree(j, states, j->n_blocks);
    j->f->finish((size_t)j->width, results, states);
    reduce_write(j, results, reduce_offset(j, j->out_strides, outer) + column * j->out_inner,
                 j->out_inner, j->width);
}

static void reduce_cols(void *ctx, int64_t begin, int64_t end, int worker) {
    const reduce_job *j = ctx;
    for (int64_t u = begin; u < end; u++) {
        char *states = reduce_blocks(j, worker);
        for (int64_t b = 0; b < j->n_blocks; b++)
            reduce_col_block(j, worker, u, b, states + (size_t)b * reduce_state_size(j));
        reduce_finish_col(j, worker, u, states);
    }
}

static void reduce_col_blocks(void *ctx, int64_t begin, int64_t end, int worker) {
    const reduce_job *j = ctx;
    for (int64_t b = begin; b < end; b++)
        reduce_col_block(j, worker, j->unit, b, j->states + (size_t)b * reduce_state_size(j));
}

/* ---- Planning
 * --------------------------------------------------------------------------------------- */

/* Dimensions of the loop: those kept (but the inner one, for columns), then those reduced. */
static void reduce_dims(reduce_job *j, bool columns) {
    const tni_program *p = j->r->p;
    tni_walk *w = &j->r->walk;
    j->n_kept = 0;
    j->n_outer = j->n_reduced = 1;
    w->nd = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int d = 0; d < p->ndim; d++) {
            bool reduced = p->reduce_mask >> d & 1;
            if (reduced != (pass == 1) || (columns && d == p->ndim - 1)) continue;
            if (pass == 0) {
                for (int i = 0; i < p->n_in; i++) j->outer_in[i][j->n_kept] = p->in[i].strides[d];
                j->out_strides[j->n_kept] = p->out[0].strides[d];
                j->outer_shape[j->n_kept++] = p->shape[d];
                j->n_outer *= p->shape[d];
            } else
                j->n_reduced *= p->shape[d];
            if (pass == 0 && columns) continue;
            for (int i = 0; i < p->n_in; i++) j->in_strides[i][w->nd] = p->in[i].strides[d];
            w->shape[w->nd++] = p->shape[d];
        }
    if (!columns) return;
    for (int i = 0; i < p->n_in; i++) j->in_strides[i][w->nd] = p->in[i].strides[p->ndim - 1];
    j->out_inner = p->out[0].strides[p->ndim - 1];
    w->shape[w->nd++] = p->shape[p->ndim - 1];
}

static void reduce_plan_walk(reduce_job *j) {
    tni_run *r = j->r;
    tni_walk *w = &r->walk;
    w->n_in = r->p->n_in;
    w->n_out = 1;
    for (int i = 0; i < w->n_in; i++) {
        w->in[i].strides = j->in_strides[i];
        w->in[i].size = tn_dtype_size(r->p->in[i].dtype);
    }
    w->out[0].strides = NULL;
    w->out[0].size = j->value_size;
    tni_walk_plan(w);
    tni_machine_plan_make(r, w, false);
    if (!r->machine.used) tni_tile_plan_make(r, w);
}

/* The program is one load whose bytes are the class's: kernels may read the operand itself,
 * when it is contiguous along the reduced dimensions (rows) or the columns. */
static bool reduce_direct(const reduce_job *j, bool columns) {
    const tni_program *p = j->r->p;
    const tni_walk *w = &j->r->walk;
    if (p->n_inst != 1 || p->inst[0].op != TNI_INST_LOAD || j->r->isa->load[p->inst[0].dtype])
        return false;
    if (columns) return w->nd == 2 && j->in_strides[0][1] == 1;
    int64_t expect = 1;
    for (int d = w->nd - 1; d >= j->n_kept; d--) {
        if (w->shape[d] != 1 && j->in_strides[0][d] != expect) return false;
        expect *= w->shape[d];
    }
    return true;
}

/* Work above about 20 us goes to the threads. */
static bool reduce_worth_threads(const reduce_job *j, double elements) {
    return tni_threads() > 1 && elements * tni_run_cost(j->r->p) > 20000.0;
}

/* Units of work: many go to the threads as they are, few by their blocks. */
static int reduce_units(reduce_job *j, int64_t units, double elements, tni_range_fn all,
                        tni_range_fn blocks,
                        void (*finish)(const reduce_job *, int, int64_t, char *)) {
    tni_run *r = j->r;
    bool threads = reduce_worth_threads(j, elements);
    bool split = threads && units < 4 * (int64_t)tni_threads() && j->n_blocks > 1;
    size_t states = reduce_state_size(j) * (size_t)j->n_blocks;
    tni_run_layout(r);
    r->red_at = r->scratch_size;
    r->scratch_size += (size_t)TNI_BLOCK * 8 + reduce_parts_size(j) + (split ? 0 : states);
    if (!split && j->n_blocks == 1)
        r->scratch_size += (size_t)TNI_BLOCK * 8; /* a batch's results */
    int workers = threads ? tni_threads() : 1, err = tni_run_scratch(r, workers);
    if (err) return err;
    if (split) {
        j->states = tni_scratch_take(states);
        if (!j->states) err = tni_fail_memory(states, "partial results of a reduction");
        for (j->unit = 0; !err && j->unit < units; j->unit++) {
            tni_parallel(j->n_blocks, 1, blocks, j);
            finish(j, 0, j->unit, j->states);
        }
        tni_scratch_give(j->states);
    } else {
        int64_t grain = threads ? units / (8 * (int64_t)workers) : units;
        tni_parallel(units, grain > 0 ? grain : 1, all, j);
    }
    tni_scratch_give(r->scratch);
    return err;
}

static int reduce_by_rows(reduce_job *j) {
    reduce_dims(j, false);
    reduce_plan_walk(j);
    j->direct = reduce_direct(j, false);
    j->n_blocks = (j->n_reduced + TNI_BLOCK - 1) / TNI_BLOCK;
    j->width = 1;
    j->batch = j->n_reduced > TNI_BLOCK ? 1 : TNI_BLOCK / j->n_reduced;
    if (j->batch > 256) j->batch = 256;
    int64_t units = (j->n_outer + j->batch - 1) / j->batch;
    return reduce_units(j, units, (double)j->n_outer * (double)j->n_reduced, reduce_rows,
                        reduce_row_blocks, reduce_finish_row);
}

/* Windows of REDUCE_WINDOW columns, then the remaining columns as a window of their own. */
static int reduce_by_columns(reduce_job *j) {
    reduce_dims(j, true);
    tni_walk *w = &j->r->walk;
    int64_t columns = w->shape[w->nd - 1], full = columns / REDUCE_WINDOW;
    j->n_blocks = (j->n_reduced + TNI_BLOCK - 1) / TNI_BLOCK;
    for (int pass = 0; pass < 2; pass++) {
        j->column = pass == 0 ? 0 : full * REDUCE_WINDOW;
        j->batch = pass == 0 ? full : 1; /* windows an outer index */
        j->width = pass == 0 ? REDUCE_WINDOW : columns - j->column;
        if (j->batch == 0 || j->width == 0) continue;
        w->shape[w->nd - 1] = j->width;
        reduce_plan_walk(j);
        j->direct = reduce_direct(j, true);
        double elements = (double)j->n_outer * (double)(j->batch * j->width) * (double)j->n_reduced;
        int err = reduce_units(j, j->n_outer * j->batch, elements, reduce_cols, reduce_col_blocks,
                               reduce_finish_col);
        if (err) return err;
    }
    return 0;
}

/* Nothing to reduce: every output is the identity. */
static void reduce_empty(reduce_job *j) {
    reduce_dims(j, false);
    j->width = 1;
    for (int64_t o = 0; o < j->n_outer; o++) {
        uint64_t state[2], result[1];
        j->f->init(1, state);
        j->f->finish(1, result, state);
        reduce_write(j, (char *)result, reduce_offset(j, j->out_strides, o), 0, 1);
    }
}

int tni_run_reduce(tni_run *r, const void *const *in, void *out) {
    const tni_program *p = r->p;
    tn_dtype value = (tn_dtype)p->inst[p->out[0].value].dtype;
    reduce_job j = {.r = r, .f = &r->isa->red(p->reduce)[tni_cls_of(value)], .out = out};
    int64_t reduced = 1;
    j.value_size = tni_cls_size(tni_cls_of(value));
    j.out_size = tn_dtype_size(p->out[0].dtype);
    r->to_class = true;
    for (int i = 0; i < p->n_in; i++) j.in[i] = in[i];
    for (int d = 0; d < p->ndim; d++)
        if (p->reduce_mask >> d & 1) reduced *= p->shape[d];
    if (reduced == 0) {
        reduce_empty(&j);
        return 0;
    }
    bool inner_kept = !(p->reduce_mask >> (p->ndim - 1) & 1);
    if (inner_kept && p->reduce_mask && p->reduce != TNI_RED_logsumexp &&
        p->shape[p->ndim - 1] >= REDUCE_COLUMNS_MIN)
        return reduce_by_columns(&j);
    return reduce_by_rows(&j);
}
