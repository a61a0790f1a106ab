/* sort, argsort and scan. Rows are sorted by a bottom-up merge of (key, position) pairs: stable,
 * O(n log n) whatever the input, no recursion. Keys are mapped to unsigned integers whose order is
 * the values' order with NaN last, so one comparison serves every dtype. */
#include "cpu/cpu_sort.h"
#include "base/err.h"
#include "base/half.h"
#include "base/scratch.h"
#include "base/thread.h"
#include "ops/prims.h"
#include <complex.h>
#include <math.h>
#include <string.h>

typedef struct sort_key {
    uint64_t key;
    uint32_t at;
} sort_key;

/* Floats: flip the sign bit of positives, all bits of negatives; every NaN becomes the largest. -0
 * and +0 compare equal as values, so -0 takes +0's key and stability decides. */
static uint32_t sort_key_f32(float f) {
    if (isnan(f)) return UINT32_MAX;
    uint32_t u = tni_f32_bits(f == 0 ? 0.0f : f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

static uint64_t sort_key_f64(double f) {
    if (isnan(f)) return UINT64_MAX;
    uint64_t u;
    if (f == 0) f = 0;
    memcpy(&u, &f, 8);
    return u >> 63 ? ~u : u | (uint64_t)1 << 63;
}

static uint64_t sort_key_of(tn_dtype d, const char *p, int64_t i) {
    switch (d) {
    case TN_BOOL:
    case TN_U8:
        return ((const uint8_t *)p)[i];
    case TN_U16:
        return ((const uint16_t *)p)[i];
    case TN_U32:
        return ((const uint32_t *)p)[i];
    case TN_U64:
        return ((const uint64_t *)p)[i];
    case TN_I8:
        return (uint8_t)(((const int8_t *)p)[i] ^ 0x80);
    case TN_I16:
        return (uint16_t)(((const int16_t *)p)[i] ^ 0x8000);
    case TN_I32:
        return ((const uint32_t *)p)[i] ^ 0x80000000u;
    case TN_I64:
        return ((const uint64_t *)p)[i] ^ (uint64_t)1 << 63;
    case TN_F16:
        return sort_key_f32(tni_f16_to_f32(((const uint16_t *)p)[i]));
    case TN_BF16:
        return sort_key_f32(tni_bf16_to_f32(((const uint16_t *)p)[i]));
    case TN_F32:
        return sort_key_f32(((const float *)p)[i]);
    case TN_F64:
        return sort_key_f64(((const double *)p)[i]);
    default: { /* c64: real part, then imaginary; a NaN in either puts it last */
        float re = ((const float *)p)[2 * i], im = ((const float *)p)[2 * i + 1];
        if (isnan(re) || isnan(im)) return UINT64_MAX;
        return (uint64_t)sort_key_f32(re) << 32 | sort_key_f32(im);
    }
    }
}

static void sort_insertion(sort_key *v, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        sort_key x = v[i];
        int64_t k = i;
        for (; k && v[k - 1].key > x.key; k--) v[k] = v[k - 1];
        v[k] = x;
    }
}

static void sort_merge(const sort_key *a, int64_t na, const sort_key *b, int64_t nb,
                       sort_key *out) {
    while (na && nb) {
        if (b->key < a->key)
            *out++ = *b++, nb--;
        else
            *out++ = *a++, na--;
    }
    memcpy(out, na ? a : b, sizeof *out * (size_t)(na + nb));
}

/* Sorts v; the result is in v or in temp, which is returned. */
static sort_key *sort_row(sort_key *v, sort_key *temp, int64_t n) {
    enum { RUN = 16 };
    for (int64_t i = 0; i < n; i += RUN) sort_insertion(v + i, n - i < RUN ? n - i : RUN);
    for (int64_t w = RUN; w < n; w *= 2) {
        for (int64_t i = 0; i < n; i += 2 * w) {
            int64_t na = n - i < w ? n - i : w, nb = n - i - na < w ? n - i - na : w;
            sort_merge(v + i, na, v + i + na, nb, temp + i);
        }
        sort_key *t = v;
        v = temp, temp = t;
    }
    return v;
}

typedef struct sort_job {
    const tni_view *in;
    char *out;
    int64_t n;
    bool arg;
    _Atomic int failed;
} sort_job;

static void sort_range(void *ctx, int64_t begin, int64_t end, int worker) {
    sort_job *j = ctx;
    (void)worker;
    size_t item = tn_dtype_size(j->in->dtype);
    sort_key *v = tni_scratch_array((size_t)j->n * 2, sizeof *v);
    if (!v) {
        j->failed = 1;
        return;
    }
    for (int64_t r = begin; r < end; r++) {
        const char *src = (const char *)j->in->data + (size_t)(r * j->n) * item;
        char *dst = j->out + (size_t)(r * j->n) * (j->arg ? 4 : item);
        for (int64_t i = 0; i < j->n; i++)
            v[i] = (sort_key){sort_key_of(j->in->dtype, src, i), (uint32_t)i};
        sort_key *s = sort_row(v, v + j->n, j->n);
        for (int64_t i = 0; i < j->n; i++) {
            if (j->arg)
                memcpy(dst + i * 4, &s[i].at, 4);
            else
                memcpy(dst + (size_t)i * item, src + s[i].at * item, item);
        }
    }
    tni_scratch_give(v);
}

static int sort_run(const tni_call *c, bool arg) {
    const tni_view *x = &c->in[0];
    sort_job j = {
        .in = x, .out = c->out->data, .arg = arg, .n = x->ndim ? x->shape[x->ndim - 1] : 1};
    if (j.n > UINT32_MAX)
        return tni_fail(TN_ESHAPE, "sort: an axis of %lld is longer than 2^32 - 1", (long long)j.n);
    tni_parallel(tni_view_size(x) / j.n, 1 + 1024 / j.n, sort_range, &j);
    return j.failed ? tni_fail_memory((size_t)j.n * 2 * sizeof(sort_key), "sorting") : 0;
}

int tni_cpu_sort(const tni_call *c) { return sort_run(c, false); }
int tni_cpu_argsort(const tni_call *c) { return sort_run(c, true); }

/* ---- scans: [outer, n, inner], sequential along n ---- */

typedef struct scan_job {
    const tni_p_scan *p;
    tn_dtype dtype;
    const char *in;
    char *out;
    int64_t n, inner;
} scan_job;

static double scan_logaddexp(double a, double b) {
    double high = a > b ? a : b, low = a > b ? b : a;
    if (isnan(a) || isnan(b)) return NAN;
    return isinf(high) ? high : high + log1p(exp(low - high));
}

/* One lane of a dtype: T is what is stored, A what is accumulated. */
#define SCAN_LANE(name, T, A, LOAD, STORE, ZERO, ONE, LOWEST, HIGHEST, SUM, PROD, MAX, MIN, LAE)   \
    static void scan_##name(const scan_job *j, const T *in, T *out) {                              \
        int64_t n = j->n, s = j->inner, at = j->p->reverse ? (n - 1) * s : 0,                      \
                step = j->p->reverse ? -s : s;                                                     \
        int op = j->p->op;                                                                         \
        A acc = op == TNI_SCAN_SUM    ? ZERO                                                       \
                : op == TNI_SCAN_PROD ? ONE                                                        \
                : op == TNI_SCAN_MIN  ? HIGHEST                                                    \
                                      : LOWEST;                                                     \
        for (int64_t i = 0; i < n; i++, at += step) {                                              \
            A x = LOAD(in[at]), next;                                                              \
            switch (op) {                                                                          \
            case TNI_SCAN_SUM:                                                                     \
                next = SUM;                                                                        \
                break;                                                                             \
            case TNI_SCAN_PROD:                                                                    \
                next = PROD;                                                                       \
                break;                                                                             \
            case TNI_SCAN_MAX:                                                                     \
                next = MAX;                                                                        \
                break;                                                                             \
            case TNI_SCAN_MIN:                                                                     \
                next = MIN;                                                                        \
                break;                                                                             \
            default:                                                                               \
                next = LAE;                                                                        \
            }                                                                                      \
            out[at] = STORE(j->p->inclusive ? next : acc);                                         \
            acc = next;                                                                            \
        }                                                                                          \
    }
