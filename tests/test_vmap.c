/* Mapped primitives: for every call of every.h, every set of mapped arguments and every axis they
 * may be mapped along, vmap gives what a loop over the calls gives, stacked; its nodes agree with
 * their shape rules. For every function of cases.h, so do vmap of vmap, of vjp and of jvp, and vjp
 * and jvp of vmap. */
#include "cases.h"
#include "every.h"
#include "tap.h"
#include <math.h>

enum { CALLS = 3 };

/* ---- comparing ---- */

static double slack(tn_dtype d) {
    return d == TN_F64 ? 1e-12 : d == TN_F16 ? 4e-3 : d == TN_BF16 ? 3e-2 : 4e-6;
}

static int differ_floats(tn_array *a, tn_array *b, double tolerance) {
    size_t n = (size_t)tn_size(a);
    double *x = malloc(n * 8 + 8), *y = malloc(n * 8 + 8);
    int bad = tn_read(a, TN_F64, x, n * 8) || tn_read(b, TN_F64, y, n * 8);
    if (bad) diag("%s", tn_error());
    for (size_t i = 0; i < n && !bad; i++)
        if (!(x[i] == y[i] || (isnan(x[i]) && isnan(y[i])) ||
              fabs(x[i] - y[i]) <= tolerance * (1 + fabs(y[i])))) {
            diag("element %zu: %.9g, want %.9g", i, x[i], y[i]);
            bad = 1;
        }
    free(x), free(y);
    return bad;
}

/* Whether a is other than b: shape, dtype, elements. */
static int differ(tn_array *a, tn_array *b) {
    tn_dtype d = tn_dtype_of(b);
    if (tn_array_status(a) || tn_array_status(b)) {
        diag("%s%s", tn_array_error(a), tn_array_error(b));
        return 1;
    }
    if (a->ndim != b->ndim || d != tn_dtype_of(a) || memcmp(a->shape, b->shape, 8 * a->ndim)) {
        diag("%s, want %s", tni_describe(a), tni_describe(b));
        return 1;
    }
    if (d == TN_C64)
        return differ_floats(tn_real(a), tn_real(b), 1e-5) ||
               differ_floats(tn_imag(a), tn_imag(b), 1e-5);
    if (d >= TN_F16) return differ_floats(a, b, slack(d));
    const void *x = tn_data(a), *y = tn_data(b);
    if (x && y && !memcmp(x, y, tn_nbytes(a))) return 0;
    diag("integers differ%s%s", x ? "" : ": ", x ? "" : tn_error());
    return 1;
}

static int misfits(const tn_array *a, int depth) {
    if (tni_state_of(a) != TNI_LAZY || depth > 12) return 0;
    if (tni_infer_node(a->node)) {
        diag("%s: %s", a->node->prim->name, tn_error());
        return 1;
    }
    for (int i = 0; i < a->node->n_in; i++)
        if (misfits(a->node->in[i], depth + 1)) return 1;
    return 0;
}

/* ---- every primitive ---- */

/* Arguments of bit set `mask` mapped, argument i along axis (turn + i) of those it can have. */
static int check_calls(const every_case *c, int mask, int turn) {
    tn_array *one[CALLS][EVERY_IN], *in[EVERY_IN], *want[CALLS][TNI_MAX_OUT], *got[TNI_MAX_OUT];
    int64_t in_axes[EVERY_IN], out_axes[TNI_MAX_OUT];
    int bad = 0;
    for (int b = 0; b < CALLS; b++) {
        every_inputs(c, one[b], (uint64_t)b * 7);
        for (int i = 0; i < c->n_in; i++)
            if (!(mask >> i & 1)) one[b][i] = one[0][i];
        if (c->fn((tn_list){one[b], c->n_in}, want[b], c->n_out, (void *)(uintptr_t)c)) return 1;
    }
    for (int i = 0; i < c->n_in; i++) {
        in_axes[i] = (turn + i) % (c->in[i].ndim + 1);
        in[i] = tn_stack(TN_LIST(one[0][i], one[1][i], one[2][i]), (int)in_axes[i]);
        if (!(mask >> i & 1)) in[i] = one[0][i], in_axes[i] = TN_UNMAPPED;
    }
    for (int k = 0; k < c->n_out; k++) out_axes[k] = (turn + k) % (want[0][k]->ndim + 1);
    int status = tn_vmap(c->fn, (void *)(uintptr_t)c, (tn_list){in, c->n_in},
                         (tn_ints){in_axes, c->n_in}, c->n_out, (tn_ints){out_axes, c->n_out}, got);
    if (status) diag("%s", tn_error());
    for (int k = 0; k < c->n_out && !bad; k++) {
        tn_array *all = tn_stack(TN_LIST(want[0][k], want[1][k], want[2][k]), (int)out_axes[k]);
        bad = misfits(got[k], 0) || differ(got[k], all);
    }
    return status || bad;
}

