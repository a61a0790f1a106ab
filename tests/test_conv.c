/* Convolutions against plain loops in f64: 1 to 3 axes, every setting, dtypes, views, transposed
 * ones, threads, empty arrays, bad arguments, memory that runs out. */
#include "base/thread.h"
#include "core/array.h"
#include "memory.h"
#include "ops/conv.h"
#include "random.h"
#include "tap.h"
#include "tenon/tenon.h"
#include "values.h"
#include <math.h>

static tn_array *noise(tn_ints shape, tn_dtype d) {
    int64_t n = 1;
    for (int i = 0; i < shape.n; i++) n *= shape.v[i];
    float *v = malloc((size_t)(n ? n : 1) * sizeof *v);
    for (int64_t i = 0; i < n; i++) v[i] = (float)(rnd() % 4001) / 2000 - 1;
    tn_array *a = tn_astype(tn_array_new(v, TN_F32, shape), d);
    free(v);
    return a;
}

/* Settings of three axes; those not used are 1 place, 1 tap. */
typedef struct ref_conv {
    int64_t n, c, o, groups;
    int64_t in[3], taps[3], out[3], stride[3], low[3], dilation[3], spread[3];
    bool flip;
} ref_conv;

static double ref_at(const ref_conv *r, const double *x, const double *w, int64_t n, int64_t o,
                     const int64_t *at) {
    int64_t cg = r->c / r->groups, g = o / (r->o / r->groups), k[3];
    double sum = 0;
    for (k[0] = 0; k[0] < r->taps[0]; k[0]++)
        for (k[1] = 0; k[1] < r->taps[1]; k[1]++)
            for (k[2] = 0; k[2] < r->taps[2]; k[2]++) {
                int64_t xi = n, wi = o;
                bool in = true;
                for (int d = 0; d < 3; d++) {
                    int64_t p = at[d] * r->stride[d] - r->low[d] + k[d] * r->dilation[d];
                    in = in && p >= 0 && p % r->spread[d] == 0 && p / r->spread[d] < r->in[d];
                    xi = xi * r->in[d] + p / r->spread[d];
                    wi = wi * r->taps[d] + (r->flip ? r->taps[d] - 1 - k[d] : k[d]);
                }
                for (int64_t c = 0; in && c < cg; c++)
                    sum += x[xi * r->c + g * cg + c] * w[wi * cg + c];
            }
    return sum;
}

static double *ref_run(const ref_conv *r, const double *x, const double *w) {
    int64_t size = r->n * r->out[0] * r->out[1] * r->out[2] * r->o, at[3], i = 0;
    double *y = malloc((size_t)(size + 1) * sizeof *y);
    for (int64_t n = 0; n < r->n; n++)
        for (at[0] = 0; at[0] < r->out[0]; at[0]++)
            for (at[1] = 0; at[1] < r->out[1]; at[1]++)
                for (at[2] = 0; at[2] < r->out[2]; at[2]++)
                    for (int64_t o = 0; o < r->o; o++) y[i++] = ref_at(r, x, w, n, o, at);
    return y;
}

static double tolerance(tn_dtype d) {
    return d == TN_F16 ? 1e-3 : d == TN_BF16 ? 8e-3 : d == TN_F64 ? 1e-13 : 3e-6;
}

/* y against the reference for the same settings; sizes of places come from y, which must have the
 * shape the caller says. */
static bool agrees(tn_array *y, ref_conv *r, const double *x, const double *w, double tol) {
    if (tn_array_status(y)) {
        diag("%s", tn_array_error(y));
        return false;
    }
    int nd = tn_ndim(y) - 2;
    for (int d = 0; d < 3; d++) r->out[d] = d < 3 - nd ? 1 : tn_dim(y, d - 2 + nd);
    double *want = ref_run(r, x, w), *got = values(y);
    int bad = 0;
    for (int64_t i = 0; i < tn_size(y); i++)
        if (!(fabs(got[i] - want[i]) <= tol * (1 + fabs(want[i]))) && bad++ < 3)
            diag("element %lld is %.9g, not %.9g", (long long)i, got[i], want[i]);
    free(want), free(got);
    return !bad;
}

