/* Imported functions: a file read once; a call builds the nodes of the trace that fits its
 * arguments anew, so that it is part of whatever graph or transform is under way. */
#include "base/err.h"
#include "base/mmap.h"
#include "core/shape.h"
#include "ops/random.h"
#include "trans/call.h"
#include "trans/export.h"
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* The mapping, which constants look into: it stays as long as any of them. */
typedef struct import_file {
    _Atomic int64_t refs;
    tni_file file;
} import_file;

static int import_no_memory(void) { return tni_fail_memory(sizeof(tn_imported), "importing"); }

static void import_retain(void *file) { atomic_fetch_add(&((import_file *)file)->refs, 1); }

static void import_release(void *ud) {
    import_file *m = ud;
    if (atomic_fetch_sub(&m->refs, 1) != 1) return;
    tni_file_close(&m->file);
    tni_free(m);
}

/* ---- reading ---- */

static int import_source(tn_imported *f, const ex_source *s) {
    tn_scope *scope = tn_scope_begin();
    int status = tni_ex_read(s, &f->f);
    tn_scope_end(scope);
    return status;
}

static int import_read(tn_imported *f) {
    import_file *m = tni_calloc(1, sizeof *m);
    if (!m) return import_no_memory();
    int status = tni_file_map(f->path, &m->file);
    if (status) {
        tni_free(m);
        return status;
    }
    atomic_init(&m->refs, 1);
    const ex_source s = {f->path, m->file.data, m->file.size, import_retain, import_release, m};
    status = import_source(f, &s);
    if (!status) status = tni_file_check(&m->file);
    import_release(m);
    return status;
}

static tn_imported *import_new(const char *path) {
    tn_imported *f = tni_calloc(1, sizeof *f);
    if (f) f->path = tni_strdup(path);
    if (f && f->path) return f;
    import_no_memory();
    tn_imported_free(f);
    return NULL;
}

static tn_imported *import_done(tn_imported *f, int status) {
    if (!status) return f;
    tn_imported_free(f);
    return NULL;
}

tn_imported *tn_import(const char *path) {
    if (!path) {
        tni_fail(TN_EVALUE, "import: the path is NULL");
        return NULL;
    }
    tn_imported *f = import_new(path);
    return f ? import_done(f, import_read(f)) : NULL;
}

tn_imported *tni_import_memory(const char *name, const void *data, size_t size) {
    tn_imported *f = import_new(name);
    return f ? import_done(f,
                           import_source(f, &(ex_source){.name = name, .data = data, .size = size}))
             : NULL;
}

void tn_imported_free(tn_imported *f) {
    if (!f) return;
    tni_ex_function_free(&f->f);
    tni_free(f->path);
    tni_free(f);
}

int tn_imported_results(const tn_imported *f) { return f ? f->f.n_out : 0; }
int tn_imported_traces(const tn_imported *f) { return f ? (int)f->f.traces.n : 0; }
const char *tn_imported_text(const tn_imported *f) { return f && f->f.text ? f->f.text : ""; }

int tn_imported_arguments(const tn_imported *f, int trace) {
    if (!f || trace < 0 || (size_t)trace >= f->f.traces.n) return 0;
    return (int)f->f.traces.v[trace]->n_in;
}

tn_ints tn_imported_argument(const tn_imported *f, int trace, int argument, tn_dtype *dtype) {
    if (argument < 0 || argument >= tn_imported_arguments(f, trace)) return (tn_ints){NULL, 0};
    tni_out_spec s = tni_ex_spec(f->f.traces.v[trace], (uint32_t)argument);
    if (dtype) *dtype = s.dtype;
    return (tn_ints){s.shape, s.ndim};
}

/* ---- calling ---- */

static bool import_fits(const ex_trace *t, tn_list in) {
    bool fits = t->n_in == (uint32_t)in.n;
    for (int i = 0; i < in.n && fits; i++) {
        const tn_array *a = in.v[i];
        tni_out_spec s = tni_ex_spec(t, (uint32_t)i);
        fits = a->dtype == s.dtype && tni_same_shape(a->ndim, a->shape, s.ndim, s.shape);
    }
    return fits;
}

/* What was given, as a record, for its text. */
static char *import_given(tn_list in, char *buf, size_t n) {
    ex_trace t = {.n_in = (uint32_t)in.n};
    int status = 0;
    for (int i = 0; i < in.n && !status; i++)
        status = tni_ex_value(&t, (tn_dtype)in.v[i]->dtype, in.v[i]->ndim, in.v[i]->shape);
    if (status)
        snprintf(buf, n, "%d arrays", in.n);
    else
        tni_ex_signature(&t, buf, n);
    tni_vec_free(&t.values);
    tni_vec_free(&t.shapes);
    return buf;
}

