/* Open traces: one function traced for arguments of several sizes, and what changes from one to the
 * other explained by sizes that are known when it is needed.
 *
 * A function reads sizes as plain numbers, so nothing symbolic can be followed through it. But its
 * graph can be compared: the same nodes over the same operands, with shapes, parameters and numbers
 * that are the same or vary. What a shape rule says by itself needs no explanation. The rest is
 * sought among the sizes of arrays built before, their products, linear functions of those, and,
 * for real numbers, their inverses; it must be right for every size that was traced. */
#include "base/err.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "ops/op.h"
#include "trans/export.h"
#include <math.h>
#include <string.h>

enum { OPEN_SAMPLES = EX_MOST_FREE + 8, OPEN_INVERSE = 4 /* n - 4 to n + 4 are tried */ };

typedef struct open_known {
    int64_t v[OPEN_SAMPLES]; /* in each sample */
    uint32_t value, axis;
    int64_t size; /* its number; -1: not needed so far */
} open_known;

/* A number that varies as num / size (inverse), or as a size. */
typedef struct open_found {
    uint32_t size;
    bool inverse;
    double num;
} open_found;

typedef struct open_job {
    const ex_function *f;
    ex_trace *const *x;
    int m;
    TNI_VEC(open_known) known;
} open_job;

static int open_no_memory(void) { return tni_fail_memory(sizeof(open_known), "an open trace"); }

/* ---- sizes ---- */

static int open_size(open_job *j, ex_size s, uint32_t *number) {
    ex_trace *t = j->x[0];
    *number = (uint32_t)t->sizes.n;
    for (uint32_t k = 0; k < t->sizes.n; k++)
        if (!memcmp(&t->sizes.v[k], &s, sizeof s)) return *number = k, 0;
    return tni_vec_push(&t->sizes, s) ? open_no_memory() : 0;
}

static int open_use(open_job *j, size_t k, uint32_t *number) {
    open_known *known = &j->known.v[k];
    int status = 0;
    if (known->size < 0) {
        status = open_size(j, (ex_size){EX_DIM, known->value, known->axis, 0, 0, 0}, number);
        known->size = *number;
    }
    *number = (uint32_t)known->size;
    return status;
}

static bool open_varies(const open_job *j, const int64_t *v) {
    for (int i = 1; i < j->m; i++)
        if (v[i] != v[0]) return true;
    return false;
}

/* The sizes of value `v`, where they vary and are new. */
static int open_learn(open_job *j, uint32_t v) {
    for (int axis = 0; axis < tni_ex_spec(j->x[0], v).ndim; axis++) {
        open_known k = {.value = v, .axis = (uint32_t)axis, .size = -1};
        for (int i = 0; i < j->m; i++) k.v[i] = tni_ex_spec(j->x[i], v).shape[axis];
        bool known = !open_varies(j, k.v);
        for (size_t i = 0; i < j->known.n && !known; i++)
            known = !memcmp(j->known.v[i].v, k.v, sizeof *k.v * (size_t)j->m);
        if (!known && tni_vec_push(&j->known, k)) return open_no_memory();
    }
    return 0;
}

/* ---- explanations ---- */

static int64_t open_gcd(int64_t a, int64_t b) {
    while (b) {
        int64_t r = a % b;
        a = b, b = r;
    }
    return a < 0 ? -a : a;
}

/* den * v = num * b + add in every sample. */
static bool open_linear(const open_job *j, const int64_t *b, const int64_t *v, ex_size *s) {
    int k = 1;
    while (k < j->m && b[k] == b[0]) k++;
    if (k == j->m) return false;
    s->num = v[k] - v[0], s->den = b[k] - b[0];
    if (s->den < 0) s->num = -s->num, s->den = -s->den;
    int64_t g = open_gcd(s->num, s->den), left, right;
    s->num /= g, s->den /= g;
    if (__builtin_mul_overflow(s->num, b[0], &right) ||
        __builtin_mul_overflow(s->den, v[0], &left) || __builtin_sub_overflow(left, right, &s->add))
        return false;
    for (int i = 0; i < j->m; i++)
        if (__builtin_mul_overflow(s->num, b[i], &right) ||
            __builtin_add_overflow(right, s->add, &right) ||
            __builtin_mul_overflow(s->den, v[i], &left) || left != right)
            return false;
    return true;
}