static tn_spatial spatial(const int64_t *v, int nd) {
    tn_spatial s = {{0}, nd};
    for (int d = 0; d < nd; d++) s.v[d] = v[3 - nd + d];
    return s;
}

/* One random case of `nd` axes. */
static void random_case(int nd, tn_dtype d, bool transposed) {
    ref_conv r = {.groups = 1 + (int64_t)(rnd() % 3)};
    int64_t high[3] = {0}, more[3] = {0}, want[3];
    r.n = 1 + (int64_t)(rnd() % 3), r.c = r.groups * (1 + (int64_t)(rnd() % 5)),
    r.o = r.groups * (1 + (int64_t)(rnd() % 6));
    r.flip = !transposed && rnd() % 2;
    bool views = rnd() % 3 == 0, fit = true;
    for (int i = 0; i < 3; i++) {
        r.in[i] = r.taps[i] = r.stride[i] = r.dilation[i] = r.spread[i] = 1;
        if (i < 3 - nd) continue;
        r.in[i] = 1 + (int64_t)(rnd() % 9), r.taps[i] = 1 + (int64_t)(rnd() % 4);
        r.stride[i] = 1 + (int64_t)(rnd() % 3), r.dilation[i] = 1 + (int64_t)(rnd() % 2);
        r.low[i] = (int64_t)(rnd() % 4), high[i] = (int64_t)(rnd() % 4);
        if (transposed) {
            more[i] = (int64_t)(rnd() % 2);
            want[i] = (r.in[i] - 1) * r.stride[i] + r.dilation[i] * (r.taps[i] - 1) + 1 -
                      2 * r.low[i] + more[i];
        } else {
            r.spread[i] = 1 + (int64_t)(rnd() % 3) / 2;
            if (rnd() % 8 == 0) r.low[i] = -1;
            int64_t room = (r.in[i] - 1) * r.spread[i] + 1 + r.low[i] + high[i] -
                           r.dilation[i] * (r.taps[i] - 1) - 1;
            want[i] = room < 0 ? 0 : room / r.stride[i] + 1;
        }
        fit = fit && want[i] > 0;
    }
    TN_SCOPE {
        int64_t xs[5] = {r.n}, ws[5] = {r.o};
        for (int i = 0; i < nd; i++) xs[i + 1] = r.in[3 - nd + i], ws[i + 1] = r.taps[3 - nd + i];
        xs[nd + 1] = r.c, ws[nd + 1] = r.c / r.groups;
        tn_array *x = noise((tn_ints){xs, nd + 2}, d), *w = noise((tn_ints){ws, nd + 2}, d), *y;
        double *vx = values(x), *vw = values(w);
        if (views) {
            x = tn_transpose(tn_contiguous(tn_transpose(x, TN_ALL)), TN_ALL);
            w = tn_flip(tn_contiguous(tn_flip(w, TN_AXES(1))), TN_AXES(1));
        }
        tn_conv_opt opt = {.size = sizeof opt, .groups = (int)r.groups, .flip = r.flip};
        opt.stride = spatial(r.stride, nd), opt.padding = spatial(r.low, nd);
        opt.dilation = spatial(r.dilation, nd);
        if (transposed)
            opt.output_padding = spatial(more, nd);
        else
            opt.padding_high = spatial(high, nd), opt.input_dilation = spatial(r.spread, nd);
        if (transposed)
            y = nd == 1   ? tn_conv_transpose1d(x, w, &opt)
                : nd == 2 ? tn_conv_transpose2d(x, w, &opt)
                          : tn_conv_transpose3d(x, w, &opt);
        else
            y = tn_conv_general(x, w, &opt);
        if (transposed) /* the same as a general one with the kernel turned around */
            for (int i = 3 - nd; i < 3; i++) {
                r.low[i] = r.dilation[i] * (r.taps[i] - 1) - r.low[i];
                r.spread[i] = r.stride[i], r.stride[i] = 1, r.flip = true;
            }
        bool good = fit ? agrees(y, &r, vx, vw, tolerance(d)) && tn_dtype_of(y) == d
                        : tn_array_status(y) == TN_ESHAPE || tn_size(y) == 0;
        for (int i = 0; fit && i < nd; i++) good = good && tn_dim(y, i + 1) == want[3 - nd + i];
        ok(good, "%s of %d axes, %s, %lld groups, %lld to %lld channels%s%s%s",
           transposed ? "transposed" : "general", nd, tn_dtype_name(d), (long long)r.groups,
           (long long)r.c, (long long)r.o, r.flip && !transposed ? ", flipped" : "",
           views ? ", views" : "", fit ? "" : ", nothing left");
        free(vx), free(vw);
    }
}

