/* Dtype names, sizes, promotion and single-value conversion. */
#include "core/dtype.h"
#include "base/half.h"
#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtype_info[TN_DTYPE_COUNT] = {
    [TN_BOOL] = {"bool", 1},   [TN_U8] = {"uint8", 1},      [TN_U16] = {"uint16", 2},
    [TN_U32] = {"uint32", 4},  [TN_U64] = {"uint64", 8},    [TN_I8] = {"int8", 1},
    [TN_I16] = {"int16", 2},   [TN_I32] = {"int32", 4},     [TN_I64] = {"int64", 8},
    [TN_F16] = {"float16", 2}, [TN_BF16] = {"bfloat16", 2}, [TN_F32] = {"float32", 4},
    [TN_F64] = {"float64", 8}, [TN_C64] = {"complex64", 8},
};

const char *tn_dtype_name(tn_dtype d) {
    return (unsigned)d < TN_DTYPE_COUNT ? dtype_info[d].name : "?";
}

size_t tn_dtype_size(tn_dtype d) { return (unsigned)d < TN_DTYPE_COUNT ? dtype_info[d].size : 0; }

static int dtype_bits(tn_dtype d) { return (int)dtype_info[d].size * 8; }

/* Two integers of different kinds: a signed type that holds both, or f32 where none does
 * (uint64 with a signed type), as MLX and JAX have it. */
static tn_dtype dtype_promote_ints(tn_dtype u, tn_dtype s) {
    if (u == TN_U64) return TN_F32;
    if (dtype_bits(s) > dtype_bits(u)) return s;
    return u == TN_U8 ? TN_I16 : u == TN_U16 ? TN_I32 : TN_I64;
}

tn_dtype tn_promote(tn_dtype a, tn_dtype b) {
    if (a == b) return a;
    if (a > b) {
        tn_dtype t = a;
        a = b, b = t;
    }
    if (a == TN_BOOL || b == TN_C64) return b; /* the order of the enum does the rest */
    if (tni_is_float(b)) {
        if (a == TN_F16 && b == TN_BF16) return TN_F32;
        return b;
    }
    if (tni_is_unsigned(a) && tni_is_signed(b)) return dtype_promote_ints(a, b);
    return b; /* both unsigned or both signed: the wider */
}

static int dtype_rank(tn_dtype d) {
    return d == TN_BOOL ? 0 : tni_is_int(d) ? 1 : tni_is_float(d) ? 2 : 3;
}

tn_dtype tni_result_type(int n, tn_array *const *a) {
    int strong = -1, weak = -1;
    tn_dtype s = TN_BOOL, w = TN_BOOL;
    for (int i = 0; i < n; i++) {
        tn_dtype d = (tn_dtype)a[i]->dtype;
        if (a[i]->flags & TNI_A_WEAK)
            w = weak++ < 0 ? d : tn_promote(w, d);
        else
            s = strong++ < 0 ? d : tn_promote(s, d);
    }
    if (strong < 0) return w;
    if (weak < 0 || dtype_rank(w) <= dtype_rank(s)) return s;
    return tn_promote(s, w);
}

void tni_store_i64(tn_dtype dtype, int64_t v, void *dst) {
    switch (dtype) {
    case TN_BOOL:
        *(uint8_t *)dst = v != 0;
        break;
    case TN_U8:
    case TN_I8:
        *(uint8_t *)dst = (uint8_t)v;
        break;
    case TN_U16:
    case TN_I16:
        memcpy(dst, &(uint16_t){(uint16_t)v}, 2);
        break;
    case TN_U32:
    case TN_I32:
        memcpy(dst, &(uint32_t){(uint32_t)v}, 4);
        break;
    case TN_U64:
    case TN_I64:
        memcpy(dst, &v, 8);
        break;
    case TN_F64:
        memcpy(dst, &(double){(double)v}, 8);
        break;
    default:
        tni_store_f64(dtype, (float)v, dst); /* rounded once, not to f64 before */
    }
}