/* What is asked for: integers v, or numbers of a dtype at raw[i]. */
typedef struct open_want {
    const int64_t *v;
    const void *raw[OPEN_SAMPLES]; /* v NULL */
    tn_dtype dtype;
} open_want;

static bool open_inverse_fits(const open_job *j, const open_want *w, const int64_t *b,
                              const ex_size *s, double num) {
    char bytes[16];
    for (int i = 0; i < j->m; i++) {
        tni_store_f64(w->dtype, num / (double)(s->num * b[i] + s->add), bytes);
        if (memcmp(bytes, w->raw[i], tn_dtype_size(w->dtype))) return false;
    }
    return true;
}

/* num / (b + add), or 1 / (q b + q add), gives the same bytes in every sample. */
static bool open_inverse(const open_job *j, const open_want *w, const int64_t *b, ex_size *s,
                         double *num) {
    double first = tni_load_f64(w->dtype, w->raw[0]);
    if (!isfinite(first) || first == 0) return false;
    for (int64_t step = 0; step <= 2 * OPEN_INVERSE; step++) {
        int64_t add = step % 2 ? -(step + 1) / 2 : step / 2; /* 0, -1, 1, -2, ... */
        *num = first * (double)(b[0] + add);
        if (fabs(*num - nearbyint(*num)) < 1e-5 * fabs(*num)) *num = nearbyint(*num);
        *s = (ex_size){.num = 1, .add = add, .den = 1};
        if (open_inverse_fits(j, w, b, s, *num)) return true;
        double q = nearbyint(1 / *num);
        if (!(fabs(q) < 0x1p31) || q == 0 || b[0] > (int64_t)1 << 31) continue;
        *s = (ex_size){.num = (int64_t)q, .add = (int64_t)q * add, .den = 1}, *num = 1;
        if (open_inverse_fits(j, w, b, s, *num)) return true;
    }
    return false;
}

/* From a base, which is size `number` in the record. */
static int open_finish(open_job *j, ex_size s, uint32_t base, open_found *r) {
    r->size = base, s.kind = EX_LINEAR, s.x = base, s.y = 0;
    return s.num == 1 && !s.add && s.den == 1 ? 0 : open_size(j, s, &r->size);
}

/* `whole`: without division, which rounding down may look like. */
static bool open_fits(const open_job *j, const open_want *w, const int64_t *b, bool whole,
                      ex_size *s, open_found *r) {
    r->inverse = !w->v, r->num = 0;
    if (!w->v) return open_inverse(j, w, b, s, &r->num);
    return open_linear(j, b, w->v, s) && (s->den == 1 || !whole);
}

static bool open_times(const open_job *j, const int64_t *a, const int64_t *b, int64_t *c) {
    for (int i = 0; i < j->m; i++)
        if (__builtin_mul_overflow(a[i], b[i], &c[i])) return false;
    return true;
}

static int open_product(open_job *j, uint32_t x, uint32_t y, uint32_t *number) {
    return open_size(j, (ex_size){EX_PRODUCT, x, y, 0, 0, 0}, number);
}

/* Known sizes to multiply. */
typedef struct open_factors {
    size_t k[3];
    int n;
} open_factors;

static int open_build(open_job *j, const open_factors *f, const ex_size *s, open_found *r) {
    uint32_t base = 0, next;
    int status = open_use(j, f->k[0], &base);
    for (int i = 1; i < f->n && !status; i++) {
        status = open_use(j, f->k[i], &next);
        if (!status) status = open_product(j, base, next, &base);
    }
    return status ? status : open_finish(j, *s, base, r);
}

