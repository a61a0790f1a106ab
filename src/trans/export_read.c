/* Exported functions from a file. Nothing in it is believed: every count is compared with the bytes
 * that are left before memory is asked for, every number with what it counts, and every node with
 * its primitive's shape rule, so that what has been read can be built and run. */
#include "base/err.h"
#include "base/str.h"
#include "core/shape.h"
#include "ops/op.h"
#include "trans/export.h"
#include <string.h>

typedef struct read_job {
    const ex_source *s;
    ex_function *f;
    const uint8_t *at, *end; /* of the head, what is left */
    const uint8_t *data;
    uint64_t n_data;
    bool short_of; /* something did not fit in what was left */
    TNI_VEC(const tni_prim *) prims;
} read_job;

static int read_no_memory(void) { return tni_fail_memory(sizeof(ex_node), "an exported function"); }

#define read_bad(r, ...) read_fail((r)->s->name, __VA_ARGS__)
TN_PRINTF(2, 3) static int read_fail(const char *name, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    tni_vfail(TN_EFORMAT, fmt, ap);
    va_end(ap);
    return tni_fail(TN_EFORMAT, "%s: cannot import: %s", name, tni_error());
}

/* ---- numbers: 0 when there are none left, which read_short tells ---- */

static const uint8_t *read_bytes(read_job *r, size_t n) {
    if ((size_t)(r->end - r->at) < n) {
        r->short_of = true, r->at = r->end;
        return NULL;
    }
    r->at += n;
    return r->at - n;
}
static uint64_t read_number(read_job *r, size_t bytes) {
    uint64_t v = 0;
    const uint8_t *p = read_bytes(r, bytes);
    if (p) memcpy(&v, p, bytes);
    return v;
}
static uint32_t read_u8(read_job *r) { return (uint32_t)read_number(r, 1); }
static uint32_t read_u16(read_job *r) { return (uint32_t)read_number(r, 2); }
static uint32_t read_u32(read_job *r) { return (uint32_t)read_number(r, 4); }
static int read_short(const read_job *r) {
    return r->short_of ? read_bad(r, "the tables end too early") : 0;
}
/* How many of at least `bytes` each; fails before anybody makes room for more than there are. */
static int read_count(read_job *r, const char *what, size_t bytes, uint32_t *n) {
    *n = read_u32(r);
    if (r->short_of) return read_short(r);
    if (*n <= (size_t)(r->end - r->at) / bytes && *n < EX_MOST_VALUES) return 0;
    return read_bad(r, "%u %s do not fit in %zu bytes", *n, what, (size_t)(r->end - r->at));
}

/* A dtype and a shape that arrays can have. */
static int read_spec(read_job *r, tni_spec *s, bool *weak) {
    int64_t size;
    uint32_t dtype = read_u8(r), ndim = read_u8(r), flag = read_u8(r);
    if (dtype >= TN_DTYPE_COUNT || ndim > TN_MAX_NDIM || flag > 1 || (flag && (!weak || ndim)))
        return read_bad(r, "an array of dtype %u with %u axes (%d and %d are the most)", dtype,
                        ndim, TN_DTYPE_COUNT - 1, TN_MAX_NDIM);
    s->dtype = (tn_dtype)dtype, s->ndim = (int)ndim;
    const uint8_t *p = read_bytes(r, 8 * (size_t)ndim);
    if (!p) return read_short(r);
    if (ndim) memcpy(s->shape, p, 8 * (size_t)ndim);
    if (weak) *weak = flag;
    if (!tni_shape_size(s->ndim, s->shape, &size) ||
        __builtin_mul_overflow(size, (int64_t)tn_dtype_size(s->dtype), &size))
        return read_bad(r, "an array whose size cannot be held");
    return 0;
}

/* ---- tables ---- */

static const tni_prim *read_prim_named(const uint8_t *name, size_t n) {
    for (int i = 0; i < TNI_OP_COUNT; i++)
        if (tni_prims[i].name && strlen(tni_prims[i].name) == n &&
            !memcmp(tni_prims[i].name, name, n))
            return &tni_prims[i];
    return NULL;
}

static bool read_is_name(const uint8_t *name, size_t n) {
    bool good = n && n <= EX_NAME;
    for (size_t i = 0; i < n && good; i++) good = name[i] > ' ' && name[i] < 127;
    return good;
}

