/* Primitives of user code (tenon/ext.h): the descriptor's callbacks behind the columns that every
 * primitive has. A node's parameters are the primitive's address, then the caller's bytes. */
#include "tenon/ext.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/thread.h"
#include "core/shape.h"
#include "ops/build.h"
#include "ops/rules.h"
#include "ops/vmap.h"
#include "trans/call.h"
#include "trans/trace.h"
#include <stdio.h>
#include <string.h>

struct tn_prim {
    tni_prim base; /* first: a node's `prim` points at it */
    tn_prim_desc desc;
    _Atomic int64_t refs; /* the user's, one a node, one a launch of a plan */
    char name[];
};

int tn_fail(int status, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    status = tni_vfail(status < 0 ? status : TN_EINTERNAL, fmt, ap);
    va_end(ap);
    return status;
}

void tn_parallel_for(int64_t n, int64_t grain,
                     void (*body)(void *ctx, int64_t begin, int64_t end, int worker), void *ctx) {
    if (n > 0) tni_parallel(n, grain > 0 ? grain : 1, body, ctx);
}

static const tn_prim *ext_of(const tni_node *n) { return (const tn_prim *)(const void *)n->prim; }
static const void *ext_params(const tni_node *n) {
    return ext_of(n)->desc.params_size ? (const char *)n->params + sizeof(void *) : NULL;
}

/* What a callback returned, as a status with the primitive's name in the message. */
static int ext_status(const tn_prim *p, const char *rule, int status) {
    if (!status) return 0;
    int code = status < 0 ? status : TN_EVALUE;
    if (code == TN_EMEMORY && *tni_error()) return code;
    if (status > 0 || !*tni_error())
        return tni_fail(code, "%s: its %s returned %d", p->name, rule, status);
    return tni_fail(code, "%s: %s", p->name, tni_error());
}

/* ---- kernels ---- */

static int ext_kernel(const tni_call *c) {
    const tn_prim *p;
    memcpy(&p, c->params, sizeof p);
    const char *params = (const char *)c->params + sizeof p;
    tni_error_clear();
    int status = p->desc.kernel(c->in, c->n_in, c->out, c->n_out,
                                p->desc.params_size ? params : NULL, p->desc.ud);
    return ext_status(p, "kernel", status);
}

/* ---- rules over arrays ---- */

/* One rule at work: lists of stand-ins in, results out. */
typedef struct ext_call {
    const tni_node *n;
    const tn_prim *p;
    const char *rule;
    int n_tan;           /* jvp: how many tangents are there */
    const int *tan_at;   /* and of which inputs */
    const bool *want;    /* vjp */
    const int64_t *axes; /* vmap: 0 or TN_UNMAPPED, one an input */
    int64_t size;        /* vmap: calls */
    bool *apart;         /* vmap: not by the rule */
    char name[64];       /* for messages */
} ext_call;

static ext_call ext_begin(const tni_node *n, const char *rule) {
    ext_call c = {.n = n, .p = ext_of(n), .rule = rule};
    snprintf(c.name, sizeof c.name, "%.40s's %s", c.p->name, rule);
    return c;
}

static int ext_fits(const ext_call *c, const char *what, int i, const tn_array *got,
                    const tn_array *like) {
    if (!tni_alive(got) || tni_is_error(got)) return 0; /* the caller of the rule says so */
    if (got->dtype == like->dtype && tni_same_shape(got->ndim, got->shape, like->ndim, like->shape))
        return 0;
    return tni_fail(TN_ESHAPE, "%s: %s %d is %s, but what it belongs to is %s", c->name, what, i,
                    tni_describe(got), tni_describe(like));
}

/* in: inputs, results, cotangents, the mark. */
static int ext_call_vjp(tn_list in, tn_array **grad, int m, void *ud) {
    const ext_call *c = ud;
    const tn_prim_desc *d = &c->p->desc;
    int k = c->n->n_out;
    tn_list x = {in.v, m}, y = {in.v + m, k}, cot = {in.v + m + k, k};
    int status =
        ext_status(c->p, c->rule, d->vjp(x, y, cot, c->want, ext_params(c->n), grad, d->ud));
    for (int i = 0; i < m && !status; i++) {
        if (!grad[i] || !c->want[i])
            grad[i] = in.v[in.n - 1];
        else
            status = ext_fits(c, "gradient", i, grad[i], x.v[i]);
    }
    return status;
}