static bool open_search(open_job *j, const open_want *w, bool whole, ex_size *s, open_found *r,
                        open_factors *f) {
    size_t n = j->known.n, *k = f->k;
    int64_t two[OPEN_SAMPLES], three[OPEN_SAMPLES];
    const open_known *v = j->known.v;
    for (f->n = 1, k[0] = 0; k[0] < n; k[0]++)
        if (open_fits(j, w, v[k[0]].v, whole, s, r)) return true;
    for (f->n = 2, k[0] = 0; k[0] < n; k[0]++)
        for (k[1] = k[0]; k[1] < n; k[1]++)
            if (open_times(j, v[k[0]].v, v[k[1]].v, two) && open_fits(j, w, two, whole, s, r))
                return true;
    for (f->n = 3, k[0] = 0; k[0] < n; k[0]++)
        for (k[1] = k[0]; k[1] < n; k[1]++)
            for (k[2] = k[1]; k[2] < n; k[2]++)
                if (open_times(j, v[k[0]].v, v[k[1]].v, two) &&
                    open_times(j, two, v[k[2]].v, three) && open_fits(j, w, three, whole, s, r))
                    return true;
    return false;
}

/* 0, TN_EMEMORY, or TN_EVALUE: nothing fits. A size that is known is better than any formula. */
static int open_find(open_job *j, const open_want *w, open_found *r) {
    open_factors f = {{0}, 1};
    ex_size s = {.num = 1, .den = 1};
    for (; w->v && f.k[0] < j->known.n; f.k[0]++)
        if (!memcmp(j->known.v[f.k[0]].v, w->v, sizeof *w->v * (size_t)j->m))
            return open_build(j, &f, &s, r);
    bool found = open_search(j, w, true, &s, r, &f) || open_search(j, w, false, &s, r, &f);
    return found ? open_build(j, &f, &s, r) : TN_EVALUE;
}

static int open_patch(open_job *j, uint32_t node, uint32_t target, uint32_t index,
                      const open_found *r) {
    ex_patch p = {node, target + (r->inverse ? 1 : 0), index, r->size, r->num};
    return tni_vec_push(&j->x[0]->patches, p) ? open_no_memory() : 0;
}

static int open_unknown(const tni_prim *p, const char *what) {
    return tni_fail(TN_EVALUE,
                    "export: %s of %s depends on the arguments' sizes in a way that is not found",
                    what, p->name);
}

/* Finds and patches, or says what it was that is not explained. */
static int open_explain(open_job *j, uint32_t node, uint32_t target, uint32_t index,
                        const open_want *w, const char *what) {
    open_found r = {0};
    int status = open_find(j, w, &r);
    if (status == TN_EVALUE) return open_unknown(j->x[0]->nodes.v[node].prim, what);
    return status ? status : open_patch(j, node, target, index, &r);
}

/* ---- operands: the same, or constants ---- */

static tn_array *open_constant(const open_job *j, uint32_t operand) {
    return operand & EX_CONSTANT ? j->f->constants.v[operand & ~EX_CONSTANT] : NULL;
}

static bool open_same_bytes(tn_array *a, tn_array *b) {
    return a->dtype == b->dtype && tni_same_shape(a->ndim, a->shape, b->ndim, b->shape) &&
           (!a->size || !memcmp(tn_data(a), tn_data(b), tn_nbytes(a)));
}

/* A number that varies: integral ones by themselves, others as inverses. */
static int open_number(open_job *j, uint32_t node, uint32_t index, tn_array *const *a) {
    int64_t v[OPEN_SAMPLES];
    open_want w = {.v = v, .dtype = (tn_dtype)a[0]->dtype};
    for (int i = 0; i < j->m; i++) {
        w.raw[i] = tn_data(a[i]);
        double d = tni_load_f64(w.dtype, w.raw[i]);
        if (d != nearbyint(d) || fabs(d) > 0x1p52)
            w.v = NULL;
        else
            v[i] = (int64_t)d;
    }
    if (!w.v && !tni_is_float(w.dtype))
        return open_unknown(j->x[0]->nodes.v[node].prim, "a number");
    return open_explain(j, node, EX_NUMBER, index, &w, "a number");
}

