/* Derivatives of convolution, pooling, gather and scatter: vjp and jvp against central differences
 * in f64, <d, jvp t> = <vjp d, t>, and the gradient of a gradient. */
#include "base/thread.h"
#include "random.h"
#include "tap.h"
#include "tenon/tenon.h"
#include <math.h>

enum { MOST = 4 };

static double unit(void) { return (double)(rnd() >> 11) * 0x1p-52 - 1; }

static tn_array *noise(tn_ints shape) {
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++) n *= shape.v[i];
    double *v = malloc((size_t)(n + 1) * sizeof *v);
    for (int64_t i = 0; i < n; i++) v[i] = unit();
    tn_array *a = tn_array_new(v, TN_F64, shape);
    free(v);
    return a;
}

/* A function of up to four arrays and its settings. */
typedef struct subject subject;
struct subject {
    tn_array *(*run)(tn_list in, const subject *s);
    tn_conv_opt conv;
    int mode, axis;
};

static int subject_run(tn_list in, tn_array **out, int n_out, void *ud) {
    const subject *s = ud;
    (void)n_out;
    out[0] = s->run(in, s);
    return tn_array_status(out[0]);
}

static double dot(tn_array *a, tn_array *b) {
    return tn_item_f64(tn_sum(tn_mul(a, b), TN_ALL, false));
}

/* (f(x + h t) - f(x - h t)) / 2h along tangents t, and with cotangent d. */
static double difference(const subject *s, tn_list x, tn_list t, tn_array *d) {
    tn_array *low[MOST], *high[MOST], *h = tn_scalar(1e-5, TN_F64);
    for (int i = 0; i < x.n; i++) {
        low[i] = tn_sub(x.v[i], tn_mul(h, t.v[i]));
        high[i] = tn_add(x.v[i], tn_mul(h, t.v[i]));
    }
    tn_array *y = tn_sub(s->run((tn_list){high, x.n}, s), s->run((tn_list){low, x.n}, s));
    return dot(d, y) / 2e-5;
}

static bool near(double a, double b, const char *what) {
    if (fabs(a - b) <= 1e-7 * (1 + fabs(a) + fabs(b))) return true;
    diag("%s: %.12g and %.12g", what, a, b);
    return false;
}

static void check(const char *what, subject s, tn_list in) {
    TN_SCOPE {
        tn_array *t[MOST], *y, *g[MOST], *out, *tangent, *zero[MOST];
        for (int i = 0; i < in.n; i++) t[i] = noise(tn_shape(in.v[i]));
        tn_array *d = noise(tn_shape(s.run(in, &s)));
        int status = tn_vjp(subject_run, &s, in, TN_LIST(d), &y, g);
        if (!status) status = tn_jvp(subject_run, &s, in, (tn_list){t, in.n}, 1, &out, &tangent);
        bool good = !status;
        if (status) diag("%s", tn_error());
        double all = 0;
        for (int i = 0; good && i < in.n; i++) {
            for (int k = 0; k < in.n; k++) zero[k] = k == i ? t[k] : tn_zeros_like(t[k]);
            double by = dot(g[i], t[i]);
            all += by;
            good = near(by, difference(&s, in, (tn_list){zero, in.n}, d), "vjp and difference");
            good = good && tn_dtype_of(g[i]) == TN_F64 && tn_size(g[i]) == tn_size(in.v[i]);
        }
        ok(good && near(dot(d, tangent), all, "jvp and vjp"), "%s: vjp, jvp, differences", what);
    }
}

/* ---- the subjects ---- */

static tn_array *run_conv(tn_list in, const subject *s) {
    return tn_conv_general(in.v[0], in.v[1], &s->conv);
}
static tn_array *run_transpose(tn_list in, const subject *s) {
    return tn_conv_transpose2d(in.v[0], in.v[1], &s->conv);
}
/* The gradient of the weight and of the input, as functions: second derivatives. */
static tn_array *run_conv_twice(tn_list in, const subject *s) {
    subject first = *s;
    first.run = run_conv;
    tn_array *y, *g[2];
    if (tn_vjp(subject_run, &first, (tn_list){in.v, 2}, TN_LIST(in.v[2]), &y, g))
        return tn_error_array(TN_EVALUE, "%s", tn_error());
    return tn_concatenate(TN_LIST(tn_flatten(tn_sin(g[0]), 0, -1), tn_flatten(tn_sin(g[1]), 0, -1)),
                          0);
}
static tn_array *run_max_pool(tn_list in, const subject *s) {
    return tn_max_pool(in.v[0], TN_SPATIAL(2), s->conv.stride, s->conv.padding);
}
static tn_array *run_avg_pool(tn_list in, const subject *s) {
    return tn_avg_pool(in.v[0], TN_SPATIAL(3), s->conv.stride, s->conv.padding);
}