/* A transposed convolution by its own definition: inputs spread over copies of the kernel. */
static void test_transposed(void) {
    TN_SCOPE {
        tn_array *x = noise(TN_SHAPE(1, 5, 2), TN_F64), *w = noise(TN_SHAPE(3, 4, 2), TN_F64);
        double *vx = values(x), *vw = values(w), want[12 * 3] = {0};
        for (int i = 0; i < 5; i++)
            for (int t = 0; t < 4; t++)
                for (int o = 0; o < 3; o++)
                    for (int c = 0; c < 2; c++) {
                        int at = i * 2 + t - 1;
                        if (at >= 0 && at < 11)
                            want[at * 3 + o] += vx[i * 2 + c] * vw[(o * 4 + t) * 2 + c];
                    }
        tn_array *y =
            tn_conv_transpose1d(x, w,
                                TN_OPT(tn_conv_opt, .stride = TN_SPATIAL(2),
                                       .padding = TN_SPATIAL(1), .output_padding = TN_SPATIAL(1)));
        double *got = values(y), worst = 0;
        for (int i = 0; i < 11 * 3; i++) worst = fmax(worst, fabs(got[i] - want[i]));
        ok(tn_dim(y, 1) == 11 && worst < 1e-13, "conv_transpose1d spreads the kernel (%g)", worst);
        free(vx), free(vw), free(got);
    }
}

/* Larger ones, for the blocks of rows, columns and depth. */
static void test_large(tn_dtype d, int64_t n, int64_t side, int64_t c, int64_t o, int64_t k,
                       int64_t groups, int64_t stride) {
    TN_SCOPE {
        tn_array *x = noise(TN_SHAPE(n, side, side, c), d),
                 *w = noise(TN_SHAPE(o, k, k, c / groups), d);
        double *vx = values(x), *vw = values(w);
        ref_conv r = {.n = n, .c = c, .o = o, .groups = groups};
        for (int i = 0; i < 3; i++) {
            r.in[i] = i ? side : 1, r.taps[i] = i ? k : 1, r.stride[i] = i ? stride : 1;
            r.low[i] = i ? k / 2 : 0, r.dilation[i] = r.spread[i] = 1;
        }
        tn_conv_opt opt = {.size = sizeof opt, .groups = (int)groups};
        opt.stride = TN_SPATIAL(stride), opt.padding = TN_SPATIAL(k / 2);
        tn_array *y = tn_conv2d(x, w, &opt);
        ok(agrees(y, &r, vx, vw, tolerance(d) * 6),
           "conv2d %s, [%lld, %lld, %lld, %lld] by %lld kernels of %lld, %lld groups, stride %lld",
           tn_dtype_name(d), (long long)n, (long long)side, (long long)side, (long long)c,
           (long long)o, (long long)k, (long long)groups, (long long)stride);
        size_t bytes = tn_nbytes(y);
        char *first = malloc(bytes);
        memcpy(first, tn_data(y), bytes);
        int same = 0, set = 0;
        for (int t = 1; t <= 5; t += 2) {
            set += tn_set_threads(t) != 0;
            tn_array *again = tn_conv2d(x, w, &opt);
            const void *p = tn_data(again);
            same += p && !memcmp(p, first, bytes);
        }
        ok(same == 3 && !set && !tn_set_threads(0), "the same bits at any number of threads");
        free(vx), free(vw), free(first);
    }
}