static int open_operand(open_job *j, uint32_t node, uint32_t index) {
    const ex_node *n = &j->x[0]->nodes.v[node];
    tn_array *a[OPEN_SAMPLES];
    bool same = true;
    uint32_t first = j->x[0]->operands.v[n->in + index];
    for (int i = 0; i < j->m; i++) {
        uint32_t v = j->x[i]->operands.v[j->x[i]->nodes.v[node].in + index];
        a[i] = open_constant(j, v);
        if (a[i] ? !a[0] : v != first) return TN_EINDEX;
        same = same && (v == first || open_same_bytes(a[i], a[0]));
    }
    if (same) return 0;
    for (int i = 0; i < j->m; i++)
        if (a[i]->ndim || a[i]->dtype != a[0]->dtype || a[i]->dtype == TN_C64)
            return tni_fail(
                TN_EVALUE,
                "export: an array that %s takes depends on the arguments' sizes; it must "
                "be made from arguments or by tn_arange",
                n->prim->name);
    return open_number(j, node, index, a);
}

/* ---- parameters ---- */

static int open_word(open_job *j, uint32_t node, uint32_t word) {
    const tni_prim *p = j->x[0]->nodes.v[node].prim;
    bool part = p->id == TNI_OP_slice || p->id == TNI_OP_slice_update,
         range = p->id == TNI_OP_arange;
    int64_t v[OPEN_SAMPLES];
    open_want w = {.v = v, .dtype = TN_F64};
    for (int i = 0; i < j->m; i++) {
        const ex_trace *t = j->x[i];
        w.raw[i] = t->params.v + t->nodes.v[node].params + word;
        memcpy(&v[i], w.raw[i], 8);
        if (!range || word >= 2) continue;
        double d = tni_load_f64(TN_F64, w.raw[i]);
        if (d != nearbyint(d) || fabs(d) > 0x1p52)
            w.v = NULL;
        else
            v[i] = (int64_t)d;
    }
    if (!part && !range) return open_unknown(p, "a setting");
    return open_explain(j, node, range && word < 2 ? EX_REAL : EX_INT, word, &w, "a setting");
}

static int open_params(open_job *j, uint32_t node) {
    size_t units = tni_ex_units(j->x[0]->nodes.v[node].prim);
    int status = 0;
    for (uint32_t word = 0; word < units && !status; word++) {
        bool same = true;
        for (int i = 1; i < j->m && same; i++)
            same = j->x[i]->params.v[j->x[i]->nodes.v[node].params + word] ==
                   j->x[0]->params.v[j->x[0]->nodes.v[node].params + word];
        if (!same) status = open_word(j, node, word);
    }
    return status;
}

/* ---- shapes ---- */

static tni_out_spec open_spec(const open_job *j, int i, uint32_t operand) {
    const tn_array *a = open_constant(j, operand);
    return a ? (tni_out_spec){(tn_dtype)a->dtype, a->ndim, a->shape}
             : tni_ex_spec(j->x[i], operand);
}

/* Whether the rule, with what is wanted in sample 0, gives what was there in sample i. */
static int open_ask(open_job *j, int i, uint32_t node, tni_out_spec *in, bool *by_itself) {
    const ex_trace *t = j->x[i];
    const ex_node *n = &t->nodes.v[node];
    tni_spec out[TNI_MAX_OUT];
    for (uint32_t k = 0; k < n->n_in; k++) in[k] = open_spec(j, i, t->operands.v[n->in + k]);
    for (uint32_t k = 0; k < n->n_out; k++) {
        tni_out_spec s = tni_ex_spec(j->x[0], n->out + k);
        out[k].dtype = s.dtype, out[k].ndim = s.ndim;
        memcpy(out[k].shape, s.shape, sizeof *s.shape * (size_t)s.ndim);
    }
    tni_infer_call c = {.op = n->prim->name,
                        .prim = n->prim,
                        .params = t->params.v + n->params,
                        .n_in = (int)n->n_in,
                        .n_out = (int)n->n_out,
                        .in = in,
                        .out = out};
    int status = tni_infer(&c);
    *by_itself = !status;
    for (uint32_t k = 0; k < n->n_out && *by_itself; k++) {
        tni_out_spec s = tni_ex_spec(t, n->out + k);
        *by_itself =
            s.dtype == out[k].dtype && tni_same_shape(s.ndim, s.shape, out[k].ndim, out[k].shape);
    }
    return status == TN_EMEMORY ? status : 0;
}