#define SAME(x) (x)
#define SCAN_FLOAT(name, T, A, LOAD, STORE)                                                        \
    SCAN_LANE(name, T, A, LOAD, STORE, 0, 1, -(A)INFINITY, (A)INFINITY, acc + x, acc * x,          \
              x > acc || isnan(x) ? x : acc, x < acc || isnan(x) ? x : acc,                        \
              (A)scan_logaddexp((double)acc, (double)x))
#define SCAN_INT(name, T, LOW, HIGH)                                                               \
    SCAN_LANE(name, T, T, SAME, SAME, 0, 1, LOW, HIGH, (T)((uint64_t)acc + (uint64_t)x),           \
              (T)((uint64_t)acc * (uint64_t)x), x > acc ? x : acc, x < acc ? x : acc, x)
SCAN_FLOAT(f16, uint16_t, float, tni_f16_to_f32, tni_f32_to_f16)
SCAN_FLOAT(bf16, uint16_t, float, tni_bf16_to_f32, tni_f32_to_bf16)
SCAN_FLOAT(f32, float, float, SAME, SAME)
SCAN_FLOAT(f64, double, double, SAME, SAME)
SCAN_INT(b1, uint8_t, 0, 1)
SCAN_INT(u8, uint8_t, 0, UINT8_MAX)
SCAN_INT(u16, uint16_t, 0, UINT16_MAX)
SCAN_INT(u32, uint32_t, 0, UINT32_MAX)
SCAN_INT(u64, uint64_t, 0, UINT64_MAX)
SCAN_INT(i8, int8_t, INT8_MIN, INT8_MAX)
SCAN_INT(i16, int16_t, INT16_MIN, INT16_MAX)
SCAN_INT(i32, int32_t, INT32_MIN, INT32_MAX)
SCAN_INT(i64, int64_t, INT64_MIN, INT64_MAX)

