/* Shape arithmetic: broadcasting, views and overflow checks. */
#include "core/shape.h"
#include <stdio.h>

bool tni_shape_size(int ndim, const int64_t *shape, int64_t *size) {
    int64_t n = 1, nonzero = 1;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0) return false;
        /* Checked without the zeros too, so that strides of a zero-size shape fit. */
        if (shape[i] && __builtin_mul_overflow(nonzero, shape[i], &nonzero)) return false;
        n *= shape[i] ? 1 : 0;
    }
    if (nonzero > INT64_MAX / 16) return false;
    *size = n ? nonzero : 0;
    return true;
}

void tni_row_strides(int ndim, const int64_t *shape, int64_t *strides) {
    int64_t s = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        strides[i] = s;
        if (shape[i]) s *= shape[i];
    }
}

bool tni_broadcast(int an, const int64_t *as, int bn, const int64_t *bs, int *on, int64_t *out) {
    int n = an > bn ? an : bn;
    for (int i = n - 1; i >= 0; i--) { /* from the back: out may be as */
        int64_t x = i < n - an ? 1 : as[i - (n - an)];
        int64_t y = i < n - bn ? 1 : bs[i - (n - bn)];
        if (x != y && x != 1 && y != 1) return false;
        out[i] = x == 1 ? y : x;
    }
    *on = n;
    return true;
}

void tni_broadcast_strides(int an, const int64_t *as, const int64_t *ast, int ndim,
                           const int64_t *shape, int64_t *out) {
    for (int i = 0; i < ndim; i++) {
        int k = i - (ndim - an);
        out[i] = k < 0 || (as[k] == 1 && shape[i] != 1) ? 0 : ast[k];
    }
}

/* Walks both shapes from the front, matching runs of axes whose products agree; a run of
 * the old shape can be split or merged only when its strides are those of a row-major block. */
bool tni_reshape_strides(int an, const int64_t *as, const int64_t *ast, int ndim,
                         const int64_t *shape, int64_t *out) {
    int64_t os[TN_MAX_NDIM], ost[TN_MAX_NDIM];
    int on = 0;
    for (int i = 0; i < an; i++) {
        if (as[i] == 0) {
            tni_row_strides(ndim, shape, out);
            return true;
        }
        if (as[i] != 1) os[on] = as[i], ost[on++] = ast[i];
    }
    int i = 0, j = 0;
    while (i < on) {
        int64_t x = os[i], y = 1;
        int i1 = i + 1, j1 = j;
        while (x != y || j1 == j) {
            if (y < x || j1 == j)
                y *= shape[j1++];
            else
                x *= os[i1++];
        }
        for (int k = i; k + 1 < i1; k++)
            if (ost[k] != os[k + 1] * ost[k + 1]) return false;
        int64_t s = ost[i1 - 1];
        for (int k = j1 - 1; k >= j; k--) out[k] = s, s *= shape[k];
        i = i1, j = j1;
    }
    for (; j < ndim; j++) out[j] = 1; /* only sizes of 1 are left */
    return true;
}

bool tni_same_shape(int an, const int64_t *as, int bn, const int64_t *bs) {
    if (an != bn) return false;
    for (int i = 0; i < an; i++)
        if (as[i] != bs[i]) return false;
    return true;
}

const char *tni_shape_str(int ndim, const int64_t *shape, char *buf, size_t n) {
    size_t at = (size_t)snprintf(buf, n, "[");
    for (int i = 0; i < ndim && at + 24 < n; i++)
        at += (size_t)snprintf(buf + at, n - at, i ? ",%lld" : "%lld", (long long)shape[i]);
    snprintf(buf + at, n - at, "]");
    return buf;
}

int tni_axis(int ndim, int64_t axis) {
    if (axis < -ndim || axis >= ndim) return -1;
    return (int)(axis < 0 ? axis + ndim : axis);
}