/* in: inputs, results, those tangents that are not zero, the mark. */
static int ext_call_jvp(tn_list in, tn_array **out, int k, void *ud) {
    const ext_call *c = ud;
    const tn_prim_desc *d = &c->p->desc;
    int m = c->n->n_in;
    tn_list x = {in.v, m}, y = {in.v + m, k};
    tn_array **tan = tni_calloc((size_t)m + 1, sizeof *tan);
    if (!tan) return tni_fail_memory((size_t)m * sizeof *tan, "a jvp");
    for (int i = 0; i < c->n_tan; i++) tan[c->tan_at[i]] = in.v[m + k + i];
    int status =
        ext_status(c->p, c->rule, d->jvp(x, y, (tn_list){tan, m}, ext_params(c->n), out, d->ud));
    tni_free(tan);
    for (int i = 0; i < k && !status; i++) {
        if (!out[i])
            out[i] = in.v[in.n - 1];
        else
            status = ext_fits(c, "tangent", i, out[i], y.v[i]);
    }
    return status;
}

/* in: inputs, the mark. */
static int ext_call_vmap(tn_list in, tn_array **out, int k, void *ud) {
    const ext_call *c = ud;
    const tn_prim_desc *d = &c->p->desc;
    int64_t axes[TNI_MAX_OUT] = {0};
    int m = in.n - 1;
    int status = d->vmap((tn_list){in.v, m}, (tn_ints){c->axes, m}, c->size, ext_params(c->n), out,
                         axes, k, d->ud);
    *c->apart = status == TN_PRIM_APART;
    if (*c->apart) return TN_EVALUE;
    status = ext_status(c->p, c->rule, status);
    return status ? status : tni_call_stacks(c->name, c->n, c->size, axes, out);
}

/* in: inputs, the mark. */
static int ext_call_lower(tn_list in, tn_array **out, int k, void *ud) {
    const ext_call *c = ud;
    const tn_prim_desc *d = &c->p->desc;
    tn_list x = {in.v, in.n - 1};
    int status = ext_status(c->p, c->rule, d->lower(x, ext_params(c->n), out, k, d->ud));
    for (int i = 0; i < k && !status; i++)
        if (out[i]) status = ext_fits(c, "result", i, out[i], c->n->out[i]);
    return status;
}

/* Calls a rule over stand-ins for x[0..n) (room for one more), so that it evaluates nothing. The
 * last stand-in marks results that are zero: they become NULL. */
static int ext_traced(ext_call *c, tn_fns rule, int n, tn_array **x, int n_out, tn_array **out) {
    tni_trace t = {0};
    bool *zero = tni_calloc((size_t)n_out + 1, sizeof *zero);
    if (!zero) return tni_fail_memory((size_t)n_out, c->name);
    x[n] = tn_scalar(0, TN_F32);
    int status = tn_array_status(x[n]);
    if (!status) status = tni_trace_open(&t, n + 1, x);
    if (!status) status = tni_call_fns(c->name, rule, c, (tn_list){t.tracer, n + 1}, n_out, out);
    for (int k = 0; k < n_out && !status; k++) zero[k] = out[k] == t.tracer[n];
    if (!status) status = tni_trace_walk(&t, n_out, out);
    for (int k = 0; k < n_out; k++) out[k] = status || zero[k] ? NULL : t.out[k];
    tni_trace_free(&t);
    tni_free(zero);
    return status;
}

/* The node's inputs, or `in` in their place, then room for `more` arrays; NULL: out of memory. */
static tn_array **ext_inputs(const tni_node *n, tn_array *const *in, int more) {
    size_t total = (size_t)n->n_in + (size_t)more;
    tn_array **x = tni_calloc(total, sizeof *x);
    if (!x) return tni_fail_memory(total * sizeof *x, n->prim->name), NULL;
    for (int i = 0; i < n->n_in; i++) x[i] = in[i];
    return x;
}

/* Inputs and results. */
static tn_array **ext_arrays(const tni_node *n, int more) {
    tn_array **x = ext_inputs(n, n->in, n->n_out + more);
    for (int k = 0; k < n->n_out && x; k++)
        x[n->n_in + k] = tni_array_adopt((tni_node *)(uintptr_t)n, k);
    return x;
}

static int ext_vjp(const tni_node *n, tn_array *const *cot, const bool *want, tn_array **grad) {
    const tn_prim *p = ext_of(n);
    if (!p->desc.vjp && p->desc.lower) return TNI_BY_LOWER;
    if (!p->desc.vjp)
        return tni_fail(TN_EVALUE, "%s: it has no vjp rule and no lowering, so it has no gradient",
                        p->name);
    ext_call c = ext_begin(n, "vjp");
    c.want = want;
    int at = n->n_in + n->n_out, status = 0;
    tn_array **x = ext_arrays(n, n->n_out + 1);
    if (!x) return TN_EMEMORY;
    for (int k = 0; k < n->n_out && !status; k++) {
        x[at + k] = cot[k] ? cot[k] : tn_zeros_like(x[n->n_in + k]);
        status = tn_array_status(x[at + k]);
    }
    if (!status) status = ext_traced(&c, ext_call_vjp, at + n->n_out, x, n->n_in, grad);
    tni_free(x);
    return status;
}