static int read_prims(read_job *r) {
    uint32_t n;
    int status = read_count(r, "operations", 3, &n);
    for (uint32_t i = 0; !status && i < n; i++) {
        uint32_t length = read_u8(r);
        const uint8_t *name = read_bytes(r, length);
        uint32_t size = read_u16(r);
        if (r->short_of) return read_short(r);
        if (!read_is_name(name, length)) return read_bad(r, "an operation without a name");
        const tni_prim *p = read_prim_named(name, length);
        if (!p || p->params_size != size)
            return read_bad(r, "this version of the library does not know its operation %.*s",
                            (int)length, (const char *)name);
        if (tni_vec_push(&r->prims, p)) status = read_no_memory();
    }
    return status;
}

static tn_array *read_array(read_job *r, const tni_spec *s, const uint8_t *data) {
    tn_ints shape = {s->shape, s->ndim};
    int64_t size = 1;
    for (int i = 0; i < s->ndim; i++) size *= s->shape[i];
    if (!r->s->wrap || size <= 1) return tn_array_new(data, s->dtype, shape);
    r->s->wrap(r->s->ud);
    return tn_array_wrap(data, s->dtype, shape, r->s->release, r->s->ud);
}

static int read_constant(read_job *r, uint64_t *next) {
    tni_spec s;
    bool weak = false;
    int64_t size = 1;
    int status = read_spec(r, &s, &weak);
    if (status) return status;
    uint64_t at = read_number(r, 8);
    for (int i = 0; i < s.ndim; i++) size *= s.shape[i];
    uint64_t bytes = (uint64_t)size * tn_dtype_size(s.dtype);
    if (r->short_of) return read_short(r);
    if (at != *next || bytes > r->n_data - at)
        return read_bad(r, "a constant of %llu bytes at %llu is not where it belongs",
                        (unsigned long long)bytes, (unsigned long long)at);
    *next = at + (bytes + EX_ALIGN - 1) / EX_ALIGN * EX_ALIGN;
    tn_array *a = read_array(r, &s, r->data + at);
    if (tni_is_error(a)) return a->status;
    if (weak) a->flags |= TNI_A_WEAK;
    tni_array_retain(r->f->constants.v[r->f->constants.n++] = a);
    return 0;
}

static int read_constants(read_job *r) {
    uint32_t n;
    uint64_t next = 0;
    int status = read_count(r, "constants", 11, &n);
    if (!status && tni_vec_reserve(&r->f->constants, n)) status = read_no_memory();
    for (uint32_t i = 0; i < n && !status; i++) status = read_constant(r, &next);
    if (!status && next != r->n_data)
        status = read_bad(r, "%llu bytes of constants are there, %llu belong to one",
                          (unsigned long long)r->n_data, (unsigned long long)next);
    return status;
}

static int read_text(read_job *r) {
    uint32_t n, cp;
    if (read_count(r, "bytes of text", 1, &n)) return TN_EFORMAT;
    const char *text = (const char *)read_bytes(r, n);
    for (size_t at = 0; at < n;) {
        int len = tni_utf8_decode(text + at, n - at, &cp);
        if (len <= 0 || !cp) return read_bad(r, "its text is not UTF-8");
        at += (size_t)len;
    }
    if (n && !(r->f->text = tni_strndup(text, n))) return read_no_memory();
    return 0;
}

/* ---- nodes ---- */

/* What operand `v` of trace t is. */
static int read_operand(read_job *r, const ex_trace *t, uint32_t v, tni_out_spec *s) {
    uint32_t k = v & ~EX_CONSTANT;
    if (v & EX_CONSTANT ? k >= r->f->constants.n : v >= t->values.n)
        return read_bad(r, "an operation takes %s %u of %zu",
                        v & EX_CONSTANT ? "constant" : "value", k,
                        v & EX_CONSTANT ? r->f->constants.n : t->values.n);
    if (!(v & EX_CONSTANT)) {
        *s = tni_ex_spec(t, v);
        return 0;
    }
    const tn_array *a = r->f->constants.v[k];
    *s = (tni_out_spec){(tn_dtype)a->dtype, a->ndim, a->shape};
    return 0;
}

