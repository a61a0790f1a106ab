/* Rewrites that give other bits, within rounding: done only when asked for. The pass notes for
 * values that only one node uses that they are
 *     base * scale + shift,    scale and shift a number each, or one a channel (the last axis),
 * and makes that out of it, instead of the rows by which it was written, when it is used:
 *   (x * a) * b = x * (ab), (x + a) + b = x + (a + b), (x + a) * b = x * b + ab, and so with -, /
 *     and neg, where fewer rows are left; in halves a shift stays before a scale, since x + a is
 *     often exact there and x * b is not;
 *   conv(x, w) * a = conv(x, w * a) along w's first axis, and matmul(x, w) * a = matmul(x, w * a)
 *     along its last, for constant w, also through reshapes that keep the last axis and casts
 *     between floats: so batch norm by fixed statistics goes into the convolution before it, and a
 *     row that adds the shift is left. Packed matrices are not scaled: their groups' scales are
 *     rounded, and packing again would lose what was fitted to them.
 * Scales are gathered in f64 and rounded once; weights are multiplied in f64 and rounded once. For
 * halves too this is no less exact than the rows, which round at every step (test_fold measures
 * both against f64). Not done where it could do more than round: numbers that are not finite or
 * leave the dtype's normal range, weights a channel of which would, shifts so large that the sum
 * could hide an overflow. The weights are computed here, once; they are copies. */
#include "base/alloc.h"
#include "base/err.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "ops/op.h"
#include "trans/simp.h"
#include "trans/simp_table.h"
#include <float.h>
#include <math.h>
#include <string.h>

typedef struct fold_form {
    const tni_node *linear; /* what made `base`, if that is a product with constant weights */
    tn_array *base;         /* in the new graph */
    tn_stream *stream;
    int rows;     /* gathered */
    bool moved;   /* dtype or shape are not the base's any more */
    bool swapped; /* a scale came after a shift */
    int64_t n;    /* 1, or as many as channels */
    double v[];   /* n scales, n shifts */
} fold_form;

struct tni_simp_fold {
    int64_t n;
    int32_t *uses;    /* of each value of the old graph */
    fold_form **form; /* what it is besides, in the new graph; NULL: nothing else */
};

static void fold_no_memory(tni_simp *s) {
    s->status = tni_fail_memory(sizeof(fold_form), "simplifying");
}

/* ---- the old graph ---- */

/* Place of a value of the old graph; -1: none. */
static int64_t fold_slot(const tn_array *a) {
    if (tni_state_of(a) != TNI_LAZY || a->node->index < 0) return -1;
    return a->node->index + a->out_index;
}

static void fold_count(tni_simp *s, const tn_array *a) {
    int64_t k = fold_slot(a);
    if (k >= 0 && s->fold->uses[k] < INT32_MAX) s->fold->uses[k]++;
}

void tni_simp_fold_open(tni_simp *s, int n_out, tn_array *const *out) {
    tni_simp_fold *f = s->fold = tni_calloc(1, sizeof *f);
    if (!f) return fold_no_memory(s);
    f->n = s->old.n_slots;
    f->uses = tni_calloc((size_t)f->n + 1, sizeof *f->uses);
    f->form = tni_calloc((size_t)f->n + 1, sizeof *f->form);
    if (!f->uses || !f->form) return fold_no_memory(s);
    for (size_t i = 0; i < s->old.order.n; i++)
        for (int k = 0; k < s->old.order.v[i]->n_in; k++) fold_count(s, s->old.order.v[i]->in[k]);
    for (int k = 0; k < n_out; k++) fold_count(s, out[k]);
}

void tni_simp_fold_free(tni_simp *s) {
    tni_simp_fold *f = s->fold;
    if (!f) return;
    for (int64_t k = 0; k < f->n && f->form; k++) tni_free(f->form[k]);
    tni_free(f->form);
    tni_free(f->uses);
    tni_free(f);
}

static fold_form *fold_form_of(const tni_simp *s, const tn_array *a) {
    int64_t k = fold_slot(a);
    return k < 0 ? NULL : s->fold->form[k];
}

/* ---- numbers ---- */