static int ext_jvp(const tni_node *n, tn_array *const *tan, tn_array **out) {
    const tn_prim *p = ext_of(n);
    if (!p->desc.jvp && p->desc.vjp) return TNI_BY_VJP;
    if (!p->desc.jvp && p->desc.lower) return TNI_BY_LOWER;
    if (!p->desc.jvp)
        return tni_fail(TN_EVALUE,
                        "%s: it has no jvp or vjp rule and no lowering, so it has no derivative",
                        p->name);
    ext_call c = ext_begin(n, "jvp");
    tn_array **x = ext_arrays(n, n->n_in + 1);
    int *at = tni_alloc_array((size_t)n->n_in + 1, sizeof *at), status = 0;
    if (!x || !at) status = tni_fail_memory((size_t)n->n_in * sizeof *x, "a jvp");
    for (int i = 0; i < n->n_in && !status; i++)
        if (tan[i]) at[c.n_tan] = i, x[n->n_in + n->n_out + c.n_tan++] = tan[i];
    c.tan_at = at;
    if (!status)
        status = ext_traced(&c, ext_call_jvp, n->n_in + n->n_out + c.n_tan, x, n->n_out, out);
    tni_free(x), tni_free(at);
    return status;
}

static int ext_vmap(const tni_node *n, int64_t size, tn_array *const *in, tn_array **out) {
    if (!ext_of(n)->desc.vmap) return TNI_BY_LOWER;
    ext_call c = ext_begin(n, "vmap");
    bool apart = false;
    c.apart = &apart;
    tn_array **x = ext_inputs(n, in, 1);
    int64_t *axes = tni_alloc_array((size_t)n->n_in + 1, sizeof *axes);
    int status = x && axes ? 0 : tni_fail_memory((size_t)n->n_in * sizeof *axes, "a vmap");
    for (int i = 0; i < n->n_in && !status; i++) axes[i] = tni_stacked(n, in, i) ? 0 : TN_UNMAPPED;
    c.axes = axes, c.size = size;
    if (!status) status = ext_traced(&c, ext_call_vmap, n->n_in, x, n->n_out, out);
    tni_free(x), tni_free(axes);
    return apart ? TNI_BY_LOWER : status;
}

static int ext_lower(const tni_node *n, tn_array **out) {
    ext_call c = ext_begin(n, "lowering");
    tn_array **x = ext_inputs(n, n->in, 1);
    if (!x) return TN_EMEMORY;
    int status = ext_traced(&c, ext_call_lower, n->n_in, x, n->n_out, out);
    tni_free(x);
    return status;
}

static int ext_infer(const tni_infer_call *c) {
    const tn_prim *p = (const tn_prim *)(const void *)c->prim;
    tn_spec *in = tni_calloc((size_t)c->n_in + 1, sizeof *in);
    if (!in) return tni_fail_memory((size_t)c->n_in * sizeof *in, p->name);
    for (int i = 0; i < c->n_in; i++) {
        in[i].dtype = c->in[i].dtype, in[i].ndim = c->in[i].ndim;
        memcpy(in[i].shape, c->in[i].shape, sizeof(int64_t) * (size_t)c->in[i].ndim);
    }
    memset(c->out, 0, (size_t)c->n_out * sizeof *c->out);
    const char *params = p->desc.params_size ? (const char *)c->params + sizeof p : NULL;
    tni_error_clear();
    int status = p->desc.infer(in, c->n_in, params, c->out, c->n_out, p->desc.ud);
    tni_free(in);
    return ext_status(p, "shape rule", status);
}

/* ---- the object ---- */

static void ext_release(const tni_prim *base) {
    tn_prim *p = (tn_prim *)(uintptr_t)base;
    if (p->desc.release) p->desc.release(p->desc.ud);
    tni_free(p);
}

static int ext_check(const tn_prim_desc *d) {
    if (!d || d->size < sizeof *d)
        return tni_fail(TN_EVALUE, "prim_new: the descriptor's size is not sizeof(tn_prim_desc)");
    if (!d->name || !*d->name) return tni_fail(TN_EVALUE, "prim_new: the primitive has no name");
    if (!d->infer) return tni_fail(TN_EVALUE, "prim_new: %s has no shape rule (infer)", d->name);
    if (!d->kernel && !d->lower)
        return tni_fail(TN_EVALUE, "prim_new: %s has neither a kernel nor a lowering", d->name);
    if (d->n_out < 1 || d->n_out > TNI_MAX_OUT)
        return tni_fail(TN_EVALUE, "prim_new: %s has %d results; 1 to %d are allowed", d->name,
                        d->n_out, TNI_MAX_OUT);
    if (d->flags & ~(uint32_t)TN_PRIM_DENSE)
        return tni_fail(TN_EVALUE, "prim_new: %s has unknown flags %#x", d->name, d->flags);
    if (d->params_size > 1 << 20)
        return tni_fail(TN_EVALUE, "prim_new: %s has %zu bytes of parameters; at most %d", d->name,
                        d->params_size, 1 << 20);
    return 0;
}

