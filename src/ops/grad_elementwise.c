/* Derivatives of the element-wise ops and reductions, compiled from the columns of
 * elementwise.def and reduce.def: the words of a column are local names here. Broadcast operands
 * are summed in reverse, complex factors conjugated (head of elementwise.def). */
#include "core/dtype.h"
#include "ops/build.h"
#include "ops/rules.h"

/* Words that are not factors. */
static char grad_one, grad_zero, grad_conj;
#define ONE  ((tn_array *)(void *)&grad_one)
#define ZERO ((tn_array *)(void *)&grad_zero)
#define CONJ ((tn_array *)(void *)&grad_conj)

/* All columns see these names; most use few of them. */
#define WORDS                                                                                      \
    tn_array *const one = ONE, *const zero = ZERO, *const conjg = CONJ;                            \
    (void)one, (void)zero, (void)conjg;
#define num(x)       tn_scalar(x, dtype)
#define numc(re, im) tn_complex(re, im)
#define WORD1(name, ...)                                                                           \
    tn_array *(*const name)(tn_array *) = tn_##name;                                               \
    (void)name;
#define WORD2(name, ...)                                                                           \
    tn_array *(*const name)(tn_array *, tn_array *) = tn_##name;                                   \
    (void)name;
#define WORD3(name, ...)                                                                           \
    tn_array *(*const name)(tn_array *, tn_array *, tn_array *) = tn_##name;                       \
    (void)name;

/* ---- columns ---- */

typedef struct grad_row {
    tn_dtype dtype;
    tn_array *a, *b, *c, *y;
    tn_ints axes; /* reductions */
} grad_row;

/* m shared among its ones. */
static tn_array *grad_share(tn_array *m, const grad_row *r) {
    tn_array *w = tn_astype(m, r->dtype);
    return tn_div(w, tn_sum(w, r->axes, true));
}

/* The product of the other elements: of those before and those after. The reduced axes are
 * brought together at the end, and back. */