static bool fold_half(tn_dtype d) { return d == TN_F16 || d == TN_BF16; }

static double fold_most(tn_dtype d) {
    return d == TN_F64 ? DBL_MAX : d == TN_F16 ? 65504 : (double)FLT_MAX; /* bf16: nearly f32's */
}
static double fold_least(tn_dtype d) { /* normal */
    return d == TN_F64 ? DBL_MIN : d == TN_F16 ? 0x1p-14 : (double)FLT_MIN;
}

/* How many numbers a row's constant holds along its last axis, being one number along the others;
 * 0: it is no such constant. */
static int64_t fold_channels(const tni_simp *s, const tn_array *c) {
    if (!tni_simp_constant(s, c) || !tni_is_float((tn_dtype)c->dtype) || !c->size) return 0;
    if (!c->buf || !c->ndim) return 1;
    for (int d = 0; d < c->ndim - 1; d++)
        if (c->shape[d] != 1 && c->strides[d] != 0) return 0;
    return c->shape[c->ndim - 1];
}

static double fold_number(const tn_array *c, int64_t n, int64_t i) {
    tn_dtype d = (tn_dtype)c->dtype;
    int64_t at = n > 1 ? i * c->strides[c->ndim - 1] : 0;
    return tni_load_f64(d, (const char *)tni_array_data(c) + at * (int64_t)tn_dtype_size(d));
}

/* One row: x (input `x`), with a constant of n numbers or alone. */
typedef struct fold_row {
    int code, x;
    const tn_array *c; /* NULL: alone */
    int64_t n;
} fold_row;

static bool fold_is_row(const tni_simp *s, const tni_node *n, tn_array *const *in, fold_row *r) {
    const tn_array *y = n->out[0];
    *r = (fold_row){.code = n->prim->code, .n = 1};
    if (n->prim->kind != TNI_K_EW || !y || !y->size || !y->ndim ||
        !tni_is_float((tn_dtype)y->dtype))
        return false;
    switch (r->code) {
    case TNI_EW_neg:
        break;
    case TNI_EW_add:
    case TNI_EW_sub:
    case TNI_EW_mul:
    case TNI_EW_div:
        r->x = tni_simp_constant(s, in[0]);
        r->c = in[1 - r->x];
        r->n = fold_channels(s, r->c);
        if (!r->n || (r->x && r->code == TNI_EW_div)) return false;
        break;
    default:
        return false;
    }
    const tn_array *x = in[r->x];
    return x->dtype == y->dtype && !tni_simp_constant(s, x) &&
           tni_same_shape(x->ndim, x->shape, y->ndim, y->shape);
}

/* The row after x * *scale + *shift; false: it may do more than round. */
static bool fold_compose(const fold_row *r, int64_t i, tn_dtype d, double *scale, double *shift) {
    double c = r->c ? fold_number(r->c, r->n, i) : 0, a = *scale, b = *shift;
    bool scales = r->code == TNI_EW_mul || r->code == TNI_EW_div, zero = a == 0;
    switch (r->code) {
    case TNI_EW_mul:
        a *= c, b *= c, zero = zero || c == 0;
        break;
    case TNI_EW_div:
        a /= c, b /= c;
        break;
    case TNI_EW_add:
        b += c;
        break;
    case TNI_EW_sub:
        if (r->x) a = -a, b = -b;
        b += r->x ? c : -c;
        break;
    default:
        a = -a, b = -b;
    }
    *scale = a, *shift = b;
    if (!isfinite(c) || !isfinite(a) || !isfinite(b) || fabs(b) > fold_most(d) / 16) return false;
    return !scales || zero || (fabs(a) >= fold_least(d) && fabs(a) <= fold_most(d));
}

static bool fold_all(const double *v, int64_t n, double value) {
    for (int64_t i = 0; i < n; i++)
        if (v[i] != value) return false;
    return true;
}

/* ---- noting ---- */

static fold_form *fold_new(tni_simp *s, int64_t n, tn_array *base) {
    fold_form *f = tni_alloc(sizeof *f + 2 * (size_t)n * sizeof *f->v);
    if (!f) return fold_no_memory(s), NULL;
    *f = (fold_form){.base = base, .stream = s->stream, .n = n};
    for (int64_t i = 0; i < n; i++) f->v[i] = 1, f->v[n + i] = 0;
    return f;
}