tn_prim *tn_prim_new(const tn_prim_desc *desc) {
    if (ext_check(desc)) return NULL;
    size_t n = strlen(desc->name) + 1;
    tn_prim *p = tni_alloc(sizeof *p + n);
    if (!p) {
        tni_fail_memory(sizeof *p + n, "a primitive");
        return NULL;
    }
    memcpy(p->name, desc->name, n);
    p->desc = *desc;
    p->desc.name = p->name;
    atomic_init(&p->refs, 1);
    p->base = (tni_prim){.name = p->name,
                         .id = TNI_OP_COUNT,
                         .kind = TNI_K_KERNEL,
                         .flags = desc->flags & TN_PRIM_DENSE ? TNI_F_DENSE : 0,
                         .params_size = sizeof p + desc->params_size,
                         .lower = desc->lower ? ext_lower : NULL,
                         .infer = ext_infer,
                         .vjp = ext_vjp,
                         .jvp = ext_jvp,
                         .vmap = ext_vmap,
                         .kernel = desc->kernel ? ext_kernel : NULL,
                         .refs = &p->refs,
                         .release = ext_release};
    return p;
}

void tn_prim_free(tn_prim *p) {
    if (p && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
        ext_release(&p->base);
}

/* ---- calls ---- */

/* The node, whose parameters are `bytes`. */
static int ext_node(tn_prim *p, const void *bytes, tn_list in, tn_array **out) {
    tni_out_spec want[TNI_MAX_OUT], *have = tni_alloc_array((size_t)in.n + 1, sizeof *have);
    if (!have) return tni_fail_memory((size_t)in.n * sizeof *have, p->name);
    for (int i = 0; i < in.n; i++)
        have[i] = (tni_out_spec){(tn_dtype)in.v[i]->dtype, in.v[i]->ndim, in.v[i]->shape};
    tni_spec spec[TNI_MAX_OUT];
    memset(spec, 0, sizeof spec);
    int n_out = p->desc.n_out;
    int status = tni_infer(&(tni_infer_call){p->name, &p->base, bytes, in.n, n_out, have, spec});
    tni_free(have);
    for (int k = 0; k < n_out; k++)
        want[k] = (tni_out_spec){spec[k].dtype, spec[k].ndim, spec[k].shape};
    if (!status) status = tni_node_new(&p->base, in.n, in.v, bytes, n_out, want, out);
    for (int k = 0; k < n_out && !status; k++) out[k] = tni_scope_own(out[k]);
    for (int k = 0; k < n_out && !status; k++) status = tn_array_status(out[k]);
    return status;
}

static int ext_make(tn_prim *p, const void *params, tn_list in, tn_array **out, int n_out) {
    if (!p) return tni_fail(TN_EVALUE, "prim_call: the primitive is NULL");
    if (n_out != p->desc.n_out)
        return tni_fail(TN_EVALUE, "%s: %d results asked for; it has %d", p->name, n_out,
                        p->desc.n_out);
    if (p->desc.params_size && !params)
        return tni_fail(TN_EVALUE, "%s: its parameters are NULL", p->name);
    int status = tni_call_inputs(p->name, "input", in);
    if (status) return status;
    char small[64],
        *bytes = p->base.params_size > sizeof small ? tni_alloc(p->base.params_size) : small;
    if (!bytes) return tni_fail_memory(p->base.params_size, p->name);
    memcpy(bytes, &p, sizeof p);
    if (p->desc.params_size) memcpy(bytes + sizeof p, params, p->desc.params_size);
    status = ext_node(p, bytes, in, out);
    if (bytes != small) tni_free(bytes);
    return status;
}

int tn_prim_call(tn_prim *p, const void *params, tn_list in, tn_array **out, int n_out) {
    int status = ext_make(p, params, in, out, n_out);
    tn_array *bad = status ? tni_error_last() : NULL;
    for (int k = 0; k < n_out && bad; k++) out[k] = bad;
    return status;
}

tn_array *tn_prim_call1(tn_prim *p, const void *params, tn_list in) {
    tn_array *out;
    (void)tn_prim_call(p, params, in, &out, 1);
    return out;
}
