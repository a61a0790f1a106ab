/* Derivatives of the element-wise ops and reductions: the tables' columns as factors. Broadcast
 * operands are summed in reverse, complex factors conjugated (head of elementwise.def). */
#include "core/dtype.h"
#include "ops/build.h"
#include "ops/grad_columns.h"
#include "ops/rules.h"

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

static tni_grad_row grad_row_of(const tni_node *n) {
    tni_grad_row r = {.dtype = (tn_dtype)n->in[n->n_in - 1]->dtype, .a = n->in[0], .y = n->out[0]};
    if (n->n_in > 1) r.b = n->in[1];
    if (n->n_in > 2) r.c = n->in[2];
    return r;
}

/* Real operands of ops that have complex meanings: imag of them is constant, conj changes nothing.
 */
static tn_array *grad_factor(const tni_node *n, int k, const tni_grad_row *r) {
    int e = n->prim->code;
    bool real = r->dtype != TN_C64;
    if (e == TNI_EW_imag && real) return TNI_GRAD_ZERO;
    if (e == TNI_EW_conj && real) return TNI_GRAD_ONE;
    return tni_grad_column(e, k, r);
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
    tni_grad_row r = grad_row_of(n);
    for (int k = 0; k < n->n_in; k++) {
        if (!want[k]) continue;
        if (n->prim->code == TNI_EW_where) {
            grad[k] = tni_sum_like(grad_where(n, cot[0], k), n->in[k]);
            continue;
        }
        tn_array *f = grad_factor(n, k, &r), *g = cot[0];
        if (f == TNI_GRAD_ZERO) continue;
        if (f == TNI_GRAD_CONJ)
            g = tn_conj(g);
        else if (f != TNI_GRAD_ONE)
            g = tn_mul(g, r.dtype == TN_C64 && !grad_is_part(n) ? tn_conj(f) : f);
        grad[k] = tni_sum_like(g, n->in[k]);
    }
    return 0;
}

/* Along a tangent t of a complex z: Re(conj(f) t) for f of abs and real; imag's own part. */
static tn_array *grad_part(const tni_node *n, tn_array *t, const tni_grad_row *r) {
    if (n->prim->code == TNI_EW_imag) return tn_imag(t);
    if (n->prim->code == TNI_EW_real) return tn_real(t);
    return tn_real(tn_mul(tn_conj(tni_grad_column(n->prim->code, 0, r)), t));
}

int tni_jvp_ew(const tni_node *n, tn_array *const *tan, tn_array **out) {
    tni_grad_row r = grad_row_of(n);
    tn_array *sum = NULL;
    for (int k = 0; k < n->n_in; k++) {
        if (!tan[k]) continue;
        tn_array *t = tan[k], *f = TNI_GRAD_ONE;
        if (n->prim->code == TNI_EW_where)
            t = k ? grad_where(n, t, k) : NULL;
        else if (grad_is_part(n))
            t = grad_part(n, t, &r);
        else
            f = grad_factor(n, k, &r);
        if (f == TNI_GRAD_ZERO || !t) continue;
        t = f == TNI_GRAD_CONJ ? tn_conj(t) : f == TNI_GRAD_ONE ? t : tn_mul(t, f);
        sum = sum ? tn_add(sum, t) : t;
    }
    if (sum) out[0] = tni_is_error(sum) ? sum : tni_expand(sum, r.y->ndim, r.y->shape);
    return 0;
}

/* ---- reductions ---- */

static tni_grad_row grad_red_of(const tni_node *n, int64_t *axes) {
    uint32_t mask = ((const tni_p_reduce *)n->params)->axes;
    tni_grad_row r = {.dtype = (tn_dtype)n->in[0]->dtype, .a = n->in[0], .y = n->out[0]};
    r.axes.v = axes;
    for (int i = 0; i < n->in[0]->ndim; i++)
        if (mask >> i & 1) axes[r.axes.n++] = i;
    return r;
}

int tni_vjp_red(const tni_node *n, tn_array *const *cot, const bool *want, tn_array **grad) {
    int64_t axes[TN_MAX_NDIM];
    tni_grad_row r = grad_red_of(n, axes);
    tn_array *f = want[0] ? tni_grad_red_column(n->prim->code, &r) : TNI_GRAD_ZERO, *g = cot[0];
    if (f == TNI_GRAD_ZERO) return 0;
    if (f != TNI_GRAD_ONE) g = tn_mul(g, r.dtype == TN_C64 ? tn_conj(f) : f);
    grad[0] = tni_is_error(g) ? g : tni_expand(g, r.a->ndim, r.a->shape);
    return 0;
}

int tni_jvp_red(const tni_node *n, tn_array *const *tan, tn_array **out) {
    int64_t axes[TN_MAX_NDIM];
    tni_grad_row r = grad_red_of(n, axes);
    tn_array *f = tan[0] ? tni_grad_red_column(n->prim->code, &r) : TNI_GRAD_ZERO;
    if (f != TNI_GRAD_ZERO)
        out[0] = tn_sum(f == TNI_GRAD_ONE ? tan[0] : tn_mul(tan[0], f), r.axes, true);
    return 0;
}