static tn_array *places(int which) {
    static const int32_t rows[] = {0, 3, 3, 1, -1, 0}, cols[] = {1, 2, 2, -4, 0, 1};
    return tn_array_new(which ? cols : rows, TN_I32, TN_SHAPE(2, 3));
}
static tn_array *run_gather(tn_list in, const subject *s) {
    (void)s;
    return tn_gather(in.v[0], TN_LIST(places(0), places(1)), TN_AXES(0, 1), TN_INTS(1, 1, 2));
}
static tn_array *run_scatter(tn_list in, const subject *s) {
    tn_list index = TN_LIST(places(0), places(1));
    tn_ints axes = TN_AXES(0, 1);
    return s->mode == 0   ? tn_scatter(in.v[0], index, in.v[1], axes)
           : s->mode == 1 ? tn_scatter_add(in.v[0], index, in.v[1], axes)
           : s->mode == 2 ? tn_scatter_prod(in.v[0], index, in.v[1], axes)
           : s->mode == 3 ? tn_scatter_max(in.v[0], index, in.v[1], axes)
                          : tn_scatter_min(in.v[0], index, in.v[1], axes);
}
static tn_array *run_along(tn_list in, const subject *s) {
    tn_array *x = places(0);
    return s->mode == 0   ? tn_take_along_axis(in.v[0], x, s->axis)
           : s->mode == 1 ? tn_put_along_axis(in.v[0], x, in.v[1], s->axis)
                          : tn_scatter_add_axis(in.v[0], x, in.v[1], s->axis);
}

static void test_conv(void) {
    TN_SCOPE {
        subject s = {.run = run_conv, .conv = {.size = sizeof s.conv}};
        tn_array *x = noise(TN_SHAPE(2, 7, 6, 4)), *w = noise(TN_SHAPE(6, 3, 2, 4)),
                 *wg = noise(TN_SHAPE(6, 3, 2, 2));
        check("conv", s, TN_LIST(x, w));
        s.conv.stride = TN_SPATIAL(2, 3), s.conv.padding = TN_SPATIAL(1);
        check("conv, stride, padding", s, TN_LIST(x, w));
        s.conv.groups = 2, s.conv.dilation = TN_SPATIAL(2, 1),
        s.conv.padding_high = TN_SPATIAL(0, 3);
        check("conv, groups, dilation", s, TN_LIST(x, wg));
        s.conv.input_dilation = TN_SPATIAL(3, 2), s.conv.flip = true;
        check("conv, input dilation, flip", s, TN_LIST(x, wg));
        s.conv.padding = TN_SPATIAL(-1, 0);
        check("conv, negative padding", s, TN_LIST(x, wg));
        s.run = run_conv_twice;
        check("gradients of conv", s,
              TN_LIST(x, wg, noise(tn_shape(tn_conv_general(x, wg, &s.conv)))));
        subject t = {.run = run_transpose, .conv = {.size = sizeof t.conv}};
        t.conv.stride = TN_SPATIAL(2), t.conv.padding = TN_SPATIAL(1, 0);
        t.conv.output_padding = TN_SPATIAL(1);
        check("conv_transpose2d", t, TN_LIST(x, w));
        subject one = {.run = run_conv, .conv = {.size = sizeof one.conv}};
        check("conv of one axis", one, TN_LIST(noise(TN_SHAPE(3, 9, 2)), noise(TN_SHAPE(4, 3, 2))));
        one.conv.groups = 5;
        check("depthwise of three axes", one,
              TN_LIST(noise(TN_SHAPE(1, 4, 3, 5, 5)), noise(TN_SHAPE(5, 2, 2, 2, 1))));
    }
}

static void test_pool(void) {
    TN_SCOPE {
        tn_array *x = noise(TN_SHAPE(2, 7, 6, 3));
        subject s = {.run = run_max_pool};
        check("max_pool, side by side", s, TN_LIST(x));
        s.conv.stride = TN_SPATIAL(1), s.conv.padding = TN_SPATIAL(1);
        check("max_pool, overlapping", s, TN_LIST(x));
        s.run = run_avg_pool;
        check("avg_pool, overlapping", s, TN_LIST(x));
        s.conv = (tn_conv_opt){0};
        check("avg_pool, side by side", s, TN_LIST(x));
    }
}

static void test_index(void) {
    static const char *const modes[] = {"scatter", "scatter_add", "scatter_prod", "scatter_max",
                                        "scatter_min"};
    TN_SCOPE {
        tn_array *a = noise(TN_SHAPE(4, 5, 2)), *u = noise(TN_SHAPE(2, 3, 1, 1, 2)),
                 *m = noise(TN_SHAPE(2, 4)), *v = noise(TN_SHAPE(2, 3));
        check("gather", (subject){.run = run_gather}, TN_LIST(a));
        for (int i = 0; i < 5; i++)
            check(modes[i], (subject){.run = run_scatter, .mode = i}, TN_LIST(a, u));
        check("take_along_axis", (subject){.run = run_along, .axis = 1}, TN_LIST(m));
        check("put_along_axis", (subject){.run = run_along, .mode = 1, .axis = 1}, TN_LIST(m, v));
        check("scatter_add_axis", (subject){.run = run_along, .mode = 2, .axis = 1}, TN_LIST(m, v));
    }
}

int main(void) {
    test_conv();
    test_pool();
    test_index();
    tni_pool_shutdown();
    return tap_done();
}