static void refused(tn_array *y, int status, const char *word, const char *what) {
    if (!ok(tn_array_status(y) == status && strstr(tn_array_error(y), word), "%s is refused", what))
        diag("  %s: %s", tn_status_name(tn_array_status(y)), tn_array_error(y));
}

static void test_misuse(void) {
    TN_SCOPE {
        tn_array *x = tn_zeros(TN_SHAPE(1, 8, 8, 4), TN_F32),
                 *w = tn_zeros(TN_SHAPE(6, 3, 3, 4), TN_F32),
                 *line = tn_zeros(TN_SHAPE(1, 8, 4), TN_F32);
        refused(tn_conv2d(x, tn_zeros(TN_SHAPE(6, 3, 3, 3), TN_F32), NULL), TN_ESHAPE, "channels",
                "a weight for other channels");
        refused(tn_conv1d(x, w, NULL), TN_ESHAPE, "3 axes", "an axis too many");
        refused(tn_conv2d(line, w, NULL), TN_ESHAPE, "4 axes", "an axis too few");
        refused(tn_conv_general(tn_zeros(TN_SHAPE(1, 4), TN_F32), tn_zeros(TN_SHAPE(2, 4), TN_F32),
                                NULL),
                TN_ESHAPE, "3, 4 or 5", "no axis");
        refused(tn_conv2d(tn_astype(x, TN_I32), w, NULL), TN_EDTYPE, "floats", "an integer input");
        refused(tn_conv2d(x, w, TN_OPT(tn_conv_opt, .groups = 3)), TN_ESHAPE, "3 groups",
                "groups that do not divide the channels");
        refused(tn_conv2d(x, w, TN_OPT(tn_conv_opt, .groups = -1)), TN_ESHAPE, "-1 groups",
                "negative groups");
        refused(tn_conv2d(x, w, TN_OPT(tn_conv_opt, .stride = TN_SPATIAL(0))), TN_EVALUE,
                "stride of 0", "no stride");
        refused(tn_conv2d(x, w, TN_OPT(tn_conv_opt, .dilation = TN_SPATIAL(1, -2))), TN_EVALUE,
                "dilation of -2", "a negative dilation");
        refused(tn_conv2d(x, w, TN_OPT(tn_conv_opt, .stride = TN_SPATIAL(1, 1, 1))), TN_ESHAPE,
                "3 numbers of stride for 2 axes", "a number too many");
        refused(tn_conv2d(x, w, TN_OPT(tn_conv_opt, .stride = {{1}, 7})), TN_ESHAPE, "7 numbers",
                "a wrong count");
        refused(tn_conv2d(x, w, TN_OPT(tn_conv_opt, .dilation = TN_SPATIAL(4))), TN_ESHAPE, "wider",
                "a kernel wider than the input");
        refused(tn_conv2d(x, w, TN_OPT(tn_conv_opt, .padding = TN_SPATIAL(INT64_MAX))), TN_EVALUE,
                "padding of", "endless padding");
        refused(tn_conv2d(x, w, TN_OPT(tn_conv_opt, .output_padding = TN_SPATIAL(1))), TN_EVALUE,
                "output_padding", "output_padding of a plain one");
        refused(tn_conv_transpose2d(x, w, TN_OPT(tn_conv_opt, .flip = true)), TN_EVALUE, "flip",
                "flip of a transposed one");
        refused(tn_conv_transpose2d(x, w, TN_OPT(tn_conv_opt, .padding = TN_SPATIAL(9))), TN_ESHAPE,
                "wider", "padding that leaves nothing");
        refused(tn_conv2d(x, tn_zeros(TN_SHAPE(6, 0, 3, 4), TN_F32), NULL), TN_ESHAPE, "empty",
                "a kernel without taps");
        refused(tn_conv2d(x, NULL, NULL), TN_EVALUE, "conv2d", "no weight");
    }
}