static tn_array *grad_others(const grad_row *r) {
    tn_array *x = r->a;
    int64_t order[TN_MAX_NDIM], back[TN_MAX_NDIM], shape[TN_MAX_NDIM + 1], flat = 1;
    int n = 0, kept;
    uint32_t mask = 0;
    for (int i = 0; i < r->axes.n; i++) mask |= (uint32_t)1 << r->axes.v[i];
    for (int i = 0; i < x->ndim; i++)
        if (!(mask >> i & 1)) shape[n] = x->shape[i], order[n++] = i;
    kept = n;
    for (int i = 0; i < x->ndim; i++)
        if (mask >> i & 1) flat *= x->shape[i], order[n++] = i;
    for (int i = 0; i < n; i++) back[order[i]] = i;
    shape[kept] = flat;
    tn_array *moved = tn_transpose(x, (tn_ints){order, n});
    tn_array *z = tn_reshape(moved, (tn_ints){shape, kept + 1});
    tn_array *y = tn_mul(tn_cumprod(z, -1, false, false), tn_cumprod(z, -1, true, false));
    return tn_transpose(tn_reshape(y, tn_shape(moved)), (tn_ints){back, n});
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* a word may be called as a C function is */

/* Column k of row e. */
static tn_array *grad_column(int e, int k, const grad_row *r) {
    tn_dtype dtype = r->dtype;
    tn_array *a = r->a, *b = r->b, *c = r->c, *y = r->y;
    WORDS
#define EW1 WORD1
#define EW2 WORD2
#define EW3 WORD3
#include "ops/elementwise.def"
#undef EW1
#undef EW2
#undef EW3
        (void)
    dtype, (void)a, (void)b, (void)c, (void)y;
    switch (e * 3 + k) {
#define EW1(name, dom, value, deriv, doc)                                                          \
    case TNI_EW_##name * 3:                                                                        \
        return deriv;
#define EW2(name, dom, value, da, db, doc)                                                         \
    case TNI_EW_##name * 3:                                                                        \
        return da;                                                                                 \
    case TNI_EW_##name * 3 + 1:                                                                    \
        return db;
#define EW3(name, dom, value, da, db, dc, doc)                                                     \
    case TNI_EW_##name * 3:                                                                        \
        return da;                                                                                 \
    case TNI_EW_##name * 3 + 1:                                                                    \
        return db;                                                                                 \
    case TNI_EW_##name * 3 + 2:                                                                    \
        return dc;
#include "ops/elementwise.def"
#undef EW1
#undef EW2
#undef EW3
    default:
        return ZERO;
    }
}

static tn_array *grad_red_column(int red, const grad_row *r) {
    tn_dtype dtype = r->dtype;
    tn_array *a = r->a, *y = r->y;
    (void)dtype;
    WORDS
#define others   grad_others(r)
#define share(m) grad_share(m, r)
#define EW1      WORD1
#define EW2      WORD2
#define EW3      WORD3
#include "ops/elementwise.def"
    switch (red) {
#define RED(name, dom, state, identity, step, merge, finish, deriv, doc)                           \
    case TNI_RED_##name:                                                                           \
        return deriv;
#include "ops/reduce.def"
#undef RED
    default:
        return ZERO;
    }
}
#pragma GCC diagnostic pop

/* ---- element-wise ---- */

tn_array *tni_sum_like(tn_array *g, const tn_array *like) {
    int64_t axes[TN_MAX_NDIM];
    int n = 0, lead = g->ndim - like->ndim;
    if (tni_is_error(g)) return g;
    for (int i = 0; i < g->ndim; i++)
        if (i < lead || (like->shape[i - lead] == 1 && g->shape[i] != 1)) axes[n++] = i;
    if (n) g = tn_sum(g, (tn_ints){axes, n}, true);
    if (lead > 0) g = tn_reshape(g, (tn_ints){like->shape, like->ndim});
    if (g->dtype == TN_C64 && like->dtype != TN_C64) g = tn_real(g);
    if (!tni_is_error(g)) g = tni_cast(g, (tn_dtype)like->dtype);
    return tni_is_error(g) ? g : tni_expand(g, like->ndim, like->shape);
}

static grad_row grad_row_of(const tni_node *n) {
    grad_row r = {.dtype = (tn_dtype)n->in[n->n_in - 1]->dtype, .a = n->in[0], .y = n->out[0]};
    if (n->n_in > 1) r.b = n->in[1];
    if (n->n_in > 2) r.c = n->in[2];
    return r;
}

/* Real operands of ops that have complex meanings: imag of them is constant, conj changes nothing.
 */
static tn_array *grad_factor(const tni_node *n, int k, const grad_row *r) {
    int e = n->prim->code;
    bool real = r->dtype != TN_C64;
    if (e == TNI_EW_imag && real) return ZERO;
    if (e == TNI_EW_conj && real) return ONE;
    return grad_column(e, k, r);
}

/* abs, real and imag of complex numbers: their factor is the gradient itself. */
static bool grad_is_part(const tni_node *n) {
    return n->in[0]->dtype == TN_C64 && n->out[0]->dtype == TN_F32;
}

/* The part of the cotangent that where's condition lets through: a choice, not a product, so that
 * an infinity on the other side stays there. */
static tn_array *grad_where(const tni_node *n, tn_array *g, int k) {
    tn_array *none = tn_scalar(0, (tn_dtype)n->out[0]->dtype);
    return k == 1 ? tn_where(n->in[0], g, none) : tn_where(n->in[0], none, g);
}

int tni_vjp_ew(const tni_node *n, tn_array *const *cot, const bool *want, tn_array **grad) {
    grad_row r = grad_row_of(n);
    for (int k = 0; k < n->n_in; k++) {
        if (!want[k]) continue;
        if (n->prim->code == TNI_EW_where) {
            grad[k] = tni_sum_like(grad_where(n, cot[0], k), n->in[k]);
            continue;
        }
        tn_array *f = grad_factor(n, k, &r), *g = cot[0];
        if (f == ZERO) continue;
        if (f == CONJ)
            g = tn_conj(g);
        else if (f != ONE)
            g = tn_mul(g, r.dtype == TN_C64 && !grad_is_part(n) ? tn_conj(f) : f);
        grad[k] = tni_sum_like(g, n->in[k]);
    }
    return 0;
}

/* Along a tangent t of a complex z: Re(conj(f) t) for f of abs and real; imag's own part. */
static tn_array *grad_part(const tni_node *n, tn_array *t, const grad_row *r) {
    if (n->prim->code == TNI_EW_imag) return tn_imag(t);
    if (n->prim->code == TNI_EW_real) return tn_real(t);
    return tn_real(tn_mul(tn_conj(grad_column(n->prim->code, 0, r)), t));
}

int tni_jvp_ew(const tni_node *n, tn_array *const *tan, tn_array **out) {
    grad_row r = grad_row_of(n);
    tn_array *sum = NULL;
    for (int k = 0; k < n->n_in; k++) {
        if (!tan[k]) continue;
        tn_array *t = tan[k], *f = ONE;
        if (n->prim->code == TNI_EW_where)
            t = k ? grad_where(n, t, k) : NULL;
        else if (grad_is_part(n))
            t = grad_part(n, t, &r);
        else
            f = grad_factor(n, k, &r);
        if (f == ZERO || !t) continue;
        t = f == CONJ ? tn_conj(t) : f == ONE ? t : tn_mul(t, f);
        sum = sum ? tn_add(sum, t) : t;
    }
    if (sum) out[0] = tni_is_error(sum) ? sum : tni_expand(sum, r.y->ndim, r.y->shape);
    return 0;
}

/* ---- reductions ---- */

static grad_row grad_red_of(const tni_node *n, int64_t *axes) {
    uint32_t mask = ((const tni_p_reduce *)n->params)->axes;
    grad_row r = {.dtype = (tn_dtype)n->in[0]->dtype, .a = n->in[0], .y = n->out[0]};
    r.axes.v = axes;
    for (int i = 0; i < n->in[0]->ndim; i++)
        if (mask >> i & 1) axes[r.axes.n++] = i;
    return r;
}

int tni_vjp_red(const tni_node *n, tn_array *const *cot, const bool *want, tn_array **grad) {
    int64_t axes[TN_MAX_NDIM];
    grad_row r = grad_red_of(n, axes);
    tn_array *f = want[0] ? grad_red_column(n->prim->code, &r) : ZERO, *g = cot[0];
    if (f == ZERO) return 0;
    if (f != ONE) g = tn_mul(g, r.dtype == TN_C64 ? tn_conj(f) : f);
    grad[0] = tni_is_error(g) ? g : tni_expand(g, r.a->ndim, r.a->shape);
    return 0;
}

int tni_jvp_red(const tni_node *n, tn_array *const *tan, tn_array **out) {
    int64_t axes[TN_MAX_NDIM];
    grad_row r = grad_red_of(n, axes);
    tn_array *f = tan[0] ? grad_red_column(n->prim->code, &r) : ZERO;
    if (f != ZERO) out[0] = tn_sum(f == ONE ? tan[0] : tn_mul(tan[0], f), r.axes, true);
    return 0;
}