static const ex_trace *import_find(const tn_imported *f, tn_list in) {
    char given[200], has[200];
    for (size_t i = 0; i < f->f.traces.n; i++)
        if (import_fits(f->f.traces.v[i], in)) return f->f.traces.v[i];
    tni_fail(TN_ESHAPE, "%s: import: no trace takes %s; there %s %zu, the first takes %s", f->path,
             import_given(in, given, sizeof given), f->f.traces.n == 1 ? "is" : "are",
             f->f.traces.n, tni_ex_signature(f->f.traces.v[0], has, sizeof has));
    return NULL;
}

typedef struct import_job {
    const ex_function *f;
    const ex_trace *t;
    uint32_t n;       /* values so far */
    tn_array **value; /* those of nodes are held */
    tn_array **in;    /* of one node */
} import_job;

static tn_array *import_operand(const import_job *j, uint32_t v) {
    return v & EX_CONSTANT ? j->f->constants.v[v & ~EX_CONSTANT] : j->value[v];
}

static int import_node(import_job *j, const ex_node *n) {
    tni_out_spec spec[TNI_MAX_OUT];
    for (uint32_t i = 0; i < n->n_in; i++)
        j->in[i] = import_operand(j, j->t->operands.v[n->in + i]);
    for (uint32_t k = 0; k < n->n_out; k++) spec[k] = tni_ex_spec(j->t, n->out + k);
    int status = tni_node_new(n->prim, (int)n->n_in, j->in, j->t->params.v + n->params,
                              (int)n->n_out, spec, j->value + j->n);
    if (!status) j->n += n->n_out;
    return status;
}

/* The key to draw from, of this thread or of the trace that is open. */
static int import_key(tn_array **key) {
    uint32_t k[2];
    tn_array **slot = tni_random_trace(NULL);
    tni_random_trace(slot);
    tni_random_get(k);
    *key = slot ? *slot : tn_array_new(k, TN_U32, TN_SHAPE(2));
    return tn_array_status(*key);
}

static int import_next_key(tn_array *key) {
    uint32_t k[2];
    tn_array **slot = tni_random_trace(NULL);
    tni_random_trace(slot);
    if (slot) return tn_assign(slot, key);
    int status = tn_read(key, TN_U32, k, sizeof k);
    if (!status) tni_random_put(k);
    return status;
}

static int import_build(import_job *j, tn_list in, tn_array **out) {
    const ex_trace *t = j->t;
    int status = 0, n_out = j->f->n_out;
    for (int i = 0; i < in.n; i++) j->value[i] = in.v[i];
    if (t->random) status = import_key(&j->value[t->n_in]);
    uint32_t first = j->n = t->n_in + t->random;
    for (size_t k = 0; k < t->nodes.n && !status; k++) status = import_node(j, &t->nodes.v[k]);
    if (t->random && !status) status = import_next_key(import_operand(j, t->results.v[n_out]));
    for (int k = 0; k < n_out && !status; k++) {
        out[k] = tni_scope_again(import_operand(j, t->results.v[k]));
        status = tn_array_status(out[k]);
    }
    while (j->n > first) tni_array_release(j->value[--j->n]);
    return status;
}

static int import_call(const tn_imported *f, tn_list in, int n_out, tn_array **out) {
    int status = tni_call_inputs("import", "argument", in);
    if (!status && n_out != f->f.n_out)
        status = tni_fail(TN_EVALUE, "%s: import: %d results are asked for, the function has %d",
                          f->path, n_out, f->f.n_out);
    const ex_trace *t = status ? NULL : import_find(f, in);
    if (!t) return tni_error_code();
    import_job j = {.f = &f->f,
                    .t = t,
                    .value = tni_alloc_array(t->values.n + 1, sizeof *j.value),
                    .in = tni_alloc_array((size_t)t->most_in + 1, sizeof *j.in)};
    status = j.value && j.in ? import_build(&j, in, out) : import_no_memory();
    tni_free(j.value);
    tni_free(j.in);
    return status;
}

int tn_imported_call(tn_list in, tn_array **out, int n_out, void *imported) {
    if (!imported) return tni_fail(TN_EVALUE, "import: the function is NULL");
    for (int k = 0; k < n_out; k++) out[k] = NULL;
    tn_scope *s = tn_scope_begin();
    return tni_call_leave(s, import_call(imported, in, n_out, out), n_out, out);
}