/* Asks the shape rule whether in[] and the parameters make what the file says. */
static int read_check(read_job *r, const ex_trace *t, const ex_node *n, const tni_out_spec *in,
                      const tni_spec *said) {
    const tni_p_custom *p = (const void *)(t->params.v + n->params);
    tni_spec out[TNI_MAX_OUT];
    if (n->prim->id == TNI_OP_custom &&
        (p->vjp || p->ud || p->levels || p->kind == TNI_CUSTOM_VJP || p->kind == TNI_CUSTOM_JVP ||
         p->kind == TNI_CUSTOM_CHECKPOINT || p->kind == TNI_CUSTOM_DRAWN ||
         p->kind == TNI_CUSTOM_VMAP))
        return read_bad(r, "a derivative rule, which files cannot hold");
    memcpy(out, said, sizeof *out * n->n_out);
    tni_infer_call c = {.op = n->prim->name,
                        .prim = n->prim,
                        .params = p,
                        .n_in = (int)n->n_in,
                        .n_out = (int)n->n_out,
                        .in = in,
                        .out = out};
    int status = tni_infer(&c);
    if (status == TN_EMEMORY) return status;
    if (status) return read_bad(r, "%s", tni_error());
    for (uint32_t k = 0; k < n->n_out; k++)
        if (out[k].dtype != said[k].dtype ||
            !tni_same_shape(out[k].ndim, out[k].shape, said[k].ndim, said[k].shape))
            return read_bad(r, "output %u of %s is not what its inputs make", k, n->prim->name);
    return 0;
}

static int read_params(read_job *r, ex_trace *t, ex_node *n) {
    uint32_t prim = read_u16(r), size = read_u16(r);
    if (r->short_of) return read_short(r);
    if (prim >= r->prims.n) return read_bad(r, "operation %u of %zu", prim, r->prims.n);
    n->prim = r->prims.v[prim], n->params = t->params.n;
    if (size > n->prim->params_size)
        return read_bad(r, "%u bytes of parameters of %s, which has %zu", size, n->prim->name,
                        n->prim->params_size);
    const uint8_t *p = read_bytes(r, size);
    size_t units = tni_ex_units(n->prim);
    if (!p) return read_short(r);
    if (tni_vec_reserve(&t->params, t->params.n + units + 1)) return read_no_memory();
    if (units) memset(t->params.v + t->params.n, 0, 8 * units);
    if (size) memcpy(t->params.v + t->params.n, p, size);
    t->params.n += units;
    return 0;
}

/* in[] has room for as many operands as there are bytes for. */
static int read_operands(read_job *r, ex_trace *t, ex_node *n) {
    int status = read_count(r, "operands", 4, &n->n_in);
    if (status) return status;
    const uint8_t *p = read_bytes(r, 4 * (size_t)n->n_in);
    n->in = t->operands.n;
    if (tni_vec_reserve(&t->operands, t->operands.n + n->n_in + 1)) return read_no_memory();
    if (n->n_in) memcpy(t->operands.v + t->operands.n, p, 4 * (size_t)n->n_in);
    t->operands.n += n->n_in;
    if (n->n_in > t->most_in) t->most_in = n->n_in;
    return 0;
}

static int read_node(read_job *r, ex_trace *t) {
    ex_node n = {0};
    tni_spec said[TNI_MAX_OUT];
    int status = read_params(r, t, &n);
    if (!status) status = read_operands(r, t, &n);
    if (status) return status;
    tni_out_spec *in = tni_alloc_array((size_t)n.n_in + 1, sizeof *in);
    if (!in) return read_no_memory();
    for (uint32_t i = 0; i < n.n_in && !status; i++)
        status = read_operand(r, t, t->operands.v[n.in + i], &in[i]);
    n.n_out = read_u8(r), n.out = (uint32_t)t->values.n;
    if (!status && (!n.n_out || n.n_out > TNI_MAX_OUT))
        status =
            read_bad(r, "%u outputs of %s; 1 to %d can be", n.n_out, n.prim->name, TNI_MAX_OUT);
    for (uint32_t k = 0; k < n.n_out && !status; k++) status = read_spec(r, &said[k], NULL);
    if (!status) status = read_check(r, t, &n, in, said);
    tni_free(in);
    for (uint32_t k = 0; k < n.n_out && !status; k++)
        status = tni_ex_value(t, said[k].dtype, said[k].ndim, said[k].shape);
    if (!status && tni_vec_push(&t->nodes, n)) status = read_no_memory();
    return status;
}

/* ---- traces ---- */

