/* Convolutions over a spread input (input_dilation s > 1: transposed convolutions, and gradients of
 * strided ones) multiply mostly by the zeros in between. Outputs o, o + s, o + 2 s, ... of an axis
 * meet the same taps, every s-th: so the convolution falls apart into s of them an axis, each
 * plain, over fewer taps, whose outputs lie s apart. All do together what one plain convolution of
 * the input's size does, 1/s of the work an axis. */
#include "base/err.h"
#include "base/scratch.h"
#include "cpu/cpu_conv.h"
#include "cpu/cpu_gather.h"
#include <string.h>

/* One axis of a phase; for outputs o0 + s q the taps are t0 + s u. */
typedef struct phase_axis {
    int64_t o0, t0, out, taps, low;
} phase_axis;

typedef struct phase_job {
    const tni_call *c;
    const tni_p_conv *p;
    char *part; /* a phase's output, row-major */
} phase_job;

/* Whether axis d is one to take apart. */
static bool phase_spread(const tni_p_conv *p, int d) {
    return p->input_dilation[d] > 1 && p->stride[d] == 1 && p->dilation[d] == 1;
}

static phase_axis phase_of(const phase_job *j, int d, int64_t o0) {
    int64_t s = j->p->input_dilation[d], low = j->p->low[d], out = j->c->out->shape[d + 1],
            taps = j->c->in[1].shape[d + 1];
    if (!phase_spread(j->p, d)) return (phase_axis){0, 0, out, taps, low};
    int64_t t0 = ((low - o0) % s + s) % s;
    return (phase_axis){o0, t0, out > o0 ? (out - o0 + s - 1) / s : 0,
                        taps > t0 ? (taps - t0 + s - 1) / s : 0, (low - o0 - t0) / s};
}

/* The taps of the phase, as a view of the weight; a flipped one runs backwards. */
static void phase_weight(const phase_job *j, const phase_axis *a, tni_view *w, int64_t *shape,
                         int64_t *strides) {
    const tni_view *all = &j->c->in[1];
    int64_t at = 0;
    memcpy(shape, all->shape, sizeof *shape * (size_t)all->ndim);
    memcpy(strides, all->strides, sizeof *strides * (size_t)all->ndim);
    for (int d = 0; d < j->p->nd; d++) {
        int64_t step = phase_spread(j->p, d) ? j->p->input_dilation[d] : 1, ws = strides[d + 1];
        at += (j->p->flip ? all->shape[d + 1] - 1 - a[d].t0 : a[d].t0) * ws;
        shape[d + 1] = a[d].taps, strides[d + 1] = (j->p->flip ? -step : step) * ws;
    }
    *w = (tni_view){(char *)all->data + at * (int64_t)tn_dtype_size(all->dtype), all->dtype,
                    all->ndim, shape, strides};
}

/* Where the phase's outputs lie among all. */
static tni_view phase_place(const phase_job *j, const phase_axis *a, const int64_t *shape,
                            int64_t *strides) {
    const tni_view *o = j->c->out;
    int64_t at = 0;
    memcpy(strides, o->strides, sizeof *strides * (size_t)o->ndim);
    for (int d = 0; d < j->p->nd; d++) {
        at += a[d].o0 * strides[d + 1];
        if (phase_spread(j->p, d)) strides[d + 1] *= j->p->input_dilation[d];
    }
    return (tni_view){(char *)o->data + at * (int64_t)tn_dtype_size(o->dtype), o->dtype, o->ndim,
                      shape, strides};
}

static int phase_run(const phase_job *j, const phase_axis *a) {
    const tni_view *o = j->c->out;
    int64_t shape[5], row[5], ws[5], wr[5], strides[5], n = 1;
    tni_p_conv p = *j->p;
    tni_view in[2] = {j->c->in[0]}, part = {j->part, o->dtype, o->ndim, shape, row};
    memcpy(shape, o->shape, sizeof *shape * (size_t)o->ndim);
    for (int d = 0; d < p.nd; d++) {
        shape[d + 1] = a[d].out, p.low[d] = (int32_t)a[d].low;
        if (phase_spread(j->p, d)) p.input_dilation[d] = 1;
    }
    for (int i = o->ndim - 1; i >= 0; i--) row[i] = n, n *= shape[i];
    if (!n) return 0;
    phase_weight(j, a, &in[1], ws, wr);
    p.flip = 0;
    tni_call c = {j->c->op, &p, 2, 1, in, &part};
    int status = tni_conv_plain(&c);
    if (status) return status;
    tni_view to = phase_place(j, a, shape, strides);
    tni_cpu_copy_view(&part, &to);
    return 0;
}

int tni_cpu_conv(const tni_call *c) {
    const tni_p_conv *p = c->params;
    phase_job j = {.c = c, .p = p};
    const tni_view *o = c->out;
    int64_t count[3] = {1, 1, 1}, most = o->shape[0] * o->shape[o->ndim - 1];
    for (int d = 0; d < p->nd; d++) {
        if (phase_spread(p, d)) count[d] = p->input_dilation[d];
        most *= (o->shape[d + 1] + count[d] - 1) / count[d];
    }
    if (count[0] * count[1] * count[2] == 1) return tni_conv_plain(c);
    j.part = tni_scratch_array((size_t)most, tn_dtype_size(o->dtype));
    if (!j.part) return tni_fail_memory((size_t)most * tn_dtype_size(o->dtype), "a convolution");
    int status = 0;
    for (int64_t i = 0; i < count[0] * count[1] * count[2] && !status; i++) {
        phase_axis a[3];
        int64_t rest = i;
        for (int d = p->nd - 1; d >= 0; d--)
            a[d] = phase_of(&j, d, rest % count[d]), rest /= count[d];
        status = phase_run(&j, a);
    }
    tni_scratch_give(j.part);
    return status;
}
