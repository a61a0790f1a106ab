/* Reading values: item, data, read and text. Each evaluates what it needs. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/str.h"
#include "core/buffer.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "eval/run.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static int read_ready(tn_array *a) { return tn_eval(TN_LIST(a)); }

static int read_item(tn_array *a, const char *what) {
    int status = read_ready(a);
    if (status) return status;
    char s[TNI_SHAPE_STR];
    if (a->size != 1)
        return tni_fail(TN_ESHAPE, "%s: needs an array of one element, got shape %s", what,
                        tni_shape_str(a->ndim, a->shape, s, sizeof s));
    return 0;
}

double tn_item_f64(tn_array *a) {
    return read_item(a, "item_f64") ? (double)NAN
                                    : tni_load_f64((tn_dtype)a->dtype, tni_array_data(a));
}

float tn_item_f32(tn_array *a) {
    return read_item(a, "item_f32") ? NAN
                                    : (float)tni_load_f64((tn_dtype)a->dtype, tni_array_data(a));
}

int64_t tn_item_i64(tn_array *a) {
    return read_item(a, "item_i64") ? 0 : tni_load_i64((tn_dtype)a->dtype, tni_array_data(a));
}

bool tn_item_bool(tn_array *a) {
    return !read_item(a, "item_bool") && tni_load_f64((tn_dtype)a->dtype, tni_array_data(a)) != 0;
}

const void *tn_data(tn_array *a) {
    if (read_ready(a)) return NULL;
    if (tni_row_major(a)) return tni_array_data(a);
    tni_buffer *dense = atomic_load_explicit(&a->dense, memory_order_acquire);
    if (dense) return dense->data;
    tni_view v = tni_view_of(a);
    if (tni_copy_dense(&v, &dense)) return NULL;
    tni_buffer *seen = NULL;
    if (atomic_compare_exchange_strong_explicit(&a->dense, &seen, dense, memory_order_acq_rel,
                                                memory_order_acquire))
        return dense->data;
    tni_buffer_release(dense); /* another thread was first */
    return seen->data;
}

const float *tn_data_f32(tn_array *a) {
    if (tni_alive(a) && !tni_is_error(a) && a->dtype != TN_F32) {
        tni_fail(TN_EDTYPE, "data_f32: the array is %s; use tn_astype first",
                 tn_dtype_name((tn_dtype)a->dtype));
        return NULL;
    }
    return tn_data(a);
}

int tn_read(tn_array *a, tn_dtype dtype, void *dst, size_t nbytes) {
    int status = read_ready(a);
    if (status) return status;
    if ((unsigned)dtype >= TN_DTYPE_COUNT)
        return tni_fail(TN_EDTYPE, "read: %d is not a dtype", (int)dtype);
    size_t want = (size_t)a->size * tn_dtype_size(dtype);
    if (nbytes != want)
        return tni_fail(TN_EVALUE, "read: %zu bytes given, the array has %zu as %s", nbytes, want,
                        tn_dtype_name(dtype));
    if (!a->size) return 0;
    int64_t strides[TN_MAX_NDIM];
    tni_row_strides(a->ndim, a->shape, strides);
    tni_view src = tni_view_of(a), out = {dst, dtype, a->ndim, a->shape, strides};
    return tni_copy_view(&src, &out);
}

/* ---- text ---- */

enum { READ_EDGE = 3, READ_SUMMARY = 1000 };

static int read_put_value(tni_str *s, const tn_array *a, const char *p) {
    tn_dtype d = (tn_dtype)a->dtype;
    if (d == TN_BOOL) return tni_str_puts(s, *p ? "True" : "False");
    if (d == TN_U64) return tni_str_printf(s, "%llu", (unsigned long long)tni_load_i64(d, p));
    if (tni_is_int(d)) return tni_str_printf(s, "%lld", (long long)tni_load_i64(d, p));
    if (d == TN_C64) {
        float im;
        memcpy(&im, p + 4, 4);
        return tni_str_printf(s, "%.6g%+.6gj", tni_load_f64(d, p), (double)im);
    }
    return tni_str_printf(s, "%.6g", tni_load_f64(d, p));
}

static int read_put(tni_str *s, const tn_array *a, const char *p, int axis) {
    if (axis == a->ndim) return read_put_value(s, a, p);
    int64_t n = a->shape[axis],
            step = a->strides[axis] * (int64_t)tn_dtype_size((tn_dtype)a->dtype);
    bool cut = a->size > READ_SUMMARY && n > 2 * READ_EDGE;
    int status = tni_str_putc(s, '[');
    for (int64_t i = 0; i < n && !status; i++) {
        if (i && axis + 1 < a->ndim)
            status = tni_str_printf(s, ",\n%*s", 7 + axis, "");
        else if (i)
            status = tni_str_puts(s, ", ");
        if (!status && cut && i == READ_EDGE) {
            i = n - READ_EDGE - 1;
            status = tni_str_puts(s, "...");
        } else if (!status) {
            status = read_put(s, a, p + i * step, axis + 1);
        }
    }
    return status ? status : tni_str_putc(s, ']');
}

int tn_format(tn_array *a, char *buf, size_t n) {
    if (n) *buf = 0;
    int status = read_ready(a);
    if (status) return status;
    tni_str s = {0};
    char shape[TNI_SHAPE_STR];
    status = tni_str_puts(&s, "array(");
    if (!status) status = read_put(&s, a, tni_array_data(a), 0);
    if (!status && !a->size)
        status =
            tni_str_printf(&s, ", shape=%s", tni_shape_str(a->ndim, a->shape, shape, sizeof shape));
    if (!status) status = tni_str_printf(&s, ", dtype=%s)", tn_dtype_name((tn_dtype)a->dtype));
    int length = (int)s.n;
    if (!status && n) snprintf(buf, n, "%s", s.v);
    tni_str_free(&s);
    return status ? tni_fail_memory(s.n, "an array's text") : length;
}