static int read_arguments(read_job *r, ex_trace *t, bool *open) {
    tni_spec s;
    uint32_t kind = read_u8(r), random = kind & 1;
    int status = kind > 3 ? read_bad(r, "an unknown kind of trace, %u", kind) : 0;
    *open = kind & 2;
    if (!status) status = read_count(r, "arguments", 3, &t->n_in);
    for (uint32_t i = 0; i < t->n_in && !status; i++) {
        status = read_spec(r, &s, NULL);
        if (!status) status = tni_ex_value(t, s.dtype, s.ndim, s.shape);
    }
    t->random = random;
    return status || !random ? status : tni_ex_value(t, TN_U32, 1, (int64_t[]){2});
}

static int read_results(read_job *r, ex_trace *t) {
    uint32_t n = (uint32_t)r->f->n_out + t->random;
    int status = 0;
    tni_out_spec s = {TN_F32, 0, NULL};
    if (tni_vec_reserve(&t->results, (size_t)n + 1)) return read_no_memory();
    for (uint32_t k = 0; k < n && !status; k++) {
        uint32_t v = read_u32(r);
        status = r->short_of ? read_short(r) : read_operand(r, t, v, &s);
        t->results.v[t->results.n++] = v;
    }
    if (!status && t->random && (s.dtype != TN_U32 || s.ndim != 1 || s.shape[0] != 2))
        status = read_bad(r, "its next random key is none");
    return status;
}

/* ---- what changes with the sizes of the arguments ---- */

static int read_open_axes(read_job *r, ex_trace *t) {
    size_t n = 0;
    for (uint32_t i = 0; i < t->n_in; i++) n += t->values.v[i].ndim;
    const uint8_t *p = n <= (size_t)(r->end - r->at) / 8 ? read_bytes(r, 8 * n) : NULL;
    if (!p) return read_bad(r, "the tables end too early");
    if (tni_vec_reserve(&t->open, n + 1)) return read_no_memory();
    if (n) memcpy(t->open.v, p, 8 * n);
    t->open.n = n;
    for (size_t k = 0; k < n; k++)
        if (t->open.v[k] < -EX_MOST_FREE || (t->open.v[k] >= 0 && t->open.v[k] != t->shapes.v[k]))
            return read_bad(r, "a free size of no argument");
    return n ? 0 : read_bad(r, "free sizes without axes");
}

static int read_sizes(read_job *r, ex_trace *t) {
    uint32_t n;
    int status = read_count(r, "sizes", 36, &n);
    if (!status && tni_vec_reserve(&t->sizes, (size_t)n + 1)) status = read_no_memory();
    for (uint32_t k = 0; k < n && !status; k++) {
        ex_size s;
        s.kind = read_u32(r), s.x = read_u32(r), s.y = read_u32(r);
        s.num = (int64_t)read_number(r, 8), s.add = (int64_t)read_number(r, 8);
        s.den = (int64_t)read_number(r, 8);
        bool good = s.kind == EX_DIM       ? s.x < t->values.n && s.y < t->values.v[s.x].ndim
                    : s.kind == EX_PRODUCT ? s.x < k && s.y < k
                                           : s.kind == EX_LINEAR && s.x < k && s.den > 0;
        if (!good) return read_bad(r, "size %u of %u is made of nothing", k, n);
        t->sizes.v[t->sizes.n++] = s;
    }
    return status;
}

/* A patch changes a place that is there, and nothing that is a pointer. */
static bool read_patch_fits(const read_job *r, const ex_trace *t, const ex_patch *p) {
    if (p->node >= t->nodes.n || p->size >= t->sizes.n) return false;
    const ex_node *n = &t->nodes.v[p->node];
    int id = n->prim->id;
    switch (p->target) {
    case EX_SHAPE:
        return p->index / TN_MAX_NDIM < n->n_out &&
               p->index % TN_MAX_NDIM < t->values.v[n->out + p->index / TN_MAX_NDIM].ndim;
    case EX_INT:
        return p->index < tni_ex_units(n->prim) &&
               (id == TNI_OP_slice || id == TNI_OP_slice_update || id == TNI_OP_arange);
    case EX_REAL:
    case EX_REAL_INVERSE:
        return p->index < 2 && id == TNI_OP_arange;
    case EX_NUMBER:
    case EX_NUMBER_INVERSE:
        break;
    default:
        return false;
    }
    uint32_t v = p->index < n->n_in ? t->operands.v[n->in + p->index] : 0;
    const tn_array *a = v & EX_CONSTANT ? r->f->constants.v[v & ~EX_CONSTANT] : NULL;
    return a && !a->ndim && a->dtype != TN_C64;
}