/* The row scales what was shifted. */
static bool fold_swaps(const fold_form *f, const fold_row *r) {
    bool scales = r->code == TNI_EW_mul || r->code == TNI_EW_div;
    return scales && !fold_all(f->v + f->n, f->n, 0);
}

/* Node n as a row after f (NULL: after `base`). NULL: it cannot be, or the status is set. */
static fold_form *fold_after(tni_simp *s, const fold_form *f, tn_array *base, const tni_node *n,
                             const fold_row *r) {
    tn_dtype d = (tn_dtype)n->out[0]->dtype;
    bool swaps = f && fold_swaps(f, r);
    if (f && (f->stream != s->stream || (swaps && fold_half(d) && !f->linear))) return NULL;
    fold_form *g = fold_new(s, f && f->n > r->n ? f->n : r->n, base);
    if (!g) return NULL;
    if (f) g->linear = f->linear, g->base = f->base, g->moved = f->moved;
    g->swapped = f && (f->swapped || swaps);
    g->rows = f ? f->rows + 1 : 1;
    for (int64_t i = 0; i < g->n; i++) {
        double *scale = &g->v[i], *shift = &g->v[g->n + i];
        if (f) *scale = f->v[f->n > 1 ? i : 0], *shift = f->v[f->n + (f->n > 1 ? i : 0)];
        if (fold_compose(r, i, d, scale, shift)) continue;
        tni_free(g);
        return NULL;
    }
    return g;
}

/* A cast between floats, or a reshape that keeps the last axis, after a product. */
static bool fold_passes(const fold_form *f, const tni_node *n) {
    const tn_array *x = n->in[0], *y = n->out[0];
    if (!f || !f->linear || n->stream != f->stream || !y || !y->ndim) return false;
    tn_dtype from = (tn_dtype)x->dtype, to = (tn_dtype)y->dtype;
    if (n->prim->id == TNI_OP_reshape) return x->shape[x->ndim - 1] == y->shape[y->ndim - 1];
    return n->prim->id == TNI_OP_astype && from != TN_F64 && to != TN_F64 && tni_is_float(to);
}

void tni_simp_fold_inputs(tni_simp *s, const tni_node *n, tn_array **in) {
    fold_row r;
    fold_form **to = &s->fold->form[n->index], *f = n->n_in == 1 ? fold_form_of(s, n->in[0]) : NULL;
    if (fold_passes(f, n)) {
        s->fold->form[fold_slot(n->in[0])] = NULL;
        f->moved = true;
        *to = f;
        return;
    }
    bool row = fold_is_row(s, n, in, &r);
    f = row ? fold_form_of(s, n->in[r.x]) : NULL;
    if (f) *to = fold_after(s, f, NULL, n, &r);
    if (*to) {
        s->fold->form[fold_slot(n->in[r.x])] = NULL;
        tni_free(f);
    }
    if (*to || s->status) return;
    for (int i = 0; i < n->n_in && !s->status; i++) in[i] = tni_simp_fold_take(s, n->in[i], in[i]);
    if (row && !s->status && fold_is_row(s, n, in, &r)) *to = fold_after(s, NULL, in[r.x], n, &r);
}

/* ---- constants of the new graph ---- */

/* Holds an array of the current scope beyond it. */
static tn_array *fold_hold(tni_simp *s, tn_array *a) {
    if (tn_array_status(a)) s->status = tn_array_status(a);
    if (!s->status && tni_vec_reserve(&s->made, s->made.n + 1)) fold_no_memory(s);
    if (s->status) return NULL;
    tni_array_retain(s->made.v[s->made.n++] = a);
    return a;
}