static int open_axes(open_job *j, uint32_t node, uint32_t output) {
    uint32_t v = j->x[0]->nodes.v[node].out + output;
    int status = 0;
    for (int axis = 0; axis < tni_ex_spec(j->x[0], v).ndim && !status; axis++) {
        int64_t sizes[OPEN_SAMPLES];
        open_want w = {.v = sizes};
        for (int i = 0; i < j->m; i++) sizes[i] = tni_ex_spec(j->x[i], v).shape[axis];
        if (open_varies(j, sizes))
            status = open_explain(j, node, EX_SHAPE, output * TN_MAX_NDIM + (uint32_t)axis, &w,
                                  "the shape");
    }
    return status;
}

static int open_shapes(open_job *j, uint32_t node) {
    const ex_node *n = &j->x[0]->nodes.v[node];
    tni_out_spec *in = tni_alloc_array((size_t)n->n_in + 1, sizeof *in);
    bool by_itself = true;
    int status = in ? 0 : open_no_memory();
    for (int i = 1; i < j->m && by_itself && !status; i++)
        status = open_ask(j, i, node, in, &by_itself);
    tni_free(in);
    for (uint32_t k = 0; k < n->n_out && !by_itself && !status; k++) status = open_axes(j, node, k);
    return status;
}

/* ---- the whole ---- */

static int open_other(void) {
    return tni_fail(TN_EVALUE, "export: the function does other things for other sizes");
}

/* The same nodes everywhere, as far as can be seen without looking into them. */
static bool open_alike(const open_job *j) {
    const ex_trace *t = j->x[0];
    for (int i = 1; i < j->m; i++) {
        const ex_trace *u = j->x[i];
        if (u->nodes.n != t->nodes.n || u->values.n != t->values.n || u->random != t->random)
            return false;
        for (size_t k = 0; k < t->nodes.n; k++) {
            const ex_node *a = &t->nodes.v[k], *b = &u->nodes.v[k];
            if (a->prim != b->prim || a->n_in != b->n_in || a->n_out != b->n_out) return false;
        }
        for (uint32_t v = 0; v < t->values.n; v++)
            if (t->values.v[v].ndim != u->values.v[v].ndim ||
                t->values.v[v].dtype != u->values.v[v].dtype)
                return false;
    }
    return true;
}

static int open_node(open_job *j, uint32_t node) {
    const ex_node *n = &j->x[0]->nodes.v[node];
    int status = 0;
    for (uint32_t k = 0; k < n->n_in && !status; k++) status = open_operand(j, node, k);
    if (status == TN_EINDEX) return open_other();
    if (!status) status = open_params(j, node);
    if (!status) status = open_shapes(j, node);
    for (uint32_t k = 0; k < n->n_out && !status; k++) status = open_learn(j, n->out + k);
    return status;
}

static int open_results(open_job *j) {
    for (size_t k = 0; k < j->x[0]->results.n; k++)
        for (int i = 1; i < j->m; i++) {
            uint32_t a = j->x[0]->results.v[k], b = j->x[i]->results.v[k];
            tn_array *x = open_constant(j, a), *y = open_constant(j, b);
            if (a != b && (!x || !y || !open_same_bytes(x, y)))
                return tni_fail(TN_EVALUE,
                                "export: result %zu depends on the arguments' sizes alone", k);
        }
    return 0;
}

int tni_ex_open(const ex_function *f, ex_trace *const *x, int m) {
    open_job j = {.f = f, .x = x, .m = m};
    if (m > OPEN_SAMPLES) return tni_fail(TN_EINTERNAL, "export: %d samples", m);
    int status = open_alike(&j) ? 0 : open_other();
    for (uint32_t v = 0; v < x[0]->n_in && !status; v++) status = open_learn(&j, v);
    for (uint32_t k = 0; k < x[0]->nodes.n && !status; k++) status = open_node(&j, k);
    if (!status) status = open_results(&j);
    tni_vec_free(&j.known);
    return status;
}