static void test_empty(void) {
    TN_SCOPE {
        tn_array *w = tn_ones(TN_SHAPE(2, 3, 4), TN_F32);
        tn_array *y = tn_conv1d(tn_zeros(TN_SHAPE(0, 9, 4), TN_F32), w, NULL);
        ok(!tn_eval(TN_LIST(y)) && tn_size(y) == 0 && tn_dim(y, 1) == 7, "no images");
        y = tn_conv1d(tn_zeros(TN_SHAPE(1, 0, 4), TN_F32), w,
                      TN_OPT(tn_conv_opt, .padding = TN_SPATIAL(2)));
        ok(tn_dim(y, 1) == 2 && tn_item_f32(tn_sum(y, TN_ALL, false)) == 0, "padding alone");
        y = tn_conv1d(tn_zeros(TN_SHAPE(2, 5, 0), TN_F32), tn_ones(TN_SHAPE(2, 3, 0), TN_F32),
                      NULL);
        ok(tn_size(y) == 12 && tn_item_f32(tn_sum(y, TN_ALL, false)) == 0, "no channels: zeros");
        y = tn_conv1d(tn_zeros(TN_SHAPE(2, 5, 4), TN_F32), tn_ones(TN_SHAPE(0, 3, 4), TN_F32),
                      NULL);
        ok(!tn_eval(TN_LIST(y)) && tn_size(y) == 0, "no kernels");
        y = tn_conv1d(tn_ones(TN_SHAPE(1, 3, 4), TN_F16), w, NULL);
        ok(tn_dtype_of(y) == TN_F32 && tn_size(y) == 2, "f16 and f32 meet in f32");
        y = tn_conv1d(tn_broadcast_to(tn_ones(TN_SHAPE(4), TN_F32), TN_SHAPE(2, 5, 4)), w, NULL);
        ok(tn_item_f32(tn_sum(y, TN_ALL, false)) == 2 * 3 * 2 * 12, "a repeated input");
    }
}

/* ---- the gradient for the weight ---- */

static int weight_some; /* cases whose taps meet any input */