/* n numbers along the last axis, or one, as a row takes them. */
static tn_array *fold_numbers(tni_simp *s, tn_dtype d, const double *v, int64_t n) {
    uint64_t raw = 0;
    tni_store_f64(d, v[0], &raw);
    if (fold_all(v, n, v[0])) return tni_simp_uniform(s, d, &raw, 0, NULL);
    char *bytes = tni_alloc((size_t)n * tn_dtype_size(d));
    if (!bytes) return fold_no_memory(s), NULL;
    for (int64_t i = 0; i < n; i++) tni_store_f64(d, v[i], bytes + (size_t)i * tn_dtype_size(d));
    tn_array *a = NULL;
    TN_SCOPE
        a = fold_hold(s, tn_array_new(bytes, d, TN_SHAPE(n)));
    tni_free(bytes);
    return a ? tni_simp_intern(s, a) : NULL;
}

static tn_array *fold_apply(tni_simp *s, int e, tn_array *y, const double *v, int64_t n) {
    tn_array *c = fold_numbers(s, (tn_dtype)y->dtype, v, n);
    if (!c) return NULL;
    tni_simp_op op = {TNI_PRIM_EW(e), 2,       (tn_array *[]){y, c}, NULL, (tn_dtype)y->dtype,
                      y->ndim,        y->shape};
    return tni_simp_make(s, &op);
}

/* ---- weights ---- */

/* False: no values, and the status set if it is for want of memory. */
static bool fold_eval(tni_simp *s, tn_list list) {
    int status = tn_eval(list);
    if (status == TN_EMEMORY) s->status = status;
    if (status && !s->status) tni_error_clear();
    return !status;
}

/* The largest magnitude along `axis`, over the others. */
static tn_array *fold_largest(tn_array *w, int axis) {
    int64_t axes[TN_MAX_NDIM];
    int n = 0;
    for (int d = 0; d < w->ndim; d++)
        if (d != axis) axes[n++] = d;
    return tn_max(tn_abs(w), (tn_ints){axes, n}, false);
}

/* No channel overflowed, or lost digits by falling below the normal numbers. */
static bool fold_fits(const fold_form *f, const tn_array *was, const tn_array *now) {
    tn_dtype d = (tn_dtype)was->dtype;
    const char *a = tni_array_data(was), *b = tni_array_data(now);
    for (int64_t i = 0; i < was->size; i++, a += tn_dtype_size(d), b += tn_dtype_size(d)) {
        bool zero = f->v[f->n > 1 ? i : 0] == 0 || tni_load_f64(d, a) == 0;
        double most = tni_load_f64(d, b);
        if (!isfinite(most) || (!zero && most < fold_least(d))) return false;
    }
    return true;
}

/* w times the scales along `axis`, evaluated: of the current scope. NULL: not to be had. */
static tn_array *fold_scaled(tni_simp *s, const fold_form *f, tn_array *w, int axis) {
    int64_t shape[TN_MAX_NDIM];
    for (int d = 0; d < w->ndim; d++) shape[d] = d == axis ? f->n : 1;
    tn_array *scale = tn_array_new(f->v, TN_F64, (tn_ints){shape, w->ndim});
    tn_array *y = tn_astype(tn_mul(tn_astype(w, TN_F64), scale), (tn_dtype)w->dtype);
    tn_array *was = fold_largest(w, axis), *now = fold_largest(y, axis);
    return fold_eval(s, TN_LIST(y, was, now)) && fold_fits(f, was, now) ? y : NULL;
}

/* A matrix or a batch of such, in the layout that it has: a repeated one is scaled once, one read
 * by columns stays so. */
static tn_array *fold_matrix(tni_simp *s, const fold_form *f, tn_array *w) {
    int n = w->ndim, repeats = 0;
    tn_array *m = w, *y;
    for (int d = 0; d < n - 2; d++) {
        repeats += w->shape[d] > 1 && w->strides[d] == 0;
        if (w->strides[d] == 0) m = tn_slice_axis(m, d, 0, 1);
    }
    bool columns = w->strides[n - 1] != 1 && w->strides[n - 2] == 1;
    if (!fold_eval(s, TN_LIST(m))) return NULL;
    y = fold_scaled(s, f, columns ? tn_swapaxes(m, n - 2, n - 1) : m, columns ? n - 2 : n - 1);
    if (y && columns) y = tn_swapaxes(y, n - 2, n - 1);
    if (y && repeats) y = tn_broadcast_to(y, tn_shape(w));
    return y && fold_eval(s, TN_LIST(y)) ? y : NULL;
}