static int read_patches(read_job *r, ex_trace *t) {
    uint32_t n, last = 0;
    int status = read_count(r, "patches", 24, &n);
    if (!status && tni_vec_reserve(&t->patches, (size_t)n + 1)) status = read_no_memory();
    for (uint32_t k = 0; k < n && !status; k++) {
        ex_patch p;
        p.node = read_u32(r), p.target = read_u32(r), p.index = read_u32(r), p.size = read_u32(r);
        uint64_t num = read_number(r, 8);
        memcpy(&p.num, &num, 8);
        if (p.node < last || !read_patch_fits(r, t, &p))
            return read_bad(r, "patch %u of %u fits nowhere", k, n);
        last = p.node;
        t->patches.v[t->patches.n++] = p;
    }
    return status;
}

static int read_trace(read_job *r) {
    uint32_t n;
    bool open = false;
    ex_trace *t = tni_calloc(1, sizeof *t);
    if (!t || tni_vec_push(&r->f->traces, t)) {
        tni_free(t);
        return read_no_memory();
    }
    int status = read_arguments(r, t, &open);
    if (!status) status = read_count(r, "nodes", 9, &n);
    for (uint32_t i = 0; !status && i < n; i++) status = read_node(r, t);
    if (!status) status = read_results(r, t);
    if (!status && open) status = read_open_axes(r, t);
    if (!status && open) status = read_sizes(r, t);
    if (!status && open) status = read_patches(r, t);
    for (size_t i = 0; i + 1 < r->f->traces.n && !status; i++)
        if (tni_ex_same_inputs(r->f->traces.v[i], t))
            status = read_bad(r, "two traces take the same arguments");
    return status;
}

static int read_traces(read_job *r) {
    uint32_t n_out = 0, n = 0;
    int status = read_count(r, "results", 4, &n_out);
    if (!status) status = read_count(r, "traces", 9, &n);
    if (!status && !n) status = read_bad(r, "no traces");
    r->f->n_out = (int)n_out;
    for (uint32_t i = 0; i < n && !status; i++) status = read_trace(r);
    if (status) return status;
    bool zeros = (size_t)(r->end - r->at) < EX_ALIGN;
    for (; r->at < r->end && zeros; r->at++) zeros = !*r->at;
    return zeros ? 0 : read_bad(r, "something follows its tables");
}

/* ---- the start ---- */

static int read_start(read_job *r) {
    const uint8_t *p = r->s->data;
    uint32_t version, zero;
    uint64_t n[4], head = 0;
    if (r->s->size < EX_START || memcmp(p, EX_MAGIC, 8))
        return read_bad(r, "it is not an exported function");
    memcpy(&version, p + 8, 4);
    memcpy(&zero, p + 12, 4);
    memcpy(n, p + 16, sizeof n);
    if (version > EX_VERSION || !version || zero)
        return read_bad(r, "it is of version %u.%u, this library reads up to %d.0", version, zero,
                        EX_VERSION);
    if (__builtin_add_overflow(n[0], n[1], &head) || head != r->s->size - EX_START ||
        (EX_START + n[0]) % EX_ALIGN || n[1] % EX_ALIGN)
        return read_bad(r, "it has %zu bytes, its start says %llu", r->s->size,
                        (unsigned long long)head + EX_START);
    r->at = p + EX_START, r->end = r->data = r->at + n[0], r->n_data = n[1];
    if (tni_ex_checksum(r->at, (size_t)n[0], 0) != n[2] ||
        tni_ex_checksum(r->data, (size_t)n[1], 0) != n[3])
        return read_bad(r, "it is damaged: its checksum is wrong");
    return 0;
}

int tni_ex_read(const ex_source *s, ex_function *f) {
    read_job r = {.s = s, .f = f};
    int status = read_start(&r);
    if (!status) status = read_prims(&r);
    if (!status) status = read_constants(&r);
    if (!status) status = read_text(&r);
    if (!status) status = read_traces(&r);
    tni_vec_free(&r.prims);
    return status;
}
