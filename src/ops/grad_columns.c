/* The derivative columns of elementwise.def and reduce.def, compiled as C: the words of a column
 * are local names here, each a pointer to the op of that name. */
#include "ops/grad_columns.h"
#include "core/dtype.h"
#include "ops/build.h"

char tni_grad_marks[3];

/* All columns see these names; most use few of them. */
#define WORDS                                                                                      \
    tn_array *const one = TNI_GRAD_ONE, *const zero = TNI_GRAD_ZERO, *const conjg = TNI_GRAD_CONJ; \
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

/* m shared among its ones. */
static tn_array *grad_share(tn_array *m, const tni_grad_row *r) {
    tn_array *w = tn_astype(m, r->dtype);
    return tn_div(w, tn_sum(w, r->axes, true));
}

/* The product of the other elements: of those before and those after. The reduced axes are
 * brought together at the end, and back. */
static tn_array *grad_others(const tni_grad_row *r) {
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

tn_array *tni_grad_column(int e, int k, const tni_grad_row *r) {
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
        return TNI_GRAD_ZERO;
    }
}

tn_array *tni_grad_red_column(int red, const tni_grad_row *r) {
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
        return TNI_GRAD_ZERO;
    }
}
#pragma GCC diagnostic pop