static int64_t dtype_f64_to_i64(double v) {
    if (!(v > -9223372036854775808.0)) return isnan(v) ? 0 : INT64_MIN;
    return v >= 9223372036854775808.0 ? INT64_MAX : (int64_t)v;
}

/* As the kernels' casts: clamped to 32 (or 64) bits of the sign, then cut to the width. */
static int64_t dtype_f64_to_int(tn_dtype dtype, double v) {
    bool is_signed = dtype >= TN_I8;
    double lo = is_signed ? INT32_MIN : 0, hi = is_signed ? INT32_MAX : UINT32_MAX;
    if (dtype == TN_I64) return dtype_f64_to_i64(v);
    return isnan(v) ? 0 : (int64_t)(v < lo ? lo : v > hi ? hi : v);
}

/* To f32 rounded to odd: rounding that to f16 or bf16 equals rounding v once. */
static float dtype_f64_to_odd(double v) {
    float f = (float)v;
    uint32_t u = tni_f32_bits(f);
    if ((double)f == v || isnan(v) || (u & 1)) return f;
    return tni_bits_f32(fabs((double)f) > fabs(v) ? u - 1 : u + 1);
}

void tni_store_f64(tn_dtype dtype, double v, void *dst) {
    switch (dtype) {
    case TN_BOOL:
        *(uint8_t *)dst = v != 0;
        break;
    case TN_F16:
        memcpy(dst, &(uint16_t){tni_f32_to_f16(dtype_f64_to_odd(v))}, 2);
        break;
    case TN_BF16:
        memcpy(dst, &(uint16_t){tni_f32_to_bf16(dtype_f64_to_odd(v))}, 2);
        break;
    case TN_F32:
        memcpy(dst, &(float){(float)v}, 4);
        break;
    case TN_F64:
        memcpy(dst, &v, 8);
        break;
    case TN_C64:
        memcpy(dst, (float[2]){(float)v, 0}, 8);
        break;
    case TN_U64:
        if (v >= 9223372036854775808.0) {
            uint64_t u = v >= 18446744073709551616.0 ? UINT64_MAX : (uint64_t)v;
            memcpy(dst, &u, 8);
            break;
        }
        tni_store_i64(dtype, v > 0 ? (int64_t)v : 0, dst);
        break;
    default:
        tni_store_i64(dtype, dtype_f64_to_int(dtype, v), dst);
    }
}

double tni_load_f64(tn_dtype dtype, const void *src) {
    uint16_t h;
    float f;
    double d;
    uint64_t u;
    switch (dtype) {
    case TN_F16:
        memcpy(&h, src, 2);
        return tni_f16_to_f32(h);
    case TN_BF16:
        memcpy(&h, src, 2);
        return tni_bf16_to_f32(h);
    case TN_F32:
    case TN_C64:
        memcpy(&f, src, 4);
        return f;
    case TN_F64:
        memcpy(&d, src, 8);
        return d;
    case TN_U64:
        memcpy(&u, src, 8);
        return (double)u;
    default:
        return (double)tni_load_i64(dtype, src);
    }
}

int64_t tni_load_i64(tn_dtype dtype, const void *src) {
    uint16_t h;
    uint32_t w;
    int64_t v;
    switch (dtype) {
    case TN_BOOL:
    case TN_U8:
        return *(const uint8_t *)src;
    case TN_I8:
        return *(const int8_t *)src;
    case TN_U16:
        memcpy(&h, src, 2);
        return h;
    case TN_I16:
        memcpy(&h, src, 2);
        return (int16_t)h;
    case TN_U32:
        memcpy(&w, src, 4);
        return w;
    case TN_I32:
        memcpy(&w, src, 4);
        return (int32_t)w;
    case TN_U64:
    case TN_I64:
        memcpy(&v, src, 8);
        return v;
    default:
        return dtype_f64_to_i64(tni_load_f64(dtype, src));
    }
}