static void check_every(const every_case *c) {
    int bad = 0, most = 0, done = 0;
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].ndim > most) most = c->in[i].ndim;
    for (int mask = 1; mask < 1 << c->n_in && !bad; mask++)
        for (int turn = 0; turn <= most && !bad; turn++)
            TN_SCOPE {
                bad = check_calls(c, mask, turn);
                if (bad) diag("%s: arguments %x mapped, turn %d", c->name, mask, turn);
                done++;
            }
    ok(!bad, "%s: %d ways to map it", c->name, done);
}

/* ---- settings that every.h leaves out ---- */

static int quantized_batch(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_quantized_matmul(in.v[0], in.v[1], in.v[2], in.v[3], true, 32, 4);
    return 0;
}
static tn_array *groups_loss(tn_list in, void *ud) {
    tn_array *y = tn_conv2d(in.v[0], in.v[1],
                            TN_OPT(tn_conv_opt, .groups = 2, .stride = TN_SPATIAL(2, 1),
                                   .padding = TN_SPATIAL(1), .dilation = TN_SPATIAL(1, 2)));
    (void)ud;
    return tn_sum(tn_mul(y, tn_square(y)), TN_ALL, false);
}
static int conv_groups(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    tn_value_and_grad(groups_loss, NULL, in, 2, &out[0], out + 1);
    return 0;
}
static tn_array *images_out(tn_list in) { /* both factors of conv_weight apart */
    tn_array *y, *g[2];
    (void)tn_vjp(case_conv_fns, NULL, TN_LIST(in.v[0], in.v[1]), TN_LIST(in.v[2]), &y, g);
    return g[1];
}
static int conv_apart(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = images_out(in);
    return 0;
}
static int empties(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_matmul(in.v[0], tn_swapaxes(in.v[0], 0, 1)); /* [3, 0] by [0, 3] */
    out[1] = tn_sum(in.v[0], TN_AXES(1), false);
    out[2] = tn_max(in.v[0], TN_AXES(0), false);
    out[3] = tn_concatenate(TN_LIST(in.v[0], in.v[1]), 1);
    out[4] = tn_take(in.v[1], tn_astype(in.v[0], TN_I32), 0);
    return 0;
}
static int places(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_take(in.v[0], in.v[1], 0);
    out[1] = tn_gather(in.v[0], TN_LIST(in.v[1]), TN_AXES(1), TN_SHAPE(2, 0));
    out[2] = tn_scatter_add(in.v[0], TN_LIST(in.v[1], in.v[1]), in.v[2], TN_AXES(1, 0));
    return 0;
}
static int heads(tn_list in, tn_array **out, int n_out, void *ud) { /* a batch of two, bool mask */
    tn_array *mask = tn_greater(in.v[1], tn_f32(0));
    (void)n_out, (void)ud;
    out[0] = tn_fast_scaled_dot_product_attention(
        in.v[0], in.v[0], in.v[0], 0.4, TN_OPT(tn_sdpa_opt, .mask = mask, .sinks = in.v[2]));
    return 0;
}
static int turned(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)n_out, (void)ud;
    out[0] = tn_fast_rope(in.v[0], 4, in.v[1], NULL);
    out[1] = tn_fast_rope(in.v[0], 6, in.v[1], TN_OPT(tn_rope_opt, .traditional = true));
    return 0;
}

static const every_case extra[] = {
    {"a batch of quantised matrices",
     4,
     1,
     {{TN_F32, 0, 3, {2, 3, 64}},
      {TN_U32, 999, 3, {2, 5, 8}},
      {TN_F32, 0, 3, {2, 5, 2}},
      {TN_F32, 0, 3, {2, 5, 2}}},
     quantized_batch,
     0,
     0,
     0},
    {"gradients of a convolution in groups",
     2,
     3,
     {{TN_F64, 0, 4, {2, 5, 6, 4}}, {TN_F64, 0, 4, {6, 3, 2, 2}}},
     conv_groups,
     0,
     0,
     0},
    {"a convolution's weight",
     3,
     1,
     {{TN_F64, 0, 4, {2, 5, 4, 3}}, {TN_F64, 0, 4, {4, 2, 2, 3}}, {TN_F64, 0, 4, {2, 4, 3, 4}}},
     conv_apart,
     0,
     0,
     0},
    {"arrays without elements",
     2,
     5,
     {{TN_F32, 0, 2, {3, 0}}, {TN_F32, 0, 2, {3, 2}}},
     empties,
     0,
     0,
     0},
    {"one index",
     3,
     3,
     {{TN_F32, 0, 2, {4, 5}}, {TN_I64, 4, 0, {0}}, {TN_F32, 0, 2, {1, 2}}},
     places,
     0,
     0,
     0},
    {"attention of a batch",
     3,
     1,
     {{TN_F32, 0, 4, {2, 4, 3, 8}}, {TN_F32, 0, 4, {2, 1, 1, 3}}, {TN_F32, 0, 1, {4}}},
     heads,
     0,
     0,
     0},
    {"positions of a batch",
     2,
     2,
     {{TN_F32, 0, 4, {2, 3, 4, 6}}, {TN_I32, 9, 1, {2}}},
     turned,
     0,
     0,
     0},
};