typedef float _Complex scan_complex;
static bool scan_less(scan_complex a, scan_complex b) {
    return crealf(a) != crealf(b) ? crealf(a) < crealf(b) : cimagf(a) < cimagf(b);
}
SCAN_LANE(c64, scan_complex, scan_complex, SAME, SAME, 0, 1, -INFINITY, INFINITY, acc + x, acc *x,
          scan_less(acc, x) ? x : acc, scan_less(x, acc) ? x : acc, x)

static void scan_range(void *ctx, int64_t begin, int64_t end, int worker) {
    const scan_job *j = ctx;
    (void)worker;
    for (int64_t r = begin; r < end; r++) {
        int64_t at =
            (r / j->inner * j->n * j->inner + r % j->inner) * (int64_t)tn_dtype_size(j->dtype);
        const void *in = j->in + at;
        void *out = j->out + at;
        switch (j->dtype) {
        case TN_BOOL:
            scan_b1(j, in, out);
            break;
        case TN_U8:
            scan_u8(j, in, out);
            break;
        case TN_U16:
            scan_u16(j, in, out);
            break;
        case TN_U32:
            scan_u32(j, in, out);
            break;
        case TN_U64:
            scan_u64(j, in, out);
            break;
        case TN_I8:
            scan_i8(j, in, out);
            break;
        case TN_I16:
            scan_i16(j, in, out);
            break;
        case TN_I32:
            scan_i32(j, in, out);
            break;
        case TN_I64:
            scan_i64(j, in, out);
            break;
        case TN_F16:
            scan_f16(j, in, out);
            break;
        case TN_BF16:
            scan_bf16(j, in, out);
            break;
        case TN_F32:
            scan_f32(j, in, out);
            break;
        case TN_F64:
            scan_f64(j, in, out);
            break;
        default:
            scan_c64(j, in, out);
        }
    }
}

int tni_cpu_scan(const tni_call *c) {
    const tni_view *x = &c->in[0];
    scan_job j = {
        .p = c->params, .dtype = x->dtype, .in = x->data, .out = c->out->data, .inner = 1};
    j.n = x->shape[j.p->axis];
    for (int d = j.p->axis + 1; d < x->ndim; d++) j.inner *= x->shape[d];
    tni_parallel(tni_view_size(x) / j.n, 1 + 16384 / j.n, scan_range, &j);
    return 0;
}