/* What has constant weights, in[1], by one number an output channel. */
static bool fold_is_linear(const tni_simp *s, const tn_array *y) {
    if (!tni_simp_made(s, y) || y->ndim < 2 || !y->size) return false;
    const tni_node *n = y->node;
    if (n->prim->id != TNI_OP_conv && n->prim->id != TNI_OP_matmul) return false;
    const tn_array *x = n->in[0], *w = n->in[1];
    return tni_is_float((tn_dtype)y->dtype) && w->dtype == y->dtype && tni_simp_constant(s, w) &&
           w->buf && !tni_simp_constant(s, x);
}

/* The product with scaled weights; NULL: not to be had, or the status is set. */
static tn_array *fold_linear(tni_simp *s, const fold_form *f) {
    const tni_node *n = f->linear;
    tn_array *y = f->base, *w = NULL;
    for (int64_t i = 0; i < f->n; i++)
        if (fabs(f->v[f->n + i]) > fold_most((tn_dtype)y->dtype) / 16) return NULL;
    TN_SCOPE {
        w = n->prim->id == TNI_OP_conv ? fold_scaled(s, f, n->in[1], 0)
                                       : fold_matrix(s, f, n->in[1]);
        if (w && !s->status) w = fold_hold(s, w);
    }
    if (!w || s->status) return NULL;
    tni_simp_op op = {n->prim, 2,       (tn_array *[]){n->in[0], w}, n->params, (tn_dtype)y->dtype,
                      y->ndim, y->shape};
    return tni_simp_make(s, &op);
}

/* ---- making ---- */

/* y in a's shape and dtype. */
static tn_array *fold_like(tni_simp *s, tn_array *y, const tn_array *a) {
    y = tni_simp_reshape(s, y, a->ndim, a->shape);
    if (!y || y->dtype == a->dtype) return y;
    tni_simp_op op = {TNI_PRIM(astype),   1,       (tn_array *[]){y}, NULL,
                      (tn_dtype)a->dtype, a->ndim, a->shape};
    return tni_simp_make(s, &op);
}

/* What f is, made in the new graph for `a` of the old; NULL: the rows are as good, or the status
 * is set. */
static tn_array *fold_make(tni_simp *s, const fold_form *f, const tn_array *a) {
    const double *scale = f->v, *shift = f->v + f->n;
    bool scales = !fold_all(scale, f->n, 1), shifts = !fold_all(shift, f->n, 0);
    tn_array *y = f->linear && scales ? fold_linear(s, f) : NULL;
    if (s->status) return NULL;
    if (y) {
        y = fold_like(s, y, a);
        return y && shifts ? fold_apply(s, TNI_EW_add, y, shift, f->n) : y;
    }
    if (f->moved || scales + shifts >= f->rows) return NULL;
    if (f->swapped && fold_half((tn_dtype)a->dtype)) return NULL;
    y = f->base;
    if (scales) y = fold_apply(s, TNI_EW_mul, y, scale, f->n);
    return y && shifts ? fold_apply(s, TNI_EW_add, y, shift, f->n) : y;
}

tn_array *tni_simp_fold_take(tni_simp *s, const tn_array *a, tn_array *plain) {
    fold_form *f = fold_form_of(s, a);
    if (!f) return plain;
    tn_stream *stream = s->stream;
    s->fold->form[fold_slot(a)] = NULL;
    s->stream = f->stream;
    tn_array *y = f->rows ? fold_make(s, f, a) : NULL;
    s->stream = stream;
    tni_free(f);
    return y || s->status ? y : plain;
}

tn_array *tni_simp_fold_output(tni_simp *s, const tni_node *n, tn_array *y) {
    fold_form **f = &s->fold->form[n->index];
    bool once = s->fold->uses[n->index] == 1;
    if (!*f && once && fold_is_linear(s, y)) {
        *f = fold_new(s, 1, y);
        if (*f) (*f)->linear = y->node;
    }
    return once || !n->out[0] ? y : tni_simp_fold_take(s, n->out[0], y);
}