/* ---- transforms of mapped functions ---- */

static int which_case;
static int one_case(tn_list in, tn_array **out, int n_out, void *ud) {
    (void)ud;
    return case_fns(in, out, n_out, &which_case);
}
static int mapped_case(tn_list in, tn_array **out, int n_out, void *ud) {
    return tn_vmap(one_case, ud, in, TN_ALL, n_out, TN_ALL, out);
}
/* (x, cotangent) to the gradient. */
static int back_case(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *y;
    (void)n_out;
    return tn_vjp(one_case, ud, TN_LIST(in.v[0]), TN_LIST(in.v[1]), &y, out);
}
/* (x, tangent) to the result's tangent. */
static int along_case(tn_list in, tn_array **out, int n_out, void *ud) {
    tn_array *y;
    (void)n_out;
    return tn_jvp(one_case, ud, TN_LIST(in.v[0]), TN_LIST(in.v[1]), 1, &y, out);
}

static tn_array *numbers(const tn_array *like, uint64_t salt) {
    every_arg a = {(tn_dtype)like->dtype, 0, like->ndim, {0}};
    memcpy(a.shape, like->shape, 8 * like->ndim);
    return every_input(&a, salt);
}

static tn_array *stacked(tn_array *const *v) { return tn_stack((tn_list){v, CALLS}, 0); }

static void check_case(void) {
    tn_array *x[CALLS], *y[CALLS], *cot[CALLS], *tan[CALLS], *grad[CALLS], *along[CALLS];
    tn_array *got, *got2, *xs, *unused;
    int status = 0, bad = 0;
    const char *name = case_name(which_case);
    for (int b = 0; b < CALLS && !status; b++) {
        x[b] = tn_add(case_input(), numbers(case_input(), 50 + (uint64_t)b));
        status = one_case(TN_LIST(x[b]), &y[b], 1, NULL);
    }
    xs = stacked(x);
    status = tn_vmap(mapped_case, NULL, TN_LIST(tn_stack(TN_LIST(xs, tn_flip(xs, TN_AXES(0))), 2)),
                     TN_AXES(2), 1, TN_AXES(-1), &got);
    got2 = tn_stack(TN_LIST(stacked(y), tn_flip(stacked(y), TN_AXES(0))), -1);
    ok(!status && !differ(got, got2), "%s: vmap of vmap", name);
    if (!tni_is_inexact(tn_dtype_of(y[0]))) return;
    for (int b = 0; b < CALLS && !status; b++) {
        cot[b] = numbers(y[b], 90 + (uint64_t)b), tan[b] = numbers(x[b], 70 + (uint64_t)b);
        status = back_case(TN_LIST(x[b], cot[b]), &grad[b], 1, NULL);
        if (!status) status = along_case(TN_LIST(x[b], tan[b]), &along[b], 1, NULL);
    }
    bad = status || tn_vmap(back_case, NULL, TN_LIST(xs, stacked(cot)), TN_ALL, 1, TN_ALL, &got);
    ok(!bad && !differ(got, stacked(grad)), "%s: vmap of vjp", name);
    bad = status || tn_vjp(mapped_case, NULL, TN_LIST(xs), TN_LIST(stacked(cot)), &unused, &got);
    ok(!bad && !differ(got, stacked(grad)), "%s: vjp of vmap", name);
    bad = status || tn_vmap(along_case, NULL, TN_LIST(xs, stacked(tan)), TN_ALL, 1, TN_ALL, &got);
    ok(!bad && !differ(got, stacked(along)), "%s: vmap of jvp", name);
    bad = status || tn_jvp(mapped_case, NULL, TN_LIST(xs), TN_LIST(stacked(tan)), 1, &unused, &got);
    ok(!bad && !differ(got, stacked(along)), "%s: jvp of vmap", name);
}

int main(void) {
    every(check_every);
    for (size_t i = 0; i < sizeof extra / sizeof *extra; i++) check_every(&extra[i]);
    for (which_case = 0; which_case < CASE_COUNT; which_case++)
        TN_SCOPE {
            check_case();
        }
    is_str(case_missing() ? case_missing() : "none", "none", "no primitive is left out");
    return tap_done();
}
