/* Imported functions: a file read once; a call builds the nodes of the trace that fits its
 * arguments anew, so that it is part of whatever graph or transform is under way. */
#include "base/err.h"
#include "base/mmap.h"
#include "core/shape.h"
#include "ops/build.h"
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
    const ex_trace *t = f->f.traces.v[trace];
    tni_out_spec s = tni_ex_spec(t, (uint32_t)argument);
    if (dtype) *dtype = s.dtype;
    return (tn_ints){t->open.n ? t->open.v + t->values.v[argument].shape : s.shape, s.ndim};
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

/* An open trace, with sizes for those that are free. */
static bool import_fits_open(const ex_trace *t, tn_list in) {
    int64_t free[EX_MOST_FREE];
    bool fits = t->open.n && t->n_in == (uint32_t)in.n;
    memset(free, -1, sizeof free);
    for (int i = 0; i < in.n && fits; i++) {
        const tn_array *a = in.v[i];
        const int64_t *open = t->open.v + t->values.v[i].shape;
        fits = a->dtype == t->values.v[i].dtype && a->ndim == t->values.v[i].ndim;
        for (int d = 0; d < a->ndim && fits; d++) {
            int64_t *k = open[d] < 0 ? &free[-1 - open[d]] : NULL, n = a->shape[d];
            if (k && *k < 0) *k = n;
            fits = n == (k ? *k : open[d]);
            if (fits && k && t->steps.n) {
                int64_t traced = t->shapes.v[t->values.v[i].shape + (size_t)d];
                fits = n > 1 && (n - traced) % t->steps.v[-1 - open[d]] == 0;
            }
        }
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

const ex_trace *tni_ex_find(const ex_function *f, tn_list in, bool *open) {
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < f->traces.n; i++) {
            const ex_trace *t = f->traces.v[i];
            *open = pass;
            if (pass ? import_fits_open(t, in) : import_fits(t, in)) return t;
        }
    return NULL;
}

static int import_none(const tn_imported *f, tn_list in) {
    char given[200], has[200];
    return tni_fail(TN_ESHAPE, "%s: import: no trace takes %s; there %s %zu, the first takes %s",
                    f->path, import_given(in, given, sizeof given),
                    f->f.traces.n == 1 ? "is" : "are", f->f.traces.n,
                    tni_ex_signature(f->f.traces.v[0], has, sizeof has));
}

typedef struct import_job {
    const ex_function *f;
    const char *name;
    const ex_trace *t;
    uint32_t n;       /* values so far */
    tn_array **value; /* those of nodes are held */
    tn_array **in;    /* of one node */
    tni_out_spec *spec;
    bool open; /* sizes are others than those that were traced */
    size_t patch, n_sizes;
    int64_t *sizes;
} import_job;

static tn_array *import_operand(const import_job *j, uint32_t v) {
    return v & EX_CONSTANT ? j->f->constants.v[v & ~EX_CONSTANT] : j->value[v];
}

/* ---- nodes of an open trace ---- */

static int import_misfit(const import_job *j, const char *why) {
    return tni_fail(TN_ESHAPE, "%s: import: the function is not for these sizes: %s", j->name, why);
}

/* The next of the sizes; those it is made of are there. */
static int import_size(import_job *j) {
    const ex_size *s = &j->t->sizes.v[j->n_sizes];
    int64_t n = 0;
    bool good = true;
    if (s->kind == EX_DIM) {
        const tn_array *a = s->x < j->n ? j->value[s->x] : NULL;
        good = a && s->y < a->ndim;
        if (good) n = a->shape[s->y];
    } else if (s->kind == EX_PRODUCT) {
        good = !__builtin_mul_overflow(j->sizes[s->x], j->sizes[s->y], &n);
    } else {
        good = !__builtin_mul_overflow(s->num, j->sizes[s->x], &n) &&
               !__builtin_add_overflow(n, s->add, &n) && n % s->den == 0;
        n /= s->den;
    }
    j->sizes[j->n_sizes++] = n;
    return good ? 0 : import_misfit(j, "one of them must be divisible");
}

static tn_array *import_number(const tn_array *like, double value) {
    tn_array *a = tn_scalar(value, (tn_dtype)like->dtype);
    if (!tni_is_error(a)) a->flags |= like->flags & TNI_A_WEAK;
    return a;
}

static int import_patch(import_job *j, const ex_patch *p, int64_t *params, tni_spec *out) {
    int status = 0;
    while (j->n_sizes <= p->size && !status) status = import_size(j);
    if (status) return status;
    int64_t n = j->sizes[p->size];
    double value = p->target == EX_REAL_INVERSE || p->target == EX_NUMBER_INVERSE
                       ? p->num / (double)n
                       : (double)n;
    switch (p->target) {
    case EX_SHAPE:
        out[p->index / TN_MAX_NDIM].shape[p->index % TN_MAX_NDIM] = n;
        return 0;
    case EX_INT:
        params[p->index] = n;
        return 0;
    case EX_REAL:
    case EX_REAL_INVERSE:
        memcpy(&params[p->index], &value, sizeof value);
        return 0;
    default:
        j->in[p->index] = import_number(j->in[p->index], value);
        return tn_array_status(j->in[p->index]);
    }
}

/* Parts that have become one place or none. */
static void import_normal(const import_job *j, const ex_node *n, int64_t *params,
                          const tni_spec *out) {
    int id = n->prim->id;
    bool update = id == TNI_OP_slice_update && n->n_in == 2;
    if (!update && id != TNI_OP_slice) return;
    tni_slice_normal((tni_p_slice *)(void *)params, update ? j->in[1]->ndim : out[0].ndim,
                     update ? j->in[1]->shape : out[0].shape);
}

static int import_open_node(import_job *j, uint32_t k, const ex_node *n, tni_out_spec *out) {
    int64_t params[sizeof(tni_p_slice) / 8];
    tni_spec want[TNI_MAX_OUT];
    const void *given = j->t->params.v + n->params;
    size_t units = tni_ex_units(n->prim);
    int status = 0;
    if (units <= sizeof params / 8) given = memcpy(params, given, 8 * units);
    for (uint32_t i = 0; i < n->n_out; i++) {
        tni_out_spec s = tni_ex_spec(j->t, n->out + i);
        want[i].dtype = s.dtype, want[i].ndim = s.ndim;
        memcpy(want[i].shape, s.shape, sizeof *s.shape * (size_t)s.ndim);
    }
    for (; j->patch < j->t->patches.n && j->t->patches.v[j->patch].node == k && !status; j->patch++)
        status = import_patch(j, &j->t->patches.v[j->patch], params, want);
    import_normal(j, n, params, want);
    for (uint32_t i = 0; i < n->n_in; i++)
        j->spec[i] = (tni_out_spec){(tn_dtype)j->in[i]->dtype, j->in[i]->ndim, j->in[i]->shape};
    tni_infer_call c = {.op = n->prim->name,
                        .prim = n->prim,
                        .params = given,
                        .n_in = (int)n->n_in,
                        .n_out = (int)n->n_out,
                        .in = j->spec,
                        .out = want};
    if (!status && (status = tni_infer(&c)) && status != TN_EMEMORY)
        return import_misfit(j, tni_error());
    for (uint32_t i = 0; i < n->n_out; i++)
        out[i] = (tni_out_spec){want[i].dtype, want[i].ndim, want[i].shape};
    if (!status)
        status =
            tni_node_new(n->prim, (int)n->n_in, j->in, given, (int)n->n_out, out, j->value + j->n);
    return status;
}

static int import_node(import_job *j, uint32_t k) {
    const ex_node *n = &j->t->nodes.v[k];
    tni_out_spec spec[TNI_MAX_OUT];
    int status;
    for (uint32_t i = 0; i < n->n_in; i++)
        j->in[i] = import_operand(j, j->t->operands.v[n->in + i]);
    for (uint32_t i = 0; i < n->n_out; i++) spec[i] = tni_ex_spec(j->t, n->out + i);
    if (j->open)
        status = import_open_node(j, k, n, spec);
    else
        status = tni_node_new(n->prim, (int)n->n_in, j->in, j->t->params.v + n->params,
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
    for (uint32_t k = 0; k < t->nodes.n && !status; k++) status = import_node(j, k);
    if (t->random && !status) status = import_next_key(import_operand(j, t->results.v[n_out]));
    for (int k = 0; k < n_out && !status; k++) {
        out[k] = tni_scope_again(import_operand(j, t->results.v[k]));
        status = tn_array_status(out[k]);
    }
    while (j->n > first) tni_array_release(j->value[--j->n]);
    return status;
}

int tni_ex_build(const ex_function *f, const char *name, const ex_trace *t, bool open, tn_list in,
                 tn_array **out) {
    import_job j = {.f = f,
                    .name = name,
                    .t = t,
                    .open = open,
                    .value = tni_alloc_array(t->values.n + 1, sizeof *j.value),
                    .in = tni_alloc_array((size_t)t->most_in + 1, sizeof *j.in),
                    .spec = tni_alloc_array((size_t)t->most_in + 1, sizeof *j.spec),
                    .sizes = tni_alloc_array(t->sizes.n + 1, sizeof *j.sizes)};
    int status =
        j.value && j.in && j.spec && j.sizes ? import_build(&j, in, out) : import_no_memory();
    tni_free(j.value), tni_free(j.in);
    tni_free(j.spec), tni_free(j.sizes);
    return status;
}

static int import_call(const tn_imported *f, tn_list in, int n_out, tn_array **out) {
    int status = tni_call_inputs("import", "argument", in);
    if (!status && n_out != f->f.n_out)
        status = tni_fail(TN_EVALUE, "%s: import: %d results are asked for, the function has %d",
                          f->path, n_out, f->f.n_out);
    if (status) return status;
    bool open = false;
    const ex_trace *t = tni_ex_find(&f->f, in, &open);
    return t ? tni_ex_build(&f->f, f->path, t, open, in, out) : import_none(f, in);
}

int tn_imported_call(tn_list in, tn_array **out, int n_out, void *imported) {
    if (!imported) return tni_fail(TN_EVALUE, "import: the function is NULL");
    for (int k = 0; k < n_out; k++) out[k] = NULL;
    tn_scope *s = tn_scope_begin();
    return tni_call_leave(s, import_call(imported, in, n_out, out), n_out, out);
}