/* <conv_weight(x, d), w> = <d, conv(x, w)> for every w: checked with w that are 1 at one place. */
static void weight_case(int nd, tn_dtype d, int64_t n, int64_t side, int64_t cg, int64_t og,
                        int64_t groups, bool plain) {
    tni_p_conv p = {.nd = nd, .groups = (int32_t)groups, .flip = !plain && rnd() % 2};
    int64_t xs[5] = {n}, ws[5] = {groups * og};
    for (int i = 0; i < nd; i++) {
        xs[i + 1] = side + i, ws[i + 1] = 2 + (int64_t)(rnd() % 2);
        p.stride[i] = plain ? 1 : 1 + (int32_t)(rnd() % 2),
        p.low[i] = p.high[i] = (int32_t)(rnd() % 2);
        p.dilation[i] = plain ? 1 : 1 + (int32_t)(rnd() % 2);
        p.input_dilation[i] = plain ? 1 : 1 + (int32_t)(rnd() % 2);
    }
    for (int i = nd; i < 3; i++) p.stride[i] = p.dilation[i] = p.input_dilation[i] = 1;
    xs[nd + 1] = groups * cg, ws[nd + 1] = cg;
    TN_SCOPE {
        tn_array *x = noise((tn_ints){xs, nd + 2}, d), *w = tn_zeros((tn_ints){ws, nd + 2}, d);
        tn_array *y = tni_conv_node("conv", x, w, &p), *c = noise(tn_shape(y), d);
        tn_array *g = tni_conv_weight_node(x, c, &p, w);
        double *got = values(g), *vc = values(c), scale = 0;
        int64_t bad = 0, size = tn_size(g), step = size > 400 ? size / 97 : 1;
        for (int64_t i = 0; i < size; i += step) {
            float *one = calloc((size_t)size, sizeof *one);
            one[i] = 1;
            tn_array *e = tn_astype(tn_array_new(one, TN_F32, (tn_ints){ws, nd + 2}), TN_F64);
            double *part = values(tni_conv_node("conv", tn_astype(x, TN_F64), e, &p)), want = 0;
            for (int64_t k = 0; k < tn_size(y); k++)
                want += part[k] * vc[k], scale += fabs(part[k]);
            double limit = tolerance(d) * (2 + fabs(want)) * (plain ? 8 : 4);
            if (!(fabs(got[i] - want) <= limit) && bad++ < 3)
                diag("element %lld is %.9g, not %.9g", (long long)i, got[i], want);
            free(one), free(part);
        }
        weight_some += scale > 0;
        ok(!bad && tn_dtype_of(g) == d,
           "the gradient for the weight, %d axes, %s, %lld groups, [%lld, %lld] to %lld%s", nd,
           tn_dtype_name(d), (long long)groups, (long long)n, (long long)side, (long long)og,
           p.flip ? ", flipped" : "");
        size_t bytes = tn_nbytes(g);
        char *first = malloc(bytes);
        memcpy(first, tn_data(g), bytes);
        int same = 0;
        for (int t = 1; t <= 4; t += 3) {
            if (tn_set_threads(t)) break;
            const void *again = tn_data(tni_conv_weight_node(x, c, &p, w));
            same += again && !memcmp(again, first, bytes);
        }
        ok(same == 2 && !tn_set_threads(0), "the same bits at any number of threads");
        free(got), free(vc), free(first);
    }
}

static void test_weight(void) {
    static const tn_dtype dtypes[] = {TN_F32, TN_F64, TN_F16, TN_BF16};
    for (int i = 0; i < 24; i++)
        weight_case(1 + i % 3, dtypes[i / 3 % 4], 2, 5, 1 + i % 4, 1 + i % 5, 1 + i % 3, false);
    weight_case(2, TN_F32, 70, 14, 1, 8, 1, true); /* several parts */
    for (int i = 0; i < 4; i++) {                  /* depthwise */
        weight_case(2, dtypes[i], 3, 9, 1, 1, 21, false);
        weight_case(1 + i % 3, dtypes[i], 2, 6, 1, 1, 16, false);
    }
    weight_case(2, TN_F32, 8, 14, 1, 1, 9, true);
    weight_case(2, TN_F64, 70, 14, 1, 8, 1, true);
    weight_case(2, TN_F32, 3, 12, 40, 20, 1, true); /* several blocks of columns */
    ok(weight_some > 20, "%d of 36 cases have a gradient", weight_some);
    TN_SCOPE {
        tni_p_conv p = {.nd = 1, .groups = 1, .stride = {1, 1, 1}, .dilation = {1, 1, 1}};
        p.input_dilation[0] = 1;
        tn_array *w = tn_ones(TN_SHAPE(2, 3, 4), TN_F32), *x = tn_zeros(TN_SHAPE(0, 9, 4), TN_F32),
                 *d = tn_zeros(TN_SHAPE(0, 7, 2), TN_F32);
        ok(tn_item_f32(tn_sum(tni_conv_weight_node(x, d, &p, w), TN_ALL, false)) == 0,
           "no images: zeros");
    }
}

/* ---- pooling ---- */

static bool pool_agrees(tn_array *a, tn_array *y, bool largest, int nd, const int64_t *k,
                        const int64_t *stride, const int64_t *pad, double tol) {
    if (tn_array_status(y)) {
        diag("%s", tn_array_error(y));
        return false;
    }
    double *v = values(a), *got = values(y);
    int64_t in[3] = {1, 1, 1}, out[3] = {1, 1, 1}, c = tn_dim(a, -1), at = 0, bad = 0;
    for (int d = 0; d < nd; d++)
        in[3 - nd + d] = tn_dim(a, d + 1), out[3 - nd + d] = tn_dim(y, d + 1);
    for (int64_t i = 0; i < tn_size(y); i++, at++) {
        int64_t rest = i / c, o[3], n;
        for (int d = 2; d >= 0; d--) o[d] = rest % out[d] * stride[d] - pad[d], rest /= out[d];
        n = rest;
        double most = -(double)INFINITY, sum = 0;
        for (int64_t t = 0; t < k[0] * k[1] * k[2]; t++) {
            int64_t p[3] = {o[0] + t / (k[1] * k[2]), o[1] + t / k[2] % k[1], o[2] + t % k[2]};
            bool inside = true;
            for (int d = 0; d < 3; d++) inside = inside && p[d] >= 0 && p[d] < in[d];
            if (!inside) continue;
            double x = v[(((n * in[0] + p[0]) * in[1] + p[1]) * in[2] + p[2]) * c + i % c];
            most = fmax(most, x), sum += x;
        }
        double want = largest ? most : sum / (double)(k[0] * k[1] * k[2]);
        if (!(fabs(got[i] - want) <= tol * (1 + fabs(want))) && bad++ < 3)
            diag("element %lld is %g, not %g", (long long)i, got[i], want);
    }
    free(v), free(got);
    return !bad;
}

static void random_pool(int nd, tn_dtype d) {
    int64_t shape[5] = {1 + (int64_t)(rnd() % 2)}, k[3] = {1, 1, 1}, stride[3] = {1, 1, 1},
            pad[3] = {0};
    bool apart = rnd() % 3 == 0;
    shape[nd + 1] = 1 + (int64_t)(rnd() % 6);
    for (int i = 0; i < nd; i++) {
        int a = 3 - nd + i;
        shape[i + 1] = 4 + (int64_t)(rnd() % 8), k[a] = 1 + (int64_t)(rnd() % 4);
        stride[a] = apart ? k[a] : 1 + (int64_t)(rnd() % 3),
        pad[a] = (int64_t)(rnd() % (uint64_t)k[a]);
    }
    TN_SCOPE {
        tn_array *a = noise((tn_ints){shape, nd + 2}, d), *m, *s;
        if (rnd() % 3 == 0) a = tn_transpose(tn_contiguous(tn_transpose(a, TN_ALL)), TN_ALL);
        tn_spatial wide = apart && rnd() % 2 ? (tn_spatial){{0}, 0} : spatial(stride, nd);
        m = tn_max_pool(a, spatial(k, nd), wide, spatial(pad, nd));
        s = tn_avg_pool(a, spatial(k, nd), wide, spatial(pad, nd));
        bool good = pool_agrees(a, m, true, nd, k, stride, pad, 0) &&
                    pool_agrees(a, s, false, nd, k, stride, pad, tolerance(d));
        for (int i = 0; i < nd; i++) {
            int b = 3 - nd + i;
            int64_t want = (shape[i + 1] + 2 * pad[b] - k[b]) / stride[b] + 1;
            good = good && tn_dim(m, i + 1) == want && tn_dim(s, i + 1) == want;
        }
        ok(good && tn_dtype_of(m) == d && tn_dtype_of(s) == d, "pooling of %d axes, %s%s", nd,
           tn_dtype_name(d), apart ? ", side by side" : "");
    }
}

static void test_pool(void) {
    static const tn_dtype dtypes[] = {TN_F32, TN_F64, TN_F16, TN_BF16};
    for (int i = 0; i < 60; i++) random_pool(1 + i % 3, dtypes[i / 3 % 4]);
    TN_SCOPE {
        tn_array *a = tn_zeros(TN_SHAPE(1, 4, 4, 2), TN_F32);
        tn_spatial two = TN_SPATIAL(2), none = {{0}, 0};
        refused(tn_max_pool(tn_zeros(TN_SHAPE(4, 4), TN_F32), two, none, none), TN_ESHAPE, "axes",
                "pooling without places");
        refused(tn_max_pool(tn_astype(a, TN_I32), two, none, none), TN_ESHAPE, "floats",
                "pooling of integers");
        refused(tn_avg_pool(a, none, none, none), TN_ESHAPE, "one number", "no kernel");
        refused(tn_avg_pool(a, TN_SPATIAL(1, 2, 3), none, none), TN_ESHAPE, "one number or 2",
                "a number too many");
        refused(tn_avg_pool(a, TN_SPATIAL(0), none, none), TN_EVALUE, "kernel 0", "a kernel of 0");
        refused(tn_max_pool(a, two, none, two), TN_EVALUE, "padding 2", "padding as wide as it");
        refused(tn_max_pool(a, TN_SPATIAL(5), none, none), TN_ESHAPE, "wider", "a wide kernel");
        refused(tn_max_pool(NULL, two, none, none), TN_EVALUE, "max_pool", "no array");
        tn_array *y = tn_max_pool(tn_zeros(TN_SHAPE(0, 4, 4, 2), TN_F32), two, none, none);
        ok(!tn_eval(TN_LIST(y)) && tn_size(y) == 0 && tn_dim(y, 2) == 2, "pooling of nothing");
    }
}

static int use_all(int64_t failing, void *ud) {
    (void)failing, (void)ud;
    int status = 0;
    TN_SCOPE {
        tn_array *x = tn_ones(TN_SHAPE(2, 9, 9, 6), TN_F32),
                 *w = tn_ones(TN_SHAPE(40, 3, 3, 6), TN_F32);
        tn_array *h = tn_ones(TN_SHAPE(6, 3, 3, 1), TN_BF16);
        status =
            tn_eval(TN_LIST(tn_conv2d(x, w, TN_OPT(tn_conv_opt, .padding = TN_SPATIAL(1))),
                            tn_conv2d(tn_astype(x, TN_BF16), tn_astype(w, TN_BF16), NULL),
                            tn_conv2d(tn_astype(x, TN_BF16), h, TN_OPT(tn_conv_opt, .groups = 6)),
                            tn_conv2d(tn_astype(x, TN_F64), w, NULL),
                            tn_max_pool(x, TN_SPATIAL(3), TN_SPATIAL(2), TN_SPATIAL(1)),
                            tn_avg_pool(x, TN_SPATIAL(2), TN_SPATIAL(2), TN_SPATIAL(0))));
    }
    return status;
}

int main(void) {
    static const tn_dtype dtypes[] = {TN_F32, TN_F64, TN_F16, TN_BF16};
    for (int i = 0; i < 240; i++) random_case(1 + i % 3, dtypes[i / 3 % 4], i % 5 == 4);
    test_transposed();
    for (int i = 0; i < 4; i++) {
        test_large(dtypes[i], 2, 17, 40, 70, 3, 1, 1);
        test_large(dtypes[i], 3, 13, 24, 24, 5, 24, 2);
        test_large(dtypes[i], 1, 9, 64, 150, 1, 2, 1);
        test_large(dtypes[i], 5, 14, 1, 8, 3, 1, 1);
    }
    test_large(TN_F32, 2, 7, 130, 260, 3, 1, 1);
    test_weight();
    test_pool();
    test_empty();
    test_misuse();
    memory_each(use_all, NULL, 20);
    tni_pool_shutdown();
    return tap_done();
}
